//! What would be a wrong or unsafe URL is an error, up to each bound and not beyond.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sigv4_presign::{
    ContentSha256Header, Credentials, Error, Request, Settings, presign, presign_iot, sign_headers,
};

fn time() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_440_938_160)
}

fn credentials() -> Credentials {
    Credentials::new("AKIDEXAMPLE", "secret")
}

fn settings() -> Settings<'static> {
    Settings::new("us-east-1", "service")
}

fn both(
    request: &Request<'_>,
    credentials: &Credentials,
    settings: &Settings<'_>,
) -> [Option<Error>; 2] {
    [
        presign(request, credentials, time(), settings).err(),
        sign_headers(request, credentials, time(), settings).err(),
    ]
}

#[test]
fn expiries_are_bounded() {
    let request = Request::new("GET", "https://example.com/");
    let expiring = |expires| {
        presign(
            &request,
            &credentials(),
            time(),
            &settings().expires(expires),
        )
        .map(|url| url.into_string())
    };
    let refused = Err(Error::ExpiresOutOfRange);
    assert_eq!(expiring(Duration::ZERO), refused);
    assert_eq!(expiring(Duration::from_millis(999)), refused);
    assert!(
        expiring(Duration::from_millis(1_999))
            .unwrap()
            .contains("&X-Amz-Expires=1&")
    );
    assert!(
        expiring(Duration::from_secs(604_800))
            .unwrap()
            .contains("&X-Amz-Expires=604800&")
    );
    assert_eq!(expiring(Duration::from_millis(604_800_001)), refused);
    assert_eq!(expiring(Duration::MAX), refused);
}

#[test]
fn settings_of_the_other_form_are_refused() {
    let request = Request::new("GET", "https://example.com/");
    let expiring = settings().expires(Duration::from_secs(1));
    assert_eq!(
        both(&request, &credentials(), &expiring),
        [None, Some(Error::ExpiresInHeaderForm)]
    );
    let hashing = settings().content_sha256(ContentSha256Header::Send);
    assert_eq!(
        both(&request, &credentials(), &hashing),
        [Some(Error::ContentSha256InQueryForm), None]
    );
}

#[test]
fn a_second_signature_is_refused() {
    let signed = presign_iot(
        "wss://example.com/mqtt",
        "us-east-1",
        &credentials(),
        time(),
    )
    .unwrap();
    assert_eq!(
        presign_iot(signed.as_str(), "us-east-1", &credentials(), time()).err(),
        Some(Error::ReservedParameter("X-Amz-Algorithm"))
    );
    for (name, [in_query, in_headers]) in [
        ("Authorization", [Some("authorization"); 2]),
        ("X-Amz-Date", [Some("x-amz-date"); 2]),
        ("x-amz-security-token", [Some("x-amz-security-token"); 2]),
        ("X-AMZ-Content-Sha256", [None, Some("x-amz-content-sha256")]),
    ] {
        let headers = [(name, "x")];
        let request = Request::new("GET", "https://example.com/").headers(&headers);
        assert_eq!(
            both(&request, &credentials(), &settings()),
            [in_query, in_headers].map(|name| name.map(Error::ReservedHeader))
        );
    }
}

#[test]
fn names_that_would_break_the_scope_are_refused() {
    let request = Request::new("GET", "https://example.com/");
    for name in ["", "us east", "us/east", "a\n", "ü", "a%2F"] {
        assert_eq!(
            both(&request, &credentials(), &Settings::new(name, "service")),
            [Some(Error::InvalidRegion); 2]
        );
        assert_eq!(
            both(&request, &credentials(), &Settings::new("us-east-1", name)),
            [Some(Error::InvalidService); 2]
        );
    }
}

#[test]
fn credentials_that_cannot_be_right_are_refused() {
    let request = Request::new("GET", "https://example.com/");
    for id in ["", "AKID EXAMPLE", "AKID\n", "ÄKID"] {
        let credentials = Credentials::new(id, "secret");
        assert_eq!(
            both(&request, &credentials, &settings()),
            [Some(Error::InvalidAccessKeyId); 2]
        );
    }
    for secret in ["", "secret\n", "sec\0ret"] {
        let credentials = Credentials::new("AKIDEXAMPLE", secret);
        assert_eq!(
            both(&request, &credentials, &settings()),
            [Some(Error::InvalidSecretAccessKey); 2]
        );
    }
    let token = |token: &str| {
        both(
            &request,
            &credentials().with_session_token(token),
            &settings(),
        )
    };
    assert_eq!(
        token("token\r\nx: y"),
        [Some(Error::InvalidSessionToken); 2]
    );
    assert_eq!(token("tökén"), [None, Some(Error::InvalidSessionToken)]);
    assert_eq!(token(" to+ken/== "), [None; 2]);
}

#[test]
fn methods_are_tokens() {
    for method in ["", "GET /", "GET\r\n", "GÉT"] {
        let request = Request::new(method, "https://example.com/");
        assert_eq!(
            both(&request, &credentials(), &settings()),
            [Some(Error::InvalidMethod); 2]
        );
    }
}

#[test]
fn times_without_a_stamp_are_refused() {
    let late = UNIX_EPOCH + Duration::from_secs(253_402_300_800);
    for time in [UNIX_EPOCH - Duration::from_secs(1), late] {
        assert_eq!(
            presign_iot("wss://example.com/mqtt", "us-east-1", &credentials(), time).err(),
            Some(Error::TimeOutOfRange)
        );
    }
}

#[test]
fn errors_are_small() {
    assert!(size_of::<Error>() <= 32, "{}", size_of::<Error>());
}
