//! Zero-copy, as a fact: results point into the receive buffer, and nothing is allocated.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use common::*;
use mqtt_codec::{PacketRef as P, ProtocolVersion::*, *};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all calls go to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = ALLOCATIONS.get();
    let result = work();
    (ALLOCATIONS.get() - before, result)
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| vec![1_u8]).0, 1);
    assert_eq!(allocations(|| Bytes::from_static(b"x")).0, 0);
}

/// A thousand packets of each kind that a busy connection sees, and their number.
fn stream(version: ProtocolVersion) -> (Vec<u8>, usize) {
    let properties = [
        Property::MessageExpiryInterval(60),
        Property::UserProperty(text("name"), text("value")),
    ];
    let subscriptions = [Subscription {
        filter: filter("site/+/#"),
        options: SubscriptionOptions::new(QoS::AtLeastOnce),
    }];
    let codes = [ReasonCode::GrantedQoS1];
    let qos0 = PublishRef::new(topic("site/1/temperature"), &[0x55; 64]);
    let qos1 = PublishRef {
        qos: QoS::AtLeastOnce,
        packet_id: Some(id(7)),
        ..qos0
    };
    let listed = if version == V5 {
        Properties::list(&properties)
    } else {
        Properties::EMPTY
    };
    let ack = AckRef::new(id(7));
    let connect = ConnectRef::new(version, text("client"));
    let packets = [
        P::Publish(qos0),
        P::Publish(qos1),
        P::Publish(PublishRef {
            properties: listed,
            ..qos0
        }),
        P::Puback(ack),
        P::Puback(AckRef {
            properties: if version == V5 {
                Properties::list(&properties[1..])
            } else {
                Properties::EMPTY
            },
            ..ack
        }),
        P::Pingresp,
        P::from(&connect),
        P::Connack(ConnackRef::new(ReasonCode::Success)),
        P::Subscribe(SubscribeRef {
            packet_id: id(8),
            properties: Properties::EMPTY,
            subscriptions: Subscriptions::list(&subscriptions),
        }),
        P::Suback(SubackRef {
            packet_id: id(8),
            properties: Properties::EMPTY,
            reason_codes: ReasonCodes::list(&codes),
        }),
    ];
    let mut bytes = Vec::new();
    for _ in 0..1000 {
        for packet in &packets {
            packet.encode(version, &mut bytes).unwrap();
        }
    }
    (bytes, 1000 * packets.len())
}

#[test]
fn decoding_allocates_nothing() {
    for version in VERSIONS {
        let (bytes, expected) = stream(version);

        let (count, packets) = allocations(|| {
            let mut decoder = Decoder::new(version);
            let mut rest = &bytes[..];
            let mut packets = 0;
            while let Some((packet, len)) = decoder.decode_ref(rest).unwrap() {
                if let P::Publish(publish) = packet {
                    assert_eq!(
                        publish.properties.iter().count(),
                        publish.properties.user_properties().count() * 2
                    );
                }
                rest = &rest[len..];
                packets += 1;
            }
            packets
        });
        assert_eq!((count, packets), (0, expected), "borrowed, {version}");

        let mut buf = BytesMut::from(&bytes[..]);
        // The first split makes the memory a shared one: once for each block of memory.
        let rest = buf.split_off(0);
        drop(std::mem::replace(&mut buf, rest));
        let (count, packets) = allocations(|| {
            let mut decoder = Decoder::new(version);
            let mut packets = 0;
            while let Some(packet) = decoder.decode(&mut buf).unwrap() {
                if let Packet::Publish(publish) = &packet {
                    assert_eq!(publish.clone().into_payload(), publish.payload_bytes());
                    assert_eq!(publish.topic_bytes(), "site/1/temperature");
                }
                packets += 1;
            }
            packets
        });
        assert_eq!((count, packets), (0, expected), "owned, {version}");

        let mut chunk = Bytes::from(bytes);
        let front = chunk.split_to(0);
        drop(front);
        let shared = chunk.clone();
        let (count, packets) = allocations(|| {
            let mut decoder = Decoder::new(version);
            let mut packets = 0;
            while decoder.decode_bytes(&mut chunk).unwrap().is_some() {
                packets += 1;
            }
            packets
        });
        drop(shared);
        assert_eq!(
            (count, packets),
            (0, expected),
            "owned from Bytes, {version}"
        );
    }
}

