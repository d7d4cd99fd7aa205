//! Everything that is settled before the first CONNECT, and every bound of the session.

use core::fmt;
use core::num::{NonZeroU8, NonZeroU16};
use core::time::Duration;

use bytes::Bytes;
use mqtt_codec::{ProtocolVersion, QoS};

use crate::pace::PublishPace;
use crate::publish::PublishProperties;

/// How a [`Session`](crate::Session) connects and what it may use up.
///
/// Made by [`Config::new`] and then changed field by field. [`Session::new`](crate::Session::new) checks it.
///
/// ```
/// use core::time::Duration;
/// use mqtt_codec::ProtocolVersion;
/// use mqtt_session::{CleanStart, Config};
///
/// let mut config = Config::new(ProtocolVersion::V5, "greenhouse-7");
/// config.clean_start = CleanStart::OnFirst;
/// config.session_expiry = Duration::from_secs(3600);
/// config.keep_alive = Duration::from_secs(30);
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The version of the protocol to speak.
    pub version: ProtocolVersion,
    /// The Client Identifier. Empty asks the broker to assign one (5.0), or for a session without a name (3.1.1, with
    /// [`CleanStart::Always`] only). In 3.1: 1 to 23 bytes.
    pub client_id: String,
    /// What to do with an identifier that the broker assigned. Default: [`AssignedClientId::Keep`].
    pub assigned_client_id: AssignedClientId,
    /// The User Name. Default: none.
    pub username: Option<String>,
    /// The Password. Never printed. Before 5.0 it needs a user name. Default: none.
    pub password: Option<Bytes>,
    /// The Will. Default: none.
    pub will: Option<Will>,
    /// Enhanced authentication (5.0). Default: none.
    pub authentication: Option<Authentication>,
    /// User Properties of the CONNECT (5.0). Default: none.
    pub user_properties: Vec<(String, String)>,
    /// Whether the broker may send response information in its CONNACK (5.0). Default: not asked for.
    pub response_information: ResponseInformation,

    /// The longest silence in either direction. Zero switches Keep Alive off. Whole seconds up to 65,535; the broker may
    /// impose another value (5.0). Default: 60 s, which keeps most address translators open.
    pub keep_alive: Duration,
    /// How long after a PINGREQ nothing may be heard before the peer counts as dead. Default: 10 s, a slow mobile round
    /// trip several times over. A half-open connection is noticed within `keep_alive` + `ping_timeout`.
    pub ping_timeout: Duration,
    /// How long after the transport opened the CONNACK may take. Default: 10 s.
    pub connack_timeout: Duration,

    /// When to ask for a new session. Default: [`CleanStart::Always`].
    pub clean_start: CleanStart,
    /// How long the broker should keep the session after the connection is gone (5.0; earlier versions keep it for ever
    /// unless `clean_start` is [`CleanStart::Always`]). Whole seconds; [`Duration::MAX`] means for ever. Default: zero.
    pub session_expiry: Duration,
    /// What to do when the broker resumes a session of which nothing is known here. Default: [`BrokerOnlySession::Refuse`].
    pub broker_only_session: BrokerOnlySession,
    /// What becomes of publishes in flight when the broker lost the session. Default: [`InFlightOnLostSession::ResendAtLeastOnce`].
    pub in_flight_on_lost_session: InFlightOnLostSession,
    /// Whether the session gives out records of what must outlive the process. Default: [`Persistence::Off`].
    pub persistence: Persistence,
    /// When the subscriptions are sent again after a reconnect. Default: [`Resubscribe::WhenSessionLost`].
    pub resubscribe: Resubscribe,
    /// Whether the broker repeats retained messages on a resubscribe (5.0). Default: [`ResubscribeRetained::Never`].
    pub resubscribe_retained: ResubscribeRetained,
    /// Whether SUBSCRIBE may leave right behind CONNECT, a round trip earlier. Default:
    /// [`SubscribeBeforeConnack::WhenCertain`].
    pub subscribe_before_connack: SubscribeBeforeConnack,

    /// The Receive Maximum announced to the broker (5.0): how many QoS 1 and 2 messages it may have unacknowledged.
    /// Default: 256; at ten round trips a second that is 2,560 messages a second, and as many places in the table of held
    /// messages.
    pub receive_maximum: NonZeroU16,
    /// What to do with a broker that sends more than that. Default: [`ReceiveOverrun::Disconnect`].
    pub receive_overrun: ReceiveOverrun,
    /// The most QoS 1 and 2 messages that may be unacknowledged in versions without a Receive Maximum, and where a broker
    /// [may overrun](ReceiveOverrun::Tolerate) the one that it was told. Past it the Network
    /// Connection is dropped ([`LocalLimit::HeldMessages`](crate::LocalLimit::HeldMessages)) and the broker sends them
    /// again later. Default: 4,096, well above the windows that brokers use (mosquitto 20, EMQX 32).
    pub max_held_messages: u16,
    /// The most bytes (topic and payload) that unacknowledged messages may hold. Past it the Network Connection is
    /// dropped, in every version. Default: 32 MiB.
    pub max_held_bytes: usize,
    /// The largest packet accepted, announced to the broker in 5.0. Default: 1 MiB, eight times the largest message of
    /// AWS IoT. At least 64.
    pub maximum_packet_size: u32,
    /// What to do with a message that is larger than that. Default: [`OversizedInbound::Skip`].
    pub oversized_inbound: OversizedInbound,
    /// How many aliases the broker may bind (5.0). Each may pin one topic of up to 64 KiB. Default: 16.
    pub topic_alias_maximum: u16,

    /// How many aliases to bind ourselves, if the broker allows as many (5.0). Default: 16; zero switches them off.
    pub max_outbound_aliases: u16,
    /// The most QoS 1 and 2 publishes in flight at once; the broker's Receive Maximum may be lower. Default: 100, AWS
    /// IoT's own limit.
    pub max_in_flight: NonZeroU16,
    /// Before MQTT 5: with this many publishes in flight no QoS 2 publish joins them. Default: 19.
    ///
    /// Such a broker cannot say what it takes, and it may not refuse what is too much: mosquitto 2.0 confirms, and throws
    /// away, what comes while 20 QoS 2 publishes (its `max_inflight_messages`) are in flight. One place is left to QoS 1.
    pub max_in_flight_qos2: NonZeroU16,
    /// How fast publishes leave. Default: as fast as the windows allow. Some services throw away what comes faster.
    pub publish_pace: Option<PublishPace>,
    /// The most publishes waiting to be sent. Default: 1,024.
    pub max_queued_messages: usize,
    /// The most bytes (topic, payload and properties) of publishes waiting or in flight. Default: 16 MiB.
    pub max_outbound_bytes: usize,
    /// How many publishes are sent again at once after a reconnect. The window starts at one and doubles with each
    /// acknowledgement up to this. Default: 16, so that a backlog does not saturate a thin link.
    pub replay_window: NonZeroU16,
    /// After how many consecutive disconnects with the same publish or filter in flight it is set aside instead of sent
    /// again. The last of them must have had it alone in flight, so that its neighbours are not blamed. Default: 2.
    pub quarantine_after: NonZeroU8,

    /// The most Topic Filters in one SUBSCRIBE or UNSUBSCRIBE; a longer list is split. Default: 32. AWS IoT allows 8.
    pub max_filters_per_packet: NonZeroU16,
    /// The most Topic Filters subscribed at once. Default: 4,096.
    pub max_subscriptions: usize,
    /// The most `subscribe` and `unsubscribe` calls that are not completed. Default: 256. The filters that wait in them are
    /// bounded too, by twice `max_subscriptions`.
    pub max_pending_operations: usize,

    /// Events that may wait for [`poll_event`](crate::Session::poll_event) before
    /// [`handle_input`](crate::Session::handle_input) leaves the rest of its input for the next call. Default: 1,024.
    pub max_pending_events: usize,
    /// Replies (PUBREC, PUBREL, PUBCOMP) to the peer that may wait for the socket. A peer that sends but does not read is
    /// dropped beyond this. Default: 4,096 replies of four bytes.
    pub max_pending_replies: usize,
}

