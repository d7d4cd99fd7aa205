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

mod batch;
mod cache;
mod generation;
mod hash;
mod index;
mod levels;
mod shapes;
mod sieve;
mod slab;
mod symbols;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod tree;

use std::fmt;

pub use cache::MatchCache;

use crate::matching::{MatchingRules, ParentLevel, ReservedTopics};
use crate::topic::{TopicFilter, TopicName};
use cache::Found;
use generation::Generation;
use hash::Seed;
pub(crate) use hash::TextHash;
use levels::{Levels, Shape};
use shapes::Shapes;
use sieve::Sieve;
use slab::{NUMBER_BITS, Slab};
use table::Table;
use text::Text;
use tree::{Rules, Tree};

/// How many shapes of filters with wildcards are looked up one by one. Real sets have around ten; at the
/// bound a match that finds nothing costs 64 look-ups of two or three nanoseconds, as much as a walk.
const MAX_SHAPES: usize = 64;

/// The longest text, in bytes, that lies in an entry of one cache line, beside a value of 16 bytes.
const LINE: usize = 46;
/// The same for an entry of two lines.
const TWO_LINES: usize = 110;

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
    /// Filters without wildcards, by the hash of the whole text.
    exact: Table<Entry<V, LINE>>,
    /// The same, for those that have more text than fits into a cache line.
    long: Table<Entry<V, TWO_LINES>>,
    /// Filters of a listed shape, by the keys of their levels.
    shaped: Sieve,
    /// The entries of those, by the numbers that it keeps for them.
    in_shapes: Slab<Entry<V, LINE>>,
    shapes: Shapes,
    max_shapes: usize,
    tree: Tree,
    /// The values of the filters in the tree, by the numbers that it keeps for them.
    in_tree: Slab<V>,
    generation: Generation,
}

/// Aligned, lest what fits into one cache line lies across two.
#[derive(Clone)]
#[repr(align(64))]
struct Entry<V, const TEXT: usize> {
    pattern: Text<TEXT>,
    value: V,
}

/// How a filter is kept, or would be.
enum Kind {
    /// Without wildcards, in an entry of one line.
    Exact(u64),
    /// Without wildcards, in one of two.
    Long(u64),
    /// With wildcards: by its shape if that is listed, possibly in the tree all the same.
    Shaped(Shape, u64),
    /// In the tree.
    Deep,
}

