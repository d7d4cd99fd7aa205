//! Publishing over HTTPS, for back ends that have something to say now and then and hold no connection.

use std::error::Error as StdError;
use std::fmt;
use std::fmt::Write as _;

use data_encoding::BASE64;
use hyper::Method;
use pubsub_core::{OutboundMessage, PayloadFormat, QoS};

use crate::credentials::CredentialsError;
use crate::endpoint::Endpoint;
use crate::https::{HttpsClient, HttpsError};
use crate::options::{AwsIotOptions, AwsIotOptionsError};
use crate::refusal::ServiceRefusal;
use crate::rules::{RuleViolation, ServiceRules};
use crate::signed::{SignedCallError, SignedCalls, encode};

/// The name that the SDKs sign these calls with.
const SIGNING_NAME: &str = "iotdata";

/// Publishes over HTTPS: one signed `POST /topics/…` a message.
///
/// A connection is kept for 20 s after its last message, four at most, and used again. A message is sent once: on another
/// connection only where the kept one turns out to be closed before anything of it was written.
///
/// For a function or a back end that publishes now and then. Whoever publishes often, or also subscribes, is better
/// served by an [`AwsIotProvider`](crate::AwsIotProvider).
///
/// ```no_run
/// use pubsub_aws_iot::core::{OutboundMessage, TopicName};
/// use pubsub_aws_iot::{AwsIotOptions, EnvironmentCredentials, HttpsPublisher, QoS};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let publisher = HttpsPublisher::new(
///     AwsIotOptions::new("a1b2c3example-ats.iot.eu-west-1.amazonaws.com").credentials(EnvironmentCredentials::new()),
/// )?;
/// let mut message = OutboundMessage::new(TopicName::new("orders/shipped")?, r#"{"order": 7}"#);
/// message.qos = QoS::AtLeastOnce;
/// publisher.publish(&message).await?;
/// # Ok(()) }
/// ```
pub struct HttpsPublisher {
    endpoint: Endpoint,
    calls: SignedCalls,
    rules: ServiceRules,
}

impl HttpsPublisher {
    /// A publisher for the options' endpoint. Of the options it takes endpoint, region, credentials, rules and what
    /// concerns the connection; the rest is MQTT's.
    ///
    /// # Errors
    ///
    /// The first rule that the options break. Nothing is sent.
    pub fn new(options: AwsIotOptions) -> Result<Self, AwsIotOptionsError> {
        let (endpoint, source, connector, rules) = options.https_parts()?;
        let https = HttpsClient::new(connector, endpoint.target().clone());
        Ok(Self {
            calls: SignedCalls::new(https, source, endpoint.region(), SIGNING_NAME),
            endpoint,
            rules,
        })
    }

    /// Publishes one message and resolves when the service has taken it, at QoS 0 too. Its offline policy means nothing
    /// here.
    ///
    /// A refusal is answered as when connecting, each remedy once: with the clock corrected, or with credentials renewed.
    ///
    /// # Errors
    ///
    /// See [`HttpsPublishError`]. After [`HttpsPublishError::Https`] nobody knows whether the message was taken.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection; whether the message was taken is not known then.
    pub async fn publish(&self, message: &OutboundMessage) -> Result<(), HttpsPublishError> {
        self.rules.check_message(message)?;
        let attributes = attributes_of(message);
        let attributes: Vec<(&str, &str)> = attributes
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let path = path_of(message);
        let answer = self
            .calls
            .call(Method::POST, &path, &attributes, &message.payload);
        answer.await?;
        Ok(())
    }
}

impl fmt::Debug for HttpsPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsPublisher")
            .field("endpoint", &self.endpoint)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// The topic as one segment of the path, and what else the service takes in the query.
fn path_of(message: &OutboundMessage) -> String {
    let mut path = String::from("/topics/");
    encode(&mut path, message.topic.as_str());
    path.push_str(match message.qos {
        QoS::AtMostOnce => "?qos=0",
        _ => "?qos=1",
    });
    if message.retain {
        path.push_str("&retain=true");
    }
    if let Some(content_type) = &message.properties.content_type {
        path.push_str("&contentType=");
        encode(&mut path, content_type);
    }
    if let Some(topic) = &message.properties.response_topic {
        path.push_str("&responseTopic=");
        encode(&mut path, topic.as_str());
    }
    if let Some(expiry) = message.properties.expiry {
        // Writing to a string cannot fail.
        let _ = write!(path, "&messageExpiry={}", expiry.as_secs().max(1));
    }
    path
}

