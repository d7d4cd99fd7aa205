//! The few calls of the IoT control plane that a program needs before it can connect.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use hyper::Method;
use serde::Deserialize;
use ws_transport::{Connector, Target};

use crate::credentials::{CredentialSource, CredentialsError};
use crate::https::{HttpsClient, HttpsError, target_of};
use crate::partition::{ServiceEndpoint, is_region};
use crate::policy::LeastPolicy;
use crate::refusal::{RefusalCause, ServiceRefusal};
use crate::signed::{SignedCallError, SignedCalls, encode};

/// What the service is called, in its host and in signatures.
const SERVICE: &str = "iot";

/// The longest name of a policy, in bytes.
const MAX_POLICY_NAME_LEN: usize = 128;

/// The set-up of an account: which endpoint it has, and who may do what there.
///
/// Its credentials are an administrator's, not the program's: they need `iot:DescribeEndpoint`, `iot:CreatePolicy` and
/// `iot:AttachPolicy`.
///
/// ```no_run
/// use pubsub_aws_iot::{ControlPlane, ControlPlaneError, EnvironmentCredentials, LeastPolicy};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let control = ControlPlane::new("eu-west-1", EnvironmentCredentials::new())?;
/// let policy = LeastPolicy::new("arn:aws:iot:eu-west-1:123456789012").connect("kitchen");
/// match control.create_policy("kitchen", &policy).await {
///     Err(ControlPlaneError::AlreadyExists(_)) => {} // from the last time
///     made => made?,
/// }
/// control.attach_policy("kitchen", "eu-west-1:12345678-1234-1234-1234-123456789012").await?;
/// println!("connect to {}", control.describe_endpoint().await?);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ControlPlane(SignedCalls);

impl ControlPlane {
    /// The control plane of a region.
    ///
    /// # Errors
    ///
    /// [`ControlPlaneError::Region`].
    pub fn new(
        region: impl AsRef<str>,
        credentials: impl CredentialSource,
    ) -> Result<Self, ControlPlaneError> {
        let region = region.as_ref();
        let target = target_in(region, ServiceEndpoint::Standard)?;
        let https = HttpsClient::new(Connector::new(), target);
        let source = Arc::new(credentials);
        Ok(Self(SignedCalls::new(https, source, region, SERVICE)))
    }

    /// Calls this one of the region's endpoints. Default [`ServiceEndpoint::Standard`].
    #[must_use]
    pub fn service_endpoint(mut self, endpoint: ServiceEndpoint) -> Self {
        // The region was checked when this was made.
        if let Ok(target) = target_in(self.0.region(), endpoint) {
            self.call_at(target);
        }
        self
    }

    /// Calls this server instead of the region's: `https://host[:port]`, as that of a VPC endpoint or a dual-stack one,
    /// or `http://` to this machine, for tests.
    ///
    /// # Errors
    ///
    /// [`ControlPlaneError::Endpoint`].
    pub fn endpoint(mut self, url: &str) -> Result<Self, ControlPlaneError> {
        self.call_at(target_of(url).ok_or(ControlPlaneError::Endpoint)?);
        Ok(self)
    }

    /// Calls through this connector: a proxy, a private root.
    #[must_use]
    pub fn connector(mut self, connector: Connector) -> Self {
        let https = self.0.https_mut();
        *https = https.with_connector(connector);
        self
    }

    fn call_at(&mut self, target: Target) {
        let https = self.0.https_mut();
        *https = https.with_target(target);
    }

    /// The account's endpoint for MQTT, HTTPS publishing and shadows: what
    /// [`AwsIotOptions::new`](crate::AwsIotOptions::new) takes. It is the one with certificates of Amazon's own
    /// (`iot:Data-ATS`). An account that has none yet gets one, and has it from then on.
    ///
    /// # Errors
    ///
    /// See [`ControlPlaneError`].
    ///
    /// # Cancel safety
    ///
    /// Asking is harmless; the future can be dropped at any time.
    pub async fn describe_endpoint(&self) -> Result<String, ControlPlaneError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Described {
            endpoint_address: String,
        }
        let path = "/endpoint?endpointType=iot%3AData-ATS";
        let answer = self.0.call(Method::GET, path, &[], &Bytes::new()).await?;
        let described: Described =
            serde_json::from_slice(&answer.body).map_err(|_| ControlPlaneError::Answer)?;
        Ok(described.endpoint_address)
    }

    /// Creates an IoT policy, of which authenticated Cognito identities, certificates and thing groups need one. Guests
    /// and IAM users need an IAM policy instead, which is not made here; the document is the same.
    ///
    /// # Errors
    ///
    /// [`ControlPlaneError::AlreadyExists`] where there is one of this name, which is left as it is;
    /// [`ControlPlaneError::PolicyName`] for a name that cannot be; see there for the rest.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped the policy may or may not be there.
    pub async fn create_policy(
        &self,
        name: &str,
        policy: &LeastPolicy,
    ) -> Result<(), ControlPlaneError> {
        let path = path_of("/policies/", name)?;
        let body = serde_json::json!({ "policyDocument": policy.to_string() });
        self.send(Method::POST, &path, &body).await
    }

    /// Attaches an IoT policy to who is to have its rights: a Cognito identity
    /// ([`CognitoCredentials::identity_id`](crate::CognitoCredentials::identity_id)), or the ARN of a certificate or a
    /// thing group. Attaching it again changes nothing. The service takes up to a few minutes to go by it.
    ///
    /// # Errors
    ///
    /// [`ControlPlaneError::NotFound`] where there is no such policy, [`ControlPlaneError::LimitExceeded`] where the target
    /// has as many as it can; see there for the rest.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped the policy may or may not be attached; the call can be made again.
    pub async fn attach_policy(&self, name: &str, target: &str) -> Result<(), ControlPlaneError> {
        let path = path_of("/target-policies/", name)?;
        let body = serde_json::json!({ "target": target });
        self.send(Method::PUT, &path, &body).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<(), ControlPlaneError> {
        let headers = [("content-type", "application/json")];
        let body = Bytes::from(body.to_string());
        self.0.call(method, path, &headers, &body).await?;
        Ok(())
    }
}

