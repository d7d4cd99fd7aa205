//! One allocator for every Packet Identifier.

use std::collections::VecDeque;

use mqtt_codec::PacketId;

/// Identifiers kept back for SUBSCRIBE and UNSUBSCRIBE, so that a full publish window cannot starve them.
///
/// Sixteen packets of control traffic in flight are more than any broker's round trip needs.
pub(crate) const CONTROL_IDS: u16 = 16;
/// The highest identifier that a publish can have.
pub(crate) const LAST_PUBLISH_ID: u16 = u16::MAX - CONTROL_IDS;

/// How many other identifiers are used before a freed one is used again.
///
/// A packet identifier that comes straight back would let a late duplicate of the last PUBACK acknowledge the next message.
const REUSE_DISTANCE: usize = 32;

/// Allocates the identifiers of publishes: small numbers first, each free again only after [`REUSE_DISTANCE`] others.
///
/// Tables indexed by such an identifier are as long as the most that was ever in flight at once plus the reuse
/// distance, never as long as the protocol's limit. Taking and freeing are O(1).
#[derive(Debug, Default)]
pub(crate) struct PublishIds {
    /// The highest identifier ever handed out.
    high_water: u16,
    /// Those at or below the high-water mark that are free, oldest first.
    free: VecDeque<u16>,
}

impl PublishIds {
    /// `None` once all of 1..=[`LAST_PUBLISH_ID`] are in use.
    pub(crate) fn take(&mut self) -> Option<PacketId> {
        let fresh_left = self.high_water < LAST_PUBLISH_ID;
        let id = if self.free.len() > REUSE_DISTANCE || !fresh_left {
            self.free.pop_front()?
        } else {
            self.high_water += 1;
            self.high_water
        };
        PacketId::new(id)
    }

    /// Gives an identifier back. The caller's table of what is in flight makes sure that this happens once.
    pub(crate) fn free(&mut self, id: PacketId) {
        debug_assert!(
            id.value() <= self.high_water,
            "an identifier that was never taken"
        );
        debug_assert!(
            !self.free.contains(&id.value()),
            "an identifier freed twice"
        );
        self.free.push_back(id.value());
    }

    /// Marks an identifier of an earlier process as taken, before anything is sent.
    ///
    /// Returns `false` if it is taken already or is not one that a publish can have.
    pub(crate) fn reserve(&mut self, id: PacketId) -> bool {
        let id = id.value();
        if id > LAST_PUBLISH_ID {
            return false;
        }
        if id > self.high_water {
            self.free.extend(self.high_water + 1..id);
            self.high_water = id;
            return true;
        }
        match self.free.iter().position(|free| *free == id) {
            Some(at) => self.free.remove(at).is_some(),
            None => false,
        }
    }

    pub(crate) fn in_use(&self) -> usize {
        usize::from(self.high_water) - self.free.len()
    }
}

/// The identifiers kept back for SUBSCRIBE and UNSUBSCRIBE.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ControlIds {
    taken: u16,
    next: u16,
}

impl ControlIds {
    /// Round robin, so that the last one freed is the last one used again.
    pub(crate) fn take(&mut self) -> Option<PacketId> {
        for _ in 0..CONTROL_IDS {
            let slot = self.next;
            self.next = (self.next + 1) % CONTROL_IDS;
            if self.taken & (1 << slot) == 0 {
                self.taken |= 1 << slot;
                return PacketId::new(LAST_PUBLISH_ID + 1 + slot);
            }
        }
        None
    }

    pub(crate) fn free(&mut self, id: PacketId) {
        if let Some(slot) = id.value().checked_sub(LAST_PUBLISH_ID + 1) {
            debug_assert!(self.taken & (1 << slot) != 0, "an identifier freed twice");
            self.taken &= !(1 << slot);
        }
    }

    pub(crate) const fn in_use(self) -> u32 {
        self.taken.count_ones()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_identifier_is_handed_out_once_and_then_none() {
        let mut ids = PublishIds::default();
        let mut seen = BTreeSet::new();
        while let Some(id) = ids.take() {
            assert!(seen.insert(id.value()), "{id:?} twice");
        }
        assert_eq!(seen.len(), usize::from(LAST_PUBLISH_ID));
        let mut control = ControlIds::default();
        while let Some(id) = control.take() {
            assert!(seen.insert(id.value()), "{id:?} is a publish's");
        }
        assert_eq!(
            seen.len(),
            65_535,
            "0 is not an identifier, every other number is"
        );
        assert_eq!(control.in_use(), u32::from(CONTROL_IDS));
    }

    #[test]
    fn a_long_life_with_one_message_in_flight_stays_small() {
        let mut ids = PublishIds::default();
        for _ in 0..200_000 {
            let id = ids.take().unwrap();
            ids.free(id);
        }
        assert!(
            usize::from(ids.high_water) <= REUSE_DISTANCE + 1,
            "{}",
            ids.high_water
        );
    }

    #[test]
    fn a_restored_identifier_is_never_handed_out() {
        let mut ids = PublishIds::default();
        assert!(ids.reserve(PacketId::new(7).unwrap()));
        assert!(ids.reserve(PacketId::new(3).unwrap()));
        assert!(!ids.reserve(PacketId::new(3).unwrap()), "twice");
        assert!(
            !ids.reserve(PacketId::new(LAST_PUBLISH_ID + 1).unwrap()),
            "a control identifier"
        );
        for _ in 0..100 {
            let id = ids.take().unwrap().value();
            assert!(id != 7 && id != 3);
        }
        assert_eq!(ids.in_use(), 102);
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(ops in proptest::collection::vec(any::<Option<u8>>(), 0..400)) {
            let mut ids = PublishIds::default();
            let mut model: Vec<u16> = Vec::new();
            let mut peak = 0;
            for op in ops {
                match op {
                    None => {
                        let id = ids.take().unwrap();
                        prop_assert!(!model.contains(&id.value()));
                        model.push(id.value());
                        peak = peak.max(model.len());
                    }
                    Some(pick) if !model.is_empty() => {
                        let id = model.swap_remove(usize::from(pick) % model.len());
                        ids.free(PacketId::new(id).unwrap());
                    }
                    Some(_) => {}
                }
                prop_assert_eq!(ids.in_use(), model.len());
                prop_assert!(usize::from(ids.high_water) <= peak + REUSE_DISTANCE + 1);
            }
        }
    }
}
