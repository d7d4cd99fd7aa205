//! What is counted: the CPU time of this thread and its allocations, inside one region only.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting.
pub struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

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
        let allocations = ALLOCATIONS.get();
        let start = thread_time();
        let result = work();
        self.nanoseconds = thread_time() - start;
        self.allocations = ALLOCATIONS.get() - allocations;
        result
    }
}

fn thread_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}
