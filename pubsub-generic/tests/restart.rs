//! After a restart subscribers are told of the time in which nobody was there.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::memory::BrokerEnd;
use common::store::{Fickle, RESUMED, options, resume, send, start, start_with};
use pubsub_core::{Continuity, Event, GapCause, PubSub, PublishStage, QoS};
use pubsub_generic::{Change, MemorySessionStore, Record, SessionStore};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;

/// What a store has once something was subscribed to, and the process was killed.
async fn killed_with_a_subscription() -> MemorySessionStore {
    let store = MemorySessionStore::new();
    let (pubsub, _provider, mut broker) = start(store.clone());
    let subscribing = tokio::spawn({
        let pubsub = pubsub.clone();
        async move { pubsub.subscribe("a").qos(QoS::AtLeastOnce).await.unwrap() }
    });
    let mut end = broker.accept().await;
    let subscribe = end.packet().await.unwrap();
    end.send(&[0x90, 3, subscribe[2], subscribe[3], 1]);
    let _subscription = subscribing.await.unwrap();
    let mut mark = send(&pubsub, "m", "", QoS::AtLeastOnce);
    mark.reached(PublishStage::Stored).await.unwrap();
    let killed = MemorySessionStore::new();
    for Record { key, value } in store.load().unwrap() {
        let value = Some(value);
        killed.write(&[Change { key, value }]).unwrap();
    }
    killed
}

/// A broker that grants what it is asked for, confirms, and sends what the test wants it to. The connection ends with the answer.
fn serve(mut end: BrokerEnd) -> UnboundedSender<&'static [u8]> {
    let (send, mut to_send) = unbounded_channel::<&[u8]>();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                packet = end.packet() => match packet {
                    Some(packet) if packet[0] == 0x82 => {
                        let filters = filters_in(&packet);
                        let head = [0x90, 2 + filters, packet[2], packet[3]];
                        end.send(&[&head[..], &[1].repeat(filters.into())].concat());
                    }
                    Some(packet) if packet[0] & 0xf6 == 0x32 => {
                        // There is no payload here, so it ends with the identifier.
                        let id = packet.last_chunk::<2>().unwrap();
                        end.send(&[0x40, 2, id[0], id[1]]);
                    }
                    Some(_) => {}
                    None => break,
                },
                bytes = to_send.recv() => match bytes {
                    Some(bytes) => end.send(bytes),
                    None => break,
                },
            }
        }
    });
    send
}

/// How many filters, of one byte each, there are in a SUBSCRIBE.
fn filters_in(subscribe: &[u8]) -> u8 {
    (subscribe[1] - 2) / 4
}

/// The header record, without the client identifier.
fn header(store: &MemorySessionStore) -> Vec<u8> {
    let records = store.load().unwrap();
    let header = records.iter().find(|record| record.key[..] == [0]).unwrap();
    header.value.strip_suffix(b"me").unwrap().to_vec()
}

fn set_header(store: &MemorySessionStore, header: &[u8]) {
    let change = Change {
        key: vec![0].into(),
        value: Some([header, b"me"].concat().into()),
    };
    store.write(&[change]).unwrap();
}

fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.unwrap().as_millis()).unwrap()
}

/// A header of now, and how long ago it claims to be.
fn ago(length: Duration) -> Vec<u8> {
    let at = unix_millis() - u64::try_from(length.as_millis()).unwrap();
    [&[2][..], &at.to_be_bytes()].concat()
}

