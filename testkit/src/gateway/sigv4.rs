//! Checks the signature of an upgrade request, from the bytes of its request line.
//!
//! What is whose: the signing key and the HMAC come from the `aws-sigv4` crate, the SHA-256 of the
//! canonical request from `sha2`. The canonical request itself is built here, since `aws-sigv4` can
//! only sign requests that have an `X-Amz-Expires`, which most clients of IoT leave out; the tests
//! hold it against requests signed by the whole of `aws-sigv4` and against a signature that two
//! other implementations of AWS computed. Nothing comes from the crate that is tested with this.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use time::{
    PrimitiveDateTime, format_description::StaticFormatDescription, macros::format_description,
};

use super::{
    attempt::{Refusal, Signature},
    authorizer::Principal,
    keys::KeyRing,
};
use crate::net::RequestHead;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
pub(super) const STAMP: StaticFormatDescription =
    format_description!("[year][month][day]T[hour][minute][second]Z");

/// The names that a client may sign for. The first is what everybody uses; the service takes the
/// second as well.
const SERVICES: [&str; 2] = ["iotdevicegateway", "iotdata"];

/// `X-Amz-Expires` may be between a second and a week.
const EXPIRES_SECS: std::ops::RangeInclusive<u64> = 1..=604_800;

/// What a request is held against.
pub(super) struct Rules<'a> {
    pub(super) region: &'a str,
    pub(super) max_skew: Duration,
    pub(super) keys: &'a KeyRing,
    pub(super) now: SystemTime,
    pub(super) end_at_expiry: bool,
}

impl Rules<'_> {
    /// How long a connection may last whose key ends then.
    fn life_of(&self, expires_at: Option<SystemTime>) -> Option<Duration> {
        let end = expires_at.filter(|_| self.end_at_expiry)?;
        Some(end.duration_since(self.now).unwrap_or(Duration::ZERO))
    }
}

/// Who a request says to be from, before anything is checked.
#[derive(Default)]
pub(super) struct Claim {
    pub(super) access_key_id: Option<String>,
    pub(super) signature: Option<Signature>,
}

/// The query of a request, names and values as they came.
pub(super) struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    pub(super) fn of(request: &'a RequestHead) -> Self {
        let query = request.target().split_once('?').map_or("", |(_, q)| q);
        let pieces = query.split('&').filter(|piece| !piece.is_empty());
        Self(
            pieces
                .map(|piece| piece.split_once('=').unwrap_or((piece, "")))
                .collect(),
        )
    }

    /// The decoded value of a parameter that may stand there once.
    pub(super) fn once(&self, name: &'static str) -> Result<Option<String>, Refusal> {
        let mut found = self.0.iter().filter(|(n, _)| decode(n) == name.as_bytes());
        let Some((_, value)) = found.next() else {
            return Ok(None);
        };
        if found.next().is_some() {
            return Err(Refusal::Repeated(name));
        }
        let value = String::from_utf8(decode(value).into_owned());
        value.map(Some).map_err(|_| Refusal::Malformed(name))
    }

    /// The decoded value of the first parameter of this name.
    pub(super) fn first(&self, name: &str) -> Option<String> {
        let mut parameters = self.0.iter();
        let (_, value) = parameters.find(|(n, _)| decode(n) == name.as_bytes())?;
        String::from_utf8(decode(value).into_owned()).ok()
    }

    fn needed(&self, name: &'static str) -> Result<String, Refusal> {
        self.once(name)?.ok_or(Refusal::Missing(name))
    }

    pub(super) fn claim(&self) -> Claim {
        let credential = self.once("X-Amz-Credential").ok().flatten();
        let signature = self.once("X-Amz-Signature").ok().flatten();
        Claim {
            access_key_id: credential
                .and_then(|credential| Some(credential.split_once('/')?.0.to_owned())),
            signature: signature.map(Signature),
        }
    }

    fn canonical(&self, left_out: &[&str]) -> String {
        let mut pairs: Vec<_> = self
            .0
            .iter()
            .map(|(name, value)| (decode(name), decode(value)))
            .filter(|(name, _)| !left_out.iter().any(|out| name.as_ref() == out.as_bytes()))
            .map(|(name, value)| (encode(&name), encode(&value)))
            .collect();
        pairs.sort();
        let pairs: Vec<_> = pairs
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join("&")
    }
}

