//! How a connection comes to be: one attempt, one transport.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pubsub_core::BoxFuture;
use tokio::time::Instant;

use crate::login::Login;
use crate::transport::Transport;

/// Makes connections: one call, one attempt, one [`Transport`], and what is known about it.
///
/// The supervisor decides when to try, how long an attempt may take, and what to do after a failure; a `Connect` does
/// just the attempt, and says in its [`ConnectError`] whether another one can help. Whatever must be fresh for an attempt
/// (a signed URL, a token) is made inside the call, never before it.
///
/// ```
/// use std::time::Duration;
/// use pubsub_core::BoxFuture;
/// use pubsub_generic::{Attempt, Connect, ConnectError, CredentialFreshness, Opened};
///
/// struct Signed<C> {
///     inner: C,
/// }
///
/// impl<C: Connect> Connect for Signed<C> {
///     fn connect<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>> {
///         Box::pin(async move {
///             if attempt.credentials() == CredentialFreshness::Renew {
///                 // Those of the cache were refused, or expire: do not serve them again.
///             }
///             let opened = self.inner.connect(attempt).await?;
///             Ok(opened.good_for(Duration::from_secs(3600)))
///         })
///     }
/// }
/// ```
///
/// A connection may be [replaced](crate::Renewal) ahead of its end. The attempt for its successor is made while it still
/// stands, so two transports of one `Connect` may exist for a moment.
///
/// # Cancel safety
///
/// The returned future is dropped when the attempt's deadline passes, when the provider closes, and when the host reports
/// that the network went away. Dropping it must abandon the attempt and release what it holds.
pub trait Connect: Send + Sync + 'static {
    /// Makes one attempt.
    fn connect<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>>;

    /// How many endpoints attempts can go to. Asked once; by default there is one, as there is for 0.
    ///
    /// With more than one, the supervisor goes through them in rounds and says in [`Attempt::endpoint`] which one is
    /// meant.
    fn endpoints(&self) -> usize {
        1
    }

    /// The name of an endpoint, counted from zero, that may be shown: host and port, no path, no query. By default it has
    /// none.
    fn endpoint_name(&self, endpoint: usize) -> Option<String> {
        let _ = endpoint;
        None
    }

    /// A future that ends when another attempt is worth making at once, whatever the [`Reconnect`](crate::Reconnect) policy
    /// says: when that has come for want of which the last one failed, such as somebody who signs in.
    ///
    /// Asked for after each attempt that failed; dropped with the wait. `None`, the default, says that nobody can tell.
    fn worth_trying(&self) -> Option<BoxFuture<'static, ()>> {
        None
    }
}

impl<C: Connect + ?Sized> Connect for Arc<C> {
    fn connect<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>> {
        (**self).connect(attempt)
    }

    fn endpoints(&self) -> usize {
        (**self).endpoints()
    }

    fn endpoint_name(&self, endpoint: usize) -> Option<String> {
        (**self).endpoint_name(endpoint)
    }

    fn worth_trying(&self) -> Option<BoxFuture<'static, ()>> {
        (**self).worth_trying()
    }
}

/// What an attempt came to: an open transport, and what is known about it.
pub struct Opened {
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) since: Instant,
    pub(crate) good_for: Option<Duration>,
    pub(crate) login: Option<Login>,
}

impl Opened {
    /// This transport, of which no end is known.
    #[must_use]
    pub fn new(transport: impl Transport + 'static) -> Self {
        Self {
            transport: Box::new(transport),
            since: Instant::now(),
            good_for: None,
            login: None,
        }
    }

    /// How long the transport can be used, counted from [`new`](Self::new): until the credentials behind it expire, or the service closes it.
    /// Said more than once, the shortest counts. The connection is [replaced](crate::Renewal) ahead of it, by an attempt
    /// that asks for [fresh credentials](CredentialFreshness::Renew); less than 10 s is not planned for.
    ///
    /// A duration, because a wall clock may be wrong or be set: take what the expiry date says less the time that it is by
    /// the clock which made that date.
    #[must_use]
    pub fn good_for(mut self, time: Duration) -> Self {
        self.good_for = Some(self.good_for.map_or(time, |other| other.min(time)));
        self
    }

    /// The user name and the password for the CONNECT on this transport, in the place of those of the options.
    #[must_use]
    pub fn login(mut self, login: Login) -> Self {
        self.login = Some(login);
        self
    }

    /// Puts the transport into another one, and keeps what is known about it.
    #[must_use]
    pub fn map<T: Transport + 'static>(self, wrap: impl FnOnce(Box<dyn Transport>) -> T) -> Self {
        Self {
            transport: Box::new(wrap(self.transport)),
            ..self
        }
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("good_for", &self.good_for)
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

/// What an attempt may want to know about itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attempt {
    number: u32,
    endpoint: usize,
    client_id: Arc<str>,
    credentials: CredentialFreshness,
    time_left: Duration,
}

impl Attempt {
    /// An attempt by itself, as a test of a [`Connect`] needs it: the first, with cached credentials.
    #[must_use]
    pub fn new(client_id: impl Into<Arc<str>>, time_left: Duration) -> Self {
        Self {
            number: 1,
            endpoint: 0,
            client_id: client_id.into(),
            credentials: CredentialFreshness::Any,
            time_left,
        }
    }

