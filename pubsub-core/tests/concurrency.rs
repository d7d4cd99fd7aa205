//! Many tasks at once, and futures dropped halfway.

use std::future::{IntoFuture as _, pending, ready};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use pubsub_core::*;

/// Subscriptions come and go on every thread while one stays: it misses nothing, order is kept, and in the
/// end nothing is left over.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_stays_while_others_come_and_go() {
    const MESSAGES: u64 = 2_000;
    let pubsub = PubSub::new();
    let provider = Arc::new(MemoryProvider::new());
    pubsub
        .add_provider("memory", Arc::clone(&provider))
        .unwrap();
    let mut stays = pubsub.subscribe(["fixed/+", "fixed/a"]).await.unwrap();

    let publisher = tokio::spawn({
        let pubsub = pubsub.clone();
        async move {
            for n in 0..MESSAGES {
                pubsub
                    .publish("fixed/a", n.to_string())
                    .qos(QoS::AtLeastOnce)
                    .await
                    .unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let mut others = Vec::new();
    for task in 0..8 {
        let pubsub = pubsub.clone();
        others.push(tokio::spawn(async move {
            for n in 0..300 {
                let filters = [format!("fixed/{task}"), "fixed/+".into(), format!("{n}/#")];
                let mut messages = pubsub.subscribe(filters).await.unwrap();
                match n % 3 {
                    0 => drop(messages),
                    1 => messages.unsubscribe().await.unwrap(),
                    _ => {
                        let own = TopicFilter::new(format!("fixed/{task}")).unwrap();
                        messages.unsubscribe_from(&[own]).await.unwrap();
                        // Publishing from within a consumer, to itself among others.
                        pubsub.publish(format!("{n}/x"), "x").await.unwrap();
                        while messages.next().await.unwrap().unwrap().payload != "x" {}
                    }
                }
            }
        }));
    }
    for n in 0..MESSAGES {
        assert_eq!(stays.next().await.unwrap().unwrap().payload, n.to_string());
    }
    publisher.await.unwrap();
    for other in others {
        other.await.unwrap();
    }
    assert_eq!(provider.filters(), 2);
    drop(stays);
    assert_eq!(provider.filters(), 0);
    let stats = pubsub.routing_stats("memory").unwrap();
    assert_eq!((stats.filters, stats.subscriptions), (0, 0));
}

/// A provider that never answers, and remembers what it was asked.
#[derive(Default)]
struct Silent {
    calls: Mutex<Vec<String>>,
    sink: Mutex<Option<DeliverySink>>,
}

impl Silent {
    fn note(&self, verb: &str, filters: impl IntoIterator<Item = TopicFilter>) {
        let filters: Vec<_> = filters.into_iter().map(String::from).collect();
        self.calls
            .lock()
            .unwrap()
            .push(format!("{verb} {}", filters.join(",")));
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

impl Provider for Silent {
    fn attach(&self, sink: DeliverySink) -> Result<(), ProviderError> {
        *self.sink.lock().unwrap() = Some(sink);
        Ok(())
    }

    fn publish(&self, _: OutboundMessage) -> PublishReceipt {
        let (settler, receipt) = PublishReceipt::pair();
        std::mem::forget(settler);
        receipt
    }

    fn subscribe(
        &self,
        requests: Vec<FilterRequest>,
    ) -> BoxFuture<'static, Result<Vec<Result<QoS, Refusal>>, ProviderError>> {
        self.note(
            "subscribe",
            requests.into_iter().map(|request| request.filter),
        );
        Box::pin(pending())
    }

    fn unsubscribe(
        &self,
        filters: Vec<TopicFilter>,
    ) -> BoxFuture<'static, Result<(), ProviderError>> {
        self.note("unsubscribe", filters);
        Box::pin(pending())
    }

    fn release(&self, filters: Vec<TopicFilter>) {
        self.note("release", filters);
    }

    fn close(&self) -> BoxFuture<'static, Result<(), ProviderError>> {
        self.note("close", []);
        Box::pin(ready(Ok(())))
    }
}

#[tokio::test]
async fn a_cancelled_subscribe_takes_everything_back() {
    let pubsub = PubSub::new();
    let provider = Arc::new(Silent::default());
    pubsub
        .add_provider("silent", Arc::clone(&provider))
        .unwrap();

    // Never polled: never asked.
    drop(pubsub.subscribe("a").into_future());
    assert_eq!(provider.calls(), [""; 0]);
    // Polled: asked, and released again.
    let mut subscribing = pubsub.subscribe("a").into_future();
    assert!((&mut subscribing).now_or_never().is_none());
    assert_eq!(provider.calls(), ["subscribe a"]);
    // Another one wants the same; the first leaving must not take it away.
    let mut second = pubsub.subscribe("a").into_future();
    assert!((&mut second).now_or_never().is_none());
    drop(subscribing);
    assert_eq!(provider.calls(), ["subscribe a"]);
    drop(second);
    assert_eq!(provider.calls(), ["release a"]);
    let stats = pubsub.routing_stats("silent").unwrap();
    assert_eq!((stats.filters, stats.subscriptions), (0, 0));
}

#[tokio::test]
async fn routes_stand_before_the_provider_answers() {
    let pubsub = PubSub::new();
    let provider = Arc::new(Silent::default());
    pubsub
        .add_provider("silent", Arc::clone(&provider))
        .unwrap();
    let mut subscribing = pubsub.subscribe("a").into_future();
    assert!((&mut subscribing).now_or_never().is_none());
    let sink = provider.sink.lock().unwrap().clone().unwrap();
    let message = Message::new(TopicName::new("a").unwrap(), "early");
    assert_eq!(sink.deliver(&mut vec![message.into()]), Demand::Continue);
    assert_eq!(pubsub.routing_stats("silent").unwrap().unrouted, 0);
}

#[tokio::test]
async fn a_cancelled_removal_still_removes() {
    let pubsub = PubSub::new();
    let provider = Arc::new(Silent::default());
    pubsub
        .add_provider("silent", Arc::clone(&provider))
        .unwrap();
    let _ = pubsub.remove_provider("silent").now_or_never();
    assert!(pubsub.providers().is_empty());
    assert_eq!(provider.calls(), ["close "]);
    let sink = provider.sink.lock().unwrap().clone().unwrap();
    let message = Message::new(TopicName::new("a").unwrap(), "late");
    assert_eq!(sink.deliver(&mut vec![message.into()]), Demand::Continue);
}

#[tokio::test]
async fn the_last_handle_lets_go_of_the_providers() {
    let pubsub = PubSub::new();
    let provider = Arc::new(MemoryProvider::new());
    pubsub
        .add_provider("memory", Arc::clone(&provider))
        .unwrap();
    let subscription = pubsub.subscribe("a").await.unwrap();
    drop(pubsub);
    assert_eq!(Arc::strong_count(&provider), 2, "a subscription keeps it");
    drop(subscription);
    assert_eq!(Arc::strong_count(&provider), 1);
}