impl Config {
    /// The defaults for a client of this name.
    pub fn new(version: ProtocolVersion, client_id: impl Into<String>) -> Self {
        Self {
            version,
            client_id: client_id.into(),
            assigned_client_id: AssignedClientId::Keep,
            username: None,
            password: None,
            will: None,
            authentication: None,
            user_properties: Vec::new(),
            response_information: ResponseInformation::DoNotRequest,
            keep_alive: Duration::from_secs(60),
            ping_timeout: Duration::from_secs(10),
            connack_timeout: Duration::from_secs(10),
            clean_start: CleanStart::Always,
            session_expiry: Duration::ZERO,
            broker_only_session: BrokerOnlySession::Refuse,
            in_flight_on_lost_session: InFlightOnLostSession::ResendAtLeastOnce,
            persistence: Persistence::Off,
            resubscribe: Resubscribe::WhenSessionLost,
            resubscribe_retained: ResubscribeRetained::Never,
            subscribe_before_connack: SubscribeBeforeConnack::WhenCertain,
            receive_maximum: nonzero(256),
            receive_overrun: ReceiveOverrun::Disconnect,
            max_held_messages: 4096,
            max_held_bytes: 32 << 20,
            maximum_packet_size: 1 << 20,
            oversized_inbound: OversizedInbound::Skip,
            topic_alias_maximum: 16,
            max_outbound_aliases: 16,
            max_in_flight: nonzero(100),
            max_in_flight_qos2: nonzero(19),
            publish_pace: None,
            max_queued_messages: 1024,
            max_outbound_bytes: 16 << 20,
            replay_window: nonzero(16),
            quarantine_after: NonZeroU8::MIN.saturating_add(1),
            max_filters_per_packet: nonzero(32),
            max_subscriptions: 4096,
            max_pending_operations: 256,
            max_pending_events: 1024,
            max_pending_replies: 4096,
        }
    }