    pub(crate) fn numbered(mut self, number: u32, credentials: CredentialFreshness) -> Self {
        self.number = number;
        self.credentials = credentials;
        self
    }

    /// Counts the attempts since the last connection that stood; the first is 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn at_endpoint(mut self, endpoint: usize) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// Which of the [`Connect::endpoints`] it goes to, counted from zero.
    #[must_use]
    pub fn endpoint(&self) -> usize {
        self.endpoint
    }

    /// The Client Identifier that the CONNECT of this attempt will carry.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Whether credentials from a cache will do.
    #[must_use]
    pub fn credentials(&self) -> CredentialFreshness {
        self.credentials
    }

    /// How long the attempt may take, CONNECT and CONNACK included. The supervisor enforces it by dropping the future;
    /// an implementation needs this only to divide the time, for instance between several addresses.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.time_left
    }
}

/// Whether an attempt may use credentials from a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CredentialFreshness {
    /// Whatever is valid by its own expiry date.
    Any,
    /// Those in a cache were refused by the last attempt, or are those that a [connection that is
    /// replaced](crate::Renewal) was opened with and that expire: fetch new ones.
    Renew,
}

/// Why an attempt failed, and whether another one can help.
///
/// Displays what failed and never a URL, a header or a credential; the cause, where there is one, is the
/// [`source`](StdError::source).
#[derive(Debug)]
pub struct ConnectError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ConnectErrorKind,
    retry: Retry,
    refusal: Option<Refusal>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What an attempt failed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// The host's name did not resolve.
    Resolve,
    /// No address of the host, or no proxy on the way, let us in.
    Dial,
    /// The TLS handshake failed, the peer's certificate included.
    Tls,
    /// The server refused the upgrade; the [`Refusal`] says how.
    Refused,
    /// The server answered, but not in the protocol that was asked for.
    Protocol,
    /// No valid credentials could be had.
    Credentials,
    /// The attempt took longer than it may.
    Timeout,
    /// The configuration cannot work, whatever the network does.
    Configuration,
}

/// Whether, and how, to try again after a [`ConnectError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Retry {
    /// Later, by the [`Reconnect`](crate::Reconnect) policy.
    Later,
    /// Later, by the same policy, but with credentials that do not come from a cache.
    WithFreshCredentials,
    /// Not at all: nothing changes by trying. The provider stops and reports the error.
    Never,
}

/// An HTTP answer in place of the upgrade.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The HTTP status code.
    pub status: u16,
    /// The header fields, names in lower case, in the order received. Values that are not text are left out.
    pub headers: Vec<(String, String)>,
}

impl Refusal {
    /// A refusal with this status and these header fields.
    #[must_use]
    pub fn new(status: u16, headers: Vec<(String, String)>) -> Self {
        Self { status, headers }
    }

    /// The first value of this header field; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(candidate, _)| candidate == name)
            .map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Refusal {
    /// Names of the header fields only: a value may echo a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Refusal")
            .field("status", &self.status)
            .field("headers", &names)
            .finish()
    }
}

impl ConnectError {
    /// A failure of this kind. Whether it is retried follows from the kind: [`ConnectErrorKind::Configuration`] is
    /// not, [`ConnectErrorKind::Credentials`] with fresh credentials, all others later; [`with_retry`](Self::with_retry)
    /// says otherwise.
    #[must_use]
    pub fn new(kind: ConnectErrorKind) -> Self {
        let retry = match kind {
            ConnectErrorKind::Configuration => Retry::Never,
            ConnectErrorKind::Credentials => Retry::WithFreshCredentials,
            _ => Retry::Later,
        };
        Self(Box::new(Inner {
            kind,
            retry,
            refusal: None,
            source: None,
        }))
    }

    /// Says whether another attempt can help.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Attaches the server's answer.
    #[must_use]
    pub fn with_refusal(mut self, refusal: Refusal) -> Self {
        self.0.refusal = Some(refusal);
        self
    }

    /// Attaches the cause. It must not display secrets: it is shown wherever this error is.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What the attempt failed at.
    #[must_use]
    pub fn kind(&self) -> ConnectErrorKind {
        self.0.kind
    }

    /// Whether another attempt can help.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// Whether the supervisor will try again by itself.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retry != Retry::Never
    }

    /// The server's answer in place of the upgrade, if it gave one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        self.0.refusal.as_ref()
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.kind {
            ConnectErrorKind::Resolve => "the host's name did not resolve",
            ConnectErrorKind::Dial => "the host could not be reached",
            ConnectErrorKind::Tls => "the TLS handshake failed",
            ConnectErrorKind::Refused => "the server refused the connection",
            ConnectErrorKind::Protocol => "the server does not speak the protocol asked for",
            ConnectErrorKind::Credentials => "no valid credentials",
            ConnectErrorKind::Timeout => "the attempt took too long",
            ConnectErrorKind::Configuration => "the configuration cannot work",
        })?;
        match &self.0.refusal {
            Some(refusal) => write!(f, " (HTTP status {})", refusal.status),
            None => Ok(()),
        }
    }
}

impl StdError for ConnectError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
