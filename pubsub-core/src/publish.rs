//! A message on its way: what is asked for, what was sent, and what became of it.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::error::{ProviderErrorKind, PublishError};
use crate::into::IntoTopics;
use crate::message::{OfflinePolicy, OutboundMessage, Properties, ProviderName, QoS};
use crate::payload::IntoPayload;
use crate::provider::Provider;
use crate::pubsub::Registry;
use crate::receipt::{Delivered, PublishReceipt};
use crate::router::Router;
use crate::topic::TopicName;

/// A message to be published: await it, or [`send`](Self::send) it and await later.
#[must_use = "nothing is published until this is awaited or sent"]
#[derive(Debug)]
pub struct Publish<'a> {
    registry: &'a Registry,
    /// For the first topic; put together here, so that it is not moved again.
    message: Result<OutboundMessage, PublishError>,
    /// The topics after the first.
    more: Vec<TopicName>,
    provider: Option<ProviderName>,
}

impl<'a> Publish<'a> {
    #[inline]
    pub(crate) fn new(
        registry: &'a Registry,
        topics: impl IntoTopics,
        payload: impl IntoPayload,
    ) -> Self {
        let mut first = None;
        let mut more = Vec::new();
        let checked = topics.for_each_topic(&mut |topic| match &first {
            None => first = Some(topic),
            Some(_) => more.push(topic),
        });
        let message = match (checked, first) {
            (Err(error), _) => Err(PublishError::Topic(error)),
            (Ok(()), None) => Err(PublishError::NoTopics),
            (Ok(()), Some(topic)) => match payload.into_payload() {
                Ok(payload) => Ok(OutboundMessage::new(topic, payload)),
                Err(error) => Err(error.into()),
            },
        };
        Self {
            registry,
            message,
            more,
            provider: None,
        }
    }

    /// What does not become a message needs no options either.
    fn with(mut self, set: impl FnOnce(&mut OutboundMessage)) -> Self {
        if let Ok(message) = &mut self.message {
            set(message);
        }
        self
    }

    /// With this assurance; [`QoS::AtMostOnce`] by default.
    pub fn qos(self, qos: QoS) -> Self {
        self.with(|message| message.qos = qos)
    }

    /// To be kept for later subscribers of the topic, in place of what was kept before; with an empty
    /// payload, to erase that.
    pub fn retain(self) -> Self {
        self.with(|message| message.retain = true)
    }

    /// Through this provider alone; through all of them by default.
    pub fn provider(mut self, name: impl Into<ProviderName>) -> Self {
        self.provider = Some(name.into());
        self
    }

    /// What to do while there is no connection; as the provider is configured by default.
    pub fn offline(self, policy: OfflinePolicy) -> Self {
        self.with(|message| message.offline = policy)
    }

    /// With these properties, in place of all set before.
    pub fn properties(self, properties: impl Into<Properties>) -> Self {
        self.with(|message| message.properties = properties.into())
    }

    /// With this media type.
    pub fn content_type(self, content_type: impl Into<String>) -> Self {
        self.with(|message| message.properties.content_type = Some(content_type.into()))
    }

    /// Not worth delivering after this long.
    pub fn expires_after(self, expiry: Duration) -> Self {
        self.with(|message| message.properties.expiry = Some(expiry))
    }

    /// With one more pair for the application.
    pub fn user_property(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|message| message.properties.user.push((name.into(), value.into())))
    }

    /// Sends it now, without waiting for anything. Messages sent one after another go out in that order.
    pub fn send(self) -> Publishing {
        let tickets = match self.only_provider() {
            Ok(Some(provider)) => {
                return Publishing::one(match self.message {
                    Ok(message) => provider.publish(message),
                    Err(error) => PublishReceipt::ready(Err(error)),
                });
            }
            Ok(None) => self.send_each(),
            Err(error) => Err(error),
        };
        match tickets {
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
        let message = self.message?;
        let mut topics = vec![message.topic.clone()];
        topics.extend(self.more);
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
    fn only_provider(&self) -> Result<Option<Arc<dyn Provider>>, PublishError> {
        if !self.more.is_empty() {
            return Ok(None);
        }
        let provider = match &self.provider {
            Some(name) => {
                let router = self.registry.router(name);
                router.map_err(PublishError::UnknownProvider)?.provider()
            }
            None => {
                let only = self.registry.read(|routers| match &routers[..] {
                    [one] => Some(one.provider()),
                    _ => None,
                });
                match only {
                    Some(provider) => provider,
                    None => return Ok(None),
                }
            }
        };
        provider.map(Some).ok_or_else(closed)
    }
}

fn publish_on(router: &Router, message: OutboundMessage) -> PublishReceipt {
    match router.provider() {
        Some(provider) => provider.publish(message),
        None => PublishReceipt::ready(Err(closed())),
    }
}

fn closed() -> PublishError {
    PublishError::NotSent(ProviderErrorKind::Closed.into())
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
    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Targets::One(receipt) => Pin::new(receipt).poll(cx),
            _ => self.poll_each(cx),
        }
    }
}

impl Publishing {
    fn poll_each(&mut self, cx: &mut Context<'_>) -> Poll<Result<Delivered, PublishError>> {
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
