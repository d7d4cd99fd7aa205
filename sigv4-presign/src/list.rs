//! A list that needs no allocation while it is short.

/// Up to `INLINE` items in place, more in a `Vec`.
pub(crate) struct List<T> {
    inline: [T; INLINE],
    len: usize,
    /// All of the items, once there are more than fit in place.
    spilled: Vec<T>,
}

/// Enough for the parameters of a signature and a few of the caller's, or for the headers of most requests.
pub(crate) const INLINE: usize = 12;

impl<T: Copy + Default> List<T> {
    pub(crate) fn new() -> Self {
        Self {
            inline: [T::default(); INLINE],
            len: 0,
            spilled: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, item: T) {
        if let Some(slot) = self.inline.get_mut(self.len) {
            *slot = item;
        } else {
            if self.spilled.is_empty() {
                self.spilled.extend_from_slice(&self.inline);
            }
            self.spilled.push(item);
        }
        self.len += 1;
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        self.inline.get(..self.len).unwrap_or(&self.spilled)
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        self.inline.get_mut(..self.len).unwrap_or(&mut self.spilled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_order_across_the_spill() {
        for len in [0, 1, INLINE - 1, INLINE, INLINE + 1, 3 * INLINE] {
            let mut list = List::new();
            for item in 0..len {
                list.push(item);
            }
            let expected: Vec<usize> = (0..len).collect();
            assert_eq!(list.as_slice(), expected);
            assert_eq!(list.as_mut_slice(), expected);
        }
    }
}
