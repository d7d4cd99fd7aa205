//! When there is to be a connection, and what to do when there is none: the task's judgement.

use std::sync::Arc;
use std::time::Duration;

use mqtt_codec::ReasonCode;
use mqtt_session::{
    ConnectRefused, Connected, DisconnectCause, Disconnected, SessionPresence, TransportEnd,
};
use pubsub_core::{
    Continuity, Gap, GapCause, KeepAlive, Network, OfflinePolicy, ProviderError, PublishError,
    WithCauses,
};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Span;

use crate::choices::IdleConnection;
use crate::connect::{Attempt, ConnectError, ConnectErrorKind, CredentialFreshness, Opened, Retry};
use crate::driver::{Away, Link, Open, Parting, Task};
use crate::error::{ConnectRefusal, ConnectionError};
use crate::inbox::Command;
use crate::operations::Flush;
use crate::transport::TransportErrorKind;

/// A connection that the broker accepts and closes within this time was not a good one.
const CUT_SHORT: Duration = Duration::from_secs(5);
/// So many of these in a row look like two clients that throw each other out, if the broker says nothing; and if it says
/// "not authorized", like a refusal.
const CUT_SHORT_TOO_OFTEN: u32 = 3;
/// How long a transport that was given up may take to write its last words.
pub(crate) const PARTING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long "connected" is held back for the answer to subscribing anew. A broker that takes longer is connected all the
/// same.
const RESUBSCRIBE_PATIENCE: Duration = Duration::from_secs(10);
/// Stands for "no deadline" where a moment is needed.
pub(crate) const FAR_AWAY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Task {
    /// Whether something needs a connection right now.
    pub(crate) fn has_work(&self) -> bool {
        if self.closing.is_some() {
            return self.is_publishing();
        }
        self.is_publishing()
            || !self.subscriptions.is_settled()
            || self.session.subscriptions().len() > 0
    }

    /// Whether a publish is still to be settled.
    pub(crate) fn is_publishing(&self) -> bool {
        !self.publishes.is_empty() || !self.unflushed.is_empty()
    }

    /// Whether there is to be a connection.
    pub(crate) fn wants_connection(&self) -> bool {
        self.has_work() || self.stays_connected()
    }

    /// Whether the connection is to stay though nothing needs it.
    pub(crate) fn stays_connected(&self) -> bool {
        self.wanted && self.closing.is_none()
    }

    /// Somebody needs a connection: from now on it is kept as the options say.
    pub(crate) fn demand(&mut self) {
        if self.shared.options.idle == IdleConnection::Keep {
            self.wanted = true;
        }
    }

    #[cold]
    pub(crate) fn connect_asked(&mut self, reply: oneshot::Sender<Result<(), ProviderError>>) {
        if self.is_up() && self.resubscribing_until.is_none() {
            self.completed.operations += 1;
            let _ = reply.send(Ok(()));
            return;
        }
        self.wanted = true;
        self.connect_replies.push(reply);
        if let Link::Waiting { .. } = self.link {
            // Asked by name, it does not wait for the policy's next turn.
            self.link = Link::Waiting { until: self.now };
        }
    }

    #[cold]
    pub(crate) fn network_changed(&mut self, network: Network) {
        self.facts.network(network);
        if network == Network::Up {
            self.backoff.reset();
            if let Link::Waiting { .. } = self.link {
                self.link = Link::Waiting { until: self.now };
            }
        } else if let Link::Connecting { .. } = self.link {
            self.attempt_failed(ConnectionError::NetworkDown);
            return;
        }
        self.report_state(None);
    }

    /// Whether an attempt could be made, as far as the host knows.
    pub(crate) fn may_connect(&self) -> bool {
        self.facts.network == Network::Up
    }

    pub(crate) fn start_if_due(&mut self) -> bool {
        if self.is_reloading() {
            return false;
        }
        if !self.wants_connection() {
            if let Link::Waiting { .. } = self.link {
                self.link = Link::Idle;
                self.facts.failed();
                self.report_state(None);
                return true;
            }
            return false;
        }
        let due = match self.link {
            Link::Idle => true,
            Link::Waiting { until } => until <= self.now,
            _ => false,
        };
        if !due || !self.may_connect() {
            if due && matches!(self.link, Link::Idle) {
                // Wanted, and not to be had: that is "disrupted", not "disconnected".
                self.link = Link::Waiting { until: self.now };
                self.facts.opening();
                self.facts.closed();
                self.report_state(None);
            }
            return false;
        }
        self.start_attempt();
        true
    }

    fn start_attempt(&mut self) {
        self.worth_trying = None;
        self.attempts = self.attempts.saturating_add(1);
        let timeout = self.shared.options.connect_timeout.min(FAR_AWAY);
        let endpoint = self.rounds.next(self.backoff.random());
        let attempt = Attempt::new(Arc::clone(&self.shared.client_id), timeout)
            .numbered(self.attempts, self.freshness)
            .at_endpoint(endpoint);
        // What the attempt itself says belongs to it, from its first poll on.
        self.span = self.connection_span(self.attempts, endpoint);
        let _entered = self.span.clone().entered();
        tracing::debug!(client_id = %self.shared.client_id, attempt = self.attempts, "connecting");
        let connect = Arc::clone(&self.shared.connect);
        self.link = Link::Connecting {
            attempt: Box::pin(async move { connect.connect(&attempt).await }),
            deadline: self.now + timeout,
        };
        self.facts.opening();
        self.report_state(None);
    }

    /// What is logged about a connection and the attempt at it.
    pub(crate) fn connection_span(&self, attempt: u32, endpoint: usize) -> Span {
        tracing::info_span!(
            parent: &self.provider_span,
            "connection",
            connection = self.shared.counters.connections() + 1,
            attempt,
            endpoint = %self.shared.endpoint_name(endpoint),
        )
    }

    pub(crate) fn transport_opened(&mut self, mut opened: Opened, deadline: Instant) {
        if let Some(login) = opened.login.take()
            && let Err(error) = self
                .session
                .set_credentials(login.user_name, login.password)
        {
            let unusable = ConnectError::new(ConnectErrorKind::Configuration).with_source(error);
            return self.attempt_failed(unusable.into());
        }
        self.link = Link::Open(Open::new(opened, deadline, self.now));
        if let Err(error) = self.session.transport_opened(self.timestamp) {
            // The session still has the last one: ours to report, so this cannot be.
            debug_assert!(false, "{error}");
        }
    }

    /// A PINGREQ may have been sent: looks after half of its time whether it was answered.
    pub(crate) fn watch_ping(&mut self) {
        if self.is_up() && self.ping_due.is_none() {
            self.ping_due =
                Some(self.now + (self.shared.options.session.ping_timeout / 2).min(FAR_AWAY));
        }
    }

    pub(crate) fn look_after_ping(&mut self) {
        self.ping_due = None;
        if self.is_up() && self.session.stats().awaits_pingresp {
            self.facts.keep_alive(KeepAlive::Overdue);
            self.report_state(None);
        }
    }

    pub(crate) fn pong(&mut self, round_trip: Duration) {
        self.shared.counters.round_trip(round_trip);
        self.ping_due = None;
        if self.facts.keep_alive == KeepAlive::Overdue {
            self.facts.keep_alive(KeepAlive::Healthy);
            self.report_state(None);
        }
    }

    /// An attempt under way is given up when the last one who wanted it has left.
    pub(crate) fn give_up_if_unwanted(&mut self) -> bool {
        if self.wants_connection() {
            return false;
        }
        self.link = Link::Idle;
        self.facts.failed();
        self.report_state(None);
        true
    }

    pub(crate) fn connected(&mut self, connected: &Connected) {
        let Link::Open(open) = &mut self.link else {
            return;
        };
        open.up_since = Some(self.now);
        let (opened_at, good_for) = (open.opened_at, open.good_for);
        self.plan_renewal(opened_at, good_for);
        self.attempts = 0;
        self.rounds.start_over();
        self.shared.set_endpoint(self.rounds.current());
        self.freshness = CredentialFreshness::Any;
        self.last_error = None;
        self.offline_deadlines.clear();
        self.shared.set_up(true);
        self.shared.counters.connected();
        tracing::info!(
            client_id = %self.shared.client_id,
            session_resumed = connected.session == SessionPresence::Resumed,
            "connected"
        );
        let continuity = match connected.session {
            SessionPresence::Resumed => Continuity::Kept,
            _ => Continuity::Lost,
        };
        let gap = self.away.take().map(|away| {
            let length = self.now.duration_since(away.since);
            self.shared.counters.meters.gap(length, away.cause);
            Gap::new(length, continuity).because_of(away.cause)
        });
        if let (Some(gap), Some(sink)) = (gap, self.shared.sink.get()) {
            sink.gap(gap);
        }
        self.unclaimed_connected(continuity, gap);
        self.stamp_now();
        if connected.session != SessionPresence::Resumed {
            self.subscriptions.overlaps.session_lost();
        }
        if !connected.limits.subscription_identifiers.is_available() {
            self.subscriptions.overlaps.give_up();
        }
        if self.session.is_resubscribing() {
            self.resubscribing_until = Some(self.now + RESUBSCRIBE_PATIENCE);
        } else {
            self.established();
        }
    }

    /// Connected, and the subscriptions stand: who waits for that state may count on both.
    pub(crate) fn established(&mut self) {
        self.resubscribing_until = None;
        self.facts.established();
        self.report_state(None);
        for reply in self.connect_replies.drain(..) {
            self.completed.operations += 1;
            let _ = reply.send(Ok(()));
        }
    }

    pub(crate) fn refused(&mut self, refused: ConnectRefused) {
        self.part();
        self.attempt_failed(ConnectionError::Refused(ConnectRefusal::new(refused)));
    }

    pub(crate) fn disconnected(&mut self, disconnected: Disconnected) {
        let error = match disconnected.cause {
            DisconnectCause::Requested => return self.disconnect_written(),
            // Whoever told the session has told us more.
            DisconnectCause::Transport(_) => return,
            DisconnectCause::Server(server) if server.reason == ReasonCode::SessionTakenOver => {
                ConnectionError::TakenOver
            }
            DisconnectCause::Server(server) => ConnectionError::ServerDisconnect(server.reason),
            DisconnectCause::Error(error) => ConnectionError::Session(error),
            _ => return,
        };
        let was = self.part();
        self.lost(was, error);
    }

    /// The transport has failed, or is to be dropped: tells the session, and goes on from there.
    #[cold]
    pub(crate) fn drop_transport(&mut self, end: TransportEnd, error: ConnectionError) {
        let Link::Open(open) = std::mem::replace(&mut self.link, Link::Idle) else {
            return;
        };
        let was = Was {
            up_since: open.up_since,
            last_received: open.last_received,
        };
        drop(open);
        self.session.transport_closed(end, self.timestamp);
        // What arrived before the end counts.
        self.drain_events();
        let _ = self.deliver();
        self.settle_unflushed(Flush::Lost);
        self.lost(was, error);
    }

    /// Leaves the transport to itself: it writes what it still has to and goes.
    fn part(&mut self) -> Was {
        let Link::Open(mut open) = std::mem::replace(&mut self.link, Link::Idle) else {
            return Was {
                up_since: None,
                last_received: self.now,
            };
        };
        let was = Was {
            up_since: open.up_since,
            last_received: open.last_received,
        };
        self.settle_unflushed(Flush::Lost);
        // At most a DISCONNECT and what is before it; a peer that does not read will not get it.
        while let Some(packet) = self.next_packet() {
            if open.transport.start_send(packet).is_err() {
                return was;
            }
        }
        self.parting = Some(Parting {
            transport: open.transport,
            deadline: self.now + PARTING_TIMEOUT,
        });
        was
    }

    fn lost(&mut self, was: Was, mut error: ConnectionError) {
        let Some(up_since) = was.up_since else {
            error = match error {
                ConnectionError::Transport(closed)
                    if closed.kind() == TransportErrorKind::Closed =>
                {
                    ConnectionError::NoConnack(closed)
                }
                error => error,
            };
            return self.attempt_failed(error);
        };
        let up = self.now.duration_since(up_since);
        self.heard(was.last_received);
        self.stamp_now();
        self.shared.set_up(false);
        self.resubscribing_until = None;
        if self.session.subscriptions().len() > 0 {
            self.away.get_or_insert(Away {
                since: was.last_received,
                cause: GapCause::Loss,
            });
        }
        self.renewing.abandon();
        self.backoff.connection_ended(up);
        let set_aside = self.session.stats().counters.quarantined;
        if set_aside > self.set_aside {
            // What the broker hung up on is known, and not sent again.
            self.backoff.reset();
            self.cut_short = 0;
        } else if up < CUT_SHORT {
            self.cut_short = self.cut_short.saturating_add(1);
        } else {
            self.cut_short = 0;
        }
        self.set_aside = set_aside;
        match error {
            ConnectionError::Transport(_) if self.cut_short >= CUT_SHORT_TOO_OFTEN => {
                error = ConnectionError::TakenOver;
            }
            ConnectionError::ServerDisconnect(reason @ ReasonCode::NotAuthorized)
                if self.cut_short >= CUT_SHORT_TOO_OFTEN =>
            {
                // It was not about a packet.
                error = ConnectionError::Refused(ConnectRefusal::wordless(reason));
            }
            ConnectionError::Transport(_)
            | ConnectionError::ServerDisconnect(ReasonCode::NotAuthorized) => {}
            _ => self.cut_short = 0,
        }
        if let ConnectionError::TakenOver = error {
            self.backoff.skip_the_quick_one();
        }
        self.publishes_go_offline();
        let mut retry = self.judge(&error, self.freshness);
        if error.sends_elsewhere() && self.rounds.avoid_current(self.backoff.random()) {
            retry = Retry::Later;
        }
        self.down(error, retry);
    }

    pub(crate) fn attempt_failed(&mut self, error: ConnectionError) {
        self.link = Link::Idle;
        self.end_of_renewal();
        let retry = self.judge(&error, self.freshness);
        let Some(retry) = self.rounds.failed(retry) else {
            return self.go_on_to_next_endpoint(error, retry);
        };
        let answer = reason_of(&error, retry);
        for reply in std::mem::take(&mut self.connect_replies) {
            self.completed.operations += 1;
            let _ = reply.send(Err(answer.clone()));
        }
        self.down(error, retry);
    }

    /// The round is not over: whoever waits for a connection goes on waiting.
    fn go_on_to_next_endpoint(&mut self, error: ConnectionError, retry: Retry) {
        self.shared.counters.meters.connection_failed();
        tracing::info!(
            client_id = %self.shared.client_id,
            endpoint = %self.shared.endpoint_name(self.rounds.current()),
            error = %WithCauses::new(&error),
            "trying the next endpoint"
        );
        if retry == Retry::WithFreshCredentials {
            self.freshness = CredentialFreshness::Renew;
        }
        self.last_error = Some(reason_of(&error, retry));
        self.link = Link::Waiting { until: self.now };
    }

    /// Whether, and how, to try again after an attempt with such credentials came to this.
    pub(crate) fn judge(&self, error: &ConnectionError, credentials: CredentialFreshness) -> Retry {
        let options = &self.shared.options;
        let default = match credentials {
            _ if options.login.is_none() || !error.blames_credentials() => error.retry(),
            CredentialFreshness::Any => Retry::WithFreshCredentials,
            // Those that were refused were fresh.
            CredentialFreshness::Renew => Retry::Never,
        };
        match &options.on_failure {
            Some(judge) => judge(error, default),
            None => default,
        }
    }

    /// There is no connection any more, or none came about: waits for the next attempt, or stops.
    fn down(&mut self, error: ConnectionError, retry: Retry) {
        self.shared.counters.meters.connection_failed();
        self.facts.closed();
        let reason = reason_of(&error, retry);
        self.last_error = Some(reason.clone());
        if !self.wants_connection() {
            self.link = Link::Idle;
            self.facts.failed();
            self.report_state(Some(reason));
            return;
        }
        let delay = if retry == Retry::Never {
            None
        } else {
            self.backoff.next_delay()
        };
        let Some(delay) = delay else {
            tracing::warn!(client_id = %self.shared.client_id, error = %WithCauses::new(&error), "giving up");
            return self.stop(reason);
        };
        self.freshness = match retry {
            Retry::WithFreshCredentials => CredentialFreshness::Renew,
            _ => CredentialFreshness::Any,
        };
        tracing::info!(client_id = %self.shared.client_id, error = %WithCauses::new(&error), delay = ?delay, "not connected");
        self.worth_trying = self.shared.connect.worth_trying();
        self.link = Link::Waiting {
            until: self.now + delay.min(FAR_AWAY),
        };
        self.report_state(Some(reason));
    }

    /// After giving up nothing is begun until somebody asks for a connection: what the handles had left by then fails too.
    #[cold]
    pub(crate) fn refuse_while_stopped(&mut self, command: Command) -> Option<Command> {
        let Some(reason) = &self.stopped else {
            return Some(command);
        };
        match command {
            Command::Publish { message, settler } => {
                self.completed.messages += 1;
                self.completed.bytes += message.topic.len() + message.payload.len();
                settler.settle(Err(PublishError::NotSent(reason.clone())));
            }
            Command::Operation(operation) => {
                self.completed.operations += 1;
                operation.fail(reason);
            }
            Command::Connect { .. } => {
                self.stopped = None;
                return Some(command);
            }
            Command::Network(_) => return Some(command),
        }
        None
    }

    /// Gives up: fails everything under way and every call until somebody asks for a connection again.
    pub(crate) fn stop(&mut self, reason: ProviderError) {
        self.shared.inbox.stop(reason.clone());
        self.stopped = Some(reason.clone());
        self.link = Link::Idle;
        self.wanted = false;
        self.facts.failed();
        self.fail_everything(&reason);
        self.report_state(Some(reason.clone()));
        let _ = self.deliver();
        if let Some(sink) = self.shared.sink.get() {
            sink.failed(reason);
        }
    }

    /// Settles all that is under way, and starts with a session that knows nothing of it.
    pub(crate) fn fail_everything(&mut self, reason: &ProviderError) {
        self.settle_everything(reason);
        self.tokens.disarm();
        self.unclaimed = None;
        self.subscriptions.overlaps.forget();
        self.away = None;
        self.renewing.abandon();
        if !self.is_done {
            self.session = self.shared.new_session();
            self.set_aside = 0;
        }
        if let Some(keeper) = &mut self.keeper {
            for (pending, _) in keeper.leave_session() {
                let outcome = PublishError::Indeterminate(reason.clone());
                self.settle_pending(pending, Err(outcome));
            }
        }
    }

    pub(crate) fn settle_everything(&mut self, reason: &ProviderError) {
        self.settle_unflushed(Flush::Lost);
        for (id, pending) in std::mem::take(&mut self.publishes).into_all() {
            let outcome = pending.left(reason);
            if let PublishError::NotSent(_) = outcome {
                // Nor is it to be sent now.
                let _ = self.session.cancel_publish(id);
            }
            self.settle_pending(pending, Err(outcome));
        }
        self.completed.operations += self.subscriptions.fail(reason);
        for reply in std::mem::take(&mut self.connect_replies) {
            self.completed.operations += 1;
            let _ = reply.send(Err(reason.clone()));
        }
        self.offline_deadlines.clear();
    }

    /// A subscriber is too slow, and its options say that the broker shall keep what it has not confirmed.
    pub(crate) fn drop_for_slow_subscriber(&mut self) {
        if !self.is_up() {
            return;
        }
        self.drop_transport(TransportEnd::ClosedLocally, ConnectionError::SlowSubscriber);
    }

    pub(crate) fn report_state(&self, reason: Option<ProviderError>) {
        if let Some(sink) = self.shared.sink.get() {
            sink.set_connection_state(self.facts, reason);
        }
    }

    /// What a publish does offline, its own choice or ours.
    pub(crate) fn offline_policy(&self, chosen: OfflinePolicy) -> OfflinePolicy {
        match chosen {
            OfflinePolicy::ProviderDefault => self.shared.options.offline,
            chosen => chosen,
        }
    }
}

/// What is told of a failure: whether trying again is worthwhile is what we do ourselves.
fn reason_of(error: &ConnectionError, retry: Retry) -> ProviderError {
    let retry = match retry {
        Retry::Never => pubsub_core::Retry::Pointless,
        _ => pubsub_core::Retry::Worthwhile,
    };
    ProviderError::from(error.clone()).with_retry(retry)
}

/// What matters of a transport that is gone.
struct Was {
    up_since: Option<Instant>,
    last_received: Instant,
}
