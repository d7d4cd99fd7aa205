//! What can go wrong, by operation: one error type for each verb.

mod provider;
mod refusal;

use std::error::Error;
use std::fmt;

use crate::message::Message;
use crate::message::ProviderName;
use crate::payload::PayloadError;
use crate::provider::FilterOutcome;
use crate::publish::PublishOutcome;
use crate::topic::TopicFilter;
use crate::topic_error::TopicError;

pub use provider::{ProviderError, ProviderErrorKind, Retry};
pub use refusal::{Refusal, RefusalKind};

/// Why a message was not, or perhaps not, published.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic is not a valid name. Nothing was sent.
    Topic(TopicError),
    /// No topic was given. Nothing was sent.
    NoTopics,
    /// The payload could not be encoded. Nothing was sent.
    Payload(PayloadError),
    /// No provider has this name. Nothing was sent.
    UnknownProvider(UnknownProvider),
    /// No provider was added yet. Nothing was sent.
    NoProviders,
    /// It never left; sending it again cannot make a duplicate.
    NotSent(ProviderError),
    /// It arrived and was refused.
    Rejected(Box<Refusal>),
    /// It may have arrived or not; sending it again may make a duplicate.
    Indeterminate(ProviderError),
    /// It was for several topics or providers, and at least one failed. All are told here.
    Several(Box<[PublishOutcome]>),
}

impl PublishError {
    /// Whether the same publish may succeed later without anybody changing anything.
    ///
    /// [`Indeterminate`](Self::Indeterminate) counts as retryable by its cause; that a retry may
    /// duplicate the message is for the caller to weigh. For several outcomes: whether that holds for
    /// each that failed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotSent(error) | Self::Indeterminate(error) => error.is_retryable(),
            Self::Rejected(refusal) => refusal.kind == RefusalKind::QuotaExceeded,
            Self::Several(outcomes) => outcomes
                .iter()
                .filter_map(|outcome| outcome.result.as_ref().err())
                .all(Self::is_retryable),
            _ => false,
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(_) => f.write_str("not published: the topic is not valid"),
            Self::NoTopics => f.write_str("not published: no topic was given"),
            Self::Payload(_) => f.write_str("not published: the payload could not be encoded"),
            Self::UnknownProvider(_) => f.write_str("not published: unknown provider"),
            Self::NoProviders => f.write_str("not published: no provider was added"),
            Self::NotSent(_) => f.write_str("not published: it was not sent"),
            Self::Rejected(_) => f.write_str("not published: it was rejected"),
            Self::Indeterminate(_) => f.write_str("published or not: the answer did not come"),
            Self::Several(outcomes) => {
                let failed = outcomes
                    .iter()
                    .filter(|outcome| outcome.result.is_err())
                    .count();
                write!(f, "not published to {failed} of {} targets", outcomes.len())
            }
        }
    }
}

impl Error for PublishError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Topic(error) => Some(error),
            Self::Payload(error) => Some(error),
            Self::UnknownProvider(error) => Some(error),
            Self::NotSent(error) | Self::Indeterminate(error) => Some(error),
            Self::Rejected(refusal) => Some(refusal),
            Self::Several(outcomes) => outcomes
                .iter()
                .find_map(|outcome| outcome.result.as_ref().err())
                .map(|error| error as _),
            Self::NoTopics | Self::NoProviders => None,
        }
    }
}

impl From<TopicError> for PublishError {
    fn from(error: TopicError) -> Self {
        Self::Topic(error)
    }
}

impl From<PayloadError> for PublishError {
    fn from(error: PayloadError) -> Self {
        Self::Payload(error)
    }
}

/// Why a subscription did not come about.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SubscribeError {
    /// A filter is not valid.
    Topic(TopicError),
    /// No filter was given.
    NoFilters,
    /// No provider has this name.
    UnknownProvider(UnknownProvider),
    /// No provider was added yet.
    NoProviders,
    /// Every filter was refused by every provider. As long as one is granted there is a subscription,
    /// and [`Subscription::outcomes`](crate::Subscription::outcomes) tells of the others.
    Refused(Box<[FilterOutcome]>),
}

impl SubscribeError {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(outcomes) => outcomes
                .iter()
                .filter_map(|outcome| outcome.result.as_ref().err())
                .all(|refusal| {
                    refusal.kind == RefusalKind::QuotaExceeded
                        || refusal
                            .source
                            .as_ref()
                            .is_some_and(ProviderError::is_retryable)
                }),
            _ => false,
        }
    }
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(_) => f.write_str("not subscribed: a filter is not valid"),
            Self::NoFilters => f.write_str("not subscribed: no filter was given"),
            Self::UnknownProvider(_) => f.write_str("not subscribed: unknown provider"),
            Self::NoProviders => f.write_str("not subscribed: no provider was added"),
            Self::Refused(outcomes) => match &**outcomes {
                [one] => write!(f, "not subscribed: `{}` was refused", one.filter),
                all => write!(f, "not subscribed: all {} filters were refused", all.len()),
            },
        }
    }
}

