//! One attempt: fresh credentials, a fresh signature, one WebSocket.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use pubsub_core::BoxFuture;
use pubsub_generic::{
    Attempt, Connect, ConnectError, ConnectErrorKind, CredentialFreshness, Retry, Transport,
    WsTransport,
};
use sigv4_presign::Signer;
use ws_transport::{Connector, Endpoint as WsEndpoint, Refusal, UpgradeRequest, WebSocket};

use tokio::time::{Instant, timeout_at};

use crate::credentials::{
    AwsCredentials, CredentialSource, CredentialsError, CredentialsErrorKind,
};
use crate::endpoint::Endpoint;
use crate::identity::OfOneIdentity;
use crate::refusal::{ClockSkew, RefusalCause, UpgradeRefused};

/// A clock that is off by less is not what the service refused for: it tolerates five minutes, as far as is known.
const TOLERATED_SKEW: Duration = Duration::from_secs(120);

/// How wrong our clock may be for the service's `Date` to correct it: a day, which covers every mix-up of time zones.
/// Beyond that, somebody should set the clock; and a URL signed for a date far ahead would be good until then.
pub const MAX_SKEW_CORRECTION: Duration = Duration::from_secs(24 * 60 * 60);

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
    /// How our clock was found to be off. Outlives the attempt that found it.
    skew: Mutex<Option<ClockSkew>>,
}

impl SignedConnect {
    pub(crate) fn new(
        endpoint: Endpoint,
        source: Arc<dyn CredentialSource>,
        connector: Connector,
        request: UpgradeRequest,
    ) -> Self {
        Self {
            endpoint,
            source,
            connector,
            request,
            signer: Signer::new(),
            skew: Mutex::new(None),
        }
    }

    pub(crate) fn host(&self) -> &str {
        self.endpoint.host()
    }

    pub(crate) fn region(&self) -> &str {
        self.endpoint.region()
    }

    async fn attempt(
        &self,
        attempt: &Attempt,
    ) -> Result<(WebSocket, Option<IdentityChanged>), ConnectError> {
        let connector = self.connector.clone().timeout(attempt.time_left());
        let mut freshness = attempt.credentials();
        let wait = attempt.time_left().mul_f64(SHARE_OF_WAITING);
        let (mut credentials, changed) = self.first_fetch(freshness, wait).await?;
        let mut clock = ClockCorrection::Untried;
        loop {
            let endpoint = self.sign(&credentials)?;
            let error = match connector.connect(&endpoint, &self.request).await {
                Ok(socket) => return Ok((socket, changed)),
                Err(error) => error,
            };
            let ws_transport::ConnectError::Refused(answer) = &error else {
                return Err(error.into());
            };
            if !matches!(answer.status().as_u16(), 401 | 403 | 426) {
                return Err(error.into());
            }
            let skew = self.skew_shown_by(answer);
            if skew.is_some()
                && clock == ClockCorrection::Untried
                && self.correct_clock(answer).is_some()
            {
                clock = ClockCorrection::Tried;
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
            let refused = UpgradeRefused::understand(answer, &credentials, self.now(), skew);
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
                (Err(error), Some(changed)) if error.kind() == CredentialsErrorKind::NotYet => {
                    if timeout_at(deadline, changed).await.is_err() {
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
        if freshness != CredentialFreshness::Any || !credentials.is_expired(self.now()) {
            return Ok(credentials);
        }
        self.source.credentials(CredentialFreshness::Renew).await
    }

    fn sign(&self, credentials: &AwsCredentials) -> Result<WsEndpoint, ConnectError> {
        let url = self
            .signer
            .presign_iot(
                self.endpoint.url(),
                self.endpoint.region(),
                credentials.keys(),
                self.now(),
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

    /// The time by the service's clock, as far as we know it.
    fn now(&self) -> SystemTime {
        let ours = SystemTime::now();
        let skew = *self.skew.lock().unwrap_or_else(PoisonError::into_inner);
        skew.and_then(|skew| skew.correct(ours)).unwrap_or(ours)
    }

    /// How far the clock that signed is off, if so far that it may be the cause.
    fn skew_shown_by(&self, answer: &Refusal) -> Option<ClockSkew> {
        let skew = ClockSkew::between(self.now(), date_of(answer)?);
        (skew.by() > TOLERATED_SKEW).then_some(skew)
    }

    /// Goes by the service's clock from here on, unless ours is off by more than can be meant.
    fn correct_clock(&self, answer: &Refusal) -> Option<()> {
        let skew = ClockSkew::between(SystemTime::now(), date_of(answer)?);
        if skew.by() > MAX_SKEW_CORRECTION {
            return None;
        }
        tracing::warn!(clock = %skew, "the system's clock is wrong; signing by the service's");
        *self.skew.lock().unwrap_or_else(PoisonError::into_inner) = Some(skew);
        Some(())
    }
}

/// Whether this attempt has corrected the clock already.
#[derive(PartialEq, Eq)]
enum ClockCorrection {
    Untried,
    Tried,
}

impl Connect for SignedConnect {
    fn connect<'a>(
        &'a self,
        attempt: &'a Attempt,
    ) -> BoxFuture<'a, Result<Box<dyn Transport>, ConnectError>> {
        Box::pin(async move {
            let (socket, changed) = self.attempt(attempt).await?;
            let transport = WsTransport::new(socket);
            Ok(match changed {
                Some(changed) => Box::new(OfOneIdentity::new(transport, changed)),
                None => Box::new(transport) as Box<dyn Transport>,
            })
        })
    }
}

impl fmt::Debug for SignedConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedConnect")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

fn date_of(answer: &Refusal) -> Option<SystemTime> {
    let date = answer.headers().get("date")?.to_str().ok()?;
    httpdate::parse_http_date(date).ok()
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

fn final_refusal(error: ws_transport::ConnectError, refused: UpgradeRefused) -> ConnectError {
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
