//! A broker that does as little as a client will take, so that a benchmark measures the client.
//!
//! It accepts every CONNECT, grants every filter, acknowledges and counts what is published and
//! throws it away, and sends what it is told to, encoded beforehand. Nothing is routed, no rule of
//! MQTT is checked: never use it to see whether a client is right.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use testkit::null_broker::NullBroker;
//!
//! let broker = NullBroker::start().await?;
//! // ... a client connects to broker.url() and publishes 1,000 messages ...
//! broker.wait_for(|counts| counts.published == 1000).await;
//! // PUBLISH, QoS 0, topic "t", payload "x": a thousand of them in ten WebSocket messages.
//! let packets: Vec<u8> = [0x30, 4, 0, 1, b't', b'x'].repeat(100);
//! broker.flood(std::iter::repeat_n(packets.into(), 10));
//! # Ok(()) }
//! ```

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use crate::{certs::Identity, net::Stream, peer::PeerConnection, wire};

/// How many answers wait for a client that does not read; then nothing more is read from it.
const ANSWERS: usize = 4096;

/// How many bytes are collected before they are written.
const WRITE_BUFFER: usize = 64 * 1024;

/// What a null broker has seen, over all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Clients that have connected.
    pub connected: u64,
    /// PUBLISH packets received.
    pub published: u64,
    /// PUBACK packets received.
    pub acknowledged: u64,
    /// PUBREL packets received.
    pub released: u64,
    /// Bytes of MQTT received.
    pub bytes: u64,
}

/// A running null broker, on a thread of its own. Dropping it ends its connections.
pub struct NullBroker {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    /// `None` in drop only.
    runtime: Option<Runtime>,
}

struct Shared {
    counts: watch::Sender<Counts>,
    /// Where each open connection takes floods.
    floods: Mutex<Vec<mpsc::UnboundedSender<Flood>>>,
    /// What goes back for each PUBLISH, after its acknowledgement.
    reply: Mutex<Bytes>,
}

type Flood = Vec<Bytes>;

impl NullBroker {
    /// Listens on an ephemeral loopback port.
    ///
    /// Cancelling it leaves nothing behind.
    ///
    /// # Errors
    ///
    /// When no port can be bound or no thread be started.
    pub async fn start() -> io::Result<Self> {
        Self::with(None).await
    }

    /// The same for `wss://`, with this certificate.
    ///
    /// Cancelling it leaves nothing behind.
    ///
    /// # Errors
    ///
    /// When no port can be bound or no thread be started.
    pub async fn start_tls(identity: &Identity) -> io::Result<Self> {
        Self::with(Some(identity.acceptor(None))).await
    }

    async fn with(tls: Option<TlsAcceptor>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let listener = listener.into_std()?;
        let shared = Arc::new(Shared {
            counts: watch::Sender::new(Counts::default()),
            floods: Mutex::new(Vec::new()),
            reply: Mutex::new(Bytes::new()),
        });
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("null-broker")
            .enable_all()
            .build()?;
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        runtime.spawn(serve(listener, tls, Arc::clone(&shared)));
        Ok(Self {
            address,
            scheme,
            shared,
            runtime: Some(runtime),
        })
    }

    /// Where its WebSocket listener is. The address is in it, also for `wss`: the certificates of
    /// [`Authority::server`](crate::certs::Authority::server) hold for it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}/mqtt", self.scheme, self.address)
    }

    /// What it has seen up to now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Waits until the counts are as wanted, and gives them. They change once for all packets that
    /// came in one WebSocket message. It waits for ever if that never happens: bound it. Cancel safe.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.shared.counts.subscribe();
        let seen = counts.wait_for(|counts| wanted(counts)).await;
        *seen.expect("the sender is in self")
    }

    /// Sends these bytes to every client that is connected now, each as one binary message, as fast
    /// as the client reads. Returns at once; what is to be sent waits in memory, where a [`Bytes`]
    /// that stands there often takes its room once.
    pub fn flood(&self, messages: impl IntoIterator<Item = Bytes>) {
        let messages: Flood = messages.into_iter().collect();
        let mut floods = self.shared.floods();
        floods.retain(|connection| connection.send(messages.clone()).is_ok());
    }

    /// From now on, sends these bytes back for each PUBLISH, to the client that it came from. The
    /// broker's own thread does, so that a round trip wakes no other.
    pub fn reply_with(&self, packets: Bytes) {
        *self.shared.reply() = packets;
    }

    /// From now on, never sleeps, so that a client does not pay for waking its processor: on a virtual
    /// machine that can be half of a round trip. It takes a processor for itself until it is dropped.
    pub fn stay_awake(&self) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async {
                loop {
                    // Comes back when the sockets have been looked at.
                    tokio::task::yield_now().await;
                }
            });
        }
    }
}

impl Drop for NullBroker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for NullBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NullBroker")
            .field("address", &self.address)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn floods(&self) -> MutexGuard<'_, Vec<mpsc::UnboundedSender<Flood>>> {
        self.floods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reply(&self) -> MutexGuard<'_, Bytes> {
        self.reply.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: std::net::TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((tcp, _)) = accepted else { continue };
                let (tls, shared) = (tls.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    // However it ends, it has ended.
                    let _ = connection(tcp, tls, &shared).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(tcp: TcpStream, tls: Option<TlsAcceptor>, shared: &Shared) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let stream = match tls {
        None => Stream::Tcp(tcp),
        Some(tls) => Stream::Tls(Box::new(tls.accept(tcp).await?)),
    };
    let config = wire::websocket_config().write_buffer_size(WRITE_BUFFER);
    let socket = PeerConnection::over_stream(stream)
        .upgrade_with(config)
        .await?;
    let (sink, source) = socket.split();
    let (answers, to_answer) = mpsc::channel(ANSWERS);
    let (floods, to_flood) = mpsc::unbounded_channel();
    tokio::select! {
        ended = read(source, answers, floods, shared) => ended,
        ended = write(sink, to_answer, to_flood) => ended,
    }
}

