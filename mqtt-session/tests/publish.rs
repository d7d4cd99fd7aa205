//! Publishing: each QoS, the window, reconnects, and what becomes of a message in the end.

mod common;

use core::time::Duration;

use bytes::Bytes;
use common::{Client, VERSIONS, config, id, resuming};
use mqtt_codec::{AckRef, Packet, PacketRef, Property, ProtocolVersion, QoS, ReasonCode};
use mqtt_session::{
    ConnectionError, Disconnect, Event, InFlightOnLostSession, Indeterminate, ProtocolViolation,
    Publish, PublishErrorReason, PublishOutcome, Retain, Subscription, TransportEnd,
};

fn ack(number: u16) -> AckRef<'static> {
    AckRef::new(id(number))
}

fn with(number: u16, reason_code: ReasonCode) -> AckRef<'static> {
    AckRef {
        reason_code,
        ..AckRef::new(id(number))
    }
}

#[test]
//= test MQTT-4.3.1-1
//= test MQTT-4.3.2-1
//= test MQTT-4.3.2-2
//= test MQTT-4.3.2-3
//= test MQTT-4.3.3-1
//= test MQTT-4.3.3-2
//= test MQTT-4.3.3-3
//= test MQTT-4.3.3-4
//= test MQTT-4.3.3-5
//= test MQTT-2.2.1-5
//= test v3.1.1 MQTT-4.3.1-1
//= test v3.1.1 MQTT-4.3.2-1
//= test v3.1.1 MQTT-4.3.3-1
//= test v3.1.1 MQTT-2.3.1-6
fn each_qos_completes_at_its_own_packet() {
    for version in VERSIONS {
        let mut client = Client::connected(config(version));
        client.events();
        let zero = client.publish("zero", QoS::AtMostOnce);
        let one = client.publish("one", QoS::AtLeastOnce);
        let two = client.publish("two", QoS::ExactlyOnce);
        assert_eq!(
            client.sent_words(),
            ["PUBLISH q0 zero", "PUBLISH q1 #1 one", "PUBLISH q2 #2 two"]
        );
        let events = client.events();
        assert!(
            matches!(events.as_slice(), [
            Event::PublishCompleted { id: a, outcome: PublishOutcome::Written },
            Event::PublishWritten { id: b },
            Event::PublishWritten { id: c },
        ] if (*a, *b, *c) == (zero, one, two)),
            "{events:?}"
        );

        client.puback(1);
        client.receive(PacketRef::Pubrec(ack(2))).unwrap();
        assert_eq!(client.sent_words(), ["PUBREL #2"]);
        let events = client.events();
        assert!(
            matches!(events.as_slice(), [
            Event::PublishCompleted { id: a, outcome: PublishOutcome::Delivered(ReasonCode::Success) },
            Event::PublishReceived { id: b, reason: ReasonCode::Success },
        ] if (*a, *b) == (one, two)),
            "{events:?}"
        );

        client.receive(PacketRef::Pubcomp(ack(2))).unwrap();
        assert_eq!(
            client.outcomes(),
            [PublishOutcome::Delivered(ReasonCode::Success)]
        );
        assert_eq!(
            (
                client.session.stats().packet_ids_in_use,
                client.session.stats().in_flight_bytes
            ),
            (0, 0)
        );
    }
}

#[test]
//= test MQTT-4.4.0-2
fn reason_codes_are_results_not_errors() {
    let mut client = Client::connected(config(ProtocolVersion::V5));
    for payload in ["a", "b", "c", "d"] {
        client.publish(
            payload,
            if payload < "c" {
                QoS::AtLeastOnce
            } else {
                QoS::ExactlyOnce
            },
        );
    }
    client.sent();
    client.events();
    client
        .receive(PacketRef::Puback(with(
            1,
            ReasonCode::NoMatchingSubscribers,
        )))
        .unwrap();
    client
        .receive(PacketRef::Puback(with(2, ReasonCode::NotAuthorized)))
        .unwrap();
    client
        .receive(PacketRef::Pubrec(with(3, ReasonCode::QuotaExceeded)))
        .unwrap();
    client.receive(PacketRef::Pubrec(ack(4))).unwrap();
    client
        .receive(PacketRef::Pubcomp(with(
            4,
            ReasonCode::PacketIdentifierNotFound,
        )))
        .unwrap();
    assert_eq!(
        client.outcomes(),
        [
            PublishOutcome::Delivered(ReasonCode::NoMatchingSubscribers),
            PublishOutcome::Rejected(ReasonCode::NotAuthorized),
            PublishOutcome::Rejected(ReasonCode::QuotaExceeded),
            PublishOutcome::Indeterminate(Indeterminate::NotFound),
        ]
    );
    assert_eq!(client.session.stats().packet_ids_in_use, 0);
}

