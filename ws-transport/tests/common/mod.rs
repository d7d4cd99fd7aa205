//! Servers to connect to.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod chop;
pub mod frames;

use std::{future::Future, net::SocketAddr, sync::Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, DuplexStream},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_tungstenite::tungstenite::{
    Message,
    handshake::server::{Request, Response},
};
use ws_transport::{BoxedIo, Dial, DialFuture, Endpoint, Io, Target, UpgradeRequest};

pub const SUBPROTOCOL: &str = "test.bytes";

pub fn request() -> UpgradeRequest {
    UpgradeRequest::new().subprotocol(SUBPROTOCOL).unwrap()
}

pub fn endpoint(scheme: &str, address: SocketAddr) -> Endpoint {
    format!("{scheme}://localhost:{}/path", address.port())
        .parse()
        .unwrap()
}

/// Takes one connection after the other on a port of the system's choice.
pub async fn serve<F, Fut>(handle: F) -> (SocketAddr, JoinHandle<()>)
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(handle(stream));
        }
    });
    (address, task)
}

/// Upgrades as a server, choosing the offered subprotocol, and sends every message back.
pub async fn echo<S>(stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    #[allow(clippy::result_large_err, reason = "tungstenite's signature")]
    let choose = |request: &Request, mut response: Response| {
        if let Some(offered) = request.headers().get("sec-websocket-protocol") {
            response
                .headers_mut()
                .insert("sec-websocket-protocol", offered.clone());
        }
        Ok(response)
    };
    // A client that gives up in the middle is a test's business, not the server's.
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, choose).await else {
        return;
    };
    while let Some(Ok(message)) = socket.next().await {
        if matches!(message, Message::Binary(_) | Message::Text(_))
            && socket.send(message).await.is_err()
        {
            return;
        }
    }
}

/// Hands out its stream, once, whatever the target.
pub struct Once<S>(pub Mutex<Option<S>>);

/// One end of an in-memory pipe.
pub type InMemory = Once<DuplexStream>;

impl InMemory {
    /// The dialler and the other end.
    pub fn pair() -> (Self, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        (Self(Mutex::new(Some(ours))), theirs)
    }
}

impl<S: Io + 'static> Dial for Once<S> {
    fn dial<'a>(&'a self, _target: &'a Target) -> DialFuture<'a> {
        Box::pin(async move {
            let io = self.0.lock().unwrap().take();
            let io = io.ok_or_else(|| std::io::Error::other("dialled twice"))?;
            Ok(Box::new(io) as BoxedIo)
        })
    }
}

/// Reads an HTTP head, to its empty line.
pub async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A header's value in a head.
pub fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

#[cfg(feature = "tls")]
pub mod tls {
    use std::sync::Arc;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
        IsCa, KeyPair, KeyUsagePurpose,
    };
    use rustls::{
        RootCertStore, ServerConfig,
        crypto::CryptoProvider,
        pki_types::{CertificateDer, PrivateKeyDer},
        server::WebPkiClientVerifier,
    };
    use tokio_rustls::TlsAcceptor;
    use ws_transport::{BaseRoots, TlsConfig, TlsConfigBuilder};

    pub struct Authority(CertifiedIssuer<'static, KeyPair>);

    pub struct Leaf {
        pub certificate: CertificateDer<'static>,
        pub certificate_pem: String,
        pub key: PrivateKeyDer<'static>,
        pub key_pem: String,
    }

    impl Authority {
        pub fn new(name: &str) -> Self {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let key = KeyPair::generate().unwrap();
            Self(CertifiedIssuer::self_signed(params, key).unwrap())
        }

        pub fn pem(&self) -> String {
            self.0.pem()
        }

        pub fn der(&self) -> CertificateDer<'static> {
            self.0.der().clone()
        }

        /// A server's certificate for the name.
        pub fn server(&self, name: &str) -> Leaf {
            self.leaf(name, |_| {})
        }

        pub fn leaf(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
            let mut params = CertificateParams::new([name.to_owned()]).unwrap();
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            change(&mut params);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.0).unwrap();
            Leaf {
                certificate: certificate.der().clone(),
                certificate_pem: certificate.pem(),
                key_pem: key.serialize_pem(),
                key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            }
        }
    }

    /// The servers' provider; the client's is what is under test.
    pub fn provider() -> Arc<CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    /// The client's defaults; the test's provider where the crate has none compiled in.
    pub fn client() -> TlsConfigBuilder {
        let builder = TlsConfig::builder();
        if cfg!(any(feature = "tls-ring", feature = "tls-aws-lc-rs")) {
            builder
        } else {
            builder.provider_rustls_0_23(provider())
        }
    }

    /// Trusts the authority and nobody else.
    pub fn trusting(authority: &Authority) -> TlsConfigBuilder {
        client()
            .base_roots(BaseRoots::None)
            .add_roots_pem(authority.pem())
    }

    pub fn acceptor(leaf: &Leaf) -> TlsAcceptor {
        acceptor_with(leaf, None)
    }

    /// Asks for a client certificate of the authority where there is one.
    pub fn acceptor_with(leaf: &Leaf, clients: Option<&Authority>) -> TlsAcceptor {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots.into(), provider())
                        .build()
                        .unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(vec![leaf.certificate.clone()], leaf.key.clone_key())
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}
