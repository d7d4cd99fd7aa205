//! Errors, by blame: bytes that are not MQTT, a peer that broke a rule, a limit of ours, a caller's mistake.

use core::fmt;

use mqtt_codec::{DecodeError, QoS, ReasonCode};

use crate::publish::Publish;

/// Why the Network Connection cannot go on.
///
/// Whoever is to blame, the session itself is intact: open a new transport and go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer sent bytes that are not MQTT, or a packet larger than was announced.
    Malformed(DecodeError),
    /// The peer broke a rule of the protocol.
    Protocol(ProtocolViolation),
    /// The peer was silent for too long.
    Timeout(Timeout),
    /// A bound of [`Config`](crate::Config) was reached.
    Limit(LocalLimit),
}

impl ConnectionError {
    /// The reason code that the DISCONNECT carries (5.0). `None` if none is sent.
    #[must_use]
    pub fn reason_code(self) -> Option<ReasonCode> {
        match self {
            Self::Malformed(error) => Some(error.reason_code()),
            Self::Protocol(violation) => Some(violation.reason_code()),
            Self::Timeout(_) => None,
            Self::Limit(limit) => Some(limit.reason_code()),
        }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(_) => f.write_str("the broker sent a malformed packet"),
            Self::Protocol(_) => f.write_str("the broker broke a rule of MQTT"),
            Self::Timeout(timeout) => fmt::Display::fmt(timeout, f),
            Self::Limit(limit) => fmt::Display::fmt(limit, f),
        }
    }
}

impl core::error::Error for ConnectionError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Malformed(error) => Some(error),
            Self::Protocol(violation) => Some(violation),
            Self::Timeout(_) | Self::Limit(_) => None,
        }
    }
}

/// A rule that the peer broke, one variant for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolViolation {
    /// The first packet was not a CONNACK (MQTT-3.2.0-1) nor, in an authentication exchange, an AUTH.
    NotConnack,
    /// A second CONNACK (MQTT-3.2.0-2).
    SecondConnack,
    /// A packet that only a client sends.
    ClientPacket,
    /// Session Present although a new session was asked for (MQTT-3.2.2-2).
    SessionPresentOnCleanStart,
    /// Session Present although nothing is known here of a session (MQTT-3.2.2-4).
    SessionPresentWithoutState,
    /// More unacknowledged messages than the Receive Maximum that we announced (MQTT-3.3.4-9).
    ReceiveMaximumExceeded,
    /// A Topic Alias of zero or above the maximum that we announced (MQTT-3.3.2-8, MQTT-3.3.2-11).
    TopicAliasInvalid,
    /// An empty Topic Name with a Topic Alias that is not bound (section 3.3.4).
    TopicAliasUnknown,
    /// An acknowledgement that does not belong to the QoS or the stage of the message with its identifier.
    WrongAcknowledgement,
    /// A SUBACK or UNSUBACK with more or fewer reason codes than the packet that it answers had filters (MQTT-3.9.3-1).
    WrongNumberOfReasonCodes,
    /// An AUTH outside of an authentication exchange.
    UnexpectedAuth,
    /// An AUTH or a CONNACK with another Authentication Method than ours (MQTT-4.12.0-5).
    AuthenticationMethodChanged,
}

impl ProtocolViolation {
    /// The reason code that tells the peer.
    #[must_use]
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::ReceiveMaximumExceeded => ReasonCode::ReceiveMaximumExceeded,
            Self::TopicAliasInvalid => ReasonCode::TopicAliasInvalid,
            _ => ReasonCode::ProtocolError,
        }
    }
}

impl fmt::Display for ProtocolViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotConnack => "the first packet was not a CONNACK",
            Self::SecondConnack => "a second CONNACK",
            Self::ClientPacket => "a packet that only a client may send",
            Self::SessionPresentOnCleanStart => {
                "a session was resumed although a new one was asked for"
            }
            Self::SessionPresentWithoutState => "a session was resumed that is not known here",
            Self::ReceiveMaximumExceeded => {
                "more messages in flight than the announced Receive Maximum"
            }
            Self::TopicAliasInvalid => "a Topic Alias out of range",
            Self::TopicAliasUnknown => "a Topic Alias that is not bound to a topic",
            Self::WrongAcknowledgement => {
                "an acknowledgement of the wrong kind for its packet identifier"
            }
            Self::WrongNumberOfReasonCodes => "another number of reason codes than filters",
            Self::UnexpectedAuth => "an AUTH packet outside of an authentication exchange",
            Self::AuthenticationMethodChanged => {
                "another Authentication Method than the CONNECT named"
            }
        })
    }
}

