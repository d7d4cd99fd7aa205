//! An AWS IoT endpoint on loopback: it does to a WebSocket upgrade what the service does, and
//! relays what it lets in to a broker.
//!
//! The signature is recomputed by an implementation that is not ours (see below), from the bytes of
//! the request line and the `Host` header as they came. Checked are the algorithm, the date
//! against the gateway's own clock, the scope, the signed headers, the access key, its session
//! token and their life. A refusal looks as the service's: 403 with `x-amzn-ErrorType`,
//! `x-amzn-RequestId`, `date` and a short JSON body that does not say why; the test finds the
//! reason in [`Gateway::attempts`].
//!
//! Of the signature, the key derivation and the HMAC are the `aws-sigv4` crate's. That crate cannot
//! sign a request without `X-Amz-Expires`, which most clients of this service leave out, so the
//! canonical request is put together here. Of a request that is signed in its headers, as those to AWS's HTTPS endpoints are,
//! [`sdk_authorization`] has the crate compute all.
//!
//! Once a client is in, each of its packets is looked at. What its policy or the quotas do not allow
//! ends the connection without a word under MQTT 3.1.1 and with a reason code under MQTT 5, QoS 2
//! gets no answer, a filter `a/#` is not for `a`, and wildcards get no retained messages; the
//! CONNACK of MQTT 5 announces the service's limits. [`Gateway::incidents`] says what it was.
//!
//! ```no_run
//! # async fn example(broker_url: &str) -> std::io::Result<()> {
//! use testkit::gateway::{AccessKey, GatewayOptions, Outcome};
//!
//! let gateway = GatewayOptions::new(broker_url)
//!     .region("eu-west-1")
//!     .access_key(AccessKey::new("AKIDEXAMPLE", "secret").session_token("token"))
//!     .start()
//!     .await?;
//! // ... a client signs gateway.url() and connects ...
//! assert_eq!(gateway.attempts()[0].outcome, Outcome::Accepted);
//! # Ok(()) }
//! ```
//!
//! What nobody outside the service knows for sure is set here to the stricter reading: a skew of
//! five minutes, and an `X-Amz-Expires` that can shorten the life of a URL but not stretch it. The
//! same goes for some reason codes of MQTT 5: a client should not depend on which of the documented
//! ones comes. What is not there: the limits of an account, the throughput of a connection,
//! sessions that outlive their broker's, `$aws` topics that answer.

mod attempt;
mod authorizer;
mod clock;
mod headers;
mod incident;
mod inspect;
mod keys;
mod log;
mod packet;
mod policy;
mod quotas;
mod relay;
mod repeats;
mod serve;
mod sigv4;
mod takeover;

