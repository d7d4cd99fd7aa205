//! Many topics at a time.
//!
//! What a match in a large set takes is waiting for memory: for a slot of the index, then for the entry whose
//! number stands there. One topic after the other, the processor reads little ahead, since it has to guess how
//! each look-up goes on, and begins anew where that was wrong. So a group of topics goes through the same steps
//! side by side. Each step is a loop of reads of which none waits for another and none decides where the loop goes.

use super::index::Index;
use super::levels::{Levels, Shape};
use super::{LINE, MAX_SHAPES, TopicTrie};
use crate::topic::TopicName;

/// How many topics go side by side. With 8, exact matches in a set of a million filters take a third longer; with 32,
/// hardly less.
const GROUP: usize = 16;
/// Fewer topics than this go one by one: what it takes to set a group up is more than they gain.
const FEW: usize = 4;
/// How many filters with wildcards a group may come upon at a time. It is one a shape and topic at most; a group
/// that might come upon more goes in parts.
const CANDIDATES: usize = 64;
const _: () = assert!(MAX_SHAPES <= CANDIDATES && MAX_SHAPES <= 1 << u8::BITS);

/// The number of no entry.
const NONE: u32 = u32::MAX;

/// Topics side by side, and the exact filter of each.
struct Group<'t> {
    texts: [&'t [u8]; GROUP],
    len: usize,
    keys: [u64; GROUP],
    /// The first entry under the key: the right one, unless two keys are alike.
    numbers: [u32; GROUP],
    /// Whether its text is as long as the topic's.
    fits: [bool; GROUP],
}

/// The same topics taken apart, and the filters with wildcards that they come upon.
struct Wild {
    levels: [Levels; GROUP],
    candidates: [Candidate; CANDIDATES],
    /// Where the candidates of each topic end.
    ends: [usize; GROUP],
}

/// What a topic comes upon under the key of one shape.
#[derive(Clone, Copy, Default)]
struct Candidate {
    key: u64,
    /// What the slot holds where the search begins.
    home: u64,
    /// The first entry under the key.
    number: u32,
    /// Which of the shapes that fit the topic.
    shape: u8,
    is_there: bool,
}

