//! The seam between core and a service: what a provider does, and what it is given.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use crate::connection::ConnectionFacts;
use crate::error::{ProviderError, Refusal, RefusalKind};
use crate::matching::MatchingRules;
use crate::message::{Message, OutboundMessage, ProviderName, QoS};
use crate::queue::Place;
use crate::receipt::PublishReceipt;
use crate::router::Router;
use crate::topic::TopicFilter;

/// A boxed future, `Send` except on wasm32, where nothing is.
#[cfg(not(target_arch = "wasm32"))]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A boxed future, `Send` except on wasm32, where nothing is.
#[cfg(target_arch = "wasm32")]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// `Send + Sync` except on wasm32, where it asks for nothing. Every type that can have it has it.
#[cfg(not(target_arch = "wasm32"))]
pub trait MaybeSendSync: Send + Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + Sync + ?Sized> MaybeSendSync for T {}
/// `Send + Sync` except on wasm32, where it asks for nothing. Every type that can have it has it.
#[cfg(target_arch = "wasm32")]
pub trait MaybeSendSync {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> MaybeSendSync for T {}

/// A service that messages are published to and received from.
///
/// # Order
/// [`subscribe`](Self::subscribe), [`unsubscribe`](Self::unsubscribe) and [`release`](Self::release)
/// take effect **in the order of the calls**: put the request in line when called, and let the returned
/// future only wait for the answer. Core relies on it, since the last user of a filter may leave while
/// another one arrives.
///
/// # Cancel safety
/// Dropping a returned future gives up the answer, not the request. None of these methods may block.
///
/// # Locks
/// Core may hold a lock of its own during `subscribe`, `unsubscribe` and `release`, and it calls
/// `release` from within [`DeliverySink::deliver`]. So an implementor does not hold a lock that these
/// methods need while it calls into its sink; calling the sink from within them is fine otherwise.
///
/// # Example
/// The smallest one: what is published comes straight back. It need not look at filters, since core gives each message to
/// those whose filters match.
///
/// ```
/// use std::future::ready;
/// use std::sync::OnceLock;
/// use pubsub_core::{
///     BoxFuture, Delivered, DeliverySink, FilterRequest, Message, OutboundMessage, Provider, ProviderError,
///     ProviderErrorKind, PubSub, PublishError, PublishReceipt, QoS, Refusal, TopicFilter,
/// };
///
/// #[derive(Default)]
/// struct Echo {
///     sink: OnceLock<DeliverySink>,
/// }
///
/// impl Provider for Echo {
///     fn attach(&self, sink: DeliverySink) -> Result<(), ProviderError> {
///         self.sink.set(sink).map_err(|_| ProviderErrorKind::Invalid.into())
///     }
///
///     fn publish(&self, message: OutboundMessage) -> PublishReceipt {
///         let Some(sink) = self.sink.get() else {
///             let error = ProviderErrorKind::NotConnected.into();
///             return PublishReceipt::ready(Err(PublishError::NotSent(error)));
///         };
///         let mut echo = Message::new(message.topic, message.payload);
///         echo.properties = message.properties;
///         // Nothing is to be confirmed, so nothing can be held back for too long.
///         let _ = sink.deliver(&mut vec![echo.into()]);
///         PublishReceipt::ready(Ok(Delivered::Sent))
///     }
///
///     fn subscribe(
///         &self,
///         requests: Vec<FilterRequest>,
///     ) -> BoxFuture<'static, Result<Vec<Result<QoS, Refusal>>, ProviderError>> {
///         Box::pin(ready(Ok(requests.iter().map(|_| Ok(QoS::AtMostOnce)).collect())))
///     }
///
///     fn unsubscribe(&self, _: Vec<TopicFilter>) -> BoxFuture<'static, Result<(), ProviderError>> {
///         Box::pin(ready(Ok(())))
///     }
///
///     fn release(&self, _: Vec<TopicFilter>) {}
///
///     fn close(&self) -> BoxFuture<'static, Result<(), ProviderError>> {
///         Box::pin(ready(Ok(())))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pubsub = PubSub::new();
/// pubsub.add_provider("echo", Echo::default())?;
/// let mut messages = pubsub.subscribe("valley/#").await?;
/// pubsub.publish("hill", "not asked for").await?;
/// pubsub.publish("valley/1", "hello").await?;
/// assert_eq!(messages.next().await.ok_or("ended")??.topic, "valley/1");
/// # Ok(())
/// # }
/// ```
///
/// A real one also tells how its connection stands ([`DeliverySink::set_connection_state`]) and refuses to publish once it is
/// closed; the [contract suite](crate#where-things-are) has all that there is to keep to.
pub trait Provider: MaybeSendSync + 'static {
    /// Gives the provider its sink. Called once, before anything else. Not yet a reason to connect;
    /// the first publish or subscribe is, if not the provider's own options.
    ///
    /// # Errors
    /// The provider cannot be used, for instance because it is attached already. It is then not added.
    fn attach(&self, sink: DeliverySink) -> Result<(), ProviderError>;

