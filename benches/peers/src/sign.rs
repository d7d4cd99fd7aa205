//! The URL that opens an MQTT connection to AWS IoT, ours beside the SDK's signer.
//!
//! Both start from credentials that are there and end at a finished URL as text. Theirs cannot leave out `X-Amz-Expires`,
//! so its URL is 19 bytes longer; and it wants `https` in place of `wss`.

use std::hint::black_box;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sigv4::http_request::{
    SessionTokenMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_runtime_api::client::identity::Identity;
use sigv4_presign::{Credentials, Signer, presign_iot};

use crate::measure::Clock;

const HOST_AND_PATH: &str = "a1b2c3example-ats.iot.us-east-1.amazonaws.com/mqtt";
const REGION: &str = "us-east-1";
const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// Of the URL without expiry.
const SIGNATURE: &str = "7a3e67ba146b825873ab8910e8ab027beb081de4185e8fa398e04fb6eb2cf9df";

/// URLs a round.
const BATCH: usize = 2_000;

/// Prints a table for URLs without a session token and with one as long as Cognito's.
pub fn run(rounds: usize) {
    let time = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
    let endpoint = format!("wss://{HOST_AND_PATH}");
    let theirs_endpoint = format!("https://{HOST_AND_PATH}");
    for (name, token) in [
        ("no token", None),
        ("1.2 kB token", Some(format!("{}==", "Fwo+".repeat(300)))),
    ] {
        let mut credentials = Credentials::new(ID, SECRET);
        if let Some(token) = &token {
            credentials = credentials.with_session_token(token.as_str());
        }
        let identity: Identity =
            aws_credential_types::Credentials::new(ID, SECRET, token, None, "peers").into();
        let signer = Signer::new();
        let cached = || {
            signer
                .presign_iot(black_box(&endpoint), REGION, &credentials, time)
                .expect("a URL")
        };
        let derived =
            || presign_iot(black_box(&endpoint), REGION, &credentials, time).expect("a URL");
        let sdk = || theirs(black_box(&theirs_endpoint), &identity, time);
        assert!(cached().as_str().contains(SIGNATURE) && derived() == cached());
        assert!(sdk().contains("X-Amz-Signature="));

        let mut best = [(f64::MAX, 0.0); 3];
        for _ in 0..rounds {
            let round = [batch(cached), batch(derived), batch(sdk)];
            for (best, this) in best.iter_mut().zip(round) {
                if this.0 < best.0 {
                    *best = this;
                }
            }
        }
        println!("\n## presign, AWS IoT, {name}\n");
        println!(
            "| peer | ns a URL | times ours | allocations a URL |\n| --- | ---: | ---: | ---: |"
        );
        let names = ["ours, cached key", "ours, new key", "aws-sigv4 1.6.4"];
        for (name, (nanoseconds, allocations)) in names.iter().zip(best) {
            println!(
                "| {name} | {nanoseconds:.0} | {:.2} | {allocations:.1} |",
                nanoseconds / best[0].0
            );
        }
    }
}

/// CPU time and allocations of one URL, from a batch that is dropped as it goes.
fn batch<T>(mut work: impl FnMut() -> T) -> (f64, f64) {
    let mut clock = Clock::default();
    clock.region(|| {
        for _ in 0..BATCH {
            black_box(work());
        }
    });
    (
        clock.nanoseconds as f64 / BATCH as f64,
        clock.allocations as f64 / BATCH as f64,
    )
}

fn theirs(endpoint: &str, identity: &Identity, time: SystemTime) -> String {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(Duration::from_secs(3_600));
    settings.session_token_mode = SessionTokenMode::Exclude;
    let params = SigningParams::builder()
        .identity(identity)
        .region(REGION)
        .name("iotdevicegateway")
        .time(time)
        .settings(settings)
        .build()
        .expect("parameters")
        .into();
    let request = SignableRequest::new(
        "GET",
        endpoint,
        std::iter::empty(),
        SignableBody::Bytes(b""),
    )
    .expect("a request");
    let (instructions, _) = sign(request, &params).expect("a signature").into_parts();
    let mut request = http::Request::builder()
        .uri(endpoint)
        .body(())
        .expect("a request");
    instructions.apply_to_request_http1x(&mut request);
    request.uri().to_string()
}
