//! Numbers for the levels of filters, so that the tree compares a level's text once for a topic and
//! not once for a node.

use super::hash::Seed;
use super::index::Index;

/// The number of no level.
pub(super) const NO_SYMBOL: u32 = u32::MAX;

#[derive(Clone, Debug, Default)]
pub(super) struct Symbols {
    known: Vec<Symbol>,
    free: Vec<u32>,
    index: Index,
}

/// A level in its place: the same text elsewhere is another symbol.
#[derive(Clone, Debug)]
struct Symbol {
    text: Box<str>,
    place: u32,
    /// How many nodes have it.
    uses: u32,
}

impl Symbols {
    /// The number of a level, [`NO_SYMBOL`] if no node has it.
    #[inline]
    pub(super) fn find(&self, level: &[u8], place: usize, key: u64) -> u32 {
        let is_right = |number| {
            self.known.get(number as usize).is_some_and(|symbol| {
                symbol.place as usize == place && symbol.text.as_bytes() == level
            })
        };
        self.index.find(key, is_right).unwrap_or(NO_SYMBOL)
    }

    /// The level with a number.
    pub(super) fn text(&self, number: u32) -> Option<&str> {
        Some(&self.known.get(number as usize)?.text)
    }

    /// The number of a level for one more node, made if there is none.
    pub(super) fn take(&mut self, level: &str, place: usize, key: u64) -> u32 {
        let found = self.find(level.as_bytes(), place, key);
        if let Some(symbol) = self.known.get_mut(found as usize) {
            symbol.uses += 1;
            return found;
        }
        let symbol = Symbol {
            text: level.into(),
            place: place as u32,
            uses: 1,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.known[number as usize] = symbol;
                number
            }
            None => {
                self.known.push(symbol);
                // There are no more than nodes, and no more of those than fit.
                u32::try_from(self.known.len() - 1).unwrap_or(NO_SYMBOL)
            }
        };
        self.index.insert(key, number);
        number
    }

    /// One node less has it.
    pub(super) fn give_back(&mut self, number: u32, seed: &Seed) {
        let Some(symbol) = self.known.get_mut(number as usize) else {
            return;
        };
        symbol.uses -= 1;
        if symbol.uses == 0 {
            let text = std::mem::take(&mut symbol.text);
            let key = seed.level(text.as_bytes(), 0, text.len(), symbol.place as usize);
            self.index.remove(key, number);
            self.free.push(number);
        }
    }
}
