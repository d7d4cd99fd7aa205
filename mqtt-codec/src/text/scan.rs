//! One pass over text: is it plain ASCII, without U+0000 and (where it matters) without wildcards?
//!
//! Written over fixed-size blocks so that the compiler turns the loops into vector compares; a block is read
//! twice rather than byte by byte when the length is no multiple of its size.

/// Whether `bytes` are ASCII without U+0000.
#[inline]
pub(super) fn is_plain(bytes: &[u8]) -> bool {
    no_byte_is(bytes, is_special)
}

/// Whether `bytes` are ASCII without U+0000 and without wildcards.
#[inline]
pub(super) fn is_plain_name(bytes: &[u8]) -> bool {
    no_byte_is(bytes, |byte| is_special(byte) | is_wildcard(byte))
}

/// What [`filter`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// ASCII without U+0000, every wildcard in its place.
    Plain,
    /// ASCII without U+0000, and a wildcard where none can be.
    Misplaced,
    /// U+0000 or not ASCII; wildcards were not looked at.
    Special,
}

/// Checks a topic filter, eight bytes at a time.
//= MQTT-4.7.1-1
//= MQTT-4.7.1-2
//= v3.1.1 MQTT-4.7.1-2
//= v3.1.1 MQTT-4.7.1-3
#[inline]
pub(super) fn filter(bytes: &[u8]) -> Filter {
    if is_plain_name(bytes) {
        return Filter::Plain;
    }
    let (words, rest) = bytes.as_chunks::<8>();
    let mut state = Levels::START;
    for word in words {
        state.push(u64::from_le_bytes(*word), HIGH_BITS);
    }
    if !rest.is_empty() {
        let missing = 8 * (8 - rest.len());
        let word = match bytes.last_chunk::<8>() {
            Some(last) => u64::from_le_bytes(*last) >> missing,
            None => rest
                .iter()
                .rev()
                .fold(0, |word, &byte| word << 8 | u64::from(byte)),
        };
        // What is missing at the end counts for nothing: neither as U+0000 nor as behind a wildcard.
        state.push(word, HIGH_BITS >> missing);
    }
    if state.special != 0 {
        Filter::Special
    } else if state.misplaced != 0 {
        Filter::Misplaced
    } else {
        Filter::Plain
    }
}

/// The same rule, level by level; for text that is not ASCII.
pub(super) fn wildcards_in_place(bytes: &[u8]) -> bool {
    let mut levels = bytes.split(|&byte| byte == b'/').peekable();
    while let Some(level) = levels.next() {
        let in_place = match level {
            b"+" => true,
            b"#" => levels.peek().is_none(),
            _ => !level.iter().any(|&byte| is_wildcard(byte)),
        };
        if !in_place {
            return false;
        }
    }
    true
}

/// Eight bytes at a time, one result bit a byte (its highest).
struct Levels {
    special: u64,
    misplaced: u64,
    /// The last byte was a slash, or there was none: a level begins. In the lowest byte.
    at_start: u64,
    after_plus: u64,
    after_hash: u64,
}

impl Levels {
    const START: Self = Self {
        special: 0,
        misplaced: 0,
        at_start: 0x80,
        after_plus: 0,
        after_hash: 0,
    };

    #[inline]
    fn push(&mut self, word: u64, valid: u64) {
        let high = word & HIGH_BITS;
        // Exact for bytes below 0x80, and anything else is reported as special.
        let is = |byte: u8| {
            !((word ^ (LOW_BITS * u64::from(byte))).wrapping_add(!HIGH_BITS)) & HIGH_BITS
        };
        let (slash, plus, hash) = (is(b'/'), is(b'+'), is(b'#'));
        self.special |= (high | is(0)) & valid;

        let starts = slash << 8 | self.at_start;
        let after_plus = plus << 8 | self.after_plus;
        let after_hash = hash << 8 | self.after_hash;
        // A wildcard begins its level; behind `+` the level ends; behind `#` nothing follows.
        self.misplaced |= ((plus | hash) & !starts | after_plus & !slash | after_hash) & valid;

        self.at_start = slash >> 56;
        self.after_plus = plus >> 56;
        self.after_hash = hash >> 56;
    }
}

#[inline]
fn no_byte_is(bytes: &[u8], special: impl Fn(u8) -> bool + Copy) -> bool {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<16>(), bytes.last_chunk::<16>()) {
        if bytes.len() <= 32 {
            return no_byte_of(first, special) & no_byte_of(last, special);
        }
        let (blocks, rest) = bytes.as_chunks::<16>();
        return blocks.iter().all(|block| no_byte_of(block, special))
            && (rest.is_empty() || no_byte_of(last, special));
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        return no_byte_of(first, special) & no_byte_of(last, special);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return no_byte_of(first, special) & no_byte_of(last, special);
    }
    !bytes.iter().any(|&byte| special(byte))
}

/// Without an early exit, so that it becomes vector code.
#[inline]
fn no_byte_of<const N: usize>(block: &[u8; N], special: impl Fn(u8) -> bool) -> bool {
    block
        .iter()
        .fold(false, |found, &byte| found | special(byte))
        ^ true
}

/// U+0000 or not ASCII: with the sign bit, one comparison.
#[inline]
const fn is_special(byte: u8) -> bool {
    byte.cast_signed() <= 0
}

/// `#` is 0x23 and `+` is 0x2B.
#[inline]
const fn is_wildcard(byte: u8) -> bool {
    byte | 0x08 == 0x2B
}

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![4 => prop::sample::select(b"/+#a".to_vec()), 1 => prop::sample::select(vec![0, 1, 0x7f, 0x80, 0xff, b'*', b'"', b'$', b'.'])]
    }

    proptest! {
        #[test]
        fn agrees_with_the_bytewise_check(bytes in prop::collection::vec(byte(), 0..70)) {
            let special = bytes.iter().any(|&b| b == 0 || b >= 0x80);
            let wild = bytes.iter().any(|b| matches!(b, b'+' | b'#'));
            prop_assert_eq!(is_plain(&bytes), !special);
            prop_assert_eq!(is_plain_name(&bytes), !special && !wild);
            let want = match (special, wildcards_in_place(&bytes)) {
                (true, _) => Filter::Special,
                (false, true) => Filter::Plain,
                (false, false) => Filter::Misplaced,
            };
            prop_assert_eq!(filter(&bytes), want);
        }
    }

    #[test]
    fn one_odd_byte_is_found_at_every_place() {
        for len in 1..70 {
            for place in 0..len {
                for odd in [0, 0x80, 0xff, b'+', b'#'] {
                    let mut bytes: Vec<u8> = core::iter::repeat_n(b'a', len).collect();
                    bytes[place] = odd;
                    assert_eq!(
                        is_plain(&bytes),
                        matches!(odd, b'+' | b'#'),
                        "{len} {place} {odd}"
                    );
                    assert!(!is_plain_name(&bytes), "{len} {place} {odd}");
                }
            }
        }
    }
}
