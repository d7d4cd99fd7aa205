//! When the handles' ringing gets through to the task: at once, or once the thread that rings has nothing else to do.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::{self, ThreadId};

/// Where the task has come up that the handles rang for.
///
/// On a runtime with several threads it is next in line on the thread that rings, as a rule, and nobody else takes it: it
/// comes up when a burst of publishes is over, and writes all of them. But two that wake each other have their way three
/// times in a row there; after that, who is next is for any thread. Then the task comes up on another one, amid the burst. It
/// finds a few publishes, goes to sleep, and is rung for again, some twenty times in a thousand publishes; and each time costs
/// waking a thread and a write. So whoever rings again before anybody has begun to wait rings [late](wake_late).
#[derive(Default)]
pub(super) struct Ringing {
    rung_on: Option<ThreadId>,
    /// The last time it came up on another thread.
    pub(super) is_astray: bool,
    has_waited: bool,
    /// They have rung late, and it has not come up since.
    pub(super) is_late: bool,
}

impl Ringing {
    /// The handles ring. Returns whether they had better do it late.
    pub(super) fn rings(&mut self) -> bool {
        self.rung_on = Some(thread::current().id());
        self.is_late = !std::mem::take(&mut self.has_waited) && self.is_astray;
        self.is_late
    }

    /// Something else has happened, which does not wait for a late ring. Returns whether it would have.
    pub(super) fn is_overtaken(&mut self) -> bool {
        std::mem::take(&mut self.is_late)
    }

    pub(super) fn task_runs(&mut self) {
        self.is_late = false;
        if let Some(thread) = self.rung_on.take() {
            self.is_astray = thread != thread::current().id();
        }
    }

    /// Somebody begins to wait for a receipt.
    pub(super) fn waits(&mut self) {
        self.has_waited = true;
    }
}

/// Wakes the task when this thread of a runtime has nothing else to do, or in the midst of that where it never ends; outside
/// of a runtime, at once.
pub(super) fn wake_late(task: Waker) {
    let late = Waker::from(Arc::new(Late(task)));
    // Polled once, this leaves the waker with the thread.
    let _ = std::pin::pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&late));
}

/// Wakes when it is let go: woken or, by a runtime that goes, dropped. So the task is woken in any case.
struct Late(Waker);

impl Wake for Late {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Late {
    fn drop(&mut self) {
        self.0.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs_elsewhere(ringing: &mut Ringing) {
        thread::scope(|scope| scope.spawn(|| ringing.task_runs()).join()).unwrap();
    }

    #[test]
    fn only_who_rings_again_amid_a_burst_that_has_gone_astray_rings_late() {
        let mut ringing = Ringing::default();
        for _ in 0..2 {
            assert!(!ringing.rings(), "the first time");
            ringing.task_runs();
            assert!(!ringing.rings(), "it came up here");
            runs_elsewhere(&mut ringing);
            assert!(ringing.rings());
            runs_elsewhere(&mut ringing);
            ringing.waits();
            assert!(!ringing.rings(), "another burst");
            runs_elsewhere(&mut ringing);
            assert!(ringing.rings());
            assert!(ringing.is_late);
            ringing.task_runs();
            assert!(!ringing.is_overtaken());
            // Not for what was rung.
            runs_elsewhere(&mut ringing);
        }
    }
}
