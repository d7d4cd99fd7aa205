//! What pubsub-core asks of every provider, asked of this one through the gateway, over TLS.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{REGION, credentials, gateway_to};
use pubsub_aws_iot::core::contract::{self, Capabilities, Fixture, Retain};
use pubsub_aws_iot::core::{BoxFuture, Provider, QoS, TopicFilter};
use pubsub_aws_iot::{AwsIotOptions, AwsIotProvider, ProtocolVersion};
use testkit::certs::Authority;
use testkit::gateway::Gateway;

/// A provider as the suite knows it, and as we do.
type Made = (Arc<dyn Provider>, Arc<AwsIotProvider>);

struct Service {
    gateway: Gateway,
    authority: Authority,
    version: ProtocolVersion,
    made: Mutex<Vec<Made>>,
}

impl Fixture for Service {
    fn provider(&self) -> BoxFuture<'_, Arc<dyn Provider>> {
        let options = AwsIotOptions::new(self.gateway.url())
            .region(REGION)
            .extra_roots_pem(self.authority.pem())
            .protocol_version(self.version)
            .credentials(credentials());
        let ours = Arc::new(AwsIotProvider::new(options).unwrap());
        let shared: Arc<dyn Provider> = Arc::clone(&ours) as _;
        let mut made = self.made.lock().unwrap();
        made.push((Arc::clone(&shared), ours));
        Box::pin(async { shared })
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        can.max_qos = QoS::AtLeastOnce;
        // The suite also asks for retained messages with wildcards, which this service does not send.
        can.retain = Retain::NotKept;
        can.payload_len = 128 * 1024;
        can
    }

    fn refused_filter(&self) -> Option<TopicFilter> {
        TopicFilter::new("$SYS/#").ok()
    }

    fn filters_held<'a>(&'a self, provider: &'a Arc<dyn Provider>) -> Option<BoxFuture<'a, usize>> {
        let made = self.made.lock().unwrap();
        let (_, ours) = made
            .iter()
            .find(|(known, _)| Arc::ptr_eq(known, provider))?;
        let ours = Arc::clone(ours);
        Some(Box::pin(async move { ours.stats().subscriptions }))
    }

    fn interrupt<'a>(&'a self, _: &'a Arc<dyn Provider>) -> Option<BoxFuture<'a, ()>> {
        Some(Box::pin(async { self.gateway.close_all() }))
    }
}

async fn holds(broker_url: &str, version: ProtocolVersion) {
    let authority = Authority::new();
    let gateway = gateway_to(broker_url).tls(&authority.server());
    let service = Service {
        gateway: gateway.start().await.unwrap(),
        authority,
        version,
        made: Mutex::default(),
    };
    contract::check(&service).await;
    assert_eq!(service.gateway.incidents(), []);
}

const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::V5, ProtocolVersion::V311];

#[tokio::test]
async fn holds_through_the_gateway_and_mosquitto() {
    let Some(mosquitto) = testkit::mosquitto::find_or_skip() else {
        return;
    };
    for version in VERSIONS {
        let broker = mosquitto.config().websocket().start().await.unwrap();
        holds(&broker.ws_url(), version).await;
    }
}

/// This broker sends a copy for each filter under both versions.
#[tokio::test]
async fn holds_through_the_gateway_and_the_embedded_broker() {
    for version in VERSIONS {
        let broker = testkit::embedded::Broker::start().await.unwrap();
        holds(&broker.url(), version).await;
    }
}
