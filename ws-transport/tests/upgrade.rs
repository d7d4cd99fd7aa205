//! The opening handshake against scripted servers.

mod common;

use std::time::Duration;

use common::{InMemory, SUBPROTOCOL, header, read_head, request};
use http::{HeaderName, HeaderValue, header as names};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::{self, Instant},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use ws_transport::{
    ConnectError, ConnectStage, Connector, Endpoint, MAX_ANSWER_HEAD_LEN, MAX_REFUSAL_BODY_LEN,
    MAX_REQUEST_HEADERS_LEN, PlaintextCredentials, Refusal, RequestError, SubprotocolPolicy,
    UpgradeError, UpgradeRequest, WebSocket,
};

fn endpoint() -> Endpoint {
    "ws://broker.example:8080/a%2Fb".parse().unwrap()
}

/// Connects to a server that the script plays; the connection ends with the script.
async fn connect(
    request: &UpgradeRequest,
    script: impl AsyncFnOnce(&mut DuplexStream),
) -> Result<WebSocket, ConnectError> {
    let (dialer, mut theirs) = InMemory::pair();
    let connector = Connector::new()
        .dialer(dialer)
        .timeout(Duration::from_secs(600));
    let endpoint = endpoint();
    let server = async {
        script(&mut theirs).await;
        drop(theirs);
    };
    let (result, ()) = tokio::join!(connector.connect(&endpoint, request), server);
    result
}

/// Answers with the template, `{accept}` put in.
async fn answer(io: &mut DuplexStream, template: &str) {
    let head = read_head(io).await;
    let key = header(&head, "Sec-WebSocket-Key").unwrap();
    let answer = template.replace("{accept}", &derive_accept_key(key.as_bytes()));
    // The client may have judged half an answer already.
    let _gone = io.write_all(answer.as_bytes()).await;
}

