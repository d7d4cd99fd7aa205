//! What decoding refuses of each packet, and with which answer.

mod common;

use common::*;
use mqtt_codec::{
    Malformed as M, PacketRef as P, ProtocolError as E, ProtocolVersion::*, ReasonCode as R, *,
};

const OLD: &[ProtocolVersion] = &[V31, V311];
const ALL: &[ProtocolVersion] = &VERSIONS;

//= test MQTT-2.2.1-3
//= test MQTT-2.2.1-4
//= test v3.1.1 MQTT-2.3.1-1
#[test]
fn packet_identifier_zero() {
    for first in ["40", "50", "62", "70", "B0"] {
        refused(ALL, &format!("{first} 02 0000"), M::PacketIdentifierZero);
    }
    refused(ALL, "32 05 0001 'a' 0000", M::PacketIdentifierZero);
    refused(ALL, "34 05 0001 'a' 0000", M::PacketIdentifierZero);
    refused(ALL, "82 06 0000 0001 'a' 00", M::PacketIdentifierZero);
    refused(ALL, "90 03 0000 00", M::PacketIdentifierZero);
    refused(ALL, "A2 05 0000 0001 'a'", M::PacketIdentifierZero);
    assert_eq!(PacketId::new(0), None);
    assert_eq!(SubscriptionId::new(0), None);
    assert_eq!(SubscriptionId::new(SubscriptionId::MAX + 1), None);
}

//= test MQTT-1.5.4-1
//= test MQTT-1.5.4-2
//= test MQTT-1.5.7-1
//= test MQTT-3.1.3-4
//= test MQTT-3.3.2-19
//= test MQTT-4.7.3-2
//= test MQTT-4.7.3-3
//= test v3.1.1 MQTT-1.5.3-1
//= test v3.1.1 MQTT-1.5.3-2
//= test v3.1.1 MQTT-3.1.3-4
//= test v3.1.1 MQTT-4.7.3-2
//= test v3.1.1 MQTT-4.7.3-3
#[test]
fn text() {
    // A lone continuation, an overlong slash, a surrogate, above U+10FFFF, an end in mid-character.
    let ill_formed = ["80", "C0AF", "EDA080", "EDBFBF", "F4908080", "E282", "FF"];
    for bad in ill_formed {
        let n = hex(bad).len();
        refused(
            ALL,
            &format!("30 {:02X} {n:04X} {bad}", n + 2),
            M::InvalidUtf8,
        );
        refused(
            OLD,
            &format!("82 {:02X} 0001 {n:04X} {bad} 00", n + 5),
            M::InvalidUtf8,
        );
        refused(
            &[V311],
            &format!("10 {:02X} 0004 'MQTT' 04 02 0000 {n:04X} {bad}", n + 12),
            M::InvalidUtf8,
        );
        refused(
            &[V5],
            &format!("10 {:02X} 0004 'MQTT' 05 02 0000 00 {n:04X} {bad}", n + 13),
            M::InvalidUtf8,
        );
        refused(
            &[V5],
            &format!("30 {:02X} 0001 'a' {:02X} 03 {n:04X} {bad}", n + 7, n + 3),
            M::InvalidUtf8,
        );
        refused(
            &[V5],
            &format!(
                "40 {:02X} 0001 00 {:02X} 26 0000 {n:04X} {bad}",
                n + 9,
                n + 5
            ),
            M::InvalidUtf8,
        );
        refused(
            &[V5],
            &format!(
                "40 {:02X} 0001 00 {:02X} 26 {n:04X} {bad} 0000",
                n + 9,
                n + 5
            ),
            M::InvalidUtf8,
        );
    }
    refused(ALL, "30 05 0003 61 00 62", M::NulInText);
    refused(ALL, "30 07 0005 C3A4 00 2B 62", M::NulInText);
    refused(&[V311], "82 08 0001 0003 '#' 0061 00", M::NulInText);
    refused(&[V5], "A2 0A 0001 00 0005 C3A4 00 2B 62", M::NulInText);
    refused(&[V5], "E0 06 00 04 1F 0001 00", M::NulInText);
    assert_eq!(Text::new("a\0"), Err(TextError::Nul));
    assert_eq!(TopicName::new("ä\0"), Err(TextError::Nul));
    assert_eq!(TopicFilter::new("ä\0"), Err(TextError::Nul));
    let long = "x".repeat(65_536);
    assert_eq!(Text::new(&long), Err(TextError::TooLong));
    assert_eq!(TopicName::new(&long), Err(TextError::TooLong));
    assert_eq!(TopicFilter::new(&long), Err(TextError::TooLong));
    assert!(Text::new(&long[1..]).is_ok());
}

