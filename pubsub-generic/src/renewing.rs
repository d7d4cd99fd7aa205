//! Replacing a connection that works, as [`Renewal`](crate::Renewal) says.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use mqtt_session::{Disconnect, TransportEnd};
use pubsub_core::{BoxFuture, GapCause, WithCauses};
use tokio::time::Instant;
use tracing::Span;

use crate::connect::{Attempt, ConnectError, CredentialFreshness, Opened, Retry};
use crate::driver::{Away, Link, Task};
use crate::error::ConnectionError;
use crate::reconnect::Backoff;
use crate::supervisor::FAR_AWAY;
use crate::transport::Transport;

/// How long the old transport may take to say goodbye, while the new one waits. Its DISCONNECT should arrive before the
/// new CONNECT does, or the broker takes us for two clients and publishes the will.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);

/// How far the replacement of the connection has come.
///
/// ```text
/// Resting ──CONNACK──▶ Due ──time──▶ Dialling ──transport──▶ Draining ──empty──▶ Leaving ──closed──▶ Arriving
///    ▲                  ▲                │                                                              │
///    │                  └────failure─────┘                                                              │
///    └──────────────────────────── the connection is lost, or the new one stands ◀──────────────────────┘
/// ```
pub(crate) enum Stage {
    /// No end is known, or nobody could do anything about it.
    Resting,
    Due {
        at: Instant,
        /// The same by the wall clock, which goes on while the machine sleeps. It may be set, too, so it counts only for
        /// the first attempt: however far it jumps, a connection is replaced early once, and retries keep their pace.
        wall: Option<SystemTime>,
    },
    /// The new transport is being opened; the old connection works on.
    Dialling {
        attempt: BoxFuture<'static, Result<Opened, ConnectError>>,
        deadline: Instant,
    },
    /// The old connection begins nothing new.
    Draining { next: Opened, until: Instant },
    /// DISCONNECT is on its way, or the old transport says goodbye.
    Leaving { next: Opened, until: Instant },
    /// CONNECT is on its way on the new transport.
    Arriving,
}

pub(crate) struct Renewing {
    pub(crate) stage: Stage,
    freshness: CredentialFreshness,
    attempts: u32,
    endpoint: usize,
    /// Of the connection to come.
    span: Span,
    backoff: Backoff,
    /// When the old connection ended.
    left_at: Option<Instant>,
}

impl Renewing {
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self {
            stage: Stage::Resting,
            freshness: CredentialFreshness::Any,
            attempts: 0,
            endpoint: 0,
            span: Span::none(),
            backoff,
            left_at: None,
        }
    }

    /// The connection is gone, or is to go for another reason.
    pub(crate) fn abandon(&mut self) {
        self.stage = Stage::Resting;
        self.left_at = None;
    }

    /// Whether there is no connection only because one is being replaced.
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.stage, Stage::Leaving { .. } | Stage::Arriving)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Resting | Stage::Arriving => None,
            // Timers know nothing of the wall clock: it is looked at when something else wakes the task.
            Stage::Due { at, .. } => Some(*at),
            Stage::Dialling { deadline, .. } => Some(*deadline),
            Stage::Draining { until, .. } | Stage::Leaving { until, .. } => Some(*until),
        }
    }
}

impl Task {
    /// A connection stands: plans its replacement, and finishes the one that it may be.
    pub(crate) fn plan_renewal(&mut self, opened_at: Instant, good_for: Option<Duration>) {
        if let Some(left_at) = self.renewing.left_at.take() {
            let gap = self.now.duration_since(left_at);
            self.shared.counters.renewed(gap);
            tracing::info!(client_id = %self.shared.client_id, gap = ?gap, "connection replaced");
        }
        let renewing = &mut self.renewing;
        renewing.attempts = 0;
        renewing.endpoint = self.rounds.current();
        renewing.backoff.reset();
        let policy = &self.shared.options.renewal;
        let begin = policy.begin(opened_at, good_for, renewing.backoff.random());
        renewing.stage = match begin {
            Some((at, freshness)) => {
                renewing.freshness = freshness;
                let wall_now = (self.shared.options.wall_clock)();
                let wall = wall_now.checked_add(at.saturating_duration_since(self.now));
                Stage::Due { at, wall }
            }
            None => Stage::Resting,
        };
    }

