//! Credentials from an identity pool, against moto and against a Cognito that the test plays.
#![cfg(feature = "cognito")]
#![allow(missing_docs, reason = "tests")]

mod common;
mod moto;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::{StoppedClock, client, options, pass, start};
use moto::Moto;
use pubsub_aws_iot::core::ConnectionState;
use pubsub_aws_iot::{
    CognitoCredentials, CognitoError, CredentialFreshness, CredentialSource, CredentialsErrorKind,
    DEFAULT_NAME, HttpsError,
};
use serde_json::{Value, json};
use testkit::gateway::AccessKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const POOL: &str = "eu-west-1:12345678-1234-1234-1234-123456789012";
const ANY: CredentialFreshness = CredentialFreshness::Any;
const RENEW: CredentialFreshness = CredentialFreshness::Renew;

/// One call, as it came.
#[derive(Debug, Clone, PartialEq)]
struct Call {
    action: String,
    body: Value,
}

type Script = Arc<dyn Fn(&Call, usize) -> (u16, String) + Send + Sync>;

/// A server that answers each call by a function of it and its number.
struct Cognito {
    url: String,
    calls: Arc<Mutex<Vec<Call>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Cognito {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Cognito {
    async fn start(script: impl Fn(&Call, usize) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let script: Script = Arc::new(script);
        let seen = Arc::clone(&calls);
        let serving = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let call = read_call(&mut socket).await;
                let (status, body) = {
                    let mut calls = seen.lock().unwrap();
                    calls.push(call.clone());
                    script(&call, calls.len())
                };
                let head = format!(
                    "HTTP/1.1 {status} -\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let _ = socket.write_all(head.as_bytes()).await;
                let _ = socket.write_all(body.as_bytes()).await;
            }
        });
        Self {
            url,
            calls,
            serving,
        }
    }

    /// One that knows of this many users, guests with the number 0, and gives an hour each time.
    async fn that_works() -> Self {
        Self::start(|call, number| (200, answer(call, number).to_string())).await
    }

    fn source(&self) -> CognitoCredentials {
        let source = CognitoCredentials::new(POOL).unwrap();
        source.endpoint(&self.url).unwrap()
    }

    fn actions(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|call| call.action.clone()).collect()
    }
}

async fn read_call(socket: &mut tokio::net::TcpStream) -> Call {
    let mut request = Vec::new();
    let (head, length) = loop {
        let mut buffer = [0; 4096];
        let read = socket.read(&mut buffer).await.unwrap();
        assert!(read > 0, "the request ended early");
        request.extend_from_slice(&buffer[..read]);
        let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(request[..end].to_vec())
            .unwrap()
            .to_lowercase();
        let length: usize = header(&head, "content-length").parse().unwrap();
        if request.len() == end + 4 + length {
            break (head, length);
        }
    };
    assert!(head.starts_with("post / http/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "content-type"), "application/x-amz-json-1.1");
    assert!(!head.contains("authorization"));
    let text = String::from_utf8(request.clone()).unwrap();
    let target = text.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("x-amz-target").then_some(value)
    });
    let action = target
        .unwrap()
        .strip_prefix("AWSCognitoIdentityService.")
        .unwrap();
    Call {
        action: action.to_owned(),
        body: serde_json::from_slice(&request[request.len() - length..]).unwrap(),
    }
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap()
}

/// What Cognito says to a call. The access key is the identity's, and so is its secret.
fn answer(call: &Call, number: usize) -> Value {
    let guest = call.body.get("Logins").is_none();
    let identity = if guest {
        "eu-west-1:guest"
    } else {
        "eu-west-1:user"
    };
    if call.action == "GetId" {
        assert_eq!(call.body["IdentityPoolId"], POOL);
        return json!({ "IdentityId": identity });
    }
    assert_eq!(call.action, "GetCredentialsForIdentity");
    let end = SystemTime::now() + Duration::from_secs(3600);
    let end = end
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    json!({
        "IdentityId": identity,
        "Credentials": {
            "AccessKeyId": if guest { "AKIDGUEST" } else { "AKIDUSER" },
            "SecretKey": "marker-secret",
            "SessionToken": format!("marker-token-{number}"),
            "Expiration": end,
        },
    })
}

