//! Why a request was not signed.

use std::fmt;

/// Why a request was not signed.
///
/// Every variant is a mistake in what was passed in; nothing here passes by itself, so there is nothing to retry. No
/// variant carries text of the caller's, so an error can be logged whatever the request held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// The URL has no `scheme://host` at its start.
    MalformedUrl,
    /// The scheme is none of `https`, `http`, `wss` and `ws`, which are those whose default ports are known.
    UnsupportedScheme,
    /// The URL names a user or password before the host. No client sends those as part of `Host`.
    UserInfoInUrl,
    /// The host is empty or holds something other than a DNS name in ASCII, an IPv4 address or a bracketed IPv6
    /// address. Pass the Punycode form of an internationalised name.
    InvalidHost,
    /// The port is not a number from 1 to 65535.
    InvalidPort,
    /// The URL has a fragment, which is never sent and would end up before the signature.
    FragmentInUrl,
    /// The path holds a character that has to be percent-encoded in a URL, or an incomplete percent escape. Which
    /// signature would be right for it depends on how the sender repairs it.
    InvalidPath,
    /// A control character in the URL.
    ControlCharacterInUrl,
    /// The query already has this parameter, which is the signature's.
    ReservedParameter(&'static str),
    /// The request already has this header, which is the signature's.
    ReservedHeader(&'static str),
    /// The request's `Host` header is not the host of its URL.
    HostMismatch,
    /// The method is not an HTTP token.
    InvalidMethod,
    /// The name of a header is not an HTTP token.
    InvalidHeaderName,
    /// The value of a header has a control character other than a tab (a folded line counts).
    InvalidHeaderValue,
    /// The region is empty or has a character other than letters, digits, `-`, `.`, `_` and `~`.
    InvalidRegion,
    /// The service is empty or has a character other than letters, digits, `-`, `.`, `_` and `~`.
    InvalidService,
    /// The access key ID is empty or has a character other than visible ASCII.
    InvalidAccessKeyId,
    /// The secret access key is empty or has a control character; mostly the line end of the file that it came from.
    InvalidSecretAccessKey,
    /// The session token has a control character or, where it is to be a header, one outside ASCII.
    InvalidSessionToken,
    /// `X-Amz-Expires` would be outside [`Settings::MIN_EXPIRES`](crate::Settings::MIN_EXPIRES) to
    /// [`Settings::MAX_EXPIRES`](crate::Settings::MAX_EXPIRES).
    ExpiresOutOfRange,
    /// The settings have an expiry, but a signature in the header form cannot carry one.
    ExpiresInHeaderForm,
    /// The settings ask for the `x-amz-content-sha256` header, but a presigned URL cannot make its user send one.
    ContentSha256InQueryForm,
    /// The time is before 1970 or after the year 9999.
    TimeOutOfRange,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MalformedUrl => "the URL does not begin with a scheme and a host",
            Self::UnsupportedScheme => "the scheme of the URL is none of https, http, wss and ws",
            Self::UserInfoInUrl => "the URL holds a user name or password",
            Self::InvalidHost => "the host of the URL is not a valid name or address",
            Self::InvalidPort => "the port of the URL is not a number from 1 to 65535",
            Self::FragmentInUrl => "the URL has a fragment",
            Self::InvalidPath => "the path of the URL is not percent-encoded",
            Self::ControlCharacterInUrl => "the URL holds a control character",
            Self::ReservedParameter(name) => {
                return write!(f, "the query already has the parameter {name}");
            }
            Self::ReservedHeader(name) => {
                return write!(f, "the request already has the header {name}");
            }
            Self::HostMismatch => "the Host header is not the host of the URL",
            Self::InvalidMethod => "the method is not an HTTP token",
            Self::InvalidHeaderName => "the name of a header is not an HTTP token",
            Self::InvalidHeaderValue => "the value of a header holds a control character",
            Self::InvalidRegion => "the region is empty or holds a reserved character",
            Self::InvalidService => "the service is empty or holds a reserved character",
            Self::InvalidAccessKeyId => "the access key ID is empty or is not visible ASCII",
            Self::InvalidSecretAccessKey => {
                "the secret access key is empty or holds a control character"
            }
            Self::InvalidSessionToken => "the session token holds a character that cannot be sent",
            Self::ExpiresOutOfRange => "the expiry is not between 1 second and 7 days",
            Self::ExpiresInHeaderForm => "signed headers cannot carry an expiry",
            Self::ContentSha256InQueryForm => "a presigned URL cannot carry a header",
            Self::TimeOutOfRange => "the time is outside the years 1970 to 9999",
        })
    }
}

impl std::error::Error for Error {}
