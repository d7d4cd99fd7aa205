//! The connections of calls over HTTPS: kept, used again, and given up.
#![cfg(feature = "https-publish")]
#![allow(missing_docs, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{REGION, StoppedClock, credentials};
use futures_util::future::join_all;
use pubsub_aws_iot::core::{OutboundMessage, TopicName};
use pubsub_aws_iot::{AwsIotOptions, HttpsError, HttpsPublishError, HttpsPublisher, PlainWs};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, Notify};

/// The calls that a test makes at a time, more than the four connections that are kept.
const TOGETHER: usize = 6;

/// What the server does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Deed {
    Answer,
    /// Answers, then closes, without having said that it would.
    AnswerAndClose,
    Announce,
    /// Closes without an answer.
    Close,
    Nothing,
}

struct Server {
    address: String,
    connections: AtomicUsize,
    requests: AtomicUsize,
    came: Notify,
    deeds: Vec<Deed>,
    /// Answers when this many requests wait for it.
    together: Barrier,
}

impl Server {
    /// One that does these deeds in turn, and the last one for all that follow.
    async fn start(deeds: &[Deed], together: usize) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Self {
            address: listener.local_addr().unwrap().to_string(),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            came: Notify::new(),
            deeds: deeds.to_vec(),
            together: Barrier::new(together),
        });
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(Arc::clone(&serving).serve(socket));
            }
        });
        server
    }

    async fn serve(self: Arc<Self>, mut socket: TcpStream) {
        loop {
            let mut request = Vec::new();
            while !request.ends_with(b"21.5") {
                match socket.read_buf(&mut request).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
            let number = self.requests.fetch_add(1, Ordering::SeqCst);
            self.came.notify_one();
            let deed = self
                .deeds
                .get(number)
                .or_else(|| self.deeds.last())
                .unwrap();
            self.together.wait().await;
            let answer: &[u8] = match deed {
                Deed::Close => return,
                Deed::Nothing => std::future::pending().await,
                Deed::Announce => {
                    b"HTTP/1.1 200 -\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
                }
                Deed::Answer | Deed::AnswerAndClose => {
                    b"HTTP/1.1 200 -\r\ncontent-length: 2\r\n\r\n{}"
                }
            };
            socket.write_all(answer).await.unwrap();
            if *deed == Deed::AnswerAndClose {
                return;
            }
        }
    }

    fn publisher(&self) -> HttpsPublisher {
        let options = AwsIotOptions::new(format!("ws://{}", self.address))
            .region(REGION)
            .plain_ws(PlainWs::LoopbackForTesting)
            .credentials(credentials());
        HttpsPublisher::new(options).unwrap()
    }

    fn seen(&self) -> (usize, usize) {
        (
            self.connections.load(Ordering::SeqCst),
            self.requests.load(Ordering::SeqCst),
        )
    }
}

fn message() -> OutboundMessage {
    OutboundMessage::new(TopicName::new("rooms/1").unwrap(), "21.5")
}

#[tokio::test]
async fn one_connection_serves_one_call_after_another() {
    let server = Server::start(&[Deed::Answer], 1).await;
    let publisher = server.publisher();
    let _clock = StoppedClock::stop();
    for _ in 0..3 {
        publisher.publish(&message()).await.unwrap();
    }
    assert_eq!(server.seen(), (1, 3));
    // Not after it was idle for long.
    tokio::time::advance(Duration::from_secs(21)).await;
    publisher.publish(&message()).await.unwrap();
    assert_eq!(server.seen(), (2, 4));
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    let _clock = StoppedClock::stop();
    for deed in [Deed::AnswerAndClose, Deed::Announce] {
        let server = Server::start(&[deed], 1).await;
        let publisher = server.publisher();
        for calls in 1..=3 {
            publisher.publish(&message()).await.unwrap();
            assert_eq!(server.seen(), (calls, calls), "no request came twice");
        }
    }
}

#[tokio::test]
async fn what_was_sent_is_not_sent_again() {
    let _clock = StoppedClock::stop();
    let server = Server::start(&[Deed::Answer, Deed::Close, Deed::Answer], 1).await;
    let publisher = server.publisher();
    publisher.publish(&message()).await.unwrap();
    let error = publisher.publish(&message()).await.unwrap_err();
    assert!(
        matches!(error, HttpsPublishError::Https(HttpsError::Http(_))),
        "{error:?}"
    );
    assert_eq!(server.seen(), (1, 2));
    publisher.publish(&message()).await.unwrap();
    assert_eq!(server.seen(), (2, 3));
}

#[tokio::test]
async fn calls_at_a_time_have_connections_of_their_own_and_four_are_kept() {
    let _clock = StoppedClock::stop();
    let server = Server::start(&[Deed::Answer], TOGETHER).await;
    let publisher = server.publisher();
    for connections in [TOGETHER, TOGETHER + (TOGETHER - 4)] {
        let message = message();
        let calls = (0..TOGETHER).map(|_| publisher.publish(&message));
        for call in join_all(calls).await {
            call.unwrap();
        }
        assert_eq!(server.seen().0, connections);
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let server = Server::start(&[Deed::Answer, Deed::Nothing], 1).await;
    let publisher = Arc::new(server.publisher());
    let _clock = StoppedClock::stop();
    publisher.publish(&message()).await.unwrap();
    server.came.notified().await;
    let calling = Arc::clone(&publisher);
    let call = tokio::spawn(async move { calling.publish(&message()).await });
    server.came.notified().await;
    tokio::time::advance(Duration::from_secs(16)).await;
    let error = call.await.unwrap().unwrap_err();
    assert!(
        matches!(error, HttpsPublishError::Https(HttpsError::Timeout)),
        "{error:?}"
    );
}
