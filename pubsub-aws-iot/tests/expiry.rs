//! Credentials that expire every few seconds, and connections that end with them, under load: no message is lost at
//! QoS 1, and there is never more than one request for new credentials.
//!
//! The seconds are those of a clock that goes on by a little with each answer of the broker, so that they do not pass while
//! this process or the broker is kept from running.
//!
//! `PUBSUB_EXPIRY_SOAK_SECS` makes it last longer than the slice that every test run takes. Each test prints a row of the
//! table that `cargo xtask soak --expiry` makes of them.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::{StoppedClock, client, gateway_to, options};
use pubsub_aws_iot::core::BoxFuture;
use pubsub_aws_iot::{
    AwsCredentials, AwsIotOptions, CachedCredentials, CredentialExpiry, CredentialFreshness,
    CredentialSource, CredentialsError, DEFAULT_NAME, ProtocolVersion, PubSub, QoS, Reconnect,
    SessionMode,
};
use pubsub_generic::{MqttOptions, MqttProvider};
use testkit::gateway::{AccessKey, Clock, Gateway, Incident, KeyRing, Outcome};
use testkit::mosquitto::Installation;
use tokio::time::Instant;

const PUBLISHERS: usize = 2;
/// Publishes of each publisher that wait for their acknowledgement.
const WINDOW: usize = 20;
/// How long a request for credentials takes.
const LATENCY: Duration = Duration::from_millis(20);
/// What an answer of the broker moves the clock on by.
const TICK: Duration = Duration::from_millis(5);

/// Hands out keys that live this long, and keeps the books.
struct Issuer {
    keys: KeyRing,
    clock: Clock,
    life: Duration,
    issued: Mutex<Vec<Instant>>,
    under_way: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl CredentialSource for Issuer {
    fn credentials(
        &self,
        _: CredentialFreshness,
    ) -> BoxFuture<'_, Result<AwsCredentials, CredentialsError>> {
        Box::pin(async {
            let together = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(together, Ordering::SeqCst);
            tokio::time::sleep(LATENCY).await;
            let number = {
                let mut issued = self.issued.lock().unwrap();
                issued.push(Instant::now());
                issued.len()
            };
            let (id, secret) = (format!("AKID{number}"), format!("secret {number}"));
            let end = self.clock.now() + self.life;
            self.keys.add(AccessKey::new(&id, &secret).expires_at(end));
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            // The system's clock, by which the client tells how long that is, goes its own way.
            Ok(AwsCredentials::new(id, secret).expires_at(SystemTime::now() + self.life))
        })
    }
}

/// Publishes numbers for so long, a window at a time. Every one is confirmed. Returns how many there were.
async fn publish_for(pubsub: PubSub, topic: String, time: Duration) -> usize {
    let begun = Instant::now();
    let mut under_way = VecDeque::new();
    let mut next = 0;
    while begun.elapsed() < time || !under_way.is_empty() {
        if begun.elapsed() < time && under_way.len() < WINDOW {
            let publishing = pubsub.publish(topic.as_str(), next.to_string());
            under_way.push_back(publishing.qos(QoS::AtLeastOnce).send());
            next += 1;
            continue;
        }
        if let Some(oldest) = under_way.pop_front() {
            oldest.await.unwrap();
        }
    }
    next
}

/// Moves the runtime's clock and the gateway's on, for ever.
async fn tick(broker_url: String, gateway: Clock) {
    let provider = MqttProvider::new(MqttOptions::new(broker_url)).unwrap();
    let broker = PubSub::new();
    broker.add_provider(DEFAULT_NAME, provider).unwrap();
    let (begun, begun_at) = (Instant::now(), gateway.now());
    loop {
        gateway.stop_at(begun_at + begun.elapsed());
        let asking = broker.publish("tick", "").qos(QoS::AtLeastOnce);
        asking.await.unwrap();
        tokio::time::advance(TICK).await;
    }
}

struct Run {
    issuer: Arc<CachedCredentials<Issuer>>,
    gateway: Gateway,
    renewals: Vec<u64>,
    messages: usize,
    time: Duration,
}

