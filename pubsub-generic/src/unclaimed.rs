//! Subscriptions of an earlier process, and their messages, until this one subscribes to them again.
//!
//! The broker goes on with a stored session the moment that it is resumed. The application's subscriptions, which are made
//! one after another, would come too late for the first messages: these would be confirmed and dropped. So what comes for a
//! stored subscription waits until the application has subscribed to the same filter, or has had its time to.

use std::sync::Arc;

use pubsub_core::{Delivery, MatchingRules, QoS, TopicFilter};
use tokio::time::Instant;

use crate::driver::Task;
use crate::inbox::{Command, Operation};

pub(crate) struct Unclaimed {
    filters: Vec<TopicFilter>,
    rules: MatchingRules,
    /// In the order in which they came. Not confirmed, so bounded by what the session lets be unconfirmed.
    held: Vec<Delivery>,
    /// From the first connection on.
    deadline: Option<Instant>,
}

impl Unclaimed {
    pub(crate) fn new(filters: &[Arc<str>], rules: MatchingRules) -> Option<Box<Self>> {
        let filters: Vec<_> = filters
            .iter()
            .filter_map(|filter| TopicFilter::new(filter.as_ref()).ok())
            .collect();
        (!filters.is_empty()).then(|| {
            Box::new(Self {
                filters,
                rules,
                held: Vec::new(),
                deadline: None,
            })
        })
    }

    /// Keeps a message that somebody may still subscribe to. Not one at QoS 0: nothing says how many there may be, and such a
    /// one would have been lost with the process, too.
    pub(crate) fn hold(&mut self, delivery: Delivery) -> Option<Delivery> {
        if delivery.message.qos == QoS::AtMostOnce || !self.concerns(&delivery) {
            return Some(delivery);
        }
        self.held.push(delivery);
        None
    }

    fn concerns(&self, delivery: &Delivery) -> bool {
        let topic = &delivery.message.topic;
        self.filters
            .iter()
            .any(|filter| filter.matches_with(topic, self.rules))
    }

    pub(crate) fn connected(&mut self, deadline: Option<Instant>) {
        if self.deadline.is_none() {
            self.deadline = deadline;
        }
    }

    /// What was not confirmed at QoS 1 comes again, and cannot be confirmed any more as it is.
    pub(crate) fn disconnected(&mut self) {
        self.held
            .retain(|delivery| delivery.message.qos == QoS::ExactlyOnce);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl Task {
    /// The application subscribes to these, or will not: what was held for them alone goes its way.
    pub(crate) fn claim(&mut self, filters: &[Arc<str>]) {
        let Some(unclaimed) = &mut self.unclaimed else {
            return;
        };
        unclaimed.filters.retain(|known| {
            let mut claimed = filters.iter();
            !claimed.any(|filter| **filter == *known.as_str())
        });
        let held = std::mem::take(&mut unclaimed.held);
        let (held, free): (Vec<_>, Vec<_>) = held
            .into_iter()
            .partition(|delivery| unclaimed.concerns(delivery));
        unclaimed.held = held;
        self.deliveries.extend(free);
        if unclaimed.filters.is_empty() {
            self.unclaimed = None;
        }
    }

    /// Nobody has subscribed to what is left: the broker need not send it any more.
    pub(crate) fn give_up_unclaimed(&mut self) -> bool {
        let is_due = |unclaimed: &Unclaimed| unclaimed.deadline.is_some_and(|at| at <= self.now);
        if !self.unclaimed.as_deref().is_some_and(is_due) {
            return false;
        }
        if let Some(unclaimed) = self.unclaimed.take() {
            self.deliveries.extend(unclaimed.held);
            let filters = unclaimed.filters.iter();
            self.shared
                .inbox
                .notify(Command::Operation(Operation::Unsubscribe {
                    filters: filters.map(|filter| Arc::from(filter.as_str())).collect(),
                    reply: None,
                }));
        }
        true
    }
}
