//! Filters on their way, and the packets that they are cut into.

use std::sync::Arc;

use mqtt_codec::{PacketId, SubscriptionId, TopicFilter};

use crate::error::SubscribeError;
use crate::event::BrokerLimits;
use crate::subscribe::Subscription;

/// One filter on its way.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) call: u64,
    /// Its place in the results of the call.
    pub(crate) index: usize,
    pub(crate) request: Request,
    /// Consecutive hang-ups of the broker with this in flight.
    pub(crate) strikes: u8,
}

#[derive(Debug, Clone)]
pub(crate) enum Request {
    Subscribe {
        subscription: Subscription,
        id: Option<SubscriptionId>,
    },
    Unsubscribe(Arc<str>),
}

/// Which packet a batch of jobs becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketKind {
    Subscribe(Option<SubscriptionId>),
    Unsubscribe,
}

/// The filters of one packet.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) packet_id: PacketId,
    pub(crate) kind: PacketKind,
    pub(crate) jobs: Vec<Job>,
}

/// Limits of one packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub(crate) filters: usize,
    pub(crate) bytes: usize,
}

impl Request {
    pub(crate) fn filter(&self) -> &Arc<str> {
        match self {
            Self::Subscribe { subscription, .. } => &subscription.filter,
            Self::Unsubscribe(filter) => filter,
        }
    }

    /// In its packet, at most.
    pub(crate) fn bytes(&self) -> usize {
        self.filter().len() + 3
    }

    pub(crate) const fn kind(&self) -> PacketKind {
        match self {
            Self::Subscribe { id, .. } => PacketKind::Subscribe(*id),
            Self::Unsubscribe(_) => PacketKind::Unsubscribe,
        }
    }
}

/// Checks filters against what a broker (or, before the first connection, the version) supports.
pub(crate) fn check_filter(
    filter: &str,
    index: usize,
    broker: Option<&BrokerLimits>,
) -> Result<(), SubscribeError> {
    let Ok(parsed) = TopicFilter::new(filter) else {
        return Err(SubscribeError::InvalidFilter { index });
    };
    if filter.starts_with("$share/") && parsed.shared().is_none() {
        return Err(SubscribeError::InvalidFilter { index });
    }
    let Some(broker) = broker else { return Ok(()) };
    if parsed.shared().is_some() && !broker.shared_subscriptions.is_available() {
        return Err(SubscribeError::SharedNotSupported { index });
    }
    if parsed.has_wildcards() && !broker.wildcard_subscriptions.is_available() {
        return Err(SubscribeError::WildcardsNotSupported { index });
    }
    if HEADER_BYTES + filter.len() + 3 > broker.maximum_packet_size as usize {
        return Err(SubscribeError::TooLarge { index });
    }
    Ok(())
}

pub(crate) fn not_supported(
    request: &Request,
    broker: &BrokerLimits,
    too_large: bool,
) -> Option<SubscribeError> {
    if too_large {
        return Some(SubscribeError::TooLarge { index: 0 });
    }
    match request {
        Request::Unsubscribe(_) => None,
        Request::Subscribe { id: Some(_), .. }
            if !broker.subscription_identifiers.is_available() =>
        {
            Some(SubscribeError::SubscriptionIdsNotSupported)
        }
        Request::Subscribe { subscription, .. } => {
            check_filter(&subscription.filter, 0, Some(broker)).err()
        }
    }
}

/// Fixed header (5), packet identifier (2), length of the properties (1) and a Subscription Identifier (5).
pub(crate) const HEADER_BYTES: usize = 13;
