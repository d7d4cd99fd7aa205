//! Signatures that botocore made. `cargo xtask vectors` writes the file anew; the format is explained there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sigv4_presign::{
    ContentSha256Header, Credentials, PathMode, Payload, Request, SessionTokenMode, Settings,
    Signer,
};

const VECTORS: &str = include_str!("data/botocore.txt");

/// One stanza of the file.
struct Vector<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Vector<'a> {
    fn parse(stanza: &'a str) -> Self {
        Self(
            stanza
                .lines()
                .map(|line| {
                    line.split_once(": ")
                        .or_else(|| line.split_once(':'))
                        .unwrap()
                })
                .collect(),
        )
    }

    fn find(&self, key: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| *value)
    }

    fn value(&self, key: &str) -> &'a str {
        self.find(key).unwrap_or_else(|| panic!("no {key}"))
    }

    fn headers(&self) -> Vec<(&'a str, &'a str)> {
        self.0
            .iter()
            .filter(|(key, _)| *key == "header")
            .map(|(_, header)| header.split_once(": ").unwrap())
            .collect()
    }

    fn credentials(&self) -> Credentials {
        let credentials = Credentials::new(self.value("id"), self.value("secret"));
        match self.find("token") {
            Some(token) => credentials.with_session_token(token),
            None => credentials,
        }
    }

    fn settings(&self) -> Settings<'a> {
        let settings = Settings::new(self.value("region"), self.value("service"));
        let settings = match self.value("path") {
            "normalized" => settings.path(PathMode::Normalized),
            "as-sent" => settings.path(PathMode::AsSent),
            other => panic!("path {other}"),
        };
        let settings = match self.value("token_mode") {
            "signed" => settings.session_token(SessionTokenMode::Signed),
            "appended" => settings.session_token(SessionTokenMode::Appended),
            other => panic!("token mode {other}"),
        };
        match self.find("expires") {
            Some(seconds) => settings.expires(Duration::from_secs(seconds.parse().unwrap())),
            None => settings,
        }
    }

    fn replay(&self, signer: &Signer) -> String {
        let headers = self.headers();
        let body = decode_hex(self.value("body"));
        let request = Request::new(self.value("method"), self.value("url"))
            .headers(&headers)
            .payload(body.as_deref().map_or(Payload::Unsigned, Payload::Bytes));
        let (credentials, settings) = (self.credentials(), self.settings());
        let time = time(self.value("time"));
        match self.value("form") {
            "query" => signer
                .presign(&request, &credentials, time, &settings)
                .unwrap()
                .into_string(),
            "header" => {
                let settings = match settings {
                    s3 if self.value("service") == "s3" => {
                        s3.content_sha256(ContentSha256Header::Send)
                    }
                    other => other,
                };
                let signed = signer
                    .sign_headers(&request, &credentials, time, &settings)
                    .unwrap();
                signed.authorization().to_owned()
            }
            other => panic!("form {other}"),
        }
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).ok())
        .collect()
}

/// `YYYYMMDDThhmmssZ`, by counting: nothing here is shared with the crate.
fn time(stamp: &str) -> SystemTime {
    let number = |range: std::ops::Range<usize>| stamp[range].parse::<u64>().unwrap();
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (year, month) = (number(0..4), number(4..6));
    let days_in = |month| match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let days = (1970..year)
        .map(|year| 365 + u64::from(is_leap(year)))
        .sum::<u64>()
        + (1..month).map(days_in).sum::<u64>()
        + number(6..8)
        - 1;
    let seconds = days * 86_400 + number(9..11) * 3_600 + number(11..13) * 60 + number(13..15);
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn every_vector_is_met() {
    let signer = Signer::new();
    let (note, stanzas) = VECTORS.split_once("\n\n").unwrap();
    assert!(note.starts_with("# Made by `cargo xtask vectors`"));
    let mut count = 0;
    for stanza in stanzas.split("\n\n") {
        let vector = Vector::parse(stanza);
        let expected = vector.value("expect");
        let actual = vector.replay(&signer);
        // What an endpoint without a path is opened as.
        let expected = expected.replacen("amazonaws.com?", "amazonaws.com/?", 1);
        assert_eq!(actual, expected, "\n{stanza}");
        count += 1;
    }
    assert!(count >= 280, "{count}");
}
