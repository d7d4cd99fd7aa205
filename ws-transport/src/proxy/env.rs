//! Proxies named by environment variables, for those who ask for them.

use std::{fmt, net::IpAddr};

use super::{Proxy, ProxyConfigError};
use crate::{Dial, DialFuture, Host, Security, Target, TcpDialer};

/// Dials through the proxies that the environment names, as curl understands it; nothing reads the environment
/// unless this is used.
///
/// `https_proxy` is for `wss` targets and `http_proxy` for `ws` ones, `all_proxy` for either where its own is not
/// set. `no_proxy` lists what is dialled straight: host names (which cover their subdomains), IP addresses, address
/// ranges such as `10.0.0.0/8`, or `*` for everything. Each in lower or upper case, lower case first; but
/// `HTTP_PROXY` is not looked at, since a CGI server sets it from a request's `Proxy` header.
///
/// ```no_run
/// use ws_transport::{Connector, EnvProxies};
///
/// let connector = Connector::new().dialer(EnvProxies::from_env()?);
/// # Ok::<(), ws_transport::ProxyConfigError>(())
/// ```
pub struct EnvProxies {
    plain: Option<Proxy>,
    tls: Option<Proxy>,
    direct: TcpDialer,
    exceptions: Vec<Exception>,
}

impl EnvProxies {
    /// Reads the process's environment.
    ///
    /// # Errors
    ///
    /// When a variable that is set does not name a proxy.
    pub fn from_env() -> Result<Self, ProxyConfigError> {
        // Bytes that are not text make a URL that is refused, not a variable that is not there.
        Self::from_variables(|name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        })
    }

    /// Reads the same variables from somewhere else.
    ///
    /// # Errors
    ///
    /// When a variable that is set does not name a proxy.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ProxyConfigError> {
        let first = |names: &[&str]| {
            names
                .iter()
                .filter_map(|name| variable(name))
                .map(|value| value.trim().to_owned())
                .find(|value| !value.is_empty())
        };
        let proxy = |names: &[&str]| -> Result<Option<Proxy>, ProxyConfigError> {
            first(names).map(|url| url.parse()).transpose()
        };
        Ok(Self {
            plain: proxy(&["http_proxy", "all_proxy", "ALL_PROXY"])?,
            tls: proxy(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])?,
            direct: TcpDialer::new(),
            exceptions: first(&["no_proxy", "NO_PROXY"])
                .map(|list| list.split(',').filter_map(Exception::parse).collect())
                .unwrap_or_default(),
        })
    }

    /// How to dial where no proxy is for the target. Default [`TcpDialer::new`].
    #[must_use]
    pub fn direct(mut self, dialer: TcpDialer) -> Self {
        self.direct = dialer;
        self
    }

    /// The proxy for the target, if any.
    #[must_use]
    pub fn proxy_for(&self, target: &Target) -> Option<&Proxy> {
        if self
            .exceptions
            .iter()
            .any(|exception| exception.covers(target.host()))
        {
            return None;
        }
        match target.security() {
            Security::Plain => self.plain.as_ref(),
            Security::Tls => self.tls.as_ref(),
        }
    }
}

impl fmt::Debug for EnvProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvProxies")
            .field("plain", &self.plain)
            .field("tls", &self.tls)
            .field("exceptions", &self.exceptions.len())
            .finish_non_exhaustive()
    }
}

impl Dial for EnvProxies {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        match self.proxy_for(target) {
            Some(proxy) => proxy.dial(target),
            None => self.direct.dial(target),
        }
    }
}

enum Exception {
    Everything,
    /// Without a leading or trailing dot, in lower case.
    Domain(String),
    Range(IpAddr, u32),
}