    /// Moves the replacement of the connection on. Returns whether there may be more to do at once.
    #[inline]
    pub(crate) fn drive_renewal(&mut self, cx: &mut Context<'_>) -> bool {
        let rests = matches!(self.renewing.stage, Stage::Resting | Stage::Arriving);
        !rests && self.drive_stage(cx)
    }

    #[inline(never)]
    fn drive_stage(&mut self, cx: &mut Context<'_>) -> bool {
        if self.closing.is_some()
            && matches!(
                self.renewing.stage,
                Stage::Due { .. } | Stage::Dialling { .. }
            )
        {
            self.renewing.abandon();
        }
        self.may_have_armed |= !matches!(self.renewing.stage, Stage::Due { .. });
        match &mut self.renewing.stage {
            Stage::Resting | Stage::Arriving => false,
            Stage::Due { at, wall } => {
                let is_due = *at <= self.now
                    || wall.is_some_and(|wall| wall <= (self.shared.options.wall_clock)());
                is_due && self.begin_renewal()
            }
            Stage::Dialling { attempt, deadline } => {
                match self.renewing.span.in_scope(|| attempt.as_mut().poll(cx)) {
                    Poll::Ready(Ok(next)) => {
                        self.session.wind_down();
                        let patience = self.shared.options.renewal.drain_timeout;
                        let until = self.now + patience.min(FAR_AWAY);
                        self.renewing.stage = Stage::Draining { next, until };
                        true
                    }
                    Poll::Ready(Err(error)) => self.renewal_failed(&error.into()),
                    Poll::Pending if *deadline <= self.now => {
                        self.renewal_failed(&ConnectionError::ConnectTimeout)
                    }
                    Poll::Pending => false,
                }
            }
            Stage::Draining { until, .. } => {
                let may_leave = self.session.is_wound_down() || *until <= self.now;
                may_leave && self.leave_for_the_next()
            }
            Stage::Leaving { until, .. } => {
                let is_stuck = matches!(self.link, Link::Open(_)) && *until <= self.now;
                if is_stuck {
                    // The peer does not read.
                    self.drop_transport(TransportEnd::ClosedLocally, ConnectionError::Renewal);
                }
                is_stuck
            }
        }
    }

    fn begin_renewal(&mut self) -> bool {
        self.may_have_armed = true;
        if !self.may_connect() || !self.is_up() {
            // With a network that is gone the connection soon is, too.
            self.renewing.abandon();
            return false;
        }
        let timeout = self.shared.options.connect_timeout.min(FAR_AWAY);
        self.renewing.attempts = self.renewing.attempts.saturating_add(1);
        let attempt = Attempt::new(Arc::clone(&self.shared.client_id), timeout)
            .numbered(self.renewing.attempts, self.renewing.freshness)
            .at_endpoint(self.renewing.endpoint);
        tracing::debug!(client_id = %self.shared.client_id, attempt = self.renewing.attempts, "replacing the connection");
        let connect = Arc::clone(&self.shared.connect);
        self.renewing.span = self.connection_span(self.renewing.attempts, self.renewing.endpoint);
        self.renewing.stage = Stage::Dialling {
            attempt: Box::pin(async move { connect.connect(&attempt).await }),
            deadline: self.now + timeout,
        };
        true
    }

