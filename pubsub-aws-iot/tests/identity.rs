//! Whose connection it is: nobody's yet, somebody's, somebody else's.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::time::Duration;

use common::{SECRET, access_key, client, credentials, options, start};
use pubsub_aws_iot::core::{ConnectionState, Event};
use pubsub_aws_iot::{AwsCredentials, CredentialCell, DEFAULT_NAME, IdentityChanged, Reconnect};
use pubsub_generic::Jitter;
use testkit::gateway::{AccessKey, Outcome};

#[tokio::test]
async fn without_credentials_it_waits_and_wakes_when_they_come() {
    let (_broker, gateway) = start().await;
    let cell = CredentialCell::new();
    let (pubsub, _) = client(options(&gateway).credentials(cell.clone()));
    let mut connection = pubsub.connection(DEFAULT_NAME).unwrap();
    let publishing = pubsub.publish("a", "x").send();
    connection
        .reached(ConnectionState::Connecting)
        .await
        .unwrap();
    assert!(gateway.attempts().is_empty());
    cell.sign_in(credentials());
    publishing.await.unwrap();
    assert_eq!(gateway.attempts().len(), 1);
    pubsub.close().await.unwrap();
}

/// The wait between attempts ends when somebody signs in, however long the policy would have it.
#[tokio::test]
async fn who_signs_in_between_two_attempts_is_not_kept_waiting() {
    let (_broker, gateway) = start().await;
    let cell = CredentialCell::new();
    let seldom = Duration::from_secs(24 * 60 * 60);
    let policy = Reconnect::default().first(seldom).base(seldom).cap(seldom);
    let options = options(&gateway)
        .credentials(cell.clone())
        .configure_mqtt(|mqtt| {
            mqtt.reconnect(policy.jitter(Jitter::None))
                .connect_timeout(Duration::from_secs(60))
        });
    let (pubsub, provider) = client(options);
    // The first attempt waits for credentials alone, and no socket with it: its time may pass at once. The second may take
    // its own.
    tokio::time::pause();
    let error = provider.connect().await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    let mut connection = pubsub.connection(DEFAULT_NAME).unwrap();
    connection
        .reached(ConnectionState::ConnectionDisrupted)
        .await
        .unwrap();
    tokio::time::resume();
    cell.sign_in(credentials());
    connection
        .reached(ConnectionState::Connected)
        .await
        .unwrap();
    assert_eq!(gateway.attempts().len(), 1);
    pubsub.close().await.unwrap();
}

#[tokio::test]
async fn another_identity_means_another_connection() {
    let (_broker, gateway) = start().await;
    gateway.keys().add(AccessKey::new("AKIDBOB", SECRET));
    let cell = CredentialCell::new();
    cell.sign_in(credentials());
    let (pubsub, provider) = client(options(&gateway).credentials(cell.clone()));
    let mut events = pubsub.subscribe("a").await.unwrap().events();

    // New credentials of the same identity change nothing for a connection that stands.
    cell.renew(credentials());
    pubsub.publish("a", "1").await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(Event::Message(_)))));
    assert_eq!(gateway.attempts().len(), 1);

    let mut connection = pubsub.connection(DEFAULT_NAME).unwrap();
    cell.sign_in(AwsCredentials::new("AKIDBOB", SECRET));
    let lost = connection
        .reached(ConnectionState::ConnectionDisrupted)
        .await
        .unwrap();
    let reason = lost.reason.unwrap();
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&reason);
    let named = std::iter::from_fn(|| {
        let error = next?;
        next = error.source();
        Some(error)
    })
    .any(|error| error.is::<IdentityChanged>());
    assert!(named, "{reason:?}");
    connection
        .reached(ConnectionState::Connected)
        .await
        .unwrap();
    let attempts = gateway.attempts();
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[1].access_key_id.as_deref(), Some("AKIDBOB"));
    assert_eq!(attempts[1].outcome, Outcome::Accepted);
    assert!(matches!(events.next().await, Some(Ok(Event::Gap(_)))));

    // Nobody: the connection ends, and none is made until somebody signs in.
    cell.sign_out();
    gateway.wait_for_open(0).await;
    connection
        .reached(ConnectionState::Connecting)
        .await
        .unwrap();
    assert_eq!(gateway.attempts().len(), 2);
    gateway.keys().add(access_key());
    cell.sign_in(credentials());
    connection
        .reached(ConnectionState::Connected)
        .await
        .unwrap();
    assert_eq!(provider.stats().subscriptions, 1);
    pubsub.close().await.unwrap();
}
