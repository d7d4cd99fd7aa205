//! What decoding refuses, and with which answer.

mod common;

use bytes::BytesMut;
use common::*;
use mqtt_codec::{
    Malformed as M, PacketRef as P, ProtocolError as E, ProtocolVersion::*, ReasonCode as R, *,
};

const OLD: &[ProtocolVersion] = &[V31, V311];
const SINCE_311: &[ProtocolVersion] = &[V311, V5];
const ALL: &[ProtocolVersion] = &VERSIONS;

#[track_caller]
fn refused(versions: &[ProtocolVersion], bytes: &str, error: impl Into<DecodeError>) {
    let error = error.into();
    let bytes = hex(bytes);
    for &version in versions {
        decode_all_ways(&bytes, version, |decoded| {
            assert_eq!(decoded, Err(error), "{version}");
        });
        assert_eq!(
            Decoder::new(version).decode(&mut BytesMut::from(&bytes[..])),
            Err(error),
            "{version}"
        );
    }
}

//= test MQTT-2.1.3-1
//= test MQTT-3.14.1-1
//= test v3.1.1 MQTT-2.2.2-1
//= test v3.1.1 MQTT-2.2.2-2
//= test v3.1.1 MQTT-3.14.1-1
#[test]
fn reserved_types_and_flags() {
    refused(ALL, "00 00", M::PacketType);
    refused(ALL, "0F 00", M::PacketType);
    refused(OLD, "F0 00", M::PacketType);
    let packets = [
        "10 0D 0004 'MQTT' 04 02 0000 0001 'c'",
        "20 02 00 00",
        "40 02 0001",
        "50 02 0001",
        "62 02 0001",
        "70 02 0001",
        "82 06 0001 0001 'a' 00",
        "90 03 0001 00",
        "A2 05 0001 0001 'a'",
        "B0 02 0001",
        "C0 00",
        "D0 00",
        "E0 00",
    ];
    for packet in packets {
        let bytes = hex(packet);
        assert!(P::decode(&bytes, V311).is_ok(), "{packet}");
        for flags in 0..16 {
            let mut bytes = bytes.clone();
            if bytes[0] & 0x0f == flags {
                continue;
            }
            bytes[0] = bytes[0] & 0xf0 | flags;
            for &version in SINCE_311 {
                decode_all_ways(&bytes, version, |decoded| {
                    assert_eq!(decoded, Err(M::FixedHeaderFlags.into()));
                });
            }
            // Refused with the first byte, and with the second.
            for len in 1..=2 {
                let mut decoder = Decoder::new(V5);
                let mut start = BytesMut::from(&bytes[..len]);
                assert_eq!(decoder.decode(&mut start), Err(M::FixedHeaderFlags.into()));
                assert_eq!(decoder.decode(&mut start), Err(M::FixedHeaderFlags.into()));
            }
        }
    }
}

//= test MQTT-1.5.5-1
#[test]
fn remaining_lengths() {
    refused(ALL, "C0 80 00", M::VariableByteIntegerNotMinimal);
    refused(ALL, "40 82 00 0001", M::VariableByteIntegerNotMinimal);
    refused(ALL, "30 80 80 80 80 01", M::VariableByteIntegerTooLong);
    refused(ALL, "30 FF FF FF FF", M::VariableByteIntegerTooLong);
    refused(
        &[V5],
        "40 05 0001 00 80 00",
        M::VariableByteIntegerNotMinimal,
    );
}

//= test MQTT-3.3.1-4
//= test v3.1.1 MQTT-3.3.1-4
#[test]
fn what_the_first_byte_shows_comes_before_what_the_body_shows() {
    // QoS 3, and a topic that overruns its packet. Views and owned packets gave different answers once.
    refused(ALL, "36 05 2820 020006", M::QoS);
}

#[test]
fn nothing_is_pending_after_an_error() {
    for version in VERSIONS {
        // A PINGREQ with a body of 200 bytes: whole, it is refused, and so it is again.
        let mut bytes = hex("C0 C8 01");
        let mut decoder = Decoder::new(version);
        let mut buf = BytesMut::from(&bytes[..]);
        assert_eq!(decoder.decode(&mut buf), Ok(None));
        assert_eq!(decoder.pending_len(), Some(203));
        bytes.resize(203, 0);
        let mut buf = BytesMut::from(&bytes[..]);
        for _ in 0..2 {
            assert_eq!(decoder.decode(&mut buf), Err(M::TrailingBytes.into()));
            assert_eq!(decoder.pending_len(), None);
            assert_eq!(buf, bytes, "nothing is taken");
        }
    }
}

