//! Which messages are accepted to be published, for how long, in which form, and within which bounds.

mod common;

use core::time::Duration;

use bytes::Bytes;
use common::{Client, VERSIONS, config, id, resuming};
use mqtt_codec::{AckRef, Packet, PacketRef, Property, ProtocolVersion, QoS, ReasonCode};
use mqtt_session::{Publish, PublishErrorReason, PublishOutcome, Retain, TransportEnd};

fn ack(number: u16) -> AckRef<'static> {
    AckRef::new(id(number))
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
