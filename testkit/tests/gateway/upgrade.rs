//! The gateway's judgement of upgrade requests, and its answers.

use std::time::{Duration, SystemTime};

use aws_sigv4::http_request::SessionTokenMode;
use testkit::{
    certs::Authority,
    embedded::Broker,
    gateway::{AccessKey, Gateway, GatewayOptions, MAX_CONNECTIONS, MAX_SKEW, Outcome, Refusal},
    probe::{Probe, ProbeError, ProbeOptions},
};

use tokio::net::TcpStream;

use crate::{KEY, SECRET, Signer, TOKEN, start};

fn last(gateway: &Gateway) -> Outcome {
    gateway.attempts().last().unwrap().outcome.clone()
}

/// The gateway refuses this for that reason, and tells the client no more than the service would.
async fn refused(gateway: &Gateway, url: &str, reason: Refusal) {
    let error = Probe::connect(url, "me").await.unwrap_err();
    assert_eq!(last(gateway), Outcome::Refused(reason));
    assert_eq!(error.status(), Some(403));
    let kind = error.header("x-amzn-errortype");
    assert_eq!(kind, Some("ForbiddenException:"));
    assert_eq!(error.header("x-amzn-requestid").unwrap().len(), 36);
    assert!(error.header("date").unwrap().ends_with(" GMT"));
    let ProbeError::Refused { body, .. } = &error else {
        unreachable!("it has a status");
    };
    assert!(body.starts_with(br#"{"message":"Forbidden","traceId":""#));
}

#[tokio::test]
async fn a_signed_request_is_relayed_to_the_broker() {
    let (_broker, gateway) = start().await;
    let mut listener = Probe::connect(&Signer::of(&gateway).url(), "listener")
        .await
        .unwrap();
    listener.subscribe("chat/+").await.unwrap();
    let mut speaker = Probe::connect(&Signer::of(&gateway).url(), "speaker")
        .await
        .unwrap();
    let payload = vec![7; 100_000];
    speaker
        .publish_acknowledged("chat/a", &payload)
        .await
        .unwrap();
    let (topic, received) = listener.message().await.unwrap();
    assert_eq!((topic.as_str(), &received[..]), ("chat/a", &payload[..]));
    gateway.wait_for_open(2).await;
    let attempts = gateway.attempts();
    assert_eq!(attempts.len(), 2);
    for attempt in &attempts {
        assert_eq!(attempt.outcome, Outcome::Accepted);
        assert_eq!(attempt.access_key_id.as_deref(), Some(KEY));
    }
    drop((listener, speaker));
    gateway.wait_for_open(0).await;
}

/// A signature without `X-Amz-Expires`, computed by botocore and by AWS's C runtime, which agree.
#[tokio::test]
async fn a_request_as_other_implementations_sign_it() {
    const SIGNED: &str = "X-Amz-Algorithm=AWS4-HMAC-SHA256\
        &X-Amz-Credential=AKIDEXAMPLE%2F20250830%2Fus-east-1%2Fiotdevicegateway%2Faws4_request\
        &X-Amz-Date=20250830T123600Z&X-Amz-SignedHeaders=host\
        &X-Amz-Signature=96b0d50099611efea561143576090a34dfa36b2dab9d9d6a9439138aac7a8d4c";
    const HOST: &str = "a1b2c3d4e5f6g7-ats.iot.us-east-1.amazonaws.com";
    let broker = Broker::start().await.unwrap();
    let gateway = GatewayOptions::new(&broker.url())
        .access_key(AccessKey::new(KEY, SECRET).session_token(TOKEN))
        .host(HOST)
        .start()
        .await
        .unwrap();
    // 2025-08-30T12:36:00Z and a minute.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_756_557_360 + 60);
    gateway.clock().stop_at(now);
    let token = "&X-Amz-Security-Token=marker%2Ftoken%2Bwith%3Dodd%20characters";
    let url = format!("{}?{SIGNED}{token}", gateway.url());
    let connect = |url: &str| ProbeOptions::new(url, "me").header("host", HOST).connect();
    connect(&url).await.unwrap();

    // The order of the parameters and the case of escapes are not part of what is signed.
    let parameters: Vec<_> = SIGNED.split('&').rev().collect();
    let turned = parameters.join("&").replace("%2F", "%2f");
    let url = format!("{}?{turned}{token}", gateway.url());
    connect(&url).await.unwrap();

    // One more parameter is; one digit of the signature is.
    for spoilt in [format!("{SIGNED}&a=b"), SIGNED.replace("a8d4c", "a8d4d")] {
        let url = format!("{}?{spoilt}{token}", gateway.url());
        connect(&url).await.unwrap_err();
        assert_eq!(last(&gateway), Outcome::Refused(Refusal::Signature));
    }
    // The Host header is, and it is asked for.
    let other = format!("{}?{SIGNED}{token}", gateway.url());
    Probe::connect(&other, "me").await.unwrap_err();
    assert_eq!(last(&gateway), Outcome::Refused(Refusal::Host));
}

#[tokio::test]
async fn each_thing_wrong_is_refused_for_that_reason() {
    let (_broker, gateway) = start().await;
    type Spoil = fn(&mut Signer);
    let cases: [(Spoil, Refusal); 11] = [
        (|s| s.secret = "another", Refusal::Signature),
        (|s| s.host = "127.0.0.1:1".to_owned(), Refusal::Signature),
        (|s| s.key = "AKIDSTRANGER", Refusal::UnknownAccessKey),
        (|s| s.region = "eu-west-2", Refusal::ScopeRegion),
        (|s| s.service = "iot", Refusal::ScopeService),
        (|s| s.path = "/mqtt/", Refusal::Path),
        (|s| s.path = "/", Refusal::Path),
        (|s| s.token = None, Refusal::SessionToken),
        (|s| s.token = Some("another"), Refusal::SessionToken),
        (
            |s| s.token_mode = SessionTokenMode::Include,
            Refusal::SignedSessionToken,
        ),
        (
            |s| s.path = "/mqtt?X-Amz-Date=20250830T123600Z",
            Refusal::Repeated("X-Amz-Date"),
        ),
    ];
    for (spoil, reason) in cases {
        let mut signer = Signer::of(&gateway);
        spoil(&mut signer);
        // It is sent to the gateway whatever was signed.
        let url = signer
            .url()
            .replace("127.0.0.1:1/", &format!("{}/", gateway.endpoint()));
        refused(&gateway, &url, reason).await;
    }

    let good = Signer::of(&gateway).url();
    let spoilt: [(&str, &str, Refusal); 8] = [
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1", Refusal::Algorithm),
        ("aws4_request", "aws3_request", Refusal::ScopeTerminator),
        (
            "%2Faws4_request",
            "",
            Refusal::Malformed("X-Amz-Credential"),
        ),
        (
            "SignedHeaders=host",
            "SignedHeaders=host%3Bvia",
            Refusal::SignedHeaders,
        ),
        (
            "Amz-Expires=300",
            "Amz-Expires=0",
            Refusal::Malformed("X-Amz-Expires"),
        ),
        ("Amz-Expires=300", "Amz-Expires=299", Refusal::Signature),
        (
            "&X-Amz-Signature=",
            "&Signature=",
            Refusal::Missing("X-Amz-Signature"),
        ),
        (
            "X-Amz-Date=2",
            "X-Amz-Date=%FF",
            Refusal::Malformed("X-Amz-Date"),
        ),
    ];
    for (from, to, reason) in spoilt {
        assert!(good.contains(from), "{from}");
        refused(&gateway, &good.replace(from, to), reason).await;
    }
    refused(
        &gateway,
        &gateway.url(),
        Refusal::Missing("X-Amz-Algorithm"),
    )
    .await;

    for subprotocol in [None, Some("soap")] {
        let options = ProbeOptions::new(&good, "me").subprotocol(subprotocol);
        options.open().await.unwrap_err();
        assert_eq!(last(&gateway), Outcome::Refused(Refusal::Subprotocol));
    }
    // Nothing was wrong with the rest of it.
    Probe::connect(&good, "me").await.unwrap();
    let old = ProbeOptions::new(&good, "me").subprotocol(Some("mqttv3.1"));
    old.connect().await.unwrap();
}

#[tokio::test]
async fn a_key_without_a_token_takes_none() {
    let (_broker, gateway) = start().await;
    gateway.keys().add(AccessKey::new(KEY, SECRET));
    let mut signer = Signer::of(&gateway);
    refused(&gateway, &signer.url(), Refusal::SessionToken).await;
    signer.token = None;
    Probe::connect(&signer.url(), "me").await.unwrap();
}

#[tokio::test]
async fn time_is_the_gateways() {
    let (_broker, gateway) = start().await;
    let url = Signer::of(&gateway).url();
    // The seconds between signing and judging are not to decide.
    let clock = gateway.clock();
    let slack = Duration::from_secs(30);
    clock.run_ahead(MAX_SKEW - slack);
    Probe::connect(&url, "me").await.unwrap();
    clock.run_behind(MAX_SKEW - slack);
    Probe::connect(&url, "me").await.unwrap();

    for (client_ahead, set) in [
        (false, clock.now() + MAX_SKEW * 2),
        (true, clock.now() - MAX_SKEW * 2),
    ] {
        clock.stop_at(set);
        let error = Probe::connect(&url, "me").await.unwrap_err();
        let outcome = last(&gateway);
        let Outcome::Refused(Refusal::Skew {
            by,
            client_ahead: ahead,
        }) = outcome
        else {
            panic!("{outcome:?}");
        };
        assert!(by > MAX_SKEW);
        assert_eq!(ahead, client_ahead);
        // From which a client can learn how wrong its own is.
        assert!(error.header("date").is_some());
        clock.reset();
    }

    clock.stop_at(SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777));
    let error = Probe::connect(&url, "me").await.unwrap_err();
    assert_eq!(error.header("date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    clock.reset();

    // A URL cannot be made to live longer, but shorter.
    let mut signer = Signer::of(&gateway);
    signer.expires = Duration::from_secs(86_400);
    signer.time -= MAX_SKEW + slack;
    let error = Probe::connect(&signer.url(), "me").await.unwrap_err();
    assert_eq!(error.status(), Some(403));
    signer.time = gateway.clock().now() - slack;
    signer.expires = Duration::from_secs(10);
    refused(&gateway, &signer.url(), Refusal::Expired).await;
}

#[tokio::test]
async fn keys_come_change_expire_and_go() {
    let (_broker, gateway) = start().await;
    let url = Signer::of(&gateway).url();
    Probe::connect(&url, "me").await.unwrap();
    gateway.keys().expire(KEY, gateway.clock().now());
    refused(&gateway, &url, Refusal::ExpiredAccessKey).await;
    gateway
        .keys()
        .add(AccessKey::new(KEY, SECRET).session_token("next"));
    refused(&gateway, &url, Refusal::SessionToken).await;
    let mut signer = Signer::of(&gateway);
    signer.token = Some("next");
    Probe::connect(&signer.url(), "me").await.unwrap();
    gateway.keys().remove(KEY);
    refused(&gateway, &signer.url(), Refusal::UnknownAccessKey).await;
}

#[tokio::test]
async fn what_is_no_upgrade_is_told_so() {
    let (_broker, gateway) = start().await;
    for (request, status) in [
        ("GET /mqtt HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 426 "),
        ("nonsense\r\n\r\n", "HTTP/1.1 400 "),
    ] {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut tcp = TcpStream::connect(gateway.address()).await.unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(status), "{answer}");
        assert_eq!(last(&gateway), Outcome::NotAnUpgrade);
    }
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_their_turn() {
    let (_broker, gateway) = start().await;
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        idle.push(TcpStream::connect(gateway.address()).await.unwrap());
    }
    let url = Signer::of(&gateway).url();
    let waiting = Probe::connect(&url, "me");
    tokio::pin!(waiting);
    // That it has to wait can only be seen by waiting.
    let wait = Duration::from_millis(100);
    assert!(tokio::time::timeout(wait, &mut waiting).await.is_err());
    idle.pop();
    waiting.await.unwrap();
}

#[tokio::test]
async fn over_tls() {
    let broker = Broker::start().await.unwrap();
    let authority = Authority::new();
    let gateway = GatewayOptions::new(&broker.url())
        .region("eu-west-1")
        .access_key(AccessKey::new(KEY, SECRET).session_token(TOKEN))
        .tls(&authority.server())
        .start()
        .await
        .unwrap();
    let mut signer = Signer::of(&gateway);
    signer.scheme = "wss";
    assert!(signer.url().starts_with("wss://localhost:"));
    let options = ProbeOptions::new(&signer.url(), "me").trust(&authority);
    let mut probe = options.connect().await.unwrap();
    probe.publish_acknowledged("a", b"b").await.unwrap();
    gateway.close_all();
    probe.closed().await.unwrap();
}

#[tokio::test]
async fn faults_come_on_command() {
    let (mut broker, gateway) = start().await;
    let url = Signer::of(&gateway).url();
    gateway.refuse_next(1, 503);
    gateway.refuse_next(1, 403);
    for status in [503, 403] {
        let error = Probe::connect(&url, "me").await.unwrap_err();
        assert_eq!(error.status(), Some(status));
        assert_eq!(last(&gateway), Outcome::Injected(status));
    }
    let mut probe = Probe::connect(&url, "me").await.unwrap();
    gateway.close_all();
    probe.closed().await.unwrap();
    gateway.wait_for_open(0).await;

    gateway.stall_next(1);
    let stalled = tokio::spawn({
        let url = url.clone();
        async move { Probe::connect(&url, "me").await.unwrap_err() }
    });
    gateway.wait_for_attempts(4).await;
    assert_eq!(last(&gateway), Outcome::Stalled);
    gateway.close_all();
    assert_eq!(stalled.await.unwrap().status(), None);

    // The broker's end is the client's, and its absence a 503.
    let mut probe = Probe::connect(&url, "me").await.unwrap();
    broker.kill().await;
    probe.closed().await.unwrap();
    let error = Probe::connect(&url, "me").await.unwrap_err();
    assert_eq!(error.status(), Some(503));
    assert_eq!(last(&gateway), Outcome::BrokerUnreachable);
    broker.start_again().await.unwrap();
    Probe::connect(&url, "me").await.unwrap();
}

#[tokio::test]
async fn nothing_shows_a_secret() {
    let (_broker, gateway) = start().await;
    let mut signer = Signer::of(&gateway);
    let url = signer.url();
    Probe::connect(&url, "me").await.unwrap();
    let key = AccessKey::new(KEY, SECRET).session_token(TOKEN);
    let shown = format!(
        "{gateway:#?} {:#?} {:#?} {:#?} {key:#?}",
        gateway.keys(),
        gateway.attempts(),
        GatewayOptions::new("ws://127.0.0.1:1").access_key(key.clone()),
    );
    let (_, signature) = url.split_once("X-Amz-Signature=").unwrap();
    for secret in [SECRET, TOKEN, "marker", &signature[..64]] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    // And two attempts with one URL can be told from two with two.
    Probe::connect(&url, "me").await.unwrap();
    // The same signer: a second one, a second later, would sign the same.
    signer.time -= Duration::from_secs(1);
    Probe::connect(&signer.url(), "me").await.unwrap();
    let attempts = gateway.attempts();
    assert_eq!(attempts[0].signature, attempts[1].signature);
    assert_ne!(attempts[1].signature, attempts[2].signature);
}

#[tokio::test]
async fn a_brokers_address_must_be_complete() {
    for bad in [
        "wss://localhost:1/mqtt",
        "ws://localhost/mqtt",
        "localhost:1",
        "",
    ] {
        let error = GatewayOptions::new(bad).start().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{bad}");
    }
}
