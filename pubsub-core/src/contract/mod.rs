//! What every provider keeps to, as a suite that it runs against itself.
//!
//! Implement [`Fixture`] for the provider and its service, and call [`check`] in a test:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use pubsub_core::contract::{self, Fixture};
//! use pubsub_core::{BoxFuture, MemoryProvider, Provider};
//!
//! struct InProcess;
//!
//! impl Fixture for InProcess {
//!     fn provider(&self) -> BoxFuture<'_, Arc<dyn Provider>> {
//!         Box::pin(async { Arc::new(MemoryProvider::new()) as Arc<dyn Provider> })
//!     }
//!
//!     fn sleep(&self, time: Duration) -> BoxFuture<'_, ()> {
//!         Box::pin(tokio::time::sleep(time))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! contract::check(&InProcess).await;
//! # }
//! ```
//!
//! The suite waits for what shall come and never for what shall not: that nothing came is shown by what
//! was sent after it and came first.

mod bench;
mod clauses;

use std::sync::Arc;
use std::time::Duration;

use crate::message::QoS;
use crate::provider::{BoxFuture, MaybeSendSync, Provider};
use crate::topic::TopicFilter;
use bench::Bench;

/// A provider under test and the service behind it.
pub trait Fixture: MaybeSendSync {
    /// A new provider, not attached yet: a client of its own of the service, which all the providers
    /// of one fixture share or each has for itself.
    fn provider(&self) -> BoxFuture<'_, Arc<dyn Provider>>;

    /// Waits, by whatever clock the provider runs on.
    fn sleep(&self, time: Duration) -> BoxFuture<'_, ()>;

    /// What the service can do.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// A filter that the service refuses, if there is one.
    fn refused_filter(&self) -> Option<TopicFilter> {
        None
    }

    /// How many filters the service holds for this provider now, if it can be asked. Needed to show that
    /// nothing leaks.
    fn filters_held<'a>(&'a self, provider: &'a Arc<dyn Provider>) -> Option<BoxFuture<'a, usize>> {
        let _ = provider;
        None
    }

    /// Cuts the provider's connection so that it has to make a new one, if that can be done. Needed to
    /// show that subscriptions survive and that the gap is told.
    fn interrupt<'a>(&'a self, provider: &'a Arc<dyn Provider>) -> Option<BoxFuture<'a, ()>> {
        let _ = provider;
        None
    }
}

/// What a service can do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// The highest assurance it knows; all by default.
    pub max_qos: QoS,
    /// Whether it keeps retained messages; it does by default.
    pub retain: Retain,
    /// A payload size in bytes that it takes; 100,000 by default.
    pub payload_len: usize,
    /// What every topic of the suite begins with; `contract` by default.
    pub topic_prefix: String,
    /// How long to wait for what shall come; a minute by default, which only what hangs takes.
    pub patience: Duration,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            max_qos: QoS::ExactlyOnce,
            retain: Retain::Kept,
            payload_len: 100_000,
            topic_prefix: "contract".into(),
            patience: Duration::from_secs(60),
        }
    }
}

/// Whether a service keeps retained messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "two ways, closed")]
pub enum Retain {
    /// It does.
    Kept,
    /// It does not, or not for all topics.
    NotKept,
}

/// Runs every clause, one after another, each with a provider of its own.
///
/// # Panics
/// When the provider breaks a clause; the message says which, and what it demands.
pub async fn check(fixture: &dyn Fixture) {
    /// Runs a clause, which names itself with the sentence beside it when it is broken.
    macro_rules! clauses {
        ($($clause:ident: $demand:literal,)*) => {$(
            let clause = concat!(stringify!($clause), " (", $demand, ")");
            clauses::$clause(&Bench::new(fixture, clause).await).await;
        )*};
    }
    clauses! {
        round_trip: "a payload comes as it was sent, with its topic and the provider's name",
        publishing_connects: "a publish needs no subscription before it",
        states_of_a_life: "the states come in Amplify's order, each once",
        wildcards: "wildcards match as the specification says, but for what the provider declares",
        once_however_many_filters: "a message comes once to each subscription, however many of its filters match",
        order: "messages of one publisher, topic and assurance come in order and none is missing",
        outcomes: "a receipt tells the truth for each assurance, and its stages go up to the end",
        subscribers_come_and_go: "one subscriber leaves, another one of the same filter goes on",
        partial_unsubscribe: "a part of a subscription can be given up",
        leave_and_come_back: "leaving a filter and coming back at once keeps the order of the two",
        nothing_leaks: "no way of leaving leaves a filter behind: dropped, cancelled, unsubscribed",
        refusals_stand_alone: "a refused filter is told, and takes no other down",
        retained_messages: "a retained message comes to whoever subscribes later, once, until it is erased",
        interruptions_are_survived: "a lost connection is made again, subscriptions go on, and the subscriber is told",
        replacement: "subscriptions move over to a provider that takes the place of another",
        closing: "closing sends what was accepted, ends the streams, and lasts",
    }
}
