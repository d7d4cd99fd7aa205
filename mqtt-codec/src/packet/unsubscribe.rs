//! UNSUBSCRIBE: ends subscriptions.

use core::fmt;

use bytes::{BufMut, Bytes};

use super::checked::Checked;
use crate::error::{DecodeError, EncodeError, Malformed, ProtocolError};
use crate::property::Measured;
use crate::wire::{Reader, ensure_room, put_binary, put_fixed_header, text_len, varint_from};
use crate::{PacketId, PacketType, Properties, PropertyScope, ProtocolVersion, TopicFilter};

/// An UNSUBSCRIBE packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the fields of the packet")]
pub struct UnsubscribeRef<'a> {
    /// The UNSUBACK will carry it.
    pub packet_id: PacketId,
    /// MQTT 5 only.
    pub properties: Properties<'a>,
    /// At least one.
    pub filters: TopicFilters<'a>,
}

impl<'a> UnsubscribeRef<'a> {
    /// These filters, without properties.
    pub const fn new(packet_id: PacketId, filters: &'a [TopicFilter<'a>]) -> Self {
        Self {
            packet_id,
            properties: Properties::EMPTY,
            filters: TopicFilters::list(filters),
        }
    }
}

impl UnsubscribeRef<'_> {
    #[inline]
    pub(super) fn decode(
        body: &[u8],
        version: ProtocolVersion,
    ) -> Result<UnsubscribeRef<'_>, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let properties = Properties::decode(&mut reader, PropertyScope::Unsubscribe, version)?;
        let filters = TopicFilters::decode(reader.rest(), version)?;
        Ok(UnsubscribeRef {
            packet_id,
            properties,
            filters,
        })
    }

    fn measure(&self, version: ProtocolVersion) -> Result<(u32, Measured), EncodeError> {
        let properties = self
            .properties
            .measure(PropertyScope::Unsubscribe, version)?;
        let filters = self.filters.measure(version)?;
        Ok((
            varint_from((2 + properties.total as usize).saturating_add(filters))?,
            properties,
        ))
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
        put_fixed_header(dst, PacketType::Unsubscribe.first_byte(), remaining);
        dst.put_u16(self.packet_id.value());
        self.properties.put(properties, dst);
        self.filters.put(dst);
        Ok(())
    }
}

/// The Topic Filters of an UNSUBSCRIBE, in order: a checked block, or a list to encode.
#[derive(Clone, Copy)]
pub struct TopicFilters<'a>(Repr<'a>);

#[derive(Clone, Copy)]
enum Repr<'a> {
    /// Passed the check for `version`.
    Block {
        bytes: &'a [u8],
        version: ProtocolVersion,
    },
    List(&'a [TopicFilter<'a>]),
}

impl<'a> TopicFilters<'a> {
    /// Filters to encode.
    pub const fn list(list: &'a [TopicFilter<'a>]) -> Self {
        Self(Repr::List(list))
    }

    const fn from_checked(bytes: &'a [u8], version: ProtocolVersion) -> Self {
        Self(Repr::Block { bytes, version })
    }

    /// In order.
    pub const fn iter(&self) -> TopicFiltersIter<'a> {
        TopicFiltersIter(match self.0 {
            Repr::Block { bytes, .. } => IterRepr::Block(Reader::new(bytes)),
            Repr::List(list) => IterRepr::List(list),
        })
    }

    fn decode(bytes: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        //= MQTT-3.10.3-2
        //= v3.1.1 MQTT-3.10.3-2
        if bytes.is_empty() {
            return Err(ProtocolError::NoTopicFilters.into());
        }
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            //= MQTT-3.10.3-1
            //= v3.1.1 MQTT-3.10.3-1
            let filter = TopicFilter::decode(reader.binary()?)?;
            if version == ProtocolVersion::V5 && !filter.share_is_well_formed() {
                return Err(Malformed::ShareName.into());
            }
        }
        Ok(Self::from_checked(bytes, version))
    }

    fn measure(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if let Repr::Block {
            bytes,
            version: checked,
        } = self.0
            && checked.has_properties() == version.has_properties()
        {
            return Ok(bytes.len());
        }
        let mut len = 0_usize;
        for filter in self.iter() {
            if version == ProtocolVersion::V5 && !filter.share_is_well_formed() {
                return Err(EncodeError::ShareName);
            }
            len = len.saturating_add(text_len(filter));
        }
        if len == 0 {
            Err(EncodeError::NoTopicFilters)
        } else {
            Ok(len)
        }
    }

    fn put(&self, dst: &mut impl BufMut) {
        match self.0 {
            Repr::Block { bytes, .. } => dst.put_slice(bytes),
            Repr::List(list) => {
                for filter in list {
                    put_binary(dst, filter.as_bytes());
                }
            }
        }
    }
}

impl PartialEq for TopicFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for TopicFilters<'_> {}

impl fmt::Debug for TopicFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for TopicFilters<'a> {
    type Item = TopicFilter<'a>;
    type IntoIter = TopicFiltersIter<'a>;

    fn into_iter(self) -> TopicFiltersIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &TopicFilters<'a> {
    type Item = TopicFilter<'a>;
    type IntoIter = TopicFiltersIter<'a>;

    fn into_iter(self) -> TopicFiltersIter<'a> {
        self.iter()
    }
}

/// Iterator over [`TopicFilters`].
#[derive(Clone, Debug)]
pub struct TopicFiltersIter<'a>(IterRepr<'a>);

#[derive(Clone, Debug)]
enum IterRepr<'a> {
    Block(Reader<'a>),
    List(&'a [TopicFilter<'a>]),
}

impl<'a> Iterator for TopicFiltersIter<'a> {
    type Item = TopicFilter<'a>;

    fn next(&mut self) -> Option<TopicFilter<'a>> {
        match &mut self.0 {
            IterRepr::Block(reader) => Some(TopicFilter::from_checked(reader.binary().ok()?)),
            IterRepr::List(list) => {
                let (first, rest) = list.split_first()?;
                *list = rest;
                Some(*first)
            }
        }
    }
}

impl core::iter::FusedIterator for TopicFiltersIter<'_> {}

/// An UNSUBSCRIBE packet with a shared handle on its frame.
#[derive(Clone)]
pub struct Unsubscribe(Checked);

impl Unsubscribe {
    #[inline(always)]
    pub(super) const fn from_checked(checked: Checked) -> Self {
        Self(checked)
    }

    /// The view.
    pub fn as_ref(&self) -> UnsubscribeRef<'_> {
        let (packet_id, properties, rest) = self.0.read(PropertyScope::Unsubscribe);
        let filters = TopicFilters::from_checked(rest, self.0.version());
        UnsubscribeRef {
            packet_id,
            properties,
            filters,
        }
    }

    /// The whole packet.
    pub const fn frame(&self) -> &Bytes {
        self.0.frame()
    }
}
