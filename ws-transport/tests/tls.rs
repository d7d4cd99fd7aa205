//! TLS that works, and TLS that must not.
#![cfg(feature = "tls")]

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use common::{
    InMemory, Once,
    chop::Chopped,
    echo, endpoint, request, serve,
    tls::{Authority, Leaf, acceptor, acceptor_with, client, provider, trusting},
};
use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{CertificateParams, date_time_ymd};
use rustls::{HandshakeKind, ServerConfig};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use ws_transport::{
    BaseRoots, ConnectError, ConnectStage, Connector, TlsConfig, TlsConfigError, TlsError,
    UpgradeRequest, WebSocket, WebSocketError,
};

async fn serve_tls(acceptor: TlsAcceptor) -> (SocketAddr, JoinHandle<()>) {
    serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            // Clients that do not like us are what half of these tests are about.
            if let Ok(stream) = acceptor.accept(stream).await {
                echo(stream).await;
            }
        }
    })
    .await
}

async fn connect(tls: TlsConfig, address: SocketAddr) -> Result<WebSocket, ConnectError> {
    Connector::new()
        .tls(tls)
        .connect(&endpoint("wss", address), &request())
        .await
}

async fn tls_error(tls: TlsConfig, address: SocketAddr) -> TlsError {
    match connect(tls, address).await {
        Err(ConnectError::Tls(error)) => error,
        other => panic!("{other:?}"),
    }
}

async fn exchange(socket: &mut WebSocket) {
    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap(), "hello");
}

#[tokio::test]
async fn bytes_go_out_and_come_back_over_wss() {
    let authority = Authority::new("ours");
    let (address, _server) = serve_tls(acceptor(&authority.server("localhost"))).await;
    let tls = trusting(&authority).build().unwrap();
    let mut socket = connect(tls, address).await.unwrap();
    exchange(&mut socket).await;
    socket.close().await;
}

#[tokio::test]
async fn messages_arrive_however_records_cut_them_and_the_stream_cuts_records() {
    // Around a small message, tungstenite's buffer, a record, and what is read ahead of TLS.
    let lens = [
        1, 125, 126, 2046, 2048, 16_363, 16_384, 16_385, 40_000, 65_536, 200_000,
    ];
    let message = move |at: usize| {
        let len = lens[at % lens.len()];
        Bytes::from_iter((0..len).map(|byte| (at + byte % 251) as u8))
    };
    let small = |at: usize| Bytes::from_owner(at.to_be_bytes());
    let sent = move |at| if at < 33 { message(at) } else { small(at) };
    const COUNT: usize = 3_000;
    let authority = Authority::new("ours");
    let acceptor = acceptor(&authority.server("broker.example"));
    let endpoint = "wss://broker.example/".parse().unwrap();
    for cuts in [vec![1_000_000], vec![0, 16_406], vec![1, 0, 5_000, 17]] {
        let (ours, theirs) = duplex(256 * 1024);
        let acceptor = acceptor.clone();
        let server = tokio::spawn(async move {
            let stream = acceptor.accept(theirs).await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            for at in 0..COUNT {
                socket.feed(Message::Binary(sent(at))).await.unwrap();
            }
            socket.flush().await.unwrap();
            assert!(socket.next().await.unwrap().unwrap().is_close());
        });
        let ours = Chopped::new(ours, cuts, vec![1_000_000]);
        let mut socket = Connector::new()
            .tls(trusting(&authority).build().unwrap())
            .dialer(Once(Mutex::new(Some(ours))))
            .connect(&endpoint, &UpgradeRequest::new())
            .await
            .unwrap();
        for at in 0..COUNT {
            assert_eq!(socket.recv().await.unwrap().unwrap(), sent(at), "{at}");
        }
        socket.close().await;
        server.await.unwrap();
    }
}

#[tokio::test]
async fn roots_may_be_der_and_beside_the_usual_ones() {
    let authority = Authority::new("ours");
    let (address, _server) = serve_tls(acceptor(&authority.server("localhost"))).await;
    let tls = client()
        .add_root_der(authority.der().to_vec())
        .build()
        .unwrap();
    exchange(&mut connect(tls, address).await.unwrap()).await;
}

#[tokio::test]
async fn an_address_may_be_the_subject() {
    let authority = Authority::new("ours");
    let (address, _server) = serve_tls(acceptor(&authority.server("127.0.0.1"))).await;
    let tls = trusting(&authority).build().unwrap();
    let endpoint = format!("wss://{address}/").parse().unwrap();
    let connector = Connector::new().tls(tls);
    exchange(&mut connector.connect(&endpoint, &request()).await.unwrap()).await;
}

#[tokio::test]
async fn a_trailing_dot_is_no_part_of_the_subject() {
    let authority = Authority::new("ours");
    let acceptor = acceptor(&authority.server("broker.example"));
    let (dialer, theirs) = InMemory::pair();
    let server = tokio::spawn(async move {
        let stream = acceptor.accept(theirs).await.unwrap();
        assert_eq!(stream.get_ref().1.server_name(), Some("broker.example"));
        echo(stream).await;
    });
    let connector = Connector::new()
        .dialer(dialer)
        .tls(trusting(&authority).build().unwrap());
    let endpoint = "wss://broker.example./".parse().unwrap();
    let mut socket = connector.connect(&endpoint, &request()).await.unwrap();
    exchange(&mut socket).await;
    socket.close().await;
    server.await.unwrap();
}

