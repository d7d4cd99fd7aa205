//! What the gateway does with packets that the service would not let pass, under MQTT 3.1.1 and 5.

use std::time::Duration;

use testkit::{
    embedded::Broker,
    gateway::{AccessKey, Action, Authorizer, Gateway, GatewayOptions, Incident, Policy, Quotas},
    mosquitto::find_or_skip,
    probe::{Probe, ProbeError, ProbeOptions},
};

use crate::{KEY, SECRET, Signer, TOKEN, start};

const POLICY: &str = r#"{
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "iot:Connect",
         "Resource": "arn:aws:iot:eu-west-1:123456789012:client/me-*"},
        {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"],
         "Resource": "arn:aws:iot:eu-west-1:123456789012:topic/open/*"},
        {"Effect": "Allow", "Action": "iot:Publish",
         "Resource": "arn:aws:iot:eu-west-1:123456789012:topic/unheard"},
        {"Effect": "Allow", "Action": "iot:RetainPublish",
         "Resource": "arn:aws:iot:eu-west-1:123456789012:topic/open/kept"},
        {"Effect": "Allow", "Action": "iot:Subscribe",
         "Resource": ["arn:aws:iot:eu-west-1:123456789012:topicfilter/open/*",
                      "arn:aws:iot:eu-west-1:123456789012:topicfilter/unheard"]}
    ]
}"#;

async fn with(options: impl FnOnce(GatewayOptions) -> GatewayOptions) -> (Broker, Gateway) {
    let broker = Broker::start().await.unwrap();
    let gateway = options(GatewayOptions::new(&broker.url()))
        .region("eu-west-1")
        .start()
        .await
        .unwrap();
    (broker, gateway)
}

async fn with_policy() -> (Broker, Gateway) {
    let key = AccessKey::new(KEY, SECRET)
        .session_token(TOKEN)
        .policy(Policy::parse(POLICY).unwrap());
    with(|options| options.access_key(key)).await
}

/// A client of MQTT 3.1.1.
async fn old(gateway: &Gateway, id: &str) -> Probe {
    Probe::connect(&Signer::of(gateway).url(), id)
        .await
        .unwrap()
}

/// A client of MQTT 5 whose CONNECT has been sent.
async fn new(gateway: &Gateway, id: &str) -> Probe {
    let url = Signer::of(gateway).url();
    let mut probe = ProbeOptions::new(&url, id).open().await.unwrap();
    let mut body = b"\x00\x04MQTT\x05\x02\x00\x3c\x00".to_vec();
    text(&mut body, id);
    probe.send(packet(0x10, &body)).await.unwrap();
    probe
}

