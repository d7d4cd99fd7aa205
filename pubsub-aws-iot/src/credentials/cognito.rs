//! Credentials from a Cognito identity pool, for guests and for users who have logged in elsewhere.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::Method;
use pubsub_core::BoxFuture;
use serde::{Deserialize, Serialize};
use ws_transport::{Connector, Target};

use super::{
    AwsCredentials, CachedCredentials, CredentialFreshness, CredentialSource, CredentialsError,
};
use crate::https::{Answer, HttpsClient, HttpsError, target_of};
use crate::partition::{ServiceEndpoint, is_region};

/// The longest error name that is kept.
const MAX_NAME_LEN: usize = 64;

/// The logins of a user: for each identity provider, the token that it gave.
///
/// Keys are as Cognito has them: `cognito-idp.REGION.amazonaws.com/POOL` for a user pool (with its ID token),
/// `accounts.google.com`, `graph.facebook.com`, the host of an OpenID Connect issuer.
pub type Logins = Vec<(String, String)>;

/// Credentials from a Cognito identity pool: of a guest, or of a user with [`Logins`].
///
/// The calls are `GetId`, once an identity, and `GetCredentialsForIdentity`, once an hour or so, as
/// [`CachedCredentials`] has it. Neither is signed. A clone is the same source; a handle on it tells the
/// [identity](Self::identity_id), which policies speak of, and signs users in and out.
///
/// A guest needs only an IAM role that allows what it does. An authenticated user also needs an IoT policy attached to
/// the identity; without it the service accepts the connection's signature and refuses everything else.
///
/// ```
/// use pubsub_aws_iot::{AwsIotOptions, CognitoCredentials};
///
/// let cognito = CognitoCredentials::new("eu-west-1:12345678-1234-1234-1234-123456789012")?;
/// let options = AwsIotOptions::new("a1b2c3example-ats.iot.eu-west-1.amazonaws.com").credentials(cognito.clone());
///
/// // Later, when the user has an ID token:
/// let pool = "cognito-idp.eu-west-1.amazonaws.com/eu-west-1_example";
/// cognito.sign_in(vec![(pool.into(), "eyJ…".into())]);
/// # let _ = options;
/// # Ok::<(), pubsub_aws_iot::CognitoError>(())
/// ```
#[derive(Clone)]
pub struct CognitoCredentials(Arc<CachedCredentials<Pool>>);

type FetchLogins =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Logins, CredentialsError>> + Send + Sync>;

/// The pool, asked for each renewal.
struct Pool {
    id: String,
    https: HttpsClient,
    custom_role: Option<String>,
    identity: Mutex<Identity>,
}

#[derive(Clone)]
struct Identity {
    logins: FetchLogins,
    /// As answered last: Cognito may merge an identity into another.
    id: Option<String>,
    /// Counts the sign-ins, so that an answer for an earlier user is not kept for a later one.
    number: u64,
}

impl CognitoCredentials {
    /// Credentials of a guest of this pool: `REGION:UUID`.
    ///
    /// # Errors
    ///
    /// [`CognitoError::PoolId`].
    pub fn new(identity_pool_id: impl Into<String>) -> Result<Self, CognitoError> {
        let id = identity_pool_id.into();
        let region = match id.split_once(':') {
            Some((region, rest)) if is_region(region) && !rest.is_empty() => region,
            _ => return Err(CognitoError::PoolId),
        };
        let target = target_in(region, ServiceEndpoint::Standard)?;
        Ok(Self::of(Pool {
            https: HttpsClient::new(Connector::new(), target),
            id,
            custom_role: None,
            identity: Mutex::new(Identity {
                logins: no_logins(),
                id: None,
                number: 0,
            }),
        }))
    }

    fn of(pool: Pool) -> Self {
        Self(Arc::new(CachedCredentials::new(pool)))
    }

    /// Changes the options, which only the first handle can: clones made before keep the old ones.
    fn change(self, change: impl FnOnce(&mut Pool)) -> Self {
        let pool = self.0.source();
        let mut pool = Pool {
            id: pool.id.clone(),
            https: pool.https.clone(),
            custom_role: pool.custom_role.clone(),
            identity: Mutex::new(pool.lock().clone()),
        };
        change(&mut pool);
        Self::of(pool)
    }

