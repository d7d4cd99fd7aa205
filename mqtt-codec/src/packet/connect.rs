//! CONNECT: the first packet of a client.

use core::fmt;

use bytes::{BufMut, Bytes};

use super::checked::Checked;
use crate::error::{DecodeError, EncodeError, Malformed, ProtocolError};
use crate::wire::{
    Reader, binary_len, ensure_room, put_binary, put_fixed_header, text_len, varint_from,
};
use crate::{PacketType, Properties, PropertyScope, ProtocolVersion, QoS, Text, TopicName};

/// A CONNECT packet.
///
/// `Debug` shows neither User Name nor Password.
#[derive(Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the fields of the packet")]
pub struct ConnectRef<'a> {
    /// The version that the client asks for. CONNECT is encoded by it, whatever version the call names.
    pub version: ProtocolVersion,
    /// Whether the session begins anew (before MQTT 5: Clean Session).
    pub clean_start: bool,
    /// Longest time in seconds between two packets of the client; 0: no limit.
    pub keep_alive_secs: u16,
    /// MQTT 5 only.
    pub properties: Properties<'a>,
    /// May be empty: then the server chooses (MQTT 5, or 3.1.1 with a clean session).
    pub client_id: Text<'a>,
    /// What the server publishes when the connection ends without DISCONNECT.
    pub will: Option<WillRef<'a>>,
    /// User Name.
    pub user_name: Option<Text<'a>>,
    /// Password, at most 65,535 bytes; before MQTT 5 only with a User Name.
    pub password: Option<&'a [u8]>,
}

/// The Will Message of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the fields of the packet")]
pub struct WillRef<'a> {
    /// Where it is published.
    pub topic: TopicName<'a>,
    /// At most 65,535 bytes.
    pub payload: &'a [u8],
    /// The QoS with which it is published.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// MQTT 5 only.
    pub properties: Properties<'a>,
}

