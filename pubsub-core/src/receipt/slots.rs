//! What the two ends of a receipt share: a slot, of which many lie in one block, behind one lock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::{Delivered, PublishStage};
use crate::error::{ProviderErrorKind, PublishError};
use crate::provider::Drive;

/// Slots in one allocation.
pub(super) struct Block<S: ?Sized> {
    driver: Option<Arc<dyn Drive>>,
    /// Which of them were delivered, and how: two bits for each. Changed under the lock alone, and once for each. So what is there
    /// is so, also for those who look without the lock; what they miss they find under it, before they begin to wait.
    delivered: AtomicU32,
    slots: Mutex<S>,
}

/// How many there may be in a block.
pub(super) const MAX_PLACES: usize = u32::BITS as usize / 2;

impl<const N: usize> Block<[Slot; N]> {
    pub(super) fn new(driver: Option<Arc<dyn Drive>>, slots: [Slot; N]) -> Self {
        const { assert!(N <= MAX_PLACES) }
        Self {
            driver,
            delivered: AtomicU32::new(0),
            slots: Mutex::new(slots),
        }
    }
}

impl Block<[Slot]> {
    #[inline(always)]
    fn lock(&self) -> MutexGuard<'_, [Slot]> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline(always)]
    fn delivered(&self, place: usize) -> Option<Delivered> {
        match self.delivered.load(Ordering::Acquire) >> (2 * place) & 3 {
            0 => None,
            1 => Some(Delivered::Sent),
            2 => Some(Delivered::ConfirmedWithoutSubscribers),
            _ => Some(Delivered::Confirmed),
        }
    }

    /// It was delivered. Returns whom to wake, without the lock.
    #[inline(always)]
    fn deliver(&self, slots: &mut [Slot], place: usize, delivered: Delivered) -> Option<Waker> {
        let bits = match delivered {
            Delivered::Sent => 1,
            Delivered::ConfirmedWithoutSubscribers => 2,
            Delivered::Confirmed => 3,
        };
        let all = self.delivered.load(Ordering::Relaxed) | bits << (2 * place);
        self.delivered.store(all, Ordering::Release);
        let slot = &mut slots[place];
        slot.stage = PublishStage::Settled;
        slot.waker.take()
    }
}

pub(super) struct Slot {
    stage: PublishStage,
    error: Option<PublishError>,
    waker: Option<Waker>,
    /// The stage that the waker is to be woken at.
    awaits: PublishStage,
    watched: bool,
}

impl Slot {
    pub(super) const NEW: Self = Self {
        stage: PublishStage::Accepted,
        error: None,
        waker: None,
        awaits: PublishStage::Settled,
        watched: true,
    };

    /// Keeps the waker; returns the one before it, to be dropped without the lock: what its destructor does is somebody else's.
    #[must_use]
    fn wait(&mut self, stage: PublishStage, cx: &Context<'_>) -> Option<Waker> {
        self.awaits = stage;
        match &self.waker {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            _ => self.waker.replace(cx.waker().clone()),
        }
    }
}

/// One end's hold on a slot.
pub(super) struct Handle {
    block: Arc<Block<[Slot]>>,
    /// Within the block.
    place: usize,
}

impl Handle {
    #[inline(always)]
    pub(super) fn pair(block: Arc<Block<[Slot]>>, place: usize) -> (Self, Self) {
        let other = Self {
            block: Arc::clone(&block),
            place,
        };
        (other, Self { block, place })
    }

    pub(super) fn stage(&self) -> PublishStage {
        self.block.lock()[self.place].stage
    }

    pub(super) fn is_watched(&self) -> bool {
        self.block.lock()[self.place].watched
    }

    /// Whether it was delivered, and how, as far as it can be seen without waiting for those who tell.
    #[inline(always)]
    pub(super) fn delivered(&self) -> Option<Delivered> {
        self.block.delivered(self.place)
    }

