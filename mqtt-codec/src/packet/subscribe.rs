//! SUBSCRIBE: asks for subscriptions.

use core::fmt;

use bytes::{BufMut, Bytes};

use super::checked::Checked;
use crate::error::{DecodeError, EncodeError, Malformed, ProtocolError};
use crate::property::Measured;
use crate::wire::{Reader, ensure_room, put_binary, put_fixed_header, text_len, varint_from};
use crate::{PacketId, PacketType, Properties, PropertyScope, ProtocolVersion, QoS, TopicFilter};

/// A SUBSCRIBE packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the fields of the packet")]
pub struct SubscribeRef<'a> {
    /// The SUBACK will carry it.
    pub packet_id: PacketId,
    /// MQTT 5 only.
    pub properties: Properties<'a>,
    /// At least one.
    pub subscriptions: Subscriptions<'a>,
}

/// A Topic Filter and what is asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_structs, reason = "the fields of the packet")]
pub struct Subscription<'a> {
    /// Which messages.
    pub filter: TopicFilter<'a>,
    /// How.
    pub options: SubscriptionOptions,
}

/// Subscription Options. Before MQTT 5 there is only the QoS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_structs, reason = "the bits of the byte")]
pub struct SubscriptionOptions {
    /// The largest QoS with which messages are delivered.
    pub qos: QoS,
    /// Whether messages of the same client are left out.
    pub no_local: bool,
    /// Whether messages keep the RETAIN flag with which they were published.
    pub retain_as_published: bool,
    /// Whether retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(
    clippy::exhaustive_enums,
    reason = "the two bits have no other legal value"
)]
pub enum RetainHandling {
    /// 0: with each SUBSCRIBE.
    #[default]
    SendAtSubscribe = 0,
    /// 1: if the subscription is new.
    SendIfNew = 1,
    /// 2: never.
    DoNotSend = 2,
}

impl<'a> SubscribeRef<'a> {
    /// These subscriptions, without properties.
    pub const fn new(packet_id: PacketId, subscriptions: &'a [Subscription<'a>]) -> Self {
        Self {
            packet_id,
            properties: Properties::EMPTY,
            subscriptions: Subscriptions::list(subscriptions),
        }
    }
}

impl<'a> Subscription<'a> {
    /// This filter with this QoS, and the defaults of the other options.
    pub const fn new(filter: TopicFilter<'a>, qos: QoS) -> Self {
        Self {
            filter,
            options: SubscriptionOptions::new(qos),
        }
    }
}

impl SubscribeRef<'_> {
    #[inline]
    pub(super) fn decode(
        body: &[u8],
        version: ProtocolVersion,
    ) -> Result<SubscribeRef<'_>, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let properties = Properties::decode(&mut reader, PropertyScope::Subscribe, version)?;
        let subscriptions = Subscriptions::decode(reader.rest(), version)?;
        Ok(SubscribeRef {
            packet_id,
            properties,
            subscriptions,
        })
    }

    fn measure(&self, version: ProtocolVersion) -> Result<(u32, Measured), EncodeError> {
        let properties = self.properties.measure(PropertyScope::Subscribe, version)?;
        let subscriptions = self.subscriptions.measure(version)?;
        Ok((
            varint_from((2 + properties.total as usize).saturating_add(subscriptions))?,
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
        put_fixed_header(dst, PacketType::Subscribe.first_byte(), remaining);
        dst.put_u16(self.packet_id.value());
        self.properties.put(properties, dst);
        self.subscriptions.put(dst);
        Ok(())
    }
}

/// The subscriptions of a SUBSCRIBE, in order: a checked block, or a list to encode.
#[derive(Clone, Copy)]
pub struct Subscriptions<'a>(Repr<'a>);

#[derive(Clone, Copy)]
enum Repr<'a> {
    /// Passed the check for `version`.
    Block {
        bytes: &'a [u8],
        version: ProtocolVersion,
    },
    List(&'a [Subscription<'a>]),
}

impl<'a> Subscriptions<'a> {
    /// Subscriptions to encode.
    pub const fn list(list: &'a [Subscription<'a>]) -> Self {
        Self(Repr::List(list))
    }

    const fn from_checked(bytes: &'a [u8], version: ProtocolVersion) -> Self {
        Self(Repr::Block { bytes, version })
    }

    /// In order.
    pub const fn iter(&self) -> SubscriptionsIter<'a> {
        SubscriptionsIter(match self.0 {
            Repr::Block { bytes, .. } => IterRepr::Block(Reader::new(bytes)),
            Repr::List(list) => IterRepr::List(list),
        })
    }

    fn decode(bytes: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        //= MQTT-3.8.3-2
        //= v3.1.1 MQTT-3.8.3-3
        if bytes.is_empty() {
            return Err(ProtocolError::NoTopicFilters.into());
        }
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            //= MQTT-3.8.3-1
            //= v3.1.1 MQTT-3.8.3-1
            let filter = TopicFilter::decode(reader.binary()?)?;
            let options = SubscriptionOptions::decode(reader.u8()?, version)?;
            if version == ProtocolVersion::V5 && filter.is_shared() {
                check_shared(&filter, options)?;
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
        for subscription in self.iter() {
            subscription.check(version)?;
            len = len.saturating_add(text_len(subscription.filter) + 1);
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
                for subscription in list {
                    put_binary(dst, subscription.filter.as_bytes());
                    dst.put_u8(subscription.options.to_byte());
                }
            }
        }
    }
}

