//! A gateway in front of a broker, providers for it, and time.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::Arc;
use std::time::Duration;

use pubsub_aws_iot::core::{ProviderError, PubSub};
use pubsub_aws_iot::{
    AwsCredentials, AwsIotOptions, AwsIotProvider, DEFAULT_NAME, PlainWs, ServiceRefusal,
};
use testkit::embedded::Broker;
use testkit::gateway::{AccessKey, Gateway, GatewayOptions};
use testkit::peer::{Peer, RequestHead};

pub(crate) const KEY: &str = "AKIDEXAMPLE";
pub(crate) const SECRET: &str = "marker-secret/wJalrXUtnFEMI+K7MDENG";
pub(crate) const TOKEN: &str = "marker-token/with+every=odd character";
pub(crate) const REGION: &str = "eu-west-1";

pub(crate) fn credentials() -> AwsCredentials {
    AwsCredentials::new(KEY, SECRET).session_token(TOKEN)
}

pub(crate) fn access_key() -> AccessKey {
    AccessKey::new(KEY, SECRET).session_token(TOKEN)
}

/// A gateway that knows [`access_key`] in [`REGION`], in front of this broker.
pub(crate) fn gateway_to(broker_url: &str) -> GatewayOptions {
    GatewayOptions::new(broker_url)
        .region(REGION)
        .access_key(access_key())
}

pub(crate) async fn start() -> (Broker, Gateway) {
    let broker = Broker::start().await.unwrap();
    let gateway = gateway_to(&broker.url()).start().await.unwrap();
    (broker, gateway)
}

/// Options that the gateway lets in.
pub(crate) fn options(gateway: &Gateway) -> AwsIotOptions {
    options_without_credentials(gateway)
        .region(gateway.region())
        .credentials(credentials())
}

pub(crate) fn options_without_credentials(gateway: &Gateway) -> AwsIotOptions {
    AwsIotOptions::new(gateway.url()).plain_ws(PlainWs::LoopbackForTesting)
}

/// A registry with this one provider, not connected yet, and a handle on it.
pub(crate) fn client(options: AwsIotOptions) -> (PubSub, Arc<AwsIotProvider>) {
    let provider = Arc::new(AwsIotProvider::new(options).unwrap());
    let pubsub = PubSub::new();
    pubsub
        .add_provider(DEFAULT_NAME, Arc::clone(&provider))
        .unwrap();
    (pubsub, provider)
}

/// The refusal that made this fail.
pub(crate) fn refusal(error: &ProviderError) -> ServiceRefusal {
    ServiceRefusal::find(error)
        .unwrap_or_else(|| panic!("no refusal in {error:?}"))
        .clone()
}

/// Head and body of the next request, which gets this answer, byte for byte, and no other after it.
pub(crate) async fn captured(peer: &Peer, answer: &str) -> (RequestHead, Vec<u8>) {
    let mut connection = peer.accept().await.unwrap();
    let request = connection.request().await.unwrap();
    let length = request.header("content-length");
    let length = length.map_or(0, |length| length.parse().unwrap());
    let body = connection.receive(length).await.unwrap();
    connection.send(answer.as_bytes()).await.unwrap();
    (request, body)
}

/// An answer that says that it is the last one of its connection, with more headers, each with its line end.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} -\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Lets this much time pass for timers, and none for the sockets. While the clock stands still, a runtime that waits for
/// a socket would take the way to the next timer for the wait.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// A clock that moves for nobody but who [advances](tokio::time::advance) it, so that sockets may take the time that they
/// need. It runs again when this is dropped.
pub(crate) struct StoppedClock(
    #[expect(dead_code, reason = "its end is the signal")] std::sync::mpsc::Sender<()>,
);

impl StoppedClock {
    pub(crate) fn stop() -> Self {
        let (running, ended) = std::sync::mpsc::channel::<()>();
        // While anything blocks, the runtime does not take the way to the next timer for a wait.
        tokio::task::spawn_blocking(move || ended.recv());
        tokio::time::pause();
        Self(running)
    }
}

impl Drop for StoppedClock {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}
