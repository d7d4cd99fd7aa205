//! Receiving: delivery once or more, acknowledging in order, and the bounds of what is held.

mod common;

use bytes::{Bytes, BytesMut};
use common::{Client, VERSIONS, config, id, resuming, token};
use mqtt_codec::{
    AckRef, PacketRef, Properties, Property, ProtocolVersion, PublishRef, QoS, ReasonCode,
    TopicName,
};
use mqtt_session::{
    Acknowledged, ConnectionError, DisconnectCause, Dup, Event, InputProgress, LocalLimit, Message,
    ProtocolViolation, ReceiveOverrun, Retain, TransportEnd,
};

fn pubrel(client: &mut Client, number: u16) {
    client
        .receive(PacketRef::Pubrel(AckRef::new(id(number))))
        .unwrap();
}

#[test]
fn a_message_arrives_with_all_that_it_has() {
    let mut client = Client::connected(config(ProtocolVersion::V5));
    let properties = [Property::ContentType(
        mqtt_codec::Text::new("text/plain").unwrap(),
    )];
    client
        .receive(PacketRef::Publish(PublishRef {
            dup: true,
            qos: QoS::AtLeastOnce,
            retain: true,
            packet_id: Some(id(5)),
            properties: Properties::list(&properties),
            ..PublishRef::new(TopicName::new("a/b").unwrap(), b"payload")
        }))
        .unwrap();
    let message = client.messages().remove(0);
    assert_eq!(
        (
            message.topic_str(),
            message.topic().as_bytes(),
            message.payload()
        ),
        ("a/b", b"a/b".as_slice(), b"payload".as_slice())
    );
    assert_eq!(
        (message.qos(), message.retain(), message.dup()),
        (QoS::AtLeastOnce, Retain::Yes, Dup::Yes)
    );
    assert_eq!(message.properties().content_type().unwrap(), "text/plain");
}

#[test]
//= test MQTT-3.3.4-1
//= test v3.1.1 MQTT-3.3.4-1
//= test MQTT-4.3.2-4
//= test MQTT-4.3.3-8
//= test MQTT-4.3.3-12
//= test MQTT-4.3.3-13
//= test MQTT-4.5.0-2
//= test v3.1.1 MQTT-4.5.0-2
//= test v3.1.1 MQTT-4.3.2-2
//= test v3.1.1 MQTT-4.3.3-2
//= test MQTT-4.3.2-5
fn each_qos_is_answered_when_it_is_acknowledged() {
    for version in VERSIONS {
        let mut client = Client::connected(config(version));
        let mut zero = client.deliver(QoS::AtMostOnce, 0, "zero").unwrap();
        assert!(zero.take_ack_token().is_none());
        let one = token(client.deliver(QoS::AtLeastOnce, 1, "one"));
        let two = token(client.deliver(QoS::ExactlyOnce, 2, "two"));
        assert!(client.sent().is_empty(), "not before");
        assert_eq!(client.session.acknowledge(one), Acknowledged::Accepted);
        assert_eq!(client.session.acknowledge(two), Acknowledged::Accepted);
        assert_eq!(client.sent_words(), ["PUBACK #1", "PUBREC #2"]);
        pubrel(&mut client, 2);
        assert_eq!(client.sent_words(), ["PUBCOMP #2"]);
        let stats = client.session.stats();
        assert_eq!((stats.held_messages, stats.held_bytes), (0, 0));
    }
}

#[test]
//= test MQTT-4.6.0-2
//= test MQTT-4.6.0-3
//= test v3.1.1 MQTT-4.6.0-2
//= test v3.1.1 MQTT-4.6.0-3
fn answers_leave_in_order_of_arrival() {
    let mut client = Client::connected(config(ProtocolVersion::V311));
    let ones: Vec<_> = (1..=3)
        .map(|number| token(client.deliver(QoS::AtLeastOnce, number, "")))
        .collect();
    let twos: Vec<_> = (11..=13)
        .map(|number| token(client.deliver(QoS::ExactlyOnce, number, "")))
        .collect();
    for token in ones.into_iter().rev().chain(twos.into_iter().rev()) {
        assert_eq!(client.session.acknowledge(token), Acknowledged::Accepted);
    }
    let expected = [
        "PUBACK #1",
        "PUBACK #2",
        "PUBACK #3",
        "PUBREC #11",
        "PUBREC #12",
        "PUBREC #13",
    ];
    assert_eq!(client.sent_words(), expected);
}

