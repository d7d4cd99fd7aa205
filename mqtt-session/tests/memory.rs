//! What a session costs, in bytes and in allocations of the test's own thread.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use common::{Client, config};
use mqtt_codec::{
    AckRef, ConnackRef, PacketRef, Property, ProtocolVersion, PublishRef, QoS, ReasonCode,
    TopicName,
};
use mqtt_session::{Event, InputProgress, Publish, Session, Timestamp};

struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: forwards to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.set(LIVE.get() + layout.size().cast_signed());
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - layout.size().cast_signed());
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn live() -> isize {
    LIVE.get()
}

fn allocations() -> usize {
    COUNT.get()
}

/// Publishes `messages` with the window always full, acknowledging the oldest. Returns allocations per message.
fn steady_publishing(window: u16, messages: usize) -> f64 {
    let mut config = config(ProtocolVersion::V5);
    config.max_in_flight = window.try_into().unwrap();
    config.max_queued_messages = usize::from(window) + 10;
    let mut client = Client::new(config);
    client.connect_with(
        false,
        &[Property::ReceiveMaximum(window.try_into().unwrap())],
    );
    let topic: std::sync::Arc<str> = "a/topic/of/usual/length".into();
    let payload = Bytes::from_static(&[7; 64]);
    let mut out = BytesMut::with_capacity(1 << 20);
    let mut wire = BytesMut::with_capacity(64);
    let mut acknowledged = 0_usize;
    let mut before = 0;
    let mut ids = std::collections::VecDeque::with_capacity(usize::from(window) + 10);
    let mut decoder = mqtt_codec::Decoder::new(ProtocolVersion::V5);
    for number in 0..usize::from(window) + messages {
        if number == usize::from(window) + 100 {
            before = allocations();
        }
        client
            .session
            .publish(
                Publish::new(topic.clone(), payload.clone(), QoS::AtLeastOnce),
                client.now,
            )
            .unwrap();
        client
            .session
            .poll_transmit(&mut out, usize::MAX, client.now);
        while let Some((packet, len)) = decoder.decode_ref(&out).unwrap() {
            let PacketRef::Publish(publish) = packet else {
                panic!()
            };
            ids.push_back(publish.packet_id.unwrap());
            bytes::Buf::advance(&mut out, len);
        }
        out.clear();
        out.reserve(1 << 12);
        if ids.len() == usize::from(window) {
            PacketRef::Puback(AckRef::new(ids.pop_front().unwrap()))
                .encode(ProtocolVersion::V5, &mut wire)
                .unwrap();
            let mut input = Bytes::copy_from_slice(&wire);
            wire.clear();
            assert_eq!(
                client.session.handle_input(&mut input, client.now),
                Ok(InputProgress::NeedsMoreInput)
            );
            acknowledged += 1;
        }
        while client.session.poll_event().is_some() {}
    }
    assert!(acknowledged >= messages);
    // One allocation of each round is the test's own: the input.
    (allocations() - before) as f64 / (messages - 100) as f64 - 1.0
}

#[test]
fn a_session_costs_what_it_uses_and_not_what_the_protocol_allows() {
    // Idle, with every limit at the protocol's.
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let mut config = config(version);
        config.max_in_flight = 65_519.try_into().unwrap();
        config.receive_maximum = u16::MAX.try_into().unwrap();
        config.max_held_messages = u16::MAX;
        config.topic_alias_maximum = u16::MAX;
        config.max_outbound_aliases = u16::MAX;
        let before = live();
        let mut session = Session::new(config).unwrap();
        session.transport_opened(Timestamp::ZERO).unwrap();
        let mut out = BytesMut::new();
        session.poll_transmit(&mut out, 1000, Timestamp::ZERO);
        let mut wire = BytesMut::new();
        let maximum = [
            Property::ReceiveMaximum(u16::MAX.try_into().unwrap()),
            Property::TopicAliasMaximum(u16::MAX),
        ];
        let properties = if version == ProtocolVersion::V5 {
            mqtt_codec::Properties::list(&maximum)
        } else {
            mqtt_codec::Properties::EMPTY
        };
        PacketRef::Connack(ConnackRef {
            properties,
            ..ConnackRef::new(ReasonCode::Success)
        })
        .encode(version, &mut wire)
        .unwrap();
        let mut input = wire.freeze();
        assert_eq!(
            session.handle_input(&mut input, Timestamp::ZERO),
            Ok(InputProgress::NeedsMoreInput)
        );
        assert!(matches!(session.poll_event(), Some(Event::Connected(_))));
        drop((out, input));
        let idle = live() - before + size_of::<Session>().cast_signed();
        println!("{version}: an idle connected session: {idle} bytes");
        assert!(idle < 4096, "{version}: {idle} bytes");
        drop(session);
    }

    // The cost of a message does not depend on the window.
    let small = steady_publishing(10, 2000);
    let large = steady_publishing(10_000, 2000);
    println!("allocations per QoS 1 publish: {small:.2} at window 10, {large:.2} at window 10,000");
    assert!(small < 1.5 && large < 1.5, "{small} {large}");

    // Receiving copies nothing and allocates nothing per message.
    let mut client = Client::connected(config(ProtocolVersion::V5));
    let mut wire = BytesMut::new();
    for _ in 0..1000 {
        PublishRef::new(TopicName::new("a/topic").unwrap(), &[1; 64])
            .encode(ProtocolVersion::V5, &mut wire)
            .unwrap();
    }
    let wire = wire.freeze();
    let mut received = 0;
    for round in 0..2 {
        let before = allocations();
        let mut input = wire.clone();
        loop {
            let progress = client.session.handle_input(&mut input, client.now).unwrap();
            while let Some(event) = client.session.poll_event() {
                received += usize::from(matches!(event, Event::Message(_)));
            }
            if progress == InputProgress::NeedsMoreInput {
                break;
            }
        }
        let used = allocations() - before;
        println!("round {round}: {used} allocations for 1,000 QoS 0 messages");
        assert!(round == 0 || used < 10, "{used}");
    }
    assert_eq!(received, 2000);

    // A burst leaves nothing behind but its tables.
    let mut client = Client::connected(config(ProtocolVersion::V311));
    let before = live();
    for round in 0..50 {
        for number in 1..=1000 {
            client.publish("some payload", QoS::AtLeastOnce);
            if number % 100 == 0 {
                for packet in client.sent() {
                    let mqtt_codec::Packet::Publish(publish) = packet else {
                        panic!()
                    };
                    client.puback(publish.packet_id().unwrap().value());
                }
                client.events();
            }
        }
        assert_eq!(
            client.session.stats().in_flight_messages,
            0,
            "round {round}"
        );
    }
    let kept = live() - before;
    println!("kept after 50,000 messages, 100 in flight at a time: {kept} bytes");
    assert!(kept < 64 * 1024, "{kept}");
}
