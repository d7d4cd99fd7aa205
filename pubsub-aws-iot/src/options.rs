//! Everything that can be chosen about an AWS IoT provider, checked as a whole before anything is sent.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pubsub_core::OfflinePolicy;
use pubsub_generic::{
    Connect, CopyDetection, DEFAULT_SUBPROTOCOL, Limits, MqttOptions, OptionsError,
    ProtocolVersion, Renewal, SessionMode, SubscribeBeforeConnack,
};
use ws_transport::{Connector, Dial, UpgradeRequest};

use crate::authorizer::{AuthorizedConnect, AuthorizerError, CustomAuthorizer};
use crate::connect::SignedConnect;
use crate::credentials::CredentialSource;
use crate::endpoint::{Endpoint, EndpointError, PlainWs, UnsignedEndpoint};
use crate::refusal::ProbablyNotAuthorized;
use crate::rules::{RuleViolation, ServiceRules};

/// The name that Amplify gives this kind of provider; a good one to
/// [add](pubsub_core::PubSub::add_provider) it under, as long as there is but one.
pub const DEFAULT_NAME: &str = "AWSIoTProvider";

/// How an [`AwsIotProvider`](crate::AwsIotProvider) connects, and how it behaves.
///
/// Nothing is checked until the provider is made, which then names the first rule that is broken.
///
/// ```
/// use std::time::Duration;
/// use pubsub_aws_iot::{AwsCredentials, AwsIotOptions, AwsIotProvider};
///
/// let options = AwsIotOptions::new("a1b2c3example-ats.iot.eu-west-1.amazonaws.com")
///     .credentials(AwsCredentials::new("AKIDEXAMPLE", "correct horse battery staple"))
///     .client_id("kitchen")
///     .keep_alive(Duration::from_secs(300));
/// # let shown = format!("{options:?}");
/// # assert!(!shown.contains("horse"));
/// let provider = AwsIotProvider::new(options)?;
/// assert_eq!(provider.region(), Some("eu-west-1"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Options that are not here are those of every MQTT provider: [`configure_mqtt`](Self::configure_mqtt).
///
/// `Debug` shows no credentials and no query.
#[derive(Clone)]
pub struct AwsIotOptions {
    pub(crate) endpoint: String,
    pub(crate) region: Option<String>,
    pub(crate) plain: PlainWs,
    pub(crate) source: Option<Arc<dyn CredentialSource>>,
    authorizer: Option<CustomAuthorizer>,
    expiry: CredentialExpiry,
    pub(crate) rules: ServiceRules,
    pub(crate) mqtt: MqttOptions,
    extra_roots_pem: Vec<Vec<u8>>,
    dialer: Option<Arc<dyn Dial>>,
    connector: Option<Connector>,
}

