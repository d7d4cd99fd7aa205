//! A small MQTT 3.1.1 client made of bytes, to look at a broker or gateway with eyes that are not
//! ours.
//!
//! It knows no more of MQTT than a test of a broker needs: connect, subscribe, publish, receive.
//! Packets are written byte by byte here and nowhere else; answers are compared, not interpreted.

use std::{fmt, io, net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, client::IntoClientRequest as _, http},
};

use crate::{
    certs::{Authority, Identity},
    wire,
};

/// How long any answer may take. Nothing here needs more than milliseconds; a test that waits this
/// long has failed.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How a [`Probe`] opens its connection.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    url: String,
    client_id: String,
    user: Option<(String, Secret)>,
    subprotocol: Option<String>,
    headers: Vec<(String, String)>,
    roots: Vec<Vec<u8>>,
    identity: Option<Identity>,
}

#[derive(Clone)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl ProbeOptions {
    /// A clean session with no keep alive over this `ws://` or `wss://` address. Whatever the host
    /// says, the connection goes to loopback.
    #[must_use]
    pub fn new(url: &str, client_id: &str) -> Self {
        Self {
            url: url.to_owned(),
            client_id: client_id.to_owned(),
            user: None,
            subprotocol: Some("mqtt".to_owned()),
            headers: Vec::new(),
            roots: Vec::new(),
            identity: None,
        }
    }

    /// Sends a user name and password.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.user = Some((name.to_owned(), Secret(password.to_owned())));
        self
    }

    /// Offers another subprotocol than `mqtt`, or none.
    #[must_use]
    pub fn subprotocol(mut self, subprotocol: Option<&str>) -> Self {
        self.subprotocol = subprotocol.map(str::to_owned);
        self
    }

    /// Adds a header to the upgrade request, or replaces the one of this name.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Trusts this authority; needed for `wss://`.
    #[must_use]
    pub fn trust(mut self, authority: &Authority) -> Self {
        self.roots.push(authority.der());
        self
    }

    /// Presents a client certificate.
    #[must_use]
    pub fn identity(mut self, identity: &Identity) -> Self {
        self.identity = Some(identity.clone());
        self
    }

    /// Opens the WebSocket, without any MQTT. Cancelling it closes the socket.
    ///
    /// # Errors
    ///
    /// What became of it otherwise: see [`ProbeError`].
    pub async fn open(self) -> Result<Probe, ProbeError> {
        answered(self.open_unbounded()).await
    }

    /// Opens the WebSocket and the MQTT connection. Cancelling it closes the socket.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`ProbeError::Unexpected`] when the CONNACK does not accept.
    pub async fn connect(self) -> Result<Probe, ProbeError> {
        let connect = connect_packet(&self.client_id, self.user.as_ref());
        let mut probe = self.open().await?;
        probe.send(connect).await?;
        let answer = probe.packet().await?;
        match answer[..] {
            [0x20, 2, 0, 0] => Ok(probe),
            _ => Err(ProbeError::Unexpected(answer)),
        }
    }

    async fn open_unbounded(self) -> Result<Probe, ProbeError> {
        let mut request = self.url.as_str().into_client_request()?;
        for (name, value) in self.headers.iter().map(|(n, v)| (n.as_str(), v)).chain(
            self.subprotocol
                .iter()
                .map(|value| ("sec-websocket-protocol", value)),
        ) {
            let bad = |_| ProbeError::Io(io::Error::from(io::ErrorKind::InvalidInput));
            let name = http::HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| ProbeError::Io(io::Error::from(io::ErrorKind::InvalidInput)))?;
            let value = http::HeaderValue::from_str(value).map_err(bad)?;
            request.headers_mut().insert(name, value);
        }
        let secure = request.uri().scheme_str() == Some("wss");
        let host = request.uri().host().unwrap_or_default().to_owned();
        let port = request.uri().port_u16();
        let port = port.unwrap_or(if secure { 443 } else { 80 });
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        tcp.set_nodelay(true)?;
        let stream: BoxedStream = if secure {
            let name = ServerName::try_from(host)
                .map_err(|_| ProbeError::Io(io::Error::from(io::ErrorKind::InvalidInput)))?;
            Box::new(self.connector()?.connect(name, tcp).await?)
        } else {
            Box::new(tcp)
        };
        let config = Some(wire::websocket_config());
        let (socket, _) = client_async_with_config(request, stream, config).await?;
        Ok(Probe {
            socket,
            received: BytesMut::new(),
        })
    }

    fn connector(&self) -> Result<TlsConnector, ProbeError> {
        let mut roots = RootCertStore::empty();
        for root in &self.roots {
            roots
                .add(CertificateDer::from(root.clone()))
                .map_err(io::Error::other)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = identity.chain_der().iter().cloned();
                let key = PrivatePkcs8KeyDer::from(identity.key_der().to_vec());
                builder
                    .with_client_auth_cert(
                        chain.map(CertificateDer::from).collect(),
                        PrivateKeyDer::from(key),
                    )
                    .map_err(io::Error::other)?
            }
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// An open connection.
pub struct Probe {
    socket: WebSocketStream<BoxedStream>,
    received: BytesMut,
}

impl Probe {
    /// [`ProbeOptions::connect`] without any option.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn connect(url: &str, client_id: &str) -> Result<Self, ProbeError> {
        ProbeOptions::new(url, client_id).connect().await
    }

    /// Subscribes at QoS 1 and waits for the acknowledgement. Nothing else may arrive before it.
    ///
    /// # Errors
    ///
    /// [`ProbeError::Unexpected`] when the broker answers anything but a grant of QoS 1.
    pub async fn subscribe(&mut self, filter: &str) -> Result<(), ProbeError> {
        let mut body = vec![0, 1];
        wire::put_text(&mut body, filter.as_bytes());
        body.push(1);
        self.send(wire::packet(0x82, &body)).await?;
        self.expect(&[0x90, 3, 0, 1, 1]).await
    }

    /// Publishes at QoS 0.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<(), ProbeError> {
        let mut body = Vec::new();
        wire::put_text(&mut body, topic.as_bytes());
        body.extend_from_slice(payload);
        self.send(wire::packet(0x30, &body)).await
    }

    /// Publishes at QoS 1 and waits for the acknowledgement. Nothing else may arrive before it.
    ///
    /// # Errors
    ///
    /// When anything but the PUBACK comes.
    pub async fn publish_acknowledged(
        &mut self,
        topic: &str,
        payload: &[u8],
    ) -> Result<(), ProbeError> {
        let mut body = Vec::new();
        wire::put_text(&mut body, topic.as_bytes());
        body.extend_from_slice(&[0, 2]);
        body.extend_from_slice(payload);
        self.send(wire::packet(0x32, &body)).await?;
        self.expect(&[0x40, 2, 0, 2]).await
    }

    /// The topic and payload of the next message; one of QoS 1 is acknowledged.
    ///
    /// # Errors
    ///
    /// When something that is no PUBLISH comes.
    pub async fn message(&mut self) -> Result<(String, Bytes), ProbeError> {
        let packet = self.packet().await?;
        let Some((topic, id, payload)) = take_publish_apart(&packet) else {
            return Err(ProbeError::Unexpected(packet));
        };
        if let Some(id) = id {
            self.send(wire::packet(0x40, &id)).await?;
        }
        Ok((topic, payload))
    }

    /// The next control packet, whole.
    ///
    /// # Errors
    ///
    /// When the connection ends first.
    pub async fn packet(&mut self) -> Result<Bytes, ProbeError> {
        answered(async {
            loop {
                let packet = wire::split_packet(&mut self.received)
                    .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                if let Some(packet) = packet {
                    return Ok(packet);
                }
                match self.socket.next().await {
                    Some(Ok(Message::Binary(bytes))) => self.received.extend_from_slice(&bytes),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Text(_))) => {
                        return Err(io::Error::from(io::ErrorKind::InvalidData).into());
                    }
                    Some(Ok(_)) | None => return Err(ProbeError::Closed),
                    Some(Err(error)) => return Err(error.into()),
                }
            }
        })
        .await
    }

    /// Sends bytes as one binary message.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn send(&mut self, bytes: impl Into<Bytes>) -> Result<(), ProbeError> {
        let message = Message::Binary(bytes.into());
        answered(async { Ok(self.socket.send(message).await?) }).await
    }

    /// Waits until the other side has ended the connection, however it did, and drops what comes
    /// before.
    ///
    /// # Errors
    ///
    /// [`ProbeError::Timeout`] when it does not.
    pub async fn closed(&mut self) -> Result<(), ProbeError> {
        answered(async {
            while let Some(Ok(_)) = self.socket.next().await {}
            Ok(())
        })
        .await
    }

    /// Compares the next packet with these bytes.
    ///
    /// # Errors
    ///
    /// [`ProbeError::Unexpected`] when they differ.
    pub async fn expect(&mut self, bytes: &[u8]) -> Result<(), ProbeError> {
        let packet = self.packet().await?;
        if packet == bytes {
            Ok(())
        } else {
            Err(ProbeError::Unexpected(packet))
        }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}

