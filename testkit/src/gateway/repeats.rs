//! Messages that are delivered twice on the test's command.

use std::collections::BTreeSet;

/// Packet identifiers of repeated messages, which the broker knows nothing of: from a range that no
/// broker comes to before it has 61,440 messages in flight.
#[derive(Default)]
pub(super) struct Repeats {
    unacknowledged: BTreeSet<u16>,
    next: u16,
}

impl Repeats {
    /// An identifier that is not in use; none when all 4,096 are.
    pub(super) fn take(&mut self) -> Option<u16> {
        const FIRST: u16 = 0xf000;
        for _ in FIRST..=u16::MAX {
            let id = FIRST | self.next;
            self.next = (self.next + 1) & !FIRST;
            if self.unacknowledged.insert(id) {
                return Some(id);
            }
        }
        None
    }

    /// Whether an acknowledgement was for a repeated message, which is done with.
    pub(super) fn acknowledge(&mut self, id: u16) -> bool {
        self.unacknowledged.remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_of_repeats_are_bounded_and_used_again() {
        let mut repeats = Repeats::default();
        for id in 0xf000..=0xffff_u16 {
            assert_eq!(repeats.take(), Some(id));
        }
        assert_eq!(repeats.take(), None);
        assert!(repeats.acknowledge(0xf123));
        assert!(!repeats.acknowledge(0xf123));
        assert_eq!(repeats.take(), Some(0xf123));
    }
}
