//! Takes packets off a stream of bytes.

use core::ops::Deref;

use bytes::{Buf, Bytes, BytesMut};

use crate::error::DecodeError;
use crate::header::{Frame, FrameLen};
use crate::packet::{Checked, PublishLayout};
use crate::text::KnownTopic;
use crate::{
    Ack, AckRef, Packet, PacketId, PacketRef, PacketType, Properties, PropertyScope,
    ProtocolVersion, Publish, PublishRef,
};

/// The largest packet that MQTT can express, in bytes: five of fixed header and 268,435,455 more.
pub const MAX_PACKET_SIZE: u32 = 5 + crate::wire::VARINT_MAX;

/// The largest packet that a [`Decoder`] accepts unless told otherwise: 1 MiB.
///
/// Far above what the usual brokers and services let through (AWS IoT Core: 128 KiB), and little enough that a
/// hostile peer cannot make the receiver hold much for one connection.
pub const DEFAULT_MAX_PACKET_SIZE: u32 = 1024 * 1024;

/// Takes packets off a stream that arrives in pieces of any size.
///
/// The length of a packet is remembered once its header is there, so that many small pieces cost no more than
/// linear time. A packet above the maximum size is refused with its header, before anybody buffers it.
///
/// After an error the stream cannot go on: nothing was taken from the buffer, and the same call answers the same
/// error again.
///
/// A server learns the version from the CONNECT: call [`Decoder::set_version`] then, before the next packet is
/// decoded.
///
/// ```
/// use bytes::BytesMut;
/// use mqtt_codec::{Decoder, Packet, ProtocolVersion};
///
/// let mut decoder = Decoder::new(ProtocolVersion::V311).with_max_packet_size(64 * 1024);
/// let mut received = BytesMut::new();
///
/// received.extend_from_slice(&[0xD0]);
/// assert!(decoder.decode(&mut received)?.is_none());
/// received.extend_from_slice(&[0x00, 0x40]);
/// assert_eq!(decoder.decode(&mut received)?, Some(Packet::Pingresp));
/// assert_eq!(&received[..], &[0x40]);
/// # Ok::<(), mqtt_codec::DecodeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Decoder {
    version: ProtocolVersion,
    max_packet_size: u32,
    /// Of the packet at the front of the buffer, if it began and did not end yet.
    known: Option<FrameLen>,
    /// The last one of a PUBLISH that was taken by itself.
    known_topic: KnownTopic,
}

impl Decoder {
    /// A decoder for one connection, with [`DEFAULT_MAX_PACKET_SIZE`].
    pub const fn new(version: ProtocolVersion) -> Self {
        Self {
            version,
            max_packet_size: DEFAULT_MAX_PACKET_SIZE,
            known: None,
            known_topic: KnownTopic::NONE,
        }
    }

    /// Sets the largest packet accepted, in bytes, fixed header included.
    #[must_use]
    pub const fn with_max_packet_size(self, bytes: u32) -> Self {
        Self {
            max_packet_size: bytes,
            ..self
        }
    }

    /// Sets the largest packet accepted, in bytes, from the next packet on.
    pub const fn set_max_packet_size(&mut self, bytes: u32) {
        self.max_packet_size = bytes;
    }

    /// The largest packet accepted, in bytes.
    pub const fn max_packet_size(&self) -> u32 {
        self.max_packet_size
    }

    /// Sets the version of the packets that follow.
    pub const fn set_version(&mut self, version: ProtocolVersion) {
        self.version = version;
    }

    /// The version of the packets.
    pub const fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// The length in bytes of the packet at the front of the buffer, if its header was seen and the rest was not.
    ///
    /// `None` after an error: there is nothing to wait for.
    pub fn pending_len(&self) -> Option<usize> {
        self.known.map(|len| len.frame as usize)
    }

