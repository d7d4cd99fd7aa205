use core::fmt;

use crate::{PacketType, ProtocolVersion};

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal, [$($packet:ident)*];)*) => {
        /// Outcome of an operation, as an MQTT 5 reason code.
        ///
        /// MQTT 3.1 and 3.1.1 are mapped onto it: their CONNACK return codes 1 to 5 are
        /// [`UnsupportedProtocolVersion`](Self::UnsupportedProtocolVersion),
        /// [`ClientIdentifierNotValid`](Self::ClientIdentifierNotValid),
        /// [`ServerUnavailable`](Self::ServerUnavailable),
        /// [`BadUserNameOrPassword`](Self::BadUserNameOrPassword) and [`NotAuthorized`](Self::NotAuthorized), and
        /// the failure code of a SUBACK is [`UnspecifiedError`](Self::UnspecifiedError).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum ReasonCode {
            $($(#[$doc])* $name = $value,)*
        }

        impl ReasonCode {
            /// Every reason code.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The reason code with this number.
            pub const fn from_u8(code: u8) -> Option<Self> {
                match code {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        /// One bit a packet type, for each byte.
        const PACKETS: [u16; 256] = {
            let mut table = [0; 256];
            $(table[$value] = $(1 << PacketType::$packet as u8 |)* 0;)*
            table
        };
    };
}

reason_codes! {
    /// 0x00: success. Also "normal disconnection" (DISCONNECT) and "granted QoS 0" (SUBACK).
    Success = 0x00, "success", [Connack Puback Pubrec Pubrel Pubcomp Suback Unsuback Disconnect Auth];
    /// 0x01: the subscription was granted with QoS 1.
    GrantedQoS1 = 0x01, "granted QoS 1", [Suback];
    /// 0x02: the subscription was granted with QoS 2.
    GrantedQoS2 = 0x02, "granted QoS 2", [Suback];
    /// 0x04: the client disconnects and wants its Will Message published.
    DisconnectWithWillMessage = 0x04, "disconnect with Will Message", [Disconnect];
    /// 0x10: accepted, but nobody subscribes to the topic.
    NoMatchingSubscribers = 0x10, "no matching subscribers", [Puback Pubrec];
    /// 0x11: there was no such subscription.
    NoSubscriptionExisted = 0x11, "no subscription existed", [Unsuback];
    /// 0x18: the authentication goes on.
    ContinueAuthentication = 0x18, "continue authentication", [Auth];
    /// 0x19: the client asks for a new authentication.
    ReAuthenticate = 0x19, "re-authenticate", [Auth];
    /// 0x80: refused without saying why.
    UnspecifiedError = 0x80, "unspecified error", [Connack Puback Pubrec Suback Unsuback Disconnect];
    /// 0x81: the packet does not follow the format.
    MalformedPacket = 0x81, "malformed packet", [Connack Disconnect];
    /// 0x82: the packet breaks a rule.
    ProtocolError = 0x82, "protocol error", [Connack Disconnect];
    /// 0x83: valid, but not accepted by this implementation.
    ImplementationSpecificError = 0x83, "implementation specific error", [Connack Puback Pubrec Suback Unsuback Disconnect];
    /// 0x84: the server does not speak the requested version.
    UnsupportedProtocolVersion = 0x84, "unsupported protocol version", [Connack];
    /// 0x85: the Client Identifier is not allowed.
    ClientIdentifierNotValid = 0x85, "Client Identifier not valid", [Connack];
    /// 0x86: the credentials were not accepted.
    BadUserNameOrPassword = 0x86, "bad User Name or Password", [Connack];
    /// 0x87: not allowed.
    NotAuthorized = 0x87, "not authorized", [Connack Puback Pubrec Suback Unsuback Disconnect];
    /// 0x88: the server is not available.
    ServerUnavailable = 0x88, "server unavailable", [Connack];
    /// 0x89: the server is busy; try later.
    ServerBusy = 0x89, "server busy", [Connack Disconnect];
    /// 0x8A: this client is banned.
    Banned = 0x8A, "banned", [Connack];
    /// 0x8B: the server shuts down.
    ServerShuttingDown = 0x8B, "server shutting down", [Disconnect];
    /// 0x8C: the authentication method is not supported or not the one in use.
    BadAuthenticationMethod = 0x8C, "bad authentication method", [Connack Disconnect];
    /// 0x8D: nothing was received for one and a half times the Keep Alive.
    KeepAliveTimeout = 0x8D, "Keep Alive timeout", [Disconnect];
    /// 0x8E: another connection uses the same Client Identifier.
    SessionTakenOver = 0x8E, "session taken over", [Disconnect];
    /// 0x8F: the Topic Filter is well formed but not accepted.
    TopicFilterInvalid = 0x8F, "Topic Filter invalid", [Suback Unsuback Disconnect];
    /// 0x90: the Topic Name is well formed but not accepted.
    TopicNameInvalid = 0x90, "Topic Name invalid", [Connack Puback Pubrec Disconnect];
    /// 0x91: the Packet Identifier is in use.
    PacketIdentifierInUse = 0x91, "Packet Identifier in use", [Puback Pubrec Suback Unsuback];
    /// 0x92: the Packet Identifier is not known.
    PacketIdentifierNotFound = 0x92, "Packet Identifier not found", [Pubrel Pubcomp];
    /// 0x93: more messages are unacknowledged than Receive Maximum allows.
    ReceiveMaximumExceeded = 0x93, "Receive Maximum exceeded", [Disconnect];
    /// 0x94: the Topic Alias is zero, too large or unknown.
    TopicAliasInvalid = 0x94, "Topic Alias invalid", [Disconnect];
    /// 0x95: the packet is larger than the receiver accepts.
    PacketTooLarge = 0x95, "packet too large", [Connack Disconnect];
    /// 0x96: too many messages in too short a time.
    MessageRateTooHigh = 0x96, "message rate too high", [Disconnect];
    /// 0x97: a quota is used up.
    QuotaExceeded = 0x97, "quota exceeded", [Connack Puback Pubrec Suback Disconnect];
    /// 0x98: closed by an administrator.
    AdministrativeAction = 0x98, "administrative action", [Disconnect];
    /// 0x99: the payload is not what its Payload Format Indicator says.
    PayloadFormatInvalid = 0x99, "payload format invalid", [Connack Puback Pubrec Disconnect];
    /// 0x9A: the server does not retain messages.
    RetainNotSupported = 0x9A, "retain not supported", [Connack Disconnect];
    /// 0x9B: the QoS is above the server's Maximum QoS.
    QoSNotSupported = 0x9B, "QoS not supported", [Connack Disconnect];
    /// 0x9C: use another server for now.
    UseAnotherServer = 0x9C, "use another server", [Connack Disconnect];
    /// 0x9D: use another server from now on.
    ServerMoved = 0x9D, "server moved", [Connack Disconnect];
    /// 0x9E: the server has no shared subscriptions.
    SharedSubscriptionsNotSupported = 0x9E, "shared subscriptions not supported", [Suback Disconnect];
    /// 0x9F: too many connections in too short a time.
    ConnectionRateExceeded = 0x9F, "connection rate exceeded", [Connack Disconnect];
    /// 0xA0: the longest time allowed for one connection is over.
    MaximumConnectTime = 0xA0, "maximum connect time", [Disconnect];
    /// 0xA1: the server has no Subscription Identifiers.
    SubscriptionIdentifiersNotSupported = 0xA1, "Subscription Identifiers not supported", [Suback Disconnect];
    /// 0xA2: the server has no wildcard subscriptions.
    WildcardSubscriptionsNotSupported = 0xA2, "wildcard subscriptions not supported", [Suback Disconnect];
}

impl ReasonCode {
    /// Whether this code means failure (0x80 and above).
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// Whether a packet of type `packet` may carry this code in MQTT 5.
    pub const fn is_valid_for(self, packet: PacketType) -> bool {
        byte_is_valid_for(self as u8, packet)
    }

    /// Reads the code of a CONNACK or SUBACK of any version, or of another packet of MQTT 5.
    pub(crate) const fn from_wire(
        byte: u8,
        packet: PacketType,
        version: ProtocolVersion,
    ) -> Option<Self> {
        match (version, packet) {
            (ProtocolVersion::V5, _) => {
                if byte_is_valid_for(byte, packet) {
                    Self::from_u8(byte)
                } else {
                    None
                }
            }
            (_, PacketType::Connack) => match byte {
                0 => Some(Self::Success),
                1 => Some(Self::UnsupportedProtocolVersion),
                2 => Some(Self::ClientIdentifierNotValid),
                3 => Some(Self::ServerUnavailable),
                4 => Some(Self::BadUserNameOrPassword),
                5 => Some(Self::NotAuthorized),
                _ => None,
            },
            (_, PacketType::Suback) => match byte {
                0 => Some(Self::Success),
                1 => Some(Self::GrantedQoS1),
                2 => Some(Self::GrantedQoS2),
                0x80 => Some(Self::UnspecifiedError),
                _ => None,
            },
            _ => None,
        }
    }

    /// The byte that stands for this code in such a packet; `None` if none does.
    pub(crate) const fn to_wire(self, packet: PacketType, version: ProtocolVersion) -> Option<u8> {
        match (version, packet) {
            (ProtocolVersion::V5, _) => {
                if self.is_valid_for(packet) {
                    Some(self as u8)
                } else {
                    None
                }
            }
            (_, PacketType::Connack) => match self {
                Self::Success => Some(0),
                Self::UnsupportedProtocolVersion => Some(1),
                Self::ClientIdentifierNotValid => Some(2),
                Self::ServerUnavailable => Some(3),
                Self::BadUserNameOrPassword => Some(4),
                Self::NotAuthorized => Some(5),
                _ => None,
            },
            (_, PacketType::Suback) => match self {
                Self::Success | Self::GrantedQoS1 | Self::GrantedQoS2 | Self::UnspecifiedError => {
                    Some(self as u8)
                }
                _ => None,
            },
            _ => None,
        }
    }
}

impl From<ReasonCode> for u8 {
    fn from(code: ReasonCode) -> Self {
        code as Self
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02X})", self.text(), *self as u8)
    }
}

//= MQTT-3.2.2-8
//= MQTT-3.4.2-1
//= MQTT-3.5.2-1
//= MQTT-3.6.2-1
//= MQTT-3.7.2-1
//= MQTT-3.9.3-2
//= MQTT-3.11.3-2
//= MQTT-3.14.2-1
//= MQTT-3.15.2-1
pub(crate) const fn byte_is_valid_for(byte: u8, packet: PacketType) -> bool {
    #[allow(clippy::indexing_slicing, reason = "a byte indexes 256 entries")]
    let packets = PACKETS[byte as usize];
    packets >> packet as u8 & 1 == 1
}
