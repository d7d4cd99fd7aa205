//! Why there is no connection.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use mqtt_codec::ReasonCode;
use mqtt_session::ConnectRefused;
use pubsub_core::{ProviderError, ProviderErrorKind, QoS};

use crate::connect::{ConnectError, ConnectErrorKind, Retry};
use crate::store::StoreError;
use crate::transport::TransportError;

/// Why a connection did not come to be, or ended.
///
/// It is the [`source`](StdError::source) of the [`ProviderError`] that a
/// [`ConnectionStatus`](pubsub_core::ConnectionStatus) gives as its reason, and of those that failed calls return. Nothing
/// in it shows a secret or a URL. A clone shares what it holds.
///
/// ```
/// use std::error::Error;
/// use pubsub_core::ProviderError;
/// use pubsub_generic::ConnectionError;
///
/// fn broker_said(reason: &ProviderError) -> Option<String> {
///     match reason.source()?.downcast_ref()? {
///         ConnectionError::Refused(refusal) => Some(refusal.reason().to_string()),
///         _ => None,
///     }
/// }
/// # assert!(broker_said(&pubsub_core::ProviderErrorKind::Closed.into()).is_none());
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The attempt failed before MQTT was spoken.
    Connect(Arc<ConnectError>),
    /// The broker refused the CONNECT.
    Refused(ConnectRefusal),
    /// Name resolution, handshakes and CONNACK together took longer than the connect timeout.
    ConnectTimeout,
    /// The connection broke, or the peer closed it.
    Transport(Arc<TransportError>),
    /// The peer closed the connection in place of a CONNACK. Before MQTT 5 that is how some services refuse whom they do not
    /// let in, without a word; it may also be a passing failure, so it is tried again.
    NoConnack(Arc<TransportError>),
    /// The broker broke a rule of MQTT, sent what is none, was silent too long, or made us hold too much; the source
    /// says which.
    Session(mqtt_session::ConnectionError),
    /// The broker said goodbye, with its reason (MQTT 5).
    ServerDisconnect(ReasonCode),
    /// Another client with the same client identifier takes our place. A broker may say so with MQTT 5; from one that does
    /// not (mosquitto before 2.1), and before MQTT 5, it is concluded from several connections in a row that the broker
    /// accepted and soon closed without a word.
    TakenOver,
    /// The host reported that the network went away.
    NetworkDown,
    /// Nothing went wrong: the connection was replaced ahead of its end, as [`Renewal`](crate::Renewal) says.
    Renewal,
    /// A subscriber was too slow, and its options ask to drop the connection, so that the broker keeps what is not
    /// confirmed.
    SlowSubscriber,
    /// The session store failed, and nothing may be sent without it. Not retried: the next
    /// [`connect`](crate::MqttProvider::connect) starts from what the store then has.
    Store(StoreError),
}

/// The broker's no to a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRefusal {
    reason: ReasonCode,
    text: Option<Arc<str>>,
    server_reference: Option<Arc<str>>,
}

impl ConnectRefusal {
    pub(crate) fn new(refused: ConnectRefused) -> Self {
        Self {
            reason: refused.reason,
            text: refused.reason_string.map(Arc::from),
            server_reference: refused.server_reference.map(Arc::from),
        }
    }

    pub(crate) fn wordless(reason: ReasonCode) -> Self {
        Self {
            reason,
            text: None,
            server_reference: None,
        }
    }

    /// The reason code. The return codes 1 to 5 of MQTT 3.1.1 appear as the codes of MQTT 5 that mean the same.
    #[must_use]
    pub fn reason(&self) -> ReasonCode {
        self.reason
    }

    /// The broker's own words (MQTT 5). Text from outside: show it, do not parse it.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Another server to use, as the broker names it (MQTT 5, its section 4.11). It is not followed: whoever can answer in
    /// the broker's place could have our credentials sent anywhere. Also text from outside.
    #[must_use]
    pub fn server_reference(&self) -> Option<&str> {
        self.server_reference.as_deref()
    }

