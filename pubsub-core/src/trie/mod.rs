//! An index from topic filters to values, asked with topic names.

use std::collections::HashMap;

use crate::topic::{MatchingRules, TopicFilter, TopicName};

/// A map from topic filters to values that finds the values of all filters matching a topic.
///
/// The key is the filter's [pattern](TopicFilter::pattern): `$share/GROUP/a` and `a` share an entry, so
/// keep the group in the value where it matters.
#[derive(Clone, Debug, Default)]
pub struct TopicTrie<V> {
    rules: MatchingRules,
    exact: HashMap<Box<str>, V>,
    wild: Vec<(TopicFilter, V)>,
}

impl<V> TopicTrie<V> {
    /// An empty trie that matches by the specification's rules.
    #[must_use]
    pub fn new() -> Self {
        Self::with_rules(MatchingRules::default())
    }

    /// An empty trie that matches by these rules.
    #[must_use]
    pub fn with_rules(rules: MatchingRules) -> Self {
        Self {
            rules,
            exact: HashMap::new(),
            wild: Vec::new(),
        }
    }

    /// The rules it matches by.
    #[must_use]
    pub fn rules(&self) -> MatchingRules {
        self.rules
    }

    /// How many filters it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.exact.len() + self.wild.len()
    }

    /// Whether it holds no filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets the value of a filter and returns the one it had.
    pub fn insert(&mut self, filter: &TopicFilter, value: V) -> Option<V> {
        match self.get_mut(filter) {
            Some(old) => Some(std::mem::replace(old, value)),
            None => {
                self.add(filter, value);
                None
            }
        }
    }

    /// The value of this very filter.
    #[must_use]
    pub fn get(&self, filter: &TopicFilter) -> Option<&V> {
        if filter.has_wildcards() {
            let same = |(other, _): &&(TopicFilter, V)| other.pattern() == filter.pattern();
            self.wild.iter().find(same).map(|(_, value)| value)
        } else {
            self.exact.get(filter.pattern())
        }
    }

    /// The value of this very filter, to change.
    pub fn get_mut(&mut self, filter: &TopicFilter) -> Option<&mut V> {
        if filter.has_wildcards() {
            let same = |(other, _): &&mut (TopicFilter, V)| other.pattern() == filter.pattern();
            self.wild.iter_mut().find(same).map(|(_, value)| value)
        } else {
            self.exact.get_mut(filter.pattern())
        }
    }

    /// The value of a filter, made first if there is none.
    #[expect(clippy::missing_panics_doc, reason = "it was just added")]
    pub fn get_or_insert_with(&mut self, filter: &TopicFilter, make: impl FnOnce() -> V) -> &mut V {
        if self.get(filter).is_none() {
            self.add(filter, make());
        }
        self.get_mut(filter).expect("just added")
    }

    /// Removes a filter and returns its value.
    pub fn remove(&mut self, filter: &TopicFilter) -> Option<V> {
        if filter.has_wildcards() {
            let at = self
                .wild
                .iter()
                .position(|(other, _)| other.pattern() == filter.pattern())?;
            Some(self.wild.swap_remove(at).1)
        } else {
            self.exact.remove(filter.pattern())
        }
    }

    /// Calls `visit` with the value of each filter that matches, in no particular order.
    pub fn for_each_match<'a>(&'a self, topic: &TopicName, mut visit: impl FnMut(&'a V)) {
        if let Some(value) = self.exact.get(topic.as_str()) {
            visit(value);
        }
        for (filter, value) in &self.wild {
            if filter.matches_with(topic, self.rules) {
                visit(value);
            }
        }
    }

    fn add(&mut self, filter: &TopicFilter, value: V) {
        if filter.has_wildcards() {
            self.wild.push((filter.clone(), value));
        } else {
            self.exact.insert(filter.pattern().into(), value);
        }
    }
}