#[test]
fn a_failing_pubrec_frees_identifier_and_window() {
    let mut client = Client::new(config(ProtocolVersion::V5));
    client.connect_with(false, &[Property::ReceiveMaximum(1.try_into().unwrap())]);
    client.publish("a", QoS::ExactlyOnce);
    client.publish("b", QoS::ExactlyOnce);
    assert_eq!(client.sent_words(), ["PUBLISH q2 #1 a"]);
    client
        .receive(PacketRef::Pubrec(with(1, ReasonCode::NotAuthorized)))
        .unwrap();
    assert_eq!(
        client.sent_words(),
        ["PUBLISH q2 #2 b"],
        "no PUBREL, and the window is open"
    );
}

/// mosquitto 2.0 confirms, and throws away, what exceeds a limit that it cannot announce before MQTT 5.
#[test]
fn before_5_a_qos_2_burst_keeps_within_what_a_broker_takes_silently() {
    for version in VERSIONS {
        let mut client = Client::connected(config(version));
        client.events();
        for number in 0..40 {
            client.publish(&number.to_string(), QoS::ExactlyOnce);
        }
        client.publish("last", QoS::AtLeastOnce);
        let sent = client.sent_words().len();
        if version == ProtocolVersion::V5 {
            assert_eq!(sent, 41, "it would have said");
            continue;
        }
        assert_eq!(sent, 19);
        for number in 1..=21 {
            client.receive(PacketRef::Pubrec(ack(number))).unwrap();
            client.receive(PacketRef::Pubcomp(ack(number))).unwrap();
            let words = client.sent_words();
            let publishes = words.iter().filter(|words| words.starts_with("PUBLISH"));
            // The place of each is taken by the next, in order; behind the last QoS 2 comes what is not held to it.
            let expected = if number == 21 { 2 } else { 1 };
            assert_eq!(publishes.count(), expected, "{number}: {words:?}");
        }
    }
}

#[test]
//= test MQTT-3.3.4-7
//= test MQTT-3.3.4-8
//= test MQTT-4.9.0-1
//= test MQTT-4.9.0-2
fn the_window_is_kept_on_the_wire_and_qos_0_passes_it() {
    for maximum in [1_u16, 2, 65_535] {
        let mut config = config(ProtocolVersion::V5);
        config.max_in_flight = 500.try_into().unwrap();
        let mut client = Client::new(config);
        client.connect_with(
            false,
            &[Property::ReceiveMaximum(maximum.try_into().unwrap())],
        );
        for number in 0..600 {
            client.publish(
                &number.to_string(),
                if number % 2 == 0 {
                    QoS::AtLeastOnce
                } else {
                    QoS::ExactlyOnce
                },
            );
        }
        client.publish("zero", QoS::AtMostOnce);
        let window = usize::from(maximum.min(500));
        let sent = client.sent_words();
        assert_eq!(
            sent.iter()
                .filter(|words| words.starts_with("PUBLISH q0"))
                .count(),
            1
        );
        assert_eq!(sent.len(), window + 1);
        client.receive(PacketRef::Puback(ack(1))).unwrap();
        assert_eq!(client.sent().len(), 1, "one place was freed");
    }
}

