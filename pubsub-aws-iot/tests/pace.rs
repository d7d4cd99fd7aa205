//! Publishes keep to the service's rate by waiting, not by failing.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use common::{client, gateway_to, options};
use pubsub_aws_iot::{ProtocolVersion, QoS, ServiceRules};
use testkit::embedded::Broker;
use testkit::gateway::{Incident, Quotas};

/// The gateway counts whole seconds and drops what exceeds them, as the service does.
#[tokio::test]
async fn a_burst_beyond_the_rate_arrives_whole() {
    const BURST: usize = 60;
    for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
        let broker = Broker::start().await.unwrap();
        let gateway = gateway_to(&broker.url())
            .quotas(Quotas::aws().publishes_per_second(20))
            .start()
            .await
            .unwrap();
        let mut rules = ServiceRules::default();
        rules.publishes_per_second = NonZeroU16::new(20);
        let (pubsub, _) = client(options(&gateway).protocol_version(version).rules(rules));
        let mut messages = pubsub.subscribe("a").await.unwrap();
        let begun = Instant::now();
        let sent: Vec<_> = (0..BURST)
            .map(|n| {
                let qos = [QoS::AtMostOnce, QoS::AtLeastOnce][n % 2];
                pubsub.publish("a", n.to_string()).qos(qos).send()
            })
            .collect();
        for sending in sent {
            sending.await.unwrap();
        }
        // Twenty at once, twenty a second later, and the last twenty after another.
        assert!(begun.elapsed() >= Duration::from_secs(2));
        for _ in 0..BURST {
            messages.next().await.unwrap().unwrap();
        }
        assert_eq!(gateway.incidents(), []);
        pubsub.close().await.unwrap();
    }
}

#[tokio::test]
async fn switched_off_the_service_is_the_one_to_object() {
    let broker = Broker::start().await.unwrap();
    let gateway = gateway_to(&broker.url())
        .quotas(Quotas::aws().publishes_per_second(20))
        .start()
        .await
        .unwrap();
    let mut rules = ServiceRules::default();
    rules.publishes_per_second = None;
    let (pubsub, _) = client(options(&gateway).rules(rules));
    for n in 0..60 {
        pubsub.publish("a", n.to_string()).await.unwrap();
    }
    let incidents = gateway.wait_for_incidents(1).await;
    assert_eq!(incidents[0].1, Incident::PublishRate);
    pubsub.close().await.unwrap();
}
