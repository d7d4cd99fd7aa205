//! PUBLISH: a message, in either direction.

use core::fmt;
use core::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{DecodeError, EncodeError, Malformed, ProtocolError};
use crate::header::Frame;
use crate::property::Measured;
use crate::text::KnownTopic;
use crate::wire::{Reader, ensure_room, packet_len, put_fixed_header, varint_from};
use crate::{PacketId, PacketType, Properties, PropertyScope, ProtocolVersion, QoS, TopicName};

/// A PUBLISH packet.
///
/// `Debug` shows the length of the payload only.
#[derive(Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the fields of the packet")]
pub struct PublishRef<'a> {
    /// Whether this may be a repetition; never at QoS 0.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// To the server: retain it. From the server: it was retained (see Retain As Published).
    pub retain: bool,
    /// Empty only in MQTT 5 with a Topic Alias.
    pub topic: TopicName<'a>,
    /// Present at QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// MQTT 5 only.
    pub properties: Properties<'a>,
    /// The message.
    pub payload: &'a [u8],
}

impl<'a> PublishRef<'a> {
    /// A message of QoS 0, not retained, without properties.
    pub const fn new(topic: TopicName<'a>, payload: &'a [u8]) -> Self {
        Self {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic,
            packet_id: None,
            properties: Properties::EMPTY,
            payload,
        }
    }

    #[inline(always)]
    pub(crate) fn decode(
        first: u8,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let parts = Parts::decode(first, body, version)?;
        Ok(Self {
            dup: first & DUP != 0,
            qos: parts.qos,
            retain: first & RETAIN != 0,
            topic: parts.topic,
            packet_id: parts.packet_id,
            properties: Properties::from_checked(PropertyScope::Publish, parts.block),
            payload: parts.payload,
        })
    }

    #[inline(always)]
    fn measure(&self, version: ProtocolVersion) -> Result<(u32, Measured), EncodeError> {
        let id_len = match (self.qos, self.packet_id) {
            (QoS::AtMostOnce, None) if self.dup => return Err(EncodeError::DupAtQoS0),
            (QoS::AtMostOnce, None) => 0,
            (QoS::AtLeastOnce | QoS::ExactlyOnce, Some(_)) => 2,
            (QoS::AtMostOnce, Some(_)) => return Err(EncodeError::PacketIdentifierAtQoS0),
            (QoS::AtLeastOnce | QoS::ExactlyOnce, None) => {
                return Err(EncodeError::PacketIdentifierMissing);
            }
        };
        let properties = self.properties.measure(PropertyScope::Publish, version)?;
        if self.topic.is_empty() {
            self.check_alias(version)?;
        }
        let remaining =
            2 + self.topic.len() + id_len + properties.total as usize + self.payload.len();
        Ok((varint_from(remaining)?, properties))
    }

    #[cold]
    fn check_alias(&self, version: ProtocolVersion) -> Result<(), EncodeError> {
        if version == ProtocolVersion::V5 && self.properties.topic_alias().is_some() {
            Ok(())
        } else {
            Err(EncodeError::TopicNameMissing)
        }
    }

    pub(super) fn remaining_len(&self, version: ProtocolVersion) -> Result<u32, EncodeError> {
        self.measure(version).map(|(remaining, _)| remaining)
    }