    /// Takes the next packet off `buf`; `None` until it is complete.
    ///
    /// The packet shares the memory of `buf`. Nothing is copied or allocated for a packet, save that `BytesMut` turns
    /// its memory into a shared one once for each block of memory.
    ///
    /// # Errors
    ///
    /// If the bytes are no packet of this version, or one above the maximum size.
    #[inline(always)]
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        self.take(buf)
    }

    /// Takes the next packet off `chunk`, as [`Decoder::decode`] does.
    ///
    /// For memory that is shared already. When `None` is returned, `chunk` holds the front of a packet, and the next
    /// call needs those bytes again with more behind them.
    ///
    /// # Errors
    ///
    /// As [`Decoder::decode`].
    #[inline(always)]
    pub fn decode_bytes(&mut self, chunk: &mut Bytes) -> Result<Option<Packet>, DecodeError> {
        self.take(chunk)
    }

    /// Takes the next packet off `buf` if it is a whole and valid PUBLISH.
    ///
    /// Otherwise nothing is taken: [`Decoder::decode`] says then what there is, or what is wrong with it. For who
    /// receives little but messages, and spares the way through [`Packet`]; a topic of at most 128 bytes that is that of
    /// the message before is not checked again.
    #[inline(always)]
    pub fn decode_publish(&mut self, buf: &mut BytesMut) -> Option<Publish> {
        self.take_publish(buf)
    }

    /// Takes the next packet off `chunk` if it is a whole and valid PUBLISH, as [`Decoder::decode_publish`] does.
    ///
    /// For memory that is shared already; otherwise it is [`Decoder::decode_bytes`] that goes on.
    #[inline(always)]
    pub fn decode_publish_bytes(&mut self, chunk: &mut Bytes) -> Option<Publish> {
        self.take_publish(chunk)
    }

    /// Takes `chunk` if it is one whole and valid PUBLISH, and nothing behind it; otherwise nothing is taken.
    ///
    /// What a transport that keeps packets apart delivers, such as a WebSocket. As [`Decoder::decode_publish_bytes`], but
    /// nothing is split off, so that it costs a good deal less.
    #[inline(always)]
    pub fn decode_single_publish(&mut self, chunk: &mut Bytes) -> Option<Publish> {
        let frame = self.next_frame(chunk).ok()??;
        if frame.len() != chunk.len() {
            return None;
        }
        let layout = self.check_publish(frame)?;
        Some(layout.with_frame(core::mem::take(chunk)))
    }

    /// Takes `chunk` if it is nothing but one *plain* PUBLISH: whole and valid, at QoS 0, with its topic and without
    /// properties. Most are, and to take them costs least.
    ///
    /// # Errors
    ///
    /// It is something else, which is given back for [`Decoder::decode_single_publish`] or [`Decoder::decode_bytes`].
    #[inline(always)]
    pub fn decode_plain_publish(&mut self, chunk: Bytes) -> Result<Publish, Bytes> {
        match self.check_plain_publish(&chunk) {
            Some(layout) => Ok(layout.with_frame(chunk)),
            None => Err(chunk),
        }
    }

    #[inline(always)]
    fn check_plain_publish(&mut self, chunk: &[u8]) -> Option<PublishLayout> {
        let frame = Frame::short(chunk)?;
        if frame.len() != chunk.len()
            || chunk.len() > self.max_packet_size as usize
            || self.known.is_some()
        {
            return None;
        }
        PublishLayout::decode_plain(frame, self.version, &mut self.known_topic)
    }

    /// How long a *plain* acknowledgement is, in bytes.
    pub const PLAIN_ACK_LEN: usize = 4;

    /// The packet at the front of `input` if it is a *plain* acknowledgement: a PUBACK, PUBREC, PUBREL or PUBCOMP of
    /// [`PLAIN_ACK_LEN`](Self::PLAIN_ACK_LEN) bytes, which says success and nothing else. Nearly all do. Nothing is taken.
    #[inline(always)]
    pub fn peek_plain_ack(&self, input: &[u8]) -> Option<(PacketType, PacketId)> {
        let [first, 2, high, low, ..] = *input else {
            return None;
        };
        if self.known.is_some() || self.max_packet_size < Self::PLAIN_ACK_LEN as u32 {
            return None;
        }
        let packet = PacketType::of_ack(first)?;
        Some((packet, PacketId::new(u16::from_be_bytes([high, low]))?))
    }

    #[inline(always)]
    fn take_publish(&mut self, source: &mut impl Source) -> Option<Publish> {
        let frame = self.next_frame(source).ok()??;
        let len = frame.len();
        let layout = self.check_publish(frame)?;
        Some(layout.with_frame(source.split_frame(len)))
    }

    #[inline(always)]
    fn check_publish(&mut self, frame: Frame<'_>) -> Option<PublishLayout> {
        if !frame.is_publish() {
            return None;
        }
        PublishLayout::decode_knowing(frame, self.version, &mut self.known_topic).ok()
    }

    /// Decodes the packet at the front of `buf` in place: the view and its length; `None` until it is complete.
    ///
    /// The next call expects what follows those bytes at the front of its buffer.
    ///
    /// ```
    /// use mqtt_codec::{Decoder, ProtocolVersion};
    ///
    /// let mut decoder = Decoder::new(ProtocolVersion::V311);
    /// let mut buf: &[u8] = &[0xC0, 0x00, 0x40, 0x02, 0x00, 0x01, 0x30];
    /// let mut packets = 0;
    /// while let Some((packet, len)) = decoder.decode_ref(buf)? {
    ///     println!("{packet:?}");
    ///     buf = &buf[len..];
    ///     packets += 1;
    /// }
    /// assert_eq!((packets, buf), (2, &[0x30][..]));
    /// # Ok::<(), mqtt_codec::DecodeError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Decoder::decode`].
    #[inline(always)]
    pub fn decode_ref<'a>(
        &mut self,
        buf: &'a [u8],
    ) -> Result<Option<(PacketRef<'a>, usize)>, DecodeError> {
        let Some(frame) = self.next_frame(buf)? else {
            return Ok(None);
        };
        let len = frame.len();
        if frame.is_publish() {
            let publish = PublishRef::decode(frame.first, frame.body, self.version)?;
            return Ok(Some((PacketRef::Publish(publish), len)));
        }
        if let Some(ack) = ShortAck::decode(frame) {
            return Ok(Some((ack.into_ref(), len)));
        }
        let packet = decode_other(frame.first, frame.body, self.version)?;
        Ok(Some((packet, len)))
    }

    #[inline(always)]
    fn take(&mut self, source: &mut impl Source) -> Result<Option<Packet>, DecodeError> {
        let Some(frame) = self.next_frame(source)? else {
            return Ok(None);
        };
        let len = frame.len();
        // The packets that a busy connection is made of come first.
        if frame.is_publish() {
            let layout = PublishLayout::decode(frame, self.version)?;
            let publish = layout.with_frame(source.split_frame(len));
            return Ok(Some(Packet::Publish(publish)));
        }
        if let Some(ack) = ShortAck::decode(frame) {
            source.advance(len);
            return Ok(Some(ack.into_packet()));
        }
        let header = frame.header;
        let packet_type = check(frame.first, frame.body, self.version)?;
        Ok(Some(match packet_type {
            PacketType::Pingreq | PacketType::Pingresp => {
                source.advance(len);
                if packet_type == PacketType::Pingreq {
                    Packet::Pingreq
                } else {
                    Packet::Pingresp
                }
            }
            PacketType::Puback | PacketType::Pubrec | PacketType::Pubrel | PacketType::Pubcomp => {
                take_long_ack(source, packet_type, usize::from(header), len, self.version)?
            }
            _ => {
                let frame = source.split_frame(len);
                Packet::from_checked(packet_type, Checked::new(frame, header, self.version))
            }
        }))
    }

    /// The packet at the front of `buf`, if all of it is there.
    #[inline(always)]
    fn next_frame<'a>(&mut self, buf: &'a [u8]) -> Result<Option<Frame<'a>>, DecodeError> {
        match self.known {
            None => {
                if let Some(frame) = Frame::short(buf)
                    && frame.len() <= self.max_packet_size as usize
                {
                    return Ok(Some(frame));
                }
            }
            Some(known) if buf.len() < known.frame as usize => return Ok(None),
            Some(_) => {}
        }
        self.next_frame_slowly(buf)
    }

    #[inline(never)]
    fn next_frame_slowly<'a>(&mut self, buf: &'a [u8]) -> Result<Option<Frame<'a>>, DecodeError> {
        let len = match self.known.take() {
            Some(len) => len,
            None => match FrameLen::read(buf, self.max_packet_size, self.version)? {
                Some(len) => len,
                None => return Ok(None),
            },
        };
        if let (Some(body), Some(&first)) = (
            buf.get(usize::from(len.header)..len.frame as usize),
            buf.first(),
        ) {
            return Ok(Some(Frame {
                first,
                header: len.header,
                body,
            }));
        }
        self.known = Some(len);
        Ok(None)
    }
}

