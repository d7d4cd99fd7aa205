//! The process's default provider, in a process of its own: it can be installed once.
#![cfg(feature = "tls")]

mod common;

use common::tls::{Authority, provider};
use ws_transport::{BaseRoots, TlsConfig, TlsConfigError};

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "what an application does, and the library never"
)]
fn comes_after_the_named_one_and_before_the_compiled_in_one() {
    let builder = || {
        TlsConfig::builder()
            .base_roots(BaseRoots::None)
            .add_roots_pem(Authority::new("ours").pem())
    };
    let compiled_in = cfg!(any(feature = "tls-ring", feature = "tls-aws-lc-rs"));
    assert_eq!(builder().build().is_ok(), compiled_in);
    assert!(
        rustls::crypto::CryptoProvider::get_default().is_none(),
        "the library has installed a default"
    );

    // One that can do nothing shows who is asked.
    let mut broken = (*provider()).clone();
    broken.cipher_suites.clear();
    broken.install_default().unwrap();
    let error = builder().build().unwrap_err();
    assert!(matches!(error, TlsConfigError::Rejected(_)), "{error:?}");
    assert!(builder().provider_rustls_0_23(provider()).build().is_ok());
}
