//! Against a gateway that checks signatures with an implementation that is not ours.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::{KEY, REGION, SECRET, access_key, client, credentials, gateway_to, options, start};
use pubsub_aws_iot::core::{ConnectionState, Event};
use pubsub_aws_iot::{
    AwsCredentials, AwsIotOptions, CredentialFreshness, CredentialsError, DEFAULT_NAME, Json,
    PlainWs, ProtocolVersion, QoS, credentials_fn,
};
use testkit::certs::Authority;
use testkit::gateway::{AccessKey, Gateway, Outcome, Refusal};

const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::V5, ProtocolVersion::V311];

/// JSON goes round between two clients, at both assurances, and the gateway had nothing to object to.
async fn goes_round(gateway: &Gateway, options: impl Fn() -> AwsIotOptions) {
    let (alice, _) = client(options());
    let (bob, _) = client(options());
    let mut messages = bob.subscribe("chat/+").qos(QoS::AtLeastOnce).await.unwrap();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        alice
            .publish("chat/lobby", Json(&[1, 2]))
            .qos(qos)
            .await
            .unwrap();
        let message = messages.next().await.unwrap().unwrap();
        assert_eq!(message.topic, "chat/lobby");
        assert_eq!(message.qos, qos);
        assert_eq!(message.json::<Vec<u32>>().unwrap(), [1, 2]);
    }
    alice.close().await.unwrap();
    bob.close().await.unwrap();
    for attempt in gateway.attempts() {
        assert_eq!(attempt.outcome, Outcome::Accepted);
        assert_eq!(attempt.access_key_id.as_deref(), Some(KEY));
    }
    assert_eq!(gateway.incidents(), []);
}

#[tokio::test]
async fn publishes_and_receives_through_the_gateway() {
    for version in VERSIONS {
        let (_broker, gateway) = start().await;
        goes_round(&gateway, || options(&gateway).protocol_version(version)).await;
        assert_eq!(gateway.attempts().len(), 2);
    }
}

#[tokio::test]
async fn publishes_and_receives_through_the_gateway_and_mosquitto() {
    let Some(mosquitto) = testkit::mosquitto::find_or_skip() else {
        return;
    };
    let broker = mosquitto.config().websocket().start().await.unwrap();
    for version in VERSIONS {
        let gateway = gateway_to(&broker.ws_url()).start().await.unwrap();
        goes_round(&gateway, || options(&gateway).protocol_version(version)).await;
    }
}

#[tokio::test]
async fn publishes_and_receives_over_tls_to_a_private_root() {
    let broker = testkit::embedded::Broker::start().await.unwrap();
    let authority = Authority::new();
    let gateway = gateway_to(&broker.url()).tls(&authority.server());
    let gateway = gateway.start().await.unwrap();
    let options = || {
        AwsIotOptions::new(gateway.endpoint())
            .region(REGION)
            .extra_roots_pem(authority.pem())
            .credentials(credentials())
    };
    goes_round(&gateway, options).await;
}

#[tokio::test]
async fn long_term_credentials_need_no_token() {
    let (_broker, gateway) = start().await;
    gateway.keys().add(AccessKey::new("AKIDLONGTERM", SECRET));
    let (_pubsub, provider) =
        client(options(&gateway).credentials(AwsCredentials::new("AKIDLONGTERM", SECRET)));
    provider.connect().await.unwrap();
}

/// The real host is signed and sent, whatever is dialled: the gateway insists on it.
#[tokio::test]
async fn the_host_that_is_signed_is_the_host_that_is_sent() {
    const HOST: &str = "a1b2c3example-ats.iot.eu-west-1.amazonaws.com";
    let broker = testkit::embedded::Broker::start().await.unwrap();
    let authority = Authority::new();
    let gateway = gateway_to(&broker.url())
        .host(HOST)
        .tls(&authority.server_for(&[HOST]))
        .start()
        .await
        .unwrap();
    for endpoint in [
        HOST.to_owned(),
        format!("wss://{}:443/mqtt", HOST.to_uppercase()),
    ] {
        let options = AwsIotOptions::new(endpoint)
            .extra_roots_pem(authority.pem())
            .dialer(Elsewhere(gateway.address()))
            .credentials(credentials());
        let (pubsub, provider) = client(options);
        assert_eq!(provider.region(), Some(REGION));
        provider.connect().await.unwrap();
        pubsub.close().await.unwrap();
    }
    assert_eq!(gateway.attempts().len(), 2);
}

