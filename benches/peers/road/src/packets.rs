//! The bytes that the broker sends and that the bare client writes, made by hand.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::work::FILTER;

/// A PUBLISH of MQTT 3.1.1; with an identifier it is at QoS 1.
pub fn publish(topic: &str, id: Option<u16>, payload: &[u8]) -> Bytes {
    let mut body = BytesMut::new();
    string(&mut body, topic);
    if let Some(id) = id {
        body.put_u16(id);
    }
    body.put_slice(payload);
    packet(if id.is_some() { 0x32 } else { 0x30 }, &body)
}

/// The same at QoS 2.
pub fn publish_exactly_once(topic: &str, id: u16, payload: &[u8]) -> Bytes {
    let mut body = BytesMut::new();
    string(&mut body, topic);
    body.put_u16(id);
    body.put_slice(payload);
    packet(0x34, &body)
}

pub fn puback(id: u16) -> Bytes {
    packet(0x40, &id.to_be_bytes())
}

pub fn pubrel(id: u16) -> Bytes {
    packet(0x62, &id.to_be_bytes())
}

pub fn connect(client_id: &str) -> Bytes {
    let mut body = BytesMut::new();
    string(&mut body, "MQTT");
    body.put_slice(&[4, 2, 0, 60]);
    string(&mut body, client_id);
    packet(0x10, &body)
}

pub fn subscribe(qos: u8) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u16(1);
    string(&mut body, FILTER);
    body.put_u8(qos);
    packet(0x82, &body)
}

pub fn disconnect() -> Bytes {
    Bytes::from_static(&[0xe0, 0])
}

/// Copies of a packet, one after another, cut into frames of so many bytes; at least as many of them
/// as asked for, so that the last frame is full. Returns how many.
pub fn cut(packet: &[u8], at_least: usize, frame: usize) -> (usize, Vec<Bytes>) {
    let packets = frame / gcd(packet.len(), frame);
    let block = Bytes::from(packet.repeat(packets));
    let frames: Vec<Bytes> = (0..block.len())
        .step_by(frame)
        .map(|at| block.slice(at..at + frame))
        .collect();
    let repeats = at_least.div_ceil(packets);
    let all = frames.iter().cycle().take(frames.len() * repeats);
    (packets * repeats, all.cloned().collect())
}

fn packet(first: u8, body: &[u8]) -> Bytes {
    let mut packet = BytesMut::with_capacity(body.len() + 5);
    packet.put_u8(first);
    let mut left = body.len();
    loop {
        let low = u8::try_from(left % 128).expect("below 128");
        left /= 128;
        packet.put_u8(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    packet.put_slice(body);
    packet.freeze()
}

fn string(into: &mut BytesMut, text: &str) {
    into.put_u16(u16::try_from(text.len()).expect("a short text"));
    into.put_slice(text.as_bytes());
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
