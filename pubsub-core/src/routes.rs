//! What a delivery looks at: which subscription gets which message.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;
use std::vec::Drain;

use crate::filters::Filters;
use crate::interest::Interest;
use crate::matching::MatchingRules;
use crate::message::ProviderName;
use crate::provider::{Delivery, Settlement};
use crate::queue::{Effects, Queue};
use crate::shared_receipt::SharedReceipt;
use crate::topic::{TopicFilter, TopicName};

/// How many retained messages a subscription remembers to have got, so that it is not given them again
/// when another one subscribes to the same filter. Beyond that it may get them again.
const MAX_RETAINED_SEEN: usize = 4_096;
/// A queue's share of a batch keeps room for this many messages between batches: some 2 KiB, so that many
/// idle subscriptions stay cheap.
const PENDING_KEPT: usize = 16;
/// From so many filters on, the topics of a batch are matched together. What their subscriptions take is then more than
/// a near cache holds, and is waited for together, too.
const MANY_FILTERS: usize = 1_024;
/// How many messages are looked at for that at a time. It bounds what is noted before they are handed on: eight
/// bytes for each of them and each of its subscriptions.
const TOGETHER: usize = 64;

/// Who gets what.
pub(crate) struct Routes {
    /// Sinks of another epoch belong to a provider that was replaced or removed.
    pub(crate) epoch: u64,
    interest: Interest,
    slots: Vec<Slot>,
    /// The place to be given away next.
    free: Option<u32>,
    /// Subscriptions to what nobody else wants.
    unmatched: Vec<u32>,
    /// The number of the message being routed, to deliver it once to each.
    stamp: u64,
    /// Filters under which live messages may carry the retain mark.
    pub(crate) marked_as_published: usize,
    pub(crate) now: Duration,
    hasher: RandomState,
    /// Who wants the messages of the run at hand.
    matched: Vec<u32>,
    /// The topic that this is true of still, from one batch to the next: what changes it, or whom a topic is for, forgets this.
    found_for: Option<TopicName>,
    /// The same for some runs that are matched together, each with the number of its run.
    together: Vec<(u32, u32)>,
    /// Who takes part in the batch at hand.
    touched: Vec<u32>,
    pub(crate) unrouted: u64,
}

/// One subscription's place in a router.
struct Slot {
    /// Changes whenever the place is given to another.
    generation: u32,
    /// `None` while free.
    queue: Option<Arc<Queue>>,
    /// While free: the next place that is.
    next_free: Option<u32>,
    filters: Filters,
    stamp: u64,
    /// Whether it takes part in the batch at hand.
    is_touched: bool,
    /// What waits for the end of the batch.
    pending: Vec<Delivery>,
    /// What the queue has asked for in this batch.
    effects: Effects,
    retained_seen: HashSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotKey {
    index: u32,
    generation: u32,
}

impl Slot {
    /// Gives the place free. `None` if it was.
    fn vacate(&mut self, next_free: Option<u32>) -> Option<Arc<Queue>> {
        let queue = self.queue.take()?;
        self.next_free = next_free;
        self.generation = self.generation.wrapping_add(1);
        self.filters = Filters::default();
        self.retained_seen = HashSet::new();
        self.pending = Vec::new();
        Some(queue)
    }
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self {
            epoch: 0,
            interest: Interest::default(),
            slots: Vec::new(),
            free: None,
            unmatched: Vec::new(),
            stamp: 0,
            marked_as_published: 0,
            now: Duration::ZERO,
            hasher: RandomState::new(),
            matched: Vec::new(),
            found_for: None,
            together: Vec::new(),
            touched: Vec::new(),
            unrouted: 0,
        }
    }

    /// Forgets what subscribers got of retained messages: they may lack them now.
    pub(crate) fn forget_retained(&mut self) {
        for slot in &mut self.slots {
            slot.retained_seen.clear();
        }
    }