#[test]
fn packets_above_the_limit_are_refused_with_their_header() {
    for version in VERSIONS {
        let mut decoder = Decoder::new(version).with_max_packet_size(130);
        // 127 + 2 and 128 + 2 bytes after a header of two; 128 and a header of three make 131.
        assert_eq!(
            decoder.decode(&mut BytesMut::from(&[0x30, 127][..])),
            Ok(None)
        );
        assert_eq!(decoder.pending_len(), Some(129));
        let mut decoder = Decoder::new(version).with_max_packet_size(130);
        let mut buf = BytesMut::from(&[0x30, 0x80][..]);
        assert_eq!(decoder.decode(&mut buf), Ok(None));
        buf.extend_from_slice(&[0x01]);
        for _ in 0..2 {
            assert_eq!(decoder.decode(&mut buf), Err(E::PacketTooLarge.into()));
        }
        assert_eq!(decoder.decode_ref(&buf), Err(E::PacketTooLarge.into()));
        assert_eq!(decoder.pending_len(), None);
        decoder.set_max_packet_size(131);
        assert_eq!(decoder.decode(&mut buf), Ok(None));
        assert_eq!(decoder.pending_len(), Some(131));

        let mut default = Decoder::new(version);
        assert_eq!(default.max_packet_size(), DEFAULT_MAX_PACKET_SIZE);
        assert_eq!(
            default.decode(&mut BytesMut::from(&hex("30 FC FF 3F")[..])),
            Ok(None)
        );
        assert_eq!(default.pending_len(), Some(1024 * 1024));
        let mut default = Decoder::new(version);
        assert_eq!(
            default.decode(&mut BytesMut::from(&hex("30 FD FF 3F")[..])),
            Err(E::PacketTooLarge.into())
        );
        let mut all = Decoder::new(version).with_max_packet_size(MAX_PACKET_SIZE);
        assert_eq!(
            all.decode(&mut BytesMut::from(&hex("30 FF FF FF 7F")[..])),
            Ok(None)
        );
        // A limit below the smallest packet.
        let mut none = Decoder::new(version).with_max_packet_size(1);
        assert_eq!(
            none.decode(&mut BytesMut::from(&hex("C0 00")[..])),
            Err(E::PacketTooLarge.into())
        );
    }
    assert_eq!(E::PacketTooLarge.reason_code(), R::PacketTooLarge);
}

//= test MQTT-3.1.2-16
//= test MQTT-3.1.2-18
//= test v3.1.1 MQTT-3.1.2-18
//= test v3.1.1 MQTT-3.1.2-20
#[test]
fn every_packet_cut_short_or_with_a_byte_too_many() {
    // Of each packet all fields are required, so the same bytes with a smaller Remaining Length cannot be one.
    let packets: [(&[ProtocolVersion], &str); 16] = [
        (&[V311], "10 0D 0004 'MQTT' 04 02 0000 0001 'c'"),
        (&[V5], "10 0E 0004 'MQTT' 05 02 0000 00 0001 'c'"),
        (
            &[V311],
            "10 1E 0004 'MQTT' 04 F6 1234 0002 'cl' 0003 'w/t' 0002 00FF 0001 'u' 0002 'p' 00",
        ),
        (
            &[V5],
            "10 13 0004 'MQTT' 05 02 0000 05 11 00000001 0001 'c'",
        ),
        (OLD, "20 02 00 00"),
        (&[V5], "20 03 00 00 00"),
        (&[V5], "20 06 00 00 03 21 0001"),
        (OLD, "40 02 0001"),
        (OLD, "50 02 0001"),
        (OLD, "62 02 0001"),
        (OLD, "70 02 0001"),
        (OLD, "82 06 0001 0001 'a' 00"),
        (&[V5], "82 09 0001 02 0B 01 0001 'a' 00"),
        (OLD, "A2 05 0001 0001 'a'"),
        (&[V5], "A2 06 0001 00 0001 'a'"),
        (OLD, "B0 02 0001"),
    ];
    for (versions, packet) in packets {
        let bytes = hex(packet);
        for &version in versions {
            assert!(P::decode(&bytes, version).is_ok(), "{packet} {version}");
            for len in 2..bytes.len() {
                let mut cut = bytes[..len].to_vec();
                cut[1] = len as u8 - 2;
                let error = P::decode(&cut, version).unwrap_err();
                let expected: [DecodeError; 2] = [M::Overrun.into(), E::NoTopicFilters.into()];
                assert!(expected.contains(&error), "{cut:x?} {version}: {error}");
            }
            let mut long = bytes.clone();
            long.push(0);
            assert_eq!(
                P::decode(&long, version),
                Err(M::TrailingBytes.into()),
                "{packet}"
            );
            assert_eq!(
                P::decode(&bytes[..bytes.len() - 1], version),
                Err(M::Overrun.into()),
                "{packet}"
            );
            // In an UNSUBSCRIBE or SUBSCRIBE one byte more is the beginning of another filter.
            if !matches!(bytes[0] >> 4, 8 | 10) {
                long[1] += 1;
                assert_eq!(
                    P::decode(&long, version),
                    Err(M::TrailingBytes.into()),
                    "{packet}"
                );
            }
        }
    }
    refused(ALL, "C0 01 00", M::TrailingBytes);
    refused(ALL, "D0 01 00", M::TrailingBytes);
    refused(OLD, "E0 01 00", M::TrailingBytes);
    refused(OLD, "40 03 0001 00", M::TrailingBytes);
    refused(&[V5], "E0 03 00 00 00", M::TrailingBytes);
    refused(&[V5], "F0 03 00 00 00", M::TrailingBytes);
    refused(&[V5], "40 05 0001 00 00 00", M::TrailingBytes);
    assert_eq!(P::decode(&[], V5), Err(M::Overrun.into()));
    assert_eq!(P::decode(&[0x30], V5), Err(M::Overrun.into()));
}

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

