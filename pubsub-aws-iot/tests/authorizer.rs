//! Custom authorizers, in each of the places where they are told of, and where they say no.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::time::Duration;

use common::{
    StoppedClock, client, credentials, gateway_to, options_without_credentials as options,
};
use pubsub_aws_iot::core::ProviderErrorKind;
use pubsub_aws_iot::{
    AuthorizerError, AuthorizerFields, AwsIotOptions, AwsIotOptionsError, AwsIotProvider,
    CustomAuthorizer, EndpointError, ProtocolVersion, QoS, RefusalCause, Renewal, ServiceRefusal,
};
use pubsub_generic::ConnectionError;
use testkit::embedded::Broker;
use testkit::gateway::{Authorizer, Gateway, Incident, Outcome, Refusal};

const TOKEN: &str = "marker token/with+every=odd&character";
const SIGNATURE: &str = "bWFya2Vy+/8=";
const PLACES: [AuthorizerFields; 3] = [
    AuthorizerFields::UserName,
    AuthorizerFields::Query,
    AuthorizerFields::Headers,
];

fn ours() -> CustomAuthorizer {
    CustomAuthorizer::new("Tokens")
        .token("token", TOKEN)
        .signature(SIGNATURE)
}

async fn start(theirs: Authorizer) -> (Broker, Gateway) {
    let broker = Broker::start().await.unwrap();
    let gateway = gateway_to(&broker.url()).authorizer(theirs);
    (broker, gateway.start().await.unwrap())
}

fn theirs() -> Authorizer {
    Authorizer::new("Tokens", "token", TOKEN).signature(SIGNATURE)
}

#[tokio::test]
async fn lets_in_by_user_name_query_or_headers() {
    for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
        for place in PLACES {
            let (_broker, gateway) = start(theirs()).await;
            let options = options(&gateway)
                .protocol_version(version)
                .authorizer(ours().fields(place));
            let (pubsub, provider) = client(options);
            // A gateway on loopback names no region, and none is needed.
            assert_eq!(provider.region(), None);
            let mut messages = pubsub.subscribe("a").await.unwrap();
            let publishing = pubsub.publish("a", "x").qos(QoS::AtLeastOnce);
            publishing.await.unwrap();
            messages.next().await.unwrap().unwrap();
            assert_eq!(
                gateway.attempts()[0].outcome,
                Outcome::Accepted,
                "{place:?}"
            );
            assert_eq!(gateway.incidents(), [], "{place:?}");
            pubsub.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn shows_user_name_and_password_to_the_authorizer() {
    let (_broker, gateway) = start(theirs().password(b"open sesame")).await;
    let named = ours().user_name("alice").password("open sesame");
    let (pubsub, provider) = client(options(&gateway).authorizer(named));
    provider.connect().await.unwrap();
    pubsub.close().await.unwrap();
    let (_pubsub, provider) = client(options(&gateway).authorizer(ours().password("wrong")));
    provider.connect().await.unwrap_err();
}

#[tokio::test]
async fn a_wrong_token_is_refused_for_good() {
    let wrong = CustomAuthorizer::new("Tokens")
        .token("token", "marker wrong")
        .signature(SIGNATURE);
    for place in [AuthorizerFields::Query, AuthorizerFields::Headers] {
        let (_broker, gateway) = start(theirs()).await;
        let (_pubsub, provider) = client(options(&gateway).authorizer(wrong.clone().fields(place)));
        let error = provider.connect().await.unwrap_err();
        assert_eq!(error.kind(), ProviderErrorKind::NotAuthorized);
        assert!(!error.is_retryable());
        let refusal = ServiceRefusal::find(&error).unwrap();
        assert_eq!(
            (refusal.status(), refusal.cause()),
            (403, RefusalCause::NotTold)
        );
        let shown = format!("{error:?} {provider:?}");
        assert!(!shown.contains("marker"), "{shown}");
        assert_eq!(
            gateway.attempts()[0].outcome,
            Outcome::Refused(Refusal::Authorizer)
        );
        assert_eq!(gateway.attempts().len(), 1);
    }
    // In the CONNECT it is MQTT that says no.
    let (_broker, gateway) = start(theirs()).await;
    let (_pubsub, provider) = client(options(&gateway).authorizer(wrong.clone()));
    let error = provider.connect().await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::NotAuthorized);
    assert!(!error.is_retryable());
    assert_eq!(gateway.incidents()[0].1, Incident::Authorizer);
    // MQTT 3.1.1 has no word for it but the end of the connection; what it may mean is said.
    let older = options(&gateway)
        .authorizer(wrong)
        .protocol_version(ProtocolVersion::V311);
    let (_pubsub, provider) = client(older);
    let error = provider.connect().await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::ConnectionLost);
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
    assert!(
        matches!(source, Some(ConnectionError::NoConnack(_))),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_unknown_name_and_a_missing_signature_are_refused() {
    let (_broker, gateway) = start(theirs()).await;
    for authorizer in [
        CustomAuthorizer::new("Another").token("token", TOKEN),
        CustomAuthorizer::new("Tokens").token("token", TOKEN),
        CustomAuthorizer::new("Tokens").token("other", TOKEN),
    ] {
        let authorizer = authorizer.fields(AuthorizerFields::Query);
        let (_pubsub, provider) = client(options(&gateway).authorizer(authorizer));
        provider.connect().await.unwrap_err();
    }
}

/// The authorizer's answer limits the connection's life; who knows that it does says so.
#[tokio::test]
async fn a_connection_is_replaced_ahead_of_the_authorizers_end() {
    let (_broker, gateway) = start(theirs().disconnect_after(Duration::from_secs(2))).await;
    let renewal = Renewal::default()
        .max_age(Duration::from_secs(1))
        .margin(Duration::from_millis(500));
    let (pubsub, provider) = client(
        options(&gateway)
            .authorizer(ours())
            .configure_mqtt(|mqtt| mqtt.renewal(renewal)),
    );
    let _clock = StoppedClock::stop();
    while provider.stats().renewals < 3 {
        let publishing = pubsub.publish("a", "x").qos(QoS::AtLeastOnce);
        publishing.await.unwrap();
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    assert_eq!(gateway.incidents(), []);
    pubsub.close().await.unwrap();
}

#[test]
fn options_are_checked() {
    let options = || AwsIotOptions::new("iot.example.com");
    let refused = |options| AwsIotProvider::new(options).unwrap_err();
    assert!(AwsIotProvider::new(options().authorizer(ours())).is_ok());
    assert!(matches!(
        refused(options().authorizer(ours()).credentials(credentials())),
        AwsIotOptionsError::CredentialsConflict
    ));
    assert!(matches!(
        refused(options().authorizer(CustomAuthorizer::new("a b"))),
        AwsIotOptionsError::Authorizer(AuthorizerError::Name)
    ));
    let of_no_account = AwsIotOptions::new("data.iot-fips.us-gov-west-1.amazonaws.com");
    assert!(matches!(
        refused(of_no_account.authorizer(ours())),
        AwsIotOptionsError::Authorizer(AuthorizerError::FipsEndpoint)
    ));
    // A region that is given is held against the host all the same.
    let elsewhere = AwsIotOptions::new("a1-ats.iot.eu-west-1.amazonaws.com").region("eu-west-2");
    assert!(matches!(
        refused(elsewhere.authorizer(ours())),
        AwsIotOptionsError::Endpoint(EndpointError::RegionMismatch { .. })
    ));
    let shown = format!("{:?}", options().authorizer(ours().password("marker")));
    assert!(
        !shown.contains("marker") && shown.contains("Tokens"),
        "{shown}"
    );
}
