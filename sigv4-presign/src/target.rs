//! A URL taken apart, with what could not be signed right refused.

use core::net::Ipv6Addr;

use crate::error::Error;
use crate::escape;
use crate::text::Text;

/// The parts of a URL, checked. Nothing is copied.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// In the caller's case.
    scheme: &'a str,
    host: Host<'a>,
    /// `None` where the scheme implies it.
    port: Option<u16>,
    /// Percent-encoded; empty or beginning with a slash.
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
}

#[derive(Clone, Copy)]
struct Host<'a> {
    /// In the caller's case, an IPv6 address with its brackets.
    text: &'a str,
    has_upper_case: bool,
}

impl<'a> Target<'a> {
    pub(crate) fn parse(url: &'a str) -> Result<Self, Error> {
        // Without an early end, so that the compiler makes vectors of it.
        if url
            .bytes()
            .fold(false, |found, byte| found | byte.is_ascii_control())
        {
            return Err(Error::ControlCharacterInUrl);
        }
        let (scheme, rest) = split_at_first(url, |byte| byte == b':');
        let rest = rest.strip_prefix("://").ok_or(Error::MalformedUrl)?;
        let default_port = default_port(scheme).ok_or(Error::UnsupportedScheme)?;
        let (host, port, rest) = split_authority(rest)?;
        let (path, rest) = split_at_first(rest, |byte| matches!(byte, b'?' | b'#'));
        let (query, fragment) = split_at_first(rest, |byte| byte == b'#');
        if !fragment.is_empty() {
            return Err(Error::FragmentInUrl);
        }
        let query = query.strip_prefix('?').unwrap_or_default();
        check_path(path)?;
        Ok(Self {
            scheme,
            host,
            port: port.filter(|&port| port != default_port),
            path,
            query,
        })
    }

    /// Appends what the `Host` header says: in lower case, without the port that the scheme implies.
    pub(crate) fn write_host(&self, out: &mut Text) {
        if self.host.has_upper_case {
            escape::push_lower_case(out, self.host.text);
        } else {
            out.push_str(self.host.text);
        }
        if let Some(port) = self.port {
            out.push(b':');
            push_decimal(out, port.into());
        }
    }

    /// Appends everything up to and without the query. An empty path becomes `/`, as it is sent.
    pub(crate) fn write_url(&self, out: &mut Text) {
        escape::push_lower_case(out, self.scheme);
        out.push_str("://");
        self.write_host(out);
        out.push_str(if self.path.is_empty() { "/" } else { self.path });
    }

    /// Whether this is what the `Host` header says, the implied port being optional.
    pub(crate) fn is_host(&self, header: &str) -> bool {
        let header = header.trim_matches([' ', '\t']);
        let Ok((host, port, "")) = split_authority(header) else {
            return false;
        };
        let port = port.filter(|&port| default_port(self.scheme) != Some(port));
        host.text.eq_ignore_ascii_case(self.host.text) && port == self.port
    }

    /// An upper bound of what `write_url` appends.
    pub(crate) fn url_len(&self) -> usize {
        self.scheme.len()
            + "://".len()
            + self.host.text.len()
            + ":65535".len()
            + self.path.len()
            + 1
    }
}

/// Splits before the first of some ASCII characters. For texts this short, a plain loop beats a search.
fn split_at_first(text: &str, is_end: impl Fn(u8) -> bool) -> (&str, &str) {
    text.split_at(text.bytes().position(is_end).unwrap_or(text.len()))
}

fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss") {
        Some(443)
    } else if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("ws") {
        Some(80)
    } else {
        None
    }
}

/// Takes host and port off what follows the scheme, and gives the rest too, which begins with `/`, `?` or `#`.
fn split_authority(text: &str) -> Result<(Host<'_>, Option<u16>, &str), Error> {
    let host = if text.starts_with('[') {
        split_address(text)
    } else {
        split_name(text)
    };
    let split = host.ok_or(Error::InvalidHost).and_then(|(host, rest)| {
        let (port, rest) = split_at_first(rest, ends_authority);
        let port = match port {
            // An empty port means none (RFC 3986, 3.2.3).
            "" | ":" => None,
            _ => Some(parse_port(port)?),
        };
        Ok((host, port, rest))
    });
    // Neither a host nor a port can hold the sign that ends user information.
    if split.is_err() && split_at_first(text, ends_authority).0.contains('@') {
        return Err(Error::UserInfoInUrl);
    }
    split
}

fn ends_authority(byte: u8) -> bool {
    matches!(byte, b'/' | b'?' | b'#')
}

/// An IPv6 address in brackets, and what follows it.
fn split_address(text: &str) -> Option<(Host<'_>, &str)> {
    let end = text.find(']')?;
    text.get(1..end)?.parse::<Ipv6Addr>().ok()?;
    let (text, rest) = text.split_at(end + 1);
    let has_upper_case = text.bytes().any(|byte| byte.is_ascii_uppercase());
    let host = Host {
        text,
        has_upper_case,
    };
    Some((host, rest))
}

/// A DNS name (underscores occur) or IPv4 address, and what follows it. A dot may end it.
fn split_name(text: &str) -> Option<(Host<'_>, &str)> {
    let (mut label, mut len, mut seen) = (0, 0, 0);
    for (at, byte) in text.bytes().enumerate() {
        let class = NAME[byte as usize];
        if class == OTHER {
            match byte {
                b'.' if at > label && at - label <= MAX_LABEL => label = at + 1,
                b':' | b'/' | b'?' | b'#' => break,
                _ => return None,
            }
        }
        seen |= class;
        len = at + 1;
    }
    let (text, rest) = text.split_at(len);
    let host = Host {
        text,
        has_upper_case: seen & UPPER_CASE != 0,
    };
    (len - label <= MAX_LABEL && (1..=MAX_NAME).contains(&len)).then_some((host, rest))
}

