//! The packets that carry messages and subscriptions, in every version, against bytes written by hand from the specifications.

mod common;

use std::num::NonZeroU16;

use common::golden::*;
use common::*;
use mqtt_codec::*;
use mqtt_codec::{PacketRef as P, Property as Prop, ProtocolVersion::*, ReasonCode as R};

//= test MQTT-2.2.1-2
//= test MQTT-3.3.2-1
//= test v3.1.1 MQTT-2.3.1-5
//= test v3.1.1 MQTT-3.3.2-1
#[test]
fn publish() {
    let message = PublishRef::new(topic("a/b"), b"hi");
    golden(OLD, "30 07  0003 'a/b'  'hi'", P::Publish(message));
    golden(&[V5], "30 08  0003 'a/b' 00  'hi'", P::Publish(message));
    golden(
        OLD,
        "31 05  0003 'a/b'",
        P::Publish(PublishRef {
            retain: true,
            payload: b"",
            ..message
        }),
    );

    let message = PublishRef {
        qos: QoS::AtLeastOnce,
        packet_id: Some(id(10)),
        ..message
    };
    golden(OLD, "32 09  0003 'a/b' 000A  'hi'", P::Publish(message));
    golden(
        &[V5],
        "32 0A  0003 'a/b' 000A 00  'hi'",
        P::Publish(message),
    );
    let message = PublishRef {
        qos: QoS::ExactlyOnce,
        packet_id: Some(id(65535)),
        dup: true,
        retain: true,
        ..message
    };
    golden(OLD, "3D 09  0003 'a/b' FFFF  'hi'", P::Publish(message));
    golden(
        &[V5],
        "3D 0A  0003 'a/b' FFFF 00  'hi'",
        P::Publish(message),
    );
}

//= test MQTT-2.2.2-1
//= test MQTT-3.3.2-18
#[test]
fn publish_with_properties() {
    let properties = [
        Prop::PayloadFormatIndicator(PayloadFormat::Unspecified),
        Prop::MessageExpiryInterval(1),
        Prop::TopicAlias(NonZeroU16::new(7).unwrap()),
        Prop::ResponseTopic(topic("r/1")),
        Prop::CorrelationData(b""),
        Prop::UserProperty(text("z"), text("")),
        Prop::UserProperty(text("a"), text("1")),
        Prop::SubscriptionIdentifier(subscription_id(1)),
        Prop::SubscriptionIdentifier(subscription_id(268_435_455)),
        Prop::ContentType(text("c")),
    ];
    let message = PublishRef {
        properties: Properties::list(&properties),
        ..PublishRef::new(topic("t"), b"!")
    };
    golden(
        &[V5],
        "30 30  0001 't'  2B  01 00  02 00000001  23 0007  08 0003 'r/1'  09 0000  26 0001 'z' 0000  26 0001 'a' 0001 '1'
            0B 01  0B FFFFFF7F  03 0001 'c'  '!'",
        P::Publish(message),
    );
    // The alias stands for the name.
    let alias = [Prop::TopicAlias(NonZeroU16::new(65535).unwrap())];
    let message = PublishRef {
        properties: Properties::list(&alias),
        ..PublishRef::new(TopicName::EMPTY, b"!")
    };
    golden(&[V5], "30 07  0000  03 23 FFFF  '!'", P::Publish(message));
}

#[test]
fn publish_of_every_short_length() {
    // What is short is copied in blocks, and the blocks change with the length.
    let name = "0123456789abcdef".repeat(9);
    let payload = name.to_uppercase();
    for topic_len in 1..140_u8 {
        for payload_len in [0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 140_u8] {
            let (name, payload) = (
                &name[..usize::from(topic_len)],
                &payload[..usize::from(payload_len)],
            );
            let message = PublishRef::new(topic(name), payload.as_bytes());
            let remaining = 2 + u16::from(topic_len) + u16::from(payload_len);
            let mut golden = vec![0x30];
            match remaining {
                0..128 => golden.push(remaining as u8),
                _ => golden.extend([remaining as u8 | 0x80, (remaining >> 7) as u8]),
            }
            golden.extend([0, topic_len]);
            golden.extend(name.bytes());
            golden.extend(payload.bytes());
            assert_eq!(encode(&P::Publish(message), V311), golden);
        }
    }
}

#[test]
fn publish_with_lengths_of_more_than_one_byte() {
    // 2 + 1 bytes of topic, so 124 of payload make 127.
    for (payload, remaining) in [
        (124, "7F"),
        (125, "8001"),
        (16_380, "FF7F"),
        (16_381, "808001"),
        (2_097_148, "FFFF7F"),
        (2_097_149, "80808001"),
    ] {
        let payload = vec![0xAB; payload];
        let mut bytes = hex(&format!("30 {remaining} 0001 't'"));
        bytes.extend_from_slice(&payload);
        let packet = P::Publish(PublishRef::new(topic("t"), &payload));
        assert_eq!(P::decode(&bytes, V311), Ok(packet));
        assert_eq!(encode(&packet, V311), bytes);
    }
    let long = "x".repeat(65_535);
    let packet = P::Publish(PublishRef::new(topic(&long), b""));
    let bytes = hex(&format!("30 818004 FFFF '{long}'"));
    decode_all_ways(&bytes, V311, |decoded| assert_eq!(decoded, Ok(packet)));
    assert_eq!(encode(&packet, V311), bytes);
}

