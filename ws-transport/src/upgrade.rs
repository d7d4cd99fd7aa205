//! The opening handshake: an HTTP/1.1 request and the judgement of its answer (RFC 6455 section 4.1).
//!
//! Ours and not tungstenite's, which logs the request with its query, loses the body of a refusal, compares
//! `Connection` as a whole and lets extensions pass that nobody asked for.

use std::{borrow::Cow, io::Write as _, time::Duration};

use bytes::{Bytes, BytesMut};
use data_encoding::BASE64;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    time::Instant,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use zeroize::Zeroizing;

use crate::{ConnectError, Endpoint, Refusal, RequestError, UpgradeError, http1};

/// Most bytes of the headers that a caller adds to the request. Servers commonly stop at 8 KiB a header.
pub const MAX_REQUEST_HEADERS_LEN: usize = 16 * 1024;

/// Most bytes of an answer's status line and headers. Servers send well under one KiB.
pub const MAX_ANSWER_HEAD_LEN: usize = 16 * 1024;

/// Most headers of an answer.
pub const MAX_ANSWER_HEADERS: usize = http1::MAX_HEADERS;

/// Most bytes of a refusal's body that are kept. Explanations are a line of JSON or a page of HTML.
pub const MAX_REFUSAL_BODY_LEN: usize = 8 * 1024;

/// How long the body of a refusal may take after its head.
const REFUSAL_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// What to ask for in the upgrade, besides the endpoint: the subprotocol and further headers.
///
/// ```
/// use http::{HeaderValue, header};
/// use ws_transport::UpgradeRequest;
///
/// let request = UpgradeRequest::new()
///     .subprotocol("mqtt")?
///     .header(header::USER_AGENT, HeaderValue::from_static("thermostat/1.0"))?;
/// # Ok::<(), ws_transport::RequestError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct UpgradeRequest {
    subprotocol: Option<HeaderValue>,
    policy: SubprotocolPolicy,
    headers: HeaderMap,
    headers_len: usize,
    credentials_follow: bool,
}

impl UpgradeRequest {
    /// A request without a subprotocol and without headers of the caller's.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers a subprotocol. Only ever one: several servers fail on a list.
    ///
    /// # Errors
    ///
    /// When it is not a token (RFC 9110 section 5.6.2).
    pub fn subprotocol(
        mut self,
        subprotocol: impl Into<Cow<'static, str>>,
    ) -> Result<Self, RequestError> {
        let subprotocol = subprotocol.into();
        if subprotocol.is_empty() || !subprotocol.bytes().all(is_token_byte) {
            return Err(RequestError::Subprotocol);
        }
        let value = match subprotocol {
            // A token has nothing in it that a header may not have, for which this would panic.
            Cow::Borrowed(name) => Ok(HeaderValue::from_static(name)),
            Cow::Owned(name) => HeaderValue::try_from(name),
        };
        self.subprotocol = Some(value.map_err(|_| RequestError::Subprotocol)?);
        Ok(self)
    }

