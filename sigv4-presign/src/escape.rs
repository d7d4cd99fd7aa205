//! Percent-encoding as Signature Version 4 wants it: everything but the unreserved characters, in upper-case hex.

use crate::text::Text;

/// RFC 3986's unreserved characters, the only ones that are never escaped.
pub(crate) const fn is_unreserved(byte: u8) -> bool {
    UNRESERVED[byte as usize]
}

/// Appends `bytes`, escaped.
pub(crate) fn encode(out: &mut Text, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let plain = rest.iter().take_while(|&&byte| is_unreserved(byte)).count();
        let (run, tail) = rest.split_at(plain);
        out.push_bytes(run);
        rest = match tail.split_first() {
            Some((&byte, tail)) => {
                push_escape(out, byte);
                tail
            }
            None => tail,
        };
    }
}

/// Appends `text` with its escapes decoded and everything escaped anew, which makes one spelling of many.
///
/// Bytes stay bytes: an escape that is no UTF-8 survives. A `%` without two hexadecimal digits is taken for itself, and
/// so is a `+`.
pub(crate) fn reencode(out: &mut Text, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let plain = rest.iter().take_while(|&&byte| byte != b'%').count();
        let (run, tail) = rest.split_at(plain);
        encode(out, run);
        rest = match tail {
            [] => return,
            [_, high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                encode(out, &[hex_value(*high) << 4 | hex_value(*low)]);
                tail
            }
            [percent, tail @ ..] => {
                push_escape(out, *percent);
                tail
            }
        };
    }
}

/// Appends a hash in lower-case hexadecimal.
pub(crate) fn push_hex(out: &mut Text, hash: &[u8; 32]) {
    // By arithmetic, of which the compiler makes vectors, unlike of a table.
    let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
    let mut digits = [0; 64];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(hash) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    out.push_bytes(&digits);
}

/// Appends `text` in lower case.
pub(crate) fn push_lower_case(out: &mut Text, text: &str) {
    let start = out.len();
    out.push_str(text);
    // Mostly it is in lower case already.
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        out.as_mut_bytes()[start..].make_ascii_lowercase();
    }
}

fn push_escape(out: &mut Text, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push_bytes(&[
        b'%',
        DIGITS[(byte >> 4) as usize],
        DIGITS[(byte & 15) as usize],
    ]);
}

/// Of an ASCII hexadecimal digit.
const fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

const UNRESERVED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] =
            (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'-' | b'_' | b'.' | b'~');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(bytes: &[u8]) -> String {
        let mut out = Text::default();
        encode(&mut out, bytes);
        out.into_string()
    }

    fn reencoded(text: &str) -> String {
        let mut out = Text::default();
        reencode(&mut out, text);
        out.into_string()
    }

    #[test]
    fn only_the_unreserved_characters_stay() {
        let kept: String = (0..=255u8)
            .filter(|&byte| encoded(&[byte]).len() == 1)
            .map(char::from)
            .collect();
        assert_eq!(
            kept,
            "-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
        );
        assert_eq!(
            encoded("a b*'()!/ü".as_bytes()),
            "a%20b%2A%27%28%29%21%2F%C3%BC"
        );
    }

    #[test]
    fn reencoding_makes_one_spelling_of_many() {
        assert_eq!(reencoded("%2f%7E%41+*"), "%2F~A%2B%2A");
        assert_eq!(reencoded("%ff%C3%bc ü"), "%FF%C3%BC%20%C3%BC");
    }

    #[test]
    fn an_incomplete_escape_is_a_percent_sign() {
        assert_eq!(reencoded("%"), "%25");
        assert_eq!(reencoded("%4"), "%254");
        assert_eq!(reencoded("%4g%41"), "%254gA");
        assert_eq!(reencoded("%%41"), "%25A");
    }

    #[test]
    fn hexadecimal_is_lower_case() {
        let mut out = Text::default();
        push_hex(
            &mut out,
            &std::array::from_fn(|byte| (byte as u8).wrapping_mul(0x9f)),
        );
        let out = out.into_string();
        assert!(out.starts_with("009f3edd7c1bba59"), "{out}");
        assert_eq!(out.len(), 64);
    }
}
