//! The fifteen packets: one file each (the acknowledgements share one), and the two enums over them.

mod ack;
mod auth;
mod checked;
mod connack;
mod connect;
mod disconnect;
mod publish;
mod suback;
mod subscribe;
mod unsubscribe;

pub use ack::{Ack, AckRef};
pub use auth::{Auth, AuthRef};
pub(crate) use checked::Checked;
pub use connack::{Connack, ConnackRef};
pub use connect::{Connect, ConnectRef, ConnectView, WillRef};
pub use disconnect::{Disconnect, DisconnectRef};
pub(crate) use publish::Layout as PublishLayout;
pub use publish::{Publish, PublishRef};
pub use suback::{ReasonCodes, ReasonCodesIter, Suback, SubackRef};
pub use subscribe::{
    RetainHandling, Subscribe, SubscribeRef, Subscription, SubscriptionOptions, Subscriptions,
    SubscriptionsIter,
};
pub use unsubscribe::{TopicFilters, TopicFiltersIter, Unsubscribe, UnsubscribeRef};

use core::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{DecodeError, EncodeError, Malformed};
use crate::header::{Frame, check_first_byte, split};
use crate::wire::{ensure_room, packet_len, put_fixed_header};
use crate::{Decoder, MAX_PACKET_SIZE, PacketType, PropertyScope, ProtocolVersion};

