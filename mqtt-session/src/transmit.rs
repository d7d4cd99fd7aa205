//! What is written, and in which order.

use core::num::{NonZeroU16, NonZeroU32};
use core::time::Duration;

use bytes::BytesMut;
use mqtt_codec::{
    AckRef, AuthRef, ConnectRef, DisconnectRef, EncodeError, PacketId, PacketRef, Properties,
    Property, PropertyBuf, PropertyScope, ProtocolVersion, PublishRef, QoS, ReasonCode,
    SubscribeRef, SubscriptionOptions, Subscriptions, Text, TopicFilter, TopicFilters, TopicName,
    UnsubscribeRef, WillRef,
};

use crate::alias::OutboundAlias;
use crate::config::{Config, ResponseInformation, Will};
use crate::connection::{Connection, Phase, PingState, ReplyKind};
use crate::control::{Batch, BatchLimits, PacketKind, Request};
use crate::error::PublishErrorReason;
use crate::event::{DisconnectCause, Event, Indeterminate, PublishOutcome};
use crate::outbound::{InFlightEntry, Outgoing, Stage, Window};
use crate::publish::{Publish, PublishProperties};
use crate::session::{Disconnect, Session, WillOnDisconnect, check_support};
use crate::subscribe::{NoLocal, RetainAsPublished, Subscription};
use crate::time::Timestamp;

/// Whether a step wrote or settled something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    Idle,
}

impl Session {
    /// Appends whole packets to `out` until it has grown by at least `limit` bytes, or there is nothing more to send now.
    /// Returns by how many bytes it grew; zero means "nothing to send". A `limit` of one gives one packet a call.
    ///
    /// What is handed out counts as written: give it to the transport, or report the transport's end. Answers go first, so
    /// that publishing cannot starve them; then SUBSCRIBE and UNSUBSCRIBE; then what is sent again; then new publishes.
    pub fn poll_transmit(&mut self, out: &mut BytesMut, limit: usize, now: Timestamp) -> usize {
        self.advance(now);
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
        let written = out.len() - start;
        self.counters.bytes_sent += written as u64;
        written
    }