    /// Length of the whole packet in bytes.
    ///
    /// # Errors
    ///
    /// If the packet cannot be encoded.
    pub fn encoded_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        self.remaining_len(version).map(packet_len)
    }

    /// Appends the packet to `dst`.
    ///
    /// # Errors
    ///
    /// If the packet cannot be encoded; nothing is written then.
    #[inline]
    pub fn encode(
        &self,
        version: ProtocolVersion,
        dst: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        let (remaining, properties) = self.measure(version)?;
        ensure_room(dst, remaining, 0)?;
        self.put_header(remaining, properties, dst);
        dst.put_slice(self.payload);
        Ok(())
    }

    /// Appends the packet to `dst`: the bytes of [`PublishRef::encode`] in fewer steps, since a `BytesMut` is known
    /// to grow.
    ///
    /// # Errors
    ///
    /// If the packet cannot be encoded; nothing is written then.
    #[inline(always)]
    pub fn encode_to(
        &self,
        version: ProtocolVersion,
        dst: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let (remaining, properties) = self.measure(version)?;
        if remaining >= 0x4000 || properties.total > 1 {
            return self.encode_measured(remaining, properties, dst);
        }
        self.put_start(remaining, dst);
        // The length of the properties, where there can be some, is zero.
        match (self.packet_id, properties.total) {
            (None, 0) => {}
            (None, _) => dst.extend_from_slice(&[0]),
            (Some(packet_id), 0) => dst.extend_from_slice(&packet_id.value().to_be_bytes()),
            (Some(packet_id), _) => {
                let [high, low] = packet_id.value().to_be_bytes();
                dst.extend_from_slice(&[high, low, 0]);
            }
        }
        dst.extend_from_slice(self.payload);
        Ok(())
    }

    /// Writes the packet to the front of `dst`, and returns its length: the bytes of [`PublishRef::encode`] in the fewest
    /// steps, since a slice keeps no account of what is in it.
    ///
    /// # Errors
    ///
    /// If the packet cannot be encoded, or `dst` is too short; nothing is written then.
    #[inline(always)]
    pub fn encode_to_slice(
        &self,
        version: ProtocolVersion,
        dst: &mut [u8],
    ) -> Result<usize, EncodeError> {
        let (remaining, properties) = self.measure(version)?;
        let len = packet_len(remaining);
        let packet = dst.get_mut(..len).ok_or(EncodeError::BufferFull)?;
        let block = self.properties.as_block().unwrap_or_default();
        if remaining >= 0x4000 || properties.total as usize > block.len() + 1 {
            // A list of properties, or a length of more bytes.
            self.fill_slowly(remaining, properties, packet);
            return Ok(len);
        }
        let block = (properties.total != 0).then_some(block);
        match self.fill(remaining, block, packet) {
            Some(()) => Ok(len),
            // Unreachable, and better than a panic.
            None => Err(EncodeError::BufferFull),
        }
    }

    /// Fills a `packet` of exactly this size, whose Remaining Length takes at most two bytes, and the length of its block
    /// of properties, where there can be one, a single byte.
    #[inline(always)]
    fn fill(&self, remaining: u32, block: Option<&[u8]>, packet: &mut [u8]) -> Option<()> {
        let topic = self.topic.as_bytes();
        let first = self.first_byte();
        let [high, low] = (topic.len() as u16).to_be_bytes();
        let rest = if remaining < 0x80 {
            put_array(packet, [first, remaining as u8, high, low])?
        } else {
            let lower = remaining as u8 | 0x80;
            put_array(packet, [first, lower, (remaining >> 7) as u8, high, low])?
        };
        let (to, mut rest) = rest.split_at_mut_checked(topic.len())?;
        copy(topic, to);
        if let Some(packet_id) = self.packet_id {
            rest = put_array(rest, packet_id.value().to_be_bytes())?;
        }
        if let Some(block) = block {
            rest = put_array(rest, [block.len() as u8])?;
            if !block.is_empty() {
                let (to, behind) = rest.split_at_mut_checked(block.len())?;
                to.copy_from_slice(block);
                rest = behind;
            }
        }
        copy(self.payload, rest.get_mut(..self.payload.len())?);
        Some(())
    }

    #[inline(never)]
    fn fill_slowly(&self, remaining: u32, properties: Measured, mut packet: &mut [u8]) {
        self.put_header(remaining, properties, &mut packet);
        packet.put_slice(self.payload);
    }

    #[inline(never)]
    fn encode_measured(
        &self,
        remaining: u32,
        properties: Measured,
        dst: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let block = self.properties.as_block().unwrap_or_default();
        if remaining >= 0x4000 || properties.total as usize > block.len() + 1 {
            // A list of properties, or a length of more bytes.
            dst.reserve(packet_len(remaining));
            self.put_header(remaining, properties, dst);
            dst.extend_from_slice(self.payload);
            return Ok(());
        }
        self.put_start(remaining, dst);
        if let Some(packet_id) = self.packet_id {
            dst.extend_from_slice(&packet_id.value().to_be_bytes());
        }
        dst.extend_from_slice(&[block.len() as u8]);
        dst.extend_from_slice(block);
        dst.extend_from_slice(self.payload);
        Ok(())
    }

    /// Fixed header and topic of a packet whose Remaining Length takes at most two bytes.
    #[inline(always)]
    fn put_start(&self, remaining: u32, dst: &mut BytesMut) {
        let topic = self.topic.as_bytes();
        let first = self.first_byte();
        let [high, low] = (topic.len() as u16).to_be_bytes();
        // An append of a length known here takes a few instructions, any other a call.
        if remaining < 0x80 {
            dst.extend_from_slice(&[first, remaining as u8, high, low]);
        } else {
            let lower = remaining as u8 | 0x80;
            dst.extend_from_slice(&[first, lower, (remaining >> 7) as u8, high, low]);
        }
        dst.extend_from_slice(topic);
    }

    /// Appends the packet without its payload to `dst`, so that the caller can hand the payload on without copying it:
    /// the `payload.len()` bytes that follow on the wire must be those of [`PublishRef::payload`].
    ///
    /// Worth it from about a kilobyte of payload on; below that, copying is cheaper.
    ///
    /// ```
    /// use bytes::{Bytes, BytesMut};
    /// use mqtt_codec::{ProtocolVersion, PublishRef, TopicName};
    ///
    /// let payload = Bytes::from(vec![0x55; 128 * 1024]);
    /// let publish = PublishRef::new(TopicName::new("firmware")?, &payload);
    /// let mut header = BytesMut::new();
    /// publish.encode_header(ProtocolVersion::V311, &mut header)?;
    /// let to_write = [header.freeze(), payload.clone()];
    /// # assert_eq!(to_write.concat().len(), publish.encoded_len(ProtocolVersion::V311)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the packet cannot be encoded; nothing is written then.
    #[inline]
    pub fn encode_header(
        &self,
        version: ProtocolVersion,
        dst: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        let (remaining, properties) = self.measure(version)?;
        ensure_room(dst, remaining, self.payload.len())?;
        self.put_header(remaining, properties, dst);
        Ok(())
    }

    #[inline]
    fn put_header(&self, remaining: u32, properties: Measured, dst: &mut impl BufMut) {
        let topic = self.topic.as_bytes();
        let [high, low] = (topic.len() as u16).to_be_bytes();
        if remaining < 0x80 {
            dst.put_slice(&[self.first_byte(), remaining as u8, high, low]);
        } else {
            put_fixed_header(dst, self.first_byte(), remaining);
            dst.put_slice(&[high, low]);
        }
        dst.put_slice(topic);
        if let Some(packet_id) = self.packet_id {
            dst.put_u16(packet_id.value());
        }
        self.properties.put(properties, dst);
    }

    #[inline]
    const fn first_byte(&self) -> u8 {
        (PacketType::Publish as u8) << 4
            | (self.dup as u8) << 3
            | (self.qos as u8) << 1
            | self.retain as u8
    }
}

