//! The subscriber's end: a stream of messages, and what can be done with it.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::{FusedStream, Stream};
use serde::de::DeserializeOwned;

use crate::error::{BadPayload, ProviderError, SubscriptionError};
use crate::limits::SubscriptionStats;
use crate::message::Message;
use crate::payload::{Decode, JsonCodec};
use crate::provider::{Delivery, FilterOutcome, Gap};
use crate::pubsub::Registry;
use crate::queue::{Batch, Entry, Filled, Notice, Queue};
use crate::router::{KnownDriver, Router};
use crate::routes::SlotKey;
use crate::topic::TopicFilter;

/// The messages of one or several filters, in order: a `Stream` of `Result<Message, SubscriptionError>`.
///
/// * A message comes once, however many of the filters match it.
/// * A retained message comes once too, though others subscribe to the same filter later; but one that
///   was news to this subscription may come a second time, marked as retained, when they do.
/// * An error is an item like any other; the stream goes on after it if it
///   [may](SubscriptionError::may_continue).
/// * The stream ends after [`unsubscribe`](Self::unsubscribe) from every filter, when the last provider
///   that serves it is removed or fails for good, when every filter is lost, and when the
///   subscriber is too slow and its options [say so](crate::OverflowPolicy::End). What arrived before
///   still comes.
/// * Gaps, and messages dropped because the subscriber was slow, do not show here but in
///   [`stats`](Self::stats), and in order in [`events`](Self::events).
/// * A message to be confirmed is confirmed when it is yielded; see [`deliveries`](Self::deliveries) for
///   doing that by hand.
///
/// Dropping it releases the filters that nobody else uses, without waiting for the provider; await
/// `unsubscribe` to know that it is done.
#[must_use = "a subscription ends when it is dropped"]
pub struct Subscription {
    queue: Arc<Queue>,
    members: Vec<Member>,
    outcomes: Vec<FilterOutcome>,
    local: Batch,
    ended: bool,
    /// Keeps the providers in place while there are subscriptions.
    _registry: Arc<Registry>,
}

/// The subscription's place with one provider.
pub(crate) struct Member {
    pub(crate) router: Arc<Router>,
    pub(crate) slot: SlotKey,
    pub(crate) driver: KnownDriver,
}

impl Subscription {
    pub(crate) fn new(queue: Arc<Queue>, registry: Arc<Registry>) -> Self {
        Self {
            queue,
            members: Vec::new(),
            outcomes: Vec::new(),
            local: Batch::default(),
            ended: false,
            _registry: registry,
        }
    }

    pub(crate) fn join(&mut self, member: Member) {
        self.members.push(member);
    }

    pub(crate) fn set_outcomes(&mut self, outcomes: Vec<FilterOutcome>) {
        self.outcomes = outcomes;
    }

