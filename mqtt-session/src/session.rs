//! The machine: its state, its lifecycle and its commands.

use core::fmt;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use mqtt_codec::{
    PacketId, PropertyBuf, PropertyScope, ProtocolVersion, ReasonCode, SharedTopicName,
};

use crate::config::{CleanStart, Config, ConfigError};
use crate::connection::{Connection, Phase, PingState};
use crate::control::{Blame, Control};
use crate::early::Haste;
use crate::error::{ConnectionError, StateError, Timeout};
use crate::event::{
    ConnectionStage, DisconnectCause, Disconnected, Event, Indeterminate, PublishId,
    PublishOutcome, TransportEnd,
};
use crate::inbound::ReceivedQoS2;
use crate::keep_alive::KeepAliveAction;
use crate::outbound::{InFlight, Stage, Waiting};
use crate::persist::{Persister, RecordKey};
use crate::skip::Undecodable;
use crate::stats::Counters;
use crate::time::{Timestamp, earlier};

/// An MQTT client without sockets, clocks or randomness: bytes and commands in, bytes and events out.
///
/// One `Session` lives as long as the client. Network Connections come and go inside it; what is in flight, what waits and
/// what is subscribed outlives them.
///
/// # Driving it
///
/// Inputs: [`transport_opened`](Self::transport_opened), [`transport_closed`](Self::transport_closed),
/// [`handle_input`](Self::handle_input) (or [`handle_input_with`](Self::handle_input_with), which spares messages the queue of
/// events, and before it [`plain_messages`](Self::plain_messages)), [`handle_timeout`](Self::handle_timeout). Commands:
/// `publish`, `subscribe`, and so on.
/// Outputs: [`poll_event`](Self::poll_event), [`poll_transmit`](Self::poll_transmit), [`poll_timeout`](Self::poll_timeout).
///
/// After any input or command, drain the outputs **in this order**: events until `None`, then bytes until zero, then
/// events again (writing reports, too), then set one timer. Calling anything too often or in another order is harmless:
/// nothing is lost, at worst something is late.
///
/// ```
/// use bytes::{Bytes, BytesMut};
/// use mqtt_session::{Event, InputProgress, Session, Timestamp, TransportEnd};
/// # trait Io { fn wait(&mut self, until: Option<Timestamp>) -> Wake; fn write(&mut self, bytes: &[u8]); fn close(&mut self); fn now(&self) -> Timestamp; }
/// # enum Wake { Readable(Bytes), Timer, Closed }
/// # fn on_event(event: &Event) {}
///
/// /// One Network Connection, from the open transport to its end.
/// fn drive(session: &mut Session, io: &mut impl Io) {
///     let mut output = BytesMut::new();
///     if session.transport_opened(io.now()).is_err() {
///         return;
///     }
///     loop {
///         let mut is_over = false;
///         loop {
///             while let Some(event) = session.poll_event() {
///                 is_over |= matches!(event, Event::Disconnected(_) | Event::ConnectRefused(_));
///                 on_event(&event); // may publish, subscribe, acknowledge
///             }
///             if session.poll_transmit(&mut output, 64 * 1024, io.now()) == 0 {
///                 break;
///             }
///             io.write(&output);
///             output.clear();
///         }
///         if is_over {
///             io.close();
///             return;
///         }
///         match io.wait(session.poll_timeout()) {
///             Wake::Readable(mut input) => {
///                 // An error has been reported as `Event::Disconnected`, too; the loop above sees it.
///                 while let Ok(InputProgress::DrainEvents) = session.handle_input(&mut input, io.now()) {
///                     while let Some(event) = session.poll_event() {
///                         is_over |= matches!(event, Event::Disconnected(_) | Event::ConnectRefused(_));
///                         on_event(&event);
///                     }
///                 }
///             }
///             Wake::Timer => session.handle_timeout(io.now()),
///             Wake::Closed => session.transport_closed(TransportEnd::ClosedByPeer, io.now()),
///         }
///     }
/// }
/// ```
///
/// With [`Config::persistence`] on there is one more output, [`poll_persist`](Self::poll_persist), and one more input,
/// [`handle_persisted`](Self::handle_persisted). Ask for a batch after `poll_transmit` returned zero; when it is stored, drain
/// again: what waited for it leaves now.
///
/// A driver that has room for bytes when it is given a message may save the way through queue and events with
/// [`publish_into`](Self::publish_into), and [`may_transmit`](Self::may_transmit) tells it cheaply that there are no bytes.
///
/// # Session and Network Connection
///
/// | survives a reconnect | ends with the connection |
/// |---|---|
/// | publishes that wait or are in flight, with their identifiers and stage | keep alive, both quotas, both alias tables |
/// | identifiers of received QoS 2 messages | tokens of QoS 1 messages |
/// | subscriptions, and calls that are not completed | answers that were not written |
pub struct Session {
    /// Shared with whoever gave it.
    pub(crate) config: Arc<Config>,
    /// Boxed, as it comes and goes, and is large.
    pub(crate) connection: Option<Box<Connection>>,
    /// A DISCONNECT to write although the connection is over.
    pub(crate) farewell: Option<ReasonCode>,
    pub(crate) events: VecDeque<Event>,
    /// Of the current or last Network Connection; zero before the first.
    pub(crate) connection_epoch: u32,
    /// Grows when the broker turns out to have lost the session.
    pub(crate) session_epoch: u32,
    /// The largest `now` so far.
    pub(crate) now: Timestamp,

