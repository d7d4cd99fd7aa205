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

use std::future::{Future, IntoFuture as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use crate::connection::{ConnectionState, ConnectionWatch};
use crate::error::{ProviderErrorKind, PublishError};
use crate::message::{Message, OutboundMessage, QoS};
use crate::payload::{Empty, Json};
use crate::provider::{BoxFuture, MaybeSendSync, Provider};
use crate::pubsub::PubSub;
use crate::receipt::{Delivered, PublishStage};
use crate::subscription::{Event, Subscription};
use crate::topic::{ParentLevel, ReservedTopics, TopicFilter, TopicName};

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
    /// How long to wait for what shall come; 10 seconds by default.
    pub patience: Duration,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            max_qos: QoS::ExactlyOnce,
            retain: Retain::Kept,
            payload_len: 100_000,
            topic_prefix: "contract".into(),
            patience: Duration::from_secs(10),
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
/// When the provider breaks a clause; the message names the clause.
pub async fn check(fixture: &dyn Fixture) {
    round_trip(&Bench::new(fixture, "round_trip").await).await;
    publishing_connects(&Bench::new(fixture, "publishing_connects").await).await;
    states_of_a_life(&Bench::new(fixture, "states_of_a_life").await).await;
    wildcards(&Bench::new(fixture, "wildcards").await).await;
    once_however_many_filters(&Bench::new(fixture, "once_however_many_filters").await).await;
    order(&Bench::new(fixture, "order").await).await;
    outcomes(&Bench::new(fixture, "outcomes").await).await;
    subscribers_come_and_go(&Bench::new(fixture, "subscribers_come_and_go").await).await;
    partial_unsubscribe(&Bench::new(fixture, "partial_unsubscribe").await).await;
    leave_and_come_back(&Bench::new(fixture, "leave_and_come_back").await).await;
    nothing_leaks(&Bench::new(fixture, "nothing_leaks").await).await;
    refusals_stand_alone(&Bench::new(fixture, "refusals_stand_alone").await).await;
    retained_messages(&Bench::new(fixture, "retained_messages").await).await;
    interruptions_are_survived(&Bench::new(fixture, "interruptions_are_survived").await).await;
    replacement(&Bench::new(fixture, "replacement").await).await;
    closing(&Bench::new(fixture, "closing").await).await;
}

/// A payload comes as it was sent, with its topic and the provider's name.
async fn round_trip(bench: &Bench<'_>) {
    let mut messages = bench.subscribe("#").await;
    let long = vec![0xa5; bench.can.payload_len];
    let payloads: [&[u8]; 5] = [b"text", b"\xff\x00\xfe", b"", b"{}", &long];
    for (n, payload) in payloads.into_iter().enumerate() {
        let topic = bench.topic(&format!("level/{n}"));
        bench.publish(&topic, Bytes::copy_from_slice(payload)).await;
        let message = bench.next(&mut messages).await;
        assert_eq!(message.topic, topic.as_str(), "{}: topic", bench.clause);
        assert_eq!(message.payload, payload, "{}: payload", bench.clause);
        assert_eq!(message.provider, NAME, "{}: provider", bench.clause);
        assert!(
            !message.retain,
            "{}: a new message is not marked as retained",
            bench.clause
        );
    }
    let topic = bench.topic("json");
    let sent = bench.pubsub.publish(&topic, Json(&[1, 2])).await;
    assert!(sent.is_ok(), "{}: {sent:?}", bench.clause);
    let message = bench.next(&mut messages).await;
    assert_eq!(
        message.json::<Vec<u8>>().ok(),
        Some(vec![1, 2]),
        "{}: JSON",
        bench.clause
    );
}

/// A publish needs no subscription before it.
async fn publishing_connects(bench: &Bench<'_>) {
    bench.publish(&bench.topic("a"), "x").await;
    let state = bench.watch().current().state;
    assert_eq!(state, ConnectionState::Connected, "{}", bench.clause);
}

/// The states come in Amplify's order, each once.
async fn states_of_a_life(bench: &Bench<'_>) {
    let mut watch = bench.watch();
    let messages = bench.subscribe("a").await;
    bench
        .in_time("unsubscribe", messages.unsubscribe())
        .await
        .ok();
    bench.in_time("close", bench.pubsub.close()).await.ok();
    let mut states = Vec::new();
    while let Some(status) = bench
        .in_time("the end of the states", watch.changed())
        .await
    {
        states.push(status.state);
    }
    let begin = [
        ConnectionState::Disconnected,
        ConnectionState::Connecting,
        ConnectionState::Connected,
    ];
    assert!(
        states.starts_with(&begin),
        "{}: began with {states:?}",
        bench.clause
    );
    let end = [
        ConnectionState::ConnectedPendingDisconnect,
        ConnectionState::Disconnected,
    ];
    assert!(
        states.ends_with(&end),
        "{}: ended with {states:?}",
        bench.clause
    );
    let repeated = states.windows(2).any(|pair| pair.first() == pair.last());
    assert!(
        !repeated,
        "{}: a state came twice: {states:?}",
        bench.clause
    );
}

/// Wildcards match as the specification says, but for what the provider declares.
async fn wildcards(bench: &Bench<'_>) {
    let rules = bench.provider.matching_rules();
    let mut one = bench.subscribe("+/b").await;
    let mut below = bench.subscribe("a/#").await;
    for topic in ["a/b", "a", "a/b/c", "x/b", "a//c", "last/b", "a/last"] {
        bench.publish(&bench.topic(topic), topic).await;
    }
    let mut seen = bench.texts_until(&mut one, "last/b").await;
    assert_eq!(seen, ["a/b", "x/b", "last/b"], "{}: `+`", bench.clause);
    seen = bench.texts_until(&mut below, "a/last").await;
    let mut want = vec!["a/b", "a", "a/b/c", "a//c", "a/last"];
    if rules.parent_level == ParentLevel::BelowOnly {
        want.remove(1);
    }
    assert_eq!(seen, want, "{}: `#`", bench.clause);
    if rules.reserved_topics == ReservedTopics::NamedExplicitly {
        let filter = TopicFilter::new("#").map(|filter| {
            TopicName::new("$reserved").map(|name| filter.matches_with(&name, rules))
        });
        assert_eq!(filter, Ok(Ok(false)), "{}: `$`", bench.clause);
    }
}

/// A message comes once to each subscription, however many of its filters match.
async fn once_however_many_filters(bench: &Bench<'_>) {
    let filters = ["o/#", "o/+", "o/1", "last"].map(|filter| bench.topic(filter));
    let mut many = bench.subscribe_all(&filters).await;
    let mut single = bench.subscribe("+/1").await;
    let mut last = bench.subscribe("last").await;
    bench.publish(&bench.topic("o/1"), "x").await;
    bench.publish(&bench.topic("last"), "last").await;
    assert_eq!(
        bench.texts_until(&mut many, "last").await,
        ["x", "last"],
        "{}",
        bench.clause
    );
    assert_eq!(
        bench.texts_until(&mut last, "last").await,
        ["last"],
        "{}",
        bench.clause
    );
    assert_eq!(
        bench.texts_until(&mut single, "x").await,
        ["x"],
        "{}",
        bench.clause
    );
}

/// Messages of one publisher, topic and assurance come in order and none is missing.
async fn order(bench: &Bench<'_>) {
    for qos in bench.assurances() {
        let name = format!("{qos:?}");
        let topic = bench.topic(&name);
        let subscribing = bench.pubsub.subscribe(&topic).qos(qos).into_future();
        let messages = bench.in_time("the subscription", subscribing).await;
        let mut messages = messages.unwrap_or_else(|error| panic!("{}: {error:?}", bench.clause));
        let sent: Vec<_> = (0..100)
            .map(|n| bench.pubsub.publish(&topic, n.to_string()).qos(qos).send())
            .collect();
        for publishing in sent {
            let outcome = bench.in_time("the outcome", publishing).await;
            assert!(outcome.is_ok(), "{}: {qos:?}: {outcome:?}", bench.clause);
        }
        for n in 0..100 {
            let message = bench.next(&mut messages).await;
            assert_eq!(message.payload, n.to_string(), "{}: {qos:?}", bench.clause);
            assert_eq!(message.qos, qos, "{}: assurance", bench.clause);
        }
    }
}

/// A receipt tells the truth for each assurance, and its stages go up to the end.
async fn outcomes(bench: &Bench<'_>) {
    let _kept_open = bench.subscribe("x").await;
    for qos in bench.assurances() {
        let topic = bench.topic("x");
        let tickets = bench.pubsub.publish(&topic, "x").qos(qos).send_each();
        let tickets = tickets.unwrap_or_else(|error| panic!("{}: {error:?}", bench.clause));
        for mut ticket in tickets {
            let stage = ticket.receipt.reached(PublishStage::Written);
            let stage = bench.in_time("the stage", stage).await;
            assert!(
                stage
                    .as_ref()
                    .is_ok_and(|stage| *stage >= PublishStage::Written),
                "{}: {stage:?}",
                bench.clause
            );
            let outcome = bench.in_time("the outcome", ticket.receipt).await;
            let right = match qos {
                QoS::AtMostOnce => matches!(outcome, Ok(Delivered::Sent)),
                _ => matches!(outcome, Ok(Delivered::Confirmed)),
            };
            assert!(right, "{}: {qos:?}: {outcome:?}", bench.clause);
        }
    }
}

/// One subscriber leaves, another one of the same filter goes on.
async fn subscribers_come_and_go(bench: &Bench<'_>) {
    let mut stays = bench.subscribe("a").await;
    let leaves = bench.subscribe("a").await;
    let dropped = bench.subscribe("a").await;
    bench.publish(&bench.topic("a"), "1").await;
    let left = bench.in_time("unsubscribe", leaves.unsubscribe()).await;
    assert!(left.is_ok(), "{}: {left:?}", bench.clause);
    drop(dropped);
    bench.publish(&bench.topic("a"), "2").await;
    assert_eq!(
        bench.texts_until(&mut stays, "2").await,
        ["1", "2"],
        "{}",
        bench.clause
    );
}

/// A part of a subscription can be given up.
async fn partial_unsubscribe(bench: &Bench<'_>) {
    let filters = ["a", "b"].map(|filter| bench.topic(filter));
    let mut messages = bench.subscribe_all(&filters).await;
    let gone = TopicFilter::new(filters[0].as_str());
    let gone = gone.unwrap_or_else(|error| panic!("{}: {error}", bench.clause));
    let left = bench
        .in_time("unsubscribe", messages.unsubscribe_from(&[gone]))
        .await;
    assert!(left.is_ok(), "{}: {left:?}", bench.clause);
    for topic in &filters {
        bench.publish(topic, topic.clone()).await;
    }
    let next = bench.next(&mut messages).await;
    assert_eq!(next.topic, filters[1].as_str(), "{}", bench.clause);
}

/// Leaving a filter and coming back at once keeps the order of the two.
async fn leave_and_come_back(bench: &Bench<'_>) {
    let topic = bench.topic("a");
    let mut messages = bench.subscribe("a").await;
    for n in 0..20 {
        drop(messages);
        messages = bench.subscribe("a").await;
        bench.publish(&topic, n.to_string()).await;
        let message = bench.next(&mut messages).await;
        assert_eq!(message.payload, n.to_string(), "{}", bench.clause);
    }
}

/// No way of leaving leaves a filter behind: dropped, cancelled, unsubscribed.
async fn nothing_leaks(bench: &Bench<'_>) {
    let stays = bench.subscribe("stays").await;
    let Some(before) = bench.filters_held().await else {
        return;
    };
    drop(bench.subscribe("dropped").await);
    let unsubscribed = bench.subscribe("unsubscribed").await;
    bench
        .in_time("unsubscribe", unsubscribed.unsubscribe())
        .await
        .ok();
    {
        let cancelled = bench.pubsub.subscribe(bench.topic("cancelled"));
        let mut cancelled = pin!(cancelled.into_future());
        poll_fn(|cx| Poll::Ready(cancelled.as_mut().poll(cx).is_ready())).await;
    }
    // Released without an answer, so the service may hear of it a little later.
    bench
        .in_time("the service to hold no more filters than before", async {
            while bench.filters_held().await != Some(before) {
                bench.fixture.sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    drop(stays);
    let stats = bench.pubsub.routing_stats(NAME);
    let stats = stats.unwrap_or_else(|error| panic!("{}: {error}", bench.clause));
    assert_eq!(
        (stats.filters, stats.subscriptions),
        (0, 0),
        "{}",
        bench.clause
    );
}

/// A refused filter is told, and takes no other down.
async fn refusals_stand_alone(bench: &Bench<'_>) {
    let Some(refused) = bench.fixture.refused_filter() else {
        return;
    };
    let granted = bench.topic("granted");
    let filters = [refused.to_string(), granted.clone()];
    let mut messages = bench.subscribe_all(&filters).await;
    for outcome in messages.outcomes() {
        let right = outcome.result.is_err() == (outcome.filter == refused);
        assert!(right, "{}: {outcome:?}", bench.clause);
    }
    bench.publish(&granted, "x").await;
    assert_eq!(
        bench.next(&mut messages).await.payload,
        "x",
        "{}",
        bench.clause
    );
    let alone = bench
        .in_time(
            "the refusal",
            bench.pubsub.subscribe(&refused).into_future(),
        )
        .await;
    assert!(
        alone.is_err(),
        "{}: a refused filter alone is an error",
        bench.clause
    );
}

/// A retained message comes to whoever subscribes later, once, until it is erased.
async fn retained_messages(bench: &Bench<'_>) {
    if bench.can.retain == Retain::NotKept {
        return;
    }
    let (state, last) = (bench.topic("state"), bench.topic("last"));
    let confirmed = bench.can.max_qos.min(QoS::AtLeastOnce);
    let kept = bench.pubsub.publish(&state, "kept").retain().qos(confirmed);
    let kept = bench.in_time("the outcome", kept.into_future()).await;
    assert!(kept.is_ok(), "{}: {kept:?}", bench.clause);
    let mut first = bench.subscribe("+").await;
    let message = bench.next(&mut first).await;
    assert!(
        message.payload == "kept" && message.retain,
        "{}: {message:?}",
        bench.clause
    );
    let mut second = bench.subscribe("+").await;
    let message = bench.next(&mut second).await;
    assert!(
        message.payload == "kept" && message.retain,
        "{}: {message:?}",
        bench.clause
    );
    let erased = bench.pubsub.publish(&state, Empty).retain().qos(confirmed);
    let erased = bench.in_time("the outcome", erased.into_future()).await;
    assert!(erased.is_ok(), "{}: {erased:?}", bench.clause);
    bench.publish(&last, "last").await;
    let seen = bench.texts_until(&mut first, "last").await;
    assert_eq!(
        seen,
        ["", "last"],
        "{}: the second subscriber's copy is its own",
        bench.clause
    );
    let mut third = bench.subscribe("+").await;
    bench.publish(&last, "last").await;
    assert_eq!(
        bench.texts_until(&mut third, "last").await,
        ["last"],
        "{}: erased",
        bench.clause
    );
}

/// A lost connection is made again, subscriptions go on, and the subscriber is told.
async fn interruptions_are_survived(bench: &Bench<'_>) {
    let mut watch = bench.watch();
    let mut events = bench.subscribe("a").await.events();
    bench
        .in_time("the connection", watch.reached(ConnectionState::Connected))
        .await;
    let Some(interruption) = bench.fixture.interrupt(&bench.provider) else {
        return;
    };
    bench.in_time("the interruption", interruption).await;
    let gap = bench.in_time("the gap", events.next()).await;
    assert!(
        matches!(gap, Some(Ok(Event::Gap(_)))),
        "{}: {gap:?}",
        bench.clause
    );
    let state = bench
        .in_time("the state", watch.reached(ConnectionState::Connected))
        .await;
    assert!(state.is_some(), "{}", bench.clause);
    bench.publish(&bench.topic("a"), "after").await;
    let after = bench.in_time("a message", events.next()).await;
    let right = matches!(&after, Some(Ok(Event::Message(message))) if message.payload == "after");
    assert!(right, "{}: {after:?}", bench.clause);
}

/// Subscriptions move over to a provider that takes the place of another.
async fn replacement(bench: &Bench<'_>) {
    let mut messages = bench.subscribe("a").await;
    let other = bench.fixture.provider().await;
    let replaced = bench.pubsub.replace_provider(NAME, other);
    let replaced = bench.in_time("the replacement", replaced).await;
    assert!(replaced.is_ok(), "{}: {replaced:?}", bench.clause);
    bench.publish(&bench.topic("a"), "x").await;
    assert_eq!(
        bench.next(&mut messages).await.payload,
        "x",
        "{}",
        bench.clause
    );
}

/// Closing sends what was accepted, ends the streams, and lasts.
async fn closing(bench: &Bench<'_>) {
    let mut messages = bench.subscribe("a").await;
    let topic = bench.topic("a");
    let qos = bench.can.max_qos;
    let publishing = bench.pubsub.publish(&topic, "x").qos(qos).send();
    let removed = bench
        .in_time("removal", bench.pubsub.remove_provider(NAME))
        .await;
    assert!(removed.is_ok(), "{}: {removed:?}", bench.clause);
    let outcome = bench.in_time("the outcome", publishing).await;
    assert!(
        outcome.is_ok(),
        "{}: accepted before the close: {outcome:?}",
        bench.clause
    );
    while let Some(message) = bench.in_time("the end", messages.next()).await {
        assert!(message.is_ok(), "{}: {message:?}", bench.clause);
    }
    let again = bench
        .in_time("a second close", bench.provider.close())
        .await;
    assert!(again.is_ok(), "{}: {again:?}", bench.clause);
    let late = TopicName::new(topic)
        .map(|topic| bench.provider.publish(OutboundMessage::new(topic, "late")));
    let late = late.unwrap_or_else(|error| panic!("{}: {error}", bench.clause));
    let late = bench.in_time("the outcome", late).await;
    assert!(
        matches!(&late, Err(PublishError::NotSent(error)) if error.kind() == ProviderErrorKind::Closed),
        "{}: {late:?}",
        bench.clause
    );
}

const NAME: &str = "under test";

/// One clause's own provider and topics.
struct Bench<'a> {
    fixture: &'a dyn Fixture,
    clause: &'static str,
    can: Capabilities,
    provider: Arc<dyn Provider>,
    pubsub: PubSub,
    root: String,
}

impl<'a> Bench<'a> {
    async fn new(fixture: &'a dyn Fixture, clause: &'static str) -> Self {
        // Topics are not used twice, since a service may remember them.
        static RUN: AtomicU64 = AtomicU64::new(0);
        let run = RUN.fetch_add(1, Ordering::Relaxed);
        let can = fixture.capabilities();
        let provider = fixture.provider().await;
        let pubsub = PubSub::new();
        let added = pubsub.add_provider(NAME, Arc::clone(&provider));
        assert!(added.is_ok(), "{clause}: {added:?}");
        let root = format!("{}/{}-{run}", can.topic_prefix, std::process::id());
        Self {
            fixture,
            clause,
            can,
            provider,
            pubsub,
            root,
        }
    }

    fn topic(&self, rest: &str) -> String {
        format!("{}/{rest}", self.root)
    }

    fn assurances(&self) -> impl Iterator<Item = QoS> {
        let max = self.can.max_qos;
        [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
            .into_iter()
            .filter(move |q| *q <= max)
    }

    fn watch(&self) -> ConnectionWatch {
        let watch = self.pubsub.connection(NAME);
        watch.unwrap_or_else(|error| panic!("{}: {error}", self.clause))
    }

    async fn subscribe(&self, rest: &str) -> Subscription {
        self.subscribe_all(&[self.topic(rest)]).await
    }

    async fn subscribe_all(&self, filters: &[String]) -> Subscription {
        let subscribing = self.pubsub.subscribe(filters).into_future();
        let subscription = self.in_time("the subscription", subscribing).await;
        subscription.unwrap_or_else(|error| panic!("{}: {error:?}", self.clause))
    }

    async fn publish(&self, topic: &str, payload: impl Into<Bytes>) {
        let publishing = self.pubsub.publish(topic, payload.into()).into_future();
        let outcome = self.in_time("the outcome of a publish", publishing).await;
        assert!(outcome.is_ok(), "{}: publish: {outcome:?}", self.clause);
    }

    async fn next(&self, messages: &mut Subscription) -> Message {
        match self.in_time("a message", messages.next()).await {
            Some(Ok(message)) => message,
            other => panic!("{}: a message should come, not {other:?}", self.clause),
        }
    }

    async fn texts_until(&self, messages: &mut Subscription, last: &str) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            let message = self.next(messages).await;
            texts.push(String::from_utf8_lossy(&message.payload).into_owned());
            if message.payload == last {
                return texts;
            }
        }
    }

    async fn filters_held(&self) -> Option<usize> {
        match self.fixture.filters_held(&self.provider) {
            Some(held) => Some(self.in_time("the number of filters", held).await),
            None => None,
        }
    }

    async fn in_time<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut late = self.fixture.sleep(self.can.patience);
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(value);
            }
            assert!(
                late.as_mut().poll(cx).is_pending(),
                "{}: {what} did not come in time",
                self.clause
            );
            Poll::Pending
        })
        .await
    }
}
