//! What the service says when it does not let us in, as far as it says anything.

use std::error::Error as StdError;
use std::fmt;
use std::time::{Duration, SystemTime};

use pubsub_core::{ProviderError, ProviderErrorKind};

use crate::credentials::AwsCredentials;

/// The most characters of a refusal's text that are kept. The service's are one sentence.
pub const MAX_TEXT_CHARS: usize = 256;

/// A word longer than this may be a signature, a token or a signed request; a request id has 36 characters.
const MAX_WORD_LEN: usize = 40;

/// The longest error type or request id that is kept.
const MAX_NAME_LEN: usize = 64;

/// The service refused a signed request, for good: neither a corrected clock nor fresh credentials helped, or there
/// was nothing to correct or renew.
///
/// It is in the chain of [sources](StdError::source) of the error that the call, the connection state and the
/// subscriptions get: see [`find`](Self::find). Nothing in it shows a secret.
///
/// ```
/// use pubsub_aws_iot::{RefusalCause, ServiceRefusal};
/// use pubsub_aws_iot::core::ProviderError;
///
/// fn advice(error: &ProviderError) -> &'static str {
///     match ServiceRefusal::find(error).map(ServiceRefusal::cause) {
///         Some(RefusalCause::ClockSkew) => "set the clock",
///         Some(RefusalCause::ExpiredCredentials) => "sign in again",
///         Some(_) => "check keys, region, and endpoint",
///         None => "it was not the service that refused",
///     }
/// }
/// # advice(&pubsub_aws_iot::core::ProviderErrorKind::Closed.into());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRefusal {
    status: u16,
    cause: RefusalCause,
    error_type: Option<String>,
    request_id: Option<String>,
    text: Option<String>,
    skew: Option<ClockSkew>,
}

/// Why the service refused, as far as its answer and our own clock tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalCause {
    /// Our clock differs from the service's by more than it tolerates, and by more than is corrected.
    ClockSkew,
    /// The credentials have expired.
    ExpiredCredentials,
    /// The signature is wrong: another secret key, or another region or service in what was signed.
    Signature,
    /// The access key or the session token is none that the service knows.
    UnknownCredentials,
    /// The request as such was at fault (other statuses of the 400s than 401, 403 and 429).
    Request,
    /// Too many requests: later again.
    Throttled,
    /// The service itself failed: later again.
    Service,
    /// The service does not tell. It answers alike to a wrong secret key, region or token, to an endpoint of another
    /// account, and where the credentials have no right to connect.
    NotTold,
}

/// How far our clock was off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClockSkew {
    /// The service's clock was ahead of ours by this much.
    Behind(Duration),
    /// Ours was ahead of the service's by this much.
    Ahead(Duration),
}

impl ClockSkew {
    pub(crate) fn between(ours: SystemTime, services: SystemTime) -> Self {
        match services.duration_since(ours) {
            Ok(by) => Self::Behind(by),
            Err(error) => Self::Ahead(error.duration()),
        }
    }

    /// How far, either way.
    #[must_use]
    pub fn by(self) -> Duration {
        match self {
            Self::Behind(by) | Self::Ahead(by) => by,
        }
    }

    pub(crate) fn correct(self, ours: SystemTime) -> Option<SystemTime> {
        match self {
            Self::Behind(by) => ours.checked_add(by),
            Self::Ahead(by) => ours.checked_sub(by),
        }
    }
}

impl fmt::Display for ClockSkew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind(by) => write!(f, "{} s behind", by.as_secs()),
            Self::Ahead(by) => write!(f, "{} s ahead", by.as_secs()),
        }
    }
}

