//! DISCONNECT: the last packet of a connection.

use bytes::{BufMut, Bytes};

use super::checked::Checked;
use crate::error::{DecodeError, EncodeError, Malformed};
use crate::property::Measured;
use crate::wire::{Reader, ensure_room, put_fixed_header, varint_from};
use crate::{PacketType, Properties, PropertyScope, ProtocolVersion, ReasonCode};

/// A DISCONNECT packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the fields of the packet")]
pub struct DisconnectRef<'a> {
    /// Always [`ReasonCode::Success`] (normal disconnection) before MQTT 5.
    pub reason_code: ReasonCode,
    /// MQTT 5 only.
    pub properties: Properties<'a>,
}

impl<'a> DisconnectRef<'a> {
    /// This reason, without properties.
    pub const fn new(reason_code: ReasonCode) -> Self {
        Self {
            reason_code,
            properties: Properties::EMPTY,
        }
    }

    pub(super) fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut packet = Self::new(ReasonCode::Success);
        if reader.is_empty() {
            return Ok(packet);
        }
        if version != ProtocolVersion::V5 {
            return Err(Malformed::TrailingBytes.into());
        }
        packet.reason_code = ReasonCode::from_wire(reader.u8()?, PacketType::Disconnect, version)
            .ok_or(Malformed::ReasonCode)?;
        if !reader.is_empty() {
            packet.properties =
                Properties::decode(&mut reader, PropertyScope::Disconnect, version)?;
        }
        reader.finish()?;
        Ok(packet)
    }

    fn measure(&self, version: ProtocolVersion) -> Result<(u32, Measured), EncodeError> {
        let properties = self
            .properties
            .measure(PropertyScope::Disconnect, version)?;
        let allowed = match version {
            ProtocolVersion::V5 => self.reason_code.is_valid_for(PacketType::Disconnect),
            _ => self.reason_code == ReasonCode::Success,
        };
        if !allowed {
            return Err(EncodeError::ReasonCode(self.reason_code));
        }
        let remaining = match (properties.is_empty(), self.reason_code) {
            (true, ReasonCode::Success) => 0,
            (true, _) => 1,
            (false, _) => varint_from(1 + properties.total as usize)?,
        };
        Ok((remaining, properties))
    }

    pub(super) fn remaining_len(&self, version: ProtocolVersion) -> Result<u32, EncodeError> {
        self.measure(version).map(|(remaining, _)| remaining)
    }

    pub(super) fn encode(
        &self,
        version: ProtocolVersion,
        dst: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        let (remaining, properties) = self.measure(version)?;
        ensure_room(dst, remaining, 0)?;
        put_fixed_header(dst, PacketType::Disconnect.first_byte(), remaining);
        if remaining > 0 {
            dst.put_u8(self.reason_code as u8);
        }
        if remaining > 1 {
            self.properties.put(properties, dst);
        }
        Ok(())
    }
}

/// A DISCONNECT packet with a shared handle on its frame.
#[derive(Clone)]
pub struct Disconnect(Checked);

impl Disconnect {
    #[inline(always)]
    pub(super) const fn from_checked(checked: Checked) -> Self {
        Self(checked)
    }

    /// The view.
    pub fn as_ref(&self) -> DisconnectRef<'_> {
        DisconnectRef::decode(self.0.body(), self.0.version())
            .unwrap_or(DisconnectRef::new(ReasonCode::UnspecifiedError))
    }

    /// The whole packet.
    pub const fn frame(&self) -> &Bytes {
        self.0.frame()
    }
}