use std::{
    collections::VecDeque,
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::http::Uri;

pub use self::{
    attempt::{Attempt, Outcome, Refusal, Signature},
    authorizer::Authorizer,
    clock::Clock,
    headers::sdk_authorization,
    incident::Incident,
    keys::{AccessKey, KeyRing},
    log::MAX_REMEMBERED,
    policy::{ACCOUNT, Action, MAX_POLICY_LENGTH, Policy, PolicyError},
    quotas::Quotas,
};
use crate::certs::Identity;

/// How far a request's date may be from the gateway's clock, either way, unless set otherwise.
pub const MAX_SKEW: Duration = Duration::from_secs(300);

/// How many connections are served at a time; the next ones wait to be accepted. More clients than
/// any test starts, fewer than the files that a process may usually open.
pub const MAX_CONNECTIONS: usize = 256;

/// What a gateway is to be.
#[derive(Clone)]
pub struct GatewayOptions {
    broker: String,
    region: String,
    host: Option<String>,
    max_skew: Duration,
    identity: Option<Identity>,
    keys: KeyRing,
    authorizers: authorizer::Authorizers,
    quotas: Quotas,
    denied_publish: DeniedPublish,
    end_at_expiry: bool,
    clock: Clock,
}

/// How a publish at QoS 1 that the policy denies is answered under MQTT 5. Nobody outside knows which the
/// service does, so a client is tested with both. At QoS 0 it is always a DISCONNECT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "two ways, closed")]
pub enum DeniedPublish {
    /// With a PUBACK of 0x87; the connection goes on.
    #[default]
    Puback,
    /// With a DISCONNECT of 0x87.
    Disconnect,
}

impl GatewayOptions {
    /// A gateway in `us-east-1`, without TLS and without any access key, that relays to a broker at
    /// this `ws://` address.
    #[must_use]
    pub fn new(broker_url: &str) -> Self {
        Self {
            broker: broker_url.to_owned(),
            region: "us-east-1".to_owned(),
            host: None,
            max_skew: MAX_SKEW,
            identity: None,
            keys: KeyRing::default(),
            authorizers: authorizer::Authorizers::default(),
            quotas: Quotas::default(),
            denied_publish: DeniedPublish::default(),
            end_at_expiry: false,
            clock: Clock::default(),
        }
    }

    /// The region that requests must be signed for.
    #[must_use]
    pub fn region(mut self, region: &str) -> Self {
        region.clone_into(&mut self.region);
        self
    }

    /// The `Host` header that requests must have; without this any is taken, as long as it is the
    /// one that was signed.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// How far a request's date may be off: [`MAX_SKEW`] unless set.
    #[must_use]
    pub fn max_skew(mut self, skew: Duration) -> Self {
        self.max_skew = skew;
        self
    }

    /// Speaks TLS with this certificate.
    #[must_use]
    pub fn tls(mut self, identity: &Identity) -> Self {
        self.identity = Some(identity.clone());
        self
    }

    /// Knows this access key from the start. More can be added with [`Gateway::keys`].
    #[must_use]
    pub fn access_key(self, key: AccessKey) -> Self {
        self.keys.add(key);
        self
    }

    /// Also lets clients in that name this authorizer and give its token: in the query or the headers
    /// of the upgrade, or in the user name of the CONNECT.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Authorizer) -> Self {
        self.authorizers.0.push(authorizer);
        self
    }

    /// The limits on each connection: [`Quotas::aws`] unless set.
    #[must_use]
    pub fn quotas(mut self, quotas: Quotas) -> Self {
        self.quotas = quotas;
        self
    }

    /// How a denied publish is answered under MQTT 5: with a PUBACK unless set.
    #[must_use]
    pub fn denied_publish(mut self, answer: DeniedPublish) -> Self {
        self.denied_publish = answer;
        self
    }

    /// Ends a connection when its access key does, with the first packet after that. Whether the service does so nobody
    /// outside knows; unless this is called, connections outlive their keys.
    #[must_use]
    pub fn end_at_expiry(mut self) -> Self {
        self.end_at_expiry = true;
        self
    }

    /// Listens on an ephemeral port of 127.0.0.1. The broker is first needed when a client comes.
    ///
    /// # Errors
    ///
    /// When no port can be bound, or the broker's URL is not one of `ws://` with host and port.
    pub async fn start(self) -> io::Result<Gateway> {
        self.start_on(0).await
    }

    /// As [`start`](Self::start), on a given port, for a program that people point others at.
    ///
    /// # Errors
    ///
    /// As there, and when the port is taken.
    pub async fn start_on(self, port: u16) -> io::Result<Gateway> {
        let broker = broker_address(&self.broker).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the broker's URL must be ws:// with a host and a port",
            )
        })?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let tls = self.identity.as_ref().map(|i| i.acceptor(None));
        let shared = Arc::new(Shared {
            tls,
            broker,
            attempts: log::Log::new(),
            incidents: log::Log::new(),
            holders: takeover::Holders::default(),
            faults: Mutex::new(VecDeque::new()),
            repeat_deliveries: Arc::new(AtomicBool::new(false)),
            closed: watch::Sender::new(0),
            open: watch::Sender::new(0),
            options: self,
        });
        let serving = tokio::spawn(serve::serve(listener, Arc::clone(&shared)));
        Ok(Gateway {
            address,
            shared,
            serving,
        })
    }
}

impl fmt::Debug for GatewayOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayOptions")
            .field("region", &self.region)
            .field("host", &self.host)
            .field("tls", &self.identity.is_some())
            .finish_non_exhaustive()
    }
}