/// The attributes of MQTT 5 that travel as headers.
fn attributes_of(message: &OutboundMessage) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    if message.properties.is_empty() {
        return headers;
    }
    if message.properties.payload_format == PayloadFormat::Text {
        headers.push((
            "x-amz-mqtt5-payload-format-indicator",
            "UTF8_DATA".to_owned(),
        ));
    }
    if let Some(data) = &message.properties.correlation_data {
        headers.push(("x-amz-mqtt5-correlation-data", BASE64.encode(data)));
    }
    if !message.properties.user.is_empty() {
        let pairs: Vec<serde_json::Value> = message
            .properties
            .user
            .iter()
            .map(|(name, value)| serde_json::json!({ name.as_str(): value }))
            .collect();
        let json = serde_json::Value::from(pairs).to_string();
        headers.push((
            "x-amz-mqtt5-user-properties",
            BASE64.encode(json.as_bytes()),
        ));
    }
    headers
}

/// Why a message was not, or perhaps not, published over HTTPS.
#[derive(Debug)]
#[non_exhaustive]
pub enum HttpsPublishError {
    /// The message breaks a rule of the service. Nothing was sent.
    Rule(RuleViolation),
    /// There are no credentials. Nothing was sent.
    Credentials(CredentialsError),
    /// The request cannot be signed. Nothing was sent.
    Signature(sigv4_presign::Error),
    /// There was no answer; the message may have been taken.
    Https(HttpsError),
    /// The service refused. The message was not published.
    Refused(Box<ServiceRefusal>),
}

impl HttpsPublishError {
    /// Whether the same call may succeed later without anybody changing anything. After [`Https`](Self::Https) the message
    /// may then be published twice.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Rule(_) | Self::Signature(_) => false,
            Self::Credentials(error) => error.is_retryable(),
            Self::Https(_) => true,
            Self::Refused(refusal) => matches!(refusal.status(), 408 | 429 | 500..),
        }
    }
}

impl fmt::Display for HttpsPublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rule(_) => "the message breaks a rule of AWS IoT",
            Self::Credentials(_) => "there are no credentials to publish with",
            Self::Signature(_) => "the request cannot be signed",
            Self::Https(_) => "the service's answer did not come",
            Self::Refused(_) => "the message was refused",
        })
    }
}

impl StdError for HttpsPublishError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(match self {
            Self::Rule(error) => error,
            Self::Credentials(error) => error,
            Self::Signature(error) => error,
            Self::Https(error) => error,
            Self::Refused(error) => error.as_ref(),
        })
    }
}

impl From<RuleViolation> for HttpsPublishError {
    fn from(violation: RuleViolation) -> Self {
        Self::Rule(violation)
    }
}

impl From<SignedCallError> for HttpsPublishError {
    fn from(error: SignedCallError) -> Self {
        match error {
            SignedCallError::Credentials(error) => Self::Credentials(error),
            SignedCallError::Signature(error) => Self::Signature(error),
            SignedCallError::Https(error) => Self::Https(error),
            SignedCallError::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pubsub_core::TopicName;

    use super::*;

    #[test]
    fn a_message_becomes_a_path_and_headers() {
        let mut message = OutboundMessage::new(TopicName::new("rooms/1 é=~").unwrap(), "x");
        assert_eq!(path_of(&message), "/topics/rooms%2F1%20%C3%A9%3D~?qos=0");
        assert_eq!(attributes_of(&message), []);
        message.qos = QoS::AtLeastOnce;
        message.retain = true;
        message.properties.content_type = Some("text/plain".into());
        message.properties.response_topic = TopicName::new("a/b").ok();
        message.properties.expiry = Some(Duration::from_millis(10));
        message.properties.payload_format = PayloadFormat::Text;
        message.properties.correlation_data = Some("id".into());
        message.properties.user.push(("k".into(), "v\"".into()));
        message.properties.user.push(("k".into(), "w".into()));
        assert_eq!(
            path_of(&message),
            "/topics/rooms%2F1%20%C3%A9%3D~?qos=1&retain=true&contentType=text%2Fplain&responseTopic=a%2Fb\
             &messageExpiry=1"
        );
        let expected = BASE64.encode(br#"[{"k":"v\""},{"k":"w"}]"#);
        assert_eq!(
            attributes_of(&message),
            [
                (
                    "x-amz-mqtt5-payload-format-indicator",
                    "UTF8_DATA".to_owned()
                ),
                ("x-amz-mqtt5-correlation-data", "aWQ=".to_owned()),
                ("x-amz-mqtt5-user-properties", expected),
            ]
        );
    }
}
