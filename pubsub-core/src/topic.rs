//! Topic names and topic filters, validated once and cheap to clone.
//!
//! A *topic name* says where one message was published; a *topic filter* says which topics a subscriber
//! wants and may contain the wildcards `+` (one level) and `#` (this level and all below).

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::matching::{MatchingRules, ParentLevel, ReservedTopics};
use crate::topic_error::TopicError;

/// The longest topic name or filter, in bytes of UTF-8: the largest that the 16-bit length before it on
/// the wire can state.
pub const MAX_TOPIC_LEN: usize = 65_535;

/// A valid topic name: 1 to [`MAX_TOPIC_LEN`] bytes of UTF-8 without wildcards and without U+0000.
///
/// Levels are separated by `/` and may be empty: `/a`, `a//b` and `/` are three different names.
/// Comparison is by bytes; nothing is normalised. A clone shares the text, which takes an allocation of its own.
///
/// ```
/// use pubsub_core::TopicName;
///
/// let topic = TopicName::new("chat/lobby")?;
/// assert_eq!(topic, "chat/lobby");
/// assert!(TopicName::new("chat/+").is_err());
/// # Ok::<(), pubsub_core::TopicError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks `name` and keeps it.
    ///
    /// # Errors
    /// A [`TopicError`] that names the rule the text breaks.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self, TopicError> {
        let name = name.into();
        check_name(&name)?;
        Ok(Self(name))
    }

    /// Checks received bytes and copies them, so that a name that is kept keeps no receive buffer alive.
    ///
    /// # Errors
    /// A [`TopicError`] that names the rule the bytes break.
    pub fn from_bytes(name: &[u8]) -> Result<Self, TopicError> {
        Self::new(text_from(name)?)
    }

    /// The text.
    #[must_use]
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, in order; there is always at least one, and it may be empty.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.as_str().split('/')
    }

    /// Whether the name begins with `$`, and so is not seen by a filter that begins with a wildcard.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.as_str().starts_with('$')
    }

    /// Whether both are the same name, quickly if they share their text.
    #[inline]
    pub(crate) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.as_str(), other.as_str()) || self == other
    }
}

/// A valid topic filter: 1 to [`MAX_TOPIC_LEN`] bytes of UTF-8 without U+0000, every wildcard alone in
/// its level and `#` only as the last one.
///
/// `$share/GROUP/FILTER` is a *shared* filter: the members of the group divide the messages of `FILTER`
/// among them. See [`share_group`](Self::share_group) and [`pattern`](Self::pattern).
///
/// ```
/// use pubsub_core::{TopicFilter, TopicName};
///
/// let filter = TopicFilter::new("sport/+/player1/#")?;
/// assert!(filter.matches(&TopicName::new("sport/tennis/player1")?));
/// assert!(!filter.matches(&TopicName::new("sport/tennis/player2")?));
/// # Ok::<(), pubsub_core::TopicError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicFilter {
    text: Arc<str>,
    parts: Parts,
}

/// What the check of a filter finds out about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Parts {
    /// Where the pattern begins: 0, or behind `$share/GROUP/`. At most the text's length.
    pattern_at: u16,
    has_wildcards: bool,
}

impl Hash for TopicFilter {
    /// Of the text alone, from which all else follows.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl TopicFilter {
    /// Checks `filter` and keeps it.
    ///
    /// # Errors
    /// A [`TopicError`] that names the rule the text breaks.
    pub fn new(filter: impl Into<Arc<str>>) -> Result<Self, TopicError> {
        let text = filter.into();
        let parts = check_filter(&text)?;
        Ok(Self { text, parts })
    }

    /// Checks received bytes and copies them.
    ///
    /// # Errors
    /// A [`TopicError`] that names the rule the bytes break.
    pub fn from_bytes(filter: &[u8]) -> Result<Self, TopicError> {
        Self::new(text_from(filter)?)
    }

    /// The whole text, with `$share/GROUP/` if it has that.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part that topics are matched against: the text without `$share/GROUP/`.
    #[must_use]
    pub fn pattern(&self) -> &str {
        self.text
            .get(usize::from(self.parts.pattern_at)..)
            .unwrap_or_default()
    }

    /// The group of a shared filter.
    #[must_use]
    pub fn share_group(&self) -> Option<&str> {
        let end = usize::from(self.parts.pattern_at).checked_sub(1)?;
        self.text.get(SHARE_PREFIX.len()..end)
    }

