//! An index from topic filters to values, asked with topic names.
//!
//! Filters are kept in three ways, each simpler than one tree for all and faster:
//!
//! * A filter without wildcards is one entry in a hash table, found by the hash of the whole topic.
//! * Filters with wildcards fall into few *shapes* (which levels are `+`, how many there are, whether `#`
//!   follows). Each level has a key that depends on its place, and a filter lies in a second table under
//!   the sum of the keys of its literal levels. So a topic is taken apart once, and then each shape costs
//!   a subtraction and one look-up, none of which waits for another. Nearly all of them find nothing, so
//!   a [`Sieve`] answers most from a byte.
//! * What has too many levels, or comes when there are [`MAX_SHAPES`] shapes already, goes to a tree. It
//!   bounds what a hostile set of filters can cost.

mod cache;
mod hash;
mod index;
mod levels;
mod shapes;
mod sieve;
mod symbols;
mod text;
mod tree;

use std::fmt;

pub use cache::MatchCache;

use crate::matching::{MatchingRules, ParentLevel, ReservedTopics};
use crate::topic::{TopicFilter, TopicName};
use cache::{Found, new_generation};
use hash::Seed;
use index::Index;
use levels::{Levels, Shape};
use shapes::Shapes;
use sieve::Sieve;
use text::Text;
use tree::{Rules, Tree};

/// How many shapes of filters with wildcards are looked up one by one. Real sets have around ten; at the
/// bound a match that finds nothing costs 64 look-ups of two or three nanoseconds, as much as a walk.
const MAX_SHAPES: usize = 64;

/// A map from topic filters to values that finds the values of all filters matching a topic.
///
/// A match allocates nothing, does not recurse, and costs what the topic and the filters that match it
/// cost, not what the set costs: the number of other filters does not matter, and of a topic of
/// thousands of levels no more are taken apart than the filters reach. A removed filter leaves nothing
/// behind.
///
/// The key is the filter's [pattern](TopicFilter::pattern): `$share/GROUP/a` and `a` share an entry, so
/// keep the group in the value where it matters.
///
/// ```
/// use pubsub_core::{TopicFilter, TopicName, TopicTrie};
///
/// let mut trie = TopicTrie::new();
/// trie.insert(&TopicFilter::new("sport/+/player1")?, 1);
/// trie.insert(&TopicFilter::new("sport/#")?, 2);
/// trie.insert(&TopicFilter::new("news")?, 3);
///
/// let mut found = Vec::new();
/// trie.for_each_match(&TopicName::new("sport/tennis/player1")?, |value| found.push(*value));
/// found.sort_unstable();
/// assert_eq!(found, [1, 2]);
/// # Ok::<(), pubsub_core::TopicError>(())
/// ```
#[derive(Clone)]
pub struct TopicTrie<V> {
    rules: MatchingRules,
    seed: Seed,
    /// Every filter, in no order. `exact`, `shaped` or `tree` knows each by its number here.
    entries: Vec<Entry<V>>,
    /// Filters without wildcards.
    exact: Index,
    /// Filters of a listed shape.
    shaped: Sieve,
    shapes: Shapes,
    max_shapes: usize,
    tree: Tree,
    generation: u64,
}

/// Aligned, lest what fits into one cache line lies across two.
#[derive(Clone)]
#[repr(align(64))]
struct Entry<V> {
    pattern: Text,
    value: V,
}