async fn read(
    mut source: SplitStream<WebSocketStream<Stream>>,
    answers: mpsc::Sender<Bytes>,
    floods: mpsc::UnboundedSender<Flood>,
    shared: &Shared,
) -> io::Result<()> {
    let mut received = BytesMut::new();
    let mut level = 4;
    let mut floods = Some(floods);
    while let Some(message) = source.next().await {
        let Message::Binary(bytes) = message.map_err(io::Error::other)? else {
            continue;
        };
        let mut seen = Counts {
            bytes: bytes.len() as u64,
            ..Counts::default()
        };
        received.extend_from_slice(&bytes);
        let mut answered = BytesMut::new();
        while let Some(packet) = wire::split_packet(&mut received)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?
        {
            match packet[0] >> 4 {
                1 => {
                    level = level_of(&packet);
                    seen.connected += 1;
                    if let Some(floods) = floods.take() {
                        shared.floods().push(floods);
                    }
                }
                3 => seen.published += 1,
                4 => seen.acknowledged += 1,
                6 => seen.released += 1,
                14 => return Ok(()),
                _ => {}
            }
            answer(&packet, level, &mut answered);
        }
        if seen.published > 0 {
            let reply = shared.reply();
            for _ in 0..seen.published {
                answered.extend_from_slice(&reply);
            }
        }
        // Whoever waits for the counts is not to be ahead of the answers.
        if !answered.is_empty() && answers.send(answered.freeze()).await.is_err() {
            return Ok(());
        }
        shared.counts.send_modify(|counts| {
            counts.connected += seen.connected;
            counts.published += seen.published;
            counts.acknowledged += seen.acknowledged;
            counts.released += seen.released;
            counts.bytes += seen.bytes;
        });
    }
    Ok(())
}

async fn write(
    mut sink: SplitSink<WebSocketStream<Stream>, Message>,
    mut answers: mpsc::Receiver<Bytes>,
    mut floods: mpsc::UnboundedReceiver<Flood>,
) -> io::Result<()> {
    let mut flood = Vec::new().into_iter();
    loop {
        // An answer waits for one message of a flood at most.
        let next = match answers.try_recv() {
            Ok(answer) => Some(answer),
            Err(_) => flood.next(),
        };
        if let Some(bytes) = next {
            sink.feed(Message::Binary(bytes))
                .await
                .map_err(io::Error::other)?;
            continue;
        }
        sink.flush().await.map_err(io::Error::other)?;
        tokio::select! {
            answer = answers.recv() => {
                let Some(answer) = answer else { return Ok(()) };
                sink.feed(Message::Binary(answer)).await.map_err(io::Error::other)?;
            }
            Some(messages) = floods.recv() => flood = messages.into_iter(),
        }
    }
}

/// The protocol level of a CONNECT; what is no CONNECT passes for MQTT 3.1.1.
fn level_of(connect: &[u8]) -> u8 {
    let header = connect.iter().skip(1).position(|byte| byte & 0x80 == 0);
    let name = header.map_or(0, |last| last + 2);
    match connect.get(name..name + 2) {
        Some(&[high, low]) => {
            let level = name + 2 + usize::from(u16::from_be_bytes([high, low]));
            connect.get(level).copied().unwrap_or(4)
        }
        _ => 4,
    }
}

/// Adds what a client waits for after this packet.
fn answer(packet: &Bytes, level: u8, answers: &mut BytesMut) {
    let five = level == 5;
    let header = packet.iter().skip(1).position(|byte| byte & 0x80 == 0);
    let body = packet.slice(header.map_or(packet.len(), |last| last + 2)..);
    let two = |at: usize| body.get(at..at + 2).map(|b| [b[0], b[1]]);
    match packet[0] >> 4 {
        1 if five => answers.extend_from_slice(&[0x20, 3, 0, 0, 0]),
        1 => answers.extend_from_slice(&[0x20, 2, 0, 0]),
        3 if packet[0] & 6 != 0 => {
            let topic = two(0).map_or(0, |length| usize::from(u16::from_be_bytes(length)));
            if let Some(id) = two(2 + topic) {
                let first = if packet[0] & 6 == 2 { 0x40 } else { 0x50 };
                answers.extend_from_slice(&[first, 2, id[0], id[1]]);
            }
        }
        6 => {
            if let Some(id) = two(0) {
                answers.extend_from_slice(&[0x70, 2, id[0], id[1]]);
            }
        }
        kind @ (8 | 10) => {
            let Some(id) = two(0) else { return };
            let mut reply = id.to_vec();
            let mut at = 2;
            if five {
                reply.push(0);
                // Properties of more than 127 bytes are more than any benchmark sends.
                at += 1 + usize::from(body.get(2).copied().unwrap_or(0));
            }
            while let Some(length) = two(at) {
                at += 2 + usize::from(u16::from_be_bytes(length));
                match kind {
                    8 => {
                        reply.push(body.get(at).copied().unwrap_or(0) & 3);
                        at += 1;
                    }
                    _ if five => reply.push(0),
                    _ => {}
                }
            }
            let first = if kind == 8 { 0x90 } else { 0xb0 };
            answers.extend_from_slice(&wire::packet(first, &reply));
        }
        12 => answers.extend_from_slice(&[0xd0, 0]),
        _ => {}
    }
}
