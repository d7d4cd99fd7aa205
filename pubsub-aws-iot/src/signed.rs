//! Calls whose headers are signed, and the remedies for refusals.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use hyper::Method;
use pubsub_generic::CredentialFreshness;
use sigv4_presign::{Payload, Request, Settings, Signer};

use crate::clock::ServiceClock;
use crate::credentials::{AwsCredentials, CredentialSource, CredentialsError};
use crate::https::{Answer, HttpsClient, HttpsError};
use crate::refusal::ServiceRefusal;

/// One service in one region, called with signed headers.
pub(crate) struct SignedCalls {
    https: HttpsClient,
    source: Arc<dyn CredentialSource>,
    region: String,
    /// What the service is called in signatures.
    service: &'static str,
    signer: Signer,
    clock: ServiceClock,
}

impl SignedCalls {
    pub(crate) fn new(
        https: HttpsClient,
        source: Arc<dyn CredentialSource>,
        region: &str,
        service: &'static str,
    ) -> Self {
        Self {
            https,
            source,
            region: region.to_owned(),
            service,
            signer: Signer::new(),
            clock: ServiceClock::default(),
        }
    }

    #[cfg(feature = "control-plane")]
    pub(crate) fn https_mut(&mut self) -> &mut HttpsClient {
        &mut self.https
    }

    #[cfg(feature = "control-plane")]
    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    /// Makes a call, and gives the answer if it is a success. A refusal is answered as when connecting, each remedy once:
    /// with the clock corrected, or with credentials renewed.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Bytes,
    ) -> Result<Answer, SignedCallError> {
        let mut freshness = CredentialFreshness::Any;
        let mut credentials = self.credentials(freshness).await?;
        if credentials.is_expired(self.clock.now()) {
            freshness = CredentialFreshness::Renew;
            credentials = self.credentials(freshness).await?;
        }
        let mut clock_corrected = false;
        loop {
            let answer = self
                .send(method.clone(), path, headers, body, &credentials)
                .await?;
            if answer.status.is_success() {
                return Ok(answer);
            }
            let header = |name: &str| answer.headers.get(name)?.to_str().ok();
            let about_signature = matches!(answer.status.as_u16(), 401 | 403);
            let skew = self
                .clock
                .skew_shown_by(header("date"))
                .filter(|_| about_signature);
            if skew.is_some() && !clock_corrected && self.clock.correct(header("date")).is_some() {
                clock_corrected = true;
                continue;
            }
            if about_signature && skew.is_none() && freshness == CredentialFreshness::Any {
                freshness = CredentialFreshness::Renew;
                let renewed = self.credentials(freshness).await?;
                if !renewed.is_same(&credentials) {
                    credentials = renewed;
                    continue;
                }
            }
            return Err(SignedCallError::Refused(Box::new(
                ServiceRefusal::understand(
                    answer.status.as_u16(),
                    header,
                    &answer.body,
                    &credentials,
                    self.clock.now(),
                    skew,
                ),
            )));
        }
    }

    async fn credentials(
        &self,
        freshness: CredentialFreshness,
    ) -> Result<AwsCredentials, SignedCallError> {
        let given = self.source.credentials(freshness).await;
        given.map_err(SignedCallError::Credentials)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Bytes,
        credentials: &AwsCredentials,
    ) -> Result<Answer, SignedCallError> {
        let url = format!("{}{path}", self.https.origin());
        let request = Request::new(method.as_str(), &url)
            .headers(headers)
            .payload(Payload::Bytes(body));
        let settings = Settings::new(&self.region, self.service);
        let signed = self
            .signer
            .sign_headers(&request, credentials.keys(), self.clock.now(), &settings)
            .map_err(SignedCallError::Signature)?;
        let mut headers = headers.to_vec();
        for (name, value) in signed.iter() {
            headers.push((name, value));
        }
        let answer = self.https.send(method, path, &headers, body.clone()).await;
        answer.map_err(SignedCallError::Https)
    }
}

/// Why a call was not answered with a success.
pub(crate) enum SignedCallError {
    Credentials(CredentialsError),
    Signature(sigv4_presign::Error),
    Https(HttpsError),
    Refused(Box<ServiceRefusal>),
}

/// Percent-encodes everything but RFC 3986's unreserved characters, slashes too.
pub(crate) fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

impl fmt::Debug for SignedCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedCalls")
            .field("https", &self.https)
            .field("region", &self.region)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}
