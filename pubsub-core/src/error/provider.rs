//! What goes wrong at a provider.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why a provider could not do what it was asked.
///
/// A clone shares the source, since one lost connection concerns many callers. `Display` tells the kind
/// in words and leaves the source to [`Error::source`]; [`WithCauses`](crate::WithCauses) writes both.
#[derive(Clone, Debug)]
pub struct ProviderError {
    kind: ProviderErrorKind,
    retry: Retry,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl ProviderError {
    /// An error of this kind, retryable by the [default of the kind](ProviderErrorKind::is_retryable).
    #[must_use]
    pub fn new(kind: ProviderErrorKind) -> Self {
        let retry = if kind.is_retryable() {
            Retry::Worthwhile
        } else {
            Retry::Pointless
        };
        Self {
            kind,
            retry,
            source: None,
        }
    }

    /// This error with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// This error with another answer to [`is_retryable`](Self::is_retryable).
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ProviderErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retry == Retry::Worthwhile
    }
}

impl From<ProviderErrorKind> for ProviderError {
    fn from(kind: ProviderErrorKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl Error for ProviderError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "two ways, closed")]
pub enum Retry {
    /// The same call may succeed later.
    Worthwhile,
    /// Something has to be changed first.
    Pointless,
}

/// The kinds of [`ProviderError`]. They are stable and meant to be matched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProviderErrorKind {
    /// There is no connection, and the caller chose not to wait for one.
    NotConnected,
    /// The connection was lost before the answer came.
    ConnectionLost,
    /// The answer did not come in time.
    TimedOut,
    /// The service knows the caller too little: credentials are missing, wrong or expired.
    NotAuthenticated,
    /// The service knows the caller and does not let it do this.
    NotAuthorized,
    /// The service refused for another reason.
    Refused,
    /// The request or the configuration is wrong.
    Invalid,
    /// A limit of the service would be exceeded.
    LimitExceeded,
    /// A local queue is full.
    QueueFull,
    /// The provider or its service cannot do this at all.
    Unsupported,
    /// The message outlived its expiry before it could be sent.
    Expired,
    /// The service gave this client's place to another one with the same identity.
    TakenOver,
    /// The provider was closed or removed.
    Closed,
    /// The peer broke the protocol.
    Protocol,
    /// Something else went wrong; the source tells what.
    Other,
}

impl ProviderErrorKind {
    /// Whether errors of this kind pass without anybody changing anything.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::NotConnected
                | Self::ConnectionLost
                | Self::TimedOut
                | Self::LimitExceeded
                | Self::QueueFull
                | Self::Protocol
        )
    }
}

impl fmt::Display for ProviderErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotConnected => "not connected",
            Self::ConnectionLost => "the connection was lost",
            Self::TimedOut => "no answer in time",
            Self::NotAuthenticated => "not authenticated",
            Self::NotAuthorized => "not authorized",
            Self::Refused => "refused by the service",
            Self::Invalid => "invalid request or configuration",
            Self::LimitExceeded => "a limit of the service would be exceeded",
            Self::QueueFull => "a local queue is full",
            Self::Unsupported => "not supported",
            Self::Expired => "the message expired before it was sent",
            Self::TakenOver => "another client took over this identity",
            Self::Closed => "the provider is closed",
            Self::Protocol => "the peer broke the protocol",
            Self::Other => "the provider failed",
        })
    }
}
