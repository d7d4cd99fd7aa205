//! Checked text: the three kinds of UTF-8 string that packets carry.
//!
//! A value of these types is proof that its bytes passed the check, so that encoding need not look at them
//! again. They hold bytes; `as_str` checks them as UTF-8 once more, since safe Rust has no other way from bytes
//! to a `str`. Comparing, hashing and routing by `as_bytes` is free.

mod known;
mod scan;
mod shared;

use core::cmp::Ordering;
use core::fmt;

pub(crate) use self::known::KnownTopic;
use self::known::same;
pub use self::shared::SharedTopicName;
use crate::error::{Malformed, TextError};

/// UTF-8 text of at most 65,535 bytes without U+0000.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a>(&'a [u8]);

/// The name of a topic: text without wildcards, and not empty.
///
/// The one exception is [`TopicName::EMPTY`], which an MQTT 5 PUBLISH carries when a Topic Alias stands for the name.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a [u8]);

/// A topic filter: text, not empty, `+` alone in its level, `#` alone in the last level.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// Checks `text`.
    ///
    /// # Errors
    ///
    /// [`TextError::TooLong`] above 65,535 bytes, [`TextError::Nul`] if it contains U+0000.
    //= MQTT-1.5.4-2
    //= v3.1.1 MQTT-1.5.3-2
    pub fn new(text: &'a str) -> Result<Self, TextError> {
        let bytes = within_bounds(text)?;
        if bytes.contains(&0) {
            return Err(TextError::Nul);
        }
        Ok(Self(bytes))
    }

    //= MQTT-1.5.4-3
    //= v3.1.1 MQTT-1.5.3-3
    #[inline]
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if scan::is_plain(bytes) {
            return Ok(Self(bytes));
        }
        check_text(bytes)?;
        Ok(Self(bytes))
    }
}

impl<'a> TopicName<'a> {
    /// No name: a Topic Alias stands for it.
    pub const EMPTY: TopicName<'static> = TopicName(&[]);

    /// Checks `name`.
    ///
    /// # Errors
    ///
    /// [`TextError::TooLong`] above 65,535 bytes, [`TextError::Empty`], [`TextError::Nul`],
    /// [`TextError::Wildcard`] for `+` or `#`.
    //= MQTT-4.7.0-1
    //= MQTT-4.7.3-1
    //= MQTT-4.7.3-2
    //= MQTT-4.7.3-3
    //= v3.1.1 MQTT-4.7.1-1
    //= v3.1.1 MQTT-4.7.3-1
    //= v3.1.1 MQTT-4.7.3-2
    //= v3.1.1 MQTT-4.7.3-3
    pub fn new(name: &'a str) -> Result<Self, TextError> {
        let bytes = within_bounds(name)?;
        if bytes.is_empty() {
            return Err(TextError::Empty);
        }
        if !scan::is_plain_name(bytes) {
            for &byte in bytes {
                match byte {
                    0 => return Err(TextError::Nul),
                    b'+' | b'#' => return Err(TextError::Wildcard),
                    _ => {}
                }
            }
        }
        Ok(Self(bytes))
    }

    /// Checks a name from the wire; the empty one passes.
    //= MQTT-3.3.2-1
    //= MQTT-3.3.2-2
    //= v3.1.1 MQTT-3.3.2-1
    //= v3.1.1 MQTT-3.3.2-2
    #[inline]
    pub(crate) fn decode_or_empty(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if !scan::is_plain_name(bytes) {
            check_name(bytes)?;
        }
        Ok(Self(bytes))
    }

    #[inline]
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.is_empty() {
            return Err(Malformed::EmptyTopicName);
        }
        Self::decode_or_empty(bytes)
    }
}

impl<'a> TopicFilter<'a> {
    /// Checks `filter`.
    ///
    /// The further rules of shared subscriptions (`$share/NAME/FILTER`) are MQTT 5's, and checked when a
    /// packet of that version is encoded or decoded.
    ///
    /// # Errors
    ///
    /// [`TextError::TooLong`] above 65,535 bytes, [`TextError::Empty`], [`TextError::Nul`],
    /// [`TextError::Wildcard`] for a wildcard that shares its level, or `#` before the end.
    pub fn new(filter: &'a str) -> Result<Self, TextError> {
        let bytes = within_bounds(filter)?;
        if bytes.is_empty() {
            return Err(TextError::Empty);
        }
        match scan::filter(bytes) {
            scan::Filter::Plain => Ok(Self(bytes)),
            scan::Filter::Misplaced => Err(TextError::Wildcard),
            scan::Filter::Special if bytes.contains(&0) => Err(TextError::Nul),
            scan::Filter::Special => match scan::wildcards_in_place(bytes) {
                true => Ok(Self(bytes)),
                false => Err(TextError::Wildcard),
            },
        }
    }

