use core::fmt;

use crate::{PropertyId, ReasonCode};

/// Why bytes are not a packet. Small, `Copy` and without text: see [`DecodeError::reason_code`] for what to send.
///
/// "Not here yet" is not an error: decoding answers `Ok(None)` then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes do not follow the format.
    Malformed(Malformed),
    /// The format is right, but the packet breaks a rule of the protocol.
    Protocol(ProtocolError),
}

impl DecodeError {
    /// The reason code for the DISCONNECT (in answer to CONNECT: the CONNACK) that reports this error.
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::Malformed(malformed) => malformed.reason_code(),
            Self::Protocol(protocol) => protocol.reason_code(),
        }
    }
}

impl From<Malformed> for DecodeError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

impl From<ProtocolError> for DecodeError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "malformed packet: {error}"),
            Self::Protocol(error) => write!(f, "protocol error: {error}"),
        }
    }
}

impl core::error::Error for DecodeError {}

macro_rules! rules {
    ($(#[$meta:meta])* $enum:ident, $default:ident; $($(#[$doc:meta])* $name:ident $(($field:ty))?, $text:literal, [$($statement:literal)*] $(=> $code:ident)?;)*) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $enum {
            $($(#[$doc])* $name $(($field))?,)*
        }

        impl $enum {
            /// The reason code that reports this error.
            pub const fn reason_code(self) -> ReasonCode {
                #[allow(unreachable_patterns)]
                match self {
                    $($(Self::$name { .. } => ReasonCode::$code,)?)*
                    _ => ReasonCode::$default,
                }
            }

            /// The normative statements that say so; those of MQTT 3.1.1 start with `v3.1.1`.
            pub const fn statements(self) -> &'static [&'static str] {
                match self {
                    $(Self::$name { .. } => &[$($statement),*],)*
                }
            }

            const fn text(self) -> &'static str {
                match self {
                    $(Self::$name { .. } => $text,)*
                }
            }
        }

        impl fmt::Display for $enum {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text())
            }
        }

        impl core::error::Error for $enum {}
    };
}

rules! {
    /// How bytes fail to follow the format. One variant a rule.
    Malformed, MalformedPacket;
    /// The packet type is 0, or AUTH before MQTT 5.
    PacketType, "reserved packet type", [];
    /// The lower half of the first byte is not what the packet type prescribes.
    FixedHeaderFlags, "reserved flags of the fixed header", ["MQTT-2.1.3-1" "v3.1.1 MQTT-2.2.2-2"];
    /// A variable byte integer of more than four bytes.
    VariableByteIntegerTooLong, "variable byte integer longer than four bytes", [];
    /// A variable byte integer in more bytes than it needs.
    VariableByteIntegerNotMinimal, "variable byte integer in more bytes than needed", ["MQTT-1.5.5-1"];
    /// A field, or a length that a field declares, ends outside of the packet or of its block.
    Overrun, "a field ends outside of the packet", [];
    /// Bytes follow the last field.
    TrailingBytes, "bytes after the last field", [];
    /// Text that is not UTF-8 (surrogates included).
    InvalidUtf8, "text is not UTF-8", ["MQTT-1.5.4-1" "v3.1.1 MQTT-1.5.3-1"];
    /// Text with U+0000.
    NulInText, "text contains U+0000", ["MQTT-1.5.4-2" "v3.1.1 MQTT-1.5.3-2"];
    /// A Packet Identifier of zero.
    PacketIdentifierZero, "Packet Identifier is zero", ["MQTT-2.2.1-3" "MQTT-2.2.1-4" "v3.1.1 MQTT-2.3.1-1"];
    /// QoS 3.
    QoS, "both QoS bits are set", ["MQTT-3.3.1-4" "MQTT-3.1.2-12" "v3.1.1 MQTT-3.3.1-4" "v3.1.1 MQTT-3.1.2-14" "v3.1.1 MQTT-3-8.3-4"];
    /// DUP in a PUBLISH of QoS 0.
    DupAtQoS0, "DUP is set at QoS 0", ["MQTT-3.3.1-2" "v3.1.1 MQTT-3.3.1-2"];
    /// The reserved bit of the connect flags is set.
    ConnectFlags, "reserved connect flag", ["MQTT-3.1.2-3" "v3.1.1 MQTT-3.1.2-3"];
    /// Will QoS or Will Retain without a Will.
    WillFlags, "Will QoS or Will Retain without a Will", ["MQTT-3.1.2-11" "MQTT-3.1.2-13" "v3.1.1 MQTT-3.1.2-13" "v3.1.1 MQTT-3.1.2-15"];
    /// Before MQTT 5: a Password without a User Name.
    PasswordWithoutUserName, "Password without User Name", ["v3.1.1 MQTT-3.1.2-22"];
    /// Reserved bits of the connect acknowledge flags are set.
    ConnackFlags, "reserved connect acknowledge flags", ["MQTT-3.2.2-1"];
    /// Reserved bits of the subscription options are set.
    SubscriptionOptions, "reserved subscription options", ["MQTT-3.8.3-5" "v3.1.1 MQTT-3-8.3-4"];
    /// A reason code (before MQTT 5: return code) that this packet cannot carry.
    ReasonCode, "reason code is not valid in this packet", ["MQTT-3.2.2-8" "MQTT-3.4.2-1" "MQTT-3.5.2-1" "MQTT-3.6.2-1" "MQTT-3.7.2-1" "MQTT-3.9.3-2" "MQTT-3.11.3-2" "MQTT-3.14.2-1" "MQTT-3.15.2-1" "v3.1.1 MQTT-3.9.3-2"];
    /// A property identifier that does not exist.
    UnknownProperty, "unknown property", [];
    /// A property that this packet cannot carry.
    MisplacedProperty(PropertyId), "property is not allowed in this packet", [];
    /// A Topic Name with `+` or `#`.
    WildcardInTopicName, "wildcard in a Topic Name", ["MQTT-3.3.2-2" "MQTT-4.7.0-1" "MQTT-3.3.2-14" "v3.1.1 MQTT-3.3.2-2" "v3.1.1 MQTT-4.7.1-1"] => TopicNameInvalid;
    /// An empty Topic Name (of a Will, or before MQTT 5, or a Response Topic).
    EmptyTopicName, "empty Topic Name", ["MQTT-4.7.3-1" "v3.1.1 MQTT-4.7.3-1"] => TopicNameInvalid;
    /// An empty Topic Filter.
    EmptyTopicFilter, "empty Topic Filter", ["MQTT-4.7.3-1" "v3.1.1 MQTT-4.7.3-1"] => TopicFilterInvalid;
    /// A wildcard that shares its level, or `#` before the last level.
    WildcardPosition, "misplaced wildcard in a Topic Filter", ["MQTT-4.7.1-1" "MQTT-4.7.1-2" "v3.1.1 MQTT-4.7.1-2" "v3.1.1 MQTT-4.7.1-3"] => TopicFilterInvalid;
    /// A shared subscription without a Share Name or Topic Filter, or with a wildcard in its Share Name.
    ShareName, "malformed shared subscription", ["MQTT-4.8.2-1" "MQTT-4.8.2-2"] => TopicFilterInvalid;
}

