//! The rules of the service, held to before anything is sent: it answers a breach by hanging up, mostly without a word.

use std::error::Error as StdError;
use std::fmt;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use pubsub_core::{
    MatchingRules, OutboundMessage, ParentLevel, ProviderError, ProviderErrorKind, QoS, Retry,
    TopicFilter, TopicName,
};
use pubsub_generic::PublishPace;

/// What AWS IoT Core allows a client, and where it departs from MQTT.
///
/// The default is what AWS documents. Quotas that an account has had raised are set here:
///
/// ```
/// use pubsub_aws_iot::ServiceRules;
///
/// let mut rules = ServiceRules::default();
/// rules.max_subscriptions = 100;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceRules {
    /// The highest QoS. Default [`QoS::AtLeastOnce`]: the service does not answer QoS 2. A subscription that asks for more
    /// is granted this.
    pub max_qos: QoS,
    /// The largest payload, in bytes. Default 131,072.
    pub max_payload_bytes: usize,
    /// The longest topic or filter, in bytes, without the prefixes `$aws/rules/NAME/` and `$share/NAME/`. Default 256.
    pub max_topic_bytes: usize,
    /// The most slashes in a topic or filter, without the same prefixes. Default 7.
    pub max_topic_slashes: usize,
    /// The most filters in one SUBSCRIBE or UNSUBSCRIBE; more are split over several. Default 8.
    pub filters_per_packet: NonZeroU16,
    /// The most filters that are subscribed at a time. Default 50.
    pub max_subscriptions: usize,
    /// The longest client identifier, in bytes. Default 128.
    pub max_client_id_bytes: usize,
    /// How many messages a connection may publish in a second. Default 100. What exceeds it waits in the
    /// [queue](pubsub_generic::MqttOptions::queue) for its turn: the service throws away what comes faster, and does not
    /// acknowledge it. `None` switches it off.
    pub publishes_per_second: Option<NonZeroU16>,
    /// How many QoS 1 publishes may be unacknowledged at a time; more wait in the same queue. Default 100.
    pub max_in_flight: NonZeroU16,
    /// The Keep Alive intervals that the service takes as they are. Default 30 s to 1,200 s. It would change others
    /// without saying so under MQTT 3.1.1, and a client that then keeps to its own is cut off.
    pub keep_alive: RangeInclusive<Duration>,
    /// Whether names that begin with `$` are held to what the service knows. Default [`ReservedNames::Check`].
    pub reserved_names: ReservedNames,
    /// Whether `a/#` matches `a`. Default [`ParentLevel::BelowOnly`]: here it does not.
    pub parent_level: ParentLevel,
}

/// What to do about topics, filters and client identifiers that begin with `$`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReservedNames {
    /// Refuse what the service would hang up on: topics and filters other than `$aws/…` (and filters `$share/…`), and
    /// client identifiers.
    #[default]
    Check,
    /// Send them.
    Allow,
}

impl Default for ServiceRules {
    fn default() -> Self {
        Self {
            max_qos: QoS::AtLeastOnce,
            max_payload_bytes: 128 * 1024,
            max_topic_bytes: 256,
            max_topic_slashes: 7,
            filters_per_packet: const { NonZeroU16::new(8).unwrap() },
            max_subscriptions: 50,
            max_client_id_bytes: 128,
            publishes_per_second: NonZeroU16::new(100),
            max_in_flight: const { NonZeroU16::new(100).unwrap() },
            keep_alive: Duration::from_secs(30)..=Duration::from_secs(1200),
            reserved_names: ReservedNames::Check,
            parent_level: ParentLevel::BelowOnly,
        }
    }
}

/// What a "second" of the [rate](ServiceRules::publishes_per_second) is here: on the way messages move closer together.
const PACED_SECOND: Duration = Duration::from_millis(1_050);

impl ServiceRules {
    pub(crate) fn pace(&self) -> Option<PublishPace> {
        self.publishes_per_second
            .map(|publishes| PublishPace::new(publishes, PACED_SECOND))
    }

