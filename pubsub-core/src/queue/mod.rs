//! The queue between the router and one subscription: bounded, ordered, woken once a batch.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};

use crate::error::{Overflow, SubscriptionError};
use crate::limits::{HoldPolicy, Limits, OverflowPolicy, SubscriptionStats};
use crate::message::{Message, QoS};
use crate::provider::{Delivery, Gap, Settlement};
use crate::topic::TopicName;

/// A delivery in a queue.
pub(crate) struct Item {
    seq: u64,
    since: Duration,
    cost: usize,
    pub(crate) delivery: Delivery,
}

/// What stands between messages in a queue.
#[derive(Debug)]
pub(crate) enum Notice {
    Gap(Gap),
    Lagged(u64),
    Error(SubscriptionError),
}

#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are items, and a box would cost an allocation a message"
)]
pub(crate) enum Entry {
    Item(Item),
    Notice(Notice),
}

/// What a subscription has taken out and not yielded yet. Both in order of sequence number.
#[derive(Default)]
pub(crate) struct Batch {
    items: VecDeque<Item>,
    notices: VecDeque<(u64, Notice)>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.notices.is_empty()
    }

    /// The next item, unless there is a notice to be looked at.
    #[inline]
    pub(crate) fn pop_item(&mut self) -> Option<Item> {
        if !self.notices.is_empty() {
            return None;
        }
        self.items.pop_front()
    }

    pub(crate) fn pop(&mut self) -> Option<Entry> {
        if let Some((notice, _)) = self.notices.front()
            && self.items.front().is_none_or(|item| *notice < item.seq)
        {
            let (_, notice) = self.notices.pop_front()?;
            return Some(Entry::Notice(notice));
        }
        self.items.pop_front().map(Entry::Item)
    }

    fn give_back(&mut self) {
        give_back(&mut self.items);
        self.notices = VecDeque::new();
    }
}

/// What the router has to do after it gave something to a queue.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) waker: Option<Waker>,
    /// The queue takes nothing any more: remove its routes.
    pub(crate) ended: bool,
    pub(crate) drop_connection: bool,
}

/// What a message costs beyond its topic and payload: its place in the queue and its handles.
const OVERHEAD: usize = 64;
/// Notices that wait at most; beyond that the oldest are merged or dropped, and errors of lost filters
/// are bounded by the number of filters anyway.
const MAX_NOTICES: usize = 1_024;
/// How many messages an empty queue keeps room for: some 10 KiB.
const ITEMS_KEPT: usize = 64;
/// How many entries a subscription takes from its queue at a time: what a provider hands over in a burst, so that it changes
/// hands as a whole. What was taken out is beyond the reach of the policies, though not of the limits.
const LOCAL_BATCH: usize = 256;

/// How many batches may come before a small message that waits no longer keeps its buffer alive. A burst is several, and
/// the subscriber has its turn behind it: what it takes then is not worth copying.
const FRESH_BATCHES: usize = 8;

pub(crate) struct Queue {
    state: Mutex<State>,
    limits: Limits,
    /// What the subscription took out in a batch and has not yielded yet, by class.
    local: [Local; 2],
    hasher: RandomState,
}

