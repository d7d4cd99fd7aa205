//! Credentials that the application sets, and changes when somebody signs in or out.

use std::fmt;
use std::sync::Arc;

use pubsub_core::BoxFuture;
use tokio::sync::watch;

use super::{AwsCredentials, CredentialFreshness, CredentialSource, CredentialsError};

/// A source that the application fills: empty until somebody signs in, and again when they sign out.
///
/// While it is empty, connecting waits; it goes on at once when somebody signs in. When the identity changes, connections made for the old one end, and are made
/// again for the new one. A clone is the same cell.
///
/// ```
/// use pubsub_aws_iot::{AwsCredentials, AwsIotOptions, CredentialCell};
///
/// let cell = CredentialCell::new();
/// let options = AwsIotOptions::new("a1b2c3example-ats.iot.eu-west-1.amazonaws.com").credentials(cell.clone());
/// // Later, when the user has signed in:
/// cell.sign_in(AwsCredentials::new("AKIDEXAMPLE", "secret").session_token("token"));
/// # let _ = options;
/// ```
#[derive(Clone)]
pub struct CredentialCell(Arc<watch::Sender<State>>);

#[derive(Default)]
struct State {
    credentials: Option<AwsCredentials>,
    /// Counts the identities, no identity among them.
    identity: u64,
}

impl CredentialCell {
    /// An empty cell.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }

    /// Somebody has signed in: these are their credentials. Connections of whoever was there before end.
    pub fn sign_in(&self, credentials: AwsCredentials) {
        self.0.send_modify(|state| {
            state.credentials = Some(credentials);
            state.identity += 1;
        });
    }

    /// New credentials of the same identity, for the next connection; one that stands goes on. Does nothing when nobody is
    /// signed in.
    pub fn renew(&self, credentials: AwsCredentials) {
        self.0.send_modify(|state| {
            if state.credentials.is_some() {
                state.credentials = Some(credentials);
            }
        });
    }

    /// Nobody is signed in any more. Connections end, and wait for the next one who signs in.
    pub fn sign_out(&self) {
        self.0.send_modify(|state| {
            if state.credentials.take().is_some() {
                state.identity += 1;
            }
        });
    }
}

impl Default for CredentialCell {
    fn default() -> Self {
        Self::new()
    }
}

impl CredentialSource for CredentialCell {
    fn credentials(
        &self,
        _: CredentialFreshness,
    ) -> BoxFuture<'_, Result<AwsCredentials, CredentialsError>> {
        let held = self.0.borrow().credentials.clone();
        Box::pin(async move { held.ok_or_else(CredentialsError::not_yet) })
    }

    fn identity_changed(&self) -> Option<BoxFuture<'static, ()>> {
        let mut state = self.0.subscribe();
        let identity = state.borrow().identity;
        Some(Box::pin(async move {
            if state
                .wait_for(|now| now.identity != identity)
                .await
                .is_err()
            {
                // The cell is gone, so nobody will ever sign in or out.
                std::future::pending::<()>().await;
            }
        }))
    }
}

impl fmt::Debug for CredentialCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CredentialCell")
            .field(&self.0.borrow().credentials)
            .finish()
    }
}
