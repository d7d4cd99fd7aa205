//! Every codec behind the same few functions, each used in the fastest way that it offers.

mod ours;

use std::hint::black_box;
use std::sync::Arc;

use bytes::BytesMut;
use tokio_util::codec::{Decoder as _, Encoder as _};

use self::ours::{
    ours_4_chunk, ours_4_decode, ours_4_encode, ours_4_feed, ours_4_handle, ours_4_ref,
    ours_4_slice, ours_5_chunk, ours_5_decode, ours_5_encode, ours_5_feed, ours_5_handle,
    ours_5_ref, ours_5_slice,
};
use crate::measure::Clock;
use crate::stream::Version;

/// Decodes a stream inside the clock's region; returns the number of packets.
pub type Decode = fn(&[u8], &mut Clock) -> usize;
/// The same, with the stream arriving in pieces of a given length.
pub type Feed = fn(&[u8], usize, &mut Clock) -> usize;
/// Encodes the stream's packets, decoded beforehand, inside the region; returns the number of packets
/// in what was written. (Not its length: an acknowledgement of MQTT 5 has a short and a long form.)
pub type Encode = fn(&[u8], &mut Clock) -> usize;

/// One way of using one codec, for one version.
pub struct Peer {
    pub name: &'static str,
    pub version: Version,
    pub decode: Option<Decode>,
    pub feed: Option<Feed>,
    pub encode: Option<Encode>,
}

/// No packet here is larger.
const MAX: usize = 1 << 21;

macro_rules! peer {
    ($name:literal, $version:ident, $decode:expr, $feed:expr, $encode:expr) => {
        Peer {
            name: $name,
            version: Version::$version,
            decode: $decode,
            feed: $feed,
            encode: $encode,
        }
    };
}

pub fn all() -> Vec<Peer> {
    vec![
        peer!("ours (borrowed)", V4, Some(ours_4_ref), None, None),
        peer!("ours (borrowed)", V5, Some(ours_5_ref), None, None),
        peer!(
            "ours",
            V4,
            Some(ours_4_decode),
            Some(ours_4_feed),
            Some(ours_4_encode)
        ),
        peer!(
            "ours",
            V5,
            Some(ours_5_decode),
            Some(ours_5_feed),
            Some(ours_5_encode)
        ),
        peer!("ours (shared chunk)", V4, Some(ours_4_chunk), None, None),
        peer!("ours (shared chunk)", V5, Some(ours_5_chunk), None, None),
        peer!("ours (into a slice)", V4, None, None, Some(ours_4_slice)),
        peer!("ours (into a slice)", V5, None, None, Some(ours_5_slice)),
        peer!("ours (by handle)", V4, None, None, Some(ours_4_handle)),
        peer!("ours (by handle)", V5, None, None, Some(ours_5_handle)),
        peer!(
            "mqttrs (borrowed)",
            V4,
            Some(mqttrs_decode),
            None,
            Some(mqttrs_encode)
        ),
        peer!(
            "mqttbytes",
            V4,
            Some(mqttbytes_4_decode),
            Some(mqttbytes_4_feed),
            Some(mqttbytes_4_encode)
        ),
        peer!(
            "mqttbytes",
            V5,
            Some(mqttbytes_5_decode),
            Some(mqttbytes_5_feed),
            Some(mqttbytes_5_encode)
        ),
        peer!(
            "rumqttc",
            V4,
            Some(rumqttc_4_decode),
            Some(rumqttc_4_feed),
            Some(rumqttc_4_encode)
        ),
        peer!(
            "rumqttc",
            V5,
            Some(rumqttc_5_decode),
            Some(rumqttc_5_feed),
            Some(rumqttc_5_encode)
        ),
        peer!(
            "rmqtt-codec",
            V4,
            Some(rmqtt_4_decode),
            Some(rmqtt_4_feed),
            Some(rmqtt_4_encode)
        ),
        peer!(
            "rmqtt-codec",
            V5,
            Some(rmqtt_5_decode),
            Some(rmqtt_5_feed),
            Some(rmqtt_5_encode)
        ),
        peer!(
            "ntex-mqtt",
            V4,
            Some(ntex_4_decode),
            Some(ntex_4_feed),
            Some(ntex_4_encode)
        ),
        peer!(
            "ntex-mqtt",
            V5,
            Some(ntex_5_decode),
            Some(ntex_5_feed),
            Some(ntex_5_encode)
        ),
        peer!(
            "mqtt-proto",
            V4,
            Some(proto_4_decode),
            Some(proto_4_feed),
            Some(proto_4_encode)
        ),
        peer!(
            "mqtt-proto",
            V5,
            Some(proto_5_decode),
            Some(proto_5_feed),
            Some(proto_5_encode)
        ),
        peer!(
            "mqtt-protocol-core",
            V4,
            Some(core_4_decode),
            None,
            Some(core_4_encode)
        ),
        peer!(
            "mqtt-protocol-core",
            V5,
            Some(core_5_decode),
            None,
            Some(core_5_encode)
        ),
    ]
}

