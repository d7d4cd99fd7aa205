//! Connections that are a pair of channels, with the test at the other end: nothing here needs a socket, so the clock may
//! be paused.

use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pubsub_core::BoxFuture;
use pubsub_generic::{Attempt, Connect, ConnectError, Opened, Received, Transport, TransportError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

/// What the next attempts meet with. After the last step: a transport each.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a test")]
pub enum Step {
    /// A transport, as after the last step.
    Pass,
    Fail(ConnectError),
    /// The attempt never ends.
    Hang,
    /// A transport whose peer reads one packet and no more.
    Deaf,
}

pub struct MemoryConnect {
    steps: Mutex<Vec<Step>>,
    broker: UnboundedSender<BrokerEnd>,
    attempts: UnboundedSender<(Instant, Attempt)>,
    /// What is said of every transport.
    pub good_for: Option<Duration>,
    pub endpoints: Vec<String>,
    /// Ends the wait after a failed attempt.
    pub worth_trying: Mutex<Option<BoxFuture<'static, ()>>>,
}

/// What the test holds: the broker's ends of the transports, and the attempts as they are made.
pub struct Broker {
    pub transports: UnboundedReceiver<BrokerEnd>,
    pub attempts: UnboundedReceiver<(Instant, Attempt)>,
}

pub fn memory(mut steps: Vec<Step>) -> (MemoryConnect, Broker) {
    steps.reverse();
    let (broker, transports) = unbounded_channel();
    let (attempted, attempts) = unbounded_channel();
    (
        MemoryConnect {
            steps: Mutex::new(steps),
            broker,
            attempts: attempted,
            good_for: None,
            endpoints: Vec::new(),
            worth_trying: Mutex::new(None),
        },
        Broker {
            transports,
            attempts,
        },
    )
}

impl Connect for MemoryConnect {
    fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    fn endpoint_name(&self, endpoint: usize) -> Option<String> {
        self.endpoints.get(endpoint).cloned()
    }

    fn worth_trying(&self) -> Option<BoxFuture<'static, ()>> {
        self.worth_trying.lock().unwrap().take()
    }

    fn connect<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>> {
        Box::pin(async move {
            let _ = self.attempts.send((Instant::now(), attempt.clone()));
            let step = self.steps.lock().unwrap().pop();
            match step {
                Some(Step::Fail(error)) => return Err(error),
                Some(Step::Hang) => std::future::pending().await,
                Some(Step::Deaf | Step::Pass) | None => {}
            }
            let room = if let Some(Step::Deaf) = step {
                1
            } else {
                usize::MAX
            };
            let (to_client, from_broker) = unbounded_channel();
            let (to_broker, from_client) = unbounded_channel();
            let _ = self.broker.send(BrokerEnd {
                to_client,
                from_client,
                buffer: BytesMut::new(),
            });
            let opened = Opened::new(MemoryTransport {
                from_broker,
                to_broker,
                room,
            });
            Ok(match self.good_for {
                Some(time) => opened.good_for(time),
                None => opened,
            })
        })
    }
}

struct MemoryTransport {
    from_broker: UnboundedReceiver<Bytes>,
    to_broker: UnboundedSender<Bytes>,
    room: usize,
}

impl Transport for MemoryTransport {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<Result<Received, TransportError>> {
        match self.from_broker.poll_recv(cx) {
            Poll::Ready(Some(chunk)) => {
                chunks.push(chunk);
                Poll::Ready(Ok(Received::Chunks))
            }
            Poll::Ready(None) => Poll::Ready(Ok(Received::End)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if self.room == 0 {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn start_send(&mut self, chunk: Bytes) -> Result<(), TransportError> {
        self.room -= 1;
        let _ = self.to_broker.send(chunk);
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }
}

/// The broker's end of one transport. Dropping it closes the connection.
pub struct BrokerEnd {
    to_client: UnboundedSender<Bytes>,
    from_client: UnboundedReceiver<Bytes>,
    buffer: BytesMut,
}

impl BrokerEnd {
    pub fn send(&self, bytes: &[u8]) {
        let _ = self.to_client.send(Bytes::copy_from_slice(bytes));
    }

    /// The next packet, whole; `None` when the client has dropped the transport.
    pub async fn packet(&mut self) -> Option<Bytes> {
        loop {
            if let Some(len) = packet_len(&self.buffer) {
                return Some(self.buffer.split_to(len).freeze());
            }
            self.buffer
                .extend_from_slice(&self.from_client.recv().await?);
        }
    }

    /// A packet that has arrived by now.
    pub fn try_packet(&mut self) -> Option<Bytes> {
        while let Ok(chunk) = self.from_client.try_recv() {
            self.buffer.extend_from_slice(&chunk);
        }
        let len = packet_len(&self.buffer)?;
        Some(self.buffer.split_to(len).freeze())
    }

    /// Waits until the client has dropped the transport, whatever it still says.
    pub async fn gone(&mut self) {
        while self.packet().await.is_some() {}
    }

    pub async fn expect(&mut self, packet: &[u8]) {
        assert_eq!(self.packet().await.as_deref(), Some(packet));
    }

    /// Takes the CONNECT and accepts it.
    pub async fn accept(&mut self) -> Bytes {
        let connect = self.packet().await.unwrap();
        assert_eq!(connect[0], 0x10, "{connect:02x?}");
        self.send(CONNACK);
        connect
    }
}

impl Broker {
    /// The next transport, its CONNECT accepted.
    pub async fn accept(&mut self) -> BrokerEnd {
        let mut end = self.transports.recv().await.unwrap();
        end.accept().await;
        end
    }

    /// How long after `since` the next attempt is made.
    pub async fn next_attempt(&mut self, since: Instant) -> Duration {
        self.attempts.recv().await.unwrap().0.duration_since(since)
    }
}

pub const CONNACK: &[u8] = &[0x20, 2, 0, 0];

fn packet_len(buffer: &[u8]) -> Option<usize> {
    let mut len = 0;
    for (at, byte) in buffer.iter().skip(1).take(4).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let whole = 2 + at + len;
            return (buffer.len() >= whole).then_some(whole);
        }
    }
    None
}