/// How a filter is kept, or would be.
enum Kind {
    /// Without wildcards.
    Exact(u64),
    /// With wildcards: by its shape if that is listed, possibly in the tree all the same.
    Shaped(Shape, u64),
    /// In the tree.
    Deep,
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
            seed: Seed::default(),
            entries: Vec::new(),
            exact: Index::default(),
            shaped: Sieve::default(),
            shapes: Shapes::default(),
            max_shapes: MAX_SHAPES,
            tree: Tree::default(),
            generation: new_generation(),
        }
    }

    /// The rules it matches by.
    #[must_use]
    pub fn rules(&self) -> MatchingRules {
        self.rules
    }

    /// How many filters it holds.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds no filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sets the value of a filter and returns the one it had.
    ///
    /// # Panics
    /// When there are 2³² − 1 filters already.
    pub fn insert(&mut self, filter: &TopicFilter, value: V) -> Option<V> {
        let kind = self.kind_of(filter);
        match self.number_of(filter, &kind) {
            Some(number) => Some(std::mem::replace(&mut self.entries[number].value, value)),
            None => {
                self.add(filter, kind, value);
                None
            }
        }
    }

    /// The value of this very filter.
    #[must_use]
    pub fn get(&self, filter: &TopicFilter) -> Option<&V> {
        let number = self.number_of(filter, &self.kind_of(filter))?;
        self.entries.get(number).map(|entry| &entry.value)
    }

    /// The value of this very filter, to change.
    pub fn get_mut(&mut self, filter: &TopicFilter) -> Option<&mut V> {
        let number = self.number_of(filter, &self.kind_of(filter))?;
        self.entries.get_mut(number).map(|entry| &mut entry.value)
    }

    /// The value of a filter, made first if there is none.
    ///
    /// # Panics
    /// When there are 2³² − 1 filters already.
    pub fn get_or_insert_with(&mut self, filter: &TopicFilter, make: impl FnOnce() -> V) -> &mut V {
        let kind = self.kind_of(filter);
        let number = match self.number_of(filter, &kind) {
            Some(number) => number,
            None => self.add(filter, kind, make()),
        };
        &mut self.entries[number].value
    }

    /// Removes a filter and returns its value.
    pub fn remove(&mut self, filter: &TopicFilter) -> Option<V> {
        let kind = self.kind_of(filter);
        let number = self.number_of(filter, &kind)?;
        match kind {
            Kind::Exact(key) => {
                self.exact.remove(key, number as u32);
            }
            Kind::Shaped(shape, key) if self.shaped.remove(key, number as u32) => {
                self.shapes.remove(&shape, self.parent_matches());
            }
            Kind::Shaped(..) | Kind::Deep => self.tree.remove(filter.pattern(), &self.seed),
        }
        self.generation = new_generation();
        let removed = self.entries.swap_remove(number);
        self.renumber(self.entries.len(), number);
        if self.entries.len() * 4 < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        Some(removed.value)
    }

    /// Which set of filters it holds: a number that no trie in this process has had before, drawn anew when
    /// a filter comes or goes, but not when only a value changes. A clone has its original's until then.
    ///
    /// So what was found out about a topic stays true as long as this is the same.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Calls `visit` with the value of each filter that matches, in no particular order.
    pub fn for_each_match<'a>(&'a self, topic: &TopicName, mut visit: impl FnMut(&'a V)) {
        let key = self.seed.text(topic.as_str().as_bytes());
        self.for_each_number(topic, key, |number| self.visit(number, &mut visit));
    }

    /// Calls `visit` with the value of each filter that matches, in no particular order, as
    /// [`for_each_match`](Self::for_each_match) does, but without a search for a topic that `cache` knows.
    ///
    /// That pays where there are filters with wildcards and topics that come again; without any wildcard
    /// the search is the cheaper of the two, and the cache is left alone.
    pub fn for_each_match_cached<'a>(
        &'a self,
        cache: &mut MatchCache,
        topic: &TopicName,
        mut visit: impl FnMut(&'a V),
    ) {
        if self.is_exact() || !cache.is_awake() {
            return self.for_each_match(topic, visit);
        }
        let text = topic.as_str().as_bytes();
        let key = self.seed.text(text);
        if let Some(numbers) = cache.find(key, text, self.generation) {
            for number in numbers {
                self.visit(*number, &mut visit);
            }
            return;
        }
        let mut found = Found::default();
        self.for_each_number(topic, key, |number| {
            found.push(number);
            self.visit(number, &mut visit);
        });
        cache.keep(key, text, self.generation, &found);
    }

    /// Calls `visit` with the number of each filter that matches the topic with this key.
    #[inline]
    fn for_each_number(&self, topic: &TopicName, key: u64, mut visit: impl FnMut(u32)) {
        let text = topic.as_str().as_bytes();
        let exact = self
            .exact
            .find(key, |number| self.has_pattern(number, text));
        if let Some(number) = exact {
            visit(number);
        }
        if self.is_exact() {
            return;
        }
        let mut levels = Levels::empty();
        levels.fill(text, &self.seed);
        let rules = Rules {
            parent_matches: self.parent_matches(),
            root_is_reserved: topic.is_reserved()
                && self.rules.reserved_topics == ReservedTopics::NamedExplicitly,
        };
        for shape in self.shapes.fitting(levels.count, rules.root_is_reserved) {
            let found = self.shaped.find(levels.key_for(shape), |number| {
                let entry = self.entries.get(number as usize);
                entry.is_some_and(|entry| levels.has_text(text, shape, entry.pattern.as_bytes()))
            });
            if let Some(number) = found {
                visit(number);
            }
        }
        if !self.tree.is_empty() {
            self.tree
                .for_each_match(text, &levels, &self.seed, rules, visit);
        }
    }

    /// Whether no filter has wildcards.
    fn is_exact(&self) -> bool {
        self.shapes.is_empty() && self.tree.is_empty()
    }

    fn parent_matches(&self) -> bool {
        self.rules.parent_level == ParentLevel::Matches
    }

    fn visit<'a>(&'a self, number: u32, visit: &mut impl FnMut(&'a V)) {
        if let Some(entry) = self.entries.get(number as usize) {
            visit(&entry.value);
        }
    }

    fn kind_of(&self, filter: &TopicFilter) -> Kind {
        self.kind_of_pattern(filter.pattern(), filter.has_wildcards())
    }

    fn kind_of_pattern(&self, pattern: &str, has_wildcards: bool) -> Kind {
        if !has_wildcards {
            return Kind::Exact(self.seed.text(pattern.as_bytes()));
        }
        match Shape::of(pattern, &self.seed) {
            Some((shape, key)) => Kind::Shaped(shape, key),
            None => Kind::Deep,
        }
    }

    fn number_of(&self, filter: &TopicFilter, kind: &Kind) -> Option<usize> {
        let pattern = filter.pattern();
        let is_right = |number| self.has_pattern(number, pattern.as_bytes());
        let in_tree = || self.tree.get(pattern, &self.seed);
        let number = match kind {
            Kind::Exact(key) => self.exact.find(*key, is_right),
            Kind::Shaped(_, key) => self.shaped.find(*key, is_right).or_else(in_tree),
            Kind::Deep => in_tree(),
        };
        number.map(|number| number as usize)
    }

    #[inline]
    fn has_pattern(&self, number: u32, pattern: &[u8]) -> bool {
        self.entries
            .get(number as usize)
            .is_some_and(|entry| entry.pattern.as_bytes() == pattern)
    }

    /// Adds a filter that is not there.
    fn add(&mut self, filter: &TopicFilter, kind: Kind, value: V) -> usize {
        let number = u32::try_from(self.entries.len())
            .ok()
            .filter(|number| *number < u32::MAX);
        let number = number.expect("fewer than 2^32 - 1 filters");
        match kind {
            Kind::Exact(key) => self.exact.insert(key, number),
            Kind::Shaped(shape, key)
                if self
                    .shapes
                    .add(&shape, self.max_shapes, self.parent_matches()) =>
            {
                self.shaped.insert(key, number);
            }
            Kind::Shaped(..) | Kind::Deep => {
                self.tree.set(filter.pattern(), number, &self.seed);
            }
        }
        self.generation = new_generation();
        self.entries.push(Entry {
            pattern: Text::new(filter.pattern()),
            value,
        });
        number as usize
    }

    /// The entry with the number `old` has become `new`.
    fn renumber(&mut self, old: usize, new: usize) {
        let Some(entry) = self.entries.get(new) else {
            return;
        };
        let pattern = entry.pattern.as_str();
        let (old, new) = (old as u32, new as u32);
        match self.kind_of_pattern(
            pattern,
            pattern.bytes().any(|byte| matches!(byte, b'+' | b'#')),
        ) {
            Kind::Exact(key) => {
                self.exact.renumber(key, old, new);
            }
            Kind::Shaped(_, key) if self.shaped.renumber(key, old, new) => {}
            Kind::Shaped(..) | Kind::Deep => self.tree.set(pattern, new, &self.seed),
        }
    }
}

