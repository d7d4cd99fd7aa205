//! SUBACK and UNSUBACK: the answers to SUBSCRIBE and UNSUBSCRIBE, one reason code a Topic Filter.

use core::fmt;

use bytes::{BufMut, Bytes};

use super::checked::Checked;
use crate::error::{DecodeError, EncodeError, Malformed, ProtocolError};
use crate::property::Measured;
use crate::reason::byte_is_valid_for;
use crate::wire::{Reader, ensure_room, put_fixed_header, varint_from};
use crate::{PacketId, PacketType, Properties, PropertyScope, ProtocolVersion, ReasonCode};

/// A SUBACK or UNSUBACK packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the fields of the packet")]
pub struct SubackRef<'a> {
    /// Of the SUBSCRIBE or UNSUBSCRIBE that this answers.
    pub packet_id: PacketId,
    /// MQTT 5 only.
    pub properties: Properties<'a>,
    /// At least one; but none in an UNSUBACK before MQTT 5.
    pub reason_codes: ReasonCodes<'a>,
}

impl<'a> SubackRef<'a> {
    /// These reason codes, without properties.
    pub const fn new(packet_id: PacketId, reason_codes: &'a [ReasonCode]) -> Self {
        Self {
            packet_id,
            properties: Properties::EMPTY,
            reason_codes: ReasonCodes::list(reason_codes),
        }
    }
}

impl SubackRef<'_> {
    #[inline]
    pub(super) fn decode(
        body: &[u8],
        packet: PacketType,
        scope: PropertyScope,
        version: ProtocolVersion,
    ) -> Result<SubackRef<'_>, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let properties = Properties::decode(&mut reader, scope, version)?;
        let reason_codes = ReasonCodes::decode(reader.rest(), packet, version)?;
        Ok(SubackRef {
            packet_id,
            properties,
            reason_codes,
        })
    }

    fn measure(
        &self,
        packet: PacketType,
        scope: PropertyScope,
        version: ProtocolVersion,
    ) -> Result<(u32, Measured), EncodeError> {
        let properties = self.properties.measure(scope, version)?;
        let codes = self.reason_codes.measure(packet, version)?;
        Ok((
            varint_from((2 + properties.total as usize).saturating_add(codes))?,
            properties,
        ))
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

    pub(super) fn encode(
        &self,
        packet: PacketType,
        scope: PropertyScope,
        version: ProtocolVersion,
        dst: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        let (remaining, properties) = self.measure(packet, scope, version)?;
        ensure_room(dst, remaining, 0)?;
        put_fixed_header(dst, packet.first_byte(), remaining);
        dst.put_u16(self.packet_id.value());
        self.properties.put(properties, dst);
        self.reason_codes.put(dst);
        Ok(())
    }
}

/// The reason codes of a SUBACK or UNSUBACK, in the order of the Topic Filters: a checked block, or a list to encode.
#[derive(Clone, Copy)]
pub struct ReasonCodes<'a>(Repr<'a>);

#[derive(Clone, Copy)]
enum Repr<'a> {
    /// All of them right in this packet and version.
    Block {
        bytes: &'a [u8],
        packet: PacketType,
        version: ProtocolVersion,
    },
    List(&'a [ReasonCode]),
}

impl<'a> ReasonCodes<'a> {
    /// None: for an UNSUBACK before MQTT 5.
    pub const EMPTY: ReasonCodes<'static> = ReasonCodes(Repr::List(&[]));

    /// Reason codes to encode.
    pub const fn list(list: &'a [ReasonCode]) -> Self {
        Self(Repr::List(list))
    }

    const fn from_checked(bytes: &'a [u8], packet: PacketType, version: ProtocolVersion) -> Self {
        Self(Repr::Block {
            bytes,
            packet,
            version,
        })
    }

