//! The signing itself: a URL with the signature in its query, or headers that carry it.

use std::fmt;
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::canonical::{self, ALGORITHM, Canonical, Parameter, Query};
use crate::credentials::Credentials;
use crate::error::Error;
use crate::escape;
use crate::headers::{
    AUTHORIZATION, CONTENT_SHA256, DATE, SECURITY_TOKEN, SignedHeaders, SignedNames,
};
use crate::key::{KeyCache, SigningKey};
use crate::mac::{Pad, TextHash};
use crate::request::Request;
use crate::settings::{ContentSha256Header, SessionTokenMode, Settings};
use crate::stamp::Stamp;
use crate::target::{Target, push_decimal};
use crate::text::Text;

/// Signs a request in its query: whoever has the URL can send the request, until it expires.
///
/// The URL is that of the request with these changes: scheme and host in lower case, the port left out where the scheme
/// implies it, `/` for an empty path, and each parameter of the query decoded and encoded anew (a `+` is a plus sign and
/// becomes `%2B`). The parameters of the signature follow those of the caller. The headers that the request names have
/// to be sent with it; none but `Host` if it names none.
///
/// `time` is the signer's clock; AWS tolerates 5 to 15 minutes of skew.
///
/// # Errors
///
/// Whatever could not be signed right: see [`Error`].
///
/// # Example
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use sigv4_presign::{Credentials, Payload, Request, Settings, presign};
///
/// # fn main() -> Result<(), sigv4_presign::Error> {
/// let credentials = Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
/// let request = Request::new("GET", "https://examplebucket.s3.amazonaws.com/test.txt").payload(Payload::Unsigned);
/// let settings = Settings::s3("us-east-1").expires(Duration::from_secs(86_400));
/// let time = UNIX_EPOCH + Duration::from_secs(1_369_353_600);
///
/// let url = presign(&request, &credentials, time, &settings)?;
/// assert!(url.as_str().ends_with("aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"));
/// # Ok(())
/// # }
/// ```
pub fn presign(
    request: &Request<'_>,
    credentials: &Credentials,
    time: SystemTime,
    settings: &Settings<'_>,
) -> Result<SignedUrl, Error> {
    presign_with(request, credentials, time, settings, None)
}

/// Signs a request in its headers. Returns those that have to be added to it.
///
/// The request has to be sent as it was passed in: its path byte for byte, its headers up to white space.
///
/// # Errors
///
/// Whatever could not be signed right: see [`Error`].
///
/// # Example
///
/// ```
/// use std::time::SystemTime;
/// use sigv4_presign::{Credentials, Payload, Request, Settings, sign_headers};
///
/// # fn main() -> Result<(), sigv4_presign::Error> {
/// let credentials = Credentials::new("AKIDEXAMPLE", "secret").with_session_token("token");
/// let request = Request::new("POST", "https://prefix-ats.iot.eu-west-1.amazonaws.com/topics/a%2Fb?qos=1")
///     .payload(Payload::Bytes(b"21.5"));
/// let headers = sign_headers(&request, &credentials, SystemTime::now(), &Settings::new("eu-west-1", "iotdata"))?;
/// for (name, value) in headers.iter() {
///     // Add it to the request.
/// #   let _ = (name, value);
/// }
/// # Ok(())
/// # }
/// ```
pub fn sign_headers(
    request: &Request<'_>,
    credentials: &Credentials,
    time: SystemTime,
    settings: &Settings<'_>,
) -> Result<SignedHeaders, Error> {
    sign_headers_with(request, credentials, time, settings, None)
}