    /// The new transport did not come about. The old connection stands, so there is time to try again.
    fn renewal_failed(&mut self, error: &ConnectionError) -> bool {
        let retry = self.judge(error, self.renewing.freshness);
        self.renewing.endpoint = self.rounds.after(self.renewing.endpoint);
        let delay = match retry {
            Retry::Never => None,
            _ => self.renewing.backoff.next_delay(),
        };
        tracing::warn!(client_id = %self.shared.client_id, error = %WithCauses::new(error), delay = ?delay, "connection not replaced");
        if retry == Retry::WithFreshCredentials {
            self.renewing.freshness = CredentialFreshness::Renew;
        }
        let at = delay.and_then(|delay| self.now.checked_add(delay));
        self.renewing.stage = at.map_or(Stage::Resting, |at| Stage::Due { at, wall: None });
        true
    }

    fn leave_for_the_next(&mut self) -> bool {
        let Stage::Draining { next, .. } =
            std::mem::replace(&mut self.renewing.stage, Stage::Resting)
        else {
            return false;
        };
        let until = self.now + FAREWELL_PATIENCE;
        self.renewing.stage = Stage::Leaving { next, until };
        // It fails only without a connection, and there is one.
        let _ = self
            .session
            .disconnect(Disconnect::default(), self.timestamp);
        true
    }

    /// DISCONNECT has been handed out for the sake of the next connection.
    pub(crate) fn left_for_the_next(&mut self, transport: Box<dyn Transport>) {
        self.renewing.left_at = Some(self.now);
        if self.session.subscriptions().len() > 0 {
            self.away.get_or_insert(Away {
                since: self.now,
                cause: GapCause::Planned,
            });
        }
        self.link = Link::Closing {
            transport,
            deadline: self.now + FAREWELL_PATIENCE,
        };
        self.facts.opening();
        self.report_state(Some(ConnectionError::Renewal.into()));
    }

    /// The old transport is gone, and the next one waits. Returns whether it took over.
    pub(crate) fn arrive(&mut self) -> bool {
        if !matches!(self.renewing.stage, Stage::Leaving { .. }) {
            return false;
        }
        let stage = std::mem::replace(&mut self.renewing.stage, Stage::Arriving);
        let Stage::Leaving { next, .. } = stage else {
            return false;
        };
        self.link = Link::Idle;
        if !self.wants_connection() {
            self.end_of_renewal();
            return false;
        }
        if !self.may_connect() {
            self.attempt_failed(ConnectionError::NetworkDown);
            return true;
        }
        let deadline = self.now + self.shared.options.connect_timeout.min(FAR_AWAY);
        self.rounds.go_to(self.renewing.endpoint);
        self.span = std::mem::replace(&mut self.renewing.span, Span::none());
        self.transport_opened(next, deadline);
        true
    }

    /// The replacement is over, and the next connection did not come about: what waited for it is offline now.
    pub(crate) fn end_of_renewal(&mut self) {
        if !self.renewing.is_between() {
            return;
        }
        self.renewing.abandon();
        if let Some(away) = &mut self.away {
            away.cause = GapCause::Loss;
        }
        self.publishes_go_offline();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use bytes::Bytes;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use super::*;
    use crate::connect::{Connect, ConnectErrorKind};
    use crate::options::MqttOptions;
    use crate::provider::MqttProvider;
    use crate::reconnect::{Jitter, Reconnect};
    use crate::renewal::Renewal;
    use crate::transport::{Received, TransportError};

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);

    thread_local! {
        /// Stands still unless it is set.
        static WALL_CLOCK: Cell<SystemTime> = Cell::new(SystemTime::UNIX_EPOCH + 24 * HOUR);
    }

    fn wall_clock() -> SystemTime {
        WALL_CLOCK.get()
    }

