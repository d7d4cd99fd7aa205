//! What is written, and in which order.

use bytes::BytesMut;
use mqtt_codec::{
    AckRef, AuthRef, DisconnectRef, PacketId, PacketRef, Properties, Property, PropertyBuf,
    PropertyScope, ProtocolVersion, QoS, ReasonCode,
};

use crate::command::check_support;
use crate::connection::{Connection, Phase, PingState, ReplyKind};
use crate::encode::{
    Repetition, push, push_text, put, write_batch, write_connect, write_disconnect, write_publish,
};
use crate::error::PublishErrorReason;
use crate::event::{DisconnectCause, Event, Indeterminate, PublishOutcome};
use crate::job::BatchLimits;
use crate::outbound::{InFlightEntry, Outgoing, Stage, Window};
use crate::session::Session;
use crate::time::Timestamp;

/// Whether a step wrote or settled something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Done,
    Idle,
}

impl Session {
    /// Whether [`poll_transmit`](Self::poll_transmit) may have something to write. `true` promises nothing; after `false` it
    /// writes nothing until the next input, command or timeout. It is much cheaper to ask, for a driver that has mostly written all
    /// there is.
    #[must_use]
    #[inline]
    pub fn may_transmit(&self) -> bool {
        let has_own = match &self.connection {
            Some(connection) => !connection.is_quiet() || self.control.can_send(),
            None => self.farewell.is_some(),
        };
        has_own || self.waiting.len() > 0 || self.owes_answers() || self.persister.is_on
    }

    /// Appends whole packets to `out` until it has grown by at least `limit` bytes, or there is nothing more to send now.
    /// Returns by how many bytes it grew; zero means "nothing to send". A `limit` of one gives one packet a call.
    ///
    /// What is handed out counts as written: give it to the transport, or report the transport's end. Answers go first, so
    /// that publishing cannot starve them; then SUBSCRIBE and UNSUBSCRIBE; then what is sent again; then new publishes. Before the
    /// CONNACK only the CONNECT leaves, AUTH, and SUBSCRIBE where [`Config::subscribe_before_connack`](crate::Config) lets it.
    pub fn poll_transmit(&mut self, out: &mut BytesMut, limit: usize, now: Timestamp) -> usize {
        self.advance(now);
        let (may_transmit, reported) = (self.may_transmit(), self.events.len());
        // A DISCONNECT ends the connection before it has left.
        let is_stored = self.persister.is_on
            && (self.connection.is_some() || !self.persister.staged.is_empty());
        let written = if is_stored {
            self.transmit_stored(out, limit)
        } else {
            self.fill(out, limit)
        };
        debug_assert!(may_transmit || (written == 0 && self.events.len() == reported));
        self.counters.bytes_sent += written as u64;
        written
    }

    /// Hands out what was put together before, once all that it depends on is stored.
    fn transmit_stored(&mut self, out: &mut BytesMut, limit: usize) -> usize {
        if self.persister.staged.is_empty() {
            let reported = self.events.len();
            let mut staged = core::mem::take(&mut self.persister.staged);
            // More than is asked for: one write of the store serves them all.
            self.fill(&mut staged, limit.max(STAGED_BYTES));
            self.collect_touched();
            if staged.is_empty() {
                self.persister.staged = staged;
                return 0;
            }
            self.persister.staged = staged;
            self.persister.held_events = self.events.split_off(reported);
            self.persister.has_released = false;
            self.persister.seal();
        }
        if !self.persister.may_release() {
            return 0;
        }
        let start = out.len();
        self.persister.has_released = true;
        let staged = &mut self.persister.staged;
        while !staged.is_empty() && out.len() - start < limit.max(1) {
            let len = packet_len(staged).min(staged.len());
            out.extend_from_slice(&staged.split_to(len));
        }
        if staged.is_empty() {
            self.events.append(&mut self.persister.held_events);
        }
        out.len() - start
    }

    fn fill(&mut self, out: &mut BytesMut, limit: usize) -> usize {
        let start = out.len();
        while out.len() - start < limit.max(1) {
            let before = out.len();
            let step = self.transmit_one(out);
            if out.len() > before
                && let Some(connection) = &mut self.connection
            {
                connection.keep_alive.on_sent(self.now);
            }
            if step == Step::Idle {
                break;
            }
        }
        out.len() - start
    }

