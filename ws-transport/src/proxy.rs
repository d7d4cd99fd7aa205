//! Reaching a target through a proxy.

mod env;
mod http;
mod socks5;

use std::{fmt, str::FromStr, sync::Arc};

use ::http::HeaderValue;
use zeroize::Zeroizing;

pub use self::env::EnvProxies;
pub use self::socks5::SocksReply;
use crate::{
    BoxedIo, Dial, DialError, DialFuture, EndpointError, Host, ProxyError, Security, Target,
    TcpDialer, endpoint::split_authority,
};
#[cfg(feature = "tls")]
use crate::{Stream, TlsConfig, tls::LazyTls};

/// A proxy to dial through: HTTP `CONNECT` (RFC 9110 section 9.3.6), in the clear or over TLS, or SOCKS5
/// (RFC 1928). The proxy resolves the target's name.
///
/// TLS to a `wss` target runs inside the tunnel, so the proxy sees its host and port and nothing else; what
/// goes to a `ws` target it can read and change.
///
/// ```
/// use ws_transport::{Connector, Proxy};
///
/// let proxy: Proxy = "http://user:password@proxy.example:3128".parse()?;
/// let connector = Connector::new().dialer(proxy);
/// # Ok::<(), ws_transport::ProxyConfigError>(())
/// ```
#[derive(Clone)]
pub struct Proxy {
    kind: Kind,
    address: Target,
    credentials: Option<Credentials>,
    dialer: Arc<dyn Dial>,
    #[cfg(feature = "tls")]
    tls: LazyTls,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    HttpConnect,
    Socks5,
}

#[derive(Clone)]
struct Credentials {
    user: Zeroizing<String>,
    password: Zeroizing<String>,
}

impl Proxy {
    /// An HTTP proxy, talked to in the clear: who is on the way to it reads its credentials.
    #[must_use]
    pub fn http(host: Host, port: u16) -> Self {
        Self::new(Kind::HttpConnect, Target::new(host, port, Security::Plain))
    }

    /// An HTTP proxy, talked to over TLS.
    #[must_use]
    pub fn https(host: Host, port: u16) -> Self {
        Self::new(Kind::HttpConnect, Target::new(host, port, Security::Tls))
    }

    /// A SOCKS5 proxy.
    #[must_use]
    pub fn socks5(host: Host, port: u16) -> Self {
        Self::new(Kind::Socks5, Target::new(host, port, Security::Plain))
    }

    fn new(kind: Kind, address: Target) -> Self {
        Self {
            kind,
            address,
            credentials: None,
            dialer: Arc::new(TcpDialer::new()),
            #[cfg(feature = "tls")]
            tls: LazyTls::default(),
        }
    }

    /// Authenticates with a user name and password: HTTP `Basic` (RFC 7617), or RFC 1929 for SOCKS5.
    ///
    /// # Errors
    ///
    /// [`ProxyConfigError::Credentials`], when the scheme of the proxy cannot carry them: a colon or control
    /// character in an HTTP user name, an empty or over-long (255 bytes) one for SOCKS5.
    pub fn credentials(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Result<Self, ProxyConfigError> {
        let credentials = Credentials {
            user: Zeroizing::new(user.into()),
            password: Zeroizing::new(password.into()),
        };
        let fit = match self.kind {
            Kind::HttpConnect => {
                !credentials.user.contains(':')
                    && !credentials.user.contains(char::is_control)
                    && !credentials.password.contains(char::is_control)
            }
            Kind::Socks5 => {
                let carried = 1..=255;
                carried.contains(&credentials.user.len())
                    && carried.contains(&credentials.password.len())
            }
        };
        if !fit {
            return Err(ProxyConfigError::Credentials);
        }
        self.credentials = Some(credentials);
        Ok(self)
    }

    /// How the proxy itself is reached. Default [`TcpDialer`]; another proxy makes a chain.
    #[must_use]
    pub fn dialer(mut self, dialer: impl Dial + 'static) -> Self {
        self.dialer = Arc::new(dialer);
        self
    }

    /// The TLS configuration towards an `https` proxy, where the default one does not do.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, config: TlsConfig) -> Self {
        self.tls = LazyTls::from(config);
        self
    }

    async fn tunnel(&self, target: &Target) -> Result<BoxedIo, ProxyError> {
        let io = self.reach().await?;
        match self.kind {
            Kind::HttpConnect => http::connect(io, target, self.credentials.as_ref()).await,
            Kind::Socks5 => socks5::connect(io, target, self.credentials.as_ref()).await,
        }
    }

    async fn reach(&self) -> Result<BoxedIo, ProxyError> {
        let io = self
            .dialer
            .dial(&self.address)
            .await
            .map_err(ProxyError::Unreachable)?;
        match self.address.security() {
            Security::Plain => Ok(io),
            #[cfg(feature = "tls")]
            Security::Tls => {
                let tls = self
                    .tls
                    .get()
                    .map_err(|error| ProxyError::Tls(crate::TlsError::Config(error)))?;
                // Nothing is read ahead: within there is mostly TLS again, which does.
                let stream = tls
                    .handshake(&self.address, Stream::plain(io), 0)
                    .await
                    .map_err(ProxyError::Tls)?;
                Ok(Box::new(stream))
            }
            #[cfg(not(feature = "tls"))]
            Security::Tls => Err(ProxyError::Tls(crate::TlsError::NotCompiled)),
        }
    }
}

impl Dial for Proxy {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        Box::pin(async move {
            self.tunnel(target)
                .await
                .map_err(|error| DialError::Proxy(Box::new(error)))
        })
    }
}

