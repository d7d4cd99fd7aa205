//! Packets that own their fields, strategies that make them, and a slow encoder written from the specification:
//! an oracle that shares nothing with the crate.

use mqtt_codec::{PacketRef as P, *};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

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
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
    properties: Vec<Prop>,
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

/// Lengths around the ends of variable byte integers and of vector code, and of a two-byte length.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        40 => 0..20_usize,
        10 => prop::sample::select(vec![0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65]),
        4 => 100..140_usize,
        1 => 16_370..16_390_usize,
        1 => prop::sample::select(vec![65_534, 65_535]),
    ]
}

fn string(alphabet: &'static [&'static str]) -> impl Strategy<Value = String> {
    (length(), any::<u64>()).prop_map(move |(length, seed)| {
        let mut state = seed | 1;
        let mut string = String::new();
        while string.len() < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Mostly plain, so that both the fast and the slow path are taken.
            let piece = if seed.is_multiple_of(3) || state.is_multiple_of(50) {
                alphabet[state as usize % alphabet.len()]
            } else {
                "x"
            };
            if string.len() + piece.len() > length {
                break;
            }
            string.push_str(piece);
        }
        string
    })
}

fn any_text() -> impl Strategy<Value = String> {
    string(&[
        "a",
        "/",
        "+",
        "#",
        "\u{1}",
        "\u{7f}",
        "ß",
        "\u{feff}",
        "\u{ffff}",
        "\u{10ffff}",
        "\u{d7ff}",
        "\u{e000}",
        "$",
    ])
}

fn any_topic() -> impl Strategy<Value = String> {
    string(&["a", "/", "\u{1}", "*", "\"", "$", "ß", "\u{10ffff}", " "])
        .prop_map(|topic| if topic.is_empty() { "/".into() } else { topic })
}

fn any_filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => Just("+".to_string()), 5 => string(&["a", "$", "ß"]).prop_map(|s| s.chars().take(40).collect()), 1 => Just(String::new())];
    (vec(level, 1..8), any::<bool>(), any::<bool>()).prop_map(|(levels, multi, shared)| {
        let mut filter = levels.join("/");
        if multi {
            filter = if filter.is_empty() {
                "#".into()
            } else {
                filter + "/#"
            };
        }
        if filter.is_empty() {
            filter.push('/');
        }
        if shared && !filter.starts_with('$') {
            format!("$share/group/{filter}")
        } else {
            filter
        }
    })
}

fn binary() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => vec(any::<u8>(), 0..40), 1 => length().prop_map(|length| vec![0xC3; length])]
}

fn any_id() -> impl Strategy<Value = u16> {
    prop_oneof![
        prop::sample::select(vec![1, 255, 256, 65_535]),
        1..=u16::MAX
    ]
}

/// The properties of the packet with this number (0: of a Will), from the specification's table.
fn properties(packet: u8) -> BoxedStrategy<Vec<Prop>> {
    let u16s = || prop_oneof![Just(1), Just(u16::MAX), 1..=u16::MAX];
    let u32s = || prop_oneof![Just(1), Just(u32::MAX), 1..=u32::MAX];
    let flag = || (0..2_u8).prop_map(Value::Byte);
    let value = move |id: u8| -> BoxedStrategy<Value> {
        match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2A => flag().boxed(),
            0x13 | 0x21..=0x23 => u16s().prop_map(Value::U16).boxed(),
            0x02 | 0x11 | 0x18 | 0x27 => u32s().prop_map(Value::U32).boxed(),
            0x0B => prop::sample::select(vec![
                1,
                127,
                128,
                16_383,
                16_384,
                2_097_151,
                2_097_152,
                268_435_455,
            ])
            .prop_map(Value::Varint)
            .boxed(),
            0x08 => any_topic().prop_map(Value::Topic).boxed(),
            0x09 | 0x16 => binary().prop_map(Value::Binary).boxed(),
            0x26 => (any_text(), any_text())
                .prop_map(|(name, value)| Value::Pair(name, value))
                .boxed(),
            _ => any_text().prop_map(Value::Text).boxed(),
        }
    };
    let ids: &[u8] = match packet {
        0 => &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26],
        1 => &[0x11, 0x15, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27],
        2 => &[
            0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27,
            0x28, 0x29, 0x2A,
        ],
        3 => &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26],
        4..=7 | 9 | 11 => &[0x1F, 0x26],
        8 => &[0x0B, 0x26],
        10 => &[0x26],
        14 => &[0x11, 0x1C, 0x1F, 0x26],
        _ => &[0x15, 0x16, 0x1F, 0x26],
    };
    let once = prop::sample::subsequence(ids.to_vec(), 0..=ids.len()).prop_shuffle();
    let again: &[u8] = if packet == 3 { &[0x0B, 0x26] } else { &[0x26] };
    let again = vec(prop::sample::select(again.to_vec()), 0..3);
    let some = (once, again).prop_flat_map(move |(once, again)| {
        once.into_iter()
            .chain(again)
            .map(|id| value(id).prop_map(move |value| Prop { id, value }))
            .collect::<Vec<_>>()
    });
    prop_oneof![Just(Vec::new()), some].boxed()
}