/// An acknowledgement without reason code and properties.
#[derive(Clone, Copy)]
struct ShortAck {
    packet_type: PacketType,
    packet_id: PacketId,
}

impl ShortAck {
    /// The form of four bytes; anything odd goes the long way.
    #[inline(always)]
    fn decode(frame: Frame<'_>) -> Option<Self> {
        let [high, low] = *frame.body else {
            return None;
        };
        let packet_id = PacketId::new(u16::from_be_bytes([high, low]))?;
        let packet_type = match frame.first {
            PUBACK => PacketType::Puback,
            PUBREC => PacketType::Pubrec,
            PUBREL => PacketType::Pubrel,
            PUBCOMP => PacketType::Pubcomp,
            _ => return None,
        };
        Some(Self {
            packet_type,
            packet_id,
        })
    }

    #[inline(always)]
    const fn into_ref<'a>(self) -> PacketRef<'a> {
        let ack = AckRef::new(self.packet_id);
        match self.packet_type {
            PacketType::Puback => PacketRef::Puback(ack),
            PacketType::Pubrec => PacketRef::Pubrec(ack),
            PacketType::Pubrel => PacketRef::Pubrel(ack),
            _ => PacketRef::Pubcomp(ack),
        }
    }

    #[inline(always)]
    const fn into_packet(self) -> Packet {
        let ack = Ack::plain(&AckRef::new(self.packet_id));
        match self.packet_type {
            PacketType::Puback => Packet::Puback(ack),
            PacketType::Pubrec => Packet::Pubrec(ack),
            PacketType::Pubrel => Packet::Pubrel(ack),
            _ => Packet::Pubcomp(ack),
        }
    }
}

