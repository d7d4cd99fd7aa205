//! Copies of a message told by what is in them, where the service has no Subscription Identifiers to tell them by.
//!
//! A message that several of our filters match comes once for each of them, or once for all: MQTT leaves that to the
//! service. So an equal message that follows within [`TOGETHER`], and no more often than filters match, is taken for a
//! copy. A service that sends one for all would lose a message that somebody really sent twice; whether it is such a
//! service shows in every message that stays alone, and from then on each is delivered.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::time::Duration;

use mqtt_codec::{Properties, Property};
use pubsub_core::TopicName;
use tokio::time::Instant;

/// Copies are made at the same moment and come one after another. Longer than they should need, shorter than the pause
/// in which a device says the same again.
const TOGETHER: Duration = Duration::from_millis(250);

/// How many messages are remembered. What comes beyond is delivered.
const REMEMBERED: usize = 1_024;

/// How much more often copies came than not is counted up to here, so that a service that changes is soon believed.
const CONVINCED: i8 = 4;

/// What is known of the messages that may still be followed by a copy.
#[derive(Default)]
pub(crate) struct Copies {
    hashes: RandomState,
    messages: HashMap<u64, Seen>,
    /// The same, the oldest first.
    order: VecDeque<(Instant, u64)>,
    /// Above zero, or at it: the service seems to send a copy for each filter.
    balance: i8,
}

struct Seen {
    times: u32,
    filters: u32,
    first: Instant,
}

impl Copies {
    /// What makes messages equal: all but what a service may change from one copy to the next.
    pub(crate) fn fingerprint(
        &self,
        topic: &TopicName,
        payload: &[u8],
        properties: &Properties<'_>,
    ) -> u64 {
        let mut hasher = self.hashes.build_hasher();
        topic.as_str().hash(&mut hasher);
        payload.hash(&mut hasher);
        for property in properties.iter() {
            let varies = matches!(
                property,
                Property::TopicAlias(_)
                    | Property::SubscriptionIdentifier(_)
                    | Property::MessageExpiryInterval(_)
            );
            if !varies {
                property.hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// Whether a message that this many filters match, two or more, is a copy of one before it.
    pub(crate) fn is_copy(&mut self, fingerprint: u64, filters: u32, now: Instant) -> bool {
        self.forget_old(now);
        if let Some(seen) = self.messages.get_mut(&fingerprint)
            && seen.times < seen.filters
        {
            seen.times += 1;
            return self.balance >= 0;
        }
        if let Some(complete) = self.messages.remove(&fingerprint) {
            self.learn(&complete);
        } else if self.order.len() >= REMEMBERED {
            return false;
        }
        let seen = Seen {
            times: 1,
            filters,
            first: now,
        };
        self.messages.insert(fingerprint, seen);
        self.order.push_back((now, fingerprint));
        false
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some(&(first, fingerprint)) = self.order.front()
            && (now.duration_since(first) >= TOGETHER || self.order.len() > 2 * REMEMBERED)
        {
            self.order.pop_front();
            // Another message of the same content may have taken its place.
            if self
                .messages
                .get(&fingerprint)
                .is_some_and(|seen| seen.first == first)
                && let Some(seen) = self.messages.remove(&fingerprint)
            {
                self.learn(&seen);
            }
        }
    }

    fn learn(&mut self, seen: &Seen) {
        let step = if seen.times > 1 { 1 } else { -1 };
        self.balance = (self.balance + step).clamp(-CONVINCED, CONVINCED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Duration = Duration::from_secs(1);

    /// Feeds messages of these contents, this far apart, to a service's client with two matching filters; gives how many
    /// are delivered.
    fn delivered(
        copies: &mut Copies,
        now: &mut Instant,
        contents: &[u64],
        apart: Duration,
    ) -> usize {
        let deliver = |content: &&u64| {
            *now += apart;
            !copies.is_copy(**content, 2, *now)
        };
        contents.iter().filter(deliver).count()
    }

    #[test]
    fn one_of_the_copies_is_delivered_and_what_is_sent_again_is_too() {
        let (mut copies, mut now) = (Copies::default(), Instant::now());
        let mut feed =
            |contents: &[u64]| delivered(&mut copies, &mut now, contents, Duration::ZERO);
        assert_eq!(feed(&[1, 1]), 1);
        // Sent twice, so there are four of it; the copies of several may come in any order.
        assert_eq!(feed(&[2, 2, 2, 2]), 2);
        assert_eq!(feed(&[3, 4, 5, 3, 5, 4]), 3);
    }

    #[test]
    fn what_comes_later_is_a_message_of_its_own() {
        let (mut copies, mut now) = (Copies::default(), Instant::now());
        assert_eq!(delivered(&mut copies, &mut now, &[1, 1, 1], TOGETHER), 3);
    }

    #[test]
    fn a_service_that_sends_one_for_all_filters_is_believed() {
        let (mut copies, mut now) = (Copies::default(), Instant::now());
        assert_eq!(delivered(&mut copies, &mut now, &[1, 2], FAR), 2);
        assert_eq!(delivered(&mut copies, &mut now, &[3, 3], Duration::ZERO), 2);
        // One odd pair convinces nobody of the contrary; a service that has changed does.
        now += FAR;
        assert_eq!(delivered(&mut copies, &mut now, &[4, 4], Duration::ZERO), 2);
        for content in 5..20 {
            delivered(&mut copies, &mut now, &[content, content], Duration::ZERO);
            now += FAR;
        }
        assert_eq!(
            delivered(&mut copies, &mut now, &[99, 99], Duration::ZERO),
            1
        );
    }

    #[test]
    fn a_lost_copy_costs_no_message() {
        let (mut copies, mut now) = (Copies::default(), Instant::now());
        // Of the first message only one copy came; the second one has both, the first of which completes the pair.
        assert_eq!(
            delivered(&mut copies, &mut now, &[1, 1, 1], Duration::ZERO),
            2
        );
    }

    #[test]
    fn a_flood_is_remembered_within_bounds() {
        let (mut copies, mut now) = (Copies::default(), Instant::now());
        let contents: Vec<u64> = (0..3 * REMEMBERED as u64).collect();
        let all = contents.len();
        assert_eq!(
            delivered(&mut copies, &mut now, &contents, Duration::ZERO),
            all
        );
        let same = vec![7; 100_000];
        delivered(&mut copies, &mut now, &same, Duration::ZERO);
        assert!(copies.messages.len() <= REMEMBERED && copies.order.len() <= 2 * REMEMBERED + 1);
    }
}
