//! From an endpoint to an open WebSocket, under one deadline.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::time::{self, Instant};
use tracing::debug;

use crate::{
    ConnectError, ConnectStage, Dial, Endpoint, RequestError, Security, Stream, Target, TcpDialer,
    TlsError, UpgradeRequest, WebSocket, WebSocketConfig, error::Causes, upgrade::upgrade,
};
#[cfg(feature = "tls")]
use crate::{TlsConfig, tls::LazyTls};

/// Opens WebSockets: dials, puts TLS on top, and upgrades.
///
/// Make one per client and keep it: it holds the TLS session cache. Clones share everything.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use ws_transport::{Connector, Endpoint, UpgradeRequest};
///
/// let connector = Connector::new();
/// let endpoint: Endpoint = "wss://broker.example/mqtt".parse()?;
/// let request = UpgradeRequest::new().subprotocol("mqtt")?;
///
/// let mut socket = connector.connect(&endpoint, &request).await?;
/// socket.send("hello").await?;
/// let answer = socket.recv().await;
/// socket.close().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Connector {
    dialer: Dialer,
    #[cfg(feature = "tls")]
    tls: LazyTls,
    websocket: WebSocketConfig,
    timeout: Duration,
    plaintext_credentials: PlaintextCredentials,
}

impl Connector {
    /// The default time for a whole connect. Ample for a slow mobile link; well under the minute or two after
    /// which TCP gives up by itself.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

    /// A connector with the defaults: [`TcpDialer`], [`TlsConfig`]'s defaults, 20 s for a whole connect.
    ///
    /// The default TLS configuration is made when the first `wss` target asks for it, and shared by all connectors of
    /// the process; what is wrong with it is then that connect's error.
    #[must_use]
    pub fn new() -> Self {
        Self {
            dialer: Dialer::Tcp(TcpDialer::new()),
            #[cfg(feature = "tls")]
            tls: LazyTls::default(),
            websocket: WebSocketConfig::default(),
            timeout: Self::DEFAULT_TIMEOUT,
            plaintext_credentials: PlaintextCredentials::default(),
        }
    }

    /// Dials through this instead of a default [`TcpDialer`].
    #[must_use]
    pub fn dialer(mut self, dialer: impl Dial + 'static) -> Self {
        self.dialer = Dialer::Other(Arc::new(dialer));
        self
    }

    /// Dials straight over TCP, as by default, with settings of its own.
    #[must_use]
    pub fn tcp(mut self, dialer: TcpDialer) -> Self {
        self.dialer = Dialer::Tcp(dialer);
        self
    }

