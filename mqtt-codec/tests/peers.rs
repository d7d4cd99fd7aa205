//! The same bytes as two other codecs read them. Where a verdict differs, the statement that we follow is
//! named; a difference that is not listed here fails.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::BytesMut;
use common::model::{Model, varint};
use common::strategies::model;
use common::{hex, id, topic};
use mqtt_codec::{Malformed as M, PacketRef as P, ProtocolError as E, ProtocolVersion::*, *};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// What a peer makes of a frame.
#[derive(Debug, PartialEq)]
enum Reading {
    Refused,
    /// It does not return.
    Panicked,
    Publish {
        topic: Vec<u8>,
        packet_id: u16,
        qos: u8,
        dup: bool,
        retain: bool,
        payload: Vec<u8>,
    },
    /// A packet of this type.
    Other(PacketType),
}

type Peer = fn(&[u8]) -> Reading;

fn ours(packet: &P<'_>) -> Reading {
    match packet {
        P::Publish(publish) => Reading::Publish {
            topic: publish.topic.as_bytes().to_vec(),
            packet_id: publish.packet_id.map_or(0, PacketId::value),
            qos: publish.qos.into(),
            dup: publish.dup,
            retain: publish.retain,
            payload: publish.payload.to_vec(),
        },
        other => Reading::Other(other.packet_type()),
    }
}

fn mqttrs(frame: &[u8]) -> Reading {
    use mqttrs::{Packet as T, QosPid};
    let Ok(packet) = catch_unwind(|| mqttrs::decode_slice(frame)) else {
        return Reading::Panicked;
    };
    let Ok(Some(packet)) = packet else {
        return Reading::Refused;
    };
    Reading::Other(match packet {
        T::Publish(publish) => {
            let (qos, packet_id) = match publish.qospid {
                QosPid::AtMostOnce => (0, 0),
                QosPid::AtLeastOnce(pid) => (1, pid.get()),
                QosPid::ExactlyOnce(pid) => (2, pid.get()),
            };
            return Reading::Publish {
                topic: publish.topic_name.into(),
                packet_id,
                qos,
                dup: publish.dup,
                retain: publish.retain,
                payload: publish.payload.into(),
            };
        }
        T::Connect(_) => PacketType::Connect,
        T::Connack(_) => PacketType::Connack,
        T::Puback(_) => PacketType::Puback,
        T::Pubrec(_) => PacketType::Pubrec,
        T::Pubrel(_) => PacketType::Pubrel,
        T::Pubcomp(_) => PacketType::Pubcomp,
        T::Subscribe(_) => PacketType::Subscribe,
        T::Suback(_) => PacketType::Suback,
        T::Unsubscribe(_) => PacketType::Unsubscribe,
        T::Unsuback(_) => PacketType::Unsuback,
        T::Pingreq => PacketType::Pingreq,
        T::Pingresp => PacketType::Pingresp,
        T::Disconnect => PacketType::Disconnect,
    })
}

macro_rules! mqttbytes {
    ($name:ident, $version:ident, $disconnect:pat) => {
        fn $name(frame: &[u8]) -> Reading {
            use mqttbytes::$version::Packet as T;
            let mut frame = BytesMut::from(frame);
            let read = || mqttbytes::$version::read(&mut frame, 1 << 20);
            let Ok(packet) = catch_unwind(AssertUnwindSafe(read)) else {
                return Reading::Panicked;
            };
            let Ok(packet) = packet else {
                return Reading::Refused;
            };
            Reading::Other(match packet {
                T::Publish(publish) => {
                    return Reading::Publish {
                        topic: publish.topic.into(),
                        packet_id: publish.pkid,
                        qos: publish.qos as u8,
                        dup: publish.dup,
                        retain: publish.retain,
                        payload: publish.payload.to_vec(),
                    };
                }
                T::Connect(_) => PacketType::Connect,
                T::ConnAck(_) => PacketType::Connack,
                T::PubAck(_) => PacketType::Puback,
                T::PubRec(_) => PacketType::Pubrec,
                T::PubRel(_) => PacketType::Pubrel,
                T::PubComp(_) => PacketType::Pubcomp,
                T::Subscribe(_) => PacketType::Subscribe,
                T::SubAck(_) => PacketType::Suback,
                T::Unsubscribe(_) => PacketType::Unsubscribe,
                T::UnsubAck(_) => PacketType::Unsuback,
                T::PingReq => PacketType::Pingreq,
                T::PingResp => PacketType::Pingresp,
                $disconnect => PacketType::Disconnect,
            })
        }
    };
}

mqttbytes!(mqttbytes_4, v4, T::Disconnect);
mqttbytes!(mqttbytes_5, v5, T::Disconnect(_));

/// Why we refuse what a peer takes: each names its statement, in [`Malformed::statements`] or here.
fn refused_for_a_reason(error: DecodeError) -> bool {
    let statements = match error {
        DecodeError::Malformed(malformed) => malformed.statements(),
        DecodeError::Protocol(protocol) => protocol.statements(),
        _ => &[],
    };
    !statements.is_empty()
        || match error {
            // Sections 2.1.4 (5.0) and 2.2.3 (3.1.1): four bytes at most; table 2-1: reserved types.
            DecodeError::Malformed(M::VariableByteIntegerTooLong | M::PacketType) => true,
            // Sections 2.1.4 and 2.2.3: the Remaining Length is that of the packet, no more and no less.
            DecodeError::Malformed(M::TrailingBytes | M::Overrun) => true,
            // Section 2.2.2.2 (5.0): which properties there are, and where.
            DecodeError::Malformed(M::UnknownProperty | M::MisplacedProperty(_)) => true,
            // Sections 3.x.2.3 and 3.8.3.1 (5.0): each says "it is a Protocol Error".
            DecodeError::Protocol(
                E::DuplicateProperty(_)
                | E::NotABoolean(_)
                | E::ZeroValue(_)
                | E::SubscriptionIdentifierZero
                | E::AuthenticationMethodMissing
                | E::RetainHandling,
            ) => true,
            _ => false,
        }
}