#[test]
fn properties_stand_only_where_they_may() {
    // The packets that each property may stand in, from the specification's table of properties.
    use PropertyScope as S;
    let values: [(&str, &[PropertyScope]); 27] = [
        ("01 01", &[S::Publish, S::Will]),
        ("02 00000001", &[S::Publish, S::Will]),
        ("03 0001 'a'", &[S::Publish, S::Will]),
        ("08 0001 'a'", &[S::Publish, S::Will]),
        ("09 0001 'a'", &[S::Publish, S::Will]),
        ("0B 01", &[S::Publish, S::Subscribe]),
        ("11 00000001", &[S::Connect, S::Connack, S::Disconnect]),
        ("12 0001 'a'", &[S::Connack]),
        ("13 0001", &[S::Connack]),
        ("15 0001 'a'", &[S::Connect, S::Connack, S::Auth]),
        ("16 0001 'a'", &[S::Connect, S::Connack, S::Auth]),
        ("17 01", &[S::Connect]),
        ("18 00000001", &[S::Will]),
        ("19 01", &[S::Connect]),
        ("1A 0001 'a'", &[S::Connack]),
        ("1C 0001 'a'", &[S::Connack, S::Disconnect]),
        (
            "1F 0001 'a'",
            &[
                S::Connack,
                S::Puback,
                S::Pubrec,
                S::Pubrel,
                S::Pubcomp,
                S::Suback,
                S::Unsuback,
                S::Disconnect,
                S::Auth,
            ],
        ),
        ("21 0001", &[S::Connect, S::Connack]),
        ("22 0001", &[S::Connect, S::Connack]),
        ("23 0001", &[S::Publish]),
        ("24 01", &[S::Connack]),
        ("25 01", &[S::Connack]),
        ("26 0001 'a' 0001 'b'", &S::ALL),
        ("27 00000001", &[S::Connect, S::Connack]),
        ("28 01", &[S::Connack]),
        ("29 01", &[S::Connack]),
        ("2A 01", &[S::Connack]),
    ];
    for (property, scopes) in values {
        let block = hex(property);
        let id = PropertyId::from_u8(block[0]).unwrap();
        // CONNECT does not allow the data without the method; put it first.
        let before = if id == PropertyId::AuthenticationData {
            hex("15 0001 'm'")
        } else {
            Vec::new()
        };
        for scope in PropertyScope::ALL {
            let once = [&before[..], &block[..]].concat();
            let twice = [&once[..], &block[..]].concat();
            assert_eq!(
                id.is_allowed_in(scope),
                scopes.contains(&scope),
                "{id} {scope:?}"
            );
            if !scopes.contains(&scope) {
                assert_eq!(
                    Properties::parse(scope, &block),
                    Err(M::MisplacedProperty(id).into()),
                    "{id} {scope:?}"
                );
                continue;
            }
            let parsed = Properties::parse(scope, &once).unwrap();
            let property = parsed.iter().last().unwrap();
            assert_eq!(property.id(), id);

            // Cut short.
            for len in before.len() + 1..once.len() {
                assert_eq!(
                    Properties::parse(scope, &once[..len]),
                    Err(M::Overrun.into()),
                    "{id}"
                );
            }

            let mut buf = PropertyBuf::new(scope);
            for property in parsed {
                buf.push(property).unwrap();
            }
            assert_eq!(buf.as_properties().as_block(), Some(&once[..]));

            let repeats = id == PropertyId::UserProperty
                || (id, scope) == (PropertyId::SubscriptionIdentifier, S::Publish);
            assert_eq!(id.may_repeat_in(scope), repeats);
            if repeats {
                assert!(Properties::parse(scope, &twice).is_ok());
                assert_eq!(buf.push(property), Ok(()));
            } else {
                assert_eq!(
                    Properties::parse(scope, &twice),
                    Err(E::DuplicateProperty(id).into()),
                    "{id} {scope:?}"
                );
                assert_eq!(buf.push(property), Err(EncodeError::DuplicateProperty(id)));
                assert_eq!(buf.as_properties().as_block(), Some(&once[..]));
            }
        }
    }
    for unknown in (0..=255).filter(|&id| PropertyId::from_u8(id).is_none()) {
        assert_eq!(
            Properties::parse(S::Connack, &[unknown, 0, 0, 0, 0]),
            Err(M::UnknownProperty.into())
        );
    }
    assert_eq!(PropertyId::ALL.len(), 27);
}

