//! Which cryptographic provider is used, in each build; and that none of them panics.
//!
//! `cargo xtask features` runs it with none, with ring, with aws-lc-rs and with both.
#![cfg(feature = "tls")]

mod common;

use std::sync::Arc;

use common::{
    echo, endpoint, request, serve,
    tls::{Authority, acceptor, provider},
};
use rustls::{ClientConfig, RootCertStore};
use ws_transport::{BaseRoots, Connector, TlsConfig, TlsConfigBuilder, TlsConfigError};

async fn works(make: impl Fn(&Authority) -> TlsConfig) {
    let authority = Authority::new("ours");
    let tls = acceptor(&authority.server("localhost"));
    let (address, _server) = serve(move |stream| {
        let tls = tls.clone();
        async move { echo(tls.accept(stream).await.unwrap()).await }
    })
    .await;
    let mut socket = Connector::new()
        .tls(make(&authority))
        .connect(&endpoint("wss", address), &request())
        .await
        .unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap(), "hello");
}

fn builder(authority: &Authority) -> TlsConfigBuilder {
    TlsConfig::builder()
        .base_roots(BaseRoots::None)
        .add_roots_pem(authority.pem())
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
#[tokio::test]
async fn the_compiled_in_one() {
    works(|authority| builder(authority).build().unwrap()).await;
}

#[cfg(feature = "tls-ring")]
#[tokio::test]
async fn ring_by_name() {
    works(|authority| builder(authority).use_ring().build().unwrap()).await;
}

#[cfg(feature = "tls-aws-lc-rs")]
#[tokio::test]
async fn aws_lc_rs_by_name() {
    works(|authority| builder(authority).use_aws_lc_rs().build().unwrap()).await;
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
#[tokio::test]
async fn none_is_an_error_and_not_a_panic() {
    use ws_transport::{ConnectError, TlsError};

    let authority = Authority::new("ours");
    let error = builder(&authority).build().unwrap_err();
    assert!(matches!(error, TlsConfigError::NoProvider), "{error:?}");

    // The same from the default configuration, at its first use.
    let (address, _server) = serve(async |_stream| {}).await;
    let error = Connector::new()
        .connect(&endpoint("wss", address), &request())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Tls(TlsError::Config(TlsConfigError::NoProvider))
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_user_s_provider() {
    works(|authority| {
        builder(authority)
            .provider_rustls_0_23(provider())
            .build()
            .unwrap()
    })
    .await;
}

#[tokio::test]
async fn the_user_s_configuration() {
    works(|authority| {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der()).unwrap();
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConfig::from_rustls_0_23(Arc::new(config))
    })
    .await;
}

#[test]
fn the_user_s_provider_may_be_unusable() {
    let mut broken = (*provider()).clone();
    broken.cipher_suites.clear();
    let error = builder(&Authority::new("ours"))
        .provider_rustls_0_23(Arc::new(broken))
        .build()
        .unwrap_err();
    assert!(matches!(error, TlsConfigError::Rejected(_)), "{error:?}");
}