impl Error for SubscribeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Topic(error) => Some(error),
            Self::UnknownProvider(error) => Some(error),
            Self::Refused(outcomes) => outcomes
                .iter()
                .find_map(|outcome| outcome.result.as_ref().err())
                .map(|refusal| refusal as _),
            Self::NoFilters | Self::NoProviders => None,
        }
    }
}

impl From<TopicError> for SubscribeError {
    fn from(error: TopicError) -> Self {
        Self::Topic(error)
    }
}

/// What a [`Subscription`](crate::Subscription) yields in place of a message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// A message came whose payload does not decode as asked. The stream goes on.
    Payload(Box<BadPayload>),
    /// One filter is no longer served. The stream goes on while others are, and ends otherwise.
    FilterLost(Box<FilterLost>),
    /// The subscriber was too slow and its options say that this ends the stream.
    Overflow(Overflow),
    /// The provider failed for good. The stream ends unless another provider still serves it.
    ProviderFailed(ProviderError),
}

impl SubscriptionError {
    /// Whether the stream may go on after this error. If it does not, `None` follows.
    #[must_use]
    pub fn may_continue(&self) -> bool {
        !matches!(self, Self::Overflow(_))
    }
}

impl fmt::Display for SubscriptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload(bad) => {
                write!(
                    f,
                    "a payload on `{}` could not be decoded",
                    bad.message.topic
                )
            }
            Self::FilterLost(lost) => write!(f, "`{}` is no longer subscribed", lost.filter),
            Self::Overflow(overflow) => overflow.fmt(f),
            Self::ProviderFailed(_) => f.write_str("the provider failed for good"),
        }
    }
}

impl Error for SubscriptionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Payload(bad) => Some(&bad.error),
            Self::FilterLost(lost) => Some(&lost.reason),
            Self::ProviderFailed(error) => Some(error),
            Self::Overflow(_) => None,
        }
    }
}

/// A message whose payload did not decode, and why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BadPayload {
    /// The message as it came.
    pub message: Message,
    /// Why it did not decode.
    pub error: PayloadError,
}

impl BadPayload {
    pub(crate) fn new(message: Message, error: PayloadError) -> Self {
        Self { message, error }
    }
}

/// A filter that was served and is not any more.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FilterLost {
    /// The provider that lost it.
    pub provider: ProviderName,
    /// The filter.
    pub filter: TopicFilter,
    /// Why.
    pub reason: Refusal,
}

/// What a slow subscriber ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// Its queue was full, by number of messages or by bytes.
    QueueFull,
    /// It held back more confirmations than it may, by number or by bytes.
    TooManyHeld,
    /// It held back a confirmation for longer than it may.
    HeldTooLong,
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "the subscriber was too slow and its queue is full",
            Self::TooManyHeld => {
                "the subscriber was too slow and holds back too many confirmations"
            }
            Self::HeldTooLong => {
                "the subscriber was too slow and held back a confirmation too long"
            }
        })
    }
}

/// No provider has this name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownProvider {
    /// The name that was asked for.
    pub name: ProviderName,
}

impl UnknownProvider {
    pub(crate) fn new(name: ProviderName) -> Self {
        Self { name }
    }
}

impl fmt::Display for UnknownProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not find provider named {}", self.name)
    }
}

impl Error for UnknownProvider {}

/// Why the registry of providers could not be changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RegistryError {
    /// A provider of this name is there already.
    NameTaken(ProviderName),
    /// No provider has this name.
    UnknownProvider(UnknownProvider),
    /// The provider did not let itself be attached, or closed with an error. A provider that was to be
    /// removed is removed all the same.
    Provider(ProviderError),
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken(name) => write!(f, "there is a provider named {name} already"),
            Self::UnknownProvider(_) => f.write_str("unknown provider"),
            Self::Provider(_) => f.write_str("the provider failed"),
        }
    }
}

impl Error for RegistryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NameTaken(_) => None,
            Self::UnknownProvider(error) => Some(error),
            Self::Provider(error) => Some(error),
        }
    }
}

impl From<UnknownProvider> for RegistryError {
    fn from(error: UnknownProvider) -> Self {
        Self::UnknownProvider(error)
    }
}
