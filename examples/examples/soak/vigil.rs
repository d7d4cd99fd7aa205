//! What is watched from outside: whether anything moves, and how much memory is in use.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// A stream of messages that does not move for this long hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often is looked.
const LOOK: Duration = Duration::from_millis(10);

/// What passes between two looks counts as this at most: when it is longer, this process was kept from running.
const LONGEST_LOOK: Duration = Duration::from_millis(100);

/// How much more memory than after the warm-up may be in use at the end. What the allocator keeps
/// varies by less; over 8,000 cuts a leak of 1 KiB a cut is as much.
const GROWTH_ALLOWED_KIB: u64 = 8 * 1024;

/// Notices when one of several things stops to move.
#[derive(Debug, Default)]
pub(crate) struct Standstill {
    longest_ms: AtomicU64,
}

impl Standstill {
    /// Resolves when one of these, each looked at by itself, has been the same for [`PATIENCE`]. What is
    /// `None` need not move.
    pub(crate) async fn watch<P: PartialEq>(&self, look: impl Fn() -> Vec<Option<P>>) {
        let mut seen: Vec<(Option<P>, Duration)> = Vec::new();
        let mut last = Instant::now();
        loop {
            let passed = last.elapsed().min(LONGEST_LOOK);
            last = Instant::now();
            let state = look();
            if seen.is_empty() {
                seen = state
                    .into_iter()
                    .map(|state| (state, Duration::ZERO))
                    .collect();
            } else {
                for ((known, still), state) in seen.iter_mut().zip(state) {
                    if state.is_none() || *known != state {
                        (*known, *still) = (state, Duration::ZERO);
                    } else {
                        *still += passed;
                    }
                    let ms = u64::try_from(still.as_millis()).unwrap_or(u64::MAX);
                    self.longest_ms.fetch_max(ms, Ordering::Relaxed);
                    if *still > PATIENCE {
                        return;
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The longest time that one of them did not move.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest_ms.load(Ordering::Relaxed))
    }
}

/// The memory of this process, at two moments. `None` where the system does not tell.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// After the warm-up, in KiB.
    pub(crate) warm: Option<u64>,
    /// At the end, in KiB.
    pub(crate) end: Option<u64>,
}

impl Memory {
    pub(crate) fn violation(&self) -> Option<String> {
        let grown = self.end?.saturating_sub(self.warm?);
        (grown > GROWTH_ALLOWED_KIB).then(|| format!("memory has grown by {grown} KiB"))
    }
}

/// The memory of this process that is in use, in KiB.
pub(crate) fn resident_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
