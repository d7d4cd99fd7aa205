//! What a slow subscriber may cost, what happens beyond that, and what it came to.

use std::time::Duration;

use crate::provider::Gap;

/// How many messages may wait for a slow subscriber, and what happens to one too many.
///
/// It concerns messages [at most once](crate::QoS::AtMostOnce); for the others see [`HoldLimits`]. Bytes are
/// counted as topic plus payload plus 64 for each message. A message that waits for long keeps at most four times its
/// counted bytes alive; those of the last batch share the buffer they came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueLimits {
    /// At most this many messages; 10,000 by default, a burst that an application of moderate speed
    /// works off in a fraction of a second.
    pub messages: usize,
    /// At most this many bytes; 16 MiB by default. A single larger message fits an empty queue.
    pub bytes: usize,
    /// What happens to one too many.
    pub policy: OverflowPolicy,
}

impl QueueLimits {
    /// These limits with another number of messages.
    #[must_use]
    pub fn with_messages(mut self, messages: usize) -> Self {
        self.messages = messages;
        self
    }

    /// These limits with another number of bytes.
    #[must_use]
    pub fn with_bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// These limits with another policy.
    #[must_use]
    pub fn with_policy(mut self, policy: OverflowPolicy) -> Self {
        self.policy = policy;
        self
    }
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            messages: 10_000,
            bytes: 16 << 20,
            policy: OverflowPolicy::default(),
        }
    }
}

/// What happens when a message [at most once](crate::QoS::AtMostOnce) finds the queue full.
///
/// What is dropped is counted, see [`SubscriptionStats::dropped`], and shows as
/// [`Event::Lagged`](crate::Event::Lagged).
///
/// The stream takes up to 256 messages out of the queue at a time and yields them one by one. Those count against the limits
/// until they are yielded, but are neither dropped nor replaced any more: so a stream that is polled may yield as many that
/// are older than what was dropped meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OverflowPolicy {
    /// The oldest ones make room: for values that age.
    #[default]
    DropOldest,
    /// It is dropped itself: for sequences whose beginning matters.
    DropNewest,
    /// A message replaces the one of the same topic that waits, full or not; when every topic is there
    /// once and the queue is still full, the oldest makes room. For states.
    LatestPerTopic,
    /// The subscription ends with [`Overflow::QueueFull`](crate::Overflow::QueueFull): for consumers that cannot do with holes.
    End,
}

/// How many messages a slow subscriber may hold back from confirmation, and what happens beyond that.
///
/// A message [at least once](crate::QoS::AtLeastOnce) or [exactly once](crate::QoS::ExactlyOnce) is confirmed when
/// every subscriber has taken it from its stream. Those not taken yet are held here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HoldLimits {
    /// At most this many messages; 10,000 by default.
    pub messages: usize,
    /// At most this many bytes, counted as in [`QueueLimits`]; 16 MiB by default. A single larger
    /// message fits an empty queue.
    pub bytes: usize,
    /// At most this long, measured by the provider's clock and as coarse as that; five minutes by
    /// default, so that one forgotten stream does not use up for ever what the connection shares.
    pub time: Duration,
    /// What happens beyond that.
    pub policy: HoldPolicy,
}

impl HoldLimits {
    /// These limits with another number of messages.
    #[must_use]
    pub fn with_messages(mut self, messages: usize) -> Self {
        self.messages = messages;
        self
    }

    /// These limits with another number of bytes.
    #[must_use]
    pub fn with_bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// These limits with another time.
    #[must_use]
    pub fn with_time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// These limits with another policy.
    #[must_use]
    pub fn with_policy(mut self, policy: HoldPolicy) -> Self {
        self.policy = policy;
        self
    }
}

impl Default for HoldLimits {
    fn default() -> Self {
        Self {
            messages: 10_000,
            bytes: 16 << 20,
            time: Duration::from_secs(300),
            policy: HoldPolicy::default(),
        }
    }
}

/// What happens when a subscriber holds back too much, or too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HoldPolicy {
    /// The subscription ends with an [`Overflow`](crate::Overflow) error, behind what it still has. That is held back no
    /// longer: it is confirmed if another subscriber has it, and otherwise counts as dropped.
    #[default]
    End,
    /// The oldest are confirmed without having been taken, dropped, counted and shown as
    /// [`Event::Lagged`](crate::Event::Lagged).
    Release,
    /// The provider is asked to drop its connection and resume, so that the other side keeps what does
    /// not fit and sends it again. Every subscriber of that provider sees the gap.
    DropConnection,
}

/// Counters of one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionStats {
    /// Messages given to the queue.
    pub received: u64,
    /// Messages that the overflow policy dropped, those replaced by a later one of their topic included.
    pub dropped: u64,
    /// Messages that the hold policy released without their having been taken.
    pub released: u64,
    /// Messages waiting now.
    pub queued: usize,
    /// The bytes of those, counted as in [`QueueLimits`].
    pub queued_bytes: usize,
    /// Gaps so far.
    pub gaps: u64,
    /// The last gap.
    pub last_gap: Option<Gap>,
}

/// What a subscription does about slowness; fixed when it is made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) queue: QueueLimits,
    pub(crate) hold: HoldLimits,
}
