//! A topic taken apart, and the shapes of filters: which levels are wildcards.

use super::hash::Seed;

/// How many levels a filter may have, `#` not counted, to be looked up by its shape; deeper ones are
/// rare and walked to. Twice what services commonly allow.
pub(super) const SHAPE_LEVELS: usize = 16;

/// The first levels of a topic.
pub(super) struct Levels {
    /// How many there are, at most one more than [`SHAPE_LEVELS`].
    pub(super) count: usize,
    /// Where each of the first levels ends, so that level `i` is `ends[i - 1] + 1..ends[i]`.
    ends: [u32; SHAPE_LEVELS],
    /// The key of each.
    keys: [u64; SHAPE_LEVELS],
    /// The sum of the keys before each.
    sums: [u64; SHAPE_LEVELS + 1],
}

impl Levels {
    /// Nothing yet: to be [filled](Self::fill) where it stands, since it is too large to be moved about.
    #[inline]
    pub(super) const fn empty() -> Self {
        Self {
            count: 0,
            ends: [0; SHAPE_LEVELS],
            keys: [0; SHAPE_LEVELS],
            sums: [0; SHAPE_LEVELS + 1],
        }
    }

    /// Takes a topic apart, up to a depth, in place of the one before. Does not look behind the first level that is one
    /// too many.
    #[inline(always)]
    pub(super) fn fill(&mut self, topic: &[u8], seed: &Seed) {
        self.count = 0;
        let mut start = 0;
        let (blocks, rest) = topic.as_chunks::<8>();
        let mut base = 0;
        for block in blocks {
            let mut slashes = zero_bytes(u64::from_le_bytes(*block) ^ SLASHES);
            while slashes != 0 {
                let end = base + (slashes.trailing_zeros() / 8) as usize;
                if !self.push(topic, start, end, seed) {
                    return;
                }
                start = end + 1;
                slashes &= slashes - 1;
            }
            base += 8;
        }
        for (offset, byte) in rest.iter().enumerate() {
            if *byte == b'/' {
                if !self.push(topic, start, base + offset, seed) {
                    return;
                }
                start = base + offset + 1;
            }
        }
        self.push(topic, start, topic.len(), seed);
    }

    #[inline(always)]
    fn push(&mut self, topic: &[u8], start: usize, end: usize, seed: &Seed) -> bool {
        let place = self.count;
        self.count += 1;
        if place >= SHAPE_LEVELS {
            return false;
        }
        let key = seed.level(topic, start, end, place);
        self.ends[place] = end as u32;
        self.keys[place] = key;
        self.sums[place + 1] = self.sums[place].wrapping_add(key);
        true
    }

    /// The key of a level, if it is one of the first.
    #[inline]
    pub(super) fn key(&self, place: usize) -> Option<u64> {
        if place < self.count {
            self.keys.get(place).copied()
        } else {
            None
        }
    }

    /// Where a level ends, if it is one of the first.
    #[inline]
    pub(super) fn end(&self, place: usize) -> Option<usize> {
        if place < self.count {
            self.ends.get(place).map(|end| *end as usize)
        } else {
            None
        }
    }

    /// Where a level begins, if the one before it is one of the first.
    #[inline]
    pub(super) fn start(&self, place: usize) -> Option<usize> {
        match place.checked_sub(1) {
            Some(before) => self.end(before).map(|end| end + 1),
            None => Some(0),
        }
    }

    /// Where a filter of this shape would be found, had it this topic's levels.
    #[inline]
    pub(super) fn key_for(&self, shape: &Shape) -> u64 {
        let mut key = self.sums[usize::from(shape.levels)].wrapping_add(shape.salt);
        let mut plus = shape.plus;
        while plus != 0 {
            key = key.wrapping_sub(self.keys[plus.trailing_zeros() as usize & (SHAPE_LEVELS - 1)]);
            plus &= plus - 1;
        }
        key
    }