impl<V> Default for TopicTrie<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> fmt::Debug for TopicTrie<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicTrie")
            .field("rules", &self.rules)
            .field("filters", &self.entries.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).unwrap()
    }

    fn found(trie: &TopicTrie<usize>, topic: &str) -> Vec<usize> {
        let mut found = Vec::new();
        trie.for_each_match(&TopicName::new(topic).unwrap(), |value| found.push(*value));
        found.sort_unstable();
        found
    }

    /// Levels that meet often, with an empty one, a reserved one and one too long to lie in an entry.
    fn level() -> impl Strategy<Value = &'static str> {
        prop_oneof![
            4 => Just("a"), 4 => Just("b"), 1 => Just(""), 1 => Just("$s"), 1 => Just("é"),
            1 => Just("a-level-longer-than-any-entry-has-room-for-in-its-line"),
        ]
    }

    fn topic() -> impl Strategy<Value = String> {
        prop_oneof![
            9 => proptest::collection::vec(level(), 1..6),
            1 => proptest::collection::vec(level(), 14..20),
        ]
        .prop_map(|levels| levels.join("/"))
        .prop_filter("not empty", |topic| !topic.is_empty())
    }

    fn any_filter() -> impl Strategy<Value = String> {
        (topic(), any::<u32>(), any::<bool>(), 0..3_u8)
            .prop_map(|(topic, plus, all, ways)| {
                let mut levels: Vec<_> = topic.split('/').collect();
                if ways > 0 {
                    for (place, level) in levels.iter_mut().enumerate() {
                        if plus >> place & 1 == 1 {
                            *level = "+";
                        }
                    }
                }
                if ways > 0 && all {
                    let last = levels.len() - 1;
                    levels[last] = "#";
                }
                levels.join("/")
            })
            .prop_filter("not empty", |filter| !filter.is_empty())
    }

    fn rules() -> impl Strategy<Value = MatchingRules> {
        (any::<bool>(), any::<bool>()).prop_map(|(parent, reserved)| {
            let mut rules = MatchingRules::new();
            if parent {
                rules = rules.with_parent_level(ParentLevel::BelowOnly);
            }
            if reserved {
                rules = rules.with_reserved_topics(ReservedTopics::Ordinary);
            }
            rules
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Against the naive matcher, through insertions and removals, with none, few and all of the
        /// shapes allowed.
        #[test]
        fn finds_what_a_naive_search_finds(
            rules in rules(),
            max_shapes in prop_oneof![Just(0_usize), Just(2), Just(MAX_SHAPES)],
            steps in proptest::collection::vec((any_filter(), 0..4_u8), 0..60),
            topics in proptest::collection::vec(topic(), 1..10),
        ) {
            let mut trie = TopicTrie::with_rules(rules);
            trie.max_shapes = max_shapes;
            let mut model = BTreeMap::new();
            for (value, (text, way)) in steps.iter().enumerate() {
                let filter = filter(text);
                if *way == 0 {
                    prop_assert_eq!(trie.remove(&filter), model.remove(&filter));
                } else {
                    prop_assert_eq!(trie.insert(&filter, value), model.insert(filter.clone(), value));
                }
                prop_assert_eq!(trie.get(&filter), model.get(&filter));
                prop_assert_eq!(trie.len(), model.len());
            }
            for topic in &topics {
                let name = TopicName::new(topic.as_str()).unwrap();
                let mut want: Vec<_> = model
                    .iter()
                    .filter(|(filter, _)| filter.matches_with(&name, rules))
                    .map(|(_, value)| *value)
                    .collect();
                want.sort_unstable();
                prop_assert_eq!(found(&trie, topic), want, "{}", topic);
            }
            for filter in model.keys() {
                prop_assert!(trie.remove(filter).is_some());
            }
            prop_assert!(trie.is_empty() && trie.shapes.is_empty() && trie.tree.is_empty());
            for topic in &topics {
                prop_assert!(found(&trie, topic).is_empty());
            }
        }
    }

    #[test]
    fn an_entry_with_a_small_value_is_a_cache_line() {
        assert_eq!(size_of::<Entry<[u64; 2]>>(), 64);
    }

    /// Every combination of `+` and a literal over ten levels: 1,024 shapes, more than are listed.
    fn branching(tail: &str) -> TopicTrie<usize> {
        let mut trie = TopicTrie::new();
        for bits in 0..1_024_usize {
            let levels: Vec<_> = (0..10)
                .map(|place| if bits >> place & 1 == 1 { "+" } else { "l" })
                .collect();
            trie.insert(&filter(&(levels.join("/") + tail)), bits);
        }
        trie
    }

    #[test]
    fn branching_filters_are_bounded() {
        let topic = ["l"; 10].join("/");
        let all = branching("");
        assert_eq!(all.shapes.len(), MAX_SHAPES);
        assert!(all.tree.nodes() <= 2_047);
        assert_eq!(found(&all, &topic), (0..1_024).collect::<Vec<_>>());
        assert!(found(&branching("/never"), &topic).is_empty());
    }

    #[test]
    fn deep_filters_and_topics_are_walked_without_recursion() {
        let deep = "a/".repeat(30_000) + "a";
        let mut trie = TopicTrie::new();
        trie.insert(&filter(&deep), 1);
        trie.insert(&filter(&("+/".repeat(30_000) + "a")), 2);
        trie.insert(&filter(&("a/".repeat(29_999) + "#")), 3);
        trie.insert(&filter("a/#"), 4);
        assert_eq!(found(&trie, &deep), [1, 2, 3, 4]);
        assert_eq!(found(&trie, &("a/".repeat(20_000) + "b")), [4]);
        for text in [
            &*deep,
            &("+/".repeat(30_000) + "a"),
            &("a/".repeat(29_999) + "#"),
            "a/#",
        ] {
            assert!(trie.remove(&filter(text)).is_some());
        }
        assert!(trie.is_empty() && trie.tree.is_empty());
    }

    #[test]
    fn a_removed_filter_leaves_no_node_behind() {
        let mut trie = TopicTrie::new();
        trie.max_shapes = 0;
        trie.insert(&filter("a/+/c/#"), 1);
        let nodes = trie.tree.nodes();
        for n in 0..100 {
            trie.insert(&filter(&format!("a/+/c/{n}/+/d")), n);
        }
        for n in 0..100 {
            trie.remove(&filter(&format!("a/+/c/{n}/+/d")));
        }
        assert_eq!(trie.tree.nodes(), nodes);
    }
}
