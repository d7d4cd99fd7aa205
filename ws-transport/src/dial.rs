//! From a target to a byte stream: DNS, happy eyeballs and TCP, or whatever a [`Dial`] does instead.

use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::{net::TcpStream, time};

use crate::{BoxedIo, DialError, Target};

/// Opens a byte stream to a target, below TLS: the seam for proxies, tunnels and tests.
///
/// What it returns is trusted to reach the target and nobody else only as far as TLS does not check that
/// again: for a `wss` target the certificate is verified on top of whatever was dialled.
///
/// There is no deadline to keep here: [`Connector`](crate::Connector) drops the future when its own passes.
///
/// ```
/// use ws_transport::{BoxedIo, Dial, DialFuture, Target};
///
/// /// Hands out one end of an in-memory pipe, whatever the target.
/// struct InMemory(std::sync::Mutex<Option<tokio::io::DuplexStream>>);
///
/// impl Dial for InMemory {
///     fn dial<'a>(&'a self, _target: &'a Target) -> DialFuture<'a> {
///         Box::pin(async move {
///             let io = self.0.lock().unwrap().take();
///             let io = io.ok_or_else(|| std::io::Error::other("dialled twice"))?;
///             Ok(Box::new(io) as BoxedIo)
///         })
///     }
/// }
/// ```
pub trait Dial: Send + Sync {
    /// Dials the target. Dropping the future gives the attempt up and must leak nothing.
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a>;
}

/// What [`Dial::dial`] returns.
pub type DialFuture<'a> = Pin<Box<dyn Future<Output = Result<BoxedIo, DialError>> + Send + 'a>>;

impl<D: Dial + ?Sized> Dial for Arc<D> {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        (**self).dial(target)
    }
}

/// Dials straight over TCP: the system's resolver, then happy eyeballs (RFC 8305) over its addresses.
///
/// Families alternate, beginning with the one that the resolver put first; a new attempt starts every
/// [`attempt_delay`](Self::attempt_delay), or at once when one fails; the first to connect wins. At most
/// [`MAX_ADDRESSES`](Self::MAX_ADDRESSES) addresses are tried.
#[derive(Clone)]
pub struct TcpDialer {
    nodelay: bool,
    keep_alive: Option<Duration>,
    attempt_delay: Duration,
    address_filter: Option<AddressFilter>,
}

type AddressFilter = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

impl TcpDialer {
    /// The most addresses of one name that are tried. A resolver can be made to return hundreds.
    pub const MAX_ADDRESSES: usize = 16;

    /// A dialler with the defaults: `TCP_NODELAY` on, TCP keep-alive after 60 s, 250 ms between attempts.
    #[must_use]
    pub fn new() -> Self {
        Self {
            nodelay: true,
            keep_alive: Some(Duration::from_secs(60)),
            attempt_delay: Duration::from_millis(250),
            address_filter: None,
        }
    }

    /// Leaves Nagle's algorithm on, for links where fewer packets matter more than latency.
    ///
    /// Off by default: a small request behind an unacknowledged one would wait a round trip or 40 ms.
    #[must_use]
    pub fn with_nagle(mut self) -> Self {
        self.nodelay = false;
        self
    }

    /// How long a connection is idle before TCP probes it; `None` for never. Default 60 s.
    ///
    /// A safety net below the keep-alive of the protocol above.
    #[must_use]
    pub fn keep_alive(mut self, idle: Option<Duration>) -> Self {
        self.keep_alive = idle;
        self
    }

    /// How long to wait for one address before trying the next beside it. Default 250 ms, as RFC 8305
    /// section 5 recommends; at least its minimum of 10 ms.
    #[must_use]
    pub fn attempt_delay(mut self, delay: Duration) -> Self {
        self.attempt_delay = delay.max(Duration::from_millis(10));
        self
    }

    /// Dials only addresses for which the filter answers `true`.
    ///
    /// It sees the address that is then dialled, after DNS: so a name that resolves to an internal address
    /// does not get past it. Without this, every address is dialled.
    #[must_use]
    pub fn address_filter(
        mut self,
        filter: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.address_filter = Some(Arc::new(filter));
        self
    }

    /// Dropping the future gives the attempt up.
    pub(crate) async fn connect(&self, target: &Target) -> Result<TcpStream, DialError> {
        let stream = match target.host().ip() {
            // Nothing to resolve, nothing to race.
            Some(ip) if self.is_allowed(ip) => self.open(SocketAddr::new(ip, target.port())).await,
            Some(_) => return Err(DialError::AddressRefused),
            // Large, and no part of an attempt at one address.
            None => Box::pin(self.resolve_and_race(target)).await?,
        };
        stream.map_err(DialError::Connect)
    }

    async fn resolve_and_race(&self, target: &Target) -> Result<io::Result<TcpStream>, DialError> {
        let addresses = self.resolve(target).await?;
        Ok(race(addresses, self.attempt_delay, |address| self.open(address)).await)
    }