/// The same, accepted.
async fn new_accepted(gateway: &Gateway, id: &str) -> Probe {
    let mut probe = new(gateway, id).await;
    let connack = probe.packet().await.unwrap();
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:?}");
    probe
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut rest = body.len();
    while rest > 0x7f {
        packet.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    packet.push(rest as u8);
    packet.extend_from_slice(body);
    packet
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&(text.len() as u16).to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

/// A SUBSCRIBE with packet identifier 9; `properties` is empty for MQTT 3.1.1.
fn subscribe(properties: &[u8], filters: &[&str], qos: u8) -> Vec<u8> {
    let mut body = vec![0, 9];
    body.extend_from_slice(properties);
    for filter in filters {
        text(&mut body, filter);
        body.push(qos);
    }
    packet(0x82, &body)
}

/// A PUBLISH; a packet identifier of 7 if its QoS is not 0.
fn publish(first: u8, topic: &str, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if first & 6 != 0 {
        body.extend_from_slice(&[0, 7]);
    }
    body.extend_from_slice(properties);
    body.extend_from_slice(payload);
    packet(first, &body)
}

/// The connection ends without another packet.
async fn ends(probe: &mut Probe) {
    let end = probe.packet().await.unwrap_err();
    let ended = matches!(
        end,
        ProbeError::Closed | ProbeError::Io(_) | ProbeError::WebSocket(_)
    );
    assert!(ended, "{end:?}");
}

fn incidents(gateway: &Gateway) -> Vec<Incident> {
    gateway.incidents().into_iter().map(|(_, i)| i).collect()
}

fn denied(action: Action, name: &str) -> Incident {
    Incident::Denied(action, name.to_owned())
}

#[tokio::test]
async fn denied_under_3_1_1_the_connection_just_ends() {
    let (_broker, gateway) = with_policy().await;
    let url = Signer::of(&gateway).url();
    Probe::connect(&url, "stranger").await.unwrap_err();

    let mut probe = old(&gateway, "me-1").await;
    probe.subscribe("open/+").await.unwrap();
    probe.publish_acknowledged("open/a", b"1").await.ok();
    probe
        .send(subscribe(&[], &["open/b", "closed"], 1))
        .await
        .unwrap();
    while probe.message().await.is_ok() {}

    let mut probe = old(&gateway, "me-2").await;
    probe.publish("closed", b"x").await.unwrap();
    ends(&mut probe).await;

    let mut probe = old(&gateway, "me-3").await;
    probe
        .send(publish(0x33, "open/a", &[], b"x"))
        .await
        .unwrap();
    ends(&mut probe).await;

    assert_eq!(
        incidents(&gateway),
        [
            denied(Action::Connect, "stranger"),
            denied(Action::Subscribe, "closed"),
            denied(Action::Publish, "closed"),
            denied(Action::RetainPublish, "open/a"),
        ]
    );
    assert_eq!(gateway.incidents()[1].0, "me-1");
}

#[tokio::test]
async fn denied_under_5_there_is_a_reason_code() {
    let (_broker, gateway) = with_policy().await;
    let mut probe = new(&gateway, "stranger").await;
    probe.expect(&[0x20, 3, 0, 0x87, 0]).await.unwrap();
    ends(&mut probe).await;

    let mut probe = new_accepted(&gateway, "me-1").await;
    let mixed = ["closed", "open/a", "open/b/c/d/e/f/g/h/i", "open/b"];
    probe.send(subscribe(&[0], &mixed, 1)).await.unwrap();
    let suback = [0x90, 7, 0, 9, 0, 0x87, 1, 0x8f, 1];
    probe.expect(&suback).await.unwrap();
    probe.send(subscribe(&[0], &["closed"], 1)).await.unwrap();
    probe.expect(&[0x90, 4, 0, 9, 0, 0x87]).await.unwrap();

    // The connection lives on: the denied message is answered, the allowed one comes.
    probe
        .send(publish(0x32, "closed", &[0], b"x"))
        .await
        .unwrap();
    probe.expect(&[0x40, 3, 0, 7, 0x87]).await.unwrap();
    probe
        .send(publish(0x30, "open/b", &[0], b"x"))
        .await
        .unwrap();
    let delivered = probe.packet().await.unwrap();
    assert_eq!(delivered[0] >> 4, 3, "{delivered:?}");

    probe
        .send(publish(0x30, "closed", &[0], b"x"))
        .await
        .unwrap();
    probe.expect(&[0xe0, 1, 0x87]).await.unwrap();
    ends(&mut probe).await;
}

#[tokio::test]
async fn with_the_reference_broker_behind_it() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let broker = mosquitto.config().websocket().start().await.unwrap();
    let key = AccessKey::new(KEY, SECRET)
        .session_token(TOKEN)
        .policy(Policy::parse(POLICY).unwrap());
    let options = GatewayOptions::new(&broker.ws_url()).access_key(key);
    let gateway = options.region("eu-west-1").start().await.unwrap();
    let mut probe = new_accepted(&gateway, "me-1").await;
    let mixed = ["closed", "open/a", "open/b"];
    probe.send(subscribe(&[0], &mixed, 1)).await.unwrap();
    probe.expect(&[0x90, 6, 0, 9, 0, 0x87, 1, 1]).await.unwrap();
    probe
        .send(publish(0x32, "open/b", &[0], b"x"))
        .await
        .unwrap();
    // The acknowledgement and the message, in either order.
    let mut kinds = [probe.packet().await, probe.packet().await].map(|p| p.unwrap()[0] >> 4);
    kinds.sort_unstable();
    assert_eq!(kinds, [3, 4]);
    let _second = new_accepted(&gateway, "me-1").await;
    probe.expect(&[0xe0, 1, 0x8e]).await.unwrap();
    ends(&mut probe).await;

    let mut probe = old(&gateway, "me-2").await;
    let _second = old(&gateway, "me-2").await;
    ends(&mut probe).await;
    let mut probe = old(&gateway, "me-2").await;
    probe.subscribe("open/a").await.unwrap();
    probe.publish("open/a", b"x").await.unwrap();
    assert_eq!(probe.message().await.unwrap().0, "open/a");
    probe.publish("closed", b"x").await.unwrap();
    ends(&mut probe).await;
}

