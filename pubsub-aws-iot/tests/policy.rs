//! The policy that is written is enough, and no more than that, by the gateway's judgement.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::time::Duration;

use common::{access_key, client, gateway_to, options};
use pubsub_aws_iot::core::{TopicFilter, TopicName};
use pubsub_aws_iot::{
    AwsIotOptions, ConnectAttribute, LeastPolicy, QoS, Reconnect, SessionMode, Will,
};
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

const SESSION: SessionMode = SessionMode::Persistent {
    expiry: Duration::from_secs(3600),
};

/// Options of a client with a will, whose session is kept.
fn lasting(options: AwsIotOptions) -> AwsIotOptions {
    options
        .client_id("kitchen")
        .session(SESSION)
        .configure_mqtt(|mqtt| {
            mqtt.will(Will::new("presence/kitchen", "gone"))
                .reconnect(Reconnect::never())
        })
}

#[tokio::test]
async fn reserved_topics_sessions_and_wills_are_as_allowed() {
    let topic = |name: &str| TopicName::new(name).unwrap();
    let filter = |name: &str| TopicFilter::new(name).unwrap();
    let without_connect = LeastPolicy::new(format!("arn:aws:iot:eu-west-1:{ACCOUNT}"))
        .publish(&topic("presence/kitchen"))
        .publish(&topic("$aws/rules/store/rooms/kitchen"))
        .publish(&topic("$aws/things/kitchen/shadow/update"))
        .publish_retained(&topic("rooms/kitchen"))
        .subscribe(&filter("$aws/things/kitchen/shadow/update/+"))
        .subscribe(&filter("$aws/things/kitchen/jobs/notify-next"))
        .subscribe(&filter("$share/cooks/orders/#"));
    let attributes = [
        ConnectAttribute::PersistentConnect,
        ConnectAttribute::LastWill,
    ];
    let enough = without_connect.clone().connect_with("kitchen", attributes);
    let too_little = without_connect.connect_with("kitchen", [ConnectAttribute::LastWill]);
    let broker = testkit::embedded::Broker::start().await.unwrap();
    for (policy, is_enough) in [(enough, true), (too_little, false)] {
        let policy = Policy::parse(&policy.to_string()).unwrap();
        let gateway = gateway_to(&broker.url())
            .access_key(access_key().policy(policy))
            .start()
            .await
            .unwrap();
        let (pubsub, provider) = client(lasting(options(&gateway)));
        let connected = provider.connect().await;
        assert_eq!(connected.is_ok(), is_enough, "{connected:?}");
        if !is_enough {
            assert_eq!(gateway.incidents().len(), 1);
            continue;
        }
        for filter in [
            "$aws/things/kitchen/shadow/update/+",
            "$aws/things/kitchen/jobs/notify-next",
            "$share/cooks/orders/#",
        ] {
            let subscription = pubsub.subscribe(filter).await.unwrap();
            drop(subscription);
        }
        for topic in [
            "$aws/rules/store/rooms/kitchen",
            "$aws/things/kitchen/shadow/update",
        ] {
            let publish = pubsub.publish(topic, "{}").qos(QoS::AtLeastOnce);
            publish.await.unwrap();
        }
        let retained = pubsub.publish("rooms/kitchen", "x").retain();
        retained.qos(QoS::AtLeastOnce).await.unwrap();
        assert_eq!(gateway.incidents(), []);
        let other = pubsub.publish("$aws/things/bath/shadow/update", "{}");
        other.qos(QoS::AtLeastOnce).await.unwrap_err();
        assert_eq!(gateway.incidents().len(), 1);
    }
}
