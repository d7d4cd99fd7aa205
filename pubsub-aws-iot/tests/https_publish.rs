//! Publishing over HTTPS, against moto, which verifies the signature with an implementation that is not ours, and against
//! a server that the test plays.
#![cfg(feature = "https-publish")]
#![allow(missing_docs, reason = "tests")]

mod common;
mod moto;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::{StoppedClock, answer, captured};
use moto::{Moto, REGION};
use pubsub_aws_iot::core::{OutboundMessage, TopicName};
use pubsub_aws_iot::{
    AwsCredentials, AwsIotOptions, CredentialFreshness, HttpsPublishError, HttpsPublisher, PlainWs,
    QoS, RefusalCause, RuleViolation, credentials_fn,
};
use testkit::peer::{Peer, RequestHead};

fn options(address: &str) -> AwsIotOptions {
    AwsIotOptions::new(format!("ws://{address}"))
        .region(REGION)
        .plain_ws(PlainWs::LoopbackForTesting)
}

fn message() -> OutboundMessage {
    let mut message = OutboundMessage::new(TopicName::new("rooms/1 é=~").unwrap(), "21.5");
    message.qos = QoS::AtLeastOnce;
    message.properties.content_type = Some("text/plain".into());
    message.properties.user.push(("unit".into(), "°C".into()));
    message.properties.correlation_data = Some("id".into());
    message
}

#[tokio::test]
async fn moto_verifies_the_signature() {
    let Some(moto) = Moto::verifying_or_skip().await else {
        return;
    };
    // A call of ours has fifteen seconds, which is not what this is about.
    let _clock = StoppedClock::stop();
    let user = moto.user().await;
    let publisher = HttpsPublisher::new(options(&moto.address).credentials(user.clone())).unwrap();
    // Of the topics and parameters with escapes moto understands the space alone: it refuses boto3's own requests with
    // others. Those are held against the SDK's signer in `signed_requests.rs`.
    let mut message = message();
    message.topic = TopicName::new("room 1").unwrap();
    message.properties.content_type = None;
    publisher.publish(&message).await.unwrap();

    let wrong = AwsCredentials::new(user.access_key_id(), "wrong");
    let publisher = HttpsPublisher::new(options(&moto.address).credentials(wrong)).unwrap();
    let error = publisher.publish(&message).await.unwrap_err();
    assert!(!error.is_retryable());
    let HttpsPublishError::Refused(refusal) = error else {
        panic!("{error:?}");
    };
    assert_eq!(refusal.status(), 403);
}

/// A server that gives these answers, and keeps what it was asked.
async fn play(answers: Vec<String>) -> (String, Arc<Mutex<Vec<RequestHead>>>) {
    let peer = Peer::bind().await.unwrap();
    let address = peer.address().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        for answer in answers {
            let (request, body) = captured(&peer, &answer).await;
            assert_eq!(body, b"21.5");
            log.lock().unwrap().push(request);
        }
    });
    (address, asked)
}

#[tokio::test]
async fn the_request_is_the_services_own() {
    let (address, asked) = play(vec![answer(200, "", "{}")]).await;
    let credentials = AwsCredentials::new("AKIDEXAMPLE", "secret").session_token("token");
    let publisher = HttpsPublisher::new(options(&address).credentials(credentials)).unwrap();
    publisher.publish(&message()).await.unwrap();
    let asked = asked.lock().unwrap();
    let request = &asked[0];
    assert_eq!(request.method(), "POST");
    assert_eq!(
        request.target(),
        "/topics/rooms%2F1%20%C3%A9%3D~?qos=1&contentType=text%2Fplain"
    );
    for (name, value) in [
        ("host", address.as_str()),
        ("x-amz-mqtt5-correlation-data", "aWQ="),
        ("x-amz-security-token", "token"),
    ] {
        assert_eq!(request.header(name), Some(value));
    }
    let authorization = request.header("authorization").unwrap();
    for expected in [
        "/eu-west-1/iotdata/aws4_request",
        "SignedHeaders=host;x-amz-date;x-amz-mqtt5-correlation-data;x-amz-mqtt5-user-properties;x-amz-security-token",
    ] {
        assert!(
            authorization.contains(expected),
            "{expected} in {authorization}"
        );
    }
}