#[tokio::test]
async fn a_guest_gets_an_identity_once_and_credentials_when_needed() {
    let cognito = Cognito::that_works().await;
    let source = cognito.source();
    assert_eq!(source.identity_id(), None);
    let given = source.credentials(ANY).await.unwrap();
    assert_eq!(given.access_key_id(), "AKIDGUEST");
    let left = given
        .expiry()
        .unwrap()
        .duration_since(SystemTime::now())
        .unwrap();
    assert!(left.abs_diff(Duration::from_secs(3600)) < Duration::from_secs(600));
    assert_eq!(source.identity_id().as_deref(), Some("eu-west-1:guest"));
    source.credentials(ANY).await.unwrap();
    assert_eq!(cognito.actions(), ["GetId", "GetCredentialsForIdentity"]);
    let shown = format!("{source:?} {given:?}");
    assert!(!shown.contains("marker"), "{shown}");
}

#[tokio::test]
async fn a_user_has_logins_and_a_role() {
    let cognito = Cognito::that_works().await;
    let source = cognito
        .source()
        .custom_role_arn("arn:aws:iam::123456789012:role/gardener")
        .logins_fn(|| async { Ok(vec![("accounts.google.com".into(), "marker-login".into())]) });
    let given = source.credentials(ANY).await.unwrap();
    assert_eq!(given.access_key_id(), "AKIDUSER");
    let logins = json!({ "accounts.google.com": "marker-login" });
    assert_eq!(
        *cognito.calls.lock().unwrap(),
        [
            Call {
                action: "GetId".into(),
                body: json!({ "IdentityPoolId": POOL, "Logins": logins }),
            },
            Call {
                action: "GetCredentialsForIdentity".into(),
                body: json!({
                    "IdentityId": "eu-west-1:user",
                    "Logins": logins,
                    "CustomRoleArn": "arn:aws:iam::123456789012:role/gardener",
                }),
            },
        ]
    );
}

#[tokio::test]
async fn signing_in_means_another_identity_and_another_connection() {
    let (_broker, gateway) = start().await;
    for (id, number) in [("AKIDGUEST", 2), ("AKIDUSER", 4)] {
        let token = format!("marker-token-{number}");
        gateway
            .keys()
            .add(AccessKey::new(id, "marker-secret").session_token(&token));
    }
    let cognito = Cognito::that_works().await;
    let source = cognito.source();
    let (pubsub, provider) = client(options(&gateway).credentials(source.clone()));
    provider.connect().await.unwrap();
    let mut connection = pubsub.connection(DEFAULT_NAME).unwrap();
    source.sign_in(vec![("accounts.google.com".into(), "login".into())]);
    connection
        .reached(ConnectionState::ConnectionDisrupted)
        .await
        .unwrap();
    connection
        .reached(ConnectionState::Connected)
        .await
        .unwrap();
    assert_eq!(source.identity_id().as_deref(), Some("eu-west-1:user"));
    let keys: Vec<_> = gateway
        .attempts()
        .into_iter()
        .filter_map(|attempt| attempt.access_key_id)
        .collect();
    assert_eq!(keys, ["AKIDGUEST", "AKIDUSER"]);
    pubsub.close().await.unwrap();
}

#[tokio::test]
async fn an_identity_that_was_deleted_is_asked_for_anew() {
    let cognito = Cognito::start(|call, number| match number {
        3 => (
            400,
            json!({ "__type": "ResourceNotFoundException" }).to_string(),
        ),
        _ => (200, answer(call, number).to_string()),
    })
    .await;
    let source = cognito.source();
    source.credentials(ANY).await.unwrap();
    // When the cache lets somebody renew. Signing out and in again would forget the identity; this must not.
    pass(Duration::from_secs(1)).await;
    source.credentials(RENEW).await.unwrap();
    assert_eq!(
        cognito.actions()[2..],
        [
            "GetCredentialsForIdentity",
            "GetId",
            "GetCredentialsForIdentity"
        ]
    );
}

