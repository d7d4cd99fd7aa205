//! TLS over a dialled stream, by rustls.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName,
        pem::{self, PemObject as _},
    },
};

use crate::{Stream, Target, TlsConfigError, TlsError, read_ahead::ReadAhead};

/// How TLS connections are made: whom to trust, who we are, and with which cryptographic provider.
///
/// Cheap to clone. Clones share the session cache: keep one configuration (or one
/// [`Connector`](crate::Connector)) across reconnects, so that sessions resume. Connectors that are given none share
/// one, made of the defaults, for as long as the process lives.
///
/// The provider is the one named in the builder, else the process's default where one is installed, else the
/// compiled-in one (ring before aws-lc-rs where both are), else [`TlsConfigError::NoProvider`]. Building a
/// configuration never panics and never changes the process's default.
///
/// ```
/// # #[cfg(all(feature = "tls-ring", feature = "webpki-roots"))] {
/// use ws_transport::TlsConfig;
///
/// # fn load() -> Result<TlsConfig, ws_transport::TlsConfigError> {
/// # let company_ca = b"";
/// let tls = TlsConfig::builder()
///     .add_roots_pem(company_ca) // beside the usual ones
///     .build()?;
/// # Ok(tls) }
/// # assert!(load().is_err());
/// # }
/// ```
#[derive(Clone)]
pub struct TlsConfig {
    client: Arc<ClientConfig>,
}

impl TlsConfig {
    /// Starts from the defaults: compiled-in roots, no client certificate, ALPN `http/1.1`, TLS 1.2 and 1.3.
    pub fn builder() -> TlsConfigBuilder {
        TlsConfigBuilder::default()
    }

    /// A configuration made with rustls 0.23 itself, taken as it is: custom verifiers, key logging, FIPS.
    ///
    /// For a server that offers HTTP/2 as well, its `alpn_protocols` should be `http/1.1`.
    #[must_use]
    pub fn from_rustls_0_23(config: Arc<ClientConfig>) -> Self {
        Self { client: config }
    }

    /// At most `max_read_len` is read at once, but what TLS itself asks for.
    pub(crate) async fn handshake(
        &self,
        target: &Target,
        io: Stream,
        max_read_len: usize,
    ) -> Result<Stream, TlsError> {
        let name = server_name(target)?;
        let io = ReadAhead::below_tls(io, max_read_len);
        tokio_rustls::TlsConnector::from(Arc::clone(&self.client))
            .connect(name, io)
            .await
            .map(Stream::tls)
            .map_err(classify)
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConfig")
    }
}

/// The TLS configuration that was given, or the default one, which is not made before it is needed.
#[derive(Clone, Default)]
pub(crate) struct LazyTls(Option<TlsConfig>);

impl LazyTls {
    pub(crate) fn get(&self) -> Result<TlsConfig, TlsConfigError> {
        match &self.0 {
            Some(config) => Ok(config.clone()),
            None => shared_default(),
        }
    }
}

/// The default configuration, of which one is enough for the whole process: it knows nobody's secrets but the sessions', and
/// those of one connector resume in another.
fn shared_default() -> Result<TlsConfig, TlsConfigError> {
    static SHARED: Mutex<Option<TlsConfig>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let is_current = |config: &TlsConfig| {
        let installed = CryptoProvider::get_default();
        installed.is_none_or(|installed| Arc::ptr_eq(installed, config.client.crypto_provider()))
    };
    if let Some(config) = shared.as_ref().filter(|config| is_current(config)) {
        return Ok(config.clone());
    }
    // A failure is not kept: the application may install a provider before the next attempt.
    let config = TlsConfig::builder().build()?;
    Ok(shared.insert(config).clone())
}

impl From<TlsConfig> for LazyTls {
    fn from(config: TlsConfig) -> Self {
        Self(Some(config))
    }
}

/// Makes a [`TlsConfig`].
///
/// What is given is read by [`build`](Self::build), which reports what is wrong with it.
#[must_use]
pub struct TlsConfigBuilder {
    provider: Option<Arc<CryptoProvider>>,
    base_roots: BaseRoots,
    extra_roots: Vec<Vec<u8>>,
    extra_roots_pem: Vec<Vec<u8>>,
    client: Option<ClientIdentity>,
    alpn: Vec<Vec<u8>>,
}

