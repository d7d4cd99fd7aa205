//! Where to connect to: a WebSocket URL taken apart and checked once.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use zeroize::Zeroizing;

/// Longest URL that [`Endpoint`] takes, in bytes.
///
/// A presigned URL with a session token has some 3 KiB; servers commonly stop at 8 to 32 KiB.
pub const MAX_URL_LEN: usize = 32 * 1024;

/// A `ws://` or `wss://` URL, checked (RFC 6455 section 3).
///
/// The path and the query are kept byte for byte as given: a signature covers them. The query is a
/// secret (presigned URLs carry their credentials there): it is never shown, not even by `Debug`, and
/// its memory is wiped when the endpoint is dropped.
///
/// User information (`wss://user:password@host`) is refused: neither HTTP nor WebSocket has a place
/// for it in a URL, and dropping it silently would hide a mistake.
///
/// ```
/// use ws_transport::Endpoint;
///
/// let endpoint: Endpoint = "wss://broker.example/mqtt?X-Amz-Signature=abc".parse()?;
/// assert_eq!(endpoint.host().as_str(), "broker.example");
/// assert_eq!(endpoint.port(), 443);
/// assert_eq!(endpoint.path(), "/mqtt");
/// assert_eq!(endpoint.to_string(), "wss://broker.example/mqtt?<redacted>");
/// # Ok::<(), ws_transport::EndpointError>(())
/// ```
#[derive(Clone)]
pub struct Endpoint {
    target: Target,
    path: Box<str>,
    query: Option<Zeroizing<String>>,
}

impl Endpoint {
    /// The host and port to dial, and whether TLS goes on top.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// `ws` or `wss`.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        match self.target.security {
            Security::Plain => Scheme::Ws,
            Security::Tls => Scheme::Wss,
        }
    }

    /// The host, without the brackets of an IPv6 literal.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.target.host
    }

    /// The port; 80 for `ws` and 443 for `wss` where the URL names none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.target.port
    }

    /// The path, without the query; `/` where the URL has none.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether there is a query. Its content stays inside.
    #[must_use]
    pub fn has_query(&self) -> bool {
        self.query.is_some()
    }

    /// The secret query, without the question mark; for the request line only.
    pub(crate) fn query(&self) -> Option<&str> {
        self.query.as_ref().map(|query| query.as_str())
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(url: &str) -> Result<Self, EndpointError> {
        if url.len() > MAX_URL_LEN {
            return Err(EndpointError::TooLong);
        }
        let (scheme, rest) = url.split_once(':').ok_or(EndpointError::Scheme)?;
        let rest = rest.strip_prefix("//").ok_or(EndpointError::Scheme)?;
        let security = if scheme.eq_ignore_ascii_case("wss") {
            Security::Tls
        } else if scheme.eq_ignore_ascii_case("ws") {
            Security::Plain
        } else {
            return Err(EndpointError::Scheme);
        };
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(EndpointError::UserInfo);
        }
        if rest.contains('#') {
            return Err(EndpointError::Fragment);
        }
        // Visible ASCII only: nothing here may end or split the request line.
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(EndpointError::Path);
        }
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let (host, port) = split_authority(authority)?;
        Ok(Self {
            target: Target {
                host,
                port: port.unwrap_or_else(|| security.default_port()),
                security,
            },
            path: if path.is_empty() { "/" } else { path }.into(),
            query: query.map(|query| Zeroizing::new(query.to_owned())),
        })
    }
}

impl TryFrom<&str> for Endpoint {
    type Error = EndpointError;

    fn try_from(url: &str) -> Result<Self, EndpointError> {
        url.parse()
    }
}

impl TryFrom<&String> for Endpoint {
    type Error = EndpointError;

    fn try_from(url: &String) -> Result<Self, EndpointError> {
        url.parse()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    /// Wipes the string it is given, as that may be a presigned URL.
    fn try_from(url: String) -> Result<Self, EndpointError> {
        Zeroizing::new(url).parse()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}{}",
            self.scheme(),
            self.target.host_header(),
            self.path
        )?;
        if self.query.is_some() {
            f.write_str("?<redacted>")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// The scheme of an [`Endpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "closed by RFC 6455 section 3")]
pub enum Scheme {
    /// Plain TCP.
    Ws,
    /// TLS.
    Wss,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ws => "ws",
            Self::Wss => "wss",
        })
    }
}

