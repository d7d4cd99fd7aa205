//! One stream for whatever a connection came over, and the head of an HTTP request on it.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// The longest head that is read: a presigned URL with a long token takes 3 KiB.
pub(crate) const MAX_HEAD_SIZE: usize = 32 * 1024;

/// Any stream, for connections that are not of TCP.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Other(Box<dyn Duplex>),
}

impl Stream {
    /// Ends the connection with a reset instead of a close, where there is such a thing.
    pub(crate) fn reset(self) {
        let tcp = match &self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
            Self::Other(_) => return,
        };
        // It fails when the connection is gone already.
        let _ = tcp.set_zero_linger();
    }

    fn inner(self: Pin<&mut Self>) -> Pin<&mut dyn Duplex> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream),
            Self::Other(stream) => Pin::new(stream),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Stream::Tcp",
            Self::Tls(_) => "Stream::Tls",
            Self::Other(_) => "Stream::Other",
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner().poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}

/// The head of an HTTP/1.1 request as it came, nothing decoded or normalised. It may hold
/// credentials, so `Debug` shows the names of the headers only.
#[derive(Clone)]
pub struct RequestHead {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

impl RequestHead {
    /// The method, for example `GET`.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Path and query, byte for byte.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The names and values of the headers in order, names as they were written.
    #[must_use]
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The value of the first header of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The values of all headers of this name, in any case.
    pub fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Whether a header that is a list of words has this one, in any case.
    #[must_use]
    pub fn header_lists(&self, name: &str, word: &str) -> bool {
        self.header_values(name)
            .flat_map(|value| value.split(','))
            .any(|listed| listed.trim().eq_ignore_ascii_case(word))
    }

    fn parse(head: &str) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        if words.next()? != "HTTP/1.1" || words.next().is_some() || method.is_empty() {
            return None;
        }
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':')?;
                let sound = !name.is_empty() && !name.contains([' ', '\t']);
                sound.then(|| (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
            })
            .collect::<Option<_>>()?;
        Some(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers,
        })
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("path", &path)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// Reads up to the empty line, and not a byte further.
pub(crate) async fn read_head(stream: &mut Stream) -> io::Result<RequestHead> {
    let mut head = Vec::new();
    // Byte by byte, since what follows belongs to somebody else. A test's upgrade can afford it.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD_SIZE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the head of the request is too long",
            ));
        }
        head.push(stream.read_u8().await?);
    }
    head.truncate(head.len() - 4);
    std::str::from_utf8(&head)
        .ok()
        .and_then(RequestHead::parse)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is no HTTP/1.1 request"))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn read(bytes: &[u8]) -> io::Result<RequestHead> {
        let (mut near, far) = tokio::io::duplex(2 * MAX_HEAD_SIZE);
        near.write_all(bytes).await.unwrap();
        drop(near);
        read_head(&mut Stream::Other(Box::new(far))).await
    }

    #[tokio::test]
    async fn a_head_is_kept_as_it_came() {
        let head = read(
            b"GET /a%2fB?x=%7e&Y HTTP/1.1\r\nHost: A:1\r\nupgrade:\tb , WebSocket\r\n\r\nmore",
        );
        let head = head.await.unwrap();
        assert_eq!(head.method(), "GET");
        assert_eq!(head.target(), "/a%2fB?x=%7e&Y");
        assert_eq!(head.header("host"), Some("A:1"));
        assert!(head.header_lists("Upgrade", "websocket"));
        assert!(!head.header_lists("Upgrade", "web"));
        let shown = format!("{head:?}");
        assert!(!shown.contains("7e") && !shown.contains("A:1"), "{shown}");
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        for bad in [
            "GET / HTTP/1.0\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/1.1 x\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\n folded: x\r\n\r\n",
            "\r\n\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            read(bad.as_bytes()).await.unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_head_is_bounded() {
        let head = |size: usize| {
            let frame = "GET / HTTP/1.1\r\na: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(size - frame))
        };
        read(head(MAX_HEAD_SIZE).as_bytes()).await.unwrap();
        let error = read(head(MAX_HEAD_SIZE + 1).as_bytes()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
