//! One copy of a message, however many of our filters it matches.
//!
//! A broker may send a message once for each subscription that matches (MQTT-3.3.4-2 leaves it the choice), and core would
//! then deliver each copy to every subscriber. With MQTT 5 each filter has a Subscription Identifier, which the copy made
//! for it carries: so of several copies the one made for the best of the matching filters is delivered, and the others
//! are only acknowledged. Where identifiers are missing (before MQTT 5, or because the broker has none) only the content tells
//! a copy, if the options let it ([`Copies`]); else all are delivered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mqtt_codec::{Properties, SubscriptionId};
use pubsub_core::{MatchingRules, QoS, TopicFilter, TopicName, TopicTrie};
use tokio::time::Instant;

use crate::choices::CopyDetection;
use crate::copies::Copies;

/// A message that was queued at the broker before a better filter came has no copy for that one. For this long after a
/// filter was granted, messages of older filters are therefore delivered though they may be copies: twice is better than
/// never.
const SETTLING: Duration = Duration::from_secs(30);

pub(crate) struct Overlaps {
    in_use: bool,
    by_content: Option<Copies>,
    identifiers: HashMap<Arc<str>, SubscriptionId>,
    last: u32,
    granted: GrantedFilters,
    rules: MatchingRules,
}

/// One filter alone has no copies, and many a client has but one: the trie, which is large, is made for the second.
enum GrantedFilters {
    None,
    One(Arc<str>, Granted),
    Many(Box<TopicTrie<Granted>>),
}

#[derive(Debug, Clone, Copy)]
struct Granted {
    id: SubscriptionId,
    qos: QoS,
    since: Instant,
}

impl Overlaps {
    /// `identifiers` says whether the protocol has any.
    pub(crate) fn new(identifiers: bool, detection: CopyDetection, rules: MatchingRules) -> Self {
        let by_content = match detection {
            CopyDetection::Identifiers => None,
            CopyDetection::Content => Some(Copies::default()),
        };
        Self {
            in_use: identifiers && by_content.is_none(),
            by_content,
            identifiers: HashMap::new(),
            last: 0,
            granted: GrantedFilters::None,
            rules,
        }
    }

    /// Whether filters get identifiers.
    pub(crate) fn in_use(&self) -> bool {
        self.in_use
    }

    /// The broker knows no identifiers.
    pub(crate) fn give_up(&mut self) {
        if self.in_use {
            self.in_use = false;
            self.forget();
        }
    }

    /// The identifier of this filter: the same for as long as it is subscribed. `None` for a shared one, whose messages
    /// are no copies of others.
    pub(crate) fn identifier(&mut self, filter: &Arc<str>) -> Option<SubscriptionId> {
        if filter.starts_with("$share/") {
            return None;
        }
        if let Some(id) = self.identifiers.get(filter) {
            return Some(*id);
        }
        // After 268 million filters without one: a copy too many, now and then.
        let id = SubscriptionId::new(self.last.checked_add(1)?)?;
        self.last += 1;
        self.identifiers.insert(Arc::clone(filter), id);
        Some(id)
    }

    /// The identifier that this filter has had since before this process.
    pub(crate) fn restore(&mut self, filter: &Arc<str>, id: SubscriptionId) {
        self.last = self.last.max(id.value());
        self.identifiers.insert(Arc::clone(filter), id);
    }

    pub(crate) fn granted(&mut self, filter: &Arc<str>, qos: QoS, now: Instant) {
        if self.by_content.is_some() {
            // Never sent: it only counts the filters.
            self.identifier(filter);
        }
        let Some(&id) = self.identifiers.get(filter) else {
            return;
        };
        let since = now;
        let granted = Granted { id, qos, since };
        self.granted = match std::mem::replace(&mut self.granted, GrantedFilters::None) {
            GrantedFilters::None => GrantedFilters::One(Arc::clone(filter), granted),
            GrantedFilters::One(known, Granted { since, .. }) if known == *filter => {
                GrantedFilters::One(known, Granted { since, ..granted })
            }
            GrantedFilters::One(first, its) => {
                let mut trie = Box::new(TopicTrie::with_rules(self.rules));
                insert(&mut trie, &first, its);
                insert(&mut trie, filter, granted);
                GrantedFilters::Many(trie)
            }
            GrantedFilters::Many(mut trie) => {
                insert(&mut trie, filter, granted);
                GrantedFilters::Many(trie)
            }
        };
    }

    pub(crate) fn gone(&mut self, filter: &Arc<str>) {
        self.identifiers.remove(filter);
        match &mut self.granted {
            GrantedFilters::One(known, _) if known == filter => self.session_lost(),
            GrantedFilters::None | GrantedFilters::One(..) => {}
            GrantedFilters::Many(trie) => {
                if let Ok(filter) = TopicFilter::new(Arc::clone(filter)) {
                    trie.remove(&filter);
                }
            }
        }
    }

