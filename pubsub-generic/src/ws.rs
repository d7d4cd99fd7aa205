//! The default connection: a WebSocket to a URL.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use pubsub_core::BoxFuture;
use ws_transport::{
    Connector, Dial, DialError, Endpoint, PlaintextCredentials, Security, SubprotocolPolicy,
    TcpDialer, UpgradeRequest, WebSocket, WebSocketConfig, WebSocketError,
};

use crate::connect::{Attempt, Connect, ConnectError, ConnectErrorKind, Opened, Refusal, Retry};
use crate::options::MqttOptions;
use crate::options_error::OptionsError;
use crate::transport::{Received, Transport, TransportError, TransportErrorKind};

//= MQTT-6.0.0-3
//= v3.1.1 MQTT-6.0.0-3
/// The subprotocol that MQTT's section 6 asks for, and that we offer unless told otherwise.
pub const DEFAULT_SUBPROTOCOL: &str = "mqtt";

/// Whether a `ws://` URL, which nothing encrypts, may lead beyond this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PlainWs {
    /// It may not: only to a loopback address or `localhost`.
    #[default]
    LoopbackOnly,
    /// It may: everybody on the way can read and change everything, credentials included.
    Anywhere,
}

/// What of [`MqttOptions`] concerns the WebSocket.
#[derive(Clone, Default)]
pub(crate) struct WsOptions {
    pub(crate) urls: Vec<String>,
    pub(crate) subprotocol: Option<String>,
    pub(crate) subprotocol_policy: SubprotocolPolicy,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) extra_roots_pem: Vec<Vec<u8>>,
    pub(crate) plain: PlainWs,
    pub(crate) dialer: Option<Arc<dyn Dial>>,
    /// Large, and mostly not given.
    pub(crate) connector: Option<Box<Connector>>,
}

/// Options of the WebSocket.
impl MqttOptions {
    /// The WebSocket subprotocol to offer. Default `mqtt`; old brokers want `mqttv3.1`. An empty one offers none.
    #[must_use]
    pub fn subprotocol(mut self, subprotocol: impl Into<String>) -> Self {
        self.ws.subprotocol = Some(subprotocol.into());
        self
    }

    /// How strictly the broker has to choose that subprotocol. Default: it has to answer exactly what was offered.
    #[must_use]
    pub fn subprotocol_policy(mut self, policy: SubprotocolPolicy) -> Self {
        self.ws.subprotocol_policy = policy;
        self
    }

    /// Adds a header to the upgrade request, such as `Origin` or `Authorization`. Its value is treated as a secret.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.ws.headers.push((name.into(), value.into()));
        self
    }

    /// Trusts the certificates of this PEM file too, beside those compiled in: a private broker's root.
    #[must_use]
    pub fn extra_roots_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ws.extra_roots_pem.push(pem.into());
        self
    }

    /// Whether a `ws://` URL may lead beyond this machine. Default [`PlainWs::LoopbackOnly`].
    #[must_use]
    pub fn plain_ws(mut self, plain: PlainWs) -> Self {
        self.ws.plain = plain;
        self
    }

    /// Dials through this instead of straight over TCP: a proxy, a tunnel, a test.
    #[must_use]
    pub fn dialer(mut self, dialer: impl Dial + 'static) -> Self {
        self.ws.dialer = Some(Arc::new(dialer));
        self
    }

    /// Connects through this connector, with a TLS configuration, buffers and a dialler of its own. It takes the place of
    /// [`extra_roots_pem`](Self::extra_roots_pem) and [`dialer`](Self::dialer), which cannot be given beside it; and
    /// its limit on a message's length is its own.
    #[must_use]
    pub fn connector(mut self, connector: Connector) -> Self {
        self.ws.connector = Some(Box::new(connector));
        self
    }
}

impl WsOptions {
    pub(crate) fn new(url: String) -> Self {
        Self {
            urls: vec![url],
            ..Self::default()
        }
    }