/// Valid packets that mqttbytes refuses, misreads or panics on. (mqttrs has none.)
fn mqttbytes_errs(packet: &P<'_>, version: ProtocolVersion) -> bool {
    match packet {
        // Sections 3.1.3.3 and 3.1.3.5: the Will's payload and the Password are binary data, not text.
        // Section 3.1.2.9 (5.0): a Password needs no User Name.
        P::Connect(connect) => {
            let connect = connect.get();
            let is_binary = |data: &[u8]| std::str::from_utf8(data).is_err();
            connect.will.is_some_and(|will| is_binary(will.payload))
                || connect.password.is_some_and(is_binary)
                || connect.password.is_some() && connect.user_name.is_none()
        }
        // It has no AUTH: section 3.15 (5.0).
        P::Auth(_) => true,
        // Section 3.14.2 (5.0): without properties, their length may be left out, and the reason code too.
        P::Disconnect(disconnect) => version == V5 && disconnect.properties.is_empty(),
        // Sections 1.5.5 and 3.3.2.3.8 (5.0): a Subscription Identifier may take several bytes, and repeat;
        // it then takes the end of the properties for payload.
        P::Publish(publish) => publish
            .properties
            .subscription_identifiers()
            .next()
            .is_some(),
        _ => false,
    }
}

fn compare(frame: &[u8], version: ProtocolVersion) {
    let decoded = P::decode(frame, version);
    let peers: &[(&str, Peer)] = match version {
        V5 => &[("mqttbytes", mqttbytes_5)],
        _ => &[("mqttrs", mqttrs), ("mqttbytes", mqttbytes_4)],
    };
    for &(name, read) in peers {
        let theirs = read(frame);
        match &decoded {
            Ok(packet) => {
                let errs = name == "mqttbytes" && mqttbytes_errs(packet, version);
                assert!(
                    errs || theirs == ours(packet),
                    "{name}: {theirs:?}, ours {packet:?}"
                );
            }
            Err(_) if matches!(theirs, Reading::Refused | Reading::Panicked) => {}
            Err(error) => assert!(
                refused_for_a_reason(*error),
                "{name}: {theirs:?}, ours {error}"
            ),
        }
    }
}

fn version_and_model() -> impl Strategy<Value = (ProtocolVersion, Model)> {
    prop::sample::select(vec![V311, V5]).prop_flat_map(|version| (Just(version), model(version)))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/peers.regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn verdicts_differ_only_for_a_reason(
        (version, model) in version_and_model(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let bytes = model.encode(version);
        let header = bytes.iter().skip(1).take_while(|byte| **byte >= 0x80).count() + 2;
        let mut body = bytes[header..].to_vec();
        for (at, byte) in changes.iter().filter(|_| bytes.len() > header) {
            let at = at.index(body.len());
            body[at] = *byte;
        }
        let mut frame = vec![bytes[0]];
        varint(&mut frame, body.len());
        frame.extend(body);
        compare(&frame, version);
    }
}

/// What the lists above stand for, one example each: we refuse, they take it.
#[test]
fn known_leniencies_of_the_peers() {
    let cases: [(&str, ProtocolVersion, DecodeError, Peer); 6] = [
        // MQTT-1.5.4-2, v3.1.1 MQTT-1.5.3-2.
        ("30 05 0003 610062", V311, M::NulInText.into(), mqttrs),
        ("30 05 0003 610062", V311, M::NulInText.into(), mqttbytes_4),
        // MQTT-3.3.2-2, v3.1.1 MQTT-3.3.2-2.
        (
            "30 05 0003 'a/#'",
            V311,
            M::WildcardInTopicName.into(),
            mqttrs,
        ),
        (
            "30 05 0003 'a/#'",
            V311,
            M::WildcardInTopicName.into(),
            mqttbytes_4,
        ),
        // MQTT-4.7.1-1, v3.1.1 MQTT-4.7.1-2.
        (
            "82 08 0001 0003 '#/a' 00",
            V311,
            M::WildcardPosition.into(),
            mqttbytes_4,
        ),
        // MQTT-3.3.1-2, v3.1.1 MQTT-3.3.1-2.
        ("38 03 0001 'a'", V311, M::DupAtQoS0.into(), mqttbytes_4),
    ];
    for (frame, version, error, peer) in cases {
        let frame = hex(frame);
        assert_eq!(P::decode(&frame, version), Err(error));
        assert!(
            !matches!(peer(&frame), Reading::Refused | Reading::Panicked),
            "{frame:x?}"
        );
    }
}

/// What we write, they read.
#[test]
fn they_read_what_we_write() {
    let publish = PublishRef {
        qos: QoS::AtLeastOnce,
        packet_id: Some(id(7)),
        ..PublishRef::new(topic("a/b"), b"x")
    };
    for (version, peer) in [
        (V311, mqttrs as Peer),
        (V311, mqttbytes_4),
        (V5, mqttbytes_5),
    ] {
        let mut bytes = Vec::new();
        publish.encode(version, &mut bytes).unwrap();
        assert_eq!(peer(&bytes), ours(&P::Publish(publish)));
    }
}
