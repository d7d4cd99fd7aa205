//! User name and password that are made anew for each connection.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pubsub_core::BoxFuture;

use crate::connect::{Attempt, Connect, ConnectError, CredentialFreshness, Opened};

/// What a CONNECT says of who we are. `Debug` shows none of it.
#[derive(Clone, Default)]
pub struct Login {
    pub(crate) user_name: Option<String>,
    pub(crate) password: Option<Bytes>,
    good_for: Option<Duration>,
}

impl Login {
    /// With this user name and no password.
    #[must_use]
    pub fn new(user_name: impl Into<String>) -> Self {
        Self::anonymous().user_name(user_name)
    }

    /// With neither; MQTT 5 lets a [password](Self::password) stand alone.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// The user name.
    #[must_use]
    pub fn user_name(mut self, user_name: impl Into<String>) -> Self {
        self.user_name = Some(user_name.into());
        self
    }

    /// The password, or a token in its place; text or bytes.
    #[must_use]
    pub fn password(mut self, password: impl Into<Vec<u8>>) -> Self {
        self.password = Some(Bytes::from(password.into()));
        self
    }

    /// How long from now on they are valid. The connection is [replaced](crate::Renewal) ahead of that.
    #[must_use]
    pub fn good_for(mut self, time: Duration) -> Self {
        self.good_for = Some(time);
        self
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("has_user_name", &self.user_name.is_some())
            .field("has_password", &self.password.is_some())
            .field("good_for", &self.good_for)
            .finish()
    }
}

/// Where user name and password come from, for services that give out tokens.
///
/// Asked once for each attempt. After a refusal that blames them, the next attempt asks for
/// [fresh ones](CredentialFreshness::Renew); if these are refused as well, that is final.
///
/// Every function of the right shape is one:
///
/// ```
/// use std::time::Duration;
/// use pubsub_generic::{CredentialFreshness, Login, MqttOptions};
///
/// # async fn token() -> String { String::new() }
/// let options = MqttOptions::new("wss://broker.example/mqtt")
///     .login_source(|_: CredentialFreshness| async {
///         Ok(Login::new("device").password(token().await).good_for(Duration::from_secs(3600)))
///     });
/// ```
pub trait LoginSource: Send + Sync + 'static {
    /// Fetches them. An error ends the attempt; [`ConnectErrorKind::Credentials`](crate::ConnectErrorKind::Credentials) is
    /// the kind for it, and [`with_retry`](ConnectError::with_retry) says whether to try again.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped with the attempt, see [`Connect`].
    fn login(
        &self,
        freshness: CredentialFreshness,
    ) -> BoxFuture<'static, Result<Login, ConnectError>>;
}

impl<F, Fut> LoginSource for F
where
    F: Fn(CredentialFreshness) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Login, ConnectError>> + Send + 'static,
{
    fn login(
        &self,
        freshness: CredentialFreshness,
    ) -> BoxFuture<'static, Result<Login, ConnectError>> {
        Box::pin(self(freshness))
    }
}

/// Fetches a login for each attempt.
pub(crate) struct WithLogin {
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) source: Arc<dyn LoginSource>,
}

impl Connect for WithLogin {
    fn connect<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>> {
        Box::pin(async move {
            let login = self.source.login(attempt.credentials()).await?;
            let good_for = login.good_for;
            let opened = self.connect.connect(attempt).await?.login(login);
            Ok(match good_for {
                Some(time) => opened.good_for(time),
                None => opened,
            })
        })
    }

    fn endpoints(&self) -> usize {
        self.connect.endpoints()
    }

    fn endpoint_name(&self, endpoint: usize) -> Option<String> {
        self.connect.endpoint_name(endpoint)
    }
}
