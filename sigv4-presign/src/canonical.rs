//! The canonical request and the string to sign.
//!
//! Source: "Create a signed AWS API request" in the IAM user guide, and what AWS's own signers do where it is silent.

use crate::error::Error;
use crate::escape;
use crate::headers::SignedNames;
use crate::key::TERMINATOR;
use crate::list::List;
use crate::request::Request;
use crate::settings::{PathMode, Settings};
use crate::stamp::Stamp;
use crate::target::Target;
use crate::text::Text;

/// Where one encoded parameter lies in the text that holds the query.
#[derive(Clone, Copy, Default)]
pub(crate) struct Parameter {
    start: usize,
    equals: usize,
    end: usize,
}

impl Parameter {
    /// The parameter at the end of `text`, whose name starts at `start` and whose `=` is at `equals`.
    pub(crate) fn ending(text: &Text, start: usize, equals: usize) -> Self {
        Self {
            start,
            equals,
            end: text.len(),
        }
    }

    fn name<'t>(&self, text: &'t Text) -> &'t [u8] {
        &text.as_bytes()[self.start..self.equals]
    }

    fn value<'t>(&self, text: &'t Text) -> &'t [u8] {
        &text.as_bytes()[self.equals + 1..self.end]
    }
}

pub(crate) type Query = List<Parameter>;

/// Appends the caller's query, re-encoded, to `text`, and its parameters to `parameters`.
///
/// Pieces between `&` that are empty are dropped; a name without `=` gets an empty value.
pub(crate) fn write_query(
    text: &mut Text,
    query: &str,
    parameters: &mut Query,
) -> Result<(), Error> {
    let first = text.len();
    for piece in query.split('&').filter(|piece| !piece.is_empty()) {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        if text.len() > first {
            text.push(b'&');
        }
        let start = text.len();
        escape::reencode(text, name);
        // The reserved names have no character that is escaped, so the encoded name will do. Some
        // services compare names without regard to case.
        let encoded = &text.as_bytes()[start..];
        if let Some(reserved) = RESERVED
            .iter()
            .find(|name| name.as_bytes().eq_ignore_ascii_case(encoded))
        {
            return Err(Error::ReservedParameter(reserved));
        }
        let equals = text.len();
        text.push(b'=');
        escape::reencode(text, value);
        parameters.push(Parameter::ending(text, start, equals));
    }
    Ok(())
}

const RESERVED: [&str; 8] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Region-Set",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
];

/// Everything that a canonical request is made of.
pub(crate) struct Canonical<'a> {
    pub(crate) request: &'a Request<'a>,
    pub(crate) target: &'a Target<'a>,
    pub(crate) path: PathMode,
    /// The text that `parameters` lie in.
    pub(crate) query: &'a Text,
    /// In the order of their encoded names, then values.
    pub(crate) parameters: &'a [Parameter],
    pub(crate) headers: &'a SignedNames<'a>,
}

impl Canonical<'_> {
    /// Appends the canonical request to `out`.
    pub(crate) fn write(&self, out: &mut Text) {
        out.push_str(self.request.method);
        out.push(b'\n');
        write_path(out, self.target.path, self.path);
        out.push(b'\n');
        self.write_query(out);
        out.push(b'\n');
        self.headers.write_canonical(out, self.target);
        out.push(b'\n');
        self.headers.write_names(out, ";");
        out.push(b'\n');
        self.request.payload.write_hash(out);
    }

    /// Parameters that follow one another in the text already, mostly all of them, are copied in one piece.
    fn write_query(&self, out: &mut Text) {
        let mut rest = self.parameters;
        while let Some(first) = rest.first() {
            let mut end = first.end;
            let mut run = 1;
            while let Some(next) = rest.get(run).filter(|next| next.start == end + 1) {
                end = next.end;
                run += 1;
            }
            out.push_bytes(&self.query.as_bytes()[first.start..end]);
            rest = &rest[run..];
            if !rest.is_empty() {
                out.push(b'&');
            }
        }
    }

    /// An upper bound of what `write` appends; reserving it means that nothing is ever copied.
    pub(crate) fn max_len(&self) -> usize {
        self.request.method.len()
            + 3 * self.target.path.len()
            + self
                .parameters
                .iter()
                .map(|p| p.end - p.start + 1)
                .sum::<usize>()
            + self.headers.max_len(self.target)
            + 64
            + 8
    }
}

/// Sorts by encoded name, then encoded value, in byte order.
pub(crate) fn sort(parameters: &mut [Parameter], text: &Text) {
    parameters
        .sort_unstable_by(|a, b| (a.name(text), a.value(text)).cmp(&(b.name(text), b.value(text))));
}

