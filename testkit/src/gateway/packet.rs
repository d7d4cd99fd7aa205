//! As much of MQTT 3.1, 3.1.1 and 5 as the gateway looks at. Written from the standard for this
//! crate alone: the codec of this workspace is what others test with it.

use bytes::Bytes;

use crate::wire;

/// The levels in a CONNECT.
pub(super) const LEVEL_5: u8 = 5;

/// Types of control packets: the upper half of the first byte.
pub(super) mod kind {
    pub(in super::super) const CONNECT: u8 = 1;
    pub(in super::super) const CONNACK: u8 = 2;
    pub(in super::super) const PUBLISH: u8 = 3;
    pub(in super::super) const PUBACK: u8 = 4;
    pub(in super::super) const PUBREC: u8 = 5;
    pub(in super::super) const PUBREL: u8 = 6;
    pub(in super::super) const PUBCOMP: u8 = 7;
    pub(in super::super) const SUBSCRIBE: u8 = 8;
    pub(in super::super) const SUBACK: u8 = 9;
    pub(in super::super) const UNSUBSCRIBE: u8 = 10;
    pub(in super::super) const DISCONNECT: u8 = 14;
    pub(in super::super) const AUTH: u8 = 15;
}

/// Identifiers of properties of MQTT 5.
mod property {
    pub(super) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub(super) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub(super) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(super) const TOPIC_ALIAS: u8 = 0x23;
    pub(super) const MAXIMUM_QOS: u8 = 0x24;
    pub(super) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(super) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub(super) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
    pub(super) const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
    pub(super) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2a;
}

pub(super) fn kind_of(packet: &[u8]) -> u8 {
    packet.first().map_or(0, |first| first >> 4)
}

pub(super) struct Connect {
    pub(super) level: u8,
    pub(super) keep_alive: u16,
    pub(super) client_id: String,
    pub(super) user_name: Option<String>,
    pub(super) password: Option<Bytes>,
    pub(super) will: Option<Will>,
    /// Whether the session is to outlive the connection.
    pub(super) is_persistent: bool,
    keep_alive_at: usize,
}

pub(super) struct Will {
    pub(super) topic: String,
    pub(super) qos: u8,
    pub(super) retain: bool,
}

impl Connect {
    pub(super) fn parse(packet: &Bytes) -> Option<Self> {
        let mut reader = Reader::body(packet);
        reader.text()?;
        let level = reader.byte()?;
        let flags = reader.byte()?;
        let keep_alive_at = reader.at;
        let keep_alive = reader.two()?;
        let mut is_persistent = flags & 0x02 == 0;
        if level == LEVEL_5 {
            let properties = reader.properties()?;
            is_persistent = properties.iter().any(|(name, value)| {
                *name == property::SESSION_EXPIRY_INTERVAL && value.iter().any(|&byte| byte != 0)
            });
        }
        let client_id = reader.text()?;
        let mut will = None;
        if flags & 0x04 != 0 {
            if level == LEVEL_5 {
                reader.properties()?;
            }
            let topic = reader.text()?;
            reader.binary()?;
            will = Some(Will {
                topic,
                qos: flags >> 3 & 3,
                retain: flags & 0x20 != 0,
            });
        }
        let user_name = match flags & 0x80 {
            0 => None,
            _ => Some(reader.text()?),
        };
        let password = match flags & 0x40 {
            0 => None,
            _ => Some(reader.binary()?),
        };
        Some(Self {
            level,
            keep_alive,
            client_id,
            user_name,
            password,
            will,
            is_persistent,
            keep_alive_at,
        })
    }

    /// The same packet with another keep alive.
    pub(super) fn with_keep_alive(&self, packet: &Bytes, keep_alive: u16) -> Bytes {
        let mut bytes = packet.to_vec();
        bytes[self.keep_alive_at..self.keep_alive_at + 2]
            .copy_from_slice(&keep_alive.to_be_bytes());
        bytes.into()
    }
}

pub(super) struct Publish {
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// Empty if the alias stands for it.
    pub(super) topic: String,
    pub(super) alias: Option<u16>,
    pub(super) id: Option<u16>,
    pub(super) payload_length: usize,
    id_at: usize,
}

