//! What is under way, under numbers that only grow, and mostly done in their order.

use std::collections::VecDeque;

/// A map whose keys are put in in their order. Where few are in it, and the first is the one that is looked for, it costs less
/// than a tree; taking one from the middle moves the fewer of those before it and behind it.
#[derive(Debug)]
pub(crate) struct Line<K, V>(VecDeque<(K, V)>);

impl<K: Ord + Copy, V> Line<K, V> {
    /// Puts it behind all others: `key` is greater than every other one.
    pub(crate) fn push(&mut self, key: K, value: V) {
        debug_assert!(self.0.back().is_none_or(|(last, _)| *last < key));
        self.0.push_back((key, value));
    }

    pub(crate) fn first(&self) -> Option<(K, &V)> {
        self.0.front().map(|(key, value)| (*key, value))
    }

    pub(crate) fn get(&self, key: K) -> Option<&V> {
        Some(&self.0.get(self.find(key)?)?.1)
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let at = self.find(key)?;
        Some(&mut self.0.get_mut(at)?.1)
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        Some(self.0.remove(self.find(key)?)?.1)
    }

    fn find(&self, key: K) -> Option<usize> {
        match self.0.front() {
            Some((first, _)) if *first == key => Some(0),
            _ => self.0.binary_search_by_key(&key, |(other, _)| *other).ok(),
        }
    }
}

impl<K, V> Line<K, V> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_all(self) -> impl Iterator<Item = V> {
        self.0.into_iter().map(|(_, value)| value)
    }
}

impl<K, V> Default for Line<K, V> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_holds_what_a_map_would() {
        let (mut line, mut map) = (Line::default(), BTreeMap::new());
        let (mut next, mut random) = (0, 1_u32);
        for _ in 0..10_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (step, key) = (random >> 30, next - (random >> 8) % 40 % (next + 1));
            match step {
                0 => {
                    next += 1 + key % 3;
                    line.push(next, key);
                    map.insert(next, key);
                }
                1 => assert_eq!(line.remove(key), map.remove(&key)),
                _ => {
                    assert_eq!(line.get(key), map.get(&key));
                    assert_eq!(line.get_mut(key), map.get_mut(&key));
                }
            }
            assert_eq!(line.is_empty(), map.is_empty());
            let first = map.first_key_value().map(|(key, value)| (*key, value));
            assert_eq!(line.first(), first);
        }
        assert!(map.len() > 1, "or it was too easy");
        assert!(line.into_all().eq(map.into_values()));
    }
}
