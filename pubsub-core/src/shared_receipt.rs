//! One receipt for several subscribers.

use std::sync::{Arc, Mutex, PoisonError};

use crate::provider::{DeliveryReceipt, ReceiptSink, Settlement};

/// One receipt in several hands: settled when the last of them is.
pub(crate) struct SharedReceipt(Mutex<(usize, Settlement, Option<DeliveryReceipt>)>);

impl SharedReceipt {
    /// The hands, as many as asked for; the receipt itself if that is one.
    pub(crate) fn split(
        receipt: Option<DeliveryReceipt>,
        hands: usize,
    ) -> impl Iterator<Item = DeliveryReceipt> {
        let (single, shared) = match receipt {
            Some(receipt) if hands > 1 => {
                let state = (hands, Settlement::Dropped, Some(receipt));
                (None, Some(Arc::new(Self(Mutex::new(state)))))
            }
            other => (other, None),
        };
        let parts = shared.into_iter().flat_map(move |shared| {
            (0..hands).map(move |_| DeliveryReceipt::new(Arc::clone(&shared) as Arc<_>, 0))
        });
        single.into_iter().chain(parts)
    }
}

impl ReceiptSink for SharedReceipt {
    fn settle(&self, _: u64, settlement: Settlement) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = state.0.saturating_sub(1);
        if rank(settlement) > rank(state.1) {
            state.1 = settlement;
        }
        if state.0 == 0
            && let Some(receipt) = state.2.take()
        {
            let settlement = state.1;
            drop(state);
            receipt.settle(settlement);
        }
    }
}

/// Of several subscribers' words on one message the strongest counts.
fn rank(settlement: Settlement) -> u8 {
    match settlement {
        Settlement::Dropped => 0,
        Settlement::Rejected(_) => 1,
        Settlement::Released => 2,
        Settlement::Taken => 3,
        Settlement::Postponed => 4,
    }
}
