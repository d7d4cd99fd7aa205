//! An [`Index`] for keys that are mostly not there.
//!
//! A byte for each slot says which of eight classes of keys have their home there. It turns away nearly
//! every key that is missing, and all those bytes fit into a nearer cache than the slots do. They are
//! exact: what is removed leaves none behind.

use super::index::{Index, tag_of};

#[derive(Clone, Debug, Default)]
pub(super) struct Sieve {
    index: Index,
    /// As many as there are slots; a bit for each class of the tags at home there.
    classes: Vec<u8>,
}

/// The class of a tag as a bit. The home is made of the tag's lowest bits, so these are the highest.
fn class_of(tag: u32) -> u8 {
    1 << (tag >> 29)
}

impl Sieve {
    /// The first number under this key that is the right one.
    #[inline]
    pub(super) fn find(&self, key: u64, is_right: impl FnMut(u32) -> bool) -> Option<u32> {
        if !self.lets_pass(key) {
            return None;
        }
        self.index.find(key, is_right)
    }

    /// Whether there is a key of the same home and class, if not this one.
    #[inline]
    pub(super) fn lets_pass(&self, key: u64) -> bool {
        let tag = tag_of(key);
        let classes = self.classes.get(self.home_of(tag));
        classes.is_some_and(|classes| classes & class_of(tag) != 0)
    }

    /// What is behind the sieve, for keys that it lets pass.
    #[inline]
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// Adds a number under a key. The pair is not there yet.
    pub(super) fn insert(&mut self, key: u64, number: u32) {
        self.index.insert(key, number);
        if self.index.slots() == self.classes.len() {
            self.mark(tag_of(key));
        } else {
            self.classify();
        }
    }

    /// Removes a number from under a key; false if it is not there.
    pub(super) fn remove(&mut self, key: u64, number: u32) -> bool {
        if !self.index.remove(key, number) {
            return false;
        }
        if self.index.slots() == self.classes.len() {
            let home = self.home_of(tag_of(key));
            if let Some(classes) = self.classes.get_mut(home) {
                let left = self.index.tags_at(home);
                *classes = left.fold(0, |classes, tag| classes | class_of(tag));
            }
        } else {
            self.classify();
        }
        true
    }

    #[inline]
    fn home_of(&self, tag: u32) -> usize {
        tag as usize & self.classes.len().wrapping_sub(1)
    }

    fn mark(&mut self, tag: u32) {
        let home = self.home_of(tag);
        if let Some(classes) = self.classes.get_mut(home) {
            *classes |= class_of(tag);
        }
    }

    /// All over again, as the homes have changed.
    fn classify(&mut self) {
        self.classes = vec![0; self.index.slots()];
        let mask = self.classes.len().wrapping_sub(1);
        for tag in self.index.tags() {
            if let Some(classes) = self.classes.get_mut(tag as usize & mask) {
                *classes |= class_of(tag);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn finds_all_that_is_there_and_forgets_all_that_was(steps in proptest::collection::vec(
            (any::<bool>(), 0_u64..12, 0_u32..4), 0..200))
        {
            let mut sieve = Sieve::default();
            let mut model = HashSet::new();
            for (insert, key, number) in steps {
                // Few homes, at both ends of the table, each in four classes.
                let key = key << 61 | (key >> 2) << 32 | (key & 1).wrapping_neg() >> 3 << 36;
                if insert && model.insert((key, number)) {
                    sieve.insert(key, number);
                } else if !insert && model.remove(&(key, number)) {
                    sieve.remove(key, number);
                }
                for (key, number) in &model {
                    prop_assert_eq!(sieve.find(*key, |found| found == *number), Some(*number));
                }
                let mut classes = vec![0; sieve.index.slots()];
                for (key, _) in &model {
                    let tag = tag_of(*key);
                    classes[sieve.home_of(tag)] |= class_of(tag);
                }
                prop_assert_eq!(&sieve.classes, &classes);
            }
        }
    }
}