/// Which roots are trusted beside those that are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BaseRoots {
    /// Mozilla's roots as compiled in by feature `webpki-roots`; none where that feature is off.
    #[default]
    WebPki,
    /// The certificates in the system's store, read when the configuration is built.
    #[cfg(feature = "native-roots")]
    Native,
    /// Whatever the operating system's own verifier trusts, with revocation where it checks that. On Linux and
    /// other systems without a verifier, the system's store as with [`Native`](Self::Native).
    #[cfg(feature = "platform-verifier")]
    Platform,
    /// None: only roots that are added count.
    None,
}

struct ClientIdentity {
    chain_pem: Vec<u8>,
    key_pem: zeroize::Zeroizing<Vec<u8>>,
}

impl Default for TlsConfigBuilder {
    fn default() -> Self {
        Self {
            provider: None,
            base_roots: BaseRoots::default(),
            extra_roots: Vec::new(),
            extra_roots_pem: Vec::new(),
            client: None,
            alpn: vec![b"http/1.1".to_vec()],
        }
    }
}

impl TlsConfigBuilder {
    /// Which roots are trusted beside those that are added. Default [`BaseRoots::WebPki`].
    pub fn base_roots(mut self, roots: BaseRoots) -> Self {
        self.base_roots = roots;
        self
    }

    /// Trusts all certificates of a PEM file too, such as a company's or a private broker's root.
    pub fn add_roots_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.extra_roots_pem.push(pem.into());
        self
    }

    /// Trusts one DER certificate too.
    pub fn add_root_der(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.extra_roots.push(der.into());
        self
    }

    /// Presents a client certificate: the chain, the client's own certificate first, and its private key
    /// (PKCS #8, PKCS #1 or SEC 1), both in PEM. The key is wiped from this builder when it is dropped.
    pub fn client_certificate_pem(
        mut self,
        chain: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.client = Some(ClientIdentity {
            chain_pem: chain.into(),
            key_pem: zeroize::Zeroizing::new(key.into()),
        });
        self
    }

    /// The application protocols to offer, in order; none at all where empty. Default `http/1.1`, so that a
    /// front that only speaks HTTP/2 fails at once.
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Uses ring, whatever else is installed or compiled in.
    #[cfg(feature = "tls-ring")]
    pub fn use_ring(mut self) -> Self {
        self.provider = Some(Arc::new(rustls::crypto::ring::default_provider()));
        self
    }

    /// Uses aws-lc-rs, whatever else is installed or compiled in.
    #[cfg(feature = "tls-aws-lc-rs")]
    pub fn use_aws_lc_rs(mut self) -> Self {
        self.provider = Some(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        self
    }

    /// Uses a provider of rustls 0.23, whatever else is installed or compiled in.
    pub fn provider_rustls_0_23(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Makes the configuration.
    ///
    /// # Errors
    ///
    /// When there is no provider or no root, or when what was given is not readable. On Android, when roots are
    /// added to `BaseRoots::Platform`.
    pub fn build(self) -> Result<TlsConfig, TlsConfigError> {
        let provider = self
            .provider
            .clone()
            .or_else(|| CryptoProvider::get_default().map(Arc::clone))
            .or_else(compiled_in_provider)
            .ok_or(TlsConfigError::NoProvider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(rejected)?;
        let builder = match self.base_roots {
            #[cfg(feature = "platform-verifier")]
            BaseRoots::Platform => {
                let verifier = self.platform_verifier(Arc::clone(builder.crypto_provider()))?;
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(verifier)
            }
            _ => builder.with_root_certificates(self.root_store()?),
        };
        let mut client = match &self.client {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.parse()?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(rejected)?
            }
        };
        client.alpn_protocols = self.alpn;
        Ok(TlsConfig {
            client: Arc::new(client),
        })
    }

    fn root_store(&self) -> Result<RootCertStore, TlsConfigError> {
        let mut roots = RootCertStore::empty();
        match self.base_roots {
            #[cfg(feature = "webpki-roots")]
            BaseRoots::WebPki => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            #[cfg(feature = "native-roots")]
            BaseRoots::Native => {
                // Stores commonly have a few certificates that cannot be used; none at all is an error below.
                let found = rustls_native_certs::load_native_certs().certs;
                let _counts = roots.add_parsable_certificates(found);
            }
            _ => {}
        }
        for certificate in self.added_roots()? {
            roots.add(certificate).map_err(|_| TlsConfigError::Root)?;
        }
        if roots.is_empty() {
            return Err(TlsConfigError::NoRoots);
        }
        Ok(roots)
    }

    fn added_roots(&self) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
        let mut added: Vec<_> = self
            .extra_roots
            .iter()
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        for pem in &self.extra_roots_pem {
            let certificates = certificates(pem).map_err(|_| TlsConfigError::Root)?;
            if certificates.is_empty() {
                return Err(TlsConfigError::Root);
            }
            added.extend(certificates);
        }
        Ok(added)
    }

    #[cfg(feature = "platform-verifier")]
    fn platform_verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<rustls_platform_verifier::Verifier>, TlsConfigError> {
        use rustls_platform_verifier::Verifier;
        let added = self.added_roots()?;
        #[cfg(not(target_os = "android"))]
        let verifier = Verifier::new_with_extra_roots(added, provider);
        // Android's takes no further roots: an error beats leaving them out.
        #[cfg(target_os = "android")]
        let verifier = match added.is_empty() {
            true => Verifier::new(provider),
            false => return Err(TlsConfigError::Root),
        };
        verifier.map(Arc::new).map_err(rejected)
    }
}

