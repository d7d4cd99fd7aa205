//! A packet's properties as a checked block of bytes, read lazily; or as a list to encode.

use core::fmt;
use core::num::{NonZeroU16, NonZeroU32};

use bytes::BufMut;

use super::table::{Kind, Rule};
use super::{PayloadFormat, Property, PropertyId, PropertyScope};
use crate::error::{DecodeError, EncodeError, Malformed, ProtocolError};
use crate::wire::{Reader, put_varint, varint_from, varint_len};
use crate::{ProtocolVersion, QoS, SubscriptionId, Text, TopicName};

/// The properties of a packet, in order.
///
/// Decoding checks the whole block in place and keeps its bytes; reading is lazy. To encode, give a list
/// ([`Properties::list`]), which is checked then, or a ready block ([`PropertyBuf`](super::PropertyBuf)), which is
/// copied.
///
/// ```
/// use mqtt_codec::{Properties, Property, PropertyScope, Text};
///
/// let list = [
///     Property::MessageExpiryInterval(60),
///     Property::UserProperty(Text::new("unit")?, Text::new("celsius")?),
/// ];
/// let properties = Properties::list(&list);
/// assert_eq!(properties.message_expiry_interval(), Some(60));
/// assert_eq!(properties.user_properties().count(), 1);
///
/// // From the wire: checked for where they stand.
/// let properties = Properties::parse(PropertyScope::Publish, &[0x23, 0x00, 0x07])?;
/// assert_eq!(properties.topic_alias().map(|alias| alias.get()), Some(7));
/// assert!(Properties::parse(PropertyScope::Connect, &[0x23, 0x00, 0x07]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct Properties<'a>(Repr<'a>);

#[derive(Clone, Copy)]
enum Repr<'a> {
    /// Passed [`validate`] for `scope`.
    Block {
        bytes: &'a [u8],
        scope: PropertyScope,
    },
    List(&'a [Property<'a>]),
}

impl<'a> Properties<'a> {
    /// No properties; right for every packet and version.
    pub const EMPTY: Properties<'static> = Properties(Repr::Block {
        bytes: &[],
        scope: PropertyScope::Publish,
    });

    /// Properties to encode. Whether they may stand where they are put is checked then.
    pub const fn list(list: &'a [Property<'a>]) -> Self {
        Self(Repr::List(list))
    }

    /// Checks a block of properties (without the length before it) as those of `scope`.
    ///
    /// # Errors
    ///
    /// What decoding a packet with this block answers.
    #[inline]
    pub fn parse(scope: PropertyScope, block: &'a [u8]) -> Result<Self, DecodeError> {
        if !block.is_empty() {
            validate(scope, block)?;
        }
        Ok(Self::from_checked(scope, block))
    }

    /// Takes a block that passed [`Properties::parse`] for `scope`.
    #[inline]
    pub(crate) const fn from_checked(scope: PropertyScope, bytes: &'a [u8]) -> Self {
        Self(Repr::Block { bytes, scope })
    }

    /// Reads length and block if `version` has properties.
    //= MQTT-2.2.2-1
    #[inline]
    pub(crate) fn decode(
        reader: &mut Reader<'a>,
        scope: PropertyScope,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let block = Self::decode_block(reader, scope, version)?;
        Ok(Self::from_checked(scope, block))
    }

    /// The same, as the bytes of the block.
    #[inline]
    pub(crate) fn decode_block(
        reader: &mut Reader<'a>,
        scope: PropertyScope,
        version: ProtocolVersion,
    ) -> Result<&'a [u8], DecodeError> {
        if !version.has_properties() {
            return Ok(&[]);
        }
        let block = reader.block()?;
        if !block.is_empty() {
            validate(scope, block)?;
        }
        Ok(block)
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        match self.0 {
            Repr::Block { bytes, .. } => bytes.is_empty(),
            Repr::List(list) => list.is_empty(),
        }
    }

    /// All properties, in order.
    pub const fn iter(&self) -> PropertiesIter<'a> {
        PropertiesIter(match self.0 {
            Repr::Block { bytes, .. } => IterRepr::Block(Reader::new(bytes)),
            Repr::List(list) => IterRepr::List(list),
        })
    }

    /// The bytes on the wire without the length before them; `None` for a list.
    pub const fn as_block(&self) -> Option<&'a [u8]> {
        match self.0 {
            Repr::Block { bytes, .. } => Some(bytes),
            Repr::List(_) => None,
        }
    }

    /// The User Properties, in order.
    //= MQTT-3.3.2-18
    pub fn user_properties(&self) -> impl Iterator<Item = (Text<'a>, Text<'a>)> + Clone + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// The Subscription Identifiers, in order: several in a PUBLISH that matched several subscriptions.
    pub fn subscription_identifiers(
        &self,
    ) -> impl Iterator<Item = SubscriptionId> + Clone + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        })
    }

    /// Length on the wire with the length before it; checks a list, and a block made for another scope.
    #[inline]
    pub(crate) fn measure(
        &self,
        scope: PropertyScope,
        version: ProtocolVersion,
    ) -> Result<Measured, EncodeError> {
        if !version.has_properties() {
            return if self.is_empty() {
                Ok(Measured::NONE)
            } else {
                Err(EncodeError::PropertiesBeforeV5)
            };
        }
        let block = match self.0 {
            Repr::Block { bytes: [], .. } => 0,
            Repr::Block {
                bytes,
                scope: checked,
            } if checked == scope => bytes.len(),
            _ => self.measure_slowly(scope)?,
        };
        let block = varint_from(block)?;
        Ok(Measured {
            block,
            total: varint_len(block) as u32 + block,
        })
    }

    fn measure_slowly(&self, scope: PropertyScope) -> Result<usize, EncodeError> {
        let mut len = 0_usize;
        let mut seen = 0;
        for property in self.iter() {
            check_allowed(property.id(), scope, &mut seen)?;
            len = len.saturating_add(property.encoded_len()?);
        }
        Ok(len)
    }

    /// Writes what was measured.
    #[inline]
    pub(crate) fn put(&self, measured: Measured, dst: &mut impl BufMut) {
        if measured.total == 0 {
            return;
        }
        put_varint(dst, measured.block);
        match self.0 {
            Repr::Block { bytes, .. } => dst.put_slice(bytes),
            Repr::List(list) => {
                for property in list {
                    property.put(dst);
                }
            }
        }
    }
}