//= test MQTT-3.1.2-2
//= test MQTT-3.1.2-3
//= test MQTT-3.1.2-11
//= test MQTT-3.1.2-12
//= test MQTT-3.1.2-13
//= test v3.1.1 MQTT-3.1.2-2
//= test v3.1.1 MQTT-3.1.2-3
//= test v3.1.1 MQTT-3.1.2-11
//= test v3.1.1 MQTT-3.1.2-13
//= test v3.1.1 MQTT-3.1.2-14
//= test v3.1.1 MQTT-3.1.2-15
//= test v3.1.1 MQTT-3.1.2-22
//= test v3.1.1 MQTT-3.1.3-7
#[test]
fn connect() {
    let v311 = |flags: &str| format!("10 0D 0004 'MQTT' 04 {flags} 0000 0001 'c'");
    let v5 = |flags: &str| format!("10 0E 0004 'MQTT' 05 {flags} 0000 00 0001 'c'");
    for connect in [v311("03"), v5("03")] {
        refused(ALL, &connect, M::ConnectFlags);
    }
    for connect in [v311("1E"), v5("1E"), v5("18")] {
        refused(ALL, &connect, M::QoS);
    }
    for connect in [v311("0A"), v5("12"), v311("22"), v5("22")] {
        refused(ALL, &connect, M::WillFlags);
    }
    refused(ALL, &v311("42"), M::PasswordWithoutUserName);
    refused(
        ALL,
        "10 0C 0004 'MQTT' 04 00 0000 0000",
        E::ClientIdentifierRequired,
    );
    refused(
        ALL,
        "10 0E 0006 'MQIsdp' 03 02 0000 0000",
        E::ClientIdentifierRequired,
    );
    for level in ["00", "03", "06", "84", "FF"] {
        refused(
            ALL,
            &format!("10 0D 0004 'MQTT' {level} 02 0000 0001 'c'"),
            E::ProtocolLevel,
        );
    }
    refused(
        ALL,
        "10 0F 0006 'MQIsdp' 04 02 0000 0001 'c'",
        E::ProtocolLevel,
    );
    refused(
        ALL,
        "10 0D 0004 'mqtt' 04 02 0000 0001 'c'",
        E::ProtocolName,
    );
    refused(ALL, "10 0C 0003 'MQT' 04 02 0000 0001 'c'", E::ProtocolName);
    // Will topics are Topic Names.
    refused(
        ALL,
        "10 12 0004 'MQTT' 04 06 0000 0001 'c' 0001 '#' 0000",
        M::WildcardInTopicName,
    );
    refused(
        ALL,
        "10 11 0004 'MQTT' 04 06 0000 0001 'c' 0000 0000",
        M::EmptyTopicName,
    );
    refused(
        ALL,
        "10 12 0004 'MQTT' 05 02 0000 04 16 0001 'd' 0001 'c'",
        E::AuthenticationMethodMissing,
    );
    assert_eq!(
        E::ProtocolLevel.reason_code(),
        R::UnsupportedProtocolVersion
    );
    assert_eq!(
        E::ClientIdentifierRequired.reason_code(),
        R::ClientIdentifierNotValid
    );
}

//= test MQTT-3.2.2-1
//= test MQTT-3.2.2-6
//= test MQTT-3.2.2-8
//= test v3.1.1 MQTT-3.2.2-4
#[test]
fn connack() {
    refused(&[V311], "20 02 02 00", M::ConnackFlags);
    refused(&[V5], "20 03 80 00 00", M::ConnackFlags);
    refused(&[V311], "20 02 01 05", E::SessionPresentOnRefusal);
    refused(&[V5], "20 03 01 87 00", E::SessionPresentOnRefusal);
    refused(OLD, "20 02 00 06", M::ReasonCode);
    refused(OLD, "20 02 00 80", M::ReasonCode);
    refused(&[V5], "20 03 00 01 00", M::ReasonCode);
    refused(&[V5], "20 03 00 8E 00", M::ReasonCode);
}

