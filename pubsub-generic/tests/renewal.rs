//! Connections that are replaced ahead of their end.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::time::Duration;

use common::memory::{BrokerEnd, CONNACK, Step, memory};
use common::{cause, register};
use pubsub_core::{
    ConnectionState as State, Continuity, Event, GapCause, OfflinePolicy, Provider, PublishError,
    QoS,
};
use pubsub_generic::{
    ConnectError, ConnectErrorKind, ConnectionError, CredentialFreshness, DEFAULT_NAME, Jitter,
    MqttOptions, MqttProvider, Reconnect, Renewal, SessionMode,
};
use tokio::time::Instant;

const RESUMED: &[u8] = &[0x20, 2, 1, 0];
const DISCONNECT: &[u8] = &[0xe0, 0];

/// Replaces connections when they are 90 s old.
fn options() -> MqttOptions {
    let policy = Renewal::default()
        .max_age(Duration::from_secs(100))
        .margin(Duration::from_secs(10))
        .jitter(Jitter::None);
    MqttOptions::without_url()
        .client_id("me")
        .keep_alive(Duration::ZERO)
        .reconnect(Reconnect::default().jitter(Jitter::None))
        .session(SessionMode::Resumed {
            expiry: Duration::from_secs(600),
        })
        .renewal(policy)
}

