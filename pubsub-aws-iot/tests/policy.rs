//! The policy that is written is enough, and no more than that, by the gateway's judgement.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::{access_key, client, gateway_to, options};
use pubsub_aws_iot::LeastPolicy;
use pubsub_aws_iot::QoS;
use pubsub_aws_iot::core::{TopicFilter, TopicName};
use testkit::gateway::{ACCOUNT, Policy};

#[tokio::test]
async fn what_is_asked_for_is_allowed_and_nothing_else() {
    let written = LeastPolicy::new(format!("arn:aws:iot:eu-west-1:{ACCOUNT}"))
        .connect("kitchen")
        .publish(&TopicName::new("rooms/kitchen").unwrap())
        .subscribe(&TopicFilter::new("rooms/+").unwrap())
        .to_string();
    let broker = testkit::embedded::Broker::start().await.unwrap();
    let gateway = gateway_to(&broker.url())
        .access_key(access_key().policy(Policy::parse(&written).unwrap()))
        .start()
        .await
        .unwrap();
    let (pubsub, _) = client(options(&gateway).client_id("kitchen"));
    let mut messages = pubsub.subscribe("rooms/+").await.unwrap();
    let confirmed = QoS::AtLeastOnce;
    pubsub
        .publish("rooms/kitchen", "x")
        .qos(confirmed)
        .await
        .unwrap();
    assert_eq!(messages.next().await.unwrap().unwrap().text().unwrap(), "x");
    assert_eq!(gateway.incidents(), []);

    pubsub
        .publish("rooms/bath", "x")
        .qos(confirmed)
        .await
        .unwrap_err();
    pubsub.subscribe("rooms/#").await.unwrap_err();
    assert_eq!(gateway.incidents().len(), 2);
    pubsub.close().await.unwrap();
    let (_pubsub, stranger) = client(options(&gateway).client_id("bath"));
    stranger.connect().await.unwrap_err();
}