    /// Whether the broker should have a session of ours.
    pub(crate) has_session: bool,
    /// Ask for a new session next time, whatever the configuration says: the broker's cannot be used.
    pub(crate) must_start_clean: bool,
    /// A CONNECT was sent that went unanswered: the broker may have lost the session and begun a new one without our
    /// knowledge, so that its next Session Present says nothing.
    pub(crate) is_presence_in_doubt: bool,
    pub(crate) haste: Haste,
    pub(crate) assigned_client_id: Option<String>,

    pub(crate) waiting: Waiting,
    pub(crate) in_flight: InFlight,
    pub(crate) received: ReceivedQoS2,
    pub(crate) control: Control,
    pub(crate) next_publish: u64,
    /// The topic of the last publish: shared by the next ones, it needs no second look.
    pub(crate) checked_topic: Option<SharedTopicName>,
    pub(crate) counters: Counters,
    pub(crate) undecodable: Undecodable,
    pub(crate) persister: Persister,
    /// Where the properties of a PUBLISH are put together.
    pub(crate) scratch: PropertyBuf,
}

/// How [`Session::handle_input`] came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the rest of the input may wait for events to be taken"]
#[allow(clippy::exhaustive_enums, reason = "a driver must handle both")]
pub enum InputProgress {
    /// All whole packets were handled. What is left is the beginning of one.
    NeedsMoreInput,
    /// [`Config::max_pending_events`] was reached. Take the events, if any, then call again with what is left.
    DrainEvents,
}

