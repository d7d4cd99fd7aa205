//! The URLs that Amplify's JavaScript client (6.2.1) opens, for the same inputs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sigv4_presign::{Credentials, presign_iot};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "FwoGZXIvYXdzEXAMPLE+fake/token==";
const ENDPOINT: &str = "wss://a1b2c3example-ats.iot.us-east-1.amazonaws.com/mqtt";
const SIGNATURE: &str = "7a3e67ba146b825873ab8910e8ab027beb081de4185e8fa398e04fb6eb2cf9df";

fn time() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_440_938_160)
}

fn credentials() -> Credentials {
    Credentials::new("AKIDEXAMPLE", SECRET).with_session_token(TOKEN)
}

fn sign(endpoint: &str, region: &str) -> String {
    presign_iot(endpoint, region, &credentials(), time())
        .unwrap()
        .into_string()
}

fn signature(url: &str) -> &str {
    let (_, rest) = url.split_once("&X-Amz-Signature=").unwrap();
    &rest[..64]
}

#[test]
fn the_plain_url_byte_for_byte() {
    assert_eq!(
        sign(ENDPOINT, "us-east-1"),
        "wss://a1b2c3example-ats.iot.us-east-1.amazonaws.com/mqtt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fiotdevicegateway%2Faws4_request\
         &X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=7a3e67ba146b825873ab8910e8ab027beb081de4185e8fa398e04fb6eb2cf9df\
         &X-Amz-Security-Token=FwoGZXIvYXdzEXAMPLE%2Bfake%2Ftoken%3D%3D"
    );
}

#[test]
fn the_token_follows_the_signature_and_is_not_in_it() {
    let bare = Credentials::new("AKIDEXAMPLE", SECRET);
    let without = presign_iot(ENDPOINT, "us-east-1", &bare, time()).unwrap();
    assert!(without.as_str().ends_with(SIGNATURE));
    assert_eq!(
        sign(ENDPOINT, "us-east-1"),
        format!(
            "{}&X-Amz-Security-Token=FwoGZXIvYXdzEXAMPLE%2Bfake%2Ftoken%3D%3D",
            without.as_str()
        )
    );
    let empty = presign_iot(ENDPOINT, "us-east-1", &bare.with_session_token(""), time()).unwrap();
    assert_eq!(empty, without);
}

#[test]
fn endpoints_and_regions() {
    let host = "a1b2c3example-ats.iot.us-east-1.amazonaws.com";
    for (endpoint, region, prefix, opened) in [
        (
            format!("wss://{host}:443/mqtt"),
            "us-east-1",
            "7a3e67ba146b8258",
            format!("wss://{host}/mqtt"),
        ),
        (
            format!("wss://{host}:8443/mqtt"),
            "us-east-1",
            "ddf851c03208e059",
            format!("wss://{host}:8443/mqtt"),
        ),
        (
            format!("wss://{host}"),
            "us-east-1",
            "5cc9dedf333b1997",
            format!("wss://{host}/"),
        ),
        (
            format!("wss://{}/mqtt", host.to_uppercase()),
            "us-east-1",
            "7a3e67ba146b8258",
            format!("wss://{host}/mqtt"),
        ),
        (
            "wss://a1b2c3example-ats.iot.eu-west-1.amazonaws.com/mqtt".to_owned(),
            "eu-west-1",
            "490bfd0ce91fc52c",
            "wss://a1b2c3example-ats.iot.eu-west-1.amazonaws.com/mqtt".to_owned(),
        ),
        (
            "wss://a1b2c3example-ats.iot.eu-west-1.amazonaws.com/mqtt".to_owned(),
            "us-west-2",
            "ca5ef4e212d27e87",
            "wss://a1b2c3example-ats.iot.eu-west-1.amazonaws.com/mqtt".to_owned(),
        ),
        (
            "wss://a1b2c3example.ats.iot.cn-north-1.amazonaws.com.cn/mqtt".to_owned(),
            "cn-north-1",
            "a82d2a8442ed06a5",
            "wss://a1b2c3example.ats.iot.cn-north-1.amazonaws.com.cn/mqtt".to_owned(),
        ),
        (
            "ws://127.0.0.1:19102/mqtt".to_owned(),
            "us-east-1",
            "743eb612ad884f94",
            "ws://127.0.0.1:19102/mqtt".to_owned(),
        ),
        (
            format!("ws://{host}/mqtt"),
            "us-east-1",
            "7a3e67ba146b8258",
            format!("ws://{host}/mqtt"),
        ),
    ] {
        let url = sign(&endpoint, region);
        assert_eq!(&signature(&url)[..16], prefix, "{endpoint}");
        assert!(
            url.starts_with(&format!("{opened}?X-Amz-Algorithm=")),
            "{url}"
        );
    }
}

#[test]
fn milliseconds_are_cut_and_the_day_is_that_of_utc() {
    // 2024-02-29T23:59:59.999Z
    let time = UNIX_EPOCH + Duration::from_millis(1_709_251_199_999);
    let url = presign_iot(ENDPOINT, "us-east-1", &credentials(), time).unwrap();
    assert!(signature(url.as_str()).starts_with("ce7ac356a901c040"));
}

/// Amplify writes what an endpoint brings along, and the token, in the form encoding of browsers. Decoded it is the same.
#[test]
fn where_the_bytes_differ_from_amplifys() {
    let url = sign(&format!("{ENDPOINT}?a=b c~*"), "us-east-1");
    let (_, query) = url.split_once('?').unwrap();
    // Amplify: a=b+c%7E*
    assert!(query.starts_with("a=b%20c~%2A&X-Amz-Algorithm="), "{query}");

    let odd = Credentials::new("AKIDEXAMPLE", SECRET).with_session_token(" a~*'()!ü");
    let url = presign_iot(ENDPOINT, "us-east-1", &odd, time()).unwrap();
    assert_eq!(signature(url.as_str()), SIGNATURE);
    // Amplify: +a%7E*%27%28%29%21%C3%BC
    assert!(
        url.as_str()
            .ends_with("&X-Amz-Security-Token=%20a~%2A%27%28%29%21%C3%BC")
    );
}
