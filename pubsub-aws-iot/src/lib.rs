//! Publish and subscribe through AWS IoT Core: a freshly signed WebSocket for every connection, credentials that renew
//! themselves.
//!
//! An AWS IoT endpoint is an MQTT broker behind a WebSocket, with a signed handshake and rules of its own. So
//! [`AwsIotProvider`] is `pubsub-generic`'s provider with three things added: each connection is signed anew with
//! credentials from a [`CredentialSource`]; a refusal is understood, remedied where it can be, and else told as an
//! [`ServiceRefusal`]; and what the service would hang up on is refused before it is sent ([`ServiceRules`]).
//!
//! # Logging
//!
//! Events of the `tracing` crate under the target `pubsub_aws_iot`, with no other field than `clock`. No credential, URL,
//! payload or topic is ever logged.
#![forbid(unsafe_code)]

mod authorizer;
mod clock;
mod config;
mod connect;
#[cfg(feature = "control-plane")]
mod control_plane;
mod credentials;
mod endpoint;
#[cfg(any(
    feature = "cognito",
    feature = "control-plane",
    feature = "https-publish"
))]
mod https;
mod identity;
mod options;
mod partition;
mod policy;
mod provider;
#[cfg(feature = "https-publish")]
mod publish;
mod refusal;
mod rules;
#[cfg(any(feature = "control-plane", feature = "https-publish"))]
mod signed;
mod topics;

pub use authorizer::{AuthorizerError, AuthorizerFields, CustomAuthorizer};
pub use clock::MAX_SKEW_CORRECTION;
#[cfg(feature = "control-plane")]
pub use control_plane::{ControlPlane, ControlPlaneError};
#[cfg(feature = "aws-credential-types")]
pub use credentials::SdkCredentials;
pub use credentials::{
    AwsCredentials, CachedCredentials, CredentialCell, CredentialFreshness, CredentialSource,
    CredentialsError, CredentialsErrorKind, CredentialsFn, EnvironmentCredentials, MAX_MARGIN,
    credentials_fn,
};
#[cfg(feature = "cognito")]
pub use credentials::{CognitoCredentials, CognitoError, Logins};
pub use endpoint::{EndpointError, PlainWs, region_of_host};
#[cfg(any(
    feature = "cognito",
    feature = "control-plane",
    feature = "https-publish"
))]
pub use https::HttpsError;
pub use identity::IdentityChanged;
pub use options::{AwsIotOptions, AwsIotOptionsError, CredentialExpiry, DEFAULT_NAME};
#[cfg(any(feature = "cognito", feature = "control-plane"))]
pub use partition::ServiceEndpoint;
pub use policy::{ConnectAttribute, LeastPolicy};
pub use provider::AwsIotProvider;
#[cfg(feature = "https-publish")]
pub use publish::{HttpsPublishError, HttpsPublisher};
pub use refusal::{ClockSkew, MAX_TEXT_CHARS, ProbablyNotAuthorized, RefusalCause, ServiceRefusal};
pub use rules::{ReservedNames, RuleViolation, ServiceRules};
pub use topics::{JobRequest, Jobs, ServiceTopicError, Shadow, ShadowRequest, basic_ingest};

// What a program needs beside these.
pub use pubsub_core::{self as core, Json, Message, OfflinePolicy, PubSub, QoS, Subscription};
#[cfg(feature = "durable")]
pub use pubsub_generic::FileSessionStore;
pub use pubsub_generic::{
    ProtocolVersion, ReasonCode, Reconnect, Renewal, RestoredPublish, SessionMode, Stats, Will,
};

// Its examples take these features.
#[cfg(all(doctest, feature = "cognito", feature = "control-plane"))]
#[doc = include_str!("../README.md")]
struct Readme;