#[test]
fn out_of_order_decisions_wait_for_the_first() {
    let mut client = Client::connected(config(ProtocolVersion::V5));
    let first = token(client.deliver(QoS::AtLeastOnce, 1, ""));
    let second = token(client.deliver(QoS::AtLeastOnce, 2, ""));
    let third = token(client.deliver(QoS::AtLeastOnce, 3, ""));
    client.session.acknowledge(third);
    client.session.reject(second, ReasonCode::NotAuthorized);
    assert!(client.sent().is_empty());
    client.session.acknowledge(first);
    assert_eq!(
        client.sent_words(),
        ["PUBACK #1", "PUBACK #2 87", "PUBACK #3"]
    );
}

#[test]
//= test MQTT-4.3.3-9
fn a_rejection_carries_its_reason_where_the_version_has_one() {
    for (version, puback, pubrec) in [
        (ProtocolVersion::V311, "PUBACK #1", "PUBREC #2"),
        (ProtocolVersion::V5, "PUBACK #1 97", "PUBREC #2 80"),
    ] {
        let mut client = Client::connected(config(version));
        let one = token(client.deliver(QoS::AtLeastOnce, 1, ""));
        let two = token(client.deliver(QoS::ExactlyOnce, 2, ""));
        client.session.reject(one, ReasonCode::QuotaExceeded);
        client.session.reject(two, ReasonCode::Success);
        assert_eq!(client.sent_words(), [puback, pubrec]);
        // In 5.0 the failing PUBREC ended the exchange; before, there is still a PUBREL to come.
        let held = if version == ProtocolVersion::V5 { 0 } else { 1 };
        assert_eq!(client.session.stats().held_messages, held);
        let is_new = client.deliver(QoS::ExactlyOnce, 2, "").is_some();
        assert_eq!(is_new, version == ProtocolVersion::V5);
    }
}

#[test]
fn a_token_of_a_lost_connection_is_inert() {
    for version in VERSIONS {
        let mut client = Client::connected(resuming(version));
        let old = token(client.deliver(QoS::AtLeastOnce, 1, "again"));
        client.close(TransportEnd::Failed);
        client.connect_with(true, &[]);
        let new = token(client.deliver(QoS::AtLeastOnce, 1, "again"));
        assert_eq!(client.session.acknowledge(old), Acknowledged::Stale);
        assert!(client.sent().is_empty());
        assert_eq!(client.session.acknowledge(new), Acknowledged::Accepted);
        assert_eq!(client.sent_words(), ["PUBACK #1"]);
    }
}

#[test]
fn an_answer_that_was_not_written_dies_with_its_connection() {
    let mut client = Client::connected(resuming(ProtocolVersion::V311));
    let token = token(client.deliver(QoS::AtLeastOnce, 1, ""));
    client.session.acknowledge(token);
    client.close(TransportEnd::Failed);
    client.connect_with(true, &[]);
    assert!(client.sent().is_empty());
}

#[test]
//= test MQTT-4.3.3-10
fn qos_2_is_reported_once_however_often_it_comes() {
    for version in VERSIONS {
        let mut client = Client::connected(resuming(version));
        let token = token(client.deliver(QoS::ExactlyOnce, 1, "m"));
        // Without DUP, on the same connection and on another one: a duplicate by its identifier.
        assert!(client.deliver(QoS::ExactlyOnce, 1, "m").is_none());
        client.close(TransportEnd::Failed);
        client.connect_with(true, &[]);
        assert!(client.deliver(QoS::ExactlyOnce, 1, "m").is_none());
        assert!(client.sent().is_empty(), "the application has not decided");
        assert_eq!(
            client.session.acknowledge(token),
            Acknowledged::Accepted,
            "the token belongs to the session"
        );
        assert_eq!(client.sent_words(), ["PUBREC #1"]);
        client.close(TransportEnd::Failed);
        client.connect_with(true, &[]);
        assert!(client.deliver(QoS::ExactlyOnce, 1, "m").is_none());
        assert_eq!(
            client.sent_words(),
            ["PUBREC #1"],
            "decided: answered at once"
        );
        client.close(TransportEnd::Failed);
        client.connect_with(true, &[]);
        pubrel(&mut client, 1);
        assert_eq!(client.sent_words(), ["PUBCOMP #1"]);
        assert!(
            client.deliver(QoS::ExactlyOnce, 1, "next").is_some(),
            "released: a new message"
        );
        assert_eq!(client.session.stats().counters.duplicates_suppressed, 3);
    }
}

