//! Everything that can be chosen about an MQTT provider, checked as a whole before anything is sent.

use std::fmt;
use std::num::{NonZeroU16, NonZeroUsize};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mqtt_codec::ProtocolVersion;
use mqtt_session::{
    BrokerOnlySession, CleanStart, Config, PublishPace, ReceiveOverrun, SubscribeBeforeConnack,
};
use pubsub_core::{MatchingRules, OfflinePolicy, ProviderError, ProviderErrorKind};

use crate::choices::{CopyDetection, IdleConnection, Limits, OfflineOverflow, SessionMode};
use crate::connect::Retry;
use crate::endpoints::EndpointOrder;
use crate::error::{ConnectionError, HungUpOn};
use crate::login::LoginSource;
use crate::options_error::OptionsError;
use crate::reconnect::Reconnect;
use crate::renewal::Renewal;
use crate::store::{SessionStore, StoreHandle};

/// The name that Amplify gives this kind of provider; a good one to
/// [add](pubsub_core::PubSub::add_provider) it under, as long as there is but one.
pub const DEFAULT_NAME: &str = "MqttOverWSProvider";

/// How an [`MqttProvider`](crate::MqttProvider) connects, and how it behaves.
///
/// Nothing is checked until the provider is made, which then names the first rule that is broken.
///
/// ```
/// use std::time::Duration;
/// use pubsub_core::OfflinePolicy;
/// use pubsub_generic::MqttOptions;
///
/// let options = MqttOptions::new("wss://broker.example:8084/mqtt")
///     .user_name("alice")
///     .password("correct horse battery staple")
///     .keep_alive(Duration::from_secs(30))
///     .offline(OfflinePolicy::Fail);
/// # let shown = format!("{options:?}");
/// # assert!(!shown.contains("horse") && !shown.contains("alice"));
/// ```
///
/// `Debug` shows no password and no user name, and of the URL the host and the path.
#[derive(Clone)]
pub struct MqttOptions {
    #[cfg(feature = "ws")]
    pub(crate) ws: crate::ws::WsOptions,
    /// `None`: a random one is made with the provider.
    pub(crate) client_id: Option<String>,
    /// All that concerns the session alone; its `client_id` is filled in when the provider is made.
    pub(crate) session: Arc<Config>,
    pub(crate) connect_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) subscribe_timeout: Duration,
    pub(crate) reconnect: Reconnect,
    pub(crate) renewal: Renewal,
    /// `SystemTime::now`, but in tests.
    pub(crate) wall_clock: fn() -> SystemTime,
    pub(crate) endpoint_order: EndpointOrder,
    pub(crate) login: Option<Arc<dyn LoginSource>>,
    pub(crate) on_failure: Option<Judge>,
    pub(crate) offline: OfflinePolicy,
    pub(crate) offline_overflow: OfflineOverflow,
    pub(crate) idle: IdleConnection,
    pub(crate) limits: Limits,
    pub(crate) matching: MatchingRules,
    pub(crate) copies: CopyDetection,
    pub(crate) hang_up_error: ProviderError,
    pub(crate) store: Option<StoreHandle>,
    pub(crate) claim_timeout: Duration,
}

/// What all options begin with shares one cause.
static HUNG_UP_ON: LazyLock<ProviderError> =
    LazyLock::new(|| ProviderError::new(ProviderErrorKind::Refused).with_source(HungUpOn));

/// Says whether to try again after this failure, given what is the default.
pub(crate) type Judge = Arc<dyn Fn(&ConnectionError, Retry) -> Retry + Send + Sync>;

