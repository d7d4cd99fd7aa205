//! What became of a published message: a future with stages, and the provider's end of it.

mod slots;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use self::slots::{Block, Handle, Slot};
use crate::error::PublishError;
use crate::provider::Drive;

/// The fate of one published message: a future that resolves when the fate is known.
///
/// The message is on its way from the moment the receipt exists. Dropping the receipt neither cancels
/// nor delays it.
///
/// # Cancel safety
/// Cancel safe: it can be polled, set aside and polled again. It resolves once.
#[must_use = "the receipt tells whether the message was delivered"]
pub struct PublishReceipt(Fate);

enum Fate {
    /// Known from the start: no allocation.
    Known(Result<Delivered, PublishError>),
    Open(Handle),
    Told,
}

impl PublishReceipt {
    /// A receipt whose fate is told later, and the end that tells it. One allocation for both; a provider that makes many
    /// of them has [`Receipts`].
    pub fn pair() -> (PublishSettler, Self) {
        pair(Arc::new(Block::new(None, [Slot::NEW])), 0)
    }

    /// A receipt whose fate is known. No allocation.
    pub fn ready(outcome: Result<Delivered, PublishError>) -> Self {
        Self(Fate::Known(outcome))
    }

    /// How far the message got by now.
    #[must_use]
    pub fn stage(&self) -> PublishStage {
        match &self.0 {
            Fate::Open(slot) => slot.stage(),
            Fate::Known(_) | Fate::Told => PublishStage::Settled,
        }
    }

    /// Waits until the message got at least this far, and tells how far it got.
    ///
    /// # Errors
    /// The message failed before it got there. The receipt itself still resolves to that error.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn reached(&mut self, stage: PublishStage) -> Result<PublishStage, PublishError> {
        std::future::poll_fn(|cx| self.poll_reached(stage, cx)).await
    }

    fn poll_reached(
        &self,
        stage: PublishStage,
        cx: &Context<'_>,
    ) -> Poll<Result<PublishStage, PublishError>> {
        match &self.0 {
            Fate::Known(Err(error)) => Poll::Ready(Err(error.clone())),
            Fate::Known(Ok(_)) | Fate::Told => Poll::Ready(Ok(PublishStage::Settled)),
            Fate::Open(slot) => slot.poll_reached(stage, cx),
        }
    }
}

impl Future for PublishReceipt {
    type Output = Result<Delivered, PublishError>;

    /// # Panics
    /// When polled again after it resolved.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Fate::Open(slot) = &self.0 {
            if let Some(delivered) = slot.delivered() {
                self.0 = Fate::Told;
                return Poll::Ready(Ok(delivered));
            }
            let polled = slot.poll(cx);
            if polled.is_ready() {
                self.0 = Fate::Told;
            }
            return polled;
        }
        match std::mem::replace(&mut self.0, Fate::Told) {
            Fate::Known(outcome) => Poll::Ready(outcome),
            Fate::Open(_) | Fate::Told => panic!("a publish receipt was polled after it resolved"),
        }
    }
}

impl Drop for PublishReceipt {
    #[inline]
    fn drop(&mut self) {
        if let Fate::Open(slot) = &self.0 {
            slot.forget();
        }
    }
}

impl fmt::Debug for PublishReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishReceipt")
            .field("stage", &self.stage())
            .finish_non_exhaustive()
    }
}

/// The provider's end of a [`PublishReceipt`].
///
/// Dropped without [`settle`](Self::settle), it tells that the outcome is indeterminate, with kind
/// [`Closed`](crate::ProviderErrorKind::Closed).
pub struct PublishSettler(Option<Handle>);

impl PublishSettler {
    /// The message got this far. Stages only go forward; an earlier one than the last is ignored.
    pub fn reached(&self, stage: PublishStage) {
        if let Some(slot) = &self.0 {
            slot.reached(stage);
        }
    }

    /// The fate is known.
    #[inline]
    pub fn settle(mut self, outcome: Result<Delivered, PublishError>) {
        if let Some(slot) = self.0.take() {
            slot.settle(outcome);
        }
    }

    /// The fate of all of these is known, and it is the same: they were delivered. The vector is empty afterwards.
    ///
    /// It takes a good deal less than one at a time where their [`Receipts`] were made in a row and settled in that order.
    pub fn settle_all(settlers: &mut Vec<Self>, delivered: Delivered) {
        let slots = settlers
            .drain(..)
            .filter_map(|mut settler| settler.0.take());
        slots::settle_all(slots, delivered);
    }

