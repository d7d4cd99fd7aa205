//! The data types that packets are made of.

use bytes::BufMut;

use crate::error::{EncodeError, Malformed};
use crate::{PacketId, Text, TopicName};

/// The largest variable byte integer.
pub(crate) const VARINT_MAX: u32 = 268_435_455;

/// Takes fields off the front of a packet or of one of its blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline]
    pub(crate) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Malformed::Overrun)?;
        self.rest = rest;
        Ok(*array)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed::Overrun)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Two bytes of length, and that many bytes.
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    #[inline]
    pub(crate) fn text(&mut self) -> Result<Text<'a>, Malformed> {
        Text::decode(self.binary()?)
    }

    #[inline]
    pub(crate) fn topic_name(&mut self) -> Result<TopicName<'a>, Malformed> {
        TopicName::decode(self.binary()?)
    }

    //= MQTT-2.2.1-3
    //= MQTT-2.2.1-4
    //= v3.1.1 MQTT-2.3.1-1
    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, Malformed> {
        PacketId::new(self.u16()?).ok_or(Malformed::PacketIdentifierZero)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32, Malformed> {
        // Most are below 128.
        if let Some((&first, rest)) = self.rest.split_first()
            && first < 0x80
        {
            self.rest = rest;
            return Ok(u32::from(first));
        }
        let (value, len) = read_varint(self.rest)?.ok_or(Malformed::Overrun)?;
        self.take(len)?;
        Ok(value)
    }

    /// A block whose length stands before it as a variable byte integer.
    #[inline]
    pub(crate) fn block(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.varint()?;
        self.take(usize::try_from(len).map_err(|_| Malformed::Overrun)?)
    }

    /// Nothing may follow.
    #[inline]
    pub(crate) const fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed::TrailingBytes)
        }
    }
}

/// The variable byte integer at the front of `bytes` and its length; `None` if it goes on behind them.
//= MQTT-1.5.5-1
pub(crate) fn read_varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            if byte == 0 && at > 0 {
                return Err(Malformed::VariableByteIntegerNotMinimal);
            }
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err(Malformed::VariableByteIntegerTooLong);
    }
    Ok(None)
}

/// Bytes that `value` takes as a variable byte integer.
#[inline]
pub(crate) const fn varint_len(value: u32) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Checks that a length fits into a variable byte integer.
#[inline]
pub(crate) fn varint_from(len: usize) -> Result<u32, EncodeError> {
    match u32::try_from(len) {
        Ok(len) if len <= VARINT_MAX => Ok(len),
        _ => Err(EncodeError::PacketTooLong),
    }
}

//= MQTT-1.5.5-1
#[inline]
pub(crate) fn put_varint(dst: &mut impl BufMut, value: u32) {
    if value < 0x80 {
        dst.put_u8(value as u8);
        return;
    }
    let (bytes, len) = varint_bytes(value);
    dst.put_slice(bytes.get(..len).unwrap_or_default());
}

fn varint_bytes(mut value: u32) -> ([u8; 4], usize) {
    let mut bytes = [0; 4];
    let mut len = 0;
    for byte in &mut bytes {
        *byte = (value & 0x7f) as u8;
        value >>= 7;
        len += 1;
        if value == 0 {
            break;
        }
        *byte |= 0x80;
    }
    (bytes, len)
}

/// Two bytes of length, and the bytes. Callers have checked the length.
#[inline]
pub(crate) fn put_binary(dst: &mut impl BufMut, bytes: &[u8]) {
    dst.put_u16(bytes.len() as u16);
    dst.put_slice(bytes);
}

/// What [`put_binary`] writes for `bytes`.
#[inline]
pub(crate) fn binary_len(bytes: &[u8]) -> Result<usize, EncodeError> {
    if bytes.len() > usize::from(u16::MAX) {
        return Err(EncodeError::BinaryTooLong);
    }
    Ok(2 + bytes.len())
}

/// What [`put_binary`] writes for `text`, whose length was checked when it was made.
#[inline]
pub(crate) fn text_len(text: impl AsRef<[u8]>) -> usize {
    2 + text.as_ref().len()
}

/// First byte and Remaining Length.
#[inline]
pub(crate) fn put_fixed_header(dst: &mut impl BufMut, first: u8, remaining: u32) {
    if remaining < 0x80 {
        dst.put_slice(&[first, remaining as u8]);
        return;
    }
    dst.put_u8(first);
    put_varint(dst, remaining);
}

/// Length of a packet with this Remaining Length; refuses what the buffer has no room for.
#[inline]
pub(crate) fn ensure_room(
    dst: &impl BufMut,
    remaining: u32,
    written_apart: usize,
) -> Result<(), EncodeError> {
    let len = packet_len(remaining) - written_apart;
    if dst.remaining_mut() < len {
        Err(EncodeError::BufferFull)
    } else {
        Ok(())
    }
}

/// Length of a packet with this Remaining Length.
#[inline]
pub(crate) const fn packet_len(remaining: u32) -> usize {
    1 + varint_len(remaining) + remaining as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    //= test MQTT-1.5.5-1
    #[test]
    fn variable_byte_integers() {
        // Table 1-1 of MQTT 5 (2.4 of 3.1.1): the ends of each length.
        let ends: [(u32, &[u8]); 8] = [
            (0, &[0x00]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xff, 0xff, 0x7f]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (268_435_455, &[0xff, 0xff, 0xff, 0x7f]),
        ];
        for (value, bytes) in ends {
            assert_eq!(read_varint(bytes), Ok(Some((value, bytes.len()))));
            assert_eq!(Reader::new(bytes).varint(), Ok(value));
            assert_eq!(varint_len(value), bytes.len());
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes);
            for end in 0..bytes.len() {
                assert_eq!(read_varint(&bytes[..end]), Ok(None));
                assert_eq!(Reader::new(&bytes[..end]).varint(), Err(Malformed::Overrun));
            }
        }
    }

    //= test MQTT-1.5.5-1
    #[test]
    fn variable_byte_integers_in_too_many_bytes() {
        for bytes in [
            &[0x80, 0x00][..],
            &[0xff, 0x00],
            &[0x80, 0x80, 0x00],
            &[0xff, 0xff, 0xff, 0x00],
        ] {
            assert_eq!(
                read_varint(bytes),
                Err(Malformed::VariableByteIntegerNotMinimal)
            );
        }
        for bytes in [
            &[0x80, 0x80, 0x80, 0x80][..],
            &[0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x80, 0x80, 0x80, 0x80, 0x01],
        ] {
            assert_eq!(
                read_varint(bytes),
                Err(Malformed::VariableByteIntegerTooLong)
            );
        }
    }
}