/// The URL that opens an MQTT connection to AWS IoT, as Amplify's client makes it: [`presign`] of a GET with
/// [`Settings::iot`].
///
/// `endpoint` is the whole URL, mostly `wss://PREFIX-ats.iot.REGION.amazonaws.com/mqtt`. Sign a new one for each
/// connection: the service takes it for a few minutes only.
///
/// # Errors
///
/// Whatever could not be signed right: see [`Error`].
///
/// # Example
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use sigv4_presign::{Credentials, presign_iot};
///
/// # fn main() -> Result<(), sigv4_presign::Error> {
/// let credentials = Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
///     .with_session_token("FwoGZXIvYXdzEXAMPLE+fake/token==");
/// let time = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
///
/// let endpoint = "wss://a1b2c3example-ats.iot.us-east-1.amazonaws.com/mqtt";
/// let url = presign_iot(endpoint, "us-east-1", &credentials, time)?;
/// assert!(url.as_str().ends_with(
///     "&X-Amz-Signature=7a3e67ba146b825873ab8910e8ab027beb081de4185e8fa398e04fb6eb2cf9df\
///      &X-Amz-Security-Token=FwoGZXIvYXdzEXAMPLE%2Bfake%2Ftoken%3D%3D"
/// ));
/// # Ok(())
/// # }
/// ```
pub fn presign_iot(
    endpoint: &str,
    region: &str,
    credentials: &Credentials,
    time: SystemTime,
) -> Result<SignedUrl, Error> {
    presign(
        &Request::new("GET", endpoint),
        credentials,
        time,
        &Settings::iot(region),
    )
}

/// The three functions of this crate with a cache of signing keys, which makes all but the first signature of a day
/// twice as fast: it hashes 10 blocks in place of 28.
///
/// The results are the same. A key belongs to a secret, day, region and service; the ones used last are kept, at most
/// [`DEFAULT_CAPACITY`](Self::DEFAULT_CAPACITY) unless said otherwise, and overwritten when they go. The cache holds
/// hashes of secrets, never secrets. Shared between threads it locks for the look-up alone.
#[derive(Debug)]
pub struct Signer {
    keys: KeyCache,
}

impl Signer {
    /// How many keys are kept by default: a few identities, services and regions across midnight, in less than 8 KiB.
    pub const DEFAULT_CAPACITY: usize = 16;

    /// A signer with an empty cache of the default capacity.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(Self::DEFAULT_CAPACITY)
    }

    /// A signer that keeps at most `keys` keys. With 0 it keeps none.
    #[must_use]
    pub fn with_capacity(keys: usize) -> Self {
        Self {
            keys: KeyCache::new(keys),
        }
    }

    /// As [`presign()`].
    ///
    /// # Errors
    ///
    /// Whatever could not be signed right: see [`Error`].
    pub fn presign(
        &self,
        request: &Request<'_>,
        credentials: &Credentials,
        time: SystemTime,
        settings: &Settings<'_>,
    ) -> Result<SignedUrl, Error> {
        presign_with(request, credentials, time, settings, Some(&self.keys))
    }

    /// As [`sign_headers()`].
    ///
    /// # Errors
    ///
    /// Whatever could not be signed right: see [`Error`].
    pub fn sign_headers(
        &self,
        request: &Request<'_>,
        credentials: &Credentials,
        time: SystemTime,
        settings: &Settings<'_>,
    ) -> Result<SignedHeaders, Error> {
        sign_headers_with(request, credentials, time, settings, Some(&self.keys))
    }

    /// As [`presign_iot()`].
    ///
    /// # Errors
    ///
    /// Whatever could not be signed right: see [`Error`].
    pub fn presign_iot(
        &self,
        endpoint: &str,
        region: &str,
        credentials: &Credentials,
        time: SystemTime,
    ) -> Result<SignedUrl, Error> {
        self.presign(
            &Request::new("GET", endpoint),
            credentials,
            time,
            &Settings::iot(region),
        )
    }

    /// Overwrites and forgets all keys, such as at a sign-out.
    pub fn clear(&self) {
        self.keys.clear();
    }
}

impl Default for Signer {
    fn default() -> Self {
        Self::new()
    }
}

/// A URL with a signature in its query: as good as the credentials for what it allows, as long as it lives.
///
/// `Debug` shows nothing of it, there is no `Display`, and it is overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedUrl(String);

impl SignedUrl {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL, which from here on is the caller's to keep secret.
    #[must_use]
    pub fn into_string(mut self) -> String {
        std::mem::take(&mut self.0)
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedUrl(<redacted>)")
    }
}

impl Drop for SignedUrl {
    fn drop(&mut self) {
        drop(Text::from(std::mem::take(&mut self.0)));
    }
}