impl ServiceRefusal {
    /// Understands an answer. `skew` is what its `Date` says about the clock that signed, where it is worth telling.
    pub(crate) fn understand<'a>(
        status: u16,
        header: impl Fn(&str) -> Option<&'a str>,
        body: &[u8],
        credentials: &AwsCredentials,
        now: SystemTime,
        skew: Option<ClockSkew>,
    ) -> Self {
        let keys = credentials.keys();
        let secrets = [
            keys.secret_access_key(),
            keys.session_token().unwrap_or_default(),
        ];
        let expired = credentials.is_expired(now);
        Self::of(status, header, body, &secrets, expired, skew)
    }

    /// Understands the answer to a request that had no signature, and these secrets.
    pub(crate) fn of_authorizer<'a>(
        status: u16,
        header: impl Fn(&str) -> Option<&'a str>,
        body: &[u8],
        secrets: &[&str],
    ) -> Self {
        Self::of(status, header, body, secrets, false, None)
    }

    fn of<'a>(
        status: u16,
        header: impl Fn(&str) -> Option<&'a str>,
        body: &[u8],
        secrets: &[&str],
        expired: bool,
        skew: Option<ClockSkew>,
    ) -> Self {
        let error_type = header("x-amzn-errortype")
            .map(|value| value.split(':').next().unwrap_or(value))
            .and_then(plain_name);
        let text = message_of(body, secrets);
        let says = |words: &[&str]| {
            let text = text.as_deref().unwrap_or_default();
            words.iter().any(|word| {
                text.contains(word)
                    || error_type
                        .as_deref()
                        .is_some_and(|kind| kind.contains(word))
            })
        };
        let cause = if skew.is_some() {
            RefusalCause::ClockSkew
        } else if expired || says(&["ExpiredToken", "token included in the request is expired"]) {
            RefusalCause::ExpiredCredentials
        } else if says(&[
            "SignatureDoesNotMatch",
            "InvalidSignature",
            "signature we calculated",
            "scoped to",
        ]) {
            RefusalCause::Signature
        } else if says(&[
            "UnrecognizedClient",
            "InvalidClientTokenId",
            "token included in the request is invalid",
        ]) {
            RefusalCause::UnknownCredentials
        } else if says(&["Throttl"]) {
            // The control plane says so with status 400.
            RefusalCause::Throttled
        } else {
            match status {
                401 | 403 | 426 => RefusalCause::NotTold,
                429 => RefusalCause::Throttled,
                500.. => RefusalCause::Service,
                _ => RefusalCause::Request,
            }
        };
        Self {
            status,
            cause,
            error_type,
            request_id: header("x-amzn-requestid").and_then(plain_name),
            text,
            skew,
        }
    }

    /// The refusal behind an error, if there is one.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        find(error)
    }

    /// The HTTP status; mostly 403.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Why, as far as can be told.
    #[must_use]
    pub fn cause(&self) -> RefusalCause {
        self.cause
    }

    /// What the service calls the error (`x-amzn-errortype`), such as `ForbiddenException`.
    #[must_use]
    pub fn error_type(&self) -> Option<&str> {
        self.error_type.as_deref()
    }

    /// The id under which AWS support finds the request (`x-amzn-requestid`).
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// The service's own words: at most [`MAX_TEXT_CHARS`] characters, without what may be a secret. Text from outside:
    /// show it, do not parse it.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// How far the clock that signed was off, where that was the cause.
    #[must_use]
    pub fn skew(&self) -> Option<ClockSkew> {
        self.skew
    }
}

impl fmt::Display for ServiceRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AWS IoT refused with status {}", self.status)?;
        if let Some(error_type) = &self.error_type {
            write!(f, " ({error_type})")?;
        }
        match (self.cause, self.skew) {
            (RefusalCause::ClockSkew, Some(skew)) => write!(f, ": the clock is {skew}")?,
            (RefusalCause::ClockSkew, None) => f.write_str(": the clock is wrong")?,
            (RefusalCause::ExpiredCredentials, _) => {
                f.write_str(": the credentials have expired")?;
            }
            (RefusalCause::Signature, _) => f.write_str(": the signature is wrong")?,
            (RefusalCause::UnknownCredentials, _) => {
                f.write_str(": the access key or the session token is not known")?;
            }
            (RefusalCause::Request, _) => f.write_str(": the request is at fault")?,
            (RefusalCause::Throttled, _) => f.write_str(": too many requests")?,
            (RefusalCause::Service, _) => f.write_str(": the service failed")?,
            (RefusalCause::NotTold, _) => f.write_str(
                "; it does not say whether for the secret key, the session token, the region, the endpoint or a missing right",
            )?,
        }
        if let Some(text) = &self.text {
            write!(f, "; it said: {text}")?;
        }
        match &self.request_id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

impl StdError for ServiceRefusal {}

