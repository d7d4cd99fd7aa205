//! Several endpoints of one broker, and what becomes of refusals.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::memory::{Broker, BrokerEnd, CONNACK, Step, memory};
use common::{cause, register};
use pubsub_core::{ConnectionState as State, ProviderErrorKind, PubSub};
use pubsub_generic::{
    ConnectError, ConnectErrorKind, ConnectionError, CredentialFreshness, DEFAULT_NAME,
    EndpointOrder, Jitter, Login, MqttOptions, MqttProvider, OptionsError, ProtocolVersion,
    Reconnect, Refusal, Retry,
};
use tokio::time::Instant;

fn steady() -> MqttOptions {
    MqttOptions::without_url()
        .client_id("me")
        .reconnect(Reconnect::default().jitter(Jitter::None))
}

fn fail(kind: ConnectErrorKind) -> Step {
    Step::Fail(ConnectError::new(kind))
}

fn start(
    options: MqttOptions,
    endpoints: &[&str],
    steps: Vec<Step>,
) -> (PubSub, Arc<MqttProvider>, Broker) {
    let (mut connect, broker) = memory(steps);
    connect.endpoints = endpoints.iter().map(|name| (*name).to_owned()).collect();
    let (pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    (pubsub, provider, broker)
}

async fn accept_with(end: &mut BrokerEnd, connack: &[u8]) -> Vec<u8> {
    let connect = end.packet().await.unwrap();
    assert_eq!(connect[0], 0x10);
    end.send(connack);
    connect.to_vec()
}

#[tokio::test(start_paused = true)]
async fn a_round_goes_to_every_endpoint_at_once_and_the_back_off_is_for_rounds() {
    let dead = || fail(ConnectErrorKind::Dial);
    let steps = (0..8).map(|_| dead()).collect();
    let (pubsub, provider, mut broker) = start(steady(), &["a:1", "b:2", "c:3"], steps);
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    let begin = Instant::now();
    let error = provider.connect().await.unwrap_err();
    assert!(error.is_retryable());
    let mut tried = Vec::new();
    for _ in 0..9 {
        let (at, attempt) = broker.attempts.recv().await.unwrap();
        tried.push((
            at.duration_since(begin).as_millis() / 50 * 50,
            attempt.endpoint(),
        ));
    }
    let round = |at| [(at, 0), (at, 1), (at, 2)];
    assert_eq!(tried, [round(0), round(250), round(1250)].concat());
    let _end = broker.accept().await;
    let mut states = Vec::new();
    while states.last() != Some(&State::Connected) {
        states.push(watch.changed().await.unwrap().state);
    }
    // One change a round, not one an endpoint.
    let round = [State::Connecting, State::ConnectionDisrupted];
    assert_eq!(
        states,
        [
            &[State::Disconnected][..],
            &round,
            &round,
            &[State::Connecting, State::Connected]
        ]
        .concat()
    );
    assert_eq!(provider.stats().endpoint.as_deref(), Some("c:3"));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_cannot_heal_does_not_stop_the_others() {
    let steps = vec![fail(ConnectErrorKind::Configuration)];
    let (_pubsub, provider, mut broker) = start(steady(), &["a:1", "b:2"], steps);
    let (connected, _end) = tokio::join!(provider.connect(), broker.accept());
    connected.unwrap();

    let hopeless = (0..2).map(|_| fail(ConnectErrorKind::Configuration));
    let (_pubsub, provider, mut broker) = start(steady(), &["a:1", "b:2"], hopeless.collect());
    let error = provider.connect().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (ProviderErrorKind::Invalid, false)
    );
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(broker.attempts.try_recv().is_ok() && broker.attempts.try_recv().is_ok());
    assert!(broker.attempts.try_recv().is_err(), "two attempts in all");
}

#[tokio::test(start_paused = true)]
async fn a_loss_begins_with_the_preferred_endpoint_again() {
    let steps = vec![fail(ConnectErrorKind::Dial)];
    let (_pubsub, provider, mut broker) = start(steady(), &["a:1", "b:2"], steps);
    let (connected, end) = tokio::join!(provider.connect(), broker.accept());
    connected.unwrap();
    drop(end);
    broker.accept().await;
    let tried: Vec<usize> = std::iter::from_fn(|| broker.attempts.try_recv().ok())
        .map(|(_, attempt)| attempt.endpoint())
        .collect();
    assert_eq!(tried, [0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_names_another_server_is_left_for_our_own_others() {
    for reason in [0x9c, 0x9d] {
        let options = steady().protocol_version(ProtocolVersion::V5);
        let (pubsub, provider, mut broker) = start(options, &["a:1", "b:2"], Vec::new());
        let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
        let (connected, end) = tokio::join!(provider.connect(), async {
            // In the CONNACK, with a server reference of its own choice.
            let mut first = broker.transports.recv().await.unwrap();
            let mut refusal = vec![0x20, 11, 0, reason, 8, 0x1c, 0, 5];
            refusal.extend_from_slice(b"evil!");
            accept_with(&mut first, &refusal).await;
            let mut second = broker.transports.recv().await.unwrap();
            accept_with(&mut second, &[0x20, 3, 0, 0, 0]).await;
            second
        });
        connected.unwrap();
        watch.reached(State::Connected).await.unwrap();
        // And in a DISCONNECT.
        end.send(&[0xe0, 2, reason, 0]);
        let mut third = broker.transports.recv().await.unwrap();
        accept_with(&mut third, &[0x20, 3, 0, 0, 0]).await;
        watch.reached(State::Connected).await.unwrap();
        let tried: Vec<usize> = std::iter::from_fn(|| broker.attempts.try_recv().ok())
            .map(|(_, attempt)| attempt.endpoint())
            .collect();
        assert_eq!(tried, [0, 1, 0], "{reason:02x}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_alone_that_names_another_server_is_retried_or_given_up() {
    for (reason, retried) in [(0x9c, true), (0x9d, false)] {
        let options = steady().protocol_version(ProtocolVersion::V5);
        let (_pubsub, provider, mut broker) = start(options, &[], Vec::new());
        let (connected, ()) = tokio::join!(provider.connect(), async {
            let mut end = broker.transports.recv().await.unwrap();
            let mut refusal = vec![0x20, 11, 0, reason, 8, 0x1c, 0, 5];
            refusal.extend_from_slice(b"other");
            accept_with(&mut end, &refusal).await;
        });
        let error = connected.unwrap_err();
        assert_eq!(error.is_retryable(), retried, "{reason:02x}");
        let Some(ConnectionError::Refused(refusal)) = cause(&error) else {
            panic!("{error:?}")
        };
        assert_eq!(refusal.server_reference(), Some("other"));
    }
}

/// A source of logins that says what it was asked, and gives out a password a call.
fn source(asked: &Arc<Mutex<Vec<CredentialFreshness>>>) -> impl pubsub_generic::LoginSource {
    let asked = Arc::clone(asked);
    move |freshness: CredentialFreshness| {
        let mut asked = asked.lock().unwrap();
        asked.push(freshness);
        let password = format!("token-{}", asked.len());
        async move { Ok(Login::new("u").password(password)) }
    }
}

#[tokio::test(start_paused = true)]
async fn bad_credentials_heal_once_where_there_is_a_source_of_them() {
    use CredentialFreshness::{Any, Renew};
    const BAD_LOGIN: &[u8] = &[0x20, 2, 0, 4];

    let asked = Arc::default();
    let options = steady().login_source(source(&asked));
    let (_pubsub, provider, mut broker) = start(options, &[], Vec::new());
    let (first, connects) = tokio::join!(provider.connect(), async {
        let mut connects = Vec::new();
        for answer in [BAD_LOGIN, CONNACK, CONNACK] {
            let mut end = broker.transports.recv().await.unwrap();
            connects.push(accept_with(&mut end, answer).await);
            if answer == CONNACK {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        connects
    });
    assert!(first.unwrap_err().is_retryable());
    for (n, connect) in connects.iter().enumerate() {
        let password = format!("token-{}", n + 1);
        assert!(connect.ends_with(password.as_bytes()), "{connect:02x?}");
    }
    // After a connection that stood, the cache will do again.
    assert_eq!(*asked.lock().unwrap(), [Any, Renew, Any]);

    let asked = Arc::default();
    let options = steady().login_source(source(&asked));
    let (pubsub, provider, mut broker) = start(options, &[], Vec::new());
    let (first, ()) = tokio::join!(provider.connect(), async {
        for _ in 0..2 {
            let mut end = broker.transports.recv().await.unwrap();
            accept_with(&mut end, BAD_LOGIN).await;
        }
    });
    first.unwrap_err();
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    let end = watch.reached(State::Disconnected).await.unwrap();
    let reason = end.reason.unwrap();
    assert_eq!(
        (reason.kind(), reason.is_retryable()),
        (ProviderErrorKind::NotAuthenticated, false)
    );
    assert_eq!(*asked.lock().unwrap(), [Any, Renew]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_upgrade_heals_the_same_way() {
    let refused = |status| {
        Step::Fail(
            ConnectError::new(ConnectErrorKind::Refused)
                .with_retry(Retry::Never)
                .with_refusal(Refusal::new(status, Vec::new())),
        )
    };
    for (status, heals) in [(401, true), (403, true), (404, false)] {
        let asked = Arc::default();
        let options = steady().login_source(source(&asked));
        let (_pubsub, provider, _broker) = start(options, &[], vec![refused(status)]);
        let error = provider.connect().await.unwrap_err();
        assert_eq!(error.is_retryable(), heals, "{status}");
        let (_pubsub, provider, _broker) = start(steady(), &[], vec![refused(status)]);
        let error = provider.connect().await.unwrap_err();
        assert!(!error.is_retryable(), "{status}, and nothing can change");
    }
}

#[tokio::test(start_paused = true)]
async fn the_program_has_the_last_word_on_what_is_retried() {
    const NOT_AUTHORIZED: &[u8] = &[0x20, 2, 0, 5];

    let options = steady().on_failure(|failure, default| match failure {
        ConnectionError::Refused(_) => Retry::Later,
        _ => default,
    });
    let (_pubsub, provider, mut broker) = start(options, &[], Vec::new());
    let (first, ()) = tokio::join!(provider.connect(), async {
        for answer in [NOT_AUTHORIZED, NOT_AUTHORIZED, CONNACK] {
            let mut end = broker.transports.recv().await.unwrap();
            accept_with(&mut end, answer).await;
        }
    });
    assert!(first.unwrap_err().is_retryable(), "as it is retried");

    let options = steady().on_failure(|_, _| Retry::Never);
    let steps = vec![fail(ConnectErrorKind::Dial)];
    let (_pubsub, provider, mut broker) = start(options, &[], steps);
    assert!(!provider.connect().await.unwrap_err().is_retryable());
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(broker.attempts.try_recv().is_ok());
    assert!(broker.attempts.try_recv().is_err());
}

#[test]
fn a_login_shows_nothing_and_goes_alone() {
    let login = Login::new("marker-user").password("marker-password");
    assert!(!format!("{login:?}").contains("marker"));
    let options = steady()
        .user_name("u")
        .login_source(|_: CredentialFreshness| async { Ok(Login::anonymous()) });
    let (connect, _broker) = memory(Vec::new());
    let error = MqttProvider::with_connect(options, connect).unwrap_err();
    assert!(matches!(error, OptionsError::LoginConflict));
}

#[cfg(feature = "ws")]
#[test]
fn endpoints_are_bounded_and_each_is_judged() {
    let mut options = MqttOptions::new("wss://h/0");
    for n in 1..64 {
        options = options.endpoint(format!("wss://h/{n}"));
    }
    MqttProvider::new(options.clone()).unwrap();
    let error = MqttProvider::new(options.endpoint("wss://h/64")).unwrap_err();
    assert!(matches!(error, OptionsError::TooManyEndpoints));
    let plain = MqttOptions::new("wss://h/").endpoint("ws://broker.example/");
    let error = MqttProvider::new(plain).unwrap_err();
    assert!(matches!(error, OptionsError::PlainUrl));
    let shown = MqttOptions::new("wss://h/").endpoint("wss://u:marker@h/?k=marker");
    assert!(!format!("{shown:?}").contains("marker"));
}

#[cfg(feature = "ws")]
#[tokio::test]
async fn the_surviving_node_of_two_is_found_and_the_first_one_preferred_again() {
    use pubsub_core::{Event, Json, QoS};

    let Some(mosquitto) = testkit::mosquitto::find_or_skip() else {
        return;
    };
    let mut first = mosquitto.config().websocket().start().await.unwrap();
    let mut second = mosquitto.config().websocket().start().await.unwrap();
    for order in [EndpointOrder::AsGiven, EndpointOrder::Random] {
        let options = MqttOptions::new(first.ws_url())
            .endpoint(second.ws_url())
            .endpoint_order(order);
        let (pubsub, provider) = common::client(options);
        let subscription = pubsub.subscribe("a").qos(QoS::AtLeastOnce).await.unwrap();
        let mut events = subscription.events();
        let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
        for round in 0..4 {
            let at = provider.stats().endpoint.unwrap();
            let addresses = [&first, &second].map(|node| node.ws_address().to_string());
            let on = addresses.iter().position(|name| **name == *at).unwrap();
            if order == EndpointOrder::AsGiven {
                assert_eq!(on, round % 2, "each loss begins with the first");
            }
            let (dies, stays) = match on {
                0 => (&mut first, 1),
                _ => (&mut second, 0),
            };
            watch.reached(State::Connected).await.unwrap();
            dies.kill();
            watch.reached(State::ConnectionDisrupted).await.unwrap();
            watch.reached(State::Connected).await.unwrap();
            assert_eq!(*provider.stats().endpoint.unwrap(), *addresses[stays]);
            pubsub
                .publish("a", Json(&round))
                .qos(QoS::AtLeastOnce)
                .await
                .unwrap();
            assert!(matches!(events.next().await, Some(Ok(Event::Gap(_)))));
            assert!(matches!(events.next().await, Some(Ok(Event::Message(_)))));
            dies.start().await.unwrap();
        }
        pubsub.close().await.unwrap();
    }
}
