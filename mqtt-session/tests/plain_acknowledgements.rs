//! Acknowledgements that are taken by themselves: that it is the same as if they had come with all else.

mod common;

use core::time::Duration;

use bytes::{Bytes, BytesMut};
use common::{Client, VERSIONS, config, id, resuming};
use mqtt_codec::{AckRef, ConnackRef, Packet, PacketRef, ProtocolVersion, QoS, ReasonCode};
use mqtt_session::{
    Config, ConnectionError, Event, InputProgress, Persistence, PublishId, PublishOutcome,
    TransportEnd,
};
use proptest::prelude::*;

const DELIVERED: PublishOutcome = PublishOutcome::Delivered(ReasonCode::Success);

fn take(client: &mut Client, chunk: &mut Bytes) -> Option<PublishId> {
    let mut plain = client.session.plain_acknowledgements(client.now)?;
    plain.take(chunk)
}

#[test]
//= test MQTT-4.3.2-3
//= test MQTT-4.3.3-5
//= test MQTT-4.4.0-2
fn a_burst_of_them_ends_a_burst_of_publishes() {
    for version in VERSIONS {
        let mut client = Client::connected(config(version));
        let one = client.publish("one", QoS::AtLeastOnce);
        let two = client.publish("two", QoS::ExactlyOnce);
        let other = client.publish("other", QoS::AtLeastOnce);
        client.sent();
        client
            .receive(PacketRef::Pubrec(AckRef::new(id(2))))
            .unwrap();
        client.sent();
        client.events();
        let acks = [0x40, 2, 0, 3, 0x70, 2, 0, 2, 0x40, 2, 0, 1, 0x40, 2, 0];
        let mut chunk = Bytes::copy_from_slice(&acks);
        let ended: Vec<_> = core::iter::from_fn(|| take(&mut client, &mut chunk)).collect();
        assert_eq!(ended, [other, two, one]);
        assert_eq!(chunk, &acks[12..], "what is not all there is left");
        assert!(client.events().is_empty(), "all is told already");
        let stats = client.session.stats();
        assert_eq!((stats.in_flight_messages, stats.in_flight_bytes), (0, 0));
        assert_eq!(client.session.packet_ids_in_use(), 0);
    }
}

