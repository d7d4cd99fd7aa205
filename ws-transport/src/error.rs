//! Errors, by whom they blame. None repeats a URL, a header value or a body.

use std::{error::Error, fmt, io};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::SocksReply;

/// Why no connection came about.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The request breaks a rule of ours; nothing was sent.
    Request(RequestError),
    /// The deadline for the whole connect passed; the stage says during what.
    Timeout(ConnectStage),
    /// DNS, TCP or a proxy failed.
    Dial(DialError),
    /// TLS failed.
    Tls(TlsError),
    /// The connection ended or failed while the upgrade was under way.
    ///
    /// Some servers drop the connection without any answer when they do not know the subprotocol.
    Interrupted(io::Error),
    /// The server answered something other than `101 Switching Protocols`, and why, in its own words.
    Refused(Box<Refusal>),
    /// The server's answer to the upgrade breaks a rule of HTTP or RFC 6455.
    Upgrade(UpgradeError),
}

impl ConnectError {
    /// Whether the same attempt may succeed later without anybody changing anything.
    ///
    /// `false` for a bad request, for certificates that do not verify, for answers that break the protocol
    /// and for refusals other than 408, 425, 429 and 5xx. A caller that makes fresh credentials for each
    /// attempt may judge a 401 or 403 differently: see [`Refusal`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Request(_) | Self::Upgrade(_) => false,
            Self::Timeout(_) | Self::Interrupted(_) => true,
            Self::Dial(error) => error.is_retryable(),
            Self::Tls(error) => error.is_retryable(),
            Self::Refused(refusal) => refusal.is_retryable(),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(_) => f.write_str("the upgrade request is not sendable"),
            Self::Timeout(stage) => write!(f, "the deadline passed {stage}"),
            Self::Dial(_) => f.write_str("dialling failed"),
            Self::Tls(_) => f.write_str("TLS failed"),
            Self::Interrupted(_) => f.write_str("the connection ended during the upgrade"),
            Self::Refused(_) => f.write_str("the server refused the upgrade"),
            Self::Upgrade(_) => f.write_str("the answer to the upgrade is not acceptable"),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Request(error) => Some(error),
            Self::Timeout(_) => None,
            Self::Dial(error) => Some(error),
            Self::Tls(error) => Some(error),
            Self::Interrupted(error) => Some(error),
            Self::Refused(refusal) => Some(&**refusal),
            Self::Upgrade(error) => Some(error),
        }
    }
}

/// An error, and after a colon each of its causes, for a log.
pub(crate) struct Causes<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

impl From<RequestError> for ConnectError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<DialError> for ConnectError {
    fn from(error: DialError) -> Self {
        Self::Dial(error)
    }
}

impl From<TlsError> for ConnectError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

impl From<UpgradeError> for ConnectError {
    fn from(error: UpgradeError) -> Self {
        Self::Upgrade(error)
    }
}

/// How far a connect had come when its deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectStage {
    /// Resolving the name, opening the TCP connection or talking to a proxy.
    Dial,
    /// The TLS handshake.
    Tls,
    /// The HTTP upgrade.
    Upgrade,
}

impl fmt::Display for ConnectStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dial => "while dialling",
            Self::Tls => "during the TLS handshake",
            Self::Upgrade => "during the upgrade",
        })
    }
}

/// What of an upgrade request is not sendable: the caller's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// The subprotocol is not a token of RFC 9110 section 5.6.2.
    Subprotocol,
    /// A header that the handshake sets itself.
    ReservedHeader,
    /// More headers, or longer ones, than [`MAX_REQUEST_HEADERS_LEN`](crate::MAX_REQUEST_HEADERS_LEN).
    HeadersTooLong,
    /// Credentials or a query would cross the network in the clear: `ws://` to a host that is not loopback.
    /// See [`PlaintextCredentials`](crate::PlaintextCredentials).
    PlaintextCredentials,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subprotocol => "the subprotocol is not an HTTP token",
            Self::ReservedHeader => "a header that the handshake sets itself",
            Self::HeadersTooLong => "the headers are too long",
            Self::PlaintextCredentials => {
                "credentials over ws:// to a host that is not loopback need an explicit opt-in"
            }
        })
    }
}

impl Error for RequestError {}

/// Why [`Dial`](crate::Dial) gave no stream.
#[derive(Debug)]
#[non_exhaustive]
pub enum DialError {
    /// The name did not resolve.
    Resolve(io::Error),
    /// The address filter refused every address of the name.
    AddressRefused,
    /// No address took the connection; the error is the preferred one's.
    Connect(io::Error),
    /// The proxy was not reached or did not do its part.
    Proxy(Box<ProxyError>),
    /// A dialler of somebody else's failed.
    Other(Box<dyn Error + Send + Sync>),
}

