//! What is to be signed.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::escape;
use crate::text::Text;

/// A request as it will be sent. Borrows everything.
///
/// The path is signed as it stands, so it has to be percent-encoded already, exactly once. The query is rewritten (see
/// [`presign`](crate::presign)).
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) url: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) payload: Payload<'a>,
}

/// What the signature says of the request's body.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Payload<'a> {
    /// There is none. What AWS IoT's WebSocket endpoint wants.
    Empty,
    /// These bytes; they are hashed.
    Bytes(&'a [u8]),
    /// Bytes whose SHA-256 is this.
    Sha256([u8; 32]),
    /// `UNSIGNED-PAYLOAD`: whatever is sent. S3 and few others accept it; it is what presigned S3 URLs use.
    Unsigned,
}

impl<'a> Request<'a> {
    /// A request with an empty body and no header but `Host`, which the URL gives.
    ///
    /// `url` is absolute, with the scheme `https`, `http`, `wss` or `ws`. Methods are case-sensitive.
    #[must_use]
    pub fn new(method: &'a str, url: &'a str) -> Self {
        Self {
            method,
            url,
            headers: &[],
            payload: Payload::Empty,
        }
    }

    /// Headers that are to be signed, in the order in which they are sent.
    ///
    /// Names may repeat and may be in any case. `Host` may be among them if it is that of the URL. Those that proxies
    /// and clients change on the way are left out of the signature: `connection`, `expect`, `keep-alive`, `te`,
    /// `trailer`, `transfer-encoding`, `upgrade`, `user-agent`, `x-amzn-trace-id`, `traceparent`, `tracestate`,
    /// `baggage`, and all that begin with `proxy-` or `sec-websocket-`.
    #[must_use]
    pub fn headers(mut self, headers: &'a [(&'a str, &'a str)]) -> Self {
        self.headers = headers;
        self
    }

    /// What the signature says of the body; [`Payload::Empty`] by default.
    #[must_use]
    pub fn payload(mut self, payload: Payload<'a>) -> Self {
        self.payload = payload;
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if is_token(self.method) {
            Ok(())
        } else {
            Err(Error::InvalidMethod)
        }
    }
}

impl Payload<'_> {
    pub(crate) fn write_hash(&self, out: &mut Text) {
        match self {
            Self::Empty => {
                out.push_str("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
            }
            Self::Bytes(bytes) => escape::push_hex(out, &Sha256::digest(bytes).into()),
            Self::Sha256(hash) => escape::push_hex(out, hash),
            Self::Unsigned => out.push_str("UNSIGNED-PAYLOAD"),
        }
    }
}

/// Shows neither URL nor values: both may hold secrets, such as the token of a custom authorizer.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("headers", &self.headers.len())
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes(<{} bytes>)", bytes.len()),
            Self::Sha256(_) => f.write_str("Sha256"),
            Self::Unsigned => f.write_str("Unsigned"),
        }
    }
}

/// RFC 9110's `token`, of which methods and header names are made.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
