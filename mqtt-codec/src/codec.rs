//! The codec for `tokio_util::codec::Framed`.

use std::fmt;
use std::io;

use bytes::BytesMut;
use tokio_util::codec;

use crate::error::{DecodeError, EncodeError};
use crate::{Decoder, Packet, PacketRef};

/// Decodes [`Packet`] and encodes [`PacketRef`] and [`Packet`], for `tokio_util::codec::Framed`.
///
/// ```
/// use futures_util::{SinkExt, StreamExt};
/// use mqtt_codec::{Codec, ConnackRef, ConnectRef, Decoder, Packet, PacketRef, ProtocolVersion, ReasonCode, Text};
/// use tokio_util::codec::Framed;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (client, server) = tokio::io::duplex(64); // or the two ends of a TcpStream
/// let codec = || Codec::new(Decoder::new(ProtocolVersion::V5).with_max_packet_size(64 * 1024));
///
/// let mut client = Framed::new(client, codec());
/// let connect = ConnectRef::new(ProtocolVersion::V311, Text::new("kitchen")?);
/// client.send(PacketRef::from(&connect)).await?;
///
/// let mut server = Framed::new(server, codec());
/// if let Some(Packet::Connect(connect)) = server.next().await.transpose()? {
///     // A CONNECT names its version itself; what follows it is in that version.
///     server.codec_mut().decoder_mut().set_version(connect.as_ref().version);
///     server.send(PacketRef::from(ConnackRef::new(ReasonCode::Success))).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Codec {
    decoder: Decoder,
}

impl Codec {
    /// Decodes with `decoder`, and encodes in its version.
    pub const fn new(decoder: Decoder) -> Self {
        Self { decoder }
    }

    /// The decoder.
    pub const fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The decoder, to set version or limits.
    pub const fn decoder_mut(&mut self) -> &mut Decoder {
        &mut self.decoder
    }
}

impl codec::Decoder for Codec {
    type Item = Packet;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Packet>, CodecError> {
        let packet = self.decoder.decode(src)?;
        if let (None, Some(len)) = (&packet, self.decoder.pending_len()) {
            // Bounded by the maximum packet size.
            src.reserve(len.saturating_sub(src.len()));
        }
        Ok(packet)
    }
}

impl codec::Encoder<PacketRef<'_>> for Codec {
    type Error = CodecError;

    fn encode(&mut self, packet: PacketRef<'_>, dst: &mut BytesMut) -> Result<(), CodecError> {
        Ok(packet.encode_to(self.decoder.version(), dst)?)
    }
}

/// So that what one peer sends can be forwarded to another as a `Stream` to a `Sink`.
impl codec::Encoder<Packet> for Codec {
    type Error = CodecError;

    fn encode(&mut self, packet: Packet, dst: &mut BytesMut) -> Result<(), CodecError> {
        codec::Encoder::<&Packet>::encode(self, &packet, dst)
    }
}

impl codec::Encoder<&Packet> for Codec {
    type Error = CodecError;

    fn encode(&mut self, packet: &Packet, dst: &mut BytesMut) -> Result<(), CodecError> {
        Ok(packet.as_ref().encode_to(self.decoder.version(), dst)?)
    }
}

/// Why a framed stream ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum CodecError {
    /// The peer sent what is no packet.
    Decode(DecodeError),
    /// A packet cannot be encoded; nothing of it was written.
    Encode(EncodeError),
    /// The stream below failed.
    Io(io::Error),
}

impl From<DecodeError> for CodecError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<EncodeError> for CodecError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

impl From<io::Error> for CodecError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decode(_) => "received bytes are no packet",
            Self::Encode(_) => "packet cannot be encoded",
            Self::Io(_) => "stream failed",
        })
    }
}

impl std::error::Error for CodecError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Decode(error) => Some(error),
            Self::Encode(error) => Some(error),
            Self::Io(error) => Some(error),
        }
    }
}