    fn transmit_one(&mut self, out: &mut BytesMut) -> Step {
        self.queue_decided();
        let Some(connection) = &mut self.connection else {
            return self.write_farewell(out);
        };
        match connection.phase {
            Phase::Opened { deadline } => {
                //= MQTT-3.1.0-1
                //= v3.1.1 MQTT-3.1.0-1
                connection.phase = Phase::AwaitsConnack { deadline };
                let client_id = self
                    .assigned_client_id
                    .as_deref()
                    .filter(|_| self.config.client_id.is_empty());
                let start = out.len();
                write_connect(&self.config, client_id, connection.clean_start, out);
                self.begin_early(out.len() - start);
                return Step::Done;
            }
            Phase::AwaitsConnack { .. } => {
                return match self.write_auth(out) {
                    Step::Done => Step::Done,
                    Step::Idle => self.write_early(out),
                };
            }
            Phase::Connected => {}
        }
        //= MQTT-3.3.4-8
        //= MQTT-4.9.0-3
        if self.write_reply(out) == Step::Done
            || self.write_ping(out) == Step::Done
            || self.write_auth(out) == Step::Done
        {
            return Step::Done;
        }
        let is_leaving = self
            .connection
            .as_ref()
            .is_some_and(|connection| connection.disconnect.is_some());
        if is_leaving && self.persister.is_on && !self.persister.is_clean() {
            // The answers before it wait to be stored; it would overtake them.
            return Step::Idle;
        }
        if let Some(disconnect) = self
            .connection
            .as_mut()
            .and_then(|connection| connection.disconnect.take())
        {
            write_disconnect(disconnect, self.config.version, out);
            //= MQTT-3.14.4-1
            //= v3.1.1 MQTT-3.14.4-1
            //= MQTT-3.14.4-2
            //= v3.1.1 MQTT-3.14.4-2
            self.end_connection(DisconnectCause::Requested, false);
            return Step::Done;
        }
        if self.is_winding_down() {
            return self.write_replay(out);
        }
        if self.write_control(out) == Step::Done || self.write_replay(out) == Step::Done {
            return Step::Done;
        }
        self.write_new(out)
    }

    fn write_farewell(&mut self, out: &mut BytesMut) -> Step {
        let Some(reason) = self.farewell.take() else {
            return Step::Idle;
        };
        let version = self.config.version;
        if PacketRef::Disconnect(DisconnectRef::new(reason))
            .encode(version, out)
            .is_err()
        {
            put(
                PacketRef::Disconnect(DisconnectRef::new(ReasonCode::ProtocolError)),
                version,
                out,
            );
        }
        Step::Done
    }

    fn write_reply(&mut self, out: &mut BytesMut) -> Step {
        let Some(reply) = self
            .connection
            .as_mut()
            .and_then(|connection| connection.replies.pop_front())
        else {
            return Step::Idle;
        };
        let ack = AckRef {
            packet_id: reply.id,
            reason_code: reply.reason,
            properties: Properties::EMPTY,
        };
        put(
            match reply.kind {
                ReplyKind::Puback => PacketRef::Puback(ack),
                ReplyKind::Pubrec => PacketRef::Pubrec(ack),
                ReplyKind::Pubrel => PacketRef::Pubrel(ack),
                ReplyKind::Pubcomp => PacketRef::Pubcomp(ack),
            },
            self.config.version,
            out,
        );
        Step::Done
    }

    fn write_ping(&mut self, out: &mut BytesMut) -> Step {
        match &mut self.connection {
            Some(connection) if connection.ping == PingState::Due => {
                connection.ping = PingState::Idle;
                connection.keep_alive.on_ping_sent(self.now);
                put(PacketRef::Pingreq, self.config.version, out);
                Step::Done
            }
            _ => Step::Idle,
        }
    }

    //= MQTT-4.12.0-3
    //= MQTT-4.12.1-1
    fn write_auth(&mut self, out: &mut BytesMut) -> Step {
        let Some(auth) = self
            .connection
            .as_mut()
            .and_then(|connection| connection.auth.take())
        else {
            return Step::Idle;
        };
        let Some(authentication) = &self.config.authentication else {
            return Step::Idle;
        };
        let mut properties = PropertyBuf::new(PropertyScope::Auth);
        push_text(
            &mut properties,
            Some(&authentication.method),
            Property::AuthenticationMethod,
        );
        if let Some(data) = &auth.data {
            push(&mut properties, Property::AuthenticationData(data));
        }
        put(
            PacketRef::Auth(AuthRef {
                reason_code: auth.reason,
                properties: properties.as_properties(),
            }),
            self.config.version,
            out,
        );
        Step::Done
    }

