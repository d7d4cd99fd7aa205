//! What the session reports, and the names of what it reports on.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use mqtt_codec::{DecodeError, Properties, QoS, ReasonCode, TopicName};

use crate::config::Redacted;
use crate::error::{ConnectionError, PublishErrorReason};
use crate::publish::Retain;
use crate::subscribe::{Resubscribed, SubscribeResult, UnsubscribeResult};

/// Names a publish that was accepted. Never used twice by one [`Session`](crate::Session); later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishId(pub(crate) u64);

impl PublishId {
    /// The number, for a store.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The identifier with this number, from a store.
    #[must_use]
    pub const fn from_value(value: u64) -> Self {
        Self(value)
    }
}

/// Names a `subscribe` call that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscribeId(pub(crate) u64);

/// Names an `unsubscribe` call that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnsubscribeId(pub(crate) u64);

/// Something that happened. Taken one by one from [`Session::poll_event`](crate::Session::poll_event), in order.
///
/// Lifecycle events come in pairs: each [`transport_opened`](crate::Session::transport_opened) that succeeds is followed by
/// exactly one [`ConnectRefused`](Self::ConnectRefused) or [`Disconnected`](Self::Disconnected), and by at most one
/// [`Connected`](Self::Connected) before that. Every accepted publish, subscribe and unsubscribe call completes exactly
/// once, for as long as the session lives.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The broker accepted the connection.
    Connected(Box<Connected>),
    /// The broker refused the connection. Write what `poll_transmit` still has, then close the transport.
    ConnectRefused(Box<ConnectRefused>),
    /// The Network Connection is over. Write what `poll_transmit` still has (a DISCONNECT, perhaps), then close the
    /// transport if it is still open.
    Disconnected(Box<Disconnected>),
    /// A message arrived.
    Message(Message),
    /// A message came that could not be taken. The broker has been told not to send it again.
    MessageSkipped(Box<SkippedMessage>),
    /// A QoS 1 or 2 publish is stored: it outlives this process
    /// ([`Config::persistence`](crate::Config::persistence) only).
    PublishStored {
        /// Which one.
        id: PublishId,
    },
    /// A QoS 1 or 2 publish was handed out by `poll_transmit` for the first time.
    PublishWritten {
        /// Which one.
        id: PublishId,
    },
    /// The broker took charge of a QoS 2 publish (PUBREC). It will not be sent again; PUBCOMP follows.
    PublishReceived {
        /// Which one.
        id: PublishId,
        /// With which reason (before 5.0 always success).
        reason: ReasonCode,
    },
    /// A publish came to its end.
    PublishCompleted {
        /// Which one.
        id: PublishId,
        /// Which end.
        outcome: PublishOutcome,
    },
    /// A `subscribe` call is settled for every one of its filters.
    SubscribeCompleted {
        /// Which one.
        id: SubscribeId,
        /// One result per filter, in the order of the call.
        results: Vec<SubscribeResult>,
    },
    /// An `unsubscribe` call is settled for every one of its filters.
    UnsubscribeCompleted {
        /// Which one.
        id: UnsubscribeId,
        /// One result per filter, in the order of the call.
        results: Vec<UnsubscribeResult>,
    },
    /// The session's subscriptions were sent again after a reconnect and are settled. A filter that was refused now is no
    /// longer a subscription of the session.
    Resubscribed(Resubscribed),
    /// The broker goes on with the authentication exchange; answer with
    /// [`authenticate`](crate::Session::authenticate).
    AuthChallenge(AuthData),
    /// The broker ended a re-authentication with success.
    Reauthenticated(AuthData),
    /// A PINGREQ was answered.
    Pong {
        /// How long it took.
        round_trip: Duration,
    },
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishOutcome {
    /// QoS 0: handed to the transport. Nothing more will be known.
    Written,
    /// QoS 1 and 2: the broker has it (PUBACK, PUBCOMP), with this reason. Not that anybody received it:
    /// [`ReasonCode::NoMatchingSubscribers`] may say that nobody could.
    Delivered(ReasonCode),
    /// The broker refused it, with this reason (5.0). Sending it again is no use unless something changes.
    Rejected(ReasonCode),
    /// It was sent, and whether the broker has it cannot be known.
    Indeterminate(Indeterminate),
    /// It was not sent: its time had come before its turn.
    Expired,
    /// It was not sent: the broker that it waited for does not take such a message.
    NotSent(PublishErrorReason),
    /// It was in flight, the last time alone, at as many consecutive disconnects as
    /// [`Config::quarantine_after`](crate::Config::quarantine_after) allows. It is not sent again; the broker may have it.
    Quarantined,
}