    /// Where the service's matching departs from the specification. Asked once, at [`attach`](Self::attach).
    fn matching_rules(&self) -> MatchingRules {
        MatchingRules::default()
    }

    /// What those may drive who wait for messages of this provider. Asked once, at [`attach`](Self::attach). None by default:
    /// its messages come without anybody's help.
    fn driver(&self) -> Option<Arc<dyn Drive>> {
        None
    }

    /// Publishes a message. It is the provider's from here on, whatever becomes of the receipt.
    ///
    /// A hot call: no boxed future, no allocation beyond the receipt's own one.
    fn publish(&self, message: OutboundMessage) -> PublishReceipt;

    /// Subscribes to filters. Resolves to one reply for each request, in the order of the requests: the
    /// granted assurance or a refusal. A refused filter says nothing about the others.
    ///
    /// A filter that is subscribed already is asked for again when a new subscriber wants its retained
    /// messages, or a higher assurance. The provider keeps granted filters subscribed over
    /// reconnections until they are unsubscribed or [lost](DeliverySink::subscription_lost).
    ///
    /// # Errors
    /// The request failed as a whole; then no filter of it is subscribed.
    fn subscribe(
        &self,
        requests: Vec<FilterRequest>,
    ) -> BoxFuture<'static, Result<Vec<Result<QoS, Refusal>>, ProviderError>>;

    /// Unsubscribes from filters that nobody uses any more. Resolves when the service confirmed it, or
    /// at once when there is no connection and the service will not remember them.
    ///
    /// # Errors
    /// The service did not confirm. Core has let go of the filters all the same, and so must the provider.
    fn unsubscribe(
        &self,
        filters: Vec<TopicFilter>,
    ) -> BoxFuture<'static, Result<(), ProviderError>>;

    /// The same without an answer, for subscriptions that are dropped: put it in line and return.
    fn release(&self, filters: Vec<TopicFilter>);

    /// Closes for good: sends what was accepted, within the provider's own time limit, ends the
    /// connection and every task, then resolves. Further calls fail with kind
    /// [`Closed`](crate::ProviderErrorKind::Closed). Closing twice is harmless.
    ///
    /// # Errors
    /// Something accepted could not be sent. The provider is closed all the same.
    fn close(&self) -> BoxFuture<'static, Result<(), ProviderError>>;
}

/// By whatever points to one: what is shared with the application, and what is chosen at run time.
macro_rules! provider_by_pointer {
    ($pointer:ident) => {
        impl<P: Provider + ?Sized> Provider for $pointer<P> {
            fn attach(&self, sink: DeliverySink) -> Result<(), ProviderError> {
                (**self).attach(sink)
            }

            fn matching_rules(&self) -> MatchingRules {
                (**self).matching_rules()
            }

            fn driver(&self) -> Option<Arc<dyn Drive>> {
                (**self).driver()
            }

            fn publish(&self, message: OutboundMessage) -> PublishReceipt {
                (**self).publish(message)
            }

            fn subscribe(
                &self,
                requests: Vec<FilterRequest>,
            ) -> BoxFuture<'static, Result<Vec<Result<QoS, Refusal>>, ProviderError>> {
                (**self).subscribe(requests)
            }

            fn unsubscribe(
                &self,
                filters: Vec<TopicFilter>,
            ) -> BoxFuture<'static, Result<(), ProviderError>> {
                (**self).unsubscribe(filters)
            }

            fn release(&self, filters: Vec<TopicFilter>) {
                (**self).release(filters);
            }

            fn close(&self) -> BoxFuture<'static, Result<(), ProviderError>> {
                (**self).close()
            }
        }
    };
}

provider_by_pointer!(Arc);
provider_by_pointer!(Box);