    #[inline]
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match scan::filter(bytes) {
            scan::Filter::Plain if bytes.is_empty() => Err(Malformed::EmptyTopicFilter),
            scan::Filter::Plain => Ok(Self(bytes)),
            scan::Filter::Misplaced => Err(Malformed::WildcardPosition),
            scan::Filter::Special => {
                check_text(bytes)?;
                match scan::wildcards_in_place(bytes) {
                    true => Ok(Self(bytes)),
                    false => Err(Malformed::WildcardPosition),
                }
            }
        }
    }

    /// The Share Name and the filter behind it, if this is a shared subscription (`$share/NAME/FILTER`, MQTT 5).
    ///
    /// `None` also for what begins with `$share/` and goes on wrongly; no decoded MQTT 5 packet holds such a filter.
    pub fn shared(&self) -> Option<(Text<'a>, Self)> {
        let rest = self.0.strip_prefix(SHARE)?;
        let slash = rest.iter().position(|&byte| byte == b'/')?;
        let (name, filter) = rest.split_at_checked(slash)?;
        let filter = filter.get(1..)?;
        if name.is_empty()
            || filter.is_empty()
            || name.iter().any(|byte| matches!(byte, b'+' | b'#'))
        {
            return None;
        }
        Some((Text(name), TopicFilter(filter)))
    }

    /// Whether it begins as a shared subscription does.
    pub(crate) fn is_shared(&self) -> bool {
        self.0.starts_with(SHARE)
    }

    /// Whether the rules of shared subscriptions hold.
    //= MQTT-4.8.2-1
    //= MQTT-4.8.2-2
    #[inline]
    pub(crate) fn share_is_well_formed(&self) -> bool {
        !self.is_shared() || self.shared().is_some()
    }

    /// Whether it contains `+` or `#`.
    pub fn has_wildcards(&self) -> bool {
        self.0.iter().any(|byte| matches!(byte, b'+' | b'#'))
    }
}

macro_rules! text_impls {
    ($($name:ident),*) => {$(
        impl<'a> $name<'a> {
            /// Takes `bytes` that were checked when their packet was decoded.
            #[inline]
            pub(crate) const fn from_checked(bytes: &'a [u8]) -> Self {
                Self(bytes)
            }

            /// The UTF-8 bytes; free.
            #[inline]
            pub const fn as_bytes(&self) -> &'a [u8] {
                self.0
            }

            /// The text. Checks the bytes as UTF-8 once more, which costs about as much as decoding a small packet.
            pub fn as_str(&self) -> &'a str {
                // Only the constructors make such a value, and they check. The empty string is
                // unreachable, and preferred to a panic in code that reads from the network.
                core::str::from_utf8(self.0).unwrap_or_default()
            }

            /// Length in bytes, at most 65,535.
            #[inline]
            pub const fn len(&self) -> usize {
                self.0.len()
            }

            /// Whether there are no bytes.
            pub const fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl<'a> TryFrom<&'a str> for $name<'a> {
            type Error = TextError;

            fn try_from(text: &'a str) -> Result<Self, TextError> {
                Self::new(text)
            }
        }

        impl AsRef<[u8]> for $name<'_> {
            fn as_ref(&self) -> &[u8] {
                self.0
            }
        }

        impl PartialEq<str> for $name<'_> {
            #[inline]
            fn eq(&self, other: &str) -> bool {
                same(self.0, other.as_bytes())
            }
        }

        impl PartialEq<&str> for $name<'_> {
            fn eq(&self, other: &&str) -> bool {
                self.0 == other.as_bytes()
            }
        }

        impl PartialOrd<str> for $name<'_> {
            fn partial_cmp(&self, other: &str) -> Option<Ordering> {
                self.0.partial_cmp(other.as_bytes())
            }
        }

        impl fmt::Display for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    )*};
}

text_impls!(Text, TopicName, TopicFilter);

impl<'a> From<TopicName<'a>> for Text<'a> {
    fn from(name: TopicName<'a>) -> Self {
        Self(name.0)
    }
}

impl<'a> From<TopicFilter<'a>> for Text<'a> {
    fn from(filter: TopicFilter<'a>) -> Self {
        Self(filter.0)
    }
}

/// Every topic name but the empty one is also a filter, which matches that name alone.
impl<'a> TryFrom<TopicName<'a>> for TopicFilter<'a> {
    type Error = TextError;

    fn try_from(name: TopicName<'a>) -> Result<Self, TextError> {
        if name.is_empty() {
            return Err(TextError::Empty);
        }
        Ok(Self(name.0))
    }
}

fn within_bounds(text: &str) -> Result<&[u8], TextError> {
    if text.len() > usize::from(u16::MAX) {
        return Err(TextError::TooLong);
    }
    Ok(text.as_bytes())
}

/// The full check, for text that is not plain ASCII.
//= MQTT-1.5.4-1
//= MQTT-1.5.4-2
//= v3.1.1 MQTT-1.5.3-1
//= v3.1.1 MQTT-1.5.3-2
#[cold]
fn check_text(bytes: &[u8]) -> Result<(), Malformed> {
    if core::str::from_utf8(bytes).is_err() {
        return Err(Malformed::InvalidUtf8);
    }
    if bytes.contains(&0) {
        return Err(Malformed::NulInText);
    }
    Ok(())
}

#[cold]
fn check_name(bytes: &[u8]) -> Result<(), Malformed> {
    check_text(bytes)?;
    if bytes.iter().any(|byte| matches!(byte, b'+' | b'#')) {
        return Err(Malformed::WildcardInTopicName);
    }
    Ok(())
}

const SHARE: &[u8] = b"$share/";
