//! Messages, inbound and outbound, as plain fields.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::payload::{Decode, JsonCodec, PayloadError};
use crate::topic::TopicName;

/// A message that arrived.
///
/// A clone shares payload, topic and properties.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Message {
    /// Where it was published.
    pub topic: TopicName,
    /// The content, possibly empty.
    pub payload: Bytes,
    /// The assurance it was delivered with: the lower of what its publisher and its subscriber asked for.
    pub qos: QoS,
    /// Whether it is not news but was kept for new subscribers of its topic.
    pub retain: bool,
    /// Whether the sender marked it as a repetition. A mark, not a proof: at
    /// [`QoS::ExactlyOnce`] repetitions never get this far.
    pub duplicate: bool,
    /// What else the publisher said about it; empty where the service cannot carry that.
    pub properties: Properties,
    /// The name of the provider it came through. Core fills it in on delivery.
    pub provider: ProviderName,
}

impl Message {
    /// A message with default flags and no properties.
    #[must_use]
    #[inline]
    pub fn new(topic: TopicName, payload: impl Into<Bytes>) -> Self {
        Self {
            topic,
            payload: payload.into(),
            qos: QoS::default(),
            retain: false,
            duplicate: false,
            properties: Properties::default(),
            provider: ProviderName::default(),
        }
    }

    /// The payload as JSON.
    ///
    /// # Errors
    /// The payload is not JSON or not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        JsonCodec.decode(&self.payload)
    }

    /// The payload as text.
    ///
    /// # Errors
    /// The payload is not UTF-8.
    pub fn text(&self) -> Result<&str, PayloadError> {
        std::str::from_utf8(&self.payload).map_err(PayloadError::decode)
    }

    /// The payload through a codec of the caller's.
    ///
    /// # Errors
    /// The codec's own.
    pub fn decode<T, C: Decode<T>>(&self, codec: &C) -> Result<T, PayloadError> {
        codec.decode(&self.payload)
    }
}

/// A message on its way to a provider.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OutboundMessage {
    /// Where to publish it.
    pub topic: TopicName,
    /// The content, possibly empty.
    pub payload: Bytes,
    /// The assurance asked for. At most once by default.
    pub qos: QoS,
    /// Whether the service shall keep it for later subscribers of the topic, in place of what it kept
    /// before. Kept with an empty payload it erases what was kept.
    pub retain: bool,
    /// What else there is to say about it.
    pub properties: Properties,
    /// What to do while there is no connection.
    pub offline: OfflinePolicy,
}

impl OutboundMessage {
    /// A message at most once, not retained, without properties.
    #[must_use]
    pub fn new(topic: TopicName, payload: impl Into<Bytes>) -> Self {
        Self {
            topic,
            payload: payload.into(),
            qos: QoS::default(),
            retain: false,
            properties: Properties::default(),
            offline: OfflinePolicy::default(),
        }
    }
}

/// The assurance of a delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_enums, reason = "closed by the specification")]
pub enum QoS {
    /// Sent once and never repeated: it may be lost.
    #[default]
    AtMostOnce,
    /// Repeated until confirmed: it may arrive several times.
    AtLeastOnce,
    /// Confirmed in two steps: it arrives once.
    ExactlyOnce,
}

/// What a publish does while there is no connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OfflinePolicy {
    /// What the provider was configured with.
    #[default]
    ProviderDefault,
    /// Fail at once.
    Fail,
    /// Wait for a connection, and fail when this much time has passed without one.
    WaitUpTo(Duration),
    /// Wait in the provider's bounded queue for as long as it takes.
    Queue,
}

/// What can be said about a message beside its topic and payload.
///
/// Empty properties cost no allocation. Fields are read and written through it:
///
/// ```
/// # use pubsub_core::Properties;
/// let mut properties = Properties::default();
/// assert_eq!(properties.content_type, None);
/// properties.content_type = Some("application/json".into());
/// assert_eq!(properties.content_type.as_deref(), Some("application/json"));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(Option<Arc<PropertyFields>>);

