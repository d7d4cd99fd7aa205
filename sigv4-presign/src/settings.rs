//! What the service expects of a signature.

use std::time::Duration;

use crate::error::Error;

/// Region, service and the rules that differ from service to service.
///
/// Borrows its two names, so that making one costs nothing. [`Settings::new`] is right for most services;
/// [`Settings::iot`] and [`Settings::s3`] carry the exceptions of those two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings<'a> {
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
    pub(crate) path: PathMode,
    pub(crate) session_token: SessionTokenMode,
    pub(crate) content_sha256: ContentSha256Header,
    pub(crate) expires: Option<Duration>,
}

/// How the path is written in the canonical request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PathMode {
    /// Dot segments and empty segments are removed, and the path, encoded once on the wire, is encoded a second time.
    /// Every service but S3. The default.
    Normalized,
    /// The path as it is on the wire. S3, where `a//b` and `a/../b` are names of their own.
    AsSent,
}

/// Whether the session token is part of what is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionTokenMode {
    /// The token is a signed parameter or header. The default.
    Signed,
    /// The token is added after the signature was computed. AWS IoT's WebSocket endpoint answers 403 otherwise.
    Appended,
}

/// Whether [`sign_headers`](crate::sign_headers) adds `x-amz-content-sha256`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContentSha256Header {
    /// Not added. The default.
    Omit,
    /// Added and signed. S3 insists on it.
    Send,
}

impl<'a> Settings<'a> {
    /// The shortest expiry that can be asked for: a second.
    pub const MIN_EXPIRES: Duration = Duration::from_secs(1);

    /// The longest expiry that can be asked for: seven days, after which AWS refuses any presigned URL.
    pub const MAX_EXPIRES: Duration = Duration::from_secs(604_800);

    /// The usual rules: a normalised and twice encoded path, a signed session token, no expiry.
    ///
    /// `service` is the *signing name*, such as `execute-api` or `iotdata`.
    #[must_use]
    pub fn new(region: &'a str, service: &'a str) -> Self {
        Self {
            region,
            service,
            path: PathMode::Normalized,
            session_token: SessionTokenMode::Signed,
            content_sha256: ContentSha256Header::Omit,
            expires: None,
        }
    }

    /// The rules of AWS IoT's MQTT-over-WebSocket endpoint: service `iotdevicegateway`, the session token appended
    /// after the signature, no expiry (the service takes one but lets no URL live longer for it).
    #[must_use]
    pub fn iot(region: &'a str) -> Self {
        Self::new(region, "iotdevicegateway").session_token(SessionTokenMode::Appended)
    }

    /// The rules of S3: the path as it is sent. For headers add
    /// [`content_sha256`](Self::content_sha256)`(Send)`; for a URL take [`Payload::Unsigned`](crate::Payload::Unsigned)
    /// and an expiry.
    #[must_use]
    pub fn s3(region: &'a str) -> Self {
        Self::new(region, "s3").path(PathMode::AsSent)
    }

    /// How the path is canonicalised; [`PathMode::Normalized`] by default.
    #[must_use]
    pub fn path(mut self, mode: PathMode) -> Self {
        self.path = mode;
        self
    }

    /// Whether the session token is signed; [`SessionTokenMode::Signed`] by default.
    #[must_use]
    pub fn session_token(mut self, mode: SessionTokenMode) -> Self {
        self.session_token = mode;
        self
    }

    /// Whether signed headers include `x-amz-content-sha256`; [`ContentSha256Header::Omit`] by default. A presigned
    /// URL has no headers of its own, so presigning with [`ContentSha256Header::Send`] is an error.
    #[must_use]
    pub fn content_sha256(mut self, mode: ContentSha256Header) -> Self {
        self.content_sha256 = mode;
        self
    }

    /// Adds `X-Amz-Expires`, in whole seconds (a fraction is cut), from [`MIN_EXPIRES`](Self::MIN_EXPIRES) to
    /// [`MAX_EXPIRES`](Self::MAX_EXPIRES). Without it the service's own default holds. Signed headers have no expiry,
    /// so signing headers with one is an error. Whatever is set, a URL dies with the session credentials that signed it.
    #[must_use]
    pub fn expires(mut self, expires: Duration) -> Self {
        self.expires = Some(expires);
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if !is_scope_name(self.region) {
            return Err(Error::InvalidRegion);
        }
        if !is_scope_name(self.service) {
            return Err(Error::InvalidService);
        }
        match self.expires {
            Some(expires) if expires < Self::MIN_EXPIRES || expires > Self::MAX_EXPIRES => {
                Err(Error::ExpiresOutOfRange)
            }
            _ => Ok(()),
        }
    }
}

/// A slash would shift the parts of the scope; with the unreserved characters alone it never needs an escape.
fn is_scope_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(crate::escape::is_unreserved)
}
