//! The work of a connection, which owns the socket and the session. A task is spawned for it; [`seat`](crate::seat) says who
//! else may poll it.
//!
//! A poll of it is a few *rounds* of the same steps: take what the handles left, drive the link (connect, or receive), let
//! the session's clock tick, hand on its events, write. Each step does a bounded amount of work a round, in both
//! directions, so that neither a flood of messages nor a flood of publishes can hold up the other; and what all rounds of
//! a poll have received is delivered once, and what they have written is flushed once, at its end. Reading never waits for
//! anything but the socket.

mod deadlines;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mqtt_codec::ProtocolVersion;
use mqtt_session::{PublishId, Session, Timestamp, TransportEnd};
use pubsub_core::{
    BoxFuture, ConnectionFacts, Demand, GapCause, OfflinePolicy, ProviderError, PublishSettler,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};
use tracing::Span;

use crate::connect::{ConnectError, CredentialFreshness, Opened};
use crate::endpoints::Rounds;
use crate::error::ConnectionError;
use crate::inbox::{Batch, Load};
use crate::intake::Incoming;
use crate::keeper::{Keeper, Kept, Restored};
use crate::operations::Flush;
use crate::overlap::Overlaps;
use crate::pending::Pending;
use crate::provider::Shared;
use crate::reconnect::Backoff;
use crate::renewing::Renewing;
use crate::seat::{News, Work};
use crate::subscriptions::Subscriptions;
use crate::supervisor::FAR_AWAY;
use crate::tokens::Tokens;
use crate::transport::{Received, Transport, TransportError, TransportErrorKind};
use crate::unclaimed::Unclaimed;

/// Rounds in one poll before other tasks of the runtime get a turn.
const MAX_ROUNDS: usize = 16;
/// Messages handed to subscribers in one poll before these get a turn to take them. On a runtime with one thread they could
/// not otherwise, and their queues would run over in a burst that they are well able to follow.
const MAX_MESSAGES_A_POLL: usize = 128;
/// Bytes received in one poll before that turn: of large messages fewer are in the cache, and in memory, at a time.
const MAX_BYTES_A_POLL: usize = 128 * 1024;
/// How often core is told the time while it holds receipts.
pub(crate) const CLOCK_TICK: Duration = Duration::from_secs(1);

pub(crate) struct Task {
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: Session,
    /// The origin of the session's time.
    pub(crate) origin: Instant,
    /// The time of this round.
    pub(crate) now: Instant,
    /// The session's view of it.
    pub(crate) timestamp: Timestamp,

    pub(crate) link: Link,
    pub(crate) parting: Option<Parting>,
    pub(crate) facts: ConnectionFacts,
    pub(crate) backoff: Backoff,
    pub(crate) rounds: Rounds,
    /// Attempts since the last connection that stood.
    pub(crate) attempts: u32,
    pub(crate) freshness: CredentialFreshness,
    /// Connections in a row that the broker accepted and soon closed without a word.
    pub(crate) cut_short: u32,
    /// Ends the wait for the next attempt.
    pub(crate) worth_trying: Option<BoxFuture<'static, ()>>,
    /// What the session has set aside so far.
    pub(crate) set_aside: u64,
    /// The end of the last connection or attempt, until one stands.
    pub(crate) last_error: Option<ProviderError>,
    /// Set while there is no connection and something to miss.
    pub(crate) away: Option<Away>,
    pub(crate) renewing: Renewing,
    pub(crate) provider_span: Span,
    /// Of the connection, or of the attempt at one.
    pub(crate) span: Span,
    /// While subscriptions are made anew: until when their answer is waited for.
    pub(crate) resubscribing_until: Option<Instant>,
    /// Somebody asked for the connection, and it is to stay.
    pub(crate) wanted: bool,
    /// Since when nobody has needed the connection.
    pub(crate) idle_since: Option<Instant>,
    pub(crate) closing: Option<Closing>,
    /// The provider has given up, for this reason.
    pub(crate) stopped: Option<ProviderError>,
    /// When to look whether a PINGREQ was answered.
    pub(crate) ping_due: Option<Instant>,
    /// It has come to its end in order.
    pub(crate) is_done: bool,
    pub(crate) connect_replies: Vec<oneshot::Sender<Result<(), ProviderError>>>,

