//! The end of most publishes at QoS 1 and 2: an acknowledgement that says no more than that, one of many in a row.

use std::vec::Drain;

use bytes::Bytes;
use mqtt_session::{Session, Timestamp};
use pubsub_core::{Delivered, PublishSettler};

use crate::driver::PendingPublish;
use crate::inbox::Load;
use crate::operations::SETTLERS_KEPT;
use crate::pending::Pending;
use crate::stats::Counters;

/// The parts of the task that the end of a publish passes, while the session is busy with telling it.
pub(crate) struct Endings<'a> {
    pub(crate) publishes: &'a mut Pending<PendingPublish>,
    /// Empty before and after.
    pub(crate) delivered: &'a mut Vec<PublishSettler>,
    pub(crate) completed: &'a mut Load,
    pub(crate) counters: &'a Counters,
}

impl Endings<'_> {
    /// Settles what the *plain* acknowledgements at the front of the batch end, of which `first` is the first chunk. Returns
    /// what follows them in the chunk in which they end: nothing where they are all there is.
    ///
    /// Nothing more need be done about them in this round. What they make room for is written at its end, and what else hangs on
    /// a publish is looked after once it is accounted for.
    #[inline(never)]
    pub(crate) fn take_plain(
        &mut self,
        session: &mut Session,
        first: Bytes,
        others: &mut Drain<'_, Bytes>,
        now: Timestamp,
    ) -> Bytes {
        let mut chunk = first;
        let Some(mut plain) = session.plain_acknowledgements(now) else {
            return chunk;
        };
        loop {
            while let Some(id) = plain.take(&mut chunk) {
                if let Some(PendingPublish { settler, bytes, .. }) = self.publishes.remove(id) {
                    self.completed.bytes += bytes;
                    self.delivered.push(settler);
                }
            }
            if !chunk.is_empty() {
                break;
            }
            match others.next() {
                Some(next) => chunk = next,
                None => break,
            }
        }
        if !self.delivered.is_empty() {
            let delivered = self.delivered.len();
            self.completed.messages += delivered;
            self.counters.publishes_settled(true, delivered);
            PublishSettler::settle_all(self.delivered, Delivered::Confirmed);
            self.delivered.shrink_to(SETTLERS_KEPT);
        }
        chunk
    }
}
