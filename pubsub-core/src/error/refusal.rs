//! What the other side answers instead of "yes".

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::ProviderError;

/// The other side's answer "no", to a filter or to a message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// Why, in neutral terms.
    pub kind: RefusalKind,
    /// The service's own code, if it has one.
    pub code: Option<u16>,
    /// The service's own words, if it said any. Text from outside: show it, do not parse it.
    pub text: Option<Arc<str>>,
    /// The local failure behind it, where it was not the service that refused.
    pub source: Option<ProviderError>,
}

impl Refusal {
    /// A refusal of this kind, with no more details.
    #[must_use]
    pub fn new(kind: RefusalKind) -> Self {
        Self {
            kind,
            code: None,
            text: None,
            source: None,
        }
    }

    /// This refusal with the service's code.
    #[must_use]
    pub fn with_code(mut self, code: u16) -> Self {
        self.code = Some(code);
        self
    }

    /// This refusal with the service's words.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<Arc<str>>) -> Self {
        self.text = Some(text.into());
        self
    }
}

impl From<RefusalKind> for Refusal {
    fn from(kind: RefusalKind) -> Self {
        Self::new(kind)
    }
}

impl From<ProviderError> for Refusal {
    fn from(error: ProviderError) -> Self {
        Self {
            source: Some(error),
            ..Self::new(RefusalKind::ProviderFailed)
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        if let Some(code) = self.code {
            write!(f, " (code {code})")?;
        }
        if let Some(text) = &self.text {
            write!(f, ": {text}")?;
        }
        Ok(())
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// The kinds of [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// No reason was given.
    Unspecified,
    /// Policy does not allow it.
    NotAuthorized,
    /// The topic or filter is not acceptable to the other side.
    InvalidTopic,
    /// A quota or limit is used up.
    QuotaExceeded,
    /// The message is too large for the other side.
    TooLarge,
    /// The payload is not of the format it claims, or not acceptable.
    InvalidPayload,
    /// The other side cannot do this (wildcards, shared filters, this quality of service, retaining).
    Unsupported,
    /// The service's own reason; see its code and text.
    ServiceSpecific,
    /// The provider failed before the other side could answer; the source tells how.
    ProviderFailed,
}

impl fmt::Display for RefusalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "refused without a reason",
            Self::NotAuthorized => "not authorized",
            Self::InvalidTopic => "the topic is not acceptable",
            Self::QuotaExceeded => "a quota is used up",
            Self::TooLarge => "the message is too large",
            Self::InvalidPayload => "the payload is not acceptable",
            Self::Unsupported => "not supported by the service",
            Self::ServiceSpecific => "refused by the service",
            Self::ProviderFailed => "the provider failed",
        })
    }
}
