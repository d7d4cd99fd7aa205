//! SOCKS5 (RFC 1928), with user name and password (RFC 1929). The proxy resolves names.

use std::{fmt, net::IpAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::Credentials;
use crate::{BoxedIo, ProxyError, Target};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_PASSWORD: u8 = 2;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
const USER_PASSWORD_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

pub(super) async fn connect(
    mut io: BoxedIo,
    target: &Target,
    credentials: Option<&Credentials>,
) -> Result<BoxedIo, ProxyError> {
    let methods: &[u8] = match credentials {
        None => &[VERSION, 1, NO_AUTHENTICATION],
        Some(_) => &[VERSION, 2, NO_AUTHENTICATION, USER_PASSWORD],
    };
    send(&mut io, methods).await?;
    let [version, method] = read(&mut io).await?;
    if version != VERSION {
        return Err(ProxyError::Malformed);
    }
    match (method, credentials) {
        (NO_AUTHENTICATION, _) => {}
        (USER_PASSWORD, Some(credentials)) => authenticate(&mut io, credentials).await?,
        (NO_ACCEPTABLE_METHOD, _) => return Err(ProxyError::Authentication),
        _ => return Err(ProxyError::Malformed),
    }

    send(&mut io, &request(target)?).await?;
    let [version, reply, _reserved, address_type] = read(&mut io).await?;
    if version != VERSION {
        return Err(ProxyError::Malformed);
    }
    if reply != 0 {
        return Err(ProxyError::Socks(SocksReply::from(reply)));
    }
    // Where the proxy is bound does not matter, but has to be read.
    let address_len = match address_type {
        IPV4 => 4,
        IPV6 => 16,
        NAME => {
            let [len] = read(&mut io).await?;
            usize::from(len)
        }
        _ => return Err(ProxyError::Malformed),
    };
    let mut bound = [0; 255 + 2];
    let bound = bound.get_mut(..address_len + 2).unwrap_or_default();
    io.read_exact(bound).await.map_err(ProxyError::Io)?;
    Ok(io)
}

async fn authenticate(io: &mut BoxedIo, credentials: &Credentials) -> Result<(), ProxyError> {
    let mut message = Zeroizing::new(Vec::with_capacity(3 + 255 + 255));
    message.push(USER_PASSWORD_VERSION);
    for part in [&credentials.user, &credentials.password] {
        message.push(u8::try_from(part.len()).map_err(|_| ProxyError::Malformed)?);
        message.extend_from_slice(part.as_bytes());
    }
    send(io, &message).await?;
    let [version, status] = read(io).await?;
    if version != USER_PASSWORD_VERSION {
        return Err(ProxyError::Malformed);
    }
    if status != 0 {
        return Err(ProxyError::Authentication);
    }
    Ok(())
}

fn request(target: &Target) -> Result<Vec<u8>, ProxyError> {
    let mut request = vec![VERSION, CONNECT, 0];
    match target.host().ip() {
        Some(IpAddr::V4(ip)) => {
            request.push(IPV4);
            request.extend_from_slice(&ip.octets());
        }
        Some(IpAddr::V6(ip)) => {
            request.push(IPV6);
            request.extend_from_slice(&ip.octets());
        }
        None => {
            let name = target.host().as_str().as_bytes();
            request.push(NAME);
            request.push(u8::try_from(name.len()).map_err(|_| ProxyError::Malformed)?);
            request.extend_from_slice(name);
        }
    }
    request.extend_from_slice(&target.port().to_be_bytes());
    Ok(request)
}

async fn send(io: &mut BoxedIo, bytes: &[u8]) -> Result<(), ProxyError> {
    io.write_all(bytes).await.map_err(ProxyError::Io)?;
    io.flush().await.map_err(ProxyError::Io)
}

async fn read<const N: usize>(io: &mut BoxedIo) -> Result<[u8; N], ProxyError> {
    let mut bytes = [0; N];
    io.read_exact(&mut bytes).await.map_err(ProxyError::Io)?;
    Ok(bytes)
}

/// Why a SOCKS5 proxy did not connect (RFC 1928 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocksReply {
    /// General failure (1).
    GeneralFailure,
    /// The proxy's rules forbid it (2).
    NotAllowed,
    /// Network unreachable (3).
    NetworkUnreachable,
    /// Host unreachable (4); also what many proxies say when the name does not resolve.
    HostUnreachable,
    /// Connection refused (5).
    ConnectionRefused,
    /// Time to live expired (6).
    TtlExpired,
    /// Command not supported (7).
    CommandNotSupported,
    /// Address type not supported (8).
    AddressTypeNotSupported,
    /// Another code.
    Other(u8),
}

impl SocksReply {
    pub(crate) fn is_retryable(self) -> bool {
        !matches!(
            self,
            Self::NotAllowed | Self::CommandNotSupported | Self::AddressTypeNotSupported
        )
    }
}

impl From<u8> for SocksReply {
    fn from(code: u8) -> Self {
        match code {
            1 => Self::GeneralFailure,
            2 => Self::NotAllowed,
            3 => Self::NetworkUnreachable,
            4 => Self::HostUnreachable,
            5 => Self::ConnectionRefused,
            6 => Self::TtlExpired,
            7 => Self::CommandNotSupported,
            8 => Self::AddressTypeNotSupported,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for SocksReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GeneralFailure => f.write_str("general failure"),
            Self::NotAllowed => f.write_str("not allowed by its rules"),
            Self::NetworkUnreachable => f.write_str("network unreachable"),
            Self::HostUnreachable => f.write_str("host unreachable"),
            Self::ConnectionRefused => f.write_str("connection refused"),
            Self::TtlExpired => f.write_str("time to live expired"),
            Self::CommandNotSupported => f.write_str("command not supported"),
            Self::AddressTypeNotSupported => f.write_str("address type not supported"),
            Self::Other(code) => write!(f, "code {code}"),
        }
    }
}
