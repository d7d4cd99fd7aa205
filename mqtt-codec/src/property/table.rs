//! The one table of properties: identifier, type, packets, repetition.

use core::fmt;

use crate::PacketType;

/// Where properties stand: in a packet of some type, or in the Will of a CONNECT.
///
/// PINGREQ and PINGRESP have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
// A word, since it is the tag of every decoded view: what is smaller drags seven bytes of padding along.
#[repr(usize)]
#[non_exhaustive]
pub enum PropertyScope {
    /// The Will Properties in the payload of a CONNECT.
    Will = 0,
    /// CONNECT.
    Connect = PacketType::Connect as usize,
    /// CONNACK.
    Connack = PacketType::Connack as usize,
    /// PUBLISH.
    Publish = PacketType::Publish as usize,
    /// PUBACK.
    Puback = PacketType::Puback as usize,
    /// PUBREC.
    Pubrec = PacketType::Pubrec as usize,
    /// PUBREL.
    Pubrel = PacketType::Pubrel as usize,
    /// PUBCOMP.
    Pubcomp = PacketType::Pubcomp as usize,
    /// SUBSCRIBE.
    Subscribe = PacketType::Subscribe as usize,
    /// SUBACK.
    Suback = PacketType::Suback as usize,
    /// UNSUBSCRIBE.
    Unsubscribe = PacketType::Unsubscribe as usize,
    /// UNSUBACK.
    Unsuback = PacketType::Unsuback as usize,
    /// DISCONNECT.
    Disconnect = PacketType::Disconnect as usize,
    /// AUTH.
    Auth = PacketType::Auth as usize,
}

impl PropertyScope {
    /// Every scope.
    pub const ALL: [Self; 14] = [
        Self::Will,
        Self::Connect,
        Self::Connack,
        Self::Publish,
        Self::Puback,
        Self::Pubrec,
        Self::Pubrel,
        Self::Pubcomp,
        Self::Subscribe,
        Self::Suback,
        Self::Unsubscribe,
        Self::Unsuback,
        Self::Disconnect,
        Self::Auth,
    ];

    const fn bit(self) -> u16 {
        1 << self as u8
    }
}

/// Data type of a property's value, with its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A byte that is 0 or 1.
    Flag,
    /// Two bytes.
    U16,
    /// Two bytes, not zero.
    NonZeroU16,
    /// Four bytes.
    U32,
    /// Four bytes, not zero.
    NonZeroU32,
    /// A variable byte integer, not zero.
    NonZeroVarint,
    Text,
    TopicName,
    Binary,
    TextPair,
}