impl<'a> ConnectRef<'a> {
    /// A clean start with a Keep Alive of 60 seconds, and nothing else.
    pub const fn new(version: ProtocolVersion, client_id: Text<'a>) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive_secs: 60,
            properties: Properties::EMPTY,
            client_id,
            will: None,
            user_name: None,
            password: None,
        }
    }

    #[inline(always)]
    pub(super) fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let version = decode_version(&mut reader)?;
        let flags = reader.u8()?;
        //= MQTT-3.1.2-3
        //= v3.1.1 MQTT-3.1.2-3
        if flags & RESERVED != 0 && version != ProtocolVersion::V31 {
            return Err(Malformed::ConnectFlags.into());
        }
        //= MQTT-3.1.2-12
        //= v3.1.1 MQTT-3.1.2-14
        let will_qos = QoS::from_u8(flags >> 3 & 0b11).ok_or(Malformed::QoS)?;
        //= MQTT-3.1.2-11
        //= MQTT-3.1.2-13
        //= v3.1.1 MQTT-3.1.2-11
        //= v3.1.1 MQTT-3.1.2-13
        //= v3.1.1 MQTT-3.1.2-15
        if flags & WILL == 0
            && flags & (WILL_QOS | WILL_RETAIN) != 0
            && version != ProtocolVersion::V31
        {
            return Err(Malformed::WillFlags.into());
        }
        //= v3.1.1 MQTT-3.1.2-22
        if flags & (USER_NAME | PASSWORD) == PASSWORD && version != ProtocolVersion::V5 {
            return Err(Malformed::PasswordWithoutUserName.into());
        }
        let keep_alive_secs = reader.u16()?;
        let properties = Properties::decode(&mut reader, PropertyScope::Connect, version)?;

        //= MQTT-3.1.3-1
        //= MQTT-3.1.3-3
        //= MQTT-3.1.3-4
        //= v3.1.1 MQTT-3.1.3-1
        //= v3.1.1 MQTT-3.1.3-3
        //= v3.1.1 MQTT-3.1.3-4
        let client_id = reader.text()?;
        let clean_start = flags & CLEAN_START != 0;
        if client_id.is_empty() && needs_client_id(version, clean_start) {
            return Err(ProtocolError::ClientIdentifierRequired.into());
        }
        //= MQTT-3.1.2-9
        //= v3.1.1 MQTT-3.1.2-9
        let will = if flags & WILL != 0 {
            //= MQTT-3.1.3-10
            let properties = Properties::decode(&mut reader, PropertyScope::Will, version)?;
            //= MQTT-3.1.3-11
            //= v3.1.1 MQTT-3.1.3-10
            let topic = reader.topic_name()?;
            Some(WillRef {
                topic,
                payload: reader.binary()?,
                qos: will_qos,
                retain: flags & WILL_RETAIN != 0,
                properties,
            })
        } else {
            None
        };
        // In MQTT 3.1 the length of the packet has precedence over these two flags.
        let is_present = |flag: u8, reader: &Reader<'_>| {
            flags & flag != 0 && !(version == ProtocolVersion::V31 && reader.is_empty())
        };
        //= MQTT-3.1.2-16
        //= MQTT-3.1.2-17
        //= MQTT-3.1.3-12
        //= v3.1.1 MQTT-3.1.2-18
        //= v3.1.1 MQTT-3.1.2-19
        //= v3.1.1 MQTT-3.1.3-11
        let user_name = if is_present(USER_NAME, &reader) {
            Some(reader.text()?)
        } else {
            None
        };
        //= MQTT-3.1.2-18
        //= MQTT-3.1.2-19
        //= v3.1.1 MQTT-3.1.2-20
        //= v3.1.1 MQTT-3.1.2-21
        let password = if is_present(PASSWORD, &reader) {
            Some(reader.binary()?)
        } else {
            None
        };
        reader.finish()?;
        Ok(Self {
            version,
            clean_start,
            keep_alive_secs,
            properties,
            client_id,
            will,
            user_name,
            password,
        })
    }

    fn measure(&self) -> Result<Plan, EncodeError> {
        let version = self.version;
        let properties = self.properties.measure(PropertyScope::Connect, version)?;
        if !properties.is_empty()
            && self.properties.authentication_data().is_some()
            && self.properties.authentication_method().is_none()
        {
            return Err(EncodeError::AuthenticationMethodMissing);
        }
        //= v3.1.1 MQTT-3.1.3-7
        if self.client_id.is_empty() && needs_client_id(version, self.clean_start) {
            return Err(EncodeError::ClientIdentifierRequired);
        }
        if self.password.is_some() && self.user_name.is_none() && version != ProtocolVersion::V5 {
            return Err(EncodeError::PasswordWithoutUserName);
        }
        let mut remaining = text_len(version.name())
            + 1
            + 1
            + 2
            + properties.total as usize
            + text_len(self.client_id);
        let mut will_properties = None;
        if let Some(will) = &self.will {
            if will.topic.is_empty() {
                return Err(EncodeError::TopicNameMissing);
            }
            let properties = will.properties.measure(PropertyScope::Will, version)?;
            remaining +=
                properties.total as usize + text_len(will.topic) + binary_len(will.payload)?;
            will_properties = Some(properties);
        }
        if let Some(user_name) = self.user_name {
            remaining += text_len(user_name);
        }
        if let Some(password) = self.password {
            remaining += binary_len(password)?;
        }
        Ok(Plan {
            remaining: varint_from(remaining)?,
            properties,
            will_properties,
        })
    }

    pub(super) fn remaining_len(&self) -> Result<u32, EncodeError> {
        self.measure().map(|plan| plan.remaining)
    }

    /// Length of the whole packet in bytes.
    ///
    /// # Errors
    ///
    /// If the packet cannot be encoded.
    pub fn encoded_len(&self) -> Result<usize, EncodeError> {
        self.remaining_len().map(crate::wire::packet_len)
    }

    /// Appends the packet to `dst`, in the version that it names.
    ///
    /// # Errors
    ///
    /// If the packet cannot be encoded; nothing is written then.
    pub fn encode(&self, dst: &mut impl BufMut) -> Result<(), EncodeError> {
        let plan = self.measure()?;
        ensure_room(dst, plan.remaining, 0)?;
        put_fixed_header(dst, PacketType::Connect.first_byte(), plan.remaining);
        put_binary(dst, self.version.name().as_bytes());
        dst.put_u8(self.version.level());
        dst.put_u8(self.flags());
        dst.put_u16(self.keep_alive_secs);
        self.properties.put(plan.properties, dst);
        put_binary(dst, self.client_id.as_bytes());
        if let (Some(will), Some(properties)) = (&self.will, plan.will_properties) {
            will.properties.put(properties, dst);
            put_binary(dst, will.topic.as_bytes());
            put_binary(dst, will.payload);
        }
        if let Some(user_name) = self.user_name {
            put_binary(dst, user_name.as_bytes());
        }
        if let Some(password) = self.password {
            put_binary(dst, password);
        }
        Ok(())
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= WILL | (will.qos as u8) << 3;
            if will.retain {
                flags |= WILL_RETAIN;
            }
        }
        if self.user_name.is_some() {
            flags |= USER_NAME;
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        flags
    }
}