/// Counts the packets that `next` takes off the front of the buffer until it has no more.
fn drain<P>(buffer: &mut BytesMut, mut next: impl FnMut(&mut BytesMut) -> Option<P>) -> usize {
    let mut packets = 0;
    while let Some(packet) = next(buffer) {
        black_box(&packet);
        packets += 1;
    }
    packets
}

fn whole<P>(
    stream: &[u8],
    clock: &mut Clock,
    next: impl FnMut(&mut BytesMut) -> Option<P>,
) -> usize {
    let mut buffer = room(stream);
    buffer.extend_from_slice(stream);
    clock.region(|| drain(&mut buffer, next))
}

fn pieces<P>(
    stream: &[u8],
    piece: usize,
    clock: &mut Clock,
    mut next: impl FnMut(&mut BytesMut) -> Option<P>,
) -> usize {
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    clock.region(|| {
        let mut packets = 0;
        for piece in stream.chunks(piece) {
            buffer.extend_from_slice(piece);
            packets += drain(&mut buffer, &mut next);
        }
        packets
    })
}

fn collect<P>(stream: &[u8], mut next: impl FnMut(&mut BytesMut) -> Option<P>) -> Vec<Option<P>> {
    let mut buffer = BytesMut::from(stream);
    std::iter::from_fn(|| next(&mut buffer).map(Some)).collect()
}

/// Writes every packet into one buffer: from a reference, or, where a codec wants to own what it
/// writes, taken out of its place. The buffer's memory is there from the start.
fn write_all<P>(
    stream: &[u8],
    mut packets: Vec<Option<P>>,
    clock: &mut Clock,
    mut write: impl FnMut(&mut Option<P>, &mut BytesMut),
) -> usize {
    let mut buffer = room(stream);
    clock.region(|| {
        for packet in &mut packets {
            write(packet, &mut buffer);
        }
    });
    count(&buffer)
}

/// An empty buffer with room for more than the stream, its pages touched.
fn room(stream: &[u8]) -> BytesMut {
    let mut buffer = BytesMut::new();
    buffer.resize(stream.len() * 2 + 64 * 1024, u8::MAX);
    buffer.clear();
    buffer
}

/// The number of packets in a row.
fn count(mut bytes: &[u8]) -> usize {
    let mut packets = 0;
    while let Some((_, _, end)) = frame(bytes) {
        bytes = &bytes[end..];
        packets += 1;
    }
    packets
}

/// Type and flags, the length of the header, and that of the packet, for peers that split no frames.
fn frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let first = *bytes.first()?;
    let (mut length, mut at) = (0, 1);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 127) << (7 * (at - 1));
        at += 1;
        if byte < 128 {
            break;
        }
    }
    (bytes.len() >= at + length).then_some((first, at, at + length))
}

macro_rules! split_off {
    ($decode:ident, $feed:ident, $encode:ident, $state:expr, $next:expr, $write:expr) => {
        fn $decode(stream: &[u8], clock: &mut Clock) -> usize {
            let mut state = $state;
            whole(stream, clock, |buffer| $next(&mut state, buffer))
        }

        fn $feed(stream: &[u8], piece: usize, clock: &mut Clock) -> usize {
            let mut state = $state;
            pieces(stream, piece, clock, |buffer| $next(&mut state, buffer))
        }

        fn $encode(stream: &[u8], clock: &mut Clock) -> usize {
            let mut state = $state;
            let packets = collect(stream, |buffer| $next(&mut state, buffer));
            write_all(stream, packets, clock, |packet, buffer| {
                $write(&mut state, packet, buffer)
            })
        }
    };
}