/// A running gateway. Dropping it ends the listener and all connections.
pub struct Gateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    options: GatewayOptions,
    tls: Option<TlsAcceptor>,
    broker: Broker,
    attempts: log::Log<Attempt>,
    incidents: log::Log<(String, Incident)>,
    holders: takeover::Holders,
    faults: Mutex<VecDeque<Fault>>,
    repeat_deliveries: Arc<AtomicBool>,
    /// How many times all connections have been closed.
    closed: watch::Sender<u64>,
    open: watch::Sender<usize>,
}

struct Broker {
    url: String,
    authority: String,
}

#[derive(Clone, Copy)]
enum Fault {
    Refuse(u16),
    Stall,
}

impl Gateway {
    /// What a client signs and connects to: `ws://127.0.0.1:…/mqtt`, or `wss://localhost:…/mqtt`.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = match self.shared.tls {
            None => "ws",
            Some(_) => "wss",
        };
        format!("{scheme}://{}/mqtt", self.endpoint())
    }

    /// Host and port of [`url`](Self::url).
    #[must_use]
    pub fn endpoint(&self) -> String {
        match self.shared.tls {
            None => self.address.to_string(),
            Some(_) => format!("localhost:{}", self.address.port()),
        }
    }

    /// The address it listens at.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The region that requests must be signed for.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.shared.options.region
    }

    /// Its clock, to be put wrong.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.options.clock
    }

    /// The access keys it knows.
    #[must_use]
    pub fn keys(&self) -> &KeyRing {
        &self.shared.options.keys
    }

    /// What became of the requests so far, the oldest first; at most [`MAX_REMEMBERED`].
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        self.shared.attempts.all()
    }

    /// Waits until there have been this many attempts since the start, and gives them all. It waits
    /// for ever if they never come: bound it. Cancel safe.
    pub async fn wait_for_attempts(&self, total: u64) -> Vec<Attempt> {
        self.shared.attempts.wait_for_total(total).await
    }

    /// What the service would not let pass so far, each with the client identifier, the oldest first;
    /// at most [`MAX_REMEMBERED`].
    #[must_use]
    pub fn incidents(&self) -> Vec<(String, Incident)> {
        self.shared.incidents.all()
    }

    /// Waits until there have been this many incidents since the start, and gives them all. It waits
    /// for ever if they never come: bound it. Cancel safe.
    pub async fn wait_for_incidents(&self, total: u64) -> Vec<(String, Incident)> {
        self.shared.incidents.wait_for_total(total).await
    }

    /// Waits until this many connections are being relayed. It waits for ever if that never happens:
    /// bound it. Cancel safe.
    pub async fn wait_for_open(&self, connections: usize) {
        let mut open = self.shared.open.subscribe();
        let reached = open.wait_for(|&open| open == connections).await;
        reached.expect("the sender is in self");
    }

    /// Ends all connections that are open now as the service does: without a close frame.
    pub fn close_all(&self) {
        self.shared.closed.send_modify(|closed| *closed += 1);
    }

    /// Ends all connections of clients with an identifier, with a DISCONNECT of this reason code under
    /// MQTT 5 and without a word before.
    pub fn disconnect_all(&self, reason: u8) {
        self.shared.holders.end_all(reason);
    }

    /// From now on delivers each message twice, as the service sometimes does: at QoS 1 under another
    /// packet identifier and without the DUP flag.
    pub fn repeat_deliveries(&self) {
        self.shared.repeat_deliveries.store(true, Ordering::Relaxed);
    }

    /// Answers the next requests with this status, whatever they say.
    pub fn refuse_next(&self, requests: usize, status: u16) {
        self.shared.inject(requests, Fault::Refuse(status));
    }

    /// Leaves the next requests without an answer, their connections open until
    /// [`close_all`](Self::close_all).
    pub fn stall_next(&self, requests: usize) {
        self.shared.inject(requests, Fault::Stall);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("url", &self.url())
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn inject(&self, requests: usize, fault: Fault) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.extend(std::iter::repeat_n(fault, requests));
    }

    fn next_fault(&self) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.pop_front()
    }
}

fn broker_address(url: &str) -> Option<Broker> {
    let uri: Uri = url.parse().ok()?;
    uri.port_u16()?;
    let authority = uri.authority()?.as_str();
    let plain = uri.scheme_str() == Some("ws") && !authority.contains('@');
    plain.then(|| Broker {
        url: url.to_owned(),
        authority: authority.to_owned(),
    })
}
