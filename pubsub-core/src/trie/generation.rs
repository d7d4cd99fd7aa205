//! Which set of filters a trie holds, as a number.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that no other trie has or had, but the original of a clone.
#[derive(Debug)]
pub(super) struct Generation {
    now: u64,
    /// How far this trie may count by itself, up to but not including this.
    end: u64,
}

impl Generation {
    /// How many numbers a trie draws at a time, as all have to wait for each other to do so. At a million
    /// changes a second, the numbers last for half a million years; or, drawn in vain, for 2⁴⁴ tries.
    const BLOCK: u64 = 1 << 20;

    pub(super) fn new() -> Self {
        // From the second block on: empty places in a cache have the number 0.
        static LAST: AtomicU64 = AtomicU64::new(0);
        let now = LAST.fetch_add(Self::BLOCK, Relaxed) + Self::BLOCK;
        Self {
            now,
            end: now + Self::BLOCK,
        }
    }

    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    #[inline]
    pub(super) fn advance(&mut self) {
        self.now += 1;
        if self.now >= self.end {
            *self = Self::new();
        }
    }
}

impl Clone for Generation {
    /// The same number, and other ones from then on.
    fn clone(&self) -> Self {
        Self {
            now: self.now,
            end: self.now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same_but_a_clone_and_its_original() {
        let mut one = Generation::new();
        let mut other = one.clone();
        assert_eq!(one.now(), other.now());
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10 {
            one.advance();
            other.advance();
            assert!(seen.insert(one.now()));
            assert!(seen.insert(other.now()));
        }
        one.now = one.end - 1;
        one.advance();
        assert!(seen.insert(one.now()) && one.now() < one.end);
    }
}
