//! CONNACK: the server's answer to CONNECT.

use bytes::{BufMut, Bytes};

use super::checked::Checked;
use crate::error::{DecodeError, EncodeError, Malformed, ProtocolError};
use crate::property::Measured;
use crate::wire::{Reader, ensure_room, put_fixed_header, varint_from};
use crate::{PacketType, Properties, PropertyScope, ProtocolVersion, ReasonCode};

/// A CONNACK packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the fields of the packet")]
pub struct ConnackRef<'a> {
    /// Whether the server goes on with a session that it had. MQTT 3.1 cannot say: `false`.
    pub session_present: bool,
    /// Outcome. See [`ReasonCode`] for how the return codes of older versions are mapped.
    pub reason_code: ReasonCode,
    /// MQTT 5 only.
    pub properties: Properties<'a>,
}

impl<'a> ConnackRef<'a> {
    /// A new session or a refusal, without properties.
    pub const fn new(reason_code: ReasonCode) -> Self {
        Self {
            session_present: false,
            reason_code,
            properties: Properties::EMPTY,
        }
    }

    pub(super) fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let flags = match (version, reader.u8()?) {
            // MQTT 3.1 does not use this byte.
            (ProtocolVersion::V31, _) => 0,
            //= MQTT-3.2.2-1
            (_, 2..) => return Err(Malformed::ConnackFlags.into()),
            (_, flags) => flags,
        };
        let session_present = flags == 1;
        let reason_code = ReasonCode::from_wire(reader.u8()?, PacketType::Connack, version)
            .ok_or(Malformed::ReasonCode)?;
        //= MQTT-3.2.2-6
        //= v3.1.1 MQTT-3.2.2-4
        if session_present && reason_code != ReasonCode::Success {
            return Err(ProtocolError::SessionPresentOnRefusal.into());
        }
        let properties = Properties::decode(&mut reader, PropertyScope::Connack, version)?;
        reader.finish()?;
        Ok(Self {
            session_present,
            reason_code,
            properties,
        })
    }

    fn measure(&self, version: ProtocolVersion) -> Result<(u32, u8, Measured), EncodeError> {
        let Some(code) = self.reason_code.to_wire(PacketType::Connack, version) else {
            return Err(EncodeError::ReasonCode(self.reason_code));
        };
        if self.session_present && self.reason_code != ReasonCode::Success {
            return Err(EncodeError::SessionPresentOnRefusal);
        }
        if self.session_present && version == ProtocolVersion::V31 {
            return Err(EncodeError::SessionPresentBeforeV311);
        }
        let properties = self.properties.measure(PropertyScope::Connack, version)?;
        Ok((
            varint_from(2 + properties.total as usize)?,
            code,
            properties,
        ))
    }

    pub(super) fn remaining_len(&self, version: ProtocolVersion) -> Result<u32, EncodeError> {
        self.measure(version).map(|(remaining, ..)| remaining)
    }

    pub(super) fn encode(
        &self,
        version: ProtocolVersion,
        dst: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        let (remaining, code, properties) = self.measure(version)?;
        ensure_room(dst, remaining, 0)?;
        put_fixed_header(dst, PacketType::Connack.first_byte(), remaining);
        dst.put_slice(&[u8::from(self.session_present), code]);
        self.properties.put(properties, dst);
        Ok(())
    }
}

/// A CONNACK packet with a shared handle on its frame.
#[derive(Clone)]
pub struct Connack(Checked);

impl Connack {
    #[inline(always)]
    pub(super) const fn from_checked(checked: Checked) -> Self {
        Self(checked)
    }

    /// The view.
    pub fn as_ref(&self) -> ConnackRef<'_> {
        ConnackRef::decode(self.0.body(), self.0.version())
            .unwrap_or(ConnackRef::new(ReasonCode::UnspecifiedError))
    }

    /// The whole packet.
    pub const fn frame(&self) -> &Bytes {
        self.0.frame()
    }
}