rules! {
    /// Which rule a well-formed packet breaks. One variant a rule.
    ProtocolError, ProtocolError;
    /// The packet is larger than the limit set on the decoder.
    PacketTooLarge, "packet is larger than the limit", [] => PacketTooLarge;
    /// The protocol name is none of MQTT's.
    ProtocolName, "unknown protocol name", ["MQTT-3.1.2-1" "v3.1.1 MQTT-3.1.2-1"] => UnsupportedProtocolVersion;
    /// The protocol level (version) is not known.
    ProtocolLevel, "unknown protocol level", ["MQTT-3.1.2-2" "v3.1.1 MQTT-3.1.2-2"] => UnsupportedProtocolVersion;
    /// MQTT 3.1.1: no Client Identifier without a clean session; MQTT 3.1: none at all.
    ClientIdentifierRequired, "empty Client Identifier", ["v3.1.1 MQTT-3.1.3-7"] => ClientIdentifierNotValid;
    /// A CONNACK that refuses, and says that a session is present.
    SessionPresentOnRefusal, "Session Present in a CONNACK that refuses", ["MQTT-3.2.2-6" "v3.1.1 MQTT-3.2.2-4"];
    /// A property more often than it may occur.
    DuplicateProperty(PropertyId), "property occurs more than once", [];
    /// A property whose value must be 0 or 1, and is not.
    NotABoolean(PropertyId), "value is neither 0 nor 1", [];
    /// A Receive Maximum or Maximum Packet Size of zero.
    ZeroValue(PropertyId), "value is zero", [];
    /// A Topic Alias of zero.
    TopicAliasZero, "Topic Alias is zero", ["MQTT-3.3.2-8"] => TopicAliasInvalid;
    /// A Subscription Identifier of zero.
    SubscriptionIdentifierZero, "Subscription Identifier is zero", [];
    /// An empty Topic Name without a Topic Alias.
    TopicNameMissing, "empty Topic Name without a Topic Alias", ["MQTT-4.7.3-1"];
    /// Authentication Data without an Authentication Method.
    AuthenticationMethodMissing, "Authentication Data without an Authentication Method", [];
    /// A SUBSCRIBE or UNSUBSCRIBE without a Topic Filter.
    NoTopicFilters, "no Topic Filters", ["MQTT-3.8.3-2" "MQTT-3.10.3-2" "v3.1.1 MQTT-3.8.3-3" "v3.1.1 MQTT-3.10.3-2"];
    /// A SUBACK or UNSUBACK without a reason code.
    NoReasonCodes, "no reason codes", ["MQTT-3.8.4-6" "v3.1.1 MQTT-3.8.4-5"];
    /// Retain Handling 3.
    RetainHandling, "Retain Handling is 3", [];
    /// No Local on a shared subscription.
    NoLocalOnShared, "No Local on a shared subscription", ["MQTT-3.8.3-4"];
}

