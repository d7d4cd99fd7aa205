//! Where a session outlives its process.

mod error;
#[cfg(feature = "durable")]
mod file;
mod memory;
pub(crate) mod record;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

pub use error::{StillStored, StoreError, StoreErrorKind};
#[cfg(feature = "durable")]
pub use file::{FileSessionStore, FileStoreOptions, SyncPolicy};
pub use memory::MemorySessionStore;

/// Keeps the records of one session: what is published and not confirmed, what was received at QoS 2, what is subscribed.
///
/// Give one to [`MqttOptions::store`](crate::MqttOptions::store). The crate has two, [`MemorySessionStore`] and, with the
/// feature `durable`, `FileSessionStore`; anybody may write another. Keys and values are opaque bytes; what is in them,
/// which version of it and which client it belongs to is this crate's business.
///
/// # How it is called
///
/// [`compact`](Self::compact) and [`load`](Self::load) once when a provider is made, on the caller's thread, and again if the
/// provider has to start anew after a failure. From then on [`write`](Self::write): one call at a time, on a thread for
/// blocking work ([`spawn_blocking`](tokio::task::spawn_blocking)), never on the task that owns the connection. All that has
/// changed during a call goes into the next one, so a slow store gets larger groups, not a longer queue; what may pile up
/// meanwhile is what [`MqttOptions::queue`](crate::MqttOptions::queue) allows.
///
/// # What it has to promise
///
/// - A `write` that returned `Ok` is seen by each later `load`, whatever happens to the process.
/// - Of each `write`, `load` sees all or nothing, also of one that was interrupted.
/// - Damaged content is an error of `load`, never a smaller or an empty answer.
///
/// # What a failure does
///
/// After the first error the provider sends nothing more that depends on a record. It gives up the connection and stops, with
/// the [`StoreError`] as the cause: publishes of which no record can exist fail as not sent, all others are indeterminate.
/// [`MqttProvider::connect`](crate::MqttProvider::connect) starts it again, from what `load` then says.
pub trait SessionStore: Send + Sync + 'static {
    /// Every record, each key once, in any order.
    ///
    /// # Errors
    ///
    /// If the content cannot be read, or cannot be trusted.
    fn load(&self) -> Result<Vec<Record>, StoreError>;

    /// Makes these changes, in order and as one. A key may occur in many calls, but only once in each.
    ///
    /// # Errors
    ///
    /// If the changes cannot be seen to survive. With [`StoreErrorKind::Full`] none of them does; otherwise they may.
    fn write(&self, changes: &[Change]) -> Result<(), StoreError>;

    /// Forgets every record, of whatever client. For the application that wants to begin anew; a provider never calls it.
    ///
    /// # Errors
    ///
    /// As of [`write`](Self::write).
    fn clear(&self) -> Result<(), StoreError>;

    /// Gives back room that is not needed, if that is worth the time now. Does nothing by default.
    ///
    /// # Errors
    ///
    /// As of [`write`](Self::write).
    fn compact(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What is stored under one key.
#[derive(Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a key and its value")]
pub struct Record {
    /// At most 65,536 bytes.
    pub key: Bytes,
    /// Payloads are in it: keep it as safe as these.
    pub value: Bytes,
}

/// What is to become of one key.
#[derive(Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a key and its value")]
pub struct Change {
    /// At most 65,536 bytes.
    pub key: Bytes,
    /// The new value, in place of the old one if there is one. `None` deletes the record, which may not exist.
    pub value: Option<Bytes>,
}

impl fmt::Debug for Record {
    /// The sizes alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key_len", &self.key.len())
            .field("value_len", &self.value.len())
            .finish()
    }
}

impl fmt::Debug for Change {
    /// The sizes alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("key_len", &self.key.len())
            .field("value_len", &self.value.as_ref().map(Bytes::len))
            .finish()
    }
}

/// A store as the options hold it. Their clones share it, but only one provider at a time may use it.
#[derive(Clone)]
pub(crate) struct StoreHandle {
    store: Arc<dyn SessionStore>,
    in_use: Arc<AtomicBool>,
}

impl StoreHandle {
    pub(crate) fn new(store: Arc<dyn SessionStore>) -> Self {
        Self {
            store,
            in_use: Arc::default(),
        }
    }

    /// The right to use it, until the last clone of the answer is dropped. `None` if another has it.
    pub(crate) fn claim(self) -> Option<Arc<ClaimedStore>> {
        let was_in_use = self.in_use.swap(true, Ordering::AcqRel);
        (!was_in_use).then(|| Arc::new(ClaimedStore(self)))
    }
}

impl fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionStore")
    }
}

/// A store, and the right to use it.
pub(crate) struct ClaimedStore(StoreHandle);

impl std::ops::Deref for ClaimedStore {
    type Target = dyn SessionStore;

    fn deref(&self) -> &Self::Target {
        &*self.0.store
    }
}

impl Drop for ClaimedStore {
    fn drop(&mut self) {
        self.0.in_use.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_content() {
        let key = Bytes::from_static(b"secret-key");
        let value = Bytes::from_static(b"secret-value");
        let shown = format!(
            "{:?} {:?}",
            Record {
                key: key.clone(),
                value: value.clone()
            },
            Change {
                key,
                value: Some(value)
            }
        );
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn one_at_a_time_may_use_a_store() {
        let handle = StoreHandle::new(Arc::new(MemorySessionStore::new()));
        let claimed = handle.clone().claim().unwrap();
        assert!(handle.clone().claim().is_none());
        let second = Arc::clone(&claimed);
        drop(claimed);
        assert!(handle.clone().claim().is_none());
        drop(second);
        assert!(handle.claim().is_some());
    }
}