/// Where a filter is, as long as none comes or goes.
#[derive(Clone, Copy)]
enum Place {
    Exact(u32),
    Long(u32),
    Shaped(u32),
    Tree(u32),
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
            exact: Table::default(),
            long: Table::default(),
            shaped: Sieve::default(),
            in_shapes: Slab::default(),
            shapes: Shapes::default(),
            max_shapes: MAX_SHAPES,
            tree: Tree::default(),
            in_tree: Slab::default(),
            generation: Generation::new(),
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
        self.exact.len() + self.long.len() + self.in_shapes.len() + self.in_tree.len()
    }

    /// Whether it holds no filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets the value of a filter and returns the one it had.
    ///
    /// # Panics
    /// Some time after there are 2²⁹ filters, when the numbers for them are used up.
    pub fn insert(&mut self, filter: &TopicFilter, value: V) -> Option<V> {
        let kind = self.kind_of(filter);
        let found = self.find(filter, &kind);
        if let Some(old) = found.and_then(|place| self.value_mut(place)) {
            return Some(std::mem::replace(old, value));
        }
        self.add(filter, &kind, value);
        None
    }

    /// The value of this very filter.
    #[must_use]
    pub fn get(&self, filter: &TopicFilter) -> Option<&V> {
        let place = self.find(filter, &self.kind_of(filter))?;
        self.value(place)
    }

    /// The value of this very filter, to change.
    pub fn get_mut(&mut self, filter: &TopicFilter) -> Option<&mut V> {
        let place = self.find(filter, &self.kind_of(filter))?;
        self.value_mut(place)
    }

    /// The value of a filter, made first if there is none.
    ///
    /// # Panics
    /// Some time after there are 2²⁹ filters, when the numbers for them are used up.
    pub fn get_or_insert_with(&mut self, filter: &TopicFilter, make: impl FnOnce() -> V) -> &mut V {
        let kind = self.kind_of(filter);
        match self.find(filter, &kind) {
            Some(place) => self
                .value_mut(place)
                .expect("a filter is where it was found"),
            None => self.add(filter, &kind, make()),
        }
    }

    /// Removes a filter and returns its value.
    pub fn remove(&mut self, filter: &TopicFilter) -> Option<V> {
        self.remove_if(filter, |_| true)
    }

    /// Shows the value of a filter to `is_done`, which may change it; removes the filter and returns its
    /// value if that says so.
    ///
    /// So the last of a filter's subscribers takes the filter along, with one search for both:
    ///
    /// ```
    /// use pubsub_core::{TopicFilter, TopicTrie};
    ///
    /// let mut trie = TopicTrie::new();
    /// let filter = TopicFilter::new("plant/+/alarm")?;
    /// trie.insert(&filter, vec!["control room", "porter"]);
    ///
    /// for who in ["porter", "control room"] {
    ///     trie.remove_if(&filter, |subscribers| {
    ///         subscribers.retain(|subscriber| *subscriber != who);
    ///         subscribers.is_empty()
    ///     });
    /// }
    /// assert!(trie.is_empty());
    /// # Ok::<(), pubsub_core::TopicError>(())
    /// ```
    pub fn remove_if(
        &mut self,
        filter: &TopicFilter,
        is_done: impl FnOnce(&mut V) -> bool,
    ) -> Option<V> {
        let kind = self.kind_of(filter);
        let place = self.find(filter, &kind)?;
        if !is_done(self.value_mut(place)?) {
            return None;
        }
        self.generation.advance();
        let seed = &self.seed;
        match (place, kind) {
            (Place::Exact(number), Kind::Exact(key)) => {
                let removed = self.exact.remove(key, number, |entry| entry.key(seed));
                removed.map(|entry| entry.value)
            }
            (Place::Long(number), Kind::Long(key)) => {
                let removed = self.long.remove(key, number, |entry| entry.key(seed));
                removed.map(|entry| entry.value)
            }
            (Place::Shaped(number), Kind::Shaped(shape, key)) => {
                let parent_matches = self.rules.parent_level == ParentLevel::Matches;
                self.shapes.remove(&shape, parent_matches);
                self.shaped.remove(key, number);
                let removed = self.in_shapes.remove(number);
                if self.in_shapes.is_mostly_holes() {
                    self.in_shapes.compact();
                    self.shaped = Sieve::default();
                    for (number, entry) in self.in_shapes.iter() {
                        self.shaped.insert(entry.shape_key(seed), number);
                    }
                }
                removed.map(|entry| entry.value)
            }
            (Place::Tree(number), _) => {
                self.tree.remove(filter.pattern(), seed);
                self.in_tree.remove(number)
            }
            _ => None,
        }
    }

    /// Removes every filter. The rules stay.
    pub fn clear(&mut self) {
        self.exact = Table::default();
        self.long = Table::default();
        self.shaped = Sieve::default();
        self.in_shapes = Slab::default();
        self.shapes = Shapes::default();
        self.tree = Tree::default();
        self.in_tree = Slab::default();
        self.generation.advance();
    }

    /// Every filter with its value, in an order that means nothing and changes with the set. The filters are those that the
    /// values are kept under: patterns, without `$share/GROUP/`.
    ///
    /// Their texts are put together as they come, an allocation each, so it is no way to look for one.
    ///
    /// ```
    /// use pubsub_core::{TopicFilter, TopicTrie};
    ///
    /// let mut trie = TopicTrie::new();
    /// trie.insert(&TopicFilter::new("sport/#")?, 2);
    /// trie.insert(&TopicFilter::new("$share/desk/news")?, 3);
    ///
    /// let mut all: Vec<_> = trie.iter().collect();
    /// all.sort_unstable();
    /// assert_eq!(all, [(TopicFilter::new("news")?, &3), (TopicFilter::new("sport/#")?, &2)]);
    /// # Ok::<(), pubsub_core::TopicError>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (TopicFilter, &V)> {
        let shaped = self.in_shapes.iter().map(|(_, entry)| entry);
        let lines = self.exact.iter().chain(shaped).map(Entry::parts);
        let entries = lines.chain(self.long.iter().map(Entry::parts));
        let entries = entries.map(|(pattern, value)| (TopicFilter::new(pattern), value));
        let deep = self.tree.iter().filter_map(|(pattern, number)| {
            let value = self.in_tree.get(number)?;
            Some((TopicFilter::new(pattern), value))
        });
        // What was a filter when it came is one still.
        let all = entries.chain(deep);
        all.filter_map(|(filter, value)| Some((filter.ok()?, value)))
    }

    /// Which set of filters it holds: a number that no trie in this process has had before, drawn anew when
    /// a filter comes or goes, but not when only a value changes. A clone has its original's until then.
    ///
    /// So what was found out about a topic stays true as long as this is the same.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.now()
    }

    /// Calls `visit` with the value of each filter that matches, in no particular order.
    pub fn for_each_match<'a>(&'a self, topic: &TopicName, visit: impl FnMut(&'a V)) {
        self.for_each_match_of(topic.as_str().as_bytes(), visit);
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
        if let Some(places) = cache.find(key, text, self.generation.now()) {
            for place in places {
                if let Some(value) = self.value(Place::unpack(*place)) {
                    visit(value);
                }
            }
            return;
        }
        let mut found = Found::default();
        self.for_each_place(text, key, |place, value| {
            found.push(place.pack());
            visit(value);
        });
        cache.keep(key, text, self.generation.now(), &found);
    }

    #[inline]
    fn for_each_match_of<'a>(&'a self, topic: &[u8], mut visit: impl FnMut(&'a V)) {
        let key = self.seed.text(topic);
        self.for_each_place(topic, key, |_, value| visit(value));
    }

    /// Calls `visit` with the place and the value of each filter that matches the topic with this key.
    #[inline]
    fn for_each_place<'a>(&'a self, text: &[u8], key: u64, mut visit: impl FnMut(Place, &'a V)) {
        if text.len() <= LINE {
            let is_right = |entry: &Entry<V, LINE>| entry.pattern.as_bytes() == text;
            if let Some((number, entry)) = self.exact.find(key, is_right) {
                visit(Place::Exact(number), &entry.value);
            }
        } else {
            let is_right = |entry: &Entry<V, TWO_LINES>| entry.pattern.as_bytes() == text;
            if let Some((number, entry)) = self.long.find(key, is_right) {
                visit(Place::Long(number), &entry.value);
            }
        }
        if !self.is_exact() {
            self.for_each_wildcard(text, visit);
        }
    }

    /// The same for filters with wildcards alone. Not part of the function above, whose callers would set up
    /// registers and room for the levels where no filter has any.
    #[inline(never)]
    fn for_each_wildcard<'a>(&'a self, text: &[u8], mut visit: impl FnMut(Place, &'a V)) {
        let mut levels = Levels::empty();
        levels.fill(text, &self.seed);
        let rules = self.rules_for(text);
        for shape in self.shapes.fitting(levels.count, rules.root_is_reserved) {
            let found = self.shaped.find(levels.key_for(shape), |number| {
                let entry = self.in_shapes.get(number);
                entry.is_some_and(|entry| levels.has_text(text, shape, entry.pattern.as_bytes()))
            });
            if let Some(number) = found
                && let Some(entry) = self.in_shapes.get(number)
            {
                visit(Place::Shaped(number), &entry.value);
            }
        }
        self.for_each_in_tree(text, &levels, rules, visit);
    }

    #[inline]
    fn for_each_in_tree<'a>(
        &'a self,
        text: &[u8],
        levels: &Levels,
        rules: Rules,
        mut visit: impl FnMut(Place, &'a V),
    ) {
        if self.tree.is_empty() {
            return;
        }
        self.tree
            .for_each_match(text, levels, &self.seed, rules, |number| {
                if let Some(value) = self.in_tree.get(number) {
                    visit(Place::Tree(number), value);
                }
            });
    }

    #[inline]
    fn rules_for(&self, topic: &[u8]) -> Rules {
        Rules {
            parent_matches: self.parent_matches(),
            root_is_reserved: topic.starts_with(b"$")
                && self.rules.reserved_topics == ReservedTopics::NamedExplicitly,
        }
    }

    /// Whether no filter has wildcards.
    fn is_exact(&self) -> bool {
        self.shapes.is_empty() && self.tree.is_empty()
    }

    fn parent_matches(&self) -> bool {
        self.rules.parent_level == ParentLevel::Matches
    }

    #[inline]
    fn value(&self, place: Place) -> Option<&V> {
        match place {
            Place::Exact(number) => self.exact.get(number).map(|entry| &entry.value),
            Place::Long(number) => self.long.get(number).map(|entry| &entry.value),
            Place::Shaped(number) => self.in_shapes.get(number).map(|entry| &entry.value),
            Place::Tree(number) => self.in_tree.get(number),
        }
    }

    #[inline]
    fn value_mut(&mut self, place: Place) -> Option<&mut V> {
        match place {
            Place::Exact(number) => self.exact.get_mut(number).map(|entry| &mut entry.value),
            Place::Long(number) => self.long.get_mut(number).map(|entry| &mut entry.value),
            Place::Shaped(number) => self.in_shapes.get_mut(number).map(|entry| &mut entry.value),
            Place::Tree(number) => self.in_tree.get_mut(number),
        }
    }

    #[inline]
    fn kind_of(&self, filter: &TopicFilter) -> Kind {
        let pattern = filter.pattern();
        if !filter.has_wildcards() {
            let key = self.seed.text(pattern.as_bytes());
            return if pattern.len() <= LINE {
                Kind::Exact(key)
            } else {
                Kind::Long(key)
            };
        }
        match Shape::of(pattern, &self.seed) {
            Some((shape, key)) => Kind::Shaped(shape, key),
            None => Kind::Deep,
        }
    }

    #[inline]
    fn find(&self, filter: &TopicFilter, kind: &Kind) -> Option<Place> {
        let pattern = filter.pattern();
        let text = pattern.as_bytes();
        let in_tree = || self.tree.get(pattern, &self.seed).map(Place::Tree);
        match kind {
            Kind::Exact(key) => {
                let found = self
                    .exact
                    .find(*key, |entry| entry.pattern.as_bytes() == text);
                found.map(|(number, _)| Place::Exact(number))
            }
            Kind::Long(key) => {
                let found = self
                    .long
                    .find(*key, |entry| entry.pattern.as_bytes() == text);
                found.map(|(number, _)| Place::Long(number))
            }
            Kind::Shaped(_, key) => {
                let found = self.shaped.find(*key, |number| {
                    let entry = self.in_shapes.get(number);
                    entry.is_some_and(|entry| entry.pattern.as_bytes() == text)
                });
                found.map(Place::Shaped).or_else(in_tree)
            }
            Kind::Deep => in_tree(),
        }
    }

    /// Adds a filter that is not there.
    fn add(&mut self, filter: &TopicFilter, kind: &Kind, value: V) -> &mut V {
        self.generation.advance();
        let pattern = filter.pattern();
        let parent_matches = self.parent_matches();
        let seed = &self.seed;
        match kind {
            Kind::Exact(key) => {
                let entry = self.exact.insert(*key, Entry::empty(pattern, value));
                entry.fill(pattern)
            }
            Kind::Long(key) => {
                let entry = self.long.insert(*key, Entry::empty(pattern, value));
                entry.fill(pattern)
            }
            Kind::Shaped(shape, key) if self.shapes.add(shape, self.max_shapes, parent_matches) => {
                let (number, entry) = self.in_shapes.insert(Entry::empty(pattern, value));
                self.shaped.insert(*key, number);
                entry.fill(pattern)
            }
            Kind::Shaped(..) | Kind::Deep => {
                let (number, value) = self.in_tree.insert(value);
                self.tree.set(pattern, number, seed);
                value
            }
        }
    }
}

