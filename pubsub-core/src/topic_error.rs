//! The rules of topic names and filters, as the errors that name them.

use std::fmt;

use crate::topic::MAX_TOPIC_LEN;

/// The rule that a topic name or filter breaks.
///
/// Positions are byte offsets into the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicError {
    /// It has no character at all.
    Empty,
    /// It is longer than [`MAX_TOPIC_LEN`] bytes.
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The bytes are not UTF-8.
    NotUtf8 {
        /// Where the first wrong byte is.
        at: usize,
    },
    /// It contains the character U+0000.
    ContainsNul {
        /// Where.
        at: usize,
    },
    /// A topic name contains `+` or `#`; messages are published to one topic.
    WildcardInName {
        /// Where.
        at: usize,
    },
    /// A wildcard shares its level with other characters, as in `a+/b` or `a#`.
    WildcardNotAlone {
        /// Where.
        at: usize,
    },
    /// `#` is followed by further levels, as in `a/#/b`.
    HashNotLast {
        /// Where.
        at: usize,
    },
    /// The group of a shared filter is empty or contains a wildcard, as in `$share//a` or `$share/+/a`.
    ShareGroup,
    /// A shared filter ends behind its group, as in `$share/group` or `$share/group/`.
    ShareWithoutFilter,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => f.write_str("a topic has at least one character"),
            Self::TooLong { len } => {
                write!(
                    f,
                    "a topic has at most {MAX_TOPIC_LEN} bytes, this one {len}"
                )
            }
            Self::NotUtf8 { at } => write!(f, "a topic is UTF-8, byte {at} is not"),
            Self::ContainsNul { at } => {
                write!(
                    f,
                    "a topic does not contain the character U+0000, as here at byte {at}"
                )
            }
            Self::WildcardInName { at } => {
                write!(f, "a topic name contains no wildcard, as here at byte {at}")
            }
            Self::WildcardNotAlone { at } => {
                write!(
                    f,
                    "a wildcard stands alone in its level, unlike the one at byte {at}"
                )
            }
            Self::HashNotLast { at } => {
                write!(
                    f,
                    "`#` is the last level of a filter, unlike the one at byte {at}"
                )
            }
            Self::ShareGroup => {
                f.write_str("the group of a shared filter has a name without wildcards")
            }
            Self::ShareWithoutFilter => {
                f.write_str("a shared filter has a filter behind its group")
            }
        }
    }
}

impl std::error::Error for TopicError {}
