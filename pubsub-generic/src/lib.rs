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
//! Events of the `tracing` crate under the target `pubsub_generic`, with no other fields than `client_id`, `attempt`,
//! `delay`, `error`, `gap` and `session_resumed`. No payload, topic, credential or URL is ever logged.
#![forbid(unsafe_code)]

mod closing;
#[cfg(feature = "ws")]
mod config;
mod connect;
mod convert;
mod copies;
mod driver;
mod endpoints;
mod error;
mod inbox;
mod keeper;
mod login;
mod operations;
mod options;
mod overlap;
mod provider;
mod reconnect;
mod renewal;
mod stats;
mod store;
mod subscriptions;
mod supervisor;
mod tokens;
mod transport;
mod unclaimed;
#[cfg(feature = "ws")]
mod ws;

pub use connect::{
    Attempt, Connect, ConnectError, ConnectErrorKind, CredentialFreshness, Opened, Refusal, Retry,
};
pub use endpoints::EndpointOrder;
pub use error::{ConnectRefusal, ConnectionError, Displaced, HungUpOn, LimitExceeded};
pub use keeper::RestoredPublish;
pub use login::{Login, LoginSource};
pub use options::{
    CopyDetection, DEFAULT_NAME, IdleConnection, Limits, MqttOptions, OfflineOverflow,
    OptionsError, SessionMode,
};
pub use provider::MqttProvider;
pub use reconnect::{Jitter, Reconnect};
pub use renewal::Renewal;
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
pub use mqtt_session::{PublishPace, Retain, Will};
pub use pubsub_core::{self as core, Json, Message, OfflinePolicy, PubSub, QoS, Subscription};

#[cfg(all(doctest, feature = "ws"))]
#[doc = include_str!("../README.md")]
struct Readme;
