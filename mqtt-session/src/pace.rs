//! How fast PUBLISH packets leave, where the service limits that.

use core::num::NonZeroU16;
use core::time::Duration;
use std::collections::VecDeque;

use crate::time::Timestamp;

/// At most so many PUBLISH packets, of every QoS and those sent again included, in any stretch of time of this length on
/// one Network Connection. What is more waits in the queue.
///
/// A burst up to the whole number leaves at once; only what would exceed it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishPace {
    /// How many.
    pub publishes: NonZeroU16,
    /// In how long; not zero.
    pub per: Duration,
}

impl PublishPace {
    /// So many in any stretch of this length.
    #[must_use]
    pub const fn new(publishes: NonZeroU16, per: Duration) -> Self {
        Self { publishes, per }
    }
}

/// Follows a [`PublishPace`] on one connection.
#[derive(Debug)]
pub(crate) struct Pacer {
    pace: PublishPace,
    /// When the last ones left, the oldest first; at most as many as the pace allows.
    sent: VecDeque<Timestamp>,
}

impl Pacer {
    pub(crate) const fn new(pace: PublishPace) -> Self {
        Self {
            pace,
            sent: VecDeque::new(),
        }
    }

    /// From when on the next one may leave.
    pub(crate) fn free_at(&self) -> Timestamp {
        match self.sent.front() {
            Some(&oldest) if self.sent.len() >= usize::from(self.pace.publishes.get()) => {
                oldest + self.pace.per
            }
            _ => Timestamp::ZERO,
        }
    }

    pub(crate) fn on_sent(&mut self, now: Timestamp) {
        if self.sent.len() >= usize::from(self.pace.publishes.get()) {
            self.sent.pop_front();
        }
        self.sent.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stretch_of_the_length_holds_more() {
        let pace = PublishPace::new(NonZeroU16::new(3).unwrap(), Duration::from_millis(10));
        let mut pacer = Pacer::new(pace);
        let mut left = Vec::new();
        for millis in 0..100 {
            let now = Timestamp::from_origin(Duration::from_millis(millis));
            while pacer.free_at() <= now && left.len() < 1_000 {
                pacer.on_sent(now);
                left.push(millis);
            }
        }
        assert_eq!(left.len(), 30, "and no fewer");
        assert!(left.windows(4).all(|four| four[3] - four[0] >= 10));
        assert_eq!(pacer.sent.len(), 3);
    }
}