impl AwsIotOptions {
    /// Options for this endpoint: what the IoT console calls the device data endpoint
    /// (`PREFIX-ats.iot.REGION.amazonaws.com`), a custom domain, or the whole URL (`wss://…/mqtt`). The path is `/mqtt`
    /// unless the URL has another.
    #[must_use]
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            region: None,
            plain: PlainWs::default(),
            source: None,
            authorizer: None,
            expiry: CredentialExpiry::default(),
            rules: ServiceRules::default(),
            // MQTT 5 says why it refuses and when somebody takes over; 3.1.1 just hangs up on both.
            mqtt: MqttOptions::without_url()
                .protocol_version(ProtocolVersion::V5)
                .copies(CopyDetection::Content)
                // Its documents do not say that it takes one.
                .subscribe_before_connack(SubscribeBeforeConnack::Never)
                .renewal(Renewal::default().max_age(CONNECTION_LIFE))
                .hang_up_error(ProbablyNotAuthorized.into()),
            extra_roots_pem: Vec::new(),
            dialer: None,
            connector: None,
        }
    }

    /// The region. Default: the one that the endpoint's host names. A custom domain names none and needs this; where the
    /// host does name one, it has to be the same.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Where the credentials come from, to sign each connection with. There is no default; a
    /// [custom authorizer](Self::authorizer) takes their place.
    #[must_use]
    pub fn credentials(mut self, source: impl CredentialSource) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Has a custom authorizer let the client in, by a token and without [credentials](Self::credentials). The
    /// [region](Self::region) then matters to nobody and need not be given. The user name and the password of MQTT are the
    /// authorizer's.
    ///
    /// How long it lets a connection live only the authorizer knows; to have it replaced before, say so in
    /// [`Renewal::max_age`](pubsub_generic::Renewal::max_age).
    #[must_use]
    pub fn authorizer(mut self, authorizer: CustomAuthorizer) -> Self {
        self.authorizer = Some(authorizer);
        self
    }

    /// What becomes of a connection when the credentials expire that it was signed with. Default
    /// [`CredentialExpiry::KeepConnection`].
    #[must_use]
    pub fn credential_expiry(mut self, expiry: CredentialExpiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// The Client Identifier. Default: a random UUID (version 4), made when the provider is and kept for its life.
    ///
    /// Two clients with the same identifier throw each other out. Policies often tie it to the caller's identity.
    #[must_use]
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.mqtt = self.mqtt.client_id(client_id);
        self
    }

    /// The MQTT version to speak. Default MQTT 5, which the service gives reasons in; [`ProtocolVersion::V311`] is for
    /// sessions that an older client left.
    #[must_use]
    pub fn protocol_version(mut self, version: ProtocolVersion) -> Self {
        self.mqtt = self.mqtt.protocol_version(version);
        self
    }

    /// After how long a silence, in either direction, the service is asked for a sign of life. Default 60 s; 30 s to
    /// 1,200 s by the [rules](ServiceRules::keep_alive). Through a VPC endpoint, 230 s at most.
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration) -> Self {
        self.mqtt = self.mqtt.keep_alive(interval);
        self
    }

    /// What the service keeps of us between connections. Default [`SessionMode::Clean`]. It keeps a session for an hour
    /// at most, unless the account's quota says otherwise.
    #[must_use]
    pub fn session(mut self, session: SessionMode) -> Self {
        self.mqtt = self.mqtt.session(session);
        self
    }

    /// What a publish does while there is no connection, unless the message says otherwise. Default: wait for one, 30 s.
    #[must_use]
    pub fn offline(mut self, policy: OfflinePolicy) -> Self {
        self.mqtt = self.mqtt.offline(policy);
        self
    }

    /// Changes what an AWS IoT provider has in common with every MQTT provider: will, timeouts, reconnecting, queues.
    ///
    /// Limits, filters a packet, subscriptions, the pace and the window of publishes, and matching are overwritten with the
    /// [rules](Self::rules); options of a WebSocket are refused, since the connection is made here.
    ///
    /// Three defaults differ. The service closes each connection after a day, so it is
    /// [replaced](pubsub_generic::Renewal) ahead of that. The service has no Subscription Identifiers, so copies of a message that several filters match
    /// are known by their [content](CopyDetection::Content). And what it hangs up on each time fails with
    /// [`ProbablyNotAuthorized`].
    ///
    /// ```
    /// use pubsub_aws_iot::{AwsIotOptions, Reconnect, Will};
    ///
    /// let options = AwsIotOptions::new("a1b2c3example-ats.iot.eu-west-1.amazonaws.com")
    ///     .configure_mqtt(|mqtt| mqtt.will(Will::new("presence/kitchen", "gone")).reconnect(Reconnect::never()));
    /// # let _ = options;
    /// ```
    ///
    /// A session that outlives the process, in a file (feature `durable`; any other
    /// [`SessionStore`](pubsub_generic::SessionStore) without it):
    ///
    #[cfg_attr(feature = "durable", doc = "```no_run")]
    #[cfg_attr(not(feature = "durable"), doc = "```text")]
    /// use std::time::Duration;
    /// use pubsub_aws_iot::{
    ///     AwsIotOptions, AwsIotProvider, EnvironmentCredentials, FileSessionStore, OfflinePolicy, SessionMode,
    /// };
    ///
    /// # fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = FileSessionStore::open("/var/lib/greenhouse/session.redb")?;
    /// let options = AwsIotOptions::new("a1b2c3example-ats.iot.eu-west-1.amazonaws.com")
    ///     .credentials(EnvironmentCredentials::new())
    ///     .client_id("greenhouse-7")
    ///     .session(SessionMode::Persistent { expiry: Duration::from_secs(3600) })
    ///     .offline(OfflinePolicy::Queue)
    ///     .configure_mqtt(|mqtt| mqtt.store(store));
    /// let provider = AwsIotProvider::new(options)?;
    /// for publish in provider.take_restored() {
    ///     println!("from last time: a message on {}", publish.topic);
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn configure_mqtt(mut self, change: impl FnOnce(MqttOptions) -> MqttOptions) -> Self {
        self.mqtt = change(self.mqtt);
        self
    }

    /// The rules of the service that are held to before anything is sent. Default: what AWS documents.
    #[must_use]
    pub fn rules(mut self, rules: ServiceRules) -> Self {
        self.rules = rules;
        self
    }

    /// Whether the endpoint may be a `ws://` one, to a gateway on this machine. Default: it may not.
    #[must_use]
    pub fn plain_ws(mut self, plain: PlainWs) -> Self {
        self.plain = plain;
        self
    }

    /// Trusts the certificates of this PEM file too, beside those compiled in: a gateway's, or an inspecting proxy's.
    #[must_use]
    pub fn extra_roots_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.extra_roots_pem.push(pem.into());
        self
    }

    /// Dials through this instead of straight over TCP: a proxy, a tunnel, a test.
    #[must_use]
    pub fn dialer(mut self, dialer: impl Dial + 'static) -> Self {
        self.dialer = Some(Arc::new(dialer));
        self
    }

    /// Connects through this connector, with a TLS configuration, buffers and a dialler of its own. It takes the place of
    /// [`extra_roots_pem`](Self::extra_roots_pem) and [`dialer`](Self::dialer), which cannot be given beside it.
    #[must_use]
    pub fn connector(mut self, connector: Connector) -> Self {
        self.connector = Some(connector);
        self
    }

    /// Checks everything, and takes it apart into what connects and what drives.
    pub(crate) fn build(
        mut self,
    ) -> Result<(Connection, MqttOptions, ServiceRules), AwsIotOptionsError> {
        let request = UpgradeRequest::new()
            .subprotocol(DEFAULT_SUBPROTOCOL)
            .map_err(|error| AwsIotOptionsError::Connection(Box::new(error)))?;
        let connection = match self.authorizer.take() {
            Some(authorizer) => self.authorized(&authorizer, request)?,
            None => self.signed(request)?,
        };
        let Self { rules, mqtt, .. } = self;
        let mqtt = apply_rules(mqtt, &rules)?;
        Ok((connection, mqtt, rules))
    }

    fn signed(&mut self, request: UpgradeRequest) -> Result<Connection, AwsIotOptionsError> {
        let (endpoint, source, connector) = self.parts()?;
        Ok(Connection {
            host: endpoint.host().to_owned(),
            region: Some(endpoint.region().to_owned()),
            connect: Arc::new(SignedConnect::new(
                endpoint,
                source,
                connector,
                request,
                self.expiry,
            )),
        })
    }

    fn authorized(
        &mut self,
        authorizer: &CustomAuthorizer,
        request: UpgradeRequest,
    ) -> Result<Connection, AwsIotOptionsError> {
        if self.source.is_some() {
            return Err(AwsIotOptionsError::CredentialsConflict);
        }
        authorizer.check().map_err(AwsIotOptionsError::Authorizer)?;
        let endpoint = UnsignedEndpoint::new(&self.endpoint, self.region.as_deref(), self.plain)?;
        if endpoint.host.split('.').any(|label| label == "iot-fips") {
            return Err(AwsIotOptionsError::Authorizer(
                AuthorizerError::FipsEndpoint,
            ));
        }
        let request = authorizer
            .put_into_request(request)
            .map_err(AwsIotOptionsError::Connection)?;
        let url = authorizer
            .url(&endpoint.url)
            .parse()
            .map_err(|error| EndpointError::Malformed(Box::new(error)))?;
        let connector = self.make_connector()?;
        self.mqtt = authorizer.put_into_connect(self.mqtt.clone());
        Ok(Connection {
            host: endpoint.host,
            region: endpoint.region,
            connect: Arc::new(AuthorizedConnect::new(url, connector, request, authorizer)),
        })
    }

    fn parts(
        &mut self,
    ) -> Result<(Endpoint, Arc<dyn CredentialSource>, Connector), AwsIotOptionsError> {
        let endpoint = Endpoint::new(&self.endpoint, self.region.as_deref(), self.plain)?;
        let source = self.source.take();
        let source = source.ok_or(AwsIotOptionsError::NoCredentials)?;
        Ok((endpoint, source, self.make_connector()?))
    }

    /// What calls over HTTPS need.
    #[cfg(feature = "https-publish")]
    pub(crate) fn https_parts(
        mut self,
    ) -> Result<(Endpoint, Arc<dyn CredentialSource>, Connector, ServiceRules), AwsIotOptionsError>
    {
        let (endpoint, source, connector) = self.parts()?;
        Ok((endpoint, source, connector, self.rules))
    }

    fn make_connector(&mut self) -> Result<Connector, AwsIotOptionsError> {
        if let Some(connector) = self.connector.take() {
            if self.dialer.is_some() || !self.extra_roots_pem.is_empty() {
                return Err(AwsIotOptionsError::ConnectorConflict);
            }
            return Ok(connector);
        }
        let mut connector = Connector::new();
        if let Some(dialer) = self.dialer.take() {
            connector = connector.dialer(dialer);
        }
        if !self.extra_roots_pem.is_empty() {
            connector = with_roots(connector, std::mem::take(&mut self.extra_roots_pem))?;
        }
        Ok(connector)
    }
}

