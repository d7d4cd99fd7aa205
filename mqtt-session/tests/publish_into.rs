//! A publish that is written at once: what may come before it, and that it is the same as one that was queued.

mod common;

use core::time::Duration;

use bytes::BytesMut;
use common::{Client, VERSIONS, config, resuming, token};
use mqtt_codec::{ConnackRef, ProtocolVersion, QoS, ReasonCode};
use mqtt_session::{
    Disconnect, Event, Persistence, Publish, PublishErrorReason, PublishOutcome, PublishPace,
    Published, Subscription, TransportEnd,
};
use proptest::prelude::*;

fn publish_into(client: &mut Client, payload: &str, qos: QoS) -> (Published, BytesMut) {
    let mut out = BytesMut::new();
    let publish = Publish::new("t", payload.to_owned(), qos);
    let published = client.session.publish_into(publish, &mut out, client.now);
    (published.unwrap(), out)
}

fn is_queued(client: &mut Client, qos: QoS) -> bool {
    let (published, out) = publish_into(client, "x", qos);
    assert_eq!(matches!(published, Published::Queued(_)), out.is_empty());
    out.is_empty()
}

#[test]
//= test MQTT-4.3.1-1
//= test v3.1.1 MQTT-4.3.1-1
fn each_qos_reports_what_is_left_to_report() {
    for version in VERSIONS {
        let mut client = Client::connected(config(version));
        client.events();
        let (published, _) = publish_into(&mut client, "zero", QoS::AtMostOnce);
        assert_eq!(published, Published::Done);
        let (published, _) = publish_into(&mut client, "one", QoS::AtLeastOnce);
        let Published::InFlight(one) = published else {
            panic!("{published:?}");
        };
        assert!(client.events().is_empty(), "all is told already");
        assert!(client.sent().is_empty(), "and written");
        client.puback(1);
        let events = client.events();
        assert!(
            matches!(events[..], [Event::PublishCompleted { id, outcome: PublishOutcome::Delivered(_) }] if id == one),
            "{events:?}"
        );
        let stats = client.session.stats();
        assert_eq!((stats.queued_messages, stats.in_flight_messages), (0, 0));
        assert_eq!(stats.counters.publishes_sent, 2);
    }
}

#[test]
fn what_is_refused_is_handed_back_and_not_written() {
    let mut client = Client::connected(config(ProtocolVersion::V5));
    let mut out = BytesMut::new();
    let publish = Publish::new("no/+/topic", "x", QoS::AtMostOnce);
    let refused = client
        .session
        .publish_into(publish, &mut out, client.now)
        .unwrap_err();
    assert_eq!(refused.reason(), PublishErrorReason::InvalidTopic);
    assert_eq!(&*refused.into_publish().topic, "no/+/topic");
    assert!(out.is_empty());
}

/// Each of these has something that goes first, or forbids it.
#[test]
//= test MQTT-3.3.4-8
//= test MQTT-4.9.0-2
fn it_waits_behind_whatever_goes_first() {
    type Scene = fn(&mut Client);
    let scenes: [(&str, Scene); 8] = [
        ("no connection", |client| client.close(TransportEnd::Failed)),
        ("no CONNACK", |client| {
            client.close(TransportEnd::Failed);
            client.open();
        }),
        ("a message that waits", |client| {
            client.publish("first", QoS::AtMostOnce);
        }),
        ("an answer", |client| {
            let message = client.deliver(QoS::AtLeastOnce, 1, "in");
            let _ = client.session.acknowledge(token(message));
        }),
        ("a SUBSCRIBE", |client| {
            let wanted = Subscription::new("t", QoS::AtMostOnce);
            client.session.subscribe(&[wanted], client.now).unwrap();
        }),
        ("a PINGREQ", |client| client.pass(Duration::from_secs(3600))),
        ("winding down", |client| client.session.wind_down()),
        ("a DISCONNECT", |client| {
            let disconnect = Disconnect::default();
            client.session.disconnect(disconnect, client.now).unwrap();
        }),
    ];
    for version in VERSIONS {
        for (what, scene) in &scenes {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let mut client = Client::connected(config(version));
                scene(&mut client);
                assert!(is_queued(&mut client, qos), "{what}");
            }
        }
        let mut client = Client::connected(config(version));
        assert!(!is_queued(&mut client, QoS::AtLeastOnce), "nothing");

        let mut keeping = config(version);
        keeping.persistence = Persistence::On;
        assert!(is_queued(&mut Client::connected(keeping), QoS::AtMostOnce));
    }
}