    /// The levels of the [`pattern`](Self::pattern), in order; at least one, and any may be empty.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.pattern().split('/')
    }

    /// Whether the pattern holds a `+` or `#`.
    #[must_use]
    pub fn has_wildcards(&self) -> bool {
        self.parts.has_wildcards
    }

    /// Whether `topic` is one of those the filter asks for, by the specification's rules.
    #[must_use]
    pub fn matches(&self, topic: &TopicName) -> bool {
        self.matches_with(topic, MatchingRules::default())
    }

    /// Whether `topic` is one of those the filter asks for, by the given rules.
    ///
    /// Walks both once, in place: no allocation, no recursion.
    #[must_use]
    pub fn matches_with(&self, topic: &TopicName, rules: MatchingRules) -> bool {
        let pattern = self.pattern();
        if !self.has_wildcards() {
            return pattern == topic.as_str();
        }
        if topic.is_reserved()
            && rules.reserved_topics == ReservedTopics::NamedExplicitly
            && pattern.starts_with(['+', '#'])
        {
            return false;
        }
        let mut wanted = pattern.split('/');
        let mut levels = topic.as_str().split('/');
        loop {
            match (wanted.next(), levels.next()) {
                (Some("#"), Some(_)) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(want), Some(have)) if want == have => {}
                // `a/#` against `a`: the wildcard includes its parent.
                (Some("#"), None) => return rules.parent_level == ParentLevel::Matches,
                _ => return false,
            }
        }
    }
}

const SHARE_PREFIX: &str = "$share/";

fn text_from(bytes: &[u8]) -> Result<&str, TopicError> {
    std::str::from_utf8(bytes).map_err(|error| TopicError::NotUtf8 {
        at: error.valid_up_to(),
    })
}

