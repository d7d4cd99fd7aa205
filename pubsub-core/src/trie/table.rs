//! Things by 64-bit keys, each in its place as long as it is there.

use super::index::Index;
use super::slab::Slab;

/// An [`Index`] of the numbers in a [`Slab`]. What is found costs two cache lines, a slot's and its own, and a
/// change moves nothing but slots of 8 bytes.
#[derive(Clone, Debug)]
pub(super) struct Table<T> {
    index: Index,
    things: Slab<T>,
}

impl<T> Table<T> {
    pub(super) fn len(&self) -> usize {
        self.things.len()
    }

    /// The number of the first thing under this key that is the right one, and the thing.
    #[inline]
    pub(super) fn find(&self, key: u64, mut is_right: impl FnMut(&T) -> bool) -> Option<(u32, &T)> {
        self.index.find_map(key, |number| {
            let thing = self.things.get(number)?;
            is_right(thing).then_some((number, thing))
        })
    }

    #[inline]
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// All that there is.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.things.iter().map(|(_, thing)| thing)
    }

    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.things.get(number)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.things.get_mut(number)
    }

    /// Adds a thing under a key and returns it; its number is its own until another one goes.
    ///
    /// # Panics
    /// When the numbers are used up.
    #[inline]
    pub(super) fn insert(&mut self, key: u64, thing: T) -> &mut T {
        let (number, thing) = self.things.insert(thing);
        self.index.insert(key, number);
        thing
    }

    /// Removes the thing with a number, which was added under this key. `key_of` says again under which key
    /// each was added.
    pub(super) fn remove(
        &mut self,
        key: u64,
        number: u32,
        key_of: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let removed = self.things.remove(number)?;
        self.index.remove(key, number);
        if self.things.is_mostly_holes() {
            self.things.compact();
            self.index = Index::default();
            for (number, thing) in self.things.iter() {
                self.index.insert(key_of(thing), number);
            }
        }
        Some(removed)
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            index: Index::default(),
            things: Slab::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn key_of(thing: &(u64, u32)) -> u64 {
        thing.0
    }

    proptest! {
        /// Few keys, so that they collide and runs wrap around.
        #[test]
        fn behaves_like_a_set(steps in proptest::collection::vec(
            (0_u8..5, 0_u64..6, 0_u32..40), 0..300))
        {
            let mut table = Table::default();
            let mut model = BTreeSet::new();
            for (step, key, value) in steps {
                let key = key.wrapping_sub(3) << 32;
                let thing = (key, value);
                if step > 1 && model.insert(thing) {
                    prop_assert_eq!(*table.insert(key, thing), thing);
                } else if step <= 1 && model.remove(&thing) {
                    let (number, _) = table.find(key, |have| *have == thing).unwrap();
                    prop_assert_eq!(table.remove(key, number, key_of), Some(thing));
                }
                let is_there = table.find(key, |have| *have == thing).is_some();
                prop_assert_eq!(is_there, model.contains(&thing));
                prop_assert_eq!(table.len(), model.len());
            }
            for thing in &model {
                let found = table.find(thing.0, |have| have == thing);
                prop_assert_eq!(found.map(|found| found.1), Some(thing));
            }
        }
    }

    #[test]
    fn a_few_that_are_left_of_many_move_together() {
        let mut table = Table::default();
        let key = |value: u32| u64::from(value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for value in 0..10_000 {
            table.insert(key(value), (key(value), value));
        }
        for value in 0..9_990 {
            let (number, _) = table.find(key(value), |have| have.1 == value).unwrap();
            assert!(table.remove(key(value), number, key_of).is_some());
        }
        for value in 9_990..10_000 {
            let (number, _) = table.find(key(value), |have| have.1 == value).unwrap();
            assert!(number < 40, "{number} of 10");
        }
    }
}