    /// Asks this function for the logins before each renewal, since an ID token often lives no longer than the
    /// credentials that it gives. Set before the source is used.
    #[must_use]
    pub fn logins_fn<F, Fut>(self, logins: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Logins, CredentialsError>> + Send + 'static,
    {
        self.change(|pool| {
            let identity = pool.identity.get_mut();
            identity.unwrap_or_else(PoisonError::into_inner).logins =
                Arc::new(move || Box::pin(logins()));
        })
    }

    /// Asks for this role instead of the pool's default one. Set before the source is used.
    #[must_use]
    pub fn custom_role_arn(self, arn: impl Into<String>) -> Self {
        self.change(|pool| pool.custom_role = Some(arn.into()))
    }

    /// Calls Cognito through this connector: a proxy, a private root. Set before the source is used.
    #[must_use]
    pub fn connector(self, connector: Connector) -> Self {
        self.change(|pool| pool.https = pool.https.with_connector(connector))
    }

    /// Calls this one of the region's endpoints. Default [`ServiceEndpoint::Standard`]. Set before the source is used.
    ///
    /// ```
    /// use pubsub_aws_iot::{CognitoCredentials, ServiceEndpoint};
    ///
    /// let cognito = CognitoCredentials::new("us-gov-west-1:12345678-1234-1234-1234-123456789012")?
    ///     .service_endpoint(ServiceEndpoint::Fips);
    /// # let _ = cognito;
    /// # Ok::<(), pubsub_aws_iot::CognitoError>(())
    /// ```
    #[must_use]
    pub fn service_endpoint(self, endpoint: ServiceEndpoint) -> Self {
        self.change(|pool| {
            // What is made of an id that was checked is a target.
            let region = pool.id.split(':').next().unwrap_or_default();
            if let Ok(target) = target_in(region, endpoint) {
                pool.https = pool.https.with_target(target);
            }
        })
    }

    /// Calls this server instead of the region's: `https://host[:port]`, or `http://` to this machine, for tests. Set
    /// before the source is used.
    ///
    /// # Errors
    ///
    /// [`CognitoError::Endpoint`].
    pub fn endpoint(self, url: &str) -> Result<Self, CognitoError> {
        let target = target_of(url).ok_or(CognitoError::Endpoint)?;
        Ok(self.change(|pool| pool.https = pool.https.with_target(target)))
    }

    /// The user has logged in elsewhere. Connections of the identity before end, and are made again for this one.
    pub fn sign_in(&self, logins: Logins) {
        self.become_another(Arc::new(move || {
            let logins = logins.clone();
            Box::pin(async { Ok(logins) })
        }));
    }

    /// The user is a guest again: another identity, with connections of its own.
    pub fn sign_out(&self) {
        self.become_another(no_logins());
    }

    fn become_another(&self, logins: FetchLogins) {
        {
            let mut identity = self.0.source().lock();
            identity.logins = logins;
            identity.id = None;
            identity.number += 1;
        }
        self.0.forget();
    }

    /// The identity, once credentials have been fetched: what IoT policies are attached to, and what
    /// `${cognito-identity.amazonaws.com:sub}` stands for in them.
    #[must_use]
    pub fn identity_id(&self) -> Option<String> {
        self.0.source().lock().id.clone()
    }
}

impl CredentialSource for CognitoCredentials {
    fn credentials(
        &self,
        freshness: CredentialFreshness,
    ) -> BoxFuture<'_, Result<AwsCredentials, CredentialsError>> {
        self.0.credentials(freshness)
    }

    fn identity_changed(&self) -> Option<BoxFuture<'static, ()>> {
        self.0.identity_changed()
    }
}

impl fmt::Debug for CognitoCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CognitoCredentials")
            .field("identity_pool_id", &self.0.source().id)
            .field("identity_id", &self.identity_id())
            .finish_non_exhaustive()
    }
}

impl Pool {
    fn lock(&self) -> std::sync::MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) -> Result<AwsCredentials, CredentialsError> {
        let identity = self.lock().clone();
        let logins = (identity.logins)().await?;
        let logins = Given(&logins);
        let known = match &identity.id {
            Some(id) => match self.credentials_of(id, logins).await {
                // Somebody deleted it. Cognito gives another one.
                Err(CognitoError::Service { name, .. }) if name == "ResourceNotFoundException" => {
                    None
                }
                answer => Some(answer?),
            },
            None => None,
        };
        let answer = match known {
            Some(answer) => answer,
            None => {
                let request = GetId {
                    identity_pool_id: &self.id,
                    logins,
                };
                let new: IdOf = self.call("GetId", &request).await?;
                self.credentials_of(&new.identity_id, logins).await?
            }
        };
        let mut current = self.lock();
        if current.number == identity.number {
            current.id = Some(answer.identity_id);
        }
        let keys = answer.credentials;
        let credentials = AwsCredentials::new(keys.access_key_id, keys.secret_key)
            .session_token(keys.session_token);
        // Seconds since 1970, with a fraction.
        let expiry = Duration::try_from_secs_f64(keys.expiration)
            .ok()
            .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
        Ok(match expiry {
            Some(end) => credentials.expires_at(end),
            None => return Err(CognitoError::Answer.into()),
        })
    }

    async fn credentials_of(
        &self,
        identity_id: &str,
        logins: Given<'_>,
    ) -> Result<CredentialsOf, CognitoError> {
        let request = GetCredentials {
            identity_id,
            logins,
            custom_role_arn: self.custom_role.as_deref(),
        };
        self.call("GetCredentialsForIdentity", &request).await
    }

    async fn call<A: for<'de> Deserialize<'de>>(
        &self,
        action: &str,
        request: &impl Serialize,
    ) -> Result<A, CognitoError> {
        let target = format!("AWSCognitoIdentityService.{action}");
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", target.as_str()),
        ];
        let body = serde_json::to_vec(request).map_err(|_| CognitoError::Answer)?;
        let answer = self
            .https
            .send(Method::POST, "/", &headers, Bytes::from(body))
            .await;
        let answer = answer.map_err(CognitoError::Https)?;
        if !answer.status.is_success() {
            return Err(CognitoError::understand(&answer));
        }
        // What is not as expected is not shown: it may hold half a secret.
        serde_json::from_slice(&answer.body).map_err(|_| CognitoError::Answer)
    }
}