impl fmt::Debug for ConnectRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_secs", &self.keep_alive_secs)
            .field("properties", &self.properties)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("user_name", &self.user_name.map(|_| "redacted"))
            .field("password", &self.password.map(|_| "redacted"))
            .finish()
    }
}

/// A CONNECT inside a [`PacketRef`](crate::PacketRef): checked bytes, read on demand, or yours to encode.
///
/// CONNECT has more fields than all other packets. Held like this, they do not make those larger.
#[derive(Clone, Copy)]
pub struct ConnectView<'a>(Repr<'a>);

#[derive(Clone, Copy)]
enum Repr<'a> {
    /// What follows the fixed header. Passed [`ConnectRef::decode`].
    Checked(&'a [u8]),
    Given(&'a ConnectRef<'a>),
}

impl<'a> ConnectView<'a> {
    #[inline]
    pub(super) fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        ConnectRef::decode(body)?;
        Ok(Self(Repr::Checked(body)))
    }

    pub(super) fn remaining_len(&self) -> Result<u32, EncodeError> {
        self.get().remaining_len()
    }

    pub(super) fn encode(&self, dst: &mut impl BufMut) -> Result<(), EncodeError> {
        match self.0 {
            // Of MQTT 3.1, more is accepted than is sent.
            Repr::Checked(body) if !body.starts_with(b"\x00\x06MQIsdp") => {
                let remaining = varint_from(body.len())?;
                ensure_room(dst, remaining, 0)?;
                put_fixed_header(dst, PacketType::Connect.first_byte(), remaining);
                dst.put_slice(body);
                Ok(())
            }
            _ => self.get().encode(dst),
        }
    }

    /// The fields.
    pub fn get(&self) -> ConnectRef<'a> {
        match self.0 {
            // What was decoded once is decoded again; the error is unreachable, and better answered than a panic.
            Repr::Checked(body) => ConnectRef::decode(body).unwrap_or(ConnectRef::new(
                ProtocolVersion::V5,
                Text::from_checked(&[]),
            )),
            Repr::Given(packet) => *packet,
        }
    }
}

impl<'a> From<&'a ConnectRef<'a>> for ConnectView<'a> {
    fn from(packet: &'a ConnectRef<'a>) -> Self {
        Self(Repr::Given(packet))
    }
}

impl PartialEq for ConnectView<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for ConnectView<'_> {}

impl fmt::Debug for ConnectView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// A CONNECT packet with a shared handle on its frame. `Debug` shows neither User Name nor Password.
#[derive(Clone)]
pub struct Connect(Checked);

impl Connect {
    #[inline(always)]
    pub(super) const fn from_checked(checked: Checked) -> Self {
        Self(checked)
    }

    /// The fields.
    pub fn as_ref(&self) -> ConnectRef<'_> {
        self.view().get()
    }

    pub(super) fn view(&self) -> ConnectView<'_> {
        ConnectView(Repr::Checked(self.0.body()))
    }

    /// The whole packet.
    pub const fn frame(&self) -> &Bytes {
        self.0.frame()
    }
}

struct Plan {
    remaining: u32,
    properties: crate::property::Measured,
    will_properties: Option<crate::property::Measured>,
}

//= MQTT-3.1.2-1
//= MQTT-3.1.2-2
//= v3.1.1 MQTT-3.1.2-1
//= v3.1.1 MQTT-3.1.2-2
fn decode_version(reader: &mut Reader<'_>) -> Result<ProtocolVersion, DecodeError> {
    let name = reader.binary()?;
    let level = reader.u8()?;
    match (name, level) {
        (b"MQTT", 5) => Ok(ProtocolVersion::V5),
        (b"MQTT", 4) => Ok(ProtocolVersion::V311),
        (b"MQIsdp", 3) => Ok(ProtocolVersion::V31),
        (b"MQTT" | b"MQIsdp", _) => Err(ProtocolError::ProtocolLevel.into()),
        _ => Err(ProtocolError::ProtocolName.into()),
    }
}

//= v3.1.1 MQTT-3.1.3-7
fn needs_client_id(version: ProtocolVersion, clean_start: bool) -> bool {
    match version {
        ProtocolVersion::V31 => true,
        ProtocolVersion::V311 => !clean_start,
        ProtocolVersion::V5 => false,
    }
}

const RESERVED: u8 = 1;
const CLEAN_START: u8 = 1 << 1;
const WILL: u8 = 1 << 2;
const WILL_QOS: u8 = 0b11 << 3;
const WILL_RETAIN: u8 = 1 << 5;
const PASSWORD: u8 = 1 << 6;
const USER_NAME: u8 = 1 << 7;
