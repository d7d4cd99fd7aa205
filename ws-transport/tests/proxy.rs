//! Scripted proxies that do their part, and proxies that fail at each step.

mod common;

use std::time::Duration;

use common::{InMemory, echo, endpoint, read_head, request, serve};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, copy_bidirectional},
    net::TcpStream,
};
use ws_transport::{
    ConnectError, ConnectStage, Connector, Dial as _, DialError, EnvProxies, Host, Proxy,
    ProxyError, Security, SocksReply, Target,
};

fn host(host: &str) -> Host {
    host.parse().unwrap()
}

fn target() -> Target {
    Target::new(host("broker.example"), 8883, Security::Tls)
}

fn http() -> Proxy {
    Proxy::http(host("proxy.example"), 3128)
}

fn socks() -> Proxy {
    Proxy::socks5(host("proxy.example"), 1080)
}

/// Dials the target through the proxy, whose side the script plays.
async fn tunnel(
    proxy: Proxy,
    script: impl AsyncFnOnce(&mut DuplexStream),
) -> Result<Vec<u8>, ProxyError> {
    let (dialer, mut theirs) = InMemory::pair();
    let proxy = proxy.dialer(dialer);
    let client = async {
        let target = target();
        let mut io = match proxy.dial(&target).await {
            Ok(io) => io,
            Err(DialError::Proxy(error)) => return Err(*error),
            Err(other) => panic!("{other:?}"),
        };
        let mut received = Vec::new();
        io.read_to_end(&mut received).await.unwrap();
        Ok(received)
    };
    let server = async {
        script(&mut theirs).await;
        drop(theirs);
    };
    let (result, ()) = tokio::join!(client, server);
    result
}

async fn read_exactly(io: &mut DuplexStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    io.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, expected);
}