impl CredentialSource for Pool {
    fn credentials(
        &self,
        _: CredentialFreshness,
    ) -> BoxFuture<'_, Result<AwsCredentials, CredentialsError>> {
        Box::pin(self.fetch())
    }
}

fn target_in(region: &str, endpoint: ServiceEndpoint) -> Result<Target, CognitoError> {
    let host = endpoint.host("cognito-identity", region);
    target_of(&format!("https://{host}")).ok_or(CognitoError::PoolId)
}

fn no_logins() -> FetchLogins {
    Arc::new(|| Box::pin(async { Ok(Logins::new()) }))
}

#[derive(Clone, Copy)]
struct Given<'a>(&'a [(String, String)]);

impl Given<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Given<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(provider, token)| (provider, token)))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetId<'a> {
    identity_pool_id: &'a str,
    #[serde(skip_serializing_if = "Given::is_empty")]
    logins: Given<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetCredentials<'a> {
    identity_id: &'a str,
    #[serde(skip_serializing_if = "Given::is_empty")]
    logins: Given<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_role_arn: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IdOf {
    identity_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CredentialsOf {
    identity_id: String,
    credentials: Keys,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    access_key_id: String,
    secret_key: String,
    session_token: String,
    expiration: f64,
}

/// Why Cognito gave no credentials. It is the source of a [`CredentialsError`].
#[derive(Debug)]
#[non_exhaustive]
pub enum CognitoError {
    /// The identity pool's id is not `REGION:UUID`.
    PoolId,
    /// The endpoint is neither `https://host[:port]` nor `http://` to this machine.
    Endpoint,
    /// There was no answer; the source says why.
    Https(HttpsError),
    /// Cognito said no.
    Service {
        /// The HTTP status.
        status: u16,
        /// Its name for it: `NotAuthorizedException` when a login has expired or guests are not let in,
        /// `ResourceNotFoundException` when there is no such pool.
        name: String,
    },
    /// The answer is not Cognito's.
    Answer,
}

impl CognitoError {
    /// Understands an answer that is not a success.
    fn understand(answer: &Answer) -> Self {
        #[derive(Deserialize)]
        struct Said {
            #[serde(rename = "__type")]
            name: String,
        }
        let said: Option<Said> = serde_json::from_slice(&answer.body).ok();
        let header = answer.headers.get("x-amzn-errortype");
        let name = said
            .map(|said| said.name)
            .or_else(|| Some(header?.to_str().ok()?.to_owned()))
            .unwrap_or_default();
        // `namespace#Name` in the one place, `Name:…` in the other.
        let name = name.rsplit('#').next().unwrap_or_default();
        let name = name.split(':').next().unwrap_or_default();
        let is_plain =
            name.len() <= MAX_NAME_LEN && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        Self::Service {
            status: answer.status.as_u16(),
            name: if is_plain {
                name.to_owned()
            } else {
                String::new()
            },
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::PoolId | Self::Endpoint => false,
            Self::Https(_) | Self::Answer => true,
            Self::Service { status, name } => {
                *status >= 500
                    || *status == 429
                    || matches!(
                        name.as_str(),
                        "TooManyRequestsException"
                            | "ExternalServiceException"
                            | "InternalErrorException"
                            | "ThrottlingException"
                    )
            }
        }
    }
}

impl fmt::Display for CognitoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoolId => f.write_str("the identity pool's id is not of the form REGION:UUID"),
            Self::Endpoint => f.write_str("the endpoint of Cognito is not an https:// one"),
            Self::Https(_) => f.write_str("Cognito did not answer"),
            Self::Service { status, name } if name.is_empty() => {
                write!(f, "Cognito refused with status {status}")
            }
            Self::Service { name, .. } => write!(f, "Cognito refused: {name}"),
            Self::Answer => f.write_str("the answer is not Cognito's"),
        }
    }
}

impl StdError for CognitoError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Https(error) => Some(error),
            _ => None,
        }
    }
}

impl From<CognitoError> for CredentialsError {
    fn from(error: CognitoError) -> Self {
        if error.is_retryable() {
            Self::unavailable(error)
        } else {
            Self::refused(error)
        }
    }
}
