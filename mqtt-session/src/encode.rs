//! Packets as bytes.

use core::num::{NonZeroU16, NonZeroU32};
use core::time::Duration;
use std::sync::Arc;

use bytes::BytesMut;
use mqtt_codec::{
    ConnectRef, DisconnectRef, EncodeError, PacketId, PacketRef, Properties, Property, PropertyBuf,
    PropertyScope, ProtocolVersion, PublishRef, ReasonCode, SharedTopicName, SubscribeRef,
    SubscriptionOptions, Subscriptions, Text, TopicFilter, TopicFilters, TopicName, UnsubscribeRef,
    WillRef,
};

use crate::alias::OutboundAlias;
use crate::command::{Disconnect, WillOnDisconnect};
use crate::config::{Config, ResponseInformation, Will};
use crate::connection::Connection;
use crate::job::{Batch, Job, PacketKind, Request};
use crate::publish::{Publish, PublishProperties};
use crate::subscribe::{NoLocal, RetainAsPublished, Subscription};
use crate::time::Timestamp;

/// What a QoS 1 or 2 PUBLISH carries beyond its message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repetition {
    pub(crate) id: PacketId,
    pub(crate) dup: bool,
}

/// What is written of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    pub(crate) publish: &'a Publish,
    /// The topic of the publish.
    pub(crate) name: TopicName<'a>,
    pub(crate) expires_at: Option<Timestamp>,
    /// As `size_of_publish` has it.
    pub(crate) size: usize,
}

/// The name of a topic, checked again only if it is not the one that was checked last.
#[inline]
pub(crate) fn name_of<'a>(
    checked: Option<&'a SharedTopicName>,
    topic: &'a Arc<str>,
) -> TopicName<'a> {
    match checked {
        Some(checked) if checked.shares(topic) => checked.as_name(),
        // Accepted only with a valid Topic Name.
        _ => TopicName::new(topic).unwrap_or(TopicName::EMPTY),
    }
}

// Not a part of its callers, so that what appends to `out` is a part of this.
#[inline(never)]
pub(crate) fn write_publish(
    content: Content<'_>,
    repetition: Option<Repetition>,
    connection: &mut Connection,
    scratch: &mut PropertyBuf,
    now: Timestamp,
    version: ProtocolVersion,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let mut topic = content.name;
    let mut properties = Properties::EMPTY;
    if version == ProtocolVersion::V5 {
        topic = push_properties(content, connection, scratch, now)?;
        properties = scratch.as_properties();
    }
    let publish = PublishRef {
        dup: repetition.is_some_and(|repetition| repetition.dup),
        qos: content.publish.qos,
        retain: content.publish.retain.is_yes(),
        topic,
        packet_id: repetition.map(|repetition| repetition.id),
        properties,
        payload: &content.publish.payload,
    };
    publish.encode_to(version, out)
}

/// Collects the properties of a PUBLISH (5.0), and tells under which name it goes: none, where a Topic Alias stands for it.
#[inline(never)]
fn push_properties<'a>(
    content: Content<'a>,
    connection: &mut Connection,
    scratch: &mut PropertyBuf,
    now: Timestamp,
) -> Result<TopicName<'a>, EncodeError> {
    let topic = &content.publish.topic;
    let (name, alias) = match connection.outbound_aliases.assign(topic) {
        OutboundAlias::None => (content.name, None),
        OutboundAlias::Bind(alias) if alias_overflows(content, connection) => {
            // The packet would grow past what the broker takes. The binding was never sent, so it must not be used.
            connection.outbound_aliases.forget(alias, topic);
            (content.name, None)
        }
        OutboundAlias::Bind(alias) => (content.name, NonZeroU16::new(alias)),
        OutboundAlias::Use(alias) => (TopicName::EMPTY, NonZeroU16::new(alias)),
    };
    scratch.clear();
    if let Some(alias) = alias {
        scratch.push(Property::TopicAlias(alias))?;
    }
    if let Some(at) = content.expires_at {
        let left = at.saturating_duration_since(now);
        scratch.push(Property::MessageExpiryInterval(
            whole_seconds_up(left).max(1),
        ))?;
    }
    if let Some(properties) = &content.publish.properties {
        push_publish_properties(scratch, properties);
    }
    Ok(name)
}

