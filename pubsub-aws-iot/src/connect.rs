//! One attempt: fresh credentials, a fresh signature, one WebSocket.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pubsub_core::BoxFuture;
use pubsub_generic::{
    Attempt, Connect, ConnectError, ConnectErrorKind, CredentialFreshness, Opened, Retry,
    WsTransport,
};
use sigv4_presign::Signer;
use ws_transport::{Connector, Endpoint as WsEndpoint, Refusal, UpgradeRequest, WebSocket};

use tokio::time::{Instant, timeout_at};

use crate::clock::ServiceClock;
use crate::credentials::{
    AwsCredentials, CredentialSource, CredentialsError, CredentialsErrorKind,
};
use crate::endpoint::Endpoint;
use crate::identity::OfOneIdentity;
use crate::options::CredentialExpiry;
use crate::refusal::{RefusalCause, ServiceRefusal};

/// How much of an attempt's time may go into waiting for credentials; the rest is for connecting.
const SHARE_OF_WAITING: f64 = 0.75;

/// Ends when credentials are no longer those of the identity that a connection was made for.
type IdentityChanged = BoxFuture<'static, ()>;

/// Connects to AWS IoT: what [`AwsIotProvider`](crate::AwsIotProvider) hands to the MQTT driver.
///
/// Each attempt asks the source for credentials and signs a URL of its own. A refusal (status 401, 403 or 426) is
/// answered within the attempt, each remedy once: if the answer's `Date` shows that our clock is off, with the clock
/// corrected; else with credentials renewed, where the source gives others than those refused. What is refused then is
/// final. So an attempt makes at most three requests.
pub(crate) struct SignedConnect {
    endpoint: Endpoint,
    source: Arc<dyn CredentialSource>,
    connector: Connector,
    request: UpgradeRequest,
    signer: Signer,
    clock: ServiceClock,
    expiry: CredentialExpiry,
    /// Ends when the credentials have come for want of which the last attempt failed.
    awaited: Mutex<Option<IdentityChanged>>,
}

impl SignedConnect {
    pub(crate) fn new(
        endpoint: Endpoint,
        source: Arc<dyn CredentialSource>,
        connector: Connector,
        request: UpgradeRequest,
        expiry: CredentialExpiry,
    ) -> Self {
        Self {
            endpoint,
            source,
            // The supervisor's deadline holds.
            connector: connector.timeout(Duration::MAX),
            request,
            signer: Signer::new(),
            clock: ServiceClock::default(),
            expiry,
            awaited: Mutex::new(None),
        }
    }

    async fn attempt(&self, attempt: &Attempt) -> Result<Allowed, ConnectError> {
        let began = Instant::now();
        let mut freshness = attempt.credentials();
        let wait = attempt.time_left().mul_f64(SHARE_OF_WAITING);
        let (mut credentials, changed) = self.first_fetch(freshness, wait).await?;
        let mut correction = ClockCorrection::Untried;
        loop {
            let endpoint = self.sign(&credentials)?;
            let left = attempt.time_left().saturating_sub(began.elapsed());
            let opened = self
                .connector
                .connect_within(&endpoint, &self.request, left)
                .await;
            let error = match opened {
                Ok(socket) => {
                    return Ok(Allowed {
                        socket,
                        changed,
                        good_for: self.good_for(&credentials),
                    });
                }
                Err(error) => error,
            };
            let ws_transport::ConnectError::Refused(answer) = &error else {
                return Err(error.into());
            };
            if !matches!(answer.status().as_u16(), 401 | 403 | 426) {
                return Err(error.into());
            }
            let skew = self.clock.skew_shown_by(header(answer, "date"));
            if skew.is_some()
                && correction == ClockCorrection::Untried
                && self.clock.correct(header(answer, "date")).is_some()
            {
                correction = ClockCorrection::Tried;
                continue;
            }
            if skew.is_none() && freshness == CredentialFreshness::Any {
                freshness = CredentialFreshness::Renew;
                let renewed = self.fetch(freshness).await.map_err(no_credentials)?;
                if !renewed.is_same(&credentials) {
                    credentials = renewed;
                    continue;
                }
            }
            let refused = ServiceRefusal::understand(
                answer.status().as_u16(),
                |name| header(answer, name),
                answer.body(),
                &credentials,
                self.clock.now(),
                skew,
            );
            return Err(final_refusal(error, refused));
        }
    }

