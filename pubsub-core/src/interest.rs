//! Who is interested in which topics.

use crate::few::Few;
use crate::matching::MatchingRules;
use crate::topic::{TopicFilter, TopicName};
use crate::trie::TopicTrie;

/// Subscriptions by filter, each as its number. A filter that is the only one, as it is for many, is held against a topic as it
/// stands; more go to a [`TopicTrie`]. As there, `$share/GROUP/a` and `a` share an entry.
#[derive(Default)]
pub(crate) struct Interest {
    rules: MatchingRules,
    /// None where there is a trie.
    only: Option<(TopicFilter, Few<u32>)>,
    /// Until there is no filter left.
    trie: Option<Box<TopicTrie<Few<u32>>>>,
}

impl Interest {
    /// How many filters there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match &self.trie {
            Some(trie) => trie.len(),
            None => usize::from(self.only.is_some()),
        }
    }

    /// Those who have this very filter.
    pub(crate) fn of(&self, filter: &TopicFilter) -> &[u32] {
        let members = match (&self.trie, &self.only) {
            (Some(trie), _) => trie.get(filter),
            (None, Some((only, members))) if only.pattern() == filter.pattern() => Some(members),
            _ => None,
        };
        members.map_or(&[], Few::as_slice)
    }

    pub(crate) fn add(&mut self, filter: &TopicFilter, number: u32) {
        match &mut self.only {
            Some((only, members)) if only.pattern() == filter.pattern() => members.push(number),
            None if self.trie.is_none() => self.only = Some((filter.clone(), Few::One(number))),
            _ => {
                let members = self.trie().get_or_insert_with(filter, Few::default);
                members.push(number);
            }
        }
    }

    pub(crate) fn remove(&mut self, filter: &TopicFilter, number: u32) {
        let is_last = match (&mut self.trie, &mut self.only) {
            (Some(trie), _) => {
                trie.remove_if(filter, |members| members.remove(number));
                trie.is_empty()
            }
            (None, Some((only, members))) => {
                only.pattern() == filter.pattern() && members.remove(number)
            }
            (None, None) => false,
        };
        if is_last {
            self.clear();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.only = None;
        self.trie = None;
    }

    /// Matches by these rules from now on. `filters` are all that there are.
    pub(crate) fn set_rules<'a, F>(&mut self, rules: MatchingRules, filters: F)
    where
        F: Iterator<Item = &'a TopicFilter>,
    {
        if self.rules == rules {
            return;
        }
        self.rules = rules;
        if let Some(old) = &mut self.trie {
            let mut trie = TopicTrie::with_rules(rules);
            for filter in filters {
                if let Some(members) = old.remove(filter) {
                    trie.insert(filter, members);
                }
            }
            **old = trie;
        }
    }

    /// Calls `visit` with the members of each filter that matches, in no particular order.
    #[inline]
    pub(crate) fn for_each_match(&self, topic: &TopicName, mut visit: impl FnMut(&[u32])) {
        match (&self.trie, &self.only) {
            (Some(trie), _) => trie.for_each_match(topic, |members| visit(members.as_slice())),
            (None, Some((only, members))) if only.matches_with(topic, self.rules) => {
                visit(members.as_slice());
            }
            _ => {}
        }
    }

    /// The same for many topics, as [`TopicTrie::for_each_match_batched`] does it where there are many filters.
    pub(crate) fn for_each_match_batched<'t, T>(
        &self,
        topics: T,
        mut visit: impl FnMut(usize, &[u32]),
    ) where
        T: IntoIterator<Item = &'t TopicName>,
    {
        let Some(trie) = &self.trie else {
            let topics = topics.into_iter().enumerate();
            return topics
                .for_each(|(at, topic)| self.for_each_match(topic, |members| visit(at, members)));
        };
        trie.for_each_match_batched(topics, |at, members| visit(at, members.as_slice()));
    }

    /// Where the filters go, and the only one so far, when there are more.
    fn trie(&mut self) -> &mut TopicTrie<Few<u32>> {
        let trie = self
            .trie
            .get_or_insert_with(|| Box::new(TopicTrie::with_rules(self.rules)));
        if let Some((only, members)) = self.only.take() {
            trie.insert(&only, members);
        }
        trie
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::matching::{ParentLevel, ReservedTopics};

    const FILTERS: [&str; 6] = ["a", "$share/g/a", "a/#", "+", "#", "$share/g/+/b"];
    const TOPICS: [&str; 5] = ["a", "a/b", "b", "$s", "a/b/c"];

    proptest! {
        /// Against each filter by itself, as they come and go: none, one and more, with the rules changing.
        #[test]
        fn shows_those_whose_filters_match(steps in prop::collection::vec(
            (0..8_u8, 0..FILTERS.len(), 0..3_u32), 0..30))
        {
            let filters = FILTERS.map(|filter| TopicFilter::new(filter).unwrap());
            let topics = TOPICS.map(|topic| TopicName::new(topic).unwrap());
            let mut rules = MatchingRules::default();
            let mut interest = Interest::default();
            let mut model: Vec<(usize, u32)> = Vec::new();
            for (step, filter, number) in steps {
                match step {
                    0 => {
                        let parent = [ParentLevel::Matches, ParentLevel::BelowOnly][filter % 2];
                        let reserved = [ReservedTopics::NamedExplicitly, ReservedTopics::Ordinary];
                        rules = MatchingRules::new()
                            .with_parent_level(parent)
                            .with_reserved_topics(reserved[filter / 2 % 2]);
                        interest.set_rules(rules, filters.iter());
                    }
                    1 if number == 0 => {
                        interest.clear();
                        model.clear();
                    }
                    1..4 => {
                        // As a subscription does, which has a filter once, and removes what it has.
                        if let Some(at) = model.iter().position(|had| *had == (filter, number)) {
                            interest.remove(&filters[filter], number);
                            model.remove(at);
                        }
                    }
                    _ => if !model.contains(&(filter, number)) {
                        interest.add(&filters[filter], number);
                        model.push((filter, number));
                    },
                }
                let sorted = |mut numbers: Vec<u32>| { numbers.sort_unstable(); numbers };
                let mut batched = vec![Vec::new(); topics.len()];
                interest.for_each_match_batched(&topics, |at, members| batched[at].extend(members));
                for (topic, batched) in topics.iter().zip(batched) {
                    let mut found = Vec::new();
                    interest.for_each_match(topic, |members| found.extend(members));
                    let wanted = model.iter().filter(|(at, _)| filters[*at].matches_with(topic, rules));
                    let wanted = sorted(wanted.map(|(_, number)| *number).collect());
                    prop_assert_eq!(&sorted(found), &wanted);
                    prop_assert_eq!(&sorted(batched), &wanted);
                }
                let mut patterns: Vec<_> = model.iter().map(|(at, _)| filters[*at].pattern()).collect();
                patterns.sort_unstable();
                patterns.dedup();
                prop_assert_eq!(interest.len(), patterns.len());
                for filter in &filters {
                    let same = model.iter().filter(|(at, _)| filters[*at].pattern() == filter.pattern());
                    let users = sorted(same.map(|(_, number)| *number).collect());
                    prop_assert_eq!(sorted(interest.of(filter).to_vec()), users);
                }
            }
        }
    }
}