/// Whether three more bytes are too many (and one more each for the lengths).
pub(crate) fn alias_overflows(content: Content<'_>, connection: &Connection) -> bool {
    content.size + 5 > connection.limits.maximum_packet_size as usize
}

pub(crate) fn write_connect(
    config: &Config,
    assigned: Option<&str>,
    clean_start: bool,
    out: &mut BytesMut,
) {
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
        //= MQTT-3.1.3-2
        //= v3.1.1 MQTT-3.1.3-2
        client_id: text(assigned.unwrap_or(&config.client_id)),
        will,
        user_name: config.username.as_deref().map(text),
        password: config.password.as_deref(),
    };
    put(PacketRef::from(&connect), version, out);
}

pub(crate) fn push_connect_properties(properties: &mut PropertyBuf, config: &Config) {
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

pub(crate) fn push_will_properties(properties: &mut PropertyBuf, will: &Will) {
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

//= MQTT-3.3.4-6
pub(crate) fn push_publish_properties(buf: &mut PropertyBuf, properties: &PublishProperties) {
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

pub(crate) fn write_batch(batch: &Batch, version: ProtocolVersion, out: &mut BytesMut) {
    let packet_id = batch.packet_id;
    match batch.kind {
        PacketKind::Subscribe(id) => {
            let (one, many);
            let list = match batch.jobs.as_slice() {
                [only] => {
                    one = in_codec(only, version);
                    one.as_slice()
                }
                jobs => {
                    let in_codec = |job| in_codec(job, version);
                    many = jobs.iter().filter_map(in_codec).collect::<Vec<_>>();
                    &many
                }
            };
            let id = id.map(Property::SubscriptionIdentifier);
            let properties = Properties::list(id.as_slice());
            put(
                PacketRef::Subscribe(SubscribeRef {
                    packet_id,
                    properties,
                    subscriptions: Subscriptions::list(list),
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

fn in_codec(job: &Job, version: ProtocolVersion) -> Option<mqtt_codec::Subscription<'_>> {
    match &job.request {
        Request::Subscribe { subscription, .. } => Some(mqtt_codec::Subscription {
            filter: TopicFilter::new(&subscription.filter).ok()?,
            options: options(subscription, version),
        }),
        Request::Unsubscribe(_) => None,
    }
}

pub(crate) fn options(
    subscription: &Subscription,
    version: ProtocolVersion,
) -> SubscriptionOptions {
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

pub(crate) fn write_disconnect(
    disconnect: Disconnect,
    version: ProtocolVersion,
    out: &mut BytesMut,
) {
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
pub(crate) fn put(packet: PacketRef<'_>, version: ProtocolVersion, out: &mut BytesMut) {
    let encoded = packet.encode_to(version, out);
    debug_assert_eq!(encoded, Ok(()), "{packet:?}");
}

pub(crate) fn push(buf: &mut PropertyBuf, property: Property<'_>) {
    let pushed = buf.push(property);
    debug_assert_eq!(pushed, Ok(()), "{property:?}");
}

pub(crate) fn push_text<'a>(
    buf: &mut PropertyBuf,
    value: Option<&'a String>,
    property: impl FnOnce(Text<'a>) -> Property<'a>,
) {
    if let Some(value) = value {
        push(buf, property(text(value)));
    }
}

/// Text that was checked when it was accepted.
pub(crate) fn text(value: &str) -> Text<'_> {
    Text::new(value).unwrap_or_default()
}

pub(crate) fn whole_seconds_up(duration: Duration) -> u32 {
    let up = duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0));
    u32::try_from(up).unwrap_or(u32::MAX)
}

pub(crate) fn seconds_or_for_ever(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
