//! Credentials from a provider of the AWS SDK.
#![cfg(feature = "aws-credential-types")]
#![allow(missing_docs, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError as SdkError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use common::{KEY, SECRET, TOKEN, client, options, start};
use pubsub_aws_iot::{CredentialFreshness, CredentialSource, CredentialsErrorKind, SdkCredentials};

const ANY: CredentialFreshness = CredentialFreshness::Any;
const HOUR: Duration = Duration::from_secs(3600);

/// What a provider says each time, which it counts.
#[derive(Debug)]
struct Scripted(Arc<AtomicU32>, fn() -> provider::Result);

impl ProvideCredentials for Scripted {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        self.0.fetch_add(1, Ordering::SeqCst);
        future::ProvideCredentials::ready((self.1)())
    }
}

fn an_hours() -> provider::Result {
    let end = SystemTime::now() + HOUR;
    Ok(Credentials::new(
        KEY,
        SECRET,
        Some(TOKEN.into()),
        Some(end),
        "test",
    ))
}

#[tokio::test]
async fn what_a_provider_gives_signs_connections() {
    let (_broker, gateway) = start().await;
    let provider = SharedCredentialsProvider::new(an_hours().unwrap());
    let (pubsub, provider) = client(options(&gateway).credentials(SdkCredentials::new(provider)));
    provider.connect().await.unwrap();
    assert_eq!(gateway.attempts()[0].access_key_id.as_deref(), Some(KEY));
    pubsub.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_no_more_often_than_needed() {
    let calls = Arc::new(AtomicU32::new(0));
    let source = SdkCredentials::new(Scripted(Arc::clone(&calls), an_hours));
    for _ in 0..3 {
        let given = source.credentials(ANY).await.unwrap();
        assert_eq!(given.access_key_id(), KEY);
        let left = given.expiry().unwrap().duration_since(SystemTime::now());
        assert!(left.unwrap() > HOUR - Duration::from_secs(60));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    // Inside the last five minutes.
    tokio::time::advance(HOUR - Duration::from_secs(299)).await;
    source.credentials(ANY).await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    let shown = format!("{source:?} {:?}", source.credentials(ANY).await);
    assert!(!shown.contains("marker"), "{shown}");
}

#[tokio::test]
async fn each_failure_is_final_or_not() {
    use CredentialsErrorKind::{Missing, Unavailable};
    let cases: [(fn() -> provider::Result, _); 5] = [
        (|| Err(SdkError::not_loaded_no_source()), Missing),
        (|| Err(SdkError::invalid_configuration("loop")), Missing),
        (|| Err(SdkError::provider_timed_out(HOUR)), Unavailable),
        (|| Err(SdkError::provider_error("503")), Unavailable),
        (|| Err(SdkError::unhandled("odd")), Unavailable),
    ];
    for (says, kind) in cases {
        let source = SdkCredentials::new(Scripted(Arc::default(), says));
        let error = source.credentials(ANY).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
    }
}
