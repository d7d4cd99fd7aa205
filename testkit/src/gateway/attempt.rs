//! What became of each request for a connection.

use std::{
    fmt,
    hash::{Hash, Hasher},
    time::{Duration, SystemTime},
};

/// One request for a connection. It holds no secret and shows none.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// When it was judged, by the gateway's clock.
    pub at: SystemTime,
    /// The access key that it named, known or not.
    pub access_key_id: Option<String>,
    /// Its signature, to tell attempts apart.
    pub signature: Option<Signature>,
    /// What became of it.
    pub outcome: Outcome,
}

/// A signature, to be compared and not to be read: with it somebody could connect for five minutes.
#[derive(Clone)]
pub struct Signature(pub(super) String);

impl PartialEq for Signature {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Signature {}

impl Hash for Signature {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<signature>")
    }
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Upgraded, and relayed to the broker.
    Accepted,
    /// It was no request for a WebSocket: answered with 400 or 426.
    NotAnUpgrade,
    /// Answered with 403. The client is not told more than that, as with the service.
    Refused(Refusal),
    /// Answered with this status on the test's command.
    Injected(u16),
    /// Left without an answer on the test's command.
    Stalled,
    /// Answered with 503, since the broker behind does not answer.
    BrokerUnreachable,
}

/// Why a request was refused, which the client has to guess.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The path is not `/mqtt`.
    Path,
    /// Neither `mqtt` nor `mqttv3.1` is offered.
    Subprotocol,
    /// A parameter is missing.
    Missing(&'static str),
    /// A parameter of the signature stands there twice.
    Repeated(&'static str),
    /// A parameter cannot be read.
    Malformed(&'static str),
    /// `X-Amz-Algorithm` is not AWS4-HMAC-SHA256.
    Algorithm,
    /// The scope's date is not that of `X-Amz-Date`.
    ScopeDate,
    /// The scope names another region.
    ScopeRegion,
    /// The scope names another service than `iotdevicegateway` or `iotdata`.
    ScopeService,
    /// The scope does not end in `aws4_request`.
    ScopeTerminator,
    /// The date is further from the gateway's clock than it allows.
    Skew {
        /// How far.
        by: Duration,
        /// Whether the client's clock is the one that is ahead.
        client_ahead: bool,
    },
    /// The request's own, shorter `X-Amz-Expires` has passed.
    Expired,
    /// Other headers than `host` are signed.
    SignedHeaders,
    /// There is no `Host` header, there are several, or it is not the one that is asked for.
    Host,
    /// The access key is unknown.
    UnknownAccessKey,
    /// The access key has expired.
    ExpiredAccessKey,
    /// The access key is temporary, and the token is missing, wrong, or given for a key without one.
    SessionToken,
    /// The signature would be right if the token were to be signed, but it is to be appended.
    SignedSessionToken,
    /// The signature is wrong: another secret, or something was changed after signing.
    Signature,
    /// A custom authorizer said no.
    Authorizer,
}