    fn transmit_one(&mut self, out: &mut BytesMut) -> Step {
        self.queue_decided();
        let Some(connection) = &mut self.connection else {
            return self.write_farewell(out);
        };
        match connection.phase {
            Phase::Opened { deadline } => {
                connection.phase = Phase::AwaitsConnack { deadline };
                let client_id = self
                    .assigned_client_id
                    .as_deref()
                    .filter(|_| self.config.client_id.is_empty());
                write_connect(&self.config, client_id, connection.clean_start, out);
                return Step::Done;
            }
            Phase::AwaitsConnack { .. } => return self.write_auth(out),
            Phase::Connected => {}
        }
        if self.write_reply(out) == Step::Done
            || self.write_ping(out) == Step::Done
            || self.write_auth(out) == Step::Done
        {
            return Step::Done;
        }
        if let Some(disconnect) = self
            .connection
            .as_mut()
            .and_then(|connection| connection.disconnect.take())
        {
            write_disconnect(disconnect, self.config.version, out);
            //= MQTT-3.14.4-1
            //= v3.1.1 MQTT-3.14.4-1
            self.end_connection(DisconnectCause::Requested, false);
            return Step::Done;
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
        let is_crowded = connection.send_quota.used() >= u32::from(connection.replay.window)
            || !connection.send_quota.has_room();
        let is_suspicious = self.control.has_suspects()
            || (connection.replay.one_at_a_time && self.control.in_flight() > 0);
        if is_crowded || is_suspicious {
            return Step::Idle;
        }
        connection.replay.next = self.in_flight.after(id);
        if let Err(reason) = fits(entry, connection) {
            let outcome = match entry.sent_before {
                true => PublishOutcome::Indeterminate(Indeterminate::RefusedAfterSent),
                false => PublishOutcome::NotSent(reason),
            };
            self.finish(id, outcome);
            return Step::Done;
        }
        self.write_in_flight(id, out);
        Step::Done
    }

    /// The next publish that was never sent.
    fn write_new(&mut self, out: &mut BytesMut) -> Step {
        let Some(connection) = &mut self.connection else {
            return Step::Idle;
        };
        let is_open = connection.replay.next.is_none()
            && connection.replay.suspects == 0
            && connection.send_quota.has_room()
            && self.in_flight.len() < usize::from(self.config.max_in_flight.get())
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
            QoS::AtMostOnce => {
                let written = write_publish(
                    &outgoing,
                    None,
                    connection,
                    &mut self.scratch,
                    self.now,
                    self.config.version,
                    out,
                );
                self.counters.publishes_sent += 1;
                self.complete(
                    id,
                    written.map_or_else(
                        |_| PublishOutcome::NotSent(PublishErrorReason::InvalidProperty),
                        |()| PublishOutcome::Written,
                    ),
                );
                return Step::Done;
            }
            QoS::AtLeastOnce => Stage::Puback,
            QoS::ExactlyOnce => Stage::Pubrec,
        };
        let entry = InFlightEntry {
            outgoing,
            stage,
            sent_before: false,
            reported_written: false,
            sent_on: None,
            strikes: 0,
        };
        match self.in_flight.push(entry) {
            Ok(packet_id) => {
                self.write_in_flight(packet_id, out);
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

    /// Writes a PUBLISH that is in flight, for the first time on this connection.
    fn write_in_flight(&mut self, id: PacketId, out: &mut BytesMut) {
        let (Some(connection), Some(entry)) = (&mut self.connection, self.in_flight.entry_mut(id))
        else {
            return;
        };
        connection.send_quota.take();
        entry.sent_on = Some(connection.epoch);
        //= MQTT-3.3.1-1
        //= v3.1.1 MQTT-3.3.1-1
        let repetition = Repetition {
            id,
            dup: entry.sent_before,
        };
        let written = write_publish(
            &entry.outgoing,
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
            return;
        }
        self.counters.publishes_sent += 1;
        self.counters.publishes_resent += u64::from(entry.sent_before);
        entry.sent_before = true;
        if !entry.reported_written {
            entry.reported_written = true;
            self.events.push_back(Event::PublishWritten {
                id: entry.outgoing.id,
            });
        }
    }
}

/// What a QoS 1 or 2 PUBLISH carries beyond its message.
#[derive(Debug, Clone, Copy)]
struct Repetition {
    id: PacketId,
    dup: bool,
}

fn fits(entry: &InFlightEntry, connection: &Connection) -> Result<(), PublishErrorReason> {
    check_fits(&entry.outgoing, connection)
}

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

fn write_publish(
    outgoing: &Outgoing,
    repetition: Option<Repetition>,
    connection: &mut Connection,
    scratch: &mut PropertyBuf,
    now: Timestamp,
    version: ProtocolVersion,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let Publish {
        topic,
        payload,
        qos,
        retain,
        properties,
        ..
    } = &outgoing.publish;
    // Accepted only with a valid Topic Name.
    let name = TopicName::new(topic).unwrap_or(TopicName::EMPTY);
    let alias = if version == ProtocolVersion::V5 {
        connection.outbound_aliases.assign(topic)
    } else {
        OutboundAlias::None
    };
    let (name, alias) = match alias {
        OutboundAlias::None => (name, None),
        OutboundAlias::Bind(alias) if alias_overflows(outgoing, connection) => {
            // The packet would grow past what the broker takes. The binding was never sent, so it must not be used.
            connection.outbound_aliases.forget(alias, topic);
            (name, None)
        }
        OutboundAlias::Bind(alias) => (name, NonZeroU16::new(alias)),
        OutboundAlias::Use(alias) => (TopicName::EMPTY, NonZeroU16::new(alias)),
    };
    scratch.clear();
    if version == ProtocolVersion::V5 {
        if let Some(alias) = alias {
            scratch.push(Property::TopicAlias(alias))?;
        }
        if let Some(at) = outgoing.expires_at {
            let left = at.saturating_duration_since(now);
            scratch.push(Property::MessageExpiryInterval(
                whole_seconds_up(left).max(1),
            ))?;
        }
        if let Some(properties) = properties {
            push_publish_properties(scratch, properties);
        }
    }
    let publish = PublishRef {
        dup: repetition.is_some_and(|repetition| repetition.dup),
        qos: *qos,
        retain: retain.is_yes(),
        topic: name,
        packet_id: repetition.map(|repetition| repetition.id),
        properties: scratch.as_properties(),
        payload,
    };
    publish.encode(version, out)
}

/// Whether three more bytes are too many (and one more each for the lengths).
fn alias_overflows(outgoing: &Outgoing, connection: &Connection) -> bool {
    outgoing.size + 5 > connection.limits.maximum_packet_size as usize
}

fn write_connect(config: &Config, assigned: Option<&str>, clean_start: bool, out: &mut BytesMut) {
    let version = config.version;
    let mut properties = PropertyBuf::new(PropertyScope::Connect);
    let mut will_properties = PropertyBuf::new(PropertyScope::Will);
    if version == ProtocolVersion::V5 {
        push_connect_properties(&mut properties, config);
        if let Some(will) = &config.will {
            push_will_properties(&mut will_properties, will);
        }
    }
    let will = config.will.as_ref().map(|will| WillRef {
        topic: TopicName::new(&will.topic).unwrap_or(TopicName::EMPTY),
        payload: &will.payload,
        qos: will.qos,
        retain: will.retain.is_yes(),
        properties: will_properties.as_properties(),
    });
    let connect = ConnectRef {
        version,
        clean_start,
        keep_alive_secs: u16::try_from(config.keep_alive.as_secs()).unwrap_or(u16::MAX),
        properties: properties.as_properties(),
        client_id: text(assigned.unwrap_or(&config.client_id)),
        will,
        user_name: config.username.as_deref().map(text),
        password: config.password.as_deref(),
    };
    put(PacketRef::Connect(connect), version, out);
}

fn push_connect_properties(properties: &mut PropertyBuf, config: &Config) {
    if !config.session_expiry.is_zero() {
        push(
            properties,
            Property::SessionExpiryInterval(seconds_or_for_ever(config.session_expiry)),
        );
    }
    push(properties, Property::ReceiveMaximum(config.receive_maximum));
    if let Some(maximum) = NonZeroU32::new(config.maximum_packet_size) {
        push(properties, Property::MaximumPacketSize(maximum));
    }
    if config.topic_alias_maximum > 0 {
        push(
            properties,
            Property::TopicAliasMaximum(config.topic_alias_maximum),
        );
    }
    if config.response_information == ResponseInformation::Request {
        push(properties, Property::RequestResponseInformation(true));
    }
    for (name, value) in &config.user_properties {
        push(properties, Property::UserProperty(text(name), text(value)));
    }
    if let Some(authentication) = &config.authentication {
        push_text(
            properties,
            Some(&authentication.method),
            Property::AuthenticationMethod,
        );
        if let Some(data) = &authentication.data {
            push(properties, Property::AuthenticationData(data));
        }
    }
}

fn push_will_properties(properties: &mut PropertyBuf, will: &Will) {
    if !will.delay.is_zero() {
        push(
            properties,
            Property::WillDelayInterval(whole_seconds_up(will.delay)),
        );
    }
    if let Some(expiry) = will.expiry {
        push(
            properties,
            Property::MessageExpiryInterval(whole_seconds_up(expiry)),
        );
    }
    push_publish_properties(properties, &will.properties);
}

fn push_publish_properties(buf: &mut PropertyBuf, properties: &PublishProperties) {
    if let Some(format) = properties.payload_format {
        push(buf, Property::PayloadFormatIndicator(format));
    }
    push_text(buf, properties.content_type.as_ref(), Property::ContentType);
    if let Some(topic) = &properties.response_topic {
        push(
            buf,
            Property::ResponseTopic(TopicName::new(topic).unwrap_or(TopicName::EMPTY)),
        );
    }
    if let Some(data) = &properties.correlation_data {
        push(buf, Property::CorrelationData(data));
    }
    for (name, value) in &properties.user_properties {
        push(buf, Property::UserProperty(text(name), text(value)));
    }
}

fn write_batch(batch: &Batch, version: ProtocolVersion, out: &mut BytesMut) {
    let packet_id = batch.packet_id;
    match batch.kind {
        PacketKind::Subscribe(id) => {
            let list: Vec<mqtt_codec::Subscription<'_>> = batch
                .jobs
                .iter()
                .filter_map(|job| match &job.request {
                    Request::Subscribe { subscription, .. } => Some(mqtt_codec::Subscription {
                        filter: TopicFilter::new(&subscription.filter).ok()?,
                        options: options(subscription, version),
                    }),
                    Request::Unsubscribe(_) => None,
                })
                .collect();
            let id = id.map(Property::SubscriptionIdentifier);
            let properties = Properties::list(id.as_slice());
            put(
                PacketRef::Subscribe(SubscribeRef {
                    packet_id,
                    properties,
                    subscriptions: Subscriptions::list(&list),
                }),
                version,
                out,
            );
        }
        PacketKind::Unsubscribe => {
            let list: Vec<TopicFilter<'_>> = batch
                .jobs
                .iter()
                .filter_map(|job| TopicFilter::new(job.request.filter()).ok())
                .collect();
            let filters = TopicFilters::list(&list);
            put(
                PacketRef::Unsubscribe(UnsubscribeRef {
                    packet_id,
                    properties: Properties::EMPTY,
                    filters,
                }),
                version,
                out,
            );
        }
    }
}

fn options(subscription: &Subscription, version: ProtocolVersion) -> SubscriptionOptions {
    if version != ProtocolVersion::V5 {
        // Also on a resubscribe, for which the session itself would choose a Retain Handling.
        return SubscriptionOptions::new(subscription.qos);
    }
    SubscriptionOptions {
        no_local: subscription.no_local == NoLocal::On,
        retain_as_published: subscription.retain_as_published == RetainAsPublished::Keep,
        retain_handling: subscription.retain_handling,
        ..SubscriptionOptions::new(subscription.qos)
    }
}

fn write_disconnect(disconnect: Disconnect, version: ProtocolVersion, out: &mut BytesMut) {
    let reason_code = match disconnect.will {
        WillOnDisconnect::Discard => ReasonCode::Success,
        WillOnDisconnect::Publish => ReasonCode::DisconnectWithWillMessage,
    };
    let expiry = disconnect
        .session_expiry
        .map(|expiry| Property::SessionExpiryInterval(seconds_or_for_ever(expiry)));
    put(
        PacketRef::Disconnect(DisconnectRef {
            reason_code,
            properties: Properties::list(expiry.as_slice()),
        }),
        version,
        out,
    );
}

/// Encodes what was checked when it was accepted.
fn put(packet: PacketRef<'_>, version: ProtocolVersion, out: &mut BytesMut) {
    let encoded = packet.encode(version, out);
    debug_assert_eq!(encoded, Ok(()), "{packet:?}");
}

fn push(buf: &mut PropertyBuf, property: Property<'_>) {
    let pushed = buf.push(property);
    debug_assert_eq!(pushed, Ok(()), "{property:?}");
}

fn push_text<'a>(
    buf: &mut PropertyBuf,
    value: Option<&'a String>,
    property: impl FnOnce(Text<'a>) -> Property<'a>,
) {
    if let Some(value) = value {
        push(buf, property(text(value)));
    }
}

/// Text that was checked when it was accepted.
fn text(value: &str) -> Text<'_> {
    Text::new(value).unwrap_or_default()
}

fn whole_seconds_up(duration: Duration) -> u32 {
    let up = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(up).unwrap_or(u32::MAX)
}

fn seconds_or_for_ever(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
