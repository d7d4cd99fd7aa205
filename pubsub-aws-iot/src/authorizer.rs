//! Custom authorizers: a function of the account lets the client in by a token, instead of a signature by AWS.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use pubsub_core::BoxFuture;
use pubsub_generic::{Attempt, Connect, ConnectError, MqttOptions, Opened, Retry, WsTransport};
use ws_transport::{Connector, Endpoint as WsEndpoint, UpgradeRequest};

use crate::connect::header;
use crate::refusal::ServiceRefusal;

const NAME: &str = "x-amz-customauthorizer-name";
const SIGNATURE: &str = "x-amz-customauthorizer-signature";

/// How to be let in by a custom authorizer, a function of the account that judges a token.
///
/// ```
/// use pubsub_aws_iot::{AuthorizerFields, AwsIotOptions, AwsIotProvider, CustomAuthorizer};
///
/// let authorizer = CustomAuthorizer::new("TokenAuthorizer")
///     .token("token", "correct horse")
///     .signature("c2lnbmF0dXJl")
///     .fields(AuthorizerFields::Query);
/// # let shown = format!("{authorizer:?}");
/// # assert!(!shown.contains("horse") && !shown.contains("c2ln"));
/// AwsIotProvider::new(AwsIotOptions::new("a1b2c3example-ats.iot.eu-west-1.amazonaws.com").authorizer(authorizer))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// `Debug` shows the authorizer's name and the token's key, and neither token, signature, user name nor password.
#[derive(Clone)]
pub struct CustomAuthorizer {
    name: Option<String>,
    token: Option<(String, String)>,
    signature: Option<String>,
    user_name: Option<String>,
    password: Option<Vec<u8>>,
    fields: AuthorizerFields,
}

/// Where the service is told which authorizer is asked, and the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum AuthorizerFields {
    /// In the user name of the CONNECT, after whatever [user name](CustomAuthorizer::user_name) there is. The default: it
    /// is in no URL, which proxies like to log.
    #[default]
    UserName,
    /// In the query of the WebSocket's URL, as a browser has to.
    Query,
    /// In headers of the WebSocket's request.
    Headers,
}