impl PartialEq for Subscriptions<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Subscriptions<'_> {}

impl fmt::Debug for Subscriptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for Subscriptions<'a> {
    type Item = Subscription<'a>;
    type IntoIter = SubscriptionsIter<'a>;

    fn into_iter(self) -> SubscriptionsIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Subscriptions<'a> {
    type Item = Subscription<'a>;
    type IntoIter = SubscriptionsIter<'a>;

    fn into_iter(self) -> SubscriptionsIter<'a> {
        self.iter()
    }
}

/// Iterator over [`Subscriptions`].
#[derive(Clone, Debug)]
pub struct SubscriptionsIter<'a>(IterRepr<'a>);

#[derive(Clone, Debug)]
enum IterRepr<'a> {
    Block(Reader<'a>),
    List(&'a [Subscription<'a>]),
}

impl<'a> Iterator for SubscriptionsIter<'a> {
    type Item = Subscription<'a>;

    fn next(&mut self) -> Option<Subscription<'a>> {
        match &mut self.0 {
            IterRepr::Block(reader) => {
                let filter = TopicFilter::from_checked(reader.binary().ok()?);
                let options =
                    SubscriptionOptions::decode(reader.u8().ok()?, ProtocolVersion::V5).ok()?;
                Some(Subscription { filter, options })
            }
            IterRepr::List(list) => {
                let (first, rest) = list.split_first()?;
                *list = rest;
                Some(*first)
            }
        }
    }
}

impl core::iter::FusedIterator for SubscriptionsIter<'_> {}

impl Subscription<'_> {
    fn check(&self, version: ProtocolVersion) -> Result<(), EncodeError> {
        if version != ProtocolVersion::V5 {
            return match self.options {
                SubscriptionOptions {
                    no_local: false,
                    retain_as_published: false,
                    retain_handling: RetainHandling::SendAtSubscribe,
                    ..
                } => Ok(()),
                _ => Err(EncodeError::OptionsBeforeV5),
            };
        }
        if !self.filter.share_is_well_formed() {
            return Err(EncodeError::ShareName);
        }
        if self.options.no_local && self.filter.is_shared() {
            return Err(EncodeError::NoLocalOnShared);
        }
        Ok(())
    }
}

impl SubscriptionOptions {
    /// This QoS, and the defaults.
    pub const fn new(qos: QoS) -> Self {
        Self {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        }
    }

    #[inline]
    fn decode(byte: u8, version: ProtocolVersion) -> Result<Self, DecodeError> {
        //= MQTT-3.8.3-5
        //= v3.1.1 MQTT-3-8.3-4
        let reserved = if version == ProtocolVersion::V5 {
            0b1100_0000
        } else {
            0b1111_1100
        };
        if byte & reserved != 0 {
            return Err(Malformed::SubscriptionOptions.into());
        }
        let retain_handling = match byte >> 4 & 0b11 {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(ProtocolError::RetainHandling.into()),
        };
        Ok(Self {
            qos: QoS::from_u8(byte & 0b11).ok_or(Malformed::QoS)?,
            no_local: byte & NO_LOCAL != 0,
            retain_as_published: byte & RETAIN_AS_PUBLISHED != 0,
            retain_handling,
        })
    }

    const fn to_byte(self) -> u8 {
        self.qos as u8
            | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | (self.retain_handling as u8) << 4
    }
}

/// A SUBSCRIBE packet with a shared handle on its frame.
#[derive(Clone)]
pub struct Subscribe(Checked);

impl Subscribe {
    #[inline(always)]
    pub(super) const fn from_checked(checked: Checked) -> Self {
        Self(checked)
    }

    /// The view.
    pub fn as_ref(&self) -> SubscribeRef<'_> {
        let (packet_id, properties, rest) = self.0.read(PropertyScope::Subscribe);
        let subscriptions = Subscriptions::from_checked(rest, self.0.version());
        SubscribeRef {
            packet_id,
            properties,
            subscriptions,
        }
    }

    /// The whole packet.
    pub const fn frame(&self) -> &Bytes {
        self.0.frame()
    }
}

#[cold]
fn check_shared(filter: &TopicFilter<'_>, options: SubscriptionOptions) -> Result<(), DecodeError> {
    if !filter.share_is_well_formed() {
        return Err(Malformed::ShareName.into());
    }
    //= MQTT-3.8.3-4
    if options.no_local {
        return Err(ProtocolError::NoLocalOnShared.into());
    }
    Ok(())
}

const NO_LOCAL: u8 = 1 << 2;
const RETAIN_AS_PUBLISHED: u8 = 1 << 3;
