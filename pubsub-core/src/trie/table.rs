//! A hash table from 64-bit keys to things, which lie side by side in an order of their own.
//!
//! Six places make a group of 32 bytes. Its head has a byte of the key for each place, and how many things
//! belong there or before and had to go on to a later group. So one word says where to look and, nearly
//! always, that there is nothing to be looked at; and what is found costs two cache lines, the group's and
//! its own. No step waits for a guess about the one before.
//!
//! What goes leaves a hole for what comes next and takes its marks along, so there are no graves, and nothing
//! else moves. When the table shrinks and half are holes, the rest moves together.

/// How many places a group has.
const PLACES: usize = 6;
/// At most three of four places are used: the fewer, the less often a search goes on to the next group.
const LOAD: (usize, usize) = (3, 4);
/// A number has so many bits.
pub(super) const NUMBER_BITS: u32 = 30;

const ONES: u64 = 0x0000_ffff_ffff_ffff / 0xff;
const HIGHEST: u64 = ONES << 7;
/// One in the highest two bytes: how many went on from here.
const PASSED: u64 = 1 << 48;
/// From here on a head has counted as far as it can.
const FULL: u64 = 0xffff * PASSED;

#[derive(Clone, Debug)]
pub(super) struct Table<T> {
    /// As many as a power of two, or none.
    groups: Vec<Group>,
    things: Vec<Option<T>>,
    /// The numbers of the holes in `things`.
    holes: Vec<u32>,
}

/// Aligned, lest it lies in two cache lines.
#[derive(Clone, Debug, Default)]
#[repr(align(32))]
struct Group {
    /// The tag of each place from the lowest byte on, 0 if it is free, and in the highest two bytes what
    /// went on.
    head: u64,
    /// The number of the thing in each place. Of a free one it says nothing.
    numbers: [u32; PLACES],
}

impl<T> Table<T> {
    pub(super) fn len(&self) -> usize {
        self.things.len() - self.holes.len()
    }

    /// The number of the first thing under this key that is the right one, and the thing.
    #[inline]
    pub(super) fn find(&self, key: u64, mut is_right: impl FnMut(&T) -> bool) -> Option<(u32, &T)> {
        let mask = self.groups.len().wrapping_sub(1);
        let home = key as usize & mask;
        let mut group = home;
        loop {
            let Group { head, ref numbers } = *self.groups.get(group)?;
            // A mistake costs a comparison.
            let mut hits = may_be_zero(head ^ tags_of(key));
            while hits != 0 {
                let number = *numbers.get(place_in(hits))?;
                if let Some(thing) = self.get(number)
                    && is_right(thing)
                {
                    return Some((number, thing));
                }
                hits &= hits - 1;
            }
            group = (group + 1) & mask;
            if head < PASSED || group == home {
                return None;
            }
        }
    }

    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.things.get(number as usize)?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.things.get_mut(number as usize)?.as_mut()
    }

    /// Adds a thing under a key and returns it; its number is its own until another one goes. `key_of` says
    /// again under which key each was added.
    ///
    /// It is made where it will lie: what is written and then moved, the processor has to wait for.
    ///
    /// # Panics
    /// When the numbers are used up.
    #[inline]
    pub(super) fn insert(
        &mut self,
        key: u64,
        make: impl FnOnce() -> T,
        key_of: impl Fn(&T) -> u64,
    ) -> &mut T {
        if (self.len() + 1) * LOAD.1 > self.groups.len() * PLACES * LOAD.0 {
            self.rebuild((self.groups.len() * 2).max(1), key_of);
        }
        let number = self.holes.pop().unwrap_or_else(|| {
            assert!(self.things.len() < 1 << NUMBER_BITS, "a free number");
            self.things.push(None);
            (self.things.len() - 1) as u32
        });
        place(&mut self.groups, key, number);
        self.things[number as usize].insert(make())
    }

    /// Removes the thing with a number, which was added under this key.
    pub(super) fn remove(
        &mut self,
        key: u64,
        number: u32,
        key_of: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let removed = self.things.get_mut(number as usize)?.take()?;
        self.holes.push(number);
        let mask = self.groups.len() - 1;
        let mut group = key as usize & mask;
        loop {
            let Group { head, numbers } = &mut self.groups[group];
            let mut hits = zero_places(*head ^ tags_of(key));
            while hits != 0 && numbers[place_in(hits)] != number {
                hits &= hits - 1;
            }
            if hits != 0 {
                *head &= !(0xff << (place_in(hits) * 8));
                break;
            }
            // Once there were more than can be counted, it is not known how many are left.
            if *head < FULL {
                *head -= PASSED;
            }
            group = (group + 1) & mask;
        }
        if self.len() == 0 {
            *self = Self::default();
        } else if self.len() * LOAD.1 * 4 < self.groups.len() * PLACES * LOAD.0
            && self.groups.len() > 1
        {
            self.rebuild(self.groups.len() / 2, key_of);
        }
        Some(removed)
    }

    /// Makes so many groups, and leaves no holes if there are many.
    #[cold]
    fn rebuild(&mut self, groups: usize, key_of: impl Fn(&T) -> u64) {
        if self.holes.len() * 2 > self.things.len() {
            self.things.retain(Option::is_some);
            self.things.shrink_to_fit();
            self.holes = Vec::new();
        }
        self.groups = vec![Group::default(); groups];
        for (number, thing) in (0..).zip(&self.things) {
            if let Some(thing) = thing {
                place(&mut self.groups, key_of(thing), number);
            }
        }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            things: Vec::new(),
            holes: Vec::new(),
        }
    }
}