    /// In order.
    pub fn iter(&self) -> ReasonCodesIter<'a> {
        ReasonCodesIter(match self.0 {
            Repr::Block { bytes, .. } => IterRepr::Block(bytes.iter()),
            Repr::List(list) => IterRepr::List(list.iter()),
        })
    }

    /// How many.
    pub const fn len(&self) -> usize {
        match self.0 {
            Repr::Block { bytes, .. } => bytes.len(),
            Repr::List(list) => list.len(),
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    //= MQTT-3.9.3-2
    //= MQTT-3.11.3-2
    //= v3.1.1 MQTT-3.9.3-2
    fn decode(
        bytes: &'a [u8],
        packet: PacketType,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        if version != ProtocolVersion::V5 && packet == PacketType::Unsuback {
            return if bytes.is_empty() {
                Ok(ReasonCodes::EMPTY)
            } else {
                Err(Malformed::TrailingBytes.into())
            };
        }
        if bytes.is_empty() {
            return Err(ProtocolError::NoReasonCodes.into());
        }
        // The codes of older versions mean the same in MQTT 5.
        let valid = match version {
            ProtocolVersion::V5 => bytes.iter().all(|&byte| byte_is_valid_for(byte, packet)),
            _ => bytes.iter().all(|&byte| matches!(byte, 0..=2 | 0x80)),
        };
        if !valid {
            return Err(Malformed::ReasonCode.into());
        }
        Ok(Self::from_checked(bytes, packet, version))
    }

    fn measure(&self, packet: PacketType, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if version != ProtocolVersion::V5 && packet == PacketType::Unsuback {
            return match self.iter().next() {
                None => Ok(0),
                Some(code) => Err(EncodeError::ReasonCode(code)),
            };
        }
        if self.is_empty() {
            return Err(EncodeError::NoReasonCodes);
        }
        if let Repr::Block {
            bytes,
            packet: checked_packet,
            version: checked_version,
        } = self.0
            && (checked_packet, checked_version) == (packet, version)
        {
            return Ok(bytes.len());
        }
        match self
            .iter()
            .find(|code| code.to_wire(packet, version).is_none())
        {
            Some(code) => Err(EncodeError::ReasonCode(code)),
            None => Ok(self.len()),
        }
    }

    //= MQTT-3.9.3-1
    //= MQTT-3.11.3-1
    //= v3.1.1 MQTT-3.9.3-1
    fn put(&self, dst: &mut impl BufMut) {
        match self.0 {
            Repr::Block { bytes, .. } => dst.put_slice(bytes),
            Repr::List(list) => {
                for &code in list {
                    dst.put_u8(code as u8);
                }
            }
        }
    }
}

impl PartialEq for ReasonCodes<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ReasonCodes<'_> {}

impl fmt::Debug for ReasonCodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for ReasonCodes<'a> {
    type Item = ReasonCode;
    type IntoIter = ReasonCodesIter<'a>;

    fn into_iter(self) -> ReasonCodesIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &ReasonCodes<'a> {
    type Item = ReasonCode;
    type IntoIter = ReasonCodesIter<'a>;

    fn into_iter(self) -> ReasonCodesIter<'a> {
        self.iter()
    }
}

/// Iterator over [`ReasonCodes`].
#[derive(Clone, Debug)]
pub struct ReasonCodesIter<'a>(IterRepr<'a>);

#[derive(Clone, Debug)]
enum IterRepr<'a> {
    Block(core::slice::Iter<'a, u8>),
    List(core::slice::Iter<'a, ReasonCode>),
}

impl Iterator for ReasonCodesIter<'_> {
    type Item = ReasonCode;

    fn next(&mut self) -> Option<ReasonCode> {
        match &mut self.0 {
            IterRepr::Block(bytes) => ReasonCode::from_u8(*bytes.next()?),
            IterRepr::List(codes) => codes.next().copied(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            IterRepr::Block(bytes) => bytes.size_hint(),
            IterRepr::List(codes) => codes.size_hint(),
        }
    }
}

impl ExactSizeIterator for ReasonCodesIter<'_> {}
impl core::iter::FusedIterator for ReasonCodesIter<'_> {}

/// A SUBACK or UNSUBACK packet with a shared handle on its frame.
#[derive(Clone)]
pub struct Suback(Checked);

impl Suback {
    #[inline(always)]
    pub(super) const fn from_checked(checked: Checked) -> Self {
        Self(checked)
    }

    /// The view.
    pub fn as_ref(&self) -> SubackRef<'_> {
        let (packet, scope) = match self.frame().first() {
            Some(&UNSUBACK) => (PacketType::Unsuback, PropertyScope::Unsuback),
            _ => (PacketType::Suback, PropertyScope::Suback),
        };
        let (packet_id, properties, rest) = self.0.read(scope);
        SubackRef {
            packet_id,
            properties,
            reason_codes: ReasonCodes::from_checked(rest, packet, self.0.version()),
        }
    }

    /// The whole packet.
    pub const fn frame(&self) -> &Bytes {
        self.0.frame()
    }
}

const UNSUBACK: u8 = PacketType::Unsuback.first_byte();
