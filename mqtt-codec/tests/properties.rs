//! Generated packets, valid and broken, against a slow encoder written from the specification.

mod common;

use bytes::{Bytes, BytesMut};
use common::model::{Model, varint};
use common::strategies::model;
use common::{VERSIONS, decode_all_ways, encode};
use mqtt_codec::{PacketRef as P, *};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn version_and_model() -> impl Strategy<Value = (ProtocolVersion, Model)> {
    prop::sample::select(VERSIONS.to_vec()).prop_flat_map(|version| (Just(version), model(version)))
}

fn version_and_models() -> impl Strategy<Value = (ProtocolVersion, Vec<Model>)> {
    prop::sample::select(VERSIONS.to_vec())
        .prop_flat_map(|version| (Just(version), vec(model(version), 1..8)))
}

/// A change to the bytes of a packet.
#[derive(Clone, Debug)]
enum Damage {
    Replace(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Cut(prop::sample::Index),
    Repeat(prop::sample::Index, prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    // Bytes that mean something somewhere: ends of ranges, lengths, wildcards, lead bytes, property identifiers.
    let byte = || {
        prop_oneof![
            any::<u8>(),
            prop::sample::select(vec![
                0, 1, 2, 3, 0x7f, 0x80, 0xff, b'+', b'#', b'/', 0xC3, 0xED, 0xA0, 0x0B, 0x23, 0x26
            ])
        ]
    };
    prop_oneof![
        5 => (index(), byte()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        2 => (index(), byte()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        2 => index().prop_map(Damage::Remove),
        1 => index().prop_map(Damage::Cut),
        2 => (index(), index()).prop_map(|(from, to)| Damage::Repeat(from, to)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Replace(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Self::Insert(at, byte) => bytes.insert(at.index(bytes.len() + 1), *byte),
            Self::Remove(at) => {
                bytes.remove(at.index(bytes.len()));
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Repeat(from, to) => {
                let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(from.min(to)..from.min(to), part);
            }
        }
    }
}

/// The body behind a Remaining Length that fits it.
fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    varint(&mut packet, body.len());
    packet.extend_from_slice(body);
    packet
}

fn check_any_bytes(bytes: &[u8], version: ProtocolVersion) {
    decode_all_ways(bytes, version, |decoded| match decoded {
        Ok(packet) => {
            // Whatever is accepted has one meaning, and a form at most as long.
            let again = encode(&packet, version);
            assert!(again.len() <= bytes.len(), "{packet:?}");
            assert_eq!(P::decode(&again, version), Ok(packet));
        }
        Err(error) => {
            let code = error.reason_code();
            assert!(
                code.is_valid_for(PacketType::Disconnect) || code.is_valid_for(PacketType::Connack),
                "{error}"
            );
        }
    });
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/properties.regressions",
        ))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn encodes_as_the_specification_says_and_decodes_again((version, model) in version_and_model()) {
        let expected = model.encode(version);
        model.with_ref(version, |packet| {
            assert_eq!(encode(&packet, version), expected);
            decode_all_ways(&expected, version, |decoded| assert_eq!(decoded, Ok(packet)));
            // From the checked blocks, as from the lists.
            assert_eq!(encode(&P::decode(&expected, version).unwrap(), version), expected);
        });
    }

    #[test]
    fn damaged_packets_are_refused_or_mean_something(
        (version, model) in version_and_model(),
        damage in vec(damage(), 1..4),
        fits in any::<bool>(),
        other in prop::sample::select(VERSIONS.to_vec()),
    ) {
        let bytes = model.encode(version);
        let bytes = if fits {
            // Only the inside is damaged, so that the fault is found there.
            let header = bytes.iter().skip(1).take_while(|byte| **byte >= 0x80).count() + 2;
            let mut body = bytes[header..].to_vec();
            damage.iter().for_each(|damage| damage.apply(&mut body));
            framed(bytes[0], &body)
        } else {
            let mut bytes = bytes;
            damage.iter().for_each(|damage| damage.apply(&mut bytes));
            bytes
        };
        if PacketType::Connect as u8 != bytes.first().map_or(0, |first| first >> 4) {
            check_any_bytes(&bytes, version);
            check_any_bytes(&bytes, other);
        } else {
            decode_all_ways(&bytes, version, |_| {});
        }
    }

    #[test]
    fn any_bytes_are_refused_or_mean_something(first in any::<u8>(), body in vec(any::<u8>(), 0..64), version in prop::sample::select(VERSIONS.to_vec())) {
        prop_assume!(first >> 4 != PacketType::Connect as u8);
        check_any_bytes(&framed(first, &body), version);
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn any_split_of_a_stream_gives_the_same_packets((version, models) in version_and_models(), cuts in vec(any::<prop::sample::Index>(), 0..12)) {
        let packets: Vec<Vec<u8>> = models.iter().map(|model| model.encode(version)).collect();
        let stream = packets.concat();
        let expected: Vec<Packet> = packets.iter().map(|bytes| Packet::decode(Bytes::copy_from_slice(bytes), version).unwrap()).collect();

        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut decoder = Decoder::new(version);
        let mut buf = BytesMut::new();
        let mut got = Vec::new();
        for piece in cuts.windows(2) {
            buf.extend_from_slice(&stream[piece[0]..piece[1]]);
            while let Some(packet) = decoder.decode(&mut buf).unwrap() {
                got.push(packet);
            }
        }
        prop_assert!(buf.is_empty());
        prop_assert_eq!(&got, &expected);
    }

    #[test]
    fn byte_by_byte_gives_the_same_packets((version, models) in version_and_models(), broken in any::<bool>()) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for model in &models {
            let bytes = model.encode(version);
            stream.extend_from_slice(&bytes);
            expected.push(Packet::decode(Bytes::from(bytes), version).unwrap());
        }
        if broken {
            stream.extend_from_slice(&[0x30, 0x03, 0x00, 0x01, b'#']);
        }
        let mut decoder = Decoder::new(version);
        let (mut start, mut got, mut error) = (0, Vec::new(), None);
        for end in 0..=stream.len() {
            match decoder.decode_ref(&stream[start..end]) {
                Ok(Some((packet, len))) => {
                    prop_assert_eq!(packet, expected[got.len()].as_ref());
                    got.push(len);
                    start += len;
                    prop_assert_eq!(start, end, "with the last byte of the packet, not later");
                }
                Ok(None) => {}
                Err(refused) => error = Some(refused),
            }
        }
        prop_assert_eq!(got.len(), expected.len());
        prop_assert_eq!(error, broken.then_some(Malformed::WildcardInTopicName.into()));
    }
}