const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: {accept}\r\n\
    Sec-WebSocket-Protocol: test.bytes\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn the_request_is_what_rfc_6455_wants() {
    let request = request()
        .header(
            names::ORIGIN,
            HeaderValue::from_static("https://app.example"),
        )
        .unwrap();
    connect(&request, async |io| {
        let head = read_head(io).await;
        let key = header(&head, "Sec-WebSocket-Key").unwrap().to_owned();
        assert_eq!(
            head,
            format!(
                "GET /a%2Fb HTTP/1.1\r\n\
                 Host: broker.example:8080\r\n\
                 Connection: Upgrade\r\n\
                 Upgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: {key}\r\n\
                 Sec-WebSocket-Protocol: test.bytes\r\n\
                 origin: https://app.example\r\n\r\n"
            )
        );
        assert_eq!(key.len(), 24);
        let answer = GOOD.replace("{accept}", &derive_accept_key(key.as_bytes()));
        io.write_all(answer.as_bytes()).await.unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test(start_paused = true)]
async fn odd_but_right_answers_are_taken() {
    for template in [
        GOOD.to_owned(),
        GOOD.replace("Connection: Upgrade", "connection: keep-alive, upgrade"),
        GOOD.replace(
            "Connection: Upgrade",
            "Connection: keep-alive\r\nConnection: Upgrade",
        ),
        GOOD.replace("Upgrade: websocket", "UPGRADE: WebSocket"),
        GOOD.replace("Switching Protocols", ""),
        GOOD.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions:\r\n\r\n"),
        format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{GOOD}"),
    ] {
        let socket = connect(&request(), async |io| answer(io, &template).await).await;
        assert_eq!(
            socket.expect(&template).subprotocol(),
            Some(SUBPROTOCOL),
            "{template}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn frames_behind_the_answer_are_not_lost() {
    let mut socket = connect(&request(), async |io| {
        let head = read_head(io).await;
        let key = header(&head, "Sec-WebSocket-Key").unwrap();
        let answer = GOOD.replace("{accept}", &derive_accept_key(key.as_bytes()));
        // A frame in the same write as the answer.
        let bytes = [answer.as_bytes(), b"\x82\x05early"].concat();
        io.write_all(&bytes).await.unwrap();
    })
    .await
    .unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap(), "early");
}

#[tokio::test(start_paused = true)]
async fn answers_that_break_a_rule_are_refused_by_its_name() {
    for (template, expected) in [
        (
            GOOD.replace("Upgrade: websocket\r\n", ""),
            UpgradeError::NoUpgrade,
        ),
        (
            GOOD.replace("websocket\r\n", "h2c\r\n"),
            UpgradeError::NoUpgrade,
        ),
        (
            GOOD.replace("Connection: Upgrade\r\n", ""),
            UpgradeError::NoConnectionUpgrade,
        ),
        (
            GOOD.replace("Connection: Upgrade", "Connection: not-upgrade"),
            UpgradeError::NoConnectionUpgrade,
        ),
        (GOOD.replace("{accept}", "AAAA"), UpgradeError::Accept),
        (
            GOOD.replace("Sec-WebSocket-Accept: {accept}\r\n", ""),
            UpgradeError::Accept,
        ),
        (
            GOOD.replace("\r\n\r\n", "\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"),
            UpgradeError::Accept,
        ),
        (
            GOOD.replace(
                "\r\n\r\n",
                "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            ),
            UpgradeError::Extension,
        ),
        (
            GOOD.replace("Sec-WebSocket-Protocol: test.bytes\r\n", ""),
            UpgradeError::SubprotocolMissing,
        ),
        (
            GOOD.replace("test.bytes", "TEST.bytes"),
            UpgradeError::SubprotocolUnknown,
        ),
        (
            GOOD.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: test.bytes\r\n\r\n"),
            UpgradeError::SubprotocolUnknown,
        ),
        ("\u{10}\u{2}\0\0".to_owned(), UpgradeError::NotHttp),
        ("HTTP/2 101 x\r\n\r\n".to_owned(), UpgradeError::NotHttp),
        ("HTTP/1.1 1 x\r\n\r\n".to_owned(), UpgradeError::NotHttp),
        (
            "HTTP/1.1 101 x\r\nA B: c\r\n\r\n".to_owned(),
            UpgradeError::NotHttp,
        ),
        (
            "HTTP/1.1 101 x\r\nA: b\r\n c\r\n\r\n".to_owned(),
            UpgradeError::NotHttp,
        ),
        (
            format!("HTTP/1.1 101 x\r\nA: {}", "x".repeat(MAX_ANSWER_HEAD_LEN)),
            UpgradeError::HeadTooLong,
        ),
        (
            format!("HTTP/1.1 101 x\r\n{}\r\n", "A: b\r\n".repeat(65)),
            UpgradeError::HeadTooLong,
        ),
    ] {
        let error = connect(&request(), async |io| answer(io, &template).await)
            .await
            .unwrap_err();
        match error {
            ConnectError::Upgrade(rule) => assert_eq!(rule, expected, "{template}"),
            other => panic!("{template}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_of_the_very_limit_passes() {
    let head = |len: usize| {
        let bare = GOOD.replace("\r\n\r\n", "\r\nA: \r\n\r\n");
        let accept_len = 28 - "{accept}".len();
        let fill = "x".repeat(len - bare.len() - accept_len);
        bare.replace("\r\nA: ", &format!("\r\nA: {fill}"))
    };
    let fits = head(MAX_ANSWER_HEAD_LEN);
    connect(&request(), async |io| answer(io, &fits).await)
        .await
        .unwrap();
    let over = head(MAX_ANSWER_HEAD_LEN + 1);
    let error = connect(&request(), async |io| answer(io, &over).await)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Upgrade(UpgradeError::HeadTooLong)),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_subprotocol_policy_loosens_the_rule() {
    let missing = GOOD.replace("Sec-WebSocket-Protocol: test.bytes\r\n", "");
    let other = GOOD.replace("test.bytes", "other");
    for (policy, takes_missing, takes_other) in [
        (SubprotocolPolicy::Exact, false, false),
        (SubprotocolPolicy::AllowMissing, true, false),
        (SubprotocolPolicy::AllowAny, true, true),
    ] {
        let request = request().subprotocol_policy(policy);
        for (template, taken) in [(&missing, takes_missing), (&other, takes_other)] {
            let result = connect(&request, async |io| answer(io, template).await).await;
            assert_eq!(result.is_ok(), taken, "{policy:?} {template}");
        }
    }
    // Nothing offered, nothing chosen; or something anyway.
    let none = UpgradeRequest::new();
    let socket = connect(&none, async |io| answer(io, &missing).await).await;
    assert_eq!(socket.unwrap().subprotocol(), None);
    assert!(
        connect(&none, async |io| answer(io, &other).await)
            .await
            .is_err()
    );
}

async fn refusal(script: impl AsyncFnOnce(&mut DuplexStream)) -> Refusal {
    match connect(&request(), script).await {
        Err(ConnectError::Refused(refusal)) => *refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_refusal_may_come_late() {
    let start = Instant::now();
    let refusal = refusal(async |io| {
        answer(
            io,
            "HTTP/1.1 403 Forbidden\r\nDate: Mon, 06 Jul 2026 00:00:00 GMT\r\n\
             x-amzn-errortype: ForbiddenException:http://internal/\r\nContent-Length: 23\r\n\r\n",
        )
        .await;
        time::sleep(Duration::from_millis(400)).await;
        io.write_all(b"{\"message\":").await.unwrap();
        time::sleep(Duration::from_millis(400)).await;
        io.write_all(b"\"Forbidden\"}").await.unwrap();
        // The connection stays open: the length ends the body.
        time::sleep(Duration::from_secs(60)).await;
    });
    let refusal = time::timeout(Duration::from_secs(61), refusal)
        .await
        .unwrap();
    assert_eq!(refusal.body(), "{\"message\":\"Forbidden\"}");
    assert_eq!(refusal.status(), 403);
    assert_eq!(refusal.headers()["date"], "Mon, 06 Jul 2026 00:00:00 GMT");
    assert_eq!(refusal.to_string(), "status 403 (ForbiddenException)");
    assert!(!refusal.is_retryable());
    assert!(start.elapsed() >= Duration::from_millis(800));
}

#[tokio::test(start_paused = true)]
async fn what_came_of_a_body_within_a_second_is_kept() {
    let (dialer, mut theirs) = InMemory::pair();
    let connector = Connector::new().dialer(dialer);
    let start = Instant::now();
    let server = tokio::spawn(async move {
        answer(&mut theirs, "HTTP/1.1 503 Busy\r\n\r\npart").await;
        std::future::pending::<()>().await;
    });
    let error = connector
        .connect(&endpoint(), &request())
        .await
        .unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    assert!(error.is_retryable());
    let ConnectError::Refused(refusal) = error else {
        panic!("{error:?}");
    };
    assert_eq!(refusal.body(), "part");
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_kept_when_the_deadline_cuts_its_body() {
    let (dialer, mut theirs) = InMemory::pair();
    let connector = Connector::new()
        .dialer(dialer)
        .timeout(Duration::from_millis(500));
    let server = tokio::spawn(async move {
        answer(&mut theirs, "HTTP/1.1 403 Forbidden\r\n\r\npart").await;
        std::future::pending::<()>().await;
    });
    let error = connector
        .connect(&endpoint(), &request())
        .await
        .unwrap_err();
    let ConnectError::Refused(refusal) = error else {
        panic!("{error:?}");
    };
    assert_eq!(refusal.body(), "part");
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_callers_deadline_keeps_a_refusal_too_and_a_shorter_one_of_our_own_holds() {
    for (own, result) in [(60, "refused"), (1, "late")] {
        let (dialer, mut theirs) = InMemory::pair();
        let connector = Connector::new()
            .dialer(dialer)
            .timeout(Duration::from_secs(own));
        let server = tokio::spawn(async move {
            // The answer comes in the last half second, and its body never ends.
            theirs
                .read_buf(&mut Vec::with_capacity(4096))
                .await
                .unwrap();
            time::sleep(Duration::from_millis(4500)).await;
            let refusal = b"HTTP/1.1 403 Forbidden\r\n\r\npart";
            let _gone = theirs.write_all(refusal).await;
            std::future::pending::<()>().await;
        });
        let (endpoint, request) = (endpoint(), request());
        let limit = Duration::from_secs(5);
        let connect = connector.connect_within(&endpoint, &request, limit);
        match time::timeout(limit, connect).await.unwrap().unwrap_err() {
            ConnectError::Refused(refusal) => {
                assert_eq!((refusal.body().as_ref(), result), (&b"part"[..], "refused"));
            }
            ConnectError::Timeout(_) => assert_eq!(result, "late"),
            other => panic!("{other:?}"),
        }
        server.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_end_by_length_by_chunks_or_with_the_connection() {
    for (head_and_body, body) in [
        ("Content-Length: 4\r\n\r\nbodyand more", "body"),
        ("Content-Length: 0\r\n\r\n", ""),
        ("\r\nall of it", "all of it"),
        (
            "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n6;x=y\r\n parts\r\n0\r\n\r\n",
            "body parts",
        ),
        ("Transfer-Encoding: chunked\r\n\r\nff\r\ncut off", "cut off"),
        ("Transfer-Encoding: chunked\r\n\r\nnonsense", ""),
        (
            "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx",
            "",
        ),
        ("Content-Length: 99999999999999999999\r\n\r\nx", "x"),
    ] {
        let refusal = refusal(async |io| {
            answer(io, &format!("HTTP/1.1 400 Bad Request\r\n{head_and_body}")).await;
        })
        .await;
        assert_eq!(refusal.body(), body, "{head_and_body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_cut_at_the_bound() {
    for len in [MAX_REFUSAL_BODY_LEN, MAX_REFUSAL_BODY_LEN + 1, 60_000] {
        let refusal = refusal(async |io| {
            let body = "x".repeat(len);
            answer(io, &format!("HTTP/1.1 400 Bad Request\r\n\r\n{body}")).await;
        })
        .await;
        assert_eq!(refusal.body().len(), MAX_REFUSAL_BODY_LEN);
    }
}

#[tokio::test(start_paused = true)]
async fn redirects_are_refusals() {
    let refusal = refusal(async |io| {
        answer(
            io,
            "HTTP/1.1 302 Found\r\nLocation: ws://elsewhere.example/\r\n\r\n",
        )
        .await;
    })
    .await;
    assert_eq!(refusal.status(), 302);
    assert!(!refusal.is_retryable());
    // The in-memory dialler fails a second dial: following would not have ended in a refusal.
}

#[tokio::test(start_paused = true)]
async fn the_connection_may_end_at_each_byte_of_the_answer() {
    for cut in 0..GOOD.len() {
        let error = connect(&request(), async |io| {
            let head = read_head(io).await;
            let key = header(&head, "Sec-WebSocket-Key").unwrap();
            let whole = GOOD.replace("{accept}", &derive_accept_key(key.as_bytes()));
            io.write_all(&whole.as_bytes()[..cut]).await.unwrap();
        })
        .await
        .unwrap_err();
        assert!(
            matches!(error, ConnectError::Interrupted(_)),
            "{cut}: {error:?}"
        );
        assert!(error.is_retryable());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_or_silent_server_meets_the_deadline() {
    for byte_every in [None, Some(Duration::from_millis(900))] {
        let (dialer, mut theirs) = InMemory::pair();
        let connector = Connector::new()
            .dialer(dialer)
            .timeout(Duration::from_secs(10));
        let server = tokio::spawn(async move {
            let Some(pause) = byte_every else {
                return std::future::pending().await;
            };
            for byte in GOOD.bytes() {
                theirs.write_u8(byte).await.unwrap();
                time::sleep(pause).await;
            }
        });
        let start = Instant::now();
        let error = connector
            .connect(&endpoint(), &request())
            .await
            .unwrap_err();
        assert!(
            matches!(error, ConnectError::Timeout(ConnectStage::Upgrade)),
            "{error:?}"
        );
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        server.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_read_meets_the_deadline() {
    let (ours, theirs) = tokio::io::duplex(16);
    let stalled = common::Once(std::sync::Mutex::new(Some(ours)));
    let connector = Connector::new()
        .dialer(stalled)
        .timeout(Duration::from_secs(10));
    let error = connector
        .connect(&endpoint(), &request())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Timeout(ConnectStage::Upgrade)),
        "{error:?}"
    );
    drop(theirs);
}

#[test]
fn what_cannot_be_sent_is_refused_up_front() {
    let header = |name: HeaderName, value: &str| {
        UpgradeRequest::new().header(name, HeaderValue::from_str(value).unwrap())
    };
    for name in [
        names::HOST,
        names::CONNECTION,
        names::UPGRADE,
        names::SEC_WEBSOCKET_KEY,
        names::SEC_WEBSOCKET_VERSION,
        names::SEC_WEBSOCKET_PROTOCOL,
        names::SEC_WEBSOCKET_EXTENSIONS,
        names::SEC_WEBSOCKET_ACCEPT,
        names::CONTENT_LENGTH,
        names::TRANSFER_ENCODING,
    ] {
        assert_eq!(
            header(name.clone(), "x").unwrap_err(),
            RequestError::ReservedHeader,
            "{name}"
        );
    }
    let room = MAX_REQUEST_HEADERS_LEN - "origin: \r\n".len();
    assert!(header(names::ORIGIN, &"x".repeat(room)).is_ok());
    assert_eq!(
        header(names::ORIGIN, &"x".repeat(room + 1)).unwrap_err(),
        RequestError::HeadersTooLong
    );
    for subprotocol in ["", "a b", "a,b", "a\r\nX: y", "ü", "\"a\""] {
        assert_eq!(
            UpgradeRequest::new().subprotocol(subprotocol).unwrap_err(),
            RequestError::Subprotocol,
            "{subprotocol:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_do_not_cross_the_network_in_the_clear_unasked() {
    let authorized = |name| {
        request()
            .header(name, HeaderValue::from_static("secret"))
            .unwrap()
    };
    let mut marked = HeaderValue::from_static("secret");
    marked.set_sensitive(true);
    let marked = request()
        .header(HeaderName::from_static("x-token"), marked)
        .unwrap();
    let cases = [
        ("ws://broker.example/?signature", request()),
        ("ws://broker.example/", authorized(names::AUTHORIZATION)),
        ("ws://broker.example/", authorized(names::COOKIE)),
        ("ws://broker.example/", marked),
        ("ws://broker.example/", request().credentials_follow()),
        ("ws://10.0.0.1/?signature", request()),
    ];
    for (url, request) in cases {
        let connect = async |endpoint: Endpoint, policy| {
            let (dialer, mut theirs) = InMemory::pair();
            let connector = Connector::new()
                .dialer(dialer)
                .plaintext_credentials(policy);
            let server = async {
                let mut seen = Vec::new();
                let _some = theirs.read_buf(&mut seen).await;
                drop(theirs);
                seen.len()
            };
            let connect = async { connector.connect(&endpoint, &request).await.unwrap_err() };
            tokio::select! {
                error = connect => (Some(error), 0),
                sent = server => (None, sent),
            }
        };
        let endpoint: Endpoint = url.parse().unwrap();
        let (error, _) = connect(endpoint.clone(), PlaintextCredentials::LoopbackOnly).await;
        assert!(
            matches!(
                error,
                Some(ConnectError::Request(RequestError::PlaintextCredentials))
            ),
            "{url}"
        );
        let (_, sent) = connect(endpoint, PlaintextCredentials::AnyHost).await;
        assert!(sent > 0, "{url}");
        let loopback: Endpoint = "ws://127.0.0.1/?signature".parse().unwrap();
        let (_, sent) = connect(loopback, PlaintextCredentials::LoopbackOnly).await;
        assert!(sent > 0, "{url}");
    }
}
