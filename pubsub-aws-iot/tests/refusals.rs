//! What the service refuses, and what is refused before it is sent.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::time::{Duration, SystemTime};

use common::{
    KEY, REGION, SECRET, TOKEN, access_key, client, credentials, options, refusal, start,
};
use pubsub_aws_iot::core::{BoxFuture, Empty, ProviderError, ProviderErrorKind, PublishError};
use pubsub_aws_iot::{
    AwsCredentials, AwsIotOptions, AwsIotOptionsError, AwsIotProvider, ClockSkew, CredentialsError,
    CredentialsErrorKind, EndpointError, ProtocolVersion, QoS, RefusalCause, RuleViolation,
    ServiceRefusal, ServiceRules, Will, credentials_fn,
};
use pubsub_generic::{
    Attempt, Connect, ConnectError, ConnectionError, MqttOptions, MqttProvider, Opened, WsTransport,
};
use sigv4_presign::{Credentials, Request, SessionTokenMode, Settings};
use testkit::gateway::{Gateway, Outcome, Refusal};
use ws_transport::{Connector, UpgradeRequest};

/// Connects, is refused for good, and gives what is known of it.
async fn refused(options: AwsIotOptions) -> ServiceRefusal {
    let (pubsub, provider) = client(options);
    let error = provider.connect().await.unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
    let refused = refusal(&error);
    assert_eq!(refused.status(), 403);
    assert_eq!(refused.error_type(), Some("ForbiddenException"));
    assert_eq!(refused.request_id().unwrap().len(), 36);
    assert_eq!(refused.text(), Some("Forbidden"));
    // A subscription learns the same.
    let error = pubsub.subscribe("a").await.unwrap_err();
    assert!(ServiceRefusal::find(&error).is_some(), "{error:?}");
    refused
}

fn outcomes(gateway: &Gateway) -> Vec<Outcome> {
    gateway.attempts().into_iter().map(|a| a.outcome).collect()
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let (_broker, gateway) = start().await;
    let wrong = AwsCredentials::new(KEY, "another").session_token(TOKEN);
    let refused = refused(options(&gateway).credentials(wrong)).await;
    assert_eq!(refused.cause(), RefusalCause::NotTold);
    // No second try with the same credentials.
    assert_eq!(outcomes(&gateway), [Outcome::Refused(Refusal::Signature)]);
}

#[tokio::test]
async fn an_unknown_key_and_a_wrong_token_are_refused() {
    let (_broker, gateway) = start().await;
    let unknown = AwsCredentials::new("AKIDSTRANGER", SECRET).session_token(TOKEN);
    let stranger = refused(options(&gateway).credentials(unknown)).await;
    assert_eq!(stranger.cause(), RefusalCause::NotTold);
    assert_eq!(
        outcomes(&gateway)[0],
        Outcome::Refused(Refusal::UnknownAccessKey)
    );
    let without = AwsCredentials::new(KEY, SECRET);
    refused(options(&gateway).credentials(without)).await;
    assert_eq!(
        outcomes(&gateway)[1],
        Outcome::Refused(Refusal::SessionToken)
    );
}

#[tokio::test]
async fn a_wrong_region_is_refused() {
    let (_broker, gateway) = start().await;
    let refused = refused(options(&gateway).region("eu-west-2")).await;
    assert_eq!(refused.cause(), RefusalCause::NotTold);
    assert_eq!(
        outcomes(&gateway)[0],
        Outcome::Refused(Refusal::ScopeRegion)
    );
}

#[tokio::test]
async fn a_clock_beyond_correction_is_refused_and_named() {
    let (_broker, gateway) = start().await;
    let off = Duration::from_secs(3 * 24 * 3600);
    gateway.clock().run_ahead(off);
    let behind = refused(options(&gateway)).await;
    assert_eq!(behind.cause(), RefusalCause::ClockSkew);
    let Some(ClockSkew::Behind(by)) = behind.skew() else {
        panic!("{:?}", behind.skew());
    };
    assert!(by.abs_diff(off) < Duration::from_secs(600), "{by:?}");
    assert!(matches!(
        outcomes(&gateway)[0],
        Outcome::Refused(Refusal::Skew { .. })
    ));
    // Not corrected, so not tried a second time.
    assert_eq!(outcomes(&gateway).len(), 1);
    gateway.clock().run_behind(off);
    let ahead = refused(options(&gateway)).await;
    assert!(matches!(ahead.skew(), Some(ClockSkew::Ahead(_))));
}

