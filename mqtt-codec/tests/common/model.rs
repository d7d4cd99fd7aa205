//! Packets that own their fields, and a slow encoder written from the specification: an oracle that shares nothing with
//! the crate.

use mqtt_codec::{PacketRef as P, *};

use super::{filter, id, subscription_id, text, topic};

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Byte(u8),
    U16(u16),
    U32(u32),
    Varint(u32),
    Text(String),
    Topic(String),
    Binary(Vec<u8>),
    Pair(String, String),
}

#[derive(Clone, Debug)]
pub(crate) struct Prop {
    pub(crate) id: u8,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Vec<Prop>,
}

#[derive(Clone, Debug)]
pub(crate) enum Model {
    Connect {
        clean: bool,
        keep_alive: u16,
        properties: Vec<Prop>,
        client_id: String,
        will: Option<Will>,
        user: Option<String>,
        password: Option<Vec<u8>>,
    },
    Connack {
        present: bool,
        code: u8,
        properties: Vec<Prop>,
    },
    Publish {
        dup: bool,
        qos: u8,
        retain: bool,
        topic: String,
        id: u16,
        properties: Vec<Prop>,
        payload: Vec<u8>,
    },
    /// PUBACK, PUBREC, PUBREL, PUBCOMP by their number.
    Ack {
        packet: u8,
        id: u16,
        code: u8,
        properties: Vec<Prop>,
    },
    Subscribe {
        id: u16,
        properties: Vec<Prop>,
        list: Vec<(String, u8)>,
    },
    Suback {
        id: u16,
        properties: Vec<Prop>,
        codes: Vec<u8>,
    },
    Unsubscribe {
        id: u16,
        properties: Vec<Prop>,
        list: Vec<String>,
    },
    Unsuback {
        id: u16,
        properties: Vec<Prop>,
        codes: Vec<u8>,
    },
    Ping {
        response: bool,
    },
    Disconnect {
        code: u8,
        properties: Vec<Prop>,
    },
    Auth {
        code: u8,
        properties: Vec<Prop>,
    },
}

impl Model {
    /// The bytes of this packet, in its shortest form.
    pub(crate) fn encode(&self, version: ProtocolVersion) -> Vec<u8> {
        let v5 = version == ProtocolVersion::V5;
        let put = |body: &mut Vec<u8>, list: &[Prop]| {
            if v5 {
                let block = block(list);
                varint(body, block.len());
                body.extend(block);
            }
        };
        let mut body = Vec::new();
        let first = match self {
            Self::Connect {
                clean,
                keep_alive,
                properties,
                client_id,
                will,
                user,
                password,
            } => {
                match version {
                    ProtocolVersion::V31 => body.extend(b"\x00\x06MQIsdp\x03"),
                    ProtocolVersion::V311 => body.extend(b"\x00\x04MQTT\x04"),
                    _ => body.extend(b"\x00\x04MQTT\x05"),
                }
                let mut flags = u8::from(*clean) << 1
                    | u8::from(user.is_some()) << 7
                    | u8::from(password.is_some()) << 6;
                if let Some(will) = will {
                    flags |= 4 | will.qos << 3 | u8::from(will.retain) << 5;
                }
                body.push(flags);
                body.extend(keep_alive.to_be_bytes());
                put(&mut body, properties);
                prefixed(&mut body, client_id.as_bytes());
                if let Some(will) = will {
                    put(&mut body, &will.properties);
                    prefixed(&mut body, will.topic.as_bytes());
                    prefixed(&mut body, &will.payload);
                }
                if let Some(user) = user {
                    prefixed(&mut body, user.as_bytes());
                }
                if let Some(password) = password {
                    prefixed(&mut body, password);
                }
                0x10
            }
            Self::Connack {
                present,
                code,
                properties,
            } => {
                body.extend([u8::from(*present), *code]);
                put(&mut body, properties);
                0x20
            }
            Self::Publish {
                dup,
                qos,
                retain,
                topic,
                id,
                properties,
                payload,
            } => {
                prefixed(&mut body, topic.as_bytes());
                if *qos > 0 {
                    body.extend(id.to_be_bytes());
                }
                put(&mut body, properties);
                body.extend(payload);
                0x30 | u8::from(*dup) << 3 | qos << 1 | u8::from(*retain)
            }
            Self::Ack {
                packet,
                id,
                code,
                properties,
            } => {
                body.extend(id.to_be_bytes());
                if *code != 0 || !properties.is_empty() {
                    body.push(*code);
                }
                if !properties.is_empty() {
                    put(&mut body, properties);
                }
                packet << 4 | if *packet == 6 { 2 } else { 0 }
            }
            Self::Subscribe {
                id,
                properties,
                list,
            } => {
                body.extend(id.to_be_bytes());
                put(&mut body, properties);
                for (filter, options) in list {
                    prefixed(&mut body, filter.as_bytes());
                    body.push(*options);
                }
                0x82
            }
            Self::Suback {
                id,
                properties,
                codes,
            }
            | Self::Unsuback {
                id,
                properties,
                codes,
            } => {
                body.extend(id.to_be_bytes());
                put(&mut body, properties);
                body.extend(codes);
                if matches!(self, Self::Suback { .. }) {
                    0x90
                } else {
                    0xB0
                }
            }
            Self::Unsubscribe {
                id,
                properties,
                list,
            } => {
                body.extend(id.to_be_bytes());
                put(&mut body, properties);
                for filter in list {
                    prefixed(&mut body, filter.as_bytes());
                }
                0xA2
            }
            Self::Ping { response } => 0xC0 | u8::from(*response) << 4,
            Self::Disconnect { code, properties } | Self::Auth { code, properties } => {
                if *code != 0 || !properties.is_empty() {
                    body.push(*code);
                }
                if !properties.is_empty() {
                    put(&mut body, properties);
                }
                if matches!(self, Self::Disconnect { .. }) {
                    0xE0
                } else {
                    0xF0
                }
            }
        };
        let mut packet = vec![first];
        varint(&mut packet, body.len());
        packet.extend(body);
        packet
    }

