//! Why a store could not do what it was asked.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// Why a [`SessionStore`](crate::SessionStore) could not do what it was asked. A clone shares the source.
#[derive(Debug, Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The kinds of [`StoreError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Somebody else uses it.
    Locked,
    /// It holds something that is no session of ours.
    Foreign,
    /// It was written by a version of this crate whose records this one does not know.
    Version,
    /// It holds the session of another client identifier.
    OtherClient,
    /// Its content is damaged.
    Corrupt,
    /// There is no room: on the disk, or within the bound that was set. Nothing of the group was stored.
    Full,
    /// Reading or writing failed.
    Io,
}

impl StoreError {
    /// An error of this kind.
    #[must_use]
    pub fn new(kind: StoreErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// This error with what caused it. It must not show what is stored.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl From<StoreErrorKind> for StoreError {
    fn from(kind: StoreErrorKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Locked => "somebody else uses the session store",
            StoreErrorKind::Foreign => "this is no session store",
            StoreErrorKind::Version => "the session store was written by another version",
            StoreErrorKind::OtherClient => "the stored session is another client's",
            StoreErrorKind::Corrupt => "the session store is damaged",
            StoreErrorKind::Full => "the session store is full",
            StoreErrorKind::Io => "the session store cannot be read or written",
        })
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The message is stored, and a later connection or process sends it.
///
/// The [source](StdError::source) of the [`ProviderError`](pubsub_core::ProviderError) in a
/// [`PublishError::Indeterminate`](pubsub_core::PublishError::Indeterminate), where a provider with a
/// [`SessionStore`](crate::SessionStore) ends or stops before the message was confirmed. Publishing it again would publish it
/// twice.
#[derive(Debug, Clone)]
pub struct StillStored {
    pub(crate) why: pubsub_core::ProviderError,
}

impl fmt::Display for StillStored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message is stored, and is sent when its session goes on")
    }
}

impl StdError for StillStored {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.why)
    }
}
