//! Carries control packets between a client that was let in and the broker.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::mpsc};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue, protocol::Role},
};

use super::{
    Broker, Shared,
    inspect::{Inspector, Verdict},
    packet::{kind, kind_of},
};
use crate::{
    net::{Duplex, Stream},
    wire,
};

/// How long the broker may take to answer an upgrade.
const DIAL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a side may take to end after the other has.
const END_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) type BrokerSocket = WebSocketStream<TcpStream>;

/// Connects to the broker. It is always asked for `mqtt`, whatever the client chose: not every
/// broker knows the older name, and the packets say the version anyway.
pub(super) async fn dial(broker: &Broker) -> io::Result<BrokerSocket> {
    let dialling = async {
        let tcp = TcpStream::connect(&broker.authority).await?;
        tcp.set_nodelay(true)?;
        let mut request = broker
            .url
            .as_str()
            .into_client_request()
            .map_err(io::Error::other)?;
        let subprotocol = HeaderValue::from_static("mqtt");
        request
            .headers_mut()
            .insert("sec-websocket-protocol", subprotocol);
        let config = Some(wire::websocket_config());
        let upgraded = client_async_with_config(request, tcp, config).await;
        let (socket, _) = upgraded.map_err(io::Error::other)?;
        Ok(socket)
    };
    tokio::time::timeout(DIAL_TIMEOUT, dialling).await?
}

/// How many packets may wait for a side that does not read; then nobody is read for it.
const QUEUE: usize = 16;

/// Relays what the inspector lets pass, until either side ends; then ends the other.
pub(super) async fn relay(
    client: Stream,
    broker: BrokerSocket,
    inspector: Inspector,
    shared: &Shared,
) -> io::Result<()> {
    let _open = Open::count(shared);
    let config = Some(wire::websocket_config());
    let client = WebSocketStream::from_raw_socket(client, Role::Server, config).await;
    let (mut client_sink, client_source) = client.split();
    let (mut broker_sink, broker_source) = broker.split();
    let mut client_source = Packets::from(client_source);
    let mut broker_source = Packets::from(broker_source);
    let (to_client, for_client) = mpsc::channel(QUEUE);
    let (to_broker, for_broker) = mpsc::channel(QUEUE);
    let inspector = Mutex::new(inspector);
    let inspect = |packet: Bytes, from: Side| {
        let mut inspector = inspector.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = match from {
            Side::Client => inspector.handle_client_packet(packet),
            Side::Broker => inspector.handle_broker_packet(packet),
        };
        for incident in inspector.take_incidents() {
            let client_id = inspector.client_id().to_owned();
            shared.incidents.add((client_id, incident));
        }
        verdict
    };
    let up = async {
        let mut hold = None;
        while let Ok(Some(packet)) = client_source.next().await {
            let connects = kind_of(&packet) == kind::CONNECT;
            let verdict = inspect(packet, Side::Client);
            if connects && matches!(verdict, Verdict::Forward(_)) {
                let inspector = inspector.lock().unwrap_or_else(PoisonError::into_inner);
                let (id, level) = (inspector.client_id(), inspector.level());
                // Before the broker hears of it, which might end the old one in its own way.
                hold = (!id.is_empty()).then(|| shared.holders.take(id, level, to_client.clone()));
            }
            match verdict {
                Verdict::Forward(packet) => send(&to_broker, Order::Send(packet)).await,
                Verdict::ForwardTwice(packet, again) => {
                    send(&to_broker, Order::Send(packet)).await;
                    send(&to_broker, Order::Send(again)).await;
                }
                Verdict::Answer(packet) => send(&to_client, Order::Send(packet)).await,
                Verdict::Swallow => {}
                Verdict::End(last) => end(&to_client, last).await,
            }
        }
        // What was sent last is to arrive: a DISCONNECT, for instance.
        send(&to_broker, Order::End).await;
        // The identifier is held until the relay is over, which drops this.
        std::future::pending::<()>().await;
        drop(hold);
    };
    let down = async {
        while let Ok(Some(packet)) = broker_source.next().await {
            match inspect(packet, Side::Broker) {
                Verdict::Forward(packet) => send(&to_client, Order::Send(packet)).await,
                Verdict::ForwardTwice(packet, again) => {
                    send(&to_client, Order::Send(packet)).await;
                    send(&to_client, Order::Send(again)).await;
                }
                Verdict::Answer(packet) => send(&to_broker, Order::Send(packet)).await,
                Verdict::Swallow => {}
                Verdict::End(last) => end(&to_client, last).await,
            }
        }
        send(&to_client, Order::End).await;
        std::future::pending::<()>().await;
    };
    // Each way by itself, so that a side that does not read stops only what is meant for it.
    let over = tokio::select! {
        () = up => Side::Client,
        () = down => Side::Broker,
        () = write(for_client, &mut client_sink) => Side::Broker,
        () = write(for_broker, &mut broker_sink) => Side::Client,
    };
    let ending = async {
        match over {
            Side::Client => {
                broker_sink.close().await.map_err(io::Error::other)?;
                broker_source.drain().await;
            }
            Side::Broker => {
                drop((broker_sink, broker_source));
                // The service sends no close frame.
                let client = client_source.into_inner().reunite(client_sink);
                let mut client = client.map_err(io::Error::other)?.into_inner();
                client.shutdown().await?;
                tokio::io::copy(&mut client, &mut tokio::io::sink()).await?;
            }
        }
        Ok(())
    };
    tokio::time::timeout(END_TIMEOUT, ending).await?
}

#[derive(Clone, Copy)]
enum Side {
    Client,
    Broker,
}

pub(super) enum Order {
    Send(Bytes),
    End,
}

async fn send(queue: &mpsc::Sender<Order>, order: Order) {
    // It fails when the writer has ended, and with it the connection.
    let _ = queue.send(order).await;
}

/// Has the connection ended once everything before has been written, and never returns.
async fn end(to_client: &mpsc::Sender<Order>, last: Option<Bytes>) {
    if let Some(packet) = last {
        send(to_client, Order::Send(packet)).await;
    }
    send(to_client, Order::End).await;
    std::future::pending::<()>().await;
}

/// Writes until it is told to end, or cannot.
async fn write(
    mut queue: mpsc::Receiver<Order>,
    to: &mut SplitSink<WebSocketStream<impl Duplex>, Message>,
) {
    while let Some(Order::Send(packet)) = queue.recv().await {
        if to.send(Message::Binary(packet)).await.is_err() {
            return;
        }
    }
}

/// The control packets of one side, however they are cut into messages.
struct Packets<S> {
    source: SplitStream<WebSocketStream<S>>,
    received: BytesMut,
}

impl<S: Duplex> Packets<S> {
    fn from(source: SplitStream<WebSocketStream<S>>) -> Self {
        Self {
            source,
            received: BytesMut::new(),
        }
    }

    /// `None` at the end, in order or not.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let packet = wire::split_packet(&mut self.received)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            if packet.is_some() {
                return Ok(packet);
            }
            match self.source.next().await {
                Some(Ok(Message::Binary(bytes))) => self.received.extend_from_slice(&bytes),
                // Reading on sends the answers to these.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => {}
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    return Err(io::Error::from(io::ErrorKind::InvalidData));
                }
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }

    async fn drain(&mut self) {
        while let Some(Ok(_)) = self.source.next().await {}
    }

    fn into_inner(self) -> SplitStream<WebSocketStream<S>> {
        self.source
    }
}

/// Counts a connection as open for as long as it lives.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn count(shared: &'a Shared) -> Self {
        shared.open.send_modify(|open| *open += 1);
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}
