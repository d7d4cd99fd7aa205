//! What each packet does.

use core::hash::Hasher;
use core::time::Duration;
use std::hash::DefaultHasher;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use mqtt_codec::{
    AckRef, Auth, ConnackRef, DisconnectRef, Packet, PacketId, Properties, ProtocolVersion, QoS,
    ReasonCode, SubackRef,
};

use crate::alias::{InboundAliasError, OutboundAliases};
use crate::config::{
    AssignedClientId, BrokerOnlySession, CleanStart, Config, Resubscribe, ResubscribeRetained,
};
use crate::connection::{Phase, Reply, ReplyKind};
use crate::error::{ConnectionError, LocalLimit, ProtocolViolation};
use crate::event::{
    AckQoS, AckToken, AuthData, Availability, BrokerLimits, ConnectRefused, Connected,
    DisconnectCause, Event, Indeterminate, Message, PublishOutcome, ServerDisconnect,
    SessionPresence,
};
use crate::inbound::Arrival;
use crate::keep_alive::KeepAlive;
use crate::outbound::Stage;
use crate::quota::Quota;
use crate::session::{InputProgress, Session, release_received};
use crate::skip::Recovery;
use crate::time::Timestamp;

impl Session {
    /// Takes bytes that the peer sent, cut anywhere.
    ///
    /// All of `input` is taken: the beginning of a packet is kept inside until its end comes, at most
    /// [`Config::maximum_packet_size`] bytes. Only after [`InputProgress::DrainEvents`] is there a rest in `input`, to be given
    /// again once the events are taken. Without a connection, input is discarded.
    ///
    /// Packets that lie whole in `input` are not copied; their messages share its memory.
    ///
    /// # Errors
    ///
    /// The connection cannot go on. [`Event::Disconnected`] says so too, and a DISCONNECT may be ready to be written (5.0).
    pub fn handle_input(
        &mut self,
        input: &mut Bytes,
        now: Timestamp,
    ) -> Result<InputProgress, ConnectionError> {
        self.advance(now);
        if !input.is_empty()
            && let Some(connection) = &mut self.connection
        {
            connection.keep_alive.on_received(self.now);
        }
        loop {
            if self.events.len() >= self.config.max_pending_events && self.connection.is_some() {
                return Ok(InputProgress::DrainEvents);
            }
            let Some(connection) = &mut self.connection else {
                input.clear();
                return Ok(InputProgress::NeedsMoreInput);
            };
            let before = input.len() + connection.partial.len();
            let packet = match connection.decode(input) {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(InputProgress::NeedsMoreInput),
                Err(error) => match self.recover(error, input) {
                    Ok(Recovery::Skipped) => continue,
                    Ok(Recovery::NeedsMoreInput) => return Ok(InputProgress::NeedsMoreInput),
                    Err(error) => return self.give_up(error),
                },
            };
            self.counters.bytes_received += (before - input.len()) as u64;
            if let Err(error) = self.handle_packet(packet) {
                return self.give_up(error);
            }
        }
    }

    fn give_up(&mut self, error: ConnectionError) -> Result<InputProgress, ConnectionError> {
        self.fail(error);
        Err(error)
    }

