//! Publishing over HTTPS, for back ends that have something to say now and then and hold no connection.

use std::error::Error as StdError;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use data_encoding::BASE64;
use pubsub_core::{OutboundMessage, PayloadFormat, QoS};
use pubsub_generic::CredentialFreshness;
use sigv4_presign::{Payload, Request, Settings, Signer};

use crate::clock::ServiceClock;
use crate::credentials::{AwsCredentials, CredentialSource, CredentialsError};
use crate::endpoint::Endpoint;
use crate::https::{Answer, HttpsClient, HttpsError};
use crate::options::{AwsIotOptions, AwsIotOptionsError};
use crate::refusal::ServiceRefusal;
use crate::rules::{RuleViolation, ServiceRules};

/// The name that the SDKs sign these calls with.
const SIGNING_NAME: &str = "iotdata";

/// Publishes over HTTPS: one signed `POST /topics/…` a message, each on a connection of its own.
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
    https: HttpsClient,
    source: Arc<dyn CredentialSource>,
    rules: ServiceRules,
    signer: Signer,
    clock: ServiceClock,
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
        Ok(Self {
            https: HttpsClient::new(connector, endpoint.target().clone()),
            endpoint,
            source,
            rules,
            signer: Signer::new(),
            clock: ServiceClock::default(),
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
        let path = path_of(message);
        let attributes = attributes_of(message);
        let mut freshness = CredentialFreshness::Any;
        let mut credentials = self.source.credentials(freshness).await?;
        if credentials.is_expired(self.clock.now()) {
            freshness = CredentialFreshness::Renew;
            credentials = self.source.credentials(freshness).await?;
        }
        let mut clock_corrected = false;
        loop {
            let answer = self.send(message, &path, &attributes, &credentials).await?;
            if answer.status.is_success() {
                return Ok(());
            }
            let header = |name: &str| answer.headers.get(name)?.to_str().ok();
            let about_signature = matches!(answer.status.as_u16(), 401 | 403);
            let skew = self
                .clock
                .skew_shown_by(header("date"))
                .filter(|_| about_signature);
            if skew.is_some() && !clock_corrected && self.clock.correct(header("date")).is_some() {
                clock_corrected = true;
                continue;
            }
            if about_signature && skew.is_none() && freshness == CredentialFreshness::Any {
                freshness = CredentialFreshness::Renew;
                let renewed = self.source.credentials(freshness).await?;
                if !renewed.is_same(&credentials) {
                    credentials = renewed;
                    continue;
                }
            }
            return Err(HttpsPublishError::Refused(Box::new(
                ServiceRefusal::understand(
                    answer.status.as_u16(),
                    header,
                    &answer.body,
                    &credentials,
                    self.clock.now(),
                    skew,
                ),
            )));
        }
    }

    async fn send(
        &self,
        message: &OutboundMessage,
        path: &str,
        attributes: &[(&'static str, String)],
        credentials: &AwsCredentials,
    ) -> Result<Answer, HttpsPublishError> {
        let url = format!("{}{path}", self.endpoint.https_origin());
        let mut headers: Vec<(&str, &str)> = attributes
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let request = Request::new("POST", &url)
            .headers(&headers)
            .payload(Payload::Bytes(&message.payload));
        let settings = Settings::new(self.endpoint.region(), SIGNING_NAME);
        let signed = self
            .signer
            .sign_headers(&request, credentials.keys(), self.clock.now(), &settings)
            .map_err(HttpsPublishError::Signature)?;
        headers.extend(signed.iter());
        let answer = self.https.post(path, &headers, message.payload.clone());
        Ok(answer.await?)
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

/// Percent-encodes everything but RFC 3986's unreserved characters, slashes too.
fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
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

impl From<CredentialsError> for HttpsPublishError {
    fn from(error: CredentialsError) -> Self {
        Self::Credentials(error)
    }
}

impl From<HttpsError> for HttpsPublishError {
    fn from(error: HttpsError) -> Self {
        Self::Https(error)
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
