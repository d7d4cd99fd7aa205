//! Subscriptions of an earlier process, and their messages, until this one subscribes to them again.
//!
//! The broker goes on with a stored session the moment that it is resumed. The application's subscriptions, which are made
//! one after another, would come too late for the first messages: these would be confirmed and dropped. So what comes for a
//! stored subscription waits until the application has subscribed to the same filter, or has had its time to. Before it the
//! subscriber hears of the gap: how long nobody was there, by the wall clock, and whether the broker kept the session.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pubsub_core::{Continuity, Delivery, Gap, GapCause, MatchingRules, QoS, TopicFilter};
use tokio::time::Instant;

use crate::driver::Task;
use crate::inbox::{Command, Operation};

/// 2026 began at this time. A clock that shows less has not been set, as on a device that has just been switched on.
const CLOCK_IS_SET: Duration = Duration::from_secs(1_767_225_600);

pub(crate) struct Unclaimed {
    filters: Vec<TopicFilter>,
    /// Subscribed to again, and not told of the gap yet.
    claimed: Vec<TopicFilter>,
    /// When the broker was last heard.
    heard: Option<SystemTime>,
    /// Known from the first connection on.
    gap: Option<Gap>,
    rules: MatchingRules,
    /// In the order in which they came. Not confirmed, so bounded by what the session lets be unconfirmed.
    held: Vec<Delivery>,
    /// From the first connection on.
    deadline: Option<Instant>,
}

impl Unclaimed {
    pub(crate) fn new(
        filters: &[Arc<str>],
        rules: MatchingRules,
        heard: Option<SystemTime>,
    ) -> Option<Box<Self>> {
        let filters: Vec<_> = filters
            .iter()
            .filter_map(|filter| TopicFilter::new(filter.as_ref()).ok())
            .collect();
        (!filters.is_empty()).then(|| {
            Box::new(Self {
                filters,
                claimed: Vec::new(),
                heard,
                gap: None,
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

    /// There is a connection: the first of this process, or one after another gap.
    fn connected(&mut self, deadline: Option<Instant>, continuity: Continuity, later: Option<Gap>) {
        self.gap = match (self.gap, later) {
            (None, _) => {
                self.deadline = deadline;
                let length = self.heard.and_then(|heard| away(heard, SystemTime::now()));
                Some(Gap::new(length, continuity).because_of(GapCause::Restart))
            }
            (Some(gap), Some(later)) => Some(gap.merge(later)),
            (gap, None) => gap,
        };
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

/// How long nobody was there, if the clock was not set back, or for the first time, meanwhile.
fn away(heard: SystemTime, now: SystemTime) -> Option<Duration> {
    let is_set = heard >= SystemTime::UNIX_EPOCH + CLOCK_IS_SET;
    is_set.then(|| now.duration_since(heard).ok()).flatten()
}

impl Task {
    /// Connected; `later` is a gap since the first time.
    pub(crate) fn unclaimed_connected(&mut self, continuity: Continuity, later: Option<Gap>) {
        let deadline = self.now.checked_add(self.shared.options.claim_timeout);
        if let Some(unclaimed) = &mut self.unclaimed {
            unclaimed.connected(deadline, continuity, later);
            if later.is_none() {
                if let Some(Gap {
                    length: Some(length),
                    cause,
                    ..
                }) = unclaimed.gap
                {
                    self.shared.counters.meters.gap(length, cause);
                }
                self.tell_claimed();
            }
        }
    }

    /// Who has subscribed again hears how long nobody was there.
    fn tell_claimed(&mut self) {
        let _ = self.deliver();
        let Some(unclaimed) = &mut self.unclaimed else {
            return;
        };
        let Some(gap) = unclaimed.gap else {
            return;
        };
        if !unclaimed.claimed.is_empty()
            && let Some(sink) = self.shared.sink.get()
        {
            sink.gap_of(&unclaimed.claimed, gap);
        }
        unclaimed.claimed.clear();
        if unclaimed.filters.is_empty() {
            self.unclaimed = None;
        }
    }

    /// The application subscribes to these: what was held for them alone goes its way, after the gap.
    pub(crate) fn claim(&mut self, filters: &[Arc<str>]) {
        if let Some(unclaimed) = &mut self.unclaimed {
            let is_asked =
                |known: &TopicFilter| filters.iter().any(|filter| **filter == *known.as_str());
            let claimed = unclaimed.filters.iter().filter(|known| is_asked(known));
            unclaimed.claimed.extend(claimed.cloned());
        }
        self.tell_claimed();
        self.let_go(filters);
    }

    /// Nothing is held for these alone any more.
    pub(crate) fn let_go(&mut self, filters: &[Arc<str>]) {
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
        self.incoming.deliveries.extend(free);
        if unclaimed.filters.is_empty() && unclaimed.claimed.is_empty() {
            self.unclaimed = None;
        }
        let _ = self.deliver();
    }

    /// Nobody has subscribed to what is left: the broker need not send it any more.
    pub(crate) fn give_up_unclaimed(&mut self) -> bool {
        let is_due = |unclaimed: &Unclaimed| unclaimed.deadline.is_some_and(|at| at <= self.now);
        if !self.unclaimed.as_deref().is_some_and(is_due) {
            return false;
        }
        if let Some(unclaimed) = self.unclaimed.take() {
            self.incoming.deliveries.extend(unclaimed.held);
            let _ = self.deliver();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_or_not_set_tells_no_length() {
        let at = |secs| SystemTime::UNIX_EPOCH + CLOCK_IS_SET + Duration::from_secs(secs);
        let hour = Duration::from_secs(3600);
        assert_eq!(away(at(0), at(3600)), Some(hour));
        assert_eq!(away(at(3600), at(3600)), Some(Duration::ZERO));
        assert_eq!(away(at(3600), at(0)), None, "set back");
        assert_eq!(
            away(SystemTime::UNIX_EPOCH + hour, at(0)),
            None,
            "not set then"
        );
        assert_eq!(
            away(at(0), SystemTime::UNIX_EPOCH + hour),
            None,
            "not set now"
        );
    }
}
