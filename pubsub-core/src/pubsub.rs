//! The registry of providers, and the verbs: publish and subscribe, on all of them or on one by name.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use crate::connection::ConnectionWatch;
use crate::error::{
    ProviderError, ProviderErrorKind, PublishError, RegistryError, SubscribeError, UnknownProvider,
};
use crate::message::{OfflinePolicy, OutboundMessage, Properties, ProviderName, QoS};
use crate::payload::{IntoPayload, PayloadError};
use crate::provider::{
    BoxFuture, FilterOutcome, FilterRequest, OwnMessages, Provider, RetainMark, RetainedMessages,
};
use crate::queue::{HoldLimits, Limits, Queue, QueueLimits};
use crate::receipt::{Delivered, PublishReceipt};
use crate::router::{Asked, Router, SlotKey};
use crate::subscription::{Member, Subscription};
use crate::topic::{TopicError, TopicFilter, TopicName};

/// A registry of providers, to publish and subscribe through all of them or through one by name.
///
/// A clone leads to the same registry. There is no global one: as many as one likes live side by side.
/// The providers stay while the last clone or the last [`Subscription`] does; then they are dropped,
/// which is not as clean as [`close`](Self::close).
///
/// ```
/// use pubsub_core::{Json, MemoryProvider, PubSub};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pubsub = PubSub::new();
/// pubsub.add_provider("memory", MemoryProvider::new())?;
///
/// let mut messages = pubsub.subscribe("chat/+").await?;
/// pubsub.publish("chat/lobby", Json(&"hello")).await?;
///
/// let message = messages.next().await.ok_or("ended")??;
/// assert_eq!(message.topic, "chat/lobby");
/// assert_eq!(message.json::<String>()?, "hello");
/// messages.unsubscribe().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct PubSub {
    registry: Arc<Registry>,
}

/// In the order in which they were added; few, so a list.
#[derive(Default)]
pub(crate) struct Registry {
    routers: RwLock<Vec<Arc<Router>>>,
}

impl PubSub {
    /// A registry without providers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a provider under a name that is not taken. Subscriptions made before do not extend to it.
    ///
    /// To keep a handle on the provider's own type, add an `Arc` of it.
    ///
    /// # Errors
    /// The name is taken, or the provider does not let itself be attached.
    pub fn add_provider(
        &self,
        name: impl Into<ProviderName>,
        provider: impl Provider,
    ) -> Result<(), RegistryError> {
        let name = name.into();
        let mut routers = self.registry.write();
        if routers.iter().any(|router| *router.name() == name) {
            return Err(RegistryError::NameTaken(name));
        }
        let router = Router::new(name);
        router
            .install(Arc::new(provider))
            .map_err(RegistryError::Provider)?;
        routers.push(router);
        Ok(())
    }

    /// Closes a provider cleanly and removes it. Streams that it alone served end; those that others
    /// serve too go on.
    ///
    /// # Errors
    /// No provider has this name; or it closed with an error, and is removed all the same.
    ///
    /// # Cancel safety
    /// Once polled, dropping it loses only the answer: the provider is removed, its streams end, and it
    /// goes on closing by itself.
    pub async fn remove_provider(&self, name: &str) -> Result<(), RegistryError> {
        let router = {
            let mut routers = self.registry.write();
            let at = routers
                .iter()
                .position(|router| **router.name() == *name)
                .ok_or_else(|| UnknownProvider::new(name.into()))?;
            routers.remove(at)
        };
        shut_down(router).await.map_err(RegistryError::Provider)
    }

    /// Closes the provider of this name cleanly, puts another in its place and moves the subscriptions
    /// over. Subscribers see a gap; a filter that the new provider refuses is
    /// [lost](crate::SubscriptionError::FilterLost) to them. This is also how a provider is reconfigured
    /// while running.
    ///
    /// Publishes in between fail with kind [`Closed`](ProviderErrorKind::Closed).
    ///
    /// # Errors
    /// No provider has this name; or the new one does not let itself be attached, and then the name has
    /// no provider any more and its streams end; or it could not take the subscriptions over as a whole,
    /// and then it is in place without them.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropped halfway, the name may be left with a closed provider. Call it again, or
    /// remove the provider.
    pub async fn replace_provider(
        &self,
        name: &str,
        provider: impl Provider,
    ) -> Result<(), RegistryError> {
        let router = self.registry.router(name)?;
        let old = router.provider();
        if let Some(old) = &old {
            // Its failure to close cleanly does not keep the new one out.
            let _ = old.close().await;
        }
        match router.install(Arc::new(provider)) {
            Ok(None) => Ok(()),
            Ok(Some(Asked { known, answer })) => {
                let filters: Vec<_> = known.into_iter().map(|(filter, _)| filter).collect();
                router
                    .replaced(&filters, answer.await)
                    .map_err(RegistryError::Provider)
            }
            Err(error) => {
                self.registry
                    .write()
                    .retain(|other| !Arc::ptr_eq(other, &router));
                router.shut();
                Err(RegistryError::Provider(error))
            }
        }
    }