impl<V> TopicTrie<V> {
    /// Matches many topics: calls `visit` with the place of a topic among them, counted from 0, and the value of
    /// a filter that matches it, for each such pair. Topics come in their order; the filters of one in no
    /// particular order.
    ///
    /// It finds what [`for_each_match`](Self::for_each_match) finds for each, and allocates nothing either. But where
    /// the processor's caches do not hold the set, it waits for the memory of sixteen topics at once: with a
    /// million filters, a match takes half the time or less. With a thousand, it takes about as long. It pays from
    /// four topics on, so it suits whoever has them in batches, as a broker that reads many messages at a time.
    ///
    /// ```
    /// use pubsub_core::{TopicFilter, TopicName, TopicTrie};
    ///
    /// let mut trie = TopicTrie::new();
    /// trie.insert(&TopicFilter::new("plant/+/alarm")?, "control room");
    /// trie.insert(&TopicFilter::new("plant/7/door")?, "porter");
    ///
    /// let batch = [
    ///     (TopicName::new("plant/7/door")?, "open"),
    ///     (TopicName::new("plant/7/temp")?, "21"),
    ///     (TopicName::new("plant/9/alarm")?, "fire"),
    /// ];
    /// let mut told = Vec::new();
    /// trie.for_each_match_batched(batch.iter().map(|(topic, _)| topic), |at, who| {
    ///     told.push((*who, batch[at].1));
    /// });
    /// assert_eq!(told, [("porter", "open"), ("control room", "fire")]);
    /// # Ok::<(), pubsub_core::TopicError>(())
    /// ```
    pub fn for_each_match_batched<'a, 't, T>(
        &'a self,
        topics: T,
        mut visit: impl FnMut(usize, &'a V),
    ) where
        T: IntoIterator<Item = &'t TopicName>,
    {
        let mut topics = topics.into_iter();
        let mut group = Group::new();
        group.refill(&mut topics);
        let mut first = 0;
        if group.len < FEW {
            for at in 0..group.len {
                self.for_each_match_of(group.texts[at], |value| visit(at, value));
            }
        } else if self.is_exact() {
            while group.len > 0 {
                self.look_up(&mut group);
                for at in 0..group.len {
                    if let Some(value) = self.exact_of(&group, at) {
                        visit(first + at, value);
                    }
                }
                first += group.len;
                group.refill(&mut topics);
            }
        } else {
            let mut wild = Wild::new();
            while group.len > 0 {
                self.look_up(&mut group);
                self.for_each_of(&group, &mut wild, |at, value| visit(first + at, value));
                first += group.len;
                group.refill(&mut topics);
            }
        }
    }

    /// Finds the exact filter of each topic, but does not compare the texts.
    #[inline]
    fn look_up(&self, group: &mut Group<'_>) {
        let texts = group.texts.get(..group.len).unwrap_or_default();
        for (text, key) in texts.iter().zip(&mut group.keys) {
            *key = self.seed.text(text);
        }
        let mut homes = [0; GROUP];
        for ((text, key), home) in texts.iter().zip(&group.keys).zip(&mut homes) {
            *home = self.index_for(text).home(*key);
        }
        let found = texts.iter().zip(&group.keys).zip(&homes);
        for (((text, key), home), number) in found.zip(&mut group.numbers) {
            let first = self.index_for(text).first(*key, *home);
            *number = first.unwrap_or(NONE);
        }
        for ((text, number), fits) in texts.iter().zip(&group.numbers).zip(&mut group.fits) {
            let len = if text.len() <= LINE {
                self.exact.get(*number).map(|entry| entry.pattern.len())
            } else {
                self.long.get(*number).map(|entry| entry.pattern.len())
            };
            *fits = len == Some(text.len());
        }
    }

    #[inline]
    fn index_for(&self, text: &[u8]) -> &Index {
        if text.len() <= LINE {
            self.exact.index()
        } else {
            self.long.index()
        }
    }

    /// The value of the exact filter that a topic matches.
    #[inline]
    fn exact_of(&self, group: &Group<'_>, at: usize) -> Option<&V> {
        let (text, number) = (group.texts[at], group.numbers[at]);
        if number == NONE {
            return None;
        }
        if group.fits[at] {
            let (pattern, value) = if text.len() <= LINE {
                let entry = self.exact.get(number)?;
                (entry.pattern.as_bytes(), &entry.value)
            } else {
                let entry = self.long.get(number)?;
                (entry.pattern.as_bytes(), &entry.value)
            };
            if pattern == text {
                return Some(value);
            }
        }
        self.search(text, group.keys[at])
    }

    /// The value of the exact filter with this text, which is not the first under its key.
    #[cold]
    fn search(&self, text: &[u8], key: u64) -> Option<&V> {
        if text.len() <= LINE {
            let found = self.exact.find(key, |have| have.pattern.as_bytes() == text);
            found.map(|(_, entry)| &entry.value)
        } else {
            let found = self.long.find(key, |have| have.pattern.as_bytes() == text);
            found.map(|(_, entry)| &entry.value)
        }
    }

    /// Calls `visit` for each of the group's topics and each filter that matches it.
    #[inline]
    fn for_each_of<'a>(
        &'a self,
        group: &Group<'_>,
        wild: &mut Wild,
        mut visit: impl FnMut(usize, &'a V),
    ) {
        for (at, levels) in wild.levels.iter_mut().enumerate().take(group.len) {
            levels.fill(group.texts[at], &self.seed);
        }
        let mut at = 0;
        while at < group.len {
            let end = self.come_upon(group, at, wild);
            let mut from = 0;
            while at < end {
                if let Some(value) = self.exact_of(group, at) {
                    visit(at, value);
                }
                let (text, levels) = (group.texts[at], &wild.levels[at]);
                let rules = self.rules_for(text);
                let shapes = self.shapes.fitting(levels.count, rules.root_is_reserved);
                let to = wild.ends[at];
                for candidate in wild.candidates.get(from..to).unwrap_or_default() {
                    if candidate.is_there
                        && let Some(shape) = shapes.get(usize::from(candidate.shape))
                        && let Some(value) = self.shaped_of(text, levels, shape, candidate)
                    {
                        visit(at, value);
                    }
                }
                self.for_each_in_tree(text, levels, rules, |_, value| visit(at, value));
                from = to;
                at += 1;
            }
        }
    }

    /// Finds what the topics from this one on come upon, but does not compare the texts. Returns the first topic for
    /// which there is no room.
    #[inline]
    fn come_upon(&self, group: &Group<'_>, begin: usize, wild: &mut Wild) -> usize {
        let mut count = 0;
        let mut end = begin;
        while end < group.len {
            let levels = &wild.levels[end];
            let rules = self.rules_for(group.texts[end]);
            let shapes = self.shapes.fitting(levels.count, rules.root_is_reserved);
            if shapes.len() > CANDIDATES - count {
                break;
            }
            for (number, shape) in (0..).zip(shapes) {
                let key = levels.key_for(shape);
                // Written down in any case, and counted if it is one.
                let candidate = &mut wild.candidates[count % CANDIDATES];
                candidate.key = key;
                candidate.shape = number;
                count += usize::from(self.shaped.lets_pass(key));
            }
            wild.ends[end] = count;
            end += 1;
        }
        let candidates = wild.candidates.get_mut(..count).unwrap_or_default();
        for candidate in &mut *candidates {
            candidate.home = self.shaped.index().home(candidate.key);
        }
        for candidate in &mut *candidates {
            let first = self.shaped.index().first(candidate.key, candidate.home);
            candidate.number = first.unwrap_or(NONE);
        }
        for candidate in &mut *candidates {
            let entry = self.in_shapes.get(candidate.number);
            candidate.is_there = entry.is_some_and(|entry| entry.pattern.len() > 0);
        }
        end
    }

    /// The value of the filter of a shape that a topic matches.
    #[inline]
    fn shaped_of(
        &self,
        text: &[u8],
        levels: &Levels,
        shape: &Shape,
        candidate: &Candidate,
    ) -> Option<&V> {
        let right = |number| {
            let entry = self.in_shapes.get(number)?;
            let is_right = levels.has_text(text, shape, entry.pattern.as_bytes());
            is_right.then_some(&entry.value)
        };
        let found = right(candidate.number);
        found.or_else(|| self.shaped.index().find_map(candidate.key, right))
    }
}

impl<'t> Group<'t> {
    fn new() -> Self {
        Self {
            texts: [&[]; GROUP],
            len: 0,
            keys: [0; GROUP],
            numbers: [NONE; GROUP],
            fits: [false; GROUP],
        }
    }

    /// Takes the next topics in place of those it had, as many as there are.
    #[inline]
    fn refill(&mut self, topics: &mut impl Iterator<Item = &'t TopicName>) {
        self.len = 0;
        for (text, topic) in self.texts.iter_mut().zip(topics) {
            *text = topic.as_str().as_bytes();
            self.len += 1;
        }
    }
}

impl Wild {
    fn new() -> Self {
        Self {
            levels: [const { Levels::empty() }; GROUP],
            candidates: [Candidate::default(); CANDIDATES],
            ends: [0; GROUP],
        }
    }
}
