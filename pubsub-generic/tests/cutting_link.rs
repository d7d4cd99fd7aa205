//! Against the reference broker, over links that are cut again and again.
#![cfg(feature = "ws")]
#![allow(missing_docs, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::future::IntoFuture as _;
use std::sync::Arc;
use std::time::Duration;

use common::client;
use pubsub_core::{Json, QoS, Subscription};
use pubsub_generic::{MqttOptions, Reconnect, SessionMode};
use testkit::mosquitto::find_or_skip;
use testkit::proxy::{Cut, Proxy};

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

#[tokio::test]
async fn a_cutting_link_loses_nothing_at_qos_1() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let broker = mosquitto.config().websocket().start().await.unwrap();
    let proxy = Proxy::start(broker.ws_address()).await.unwrap();
    let (alice, _) = client(MqttOptions::new(proxy.ws_url()));
    let (bob, _) = client(MqttOptions::new(broker.ws_url()));
    let mut messages = bob.subscribe("n").qos(QoS::AtLeastOnce).await.unwrap();
    let mut seen = BTreeSet::new();
    let publishing = async {
        for n in 0..60 {
            alice
                .publish("n", Json(&n))
                .qos(QoS::AtLeastOnce)
                .await
                .unwrap();
            if n % 20 == 10 {
                proxy.cut_all(Cut::Reset);
            }
        }
    };
    let reading = async {
        while seen.len() < 60 {
            seen.insert(
                messages
                    .next()
                    .await
                    .unwrap()
                    .unwrap()
                    .json::<u32>()
                    .unwrap(),
            );
        }
    };
    tokio::join!(publishing, reading);
    assert_eq!(seen.last(), Some(&59));
}

/// Whoever publishes one message at a time does the connection's work: here several do, on threads with and without
/// a runtime, alone and all at once, while it is cut.
#[test]
fn who_publishes_from_many_threads_over_a_cutting_link_loses_nothing() {
    const PUBLISHERS: usize = 4;
    const EACH: usize = 300;
    const CUTS: u64 = 4;
    // Between two cuts each publisher gets on, so that no message is there at both, as if the broker hung up on it.
    const CARRIED_BETWEEN: u64 = 4096;
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let (_broker, proxy, alice, bob) = runtime.block_on(async {
        let broker = mosquitto.config().websocket().start().await.unwrap();
        let proxy = Proxy::start(broker.ws_address()).await.unwrap();
        // A clean session may not know what became of a publish at QoS 2 that a cut caught half-way.
        let resumed = SessionMode::Resumed {
            expiry: Duration::from_secs(300),
        };
        let pace = Reconnect::default()
            .first(Duration::from_millis(20))
            .base(Duration::from_millis(20));
        let (alice, _) = client(
            MqttOptions::new(proxy.ws_url())
                .session(resumed)
                .reconnect(pace),
        );
        let (bob, _) = client(MqttOptions::new(broker.ws_url()));
        (broker, proxy, Arc::new(alice), bob)
    });
    let mut messages = runtime
        .block_on(bob.subscribe("n").qos(QoS::ExactlyOnce).into_future())
        .unwrap();
    let publish = |publisher: usize| {
        let alice = Arc::clone(&alice);
        async move {
            for n in 0..EACH {
                let qos = ALL_QOS[n % 3];
                let outcome = alice.publish("n", Json(&(publisher, n))).qos(qos).await;
                match qos {
                    // What the socket had may be lost with it.
                    QoS::AtMostOnce => drop(outcome),
                    _ => drop(outcome.unwrap()),
                }
            }
        }
    };
    let cutting = runtime.spawn(async move {
        for cut in 1..=CUTS {
            let carried = proxy.counts().to_server;
            proxy
                .wait_for(|now| now.accepted >= cut && now.to_server >= carried + CARRIED_BETWEEN)
                .await;
            proxy.cut_all(Cut::Reset);
        }
        proxy
    });
    let wanted = EACH * 2 / 3 * (PUBLISHERS + 1);
    let reading = runtime.spawn(async move {
        let mut seen = BTreeSet::new();
        while seen.len() < wanted {
            let message = messages.next().await.unwrap().unwrap();
            if message.qos != QoS::AtMostOnce {
                seen.insert(message.json::<(usize, usize)>().unwrap());
            }
        }
    });
    // The root of a runtime is not one of its tasks.
    runtime.block_on(publish(0));
    let all: Vec<_> = (1..=PUBLISHERS)
        .map(|publisher| {
            let (work, runtime) = (publish(publisher), runtime.handle().clone());
            std::thread::spawn(move || match publisher % 2 {
                0 => runtime.block_on(runtime.spawn(work)).unwrap(),
                _ => runtime.block_on(work),
            })
        })
        .collect();
    for publisher in all {
        publisher.join().unwrap();
    }
    let _proxy = runtime.block_on(cutting).unwrap();
    runtime.block_on(reading).unwrap();
    runtime.block_on(alice.close()).unwrap();
}

/// Whoever is alone to wait for messages does the connection's work: here it is one of three, at the root of the runtime, in a
/// task of it and on another runtime, while it is cut.
#[test]
fn who_receives_on_several_threads_over_a_cutting_link_misses_nothing() {
    const MESSAGES: usize = 400;
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let on_one_thread = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let runtime = on_one_thread();
    let (broker, proxy) = runtime.block_on(async {
        let broker = mosquitto.config().websocket().start().await.unwrap();
        let proxy = Proxy::start(broker.ws_address()).await.unwrap();
        (broker, proxy)
    });
    let session = SessionMode::Resumed {
        expiry: Duration::from_secs(600),
    };
    let (alice, _) = client(MqttOptions::new(broker.ws_url()));
    let (bob, _) = client(MqttOptions::new(proxy.ws_url()).session(session));
    let [at_root, in_task, elsewhere] = [(); 3].map(|()| {
        let subscribe = async { bob.subscribe("n").qos(QoS::ExactlyOnce).await };
        runtime.block_on(subscribe).unwrap()
    });
    let in_task = runtime.spawn(receive(in_task, MESSAGES, || {}));
    let elsewhere = runtime.spawn_blocking(move || {
        on_one_thread().block_on(receive(elsewhere, MESSAGES, || {}));
    });
    let publishing = runtime.spawn(async move {
        for n in 0..MESSAGES {
            let qos = ALL_QOS[1 + n % 2];
            alice.publish("n", Json(&n)).qos(qos).await.unwrap();
        }
    });
    let mut received = 0;
    let cut_now_and_then = || {
        received += 1;
        if received % (MESSAGES / 5) == 0 {
            proxy.cut_all(Cut::Reset);
        }
    };
    runtime.block_on(async {
        receive(at_root, MESSAGES, cut_now_and_then).await;
        for other in [in_task, elsewhere, publishing] {
            other.await.unwrap();
        }
        bob.close().await.unwrap();
    });
}

/// Until so many different ones have come, of which each is told.
async fn receive(mut messages: Subscription, wanted: usize, mut told: impl FnMut()) {
    let mut seen = BTreeSet::new();
    while seen.len() < wanted {
        let message = messages.next().await.unwrap().unwrap();
        if seen.insert(message.json::<usize>().unwrap()) {
            told();
        }
    }
}
