//! A seeded hash of whole texts and of levels in their place.
//!
//! Folded multiplication (as in wyhash and foldhash): few instructions for the short texts that topics
//! are made of. The seed is random, so that nobody can prepare texts that collide; collisions cost time
//! and never a wrong answer, since texts are compared.

use std::hash::{BuildHasher, Hasher, RandomState};

#[derive(Clone, Copy, Debug)]
pub(super) struct Seed([u64; 4]);

impl Default for Seed {
    fn default() -> Self {
        let random = RandomState::new();
        let [a, b] = [1_u64, 2].map(|n| random.hash_one(n));
        // All that was random in it is in these two; two more of it would take as long again.
        let (c, d) = (fold(a ^ MIX[0], b ^ MIX[1]), fold(a ^ MIX[2], b ^ MIX[3]));
        Self([a, b, c, d].map(|word| word | 1))
    }
}

/// Without a pattern: of pi's digits.
const MIX: [u64; 4] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
];

/// The same for the tables of the standard library, whose own hash takes eight times as long for a topic.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TextHash(pub(super) Seed);

impl BuildHasher for TextHash {
    type Hasher = TextHasher;

    fn build_hasher(&self) -> TextHasher {
        TextHasher {
            seed: self.0,
            state: self.0.0[3],
        }
    }
}

pub(crate) struct TextHasher {
    seed: Seed,
    state: u64,
}

impl Hasher for TextHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.state = self.seed.bytes(bytes, self.state);
    }

    fn write_u8(&mut self, byte: u8) {
        self.state = self.seed.pair(self.state, byte.into());
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

impl Seed {
    /// The key of a whole text.
    pub(super) fn text(&self, text: &[u8]) -> u64 {
        self.bytes(text, self.0[2])
    }

    /// The key of the level from `start` to `end` of a text in its place, counted from 0. The bytes around
    /// it are read along where that saves a branch, and do not count.
    #[inline]
    pub(super) fn level(&self, text: &[u8], start: usize, end: usize, place: usize) -> u64 {
        let [s0, s1, _, s3] = self.0;
        let state = s3.wrapping_mul(2 * place as u64 + 1);
        let len = end.wrapping_sub(start);
        if len <= 8 {
            let word = word_at(text, start, len);
            fold(word ^ s1, state.wrapping_add(s0.wrapping_mul(len as u64)))
        } else {
            self.bytes(text.get(start..end).unwrap_or_default(), state)
        }
    }

    /// The key of two numbers.
    #[inline]
    pub(super) fn pair(&self, a: u64, b: u64) -> u64 {
        fold(a ^ self.0[0], b ^ self.0[1])
    }

    #[inline]
    fn bytes(&self, bytes: &[u8], start: u64) -> u64 {
        let [s0, s1, ..] = self.0;
        let len = bytes.len();
        // Spread by a secret factor, lest a difference in the text make up for one in the length.
        let mut state = start.wrapping_add(s0.wrapping_mul(len as u64));
        let mut rest = bytes;
        while let Some((block, after)) = rest.split_first_chunk::<16>()
            && !after.is_empty()
        {
            let (low, high) = halves(block);
            state = fold(low ^ s0, high ^ state);
            rest = after;
        }
        // What is left has at most 16 bytes and is read from both its ends, overlapping.
        let (low, high) = if let (Some(first), Some(last)) =
            (rest.first_chunk::<8>(), rest.last_chunk::<8>())
        {
            (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
        } else if let (Some(first), Some(last)) = (rest.first_chunk::<4>(), rest.last_chunk::<4>())
        {
            (
                u32::from_le_bytes(*first).into(),
                u32::from_le_bytes(*last).into(),
            )
        } else if let [first, .., last] = rest {
            (
                u64::from(*first) << 8 | u64::from(rest[rest.len() / 2]),
                (*last).into(),
            )
        } else {
            (rest.first().map_or(0x100, |only| (*only).into()), 0)
        };
        fold(low ^ s1, high ^ state)
    }
}

/// Up to 8 bytes from `start` on, which lie within the text, as a number.
#[inline]
fn word_at(text: &[u8], start: usize, len: usize) -> u64 {
    let behind = text.get(start..).unwrap_or_default();
    let word = if let Some(word) = behind.first_chunk::<8>() {
        u64::from_le_bytes(*word)
    } else if let Some(last) = text.last_chunk::<8>() {
        let before = 8 - behind.len();
        u64::from_le_bytes(*last)
            .checked_shr(8 * before as u32)
            .unwrap_or(0)
    } else {
        behind
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    word & u64::MAX.checked_shr(64 - 8 * len as u32).unwrap_or(0)
}

#[inline]
fn halves(block: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*block);
    (both as u64, (both >> 64) as u64)
}

/// The two halves of the product, one over the other.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_level_has_one_key_wherever_it_lies() {
        let seed = Seed::default();
        let text: Vec<u8> = (0..60).collect();
        for start in 0..text.len() {
            for end in start..=text.len() {
                let level = &text[start..end];
                let key = seed.level(level, 0, level.len(), 3);
                assert_eq!(seed.level(&text, start, end, 3), key, "{start}..{end}");
                assert_eq!(
                    seed.level(&text[..end], start, end, 3),
                    key,
                    "{start}..{end}"
                );
            }
        }
    }

    #[test]
    fn tells_texts_apart_wherever_they_are_cut() {
        let hash = TextHash(Seed::default());
        let mut seen = HashSet::new();
        let text = "topic/".repeat(12);
        for len in 0..=text.len() {
            assert!(seen.insert(hash.hash_one(&text[..len])), "length {len}");
            assert!(seen.insert(hash.hash_one(text.split_at(len))), "at {len}");
        }
    }

    #[test]
    fn tells_lengths_contents_and_places_apart() {
        let seed = Seed::default();
        let mut seen = HashSet::new();
        let text = [b'a'; 70];
        for len in 0..=text.len() {
            assert!(seen.insert(seed.text(&text[..len])), "length {len}");
            for place in 0..20 {
                assert!(
                    seen.insert(seed.level(&text, 0, len, place)),
                    "length {len} at {place}"
                );
            }
            for at in 0..len {
                let mut other = text;
                other[at] = b'b';
                assert!(
                    seen.insert(seed.text(&other[..len])),
                    "length {len}, byte {at}"
                );
            }
        }
    }
}