/// Memory that packets are taken off.
trait Source: Buf + Deref<Target = [u8]> {
    /// The first `len` bytes, with a handle of their own.
    fn split_frame(&mut self, len: usize) -> Bytes;
}

impl Source for BytesMut {
    #[inline(always)]
    fn split_frame(&mut self, len: usize) -> Bytes {
        self.split_to(len).freeze()
    }
}

impl Source for Bytes {
    #[inline(always)]
    fn split_frame(&mut self, len: usize) -> Bytes {
        if len == self.len() {
            // The last one takes the handle along instead of counting one up and one down.
            return core::mem::take(self);
        }
        self.split_to(len)
    }
}

// The two below get the parts of a frame one by one, since a structure would go through memory, also for the packets
// that do not come here.
#[inline(never)]
fn decode_other(
    first: u8,
    body: &[u8],
    version: ProtocolVersion,
) -> Result<PacketRef<'_>, DecodeError> {
    PacketRef::decode_body(first, body, version)
}

#[inline(never)]
fn check(first: u8, body: &[u8], version: ProtocolVersion) -> Result<PacketType, DecodeError> {
    Ok(PacketRef::decode_body(first, body, version)?.packet_type())
}

/// Takes a checked acknowledgement of MQTT 5 that has a reason code: a plain value still, unless it has properties.
#[inline(never)]
fn take_long_ack(
    source: &mut impl Source,
    packet_type: PacketType,
    header: usize,
    len: usize,
    version: ProtocolVersion,
) -> Result<Packet, DecodeError> {
    let (scope, packet): (_, fn(Ack) -> Packet) = match packet_type {
        PacketType::Puback => (PropertyScope::Puback, Packet::Puback),
        PacketType::Pubrec => (PropertyScope::Pubrec, Packet::Pubrec),
        PacketType::Pubrel => (PropertyScope::Pubrel, Packet::Pubrel),
        _ => (PropertyScope::Pubcomp, Packet::Pubcomp),
    };
    let body = source.get(header..len).unwrap_or_default();
    let ack = AckRef::decode(body, packet_type, scope, version)?;
    let block = ack.properties.as_block().unwrap_or_default().len();
    let ack = AckRef {
        properties: Properties::EMPTY,
        ..ack
    };
    if block == 0 {
        source.advance(len);
        return Ok(packet(Ack::plain(&ack)));
    }
    // The properties come last.
    let mut frame = source.split_frame(len);
    frame.advance(len - block);
    Ok(packet(Ack::with_block(&ack, scope, frame)))
}

const PUBACK: u8 = PacketType::Puback.first_byte();
const PUBREC: u8 = PacketType::Pubrec.first_byte();
const PUBREL: u8 = PacketType::Pubrel.first_byte();
const PUBCOMP: u8 = PacketType::Pubcomp.first_byte();