    pub(crate) batch: Batch,
    pub(crate) completed: Load,
    pub(crate) publishes: Pending<PendingPublish>,
    /// Of those that the acknowledgements at hand end. Empty between rounds.
    pub(crate) delivered_now: Vec<PublishSettler>,
    /// At QoS 0, taken by the transport, which may still have them in its buffer. Empty without one.
    pub(crate) unflushed: Unflushed,
    /// When which publish stops waiting for a connection. Empty while there is one.
    pub(crate) offline_deadlines: BTreeSet<(Instant, PublishId)>,
    pub(crate) subscriptions: Subscriptions,
    /// With a session store.
    pub(crate) keeper: Option<Box<Keeper>>,
    /// Subscriptions that came back from the store, until somebody subscribes to them again.
    pub(crate) unclaimed: Option<Box<Unclaimed>>,

    pub(crate) tokens: Tokens,
    pub(crate) incoming: Incoming,
    /// How many messages this poll has handed on.
    pub(crate) delivered: usize,
    /// How many bytes this poll has received.
    received: usize,
    /// How many publishes this poll has taken from the handles.
    pub(crate) taken_up: usize,
    /// This poll has left something for later.
    has_yielded: bool,
    pub(crate) clock_due: Option<Instant>,
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) output: BytesMut,
    sleep: Pin<Box<Sleep>>,
    /// `sleep` has been polled since it was set, and wakes whoever polls at this moment; `None` before the first.
    timed_for: Option<Instant>,
    /// The earliest deadline when it was last looked for. One that is set later is looked for at the end of that poll.
    quiet_until: Instant,
    /// Since then an earlier one may have been set. All do that but a publish that goes straight through and plain messages:
    /// these put the keep alive off, at most.
    pub(crate) may_have_armed: bool,
    /// The handles ring the bell for what they leave. Otherwise the queue has to be looked at before going to sleep.
    pub(crate) is_listening: bool,
}

/// Where the connection stands.
///
/// ```text
/// Idle ──wanted──▶ Connecting ──transport──▶ Open ──not wanted──▶ Closing ──▶ Idle
///   ▲                │    ▲                   │
///   └──not wanted──Waiting┴──failure, loss────┘
/// ```
pub(crate) enum Link {
    /// There is none, and nobody wants one.
    Idle,
    /// The next attempt waits for its time.
    Waiting {
        until: Instant,
    },
    Connecting {
        attempt: BoxFuture<'static, Result<Opened, ConnectError>>,
        deadline: Instant,
    },
    Open(Open),
    /// DISCONNECT has been written; the transport says goodbye.
    Closing {
        transport: Box<dyn Transport>,
        deadline: Instant,
    },
}

/// A time without connection.
pub(crate) struct Away {
    /// Since when nothing can have arrived.
    pub(crate) since: Instant,
    pub(crate) cause: GapCause,
}

/// A transport that stands.
pub(crate) struct Open {
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) opened_at: Instant,
    pub(crate) good_for: Option<Duration>,
    /// By when the CONNACK has to be there.
    pub(crate) deadline: Instant,
    /// Since when MQTT has been connected; `None` until the CONNACK.
    pub(crate) up_since: Option<Instant>,
    pub(crate) last_received: Instant,
    /// Nothing more had arrived when it was last asked; what arrives later wakes whoever polls for more than the handles.
    is_drained: bool,
    pub(crate) unflushed: bool,
    /// It takes no more for the rest of this round.
    pub(crate) is_full: bool,
}

/// A transport that is given up, and still has a DISCONNECT to write. It does not hold up its successor.
pub(crate) struct Parting {
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) deadline: Instant,
}

