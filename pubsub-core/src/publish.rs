//! A message on its way: what is asked for, what was sent, and what became of it.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use crate::error::{ProviderErrorKind, PublishError};
use crate::into::IntoTopics;
use crate::message::{OfflinePolicy, OutboundMessage, Properties, ProviderName, QoS};
use crate::payload::{IntoPayload, PayloadError};
use crate::provider::Provider;
use crate::pubsub::Registry;
use crate::receipt::{Delivered, PublishReceipt};
use crate::router::Router;
use crate::topic::TopicName;
use crate::topic_error::TopicError;

/// A message to be published: await it, or [`send`](Self::send) it and await later.
#[must_use = "nothing is published until this is awaited or sent"]
#[derive(Debug)]
pub struct Publish<'a> {
    registry: &'a Registry,
    topics: Topics,
    payload: Result<Bytes, PayloadError>,
    qos: QoS,
    retain: bool,
    properties: Properties,
    offline: OfflinePolicy,
    provider: Option<ProviderName>,
}

impl<'a> Publish<'a> {
    pub(crate) fn new(
        registry: &'a Registry,
        topics: impl IntoTopics,
        payload: impl IntoPayload,
    ) -> Self {
        let mut targets = Topics::None;
        if let Err(error) = topics.for_each_topic(&mut |topic| targets.push(topic)) {
            targets = Topics::Invalid(error);
        }
        Self {
            registry,
            topics: targets,
            payload: payload.into_payload(),
            qos: QoS::default(),
            retain: false,
            properties: Properties::default(),
            offline: OfflinePolicy::default(),
            provider: None,
        }
    }

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
        let tickets = match self.only_provider() {
            Ok(Some(provider)) => {
                return Publishing::one(match self.into_message() {
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
        let topics = match &self.topics {
            Topics::Many(topics) => topics.clone(),
            Topics::One(topic) => vec![topic.clone()],
            Topics::None | Topics::Invalid(_) => Vec::new(),
        };
        let message = self.into_message()?;
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
        let Topics::One(_) = &self.topics else {
            return Ok(None);
        };
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

    /// The message for the only topic, or the first.
    fn into_message(self) -> Result<OutboundMessage, PublishError> {
        let topic = match self.topics {
            Topics::One(topic) => topic,
            Topics::Many(topics) => topics.into_iter().next().ok_or(PublishError::NoTopics)?,
            Topics::None => return Err(PublishError::NoTopics),
            Topics::Invalid(error) => return Err(PublishError::Topic(error)),
        };
        Ok(OutboundMessage {
            qos: self.qos,
            retain: self.retain,
            properties: self.properties,
            offline: self.offline,
            ..OutboundMessage::new(topic, self.payload?)
        })
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
    Invalid(TopicError),
}

impl Topics {
    #[inline]
    fn push(&mut self, topic: TopicName) {
        match self {
            Self::None => *self = Self::One(topic),
            Self::One(first) => *self = Self::Many(vec![first.clone(), topic]),
            Self::Many(topics) => topics.push(topic),
            Self::Invalid(_) => {}
        }
    }
}