    /// Whether anybody still holds the receipt.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.0.as_ref().is_some_and(Handle::is_watched)
    }
}

impl Drop for PublishSettler {
    #[inline]
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            slot.abandon();
        }
    }
}

impl fmt::Debug for PublishSettler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishSettler").finish_non_exhaustive()
    }
}

/// Makes [pairs](PublishReceipt::pair) that share allocations, sixteen in each, for a provider that is given one message
/// after another.
///
/// An allocation lasts as long as any of its receipts or settlers: about a kilobyte for one that is kept.
#[derive(Default)]
pub struct Receipts {
    block: Option<Arc<Block<[Slot; BLOCK]>>>,
    /// How many of the block's places are given away.
    used: usize,
    driver: Option<Arc<dyn Drive>>,
}

/// Enough that an allocation costs a message next to nothing. At most [`slots::MAX_PLACES`].
const BLOCK: usize = 16;

impl Receipts {
    /// Nothing is allocated before the first pair.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            block: None,
            used: 0,
            driver: None,
        }
    }

    /// Nor here. Whoever begins to wait for one of these receipts gives this driver a turn first.
    #[must_use]
    pub fn driven_by(driver: Arc<dyn Drive>) -> Self {
        Self {
            driver: Some(driver),
            ..Self::new()
        }
    }

    /// A receipt whose fate is told later, and the end that tells it.
    #[inline]
    pub fn pair(&mut self) -> (PublishSettler, PublishReceipt) {
        let block = match self.block.take() {
            Some(block) => block,
            None => {
                self.used = 0;
                block_of_slots(self.driver.clone())
            }
        };
        let place = self.used;
        self.used += 1;
        if self.used < BLOCK {
            self.block = Some(Arc::clone(&block));
        }
        pair(block, place)
    }
}

#[cold]
fn block_of_slots(driver: Option<Arc<dyn Drive>>) -> Arc<Block<[Slot; BLOCK]>> {
    Arc::new(Block::new(driver, [const { Slot::NEW }; BLOCK]))
}

#[inline(always)]
fn pair(block: Arc<Block<[Slot]>>, place: usize) -> (PublishSettler, PublishReceipt) {
    let (one, other) = Handle::pair(block, place);
    (PublishSettler(Some(one)), PublishReceipt(Fate::Open(other)))
}

impl fmt::Debug for Receipts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipts").finish_non_exhaustive()
    }
}

/// How far a message got. Later stages compare greater; a provider may skip any but the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PublishStage {
    /// The provider took it over.
    Accepted,
    /// It is in durable storage and survives the end of this process.
    Stored,
    /// It was handed to the connection.
    Written,
    /// The other side has it and will not forget it; the last step of an exactly-once delivery is open.
    Received,
    /// The outcome is known.
    Settled,
}