/// `close` was called.
pub(crate) struct Closing {
    /// Until when what was accepted is sent.
    pub(crate) deadline: Instant,
    /// When all is over, whatever the peer does.
    pub(crate) end: Instant,
    /// Something accepted could not be sent or confirmed.
    pub(crate) left_over: bool,
}

pub(crate) struct PendingPublish {
    pub(crate) settler: PublishSettler,
    pub(crate) bytes: usize,
    pub(crate) offline: OfflinePolicy,
    /// Whether it has been handed to a transport.
    pub(crate) written: bool,
    pub(crate) kept: Kept,
}

/// Publishes at QoS 0 that a transport has taken.
#[derive(Default)]
pub(crate) struct Unflushed {
    pub(crate) settlers: Vec<PublishSettler>,
    /// Of all of them.
    pub(crate) bytes: usize,
}

impl Unflushed {
    #[inline]
    pub(crate) fn push(&mut self, settler: PublishSettler, bytes: usize) {
        self.settlers.push(settler);
        self.bytes += bytes;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.settlers.is_empty()
    }
}

impl Task {
    pub(crate) fn new(shared: Arc<Shared>, session: Session, mut backoff: Backoff) -> Self {
        let now = Instant::now();
        let options = &shared.options;
        let overlaps = Overlaps::new(
            options.session.version == ProtocolVersion::V5,
            options.copies,
            options.matching,
        );
        let provider_span = tracing::info_span!(
            parent: None,
            "provider",
            provider = %shared.name(),
            client_id = %shared.client_id,
        );
        let rounds = Rounds::new(shared.connect.endpoints(), options.endpoint_order);
        Self {
            shared,
            session,
            origin: now,
            now,
            timestamp: Timestamp::ZERO,
            link: Link::Idle,
            parting: None,
            facts: ConnectionFacts::new(),
            renewing: Renewing::new(backoff.sibling()),
            span: provider_span.clone(),
            provider_span,
            backoff,
            rounds,
            attempts: 0,
            freshness: CredentialFreshness::Any,
            cut_short: 0,
            worth_trying: None,
            set_aside: 0,
            last_error: None,
            away: None,
            resubscribing_until: None,
            wanted: false,
            idle_since: None,
            closing: None,
            stopped: None,
            ping_due: None,
            is_done: false,
            connect_replies: Vec::new(),
            batch: Batch::default(),
            completed: Load::default(),
            publishes: Pending::default(),
            delivered_now: Vec::new(),
            unflushed: Unflushed::default(),
            offline_deadlines: BTreeSet::new(),
            subscriptions: Subscriptions::new(overlaps),
            keeper: None,
            unclaimed: None,
            tokens: Tokens::default(),
            incoming: Incoming::default(),
            delivered: 0,
            received: 0,
            taken_up: 0,
            has_yielded: false,
            clock_due: None,
            chunks: Vec::new(),
            output: BytesMut::new(),
            // Set anew for the first deadline.
            sleep: Box::pin(tokio::time::sleep_until(now + FAR_AWAY)),
            timed_for: None,
            quiet_until: now,
            may_have_armed: true,
            is_listening: false,
        }
    }

    /// With a store, and what it had. The session was made of that at `origin`.
    pub(crate) fn keep_with(&mut self, keeper: Keeper, restored: Restored, origin: Instant) {
        self.origin = origin;
        self.timestamp = self.timestamp_now();
        self.keeper = Some(Box::new(keeper));
        self.adopt(restored);
    }

    /// The session's view of this time.
    fn timestamp_now(&self) -> Timestamp {
        Timestamp::from_origin(self.now.duration_since(self.origin))
    }

    /// Whether MQTT is connected.
    pub(crate) fn is_up(&self) -> bool {
        matches!(&self.link, Link::Open(open) if open.up_since.is_some())
    }