#[tokio::test]
async fn what_may_not_be_received_is_left_out() {
    let (_broker, gateway) = with_policy().await;
    let mut probe = old(&gateway, "me-1").await;
    probe.subscribe("unheard").await.unwrap();
    probe.subscribe("open/a").await.unwrap();
    for round in 0..3 {
        probe.publish_acknowledged("unheard", b"x").await.unwrap();
        probe.publish("open/a", &[round]).await.unwrap();
        let (topic, payload) = probe.message().await.unwrap();
        assert_eq!((topic.as_str(), &payload[..]), ("open/a", &[round][..]));
    }
    assert_eq!(incidents(&gateway)[0], denied(Action::Receive, "unheard"));
}

#[tokio::test]
async fn qos_2_gets_no_answer_and_under_5_the_end() {
    let (_broker, gateway) = start().await;
    let mut probe = old(&gateway, "me").await;
    probe.send(publish(0x34, "a", &[], b"x")).await.unwrap();
    probe.send(subscribe(&[], &["a"], 2)).await.unwrap();
    // The answer to this is the first to come.
    probe.send(&[0xc0_u8, 0][..]).await.unwrap();
    probe.expect(&[0xd0, 0]).await.unwrap();

    for bytes in [publish(0x34, "a", &[0], b"x"), subscribe(&[0], &["a"], 2)] {
        let mut probe = new_accepted(&gateway, "me").await;
        probe.send(bytes).await.unwrap();
        probe.expect(&[0xe0, 1, 0x9b]).await.unwrap();
        ends(&mut probe).await;
    }
}

