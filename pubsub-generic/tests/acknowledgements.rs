//! What the broker's acknowledgements do to the publishes that wait for them, with the test as the broker.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use common::memory::{BrokerEnd, memory};
use common::register;
use pubsub_core::{Delivered, PubSub, Publishing, QoS};
use pubsub_generic::{MqttOptions, MqttProvider};

/// A client with this window, connected, and its broker.
async fn connected(window: u16) -> (PubSub, Arc<MqttProvider>, BrokerEnd) {
    let (connect, mut broker) = memory(Vec::new());
    let window = window.try_into().unwrap();
    let options = MqttOptions::without_url()
        .client_id("me")
        .configure_session(|session| session.max_in_flight = window);
    let (pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let connecting = pubsub.publish("t", "").send();
    let mut end = broker.accept().await;
    end.packet().await.unwrap();
    connecting.await.unwrap();
    (pubsub, provider, end)
}

fn publish(pubsub: &PubSub, qos: QoS) -> Publishing {
    pubsub.publish("t", "").qos(qos).send()
}

/// Whether it was confirmed by now.
async fn is_confirmed(receipt: &mut Publishing) -> bool {
    let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut *receipt).poll(cx))).await;
    matches!(polled, Poll::Ready(Ok(Delivered::Confirmed)))
}

async fn expect_publishes(end: &mut BrokerEnd, qos: u8, ids: std::ops::RangeInclusive<u8>) {
    for id in ids {
        end.expect(&[0x30 | qos << 1, 5, 0, 1, b't', 0, id]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_settles_its_own_however_they_arrive() {
    let (pubsub, provider, mut end) = connected(3).await;
    let mut receipts: Vec<_> = (0..5).map(|_| publish(&pubsub, QoS::AtLeastOnce)).collect();
    expect_publishes(&mut end, 1, 1..=3).await;
    assert!(end.try_packet().is_none(), "the window is full");

    // Two at once, the younger first, and half of one; what they make room for follows.
    end.send(&[0x40, 2, 0, 3, 0x40, 2, 0, 2, 0x40, 2]);
    expect_publishes(&mut end, 1, 4..=5).await;
    for mut receipt in receipts.drain(1..3) {
        assert!(is_confirmed(&mut receipt).await);
    }
    assert!(!is_confirmed(&mut receipts[0]).await);
    assert_eq!(provider.stats().publishes_pending, 3);

    // The other half, one of nobody's between two, and each in a chunk of its own.
    end.send(&[0, 1]);
    end.send(&[0x40, 2, 0, 4, 0x40, 2, 0, 9]);
    end.send(&[0x40, 2, 0, 5]);
    for receipt in receipts {
        assert_eq!(receipt.await.unwrap(), Delivered::Confirmed);
    }
    let stats = provider.stats();
    assert_eq!((stats.publishes_delivered, stats.publishes_pending), (6, 0));
    assert_eq!(stats.packet_ids_in_use, 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_one_ends_a_close_that_waits_for_it() {
    let (pubsub, _provider, mut end) = connected(3).await;
    let receipts = [QoS::ExactlyOnce, QoS::ExactlyOnce].map(|qos| publish(&pubsub, qos));
    expect_publishes(&mut end, 2, 1..=2).await;
    end.send(&[0x50, 2, 0, 1, 0x50, 2, 0, 2]);
    end.expect(&[0x62, 2, 0, 1]).await;
    end.expect(&[0x62, 2, 0, 2]).await;
    let closing = tokio::spawn(async move { pubsub.close().await });
    tokio::task::yield_now().await;
    end.send(&[0x70, 2, 0, 2, 0x70, 2, 0, 1]);
    end.expect(&[0xe0, 0]).await;
    drop(end);
    closing.await.unwrap().unwrap();
    for receipt in receipts {
        assert_eq!(receipt.await.unwrap(), Delivered::Confirmed);
    }
}
