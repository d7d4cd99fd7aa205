//! Publish and subscribe, whatever carries it.
//!
//! An application makes a [`PubSub`], adds [`Provider`]s to it under names of its choice, and from then on
//! publishes and subscribes:
//!
//! ```
//! use pubsub_core::{Json, MemoryProvider, PubSub};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pubsub = PubSub::new();
//! pubsub.add_provider("memory", MemoryProvider::new())?;
//!
//! let mut numbers = pubsub.subscribe("numbers/+").await?.json::<u64>();
//! pubsub.publish(["numbers/odd", "numbers/even"], Json(7)).await?;
//!
//! while let Some(number) = numbers.next().await {
//!     let number = number?;
//!     println!("{} says {}", number.message.topic, number.value);
//! #   if number.message.topic == "numbers/even" { break }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Where things are
//!
//! * [`PubSub`]: the registry of providers, and the verbs.
//! * [`Publish`], [`Publishing`], [`PublishReceipt`]: a message on its way, and what became of it.
//! * [`Subscribe`], [`Subscription`]: a stream of messages; as [`Events`] with gaps and losses shown, as
//!   [`Deliveries`] with confirming left to the subscriber, as [`Typed`] with payloads decoded.
//! * [`QueueLimits`], [`HoldLimits`]: what a slow subscriber may cost, and what happens beyond.
//! * [`ConnectionWatch`]: how a provider stands, with the reason.
//! * [`PublishError`], [`SubscribeError`], [`SubscriptionError`], [`ProviderError`]: what went wrong, one link of a chain of
//!   causes each; [`WithCauses`] writes the whole chain.
//! * [`TopicName`], [`TopicFilter`], [`TopicTrie`]: what is published to, what is subscribed to, and an
//!   index from one to the other that stands alone, with a [`MatchCache`] for topics that come often.
//! * [`Provider`], [`DeliverySink`]: for those who write a provider, with a contract suite behind the
//!   feature `testing`.
//!
//! # Time and tasks
//!
//! Nothing here spawns a task, reads a clock or blocks. What takes time is the provider's, which also tells
//! the time where a limit needs it ([`DeliverySink::advance_clock`]).
#![forbid(unsafe_code)]

mod causes;
mod connection;
#[cfg(feature = "testing")]
pub mod contract;
mod error;
mod few;
mod filters;
mod interest;
mod into;
mod limits;
mod matching;
mod memory;
mod message;
mod payload;
mod provider;
mod publish;
mod pubsub;
mod queue;
mod receipt;
mod router;
mod routes;
mod shared_receipt;
mod subscribe;
mod subscription;
mod topic;
mod topic_error;
mod trie;

pub use causes::WithCauses;
pub use connection::{
    ConnectionFacts, ConnectionState, ConnectionStatus, ConnectionWatch, Intent, KeepAlive, Link,
    Network,
};
pub use error::{
    BadPayload, FilterLost, Overflow, ProviderError, ProviderErrorKind, PublishError, Refusal,
    RefusalKind, RegistryError, Retry, SubscribeError, SubscriptionError, UnknownProvider,
};
pub use into::{IntoFilters, IntoTopics};
pub use limits::{HoldLimits, HoldPolicy, OverflowPolicy, QueueLimits, SubscriptionStats};
pub use matching::{MatchingRules, ParentLevel, ReservedTopics};
pub use memory::MemoryProvider;
pub use message::{
    Message, OfflinePolicy, OutboundMessage, PayloadFormat, Properties, PropertyFields,
    ProviderName, QoS,
};
pub use payload::{Decode, Empty, Encode, Encoded, IntoPayload, Json, JsonCodec, PayloadError};
pub use provider::{
    BoxFuture, Continuity, Delivery, DeliveryReceipt, DeliverySink, Demand, Drive, FilterOutcome,
    FilterRequest, Gap, GapCause, MaybeSendSync, OwnMessages, Provider, ReceiptSink, RetainMark,
    RetainedMessages, Settlement,
};
pub use publish::{Publish, PublishOutcome, PublishTicket, Publishing};
pub use pubsub::{PubSub, RoutingStats};
pub use receipt::{Delivered, PublishReceipt, PublishSettler, PublishStage, Receipts};
pub use subscribe::Subscribe;
pub use subscription::{Deliveries, Event, Events, Subscription, Typed, TypedMessage};
pub use topic::{MAX_TOPIC_LEN, TopicFilter, TopicName};
pub use topic_error::TopicError;
pub use trie::{MatchCache, TopicTrie};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
