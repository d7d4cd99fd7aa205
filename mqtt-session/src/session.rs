//! The machine: its state, its lifecycle and its commands.

use core::fmt;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use mqtt_codec::{
    PacketId, PropertyBuf, PropertyScope, ProtocolVersion, QoS, ReasonCode, SubscriptionId,
};

use crate::config::{CleanStart, Config, ConfigError};
use crate::connection::{AuthReply, Connection, Phase, PingState, Reply, ReplyKind};
use crate::control::{Blame, Control, check_filter};
use crate::error::{
    ConnectionError, PublishError, PublishErrorReason, StateError, SubscribeError, Timeout,
};
use crate::event::{
    AckQoS, AckToken, Acknowledged, ConnectionStage, DisconnectCause, Disconnected, Event,
    Indeterminate, PublishId, PublishOutcome, SubscribeId, TransportEnd, UnsubscribeId,
};
use crate::inbound::ReceivedQoS2;
use crate::keep_alive::KeepAliveAction;
use crate::outbound::{InFlight, Outgoing, Stage, Waiting};
use crate::publish::{Publish, is_topic_name};
use crate::skip::Undecodable;
use crate::subscribe::Subscription;
use crate::time::Timestamp;

/// An MQTT client without sockets, clocks or randomness: bytes and commands in, bytes and events out.
///
/// One `Session` lives as long as the client. Network Connections come and go inside it; what is in flight, what waits and
/// what is subscribed outlives them.
///
/// # Driving it
///
/// Inputs: [`transport_opened`](Self::transport_opened), [`transport_closed`](Self::transport_closed),
/// [`handle_input`](Self::handle_input), [`handle_timeout`](Self::handle_timeout). Commands: `publish`, `subscribe`, and so on.
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
/// # Session and Network Connection
///
/// | survives a reconnect | ends with the connection |
/// |---|---|
/// | publishes that wait or are in flight, with their identifiers and stage | keep alive, both quotas, both alias tables |
/// | identifiers of received QoS 2 messages | tokens of QoS 1 messages |
/// | subscriptions, and calls that are not completed | answers that were not written |
pub struct Session {
    pub(crate) config: Config,
    pub(crate) connection: Option<Connection>,
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
    pub(crate) assigned_client_id: Option<String>,

    pub(crate) waiting: Waiting,
    pub(crate) in_flight: InFlight,
    pub(crate) received: ReceivedQoS2,
    pub(crate) control: Control,
    pub(crate) next_publish: u64,
    pub(crate) counters: Counters,
    pub(crate) undecodable: Undecodable,
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
    /// [`Config::max_pending_events`] was reached. Take the events, then call again with what is left.
    DrainEvents,
}

/// How [`Session::disconnect`] ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Disconnect {
    /// What becomes of the will.
    pub will: WillOnDisconnect,
    /// Another Session Expiry than the CONNECT named (5.0), whole seconds. Not possible if that was zero.
    pub session_expiry: Option<Duration>,
}

/// What becomes of the will when we disconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WillOnDisconnect {
    /// The broker discards it.
    #[default]
    Discard,
    /// The broker publishes it (5.0).
    Publish,
}

/// Everything there is to count, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How far the Network Connection has come, if there is one.
    pub connection: Option<ConnectionStage>,
    /// Publishes that wait to be sent.
    pub queued_messages: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// QoS 1 and 2 publishes that are not acknowledged, those that wait to be sent again included.
    pub in_flight_messages: usize,
    /// Their bytes.
    pub in_flight_bytes: usize,
    /// Received QoS 1 and 2 messages whose exchange is not finished.
    pub held_messages: usize,
    /// Bytes of those that the application has not decided on.
    pub held_bytes: usize,
    /// Topic Filters that the session wants.
    pub subscriptions: usize,
    /// `subscribe` and `unsubscribe` calls that are not completed.
    pub pending_operations: usize,
    /// Packet identifiers in use.
    pub packet_ids_in_use: usize,
    /// Whether a PINGREQ is unanswered.
    pub awaits_pingresp: bool,
    /// What happened since the session was made.
    pub counters: Counters,
}