/// What the options say about connecting.
pub(crate) struct Connection {
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) host: String,
    pub(crate) region: Option<String>,
}

/// What becomes of a connection when the credentials expire that it was signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CredentialExpiry {
    /// It stands: the service looks at them when it is opened, and not again as far as is known. The next connection has
    /// new ones. The default, since each new connection is a gap.
    #[default]
    KeepConnection,
    /// It is [replaced](pubsub_generic::Renewal) ahead of that, with new credentials. For an account whose connections end
    /// with their credentials. Those that live less than 10 s are not planned for.
    ReplaceConnection,
}

/// The service closes a connection after this long, at the next message.
const CONNECTION_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
fn with_roots(
    connector: Connector,
    roots_pem: Vec<Vec<u8>>,
) -> Result<Connector, AwsIotOptionsError> {
    let mut tls = ws_transport::TlsConfig::builder();
    for pem in roots_pem {
        tls = tls.add_roots_pem(pem);
    }
    let tls = tls
        .build()
        .map_err(|error| AwsIotOptionsError::Connection(Box::new(error)))?;
    Ok(connector.tls(tls))
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
fn with_roots(_: Connector, _: Vec<Vec<u8>>) -> Result<Connector, AwsIotOptionsError> {
    Err(OptionsError::NoTls.into())
}

/// Holds the session to the rules, and the options too.
fn apply_rules(mqtt: MqttOptions, rules: &ServiceRules) -> Result<MqttOptions, AwsIotOptionsError> {
    // What a message is checked for before it gets there; the rest of these limits stays MQTT's.
    let mut limits = Limits::default();
    limits.max_qos = rules.max_qos;
    limits.max_payload_bytes = rules.max_payload_bytes;
    limits.max_client_id_bytes = rules.max_client_id_bytes;
    let mut broken = Ok(());
    let mqtt = mqtt
        .limits(limits)
        .matching(rules.matching())
        .filters_per_packet(rules.filters_per_packet)
        .configure_session(|session| {
            session.max_subscriptions = rules.max_subscriptions;
            session.max_in_flight = rules.max_in_flight;
            session.publish_pace = rules.pace();
            broken = rules.check_keep_alive(session.keep_alive);
            if let (Ok(()), Some(will)) = (&broken, &session.will) {
                broken = check_will(will, rules);
            }
        });
    broken?;
    Ok(mqtt)
}

fn check_will(will: &pubsub_generic::Will, rules: &ServiceRules) -> Result<(), RuleViolation> {
    // The session refuses what is no topic, and says so.
    let Ok(topic) = pubsub_core::TopicName::new(will.topic.as_str()) else {
        return Ok(());
    };
    let mut message = pubsub_core::OutboundMessage::new(topic, will.payload.clone());
    message.retain = will.retain.is_yes();
    rules.check_message(&message)
}

impl fmt::Debug for AwsIotOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is no endpoint may hold anything.
        let endpoint = Endpoint::new(&self.endpoint, self.region.as_deref(), self.plain);
        f.debug_struct("AwsIotOptions")
            .field("endpoint", &endpoint)
            .field("region", &self.region)
            .field("has_credentials", &self.source.is_some())
            .field("authorizer", &self.authorizer)
            .field("expiry", &self.expiry)
            .field("rules", &self.rules)
            .field("mqtt", &self.mqtt)
            .field("extra_roots", &self.extra_roots_pem.len())
            .finish_non_exhaustive()
    }
}

