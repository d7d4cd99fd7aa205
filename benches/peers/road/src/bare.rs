//! The floor: bare tokio-tungstenite moving the same bytes, and no MQTT but what the broker waits for.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::child::Meter;
use crate::work::{self, ROOT, TOPIC, Verb, Work};
use crate::{Result, packets};

/// How many messages a pipelined publisher feeds between two flushes.
const BATCH: usize = 64;

pub async fn run(work: Work, read_buffer: Option<usize>, meter: Meter) -> Result<()> {
    run_over(work, read_buffer, meter, async |work| tcp(work).await).await
}

/// The floor of `wss`: rustls in between, set up as it comes.
pub async fn run_tls(work: Work, meter: Meter) -> Result<()> {
    let root = std::env::var_os(ROOT).ok_or("no root certificate")?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root)?)?;
    let ring = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let dial = async |work: &Work| -> Result<TlsStream<TcpStream>> {
        let (host, _) = work.authority().split_once(':').ok_or("no port")?;
        let name = ServerName::try_from(host.to_owned())?;
        Ok(connector.connect(name, tcp(work).await?).await?)
    };
    run_over(work, Some(16 * 1024), meter, dial).await
}

async fn run_over<S: AsyncRead + AsyncWrite + Unpin>(
    work: Work,
    read_buffer: Option<usize>,
    mut meter: Meter,
    dial: impl AsyncFn(&Work) -> Result<S>,
) -> Result<()> {
    let payload = work::payload(work.payload);
    let packet = packets::publish(TOPIC, None, &payload);
    let length = packet.len();
    let subscribed = async |qos| subscribed(dial(&work).await?, &work, read_buffer, qos).await;
    match work.verb {
        Verb::Receive => {
            let mut socket = subscribed(0).await?;
            meter.start(&work);
            let mut left = work.count * length;
            while left > 0 {
                left -= next(&mut socket).await?.len();
            }
        }
        Verb::ReceiveAck => {
            // One acknowledgement per message, written when no further one has arrived.
            let mut socket = subscribed(1).await?;
            meter.start(&work);
            let ack = packets::puback(1);
            let mut left = work.count;
            while left > 0 {
                let mut message = Some(next(&mut socket).await?);
                while let Some(bytes) = message {
                    left -= bytes.len() / (length + 2);
                    socket.feed(Message::Binary(ack.clone())).await?;
                    message = arrived(&mut socket);
                }
                socket.flush().await?;
            }
        }
        Verb::Publish => {
            let mut socket = subscribed(0).await?;
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
            let mut socket = subscribed(0).await?;
            let packet = packets::publish(TOPIC, Some(1), &payload);
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
                // All that are there, before the next are sent.
                let mut answer = Some(next(&mut socket).await?);
                while let Some(acks) = answer {
                    acknowledged += acks.len() / 4;
                    answer = arrived(&mut socket);
                }
            }
        }
        Verb::PublishExact => {
            let mut socket = subscribed(0).await?;
            let packet = packets::publish_exactly_once(TOPIC, 1, &payload);
            let release = packets::pubrel(1);
            meter.start(&work);
            let (mut sent, mut received, mut completed) = (0, 0, 0);
            while completed < work.count {
                while sent < work.count && sent - completed < work.window {
                    socket.feed(Message::Binary(packet.clone())).await?;
                    sent += 1;
                }
                socket.flush().await?;
                let mut answer = Some(next(&mut socket).await?);
                while let Some(acks) = answer {
                    for ack in acks.chunks(4) {
                        if ack[0] == 0x50 {
                            socket.feed(Message::Binary(release.clone())).await?;
                            received += 1;
                        } else {
                            completed += 1;
                        }
                    }
                    answer = arrived(&mut socket);
                }
            }
            assert_eq!(received, completed);
        }
        Verb::PingPong | Verb::PingPongInTask => {
            let mut socket = subscribed(0).await?;
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
                let mut socket = subscribed(0).await?;
                socket.send(Message::Binary(packets::disconnect())).await?;
                socket.close(None).await?;
            }
        }
        Verb::Idle => {
            let mut held = Vec::new();
            meter.start(&work);
            for _ in 0..work.count {
                let mut socket = subscribed(0).await?;
                // It waits for a message, as a client does.
                let none = socket.next().now_or_never();
                assert!(none.is_none());
                held.push(socket);
            }
            meter.report();
        }
    }
    meter.report()
}

async fn tcp(work: &Work) -> Result<TcpStream> {
    let tcp = TcpStream::connect(work.authority()).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn subscribed<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    work: &Work,
    read_buffer: Option<usize>,
    qos: u8,
) -> Result<WebSocketStream<S>> {
    let mut request = work.url.as_str().into_client_request()?;
    request
        .headers_mut()
        .insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
    let mut config = WebSocketConfig::default();
    if let Some(bytes) = read_buffer {
        config = config.read_buffer_size(bytes);
    }
    let (mut socket, _) = client_async_with_config(request, stream, Some(config)).await?;
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

/// A message that is there already.
fn arrived<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> Option<Bytes> {
    match socket.next().now_or_never() {
        Some(Some(Ok(Message::Binary(bytes)))) => Some(bytes),
        _ => None,
    }
}

async fn next<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> Result<Bytes> {
    match socket.next().await {
        Some(Ok(Message::Binary(bytes))) => Ok(bytes),
        other => Err(format!("not a binary message: {other:?}").into()),
    }
}