//= test MQTT-3.3.1-2
//= test MQTT-3.3.1-4
//= test MQTT-3.3.2-2
//= test MQTT-3.3.2-8
//= test MQTT-3.3.2-13
//= test MQTT-3.3.2-14
//= test MQTT-4.7.0-1
//= test MQTT-4.7.3-1
//= test v3.1.1 MQTT-3.3.1-2
//= test v3.1.1 MQTT-3.3.1-4
//= test v3.1.1 MQTT-3.3.2-2
//= test v3.1.1 MQTT-4.7.1-1
//= test v3.1.1 MQTT-4.7.3-1
#[test]
fn publish() {
    refused(ALL, "36 06 0001 'a' 0001 00", M::QoS);
    refused(ALL, "3E 06 0001 'a' 0001 00", M::QoS);
    refused(ALL, "38 04 0001 'a' 00", M::DupAtQoS0);
    for name in [
        "+",
        "#",
        "a/+",
        "a/b+",
        "a#",
        "#/a",
        "sport/tennis/player/#",
    ] {
        let len = name.len();
        refused(
            ALL,
            &format!("30 {:02X} {len:04X} '{name}' 00", len + 3),
            M::WildcardInTopicName,
        );
        refused(
            &[V5],
            &format!(
                "30 {:02X} 0001 'a' {:02X} 08 {len:04X} '{name}'",
                len + 7,
                len + 3
            ),
            M::WildcardInTopicName,
        );
        assert_eq!(TopicName::new(name), Err(TextError::Wildcard));
    }
    refused(ALL, "30 06 0004 C3A4 '/+'", M::WildcardInTopicName);
    refused(OLD, "30 02 0000", M::EmptyTopicName);
    refused(&[V5], "30 03 0000 00", E::TopicNameMissing);
    refused(&[V5], "30 05 0000 02 01 01", E::TopicNameMissing);
    refused(&[V5], "30 07 0001 'a' 03 08 0000", M::EmptyTopicName);
    refused(&[V5], "30 07 0001 'a' 03 23 0000", E::TopicAliasZero);
    assert_eq!(TopicName::new(""), Err(TextError::Empty));
    assert_eq!(M::WildcardInTopicName.reason_code(), R::TopicNameInvalid);
    assert_eq!(E::TopicAliasZero.reason_code(), R::TopicAliasInvalid);
}

//= test MQTT-3.4.2-1
//= test MQTT-3.5.2-1
//= test MQTT-3.6.2-1
//= test MQTT-3.7.2-1
//= test MQTT-3.9.3-2
//= test MQTT-3.11.3-2
//= test MQTT-3.14.2-1
//= test MQTT-3.15.2-1
#[test]
fn reason_codes_that_the_packet_cannot_carry() {
    // From the tables of the packets' chapters.
    let tables: [(&str, PacketType, &[u8]); 9] = [
        (
            "40 03 0001 {}",
            PacketType::Puback,
            &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        ),
        (
            "50 03 0001 {}",
            PacketType::Pubrec,
            &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        ),
        ("62 03 0001 {}", PacketType::Pubrel, &[0, 0x92]),
        ("70 03 0001 {}", PacketType::Pubcomp, &[0, 0x92]),
        (
            "90 04 0001 00 {}",
            PacketType::Suback,
            &[
                0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
            ],
        ),
        (
            "B0 04 0001 00 {}",
            PacketType::Unsuback,
            &[0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91],
        ),
        (
            "20 03 00 {} 00",
            PacketType::Connack,
            &[
                0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90,
                0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
            ],
        ),
        (
            "E0 01 {}",
            PacketType::Disconnect,
            &[
                0, 4, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93,
                0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1,
                0xA2,
            ],
        ),
        (
            "F0 06 {} 04 15 0001 'm'",
            PacketType::Auth,
            &[0, 0x18, 0x19],
        ),
    ];
    for (packet, packet_type, allowed) in tables {
        for code in 0..=255 {
            let bytes = hex(&packet.replace("{}", &format!("{code:02X}")));
            let decoded = P::decode(&bytes, V5);
            if allowed.contains(&code) {
                assert!(decoded.is_ok(), "{packet} {code:02X}: {decoded:?}");
            } else {
                assert_eq!(decoded, Err(M::ReasonCode.into()), "{packet} {code:02X}");
            }
            let valid =
                ReasonCode::from_u8(code).is_some_and(|code| code.is_valid_for(packet_type));
            assert_eq!(valid, allowed.contains(&code));
        }
    }
    refused(OLD, "90 03 0001 03", M::ReasonCode);
    refused(OLD, "90 03 0001 81", M::ReasonCode);
    refused(OLD, "90 02 0001", E::NoReasonCodes);
    refused(&[V5], "90 03 0001 00", E::NoReasonCodes);
    refused(&[V5], "B0 03 0001 00", E::NoReasonCodes);
}