fn check_length(text: &str) -> Result<(), TopicError> {
    //= MQTT-4.7.3-1
    //= MQTT-4.7.3-3
    //= v3.1.1 MQTT-4.7.3-1
    //= v3.1.1 MQTT-4.7.3-3
    match text.len() {
        0 => Err(TopicError::Empty),
        len if len > MAX_TOPIC_LEN => Err(TopicError::TooLong { len }),
        _ => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), TopicError> {
    check_length(name)?;
    //= MQTT-4.7.0-1
    //= MQTT-4.7.3-2
    //= v3.1.1 MQTT-4.7.1-1
    //= v3.1.1 MQTT-4.7.3-2
    let is_bad = |b: &u8| matches!(b, 0 | b'+' | b'#');
    // Nearly always there is none; without an early end this is a few vector instructions.
    if !name.as_bytes().iter().fold(false, |bad, b| bad | is_bad(b)) {
        return Ok(());
    }
    match name.as_bytes().iter().position(is_bad) {
        None => Ok(()),
        Some(at) if name.as_bytes().get(at) == Some(&0) => Err(TopicError::ContainsNul { at }),
        Some(at) => Err(TopicError::WildcardInName { at }),
    }
}

fn check_filter(filter: &str) -> Result<Parts, TopicError> {
    check_length(filter)?;
    if let Some(at) = filter.bytes().position(|b| b == 0) {
        return Err(TopicError::ContainsNul { at });
    }
    let Some(rest) = filter.strip_prefix(SHARE_PREFIX) else {
        if filter == "$share" {
            return Err(TopicError::ShareWithoutFilter);
        }
        return Ok(Parts {
            pattern_at: 0,
            has_wildcards: check_pattern(filter, 0)?,
        });
    };
    //= MQTT-4.8.2-1
    //= MQTT-4.8.2-2
    let Some((group, pattern)) = rest.split_once('/') else {
        return Err(if rest.is_empty() {
            TopicError::ShareGroup
        } else {
            TopicError::ShareWithoutFilter
        });
    };
    if group.is_empty() || group.contains(['+', '#']) {
        return Err(TopicError::ShareGroup);
    }
    if pattern.is_empty() {
        return Err(TopicError::ShareWithoutFilter);
    }
    let pattern_at = filter.len() - pattern.len();
    Ok(Parts {
        has_wildcards: check_pattern(pattern, pattern_at)?,
        pattern_at: u16::try_from(pattern_at)
            .map_err(|_| TopicError::TooLong { len: filter.len() })?,
    })
}

/// Whether it has wildcards.
fn check_pattern(pattern: &str, offset: usize) -> Result<bool, TopicError> {
    let bytes = pattern.as_bytes();
    let mut has_wildcards = false;
    for (at, byte) in bytes.iter().enumerate() {
        if !matches!(byte, b'+' | b'#') {
            continue;
        }
        let before = at.checked_sub(1).and_then(|i| bytes.get(i));
        let after = bytes.get(at + 1);
        let at = at + offset;
        //= MQTT-4.7.1-1
        //= MQTT-4.7.1-2
        //= v3.1.1 MQTT-4.7.1-2
        //= v3.1.1 MQTT-4.7.1-3
        if before.is_some_and(|b| *b != b'/') || after.is_some_and(|b| *b != b'/') {
            return Err(TopicError::WildcardNotAlone { at });
        }
        if *byte == b'#' && after.is_some() {
            return Err(TopicError::HashNotLast { at });
        }
        has_wildcards = true;
    }
    Ok(has_wildcards)
}

macro_rules! text_traits {
    ($type:ident) => {
        impl Deref for $type {
            type Target = str;

            fn deref(&self) -> &str {
                self.as_str()
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl FromStr for $type {
            type Err = TopicError;

            fn from_str(text: &str) -> Result<Self, TopicError> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = TopicError;

            fn try_from(text: &str) -> Result<Self, TopicError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = TopicError;

            fn try_from(text: String) -> Result<Self, TopicError> {
                Self::new(text)
            }
        }

        impl TryFrom<&[u8]> for $type {
            type Error = TopicError;

            fn try_from(bytes: &[u8]) -> Result<Self, TopicError> {
                Self::from_bytes(bytes)
            }
        }

        impl From<$type> for String {
            fn from(text: $type) -> Self {
                text.as_str().to_owned()
            }
        }

        impl PartialEq<str> for $type {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $type {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }
    };
}

text_traits!(TopicName);
text_traits!(TopicFilter);

// Only the name: a filter hashes more than its text, and `Borrow` promises equal hashes.
impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl From<TopicFilter> for Arc<str> {
    /// The whole text, which is not copied.
    fn from(filter: TopicFilter) -> Self {
        filter.text
    }
}

impl From<TopicName> for Arc<str> {
    /// The text, shared.
    fn from(name: TopicName) -> Self {
        name.0
    }
}

impl TryFrom<TopicName> for TopicFilter {
    type Error = TopicError;

    /// The filter that matches this one name. Fails where the name reads as a shared filter with
    /// something missing; one that reads as a whole shared filter is one.
    fn try_from(name: TopicName) -> Result<Self, TopicError> {
        let parts = check_filter(&name)?;
        Ok(Self {
            text: name.0,
            parts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TopicName {
        TopicName::new(text).unwrap()
    }

    /// The examples of the specification's section on topic wildcards, and the edges between them.
    pub(crate) const MATCHES: &[(&str, &str, bool)] = &[
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/ranking",
            true,
        ),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/score/wimbledon",
            true,
        ),
        ("sport/tennis/player1/#", "sport/tennis/player2", false),
        ("sport/#", "sport", true),
        ("#", "anything/at/all", true),
        ("#", "/", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player2", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("+/tennis/#", "sport/tennis", true),
        ("sport/+/player1", "sport/tennis/player1", true),
        ("#", "$SYS/broker", false),
        ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ("$SYS/#", "$SYS/monitor/Clients", true),
        ("$SYS/#", "$SYS", true),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ("a/#", "a$b", false),
        ("a/+/#", "a/b", true),
        ("a/+/#", "a", false),
        ("+/#", "a", true),
        ("a//b", "a//b", true),
        ("a/+/b", "a//b", true),
        ("a//b", "a/b", false),
        ("/", "/", true),
        ("+/+", "/", true),
        ("a", "A", false),
        ("ACCOUNTS", "Accounts", false),
        ("$share/g/a/#", "a", true),
        ("$share/g/#", "a/b", true),
        ("$share/g/#", "$SYS/x", false),
        ("$share/g/$SYS/#", "$SYS/x", true),
        ("$share/g//", "/", true),
        ("$shared/g/a", "a", false),
        ("é/+", "é/ü", true),
    ];

    //= test MQTT-4.7.2-1
    //= test MQTT-4.7.3-4
    //= test v3.1.1 MQTT-4.7.2-1
    //= test v3.1.1 MQTT-4.7.3-4
    #[test]
    fn matches_as_the_specification_says() {
        for (filter, topic, want) in MATCHES {
            let filter = TopicFilter::new(*filter).unwrap();
            assert_eq!(
                filter.matches(&name(topic)),
                *want,
                "{filter} against {topic}"
            );
        }
    }

    #[test]
    fn departs_where_the_rules_say_so() {
        let below_only = MatchingRules::new().with_parent_level(ParentLevel::BelowOnly);
        let filter = TopicFilter::new("a/#").unwrap();
        assert!(!filter.matches_with(&name("a"), below_only));
        assert!(filter.matches_with(&name("a/b"), below_only));
        assert!(filter.matches_with(&name("a/"), below_only));

        let ordinary = MatchingRules::new().with_reserved_topics(ReservedTopics::Ordinary);
        let all = TopicFilter::new("#").unwrap();
        assert!(all.matches_with(&name("$SYS/x"), ordinary));
    }

    //= test MQTT-4.7.0-1
    //= test MQTT-4.7.3-1
    //= test MQTT-4.7.3-2
    //= test MQTT-4.7.3-3
    //= test v3.1.1 MQTT-4.7.1-1
    //= test v3.1.1 MQTT-4.7.3-1
    //= test v3.1.1 MQTT-4.7.3-2
    //= test v3.1.1 MQTT-4.7.3-3
    #[test]
    fn names_the_rule_that_a_name_breaks() {
        assert_eq!(TopicName::new(""), Err(TopicError::Empty));
        assert_eq!(
            TopicName::new("a/+"),
            Err(TopicError::WildcardInName { at: 2 })
        );
        assert_eq!(
            TopicName::new("a#"),
            Err(TopicError::WildcardInName { at: 1 })
        );
        assert_eq!(
            TopicName::new("a\0+"),
            Err(TopicError::ContainsNul { at: 1 })
        );
        assert!(TopicName::new("a".repeat(MAX_TOPIC_LEN)).is_ok());
        assert_eq!(
            TopicName::new("a".repeat(MAX_TOPIC_LEN + 1)),
            Err(TopicError::TooLong {
                len: MAX_TOPIC_LEN + 1
            })
        );
        assert_eq!(
            TopicName::from_bytes(b"ab\xff"),
            Err(TopicError::NotUtf8 { at: 2 })
        );
    }

    //= test MQTT-4.7.1-1
    //= test MQTT-4.7.1-2
    //= test v3.1.1 MQTT-4.7.1-2
    //= test v3.1.1 MQTT-4.7.1-3
    //= test MQTT-4.8.2-1
    //= test MQTT-4.8.2-2
    #[test]
    fn names_the_rule_that_a_filter_breaks() {
        let broken = [
            ("", TopicError::Empty),
            ("a\0", TopicError::ContainsNul { at: 1 }),
            ("sport+", TopicError::WildcardNotAlone { at: 5 }),
            ("sport/tennis#", TopicError::WildcardNotAlone { at: 12 }),
            ("+a/b", TopicError::WildcardNotAlone { at: 0 }),
            ("##", TopicError::WildcardNotAlone { at: 0 }),
            ("a/#/b", TopicError::HashNotLast { at: 2 }),
            ("$share", TopicError::ShareWithoutFilter),
            ("$share/", TopicError::ShareGroup),
            ("$share//a", TopicError::ShareGroup),
            ("$share/+/a", TopicError::ShareGroup),
            ("$share/g", TopicError::ShareWithoutFilter),
            ("$share/g/", TopicError::ShareWithoutFilter),
            ("$share/g/a/#/b", TopicError::HashNotLast { at: 11 }),
        ];
        for (filter, error) in broken {
            assert_eq!(TopicFilter::new(filter), Err(error), "{filter:?}");
        }
    }

    #[test]
    fn takes_a_shared_filter_apart() {
        let shared = TopicFilter::new("$share/g/a/+").unwrap();
        assert_eq!(shared.share_group(), Some("g"));
        assert_eq!(shared.pattern(), "a/+");
        assert!(shared.has_wildcards());
        let plain = TopicFilter::new("$shared/g/a").unwrap();
        assert_eq!(plain.share_group(), None);
        assert_eq!(plain.pattern(), "$shared/g/a");
    }

    #[test]
    fn a_clone_shares_the_text() {
        let text: Arc<str> = "chat/lobby".into();
        let topic = TopicName::new(Arc::clone(&text)).unwrap();
        assert!(std::ptr::eq(topic.as_str(), &*text));
        assert!(std::ptr::eq(topic.clone().as_str(), &*text));
        assert!(Arc::ptr_eq(&Arc::from(topic), &text));
    }
}
