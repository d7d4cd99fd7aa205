//! What is counted: the CPU time of this thread and its allocations, inside one region only.

use std::sync::OnceLock;

use crate::counting;

/// Runs the measured region of a pass, and keeps what it cost.
#[derive(Debug, Default)]
pub struct Clock {
    pub nanoseconds: u64,
    pub allocations: u64,
    /// The region is passed over: what remains is the preparation, for the counting of instructions.
    pub skip: bool,
}

impl Clock {
    /// Preparation lies outside; the clean-up of what the region leaves behind, too.
    pub fn region<T: Default>(&mut self, work: impl FnOnce() -> T) -> T {
        if self.skip {
            return T::default();
        }
        let own = *OWN_COST.get_or_init(own_cost);
        let before = counting::allocations();
        let start = thread_time();
        let result = work();
        self.nanoseconds = (thread_time() - start).saturating_sub(own);
        self.allocations = counting::allocations() - before;
        result
    }
}

/// What reading the clock costs: a system call of half a microsecond, as much as decoding the eight packets of the
/// stream with the largest. It is taken off every region.
static OWN_COST: OnceLock<u64> = OnceLock::new();

/// The best of many, as the rounds that it is taken off are.
fn own_cost() -> u64 {
    (0..10_000)
        .map(|_| {
            let start = thread_time();
            thread_time() - start
        })
        .min()
        .unwrap_or_default()
}

fn thread_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}
