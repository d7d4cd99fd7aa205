//! Signed headers, and the header form of a signature.

use std::fmt;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::escape;
use crate::list::List;
use crate::request::{Request, is_token};
use crate::target::Target;
use crate::text::Text;

/// The headers of a signature, to be added to the request before it is sent.
///
/// Overwritten when dropped, and not shown by `Debug`: a session token is among them.
#[derive(Clone)]
pub struct SignedHeaders {
    pub(crate) authorization: Zeroizing<String>,
    pub(crate) date: String,
    pub(crate) session_token: Option<Zeroizing<String>>,
    pub(crate) content_sha256: Option<String>,
}

impl SignedHeaders {
    /// The value of `authorization`.
    #[must_use]
    pub fn authorization(&self) -> &str {
        &self.authorization
    }

    /// Names, in lower case, and values: `authorization`, `x-amz-date`, and where they apply `x-amz-security-token` and
    /// `x-amz-content-sha256`. All of them have to be sent.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let always = [
            (AUTHORIZATION, self.authorization.as_str()),
            (DATE, self.date.as_str()),
        ];
        let token = self
            .session_token
            .as_ref()
            .map(|token| (SECURITY_TOKEN, token.as_str()));
        let hash = self
            .content_sha256
            .as_ref()
            .map(|hash| (CONTENT_SHA256, hash.as_str()));
        always.into_iter().chain(token).chain(hash)
    }
}

impl fmt::Debug for SignedHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}

pub(crate) const AUTHORIZATION: &str = "authorization";
pub(crate) const DATE: &str = "x-amz-date";
pub(crate) const SECURITY_TOKEN: &str = "x-amz-security-token";
pub(crate) const CONTENT_SHA256: &str = "x-amz-content-sha256";

/// The headers that are signed, sorted by name.
pub(crate) struct SignedNames<'a>(List<Header<'a>>);

/// One header; repeated ones follow one another in the order of their arrival.
#[derive(Clone, Copy, Default)]
struct Header<'a> {
    name: &'a str,
    /// `None` for the host, which is written from the URL.
    value: Option<&'a str>,
}

impl<'a> SignedNames<'a> {
    /// `Host`, the caller's headers and `own`, those of the signature.
    pub(crate) fn collect(
        request: &Request<'a>,
        target: &Target<'_>,
        own: &[Option<(&'static str, &'a str)>],
        reserved: &[&'static str],
    ) -> Result<Self, Error> {
        let mut list = List::new();
        list.push(Header {
            name: "host",
            value: None,
        });
        for &(name, value) in request.headers {
            if !is_token(name) {
                return Err(Error::InvalidHeaderName);
            }
            if value
                .bytes()
                .any(|byte| byte.is_ascii_control() && byte != b'\t')
            {
                return Err(Error::InvalidHeaderValue);
            }
            if let Some(reserved) = reserved
                .iter()
                .find(|other| other.eq_ignore_ascii_case(name))
            {
                return Err(Error::ReservedHeader(reserved));
            }
            if name.eq_ignore_ascii_case("host") {
                if !target.is_host(value) {
                    return Err(Error::HostMismatch);
                }
            } else if !is_never_signed(name) {
                list.push(Header {
                    name,
                    value: Some(value),
                });
            }
        }
        for &(name, value) in own.iter().flatten() {
            list.push(Header {
                name,
                value: Some(value),
            });
        }
        // Stable, and free of allocations for a list this short.
        if !list
            .as_slice()
            .is_sorted_by(|a, b| a.lower_case().le(b.lower_case()))
        {
            list.as_mut_slice()
                .sort_by(|a, b| a.lower_case().cmp(b.lower_case()));
        }
        Ok(Self(list))
    }

    /// Appends `name:value` lines, repeated names joined by commas.
    pub(crate) fn write_canonical(&self, out: &mut Text, target: &Target<'_>) {
        let mut previous: Option<&str> = None;
        for header in self.0.as_slice() {
            if previous.is_some_and(|name| name.eq_ignore_ascii_case(header.name)) {
                // In place of the line end.
                out.truncate(out.len() - 1);
                out.push(b',');
            } else {
                escape::push_lower_case(out, header.name);
                out.push(b':');
            }
            match header.value {
                Some(value) => push_folded(out, value),
                None => target.write_host(out),
            }
            out.push(b'\n');
            previous = Some(header.name);
        }
    }

    /// Appends the names, each once.
    pub(crate) fn write_names(&self, out: &mut Text, separator: &str) {
        let mut previous: Option<&str> = None;
        for header in self.0.as_slice() {
            if previous.is_some_and(|name| name.eq_ignore_ascii_case(header.name)) {
                continue;
            }
            if previous.is_some() {
                out.push_str(separator);
            }
            escape::push_lower_case(out, header.name);
            previous = Some(header.name);
        }
    }

    /// An upper bound of the names, separators of three characters included.
    pub(crate) fn names_len(&self) -> usize {
        self.0
            .as_slice()
            .iter()
            .map(|header| header.name.len() + 3)
            .sum()
    }

    /// An upper bound of lines and names together.
    pub(crate) fn max_len(&self, target: &Target<'_>) -> usize {
        let lines: usize = self
            .0
            .as_slice()
            .iter()
            .map(|header| {
                header.name.len() + header.value.map_or_else(|| target.url_len(), str::len) + 2
            })
            .sum();
        lines + self.names_len()
    }
}

impl<'a> Header<'a> {
    fn lower_case(&self) -> impl Iterator<Item = u8> + 'a {
        self.name.bytes().map(|byte| byte.to_ascii_lowercase())
    }
}