async fn soak(
    mosquitto: &Installation,
    life: Duration,
    time: Duration,
    change: impl Fn(AwsIotOptions) -> AwsIotOptions,
) -> Run {
    let broker = mosquitto.config().websocket().start().await.unwrap();
    // The client signs by the system's clock.
    let gateway = gateway_to(&broker.ws_url()).max_skew(Duration::MAX);
    let gateway = gateway.end_at_expiry().start().await.unwrap();
    let _clock = StoppedClock::stop();
    let mut ticking = tokio::task::JoinSet::new();
    ticking.spawn(tick(broker.ws_url(), gateway.clock().clone()));
    let issuer = Arc::new(CachedCredentials::new(Issuer {
        keys: gateway.keys().clone(),
        clock: gateway.clock().clone(),
        life,
        issued: Mutex::default(),
        under_way: AtomicUsize::new(0),
        most_at_once: AtomicUsize::new(0),
    }));
    let connect = || {
        let reconnect = Reconnect::default()
            .cap(Duration::from_secs(1))
            .stable_after(Duration::from_secs(2));
        let options = options(&gateway)
            .credentials(Arc::clone(&issuer))
            .session(SessionMode::Resumed {
                expiry: Duration::from_secs(600),
            })
            .protocol_version(ProtocolVersion::V5)
            .configure_mqtt(|mqtt| mqtt.reconnect(reconnect));
        client(change(options))
    };
    let (subscriber, subscribing) = connect();
    let mut messages = subscriber
        .subscribe("load/+")
        .qos(QoS::AtLeastOnce)
        .await
        .unwrap();
    let mut publishing = tokio::task::JoinSet::new();
    let mut providers = vec![subscribing];
    for n in 0..PUBLISHERS {
        let (pubsub, provider) = connect();
        providers.push(provider);
        publishing.spawn(publish_for(pubsub, format!("load/{n}"), time));
    }
    let reading = async {
        let mut seen: BTreeSet<(String, usize)> = BTreeSet::new();
        let mut expected = None;
        while expected.is_none_or(|expected| seen.len() < expected) {
            tokio::select! {
                message = messages.next() => {
                    let message = message.unwrap().unwrap();
                    let number = message.text().unwrap().parse().unwrap();
                    seen.insert((message.topic.to_string(), number));
                }
                Some(first) = publishing.join_next() => {
                    let mut total = first.unwrap();
                    while let Some(sent) = publishing.join_next().await {
                        total += sent.unwrap();
                    }
                    expected = Some(total);
                }
            }
        }
        seen.len()
    };
    let patience = time + Duration::from_secs(60);
    let messages = tokio::time::timeout(patience, reading)
        .await
        .expect("messages are missing");
    Run {
        renewals: providers
            .iter()
            .map(|provider| provider.stats().renewals)
            .collect(),
        issuer,
        gateway,
        messages,
        time,
    }
}

fn duration() -> Duration {
    let asked = std::env::var("PUBSUB_EXPIRY_SOAK_SECS");
    let secs = asked.map_or(14, |secs| secs.parse().expect("a number of seconds"));
    Duration::from_secs(secs)
}

fn check_the_books(run: &Run, name: &str) {
    let issuer = run.issuer.source();
    assert_eq!(
        issuer.most_at_once.load(Ordering::SeqCst),
        1,
        "one request at a time"
    );
    let issued = issuer.issued.lock().unwrap();
    let quiet = Duration::from_secs(1) - LATENCY;
    assert!(issued.windows(2).all(|pair| pair[1] - pair[0] >= quiet));
    let attempts = run.gateway.attempts();
    assert!(
        attempts
            .iter()
            .all(|attempt| attempt.outcome == Outcome::Accepted)
    );
    let ends = run.gateway.incidents();
    let ends = ends
        .iter()
        .filter(|(_, what)| *what == Incident::ConnectionLife)
        .count();
    println!(
        "| {name} | {} | {} | {} | {ends} | {:?} | {} | 1 |",
        run.time.as_secs(),
        run.messages,
        attempts.len(),
        run.renewals,
        issued.len(),
    );
}

#[tokio::test]
async fn connections_that_end_with_their_credentials_lose_no_message() {
    let Some(mosquitto) = testkit::mosquitto::find_or_skip() else {
        return;
    };
    let run = soak(&mosquitto, Duration::from_secs(4), duration(), |options| {
        options
    })
    .await;
    check_the_books(&run, "of 4 s, connections kept until they end");
    let ended = run.gateway.incidents();
    assert!(ended.len() >= PUBLISHERS, "{ended:?}");
    assert!(run.issuer.source().issued.lock().unwrap().len() >= 3);
}

#[tokio::test]
async fn connections_that_are_replaced_in_time_do_not_even_notice() {
    let Some(mosquitto) = testkit::mosquitto::find_or_skip() else {
        return;
    };
    // What is good for less than ten seconds, by the system's clock, is not replaced: half a minute of that may pass between
    // issuing and connecting.
    let life = Duration::from_secs(40);
    let time = duration().max(life + Duration::from_secs(5));
    let run = soak(&mosquitto, life, time, |options| {
        options.credential_expiry(CredentialExpiry::ReplaceConnection)
    })
    .await;
    check_the_books(&run, "of 40 s, connections replaced ahead of it");
    assert_eq!(run.gateway.incidents(), []);
    // A life of 40 s is half over after 20.
    assert!(
        run.renewals.iter().all(|renewals| *renewals >= 1),
        "{:?}",
        run.renewals
    );
}