impl Exception {
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim();
        if entry == "*" {
            return Some(Self::Everything);
        }
        let (address, prefix) = match entry.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (entry, None),
        };
        let bare = address
            .strip_prefix('[')
            .and_then(|address| address.strip_suffix(']'))
            .unwrap_or(address);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            let width = if ip.is_ipv4() { 32 } else { 128 };
            let prefix = match prefix {
                None => width,
                Some(prefix) => prefix.parse().ok().filter(|&prefix| prefix <= width)?,
            };
            return Some(Self::Range(ip, prefix));
        }
        let domain = entry.trim_matches('.').to_ascii_lowercase();
        (!domain.is_empty() && prefix.is_none()).then_some(Self::Domain(domain))
    }

    fn covers(&self, host: &Host) -> bool {
        match self {
            Self::Everything => true,
            Self::Domain(domain) => {
                let name = host.as_str().trim_end_matches('.').to_ascii_lowercase();
                name.strip_suffix(domain.as_str())
                    .is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
            Self::Range(network, prefix) => match (network, host.ip()) {
                (IpAddr::V4(network), Some(IpAddr::V4(ip))) => {
                    let differ = network.to_bits() ^ ip.to_bits();
                    differ.leading_zeros() >= *prefix
                }
                (IpAddr::V6(network), Some(IpAddr::V6(ip))) => {
                    let differ = network.to_bits() ^ ip.to_bits();
                    differ.leading_zeros() >= *prefix
                }
                _ => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> EnvProxies {
        EnvProxies::from_variables(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
        .unwrap()
    }

    fn chosen(proxies: &EnvProxies, url: &str) -> Option<String> {
        let endpoint: crate::Endpoint = url.parse().unwrap();
        proxies
            .proxy_for(endpoint.target())
            .map(|proxy| format!("{proxy:?}"))
    }

    #[test]
    fn each_scheme_has_its_variable() {
        let both = proxies(&[
            ("HTTPS_PROXY", "https://secure.example"),
            ("http_proxy", "http://plain.example"),
            ("HTTP_PROXY", "http://from-a-request.example"),
        ]);
        assert_eq!(
            chosen(&both, "wss://a.example").unwrap(),
            "Proxy(https://secure.example:443)"
        );
        assert_eq!(
            chosen(&both, "ws://a.example").unwrap(),
            "Proxy(http://plain.example:80)"
        );

        let all = proxies(&[("all_proxy", "socks5://s.example"), ("https_proxy", " ")]);
        for url in ["ws://a.example", "wss://a.example"] {
            assert_eq!(chosen(&all, url).unwrap(), "Proxy(socks5://s.example:1080)");
        }
        let upper_only = proxies(&[("HTTP_PROXY", "http://from-a-request.example")]);
        assert_eq!(chosen(&upper_only, "ws://a.example"), None);
        assert_eq!(chosen(&proxies(&[]), "wss://a.example"), None);
    }

    #[test]
    fn exceptions_are_dialled_straight() {
        let listed = proxies(&[
            ("all_proxy", "http://p.example"),
            (
                "no_proxy",
                "Internal.example, .dotted.example,10.0.0.0/8,192.0.2.7,[::1],2001:db8::/33, ,x/y",
            ),
        ]);
        for straight in [
            "wss://internal.example",
            "wss://a.INTERNAL.example.",
            "wss://dotted.example",
            "wss://b.dotted.example",
            "wss://10.200.0.1",
            "wss://192.0.2.7",
            "wss://[::1]",
            "wss://[2001:db8:7fff::1]",
        ] {
            assert_eq!(chosen(&listed, straight), None, "{straight}");
        }
        for proxied in [
            "wss://notinternal.example",
            "wss://internal.example.org",
            "wss://11.0.0.1",
            "wss://192.0.2.8",
            "wss://[2001:db8:8000::1]",
        ] {
            assert!(chosen(&listed, proxied).is_some(), "{proxied}");
        }
        let none = proxies(&[("ALL_PROXY", "http://p.example"), ("NO_PROXY", "*")]);
        assert_eq!(chosen(&none, "wss://a.example"), None);
    }

    #[test]
    fn a_broken_variable_is_an_error_and_not_a_direct_connection() {
        let error = EnvProxies::from_variables(|name| {
            (name == "https_proxy").then(|| "ftp://secret".to_owned())
        })
        .unwrap_err();
        assert_eq!(error, ProxyConfigError::Scheme);
    }
}