impl MqttOptions {
    /// Options for the broker at this URL: `ws://` or `wss://`, a host, perhaps a port, and a path (most brokers expect
    /// `/mqtt`).
    #[cfg(feature = "ws")]
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            ws: crate::ws::WsOptions::new(url.into()),
            ..Self::without_url()
        }
    }

    /// Another endpoint of the same broker, as a cluster has them, with a URL of its own. Up to 64.
    ///
    /// An attempt that fails is followed by one to the next endpoint, at once; only a whole round of failures is followed by
    /// the [back-off](Self::reconnect). Each attempt has the [connect timeout](Self::connect_timeout) to itself. All
    /// endpoints get the same credentials and headers. Where an MQTT 5 broker names another server (reasons 0x9C and
    /// 0x9D), that is [reported](crate::ConnectRefusal::server_reference) and not followed: our credentials go to no host
    /// that was not chosen here. But those that were are tried before the one that sent us away.
    #[cfg(feature = "ws")]
    #[must_use]
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.ws.urls.push(url.into());
        self
    }

    /// Options for a provider that brings its own [`Connect`](crate::Connect).
    #[must_use]
    pub fn without_url() -> Self {
        Self {
            #[cfg(feature = "ws")]
            ws: crate::ws::WsOptions::default(),
            client_id: None,
            session: Arc::new(default_session()),
            connect_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            subscribe_timeout: Duration::from_secs(60),
            reconnect: Reconnect::default(),
            renewal: Renewal::default(),
            wall_clock: SystemTime::now,
            endpoint_order: EndpointOrder::default(),
            login: None,
            on_failure: None,
            offline: OfflinePolicy::WaitUpTo(Duration::from_secs(30)),
            offline_overflow: OfflineOverflow::default(),
            idle: IdleConnection::Keep,
            limits: Limits::default(),
            matching: MatchingRules::default(),
            copies: CopyDetection::default(),
            hang_up_error: HUNG_UP_ON.clone(),
            store: None,
            claim_timeout: Duration::from_secs(30),
        }
    }

    /// The Client Identifier. Default: a random UUID (version 4), made when the provider is and kept for its life. An
    /// empty one asks the broker to assign one.
    ///
    /// Two clients with the same identifier throw each other out of the broker.
    #[must_use]
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// The user name of the CONNECT. Default none.
    #[must_use]
    pub fn user_name(mut self, user_name: impl Into<String>) -> Self {
        self.session_mut().username = Some(user_name.into());
        self
    }

    /// The password of the CONNECT; text or bytes. Default none. Before MQTT 5 it needs a
    /// [user name](Self::user_name) beside it.
    #[must_use]
    pub fn password(mut self, password: impl Into<Vec<u8>>) -> Self {
        self.session_mut().password = Some(Bytes::from(password.into()));
        self
    }

    /// Where user name and password come from for each connection, instead of [`user_name`](Self::user_name) and
    /// [`password`](Self::password): tokens that expire. With it, a refusal that blames them is not final any more, see
    /// [`on_failure`](Self::on_failure).
    #[must_use]
    pub fn login_source(mut self, source: impl LoginSource) -> Self {
        self.login = Some(Arc::new(source));
        self
    }

    /// The MQTT version to speak. Default 3.1.1; MQTT 3.1 is for compatibility with old brokers.
    #[must_use]
    pub fn protocol_version(mut self, version: ProtocolVersion) -> Self {
        self.session_mut().version = version;
        self
    }

    /// After how long a silence, in either direction, the broker is asked for a sign of life. Up to 65,535 s; zero
    /// switches it off, and with it on TCP does not ask as well. Default 60 s. An MQTT 5 broker may order another value.
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration) -> Self {
        self.session_mut().keep_alive = interval;
        self
    }

    /// How long that sign of life may take before the connection counts as lost. Default 10 s.
    #[must_use]
    pub fn ping_timeout(mut self, timeout: Duration) -> Self {
        self.session_mut().ping_timeout = timeout;
        self
    }

    /// What the broker keeps of us between connections. Default [`SessionMode::Clean`].
    #[must_use]
    pub fn session(mut self, session: SessionMode) -> Self {
        let (clean_start, expiry, broker_only) = match session {
            SessionMode::Clean => (
                CleanStart::Always,
                Duration::ZERO,
                BrokerOnlySession::Refuse,
            ),
            SessionMode::Resumed { expiry } => {
                (CleanStart::OnFirst, expiry, BrokerOnlySession::Refuse)
            }
            SessionMode::Persistent { expiry } => {
                (CleanStart::Never, expiry, BrokerOnlySession::Accept)
            }
        };
        self.session_mut().clean_start = clean_start;
        self.session_mut().session_expiry = expiry;
        self.session_mut().broker_only_session = broker_only;
        self
    }

    /// The message that the broker publishes when this client disappears without a word. Default none.
    #[must_use]
    pub fn will(mut self, will: mqtt_session::Will) -> Self {
        self.session_mut().will = Some(will);
        self
    }

    /// How long one attempt may take, from the name's resolution to the CONNACK. Default 30 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long closing may take: to send what was accepted and have it acknowledged, and to say goodbye. Default 5 s.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// How long a subscribe call waits for the broker's answer, the connecting before it included, until it fails and
    /// takes its filters back. Default 60 s.
    #[must_use]
    pub fn subscribe_timeout(mut self, timeout: Duration) -> Self {
        self.subscribe_timeout = timeout;
        self
    }

    /// When to try again. Default [`Reconnect::default`].
    #[must_use]
    pub fn reconnect(mut self, policy: Reconnect) -> Self {
        self.reconnect = policy;
        self
    }

    /// Decides whether to try again after a failed attempt or a lost connection. It gets the failure and what would be done
    /// by default:
    ///
    /// | failure | by default |
    /// |---|---|
    /// | no network, no answer, a connection lost, HTTP 408, 425, 429 and 5xx | [`Retry::Later`] |
    /// | CONNACK: server unavailable or busy, quota or connection rate exceeded, use another server, an unspecified or implementation specific error | [`Retry::Later`] |
    /// | bad user name or password, not authorised, HTTP 401 and 403, with a [login source](Self::login_source) | [`Retry::WithFreshCredentials`], and [`Retry::Never`] if those are refused, too |
    /// | the same, without one | [`Retry::Never`] |
    /// | CONNACK with any other reason; any other HTTP status; a certificate that is not trusted; a peer that is no WebSocket server | [`Retry::Never`] |
    /// | DISCONNECT: banned, server moved | [`Retry::Never`] |
    /// | a [`ConnectError`](crate::ConnectError) of a [`Connect`](crate::Connect) of one's own | what it says itself |
    ///
    /// After [`Retry::Never`] the provider gives up: it fails what waits and reports why, until
    /// [`connect`](crate::MqttProvider::connect) is called. When to retry is for [`reconnect`](Self::reconnect).
    ///
    /// ```
    /// use pubsub_generic::{ConnectionError, MqttOptions, Retry};
    ///
    /// // The broker learns of new devices late: being unknown passes.
    /// let options = MqttOptions::new("wss://broker.example/mqtt").on_failure(|failure, default| match failure {
    ///     ConnectionError::Refused(_) => Retry::Later,
    ///     _ => default,
    /// });
    /// # let _ = options;
    /// ```
    #[must_use]
    pub fn on_failure(
        mut self,
        judge: impl Fn(&ConnectionError, Retry) -> Retry + Send + Sync + 'static,
    ) -> Self {
        self.on_failure = Some(Arc::new(judge));
        self
    }

    /// Which of several endpoints is tried first. Default: as given.
    #[must_use]
    pub fn endpoint_order(mut self, order: EndpointOrder) -> Self {
        self.endpoint_order = order;
        self
    }

    /// When a connection that works is replaced ahead of its end. Default [`Renewal::default`]: when the
    /// [`Connect`](crate::Connect) names an end.
    #[must_use]
    pub fn renewal(mut self, policy: Renewal) -> Self {
        self.renewal = policy;
        self
    }

    /// What a publish does while there is no connection, unless the message says otherwise. Default: wait for one, 30 s.
    /// Either way, publishing makes the provider connect.
    #[must_use]
    pub fn offline(mut self, policy: OfflinePolicy) -> Self {
        self.offline = policy;
        self
    }

    /// What a publish does while there is no connection and the [queue](Self::queue) is full. Default: it is refused. With
    /// a connection a full queue always refuses: that is back-pressure.
    #[must_use]
    pub fn offline_overflow(mut self, overflow: OfflineOverflow) -> Self {
        self.offline_overflow = overflow;
        self
    }

    /// How many publishes, and how many bytes of topic and payload, may be accepted and not yet acknowledged or, at
    /// QoS 0, sent. Default 10,000 and 16 MiB: about a kilobyte each.
    #[must_use]
    pub fn queue(mut self, messages: NonZeroUsize, bytes: NonZeroUsize) -> Self {
        self.session_mut().max_queued_messages = messages.get();
        self.session_mut().max_outbound_bytes = bytes.get();
        self
    }

    /// The largest packet that is received, in bytes; announced to an MQTT 5 broker. Default 1 MiB, at least 64. A larger
    /// one ends the connection.
    #[must_use]
    pub fn max_packet_size(mut self, bytes: u32) -> Self {
        self.session_mut().maximum_packet_size = bytes;
        self
    }

    /// Whether SUBSCRIBE leaves right behind CONNECT, in one write and a round trip earlier: at the first subscribe, and after
    /// each reconnect. Default [`SubscribeBeforeConnack::WhenCertain`]: in MQTT 3.1.1 whenever the session is
    /// [clean](SessionMode::Clean). In MQTT 5 that is with [`copies`](Self::copies) other than by identifiers, and for filters
    /// without wildcards; [`SubscribeBeforeConnack::WhenClean`] extends it to all, for a broker that is known to take them.
    #[must_use]
    pub fn subscribe_before_connack(mut self, early: SubscribeBeforeConnack) -> Self {
        self.session_mut().subscribe_before_connack = early;
        self
    }

    /// How many filters go into one SUBSCRIBE or UNSUBSCRIBE. Default 32; some services allow fewer.
    #[must_use]
    pub fn filters_per_packet(mut self, filters: NonZeroU16) -> Self {
        self.session_mut().max_filters_per_packet = filters;
        self
    }

    /// The fastest that publishes are sent; what is more waits in the [queue](Self::queue). Default: as fast as it goes.
    /// For services that throw away, or disconnect for, what comes faster.
    #[must_use]
    pub fn publish_pace(mut self, pace: PublishPace) -> Self {
        self.session_mut().publish_pace = Some(pace);
        self
    }

    /// How copies are known of a message that several filters match. Default [`CopyDetection::Identifiers`].
    #[must_use]
    pub fn copies(mut self, detection: CopyDetection) -> Self {
        self.copies = detection;
        self
    }

    /// Why a publish or a filter fails that is set aside because the broker hung up each time that it was sent, the last
    /// time with it alone (see [`Config::quarantine_after`]). Default: refused, with [`HungUpOn`] as the source. A service
    /// that is known to mean something by it is given its words here.
    #[must_use]
    pub fn hang_up_error(mut self, error: ProviderError) -> Self {
        self.hang_up_error = error;
        self
    }

    /// Everything else that the session lets one choose: windows, aliases, enhanced authentication, what becomes of
    /// messages in flight when the broker forgets us.
    ///
    /// The client identifier in it is overwritten; set that with [`client_id`](Self::client_id). So is whether it gives out
    /// records: it does with a [`store`](Self::store).
    #[must_use]
    pub fn configure_session(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(self.session_mut());
        self
    }

    /// What becomes of the connection when nobody needs it. Default: it stays.
    #[must_use]
    pub fn idle(mut self, idle: IdleConnection) -> Self {
        self.idle = idle;
        self
    }

    /// What the service allows. Default: what MQTT does.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How the service matches topics, where it departs from the specification. Default: to the letter.
    #[must_use]
    pub fn matching(mut self, rules: MatchingRules) -> Self {
        self.matching = rules;
        self
    }

    /// Where the session is kept, so that it outlives this process. Default none.
    ///
    /// A publish at QoS 1 or 2 is then stored before it is sent, offline or not, and its receipt says so
    /// ([`PublishStage::Stored`](pubsub_core::PublishStage::Stored)): from there on it is delivered even if the process is
    /// killed, by the next one that has this store, at QoS 2 once. What becomes of those is told by
    /// [`MqttProvider::take_restored`](crate::MqttProvider::take_restored).
    ///
    /// What comes at QoS 1 or 2 is confirmed when it is taken, and is sent again by the broker until then: killed before, a
    /// process loses none of it. At QoS 2 the receipt is stored first, and once it is, the message is never delivered again. That
    /// is one group of writes later: a message that was taken just before the kill may come to the next process as well. So
    /// *exactly once* across a kill is a matter for both: an application that needs it takes its
    /// [deliveries](pubsub_core::Subscription::deliveries) by hand, writes what it does with one and who it was in one
    /// transaction of its own, takes the receipt after that, and leaves out what it finds there when it comes again. What can
    /// come again is only what the last process had taken or held when it ended, at most as many as Receive Maximum. With the
    /// plain stream a message is taken as it is yielded: killed before it has done its work, the application does not get it again.
    ///
    /// Who subscribes to a stored filter again is told of the [`Gap`](pubsub_core::Gap) before the first message: whether the
    /// broker kept the session, and how long nobody was there, by the wall clock, from when the broker was last heard to the
    /// CONNACK. After a crash up to a minute too long, since an idle connection has that stored once a minute; unknown where
    /// either process ran before its clock was set, or the clock was set back beyond the start of the gap. A clock that was
    /// set forward, or back by less, cannot be told from time that passed.
    ///
    /// It needs [`SessionMode::Persistent`], with a time to expiry above zero, or the broker would forget its half of the
    /// session. Beside it [`OfflinePolicy::Queue`] is worth a thought: with another one, a publish that is stored is taken
    /// back when its time to wait for a connection is over.
    ///
    /// Clones of the options share the store, but one provider at a time may use it.
    #[must_use]
    pub fn store(mut self, store: impl SessionStore) -> Self {
        self.store = Some(StoreHandle::new(Arc::new(store)));
        self
    }

    /// How long after connecting the subscriptions of an earlier process wait to be made again. Default 30 s. Only with a
    /// [`store`](Self::store).
    ///
    /// The broker resumes them before this process has subscribed to anything. Messages at QoS 1 and 2 that come for such a
    /// filter are held, unconfirmed, until something subscribes to the same filter; it gets them first. When the time is
    /// over, what nobody has subscribed to is unsubscribed, and what was held for it counts as
    /// having no subscriber.
    #[must_use]
    pub fn claim_timeout(mut self, timeout: Duration) -> Self {
        self.claim_timeout = timeout;
        self
    }

    /// Shared only once a provider is made of it.
    pub(crate) fn session_mut(&mut self) -> &mut Config {
        Arc::make_mut(&mut self.session)
    }

    /// Checks everything but the URL and what the session checks itself, and names the first rule that is broken.
    pub(crate) fn validate(&self) -> Result<(), OptionsError> {
        if let Some(client_id) = &self.client_id
            && client_id.len() > self.limits.max_client_id_bytes
        {
            return Err(OptionsError::ClientIdTooLong {
                max_bytes: self.limits.max_client_id_bytes,
            });
        }
        if self.session.clean_start == CleanStart::Never
            && self.client_id.as_deref().is_none_or(str::is_empty)
        {
            return Err(OptionsError::PersistentWithoutClientId);
        }
        if self.store.is_some() {
            let is_kept = self.session.version != ProtocolVersion::V5
                || !self.session.session_expiry.is_zero();
            if self.session.clean_start != CleanStart::Never || !is_kept {
                return Err(OptionsError::StoreWithoutSession);
            }
        }
        if let Some(will) = &self.session.will
            && u8::from(will.qos) > self.limits.max_qos as u8
        {
            return Err(OptionsError::WillQos {
                max: self.limits.max_qos,
            });
        }
        if self.login.is_some()
            && (self.session.username.is_some() || self.session.password.is_some())
        {
            return Err(OptionsError::LoginConflict);
        }
        positive(self.connect_timeout, "connect timeout")?;
        positive(self.close_timeout, "close timeout")?;
        positive(self.subscribe_timeout, "subscribe timeout")?;
        positive(self.claim_timeout, "claim timeout")?;
        if let OfflinePolicy::WaitUpTo(time) = self.offline {
            positive(time, "offline wait")?;
        }
        self.renewal.validate()?;
        self.reconnect.validate()
    }
}