    /// The names of the providers, in the order in which they were added.
    #[must_use]
    pub fn providers(&self) -> Vec<ProviderName> {
        self.registry
            .read(|routers| routers.iter().map(|router| router.name().clone()).collect())
    }

    /// Follows the connection of a provider.
    ///
    /// # Errors
    /// No provider has this name.
    pub fn connection(&self, name: &str) -> Result<ConnectionWatch, UnknownProvider> {
        Ok(self.registry.router(name)?.hub().watch())
    }

    /// What a provider's routing holds now.
    ///
    /// # Errors
    /// No provider has this name.
    pub fn routing_stats(&self, name: &str) -> Result<RoutingStats, UnknownProvider> {
        let router = self.registry.router(name)?;
        let (filters, subscriptions) = router.usage();
        Ok(RoutingStats {
            filters,
            subscriptions,
            unrouted: router.unrouted(),
        })
    }

    /// Closes and removes every provider. Every stream ends.
    ///
    /// # Errors
    /// The first error of a provider; all are closed and removed all the same.
    ///
    /// # Cancel safety
    /// As [`remove_provider`](Self::remove_provider).
    pub async fn close(&self) -> Result<(), RegistryError> {
        let routers = std::mem::take(&mut *self.registry.write());
        let closing: Vec<_> = routers.into_iter().map(shut_down).collect();
        let mut result = Ok(());
        for closed in closing {
            result = result.and(closed.await.map_err(RegistryError::Provider));
        }
        result
    }

    /// Publishes a payload on one topic or several. Nothing happens until the result is awaited or
    /// [sent](Publish::send).
    ///
    /// ```
    /// # use pubsub_core::{Empty, Json, MemoryProvider, PubSub, QoS};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pubsub = PubSub::new();
    /// # pubsub.add_provider("memory", MemoryProvider::new())?;
    /// pubsub.publish("chat/lobby", "as it is").await?;
    /// pubsub.publish(["a", "b"], Json(&[1, 2, 3])).qos(QoS::AtLeastOnce).await?;
    /// pubsub.publish("state", Empty).retain().provider("memory").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish(&self, topics: impl IntoTopics, payload: impl IntoPayload) -> Publish<'_> {
        let mut targets = Topics::None;
        let checked = topics.for_each_topic(&mut |topic| targets.push(topic));
        Publish {
            registry: &self.registry,
            topics: checked.map(|()| targets),
            payload: payload.into_payload(),
            qos: QoS::default(),
            retain: false,
            properties: Properties::default(),
            offline: OfflinePolicy::default(),
            provider: None,
        }
    }

    /// Subscribes to one filter or several. Nothing happens until the result is awaited.
    ///
    /// ```
    /// # use pubsub_core::{MemoryProvider, PubSub, QoS};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pubsub = PubSub::new();
    /// # pubsub.add_provider("memory", MemoryProvider::new())?;
    /// let lobby = pubsub.subscribe("chat/lobby").await?;
    /// let much = pubsub.subscribe(["a", "b/#"]).qos(QoS::AtLeastOnce).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe(&self, filters: impl IntoFilters) -> Subscribe {
        let mut requests: Vec<FilterRequest> = Vec::new();
        let mut places: HashMap<TopicFilter, usize> = HashMap::new();
        let checked =
            filters.for_each_filter(&mut |request| match places.entry(request.filter.clone()) {
                Entry::Occupied(place) => {
                    let twin = &mut requests[*place.get()];
                    twin.qos = twin.qos.max(request.qos);
                }
                Entry::Vacant(place) => {
                    place.insert(requests.len());
                    requests.push(request);
                }
            });
        Subscribe {
            registry: Arc::clone(&self.registry),
            requests: checked.map(|()| requests),
            limits: Limits::default(),
            provider: None,
        }
    }
}

impl fmt::Debug for PubSub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PubSub")
            .field("providers", &self.providers())
            .finish()
    }
}

