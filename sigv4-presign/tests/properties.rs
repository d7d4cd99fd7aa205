//! What holds for any request. That the signatures are right is not shown here but by the vectors, and by `testkit`'s
//! comparison with another implementation.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use sigv4_presign::{
    Credentials, PathMode, Payload, Request, SessionTokenMode, Settings, Signer, presign,
    sign_headers,
};

fn query() -> impl Strategy<Value = Vec<(String, String)>> {
    // Few letters, so that names repeat; more parameters than fit in place.
    proptest::collection::vec(("[a-cA%+ü=/-]{0,3}", "[a-c%+ü/ ]{0,3}"), 0..24)
}

fn join(query: &[(String, String)]) -> String {
    let pieces: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{}={value}", name.replace('=', "%3D")))
        .collect();
    pieces.join("&")
}

fn signature(url: &str) -> &str {
    let (_, rest) = url.split_once("X-Amz-Signature=").unwrap();
    &rest[..64]
}

fn token_mode() -> impl Strategy<Value = SessionTokenMode> {
    prop_oneof![
        Just(SessionTokenMode::Signed),
        Just(SessionTokenMode::Appended)
    ]
}

proptest! {
    #[test]
    fn the_order_of_parameters_does_not_change_the_signature(
        (query, shuffled) in query().prop_flat_map(|query| (Just(query.clone()), Just(query).prop_shuffle())),
        mode in token_mode(),
        expires in proptest::option::of(1..=604_800u64),
    ) {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret").with_session_token("to+ken");
        let mut settings = Settings::new("us-east-1", "service").session_token(mode);
        if let Some(seconds) = expires {
            settings = settings.expires(Duration::from_secs(seconds));
        }
        let sign = |query: &[(String, String)]| {
            let url = format!("https://example.com/?{}", join(query));
            presign(&Request::new("GET", &url), &credentials, UNIX_EPOCH, &settings).unwrap().into_string()
        };
        let (one, other) = (sign(&query), sign(&shuffled));
        prop_assert_eq!(signature(&one), signature(&other));
        // Nothing is lost, and the URL is plain ASCII without anything that a client would change.
        prop_assert_eq!(one.matches('=').count(), query.len() + 6 + usize::from(expires.is_some()));
        prop_assert!(one.bytes().all(|byte| byte.is_ascii_graphic()));
    }

    #[test]
    fn what_was_written_is_signed_the_same(query in query()) {
        // The query of a signed URL is canonical: taken for a request of its own it stays as it is.
        let credentials = Credentials::new("AKIDEXAMPLE", "secret");
        let settings = Settings::new("us-east-1", "service");
        let sign = |url: &str| {
            presign(&Request::new("GET", url), &credentials, UNIX_EPOCH, &settings).unwrap().into_string()
        };
        let first = sign(&format!("https://example.com/?{}", join(&query)));
        let (own, _) = first.split_once("X-Amz-Algorithm").unwrap();
        prop_assert_eq!(sign(own), first);
    }

    #[test]
    fn a_cached_key_signs_as_a_derived_one(
        requests in proptest::collection::vec((0..3u64, "[rq]", "[st]", "[xy]", any::<bool>()), 1..40),
        capacity in 0..6usize,
    ) {
        let signer = Signer::with_capacity(capacity);
        for (day, region, service, secret, clear) in requests {
            let time = UNIX_EPOCH + Duration::from_secs(day * 86_400);
            let credentials = Credentials::new("AKIDEXAMPLE", secret);
            let settings = Settings::new(&region, &service);
            let request = Request::new("POST", "https://example.com/a").payload(Payload::Bytes(b"b"));
            prop_assert_eq!(
                signer.presign(&request, &credentials, time, &settings).unwrap(),
                presign(&request, &credentials, time, &settings).unwrap()
            );
            let cached = signer.sign_headers(&request, &credentials, time, &settings).unwrap();
            let derived = sign_headers(&request, &credentials, time, &settings).unwrap();
            prop_assert_eq!(cached.authorization(), derived.authorization());
            if clear {
                signer.clear();
            }
        }
    }

    #[test]
    fn every_part_of_the_request_is_signed(
        part in 0..8usize,
        other in "[b-z]{1,8}",
    ) {
        let sign = |change: Option<usize>| {
            let pick = |index: usize, usual: &str| if change == Some(index) { other.clone() } else { usual.to_owned() };
            let url = format!("https://{}.example.com/{}?{}={}", pick(0, "a"), pick(1, "a"), pick(2, "a"), pick(3, "a"));
            let (name, value) = (pick(4, "a"), pick(5, "a"));
            let headers = [(name.as_str(), value.as_str())];
            let body = pick(6, "a");
            let method = pick(7, "GET");
            let request = Request::new(&method, &url).headers(&headers).payload(Payload::Bytes(body.as_bytes()));
            let settings = Settings::new("us-east-1", "service").path(PathMode::AsSent);
            let url = presign(&request, &Credentials::new("AKIDEXAMPLE", "secret"), UNIX_EPOCH, &settings).unwrap();
            signature(url.as_str()).to_owned()
        };
        // `te` is one of the headers that are left out.
        prop_assume!(other != "te");
        prop_assert_ne!(sign(None), sign(Some(part)));
    }

    #[test]
    fn no_input_makes_it_panic(
        method in ".{0,4}",
        url in "(https?|wss?)://.{0,60}",
        name in ".{0,6}",
        value in ".{0,6}",
        seconds in any::<u32>(),
    ) {
        let headers = [(name.as_str(), value.as_str())];
        let request = Request::new(&method, &url).headers(&headers);
        let credentials = Credentials::new("AKIDEXAMPLE", "secret").with_session_token("token");
        let time = UNIX_EPOCH + Duration::from_secs(seconds.into());
        let _ = presign(&request, &credentials, time, &Settings::iot("us-east-1"));
        let _ = sign_headers(&request, &credentials, time, &Settings::s3("us-east-1"));
    }
}
