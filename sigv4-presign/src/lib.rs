//! AWS Signature Version 4 as a pure function: presigned URLs and signed headers, for AWS IoT and every other service.
//!
//! Request, [`Credentials`], time and [`Settings`] go in; a [`SignedUrl`] or [`SignedHeaders`] comes out. Nothing here
//! reads a clock, the environment or a file, or opens a connection.
//!
//! * [`presign()`] signs any request in its query, [`sign_headers()`] in its headers.
//! * [`presign_iot()`] makes the URL that opens an MQTT connection to AWS IoT, as Amplify's client does.
//! * [`Signer`] does all three with a cache of signing keys.
//!
//! ```
//! use std::time::SystemTime;
//! use sigv4_presign::{Credentials, Signer};
//!
//! # fn main() -> Result<(), sigv4_presign::Error> {
//! let signer = Signer::new();
//! let credentials = Credentials::new("AKIDEXAMPLE", "secret").with_session_token("token");
//! let endpoint = "wss://a1b2c3example-ats.iot.eu-west-1.amazonaws.com/mqtt";
//! let url = signer.presign_iot(endpoint, "eu-west-1", &credentials, SystemTime::now())?;
//! # let _ = url;
//! # Ok(())
//! # }
//! ```
//!
//! # Secrets
//!
//! Secret keys, session tokens, signing keys, signed URLs and headers are overwritten when they are dropped, and no
//! `Debug`, `Display` or error shows them. Beyond reach are copies that the caller or its HTTP client makes, and what is left on
//! the stack of the block that the `hmac` crate pads a key in: it has no way to say that it should be overwritten.
//!
//! # What it does not do
//!
//! Version 4A (several regions), chunked and trailing payload signatures, `POST` policies, and verifying. A path is
//! never repaired: one that is not percent-encoded is an error, because the signature depends on how the sender would
//! encode it. Clients that remove dot segments before sending, `%2e%2e` included, break signatures of S3 keys with such names.

#![forbid(unsafe_code)]

mod canonical;
mod credentials;
mod error;
mod escape;
mod headers;
mod key;
mod list;
mod mac;
mod presign;
mod request;
mod settings;
mod stamp;
mod target;
mod text;

pub use credentials::Credentials;
pub use error::Error;
pub use headers::SignedHeaders;
pub use presign::{SignedUrl, Signer, presign, presign_iot, sign_headers};
pub use request::{Payload, Request};
pub use settings::{ContentSha256Header, PathMode, SessionTokenMode, Settings};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