/// Why nobody can know what became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Indeterminate {
    /// The broker lost the session before it acknowledged the message, and
    /// [`Config::in_flight_on_lost_session`](crate::Config::in_flight_on_lost_session) forbids to send it anew.
    SessionLost,
    /// The broker lost the session between PUBREC and PUBCOMP.
    SessionLostAfterReceived,
    /// The broker did not know the identifier of a PUBREL (0x92).
    NotFound,
    /// It was sent before, and expired before it could be sent anew.
    ExpiredAfterSent,
    /// It was sent before, and the broker of the new connection does not take such a message any more.
    RefusedAfterSent,
}

/// The broker accepted the connection: what it said, and what holds now.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Connected {
    /// Whether the broker still had the session.
    pub session: SessionPresence,
    /// The limits that hold for this connection.
    pub limits: BrokerLimits,
    /// The Keep Alive in effect, the broker's if it named one. Zero: none.
    pub keep_alive: Duration,
    /// How long the broker will keep the session (5.0; [`Duration::MAX`] means for ever). Zero: it ends with the connection.
    pub session_expiry: Duration,
    /// The Client Identifier that the broker assigned, if it did.
    pub assigned_client_id: Option<String>,
    /// Where to build response topics, if the broker said so.
    pub response_information: Option<String>,
    /// Another server to use, if the broker named one.
    pub server_reference: Option<String>,
    /// What the broker had to say.
    pub reason_string: Option<String>,
    /// The user properties of the CONNACK.
    pub user_properties: Vec<(String, String)>,
    /// The Authentication Data of the CONNACK. Secret.
    pub authentication: Option<AuthData>,
}

/// Whether the broker still had the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionPresence {
    /// It did: what was in flight goes on, subscriptions stand.
    Resumed,
    /// There was none before.
    New,
    /// There was one before, and it is gone: messages may have been missed, subscriptions are sent again.
    Lost,
}

/// What the broker allows on this connection. Before 5.0: what the protocol allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerLimits {
    /// How many QoS 1 and 2 publishes may be unacknowledged: the broker's Receive Maximum or
    /// [`Config::max_in_flight`](crate::Config::max_in_flight), whichever is less.
    pub in_flight: u16,
    /// The largest packet, in bytes.
    pub maximum_packet_size: u32,
    /// The highest QoS of a publish.
    pub maximum_qos: QoS,
    /// Whether it keeps retained messages.
    pub retain: Availability,
    /// Whether filters may have wildcards.
    pub wildcard_subscriptions: Availability,
    /// Whether it knows Subscription Identifiers.
    pub subscription_identifiers: Availability,
    /// Whether it knows shared subscriptions.
    pub shared_subscriptions: Availability,
    /// How many Topic Aliases we may bind: the broker's maximum or
    /// [`Config::max_outbound_aliases`](crate::Config::max_outbound_aliases), whichever is less.
    pub topic_aliases: u16,
}

/// Whether the broker supports something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "one bit")]
pub enum Availability {
    /// It does.
    Available,
    /// It does not.
    Unavailable,
}

impl Availability {
    pub(crate) const fn from_bit(bit: bool) -> Self {
        if bit {
            Self::Available
        } else {
            Self::Unavailable
        }
    }

    /// Whether this is [`Availability::Available`].
    #[must_use]
    pub const fn is_available(self) -> bool {
        matches!(self, Self::Available)
    }
}