impl Publish {
    pub(super) fn parse(packet: &Bytes, level: u8) -> Option<Self> {
        let flags = packet.first()? & 0x0f;
        let mut reader = Reader::body(packet);
        let topic = reader.text()?;
        let qos = flags >> 1 & 3;
        let id_at = reader.at;
        let id = match qos {
            0 => None,
            _ => Some(reader.two()?),
        };
        let mut alias = None;
        if level == LEVEL_5 {
            alias = reader
                .properties()?
                .into_iter()
                .find(|(name, _)| *name == property::TOPIC_ALIAS)
                .and_then(|(_, value)| Some(u16::from_be_bytes(value[..].try_into().ok()?)));
        }
        Some(Self {
            qos,
            retain: flags & 1 != 0,
            topic,
            alias,
            id,
            payload_length: reader.left(),
            id_at,
        })
    }

    /// The same packet with another packet identifier; without one it stays as it is.
    pub(super) fn with_id(&self, packet: &Bytes, id: u16) -> Bytes {
        if self.id.is_none() {
            return packet.clone();
        }
        let mut bytes = packet.to_vec();
        bytes[self.id_at..self.id_at + 2].copy_from_slice(&id.to_be_bytes());
        bytes.into()
    }
}

pub(super) struct Subscribe {
    pub(super) id: u16,
    pub(super) has_identifier: bool,
    /// Filters, each with its options byte.
    pub(super) filters: Vec<(String, u8)>,
    properties: Bytes,
}

impl Subscribe {
    pub(super) fn parse(packet: &Bytes, level: u8) -> Option<Self> {
        let mut reader = Reader::body(packet);
        let id = reader.two()?;
        let before = reader.at;
        let mut has_identifier = false;
        if level == LEVEL_5 {
            let properties = reader.properties()?;
            has_identifier = properties
                .iter()
                .any(|(name, _)| *name == property::SUBSCRIPTION_IDENTIFIER);
        }
        let properties = packet.slice(before..reader.at);
        let mut filters = Vec::new();
        while reader.left() > 0 {
            filters.push((reader.text()?, reader.byte()?));
        }
        Some(Self {
            id,
            has_identifier,
            filters,
            properties,
        })
    }

    /// The same packet with those filters only that pass.
    pub(super) fn with(&self, passes: &[bool]) -> Bytes {
        let mut body = self.id.to_be_bytes().to_vec();
        body.extend_from_slice(&self.properties);
        for ((filter, options), _) in self.filters.iter().zip(passes).filter(|(_, p)| **p) {
            wire::put_text(&mut body, filter.as_bytes());
            body.push(*options);
        }
        wire::packet(0x82, &body)
    }
}

/// The packet identifier of a SUBACK, and where its reason codes begin.
pub(super) fn parse_suback(packet: &Bytes, level: u8) -> Option<(u16, usize)> {
    let mut reader = Reader::body(packet);
    let id = reader.two()?;
    if level == LEVEL_5 {
        reader.properties()?;
    }
    Some((id, reader.at))
}

pub(super) fn suback(id: u16, level: u8, codes: &[u8]) -> Bytes {
    let mut body = id.to_be_bytes().to_vec();
    if level == LEVEL_5 {
        body.push(0);
    }
    body.extend_from_slice(codes);
    wire::packet(0x90, &body)
}

/// The packet identifier and filters of an UNSUBSCRIBE.
pub(super) fn parse_unsubscribe(packet: &Bytes, level: u8) -> Option<Vec<String>> {
    let mut reader = Reader::body(packet);
    reader.two()?;
    if level == LEVEL_5 {
        reader.properties()?;
    }
    let mut filters = Vec::new();
    while reader.left() > 0 {
        filters.push(reader.text()?);
    }
    Some(filters)
}

/// The packet identifier of a PUBACK.
pub(super) fn parse_puback(packet: &Bytes) -> Option<u16> {
    Reader::body(packet).two()
}

pub(super) fn puback(id: u16, level: u8, reason: u8) -> Bytes {
    let mut body = id.to_be_bytes().to_vec();
    if level == LEVEL_5 {
        body.push(reason);
    }
    wire::packet(0x40, &body)
}

/// A DISCONNECT from the server, which only MQTT 5 has.
pub(super) fn disconnect(reason: u8) -> Bytes {
    wire::packet(0xe0, &[reason])
}