    /// The outcome, once.
    #[inline(never)]
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Result<Delivered, PublishError>> {
        let mut slots = self.block.lock();
        let slot = &slots[self.place];
        let is_first_wait = slot.stage != PublishStage::Settled && slot.waker.is_none();
        if is_first_wait && let Some(driver) = &self.block.driver {
            drop(slots);
            driver.drive(cx);
            slots = self.block.lock();
        }
        if let Some(delivered) = self.delivered() {
            return Poll::Ready(Ok(delivered));
        }
        let slot = &mut slots[self.place];
        if let Some(error) = slot.error.take() {
            return Poll::Ready(Err(error));
        }
        let before = slot.wait(PublishStage::Settled, cx);
        drop(slots);
        drop(before);
        Poll::Pending
    }

    pub(super) fn poll_reached(
        &self,
        stage: PublishStage,
        cx: &Context<'_>,
    ) -> Poll<Result<PublishStage, PublishError>> {
        let mut slots = self.block.lock();
        let slot = &mut slots[self.place];
        if let Some(error) = &slot.error {
            return Poll::Ready(Err(error.clone()));
        }
        if slot.stage >= stage {
            return Poll::Ready(Ok(slot.stage));
        }
        let before = slot.wait(stage, cx);
        drop(slots);
        drop(before);
        Poll::Pending
    }

    /// Nobody waits any more.
    pub(super) fn forget(&self) {
        if self.delivered().is_none() {
            self.forget_unknown();
        }
    }

    #[inline(never)]
    fn forget_unknown(&self) {
        let mut slots = self.block.lock();
        let slot = &mut slots[self.place];
        slot.watched = false;
        // The block may live on.
        let forgotten = (slot.waker.take(), slot.error.take());
        drop(slots);
        drop(forgotten);
    }

    /// Nobody will tell any more.
    #[cold]
    pub(super) fn abandon(self) {
        let closed = ProviderErrorKind::Closed.into();
        self.settle(Err(PublishError::Indeterminate(closed)));
    }

    #[inline]
    pub(super) fn reached(&self, stage: PublishStage) {
        let mut slots = self.block.lock();
        let slot = &mut slots[self.place];
        slot.stage = slot.stage.max(stage);
        // Who waits for the outcome is left alone: being woken costs more than all of the publish.
        if slot.awaits <= slot.stage {
            wake(slot.waker.take(), slots);
        }
    }

    #[inline(always)]
    pub(super) fn settle(self, outcome: Result<Delivered, PublishError>) {
        match outcome {
            Ok(delivered) => {
                let mut slots = self.block.lock();
                let waker = self.block.deliver(&mut slots, self.place, delivered);
                wake(waker, slots);
            }
            Err(error) => self.fail(error),
        }
    }

    #[inline(never)]
    fn fail(self, error: PublishError) {
        let mut slots = self.block.lock();
        let slot = &mut slots[self.place];
        slot.stage = PublishStage::Settled;
        if !slot.watched {
            // Nobody waits, and the block may live on.
            drop(slots);
            return drop(error);
        }
        slot.error = Some(error);
        wake(slot.waker.take(), slots);
    }
}

/// All of these were delivered. Those in a row that lie in one block take its lock once, unless somebody is to be woken in between.
pub(super) fn settle_all(handles: impl Iterator<Item = Handle>, delivered: Delivered) {
    let mut handles = handles.peekable();
    while let Some(Handle { block, place }) = handles.next() {
        let mut slots = block.lock();
        let mut waker = block.deliver(&mut slots, place, delivered);
        while waker.is_none()
            && let Some(neighbour) = handles.next_if(|other| Arc::ptr_eq(&other.block, &block))
        {
            waker = block.deliver(&mut slots, neighbour.place, delivered);
        }
        wake(waker, slots);
    }
}

#[inline(always)]
fn wake(waker: Option<Waker>, slots: MutexGuard<'_, [Slot]>) {
    drop(slots);
    if let Some(waker) = waker {
        waker.wake();
    }
}