/// What happened since the session was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Connections that the broker accepted.
    pub connections: u64,
    /// Bytes handed out by `poll_transmit`.
    pub bytes_sent: u64,
    /// Bytes of whole packets taken by `handle_input`.
    pub bytes_received: u64,
    /// PUBLISH packets handed out, repetitions included.
    pub publishes_sent: u64,
    /// Those of them that were repetitions.
    pub publishes_resent: u64,
    /// Messages reported as [`Event::Message`].
    pub messages_received: u64,
    /// QoS 2 PUBLISH packets that were duplicates and not reported.
    pub duplicates_suppressed: u64,
    /// Messages reported as [`Event::MessageSkipped`].
    pub messages_skipped: u64,
    /// Acknowledgements for an identifier that is not in flight. Harmless after a reconnect; otherwise a broker's bug.
    pub stray_acknowledgements: u64,
    /// Publishes and filters set aside, see [`Config::quarantine_after`].
    pub quarantined: u64,
}

impl Session {
    /// A session that was never connected.
    ///
    /// # Errors
    ///
    /// If the configuration is not one that a CONNECT could carry.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            config,
            connection: None,
            farewell: None,
            events: VecDeque::new(),
            connection_epoch: 0,
            session_epoch: 0,
            now: Timestamp::ZERO,
            has_session: false,
            must_start_clean: false,
            is_presence_in_doubt: false,
            assigned_client_id: None,
            waiting: Waiting::default(),
            in_flight: InFlight::default(),
            received: ReceivedQoS2::default(),
            control: Control::default(),
            next_publish: 0,
            counters: Counters::default(),
            undecodable: Undecodable::default(),
            scratch: PropertyBuf::new(PropertyScope::Publish),
        })
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
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
        let old = (
            core::mem::replace(&mut self.config.username, username),
            core::mem::replace(&mut self.config.password, password),
        );
        self.config
            .check()
            .inspect_err(|_| (self.config.username, self.config.password) = old)
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
        self.connection_epoch = self.connection_epoch.wrapping_add(1);
        let clean_start = self.must_start_clean
            || match self.config.clean_start {
                CleanStart::Always => true,
                CleanStart::OnFirst => !self.has_session,
                CleanStart::Never => false,
            };
        self.connection = Some(Connection::new(
            &self.config,
            self.connection_epoch,
            clean_start,
            self.now,
        ));
        Ok(())
    }

    /// The transport is gone. Harmless if the connection is over already.
    pub fn transport_closed(&mut self, end: TransportEnd, now: Timestamp) {
        self.advance(now);
        self.farewell = None;
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
        match connection.keep_alive.check(self.now) {
            KeepAliveAction::Nothing => {}
            KeepAliveAction::Ping => connection.ping = PingState::Due,
            KeepAliveAction::PeerIsDead => self.fail(ConnectionError::Timeout(Timeout::Ping)),
        }
    }

    /// The next event, in the order in which they happened.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Session::handle_timeout`] should be called, if nothing else happens before. May be earlier than needed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let connection = self.connection.as_ref().and_then(Connection::deadline);
        match (connection, self.waiting.next_expiry()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Accepts a message to be sent as soon as connection and window allow, in order for each QoS.
    ///
    /// Without a connection it waits; whether that is wanted is for the caller to decide before. Dropping the returned
    /// identifier changes nothing.
    ///
    /// # Errors
    ///
    /// [`PublishError`], with the message in it. [`PublishErrorReason::is_temporary`] tells "not now" from "never".
    pub fn publish(&mut self, publish: Publish, now: Timestamp) -> Result<PublishId, PublishError> {
        self.advance(now);
        let size = size_of_publish(&publish);
        if let Err(reason) = self.check_publish(&publish, size) {
            return Err(PublishError::new(reason, publish));
        }
        let id = PublishId(self.next_publish);
        self.next_publish += 1;
        let expires_at = publish.expiry.map(|expiry| self.now + expiry);
        self.waiting.push(Outgoing {
            id,
            publish,
            expires_at,
            size,
        });
        Ok(id)
    }

    /// Takes back a message that was not sent yet; it is not reported on any more. `None` if it was sent or is not known: its
    /// outcome will be or was reported.
    #[must_use]
    pub fn cancel_publish(&mut self, id: PublishId) -> Option<Publish> {
        self.waiting.remove(id).map(|outgoing| outgoing.publish)
    }

    /// Subscribes to all of `subscriptions`, now or at the next connection; [`Event::SubscribeCompleted`] tells what became
    /// of each. They become subscriptions of the session, which it renews when the broker has lost them, until they are
    /// refused or unsubscribed. More than [`Config::max_filters_per_packet`] go in several packets.
    ///
    /// # Errors
    ///
    /// If one of them cannot be subscribed to, none is.
    pub fn subscribe(
        &mut self,
        subscriptions: &[Subscription],
        now: Timestamp,
    ) -> Result<SubscribeId, SubscribeError> {
        self.subscribe_with_id(subscriptions, None, now)
    }

    /// As [`Session::subscribe`], with a Subscription Identifier (5.0) that the broker will put into each matching message.
    ///
    /// # Errors
    ///
    /// As [`Session::subscribe`].
    pub fn subscribe_with_id(
        &mut self,
        subscriptions: &[Subscription],
        id: Option<SubscriptionId>,
        now: Timestamp,
    ) -> Result<SubscribeId, SubscribeError> {
        self.advance(now);
        let v5 = self.config.version == ProtocolVersion::V5;
        let broker = self.connected().map(|connection| connection.limits);
        if id.is_some()
            && (!v5 || broker.is_some_and(|broker| !broker.subscription_identifiers.is_available()))
        {
            return Err(SubscribeError::SubscriptionIdsNotSupported);
        }
        for (index, subscription) in subscriptions.iter().enumerate() {
            check_filter(&subscription.filter, index, broker.as_ref())?;
            if !v5 && subscription.needs_v5() {
                return Err(SubscribeError::OptionsNeedV5 { index });
            }
            //= MQTT-3.8.3-4
            if subscription.no_local == crate::NoLocal::On
                && subscription.filter.starts_with("$share/")
            {
                return Err(SubscribeError::SharedNotSupported { index });
            }
        }
        self.check_call(subscriptions.len())?;
        let new = subscriptions
            .iter()
            .filter(|subscription| !self.control.wants(&subscription.filter))
            .count();
        if self.control.len() + new > self.config.max_subscriptions {
            return Err(SubscribeError::TooManySubscriptions);
        }
        Ok(self.control.subscribe(subscriptions, id))
    }

    /// Ends the subscriptions to `filters`; [`Event::UnsubscribeCompleted`] tells what the broker said. They stop being
    /// subscriptions of the session at once.
    ///
    /// # Errors
    ///
    /// If one of them is not a Topic Filter, none is unsubscribed from.
    pub fn unsubscribe(
        &mut self,
        filters: &[Arc<str>],
        now: Timestamp,
    ) -> Result<UnsubscribeId, SubscribeError> {
        self.advance(now);
        for (index, filter) in filters.iter().enumerate() {
            check_filter(filter, index, None)?;
        }
        self.check_call(filters.len())?;
        Ok(self.control.unsubscribe(filters, &mut self.events))
    }

    /// The Topic Filters that the session is or wants to be subscribed to.
    pub fn subscriptions(&self) -> impl ExactSizeIterator<Item = &Subscription> {
        self.control
            .subscriptions()
            .map(|wanted| &wanted.subscription)
    }

    /// Acknowledges a message. The answer leaves in its turn: PUBACKs in the order in which the messages came, and so do
    /// PUBRECs.
    pub fn acknowledge(&mut self, token: AckToken) -> Acknowledged {
        self.decide(&token, ReasonCode::Success)
    }

    /// Acknowledges a message with a reason that says why it was not processed (5.0: 0x80, 0x83, 0x87, 0x90, 0x97 or 0x99; any
    /// other becomes 0x80). Earlier versions have no such reason: the broker sees a plain acknowledgement.
    pub fn reject(&mut self, token: AckToken, reason: ReasonCode) -> Acknowledged {
        let reason = match reason {
            _ if self.config.version != ProtocolVersion::V5 => ReasonCode::Success,
            ReasonCode::ImplementationSpecificError
            | ReasonCode::NotAuthorized
            | ReasonCode::TopicNameInvalid
            | ReasonCode::QuotaExceeded
            | ReasonCode::PayloadFormatInvalid => reason,
            _ => ReasonCode::UnspecifiedError,
        };
        self.decide(&token, reason)
    }

    /// Continues an authentication exchange, in answer to [`Event::AuthChallenge`].
    ///
    /// # Errors
    ///
    /// If none was configured, or there is no connection.
    pub fn authenticate(&mut self, data: Option<Bytes>, now: Timestamp) -> Result<(), StateError> {
        self.auth(ReasonCode::ContinueAuthentication, data, now)
    }

    /// Begins to authenticate again on an open connection; [`Event::AuthChallenge`] or [`Event::Reauthenticated`] follows.
    ///
    /// # Errors
    ///
    /// If no method was configured, or there is no connection, or it has not been accepted yet.
    pub fn reauthenticate(
        &mut self,
        data: Option<Bytes>,
        now: Timestamp,
    ) -> Result<(), StateError> {
        if self.connected().is_none() {
            return Err(StateError::NotConnected);
        }
        self.auth(ReasonCode::ReAuthenticate, data, now)?;
        if let Some(connection) = &mut self.connection {
            connection.reauthenticating = true;
        }
        Ok(())
    }

    /// Ends the Network Connection with a DISCONNECT, after the answers that are due. What waits or is in flight stays for the
    /// next connection; to drain first, wait until [`Session::stats`] shows none.
    ///
    /// [`Event::Disconnected`] follows when `poll_transmit` has handed out the DISCONNECT; before the CONNACK, at once.
    ///
    /// # Errors
    ///
    /// [`StateError::NotConnected`] without a connection, [`StateError::NeedsV5`] for options that 3.1.1 does not have,
    /// [`StateError::SessionExpiryWasZero`].
    pub fn disconnect(&mut self, disconnect: Disconnect, now: Timestamp) -> Result<(), StateError> {
        self.advance(now);
        let Some(connection) = &mut self.connection else {
            return Err(StateError::NotConnected);
        };
        if self.config.version != ProtocolVersion::V5 && disconnect != Disconnect::default() {
            return Err(StateError::NeedsV5);
        }
        //= MQTT-3.1.2-23
        if self.config.session_expiry.is_zero()
            && disconnect
                .session_expiry
                .is_some_and(|expiry| !expiry.is_zero())
        {
            return Err(StateError::SessionExpiryWasZero);
        }
        if connection.is_connected() {
            connection.disconnect = Some(disconnect);
        } else {
            self.end_connection(DisconnectCause::Requested, false);
        }
        Ok(())
    }

    /// What there is to count.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (held_messages, held_bytes) = self.held();
        Stats {
            connection: self.connection.as_ref().map(Connection::stage),
            queued_messages: self.waiting.len(),
            queued_bytes: self.waiting.bytes(),
            in_flight_messages: self.in_flight.len(),
            in_flight_bytes: self.in_flight.bytes(),
            held_messages,
            held_bytes,
            subscriptions: self.control.len(),
            pending_operations: self.control.open_calls(),
            packet_ids_in_use: self.in_flight.ids_in_use() + self.control.ids_in_use(),
            awaits_pingresp: self
                .connection
                .as_ref()
                .is_some_and(|connection| connection.keep_alive.awaits_pingresp()),
            counters: self.counters,
        }
    }

    /// The connection, if the broker has accepted it.
    pub(crate) fn connected(&self) -> Option<&Connection> {
        self.connection
            .as_ref()
            .filter(|connection| connection.is_connected())
    }

    pub(crate) fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Messages and bytes that the application has not finished with.
    pub(crate) fn held(&self) -> (usize, usize) {
        let (messages, bytes) = self.connection.as_ref().map_or((0, 0), |connection| {
            (
                connection.held_qos1.len(),
                connection.held_qos1.undecided_bytes(),
            )
        });
        (
            messages + self.received.len(),
            bytes + self.received.undecided_bytes(),
        )
    }

    pub(crate) fn complete(&mut self, id: PublishId, outcome: PublishOutcome) {
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
        let Some(connection) = self.connection.take() else {
            return;
        };
        let stage = connection.stage();
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
                self.in_flight.remove(id);
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
        self.received.clear();
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

    fn decide(&mut self, token: &AckToken, reason: ReasonCode) -> Acknowledged {
        let accepted = match token.qos {
            AckQoS::One => self.connection.as_mut().is_some_and(|connection| {
                connection.epoch == token.epoch
                    && connection.held_qos1.decide(token.sequence, reason)
            }),
            AckQoS::Two => {
                token.epoch == self.session_epoch
                    && self
                        .received
                        .decide(token.packet_id, token.sequence, reason)
            }
        };
        if accepted {
            Acknowledged::Accepted
        } else {
            Acknowledged::Stale
        }
    }

    /// Turns decisions into answers, as far as their order allows.
    pub(crate) fn queue_decided(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        //= MQTT-4.6.0-2
        //= v3.1.1 MQTT-4.6.0-2
        while let Some((id, reason)) = connection.held_qos1.pop_decided() {
            if let Some(quota) = &mut connection.receive_quota {
                quota.give_back();
            }
            connection.replies.push_back(Reply {
                kind: ReplyKind::Puback,
                id,
                reason,
            });
        }
        //= MQTT-4.6.0-3
        //= v3.1.1 MQTT-4.6.0-3
        while let Some(&(id, sequence)) = connection.owed_pubrecs.front() {
            match self.received.answer(id, sequence) {
                Ok(None) => break,
                Err(_) => {}
                Ok(Some(reason)) => {
                    connection.replies.push_back(Reply {
                        kind: ReplyKind::Pubrec,
                        id,
                        reason,
                    });
                    if reason >= ReasonCode::UnspecifiedError {
                        // A failing PUBREC ends the exchange; there is no PUBREL.
                        release_received(&mut self.received, connection, id);
                    }
                }
            }
            connection.owed_pubrecs.pop_front();
        }
    }

    fn auth(
        &mut self,
        reason: ReasonCode,
        data: Option<Bytes>,
        now: Timestamp,
    ) -> Result<(), StateError> {
        self.advance(now);
        if self.config.authentication.is_none() {
            return Err(StateError::NoAuthentication);
        }
        let Some(connection) = &mut self.connection else {
            return Err(StateError::NotConnected);
        };
        connection.auth = Some(AuthReply { reason, data });
        Ok(())
    }

    fn check_call(&self, filters: usize) -> Result<(), SubscribeError> {
        if filters == 0 {
            //= MQTT-3.8.3-2
            //= MQTT-3.10.3-2
            return Err(SubscribeError::NoFilters);
        }
        if self.control.open_calls() >= self.config.max_pending_operations {
            return Err(SubscribeError::TooManyPending);
        }
        Ok(())
    }

    fn check_publish(&self, publish: &Publish, size: usize) -> Result<(), PublishErrorReason> {
        if !is_topic_name(&publish.topic) {
            return Err(PublishErrorReason::InvalidTopic);
        }
        if let Some(properties) = &publish.properties {
            if self.config.version != ProtocolVersion::V5 && !properties.is_empty() {
                return Err(PublishErrorReason::PropertiesNeedV5);
            }
            if !properties.is_valid() {
                return Err(PublishErrorReason::InvalidProperty);
            }
        }
        if publish.expiry.is_some_and(|expiry| expiry.is_zero()) {
            return Err(PublishErrorReason::Expired);
        }
        let limits = self.connected().map(|connection| &connection.limits);
        let maximum = limits.map_or(mqtt_codec::MAX_PACKET_SIZE, |limits| {
            limits.maximum_packet_size
        }) as usize;
        if size > maximum.min(self.config.max_outbound_bytes) {
            return Err(PublishErrorReason::TooLarge {
                size,
                maximum: maximum.min(self.config.max_outbound_bytes),
            });
        }
        if let Some(limits) = limits {
            check_support(publish, limits)?;
        }
        if self.waiting.len() >= self.config.max_queued_messages {
            return Err(PublishErrorReason::TooManyQueued);
        }
        if self.waiting.bytes() + self.in_flight.bytes() + size > self.config.max_outbound_bytes {
            return Err(PublishErrorReason::TooManyBytes);
        }
        Ok(())
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

/// Forgets a QoS 2 message and gives its place in the peer's window back.
pub(crate) fn release_received(
    received: &mut ReceivedQoS2,
    connection: &mut Connection,
    id: PacketId,
) {
    if received.release(id, connection.epoch) == Some(crate::inbound::InWindow::Yes)
        && let Some(quota) = &mut connection.receive_quota
    {
        quota.give_back();
    }
}

/// Whether the broker takes such a message at all.
pub(crate) fn check_support(
    publish: &Publish,
    limits: &crate::BrokerLimits,
) -> Result<(), PublishErrorReason> {
    //= MQTT-3.2.2-11
    if publish.qos > limits.maximum_qos {
        return Err(PublishErrorReason::QosNotSupported(limits.maximum_qos));
    }
    //= MQTT-3.2.2-14
    if publish.retain.is_yes() && !limits.retain.is_available() {
        return Err(PublishErrorReason::RetainNotSupported);
    }
    Ok(())
}

/// The size of the packet with its topic in full, never more than three bytes too large.
fn size_of_publish(publish: &Publish) -> usize {
    let properties = publish.properties.as_ref().map_or(0, |properties| {
        let text = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() + 3);
        properties.payload_format.map_or(0, |_| 2)
            + text(&properties.content_type)
            + text(&properties.response_topic)
            + properties
                .correlation_data
                .as_ref()
                .map_or(0, |data| data.len() + 3)
            + properties
                .user_properties
                .iter()
                .map(|(name, value)| name.len() + value.len() + 5)
                .sum::<usize>()
    });
    let expiry = if publish.expiry.is_some() { 5 } else { 0 };
    let id = if publish.qos == QoS::AtMostOnce { 0 } else { 2 };
    let remaining = 2
        + publish.topic.len()
        + id
        + varint_len(properties + expiry)
        + properties
        + expiry
        + publish.payload.len();
    1 + varint_len(remaining) + remaining
}

const fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}
