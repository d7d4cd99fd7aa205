//! Values that AWS's documentation works out, and one of our own that two of AWS's signers agree on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sigv4_presign::{
    ContentSha256Header, Credentials, Payload, Request, Settings, Signer, presign, presign_iot,
    sign_headers,
};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// 2015-08-30T12:36:00Z.
const EXAMPLE_TIME: u64 = 1_440_938_160;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

const LIST_USERS: &str = "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08";
const FORM: [(&str, &str); 1] = [(
    "Content-Type",
    "application/x-www-form-urlencoded; charset=utf-8",
)];

#[test]
fn iam_list_users_in_headers() {
    let request = Request::new("GET", LIST_USERS).headers(&FORM);
    let credentials = Credentials::new("AKIDEXAMPLE", SECRET);
    let settings = Settings::new("us-east-1", "iam");
    let signed = sign_headers(&request, &credentials, at(EXAMPLE_TIME), &settings).unwrap();
    let headers: Vec<(&str, &str)> = signed.iter().collect();
    assert_eq!(
        headers,
        [
            (
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date, \
                 Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
            ),
            ("x-amz-date", "20150830T123600Z"),
        ]
    );
}

#[test]
fn iam_list_users_in_the_query() {
    let request = Request::new("GET", LIST_USERS).headers(&FORM);
    let credentials = Credentials::new("AKIDEXAMPLE", SECRET);
    let settings = Settings::new("us-east-1", "iam").expires(Duration::from_secs(60));
    let url = presign(&request, &credentials, at(EXAMPLE_TIME), &settings).unwrap();
    assert_eq!(
        url.as_str(),
        "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08\
         &X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fiam%2Faws4_request\
         &X-Amz-Date=20150830T123600Z&X-Amz-Expires=60\
         &X-Amz-SignedHeaders=content-type%3Bhost\
         &X-Amz-Signature=37ac2f4fde00b0ac9bd9eadeb459b1bbee224158d66e7ae5fcadb70b2d181d02"
    );
}

#[test]
fn s3_get_object_in_the_query() {
    let request = Request::new("GET", "https://examplebucket.s3.amazonaws.com/test.txt")
        .payload(Payload::Unsigned);
    let credentials = Credentials::new(
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    );
    let settings = Settings::s3("us-east-1").expires(Duration::from_secs(86_400));
    let url = presign(&request, &credentials, at(1_369_353_600), &settings).unwrap();
    assert_eq!(
        url.as_str(),
        "https://examplebucket.s3.amazonaws.com/test.txt\
         ?X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
         &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    );
}

/// "GET Object" and "PUT Object" of the S3 API reference: extra headers, a dollar sign in the key and a hashed body.
#[test]
fn s3_objects_in_headers() {
    let credentials = Credentials::new(
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    );
    let settings = Settings::s3("us-east-1").content_sha256(ContentSha256Header::Send);
    let get = Request::new("GET", "https://examplebucket.s3.amazonaws.com/test.txt")
        .headers(&[("Range", "bytes=0-9")]);
    let signed = sign_headers(&get, &credentials, at(1_369_353_600), &settings).unwrap();
    assert_eq!(
        signed.authorization(),
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
         SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, \
         Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    );

    let put = Request::new(
        "PUT",
        "https://examplebucket.s3.amazonaws.com/test%24file.text",
    )
    .headers(&[
        ("Date", "Fri, 24 May 2013 00:00:00 GMT"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
    ])
    .payload(Payload::Bytes(b"Welcome to Amazon S3."));
    let signed = sign_headers(&put, &credentials, at(1_369_353_600), &settings).unwrap();
    assert_eq!(
        signed.authorization(),
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
         SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class, \
         Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
    );
    let hash = signed
        .iter()
        .find(|(name, _)| *name == "x-amz-content-sha256")
        .unwrap();
    assert_eq!(
        hash.1,
        "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"
    );
}

/// From the signing test suite: a token that is signed, and one that is added afterwards.
#[test]
fn sts_tokens_before_and_after() {
    use sigv4_presign::SessionTokenMode;

    let token = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmx\
                 fpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0K\
                 PkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZb\
                 qBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
    let credentials = Credentials::new("AKIDEXAMPLE", SECRET).with_session_token(token);
    let request = Request::new("POST", "https://example.amazonaws.com/");
    let settings = Settings::new("us-east-1", "service").expires(Duration::from_secs(3_600));
    for (mode, signature) in [
        (
            SessionTokenMode::Signed,
            "46c2e3c63c1dbe7d39f8ada16fe7f001c1f56c5791441565323677f96308871c",
        ),
        (
            SessionTokenMode::Appended,
            "2ce6e6d2e0cf2f9d1b55fafec88cd20574c31dc2e7631979f71ba2310083e95b",
        ),
    ] {
        let settings = settings.session_token(mode);
        let url = presign(&request, &credentials, at(EXAMPLE_TIME), &settings).unwrap();
        assert!(
            url.as_str()
                .contains(&format!("&X-Amz-Signature={signature}")),
            "{mode:?}"
        );
        let token_is_last =
            url.as_str().rfind("X-Amz-Security-Token") > url.as_str().find("X-Amz-Signature");
        assert_eq!(token_is_last, mode == SessionTokenMode::Appended);
    }
}

#[test]
fn iot_as_botocore_and_the_crt_sign_it() {
    let credentials = Credentials::new("AKIDEXAMPLE", SECRET).with_session_token("any+token/==");
    let endpoint = "wss://a1b2c3d4e5f6g7-ats.iot.us-east-1.amazonaws.com/mqtt";
    // 2025-08-30T12:36:00Z
    let time = at(1_756_557_360);
    let url = presign_iot(endpoint, "us-east-1", &credentials, time).unwrap();
    assert!(url.as_str().ends_with(
        "&X-Amz-Signature=96b0d50099611efea561143576090a34dfa36b2dab9d9d6a9439138aac7a8d4c\
         &X-Amz-Security-Token=any%2Btoken%2F%3D%3D"
    ));
    let signer = Signer::new();
    for _ in 0..3 {
        assert_eq!(
            signer
                .presign_iot(endpoint, "us-east-1", &credentials, time)
                .unwrap(),
            url
        );
    }
}
