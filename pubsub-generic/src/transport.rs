//! The byte pipe below MQTT: what the driver needs of a connection, and nothing else.

use std::error::Error as StdError;
use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;

/// An ordered, lossless byte pipe to a broker, made by a [`Connect`](crate::Connect).
///
/// The driver's one task owns the transport and is the only one to poll it, so an implementation needs no lock. It knows
/// nothing of MQTT: chunks may cut or join packets at any byte, in both directions.
///
/// Every method is polled with the context of the same task. None of them may block, and none may wait for a consumer.
/// After an error, or after [`Received::End`], the driver drops the transport and calls nothing more; dropping it must
/// release the socket.
pub trait Transport: Send {
    /// Appends what has arrived to `chunks`, which the driver hands in empty.
    ///
    /// One call should hand over a batch, as much as one read of the socket brought, and must be bounded by the
    /// implementation (in the order of 64 KiB), so that a peer that floods cannot keep the driver from sending.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<Result<Received, TransportError>>;

    /// Waits until [`start_send`](Self::start_send) may be called once.
    ///
    /// Pending while the peer does not read: this is the back-pressure on what the driver writes, so the memory behind
    /// it has to be bounded.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>>;

    /// Takes one chunk to send, after a [`poll_ready`](Self::poll_ready) that was ready. The driver sends one MQTT
    /// packet a chunk; an implementation that frames may make one frame of it, or several.
    fn start_send(&mut self, chunk: Bytes) -> Result<(), TransportError>;

    /// Hands everything taken by [`start_send`](Self::start_send) to the operating system. The driver calls it once at
    /// the end of a turn, not once a packet.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>>;

    /// Flushes and ends the connection in the orderly way of its protocol. The driver bounds the wait.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>>;
}

/// What [`Transport::poll_receive`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received {
    /// At least one chunk was appended. There may be more: it is asked again.
    Chunks,
    /// At least one chunk was appended, and then nothing more had arrived: the task will be woken when it has, as after
    /// [`Pending`](Poll::Pending), and need not ask for that now.
    Drained,
    /// The peer ended the connection in an orderly way; nothing more will come.
    End,
}

/// Why a connection that stood has ended.
///
/// Displays what happened and never what was sent, nor a URL; the cause below it, where there is one, is the
/// [`source`](StdError::source).
#[derive(Debug)]
pub struct TransportError {
    kind: TransportErrorKind,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of end a [`TransportError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// The peer closed or reset the connection.
    Closed,
    /// The operating system reported a failure.
    Io,
    /// The peer broke a rule of the protocol below MQTT, for instance with a text frame.
    Protocol,
    /// The peer sent a message over the configured limit.
    TooLarge,
}

impl TransportError {
    /// An error of this kind, without a cause.
    #[must_use]
    pub fn new(kind: TransportErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// Attaches the cause. It must not display secrets: it is shown wherever this error is.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of end this was.
    #[must_use]
    pub fn kind(&self) -> TransportErrorKind {
        self.kind
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            TransportErrorKind::Closed => "the peer closed the connection",
            TransportErrorKind::Io => "the connection failed",
            TransportErrorKind::Protocol => "the peer broke the transport's protocol",
            TransportErrorKind::TooLarge => "the peer sent a message over the limit",
        })
    }
}

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