macro_rules! properties {
    ($($(#[$doc:meta])* $value:literal $name:ident, $text:literal, $kind:ident, [$($scope:ident)*], repeats [$($repeats:ident)*];)*) => {
        /// Which property: the identifier on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum PropertyId {
            $($(#[$doc])* $name = $value,)*
        }

        impl PropertyId {
            /// Every property.
            pub const ALL: [Self; 27] = [$(Self::$name),*];

            /// The property with this identifier.
            pub const fn from_u8(id: u8) -> Option<Self> {
                match id {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        /// By identifier, so that a lookup is one load.
        static RULES: [Option<Rule>; 43] = {
            let mut rules: [Option<Rule>; 43] = [None; 43];
            $(rules[$value] = Some(Rule {
                id: PropertyId::$name,
                kind: Kind::$kind,
                scopes: $(PropertyScope::$scope.bit() |)* 0,
                repeats: $(PropertyScope::$repeats.bit() |)* 0,
            });)*
            rules
        };
    };
}

properties! {
    /// 0x01: Payload Format Indicator.
    0x01 PayloadFormatIndicator, "Payload Format Indicator", Flag, [Will Publish], repeats [];
    /// 0x02: Message Expiry Interval.
    0x02 MessageExpiryInterval, "Message Expiry Interval", U32, [Will Publish], repeats [];
    /// 0x03: Content Type.
    0x03 ContentType, "Content Type", Text, [Will Publish], repeats [];
    /// 0x08: Response Topic.
    0x08 ResponseTopic, "Response Topic", TopicName, [Will Publish], repeats [];
    /// 0x09: Correlation Data.
    0x09 CorrelationData, "Correlation Data", Binary, [Will Publish], repeats [];
    /// 0x0B: Subscription Identifier.
    0x0B SubscriptionIdentifier, "Subscription Identifier", NonZeroVarint, [Publish Subscribe], repeats [Publish];
    /// 0x11: Session Expiry Interval.
    0x11 SessionExpiryInterval, "Session Expiry Interval", U32, [Connect Connack Disconnect], repeats [];
    /// 0x12: Assigned Client Identifier.
    0x12 AssignedClientIdentifier, "Assigned Client Identifier", Text, [Connack], repeats [];
    /// 0x13: Server Keep Alive.
    0x13 ServerKeepAlive, "Server Keep Alive", U16, [Connack], repeats [];
    /// 0x15: Authentication Method.
    0x15 AuthenticationMethod, "Authentication Method", Text, [Connect Connack Auth], repeats [];
    /// 0x16: Authentication Data.
    0x16 AuthenticationData, "Authentication Data", Binary, [Connect Connack Auth], repeats [];
    /// 0x17: Request Problem Information.
    0x17 RequestProblemInformation, "Request Problem Information", Flag, [Connect], repeats [];
    /// 0x18: Will Delay Interval.
    0x18 WillDelayInterval, "Will Delay Interval", U32, [Will], repeats [];
    /// 0x19: Request Response Information.
    0x19 RequestResponseInformation, "Request Response Information", Flag, [Connect], repeats [];
    /// 0x1A: Response Information.
    0x1A ResponseInformation, "Response Information", Text, [Connack], repeats [];
    /// 0x1C: Server Reference.
    0x1C ServerReference, "Server Reference", Text, [Connack Disconnect], repeats [];
    /// 0x1F: Reason String.
    0x1F ReasonString, "Reason String", Text, [Connack Puback Pubrec Pubrel Pubcomp Suback Unsuback Disconnect Auth], repeats [];
    /// 0x21: Receive Maximum.
    0x21 ReceiveMaximum, "Receive Maximum", NonZeroU16, [Connect Connack], repeats [];
    /// 0x22: Topic Alias Maximum.
    0x22 TopicAliasMaximum, "Topic Alias Maximum", U16, [Connect Connack], repeats [];
    /// 0x23: Topic Alias.
    0x23 TopicAlias, "Topic Alias", NonZeroU16, [Publish], repeats [];
    /// 0x24: Maximum QoS.
    0x24 MaximumQoS, "Maximum QoS", Flag, [Connack], repeats [];
    /// 0x25: Retain Available.
    0x25 RetainAvailable, "Retain Available", Flag, [Connack], repeats [];
    /// 0x26: User Property.
    0x26 UserProperty, "User Property", TextPair,
        [Will Connect Connack Publish Puback Pubrec Pubrel Pubcomp Subscribe Suback Unsubscribe Unsuback Disconnect Auth],
        repeats [Will Connect Connack Publish Puback Pubrec Pubrel Pubcomp Subscribe Suback Unsubscribe Unsuback Disconnect Auth];
    /// 0x27: Maximum Packet Size.
    0x27 MaximumPacketSize, "Maximum Packet Size", NonZeroU32, [Connect Connack], repeats [];
    /// 0x28: Wildcard Subscription Available.
    0x28 WildcardSubscriptionAvailable, "Wildcard Subscription Available", Flag, [Connack], repeats [];
    /// 0x29: Subscription Identifier Available.
    0x29 SubscriptionIdentifierAvailable, "Subscription Identifier Available", Flag, [Connack], repeats [];
    /// 0x2A: Shared Subscription Available.
    0x2A SharedSubscriptionAvailable, "Shared Subscription Available", Flag, [Connack], repeats [];
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) id: PropertyId,
    pub(crate) kind: Kind,
    scopes: u16,
    repeats: u16,
}

impl Rule {
    /// The row for an identifier from the wire.
    #[inline]
    pub(crate) fn for_byte(id: u8) -> Option<&'static Self> {
        RULES.get(usize::from(id))?.as_ref()
    }

    #[inline]
    pub(crate) const fn allows(&self, scope: PropertyScope) -> bool {
        self.scopes & scope.bit() != 0
    }

    /// One bit for each property that may not repeat in `scope`; the same for all that may: none.
    #[inline]
    pub(crate) const fn once(&self, scope: PropertyScope) -> u64 {
        if self.repeats & scope.bit() != 0 {
            0
        } else {
            1 << self.id as u8
        }
    }
}

impl PropertyId {
    /// Whether this property may stand there.
    pub fn is_allowed_in(self, scope: PropertyScope) -> bool {
        Rule::for_byte(self as u8).is_some_and(|rule| rule.allows(scope))
    }

    /// Whether this property may stand there more than once.
    pub fn may_repeat_in(self, scope: PropertyScope) -> bool {
        Rule::for_byte(self as u8).is_some_and(|rule| rule.repeats & scope.bit() != 0)
    }
}

impl fmt::Display for PropertyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
