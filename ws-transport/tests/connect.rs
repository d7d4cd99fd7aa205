//! From a URL to an open WebSocket and back.

mod common;

use std::time::Duration;

use common::{SUBPROTOCOL, echo, endpoint, request, serve};
use ws_transport::{CloseOutcome, Connector, WebSocketConfig};

#[tokio::test]
async fn bytes_go_out_and_come_back_over_ws() {
    let (address, _server) = serve(echo).await;
    let connector = Connector::new();
    let mut socket = connector
        .connect(&endpoint("ws", address), &request())
        .await
        .unwrap();
    assert_eq!(socket.subprotocol(), Some(SUBPROTOCOL));

    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap(), "hello");
    assert_eq!(socket.close().await, CloseOutcome::Closed);
    assert!(socket.recv().await.is_none());
    assert!(socket.send("late").await.is_err());
}

#[tokio::test]
async fn a_large_send_leaves_as_several_messages() {
    let (address, _server) = serve(echo).await;
    let connector = Connector::new().websocket(WebSocketConfig::new().split_len(1000));
    let mut socket = connector
        .connect(&endpoint("ws", address), &request())
        .await
        .unwrap();
    let bytes: Vec<u8> = (0..10_500_u32).map(|at| at.to_le_bytes()[0]).collect();
    socket.send(bytes.clone()).await.unwrap();
    let mut lens = Vec::new();
    let mut received = Vec::new();
    while received.len() < bytes.len() {
        let part = socket.recv().await.unwrap().unwrap();
        lens.push(part.len());
        received.extend_from_slice(&part);
    }
    assert_eq!(received, bytes);
    assert_eq!(lens, [&[1000; 10][..], &[500]].concat());
}

#[tokio::test]
async fn nobody_listening_is_a_retryable_dial_error() {
    // Bound, so that nobody else listens there, and not listening either.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = closed.local_addr().unwrap();
    let error = Connector::new()
        .timeout(Duration::from_secs(60))
        .connect(&endpoint("ws", address), &request())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ws_transport::ConnectError::Dial(ws_transport::DialError::Connect(_))
        ),
        "{error:?}"
    );
    assert!(error.is_retryable());
}

#[test]
fn futures_may_be_spawned() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    let connector = Connector::new();
    let endpoint = "ws://localhost/".parse().unwrap();
    let request = request();
    drop(send(connector.connect(&endpoint, &request)));
    drop(send(connector.connect_stream(endpoint.target())));
}