#[test]
fn whatever_needs_a_closer_look_is_left() {
    for version in VERSIONS {
        let mut client = Client::connected(config(version));
        client.publish("at least once", QoS::AtLeastOnce);
        client.publish("exactly once", QoS::ExactlyOnce);
        client.sent();
        client.events();
        let others: [&[u8]; 9] = [
            &[0x40, 2, 0, 2],
            &[0x40, 2, 0, 3],
            &[0x40, 2, 0, 0],
            &[0x41, 2, 0, 1],
            &[0x40, 3, 0, 1, 0],
            &[0x50, 2, 0, 2],
            &[0x70, 2, 0, 1],
            &[0xd0, 0],
            &[],
        ];
        for other in others {
            let mut chunk = Bytes::copy_from_slice(other);
            assert_eq!(take(&mut client, &mut chunk), None, "{other:?}");
            assert_eq!(chunk, other);
        }
        // The beginning of a packet is kept, and this would be its end.
        client.receive_bytes(&[0x40, 2]).unwrap();
        assert!(client.session.plain_acknowledgements(client.now).is_none());

        let mut keeping = config(version);
        keeping.persistence = Persistence::On;
        let mut client = Client::connected(keeping);
        assert!(client.session.plain_acknowledgements(client.now).is_none());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish(QoS),
    /// What the broker owes, this many packets in one chunk, the newest first or the oldest.
    Answer {
        packets: usize,
        newest: bool,
    },
    /// Bytes that are an acknowledgement, or nearly.
    Stray {
        first: u8,
        id: u16,
        reason: Option<u8>,
    },
    /// The rest of what the broker sends arrives cut.
    Cut(usize),
    Transmit(usize),
    Reconnect(TransportEnd, bool),
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let first = prop_oneof![
        4 => Just(0x40_u8),
        2 => Just(0x50_u8),
        4 => Just(0x70_u8),
        1 => any::<u8>(),
    ];
    let end = prop_oneof![Just(TransportEnd::Failed), Just(TransportEnd::ClosedByPeer)];
    prop_oneof![
        8 => Just(Step::Publish(QoS::AtLeastOnce)),
        6 => Just(Step::Publish(QoS::ExactlyOnce)),
        2 => Just(Step::Publish(QoS::AtMostOnce)),
        12 => (1..6_usize, any::<bool>()).prop_map(|(packets, newest)| Step::Answer { packets, newest }),
        1 => (first, 0..6_u16, proptest::option::of(any::<u8>()))
            .prop_map(|(first, id, reason)| Step::Stray { first, id, reason }),
        2 => (1..6_usize).prop_map(Step::Cut),
        10 => (1..100_usize).prop_map(Step::Transmit),
        2 => (end, any::<bool>()).prop_map(|(end, present)| Step::Reconnect(end, present)),
        1 => any::<u16>().prop_map(Step::Pass),
    ]
}

/// What a driver sees of a chunk: all that is reported, and how it ended.
fn received(
    client: &mut Client,
    chunk: &[u8],
    is_plain: bool,
) -> (Vec<String>, Result<(), ConnectionError>) {
    let mut seen = Vec::new();
    let mut chunk = Bytes::copy_from_slice(chunk);
    loop {
        if is_plain && let Some(mut plain) = client.session.plain_acknowledgements(client.now) {
            while let Some(id) = plain.take(&mut chunk) {
                let outcome = DELIVERED;
                seen.push(format!("{:?}", Event::PublishCompleted { id, outcome }));
            }
        }
        let progress = client.session.handle_input(&mut chunk, client.now);
        seen.extend(client.events().iter().map(|event| format!("{event:?}")));
        match progress {
            Ok(InputProgress::DrainEvents) => {}
            Ok(InputProgress::NeedsMoreInput) => return (seen, Ok(())),
            Err(error) => return (seen, Err(error)),
        }
    }
}

/// What the broker would answer, in the order in which it was asked.
fn answers(written: &mut BytesMut, version: ProtocolVersion) -> Vec<[u8; 4]> {
    let mut decoder = mqtt_codec::Decoder::new(version);
    let mut answers = Vec::new();
    while let Some(packet) = decoder.decode(written).unwrap() {
        let (first, id) = match packet {
            Packet::Publish(publish) => match (publish.qos(), publish.packet_id()) {
                (QoS::AtLeastOnce, Some(id)) => (0x40, id),
                (QoS::ExactlyOnce, Some(id)) => (0x50, id),
                _ => continue,
            },
            Packet::Pubrel(ack) => (0x70, ack.packet_id()),
            _ => continue,
        };
        let [high, low] = id.value().to_be_bytes();
        answers.push([first, 2, high, low]);
    }
    answers
}

fn configured(version: ProtocolVersion, window: u16) -> Config {
    let mut config = resuming(version);
    config.max_in_flight = window.try_into().unwrap();
    config.max_pending_events = 3;
    config.quarantine_after = 3.try_into().unwrap();
    config
}

fn connect(client: &mut Client, session_present: bool) -> Vec<String> {
    client.connect(ConnackRef {
        session_present,
        ..ConnackRef::new(ReasonCode::Success)
    });
    client
        .events()
        .iter()
        .map(|event| format!("{event:?}"))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Two sessions in the same history, of which one takes acknowledgements by themselves where it may. What they report and
    /// what they write is the same.
    #[test]
    fn it_is_what_any_other_input_does(
        v5 in any::<bool>(),
        window in 1..6_u16,
        steps in proptest::collection::vec(step(), 0..150),
    ) {
        let version = if v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        let mut pair = [0, 1].map(|_| Client::connected(configured(version, window)));
        let mut owed: Vec<[u8; 4]> = Vec::new();
        let mut cut = usize::MAX;
        let mut number = 0;
        for step in steps {
            number += 1;
            let mut wire = Vec::new();
            match step {
                Step::Publish(qos) => for client in &mut pair {
                    client.publish(&number.to_string(), qos);
                },
                Step::Answer { packets, newest } => for _ in 0..packets.min(owed.len()) {
                    let at = if newest { owed.len() - 1 } else { 0 };
                    wire.extend_from_slice(&owed.remove(at));
                },
                Step::Stray { first, id, reason } => {
                    wire.extend_from_slice(&[first, 2 + u8::from(reason.is_some())]);
                    wire.extend_from_slice(&id.to_be_bytes());
                    wire.extend(reason);
                }
                Step::Cut(at) => cut = at,
                Step::Transmit(limit) => {
                    let mut written = pair.each_mut().map(|client| {
                        let mut out = BytesMut::new();
                        client.session.poll_transmit(&mut out, limit, client.now);
                        out
                    });
                    prop_assert_eq!(&written[0], &written[1]);
                    owed.extend(answers(&mut written[0], version));
                }
                Step::Reconnect(end, present) => {
                    owed.clear();
                    cut = usize::MAX;
                    let seen = pair.each_mut().map(|client| {
                        client.close(end);
                        connect(client, present)
                    });
                    prop_assert_eq!(&seen[0], &seen[1]);
                }
                Step::Pass(millis) => for client in &mut pair {
                    client.pass(Duration::from_millis(u64::from(millis)));
                },
            }
            for chunk in wire.chunks(cut.min(wire.len().max(1))) {
                let [plain, other] = &mut pair;
                let (seen, ended) = received(plain, chunk, true);
                prop_assert_eq!((seen, ended), received(other, chunk, false));
                if ended.is_err() {
                    owed.clear();
                    let seen = pair.each_mut().map(|client| connect(client, true));
                    prop_assert_eq!(&seen[0], &seen[1]);
                    break;
                }
            }
            let seen = pair.each_mut().map(|client| format!("{:?}", client.events()));
            prop_assert_eq!(&seen[0], &seen[1]);
            let stats = pair.each_ref().map(|client| client.session.stats());
            prop_assert_eq!(stats[0], stats[1]);
            let timeouts = pair.each_ref().map(|client| client.session.poll_timeout());
            prop_assert_eq!(timeouts[0], timeouts[1]);
        }
    }
}
