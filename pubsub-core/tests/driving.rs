//! Whoever is about to wait for a message gives its provider a turn.

use std::collections::VecDeque;
use std::future::{Future as _, ready};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::FutureExt as _;
use pubsub_core::*;

/// Delivers when it is driven.
#[derive(Default)]
struct Driven {
    sink: Mutex<Option<DeliverySink>>,
    /// What it delivers when.
    script: Mutex<VecDeque<Vec<&'static str>>>,
    drives: AtomicUsize,
}

impl Driven {
    fn deliver(&self, payloads: Vec<&'static str>) {
        let topic = TopicName::new("a").unwrap();
        let message = |payload| Message::new(topic.clone(), payload);
        let mut batch = payloads.into_iter().map(message).map(Delivery::new);
        let sink = self.sink.lock().unwrap().clone().unwrap();
        assert_eq!(
            sink.deliver(&mut batch.by_ref().collect()),
            Demand::Continue
        );
    }

    fn drives(&self) -> usize {
        self.drives.load(Ordering::Relaxed)
    }
}

impl Drive for Driven {
    fn drive(&self, _: &Context<'_>) {
        panic!("nobody publishes");
    }

    fn drive_receiving(&self, _: &Context<'_>) {
        self.drives.fetch_add(1, Ordering::Relaxed);
        let next = self.script.lock().unwrap().pop_front();
        if let Some(payloads) = next {
            self.deliver(payloads);
        }
    }
}

/// A provider that is driven, or goes by itself.
struct Scripted {
    driven: Arc<Driven>,
    is_offered: bool,
}

impl Provider for Scripted {
    fn attach(&self, sink: DeliverySink) -> Result<(), ProviderError> {
        *self.driven.sink.lock().unwrap() = Some(sink);
        Ok(())
    }

    fn driver(&self) -> Option<Arc<dyn Drive>> {
        self.is_offered
            .then(|| Arc::clone(&self.driven) as Arc<dyn Drive>)
    }

    fn publish(&self, _: OutboundMessage) -> PublishReceipt {
        PublishReceipt::ready(Err(PublishError::NotSent(
            ProviderErrorKind::Unsupported.into(),
        )))
    }

    fn subscribe(
        &self,
        requests: Vec<FilterRequest>,
    ) -> BoxFuture<'static, Result<Vec<Result<QoS, Refusal>>, ProviderError>> {
        let granted = requests.into_iter().map(|request| Ok(request.qos));
        Box::pin(ready(Ok(granted.collect())))
    }

    fn unsubscribe(&self, _: Vec<TopicFilter>) -> BoxFuture<'static, Result<(), ProviderError>> {
        Box::pin(ready(Ok(())))
    }

    fn release(&self, _: Vec<TopicFilter>) {}

    fn close(&self) -> BoxFuture<'static, Result<(), ProviderError>> {
        Box::pin(ready(Ok(())))
    }
}

fn scripted(is_offered: bool) -> (Arc<Driven>, Scripted) {
    let driven = Arc::new(Driven::default());
    let provider = Scripted {
        driven: Arc::clone(&driven),
        is_offered,
    };
    (driven, provider)
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll(messages: &mut Subscription, waker: &Waker) -> Poll<String> {
    let next = pin!(messages.next());
    let polled = next.poll(&mut Context::from_waker(waker));
    polled.map(|message| message.unwrap().unwrap().text().unwrap().to_owned())
}

#[tokio::test]
async fn who_is_about_to_wait_drives_and_takes_what_that_brings() {
    let (driven, provider) = scripted(true);
    let pubsub = PubSub::new();
    // Behind pointers, as what is chosen at run time may be.
    let provider: Box<dyn Provider> = Box::new(Arc::new(provider));
    pubsub.add_provider("scripted", provider).unwrap();
    let mut messages = pubsub.subscribe("a").await.unwrap();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));

    assert_eq!(poll(&mut messages, &waker), Poll::Pending);
    assert_eq!(driven.drives(), 1);
    // It waits already, and comes back for another reason.
    driven.script.lock().unwrap().push_back(vec!["1", "2"]);
    assert_eq!(poll(&mut messages, &waker), Poll::Ready("1".to_owned()));
    assert_eq!(poll(&mut messages, &waker), Poll::Ready("2".to_owned()));
    assert_eq!(driven.drives(), 2, "not for what was there");
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0, "it was there already");

    assert_eq!(poll(&mut messages, &waker), Poll::Pending);
    driven.deliver(vec!["3"]);
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "it waits all the same");
    assert_eq!(poll(&mut messages, &waker), Poll::Ready("3".to_owned()));
    assert_eq!(driven.drives(), 3);
    assert_eq!(Arc::strong_count(&wakes), 2, "nothing keeps it");
}

#[tokio::test]
async fn a_provider_that_makes_no_offer_is_left_alone() {
    let (driven, provider) = scripted(false);
    let pubsub = PubSub::new();
    pubsub.add_provider("scripted", provider).unwrap();
    let mut messages = pubsub.subscribe("a").await.unwrap();
    assert!(messages.next().now_or_never().is_none());
    driven.deliver(vec!["1"]);
    assert!(messages.next().now_or_never().is_some());
    assert_eq!(driven.drives(), 0);
}

#[tokio::test]
async fn a_provider_that_is_replaced_or_removed_is_driven_no_more() {
    let (first, provider) = scripted(true);
    let pubsub = PubSub::new();
    pubsub.add_provider("scripted", provider).unwrap();
    let mut messages = pubsub.subscribe("a").await.unwrap();
    let (second, provider) = scripted(true);
    pubsub.replace_provider("scripted", provider).await.unwrap();
    assert!(messages.next().now_or_never().is_none());
    assert_eq!((first.drives(), second.drives()), (0, 1));
    assert_eq!(Arc::strong_count(&first), 1, "nothing keeps it");
    pubsub.remove_provider("scripted").await.unwrap();
    assert_eq!(Arc::strong_count(&second), 1, "nothing keeps it");
    assert!(messages.next().await.is_none());
    assert_eq!(second.drives(), 1);
}

/// Two of them, each with a message at a time.
#[tokio::test]
async fn every_provider_of_a_subscription_is_driven() {
    let pubsub = PubSub::new();
    let both = ["one", "two"].map(|name| {
        let (driven, provider) = scripted(true);
        pubsub.add_provider(name, provider).unwrap();
        driven
    });
    let mut messages = pubsub.subscribe("a").await.unwrap();
    for (driven, payload) in [(&both[1], "1"), (&both[0], "2")] {
        driven.script.lock().unwrap().push_back(vec![payload]);
        assert_eq!(
            poll(&mut messages, Waker::noop()),
            Poll::Ready(payload.to_owned())
        );
    }
    assert_eq!(both.map(|driven| driven.drives()), [2, 2]);
}