//= test MQTT-3.4.2-1
//= test MQTT-3.5.2-1
//= test MQTT-3.6.2-1
//= test MQTT-3.7.2-1
//= test MQTT-3.6.1-1
//= test v3.1.1 MQTT-3.6.1-1
#[test]
fn acknowledgements() {
    let ack = AckRef::new(id(0x0102));
    golden(ALL, "40 02  0102", P::Puback(ack));
    golden(ALL, "50 02  0102", P::Pubrec(ack));
    golden(ALL, "62 02  0102", P::Pubrel(ack));
    golden(ALL, "70 02  0102", P::Pubcomp(ack));

    golden(
        &[V5],
        "40 03  0102 10",
        P::Puback(AckRef {
            reason_code: R::NoMatchingSubscribers,
            ..ack
        }),
    );
    golden(
        &[V5],
        "50 03  0102 97",
        P::Pubrec(AckRef {
            reason_code: R::QuotaExceeded,
            ..ack
        }),
    );
    golden(
        &[V5],
        "62 03  0102 92",
        P::Pubrel(AckRef {
            reason_code: R::PacketIdentifierNotFound,
            ..ack
        }),
    );
    golden(
        &[V5],
        "70 03  0102 92",
        P::Pubcomp(AckRef {
            reason_code: R::PacketIdentifierNotFound,
            ..ack
        }),
    );

    let properties = [
        Prop::ReasonString(text("no")),
        Prop::UserProperty(text("a"), text("b")),
    ];
    let ack = AckRef {
        properties: Properties::list(&properties),
        ..ack
    };
    let block = "0C  1F 0002 'no'  26 0001 'a' 0001 'b'";
    golden(&[V5], &format!("40 10  0102 00 {block}"), P::Puback(ack));
    golden(
        &[V5],
        &format!("50 10  0102 80 {block}"),
        P::Pubrec(AckRef {
            reason_code: R::UnspecifiedError,
            ..ack
        }),
    );
    golden(&[V5], &format!("62 10  0102 00 {block}"), P::Pubrel(ack));
    golden(&[V5], &format!("70 10  0102 00 {block}"), P::Pubcomp(ack));

    // Longer than need be.
    let ack = AckRef::new(id(0x0102));
    accepted(&[V5], "40 03  0102 00", P::Puback(ack));
    accepted(&[V5], "40 04  0102 00 00", P::Puback(ack));
    accepted(
        &[V5],
        "50 04  0102 91 00",
        P::Pubrec(AckRef {
            reason_code: R::PacketIdentifierInUse,
            ..ack
        }),
    );
}

#[test]
fn mqtt_31_marks_repetitions() {
    let ack = P::Pubrel(AckRef::new(id(1)));
    assert_eq!(P::decode(&hex("6A 02 0001"), V31), Ok(ack));
    assert_eq!(
        P::decode(&hex("6A 02 0001"), V311),
        Err(Malformed::FixedHeaderFlags.into())
    );
    assert_eq!(
        P::decode(&hex("8A 06 0001 0001 'a' 00"), V31),
        P::decode(&hex("82 06 0001 0001 'a' 00"), V31)
    );
    assert_eq!(
        P::decode(&hex("AA 05 0001 0001 'a'"), V31),
        P::decode(&hex("A2 05 0001 0001 'a'"), V31)
    );
}

//= test MQTT-3.8.1-1
//= test MQTT-3.8.3-1
//= test v3.1.1 MQTT-3.8.1-1
//= test v3.1.1 MQTT-3.8.3-1
#[test]
fn subscribe() {
    let ask = |name, qos| Subscription::new(filter(name), qos);
    let list = [
        ask("a/+", QoS::AtLeastOnce),
        ask("#", QoS::ExactlyOnce),
        ask("$share/g/x", QoS::AtMostOnce),
    ];
    let packet = SubscribeRef::new(id(10), &list);
    let payload = "0003 'a/+' 01  0001 '#' 02  000A '$share/g/x' 00";
    golden(
        OLD,
        &format!("82 19  000A  {payload}"),
        P::Subscribe(packet),
    );
    golden(
        &[V5],
        &format!("82 1A  000A 00  {payload}"),
        P::Subscribe(packet),
    );

    let options = |no_local, retain_as_published, retain_handling| SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local,
        retain_as_published,
        retain_handling,
    };
    let list = [
        Subscription {
            filter: filter("a"),
            options: options(true, false, RetainHandling::SendAtSubscribe),
        },
        Subscription {
            filter: filter("b"),
            options: options(false, true, RetainHandling::SendIfNew),
        },
        Subscription {
            filter: filter("c"),
            options: options(true, true, RetainHandling::DoNotSend),
        },
    ];
    let properties = [
        Prop::SubscriptionIdentifier(subscription_id(128)),
        Prop::UserProperty(text("u"), text("p")),
    ];
    let packet = SubscribeRef {
        packet_id: id(1),
        properties: Properties::list(&properties),
        subscriptions: Subscriptions::list(&list),
    };
    golden(
        &[V5],
        "82 19  0001  0A 0B 8001 26 0001 'u' 0001 'p'  0001 'a' 05  0001 'b' 19  0001 'c' 2D",
        P::Subscribe(packet),
    );
}

