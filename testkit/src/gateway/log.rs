//! What happened, for the test to look at and to wait for.

use std::collections::VecDeque;

use tokio::sync::watch;

/// How many attempts, and how many incidents, are remembered; older ones are forgotten first. A test
/// makes a few, a soak over a night some thousands.
pub const MAX_REMEMBERED: usize = 16_384;

#[derive(Debug)]
pub(super) struct Log<T>(watch::Sender<Entries<T>>);

#[derive(Debug)]
struct Entries<T> {
    total: u64,
    kept: VecDeque<T>,
}

impl<T: Clone> Log<T> {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Entries {
            total: 0,
            kept: VecDeque::new(),
        }))
    }

    pub(super) fn add(&self, entry: T) {
        self.0.send_modify(|entries| {
            if entries.kept.len() == MAX_REMEMBERED {
                entries.kept.pop_front();
            }
            entries.kept.push_back(entry);
            entries.total += 1;
        });
    }

    pub(super) fn all(&self) -> Vec<T> {
        self.0.borrow().kept.iter().cloned().collect()
    }

    pub(super) async fn wait_for_total(&self, total: u64) -> Vec<T> {
        let mut entries = self.0.subscribe();
        let seen = entries.wait_for(|entries| entries.total >= total).await;
        let seen = seen.expect("the sender is in self");
        seen.kept.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_entries_are_forgotten_and_still_counted() {
        let log = Log::new();
        for number in 0..=MAX_REMEMBERED {
            log.add(number);
        }
        let kept = log.wait_for_total(MAX_REMEMBERED as u64 + 1).await;
        assert_eq!(kept.len(), MAX_REMEMBERED);
        assert_eq!((kept[0], *kept.last().unwrap()), (1, MAX_REMEMBERED));
        assert_eq!(log.all(), kept);
    }
}