#[test]
fn property_values_out_of_range() {
    let parse = |scope, block: &str| Properties::parse(scope, &hex(block)).map(|_| ());
    let flags = [
        (
            PropertyScope::Publish,
            "01",
            PropertyId::PayloadFormatIndicator,
        ),
        (
            PropertyScope::Connect,
            "17",
            PropertyId::RequestProblemInformation,
        ),
        (
            PropertyScope::Connect,
            "19",
            PropertyId::RequestResponseInformation,
        ),
        (PropertyScope::Connack, "24", PropertyId::MaximumQoS),
        (PropertyScope::Connack, "25", PropertyId::RetainAvailable),
        (
            PropertyScope::Connack,
            "28",
            PropertyId::WildcardSubscriptionAvailable,
        ),
        (
            PropertyScope::Connack,
            "29",
            PropertyId::SubscriptionIdentifierAvailable,
        ),
        (
            PropertyScope::Connack,
            "2A",
            PropertyId::SharedSubscriptionAvailable,
        ),
    ];
    for (scope, property, id) in flags {
        for value in 0..=255 {
            let expected = if value < 2 {
                Ok(())
            } else {
                Err(E::NotABoolean(id).into())
            };
            assert_eq!(parse(scope, &format!("{property} {value:02X}")), expected);
        }
    }
    assert_eq!(
        parse(PropertyScope::Connect, "21 0000"),
        Err(E::ZeroValue(PropertyId::ReceiveMaximum).into())
    );
    assert_eq!(
        parse(PropertyScope::Connack, "27 00000000"),
        Err(E::ZeroValue(PropertyId::MaximumPacketSize).into())
    );
    assert_eq!(
        parse(PropertyScope::Publish, "23 0000"),
        Err(E::TopicAliasZero.into())
    );
    assert_eq!(
        parse(PropertyScope::Subscribe, "0B 00"),
        Err(E::SubscriptionIdentifierZero.into())
    );
    assert_eq!(
        parse(PropertyScope::Subscribe, "0B 80 00"),
        Err(M::VariableByteIntegerNotMinimal.into())
    );
    assert_eq!(
        parse(PropertyScope::Subscribe, "0B 80 80 80 80 01"),
        Err(M::VariableByteIntegerTooLong.into())
    );
    assert_eq!(parse(PropertyScope::Subscribe, "0B FF FF FF 7F"), Ok(()));
    // A block that ends behind the packet.
    refused(&[V5], "40 06 0001 00 03 1F 00", M::Overrun);
    // Text that ends behind its block, but inside the packet.
    refused(&[V5], "30 0B 0001 'a' 03 03 0004 'abcd'", M::Overrun);
}

//= test MQTT-3.15.1-1
#[test]
fn auth_without_a_method() {
    refused(&[V5], "F0 01 18", E::AuthenticationMethodMissing);
    refused(&[V5], "F0 02 19 00", E::AuthenticationMethodMissing);
    refused(
        &[V5],
        "F0 06 00 04 16 0001 'd'",
        E::AuthenticationMethodMissing,
    );
    refused(&[V5], "F1 00", M::FixedHeaderFlags);
}