#[test]
fn a_receive_buffer_is_used_again() {
    let (bytes, expected) = stream(V5);
    let mut buf = BytesMut::with_capacity(8192);
    let mut decoder = Decoder::new(V5);
    let mut packets = 0;
    let mut run = |buf: &mut BytesMut| {
        for piece in bytes.chunks(1500) {
            buf.extend_from_slice(piece);
            while decoder.decode(buf).unwrap().is_some() {
                packets += 1;
            }
        }
    };
    run(&mut buf);
    let (count, ()) = allocations(|| run(&mut buf));
    assert_eq!(packets, 2 * expected);
    assert_eq!(
        count, 0,
        "all packets are gone, so their memory is taken again"
    );
}

#[test]
fn encoding_allocates_nothing() {
    for version in VERSIONS {
        let (bytes, expected) = stream(version);
        let mut decoder = Decoder::new(version);
        let mut packets = Vec::new();
        let mut rest = &bytes[..];
        while let Some((packet, len)) = decoder.decode_ref(rest).unwrap() {
            packets.push(packet);
            rest = &rest[len..];
        }
        assert_eq!(packets.len(), expected);
        let mut vec = Vec::with_capacity(bytes.len());
        let mut buf = BytesMut::with_capacity(bytes.len());
        let (count, ()) = allocations(|| {
            for packet in &packets {
                packet.encode(version, &mut vec).unwrap();
                packet.encode(version, &mut buf).unwrap();
            }
        });
        assert_eq!(count, 0);
        assert_eq!(vec, bytes);
        assert_eq!(buf, bytes);
    }
}

#[test]
fn results_point_into_the_receive_buffer() {
    for version in VERSIONS {
        let payload = vec![0x55; 128 * 1024];
        let message = PublishRef {
            qos: QoS::AtLeastOnce,
            packet_id: Some(id(1)),
            ..PublishRef::new(topic("firmware/v2"), &payload)
        };
        let bytes = encode(&P::Publish(message), version);
        let inside = |part: &[u8], whole: &[u8]| {
            whole.as_ptr_range().contains(&part.as_ptr())
                && part.as_ptr_range().end <= whole.as_ptr_range().end
        };

        let Ok(P::Publish(view)) = P::decode(&bytes, version) else {
            panic!("not a PUBLISH")
        };
        assert!(inside(view.topic.as_bytes(), &bytes) && inside(view.payload, &bytes));

        let mut buf = BytesMut::from(&bytes[..]);
        let memory = buf.as_ptr_range();
        let Ok(Some(Packet::Publish(owned))) = Decoder::new(version).decode(&mut buf) else {
            panic!("not a PUBLISH")
        };
        assert_eq!(owned.frame().as_ptr_range(), memory);
        for part in [
            owned.topic().as_bytes(),
            owned.payload(),
            &owned.topic_bytes(),
            &owned.payload_bytes(),
            &owned.clone().into_payload(),
        ] {
            assert!(inside(part, owned.frame()));
        }
        assert_eq!(owned.payload_bytes(), payload);
        assert_eq!(owned.topic_bytes(), "firmware/v2");
    }

    let connect = ConnectRef {
        will: Some(WillRef {
            topic: topic("w"),
            payload: b"gone",
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::EMPTY,
        }),
        user_name: Some(text("user")),
        password: Some(b"pass"),
        ..ConnectRef::new(V5, text("client"))
    };
    let bytes = encode(&P::from(&connect), V5);
    let Ok(Packet::Connect(owned)) = Packet::decode(bytes.into(), V5) else {
        panic!("not a CONNECT")
    };
    let view = owned.as_ref();
    assert_eq!(view, connect);
    let frame = owned.frame().as_ptr_range();
    for part in [
        view.client_id.as_bytes(),
        view.will.unwrap().payload,
        view.user_name.unwrap().as_bytes(),
        view.password.unwrap(),
    ] {
        assert!(frame.contains(&part.as_ptr()));
    }
}
