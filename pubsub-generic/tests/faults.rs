//! Over real sockets and a link that misbehaves: nothing is lost, and nothing is left behind.
#![cfg(feature = "ws")]
#![allow(missing_docs, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::client;
use pubsub_core::{ConnectionState as State, Json, PubSub, QoS, Subscription};
use pubsub_generic::{
    DEFAULT_NAME, MqttOptions, MqttProvider, ProtocolVersion, Reconnect, SessionMode,
};
use testkit::mosquitto::{Broker, find_or_skip};
use testkit::proxy::{Cut, Direction, Link, Proxy};

const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::V311, ProtocolVersion::V5];

async fn broker() -> Option<Broker> {
    Some(find_or_skip()?.config().websocket().start().await.unwrap())
}

fn resuming(url: String, version: ProtocolVersion) -> MqttOptions {
    MqttOptions::new(url)
        .protocol_version(version)
        .session(SessionMode::Resumed {
            expiry: Duration::from_secs(600),
        })
        .reconnect(hasty())
}

/// Cuts come thick and fast here, and are nobody's fault.
fn hasty() -> Reconnect {
    Reconnect::default()
        .first(Duration::from_millis(5))
        .base(Duration::from_millis(10))
        .cap(Duration::from_millis(50))
}

/// Publishes forty messages over links of this kind and takes them over others; returns what arrived.
async fn forty_messages(proxy: &Proxy, version: ProtocolVersion, qos: QoS) -> Vec<u32> {
    let options = || {
        resuming(proxy.ws_url(), version)
            .connect_timeout(Duration::from_secs(1))
            .keep_alive(Duration::from_secs(2))
            .ping_timeout(Duration::from_secs(1))
    };
    let (alice, _) = client(options());
    let (bob, _) = client(options());
    let mut messages = bob.subscribe("n").qos(qos).await.unwrap();
    let publishing = async {
        for n in 0..40u32 {
            alice.publish("n", Json(&n)).qos(qos).await.unwrap();
        }
        alice.publish("n", Json(&u32::MAX)).qos(qos).await.unwrap();
    };
    let reading = async {
        let mut seen = Vec::new();
        loop {
            match messages.next().await.unwrap().unwrap().json().unwrap() {
                u32::MAX => return seen,
                n => seen.push(n),
            }
        }
    };
    let ((), seen) = tokio::join!(publishing, reading);
    alice.close().await.unwrap();
    bob.close().await.unwrap();
    seen
}

#[tokio::test]
async fn a_link_that_dribbles_delays_cuts_and_swallows_loses_nothing() {
    let Some(broker) = broker().await else { return };
    let both = |link: Link, fault: fn(Link, Direction) -> Link| {
        fault(fault(link, Direction::ToServer), Direction::ToClient)
    };
    let dribble = || both(Link::clear(), Link::dribble);
    let delay = || {
        both(Link::clear(), |link, direction| {
            link.delay(direction, Duration::from_millis(3))
        })
    };
    for version in VERSIONS {
        for (qos, fault) in [
            (QoS::AtLeastOnce, "dribble"),
            (QoS::ExactlyOnce, "dribble"),
            (QoS::ExactlyOnce, "delay"),
            (QoS::AtLeastOnce, "cut"),
            (QoS::ExactlyOnce, "cut"),
            (QoS::ExactlyOnce, "swallow"),
        ] {
            let proxy = Proxy::start(broker.ws_address()).await.unwrap();
            match fault {
                "dribble" => proxy.others(dribble()),
                "delay" => proxy.others(delay()),
                "cut" => {
                    // Connections that die after more and more bytes, from within the upgrade on, by turns in both
                    // directions and in both ways.
                    for n in 0..12u64 {
                        let direction = [Direction::ToServer, Direction::ToClient][n as usize % 2];
                        let cut = [Cut::Reset, Cut::Finish][n as usize / 2 % 2];
                        proxy.next(dribble().cut_after(direction, 100 + 60 * n, cut));
                    }
                }
                _ => {
                    proxy.next(Link::black_hole());
                    proxy.next(Link::dead(Cut::Finish));
                    proxy.next(Link::black_hole());
                }
            }
            let mut seen = forty_messages(&proxy, version, qos).await;
            if qos == QoS::AtLeastOnce {
                let unique: BTreeSet<u32> = seen.into_iter().collect();
                seen = unique.into_iter().collect();
            }
            assert!(seen.into_iter().eq(0..40), "{version:?} {qos:?} {fault}");
        }
    }
}