#[tokio::test]
async fn a_refusal_is_remedied_once_and_told_then() {
    let forbidden = answer(
        403,
        "x-amzn-errortype: ForbiddenException:\r\n",
        r#"{"message":"Forbidden"}"#,
    );
    // With other credentials it works.
    let (address, asked) = play(vec![forbidden.clone(), answer(200, "", "{}")]).await;
    let source = credentials_fn(|freshness| async move {
        Ok(match freshness {
            CredentialFreshness::Renew => AwsCredentials::new("AKIDNEW", "secret"),
            _ => AwsCredentials::new("AKIDOLD", "secret"),
        })
    });
    let publisher = HttpsPublisher::new(options(&address).credentials(source)).unwrap();
    publisher.publish(&message()).await.unwrap();
    let second = asked.lock().unwrap()[1].clone();
    let authorization = second.header("authorization").unwrap();
    assert!(authorization.contains("Credential=AKIDNEW/"));

    // There are no others.
    let (address, asked) = play(vec![forbidden]).await;
    let same = || AwsCredentials::new("AKIDEXAMPLE", "secret");
    let publisher = HttpsPublisher::new(options(&address).credentials(same())).unwrap();
    let error = publisher.publish(&message()).await.unwrap_err();
    let HttpsPublishError::Refused(refusal) = error else {
        panic!("{error:?}");
    };
    assert_eq!(refusal.cause(), RefusalCause::NotTold);
    assert_eq!(refusal.error_type(), Some("ForbiddenException"));
    assert_eq!(asked.lock().unwrap().len(), 1);

    // The clock is wrong.
    let elsewhere = SystemTime::now() + Duration::from_secs(7200);
    let date = httpdate::fmt_http_date(elsewhere);
    let skewed = answer(403, &format!("date: {date}\r\n"), "");
    let (address, asked) = play(vec![skewed, answer(200, "", "{}")]).await;
    let publisher = HttpsPublisher::new(options(&address).credentials(same())).unwrap();
    publisher.publish(&message()).await.unwrap();
    let stamps: Vec<String> = asked
        .lock()
        .unwrap()
        .iter()
        .map(|request| request.header("x-amz-date").unwrap().to_owned())
        .collect();
    assert_ne!(stamps[0][..11], stamps[1][..11], "{stamps:?}");

    // It is busy.
    let (address, _) = play(vec![answer(429, "", "")]).await;
    let publisher = HttpsPublisher::new(options(&address).credentials(same())).unwrap();
    let error = publisher.publish(&message()).await.unwrap_err();
    assert!(error.is_retryable());
    assert!(
        matches!(error, HttpsPublishError::Refused(refusal) if refusal.cause() == RefusalCause::Throttled)
    );

    // It hangs up.
    let (address, _) = play(vec![String::new()]).await;
    let publisher = HttpsPublisher::new(options(&address).credentials(same())).unwrap();
    let error = publisher.publish(&message()).await.unwrap_err();
    assert!(matches!(error, HttpsPublishError::Https(_)) && error.is_retryable());
}

#[tokio::test]
async fn rules_hold_here_too() {
    let publisher = HttpsPublisher::new(
        AwsIotOptions::new("a1-ats.iot.eu-west-1.amazonaws.com")
            .credentials(AwsCredentials::new("AKIDEXAMPLE", "secret")),
    );
    let mut message = message();
    message.qos = QoS::ExactlyOnce;
    let error = publisher.unwrap().publish(&message).await.unwrap_err();
    assert!(matches!(
        error,
        HttpsPublishError::Rule(RuleViolation::QoS { .. })
    ));
    assert!(!error.is_retryable());
}