    async fn resolve(&self, target: &Target) -> Result<Vec<SocketAddr>, DialError> {
        let mut addresses: Vec<SocketAddr> =
            tokio::net::lookup_host((target.host().as_str(), target.port()))
                .await
                .map_err(DialError::Resolve)?
                .collect();
        if addresses.is_empty() {
            return Err(DialError::Resolve(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            )));
        }
        addresses.retain(|address| self.is_allowed(address.ip()));
        if addresses.is_empty() {
            return Err(DialError::AddressRefused);
        }
        let mut addresses = interleave_families(addresses);
        addresses.truncate(Self::MAX_ADDRESSES);
        Ok(addresses)
    }

    fn is_allowed(&self, ip: IpAddr) -> bool {
        self.address_filter
            .as_ref()
            .is_none_or(|allowed| allowed(ip))
    }

    async fn open(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(self.nodelay)?;
        if let Some(idle) = self.keep_alive {
            let keep_alive = socket2::TcpKeepalive::new().with_time(idle);
            socket2::SockRef::from(&stream).set_tcp_keepalive(&keep_alive)?;
        }
        Ok(stream)
    }
}

impl Default for TcpDialer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TcpDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpDialer")
            .field("nodelay", &self.nodelay)
            .field("keep_alive", &self.keep_alive)
            .field("attempt_delay", &self.attempt_delay)
            .finish_non_exhaustive()
    }
}

impl Dial for TcpDialer {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        Box::pin(async { Ok(Box::new(self.connect(target).await?) as BoxedIo) })
    }
}

/// Alternates the families, beginning with the first address's (RFC 8305 section 4).
fn interleave_families(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first_is_v6) = addresses.first().map(SocketAddr::is_ipv6) else {
        return addresses;
    };
    let len = addresses.len();
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut interleaved = Vec::with_capacity(len);
    while interleaved.len() < len {
        interleaved.extend(first.next());
        interleaved.extend(second.next());
    }
    interleaved
}

/// Starts one attempt each `delay`, or as soon as all earlier ones have failed; the first success wins and
/// the rest are dropped. Fails with the first attempt's error, which is about the preferred address.
async fn race<T, F, Fut>(
    addresses: Vec<SocketAddr>,
    delay: Duration,
    mut attempt: F,
) -> io::Result<T>
where
    F: FnMut(SocketAddr) -> Fut,
    Fut: Future<Output = io::Result<T>>,
{
    if let [only] = addresses[..] {
        return attempt(only).await;
    }
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut first_error = None;
    loop {
        let started = match waiting.next() {
            Some(address) => {
                running.push(attempt(address));
                true
            }
            None => false,
        };
        let finished = if started && waiting.len() > 0 {
            // An elapsed delay starts the next attempt beside the running ones.
            match time::timeout(delay, running.next()).await {
                Ok(finished) => finished,
                Err(_elapsed) => continue,
            }
        } else {
            running.next().await
        };
        match finished {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => {
                first_error.get_or_insert(error);
            }
            None => {
                return Err(first_error
                    .unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, net::Ipv6Addr};

    use tokio::time::Instant;

    use super::*;

    fn v4(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 1))
    }

    fn v6(last: u16) -> SocketAddr {
        SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), 1))
    }

    const DELAY: Duration = Duration::from_millis(250);

    #[test]
    fn families_alternate_from_the_first() {
        assert_eq!(
            interleave_families(vec![v6(1), v6(2), v6(3), v4(1), v4(2)]),
            [v6(1), v4(1), v6(2), v4(2), v6(3)]
        );
        assert_eq!(
            interleave_families(vec![v4(1), v6(1), v6(2)]),
            [v4(1), v6(1), v6(2)]
        );
        assert_eq!(interleave_families(vec![v4(1), v4(2)]), [v4(1), v4(2)]);
        assert!(interleave_families(Vec::new()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_route_costs_one_delay() {
        let start = Instant::now();
        let winner = race(vec![v6(1), v4(1)], DELAY, |address| async move {
            if address.is_ipv6() {
                std::future::pending::<()>().await;
            }
            Ok(address)
        })
        .await
        .unwrap();
        assert_eq!(winner, v4(1));
        assert_eq!(start.elapsed(), DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_starts_the_next_at_once() {
        let start = Instant::now();
        let winner = race(vec![v6(1), v4(1)], DELAY, |address| async move {
            if address.is_ipv6() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(address)
        })
        .await
        .unwrap();
        assert_eq!(winner, v4(1));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_slow_first_may_still_win() {
        let start = Instant::now();
        let winner = race(vec![v6(1), v4(1)], DELAY, |address| async move {
            time::sleep(Duration::from_millis(if address.is_ipv6() {
                300
            } else {
                400
            }))
            .await;
            Ok(address)
        })
        .await
        .unwrap();
        assert_eq!(winner, v6(1));
        assert_eq!(start.elapsed(), Duration::from_millis(300));
    }

    #[tokio::test(start_paused = true)]
    async fn all_fail_with_the_first_error() {
        let tried = RefCell::new(Vec::new());
        let error = race(vec![v6(1), v4(1), v6(2)], DELAY, |address| {
            tried.borrow_mut().push(address);
            async move {
                Err::<(), _>(io::Error::from(if address == v6(1) {
                    io::ErrorKind::HostUnreachable
                } else {
                    io::ErrorKind::ConnectionRefused
                }))
            }
        })
        .await
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
        assert_eq!(*tried.borrow(), [v6(1), v4(1), v6(2)]);
    }

    #[tokio::test]
    async fn a_filtered_address_is_not_dialled() {
        let dialer = TcpDialer::new().address_filter(|ip| !ip.is_loopback());
        let target = Target::new("127.0.0.1".parse().unwrap(), 1, crate::Security::Plain);
        let Err(error) = dialer.dial(&target).await else {
            panic!("dialled a refused address");
        };
        assert!(matches!(error, DialError::AddressRefused));
    }
}