/// A filter and how to subscribe to it.
///
/// Options of [`Subscribe`](crate::Subscribe) hold for every filter; where each has its own, give these:
///
/// ```
/// use pubsub_core::{FilterRequest, MemoryProvider, PubSub, QoS, RetainedMessages, TopicFilter};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let pubsub = PubSub::new();
/// # pubsub.add_provider("memory", MemoryProvider::new())?;
/// let alarms = FilterRequest::new("alarm/#".parse()?).with_qos(QoS::AtLeastOnce);
/// let readings = FilterRequest::new("reading/+".parse()?).with_retained(RetainedMessages::Skip);
/// let messages = pubsub.subscribe([alarms, readings]).await?;
/// # drop(messages);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterRequest {
    /// The filter.
    pub filter: TopicFilter,
    /// The highest assurance wanted. At most once by default.
    pub qos: QoS,
    /// Which retained messages to send at the start.
    pub retained: RetainedMessages,
    /// Whether to receive what this same client publishes.
    pub own_messages: OwnMessages,
    /// What the retain mark of a message that is news means.
    pub retain_mark: RetainMark,
}

impl FilterRequest {
    /// This filter with the defaults of every field.
    #[must_use]
    pub fn new(filter: TopicFilter) -> Self {
        Self {
            filter,
            qos: QoS::default(),
            retained: RetainedMessages::default(),
            own_messages: OwnMessages::default(),
            retain_mark: RetainMark::default(),
        }
    }

    /// This request with another assurance.
    #[must_use]
    pub fn with_qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// This request with another wish for retained messages.
    #[must_use]
    pub fn with_retained(mut self, retained: RetainedMessages) -> Self {
        self.retained = retained;
        self
    }

    /// This request with another answer to whether one's own messages come, too.
    #[must_use]
    pub fn with_own_messages(mut self, own_messages: OwnMessages) -> Self {
        self.own_messages = own_messages;
        self
    }

    /// This request with another meaning of the retain mark.
    #[must_use]
    pub fn with_retain_mark(mut self, retain_mark: RetainMark) -> Self {
        self.retain_mark = retain_mark;
        self
    }
}

impl From<TopicFilter> for FilterRequest {
    fn from(filter: TopicFilter) -> Self {
        Self::new(filter)
    }
}

/// Which retained messages a new subscription is sent.
///
/// A service that cannot choose sends all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "closed by the specification")]
pub enum RetainedMessages {
    /// All that match.
    #[default]
    Send,
    /// All that match, but only if the filter is not subscribed already.
    OnlyIfNew,
    /// None.
    Skip,
}

/// Whether a subscription sees what its own client publishes.
///
/// A service that cannot choose sends them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "two ways, closed")]
pub enum OwnMessages {
    /// It does.
    #[default]
    Receive,
    /// It does not.
    Skip,
}

/// What the retain mark of a message tells that is delivered because it was just published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "two ways, closed")]
pub enum RetainMark {
    /// It is clear; the mark means "not news".
    #[default]
    OldMessagesOnly,
    /// It is as the publisher set it.
    AsPublished,
}

/// What became of one filter at one provider.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FilterOutcome {
    /// The provider.
    pub provider: ProviderName,
    /// The filter.
    pub filter: TopicFilter,
    /// The assurance granted, or why there is none.
    pub result: Result<QoS, Refusal>,
}

impl FilterOutcome {
    pub(crate) fn new(
        provider: ProviderName,
        filter: TopicFilter,
        result: Option<Result<QoS, Refusal>>,
    ) -> Self {
        let result = result.unwrap_or_else(|| Err(RefusalKind::ProviderFailed.into()));
        Self {
            provider,
            filter,
            result,
        }
    }
}

/// A message as a provider hands it over, and as
/// [`Deliveries`](crate::Deliveries) hands it on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// What confirms it. `None` where nothing is to be confirmed.
    pub receipt: Option<DeliveryReceipt>,
    /// The size of the buffer, in bytes, that the payload keeps alive; 0 if it fills its own.
    /// A message that stays queued and uses less than a quarter of it is copied out.
    pub buffer_len: usize,
    /// In the queue that it waits in.
    pub(crate) place: Place,
}

impl Delivery {
    /// A message that needs no confirmation and fills its own buffer.
    #[must_use]
    #[inline]
    pub fn new(message: Message) -> Self {
        Self {
            message,
            receipt: None,
            buffer_len: 0,
            place: Place::default(),
        }
    }