/// Asks the provider to close at once; the future waits for it and then ends the streams, which it also
/// does when it is dropped.
fn shut_down(router: Arc<Router>) -> impl Future<Output = Result<(), ProviderError>> {
    struct ShutOnDrop(Arc<Router>);
    impl Drop for ShutOnDrop {
        fn drop(&mut self) {
            self.0.shut();
        }
    }
    let closing = router.provider().map(|provider| provider.close());
    let guard = ShutOnDrop(router);
    async move {
        let result = match closing {
            Some(closing) => closing.await,
            None => Ok(()),
        };
        drop(guard);
        result
    }
}

impl Registry {
    fn router(&self, name: &str) -> Result<Arc<Router>, UnknownProvider> {
        self.read(|routers| {
            routers
                .iter()
                .find(|router| **router.name() == *name)
                .cloned()
        })
        .ok_or_else(|| UnknownProvider::new(name.into()))
    }

    fn selected(&self, name: Option<&ProviderName>) -> Result<Vec<Arc<Router>>, UnknownProvider> {
        match name {
            Some(name) => self.router(name).map(|router| vec![router]),
            None => Ok(self.read(Clone::clone)),
        }
    }

    fn read<T>(&self, look: impl FnOnce(&Vec<Arc<Router>>) -> T) -> T {
        look(&self.routers.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Vec<Arc<Router>>> {
        self.routers.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registry {
    /// Breaks the circle of provider, sink and router.
    fn drop(&mut self) {
        for router in self.write().drain(..) {
            router.shut();
        }
    }
}

/// What a provider's routing holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoutingStats {
    /// Filters in use.
    pub filters: usize,
    /// Subscriptions that use them.
    pub subscriptions: usize,
    /// Messages that came and that no subscription wanted, since the provider was added.
    pub unrouted: u64,
}

/// A message to be published: await it, or [`send`](Self::send) it and await later.
#[must_use = "nothing is published until this is awaited or sent"]
#[derive(Debug)]
pub struct Publish<'a> {
    registry: &'a Registry,
    topics: Result<Topics, TopicError>,
    payload: Result<Bytes, PayloadError>,
    qos: QoS,
    retain: bool,
    properties: Properties,
    offline: OfflinePolicy,
    provider: Option<ProviderName>,
}

impl Publish<'_> {
    /// With this assurance; [`QoS::AtMostOnce`] by default.
    pub fn qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// To be kept for later subscribers of the topic, in place of what was kept before; with an empty
    /// payload, to erase that.
    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// Through this provider alone; through all of them by default.
    pub fn provider(mut self, name: impl Into<ProviderName>) -> Self {
        self.provider = Some(name.into());
        self
    }

    /// What to do while there is no connection; as the provider is configured by default.
    pub fn offline(mut self, policy: OfflinePolicy) -> Self {
        self.offline = policy;
        self
    }

    /// With these properties, in place of all set before.
    pub fn properties(mut self, properties: impl Into<Properties>) -> Self {
        self.properties = properties.into();
        self
    }

    /// With this media type.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.properties.content_type = Some(content_type.into());
        self
    }

    /// Not worth delivering after this long.
    pub fn expires_after(mut self, expiry: Duration) -> Self {
        self.properties.expiry = Some(expiry);
        self
    }