impl core::error::Error for ProtocolViolation {}

/// What took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timeout {
    /// No CONNACK within [`Config::connack_timeout`](crate::Config::connack_timeout).
    Connack,
    /// Nothing received within [`Config::ping_timeout`](crate::Config::ping_timeout) of a PINGREQ.
    Ping,
    /// No answer to a SUBSCRIBE that left [before the CONNACK](crate::Config::subscribe_before_connack), within
    /// [`Config::connack_timeout`](crate::Config::connack_timeout) of that. It may have been thrown away; the next connection
    /// waits with it.
    Suback,
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connack => "the broker did not answer the CONNECT in time",
            Self::Ping => "the broker did not answer a PINGREQ in time",
            Self::Suback => "the broker did not answer in time to a SUBSCRIBE before its CONNACK",
        })
    }
}

/// A bound of the configuration that the Network Connection cannot go past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalLimit {
    /// [`Config::max_held_messages`](crate::Config::max_held_messages).
    HeldMessages,
    /// [`Config::max_held_bytes`](crate::Config::max_held_bytes).
    HeldBytes,
    /// [`Config::max_pending_replies`](crate::Config::max_pending_replies).
    PendingReplies,
}

impl LocalLimit {
    /// The reason code that tells the peer.
    #[must_use]
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::HeldMessages | Self::HeldBytes => ReasonCode::QuotaExceeded,
            Self::PendingReplies => ReasonCode::MessageRateTooHigh,
        }
    }
}

impl fmt::Display for LocalLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeldMessages => "too many messages wait to be acknowledged",
            Self::HeldBytes => "the messages that wait to be acknowledged are too large",
            Self::PendingReplies => "too many replies wait for the broker to read",
        })
    }
}

/// A publish that was not accepted. It hands the message back, and nothing of it was sent.
#[derive(Clone, PartialEq, Eq)]
pub struct PublishError {
    reason: PublishErrorReason,
    publish: Box<Publish>,
}

impl PublishError {
    pub(crate) fn new(reason: PublishErrorReason, publish: Publish) -> Self {
        Self {
            reason,
            publish: Box::new(publish),
        }
    }

    /// What is wrong with it.
    #[must_use]
    pub const fn reason(&self) -> PublishErrorReason {
        self.reason
    }

    /// The message itself.
    #[must_use]
    pub fn into_publish(self) -> Publish {
        *self.publish
    }
}

impl fmt::Debug for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishError")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)
    }
}

impl core::error::Error for PublishError {}

/// Why a message cannot be published, now or ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishErrorReason {
    /// Not a Topic Name: empty, longer than 65,535 bytes, or with a wildcard or U+0000.
    InvalidTopic,
    /// A property is longer than 65,535 bytes, holds U+0000, or is a response topic with a wildcard.
    InvalidProperty,
    /// Properties need MQTT 5.
    PropertiesNeedV5,
    /// The broker's Maximum QoS is this.
    QosNotSupported(QoS),
    /// The broker does not take retained messages.
    RetainNotSupported,
    /// The packet would be larger than the broker (or MQTT itself) allows.
    TooLarge {
        /// The size of the packet, in bytes.
        size: usize,
        /// The broker's Maximum Packet Size.
        maximum: usize,
    },
    /// The packet alone would exceed [`Config::max_outbound_bytes`](crate::Config::max_outbound_bytes).
    LargerThanQueue {
        /// The size of the packet, in bytes.
        size: usize,
        /// That bound.
        maximum: usize,
    },
    /// [`Config::max_queued_messages`](crate::Config::max_queued_messages) wait already. Try again after some were sent.
    TooManyQueued,
    /// [`Config::max_outbound_bytes`](crate::Config::max_outbound_bytes) would be exceeded. Try again after some were sent.
    TooManyBytes,
    /// Its expiry is zero.
    Expired,
}

impl PublishErrorReason {
    /// Whether the same message may be accepted later.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        matches!(self, Self::TooManyQueued | Self::TooManyBytes)
    }
}