    /// One round. Returns whether there may be more to do at once.
    fn round(&mut self, cx: &mut Context<'_>) -> bool {
        self.now = Instant::now();
        self.timestamp = self.timestamp_now();
        let mut more = self.take_requests(cx);
        more |= self.drive_link(cx);
        more |= self.drive_renewal(cx);
        more |= self.follow_deadlines();
        more |= self.drain_events();
        more |= self.transmit(cx);
        // What was written may complete publishes at once (QoS 0), and end the connection (DISCONNECT).
        more |= self.drain_events();
        more |= self.keep(cx);
        more
    }

    /// Moves the link on by what its transport or its attempt has to say.
    #[inline]
    fn drive_link(&mut self, cx: &mut Context<'_>) -> bool {
        match &self.link {
            Link::Open(open) if self.parting.is_none() => {
                if open.is_drained && open.up_since.is_some() {
                    return self.close_if_idle();
                }
                self.receive(cx)
            }
            _ => self.drive_any_link(cx),
        }
    }

    #[inline(never)]
    fn drive_any_link(&mut self, cx: &mut Context<'_>) -> bool {
        self.may_have_armed = true;
        if let Some(parting) = &mut self.parting
            && (parting.transport.poll_close(cx).is_ready() || self.now >= parting.deadline)
        {
            self.parting = None;
        }
        if let Link::Waiting { until } = &mut self.link
            && let Some(worth_trying) = &mut self.worth_trying
            && worth_trying.as_mut().poll(cx).is_ready()
        {
            self.worth_trying = None;
            *until = self.now;
        }
        // An attempt that begins is polled at once.
        let has_moved =
            matches!(self.link, Link::Idle | Link::Waiting { .. }) && self.start_if_due();
        match &mut self.link {
            Link::Idle | Link::Waiting { .. } => has_moved,
            Link::Connecting { attempt, deadline } => match attempt.as_mut().poll(cx) {
                Poll::Ready(Ok(opened)) => {
                    let deadline = *deadline;
                    self.transport_opened(opened, deadline);
                    true
                }
                Poll::Ready(Err(error)) => {
                    self.attempt_failed(error.into());
                    true
                }
                Poll::Pending if self.now >= *deadline => {
                    self.attempt_failed(ConnectionError::ConnectTimeout);
                    true
                }
                Poll::Pending => self.give_up_if_unwanted(),
            },
            Link::Open(_) => self.receive(cx),
            Link::Closing {
                transport,
                deadline,
            } => {
                let flushed = match self.unflushed.is_empty() {
                    true => Poll::Pending,
                    false => transport.poll_flush(cx),
                };
                // After an error a transport is not polled again.
                let is_closed = matches!(flushed, Poll::Ready(Err(_)))
                    || transport.poll_close(cx).is_ready()
                    || self.now >= *deadline;
                if let Poll::Ready(Ok(())) = flushed {
                    self.settle_unflushed(Flush::Done);
                }
                if is_closed {
                    self.settle_unflushed(Flush::Lost);
                    self.closed_as_asked();
                }
                is_closed
            }
        }
    }