#[tokio::test]
async fn quotas_end_the_connection() {
    let (_broker, gateway) = start().await;
    let deepest = "a/b/c/d/e/f/g/h";
    let longest = "x".repeat(256);
    let too_long = "x".repeat(257);
    let most = vec![7; 128 * 1024];
    let too_many = vec![7; 128 * 1024 + 1];
    let eight = ["1", "2", "3", "4", "5", "6", "7", "8"];
    let nine = [&eight[..], &["9"]].concat();

    let mut probe = old(&gateway, "me").await;
    probe.publish_acknowledged(deepest, &most).await.unwrap();
    probe.publish_acknowledged(&longest, b"x").await.unwrap();
    probe.send(subscribe(&[], &eight, 1)).await.unwrap();
    probe
        .expect(&[0x90, 10, 0, 9, 1, 1, 1, 1, 1, 1, 1, 1])
        .await
        .unwrap();

    // What comes under MQTT 5; under 3.1.1 the end alone.
    let deep = format!("{deepest}/i");
    for (first, topic, payload, reason) in [
        (0x30, "a", &too_many, 0x97),
        (0x30, deep.as_str(), &most, 0x90),
        (0x30, too_long.as_str(), &most, 0x90),
        (0x30, "$SYS/x", &most, 0x90),
    ] {
        let mut probe = old(&gateway, "me").await;
        probe
            .send(publish(first, topic, &[], payload))
            .await
            .unwrap();
        ends(&mut probe).await;
        let mut probe = new_accepted(&gateway, "me").await;
        probe
            .send(publish(first, topic, &[0], payload))
            .await
            .unwrap();
        probe.expect(&[0xe0, 1, reason]).await.unwrap();
        ends(&mut probe).await;
    }
    for filters in [&nine[..], &["$SYS/#"], &[&deep], &[&too_long]] {
        let mut probe = old(&gateway, "me").await;
        probe.send(subscribe(&[], filters, 1)).await.unwrap();
        ends(&mut probe).await;
    }
    let mut probe = new_accepted(&gateway, "me").await;
    probe.send(subscribe(&[0], &nine, 1)).await.unwrap();
    probe.expect(&[0xe0, 1, 0x97]).await.unwrap();
    let mut probe = new_accepted(&gateway, "me").await;
    let identifier = [2, 0x0b, 1];
    probe.send(subscribe(&identifier, &["a"], 1)).await.unwrap();
    probe.expect(&[0xe0, 1, 0xa1]).await.unwrap();
    let mut probe = new_accepted(&gateway, "me").await;
    let alias = [3, 0x23, 0, 9];
    probe.send(publish(0x30, "a", &alias, b"x")).await.unwrap();
    probe.expect(&[0xe0, 1, 0x94]).await.unwrap();

    let url = Signer::of(&gateway).url();
    Probe::connect(&url, &"c".repeat(128)).await.unwrap();
    for id in [&"c".repeat(129), "$c"] {
        Probe::connect(&url, id).await.unwrap_err();
        let mut probe = new(&gateway, id).await;
        probe.expect(&[0x20, 3, 0, 0x85, 0]).await.unwrap();
    }
}

#[tokio::test]
async fn subscriptions_are_counted() {
    let key = AccessKey::new(KEY, SECRET).session_token(TOKEN);
    let quotas = Quotas::aws().subscriptions(2);
    let (_broker, gateway) = with(|o| o.access_key(key).quotas(quotas)).await;
    let mut probe = old(&gateway, "me").await;
    probe
        .send(subscribe(&[], &["a", "b", "c"], 1))
        .await
        .unwrap();
    probe.expect(&[0x90, 5, 0, 9, 1, 1, 0x80]).await.unwrap();
    // The same again is not one more, and one less makes room.
    probe.subscribe("a").await.unwrap();
    probe
        .send(&[0xa2_u8, 5, 0, 3, 0, 1, b'a'][..])
        .await
        .unwrap();
    probe.expect(&[0xb0, 2, 0, 3]).await.unwrap();
    probe.subscribe("c").await.unwrap();
    let mut probe = new_accepted(&gateway, "me").await;
    probe
        .send(subscribe(&[0], &["a", "b", "c"], 1))
        .await
        .unwrap();
    probe.expect(&[0x90, 6, 0, 9, 0, 1, 1, 0x97]).await.unwrap();
}

#[tokio::test]
async fn the_service_matches_in_its_own_way() {
    let (_broker, gateway) = start().await;
    let mut keeper = old(&gateway, "keeper").await;
    let kept = publish(0x33, "a/kept", &[], b"kept");
    keeper.send(kept).await.unwrap();
    keeper.expect(&[0x40, 2, 0, 7]).await.unwrap();

    let mut probe = old(&gateway, "me").await;
    probe.subscribe("a/#").await.unwrap();
    probe
        .publish_acknowledged("a", b"not for a/#")
        .await
        .unwrap();
    probe.publish("a/b", b"for a/#").await.unwrap();
    // Neither the retained message nor the parent's came before.
    let (topic, _) = probe.message().await.unwrap();
    assert_eq!(topic, "a/b");
    probe.subscribe("a/kept").await.unwrap();
    let (topic, _) = probe.message().await.unwrap();
    assert_eq!(topic, "a/kept");
}