#[test]
fn the_order_of_the_caller_is_kept() {
    let mut config = config(ProtocolVersion::V311);
    config.max_in_flight_qos2 = config.max_in_flight;
    let mut client = Client::connected(config);
    for number in 0..50 {
        client.publish(
            &number.to_string(),
            [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][number % 3],
        );
    }
    let payloads: Vec<String> = client
        .sent_words()
        .iter()
        .map(|words| words.rsplit(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(
        payloads,
        (0..50).map(|number| number.to_string()).collect::<Vec<_>>()
    );
}

#[test]
//= test MQTT-4.4.0-1
//= test v3.1.1 MQTT-4.4.0-1
//= test MQTT-3.3.1-1
//= test MQTT-4.6.0-1
//= test MQTT-4.3.3-6
//= test MQTT-4.6.0-4
//= test v3.1.1 MQTT-3.3.1-1
//= test v3.1.1 MQTT-4.6.0-1
//= test v3.1.1 MQTT-4.6.0-4
//= test v3.1.1 MQTT-2.3.1-3
//= test MQTT-4.1.0-1
//= test v3.1.1 MQTT-4.1.0-1
//= test v3.1.1 MQTT-4.1.0-2
fn a_resumed_session_sends_again_in_order_with_dup_and_a_pubrel_as_such() {
    for version in VERSIONS {
        let mut config = resuming(version);
        config.replay_window = 10.try_into().unwrap();
        let mut client = Client::connected(config);
        for payload in ["a", "b", "c"] {
            client.publish(payload, QoS::ExactlyOnce);
        }
        client.publish("d", QoS::AtLeastOnce);
        client.sent();
        client.receive(PacketRef::Pubrec(ack(2))).unwrap();
        client.close(TransportEnd::Failed);
        client.publish("new", QoS::AtLeastOnce);
        client.connect_with(true, &[]);
        // Paced: the window opens with the answers.
        assert_eq!(client.sent_words(), ["PUBLISH dup q2 #1 a", "PUBREL #2"]);
        client.receive(PacketRef::Pubcomp(ack(2))).unwrap();
        assert_eq!(client.sent_words(), ["PUBLISH dup q2 #3 c"]);
        client.receive(PacketRef::Pubrec(ack(1))).unwrap();
        client.receive(PacketRef::Pubcomp(ack(1))).unwrap();
        assert_eq!(
            client.sent_words(),
            ["PUBREL #1", "PUBLISH dup q1 #4 d", "PUBLISH q1 #5 new"]
        );
    }
}

#[test]
fn a_second_resumption_sends_what_the_first_did_not_get_to() {
    let mut client = Client::connected(resuming(ProtocolVersion::V311));
    for payload in ["a", "b", "c"] {
        client.publish(payload, QoS::AtLeastOnce);
    }
    client.sent();
    for _ in 0..3 {
        client.close(TransportEnd::Failed);
        client.connect_with(true, &[]);
        assert_eq!(client.sent_words(), ["PUBLISH dup q1 #1 a"]);
    }
    client.puback(1);
    assert_eq!(
        client.sent_words(),
        ["PUBLISH dup q1 #2 b", "PUBLISH dup q1 #3 c"]
    );
}

#[test]
fn after_a_lost_session_qos_1_is_new_and_qos_2_is_told() {
    let run = |rule: InFlightOnLostSession| {
        let mut config = resuming(ProtocolVersion::V5);
        config.in_flight_on_lost_session = rule;
        let mut client = Client::connected(config);
        client.publish("one", QoS::AtLeastOnce);
        client.publish("two", QoS::ExactlyOnce);
        client.publish("received", QoS::ExactlyOnce);
        client.sent();
        client.receive(PacketRef::Pubrec(ack(3))).unwrap();
        client.close(TransportEnd::Failed);
        client.publish("waiting", QoS::AtLeastOnce);
        client.events();
        client.connect_with(false, &[]);
        let sent = client.sent_words();
        if sent.len() == 1 && sent[0].contains("one") {
            client.puback(1);
        }
        (sent, client.sent_words(), client.outcomes())
    };
    let lost = PublishOutcome::Indeterminate(Indeterminate::SessionLost);
    let after_received = PublishOutcome::Indeterminate(Indeterminate::SessionLostAfterReceived);
    let done = PublishOutcome::Delivered(ReasonCode::Success);

    let (sent, then, outcomes) = run(InFlightOnLostSession::ResendAtLeastOnce);
    assert_eq!(
        (sent, then),
        (
            vec![
                "PUBLISH q1 #1 one".to_owned(),
                "PUBLISH q1 #4 waiting".into()
            ],
            vec![]
        )
    );
    assert_eq!(outcomes, [lost, after_received]);

    let (sent, then, outcomes) = run(InFlightOnLostSession::ResendAll);
    assert_eq!(sent, ["PUBLISH q1 #1 one"]);
    assert_eq!(then, ["PUBLISH q2 #2 two", "PUBLISH q1 #4 waiting"]);
    assert_eq!(outcomes, [after_received, done]);

    let (sent, _, outcomes) = run(InFlightOnLostSession::Report);
    assert_eq!(sent, ["PUBLISH q1 #4 waiting"]);
    assert_eq!(outcomes, [lost, lost, after_received]);
}

#[test]
fn answers_for_unknown_identifiers_do_no_harm_and_wrong_ones_end_the_connection() {
    for version in VERSIONS {
        let mut client = Client::connected(config(version));
        client.puback(7);
        client.receive(PacketRef::Pubcomp(ack(7))).unwrap();
        client.receive(PacketRef::Pubrec(ack(7))).unwrap();
        let pubrel = if version == ProtocolVersion::V5 {
            "PUBREL #7 92"
        } else {
            "PUBREL #7"
        };
        assert_eq!(client.sent_words(), [pubrel]);
        assert_eq!(client.session.stats().counters.stray_acknowledgements, 3);

        client.publish("two", QoS::ExactlyOnce);
        client.sent();
        let wrong = ConnectionError::Protocol(ProtocolViolation::WrongAcknowledgement);
        assert_eq!(client.receive(PacketRef::Puback(ack(1))), Err(wrong));
        let farewell: &[&str] = if version == ProtocolVersion::V5 {
            &["DISCONNECT 82"]
        } else {
            &[]
        };
        assert_eq!(client.sent_words(), farewell);
    }
}

#[test]
fn a_repeated_pubrec_gets_its_pubrel_again() {
    let mut client = Client::connected(config(ProtocolVersion::V5));
    client.publish("two", QoS::ExactlyOnce);
    client.sent();
    client.receive(PacketRef::Pubrec(ack(1))).unwrap();
    client.receive(PacketRef::Pubrec(ack(1))).unwrap();
    assert_eq!(client.sent_words(), ["PUBREL #1", "PUBREL #1"]);
    let received = client
        .events()
        .iter()
        .filter(|event| matches!(event, Event::PublishReceived { .. }))
        .count();
    assert_eq!(received, 1);
}

#[test]
fn what_waits_too_long_is_not_sent_and_the_rest_of_its_time_is() {
    for version in VERSIONS {
        let mut client = Client::new(config(version));
        let mut publish = |seconds: u64| {
            let mut publish = Publish::new("t", seconds.to_string(), QoS::AtLeastOnce);
            publish.expiry = Some(Duration::from_secs(seconds));
            client.session.publish(publish, client.now).unwrap();
        };
        publish(5);
        publish(30);
        assert_eq!(
            client.session.poll_timeout(),
            Some(client.now + Duration::from_secs(5))
        );
        client.pass(Duration::from_secs(5));
        assert_eq!(client.outcomes(), [PublishOutcome::Expired]);
        client.pass(Duration::from_millis(3500));
        client.connect_with(false, &[]);
        let sent = client.sent();
        let [Packet::Publish(publish)] = sent.as_slice() else {
            panic!("{sent:?}")
        };
        let left = (version == ProtocolVersion::V5).then_some(22);
        assert_eq!(
            publish.properties().message_expiry_interval(),
            left,
            "21.5 s are left, rounded up"
        );
    }
}

#[test]
//= test MQTT-3.2.2-11
//= test MQTT-3.2.2-14
//= test MQTT-3.2.2-15
fn a_message_is_checked_before_it_is_accepted_and_handed_back() {
    let mut client = Client::new(config(ProtocolVersion::V5));
    client.connect_with(
        false,
        &[
            Property::MaximumQoS(QoS::AtLeastOnce),
            Property::RetainAvailable(false),
            Property::MaximumPacketSize(100.try_into().unwrap()),
        ],
    );
    let mut refuse = |publish: Publish| {
        let error = client
            .session
            .publish(publish.clone(), client.now)
            .unwrap_err();
        let reason = error.reason();
        assert_eq!(error.into_publish(), publish);
        reason
    };
    for topic in ["", "a/+", "#", "a\0b", &"x".repeat(65_536)] {
        assert_eq!(
            refuse(Publish::new(topic, "", QoS::AtMostOnce)),
            PublishErrorReason::InvalidTopic
        );
    }
    assert_eq!(
        refuse(Publish::new("t", "", QoS::ExactlyOnce)),
        PublishErrorReason::QosNotSupported(QoS::AtLeastOnce)
    );
    let mut retained = Publish::new("t", "", QoS::AtMostOnce);
    retained.retain = Retain::Yes;
    assert_eq!(refuse(retained), PublishErrorReason::RetainNotSupported);
    // Header 2, topic 3, properties 1: 94 bytes of payload are the most.
    assert_eq!(
        refuse(Publish::new("t", vec![0; 95], QoS::AtMostOnce)),
        PublishErrorReason::TooLarge {
            size: 101,
            maximum: 100
        }
    );
    client
        .session
        .publish(Publish::new("t", vec![0; 94], QoS::AtMostOnce), client.now)
        .unwrap();
    let mut out = bytes::BytesMut::new();
    assert_eq!(
        client
            .session
            .poll_transmit(&mut out, usize::MAX, client.now),
        100
    );
    let mut with_property = Publish::new("t", "", QoS::AtMostOnce);
    with_property.properties = Some(Box::default());
    with_property.properties.as_mut().unwrap().response_topic = Some("a/#".into());
    let reason = client
        .session
        .publish(with_property, client.now)
        .unwrap_err()
        .reason();
    assert_eq!(reason, PublishErrorReason::InvalidProperty);
}

#[test]
fn properties_need_mqtt_5() {
    let mut client = Client::connected(config(ProtocolVersion::V311));
    let mut publish = Publish::new("t", "", QoS::AtMostOnce);
    publish.properties = Some(Box::default());
    publish.properties.as_mut().unwrap().content_type = Some("text/plain".into());
    assert_eq!(
        client
            .session
            .publish(publish, client.now)
            .unwrap_err()
            .reason(),
        PublishErrorReason::PropertiesNeedV5
    );
}

#[test]
//= test MQTT-3.3.4-6
fn all_properties_of_a_message_are_sent() {
    let mut client = Client::connected(config(ProtocolVersion::V5));
    let mut publish = Publish::new("t", "{}", QoS::AtMostOnce);
    let properties = publish.properties.insert(Box::default());
    properties.payload_format = Some(mqtt_codec::PayloadFormat::Utf8);
    properties.content_type = Some("application/json".into());
    properties.response_topic = Some("answers".into());
    properties.correlation_data = Some(Bytes::from_static(b"42"));
    properties.user_properties = vec![("k".into(), "v".into())];
    client.session.publish(publish, client.now).unwrap();
    let sent = client.sent();
    let [Packet::Publish(publish)] = sent.as_slice() else {
        panic!("{sent:?}")
    };
    let properties = publish.properties();
    assert_eq!(
        properties.payload_format_indicator(),
        Some(mqtt_codec::PayloadFormat::Utf8)
    );
    assert_eq!(properties.content_type().unwrap(), "application/json");
    assert_eq!(properties.response_topic().unwrap(), "answers");
    assert_eq!(properties.correlation_data(), Some(b"42".as_slice()));
    assert_eq!(properties.user_properties().count(), 1);
}

#[test]
fn what_waited_for_another_broker_is_told_that_this_one_does_not_take_it() {
    let mut client = Client::new(config(ProtocolVersion::V5));
    client.publish("two", QoS::ExactlyOnce);
    client
        .session
        .publish(Publish::new("t", vec![0; 200], QoS::AtMostOnce), client.now)
        .unwrap();
    client.publish("one", QoS::AtLeastOnce);
    client.connect_with(
        false,
        &[
            Property::MaximumQoS(QoS::AtLeastOnce),
            Property::MaximumPacketSize(100.try_into().unwrap()),
        ],
    );
    assert_eq!(client.sent_words(), ["PUBLISH q1 #1 one"]);
    assert_eq!(
        client.outcomes(),
        [
            PublishOutcome::NotSent(PublishErrorReason::QosNotSupported(QoS::AtLeastOnce)),
            PublishOutcome::NotSent(PublishErrorReason::TooLarge {
                size: 207,
                maximum: 100
            }),
        ]
    );
}

#[test]
fn a_message_can_be_taken_back_until_it_is_written() {
    let mut client = Client::new(config(ProtocolVersion::V311));
    let first = client.publish("first", QoS::AtLeastOnce);
    let second = client.publish("second", QoS::AtLeastOnce);
    assert_eq!(
        client.session.cancel_publish(first).unwrap().payload,
        "first"
    );
    assert!(client.session.cancel_publish(first).is_none());
    client.connect_with(false, &[]);
    assert_eq!(client.sent_words(), ["PUBLISH q1 #1 second"]);
    assert!(client.session.cancel_publish(second).is_none());
    assert_eq!(client.session.stats().queued_bytes, 0);
}

#[test]
//= test MQTT-3.3.2-7
//= test MQTT-3.2.2-17
//= test MQTT-3.2.2-18
//= test MQTT-3.3.2-9
fn aliases_are_bound_when_written_and_never_survive_the_connection() {
    let mut client = Client::new(resuming(ProtocolVersion::V5));
    let aliases = [Property::TopicAliasMaximum(1)];
    client.connect_with(false, &aliases);
    let send = |client: &mut Client, topic: &'static str| {
        client
            .session
            .publish(Publish::new(topic, "x", QoS::AtLeastOnce), client.now)
            .unwrap();
    };
    let shape = |client: &mut Client| -> Vec<(String, Option<u16>)> {
        let sent = client.sent();
        sent.iter()
            .map(|packet| {
                let Packet::Publish(publish) = packet else {
                    panic!("{packet:?}")
                };
                (
                    publish.topic().to_owned(),
                    publish.properties().topic_alias().map(Into::into),
                )
            })
            .collect()
    };
    for topic in ["a", "a", "b", "a"] {
        send(&mut client, topic);
    }
    let bound = |topic: &str| (topic.to_owned(), Some(1));
    assert_eq!(
        shape(&mut client),
        [bound("a"), bound(""), bound("b"), bound("a")]
    );
    client.close(TransportEnd::Failed);
    client.connect_with(true, &[]);
    let mut again = shape(&mut client);
    while again.len() < 4 {
        client.puback(again.len() as u16);
        again.extend(shape(&mut client));
    }
    let topics = ["a", "a", "b", "a"].map(|topic| (topic.to_owned(), None));
    assert_eq!(again, topics, "this connection has no aliases");
}

#[test]
fn an_alias_never_makes_a_packet_too_large() {
    let mut client = Client::new(config(ProtocolVersion::V5));
    client.connect_with(
        false,
        &[
            Property::TopicAliasMaximum(4),
            Property::MaximumPacketSize(100.try_into().unwrap()),
        ],
    );
    for size in [94, 94, 91, 88, 88] {
        client
            .session
            .publish(
                Publish::new("t", vec![0; size], QoS::AtMostOnce),
                client.now,
            )
            .unwrap();
        let mut out = bytes::BytesMut::new();
        let written = client
            .session
            .poll_transmit(&mut out, usize::MAX, client.now);
        assert!(written > size && written <= 100, "{written}");
    }
}

/// The broker may have it: it would take another message under its identifier for this one, confirm it and throw it away.
#[test]
fn the_identifier_of_a_qos_2_message_that_was_set_aside_is_used_again_in_a_new_session_only() {
    for version in VERSIONS {
        let mut client = Client::connected(resuming(version));
        client.publish("poison", QoS::ExactlyOnce);
        while client.sent_words() != [""; 0] {
            client.close(TransportEnd::ClosedByPeer);
            client.connect_with(true, &[]);
        }
        assert_eq!(client.outcomes(), [PublishOutcome::Quarantined]);
        assert_eq!(client.session.stats().packet_ids_in_use, 0);
        let used = |client: &mut Client| {
            let mut used = Vec::new();
            for _ in 0..100 {
                client.publish("x", QoS::AtLeastOnce);
                for packet in client.sent() {
                    let Packet::Publish(publish) = packet else {
                        panic!("{packet:?}")
                    };
                    let id = publish.packet_id().unwrap().value();
                    used.push(id);
                    client.puback(id);
                }
            }
            used
        };
        assert!(!used(&mut client).contains(&1));
        client.close(TransportEnd::ClosedByPeer);
        client.connect_with(false, &[]);
        assert!(used(&mut client).contains(&1));
    }
}

#[test]
fn a_poison_message_is_set_aside_and_its_neighbours_are_not() {
    for version in VERSIONS {
        let mut client = Client::connected(resuming(version));
        for number in 0..20 {
            let payload = if number == 7 {
                "poison".to_owned()
            } else {
                number.to_string()
            };
            client.publish(&payload, QoS::AtLeastOnce);
        }
        let mut acknowledged = 0;
        let mut hang_ups = 0;
        let mut outcomes = Vec::new();
        while acknowledged
            + outcomes
                .iter()
                .filter(|outcome| **outcome == PublishOutcome::Quarantined)
                .count()
            < 20
        {
            let sent = client.sent();
            assert!(!sent.is_empty(), "delivery never stops");
            for packet in sent {
                let Packet::Publish(publish) = packet else {
                    panic!("{packet:?}")
                };
                if publish.payload() == b"poison" {
                    hang_ups += 1;
                    client.close(TransportEnd::ClosedByPeer);
                    client.publish("more", QoS::AtLeastOnce);
                    client.connect_with(true, &[]);
                    break;
                }
                if publish.payload() != b"more" {
                    acknowledged += 1;
                }
                client.puback(publish.packet_id().unwrap().value());
            }
            outcomes.extend(client.outcomes());
        }
        assert!(hang_ups <= 4, "{hang_ups}");
        assert_eq!(
            outcomes
                .iter()
                .filter(|outcome| **outcome == PublishOutcome::Quarantined)
                .count(),
            1
        );
        assert_eq!(client.session.stats().counters.quarantined, 1);
        assert_eq!(acknowledged, 19);
    }
}

#[test]
fn losing_the_network_blames_nobody() {
    let mut client = Client::connected(resuming(ProtocolVersion::V311));
    client.publish("innocent", QoS::AtLeastOnce);
    for _ in 0..10 {
        client.sent();
        client.close(TransportEnd::Failed);
        client.connect_with(true, &[]);
    }
    assert_eq!(client.sent_words(), ["PUBLISH dup q1 #1 innocent"]);
    assert!(client.outcomes().is_empty());
}

#[test]
fn queues_are_bounded_in_messages_and_in_bytes() {
    let mut config = config(ProtocolVersion::V311);
    config.max_queued_messages = 3;
    config.max_outbound_bytes = 100;
    let mut client = Client::new(config);
    let publish = |client: &mut Client, size| {
        client.session.publish(
            Publish::new("t", vec![0; size], QoS::AtLeastOnce),
            client.now,
        )
    };
    for _ in 0..3 {
        publish(&mut client, 1).unwrap();
    }
    let error = publish(&mut client, 1).unwrap_err();
    assert_eq!(error.reason(), PublishErrorReason::TooManyQueued);
    assert!(error.reason().is_temporary());
    client.connect_with(false, &[]);
    assert_eq!(client.sent().len(), 3);
    // In flight still counts in bytes: 3 packets of 9 bytes (and one spare each).
    let error = publish(&mut client, 70).unwrap_err();
    assert_eq!(error.reason(), PublishErrorReason::TooManyBytes);
    publish(&mut client, 50).unwrap();
    let error = publish(&mut client, 200).unwrap_err();
    assert!(
        matches!(
            error.reason(),
            PublishErrorReason::LargerThanQueue { maximum: 100, .. }
        ) && !error.reason().is_temporary()
    );
    for number in 1..=3 {
        client.puback(number);
    }
    client.sent();
    client.puback(4);
    let stats = client.session.stats();
    assert_eq!(
        (
            stats.queued_bytes,
            stats.in_flight_bytes,
            stats.packet_ids_in_use
        ),
        (0, 0, 0)
    );
}

#[test]
fn transmitting_is_bounded_and_goes_on_where_it_stopped() {
    let mut client = Client::connected(config(ProtocolVersion::V311));
    for _ in 0..50 {
        client
            .session
            .publish(Publish::new("t", vec![0; 100], QoS::AtMostOnce), client.now)
            .unwrap();
    }
    let mut out = bytes::BytesMut::new();
    assert_eq!(
        client.session.poll_transmit(&mut out, 1, client.now),
        105,
        "one packet"
    );
    assert_eq!(client.session.poll_transmit(&mut out, 200, client.now), 210);
    assert_eq!(
        client
            .session
            .poll_transmit(&mut out, usize::MAX, client.now),
        47 * 105
    );
    assert_eq!(
        client
            .session
            .poll_transmit(&mut out, usize::MAX, client.now),
        0
    );
    assert_eq!(out.len(), 50 * 105);
}

#[test]
//= test MQTT-4.3.3-7
fn a_qos_2_message_that_was_sent_does_not_expire() {
    let mut client = Client::connected(resuming(ProtocolVersion::V5));
    let mut publish = Publish::new("t", "x", QoS::ExactlyOnce);
    publish.expiry = Some(Duration::from_secs(10));
    client.session.publish(publish, client.now).unwrap();
    assert_eq!(client.sent_words(), ["PUBLISH q2 #1 x"]);
    client.pass(Duration::from_secs(100));
    assert_eq!(client.outcomes(), [], "it is in flight");
    client.close(TransportEnd::Failed);
    client.connect_with(true, &[]);
    assert_eq!(client.sent_words(), ["PUBLISH dup q2 #1 x"]);
    client.receive(PacketRef::Pubrec(ack(1))).unwrap();
    client.pass(Duration::from_secs(20));
    assert_eq!(client.sent_words(), ["PUBREL #1"]);
    client.receive(PacketRef::Pubcomp(ack(1))).unwrap();
    assert_eq!(
        client.outcomes(),
        [PublishOutcome::Delivered(ReasonCode::Success)]
    );
}

#[test]
fn a_connection_that_winds_down_ends_what_was_sent_and_begins_nothing() {
    for version in VERSIONS {
        let mut client = Client::connected(resuming(version));
        client.session.wind_down();
        assert!(client.session.is_wound_down(), "nothing was sent");

        let mut client = Client::connected(resuming(version));
        client.publish("one", QoS::AtLeastOnce);
        client.publish("two", QoS::ExactlyOnce);
        client.sent();
        client.session.wind_down();
        client.publish("later", QoS::AtLeastOnce);
        client.publish("zero", QoS::AtMostOnce);
        client
            .session
            .subscribe(&[Subscription::new("a", QoS::AtLeastOnce)], client.now)
            .unwrap();
        client.puback(1);
        client.receive(PacketRef::Pubrec(ack(2))).unwrap();
        assert!(!client.session.is_wound_down(), "the PUBREL is not written");
        assert_eq!(client.sent_words(), ["PUBREL #2"]);
        assert!(!client.session.is_wound_down(), "the PUBCOMP is awaited");
        client.receive(PacketRef::Pubcomp(ack(2))).unwrap();
        assert!(client.session.is_wound_down());

        client
            .session
            .disconnect(Disconnect::default(), client.now)
            .unwrap();
        assert_eq!(client.sent_words(), ["DISCONNECT 00"]);
        client.connect_with(true, &[]);
        let sent = client.sent_words();
        assert!(sent[0].starts_with("SUBSCRIBE"), "{sent:?}");
        assert_eq!(sent[1..], ["PUBLISH q1 #3 later", "PUBLISH q0 zero"]);
        assert!(
            !client.session.is_wound_down(),
            "it ended with its connection"
        );
    }
}