    /// Whether a filter is of this shape and has this topic's levels, of which there are enough.
    #[inline]
    pub(super) fn has_text(&self, topic: &[u8], shape: &Shape, filter: &[u8]) -> bool {
        let filter = match shape.tail {
            Tail::End => filter,
            Tail::All if shape.levels == 0 => return filter == b"#",
            Tail::All => match filter.strip_suffix(b"/#") {
                Some(before) => before,
                None => return false,
            },
        };
        let topic_end = self.ends[usize::from(shape.levels) - 1] as usize;
        let (mut in_filter, mut in_topic) = (0, 0);
        let mut plus = shape.plus;
        while plus != 0 {
            let place = plus.trailing_zeros() as usize & (SHAPE_LEVELS - 1);
            plus &= plus - 1;
            let start = if place == 0 {
                0
            } else {
                self.ends[place - 1] as usize + 1
            };
            let at = in_filter + (start - in_topic);
            if filter.get(in_filter..at) != topic.get(in_topic..start)
                || filter.get(at) != Some(&b'+')
            {
                return false;
            }
            in_filter = at + 1;
            in_topic = self.ends[place] as usize;
        }
        filter.get(in_filter..) == topic.get(in_topic..topic_end)
    }
}

/// Which levels of a filter are wildcards: all filters of one shape are found by one look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// A bit for each level that is `+`.
    plus: u32,
    /// How many levels there are, `#` not counted; at most [`SHAPE_LEVELS`].
    levels: u8,
    tail: Tail,
    /// Follows from the rest, and keeps the keys of one shape apart from those of another.
    salt: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    /// It ends with its last level.
    End,
    /// It ends with `#`.
    All,
}

impl Shape {
    /// The shape of a filter and the key it is found by; `None` if it has too many levels.
    pub(super) fn of(pattern: &str, seed: &Seed) -> Option<(Self, u64)> {
        let mut shape = Self {
            plus: 0,
            levels: 0,
            tail: Tail::End,
            salt: 0,
        };
        let mut key = 0_u64;
        for level in pattern.split('/') {
            if level == "#" {
                shape.tail = Tail::All;
                break;
            }
            let place = usize::from(shape.levels);
            if place >= SHAPE_LEVELS {
                return None;
            }
            if level == "+" {
                shape.plus |= 1 << place;
            } else {
                key = key.wrapping_add(seed.level(level.as_bytes(), 0, level.len(), place));
            }
            shape.levels += 1;
        }
        let tail = u64::from(shape.tail == Tail::All) << 40;
        shape.salt = seed.pair(u64::from(shape.plus), u64::from(shape.levels) | tail);
        Some((shape, key.wrapping_add(shape.salt)))
    }

    /// Whether it can match a topic of so many levels, counted up to one more than it may have itself.
    pub(super) fn fits(&self, levels: usize, parent_matches: bool) -> bool {
        let own = usize::from(self.levels);
        match self.tail {
            Tail::End => levels == own,
            Tail::All => levels > own || parent_matches && levels == own,
        }
    }

    /// Whether reserved topics are out of its sight.
    pub(super) fn begins_with_wildcard(&self) -> bool {
        self.plus & 1 == 1 || self.levels == 0
    }
}

const SLASHES: u64 = u64::from_ne_bytes([b'/'; 8]);

/// A word with the highest bit of each byte set that is zero in this one, and no other bit.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
    !(((word & LOW) + LOW) | word | LOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_topics_apart() {
        let seed = Seed::default();
        for topic in [
            "a",
            "",
            "/",
            "a/b",
            "1234567/9",
            "12345678/0",
            "//a//",
            "é/ü/日本語/x/y/z/1/2/3",
        ] {
            let mut levels = Levels::empty();
            levels.fill(topic.as_bytes(), &seed);
            let texts: Vec<_> = topic.split('/').collect();
            assert_eq!(levels.count, texts.len(), "{topic}");
            let mut end = 0;
            for (place, text) in texts.iter().enumerate() {
                end += text.len() + usize::from(place > 0);
                assert_eq!(levels.ends[place] as usize, end, "{topic}");
                let key = seed.level(text.as_bytes(), 0, text.len(), place);
                assert_eq!(levels.key(place), Some(key));
            }
        }
    }

    #[test]
    fn stops_behind_the_levels_it_needs() {
        let topic = "/".repeat(60_000);
        let mut levels = Levels::empty();
        levels.fill(topic.as_bytes(), &Seed::default());
        assert_eq!(levels.count, SHAPE_LEVELS + 1);
    }
}