/// Judges the signature of a request to this path.
pub(super) fn verify(
    request: &RequestHead,
    query: &Query<'_>,
    rules: &Rules<'_>,
) -> Result<Principal, Refusal> {
    if query.needed("X-Amz-Algorithm")? != ALGORITHM {
        return Err(Refusal::Algorithm);
    }
    let credential = query.needed("X-Amz-Credential")?;
    let stamp = query.needed("X-Amz-Date")?;
    let signed_headers = query.needed("X-Amz-SignedHeaders")?;
    let signature = query.needed("X-Amz-Signature")?;
    let token = query.once("X-Amz-Security-Token")?;

    let signed_at = PrimitiveDateTime::parse(&stamp, STAMP)
        .map_err(|_| Refusal::Malformed("X-Amz-Date"))?
        .assume_utc();
    let signed_at = SystemTime::from(signed_at);
    let [access_key_id, day, region, service, terminator] = credential
        .split('/')
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| Refusal::Malformed("X-Amz-Credential"))?;
    if stamp.get(..8) != Some(day) {
        return Err(Refusal::ScopeDate);
    }
    if region != rules.region {
        return Err(Refusal::ScopeRegion);
    }
    if !SERVICES.contains(&service) {
        return Err(Refusal::ScopeService);
    }
    if terminator != "aws4_request" {
        return Err(Refusal::ScopeTerminator);
    }
    if signed_headers != "host" {
        return Err(Refusal::SignedHeaders);
    }
    check_time(query, signed_at, rules)?;

    let key = rules.keys.find(access_key_id);
    let key = key.ok_or(Refusal::UnknownAccessKey)?;
    if key.expires_at.is_some_and(|end| end <= rules.now) {
        return Err(Refusal::ExpiredAccessKey);
    }
    let known = key.session_token.as_deref().unwrap_or_default();
    if !same(known, token.as_deref().unwrap_or_default()) {
        return Err(Refusal::SessionToken);
    }

    let host = request.header("host").ok_or(Refusal::Host)?;
    let (path, _) = request.target().split_once('?').unwrap_or_default();
    let recompute = |left_out: &[&str]| {
        let canonical_request = format!(
            "GET\n{path}\n{}\nhost:{host}\n\nhost\n{}",
            query.canonical(left_out),
            hex(&Sha256::digest(b"")),
        );
        let string_to_sign = format!(
            "{ALGORITHM}\n{stamp}\n{day}/{region}/{service}/aws4_request\n{}",
            hex(&Sha256::digest(canonical_request)),
        );
        let signing_key = generate_signing_key(&key.secret, signed_at, region, service);
        calculate_signature(signing_key, string_to_sign.as_bytes())
    };
    // The token is appended to what was signed; that is the rule of this service.
    if same(
        &recompute(&["X-Amz-Signature", "X-Amz-Security-Token"]),
        &signature,
    ) {
        return Ok(Principal {
            policy: key.policy,
            identity_id: key.identity_id,
            life: rules.life_of(key.expires_at),
        });
    }
    if token.is_some() && same(&recompute(&["X-Amz-Signature"]), &signature) {
        return Err(Refusal::SignedSessionToken);
    }
    Err(Refusal::Signature)
}

fn check_time(query: &Query<'_>, signed_at: SystemTime, rules: &Rules<'_>) -> Result<(), Refusal> {
    let (by, client_ahead) = match signed_at.duration_since(rules.now) {
        Ok(ahead) => (ahead, true),
        Err(behind) => (behind.duration(), false),
    };
    if by > rules.max_skew {
        return Err(Refusal::Skew { by, client_ahead });
    }
    // It cannot stretch the life of a URL here, only shorten it.
    if let Some(expires) = query.once("X-Amz-Expires")? {
        let secs = expires.parse().ok().filter(|s| EXPIRES_SECS.contains(s));
        let secs = secs.ok_or(Refusal::Malformed("X-Amz-Expires"))?;
        if !client_ahead && by > Duration::from_secs(secs) {
            return Err(Refusal::Expired);
        }
    }
    Ok(())
}

/// Compares without telling by the time it takes how much is equal.
pub(super) fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

/// Decodes %XX, and leaves everything else, `+` included, as it is.
pub(super) fn decode(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.contains(&b'%') {
        return Cow::Borrowed(bytes);
    }
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = match (digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (Some(high), Some(low)) if byte == b'%' => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        decoded.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    Cow::Owned(decoded)
}

fn encode(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