    /// The broker has lost the session: until a filter is granted anew, there may be no copy for it.
    pub(crate) fn session_lost(&mut self) {
        self.granted = GrantedFilters::None;
    }

    pub(crate) fn forget(&mut self) {
        self.identifiers.clear();
        self.session_lost();
    }

    /// Whether a message can be a copy of another at all: a question that costs nothing, to be asked first.
    #[inline]
    pub(crate) fn may_have_copies(&self) -> bool {
        self.several_granted().is_some()
    }

    #[inline]
    fn several_granted(&self) -> Option<&TopicTrie<Granted>> {
        match &self.granted {
            GrantedFilters::Many(trie) if trie.len() >= 2 => Some(trie),
            _ => None,
        }
    }

    /// Whether a message is a copy of one that was delivered, or is about to be.
    pub(crate) fn is_copy(
        &mut self,
        topic: &TopicName,
        payload: &[u8],
        properties: &Properties<'_>,
        now: Instant,
    ) -> bool {
        if self.by_content.is_none() {
            return self.is_made_for_a_lesser(topic, properties.subscription_identifiers(), now);
        }
        let mut filters = 0;
        if let Some(granted) = self.several_granted() {
            granted.for_each_match(topic, |_| filters += 1);
        }
        let Some(copies) = self.by_content.as_mut().filter(|_| filters >= 2) else {
            return false;
        };
        let fingerprint = copies.fingerprint(topic, payload, properties);
        copies.is_copy(fingerprint, filters, now)
    }

    /// Whether the message that came for the subscriptions `ids` is a copy of one that comes for a better one, too.
    fn is_made_for_a_lesser(
        &self,
        topic: &TopicName,
        ids: impl Iterator<Item = SubscriptionId> + Clone,
        now: Instant,
    ) -> bool {
        let Some(several) = self.several_granted().filter(|_| self.in_use) else {
            return false;
        };
        if ids.clone().next().is_none() {
            return false;
        }
        let rank = |granted: &Granted| (granted.qos, std::cmp::Reverse(u32::from(granted.id)));
        let (mut best, mut own): (Option<Granted>, Option<Granted>) = (None, None);
        several.for_each_match(topic, |granted| {
            if best.is_none_or(|best| rank(granted) > rank(&best)) {
                best = Some(*granted);
            }
            if ids.clone().any(|id| id == granted.id)
                && own.is_none_or(|own| rank(granted) > rank(&own))
            {
                own = Some(*granted);
            }
        });
        let (Some(best), Some(own)) = (best, own) else {
            // Made for a filter that is about to be granted, or was just left.
            return best.is_some();
        };
        let settled = own.since > best.since || now.duration_since(best.since) >= SETTLING;
        best.id != own.id && (settled || own.qos == QoS::AtMostOnce)
    }
}