/// What is known about a message that was published. The better of two compares greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Delivered {
    /// It was handed to the connection. At most once there is no more to know.
    Sent,
    /// The other side confirmed it and said that nobody subscribes to its topic.
    ConfirmedWithoutSubscribers,
    /// The other side confirmed it.
    Confirmed,
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;
    use crate::error::{ProviderError, ProviderErrorKind};
    use futures_util::FutureExt as _;

    #[test]
    fn goes_through_its_stages_and_tells_the_outcome_once() {
        let (settler, mut receipt) = PublishReceipt::pair();
        assert_eq!(receipt.stage(), PublishStage::Accepted);
        assert!(
            receipt
                .reached(PublishStage::Written)
                .now_or_never()
                .is_none()
        );
        settler.reached(PublishStage::Received);
        settler.reached(PublishStage::Written);
        let stage = receipt
            .reached(PublishStage::Written)
            .now_or_never()
            .unwrap()
            .unwrap();
        assert_eq!(stage, PublishStage::Received);
        assert!((&mut receipt).now_or_never().is_none());
        settler.settle(Ok(Delivered::Confirmed));
        assert_eq!(
            receipt.now_or_never().unwrap().unwrap(),
            Delivered::Confirmed
        );
    }

    #[test]
    fn is_indeterminate_when_the_provider_forgets_it() {
        let (settler, mut receipt) = PublishReceipt::pair();
        drop(settler);
        let early = receipt
            .reached(PublishStage::Written)
            .now_or_never()
            .unwrap();
        assert!(matches!(early, Err(PublishError::Indeterminate(_))));
        let outcome = receipt.now_or_never().unwrap();
        assert!(matches!(outcome, Err(PublishError::Indeterminate(error))
            if error.kind() == ProviderErrorKind::Closed));
    }

    #[test]
    fn lets_the_provider_know_that_nobody_waits() {
        let (settler, receipt) = PublishReceipt::pair();
        assert!(settler.is_watched());
        drop(receipt);
        assert!(!settler.is_watched());
        settler.settle(Ok(Delivered::Sent));
    }

    #[test]
    fn receipts_of_one_block_know_nothing_of_each_other() {
        let mut receipts = Receipts::new();
        let mut pairs: Vec<_> = (0..3 * BLOCK).map(|_| receipts.pair()).collect();
        drop(receipts);
        // Every third is settled, every third dropped on one side or the other.
        let mut waiting = Vec::new();
        for (at, (settler, receipt)) in pairs.drain(..).enumerate() {
            match at % 3 {
                0 => settler.settle(Ok(Delivered::Sent)),
                1 => drop(settler),
                _ => {
                    waiting.push((settler, receipt));
                    continue;
                }
            }
            let outcome = receipt.now_or_never().unwrap();
            assert_eq!(outcome.is_ok(), at % 3 == 0);
        }
        assert_eq!(waiting.len(), BLOCK);
        for (settler, mut receipt) in waiting {
            assert!((&mut receipt).now_or_never().is_none());
            settler.settle(Ok(Delivered::Confirmed));
            assert_eq!(
                receipt.now_or_never().unwrap().unwrap(),
                Delivered::Confirmed
            );
        }
    }

    #[test]
    fn what_nobody_waits_for_is_not_kept_by_its_neighbours() {
        let kept = Arc::new(std::io::Error::other("kept"));
        let error = || -> PublishError {
            let error = ProviderError::new(ProviderErrorKind::Other).with_source(Arc::clone(&kept));
            PublishError::NotSent(error)
        };
        let mut receipts = Receipts::new();
        let (settler, receipt) = receipts.pair();
        settler.settle(Err(error()));
        drop(receipt);
        let (settler, receipt) = receipts.pair();
        drop(receipt);
        settler.settle(Err(error()));
        assert_eq!(Arc::strong_count(&kept), 1);
    }

    /// Counts how often it is woken, and keeps something until it is gone.
    #[derive(Default)]
    struct Woken<T>(AtomicUsize, T);

    impl<T: Send + Sync + 'static> Wake for Woken<T> {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll_with<T>(receipt: &mut PublishReceipt, woken: &Arc<Woken<T>>) -> bool
    where
        T: Send + Sync + 'static,
    {
        let waker = Waker::from(Arc::clone(woken));
        let polled = receipt.poll_unpin(&mut Context::from_waker(&waker));
        polled.is_ready()
    }

    #[test]
    fn only_the_stage_that_is_awaited_wakes() {
        let (settler, mut receipt) = PublishReceipt::pair();
        let woken = Arc::new(Woken::<()>::default());
        let count = || woken.0.load(Ordering::Relaxed);
        assert!(!poll_with(&mut receipt, &woken));
        settler.reached(PublishStage::Stored);
        assert_eq!(count(), 0, "it awaits the outcome");
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let reached = receipt.poll_reached(PublishStage::Received, &cx);
        assert!(reached.is_pending());
        settler.reached(PublishStage::Written);
        assert_eq!(count(), 0, "not far enough");
        settler.reached(PublishStage::Received);
        assert_eq!(count(), 1);
        let reached = receipt.poll_reached(PublishStage::Received, &cx);
        assert!(reached.is_ready());
        assert!(receipt.poll_unpin(&mut cx).is_pending());
        settler.settle(Ok(Delivered::Confirmed));
        assert_eq!(count(), 2);
        assert!(receipt.poll_unpin(&mut cx).is_ready());
    }

    #[test]
    fn all_at_once_is_as_one_by_one() {
        let mut receipts = Receipts::new();
        let mut others = Receipts::new();
        let (mut settlers, mut waiting) = (Vec::new(), Vec::new());
        // Of two that make them in turns, longer and longer in a row, and one by itself.
        for turn in 0..12 {
            for receipts in [&mut receipts, &mut others] {
                for _ in 0..turn {
                    let (settler, receipt) = receipts.pair();
                    settlers.push(settler);
                    waiting.push(receipt);
                }
            }
            let (settler, receipt) = match turn % 3 {
                0 => PublishReceipt::pair(),
                _ => receipts.pair(),
            };
            settlers.push(settler);
            waiting.push(receipt);
        }
        let woken: Vec<_> = waiting
            .iter_mut()
            .enumerate()
            .map(|(at, receipt)| {
                let woken = Arc::new(Woken::<()>::default());
                assert!(at % 5 > 1 || !poll_with(receipt, &woken));
                woken
            })
            .collect();
        let is_left = |at: usize| !at.is_multiple_of(7);
        let mut places = 0..;
        waiting.retain(|_| places.next().is_some_and(is_left));
        PublishSettler::settle_all(&mut settlers, Delivered::Sent);
        assert!(settlers.is_empty());
        for receipt in waiting {
            assert_eq!(receipt.stage(), PublishStage::Settled);
            assert_eq!(receipt.now_or_never().unwrap().unwrap(), Delivered::Sent);
        }
        for (at, woken) in woken.iter().enumerate() {
            let times = usize::from(at % 5 <= 1 && is_left(at));
            assert_eq!(woken.0.load(Ordering::Relaxed), times, "{at}");
        }
    }

    #[test]
    fn no_wake_is_lost_between_threads() {
        let mut receipts = Receipts::new();
        let (settlers, waiting): (Vec<_>, Vec<_>) = (0..20_000).map(|_| receipts.pair()).unzip();
        let teller = std::thread::spawn(move || {
            let mut batch = Vec::new();
            for settler in settlers {
                batch.push(settler);
                if batch.len() == 23 {
                    PublishSettler::settle_all(&mut batch, Delivered::Confirmed);
                }
            }
            PublishSettler::settle_all(&mut batch, Delivered::Confirmed);
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            for receipt in waiting {
                assert_eq!(receipt.await.unwrap(), Delivered::Confirmed);
            }
        });
        teller.join().unwrap();
    }

    #[test]
    fn a_waker_may_hold_a_neighbour() {
        let mut receipts = Receipts::new();
        let (settler, mut receipt) = receipts.pair();
        let (other, neighbour) = receipts.pair();
        let holder = Arc::new(Woken(AtomicUsize::new(0), Mutex::new(neighbour)));
        assert!(!poll_with(&mut receipt, &holder));
        drop(holder);
        // The waker makes room for another, and takes with it what it held.
        assert!(!poll_with(&mut receipt, &Arc::new(Woken::<()>::default())));
        assert!(!other.is_watched());
        settler.settle(Ok(Delivered::Sent));
        assert!(receipt.now_or_never().unwrap().is_ok());
    }

    /// Settles what it is given when it is driven.
    #[derive(Default)]
    struct Settles(Mutex<Vec<PublishSettler>>, AtomicUsize);

    impl Drive for Settles {
        fn drive(&self, _: &Context<'_>) {
            self.1.fetch_add(1, Ordering::Relaxed);
            for settler in self.0.lock().unwrap().drain(..) {
                settler.settle(Ok(Delivered::Sent));
            }
        }
    }

    #[test]
    fn whoever_begins_to_wait_drives() {
        let driver = Arc::new(Settles::default());
        let driven = || driver.1.load(Ordering::Relaxed);
        let mut receipts = Receipts::driven_by(Arc::clone(&driver) as Arc<_>);
        let (settler, receipt) = receipts.pair();
        driver.0.lock().unwrap().push(settler);
        assert_eq!(driven(), 0, "nobody waits");
        assert!(receipt.now_or_never().unwrap().is_ok());
        assert_eq!(driven(), 1);
        let (settler, mut receipt) = receipts.pair();
        assert!((&mut receipt).now_or_never().is_none());
        assert!((&mut receipt).now_or_never().is_none());
        assert_eq!(driven(), 2, "once for one that waits");
        settler.settle(Ok(Delivered::Confirmed));
        assert!(receipt.now_or_never().unwrap().is_ok());
        let (settler, receipt) = receipts.pair();
        settler.settle(Ok(Delivered::Sent));
        assert!(receipt.now_or_never().unwrap().is_ok());
        assert_eq!(driven(), 2, "not for one that is settled");
    }

    #[test]
    fn results_stay_small() {
        assert!(size_of::<Result<Delivered, PublishError>>() <= 32);
    }
}