    /// The table of what each packet does in each state. Rows: packets. Columns: how far the connection has come.
    ///
    /// | | CONNECT not written | CONNACK awaited | connected |
    /// |---|---|---|---|
    /// | CONNACK | violation | accepts or refuses | violation |
    /// | AUTH | violation | challenge | challenge or end of a re-authentication; else violation |
    /// | DISCONNECT (5.0) | violation | ends the connection | ends the connection |
    /// | any other of a server | violation | violation | see its function |
    /// | any that only a client sends | violation | violation | violation |
    fn handle_packet(&mut self, packet: Packet) -> Result<(), ConnectionError> {
        let Some(connection) = &self.connection else {
            return Ok(());
        };
        let phase = connection.phase;
        let violation = match (phase, packet) {
            //= MQTT-3.2.0-1
            //= v3.1.1 MQTT-3.2.0-1
            (Phase::Opened { .. }, _) => ProtocolViolation::NotConnack,
            (Phase::AwaitsConnack { .. }, Packet::Connack(connack)) => {
                return self.on_connack(&connack.as_ref());
            }
            (Phase::AwaitsConnack { .. } | Phase::Connected, Packet::Auth(auth)) => {
                return self.on_auth(&auth);
            }
            (Phase::AwaitsConnack { .. } | Phase::Connected, Packet::Disconnect(disconnect))
                if self.is_v5() =>
            {
                self.on_server_disconnect(&disconnect.as_ref());
                return Ok(());
            }
            (Phase::AwaitsConnack { .. }, _) => ProtocolViolation::NotConnack,
            //= MQTT-3.2.0-2
            (Phase::Connected, Packet::Connack(_)) => ProtocolViolation::SecondConnack,
            (Phase::Connected, Packet::Publish(publish)) => return self.on_publish(publish),
            (Phase::Connected, Packet::Puback(ack)) => return self.on_puback(&ack.as_ref()),
            (Phase::Connected, Packet::Pubrec(ack)) => return self.on_pubrec(&ack.as_ref()),
            (Phase::Connected, Packet::Pubrel(ack)) => return self.on_pubrel(ack.packet_id()),
            (Phase::Connected, Packet::Pubcomp(ack)) => return self.on_pubcomp(&ack.as_ref()),
            (Phase::Connected, Packet::Suback(suback)) => return self.on_suback(&suback.as_ref()),
            (Phase::Connected, Packet::Unsuback(unsuback)) => {
                return self.on_unsuback(&unsuback.as_ref());
            }
            (Phase::Connected, Packet::Pingresp) => {
                self.on_pingresp();
                return Ok(());
            }
            (Phase::Connected, _) => ProtocolViolation::ClientPacket,
        };
        Err(ConnectionError::Protocol(violation))
    }

    fn on_connack(&mut self, connack: &ConnackRef<'_>) -> Result<(), ConnectionError> {
        if connack.reason_code != ReasonCode::Success {
            self.connection = None;
            self.events
                .push_back(Event::ConnectRefused(Box::new(ConnectRefused {
                    reason: connack.reason_code,
                    reason_string: connack.properties.reason_string().map(owned),
                    server_reference: connack.properties.server_reference().map(owned),
                    user_properties: user_properties(&connack.properties),
                })));
            return Ok(());
        }
        let properties = &connack.properties;
        self.check_authentication_method(properties)?;
        let presence = self.session_presence(connack)?;
        if presence != SessionPresence::Resumed {
            self.on_session_lost();
        }
        let limits = broker_limits(&self.config, properties);
        //= MQTT-3.1.2-21
        let keep_alive = properties
            .server_keep_alive()
            .map_or(self.config.keep_alive, |secs| {
                Duration::from_secs(u64::from(secs))
            });
        let one_at_a_time = self.in_flight.iter().any(|(_, entry)| entry.strikes >= 2);
        let suspects = self
            .in_flight
            .iter()
            .filter(|(_, entry)| entry.is_suspect())
            .count();
        let first = self.in_flight.first();
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        connection.phase = Phase::Connected;
        connection.limits = limits;
        connection.send_quota = Quota::new(limits.in_flight);
        connection.outbound_aliases = OutboundAliases::new(limits.topic_aliases);
        connection.keep_alive = KeepAlive::new(keep_alive, self.config.ping_timeout, self.now);
        connection.replay.next = first;
        connection.replay.one_at_a_time = one_at_a_time;
        connection.replay.suspects = suspects;

        self.has_session = true;
        self.must_start_clean = false;
        self.counters.connections += 1;
        let assigned_client_id = properties.assigned_client_identifier().map(owned);
        if self.config.assigned_client_id == AssignedClientId::Keep && assigned_client_id.is_some()
        {
            self.assigned_client_id.clone_from(&assigned_client_id);
        }
        self.resubscribe(presence);
        let session_expiry = properties
            .session_expiry_interval()
            .map_or_else(|| own_session_expiry(&self.config), seconds_or_for_ever);
        self.events.push_back(Event::Connected(Box::new(Connected {
            session: presence,
            limits,
            keep_alive,
            session_expiry,
            assigned_client_id,
            response_information: properties.response_information().map(owned),
            server_reference: properties.server_reference().map(owned),
            reason_string: properties.reason_string().map(owned),
            user_properties: user_properties(properties),
            authentication: properties
                .authentication_method()
                .map(|_| auth_data(properties)),
        })));
        Ok(())
    }