/// What a probe met instead of what it waited for.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProbeError {
    /// The upgrade was answered with another status than 101.
    Refused {
        /// The status.
        status: u16,
        /// The headers, names in lower case, in order.
        headers: Vec<(String, String)>,
        /// What of the body came with them.
        body: Bytes,
    },
    /// The connection ended.
    Closed,
    /// Nothing came within [`ANSWER_TIMEOUT`].
    Timeout,
    /// Another packet came.
    Unexpected(Bytes),
    /// The connection failed, or could not be made.
    Io(io::Error),
    /// The other side broke the rules of WebSocket.
    WebSocket(String),
}

impl ProbeError {
    /// The value of a header of a refusal.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let Self::Refused { headers, .. } = self else {
            return None;
        };
        let found = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { status, .. } => write!(f, "the upgrade was answered with {status}"),
            Self::Closed => f.write_str("the connection ended"),
            Self::Timeout => f.write_str("no answer came"),
            Self::Unexpected(packet) => write!(f, "another packet came: {:02x?}", &packet[..]),
            Self::Io(_) => f.write_str("the connection failed"),
            Self::WebSocket(what) => write!(f, "the WebSocket failed: {what}"),
        }
    }
}

impl std::error::Error for ProbeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for ProbeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<tungstenite::Error> for ProbeError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(answer) => Self::Refused {
                status: answer.status().as_u16(),
                headers: answer
                    .headers()
                    .iter()
                    .map(|(name, value)| {
                        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                        (name.as_str().to_owned(), value)
                    })
                    .collect(),
                body: answer.into_body().unwrap_or_default().into(),
            },
            tungstenite::Error::Io(error) => Self::Io(error),
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
                Self::Closed
            }
            other => Self::WebSocket(other.to_string()),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