/// Writes a number to the first free place from its home on.
#[inline]
fn place(groups: &mut [Group], key: u64, number: u32) {
    let mask = groups.len() - 1;
    let mut group = key as usize & mask;
    loop {
        let Group { head, numbers } = &mut groups[group];
        let free = zero_places(*head);
        if free != 0 {
            let place = place_in(free);
            *head |= tag_of(key) << (place * 8);
            numbers[place] = number;
            return;
        }
        if *head < FULL {
            *head += PASSED;
        }
        group = (group + 1) & mask;
    }
}

/// The byte of a key by which its place is known, never 0. The home is made of the lowest bits, so this
/// is the highest.
#[inline]
fn tag_of(key: u64) -> u64 {
    (key >> 56).max(1)
}

/// The tag in each place.
#[inline]
fn tags_of(key: u64) -> u64 {
    tag_of(key) * ONES
}

/// The first place that is marked in a word.
#[inline]
fn place_in(marked: u64) -> usize {
    (marked.trailing_zeros() / 8) as usize
}

/// A word with the highest bit of a place's byte set that is zero in this one, and no other bit.
#[inline]
fn zero_places(word: u64) -> u64 {
    const LOW: u64 = HIGHEST - ONES;
    !(((word & LOW) + LOW) | word) & HIGHEST
}

/// The same with fewer instructions, but places above one that is zero may be marked by mistake.
#[inline]
fn may_be_zero(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHEST
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeSet, HashSet};

    /// What every table has to be, whatever was done to it.
    fn check(table: &Table<(u64, u32)>) {
        let used = table.things.iter().flatten().count();
        assert_eq!(used, table.len());
        let mut passed = vec![0_u64; table.groups.len()];
        let mut numbers = HashSet::new();
        for (at, group) in table.groups.iter().enumerate() {
            for place in 0..PLACES {
                let tag = group.head >> (place * 8) & 0xff;
                if tag == 0 {
                    continue;
                }
                let number = group.numbers[place];
                assert!(numbers.insert(number));
                let (key, _) = table.get(number).unwrap();
                assert_eq!(tag, tag_of(*key));
                let mut by = *key as usize & (table.groups.len() - 1);
                while by != at {
                    passed[by] += 1;
                    by = (by + 1) % table.groups.len();
                }
            }
        }
        assert_eq!(numbers.len(), used);
        for (group, passed) in table.groups.iter().zip(passed) {
            let counted = group.head / PASSED;
            assert!(counted == passed || counted == FULL / PASSED);
        }
        let places = table.groups.len() * PLACES;
        assert!(used * 4 <= places * 3);
        assert!(table.groups.len() <= 1 || used * 16 >= places * 3);
        assert!(
            table.things.len() * 4 <= places * 3,
            "there are no more holes than places"
        );
    }

    fn key_of(thing: &(u64, u32)) -> u64 {
        thing.0
    }

    proptest! {
        /// Few keys, so that they collide and go on to later groups, around the end too.
        #[test]
        fn behaves_like_a_set(steps in proptest::collection::vec(
            (0_u8..5, 0_u64..6, 0_u32..40), 0..300))
        {
            let mut table = Table::default();
            let mut model = BTreeSet::new();
            for (step, key, value) in steps {
                // Homes at both ends, and two tags for each.
                let key = (key >> 1).wrapping_sub(1) & 0xffff | (1 + (key & 1)) << 56;
                let thing = (key, value);
                if step > 1 && model.insert(thing) {
                    prop_assert_eq!(*table.insert(key, || thing, key_of), thing);
                } else if step <= 1 && model.remove(&thing) {
                    let (number, _) = table.find(key, |have| *have == thing).unwrap();
                    prop_assert_eq!(table.remove(key, number, key_of), Some(thing));
                }
                let is_there = table.find(key, |have| *have == thing).is_some();
                prop_assert_eq!(is_there, model.contains(&thing));
                check(&table);
            }
            for thing in &model {
                let found = table.find(thing.0, |have| have == thing);
                prop_assert_eq!(found.map(|found| found.1), Some(thing));
            }
        }
    }

    /// As nobody can bring about without knowing the seed: more than a head can count.
    #[test]
    fn keys_that_are_all_the_same_are_kept_apart() {
        let mut table = Table::default();
        for value in 0..1_000 {
            table.insert(7, || (7, value), key_of);
        }
        check(&table);
        assert_eq!(table.find(7, |have| have.1 == 1_000), None);
        for value in 0..1_000 {
            let (number, _) = table.find(7, |have| have.1 == value).unwrap();
            assert_eq!(table.remove(7, number, key_of), Some((7, value)));
            check(&table);
        }
        assert_eq!(table.groups.capacity(), 0);
        assert_eq!(table.things.capacity() + table.holes.capacity(), 0);
    }

    #[test]
    fn a_few_that_are_left_of_many_move_together() {
        let mut table = Table::default();
        let key = |value: u32| u64::from(value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for value in 0..10_000 {
            table.insert(key(value), || (key(value), value), key_of);
        }
        for value in 10..10_000 {
            let (number, _) = table.find(key(value), |have| have.1 == value).unwrap();
            assert!(table.remove(key(value), number, key_of).is_some());
        }
        check(&table);
        assert!(table.things.capacity() + table.groups.capacity() < 100);
        for value in 0..10 {
            assert!(table.find(key(value), |have| have.1 == value).is_some());
        }
    }
}