    /// Whether a session [can be made](crate::Session::new) of it.
    ///
    /// # Errors
    ///
    /// If it is not one that a CONNECT could carry.
    pub fn check(&self) -> Result<(), ConfigError> {
        let v5 = self.version == ProtocolVersion::V5;
        let text_ok = |text: &str| text.len() <= usize::from(u16::MAX) && !text.contains('\0');
        if !text_ok(&self.client_id) {
            return Err(ConfigError::Text("client_id"));
        }
        if self.version == ProtocolVersion::V31 && !(1..=23).contains(&self.client_id.len()) {
            return Err(ConfigError::ClientIdLengthV31);
        }
        if self.version == ProtocolVersion::V311
            && self.client_id.is_empty()
            && self.clean_start != CleanStart::Always
        {
            //= v3.1.1 MQTT-3.1.3-7
            return Err(ConfigError::ClientIdNeededToResume);
        }
        if self.username.as_deref().is_some_and(|text| !text_ok(text)) {
            return Err(ConfigError::Text("username"));
        }
        if self
            .password
            .as_ref()
            .is_some_and(|password| password.len() > usize::from(u16::MAX))
        {
            return Err(ConfigError::Text("password"));
        }
        if !v5 && self.password.is_some() && self.username.is_none() {
            //= v3.1.1 MQTT-3.1.2-22
            return Err(ConfigError::PasswordWithoutUsername);
        }
        if self
            .user_properties
            .iter()
            .any(|(name, value)| !text_ok(name) || !text_ok(value))
        {
            return Err(ConfigError::Text("user_properties"));
        }
        if !v5 && (self.authentication.is_some() || !self.user_properties.is_empty()) {
            return Err(ConfigError::NeedsV5);
        }
        if self
            .authentication
            .as_ref()
            .is_some_and(|auth| !text_ok(&auth.method))
        {
            return Err(ConfigError::Text("authentication"));
        }
        if self.keep_alive.as_secs() > u64::from(u16::MAX)
            || (self.keep_alive.as_secs() == 0 && !self.keep_alive.is_zero())
        {
            return Err(ConfigError::KeepAlive);
        }
        if self.ping_timeout.is_zero() || self.connack_timeout.is_zero() {
            return Err(ConfigError::ZeroTimeout);
        }
        if self.maximum_packet_size < 64 {
            return Err(ConfigError::MaximumPacketSize);
        }
        if self.max_queued_messages == 0
            || self.max_outbound_bytes == 0
            || self.max_pending_events == 0
            || self.max_pending_operations == 0
            || self.max_pending_replies == 0
            || self.publish_pace.is_some_and(|pace| pace.per.is_zero())
        {
            return Err(ConfigError::ZeroBound);
        }
        if self.max_in_flight.get() > crate::packet_id::LAST_PUBLISH_ID {
            return Err(ConfigError::MaxInFlight);
        }
        if let Some(will) = &self.will {
            will.check(v5)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    /// Without the password, the will's payload and the authentication data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("username", &self.username.as_ref().map(|_| Redacted))
            .field("password", &self.password.as_ref().map(|_| Redacted))
            .field("will", &self.will)
            .field("authentication", &self.authentication)
            .field("keep_alive", &self.keep_alive)
            .field("clean_start", &self.clean_start)
            .field("session_expiry", &self.session_expiry)
            .finish_non_exhaustive()
    }
}

/// The message that the broker publishes when this client is gone without having said so.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Will {
    /// Its Topic Name.
    pub topic: String,
    /// Its payload, at most 65,535 bytes.
    pub payload: Bytes,
    /// Its QoS. Default: 0.
    pub qos: QoS,
    /// Whether the broker keeps it. Default: not.
    pub retain: crate::Retain,
    /// How long the broker waits for us to come back first (5.0), whole seconds. Default: zero.
    pub delay: Duration,
    /// Its Message Expiry Interval (5.0), whole seconds. Default: none.
    pub expiry: Option<Duration>,
    /// Its other properties (5.0). Default: none.
    pub properties: PublishProperties,
}