    /// This delivery with something to confirm.
    #[must_use]
    #[inline]
    pub fn with_receipt(mut self, receipt: DeliveryReceipt) -> Self {
        self.receipt = Some(receipt);
        self
    }

    /// This delivery, said to keep a buffer of this many bytes alive.
    #[must_use]
    #[inline]
    pub fn with_buffer_len(mut self, bytes: usize) -> Self {
        self.buffer_len = bytes;
        self
    }
}

impl From<Message> for Delivery {
    fn from(message: Message) -> Self {
        Self::new(message)
    }
}

/// What confirms a delivery. It can be used once; a clone does not exist.
///
/// Core knows two things to do with it: to [take](Self::take) it when the subscriber has the message,
/// or to drop it. What either means to the service is the provider's business, and so is whether the
/// connection the message came over still exists: settling a receipt from an earlier one does nothing.
#[must_use = "dropping a receipt tells the provider that the message was not taken"]
pub struct DeliveryReceipt {
    /// `None` once settled.
    sink: Option<Arc<dyn ReceiptSink>>,
    token: u64,
}

impl DeliveryReceipt {
    /// A receipt that will tell `sink` what became of `token`. No allocation.
    pub fn new(sink: Arc<dyn ReceiptSink>, token: u64) -> Self {
        Self {
            sink: Some(sink),
            token,
        }
    }

    /// The subscriber has the message.
    pub fn take(self) {
        self.settle(Settlement::Taken);
    }

    /// The subscriber does not want the message, and the other side shall know why where it can.
    pub fn reject(self, reason: RefusalKind) {
        self.settle(Settlement::Rejected(reason));
    }

    pub(crate) fn settle(mut self, settlement: Settlement) {
        if let Some(sink) = self.sink.take() {
            sink.settle(self.token, settlement);
        }
    }
}

impl Drop for DeliveryReceipt {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.settle(self.token, Settlement::Dropped);
        }
    }
}

impl fmt::Debug for DeliveryReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryReceipt")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// The provider's end of its [`DeliveryReceipt`]s.
pub trait ReceiptSink: MaybeSendSync + 'static {
    /// The message that `token` stands for was settled. Called once a receipt, from any thread, and
    /// possibly from within [`DeliverySink::deliver`]; it must not block and not call into the sink.
    fn settle(&self, token: u64, settlement: Settlement);
}

/// A provider's work, for whoever waits for it to do: for a publish, see
/// [`Receipts::driven_by`](crate::Receipts::driven_by), or for a message, see [`Provider::driver`].
///
/// A provider whose work is done by a task of its own needs that task to run, and then the one that waits, before a publish is
/// settled or a message taken. Where that takes longer than the work, it may be done on the spot instead, by the one that
/// waits. It need not be: this is an offer, not a request, and a provider goes on by itself if nobody drives it.
///
/// Both are called from any thread, with no lock of core's held, and possibly from code that the work itself has called. Neither
/// blocks.
pub trait Drive: MaybeSendSync + 'static {
    /// Somebody, whose task is woken by the context's waker, is about to wait for a publish. Does what there is to do
    /// now, or nothing.
    fn drive(&self, cx: &Context<'_>);

    /// Somebody, whose task is woken by the context's waker, is about to wait for a message. Does what there is to do now,
    /// or nothing.
    ///
    /// It may also keep the waker, and wake it once, as soon as there is work that may bring a message: whoever is woken so
    /// finds no message yet, and comes back here. It may as well never come back, so that the work must not depend on it.
    fn drive_receiving(&self, cx: &Context<'_>) {
        let _ = cx;
    }
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// Every subscriber whose filters match has it.
    Taken,
    /// A subscriber was too slow and its options say that the message be confirmed all the same.
    Released,
    /// A subscriber refused it.
    Rejected(RefusalKind),
    /// A subscriber has no room for it and its options ask to drop the connection: do not confirm it, so
    /// that the other side sends it again. [`Demand::DropConnection`] follows.
    Postponed,
    /// Nobody has it: no filter matched, or every subscriber left before it came to the message.
    Dropped,
}

/// A time without connection, as a subscriber sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// How long messages could not arrive; `None` where nobody measured it, as when a provider is
    /// replaced, or the clock was set.
    pub length: Option<Duration>,
    /// Whether the other side kept what it should.
    pub continuity: Continuity,
    /// Whether it was meant.
    pub cause: GapCause,
}

