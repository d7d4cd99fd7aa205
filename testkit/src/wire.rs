//! The outermost layer of MQTT: where one control packet ends and the next begins.

use bytes::{Bytes, BytesMut};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// The largest packet that is taken apart here, from either side: far more than any test sends
/// through a peer or the gateway, far less than memory.
pub(crate) const MAX_PACKET_SIZE: usize = 4 * 1024 * 1024;

/// Limits for a WebSocket that carries such packets; one message may hold several.
pub(crate) fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .max_message_size(Some(MAX_PACKET_SIZE))
        .max_frame_size(Some(MAX_PACKET_SIZE))
}

/// The length field has a fifth byte, or announces more than [`MAX_PACKET_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadLength;

/// Takes the first control packet, fixed header included, off a buffer; `None` when it is not all
/// there yet.
pub(crate) fn split_packet(buffer: &mut BytesMut) -> Result<Option<Bytes>, BadLength> {
    let mut remaining = 0_usize;
    for (index, &byte) in buffer.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let total = 2 + index + remaining;
            if total > MAX_PACKET_SIZE {
                return Err(BadLength);
            }
            return Ok((buffer.len() >= total).then(|| buffer.split_to(total).freeze()));
        }
        if index == 3 {
            return Err(BadLength);
        }
    }
    Ok(None)
}

/// A control packet from its first byte and what follows the length.
pub(crate) fn packet(first: u8, body: &[u8]) -> Bytes {
    let mut packet = vec![first];
    let mut rest = body.len();
    loop {
        let digit = (rest & 0x7f) as u8;
        rest >>= 7;
        packet.push(if rest > 0 { digit | 0x80 } else { digit });
        if rest == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet.into()
}

/// A length of two bytes and then the text.
pub(crate) fn put_text(body: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).expect("a text of MQTT has at most 65,535 bytes");
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_taken_when_its_last_byte_is_there() {
        let whole = packet(0x30, &[7; 200]);
        assert_eq!(whole[..3], [0x30, 0xc8, 0x01]);
        for cut in 0..whole.len() {
            let mut buffer = BytesMut::from(&whole[..cut]);
            assert_eq!(split_packet(&mut buffer), Ok(None), "cut at {cut}");
        }
        let mut buffer = BytesMut::from(&whole[..]);
        buffer.extend_from_slice(&[0xc0, 0]);
        assert_eq!(split_packet(&mut buffer), Ok(Some(whole)));
        assert_eq!(
            split_packet(&mut buffer),
            Ok(Some(Bytes::from_static(&[0xc0, 0])))
        );
        assert_eq!(split_packet(&mut buffer), Ok(None));
    }

    #[test]
    fn the_length_is_bounded() {
        let mut five = BytesMut::from(&[0x30, 0x80, 0x80, 0x80, 0x80, 0x01][..]);
        assert_eq!(split_packet(&mut five), Err(BadLength));
        // 4 MiB and one byte in all.
        let mut large = BytesMut::from(&[0x30, 0xfc, 0xff, 0xff, 0x01][..]);
        assert_eq!(split_packet(&mut large), Err(BadLength));
        // 4 MiB exactly.
        let mut largest = BytesMut::from(&[0x30, 0xfb, 0xff, 0xff, 0x01][..]);
        assert_eq!(split_packet(&mut largest), Ok(None));
    }
}
