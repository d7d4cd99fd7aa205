//! Credentials from a provider of the AWS SDK.

use std::fmt;

use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError as SdkError;
use pubsub_core::BoxFuture;

use super::{
    AwsCredentials, CachedCredentials, CredentialFreshness, CredentialSource, CredentialsError,
};

/// Credentials from a provider of the AWS SDK, kept until they are about to expire.
///
/// Any `ProvideCredentials` of the `aws-credential-types` crate will do. That of `aws-config` is the chain that AWS's own
/// tools go through: environment, shared profile files, SSO, containers, instance metadata. What a provider gives is kept
/// as [`CachedCredentials`] keep it, since those of the SDK mostly keep nothing.
///
/// ```
/// use aws_credential_types::Credentials;
/// use pubsub_aws_iot::{AwsIotOptions, SdkCredentials};
///
/// // From `aws-config`: `aws_config::load_defaults(BehaviorVersion::latest()).await.credentials_provider()`.
/// let provider = Credentials::new("AKIDEXAMPLE", "secret", None, None, "example");
/// let options = AwsIotOptions::new("a1b2c3example-ats.iot.eu-west-1.amazonaws.com")
///     .credentials(SdkCredentials::new(provider));
/// # let _ = options;
/// ```
///
/// Where a provider finds nothing, or its configuration is wrong, that is [final](CredentialsError::is_retryable); that it
/// took too long or failed otherwise may pass.
pub struct SdkCredentials(CachedCredentials<Provider>);

struct Provider(Box<dyn ProvideCredentials>);

impl SdkCredentials {
    /// The source that asks this provider.
    #[must_use]
    pub fn new(provider: impl ProvideCredentials + 'static) -> Self {
        Self(CachedCredentials::new(Provider(Box::new(provider))))
    }
}

impl CredentialSource for SdkCredentials {
    fn credentials(
        &self,
        freshness: CredentialFreshness,
    ) -> BoxFuture<'_, Result<AwsCredentials, CredentialsError>> {
        self.0.credentials(freshness)
    }
}

impl CredentialSource for Provider {
    fn credentials(
        &self,
        _: CredentialFreshness,
    ) -> BoxFuture<'_, Result<AwsCredentials, CredentialsError>> {
        Box::pin(async {
            let given = self.0.provide_credentials().await.map_err(understand)?;
            let mut credentials =
                AwsCredentials::new(given.access_key_id(), given.secret_access_key());
            if let Some(token) = given.session_token() {
                credentials = credentials.session_token(token);
            }
            if let Some(end) = given.expiry() {
                credentials = credentials.expires_at(end);
            }
            Ok(credentials)
        })
    }
}

fn understand(error: SdkError) -> CredentialsError {
    match error {
        SdkError::CredentialsNotLoaded(_) | SdkError::InvalidConfiguration(_) => {
            CredentialsError::missing(error)
        }
        _ => CredentialsError::unavailable(error),
    }
}

impl fmt::Debug for SdkCredentials {
    /// Without the provider, whose own `Debug` may show anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SdkCredentials").finish_non_exhaustive()
    }
}
