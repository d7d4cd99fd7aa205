//! Every call over HTTPS that is signed in its headers, held against what the AWS SDK's own signer makes of the very bytes
//! that went out: moto verifies signatures as well, but decodes what is escaped too often before it does.
#![cfg(all(feature = "control-plane", feature = "https-publish"))]
#![allow(missing_docs, reason = "tests")]

mod common;

use common::{KEY, REGION, SECRET, TOKEN, access_key, answer, captured, credentials};
use pubsub_aws_iot::core::{OutboundMessage, TopicName};
use pubsub_aws_iot::{
    AwsCredentials, AwsIotOptions, ControlPlane, HttpsPublisher, LeastPolicy, PlainWs, QoS,
};
use testkit::gateway::{AccessKey, sdk_authorization};
use testkit::peer::{Peer, RequestHead};

/// The next request, answered with success.
async fn asked(peer: &Peer) -> (RequestHead, Vec<u8>) {
    captured(peer, &answer(200, "", r#"{"endpointAddress":"host"}"#)).await
}

/// Holds the signature of a request against the SDK's, and shows that the comparison sees a difference.
fn assert_signed_as_by_the_sdk((request, body): &(RequestHead, Vec<u8>), key: &AccessKey) {
    let ours = request.header("authorization").unwrap();
    assert_eq!(
        sdk_authorization(request, body, key).unwrap(),
        ours,
        "{}",
        request.target()
    );
    let names = ours.split_once("SignedHeaders=").unwrap().1;
    let names: Vec<&str> = names.split_once(',').unwrap().0.split(';').collect();
    for (name, _) in request.headers() {
        let name = name.to_ascii_lowercase();
        assert!(
            !(name == "host" || name.starts_with("x-amz-")) || names.contains(&name.as_str()),
            "{name} is not signed"
        );
    }
    let other = AccessKey::new(KEY, "another secret").session_token(TOKEN);
    assert_ne!(sdk_authorization(request, body, &other).unwrap(), ours);
    assert_ne!(sdk_authorization(request, b"other", key).unwrap(), ours);
}

#[tokio::test]
async fn calls_of_the_control_plane() {
    let peer = Peer::bind().await.unwrap();
    for (credentials, key) in [
        (credentials(), access_key()),
        (
            AwsCredentials::new(KEY, SECRET),
            AccessKey::new(KEY, SECRET),
        ),
    ] {
        let control = ControlPlane::new(REGION, credentials).unwrap();
        let control = control
            .endpoint(&format!("http://{}", peer.address()))
            .unwrap();

        let (endpoint, request) = tokio::join!(control.describe_endpoint(), asked(&peer));
        assert_eq!(endpoint.unwrap(), "host");
        assert_eq!(request.0.target(), "/endpoint?endpointType=iot%3AData-ATS");
        assert_signed_as_by_the_sdk(&request, &key);

        let topic = TopicName::new("rooms/kitchen é").unwrap();
        let policy = LeastPolicy::new("arn:aws:iot:eu-west-1:123456789012").publish(&topic);
        // All that a name may have.
        let name = "a+b=c,d.e@f-g_h";
        let (made, request) = tokio::join!(control.create_policy(name, &policy), asked(&peer));
        made.unwrap();
        assert_signed_as_by_the_sdk(&request, &key);

        let identity = "eu-west-1:12345678-1234-1234-1234-123456789012";
        let (made, request) = tokio::join!(control.attach_policy(name, identity), asked(&peer));
        made.unwrap();
        assert_signed_as_by_the_sdk(&request, &key);
    }
}

#[tokio::test]
async fn publishes_with_all_that_they_may_have() {
    let peer = Peer::bind().await.unwrap();
    let options = AwsIotOptions::new(format!("ws://{}", peer.address()))
        .region(REGION)
        .plain_ws(PlainWs::LoopbackForTesting)
        .credentials(credentials());
    let publisher = HttpsPublisher::new(options).unwrap();
    for topic in ["a", "rooms/1 é=~", "$aws/rules/r/%2F*'()!", "a//b/../c/."] {
        let topic = TopicName::new(topic).unwrap();
        let mut message = OutboundMessage::new(topic, "21.5 °C");
        message.qos = QoS::AtLeastOnce;
        message.properties.content_type = Some("text/plain; charset=utf-8".into());
        message.properties.response_topic = Some(TopicName::new("answers/1 ?&").unwrap());
        message.properties.correlation_data = Some("id".into());
        message.properties.user.push(("unit".into(), "°C".into()));
        let (sent, request) = tokio::join!(publisher.publish(&message), asked(&peer));
        sent.unwrap();
        assert_signed_as_by_the_sdk(&request, &access_key());
    }
}
