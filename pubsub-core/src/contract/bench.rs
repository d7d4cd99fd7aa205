//! One clause's own provider and topics, and waiting with a limit.

use std::future::{Future, IntoFuture as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;

use super::{Capabilities, Fixture};
use crate::connection::ConnectionWatch;
use crate::message::{Message, QoS};
use crate::provider::Provider;
use crate::pubsub::PubSub;
use crate::subscription::Subscription;

pub(super) const NAME: &str = "under test";

/// One clause's own provider and topics.
pub(super) struct Bench<'a> {
    pub(super) fixture: &'a dyn Fixture,
    pub(super) clause: &'static str,
    pub(super) can: Capabilities,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) pubsub: PubSub,
    root: String,
}

impl<'a> Bench<'a> {
    pub(super) async fn new(fixture: &'a dyn Fixture, clause: &'static str) -> Self {
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

    pub(super) fn topic(&self, rest: &str) -> String {
        format!("{}/{rest}", self.root)
    }

    pub(super) fn assurances(&self) -> impl Iterator<Item = QoS> {
        let max = self.can.max_qos;
        [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
            .into_iter()
            .filter(move |q| *q <= max)
    }

    pub(super) fn watch(&self) -> ConnectionWatch {
        let watch = self.pubsub.connection(NAME);
        watch.unwrap_or_else(|error| panic!("{}: {error}", self.clause))
    }

    pub(super) async fn subscribe(&self, rest: &str) -> Subscription {
        self.subscribe_all(&[self.topic(rest)]).await
    }

    pub(super) async fn subscribe_all(&self, filters: &[String]) -> Subscription {
        let subscribing = self.pubsub.subscribe(filters).into_future();
        let subscription = self.in_time("the subscription", subscribing).await;
        subscription.unwrap_or_else(|error| panic!("{}: {error:?}", self.clause))
    }

    pub(super) async fn publish(&self, topic: &str, payload: impl Into<Bytes>) {
        let publishing = self.pubsub.publish(topic, payload.into()).into_future();
        let outcome = self.in_time("the outcome of a publish", publishing).await;
        assert!(outcome.is_ok(), "{}: publish: {outcome:?}", self.clause);
    }

    pub(super) async fn next(&self, messages: &mut Subscription) -> Message {
        match self.in_time("a message", messages.next()).await {
            Some(Ok(message)) => message,
            other => panic!("{}: a message should come, not {other:?}", self.clause),
        }
    }

    pub(super) async fn texts_until(&self, messages: &mut Subscription, last: &str) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            let message = self.next(messages).await;
            texts.push(String::from_utf8_lossy(&message.payload).into_owned());
            if message.payload == last {
                return texts;
            }
        }
    }

    pub(super) async fn filters_held(&self) -> Option<usize> {
        match self.fixture.filters_held(&self.provider) {
            Some(held) => Some(self.in_time("the number of filters", held).await),
            None => None,
        }
    }

    pub(super) async fn in_time<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
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
