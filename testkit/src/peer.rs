//! The other side of a connection, played line by line by the test.
//!
//! A broker always does the right thing. What a client does when the other side refuses, answers
//! garbage or stops in the middle is tested against this: each step is one call, and each wait ends
//! after [`ANSWER_TIMEOUT`] with an error instead of hanging the test.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use testkit::peer::Peer;
//!
//! let peer = Peer::bind().await?;
//! // ... the client under test connects to peer.url() in a task of its own ...
//! let mut socket = peer.accept().await?.upgrade().await?;
//! let connect = socket.packet().await?;
//! assert_eq!(connect[0], 0x10);
//! socket.send(&[0x20, 2, 0, 5][..]).await?; // CONNACK: not authorized
//! socket.closed().await?;
//! # Ok(()) }
//! ```

use std::{fmt, io, net::Ipv4Addr, net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

pub use crate::net::{Duplex, RequestHead};
use crate::{
    certs::{Authority, Identity},
    net::{Stream, read_head},
    wire,
};

/// How long the peer waits for anything that the client is to do.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A listener whose connections the test plays.
pub struct Peer {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
}

impl Peer {
    /// Listens for `ws://`.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn bind() -> io::Result<Self> {
        Self::with(None).await
    }

    /// Listens for `wss://` and presents this certificate, however bad it is.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn bind_tls(identity: &Identity) -> io::Result<Self> {
        Self::with(Some(identity.acceptor(None))).await
    }

    /// As [`bind_tls`](Self::bind_tls), and a client must present a certificate of this authority.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn bind_mutual_tls(identity: &Identity, clients: &Authority) -> io::Result<Self> {
        Self::with(Some(identity.acceptor(Some(clients)))).await
    }

    async fn with(tls: Option<TlsAcceptor>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self {
            listener,
            address,
            tls,
        })
    }

    /// Where a client connects to: `ws://127.0.0.1:…/mqtt` or `wss://localhost:…/mqtt`.
    #[must_use]
    pub fn url(&self) -> String {
        match self.tls {
            None => format!("ws://{}/mqtt", self.address),
            Some(_) => format!("wss://localhost:{}/mqtt", self.address.port()),
        }
    }

    /// The address it listens at.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, after its TLS handshake if there is one. A connection waits in the
    /// kernel until it is accepted here. Cancelling it drops at most the connection it was about.
    ///
    /// # Errors
    ///
    /// When none comes, or the client gives up the TLS handshake (which is how it refuses a
    /// certificate).
    pub async fn accept(&self) -> io::Result<PeerConnection> {
        bounded(async {
            let (tcp, _) = self.listener.accept().await?;
            tcp.set_nodelay(true)?;
            let stream = match &self.tls {
                None => Stream::Tcp(tcp),
                Some(tls) => Stream::Tls(Box::new(tls.accept(tcp).await?)),
            };
            Ok(PeerConnection { stream })
        })
        .await
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("url", &self.url()).finish()
    }
}

/// A connection on which the client has yet to ask for a WebSocket.
#[derive(Debug)]
pub struct PeerConnection {
    stream: Stream,
}

impl PeerConnection {
    /// The same over any other stream, for example one end of [`tokio::io::duplex`], so that a test
    /// can do without sockets and pause tokio's clock.
    #[must_use]
    pub fn over(stream: impl Duplex + 'static) -> Self {
        let stream = Stream::Other(Box::new(stream));
        Self { stream }
    }

    pub(crate) fn over_stream(stream: Stream) -> Self {
        Self { stream }
    }

    /// Reads the head of the request, and nothing after it.
    ///
    /// # Errors
    ///
    /// When something else comes, or nothing.
    pub async fn request(&mut self) -> io::Result<RequestHead> {
        bounded(read_head(&mut self.stream)).await
    }

    /// Reads the request and grants it as RFC 6455 has it, choosing the subprotocol `mqtt` or
    /// `mqttv3.1` if one of them is offered.
    ///
    /// # Errors
    ///
    /// When no request comes, or one that is no upgrade.
    pub async fn upgrade(mut self) -> io::Result<PeerSocket> {
        let request = self.request().await?;
        self.grant(&request, &[]).await
    }

    /// The same, for a part of this crate that reads frames by itself.
    pub(crate) async fn upgrade_with(
        mut self,
        config: WebSocketConfig,
    ) -> io::Result<WebSocketStream<Stream>> {
        let request = self.request().await?;
        let answer = switching_protocols(&request, &[])
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no upgrade"))?;
        self.send(answer.as_bytes()).await?;
        Ok(WebSocketStream::from_raw_socket(self.stream, Role::Server, Some(config)).await)
    }

