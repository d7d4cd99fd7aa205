//! The fixed header: packet type, flags, Remaining Length.

use crate::error::{DecodeError, Malformed, ProtocolError};
use crate::wire::read_varint;
use crate::{PacketType, ProtocolVersion};

/// Where a packet's variable header begins and where the packet ends, counted from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameLen {
    pub(crate) header: u8,
    pub(crate) frame: u32,
}

impl FrameLen {
    /// Reads the fixed header at the front of `bytes`; `None` if it is not complete.
    ///
    /// What can be refused is refused at once: a reserved packet type or flag with the first byte, a packet above
    /// `max` bytes with the last byte of its Remaining Length.
    pub(crate) fn read(
        bytes: &[u8],
        max: u32,
        version: ProtocolVersion,
    ) -> Result<Option<Self>, DecodeError> {
        let Some((&first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        check_first_byte(first, version)?;
        let Some((remaining, len)) = read_varint(rest)? else {
            return Ok(None);
        };
        let header = 1 + len as u8;
        let frame = u32::from(header) + remaining;
        if frame > max {
            return Err(ProtocolError::PacketTooLarge.into());
        }
        Ok(Some(Self { header, frame }))
    }
}

/// A whole packet in memory.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) first: u8,
    /// Length of the fixed header.
    pub(crate) header: u8,
    /// What follows it.
    pub(crate) body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The packet at the front of `buf` if it is whole and its Remaining Length takes one byte or two, which is nearly
    /// always; nothing but that is checked.
    #[inline(always)]
    pub(crate) fn short(buf: &'a [u8]) -> Option<Self> {
        match *buf {
            [first, remaining @ 0..0x80, ref rest @ ..] => Some(Self {
                first,
                header: 2,
                body: rest.get(..usize::from(remaining))?,
            }),
            [first, low, high @ 1..0x80, ref rest @ ..] => Some(Self {
                first,
                header: 3,
                body: rest.get(..usize::from(low & 0x7f) | usize::from(high) << 7)?,
            }),
            _ => None,
        }
    }

    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.header as usize + self.body.len()
    }

    #[inline]
    pub(crate) const fn is_publish(&self) -> bool {
        self.first >> 4 == PacketType::Publish as u8
    }
}

/// Reads the fixed header of `frame`, which holds one packet and nothing else.
pub(crate) fn split(frame: &[u8]) -> Result<Frame<'_>, DecodeError> {
    let (&first, rest) = frame.split_first().ok_or(Malformed::Overrun)?;
    let (remaining, len) = read_varint(rest)?.ok_or(Malformed::Overrun)?;
    let body = rest.get(len..).unwrap_or_default();
    match body.len().cmp(&(remaining as usize)) {
        core::cmp::Ordering::Less => Err(Malformed::Overrun.into()),
        core::cmp::Ordering::Equal => Ok(Frame {
            first,
            header: 1 + len as u8,
            body,
        }),
        core::cmp::Ordering::Greater => Err(Malformed::TrailingBytes.into()),
    }
}

/// Checks what the first byte alone shows.
pub(crate) fn check_first_byte(first: u8, version: ProtocolVersion) -> Result<(), DecodeError> {
    match PacketType::from_u8(first >> 4) {
        None => Err(Malformed::PacketType.into()),
        Some(PacketType::Auth) if version != ProtocolVersion::V5 => {
            Err(Malformed::PacketType.into())
        }
        Some(PacketType::Publish) => {
            //= MQTT-3.3.1-4
            //= v3.1.1 MQTT-3.3.1-4
            if first & 0b0110 == 0b0110 {
                return Err(Malformed::QoS.into());
            }
            Ok(())
        }
        Some(other) if other.accepts_flags(first & 0x0f, version) => Ok(()),
        Some(_) => Err(Malformed::FixedHeaderFlags.into()),
    }
}