    fn resubscribe(&mut self, presence: SessionPresence) {
        let is_in_doubt = core::mem::take(&mut self.is_presence_in_doubt);
        let retained = self.config.resubscribe_retained;
        match (self.config.resubscribe, presence) {
            (Resubscribe::Never, SessionPresence::Resumed) => {}
            (Resubscribe::Never, _) => self.control.forget_granted(),
            (Resubscribe::WhenSessionLost, SessionPresence::Resumed) if is_in_doubt => {
                self.control.resubscribe(match retained {
                    ResubscribeRetained::AsSubscribed => retained,
                    // If the broker does not have the subscription, its retained messages have not been sent either.
                    _ => ResubscribeRetained::OnlyIfNew,
                });
            }
            // MQTT 3.1 does not say whether the session was resumed.
            (Resubscribe::WhenSessionLost, SessionPresence::Resumed)
                if self.config.version != ProtocolVersion::V31 => {}
            (Resubscribe::WhenSessionLost | Resubscribe::Always, _) => {
                self.control.resubscribe(retained);
            }
        }
    }

    /// Compares what the broker has of the session with what we have.
    fn session_presence(
        &mut self,
        connack: &ConnackRef<'_>,
    ) -> Result<SessionPresence, ConnectionError> {
        let asked_for_new = self
            .connection
            .as_ref()
            .is_some_and(|connection| connection.clean_start);
        let present = match self.config.version {
            // MQTT 3.1 does not say. A broker that speaks it keeps the session unless told otherwise.
            ProtocolVersion::V31 => !asked_for_new && self.has_session,
            _ => connack.session_present,
        };
        match (present, self.has_session) {
            //= MQTT-3.2.2-2
            (true, _) if asked_for_new => Err(ConnectionError::Protocol(
                ProtocolViolation::SessionPresentOnCleanStart,
            )),
            (true, true) => Ok(SessionPresence::Resumed),
            //= MQTT-3.2.2-4
            (true, false) => match self.config.broker_only_session {
                BrokerOnlySession::Accept => Ok(SessionPresence::Resumed),
                BrokerOnlySession::Refuse => {
                    self.must_start_clean = true;
                    Err(ConnectionError::Protocol(
                        ProtocolViolation::SessionPresentWithoutState,
                    ))
                }
            },
            //= MQTT-3.2.2-5
            (false, true) => Ok(SessionPresence::Lost),
            (false, false) => Ok(SessionPresence::New),
        }
    }

    fn check_authentication_method(
        &self,
        properties: &Properties<'_>,
    ) -> Result<(), ConnectionError> {
        //= MQTT-4.12.0-5
        let ours = self
            .config
            .authentication
            .as_ref()
            .map(|authentication| authentication.method.as_str());
        match (properties.authentication_method(), ours) {
            (Some(theirs), Some(ours)) if theirs == *ours => Ok(()),
            (None, _) => Ok(()),
            _ => Err(ConnectionError::Protocol(
                ProtocolViolation::AuthenticationMethodChanged,
            )),
        }
    }

    fn on_auth(&mut self, auth: &Auth) -> Result<(), ConnectionError> {
        let auth = auth.as_ref();
        if self.config.authentication.is_none() {
            return Err(ConnectionError::Protocol(ProtocolViolation::UnexpectedAuth));
        }
        self.check_authentication_method(&auth.properties)?;
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let exchange = !connection.is_connected() || connection.reauthenticating;
        let data = auth_data(&auth.properties);
        match auth.reason_code {
            ReasonCode::ContinueAuthentication if exchange => {
                self.events.push_back(Event::AuthChallenge(data));
            }
            ReasonCode::Success if connection.reauthenticating => {
                connection.reauthenticating = false;
                self.events.push_back(Event::Reauthenticated(data));
            }
            _ => return Err(ConnectionError::Protocol(ProtocolViolation::UnexpectedAuth)),
        }
        Ok(())
    }

    fn on_server_disconnect(&mut self, disconnect: &DisconnectRef<'_>) {
        let properties = &disconnect.properties;
        let server = ServerDisconnect {
            reason: disconnect.reason_code,
            reason_string: properties.reason_string().map(owned),
            server_reference: properties.server_reference().map(owned),
            user_properties: user_properties(properties),
        };
        let hung_up = blames_a_packet(disconnect.reason_code);
        self.end_connection(DisconnectCause::Server(server), hung_up);
    }

