//! What is wrong with options.

use std::error::Error as StdError;
use std::fmt;

use mqtt_session::ConfigError;
use pubsub_core::QoS;

use crate::store::StoreError;

/// Which rule the options break.
#[derive(Debug)]
#[non_exhaustive]
pub enum OptionsError {
    /// There is no URL, and no [`Connect`](crate::Connect) in its place.
    MissingUrl,
    /// The URL, or an option of the connection to it, cannot be used; the source says why.
    Url(Box<dyn StdError + Send + Sync>),
    /// More than 64 endpoints.
    TooManyEndpoints,
    /// A URL that is not encrypted leads beyond this machine, and nobody said that this is meant.
    PlainUrl,
    /// A URL, or an option of the connection to it, was given to a provider that brings its own
    /// [`Connect`](crate::Connect) and would not use it.
    UnusedUrl,
    /// Roots or a dialler were given beside a connector that has its own.
    ConnectorConflict,
    /// Root certificates were given to a build without TLS.
    NoTls,
    /// A user name or password was given beside a source of them.
    LoginConflict,
    /// The client identifier is longer than the [`Limits`](crate::Limits) allow.
    ClientIdTooLong {
        /// How many bytes it may have.
        max_bytes: usize,
    },
    /// A persistent session is found again by its client identifier, so it needs one that outlives the process.
    PersistentWithoutClientId,
    /// A session store beside a session that the broker does not keep: that takes [`SessionMode::Persistent`](crate::SessionMode::Persistent) with a time to
    /// expiry above zero.
    StoreWithoutSession,
    /// Another provider uses the session store.
    StoreInUse,
    /// The session cannot be had from its store; the source says why.
    Store(StoreError),
    /// The will asks for more than the [`Limits`](crate::Limits) allow.
    WillQos {
        /// What they allow.
        max: QoS,
    },
    /// A time that has to be more than zero.
    Zero {
        /// Which one.
        what: &'static str,
    },
    /// The cap of the [`Reconnect`](crate::Reconnect) policy is below one of its delays.
    ReconnectCap,
    /// A rule of the MQTT session is broken; the source names it.
    Session(ConfigError),
    /// The system's source of randomness, which makes client identifiers, does not answer.
    NoRandomness,
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingUrl => f.write_str("the options have no URL"),
            Self::Url(_) => f.write_str("the URL or an option of its connection cannot be used"),
            Self::TooManyEndpoints => f.write_str("more than 64 endpoints"),
            Self::PlainUrl => f.write_str(
                "the URL is not encrypted and leads beyond this machine; if that is meant, say so with `plain_ws`",
            ),
            Self::UnusedUrl => f.write_str("a provider with its own `Connect` uses no URL and no option of it"),
            Self::ConnectorConflict => f.write_str("roots or a dialler beside a connector that has its own"),
            Self::NoTls => f.write_str("root certificates in a build without TLS; enable a feature for it"),
            Self::LoginConflict => f.write_str("a user name or password beside a source of them"),
            Self::ClientIdTooLong { max_bytes } => write!(f, "the client identifier has more than {max_bytes} bytes"),
            Self::PersistentWithoutClientId => f.write_str("a persistent session needs a client identifier"),
            Self::StoreWithoutSession => f.write_str(
                "a session store needs a session that the broker keeps: persistent, with a time to expiry above zero",
            ),
            Self::StoreInUse => f.write_str("another provider uses the session store"),
            Self::Store(_) => f.write_str("the session cannot be had from its store"),
            Self::WillQos { max } => write!(f, "the will's quality of service is above {max:?}"),
            Self::Zero { what } => write!(f, "the {what} is zero"),
            Self::ReconnectCap => f.write_str("the cap of the reconnect policy is below one of its delays"),
            Self::Session(_) => f.write_str("an option breaks a rule of MQTT"),
            Self::NoRandomness => f.write_str("the system's source of randomness does not answer"),
        }
    }
}

impl StdError for OptionsError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Url(source) => Some(source.as_ref()),
            Self::Session(error) => Some(error),
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}