    /// Grants a request that was read with [`request`](Self::request), with more headers if wanted.
    ///
    /// # Errors
    ///
    /// When the request is no upgrade or the connection has ended.
    pub async fn grant(
        mut self,
        request: &RequestHead,
        headers: &[(&str, &str)],
    ) -> io::Result<PeerSocket> {
        let answer = switching_protocols(request, headers).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the request is no upgrade")
        })?;
        self.send(answer.as_bytes()).await?;
        Ok(self.into_socket().await)
    }

    /// Answers with any status, and ends the connection in order.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn refuse(
        mut self,
        status: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<()> {
        let mut answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
        push_headers(&mut answer, headers);
        let mut answer = answer.into_bytes();
        answer.extend_from_slice(body);
        self.send(&answer).await?;
        self.finish().await
    }

    /// Sends any bytes.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        bounded(async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await
    }

    /// Reads exactly this many bytes.
    ///
    /// # Errors
    ///
    /// When fewer come.
    pub async fn receive(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        bounded(self.stream.read_exact(&mut bytes)).await?;
        Ok(bytes)
    }

    /// Goes on as a WebSocket, the upgrade done or skipped by the test's own bytes.
    pub async fn into_socket(self) -> PeerSocket {
        let config = Some(wire::websocket_config());
        let socket = WebSocketStream::from_raw_socket(self.stream, Role::Server, config).await;
        PeerSocket {
            socket,
            received: BytesMut::new(),
        }
    }

    /// Closes the writing side and reads what still comes, up to the end: the client gets every
    /// byte that was sent.
    ///
    /// # Errors
    ///
    /// When the client does not end its side.
    pub async fn finish(self) -> io::Result<()> {
        finish(self.stream).await
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.stream.reset();
    }

    /// Waits until the client has ended the connection, however it did.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub async fn closed(mut self) -> io::Result<()> {
        bounded(async {
            drain(&mut self.stream).await;
            Ok(())
        })
        .await
    }
}

/// What a client sent, or how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// A whole binary message.
    Binary(Bytes),
    /// A text message, which no client of MQTT may send.
    Text(String),
    /// A ping; it has been answered.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// A close frame with its code, if it had one; it has been answered.
    Close(Option<u16>),
    /// The end of the connection, with or without a close frame before.
    End,
}

/// A WebSocket whose frames the test plays.
pub struct PeerSocket {
    socket: WebSocketStream<Stream>,
    received: BytesMut,
}

impl PeerSocket {
    /// The next frame from the client.
    ///
    /// # Errors
    ///
    /// When none comes, or the client broke the rules of WebSocket.
    pub async fn frame(&mut self) -> io::Result<Frame> {
        bounded(async {
            let frame = match self.socket.next().await {
                Some(Ok(Message::Binary(bytes))) => Frame::Binary(bytes),
                Some(Ok(Message::Text(text))) => Frame::Text(text.as_str().to_owned()),
                Some(Ok(Message::Ping(bytes))) => Frame::Ping(bytes),
                Some(Ok(Message::Pong(bytes))) => Frame::Pong(bytes),
                Some(Ok(Message::Close(close))) => Frame::Close(close.map(|c| c.code.into())),
                Some(Ok(Message::Frame(_))) | None => Frame::End,
                Some(Err(tungstenite::Error::Io(_))) => Frame::End,
                Some(Err(tungstenite::Error::Protocol(
                    tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
                ))) => Frame::End,
                Some(Err(error)) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            };
            Ok(frame)
        })
        .await
    }

