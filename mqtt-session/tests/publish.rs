//! Publishing: each QoS, the window, reconnects, and what becomes of a message in the end.

mod common;

use common::{Client, VERSIONS, config, id, resuming, token};
use mqtt_codec::{AckRef, Packet, PacketRef, Property, ProtocolVersion, QoS, ReasonCode};
use mqtt_session::{
    ConnectionError, Disconnect, Event, InFlightOnLostSession, Indeterminate, ProtocolViolation,
    PublishOutcome, Subscription, TransportEnd,
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
fn whether_there_may_be_bytes_is_known_beforehand() {
    for version in VERSIONS {
        let mut client = Client::new(config(version));
        assert!(!client.session.may_transmit());
        client.publish("waits", QoS::AtMostOnce);
        client.connect_with(false, &[]);
        assert!(client.session.may_transmit());
        assert_eq!(client.sent_words(), ["PUBLISH q0 waits"]);
        assert!(!client.session.may_transmit());

        for (command, packet) in [
            (QoS::AtLeastOnce, "PUBLISH q1 #1 m"),
            (QoS::ExactlyOnce, "PUBLISH q2 #2 m"),
        ] {
            client.publish("m", command);
            assert!(client.session.may_transmit());
            assert_eq!(client.sent_words(), [packet]);
            assert!(!client.session.may_transmit(), "its answer is awaited");
        }
        client.receive(PacketRef::Pubrec(ack(2))).unwrap();
        assert!(client.session.may_transmit());
        assert_eq!(client.sent_words(), ["PUBREL #2"]);
        let message = client.deliver(QoS::AtLeastOnce, 7, "m");
        assert_eq!(client.sent_words(), [""; 0]);
        client.session.acknowledge(token(message));
        assert!(client.session.may_transmit());
        assert_eq!(client.sent_words(), ["PUBACK #7"]);
        client
            .session
            .disconnect(Disconnect::default(), client.now)
            .unwrap();
        assert!(client.session.may_transmit());
        assert_eq!(client.sent_words(), ["DISCONNECT 00"]);
        assert!(!client.session.may_transmit());
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