impl FromStr for Proxy {
    type Err = ProxyConfigError;

    /// Takes `http://`, `https://`, `socks5://` and `socks5h://` URLs (the last two mean the same here: the
    /// proxy resolves), with or without percent-encoded user information. The port defaults to 80, 443 and
    /// 1080. Where there is no scheme, it is `http`.
    fn from_str(url: &str) -> Result<Self, ProxyConfigError> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(ProxyConfigError::Url(EndpointError::Path));
        }
        // The last `@`: passwords that nobody percent-encoded have them too.
        let (user_info, authority) = match rest.rsplit_once('@') {
            Some((user_info, authority)) => (Some(user_info), authority),
            None => (None, rest),
        };
        let (host, port) = split_authority(authority)?;
        let proxy = match scheme.to_ascii_lowercase().as_str() {
            "http" => Self::http(host, port.unwrap_or(80)),
            "https" => Self::https(host, port.unwrap_or(443)),
            "socks5" | "socks5h" => Self::socks5(host, port.unwrap_or(1080)),
            _ => return Err(ProxyConfigError::Scheme),
        };
        let Some(user_info) = user_info else {
            return Ok(proxy);
        };
        let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
        proxy.credentials(percent_decode(user)?, percent_decode(password)?)
    }
}

impl TryFrom<&str> for Proxy {
    type Error = ProxyConfigError;

    fn try_from(url: &str) -> Result<Self, ProxyConfigError> {
        url.parse()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.kind, self.address.security()) {
            (Kind::Socks5, _) => "socks5",
            (Kind::HttpConnect, Security::Plain) => "http",
            (Kind::HttpConnect, Security::Tls) => "https",
        };
        let user_info = match self.credentials {
            Some(_) => "<redacted>@",
            None => "",
        };
        write!(
            f,
            "Proxy({scheme}://{user_info}{})",
            self.address.authority()
        )
    }
}

impl Credentials {
    fn basic(&self) -> Result<HeaderValue, ProxyError> {
        let pair = Zeroizing::new(format!("{}:{}", *self.user, *self.password));
        let encoded = Zeroizing::new(format!(
            "Basic {}",
            data_encoding::BASE64.encode(pair.as_bytes())
        ));
        let mut value = HeaderValue::from_str(&encoded).map_err(|_| ProxyError::Malformed)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Why a proxy cannot be used as it was given. What was given is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyConfigError {
    /// The scheme is none of `http`, `https`, `socks5` and `socks5h`.
    Scheme,
    /// The host or port is not right, or there is a path.
    Url(EndpointError),
    /// The credentials cannot be carried, or their percent-encoding is broken.
    Credentials,
}

impl fmt::Display for ProxyConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => {
                "the scheme of the proxy's URL is none of http, https, socks5 and socks5h"
            }
            Self::Url(_) => "the proxy's URL is not right",
            Self::Credentials => "the proxy's credentials cannot be carried",
        })
    }
}

impl std::error::Error for ProxyConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Url(error) => Some(error),
            Self::Scheme | Self::Credentials => None,
        }
    }
}

impl From<EndpointError> for ProxyConfigError {
    fn from(error: EndpointError) -> Self {
        Self::Url(error)
    }
}

fn percent_decode(text: &str) -> Result<String, ProxyConfigError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(ProxyConfigError::Credentials);
        };
        decoded.push(u8::try_from(high * 16 + low).map_err(|_| ProxyConfigError::Credentials)?);
    }
    String::from_utf8(decoded).map_err(|_| ProxyConfigError::Credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_usual_urls() {
        for (url, shown) in [
            ("http://proxy.example", "Proxy(http://proxy.example:80)"),
            ("proxy.example:3128", "Proxy(http://proxy.example:3128)"),
            ("HTTPS://proxy.example/", "Proxy(https://proxy.example:443)"),
            ("socks5://[::1]", "Proxy(socks5://[::1]:1080)"),
            (
                "socks5h://u:p@10.0.0.1:9",
                "Proxy(socks5://<redacted>@10.0.0.1:9)",
            ),
        ] {
            let proxy: Proxy = url.parse().unwrap();
            assert_eq!(format!("{proxy:?}"), shown);
        }
        let proxy: Proxy = "http://us%65r:p%40ss@word@p.example".parse().unwrap();
        let credentials = proxy.credentials.unwrap();
        assert_eq!(credentials.user.as_str(), "user");
        assert_eq!(credentials.password.as_str(), "p@ss@word");
    }

    #[test]
    fn refuses_the_rest() {
        for (url, error) in [
            ("socks4://p.example", ProxyConfigError::Scheme),
            ("http://", ProxyConfigError::Url(EndpointError::Host)),
            (
                "http://p.example:0",
                ProxyConfigError::Url(EndpointError::Port),
            ),
            (
                "http://p.example/x",
                ProxyConfigError::Url(EndpointError::Path),
            ),
            ("http://a%zz@p.example", ProxyConfigError::Credentials),
            ("http://a%3Ab:c@p.example", ProxyConfigError::Credentials),
            ("http://a%0D:c@p.example", ProxyConfigError::Credentials),
            ("socks5://:p@p.example", ProxyConfigError::Credentials),
        ] {
            assert_eq!(url.parse::<Proxy>().unwrap_err(), error, "{url}");
        }
        let proxy = Proxy::socks5("p.example".parse().unwrap(), 1);
        assert!(proxy.clone().credentials("u", "p".repeat(255)).is_ok());
        assert!(proxy.credentials("u", "p".repeat(256)).is_err());
    }
}