    /// Whether the same CONNECT may be accepted later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.reason,
            ReasonCode::UnspecifiedError
                | ReasonCode::ImplementationSpecificError
                | ReasonCode::ServerUnavailable
                | ReasonCode::ServerBusy
                | ReasonCode::QuotaExceeded
                | ReasonCode::ConnectionRateExceeded
                | ReasonCode::UseAnotherServer
        )
    }
}

impl ConnectionError {
    /// Whether a new attempt may succeed without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_retryable(),
            Self::Store(_) => false,
            Self::Refused(refusal) => refusal.is_retryable(),
            // "Not authorized" may be about a packet; whether we are still let in, the next CONNACK says.
            Self::ServerDisconnect(reason) => !matches!(
                reason,
                ReasonCode::Banned | ReasonCode::BadAuthenticationMethod | ReasonCode::ServerMoved
            ),
            _ => true,
        }
    }

    /// Whether other credentials may be what is needed.
    pub(crate) fn blames_credentials(&self) -> bool {
        match self {
            Self::Connect(error) => error
                .refusal()
                .is_some_and(|refusal| matches!(refusal.status, 401 | 403)),
            Self::Refused(refusal) => matches!(
                refusal.reason,
                ReasonCode::BadUserNameOrPassword | ReasonCode::NotAuthorized
            ),
            Self::ServerDisconnect(reason) => *reason == ReasonCode::NotAuthorized,
            _ => false,
        }
    }

    /// Whether the broker wants us to go to another server.
    pub(crate) fn sends_elsewhere(&self) -> bool {
        matches!(
            self,
            Self::ServerDisconnect(ReasonCode::UseAnotherServer | ReasonCode::ServerMoved)
        )
    }

    /// Whether, and how, a new attempt may succeed, if nobody decides otherwise.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Connect(error) => error.retry(),
            _ if self.is_retryable() => Retry::Later,
            _ => Retry::Never,
        }
    }

    fn kind(&self) -> ProviderErrorKind {
        match self {
            Self::Connect(error) => match error.kind() {
                ConnectErrorKind::Timeout => ProviderErrorKind::TimedOut,
                ConnectErrorKind::Credentials => ProviderErrorKind::NotAuthenticated,
                ConnectErrorKind::Configuration => ProviderErrorKind::Invalid,
                ConnectErrorKind::Protocol => ProviderErrorKind::Protocol,
                ConnectErrorKind::Refused => match error.refusal().map(|refusal| refusal.status) {
                    Some(401) => ProviderErrorKind::NotAuthenticated,
                    Some(403) => ProviderErrorKind::NotAuthorized,
                    _ => ProviderErrorKind::Refused,
                },
                ConnectErrorKind::Resolve | ConnectErrorKind::Dial | ConnectErrorKind::Tls => {
                    ProviderErrorKind::NotConnected
                }
            },
            Self::Refused(refusal) => match refusal.reason {
                ReasonCode::BadUserNameOrPassword | ReasonCode::BadAuthenticationMethod => {
                    ProviderErrorKind::NotAuthenticated
                }
                ReasonCode::NotAuthorized | ReasonCode::Banned => ProviderErrorKind::NotAuthorized,
                ReasonCode::ClientIdentifierNotValid => ProviderErrorKind::Invalid,
                ReasonCode::UnsupportedProtocolVersion => ProviderErrorKind::Unsupported,
                ReasonCode::QuotaExceeded | ReasonCode::ConnectionRateExceeded => {
                    ProviderErrorKind::LimitExceeded
                }
                _ => ProviderErrorKind::Refused,
            },
            Self::ConnectTimeout => ProviderErrorKind::TimedOut,
            Self::Session(
                mqtt_session::ConnectionError::Malformed(_)
                | mqtt_session::ConnectionError::Protocol(_),
            ) => ProviderErrorKind::Protocol,
            Self::Session(mqtt_session::ConnectionError::Limit(_)) => {
                ProviderErrorKind::LimitExceeded
            }
            Self::ServerDisconnect(ReasonCode::NotAuthorized) => ProviderErrorKind::NotAuthorized,
            Self::TakenOver => ProviderErrorKind::TakenOver,
            Self::Store(_) => ProviderErrorKind::Other,
            Self::Transport(_)
            | Self::NoConnack(_)
            | Self::Session(_)
            | Self::ServerDisconnect(_)
            | Self::NetworkDown
            | Self::Renewal
            | Self::SlowSubscriber => ProviderErrorKind::ConnectionLost,
        }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(_) => f.write_str("connecting failed"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::ConnectTimeout => f.write_str("connecting took too long"),
            Self::Transport(_) => f.write_str("the connection was lost"),
            Self::NoConnack(_) => f.write_str(
                "the broker closed the connection in place of a CONNACK; perhaps it refuses us",
            ),
            Self::Session(_) => f.write_str("the connection was given up"),
            Self::ServerDisconnect(reason) => write!(f, "the broker disconnected: {reason}"),
            Self::TakenOver => {
                f.write_str("another client with the same client identifier takes over")
            }
            Self::NetworkDown => f.write_str("the host's network is down"),
            Self::Renewal => f.write_str("the connection is replaced ahead of its end"),
            Self::SlowSubscriber => f.write_str("dropped for a subscriber that is too slow"),
            Self::Store(_) => f.write_str("the session cannot be stored"),
        }
    }
}

