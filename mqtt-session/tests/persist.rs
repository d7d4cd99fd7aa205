//! Records: what leaves the session before which byte, and what a later process makes of them.

mod common;

use core::time::Duration;
use std::collections::BTreeMap;

use common::{Client, VERSIONS, id, resuming, token};
use mqtt_codec::{AckRef, PacketRef, ProtocolVersion, QoS, ReasonCode};
use mqtt_session::{
    Acknowledged, Config, Disconnect, Event, Persistence, Publish, PublishId, PublishOutcome,
    RecordKey, RecordValue, RestoreError, SentProgress, Session, Subscription, TransportEnd,
};

type Store = BTreeMap<RecordKey, RecordValue>;

fn durable(version: ProtocolVersion) -> Config {
    let mut config = resuming(version);
    config.persistence = Persistence::On;
    config
}

/// Stores all that has changed. Returns whether there was anything.
fn store(client: &mut Client, store: &mut Store) -> bool {
    let Some(batch) = client.session.poll_persist() else {
        return false;
    };
    for (key, value) in batch.changes {
        match value {
            Some(value) => drop(store.insert(key, value)),
            None => drop(store.remove(&key)),
        }
    }
    client.session.handle_persisted(batch.sequence);
    true
}

fn connected(version: ProtocolVersion) -> (Client, Store) {
    let mut client = Client::connected(durable(version));
    let mut records = Store::new();
    assert!(store(&mut client, &mut records));
    assert!(
        !store(&mut client, &mut records),
        "nothing changes by itself"
    );
    client.events();
    (client, records)
}

/// Asserts that this is sent, but only once what has changed is stored.
fn sent_after_storing(client: &mut Client, records: &mut Store, expected: &[&str]) {
    assert!(
        client.sent().is_empty(),
        "{expected:?} before its state was stored"
    );
    let batch = client.session.poll_persist().expect("a change to store");
    assert!(
        client.sent().is_empty(),
        "{expected:?} while its state was being stored"
    );
    for (key, value) in batch.changes {
        match value {
            Some(value) => drop(records.insert(key, value)),
            None => drop(records.remove(&key)),
        }
    }
    client.session.handle_persisted(batch.sequence);
    assert_eq!(client.sent_words(), expected);
}

fn restart(config: Config, records: &Store, away: Duration) -> Client {
    let mut client = Client::new(config.clone());
    client.session = Session::restore(config, records.clone(), away, client.now).unwrap();
    client
}

#[test]
fn no_byte_leaves_before_the_state_that_it_depends_on() {
    for version in VERSIONS {
        let (mut client, mut records) = connected(version);
        let publish = client.publish("up", QoS::ExactlyOnce);
        sent_after_storing(&mut client, &mut records, &["PUBLISH q2 #1 up"]);
        let events = client.events();
        assert!(
            events
                .iter()
                .any(|event| matches!(event, Event::PublishStored { id } if *id == publish)),
            "{events:?}"
        );
        client
            .receive(PacketRef::Pubrec(AckRef::new(id(1))))
            .unwrap();
        sent_after_storing(&mut client, &mut records, &["PUBREL #1"]);
        client
            .receive(PacketRef::Pubcomp(AckRef::new(id(1))))
            .unwrap();
        store(&mut client, &mut records);

        let token = token(client.deliver(QoS::ExactlyOnce, 5, "down"));
        assert!(
            !store(&mut client, &mut records),
            "the application has not decided"
        );
        assert_eq!(client.session.acknowledge(token), Acknowledged::Accepted);
        sent_after_storing(&mut client, &mut records, &["PUBREC #5"]);
        client
            .receive(PacketRef::Pubrel(AckRef::new(id(5))))
            .unwrap();
        sent_after_storing(&mut client, &mut records, &["PUBCOMP #5"]);
        assert_eq!(
            records.keys().collect::<Vec<_>>(),
            [&RecordKey::Session],
            "nothing is left"
        );
    }
}

#[test]
fn what_depends_on_nothing_new_does_not_wait() {
    let (mut client, _) = connected(ProtocolVersion::V5);
    client.publish("zero", QoS::AtMostOnce);
    assert_eq!(client.sent_words(), ["PUBLISH q0 zero"]);
    client.pass(Duration::from_secs(60));
    assert_eq!(client.sent_words(), ["PINGREQ"]);
}

