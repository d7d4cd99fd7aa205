//! The acknowledgements that subscribers still owe, under the numbers that core knows them by.

use mqtt_session::AckToken;

/// A table of [`AckToken`]s. A number is used again only after it was taken, which each receipt does exactly once.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    slots: Vec<Option<AckToken>>,
    free: Vec<usize>,
}

/// How many numbers an empty table keeps room for: some 10 KiB, and the messages of a burst.
const KEPT: usize = 256;

impl Tokens {
    pub(crate) fn insert(&mut self, token: AckToken) -> u64 {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(token);
                slot
            }
            None => {
                self.slots.push(Some(token));
                self.slots.len() - 1
            }
        };
        slot as u64
    }

    pub(crate) fn take(&mut self, number: u64) -> Option<AckToken> {
        let slot = usize::try_from(number).ok()?;
        let token = self.slots.get_mut(slot)?.take();
        self.free.push(slot);
        if self.is_empty() {
            // One burst must not be paid for during the rest of the provider's life.
            self.slots.clear();
            self.slots.shrink_to(KEPT);
            self.free.clear();
            self.free.shrink_to(KEPT);
        }
        token
    }

    /// Forgets what the tokens stand for, but not that their numbers are in use.
    pub(crate) fn disarm(&mut self) {
        for slot in &mut self.slots {
            *slot = None;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }
}