impl fmt::Debug for PublishRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("dup", &self.dup)
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("topic", &self.topic)
            .field("packet_id", &self.packet_id)
            .field("properties", &self.properties)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .finish()
    }
}

/// Writes `bytes` to the front of `dst`, and returns what follows.
#[inline(always)]
fn put_array<const N: usize>(dst: &mut [u8], bytes: [u8; N]) -> Option<&mut [u8]> {
    let (front, rest) = dst.split_first_chunk_mut::<N>()?;
    *front = bytes;
    Some(rest)
}

/// Copies bytes into as many. Up to 64 without a call, as two blocks that may overlap.
#[inline(always)]
fn copy(from: &[u8], to: &mut [u8]) {
    let short = from.len() <= 64;
    if !(short && (copy_in_two::<32>(from, to) || copy_in_two::<16>(from, to))) {
        to.copy_from_slice(from);
    }
}

/// Copies between `N` and `2 * N` bytes; whether there are that many at least.
#[inline(always)]
fn copy_in_two<const N: usize>(from: &[u8], to: &mut [u8]) -> bool {
    let (Some(first), Some(last)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) else {
        return false;
    };
    if let Some(to) = to.first_chunk_mut() {
        *to = *first;
    }
    if let Some(to) = to.last_chunk_mut() {
        *to = *last;
    }
    true
}

/// A PUBLISH packet with a shared handle on its frame.
#[derive(Clone)]
pub struct Publish {
    frame: Bytes,
    layout: Layout,
}

