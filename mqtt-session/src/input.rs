//! What each packet does.

use bytes::{Buf, Bytes};
use mqtt_codec::{DisconnectRef, Packet, ProtocolVersion, Publish, ReasonCode, SubackRef};

use crate::connack::{owned, user_properties};
use crate::connection::Phase;
use crate::error::{ConnectionError, ProtocolViolation};
use crate::event::{DisconnectCause, Event, Message, Recipient, ServerDisconnect};
use crate::receive::TakenIn;
use crate::session::{InputProgress, Session};
use crate::skip::Recovery;
use crate::time::Timestamp;

impl Session {
    /// Takes bytes that the peer sent, cut anywhere.
    ///
    /// All of `input` is taken: the beginning of a packet is kept inside until its end comes, at most
    /// [`Config::maximum_packet_size`](crate::Config::maximum_packet_size) bytes. Only after [`InputProgress::DrainEvents`] is there a rest in `input`, to be given
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
        self.begin_input(input, now);
        while self.events.len() < self.config.max_pending_events {
            if self.handle_next(input)? == Next::NeedsMoreInput {
                return Ok(InputProgress::NeedsMoreInput);
            }
        }
        Ok(self.pause_input(input))
    }

    /// As [`handle_input`](Self::handle_input), but hands each message straight on, in place of an [`Event::Message`] that is
    /// put into a queue and taken out again.
    ///
    /// A message goes to the `recipient` if no event waits, and is an event behind the others if one does. So what
    /// the recipient was given came before every event that there is when this returns, and the order is that of
    /// `handle_input` if those messages are handled before the next [`poll_event`](Self::poll_event). At most
    /// [`Config::max_pending_events`](crate::Config::max_pending_events) messages are taken in one call, repeated ones
    /// that go no further among them: then it returns [`InputProgress::DrainEvents`], as it does with as many events.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use mqtt_session::{ConnectionError, Event, InputProgress, Message, Session, Timestamp};
    /// # fn on_message(_: Message) {}
    /// # fn on_event(_: Event) {}
    /// fn received(session: &mut Session, mut input: Bytes, now: Timestamp) -> Result<(), ConnectionError> {
    ///     loop {
    ///         let progress = session.handle_input_with(&mut input, now, &mut on_message);
    ///         while let Some(event) = session.poll_event() {
    ///             on_event(event); // messages, too, that came behind another event
    ///         }
    ///         if progress? == InputProgress::NeedsMoreInput {
    ///             return Ok(());
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`handle_input`](Self::handle_input).
    #[inline]
    pub fn handle_input_with(
        &mut self,
        input: &mut Bytes,
        now: Timestamp,
        recipient: &mut impl Recipient,
    ) -> Result<InputProgress, ConnectionError> {
        self.begin_input(input, now);
        let Some(publish) = self.single_publish(input) else {
            return self.handle_packets_with(input, recipient);
        };
        self.hand_on(publish, recipient)?;
        Ok(InputProgress::NeedsMoreInput)
    }

    /// Takes a PUBLISH in, and hands it on if it is new.
    #[inline(never)]
    fn hand_on(
        &mut self,
        publish: Publish,
        recipient: &mut impl Recipient,
    ) -> Result<(), ConnectionError> {
        match self.take_in(&publish) {
            Ok(TakenIn::New { alias_topic, ack }) => recipient.message(Message {
                publish,
                alias_topic,
                ack,
            }),
            Ok(TakenIn::Known) => {}
            Err(error) => return Err(self.give_up(error)),
        }
        Ok(())
    }

    #[inline(never)]
    fn handle_packets_with(
        &mut self,
        input: &mut Bytes,
        recipient: &mut impl Recipient,
    ) -> Result<InputProgress, ConnectionError> {
        let mut handed_on = 0;
        while self.events.len() + handed_on < self.config.max_pending_events {
            if self.events.is_empty()
                && let Some(publish) = self.next_publish(input)
            {
                match self.take_in(&publish) {
                    Ok(TakenIn::New { alias_topic, ack }) => recipient.message(Message {
                        publish,
                        alias_topic,
                        ack,
                    }),
                    Ok(TakenIn::Known) => {}
                    Err(error) => return Err(self.give_up(error)),
                }
                handed_on += 1;
                if input.is_empty() {
                    return Ok(InputProgress::NeedsMoreInput);
                }
            } else if self.handle_next(input)? == Next::NeedsMoreInput {
                return Ok(InputProgress::NeedsMoreInput);
            }
        }
        Ok(self.pause_input(input))
    }

    #[inline]
    fn begin_input(&mut self, input: &Bytes, now: Timestamp) {
        self.advance(now);
        if !input.is_empty()
            && let Some(connection) = &mut self.connection
        {
            connection.keep_alive.on_received(self.now);
        }
    }

    /// Enough was reported for one call.
    fn pause_input(&self, input: &mut Bytes) -> InputProgress {
        if self.connection.is_none() {
            input.clear();
            return InputProgress::NeedsMoreInput;
        }
        InputProgress::DrainEvents
    }

    /// The whole input, if it is a PUBLISH in its place and no event waits.
    #[inline(always)]
    fn single_publish(&mut self, input: &mut Bytes) -> Option<Publish> {
        let connection = self.connection.as_mut()?;
        if !connection.is_between_packets() || !self.events.is_empty() {
            return None;
        }
        let publish = connection.decoder.decode_single_publish(input)?;
        self.counters.bytes_received += publish.frame().len() as u64;
        Some(publish)
    }

    /// The next packet, if it is a whole PUBLISH in its place. Whatever else it is, is left to
    /// [`handle_next`](Self::handle_next).
    #[inline(always)]
    fn next_publish(&mut self, input: &mut Bytes) -> Option<Publish> {
        let connection = self.connection.as_mut()?;
        if connection.phase != Phase::Connected || connection.discard > 0 {
            return None;
        }
        let publish = if connection.partial.is_empty() {
            connection.decoder.decode_publish_bytes(input)?
        } else {
            connection.complete_publish(input)?
        };
        self.counters.bytes_received += publish.frame().len() as u64;
        Some(publish)
    }

    /// Handles one packet, if there is a whole one.
    #[inline(never)]
    fn handle_next(&mut self, input: &mut Bytes) -> Result<Next, ConnectionError> {
        let Some(connection) = &mut self.connection else {
            input.clear();
            return Ok(Next::NeedsMoreInput);
        };
        let before = input.len() + connection.partial.len();
        let packet = match connection.decode(input) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(Next::NeedsMoreInput),
            Err(error) => {
                return match self.recover(error, input) {
                    Ok(Recovery::Skipped) => Ok(Next::Handled),
                    Ok(Recovery::NeedsMoreInput) => Ok(Next::NeedsMoreInput),
                    Err(error) => Err(self.give_up(error)),
                };
            }
        };
        self.counters.bytes_received += (before - input.len()) as u64;
        match self.handle_packet(packet) {
            Ok(()) if input.is_empty() => Ok(Next::NeedsMoreInput),
            Ok(()) => Ok(Next::Handled),
            Err(error) => Err(self.give_up(error)),
        }
    }

    //= MQTT-4.13.1-1
    //= v3.1.1 MQTT-4.8.0-1
    //= v3.1.1 MQTT-4.8.0-2
    #[cold]
    fn give_up(&mut self, error: ConnectionError) -> ConnectionError {
        self.fail(error);
        error
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
        // What a busy connection is made of comes first.
        let packet = match packet {
            Packet::Publish(publish) if phase == Phase::Connected => {
                return self.on_publish(publish);
            }
            other => other,
        };
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

    //= MQTT-3.14.2-2
    //= MQTT-4.13.2-1
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

    fn on_suback(&mut self, suback: &SubackRef<'_>) -> Result<(), ConnectionError> {
        let reported = self.events.len();
        match self.control.on_suback(
            suback.packet_id,
            suback.reason_codes.iter(),
            &mut self.events,
        ) {
            Ok(true) => {
                if let Some(connection) = &mut self.connection
                    && core::mem::take(&mut connection.is_hasty)
                {
                    self.haste.on_answered();
                }
                self.hold_until_stored(reported);
            }
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

    pub(crate) fn is_v5(&self) -> bool {
        self.config.version == ProtocolVersion::V5
    }
}

impl crate::connection::Connection {
    /// The next whole packet, from the kept beginning of one and `input`.
    //= MQTT-6.0.0-2
    //= v3.1.1 MQTT-6.0.0-2
    #[inline(always)]
    fn decode(&mut self, input: &mut Bytes) -> Result<Option<Packet>, mqtt_codec::DecodeError> {
        if self.discard > 0 {
            let gone = self.discard.min(input.len());
            self.discard -= gone;
            input.advance(gone);
        }
        while !self.partial.is_empty() {
            if let Some(packet) = self.decoder.decode(&mut self.partial)? {
                return Ok(Some(packet));
            }
            // Until its length is known a byte at a time, then all that it needs and no more: the rest stays uncopied.
            let wanted = self
                .decoder
                .pending_len()
                .map_or(1, |len| len.saturating_sub(self.partial.len()));
            if !self.keep(input, wanted) {
                return Ok(None);
            }
        }
        let packet = self.decoder.decode_bytes(input)?;
        if packet.is_none() {
            self.keep(input, input.len());
        }
        Ok(packet)
    }

    /// The PUBLISH whose beginning is kept, if `input` has its end.
    #[inline(never)]
    fn complete_publish(&mut self, input: &mut Bytes) -> Option<Publish> {
        let len = self.decoder.pending_len()?;
        self.keep(input, len.saturating_sub(self.partial.len()));
        self.decoder.decode_publish(&mut self.partial)
    }

    /// Keeps the first few bytes of `input`, as many as there are of those wanted. Returns whether there were any.
    ///
    /// They go into a block that many packets share, each of which keeps it alive: a stream that is cut everywhere would
    /// cost an allocation a packet otherwise. An idle connection gives it back.
    fn keep(&mut self, input: &mut Bytes, wanted: usize) -> bool {
        let taken = input.get(..wanted).unwrap_or(input);
        if taken.is_empty() {
            return false;
        }
        if self.partial.capacity() - self.partial.len() < taken.len() {
            self.partial.reserve(taken.len().max(PARTIAL_BLOCK));
        }
        self.partial.extend_from_slice(taken);
        let taken = taken.len();
        input.advance(taken);
        true
    }
}

/// The size of the blocks that packets are put together in, in bytes: some twenty small ones share one, and those that stay
/// keep little more alive than the few that they are.
const PARTIAL_BLOCK: usize = 2 * 1024;

/// How the input goes on after a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// There may be another.
    Handled,
    NeedsMoreInput,
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
