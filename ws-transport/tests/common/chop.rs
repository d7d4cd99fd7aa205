//! A stream that gives and takes as it pleases.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Follows a pattern, over and over: at each call it moves at most so many bytes, or for 0 none at all for now.
pub struct Chopped<S> {
    io: S,
    reads: Pattern,
    writes: Pattern,
}

struct Pattern {
    steps: Vec<usize>,
    at: usize,
}

impl Pattern {
    /// A step that moves something is put in where there is none.
    fn new(mut steps: Vec<usize>) -> Self {
        if steps.iter().all(|&step| step == 0) {
            steps.push(1);
        }
        Self { steps, at: 0 }
    }

    fn next(&mut self, cx: &Context<'_>) -> Poll<usize> {
        let step = self.steps[self.at % self.steps.len()];
        self.at += 1;
        if step == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(step)
    }
}

impl<S> Chopped<S> {
    pub fn new(io: S, reads: Vec<usize>, writes: Vec<usize>) -> Self {
        Self {
            io,
            reads: Pattern::new(reads),
            writes: Pattern::new(writes),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Chopped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Poll::Ready(most) = self.reads.next(cx) else {
            return Poll::Pending;
        };
        let mut part = vec![0; most.min(buf.remaining())];
        let mut part = ReadBuf::new(&mut part);
        let poll = Pin::new(&mut self.io).poll_read(cx, &mut part);
        buf.put_slice(part.filled());
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Chopped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(most) = self.writes.next(cx) else {
            return Poll::Pending;
        };
        let most = most.min(buf.len());
        Pin::new(&mut self.io).poll_write(cx, &buf[..most])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