/// A checked PUBLISH in the pieces that the view and the owned packet are both made of.
struct Parts<'a> {
    qos: QoS,
    topic: TopicName<'a>,
    packet_id: Option<PacketId>,
    /// The properties, without their length.
    block: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Parts<'a> {
    #[inline(always)]
    fn decode(first: u8, body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        Self::decode_with(first, body, version, TopicName::decode_or_empty)
    }

    #[inline(always)]
    fn decode_with(
        first: u8,
        body: &'a [u8],
        version: ProtocolVersion,
        check_topic: impl FnOnce(&'a [u8]) -> Result<TopicName<'a>, Malformed>,
    ) -> Result<Self, DecodeError> {
        //= MQTT-3.3.1-4
        //= v3.1.1 MQTT-3.3.1-4
        let qos = QoS::from_u8((first & QOS) >> 1).ok_or(Malformed::QoS)?;
        let mut reader = Reader::new(body);
        let topic = check_topic(reader.binary()?)?;
        //= MQTT-2.2.1-2
        //= v3.1.1 MQTT-2.3.1-5
        let mut packet_id = None;
        if qos != QoS::AtMostOnce {
            packet_id = Some(reader.packet_id()?);
        } else if first & DUP != 0 {
            //= MQTT-3.3.1-2
            //= v3.1.1 MQTT-3.3.1-2
            return Err(Malformed::DupAtQoS0.into());
        }
        let block = Properties::decode_block(&mut reader, PropertyScope::Publish, version)?;
        if topic.is_empty() {
            check_no_name(version, block)?;
        }
        Ok(Self {
            qos,
            topic,
            packet_id,
            block,
            payload: reader.rest(),
        })
    }
}

/// `topic ..= topic + topic_len <= properties <= payload <= frame.len()`, as decoding found them.
///
/// In two words, since a structure of small fields is moved about piece by piece through memory, and that took
/// longer than all of the decoding.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// From the lowest bit: the first byte (8), where the topic begins (8), its length (16), the Packet Identifier or
    /// zero (16).
    head: u64,
    /// Where the properties begin, behind their length (32), and where the payload begins (32).
    blocks: u64,
}

impl Layout {
    /// Checks `frame`.
    #[inline(always)]
    pub(crate) fn decode(frame: Frame<'_>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let parts = Parts::decode(frame.first, frame.body, version)?;
        Ok(Self::of(frame, &parts))
    }

    /// Checks `frame`, but for a topic that is `known`.
    #[inline(always)]
    pub(crate) fn decode_knowing(
        frame: Frame<'_>,
        version: ProtocolVersion,
        known: &mut KnownTopic,
    ) -> Result<Self, DecodeError> {
        let check_topic = |name| known.check(name);
        let parts = Parts::decode_with(frame.first, frame.body, version, check_topic)?;
        Ok(Self::of(frame, &parts))
    }

    /// Checks `frame`, but for a topic that is `known`, if it is a PUBLISH at QoS 0 with a topic and without properties.
    #[inline(always)]
    pub(crate) fn decode_plain(
        frame: Frame<'_>,
        version: ProtocolVersion,
        known: &mut KnownTopic,
    ) -> Option<Self> {
        if frame.first & !RETAIN != (PacketType::Publish as u8) << 4 {
            return None;
        }
        let mut reader = Reader::new(frame.body);
        let topic = known.check(reader.binary().ok()?).ok()?;
        let has_properties = version == ProtocolVersion::V5 && reader.u8().ok()? != 0;
        if topic.is_empty() || has_properties {
            return None;
        }
        let parts = Parts {
            qos: QoS::AtMostOnce,
            topic,
            packet_id: None,
            block: &[],
            payload: reader.rest(),
        };
        Some(Self::of(frame, &parts))
    }

    #[inline(always)]
    fn of(frame: Frame<'_>, parts: &Parts<'_>) -> Self {
        let payload = (frame.len() - parts.payload.len()) as u64;
        let topic_len = parts.topic.len() as u64;
        let packet_id = parts.packet_id.map_or(0, PacketId::value);
        Self {
            head: u64::from(frame.first)
                | u64::from(frame.header + 2) << 8
                | topic_len << 16
                | u64::from(packet_id) << 32,
            blocks: (payload - parts.block.len() as u64) | payload << 32,
        }
    }

