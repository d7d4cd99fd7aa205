//! Helpers shared by the tests of this crate.
#![allow(dead_code, reason = "each test file uses some of it")]

pub(crate) mod golden;
pub(crate) mod model;
pub(crate) mod strategies;

use bytes::{Bytes, BytesMut};
use mqtt_codec::{
    AckRef, DecodeError, Decoder, Malformed, Packet, PacketId, PacketRef, PacketType,
    ProtocolVersion, Publish, QoS, SubscriptionId, Text, TopicFilter, TopicName,
};

pub(crate) const VERSIONS: [ProtocolVersion; 3] = [
    ProtocolVersion::V31,
    ProtocolVersion::V311,
    ProtocolVersion::V5,
];

/// Bytes from hexadecimal digits; `'text'` stands for its ASCII bytes, white space for nothing.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut parts = text.split('\'');
    while let Some(digits) = parts.next() {
        let digits: String = digits.split_whitespace().collect();
        assert!(
            digits.len().is_multiple_of(2),
            "odd number of digits in {text}"
        );
        for pair in digits.as_bytes().chunks(2) {
            bytes.push(u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
        }
        if let Some(ascii) = parts.next() {
            bytes.extend_from_slice(ascii.as_bytes());
        }
    }
    bytes
}

pub(crate) fn text(text: &str) -> Text<'_> {
    Text::new(text).unwrap()
}

pub(crate) fn topic(name: &str) -> TopicName<'_> {
    TopicName::new(name).unwrap()
}

pub(crate) fn filter(filter: &str) -> TopicFilter<'_> {
    TopicFilter::new(filter).unwrap()
}

pub(crate) fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

pub(crate) fn subscription_id(id: u32) -> SubscriptionId {
    SubscriptionId::new(id).unwrap()
}

/// The packet as bytes, after checks that hold for every packet that encodes.
pub(crate) fn encode(packet: &PacketRef<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = vec![0xEE];
    packet.encode(version, &mut bytes).unwrap();
    assert_eq!(bytes.remove(0), 0xEE, "encoding appends");
    assert_eq!(packet.encoded_len(version), Ok(bytes.len()));

    let mut buf = BytesMut::new();
    packet.encode(version, &mut buf).unwrap();
    assert_eq!(buf, bytes);

    let mut buf = BytesMut::from(&[0xEE][..]);
    packet.encode_to(version, &mut buf).unwrap();
    assert_eq!(buf.split_to(1)[..], [0xEE], "encoding appends");
    assert_eq!(buf, bytes);

    let mut exact = vec![0; bytes.len()];
    let mut rest = &mut exact[..];
    packet.encode(version, &mut rest).unwrap();
    assert!(rest.is_empty());
    assert_eq!(exact, bytes);

    let mut short = vec![0; bytes.len() - 1];
    let mut rest = &mut short[..];
    assert_eq!(
        packet.encode(version, &mut rest),
        Err(mqtt_codec::EncodeError::BufferFull)
    );
    assert_eq!(rest.len(), bytes.len() - 1, "nothing is written");

    let mut long = vec![0xEE; bytes.len() + 1];
    assert_eq!(packet.encode_to_slice(version, &mut long), Ok(bytes.len()));
    assert_eq!(long.pop(), Some(0xEE), "nothing is written behind it");
    assert_eq!(long, bytes);
    let mut short = vec![0xEE; bytes.len() - 1];
    assert_eq!(
        packet.encode_to_slice(version, &mut short),
        Err(mqtt_codec::EncodeError::BufferFull)
    );
    assert!(short.iter().all(|&byte| byte == 0xEE), "nothing is written");

    if let PacketRef::Publish(publish) = packet {
        let mut header = Vec::new();
        publish.encode_header(version, &mut header).unwrap();
        header.extend_from_slice(publish.payload);
        assert_eq!(header, bytes);
    }
    bytes
}

