//! Things by number, each in its place as long as it is there.

/// A number has so many bits.
pub(super) const NUMBER_BITS: u32 = 30;

#[derive(Clone, Debug)]
pub(super) struct Slab<T> {
    things: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.things.get(number as usize)?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.things.get_mut(number as usize)?.as_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.things.len() - self.free.len()
    }

    /// Adds a thing and returns it with its number.
    ///
    /// # Panics
    /// When the numbers are used up.
    #[inline]
    pub(super) fn insert(&mut self, thing: T) -> (u32, &mut T) {
        let number = self.free.pop().unwrap_or_else(|| {
            let number = self.things.len();
            if number == 0 {
                // Many hold but one, and a vector would begin with four.
                self.things.reserve_exact(1);
            }
            assert!(number < 1 << NUMBER_BITS, "fewer filters than numbers");
            self.things.push(None);
            number as u32
        });
        (number, self.things[number as usize].insert(thing))
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let removed = self.things.get_mut(number as usize)?.take()?;
        self.free.push(number);
        if self.len() == 0 {
            *self = Self::default();
        }
        Some(removed)
    }

    /// Whether three of four places are holes.
    pub(super) fn is_mostly_holes(&self) -> bool {
        self.free.len() * 4 > self.things.len() * 3
    }

    /// Leaves no holes, and gives all things new numbers: from 0 on, in order.
    pub(super) fn compact(&mut self) {
        self.things.retain(Option::is_some);
        self.things.shrink_to_fit();
        self.free = Vec::new();
    }

    /// All that there is, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let things = (0..).zip(&self.things);
        things.filter_map(|(number, thing)| thing.as_ref().map(|thing| (number, thing)))
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            things: Vec::new(),
            free: Vec::new(),
        }
    }
}
