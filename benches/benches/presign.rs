//! A signed URL for AWS IoT, from request to finished text. The peers' figures are those of `benches/peers`.

use std::hint::black_box;
use std::time::{Duration, UNIX_EPOCH};

use criterion::{Criterion, criterion_group, criterion_main};
use sigv4_presign::{Credentials, Payload, Request, Settings, Signer, presign_iot};

const ENDPOINT: &str = "wss://a1b2c3example-ats.iot.us-east-1.amazonaws.com/mqtt";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SIGNATURE: &str = "7a3e67ba146b825873ab8910e8ab027beb081de4185e8fa398e04fb6eb2cf9df";

fn signing(criterion: &mut Criterion) {
    let time = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
    let plain = Credentials::new("AKIDEXAMPLE", SECRET);
    // As long as those of Cognito.
    let temporary = plain
        .clone()
        .with_session_token(format!("{}==", "Fwo+".repeat(300)));

    let mut group = criterion.benchmark_group("presign");
    for (token, credentials) in [("no token", &plain), ("1.2 kB token", &temporary)] {
        let signer = Signer::new();
        for url in [
            signer.presign_iot(ENDPOINT, "us-east-1", credentials, time),
            presign_iot(ENDPOINT, "us-east-1", credentials, time),
        ] {
            assert!(
                url.expect("a signed URL").as_str().contains(SIGNATURE),
                "the answer is wrong"
            );
        }
        group.bench_function(format!("iot, {token}, cached key"), |bencher| {
            bencher
                .iter(|| signer.presign_iot(black_box(ENDPOINT), "us-east-1", credentials, time));
        });
        group.bench_function(format!("iot, {token}, new key"), |bencher| {
            bencher.iter(|| presign_iot(black_box(ENDPOINT), "us-east-1", credentials, time));
        });
    }

    let signer = Signer::new();
    let request = Request::new(
        "POST",
        "https://a1b2c3example-ats.iot.us-east-1.amazonaws.com/topics/a%2Fb?qos=1",
    )
    .payload(Payload::Bytes(br#"{"celsius":21.5}"#));
    let settings = Settings::new("us-east-1", "iotdata");
    let signed = signer.sign_headers(&request, &temporary, time, &settings);
    assert!(signed.is_ok_and(|signed| {
        signed
            .authorization()
            .contains("SignedHeaders=host;x-amz-date;x-amz-security-token, Signature=")
    }));
    group.bench_function("headers, 1.2 kB token, cached key", |bencher| {
        bencher.iter(|| signer.sign_headers(black_box(&request), &temporary, time, &settings));
    });
    group.finish();
}

criterion_group!(benches, signing);
criterion_main!(benches);
