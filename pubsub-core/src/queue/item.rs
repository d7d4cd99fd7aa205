//! A delivery that waits in a queue, and what it costs there.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::message::Message;
use crate::provider::{Delivery, Settlement};

/// Where a delivery stands in the queue that it waits in, among all that ever was in it. A part of the delivery, so that a
/// batch of them becomes a queue without being moved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(super) seq: u64,
}

// What is larger is moved by a call.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Delivery>() <= 128);

/// Messages at most once.
pub(super) const PLAIN: usize = 0;
/// Messages to be confirmed.
pub(super) const HELD: usize = 1;

/// What a message costs beyond its topic and payload: its place in the queue and its handles.
const OVERHEAD: usize = 64;
/// How many messages an empty queue keeps room for: some 9 KiB.
pub(super) const ITEMS_KEPT: usize = 64;

impl Delivery {
    #[inline]
    pub(super) fn cost(&self) -> usize {
        cost_of(&self.message)
    }

    /// Whether the payload uses less than a quarter of the buffer it keeps alive.
    pub(super) fn is_wasteful(&self) -> bool {
        self.message.payload.len().saturating_mul(4) < self.buffer_len
    }

    pub(super) fn copy_out_if_wasteful(&mut self) {
        if self.is_wasteful() {
            self.message.payload = Bytes::copy_from_slice(&self.message.payload);
            self.buffer_len = 0;
        }
    }

    pub(super) fn postpone(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            receipt.settle(Settlement::Postponed);
        }
    }
}

#[inline]
fn cost_of(message: &Message) -> usize {
    message.topic.len() + message.payload.len() + OVERHEAD
}

/// What a burst took does not stay with an idle queue.
#[inline]
pub(super) fn give_back(items: &mut VecDeque<Delivery>) {
    if items.is_empty() && items.capacity() > ITEMS_KEPT {
        items.shrink_to(ITEMS_KEPT);
    }
}
