//! What several tests need.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::future::ready;
use std::sync::{Arc, Mutex};

use pubsub_core::*;

/// A provider that settles and grants everything at once, hands out its sink, and remembers what it was asked to let go of.
#[derive(Default)]
pub(crate) struct Scripted {
    rules: MatchingRules,
    sink: Mutex<Option<DeliverySink>>,
    released: Mutex<Vec<TopicFilter>>,
}

impl Scripted {
    pub(crate) fn with_rules(rules: MatchingRules) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }

    /// Once it is attached.
    pub(crate) fn sink(&self) -> DeliverySink {
        self.sink.lock().unwrap().clone().unwrap()
    }

    pub(crate) fn released(&self) -> Vec<TopicFilter> {
        self.released.lock().unwrap().clone()
    }
}

/// A registry with such a provider, and the provider's sink.
pub(crate) fn scripted() -> (PubSub, Arc<Scripted>, DeliverySink) {
    let pubsub = PubSub::new();
    let provider = Arc::new(Scripted::default());
    pubsub
        .add_provider("scripted", Arc::clone(&provider))
        .unwrap();
    let sink = provider.sink();
    (pubsub, provider, sink)
}

impl Provider for Scripted {
    fn matching_rules(&self) -> MatchingRules {
        self.rules
    }

    fn attach(&self, sink: DeliverySink) -> Result<(), ProviderError> {
        *self.sink.lock().unwrap() = Some(sink);
        Ok(())
    }

    fn publish(&self, message: OutboundMessage) -> PublishReceipt {
        if message.qos == QoS::AtMostOnce {
            return PublishReceipt::ready(Ok(Delivered::Sent));
        }
        let (settler, receipt) = PublishReceipt::pair();
        settler.settle(Ok(Delivered::Confirmed));
        receipt
    }

    fn subscribe(
        &self,
        requests: Vec<FilterRequest>,
    ) -> BoxFuture<'static, Result<Vec<Result<QoS, Refusal>>, ProviderError>> {
        let granted = requests.iter().map(|request| Ok(request.qos)).collect();
        Box::pin(ready(Ok(granted)))
    }

    fn unsubscribe(
        &self,
        filters: Vec<TopicFilter>,
    ) -> BoxFuture<'static, Result<(), ProviderError>> {
        self.release(filters);
        Box::pin(ready(Ok(())))
    }

    fn release(&self, filters: Vec<TopicFilter>) {
        self.released.lock().unwrap().extend(filters);
    }

    fn close(&self) -> BoxFuture<'static, Result<(), ProviderError>> {
        Box::pin(ready(Ok(())))
    }
}