    /// With one more pair for the application.
    pub fn user_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.user.push((name.into(), value.into()));
        self
    }

    /// Sends it now, without waiting for anything. Messages sent one after another go out in that order.
    pub fn send(self) -> Publishing {
        let first = match self.single() {
            Ok(Some((router, message))) => return Publishing::one(publish_on(&router, message)),
            Ok(None) => self.send_each(),
            Err(error) => Err(error),
        };
        match first {
            Ok(tickets) => Publishing(Targets::Many(
                tickets
                    .into_iter()
                    .map(|ticket| (ticket.provider, ticket.topic, Fate::Open(ticket.receipt)))
                    .collect(),
            )),
            Err(error) => Publishing::one(PublishReceipt::ready(Err(error))),
        }
    }

    /// Sends it now and gives the receipt of each topic at each provider, to follow them one by one.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn send_each(self) -> Result<Vec<PublishTicket>, PublishError> {
        let routers = self
            .registry
            .selected(self.provider.as_ref())
            .map_err(PublishError::UnknownProvider)?;
        if routers.is_empty() {
            return Err(PublishError::NoProviders);
        }
        let message = self.message()?;
        let topics = match self.topics? {
            Topics::None => return Err(PublishError::NoTopics),
            Topics::One(topic) => vec![topic],
            Topics::Many(topics) => topics,
        };
        let mut tickets = Vec::with_capacity(topics.len() * routers.len());
        for topic in topics {
            for router in &routers {
                let message = OutboundMessage {
                    topic: topic.clone(),
                    ..message.clone()
                };
                tickets.push(PublishTicket {
                    provider: router.name().clone(),
                    topic: topic.clone(),
                    receipt: publish_on(router, message),
                });
            }
        }
        Ok(tickets)
    }

    /// The usual case, one topic through one provider, without the lists of the general one.
    fn single(&self) -> Result<Option<(Arc<Router>, OutboundMessage)>, PublishError> {
        let Ok(Topics::One(_)) = &self.topics else {
            return Ok(None);
        };
        let router = match &self.provider {
            Some(name) => self
                .registry
                .router(name)
                .map_err(PublishError::UnknownProvider)?,
            None => {
                let only = self.registry.read(|routers| match &routers[..] {
                    [one] => Some(Arc::clone(one)),
                    _ => None,
                });
                let Some(only) = only else { return Ok(None) };
                only
            }
        };
        Ok(Some((router, self.message()?)))
    }

    /// The message for the first topic.
    fn message(&self) -> Result<OutboundMessage, PublishError> {
        let topic = match &self.topics {
            Ok(Topics::One(topic)) => topic.clone(),
            Ok(Topics::Many(topics)) => topics.first().cloned().ok_or(PublishError::NoTopics)?,
            Ok(Topics::None) => return Err(PublishError::NoTopics),
            Err(error) => return Err(PublishError::Topic(*error)),
        };
        let payload = self.payload.clone()?;
        Ok(OutboundMessage {
            qos: self.qos,
            retain: self.retain,
            properties: self.properties.clone(),
            offline: self.offline,
            ..OutboundMessage::new(topic, payload)
        })
    }
}

fn publish_on(router: &Router, message: OutboundMessage) -> PublishReceipt {
    match router.provider() {
        Some(provider) => provider.publish(message),
        None => PublishReceipt::ready(Err(PublishError::NotSent(ProviderErrorKind::Closed.into()))),
    }
}

impl IntoFuture for Publish<'_> {
    type Output = Result<Delivered, PublishError>;
    type IntoFuture = Publishing;

    fn into_future(self) -> Publishing {
        self.send()
    }
}

/// A message that was sent, for one topic or several.
///
/// Resolves when the fate of each is known: to the least that is known of them if all were delivered, to
/// the error of the only one, or to [`PublishError::Several`]. Dropping it cancels nothing.
///
/// # Cancel safety
/// Cancel safe.
#[must_use = "it tells whether the message was delivered"]
#[derive(Debug)]
pub struct Publishing(Targets);

#[derive(Debug)]
enum Targets {
    One(PublishReceipt),
    Many(Vec<(ProviderName, TopicName, Fate)>),
    Told,
}

#[derive(Debug)]
enum Fate {
    Open(PublishReceipt),
    Known(Result<Delivered, PublishError>),
}

impl Publishing {
    fn one(receipt: PublishReceipt) -> Self {
        Self(Targets::One(receipt))
    }
}

impl Future for Publishing {
    type Output = Result<Delivered, PublishError>;

    /// # Panics
    /// When polled again after it resolved.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let targets = match &mut self.0 {
            Targets::One(receipt) => return Pin::new(receipt).poll(cx),
            Targets::Many(targets) => targets,
            Targets::Told => panic!("a publish was polled after it resolved"),
        };
        let mut pending = false;
        for (_, _, fate) in targets.iter_mut() {
            if let Fate::Open(receipt) = fate {
                match Pin::new(receipt).poll(cx) {
                    Poll::Ready(outcome) => *fate = Fate::Known(outcome),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            return Poll::Pending;
        }
        let outcomes: Vec<_> = std::mem::take(targets)
            .into_iter()
            .filter_map(|(provider, topic, fate)| match fate {
                Fate::Known(result) => Some(PublishOutcome {
                    provider,
                    topic,
                    result,
                }),
                Fate::Open(_) => None,
            })
            .collect();
        let least = outcomes
            .iter()
            .try_fold(Delivered::Confirmed, |least, outcome| {
                let delivered = outcome.result.as_ref().ok()?;
                Some(least.min(*delivered))
            });
        self.0 = Targets::Told;
        Poll::Ready(least.ok_or_else(|| PublishError::Several(outcomes.into())))
    }
}

/// One topic at one provider, and what will become of it there.
#[derive(Debug)]
#[non_exhaustive]
pub struct PublishTicket {
    /// The provider.
    pub provider: ProviderName,
    /// The topic.
    pub topic: TopicName,
    /// What will become of it.
    pub receipt: PublishReceipt,
}