/// Length of a property block on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Without the length before it.
    block: u32,
    /// With that; 0 where the version has no properties.
    pub(crate) total: u32,
}

impl Measured {
    const NONE: Self = Self { block: 0, total: 0 };

    pub(crate) const fn is_empty(self) -> bool {
        self.block == 0
    }
}

macro_rules! single_properties {
    ($($(#[$doc:meta])* $method:ident -> $type:ty, $variant:ident;)*) => {
        impl<'a> Properties<'a> {
            $(
                $(#[$doc])*
                pub fn $method(&self) -> Option<$type> {
                    self.iter().find_map(|property| match property {
                        Property::$variant(value) => Some(value),
                        _ => None,
                    })
                }
            )*
        }
    };
}

single_properties! {
    /// The [`Property::PayloadFormatIndicator`].
    payload_format_indicator -> PayloadFormat, PayloadFormatIndicator;
    /// The [`Property::MessageExpiryInterval`], in seconds.
    message_expiry_interval -> u32, MessageExpiryInterval;
    /// The [`Property::ContentType`].
    content_type -> Text<'a>, ContentType;
    /// The [`Property::ResponseTopic`].
    response_topic -> TopicName<'a>, ResponseTopic;
    /// The [`Property::CorrelationData`].
    correlation_data -> &'a [u8], CorrelationData;
    /// The [`Property::SessionExpiryInterval`], in seconds.
    session_expiry_interval -> u32, SessionExpiryInterval;
    /// The [`Property::AssignedClientIdentifier`].
    assigned_client_identifier -> Text<'a>, AssignedClientIdentifier;
    /// The [`Property::ServerKeepAlive`], in seconds.
    server_keep_alive -> u16, ServerKeepAlive;
    /// The [`Property::AuthenticationMethod`].
    authentication_method -> Text<'a>, AuthenticationMethod;
    /// The [`Property::AuthenticationData`].
    authentication_data -> &'a [u8], AuthenticationData;
    /// The [`Property::RequestProblemInformation`].
    request_problem_information -> bool, RequestProblemInformation;
    /// The [`Property::WillDelayInterval`], in seconds.
    will_delay_interval -> u32, WillDelayInterval;
    /// The [`Property::RequestResponseInformation`].
    request_response_information -> bool, RequestResponseInformation;
    /// The [`Property::ResponseInformation`].
    response_information -> Text<'a>, ResponseInformation;
    /// The [`Property::ServerReference`].
    server_reference -> Text<'a>, ServerReference;
    /// The [`Property::ReasonString`].
    reason_string -> Text<'a>, ReasonString;
    /// The [`Property::ReceiveMaximum`].
    receive_maximum -> NonZeroU16, ReceiveMaximum;
    /// The [`Property::TopicAliasMaximum`].
    topic_alias_maximum -> u16, TopicAliasMaximum;
    /// The [`Property::TopicAlias`].
    topic_alias -> NonZeroU16, TopicAlias;
    /// The [`Property::MaximumQoS`].
    maximum_qos -> QoS, MaximumQoS;
    /// The [`Property::RetainAvailable`].
    retain_available -> bool, RetainAvailable;
    /// The [`Property::MaximumPacketSize`], in bytes.
    maximum_packet_size -> NonZeroU32, MaximumPacketSize;
    /// The [`Property::WildcardSubscriptionAvailable`].
    wildcard_subscription_available -> bool, WildcardSubscriptionAvailable;
    /// The [`Property::SubscriptionIdentifierAvailable`].
    subscription_identifier_available -> bool, SubscriptionIdentifierAvailable;
    /// The [`Property::SharedSubscriptionAvailable`].
    shared_subscription_available -> bool, SharedSubscriptionAvailable;
}

impl Default for Properties<'_> {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// Equal if the same properties stand in the same order, as block or as list.
impl PartialEq for Properties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Properties<'_> {}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = Property<'a>;
    type IntoIter = PropertiesIter<'a>;

    fn into_iter(self) -> PropertiesIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Properties<'a> {
    type Item = Property<'a>;
    type IntoIter = PropertiesIter<'a>;

    fn into_iter(self) -> PropertiesIter<'a> {
        self.iter()
    }
}

/// Iterator over [`Properties`].
#[derive(Clone, Debug)]
pub struct PropertiesIter<'a>(IterRepr<'a>);

