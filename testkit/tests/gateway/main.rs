//! The gateway, with requests signed by the whole of `aws-sigv4` and packets made of bytes.
#![cfg(all(feature = "gateway", feature = "embedded"))]

mod rules;
mod upgrade;

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        SessionTokenMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
    },
    sign::v4::SigningParams,
};
use testkit::{
    embedded::Broker,
    gateway::{AccessKey, Gateway, GatewayOptions},
};

const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "marker/token+with=odd characters";

/// A request that the gateway accepts unless a test spoils it. The oracle cannot leave
/// `X-Amz-Expires` out; `a_request_as_other_implementations_sign_it` has one without.
struct Signer {
    scheme: &'static str,
    host: String,
    path: &'static str,
    key: &'static str,
    secret: &'static str,
    token: Option<&'static str>,
    token_mode: SessionTokenMode,
    region: &'static str,
    service: &'static str,
    time: SystemTime,
    expires: Duration,
}

impl Signer {
    fn of(gateway: &Gateway) -> Self {
        Self {
            scheme: "ws",
            host: gateway.endpoint(),
            path: "/mqtt",
            key: KEY,
            secret: SECRET,
            token: Some(TOKEN),
            token_mode: SessionTokenMode::Exclude,
            region: "eu-west-1",
            service: "iotdevicegateway",
            time: gateway.clock().now(),
            expires: Duration::from_secs(300),
        }
    }

    fn url(&self) -> String {
        let token = self.token.map(str::to_owned);
        let identity = Credentials::new(self.key, self.secret, token, None, "test").into();
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.session_token_mode = self.token_mode;
        settings.expires_in = Some(self.expires);
        let params = SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(self.time)
            .settings(settings)
            .build()
            .unwrap()
            .into();
        // The oracle knows no ws:// and would drop the port 443 of an https:// only.
        let uri = format!("https://{}{}", self.host, self.path);
        let body = SignableBody::Bytes(b"");
        let request = SignableRequest::new("GET", &uri, std::iter::empty(), body).unwrap();
        let (instructions, _) = sign(request, &params).unwrap().into_parts();
        let mut request = http::Request::get(&uri).body(()).unwrap();
        instructions.apply_to_request_http1x(&mut request);
        let signed = request.uri().to_string();
        signed.replacen("https", self.scheme, 1)
    }
}

async fn start() -> (Broker, Gateway) {
    let broker = Broker::start().await.unwrap();
    let gateway = GatewayOptions::new(&broker.url())
        .region("eu-west-1")
        .access_key(AccessKey::new(KEY, SECRET).session_token(TOKEN))
        .start()
        .await
        .unwrap();
    (broker, gateway)
}