/// Decodes in every way there is, which must agree, and hands the outcome to `check`.
pub(crate) fn decode_all_ways(
    bytes: &[u8],
    version: ProtocolVersion,
    check: impl Fn(Result<PacketRef<'_>, DecodeError>),
) {
    let whole = PacketRef::decode(bytes, version);
    check(whole);

    let owned = Packet::decode(Bytes::copy_from_slice(bytes), version);
    check(owned.as_ref().map(Packet::as_ref).map_err(|error| *error));

    // To a stream, bytes that follow a packet are no error, and neither is a packet that is not all there.
    let mut buf = BytesMut::from(bytes);
    let owned = Decoder::new(version).decode(&mut buf);
    let len = bytes.len() - buf.len();
    match &owned {
        Ok(Some(packet)) if buf.is_empty() => check(Ok(packet.as_ref())),
        Ok(Some(packet)) => {
            assert_eq!(whole, Err(Malformed::TrailingBytes.into()));
            assert_eq!(
                PacketRef::decode(&bytes[..len], version),
                Ok(packet.as_ref())
            );
        }
        Ok(None) => assert_eq!((whole, len), (Err(Malformed::Overrun.into()), 0)),
        Err(_) => assert_eq!(len, 0, "nothing is taken from the buffer"),
    }

    let mut chunk = Bytes::copy_from_slice(bytes);
    let shared = Decoder::new(version).decode_bytes(&mut chunk);
    assert_eq!(shared, owned);

    let mut chunk = Bytes::copy_from_slice(bytes);
    let publish = Decoder::new(version).decode_publish_bytes(&mut chunk);
    let mut buf = BytesMut::from(bytes);
    let unshared = Decoder::new(version).decode_publish(&mut buf);
    assert_eq!(unshared.is_some(), publish.is_some());
    assert!(
        unshared
            .iter()
            .zip(&publish)
            .all(|(a, b)| a.as_ref() == b.as_ref())
    );
    assert_eq!(buf, chunk);
    let mut single = Bytes::copy_from_slice(bytes);
    match Decoder::new(version).decode_single_publish(&mut single) {
        Some(single) => assert_eq!(
            Some(single.as_ref()),
            publish
                .as_ref()
                .map(Publish::as_ref)
                .filter(|_| chunk.is_empty())
        ),
        None => {
            assert!(publish.is_none() || !chunk.is_empty());
            assert_eq!(single.len(), bytes.len(), "nothing is taken");
        }
    }
    let is_plain = |publish: &&Publish| {
        // Its length in one byte or two.
        let short = publish.frame().len() < 3 + (1 << 14);
        chunk.is_empty()
            && short
            && publish.qos() == QoS::AtMostOnce
            && !publish.topic_name().is_empty()
            && publish.properties().is_empty()
    };
    let plain = Decoder::new(version).decode_plain_publish(Bytes::copy_from_slice(bytes));
    match (plain, publish.as_ref().filter(is_plain)) {
        (Ok(plain), Some(publish)) => assert_eq!(plain.as_ref(), publish.as_ref()),
        (Err(back), None) => assert_eq!(back, bytes, "it is given back"),
        other => panic!("{other:?}"),
    }
    match (publish, &owned) {
        (Some(publish), Ok(Some(owned @ Packet::Publish(_)))) => {
            assert_eq!(PacketRef::Publish(publish.as_ref()), owned.as_ref());
            assert_eq!(chunk.len(), bytes.len() - len);
        }
        (Some(publish), _) => panic!("{publish:?} and {owned:?}"),
        (None, Ok(Some(Packet::Publish(_)))) => panic!("none, and {owned:?}"),
        (None, _) => assert_eq!(chunk.len(), bytes.len(), "nothing is taken"),
    }

    let plain = Decoder::new(version).peek_plain_ack(bytes);
    let is_plain = len == Decoder::PLAIN_ACK_LEN;
    let ack = owned.as_ref().ok().and_then(Option::as_ref);
    assert_eq!(plain, ack.filter(|_| is_plain).and_then(ack_of));

    let view = Decoder::new(version).decode_ref(bytes);
    match (&view, &owned) {
        (Ok(Some((packet, view_len))), Ok(Some(owned))) => {
            assert_eq!(*packet, owned.as_ref());
            assert_eq!(*view_len, len);
        }
        (Ok(None), Ok(None)) => {}
        (Err(view), Err(owned)) => assert_eq!(view, owned),
        _ => panic!("{view:?} and {owned:?}"),
    }
}

/// What is plain about an acknowledgement, if it is one.
fn ack_of(packet: &Packet) -> Option<(PacketType, PacketId)> {
    let (packet, ack) = match packet {
        Packet::Puback(ack) => (PacketType::Puback, ack),
        Packet::Pubrec(ack) => (PacketType::Pubrec, ack),
        Packet::Pubrel(ack) => (PacketType::Pubrel, ack),
        Packet::Pubcomp(ack) => (PacketType::Pubcomp, ack),
        _ => return None,
    };
    assert_eq!(ack.as_ref(), AckRef::new(ack.packet_id()));
    Some((packet, ack.packet_id()))
}

/// Whole, in pieces and off a stream: each way of decoding these bytes comes to this error.
#[track_caller]
pub(crate) fn refused(versions: &[ProtocolVersion], bytes: &str, error: impl Into<DecodeError>) {
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