    /// How strictly the server has to choose the offered subprotocol. Default [`SubprotocolPolicy::Exact`].
    #[must_use]
    pub fn subprotocol_policy(mut self, policy: SubprotocolPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Adds a header, such as `Origin`, `User-Agent` or `Authorization`.
    ///
    /// Mark secret values with [`HeaderValue::set_sensitive`]: that keeps them out of `Debug`, and off `ws://`
    /// to other machines (see [`PlaintextCredentials`](crate::PlaintextCredentials)). `Authorization` and
    /// `Cookie` are always taken for secret.
    ///
    /// # Errors
    ///
    /// When the handshake sets the header itself, or when the headers exceed [`MAX_REQUEST_HEADERS_LEN`].
    pub fn header(
        mut self,
        name: HeaderName,
        mut value: HeaderValue,
    ) -> Result<Self, RequestError> {
        if is_reserved(&name) {
            return Err(RequestError::ReservedHeader);
        }
        self.headers_len += name.as_str().len() + value.len() + ": \r\n".len();
        if self.headers_len > MAX_REQUEST_HEADERS_LEN {
            return Err(RequestError::HeadersTooLong);
        }
        if matches!(
            name,
            http::header::AUTHORIZATION | http::header::COOKIE | http::header::PROXY_AUTHORIZATION
        ) {
            value.set_sensitive(true);
        }
        self.headers.append(name, value);
        Ok(self)
    }

    /// Says that the protocol above will send credentials once the WebSocket is open, so that it is held off
    /// `ws://` to other machines just like a query or a secret header.
    #[must_use]
    pub fn credentials_follow(mut self) -> Self {
        self.credentials_follow = true;
        self
    }

    /// Whether something would cross the network in the clear that should not.
    pub(crate) fn carries_credentials(&self, endpoint: &Endpoint) -> bool {
        self.credentials_follow
            || endpoint.has_query()
            || self.headers.values().any(HeaderValue::is_sensitive)
    }

    /// The request as bytes. Wiped after use: the query is in it.
    fn encode(&self, endpoint: &Endpoint, key: &Key) -> Zeroizing<Vec<u8>> {
        let target = endpoint.target();
        let query = endpoint.query();
        // Large enough that it never grows: growing would leave copies behind.
        let capacity = 256
            + endpoint.path().len()
            + query.map_or(0, str::len)
            + target.host().as_str().len()
            + self.subprotocol.as_ref().map_or(0, HeaderValue::len)
            + self.headers_len;
        let mut out = Zeroizing::new(Vec::with_capacity(capacity));
        out.extend(b"GET ");
        out.extend(endpoint.path().as_bytes());
        if let Some(query) = query {
            out.extend(b"?");
            out.extend(query.as_bytes());
        }
        out.extend(b" HTTP/1.1\r\nHost: ");
        for part in target.host().in_brackets() {
            out.extend(part.as_bytes());
        }
        if let Some(port) = target.port_in_header() {
            // It is written to memory.
            let _infallible = write!(out, ":{port}");
        }
        out.extend(b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ");
        out.extend(key);
        out.extend(b"\r\n");
        if let Some(subprotocol) = &self.subprotocol {
            out.extend(b"Sec-WebSocket-Protocol: ");
            out.extend(subprotocol.as_bytes());
            out.extend(b"\r\n");
        }
        for (name, value) in &self.headers {
            out.extend(name.as_str().as_bytes());
            out.extend(b": ");
            out.extend(value.as_bytes());
            out.extend(b"\r\n");
        }
        out.extend(b"\r\n");
        debug_assert!(out.len() <= capacity);
        out
    }
}

/// How strictly the server has to choose the offered subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SubprotocolPolicy {
    /// It has to answer exactly what was offered.
    #[default]
    Exact,
    /// It may answer nothing, as some servers do that know but one protocol.
    AllowMissing,
    /// It may answer anything.
    AllowAny,
}

/// The handshake's outcome: the bytes that came behind the answer, and the chosen subprotocol.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) read_ahead: Bytes,
    pub(crate) subprotocol: Option<HeaderValue>,
}

/// Sends the request and judges the answer.
pub(crate) async fn upgrade<S>(
    io: &mut S,
    endpoint: &Endpoint,
    request: &UpgradeRequest,
    deadline: Option<Instant>,
) -> Result<Upgraded, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let key = generate_key();
    {
        let bytes = request.encode(endpoint, &key);
        io.write_all(&bytes).await.map_err(interrupted)?;
    }
    io.flush().await.map_err(interrupted)?;

    let mut buffer = BytesMut::with_capacity(1024);
    let (status, headers) = loop {
        let answer = http1::read_head(io, &mut buffer, MAX_ANSWER_HEAD_LEN, |head| {
            Ok(match head.status {
                StatusCode::SWITCHING_PROTOCOLS => Answer::Upgrade(judge(head, &key, request)),
                // 100 and 103 announce another one.
                status if status.is_informational() => Answer::Interim,
                status => Answer::Refusal(status, head.to_map()?),
            })
        });
        let answer = answer.await.map_err(|error| match error {
            http1::HeadError::Io(error) => interrupted(error),
            http1::HeadError::Malformed => UpgradeError::NotHttp.into(),
            http1::HeadError::TooLong => UpgradeError::HeadTooLong.into(),
        })?;
        match answer {
            Answer::Interim => {}
            Answer::Upgrade(judged) => {
                return Ok(Upgraded {
                    subprotocol: judged?,
                    read_ahead: match buffer.is_empty() {
                        true => Bytes::new(),
                        false => buffer.freeze(),
                    },
                });
            }
            Answer::Refusal(status, headers) => break (status, headers),
        }
    };
    // Not past the connect's own deadline, which would lose the refusal.
    let patience = Instant::now() + REFUSAL_BODY_TIMEOUT;
    let until = deadline.map_or(patience, |deadline| deadline.min(patience));
    let body = http1::read_body(io, buffer, status, &headers, MAX_REFUSAL_BODY_LEN, until).await;
    Err(ConnectError::Refused(Box::new(Refusal {
        status,
        headers,
        body,
    })))
}

/// A random nonce in base64, made anew for each connection (RFC 6455 section 4.1).
type Key = [u8; 24];

fn generate_key() -> Key {
    let nonce: u128 = rand::random();
    let mut key = [0; 24];
    BASE64.encode_mut(&nonce.to_be_bytes(), &mut key);
    key
}

/// What the server says to the request.
enum Answer {
    Interim,
    Upgrade(Result<Option<HeaderValue>, UpgradeError>),
    Refusal(StatusCode, HeaderMap),
}