/// Puts a filter in, or what is new of it.
fn insert(trie: &mut TopicTrie<Granted>, filter: &Arc<str>, granted: Granted) {
    if let Ok(filter) = TopicFilter::new(Arc::clone(filter)) {
        let since = trie.get(&filter).map_or(granted.since, |known| known.since);
        trie.insert(&filter, Granted { since, ..granted });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture(Overlaps, Instant);

    impl Fixture {
        fn new(filters: &[(&str, QoS)]) -> Self {
            let now = Instant::now();
            let mut overlaps =
                Overlaps::new(true, CopyDetection::Identifiers, MatchingRules::default());
            for (n, (filter, qos)) in filters.iter().enumerate() {
                let filter = Arc::from(*filter);
                overlaps.identifier(&filter);
                overlaps.granted(&filter, *qos, now + Duration::from_secs(n as u64));
            }
            Self(overlaps, now + Duration::from_secs(100))
        }

        /// Which of the copies, made for these filters, is delivered.
        fn delivered(&self, topic: &str, copies: &[&[u32]]) -> Vec<usize> {
            let topic = TopicName::new(topic).unwrap();
            let ids = |copy: &[u32]| {
                copy.iter()
                    .map(|&id| SubscriptionId::new(id).unwrap())
                    .collect::<Vec<_>>()
            };
            let is_copy = |copy: &[u32]| {
                self.0
                    .is_made_for_a_lesser(&topic, ids(copy).into_iter(), self.1)
            };
            copies
                .iter()
                .enumerate()
                .filter(|(_, copy)| !is_copy(copy))
                .map(|(at, _)| at)
                .collect()
        }
    }

    #[test]
    fn one_of_several_copies_is_delivered() {
        let fixture = Fixture::new(&[
            ("a/#", QoS::AtMostOnce),
            ("a/+", QoS::AtMostOnce),
            ("b", QoS::AtMostOnce),
        ]);
        assert_eq!(
            fixture.delivered("a/1", &[&[1], &[2]]),
            [0],
            "the oldest filter's"
        );
        assert_eq!(
            fixture.delivered("a/1", &[&[1, 2]]),
            [0],
            "one packet for both"
        );
        assert_eq!(fixture.delivered("b", &[&[3]]), [0], "nothing overlaps");
        assert_eq!(
            fixture.delivered("a/1", &[&[], &[]]),
            [0, 1],
            "a broker without identifiers"
        );
    }

    #[test]
    fn the_highest_assurance_wins() {
        let fixture = Fixture::new(&[("a/#", QoS::AtMostOnce), ("a/+", QoS::AtLeastOnce)]);
        assert_eq!(fixture.delivered("a/1", &[&[1], &[2]]), [1]);
    }

    #[test]
    fn what_was_queued_before_a_better_filter_came_is_not_lost() {
        let mut fixture = Fixture::new(&[("a/#", QoS::AtLeastOnce), ("a/+", QoS::ExactlyOnce)]);
        assert_eq!(fixture.delivered("a/1", &[&[1], &[2]]), [1]);
        fixture.1 -= Duration::from_secs(95);
        assert_eq!(fixture.delivered("a/1", &[&[1], &[2]]), [0, 1]);
    }

    #[test]
    fn a_filter_that_is_not_granted_suppresses_nothing() {
        let mut fixture = Fixture::new(&[("a/#", QoS::AtMostOnce), ("a/+", QoS::AtMostOnce)]);
        fixture.0.gone(&Arc::from("a/#"));
        assert_eq!(fixture.delivered("a/1", &[&[2]]), [0]);
        fixture.0.session_lost();
        assert_eq!(fixture.delivered("a/1", &[&[2], &[1]]), [0, 1]);
        // Its copies still come until the broker has heard that it was left.
        let mut fixture = Fixture::new(&[
            ("a/#", QoS::AtMostOnce),
            ("a/+", QoS::AtMostOnce),
            ("b", QoS::AtMostOnce),
        ]);
        fixture.0.gone(&Arc::from("a/#"));
        assert_eq!(fixture.delivered("a/1", &[&[1], &[2]]), [1]);
    }

    #[test]
    fn a_filter_that_is_granted_again_is_as_old_as_it_was_alone_or_among_others() {
        for others in [&[][..], &[("a/+", QoS::AtMostOnce)]] {
            let first = [("a/#", QoS::AtLeastOnce)];
            let mut fixture = Fixture::new(&[&first[..], others].concat());
            let (overlaps, now) = (&mut fixture.0, fixture.1);
            overlaps.granted(&Arc::from("a/#"), QoS::ExactlyOnce, now);
            overlaps.identifier(&Arc::from("a/+"));
            overlaps.granted(&Arc::from("a/+"), QoS::AtLeastOnce, now);
            // It is settled: a copy for the lesser filter is one, though of QoS 1.
            assert_eq!(fixture.delivered("a/1", &[&[1], &[2]]), [0], "{others:?}");
        }
    }

    #[test]
    fn a_filter_keeps_its_identifier_and_shared_ones_have_none() {
        let mut overlaps =
            Overlaps::new(true, CopyDetection::Identifiers, MatchingRules::default());
        let (a, b, shared) = (Arc::from("a"), Arc::from("b"), Arc::from("$share/g/a"));
        let first = overlaps.identifier(&a);
        assert!(first.is_some());
        assert_eq!(overlaps.identifier(&a), first);
        assert_ne!(overlaps.identifier(&b), first);
        assert_eq!(overlaps.identifier(&shared), None);
    }

    #[test]
    fn where_there_are_no_identifiers_the_content_tells_if_it_may() {
        let now = Instant::now();
        let topic = TopicName::new("a/1").unwrap();
        let copies = |detection, filters: &[&str]| {
            let mut overlaps = Overlaps::new(true, detection, MatchingRules::default());
            assert_eq!(overlaps.in_use(), detection == CopyDetection::Identifiers);
            overlaps.give_up();
            for filter in filters {
                overlaps.granted(&Arc::from(*filter), QoS::AtMostOnce, now);
            }
            let mut is_copy =
                |payload: &[u8]| overlaps.is_copy(&topic, payload, &Properties::EMPTY, now);
            [is_copy(b"x"), is_copy(b"x"), is_copy(b"y")]
        };
        let overlapping = ["a/#", "a/+"];
        assert_eq!(copies(CopyDetection::Identifiers, &overlapping), [false; 3]);
        assert_eq!(
            copies(CopyDetection::Content, &overlapping),
            [false, true, false]
        );
        // A shared filter's messages are no copies of others, and one filter alone has none.
        assert_eq!(
            copies(CopyDetection::Content, &["a/#", "$share/g/a/+", "b"]),
            [false; 3]
        );
    }
}