/// One topic at one provider, and what became of it there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PublishOutcome {
    /// The provider.
    pub provider: ProviderName,
    /// The topic.
    pub topic: TopicName,
    /// What became of it.
    pub result: Result<Delivered, PublishError>,
}

#[derive(Clone, Debug)]
enum Topics {
    None,
    One(TopicName),
    Many(Vec<TopicName>),
}

impl Topics {
    fn push(&mut self, topic: TopicName) {
        *self = match std::mem::replace(self, Self::None) {
            Self::None => Self::One(topic),
            Self::One(first) => Self::Many(vec![first, topic]),
            Self::Many(mut topics) => {
                topics.push(topic);
                Self::Many(topics)
            }
        };
    }
}

/// A subscription to be made: await it.
///
/// # Cancel safety
/// Dropping its future before it resolved takes everything back, as dropping the subscription would.
#[must_use = "nothing is subscribed until this is awaited"]
pub struct Subscribe {
    registry: Arc<Registry>,
    requests: Result<Vec<FilterRequest>, TopicError>,
    limits: Limits,
    provider: Option<ProviderName>,
}

impl Subscribe {
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
        if let Ok(requests) = &mut self.requests {
            requests.iter_mut().for_each(change);
        }
        self
    }

    async fn run(self) -> Result<Subscription, SubscribeError> {
        let requests = self.requests?;
        if requests.is_empty() {
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
        let mut waiting = Vec::with_capacity(routers.len());
        for router in routers {
            if let Some((slot, asked)) = router.subscribe(&queue, &requests) {
                subscription.join(Member {
                    router: Arc::clone(&router),
                    slot,
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
    answer: Result<Vec<Result<QoS, crate::error::Refusal>>, ProviderError>,
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

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// One topic to publish on, or several: text, [`TopicName`]s, or lists of them.
pub trait IntoTopics {
    /// Hands over each topic.
    ///
    /// # Errors
    /// A text is not a valid topic name.
    fn for_each_topic(self, add: &mut dyn FnMut(TopicName)) -> Result<(), TopicError>;
}

/// One filter to subscribe to, or several: text, [`TopicFilter`]s, [`FilterRequest`]s, or lists of them.
pub trait IntoFilters {
    /// Hands over each filter.
    ///
    /// # Errors
    /// A text is not a valid topic filter.
    fn for_each_filter(self, add: &mut dyn FnMut(FilterRequest)) -> Result<(), TopicError>;
}

macro_rules! single {
    ($trait:ident, $method:ident, $item:ident: $($type:ty => $value:expr;)*) => {
        $(impl $trait for $type {
            fn $method(self, add: &mut dyn FnMut($item)) -> Result<(), TopicError> {
                let make: fn($type) -> Result<$item, TopicError> = $value;
                add(make(self)?);
                Ok(())
            }
        })*
    };
}

macro_rules! several {
    ($trait:ident, $method:ident, $item:ident) => {
        impl<T: $trait, const N: usize> $trait for [T; N] {
            fn $method(self, add: &mut dyn FnMut($item)) -> Result<(), TopicError> {
                self.into_iter().try_for_each(|one| one.$method(add))
            }
        }

        impl<T: $trait> $trait for Vec<T> {
            fn $method(self, add: &mut dyn FnMut($item)) -> Result<(), TopicError> {
                self.into_iter().try_for_each(|one| one.$method(add))
            }
        }

        impl<T: $trait + Clone> $trait for &[T] {
            fn $method(self, add: &mut dyn FnMut($item)) -> Result<(), TopicError> {
                self.iter().try_for_each(|one| one.clone().$method(add))
            }
        }
    };
}

single! { IntoTopics, for_each_topic, TopicName:
    &str => |text| TopicName::new(text);
    String => TopicName::new;
    &String => |text| TopicName::new(text.as_str());
    TopicName => Ok;
    &TopicName => |name| Ok(name.clone());
}
several!(IntoTopics, for_each_topic, TopicName);

single! { IntoFilters, for_each_filter, FilterRequest:
    &str => |text| TopicFilter::new(text).map(FilterRequest::new);
    String => |text| TopicFilter::new(text).map(FilterRequest::new);
    &String => |text| TopicFilter::new(text.as_str()).map(FilterRequest::new);
    TopicFilter => |filter| Ok(FilterRequest::new(filter));
    &TopicFilter => |filter| Ok(FilterRequest::new(filter.clone()));
    FilterRequest => Ok;
    TopicName => |name| TopicFilter::try_from(name).map(FilterRequest::new);
}
several!(IntoFilters, for_each_filter, FilterRequest);