#[test]
fn a_first_message_marked_as_duplicate_is_delivered() {
    let mut client = Client::connected(config(ProtocolVersion::V311));
    let publish = PublishRef {
        dup: true,
        qos: QoS::ExactlyOnce,
        packet_id: Some(id(1)),
        ..PublishRef::new(TopicName::new("t").unwrap(), b"first")
    };
    client.receive(PacketRef::Publish(publish)).unwrap();
    assert_eq!(client.messages().len(), 1);
}

#[test]
fn a_lost_session_forgets_what_was_received() {
    let mut client = Client::connected(resuming(ProtocolVersion::V5));
    let old = token(client.deliver(QoS::ExactlyOnce, 1, "m"));
    client.close(TransportEnd::Failed);
    client.connect_with(false, &[]);
    assert!(client.deliver(QoS::ExactlyOnce, 1, "other").is_some());
    assert_eq!(client.session.acknowledge(old), Acknowledged::Stale);
    assert!(client.sent().is_empty());
}

#[test]
//= test MQTT-4.3.3-11
fn a_pubrel_is_always_answered() {
    for (version, answer) in [
        (ProtocolVersion::V311, "PUBCOMP #9"),
        (ProtocolVersion::V5, "PUBCOMP #9 92"),
    ] {
        let mut client = Client::connected(config(version));
        pubrel(&mut client, 9);
        assert_eq!(client.sent_words(), [answer]);
    }
}

#[test]
//= test MQTT-3.3.4-9
fn a_broker_that_overruns_receive_maximum_is_disconnected() {
    let mut config = config(ProtocolVersion::V5);
    config.receive_maximum = 2.try_into().unwrap();
    let mut client = Client::connected(config);
    let first = token(client.deliver(QoS::AtLeastOnce, 1, ""));
    client.deliver(QoS::ExactlyOnce, 2, "").unwrap();
    client
        .deliver(QoS::AtMostOnce, 0, "")
        .expect("QoS 0 does not count");
    client.session.acknowledge(first);
    client.sent();
    client
        .deliver(QoS::ExactlyOnce, 3, "")
        .expect("an answer makes room");
    let error = client.try_deliver(QoS::AtLeastOnce, 4, "").unwrap_err();
    assert_eq!(
        error,
        ConnectionError::Protocol(ProtocolViolation::ReceiveMaximumExceeded)
    );
    assert_eq!(client.sent_words(), ["DISCONNECT 93"]);
}

#[test]
fn an_overrun_may_be_tolerated_and_is_bounded_all_the_same() {
    let mut config = config(ProtocolVersion::V5);
    config.receive_maximum = 2.try_into().unwrap();
    config.receive_overrun = ReceiveOverrun::Tolerate;
    config.max_held_messages = 5;
    let mut client = Client::connected(config);
    for round in 0..3 {
        let tokens: Vec<_> = (1..=5)
            .map(|n| token(client.deliver(QoS::AtLeastOnce, 5 * round + n, "")))
            .collect();
        for token in tokens {
            client.session.acknowledge(token);
        }
        assert_eq!(client.sent_words().len(), 5);
    }
    for number in 100..105 {
        client.deliver(QoS::ExactlyOnce, number, "").unwrap();
    }
    let error = client.try_deliver(QoS::ExactlyOnce, 105, "").unwrap_err();
    assert_eq!(error, ConnectionError::Limit(LocalLimit::HeldMessages));
}

