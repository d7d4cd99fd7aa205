//! A topic name that is checked once for many messages.

use alloc::sync::Arc;
use core::fmt;

use super::TopicName;
use crate::error::TextError;

/// A [`TopicName`] that shares its text, for whoever writes many messages on it: checked when it is made, and not again.
///
/// ```
/// use std::sync::Arc;
/// use mqtt_codec::{PublishRef, SharedTopicName};
///
/// let topic: Arc<str> = "greenhouse/7/temperature".into();
/// let name = SharedTopicName::new(Arc::clone(&topic))?;
/// assert!(name.shares(&topic));
/// let publish = PublishRef::new(name.as_name(), b"21.5");
/// # assert_eq!(publish.topic.as_str(), &*topic);
/// # Ok::<(), mqtt_codec::TextError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharedTopicName(Arc<str>);

impl SharedTopicName {
    /// Checks `name`.
    ///
    /// # Errors
    ///
    /// As [`TopicName::new`].
    pub fn new(name: Arc<str>) -> Result<Self, TextError> {
        TopicName::new(&name)?;
        Ok(Self(name))
    }

    /// The name.
    #[must_use]
    #[inline]
    pub fn as_name(&self) -> TopicName<'_> {
        TopicName(self.0.as_bytes())
    }

    /// Whether this is the very same text: one allocation, not just equal.
    #[must_use]
    #[inline]
    pub fn shares(&self, text: &Arc<str>) -> bool {
        Arc::ptr_eq(&self.0, text)
    }

    /// If `text` is equal, shares this allocation of it from now on: to compare is cheaper than to check. Returns whether it is.
    #[inline]
    pub fn share_instead(&mut self, text: &Arc<str>) -> bool {
        let is_equal = self.0 == *text;
        if is_equal {
            self.0 = Arc::clone(text);
        }
        is_equal
    }
}

impl fmt::Debug for SharedTopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_checked_as_any_name() {
        for name in ["", "a/+", "#", "a\0b"] {
            let error = TopicName::new(name).unwrap_err();
            assert_eq!(SharedTopicName::new(name.into()), Err(error), "{name:?}");
        }
        let text: Arc<str> = "a/b".into();
        let name = SharedTopicName::new(Arc::clone(&text)).unwrap();
        assert_eq!(name.as_name(), TopicName::new("a/b").unwrap());
        assert!(name.shares(&text));
        assert!(!name.shares(&"a/b".into()), "equal is not the same");
    }

    #[test]
    fn it_takes_up_what_is_equal_and_nothing_else() {
        let mut name = SharedTopicName::new("a/b".into()).unwrap();
        let other: Arc<str> = "a/b".into();
        assert!(name.share_instead(&other));
        assert!(name.shares(&other));
        assert!(!name.share_instead(&"a/#".into()));
        assert!(name.shares(&other));
    }
}