impl Will {
    /// A will of QoS 0, not retained.
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            retain: crate::Retain::No,
            delay: Duration::ZERO,
            expiry: None,
            properties: PublishProperties::default(),
        }
    }

    fn check(&self, v5: bool) -> Result<(), ConfigError> {
        if !crate::publish::is_topic_name(&self.topic) {
            return Err(ConfigError::WillTopic);
        }
        if self.payload.len() > usize::from(u16::MAX) {
            return Err(ConfigError::WillPayload);
        }
        if !self.properties.is_valid() {
            return Err(ConfigError::Text("will.properties"));
        }
        if !(v5 || self.delay.is_zero() && self.expiry.is_none() && self.properties.is_empty()) {
            return Err(ConfigError::NeedsV5);
        }
        Ok(())
    }
}

impl fmt::Debug for Will {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Will")
            .field("topic", &self.topic)
            .field("payload_len", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .finish_non_exhaustive()
    }
}

/// Enhanced authentication: the method, and what the CONNECT carries of it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Authentication {
    /// The Authentication Method, for example `SCRAM-SHA-256`.
    pub method: String,
    /// The Authentication Data of the CONNECT. Never printed.
    pub data: Option<Bytes>,
}

impl Authentication {
    /// A method and the data to begin with.
    pub fn new(method: impl Into<String>, data: Option<Bytes>) -> Self {
        Self {
            method: method.into(),
            data,
        }
    }
}

impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentication")
            .field("method", &self.method)
            .field("data", &self.data.as_ref().map(|_| Redacted))
            .finish()
    }
}

