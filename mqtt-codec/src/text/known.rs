//! The topic that was checked last, so that a stream of messages on one topic has it checked once.

use super::TopicName;
use crate::error::Malformed;

/// A topic longer than this, in bytes, is checked each time: room for it would be held by every connection.
const MAX_LEN: usize = 128;

/// The name that was checked last: bytes that equal it need no check of their own.
#[derive(Clone, Debug)]
pub(crate) struct KnownTopic {
    /// At most `MAX_LEN`.
    len: u8,
    bytes: [u8; MAX_LEN],
}

impl KnownTopic {
    /// Knows the empty name, which passes the check.
    pub(crate) const NONE: Self = Self {
        len: 0,
        bytes: [0; MAX_LEN],
    };

    /// As [`TopicName::decode_or_empty`].
    #[inline(always)]
    pub(crate) fn check<'a>(&mut self, name: &'a [u8]) -> Result<TopicName<'a>, Malformed> {
        if same(name, self.name()) {
            return Ok(TopicName(name));
        }
        self.learn(name)
    }

    #[inline(never)]
    fn learn<'a>(&mut self, name: &'a [u8]) -> Result<TopicName<'a>, Malformed> {
        let name = TopicName::decode_or_empty(name)?;
        if let Some(room) = self.bytes.get_mut(..name.len()) {
            room.copy_from_slice(name.0);
            self.len = name.len() as u8;
        }
        Ok(name)
    }

    #[inline(always)]
    fn name(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Whether both are the same bytes. From 8 to 64 without a call, as two blocks that may overlap.
#[inline(always)]
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && match a.len() {
            8..16 => same_in_two::<8>(a, b),
            16..=32 => same_in_two::<16>(a, b),
            33..=64 => same_in_two::<32>(a, b),
            _ => a == b,
        }
}

/// Compares as many bytes as both have, between `N` and `2 * N`.
#[inline(always)]
fn same_in_two<const N: usize>(a: &[u8], b: &[u8]) -> bool {
    a.first_chunk::<N>() == b.first_chunk::<N>() && a.last_chunk::<N>() == b.last_chunk::<N>()
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn bytes_are_the_same_if_none_differs() {
        for len in 0..=130 {
            let a = vec![b'a'; len];
            assert!(same(&a, &a.clone()), "{len}");
            for at in 0..len {
                let mut b = a.clone();
                b[at] = b'b';
                assert!(!same(&a, &b), "{len}, {at}");
            }
            assert!(!same(&a, &vec![b'a'; len + 1]), "{len}");
        }
    }

    #[test]
    fn what_is_not_known_is_checked() {
        let mut known = KnownTopic::NONE;
        for len in [0, 1, 22, 64, MAX_LEN, MAX_LEN + 1, 1000] {
            let name = vec![b'a'; len];
            assert_eq!(known.check(&name), Ok(TopicName(&name)), "{len}");
            assert_eq!(known.check(&name), Ok(TopicName(&name)), "{len}, again");
            let held = known.clone();
            for (byte, error) in [
                (b'#', Malformed::WildcardInTopicName),
                (0, Malformed::NulInText),
                (0xff, Malformed::InvalidUtf8),
            ] {
                let mut broken = name.clone();
                broken.push(byte);
                assert_eq!(known.check(&broken), Err(error), "{len}");
            }
            assert_eq!(known.name(), held.name(), "what fails is not kept");
        }
    }

    #[test]
    fn the_longest_that_is_kept_fills_the_room() {
        let mut known = KnownTopic::NONE;
        let name = [b'a'; MAX_LEN + 1];
        let (kept, longer) = (&name[1..], &name[..]);
        known.check(kept).unwrap();
        known.check(longer).unwrap();
        assert_eq!(known.name(), kept);
    }
}
