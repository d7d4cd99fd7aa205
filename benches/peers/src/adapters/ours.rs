//! Our own: a view over the buffer, a packet that shares it (taken off a buffer, or off memory that is shared already, as
//! a WebSocket hands it over); writing to a buffer that grows, to a slice that is there, and a payload by its handle.

use std::hint::black_box;

use bytes::BytesMut;

use super::{MAX, collect, count, pieces, room, whole, write_all};
use crate::measure::Clock;

macro_rules! ours {
    ($version:ident, $ref:ident, $decode:ident, $chunk:ident, $feed:ident, $encode:ident, $slice:ident, $handle:ident) => {
        pub(super) fn $ref(stream: &[u8], clock: &mut Clock) -> usize {
            let mut decoder = our_decoder(mqtt_codec::ProtocolVersion::$version);
            clock.region(|| {
                let (mut packets, mut left) = (0, stream);
                while let Ok(Some((packet, length))) = decoder.decode_ref(left) {
                    black_box(&packet);
                    left = &left[length..];
                    packets += 1;
                }
                packets
            })
        }

        pub(super) fn $decode(stream: &[u8], clock: &mut Clock) -> usize {
            let mut decoder = our_decoder(mqtt_codec::ProtocolVersion::$version);
            whole(stream, clock, |buffer| {
                decoder.decode(buffer).ok().flatten()
            })
        }

        pub(super) fn $chunk(stream: &[u8], clock: &mut Clock) -> usize {
            let mut decoder = our_decoder(mqtt_codec::ProtocolVersion::$version);
            let mut chunk = BytesMut::from(stream).split().freeze();
            clock.region(|| {
                let mut packets = 0;
                while let Ok(Some(packet)) = decoder.decode_bytes(&mut chunk) {
                    black_box(&packet);
                    packets += 1;
                }
                packets
            })
        }

        pub(super) fn $feed(stream: &[u8], piece: usize, clock: &mut Clock) -> usize {
            let mut decoder = our_decoder(mqtt_codec::ProtocolVersion::$version);
            pieces(stream, piece, clock, |buffer| {
                decoder.decode(buffer).ok().flatten()
            })
        }

        pub(super) fn $encode(stream: &[u8], clock: &mut Clock) -> usize {
            let version = mqtt_codec::ProtocolVersion::$version;
            let mut decoder = our_decoder(version);
            let mut left = stream;
            let packets = std::iter::from_fn(|| {
                let (packet, length) = decoder.decode_ref(left).ok()??;
                left = &left[length..];
                Some(Some(packet))
            });
            write_all(stream, packets.collect(), clock, |packet, buffer| {
                let _ = packet
                    .as_ref()
                    .map(|packet| packet.encode_to(version, buffer));
            })
        }

        pub(super) fn $slice(stream: &[u8], clock: &mut Clock) -> usize {
            let version = mqtt_codec::ProtocolVersion::$version;
            let mut decoder = our_decoder(version);
            let mut left = stream;
            let packets: Vec<_> = std::iter::from_fn(|| {
                let (packet, length) = decoder.decode_ref(left).ok()??;
                left = &left[length..];
                Some(packet)
            })
            .collect();
            let mut buffer = vec![u8::MAX; stream.len() + 1024];
            let written = clock.region(|| {
                let mut at = 0;
                for packet in &packets {
                    at += packet
                        .encode_to_slice(version, &mut buffer[at..])
                        .unwrap_or(0);
                }
                at
            });
            count(&buffer[..written])
        }

        pub(super) fn $handle(stream: &[u8], clock: &mut Clock) -> usize {
            let version = mqtt_codec::ProtocolVersion::$version;
            let mut decoder = our_decoder(version);
            let packets = collect(stream, |buffer| decoder.decode(buffer).ok().flatten());
            let mut payloads: Vec<_> = packets.iter().flatten().map(payload).collect();
            let views: Vec<_> = packets
                .iter()
                .flatten()
                .map(mqtt_codec::Packet::as_ref)
                .collect();
            let mut buffer = room(stream);
            let mut written = Vec::with_capacity(2 * views.len());
            clock.region(|| {
                for (view, payload) in views.iter().zip(&mut payloads) {
                    match view {
                        mqtt_codec::PacketRef::Publish(publish) => {
                            let _ = publish.encode_header(version, &mut buffer);
                            written.push(buffer.split().freeze());
                            written.extend(payload.take());
                        }
                        other => {
                            let _ = other.encode_to(version, &mut buffer);
                            written.push(buffer.split().freeze());
                        }
                    }
                }
            });
            count(&written.concat())
        }
    };
}

ours!(
    V311,
    ours_4_ref,
    ours_4_decode,
    ours_4_chunk,
    ours_4_feed,
    ours_4_encode,
    ours_4_slice,
    ours_4_handle
);
ours!(
    V5,
    ours_5_ref,
    ours_5_decode,
    ours_5_chunk,
    ours_5_feed,
    ours_5_encode,
    ours_5_slice,
    ours_5_handle
);

fn our_decoder(version: mqtt_codec::ProtocolVersion) -> mqtt_codec::Decoder {
    mqtt_codec::Decoder::new(version).with_max_packet_size(u32::try_from(MAX).expect("32 bits"))
}

fn payload(packet: &mqtt_codec::Packet) -> Option<bytes::Bytes> {
    match packet {
        mqtt_codec::Packet::Publish(publish) => Some(publish.payload_bytes()),
        _ => None,
    }
}