impl CustomAuthorizer {
    /// The authorizer of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::by_default()
        }
    }

    /// The default authorizer of the account, or of a custom domain.
    #[must_use]
    pub fn by_default() -> Self {
        Self {
            name: None,
            token: None,
            signature: None,
            user_name: None,
            password: None,
            fields: AuthorizerFields::default(),
        }
    }

    /// The token, and the key that the authorizer was set up to expect it under. Default none.
    #[must_use]
    pub fn token(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.token = Some((key.into(), value.into()));
        self
    }

    /// The token's signature by the private key whose public half the authorizer has, in base64 and not URL-encoded.
    /// Needed unless signing is switched off for the authorizer. Default none.
    #[must_use]
    pub fn signature(mut self, signature: impl Into<String>) -> Self {
        self.signature = Some(signature.into());
        self
    }

    /// The user name that the authorizer is shown. Default none.
    #[must_use]
    pub fn user_name(mut self, user_name: impl Into<String>) -> Self {
        self.user_name = Some(user_name.into());
        self
    }

    /// The password that the authorizer is shown; text or bytes. Default none.
    #[must_use]
    pub fn password(mut self, password: impl Into<Vec<u8>>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Where all of this goes, but for user name and password, which are always in the CONNECT. Default
    /// [`AuthorizerFields::UserName`].
    #[must_use]
    pub fn fields(mut self, fields: AuthorizerFields) -> Self {
        self.fields = fields;
        self
    }

    pub(crate) fn check(&self) -> Result<(), AuthorizerError> {
        let is_name = |text: &str| {
            !text.is_empty()
                && text.len() <= 128
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-=,@".contains(&byte))
        };
        if self.name.as_deref().is_some_and(|name| !is_name(name)) {
            return Err(AuthorizerError::Name);
        }
        if let Some((key, value)) = &self.token {
            let is_key = !key.is_empty()
                && key.len() <= 128
                && key
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
            if !is_key {
                return Err(AuthorizerError::TokenKey);
            }
            // Anything can be percent-encoded, but a header cannot.
            if self.fields == AuthorizerFields::Headers
                && !value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            {
                return Err(AuthorizerError::Token);
            }
        } else if self.signature.is_some() {
            return Err(AuthorizerError::SignatureWithoutToken);
        }
        let is_base64 = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
        };
        if self
            .signature
            .as_deref()
            .is_some_and(|text| !is_base64(text))
        {
            return Err(AuthorizerError::Signature);
        }
        Ok(())
    }

    /// Name and value of each field, the values as they are.
    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let name = self.name.as_deref().map(|name| (NAME, name));
        let token = self.token.as_ref().map(|(key, value)| (&**key, &**value));
        let signature = self.signature.as_deref().map(|text| (SIGNATURE, text));
        [name, token, signature].into_iter().flatten()
    }

    fn query(&self) -> String {
        let mut query = String::new();
        for (name, value) in self.pairs() {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(name);
            query.push('=');
            percent_encode(value, &mut query);
        }
        query
    }

    /// The URL to connect to.
    pub(crate) fn url(&self, endpoint: &str) -> String {
        let query = self.query();
        if self.fields != AuthorizerFields::Query || query.is_empty() {
            return endpoint.to_owned();
        }
        let join = if endpoint.contains('?') { '&' } else { '?' };
        format!("{endpoint}{join}{query}")
    }

    pub(crate) fn put_into_request(
        &self,
        mut request: UpgradeRequest,
    ) -> Result<UpgradeRequest, Box<dyn StdError + Send + Sync>> {
        if self.fields == AuthorizerFields::Headers {
            for (name, value) in self.pairs() {
                let mut value = HeaderValue::from_str(value)?;
                value.set_sensitive(name != NAME);
                request = request.header(HeaderName::from_bytes(name.as_bytes())?, value)?;
            }
        }
        Ok(request.credentials_follow())
    }

    pub(crate) fn put_into_connect(&self, mut mqtt: MqttOptions) -> MqttOptions {
        let query = match self.fields {
            AuthorizerFields::UserName => self.query(),
            _ => String::new(),
        };
        let name = self.user_name.as_deref();
        if !query.is_empty() {
            mqtt = mqtt.user_name(format!("{}?{query}", name.unwrap_or_default()));
        } else if let Some(name) = name {
            mqtt = mqtt.user_name(name);
        }
        match &self.password {
            Some(password) => mqtt.password(password.clone()),
            None => mqtt,
        }
    }
}

impl fmt::Debug for CustomAuthorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomAuthorizer")
            .field("name", &self.name)
            .field("token_key", &self.token.as_ref().map(|(key, _)| key))
            .field("signed", &self.signature.is_some())
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}

/// RFC 3986, all but its unreserved characters.
fn percent_encode(text: &str, out: &mut String) {
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            for nibble in [byte >> 4, byte & 15] {
                out.push(char::from(
                    HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'),
                ));
            }
        }
    }
}

/// What of a [`CustomAuthorizer`] cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthorizerError {
    /// The name is none: 1 to 128 letters, digits and `_-=,@`.
    Name,
    /// The token's key is none: 1 to 128 letters, digits, `_` and `-`.
    TokenKey,
    /// The token has characters that a header cannot have.
    Token,
    /// The signature is not base64. It is given as it is, not URL-encoded.
    Signature,
    /// There is a signature, and no token that it is of.
    SignatureWithoutToken,
    /// The endpoint is a region's FIPS one, which belongs to no account and so has no authorizers.
    FipsEndpoint,
}

impl fmt::Display for AuthorizerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "the authorizer's name is not one",
            Self::TokenKey => "the key of the authorizer's token is not one",
            Self::Token => "the authorizer's token does not fit into a header",
            Self::Signature => "the signature of the authorizer's token is not plain base64",
            Self::FipsEndpoint => "FIPS endpoints have no custom authorizers",
            Self::SignatureWithoutToken => "a signature without the token that it is of",
        })
    }
}