    /// The next message, or `None` at the end: `StreamExt::next` without an import.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost if the future is dropped.
    #[allow(
        clippy::should_implement_trait,
        reason = "it is that of streams, and not this signature"
    )]
    pub fn next(&mut self) -> impl Future<Output = Option<Result<Message, SubscriptionError>>> {
        Next(self)
    }

    /// What became of each filter at each provider when the subscription was made.
    #[must_use]
    pub fn outcomes(&self) -> &[FilterOutcome] {
        &self.outcomes
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> SubscriptionStats {
        self.queue.stats()
    }

    /// Unsubscribes from every filter and waits until the providers did so. What was not taken from the
    /// stream yet is dropped.
    ///
    /// # Errors
    /// A provider did not confirm. The subscription is over all the same.
    ///
    /// # Cancel safety
    /// Dropped before it resolved, it leaves as dropping the subscription does: only the answer is lost.
    pub async fn unsubscribe(mut self) -> Result<(), ProviderError> {
        self.queue.abandon();
        let members = std::mem::take(&mut self.members);
        let answers: Vec<_> = members
            .iter()
            .filter_map(|member| member.router.unsubscribe(member.slot, None))
            .collect();
        let mut result = Ok(());
        for answer in answers {
            result = result.and(answer.await);
        }
        result
    }

    /// Unsubscribes from some of the filters and waits until the providers did so. Filters it does not
    /// have are ignored. Messages of these filters that arrived before still come.
    ///
    /// # Errors
    /// A provider did not confirm. The filters are left all the same.
    ///
    /// # Cancel safety
    /// Once polled, dropping it loses only the answer.
    pub async fn unsubscribe_from(&mut self, filters: &[TopicFilter]) -> Result<(), ProviderError> {
        let answers: Vec<_> = self
            .members
            .iter()
            .filter_map(|member| member.router.unsubscribe(member.slot, Some(filters)))
            .collect();
        self.outcomes
            .retain(|outcome| !filters.contains(&outcome.filter));
        let mut result = Ok(());
        for answer in answers {
            result = result.and(answer.await);
        }
        result
    }

    /// The same subscription, with gaps and lost messages shown between the messages.
    pub fn events(self) -> Events {
        Events(self)
    }

    /// The same subscription, with each message's receipt in the subscriber's hands.
    pub fn deliveries(self) -> Deliveries {
        Deliveries(self)
    }

    /// The same subscription, with every payload decoded as the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(self) -> Typed<T, JsonCodec> {
        self.decode_with(JsonCodec)
    }

    /// The same subscription, with every payload decoded by a codec of the application's own.
    pub fn decode_with<T, C: Decode<T>>(self, codec: C) -> Typed<T, C> {
        Typed {
            subscription: self,
            codec,
            value: PhantomData,
        }
    }

    fn poll_entry(&mut self, cx: &Context<'_>) -> Poll<Option<Entry>> {
        Poll::Ready(match ready!(self.poll_filled(cx)) {
            Filled::Batch => self.queue.pop(&mut self.local),
            Filled::Held(item) => Some(Entry::Item(item)),
            Filled::End => None,
        })
    }

    /// Fills the local batch if there is nothing left in it.
    fn poll_filled(&mut self, cx: &Context<'_>) -> Poll<Filled> {
        if !self.local.is_empty() {
            return Poll::Ready(Filled::Batch);
        }
        if self.ended {
            return Poll::Ready(Filled::End);
        }
        let drive = || {
            for Member { router, driver, .. } in &mut self.members {
                router.drive_receiving(driver, cx);
            }
        };
        let filled = ready!(self.queue.poll_fill(cx, &mut self.local, drive));
        self.ended = matches!(filled, Filled::End);
        Poll::Ready(filled)
    }

    fn poll_delivery(
        &mut self,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Delivery, SubscriptionError>>> {
        loop {
            return Poll::Ready(match ready!(self.poll_entry(cx)) {
                None => None,
                Some(Entry::Item(item)) => Some(Ok(item)),
                Some(Entry::Notice(Notice::Error(error))) => Some(Err(error)),
                Some(Entry::Notice(Notice::Gap(_) | Notice::Lagged(_))) => continue,
            });
        }
    }

    #[inline]
    fn poll_message(
        &mut self,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Message, SubscriptionError>>> {
        // Nearly all. Small enough to become a part of the caller.
        match self.pop_plain() {
            Some(message) => Poll::Ready(Some(Ok(message))),
            None => self.poll_message_slowly(cx),
        }
    }

    /// The next message, if it is at hand and there is nothing to be confirmed.
    #[inline]
    fn pop_plain(&mut self) -> Option<Message> {
        let item = self.local.front_item()?;
        if item.receipt.is_some() {
            return None;
        }
        self.queue.took(item);
        match self.local.pop_item() {
            // Apart, since nothing can go wrong between its two moves.
            Some(Delivery {
                message,
                receipt: None,
                ..
            }) => Some(message),
            item => item.map(take),
        }
    }

    #[inline(never)]
    fn poll_message_slowly(
        &mut self,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Message, SubscriptionError>>> {
        loop {
            match ready!(self.poll_filled(cx)) {
                Filled::Held(item) => return Poll::Ready(Some(Ok(take(item)))),
                Filled::End => return Poll::Ready(None),
                Filled::Batch => {}
            }
            if let Some(message) = self.pop_plain() {
                return Poll::Ready(Some(Ok(message)));
            }
            match self.queue.pop(&mut self.local) {
                Some(Entry::Item(item)) => return Poll::Ready(Some(Ok(take(item)))),
                Some(Entry::Notice(Notice::Error(error))) => return Poll::Ready(Some(Err(error))),
                Some(Entry::Notice(Notice::Gap(_) | Notice::Lagged(_))) | None => {}
            }
        }
    }
}

#[inline(never)]
fn take(delivery: Delivery) -> Message {
    if let Some(receipt) = delivery.receipt {
        receipt.take();
    }
    delivery.message
}

/// The next message. Not an async function, so that taking one becomes a part of whoever awaits it.
struct Next<'a>(&'a mut Subscription);

impl Future for Next<'_> {
    type Output = Option<Result<Message, SubscriptionError>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_message(cx)
    }
}

impl Stream for Subscription {
    type Item = Result<Message, SubscriptionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_message(cx)
    }
}

