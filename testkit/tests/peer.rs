//! The scripted peer, with the probe as its client.

use std::io;

use testkit::{
    certs::{Authority, Flaw},
    peer::{Frame, Peer, PeerConnection},
    probe::{Probe, ProbeError, ProbeOptions},
};
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn a_connection_is_played_packet_by_packet() {
    let peer = Peer::bind().await.unwrap();
    let url = peer.url();
    let client = async {
        let mut probe = Probe::connect(&url, "me").await.unwrap();
        probe.subscribe("a/b").await.unwrap();
        probe.message().await.unwrap()
    };
    let server = async {
        let mut socket = peer.accept().await.unwrap().upgrade().await.unwrap();
        let connect = socket.accept_connect().await.unwrap();
        assert_eq!(&connect[..2], &[0x10, 14]);
        let subscribe = [0x82, 8, 0, 1, 0, 3, b'a', b'/', b'b', 1];
        socket.expect(&subscribe).await.unwrap();
        // The acknowledgement, and a message cut in the middle.
        socket.send([0x90, 3, 0, 1, 1, 0x30, 4]).await.unwrap();
        socket.send([0, 1, b't', b'!']).await.unwrap();
        socket
    };
    let ((topic, payload), _socket) = tokio::join!(client, server);
    assert_eq!((topic.as_str(), &payload[..]), ("t", &b"!"[..]));
}

#[tokio::test]
async fn an_unexpected_packet_is_an_error_that_shows_both() {
    let peer = Peer::bind().await.unwrap();
    let url = peer.url();
    let (mut probe, mut socket) = both(&peer, &url).await;
    probe.send(&[0xc0_u8, 0][..]).await.unwrap();
    let error = socket.expect(&[0xe0, 0]).await.unwrap_err().to_string();
    assert!(
        error.contains("[e0, 00]") && error.contains("[c0, 00]"),
        "{error}"
    );
}

#[tokio::test]
async fn the_upgrade_is_refused_with_what_the_test_says() {
    let peer = Peer::bind().await.unwrap();
    let url = format!("{}?a=%20b", peer.url());
    let client = Probe::connect(&url, "me");
    let server = async {
        let mut connection = peer.accept().await.unwrap();
        let request = connection.request().await.unwrap();
        assert_eq!(request.target(), "/mqtt?a=%20b");
        assert_eq!(request.header("Sec-WebSocket-Protocol"), Some("mqtt"));
        let headers = [("x-amzn-errortype", "ForbiddenException:")];
        let refusal = connection.refuse("403 Forbidden", &headers, b"{}");
        refusal.await.unwrap();
    };
    let (refused, ()) = tokio::join!(client, server);
    let refused = refused.unwrap_err();
    assert_eq!(refused.status(), Some(403));
    let kind = refused.header("x-amzn-errortype");
    assert_eq!(kind, Some("ForbiddenException:"));
    assert!(matches!(&refused, ProbeError::Refused { body, .. } if body == "{}"));
}

#[tokio::test]
async fn frames_show_what_the_client_did() {
    let peer = Peer::bind().await.unwrap();
    let url = peer.url();
    let (probe, mut socket) = both(&peer, &url).await;
    drop(probe);
    assert_eq!(socket.frame().await.unwrap(), Frame::End);

    let (mut probe, mut socket) = both(&peer, &url).await;
    probe.send(&b"x"[..]).await.unwrap();
    assert_eq!(socket.frame().await.unwrap(), Frame::Binary("x".into()));
    socket.close(1003, "no").await.unwrap();
    let server = async {
        assert_eq!(socket.frame().await.unwrap(), Frame::Close(Some(1003)));
        socket.closed().await.unwrap();
    };
    let client = async move { probe.closed().await.unwrap() };
    tokio::join!(client, server);
}

#[tokio::test]
async fn the_connection_ends_in_each_way() {
    let peer = Peer::bind().await.unwrap();
    let url = peer.url();
    let (mut probe, socket) = both(&peer, &url).await;
    let (seen, ended) = tokio::join!(probe.closed(), async {
        // The probe keeps its side until it is dropped; the wait for that is bounded.
        tokio::time::timeout(std::time::Duration::from_millis(50), socket.finish()).await
    });
    seen.unwrap();
    drop((probe, ended));

    let (mut probe, socket) = both(&peer, &url).await;
    socket.reset();
    let error = probe.packet().await.unwrap_err();
    assert!(
        matches!(&error, ProbeError::Io(e) if e.kind() == io::ErrorKind::ConnectionReset),
        "{error:?}"
    );

    let (mut probe, mut socket) = both(&peer, &url).await;
    // A reserved opcode.
    socket.send_raw(&[0x83, 0]).await.unwrap();
    let error = probe.packet().await.unwrap_err();
    assert!(matches!(error, ProbeError::WebSocket(_)), "{error:?}");

    let (mut probe, mut socket) = both(&peer, &url).await;
    socket.send_text("hello").await.unwrap();
    probe.packet().await.unwrap_err();
    drop(probe);
    socket.closed().await.unwrap();
}

#[tokio::test]
async fn any_certificate_can_be_presented() {
    let authority = Authority::new();
    let peer = Peer::bind_tls(&authority.server()).await.unwrap();
    let options = ProbeOptions::new(&peer.url(), "me").trust(&authority);
    let (opened, upgraded) = tokio::join!(options.open(), async {
        peer.accept().await?.upgrade().await
    });
    opened.unwrap();
    upgraded.unwrap();

    let expired = authority.flawed_server(Flaw::Expired);
    let peer = Peer::bind_tls(&expired).await.unwrap();
    let options = ProbeOptions::new(&peer.url(), "me").trust(&authority);
    let (opened, accepted) = tokio::join!(options.open(), peer.accept());
    assert!(matches!(opened, Err(ProbeError::Io(_))));
    accepted.unwrap_err();
}

#[tokio::test]
async fn no_socket_is_needed() {
    let (mut client, far) = tokio::io::duplex(1024);
    let mut connection = PeerConnection::over(far);
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let request = connection.request().await.unwrap();
    assert_eq!(request.header("host"), Some("x"));
    let error = connection.grant(&request, &[]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_nothing_is_an_error_and_no_hang() {
    let (_client, far) = tokio::io::duplex(1024);
    let error = PeerConnection::over(far).request().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

async fn both(peer: &Peer, url: &str) -> (Probe, testkit::peer::PeerSocket) {
    let client = ProbeOptions::new(url, "me").open();
    let (probe, socket) = tokio::join!(client, async { peer.accept().await?.upgrade().await });
    (probe.unwrap(), socket.unwrap())
}