#[tokio::test]
async fn connect_is_asked_for_by_name_and_authenticated() {
    let proxy = http().credentials("Aladdin", "open sesame").unwrap();
    let received = tunnel(proxy, async |io| {
        assert_eq!(
            read_head(io).await,
            "CONNECT broker.example:8883 HTTP/1.1\r\n\
             Host: broker.example:8883\r\n\
             proxy-authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        );
        // In one piece with what the target says first.
        io.write_all(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nfirst words")
            .await
            .unwrap();
    })
    .await
    .unwrap();
    assert_eq!(received, b"first words");
}

#[tokio::test]
async fn an_answer_may_dribble_in() {
    let received = tunnel(http(), async |io| {
        read_head(io).await;
        for byte in b"HTTP/1.0 200 OK\r\n\r\nthen" {
            io.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(received, b"then");
}

#[tokio::test]
async fn an_http_proxy_may_refuse() {
    for (answer, expected, retryable) in [
        ("407 Proxy Authentication Required", None, false),
        ("403 Forbidden", Some(403), false),
        ("502 Bad Gateway", Some(502), true),
        ("301 Moved", Some(301), false),
    ] {
        let error = tunnel(http(), async |io| {
            read_head(io).await;
            let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
            io.write_all(answer.as_bytes()).await.unwrap();
        })
        .await
        .unwrap_err();
        match (&error, expected) {
            (ProxyError::Authentication, None) => {}
            (ProxyError::Refused(status), Some(code)) => assert_eq!(status.as_u16(), code),
            _ => panic!("{error:?}"),
        }
        assert_eq!(error.is_retryable(), retryable, "{answer}");
    }
}

#[tokio::test]
async fn an_http_proxy_may_fail_at_each_byte() {
    let answer = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
    for cut in 0..answer.len() {
        let error = tunnel(http(), async |io| {
            read_head(io).await;
            io.write_all(&answer[..cut]).await.unwrap();
        })
        .await
        .unwrap_err();
        assert!(matches!(error, ProxyError::Io(_)), "{cut}: {error:?}");
        assert!(error.is_retryable());
    }
    for nonsense in [
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ] {
        let error = tunnel(http(), async |io| {
            read_head(io).await;
            io.write_all(nonsense.as_bytes()).await.unwrap();
        })
        .await
        .unwrap_err();
        assert!(matches!(error, ProxyError::Malformed), "{error:?}");
    }
    let error = tunnel(http(), async |io| {
        read_head(io).await;
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(17 * 1024));
        io.write_all(endless.as_bytes()).await.unwrap();
    })
    .await
    .unwrap_err();
    assert!(matches!(error, ProxyError::Malformed), "{error:?}");
}

const HELLO: &[u8] = &[5, 1, 0];
const HELLO_WITH_PASSWORD: &[u8] = &[5, 2, 0, 2];
const CONNECT: &[u8] = b"\x05\x01\x00\x03\x0ebroker.example\x22\xb3";

#[tokio::test]
async fn socks_connects_by_name() {
    let received = tunnel(socks(), async |io| {
        read_exactly(io, HELLO).await;
        io.write_all(&[5, 0]).await.unwrap();
        read_exactly(io, CONNECT).await;
        io.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80])
            .await
            .unwrap();
        io.write_all(b"first words").await.unwrap();
    })
    .await
    .unwrap();
    assert_eq!(received, b"first words");
}

#[tokio::test]
async fn socks_authenticates_and_takes_any_bound_address() {
    for bound in [
        [&[4][..], &[0; 16], &[0, 0]].concat(),
        b"\x03\x04name\x00\x00".to_vec(),
        b"\x03\x00\x00\x00".to_vec(),
    ] {
        let proxy = socks().credentials("user", "pass").unwrap();
        let received = tunnel(proxy, async |io| {
            read_exactly(io, HELLO_WITH_PASSWORD).await;
            io.write_all(&[5, 2]).await.unwrap();
            read_exactly(io, b"\x01\x04user\x04pass").await;
            io.write_all(&[1, 0]).await.unwrap();
            read_exactly(io, CONNECT).await;
            io.write_all(&[5, 0, 0]).await.unwrap();
            io.write_all(&bound).await.unwrap();
            io.write_all(b"x").await.unwrap();
        })
        .await
        .unwrap();
        assert_eq!(received, b"x");
    }
}

/// Steps through a SOCKS5 dialogue up to the given answers.
async fn socks_answers(io: &mut DuplexStream, answers: &[&[u8]]) {
    let questions: [&[u8]; 3] = [HELLO_WITH_PASSWORD, b"\x01\x01u\x01p", CONNECT];
    for (question, answer) in questions.iter().zip(answers) {
        read_exactly(io, question).await;
        io.write_all(answer).await.unwrap();
    }
}

#[tokio::test]
async fn socks_may_refuse_at_each_step() {
    let with = || socks().credentials("u", "p").unwrap();
    let authentication = |error: &ProxyError| matches!(error, ProxyError::Authentication);
    let malformed = |error: &ProxyError| matches!(error, ProxyError::Malformed);
    let not_allowed =
        |error: &ProxyError| matches!(error, ProxyError::Socks(SocksReply::NotAllowed));
    let refused =
        |error: &ProxyError| matches!(error, ProxyError::Socks(SocksReply::ConnectionRefused));
    type Case<'a> = (&'a [&'a [u8]], &'a dyn Fn(&ProxyError) -> bool, bool);
    let cases: &[Case<'_>] = &[
        (&[&[5, 0xff]], &authentication, false),
        (&[&[4, 0]], &malformed, false),
        (&[&[5, 1]], &malformed, false),
        (&[&[5, 2], &[1, 1]], &authentication, false),
        (&[&[5, 2], &[5, 0]], &malformed, false),
        (&[&[5, 2], &[1, 0], &[5, 2, 0, 1]], &not_allowed, false),
        (&[&[5, 2], &[1, 0], &[5, 5, 0, 1]], &refused, true),
        (&[&[5, 2], &[1, 0], &[5, 0, 0, 9]], &malformed, false),
        (&[&[5, 2], &[1, 0], &[4, 0, 0, 1]], &malformed, false),
    ];
    for (answers, is_expected, retryable) in cases {
        let error = tunnel(with(), async |io| socks_answers(io, answers).await)
            .await
            .unwrap_err();
        assert!(is_expected(&error), "{answers:?}: {error:?}");
        assert_eq!(error.is_retryable(), *retryable, "{error:?}");
    }
    // A method that was not offered.
    let error = tunnel(socks(), async |io| {
        read_exactly(io, HELLO).await;
        io.write_all(&[5, 2]).await.unwrap();
    })
    .await
    .unwrap_err();
    assert!(malformed(&error), "{error:?}");
}

#[tokio::test]
async fn socks_may_fail_at_each_byte() {
    let answers: [&[u8]; 3] = [&[5, 2], &[1, 0], b"\x05\x00\x00\x03\x04name\x00\x00"];
    for step in 0..answers.len() {
        for cut in 0..answers[step].len() {
            let mut sent = answers[..=step].to_vec();
            sent[step] = &answers[step][..cut];
            let proxy = socks().credentials("u", "p").unwrap();
            let error = tunnel(proxy, async |io| socks_answers(io, &sent).await)
                .await
                .unwrap_err();
            assert!(matches!(error, ProxyError::Io(_)), "{sent:?}: {error:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_proxy_meets_the_deadline() {
    for proxy in [http(), socks()] {
        let (dialer, _silent) = InMemory::pair();
        let connector = Connector::new()
            .dialer(proxy.dialer(dialer))
            .timeout(Duration::from_secs(7));
        let start = tokio::time::Instant::now();
        let endpoint = "wss://broker.example/".parse().unwrap();
        let error = connector.connect(&endpoint, &request()).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::Timeout(ConnectStage::Dial)),
            "{error:?}"
        );
        assert_eq!(start.elapsed(), Duration::from_secs(7));
    }
}

/// A proxy that does what it is asked, whoever asks.
async fn open_proxy(mut client: TcpStream) {
    let head = read_head(&mut client).await;
    let authority = head.split(' ').nth(1).unwrap();
    let mut server = TcpStream::connect(authority).await.unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let _ended = copy_bidirectional(&mut client, &mut server).await;
}

#[tokio::test]
async fn a_websocket_opens_through_a_chain_of_two() {
    let (server, _running) = serve(echo).await;
    let (outer, _running) = serve(open_proxy).await;
    let (inner, _running) = serve(open_proxy).await;
    let first = Proxy::http(outer.ip().into(), outer.port());
    let second = Proxy::http(inner.ip().into(), inner.port()).dialer(first);
    let mut socket = Connector::new()
        .dialer(second)
        .connect(&endpoint("ws", server), &request())
        .await
        .unwrap();
    socket.send("through two").await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap(), "through two");
}

#[tokio::test]
async fn the_environment_is_followed_when_asked() {
    let (server, _running) = serve(echo).await;
    let (proxy, _running) = serve(open_proxy).await;
    let proxies = EnvProxies::from_variables(|name| {
        (name == "http_proxy").then(|| format!("http://{proxy}"))
    })
    .unwrap();
    let mut socket = Connector::new()
        .dialer(proxies)
        .connect(&endpoint("ws", server), &request())
        .await
        .unwrap();
    socket.send("via").await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap(), "via");
}

#[cfg(feature = "tls")]
mod over_tls {
    use ws_transport::TlsError;

    use super::*;
    use crate::common::tls::{Authority, acceptor, trusting};

    #[tokio::test]
    async fn tls_runs_in_tls_through_an_https_proxy() {
        let authority = Authority::new("ours");
        let server_tls = acceptor(&authority.server("localhost"));
        let (server, _running) = serve(move |stream| {
            let tls = server_tls.clone();
            async move { echo(tls.accept(stream).await.unwrap()).await }
        })
        .await;
        let proxy_tls = acceptor(&authority.server("127.0.0.1"));
        let (proxy, _running) = serve(move |stream| {
            let tls = proxy_tls.clone();
            async move {
                let mut client = tls.accept(stream).await.unwrap();
                let head = read_head(&mut client).await;
                let authority = head.split(' ').nth(1).unwrap();
                let mut server = TcpStream::connect(authority).await.unwrap();
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ended = copy_bidirectional(&mut client, &mut server).await;
            }
        })
        .await;
        let tls = trusting(&authority).build().unwrap();
        let https = Proxy::https(proxy.ip().into(), proxy.port()).tls(tls.clone());
        let mut socket = Connector::new()
            .dialer(https)
            .tls(tls)
            .connect(&endpoint("wss", server), &request())
            .await
            .unwrap();
        socket.send("onion").await.unwrap();
        assert_eq!(socket.recv().await.unwrap().unwrap(), "onion");
    }

    #[tokio::test]
    async fn a_proxy_with_a_stranger_s_certificate_is_not_used() {
        let tls = acceptor(&Authority::new("theirs").server("127.0.0.1"));
        let (proxy, _running) = serve(move |stream| {
            let tls = tls.clone();
            async move { assert!(tls.accept(stream).await.is_err()) }
        })
        .await;
        let https = Proxy::https(proxy.ip().into(), proxy.port())
            .tls(trusting(&Authority::new("ours")).build().unwrap());
        let Err(DialError::Proxy(error)) = https.dial(&target()).await else {
            panic!("the tunnel stands");
        };
        assert!(
            matches!(*error, ProxyError::Tls(TlsError::UnknownIssuer(_))),
            "{error:?}"
        );
    }
}