/// The service hung up each time that a publish or a filter was sent to it, the last time with nothing else to blame.
///
/// With MQTT 3.1.1 that is all it says when a policy does not allow an operation; so that is the likely reason. It is also
/// how it takes leave of what breaks a rule that [`ServiceRules`](crate::ServiceRules) do not know, or were told to let
/// pass. The operation has failed and is not sent again, and all others go on. With MQTT 5 the service gives reasons, and
/// this is rare.
///
/// It is in the chain of [sources](StdError::source) of the error: see [`find`](Self::find). A publish fails with
/// [`Indeterminate`](pubsub_core::PublishError::Indeterminate), a filter with
/// [`RefusalKind::NotAuthorized`](pubsub_core::RefusalKind::NotAuthorized).
///
/// At QoS 0 the service is not waited for: such a publish has succeeded when it hangs up, and nothing is told but the lost
/// connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProbablyNotAuthorized;

impl ProbablyNotAuthorized {
    /// It, if it is behind an error.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        find(error)
    }
}

impl fmt::Display for ProbablyNotAuthorized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AWS IoT hung up each time that this was sent; probably it is not authorized")
    }
}

impl StdError for ProbablyNotAuthorized {}

impl From<ProbablyNotAuthorized> for ProviderError {
    fn from(error: ProbablyNotAuthorized) -> Self {
        Self::new(ProviderErrorKind::NotAuthorized).with_source(error)
    }
}

/// The first error of this type in a chain of sources.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// A header's value, where it is a plain and short word.
fn plain_name(value: &str) -> Option<String> {
    let is_plain = !value.is_empty()
        && value.len() <= MAX_NAME_LEN
        && value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    is_plain.then(|| value.to_owned())
}

/// The `message` of a JSON body, cleaned. AWS repeats the signed request in the text of some refusals.
fn message_of(body: &[u8], secrets: &[&str]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = body
        .get("message")
        .or_else(|| body.get("Message"))?
        .as_str()?;
    let holds_secret = secrets
        .iter()
        .any(|secret| !secret.is_empty() && text.contains(*secret));
    // What follows the first line is the canonical request.
    let line = text.lines().next().filter(|_| !holds_secret)?;
    let mut kept = String::new();
    for word in line.split_whitespace() {
        if !kept.is_empty() {
            kept.push(' ');
        }
        let is_open = word.len() <= MAX_WORD_LEN && !word.to_ascii_lowercase().contains("x-amz-");
        kept.push_str(if is_open { word } else { "<redacted>" });
    }
    let kept: String = kept
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_TEXT_CHARS)
        .collect();
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRETS: [&str; 2] = ["marker-secret", "marker/token="];

    fn said(message: &str) -> Option<String> {
        let body = serde_json::json!({ "message": message }).to_string();
        message_of(body.as_bytes(), &SECRETS)
    }

    #[test]
    fn the_text_is_kept_without_what_may_be_secret() {
        assert_eq!(said("Forbidden").as_deref(), Some("Forbidden"));
        assert_eq!(said("a\u{7}b\tc  d").as_deref(), Some("ab c d"));
        assert_eq!(
            said("The signature we calculated\n\nGET\n/mqtt\nX-Amz-Security-Token=abc").as_deref(),
            Some("The signature we calculated")
        );
        let signature = "0".repeat(64);
        assert_eq!(
            said(&format!("not {signature} X-Amz-Date=20250830 end")).as_deref(),
            Some("not <redacted> <redacted> end")
        );
        assert_eq!(said("it was marker-secret"), None);
        assert_eq!(said("it was marker/token="), None);
        assert_eq!(said("").as_deref(), None);
        assert_eq!(
            said(&"é ".repeat(1_000)).unwrap().chars().count(),
            MAX_TEXT_CHARS
        );
        for body in [
            &b""[..],
            b"<html>",
            b"[1]",
            b"{\"message\":1}",
            b"{\"message\"",
            b"\xff",
        ] {
            assert_eq!(message_of(body, &SECRETS), None);
        }
    }

    #[test]
    fn names_are_plain_words_or_nothing() {
        assert_eq!(
            plain_name("ForbiddenException").as_deref(),
            Some("ForbiddenException")
        );
        for odd in ["", "a b", "a\nb", "<b>", &"x".repeat(65)] {
            assert_eq!(plain_name(odd), None, "{odd:?}");
        }
    }
}