/// A CONNACK of MQTT 5 that refuses.
pub(super) fn refusing_connack(reason: u8) -> Bytes {
    wire::packet(0x20, &[0, reason, 0])
}

/// Whether a CONNACK accepts, and whether a session is present.
pub(super) fn parse_connack(packet: &Bytes) -> Option<(bool, bool)> {
    let mut reader = Reader::body(packet);
    let flags = reader.byte()?;
    Some((reader.byte()? == 0, flags & 1 != 0))
}

/// The limits that the service announces under MQTT 5 in place of the broker's.
pub(super) struct Announcement {
    pub(super) receive_maximum: u16,
    pub(super) topic_alias_maximum: u16,
    pub(super) maximum_packet_size: u32,
    pub(super) server_keep_alive: Option<u16>,
}

impl Announcement {
    /// The broker's accepting CONNACK with these limits. What the session is, it says itself.
    pub(super) fn put_into(&self, packet: &Bytes) -> Option<Bytes> {
        use property::*;
        let mut reader = Reader::body(packet);
        let mut body = vec![reader.byte()?, reader.byte()?];
        let theirs = reader.properties()?;
        let mut properties = Vec::new();
        for (name, value) in theirs {
            if [SESSION_EXPIRY_INTERVAL, ASSIGNED_CLIENT_IDENTIFIER].contains(&name) {
                properties.push(name);
                if name == ASSIGNED_CLIENT_IDENTIFIER {
                    wire::put_text(&mut properties, &value);
                } else {
                    properties.extend_from_slice(&value);
                }
            }
        }
        properties.push(RECEIVE_MAXIMUM);
        properties.extend_from_slice(&self.receive_maximum.to_be_bytes());
        properties.push(TOPIC_ALIAS_MAXIMUM);
        properties.extend_from_slice(&self.topic_alias_maximum.to_be_bytes());
        properties.push(MAXIMUM_PACKET_SIZE);
        properties.extend_from_slice(&self.maximum_packet_size.to_be_bytes());
        if let Some(keep_alive) = self.server_keep_alive {
            properties.push(SERVER_KEEP_ALIVE);
            properties.extend_from_slice(&keep_alive.to_be_bytes());
        }
        properties.extend_from_slice(&[
            MAXIMUM_QOS,
            1,
            RETAIN_AVAILABLE,
            1,
            WILDCARD_SUBSCRIPTION_AVAILABLE,
            1,
            SUBSCRIPTION_IDENTIFIER_AVAILABLE,
            0,
            SHARED_SUBSCRIPTION_AVAILABLE,
            1,
        ]);
        // An assigned client identifier makes it longer than a length of one byte can say.
        let mut rest = properties.len();
        loop {
            let digit = u8::try_from(rest & 0x7f).ok()?;
            rest >>= 7;
            body.push(if rest > 0 { digit | 0x80 } else { digit });
            if rest == 0 {
                break;
            }
        }
        body.extend_from_slice(&properties);
        Some(wire::packet(0x20, &body))
    }
}