    pub(crate) fn check_message(&self, message: &OutboundMessage) -> Result<(), RuleViolation> {
        if message.qos > self.max_qos {
            return Err(RuleViolation::QoS { max: self.max_qos });
        }
        if message.payload.len() > self.max_payload_bytes {
            return Err(RuleViolation::PayloadBytes {
                max: self.max_payload_bytes,
            });
        }
        self.check_topic(&message.topic)?;
        if message.retain
            && self.reserved_names == ReservedNames::Check
            && message.topic.is_reserved()
        {
            return Err(RuleViolation::RetainedReservedTopic);
        }
        Ok(())
    }

    pub(crate) fn check_topic(&self, topic: &TopicName) -> Result<(), RuleViolation> {
        let text = topic.as_str();
        self.check_size(text.strip_prefix("$aws/rules/"), text)?;
        if self.reserved_names == ReservedNames::Check
            && topic.is_reserved()
            && !text.starts_with("$aws/")
        {
            return Err(RuleViolation::ReservedTopic);
        }
        Ok(())
    }

    pub(crate) fn check_filter(&self, filter: &TopicFilter) -> Result<(), RuleViolation> {
        let pattern = filter.pattern();
        self.check_size(None, pattern)?;
        if self.reserved_names == ReservedNames::Check && pattern.starts_with("$aws/rules/") {
            return Err(RuleViolation::PublishOnly);
        }
        if self.reserved_names == ReservedNames::Check
            && pattern.starts_with('$')
            && !pattern.starts_with("$aws/")
        {
            return Err(RuleViolation::ReservedTopic);
        }
        Ok(())
    }

    pub(crate) fn check_client_id(&self, client_id: &str) -> Result<(), RuleViolation> {
        if client_id.len() > self.max_client_id_bytes {
            return Err(RuleViolation::ClientIdBytes {
                max: self.max_client_id_bytes,
            });
        }
        if self.reserved_names == ReservedNames::Check && client_id.starts_with('$') {
            return Err(RuleViolation::ReservedClientId);
        }
        Ok(())
    }

    pub(crate) fn check_keep_alive(&self, interval: Duration) -> Result<(), RuleViolation> {
        if self.keep_alive.contains(&interval) {
            Ok(())
        } else {
            Err(RuleViolation::KeepAlive {
                min: *self.keep_alive.start(),
                max: *self.keep_alive.end(),
            })
        }
    }

    pub(crate) fn matching(&self) -> MatchingRules {
        MatchingRules::new().with_parent_level(self.parent_level)
    }

    /// `after_prefix` is what follows a prefix after which one more level does not count.
    fn check_size(&self, after_prefix: Option<&str>, text: &str) -> Result<(), RuleViolation> {
        let counted = after_prefix
            .and_then(|rest| rest.split_once('/'))
            .map_or(text, |(_name, rest)| rest);
        if counted.len() > self.max_topic_bytes {
            return Err(RuleViolation::TopicBytes {
                max: self.max_topic_bytes,
            });
        }
        if counted.bytes().filter(|byte| *byte == b'/').count() > self.max_topic_slashes {
            return Err(RuleViolation::TopicSlashes {
                max: self.max_topic_slashes,
            });
        }
        Ok(())
    }
}

/// Which of the [`ServiceRules`] a call or an option breaks. Nothing was sent.
///
/// It is the source of the [`ProviderError`] that the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuleViolation {
    /// A QoS that the service does not have.
    QoS {
        /// The highest it has.
        max: QoS,
    },
    /// A payload that is too large.
    PayloadBytes {
        /// How many bytes it may have.
        max: usize,
    },
    /// A topic or filter that is too long.
    TopicBytes {
        /// How many bytes it may have, without the prefixes that do not count.
        max: usize,
    },
    /// A topic or filter of too many levels.
    TopicSlashes {
        /// How many slashes it may have, without the prefixes that do not count.
        max: usize,
    },
    /// A topic or filter that begins with `$` and is none that the service knows.
    ReservedTopic,
    /// A subscription to Basic Ingest topics, which can only be published to.
    PublishOnly,
    /// A retained message to a topic that begins with `$`.
    RetainedReservedTopic,
    /// A client identifier that is too long.
    ClientIdBytes {
        /// How many bytes it may have.
        max: usize,
    },
    /// A client identifier that begins with `$`.
    ReservedClientId,
    /// A Keep Alive that the service would change.
    KeepAlive {
        /// The shortest it takes.
        min: Duration,
        /// The longest it takes.
        max: Duration,
    },
}

