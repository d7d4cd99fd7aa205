//! A certificate authority of the test's own, and the certificates that a client must take or refuse.
//!
//! Nothing here is cached or read from disk: each [`Authority`] has its own key, so a
//! certificate of one is unknown to whoever trusts another.

use std::{fmt, io, path::PathBuf, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

/// The names that a good server certificate is for: what a loopback URL may contain.
pub const LOOPBACK_NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// What is wrong with a server certificate, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// Ended in 2021.
    Expired,
    /// Begins in 2090.
    NotYetValid,
    /// For `elsewhere.example`, so not for any loopback name.
    WrongHost,
    /// No subject alternative name; the host stands in the common name only, which clients
    /// stopped accepting long ago.
    NoSubjectAltName,
    /// Signed by itself instead of the authority.
    SelfSigned,
    /// Signed by another authority of the same name.
    UnknownAuthority,
}

/// A certificate authority with a fresh key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    /// Makes an authority; takes about a millisecond.
    ///
    /// # Panics
    ///
    /// If the system has no randomness to give.
    #[must_use]
    pub fn new() -> Self {
        let mut params = parameters(&[], "testkit authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = new_key();
        let certificate = params.self_signed(&key).expect("the parameters are sound");
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// The authority's certificate: what a client is given as an extra root.
    #[must_use]
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// The same in DER.
    #[must_use]
    pub fn der(&self) -> Vec<u8> {
        self.certificate.der().to_vec()
    }

    /// A certificate for [`LOOPBACK_NAMES`] that a client which trusts this authority accepts.
    #[must_use]
    pub fn server(&self) -> Identity {
        self.server_for(&LOOPBACK_NAMES)
    }

    /// A good server certificate for other names; what parses as an IP address becomes one.
    ///
    /// # Panics
    ///
    /// If a name is not ASCII.
    #[must_use]
    pub fn server_for(&self, names: &[&str]) -> Identity {
        self.sign(server_parameters(names, "localhost"))
    }

    /// A server certificate with one thing wrong.
    #[must_use]
    pub fn flawed_server(&self, flaw: Flaw) -> Identity {
        let good = || server_parameters(&LOOPBACK_NAMES, "localhost");
        match flaw {
            Flaw::Expired => {
                let mut params = good();
                params.not_after = date_time_ymd(2021, 1, 1);
                self.sign(params)
            }
            Flaw::NotYetValid => {
                let mut params = good();
                params.not_before = date_time_ymd(2090, 1, 1);
                self.sign(params)
            }
            Flaw::WrongHost => self.sign(server_parameters(
                &["elsewhere.example"],
                "elsewhere.example",
            )),
            Flaw::NoSubjectAltName => self.sign(server_parameters(&[], "localhost")),
            Flaw::SelfSigned => {
                let key = new_key();
                let certificate = good().self_signed(&key).expect("the parameters are sound");
                Identity::new(&[&certificate], &key)
            }
            Flaw::UnknownAuthority => Self::new().sign(good()),
        }
    }

    /// A client certificate with this common name, for mutual TLS.
    #[must_use]
    pub fn client(&self, common_name: &str) -> Identity {
        let mut params = parameters(&[], common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = new_key();
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("the parameters are sound");
        Identity::new(&[&certificate], &key)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate and its private key.
#[derive(Clone)]
pub struct Identity {
    chain: Vec<Vec<u8>>,
    chain_pem: String,
    key: Vec<u8>,
    key_pem: String,
}

impl Identity {
    fn new(chain: &[&rcgen::Certificate], key: &KeyPair) -> Self {
        Self {
            chain: chain.iter().map(|c| c.der().to_vec()).collect(),
            chain_pem: chain.iter().map(|c| c.pem()).collect(),
            key: key.serialize_der(),
            key_pem: key.serialize_pem(),
        }
    }

    /// The certificate chain, leaf first, in PEM.
    #[must_use]
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The certificate chain, leaf first, in DER.
    #[must_use]
    pub fn chain_der(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The private key as PKCS #8 in PEM.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The private key as PKCS #8 in DER.
    #[must_use]
    pub fn key_der(&self) -> &[u8] {
        &self.key
    }

    /// Writes the PEM forms into a directory that goes when the result is dropped.
    ///
    /// # Errors
    ///
    /// What the file system answers.
    pub fn to_files(&self) -> io::Result<IdentityFiles> {
        let directory = TempDir::with_prefix("testkit-certs-")?;
        let chain = directory.path().join("chain.pem");
        let key = directory.path().join("key.pem");
        std::fs::write(&chain, &self.chain_pem)?;
        std::fs::write(&key, &self.key_pem)?;
        Ok(IdentityFiles {
            chain,
            key,
            _directory: directory,
        })
    }

    /// What a TLS server of this crate presents; `clients` is the authority that client
    /// certificates must come from, if they are asked for.
    pub(crate) fn acceptor(&self, clients: Option<&Authority>) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring serves the default versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots
                    .add(authority.certificate.der().clone())
                    .expect("rcgen's certificate parses");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .expect("there is one root");
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain = self.chain.iter().cloned().map(CertificateDer::from);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        let config = builder
            .with_single_cert(chain.collect(), key)
            .expect("the key belongs to the certificate");
        TlsAcceptor::from(Arc::new(config))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// An [`Identity`] on disk, for programs that read it from there.
#[derive(Debug)]
pub struct IdentityFiles {
    /// The certificate chain in PEM.
    pub chain: PathBuf,
    /// The private key in PEM.
    pub key: PathBuf,
    _directory: TempDir,
}

fn server_parameters(names: &[&str], common_name: &str) -> CertificateParams {
    let mut params = parameters(names, common_name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn parameters(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names are ASCII");
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2099, 1, 1);
    params.use_authority_key_identifier_extension = true;
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("the system gives randomness")
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsConnector;

    use super::*;

    /// What a client that trusts `authority` makes of a server at `localhost`.
    async fn handshake(
        authority: &Authority,
        server: TlsAcceptor,
        client: Option<&Identity>,
    ) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = identity.chain.iter().cloned().map(CertificateDer::from);
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key.clone()));
                builder.with_client_auth_cert(chain.collect(), key).unwrap()
            }
        };
        let connector = TlsConnector::from(Arc::new(config));
        let (near, far) = tokio::io::duplex(64 * 1024);
        let serving = async move {
            // In TLS 1.3 the client learns of a refused certificate with the first byte it reads.
            if let Ok(mut stream) = server.accept(far).await {
                let _ = stream.write_all(b"!").await;
                let _ = stream.shutdown().await;
            }
        };
        let connecting = async move {
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = connector.connect(name, near).await?;
            stream.read_u8().await.map(drop)
        };
        let ((), outcome) = tokio::join!(serving, connecting);
        outcome.map_err(|error: io::Error| error.to_string())
    }

    #[tokio::test]
    async fn a_good_certificate_is_accepted_and_each_flaw_is_refused() {
        let authority = Authority::new();
        let good = authority.server().acceptor(None);
        assert_eq!(handshake(&authority, good, None).await, Ok(()));
        for (flaw, reason) in [
            (Flaw::Expired, "expired"),
            (Flaw::NotYetValid, "not valid yet"),
            (Flaw::WrongHost, "not valid for name"),
            (Flaw::NoSubjectAltName, "not valid for name"),
            (Flaw::SelfSigned, "UnknownIssuer"),
            // The name is known, but not the key.
            (Flaw::UnknownAuthority, "BadSignature"),
        ] {
            let server = authority.flawed_server(flaw).acceptor(None);
            let refusal = handshake(&authority, server, None).await.unwrap_err();
            assert!(refusal.contains(reason), "{flaw:?}: {refusal}");
        }
    }

    #[tokio::test]
    async fn a_client_certificate_is_asked_for_and_checked() {
        let authority = Authority::new();
        let client = authority.client("thing-1");
        let stranger = Authority::new().client("thing-1");
        let server = || authority.server().acceptor(Some(&authority));
        let with = handshake(&authority, server(), Some(&client)).await;
        assert_eq!(with, Ok(()));
        handshake(&authority, server(), None).await.unwrap_err();
        handshake(&authority, server(), Some(&stranger))
            .await
            .unwrap_err();
    }

    #[test]
    fn files_hold_the_pem_forms_and_go_with_their_handle() {
        let identity = Authority::new().server();
        let files = identity.to_files().unwrap();
        let chain = std::fs::read_to_string(&files.chain).unwrap();
        assert_eq!(chain, identity.chain_pem());
        assert!(chain.starts_with("-----BEGIN CERTIFICATE-----"));
        let key = std::fs::read_to_string(&files.key).unwrap();
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));
        let path = files.chain.clone();
        drop(files);
        assert!(!path.exists());
    }

    #[test]
    fn keys_are_not_shown() {
        let authority = Authority::new();
        let identity = authority.server();
        assert_eq!(format!("{identity:?}"), "Identity { .. }");
        assert_eq!(format!("{authority:?}"), "Authority { .. }");
    }
}
