//! Sans-IO MQTT client session: packet identifiers, QoS flows, keep alive and resumption without sockets or clocks.
//!
//! [`Session`] is a state machine. Bytes from the broker go in, bytes for the broker come out; commands go in, [`Event`]s
//! come out; the time is an argument. It runs on any runtime, or none, and in a test on a clock made up for it.
//!
//! Two lives are kept apart, by the specification's names: the *Session* (messages in flight, packet identifiers,
//! subscriptions) survives reconnects; the *Network Connection* (keep alive, quotas, topic aliases) ends with its transport.
//! What follows from that, and the loop that drives the machine, is shown at [`Session`].
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod acknowledged;
mod alias;
mod command;
mod config;
mod connack;
mod connection;
mod control;
mod direct;
mod early;
mod encode;
mod error;
mod event;
mod inbound;
mod input;
mod job;
mod keep_alive;
mod outbound;
mod pace;
mod packet_id;
mod persist;
mod plain;
mod publish;
mod quota;
mod receive;
mod session;
mod skip;
mod stats;
mod subscribe;
mod time;
mod transmit;

pub use command::{Disconnect, WillOnDisconnect};
pub use config::{
    AssignedClientId, Authentication, BrokerOnlySession, CleanStart, Config, ConfigError,
    InFlightOnLostSession, OversizedInbound, Persistence, ReceiveOverrun, ResponseInformation,
    Resubscribe, ResubscribeRetained, SubscribeBeforeConnack, Will,
};
pub use direct::Published;
pub use error::{
    ConnectionError, LocalLimit, ProtocolViolation, PublishError, PublishErrorReason, StateError,
    SubscribeError, Timeout,
};
pub use event::{
    AckToken, Acknowledged, AuthData, Availability, BrokerLimits, ConnectRefused, Connected,
    ConnectionStage, DisconnectCause, Disconnected, Dup, Event, Indeterminate, Message, PublishId,
    PublishOutcome, Recipient, ServerDisconnect, SessionPresence, SkipReason, SkippedMessage,
    SubscribeId, TransportEnd, UnsubscribeId,
};
pub use pace::PublishPace;
pub use persist::{PersistBatch, RecordKey, RecordValue, RestoreError, SentProgress};
pub use plain::{PlainAcknowledgements, PlainMessages};
pub use publish::{Publish, PublishProperties, Retain};
pub use session::{InputProgress, Session};
pub use stats::{Counters, Stats};
pub use subscribe::{
    NoLocal, Resubscribed, RetainAsPublished, SubscribeOutcome, SubscribeResult, Subscription,
    UnsubscribeResult,
};
pub use time::Timestamp;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
