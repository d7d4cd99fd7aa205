//! An account's set-up, against moto and against a server that the test plays.
#![cfg(feature = "control-plane")]
#![allow(missing_docs, reason = "tests")]

mod common;
mod moto;

use common::{StoppedClock, answer, captured};
use moto::{Moto, REGION};
use pubsub_aws_iot::core::TopicName;
use pubsub_aws_iot::{
    AwsCredentials, ControlPlane, ControlPlaneError, LeastPolicy, ServiceRefusal,
};
use testkit::peer::Peer;

fn control_plane(moto: &Moto, credentials: AwsCredentials) -> ControlPlane {
    let control = ControlPlane::new(REGION, credentials).unwrap();
    control.endpoint(&moto.url()).unwrap()
}

fn policy() -> LeastPolicy {
    let topic = TopicName::new("rooms/kitchen").unwrap();
    LeastPolicy::new("arn:aws:iot:eu-west-1:123456789012")
        .connect("kitchen")
        .publish(&topic)
}

#[tokio::test]
async fn from_an_endpoint_to_a_policy_that_is_attached() {
    let Some(moto) = Moto::start_or_skip().await else {
        return;
    };
    // A call of ours has fifteen seconds, which is not what this is about.
    let _clock = StoppedClock::stop();
    let control = control_plane(&moto, AwsCredentials::new("AKIDEXAMPLE", "secret"));
    let endpoint = control.describe_endpoint().await.unwrap();
    assert_eq!(
        pubsub_aws_iot::region_of_host(&endpoint).as_deref(),
        Some(REGION),
        "{endpoint}"
    );
    assert!(endpoint.contains("-ats.iot."), "{endpoint}");

    let identity = moto.identity().await;
    let missing = control.attach_policy("kitchen", &identity).await;
    let missing = missing.unwrap_err();
    assert!(
        matches!(missing, ControlPlaneError::NotFound(_)),
        "{missing:?}"
    );
    assert!(!missing.is_retryable());
    control.create_policy("kitchen", &policy()).await.unwrap();
    let again = control.create_policy("kitchen", &policy()).await;
    let again = again.unwrap_err();
    assert!(
        matches!(again, ControlPlaneError::AlreadyExists(_)),
        "{again:?}"
    );
    // Attaching twice is as good as once.
    control.attach_policy("kitchen", &identity).await.unwrap();
    control.attach_policy("kitchen", &identity).await.unwrap();

    let kept = moto.iot("GET /policies/kitchen", "").await;
    assert_eq!(kept["policyDocument"], policy().to_string());
    let targets = moto.iot("POST /policy-targets/kitchen", "").await;
    assert_eq!(targets["targets"], serde_json::json!([identity]));
}

#[tokio::test]
async fn moto_verifies_what_is_asked() {
    let Some(moto) = Moto::verifying_or_skip().await else {
        return;
    };
    // A call of ours has fifteen seconds, which is not what this is about.
    let _clock = StoppedClock::stop();
    let user = moto.user().await;
    let wrong = AwsCredentials::new(user.access_key_id(), "marker-wrong");
    let control = control_plane(&moto, user);
    // Of what is escaped moto decodes too much before it verifies; it refuses boto3's own requests with that. Those are held
    // against the SDK's signer in `signed_requests.rs`.
    control.create_policy("kitchen", &policy()).await.unwrap();
    let error = control
        .attach_policy("kitchen", "nobody")
        .await
        .unwrap_err();
    assert!(matches!(error, ControlPlaneError::NotFound(_)), "{error:?}");

    let stranger = control_plane(&moto, wrong);
    let error = stranger.create_policy("bath", &policy()).await.unwrap_err();
    assert!(
        matches!(error, ControlPlaneError::Refused(_)) && !error.is_retryable(),
        "{error:?}"
    );
    assert_eq!(ServiceRefusal::find(&error).unwrap().status(), 403);
    assert!(!format!("{error:?}").contains("marker"));
}

/// What comes of an answer that moto never gives.
async fn answered(status: u16, kind: &str, body: &str) -> Result<String, ControlPlaneError> {
    let peer = Peer::bind().await.unwrap();
    let answer = answer(status, &format!("x-amzn-errortype: {kind}\r\n"), body);
    let credentials = AwsCredentials::new("AKIDEXAMPLE", "secret");
    let control = ControlPlane::new(REGION, credentials).unwrap();
    let control = control
        .endpoint(&format!("http://{}", peer.address()))
        .unwrap();
    tokio::join!(control.describe_endpoint(), captured(&peer, &answer)).0
}

#[tokio::test]
async fn each_refusal_is_named_and_final_or_not() {
    use ControlPlaneError::{Answer, LimitExceeded, Refused};
    let told = answered(200, "", r#"{"endpointAddress":"host"}"#).await;
    assert_eq!(told.unwrap(), "host");
    let limit = answered(410, "LimitExceededException", "")
        .await
        .unwrap_err();
    assert!(matches!(limit, LimitExceeded(_)) && !limit.is_retryable());
    let invalid = answered(400, "InvalidRequestException", "").await;
    let invalid = invalid.unwrap_err();
    assert!(matches!(invalid, Refused(_)) && !invalid.is_retryable());
    // With the same status.
    let throttled = answered(400, "ThrottlingException", "").await.unwrap_err();
    assert!(matches!(throttled, Refused(_)) && throttled.is_retryable());
    let busy = answered(503, "ServiceUnavailableException", "").await;
    let busy = busy.unwrap_err();
    assert!(matches!(busy, Refused(_)) && busy.is_retryable());
    for body in ["", "{}", "<html>"] {
        let odd = answered(200, "", body).await.unwrap_err();
        assert!(matches!(odd, Answer) && odd.is_retryable(), "{body}");
    }
}

#[test]
fn regions_and_endpoints_are_checked() {
    let credentials = || AwsCredentials::new("AKIDEXAMPLE", "secret");
    for bad in ["", "euwest1", "EU-WEST-1", "eu-west-1/", "a.b-c"] {
        let error = ControlPlane::new(bad, credentials()).unwrap_err();
        assert!(matches!(error, ControlPlaneError::Region), "{bad}");
    }
    for bad in ["http://iot.example", "iot.example", "https://a/b"] {
        let control = ControlPlane::new(REGION, credentials()).unwrap();
        let error = control.endpoint(bad).unwrap_err();
        assert!(matches!(error, ControlPlaneError::Endpoint), "{bad}");
    }
}