#[test]
fn a_window_place_is_held_until_pubcomp() {
    let mut config = config(ProtocolVersion::V5);
    config.receive_maximum = 1.try_into().unwrap();
    let mut client = Client::connected(config);
    for number in 1..50 {
        let token = token(client.deliver(QoS::ExactlyOnce, number, ""));
        client.session.acknowledge(token);
        client.sent();
        pubrel(&mut client, number);
        client.sent();
    }
    client.deliver(QoS::ExactlyOnce, 50, "").unwrap();
    client.try_deliver(QoS::ExactlyOnce, 51, "").unwrap_err();
}

#[test]
//= test v3.1.1 MQTT-4.8.0-2
fn without_receive_maximum_the_hold_is_bounded_in_messages() {
    let mut config = config(ProtocolVersion::V311);
    // Below Receive Maximum, which says nothing here.
    config.max_held_messages = 3;
    let mut client = Client::connected(config);
    for number in 1..=3 {
        client.deliver(QoS::AtLeastOnce, number, "").unwrap();
    }
    let error = client.try_deliver(QoS::AtLeastOnce, 4, "").unwrap_err();
    assert_eq!(error, ConnectionError::Limit(LocalLimit::HeldMessages));
    let events = client.events();
    assert!(
        matches!(events.as_slice(), [Event::Disconnected(disconnected)] if disconnected.cause == DisconnectCause::Error(error))
    );
}

#[test]
fn the_hold_is_bounded_in_bytes() {
    for version in VERSIONS {
        let mut config = config(version);
        config.max_held_bytes = 100;
        let mut client = Client::connected(config);
        let big = token(client.deliver(QoS::AtLeastOnce, 1, &"x".repeat(500)));
        client.session.acknowledge(big);
        client
            .deliver(QoS::AtLeastOnce, 2, &"x".repeat(99))
            .expect("one message may always be held");
        let error = client.try_deliver(QoS::ExactlyOnce, 3, "").unwrap_err();
        assert_eq!(error, ConnectionError::Limit(LocalLimit::HeldBytes));
        let farewell: &[&str] = if version == ProtocolVersion::V5 {
            &["DISCONNECT 97"]
        } else {
            &[]
        };
        assert_eq!(client.sent_words(), farewell);
    }
}

#[test]
fn a_peer_that_does_not_read_cannot_make_us_queue_replies_for_ever() {
    let mut config = config(ProtocolVersion::V311);
    config.max_pending_replies = 10;
    let mut client = Client::connected(config);
    for number in 1..=10 {
        pubrel(&mut client, number);
    }
    let error = client
        .receive(PacketRef::Pubrel(AckRef::new(id(11))))
        .unwrap_err();
    assert_eq!(error, ConnectionError::Limit(LocalLimit::PendingReplies));
}

#[test]
//= test MQTT-3.3.2-8
//= test MQTT-3.3.2-11
//= test MQTT-3.3.2-10
fn an_alias_is_resolved_before_the_message_is_reported() {
    let mut config = config(ProtocolVersion::V5);
    config.topic_alias_maximum = 2;
    let mut client = Client::connected(config);
    let mut publish = |topic: &str, alias: u16| {
        let alias = [Property::TopicAlias(alias.try_into().unwrap())];
        let topic = if topic.is_empty() {
            TopicName::EMPTY
        } else {
            TopicName::new(topic).unwrap()
        };
        client.receive(PacketRef::Publish(PublishRef {
            properties: Properties::list(&alias),
            ..PublishRef::new(topic, b"")
        }))?;
        Ok::<_, ConnectionError>(client.messages().remove(0).topic_str().to_owned())
    };
    assert_eq!(publish("long/topic", 1).unwrap(), "long/topic");
    assert_eq!(publish("", 1).unwrap(), "long/topic");
    assert_eq!(publish("other", 1).unwrap(), "other");
    assert_eq!(publish("", 1).unwrap(), "other");
    assert_eq!(
        publish("", 2),
        Err(ConnectionError::Protocol(
            ProtocolViolation::TopicAliasUnknown
        ))
    );
    client.connect_with(false, &[]);
    let alias = [Property::TopicAlias(3.try_into().unwrap())];
    let publish = PublishRef {
        properties: Properties::list(&alias),
        ..PublishRef::new(TopicName::new("t").unwrap(), b"")
    };
    assert_eq!(
        client.receive(PacketRef::Publish(publish)),
        Err(ConnectionError::Protocol(
            ProtocolViolation::TopicAliasInvalid
        ))
    );
    assert_eq!(client.sent_words(), ["DISCONNECT 94"]);
}

