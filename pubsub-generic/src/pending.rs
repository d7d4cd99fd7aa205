//! What is known of the publishes under way, by their identifiers.

use std::collections::{HashMap, VecDeque};

use mqtt_session::PublishId;

/// A table of the publishes that were accepted and are not settled.
///
/// Identifiers grow one by one, and publishes mostly end in the order in which they began. So the table is a window over
/// the identifiers, an array that begins with the oldest. What stays behind while many others come and go moves out into
/// a map, so that the window is never much longer than what is in it.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    /// The identifier of the window's front.
    first: u64,
    window: VecDeque<Option<T>>,
    /// How many places of the window are taken.
    taken: usize,
    left_behind: HashMap<u64, T>,
}

/// The window may be this much longer than twice what is in it.
const SLACK: usize = 64;
/// How many places an empty window keeps room for: some 40 KiB, which a burst need not allocate again.
const KEPT: usize = 1024;

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self {
            first: 0,
            window: VecDeque::new(),
            taken: 0,
            left_behind: HashMap::new(),
        }
    }
}

impl<T> Pending<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.taken == 0 && self.left_behind.is_empty()
    }

    // The usual way is a part of its caller, so that the value is put together where it stays.
    #[inline(always)]
    pub(crate) fn insert(&mut self, id: PublishId, value: T) {
        if self.taken == 0 {
            self.window.clear();
            self.first = id.value();
        }
        if self.place_of(id) != Some(self.window.len()) {
            return self.insert_elsewhere(id, value);
        }
        self.window.push_back(Some(value));
        self.taken += 1;
        if self.window.len() > 2 * self.taken + SLACK {
            self.leave_behind();
        }
    }

    /// Not the next one: of an earlier process, or known already.
    #[cold]
    fn insert_elsewhere(&mut self, id: PublishId, value: T) {
        let place = self.place_of(id);
        match place.and_then(|at| self.window.get_mut(at)) {
            Some(Some(known)) => *known = value,
            _ => drop(self.left_behind.insert(id.value(), value)),
        }
    }

    #[inline(never)]
    fn leave_behind(&mut self) {
        while self.window.len() > 2 * self.taken + SLACK {
            if let Some(Some(old)) = self.window.pop_front() {
                self.left_behind.insert(self.first, old);
                self.taken -= 1;
            }
            self.first += 1;
        }
    }

    pub(crate) fn get(&self, id: PublishId) -> Option<&T> {
        match self.place_of(id).and_then(|at| self.window.get(at)) {
            Some(Some(value)) => Some(value),
            _ => self.left_behind.get(&id.value()),
        }
    }

    pub(crate) fn get_mut(&mut self, id: PublishId) -> Option<&mut T> {
        match self.place_of(id).and_then(|at| self.window.get_mut(at)) {
            Some(Some(value)) => Some(value),
            _ => self.left_behind.get_mut(&id.value()),
        }
    }

    pub(crate) fn remove(&mut self, id: PublishId) -> Option<T> {
        let value = match self.place_of(id) {
            // The usual one.
            Some(0) if !self.window.is_empty() => {
                self.first += 1;
                self.window.pop_front().flatten()
            }
            Some(at) => self.window.get_mut(at).and_then(Option::take),
            None => None,
        };
        let Some(value) = value else {
            return self.left_behind.remove(&id.value());
        };
        self.taken -= 1;
        while let Some(None) = self.window.front() {
            self.window.pop_front();
            self.first += 1;
        }
        if self.taken == 0 && self.window.capacity() > KEPT {
            self.window.shrink_to(KEPT);
        }
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PublishId, &T)> {
        let window = self.window.iter().enumerate().filter_map(|(at, place)| {
            let id = self.first + at as u64;
            place.as_ref().map(|value| (id, value))
        });
        self.left_behind
            .iter()
            .map(|(id, value)| (*id, value))
            .chain(window)
            .map(|(id, value)| (PublishId::from_value(id), value))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let window = self.window.iter_mut().flatten();
        self.left_behind.values_mut().chain(window)
    }

    /// Everything, each with its identifier.
    pub(crate) fn into_all(self) -> impl Iterator<Item = (PublishId, T)> {
        let window = self.window.into_iter().zip(self.first..);
        let window = window.filter_map(|(place, id)| Some((id, place?)));
        let left_behind = self.left_behind.into_iter();
        left_behind
            .chain(window)
            .map(|(id, value)| (PublishId::from_value(id), value))
    }

    fn place_of(&self, id: PublishId) -> Option<usize> {
        usize::try_from(id.value().checked_sub(self.first)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn id(number: u64) -> PublishId {
        PublishId::from_value(number)
    }

    /// Every operation in step with a map, on identifiers that end in all sorts of orders.
    #[test]
    fn it_agrees_with_a_map() {
        let mut pending = Pending::default();
        let mut model = BTreeMap::new();
        let mut random = 1_u64;
        for next in 0..20_000 {
            pending.insert(id(next), next);
            model.insert(next, next);
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let ends = (random >> 60) % 3;
            for end in 0..ends {
                let at = match end {
                    0 => 0,
                    _ => usize::try_from(random >> 33).unwrap() % model.len().max(1),
                };
                let Some((&gone, _)) = model.iter().nth(at.min(model.len() / 2)) else {
                    continue;
                };
                assert_eq!(pending.get(id(gone)), Some(&gone));
                assert_eq!(pending.get_mut(id(gone)), Some(&mut { gone }));
                assert_eq!(pending.remove(id(gone)), model.remove(&gone));
                assert_eq!(pending.remove(id(gone)), None, "twice");
                assert_eq!(pending.get(id(gone)), None);
            }
            assert_eq!(pending.is_empty(), model.is_empty());
            assert!(pending.window.len() <= 2 * pending.taken + SLACK);
        }
        let mut all: Vec<u64> = pending.iter().map(|(id, _)| id.value()).collect();
        all.sort_unstable();
        assert!(all.iter().eq(model.keys()));
        pending.values_mut().for_each(|value| *value += 1);
        let mut all: Vec<_> = pending.into_all().collect();
        all.sort_unstable();
        assert!(
            all.into_iter()
                .eq(model.iter().map(|(&key, value)| (id(key), value + 1)))
        );
    }

    #[test]
    fn one_that_stays_for_ever_does_not_make_the_window_grow() {
        let mut pending = Pending::default();
        pending.insert(id(0), 'a');
        for next in 1..100_000 {
            pending.insert(id(next), 'b');
            assert_eq!(pending.remove(id(next)), Some('b'));
            assert!(pending.window.len() <= 2 * 2 + SLACK);
        }
        assert_eq!(pending.remove(id(0)), Some('a'));
        assert!(pending.is_empty());
    }

    #[test]
    fn another_session_may_begin_anywhere() {
        let mut pending = Pending::default();
        for number in [70, 71, 5, 72, 900] {
            pending.insert(id(number), number);
        }
        for number in [71, 900] {
            pending.insert(id(number), number + 1);
        }
        for number in [900, 5, 72, 70, 71] {
            let again = u64::from(number == 71 || number == 900);
            assert_eq!(pending.remove(id(number)), Some(number + again));
        }
        assert!(pending.is_empty());
        pending.insert(id(0), 0);
        assert_eq!(pending.get(id(0)), Some(&0));
    }
}