/// A packet whose fields point into other memory: the bytes that it was decoded from, or yours to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_enums,
    reason = "there are fifteen packet types, and no number for another"
)]
pub enum PacketRef<'a> {
    /// CONNECT.
    Connect(ConnectView<'a>),
    /// CONNACK.
    Connack(ConnackRef<'a>),
    /// PUBLISH.
    Publish(PublishRef<'a>),
    /// PUBACK.
    Puback(AckRef<'a>),
    /// PUBREC.
    Pubrec(AckRef<'a>),
    /// PUBREL.
    Pubrel(AckRef<'a>),
    /// PUBCOMP.
    Pubcomp(AckRef<'a>),
    /// SUBSCRIBE.
    Subscribe(SubscribeRef<'a>),
    /// SUBACK.
    Suback(SubackRef<'a>),
    /// UNSUBSCRIBE.
    Unsubscribe(UnsubscribeRef<'a>),
    /// UNSUBACK.
    Unsuback(SubackRef<'a>),
    /// PINGREQ.
    Pingreq,
    /// PINGRESP.
    Pingresp,
    /// DISCONNECT.
    Disconnect(DisconnectRef<'a>),
    /// AUTH, MQTT 5 only.
    Auth(AuthRef<'a>),
}

impl<'a> PacketRef<'a> {
    /// Decodes `frame`, which holds one packet and nothing else. For a stream, see [`Decoder`](crate::Decoder).
    ///
    /// A CONNECT names its version itself, whatever `version` says.
    ///
    /// # Errors
    ///
    /// If the bytes are no packet of this version, or more or less than one.
    pub fn decode(frame: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        let Frame { first, body, .. } = split(frame)?;
        Self::decode_body(first, body, version)
    }

    /// Decodes what follows the fixed header.
    #[inline(always)]
    pub(crate) fn decode_body(
        first: u8,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        check_first_byte(first, version)?;
        let packet_type = PacketType::from_u8(first >> 4).ok_or(Malformed::PacketType)?;
        let ack = |scope| AckRef::decode(body, packet_type, scope, version);
        let suback = |scope| SubackRef::decode(body, packet_type, scope, version);
        Ok(match packet_type {
            PacketType::Connect => Self::Connect(ConnectView::decode(body)?),
            PacketType::Connack => Self::Connack(ConnackRef::decode(body, version)?),
            PacketType::Publish => Self::Publish(PublishRef::decode(first, body, version)?),
            PacketType::Puback => Self::Puback(ack(PropertyScope::Puback)?),
            PacketType::Pubrec => Self::Pubrec(ack(PropertyScope::Pubrec)?),
            PacketType::Pubrel => Self::Pubrel(ack(PropertyScope::Pubrel)?),
            PacketType::Pubcomp => Self::Pubcomp(ack(PropertyScope::Pubcomp)?),
            PacketType::Subscribe => Self::Subscribe(SubscribeRef::decode(body, version)?),
            PacketType::Suback => Self::Suback(suback(PropertyScope::Suback)?),
            PacketType::Unsubscribe => Self::Unsubscribe(UnsubscribeRef::decode(body, version)?),
            PacketType::Unsuback => Self::Unsuback(suback(PropertyScope::Unsuback)?),
            PacketType::Pingreq | PacketType::Pingresp if !body.is_empty() => {
                return Err(Malformed::TrailingBytes.into());
            }
            PacketType::Pingreq => Self::Pingreq,
            PacketType::Pingresp => Self::Pingresp,
            PacketType::Disconnect => Self::Disconnect(DisconnectRef::decode(body, version)?),
            PacketType::Auth => Self::Auth(AuthRef::decode(body, version)?),
        })
    }

    /// Which packet this is.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::Connack(_) => PacketType::Connack,
            Self::Publish(_) => PacketType::Publish,
            Self::Puback(_) => PacketType::Puback,
            Self::Pubrec(_) => PacketType::Pubrec,
            Self::Pubrel(_) => PacketType::Pubrel,
            Self::Pubcomp(_) => PacketType::Pubcomp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::Suback(_) => PacketType::Suback,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::Unsuback(_) => PacketType::Unsuback,
            Self::Pingreq => PacketType::Pingreq,
            Self::Pingresp => PacketType::Pingresp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Length of the packet on the wire in bytes: exactly what [`PacketRef::encode`] writes.
    ///
    /// # Errors
    ///
    /// If the packet cannot be encoded in this version.
    pub fn encoded_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        let packet_type = self.packet_type();
        let remaining = match self {
            Self::Connect(packet) => packet.remaining_len()?,
            Self::Connack(packet) => packet.remaining_len(version)?,
            Self::Publish(packet) => packet.remaining_len(version)?,
            Self::Puback(packet) => {
                packet.remaining_len(packet_type, PropertyScope::Puback, version)?
            }
            Self::Pubrec(packet) => {
                packet.remaining_len(packet_type, PropertyScope::Pubrec, version)?
            }
            Self::Pubrel(packet) => {
                packet.remaining_len(packet_type, PropertyScope::Pubrel, version)?
            }
            Self::Pubcomp(packet) => {
                packet.remaining_len(packet_type, PropertyScope::Pubcomp, version)?
            }
            Self::Subscribe(packet) => packet.remaining_len(version)?,
            Self::Suback(packet) => {
                packet.remaining_len(packet_type, PropertyScope::Suback, version)?
            }
            Self::Unsubscribe(packet) => packet.remaining_len(version)?,
            Self::Unsuback(packet) => {
                packet.remaining_len(packet_type, PropertyScope::Unsuback, version)?
            }
            Self::Pingreq | Self::Pingresp => 0,
            Self::Disconnect(packet) => packet.remaining_len(version)?,
            Self::Auth(packet) => packet.remaining_len(version)?,
        };
        Ok(packet_len(remaining))
    }

    /// Appends the packet to `dst`: a `BytesMut` or `Vec<u8>`, which grow, or a buffer of fixed size such as `&mut [u8]`.
    ///
    /// A CONNECT is encoded in the version that it names itself.
    ///
    /// # Errors
    ///
    /// If the protocol cannot express the packet in this version, or the buffer is too small. Nothing is written then.
    #[inline]
    pub fn encode(
        &self,
        version: ProtocolVersion,
        dst: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        match self {
            Self::Publish(packet) => packet.encode(version, dst),
            Self::Puback(packet) => {
                packet.encode(PacketType::Puback, PropertyScope::Puback, version, dst)
            }
            _ => self.encode_other(version, dst),
        }
    }

    /// Appends the packet to `dst`: the bytes of [`PacketRef::encode`] in fewer steps, since a `BytesMut` is known
    /// to grow.
    ///
    /// # Errors
    ///
    /// If the protocol cannot express the packet in this version. Nothing is written then.
    #[inline(always)]
    pub fn encode_to(
        &self,
        version: ProtocolVersion,
        dst: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        match self {
            Self::Publish(packet) => packet.encode_to(version, dst),
            Self::Puback(ack) if ack.is_short() => {
                dst.extend_from_slice(&ack.short_form(PacketType::Puback));
                Ok(())
            }
            _ => self.encode_other(version, dst),
        }
    }

    /// Writes the packet to the front of `dst`, and returns its length: the bytes of [`PacketRef::encode`] in the fewest
    /// steps, since a slice keeps no account of what is in it.
    ///
    /// ```
    /// use mqtt_codec::{PacketRef, ProtocolVersion, PublishRef, TopicName};
    ///
    /// let publish = PacketRef::from(PublishRef::new(TopicName::new("a")?, b"on"));
    /// let mut buffer = [0; 64];
    /// let mut end = 0;
    /// for packet in [publish, PacketRef::Pingreq] {
    ///     end += packet.encode_to_slice(ProtocolVersion::V311, &mut buffer[end..])?;
    /// }
    /// assert_eq!(&buffer[..end], b"\x30\x05\x00\x01aon\xC0\x00");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the protocol cannot express the packet in this version, or `dst` is too short. Nothing is written then.
    #[inline(always)]
    pub fn encode_to_slice(
        &self,
        version: ProtocolVersion,
        dst: &mut [u8],
    ) -> Result<usize, EncodeError> {
        match self {
            Self::Publish(packet) => packet.encode_to_slice(version, dst),
            Self::Puback(ack) if ack.is_short() => {
                let to = dst.first_chunk_mut().ok_or(EncodeError::BufferFull)?;
                *to = ack.short_form(PacketType::Puback);
                Ok(to.len())
            }
            _ => self.encode_other_to_slice(version, dst),
        }
    }

    #[inline(never)]
    fn encode_other_to_slice(
        &self,
        version: ProtocolVersion,
        dst: &mut [u8],
    ) -> Result<usize, EncodeError> {
        let len = dst.len();
        let mut rest = dst;
        self.encode_other(version, &mut rest)?;
        Ok(len - rest.len())
    }

    /// Apart, since its many cases take up registers that the two above do without.
    #[inline(never)]
    fn encode_other(
        &self,
        version: ProtocolVersion,
        dst: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        let packet_type = self.packet_type();
        match self {
            Self::Connect(packet) => packet.encode(dst),
            Self::Connack(packet) => packet.encode(version, dst),
            Self::Publish(packet) => packet.encode(version, dst),
            Self::Puback(packet) => packet.encode(packet_type, PropertyScope::Puback, version, dst),
            Self::Pubrec(packet) => packet.encode(packet_type, PropertyScope::Pubrec, version, dst),
            Self::Pubrel(packet) => packet.encode(packet_type, PropertyScope::Pubrel, version, dst),
            Self::Pubcomp(packet) => {
                packet.encode(packet_type, PropertyScope::Pubcomp, version, dst)
            }
            Self::Subscribe(packet) => packet.encode(version, dst),
            Self::Suback(packet) => packet.encode(packet_type, PropertyScope::Suback, version, dst),
            Self::Unsubscribe(packet) => packet.encode(version, dst),
            Self::Unsuback(packet) => {
                packet.encode(packet_type, PropertyScope::Unsuback, version, dst)
            }
            Self::Pingreq | Self::Pingresp => {
                ensure_room(dst, 0, 0)?;
                put_fixed_header(dst, packet_type.first_byte(), 0);
                Ok(())
            }
            Self::Disconnect(packet) => packet.encode(version, dst),
            Self::Auth(packet) => packet.encode(version, dst),
        }
    }
}

macro_rules! from_ref {
    ($($variant:ident($packet:ident)),*) => {$(
        impl<'a> From<$packet<'a>> for PacketRef<'a> {
            fn from(packet: $packet<'a>) -> Self {
                Self::$variant(packet)
            }
        }
    )*};
}

from_ref!(
    Connack(ConnackRef),
    Publish(PublishRef),
    Subscribe(SubscribeRef),
    Unsubscribe(UnsubscribeRef),
    Disconnect(DisconnectRef),
    Auth(AuthRef)
);

impl<'a> From<&'a ConnectRef<'a>> for PacketRef<'a> {
    fn from(packet: &'a ConnectRef<'a>) -> Self {
        Self::Connect(packet.into())
    }
}

/// A packet that owns what it holds: at most one shared handle on the frame that it was decoded from.
///
/// Cloning counts that handle once more; it copies nothing.
#[derive(Clone)]
#[allow(
    clippy::exhaustive_enums,
    reason = "there are fifteen packet types, and no number for another"
)]
pub enum Packet {
    /// CONNECT.
    Connect(Connect),
    /// CONNACK.
    Connack(Connack),
    /// PUBLISH.
    Publish(Publish),
    /// PUBACK.
    Puback(Ack),
    /// PUBREC.
    Pubrec(Ack),
    /// PUBREL.
    Pubrel(Ack),
    /// PUBCOMP.
    Pubcomp(Ack),
    /// SUBSCRIBE.
    Subscribe(Subscribe),
    /// SUBACK.
    Suback(Suback),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe),
    /// UNSUBACK.
    Unsuback(Suback),
    /// PINGREQ.
    Pingreq,
    /// PINGRESP.
    Pingresp,
    /// DISCONNECT.
    Disconnect(Disconnect),
    /// AUTH, MQTT 5 only.
    Auth(Auth),
}

impl Packet {
    /// Decodes `frame`, which holds one packet and nothing else; see [`PacketRef::decode`].
    ///
    /// # Errors
    ///
    /// If the bytes are no packet of this version, or more or less than one.
    pub fn decode(mut frame: Bytes, version: ProtocolVersion) -> Result<Self, DecodeError> {
        split(&frame)?;
        Decoder::new(version)
            .with_max_packet_size(MAX_PACKET_SIZE)
            .decode_bytes(&mut frame)?
            .ok_or_else(|| Malformed::Overrun.into())
    }

    /// Takes a frame that decoding accepted; not of a packet that comes without a handle, nor of PUBLISH.
    #[inline(always)]
    pub(crate) fn from_checked(packet_type: PacketType, checked: Checked) -> Self {
        match packet_type {
            PacketType::Connect => Self::Connect(Connect::from_checked(checked)),
            PacketType::Connack => Self::Connack(Connack::from_checked(checked)),
            PacketType::Subscribe => Self::Subscribe(Subscribe::from_checked(checked)),
            PacketType::Suback => Self::Suback(Suback::from_checked(checked)),
            PacketType::Unsubscribe => Self::Unsubscribe(Unsubscribe::from_checked(checked)),
            PacketType::Unsuback => Self::Unsuback(Suback::from_checked(checked)),
            PacketType::Disconnect => Self::Disconnect(Disconnect::from_checked(checked)),
            _ => Self::Auth(Auth::from_checked(checked)),
        }
    }

    /// The view.
    pub fn as_ref(&self) -> PacketRef<'_> {
        match self {
            Self::Connect(packet) => PacketRef::Connect(packet.view()),
            Self::Connack(packet) => PacketRef::Connack(packet.as_ref()),
            Self::Publish(packet) => PacketRef::Publish(packet.as_ref()),
            Self::Puback(packet) => PacketRef::Puback(packet.as_ref()),
            Self::Pubrec(packet) => PacketRef::Pubrec(packet.as_ref()),
            Self::Pubrel(packet) => PacketRef::Pubrel(packet.as_ref()),
            Self::Pubcomp(packet) => PacketRef::Pubcomp(packet.as_ref()),
            Self::Subscribe(packet) => PacketRef::Subscribe(packet.as_ref()),
            Self::Suback(packet) => PacketRef::Suback(packet.as_ref()),
            Self::Unsubscribe(packet) => PacketRef::Unsubscribe(packet.as_ref()),
            Self::Unsuback(packet) => PacketRef::Unsuback(packet.as_ref()),
            Self::Pingreq => PacketRef::Pingreq,
            Self::Pingresp => PacketRef::Pingresp,
            Self::Disconnect(packet) => PacketRef::Disconnect(packet.as_ref()),
            Self::Auth(packet) => PacketRef::Auth(packet.as_ref()),
        }
    }

    /// Which packet this is.
    pub fn packet_type(&self) -> PacketType {
        self.as_ref().packet_type()
    }
}

/// Equal if all fields are, wherever their bytes lie.
impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        self.as_ref() == other.as_ref()
    }
}

impl Eq for Packet {}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

macro_rules! owned_impls {
    ($($packet:ident),*) => {$(
        impl PartialEq for $packet {
            fn eq(&self, other: &Self) -> bool {
                self.as_ref() == other.as_ref()
            }
        }

        impl Eq for $packet {}

        impl fmt::Debug for $packet {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.as_ref().fmt(f)
            }
        }
    )*};
}

owned_impls!(
    Connect,
    Connack,
    Publish,
    Ack,
    Subscribe,
    Suback,
    Unsubscribe,
    Disconnect,
    Auth
);

// What a busy connection moves around all the time.
const _: () = assert!(size_of::<PacketRef<'_>>() <= 72 && size_of::<Packet>() <= 64);
