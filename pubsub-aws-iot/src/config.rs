//! Options from a configuration file, under the names that Amplify gives them and our own.

use std::time::Duration;

use pubsub_generic::ProtocolVersion;
use serde::{Deserialize, Deserializer, de};

use crate::endpoint::PlainWs;
use crate::options::AwsIotOptions;

/// The keys of a configuration file.
///
/// Half of them are those of `pubsub-generic`'s own reader, and are listed again on purpose. What two readers could share is
/// either this struct, which would be part of that crate's API with fields that mean nothing there, or a map that both pick
/// from, which no longer tells that a key was given twice.
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
    #[serde(rename = "aws_pubsub_region", alias = "region")]
    region: Option<String>,
    #[serde(rename = "clientId", alias = "client_id")]
    client_id: Option<String>,
    #[serde(rename = "protocolVersion", alias = "protocol_version")]
    version: Option<Version>,
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
    #[serde(rename = "3.1.1")]
    V311,
    #[serde(rename = "5")]
    V5,
}

/// Reads Amplify's names (`aws_pubsub_endpoint` or `endpoint`, `aws_pubsub_region` or `region`, `clientId`, …), and
/// `protocolVersion` (`"3.1.1"`, `"5"`) and `keepAliveSecs` beside them, each also in snake case. Keys that mean nothing
/// here are ignored; what is missing keeps its default. The credentials are given in the program.
///
/// ```
/// use pubsub_aws_iot::{AwsIotOptions, AwsIotProvider, EnvironmentCredentials};
///
/// let options: AwsIotOptions = serde_json::from_str(
///     r#"{ "PubSub": {
///         "aws_pubsub_endpoint": "wss://a1b2c3example-ats.iot.eu-west-1.amazonaws.com/mqtt",
///         "aws_pubsub_region": "eu-west-1"
///     } }"#,
/// )?;
/// AwsIotProvider::new(options.credentials(EnvironmentCredentials::new()))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<'de> Deserialize<'de> for AwsIotOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut file = File::deserialize(deserializer)?;
        if let Some(section) = file.section.take() {
            file = *section;
        }
        let endpoint = file
            .endpoint
            .ok_or_else(|| de::Error::missing_field("aws_pubsub_endpoint"))?;
        let mut options = Self::new(endpoint);
        if let Some(region) = file.region {
            options = options.region(region);
        }
        // Amplify takes an empty identifier for none.
        if let Some(client_id) = file.client_id.filter(|id| !id.is_empty()) {
            options = options.client_id(client_id);
        }
        if let Some(version) = file.version {
            options = options.protocol_version(match version {
                Version::V311 => ProtocolVersion::V311,
                Version::V5 => ProtocolVersion::V5,
            });
        }
        if let Some(secs) = file.keep_alive_secs {
            options = options.keep_alive(Duration::from_secs(secs));
        }
        if file.allow_plain_ws == Some(true) {
            options = options.plain_ws(PlainWs::LoopbackForTesting);
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AwsCredentials, AwsIotProvider};

    const HOST: &str = "a1-ats.iot.eu-west-1.amazonaws.com";

    fn provider(json: &str) -> AwsIotProvider {
        let options: AwsIotOptions = serde_json::from_str(json).unwrap();
        let source = AwsCredentials::new("AKIDEXAMPLE", "secret");
        AwsIotProvider::new(options.credentials(source)).unwrap()
    }

    #[test]
    fn takes_amplifys_names_in_both_spellings() {
        for json in [
            r#"{"aws_pubsub_endpoint": "wss://HOST/mqtt", "aws_pubsub_region": "eu-west-1", "clientId": "c"}"#,
            r#"{"endpoint": "wss://HOST/mqtt", "region": "eu-west-1", "client_id": "c"}"#,
            r#"{"endpoint": "HOST", "clientId": "c", "aws_project_region": "us-east-1"}"#,
            r#"{"endpoint": "other", "PubSub": {"endpoint": "HOST", "clientId": "c"}}"#,
        ] {
            let provider = provider(&json.replace("HOST", HOST));
            assert_eq!(provider.host(), HOST, "{json}");
            assert_eq!(provider.region(), Some("eu-west-1"), "{json}");
            assert_eq!(provider.client_id(), "c", "{json}");
        }
    }

    #[test]
    fn reads_the_rest() {
        let provider = provider(
            r#"{"endpoint": "ws://127.0.0.1:1/mqtt", "region": "eu-west-1", "clientId": "",
                "protocolVersion": "3.1.1", "keepAliveSecs": 77,
                "aws_appsync_dangerously_connect_to_http_endpoint_for_testing": true}"#,
        );
        assert_eq!(provider.client_id().len(), 36);
        let shown = format!("{provider:?}");
        assert!(
            shown.contains("77s") && shown.contains("127.0.0.1"),
            "{shown}"
        );
    }

    #[test]
    fn refuses_a_riddle_and_an_absence() {
        let read = |json| {
            serde_json::from_str::<AwsIotOptions>(json)
                .unwrap_err()
                .to_string()
        };
        assert!(
            read(r#"{"endpoint": "a", "aws_pubsub_endpoint": "b"}"#).contains("duplicate field")
        );
        assert!(read("{}").contains("aws_pubsub_endpoint"));
        assert!(read(r#"{"endpoint": "a", "protocolVersion": "4"}"#).contains("unknown variant"));
    }
}
