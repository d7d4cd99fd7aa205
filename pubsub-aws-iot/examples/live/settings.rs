//! What the check is told, by the environment.

use std::time::Duration;

use pubsub_aws_iot::AwsCredentials;

/// What is said where something is missing.
pub(crate) const NEEDS: &str = "\
The live check needs an AWS account. It publishes a few dozen messages below `pubsub-live/` and keeps nothing.
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN for temporary ones
                             credentials that may connect, publish, subscribe and receive there
  PUBSUB_LIVE_ENDPOINT       PREFIX-ats.iot.REGION.amazonaws.com, or a custom domain;
                             without it, DescribeEndpoint is asked, which is one more right
  AWS_REGION                 where the endpoint is not given, or does not name it
and takes, for more of the list:
  PUBSUB_LIVE_IDENTITY_POOL  an identity pool that lets guests in, REGION:UUID
  PUBSUB_LIVE_DENIED_TOPIC   a topic that the credentials have no right to
  PUBSUB_LIVE_WATCH_SECS     how long to watch an open connection, as 90000 for a day and what follows
and for a stand-in on this machine:
  PUBSUB_LIVE_ROOTS          a file of root certificates to trust, in PEM
  PUBSUB_LIVE_HTTPS_ENDPOINT, PUBSUB_LIVE_CONTROL_URL, PUBSUB_LIVE_COGNITO_URL
                             who plays HTTPS publishing, the control plane and Cognito";

/// What the check goes by. Has no `Debug`: the keys are in it.
pub(crate) struct Settings {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) identity_pool: Option<String>,
    pub(crate) denied_topic: Option<String>,
    pub(crate) watch: Option<Duration>,
    pub(crate) roots_pem: Option<Vec<u8>>,
    pub(crate) https_endpoint: Option<String>,
    pub(crate) control_url: Option<String>,
    pub(crate) cognito_url: Option<String>,
}

impl Settings {
    /// Reads the settings, or says what is missing or makes no sense.
    pub(crate) fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let optional = |name: &str| variable(name).filter(|value| !value.is_empty());
        let needed = |name: &str| optional(name).ok_or_else(|| format!("{name} is not set"));
        let watch = optional("PUBSUB_LIVE_WATCH_SECS")
            .map(|text| text.parse().map(Duration::from_secs))
            .transpose()
            .map_err(|_| "PUBSUB_LIVE_WATCH_SECS is not a number of seconds")?;
        let roots_pem = optional("PUBSUB_LIVE_ROOTS")
            .map(|path| std::fs::read(&path).map_err(|error| format!("{path}: {error}")))
            .transpose()?;
        let settings = Self {
            access_key_id: needed("AWS_ACCESS_KEY_ID")?,
            secret_access_key: needed("AWS_SECRET_ACCESS_KEY")?,
            session_token: optional("AWS_SESSION_TOKEN"),
            endpoint: optional("PUBSUB_LIVE_ENDPOINT"),
            region: optional("AWS_REGION"),
            identity_pool: optional("PUBSUB_LIVE_IDENTITY_POOL"),
            denied_topic: optional("PUBSUB_LIVE_DENIED_TOPIC"),
            watch,
            roots_pem,
            https_endpoint: optional("PUBSUB_LIVE_HTTPS_ENDPOINT"),
            control_url: optional("PUBSUB_LIVE_CONTROL_URL"),
            cognito_url: optional("PUBSUB_LIVE_COGNITO_URL"),
        };
        if settings.endpoint.is_none() && settings.region.is_none() {
            return Err("neither PUBSUB_LIVE_ENDPOINT nor AWS_REGION is set".into());
        }
        Ok(settings)
    }

    pub(crate) fn credentials(&self) -> AwsCredentials {
        let credentials = AwsCredentials::new(&self.access_key_id, &self.secret_access_key);
        match &self.session_token {
            Some(token) => credentials.session_token(token),
            None => credentials,
        }
    }

    /// The same, for a signature made here.
    pub(crate) fn keys(&self) -> sigv4_presign::Credentials {
        let keys = sigv4_presign::Credentials::new(&*self.access_key_id, &*self.secret_access_key);
        match &self.session_token {
            Some(token) => keys.with_session_token(&**token),
            None => keys,
        }
    }
}