split_off!(
    mqttbytes_4_decode,
    mqttbytes_4_feed,
    mqttbytes_4_encode,
    (),
    |_: &mut (), buffer: &mut BytesMut| mqttbytes::v4::read(buffer, MAX).ok(),
    |_: &mut (), packet: &mut Option<mqttbytes::v4::Packet>, buffer: &mut BytesMut| {
        use mqttbytes::v4::Packet;
        let Some(packet) = packet else { return };
        let _ = match packet {
            Packet::Connect(packet) => packet.write(buffer),
            Packet::Publish(packet) => packet.write(buffer),
            Packet::PubAck(packet) => packet.write(buffer),
            Packet::PubRec(packet) => packet.write(buffer),
            Packet::PubRel(packet) => packet.write(buffer),
            Packet::PubComp(packet) => packet.write(buffer),
            Packet::Subscribe(packet) => packet.write(buffer),
            Packet::SubAck(packet) => packet.write(buffer),
            _ => mqttbytes::v4::PingReq.write(buffer),
        };
    }
);

split_off!(
    mqttbytes_5_decode,
    mqttbytes_5_feed,
    mqttbytes_5_encode,
    (),
    |_: &mut (), buffer: &mut BytesMut| mqttbytes::v5::read(buffer, MAX).ok(),
    |_: &mut (), packet: &mut Option<mqttbytes::v5::Packet>, buffer: &mut BytesMut| {
        use mqttbytes::v5::Packet;
        let Some(packet) = packet else { return };
        let _ = match packet {
            Packet::Connect(packet) => packet.write(buffer),
            Packet::Publish(packet) => packet.write(buffer),
            Packet::PubAck(packet) => packet.write(buffer),
            Packet::PubRec(packet) => packet.write(buffer),
            Packet::PubRel(packet) => packet.write(buffer),
            Packet::PubComp(packet) => packet.write(buffer),
            Packet::Subscribe(packet) => packet.write(buffer),
            Packet::SubAck(packet) => packet.write(buffer),
            _ => mqttbytes::v5::PingReq.write(buffer),
        };
    }
);

split_off!(
    rumqttc_4_decode,
    rumqttc_4_feed,
    rumqttc_4_encode,
    (),
    |_: &mut (), buffer: &mut BytesMut| rumqttc::mqttbytes::v4::Packet::read(buffer, MAX).ok(),
    |_: &mut (), packet: &mut Option<rumqttc::mqttbytes::v4::Packet>, buffer: &mut BytesMut| {
        let _ = packet.as_ref().map(|packet| packet.write(buffer, MAX));
    }
);

split_off!(
    rumqttc_5_decode,
    rumqttc_5_feed,
    rumqttc_5_encode,
    (),
    |_: &mut (), buffer: &mut BytesMut| rumqttc::v5::mqttbytes::v5::Packet::read(buffer, None).ok(),
    |_: &mut (), packet: &mut Option<rumqttc::v5::mqttbytes::v5::Packet>, buffer: &mut BytesMut| {
        let _ = packet.as_ref().map(|packet| packet.write(buffer, None));
    }
);

split_off!(
    rmqtt_4_decode,
    rmqtt_4_feed,
    rmqtt_4_encode,
    rmqtt_codec::v3::Codec::new(0),
    |codec: &mut rmqtt_codec::v3::Codec, buffer: &mut BytesMut| {
        codec
            .decode(buffer)
            .ok()
            .flatten()
            .map(|(packet, _)| packet)
    },
    |codec: &mut rmqtt_codec::v3::Codec,
     packet: &mut Option<rmqtt_codec::v3::Packet>,
     buffer: &mut BytesMut| {
        let _ = packet.take().map(|packet| codec.encode(packet, buffer));
    }
);