#[derive(Debug)]
struct Elsewhere(std::net::SocketAddr);

impl ws_transport::Dial for Elsewhere {
    fn dial<'a>(&'a self, _: &'a ws_transport::Target) -> ws_transport::DialFuture<'a> {
        Box::pin(async {
            let stream = tokio::net::TcpStream::connect(self.0).await;
            Ok(Box::new(stream.map_err(ws_transport::DialError::from)?) as ws_transport::BoxedIo)
        })
    }
}

#[tokio::test]
async fn every_connection_is_signed_anew() {
    let (_broker, gateway) = start().await;
    // The clock of the signatures has seconds; a source that changes its key shows that it is asked each time.
    let asked = Arc::new(AtomicUsize::new(0));
    for n in 0..3 {
        gateway
            .keys()
            .add(AccessKey::new(&format!("AKID{n}"), SECRET));
    }
    let source = {
        let asked = Arc::clone(&asked);
        credentials_fn(move |freshness| {
            assert_eq!(freshness, CredentialFreshness::Any);
            let n = asked.fetch_add(1, Ordering::SeqCst);
            async move { Ok(AwsCredentials::new(format!("AKID{n}"), SECRET)) }
        })
    };
    let (pubsub, _) = client(options(&gateway).credentials(source));
    let mut events = pubsub.subscribe("a").await.unwrap().events();
    let mut connection = pubsub.connection(DEFAULT_NAME).unwrap();
    for n in 1..3 {
        gateway.wait_for_open(1).await;
        gateway.close_all();
        connection
            .reached(ConnectionState::ConnectionDisrupted)
            .await
            .unwrap();
        connection
            .reached(ConnectionState::Connected)
            .await
            .unwrap();
        pubsub.publish("a", n.to_string()).await.unwrap();
        assert!(matches!(events.next().await, Some(Ok(Event::Gap(_)))));
        let Some(Ok(Event::Message(message))) = events.next().await else {
            panic!("no message");
        };
        assert_eq!(message.text().unwrap(), n.to_string());
    }
    let attempts = gateway.attempts();
    assert_eq!(attempts.len(), 3);
    for (n, attempt) in attempts.iter().enumerate() {
        assert_eq!(attempt.outcome, Outcome::Accepted);
        assert_eq!(attempt.access_key_id, Some(format!("AKID{n}")));
    }
    assert!(
        attempts
            .windows(2)
            .all(|pair| pair[0].signature != pair[1].signature)
    );
    pubsub.close().await.unwrap();
}

#[tokio::test]
async fn a_wrong_clock_is_corrected_once_and_for_good() {
    const OFF: Duration = Duration::from_secs(7 * 3600);
    type Turn = fn(&Gateway);
    let turns: [Turn; 2] = [
        |gateway| gateway.clock().run_ahead(OFF),
        |gateway| gateway.clock().run_behind(OFF),
    ];
    for turn in turns {
        let (_broker, gateway) = start().await;
        turn(&gateway);
        let (pubsub, provider) = client(options(&gateway));
        provider.connect().await.unwrap();
        let outcomes: Vec<_> = gateway.attempts().into_iter().map(|a| a.outcome).collect();
        assert!(
            matches!(
                outcomes[..],
                [Outcome::Refused(Refusal::Skew { .. }), Outcome::Accepted]
            ),
            "{outcomes:?}"
        );
        // The next connection begins with what was learnt.
        let mut connection = pubsub.connection(DEFAULT_NAME).unwrap();
        gateway.close_all();
        connection
            .reached(ConnectionState::ConnectionDisrupted)
            .await
            .unwrap();
        connection
            .reached(ConnectionState::Connected)
            .await
            .unwrap();
        let attempts = gateway.attempts();
        assert_eq!(attempts.len(), 3);
        assert_eq!(attempts[2].outcome, Outcome::Accepted);
        pubsub.close().await.unwrap();
    }
}