#[derive(Clone, Debug)]
enum IterRepr<'a> {
    Block(Reader<'a>),
    List(&'a [Property<'a>]),
}

impl<'a> Iterator for PropertiesIter<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        match &mut self.0 {
            IterRepr::Block(reader) => read_checked(reader),
            IterRepr::List(list) => {
                let (first, rest) = list.split_first()?;
                *list = rest;
                Some(*first)
            }
        }
    }
}

impl core::iter::FusedIterator for PropertiesIter<'_> {}

/// Checks that `id` may stand in `scope`, and not twice.
pub(super) fn check_allowed(
    id: PropertyId,
    scope: PropertyScope,
    seen: &mut u64,
) -> Result<(), EncodeError> {
    let Some(rule) = Rule::for_byte(id as u8).filter(|rule| rule.allows(scope)) else {
        return Err(EncodeError::MisplacedProperty(id));
    };
    let once = rule.once(scope);
    if *seen & once != 0 {
        return Err(EncodeError::DuplicateProperty(id));
    }
    *seen |= once;
    Ok(())
}

/// Checks a block from the wire: identifiers, places, repetition, lengths, text and ranges.
fn validate(scope: PropertyScope, block: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(block);
    let mut seen = 0_u64;
    while !reader.is_empty() {
        // Identifiers are variable byte integers, but all that exist are below 0x80.
        let Some(rule) = Rule::for_byte(reader.u8()?) else {
            return Err(Malformed::UnknownProperty.into());
        };
        if !rule.allows(scope) {
            return Err(Malformed::MisplacedProperty(rule.id).into());
        }
        let once = rule.once(scope);
        if seen & once != 0 {
            return Err(ProtocolError::DuplicateProperty(rule.id).into());
        }
        seen |= once;
        validate_value(rule, &mut reader)?;
    }
    // Of CONNECT the specification says so; AUTH, which needs the method in any case, checks for itself.
    const METHOD: u64 = 1 << PropertyId::AuthenticationMethod as u8;
    const DATA: u64 = 1 << PropertyId::AuthenticationData as u8;
    if seen & (METHOD | DATA) == DATA && scope == PropertyScope::Connect {
        return Err(ProtocolError::AuthenticationMethodMissing.into());
    }
    Ok(())
}