impl StdError for AuthorizerError {}

/// Connects to AWS IoT without a signature: each attempt is one request.
pub(crate) struct AuthorizedConnect {
    endpoint: WsEndpoint,
    connector: Connector,
    request: UpgradeRequest,
    /// What a refusal must not repeat.
    secrets: Vec<String>,
}

impl AuthorizedConnect {
    pub(crate) fn new(
        endpoint: WsEndpoint,
        connector: Connector,
        request: UpgradeRequest,
        authorizer: &CustomAuthorizer,
    ) -> Self {
        let token = authorizer.token.iter().map(|(_, value)| value);
        Self {
            endpoint,
            // The supervisor's deadline holds.
            connector: connector.timeout(Duration::MAX),
            request,
            secrets: token.chain(&authorizer.signature).cloned().collect(),
        }
    }
}

impl Connect for AuthorizedConnect {
    fn connect<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>> {
        Box::pin(async move {
            let opened = self
                .connector
                .connect_within(&self.endpoint, &self.request, attempt.time_left())
                .await;
            let error = match opened {
                Ok(socket) => return Ok(Opened::new(WsTransport::new(socket))),
                Err(error) => error,
            };
            let ws_transport::ConnectError::Refused(answer) = &error else {
                return Err(error.into());
            };
            let status = answer.status().as_u16();
            if !matches!(status, 401 | 403) {
                return Err(error.into());
            }
            let secrets: Vec<&str> = self.secrets.iter().map(String::as_str).collect();
            let refused = ServiceRefusal::of_authorizer(
                status,
                |name| header(answer, name),
                answer.body(),
                &secrets,
            );
            Err(ConnectError::from(error)
                .with_retry(Retry::Never)
                .with_source(refused))
        })
    }
}

impl fmt::Debug for AuthorizedConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizedConnect")
            .field("endpoint", &self.endpoint.to_string())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_where_they_are_part_of_a_query() {
        let authorizer = CustomAuthorizer::new("A")
            .token("key", "a b&c=ü%?")
            .signature("a+/=")
            .fields(AuthorizerFields::Query);
        assert_eq!(
            authorizer.url("wss://h/mqtt"),
            "wss://h/mqtt?x-amz-customauthorizer-name=A&key=a%20b%26c%3D%C3%BC%25%3F\
             &x-amz-customauthorizer-signature=a%2B%2F%3D"
        );
        assert!(
            authorizer
                .url("wss://h/mqtt?x=y")
                .starts_with("wss://h/mqtt?x=y&x-amz")
        );
        let elsewhere = authorizer.fields(AuthorizerFields::UserName);
        assert_eq!(elsewhere.url("wss://h/mqtt"), "wss://h/mqtt");
        // A default authorizer that looks at nothing but the password has no fields at all.
        assert_eq!(CustomAuthorizer::by_default().query(), "");
    }

    #[test]
    fn what_could_not_arrive_is_refused() {
        use AuthorizerError as E;
        let named = CustomAuthorizer::new("A");
        let with = |key: &str, value: &str| named.clone().token(key, value);
        assert_eq!(with("key", "ü\n").check(), Ok(()));
        for (authorizer, expected) in [
            (CustomAuthorizer::new(""), E::Name),
            (CustomAuthorizer::new("a&b"), E::Name),
            (CustomAuthorizer::new("a".repeat(129)), E::Name),
            (with("", "v"), E::TokenKey),
            (with("a b", "v"), E::TokenKey),
            (with("a", "\n").fields(AuthorizerFields::Headers), E::Token),
            (with("a", "v").signature("a%2B"), E::Signature),
            (named.clone().signature("abc="), E::SignatureWithoutToken),
        ] {
            assert_eq!(authorizer.check(), Err(expected), "{authorizer:?}");
        }
        assert_eq!(CustomAuthorizer::new("a".repeat(128)).check(), Ok(()));
    }
}
