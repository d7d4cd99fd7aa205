//! A broker that sends anything at all: no panic, bounded memory, and the session can always go on.

mod common;

use common::{Client, config, id};
use mqtt_codec::{
    AckRef, ConnackRef, PacketRef, ProtocolVersion, PublishRef, QoS, ReasonCode, TopicName,
};
use mqtt_session::{Event, Publish, Subscription, TransportEnd};
use proptest::prelude::*;

/// Packets of a server, with identifiers that may or may not mean something, and rubbish.
fn piece(version: ProtocolVersion) -> impl Strategy<Value = Vec<u8>> {
    let encode = move |packet: PacketRef<'_>| {
        let mut wire = Vec::new();
        packet
            .encode(version, &mut wire)
            .map(|()| wire)
            .unwrap_or_default()
    };
    let number = prop_oneof![1..6_u16, 65_519..=65_535_u16];
    prop_oneof![
        (0..3_u8, number.clone(), any::<bool>(), 0..50_usize).prop_map(
            move |(qos, number, dup, size)| {
                let qos = QoS::from_u8(qos).unwrap();
                let is_zero = qos == QoS::AtMostOnce;
                let payload = vec![0; size];
                let publish = PublishRef::new(TopicName::new("t").unwrap(), &payload);
                encode(PacketRef::Publish(PublishRef {
                    qos,
                    dup: dup && !is_zero,
                    packet_id: (!is_zero).then(|| id(number)),
                    ..publish
                }))
            }
        ),
        (0..4_u8, number, any::<bool>()).prop_map(move |(kind, number, fails)| {
            let mut ack = AckRef::new(id(number));
            if fails && version == ProtocolVersion::V5 {
                ack.reason_code = if kind < 2 {
                    ReasonCode::NotAuthorized
                } else {
                    ReasonCode::PacketIdentifierNotFound
                };
            }
            encode(match kind {
                0 => PacketRef::Puback(ack),
                1 => PacketRef::Pubrec(ack),
                2 => PacketRef::Pubrel(ack),
                _ => PacketRef::Pubcomp(ack),
            })
        }),
        Just(vec![0xd0, 0]),
        proptest::collection::vec(any::<u8>(), 0..20),
        (
            0x20..=0xff_u8,
            proptest::collection::vec(any::<u8>(), 0..100)
        )
            .prop_map(|(first, body)| {
                let mut frame = vec![first, body.len() as u8];
                frame.extend(body);
                frame
            }),
    ]
}

fn pieces() -> impl Strategy<Value = (ProtocolVersion, Vec<Vec<u8>>)> {
    prop_oneof![Just(ProtocolVersion::V311), Just(ProtocolVersion::V5)].prop_flat_map(|version| {
        (
            Just(version),
            proptest::collection::vec(piece(version), 0..40),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn anything_is_survived((version, pieces) in pieces(), step in 1..40_usize) {
        let mut config = config(version);
        config.maximum_packet_size = 100;
        config.max_held_messages = 10;
        config.receive_maximum = 8.try_into().unwrap();
        config.max_pending_replies = 20;
        let mut client = Client::connected(config);
        let mut tokens = Vec::new();
        for piece in pieces {
            let _ = client.session.publish(Publish::new("t", "m", QoS::ExactlyOnce), client.now);
            let _ = client.session.subscribe(&[Subscription::new("f", QoS::AtLeastOnce)], client.now);
            client.sent();
            let mut failed = false;
            for chunk in piece.chunks(step) {
                failed |= client.receive_bytes(chunk).is_err();
            }
            let mut ends = 0;
            for event in client.events() {
                match event {
                    Event::Message(mut message) => tokens.extend(message.take_ack_token()),
                    Event::Disconnected(_) | Event::ConnectRefused(_) => ends += 1,
                    _ => {}
                }
            }
            prop_assert!(ends <= 1 && (ends == 1 || !failed));
            if tokens.len() > 5 {
                let _ = client.session.acknowledge(tokens.swap_remove(2));
            }
            let stats = client.session.stats();
            prop_assert!(stats.held_messages <= 10);
            prop_assert!(stats.packet_ids_in_use >= stats.in_flight_messages);
            if ends == 1 {
                client.sent();
                client.connect(ConnackRef::new(ReasonCode::Success));
            }
        }
        client.close(TransportEnd::Failed);
        client.connect(ConnackRef::new(ReasonCode::Success));
        let is_connected = client.events().iter().any(|event| matches!(event, Event::Connected(_)));
        prop_assert!(is_connected);
    }
}