split_off!(
    rmqtt_5_decode,
    rmqtt_5_feed,
    rmqtt_5_encode,
    rmqtt_codec::v5::Codec::new(0, 0),
    |codec: &mut rmqtt_codec::v5::Codec, buffer: &mut BytesMut| {
        codec
            .decode(buffer)
            .ok()
            .flatten()
            .map(|(packet, _)| packet)
    },
    |codec: &mut rmqtt_codec::v5::Codec,
     packet: &mut Option<rmqtt_codec::v5::Packet>,
     buffer: &mut BytesMut| {
        let _ = packet.take().map(|packet| codec.encode(packet, buffer));
    }
);

/// mqtt-proto decodes a body from a slice; the frame is split here, the fastest way to use it.
macro_rules! proto {
    ($version:ident, $decode:ident, $feed:ident, $encode:ident, $next:ident) => {
        fn $next(buffer: &[u8]) -> Option<(mqtt_proto::$version::Packet, usize)> {
            use mqtt_proto::PollHeader as _;
            let (first, body, end) = frame(buffer)?;
            let (remaining, total) = (u32::try_from(end - body).ok()?, u32::try_from(end).ok()?);
            let header = mqtt_proto::$version::Header::new_with(first, remaining, total).ok()?;
            let packet = match header.build_empty_packet() {
                Some(packet) if remaining == 0 => packet,
                _ => header.decode_buffer(&buffer[body..end], &mut 0).ok()?,
            };
            Some((packet, end))
        }

        split_off!(
            $decode,
            $feed,
            $encode,
            (),
            |_: &mut (), buffer: &mut BytesMut| {
                let (packet, end) = $next(buffer)?;
                bytes::Buf::advance(buffer, end);
                Some(packet)
            },
            |_: &mut (),
             packet: &mut Option<mqtt_proto::$version::Packet>,
             buffer: &mut BytesMut| {
                if let Some(Ok(bytes)) = packet.as_ref().map(|packet| packet.encode()) {
                    buffer.extend_from_slice(bytes.as_ref());
                }
            }
        );
    };
}

proto!(
    v3,
    proto_4_decode,
    proto_4_feed,
    proto_4_encode,
    proto_4_next
);
proto!(
    v5,
    proto_5_decode,
    proto_5_feed,
    proto_5_encode,
    proto_5_next
);

macro_rules! protocol_core {
    ($version:ident, $decode:ident, $encode:ident, $next:ident) => {
        fn $next(bytes: &[u8]) -> Option<(mqtt_protocol_core::mqtt::packet::Packet, usize)> {
            use mqtt_protocol_core::mqtt::packet::$version as packet;
            let (first, body, end) = frame(bytes)?;
            let body = &bytes[body..end];
            let packet = match first >> 4 {
                1 => packet::Connect::parse(body).ok()?.0.into(),
                3 => packet::Publish::parse(first & 15, Arc::from(body))
                    .ok()?
                    .0
                    .into(),
                4 => packet::Puback::parse(body).ok()?.0.into(),
                5 => packet::Pubrec::parse(body).ok()?.0.into(),
                6 => packet::Pubrel::parse(body).ok()?.0.into(),
                7 => packet::Pubcomp::parse(body).ok()?.0.into(),
                8 => packet::Subscribe::parse(body).ok()?.0.into(),
                9 => packet::Suback::parse(body).ok()?.0.into(),
                12 => packet::Pingreq::parse(body).ok()?.0.into(),
                _ => return None,
            };
            Some((packet, end))
        }

        fn $decode(stream: &[u8], clock: &mut Clock) -> usize {
            clock.region(|| {
                let (mut packets, mut at) = (0, 0);
                while let Some((packet, end)) = $next(&stream[at..]) {
                    black_box(&packet);
                    at += end;
                    packets += 1;
                }
                packets
            })
        }

        fn $encode(stream: &[u8], clock: &mut Clock) -> usize {
            use mqtt_protocol_core::mqtt::packet::GenericPacketTrait as _;
            let mut at = 0;
            let packets = std::iter::from_fn(|| {
                let (packet, end) = $next(&stream[at..])?;
                at += end;
                Some(Some(packet))
            });
            write_all(stream, packets.collect(), clock, |packet, buffer| {
                let Some(packet) = packet else { return };
                buffer.extend_from_slice(&packet.to_continuous_buffer());
            })
        }
    };
}

