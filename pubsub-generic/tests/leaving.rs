//! Closing, dropping, and giving up a future half way: on a paused clock, with the test as the broker.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::memory::{Step, memory};
use common::register;
use pubsub_core::{
    ConnectionState as State, Provider, ProviderErrorKind, PubSub, PublishError, QoS,
};
use pubsub_generic::{
    DEFAULT_NAME, Jitter, MqttOptions, MqttProvider, Reconnect, Requester, RequesterOptions,
};
use tokio::time::Instant;

fn steady() -> MqttOptions {
    MqttOptions::without_url()
        .client_id("me")
        .reconnect(Reconnect::default().jitter(Jitter::None))
}

#[tokio::test(start_paused = true)]
async fn closing_sends_what_was_accepted_and_then_says_goodbye() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let receipts: Vec<_> = (0..3)
        .map(|_| pubsub.publish("a", "").qos(QoS::AtLeastOnce).send())
        .collect();
    let closing = provider.close();
    let broker = async {
        let mut end = broker.accept().await;
        for _ in 0..3 {
            let publish = end.packet().await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            end.send(&[0x40, 2, publish[5], publish[6]]);
        }
        end.expect(&[0xe0, 0]).await;
        assert_eq!(end.packet().await, None);
    };
    let (closed, ()) = tokio::join!(closing, broker);
    closed.unwrap();
    for receipt in receipts {
        receipt.await.unwrap();
    }
    let refused = pubsub.publish("a", "").await.unwrap_err();
    assert!(
        matches!(refused, PublishError::NotSent(error) if error.kind() == ProviderErrorKind::Closed)
    );
    provider.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_does_not_wait_for_ever() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let publishing = pubsub.publish("a", "").qos(QoS::AtLeastOnce).send();
    let mut end = broker.accept().await;
    assert_eq!(end.packet().await.unwrap()[0], 0x32);
    let begin = Instant::now();
    let error = provider.close().await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::TimedOut);
    assert_eq!(begin.elapsed().as_secs(), 5);
    assert!(matches!(
        publishing.await.unwrap_err(),
        PublishError::Indeterminate(_)
    ));
    end.expect(&[0xe0, 0]).await;

    // The same with nobody to connect to: not sent, and certainly so.
    let (connect, _broker) = memory(vec![Step::Hang]);
    let (pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let publishing = pubsub.publish("a", "").qos(QoS::AtLeastOnce).send();
    provider.close().await.unwrap_err();
    assert!(matches!(
        publishing.await.unwrap_err(),
        PublishError::NotSent(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn dropping_everything_ends_the_connection() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let (connected, mut end) = tokio::join!(provider.connect(), broker.accept());
    connected.unwrap();
    drop(pubsub);
    drop(provider);
    end.expect(&[0xe0, 0]).await;
    assert_eq!(end.packet().await, None);
    assert!(
        broker.transports.recv().await.is_none(),
        "the connection maker is gone, and so is the task"
    );
}

/// Polls a future `n` times, letting the others run in between, and then drops it.
async fn abandon_after(n: usize, future: impl Future) {
    let mut future = std::pin::pin!(future);
    for _ in 0..n {
        let polled =
            std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_ready()));
        if polled.await {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// A broker that answers whatever comes, for as long as it takes.
async fn obliging(mut broker: common::memory::Broker) {
    while let Some(mut end) = broker.transports.recv().await {
        tokio::spawn(async move {
            while let Some(packet) = end.packet().await {
                match packet[0] {
                    0x10 => end.send(&[0x20, 2, 0, 0]),
                    0x82 => end.send(&[0x90, 3, packet[2], packet[3], 1]),
                    0xa2 => end.send(&[0xb0, 2, packet[2], packet[3]]),
                    0x32 => end.send(&[0x40, 2, packet[5], packet[6]]),
                    _ => {}
                }
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn any_future_may_be_dropped_at_any_await() {
    for n in 0..8 {
        let (connect, broker) = memory(Vec::new());
        let brokering = tokio::spawn(obliging(broker));
        let (pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
        abandon_after(n, provider.connect()).await;
        abandon_after(n, async {
            pubsub.subscribe("a").qos(QoS::AtLeastOnce).await
        })
        .await;
        abandon_after(n, async {
            pubsub.publish("a", "x").qos(QoS::AtLeastOnce).await
        })
        .await;
        let messages = pubsub.subscribe("a").qos(QoS::AtLeastOnce).await.unwrap();
        abandon_after(n, messages.unsubscribe()).await;
        pubsub
            .publish("a", "x")
            .qos(QoS::AtLeastOnce)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stats = provider.stats();
        assert_eq!(
            (
                stats.publishes_pending,
                stats.calls_pending,
                stats.subscriptions
            ),
            (0, 0, 0),
            "after {n} polls"
        );
        assert_eq!(stats.connections, 1, "after {n} polls");
        abandon_after(n, provider.close()).await;
        provider.close().await.unwrap();
        drop((pubsub, provider));
        brokering.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_closing_ends_are_pending_no_more() {
    let (connect, _broker) = memory(vec![Step::Hang]);
    let (pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let connecting = tokio::spawn({
        let provider = Arc::clone(&provider);
        async move { provider.connect().await }
    });
    let subscribing = tokio::spawn(async move { pubsub.subscribe("a").await.map(drop) });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(provider.stats().calls_pending, 2);
    let _ = provider.close().await;
    assert!(connecting.await.unwrap().is_err());
    assert!(subscribing.await.unwrap().is_err());
    assert_eq!(provider.stats().calls_pending, 0);
}

#[tokio::test(start_paused = true)]
async fn requesters_and_changes_of_providers_may_be_given_up_at_any_await() {
    for n in 0..10 {
        let mut brokering = Vec::new();
        let mut make = || {
            let (connect, broker) = memory(Vec::new());
            brokering.push(tokio::spawn(obliging(broker)));
            Arc::new(MqttProvider::with_connect(steady(), connect).unwrap())
        };
        let (first, second, third) = (make(), make(), make());
        let pubsub = PubSub::new();
        pubsub
            .add_provider(DEFAULT_NAME, Arc::clone(&first))
            .unwrap();
        abandon_after(n, Requester::new(&pubsub, RequesterOptions::default())).await;
        pubsub
            .publish("a", "x")
            .qos(QoS::AtLeastOnce)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stats = first.stats();
        assert_eq!(
            (stats.calls_pending, stats.subscriptions),
            (0, 0),
            "after {n} polls"
        );

        let subscription = pubsub.subscribe("a").await.unwrap();
        abandon_after(
            n,
            pubsub.replace_provider(DEFAULT_NAME, Arc::clone(&second)),
        )
        .await;
        // However far that came, doing it again brings it to its end.
        pubsub
            .replace_provider(DEFAULT_NAME, Arc::clone(&third))
            .await
            .unwrap();
        assert_eq!(third.stats().subscriptions, 1, "after {n} polls");
        pubsub
            .publish("a", "x")
            .qos(QoS::AtLeastOnce)
            .await
            .unwrap();

        abandon_after(n, pubsub.remove_provider(DEFAULT_NAME)).await;
        assert_eq!(pubsub.providers().is_empty(), n > 0, "after {n} polls");
        drop((subscription, pubsub));
        for provider in [first, second, third] {
            provider.close().await.unwrap();
        }
        for broker in brokering {
            broker.await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_may_be_given_up_at_any_await_without_missing_anything() {
    for n in 0..6 {
        let (connect, mut broker) = memory(Vec::new());
        let (pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
        let (subscribed, end) = tokio::join!(async { pubsub.subscribe(["a", "b"]).await }, async {
            let mut end = broker.accept().await;
            let subscribe = end.packet().await.unwrap();
            end.send(&[0x90, 4, subscribe[2], subscribe[3], 0, 0]);
            end
        });
        let mut messages = subscribed.unwrap();
        let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
        let mut receipt = pubsub.publish("p", "").qos(QoS::AtLeastOnce).send();
        // Nothing is there yet: whoever waits gives up.
        abandon_after(n, messages.next()).await;
        abandon_after(n, watch.reached(State::ConnectionDisrupted)).await;
        abandon_after(n, &mut receipt).await;
        for number in 0..10u8 {
            end.send(&[0x30, 4, 0, 1, b'a', number]);
            abandon_after(n % 2, messages.next()).await;
        }
        let mut end = end;
        let publish = end.packet().await.unwrap();
        end.send(&[0x40, 2, publish[5], publish[6]]);
        receipt.await.unwrap();
        end.send(b"\x30\x04\0\x01aE");
        let mut last = 0;
        loop {
            let payload = messages.next().await.unwrap().unwrap().payload[0];
            if payload == b'E' {
                break;
            }
            assert!(payload < 10 && (payload == 0 || payload > last));
            last = payload;
        }
        if n == 0 {
            // Not even asked for.
            continue;
        }
        // One filter leaves, and the other stays, however long that was waited for.
        let gone = ["b".parse().unwrap()];
        abandon_after(n, messages.unsubscribe_from(&gone)).await;
        let unsubscribe = end.packet().await.unwrap();
        assert_eq!(unsubscribe[0], 0xa2);
        end.send(&[0xb0, 2, unsubscribe[2], unsubscribe[3]]);
        end.send(b"\x30\x04\0\x01aE");
        assert_eq!(messages.next().await.unwrap().unwrap().topic, "a");
        assert_eq!(provider.stats().subscriptions, 1, "after {n} polls");
        drop(end);
        watch.reached(State::ConnectionDisrupted).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn closing_waits_neither_for_a_connack_nor_for_a_peer_that_does_not_read() {
    let (connect, mut broker) = memory(Vec::new());
    let (_pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let begin = Instant::now();
    let (connected, closed) = tokio::join!(provider.connect(), async {
        let end = broker.transports.recv().await.unwrap();
        let closed = provider.close().await;
        drop(end);
        closed
    });
    assert_eq!(connected.unwrap_err().kind(), ProviderErrorKind::Closed);
    closed.unwrap();
    assert_eq!(begin.elapsed(), Duration::ZERO);

    let (connect, mut broker) = memory(vec![Step::Deaf]);
    let (pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let (connected, _end) = tokio::join!(provider.connect(), broker.accept());
    connected.unwrap();
    // The CONNECT was all that it takes.
    let stuck = pubsub.publish("a", "x").send();
    let begin = Instant::now();
    assert!(provider.close().await.is_err());
    assert!(
        begin.elapsed() <= Duration::from_secs(8),
        "{:?}",
        begin.elapsed()
    );
    assert!(stuck.await.is_err());
}