impl Session {
    /// A session that was never connected. A configuration in an `Arc` is shared until
    /// [`set_credentials`](Self::set_credentials) changes it.
    ///
    /// # Errors
    ///
    /// If the configuration is not one that a CONNECT could carry.
    pub fn new(config: impl Into<Arc<Config>>) -> Result<Self, ConfigError> {
        let config = config.into();
        config.check()?;
        let persister = Persister::new(config.persistence);
        let control = Control::new(config.persistence);
        Ok(Self {
            config,
            persister,
            connection: None,
            farewell: None,
            events: VecDeque::new(),
            connection_epoch: 0,
            session_epoch: 0,
            now: Timestamp::ZERO,
            has_session: false,
            must_start_clean: false,
            is_presence_in_doubt: false,
            haste: Haste::default(),
            assigned_client_id: None,
            waiting: Waiting::default(),
            in_flight: InFlight::default(),
            received: ReceivedQoS2::default(),
            control,
            next_publish: 0,
            checked_topic: None,
            counters: Counters::default(),
            undecodable: Undecodable::default(),
            scratch: PropertyBuf::new(PropertyScope::Publish),
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Replaces user name and password for the CONNECTs to come, for services whose credentials expire.
    ///
    /// # Errors
    ///
    /// As [`Session::new`]; the old ones stay then.
    pub fn set_credentials(
        &mut self,
        username: Option<String>,
        password: Option<Bytes>,
    ) -> Result<(), ConfigError> {
        let config = Arc::make_mut(&mut self.config);
        let old = (
            core::mem::replace(&mut config.username, username),
            core::mem::replace(&mut config.password, password),
        );
        let checked = config.check();
        if checked.is_err() {
            (config.username, config.password) = old;
        }
        checked
    }

    /// A transport to the broker is open: a CONNECT is ready to be written.
    ///
    /// # Errors
    ///
    /// [`StateError::TransportOpen`] if there is one already.
    pub fn transport_opened(&mut self, now: Timestamp) -> Result<(), StateError> {
        self.advance(now);
        if self.connection.is_some() {
            return Err(StateError::TransportOpen);
        }
        self.farewell = None;
        self.abandon_staged();
        self.connection_epoch = self.connection_epoch.wrapping_add(1);
        //= MQTT-3.1.2-4
        let clean_start = self.must_start_clean
            || match self.config.clean_start {
                CleanStart::Always => true,
                CleanStart::OnFirst => !self.has_session,
                CleanStart::Never => false,
            };
        self.connection = Some(Box::new(Connection::new(
            &self.config,
            self.connection_epoch,
            clean_start,
            self.now,
        )));
        Ok(())
    }

    /// The transport is gone. Harmless if the connection is over already.
    pub fn transport_closed(&mut self, end: TransportEnd, now: Timestamp) {
        self.advance(now);
        self.farewell = None;
        self.abandon_staged();
        let suspects = end == TransportEnd::ClosedByPeer;
        self.end_connection(DisconnectCause::Transport(end), suspects);
    }

    /// Tells the time. Something happens only if [`Session::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.advance(now);
        while let Some(expired) = self.waiting.pop_expired(self.now) {
            self.complete(expired.id, PublishOutcome::Expired);
        }
        let Some(connection) = &mut self.connection else {
            return;
        };
        if connection
            .deadline()
            .is_none_or(|deadline| deadline > self.now)
        {
            return;
        }
        if !connection.is_connected() {
            self.fail(ConnectionError::Timeout(Timeout::Connack));
            return;
        }
        if connection.is_hasty && connection.haste_deadline <= self.now {
            self.fail(ConnectionError::Timeout(Timeout::Suback));
            return;
        }
        match connection.keep_alive.check(self.now) {
            KeepAliveAction::Nothing => {}
            KeepAliveAction::Ping => {
                connection.ping = PingState::Due;
                if connection.partial.is_empty() {
                    // Nothing has come for a while.
                    connection.partial = BytesMut::new();
                }
                // The timeout begins now, written or not: a socket that takes no more bytes is a sign, too.
                connection.keep_alive.on_ping_sent(self.now);
            }
            KeepAliveAction::PeerIsDead => self.fail(ConnectionError::Timeout(Timeout::Ping)),
        }
    }

    /// The next event, in the order in which they happened.
    #[must_use]
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether there is an event to be polled.
    #[must_use]
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// When [`Session::handle_timeout`] should be called, if nothing else happens before. May be earlier than needed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let connection = self.connection.as_deref().and_then(Connection::deadline);
        let waiting = earlier(self.waiting.next_expiry(), self.next_paced());
        earlier(connection, waiting)
    }

    /// When a publish that waits for its turn by the pace has it.
    fn next_paced(&self) -> Option<Timestamp> {
        let connection = self.connected()?;
        let free_at = connection.pacer.as_ref()?.free_at();
        let waits = connection.replay.next.is_some() || self.waiting.len() > 0;
        (waits && free_at > self.now).then_some(free_at)
    }

    /// The connection, if the broker has accepted it.
    #[inline(always)]
    pub(crate) fn connected(&self) -> Option<&Connection> {
        self.connection
            .as_deref()
            .filter(|connection| connection.is_connected())
    }

    #[inline]
    pub(crate) fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    pub(crate) fn complete(&mut self, id: PublishId, outcome: PublishOutcome) {
        self.persister.touch_completed(id);
        self.events
            .push_back(Event::PublishCompleted { id, outcome });
    }

    /// Ends the connection because of an error, with a DISCONNECT that says which (5.0).
    pub(crate) fn fail(&mut self, error: ConnectionError) {
        if self.config.version == ProtocolVersion::V5 && self.connected().is_some() {
            //= MQTT-4.13.1-1
            self.farewell = error.reason_code();
        }
        self.end_connection(DisconnectCause::Error(error), false);
    }

    /// Reports the end of the connection once, and brings the Session into the state in which the next one finds it.
    pub(crate) fn end_connection(&mut self, cause: DisconnectCause, hung_up: bool) {
        //= MQTT-4.1.0-1
        //= v3.1.1 MQTT-4.1.0-1
        //= v3.1.1 MQTT-4.1.0-2
        let Some(connection) = self.connection.take() else {
            return;
        };
        let stage = connection.stage();
        self.haste.on_ended(connection.is_hasty, &cause);
        if cause != DisconnectCause::Requested {
            // What was to be written there is of no use elsewhere.
            self.abandon_staged();
        }
        self.is_presence_in_doubt |= matches!(connection.phase, Phase::AwaitsConnack { .. });
        if hung_up && stage == ConnectionStage::Connected {
            self.blame(connection.epoch);
        } else {
            self.control
                .on_disconnected(Blame::Nobody, 0, &mut self.events);
        }
        self.events
            .push_back(Event::Disconnected(Box::new(Disconnected { cause, stage })));
    }

    /// The broker hung up: gives a strike to everything that it may have hung up on, and sets aside what had it alone.
    fn blame(&mut self, epoch: u32) {
        let suspects: Vec<PacketId> = self
            .in_flight
            .iter()
            .filter(|(_, entry)| entry.sent_on == Some(epoch) && entry.stage != Stage::Pubcomp)
            .map(|(id, _)| id)
            .collect();
        let limit = self.config.quarantine_after.get();
        let is_alone = suspects.len() == 1 && self.control.in_flight() == 0;
        for &id in &suspects {
            let Some(entry) = self.in_flight.entry_mut(id) else {
                continue;
            };
            entry.strikes = entry.strikes.saturating_add(1);
            if is_alone && entry.strikes >= limit {
                let publish = entry.outgoing.id;
                match entry.stage {
                    Stage::Pubrec => self.in_flight.retire(id),
                    _ => drop(self.in_flight.remove(id)),
                }
                self.counters.quarantined += 1;
                self.complete(publish, PublishOutcome::Quarantined);
            }
        }
        let blame = Blame::Suspects {
            others: suspects.len(),
        };
        self.counters.quarantined += self.control.on_disconnected(blame, limit, &mut self.events);
    }

    /// The broker has lost the session: what was in flight becomes new, or cannot be known.
    pub(crate) fn on_session_lost(&mut self) {
        use crate::config::InFlightOnLostSession as Rule;

        self.session_epoch = self.session_epoch.wrapping_add(1);
        //= v3.1.1 MQTT-3.1.2-6
        for id in self.received.ids() {
            self.persister.touch(RecordKey::Received(id));
        }
        self.received.clear();
        self.in_flight.free_retired();
        for id in self.in_flight.ids() {
            let Some(entry) = self.in_flight.entry_mut(id) else {
                continue;
            };
            let rule = self.config.in_flight_on_lost_session;
            let verdict = match entry.stage {
                Stage::Pubcomp => Some(Indeterminate::SessionLostAfterReceived),
                _ if !entry.sent_before => None,
                Stage::Puback if rule == Rule::Report => Some(Indeterminate::SessionLost),
                Stage::Pubrec if rule != Rule::ResendAll => Some(Indeterminate::SessionLost),
                _ if entry.outgoing.expires_at.is_some_and(|at| at <= self.now) => {
                    Some(Indeterminate::ExpiredAfterSent)
                }
                _ => None,
            };
            // A new message: no DUP.
            entry.sent_before = false;
            if let Some(why) = verdict {
                let publish = entry.outgoing.id;
                self.in_flight.remove(id);
                self.complete(publish, PublishOutcome::Indeterminate(why));
            }
        }
    }
}

impl fmt::Debug for Session {
    /// The configuration and the counts; no message, no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("config", &self.config)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