#[tokio::test]
async fn after_a_restart_subscribers_hear_how_long_nobody_was_there() {
    let hour = Duration::from_secs(3600);
    let back = (unix_millis() + 3_600_000).to_be_bytes();
    for (header, expected) in [
        (ago(hour), Some(hour)),
        (b"\x01".to_vec(), None),
        (b"\x02\0\0\0\0\0\0\0\0".to_vec(), None),
        ([&[2][..], &back].concat(), None),
        // Not set.
        (b"\x02\0\0\0\0\0\0\0\x09".to_vec(), None),
    ] {
        for (connack, continuity) in [
            (RESUMED, Continuity::Kept),
            (&[0x20, 2, 0, 0], Continuity::Lost),
        ] {
            for first_the_connection in [true, false] {
                let store = killed_with_a_subscription().await;
                set_header(&store, &header);
                let (pubsub, provider, mut broker) = start(store);
                let subscribe = |pubsub: PubSub| async move {
                    let subscription = pubsub.subscribe("a").qos(QoS::AtLeastOnce).await;
                    subscription.unwrap().events()
                };
                let connecting = tokio::spawn({
                    let provider = Arc::clone(&provider);
                    async move { provider.connect().await }
                });
                let early =
                    (!first_the_connection).then(|| tokio::spawn(subscribe(pubsub.clone())));
                // The subscribe is with the task before the connection stands.
                tokio::task::yield_now().await;
                let mut end = broker.transports.recv().await.unwrap();
                end.packet().await.unwrap();
                end.send(connack);
                let end = serve(end);
                connecting.await.unwrap().unwrap();
                end.send(b"\x32\x07\0\x01a\0\x0311").unwrap();
                let mut events = match early {
                    Some(early) => early.await.unwrap(),
                    None => subscribe(pubsub.clone()).await,
                };
                let Some(Ok(Event::Gap(gap))) = events.next().await else {
                    panic!("{header:02x?} {continuity:?}: the gap comes first");
                };
                assert_eq!((gap.cause, gap.continuity), (GapCause::Restart, continuity));
                match (gap.length, expected) {
                    (None, None) => {}
                    (Some(length), Some(expected)) => {
                        // By the wall clock, which is another by now.
                        let off = length.abs_diff(expected);
                        assert!(off < Duration::from_secs(600), "{length:?}");
                    }
                    other => panic!("{header:02x?}: {other:?}"),
                }
                assert!(matches!(events.next().await, Some(Ok(Event::Message(_)))));
                let mut fresh = pubsub.subscribe("b").await.unwrap();
                assert_eq!(fresh.stats().gaps, 0, "it is a new one");
                drop(fresh.next());
            }
        }
    }
}

#[tokio::test]
async fn when_the_broker_was_last_heard_is_stored_as_the_connection_ends() {
    let long_ago = ago(Duration::from_secs(3600));
    let store = killed_with_a_subscription().await;
    set_header(&store, &long_ago);
    let (pubsub, provider, mut broker) = start(store.clone());
    let connected = tokio::spawn(async move { provider.connect().await });
    let end = serve(resume(&mut broker).await);
    connected.await.unwrap().unwrap();
    while header(&store) == long_ago {
        // Stored with the connection, or the gap would be told of once more.
        tokio::task::yield_now().await;
    }
    set_header(&store, &long_ago);
    pubsub.close().await.unwrap();
    drop(end);
    let heard = u64::from_be_bytes(header(&store)[1..].try_into().unwrap());
    // By the wall clock, which is another by now.
    assert!(heard.abs_diff(unix_millis()) < 600_000, "{heard}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_stores_once_a_minute_that_the_broker_was_heard() {
    let (store, mut calls) = Fickle::new();
    let options = options(store.clone()).keep_alive(Duration::from_secs(600));
    let (pubsub, provider, mut broker) = start_with(options, Vec::new());
    let connected = tokio::spawn(async move { provider.connect().await });
    let end = broker.accept().await;
    connected.await.unwrap().unwrap();
    calls.recv().await.unwrap();
    // Without subscriptions nobody would ever ask.
    let idle = tokio::time::timeout(Duration::from_secs(65), calls.recv()).await;
    assert!(idle.is_err(), "{idle:?}");
    let _end = serve(end);
    let _subscription = pubsub.subscribe("a").await.unwrap();
    while !calls
        .recv()
        .await
        .unwrap()
        .iter()
        .any(|change| change.key[0] == 5)
    {}
    // The wall clock stands still here: what was heard lies further back by it each minute.
    let begin = Instant::now();
    let stamp = calls.recv().await.unwrap();
    let keys: Vec<_> = stamp.iter().map(|change| &change.key[..]).collect();
    assert_eq!(keys, [&[0]], "the header alone");
    let waited = begin.elapsed();
    assert!(
        waited >= Duration::from_secs(59) && waited <= Duration::from_secs(61),
        "{waited:?}"
    );
}
