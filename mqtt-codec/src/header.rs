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
    #[inline]
    pub(crate) fn read(
        bytes: &[u8],
        max: u32,
        version: ProtocolVersion,
    ) -> Result<Option<Self>, DecodeError> {
        if let [_, remaining @ 0..0x80, ..] = *bytes {
            let frame = 2 + u32::from(remaining);
            if frame <= max {
                return Ok(Some(Self { header: 2, frame }));
            }
        }
        Self::read_slowly(bytes, max, version)
    }

    #[cold]
    fn read_slowly(
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

/// Splits a whole packet into its first byte and what follows its Remaining Length.
pub(crate) fn split(frame: &[u8]) -> Result<(u8, &[u8]), DecodeError> {
    let (&first, rest) = frame.split_first().ok_or(Malformed::Overrun)?;
    let (remaining, len) = read_varint(rest)?.ok_or(Malformed::Overrun)?;
    let body = rest.get(len..).unwrap_or_default();
    match body.len().cmp(&(remaining as usize)) {
        core::cmp::Ordering::Less => Err(Malformed::Overrun.into()),
        core::cmp::Ordering::Equal => Ok((first, body)),
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
