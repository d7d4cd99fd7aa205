//! Why a connection was ended or a packet not carried on, which the client has to guess.

use super::policy::Action;

/// What a client did that the service does not let pass.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Incident {
    /// The policy does not allow this on that resource.
    Denied(Action, String),
    /// A custom authorizer said no to the CONNECT, or it named none.
    Authorizer,
    /// The client identifier is too long or begins with `$`.
    ClientIdentifier,
    /// Something was sent before the CONNACK had come.
    BeforeConnack,
    /// A packet of QoS 2: without an answer, or the end under MQTT 5.
    Qos2,
    /// A payload over 128 KiB.
    Payload,
    /// A topic name that is too long, too deep or reserved.
    TopicName(String),
    /// A topic filter that is too long, too deep or reserved.
    TopicFilter(String),
    /// A topic alias that is unknown, zero or over the limit.
    TopicAlias,
    /// Too many filters in a SUBSCRIBE.
    FiltersPerSubscribe,
    /// Too many subscriptions on a connection.
    Subscriptions,
    /// A subscription identifier, which the service does not know.
    SubscriptionIdentifier,
    /// More messages in a second than are taken; this one was dropped.
    PublishRate,
    /// The connection has lasted as long as it may.
    ConnectionLife,
    /// A packet that cannot be read.
    Malformed,
    /// A packet that has no place here: a second CONNECT, an AUTH.
    Protocol,
}
