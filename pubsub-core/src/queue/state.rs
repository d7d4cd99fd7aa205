//! What is under a queue's lock: what waits, and in which order.

use std::collections::{HashMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use super::batch::{Batch, Entry, Notice};
use super::item::{HELD, ITEMS_KEPT, PLAIN, give_back};
use crate::error::{Overflow, SubscriptionError};
use crate::limits::SubscriptionStats;
use crate::provider::{Delivery, Settlement};

/// Notices that wait at most; beyond that the oldest are merged or dropped, and errors of lost filters
/// are bounded by the number of filters anyway.
const MAX_NOTICES: usize = 1_024;
/// How many entries a subscription takes from its queue at a time, but for messages to be confirmed: what a provider hands
/// over in a burst, so that it changes hands as a whole. What was taken out is beyond the reach of the policies, though not
/// of the limits.
pub(super) const LOCAL_BATCH: usize = 256;

/// How many batches may come before a small message that waits no longer keeps its buffer alive. A burst is several, and
/// the subscriber has its turn behind it: what it takes then is not worth copying.
const FRESH_BATCHES: usize = 8;

#[derive(Default)]
pub(super) struct Class {
    /// In order of `seq`.
    pub(super) items: VecDeque<Delivery>,
    pub(super) bytes: usize,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) classes: [Class; 2],
    /// Since when those to be confirmed have waited: the first of each tick of the clock, and the tick.
    pub(super) held_since: VecDeque<(u64, Duration)>,
    /// In order of sequence number.
    pub(super) notices: VecDeque<(u64, Notice)>,
    pub(super) next_seq: u64,
    /// For `LatestPerTopic`: from the hash of a topic to the sequence number of the item that waits.
    pub(super) latest: HashMap<u64, u64>,
    /// Where the last few batches began, whose items may keep much larger buffers alive.
    pub(super) fresh: [u64; FRESH_BATCHES],
    /// Which of them is the oldest.
    pub(super) oldest_fresh: usize,
    /// Items of older batches that got the content of a newer one.
    pub(super) renewed: Vec<u64>,
    /// Providers that may still deliver.
    pub(super) providers: usize,
    pub(super) ended: bool,
    /// Since `DropConnection` was asked for and until the gap: what does not fit is postponed, and so is
    /// everything after it, to keep the order.
    pub(super) postponing: bool,
    pub(super) waker: Option<Waker>,
    pub(super) stats: SubscriptionStats,
}

impl State {
    #[inline(always)]
    pub(super) fn push(&mut self, class: usize, mut delivery: Delivery, cost: usize) {
        delivery.place.seq = self.new_seq();
        let class = &mut self.classes[class];
        class.bytes += cost;
        class.items.push_back(delivery);
    }

    /// As [`push`](Self::push), for what is held since `now`.
    pub(super) fn push_held(&mut self, delivery: Delivery, cost: usize, now: Duration) {
        if self.classes[HELD].items.is_empty() {
            self.held_since.clear();
        }
        if self.held_since.back().is_none_or(|(_, at)| *at != now) {
            self.held_since.push_back((self.next_seq, now));
        }
        self.push(HELD, delivery, cost);
    }

    /// How long the oldest of those held has been.
    pub(super) fn oldest_age(&mut self, now: Duration) -> Option<Duration> {
        let oldest = self.classes[HELD].items.front()?.place.seq;
        while self
            .held_since
            .get(1)
            .is_some_and(|(first, _)| *first <= oldest)
        {
            self.held_since.pop_front();
        }
        let (_, since) = self.held_since.front()?;
        Some(now.saturating_sub(*since))
    }