#[test]
fn input_stops_at_the_bound_of_events_and_goes_on_after_them() {
    let mut config = config(ProtocolVersion::V311);
    config.max_pending_events = 4;
    let mut client = Client::connected(config);
    client.events();
    let mut wire = BytesMut::new();
    for number in 0..10_u8 {
        PublishRef::new(TopicName::new("t").unwrap(), &[number])
            .encode(ProtocolVersion::V311, &mut wire)
            .unwrap();
    }
    let mut input = wire.freeze();
    let mut seen = Vec::new();
    let mut rounds = 0;
    while client.session.handle_input(&mut input, client.now).unwrap() == InputProgress::DrainEvents
    {
        let events = client.events();
        assert!(events.len() <= 4);
        seen.extend(events);
        rounds += 1;
    }
    seen.extend(client.events());
    let payloads: Vec<u8> = seen
        .iter()
        .map(|event| {
            if let Event::Message(message) = event {
                message.payload()[0]
            } else {
                panic!()
            }
        })
        .collect();
    assert_eq!(payloads, (0..10).collect::<Vec<_>>());
    assert_eq!(rounds, 2);
}

#[test]
//= test MQTT-6.0.0-2
//= test v3.1.1 MQTT-6.0.0-2
fn any_cut_of_the_input_gives_the_same_messages() {
    let mut wire = BytesMut::new();
    for size in [0_usize, 1, 100, 200, 20_000] {
        let payload = vec![7; size];
        let publish = PublishRef {
            qos: QoS::AtLeastOnce,
            packet_id: Some(id(1)),
            ..PublishRef::new(TopicName::new("topic").unwrap(), &payload)
        };
        publish.encode(ProtocolVersion::V5, &mut wire).unwrap();
    }
    let wire = wire.freeze();
    for step in [1, 2, 3, 5, 7, 64, 1000, wire.len()] {
        let mut client = Client::connected(config(ProtocolVersion::V5));
        for chunk in wire.chunks(step) {
            client.receive_bytes(chunk).unwrap();
        }
        let sizes: Vec<_> = client
            .messages()
            .iter()
            .map(|message| message.payload().len())
            .collect();
        assert_eq!(sizes, [0, 1, 100, 200, 20_000], "in steps of {step}");
    }
}

/// Which way a driver lets messages go that need nothing but to be handed on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PlainWay {
    TheirOwn,
    WithTheOthers,
}

/// What a driver sees that handles messages as they are handed to it, and events after that.
fn received_directly(
    client: &mut Client,
    chunk: &[u8],
    way: PlainWay,
) -> (Vec<String>, Result<(), ConnectionError>) {
    let mut seen = Vec::new();
    let mut input = Bytes::copy_from_slice(chunk);
    if way == PlainWay::TheirOwn
        && let Some(mut plain) = client.session.plain_messages(client.now)
    {
        match plain.take(input) {
            Ok(message) => return (vec![format!("{message:?}")], Ok(())),
            Err(other) => input = other,
        }
    }
    loop {
        let mut direct = 0;
        let progress =
            client
                .session
                .handle_input_with(&mut input, client.now, &mut |message: Message| {
                    direct += 1;
                    seen.push(format!("{message:?}"));
                });
        let events = client.events();
        assert!(direct + events.len() <= client.session.config().max_pending_events + 1);
        seen.extend(events.iter().map(|event| match event {
            Event::Message(message) => format!("{message:?}"),
            event => format!("{event:?}"),
        }));
        match progress {
            Ok(InputProgress::DrainEvents) => assert!(direct + events.len() > 0),
            Ok(InputProgress::NeedsMoreInput) => return (seen, Ok(())),
            Err(error) => return (seen, Err(error)),
        }
    }
}