impl fmt::Display for PublishErrorReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidTopic => f.write_str("the topic is not a Topic Name"),
            Self::InvalidProperty => f.write_str("a property of the message is not valid"),
            Self::PropertiesNeedV5 => f.write_str("message properties need MQTT 5"),
            Self::QosNotSupported(max) => write!(f, "the broker supports QoS up to {}", *max as u8),
            Self::RetainNotSupported => {
                f.write_str("the broker does not support retained messages")
            }
            Self::TooLarge { size, maximum } => write!(
                f,
                "the packet has {size} bytes, the broker accepts {maximum}"
            ),
            Self::LargerThanQueue { size, maximum } => write!(
                f,
                "the packet has {size} bytes, the whole queue may have {maximum}"
            ),
            Self::TooManyQueued => f.write_str("too many messages wait to be sent"),
            Self::TooManyBytes => f.write_str("the messages that wait to be sent are too large"),
            Self::Expired => f.write_str("the message has expired"),
        }
    }
}

/// Why a `subscribe` or `unsubscribe` call was not accepted. Nothing of it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// An empty list of filters.
    NoFilters,
    /// The filter at this index is not a Topic Filter.
    InvalidFilter {
        /// Its place in the list.
        index: usize,
    },
    /// The broker does not support shared subscriptions, or the filter at this index is shared and sets No Local.
    SharedNotSupported {
        /// Its place in the list.
        index: usize,
    },
    /// The broker does not support wildcards in filters.
    WildcardsNotSupported {
        /// Its place in the list.
        index: usize,
    },
    /// The filter at this index is too long for the broker's Maximum Packet Size.
    TooLarge {
        /// Its place in the list.
        index: usize,
    },
    /// The broker does not support Subscription Identifiers, or the version has none.
    SubscriptionIdsNotSupported,
    /// An option other than QoS needs MQTT 5.
    OptionsNeedV5 {
        /// Its place in the list.
        index: usize,
    },
    /// [`Config::max_subscriptions`](crate::Config::max_subscriptions) would be exceeded.
    TooManySubscriptions,
    /// [`Config::max_pending_operations`](crate::Config::max_pending_operations) calls are not completed, or twice as many
    /// filters wait to be sent as there may be subscriptions.
    TooManyPending,
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFilters => f.write_str("no Topic Filter was given"),
            Self::InvalidFilter { index } => write!(f, "filter {index} is not a Topic Filter"),
            Self::SharedNotSupported { index } => write!(
                f,
                "filter {index}: this shared subscription is not supported"
            ),
            Self::WildcardsNotSupported { index } => {
                write!(f, "filter {index}: the broker does not support wildcards")
            }
            Self::TooLarge { index } => write!(f, "filter {index} is too long for the broker"),
            Self::SubscriptionIdsNotSupported => {
                f.write_str("Subscription Identifiers are not supported")
            }
            Self::OptionsNeedV5 { index } => write!(f, "filter {index}: its options need MQTT 5"),
            Self::TooManySubscriptions => f.write_str("too many subscriptions"),
            Self::TooManyPending => {
                f.write_str("too many subscribe and unsubscribe calls are not completed")
            }
        }
    }
}

impl core::error::Error for SubscribeError {}

/// A command that makes no sense in the present state. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateError {
    /// A transport is open already; report its end first.
    TransportOpen,
    /// There is no connection.
    NotConnected,
    /// No authentication exchange is going on, or none was configured.
    NoAuthentication,
    /// The version of the protocol has no such packet or option.
    NeedsV5,
    /// The CONNECT said that the session ends with the connection; that cannot be changed any more (MQTT-3.1.2-23).
    SessionExpiryWasZero,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TransportOpen => "a transport is open already",
            Self::NotConnected => "there is no connection",
            Self::NoAuthentication => "no authentication exchange is going on",
            Self::NeedsV5 => "this needs MQTT 5",
            Self::SessionExpiryWasZero => {
                "a Session Expiry of zero cannot be changed on disconnect"
            }
        })
    }
}

impl core::error::Error for StateError {}

// Errors are returned by value on hot paths.
const _: () = assert!(
    size_of::<ConnectionError>() <= 8
        && size_of::<SubscribeError>() <= 16
        && size_of::<PublishError>() <= 32
);
