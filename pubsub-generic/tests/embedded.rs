//! Against the broker in this process: what must work where nothing is installed.
#![cfg(feature = "ws")]
#![allow(missing_docs, reason = "tests")]

use std::sync::Arc;

use pubsub_core::{ConnectionState, Event, Json, PubSub, QoS};
use pubsub_generic::{DEFAULT_NAME, MqttOptions, MqttProvider};
use testkit::embedded::Broker;

async fn client(broker: &Broker) -> PubSub {
    let pubsub = PubSub::new();
    let provider = Arc::new(MqttProvider::new(MqttOptions::new(broker.url())).unwrap());
    pubsub
        .add_provider(DEFAULT_NAME, Arc::clone(&provider))
        .unwrap();
    provider.connect().await.unwrap();
    pubsub
}

#[tokio::test]
async fn json_goes_round_at_every_quality_of_service() {
    let broker = Broker::start().await.unwrap();
    let (alice, bob) = (client(&broker).await, client(&broker).await);
    let mut messages = bob.subscribe("chat/+").qos(QoS::ExactlyOnce).await.unwrap();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        alice
            .publish("chat/lobby", Json(&[1, 2]))
            .qos(qos)
            .await
            .unwrap();
        let message = messages.next().await.unwrap().unwrap();
        assert_eq!(message.topic, "chat/lobby");
        assert_eq!(message.qos, qos);
        assert_eq!(message.json::<Vec<u32>>().unwrap(), [1, 2]);
    }
    messages.unsubscribe().await.unwrap();
    alice.close().await.unwrap();
    bob.close().await.unwrap();
}

#[tokio::test]
async fn a_subscription_survives_the_death_of_the_broker() {
    let mut broker = Broker::start().await.unwrap();
    let bob = client(&broker).await;
    let mut events = bob.subscribe("chat/+").await.unwrap().events();
    let mut connection = bob.connection(DEFAULT_NAME).unwrap();
    broker.kill().await;
    connection
        .reached(ConnectionState::ConnectionDisrupted)
        .await
        .unwrap();
    broker.start_again().await.unwrap();
    connection
        .reached(ConnectionState::Connected)
        .await
        .unwrap();
    bob.publish("chat/lobby", "again").await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(Event::Gap(_)))));
    let Some(Ok(Event::Message(message))) = events.next().await else {
        panic!("no message")
    };
    assert_eq!(message.text().unwrap(), "again");
    bob.close().await.unwrap();
}