/// When to ask the broker for a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CleanStart {
    /// With every CONNECT. Before 5.0 the broker then also forgets the session when the connection ends.
    Always,
    /// With the first CONNECT of this [`Session`](crate::Session) only; after that resume. Before 5.0 a session that began
    /// clean still ends with its connection, so that only the second is there to be resumed: use [`CleanStart::Never`] and
    /// [`BrokerOnlySession::Accept`] with a fresh Client Identifier instead.
    OnFirst,
    /// Never: resume whatever the broker has, from the first CONNECT on.
    Never,
}

/// What to do with a Client Identifier that the broker assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AssignedClientId {
    /// Use it in the next CONNECT, so that the session can be resumed.
    Keep,
    /// Send an empty one again. Some services do not accept an identifier that they assigned.
    AskAgain,
}

/// What to do when the broker resumes a session of which nothing is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokerOnlySession {
    /// Close the connection as MQTT-3.2.2-4 demands, and ask for a new session with the next CONNECT.
    Refuse,
    /// Take it over: a process that restarted without a store still gets the messages that waited for it, and accepts that
    /// a QoS 2 message which the old process had already seen may come a second time.
    Accept,
}

/// What becomes of publishes that were sent and not acknowledged when the broker has lost the session.
///
/// Those that were never sent are kept in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InFlightOnLostSession {
    /// QoS 1 is sent anew, as a new message. QoS 2 is reported as
    /// [`Indeterminate`](crate::PublishOutcome::Indeterminate): sent anew it might arrive twice, which its sender asked to
    /// exclude.
    ResendAtLeastOnce,
    /// QoS 1 and QoS 2 are sent anew; a QoS 2 message may then arrive twice. (One whose PUBREC had come is reported.)
    ResendAll,
    /// All are reported as indeterminate.
    Report,
}

/// Whether the session gives out records of what must outlive the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Persistence {
    /// It does not.
    Off,
    /// It does: see [`Session::poll_persist`](crate::Session::poll_persist). Bytes leave only once the records that they
    /// depend on are stored, so a driver that does not store them sends nothing.
    On,
}

/// When the session's subscriptions are sent again after a reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resubscribe {
    /// When the broker did not resume the session.
    WhenSessionLost,
    /// After every CONNACK, for brokers that lose subscriptions of a session that they resume.
    Always,
    /// Never; the caller subscribes again.
    Never,
}

/// Whether the broker repeats retained messages when a subscription is sent again (5.0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResubscribeRetained {
    /// Retain Handling 2, for filters that were granted before: the retained messages have been seen. One that changed
    /// during the gap is not repeated either.
    Never,
    /// Retain Handling 1: only if the subscription is new to the broker. After a lost session it is.
    OnlyIfNew,
    /// As the caller's own `subscribe` said.
    AsSubscribed,
}

/// Whether SUBSCRIBE may leave right behind CONNECT, before the CONNACK that answers it.
///
/// Section 3.1.4 of both versions allows it: a server that refuses the CONNECT does not look at what comes behind it. Only a
/// connection that asks for a new session does so, where no answer can change what has to be subscribed to; never one with
/// [`Config::authentication`] or [`Config::persistence`], never in MQTT 3.1, and never while the broker is suspected of having
/// hung up on something that was sent. PUBLISH and UNSUBSCRIBE wait in any case. At most 4 KiB leave early.
///
/// A broker that hangs up on it, answers out of order or throws it away costs a connection
/// ([`Timeout::Suback`](crate::Timeout::Suback)): the next one begins with the CONNECT alone. If that is taken, and it comes
/// to the same once more, the session waits for the CONNACK from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeBeforeConnack {
    /// It may not.
    Never,
    /// Where every server has to take it. In 3.1.1 that is everywhere. In 5.0 a server says in its CONNACK what it
    /// declines, so that only filters without wildcards leave early, not shared, without a Subscription Identifier, in a
    /// packet that is no longer than the CONNECT, which a server with a smaller Maximum Packet Size would not have accepted.
    WhenCertain,
    /// Also in 5.0 with any filter and identifier, since the broker is known to take them, and packets of 4 KiB. One that does
    /// not ends the connection.
    WhenClean,
}

