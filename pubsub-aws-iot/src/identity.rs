//! A connection that ends with the identity it was made for.

use std::error::Error as StdError;
use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;
use pubsub_core::BoxFuture;
use pubsub_generic::{Received, Transport, TransportError, TransportErrorKind, WsTransport};

/// A WebSocket, closed when somebody else's credentials take the place of those that opened it.
pub(crate) struct OfOneIdentity {
    inner: WsTransport,
    changed: BoxFuture<'static, ()>,
}

impl OfOneIdentity {
    pub(crate) fn new(inner: WsTransport, changed: BoxFuture<'static, ()>) -> Self {
        Self { inner, changed }
    }
}

impl Transport for OfOneIdentity {
    /// The driver always waits here, and drops the transport after an error: so this is where the change is noticed.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<Result<Received, TransportError>> {
        if self.changed.as_mut().poll(cx).is_ready() {
            let error = TransportError::new(TransportErrorKind::Closed);
            return Poll::Ready(Err(error.with_source(IdentityChanged)));
        }
        self.inner.poll_receive(cx, chunks)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_ready(cx)
    }

    fn start_send(&mut self, chunk: Bytes) -> Result<(), TransportError> {
        self.inner.start_send(chunk)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_close(cx)
    }
}

/// The connection was dropped here: the credentials are now those of another identity, or of none.
///
/// It is in the chain of sources of the reason that the connection state gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdentityChanged;

impl fmt::Display for IdentityChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the identity that the connection was made for has changed")
    }
}

impl StdError for IdentityChanged {}
