//! Subscriptions: what the caller asks for, and what it is told.

use std::sync::Arc;

use mqtt_codec::{QoS, ReasonCode, RetainHandling, SubscriptionId};

/// One Topic Filter of a `subscribe` call, with its options.
///
/// ```
/// use mqtt_codec::QoS;
/// use mqtt_session::Subscription;
///
/// let subscription = Subscription::new("greenhouse/+/temperature", QoS::AtLeastOnce);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscription {
    /// The Topic Filter. `$share/NAME/FILTER` is a shared subscription.
    pub filter: Arc<str>,
    /// The highest QoS to deliver with.
    pub qos: QoS,
    /// Whether our own messages come back (5.0). Default: they do.
    pub no_local: NoLocal,
    /// What the retain flag of a delivered message says (5.0). Default: [`RetainAsPublished::Clear`], as before 5.0.
    pub retain_as_published: RetainAsPublished,
    /// Whether retained messages are sent (5.0). Default: whenever it is subscribed.
    pub retain_handling: RetainHandling,
}

impl Subscription {
    /// A filter with the options that every version knows.
    pub fn new(filter: impl Into<Arc<str>>, qos: QoS) -> Self {
        Self {
            filter: filter.into(),
            qos,
            no_local: NoLocal::Off,
            retain_as_published: RetainAsPublished::Clear,
            retain_handling: RetainHandling::SendAtSubscribe,
        }
    }

    pub(crate) fn needs_v5(&self) -> bool {
        self.no_local != NoLocal::Off
            || self.retain_as_published != RetainAsPublished::Clear
            || self.retain_handling != RetainHandling::SendAtSubscribe
    }
}

/// Whether messages that this client published are kept from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "one bit")]
pub enum NoLocal {
    /// They are.
    On,
    /// They come back like any other.
    Off,
}

/// What the retain flag of a delivered message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "one bit")]
pub enum RetainAsPublished {
    /// What its publisher said.
    Keep,
    /// Set only on messages that the broker sends because of the subscription itself.
    Clear,
}

/// What became of one filter of a `subscribe` call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscribeResult {
    /// The filter.
    pub filter: Arc<str>,
    /// What became of it.
    pub outcome: SubscribeOutcome,
}

/// What the broker said to one filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeOutcome {
    /// Granted, with at most this QoS.
    Granted(QoS),
    /// Refused. (Before 5.0 always [`ReasonCode::UnspecifiedError`].)
    Refused(ReasonCode),
    /// The broker hung up at as many consecutive attempts as
    /// [`Config::quarantine_after`](crate::Config::quarantine_after) allows, the last time with this filter alone. It is not
    /// sent again.
    Quarantined,
    /// `unsubscribe` was called before the broker had answered, and the filter had not been sent yet.
    Cancelled,
    /// The broker that the filter waited for does not support it or its options.
    NotSent(crate::SubscribeError),
}

/// What became of the session's own subscribing after a reconnect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resubscribed {
    /// One result per filter.
    pub results: Vec<SubscribeResult>,
}

/// What became of one filter of an `unsubscribe` call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnsubscribeResult {
    /// The filter.
    pub filter: Arc<str>,
    /// What the broker said. Before 5.0 always success.
    pub reason: ReasonCode,
}

/// The registry's own view of a filter that the session wants to be subscribed to.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) subscription: Subscription,
    pub(crate) id: Option<SubscriptionId>,
    /// The operation that asked for it last; its outcome decides.
    pub(crate) asked_by: u64,
    pub(crate) granted: Option<QoS>,
    /// The broker lost the session, and has not granted this again since.
    pub(crate) is_owed: bool,
    pub(crate) strikes: u8,
}
