//! What a subscription has taken out of its queue and not yielded yet.

use std::collections::VecDeque;

use super::item::give_back;
use crate::error::SubscriptionError;
use crate::provider::{Delivery, Gap};

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
    Item(Delivery),
    Notice(Notice),
}

/// What comes of filling a batch.
#[allow(
    clippy::large_enum_variant,
    reason = "a box would cost an allocation a message"
)]
pub(crate) enum Filled {
    /// There is something in it.
    Batch,
    /// It is empty, since this comes first and by itself.
    Held(Delivery),
    /// Nothing will come any more.
    End,
}

/// What a subscription has taken out and not yielded yet. Both in order of sequence number.
#[derive(Default)]
pub(crate) struct Batch {
    pub(super) items: VecDeque<Delivery>,
    pub(super) notices: VecDeque<(u64, Notice)>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.notices.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len() + self.notices.len()
    }

    /// The next item, unless there is a notice to be looked at.
    #[inline]
    pub(crate) fn front_item(&self) -> Option<&Delivery> {
        if !self.notices.is_empty() {
            return None;
        }
        self.items.front()
    }

    /// Takes out what [`front_item`](Self::front_item) shows.
    #[inline]
    pub(crate) fn pop_item(&mut self) -> Option<Delivery> {
        self.items.pop_front()
    }

    pub(crate) fn pop(&mut self) -> Option<Entry> {
        if let Some((notice, _)) = self.notices.front()
            && self
                .items
                .front()
                .is_none_or(|item| *notice < item.place.seq)
        {
            let (_, notice) = self.notices.pop_front()?;
            return Some(Entry::Notice(notice));
        }
        self.items.pop_front().map(Entry::Item)
    }

    #[inline]
    pub(super) fn give_back(&mut self) {
        give_back(&mut self.items);
        if self.notices.capacity() > 0 {
            self.notices = VecDeque::new();
        }
    }
}
