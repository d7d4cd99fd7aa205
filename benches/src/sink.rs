//! Deliveries without a service: a provider that hands out its sink.

use std::future::{Future, ready};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use pubsub_core::{
    BoxFuture, DeliverySink, FilterRequest, OutboundMessage, Provider, ProviderError,
    ProviderErrorKind, PubSub, PublishError, PublishReceipt, QoS, Refusal, TopicFilter,
};

/// A registry with a provider that grants everything at once, and the provider's sink.
#[must_use]
pub fn registry() -> (PubSub, DeliverySink) {
    let pubsub = PubSub::new();
    let provider = Arc::new(Sink::default());
    pubsub
        .add_provider("sink", Arc::clone(&provider))
        .expect("the name is free");
    let sink = provider.0.lock().expect("not poisoned").clone();
    (pubsub, sink.expect("attached"))
}

/// What a future comes to that waits for such a provider alone: one poll is enough.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("the provider answers at once"),
    }
}

#[derive(Default)]
struct Sink(Mutex<Option<DeliverySink>>);

impl Provider for Sink {
    fn attach(&self, sink: DeliverySink) -> Result<(), ProviderError> {
        *self.0.lock().expect("not poisoned") = Some(sink);
        Ok(())
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
        let granted = requests.iter().map(|request| Ok(request.qos)).collect();
        Box::pin(ready(Ok(granted)))
    }

    fn unsubscribe(&self, _: Vec<TopicFilter>) -> BoxFuture<'static, Result<(), ProviderError>> {
        Box::pin(ready(Ok(())))
    }

    fn release(&self, _: Vec<TopicFilter>) {}

    fn close(&self) -> BoxFuture<'static, Result<(), ProviderError>> {
        Box::pin(ready(Ok(())))
    }
}
