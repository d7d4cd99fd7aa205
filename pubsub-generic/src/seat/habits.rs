//! Whether whoever waits had better drive: what publishes and messages so far say about the next one.

use std::task::Waker;

use super::News;

/// What the publishes so far say about the next one.
///
/// To drive is worthwhile for one that publishes, waits, and publishes again. Where several publish at a time, each would
/// write its own message, while the task, which runs after them, writes them all at once. So the last few times that
/// the task ran it must have found one publish, and all of them by the same publisher; and now and then it is left to
/// the task, to see whether that still holds. That also gives the other tasks of a runtime their turn, whatever the publisher does.
#[derive(Default)]
pub(super) struct Habit {
    /// How often in a row the task found one publish, and not several.
    alone: u32,
    /// How often others may drive before the task is to look again.
    left: u32,
    /// Who began to wait last.
    publisher: (usize, usize),
}

/// So many times.
pub(super) const ALONE_ENOUGH: u32 = 3;
/// The task's own turn comes once in so many publishes: its hop costs each of them next to nothing then, and a runtime with one
/// thread is kept for a fraction of a millisecond.
pub(super) const DRIVEN_BY_OTHERS: u32 = 32;

impl Habit {
    pub(super) fn taken_up_by_task(&mut self, publishes: usize) {
        match publishes {
            0 => return,
            1 => self.alone = self.alone.saturating_add(1),
            _ => self.alone = 0,
        }
        self.left = DRIVEN_BY_OTHERS;
    }

    pub(super) fn taken_up_by_other(&mut self, publishes: usize) {
        if publishes > 1 {
            self.alone = 0;
        }
    }

    /// Whether whoever begins to wait had better drive.
    pub(super) fn suggests(&mut self, publisher: &Waker) -> bool {
        let publisher = addresses(publisher);
        if std::mem::replace(&mut self.publisher, publisher) != publisher {
            return false;
        }
        if self.alone < ALONE_ENOUGH || self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}

/// The addresses behind a waker, which is not kept by them. Should another have the same by chance, it is taken for this one,
/// and no harm done.
fn addresses(waker: &Waker) -> (usize, usize) {
    let vtable = std::ptr::from_ref(waker.vtable()).addr();
    (waker.data().addr(), vtable)
}

/// Who waits for messages, and what those so far say about the next one.
///
/// To drive is worthwhile for one that is alone to wait, and mostly finds a message when there is news. Where the runtime has
/// several threads it is not: two that are woken for one message may begin at the same time on two of them. There it only goes
/// on with what the task has left for after its turn, having taken what there was: for the task to come back, the runtime would
/// look for work and wake another thread to look for more, once in a hundred messages.
#[derive(Default)]
pub(super) struct Audience {
    /// The work's runtime has one thread.
    pub(super) shares_thread: bool,
    /// How often in a row news were messages, as far as it matters.
    fruitful: u32,
    /// How often a subscriber may drive before the task runs again.
    left: u32,
    /// Who waited last.
    subscriber: (usize, usize),
    /// Whom to wake with the task.
    pub(super) guest: Option<Waker>,
    /// It has been woken, and has not come yet.
    is_called: bool,
}

/// So many times.
pub(super) const FRUITFUL_ENOUGH: u32 = 3;

impl Audience {
    /// The task runs, and so the others of its runtime have their turns; `news` it finds.
    pub(super) fn task_runs(&mut self, news: News) {
        self.left = DRIVEN_BY_OTHERS;
        if std::mem::take(&mut self.is_called) && news == News::Any {
            // The guest was not there before it.
            self.fruitful = 0;
        }
    }

    pub(super) fn delivered_by_task(&mut self, messages: usize) {
        if messages > 0 {
            self.fruitful = self.fruitful.saturating_add(1);
        }
    }

    pub(super) fn delivered_by_guest(&mut self, messages: usize) {
        if messages == 0 {
            self.fruitful = 0;
        }
    }

    /// Whether whoever begins to wait had better drive: be woken with the task or, where there are several threads, go on for it.
    pub(super) fn suggests(&mut self, subscriber: &Waker) -> bool {
        let subscriber = addresses(subscriber);
        self.is_called = false;
        std::mem::replace(&mut self.subscriber, subscriber) == subscriber
            && self.fruitful >= FRUITFUL_ENOUGH
    }

    /// Whether a subscriber may drive once more.
    pub(super) fn takes_turn(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }

    /// Keeps this waker; returns the one before it.
    pub(super) fn admit(&mut self, subscriber: &Waker) -> Option<Waker> {
        match &self.guest {
            Some(guest) if guest.will_wake(subscriber) => None,
            _ => self.guest.replace(subscriber.clone()),
        }
    }

    /// Whom to wake now.
    pub(super) fn call(&mut self) -> Option<Waker> {
        let guest = self.guest.take();
        self.is_called = guest.is_some();
        guest
    }
}
