//! The codec on the streams of `benches/peers`: packets and bytes a second. The peers' figures, and
//! instruction counts, are those of `cargo xtask bench --peers`.

// The same bytes as beside the peers.
#[path = "../peers/src/stream.rs"]
#[allow(unreachable_pub, reason = "a file of another crate")]
mod stream;

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mqtt_codec::{Decoder, Packet, PacketRef, ProtocolVersion};

use stream::{Stream, Version};

/// Above the largest packet of the streams.
const MAX_PACKET_SIZE: u32 = 256 * 1024;

fn version(version: Version) -> ProtocolVersion {
    match version {
        Version::V4 => ProtocolVersion::V311,
        Version::V5 => ProtocolVersion::V5,
    }
}

fn decoder(version: ProtocolVersion) -> Decoder {
    Decoder::new(version).with_max_packet_size(MAX_PACKET_SIZE)
}

fn throughput(stream: &Stream) -> Throughput {
    Throughput::ElementsAndBytes {
        elements: stream.packets as u64,
        bytes: stream.bytes.len() as u64,
    }
}

fn borrowed(version: ProtocolVersion, mut left: &[u8]) -> usize {
    let mut decoder = decoder(version);
    let mut packets = 0;
    while let Some((packet, len)) = decoder.decode_ref(left).expect("valid packets") {
        black_box(&packet);
        left = left.get(len..).unwrap_or_default();
        packets += 1;
    }
    packets
}

fn owned(version: ProtocolVersion, buf: &mut BytesMut) -> usize {
    let mut decoder = decoder(version);
    let mut packets = 0;
    while let Some(packet) = decoder.decode(buf).expect("valid packets") {
        black_box(&packet);
        packets += 1;
    }
    packets
}

fn in_pieces(version: ProtocolVersion, buf: &mut BytesMut, stream: &[u8], piece: usize) -> usize {
    let mut decoder = decoder(version);
    let mut packets = 0;
    for piece in stream.chunks(piece) {
        buf.extend_from_slice(piece);
        while let Some(packet) = decoder.decode(buf).expect("valid packets") {
            black_box(&packet);
            packets += 1;
        }
    }
    packets
}

fn decode(criterion: &mut Criterion) {
    for kind in Version::ALL {
        let version = version(kind);
        let mut group = criterion.benchmark_group(format!("decode/{}", kind.name()));
        for stream in stream::all(kind) {
            assert_eq!(borrowed(version, &stream.bytes), stream.packets);
            assert_eq!(
                owned(version, &mut BytesMut::from(&stream.bytes[..])),
                stream.packets
            );
            group.throughput(throughput(&stream));
            group.bench_function(format!("{}/borrowed", stream.name), |bencher| {
                bencher.iter(|| borrowed(version, black_box(&stream.bytes)));
            });
            group.bench_function(format!("{}/owned", stream.name), |bencher| {
                bencher.iter_batched_ref(
                    || BytesMut::from(&stream.bytes[..]),
                    |buf| owned(version, buf),
                    BatchSize::LargeInput,
                );
            });
            if stream.name != "9-mixed" {
                continue;
            }
            for piece in [1500, 7, 1] {
                let mut buf = BytesMut::with_capacity(64 * 1024);
                assert_eq!(
                    in_pieces(version, &mut buf, &stream.bytes, piece),
                    stream.packets
                );
                group.bench_function(format!("{}/owned in {piece}", stream.name), |bencher| {
                    bencher.iter(|| in_pieces(version, &mut buf, black_box(&stream.bytes), piece));
                });
            }
        }
        group.finish();
    }
}

fn encode(criterion: &mut Criterion) {
    for kind in Version::ALL {
        let version = version(kind);
        let mut group = criterion.benchmark_group(format!("encode/{}", kind.name()));
        for stream in stream::all(kind) {
            let mut decoder = decoder(version);
            let mut chunk = Bytes::copy_from_slice(&stream.bytes);
            let packets: Vec<Packet> =
                std::iter::from_fn(|| decoder.decode_bytes(&mut chunk).expect("valid packets"))
                    .collect();
            let views: Vec<PacketRef<'_>> = packets.iter().map(Packet::as_ref).collect();
            let mut buf = BytesMut::with_capacity(stream.bytes.len());
            let write = |buf: &mut BytesMut| {
                buf.clear();
                for view in &views {
                    view.encode(version, buf)
                        .expect("packets that were decoded");
                }
            };
            write(&mut buf);
            assert_eq!(buf, stream.bytes);
            group.throughput(throughput(&stream));
            group.bench_function(format!("{}/contiguous", stream.name), |bencher| {
                bencher.iter(|| write(black_box(&mut buf)));
            });

            // Header and payload apart, as for a vectored write.
            let mut written = Vec::with_capacity(2 * packets.len());
            let mut hand_on = |buf: &mut BytesMut| {
                buf.clear();
                written.clear();
                for (view, packet) in views.iter().zip(&packets) {
                    if let (PacketRef::Publish(view), Packet::Publish(packet)) = (view, packet) {
                        let start = buf.len();
                        view.encode_header(version, buf)
                            .expect("packets that were decoded");
                        written.push((start..buf.len(), packet.payload_bytes()));
                    }
                }
                written.len()
            };
            if hand_on(&mut buf) == packets.len() {
                group.bench_function(format!("{}/payload by handle", stream.name), |bencher| {
                    bencher.iter(|| hand_on(black_box(&mut buf)));
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, decode, encode);
criterion_main!(benches);
