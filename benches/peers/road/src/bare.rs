//! The floor: bare tokio-tungstenite moving the same bytes, and no MQTT but what the broker waits for.

use std::time::Instant;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::child::{Meter, Verb, Work};
use crate::packets;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Socket = WebSocketStream<TcpStream>;

/// How many messages a pipelined publisher feeds between two flushes.
const BATCH: usize = 64;

pub async fn run(work: Work, read_buffer: Option<usize>, mut meter: Meter) -> Result<()> {
    let length = packets::publish(None, work.payload).len();
    let packet = packets::publish(None, work.payload);
    match work.verb {
        Verb::Receive => {
            let mut socket = subscribed(&work, read_buffer, 0).await?;
            meter.start(&work);
            let mut left = work.count * length;
            while left > 0 {
                left -= next(&mut socket).await?.len();
            }
        }
        Verb::ReceiveAck => {
            // One acknowledgement per message, written when no further one has arrived.
            let mut socket = subscribed(&work, read_buffer, 1).await?;
            meter.start(&work);
            let ack = packets::puback(1);
            let mut left = work.count;
            while left > 0 {
                let mut message = Some(next(&mut socket).await?);
                while let Some(bytes) = message {
                    left -= bytes.len() / (length + 2);
                    socket.feed(Message::Binary(ack.clone())).await?;
                    message = match futures_util::FutureExt::now_or_never(socket.next()) {
                        Some(Some(Ok(Message::Binary(bytes)))) => Some(bytes),
                        _ => None,
                    };
                }
                socket.flush().await?;
            }
        }
        Verb::Publish => {
            let mut socket = subscribed(&work, read_buffer, 0).await?;
            meter.start(&work);
            for at in 0..work.count {
                socket.feed(Message::Binary(packet.clone())).await?;
                if work.window == 1 || at % BATCH == BATCH - 1 {
                    socket.flush().await?;
                }
            }
            socket.flush().await?;
        }
        Verb::PublishAck => {
            let mut socket = subscribed(&work, read_buffer, 0).await?;
            let packet = packets::publish(Some(1), work.payload);
            meter.start(&work);
            let (mut sent, mut acknowledged) = (0, 0);
            while acknowledged < work.count {
                let before = sent;
                while sent < work.count && sent - acknowledged < work.window {
                    socket.feed(Message::Binary(packet.clone())).await?;
                    sent += 1;
                }
                if sent > before {
                    socket.flush().await?;
                }
                acknowledged += next(&mut socket).await?.len() / 4;
            }
        }
        Verb::PingPong => {
            let mut socket = subscribed(&work, read_buffer, 0).await?;
            meter.start(&work);
            for _ in 0..work.count {
                let since = Instant::now();
                socket.send(Message::Binary(packet.clone())).await?;
                next(&mut socket).await?;
                meter.round_trip(since);
            }
        }
        Verb::Connect => {
            meter.start(&work);
            for _ in 0..work.count {
                let mut socket = subscribed(&work, read_buffer, 0).await?;
                socket.send(Message::Binary(packets::disconnect())).await?;
                socket.close(None).await?;
            }
        }
        Verb::Idle => {
            let mut held = Vec::new();
            meter.start(&work);
            for _ in 0..work.count {
                let mut socket = subscribed(&work, read_buffer, 0).await?;
                // It waits for a message, as a client does.
                let none = futures_util::FutureExt::now_or_never(socket.next());
                assert!(none.is_none());
                held.push(socket);
            }
            meter.report();
        }
    }
    meter.report()
}

async fn subscribed(work: &Work, read_buffer: Option<usize>, qos: u8) -> Result<Socket> {
    let tcp = TcpStream::connect(work.authority()).await?;
    tcp.set_nodelay(true)?;
    let mut request = work.url.as_str().into_client_request()?;
    request
        .headers_mut()
        .insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
    let mut config = WebSocketConfig::default();
    if let Some(bytes) = read_buffer {
        config = config.read_buffer_size(bytes);
    }
    let (mut socket, _) = client_async_with_config(request, tcp, Some(config)).await?;
    socket
        .send(Message::Binary(packets::connect("bare")))
        .await?;
    next(&mut socket).await?;
    socket
        .send(Message::Binary(packets::subscribe(qos)))
        .await?;
    next(&mut socket).await?;
    Ok(socket)
}

async fn next(socket: &mut Socket) -> Result<Bytes> {
    match socket.next().await {
        Some(Ok(Message::Binary(bytes))) => Ok(bytes),
        other => Err(format!("not a binary message: {other:?}").into()),
    }
}