async fn error_with(change: impl FnOnce(&mut CertificateParams)) -> TlsError {
    let authority = Authority::new("ours");
    let leaf = authority.leaf("localhost", change);
    let (address, _server) = serve_tls(acceptor(&leaf)).await;
    tls_error(trusting(&authority).build().unwrap(), address).await
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let error = error_with(|params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    })
    .await;
    assert!(
        matches!(error, TlsError::CertificateExpired(_)),
        "{error:?}"
    );
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn a_certificate_from_the_future_is_refused() {
    let error = error_with(|params| {
        params.not_before = date_time_ymd(2200, 1, 1);
        params.not_after = date_time_ymd(2201, 1, 1);
    })
    .await;
    assert!(
        matches!(error, TlsError::CertificateNotYetValid(_)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let authority = Authority::new("ours");
    let (address, _server) = serve_tls(acceptor(&authority.server("elsewhere.example"))).await;
    let error = tls_error(trusting(&authority).build().unwrap(), address).await;
    assert!(matches!(error, TlsError::WrongHost(_)), "{error:?}");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn an_unknown_authority_is_refused() {
    let leaf = Authority::new("theirs").server("localhost");
    let (address, _server) = serve_tls(acceptor(&leaf)).await;
    for tls in [
        trusting(&Authority::new("ours")),
        client().add_roots_pem(Authority::new("x").pem()),
    ] {
        let error = tls_error(tls.build().unwrap(), address).await;
        assert!(matches!(error, TlsError::UnknownIssuer(_)), "{error:?}");
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_when_wanted() {
    let authority = Authority::new("ours");
    let acceptor = acceptor_with(&authority.server("localhost"), Some(&authority));
    let (address, _server) = serve_tls(acceptor).await;
    let Leaf {
        certificate_pem,
        key_pem,
        ..
    } = authority.leaf("device", |_| {});
    let tls = trusting(&authority)
        .client_certificate_pem(certificate_pem, key_pem)
        .build()
        .unwrap();
    exchange(&mut connect(tls, address).await.unwrap()).await;
}

#[tokio::test]
async fn without_a_client_certificate_the_error_says_so() {
    let authority = Authority::new("ours");
    let acceptor = acceptor_with(&authority.server("localhost"), Some(&authority));
    let (address, _server) = serve_tls(acceptor).await;
    let error = tls_error(trusting(&authority).build().unwrap(), address).await;
    assert!(matches!(error, TlsError::ClientCertificate(_)), "{error:?}");

    let stranger = Authority::new("theirs").leaf("device", |_| {});
    let tls = trusting(&authority)
        .client_certificate_pem(stranger.certificate_pem, stranger.key_pem)
        .build()
        .unwrap();
    let error = tls_error(tls, address).await;
    assert!(matches!(error, TlsError::ClientCertificate(_)), "{error:?}");
}

#[tokio::test]
async fn a_server_that_only_speaks_http_2_fails_clearly() {
    let authority = Authority::new("ours");
    let leaf = authority.server("localhost");
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.certificate], leaf.key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (address, _server) = serve_tls(TlsAcceptor::from(Arc::new(config))).await;
    let error = tls_error(trusting(&authority).build().unwrap(), address).await;
    assert!(matches!(error, TlsError::Incompatible(_)), "{error:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_a_handshake_error() {
    let (address, _server) = serve(async |mut stream| {
        let _written = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let authority = Authority::new("ours");
    let error = tls_error(trusting(&authority).build().unwrap(), address).await;
    assert!(matches!(error, TlsError::Handshake(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_meets_the_deadline_in_tls() {
    let (dialer, _silent) = InMemory::pair();
    let tls = trusting(&Authority::new("ours")).build().unwrap();
    let error = Connector::new()
        .dialer(dialer)
        .tls(tls)
        .connect(&"wss://localhost/".parse().unwrap(), &request())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Timeout(ConnectStage::Tls)),
        "{error:?}"
    );
}

#[tokio::test]
async fn sessions_resume_across_reconnects() {
    let authority = Authority::new("ours");
    let acceptor = acceptor(&authority.server("localhost"));
    let resumed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&resumed);
    let (address, _server) = serve(move |stream| {
        let acceptor = acceptor.clone();
        let count = Arc::clone(&count);
        async move {
            let stream = acceptor.accept(stream).await.unwrap();
            if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            echo(stream).await;
        }
    })
    .await;
    let connector = Connector::new().tls(trusting(&authority).build().unwrap());
    for _ in 0..3 {
        let endpoint = endpoint("wss", address);
        // A clone shares the sessions.
        let mut socket = connector
            .clone()
            .connect(&endpoint, &request())
            .await
            .unwrap();
        exchange(&mut socket).await;
        socket.close().await;
    }
    assert_eq!(resumed.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_end_without_close_notify_is_a_disconnect() {
    let authority = Authority::new("ours");
    let acceptor = acceptor(&authority.server("localhost"));
    let (address, _server) = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut tls = acceptor.accept(stream).await.unwrap();
            let head = common::read_head(&mut tls).await;
            let key = common::header(&head, "Sec-WebSocket-Key").unwrap();
            let accept =
                tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: test.bytes\r\n\r\n"
            );
            tls.write_all(answer.as_bytes()).await.unwrap();
            tls.flush().await.unwrap();
            let (mut tcp, _tls) = tls.into_inner();
            tcp.shutdown().await.unwrap();
        }
    })
    .await;
    let tls = trusting(&authority).build().unwrap();
    let mut socket = connect(tls, address).await.unwrap();
    let error = socket.recv().await.unwrap().unwrap_err();
    assert!(matches!(error, WebSocketError::Disconnected), "{error:?}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_stream_without_an_upgrade_serves_plain_https() {
    let authority = Authority::new("ours");
    let acceptor = acceptor(&authority.server("localhost"));
    let (address, _server) = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut tls = acceptor.accept(stream).await.unwrap();
            let head = common::read_head(&mut tls).await;
            assert!(head.starts_with("GET /token HTTP/1.1\r\n"));
            tls.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .await
                .unwrap();
            tls.shutdown().await.unwrap();
        }
    })
    .await;
    let connector = Connector::new().tls(trusting(&authority).build().unwrap());
    let endpoint = endpoint("wss", address);
    let mut stream = connector.connect_stream(endpoint.target()).await.unwrap();
    stream
        .write_all(b"GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "HTTP/1.1 204 No Content\r\n\r\n");
}

#[test]
fn what_is_not_readable_is_named() {
    let leaf = Authority::new("ours").server("localhost");
    let build = |builder: ws_transport::TlsConfigBuilder| builder.build().unwrap_err();
    let cases = [
        (client().add_roots_pem("no certificate in here"), "Root"),
        (client().add_root_der("nonsense"), "Root"),
        (
            client().add_roots_pem("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"),
            "Root",
        ),
        (client().base_roots(BaseRoots::None), "NoRoots"),
        (
            client()
                .add_root_der(leaf.certificate.to_vec())
                .client_certificate_pem("", leaf.key_pem.clone()),
            "ClientCertificate",
        ),
        (
            client()
                .add_root_der(leaf.certificate.to_vec())
                .client_certificate_pem(leaf.certificate_pem.clone(), "no key"),
            "ClientCertificate",
        ),
    ];
    for (builder, expected) in cases {
        let error = build(builder);
        assert_eq!(format!("{error:?}"), expected);
    }
    // A key for another certificate.
    let other = Authority::new("ours").server("localhost");
    let mismatch = build(
        client()
            .add_root_der(leaf.certificate.to_vec())
            .client_certificate_pem(leaf.certificate_pem, other.key_pem),
    );
    assert!(
        matches!(mismatch, TlsConfigError::Rejected(_)),
        "{mismatch:?}"
    );
}

/// Roots from the system's store, in a process of its own: where that is comes from the environment.
#[cfg(any(feature = "native-roots", feature = "platform-verifier"))]
mod system_roots {
    use std::process::{Command, Stdio};

    use super::*;

    const ADDRESS: &str = "WS_TRANSPORT_TEST_ADDRESS";

    /// Connects in the child process; elsewhere there is nothing to connect to.
    #[tokio::test]
    async fn child() {
        let Ok(address) = std::env::var(ADDRESS) else {
            return;
        };
        let roots = [
            #[cfg(feature = "native-roots")]
            BaseRoots::Native,
            #[cfg(feature = "platform-verifier")]
            BaseRoots::Platform,
        ];
        for roots in roots {
            let tls = client().base_roots(roots).build().unwrap();
            let mut socket = connect(tls, address.parse().unwrap()).await.unwrap();
            exchange(&mut socket).await;
        }
        println!("connected");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test(flavor = "multi_thread")]
    async fn come_from_the_system_s_store() {
        let authority = Authority::new("ours");
        let (address, _server) = serve_tls(acceptor(&authority.server("localhost"))).await;
        let run = |authority: &Authority| {
            let file = std::env::temp_dir().join(format!(
                "ws-transport-{}-{}.pem",
                std::process::id(),
                address.port()
            ));
            std::fs::write(&file, authority.pem()).unwrap();
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "system_roots::child", "--nocapture"])
                .env(ADDRESS, address.to_string())
                .env("SSL_CERT_FILE", &file)
                .stderr(Stdio::null())
                .output()
                .unwrap();
            std::fs::remove_file(&file).unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let out = tokio::task::block_in_place(|| run(&authority));
        assert!(out.contains("connected"), "{out}");
        let out = tokio::task::block_in_place(|| run(&Authority::new("theirs")));
        assert!(!out.contains("connected"), "{out}");
    }
}
