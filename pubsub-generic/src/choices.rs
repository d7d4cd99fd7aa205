//! What [`MqttOptions`](crate::MqttOptions) lets one choose between.

use std::time::Duration;

use pubsub_core::QoS;

/// What the broker keeps of us between two Network Connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionMode {
    /// Nothing: every connection starts clean (Clean Start), and the provider subscribes anew. The default, as in
    /// Amplify. What is published while we are away is missed, at every QoS.
    Clean,
    /// The Session, from the first connection of this provider on: subscriptions stay, and the broker queues QoS 1 and 2
    /// messages while we are away. Before MQTT 5 a session that the broker still has under the same client identifier is
    /// taken over.
    Resumed {
        /// How long the broker keeps it after a connection is lost (MQTT 5; an MQTT 3.1.1 broker decides by itself).
        /// Whole seconds; [`Duration::MAX`] means for ever.
        expiry: Duration,
    },
    /// The Session, also from one run of the program to the next. It needs a
    /// [client identifier](crate::MqttOptions::client_id) of your own, or the next run would not find it again.
    Persistent {
        /// As with [`Resumed`](Self::Resumed).
        expiry: Duration,
    },
}

/// What becomes of a publish when the [queue](crate::MqttOptions::queue) is full and there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OfflineOverflow {
    /// It is refused. The default: what was accepted is kept.
    #[default]
    Refuse,
    /// The oldest that were not sent make room, and are told so: not sent, the queue is full, [`Displaced`](crate::Displaced).
    /// For values that age. What is in flight is never dropped, and a message larger than the queue is refused.
    DropOldest,
}

/// What becomes of the connection when nobody needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdleConnection {
    /// It stays until [`close`](pubsub_core::Provider::close). The default.
    Keep,
    /// It is closed after this long without a subscription or a publish under way; the next call opens it again.
    /// Zero is what Amplify does.
    CloseAfter(Duration),
}

/// How copies are known of a message that several filters match, where the broker sends one for each (MQTT lets it). The
/// copies are acknowledged and not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CopyDetection {
    /// By the Subscription Identifiers of MQTT 5. Where there are none, each copy is delivered: twice is better than
    /// never. The default.
    #[default]
    Identifiers,
    /// By their content, for a service that has no identifiers: of equal messages within a quarter of a second, on a topic
    /// that several filters match, so many count as one as there are such filters.
    ///
    /// A service that sends one message however many filters match is recognised by it, and then each is delivered.
    /// Until it is, of two messages that somebody really sent with the same content at the same moment one is taken for
    /// a copy.
    Content,
}

/// What a service allows, where that is less than MQTT does. Checked before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The highest QoS, for publishing and subscribing. Default QoS 2.
    pub max_qos: QoS,
    /// The longest topic or filter in bytes. Default 65,535, as MQTT has it.
    pub max_topic_bytes: usize,
    /// The largest payload in bytes. Default: what MQTT's largest packet has room for. The broker may announce less.
    pub max_payload_bytes: usize,
    /// The longest client identifier in bytes. Default 65,535.
    pub max_client_id_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_qos: QoS::ExactlyOnce,
            max_topic_bytes: 65_535,
            max_payload_bytes: 268_435_455,
            max_client_id_bytes: 65_535,
        }
    }
}
