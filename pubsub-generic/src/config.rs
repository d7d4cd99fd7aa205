//! Options from a configuration file, under the names that Amplify gives them and our own.

use std::time::Duration;

use mqtt_codec::ProtocolVersion;
use serde::{Deserialize, Deserializer, de};

use crate::options::MqttOptions;
use crate::ws::PlainWs;

/// The keys of a configuration file.
///
/// Others are ignored, since an Amplify configuration holds those of all categories. A key that is given in both of its
/// spellings is an error, not a riddle.
#[derive(Deserialize)]
struct File {
    /// Amplify's own rule: a `PubSub` section is used instead of what stands beside it.
    #[serde(rename = "PubSub")]
    section: Option<Box<Self>>,
    #[serde(rename = "aws_pubsub_endpoint", alias = "endpoint")]
    endpoint: Option<String>,
    #[serde(rename = "clientId", alias = "client_id")]
    client_id: Option<String>,
    #[serde(rename = "userName", alias = "user_name", alias = "username")]
    user_name: Option<String>,
    password: Option<String>,
    #[serde(rename = "protocolVersion", alias = "protocol_version")]
    version: Option<Version>,
    subprotocol: Option<String>,
    #[serde(rename = "keepAliveSecs", alias = "keep_alive_secs")]
    keep_alive_secs: Option<u64>,
    #[serde(
        rename = "aws_appsync_dangerously_connect_to_http_endpoint_for_testing",
        alias = "allow_plain_ws"
    )]
    allow_plain_ws: Option<bool>,
}

#[derive(Deserialize)]
enum Version {
    #[serde(rename = "3.1")]
    V31,
    #[serde(rename = "3.1.1")]
    V311,
    #[serde(rename = "5")]
    V5,
}

/// Reads Amplify's names (`aws_pubsub_endpoint` or `endpoint`, `clientId`, …), and `userName`, `password`,
/// `protocolVersion` (`"3.1"`, `"3.1.1"`, `"5"`), `subprotocol` and `keepAliveSecs` beside them, each also in snake case.
/// Keys that mean nothing here are ignored; what is missing keeps its default.
///
/// ```
/// let options: pubsub_generic::MqttOptions = serde_json::from_str(
///     r#"{ "PubSub": { "aws_pubsub_endpoint": "wss://broker.example/mqtt", "clientId": "kitchen" } }"#,
/// )?;
/// pubsub_generic::MqttProvider::new(options)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<'de> Deserialize<'de> for MqttOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut file = File::deserialize(deserializer)?;
        if let Some(section) = file.section.take() {
            file = *section;
        }
        let endpoint = file
            .endpoint
            .ok_or_else(|| de::Error::missing_field("aws_pubsub_endpoint"))?;
        let mut options = Self::new(endpoint);
        // Amplify takes an empty identifier for none.
        if let Some(client_id) = file.client_id.filter(|id| !id.is_empty()) {
            options = options.client_id(client_id);
        }
        if let Some(user_name) = file.user_name {
            options = options.user_name(user_name);
        }
        if let Some(password) = file.password {
            options = options.password(password);
        }
        if let Some(version) = file.version {
            options = options.protocol_version(match version {
                Version::V31 => ProtocolVersion::V31,
                Version::V311 => ProtocolVersion::V311,
                Version::V5 => ProtocolVersion::V5,
            });
        }
        if let Some(subprotocol) = file.subprotocol {
            options = options.subprotocol(subprotocol);
        }
        if let Some(secs) = file.keep_alive_secs {
            options = options.keep_alive(Duration::from_secs(secs));
        }
        if file.allow_plain_ws == Some(true) {
            options = options.plain_ws(PlainWs::Anywhere);
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_amplifys_names_in_both_spellings() {
        for json in [
            r#"{"aws_pubsub_endpoint": "wss://h/mqtt", "clientId": "c"}"#,
            r#"{"endpoint": "wss://h/mqtt", "client_id": "c", "aws_project_region": "eu-west-1"}"#,
            r#"{"endpoint": "wss://other", "PubSub": {"endpoint": "wss://h/mqtt", "clientId": "c"}}"#,
        ] {
            let options: MqttOptions = serde_json::from_str(json).unwrap();
            assert_eq!(options.ws.urls, ["wss://h/mqtt"], "{json}");
            assert_eq!(options.client_id.as_deref(), Some("c"), "{json}");
        }
    }

    #[test]
    fn reads_the_rest() {
        let options: MqttOptions = serde_json::from_str(
            r#"{"endpoint": "ws://h/", "clientId": "", "userName": "u", "password": "p", "protocolVersion": "5",
                "subprotocol": "mqttv3.1", "keepAliveSecs": 7,
                "aws_appsync_dangerously_connect_to_http_endpoint_for_testing": true}"#,
        )
        .unwrap();
        assert_eq!(options.client_id, None);
        assert_eq!(options.session.username.as_deref(), Some("u"));
        assert_eq!(options.session.password.as_ref().unwrap(), "p");
        assert_eq!(options.session.version, ProtocolVersion::V5);
        assert_eq!(options.session.keep_alive, Duration::from_secs(7));
        assert_eq!(options.ws.plain, PlainWs::Anywhere);
        assert_eq!(options.ws.subprotocol.as_deref(), Some("mqttv3.1"));
    }

    #[test]
    fn refuses_a_riddle_and_an_absence() {
        let both = serde_json::from_str::<MqttOptions>(
            r#"{"endpoint": "wss://a", "aws_pubsub_endpoint": "wss://b"}"#,
        );
        assert!(both.unwrap_err().to_string().contains("duplicate field"));
        let none = serde_json::from_str::<MqttOptions>("{}");
        assert!(
            none.unwrap_err()
                .to_string()
                .contains("aws_pubsub_endpoint")
        );
    }
}
