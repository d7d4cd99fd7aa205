//! Where the credentials of a signature come from.

mod cached;
mod cell;
#[cfg(feature = "cognito")]
mod cognito;
#[cfg(feature = "aws-credential-types")]
mod sdk;

use std::env::VarError;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use pubsub_core::BoxFuture;
use sigv4_presign::Credentials;

pub use cached::{CachedCredentials, MAX_MARGIN};
pub use cell::CredentialCell;
#[cfg(feature = "cognito")]
pub use cognito::{CognitoCredentials, CognitoError, Logins};
pub use pubsub_generic::CredentialFreshness;
#[cfg(feature = "aws-credential-types")]
pub use sdk::SdkCredentials;

/// AWS credentials, and until when they hold.
///
/// They are a [`CredentialSource`] too: always these same ones.
///
/// ```
/// use pubsub_aws_iot::AwsCredentials;
///
/// let credentials = AwsCredentials::new("AKIDEXAMPLE", "secret key").session_token("token");
/// # let shown = format!("{credentials:?}");
/// # assert!(!shown.contains("secret key") && !shown.contains("token\""));
/// ```
///
/// Secret and token are overwritten when the last copy is dropped, and `Debug` does not show them.
#[derive(Clone)]
pub struct AwsCredentials {
    keys: Credentials,
    expires_at: Option<SystemTime>,
}

impl AwsCredentials {
    /// Long-term credentials.
    #[must_use]
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        Self {
            keys: Credentials::new(access_key_id, secret_access_key),
            expires_at: None,
        }
    }

    /// Adds the session token of temporary credentials.
    #[must_use]
    pub fn session_token(mut self, token: impl Into<String>) -> Self {
        self.keys = self.keys.with_session_token(token);
        self
    }

    /// Says when temporary credentials end. From then on the source is asked for new ones before anything is signed; what
    /// it gives is used whatever it says, since it may be our clock that is wrong.
    #[must_use]
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expires_at = Some(time);
        self
    }

    /// The access key ID, which is not a secret.
    #[must_use]
    pub fn access_key_id(&self) -> &str {
        self.keys.access_key_id()
    }

    /// When they end, if they do.
    #[must_use]
    pub fn expiry(&self) -> Option<SystemTime> {
        self.expires_at
    }

    pub(crate) fn keys(&self) -> &Credentials {
        &self.keys
    }

    pub(crate) fn is_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// Whether a signature with the one is a signature with the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.keys.access_key_id() == other.keys.access_key_id()
            && self.keys.secret_access_key() == other.keys.secret_access_key()
            && self.keys.session_token() == other.keys.session_token()
    }
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsCredentials")
            .field("keys", &self.keys)
            .field("expires_at", &self.expires_at)
            .finish()
    }
}

/// Gives credentials when a connection is to be signed for.
///
/// It is asked anew for every attempt, so that no connection is made with what has expired meanwhile. Sources that have
/// to fetch keep what they fetched, and give it again until it is about to expire or was refused.
///
/// [`AwsCredentials`] are a source; [`EnvironmentCredentials`], [`CredentialCell`] and [`credentials_fn`] make others, and
/// [`CachedCredentials`] keeps what a costly one fetched.
///
/// ```
/// use pubsub_aws_iot::{AwsCredentials, CredentialFreshness, CredentialSource, CredentialsError};
/// use pubsub_aws_iot::core::BoxFuture;
///
/// struct Vault;
///
/// impl CredentialSource for Vault {
///     fn credentials(&self, _: CredentialFreshness) -> BoxFuture<'_, Result<AwsCredentials, CredentialsError>> {
///         Box::pin(async { Ok(AwsCredentials::new("AKIDEXAMPLE", "from the vault")) })
///     }
/// }
/// ```
pub trait CredentialSource: Send + Sync + 'static {
    /// Credentials to sign with now. [`CredentialFreshness::Renew`] says that the last ones were refused, and that a
    /// cache is not to give them again.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped with the attempt that it is for. What it fetches for others too should go on.
    fn credentials(
        &self,
        freshness: CredentialFreshness,
    ) -> BoxFuture<'_, Result<AwsCredentials, CredentialsError>>;

    /// A future that ends when the credentials to be given are somebody else's than those given so far: when a user signs
    /// in, signs out, or another takes their place. Then a connection made for the old identity is dropped, and one that
    /// waits because there were [no credentials yet](CredentialsErrorKind::NotYet) is made.
    ///
    /// `None`, the default, says that the source cannot tell. New credentials of the same identity are no change.
    fn identity_changed(&self) -> Option<BoxFuture<'static, ()>> {
        None
    }
}