impl<V, const TEXT: usize> Entry<V, TEXT> {
    /// An entry with room for a pattern, which is [filled in](Self::fill) where the entry lies.
    fn empty(pattern: &str, value: V) -> Self {
        Self {
            pattern: Text::with_room_for(pattern),
            value,
        }
    }

    fn fill(&mut self, pattern: &str) -> &mut V {
        self.pattern.fill(pattern);
        &mut self.value
    }

    fn parts(&self) -> (&str, &V) {
        (self.pattern.as_str(), &self.value)
    }

    /// What it is found by if it has no wildcards.
    fn key(&self, seed: &Seed) -> u64 {
        seed.text(self.pattern.as_bytes())
    }

    /// What it is found by if it is of a listed shape.
    fn shape_key(&self, seed: &Seed) -> u64 {
        Shape::of(self.pattern.as_str(), seed).map_or(0, |(_, key)| key)
    }
}

impl Place {
    /// As one number, of which the highest bits say which table it is for.
    #[inline]
    fn pack(self) -> u32 {
        let (table, number) = match self {
            Self::Exact(number) => (0, number),
            Self::Long(number) => (1, number),
            Self::Shaped(number) => (2, number),
            Self::Tree(number) => (3, number),
        };
        table << NUMBER_BITS | number
    }

    #[inline]
    fn unpack(packed: u32) -> Self {
        let number = packed & ((1 << NUMBER_BITS) - 1);
        match packed >> NUMBER_BITS {
            0 => Self::Exact(number),
            1 => Self::Long(number),
            2 => Self::Shaped(number),
            _ => Self::Tree(number),
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
            .field("filters", &self.len())
            .finish_non_exhaustive()
    }
}