#[tokio::test]
async fn nothing_may_be_sent_before_the_connack() {
    let (_broker, gateway) = start().await;
    let url = Signer::of(&gateway).url();
    let mut probe = ProbeOptions::new(&url, "me").open().await.unwrap();
    let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
    text(&mut body, "me");
    let mut both = packet(0x10, &body);
    both.extend_from_slice(&[0xc0, 0]);
    probe.send(both).await.unwrap();
    gateway.wait_for_incidents(1).await;
    assert_eq!(incidents(&gateway), [Incident::BeforeConnack]);
    probe.closed().await.unwrap();
}

#[tokio::test]
async fn the_connack_of_mqtt_5_announces_the_services_limits() {
    let (_broker, gateway) = start().await;
    let url = Signer::of(&gateway).url();
    // Keep alive 5 s, and 0: what is too short or too long is put right and announced.
    for (asked, granted) in [(5_u8, 30_u16), (0, 1200), (60, 60)] {
        let mut probe = ProbeOptions::new(&url, "me").open().await.unwrap();
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, asked, 0];
        text(&mut body, "me");
        probe.send(packet(0x10, &body)).await.unwrap();
        let connack = probe.packet().await.unwrap();
        let mut expected = b"\x21\x00\x64\x22\x00\x08\x27\x00\x02\x48\x00".to_vec();
        if granted != u16::from(asked) {
            expected.push(0x13);
            expected.extend_from_slice(&granted.to_be_bytes());
        }
        expected.extend_from_slice(b"\x24\x01\x25\x01\x28\x01\x29\x00\x2a\x01");
        assert!(connack.ends_with(&expected), "{connack:02x?}");
    }
}

#[tokio::test]
async fn a_connection_ends_with_the_first_packet_after_its_life() {
    let key = AccessKey::new(KEY, SECRET).session_token(TOKEN);
    let life = Duration::from_secs(3600);
    let quotas = Quotas::aws().connection_life(life);
    let (_broker, gateway) = with(|o| o.access_key(key).quotas(quotas)).await;
    let mut probe = old(&gateway, "me").await;
    tokio::time::pause();
    tokio::time::advance(life + Duration::from_secs(1)).await;
    tokio::time::resume();
    probe.send(&[0xc0_u8, 0][..]).await.unwrap();
    ends(&mut probe).await;
    assert_eq!(incidents(&gateway), [Incident::ConnectionLife]);
}

#[tokio::test]
async fn beyond_the_rate_messages_are_dropped_without_a_word() {
    let key = AccessKey::new(KEY, SECRET).session_token(TOKEN);
    let quotas = Quotas::aws().publishes_per_second(3);
    let (_broker, gateway) = with(|o| o.access_key(key).quotas(quotas)).await;
    let mut probe = old(&gateway, "me").await;
    // It takes less than half a minute, over which no more of them pass.
    for _ in 0..100 {
        probe.publish("a", b"x").await.unwrap();
    }
    gateway.wait_for_incidents(1).await;
    assert_eq!(incidents(&gateway)[0], Incident::PublishRate);
}

#[tokio::test]
async fn a_second_client_of_the_same_id_throws_the_first_one_out() {
    let (_broker, gateway) = start().await;
    let mut first = old(&gateway, "me").await;
    let mut second = old(&gateway, "me").await;
    ends(&mut first).await;
    second.publish_acknowledged("a", b"x").await.unwrap();
    let mut first = new_accepted(&gateway, "you").await;
    let _second = new_accepted(&gateway, "you").await;
    let disconnect = first.packet().await.unwrap();
    assert_eq!((disconnect[0], disconnect[2]), (0xe0, 0x8e));
}