struct Reader<'a> {
    packet: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Begins after the fixed header.
    fn body(packet: &'a Bytes) -> Self {
        let length_bytes = packet.iter().skip(1).position(|byte| byte & 0x80 == 0);
        let at = length_bytes.map_or(packet.len(), |last| last + 2);
        Self { packet, at }
    }

    fn left(&self) -> usize {
        self.packet.len() - self.at
    }

    fn bytes(&mut self, length: usize) -> Option<Bytes> {
        if self.left() < length {
            return None;
        }
        let taken = self.packet.slice(self.at..self.at + length);
        self.at += length;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    fn two(&mut self) -> Option<u16> {
        let bytes = self.bytes(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn binary(&mut self) -> Option<Bytes> {
        let length = self.two()?;
        self.bytes(usize::from(length))
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.binary()?.to_vec()).ok()
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// The block of properties with its length; of a text or binary one the value has no length.
    fn properties(&mut self) -> Option<Vec<(u8, Bytes)>> {
        let length = self.varint()?;
        let end = self
            .at
            .checked_add(length)
            .filter(|&e| e <= self.packet.len())?;
        let mut properties = Vec::new();
        while self.at < end {
            let name = self.byte()?;
            let value = match name {
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => self.bytes(1)?,
                0x13 | 0x21 | 0x22 | 0x23 => self.bytes(2)?,
                0x02 | 0x11 | 0x18 | 0x27 => self.bytes(4)?,
                0x0b => {
                    let from = self.at;
                    self.varint()?;
                    self.packet.slice(from..self.at)
                }
                0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => self.binary()?,
                0x26 => {
                    let from = self.at;
                    self.binary()?;
                    self.binary()?;
                    self.packet.slice(from..self.at)
                }
                _ => return None,
            };
            properties.push((name, value));
        }
        (self.at == end).then_some(properties)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_and_no_cut_of_them_panics() {
        let connect = Bytes::from_static(
            b"\x10\x25\x00\x04MQTT\x05\xee\x00\x3c\x05\x11\x00\x00\x00\x01\x00\x01c\x00\x00\x01w\x00\x02hi\x00\x04user\x00\x02pw",
        );
        let read = Connect::parse(&connect).unwrap();
        assert_eq!((read.level, read.keep_alive), (5, 60));
        assert_eq!(read.client_id, "c");
        assert_eq!(read.user_name.as_deref(), Some("user"));
        assert_eq!(read.password.as_deref(), Some(&b"pw"[..]));
        let will = read.will.as_ref().unwrap();
        assert_eq!((will.topic.as_str(), will.qos, will.retain), ("w", 1, true));
        let patched = read.with_keep_alive(&connect, 30);
        assert_eq!(Connect::parse(&patched).unwrap().keep_alive, 30);

        let publish = Bytes::from_static(b"\x33\x0c\x00\x01t\x00\x07\x03\x23\x00\x04xyz");
        let read = Publish::parse(&publish, 5).unwrap();
        assert_eq!((read.qos, read.retain, read.id), (1, true, Some(7)));
        assert_eq!((read.alias, read.payload_length), (Some(4), 3));
        let other = read.with_id(&publish, 0xf00f);
        assert_eq!(&other[..7], b"\x33\x0c\x00\x01t\xf0\x0f");
        assert_eq!(other[7..], publish[7..]);

        let subscribe =
            Bytes::from_static(b"\x82\x0d\x00\x09\x02\x0b\x05\x00\x01a\x01\x00\x01b\x00");
        let read = Subscribe::parse(&subscribe, 5).unwrap();
        assert!(read.has_identifier);
        assert_eq!(read.filters, [("a".to_owned(), 1), ("b".to_owned(), 0)]);
        assert_eq!(read.with(&[true, true]), subscribe);
        let second = Subscribe::parse(&read.with(&[false, true]), 5).unwrap();
        assert_eq!(second.filters, [("b".to_owned(), 0)]);

        for packet in [connect, publish, subscribe] {
            for cut in 0..packet.len() {
                let cut = packet.slice(..cut);
                assert!(Connect::parse(&cut).is_none());
                // A shorter payload or list of filters may still be read.
                let _ = (Publish::parse(&cut, 5), Publish::parse(&cut, 4));
                let _ = (Subscribe::parse(&cut, 5), Subscribe::parse(&cut, 4));
                let _ = (parse_suback(&cut, 5), parse_unsubscribe(&cut, 5));
                let _ = parse_connack(&cut);
            }
        }
    }

    #[test]
    fn limits_replace_the_brokers() {
        // Session present no, success; assigned client identifier "id", maximum QoS 2 left out.
        let theirs = Bytes::from_static(b"\x20\x0b\x00\x00\x08\x12\x00\x02id\x21\xff\xff");
        let announced = Announcement {
            receive_maximum: 100,
            topic_alias_maximum: 8,
            maximum_packet_size: 1000,
            server_keep_alive: Some(30),
        };
        let ours = announced.put_into(&theirs).unwrap();
        let expected: &[u8] =
            b"\x20\x20\x00\x00\x1d\x12\x00\x02id\x21\x00\x64\x22\x00\x08\x27\x00\x00\x03\xe8\x13\x00\x1e\x24\x01\x25\x01\x28\x01\x29\x00\x2a\x01";
        assert_eq!(&ours[..], expected);
    }
}