/// Written by the subscription alone, read by the router; a stale value errs by one batch.
#[derive(Default)]
struct Local {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

/// Messages at most once.
const PLAIN: usize = 0;
/// Messages to be confirmed.
const HELD: usize = 1;

#[derive(Default)]
struct Class {
    /// In order of `seq`.
    items: VecDeque<Item>,
    bytes: usize,
}

struct State {
    classes: [Class; 2],
    /// In order of sequence number.
    notices: VecDeque<(u64, Notice)>,
    next_seq: u64,
    /// For `LatestPerTopic`: from the hash of a topic to the sequence number of the item that waits.
    latest: HashMap<u64, u64>,
    /// Where the last few batches began, whose items may keep much larger buffers alive.
    fresh: [u64; FRESH_BATCHES],
    /// Which of them is the oldest.
    oldest_fresh: usize,
    /// Items of older batches that got the content of a newer one.
    renewed: Vec<u64>,
    /// Providers that may still deliver.
    providers: usize,
    ended: bool,
    /// Since `DropConnection` was asked for and until the gap: what does not fit is postponed, and so is
    /// everything after it, to keep the order.
    postponing: bool,
    waker: Option<Waker>,
    stats: SubscriptionStats,
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
            state: Mutex::new(State {
                classes: Default::default(),
                notices: VecDeque::new(),
                next_seq: 0,
                latest: HashMap::new(),
                fresh: [0; FRESH_BATCHES],
                oldest_fresh: 0,
                renewed: Vec::new(),
                providers: 0,
                ended: false,
                postponing: false,
                waker: None,
                stats: SubscriptionStats::default(),
            }),
            limits,
            local: Default::default(),
            hasher: RandomState::new(),
        })
    }

    /// A batch is about to come: what stayed past the last few and uses little of its buffer gets a buffer of its own.
    pub(crate) fn begin_batch(&self) {
        self.lock().copy_out_stale();
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
                self.push_plain(&mut state, delivery, now)
            } else {
                self.push_held(&mut state, delivery, now)
            };
            match flow {
                Flow::Fits => {}
                Flow::DropConnection => effects.drop_connection = true,
                Flow::End(overflow) => {
                    state.end_with(SubscriptionError::Overflow(overflow));
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
    fn push_plain(&self, state: &mut State, delivery: Delivery, now: Duration) -> Flow {
        let limits = &self.limits.queue;
        let cost = cost_of(&delivery.message);
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
        state.push(PLAIN, delivery, cost, now);
        Flow::Fits
    }

    /// Where the item on this topic waits. If there is none, the next one pushed is noted as the one.
    fn find_latest(&self, state: &mut State, topic: &TopicName) -> Option<usize> {
        let hash = self.hasher.hash_one(topic);
        if let Some(seq) = state.latest.get(&hash).copied()
            && let Some(at) = state.classes[PLAIN].find(seq)
            && let Some(item) = state.classes[PLAIN].items.get(at)
            && item.delivery.message.topic == *topic
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
            class.bytes -= std::mem::replace(&mut item.cost, cost);
            item.delivery = delivery;
            if item.seq < fresh_from && item.is_wasteful() {
                state.renewed.push(item.seq);
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
        let cost = cost_of(&delivery.message);
        if state.postponing {
            postpone(&mut delivery);
            return Flow::DropConnection;
        }
        while !self.has_room(state, HELD, cost, limits.messages, limits.bytes) {
            match limits.policy {
                HoldPolicy::End => return Flow::End(Overflow::TooManyHeld),
                HoldPolicy::DropConnection if delivery.receipt.is_some() => {
                    state.postponing = true;
                    postpone(&mut delivery);
                    return Flow::DropConnection;
                }
                _ => match state.classes[HELD].pop_front() {
                    Some(oldest) => state.release(oldest.delivery, oldest.seq),
                    None => {
                        let seq = state.new_seq();
                        state.release(delivery, seq);
                        return Flow::Fits;
                    }
                },
            }
        }
        state.push(HELD, delivery, cost, now);
        Flow::Fits
    }

    fn drop_oldest_plain(&self, state: &mut State) {
        if let Some(oldest) = state.classes[PLAIN].pop_front() {
            if self.limits.queue.policy == OverflowPolicy::LatestPerTopic {
                self.forget_latest(state, &oldest);
            }
            state.lag(oldest.seq);
            state.stats.dropped += 1;
        }
    }

    fn forget_latest(&self, state: &mut State, item: &Item) {
        let hash = self.hasher.hash_one(&item.delivery.message.topic);
        if state.latest.get(&hash) == Some(&item.seq) {
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
        let local = &self.local[class];
        (
            state.classes[class].items.len() + local.messages.load(Ordering::Relaxed),
            state.classes[class].bytes + local.bytes.load(Ordering::Relaxed),
        )
    }

    /// Fills the subscription's local batch; pending registers the waker, `None` is the end.
    pub(crate) fn poll_refill(&self, cx: &Context<'_>, local: &mut Batch) -> Poll<Option<()>> {
        debug_assert!(local.is_empty());
        let mut state = self.lock();
        let mut taken = [(0, 0); 2];
        if let Some(class) = state.only_class() {
            taken[class] = state.classes[class].take_batch(local);
        } else {
            while local.items.len() + local.notices.len() < LOCAL_BATCH {
                let Some((seq, entry)) = state.pop_first() else {
                    break;
                };
                match entry {
                    Entry::Notice(notice) => local.notices.push_back((seq, notice)),
                    Entry::Item(item) => {
                        let (messages, bytes) = &mut taken[item.class()];
                        *messages += 1;
                        *bytes += item.cost;
                        local.items.push_back(item);
                    }
                }
            }
        }
        if self.limits.queue.policy == OverflowPolicy::LatestPerTopic {
            for item in &local.items {
                self.forget_latest(&mut state, item);
            }
        }
        for (class, (messages, bytes)) in taken.into_iter().enumerate() {
            self.local[class]
                .messages
                .store(messages, Ordering::Relaxed);
            self.local[class].bytes.store(bytes, Ordering::Relaxed);
        }
        if !local.is_empty() {
            return Poll::Ready(Some(()));
        }
        state.give_back();
        local.give_back();
        if state.ended {
            return Poll::Ready(None);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// An item left the local batch.
    #[inline]
    pub(crate) fn took(&self, item: &Item) {
        let local = &self.local[item.class()];
        // Only the subscription writes these, so a load and a store will do.
        let messages = local.messages.load(Ordering::Relaxed).saturating_sub(1);
        let bytes = local
            .bytes
            .load(Ordering::Relaxed)
            .saturating_sub(item.cost);
        local.messages.store(messages, Ordering::Relaxed);
        local.bytes.store(bytes, Ordering::Relaxed);
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
            && let Some(oldest) = state.classes[HELD].items.front()
            && now.saturating_sub(oldest.since) > limits.time
        {
            match limits.policy {
                HoldPolicy::End => {
                    state.end_with(SubscriptionError::Overflow(Overflow::HeldTooLong));
                    effects.ended = true;
                }
                HoldPolicy::DropConnection if oldest.delivery.receipt.is_some() => {
                    state.postponing = true;
                    effects.drop_connection = true;
                    let class = std::mem::take(&mut state.classes[HELD]);
                    for mut item in class.items {
                        postpone(&mut item.delivery);
                    }
                }
                _ => {
                    if let Some(oldest) = state.classes[HELD].pop_front() {
                        state.release(oldest.delivery, oldest.seq);
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

impl State {
    #[inline(always)]
    fn push(&mut self, class: usize, delivery: Delivery, cost: usize, since: Duration) {
        let seq = self.new_seq();
        let class = &mut self.classes[class];
        class.bytes += cost;
        class.items.push_back(Item {
            seq,
            since,
            cost,
            delivery,
        });
    }

    fn new_seq(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    fn notify(&mut self, notice: Notice) {
        self.make_room_for_notice();
        let seq = self.new_seq();
        self.notices.push_back((seq, notice));
    }

    /// One message less than there was. Consecutive losses are told as one, at the place of the first
    /// that the subscriber has not heard of.
    fn lag(&mut self, seq: u64) {
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

    fn make_room_for_notice(&mut self) {
        if self.notices.len() == MAX_NOTICES {
            self.notices.pop_front();
        }
    }

    fn release(&mut self, mut delivery: Delivery, seq: u64) {
        if let Some(receipt) = delivery.receipt.take() {
            receipt.settle(Settlement::Released);
        }
        self.lag(seq);
        self.stats.released += 1;
    }

    fn end_with(&mut self, error: SubscriptionError) {
        self.notify(Notice::Error(error));
        self.ended = true;
    }

    /// What stayed past its batch, and those that followed closely, and uses little of its buffer gets a buffer of its own.
    fn copy_out_stale(&mut self) {
        let from = std::mem::replace(&mut self.fresh[self.oldest_fresh], self.next_seq);
        self.oldest_fresh = (self.oldest_fresh + 1) % FRESH_BATCHES;
        let to = self.fresh_from();
        for class in &mut self.classes {
            let first = class.items.partition_point(|item| item.seq < from);
            let stale = class.items.range_mut(first..);
            stale
                .take_while(|item| item.seq < to)
                .for_each(Item::copy_out_if_wasteful);
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

    fn fresh_from(&self) -> u64 {
        self.fresh[self.oldest_fresh]
    }

    /// What a burst took does not stay with an idle queue.
    fn give_back(&mut self) {
        for class in &mut self.classes {
            give_back(&mut class.items);
        }
        if self.latest.is_empty() && self.latest.capacity() > ITEMS_KEPT {
            self.latest = HashMap::new();
        }
    }

    /// The class of all that waits, if it is all of one.
    fn only_class(&self) -> Option<usize> {
        if !self.notices.is_empty() {
            return None;
        }
        match &self.classes {
            [plain, held] if held.items.is_empty() && !plain.items.is_empty() => Some(PLAIN),
            [plain, held] if plain.items.is_empty() && !held.items.is_empty() => Some(HELD),
            _ => None,
        }
    }

    /// What comes first, and its sequence number.
    fn pop_first(&mut self) -> Option<(u64, Entry)> {
        let seq_of = |class: &Class| class.items.front().map(|item| item.seq);
        let notice = self.notices.front().map(|(seq, _)| *seq);
        let plain = seq_of(&self.classes[PLAIN]);
        let held = seq_of(&self.classes[HELD]);
        let first = [notice, plain, held].into_iter().flatten().min()?;
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
}

impl Class {
    fn find(&self, seq: u64) -> Option<usize> {
        self.items.binary_search_by_key(&seq, |item| item.seq).ok()
    }

    /// Moves the first few into `local`, which is empty; returns how many, and their bytes.
    fn take_batch(&mut self, local: &mut Batch) -> (usize, usize) {
        if self.items.len() <= LOCAL_BATCH {
            std::mem::swap(&mut self.items, &mut local.items);
            return (local.items.len(), std::mem::take(&mut self.bytes));
        }
        let mut bytes = 0;
        local.items.extend(
            self.items
                .drain(..LOCAL_BATCH)
                .inspect(|item| bytes += item.cost),
        );
        self.bytes -= bytes;
        (LOCAL_BATCH, bytes)
    }

    fn pop_front(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.cost;
        Some(item)
    }
}

impl Item {
    fn class(&self) -> usize {
        if self.delivery.message.qos == QoS::AtMostOnce {
            PLAIN
        } else {
            HELD
        }
    }

    /// Whether topic and payload use less than a quarter of the buffer they keep alive.
    fn is_wasteful(&self) -> bool {
        let used = self.delivery.message.topic.len() + self.delivery.message.payload.len();
        used.saturating_mul(4) < self.delivery.buffer_len
    }

    fn copy_out_if_wasteful(&mut self) {
        if !self.is_wasteful() {
            return;
        }
        let message = &mut self.delivery.message;
        let mut copy = BytesMut::with_capacity(message.topic.len() + message.payload.len());
        copy.put_slice(message.topic.as_bytes());
        let topic = copy.split().freeze();
        copy.put_slice(&message.payload);
        message.topic = message.topic.rehomed(topic);
        message.payload = copy.freeze();
        self.delivery.buffer_len = 0;
    }
}

/// What a burst took does not stay with an idle queue.
fn give_back(items: &mut VecDeque<Item>) {
    if items.is_empty() && items.capacity() > ITEMS_KEPT {
        items.shrink_to(ITEMS_KEPT);
    }
}

fn cost_of(message: &Message) -> usize {
    message.topic.len() + message.payload.len() + OVERHEAD
}

fn postpone(delivery: &mut Delivery) {
    if let Some(receipt) = delivery.receipt.take() {
        receipt.settle(Settlement::Postponed);
    }
}
