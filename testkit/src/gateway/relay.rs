//! Carries control packets between a client that was let in and the broker.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue, protocol::Role},
};

use super::{Broker, Shared};
use crate::{
    net::{Duplex, Stream},
    wire,
};

/// How long the broker may take to answer an upgrade.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

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
        let upgraded = client_async(request, tcp).await;
        let (socket, _) = upgraded.map_err(io::Error::other)?;
        Ok(socket)
    };
    tokio::time::timeout(DIAL_TIMEOUT, dialling).await?
}

/// Relays until either side ends, then ends the other.
pub(super) async fn relay(client: Stream, broker: BrokerSocket, shared: &Shared) -> io::Result<()> {
    let _open = Open::count(shared);
    let client = WebSocketStream::from_raw_socket(client, Role::Server, None).await;
    let (mut client_sink, client_source) = client.split();
    let (mut broker_sink, broker_source) = broker.split();
    let mut client_source = Packets::from(client_source);
    let mut broker_source = Packets::from(broker_source);
    // Each way by itself, so that a side that does not read stops only what is meant for it.
    let ended = tokio::select! {
        _ = pump(&mut client_source, &mut broker_sink) => Side::Client,
        _ = pump(&mut broker_source, &mut client_sink) => Side::Broker,
    };
    let ending = async {
        match ended {
            Side::Client => {
                // The broker reads what it was sent last, a DISCONNECT for instance, and then this.
                broker_sink.close().await.map_err(io::Error::other)?;
                broker_source.drain().await;
            }
            Side::Broker => {
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

enum Side {
    Client,
    Broker,
}

async fn pump<S>(
    from: &mut Packets<S>,
    to: &mut SplitSink<WebSocketStream<impl Duplex>, Message>,
) -> io::Result<()>
where
    S: Duplex,
{
    while let Some(packet) = from.next().await? {
        to.send(Message::Binary(packet))
            .await
            .map_err(io::Error::other)?;
    }
    Ok(())
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
