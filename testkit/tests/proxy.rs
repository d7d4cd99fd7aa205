//! Each thing the proxy does to a connection, seen from both ends of it.

use std::{
    io,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use testkit::{
    port::Port,
    proxy::{Cut, Direction, Link, Proxy},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// A proxy before a listener of the test's own.
async fn before_listener() -> (Proxy, TcpListener) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
    (proxy, listener)
}

/// Both ends of a connection through the proxy.
async fn through(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.address()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

async fn read_to_end(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    timeout(Duration::from_secs(60), read)
        .await
        .expect("the stream ends")?;
    Ok(bytes)
}

#[tokio::test]
async fn a_clear_link_carries_both_ways_and_passes_the_ends_on() {
    let (proxy, listener) = before_listener().await;
    let (mut client, mut server) = through(&proxy, &listener).await;
    client.write_all(&[1; 100_000]).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut server).await.unwrap(), [1; 100_000]);
    // The other way is still open.
    server.write_all(b"answer").await.unwrap();
    drop(server);
    assert_eq!(read_to_end(&mut client).await.unwrap(), b"answer");
    let counts = proxy.wait_for(|counts| counts.open == 0).await;
    assert_eq!(
        (counts.accepted, counts.to_server, counts.to_client),
        (1, 100_000, 6)
    );
}

#[tokio::test]
async fn a_cut_comes_after_exactly_so_many_bytes() {
    let (proxy, listener) = before_listener().await;
    for bytes in [0, 1, 2, 9, 10] {
        proxy.next(Link::clear().cut_after(Direction::ToClient, bytes, Cut::Finish));
        let (mut client, mut server) = through(&proxy, &listener).await;
        // Something unread must not turn the end into a reset.
        client.write_all(b"ignored").await.unwrap();
        server.write_all(&[7; 10]).await.unwrap();
        let received = read_to_end(&mut client).await.unwrap();
        assert_eq!(received.len() as u64, bytes);
    }
    for bytes in [0, 1, 9] {
        proxy.next(Link::clear().cut_after(Direction::ToServer, bytes, Cut::Finish));
        let (mut client, mut server) = through(&proxy, &listener).await;
        client.write_all(&[7; 10]).await.unwrap();
        let received = read_to_end(&mut server).await.unwrap();
        assert_eq!(received.len() as u64, bytes);
        assert_eq!(read_to_end(&mut client).await.unwrap(), b"");
    }
    // Only those connections were told so.
    let (mut client, mut server) = through(&proxy, &listener).await;
    server.write_all(&[7; 100]).await.unwrap();
    drop(server);
    assert_eq!(read_to_end(&mut client).await.unwrap().len(), 100);
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let (proxy, listener) = before_listener().await;
    let (mut client, mut server) = through(&proxy, &listener).await;
    proxy.cut_all(Cut::Reset);
    for stream in [&mut client, &mut server] {
        let error = read_to_end(stream).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    proxy.next(Link::dead(Cut::Reset));
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let error = read_to_end(&mut client).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn cutting_all_spares_those_that_come_after() {
    let (proxy, listener) = before_listener().await;
    let (mut one, _server_one) = through(&proxy, &listener).await;
    let (mut two, _server_two) = through(&proxy, &listener).await;
    assert_eq!(proxy.counts().open, 2);
    proxy.cut_all(Cut::Finish);
    assert_eq!(read_to_end(&mut one).await.unwrap(), b"");
    assert_eq!(read_to_end(&mut two).await.unwrap(), b"");
    drop((one, two));
    proxy.wait_for(|counts| counts.open == 0).await;
    let (mut client, mut server) = through(&proxy, &listener).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn dribbled_bytes_all_arrive() {
    let (proxy, listener) = before_listener().await;
    proxy.others(
        Link::clear()
            .dribble(Direction::ToServer)
            .dribble(Direction::ToClient),
    );
    let (mut client, mut server) = through(&proxy, &listener).await;
    client.write_all(&[5; 300]).await.unwrap();
    let mut first = [0; 300];
    let length = server.read(&mut first).await.unwrap();
    // All 300 would come at once otherwise.
    assert!(length < 300, "{length}");
    server.read_exact(&mut first[length..]).await.unwrap();
    assert_eq!(first, [5; 300]);
}

#[tokio::test]
async fn a_delay_holds_back() {
    let (proxy, listener) = before_listener().await;
    let delay = Duration::from_millis(60);
    proxy.next(Link::clear().delay(Direction::ToServer, delay));
    let (mut client, mut server) = through(&proxy, &listener).await;
    let begin = Instant::now();
    client.write_all(b"x").await.unwrap();
    server.read_u8().await.unwrap();
    assert!(begin.elapsed() >= delay);
}

#[tokio::test]
async fn a_black_hole_says_nothing_and_reaches_nobody() {
    let (proxy, listener) = before_listener().await;
    proxy.next(Link::black_hole());
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(b"anybody?").await.unwrap();
    // That nothing comes can only be seen by waiting.
    let wait = Duration::from_millis(100);
    assert!(timeout(wait, client.read_u8()).await.is_err());
    assert!(timeout(Duration::ZERO, listener.accept()).await.is_err());
    proxy.cut_all(Cut::Finish);
    assert_eq!(read_to_end(&mut client).await.unwrap(), b"");
}

#[tokio::test]
async fn a_frozen_link_carries_on_when_thawed() {
    let (proxy, listener) = before_listener().await;
    let (mut client, mut server) = through(&proxy, &listener).await;
    proxy.freeze();
    client.write_all(b"x").await.unwrap();
    let wait = Duration::from_millis(100);
    assert!(timeout(wait, server.read_u8()).await.is_err());
    proxy.thaw();
    assert_eq!(server.read_u8().await.unwrap(), b'x');
    // Frozen, it can still be cut.
    proxy.freeze();
    client.write_all(b"y").await.unwrap();
    proxy.cut_all(Cut::Finish);
    assert_eq!(read_to_end(&mut client).await.unwrap(), b"");
}

#[tokio::test]
async fn refusing_ends_everything_until_it_accepts_again() {
    let (mut proxy, listener) = before_listener().await;
    let (mut client, _server) = through(&proxy, &listener).await;
    proxy.refuse().await;
    assert!(read_to_end(&mut client).await.is_ok_and(|b| b.is_empty()));
    let error = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    proxy.accept_again().await.unwrap();
    through(&proxy, &listener).await;
    assert_eq!(proxy.counts().accepted, 2);
}

#[tokio::test]
async fn a_server_that_is_away_is_a_connection_that_ends() {
    let gone = Port::reserve().unwrap();
    let proxy = Proxy::start(gone.address()).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(read_to_end(&mut client).await.unwrap(), b"");
    proxy.wait_for(|counts| counts.open == 0).await;
}

#[tokio::test]
async fn dropped_it_takes_everything_along() {
    let (proxy, listener) = before_listener().await;
    let (mut client, mut server) = through(&proxy, &listener).await;
    let address = proxy.address();
    drop(proxy);
    assert_eq!(read_to_end(&mut client).await.unwrap(), b"");
    assert_eq!(read_to_end(&mut server).await.unwrap(), b"");
    TcpStream::connect(address).await.unwrap_err();
}