fn target_in(region: &str, endpoint: ServiceEndpoint) -> Result<Target, ControlPlaneError> {
    let host = endpoint.host(SERVICE, region);
    let target = is_region(region).then(|| target_of(&format!("https://{host}")));
    target.flatten().ok_or(ControlPlaneError::Region)
}

/// A name of a policy as the last segment of a path.
fn path_of(parent: &str, name: &str) -> Result<String, ControlPlaneError> {
    let is_name = (1..=MAX_POLICY_NAME_LEN).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte))
        // A client or the signature might take these for steps in the path.
        && !matches!(name, "." | "..");
    if !is_name {
        return Err(ControlPlaneError::PolicyName);
    }
    let mut path = parent.to_owned();
    encode(&mut path, name);
    Ok(path)
}

/// Why a call of the control plane failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ControlPlaneError {
    /// The region is none: regions are in lower case, as `eu-west-1`.
    Region,
    /// The endpoint is neither `https://host[:port]` nor `http://` to this machine.
    Endpoint,
    /// The policy's name is empty, longer than 128 bytes, or has other characters than letters, digits and `_+=,.@-`.
    PolicyName,
    /// There are no credentials. Nothing was sent.
    Credentials(CredentialsError),
    /// The request cannot be signed. Nothing was sent.
    Signature(sigv4_presign::Error),
    /// There was no answer; it may have been done.
    Https(HttpsError),
    /// There is no policy of this name.
    NotFound(Box<ServiceRefusal>),
    /// There is a policy of this name already.
    AlreadyExists(Box<ServiceRefusal>),
    /// The target has as many policies as it can have.
    LimitExceeded(Box<ServiceRefusal>),
    /// The service refused for another reason: no right to do this, or a wrong signature.
    Refused(Box<ServiceRefusal>),
    /// The answer is not the service's.
    Answer,
}

impl ControlPlaneError {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Credentials(error) => error.is_retryable(),
            Self::Https(_) | Self::Answer => true,
            Self::Refused(refusal) => matches!(
                ServiceRefusal::cause(refusal),
                RefusalCause::Throttled | RefusalCause::Service
            ),
            _ => false,
        }
    }
}

impl fmt::Display for ControlPlaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Region => "the region is not one: lower case, as in `eu-west-1`",
            Self::Endpoint => "the endpoint of the control plane is not an https:// one",
            Self::PolicyName => {
                "the policy's name is not 1 to 128 letters, digits and characters of `_+=,.@-`"
            }
            Self::Credentials(_) => "there are no credentials to call the control plane with",
            Self::Signature(_) => "the request cannot be signed",
            Self::Https(_) => "the control plane did not answer",
            Self::NotFound(_) => "there is no such policy",
            Self::AlreadyExists(_) => "there is a policy of this name already",
            Self::LimitExceeded(_) => "the target has as many policies as it can have",
            Self::Refused(_) => "the control plane refused",
            Self::Answer => "the answer is not the control plane's",
        })
    }
}

impl StdError for ControlPlaneError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Credentials(error) => Some(error),
            Self::Signature(error) => Some(error),
            Self::Https(error) => Some(error),
            Self::NotFound(refusal)
            | Self::AlreadyExists(refusal)
            | Self::LimitExceeded(refusal)
            | Self::Refused(refusal) => Some(refusal.as_ref()),
            Self::Region | Self::Endpoint | Self::PolicyName | Self::Answer => None,
        }
    }
}

impl From<SignedCallError> for ControlPlaneError {
    fn from(error: SignedCallError) -> Self {
        match error {
            SignedCallError::Credentials(error) => Self::Credentials(error),
            SignedCallError::Signature(error) => Self::Signature(error),
            SignedCallError::Https(error) => Self::Https(error),
            // Each of these statuses has one meaning in this API.
            SignedCallError::Refused(refusal) => match refusal.status() {
                404 => Self::NotFound(refusal),
                409 => Self::AlreadyExists(refusal),
                410 => Self::LimitExceeded(refusal),
                _ => Self::Refused(refusal),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_policies_are_one_segment() {
        assert_eq!(
            path_of("/policies/", "a_b+c=d,e.f@g-h").unwrap(),
            "/policies/a_b%2Bc%3Dd%2Ce.f%40g-h"
        );
        assert!(path_of("/", &"x".repeat(MAX_POLICY_NAME_LEN)).is_ok());
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "é",
            &"x".repeat(MAX_POLICY_NAME_LEN + 1),
        ] {
            let error = path_of("/policies/", bad).unwrap_err();
            assert!(matches!(error, ControlPlaneError::PolicyName), "{bad}");
        }
    }
}