fn presign_with(
    request: &Request<'_>,
    credentials: &Credentials,
    time: SystemTime,
    settings: &Settings<'_>,
    keys: Option<&KeyCache>,
) -> Result<SignedUrl, Error> {
    request.check()?;
    settings.check()?;
    credentials.check()?;
    if settings.content_sha256 == ContentSha256Header::Send {
        return Err(Error::ContentSha256InQueryForm);
    }
    let stamp = Stamp::new(time)?;
    let target = Target::parse(request.url)?;
    let headers = SignedNames::collect(
        request,
        &target,
        &[],
        &[AUTHORIZATION, DATE, SECURITY_TOKEN],
    )?;
    let token = credentials.encoded_session_token();
    let (signed_token, appended_token) = match settings.session_token {
        SessionTokenMode::Signed => (token, None),
        SessionTokenMode::Appended => (None, token),
    };

    let mut url = Text::with_capacity(
        target.url_len()
            + 3 * target.query.len()
            + FIXED_QUERY.len()
            + 3 * credentials.access_key_id().len()
            + canonical::scope_len(settings)
            + headers.names_len()
            + token.map_or(0, str::len),
    );
    let capacity = url.capacity();
    target.write_url(&mut url);
    url.push(b'?');
    let mut query = Query::new();
    let query_start = url.len();
    canonical::write_query(&mut url, target.query, &mut query)?;
    let has_own_parameters = url.len() > query_start;
    if has_own_parameters {
        url.push(b'&');
    }
    write_parameters(
        &mut url,
        &mut query,
        &Parts {
            credentials,
            settings,
            stamp: &stamp,
            headers: &headers,
            signed_token,
        },
    );
    if has_own_parameters {
        canonical::sort(query.as_mut_slice(), &url);
    }

    let canonical = Canonical {
        request,
        target: &target,
        path: settings.path,
        query: &url,
        parameters: query.as_slice(),
        headers: &headers,
    };
    let signature = sign(&canonical, &stamp, credentials, settings, keys);
    url.push_str("&X-Amz-Signature=");
    escape::push_hex(&mut url, &signature);
    let mut url = url.into_string();
    if let Some(token) = appended_token {
        url.push_str("&X-Amz-Security-Token=");
        url.push_str(token);
    }
    debug_assert_eq!(url.capacity(), capacity, "the URL was copied");
    Ok(SignedUrl(url))
}

/// Everything of a presigned query that does not depend on the request; only its length matters.
const FIXED_QUERY: &str = "?&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=%2F\
    &X-Amz-Date=YYYYMMDDThhmmssZ&X-Amz-Expires=604800&X-Amz-SignedHeaders=&X-Amz-Security-Token=\
    &X-Amz-Signature=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct Parts<'a> {
    credentials: &'a Credentials,
    settings: &'a Settings<'a>,
    stamp: &'a Stamp,
    headers: &'a SignedNames<'a>,
    signed_token: Option<&'a str>,
}

/// Appends the parameters of the signature, but for the signature itself: to the URL in the order that AWS's clients
/// send them in, to the list in the order of their names.
fn write_parameters(url: &mut Text, query: &mut Query, parts: &Parts<'_>) {
    query.push(write_parameter(url, "X-Amz-Algorithm", |url| {
        url.push_str(ALGORITHM);
    }));
    url.push(b'&');
    query.push(write_parameter(url, "X-Amz-Credential", |url| {
        escape::encode(url, parts.credentials.access_key_id().as_bytes());
        url.push_str("%2F");
        canonical::write_scope(url, parts.stamp, parts.settings, "%2F");
    }));
    url.push(b'&');
    query.push(write_parameter(url, "X-Amz-Date", |url| {
        url.push_bytes(parts.stamp.as_bytes());
    }));
    url.push(b'&');
    if let Some(expires) = parts.settings.expires {
        query.push(write_parameter(url, "X-Amz-Expires", |url| {
            push_decimal(url, expires.as_secs());
        }));
        url.push(b'&');
    }
    let names = write_parameter(url, "X-Amz-SignedHeaders", |url| {
        parts.headers.write_names(url, "%3B");
    });
    if let Some(token) = parts.signed_token {
        url.push(b'&');
        query.push(write_parameter(url, "X-Amz-Security-Token", |url| {
            url.push_str(token);
        }));
    }
    query.push(names);
}

