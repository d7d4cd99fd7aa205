//! AUTH: a step of an extended authentication (MQTT 5).

use bytes::{BufMut, Bytes};

use super::checked::Checked;
use crate::error::{DecodeError, EncodeError, Malformed, ProtocolError};
use crate::property::Measured;
use crate::wire::{Reader, ensure_room, put_fixed_header, varint_from};
use crate::{PacketType, Properties, PropertyScope, ProtocolVersion, ReasonCode};

/// An AUTH packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the fields of the packet")]
pub struct AuthRef<'a> {
    /// [`Success`](ReasonCode::Success), [`ContinueAuthentication`](ReasonCode::ContinueAuthentication) or
    /// [`ReAuthenticate`](ReasonCode::ReAuthenticate).
    pub reason_code: ReasonCode,
    /// With the Authentication Method, unless the packet says nothing but success.
    pub properties: Properties<'a>,
}

impl<'a> AuthRef<'a> {
    /// Success, and nothing else.
    const SHORT: AuthRef<'static> = AuthRef {
        reason_code: ReasonCode::Success,
        properties: Properties::EMPTY,
    };

    pub(super) fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut packet = Self::SHORT;
        if reader.is_empty() {
            return Ok(packet);
        }
        packet.reason_code = ReasonCode::from_wire(reader.u8()?, PacketType::Auth, version)
            .ok_or(Malformed::ReasonCode)?;
        if !reader.is_empty() {
            packet.properties = Properties::decode(&mut reader, PropertyScope::Auth, version)?;
        }
        reader.finish()?;
        if packet.lacks_method() {
            return Err(ProtocolError::AuthenticationMethodMissing.into());
        }
        Ok(packet)
    }

    /// Only the packet without content may leave out the method.
    fn lacks_method(&self) -> bool {
        let is_short = self.reason_code == ReasonCode::Success && self.properties.is_empty();
        !is_short && self.properties.authentication_method().is_none()
    }

    fn measure(&self, version: ProtocolVersion) -> Result<(u32, Measured), EncodeError> {
        if version != ProtocolVersion::V5 {
            return Err(EncodeError::NotInThisVersion);
        }
        if !self.reason_code.is_valid_for(PacketType::Auth) {
            return Err(EncodeError::ReasonCode(self.reason_code));
        }
        let properties = self.properties.measure(PropertyScope::Auth, version)?;
        if self.lacks_method() {
            return Err(EncodeError::AuthenticationMethodMissing);
        }
        let remaining = if properties.is_empty() {
            0
        } else {
            varint_from(1 + properties.total as usize)?
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
        put_fixed_header(dst, PacketType::Auth.first_byte(), remaining);
        if remaining > 0 {
            dst.put_u8(self.reason_code as u8);
            self.properties.put(properties, dst);
        }
        Ok(())
    }
}

/// An AUTH packet with a shared handle on its frame.
#[derive(Clone)]
pub struct Auth(Checked);

impl Auth {
    #[inline(always)]
    pub(super) const fn from_checked(checked: Checked) -> Self {
        Self(checked)
    }

    /// The view.
    pub fn as_ref(&self) -> AuthRef<'_> {
        AuthRef::decode(self.0.body(), self.0.version()).unwrap_or(AuthRef::SHORT)
    }

    /// The whole packet.
    pub const fn frame(&self) -> &Bytes {
        self.0.frame()
    }
}