/// Trims, and makes one space of each run of spaces and tabs.
fn push_folded(out: &mut Text, value: &str) {
    let mut words = value.split([' ', '\t']).filter(|word| !word.is_empty());
    if let Some(first) = words.next() {
        out.push_str(first);
    }
    for word in words {
        out.push(b' ');
        out.push_str(word);
    }
}

/// Headers that clients set late, and that proxies change or drop: those that the AWS CRT and botocore leave out.
fn is_never_signed(name: &str) -> bool {
    const NAMES: [&str; 12] = [
        "baggage",
        "connection",
        "expect",
        "keep-alive",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-amzn-trace-id",
    ];
    const PREFIXES: [&str; 2] = ["proxy-", "sec-websocket-"];
    NAMES.iter().any(|other| other.eq_ignore_ascii_case(name))
        || PREFIXES.iter().any(|prefix| {
            name.get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(headers: &[(&str, &str)]) -> Result<(String, String), Error> {
        let target = Target::parse("https://Example.com:8443/").unwrap();
        let request = Request::new("GET", "").headers(headers);
        let signed = SignedNames::collect(&request, &target, &[], &[AUTHORIZATION])?;
        let (mut lines, mut names) = (Text::default(), Text::default());
        signed.write_canonical(&mut lines, &target);
        signed.write_names(&mut names, ";");
        assert!(lines.len() + names.len() <= signed.max_len(&target));
        Ok((lines.into_string(), names.into_string()))
    }

    #[test]
    fn headers_are_lowered_sorted_joined_and_folded() {
        let (lines, names) = canonical(&[
            ("X-B", "  one \t two  "),
            ("x-A", "2"),
            ("Accept", ""),
            ("X-a", "1"),
            ("X-A", " 3 "),
        ])
        .unwrap();
        assert_eq!(
            lines,
            "accept:\nhost:example.com:8443\nx-a:2,1,3\nx-b:one two\n"
        );
        assert_eq!(names, "accept;host;x-a;x-b");
    }

    #[test]
    fn a_name_sorts_before_a_longer_one_and_in_lower_case() {
        let (_, names) = canonical(&[("b_", "1"), ("B", "2"), ("B-a", "3")]).unwrap();
        assert_eq!(names, "b;b-a;b_;host");
    }

    #[test]
    fn headers_that_change_on_the_way_are_left_out() {
        for name in [
            "Connection",
            "UPGRADE",
            "Sec-WebSocket-Key",
            "proxy-authorization",
            "te",
        ] {
            assert_eq!(canonical(&[(name, "x")]).unwrap().1, "host", "{name}");
        }
        assert_eq!(
            canonical(&[("proxy", "x"), ("tea", "x")]).unwrap().1,
            "host;proxy;tea"
        );
    }

    #[test]
    fn the_host_header_has_to_be_that_of_the_url() {
        for host in ["example.com:8443", " EXAMPLE.com:8443 "] {
            assert_eq!(canonical(&[("Host", host)]).unwrap().1, "host");
        }
        for host in [
            "example.com",
            "example.org:8443",
            "",
            "user@example.com:8443",
        ] {
            assert_eq!(canonical(&[("Host", host)]), Err(Error::HostMismatch));
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        for name in ["", "a b", "a:b", "ä", "a\n"] {
            assert_eq!(canonical(&[(name, "x")]), Err(Error::InvalidHeaderName));
        }
        for value in ["a\r\n b", "a\nb", "a\0", "\u{7f}"] {
            assert_eq!(canonical(&[("a", value)]), Err(Error::InvalidHeaderValue));
        }
        assert_eq!(
            canonical(&[("Authorization", "x")]),
            Err(Error::ReservedHeader("authorization"))
        );
    }
}