#[tokio::test]
async fn expired_credentials_are_refused_and_named() {
    let (_broker, gateway) = start().await;
    let end = SystemTime::now() - Duration::from_secs(60);
    gateway.keys().add(access_key().expires_at(end));
    let told = refused(options(&gateway).credentials(credentials().expires_at(end))).await;
    assert_eq!(told.cause(), RefusalCause::ExpiredCredentials);
    assert_eq!(
        outcomes(&gateway)[0],
        Outcome::Refused(Refusal::ExpiredAccessKey)
    );
    // When they do not say that they expire, nobody can tell.
    let untold = refused(options(&gateway)).await;
    assert_eq!(untold.cause(), RefusalCause::NotTold);
}

/// Signs the token as well, as most services want it and this one does not.
#[derive(Debug)]
struct TokenSigned(String);

impl Connect for TokenSigned {
    fn connect<'a>(&'a self, _: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>> {
        Box::pin(async {
            let settings = Settings::iot(REGION).session_token(SessionTokenMode::Signed);
            let credentials = Credentials::new(KEY, SECRET).with_session_token(TOKEN);
            let request = Request::new("GET", &self.0);
            let now = SystemTime::now();
            let url = sigv4_presign::presign(&request, &credentials, now, &settings).unwrap();
            let upgrade = UpgradeRequest::new().subprotocol("mqtt").unwrap();
            let endpoint = url.as_str().parse().unwrap();
            let socket = Connector::new().connect(&endpoint, &upgrade).await?;
            Ok(Opened::new(WsTransport::new(socket)))
        })
    }
}

#[tokio::test]
async fn a_signed_token_is_refused() {
    let (_broker, gateway) = start().await;
    let connect = TokenSigned(gateway.url());
    let provider = MqttProvider::with_connect(MqttOptions::without_url(), connect).unwrap();
    let error = provider.connect().await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::NotAuthorized);
    assert!(!error.is_retryable());
    let Some(ConnectionError::Connect(error)) =
        std::error::Error::source(&error).and_then(|source| source.downcast_ref())
    else {
        panic!("{error:?}");
    };
    let answer = error.refusal().unwrap();
    assert_eq!(answer.status, 403);
    assert_eq!(
        answer.header("x-amzn-errortype"),
        Some("ForbiddenException:")
    );
    assert_eq!(
        outcomes(&gateway),
        [Outcome::Refused(Refusal::SignedSessionToken)]
    );
}

#[tokio::test]
async fn missing_and_unusable_credentials_are_told_without_a_connection() {
    let (_broker, gateway) = start().await;
    let nowhere = credentials_fn(|_| async { Err(CredentialsError::missing("no such profile")) });
    let (_pubsub, provider) = client(options(&gateway).credentials(nowhere));
    let error = provider.connect().await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::NotAuthenticated);
    assert!(!error.is_retryable());
    let kind = sources(&error).find_map(|error| error.downcast_ref().map(CredentialsError::kind));
    assert_eq!(kind, Some(CredentialsErrorKind::Missing));

    let with_line_end = AwsCredentials::new(KEY, format!("{SECRET}\n"));
    let (_pubsub, provider) = client(options(&gateway).credentials(with_line_end));
    let error = provider.connect().await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::Invalid);
    let found = sources(&error).find_map(|error| error.downcast_ref::<sigv4_presign::Error>());
    assert_eq!(found, Some(&sigv4_presign::Error::InvalidSecretAccessKey));
    assert!(gateway.attempts().is_empty());
}