fn write_parameter(url: &mut Text, name: &str, value: impl FnOnce(&mut Text)) -> Parameter {
    let start = url.len();
    url.push_str(name);
    let equals = url.len();
    url.push(b'=');
    value(url);
    Parameter::ending(url, start, equals)
}

fn sign_headers_with(
    request: &Request<'_>,
    credentials: &Credentials,
    time: SystemTime,
    settings: &Settings<'_>,
    keys: Option<&KeyCache>,
) -> Result<SignedHeaders, Error> {
    request.check()?;
    settings.check()?;
    credentials.check()?;
    if settings.expires.is_some() {
        return Err(Error::ExpiresInHeaderForm);
    }
    if credentials
        .session_token()
        .is_some_and(|token| !token.is_ascii())
    {
        return Err(Error::InvalidSessionToken);
    }
    let stamp = Stamp::new(time)?;
    let target = Target::parse(request.url)?;
    let content_sha256 = (settings.content_sha256 == ContentSha256Header::Send).then(|| {
        let mut hash = Text::with_capacity(64);
        request.payload.write_hash(&mut hash);
        hash.into_string()
    });
    let signed_token = match settings.session_token {
        SessionTokenMode::Signed => credentials.session_token(),
        SessionTokenMode::Appended => None,
    };
    let headers = SignedNames::collect(
        request,
        &target,
        &[
            content_sha256.as_deref().map(|hash| (CONTENT_SHA256, hash)),
            Some((DATE, stamp.as_str())),
            signed_token.map(|token| (SECURITY_TOKEN, token)),
        ],
        &[AUTHORIZATION, DATE, SECURITY_TOKEN, CONTENT_SHA256],
    )?;
    let (mut text, mut query) = (Text::with_capacity(3 * target.query.len()), Query::new());
    canonical::write_query(&mut text, target.query, &mut query)?;
    canonical::sort(query.as_mut_slice(), &text);

    let canonical = Canonical {
        request,
        target: &target,
        path: settings.path,
        query: &text,
        parameters: query.as_slice(),
        headers: &headers,
    };
    let signature = sign(&canonical, &stamp, credentials, settings, keys);

    let mut authorization = Text::with_capacity(
        ALGORITHM.len()
            + " Credential=/, SignedHeaders=, Signature=".len()
            + credentials.access_key_id().len()
            + canonical::scope_len(settings)
            + headers.names_len()
            + 64,
    );
    authorization.push_str(ALGORITHM);
    authorization.push_str(" Credential=");
    authorization.push_str(credentials.access_key_id());
    authorization.push(b'/');
    canonical::write_scope(&mut authorization, &stamp, settings, "/");
    authorization.push_str(", SignedHeaders=");
    headers.write_names(&mut authorization, ";");
    authorization.push_str(", Signature=");
    escape::push_hex(&mut authorization, &signature);
    drop(headers);
    Ok(SignedHeaders {
        authorization: Zeroizing::new(authorization.into_string()),
        date: stamp.as_str().to_owned(),
        session_token: credentials
            .session_token()
            .map(|token| Zeroizing::new(token.to_owned())),
        content_sha256,
    })
}

fn sign(
    canonical: &Canonical<'_>,
    stamp: &Stamp,
    credentials: &Credentials,
    settings: &Settings<'_>,
    keys: Option<&KeyCache>,
) -> [u8; 32] {
    // The request is only ever needed as a hash, so one buffer serves both.
    let mut text = Text::with_capacity(
        canonical
            .max_len()
            .max(canonical::string_to_sign_len(settings)),
    );
    let capacity = text.capacity();
    canonical.write(&mut text);
    let mut pad = Pad::default();
    let mut hash = TextHash::new(text.as_bytes());
    let key = match keys {
        Some(keys) => keys.key(credentials, stamp.day(), settings, &mut hash, &mut pad),
        None => SigningKey::derive(credentials, stamp.day(), settings, &mut hash, &mut pad),
    };
    let hash = hash.finish(&mut pad);
    text.truncate(0);
    canonical::write_string_to_sign(&mut text, &hash, stamp, settings);
    debug_assert_eq!(
        text.capacity(),
        capacity,
        "the canonical request was copied"
    );
    key.sign(text.as_bytes(), &mut pad)
}
