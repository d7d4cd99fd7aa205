//! No secret shows in anything public that can be rendered.

use std::fmt::{Debug, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sigv4_presign::{
    ContentSha256Header, Credentials, Error, Payload, Request, Settings, Signer, presign,
    sign_headers,
};

/// Anything that holds one of these, in any case, is a leak.
const MARKER: &str = "m4rk3r";
const SECRET: &str = "m4rk3rSecretAccessKey";
const TOKEN: &str = "m4rk3rSessionToken";
const URL: &str = "https://example.com/m4rk3r-path?token=m4rk3r-parameter";
const HEADERS: [(&str, &str); 1] = [("x-authorizer", "m4rk3r-header")];

#[derive(Default)]
struct Rendered(String);

impl Rendered {
    fn debug(&mut self, value: &dyn Debug) {
        write!(self.0, "{value:?}\n{value:#?}\n").unwrap();
    }

    fn error(&mut self, error: Error) {
        self.debug(&error);
        write!(self.0, "{error}\n{error:#}\n").unwrap();
        assert!(std::error::Error::source(&error).is_none());
    }
}

fn time() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_440_938_160)
}

#[test]
fn nothing_rendered_holds_a_secret() {
    let credentials = Credentials::new("AKIDEXAMPLE", SECRET).with_session_token(TOKEN);
    let request = Request::new("PUT", URL)
        .headers(&HEADERS)
        .payload(Payload::Bytes(b"m4rk3r-body"));
    let settings = Settings::new("us-east-1", "service");
    let hashing = settings.content_sha256(ContentSha256Header::Send);
    let signer = Signer::new();
    let url = signer
        .presign(&request, &credentials, time(), &settings)
        .unwrap();
    let headers = signer
        .sign_headers(&request, &credentials, time(), &hashing)
        .unwrap();
    assert!(url.as_str().contains(TOKEN) && url.as_str().contains("m4rk3r-parameter"));
    assert!(headers.iter().any(|(_, value)| value == TOKEN));
    let signature = url.as_str().rsplit_once('=').unwrap().1.to_owned();

    let mut rendered = Rendered::default();
    rendered.debug(&credentials);
    rendered.debug(&credentials.clone());
    rendered.debug(&request);
    rendered.debug(&settings);
    rendered.debug(&signer);
    rendered.debug(&url);
    rendered.debug(&headers);
    for payload in [
        Payload::Empty,
        Payload::Sha256(*b"m4rk3r-m4rk3r-m4rk3r-m4rk3r-m4rk"),
        Payload::Unsigned,
    ] {
        rendered.debug(&payload);
    }
    assert!(!rendered.0.contains(&signature));
    assert_clean(&rendered.0);
}

#[test]
fn no_error_repeats_what_it_was_given() {
    let good = Credentials::new("AKIDEXAMPLE", SECRET).with_session_token(TOKEN);
    let mut rendered = Rendered::default();
    let mut seen = Vec::new();
    let mut note = |error: Option<Error>| {
        let error = error.expect("refused");
        rendered.error(error);
        seen.push(std::mem::discriminant(&error));
    };
    for url in [
        "m4rk3r",
        "m4rk3r://example.com/",
        "https://m4rk3r:m4rk3r@example.com/",
        "https://m4rk3r!/",
        "https://example.com:m4rk3r/",
        "https://example.com/#m4rk3r",
        "https://example.com/m4rk3r m4rk3r",
        "https://example.com/\nm4rk3r",
        "https://example.com/?X-Amz-Signature=m4rk3r",
    ] {
        note(
            presign(
                &Request::new("GET", url),
                &good,
                time(),
                &Settings::iot("us-east-1"),
            )
            .err(),
        );
    }
    for headers in [
        ("authorization", MARKER),
        ("host", MARKER),
        ("m4rk3r m4rk3r", MARKER),
        ("a", "m4rk3r\n"),
    ] {
        let headers = [headers];
        let request = Request::new("GET", URL).headers(&headers);
        note(sign_headers(&request, &good, time(), &Settings::new("us-east-1", "s")).err());
    }
    for (method, region, service) in [
        ("m4rk3r m4rk3r", "r", "s"),
        ("GET", "m4rk3r/", "s"),
        ("GET", "r", "m4rk3r/"),
    ] {
        note(
            presign(
                &Request::new(method, URL),
                &good,
                time(),
                &Settings::new(region, service),
            )
            .err(),
        );
    }
    for credentials in [
        Credentials::new("m4rk3r\n", SECRET),
        Credentials::new("AKIDEXAMPLE", format!("{SECRET}\n")),
        Credentials::new("AKIDEXAMPLE", SECRET).with_session_token(format!("{TOKEN}\n")),
    ] {
        note(
            presign(
                &Request::new("GET", URL),
                &credentials,
                time(),
                &Settings::iot("r"),
            )
            .err(),
        );
    }
    let settings = Settings::new("r", "s");
    let request = Request::new("GET", URL);
    let zero = settings.expires(Duration::ZERO);
    note(presign(&request, &good, time(), &zero).err());
    note(
        sign_headers(
            &request,
            &good,
            time(),
            &settings.expires(Duration::from_secs(1)),
        )
        .err(),
    );
    let hashing = settings.content_sha256(ContentSha256Header::Send);
    note(presign(&request, &good, time(), &hashing).err());
    note(
        presign(
            &request,
            &good,
            UNIX_EPOCH - Duration::from_secs(1),
            &settings,
        )
        .err(),
    );

    let kinds: std::collections::HashSet<_> = seen.iter().collect();
    assert_eq!(kinds.len(), seen.len(), "each case is an error of its own");
    assert_clean(&rendered.0);
}

fn assert_clean(rendered: &str) {
    assert!(!rendered.is_empty());
    // Also spelt as a list of numbers, which is how `Debug` shows bytes.
    let numbers = format!("{:?}", MARKER.as_bytes());
    for leak in [MARKER, numbers.trim_matches(['[', ']'])] {
        assert!(!rendered.to_ascii_lowercase().contains(leak), "{rendered}");
    }
}
