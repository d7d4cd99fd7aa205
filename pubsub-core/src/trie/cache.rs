//! What topics matched the last time, for brokers whose messages come again and again on the same ones.

use std::fmt;

/// How many places a topic has to be in.
const WAYS: usize = 4;
/// The longest topic that is remembered, in bytes.
const TEXT: usize = 128;
/// The most matches that are remembered of a topic.
const MATCHES: usize = 13;

/// In how many questions at a time it is found out whether remembering pays.
const TRIAL: u32 = 1_024;
/// How many of those have to be answered, lest the cache is passed by for a while.
const ENOUGH: u32 = TRIAL / 4;
/// For how many questions it is then passed by.
const PAUSE: u32 = 16 * TRIAL;

/// A memory of the filters that topics matched, to be asked by
/// [`for_each_match_cached`](super::TopicTrie::for_each_match_cached).
///
/// It holds a fixed number of topics of up to 128 bytes with up to 13 matching filters each, and forgets old
/// ones for new ones; other topics are matched as without it. Give each thread its own: asking changes
/// it.
///
/// An answer is never stale. What is remembered counts for one [generation] of one trie, which ends as
/// soon as a filter comes or goes. Therefore it pays where topics repeat more often than filters change;
/// where it does not (fewer than one question in four is answered, be it by change or by a stream of
/// topics made to that end), it notices and stands aside for a while, trying again now and then.
///
/// [generation]: super::TopicTrie::generation
///
/// ```
/// use pubsub_core::{MatchCache, TopicFilter, TopicName, TopicTrie};
///
/// let mut trie = TopicTrie::new();
/// trie.insert(&TopicFilter::new("plant/+/alarm")?, "control room");
///
/// let mut cache = MatchCache::default();
/// let topic = TopicName::new("plant/7/alarm")?;
/// for _ in 0..1_000 {
///     trie.for_each_match_cached(&mut cache, &topic, |who| assert_eq!(*who, "control room"));
/// }
/// assert_eq!(cache.hits(), 999);
/// # Ok::<(), pubsub_core::TopicError>(())
/// ```
#[derive(Clone)]
pub struct MatchCache {
    /// By the lower half of a topic's key: the upper halves of those that are there.
    tags: Vec<[u32; WAYS]>,
    /// [`WAYS`] of them for each set of tags.
    lines: Vec<Line>,
    /// Which way is given to the next topic.
    next: usize,
    hits: u64,
    asked: u32,
    answered: u32,
    /// How many questions more it is passed by.
    pause: u32,
}

/// One topic. A short one is found in two lines of the processor's cache.
#[derive(Clone)]
#[repr(align(64))]
struct Line {
    generation: u64,
    numbers: [u32; MATCHES],
    count: u8,
    len: u8,
    text: [u8; TEXT],
}

/// The matches of one topic, while they are found.
#[derive(Default)]
pub(super) struct Found {
    numbers: [u32; MATCHES],
    /// May be more than there is room for.
    count: usize,
}

impl Found {
    #[inline]
    pub(super) fn push(&mut self, number: u32) {
        if let Some(place) = self.numbers.get_mut(self.count) {
            *place = number;
        }
        self.count += 1;
    }
}

impl MatchCache {
    /// How many topics it holds by default: 800 KiB of them.
    pub const DEFAULT_TOPICS: usize = 4_096;
    /// The most topics it can be made to hold: 196 MiB of them.
    pub const MAX_TOPICS: usize = 1 << 20;

    /// A cache that holds about so many topics: the next power of two, from 4 up to
    /// [`MAX_TOPICS`](Self::MAX_TOPICS). Each takes 196 bytes, allocated here and never again.
    ///
    /// It works best with twice as many as are in use, since a topic has four places to be in.
    #[must_use]
    pub fn new(topics: usize) -> Self {
        let topics = topics.clamp(WAYS, Self::MAX_TOPICS).next_power_of_two();
        let empty = Line {
            generation: 0,
            numbers: [0; MATCHES],
            count: 0,
            len: 0,
            text: [0; TEXT],
        };
        Self {
            tags: vec![[0; WAYS]; topics / WAYS],
            lines: vec![empty; topics],
            next: 0,
            hits: 0,
            asked: 0,
            answered: 0,
            pause: 0,
        }
    }

    /// How many matches it has answered.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// Whether to ask at all this time.
    #[inline]
    pub(super) fn is_awake(&mut self) -> bool {
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        if self.asked == TRIAL {
            if self.answered < ENOUGH {
                self.pause = PAUSE;
            }
            self.asked = 0;
            self.answered = 0;
        }
        self.asked += 1;
        true
    }

    /// The numbers of the filters that a topic matched in this generation.
    #[inline]
    pub(super) fn find(&mut self, key: u64, topic: &[u8], generation: u64) -> Option<&[u32]> {
        let (set, tag) = self.place_of(key);
        let tags = self.tags.get(set)?;
        let way = tags.iter().position(|have| *have == tag)?;
        let line = self.lines.get(set * WAYS + way)?;
        if line.generation != generation || line.text.get(..line.len.into()) != Some(topic) {
            return None;
        }
        self.hits += 1;
        self.answered += 1;
        line.numbers.get(..line.count.into())
    }