#[tokio::test]
async fn motos_credentials_are_renewed_before_their_ninety_seconds_end() {
    let Some(moto) = Moto::start_or_skip().await else {
        return;
    };
    let _clock = StoppedClock::stop();
    let pool = moto.identity_pool().await;
    let source = CognitoCredentials::new(pool)
        .and_then(|source| source.endpoint(&moto.url()))
        .unwrap();
    let guest = source.credentials(ANY).await.unwrap();
    let identity = source.identity_id().unwrap();
    assert!(identity.contains(':'), "{identity}");
    let end = guest.expiry().unwrap();
    let left = end.duration_since(SystemTime::now()).unwrap();
    assert!(
        left.abs_diff(Duration::from_secs(90)) < Duration::from_secs(60),
        "{left:?}"
    );

    // A fifth of 90 s, and up to a quarter of that for the jitter, before the end. Half a minute is for what has already
    // passed since moto looked at the clock.
    tokio::time::advance(Duration::from_secs(37)).await;
    let kept = source.credentials(ANY).await.unwrap();
    assert_eq!(kept.expiry(), Some(end));
    tokio::time::advance(Duration::from_secs(36)).await;
    let asking = (0..8).map(|_| source.credentials(ANY));
    let given = futures_util::future::join_all(asking).await;
    let renewed = given[0].as_ref().unwrap().expiry().unwrap();
    assert!(renewed > end, "moto was asked again");
    for given in given {
        assert_eq!(given.unwrap().expiry(), Some(renewed), "one request");
    }
    assert_eq!(source.identity_id(), Some(identity.clone()));

    // moto believes any login, and gives everybody who asks an identity of their own.
    source.sign_in(vec![("accounts.google.com".into(), "login".into())]);
    assert_eq!(source.identity_id(), None);
    source.credentials(ANY).await.unwrap();
    assert_ne!(source.identity_id().unwrap(), identity);

    // It has no name for what it does not know.
    let stranger = CognitoCredentials::new(POOL).and_then(|source| source.endpoint(&moto.url()));
    let error = stranger.unwrap().credentials(ANY).await.unwrap_err();
    assert_eq!(error.kind(), CredentialsErrorKind::Unavailable);
}

/// The kind of the failure, and Cognito's part of it.
async fn failure(cognito: &Cognito) -> (CredentialsErrorKind, String) {
    let error = cognito.source().credentials(ANY).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.is::<CognitoError>());
    (error.kind(), source.to_string())
}

#[tokio::test]
async fn each_refusal_is_named_and_final_or_not() {
    use CredentialsErrorKind::{Refused, Unavailable};
    for (status, body, kind, text) in [
        (
            400,
            r#"{"__type":"NotAuthorizedException","message":"Unauthenticated access is not supported"}"#,
            Refused,
            "Cognito refused: NotAuthorizedException",
        ),
        (
            400,
            r#"{"__type":"com.amazon#ResourceNotFoundException"}"#,
            Refused,
            "Cognito refused: ResourceNotFoundException",
        ),
        (
            400,
            r#"{"__type":"TooManyRequestsException"}"#,
            Unavailable,
            "Cognito refused: TooManyRequestsException",
        ),
        (
            500,
            "<html>",
            Unavailable,
            "Cognito refused with status 500",
        ),
        (
            403,
            r#"{"__type":"<b>"}"#,
            Refused,
            "Cognito refused with status 403",
        ),
        (200, "{}", Unavailable, "the answer is not Cognito's"),
        (200, "", Unavailable, "the answer is not Cognito's"),
    ] {
        let cognito = Cognito::start(move |_, _| (status, body.to_owned())).await;
        assert_eq!(failure(&cognito).await, (kind, text.to_owned()), "{body}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let cognito = Cognito::start(|_, _| (200, " ".repeat(64 * 1024 + 1))).await;
    let error = cognito.source().credentials(ANY).await.unwrap_err();
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let found = std::iter::from_fn(|| {
        let error = next?;
        next = error.source();
        Some(error)
    })
    .find_map(|error| error.downcast_ref::<HttpsError>());
    assert!(matches!(found, Some(HttpsError::TooLarge)), "{error:?}");
    // At the bound it is read, and found wanting.
    let cognito = Cognito::start(|_, _| (200, " ".repeat(64 * 1024))).await;
    assert_eq!(failure(&cognito).await.1, "the answer is not Cognito's");
}

#[test]
fn pools_and_endpoints_are_checked() {
    for bad in [
        "",
        "eu-west-1",
        "euwest1:x",
        "eu-west-1:",
        ":x",
        "eu west-1:x",
    ] {
        let error = CognitoCredentials::new(bad).unwrap_err();
        assert!(matches!(error, CognitoError::PoolId), "{bad}");
    }
    for bad in ["http://cognito.example", "cognito.example", "https://a/b"] {
        let error = CognitoCredentials::new(POOL)
            .unwrap()
            .endpoint(bad)
            .unwrap_err();
        assert!(matches!(error, CognitoError::Endpoint), "{bad}");
    }
}