    fn write_control(&mut self, out: &mut BytesMut) -> Step {
        // A filter under suspicion goes when no publish could be blamed in its stead.
        let Some(connection) = &self.connection else {
            return Step::Idle;
        };
        if !self.control.can_send()
            || connection.isolates_a_publish()
            || (self.control.has_suspects() && connection.send_quota.used() > 0)
        {
            return Step::Idle;
        }
        let limits = connection.limits;
        let batch_limits = BatchLimits {
            filters: usize::from(self.config.max_filters_per_packet.get()),
            bytes: limits.maximum_packet_size as usize,
        };
        let events = self.events.len();
        let Some(batch) = self
            .control
            .next_batch(batch_limits, &limits, &mut self.events)
        else {
            return if self.events.len() > events {
                Step::Done
            } else {
                Step::Idle
            };
        };
        write_batch(batch, self.config.version, out);
        Step::Done
    }

    /// The next publish or PUBREL that was in flight when the connection began.
    fn write_replay(&mut self, out: &mut BytesMut) -> Step {
        let Some(connection) = &mut self.connection else {
            return Step::Idle;
        };
        let Some(id) = connection.replay.next else {
            return Step::Idle;
        };
        let Some(entry) = self.in_flight.entry(id) else {
            connection.replay.next = None;
            return Step::Done;
        };
        if entry.stage == Stage::Pubcomp {
            connection.replay.next = self.in_flight.after(id);
            connection.send_quota.take();
            if let Some(entry) = self.in_flight.entry_mut(id) {
                entry.sent_on = Some(connection.epoch);
            }
            //= MQTT-4.4.0-1
            //= v3.1.1 MQTT-4.4.0-1
            put(PacketRef::Pubrel(AckRef::new(id)), self.config.version, out);
            return Step::Done;
        }
        if connection.publish_free_at() > self.now {
            return Step::Idle;
        }
        let is_crowded = connection.send_quota.used() >= u32::from(connection.replay.window)
            || !connection.send_quota.has_room();
        let is_suspicious = self.control.has_suspects()
            || (connection.replay.one_at_a_time && self.control.in_flight() > 0);
        if is_crowded || is_suspicious {
            return Step::Idle;
        }
        connection.replay.next = self.in_flight.after(id);
        //= MQTT-4.3.3-7
        if let Err(reason) = fits(entry, connection) {
            let outcome = match entry.sent_before {
                true => PublishOutcome::Indeterminate(Indeterminate::RefusedAfterSent),
                false => PublishOutcome::NotSent(reason),
            };
            self.finish(id, outcome);
            return Step::Done;
        }
        self.write_and_report(id, out);
        Step::Done
    }

    /// The next publish that was never sent.
    fn write_new(&mut self, out: &mut BytesMut) -> Step {
        let limit = self.in_flight_limit(self.waiting.next_acknowledged());
        let Some(connection) = &mut self.connection else {
            return Step::Idle;
        };
        //= MQTT-4.9.0-2
        if connection.publish_free_at() > self.now {
            return Step::Idle;
        }
        let is_open = connection.replay.next.is_none()
            && connection.replay.suspects == 0
            && connection.send_quota.has_room()
            && self.in_flight.len() < limit
            && !self.control.has_suspects();
        let window = if is_open { Window::Open } else { Window::Shut };
        let Some(outgoing) = self.waiting.pop(window) else {
            return Step::Idle;
        };
        let id = outgoing.id;
        if outgoing.expires_at.is_some_and(|at| at <= self.now) {
            self.complete(id, PublishOutcome::Expired);
            return Step::Done;
        }
        if let Err(reason) = check_fits(&outgoing, connection) {
            self.complete(id, PublishOutcome::NotSent(reason));
            return Step::Done;
        }
        let stage = match outgoing.publish.qos {
            //= MQTT-4.3.1-1
            //= v3.1.1 MQTT-4.3.1-1
            QoS::AtMostOnce => {
                let written = self.write_at_most_once(
                    &outgoing.publish,
                    outgoing.expires_at,
                    outgoing.size,
                    out,
                );
                let outcome =
                    written.map_or_else(PublishOutcome::NotSent, |_| PublishOutcome::Written);
                // Not `complete`: a QoS 0 publish has no records.
                self.events
                    .push_back(Event::PublishCompleted { id, outcome });
                return Step::Done;
            }
            QoS::AtLeastOnce => Stage::Puback,
            QoS::ExactlyOnce => Stage::Pubrec,
        };
        match self.in_flight.push(InFlightEntry::new(outgoing, stage)) {
            Ok(packet_id) => {
                self.persister.touch_progress(id, packet_id);
                self.write_and_report(packet_id, out);
                Step::Done
            }
            // `max_in_flight` is below the number of identifiers, so there is one.
            Err(entry) => {
                self.complete(
                    entry.outgoing.id,
                    PublishOutcome::NotSent(PublishErrorReason::TooManyQueued),
                );
                Step::Done
            }
        }
    }

