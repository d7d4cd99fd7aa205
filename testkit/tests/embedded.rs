//! The broker of the quickstart, taken away and brought back.
#![cfg(feature = "embedded")]

use testkit::{
    embedded::{Broker, MAX_PACKET_SIZE},
    probe::{Probe, ProbeError},
};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_message_travels() {
    let mut broker = Broker::start().await.unwrap();
    let mut listener = Probe::connect(&broker.url(), "listener").await.unwrap();
    listener.subscribe("chat/+").await.unwrap();
    let mut speaker = Probe::connect(&broker.url(), "speaker").await.unwrap();
    speaker.publish_acknowledged("chat/a", b"hi").await.unwrap();
    let (topic, payload) = listener.message().await.unwrap();
    assert_eq!((topic.as_str(), &payload[..]), ("chat/a", &b"hi"[..]));
    broker.stop().await;
}

#[tokio::test]
async fn taken_away_its_connections_end_and_it_comes_back_on_the_same_port() {
    let mut broker = Broker::start().await.unwrap();
    let url = broker.url();
    for round in 0..6 {
        let mut probe = Probe::connect(&url, "a").await.unwrap();
        probe.subscribe("x").await.unwrap();
        if round % 2 == 0 {
            broker.kill().await;
        } else {
            broker.stop().await;
        }
        probe.closed().await.unwrap();
        TcpStream::connect(broker.address()).await.unwrap_err();
        assert_eq!(broker.url(), url);
        broker.start_again().await.unwrap();
    }
    Probe::connect(&url, "a").await.unwrap();
}

#[tokio::test]
async fn dropped_it_is_gone() {
    let broker = Broker::start().await.unwrap();
    let mut probe = Probe::connect(&broker.url(), "a").await.unwrap();
    drop(broker);
    probe.closed().await.unwrap();
}

#[tokio::test]
async fn it_writes_no_files() {
    let broker = Broker::start().await.unwrap();
    let mut probe = Probe::connect(&broker.url(), "a").await.unwrap();
    // Retained, at QoS 1: what a broker that keeps things would keep.
    let publish: &[u8] = &[0x33, 6, 0, 1, b'r', 0, 7, b'x'];
    probe.send(publish).await.unwrap();
    probe.expect(&[0x40, 2, 0, 7]).await.unwrap();
    assert!(!std::path::Path::new("mqtt_storage").exists());
}

#[tokio::test]
async fn a_packet_over_the_limit_ends_the_connection() {
    let broker = Broker::start().await.unwrap();
    let mut probe = Probe::connect(&broker.url(), "a").await.unwrap();
    // The topic and its length take 3 bytes, the fixed header 4.
    let largest = vec![0; MAX_PACKET_SIZE - 7];
    probe
        .publish_acknowledged("t", &largest[2..])
        .await
        .unwrap();
    probe.publish("t", &vec![0; MAX_PACKET_SIZE]).await.ok();
    let ended = probe.packet().await.unwrap_err();
    assert!(!matches!(ended, ProbeError::Timeout), "{ended}");
}