    fn on_publish(&mut self, publish: mqtt_codec::Publish) -> Result<(), ConnectionError> {
        let alias_topic = self.resolve_alias(&publish)?;
        let bytes = alias_topic
            .as_ref()
            .map_or_else(|| publish.topic_name().len(), |topic| topic.len())
            + publish.payload().len();
        let ack = match (publish.qos(), publish.packet_id()) {
            (QoS::AtLeastOnce, Some(id)) => {
                self.hold(bytes)?;
                let Some(connection) = &mut self.connection else {
                    return Ok(());
                };
                let sequence = connection.held_qos1.push(id, bytes);
                Some(AckToken {
                    qos: AckQoS::One,
                    epoch: connection.epoch,
                    sequence,
                    packet_id: id,
                })
            }
            (QoS::ExactlyOnce, Some(id)) => {
                match self.on_qos2(id, bytes, fingerprint(&publish, alias_topic.as_deref()))? {
                    Some(token) => Some(token),
                    None => return Ok(()),
                }
            }
            _ => None,
        };
        self.counters.messages_received += 1;
        self.events.push_back(Event::Message(Message {
            publish,
            alias_topic,
            ack,
        }));
        Ok(())
    }

    /// The topic that an alias stands for, if one does. Learns the alias otherwise.
    fn resolve_alias(
        &mut self,
        publish: &mqtt_codec::Publish,
    ) -> Result<Option<Arc<str>>, ConnectionError> {
        if !self.is_v5() {
            return Ok(None);
        }
        let Some(alias) = publish.properties().topic_alias() else {
            return Ok(None);
        };
        let Some(connection) = &mut self.connection else {
            return Ok(None);
        };
        let resolved = if publish.topic_name().is_empty() {
            connection.inbound_aliases.resolve(alias.get()).map(Some)
        } else {
            connection
                .inbound_aliases
                .bind(alias.get(), publish.topic())
                .map(|()| None)
        };
        resolved.map_err(|error| {
            ConnectionError::Protocol(match error {
                //= MQTT-3.3.2-8
                //= MQTT-3.3.2-9
                InboundAliasError::OutOfRange => ProtocolViolation::TopicAliasInvalid,
                InboundAliasError::Unknown => ProtocolViolation::TopicAliasUnknown,
            })
        })
    }