    pub(super) fn new_seq(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    pub(super) fn notify(&mut self, notice: Notice) {
        self.make_room_for_notice();
        let seq = self.new_seq();
        self.notices.push_back((seq, notice));
    }

    /// One message less than there was. Consecutive losses are told as one, at the place of the first
    /// that the subscriber has not heard of.
    pub(super) fn lag(&mut self, seq: u64) {
        let told = self
            .notices
            .iter_mut()
            .rev()
            .find_map(|(_, notice)| match notice {
                Notice::Lagged(count) => Some(count),
                _ => None,
            });
        match told {
            Some(count) => *count += 1,
            None => {
                self.make_room_for_notice();
                let at = self.notices.partition_point(|(other, _)| *other < seq);
                self.notices.insert(at, (seq, Notice::Lagged(1)));
            }
        }
    }

    pub(super) fn make_room_for_notice(&mut self) {
        if self.notices.len() == MAX_NOTICES {
            self.notices.pop_front();
        }
    }

    pub(super) fn release(&mut self, mut delivery: Delivery) {
        if let Some(receipt) = delivery.receipt.take() {
            receipt.settle(Settlement::Released);
        }
        self.lag(delivery.place.seq);
        self.stats.released += 1;
    }

    /// What waits still comes, but is held back no longer: a stream that is over and that nobody reads or drops would keep
    /// what others wait for.
    pub(super) fn end_with(&mut self, overflow: Overflow) {
        self.notify(Notice::Error(SubscriptionError::Overflow(overflow)));
        self.ended = true;
        for held in &mut self.classes[HELD].items {
            drop(held.receipt.take());
        }
    }

    /// What stayed past its batch, and those that followed closely, and uses little of its buffer gets a buffer of its own.
    pub(super) fn copy_out_stale(&mut self) {
        let from = std::mem::replace(&mut self.fresh[self.oldest_fresh], self.next_seq);
        self.oldest_fresh = (self.oldest_fresh + 1) % FRESH_BATCHES;
        let to = self.fresh_from();
        for class in &mut self.classes {
            let first = class.items.partition_point(|item| item.place.seq < from);
            let stale = class.items.range_mut(first..);
            stale
                .take_while(|item| item.place.seq < to)
                .for_each(Delivery::copy_out_if_wasteful);
        }
        for seq in std::mem::take(&mut self.renewed) {
            let class = &mut self.classes[PLAIN];
            if let Some(at) = class.find(seq)
                && let Some(item) = class.items.get_mut(at)
            {
                item.copy_out_if_wasteful();
            }
        }
    }

    pub(super) fn fresh_from(&self) -> u64 {
        self.fresh[self.oldest_fresh]
    }

    /// What a burst took does not stay with an idle queue.
    #[inline]
    pub(super) fn give_back(&mut self) {
        for class in &mut self.classes {
            give_back(&mut class.items);
        }
        if self.latest.is_empty() && self.latest.capacity() > ITEMS_KEPT {
            self.latest = HashMap::new();
        }
    }

    #[inline]
    pub(super) fn has_any(&self) -> bool {
        let [plain, held] = &self.classes;
        !plain.items.is_empty() || !held.items.is_empty() || !self.notices.is_empty()
    }

    /// Whether all that waits is messages at most once, and there is one.
    pub(super) fn is_all_plain(&self) -> bool {
        let [plain, held] = &self.classes;
        self.notices.is_empty() && held.items.is_empty() && !plain.items.is_empty()
    }

    /// Whether what comes first is a message to be confirmed.
    pub(super) fn is_held_next(&self) -> bool {
        let [notice, plain, held] = self.firsts();
        let is_before = |other: Option<u64>| other.is_none_or(|other| held < Some(other));
        held.is_some() && is_before(notice) && is_before(plain)
    }

    /// What comes first, and its sequence number.
    pub(super) fn pop_first(&mut self) -> Option<(u64, Entry)> {
        let firsts @ [notice, plain, _] = self.firsts();
        let first = firsts.into_iter().flatten().min()?;
        if notice == Some(first) {
            return self
                .notices
                .pop_front()
                .map(|(seq, notice)| (seq, Entry::Notice(notice)));
        }
        let class = if plain == Some(first) { PLAIN } else { HELD };
        let item = self.classes[class].pop_front()?;
        Some((first, Entry::Item(item)))
    }

    /// The sequence numbers of the first notice, of the first message at most once, and of the first to be confirmed.
    fn firsts(&self) -> [Option<u64>; 3] {
        let seq_of = |class: &Class| class.items.front().map(|item| item.place.seq);
        let [plain, held] = &self.classes;
        let notice = self.notices.front().map(|(seq, _)| *seq);
        [notice, seq_of(plain), seq_of(held)]
    }
}

impl Class {
    pub(super) fn find(&self, seq: u64) -> Option<usize> {
        self.items
            .binary_search_by_key(&seq, |item| item.place.seq)
            .ok()
    }

    /// Moves the first few into `local`, which is empty; returns how many, and their bytes. All at once where they are that
    /// few, else by moving the fewer of those that go and those that stay.
    pub(super) fn take_batch(&mut self, local: &mut Batch) -> (usize, usize) {
        let staying = self.items.len().saturating_sub(LOCAL_BATCH);
        if staying < LOCAL_BATCH {
            std::mem::swap(&mut self.items, &mut local.items);
            let mut bytes = 0;
            if staying > 0 {
                let rest = local.items.drain(LOCAL_BATCH..);
                self.items.extend(rest.inspect(|item| bytes += item.cost()));
            }
            let taken = std::mem::replace(&mut self.bytes, bytes) - bytes;
            return (local.items.len(), taken);
        }
        let mut bytes = 0;
        local.items.extend(
            self.items
                .drain(..LOCAL_BATCH)
                .inspect(|item| bytes += item.cost()),
        );
        self.bytes -= bytes;
        (LOCAL_BATCH, bytes)
    }

    pub(super) fn pop_front(&mut self) -> Option<Delivery> {
        let item = self.items.pop_front()?;
        self.bytes -= item.cost();
        Some(item)
    }
}