#[test]
fn a_disconnect_does_not_overtake_what_waits() {
    let (mut client, mut records) = connected(ProtocolVersion::V311);
    client.publish("one", QoS::AtLeastOnce);
    assert!(client.sent().is_empty());
    client
        .session
        .disconnect(Disconnect::default(), client.now)
        .unwrap();
    store(&mut client, &mut records);
    assert_eq!(client.sent_words(), ["PUBLISH q1 #1 one", "DISCONNECT 00"]);
    assert!(
        client
            .events()
            .iter()
            .any(|event| matches!(event, Event::Disconnected(_)))
    );
}

#[test]
fn nothing_is_reported_as_written_before_it_may_leave() {
    for version in VERSIONS {
        let (mut client, mut records) = connected(version);
        client.publish("zero", QoS::AtMostOnce);
        let one = client.publish("one", QoS::AtLeastOnce);
        assert!(client.sent().is_empty());
        let events = client.events();
        assert!(events.is_empty(), "{events:?}");
        store(&mut client, &mut records);
        let events = client.events();
        assert!(
            matches!(&events[..], [Event::PublishStored { id }] if *id == one),
            "{events:?}"
        );
        assert_eq!(
            client.sent_words(),
            ["PUBLISH q0 zero", "PUBLISH q1 #1 one"]
        );
        let events = client.events();
        assert!(
            matches!(&events[..], [
                Event::PublishCompleted { outcome: PublishOutcome::Written, .. },
                Event::PublishWritten { id },
            ] if *id == one),
            "{events:?}"
        );

        client.publish("lost", QoS::AtMostOnce);
        client.publish("two", QoS::AtLeastOnce);
        assert!(client.sent().is_empty());
        client.close(TransportEnd::Failed);
        let events = client.events();
        assert!(
            matches!(
                &events[..],
                [Event::PublishCompleted { .. }, Event::Disconnected(_)]
            ),
            "{events:?}"
        );
        store(&mut client, &mut records);
        client.connect_with(true, &[]);
        store(&mut client, &mut records);
        let sent = client.sent_words();
        assert!(
            sent.contains(&"PUBLISH q1 #2 two".to_owned())
                || sent.contains(&"PUBLISH dup q1 #1 one".to_owned()),
            "{sent:?}"
        );
        client.puback(1);
        store(&mut client, &mut records);
        let sent = [sent, client.sent_words()].concat();
        assert!(
            sent.contains(&"PUBLISH q1 #2 two".to_owned()),
            "it has never been sent, so it is no duplicate: {sent:?}"
        );
        let written = client
            .events()
            .iter()
            .filter(|event| matches!(event, Event::PublishWritten { .. }))
            .count();
        assert_eq!(written, 1);
    }
}

#[test]
fn a_disconnect_is_written_to_its_end_one_packet_a_call() {
    let (mut client, mut records) = connected(ProtocolVersion::V5);
    let taken = token(client.deliver(QoS::AtLeastOnce, 5, "down"));
    assert_eq!(client.session.acknowledge(taken), Acknowledged::Accepted);
    client
        .session
        .disconnect(Disconnect::default(), client.now)
        .unwrap();
    store(&mut client, &mut records);
    let mut types = Vec::new();
    loop {
        let mut out = bytes::BytesMut::new();
        if client.session.poll_transmit(&mut out, 1, client.now) == 0 {
            break;
        }
        let told = client.session.poll_event();
        let is_over = matches!(told, Some(Event::Disconnected(_)));
        assert_eq!(is_over, out[0] >> 4 == 14, "{told:?}");
        types.push(out[0] >> 4);
    }
    assert_eq!(types, [4, 14]);
}

/// Killed between the two, the next process would confirm what the broker has kept, and nobody would get it.
#[test]
fn that_something_is_subscribed_to_is_told_once_it_is_stored() {
    for version in VERSIONS {
        let (mut client, mut records) = connected(version);
        client
            .session
            .subscribe(&[Subscription::new("a", QoS::AtLeastOnce)], client.now)
            .unwrap();
        client.sent();
        let is_told = |client: &mut Client| {
            let events = client.events();
            let mut events = events.iter();
            events.any(|event| matches!(event, Event::SubscribeCompleted { .. }))
        };
        client.suback(65_520, &[ReasonCode::GrantedQoS1]);
        assert!(!is_told(&mut client));
        // The end of the connection changes nothing about it.
        client
            .session
            .transport_closed(TransportEnd::Failed, client.now);
        assert!(!is_told(&mut client));
        assert!(store(&mut client, &mut records));
        assert!(is_told(&mut client));
        assert!(records.contains_key(&RecordKey::Subscription("a".into())));
    }
}

