//! What pubsub-core asks of every provider, asked of this one.
#![cfg(feature = "ws")]
#![allow(missing_docs, reason = "tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Cord, OnACord};
use pubsub_core::contract::{self, Fixture};
use pubsub_core::{BoxFuture, Provider, TopicFilter};
use pubsub_generic::{MqttOptions, MqttProvider, ProtocolVersion, WsConnect};

/// A provider as the suite knows it, as we do, and the cord to its connection.
type Made = (Arc<dyn Provider>, Arc<MqttProvider>, Cord);

/// A broker, and the providers that were made for it.
struct Service {
    url: String,
    version: ProtocolVersion,
    refused: Option<TopicFilter>,
    made: Mutex<Vec<Made>>,
}

impl Service {
    fn new(url: String, version: ProtocolVersion) -> Self {
        Self {
            url,
            version,
            refused: None,
            made: Mutex::default(),
        }
    }

    fn known(&self, provider: &Arc<dyn Provider>) -> (Arc<MqttProvider>, Cord) {
        let made = self.made.lock().unwrap();
        let (_, ours, cord) = made
            .iter()
            .find(|(known, ..)| Arc::ptr_eq(known, provider))
            .unwrap();
        (Arc::clone(ours), cord.clone())
    }
}

impl Fixture for Service {
    fn provider(&self) -> BoxFuture<'_, Arc<dyn Provider>> {
        let cord = Cord::default();
        let connect = WsConnect::from_options(&MqttOptions::new(&self.url)).unwrap();
        let options = MqttOptions::without_url().protocol_version(self.version);
        let provider = MqttProvider::with_connect(
            options,
            OnACord {
                connect,
                cord: cord.clone(),
            },
        )
        .unwrap();
        let ours = Arc::new(provider);
        let shared: Arc<dyn Provider> = Arc::clone(&ours) as _;
        self.made
            .lock()
            .unwrap()
            .push((Arc::clone(&shared), ours, cord));
        Box::pin(async { shared })
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    fn refused_filter(&self) -> Option<TopicFilter> {
        self.refused.clone()
    }

    fn filters_held<'a>(&'a self, provider: &'a Arc<dyn Provider>) -> Option<BoxFuture<'a, usize>> {
        let (ours, _) = self.known(provider);
        Some(Box::pin(async move { ours.stats().subscriptions }))
    }

    fn interrupt<'a>(&'a self, provider: &'a Arc<dyn Provider>) -> Option<BoxFuture<'a, ()>> {
        let (_, cord) = self.known(provider);
        Some(Box::pin(async move { cord.pull() }))
    }
}

async fn holds_against_mosquitto(version: ProtocolVersion) {
    let Some(mosquitto) = testkit::mosquitto::find_or_skip() else {
        return;
    };
    // With its default window of 20, mosquitto 2.0.11 forgets QoS 2 messages that wait for their turn: it sends no more
    // after the PUBCOMPs of the first 20.
    let broker = mosquitto
        .config()
        .websocket()
        .line("max_inflight_messages 0")
        .start()
        .await
        .unwrap();
    contract::check(&Service::new(broker.ws_url(), version)).await;
}

#[tokio::test]
async fn holds_against_mosquitto_with_mqtt_3_1_1() {
    holds_against_mosquitto(ProtocolVersion::V311).await;
}
#[tokio::test]
async fn holds_against_mosquitto_with_mqtt_5() {
    holds_against_mosquitto(ProtocolVersion::V5).await;
}
