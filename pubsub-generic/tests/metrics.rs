//! What a recorder of the `metrics` facade is told.
#![cfg(feature = "metrics")]
#![allow(missing_docs, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::memory::memory;
use metrics::{
    Counter, CounterFn as _, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use pubsub_core::{Event, OfflinePolicy, Provider, PubSub, QoS};
use pubsub_generic::{Jitter, MqttOptions, MqttProvider, Reconnect};

/// Adds up what it is told, by name and labels.
#[derive(Default)]
struct Books(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Books {
    fn cell(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<String> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }

    fn raw(&self, name: &str, more: &str) -> u64 {
        let name = format!("pubsub_mqtt_{name}{{provider=watched{more}}}");
        let books = self.0.lock().unwrap();
        let cell = books.get(&name);
        let cell = cell.unwrap_or_else(|| panic!("no {name} in {:?}", books.keys()));
        cell.load(Ordering::Relaxed)
    }

    fn counter(&self, name: &str) -> u64 {
        self.raw(name, "")
    }

    fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.raw(name, ""))
    }
}

/// The sum of what was recorded, in milliseconds.
struct Millis(Arc<AtomicU64>);

impl HistogramFn for Millis {
    fn record(&self, value: f64) {
        self.0.increment((value * 1000.0) as u64);
    }
}

impl Recorder for Books {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Millis(self.cell(key))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorder_is_told_what_the_statistics_tell() {
    let books = Books::default();
    let (connect, mut broker) = memory(Vec::new());
    let options = MqttOptions::without_url().reconnect(Reconnect::default().jitter(Jitter::None));
    let provider = Arc::new(MqttProvider::with_connect(options, connect).unwrap());
    let pubsub = PubSub::new();
    metrics::with_local_recorder(&books, || {
        pubsub
            .add_provider("watched", Arc::clone(&provider))
            .unwrap();
    });
    let (subscribed, mut end) = tokio::join!(async { pubsub.subscribe("a").await }, async {
        let mut end = broker.accept().await;
        let subscribe = end.packet().await.unwrap();
        end.send(&[0x90, 3, subscribe[2], subscribe[3], 0]);
        end
    });
    let mut events = subscribed.unwrap().events();
    assert_eq!(books.gauge("connected"), 1.0);
    assert_eq!(books.gauge("subscriptions"), 1.0);
    end.send(b"\x30\x04\0\x01a1\x30\x04\0\x01a2");
    for _ in 0..2 {
        assert!(matches!(events.next().await, Some(Ok(Event::Message(_)))));
    }
    let receipt = pubsub.publish("p", "123").qos(QoS::AtLeastOnce).send();
    let publish = end.packet().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(books.gauge("publishes_pending"), 1.0);
    assert_eq!(books.gauge("publishes_pending_bytes"), 4.0);
    end.send(&[0x40, 2, publish[5], publish[6]]);
    receipt.await.unwrap();
    // A ping that takes two seconds.
    end.expect(&[0xc0, 0]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    end.send(&[0xd0, 0]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(end);
    let mut end = broker.transports.recv().await.unwrap();
    let failed = pubsub.publish("p", "").offline(OfflinePolicy::Fail);
    failed.await.unwrap_err();
    assert_eq!(books.gauge("connected"), 0.0);
    end.accept().await;
    let subscribe = end.packet().await.unwrap();
    end.send(&[0x90, 3, subscribe[2], subscribe[3], 0]);
    assert!(matches!(events.next().await, Some(Ok(Event::Gap(_)))));
    tokio::time::sleep(Duration::from_secs(1)).await;

    let stats = provider.stats();
    assert_eq!(books.counter("connections_total"), 2);
    assert_eq!(books.counter("connection_failures_total"), 1);
    assert_eq!(books.counter("renewals_total"), 0);
    assert_eq!(books.counter("messages_received_total"), 2);
    assert_eq!(books.raw("publishes_total", ",outcome=delivered"), 1);
    assert_eq!(books.raw("publishes_total", ",outcome=failed"), 1);
    assert_eq!(books.counter("received_bytes_total"), stats.bytes_received);
    assert_eq!(books.counter("sent_bytes_total"), stats.bytes_sent);
    assert_eq!(books.counter("round_trip_seconds") / 100, 20);
    // From the last sign of life: three seconds, and a quarter for the first retry.
    assert_eq!(books.raw("gap_seconds", ",cause=loss") / 100, 32);
    assert_eq!(books.raw("gap_seconds", ",cause=planned"), 0);
    provider.close().await.unwrap();
    assert_eq!(books.gauge("connected"), 0.0);
    assert_eq!(books.gauge("publishes_pending"), 0.0);
}