/// A host and port to dial, and whether TLS goes on top.
///
/// What [`Dial`](crate::Dial) is given, and what
/// [`Connector::connect_stream`](crate::Connector::connect_stream) takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) security: Security,
}

impl Target {
    /// A target from its parts.
    #[must_use]
    pub fn new(host: Host, port: u16, security: Security) -> Self {
        Self {
            host,
            port,
            security,
        }
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether TLS goes on top of the dialled connection.
    #[must_use]
    pub fn security(&self) -> Security {
        self.security
    }

    /// `host:port`, an IPv6 literal in brackets: for a `CONNECT` line.
    #[must_use]
    pub fn authority(&self) -> String {
        self.host_and(Some(self.port))
    }

    /// The value of the `Host` header: the port left out where it is the scheme's own.
    #[must_use]
    pub fn host_header(&self) -> String {
        self.host_and(self.port_in_header())
    }

    pub(crate) fn port_in_header(&self) -> Option<u16> {
        (self.port != self.security.default_port()).then_some(self.port)
    }

    fn host_and(&self, port: Option<u16>) -> String {
        let mut text = String::with_capacity(self.host.text.len() + "[]:65535".len());
        for part in self.host.in_brackets() {
            text.push_str(part);
        }
        if let Some(port) = port {
            // It is written to memory.
            let _infallible = write!(text, ":{port}");
        }
        text
    }
}

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum Security {
    /// Plain TCP.
    Plain,
    /// TLS with the host's certificate checked.
    Tls,
}

impl Security {
    fn default_port(self) -> u16 {
        match self {
            Self::Plain => 80,
            Self::Tls => 443,
        }
    }
}

/// A DNS name or an IP address, checked.
///
/// `Display` puts an IPv6 address in brackets, as URLs and HTTP want it; [`as_str`](Self::as_str) does not.
/// A name is ASCII: an international one is to be given in its `xn--` form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    text: Box<str>,
    ip: Option<IpAddr>,
}

impl Host {
    /// The name or address, an IPv6 address without brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address, where the host is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The parts of what is displayed.
    pub(crate) fn in_brackets(&self) -> [&str; 3] {
        match self.ip {
            Some(IpAddr::V6(_)) => ["[", &self.text, "]"],
            _ => ["", &self.text, ""],
        }
    }

    /// Whether this names the machine itself: a loopback address or `localhost`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.ip {
            Some(ip) => ip.to_canonical().is_loopback(),
            None => {
                let name = self.text.strip_suffix('.').unwrap_or(&self.text);
                name.eq_ignore_ascii_case("localhost")
                    || name
                        .len()
                        .checked_sub(".localhost".len())
                        .and_then(|at| name.get(at..))
                        .is_some_and(|end| end.eq_ignore_ascii_case(".localhost"))
            }
        }
    }
}

impl FromStr for Host {
    type Err = EndpointError;

    /// Takes a name, an IPv4 address, or an IPv6 address with or without brackets.
    fn from_str(host: &str) -> Result<Self, EndpointError> {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let ip = match bare {
            Some(v6) => Some(IpAddr::V6(
                v6.parse::<Ipv6Addr>().map_err(|_| EndpointError::Host)?,
            )),
            None => host.parse::<IpAddr>().ok(),
        };
        if ip.is_none() && !is_dns_name(host) {
            return Err(EndpointError::Host);
        }
        Ok(Self {
            text: bare.unwrap_or(host).into(),
            ip,
        })
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self {
            text: ip.to_string().into(),
            ip: Some(ip),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.in_brackets()
            .iter()
            .try_for_each(|part| f.write_str(part))
    }
}

/// Why a URL is no [`Endpoint`]: the rule it breaks. The URL itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointError {
    /// The scheme is neither `ws` nor `wss`, or there is none.
    Scheme,
    /// The URL has a user name or password; give credentials where the protocol above has a place for them.
    UserInfo,
    /// The host is empty, or neither a DNS name in ASCII nor an IP address.
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
    /// The path or query has a byte that is not visible ASCII; percent-encode it.
    Path,
    /// The URL has a fragment, which RFC 6455 section 3 forbids.
    Fragment,
    /// The URL is longer than [`MAX_URL_LEN`].
    TooLong,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "the scheme of the URL is neither ws nor wss",
            Self::UserInfo => "the URL has user information, which is refused",
            Self::Host => "the host of the URL is neither an ASCII DNS name nor an IP address",
            Self::Port => "the port of the URL is not a number from 1 to 65535",
            Self::Path => "the path or query of the URL has a byte that is not visible ASCII",
            Self::Fragment => "the URL has a fragment",
            Self::TooLong => "the URL is too long",
        })
    }
}