/// Which rule the options break.
#[derive(Debug)]
#[non_exhaustive]
pub enum AwsIotOptionsError {
    /// The endpoint or the region cannot be used; the source says why.
    Endpoint(EndpointError),
    /// There is no source of credentials, nor a custom authorizer.
    NoCredentials,
    /// There is a custom authorizer, which needs none, beside a source of credentials.
    CredentialsConflict,
    /// The custom authorizer cannot be used; the source says why.
    Authorizer(AuthorizerError),
    /// A rule of the service is broken; the source names it.
    Rule(RuleViolation),
    /// An option of the connection cannot be used; the source says why.
    Connection(Box<dyn StdError + Send + Sync>),
    /// Roots or a dialler were given beside a connector that has its own.
    ConnectorConflict,
    /// A rule that holds for every MQTT provider is broken; the source names it.
    Mqtt(OptionsError),
}

impl fmt::Display for AwsIotOptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Endpoint(_) => "the endpoint cannot be used",
            Self::NoCredentials => "the options have no source of credentials",
            Self::CredentialsConflict => "a custom authorizer beside a source of credentials",
            Self::Authorizer(_) => "the custom authorizer cannot be used",
            Self::Rule(_) => "an option breaks a rule of AWS IoT",
            Self::Connection(_) => "an option of the connection cannot be used",
            Self::ConnectorConflict => "roots or a dialler beside a connector that has its own",
            Self::Mqtt(_) => "an option of MQTT cannot be used",
        })
    }
}