/// A packet that this version can express.
pub(crate) fn model(version: ProtocolVersion) -> BoxedStrategy<Model> {
    let v5 = version == ProtocolVersion::V5;
    let props = move |packet| {
        if v5 {
            properties(packet)
        } else {
            Just(Vec::new()).boxed()
        }
    };
    let codes = move |v5_codes: &'static [u8], older: &'static [u8]| {
        prop::sample::select(if v5 { v5_codes } else { older })
    };

    let will = (any_topic(), binary(), 0..3_u8, any::<bool>(), props(0)).prop_map(
        |(topic, payload, qos, retain, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            properties,
        },
    );
    let connect = (
        any::<bool>(),
        any::<u16>(),
        props(1),
        any_text(),
        option::of(will),
        option::of(any_text()),
        option::of(binary()),
    )
        .prop_map(
            move |(clean, keep_alive, properties, mut client_id, will, user, mut password)| {
                if client_id.is_empty() && !v5 {
                    client_id.push('c');
                }
                if user.is_none() && !v5 {
                    password = None;
                }
                Model::Connect {
                    clean,
                    keep_alive,
                    properties,
                    client_id,
                    will,
                    user,
                    password,
                }
            },
        );
    let connack = (
        any::<bool>(),
        codes(&[0, 0x80, 0x84, 0x87, 0x9F], &[0, 1, 2, 3, 4, 5]),
        props(2),
    )
        .prop_map(move |(present, code, properties)| Model::Connack {
            present: present && code == 0 && version != ProtocolVersion::V31,
            code,
            properties,
        });
    let publish = (
        any::<bool>(),
        0..3_u8,
        any::<bool>(),
        any_topic(),
        any_id(),
        props(3),
        binary(),
        any::<bool>(),
    )
        .prop_map(
            move |(dup, qos, retain, mut topic, id, properties, payload, no_name)| {
                if no_name && properties.iter().any(|property| property.id == 0x23) {
                    topic.clear();
                }
                Model::Publish {
                    dup: dup && qos > 0,
                    qos,
                    retain,
                    topic,
                    id,
                    properties,
                    payload,
                }
            },
        );
    let ack = (4..8_u8).prop_flat_map(move |packet| {
        let code = match packet {
            4 | 5 => codes(&[0, 0x10, 0x80, 0x99], &[0]),
            _ => codes(&[0, 0x92], &[0]),
        };
        (any_id(), code, props(packet)).prop_map(move |(id, code, properties)| Model::Ack {
            packet,
            id,
            code,
            properties,
        })
    });
    let options = if v5 {
        (0..3_u8, 0..4_u8, 0..3_u8)
            .prop_map(|(qos, flags, retain)| qos | flags << 2 | retain << 4)
            .boxed()
    } else {
        (0..3_u8).boxed()
    };
    let subscribe = (any_id(), props(8), vec((any_filter(), options), 1..5)).prop_map(
        |(id, properties, mut list)| {
            for (filter, options) in &mut list {
                if filter.starts_with("$share/") {
                    *options &= !4;
                }
            }
            Model::Subscribe {
                id,
                properties,
                list,
            }
        },
    );
    let suback = (
        any_id(),
        props(9),
        vec(codes(&[0, 1, 2, 0x80, 0x8F, 0xA2], &[0, 1, 2, 0x80]), 1..9),
    )
        .prop_map(|(id, properties, codes)| Model::Suback {
            id,
            properties,
            codes,
        });
    let unsubscribe =
        (any_id(), props(10), vec(any_filter(), 1..5)).prop_map(|(id, properties, list)| {
            Model::Unsubscribe {
                id,
                properties,
                list,
            }
        });
    let unsuback = (
        any_id(),
        props(11),
        vec(prop::sample::select(vec![0, 0x11, 0x91]), 1..9),
    )
        .prop_map(move |(id, properties, codes)| Model::Unsuback {
            id,
            properties,
            codes: if v5 { codes } else { Vec::new() },
        });
    let ping = any::<bool>().prop_map(|response| Model::Ping { response });
    let disconnect = (codes(&[0, 4, 0x80, 0x82, 0xA2], &[0]), props(14))
        .prop_map(|(code, properties)| Model::Disconnect { code, properties });
    let older = prop_oneof![1 => connect, 1 => connack, 4 => publish, 2 => ack, 2 => subscribe, 1 => suback, 1 => unsubscribe, 1 => unsuback, 1 => ping, 1 => disconnect];
    if !v5 {
        return older.boxed();
    }
    let auth = (prop::sample::select(vec![0, 0x18, 0x19]), properties(15)).prop_map(
        |(code, mut properties)| {
            if properties.iter().all(|property| property.id != 0x15)
                && (code != 0 || !properties.is_empty())
            {
                properties.push(Prop {
                    id: 0x15,
                    value: Value::Text("method".into()),
                });
            }
            Model::Auth { code, properties }
        },
    );
    prop_oneof![12 => older, 1 => auth].boxed()
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