impl CredentialSource for AwsCredentials {
    fn credentials(
        &self,
        _: CredentialFreshness,
    ) -> BoxFuture<'_, Result<AwsCredentials, CredentialsError>> {
        let same = self.clone();
        Box::pin(async move { Ok(same) })
    }
}

impl<S: CredentialSource + ?Sized> CredentialSource for Arc<S> {
    fn credentials(
        &self,
        freshness: CredentialFreshness,
    ) -> BoxFuture<'_, Result<AwsCredentials, CredentialsError>> {
        (**self).credentials(freshness)
    }

    fn identity_changed(&self) -> Option<BoxFuture<'static, ()>> {
        (**self).identity_changed()
    }
}

/// The source that calls this function each time.
///
/// ```
/// use pubsub_aws_iot::{AwsCredentials, CredentialsError, credentials_fn};
///
/// let source = credentials_fn(|_freshness| async {
///     let (id, secret, token) = ask_my_back_end().await.map_err(CredentialsError::unavailable)?;
///     Ok(AwsCredentials::new(id, secret).session_token(token))
/// });
/// # async fn ask_my_back_end() -> Result<(String, String, String), std::io::Error> { Ok(Default::default()) }
/// # let _ = source;
/// ```
pub fn credentials_fn<F, Fut>(function: F) -> CredentialsFn<F>
where
    F: Fn(CredentialFreshness) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AwsCredentials, CredentialsError>> + Send + 'static,
{
    CredentialsFn(function)
}

/// A function as a [`CredentialSource`], made by [`credentials_fn`].
#[derive(Clone)]
pub struct CredentialsFn<F>(F);

impl<F, Fut> CredentialSource for CredentialsFn<F>
where
    F: Fn(CredentialFreshness) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AwsCredentials, CredentialsError>> + Send + 'static,
{
    fn credentials(
        &self,
        freshness: CredentialFreshness,
    ) -> BoxFuture<'_, Result<AwsCredentials, CredentialsError>> {
        Box::pin((self.0)(freshness))
    }
}

impl<F> fmt::Debug for CredentialsFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsFn").finish_non_exhaustive()
    }
}

/// The credentials in the environment: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, for temporary ones,
/// `AWS_SESSION_TOKEN`. Read for each attempt; empty variables count as unset.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct EnvironmentCredentials;

impl EnvironmentCredentials {
    /// The source.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    fn read(
        variable: impl Fn(&'static str) -> Result<String, VarError>,
    ) -> Result<AwsCredentials, CredentialsError> {
        let read = |name| match variable(name) {
            Ok(value) if !value.is_empty() => Ok(Some(value)),
            Ok(_) | Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => {
                Err(CredentialsError::missing(VariableError::NotUnicode(name)))
            }
        };
        let needed = |name| {
            read(name)?.ok_or_else(|| CredentialsError::missing(VariableError::NotSet(name)))
        };
        let credentials = AwsCredentials::new(
            needed("AWS_ACCESS_KEY_ID")?,
            needed("AWS_SECRET_ACCESS_KEY")?,
        );
        Ok(match read("AWS_SESSION_TOKEN")? {
            Some(token) => credentials.session_token(token),
            None => credentials,
        })
    }
}

impl CredentialSource for EnvironmentCredentials {
    fn credentials(
        &self,
        _: CredentialFreshness,
    ) -> BoxFuture<'_, Result<AwsCredentials, CredentialsError>> {
        Box::pin(async { Self::read(std::env::var) })
    }
}