    /// The next control packet of MQTT, whole, however it was cut into messages.
    ///
    /// # Errors
    ///
    /// When the connection ends first, a text message comes, or a length that is too large.
    pub async fn packet(&mut self) -> io::Result<Bytes> {
        loop {
            let packet = wire::split_packet(&mut self.received)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "bad remaining length"))?;
            if let Some(packet) = packet {
                return Ok(packet);
            }
            match self.frame().await? {
                Frame::Binary(bytes) => self.received.extend_from_slice(&bytes),
                Frame::Ping(_) | Frame::Pong(_) => {}
                other => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("no packet but {other:?}"),
                    ));
                }
            }
        }
    }

    /// Compares the next control packet with these bytes.
    ///
    /// # Errors
    ///
    /// When it differs, both in the message.
    pub async fn expect(&mut self, bytes: &[u8]) -> io::Result<()> {
        let packet = self.packet().await?;
        if packet == bytes {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("expected {bytes:02x?}, received {:02x?}", &packet[..]),
        ))
    }

    /// Reads the CONNECT and accepts it: CONNACK of MQTT 3.1 and 3.1.1, or of MQTT 5 without
    /// properties, no session present. Gives back the CONNECT.
    ///
    /// # Errors
    ///
    /// When no CONNECT comes.
    pub async fn accept_connect(&mut self) -> io::Result<Bytes> {
        let connect = self.packet().await?;
        // The length of the protocol name follows the fixed header, then the name, then the level.
        let header = 1 + connect
            .iter()
            .skip(1)
            .position(|b| b & 0x80 == 0)
            .map_or(0, |i| i + 1);
        let name = match connect.get(header..header + 2) {
            Some(&[high, low]) if connect[0] == 0x10 => u16::from_be_bytes([high, low]),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("no CONNECT but {:02x?}", &connect[..]),
                ));
            }
        };
        let answer: &[u8] = match connect.get(header + 2 + usize::from(name)) {
            Some(5) => &[0x20, 3, 0, 0, 0],
            _ => &[0x20, 2, 0, 0],
        };
        self.send(answer).await?;
        Ok(connect)
    }

    /// Sends bytes as one binary message, whole packets or not.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let bytes = Bytes::copy_from_slice(bytes.as_ref());
        self.send_message(Message::Binary(bytes)).await
    }

    /// Sends a text message, which no server of MQTT may do.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn send_text(&mut self, text: &str) -> io::Result<()> {
        self.send_message(Message::text(text)).await
    }

    /// Sends a ping.
    ///
    /// # Errors
    ///
    /// When the connection has ended or the payload is over 125 bytes.
    pub async fn ping(&mut self, payload: &[u8]) -> io::Result<()> {
        self.send_message(Message::Ping(Bytes::copy_from_slice(payload)))
            .await
    }

    /// Sends a close frame. Read on with [`frame`](Self::frame) to see the client's answer, then
    /// [`finish`](Self::finish): it is the server that ends the stream.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn close(&mut self, code: u16, reason: &str) -> io::Result<()> {
        self.send_message(Message::Close(Some(CloseFrame {
            code: code.into(),
            reason: reason.into(),
        })))
        .await
    }

    /// Sends bytes below the WebSocket's framing: garbage, or frames that no library would make.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.socket.get_mut();
        bounded(async {
            stream.write_all(bytes).await?;
            stream.flush().await
        })
        .await
    }

    /// Waits until the client has ended the connection, however it did; what comes before is dropped.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub async fn closed(mut self) -> io::Result<()> {
        bounded(async {
            while let Some(Ok(_)) = self.socket.next().await {}
            let stream = self.socket.get_mut();
            // After a close handshake it is the server's turn to end the stream first; after
            // anything else it fails or does no harm.
            let _ = stream.shutdown().await;
            drain(stream).await;
            Ok(())
        })
        .await
    }

    /// Ends the connection without a close frame, but in order: the client gets every byte that
    /// was sent.
    ///
    /// # Errors
    ///
    /// When the client does not end its side.
    pub async fn finish(self) -> io::Result<()> {
        finish(self.socket.into_inner()).await
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.socket.into_inner().reset();
    }

    async fn send_message(&mut self, message: Message) -> io::Result<()> {
        bounded(async { self.socket.send(message).await.map_err(io::Error::other) }).await
    }
}

impl fmt::Debug for PeerSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerSocket").finish_non_exhaustive()
    }
}

/// The answer that grants an upgrade; `None` if the request is none.
pub(crate) fn switching_protocols(
    request: &RequestHead,
    headers: &[(&str, &str)],
) -> Option<String> {
    let key = request.header("sec-websocket-key")?;
    if !request.header_lists("upgrade", "websocket") || request.method() != "GET" {
        return None;
    }
    let accept = derive_accept_key(key.as_bytes());
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\n\
         connection: Upgrade\r\n\
         upgrade: websocket\r\n\
         sec-websocket-accept: {accept}\r\n"
    );
    if let Some(chosen) = offered_subprotocol(request) {
        push_headers_open(&mut answer, &[("sec-websocket-protocol", chosen)]);
    }
    push_headers(&mut answer, headers);
    Some(answer)
}

/// The subprotocol that a server of MQTT chooses.
pub(crate) fn offered_subprotocol(request: &RequestHead) -> Option<&'static str> {
    ["mqtt", "mqttv3.1"]
        .into_iter()
        .find(|name| request.header_lists("sec-websocket-protocol", name))
}

/// Adds headers and the empty line.
pub(crate) fn push_headers(answer: &mut String, headers: &[(&str, &str)]) {
    push_headers_open(answer, headers);
    answer.push_str("\r\n");
}

fn push_headers_open(answer: &mut String, headers: &[(&str, &str)]) {
    for (name, value) in headers {
        answer.push_str(name);
        answer.push_str(": ");
        answer.push_str(value);
        answer.push_str("\r\n");
    }
}

async fn finish(mut stream: Stream) -> io::Result<()> {
    bounded(async {
        stream.shutdown().await?;
        drain(&mut stream).await;
        Ok(())
    })
    .await
}

/// Reads to the end; how it ended does not matter.
async fn drain(stream: &mut Stream) {
    let mut sink = [0; 4096];
    while matches!(stream.read(&mut sink).await, Ok(length) if length > 0) {}
}

async fn bounded<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(ANSWER_TIMEOUT, step)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
}
