//! Messages that cannot be taken do not end in a loop of reconnects.

mod common;

use bytes::BytesMut;
use common::{Client, VERSIONS, config, id, resuming};
use mqtt_codec::{
    AckRef, PacketRef, ProtocolVersion, PublishRef, QoS, ReasonCode, ReasonCodes, SubackRef,
    TopicName,
};
use mqtt_session::{
    ConnectionError, Event, OversizedInbound, SkipReason, SkippedMessage, TransportEnd,
};

fn skipped(client: &mut Client) -> Vec<SkippedMessage> {
    let events = client.events();
    events
        .into_iter()
        .filter_map(|event| {
            if let Event::MessageSkipped(skipped) = event {
                Some(*skipped)
            } else {
                None
            }
        })
        .collect()
}

fn big(version: ProtocolVersion, qos: QoS, size: usize) -> BytesMut {
    let mut wire = BytesMut::new();
    let payload = vec![7; size];
    let packet_id = (qos != QoS::AtMostOnce).then(|| id(9));
    let publish = PublishRef {
        qos,
        packet_id,
        ..PublishRef::new(TopicName::new("some/topic").unwrap(), &payload)
    };
    publish.encode(version, &mut wire).unwrap();
    wire
}

#[test]
fn a_message_that_is_too_large_is_skipped_acknowledged_and_reported() {
    for version in VERSIONS {
        let answers = match version {
            ProtocolVersion::V5 => [vec![], vec!["PUBACK #9 83"], vec!["PUBREC #9 83"]],
            _ => [vec![], vec!["PUBACK #9"], vec!["PUBREC #9"]],
        };
        for (qos, answer) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
            .into_iter()
            .zip(answers)
        {
            for step in [1, 3, 20, 1000, 10_000] {
                let mut config = config(version);
                config.maximum_packet_size = 200;
                let mut client = Client::connected(config);
                client.events();
                let mut wire = big(version, qos, 3000);
                let len = wire.len();
                PublishRef::new(TopicName::new("next").unwrap(), b"after")
                    .encode(version, &mut wire)
                    .unwrap();
                for chunk in wire.chunks(step) {
                    client.receive_bytes(chunk).unwrap();
                }
                let events = client.events();
                let [Event::MessageSkipped(skipped), Event::Message(next)] = events.as_slice()
                else {
                    panic!("{events:?}")
                };
                assert_eq!(
                    (skipped.topic.as_str(), skipped.packet_len, skipped.qos),
                    ("some/topic", len, qos)
                );
                assert_eq!(skipped.reason, SkipReason::TooLarge);
                assert_eq!(next.payload(), b"after");
                assert_eq!(
                    client.sent_words(),
                    answer,
                    "{version:?} {qos:?} in steps of {step}"
                );
            }
        }
    }
}

#[test]
fn a_skipped_qos_2_message_goes_through_its_exchange() {
    let mut config = resuming(ProtocolVersion::V311);
    config.maximum_packet_size = 200;
    let mut client = Client::connected(config);
    let wire = big(ProtocolVersion::V311, QoS::ExactlyOnce, 3000);
    client.receive_bytes(&wire).unwrap();
    client.sent();
    client.close(TransportEnd::Failed);
    client.connect_with(true, &[]);
    client.receive_bytes(&wire).unwrap();
    assert_eq!(client.sent_words(), ["PUBREC #9"]);
    client
        .receive(PacketRef::Pubrel(AckRef::new(id(9))))
        .unwrap();
    assert_eq!(client.sent_words(), ["PUBCOMP #9"]);
    assert_eq!(skipped(&mut client).len(), 1, "reported once");
    assert_eq!(client.session.stats().held_messages, 0);
}

#[test]
fn a_large_message_ends_the_connection_if_told_so_and_other_large_packets_always_do() {
    for (rule, is_publish) in [
        (OversizedInbound::Disconnect, true),
        (OversizedInbound::Skip, false),
    ] {
        let mut config = config(ProtocolVersion::V5);
        config.maximum_packet_size = 200;
        config.oversized_inbound = rule;
        let mut client = Client::connected(config);
        let wire = if is_publish {
            big(ProtocolVersion::V5, QoS::AtLeastOnce, 300)
        } else {
            let codes = vec![ReasonCode::Success; 300];
            let suback = SubackRef {
                packet_id: id(1),
                properties: mqtt_codec::Properties::EMPTY,
                reason_codes: ReasonCodes::list(&codes),
            };
            let mut wire = BytesMut::new();
            PacketRef::Suback(suback)
                .encode(ProtocolVersion::V5, &mut wire)
                .unwrap();
            wire
        };
        assert!(matches!(
            client.receive_bytes(&wire),
            Err(ConnectionError::Malformed(_))
        ));
        assert_eq!(client.sent_words(), ["DISCONNECT 95"]);
    }
}

#[test]
fn a_packet_of_just_the_maximum_is_taken() {
    for version in VERSIONS {
        let mut wire = big(version, QoS::AtLeastOnce, 300);
        let mut config = config(version);
        config.maximum_packet_size = wire.len() as u32;
        let mut client = Client::connected(config.clone());
        client.receive_bytes(&wire).unwrap();
        assert_eq!(client.messages().len(), 1);
        wire = big(version, QoS::AtLeastOnce, 301);
        client.receive_bytes(&wire).unwrap();
        assert_eq!(skipped(&mut client).len(), 1);
    }
}

#[test]
fn a_malformed_message_ends_the_connection_once_and_is_then_skipped() {
    for version in VERSIONS {
        let mut client = Client::connected(resuming(version));
        let bad = |dup: u8, last: u8| -> Vec<u8> {
            let properties: &[u8] = if version == ProtocolVersion::V5 {
                &[0]
            } else {
                &[]
            };
            let mut frame = vec![0x32 | dup << 3, 0, 0, 2, b'a', 0xff, 0, 5];
            frame.extend_from_slice(properties);
            frame.push(last);
            frame[1] = frame.len() as u8 - 2;
            frame
        };
        let mut ended = 0;
        for (dup, step) in [(0, 100), (1, 100), (1, 1)] {
            let mut result = Ok(());
            for chunk in bad(dup, 1).chunks(step) {
                result = client.receive_bytes(chunk);
            }
            if result.is_err() {
                ended += 1;
                client.sent();
                client.connect_with(true, &[]);
            }
        }
        assert_eq!(ended, 1);
        let skipped = skipped(&mut client);
        assert_eq!(skipped.len(), 2);
        assert!(matches!(skipped[0].reason, SkipReason::Undecodable(_)));
        assert_eq!(
            (skipped[0].topic.as_str(), skipped[0].qos),
            ("a\u{fffd}", QoS::AtLeastOnce)
        );
        let answer = if version == ProtocolVersion::V5 {
            "PUBACK #5 83"
        } else {
            "PUBACK #5"
        };
        assert_eq!(client.sent_words(), [answer, answer]);
        assert!(
            client.receive_bytes(&bad(0, 2)).is_err(),
            "another one is judged anew"
        );
    }
}