    /// Uses this TLS configuration instead of the default one.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, config: TlsConfig) -> Self {
        self.tls = LazyTls::from(config);
        self
    }

    /// Buffers, limits and policies of the WebSockets it opens.
    #[must_use]
    pub fn websocket(mut self, config: WebSocketConfig) -> Self {
        self.websocket = config;
        self
    }

    /// How long a whole connect may take, from the first DNS question to the answer to the upgrade. Default
    /// [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Whether credentials may cross the network in the clear. Default [`PlaintextCredentials::LoopbackOnly`].
    #[must_use]
    pub fn plaintext_credentials(mut self, policy: PlaintextCredentials) -> Self {
        self.plaintext_credentials = policy;
        self
    }

    /// Opens a WebSocket. Redirects are refusals, and `wss` never becomes `ws`.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`]; a server's refusal comes with its status, headers and body.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up and closes what was opened; nothing else is affected.
    pub async fn connect(
        &self,
        endpoint: &Endpoint,
        request: &UpgradeRequest,
    ) -> Result<WebSocket, ConnectError> {
        self.attempt(endpoint, request, Attempt::new(self.timeout))
            .await
    }

    /// Opens a WebSocket as [`connect`](Self::connect) does, for a caller that drops the future once `time_left` has
    /// passed, as a part of something longer that has a deadline already. There is no second timer for the same
    /// moment then; where the connector's own [`timeout`](Self::timeout) is shorter, it holds as ever.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect). A refusal is not lost when its body is late: the body is given up a moment before
    /// `time_left` has passed.
    ///
    /// # Cancel safety
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_within(
        &self,
        endpoint: &Endpoint,
        request: &UpgradeRequest,
        time_left: Duration,
    ) -> Result<WebSocket, ConnectError> {
        let attempt = match self.timeout < time_left {
            true => Attempt::new(self.timeout),
            false => Attempt::kept_by_the_caller(time_left),
        };
        self.attempt(endpoint, request, attempt).await
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        request: &UpgradeRequest,
        attempt: Attempt,
    ) -> Result<WebSocket, ConnectError> {
        let target = endpoint.target();
        if target.security() == Security::Plain
            && !target.host().is_loopback()
            && self.plaintext_credentials == PlaintextCredentials::LoopbackOnly
            && request.carries_credentials(endpoint)
        {
            return Err(RequestError::PlaintextCredentials.into());
        }
        let result = self
            .within_deadline(attempt, async |attempt: &Attempt| {
                let mut stream = self.open(target, attempt).await?;
                attempt.enter(ConnectStage::Upgrade);
                let upgraded = upgrade(&mut stream, endpoint, request, attempt.deadline).await?;
                Ok((stream, upgraded))
            })
            .await;
        match result {
            Ok((stream, upgraded)) => {
                debug!(host = %target.host(), port = target.port(), "WebSocket open");
                Ok(WebSocket::after_upgrade(stream, upgraded, &self.websocket))
            }
            Err(error) => {
                debug!(host = %target.host(), port = target.port(), error = %Causes(&error), "WebSocket not opened");
                Err(error)
            }
        }
    }

    /// Opens a connection without the upgrade: dials, and puts TLS on top where the target asks for it. For
    /// plain HTTP(S) calls over the same proxy, roots and session cache.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Timeout`], [`ConnectError::Dial`] and [`ConnectError::Tls`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up and closes what was opened.
    pub async fn connect_stream(&self, target: &Target) -> Result<Stream, ConnectError> {
        let attempt = Attempt::new(self.timeout);
        self.within_deadline(attempt, async |attempt: &Attempt| {
            self.open(target, attempt).await
        })
        .await
    }

    async fn within_deadline<T>(
        &self,
        attempt: Attempt,
        connect: impl AsyncFnOnce(&Attempt) -> Result<T, ConnectError>,
    ) -> Result<T, ConnectError> {
        // Pinned, it has one place, and not another for each way that it is waited for.
        let mut connect = pin!(connect(&attempt));
        let result = match (attempt.timer, attempt.deadline) {
            // The timer has its own, which who brings a deadline does without.
            (Timer::Own, Some(deadline)) => {
                Box::pin(time::timeout_at(deadline, connect.as_mut())).await
            }
            _ => Ok(connect.await),
        };
        result.unwrap_or_else(|_elapsed| Err(ConnectError::Timeout(attempt.stage())))
    }

    async fn open(&self, target: &Target, attempt: &Attempt) -> Result<Stream, ConnectError> {
        attempt.enter(ConnectStage::Dial);
        let io = match &self.dialer {
            Dialer::Tcp(tcp) => Stream::tcp(tcp.connect(target).await?),
            Dialer::Other(dialer) => Stream::plain(dialer.dial(target).await?),
        };
        match target.security() {
            Security::Plain => Ok(io),
            #[cfg(feature = "tls")]
            Security::Tls => {
                attempt.enter(ConnectStage::Tls);
                let tls = self
                    .tls
                    .get()
                    .map_err(|error| ConnectError::Tls(TlsError::Config(error)))?;
                // Large, and no part of a connect without it.
                let max_read_len = self.websocket.read_buffer_len;
                Ok(Box::pin(tls.handshake(target, io, max_read_len)).await?)
            }
            #[cfg(not(feature = "tls"))]
            Security::Tls => Err(TlsError::NotCompiled.into()),
        }
    }
}

/// What dials. The usual one needs neither a box of its own nor one for each attempt.
#[derive(Clone)]
enum Dialer {
    Tcp(TcpDialer),
    Other(Arc<dyn Dial>),
}

impl Default for Connector {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("websocket", &self.websocket)
            .field("timeout", &self.timeout)
            .field("plaintext_credentials", &self.plaintext_credentials)
            .finish_non_exhaustive()
    }
}

/// Whether credentials may cross the network in the clear, over `ws://`.
///
/// Credentials are a query in the URL (presigned ones are), `Authorization`, `Cookie` and headers marked
/// sensitive, and whatever [`UpgradeRequest::credentials_follow`] announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PlaintextCredentials {
    /// Only to the machine itself, as the URL names it. (What a proxy takes `localhost` for is the proxy's affair.)
    #[default]
    LoopbackOnly,
    /// To any host: everybody on the way can read and use them.
    AnyHost,
}

/// One connect: when it has to be over, and how far it has come.
struct Attempt {
    /// `None` where the timeout is beyond what the clock can tell.
    deadline: Option<Instant>,
    timer: Timer,
    stage: AtomicU8,
}

/// Who ends an attempt that has not come to its end by its deadline.
#[derive(Clone, Copy)]
enum Timer {
    Own,
    Callers,
}

/// What is read of a refusal ends so much before the caller's deadline, which began before ours and may be rounded.
const CALLERS_LEAD: Duration = Duration::from_millis(20);

impl Attempt {
    fn new(timeout: Duration) -> Self {
        Self {
            deadline: Instant::now().checked_add(timeout),
            timer: Timer::Own,
            stage: AtomicU8::new(0),
        }
    }

    fn kept_by_the_caller(time_left: Duration) -> Self {
        Self {
            timer: Timer::Callers,
            ..Self::new(time_left.saturating_sub(CALLERS_LEAD))
        }
    }

    fn enter(&self, stage: ConnectStage) {
        let code = match stage {
            ConnectStage::Dial => 0,
            ConnectStage::Tls => 1,
            ConnectStage::Upgrade => 2,
        };
        self.stage.store(code, Ordering::Relaxed);
    }

    fn stage(&self) -> ConnectStage {
        match self.stage.load(Ordering::Relaxed) {
            0 => ConnectStage::Dial,
            1 => ConnectStage::Tls,
            _ => ConnectStage::Upgrade,
        }
    }
}