impl StdError for ConnectionError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Connect(error) => Some(error.as_ref()),
            Self::Transport(error) | Self::NoConnack(error) => Some(error.as_ref()),
            Self::Session(error) => Some(error),
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ConnectError> for ConnectionError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Arc::new(error))
    }
}

impl From<TransportError> for ConnectionError {
    fn from(error: TransportError) -> Self {
        Self::Transport(Arc::new(error))
    }
}

impl From<ConnectionError> for ProviderError {
    fn from(error: ConnectionError) -> Self {
        let retry = if error.is_retryable() {
            pubsub_core::Retry::Worthwhile
        } else {
            pubsub_core::Retry::Pointless
        };
        Self::new(error.kind()).with_retry(retry).with_source(error)
    }
}

impl fmt::Display for ConnectRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the broker refused the connection: {}", self.reason)?;
        match &self.text {
            Some(text) => write!(f, ", saying: {text}"),
            None => Ok(()),
        }
    }
}

impl StdError for ConnectRefusal {}

/// The broker hung up each time that a publish or a filter was sent, the last time with nothing else to blame. It is set
/// aside, so that the others go on; whether a publish was carried out is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HungUpOn;

impl fmt::Display for HungUpOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the broker hung up each time that this was sent; it is set aside")
    }
}

impl StdError for HungUpOn {}

/// A publish was dropped unsent, because the queue was full and newer ones came: see
/// [`OfflineOverflow::DropOldest`](crate::OfflineOverflow::DropOldest). It is the source of the error that it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Displaced;

impl fmt::Display for Displaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a newer message took its place in the queue")
    }
}

impl StdError for Displaced {}

/// What of a [`Limits`](crate::Limits) a call would exceed. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitExceeded {
    /// A quality of service above the highest allowed.
    QoS {
        /// The highest allowed.
        max: QoS,
    },
    /// A topic or filter that is too long.
    Topic {
        /// How many bytes it may have.
        max_bytes: usize,
    },
    /// A payload that is too large.
    Payload {
        /// How many bytes it may have.
        max_bytes: usize,
    },
}

impl fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QoS { max } => write!(
                f,
                "the quality of service is above {max:?}, the highest allowed"
            ),
            Self::Topic { max_bytes } => {
                write!(f, "the topic has more than the {max_bytes} bytes allowed")
            }
            Self::Payload { max_bytes } => {
                write!(f, "the payload has more than the {max_bytes} bytes allowed")
            }
        }
    }
}

impl StdError for LimitExceeded {}

impl From<LimitExceeded> for ProviderError {
    fn from(error: LimitExceeded) -> Self {
        let kind = match error {
            LimitExceeded::QoS { .. } => ProviderErrorKind::Unsupported,
            _ => ProviderErrorKind::LimitExceeded,
        };
        // The same call will exceed it next time.
        Self::new(kind)
            .with_retry(pubsub_core::Retry::Pointless)
            .with_source(error)
    }
}