/// RFC 6455 section 4.1, the six steps on the server's answer; the status is checked before.
fn judge(
    head: &http1::Head<'_>,
    key: &Key,
    request: &UpgradeRequest,
) -> Result<Option<HeaderValue>, UpgradeError> {
    let answered = Answered::of(head.headers);
    if !answered.upgrades {
        return Err(UpgradeError::NoUpgrade);
    }
    if !answered.connection_upgrades {
        return Err(UpgradeError::NoConnectionUpgrade);
    }
    let accept = answered.accept.only().map_err(|_| UpgradeError::Accept)?;
    if accept.is_none_or(|value| value != derive_accept_key(key).as_bytes()) {
        return Err(UpgradeError::Accept);
    }
    if answered.has_extensions {
        return Err(UpgradeError::Extension);
    }
    let chosen = answered.subprotocol.only();
    let chosen = chosen.map_err(|_| UpgradeError::SubprotocolUnknown)?;
    match (&request.subprotocol, chosen, request.policy) {
        (_, Some(_), SubprotocolPolicy::AllowAny) | (None, None, _) => {}
        (Some(offered), Some(chosen), _) if offered.as_bytes() == chosen => {}
        (_, Some(_), _) => return Err(UpgradeError::SubprotocolUnknown),
        (Some(_), None, SubprotocolPolicy::Exact) => {
            return Err(UpgradeError::SubprotocolMissing);
        }
        (Some(_), None, _) => {}
    }
    // What was offered is at hand already.
    Ok(match (&request.subprotocol, chosen) {
        (Some(offered), Some(chosen)) if offered.as_bytes() == chosen => Some(offered.clone()),
        (_, Some(chosen)) => {
            let chosen = HeaderValue::from_bytes(chosen);
            Some(chosen.map_err(|_| UpgradeError::SubprotocolUnknown)?)
        }
        (_, None) => None,
    })
}

/// What counts of the answer's headers, gathered in one pass.
#[derive(Default)]
struct Answered<'h> {
    upgrades: bool,
    connection_upgrades: bool,
    accept: Single<'h>,
    has_extensions: bool,
    subprotocol: Single<'h>,
}

impl<'h> Answered<'h> {
    fn of(headers: &'h [httparse::Header<'h>]) -> Self {
        let mut answered = Self::default();
        for header in headers {
            let value = header.value;
            let is = |name: &HeaderName| header.name.eq_ignore_ascii_case(name.as_str());
            if is(&UPGRADE) {
                answered.upgrades |= has_token(value, "websocket");
            } else if is(&CONNECTION) {
                answered.connection_upgrades |= has_token(value, "upgrade");
            } else if is(&SEC_WEBSOCKET_ACCEPT) {
                answered.accept.put(value);
            } else if is(&SEC_WEBSOCKET_EXTENSIONS) {
                answered.has_extensions |= !value.is_empty();
            } else if is(&SEC_WEBSOCKET_PROTOCOL) {
                answered.subprotocol.put(value);
            }
        }
        answered
    }
}

/// The value of a header that is not to be repeated.
#[derive(Default)]
struct Single<'h> {
    value: Option<&'h [u8]>,
    is_repeated: bool,
}

impl<'h> Single<'h> {
    fn put(&mut self, value: &'h [u8]) {
        self.is_repeated = self.value.replace(value).is_some();
    }

    /// An error where it is repeated.
    fn only(&self) -> Result<Option<&'h [u8]>, ()> {
        match self.is_repeated {
            true => Err(()),
            false => Ok(self.value),
        }
    }
}

/// Whether a comma-separated list has the token; case does not matter. There may be several headers with such lists.
fn has_token(value: &[u8], token: &str) -> bool {
    let is_token = |part: &[u8]| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes());
    // Mostly it stands alone.
    is_token(value) || value.split(|&byte| byte == b',').any(is_token)
}

fn is_reserved(name: &HeaderName) -> bool {
    matches!(
        *name,
        HOST | CONNECTION
            | UPGRADE
            | SEC_WEBSOCKET_KEY
            | SEC_WEBSOCKET_VERSION
            | SEC_WEBSOCKET_ACCEPT
            | SEC_WEBSOCKET_PROTOCOL
            | SEC_WEBSOCKET_EXTENSIONS
            | CONTENT_LENGTH
            | TRANSFER_ENCODING
            | TE
            | TRAILER
            | EXPECT
    )
}

/// RFC 9110 section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// An I/O error after TLS stood: TLS's own where it is one.
fn interrupted(error: std::io::Error) -> ConnectError {
    #[cfg(feature = "tls")]
    let error = match crate::tls::late_failure(error) {
        Ok(tls) => return ConnectError::Tls(tls),
        Err(error) => error,
    };
    ConnectError::Interrupted(error)
}
