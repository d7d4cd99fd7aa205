//! Strategies that make every packet that there is.

use mqtt_codec::ProtocolVersion;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::model::{Model, Prop, Value, Will};

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