    pub(crate) fn allocate(&mut self, queue: &Arc<Queue>) -> SlotKey {
        let index = self.free.unwrap_or_else(|| {
            if self.slots.is_empty() {
                // Many have but one, and a vector would begin with four.
                self.slots.reserve_exact(1);
            }
            self.slots.push(Slot {
                generation: 0,
                queue: None,
                next_free: None,
                filters: Filters::default(),
                stamp: 0,
                is_touched: false,
                pending: Vec::new(),
                effects: Effects::default(),
                retained_seen: HashSet::new(),
            });
            // Four thousand million subscriptions would have run out of memory before.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[index as usize];
        slot.queue = Some(Arc::clone(queue));
        self.free = slot.next_free.take();
        SlotKey {
            index,
            generation: slot.generation,
        }
    }

    /// A place for a subscription to what no filter matches.
    pub(crate) fn allocate_unmatched(&mut self, queue: &Arc<Queue>) -> SlotKey {
        let key = self.allocate(queue);
        self.found_for = None;
        self.unmatched.push(key.index);
        key
    }

    /// Takes it off those that want what no filter matches.
    pub(crate) fn remove_unmatched(&mut self, key: SlotKey) {
        if self.slot(key).is_some() {
            self.found_for = None;
            self.unmatched.retain(|index| *index != key.index);
        }
    }

    fn slot(&mut self, key: SlotKey) -> Option<&mut Slot> {
        self.slots
            .get_mut(key.index as usize)
            .filter(|slot| slot.generation == key.generation && slot.queue.is_some())
    }

    pub(crate) fn queue_of(&mut self, key: SlotKey) -> Option<Arc<Queue>> {
        self.slot(key).and_then(|slot| slot.queue.clone())
    }

    pub(crate) fn filters_of(&mut self, key: SlotKey) -> Vec<TopicFilter> {
        self.slot(key)
            .map(|slot| slot.filters.keys().cloned().collect())
            .unwrap_or_default()
    }

    pub(crate) fn add(&mut self, key: SlotKey, filter: &TopicFilter) {
        let Some(slot) = self.slot(key) else { return };
        // A new request means new retained messages.
        slot.retained_seen.clear();
        if slot.filters.insert(filter) {
            self.found_for = None;
            self.interest.add(filter, key.index);
        }
    }

    pub(crate) fn remove(&mut self, key: SlotKey, filter: &TopicFilter) {
        let Some(slot) = self.slot(key) else { return };
        if slot.filters.remove(filter).is_some() {
            self.found_for = None;
            self.interest.remove(filter, key.index);
        }
    }

    pub(crate) fn free_if_empty(&mut self, key: SlotKey) -> Option<Arc<Queue>> {
        if self.unmatched.contains(&key.index) {
            return None;
        }
        let next_free = self.free;
        let slot = self.slot(key).filter(|slot| slot.filters.is_empty())?;
        let queue = slot.vacate(next_free);
        self.free = Some(key.index);
        queue
    }

    /// Frees every place, whatever filters it has; the queues that had them.
    pub(crate) fn free_all(&mut self) -> impl Iterator<Item = Arc<Queue>> {
        self.marked_as_published = 0;
        self.interest.clear();
        self.unmatched.clear();
        self.found_for = None;
        let free = &mut self.free;
        (0..).zip(&mut self.slots).filter_map(|(index, slot)| {
            let queue = slot.vacate(*free)?;
            *free = Some(index);
            Some(queue)
        })
    }

    pub(crate) fn occupied(&self) -> impl Iterator<Item = (SlotKey, &Arc<Queue>)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let key = SlotKey {
                index: u32::try_from(index).ok()?,
                generation: slot.generation,
            };
            slot.queue.as_ref().map(|queue| (key, queue))
        })
    }

    /// The queues of all who have one of these filters or more.
    pub(crate) fn users_of(&self, filters: &[TopicFilter]) -> impl Iterator<Item = &Arc<Queue>> {
        let members = filters.iter().flat_map(|filter| self.interest.of(filter));
        let slots: BTreeSet<u32> = members.copied().collect();
        slots
            .into_iter()
            .filter_map(|index| self.slots.get(index as usize)?.queue.as_ref())
    }

    /// Matches by these rules from now on. `filters` are all that there are.
    pub(crate) fn set_rules<'a, F>(&mut self, rules: MatchingRules, filters: F)
    where
        F: Iterator<Item = &'a TopicFilter>,
    {
        self.interest.set_rules(rules, filters);
        self.found_for = None;
    }

    /// Gives each message to each subscription that wants it, once each, and says what is to be done for them.
    ///
    /// A run of messages on one topic is matched once, and not again where the batch before was on that topic alone.
    #[inline]
    pub(crate) fn route(&mut self, name: &ProviderName, batch: &mut Vec<Delivery>) -> Followed {
        match self.route_whole(name, batch) {
            Some(followed) => followed,
            None => self.route_each(name, batch),
        }
    }

    #[inline(never)]
    fn route_each(&mut self, name: &ProviderName, batch: &mut Vec<Delivery>) -> Followed {
        for delivery in batch.iter_mut() {
            delivery.message.provider = name.clone();
        }
        let mut rest = batch.drain(..);
        let together = self.interest.len() >= MANY_FILTERS;
        while let Some(first) = rest.as_slice().first() {
            if together {
                self.route_together(&mut rest);
            } else {
                self.find(&first.message.topic);
                self.hand_run(&mut rest);
            }
        }
        self.flush()
    }

    /// Hands on the first run of what is left to those that want it.
    #[inline(always)]
    fn hand_run(&mut self, rest: &mut Drain<'_, Delivery>) {
        let Some(first) = rest.as_slice().first() else {
            return;
        };
        let is_retained = first.message.retain && self.marked_as_published == 0;
        let length = run_length(rest.as_slice());
        let run = rest.take(length);
        match self.matched[..] {
            [only] if !is_retained => self.hand_run_to(only, run),
            [] => run.for_each(|_| self.unrouted += 1),
            _ => run.for_each(|delivery| self.share(delivery)),
        }
    }

    /// Hands on the first runs of what is left, matched together. Not part of the way of a batch among few filters.
    #[inline(never)]
    fn route_together(&mut self, rest: &mut Drain<'_, Delivery>) {
        self.found_for = None;
        let deliveries = rest.as_slice();
        let deliveries = deliveries.get(..TOGETHER).unwrap_or(deliveries);
        let mut runs: u32 = 0;
        let in_runs = deliveries
            .chunk_by(|before, message| !before.message.retain && goes_on_with(before, message));
        let firsts = in_runs.filter_map(<[_]>::first);
        let topics = firsts
            .inspect(|_| runs += 1)
            .map(|first| &first.message.topic);
        let stamp = self.stamp + 1;
        let (together, slots) = (&mut self.together, &mut self.slots);
        self.interest
            .for_each_match_batched(topics, |run, members| {
                let stamp = stamp + run as u64;
                for index in members {
                    let slot = &mut slots[*index as usize];
                    if slot.stamp != stamp {
                        slot.stamp = stamp;
                        together.push((run as u32, *index));
                    }
                }
            });
        self.stamp += u64::from(runs);
        let together = std::mem::take(&mut self.together);
        let mut found = together.iter().peekable();
        for run in 0..runs {
            self.matched.clear();
            while let Some((_, index)) = found.next_if(|found| found.0 == run) {
                self.matched.push(*index);
            }
            self.or_unmatched();
            self.hand_run(rest);
        }
        self.together = together;
        self.together.clear();
    }

    /// Gives a batch that is one run for one subscription to it as it is: what a stream on one topic comes to, and a
    /// message by itself.
    #[inline]
    fn route_whole(&mut self, name: &ProviderName, batch: &mut Vec<Delivery>) -> Option<Followed> {
        let first = &batch.first()?.message;
        self.find(&first.topic);
        if self.found_for.is_none() {
            self.found_for = Some(first.topic.clone());
        }
        let [index] = self.matched[..] else {
            return None;
        };
        let slot = &self.slots[index as usize];
        let effects = slot.queue.as_ref()?.take_over(name, batch)?;
        let key = SlotKey {
            index,
            generation: slot.generation,
        };
        Some(Followed {
            first: Some((key, effects)),
            others: Vec::new(),
        })
    }

    /// Finds the subscriptions that want messages on a topic.
    #[inline]
    fn find(&mut self, topic: &TopicName) {
        if !self.found_for.as_ref().is_some_and(|last| last.is(topic)) {
            self.search(topic);
        }
    }

    #[inline(never)]
    fn search(&mut self, topic: &TopicName) {
        self.found_for = None;
        self.stamp += 1;
        let stamp = self.stamp;
        let (matched, slots) = (&mut self.matched, &mut self.slots);
        matched.clear();
        self.interest.for_each_match(topic, |members| {
            for index in members {
                let slot = &mut slots[*index as usize];
                if slot.stamp != stamp {
                    slot.stamp = stamp;
                    matched.push(*index);
                }
            }
        });
        self.or_unmatched();
    }

    /// What nobody wants is for those that want just that.
    #[inline]
    fn or_unmatched(&mut self) {
        if self.matched.is_empty() {
            self.matched.extend_from_slice(&self.unmatched);
        }
    }

    /// Gives one message to all that [`find`](Self::find) has found, but a retained one only to those that have not had it.
    fn share(&mut self, mut delivery: Delivery) {
        if delivery.message.retain && self.marked_as_published == 0 {
            let hash = self.hasher.hash_one(&delivery.message.topic);
            self.found_for = None;
            let slots = &mut self.slots;
            self.matched.retain(|index| {
                let seen = &mut slots[*index as usize].retained_seen;
                seen.len() >= MAX_RETAINED_SEEN && !seen.contains(&hash) || seen.insert(hash)
            });
            if self.matched.is_empty()
                && let Some(receipt) = delivery.receipt.take()
            {
                // Nobody lacks it: they all have it.
                receipt.settle(Settlement::Taken);
            }
        }
        let matched = std::mem::take(&mut self.matched);
        if let Some((last, others)) = matched.split_last() {
            let mut parts = SharedReceipt::split(delivery.receipt.take(), matched.len());
            for index in others {
                let mut copy = Delivery::new(delivery.message.clone());
                copy.receipt = parts.next();
                copy.buffer_len = delivery.buffer_len;
                self.hand_to(*index, copy);
            }
            delivery.receipt = parts.next();
            self.hand_to(*last, delivery);
        }
        self.matched = matched;
    }

    fn hand_to(&mut self, index: u32, delivery: Delivery) {
        self.touch(index).pending.push(delivery);
    }

    /// Gives messages to the only one who wants them, without a stop on the way if none waits for its share.
    #[inline(always)]
    fn hand_run_to(&mut self, index: u32, run: impl Iterator<Item = Delivery>) {
        let now = self.now;
        let slot = self.touch(index);
        match &slot.queue {
            Some(queue) if slot.pending.is_empty() => {
                slot.effects.merge(queue.append(run, now));
            }
            _ => slot.pending.extend(run),
        }
    }

    /// The slot, which takes part in this batch.
    fn touch(&mut self, index: u32) -> &mut Slot {
        let slot = &mut self.slots[index as usize];
        if !slot.is_touched {
            slot.is_touched = true;
            self.touched.push(index);
            if let Some(queue) = &slot.queue {
                queue.begin_batch();
            }
        }
        slot
    }

    /// Ends a batch: gives each subscription what waits of its share. The usual case of one subscription allocates
    /// nothing.
    fn flush(&mut self) -> Followed {
        let mut followed = Followed::default();
        for index in self.touched.drain(..) {
            let slot = &mut self.slots[index as usize];
            slot.is_touched = false;
            let mut effects = std::mem::take(&mut slot.effects);
            if let Some(queue) = &slot.queue {
                let key = SlotKey {
                    index,
                    generation: slot.generation,
                };
                if !slot.pending.is_empty() {
                    effects.merge(queue.append(slot.pending.drain(..), self.now));
                }
                followed.push(key, effects);
            }
            slot.pending.clear();
            slot.pending.shrink_to(PENDING_KEPT);
        }
        followed
    }
}

/// How many messages at the beginning are on one topic, and go the same way. A retained one goes its own.
fn run_length(deliveries: &[Delivery]) -> usize {
    let Some((first, others)) = deliveries.split_first() else {
        return 0;
    };
    if first.message.retain {
        return 1;
    }
    let goes_on = |other: &&Delivery| goes_on_with(first, other);
    1 + others.iter().take_while(goes_on).count()
}

/// Whether a message belongs to the run of one that is not retained.
fn goes_on_with(first: &Delivery, other: &Delivery) -> bool {
    !other.message.retain && other.message.topic.is(&first.message.topic)
}

/// What is to be done for the subscriptions that got something.
#[derive(Default)]
pub(crate) struct Followed {
    pub(crate) first: Option<(SlotKey, Effects)>,
    pub(crate) others: Vec<(SlotKey, Effects)>,
}

impl Followed {
    pub(crate) fn push(&mut self, slot: SlotKey, effects: Effects) {
        match &self.first {
            None => self.first = Some((slot, effects)),
            Some(_) => self.others.push((slot, effects)),
        }
    }
}
