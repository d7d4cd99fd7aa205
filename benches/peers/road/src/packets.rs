//! The bytes that the broker sends and that the bare client writes, made by hand.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::child::{FILTER, TOPIC};

/// A PUBLISH of MQTT 3.1.1; with an identifier it is at QoS 1.
pub fn publish(id: Option<u16>, payload: usize) -> Bytes {
    let mut body = BytesMut::new();
    string(&mut body, TOPIC);
    if let Some(id) = id {
        body.put_u16(id);
    }
    body.put_bytes(b'x', payload);
    packet(if id.is_some() { 0x32 } else { 0x30 }, &body)
}

pub fn puback(id: u16) -> Bytes {
    packet(0x40, &id.to_be_bytes())
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

/// Messages at QoS 0, one after another, cut into frames of so many bytes; at least as many messages
/// as asked for, so that the last frame is full. Returns how many.
pub fn cut(payload: usize, at_least: usize, frame: usize) -> (usize, Vec<Bytes>) {
    let packet = publish(None, payload);
    let packets = frame / gcd(packet.len(), frame);
    let mut block = BytesMut::new();
    for _ in 0..packets {
        block.extend_from_slice(&packet);
    }
    let block = block.freeze();
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
