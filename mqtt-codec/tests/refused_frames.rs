//! What is no packet of any type: headers, lengths, limits, and packets that are cut short. Each case names its error.

mod common;

use bytes::BytesMut;
use common::*;
use mqtt_codec::{
    Malformed as M, PacketRef as P, ProtocolError as E, ProtocolVersion::*, ReasonCode as R, *,
};

const OLD: &[ProtocolVersion] = &[V31, V311];
const SINCE_311: &[ProtocolVersion] = &[V311, V5];
const ALL: &[ProtocolVersion] = &VERSIONS;

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
