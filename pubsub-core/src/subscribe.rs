//! A subscription to be made.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;

use crate::error::{ProviderError, Refusal, SubscribeError};
use crate::into::IntoFilters;
use crate::limits::{HoldLimits, Limits, QueueLimits};
use crate::message::{ProviderName, QoS};
use crate::provider::{
    BoxFuture, FilterOutcome, FilterRequest, OwnMessages, RetainMark, RetainedMessages,
};
use crate::pubsub::Registry;
use crate::queue::Queue;
use crate::router::{Asked, KnownDriver, Router};
use crate::routes::SlotKey;
use crate::subscription::{Member, Subscription};
use crate::topic::TopicFilter;
use crate::topic_error::TopicError;

/// A subscription to be made: await it.
///
/// # Cancel safety
/// Dropping its future before it resolved takes everything back, as dropping the subscription would.
#[must_use = "nothing is subscribed until this is awaited"]
pub struct Subscribe {
    registry: Arc<Registry>,
    /// None to subscribe to what no filter matches.
    requests: Option<Result<Vec<FilterRequest>, TopicError>>,
    limits: Limits,
    provider: Option<ProviderName>,
}

impl Subscribe {
    pub(crate) fn new(registry: Arc<Registry>, filters: impl IntoFilters) -> Self {
        let mut requests: Vec<FilterRequest> = Vec::new();
        let mut places: HashMap<TopicFilter, usize> = HashMap::new();
        let checked = filters.for_each_filter(&mut |request| {
            let Some(first) = requests.first() else {
                // Mostly there is but one, which needs no table.
                return requests.push(request);
            };
            if places.is_empty() {
                places.insert(first.filter.clone(), 0);
            }
            match places.entry(request.filter.clone()) {
                Entry::Occupied(place) => {
                    let twin = &mut requests[*place.get()];
                    twin.qos = twin.qos.max(request.qos);
                }
                Entry::Vacant(place) => {
                    place.insert(requests.len());
                    requests.push(request);
                }
            }
        });
        Self {
            registry,
            requests: Some(checked.map(|()| requests)),
            limits: Limits::default(),
            provider: None,
        }
    }

    pub(crate) fn unmatched(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            requests: None,
            limits: Limits::default(),
            provider: None,
        }
    }

    /// With this assurance at most, for every filter; [`QoS::AtMostOnce`] by default.
    pub fn qos(self, qos: QoS) -> Self {
        self.each(|request| request.qos = qos)
    }

    /// Which retained messages to send at the start; all by default.
    pub fn retained(self, retained: RetainedMessages) -> Self {
        self.each(|request| request.retained = retained)
    }

    /// Whether to receive what this same client publishes; it does by default.
    pub fn own_messages(self, own_messages: OwnMessages) -> Self {
        self.each(|request| request.own_messages = own_messages)
    }

    /// What the retain mark of a message means; that it is not news, by default.
    pub fn retain_mark(self, retain_mark: RetainMark) -> Self {
        self.each(|request| request.retain_mark = retain_mark)
    }

    /// Through this provider alone; through all of them by default.
    pub fn provider(mut self, name: impl Into<ProviderName>) -> Self {
        self.provider = Some(name.into());
        self
    }

    /// How many messages at most once may wait, and what happens to one too many.
    pub fn queue(mut self, limits: QueueLimits) -> Self {
        self.limits.queue = limits;
        self
    }

    /// How many messages may be held back from confirmation, and what happens beyond that.
    pub fn hold(mut self, limits: HoldLimits) -> Self {
        self.limits.hold = limits;
        self
    }

    fn each(mut self, change: impl Fn(&mut FilterRequest)) -> Self {
        if let Some(Ok(requests)) = &mut self.requests {
            requests.iter_mut().for_each(change);
        }
        self
    }

    async fn run(self) -> Result<Subscription, SubscribeError> {
        let requests = self.requests.transpose()?;
        if requests.as_ref().is_some_and(Vec::is_empty) {
            return Err(SubscribeError::NoFilters);
        }
        let routers = self
            .registry
            .selected(self.provider.as_ref())
            .map_err(SubscribeError::UnknownProvider)?;
        if routers.is_empty() {
            return Err(SubscribeError::NoProviders);
        }
        let queue = Queue::new(self.limits);
        // From here on dropping the subscription takes everything back.
        let mut subscription = Subscription::new(Arc::clone(&queue), self.registry);
        let Some(requests) = requests else {
            for router in routers {
                if let Some(slot) = router.subscribe_unmatched(&queue) {
                    subscription.join(Member {
                        router,
                        slot,
                        driver: KnownDriver::default(),
                    });
                }
            }
            return Ok(subscription);
        };
        let mut waiting = Vec::with_capacity(routers.len());
        for router in routers {
            if let Some((slot, asked)) = router.subscribe(&queue, &requests) {
                subscription.join(Member {
                    router: Arc::clone(&router),
                    slot,
                    driver: KnownDriver::default(),
                });
                waiting.push((router, slot, asked));
            }
        }
        if waiting.is_empty() {
            return Err(SubscribeError::NoProviders);
        }
        let mut outcomes = Vec::with_capacity(requests.len() * waiting.len());
        for (router, slot, Asked { known, answer }) in waiting {
            let answer = answer.await;
            settle(&router, slot, known, answer, &mut outcomes);
        }
        if outcomes.iter().all(|outcome| outcome.result.is_err()) {
            return Err(SubscribeError::Refused(outcomes.into()));
        }
        subscription.set_outcomes(outcomes);
        Ok(subscription)
    }
}

/// Records a provider's answer in its router and as outcomes.
fn settle(
    router: &Router,
    slot: SlotKey,
    known: Vec<(TopicFilter, Option<QoS>)>,
    answer: Result<Vec<Result<QoS, Refusal>>, ProviderError>,
    outcomes: &mut Vec<FilterOutcome>,
) {
    let (mut replies, failure) = match answer {
        Ok(replies) => (replies.into_iter(), None),
        Err(error) => (Vec::new().into_iter(), Some(error)),
    };
    for (filter, granted) in known {
        let result = match (granted, &failure) {
            (Some(qos), _) => Some(Ok(qos)),
            (None, Some(error)) => Some(Err(error.clone().into())),
            (None, None) => replies.next(),
        };
        let outcome = FilterOutcome::new(router.name().clone(), filter, result);
        match &outcome.result {
            Ok(qos) => router.granted(&outcome.filter, *qos),
            Err(_) => router.refused(slot, &outcome.filter),
        }
        outcomes.push(outcome);
    }
}

impl IntoFuture for Subscribe {
    type Output = Result<Subscription, SubscribeError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Subscribe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribe")
            .field("requests", &self.requests)
            .field("limits", &self.limits)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}
