//! Properties of MQTT 5 packets.

mod block;
mod buf;
mod table;

pub(crate) use block::Measured;
pub use block::{Properties, PropertiesIter};
pub use buf::{PropertyBlock, PropertyBuf};
pub use table::{PropertyId, PropertyScope};

use core::fmt;
use core::num::{NonZeroU16, NonZeroU32};

use bytes::BufMut;

use crate::error::EncodeError;
use crate::wire::{binary_len, put_binary, put_varint, text_len, varint_len};
use crate::{QoS, SubscriptionId, Text, TopicName};

/// One property. Times are in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Property<'a> {
    /// What the payload is.
    PayloadFormatIndicator(PayloadFormat),
    /// Seconds after which the message is not worth delivering.
    MessageExpiryInterval(u32),
    /// What the payload contains, often a media type.
    ContentType(Text<'a>),
    /// Topic for the answer.
    ResponseTopic(TopicName<'a>),
    /// Lets the requester tell to which request an answer belongs; at most 65,535 bytes.
    CorrelationData(&'a [u8]),
    /// SUBSCRIBE: number for these subscriptions. PUBLISH: the number of a subscription that matched; repeated.
    SubscriptionIdentifier(SubscriptionId),
    /// Seconds that the session outlives its connection; 0xFFFFFFFF: for ever.
    SessionExpiryInterval(u32),
    /// The Client Identifier that the server chose.
    AssignedClientIdentifier(Text<'a>),
    /// Seconds of Keep Alive to use instead of what CONNECT says.
    ServerKeepAlive(u16),
    /// Name of the extended authentication method.
    AuthenticationMethod(Text<'a>),
    /// Data of that method; at most 65,535 bytes.
    AuthenticationData(&'a [u8]),
    /// Whether the server may send Reason Strings and User Properties with failures.
    RequestProblemInformation(bool),
    /// Seconds between the end of the connection and the publication of the Will Message.
    WillDelayInterval(u32),
    /// Whether the server is asked for Response Information.
    RequestResponseInformation(bool),
    /// Basis for response topics.
    ResponseInformation(Text<'a>),
    /// Another server to use.
    ServerReference(Text<'a>),
    /// A reason in words, for diagnosis.
    ReasonString(Text<'a>),
    /// How many QoS 1 and 2 messages may be unacknowledged at a time.
    ReceiveMaximum(NonZeroU16),
    /// The largest Topic Alias accepted.
    TopicAliasMaximum(u16),
    /// Number that stands for the Topic Name.
    TopicAlias(NonZeroU16),
    /// The largest QoS that the server accepts: [`QoS::AtMostOnce`] or [`QoS::AtLeastOnce`].
    MaximumQoS(QoS),
    /// Whether the server retains messages.
    RetainAvailable(bool),
    /// Name and value with a meaning outside of the protocol; repeated, order kept.
    UserProperty(Text<'a>, Text<'a>),
    /// The largest packet accepted, in bytes.
    MaximumPacketSize(NonZeroU32),
    /// Whether the server has wildcard subscriptions.
    WildcardSubscriptionAvailable(bool),
    /// Whether the server has Subscription Identifiers.
    SubscriptionIdentifierAvailable(bool),
    /// Whether the server has shared subscriptions.
    SharedSubscriptionAvailable(bool),
}

/// What the payload of a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(clippy::exhaustive_enums, reason = "the byte has no other legal value")]
pub enum PayloadFormat {
    /// Bytes; the same as not saying.
    #[default]
    Unspecified = 0,
    /// UTF-8 text. The codec does not check that.
    Utf8 = 1,
}

impl Property<'_> {
    /// Which property this is.
    pub const fn id(&self) -> PropertyId {
        match self {
            Self::PayloadFormatIndicator(_) => PropertyId::PayloadFormatIndicator,
            Self::MessageExpiryInterval(_) => PropertyId::MessageExpiryInterval,
            Self::ContentType(_) => PropertyId::ContentType,
            Self::ResponseTopic(_) => PropertyId::ResponseTopic,
            Self::CorrelationData(_) => PropertyId::CorrelationData,
            Self::SubscriptionIdentifier(_) => PropertyId::SubscriptionIdentifier,
            Self::SessionExpiryInterval(_) => PropertyId::SessionExpiryInterval,
            Self::AssignedClientIdentifier(_) => PropertyId::AssignedClientIdentifier,
            Self::ServerKeepAlive(_) => PropertyId::ServerKeepAlive,
            Self::AuthenticationMethod(_) => PropertyId::AuthenticationMethod,
            Self::AuthenticationData(_) => PropertyId::AuthenticationData,
            Self::RequestProblemInformation(_) => PropertyId::RequestProblemInformation,
            Self::WillDelayInterval(_) => PropertyId::WillDelayInterval,
            Self::RequestResponseInformation(_) => PropertyId::RequestResponseInformation,
            Self::ResponseInformation(_) => PropertyId::ResponseInformation,
            Self::ServerReference(_) => PropertyId::ServerReference,
            Self::ReasonString(_) => PropertyId::ReasonString,
            Self::ReceiveMaximum(_) => PropertyId::ReceiveMaximum,
            Self::TopicAliasMaximum(_) => PropertyId::TopicAliasMaximum,
            Self::TopicAlias(_) => PropertyId::TopicAlias,
            Self::MaximumQoS(_) => PropertyId::MaximumQoS,
            Self::RetainAvailable(_) => PropertyId::RetainAvailable,
            Self::UserProperty(..) => PropertyId::UserProperty,
            Self::MaximumPacketSize(_) => PropertyId::MaximumPacketSize,
            Self::WildcardSubscriptionAvailable(_) => PropertyId::WildcardSubscriptionAvailable,
            Self::SubscriptionIdentifierAvailable(_) => PropertyId::SubscriptionIdentifierAvailable,
            Self::SharedSubscriptionAvailable(_) => PropertyId::SharedSubscriptionAvailable,
        }
    }

    /// Length with its identifier.
    pub(crate) fn encoded_len(&self) -> Result<usize, EncodeError> {
        Ok(1 + match *self {
            Self::PayloadFormatIndicator(_)
            | Self::RequestProblemInformation(_)
            | Self::RequestResponseInformation(_)
            | Self::RetainAvailable(_)
            | Self::WildcardSubscriptionAvailable(_)
            | Self::SubscriptionIdentifierAvailable(_)
            | Self::SharedSubscriptionAvailable(_) => 1,
            Self::MaximumQoS(qos) => {
                if qos == QoS::ExactlyOnce {
                    return Err(EncodeError::PropertyValue(PropertyId::MaximumQoS));
                }
                1
            }
            Self::ServerKeepAlive(_)
            | Self::ReceiveMaximum(_)
            | Self::TopicAliasMaximum(_)
            | Self::TopicAlias(_) => 2,
            Self::MessageExpiryInterval(_)
            | Self::SessionExpiryInterval(_)
            | Self::WillDelayInterval(_)
            | Self::MaximumPacketSize(_) => 4,
            Self::SubscriptionIdentifier(id) => varint_len(id.value()),
            Self::ContentType(text)
            | Self::AssignedClientIdentifier(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => text_len(text),
            Self::ResponseTopic(name) => text_len(name),
            Self::CorrelationData(data) | Self::AuthenticationData(data) => binary_len(data)?,
            Self::UserProperty(name, value) => text_len(name) + text_len(value),
        })
    }

    pub(crate) fn put(&self, dst: &mut impl BufMut) {
        dst.put_u8(self.id() as u8);
        match *self {
            Self::PayloadFormatIndicator(format) => dst.put_u8(format as u8),
            Self::RequestProblemInformation(flag)
            | Self::RequestResponseInformation(flag)
            | Self::RetainAvailable(flag)
            | Self::WildcardSubscriptionAvailable(flag)
            | Self::SubscriptionIdentifierAvailable(flag)
            | Self::SharedSubscriptionAvailable(flag) => dst.put_u8(u8::from(flag)),
            Self::MaximumQoS(qos) => dst.put_u8(qos as u8),
            Self::ServerKeepAlive(value) | Self::TopicAliasMaximum(value) => dst.put_u16(value),
            Self::ReceiveMaximum(value) | Self::TopicAlias(value) => dst.put_u16(value.get()),
            Self::MessageExpiryInterval(value)
            | Self::SessionExpiryInterval(value)
            | Self::WillDelayInterval(value) => dst.put_u32(value),
            Self::MaximumPacketSize(value) => dst.put_u32(value.get()),
            Self::SubscriptionIdentifier(id) => put_varint(dst, id.value()),
            Self::ContentType(text)
            | Self::AssignedClientIdentifier(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => put_binary(dst, text.as_bytes()),
            Self::ResponseTopic(name) => put_binary(dst, name.as_bytes()),
            Self::CorrelationData(data) | Self::AuthenticationData(data) => put_binary(dst, data),
            Self::UserProperty(name, value) => {
                put_binary(dst, name.as_bytes());
                put_binary(dst, value.as_bytes());
            }
        }
    }
}

/// Authentication Data is not shown.
impl fmt::Debug for Property<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuple = f.debug_tuple(self.id().name());
        match self {
            Self::PayloadFormatIndicator(format) => tuple.field(format),
            Self::RequestProblemInformation(flag)
            | Self::RequestResponseInformation(flag)
            | Self::RetainAvailable(flag)
            | Self::WildcardSubscriptionAvailable(flag)
            | Self::SubscriptionIdentifierAvailable(flag)
            | Self::SharedSubscriptionAvailable(flag) => tuple.field(flag),
            Self::MaximumQoS(qos) => tuple.field(qos),
            Self::ServerKeepAlive(value) | Self::TopicAliasMaximum(value) => tuple.field(value),
            Self::ReceiveMaximum(value) | Self::TopicAlias(value) => tuple.field(value),
            Self::MessageExpiryInterval(value)
            | Self::SessionExpiryInterval(value)
            | Self::WillDelayInterval(value) => tuple.field(value),
            Self::MaximumPacketSize(value) => tuple.field(value),
            Self::SubscriptionIdentifier(id) => tuple.field(&id.value()),
            Self::ContentType(text)
            | Self::AssignedClientIdentifier(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => tuple.field(text),
            Self::ResponseTopic(name) => tuple.field(name),
            Self::CorrelationData(data) => tuple.field(data),
            Self::AuthenticationData(data) => tuple.field(&format_args!("{} bytes", data.len())),
            Self::UserProperty(name, value) => tuple.field(name).field(value),
        };
        tuple.finish()
    }
}
