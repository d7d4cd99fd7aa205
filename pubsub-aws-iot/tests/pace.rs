//! Publishes keep to the service's rate by waiting, not by failing.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::num::NonZeroU16;
use std::time::Duration;

use common::{StoppedClock, client, gateway_to, options};
use pubsub_aws_iot::{ProtocolVersion, QoS, ServiceRules};
use testkit::embedded::Broker;
use testkit::gateway::{Incident, Quotas};

/// The gateway counts whole seconds and drops what exceeds them, as the service does.
#[tokio::test]
async fn a_burst_beyond_the_rate_arrives_whole() {
    const BURST: usize = 60;
    const RATE: usize = 20;
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
        let _clock = StoppedClock::stop();
        let sent: Vec<_> = (0..BURST)
            .map(|n| {
                let qos = [QoS::AtMostOnce, QoS::AtLeastOnce][n % 2];
                pubsub.publish("a", n.to_string()).qos(qos).send()
            })
            .collect();
        // Twenty at once, twenty after a second and a little, and the last twenty after another.
        for _ in 0..BURST / RATE {
            for _ in 0..RATE {
                messages.next().await.unwrap().unwrap();
            }
            tokio::time::advance(Duration::from_millis(1_060)).await;
        }
        for sending in sent {
            sending.await.unwrap();
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
    let (pubsub, provider) = client(options(&gateway).rules(rules));
    provider.connect().await.unwrap();
    let _clock = StoppedClock::stop();
    for n in 0..60 {
        pubsub.publish("a", n.to_string()).await.unwrap();
    }
    let incidents = gateway.wait_for_incidents(1).await;
    assert_eq!(incidents[0].1, Incident::PublishRate);
    pubsub.close().await.unwrap();
}