impl RuleViolation {
    fn kind(self) -> ProviderErrorKind {
        match self {
            Self::QoS { .. } => ProviderErrorKind::Unsupported,
            Self::ReservedTopic
            | Self::PublishOnly
            | Self::RetainedReservedTopic
            | Self::ReservedClientId
            | Self::KeepAlive { .. } => ProviderErrorKind::Invalid,
            _ => ProviderErrorKind::LimitExceeded,
        }
    }
}

impl fmt::Display for RuleViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QoS { max } => write!(f, "AWS IoT has no quality of service above {max:?}"),
            Self::PayloadBytes { max } => {
                write!(
                    f,
                    "the payload has more than the {max} bytes that AWS IoT takes"
                )
            }
            Self::TopicBytes { max } => {
                write!(
                    f,
                    "the topic has more than the {max} bytes that AWS IoT takes"
                )
            }
            Self::TopicSlashes { max } => {
                write!(
                    f,
                    "the topic has more than the {max} slashes that AWS IoT takes"
                )
            }
            Self::ReservedTopic => {
                f.write_str("AWS IoT reserves topics that begin with `$` and knows only `$aws/`")
            }
            Self::PublishOnly => {
                f.write_str("AWS IoT takes publishes to `$aws/rules/`, and no subscriptions")
            }
            Self::RetainedReservedTopic => {
                f.write_str("AWS IoT retains no messages of topics that begin with `$`")
            }
            Self::ClientIdBytes { max } => {
                write!(
                    f,
                    "the client identifier has more than the {max} bytes that AWS IoT takes"
                )
            }
            Self::ReservedClientId => {
                f.write_str("AWS IoT reserves client identifiers that begin with `$`")
            }
            Self::KeepAlive { min, max } => {
                write!(f, "AWS IoT takes a keep alive of {min:?} to {max:?}")
            }
        }
    }
}

impl StdError for RuleViolation {}