    /// A provider whose connections are replaced after 59 minutes and that pings each minute, and when it tries to connect.
    fn connecting_to(peer: Peer) -> MqttProvider {
        let mut options = MqttOptions::without_url()
            .keep_alive(MINUTE)
            .reconnect(Reconnect::default().jitter(Jitter::None))
            .renewal(Renewal::default().max_age(HOUR).jitter(Jitter::None));
        options.wall_clock = wall_clock;
        MqttProvider::with_connect(options, peer).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_slept_past_the_limit_replaces_the_connection_when_it_wakes_and_once() {
        let (peer, mut attempts) = Peer::new([]);
        let provider = connecting_to(peer);
        provider.connect().await.unwrap();
        let first = attempts.recv().await.unwrap();
        tokio::time::sleep(10 * MINUTE + MINUTE / 2).await;
        let woke = Instant::now();
        WALL_CLOCK.set(wall_clock() + 8 * HOUR);
        let second = attempts.recv().await.unwrap();
        assert!(second - woke <= MINUTE, "{:?}", second - woke);
        assert!(second - first < 12 * MINUTE, "{:?}", second - first);
        // The next one's life begins at the time that it is now.
        let third = attempts.recv().await.unwrap();
        assert_eq!((third - second).as_secs(), 59 * 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_is_set_back_puts_nothing_off() {
        let (peer, mut attempts) = Peer::new([]);
        let provider = connecting_to(peer);
        provider.connect().await.unwrap();
        let first = attempts.recv().await.unwrap();
        WALL_CLOCK.set(SystemTime::UNIX_EPOCH);
        let second = attempts.recv().await.unwrap();
        assert_eq!((second - first).as_secs(), 59 * 60);
    }

    #[tokio::test(start_paused = true)]
    async fn past_the_limit_by_the_wall_clock_failures_keep_their_pace() {
        let (peer, mut attempts) = Peer::new([false, true, true, true]);
        let provider = connecting_to(peer);
        provider.connect().await.unwrap();
        attempts.recv().await.unwrap();
        WALL_CLOCK.set(wall_clock() + 8 * HOUR);
        let mut last = attempts.recv().await.unwrap();
        for pace in [250, 1000, 2000] {
            let next = attempts.recv().await.unwrap();
            let waited = (next - last).as_millis();
            assert!((pace..pace + 20).contains(&waited), "{waited} ms");
            last = next;
        }
    }

    /// Lets everybody in, and answers pings. Says when it was tried to connect to.
    struct Peer {
        attempts: UnboundedSender<Instant>,
        /// Whether the next attempts fail.
        failures: Mutex<VecDeque<bool>>,
    }

    impl Peer {
        fn new<const N: usize>(failures: [bool; N]) -> (Self, UnboundedReceiver<Instant>) {
            let (attempts, told) = unbounded_channel();
            let failures = Mutex::new(VecDeque::from(failures));
            (Self { attempts, failures }, told)
        }
    }

    impl Connect for Peer {
        fn connect<'a>(&'a self, _: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>> {
            let _ = self.attempts.send(Instant::now());
            let fails = self.failures.lock().unwrap().pop_front();
            Box::pin(async move {
                match fails {
                    Some(true) => Err(ConnectError::new(ConnectErrorKind::Dial)),
                    _ => Ok(Opened::new(Answering(unbounded_channel()))),
                }
            })
        }
    }

    struct Answering((UnboundedSender<Bytes>, UnboundedReceiver<Bytes>));

    impl Transport for Answering {
        fn poll_receive(
            &mut self,
            cx: &mut Context<'_>,
            chunks: &mut Vec<Bytes>,
        ) -> Poll<Result<Received, TransportError>> {
            self.0.1.poll_recv(cx).map(|chunk| {
                chunks.extend(chunk);
                Ok(Received::Chunks)
            })
        }

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
            Poll::Ready(Ok(()))
        }

        fn start_send(&mut self, chunk: Bytes) -> Result<(), TransportError> {
            let answer: &[u8] = match chunk[0] {
                0x10 => &[0x20, 2, 0, 0],
                0xc0 => &[0xd0, 0],
                _ => return Ok(()),
            };
            self.0.0.send(Bytes::from_static(answer)).unwrap();
            Ok(())
        }

        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
            Poll::Ready(Ok(()))
        }
    }
}