impl Gap {
    /// A gap of this length that nobody meant.
    #[must_use]
    pub fn new(length: impl Into<Option<Duration>>, continuity: Continuity) -> Self {
        Self {
            length: length.into(),
            continuity,
            cause: GapCause::Loss,
        }
    }

    /// Says what the gap comes from.
    #[must_use]
    pub fn because_of(mut self, cause: GapCause) -> Self {
        self.cause = cause;
        self
    }

    /// Two gaps with no message between them, seen as one. Its length is known if both are; it was meant if both
    /// were, and came from a restart if one did.
    #[must_use]
    pub fn merge(self, later: Self) -> Self {
        Self {
            length: self
                .length
                .zip(later.length)
                .map(|(a, b)| a.saturating_add(b)),
            continuity: self.continuity.max(later.continuity),
            cause: self.cause.max(later.cause),
        }
    }
}

/// What a [`Gap`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_enums, reason = "three ways, closed")]
pub enum GapCause {
    /// The provider replaced its connection ahead of a known limit, or the program replaced the provider.
    Planned,
    /// The connection was lost.
    Loss,
    /// The process ended, and this one goes on with its session. The length is by the wall clock of both.
    Restart,
}

/// Whether the other side remembered its client over a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_enums, reason = "two ways, closed")]
pub enum Continuity {
    /// It kept the subscriptions and what it had to deliver at [`QoS::AtLeastOnce`] and above; only
    /// messages [at most once](QoS::AtMostOnce) may be missing.
    Kept,
    /// It started anew: any message published during the gap is missing.
    Lost,
}

/// What the router asks of the provider after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the provider may have to drop its connection"]
#[non_exhaustive]
pub enum Demand {
    /// Go on.
    Continue,
    /// A subscriber is too slow and its options ask to drop the connection and resume, so that the
    /// other side keeps what is not confirmed.
    DropConnection,
}

/// Core's ear: where a provider hands over messages and news of its connection.
///
/// A clone leads to the same place. Calls after the provider was removed do nothing.
#[derive(Clone)]
pub struct DeliverySink {
    router: Arc<Router>,
    epoch: u64,
}

impl DeliverySink {
    pub(crate) fn new(router: Arc<Router>, epoch: u64) -> Self {
        Self { router, epoch }
    }

    /// The name the provider was added under.
    #[must_use]
    pub fn provider_name(&self) -> &ProviderName {
        self.router.name()
    }

    /// Hands a batch of messages to their subscribers, in order, and leaves the vector empty with its
    /// capacity, ready for the next batch.
    ///
    /// Never waits for a subscriber. Each subscriber that gets something is woken once, after the whole
    /// batch. Best called with everything that one read of the connection gave.
    pub fn deliver(&self, batch: &mut Vec<Delivery>) -> Demand {
        self.router.deliver(self.epoch, batch)
    }

    /// Tells how the connection stands now. States equal to the last one are not repeated.
    pub fn set_connection_state(&self, facts: ConnectionFacts, reason: Option<ProviderError>) {
        self.router.set_connection_state(self.epoch, facts, reason);
    }

    /// Tells every subscriber of a gap. Called after a reconnection, when its length and continuity are
    /// known, and before the first message of the new connection is delivered.
    pub fn gap(&self, gap: Gap) {
        self.router.gap(self.epoch, gap);
    }

    /// Tells the subscribers of these filters of a gap, each of them once: of one that concerns nobody else, because it was
    /// an earlier process that subscribed to them first. Filters that nobody has are ignored.
    pub fn gap_of(&self, filters: &[TopicFilter], gap: Gap) {
        self.router.gap_of(self.epoch, filters, gap);
    }

    /// A granted filter is no longer subscribed and the provider will not restore it.
    pub fn subscription_lost(&self, filter: &TopicFilter, reason: Refusal) {
        self.router.subscription_lost(self.epoch, filter, reason);
    }

    /// The provider gives up for good: its subscribers get the error, and their streams end.
    pub fn failed(&self, error: ProviderError) {
        self.router.failed(self.epoch, error);
    }

    /// Tells the time, as a duration since an origin of the provider's choice. Core has no clock: with
    /// this called now and then, say once a second, it can enforce
    /// [`HoldLimits::time`](crate::HoldLimits::time). Time never goes back.
    pub fn advance_clock(&self, now: Duration) -> Demand {
        self.router.advance_clock(self.epoch, now)
    }
}

impl fmt::Debug for DeliverySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliverySink")
            .field("provider", self.provider_name())
            .finish_non_exhaustive()
    }
}
