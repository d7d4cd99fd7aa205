//! A message on its way out, as the caller hands it over.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use mqtt_codec::{PayloadFormat, QoS, Text, TopicName};

/// A message to publish.
///
/// ```
/// use core::time::Duration;
/// use mqtt_codec::QoS;
/// use mqtt_session::Publish;
///
/// let mut publish = Publish::new("greenhouse/7/temperature", "21.5", QoS::AtLeastOnce);
/// publish.expiry = Some(Duration::from_secs(30));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Publish {
    /// The Topic Name.
    pub topic: Arc<str>,
    /// The payload; never copied before it is written.
    pub payload: Bytes,
    /// How often it is to arrive.
    pub qos: QoS,
    /// Whether the broker keeps it for later subscribers. Default: not.
    pub retain: Retain,
    /// How long it is worth sending. What waits here for longer is not sent and reported as
    /// [`PublishOutcome::Expired`](crate::PublishOutcome::Expired), in every version; in 5.0 the broker gets what is left,
    /// rounded up to whole seconds. Default: for ever.
    pub expiry: Option<Duration>,
    /// Its other properties (5.0). Default: none.
    pub properties: Option<Box<PublishProperties>>,
}

impl Publish {
    /// A message without properties that the broker does not keep.
    pub fn new(topic: impl Into<Arc<str>>, payload: impl Into<Bytes>, qos: QoS) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos,
            retain: Retain::No,
            expiry: None,
            properties: None,
        }
    }
}

impl fmt::Debug for Publish {
    /// Without the payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("topic", &self.topic)
            .field("payload_len", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}

/// Whether the broker keeps a message for later subscribers; on a received one, whether it was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::exhaustive_enums, reason = "one bit")]
pub enum Retain {
    /// It does not.
    #[default]
    No,
    /// It does.
    Yes,
}

impl Retain {
    pub(crate) const fn from_bit(bit: bool) -> Self {
        if bit { Self::Yes } else { Self::No }
    }

    /// Whether this is [`Retain::Yes`].
    #[must_use]
    pub const fn is_yes(self) -> bool {
        matches!(self, Self::Yes)
    }
}

/// Properties of a message (5.0) that neither the session nor the transport makes up.
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PublishProperties {
    /// Whether the payload is text.
    pub payload_format: Option<PayloadFormat>,
    /// What the payload is, usually a MIME type.
    pub content_type: Option<String>,
    /// Where an answer is expected.
    pub response_topic: Option<String>,
    /// What an answer must repeat.
    pub correlation_data: Option<Bytes>,
    /// Names and values of the application's own.
    pub user_properties: Vec<(String, String)>,
}

impl PublishProperties {
    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payload_format.is_none()
            && self.content_type.is_none()
            && self.response_topic.is_none()
            && self.correlation_data.is_none()
            && self.user_properties.is_empty()
    }

    pub(crate) fn is_valid(&self) -> bool {
        let text = |text: &str| Text::new(text).is_ok();
        self.content_type.as_deref().is_none_or(text)
            && self.response_topic.as_deref().is_none_or(is_topic_name)
            && self
                .correlation_data
                .as_ref()
                .is_none_or(|data| data.len() <= usize::from(u16::MAX))
            && self
                .user_properties
                .iter()
                .all(|(name, value)| text(name) && text(value))
    }
}

impl fmt::Debug for PublishProperties {
    /// Without the correlation data and the user properties' values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishProperties")
            .field("payload_format", &self.payload_format)
            .field("content_type", &self.content_type)
            .field("response_topic", &self.response_topic)
            .field("user_properties", &self.user_properties.len())
            .finish_non_exhaustive()
    }
}

pub(crate) fn is_topic_name(topic: &str) -> bool {
    TopicName::new(topic).is_ok()
}
