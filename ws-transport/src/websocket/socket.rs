//! tungstenite over a polled stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tungstenite::{
    Error,
    protocol::{Message as Frame, Role, WebSocketConfig, WebSocketContext},
};

use crate::Stream;

/// What tokio-tungstenite's `WebSocketStream` is, for one task: that one has a pair of shared wakers for tasks that read
/// and write apart, and sets them for every frame.
pub(super) struct Socket {
    context: WebSocketContext,
    stream: Stream,
    /// Of the last poll, for writing in [`write`](Self::write), which is not polled.
    waker: Waker,
    /// A write had to wait.
    is_blocked: bool,
    /// The end of reading has been told.
    has_ended: bool,
}

impl Socket {
    /// `read_ahead` is what was read behind the upgrade's answer.
    pub(super) fn new(stream: Stream, read_ahead: Bytes, config: WebSocketConfig) -> Self {
        Self {
            context: WebSocketContext::from_partially_read(
                read_ahead.into(),
                Role::Client,
                Some(config),
            ),
            stream,
            waker: Waker::noop().clone(),
            is_blocked: false,
            has_ended: false,
        }
    }

    /// The next frame, or what became of the connection; `None` once that has been told.
    #[inline]
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "what every poll function takes"
    )]
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Error>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let mut stream = Blocking {
            stream: &mut self.stream,
            waker: cx.waker(),
        };
        match self.context.read(&mut stream) {
            Ok(frame) => Poll::Ready(Some(Ok(frame))),
            Err(error) if would_block(&error) => {
                self.remember(cx);
                Poll::Pending
            }
            Err(error) => {
                self.has_ended = true;
                Poll::Ready(match error {
                    Error::AlreadyClosed | Error::ConnectionClosed => None,
                    error => Some(Err(error)),
                })
            }
        }
    }

    /// Ready unless a write had to wait and still has to.
    #[inline]
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.is_blocked {
            self.poll_flush(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    /// Takes a frame, and writes if enough of them have gathered.
    ///
    /// # Errors
    ///
    /// [`Error::WriteBufferFull`] gives the frame back.
    pub(super) fn write(&mut self, frame: Frame) -> Result<(), Error> {
        let mut stream = Blocking {
            stream: &mut self.stream,
            waker: &self.waker,
        };
        let written = self.context.write(&mut stream, frame);
        self.is_blocked = matches!(&written, Err(error) if would_block(error));
        // It was taken all the same.
        if self.is_blocked { Ok(()) } else { written }
    }

    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "what every poll function takes"
    )]
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.remember(cx);
        let mut stream = Blocking {
            stream: &mut self.stream,
            waker: cx.waker(),
        };
        match self.context.flush(&mut stream) {
            Err(error) if would_block(&error) => Poll::Pending,
            flushed => {
                self.is_blocked = false;
                Poll::Ready(match flushed {
                    Err(Error::ConnectionClosed) => Ok(()),
                    flushed => flushed,
                })
            }
        }
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn remember(&mut self, cx: &Context<'_>) {
        self.waker.clone_from(cx.waker());
    }
}

/// The stream as tungstenite wants it: what is pending would block.
struct Blocking<'a> {
    stream: &'a mut Stream,
    waker: &'a Waker,
}

impl io::Read for Blocking<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut into = ReadBuf::new(into);
        let mut cx = Context::from_waker(self.waker);
        match Pin::new(&mut *self.stream).poll_read(&mut cx, &mut into) {
            Poll::Ready(read) => read.map(|()| into.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl io::Write for Blocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut cx = Context::from_waker(self.waker);
        blocking(Pin::new(&mut *self.stream).poll_write(&mut cx, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut cx = Context::from_waker(self.waker);
        blocking(Pin::new(&mut *self.stream).poll_flush(&mut cx))
    }
}

fn blocking<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}