/// The broker refused the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectRefused {
    /// Why. The return codes of 3.1 and 3.1.1 are mapped to the reason codes of 5.0 with the same meaning.
    pub reason: ReasonCode,
    /// What the broker had to say.
    pub reason_string: Option<String>,
    /// Another server to use, if the broker named one.
    pub server_reference: Option<String>,
    /// The user properties of the CONNACK.
    pub user_properties: Vec<(String, String)>,
}

/// The Network Connection is over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disconnected {
    /// Why.
    pub cause: DisconnectCause,
    /// How far it had come.
    pub stage: ConnectionStage,
}

/// How far a Network Connection had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionStage {
    /// The transport was open, the broker had not accepted yet.
    Connecting,
    /// The broker had accepted.
    Connected,
}

/// Why a Network Connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DisconnectCause {
    /// [`disconnect`](crate::Session::disconnect) was called, and the DISCONNECT has been handed out.
    Requested,
    /// The broker sent a DISCONNECT (5.0).
    Server(ServerDisconnect),
    /// The transport ended.
    Transport(TransportEnd),
    /// The connection could not go on.
    Error(ConnectionError),
}

/// A DISCONNECT of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerDisconnect {
    /// Why. [`ReasonCode::SessionTakenOver`]: another client uses the same identifier.
    pub reason: ReasonCode,
    /// What the broker had to say.
    pub reason_string: Option<String>,
    /// Another server to use, if the broker named one.
    pub server_reference: Option<String>,
    /// The user properties of the DISCONNECT.
    pub user_properties: Vec<(String, String)>,
}

/// How a transport ended, as the driver saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportEnd {
    /// The peer closed or reset it. It may have hung up because of what was in flight, see
    /// [`Config::quarantine_after`](crate::Config::quarantine_after).
    ClosedByPeer,
    /// It failed for reasons that do not accuse anything that was in flight: no route, a timeout, TLS.
    Failed,
    /// The driver closed it.
    ClosedLocally,
}

/// A message that arrived.
///
/// It keeps the bytes that it came in alive, as do the slices taken from it.
pub struct Message {
    pub(crate) publish: mqtt_codec::Publish,
    /// The topic, where an alias stood for it.
    pub(crate) alias_topic: Option<Arc<str>>,
    pub(crate) ack: Option<AckToken>,
}

/// Who takes the messages of [`Session::handle_input_with`](crate::Session::handle_input_with).
///
/// Every function of a message is one. A type of one's own may have [`message`](Self::message) inlined, which spares the
/// message the way through memory.
pub trait Recipient {
    /// Takes the next message.
    fn message(&mut self, message: Message);
}

impl<F: FnMut(Message)> Recipient for F {
    #[inline]
    fn message(&mut self, message: Message) {
        self(message);
    }
}

/// A message that could not be taken, and is lost to this client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkippedMessage {
    /// The Topic Name as it came: empty if an alias stood for it, and with replacement characters where it is not UTF-8.
    pub topic: String,
    /// The size of the packet, in bytes.
    pub packet_len: usize,
    /// Its QoS.
    pub qos: QoS,
    /// Why it could not be taken.
    pub reason: SkipReason,
}

/// Why a message could not be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// It is larger than [`Config::maximum_packet_size`](crate::Config::maximum_packet_size).
    TooLarge,
    /// It was malformed in this way as often as [`Config::quarantine_after`](crate::Config::quarantine_after) allows; each
    /// time before, the connection was ended over it.
    Undecodable(DecodeError),
}

/// Whether a message may have been delivered before. Not a means to tell duplicates: QoS 2 has none, and a QoS 1 message
/// seen for the first time can be marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "one bit")]
pub enum Dup {
    /// The first attempt.
    No,
    /// A further attempt.
    Yes,
}