async fn accept_with(end: &mut BrokerEnd, connack: &[u8]) {
    assert_eq!(end.packet().await.unwrap()[0], 0x10);
    end.send(connack);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_drained_and_replaced_ahead_of_its_age_limit() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, provider) = register(MqttProvider::with_connect(options(), connect).unwrap());
    let begin = Instant::now();
    let (subscribed, mut old) = tokio::join!(
        async { pubsub.subscribe("a").qos(QoS::AtLeastOnce).await },
        async {
            let mut end = broker.accept().await;
            let subscribe = end.packet().await.unwrap();
            end.send(&[0x90, 3, subscribe[2], subscribe[3], 1]);
            end
        }
    );
    let mut events = subscribed.unwrap().events();
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    assert_eq!(watch.changed().await.unwrap().state, State::Connected);
    let in_flight = pubsub.publish("p", "1").qos(QoS::AtLeastOnce).send();
    let publish = old.packet().await.unwrap();

    assert_eq!(broker.next_attempt(begin).await, Duration::ZERO);
    assert_eq!(broker.next_attempt(begin).await.as_secs(), 90);
    let mut new = broker.transports.recv().await.unwrap();
    // The new transport stands, and the old connection has an answer to come: what is new waits, and does not fail.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waiting = pubsub
        .publish("p", "2")
        .qos(QoS::AtLeastOnce)
        .offline(OfflinePolicy::Fail)
        .send();
    tokio::time::sleep(Duration::from_secs(1)).await;
    old.send(b"\x30\x04\0\x01a1");
    assert!(matches!(events.next().await, Some(Ok(Event::Message(_)))));
    assert_eq!(watch.current().state, State::Connected);
    old.send(&[0x40, 2, publish[5], publish[6]]);
    in_flight.await.unwrap();
    old.expect(DISCONNECT).await;
    assert_eq!(old.packet().await, None);

    let meant = watch.changed().await.unwrap();
    assert_eq!(meant.state, State::Connecting);
    let meant = meant.reason.unwrap();
    assert!(matches!(cause(&meant), Some(ConnectionError::Renewal)));
    assert!(meant.is_retryable());
    let between = pubsub
        .publish("p", "3")
        .qos(QoS::AtLeastOnce)
        .offline(OfflinePolicy::Fail)
        .send();
    tokio::time::sleep(Duration::from_secs(3)).await;
    accept_with(&mut new, RESUMED).await;
    for receipt in [waiting, between] {
        let publish = new.packet().await.unwrap();
        assert_eq!(publish[0], 0x32, "never sent before: {publish:02x?}");
        new.send(&[0x40, 2, publish[5], publish[6]]);
        receipt.await.unwrap();
    }
    assert_eq!(watch.changed().await.unwrap().state, State::Connected);
    let Some(Ok(Event::Gap(gap))) = events.next().await else {
        panic!("no gap")
    };
    assert_eq!(gap.cause, GapCause::Planned);
    assert_eq!(gap.continuity, Continuity::Kept);
    assert_eq!(gap.length.unwrap().as_secs(), 3);
    let stats = provider.stats();
    assert_eq!((stats.connections, stats.renewals), (2, 1));
    assert_eq!(stats.last_renewal_gap.unwrap().as_secs(), 3);

    // And once more: the age counts from the new transport.
    assert_eq!(broker.next_attempt(begin).await.as_secs(), 180);
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_says_how_long_it_is_good_has_its_credentials_renewed() {
    let (mut connect, mut broker) = memory(Vec::new());
    connect.good_for = Some(Duration::from_secs(1000));
    let options = options().renewal(Renewal::default().jitter(Jitter::None));
    let (_pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let begin = Instant::now();
    let (connected, _end) = tokio::join!(provider.connect(), broker.accept());
    connected.unwrap();
    let (_, attempt) = broker.attempts.recv().await.unwrap();
    assert_eq!(attempt.credentials(), CredentialFreshness::Any);
    let (at, attempt) = broker.attempts.recv().await.unwrap();
    assert_eq!(at.duration_since(begin).as_secs(), 940);
    assert_eq!(attempt.credentials(), CredentialFreshness::Renew);
    assert_eq!(attempt.number(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_the_next_one_does_not_come_about_the_old_one_works_on() {
    let fail = || Step::Fail(ConnectError::new(ConnectErrorKind::Dial));
    let (connect, mut broker) = memory(vec![Step::Pass, fail(), fail()]);
    let (pubsub, provider) = register(MqttProvider::with_connect(options(), connect).unwrap());
    let begin = Instant::now();
    let (connected, mut old) = tokio::join!(provider.connect(), broker.accept());
    connected.unwrap();
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    watch.reached(State::Connected).await.unwrap();
    let mut attempts = Vec::new();
    for _ in 0..3 {
        attempts.push(broker.next_attempt(begin).await.as_millis());
    }
    assert_eq!(attempts[..2], [0, 90_000]);
    assert!((90_250..90_270).contains(&attempts[2]), "{attempts:?}");
    let publishing = pubsub.publish("p", "1").send();
    old.expect(b"\x30\x04\0\x01p1").await;
    publishing.await.unwrap();
    old.expect(DISCONNECT).await;
    let mut new = broker.transports.recv().await.unwrap();
    accept_with(&mut new, RESUMED).await;
    let states = [
        watch.changed().await.unwrap().state,
        watch.changed().await.unwrap().state,
    ];
    assert_eq!(states, [State::Connecting, State::Connected]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_answered_in_time_is_sent_again_on_the_new_connection() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, provider) = register(MqttProvider::with_connect(options(), connect).unwrap());
    let (connected, mut old) = tokio::join!(provider.connect(), broker.accept());
    connected.unwrap();
    let begin = Instant::now();
    let receipt = pubsub.publish("p", "1").qos(QoS::ExactlyOnce).send();
    assert_eq!(old.packet().await.unwrap()[0], 0x34);
    old.expect(DISCONNECT).await;
    assert_eq!(begin.elapsed().as_secs(), 95, "five seconds of draining");
    let mut new = broker.transports.recv().await.unwrap();
    accept_with(&mut new, RESUMED).await;
    let again = new.packet().await.unwrap();
    assert_eq!(again[0], 0x3c, "{again:02x?}");
    new.send(&[0x50, 2, again[5], again[6]]);
    assert_eq!(new.packet().await.unwrap()[0], 0x62);
    new.send(&[0x70, 2, again[5], again[6]]);
    receipt.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_next_connection_that_is_refused_is_a_loss_like_any_other() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, provider) = register(MqttProvider::with_connect(options(), connect).unwrap());
    let (connected, mut old) = tokio::join!(provider.connect(), broker.accept());
    connected.unwrap();
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    old.expect(DISCONNECT).await;
    drop(old);
    let mut new = broker.transports.recv().await.unwrap();
    watch.reached(State::Connecting).await.unwrap();
    let failing = pubsub.publish("p", "1").offline(OfflinePolicy::Fail).send();
    let waiting = pubsub.publish("p", "2").send();
    // Server unavailable.
    accept_with(&mut new, &[0x20, 2, 0, 3]).await;
    assert!(matches!(
        failing.await.unwrap_err(),
        PublishError::NotSent(_)
    ));
    watch.reached(State::ConnectionDisrupted).await.unwrap();
    let mut third = broker.transports.recv().await.unwrap();
    accept_with(&mut third, RESUMED).await;
    third.expect(b"\x30\x04\0\x01p2").await;
    waiting.await.unwrap();
    assert_eq!(provider.stats().renewals, 0);
}

#[tokio::test(start_paused = true)]
async fn a_loss_in_the_middle_of_it_is_recovered_from_at_once() {
    for drained in [false, true] {
        let steps = if drained {
            Vec::new()
        } else {
            vec![Step::Pass, Step::Hang]
        };
        let (connect, mut broker) = memory(steps);
        let (pubsub, provider) = register(MqttProvider::with_connect(options(), connect).unwrap());
        let begin = Instant::now();
        let (connected, mut old) = tokio::join!(provider.connect(), broker.accept());
        connected.unwrap();
        let receipt = pubsub.publish("p", "1").qos(QoS::AtLeastOnce).send();
        assert_eq!(old.packet().await.unwrap()[0], 0x32);
        for _ in 0..2 {
            broker.next_attempt(begin).await;
        }
        // Somebody is dialled to, or waits for the PUBACK.
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(old);
        if drained {
            let mut given_up = broker.transports.recv().await.unwrap();
            assert_eq!(given_up.packet().await, None);
        }
        let mut third = broker.transports.recv().await.unwrap();
        assert_eq!(begin.elapsed().as_secs(), 91, "the quick first retry");
        accept_with(&mut third, RESUMED).await;
        let again = third.packet().await.unwrap();
        assert_eq!(again[0], 0x3a);
        third.send(&[0x40, 2, again[5], again[6]]);
        receipt.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_peer_that_does_not_read_holds_nothing_up() {
    let (connect, mut broker) = memory(vec![Step::Deaf]);
    let (_pubsub, provider) = register(MqttProvider::with_connect(options(), connect).unwrap());
    let begin = Instant::now();
    let (connected, mut old) = tokio::join!(provider.connect(), broker.accept());
    connected.unwrap();
    let mut given_up = broker.transports.recv().await.unwrap();
    assert_eq!(given_up.packet().await, None);
    assert_eq!(old.packet().await, None, "without a DISCONNECT");
    let mut third = broker.transports.recv().await.unwrap();
    accept_with(&mut third, RESUMED).await;
    let late = begin.elapsed();
    assert!(late < Duration::from_secs(92), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn closing_in_any_stage_of_it_ends_in_order() {
    // Dialling, draining, arriving.
    for stage in 0..3 {
        let steps = match stage {
            0 => vec![Step::Pass, Step::Hang],
            _ => Vec::new(),
        };
        let (connect, mut broker) = memory(steps);
        let (pubsub, provider) = register(MqttProvider::with_connect(options(), connect).unwrap());
        let (connected, mut old) = tokio::join!(provider.connect(), broker.accept());
        connected.unwrap();
        let in_flight = (stage == 1).then(|| pubsub.publish("p", "1").qos(QoS::AtLeastOnce).send());
        let publish = match &in_flight {
            Some(_) => Some(old.packet().await.unwrap()),
            None => None,
        };
        tokio::time::sleep(Duration::from_secs(92)).await;
        let closing = provider.close();
        let answering = async {
            if let Some(publish) = publish {
                old.send(&[0x40, 2, publish[5], publish[6]]);
            }
            old.expect(DISCONNECT).await;
            assert_eq!(old.packet().await, None);
        };
        let (closed, ()) = tokio::join!(closing, answering);
        closed.unwrap();
        if let Some(receipt) = in_flight {
            receipt.await.unwrap();
        }
        drop((pubsub, provider));
        while let Some(mut end) = broker.transports.recv().await {
            let last = end.packet().await;
            assert!(last.is_none_or(|packet| packet[0] == 0x10), "stage {stage}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_clean_session_is_made_anew_and_the_subscriber_told() {
    let (connect, mut broker) = memory(Vec::new());
    let options = options().session(SessionMode::Clean);
    let (pubsub, _provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let (subscribed, mut old) = tokio::join!(async { pubsub.subscribe("a").await }, async {
        let mut end = broker.accept().await;
        let subscribe = end.packet().await.unwrap();
        end.send(&[0x90, 3, subscribe[2], subscribe[3], 0]);
        end
    });
    let mut events = subscribed.unwrap().events();
    old.expect(DISCONNECT).await;
    let mut new = broker.transports.recv().await.unwrap();
    accept_with(&mut new, CONNACK).await;
    let subscribe = new.packet().await.unwrap();
    assert_eq!(subscribe[0], 0x82);
    new.send(&[0x90, 3, subscribe[2], subscribe[3], 0]);
    let Some(Ok(Event::Gap(gap))) = events.next().await else {
        panic!("no gap")
    };
    assert_eq!(
        (gap.cause, gap.continuity),
        (GapCause::Planned, Continuity::Lost)
    );
}

#[test]
fn an_age_of_zero_is_refused() {
    let (connect, _broker) = memory(Vec::new());
    let options = MqttOptions::without_url().renewal(Renewal::default().max_age(Duration::ZERO));
    let error = MqttProvider::with_connect(options, connect).unwrap_err();
    assert!(error.to_string().contains("maximum age"), "{error}");
}