#[test]
fn the_window_and_the_pace_hold() {
    for version in VERSIONS {
        let mut narrow = config(version);
        narrow.max_in_flight = 2.try_into().unwrap();
        narrow.max_in_flight_qos2 = 1.try_into().unwrap();
        let mut client = Client::connected(narrow);
        assert!(!is_queued(&mut client, QoS::ExactlyOnce));
        if version == ProtocolVersion::V311 {
            assert!(is_queued(&mut client, QoS::ExactlyOnce), "its own limit");
            continue;
        }
        assert!(!is_queued(&mut client, QoS::AtLeastOnce));
        assert!(!is_queued(&mut client, QoS::AtMostOnce), "no window");
        assert!(is_queued(&mut client, QoS::AtLeastOnce), "it is full");
    }
    let mut paced = config(ProtocolVersion::V5);
    paced.publish_pace = Some(PublishPace::new(
        1.try_into().unwrap(),
        Duration::from_secs(1),
    ));
    let mut client = Client::connected(paced);
    while !is_queued(&mut client, QoS::AtMostOnce) {}
    assert!(client.sent().is_empty(), "not its turn");
}

#[test]
fn what_is_sent_again_goes_first() {
    for version in VERSIONS {
        let mut client = Client::connected(resuming(version));
        assert!(!is_queued(&mut client, QoS::AtLeastOnce));
        client.close(TransportEnd::Failed);
        client.connect(ConnackRef {
            session_present: true,
            ..ConnackRef::new(ReasonCode::Success)
        });
        assert!(is_queued(&mut client, QoS::AtMostOnce));
        assert_eq!(client.sent_words(), ["PUBLISH dup q1 #1 x", "PUBLISH q0 x"]);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish(QoS),
    Puback,
    Deliver,
    Acknowledge,
    Transmit(usize),
    Reconnect,
    Pass(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => Just(Step::Publish(QoS::AtMostOnce)),
        5 => Just(Step::Publish(QoS::AtLeastOnce)),
        5 => Just(Step::Puback),
        2 => Just(Step::Deliver),
        2 => Just(Step::Acknowledge),
        5 => (1..100_usize).prop_map(Step::Transmit),
        1 => Just(Step::Reconnect),
        2 => any::<u8>().prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Two sessions in the same history; one writes at once where it may, the other queues and is asked next. The broker
    /// sees no difference.
    #[test]
    fn it_is_what_the_next_poll_would_have_written(
        v5 in any::<bool>(),
        window in 1..4_u16,
        paced in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let version = if v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        let mut config = resuming(version);
        config.max_in_flight = window.try_into().unwrap();
        config.topic_alias_maximum = 4;
        config.publish_pace = paced.then(|| PublishPace::new(5.try_into().unwrap(), Duration::from_millis(200)));
        let mut pair = [Client::connected(config.clone()), Client::connected(config)];
        let mut tokens = [Vec::new(), Vec::new()];
        let mut unacknowledged = Vec::new();
        let mut number = 0;
        for step in steps {
            number += 1;
            let mut written = [BytesMut::new(), BytesMut::new()];
            let [direct, queued] = &mut written;
            let [one, other] = &mut pair;
            match step {
                Step::Publish(qos) => {
                    let publish = Publish::new("a/b", number.to_string(), qos);
                    let published = one.session.publish_into(publish.clone(), direct, one.now).unwrap();
                    other.session.publish(publish, other.now).unwrap();
                    if !matches!(published, Published::Queued(_)) {
                        other.session.poll_transmit(queued, 1, other.now);
                    }
                }
                Step::Puback => if let Some(id) = unacknowledged.pop() {
                    pair.iter_mut().for_each(|client| client.puback(id));
                },
                Step::Deliver => for (client, tokens) in pair.iter_mut().zip(&mut tokens) {
                    tokens.extend(client.deliver(QoS::AtLeastOnce, number, "in"));
                },
                Step::Acknowledge => for (client, tokens) in pair.iter_mut().zip(&mut tokens) {
                    let held = tokens.pop();
                    held.map(|message| client.session.acknowledge(token(Some(message))));
                },
                Step::Transmit(limit) => {
                    one.session.poll_transmit(direct, limit, one.now);
                    other.session.poll_transmit(queued, limit, other.now);
                }
                Step::Reconnect => {
                    unacknowledged.clear();
                    for client in &mut pair {
                        client.close(TransportEnd::Failed);
                        client.connect(ConnackRef { session_present: true, ..ConnackRef::new(ReasonCode::Success) });
                    }
                }
                Step::Pass(millis) => for client in &mut pair {
                    client.pass(Duration::from_millis(u64::from(millis)));
                },
            }
            let [direct, queued] = written;
            prop_assert_eq!(&direct, &queued);
            let mut direct = direct;
            let mut decoder = mqtt_codec::Decoder::new(version);
            while let Some(packet) = decoder.decode(&mut direct).unwrap() {
                if let mqtt_codec::Packet::Publish(publish) = packet {
                    unacknowledged.extend(publish.packet_id().map(|id| id.value()));
                }
            }
            for client in &mut pair {
                client.events();
            }
            let [one, other] = pair.each_ref().map(|client| client.session.stats());
            prop_assert_eq!(one.counters, other.counters);
            prop_assert_eq!(one.in_flight_messages, other.in_flight_messages);
            prop_assert_eq!(pair[0].session.poll_timeout(), pair[1].session.poll_timeout());
        }
    }
}