impl Properties {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0
            .as_deref()
            .is_none_or(|fields| *fields == NO_PROPERTIES)
    }
}

impl Deref for Properties {
    type Target = PropertyFields;

    fn deref(&self) -> &PropertyFields {
        self.0.as_deref().unwrap_or(&NO_PROPERTIES)
    }
}

impl DerefMut for Properties {
    fn deref_mut(&mut self) -> &mut PropertyFields {
        Arc::make_mut(self.0.get_or_insert_with(Arc::default))
    }
}

impl From<PropertyFields> for Properties {
    fn from(fields: PropertyFields) -> Self {
        Self(Some(Arc::new(fields)))
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// The fields of [`Properties`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PropertyFields {
    /// Whether the payload is said to be text.
    pub payload_format: PayloadFormat,
    /// The media type of the payload.
    pub content_type: Option<String>,
    /// Where an answer is expected.
    pub response_topic: Option<TopicName>,
    /// What the answer shall carry so that it is recognised.
    pub correlation_data: Option<Bytes>,
    /// How long the message is worth delivering, in whole seconds on the wire: outbound from the moment
    /// of the publish, inbound what is left of it.
    pub expiry: Option<Duration>,
    /// Pairs that mean something to the application only; names may repeat, order is kept.
    pub user: Vec<(String, String)>,
}

static NO_PROPERTIES: PropertyFields = PropertyFields {
    payload_format: PayloadFormat::Unspecified,
    content_type: None,
    response_topic: None,
    correlation_data: None,
    expiry: None,
    user: Vec::new(),
};

/// What a payload is said to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "closed by the specification")]
pub enum PayloadFormat {
    /// Nothing is said: bytes.
    #[default]
    Unspecified,
    /// UTF-8 text.
    Text,
}

/// The name of a provider in the registry. Every message carries it: a clone of a short one is a copy, that of one longer than
/// 14 bytes shares the text.
#[derive(Clone)]
pub struct ProviderName(Name);

#[derive(Clone)]
enum Name {
    /// So many bytes of UTF-8. To copy them costs less than to count who shares them.
    Short { len: u8, bytes: [u8; SHORT] },
    /// In one word, so that both are two.
    Long(Arc<Arc<str>>),
}

/// What fits beside a length and the mark of which it is.
const SHORT: usize = 14;

impl ProviderName {
    /// This text as a name.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        let mut bytes = [0; SHORT];
        Self(
            match (u8::try_from(name.len()), bytes.get_mut(..name.len())) {
                (Ok(len), Some(room)) => {
                    room.copy_from_slice(name.as_bytes());
                    Name::Short { len, bytes }
                }
                _ => Name::Long(Arc::new(name)),
            },
        )
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Name::Short { len, bytes } => {
                let text = bytes.get(..usize::from(*len)).unwrap_or_default();
                // It was text when it came.
                std::str::from_utf8(text).unwrap_or_default()
            }
            Name::Long(name) => name,
        }
    }
}

impl Default for ProviderName {
    /// The empty name.
    #[inline]
    fn default() -> Self {
        Self(Name::Short {
            len: 0,
            bytes: [0; SHORT],
        })
    }
}

impl Deref for ProviderName {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for ProviderName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for ProviderName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl<T: Into<Arc<str>>> From<T> for ProviderName {
    fn from(name: T) -> Self {
        Self::new(name)
    }
}

impl PartialEq for ProviderName {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for ProviderName {}

impl Hash for ProviderName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialOrd for ProviderName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ProviderName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialEq<str> for ProviderName {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for ProviderName {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_text_whatever_its_length() {
        for len in 0..40 {
            let text: String = "nämë".chars().cycle().take(len).collect();
            let name = ProviderName::new(text.as_str());
            assert_eq!(name, text.as_str());
            assert_eq!(name.clone(), name);
            assert_eq!(name.is_empty(), len == 0);
        }
        assert_eq!(ProviderName::default(), "");
    }

    #[test]
    fn a_name_stays_two_words() {
        assert!(size_of::<ProviderName>() <= 16);
    }
}