#[tokio::test]
async fn a_link_that_goes_dead_in_the_middle_is_left_for_another() {
    let Some(broker) = broker().await else { return };
    for version in VERSIONS {
        let proxy = Proxy::start(broker.ws_address()).await.unwrap();
        let options = resuming(proxy.ws_url(), version)
            .connect_timeout(Duration::from_secs(1))
            .keep_alive(Duration::from_secs(1))
            .ping_timeout(Duration::from_millis(500));
        let (pubsub, _) = client(options);
        let mut messages = pubsub.subscribe("a").qos(QoS::AtLeastOnce).await.unwrap();
        let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
        watch.reached(State::Connected).await.unwrap();
        proxy.freeze();
        // Accepted by the system's buffers, and by nobody else.
        let receipt = pubsub.publish("a", "x").qos(QoS::ExactlyOnce).send();
        watch.reached(State::ConnectionDisrupted).await.unwrap();
        proxy.cut_all(Cut::Reset);
        proxy.thaw();
        receipt.await.unwrap();
        assert_eq!(messages.next().await.unwrap().unwrap().payload, "x");
    }
}

/// A small generator, so that a failure can be repeated by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Polls a future a few times and drops it.
async fn abandon(polls: u64, future: impl Future) {
    let mut future = std::pin::pin!(future);
    for _ in 0..polls {
        let is_ready =
            std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_ready()));
        if is_ready.await {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn anything(dice: &mut Dice, pubsub: &PubSub, kept: &mut Vec<Subscription>, proxy: &Proxy) {
    let topic = format!("t/{}", dice.roll(4));
    let filter = [topic.clone(), "t/+".to_owned(), "#".to_owned()][dice.roll(3) as usize].clone();
    let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][dice.roll(3) as usize];
    match dice.roll(10) {
        0 | 1 => kept.push(pubsub.subscribe([filter, topic]).qos(qos).await.unwrap()),
        2 => drop(kept.pop()),
        3 => {
            if let Some(subscription) = kept.pop() {
                subscription.unsubscribe().await.unwrap();
            }
        }
        4 => {
            abandon(dice.roll(4), async {
                pubsub.subscribe(filter).qos(qos).await
            })
            .await;
        }
        5 => {
            if let Some(subscription) = kept.pop() {
                abandon(dice.roll(3), subscription.unsubscribe()).await;
            }
        }
        6 => drop(pubsub.publish(topic, "dropped").qos(qos).send()),
        7 => {
            abandon(
                dice.roll(4),
                pubsub.publish(topic, "abandoned").qos(qos).send(),
            )
            .await;
        }
        8 => {
            // At QoS 0 it may be lost with the connection.
            let _ = pubsub.publish(topic, "awaited").qos(qos).await;
        }
        _ => proxy.cut_all([Cut::Reset, Cut::Finish][dice.roll(2) as usize]),
    }
}

async fn comes_to_rest(pubsub: &PubSub, provider: &MqttProvider, seed: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        // An acknowledged publish goes behind what was asked for before.
        let _ = pubsub.publish("rest", "").qos(QoS::AtLeastOnce).await;
        tokio::task::yield_now().await;
        let stats = provider.stats();
        if stats.subscriptions == 0
            && stats.packet_ids_in_use == 0
            && stats.publishes_pending == 0
            && stats.calls_pending == 0
        {
            return;
        }
        assert!(Instant::now() < deadline, "seed {seed}: {stats:?}");
    }
}

#[tokio::test]
async fn no_combination_leaves_a_socket_a_task_an_identifier_or_a_subscription() {
    let Some(broker) = broker().await else { return };
    let proxy = Proxy::start(broker.ws_address()).await.unwrap();
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = alive();
    for seed in 0..8 {
        let mut dice = Dice(seed);
        let version = VERSIONS[seed as usize % 2];
        let options = match seed % 4 {
            0 | 1 => MqttOptions::new(proxy.ws_url())
                .protocol_version(version)
                .reconnect(hasty()),
            _ => resuming(proxy.ws_url(), version),
        };
        let (pubsub, provider) = client(options);
        let mut kept = Vec::new();
        for _ in 0..60 {
            anything(&mut dice, &pubsub, &mut kept, &proxy).await;
        }
        drop(kept);
        comes_to_rest(&pubsub, &provider, seed).await;
        if seed % 3 == 0 {
            pubsub.close().await.unwrap();
        }
        drop((pubsub, provider));
        proxy.wait_for(|counts| counts.open == 0).await;
    }
    // The proxy's own tasks are among them.
    let deadline = Instant::now() + Duration::from_secs(60);
    while alive() > before {
        assert!(Instant::now() < deadline, "{} tasks left", alive() - before);
        tokio::task::yield_now().await;
    }
}
