//! What a policy denies fails by itself, named, and takes nothing else with it.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::time::Duration;

use common::{access_key, client, gateway_to, options};
use pubsub_aws_iot::core::{
    ProviderErrorKind, PublishError, Refusal, RefusalKind, SubscribeError, SubscriptionError,
};
use pubsub_aws_iot::{AwsIotOptions, ProbablyNotAuthorized, ProtocolVersion, QoS, Reconnect};
use testkit::embedded::Broker;
use testkit::gateway::{ACCOUNT, AccessKey, DeniedPublish, Gateway, GatewayOptions, Policy};

const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::V5, ProtocolVersion::V311];
const NOT_AUTHORIZED: Option<u16> = Some(0x87);

/// A key that may do what it likes below these names, and nothing else.
fn allowed_below(names: &[&str]) -> AccessKey {
    let arns = |kind: &str| {
        let names = names
            .iter()
            .map(|name| format!(r#""arn:aws:iot:eu-west-1:{ACCOUNT}:{kind}/{name}/*""#));
        names.collect::<Vec<_>>().join(",")
    };
    let (topics, filters) = (arns("topic"), arns("topicfilter"));
    let policy = format!(
        r#"{{"Version":"2012-10-17","Statement":[
            {{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}},
            {{"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":[{topics}]}},
            {{"Effect":"Allow","Action":"iot:Subscribe","Resource":[{filters}]}}]}}"#
    );
    access_key().policy(Policy::parse(&policy).unwrap())
}

async fn start(change: impl FnOnce(GatewayOptions) -> GatewayOptions) -> (Broker, Gateway) {
    let broker = Broker::start().await.unwrap();
    let gateway = change(gateway_to(&broker.url()).access_key(allowed_below(&["open"])));
    (broker, gateway.start().await.unwrap())
}

fn quickly(options: AwsIotOptions, version: ProtocolVersion) -> AwsIotOptions {
    let soon = Reconnect::default()
        .first(Duration::from_millis(10))
        .base(Duration::from_millis(20));
    options
        .protocol_version(version)
        .configure_mqtt(|mqtt| mqtt.reconnect(soon))
}

fn assert_named(refusal: &Refusal, version: ProtocolVersion) {
    assert_eq!(refusal.kind, RefusalKind::NotAuthorized);
    if version == ProtocolVersion::V5 {
        assert_eq!(refusal.code, NOT_AUTHORIZED);
    } else {
        assert!(
            ProbablyNotAuthorized::find(refusal).is_some(),
            "{refusal:?}"
        );
    }
}

#[tokio::test]
async fn a_denied_filter_fails_alone() {
    for version in VERSIONS {
        let (_broker, gateway) = start(|gateway| gateway).await;
        let (pubsub, _) = client(quickly(options(&gateway), version));
        let mut messages = pubsub
            .subscribe(["open/a", "secret/a", "open/b"])
            .await
            .unwrap();
        let refused: Vec<_> = messages
            .outcomes()
            .iter()
            .filter_map(|outcome| Some((outcome.filter.as_str(), outcome.result.as_ref().err()?)))
            .collect();
        let [("secret/a", refusal)] = refused[..] else {
            panic!("{refused:?}");
        };
        assert_named(refusal, version);
        for topic in ["open/a", "open/b"] {
            pubsub.publish(topic, "x").await.unwrap();
            assert_eq!(messages.next().await.unwrap().unwrap().topic, topic);
        }
        // MQTT 3.1.1: one connection ended by the batch, one by the filter alone, and one that stands.
        let attempts = if version == ProtocolVersion::V5 { 1 } else { 3 };
        assert_eq!(gateway.attempts().len(), attempts);
        pubsub.close().await.unwrap();
    }
}

#[tokio::test]
async fn several_denied_filters_cost_one_connection_each() {
    let (_broker, gateway) = start(|gateway| gateway).await;
    let (pubsub, _) = client(quickly(options(&gateway), ProtocolVersion::V311));
    let filters = ["secret/1", "open/a", "secret/2", "secret/3", "secret/4"];
    let mut messages = pubsub.subscribe(filters).await.unwrap();
    let refused = messages
        .outcomes()
        .iter()
        .filter_map(|o| o.result.as_ref().err());
    let mut count = 0;
    for refusal in refused {
        assert_named(refusal, ProtocolVersion::V311);
        count += 1;
    }
    assert_eq!(count, 4);
    pubsub.publish("open/a", "x").await.unwrap();
    assert_eq!(messages.next().await.unwrap().unwrap().topic, "open/a");
    assert_eq!(gateway.attempts().len(), 1 + 4 + 1);
    pubsub.close().await.unwrap();
}