protocol_core!(v3_1_1, core_4_decode, core_4_encode, core_4_next);
protocol_core!(v5_0, core_5_decode, core_5_encode, core_5_next);

/// mqttrs says nothing of a packet's length: the header is walked here as well.
fn mqttrs_decode(stream: &[u8], clock: &mut Clock) -> usize {
    clock.region(|| {
        let (mut packets, mut at) = (0, 0);
        while let Some((_, _, end)) = frame(&stream[at..]) {
            let Ok(Some(packet)) = mqttrs::decode_slice(&stream[at..at + end]) else {
                break;
            };
            black_box(&packet);
            at += end;
            packets += 1;
        }
        packets
    })
}

fn mqttrs_encode(stream: &[u8], clock: &mut Clock) -> usize {
    let mut at = 0;
    let packets: Vec<_> = std::iter::from_fn(|| {
        let (_, _, end) = frame(&stream[at..])?;
        let packet = mqttrs::decode_slice(&stream[at..at + end]).ok().flatten();
        at += end;
        packet
    })
    .collect();
    let mut buffer = vec![u8::MAX; stream.len() + 1024];
    let written = clock.region(|| {
        let mut at = 0;
        for packet in &packets {
            at += mqttrs::encode_slice(packet, &mut buffer[at..]).unwrap_or(0);
        }
        at
    });
    count(&buffer[..written])
}

/// ntex-mqtt has buffers of its own, hands a PUBLISH out in two parts, and writes to pages.
macro_rules! ntex {
    ($version:ident, $decode:ident, $feed:ident, $encode:ident) => {
        fn $decode(stream: &[u8], clock: &mut Clock) -> usize {
            $feed(stream, 0, clock)
        }

        fn $feed(stream: &[u8], piece: usize, clock: &mut Clock) -> usize {
            use ntex_codec::Decoder as _;
            use ntex_mqtt::$version::codec::{Codec, Decoded};
            let codec = Codec::default();
            let all_at_once = piece == 0;
            let mut buffer = if all_at_once {
                let mut buffer = ntex_bytes::BytesMut::with_capacity(stream.len() + 64 * 1024);
                buffer.extend_from_slice(stream);
                buffer
            } else {
                ntex_bytes::BytesMut::with_capacity(64 * 1024)
            };
            let pieces: Vec<&[u8]> = if all_at_once {
                vec![&[]]
            } else {
                stream.chunks(piece).collect()
            };
            clock.region(|| {
                let mut packets = 0;
                for piece in pieces {
                    if !all_at_once {
                        buffer.extend_from_slice(piece);
                    }
                    while let Ok(Some(packet)) = codec.decode(&mut buffer) {
                        packets += usize::from(!matches!(packet, Decoded::PayloadChunk(..)));
                        black_box(&packet);
                    }
                }
                packets
            })
        }

        fn $encode(stream: &[u8], clock: &mut Clock) -> usize {
            use ntex_codec::{Decoder as _, Encoder as _};
            use ntex_mqtt::$version::codec::{Codec, Decoded, Encoded};
            let codec = Codec::default();
            let mut buffer = ntex_bytes::BytesMut::copy_from_slice(stream);
            let packets: Vec<Encoded> =
                std::iter::from_fn(|| match codec.decode(&mut buffer).ok()?? {
                    Decoded::Packet(packet, _) => Some(Encoded::Packet(packet)),
                    Decoded::Publish(publish, payload, _) => {
                        Some(Encoded::Publish(publish, Some(payload)))
                    }
                    Decoded::PayloadChunk(..) => None,
                })
                .collect();
            let mut pages = ntex_bytes::BytePages::default();
            clock.region(|| {
                for packet in packets {
                    let _ = codec.encodev(packet, &mut pages);
                }
            });
            count(&pages.freeze())
        }
    };
}

ntex!(v3, ntex_4_decode, ntex_4_feed, ntex_4_encode);
ntex!(v5, ntex_5_decode, ntex_5_feed, ntex_5_encode);