#[test]
fn the_next_process_goes_on_where_the_last_stopped() {
    for version in VERSIONS {
        let (mut client, mut records) = connected(version);
        client
            .session
            .subscribe(&[Subscription::new("a/#", QoS::AtLeastOnce)], client.now)
            .unwrap();
        client.sent();
        client.suback(65_520, &[ReasonCode::GrantedQoS1]);
        for (payload, qos) in [
            ("one", QoS::AtLeastOnce),
            ("two", QoS::ExactlyOnce),
            ("received", QoS::ExactlyOnce),
        ] {
            client.publish(payload, qos);
        }
        client.sent();
        store(&mut client, &mut records);
        client.sent();
        client
            .receive(PacketRef::Pubrec(AckRef::new(id(3))))
            .unwrap();
        let decided = token(client.deliver(QoS::ExactlyOnce, 7, "decided"));
        let undecided = token(client.deliver(QoS::ExactlyOnce, 8, "undecided"));
        let _ = client.session.acknowledge(decided);
        drop(undecided);
        let waiting = {
            let mut publish = Publish::new("t", "waiting", QoS::AtLeastOnce);
            publish.expiry = Some(Duration::from_secs(100));
            client.session.publish(publish, client.now).unwrap()
        };
        store(&mut client, &mut records);
        drop(client);

        let mut client = restart(durable(version), &records, Duration::from_secs(40));
        assert_eq!(client.session.subscriptions().len(), 1);
        assert_eq!(client.session.stats().in_flight_messages, 3);
        client.connect_with(true, &[]);
        let fresh = client.publish("new", QoS::AtLeastOnce);
        assert!(fresh > waiting, "identifiers go on");
        let mut sent = Vec::new();
        for _ in 0..20 {
            store(&mut client, &mut records);
            for packet in client.sent() {
                sent.push(common::words(&packet));
                match packet {
                    mqtt_codec::Packet::Publish(publish) if publish.qos() == QoS::AtLeastOnce => {
                        if publish.payload() == b"waiting" && version == ProtocolVersion::V5 {
                            assert_eq!(
                                publish.properties().message_expiry_interval(),
                                Some(60),
                                "aged while away"
                            );
                        }
                        client.puback(publish.packet_id().unwrap().value());
                    }
                    mqtt_codec::Packet::Publish(publish) => {
                        client
                            .receive(PacketRef::Pubrec(AckRef::new(publish.packet_id().unwrap())))
                            .unwrap();
                    }
                    mqtt_codec::Packet::Pubrel(pubrel) => client
                        .receive(PacketRef::Pubcomp(AckRef::new(pubrel.packet_id())))
                        .unwrap(),
                    mqtt_codec::Packet::Subscribe(_) => {
                        client.suback(65_520, &[ReasonCode::GrantedQoS1]);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        // The subscription is renewed, since the dead process may have been told of a lost session.
        let expected = [
            "SUBSCRIBE #65520 a/#",
            "PUBLISH dup q1 #1 one",
            "PUBLISH dup q2 #2 two",
            "PUBREL #3",
            "PUBREL #2",
            "PUBLISH q1 #4 waiting",
            "PUBLISH q1 #5 new",
        ];
        sent.sort_unstable();
        let mut expected = expected.map(str::to_owned);
        expected.sort_unstable();
        assert_eq!(sent, expected);
        let done = client.outcomes();
        assert_eq!(done, [PublishOutcome::Delivered(ReasonCode::Success); 5]);
        assert!(
            client.deliver(QoS::ExactlyOnce, 7, "decided").is_none(),
            "a duplicate"
        );
        assert!(
            client.deliver(QoS::ExactlyOnce, 8, "undecided").is_some(),
            "the application must see it again"
        );
    }
}

#[test]
fn records_that_make_no_session_are_refused() {
    let now = mqtt_session::Timestamp::ZERO;
    let restore = |records: Vec<(RecordKey, RecordValue)>| {
        Session::restore(durable(ProtocolVersion::V5), records, Duration::ZERO, now).err()
    };
    let message = |topic: &str, qos| RecordValue::Message {
        publish: Publish::new(topic, "", qos),
    };
    let progress = |packet_id| RecordValue::Progress {
        packet_id: id(packet_id),
        sent: SentProgress::Published,
    };
    let one = PublishId::from_value(1);
    let two = PublishId::from_value(2);
    assert_eq!(restore(vec![]), None);
    assert_eq!(
        restore(vec![(RecordKey::Session, progress(1))]),
        Some(RestoreError::WrongValue)
    );
    assert_eq!(
        restore(vec![(
            RecordKey::Message(one),
            message("a/#", QoS::AtLeastOnce)
        )]),
        Some(RestoreError::InvalidMessage)
    );
    assert_eq!(
        restore(vec![(
            RecordKey::Message(one),
            message("a", QoS::AtMostOnce)
        )]),
        Some(RestoreError::InvalidMessage)
    );
    let twice = |packet_id| {
        restore(vec![
            (RecordKey::Message(one), message("a", QoS::AtLeastOnce)),
            (RecordKey::Message(two), message("a", QoS::AtLeastOnce)),
            (RecordKey::Progress(one), progress(5)),
            (RecordKey::Progress(two), progress(packet_id)),
        ])
    };
    assert_eq!(
        restore(vec![(RecordKey::Progress(one), progress(1))]),
        Some(RestoreError::InvalidPacketId)
    );
    assert_eq!(
        restore(vec![(
            RecordKey::Message(PublishId::from_value(u64::MAX)),
            message("a", QoS::AtLeastOnce)
        )]),
        Some(RestoreError::InvalidMessage)
    );
    for (key, filter) in [
        ("a", "b"),
        ("", ""),
        ("a/#/b", "a/#/b"),
        ("$share/g", "$share/g"),
    ] {
        let value = RecordValue::Subscription {
            subscription: Subscription::new(filter, QoS::AtLeastOnce),
            id: None,
            granted: QoS::AtLeastOnce,
        };
        assert_eq!(
            restore(vec![(RecordKey::Subscription(key.into()), value)]),
            Some(RestoreError::InvalidSubscription),
            "{filter}"
        );
    }
    assert_eq!(twice(6), None);
    assert_eq!(twice(5), Some(RestoreError::InvalidPacketId));
    assert_eq!(twice(65_535), Some(RestoreError::InvalidPacketId));
}

#[test]
fn spurious_confirmations_are_harmless_and_off_means_off() {
    let (mut client, mut records) = connected(ProtocolVersion::V5);
    client.publish("one", QoS::AtLeastOnce);
    assert!(client.sent().is_empty());
    client.session.handle_persisted(u64::MAX);
    client.session.handle_persisted(0);
    sent_after_storing(&mut client, &mut records, &["PUBLISH q1 #1 one"]);

    let mut client = Client::connected(resuming(ProtocolVersion::V5));
    client.publish("one", QoS::AtLeastOnce);
    assert_eq!(client.session.poll_persist(), None);
    assert_eq!(client.sent().len(), 1);
}

#[test]
fn what_was_staged_for_a_dead_connection_is_not_sent_on_the_next() {
    let (mut client, mut records) = connected(ProtocolVersion::V5);
    client.publish("one", QoS::AtLeastOnce);
    assert!(client.sent().is_empty());
    client.close(TransportEnd::Failed);
    store(&mut client, &mut records);
    client.open();
    client
        .receive(PacketRef::Connack(mqtt_codec::ConnackRef {
            session_present: true,
            ..mqtt_codec::ConnackRef::new(ReasonCode::Success)
        }))
        .unwrap();
    assert_eq!(
        client.sent().len(),
        0,
        "the session record is not stored again yet"
    );
    store(&mut client, &mut records);
    assert_eq!(client.sent().len(), 1);
}

#[test]
fn one_write_of_the_store_serves_many_packets_however_they_are_taken() {
    let (mut client, mut records) = connected(ProtocolVersion::V5);
    for number in 0..10 {
        client.publish(&"x".repeat(number * 30), QoS::AtLeastOnce);
    }
    assert!(client.sent().is_empty());
    assert!(store(&mut client, &mut records));
    let mut packets = Vec::new();
    loop {
        let mut out = bytes::BytesMut::new();
        if client.session.poll_transmit(&mut out, 1, client.now) == 0 {
            break;
        }
        let packet = PacketRef::decode(&out, ProtocolVersion::V5).expect("one whole packet");
        let PacketRef::Publish(publish) = packet else {
            panic!("{packet:?}")
        };
        packets.push(publish.payload.len());
    }
    assert_eq!(
        packets,
        (0..10).map(|number| number * 30).collect::<Vec<_>>()
    );
}
