//! The other form of a signature, in headers, as AWS's HTTPS endpoints take it.

use std::{error::Error, time::SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4::SigningParams,
};
use time::PrimitiveDateTime;

use super::{keys::AccessKey, sigv4::STAMP};
use crate::net::RequestHead;

/// The `authorization` header that the whole of `aws-sigv4` gives a request with this key: for a test to hold the one
/// against that the request has. Nothing of ours is in it.
///
/// The request's own header is believed in what it says of the time (`x-amz-date`), the region, the service and which
/// headers are signed; not in the signature, the key or the token.
///
/// # Errors
///
/// When the request is not signed in its headers, or cannot be.
pub fn sdk_authorization(
    request: &RequestHead,
    body: &[u8],
    key: &AccessKey,
) -> Result<String, Box<dyn Error + Send + Sync>> {
    let claim = request.header("authorization").ok_or("not signed")?;
    let field = |name: &str| {
        let (_, rest) = claim.split_once(name)?;
        rest.split([',', ' ']).next()
    };
    let scope = field("Credential=").ok_or("no credential")?;
    let [_, _, region, service, _] = <[&str; 5]>::try_from(scope.split('/').collect::<Vec<_>>())
        .map_err(|_| "no credential scope")?;
    let stamp = request.header("x-amz-date").ok_or("no date")?;
    let time: SystemTime = PrimitiveDateTime::parse(stamp, STAMP)?.assume_utc().into();
    // The signer adds these itself.
    let own = ["x-amz-date", "x-amz-security-token"];
    let names = field("SignedHeaders=").ok_or("no signed headers")?;
    let names = names.split(';').filter(|name| !own.contains(name));
    let headers = names.map(|name| request.header(name).map(|value| (name, value)));
    let headers: Vec<_> = headers
        .collect::<Option<_>>()
        .ok_or("a signed header is missing")?;
    let host = request.header("host").ok_or("no host")?;

    let token = key.session_token.clone();
    let identity = Credentials::new(&key.id, &key.secret, token, None, "testkit").into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(time)
        .settings(SigningSettings::default())
        .build()?
        .into();
    let url = format!("https://{host}{}", request.target());
    let signed = SignableRequest::new(
        request.method(),
        url,
        headers.into_iter(),
        SignableBody::Bytes(body),
    )?;
    let (instructions, _) = sign(signed, &params)?.into_parts();
    let (headers, _) = instructions.into_parts();
    let header = headers
        .iter()
        .find(|header| header.name() == "authorization");
    Ok(header.ok_or("no signature")?.value().to_owned())
}