    /// Lends this packet as the crate's type.
    pub(crate) fn with_ref<R>(&self, version: ProtocolVersion, run: impl FnOnce(P<'_>) -> R) -> R {
        let qos = |qos: u8| QoS::from_u8(qos).unwrap();
        let code = |code: u8| ReasonCode::from_u8(code).unwrap();
        match self {
            Self::Connect {
                clean,
                keep_alive,
                properties,
                client_id,
                will,
                user,
                password,
            } => {
                let list = lend(properties);
                let will_list = will
                    .as_ref()
                    .map(|will| lend(&will.properties))
                    .unwrap_or_default();
                run(P::from(&ConnectRef {
                    version,
                    clean_start: *clean,
                    keep_alive_secs: *keep_alive,
                    properties: Properties::list(&list),
                    client_id: text(client_id),
                    will: will.as_ref().map(|will| WillRef {
                        topic: topic(&will.topic),
                        payload: &will.payload,
                        qos: qos(will.qos),
                        retain: will.retain,
                        properties: Properties::list(&will_list),
                    }),
                    user_name: user.as_deref().map(text),
                    password: password.as_deref(),
                }))
            }
            Self::Connack {
                present,
                code: byte,
                properties,
            } => {
                let list = lend(properties);
                let code = match (version, byte) {
                    (ProtocolVersion::V5, byte) => code(*byte),
                    (_, 0) => ReasonCode::Success,
                    (_, 1) => ReasonCode::UnsupportedProtocolVersion,
                    (_, 2) => ReasonCode::ClientIdentifierNotValid,
                    (_, 3) => ReasonCode::ServerUnavailable,
                    (_, 4) => ReasonCode::BadUserNameOrPassword,
                    _ => ReasonCode::NotAuthorized,
                };
                run(P::Connack(ConnackRef {
                    session_present: *present,
                    reason_code: code,
                    properties: Properties::list(&list),
                }))
            }
            Self::Publish {
                dup,
                qos: level,
                retain,
                topic: name,
                id: number,
                properties,
                payload,
            } => {
                let list = lend(properties);
                run(P::Publish(PublishRef {
                    dup: *dup,
                    qos: qos(*level),
                    retain: *retain,
                    topic: if name.is_empty() {
                        TopicName::EMPTY
                    } else {
                        topic(name)
                    },
                    packet_id: (*level > 0).then(|| id(*number)),
                    properties: Properties::list(&list),
                    payload,
                }))
            }
            Self::Ack {
                packet,
                id: number,
                code: byte,
                properties,
            } => {
                let list = lend(properties);
                let ack = AckRef {
                    packet_id: id(*number),
                    reason_code: code(*byte),
                    properties: Properties::list(&list),
                };
                run(match packet {
                    4 => P::Puback(ack),
                    5 => P::Pubrec(ack),
                    6 => P::Pubrel(ack),
                    _ => P::Pubcomp(ack),
                })
            }
            Self::Subscribe {
                id: number,
                properties,
                list: filters,
            } => {
                let list = lend(properties);
                let subscriptions: Vec<_> = filters
                    .iter()
                    .map(|(name, byte)| Subscription {
                        filter: filter(name),
                        options: SubscriptionOptions {
                            qos: qos(byte & 3),
                            no_local: byte & 4 != 0,
                            retain_as_published: byte & 8 != 0,
                            retain_handling: [
                                RetainHandling::SendAtSubscribe,
                                RetainHandling::SendIfNew,
                                RetainHandling::DoNotSend,
                            ][usize::from(byte >> 4)],
                        },
                    })
                    .collect();
                run(P::Subscribe(SubscribeRef {
                    packet_id: id(*number),
                    properties: Properties::list(&list),
                    subscriptions: Subscriptions::list(&subscriptions),
                }))
            }
            Self::Suback {
                id: number,
                properties,
                codes,
            }
            | Self::Unsuback {
                id: number,
                properties,
                codes,
            } => {
                let list = lend(properties);
                let codes: Vec<_> = codes.iter().map(|byte| code(*byte)).collect();
                let packet = SubackRef {
                    packet_id: id(*number),
                    properties: Properties::list(&list),
                    reason_codes: ReasonCodes::list(&codes),
                };
                run(if matches!(self, Self::Suback { .. }) {
                    P::Suback(packet)
                } else {
                    P::Unsuback(packet)
                })
            }
            Self::Unsubscribe {
                id: number,
                properties,
                list: filters,
            } => {
                let list = lend(properties);
                let filters: Vec<_> = filters.iter().map(|name| filter(name)).collect();
                run(P::Unsubscribe(UnsubscribeRef {
                    packet_id: id(*number),
                    properties: Properties::list(&list),
                    filters: TopicFilters::list(&filters),
                }))
            }
            Self::Ping { response } => run(if *response { P::Pingresp } else { P::Pingreq }),
            Self::Disconnect {
                code: byte,
                properties,
            } => {
                let list = lend(properties);
                run(P::Disconnect(DisconnectRef {
                    reason_code: code(*byte),
                    properties: Properties::list(&list),
                }))
            }
            Self::Auth {
                code: byte,
                properties,
            } => {
                let list = lend(properties);
                run(P::Auth(AuthRef {
                    reason_code: code(*byte),
                    properties: Properties::list(&list),
                }))
            }
        }
    }
}

fn lend(list: &[Prop]) -> Vec<Property<'_>> {
    list.iter()
        .map(|Prop { id, value }| match (id, value) {
            (0x01, Value::Byte(byte)) => Property::PayloadFormatIndicator(if *byte == 0 {
                PayloadFormat::Unspecified
            } else {
                PayloadFormat::Utf8
            }),
            (0x17, Value::Byte(byte)) => Property::RequestProblemInformation(*byte == 1),
            (0x19, Value::Byte(byte)) => Property::RequestResponseInformation(*byte == 1),
            (0x24, Value::Byte(byte)) => Property::MaximumQoS(QoS::from_u8(*byte).unwrap()),
            (0x25, Value::Byte(byte)) => Property::RetainAvailable(*byte == 1),
            (0x28, Value::Byte(byte)) => Property::WildcardSubscriptionAvailable(*byte == 1),
            (0x29, Value::Byte(byte)) => Property::SubscriptionIdentifierAvailable(*byte == 1),
            (0x2A, Value::Byte(byte)) => Property::SharedSubscriptionAvailable(*byte == 1),
            (0x13, Value::U16(value)) => Property::ServerKeepAlive(*value),
            (0x21, Value::U16(value)) => Property::ReceiveMaximum((*value).try_into().unwrap()),
            (0x22, Value::U16(value)) => Property::TopicAliasMaximum(*value),
            (0x23, Value::U16(value)) => Property::TopicAlias((*value).try_into().unwrap()),
            (0x02, Value::U32(value)) => Property::MessageExpiryInterval(*value),
            (0x11, Value::U32(value)) => Property::SessionExpiryInterval(*value),
            (0x18, Value::U32(value)) => Property::WillDelayInterval(*value),
            (0x27, Value::U32(value)) => Property::MaximumPacketSize((*value).try_into().unwrap()),
            (0x0B, Value::Varint(value)) => {
                Property::SubscriptionIdentifier(subscription_id(*value))
            }
            (0x08, Value::Topic(name)) => Property::ResponseTopic(topic(name)),
            (0x09, Value::Binary(data)) => Property::CorrelationData(data),
            (0x16, Value::Binary(data)) => Property::AuthenticationData(data),
            (0x26, Value::Pair(name, value)) => Property::UserProperty(text(name), text(value)),
            (0x03, Value::Text(value)) => Property::ContentType(text(value)),
            (0x12, Value::Text(value)) => Property::AssignedClientIdentifier(text(value)),
            (0x15, Value::Text(value)) => Property::AuthenticationMethod(text(value)),
            (0x1A, Value::Text(value)) => Property::ResponseInformation(text(value)),
            (0x1C, Value::Text(value)) => Property::ServerReference(text(value)),
            (0x1F, Value::Text(value)) => Property::ReasonString(text(value)),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn block(list: &[Prop]) -> Vec<u8> {
    let mut block = Vec::new();
    for Prop { id, value } in list {
        block.push(*id);
        match value {
            Value::Byte(byte) => block.push(*byte),
            Value::U16(value) => block.extend(value.to_be_bytes()),
            Value::U32(value) => block.extend(value.to_be_bytes()),
            Value::Varint(value) => varint(&mut block, *value as usize),
            Value::Text(text) | Value::Topic(text) => prefixed(&mut block, text.as_bytes()),
            Value::Binary(data) => prefixed(&mut block, data),
            Value::Pair(name, value) => {
                prefixed(&mut block, name.as_bytes());
                prefixed(&mut block, value.as_bytes());
            }
        }
    }
    block
}

fn prefixed(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend((bytes.len() as u16).to_be_bytes());
    to.extend(bytes);
}

/// The algorithm of section 2.2.3 of MQTT 3.1.1.
pub(crate) fn varint(to: &mut Vec<u8>, mut value: usize) {
    loop {
        let mut byte = (value % 128) as u8;
        value /= 128;
        if value > 0 {
            byte |= 128;
        }
        to.push(byte);
        if value == 0 {
            return;
        }
    }
}