    /// Waits for somebody to sign in, where the source can tell. With the credentials comes what ends when they are no
    /// longer this identity's; it is asked for first, so that no change slips through between the two.
    async fn first_fetch(
        &self,
        freshness: CredentialFreshness,
        wait: Duration,
    ) -> Result<(AwsCredentials, Option<IdentityChanged>), ConnectError> {
        let deadline = Instant::now() + wait;
        loop {
            let changed = self.source.identity_changed();
            match (self.fetch(freshness).await, changed) {
                (Ok(credentials), changed) => return Ok((credentials, changed)),
                (Err(error), Some(mut changed)) if error.kind() == CredentialsErrorKind::NotYet => {
                    if timeout_at(deadline, &mut changed).await.is_err() {
                        self.awaits(changed);
                        return Err(no_credentials(error));
                    }
                }
                (Err(error), _) => return Err(no_credentials(error)),
            }
        }
    }

    /// Credentials that have not expired, as far as the source has them.
    async fn fetch(
        &self,
        freshness: CredentialFreshness,
    ) -> Result<AwsCredentials, CredentialsError> {
        let credentials = self.source.credentials(freshness).await?;
        if freshness != CredentialFreshness::Any || !credentials.is_expired(self.clock.now()) {
            return Ok(credentials);
        }
        self.source.credentials(CredentialFreshness::Renew).await
    }

    fn awaits(&self, changed: IdentityChanged) {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        *awaited = Some(changed);
    }

    /// How long a connection may be kept that is opened with these now.
    fn good_for(&self, credentials: &AwsCredentials) -> Option<Duration> {
        match self.expiry {
            CredentialExpiry::KeepConnection => None,
            CredentialExpiry::ReplaceConnection => {
                let left = credentials.expiry()?.duration_since(self.clock.now());
                Some(left.unwrap_or(Duration::ZERO))
            }
        }
    }

    fn sign(&self, credentials: &AwsCredentials) -> Result<WsEndpoint, ConnectError> {
        let url = self
            .signer
            .presign_iot(
                self.endpoint.url(),
                self.endpoint.region(),
                credentials.keys(),
                self.clock.now(),
            )
            .map_err(|error| {
                ConnectError::new(ConnectErrorKind::Configuration).with_source(error)
            })?;
        url.as_str()
            .parse()
            .map_err(|error: ws_transport::EndpointError| {
                ConnectError::new(ConnectErrorKind::Configuration).with_source(error)
            })
    }
}

/// What an attempt came to.
struct Allowed {
    socket: WebSocket,
    changed: Option<IdentityChanged>,
    good_for: Option<Duration>,
}

/// Whether this attempt has corrected the clock already.
#[derive(PartialEq, Eq)]
enum ClockCorrection {
    Untried,
    Tried,
}

impl Connect for SignedConnect {
    fn connect<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>> {
        Box::pin(async move {
            let allowed = self.attempt(attempt).await?;
            let transport = WsTransport::new(allowed.socket);
            let opened = match allowed.changed {
                Some(changed) => Opened::new(OfOneIdentity::new(transport, changed)),
                None => Opened::new(transport),
            };
            Ok(match allowed.good_for {
                Some(time) => opened.good_for(time),
                None => opened,
            })
        })
    }

    fn worth_trying(&self) -> Option<BoxFuture<'static, ()>> {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.take()
    }
}

impl fmt::Debug for SignedConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedConnect")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

pub(crate) fn header<'a>(answer: &'a Refusal, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

fn no_credentials(error: CredentialsError) -> ConnectError {
    let retry = if error.is_retryable() {
        Retry::WithFreshCredentials
    } else {
        Retry::Never
    };
    ConnectError::new(ConnectErrorKind::Credentials)
        .with_retry(retry)
        .with_source(error)
}

fn final_refusal(error: ws_transport::ConnectError, refused: ServiceRefusal) -> ConnectError {
    let converted = match (refused.cause(), ConnectError::from(error)) {
        (RefusalCause::ExpiredCredentials, converted) => {
            let expired = ConnectError::new(ConnectErrorKind::Credentials);
            match converted.refusal() {
                Some(answer) => expired.with_refusal(answer.clone()),
                None => expired,
            }
        }
        (_, converted) => converted,
    };
    converted.with_retry(Retry::Never).with_source(refused)
}