impl std::error::Error for EndpointError {}

pub(crate) fn split_authority(authority: &str) -> Result<(Host, Option<u16>), EndpointError> {
    let (host, port) = if authority.starts_with('[') {
        let end = authority.find(']').ok_or(EndpointError::Host)?;
        let (host, rest) = authority.split_at(end + 1);
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(EndpointError::Host),
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let port = match port {
        None => None,
        Some(digits) => {
            // `u16::from_str` would take a plus sign.
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(EndpointError::Port);
            }
            match digits.parse() {
                Ok(0) | Err(_) => return Err(EndpointError::Port),
                Ok(port) => Some(port),
            }
        }
    };
    Ok((host.parse()?, port))
}

/// RFC 1035's lengths; underscores pass, as private names have them.
fn is_dns_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_url_apart() {
        let endpoint: Endpoint = "wss://Broker.example:8443/a/b%2F?x=%27&y".parse().unwrap();
        assert_eq!(endpoint.scheme(), Scheme::Wss);
        assert_eq!(endpoint.host().as_str(), "Broker.example");
        assert_eq!(endpoint.port(), 8443);
        assert_eq!(endpoint.path(), "/a/b%2F");
        assert_eq!(endpoint.query(), Some("x=%27&y"));
        assert_eq!(endpoint.target().host_header(), "Broker.example:8443");

        let bare: Endpoint = "WS://localhost?q".parse().unwrap();
        assert_eq!(
            (bare.scheme(), bare.port(), bare.path()),
            (Scheme::Ws, 80, "/")
        );
        assert_eq!(bare.query(), Some("q"));
        assert_eq!(bare.target().host_header(), "localhost");

        let v6: Endpoint = "ws://[::1]:81/".parse().unwrap();
        assert_eq!(v6.host().as_str(), "::1");
        assert_eq!(v6.target().authority(), "[::1]:81");
        assert!(v6.host().is_loopback());
    }

    #[test]
    fn names_the_rule_that_is_broken() {
        for (url, error) in [
            ("", EndpointError::Scheme),
            ("broker.example", EndpointError::Scheme),
            ("https://broker.example/", EndpointError::Scheme),
            ("wss://", EndpointError::Host),
            ("wss:///mqtt", EndpointError::Host),
            ("wss://user:pw@broker.example/", EndpointError::UserInfo),
            ("wss://bröker.example/", EndpointError::Host),
            ("wss://a b/", EndpointError::Host),
            ("wss://a..b/", EndpointError::Host),
            ("wss://a\r\nX/", EndpointError::Host),
            ("wss://[::1/", EndpointError::Host),
            ("wss://[::1]x/", EndpointError::Host),
            ("wss://[1.2.3.4]/", EndpointError::Host),
            ("wss://::1/", EndpointError::Port),
            ("wss://a:/", EndpointError::Port),
            ("wss://a:0/", EndpointError::Port),
            ("wss://a:+1/", EndpointError::Port),
            ("wss://a:65536/", EndpointError::Port),
            ("wss://a/ b", EndpointError::Path),
            ("wss://a/?q=\r\nX:y", EndpointError::Path),
            ("wss://a/é", EndpointError::Path),
            ("wss://a/#f", EndpointError::Fragment),
        ] {
            assert_eq!(url.parse::<Endpoint>().unwrap_err(), error, "{url:?}");
        }
        let long = format!("wss://a/{}", "x".repeat(MAX_URL_LEN));
        assert_eq!(
            long.parse::<Endpoint>().unwrap_err(),
            EndpointError::TooLong
        );
        assert!(long.get(..MAX_URL_LEN).unwrap().parse::<Endpoint>().is_ok());
    }

    #[test]
    fn knows_loopback() {
        for host in ["localhost", "LOCALHOST.", "a.localhost", "127.9.9.9", "::1"] {
            assert!(host.parse::<Host>().unwrap().is_loopback(), "{host}");
        }
        assert!("[::ffff:127.0.0.1]".parse::<Host>().unwrap().is_loopback());
        for host in [
            "localhost.example",
            "notlocalhost",
            "10.0.0.1",
            "127.example",
        ] {
            assert!(!host.parse::<Host>().unwrap().is_loopback(), "{host}");
        }
    }
}
