//! When the provider connects, retries, waits and gives up: on a paused clock, with the test as the broker.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::memory::{Step, memory};
use common::{cause, register};
use pubsub_core::{
    ConnectionState as State, Event, HoldLimits, HoldPolicy, Network, OfflinePolicy, Provider,
    ProviderErrorKind, PubSub, PublishError, QoS, WithCauses,
};
use pubsub_generic::{
    ConnectError, ConnectErrorKind, ConnectionError, CredentialFreshness, DEFAULT_NAME, Displaced,
    IdleConnection, Jitter, MqttOptions, MqttProvider, OfflineOverflow, ProtocolVersion, Reconnect,
    Renewal, Requester, RequesterOptions, Retry, SessionMode,
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
async fn a_publish_offline_fails_waits_or_queues_as_it_was_told() {
    let (connect, mut broker) = memory(vec![Step::Hang]);
    let options = steady().connect_timeout(Duration::from_secs(100));
    let (pubsub, _provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let begin = Instant::now();
    let queued = pubsub.publish("q", "").offline(OfflinePolicy::Queue).send();

    let failed = pubsub
        .publish("a", "")
        .offline(OfflinePolicy::Fail)
        .await
        .unwrap_err();
    assert!(
        matches!(failed, PublishError::NotSent(error) if error.kind() == ProviderErrorKind::NotConnected)
    );
    assert_eq!(begin.elapsed(), Duration::ZERO);

    let patient = OfflinePolicy::WaitUpTo(Duration::from_secs(40));
    let late = pubsub.publish("a", "").offline(patient).await.unwrap_err();
    assert!(
        matches!(late, PublishError::NotSent(error) if error.kind() == ProviderErrorKind::TimedOut)
    );
    assert_eq!(begin.elapsed().as_secs(), 40);

    let in_time = pubsub
        .publish("w", "")
        .offline(OfflinePolicy::WaitUpTo(Duration::from_secs(90)))
        .send();
    let mut end = broker.accept().await;
    end.expect(b"\x30\x03\0\x01q").await;
    end.expect(b"\x30\x03\0\x01w").await;
    queued.await.unwrap();
    in_time.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_in_messages_and_bytes() {
    let (connect, _broker) = memory(vec![Step::Hang]);
    let (messages, bytes) = (3.try_into().unwrap(), 100.try_into().unwrap());
    let (pubsub, provider) =
        register(MqttProvider::with_connect(steady().queue(messages, bytes), connect).unwrap());
    let _accepted: Vec<_> = (0..3).map(|_| pubsub.publish("a", "x").send()).collect();
    tokio::task::yield_now().await;
    let refused = pubsub.publish("a", "x").await.unwrap_err();
    assert!(
        matches!(refused, PublishError::NotSent(error) if error.kind() == ProviderErrorKind::QueueFull)
    );
    assert_eq!(provider.stats().publishes_pending, 3);
    assert_eq!(provider.stats().publish_bytes_pending, 6);

    let (connect, _broker) = memory(vec![Step::Hang]);
    let (pubsub, _provider) =
        register(MqttProvider::with_connect(steady().queue(messages, bytes), connect).unwrap());
    let _accepted = pubsub.publish("a", [0; 60].as_slice()).send();
    let refused = pubsub.publish("a", [0; 60].as_slice()).await.unwrap_err();
    assert!(
        matches!(refused, PublishError::NotSent(error) if error.kind() == ProviderErrorKind::QueueFull)
    );

    // One that no queue of this size will ever take is not worth a second try, and the broker is not to blame.
    let (connect, _broker) = memory(vec![Step::Hang]);
    let (pubsub, _provider) =
        register(MqttProvider::with_connect(steady().queue(messages, bytes), connect).unwrap());
    let refused = pubsub.publish("a", [0; 200].as_slice()).await.unwrap_err();
    assert!(!refused.is_retryable());
    assert_eq!(
        WithCauses::new(&refused).to_string(),
        "not published: it was not sent: a local queue is full: \
         the packet has 207 bytes, the whole queue may have 100"
    );
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_that_nobody_answers_fails_in_time_and_is_taken_back() {
    let (connect, mut broker) = memory(Vec::new());
    let options = steady()
        .subscribe_timeout(Duration::from_secs(20))
        .keep_alive(Duration::ZERO);
    let (pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let begin = Instant::now();
    let (subscribed, mut end) =
        tokio::join!(async { pubsub.subscribe("a").await }, broker.accept());
    assert!(subscribed.is_err());
    assert_eq!(begin.elapsed().as_secs(), 20);
    assert_eq!(end.packet().await.unwrap()[0], 0x82);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(provider.stats().subscriptions, 0);
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

#[tokio::test(start_paused = true)]
async fn a_publish_on_a_lost_link_is_sent_again_or_reported_as_unknown() {
    let (connect, mut broker) = memory(Vec::new());
    let options = steady().configure_session(|session| {
        session.in_flight_on_lost_session = mqtt_session::InFlightOnLostSession::Report;
    });
    let (pubsub, _provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let publishing = pubsub.publish("a", "").qos(QoS::AtLeastOnce).send();
    let mut end = broker.accept().await;
    assert_eq!(end.packet().await.unwrap()[0], 0x32);
    drop(end);
    let _end = broker.accept().await;
    assert!(matches!(
        publishing.await.unwrap_err(),
        PublishError::Indeterminate(_)
    ));

    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, _provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let publishing = pubsub.publish("a", "").qos(QoS::AtLeastOnce).send();
    let mut end = broker.accept().await;
    assert_eq!(end.packet().await.unwrap()[0], 0x32);
    drop(end);
    let mut end = broker.accept().await;
    let again = end.packet().await.unwrap();
    end.send(&[0x40, 2, again[5], again[6]]);
    publishing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_refused_filter_does_not_hurt_the_others() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, _provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let (subscribed, _end) =
        tokio::join!(async { pubsub.subscribe(["a", "b", "c"]).await }, async {
            let mut end = broker.accept().await;
            let subscribe = end.packet().await.unwrap();
            end.send(&[0x90, 5, subscribe[2], subscribe[3], 0, 0x80, 0]);
            end.send(b"\x30\x04\0\x01c1");
            end
        });
    let mut messages = subscribed.unwrap();
    let granted: Vec<bool> = messages
        .outcomes()
        .iter()
        .map(|outcome| outcome.result.is_ok())
        .collect();
    assert_eq!(granted, [true, false, true]);
    assert_eq!(messages.next().await.unwrap().unwrap().topic, "c");
}

#[tokio::test(start_paused = true)]
async fn of_more_filters_than_there_may_be_those_that_fit_are_subscribed() {
    let (connect, mut broker) = memory(Vec::new());
    let options = steady().configure_session(|session| session.max_subscriptions = 3);
    let (pubsub, _) = register(MqttProvider::with_connect(options, connect).unwrap());
    let (subscribed, _end) = tokio::join!(
        async { pubsub.subscribe(["a", "b", "c", "d", "e"]).await },
        async {
            let mut end = broker.accept().await;
            let subscribe = end.packet().await.unwrap();
            end.send(&[0x90, 5, subscribe[2], subscribe[3], 0, 0, 0]);
            end
        }
    );
    let granted: Vec<bool> = subscribed
        .unwrap()
        .outcomes()
        .iter()
        .map(|outcome| match &outcome.result {
            Ok(_) => true,
            Err(refusal) => {
                let reason = refusal.source.as_ref().unwrap();
                assert_eq!(reason.kind(), ProviderErrorKind::LimitExceeded);
                false
            }
        })
        .collect();
    assert_eq!(granted, [true, true, true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn offline_the_oldest_make_room_where_that_is_wanted() {
    const ROOM: usize = 1000;
    let (connect, mut broker) = memory(vec![Step::Hang]);
    let options = steady()
        .connect_timeout(Duration::from_secs(10))
        .offline(OfflinePolicy::Queue)
        .offline_overflow(OfflineOverflow::DropOldest)
        .queue(ROOM.try_into().unwrap(), (1 << 20).try_into().unwrap());
    let (pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let mut receipts = Vec::new();
    for n in 0..5 * ROOM {
        let qos = if n % 2 == 0 {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        };
        receipts.push(pubsub.publish("a", format!("{n:04}")).qos(qos).send());
        // In bursts of all sizes, up to far more than fits.
        if n < 2 * ROOM && n % 7 == 0 {
            tokio::task::yield_now().await;
        }
        assert!(provider.stats().publishes_pending <= 2 * ROOM);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(provider.stats().publishes_pending, ROOM);
    for displaced in receipts.drain(..4 * ROOM) {
        let PublishError::NotSent(error) = displaced.await.unwrap_err() else {
            panic!("sent, or unknown")
        };
        assert_eq!(error.kind(), ProviderErrorKind::QueueFull);
        assert!(cause::<Displaced>(&error).is_some());
    }
    let mut end = broker.accept().await;
    // In order for each QoS.
    let mut next = [4 * ROOM, 4 * ROOM + 1];
    for _ in 0..ROOM {
        let publish = end.packet().await.unwrap();
        let acknowledged = usize::from(publish[0] == 0x32);
        let n = next[acknowledged];
        assert!(publish.ends_with(format!("{n:04}").as_bytes()));
        next[acknowledged] += 2;
        if acknowledged == 1 {
            end.send(&[0x40, 2, publish[5], publish[6]]);
        }
    }
    for kept in receipts {
        kept.await.unwrap();
    }
    // With a connection, a full queue is back-pressure.
    let publish = || pubsub.publish("a", "x").qos(QoS::AtLeastOnce).send();
    let _waiting: Vec<_> = (0..ROOM).map(|_| publish()).collect();
    let PublishError::NotSent(error) = publish().await.unwrap_err() else {
        panic!("sent, or unknown")
    };
    assert_eq!(error.kind(), ProviderErrorKind::QueueFull);
    assert!(cause::<Displaced>(&error).is_none());
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
async fn a_subscriber_that_holds_too_much_has_the_broker_keep_it_where_that_is_wanted() {
    let (connect, mut broker) = memory(Vec::new());
    let options = steady().session(SessionMode::Resumed {
        expiry: Duration::from_secs(600),
    });
    let (pubsub, _provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let hold = HoldLimits::default()
        .with_messages(2)
        .with_policy(HoldPolicy::DropConnection);
    let subscribe = pubsub.subscribe("a").qos(QoS::AtLeastOnce).hold(hold);
    let (subscribed, mut end) = tokio::join!(async { subscribe.await }, async {
        let mut end = broker.accept().await;
        let subscribe = end.packet().await.unwrap();
        end.send(&[0x90, 3, subscribe[2], subscribe[3], 1]);
        end
    });
    let mut messages = subscribed.unwrap();
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    watch.reached(State::Connected).await.unwrap();
    for n in 1..=3 {
        end.send(&[0x32, 6, 0, 1, b'a', 0, n, n]);
    }
    let dropped = watch.reached(State::ConnectionDisrupted).await.unwrap();
    let reason = dropped.reason.unwrap();
    assert!(matches!(
        cause(&reason),
        Some(ConnectionError::SlowSubscriber)
    ));
    assert_eq!(end.packet().await, None, "and none of them confirmed");
    let mut end = broker.transports.recv().await.unwrap();
    assert_eq!(end.packet().await.unwrap()[0], 0x10);
    end.send(&[0x20, 2, 1, 0]);
    let mut seen = Vec::new();
    // The broker sends again what it has no answer to.
    for n in 1..=3 {
        end.send(&[0x3a, 6, 0, 1, b'a', 0, n, n]);
        loop {
            let payload = messages.next().await.unwrap().unwrap().payload[0];
            seen.push(payload);
            if payload == n && seen.len() > 2 {
                break;
            }
        }
    }
    seen.dedup();
    assert!(seen.ends_with(&[1, 2, 3]), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_the_broker_hangs_up_on_is_set_aside_and_the_rest_goes_on() {
    let (connect, mut broker) = memory(Vec::new());
    let options = steady().session(SessionMode::Resumed {
        expiry: Duration::from_secs(600),
    });
    let (pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let publish = |payload: &str| {
        pubsub
            .publish("p", payload.to_owned())
            .qos(QoS::AtLeastOnce)
            .send()
    };
    let receipts = [publish("good 1"), publish("poison"), publish("good 2")];
    let brokering = tokio::spawn(async move {
        let mut connections = 0;
        while let Some(mut end) = broker.transports.recv().await {
            connections += 1;
            while let Some(packet) = end.packet().await {
                match packet[0] {
                    0x10 => end.send(&[0x20, 2, u8::from(connections > 1), 0]),
                    // It hangs up.
                    _ if packet.ends_with(b"poison") => break,
                    0x32 | 0x3a => end.send(&[0x40, 2, packet[5], packet[6]]),
                    _ => {}
                }
            }
        }
        connections
    });
    let [good_1, poison, good_2] = receipts;
    good_1.await.unwrap();
    let error = poison.await.unwrap_err();
    assert!(matches!(error, PublishError::Indeterminate(_)), "{error:?}");
    good_2.await.unwrap();
    publish("good 3").await.unwrap();
    drop((pubsub, provider));
    assert!(brokering.await.unwrap() < 10);
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

#[tokio::test(start_paused = true)]
async fn nothing_that_was_left_in_line_begins_anew_after_a_stop() {
    let fatal = || Step::Fail(ConnectError::new(ConnectErrorKind::Configuration));
    let (connect, mut broker) = memory(vec![fatal(), fatal()]);
    let (pubsub, _provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    // More than are taken in one round.
    let publishes: Vec<_> = (0..2000).map(|_| pubsub.publish("a", "x").send()).collect();
    for publish in publishes {
        assert!(matches!(
            publish.await.unwrap_err(),
            PublishError::NotSent(_)
        ));
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(broker.attempts.try_recv().is_ok());
    assert!(
        broker.attempts.try_recv().is_err(),
        "one attempt and no more"
    );
}

#[tokio::test(start_paused = true)]
async fn a_flood_on_one_thread_leaves_the_subscriber_its_turns() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, _provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let (subscribed, end) = tokio::join!(async { pubsub.subscribe("a").await }, async {
        let mut end = broker.accept().await;
        let subscribe = end.packet().await.unwrap();
        end.send(&[0x90, 3, subscribe[2], subscribe[3], 0]);
        end
    });
    let mut messages = subscribed.unwrap();
    // All of it lies ready: the driver never finds its socket empty.
    let chunk = b"\x30\x04\0\x01ax".repeat(200);
    for _ in 0..500 {
        end.send(&chunk);
    }
    for _ in 0..100_000 {
        messages.next().await.unwrap().unwrap();
    }
    assert_eq!(messages.stats().dropped, 0);
}