impl fmt::Debug for TlsConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfigBuilder")
            .field("base_roots", &self.base_roots)
            .field(
                "added_roots",
                &(self.extra_roots.len() + self.extra_roots_pem.len()),
            )
            .field("client_certificate", &self.client.is_some())
            .finish_non_exhaustive()
    }
}

impl ClientIdentity {
    fn parse(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsConfigError> {
        let chain = certificates(&self.chain_pem).map_err(|_| TlsConfigError::ClientCertificate)?;
        if chain.is_empty() {
            return Err(TlsConfigError::ClientCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key_pem)
            .map_err(|_| TlsConfigError::ClientCertificate)?;
        Ok((chain, key))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(pem).collect()
}

fn compiled_in_provider() -> Option<Arc<CryptoProvider>> {
    #[cfg(feature = "tls-ring")]
    return Some(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(all(feature = "tls-aws-lc-rs", not(feature = "tls-ring")))]
    return Some(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
    return None;
}

fn rejected(error: rustls::Error) -> TlsConfigError {
    TlsConfigError::Rejected(Box::new(error))
}

fn server_name(target: &Target) -> Result<ServerName<'static>, TlsError> {
    if let Some(ip) = target.host().ip() {
        return Ok(ServerName::from(ip));
    }
    // A trailing dot is for the resolver; certificates and SNI have none.
    let name = target.host().as_str();
    let name = name.strip_suffix('.').unwrap_or(name).to_owned();
    ServerName::try_from(name).map_err(|_| TlsError::ServerName)
}

/// A TLS error that surfaced while reading or writing after the handshake: with TLS 1.3 a server judges the
/// client's certificate only then.
pub(crate) fn late_failure(error: io::Error) -> Result<TlsError, io::Error> {
    match rustls_error(&error) {
        Some(_) => Ok(classify(error)),
        None => Err(error),
    }
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn classify(error: io::Error) -> TlsError {
    use rustls::Error as E;
    match rustls_error(&error) {
        Some(E::InvalidCertificate(reason)) => match reason {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                TlsError::CertificateExpired(error)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                TlsError::CertificateNotYetValid(error)
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsError::WrongHost(error)
            }
            CertificateError::UnknownIssuer => TlsError::UnknownIssuer(error),
            _ => TlsError::Certificate(error),
        },
        Some(E::NoCertificatesPresented) => TlsError::Certificate(error),
        Some(E::AlertReceived(alert)) => match alert {
            AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied => TlsError::ClientCertificate(error),
            AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity
            | AlertDescription::UnrecognisedName
            | AlertDescription::NoApplicationProtocol => TlsError::Incompatible(error),
            _ => TlsError::Handshake(error),
        },
        Some(E::PeerIncompatible(_) | E::NoApplicationProtocol) => TlsError::Incompatible(error),
        _ => TlsError::Handshake(error),
    }
}

#[cfg(test)]
#[cfg(all(
    feature = "webpki-roots",
    any(feature = "tls-ring", feature = "tls-aws-lc-rs")
))]
mod tests {
    use super::*;

    #[test]
    fn who_gives_no_configuration_shares_one_and_its_sessions() {
        let (one, other) = (LazyTls::default(), LazyTls::default());
        let (one, other) = (one.get().unwrap(), other.get().unwrap());
        assert!(Arc::ptr_eq(&one.client, &other.client));
        let own = LazyTls::from(TlsConfig::builder().build().unwrap());
        assert!(!Arc::ptr_eq(&one.client, &own.get().unwrap().client));
    }
}