    /// Whether anything was set.
    pub(crate) fn is_used(&self) -> bool {
        !self.urls.is_empty()
            || self.subprotocol.is_some()
            || self.subprotocol_policy != SubprotocolPolicy::default()
            || !self.headers.is_empty()
            || !self.extra_roots_pem.is_empty()
            || self.plain != PlainWs::default()
            || self.dialer.is_some()
            || self.connector.is_some()
    }
}

impl fmt::Debug for WsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An endpoint knows what of itself may be shown; what is no endpoint may hold anything.
        let shown = |url: &String| match url.parse::<Endpoint>() {
            Ok(endpoint) => endpoint.to_string(),
            Err(_) => "[not a usable URL]".to_owned(),
        };
        let urls: Vec<String> = self.urls.iter().map(shown).collect();
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("WsOptions")
            .field("urls", &urls)
            .field("subprotocol", &self.subprotocol)
            .field("headers", &headers)
            .field("extra_roots", &self.extra_roots_pem.len())
            .field("plain", &self.plain)
            .finish_non_exhaustive()
    }
}

/// Opens a WebSocket to a URL, or to one of several: the [`Connect`] that [`MqttOptions::new`] leads to.
#[derive(Debug, Clone)]
pub struct WsConnect {
    endpoints: Vec<Endpoint>,
    request: UpgradeRequest,
    connector: Connector,
}

impl WsConnect {
    /// A connection maker from its parts.
    #[must_use]
    pub fn new(endpoint: Endpoint, request: UpgradeRequest, connector: Connector) -> Self {
        Self {
            endpoints: vec![endpoint],
            request,
            connector,
        }
    }

    /// With one more endpoint.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// The connection maker that these options describe, to be wrapped in one of your own.
    ///
    /// # Errors
    ///
    /// The URL, or an option of the connection to it, cannot be used.
    pub fn from_options(options: &MqttOptions) -> Result<Self, OptionsError> {
        let ws = &options.ws;
        if ws.urls.is_empty() {
            return Err(OptionsError::MissingUrl);
        }
        if ws.urls.len() > MAX_ENDPOINTS {
            return Err(OptionsError::TooManyEndpoints);
        }
        let mut endpoints = Vec::with_capacity(ws.urls.len());
        for url in &ws.urls {
            let endpoint: Endpoint = url.parse().map_err(unusable)?;
            if endpoint.target().security() == Security::Plain
                && !endpoint.host().is_loopback()
                && ws.plain == PlainWs::LoopbackOnly
            {
                return Err(OptionsError::PlainUrl);
            }
            endpoints.push(endpoint);
        }
        let mut request = UpgradeRequest::new().subprotocol_policy(ws.subprotocol_policy);
        let subprotocol = match &ws.subprotocol {
            Some(subprotocol) => Cow::Owned(subprotocol.clone()),
            None => Cow::Borrowed(DEFAULT_SUBPROTOCOL),
        };
        if !subprotocol.is_empty() {
            request = request.subprotocol(subprotocol).map_err(unusable)?;
        }
        for (name, value) in &ws.headers {
            let name = HeaderName::try_from(name).map_err(unusable)?;
            let mut value = HeaderValue::try_from(value).map_err(unusable)?;
            value.set_sensitive(true);
            request = request.header(name, value).map_err(unusable)?;
        }
        if options.session.password.is_some() || options.login.is_some() {
            request = request.credentials_follow();
        }
        let connector = match &ws.connector {
            Some(_) if ws.dialer.is_some() || !ws.extra_roots_pem.is_empty() => {
                return Err(OptionsError::ConnectorConflict);
            }
            Some(connector) => Connector::clone(connector),
            None => default_connector(options)?,
        };
        let credentials = match ws.plain {
            PlainWs::LoopbackOnly => PlaintextCredentials::LoopbackOnly,
            PlainWs::Anywhere => PlaintextCredentials::AnyHost,
        };
        // The supervisor's deadline, which covers the CONNACK too, is no later: see `Attempt::time_left`.
        let connector = connector
            .timeout(options.connect_timeout)
            .plaintext_credentials(credentials);
        Ok(Self {
            endpoints,
            request,
            connector,
        })
    }
}