fn default_session() -> Config {
    let mut config = Config::new(ProtocolVersion::V311, "");
    config.max_queued_messages = 10_000;
    config.receive_overrun = ReceiveOverrun::Tolerate;
    config
}

fn positive(value: Duration, what: &'static str) -> Result<(), OptionsError> {
    if value.is_zero() {
        Err(OptionsError::Zero { what })
    } else {
        Ok(())
    }
}

impl fmt::Debug for MqttOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("MqttOptions");
        #[cfg(feature = "ws")]
        out.field("ws", &self.ws);
        out.field("client_id", &self.client_id)
            .field("session", &self.session)
            .field("connect_timeout", &self.connect_timeout)
            .field("close_timeout", &self.close_timeout)
            .field("subscribe_timeout", &self.subscribe_timeout)
            .field("reconnect", &self.reconnect)
            .field("renewal", &self.renewal)
            .field("endpoint_order", &self.endpoint_order)
            .field("has_login_source", &self.login.is_some())
            .field("has_on_failure", &self.on_failure.is_some())
            .field("offline", &self.offline)
            .field("offline_overflow", &self.offline_overflow)
            .field("idle", &self.idle)
            .field("limits", &self.limits)
            .field("matching", &self.matching)
            .field("copies", &self.copies)
            .field("hang_up_error", &self.hang_up_error)
            .field("store", &self.store)
            .field("claim_timeout", &self.claim_timeout)
            .finish_non_exhaustive()
    }
}