fn sources<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn violation(error: &(dyn std::error::Error + 'static)) -> Option<RuleViolation> {
    sources(error).find_map(|error| error.downcast_ref().copied())
}

#[tokio::test]
async fn what_the_service_would_hang_up_on_is_refused_before_it_is_sent() {
    let (_broker, gateway) = start().await;
    let (pubsub, _provider) = client(options(&gateway));
    let long = "x".repeat(257);
    let publish = |topic: &str, payload: usize, qos| {
        pubsub.publish(topic, vec![0_u8; payload]).qos(qos).send()
    };
    for (publishing, expected) in [
        (
            publish("a", 131_073, QoS::AtMostOnce),
            RuleViolation::PayloadBytes { max: 131_072 },
        ),
        (
            publish(&long, 0, QoS::AtMostOnce),
            RuleViolation::TopicBytes { max: 256 },
        ),
        (
            publish("1/2/3/4/5/6/7/8/9", 0, QoS::AtMostOnce),
            RuleViolation::TopicSlashes { max: 7 },
        ),
        (
            publish("$SYS/x", 0, QoS::AtMostOnce),
            RuleViolation::ReservedTopic,
        ),
        (
            publish("a", 0, QoS::ExactlyOnce),
            RuleViolation::QoS {
                max: QoS::AtLeastOnce,
            },
        ),
    ] {
        let error = publishing.await.unwrap_err();
        assert!(matches!(error, PublishError::NotSent(_)), "{error:?}");
        assert_eq!(violation(&error), Some(expected));
    }
    let retained = pubsub
        .publish("$aws/things/t/shadow/get", Empty)
        .retain()
        .await;
    assert_eq!(
        violation(&retained.unwrap_err()),
        Some(RuleViolation::RetainedReservedTopic)
    );
    // A bad filter is refused alone.
    let mut messages = pubsub
        .subscribe(["a", "$SYS/#", long.as_str()])
        .await
        .unwrap();
    let told: Vec<_> = messages
        .outcomes()
        .iter()
        .map(|outcome| {
            outcome
                .result
                .as_ref()
                .err()
                .and_then(|refusal| violation(refusal))
        })
        .collect();
    assert!(told.contains(&None));
    assert!(told.contains(&Some(RuleViolation::ReservedTopic)));
    assert!(told.contains(&Some(RuleViolation::TopicBytes { max: 256 })));
    pubsub.publish("a", "x").await.unwrap();
    assert_eq!(messages.next().await.unwrap().unwrap().text().unwrap(), "x");
    assert_eq!(gateway.incidents(), []);
    pubsub.close().await.unwrap();
}

/// At the bound itself the service has nothing to object to: the largest payload, the longest and the deepest topic, as
/// many filters as it allows.
#[tokio::test]
async fn what_the_service_just_takes_is_sent() {
    for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
        let (_broker, gateway) = start().await;
        let options = options(&gateway)
            .protocol_version(version)
            .client_id("x".repeat(128));
        let (pubsub, provider) = client(options);
        let long = "x".repeat(256);
        let filters: Vec<_> = (0..48).map(|n| format!("many/{n}")).collect();
        let many = pubsub.subscribe(filters).await.unwrap();
        assert!(many.outcomes().iter().all(|outcome| outcome.result.is_ok()));
        let mut edge = pubsub
            .subscribe([long.as_str(), "1/2/3/4/5/6/7/8"])
            .await
            .unwrap();
        for topic in [long.as_str(), "1/2/3/4/5/6/7/8"] {
            let payload = vec![0x5a_u8; 131_072];
            pubsub
                .publish(topic, payload)
                .qos(QoS::AtLeastOnce)
                .await
                .unwrap();
            let message = edge.next().await.unwrap().unwrap();
            assert_eq!(
                (message.topic.as_str(), message.payload.len()),
                (topic, 131_072)
            );
        }
        assert_eq!(provider.stats().subscriptions, 50);
        // One more is over the limit, and told before it is sent.
        let error = pubsub.subscribe("one/more").await.unwrap_err();
        assert!(
            sources(&error).any(|error| error
                .downcast_ref::<ProviderError>()
                .is_some_and(|error| error.kind() == ProviderErrorKind::LimitExceeded)),
            "{error:?}"
        );
        assert_eq!(gateway.incidents(), []);
        pubsub.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_filter_of_everything_below_does_not_match_its_parent() {
    let (_broker, gateway) = start().await;
    let (pubsub, _) = client(options(&gateway));
    let mut below = pubsub.subscribe("a/#").await.unwrap();
    // Both arrive here, by the second filter; only one of them is for the first.
    let mut exact = pubsub.subscribe("a").await.unwrap();
    pubsub.publish("a", "parent").await.unwrap();
    pubsub.publish("a/b", "child").await.unwrap();
    assert_eq!(
        exact.next().await.unwrap().unwrap().text().unwrap(),
        "parent"
    );
    assert_eq!(
        below.next().await.unwrap().unwrap().text().unwrap(),
        "child"
    );
    pubsub.close().await.unwrap();
}

#[test]
fn options_are_held_to_the_rules() {
    let options =
        || AwsIotOptions::new("a1-ats.iot.eu-west-1.amazonaws.com").credentials(credentials());
    let refused = |options: AwsIotOptions| AwsIotProvider::new(options).unwrap_err();
    let rule = |options| match refused(options) {
        AwsIotOptionsError::Rule(violation) => violation,
        other => panic!("{other:?}"),
    };
    let default = AwsIotProvider::new(options()).unwrap();
    assert!(format!("{default:?}").contains("V5"), "{default:?}");
    let keep_alive = |secs| options().keep_alive(Duration::from_secs(secs));
    for secs in [0, 29, 1201] {
        assert!(
            matches!(rule(keep_alive(secs)), RuleViolation::KeepAlive { .. }),
            "{secs}"
        );
    }
    for secs in [30, 1200] {
        assert!(AwsIotProvider::new(keep_alive(secs)).is_ok(), "{secs}");
    }
    assert_eq!(
        rule(options().client_id("$me")),
        RuleViolation::ReservedClientId
    );
    let deep = Will::new("1/2/3/4/5/6/7/8/9", "gone");
    assert!(matches!(
        rule(options().configure_mqtt(|mqtt| mqtt.will(deep))),
        RuleViolation::TopicSlashes { max: 7 }
    ));
    assert!(matches!(
        refused(options().client_id("x".repeat(129))),
        AwsIotOptionsError::Mqtt(_)
    ));
    assert!(matches!(
        refused(AwsIotOptions::new("a1-ats.iot.eu-west-1.amazonaws.com")),
        AwsIotOptionsError::NoCredentials
    ));
    assert!(matches!(
        refused(options().region("eu-west-2")),
        AwsIotOptionsError::Endpoint(EndpointError::RegionMismatch { .. })
    ));
    assert!(matches!(
        refused(options().extra_roots_pem("no PEM")),
        AwsIotOptionsError::Connection(_)
    ));
    assert!(matches!(
        refused(options().connector(Connector::new()).extra_roots_pem("x")),
        AwsIotOptionsError::ConnectorConflict
    ));
    assert!(matches!(
        refused(options().configure_mqtt(|mqtt| mqtt.header("a", "b"))),
        AwsIotOptionsError::Mqtt(_)
    ));
    // A rule that is changed no longer holds.
    let mut rules = ServiceRules::default();
    rules.keep_alive = Duration::from_secs(5)..=Duration::from_secs(10);
    assert!(AwsIotProvider::new(keep_alive(5).rules(rules)).is_ok());
}

#[tokio::test]
async fn a_rule_that_is_changed_lets_more_through() {
    let (_broker, gateway) = start().await;
    let mut rules = ServiceRules::default();
    rules.max_payload_bytes = 200_000;
    // Under MQTT 5 the service announces its largest packet, and the session keeps to that.
    let (five, _) = client(options(&gateway).rules(rules.clone()));
    let error = five.publish("a", vec![0; 150_000]).await.unwrap_err();
    assert!(violation(&error).is_none(), "{error:?}");
    assert!(matches!(error, PublishError::NotSent(_)), "{error:?}");
    assert_eq!(gateway.incidents(), []);

    let older = options(&gateway)
        .rules(rules)
        .protocol_version(ProtocolVersion::V311);
    let (pubsub, _) = client(older);
    let sent = pubsub.publish("a", vec![0; 150_000]).send();
    // The gateway keeps to the service's own rule, and hangs up.
    let incidents = gateway.wait_for_incidents(1).await;
    assert_eq!(incidents[0].1, testkit::gateway::Incident::Payload);
    drop(sent);
}