/// Appends the canonical form of a path that is percent-encoded once.
pub(crate) fn write_path(out: &mut Text, path: &str, mode: PathMode) {
    let start = out.len();
    match mode {
        PathMode::AsSent => out.push_str(path),
        PathMode::Normalized => {
            for segment in path.as_bytes().split(|&byte| byte == b'/') {
                match segment {
                    b"" | b"." => {}
                    b".." => {
                        let parent = out.as_bytes()[start..]
                            .iter()
                            .rposition(|&byte| byte == b'/')
                            .unwrap_or(0);
                        out.truncate(start + parent);
                    }
                    _ => {
                        out.push(b'/');
                        escape::encode(out, segment);
                    }
                }
            }
            // A path that ends in a dot segment loses its slash, unlike in RFC 3986. botocore and
            // the AWS CRT agree on that, and the services with them.
            if path.ends_with('/') && out.len() > start {
                out.push(b'/');
            }
        }
    }
    if out.len() == start {
        out.push(b'/');
    }
}

pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Appends the string to sign, given the hash of the canonical request.
pub(crate) fn write_string_to_sign(
    out: &mut Text,
    hash: &[u8; 32],
    stamp: &Stamp,
    settings: &Settings<'_>,
) {
    out.push_str(ALGORITHM);
    out.push(b'\n');
    out.push_bytes(stamp.as_bytes());
    out.push(b'\n');
    write_scope(out, stamp, settings, "/");
    out.push(b'\n');
    escape::push_hex(out, hash);
}

/// An upper bound of the string to sign.
pub(crate) fn string_to_sign_len(settings: &Settings<'_>) -> usize {
    ALGORITHM.len() + 16 + scope_len(settings) + 64 + 3
}

/// Appends the credential scope, its parts joined by `slash`, which is escaped in a query.
pub(crate) fn write_scope(out: &mut Text, stamp: &Stamp, settings: &Settings<'_>, slash: &str) {
    out.push_bytes(&stamp.day());
    for part in [settings.region, settings.service, TERMINATOR] {
        out.push_str(slash);
        out.push_str(part);
    }
}

/// An upper bound of the scope, slashes escaped.
pub(crate) fn scope_len(settings: &Settings<'_>) -> usize {
    8 + settings.region.len() + settings.service.len() + TERMINATOR.len() + 3 * "%2F".len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str, mode: PathMode) -> String {
        let mut out = Text::from("before".to_owned());
        write_path(&mut out, path, mode);
        out.into_string().split_off("before".len())
    }

    #[test]
    fn paths_are_normalised_and_encoded_again() {
        for (given, expected) in [
            ("", "/"),
            ("/", "/"),
            ("//", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("//a//b//", "/a/b/"),
            ("/./a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../a", "/a"),
            ("/a/b/..", "/a"),
            ("/a/.", "/a"),
            ("/a/b/../", "/a/"),
            ("/a/..", "/"),
            ("/..", "/"),
            ("/a/%2E%2E/b", "/a/%252E%252E/b"),
            ("/a%20b", "/a%2520b"),
            (
                "/a!'()*,;=:@$&+~",
                "/a%21%27%28%29%2A%2C%3B%3D%3A%40%24%26%2B~",
            ),
            ("/.../..a", "/.../..a"),
        ] {
            assert_eq!(path(given, PathMode::Normalized), expected, "{given}");
        }
    }

    #[test]
    fn s3_paths_stay() {
        for given in ["/", "/a//b/../%20!/", "/."] {
            assert_eq!(path(given, PathMode::AsSent), given);
        }
        assert_eq!(path("", PathMode::AsSent), "/");
    }

    fn canonical_query(query: &str) -> Result<String, Error> {
        let (mut text, mut parameters) = (Text::default(), Query::new());
        write_query(&mut text, query, &mut parameters)?;
        sort(parameters.as_mut_slice(), &text);
        let text = text.into_string();
        let sorted: Vec<&str> = parameters
            .as_slice()
            .iter()
            .map(|p| &text[p.start..p.end])
            .collect();
        Ok(sorted.join("&"))
    }

    #[test]
    fn queries_are_sorted_by_their_encoded_bytes() {
        for (given, expected) in [
            ("", ""),
            ("&&", ""),
            ("a", "a="),
            ("=", "="),
            ("a=b=c", "a=b%3Dc"),
            ("b=2&a=1&&b=1&b=", "a=1&b=&b=1&b=2"),
            ("a-=2&a=1", "a=1&a-=2"),
            ("ä=1&z=2&Z=3", "%C3%A4=1&Z=3&z=2"),
            ("a=+&b=%2b", "a=%2B&b=%2B"),
            ("k=%ff%FE", "k=%FF%FE"),
            ("k=%7e%41", "k=~A"),
        ] {
            assert_eq!(canonical_query(given).as_deref(), Ok(expected), "{given}");
        }
    }

    #[test]
    fn the_names_of_the_signature_are_reserved_in_any_spelling() {
        for name in RESERVED {
            for spelling in [
                name.to_owned(),
                name.to_ascii_lowercase(),
                name.replace("Amz", "%41mz"),
                format!("{name}=x"),
            ] {
                assert_eq!(
                    canonical_query(&format!("a=1&{spelling}")),
                    Err(Error::ReservedParameter(name)),
                );
            }
        }
        assert!(canonical_query("X-Amz-Content-Sha256=x&x-amz-customauthorizer-name=y").is_ok());
    }
}