#[test]
fn messages_handed_straight_on_keep_their_place_among_the_events() {
    for version in VERSIONS {
        let mut wire = BytesMut::new();
        let mut ends = vec![0];
        for number in 0..9_u8 {
            let payload = [number; 10];
            let publish = PublishRef {
                qos: QoS::from_u8(number % 3).unwrap(),
                packet_id: (number % 3 > 0).then(|| id(u16::from(number))),
                ..PublishRef::new(TopicName::new("t").unwrap(), &payload)
            };
            publish.encode(version, &mut wire).unwrap();
            ends.push(wire.len());
            if number % 4 == 3 {
                let ack = AckRef::new(id(u16::from(number / 4 + 1)));
                PacketRef::Puback(ack).encode(version, &mut wire).unwrap();
                ends.push(wire.len());
            }
        }
        // And an end that is an error, behind messages that are none.
        PacketRef::Pingreq.encode(version, &mut wire).unwrap();
        ends.push(wire.len());
        let packets: Vec<&[u8]> = ends
            .windows(2)
            .map(|ends| &wire[ends[0]..ends[1]])
            .collect();
        let steps = [1, 2, 3, 7, 20, wire.len()];
        let cuts = steps.map(|step| wire.chunks(step).collect());
        let cuts = cuts.into_iter().chain([packets]);
        let ways = [PlainWay::TheirOwn, PlainWay::WithTheOthers];
        for (chunks, way) in cuts.flat_map(|cut: Vec<&[u8]>| ways.map(|way| (cut.clone(), way))) {
            let connected = || {
                let mut config = config(version);
                config.max_pending_events = 3;
                let mut client = Client::connected(config);
                client.publish("first", QoS::AtLeastOnce);
                client.publish("second", QoS::AtLeastOnce);
                client.sent_words();
                client.events();
                client
            };
            let (mut queued, mut direct) = (connected(), connected());
            let (mut expected, mut seen) = (Vec::new(), Vec::new());
            for &chunk in &chunks {
                let mut input = Bytes::copy_from_slice(chunk);
                let ended = loop {
                    let progress = queued.session.handle_input(&mut input, queued.now);
                    expected.extend(queued.events().iter().map(|event| match event {
                        Event::Message(message) => format!("{message:?}"),
                        event => format!("{event:?}"),
                    }));
                    match progress {
                        Ok(InputProgress::DrainEvents) => {}
                        Ok(InputProgress::NeedsMoreInput) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                };
                let (now_seen, error) = received_directly(&mut direct, chunk, way);
                seen.extend(now_seen);
                assert_eq!(error, ended);
            }
            assert_eq!(seen, expected, "{version:?}, {way:?}, {chunks:?}");
            assert!(seen.iter().any(|event| event.starts_with("Disconnected")));
            assert_eq!(direct.session.stats(), queued.session.stats());
        }
    }
}

#[test]
fn messages_handed_straight_on_are_bounded_as_events_are() {
    let mut config = config(ProtocolVersion::V311);
    config.max_pending_events = 4;
    let mut client = Client::connected(config);
    client.events();
    let mut wire = BytesMut::new();
    for _ in 0..10 {
        PublishRef::new(TopicName::new("t").unwrap(), b"")
            .encode(ProtocolVersion::V311, &mut wire)
            .unwrap();
    }
    let mut input = wire.freeze();
    let mut calls = Vec::new();
    loop {
        let mut handed = 0;
        let progress =
            client
                .session
                .handle_input_with(&mut input, client.now, &mut |_: Message| handed += 1);
        calls.push(handed);
        if progress == Ok(InputProgress::NeedsMoreInput) {
            break;
        }
    }
    assert_eq!(calls, [4, 4, 2]);
}

#[test]
fn whole_packets_are_not_copied() {
    let mut client = Client::connected(config(ProtocolVersion::V5));
    client.events();
    let mut wire = BytesMut::new();
    PublishRef::new(TopicName::new("t").unwrap(), &[1; 5000])
        .encode(ProtocolVersion::V5, &mut wire)
        .unwrap();
    let wire: Bytes = wire.freeze();
    let range = wire.as_ptr_range();
    let mut input = wire.clone();
    assert_eq!(
        client.session.handle_input(&mut input, client.now),
        Ok(InputProgress::NeedsMoreInput)
    );
    let message = client.messages().remove(0);
    assert!(range.contains(&message.payload_bytes().as_ptr()));
}
