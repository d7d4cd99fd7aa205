//! The queue between the router and one subscription: bounded, ordered, woken once a batch.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::error::{Overflow, SubscriptionError};
use crate::limits::{HoldPolicy, Limits, OverflowPolicy, SubscriptionStats};
use crate::message::{ProviderName, QoS};
use crate::provider::{Delivery, Gap};
use crate::topic::TopicName;

mod batch;
mod item;
mod state;

pub(crate) use batch::{Batch, Entry, Filled, Notice};
pub(crate) use item::Place;
use item::{HELD, PLAIN};
use state::{Class, LOCAL_BATCH, State};

/// What the router has to do after it gave something to a queue.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) waker: Option<Waker>,
    /// The queue takes nothing any more: remove its routes.
    pub(crate) ended: bool,
    pub(crate) drop_connection: bool,
}

pub(crate) struct Queue {
    state: Mutex<State>,
    limits: Limits,
    /// What the subscription took out in a batch and has not yielded yet, all of it at most once.
    local: Local,
    hasher: RandomState,
}

/// Written by the subscription alone, read by the router; a stale value errs by one batch.
#[derive(Default)]
struct Local {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Effects {
    /// Both, the one after the other.
    pub(crate) fn merge(&mut self, later: Self) {
        self.waker = self.waker.take().or(later.waker);
        self.ended |= later.ended;
        self.drop_connection |= later.drop_connection;
    }
}

impl Queue {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            limits,
            local: Local::default(),
            hasher: RandomState::new(),
        })
    }

    /// A batch is about to come: what stayed past the last few and uses little of its buffer gets a buffer of its own.
    pub(crate) fn begin_batch(&self) {
        self.lock().copy_out_stale();
    }

    /// Makes a whole batch the queue, and gives room for the next one in its place: if it is one run of messages at most once,
    /// nothing waits, all of it fits and no policy has a say in it. The messages get the name of their provider on the way.
    /// `None` leaves the batch to [`begin_batch`](Self::begin_batch) and [`append`](Self::append).
    ///
    /// It does not begin a batch itself: what waits is to be confirmed, at most, and comes before this one.
    #[inline]
    pub(crate) fn take_over(
        &self,
        name: &ProviderName,
        batch: &mut Vec<Delivery>,
    ) -> Option<Effects> {
        let mut state = self.lock();
        let limits = &self.limits.queue;
        if state.ended
            || limits.policy == OverflowPolicy::LatestPerTopic
            || !state.classes[PLAIN].items.is_empty()
        {
            return None;
        }
        let (first, others) = batch.split_first_mut()?;
        let mut place = Place {
            seq: state.next_seq,
        };
        // In one pass, since a batch is more than the nearest cache holds.
        let mut enter = |delivery: &mut Delivery| {
            delivery.message.provider = name.clone();
            delivery.place = place;
            place.seq += 1;
            let plain = delivery.message.qos == QoS::AtMostOnce && !delivery.message.retain;
            plain.then(|| delivery.cost())
        };
        let mut bytes = enter(first)?;
        for delivery in others {
            if !delivery.message.topic.is(&first.message.topic) {
                return None;
            }
            bytes = bytes.saturating_add(enter(delivery)?);
        }
        let (queued, queued_bytes) = self.load(&state, PLAIN);
        if queued + batch.len() > limits.messages
            || queued_bytes.saturating_add(bytes) > limits.bytes
        {
            return None;
        }
        state.next_seq = place.seq;
        state.stats.received += batch.len() as u64;
        let class = &mut state.classes[PLAIN];
        class.bytes = bytes;
        if batch.len() == 1
            && let Some(only) = batch.pop()
        {
            // Moved for less than what it comes in.
            class.items.push_back(only);
        } else {
            let room = std::mem::replace(&mut class.items, VecDeque::from(std::mem::take(batch)));
            *batch = Vec::from(room);
        }
        Some(Effects {
            waker: state.waker.take(),
            ..Effects::default()
        })
    }

    /// Takes some of a batch, applies the policies, and says whom to wake.
    pub(crate) fn append(
        &self,
        mut deliveries: impl Iterator<Item = Delivery>,
        now: Duration,
    ) -> Effects {
        let mut state = self.lock();
        let mut effects = Effects::default();
        if state.ended {
            deliveries.for_each(drop);
            effects.ended = true;
            return effects;
        }
        for delivery in deliveries.by_ref() {
            state.stats.received += 1;
            let flow = if delivery.message.qos == QoS::AtMostOnce {
                self.push_plain(&mut state, delivery)
            } else {
                self.push_held(&mut state, delivery, now)
            };
            match flow {
                Flow::Fits => {}
                Flow::DropConnection => effects.drop_connection = true,
                Flow::End(overflow) => {
                    state.end_with(overflow);
                    effects.ended = true;
                    break;
                }
            }
        }
        deliveries.for_each(drop);
        effects.waker = state.waker.take();
        effects
    }

    #[inline(always)]
    fn push_plain(&self, state: &mut State, delivery: Delivery) -> Flow {
        let limits = &self.limits.queue;
        let cost = delivery.cost();
        if limits.policy == OverflowPolicy::LatestPerTopic
            && let Some(at) = self.find_latest(state, &delivery.message.topic)
        {
            self.renew(state, at, delivery, cost);
            return Flow::Fits;
        }
        if !self.has_room(state, PLAIN, cost, limits.messages, limits.bytes)
            && let Some(flow) = self.make_room(state, cost)
        {
            return flow;
        }
        state.push(PLAIN, delivery, cost);
        Flow::Fits
    }

    /// Where the item on this topic waits. If there is none, the next one pushed is noted as the one.
    fn find_latest(&self, state: &mut State, topic: &TopicName) -> Option<usize> {
        let hash = self.hasher.hash_one(topic);
        if let Some(seq) = state.latest.get(&hash).copied()
            && let Some(at) = state.classes[PLAIN].find(seq)
            && let Some(item) = state.classes[PLAIN].items.get(at)
            && item.message.topic == *topic
        {
            return Some(at);
        }
        state.latest.insert(hash, state.next_seq);
        None
    }

    /// Puts a message into the place of an older one on its topic.
    fn renew(&self, state: &mut State, at: usize, delivery: Delivery, cost: usize) {
        let limits = &self.limits.queue;
        let fresh_from = state.fresh_from();
        let class = &mut state.classes[PLAIN];
        if let Some(item) = class.items.get_mut(at) {
            class.bytes += cost;
            class.bytes -= item.cost();
            let place = item.place;
            *item = delivery;
            item.place = place;
            if place.seq < fresh_from && item.is_wasteful() {
                state.renewed.push(place.seq);
            }
        }
        state.stats.dropped += 1;
        // A longer text may have come in place of a shorter one.
        while self.is_over(state, PLAIN, limits.messages, limits.bytes)
            && state.classes[PLAIN].items.len() > 1
        {
            self.drop_oldest_plain(state);
        }
    }

    /// Applies the policy until a message of this cost has room. Otherwise says what became of it.
    #[cold]
    fn make_room(&self, state: &mut State, cost: usize) -> Option<Flow> {
        let limits = &self.limits.queue;
        while !self.has_room(state, PLAIN, cost, limits.messages, limits.bytes) {
            match limits.policy {
                OverflowPolicy::End => return Some(Flow::End(Overflow::QueueFull)),
                OverflowPolicy::DropOldest | OverflowPolicy::LatestPerTopic
                    if !state.classes[PLAIN].items.is_empty() =>
                {
                    self.drop_oldest_plain(state);
                }
                _ => {
                    let seq = state.new_seq();
                    state.lag(seq);
                    state.stats.dropped += 1;
                    return Some(Flow::Fits);
                }
            }
        }
        None
    }

    fn push_held(&self, state: &mut State, mut delivery: Delivery, now: Duration) -> Flow {
        let limits = self.limits.hold;
        let cost = delivery.cost();
        if state.postponing {
            delivery.postpone();
            return Flow::DropConnection;
        }
        while !self.has_room(state, HELD, cost, limits.messages, limits.bytes) {
            match limits.policy {
                HoldPolicy::End => return Flow::End(Overflow::TooManyHeld),
                HoldPolicy::DropConnection if delivery.receipt.is_some() => {
                    state.postponing = true;
                    delivery.postpone();
                    return Flow::DropConnection;
                }
                _ => match state.classes[HELD].pop_front() {
                    Some(oldest) => state.release(oldest),
                    None => {
                        delivery.place.seq = state.new_seq();
                        state.release(delivery);
                        return Flow::Fits;
                    }
                },
            }
        }
        state.push_held(delivery, cost, now);
        Flow::Fits
    }

    fn drop_oldest_plain(&self, state: &mut State) {
        if let Some(oldest) = state.classes[PLAIN].pop_front() {
            if self.limits.queue.policy == OverflowPolicy::LatestPerTopic {
                self.forget_latest(state, &oldest);
            }
            state.lag(oldest.place.seq);
            state.stats.dropped += 1;
        }
    }

    fn forget_latest(&self, state: &mut State, item: &Delivery) {
        let hash = self.hasher.hash_one(&item.message.topic);
        if state.latest.get(&hash) == Some(&item.place.seq) {
            state.latest.remove(&hash);
        }
    }

    /// Whether one more message of this cost keeps the class within its limits. An empty class has room
    /// for any one message.
    fn has_room(
        &self,
        state: &State,
        class: usize,
        cost: usize,
        messages: usize,
        bytes: usize,
    ) -> bool {
        let (queued, queued_bytes) = self.load(state, class);
        queued == 0 || (queued < messages && queued_bytes.saturating_add(cost) <= bytes)
    }

    fn is_over(&self, state: &State, class: usize, messages: usize, bytes: usize) -> bool {
        let (queued, queued_bytes) = self.load(state, class);
        queued > messages || queued_bytes > bytes
    }

    fn load(&self, state: &State, class: usize) -> (usize, usize) {
        let Class { items, bytes } = &state.classes[class];
        match class {
            PLAIN => (
                items.len() + self.local.messages.load(Ordering::Relaxed),
                bytes + self.local.bytes.load(Ordering::Relaxed),
            ),
            _ => (items.len(), *bytes),
        }
    }

    /// Fills the subscription's local batch, once nothing is left in it. Before there is nothing but to wait, `drive` may
    /// bring more. Pending registers the waker.
    ///
    /// A message to be confirmed does not come with a batch: until it is asked for it stays where the limits on holding reach
    /// it, since others wait for its confirmation too.
    pub(crate) fn poll_fill(
        &self,
        cx: &Context<'_>,
        local: &mut Batch,
        drive: impl FnOnce(),
    ) -> Poll<Filled> {
        debug_assert!(local.is_empty());
        let mut state = self.lock();
        if state.has_any() {
            return Poll::Ready(self.fill(&mut state, local));
        }
        if !state.ended {
            // What comes now is seen below, and need not wake.
            let waker = state.waker.take();
            drop(state);
            drop(waker);
            drive();
            state = self.lock();
            if state.has_any() {
                return Poll::Ready(self.fill(&mut state, local));
            }
        }
        state.give_back();
        local.give_back();
        if state.ended {
            return Poll::Ready(Filled::End);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Takes out what comes first, of which there is some.
    fn fill(&self, state: &mut State, local: &mut Batch) -> Filled {
        let (mut messages, mut bytes) = (0, 0);
        if state.is_all_plain() {
            (messages, bytes) = state.classes[PLAIN].take_batch(local);
        } else if state.is_held_next()
            && let Some(held) = state.classes[HELD].pop_front()
        {
            return Filled::Held(held);
        } else {
            while local.len() < LOCAL_BATCH
                && !state.is_held_next()
                && let Some((seq, entry)) = state.pop_first()
            {
                match entry {
                    Entry::Notice(notice) => local.notices.push_back((seq, notice)),
                    Entry::Item(item) => {
                        messages += 1;
                        bytes += item.cost();
                        local.items.push_back(item);
                    }
                }
            }
        }
        if self.limits.queue.policy == OverflowPolicy::LatestPerTopic {
            for item in &local.items {
                self.forget_latest(state, item);
            }
        }
        self.local.messages.store(messages, Ordering::Relaxed);
        self.local.bytes.store(bytes, Ordering::Relaxed);
        Filled::Batch
    }

    /// What comes first in the local batch.
    pub(crate) fn pop(&self, local: &mut Batch) -> Option<Entry> {
        let next = local.pop();
        if let Some(Entry::Item(item)) = &next {
            self.took(item);
        }
        next
    }

    /// An item left the local batch.
    #[inline]
    pub(crate) fn took(&self, item: &Delivery) {
        let Local { messages, bytes } = &self.local;
        // Only the subscription writes these, so a load and a store will do.
        let left = messages.load(Ordering::Relaxed).saturating_sub(1);
        let bytes_left = bytes.load(Ordering::Relaxed).saturating_sub(item.cost());
        messages.store(left, Ordering::Relaxed);
        bytes.store(bytes_left, Ordering::Relaxed);
    }

    pub(crate) fn gap(&self, gap: Gap) -> Option<Waker> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        state.postponing = false;
        state.stats.gaps += 1;
        state.stats.last_gap = Some(gap);
        let end = state.next_seq;
        match state.notices.back_mut() {
            Some((seq, Notice::Gap(last))) if *seq + 1 == end => *last = last.merge(gap),
            _ => state.notify(Notice::Gap(gap)),
        }
        state.waker.take()
    }

    pub(crate) fn error(&self, error: SubscriptionError) -> Option<Waker> {
        let mut state = self.lock();
        if !state.ended {
            state.notify(Notice::Error(error));
        }
        state.waker.take()
    }

    pub(crate) fn provider_joined(&self) {
        self.lock().providers += 1;
    }

    /// A provider will not deliver any more; the stream ends with the last one.
    pub(crate) fn provider_left(&self) -> Option<Waker> {
        let mut state = self.lock();
        state.providers = state.providers.saturating_sub(1);
        if state.providers == 0 {
            state.ended = true;
        }
        state.waker.take()
    }

    /// The subscriber left: nothing that waits will be taken.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.waker = None;
        state.latest = HashMap::new();
        state.notices = VecDeque::new();
        let classes = std::mem::take(&mut state.classes);
        drop(state);
        // Settles receipts, which is foreign code.
        drop(classes);
    }

    /// Applies the hold policy if the oldest held item is older than its limit.
    pub(crate) fn check_age(&self, now: Duration) -> Effects {
        let limits = self.limits.hold;
        let mut state = self.lock();
        let mut effects = Effects::default();
        while !state.ended
            && !state.postponing
            && state.oldest_age(now).is_some_and(|age| age > limits.time)
            && let Some(oldest) = state.classes[HELD].items.front()
        {
            match limits.policy {
                HoldPolicy::End => {
                    state.end_with(Overflow::HeldTooLong);
                    effects.ended = true;
                }
                HoldPolicy::DropConnection if oldest.receipt.is_some() => {
                    state.postponing = true;
                    effects.drop_connection = true;
                    let class = std::mem::take(&mut state.classes[HELD]);
                    for mut item in class.items {
                        item.postpone();
                    }
                }
                _ => {
                    if let Some(oldest) = state.classes[HELD].pop_front() {
                        state.release(oldest);
                    }
                }
            }
        }
        effects.waker = state.waker.take();
        effects
    }

    pub(crate) fn stats(&self) -> SubscriptionStats {
        let state = self.lock();
        let (plain, plain_bytes) = self.load(&state, PLAIN);
        let (held, held_bytes) = self.load(&state, HELD);
        SubscriptionStats {
            queued: plain + held,
            queued_bytes: plain_bytes + held_bytes,
            ..state.stats
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Flow {
    Fits,
    DropConnection,
    End(Overflow),
}
