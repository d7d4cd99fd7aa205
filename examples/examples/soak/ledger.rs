//! What was sent on one topic at one QoS, and what came of it.

use std::collections::{BTreeMap, BTreeSet};

use pubsub_core::{Delivered, PublishError, WithCauses};

/// Of these, at most so many are told one by one.
const TOLD: usize = 10;

/// The messages of one publisher at one QoS, numbered from 0, and their arrivals at the subscriber.
///
/// It grows only with what went wrong.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Given to the client.
    pub(crate) sent: u64,
    /// Reported as delivered.
    pub(crate) confirmed: u64,
    /// Came for the first time.
    pub(crate) arrived: u64,
    /// Came once more.
    pub(crate) repeated: u64,
    /// Came after one with a higher number.
    pub(crate) late: u64,
    /// Did not come as they were sent.
    pub(crate) damaged: u64,
    /// One more than the highest number that came.
    next: u64,
    /// Lower numbers that did not come yet.
    missing: BTreeSet<u64>,
    /// What the client reported, where that is not "delivered".
    failed: BTreeMap<u64, PublishError>,
}

impl Ledger {
    /// The number of the next message.
    pub(crate) fn send(&mut self) -> u64 {
        let number = self.sent;
        self.sent += 1;
        number
    }

    pub(crate) fn settle(&mut self, number: u64, outcome: Result<Delivered, PublishError>) {
        match outcome {
            Ok(_) => self.confirmed += 1,
            Err(error) => {
                self.failed.insert(number, error);
            }
        }
    }

    pub(crate) fn arrive(&mut self, number: u64) {
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
            self.arrived += 1;
        } else if self.missing.remove(&number) {
            self.late += 1;
            self.arrived += 1;
        } else {
            self.repeated += 1;
        }
    }

    /// How many have neither arrived nor failed.
    pub(crate) fn under_way(&self) -> u64 {
        (self.sent - self.arrived).saturating_sub(self.failed.len() as u64)
    }

    /// What moves until all is done; `None` when it is.
    pub(crate) fn progress(&self) -> Option<(u64, u64)> {
        (!self.is_complete()).then_some((self.settled(), self.arrived))
    }

    /// Whether each has its fate and, unless that was a failure, has arrived.
    pub(crate) fn is_complete(&self) -> bool {
        self.settled() == self.sent && self.lost().next().is_none()
    }

    /// Numbers that were reported as delivered and did not come.
    pub(crate) fn lost(&self) -> impl Iterator<Item = u64> {
        let missing = self.missing.iter().copied().chain(self.next..self.sent);
        missing.filter(|number| !self.failed.contains_key(number))
    }

    /// What must not be, in words.
    pub(crate) fn violations(&self, name: &str, repeats: Repeats) -> Vec<String> {
        let mut told = Vec::new();
        let mut tell = |count: u64, what: &str| {
            if count > 0 {
                told.push(format!("{name}: {count} {what}"));
            }
        };
        tell(self.lost().count() as u64, "lost");
        tell(self.late, "out of order");
        tell(self.damaged, "damaged");
        if repeats == Repeats::Forbidden {
            tell(self.repeated, "duplicates");
        }
        tell(self.sent - self.settled(), "never settled");
        tell(
            self.failed.len() as u64,
            "not delivered, though the session was kept",
        );
        let lost: Vec<u64> = self.lost().take(TOLD).collect();
        if !lost.is_empty() {
            told.push(format!("{name}: lost are {lost:?}"));
        }
        for (number, error) in self.failed.iter().take(TOLD) {
            told.push(format!(
                "{name}: {number} failed: {}",
                WithCauses::new(error)
            ));
        }
        told
    }

    /// How many have their fate.
    pub(crate) fn settled(&self) -> u64 {
        self.confirmed + self.failed.len() as u64
    }
}

/// Whether a message may come more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeats {
    Allowed,
    Forbidden,
}
