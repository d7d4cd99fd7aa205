//! Signing: what comes out is one signature, on exactly what went in.
//!
//! The input is a byte of switches, then lines: the URL, a session token, and `name:value` headers.

use std::time::{Duration, UNIX_EPOCH};

use sigv4_presign::{
    Credentials, PathMode, Request, SessionTokenMode, Settings, Signer, presign, sign_headers,
};

/// Signs the input both ways and checks what must hold of the result.
///
/// # Panics
///
/// When something that must hold does not.
pub fn oracle(data: &[u8]) {
    let Some((&switches, text)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    let mut lines = text.split('\n');
    let url = lines.next().unwrap_or_default();
    let token = lines.next().unwrap_or_default();
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();

    let credentials = Credentials::new("AKIDEXAMPLE", "secret").with_session_token(token);
    let time = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
    let mut settings = Settings::new("us-east-1", "service");
    if switches & 1 != 0 {
        settings = settings.path(PathMode::AsSent);
    }
    let appended = switches & 2 != 0;
    if appended {
        settings = settings.session_token(SessionTokenMode::Appended);
    }
    let request = Request::new("GET", url).headers(&headers);

    if let Ok(signed) = sign_headers(&request, &credentials, time, &settings) {
        for (name, value) in signed.iter() {
            assert!(
                value.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "{name}"
            );
        }
        let list = signed
            .authorization()
            .split_once("SignedHeaders=")
            .expect("a list")
            .1;
        let names: Vec<&str> = list
            .split_once(", ")
            .expect("a signature")
            .0
            .split(';')
            .collect();
        assert!(names.is_sorted_by(|a, b| a < b), "sorted, each name once");
        assert!(names.contains(&"host") && names.contains(&"x-amz-date"));
    }

    let expires = u64::from(switches >> 2);
    if expires > 0 {
        settings = settings.expires(Duration::from_secs(expires));
    }
    let Ok(signed) = presign(&request, &credentials, time, &settings) else {
        return;
    };
    let signer = Signer::new();
    for _ in 0..2 {
        let cached = signer.presign(&request, &credentials, time, &settings);
        assert_eq!(cached.as_ref(), Ok(&signed), "with a kept key");
    }

    let (front, query) = signed.as_str().split_once('?').expect("a query");
    assert!(signed.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
    let authority = front.split('/').nth(2).expect("a host");
    assert!(!authority.is_empty() && !authority.contains(['@', '%', '\\']));
    assert_eq!(authority, authority.to_ascii_lowercase());
    assert!(!front.contains(['#', '\\']));
    let pieces: Vec<&str> = query.split('&').collect();
    let at = pieces
        .iter()
        .position(|piece| piece.starts_with("X-Amz-Algorithm="))
        .expect("the first parameter of the signature");
    let (own, signature) = pieces.split_at(at);

    // The caller's parameters are all there, in their order, and mean the same.
    let given = url.split_once('?').map_or("", |(_, query)| query);
    let given: Vec<Vec<u8>> = given
        .split('&')
        .filter(|piece| !piece.is_empty())
        .map(meaning)
        .collect();
    assert_eq!(
        own.iter().map(|piece| meaning(piece)).collect::<Vec<_>>(),
        given
    );

    let names: Vec<&str> = signature
        .iter()
        .filter_map(|piece| Some(piece.split_once('=')?.0))
        .collect();
    let mut expected = vec!["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date"];
    expected.extend((expires > 0).then_some("X-Amz-Expires"));
    expected.push("X-Amz-SignedHeaders");
    expected.extend((!token.is_empty() && !appended).then_some("X-Amz-Security-Token"));
    expected.push("X-Amz-Signature");
    expected.extend((!token.is_empty() && appended).then_some("X-Amz-Security-Token"));
    assert_eq!(names, expected);

    // In any order of the parameters, and in the form that was written, it is the same signature.
    let reversed: Vec<&str> = own.iter().rev().copied().collect();
    for own in [own.join("&"), reversed.join("&")] {
        let url = format!("{front}?{own}");
        let request = Request::new("GET", &url).headers(&headers);
        let again = presign(&request, &credentials, time, &settings).expect("signed before");
        assert!(again.as_str().ends_with(&signature.join("&")));
    }
}

/// A parameter decoded, the part before `=` and the part after it told apart by a byte that no text holds.
fn meaning(piece: &str) -> Vec<u8> {
    let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
    let mut bytes = decode(name.as_bytes());
    bytes.push(b'\n');
    bytes.extend(decode(value.as_bytes()));
    bytes
}

fn decode(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let escape = text.get(at + 1..at + 3).filter(|_| byte == b'%');
        let digits = escape.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let decoded = digits
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(decoded.unwrap_or(byte));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    bytes
}