    /// Makes sure that one more message may be held.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), ConnectionError> {
        let (held_messages, held_bytes) = self.held();
        let bound = usize::from(
            self.config
                .max_held_messages
                .max(self.config.receive_maximum.get()),
        );
        if held_messages >= bound {
            return Err(ConnectionError::Limit(LocalLimit::HeldMessages));
        }
        // A single message is bounded by the maximum packet size.
        if held_bytes > 0 && held_bytes + bytes > self.config.max_held_bytes {
            return Err(ConnectionError::Limit(LocalLimit::HeldBytes));
        }
        self.take_place()
    }

    /// A place in the window that the broker has towards us.
    pub(crate) fn take_place(&mut self) -> Result<(), ConnectionError> {
        //= MQTT-3.3.4-7
        match self
            .connection
            .as_mut()
            .and_then(|connection| connection.receive_quota.as_mut())
        {
            None => Ok(()),
            Some(quota) => quota
                .try_take()
                .then_some(())
                .ok_or(ConnectionError::Protocol(
                    ProtocolViolation::ReceiveMaximumExceeded,
                )),
        }
    }

    /// A QoS 2 PUBLISH. `None`: the message was reported before.
    fn on_qos2(
        &mut self,
        id: PacketId,
        bytes: usize,
        fingerprint: u64,
    ) -> Result<Option<AckToken>, ConnectionError> {
        if self.received.is_other_message(id, fingerprint) {
            // An identifier is not used again before its release, unless the broker lost the session and we were not told.
            let Some(connection) = &mut self.connection else {
                return Ok(None);
            };
            release_received(&mut self.received, connection, id);
        }
        if !self.received.contains(id) {
            self.hold(bytes)?;
        }
        let Some(connection) = &mut self.connection else {
            return Ok(None);
        };
        let epoch = connection.epoch;
        match self.received.arrive(id, bytes, fingerprint, epoch) {
            Arrival::New { sequence } => {
                connection.owed_pubrecs.push_back((id, sequence));
                Ok(Some(AckToken {
                    qos: AckQoS::Two,
                    epoch: self.session_epoch,
                    sequence,
                    packet_id: id,
                }))
            }
            //= MQTT-4.3.3-10
            Arrival::Again {
                sequence,
                first_on_this_connection,
            } => {
                self.counters.duplicates_suppressed += 1;
                connection.owed_pubrecs.push_back((id, sequence));
                if first_on_this_connection {
                    self.take_place()?;
                }
                self.check_pending_replies()?;
                Ok(None)
            }
            Arrival::Pending => {
                self.counters.duplicates_suppressed += 1;
                Ok(None)
            }
        }
    }

    fn on_puback(&mut self, ack: &AckRef<'_>) -> Result<(), ConnectionError> {
        match self.in_flight.entry(ack.packet_id).map(|entry| entry.stage) {
            None => self.counters.stray_acknowledgements += 1,
            Some(Stage::Puback) => self.finish(ack.packet_id, outcome_of(ack.reason_code)),
            Some(_) => {
                return Err(ConnectionError::Protocol(
                    ProtocolViolation::WrongAcknowledgement,
                ));
            }
        }
        Ok(())
    }

    fn on_pubrec(&mut self, ack: &AckRef<'_>) -> Result<(), ConnectionError> {
        let id = ack.packet_id;
        match self
            .in_flight
            .entry(id)
            .map(|entry| (entry.stage, entry.outgoing.id))
        {
            None => {
                self.counters.stray_acknowledgements += 1;
                self.reply(ReplyKind::Pubrel, id, ReasonCode::PacketIdentifierNotFound)
            }
            Some((Stage::Puback, _)) => Err(ConnectionError::Protocol(
                ProtocolViolation::WrongAcknowledgement,
            )),
            //= MQTT-4.3.3-4
            Some((Stage::Pubrec, _)) if ack.reason_code >= ReasonCode::UnspecifiedError => {
                self.finish(id, PublishOutcome::Rejected(ack.reason_code));
                Ok(())
            }
            Some((Stage::Pubrec, publish)) => {
                //= MQTT-4.3.3-6
                self.acquit(id);
                self.in_flight.received(id);
                self.events.push_back(Event::PublishReceived {
                    id: publish,
                    reason: ack.reason_code,
                });
                self.queue_pubrel(id)
            }
            // The broker did not see our PUBREL, or repeats itself.
            Some((Stage::Pubcomp, _)) => self.queue_pubrel(id),
        }
    }

    /// A PUBREL whose turn in the replay has not come is sent in that turn.
    fn queue_pubrel(&mut self, id: PacketId) -> Result<(), ConnectionError> {
        let epoch = self.connection_epoch;
        if self
            .in_flight
            .entry(id)
            .is_some_and(|entry| entry.sent_on == Some(epoch))
        {
            return self.reply(ReplyKind::Pubrel, id, ReasonCode::Success);
        }
        Ok(())
    }

    /// A PUBREL is always answered, whether its identifier is known or not.
    fn on_pubrel(&mut self, id: PacketId) -> Result<(), ConnectionError> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let reason = if self.received.contains(id) {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        release_received(&mut self.received, connection, id);
        //= MQTT-4.3.3-11
        let reason = if self.is_v5() {
            reason
        } else {
            ReasonCode::Success
        };
        self.reply(ReplyKind::Pubcomp, id, reason)
    }

    fn on_pubcomp(&mut self, ack: &AckRef<'_>) -> Result<(), ConnectionError> {
        match self.in_flight.entry(ack.packet_id).map(|entry| entry.stage) {
            None => self.counters.stray_acknowledgements += 1,
            Some(Stage::Pubcomp) => {
                let outcome = match ack.reason_code {
                    ReasonCode::PacketIdentifierNotFound => {
                        PublishOutcome::Indeterminate(Indeterminate::NotFound)
                    }
                    reason => PublishOutcome::Delivered(reason),
                };
                self.finish(ack.packet_id, outcome);
            }
            Some(_) => {
                return Err(ConnectionError::Protocol(
                    ProtocolViolation::WrongAcknowledgement,
                ));
            }
        }
        Ok(())
    }

    /// The broker took the publish without hanging up.
    fn acquit(&mut self, id: PacketId) {
        let (Some(connection), Some(entry)) = (&mut self.connection, self.in_flight.entry_mut(id))
        else {
            return;
        };
        if entry.is_suspect() {
            connection.replay.suspects = connection.replay.suspects.saturating_sub(1);
            entry.strikes = 0;
        }
    }

    /// Ends the exchange of a publish: its identifier and its place in the window are free again.
    pub(crate) fn finish(&mut self, id: PacketId, outcome: PublishOutcome) {
        self.acquit(id);
        if let Some(connection) = &mut self.connection {
            if connection.replay.next == Some(id) {
                connection.replay.next = self.in_flight.after(id);
            }
            if !connection.replay.one_at_a_time {
                connection.replay.window = connection
                    .replay
                    .window
                    .saturating_add(1)
                    .min(self.config.replay_window.get());
            }
        }
        let Some(entry) = self.in_flight.remove(id) else {
            return;
        };
        if let Some(connection) = &mut self.connection
            && entry.sent_on == Some(connection.epoch)
        {
            connection.send_quota.give_back();
        }
        self.complete(entry.outgoing.id, outcome);
    }

    fn on_suback(&mut self, suback: &SubackRef<'_>) -> Result<(), ConnectionError> {
        let codes: Vec<ReasonCode> = suback.reason_codes.iter().collect();
        match self
            .control
            .on_suback(suback.packet_id, codes.into_iter(), &mut self.events)
        {
            Ok(true) => {}
            Ok(false) => self.counters.stray_acknowledgements += 1,
            Err(violation) => return Err(ConnectionError::Protocol(violation)),
        }
        Ok(())
    }

    fn on_unsuback(&mut self, unsuback: &SubackRef<'_>) -> Result<(), ConnectionError> {
        let codes: Option<Vec<ReasonCode>> =
            self.is_v5().then(|| unsuback.reason_codes.iter().collect());
        match self
            .control
            .on_unsuback(unsuback.packet_id, codes.as_deref(), &mut self.events)
        {
            Ok(true) => {}
            Ok(false) => self.counters.stray_acknowledgements += 1,
            Err(violation) => return Err(ConnectionError::Protocol(violation)),
        }
        Ok(())
    }

    /// A PINGRESP that nobody asked for is let pass.
    fn on_pingresp(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if let Some(sent) = connection.keep_alive.on_pingresp() {
            self.events.push_back(Event::Pong {
                round_trip: self.now.saturating_duration_since(sent),
            });
        }
    }

    fn reply(
        &mut self,
        kind: ReplyKind,
        id: PacketId,
        reason: ReasonCode,
    ) -> Result<(), ConnectionError> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        // Before 5.0 there are no reasons.
        let reason = if self.config.version == ProtocolVersion::V5 {
            reason
        } else {
            ReasonCode::Success
        };
        connection.replies.push_back(Reply { kind, id, reason });
        self.check_pending_replies()
    }

    /// A peer that sends and does not read must not make us grow.
    fn check_pending_replies(&self) -> Result<(), ConnectionError> {
        match &self.connection {
            Some(connection) if connection.replies.len() > self.config.max_pending_replies => {
                Err(ConnectionError::Limit(LocalLimit::PendingReplies))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn is_v5(&self) -> bool {
        self.config.version == ProtocolVersion::V5
    }
}

impl crate::connection::Connection {
    /// The next whole packet, from the kept beginning of one and `input`.
    fn decode(&mut self, input: &mut Bytes) -> Result<Option<Packet>, mqtt_codec::DecodeError> {
        if self.discard > 0 {
            let gone = self.discard.min(input.len());
            self.discard -= gone;
            input.advance(gone);
        }
        while !self.partial.is_empty() {
            // Until its length is known a byte at a time, then all that it needs and no more: the rest stays uncopied.
            let wanted = self
                .decoder
                .pending_len()
                .map_or(1, |len| len.saturating_sub(self.partial.len()));
            let take = wanted.min(input.len());
            if take == 0 && wanted > 0 {
                return Ok(None);
            }
            self.partial.extend_from_slice(&input.split_to(take));
            if let Some(packet) = self.decoder.decode(&mut self.partial)? {
                self.partial = BytesMut::new();
                return Ok(Some(packet));
            }
        }
        let packet = self.decoder.decode_bytes(input)?;
        if packet.is_none() && !input.is_empty() {
            self.partial.extend_from_slice(input);
            input.advance(input.len());
        }
        Ok(packet)
    }
}

fn broker_limits(config: &Config, properties: &Properties<'_>) -> BrokerLimits {
    let default = BrokerLimits::of_version(config);
    if config.version != ProtocolVersion::V5 {
        return default;
    }
    let available = |bit: Option<bool>| Availability::from_bit(bit.unwrap_or(true));
    BrokerLimits {
        //= MQTT-3.3.4-7
        in_flight: properties
            .receive_maximum()
            .map_or(default.in_flight, |max| max.get().min(default.in_flight)),
        maximum_packet_size: properties
            .maximum_packet_size()
            .map_or(default.maximum_packet_size, |max| {
                max.get().min(default.maximum_packet_size)
            }),
        maximum_qos: properties.maximum_qos().unwrap_or(QoS::ExactlyOnce),
        retain: available(properties.retain_available()),
        wildcard_subscriptions: available(properties.wildcard_subscription_available()),
        subscription_identifiers: available(properties.subscription_identifier_available()),
        shared_subscriptions: available(properties.shared_subscription_available()),
        //= MQTT-3.2.2-17
        //= MQTT-3.2.2-18
        topic_aliases: properties
            .topic_alias_maximum()
            .unwrap_or(0)
            .min(config.max_outbound_aliases),
    }
}

/// What the broker keeps if it does not object.
fn own_session_expiry(config: &Config) -> Duration {
    match config.version {
        ProtocolVersion::V5 => config.session_expiry,
        _ if config.clean_start == CleanStart::Always => Duration::ZERO,
        _ => Duration::MAX,
    }
}

fn seconds_or_for_ever(seconds: u32) -> Duration {
    if seconds == u32::MAX {
        Duration::MAX
    } else {
        Duration::from_secs(u64::from(seconds))
    }
}

fn outcome_of(reason: ReasonCode) -> PublishOutcome {
    if reason >= ReasonCode::UnspecifiedError {
        PublishOutcome::Rejected(reason)
    } else {
        PublishOutcome::Delivered(reason)
    }
}

/// Whether a DISCONNECT with this reason says that something which we sent is why. Whoever sends that again is disconnected
/// again.
const fn blames_a_packet(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::UnspecifiedError
            | ReasonCode::MalformedPacket
            | ReasonCode::ProtocolError
            | ReasonCode::ImplementationSpecificError
            | ReasonCode::NotAuthorized
            | ReasonCode::TopicFilterInvalid
            | ReasonCode::TopicNameInvalid
            | ReasonCode::PacketTooLarge
            | ReasonCode::QuotaExceeded
            | ReasonCode::PayloadFormatInvalid
            | ReasonCode::RetainNotSupported
            | ReasonCode::QoSNotSupported
            | ReasonCode::SharedSubscriptionsNotSupported
            | ReasonCode::SubscriptionIdentifiersNotSupported
            | ReasonCode::WildcardSubscriptionsNotSupported
    )
}

/// Tells apart two messages with one identifier, by what a broker may not change.
fn fingerprint(publish: &mqtt_codec::Publish, alias_topic: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(alias_topic.map_or_else(|| publish.topic_name().as_bytes(), str::as_bytes));
    hasher.write_u8(0xff);
    hasher.write(publish.payload());
    hasher.finish()
}

fn owned(text: mqtt_codec::Text<'_>) -> String {
    text.as_str().to_owned()
}

fn user_properties(properties: &Properties<'_>) -> Vec<(String, String)> {
    properties
        .user_properties()
        .map(|(name, value)| (owned(name), owned(value)))
        .collect()
}

fn auth_data(properties: &Properties<'_>) -> AuthData {
    AuthData {
        data: properties.authentication_data().map(Bytes::copy_from_slice),
        reason_string: properties.reason_string().map(owned),
    }
}