    /// Takes one batch off the transport, through the session, to the subscribers.
    #[inline(never)]
    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        let Link::Open(open) = &mut self.link else {
            return false;
        };
        let received = match open.is_drained {
            true => Poll::Pending,
            false => open.transport.poll_receive(cx, &mut self.chunks),
        };
        let received = match received {
            Poll::Ready(received) => received,
            Poll::Pending => {
                open.is_drained = true;
                if open.up_since.is_none() && self.now >= open.deadline {
                    self.drop_transport(TransportEnd::Failed, ConnectionError::ConnectTimeout);
                    return true;
                }
                return self.close_if_idle();
            }
        };
        match received {
            Ok(received @ (Received::Chunks | Received::Drained)) => {
                open.is_drained = received == Received::Drained;
                open.last_received = self.now;
                let len = self.chunks.iter().map(Bytes::len).sum();
                self.received += len;
                self.shared.counters.bytes_received(len);
                let has_events = self.handle_chunks();
                let makes_room = has_events && self.subscriptions.is_waiting_for_room();
                if received == Received::Drained && self.is_up() && !makes_room {
                    // The rest of this round is enough for what it leads to.
                    return self.close_if_idle();
                }
            }
            Ok(Received::End) => {
                let closed = TransportError::new(TransportErrorKind::Closed);
                self.drop_transport(TransportEnd::ClosedByPeer, closed.into());
            }
            Err(error) => self.transport_failed(error),
        }
        true
    }

    #[cold]
    pub(crate) fn transport_failed(&mut self, error: TransportError) {
        let end = match error.kind() {
            TransportErrorKind::Closed => TransportEnd::ClosedByPeer,
            _ => TransportEnd::Failed,
        };
        self.drop_transport(end, error.into());
    }

    /// There is more to do, after the others.
    #[inline(never)]
    fn give_way(&mut self, cx: &mut Context<'_>) {
        let _ = self.deliver();
        let _ = self.flush(cx);
        self.quiet_until = self.now;
        // Polled once, this asks to be woken when all of them have had their turn, the future in `block_on` and the sockets
        // included; waking ourselves would come before these.
        let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
        self.has_yielded = true;
    }

    /// Has the handles ring the bell for what they leave from now on, unless they have left something. Returns whether the
    /// task may go to sleep.
    #[inline]
    fn listen(&mut self, bell: &Waker) -> bool {
        // Since it has last listened it has taken nothing, and so the bell is still to be rung, or has been.
        if !self.is_listening || self.completed != Load::default() {
            self.is_listening =
                self.shared
                    .inbox
                    .sleep(bell, self.batch.farewell, &mut self.completed);
        }
        self.is_listening
    }
}

impl Open {
    pub(crate) fn new(opened: Opened, deadline: Instant, now: Instant) -> Self {
        Self {
            transport: opened.transport,
            opened_at: opened.since,
            good_for: opened.good_for,
            deadline,
            up_since: None,
            last_received: now,
            is_drained: false,
            unflushed: false,
            is_full: false,
        }
    }
}

impl Work for Task {
    fn poll(&mut self, cx: &mut Context<'_>, bell: &Waker, news: News) -> Poll<()> {
        let _entered = self.span.clone().entered();
        self.delivered = 0;
        self.received = 0;
        self.taken_up = 0;
        self.has_yielded = false;
        if let Link::Open(open) = &mut self.link
            && news == News::Any
        {
            open.is_drained = false;
        }
        for _ in 0..MAX_ROUNDS {
            // What has come in meanwhile goes with the same flush.
            let more = self.round(cx) || self.shared.inbox.has_news() || self.flush(cx);
            if self.is_finished() {
                let _ = self.deliver();
                self.finish();
                return Poll::Ready(());
            }
            if more {
                if self.delivered + self.incoming.deliveries.len() >= MAX_MESSAGES_A_POLL
                    || self.received >= MAX_BYTES_A_POLL
                {
                    break;
                }
                continue;
            }
            if self.deliver() == Demand::DropConnection {
                continue;
            }
            // What was completed may have been the last thing that kept the connection.
            let may_part = self.completed != Load::default() && !self.stays_connected();
            if !self.sleep(cx) && !may_part && self.listen(bell) {
                let ids = self.session.packet_ids_in_use();
                self.shared.counters.packet_ids(ids);
                #[cfg(feature = "metrics")]
                self.shared
                    .counters
                    .meters
                    .pending(self.shared.inbox.load());
                return Poll::Pending;
            }
        }
        self.give_way(cx);
        Poll::Pending
    }

    /// To connect stays with the task: it runs what others have written, and that may take its time.
    fn is_shared(&self) -> bool {
        matches!(self.link, Link::Open(_) | Link::Closing { .. })
    }

    fn taken_up(&self) -> usize {
        self.taken_up
    }

    fn delivered(&self) -> usize {
        self.delivered
    }

    fn has_yielded(&self) -> bool {
        self.has_yielded
    }
}
