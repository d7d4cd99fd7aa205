//! The contract, kept by the in-process provider; and broken ones, caught.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pubsub_core::contract::{self, Fixture};
use pubsub_core::{
    BoxFuture, Continuity, Delivered, DeliverySink, FilterRequest, Gap, MemoryProvider,
    OutboundMessage, Provider, ProviderError, PublishReceipt, QoS, Refusal, TopicFilter,
};

/// Remembers the providers' own type, since the suite hands back trait objects.
#[derive(Default)]
struct InProcess {
    made: Mutex<Vec<Made>>,
}

type Made = (Arc<dyn Provider>, Arc<MemoryProvider>);

impl InProcess {
    fn concrete(&self, provider: &Arc<dyn Provider>) -> Arc<MemoryProvider> {
        let made = self.made.lock().unwrap();
        let (_, concrete) = made
            .iter()
            .find(|(made, _)| Arc::ptr_eq(made, provider))
            .unwrap();
        Arc::clone(concrete)
    }
}

impl Fixture for InProcess {
    fn provider(&self) -> BoxFuture<'_, Arc<dyn Provider>> {
        let concrete = Arc::new(MemoryProvider::new());
        concrete.refuse(TopicFilter::new("forbidden").unwrap());
        let provider: Arc<dyn Provider> = concrete.clone();
        self.made
            .lock()
            .unwrap()
            .push((Arc::clone(&provider), concrete));
        Box::pin(std::future::ready(provider))
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    fn refused_filter(&self) -> Option<TopicFilter> {
        TopicFilter::new("forbidden").ok()
    }

    fn filters_held<'a>(&'a self, provider: &'a Arc<dyn Provider>) -> Option<BoxFuture<'a, usize>> {
        Some(Box::pin(std::future::ready(
            self.concrete(provider).filters(),
        )))
    }

    fn interrupt<'a>(&'a self, provider: &'a Arc<dyn Provider>) -> Option<BoxFuture<'a, ()>> {
        self.concrete(provider)
            .interrupt(Gap::new(Duration::from_secs(1), Continuity::Lost));
        Some(Box::pin(std::future::ready(())))
    }
}

#[tokio::test]
async fn the_in_process_provider_keeps_the_contract() {
    contract::check(&InProcess::default()).await;
}

#[tokio::test]
async fn the_in_process_provider_keeps_the_contract_with_its_services_own_rules() {
    struct BelowOnly;
    impl Fixture for BelowOnly {
        fn provider(&self) -> BoxFuture<'_, Arc<dyn Provider>> {
            use pubsub_core::{MatchingRules, ParentLevel};
            let rules = MatchingRules::new().with_parent_level(ParentLevel::BelowOnly);
            let provider: Arc<dyn Provider> = Arc::new(MemoryProvider::with_rules(rules));
            Box::pin(std::future::ready(provider))
        }

        fn sleep(&self, time: Duration) -> BoxFuture<'_, ()> {
            Box::pin(tokio::time::sleep(time))
        }
    }
    contract::check(&BelowOnly).await;
}

/// The in-process provider with one thing wrong.
struct Broken {
    inner: Arc<MemoryProvider>,
    fault: Fault,
    held_back: Mutex<Option<OutboundMessage>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    LosesWhatItConfirms,
    SwapsNeighbours,
    NeverReleases,
    RepliesTooShort,
    AcceptsAfterClose,
}

impl Provider for Broken {
    fn attach(&self, sink: DeliverySink) -> Result<(), ProviderError> {
        self.inner.attach(sink)
    }

    fn publish(&self, message: OutboundMessage) -> PublishReceipt {
        match self.fault {
            Fault::LosesWhatItConfirms => PublishReceipt::ready(Ok(Delivered::Sent)),
            Fault::SwapsNeighbours if message.payload == "7" => {
                let qos = message.qos;
                *self.held_back.lock().unwrap() = Some(message);
                PublishReceipt::ready(Ok(match qos {
                    QoS::AtMostOnce => Delivered::Sent,
                    _ => Delivered::Confirmed,
                }))
            }
            Fault::AcceptsAfterClose if message.payload == "late" => {
                PublishReceipt::ready(Ok(Delivered::Sent))
            }
            _ => {
                let receipt = self.inner.publish(message);
                if let Some(held_back) = self.held_back.lock().unwrap().take() {
                    drop(self.inner.publish(held_back));
                }
                receipt
            }
        }
    }

    fn subscribe(
        &self,
        mut requests: Vec<FilterRequest>,
    ) -> BoxFuture<'static, Result<Vec<Result<QoS, Refusal>>, ProviderError>> {
        if self.fault == Fault::RepliesTooShort && requests.len() > 1 {
            requests.pop();
        }
        self.inner.subscribe(requests)
    }

    fn unsubscribe(
        &self,
        filters: Vec<TopicFilter>,
    ) -> BoxFuture<'static, Result<(), ProviderError>> {
        self.inner.unsubscribe(filters)
    }

    fn release(&self, filters: Vec<TopicFilter>) {
        if self.fault != Fault::NeverReleases {
            self.inner.release(filters);
        }
    }

    fn close(&self) -> BoxFuture<'static, Result<(), ProviderError>> {
        self.inner.close()
    }
}

struct BrokenFixture {
    fault: Fault,
    last: Mutex<Option<Arc<MemoryProvider>>>,
}

impl Fixture for BrokenFixture {
    fn provider(&self) -> BoxFuture<'_, Arc<dyn Provider>> {
        let inner = Arc::new(MemoryProvider::new());
        *self.last.lock().unwrap() = Some(Arc::clone(&inner));
        let fault = self.fault;
        let broken = Broken {
            inner,
            fault,
            held_back: Mutex::default(),
        };
        Box::pin(async { Arc::new(broken) as Arc<dyn Provider> })
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    fn filters_held<'a>(&'a self, _: &'a Arc<dyn Provider>) -> Option<BoxFuture<'a, usize>> {
        let inner = self.last.lock().unwrap().clone()?;
        Some(Box::pin(async move { inner.filters() }))
    }
}

async fn check_broken(fault: Fault) {
    contract::check(&BrokenFixture {
        fault,
        last: Mutex::default(),
    })
    .await;
}

#[tokio::test(start_paused = true)]
#[should_panic(
    expected = "as it was sent, with its topic and the provider's name): a message did not come in time"
)]
async fn a_provider_that_loses_messages_is_caught() {
    check_broken(Fault::LosesWhatItConfirms).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "order")]
async fn a_provider_that_swaps_messages_is_caught() {
    check_broken(Fault::SwapsNeighbours).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "nothing_leaks")]
async fn a_provider_that_never_releases_is_caught() {
    check_broken(Fault::NeverReleases).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "once_however_many_filters")]
async fn a_provider_that_forgets_a_filter_is_caught() {
    check_broken(Fault::RepliesTooShort).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "closing")]
async fn a_provider_that_accepts_after_its_close_is_caught() {
    check_broken(Fault::AcceptsAfterClose).await;
}
