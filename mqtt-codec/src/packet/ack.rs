//! PUBACK, PUBREC, PUBREL and PUBCOMP: the acknowledgements of QoS 1 and 2. They have one form.

use bytes::{BufMut, Bytes};

use crate::error::{DecodeError, EncodeError, Malformed};
use crate::property::Measured;
use crate::reason::byte_is_valid_for;
use crate::wire::{Reader, ensure_room, put_fixed_header, varint_from};
use crate::{PacketId, PacketType, Properties, PropertyScope, ProtocolVersion, ReasonCode};

/// A PUBACK, PUBREC, PUBREL or PUBCOMP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the fields of the packet")]
pub struct AckRef<'a> {
    /// Of the PUBLISH that this belongs to.
    pub packet_id: PacketId,
    /// Always [`ReasonCode::Success`] before MQTT 5.
    pub reason_code: ReasonCode,
    /// MQTT 5 only.
    pub properties: Properties<'a>,
}

impl<'a> AckRef<'a> {
    /// Success, without properties.
    pub const fn new(packet_id: PacketId) -> Self {
        Self {
            packet_id,
            reason_code: ReasonCode::Success,
            properties: Properties::EMPTY,
        }
    }

    #[inline]
    pub(crate) fn decode(
        body: &'a [u8],
        packet: PacketType,
        scope: PropertyScope,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let mut ack = Self::new(packet_id);
        if !reader.is_empty() {
            ack.decode_long(reader, packet, scope, version)?;
        }
        Ok(ack)
    }

    /// MQTT 5: a reason code and perhaps properties follow.
    fn decode_long(
        &mut self,
        mut reader: Reader<'a>,
        packet: PacketType,
        scope: PropertyScope,
        version: ProtocolVersion,
    ) -> Result<(), DecodeError> {
        if version != ProtocolVersion::V5 {
            return Err(Malformed::TrailingBytes.into());
        }
        let code = reader.u8()?;
        self.reason_code =
            ReasonCode::from_wire(code, packet, version).ok_or(Malformed::ReasonCode)?;
        if !reader.is_empty() {
            self.properties = Properties::decode(&mut reader, scope, version)?;
        }
        Ok(reader.finish()?)
    }

    #[inline]
    fn measure(
        &self,
        packet: PacketType,
        scope: PropertyScope,
        version: ProtocolVersion,
    ) -> Result<(u32, Measured), EncodeError> {
        let properties = self.properties.measure(scope, version)?;
        let allowed = match version {
            ProtocolVersion::V5 => byte_is_valid_for(self.reason_code as u8, packet),
            _ => self.reason_code == ReasonCode::Success,
        };
        if !allowed {
            return Err(EncodeError::ReasonCode(self.reason_code));
        }
        let remaining = match (properties.is_empty(), self.reason_code) {
            (true, ReasonCode::Success) => 2,
            (true, _) => 3,
            (false, _) => varint_from(3 + properties.total as usize)?,
        };
        Ok((remaining, properties))
    }

    pub(super) fn remaining_len(
        &self,
        packet: PacketType,
        scope: PropertyScope,
        version: ProtocolVersion,
    ) -> Result<u32, EncodeError> {
        self.measure(packet, scope, version)
            .map(|(remaining, _)| remaining)
    }

    /// Whether four bytes say it all, as those of nearly every acknowledgement do.
    #[inline(always)]
    pub(super) fn is_short(&self) -> bool {
        self.reason_code == ReasonCode::Success && self.properties.is_empty()
    }

    #[inline(always)]
    pub(super) const fn short_form(&self, packet: PacketType) -> [u8; 4] {
        let [high, low] = self.packet_id.value().to_be_bytes();
        [packet.first_byte(), 2, high, low]
    }

    /// In the shortest form: without properties if there are none, without the reason code if it is success.
    #[inline]
    pub(super) fn encode(
        &self,
        packet: PacketType,
        scope: PropertyScope,
        version: ProtocolVersion,
        dst: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        let (remaining, properties) = self.measure(packet, scope, version)?;
        ensure_room(dst, remaining, 0)?;
        if remaining == 2 {
            dst.put_slice(&self.short_form(packet));
            return Ok(());
        }
        put_fixed_header(dst, packet.first_byte(), remaining);
        let [high, low] = self.packet_id.value().to_be_bytes();
        dst.put_slice(&[high, low, self.reason_code as u8]);
        if remaining > 3 {
            self.properties.put(properties, dst);
        }
        Ok(())
    }
}

/// A PUBACK, PUBREC, PUBREL or PUBCOMP packet that owns what it holds: in the usual short form, a plain value.
#[derive(Clone)]
pub struct Ack {
    /// The properties, if there are any; checked.
    block: Option<Bytes>,
    /// From the lowest bit: Packet Identifier (16), reason code (8), scope of the properties (8). One word, so that all
    /// owned packets have one shape and are moved in whole words.
    form: u64,
}

impl Ack {
    /// Without the properties.
    #[inline(always)]
    pub(crate) const fn plain(packet: &AckRef<'_>) -> Self {
        Self {
            block: None,
            form: packet.packet_id.value() as u64 | (packet.reason_code as u64) << 16,
        }
    }

    /// With checked properties.
    pub(crate) const fn with_block(
        packet: &AckRef<'_>,
        scope: PropertyScope,
        block: Bytes,
    ) -> Self {
        Self {
            block: Some(block),
            form: packet.packet_id.value() as u64
                | (packet.reason_code as u64) << 16
                | (scope as u64) << 24,
        }
    }

    /// Of the PUBLISH that this belongs to.
    #[inline]
    pub const fn packet_id(&self) -> PacketId {
        match PacketId::new(self.form as u16) {
            Some(packet_id) => packet_id,
            // Unreachable, and better than a panic; below, too.
            None => PacketId::MIN,
        }
    }

    /// Always [`ReasonCode::Success`] before MQTT 5.
    #[inline]
    pub const fn reason_code(&self) -> ReasonCode {
        match ReasonCode::from_u8((self.form >> 16) as u8) {
            Some(reason_code) => reason_code,
            None => ReasonCode::Success,
        }
    }

    /// MQTT 5 only.
    pub fn properties(&self) -> Properties<'_> {
        match &self.block {
            Some(block) => Properties::from_checked(self.scope(), block),
            None => Properties::EMPTY,
        }
    }

    const fn scope(&self) -> PropertyScope {
        const PUBREC: u8 = PropertyScope::Pubrec as u8;
        const PUBREL: u8 = PropertyScope::Pubrel as u8;
        const PUBCOMP: u8 = PropertyScope::Pubcomp as u8;
        match (self.form >> 24) as u8 {
            PUBREC => PropertyScope::Pubrec,
            PUBREL => PropertyScope::Pubrel,
            PUBCOMP => PropertyScope::Pubcomp,
            _ => PropertyScope::Puback,
        }
    }

    /// The view.
    pub fn as_ref(&self) -> AckRef<'_> {
        AckRef {
            packet_id: self.packet_id(),
            reason_code: self.reason_code(),
            properties: self.properties(),
        }
    }
}
