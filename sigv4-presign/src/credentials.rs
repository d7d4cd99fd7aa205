//! Access keys, wiped when dropped and never rendered.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::escape;
use crate::text::Text;

/// An access key ID, its secret access key and, for temporary credentials, a session token.
///
/// The secret and the token are overwritten when this is dropped, and `Debug` does not show them. A `String` passed in
/// is moved, not copied; of a `&str` the caller keeps the original.
///
/// Nothing is checked here: signing refuses credentials that cannot be right
/// ([`Error::InvalidAccessKeyId`], [`Error::InvalidSecretAccessKey`], [`Error::InvalidSessionToken`]).
#[derive(Clone)]
pub struct Credentials {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Option<SessionToken>,
    fingerprint: Fingerprint,
    /// Found out once, not for each signature.
    has_valid_id: bool,
    has_valid_secret: bool,
}

/// A token and what of it is needed for each URL, so that 1.2 kB is escaped once per set of credentials.
#[derive(Clone)]
struct SessionToken {
    plain: Zeroizing<String>,
    encoded: Zeroizing<String>,
    has_control: bool,
}

/// Tells secrets apart in the key cache without keeping them there.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint(Zeroizing<[u8; 32]>);

impl Credentials {
    /// Long-term credentials.
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        let access_key_id = access_key_id.into();
        let secret_access_key = Zeroizing::new(secret_access_key.into());
        Self {
            fingerprint: Fingerprint(Zeroizing::new(
                Sha256::digest(secret_access_key.as_bytes()).into(),
            )),
            has_valid_id: !access_key_id.is_empty()
                && access_key_id.bytes().all(|byte| byte.is_ascii_graphic()),
            has_valid_secret: !secret_access_key.is_empty() && !has_control(&secret_access_key),
            access_key_id,
            secret_access_key,
            session_token: None,
        }
    }

    /// Adds the session token of temporary credentials. An empty one means none.
    #[must_use]
    pub fn with_session_token(mut self, session_token: impl Into<String>) -> Self {
        let plain = Zeroizing::new(session_token.into());
        self.session_token = (!plain.is_empty()).then(|| {
            // Reserved to the worst case: growing would leave a copy behind that nobody wipes.
            let mut encoded = Text::with_capacity(plain.len() * 3);
            escape::encode(&mut encoded, plain.as_bytes());
            SessionToken {
                has_control: has_control(&plain),
                plain,
                encoded: Zeroizing::new(encoded.into_string()),
            }
        });
        self
    }

    /// The access key ID. Not a secret: it is part of every signed request.
    #[must_use]
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The secret access key.
    #[must_use]
    pub fn secret_access_key(&self) -> &str {
        &self.secret_access_key
    }

    /// The session token, as given.
    #[must_use]
    pub fn session_token(&self) -> Option<&str> {
        self.session_token
            .as_ref()
            .map(|token| token.plain.as_str())
    }

    pub(crate) fn encoded_session_token(&self) -> Option<&str> {
        self.session_token
            .as_ref()
            .map(|token| token.encoded.as_str())
    }

    pub(crate) fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.has_valid_id {
            return Err(Error::InvalidAccessKeyId);
        }
        if !self.has_valid_secret {
            return Err(Error::InvalidSecretAccessKey);
        }
        match &self.session_token {
            Some(token) if token.has_control => Err(Error::InvalidSessionToken),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .field("secret_access_key", &"<redacted>")
            .field(
                "session_token",
                &self.session_token.as_ref().map(|_| "<redacted>"),
            )
            .finish()
    }
}

fn has_control(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_control())
}