fn parse_port(text: &str) -> Result<u16, Error> {
    text.strip_prefix(':')
        // The parser would take a sign.
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .filter(|&port| port != 0)
        .ok_or(Error::InvalidPort)
}

/// RFC 1035, 2.3.4, with the final dot.
const MAX_NAME: usize = 254;
const MAX_LABEL: usize = 63;

/// What each byte is in a name. A set of two bits, so that one look at each byte tells of the whole name.
const NAME: [u8; 256] = table(b"-_");
const PATH: [u8; 256] = table(b"-_.~/!$&'()*+,;=:@");

const OTHER: u8 = 0;
const UPPER_CASE: u8 = 1;
const ALLOWED: u8 = 2;

/// Letters, digits and some more.
const fn table(more: &[u8]) -> [u8; 256] {
    let mut table = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'A'..=b'Z' => UPPER_CASE,
            b'a'..=b'z' | b'0'..=b'9' => ALLOWED,
            _ => OTHER,
        };
        byte += 1;
    }
    let mut at = 0;
    while at < more.len() {
        table[more[at] as usize] = ALLOWED;
        at += 1;
    }
    table
}

/// RFC 3986's path characters, with whole escapes only.
fn check_path(path: &str) -> Result<(), Error> {
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match (byte, tail) {
            (b'%', [high, low, tail @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                tail
            }
            (b'%', _) => return Err(Error::InvalidPath),
            _ if PATH[byte as usize] != OTHER => tail,
            _ => return Err(Error::InvalidPath),
        };
    }
    Ok(())
}

pub(crate) fn push_decimal(out: &mut Text, number: u64) {
    let mut digits = [0; 20];
    let mut rest = number;
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push_bytes(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(url: &str) -> Result<String, Error> {
        let target = Target::parse(url)?;
        let mut out = Text::default();
        target.write_url(&mut out);
        assert!(out.len() <= target.url_len());
        Ok(out.into_string())
    }

    #[test]
    fn the_host_is_what_the_host_header_says() {
        for (given, expected) in [
            ("https://Example.COM", "https://example.com/"),
            ("WSS://example.com:443/mqtt", "wss://example.com/mqtt"),
            ("ws://example.com:80", "ws://example.com/"),
            ("https://example.com:80/", "https://example.com:80/"),
            ("wss://example.com:08443/", "wss://example.com:8443/"),
            ("wss://example.com:/", "wss://example.com/"),
            (
                "https://[2001:DB8::1]:65535/a",
                "https://[2001:db8::1]:65535/a",
            ),
            ("http://127.0.0.1:1", "http://127.0.0.1:1/"),
            ("https://a_b.example.com.?x", "https://a_b.example.com./"),
        ] {
            assert_eq!(url(given).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn bad_hosts_are_refused() {
        let long_label = format!("https://{}/", "a".repeat(64));
        let long_name = format!("https://{}/", "a.".repeat(128));
        for (given, error) in [
            ("", Error::MalformedUrl),
            ("example.com/mqtt", Error::MalformedUrl),
            ("/mqtt", Error::MalformedUrl),
            ("ftp://example.com/", Error::UnsupportedScheme),
            ("mqtts://example.com/", Error::UnsupportedScheme),
            ("https:///mqtt", Error::InvalidHost),
            ("https://?a", Error::InvalidHost),
            ("https://:443/", Error::InvalidHost),
            ("https://a..b/", Error::InvalidHost),
            ("https://.a/", Error::InvalidHost),
            ("https://exa mple/", Error::InvalidHost),
            ("https://bücher.example/", Error::InvalidHost),
            ("https://a%2eb/", Error::InvalidHost),
            ("https://a\\b/", Error::InvalidHost),
            ("https://[::1/", Error::InvalidHost),
            ("https://[::g]/", Error::InvalidHost),
            ("https://[::1%25eth0]/", Error::InvalidHost),
            (&long_label, Error::InvalidHost),
            (&long_name, Error::InvalidHost),
            ("https://user:secret@example.com/", Error::UserInfoInUrl),
            ("https://[::1]x/", Error::InvalidPort),
            ("https://a:0/", Error::InvalidPort),
            ("https://a:+1/", Error::InvalidPort),
            ("https://a:65536/", Error::InvalidPort),
            ("https://a:1:2/", Error::InvalidPort),
            ("https://a/#b", Error::FragmentInUrl),
            ("https://a/?b#c", Error::FragmentInUrl),
            ("https://a/\nb", Error::ControlCharacterInUrl),
            ("https://a/?b\r\n", Error::ControlCharacterInUrl),
            ("https://a/\u{7f}", Error::ControlCharacterInUrl),
            ("https://a/b c", Error::InvalidPath),
            ("https://a/ü", Error::InvalidPath),
            ("https://a/%", Error::InvalidPath),
            ("https://a/%4", Error::InvalidPath),
            ("https://a/%4g", Error::InvalidPath),
            ("https://a/\"", Error::InvalidPath),
        ] {
            assert_eq!(url(given), Err(error), "{given}");
        }
        assert!(url(&format!("https://{}/", "a".repeat(63))).is_ok());
        assert!(url(&format!("https://{}/", "a.".repeat(127))).is_ok());
    }

    #[test]
    fn decimals() {
        let mut out = Text::default();
        push_decimal(&mut out, 0);
        push_decimal(&mut out, 604_800);
        push_decimal(&mut out, u64::MAX);
        assert_eq!(out.into_string(), format!("0604800{}", u64::MAX));
    }
}