//= test MQTT-3.9.3-1
//= test MQTT-3.9.3-2
//= test v3.1.1 MQTT-3.9.3-1
//= test v3.1.1 MQTT-3.9.3-2
#[test]
fn suback() {
    let codes = [
        R::Success,
        R::GrantedQoS1,
        R::GrantedQoS2,
        R::UnspecifiedError,
    ];
    let packet = SubackRef::new(id(10), &codes);
    golden(OLD, "90 06  000A  00 01 02 80", P::Suback(packet));
    golden(&[V5], "90 07  000A 00  00 01 02 80", P::Suback(packet));

    let codes = [
        R::NotAuthorized,
        R::TopicFilterInvalid,
        R::WildcardSubscriptionsNotSupported,
    ];
    let properties = [Prop::ReasonString(text("r"))];
    let packet = SubackRef {
        packet_id: id(10),
        properties: Properties::list(&properties),
        reason_codes: ReasonCodes::list(&codes),
    };
    golden(
        &[V5],
        "90 0A  000A  04 1F 0001 'r'  87 8F A2",
        P::Suback(packet),
    );
}

//= test MQTT-3.10.1-1
//= test MQTT-3.10.3-1
//= test v3.1.1 MQTT-3.10.1-1
//= test v3.1.1 MQTT-3.10.3-1
#[test]
fn unsubscribe() {
    let filters = [filter("a/b"), filter("+/#")];
    let packet = UnsubscribeRef::new(id(256), &filters);
    golden(
        OLD,
        "A2 0C  0100  0003 'a/b'  0003 '+/#'",
        P::Unsubscribe(packet),
    );
    golden(
        &[V5],
        "A2 0D  0100 00  0003 'a/b'  0003 '+/#'",
        P::Unsubscribe(packet),
    );
    let properties = [Prop::UserProperty(text(""), text(""))];
    let packet = UnsubscribeRef {
        properties: Properties::list(&properties),
        ..packet
    };
    golden(
        &[V5],
        "A2 12  0100 05 26 0000 0000  0003 'a/b'  0003 '+/#'",
        P::Unsubscribe(packet),
    );
}

//= test MQTT-3.11.3-1
//= test MQTT-3.11.3-2
#[test]
fn unsuback() {
    let packet = SubackRef {
        packet_id: id(2),
        properties: Properties::EMPTY,
        reason_codes: ReasonCodes::EMPTY,
    };
    golden(OLD, "B0 02  0002", P::Unsuback(packet));
    let codes = [
        R::Success,
        R::NoSubscriptionExisted,
        R::PacketIdentifierInUse,
    ];
    let packet = SubackRef {
        reason_codes: ReasonCodes::list(&codes),
        ..packet
    };
    golden(&[V5], "B0 06  0002 00  00 11 91", P::Unsuback(packet));
}

//= test MQTT-1.5.4-1
//= test MQTT-1.5.4-3
//= test v3.1.1 MQTT-1.5.3-1
//= test v3.1.1 MQTT-1.5.3-3
#[test]
fn text_beyond_ascii_is_kept_as_it_is() {
    // U+FEFF is kept; so are the non-characters and U+10FFFF.
    for name in [
        "\u{feff}a",
        "größe/µ",
        "温度/部屋",
        "a/\u{10ffff}",
        "\u{ffff}",
        "\u{1}\u{7f}",
        "𠜎",
    ] {
        let message = PublishRef::new(topic(name), b"x");
        let mut bytes = vec![0x30, (3 + name.len()) as u8, 0, name.len() as u8];
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'x');
        assert_eq!(P::decode(&bytes, V311), Ok(P::Publish(message)));
        assert_eq!(encode(&P::Publish(message), V311), bytes);
        let Ok(Packet::Publish(owned)) = Packet::decode(bytes.into(), V311) else {
            panic!("not a PUBLISH")
        };
        assert_eq!(owned.topic(), name);
    }
}
