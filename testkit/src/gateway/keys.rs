//! The access keys that the gateway knows.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::policy::Policy;

/// An access key as the service knows it. `Debug` shows its id only.
#[derive(Clone)]
pub struct AccessKey {
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) session_token: Option<String>,
    pub(super) expires_at: Option<SystemTime>,
    pub(super) policy: Option<Policy>,
    pub(super) identity_id: Option<String>,
}

impl AccessKey {
    /// A key of long life, which has no session token.
    #[must_use]
    pub fn new(id: &str, secret: &str) -> Self {
        Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
            session_token: None,
            expires_at: None,
            policy: None,
            identity_id: None,
        }
    }

    /// Makes it a temporary key: requests must carry this token.
    #[must_use]
    pub fn session_token(mut self, token: &str) -> Self {
        self.session_token = Some(token.to_owned());
        self
    }

    /// Refuses it from this time of the gateway's clock on.
    #[must_use]
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expires_at = Some(time);
        self
    }

    /// What its connections may do; everything unless set.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// The Cognito identity that it belongs to, for policies that speak of it.
    #[must_use]
    pub fn identity_id(mut self, id: &str) -> Self {
        self.identity_id = Some(id.to_owned());
        self
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey")
            .field("id", &self.id)
            .field("temporary", &self.session_token.is_some())
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The keys that are accepted, by id. Clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct KeyRing(Arc<Mutex<HashMap<String, AccessKey>>>);

impl KeyRing {
    /// Adds a key, or replaces the one with its id.
    pub fn add(&self, key: AccessKey) {
        self.keys().insert(key.id.clone(), key);
    }

    /// Forgets a key; requests that it signed are then refused as of an unknown one.
    pub fn remove(&self, id: &str) {
        self.keys().remove(id);
    }

    /// Sets when a key ends; does nothing for an unknown one.
    pub fn expire(&self, id: &str, at: SystemTime) {
        if let Some(key) = self.keys().get_mut(id) {
            key.expires_at = Some(at);
        }
    }

    pub(super) fn find(&self, id: &str) -> Option<AccessKey> {
        self.keys().get(id).cloned()
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<String, AccessKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