#[inline]
fn validate_value(rule: &Rule, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    match rule.kind {
        Kind::Flag => {
            if reader.u8()? > 1 {
                return Err(ProtocolError::NotABoolean(rule.id).into());
            }
        }
        Kind::U16 => {
            reader.u16()?;
        }
        Kind::NonZeroU16 => {
            if reader.u16()? == 0 {
                return Err(match rule.id {
                    PropertyId::TopicAlias => ProtocolError::TopicAliasZero,
                    id => ProtocolError::ZeroValue(id),
                }
                .into());
            }
        }
        Kind::U32 => {
            reader.u32()?;
        }
        Kind::NonZeroU32 => {
            if reader.u32()? == 0 {
                return Err(ProtocolError::ZeroValue(rule.id).into());
            }
        }
        Kind::NonZeroVarint => {
            if reader.varint()? == 0 {
                return Err(ProtocolError::SubscriptionIdentifierZero.into());
            }
        }
        Kind::Text => {
            reader.text()?;
        }
        //= MQTT-3.3.2-13
        //= MQTT-3.3.2-14
        Kind::TopicName => {
            reader.topic_name()?;
        }
        Kind::Binary => {
            reader.binary()?;
        }
        //= MQTT-1.5.7-1
        Kind::TextPair => {
            reader.text()?;
            reader.text()?;
        }
    }
    Ok(())
}

/// Reads one property from a block that [`validate`] passed; ends at what it would have refused.
fn read_checked<'a>(reader: &mut Reader<'a>) -> Option<Property<'a>> {
    let id = PropertyId::from_u8(reader.u8().ok()?)?;
    let flag = |reader: &mut Reader<'a>| reader.u8().ok().map(|byte| byte != 0);
    let text = |reader: &mut Reader<'a>| reader.binary().ok().map(Text::from_checked);
    Some(match id {
        PropertyId::PayloadFormatIndicator => {
            Property::PayloadFormatIndicator(match reader.u8().ok()? {
                0 => PayloadFormat::Unspecified,
                _ => PayloadFormat::Utf8,
            })
        }
        PropertyId::MessageExpiryInterval => Property::MessageExpiryInterval(reader.u32().ok()?),
        //= MQTT-3.3.2-19
        PropertyId::ContentType => Property::ContentType(text(reader)?),
        PropertyId::ResponseTopic => {
            Property::ResponseTopic(TopicName::from_checked(reader.binary().ok()?))
        }
        PropertyId::CorrelationData => Property::CorrelationData(reader.binary().ok()?),
        PropertyId::SubscriptionIdentifier => {
            Property::SubscriptionIdentifier(SubscriptionId::new(reader.varint().ok()?)?)
        }
        PropertyId::SessionExpiryInterval => Property::SessionExpiryInterval(reader.u32().ok()?),
        PropertyId::AssignedClientIdentifier => Property::AssignedClientIdentifier(text(reader)?),
        PropertyId::ServerKeepAlive => Property::ServerKeepAlive(reader.u16().ok()?),
        PropertyId::AuthenticationMethod => Property::AuthenticationMethod(text(reader)?),
        PropertyId::AuthenticationData => Property::AuthenticationData(reader.binary().ok()?),
        PropertyId::RequestProblemInformation => Property::RequestProblemInformation(flag(reader)?),
        PropertyId::WillDelayInterval => Property::WillDelayInterval(reader.u32().ok()?),
        PropertyId::RequestResponseInformation => {
            Property::RequestResponseInformation(flag(reader)?)
        }
        PropertyId::ResponseInformation => Property::ResponseInformation(text(reader)?),
        PropertyId::ServerReference => Property::ServerReference(text(reader)?),
        PropertyId::ReasonString => Property::ReasonString(text(reader)?),
        PropertyId::ReceiveMaximum => {
            Property::ReceiveMaximum(NonZeroU16::new(reader.u16().ok()?)?)
        }
        PropertyId::TopicAliasMaximum => Property::TopicAliasMaximum(reader.u16().ok()?),
        PropertyId::TopicAlias => Property::TopicAlias(NonZeroU16::new(reader.u16().ok()?)?),
        PropertyId::MaximumQoS => Property::MaximumQoS(QoS::from_u8(reader.u8().ok()?)?),
        PropertyId::RetainAvailable => Property::RetainAvailable(flag(reader)?),
        PropertyId::UserProperty => Property::UserProperty(text(reader)?, text(reader)?),
        PropertyId::MaximumPacketSize => {
            Property::MaximumPacketSize(NonZeroU32::new(reader.u32().ok()?)?)
        }
        PropertyId::WildcardSubscriptionAvailable => {
            Property::WildcardSubscriptionAvailable(flag(reader)?)
        }
        PropertyId::SubscriptionIdentifierAvailable => {
            Property::SubscriptionIdentifierAvailable(flag(reader)?)
        }
        PropertyId::SharedSubscriptionAvailable => {
            Property::SharedSubscriptionAvailable(flag(reader)?)
        }
    })
}