/// What is wrong with a variable of the environment. Its value is never shown.
#[derive(Debug)]
enum VariableError {
    NotSet(&'static str),
    NotUnicode(&'static str),
}

impl fmt::Display for VariableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSet(name) => write!(f, "the environment variable {name} is not set"),
            Self::NotUnicode(name) => write!(f, "the environment variable {name} is not Unicode"),
        }
    }
}

impl StdError for VariableError {}

/// Why a [`CredentialSource`] has no credentials.
#[derive(Debug)]
pub struct CredentialsError {
    kind: CredentialsErrorKind,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kinds of [`CredentialsError`], which say what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CredentialsErrorKind {
    /// Nobody has signed in yet. Asked again later.
    NotYet,
    /// They could not be fetched this time. Asked again later.
    Unavailable,
    /// They are not where they should be. Final: somebody has to put them there.
    Missing,
    /// Whoever hands them out refuses to. Final.
    Refused,
}

impl CredentialsError {
    /// Nobody has signed in yet.
    #[must_use]
    pub fn not_yet() -> Self {
        Self {
            kind: CredentialsErrorKind::NotYet,
            source: None,
        }
    }

    /// They could not be fetched this time. The cause must not display secrets.
    #[must_use]
    pub fn unavailable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::with_source(CredentialsErrorKind::Unavailable, source)
    }

    /// They are not where they should be. The cause must not display secrets.
    #[must_use]
    pub fn missing(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::with_source(CredentialsErrorKind::Missing, source)
    }

    /// Whoever hands them out refuses to. The cause must not display secrets.
    #[must_use]
    pub fn refused(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::with_source(CredentialsErrorKind::Refused, source)
    }

    fn with_source(
        kind: CredentialsErrorKind,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            source: Some(source.into()),
        }
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> CredentialsErrorKind {
        self.kind
    }

    /// Whether the source is asked again without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(
            self.kind,
            CredentialsErrorKind::Missing | CredentialsErrorKind::Refused
        )
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            CredentialsErrorKind::NotYet => "there are no credentials yet",
            CredentialsErrorKind::Unavailable => "the credentials could not be fetched",
            CredentialsErrorKind::Missing => "the credentials are missing",
            CredentialsErrorKind::Refused => "the credentials were refused",
        })
    }
}

impl StdError for CredentialsError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<AwsCredentials, CredentialsError> {
        EnvironmentCredentials::read(|name| {
            let found = set.iter().find(|(set, _)| *set == name);
            found
                .map(|(_, value)| (*value).to_owned())
                .ok_or(VarError::NotPresent)
        })
    }

    #[test]
    fn the_environment_is_read_as_other_tools_read_it() {
        let id = ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
        let secret = ("AWS_SECRET_ACCESS_KEY", "marker-secret");
        let long = read(&[id, secret, ("AWS_SESSION_TOKEN", "")]).unwrap();
        assert_eq!(long.access_key_id(), "AKIDEXAMPLE");
        assert_eq!(long.keys().session_token(), None);
        let temporary = read(&[id, secret, ("AWS_SESSION_TOKEN", "marker-token")]).unwrap();
        assert_eq!(temporary.keys().session_token(), Some("marker-token"));
        assert!(!format!("{temporary:?}").contains("marker"));
        let error = read(&[id]).unwrap_err();
        assert_eq!(error.kind(), CredentialsErrorKind::Missing);
        assert!(!error.is_retryable());
        assert_eq!(
            error.source().unwrap().to_string(),
            "the environment variable AWS_SECRET_ACCESS_KEY is not set"
        );
    }

    #[test]
    fn they_expire_at_the_moment_they_name() {
        let end = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000);
        let credentials = AwsCredentials::new("AKIDEXAMPLE", "secret").expires_at(end);
        assert!(!credentials.is_expired(end - std::time::Duration::from_secs(1)));
        assert!(credentials.is_expired(end));
        assert!(!AwsCredentials::new("AKIDEXAMPLE", "secret").is_expired(end));
    }
}