    /// Remembers what a topic matched, if there is room for it.
    pub(super) fn keep(&mut self, key: u64, topic: &[u8], generation: u64, found: &Found) {
        if found.count > MATCHES || topic.len() > TEXT {
            return;
        }
        let (set, tag) = self.place_of(key);
        let Some(tags) = self.tags.get_mut(set) else {
            return;
        };
        let way = tags
            .iter()
            .position(|have| *have == tag)
            .unwrap_or_else(|| {
                self.next = (self.next + 1) % WAYS;
                self.next
            });
        tags[way] = tag;
        if let Some(line) = self.lines.get_mut(set * WAYS + way)
            && let Some(text) = line.text.get_mut(..topic.len())
        {
            text.copy_from_slice(topic);
            line.len = topic.len() as u8;
            line.generation = generation;
            line.numbers = found.numbers;
            line.count = found.count as u8;
        }
    }

    #[inline]
    fn place_of(&self, key: u64) -> (usize, u32) {
        let set = key as usize & self.tags.len().wrapping_sub(1);
        (set, (key >> 32) as u32)
    }
}

impl Default for MatchCache {
    fn default() -> Self {
        Self::new(Self::DEFAULT_TOPICS)
    }
}

impl fmt::Debug for MatchCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MatchCache")
            .field("topics", &self.lines.len())
            .field("hits", &self.hits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::TopicTrie;
    use super::*;
    use crate::topic::{TopicFilter, TopicName};

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).unwrap()
    }

    fn found(trie: &TopicTrie<usize>, cache: &mut MatchCache, topic: &str) -> Vec<usize> {
        let mut found = Vec::new();
        let topic = TopicName::new(topic).unwrap();
        trie.for_each_match_cached(cache, &topic, |value| found.push(*value));
        found.sort_unstable();
        found
    }

    #[test]
    fn a_change_of_filters_is_seen_at_once() {
        let mut cache = MatchCache::new(8);
        let mut trie = TopicTrie::new();
        trie.insert(&filter("a/+"), 1);
        assert_eq!(found(&trie, &mut cache, "a/b"), [1]);
        assert_eq!(found(&trie, &mut cache, "a/b"), [1]);
        trie.insert(&filter("+/b"), 2);
        assert_eq!(found(&trie, &mut cache, "a/b"), [1, 2]);
        trie.remove(&filter("a/+"));
        assert_eq!(found(&trie, &mut cache, "a/b"), [2]);
        *trie.get_mut(&filter("+/b")).unwrap() = 3;
        assert_eq!(found(&trie, &mut cache, "a/b"), [3]);
        assert_eq!(
            cache.hits(),
            2,
            "a change of a value alone keeps what is known"
        );
        trie.clear();
        assert!(found(&trie, &mut cache, "a/b").is_empty());
    }

    #[test]
    fn one_trie_gets_nothing_of_another() {
        let mut cache = MatchCache::new(8);
        let mut one = TopicTrie::new();
        one.insert(&filter("a/+"), 1);
        let mut other = one.clone();
        assert_eq!(found(&one, &mut cache, "a/b"), [1]);
        assert_eq!(found(&other, &mut cache, "a/b"), [1]);
        other.insert(&filter("+/b"), 2);
        one.insert(&filter("#"), 3);
        assert_eq!(found(&other, &mut cache, "a/b"), [1, 2]);
        assert_eq!(found(&one, &mut cache, "a/b"), [1, 3]);
        assert_eq!(found(&other, &mut cache, "a/b"), [1, 2]);
    }

    #[test]
    fn what_has_no_room_is_matched_as_ever() {
        let mut cache = MatchCache::new(0);
        assert_eq!(cache.lines.len(), WAYS);
        let mut trie = TopicTrie::new();
        let topic = ["a"; MATCHES + 1].join("/");
        for place in 0..=MATCHES {
            let mut levels = ["a"; MATCHES + 1];
            levels[place] = "+";
            trie.insert(&filter(&levels.join("/")), place);
        }
        let all: Vec<_> = (0..=MATCHES).collect();
        let long = "b/".repeat(TEXT / 2) + "b";
        trie.insert(&filter("b/#"), 100);
        for _ in 0..3 {
            assert_eq!(found(&trie, &mut cache, &topic), all);
            assert_eq!(found(&trie, &mut cache, &long), [100]);
        }
        assert_eq!(cache.hits(), 0);
        trie.remove(&filter(&("+".to_owned() + &"/a".repeat(MATCHES))));
        for _ in 0..3 {
            assert_eq!(found(&trie, &mut cache, &topic), all[1..]);
            assert_eq!(found(&trie, &mut cache, &long[2..]), [100]);
        }
        assert_eq!(cache.hits(), 4);
    }

    /// More topics than there is room for, so that they drive each other out.
    #[test]
    fn answers_as_without_it_whatever_drives_out_what() {
        let mut cache = MatchCache::new(16);
        let mut trie = TopicTrie::new();
        for n in 0..50 {
            trie.insert(&filter(&format!("{n}/+")), n);
        }
        for round in 0..40_usize {
            for n in 0..50 {
                let hot = format!("{}/x", n % 3);
                assert_eq!(found(&trie, &mut cache, &hot), [n % 3]);
                assert_eq!(found(&trie, &mut cache, &format!("{n}/{round}")), [n]);
            }
        }
        assert_eq!(cache.lines.len(), 16);
        assert!(cache.hits() > 0);
    }

    #[test]
    fn stands_aside_where_nothing_repeats() {
        let mut cache = MatchCache::default();
        let mut trie = TopicTrie::new();
        trie.insert(&filter("+"), 1);
        for n in 0..=TRIAL {
            assert_eq!(found(&trie, &mut cache, &n.to_string()), [1]);
        }
        assert!(cache.pause > 0);
        // Then topics begin to repeat, and the cache comes back.
        for _ in 0..=PAUSE + 10 {
            assert_eq!(found(&trie, &mut cache, "again"), [1]);
        }
        assert!(cache.hits() > 0);
    }
}
