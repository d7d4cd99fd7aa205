use core::fmt;

use crate::ProtocolVersion;

/// The MQTT control packet types; the number is the upper half of a packet's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum PacketType {
    /// Client to server: asks for a connection.
    Connect = 1,
    /// Server to client: answers CONNECT.
    Connack = 2,
    /// Both ways: a message.
    Publish = 3,
    /// Both ways: acknowledges a QoS 1 message.
    Puback = 4,
    /// Both ways: QoS 2, first answer.
    Pubrec = 5,
    /// Both ways: QoS 2, release.
    Pubrel = 6,
    /// Both ways: QoS 2, end.
    Pubcomp = 7,
    /// Client to server: asks for subscriptions.
    Subscribe = 8,
    /// Server to client: answers SUBSCRIBE.
    Suback = 9,
    /// Client to server: ends subscriptions.
    Unsubscribe = 10,
    /// Server to client: answers UNSUBSCRIBE.
    Unsuback = 11,
    /// Client to server: keep-alive request.
    Pingreq = 12,
    /// Server to client: keep-alive answer.
    Pingresp = 13,
    /// Both ways (before MQTT 5: client to server): ends the connection.
    Disconnect = 14,
    /// Both ways, MQTT 5 only: extended authentication.
    Auth = 15,
}

impl PacketType {
    /// The type with this number, 1 to 15.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The acknowledgement of a message that begins with this byte.
    #[inline(always)]
    pub(crate) const fn of_ack(first: u8) -> Option<Self> {
        let packet = match first >> 4 {
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            _ => return None,
        };
        if first == packet.first_byte() {
            Some(packet)
        } else {
            None
        }
    }

    /// The first byte of a packet of this type, for types whose flags are fixed (all but PUBLISH).
    pub(crate) const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.fixed_flags()
    }

    /// The flags that the lower half of the first byte must hold (all but PUBLISH).
    //= MQTT-2.1.3-1
    //= MQTT-3.6.1-1
    //= MQTT-3.8.1-1
    //= MQTT-3.10.1-1
    //= MQTT-3.15.1-1
    //= v3.1.1 MQTT-2.2.2-1
    //= v3.1.1 MQTT-3.6.1-1
    //= v3.1.1 MQTT-3.8.1-1
    //= v3.1.1 MQTT-3.10.1-1
    pub(crate) const fn fixed_flags(self) -> u8 {
        match self {
            Self::Pubrel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// Whether `flags` may stand in the first byte of a packet of this type (all but PUBLISH).
    //= MQTT-3.14.1-1
    //= v3.1.1 MQTT-2.2.2-2
    //= v3.1.1 MQTT-3.14.1-1
    pub(crate) const fn accepts_flags(self, flags: u8, version: ProtocolVersion) -> bool {
        // MQTT 3.1 lets the sender mark a repeated PUBREL, SUBSCRIBE or UNSUBSCRIBE as a duplicate.
        let ignored = match (version, self) {
            (ProtocolVersion::V31, Self::Pubrel | Self::Subscribe | Self::Unsubscribe) => 0b1000,
            _ => 0,
        };
        flags & !ignored == self.fixed_flags()
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT",
            Self::Connack => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::Puback => "PUBACK",
            Self::Pubrec => "PUBREC",
            Self::Pubrel => "PUBREL",
            Self::Pubcomp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::Suback => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Unsuback => "UNSUBACK",
            Self::Pingreq => "PINGREQ",
            Self::Pingresp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        })
    }
}