/// The right to acknowledge one QoS 1 or QoS 2 message, once.
///
/// It belongs to the Network Connection (QoS 1: the broker sends an unacknowledged message again after a reconnect) or to
/// the Session (QoS 2: the message is not reported again after a reconnect, so the token stays good). A token that has
/// lost its meaning is inert: using it sends nothing. A token that is dropped leaves the message unacknowledged.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a message that is never acknowledged takes up the window until the connection ends"]
pub struct AckToken {
    pub(crate) qos: AckQoS,
    /// QoS 1: of the Network Connection. QoS 2: of the Session.
    pub(crate) epoch: u32,
    pub(crate) sequence: u64,
    pub(crate) packet_id: mqtt_codec::PacketId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AckQoS {
    One,
    Two,
}

/// Whether using an [`AckToken`] had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "it had or it had not")]
pub enum Acknowledged {
    /// The acknowledgement will be sent in its turn.
    Accepted,
    /// The connection (QoS 1) or session (QoS 2) of the message is gone. Nothing will be sent.
    Stale,
}

/// Data of an authentication exchange. Never printed.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthData {
    /// The Authentication Data.
    pub data: Option<Bytes>,
    /// What the broker had to say.
    pub reason_string: Option<String>,
}

impl fmt::Debug for AuthData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthData")
            .field("data", &self.data.as_ref().map(|_| Redacted))
            .field("reason_string", &self.reason_string)
            .finish()
    }
}

impl Message {
    /// The Topic Name, in full also where the broker sent an alias for it.
    #[must_use]
    pub fn topic(&self) -> TopicName<'_> {
        match &self.alias_topic {
            Some(topic) => TopicName::new(topic).unwrap_or_default(),
            None => self.publish.topic_name(),
        }
    }

    /// The Topic Name as text.
    #[must_use]
    pub fn topic_str(&self) -> &str {
        match &self.alias_topic {
            Some(topic) => topic,
            None => self.publish.topic(),
        }
    }

    /// The Topic Name as checked UTF-8, without the check that a `&str` costs.
    #[must_use]
    #[inline]
    pub fn topic_bytes(&self) -> &[u8] {
        match &self.alias_topic {
            Some(topic) => topic.as_bytes(),
            None => self.publish.topic_name().as_bytes(),
        }
    }

    /// Whether the Topic Name is this one.
    #[must_use]
    #[inline(always)]
    pub fn topic_is(&self, topic: &str) -> bool {
        match &self.alias_topic {
            Some(own) => **own == *topic,
            None => self.publish.topic_name() == *topic,
        }
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.publish.payload()
    }

    /// The payload, sharing the memory that it came in.
    ///
    /// A small payload kept for long pins the whole receive buffer; `Bytes::copy_from_slice(message.payload())` does not.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        self.publish.payload_bytes()
    }

    /// The payload, as [`payload_bytes`](Self::payload_bytes), without counting handles.
    #[must_use]
    #[inline(always)]
    pub fn into_payload(self) -> Bytes {
        self.publish.into_payload()
    }

    /// How often it was meant to arrive.
    #[must_use]
    #[inline]
    pub const fn qos(&self) -> QoS {
        self.publish.qos()
    }

    /// Whether it was sent because the broker had kept it (or its publisher asked for that, see
    /// [`RetainAsPublished`](crate::RetainAsPublished)).
    #[must_use]
    #[inline]
    pub const fn retain(&self) -> Retain {
        Retain::from_bit(self.publish.retain())
    }

    /// Whether the broker marked it as a repetition.
    #[must_use]
    #[inline]
    pub const fn dup(&self) -> Dup {
        if self.publish.dup() {
            Dup::Yes
        } else {
            Dup::No
        }
    }

    /// The properties (5.0), read lazily. A Topic Alias among them has been dealt with.
    #[must_use]
    #[inline]
    pub fn properties(&self) -> Properties<'_> {
        self.publish.properties()
    }

    /// Takes the right to acknowledge: present once, at QoS 1 and 2.
    #[inline]
    pub const fn take_ack_token(&mut self) -> Option<AckToken> {
        self.ack.take()
    }
}

impl fmt::Debug for Message {
    /// Without the payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic_str())
            .field("payload_len", &self.payload().len())
            .field("qos", &self.qos())
            .field("retain", &self.retain())
            .field("dup", &self.dup())
            .finish_non_exhaustive()
    }
}

const _: () = assert!(size_of::<Event>() <= 128);
