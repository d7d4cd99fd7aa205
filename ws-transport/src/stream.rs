//! The byte streams below the WebSocket.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

#[cfg(feature = "tls")]
use crate::read_ahead::ReadAhead;

/// A two-way byte stream, as [`Dial`](crate::Dial) returns it. Implemented for everything that fits.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A boxed [`Io`].
pub type BoxedIo = Box<dyn Io>;

/// A connection to the target with TLS on top where the target asks for it: what
/// [`Connector::connect_stream`](crate::Connector::connect_stream) returns.
///
/// Reads and writes go through tokio's traits. Dropping it closes the connection without a word; to end TLS
/// properly, shut the write half down first.
pub struct Stream {
    inner: Inner,
}

enum Inner {
    Tcp(TcpStream),
    Other(BoxedIo),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<ReadAhead<Stream>>>),
}

impl Stream {
    pub(crate) fn tcp(io: TcpStream) -> Self {
        Self {
            inner: Inner::Tcp(io),
        }
    }

    pub(crate) fn plain(io: BoxedIo) -> Self {
        Self {
            inner: Inner::Other(io),
        }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn tls(io: tokio_rustls::client::TlsStream<ReadAhead<Self>>) -> Self {
        Self {
            inner: Inner::Tls(Box::new(io)),
        }
    }

    /// Whether it decrypts records, each read as a whole.
    pub(crate) fn is_tls(&self) -> bool {
        match &self.inner {
            Inner::Tcp(_) | Inner::Other(_) => false,
            #[cfg(feature = "tls")]
            Inner::Tls(_) => true,
        }
    }

    fn pinned(&mut self) -> Pin<&mut dyn Io> {
        match &mut self.inner {
            Inner::Tcp(io) => Pin::new(io),
            Inner::Other(io) => Pin::new(&mut **io),
            #[cfg(feature = "tls")]
            Inner::Tls(io) => Pin::new(&mut **io),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.inner {
            Inner::Tcp(_) | Inner::Other(_) => "Stream(plain)",
            #[cfg(feature = "tls")]
            Inner::Tls(_) => "Stream(tls)",
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.pinned().poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pinned().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pinned().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pinned().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pinned().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Tcp(io) => io.is_write_vectored(),
            Inner::Other(io) => io.is_write_vectored(),
            #[cfg(feature = "tls")]
            Inner::Tls(io) => io.is_write_vectored(),
        }
    }
}