#[tokio::test]
async fn a_denied_publish_fails_alone() {
    for version in VERSIONS {
        let (_broker, gateway) = start(|gateway| gateway).await;
        let (pubsub, _) = client(quickly(options(&gateway), version));
        let sent: Vec<_> = (0..5)
            .map(|n| {
                let topic = if n == 2 { "secret/a" } else { "open/a" };
                let sending = pubsub.publish(topic, n.to_string());
                (topic, sending.qos(QoS::AtLeastOnce).send())
            })
            .collect();
        for (topic, sending) in sent {
            let outcome = sending.await;
            match outcome {
                Ok(_) => assert_eq!(topic, "open/a"),
                Err(PublishError::Rejected(refusal)) if version == ProtocolVersion::V5 => {
                    assert_eq!(topic, "secret/a");
                    assert_named(&refusal, version);
                }
                Err(PublishError::Indeterminate(error)) if version == ProtocolVersion::V311 => {
                    assert_eq!(topic, "secret/a");
                    assert_eq!(error.kind(), ProviderErrorKind::NotAuthorized);
                    assert!(!error.is_retryable());
                    assert!(ProbablyNotAuthorized::find(&error).is_some(), "{error:?}");
                }
                other => panic!("{version:?} {topic}: {other:?}"),
            }
        }
        // It is not sent again, so nothing more is hung up on.
        let before = gateway.attempts().len();
        pubsub
            .publish("open/a", "x")
            .qos(QoS::AtLeastOnce)
            .await
            .unwrap();
        assert_eq!(gateway.attempts().len(), before);
        pubsub.close().await.unwrap();
    }
}

/// The right to a filter is withdrawn while it is subscribed: it is lost, and the other stays.
#[tokio::test]
async fn a_filter_that_is_denied_anew_does_not_take_the_others_into_a_loop() {
    for version in VERSIONS {
        let (_broker, gateway) = start(|gateway| gateway).await;
        gateway.keys().add(allowed_below(&["open", "passing"]));
        let (pubsub, provider) = client(quickly(options(&gateway), version));
        let mut stays = pubsub.subscribe(["open/a", "open/b"]).await.unwrap();
        let mut goes = pubsub.subscribe("passing/a").await.unwrap();
        gateway.keys().add(allowed_below(&["open"]));
        gateway.close_all();
        let lost = goes.next().await.unwrap().unwrap_err();
        let SubscriptionError::FilterLost(lost) = lost else {
            panic!("{lost:?}");
        };
        assert_named(&lost.reason, version);
        pubsub
            .publish("open/b", "x")
            .qos(QoS::AtLeastOnce)
            .await
            .unwrap();
        assert_eq!(stays.next().await.unwrap().unwrap().topic, "open/b");
        assert_eq!(provider.stats().subscriptions, 2);
        pubsub.close().await.unwrap();
    }
}

/// MQTT 5 may also say it with a DISCONNECT: always at QoS 0, which has no acknowledgement. It is about the message, so
/// the connection is made again.
#[tokio::test]
async fn a_disconnect_for_a_denied_publish_is_not_the_end() {
    let (_broker, gateway) =
        start(|gateway| gateway.denied_publish(DeniedPublish::Disconnect)).await;
    let (pubsub, _) = client(quickly(options(&gateway), ProtocolVersion::V5));
    let mut messages = pubsub.subscribe("open/a").await.unwrap();
    pubsub.publish("secret/a", "x").await.unwrap();
    gateway.wait_for_attempts(2).await;
    let error = pubsub
        .publish("secret/a", "x")
        .qos(QoS::AtLeastOnce)
        .await
        .unwrap_err();
    let PublishError::Indeterminate(error) = error else {
        panic!("{error:?}");
    };
    assert!(ProbablyNotAuthorized::find(&error).is_some(), "{error:?}");
    pubsub
        .publish("open/a", "x")
        .qos(QoS::AtLeastOnce)
        .await
        .unwrap();
    assert_eq!(messages.next().await.unwrap().unwrap().topic, "open/a");
    assert_eq!(gateway.attempts().len(), 4);
    pubsub.close().await.unwrap();
}

/// The whole call fails when nothing of it is left.
#[tokio::test]
async fn a_call_with_denied_filters_alone_fails() {
    for version in VERSIONS {
        let (_broker, gateway) = start(|gateway| gateway).await;
        let (pubsub, provider) = client(quickly(options(&gateway), version));
        let error = pubsub.subscribe("secret/a").await.unwrap_err();
        assert!(matches!(error, SubscribeError::Refused(_)), "{error:?}");
        assert!(!error.is_retryable());
        assert_eq!(provider.stats().subscriptions, 0);
        pubsub.close().await.unwrap();
    }
}