impl DialError {
    /// Whether the same attempt may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Resolve(_) | Self::Connect(_) | Self::Other(_) => true,
            Self::AddressRefused => false,
            Self::Proxy(error) => error.is_retryable(),
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve(_) => "the host name did not resolve",
            Self::AddressRefused => "the address filter refused every address of the host",
            Self::Connect(_) => "no address of the host took the connection",
            Self::Proxy(_) => "the proxy did not open a tunnel",
            Self::Other(_) => "the dialler failed",
        })
    }
}

impl Error for DialError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Resolve(error) | Self::Connect(error) => Some(error),
            Self::AddressRefused => None,
            Self::Proxy(error) => Some(&**error),
            Self::Other(error) => Some(&**error),
        }
    }
}

impl From<io::Error> for DialError {
    /// For diallers of your own: a plain I/O error is a failed connection.
    fn from(error: io::Error) -> Self {
        Self::Connect(error)
    }
}

/// What went wrong between us, a proxy, and the target behind it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProxyError {
    /// The proxy itself could not be dialled.
    Unreachable(DialError),
    /// TLS to the proxy failed.
    Tls(TlsError),
    /// The connection to the proxy ended or failed before the tunnel stood.
    Io(io::Error),
    /// The proxy wants credentials, or does not accept those it got.
    Authentication,
    /// An HTTP proxy answered `CONNECT` with another status than 2xx and 407.
    Refused(StatusCode),
    /// A SOCKS5 proxy did not connect.
    Socks(SocksReply),
    /// The proxy's answer breaks its protocol.
    Malformed,
}

impl ProxyError {
    /// Whether the same attempt may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(error) => error.is_retryable(),
            Self::Tls(error) => error.is_retryable(),
            Self::Io(_) => true,
            Self::Authentication | Self::Malformed => false,
            Self::Refused(status) => is_retryable_status(*status),
            Self::Socks(reply) => reply.is_retryable(),
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(_) => f.write_str("the proxy could not be dialled"),
            Self::Tls(_) => f.write_str("TLS to the proxy failed"),
            Self::Io(_) => f.write_str("the connection to the proxy ended before the tunnel stood"),
            Self::Authentication => f.write_str("the proxy does not accept our credentials"),
            Self::Refused(status) => write!(f, "the proxy answered status {}", status.as_u16()),
            Self::Socks(reply) => write!(f, "the proxy did not connect: {reply}"),
            Self::Malformed => f.write_str("the proxy's answer breaks its protocol"),
        }
    }
}

impl Error for ProxyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreachable(error) => Some(error),
            Self::Tls(error) => Some(error),
            Self::Io(error) => Some(error),
            Self::Authentication | Self::Refused(_) | Self::Socks(_) | Self::Malformed => None,
        }
    }
}

/// Statuses that say "not now": 408, 425, 429 and 5xx.
fn is_retryable_status(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

/// Why TLS did not come about.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// A `wss` target, but the crate was built without a TLS feature.
    NotCompiled,
    /// The default configuration could not be made.
    Config(TlsConfigError),
    /// The host name cannot be the subject of a certificate.
    ServerName,
    /// The server's certificate has expired.
    CertificateExpired(io::Error),
    /// The server's certificate is not valid yet; is the clock right?
    CertificateNotYetValid(io::Error),
    /// The server's certificate is for another name.
    WrongHost(io::Error),
    /// The server's certificate is not signed by a root that we trust.
    UnknownIssuer(io::Error),
    /// The server's certificate does not verify, for another reason.
    Certificate(io::Error),
    /// The server wants a client certificate, or does not accept ours.
    ClientCertificate(io::Error),
    /// The two sides have no version, cipher suite or application protocol in common.
    Incompatible(io::Error),
    /// The connection failed during the handshake, or the handshake broke a rule of TLS.
    Handshake(io::Error),
}

impl TlsError {
    /// Whether the same attempt may succeed later.
    ///
    /// Only connections that broke are retried: a certificate does not mend itself in seconds.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Handshake(_))
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotCompiled => "a wss URL, but no TLS feature of ws-transport is on",
            Self::Config(_) => "the TLS configuration is not usable",
            Self::ServerName => "the host name cannot be the subject of a certificate",
            Self::CertificateExpired(_) => "the server's certificate has expired",
            Self::CertificateNotYetValid(_) => "the server's certificate is not valid yet",
            Self::WrongHost(_) => "the server's certificate is for another name",
            Self::UnknownIssuer(_) => "the server's certificate is not signed by a trusted root",
            Self::Certificate(_) => "the server's certificate does not verify",
            Self::ClientCertificate(_) => "the server does not accept our client certificate",
            Self::Incompatible(_) => "client and server have no TLS parameters in common",
            Self::Handshake(_) => "the TLS handshake failed",
        })
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NotCompiled | Self::ServerName => None,
            Self::Config(error) => Some(error),
            Self::CertificateExpired(error)
            | Self::CertificateNotYetValid(error)
            | Self::WrongHost(error)
            | Self::UnknownIssuer(error)
            | Self::Certificate(error)
            | Self::ClientCertificate(error)
            | Self::Incompatible(error)
            | Self::Handshake(error) => Some(error),
        }
    }
}

