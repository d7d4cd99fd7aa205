//! The null broker does what a client needs, counts, and floods.

use testkit::{
    certs::Authority,
    null_broker::NullBroker,
    probe::{Probe, ProbeOptions},
};

#[tokio::test]
async fn it_acknowledges_and_counts() {
    let broker = NullBroker::start().await.unwrap();
    let mut probe = Probe::connect(&broker.url(), "me").await.unwrap();
    probe.subscribe("a/b").await.unwrap();
    probe.publish_acknowledged("a/b", &[7; 200]).await.unwrap();
    // Twenty of them in one message, QoS 0, and a ping.
    let mut many = [0x30, 4, 0, 1, b't', b'x'].repeat(20);
    many.extend_from_slice(&[0xc0, 0]);
    probe.send(many).await.unwrap();
    probe.expect(&[0xd0, 0]).await.unwrap();
    let counts = broker.wait_for(|counts| counts.published == 21).await;
    assert_eq!((counts.connected, counts.acknowledged), (1, 0));
    // CONNECT, SUBSCRIBE, the message of 210 bytes, and the last one.
    assert_eq!(counts.bytes, 16 + 10 + 210 + 122);
    // UNSUBSCRIBE from two filters, and a SUBSCRIBE to two.
    probe
        .send(&[0xa2_u8, 8, 0, 5, 0, 1, b'a', 0, 1, b'b'][..])
        .await
        .unwrap();
    probe.expect(&[0xb0, 2, 0, 5]).await.unwrap();
    probe
        .send(&[0x82_u8, 10, 0, 6, 0, 1, b'a', 0, 0, 1, b'b', 1][..])
        .await
        .unwrap();
    probe.expect(&[0x90, 4, 0, 6, 0, 1]).await.unwrap();
}

#[tokio::test]
async fn it_takes_a_message_exactly_once() {
    let broker = NullBroker::start().await.unwrap();
    let mut probe = Probe::connect(&broker.url(), "me").await.unwrap();
    probe
        .send(&[0x34_u8, 6, 0, 1, b't', 1, 2, b'x'][..])
        .await
        .unwrap();
    probe.expect(&[0x50, 2, 1, 2]).await.unwrap();
    probe.send(&[0x62_u8, 2, 1, 2][..]).await.unwrap();
    probe.expect(&[0x70, 2, 1, 2]).await.unwrap();
    let counts = broker.wait_for(|counts| counts.released == 1).await;
    assert_eq!(counts.published, 1);
}

#[tokio::test]
async fn it_does_the_same_over_tls() {
    let authority = Authority::new();
    let broker = NullBroker::start_tls(&authority.server()).await.unwrap();
    let options = ProbeOptions::new(&broker.url(), "me").trust(&authority);
    let mut probe = options.connect().await.unwrap();
    probe.publish_acknowledged("a/b", &[7; 200]).await.unwrap();
    assert_eq!(broker.counts().published, 1);
}

#[tokio::test]
async fn it_speaks_mqtt_5_when_asked() {
    let broker = NullBroker::start().await.unwrap();
    let options = ProbeOptions::new(&broker.url(), "me");
    let mut probe = options.open().await.unwrap();
    probe
        .send(&b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x02me"[..])
        .await
        .unwrap();
    probe.expect(&[0x20, 3, 0, 0, 0]).await.unwrap();
    probe
        .send(&b"\x82\x09\x00\x01\x02\x0b\x07\x00\x01a\x01"[..])
        .await
        .unwrap();
    probe.expect(&[0x90, 4, 0, 1, 0, 1]).await.unwrap();
    probe
        .send(&b"\xa2\x06\x00\x02\x00\x00\x01a"[..])
        .await
        .unwrap();
    probe.expect(&[0xb0, 4, 0, 2, 0, 0]).await.unwrap();
}

#[tokio::test]
async fn it_floods_every_client_while_it_goes_on_answering() {
    let broker = NullBroker::start().await.unwrap();
    let mut one = Probe::connect(&broker.url(), "one").await.unwrap();
    let mut two = Probe::connect(&broker.url(), "two").await.unwrap();
    broker.wait_for(|counts| counts.connected == 2).await;
    let packets = [0x32, 7, 0, 1, b't', 0, 9, b'x', b'y'].repeat(100);
    broker.flood(std::iter::repeat_n(packets.into(), 50));
    for probe in [&mut one, &mut two] {
        for _ in 0..5000 {
            let (topic, payload) = probe.message().await.unwrap();
            assert_eq!((topic.as_str(), &payload[..]), ("t", &b"xy"[..]));
        }
        probe.publish_acknowledged("t", b"x").await.unwrap();
    }
    let counts = broker
        .wait_for(|counts| counts.acknowledged == 10_000)
        .await;
    assert_eq!(counts.published, 2);
}

#[tokio::test]
async fn it_replies_to_what_is_published() {
    let broker = NullBroker::start().await.unwrap();
    let mut one = Probe::connect(&broker.url(), "one").await.unwrap();
    let mut two = Probe::connect(&broker.url(), "two").await.unwrap();
    one.publish_acknowledged("t", b"before").await.unwrap();
    broker.reply_with([0x30, 4, 0, 1, b't', b'1'][..].to_vec().into());
    // Two in one message: QoS 0, and QoS 1 with the identifier 7.
    two.send(b"\x30\x04\x00\x01ux\x32\x06\x00\x01u\x00\x07x".to_vec())
        .await
        .unwrap();
    two.expect(&[0x40, 2, 0, 7]).await.unwrap();
    for _ in 0..2 {
        let (topic, payload) = two.message().await.unwrap();
        assert_eq!((topic.as_str(), &payload[..]), ("t", &b"1"[..]));
    }
    // Nothing came for the other, whose own comes first.
    broker.reply_with([0x30, 4, 0, 1, b't', b'2'][..].to_vec().into());
    one.send(b"\x30\x04\x00\x01ux".to_vec()).await.unwrap();
    let (_, payload) = one.message().await.unwrap();
    assert_eq!(&payload[..], b"2");
}

#[tokio::test]
async fn awake_it_is_gone_when_dropped_too() {
    let broker = NullBroker::start().await.unwrap();
    broker.stay_awake();
    let mut probe = Probe::connect(&broker.url(), "me").await.unwrap();
    probe.publish_acknowledged("a/b", b"x").await.unwrap();
    drop(broker);
    probe.closed().await.unwrap();
}

#[tokio::test]
async fn dropped_it_is_gone() {
    let broker = NullBroker::start().await.unwrap();
    let mut probe = Probe::connect(&broker.url(), "me").await.unwrap();
    drop(broker);
    probe.closed().await.unwrap();
}
