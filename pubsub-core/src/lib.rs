//! Provider-agnostic publish and subscribe: messages, topics, a topic trie that routes to subscribers, and a registry of providers.
#![forbid(unsafe_code)]

mod connection;
#[cfg(feature = "testing")]
pub mod contract;
mod error;
mod memory;
mod message;
mod payload;
mod provider;
mod pubsub;
mod queue;
mod receipt;
mod router;
mod subscription;
mod topic;
mod trie;

pub use connection::{
    ConnectionFacts, ConnectionState, ConnectionStatus, ConnectionWatch, Intent, KeepAlive, Link,
    Network,
};
pub use error::{
    BadPayload, FilterLost, Overflow, ProviderError, ProviderErrorKind, PublishError, Refusal,
    RefusalKind, RegistryError, Retry, SubscribeError, SubscriptionError, UnknownProvider,
};
pub use memory::MemoryProvider;
pub use message::{
    Message, OfflinePolicy, OutboundMessage, PayloadFormat, Properties, PropertyFields,
    ProviderName, QoS,
};
pub use payload::{Decode, Empty, Encode, Encoded, IntoPayload, Json, JsonCodec, PayloadError};
pub use provider::{
    BoxFuture, Continuity, Delivery, DeliveryReceipt, DeliverySink, Demand, FilterOutcome,
    FilterRequest, Gap, MaybeSendSync, OwnMessages, Provider, ReceiptSink, RetainMark,
    RetainedMessages, Settlement,
};
pub use pubsub::{
    IntoFilters, IntoTopics, PubSub, Publish, PublishOutcome, PublishTicket, Publishing,
    RoutingStats, Subscribe,
};
pub use queue::{HoldLimits, HoldPolicy, OverflowPolicy, QueueLimits, SubscriptionStats};
pub use receipt::{Delivered, PublishReceipt, PublishSettler, PublishStage};
pub use subscription::{Deliveries, Event, Events, Subscription, Typed, TypedMessage};
pub use topic::{
    MAX_TOPIC_LEN, MatchingRules, ParentLevel, ReservedTopics, TopicError, TopicFilter, TopicName,
};
pub use trie::TopicTrie;