/// Why a packet cannot be encoded. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EncodeError {
    /// The packet is longer than the 268,435,455 bytes that a Remaining Length can say.
    PacketTooLong,
    /// The buffer has a fixed size, and less room than [`encoded_len`](crate::PacketRef::encoded_len).
    BufferFull,
    /// This version has no such packet: AUTH before MQTT 5.
    NotInThisVersion,
    /// Properties before MQTT 5.
    PropertiesBeforeV5,
    /// A property that this packet cannot carry.
    MisplacedProperty(PropertyId),
    /// A property more often than it may occur.
    DuplicateProperty(PropertyId),
    /// A value that the property cannot have: Maximum QoS 2.
    PropertyValue(PropertyId),
    /// Binary data of more than 65,535 bytes.
    BinaryTooLong,
    /// A PUBLISH of QoS 1 or 2 without a Packet Identifier.
    PacketIdentifierMissing,
    /// A PUBLISH of QoS 0 with a Packet Identifier.
    PacketIdentifierAtQoS0,
    /// A PUBLISH of QoS 0 with DUP.
    DupAtQoS0,
    /// An empty Topic Name without a Topic Alias.
    TopicNameMissing,
    /// A SUBSCRIBE or UNSUBSCRIBE without a Topic Filter.
    NoTopicFilters,
    /// A SUBACK or UNSUBACK without a reason code.
    NoReasonCodes,
    /// Subscription options other than a QoS before MQTT 5.
    OptionsBeforeV5,
    /// No Local on a shared subscription.
    NoLocalOnShared,
    /// A shared subscription without a Share Name or Topic Filter, or with a wildcard in its Share Name.
    ShareName,
    /// A reason code that this packet cannot carry in this version.
    ReasonCode(ReasonCode),
    /// A CONNACK that refuses, and says that a session is present.
    SessionPresentOnRefusal,
    /// A CONNACK of MQTT 3.1 that says that a session is present.
    SessionPresentBeforeV311,
    /// MQTT 3.1.1: no Client Identifier without a clean session; MQTT 3.1: none at all.
    ClientIdentifierRequired,
    /// Before MQTT 5: a Password without a User Name.
    PasswordWithoutUserName,
    /// Authentication Data without an Authentication Method, or an AUTH without one.
    AuthenticationMethodMissing,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PacketTooLong => f.write_str("packet is longer than a Remaining Length can say"),
            Self::BufferFull => f.write_str("buffer has too little room"),
            Self::NotInThisVersion => f.write_str("this protocol version has no such packet"),
            Self::PropertiesBeforeV5 => f.write_str("properties need MQTT 5"),
            Self::MisplacedProperty(id) => write!(f, "{id} is not allowed in this packet"),
            Self::DuplicateProperty(id) => write!(f, "{id} occurs more than once"),
            Self::PropertyValue(id) => write!(f, "value is not allowed for {id}"),
            Self::BinaryTooLong => f.write_str("binary data is longer than 65535 bytes"),
            Self::PacketIdentifierMissing => f.write_str("QoS 1 and 2 need a Packet Identifier"),
            Self::PacketIdentifierAtQoS0 => f.write_str("QoS 0 has no Packet Identifier"),
            Self::DupAtQoS0 => f.write_str("QoS 0 has no DUP"),
            Self::TopicNameMissing => f.write_str("empty Topic Name without a Topic Alias"),
            Self::NoTopicFilters => f.write_str("no Topic Filters"),
            Self::NoReasonCodes => f.write_str("no reason codes"),
            Self::OptionsBeforeV5 => f.write_str("subscription options need MQTT 5"),
            Self::NoLocalOnShared => f.write_str("No Local on a shared subscription"),
            Self::ShareName => f.write_str("malformed shared subscription"),
            Self::ReasonCode(code) => write!(f, "this packet cannot carry the reason code {code}"),
            Self::SessionPresentOnRefusal => {
                f.write_str("Session Present in a CONNACK that refuses")
            }
            Self::SessionPresentBeforeV311 => f.write_str("Session Present needs MQTT 3.1.1"),
            Self::ClientIdentifierRequired => f.write_str("empty Client Identifier"),
            Self::PasswordWithoutUserName => f.write_str("Password without User Name"),
            Self::AuthenticationMethodMissing => f.write_str("Authentication Method is missing"),
        }
    }
}

impl core::error::Error for EncodeError {}

/// Why a string cannot stand in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TextError {
    /// More than 65,535 bytes.
    TooLong,
    /// Contains U+0000.
    Nul,
    /// An empty Topic Filter.
    Empty,
    /// A wildcard in a Topic Name, or where a Topic Filter cannot have it.
    Wildcard,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "longer than 65535 bytes",
            Self::Nul => "contains U+0000",
            Self::Empty => "empty",
            Self::Wildcard => "misplaced wildcard",
        })
    }
}

impl core::error::Error for TextError {}

const _: () = assert!(size_of::<DecodeError>() <= 4 && size_of::<EncodeError>() <= 4);