/// Set when a fresh source was asked for.
fn source_that_renews(
    stale: AwsCredentials,
    fresh: AwsCredentials,
) -> (
    impl pubsub_aws_iot::CredentialSource,
    Arc<Mutex<Vec<CredentialFreshness>>>,
) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let source = credentials_fn(move |freshness| {
        log.lock().unwrap().push(freshness);
        let given = match freshness {
            CredentialFreshness::Renew => fresh.clone(),
            _ => stale.clone(),
        };
        async move { Ok::<_, CredentialsError>(given) }
    });
    (source, asked)
}

#[tokio::test]
async fn refused_credentials_are_renewed_once() {
    let (_broker, gateway) = start().await;
    let (source, asked) = source_that_renews(
        AwsCredentials::new(KEY, SECRET).session_token("a token of yesterday"),
        credentials(),
    );
    let (_pubsub, provider) = client(options(&gateway).credentials(source));
    provider.connect().await.unwrap();
    assert_eq!(
        *asked.lock().unwrap(),
        [CredentialFreshness::Any, CredentialFreshness::Renew]
    );
    let outcomes: Vec<_> = gateway.attempts().into_iter().map(|a| a.outcome).collect();
    assert_eq!(
        outcomes,
        [Outcome::Refused(Refusal::SessionToken), Outcome::Accepted]
    );
}

#[tokio::test]
async fn expired_credentials_are_renewed_before_anything_is_signed() {
    let (_broker, gateway) = start().await;
    let (source, asked) = source_that_renews(
        credentials().expires_at(SystemTime::now() - Duration::from_secs(3600)),
        credentials(),
    );
    let (_pubsub, provider) = client(options(&gateway).credentials(source));
    provider.connect().await.unwrap();
    assert_eq!(
        *asked.lock().unwrap(),
        [CredentialFreshness::Any, CredentialFreshness::Renew]
    );
    assert_eq!(gateway.attempts().len(), 1);
}

/// With a clock that is ahead, good credentials look expired. They are used all the same, and the refusal tells.
#[tokio::test]
async fn a_clock_that_is_ahead_does_not_make_good_credentials_bad() {
    const OFF: Duration = Duration::from_secs(2 * 3600);
    let (_broker, gateway) = start().await;
    gateway.clock().run_behind(OFF);
    let end = SystemTime::now() - Duration::from_secs(3600);
    gateway.keys().add(access_key().expires_at(end));
    let (_pubsub, provider) = client(options(&gateway).credentials(credentials().expires_at(end)));
    provider.connect().await.unwrap();
    assert_eq!(gateway.attempts().len(), 2);
}

#[tokio::test]
async fn a_passing_failure_of_the_source_is_tried_again() {
    let (_broker, gateway) = start().await;
    let asked = AtomicUsize::new(0);
    let source = credentials_fn(move |_| {
        let n = asked.fetch_add(1, Ordering::SeqCst);
        async move {
            match n {
                0 => Err(CredentialsError::unavailable("the vault is busy")),
                1 => Err(CredentialsError::not_yet()),
                _ => Ok(credentials()),
            }
        }
    });
    let (pubsub, _) = client(options(&gateway).credentials(source));
    pubsub.publish("a", "x").await.unwrap();
    assert_eq!(gateway.attempts().len(), 1);
}

#[tokio::test]
async fn plain_ws_needs_to_be_asked_for() {
    let (_broker, gateway) = start().await;
    let options = options(&gateway).plain_ws(PlainWs::Refuse);
    let error = pubsub_aws_iot::AwsIotProvider::new(options).unwrap_err();
    assert!(matches!(
        error,
        pubsub_aws_iot::AwsIotOptionsError::Endpoint(pubsub_aws_iot::EndpointError::Plain)
    ));
}
