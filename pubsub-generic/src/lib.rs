//! Publish and subscribe over any MQTT broker that speaks WebSocket: an honest publish, subscriptions that survive a
//! reconnect.
//!
//! [`MqttProvider`] is a [`Provider`](pubsub_core::Provider) for [`PubSub`]: one task owns the connection, makes it again
//! when it is lost, and restores the subscriptions. [`MqttOptions`] say how. The protocol itself is in `mqtt-session`, the
//! WebSocket in `ws-transport`; here is what drives the two.
//!
//! Over something other than a WebSocket, or with a URL that is made anew for each attempt, bring your own [`Connect`].
//!
//! # Logging
//!
//! Through the `tracing` crate. A span `provider` for each provider, with `provider` (the name that it was added under) and
//! `client_id`; in it a span `connection` for each connection and the attempt at it, with `connection` (how many there were
//! before, plus one), `attempt` and `endpoint` (host and port). In these, events under the target `pubsub_generic`, with no
//! other fields than `client_id`, `attempt`, `endpoint`, `delay`, `error` (with its causes), `gap` and `session_resumed`. No payload, topic,
//! credential, query or user property is ever logged.
//!
//! # Metrics
//!
//! With the feature `metrics`, through the `metrics` crate. The recorder has to be installed before the provider is added
//! to a [`PubSub`]. Each metric has the label `provider`, which is the name that it was added under.
//!
//! | metric | kind | |
//! |---|---|---|
//! | `pubsub_mqtt_connected` | gauge | 1 while MQTT is connected, else 0 |
//! | `pubsub_mqtt_connections_total` | counter | connections that the broker accepted |
//! | `pubsub_mqtt_connection_failures_total` | counter | attempts that failed, and connections that were lost |
//! | `pubsub_mqtt_renewals_total` | counter | connections [replaced](Renewal) ahead of their end |
//! | `pubsub_mqtt_gap_seconds` | histogram | time without connection while subscribed; label `cause`: `planned`, `loss` or `restart` |
//! | `pubsub_mqtt_round_trip_seconds` | histogram | from PINGREQ to PINGRESP |
//! | `pubsub_mqtt_messages_received_total` | counter | messages that arrived |
//! | `pubsub_mqtt_publishes_total` | counter | publishes settled; label `outcome`: `delivered` or `failed` |
//! | `pubsub_mqtt_publishes_pending` | gauge | publishes accepted and not settled |
//! | `pubsub_mqtt_publishes_pending_bytes` | gauge | their topics and payloads |
//! | `pubsub_mqtt_subscriptions` | gauge | topic filters subscribed |
//! | `pubsub_mqtt_received_bytes_total`, `pubsub_mqtt_sent_bytes_total` | counter | MQTT bytes |
#![forbid(unsafe_code)]

mod choices;
mod closing;
#[cfg(feature = "ws")]
mod config;
mod connect;
mod convert;
mod copies;
mod driver;
mod endings;
mod endpoints;
mod error;
mod inbox;
mod intake;
mod keeper;
mod line;
mod login;
mod meters;
mod operations;
mod options;
mod options_error;
mod overlap;
mod pending;
mod provider;
mod reconnect;
mod renewal;
mod renewing;
mod request;
mod seat;
mod stats;
mod store;
mod subscriptions;
mod supervisor;
mod tokens;
mod transmit;
mod transport;
mod unclaimed;
#[cfg(feature = "ws")]
mod ws;

pub use choices::{CopyDetection, IdleConnection, Limits, OfflineOverflow, SessionMode};
pub use connect::{
    Attempt, Connect, ConnectError, ConnectErrorKind, CredentialFreshness, Opened, Refusal, Retry,
};
pub use endpoints::EndpointOrder;
pub use error::{ConnectRefusal, ConnectionError, Displaced, HungUpOn, LimitExceeded};
pub use keeper::RestoredPublish;
pub use login::{Login, LoginSource};
pub use options::{DEFAULT_NAME, MqttOptions};
pub use options_error::OptionsError;
pub use provider::MqttProvider;
pub use reconnect::{Jitter, Reconnect};
pub use renewal::Renewal;
pub use request::{
    NotARequest, RequestError, Requester, RequesterOptions, RequesterStats, reply_to,
};
pub use stats::Stats;
pub use store::{
    Change, MemorySessionStore, Record, SessionStore, StillStored, StoreError, StoreErrorKind,
};
#[cfg(feature = "durable")]
pub use store::{FileSessionStore, FileStoreOptions, SyncPolicy};
pub use transport::{Received, Transport, TransportError, TransportErrorKind};
#[cfg(feature = "ws")]
pub use ws::{DEFAULT_SUBPROTOCOL, PlainWs, WsConnect, WsTransport};

// What a program needs beside these.
pub use mqtt_codec::{ProtocolVersion, ReasonCode};
pub use mqtt_session::{PublishPace, Retain, SubscribeBeforeConnack, Will};
pub use pubsub_core::{self as core, Json, Message, OfflinePolicy, PubSub, QoS, Subscription};

#[cfg(all(doctest, feature = "ws", feature = "durable"))]
#[doc = include_str!("../README.md")]
struct Readme;