    /// How many may be in flight for one of this QoS to join them.
    pub(crate) fn in_flight_limit(&self, qos: Option<QoS>) -> usize {
        let limit = self.config.max_in_flight;
        let exactly_once = qos == Some(QoS::ExactlyOnce);
        let limit = if exactly_once && self.config.version < ProtocolVersion::V5 {
            limit.min(self.config.max_in_flight_qos2)
        } else {
            limit
        };
        usize::from(limit.get())
    }

    fn write_and_report(&mut self, id: PacketId, out: &mut BytesMut) {
        let is_reported = self
            .in_flight
            .entry(id)
            .is_none_or(|entry| entry.reported_written);
        if self.write_in_flight(id, out)
            && !is_reported
            && let Some(entry) = self.in_flight.entry(id)
        {
            let id = entry.outgoing.id;
            self.events.push_back(Event::PublishWritten { id });
        }
    }

    /// Writes a PUBLISH that is in flight, for the first time on this connection. `false`: it could not be encoded, and its
    /// end is reported.
    pub(crate) fn write_in_flight(&mut self, id: PacketId, out: &mut BytesMut) -> bool {
        let (Some(connection), Some(entry)) = (&mut self.connection, self.in_flight.entry_mut(id))
        else {
            return false;
        };
        connection.send_quota.take();
        connection.on_publish_sent(self.now);
        entry.sent_on = Some(connection.epoch);
        //= MQTT-3.3.1-1
        //= v3.1.1 MQTT-3.3.1-1
        let repetition = Repetition {
            id,
            //= MQTT-4.3.2-2
            //= MQTT-4.3.3-2
            //= v3.1.1 MQTT-4.3.2-1
            //= v3.1.1 MQTT-4.3.3-1
            //= v3.1.1 MQTT-2.3.1-3
            dup: entry.sent_before,
        };
        let written = write_publish(
            entry.outgoing.content(self.checked_topic.as_ref()),
            Some(repetition),
            connection,
            &mut self.scratch,
            self.now,
            self.config.version,
            out,
        );
        if written.is_err() {
            self.finish(
                id,
                PublishOutcome::NotSent(PublishErrorReason::InvalidProperty),
            );
            return false;
        }
        self.counters.publishes_sent += 1;
        self.counters.publishes_resent += u64::from(entry.sent_before);
        entry.sent_before = true;
        entry.reported_written = true;
        true
    }
}

fn fits(entry: &InFlightEntry, connection: &Connection) -> Result<(), PublishErrorReason> {
    check_fits(&entry.outgoing, connection)
}

/// The length of the packet at the front of what the session itself has encoded.
fn packet_len(bytes: &[u8]) -> usize {
    let mut remaining = 0;
    let mut header = 1;
    for (at, &byte) in bytes.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * at);
        header += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    header + remaining
}

/// How much is put together at once to wait for the store.
const STAGED_BYTES: usize = 64 * 1024;

/// What was accepted without a connection, or with another one, may be too much for this broker.
fn check_fits(outgoing: &Outgoing, connection: &Connection) -> Result<(), PublishErrorReason> {
    let maximum = connection.limits.maximum_packet_size as usize;
    //= MQTT-3.2.2-15
    if outgoing.size > maximum {
        return Err(PublishErrorReason::TooLarge {
            size: outgoing.size,
            maximum,
        });
    }
    check_support(&outgoing.publish, &connection.limits)
}