impl FusedStream for Subscription {
    fn is_terminated(&self) -> bool {
        self.ended && self.local.is_empty()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.queue.abandon();
        for member in &self.members {
            member.router.release(member.slot);
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("outcomes", &self.outcomes)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// What happens to a subscription.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message came.
    Message(Message),
    /// The connection was away. What comes next arrived after it was back.
    Gap(Gap),
    /// The subscriber was slow, and this many messages are missing since the last event of this kind.
    /// It stands where the first of them was missed.
    Lagged(u64),
}

/// A [`Subscription`] whose stream also shows gaps and lost messages, each in its place: a `Stream` of
/// `Result<Event, SubscriptionError>`.
#[must_use = "a subscription ends when it is dropped"]
#[derive(Debug)]
pub struct Events(Subscription);

impl Events {
    /// The next event, or `None` at the end.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Event, SubscriptionError>> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// The subscription.
    pub fn subscription(&mut self) -> &mut Subscription {
        &mut self.0
    }

    /// See [`Subscription::unsubscribe`].
    ///
    /// # Errors
    /// A provider did not confirm.
    ///
    /// # Cancel safety
    /// As [`Subscription::unsubscribe`].
    pub async fn unsubscribe(self) -> Result<(), ProviderError> {
        self.0.unsubscribe().await
    }

    fn poll_event(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Event, SubscriptionError>>> {
        Poll::Ready(ready!(self.0.poll_entry(cx)).map(|entry| match entry {
            Entry::Item(item) => Ok(Event::Message(take(item))),
            Entry::Notice(Notice::Gap(gap)) => Ok(Event::Gap(gap)),
            Entry::Notice(Notice::Lagged(count)) => Ok(Event::Lagged(count)),
            Entry::Notice(Notice::Error(error)) => Err(error),
        }))
    }
}

impl Stream for Events {
    type Item = Result<Event, SubscriptionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(cx)
    }
}

impl FusedStream for Events {
    fn is_terminated(&self) -> bool {
        self.0.is_terminated()
    }
}

/// A [`Subscription`] that leaves confirming to the subscriber: a `Stream` of
/// `Result<Delivery, SubscriptionError>`.
///
/// A delivery counts as taken when its receipt is [taken](crate::DeliveryReceipt::take). Receipts in the
/// subscriber's hands do not count against [`HoldLimits`](crate::HoldLimits); the other side's window
/// limits how many there can be.
#[must_use = "a subscription ends when it is dropped"]
#[derive(Debug)]
pub struct Deliveries(Subscription);

impl Deliveries {
    /// The next delivery, or `None` at the end.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Delivery, SubscriptionError>> {
        poll_fn(|cx| self.0.poll_delivery(cx)).await
    }

    /// The subscription.
    pub fn subscription(&mut self) -> &mut Subscription {
        &mut self.0
    }

    /// See [`Subscription::unsubscribe`].
    ///
    /// # Errors
    /// A provider did not confirm.
    ///
    /// # Cancel safety
    /// As [`Subscription::unsubscribe`].
    pub async fn unsubscribe(self) -> Result<(), ProviderError> {
        self.0.unsubscribe().await
    }
}

impl Stream for Deliveries {
    type Item = Result<Delivery, SubscriptionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_delivery(cx)
    }
}

impl FusedStream for Deliveries {
    fn is_terminated(&self) -> bool {
        self.0.is_terminated()
    }
}

/// A [`Subscription`] that decodes each payload: a `Stream` of `Result<TypedMessage<T>, SubscriptionError>`.
///
/// A payload that does not decode is [`SubscriptionError::Payload`], with the message in it, and the
/// stream goes on.
///
/// For gaps and losses beside decoded payloads, take [`Events`] and call [`Message::json`].
#[must_use = "a subscription ends when it is dropped"]
#[derive(Debug)]
pub struct Typed<T, C = JsonCodec> {
    subscription: Subscription,
    codec: C,
    value: PhantomData<fn() -> T>,
}

/// A message with its decoded payload.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TypedMessage<T> {
    /// What the payload says.
    pub value: T,
    /// The message as it came.
    pub message: Message,
}

impl<T, C: Decode<T>> Typed<T, C> {
    /// The next message, or `None` at the end.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Result<TypedMessage<T>, SubscriptionError>> {
        poll_fn(|cx| self.poll_value(cx)).await
    }

    /// The subscription.
    pub fn subscription(&mut self) -> &mut Subscription {
        &mut self.subscription
    }

    /// See [`Subscription::unsubscribe`].
    ///
    /// # Errors
    /// A provider did not confirm.
    ///
    /// # Cancel safety
    /// As [`Subscription::unsubscribe`].
    pub async fn unsubscribe(self) -> Result<(), ProviderError> {
        self.subscription.unsubscribe().await
    }

    fn poll_value(
        &mut self,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<TypedMessage<T>, SubscriptionError>>> {
        let item = ready!(self.subscription.poll_message(cx));
        Poll::Ready(item.map(|item| {
            let message = item?;
            match self.codec.decode(&message.payload) {
                Ok(value) => Ok(TypedMessage { value, message }),
                Err(error) => Err(SubscriptionError::Payload(Box::new(BadPayload::new(
                    message, error,
                )))),
            }
        }))
    }
}

impl<T, C: Decode<T> + Unpin> Stream for Typed<T, C> {
    type Item = Result<TypedMessage<T>, SubscriptionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_value(cx)
    }
}

impl<T, C: Decode<T> + Unpin> FusedStream for Typed<T, C> {
    fn is_terminated(&self) -> bool {
        self.subscription.is_terminated()
    }
}