/// A round through so many, each of which may take the connect timeout, is long enough.
const MAX_ENDPOINTS: usize = 64;

/// A transport's messages carry whole and partial packets alike, so a message need not be longer than a packet; brokers
/// that pack many packets into one stay far below this.
const MIN_MESSAGE_LEN: usize = 1024 * 1024;

fn default_connector(options: &MqttOptions) -> Result<Connector, OptionsError> {
    let packet = usize::try_from(options.session.maximum_packet_size).unwrap_or(usize::MAX);
    let websocket = WebSocketConfig::new()
        .max_message_len(packet.max(MIN_MESSAGE_LEN))
        // The driver bounds closing itself.
        .close_timeout(Duration::MAX);
    let mut connector = Connector::new().websocket(websocket);
    if let Some(dialer) = &options.ws.dialer {
        connector = connector.dialer(Arc::clone(dialer));
    } else if !options.session.keep_alive.is_zero() {
        // PINGREQ asks as often, and further.
        connector = connector.tcp(TcpDialer::new().keep_alive(None));
    }
    if !options.ws.extra_roots_pem.is_empty() {
        connector = with_roots(connector, &options.ws.extra_roots_pem)?;
    }
    Ok(connector)
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
fn with_roots(connector: Connector, roots_pem: &[Vec<u8>]) -> Result<Connector, OptionsError> {
    let mut tls = ws_transport::TlsConfig::builder();
    for pem in roots_pem {
        tls = tls.add_roots_pem(pem.clone());
    }
    Ok(connector.tls(tls.build().map_err(unusable)?))
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
fn with_roots(_: Connector, _: &[Vec<u8>]) -> Result<Connector, OptionsError> {
    Err(OptionsError::NoTls)
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> OptionsError {
    OptionsError::Url(Box::new(error))
}

impl Connect for WsConnect {
    fn connect<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>> {
        Box::pin(async move {
            let endpoint = self
                .endpoints
                .get(attempt.endpoint())
                .ok_or_else(|| ConnectError::new(ConnectErrorKind::Configuration))?;
            let socket = self
                .connector
                .connect_within(endpoint, &self.request, attempt.time_left())
                .await?;
            Ok(Opened::new(WsTransport::new(socket)))
        })
    }

    fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    fn endpoint_name(&self, endpoint: usize) -> Option<String> {
        let endpoint = self.endpoints.get(endpoint)?;
        Some(endpoint.target().authority())
    }
}

/// A [`Transport`] over an open WebSocket, for a [`Connect`] that opens it in a way of its own.
pub struct WsTransport {
    socket: WebSocket,
    /// How the WebSocket ended, when that came in one batch with its last messages.
    end: Option<Result<Received, TransportError>>,
}

impl WsTransport {
    /// The transport over this WebSocket.
    #[must_use]
    pub fn new(socket: WebSocket) -> Self {
        Self { socket, end: None }
    }
}

impl fmt::Debug for WsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsTransport").finish_non_exhaustive()
    }
}

/// The most messages, and bytes, handed over in one batch; whichever is reached first. What else is there waits until
/// the driver has had a turn at sending.
const MAX_BATCH_MESSAGES: usize = 256;
const MAX_BATCH_BYTES: usize = 16 * 1024;

impl Transport for WsTransport {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<Result<Received, TransportError>> {
        if let Some(end) = self.end.take() {
            return Poll::Ready(end);
        }
        let stopped = self
            .socket
            .poll_recv_many(cx, chunks, MAX_BATCH_MESSAGES, MAX_BATCH_BYTES);
        let end = match stopped {
            Poll::Ready(Some(Ok(()))) => return Poll::Ready(Ok(Received::Chunks)),
            Poll::Ready(Some(Err(WebSocketError::ClosedByPeer(_))) | None) => Ok(Received::End),
            Poll::Ready(Some(Err(error))) => Err(error.into()),
            Poll::Pending if chunks.is_empty() => return Poll::Pending,
            Poll::Pending => return Poll::Ready(Ok(Received::Drained)),
        };
        if chunks.is_empty() {
            return Poll::Ready(end);
        }
        self.end = Some(end);
        Poll::Ready(Ok(Received::Chunks))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.socket.poll_ready(cx).map_err(TransportError::from)
    }

    fn start_send(&mut self, chunk: Bytes) -> Result<(), TransportError> {
        Ok(self.socket.start_send(chunk)?)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.socket.poll_flush(cx).map_err(TransportError::from)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.socket.poll_close(cx).map(|_outcome| Ok(()))
    }
}

impl From<WebSocketError> for TransportError {
    fn from(error: WebSocketError) -> Self {
        let kind = match &error {
            WebSocketError::ClosedByPeer(_)
            | WebSocketError::Disconnected
            | WebSocketError::SendAfterClose => TransportErrorKind::Closed,
            //= MQTT-6.0.0-1
            //= v3.1.1 MQTT-6.0.0-1
            WebSocketError::Text | WebSocketError::Protocol(_) => TransportErrorKind::Protocol,
            WebSocketError::TooLong => TransportErrorKind::TooLarge,
            _ => TransportErrorKind::Io,
        };
        Self::new(kind).with_source(error)
    }
}

impl From<ws_transport::ConnectError> for ConnectError {
    /// Sorts a failed attempt by whom it blames. A 401 or 403 is final here; a [`Connect`] that makes its credentials
    /// anew for each attempt may say otherwise with [`with_retry`](Self::with_retry).
    fn from(error: ws_transport::ConnectError) -> Self {
        use ws_transport::ConnectError as E;
        let kind = match &error {
            E::Request(_) => ConnectErrorKind::Configuration,
            E::Timeout(_) => ConnectErrorKind::Timeout,
            E::Dial(DialError::Resolve(_)) => ConnectErrorKind::Resolve,
            E::Dial(_) => ConnectErrorKind::Dial,
            E::Tls(_) => ConnectErrorKind::Tls,
            E::Refused(_) => ConnectErrorKind::Refused,
            E::Upgrade(_) => ConnectErrorKind::Protocol,
            // Some servers just hang up on a subprotocol that they do not know, others when they restart.
            _ => ConnectErrorKind::Dial,
        };
        let retry = if error.is_retryable() {
            Retry::Later
        } else {
            Retry::Never
        };
        let refusal = match &error {
            E::Refused(refusal) => Some(Refusal::new(
                refusal.status().as_u16(),
                refusal
                    .headers()
                    .iter()
                    .filter_map(|(name, value)| {
                        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
                    })
                    .collect(),
            )),
            _ => None,
        };
        let mut converted = Self::new(kind).with_retry(retry).with_source(error);
        if let Some(refusal) = refusal {
            converted = converted.with_refusal(refusal);
        }
        converted
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_batch_says_whether_it_is_all_there_is() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let socket = WebSocket::from_upgraded(ours, Bytes::new(), &WebSocketConfig::new());
        let mut transport = WsTransport::new(socket);
        let frame = [0x82, 1, b'x'];
        let frames = frame.repeat(MAX_BATCH_MESSAGES + 1);
        theirs.write_all(&frames).await.unwrap();

        let mut chunks = Vec::new();
        let mut receive = async || {
            chunks.clear();
            let received = poll_fn(|cx| transport.poll_receive(cx, &mut chunks)).await;
            (received.unwrap(), chunks.len())
        };
        assert_eq!(receive().await, (Received::Chunks, MAX_BATCH_MESSAGES));
        assert_eq!(receive().await, (Received::Drained, 1));
        // It wakes for what comes then.
        let (received, written) = tokio::join!(receive(), theirs.write_all(&frame));
        written.unwrap();
        assert_eq!(received, (Received::Drained, 1));
    }
}
