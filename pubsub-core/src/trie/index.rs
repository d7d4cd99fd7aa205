//! Open addressing from 64-bit keys to 32-bit numbers.
//!
//! A slot is 8 bytes: the upper half of the key and the number, so a look-up that finds nothing touches
//! one cache line as a rule, and the table grows without looking at what the numbers stand for. The
//! load stays between an eighth and a half, because most look-ups of wildcard filters find nothing, and
//! short runs are what makes those cheap. Within a run the slots lie in the order of their homes, so what is
//! removed leaves no mark: what follows moves back, up to the first that is at home.

/// Half of a slot: with 32 bits of the key the place in tables of up to 2³² slots follows from the slot.
pub(super) fn tag_of(key: u64) -> u32 {
    (key >> 32) as u32
}

const EMPTY: u64 = 0;
const MIN_SLOTS: usize = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// `tag << 32 | number + 1`, or [`EMPTY`]. As many as a power of two, or none.
    slots: Vec<u64>,
    len: usize,
}

impl Index {
    /// The first number under this key that is the right one.
    #[inline]
    pub(super) fn find(&self, key: u64, mut is_right: impl FnMut(u32) -> bool) -> Option<u32> {
        self.find_map(key, |number| is_right(number).then_some(number))
    }

    /// What the first number under this key stands for that stands for anything.
    #[inline]
    pub(super) fn find_map<R>(
        &self,
        key: u64,
        mut right: impl FnMut(u32) -> Option<R>,
    ) -> Option<R> {
        let tag = tag_of(key);
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = tag as usize & mask;
        loop {
            let slot = *self.slots.get(at)?;
            if slot == EMPTY {
                return None;
            }
            if (slot >> 32) as u32 == tag
                && let Some(found) = right(slot as u32 - 1)
            {
                return Some(found);
            }
            at = (at + 1) & mask;
        }
    }

    /// What the slot holds where a search for this key begins.
    #[inline]
    pub(super) fn home(&self, key: u64) -> u64 {
        let tag = tag_of(key);
        let at = tag as usize & self.slots.len().wrapping_sub(1);
        self.slots.get(at).copied().unwrap_or(EMPTY)
    }

    /// The first number under this key, given what its [home](Self::home) holds.
    #[inline]
    pub(super) fn first(&self, key: u64, home: u64) -> Option<u32> {
        if home == EMPTY {
            return None;
        }
        if (home >> 32) as u32 == tag_of(key) {
            return Some(home as u32 - 1);
        }
        self.find(key, |_| true)
    }

    /// Adds a number under a key. The pair is not there yet.
    pub(super) fn insert(&mut self, key: u64, number: u32) {
        if (self.len + 1) * 2 > self.slots.len() {
            self.resize((self.slots.len() * 2).max(MIN_SLOTS));
        }
        self.len += 1;
        self.place(u64::from(tag_of(key)) << 32 | (u64::from(number) + 1));
    }

    /// Removes a number from under a key; false if it is not there.
    pub(super) fn remove(&mut self, key: u64, number: u32) -> bool {
        let Some(mut hole) = self.slot_of(key, number) else {
            return false;
        };
        let mask = self.slots.len() - 1;
        self.len -= 1;
        loop {
            let next = (hole + 1) & mask;
            let slot = self.slots[next];
            // Mostly so at once, which the processor learns to expect.
            if slot == EMPTY || home_of(slot, mask) == next {
                break;
            }
            self.slots[hole] = slot;
            hole = next;
        }
        self.slots[hole] = EMPTY;
        if self.len * 8 < self.slots.len() && self.slots.len() > MIN_SLOTS {
            self.resize(self.slots.len() / 2);
        }
        true
    }

    /// How many slots there are: a power of two, or none. A tag's home is its remainder by that.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Every tag.
    pub(super) fn tags(&self) -> impl Iterator<Item = u32> {
        let used = self.slots.iter().filter(|slot| **slot != EMPTY);
        used.map(|slot| (slot >> 32) as u32)
    }

    /// The tags of one home.
    pub(super) fn tags_at(&self, home: usize) -> impl Iterator<Item = u32> {
        let (before, from) = self.slots.split_at_checked(home).unwrap_or_default();
        let run = from.iter().chain(before).take_while(|slot| **slot != EMPTY);
        let mask = self.slots.len().wrapping_sub(1);
        run.map(|slot| (slot >> 32) as u32)
            .filter(move |tag| *tag as usize & mask == home)
    }

    fn slot_of(&self, key: u64, number: u32) -> Option<usize> {
        let wanted = u64::from(tag_of(key)) << 32 | (u64::from(number) + 1);
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = tag_of(key) as usize & mask;
        loop {
            match *self.slots.get(at)? {
                EMPTY => return None,
                slot if slot == wanted => return Some(at),
                _ => at = (at + 1) & mask,
            }
        }
    }

    fn place(&mut self, mut slot: u64) {
        let mask = self.slots.len() - 1;
        let mut home = home_of(slot, mask);
        let mut at = home;
        loop {
            let there = self.slots[at];
            if there == EMPTY {
                self.slots[at] = slot;
                return;
            }
            let its_home = home_of(there, mask);
            if (at.wrapping_sub(its_home) & mask) < (at.wrapping_sub(home) & mask) {
                self.slots[at] = slot;
                slot = there;
                home = its_home;
            }
            at = (at + 1) & mask;
        }
    }

    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; slots]);
        for slot in old {
            if slot != EMPTY {
                self.place(slot);
            }
        }
    }
}

/// The place a slot would have if it were alone.
#[inline]
fn home_of(slot: u64, mask: usize) -> usize {
    (slot >> 32) as usize & mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        /// Few keys, so that they collide and runs wrap around.
        #[test]
        fn behaves_like_a_set_of_pairs(steps in proptest::collection::vec(
            (any::<bool>(), 0_u64..6, 0_u32..20), 0..200))
        {
            let mut index = Index::default();
            let mut model = HashSet::new();
            for (insert, key, number) in steps {
                // Homes at the end of the table, where runs wrap.
                let spread = (key.wrapping_sub(3)) << 32;
                if insert && model.insert((spread, number)) {
                    index.insert(spread, number);
                } else if !insert && model.remove(&(spread, number)) {
                    index.remove(spread, number);
                }
                prop_assert_eq!(index.len, model.len());
                prop_assert!(index.len * 2 <= index.slots.len());
                for (key, number) in &model {
                    prop_assert_eq!(index.find(*key, |found| found == *number), Some(*number));
                }
                let used = index.slots.iter().filter(|slot| **slot != EMPTY).count();
                prop_assert_eq!(used, model.len());
                let mask = index.slots.len().wrapping_sub(1);
                let from_home = |at: usize| at.wrapping_sub(home_of(index.slots[at], mask)) & mask;
                for at in (0..index.slots.len()).filter(|at| index.slots[*at] != EMPTY) {
                    let before = at.wrapping_sub(1) & mask;
                    let most = if index.slots[before] == EMPTY { 0 } else { from_home(before) + 1 };
                    prop_assert!(from_home(at) <= most, "in the order of their homes");
                }
            }
        }
    }
}