impl From<RuleViolation> for ProviderError {
    fn from(violation: RuleViolation) -> Self {
        Self::new(violation.kind())
            .with_retry(Retry::Pointless)
            .with_source(violation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> Result<(), RuleViolation> {
        ServiceRules::default().check_topic(&TopicName::new(text).unwrap())
    }

    fn filter(text: &str) -> Result<(), RuleViolation> {
        ServiceRules::default().check_filter(&TopicFilter::new(text).unwrap())
    }

    #[test]
    fn topics_are_measured_without_the_prefixes_that_do_not_count() {
        const LONG: RuleViolation = RuleViolation::TopicBytes { max: 256 };
        const DEEP: RuleViolation = RuleViolation::TopicSlashes { max: 7 };
        let (fits, too_long) = ("x".repeat(256), "x".repeat(257));
        assert_eq!((topic(&fits), filter(&fits)), (Ok(()), Ok(())));
        assert_eq!(
            (topic(&too_long), filter(&too_long)),
            (Err(LONG), Err(LONG))
        );
        assert_eq!(
            (topic("1/2/3/4/5/6/7/8"), filter("1/2/3/4/5/6/7/#")),
            (Ok(()), Ok(()))
        );
        assert_eq!(
            (topic("1/2/3/4/5/6/7/8/9"), filter("1/2/3/4/5/6/7/8/#")),
            (Err(DEEP), Err(DEEP))
        );

        assert_eq!(topic(&format!("$aws/rules/rule/{fits}")), Ok(()));
        assert_eq!(topic(&format!("$aws/rules/rule/{too_long}")), Err(LONG));
        assert_eq!(topic("$aws/rules/rule/1/2/3/4/5/6/7/8"), Ok(()));
        assert_eq!(topic("$aws/rules/rule/1/2/3/4/5/6/7/8/9"), Err(DEEP));
        assert_eq!(filter(&format!("$share/group/{fits}")), Ok(()));
        assert_eq!(filter(&format!("$share/group/{too_long}")), Err(LONG));
        assert_eq!(filter("$share/group/1/2/3/4/5/6/7/#"), Ok(()));
        assert_eq!(filter("$share/group/1/2/3/4/5/6/7/8/#"), Err(DEEP));
        // Other reserved topics count whole.
        assert_eq!(topic("$aws/things/t/shadow/name/n/update/accepted"), Ok(()));
        assert_eq!(
            topic("$aws/things/t/shadow/name/n/update/accepted/x"),
            Err(DEEP)
        );
    }

    #[test]
    fn of_reserved_names_only_the_services_own_pass() {
        const RESERVED: RuleViolation = RuleViolation::ReservedTopic;
        for allowed in ["$aws/things/t/shadow/get", "a/$SYS"] {
            assert_eq!(
                (topic(allowed), filter(allowed)),
                (Ok(()), Ok(())),
                "{allowed}"
            );
        }
        for refused in ["$SYS/uptime", "$aws", "$awsome/x"] {
            assert_eq!(
                (topic(refused), filter(refused)),
                (Err(RESERVED), Err(RESERVED)),
                "{refused}"
            );
        }
        assert_eq!(topic("$share/g/a"), Err(RESERVED));
        assert_eq!(topic("$aws/rules/r/a"), Ok(()));
        for filter_of_a_rule in ["$aws/rules/r/a", "$share/g/$aws/rules/#"] {
            assert_eq!(filter(filter_of_a_rule), Err(RuleViolation::PublishOnly));
        }
        assert_eq!(filter("$share/g/$SYS/#"), Err(RESERVED));
        assert_eq!(filter("$share/g/$aws/things/+/shadow/get"), Ok(()));

        let rules = ServiceRules {
            reserved_names: ReservedNames::Allow,
            ..ServiceRules::default()
        };
        assert_eq!(
            rules.check_topic(&TopicName::new("$SYS/uptime").unwrap()),
            Ok(())
        );
        assert_eq!(rules.check_client_id("$me"), Ok(()));
    }

    #[test]
    fn messages_are_held_to_every_rule() {
        let rules = ServiceRules::default();
        let message = |topic: &str, payload: usize| {
            OutboundMessage::new(TopicName::new(topic).unwrap(), vec![0; payload])
        };
        assert_eq!(rules.check_message(&message("a", 131_072)), Ok(()));
        let too_large = RuleViolation::PayloadBytes { max: 131_072 };
        assert_eq!(rules.check_message(&message("a", 131_073)), Err(too_large));
        let mut exactly_once = message("a", 0);
        exactly_once.qos = QoS::ExactlyOnce;
        let no_qos_2 = RuleViolation::QoS {
            max: QoS::AtLeastOnce,
        };
        assert_eq!(rules.check_message(&exactly_once), Err(no_qos_2));
        let mut retained = message("$aws/rules/r/a", 0);
        retained.retain = true;
        let refused = rules.check_message(&retained).unwrap_err();
        assert_eq!(refused, RuleViolation::RetainedReservedTopic);
        let error = ProviderError::from(refused);
        assert!(!error.is_retryable() && error.kind() == ProviderErrorKind::Invalid);
    }

    #[test]
    fn client_identifiers_and_keep_alives_have_their_bounds() {
        let rules = ServiceRules::default();
        assert_eq!(rules.check_client_id(&"x".repeat(128)), Ok(()));
        let too_long = RuleViolation::ClientIdBytes { max: 128 };
        assert_eq!(rules.check_client_id(&"x".repeat(129)), Err(too_long));
        assert_eq!(
            rules.check_client_id("$me"),
            Err(RuleViolation::ReservedClientId)
        );
        for secs in [30, 1200] {
            assert_eq!(rules.check_keep_alive(Duration::from_secs(secs)), Ok(()));
        }
        for secs in [0, 29, 1201] {
            assert!(rules.check_keep_alive(Duration::from_secs(secs)).is_err());
        }
    }
}