impl StdError for AwsIotOptionsError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Endpoint(error) => Some(error),
            Self::Rule(violation) => Some(violation),
            Self::Connection(source) => Some(source.as_ref()),
            Self::Mqtt(error) => Some(error),
            Self::Authorizer(error) => Some(error),
            Self::NoCredentials | Self::CredentialsConflict | Self::ConnectorConflict => None,
        }
    }
}

impl From<EndpointError> for AwsIotOptionsError {
    fn from(error: EndpointError) -> Self {
        Self::Endpoint(error)
    }
}

impl From<RuleViolation> for AwsIotOptionsError {
    fn from(violation: RuleViolation) -> Self {
        Self::Rule(violation)
    }
}

impl From<OptionsError> for AwsIotOptionsError {
    fn from(error: OptionsError) -> Self {
        Self::Mqtt(error)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    /// Whatever the caller had chosen, the rules are what the session keeps to.
    #[test]
    fn every_rule_of_the_session_reaches_it() {
        let mut rules = ServiceRules {
            max_subscriptions: 7,
            max_in_flight: NonZeroU16::new(3).unwrap(),
            publishes_per_second: NonZeroU16::new(5),
            filters_per_packet: NonZeroU16::new(2).unwrap(),
            ..ServiceRules::default()
        };
        let mqtt = MqttOptions::without_url().queue(
            std::num::NonZeroUsize::MIN,
            std::num::NonZeroUsize::MIN.saturating_add(999),
        );
        let mut session = None;
        let _ = apply_rules(mqtt, &rules)
            .unwrap()
            .configure_session(|config| session = Some(config.clone()));
        let session = session.unwrap();
        assert_eq!(session.max_subscriptions, 7);
        assert_eq!(session.max_in_flight.get(), 3);
        assert_eq!(session.max_filters_per_packet.get(), 2);
        let pace = session.publish_pace.unwrap();
        assert_eq!(pace.publishes.get(), 5);
        assert!(pace.per >= Duration::from_secs(1));
        // What is not the service's stays the caller's.
        assert_eq!(session.max_queued_messages, 1);

        rules.publishes_per_second = None;
        let mut pace = Some(());
        let _ = apply_rules(MqttOptions::without_url(), &rules)
            .unwrap()
            .configure_session(|config| pace = config.publish_pace.map(|_| ()));
        assert_eq!(pace, None);
    }

    /// The service's documents do not say that it takes a SUBSCRIBE before its CONNACK.
    #[test]
    fn nothing_is_subscribed_to_before_the_connack() {
        let mut early = None;
        let _ = AwsIotOptions::new("prefix-ats.iot.eu-central-1.amazonaws.com")
            .mqtt
            .configure_session(|session| early = Some(session.subscribe_before_connack));
        assert_eq!(early, Some(SubscribeBeforeConnack::Never));
    }

    #[test]
    fn a_will_is_held_to_the_rules_of_a_message() {
        let broken = |change: fn(&mut pubsub_generic::Will)| {
            let mut will = pubsub_generic::Will::new("a", "gone");
            change(&mut will);
            apply_rules(
                MqttOptions::without_url().will(will),
                &ServiceRules::default(),
            )
            .map(|_| ())
            .map_err(|error| match error {
                AwsIotOptionsError::Rule(rule) => rule,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(broken(|_| {}), Ok(()));
        assert_eq!(
            broken(|will| will.topic = "x".repeat(257)),
            Err(RuleViolation::TopicBytes { max: 256 })
        );
        assert_eq!(
            broken(|will| will.topic = "$SYS/a".into()),
            Err(RuleViolation::ReservedTopic)
        );
    }
}