//= test MQTT-3.8.3-2
//= test MQTT-3.8.3-4
//= test MQTT-3.8.3-5
//= test MQTT-3.10.3-2
//= test MQTT-4.7.1-1
//= test MQTT-4.7.1-2
//= test MQTT-4.7.3-1
//= test MQTT-4.8.2-1
//= test MQTT-4.8.2-2
//= test v3.1.1 MQTT-3.8.3-3
//= test v3.1.1 MQTT-3-8.3-4
//= test v3.1.1 MQTT-3.10.3-2
//= test v3.1.1 MQTT-4.7.1-2
//= test v3.1.1 MQTT-4.7.1-3
#[test]
fn subscriptions() {
    refused(OLD, "82 02 0001", E::NoTopicFilters);
    refused(&[V5], "82 03 0001 00", E::NoTopicFilters);
    refused(OLD, "A2 02 0001", E::NoTopicFilters);
    refused(&[V5], "A2 03 0001 00", E::NoTopicFilters);

    refused(OLD, "82 06 0001 0001 'a' 03", M::QoS);
    refused(&[V5], "82 07 0001 00 0001 'a' 03", M::QoS);
    refused(OLD, "82 06 0001 0001 'a' 04", M::SubscriptionOptions);
    refused(&[V5], "82 07 0001 00 0001 'a' 40", M::SubscriptionOptions);
    refused(&[V5], "82 07 0001 00 0001 'a' 80", M::SubscriptionOptions);
    refused(&[V5], "82 07 0001 00 0001 'a' 30", E::RetainHandling);

    refused(OLD, "82 05 0001 0000 00", M::EmptyTopicFilter);
    refused(OLD, "A2 04 0001 0000", M::EmptyTopicFilter);
    for name in [
        "a+",
        "+a",
        "a/+b",
        "a+/b",
        "#/a",
        "a#",
        "/#/",
        "a/#b",
        "++",
        "##",
        "+#",
        "sport/tennis#",
        "sport/tennis/#/ranking",
    ] {
        let len = name.len();
        refused(
            OLD,
            &format!("82 {:02X} 0001 {len:04X} '{name}' 00", len + 5),
            M::WildcardPosition,
        );
        refused(
            &[V5],
            &format!("A2 {:02X} 0001 00 {len:04X} '{name}'", len + 5),
            M::WildcardPosition,
        );
        assert_eq!(TopicFilter::new(name), Err(TextError::Wildcard));
        let name = format!("ä/{name}");
        assert_eq!(TopicFilter::new(&name), Err(TextError::Wildcard));
    }
    for name in [
        "+",
        "#",
        "/",
        "//",
        "+/+",
        "/+",
        "+/",
        "a/#",
        "/#",
        "+/#",
        "sport/+/player1",
        "$SYS/#",
        "ä/+/#",
    ] {
        assert!(TopicFilter::new(name).is_ok(), "{name}");
    }
    assert_eq!(TopicFilter::new(""), Err(TextError::Empty));

    for name in [
        "$share/",
        "$share//a",
        "$share/g",
        "$share/g/",
        "$share/+/a",
        "$share/#",
        "$share/+",
    ] {
        let len = name.len();
        refused(
            &[V5],
            &format!("82 {:02X} 0001 00 {len:04X} '{name}' 00", len + 6),
            M::ShareName,
        );
        refused(
            &[V5],
            &format!("A2 {:02X} 0001 00 {len:04X} '{name}'", len + 5),
            M::ShareName,
        );
        let bytes = hex(&format!("82 {:02X} 0001 {len:04X} '{name}' 00", len + 5));
        assert!(
            P::decode(&bytes, V311).is_ok(),
            "shared subscriptions are MQTT 5's: {name}"
        );
    }
    refused(
        &[V5],
        "82 10 0001 00 000A '$share/g/x' 04",
        E::NoLocalOnShared,
    );
    assert_eq!(
        filter("$share/g/a/+").shared(),
        Some((common::text("g"), filter("a/+")))
    );
    assert_eq!(filter("$shared/g/x").shared(), None);
    assert_eq!(M::WildcardPosition.reason_code(), R::TopicFilterInvalid);
}
