//! A store that lasts as long as the process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Change, Record, SessionStore, StoreError};

/// Keeps a session in memory. Its clones share what is in it.
///
/// It does not outlive the process. What it is for: a provider that is thrown away and made anew, with other options
/// perhaps, in the same process, and goes on with the session of the old one; and tests.
///
/// ```
/// use std::time::Duration;
/// use pubsub_generic::{MemorySessionStore, MqttOptions, SessionMode};
///
/// let store = MemorySessionStore::new();
/// let options = MqttOptions::without_url()
///     .client_id("greenhouse-7")
///     .session(SessionMode::Persistent { expiry: Duration::from_secs(3600) })
///     .store(store.clone());
/// ```
#[derive(Clone, Default)]
pub struct MemorySessionStore(Arc<Mutex<BTreeMap<Bytes, Bytes>>>);

impl MemorySessionStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records().len()
    }

    /// Whether no record is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records().is_empty()
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<Bytes, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionStore for MemorySessionStore {
    fn load(&self) -> Result<Vec<Record>, StoreError> {
        let records = self.records();
        let records = records.iter().map(|(key, value)| Record {
            key: key.clone(),
            value: value.clone(),
        });
        Ok(records.collect())
    }

    fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut records = self.records();
        for Change { key, value } in changes {
            match value {
                Some(value) => drop(records.insert(key.clone(), value.clone())),
                None => drop(records.remove(key)),
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.records().clear();
        Ok(())
    }
}

impl fmt::Debug for MemorySessionStore {
    /// How many records there are, and nothing of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySessionStore")
            .field("records", &self.len())
            .finish()
    }
}