/// What to do with a broker that does not keep to [`Config::receive_maximum`] (5.0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiveOverrun {
    /// End the connection with reason 0x93, as MQTT asks.
    Disconnect,
    /// Let it pass, up to [`Config::max_held_messages`]. Mosquitto 2.0.11, which much of the world runs, answers the first
    /// acknowledgement with all that has waited for room, so that under a backlog it would be hung up on time and again.
    Tolerate,
}

/// What to do with a received message that is larger than [`Config::maximum_packet_size`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OversizedInbound {
    /// Discard it as it comes, acknowledge it (5.0: with reason 0x83) so that it does not come again, and report it as
    /// [`Event::MessageSkipped`](crate::Event::MessageSkipped). Other packets that are too large end the connection.
    Skip,
    /// End the connection (5.0: with reason 0x95). A broker that keeps the message will send it again.
    Disconnect,
}

/// Whether the broker is asked for response information.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseInformation {
    /// Ask for it.
    Request,
    /// Do not ask for it.
    DoNotRequest,
}

/// What is wrong with a [`Config`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// This field is longer than 65,535 bytes or holds U+0000.
    Text(&'static str),
    /// A 3.1 Client Identifier has 1 to 23 bytes.
    ClientIdLengthV31,
    /// Before 5.0 only a clean session can do without a Client Identifier.
    ClientIdNeededToResume,
    /// Before 5.0 a password needs a user name.
    PasswordWithoutUsername,
    /// A property is set that only 5.0 can carry.
    NeedsV5,
    /// Keep Alive is zero, or whole seconds from 1 to 65,535.
    KeepAlive,
    /// `ping_timeout` or `connack_timeout` is zero.
    ZeroTimeout,
    /// `maximum_packet_size` is below 64.
    MaximumPacketSize,
    /// A bound is zero below which nothing can happen.
    ZeroBound,
    /// `max_in_flight` exceeds 65,519; the other identifiers are kept for SUBSCRIBE and UNSUBSCRIBE.
    MaxInFlight,
    /// The will's topic is empty, too long, or holds a wildcard or U+0000.
    WillTopic,
    /// The will's payload is longer than 65,535 bytes.
    WillPayload,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(field) => write!(f, "{field} is longer than 65,535 bytes or holds U+0000"),
            Self::ClientIdLengthV31 => {
                f.write_str("a Client Identifier of MQTT 3.1 has 1 to 23 bytes")
            }
            Self::ClientIdNeededToResume => {
                f.write_str("a session that is to be resumed needs a Client Identifier")
            }
            Self::PasswordWithoutUsername => {
                f.write_str("before MQTT 5 a password needs a user name")
            }
            Self::NeedsV5 => f.write_str("a property is set that only MQTT 5 can carry"),
            Self::KeepAlive => f.write_str("Keep Alive is zero, or 1 to 65,535 seconds"),
            Self::ZeroTimeout => f.write_str("a timeout is zero"),
            Self::MaximumPacketSize => f.write_str("the maximum packet size is below 64 bytes"),
            Self::ZeroBound => f.write_str("a bound is zero"),
            Self::MaxInFlight => f.write_str("max_in_flight exceeds 65,519"),
            Self::WillTopic => f.write_str("the will's topic is not a Topic Name"),
            Self::WillPayload => f.write_str("the will's payload is longer than 65,535 bytes"),
        }
    }
}

impl core::error::Error for ConfigError {}

/// Stands for a value that must not be printed.
pub(crate) struct Redacted;

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

const fn nonzero(value: u16) -> NonZeroU16 {
    match NonZeroU16::new(value) {
        Some(value) => value,
        None => NonZeroU16::MIN,
    }
}