#[tokio::test]
async fn all_are_disconnected_with_a_reason_of_the_tests_choice() {
    let (_broker, gateway) = start().await;
    let mut three = old(&gateway, "three").await;
    let mut five = new_accepted(&gateway, "five").await;
    // Server busy.
    gateway.disconnect_all(0x89);
    five.expect(&[0xe0, 1, 0x89]).await.unwrap();
    ends(&mut five).await;
    ends(&mut three).await;
    new_accepted(&gateway, "five").await;
}

#[tokio::test]
async fn messages_come_twice_when_they_are_told_to() {
    let (_broker, gateway) = start().await;
    let mut probe = old(&gateway, "me").await;
    probe.subscribe("a").await.unwrap();
    let mut speaker = old(&gateway, "speaker").await;
    gateway.repeat_deliveries();
    for round in 0..100 {
        speaker.publish_acknowledged("a", &[round]).await.unwrap();
        let first = probe.packet().await.unwrap();
        let second = probe.packet().await.unwrap();
        // PUBLISH, QoS 1, no DUP; topic, packet identifier, payload.
        assert_eq!((first[0], second[0]), (0x32, 0x32));
        assert_eq!(first[..5], second[..5]);
        assert_ne!(first[5..7], second[5..7]);
        assert_eq!((&first[7..], &second[7..]), (&[round][..], &[round][..]));
        // Both are acknowledged; the broker hears of its own.
        for id in [&first[5..7], &second[5..7]] {
            probe.send(vec![0x40, 2, id[0], id[1]]).await.unwrap();
        }
    }
    speaker.publish("a", b"x").await.unwrap();
    for _ in 0..2 {
        assert_eq!(probe.message().await.unwrap().1, "x");
    }
}

#[tokio::test]
async fn a_custom_authorizer_lets_in_by_query_header_or_user_name() {
    let authorizer = Authorizer::new("Doors", "Key", "open sesame")
        .signature("c2lnbmF0dXJl+/=")
        .password(b"pw")
        .policy(Policy::parse(POLICY).unwrap());
    assert_eq!(
        format!("{authorizer:?}"),
        r#"Authorizer { name: "Doors", .. }"#
    );
    let (_broker, gateway) = with(|o| o.authorizer(authorizer)).await;
    let query = "x-amz-customauthorizer-name=Doors&Key=open%20sesame\
        &x-amz-customauthorizer-signature=c2lnbmF0dXJl%2B%2F%3D";
    let url = gateway.url();

    let mut probe = Probe::connect(&format!("{url}?{query}"), "me-1")
        .await
        .unwrap();
    probe.publish("closed", b"x").await.unwrap();
    ends(&mut probe).await;

    let by_header = ProbeOptions::new(&url, "me-2")
        .header("x-amz-customauthorizer-name", "Doors")
        .header("key", "open sesame")
        .header("x-amz-customauthorizer-signature", "c2lnbmF0dXJl+/=");
    by_header.connect().await.unwrap();

    let user = format!("anybody?{query}");
    let by_user = |user: &str, password: &str| {
        ProbeOptions::new(&url, "me-3")
            .user(user, password)
            .connect()
    };
    by_user(&user, "pw").await.unwrap();

    by_user(&user, "wrong").await.unwrap_err();
    by_user("anybody", "pw").await.unwrap_err();
    Probe::connect(&url, "me-4").await.unwrap_err();
    for spoilt in [
        query.replace("sesame", "barley"),
        query.replace("Doors", "Windows"),
        query.replace("c2ln", "c2lo"),
        query.replace("&x-amz-customauthorizer-signature=", "&y="),
    ] {
        let error = Probe::connect(&format!("{url}?{spoilt}"), "me-5").await;
        assert_eq!(error.unwrap_err().status(), Some(403));
        by_user(&format!("u?{spoilt}"), "pw").await.unwrap_err();
    }
    // Signatures are still checked where they are given.
    let error = Probe::connect(&Signer::of(&gateway).url(), "me-6").await;
    assert_eq!(error.unwrap_err().status(), Some(403));
}