type BoxedStream = Box<dyn Stream>;

async fn answered<T>(answer: impl Future<Output = Result<T, ProbeError>>) -> Result<T, ProbeError> {
    tokio::time::timeout(ANSWER_TIMEOUT, answer)
        .await
        .unwrap_or(Err(ProbeError::Timeout))
}

fn connect_packet(client_id: &str, user: Option<&(String, Secret)>) -> Bytes {
    const CLEAN_SESSION: u8 = 0x02;
    const USER_NAME_AND_PASSWORD: u8 = 0xc0;
    let flags = CLEAN_SESSION | user.map_or(0, |_| USER_NAME_AND_PASSWORD);
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 0];
    wire::put_text(&mut body, client_id.as_bytes());
    if let Some((name, password)) = user {
        wire::put_text(&mut body, name.as_bytes());
        wire::put_text(&mut body, password.0.as_bytes());
    }
    wire::packet(0x10, &body)
}

/// Topic, packet identifier and payload of a PUBLISH.
fn take_publish_apart(packet: &Bytes) -> Option<(String, Option<[u8; 2]>, Bytes)> {
    let first = *packet.first()?;
    if first >> 4 != 3 {
        return None;
    }
    let length_bytes = packet.iter().skip(1).position(|byte| byte & 0x80 == 0)? + 1;
    let mut rest = packet.slice(1 + length_bytes..);
    if rest.len() < 2 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    if rest.len() < 2 + length {
        return None;
    }
    let topic = String::from_utf8(rest[2..2 + length].to_vec()).ok()?;
    rest = rest.split_off(2 + length);
    if first & 0x06 == 0 {
        return Some((topic, None, rest));
    }
    if rest.len() < 2 {
        return None;
    }
    let id = [rest[0], rest[1]];
    Some((topic, Some(id), rest.split_off(2)))
}