/// Why a TLS configuration could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// No cryptographic provider: none given, none installed in the process, none compiled in
    /// (features `tls-ring` and `tls-aws-lc-rs`).
    NoProvider,
    /// No root certificate at all: none compiled in (feature `webpki-roots`), none found, none given.
    NoRoots,
    /// A root certificate that was given is not one; or the given PEM has none.
    Root,
    /// The client's certificate chain or key is not readable.
    ClientCertificate,
    /// The TLS library refuses the combination.
    Rejected(Box<dyn Error + Send + Sync>),
}

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoProvider => {
                "no TLS provider: enable feature tls-ring or tls-aws-lc-rs, install a process default, or name one"
            }
            Self::NoRoots => "no root certificates: enable feature webpki-roots or give some",
            Self::Root => "a given root certificate is not readable",
            Self::ClientCertificate => "the client certificate or its key is not readable",
            Self::Rejected(_) => "the TLS library refuses the configuration",
        })
    }
}

impl Error for TlsConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected(error) => Some(&**error),
            _ => None,
        }
    }
}

/// A server's answer to the upgrade other than `101`, with what it says about why.
///
/// `Debug` and `Display` show the status, and the value of `x-amzn-errortype` where there is one, alone:
/// AWS repeats the signed request in the body of some refusals, session token included.
#[derive(Clone)]
pub struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// All headers of the answer, such as `date` and `x-amzn-errortype`.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body, as much as came within [`MAX_REFUSAL_BODY_LEN`](crate::MAX_REFUSAL_BODY_LEN) bytes and one second.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Whether the same request may be accepted later: 408, 425, 429 and 5xx.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        is_retryable_status(self.status)
    }

    /// What AWS calls the error, where the header is a plain word.
    fn error_type(&self) -> Option<&str> {
        static ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
        self.headers
            .get(&ERROR_TYPE)
            .and_then(|value: &HeaderValue| value.to_str().ok())
            .map(|value| value.split(':').next().unwrap_or(value))
            .filter(|word| {
                word.len() <= 64 && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
            })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status.as_u16())?;
        match self.error_type() {
            Some(error_type) => write!(f, " ({error_type})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Refusal({self}, {} headers, {} bytes of body)",
            self.headers.len(),
            self.body.len()
        )
    }
}

impl Error for Refusal {}

/// The rule that the server's answer to the upgrade breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpgradeError {
    /// Not an HTTP/1.x answer, or a malformed one.
    NotHttp,
    /// The head is longer than [`MAX_ANSWER_HEAD_LEN`](crate::MAX_ANSWER_HEAD_LEN), or has more headers than
    /// [`MAX_ANSWER_HEADERS`](crate::MAX_ANSWER_HEADERS).
    HeadTooLong,
    /// No `Upgrade: websocket` (RFC 6455 section 4.1, step 2).
    NoUpgrade,
    /// No token `Upgrade` in `Connection` (step 3).
    NoConnectionUpgrade,
    /// `Sec-WebSocket-Accept` is missing, repeated or wrong (step 4).
    Accept,
    /// An extension that was not asked for (step 5).
    Extension,
    /// The subprotocol that was offered was not chosen (step 6, and the policy of the request).
    SubprotocolMissing,
    /// A subprotocol that was not offered (step 6).
    SubprotocolUnknown,
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHttp => "the answer is not HTTP/1.x",
            Self::HeadTooLong => "the head of the answer is too long",
            Self::NoUpgrade => "the answer has no `Upgrade: websocket`",
            Self::NoConnectionUpgrade => "the answer has no `Connection: Upgrade`",
            Self::Accept => "`Sec-WebSocket-Accept` of the answer is missing or wrong",
            Self::Extension => "the answer has an extension that was not asked for",
            Self::SubprotocolMissing => "the server did not choose the subprotocol",
            Self::SubprotocolUnknown => "the server chose a subprotocol that was not offered",
        })
    }
}

impl Error for UpgradeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_has_the_causes() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = ConnectError::Dial(DialError::Connect(refused));
        let line = Causes(&error).to_string();
        let parts: Vec<&str> = line.split(": ").collect();
        assert_eq!(parts.first(), Some(&"dialling failed"), "{line}");
        assert_eq!(parts.last(), Some(&"connection refused"), "{line}");
    }

    #[test]
    fn results_stay_small() {
        assert!(size_of::<ConnectError>() <= 32);
        assert!(size_of::<DialError>() <= 24);
        assert!(size_of::<TlsError>() <= 32);
    }
}
