//! Frames by hand (RFC 6455 section 5.2), independent of the library under test and of tungstenite.

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A server's frame: unmasked, whole.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    raw(0x80 | opcode, payload)
}

/// A server's frame with the first byte as given.
pub fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..126 => out.push(u8::try_from(len).unwrap()),
        len @ 126..65_536 => {
            out.push(126);
            out.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

pub fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    pub is_final: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Received {
    pub fn close_code(&self) -> u16 {
        assert_eq!(self.opcode, CLOSE);
        u16::from_be_bytes([self.payload[0], self.payload[1]])
    }
}

/// Takes a client's frame off the buffer, if it is whole. Insists on the mask.
pub fn take(buffer: &mut BytesMut) -> Option<Received> {
    let first = *buffer.first()?;
    let second = *buffer.get(1)?;
    assert_eq!(first & 0x70, 0, "reserved bits");
    assert_eq!(second & 0x80, 0x80, "a client masks");
    let (len, at) = match second & 0x7f {
        126 => (
            u64::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().unwrap())),
            4,
        ),
        127 => (
            u64::from_be_bytes(buffer.get(2..10)?.try_into().unwrap()),
            10,
        ),
        len => (u64::from(len), 2),
    };
    let len = usize::try_from(len).unwrap();
    let mask: [u8; 4] = buffer.get(at..at + 4)?.try_into().unwrap();
    let payload: Vec<u8> = buffer
        .get(at + 4..at + 4 + len)?
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    buffer.advance(at + 4 + len);
    Some(Received {
        is_final: first & 0x80 != 0,
        opcode: first & 0x0f,
        payload,
    })
}

/// The next frame of a client; `None` at its end.
pub async fn next(io: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Option<Received> {
    loop {
        if let Some(frame) = take(buffer) {
            return Some(frame);
        }
        if io.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}