    #[inline(always)]
    pub(crate) const fn with_frame(self, frame: Bytes) -> Publish {
        Publish {
            frame,
            layout: self,
        }
    }

    const fn first(self) -> u8 {
        self.head as u8
    }

    const fn topic(self) -> Range<usize> {
        let start = (self.head >> 8) as u8 as usize;
        start..start + (self.head >> 16) as u16 as usize
    }

    const fn packet_id(self) -> Option<PacketId> {
        PacketId::new((self.head >> 32) as u16)
    }

    const fn properties(self) -> Range<usize> {
        self.blocks as u32 as usize..self.payload()
    }

    const fn payload(self) -> usize {
        (self.blocks >> 32) as usize
    }
}

impl Publish {
    /// Whether this may be a repetition.
    #[inline]
    pub const fn dup(&self) -> bool {
        self.layout.first() & DUP != 0
    }

    /// Quality of service.
    #[inline]
    pub const fn qos(&self) -> QoS {
        qos_of(self.layout.first())
    }

    /// To the server: retain it. From the server: it was retained.
    #[inline]
    pub const fn retain(&self) -> bool {
        self.layout.first() & RETAIN != 0
    }

    /// Present at QoS 1 and 2.
    #[inline]
    pub const fn packet_id(&self) -> Option<PacketId> {
        self.layout.packet_id()
    }

    /// The topic. Checks the bytes as UTF-8 once more; [`Publish::topic_name`] does not.
    pub fn topic(&self) -> &str {
        self.topic_name().as_str()
    }

    /// The topic as checked bytes.
    #[inline]
    pub fn topic_name(&self) -> TopicName<'_> {
        TopicName::from_checked(self.part(self.layout.topic()))
    }

    /// The topic with its own handle on the frame.
    pub fn topic_bytes(&self) -> Bytes {
        self.frame.slice(self.layout.topic())
    }

    /// The properties.
    #[inline]
    pub fn properties(&self) -> Properties<'_> {
        Properties::from_checked(PropertyScope::Publish, self.part(self.layout.properties()))
    }

    /// The payload.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        self.part(self.layout.payload()..self.frame.len())
    }

    /// The payload with its own handle on the frame.
    ///
    /// Keeps the whole receive buffer alive that the packet came in: copy small payloads that are kept for long.
    pub fn payload_bytes(&self) -> Bytes {
        self.frame.slice(self.layout.payload()..)
    }

    /// The payload, without counting handles.
    #[inline]
    pub fn into_payload(self) -> Bytes {
        let mut frame = self.frame;
        bytes::Buf::advance(&mut frame, self.layout.payload());
        frame
    }

    /// The whole packet.
    #[inline]
    pub const fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The view.
    pub fn as_ref(&self) -> PublishRef<'_> {
        PublishRef {
            dup: self.dup(),
            qos: self.qos(),
            retain: self.retain(),
            topic: self.topic_name(),
            packet_id: self.packet_id(),
            properties: self.properties(),
            payload: self.payload(),
        }
    }

    #[inline]
    fn part(&self, range: Range<usize>) -> &[u8] {
        // The layout was made for this frame; empty is unreachable, and better than a panic.
        self.frame.get(range).unwrap_or_default()
    }
}

//= MQTT-4.7.3-1
//= v3.1.1 MQTT-4.7.3-1
#[cold]
fn check_no_name(version: ProtocolVersion, block: &[u8]) -> Result<(), DecodeError> {
    if version != ProtocolVersion::V5 {
        return Err(Malformed::EmptyTopicName.into());
    }
    match Properties::from_checked(PropertyScope::Publish, block).topic_alias() {
        Some(_) => Ok(()),
        None => Err(ProtocolError::TopicNameMissing.into()),
    }
}

#[inline]
const fn qos_of(first: u8) -> QoS {
    match first & QOS {
        QOS_1 => QoS::AtLeastOnce,
        QOS_2 => QoS::ExactlyOnce,
        _ => QoS::AtMostOnce,
    }
}

const RETAIN: u8 = 1;
const QOS: u8 = 0b110;
const QOS_1: u8 = 0b010;
const QOS_2: u8 = 0b100;
const DUP: u8 = 1 << 3;
