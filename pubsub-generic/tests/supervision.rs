//! When the provider connects, retries, waits and gives up: on a paused clock, with the test as the broker.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::time::Duration;

use common::memory::{Step, memory};
use common::{cause, register};
use pubsub_core::{
    ConnectionState as State, Event, Network, OfflinePolicy, ProviderErrorKind, PublishError,
};
use pubsub_generic::{
    ConnectError, ConnectErrorKind, ConnectionError, CredentialFreshness, DEFAULT_NAME,
    IdleConnection, Jitter, MqttOptions, MqttProvider, ProtocolVersion, Reconnect, Renewal, Retry,
};
use tokio::time::Instant;

fn steady() -> MqttOptions {
    MqttOptions::without_url()
        .client_id("me")
        .reconnect(Reconnect::default().jitter(Jitter::None))
}

fn unreachable_host() -> Step {
    Step::Fail(ConnectError::new(ConnectErrorKind::Dial))
}

#[tokio::test(start_paused = true)]
async fn nothing_connects_before_it_is_needed() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(broker.attempts.try_recv().is_err());
    assert_eq!(provider.stats().connections, 0);
    let publishing = pubsub.publish("a", "x").send();
    let mut end = broker.accept().await;
    end.expect(b"\x30\x04\0\x01ax").await;
    publishing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn retries_follow_the_policy_and_count_from_one() {
    let (connect, mut broker) = memory((0..6).map(|_| unreachable_host()).collect());
    let (_pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let begin = Instant::now();
    let error = provider.connect().await.unwrap_err();
    assert!(error.is_retryable());
    let mut at = Duration::ZERO;
    for (n, delay) in [0, 250, 1000, 2000, 4000, 8000, 16000]
        .into_iter()
        .enumerate()
    {
        at += Duration::from_millis(delay);
        let (when, attempt) = broker.attempts.recv().await.unwrap();
        assert_eq!(attempt.number() as usize, n + 1);
        assert_eq!(attempt.client_id(), "me");
        let late = when
            .duration_since(begin)
            .checked_sub(at)
            .expect("too early");
        assert!(
            late < Duration::from_millis(20),
            "attempt {n} came {late:?} late"
        );
    }
    broker.accept().await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_another_attempt_is_worth_making() {
    let (connect, mut broker) = memory((0..3).map(|_| unreachable_host()).collect());
    let (come, coming) = tokio::sync::oneshot::channel::<()>();
    *connect.worth_trying.lock().unwrap() = Some(Box::pin(async {
        let _ = coming.await;
    }));
    let seldom = Duration::from_secs(1000);
    let options = steady().reconnect(
        Reconnect::default()
            .jitter(Jitter::None)
            .first(seldom)
            .base(seldom)
            .cap(seldom),
    );
    let (_pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let begin = Instant::now();
    provider.connect().await.unwrap_err();
    assert_eq!(broker.next_attempt(begin).await.as_secs(), 0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(broker.attempts.try_recv().is_err());
    come.send(()).unwrap();
    assert_eq!(broker.next_attempt(begin).await.as_secs(), 10);
    // It was for that wait alone; the next one is the policy's.
    assert_eq!(broker.next_attempt(begin).await.as_secs(), 1010);
}

#[tokio::test(start_paused = true)]
async fn jitter_spreads_the_retries_of_many() {
    let mut first_retries = Vec::new();
    for _ in 0..20 {
        let (connect, mut broker) = memory(vec![unreachable_host(), unreachable_host()]);
        let options = MqttOptions::without_url()
            .reconnect(Reconnect::default().first(Duration::from_secs(60)));
        let (_pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
        let begin = Instant::now();
        provider.connect().await.unwrap_err();
        broker.next_attempt(begin).await;
        first_retries.push(broker.next_attempt(begin).await.as_secs());
    }
    first_retries.sort_unstable();
    first_retries.dedup();
    assert!(first_retries.len() > 8, "{first_retries:?}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_is_given_up_at_the_deadline() {
    let (connect, _broker) = memory(vec![Step::Hang]);
    let (_pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let begin = Instant::now();
    let error = provider.connect().await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::TimedOut);
    assert!(matches!(
        cause(&error),
        Some(ConnectionError::ConnectTimeout)
    ));
    assert_eq!(begin.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_missing_connack_is_under_the_same_deadline() {
    let (connect, mut broker) = memory(Vec::new());
    let options = steady().connect_timeout(Duration::from_secs(7));
    let (_pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let begin = Instant::now();
    let error = provider.connect().await.unwrap_err();
    assert!(
        matches!(cause(&error), Some(ConnectionError::ConnectTimeout)),
        "{error:?}"
    );
    assert_eq!(begin.elapsed().as_secs(), 7);
    let mut end = broker.transports.recv().await.unwrap();
    assert_eq!(end.packet().await.unwrap()[0], 0x10);
    assert_eq!(end.packet().await, None, "the transport is dropped");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_heal_stops_everything_with_its_reason() {
    let fatal = Step::Fail(ConnectError::new(ConnectErrorKind::Configuration));
    let (connect, mut broker) = memory(vec![unreachable_host(), fatal]);
    let (pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let waiting = pubsub
        .publish("a", "x")
        .offline(OfflinePolicy::Queue)
        .send();
    let subscribing = pubsub.subscribe("a").await;
    assert!(subscribing.is_err());
    let error = waiting.await.unwrap_err();
    assert!(!error.is_retryable());
    let PublishError::NotSent(error) = error else {
        panic!("{error:?}")
    };
    assert_eq!(error.kind(), ProviderErrorKind::Invalid);
    // From here on every call fails at once, for the same reason.
    let error = pubsub.publish("a", "x").await.unwrap_err();
    assert!(
        matches!(error, PublishError::NotSent(error) if error.kind() == ProviderErrorKind::Invalid)
    );
    assert_eq!(
        pubsub.connection(DEFAULT_NAME).unwrap().current().state,
        State::Disconnected
    );
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(broker.attempts.len(), 2);
    // Until somebody asks for a connection again.
    let (connected, _end) = tokio::join!(provider.connect(), broker.accept());
    connected.unwrap();
}

#[tokio::test(start_paused = true)]
async fn retries_run_out_if_they_are_limited() {
    let (connect, broker) = memory((0..9).map(|_| unreachable_host()).collect());
    let options = steady().reconnect(Reconnect::default().attempts(3));
    let (pubsub, _provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let error = pubsub
        .publish("a", "x")
        .offline(OfflinePolicy::Queue)
        .await
        .unwrap_err();
    assert!(matches!(error, PublishError::NotSent(_)), "{error:?}");
    assert_eq!(broker.attempts.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_renewed_for_the_next_attempt() {
    let refused =
        ConnectError::new(ConnectErrorKind::Refused).with_retry(Retry::WithFreshCredentials);
    let (connect, mut broker) = memory(vec![Step::Fail(refused)]);
    let (_pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    provider.connect().await.unwrap_err();
    broker.accept().await;
    let asked: Vec<_> = (0..2)
        .map(|_| broker.attempts.try_recv().unwrap().1.credentials())
        .collect();
    assert_eq!(
        asked,
        [CredentialFreshness::Any, CredentialFreshness::Renew]
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_loss_the_subscriptions_stand_before_connected_is_said() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, _provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let (subscribed, end) = tokio::join!(async { pubsub.subscribe("a").await }, async {
        let mut end = broker.accept().await;
        let subscribe = end.packet().await.unwrap();
        end.send(&[0x90, 3, subscribe[2], subscribe[3], 0]);
        end
    });
    let mut events = subscribed.unwrap().events();
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    end.send(b"\x30\x04\0\x01a1");
    assert!(matches!(events.next().await, Some(Ok(Event::Message(_)))));
    tokio::time::sleep(Duration::from_secs(40)).await;
    drop(end);
    watch.reached(State::ConnectionDisrupted).await.unwrap();

    let mut end = broker.accept().await;
    let subscribe = end.packet().await.unwrap();
    assert_eq!(&subscribe[4..], b"\0\x01a\0", "{subscribe:02x?}");
    assert_eq!(
        watch.current().state,
        State::Connecting,
        "not before the SUBACK"
    );
    end.send(&[0x90, 3, subscribe[2], subscribe[3], 0]);
    watch.reached(State::Connected).await.unwrap();
    // The gap counts from the last sign of life, and comes before what is new.
    end.send(b"\x30\x04\0\x01a2");
    let Some(Ok(Event::Gap(gap))) = events.next().await else {
        panic!("no gap")
    };
    assert_eq!(gap.length.unwrap().as_secs(), 40);
    let Some(Ok(Event::Message(message))) = events.next().await else {
        panic!("no message")
    };
    assert_eq!(message.payload, "2");
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_noticed_although_we_keep_publishing() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, _provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let _sent = pubsub.publish("a", "").offline(OfflinePolicy::Queue).send();
    let end = broker.accept().await;
    let begin = Instant::now();
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    let chatter = async {
        loop {
            let _ = pubsub.publish("a", "").offline(OfflinePolicy::Queue).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    };
    let lost = tokio::select! {
        () = chatter => None,
        lost = watch.reached(State::ConnectionDisrupted) => lost,
    };
    let seconds = begin.elapsed().as_secs();
    assert!(
        (70..76).contains(&seconds),
        "keep alive and ping timeout: {seconds} s"
    );
    let reason = lost.unwrap().reason.unwrap();
    let session = cause::<mqtt_session::ConnectionError>(&reason);
    assert!(
        matches!(session, Some(mqtt_session::ConnectionError::Timeout(_))),
        "{reason:?}"
    );
    drop(end);
}

#[tokio::test(start_paused = true)]
async fn two_clients_with_one_identifier_are_recognised_and_do_not_race() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    let begin = Instant::now();
    let (connected, end) = tokio::join!(provider.connect(), broker.accept());
    connected.unwrap();
    drop(end);
    for _ in 0..5 {
        drop(broker.accept().await);
    }
    let mut reasons = Vec::new();
    while reasons.len() < 6 {
        let status = watch.changed().await.unwrap();
        if status.state == State::ConnectionDisrupted {
            reasons.push(status.reason.unwrap().kind());
        }
    }
    assert_eq!(reasons[..2], [ProviderErrorKind::ConnectionLost; 2]);
    assert_eq!(reasons[2..], [ProviderErrorKind::TakenOver; 4]);
    // 0.25 + 1 + 2 + 4 + 8 s: the delays grow although every connection was accepted.
    assert!(
        begin.elapsed() >= Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_take_over_that_the_broker_tells_is_backed_off_from() {
    let (connect, mut broker) = memory(Vec::new());
    let options = steady().protocol_version(ProtocolVersion::V5);
    let (pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    let (connected, end) = tokio::join!(provider.connect(), async {
        let mut end = broker.transports.recv().await.unwrap();
        assert_eq!(end.packet().await.unwrap()[0], 0x10);
        end.send(&[0x20, 3, 0, 0, 0]);
        end
    });
    connected.unwrap();
    let begin = Instant::now();
    end.send(&[0xe0, 2, 0x8e, 0]);
    let lost = watch.reached(State::ConnectionDisrupted).await.unwrap();
    assert_eq!(lost.reason.unwrap().kind(), ProviderErrorKind::TakenOver);
    broker.transports.recv().await.unwrap();
    // Not with the quick first retry, so that two of one name do not race.
    assert_eq!(begin.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_host_says_when_the_network_is_there() {
    let (connect, mut broker) = memory(vec![
        unreachable_host(),
        unreachable_host(),
        unreachable_host(),
    ]);
    let options = steady().reconnect(Reconnect::amplify());
    let (pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    provider.network(Network::Down);
    let begin = Instant::now();
    let waiting = pubsub.publish("a", "").offline(OfflinePolicy::Queue).send();
    watch
        .reached(State::ConnectionDisruptedPendingNetwork)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(
        broker.attempts.try_recv().is_err(),
        "no attempt without a network"
    );
    provider.network(Network::Up);
    assert_eq!(broker.next_attempt(begin).await.as_secs(), 600, "at once");
    tokio::time::sleep(Duration::from_secs(1)).await;
    provider.network(Network::Up);
    assert_eq!(
        broker.next_attempt(begin).await.as_secs(),
        601,
        "not after Amplify's five seconds"
    );
    assert_eq!(broker.next_attempt(begin).await.as_secs(), 606);
    let mut end = broker.accept().await;
    end.expect(b"\x30\x03\0\x01a").await;
    waiting.await.unwrap();
    provider.network(Network::Down);
    watch.reached(State::ConnectedPendingNetwork).await.unwrap();
    provider.network(Network::Up);
    watch.reached(State::Connected).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_its_linger_and_opened_again() {
    let (connect, mut broker) = memory(Vec::new());
    let options = steady().idle(IdleConnection::CloseAfter(Duration::from_secs(5)));
    let (pubsub, _provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    let publishing = pubsub.publish("a", "").send();
    let mut end = broker.accept().await;
    end.expect(b"\x30\x03\0\x01a").await;
    publishing.await.unwrap();
    let begin = Instant::now();
    end.expect(&[0xe0, 0]).await;
    assert_eq!(begin.elapsed().as_secs(), 5);
    watch.reached(State::Disconnected).await.unwrap();
    assert_eq!(end.packet().await, None);
    let publishing = pubsub.publish("b", "").send();
    let mut end = broker.accept().await;
    end.expect(b"\x30\x03\0\x01b").await;
    publishing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_late_sign_of_life_shows_in_the_state() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let (connected, mut end) = tokio::join!(provider.connect(), broker.accept());
    connected.unwrap();
    let begin = Instant::now();
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    watch
        .reached(State::ConnectedPendingKeepAlive)
        .await
        .unwrap();
    assert_eq!(
        begin.elapsed().as_secs(),
        65,
        "keep alive and half of the ping timeout"
    );
    end.expect(&[0xc0, 0]).await;
    end.send(&[0xd0, 0]);
    watch.reached(State::Connected).await.unwrap();
    assert_eq!(
        provider.stats().round_trip.map(|time| time.as_secs()),
        Some(5)
    );
}

#[tokio::test(start_paused = true)]
async fn a_time_without_end_may_be_asked_for_wherever_there_is_a_time() {
    const EVER: Duration = Duration::MAX;
    let (connect, mut broker) = memory(Vec::new());
    let options = MqttOptions::without_url()
        .ping_timeout(EVER)
        .connect_timeout(EVER)
        .close_timeout(EVER)
        .subscribe_timeout(EVER)
        .claim_timeout(EVER)
        .offline(OfflinePolicy::WaitUpTo(EVER))
        .idle(IdleConnection::CloseAfter(EVER))
        .reconnect(
            Reconnect::default()
                .first(EVER)
                .base(EVER)
                .cap(EVER)
                .stable_after(EVER),
        )
        .renewal(
            Renewal::default()
                .max_age(Duration::from_secs(600))
                .margin(EVER)
                .drain_timeout(EVER),
        );
    let (pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let (connected, mut end) = tokio::join!(provider.connect(), broker.accept());
    connected.unwrap();
    // Asked for a sign of life, and then replaced.
    end.expect(&[0xc0, 0]).await;
    end.send(&[0xd0, 0]);
    let _next = broker.accept().await;
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    watch.reached(State::Connected).await.unwrap();
    pubsub.close().await.unwrap();
    assert_eq!(provider.stats().renewals, 1);
}
