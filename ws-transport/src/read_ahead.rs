//! Reading ahead of tungstenite, while the peer sends more than its small buffer takes.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// A stream that is read in longer and longer pieces for as long as it has more than was asked for.
///
/// tungstenite clears all the room it has before each read, and a message keeps alive the buffer that it lies in: so
/// that buffer is better small. But by itself each system call would bring little, and cost much: the kernel answers
/// the peer, and often does the peer's sending, in every one of them. So what follows a read that filled its room is
/// read into here, and handed on from here. What there is room for grows with each such read, up to `max_len`; it is
/// given back when nothing more has arrived, so that an idle connection holds nothing here.
pub(crate) struct ReadAhead<S> {
    stream: S,
    /// Read. A place in it is moved on for less than its beginning is.
    ahead: Vec<u8>,
    /// How much of that has been handed on; at most all of it.
    handed_on: usize,
    /// How much to read next into `ahead`; 0 while what tungstenite has room for is enough.
    next_len: usize,
    /// 0 where nothing is read ahead.
    max_len: usize,
}

impl<S> ReadAhead<S> {
    /// `ahead` has been read from the stream already. With a `max_len` of 0 nothing more is read ahead: for a stream that
    /// does so itself, such as TLS, which takes its records whole and copies of them what it is asked for.
    pub(crate) fn new(stream: S, ahead: Bytes, max_len: usize) -> Self {
        Self {
            stream,
            ahead: ahead.into(),
            handed_on: 0,
            next_len: 0,
            max_len,
        }
    }

    /// A read has filled all its room, or not.
    fn adapt(&mut self, filled: bool) {
        self.next_len = match self.next_len {
            _ if !filled => 0,
            0 => FIRST_LEN.min(self.max_len),
            len => len.saturating_mul(GROWTH).min(self.max_len),
        };
    }

    /// Nothing more has arrived.
    fn rest(&mut self) {
        self.next_len = 0;
        self.ahead = Vec::new();
        self.handed_on = 0;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let room = buf.remaining();
        if this.handed_on == this.ahead.len() {
            if this.max_len == 0 {
                this.rest();
                return read_piece(Pin::new(&mut this.stream), cx, buf);
            }
            if this.next_len <= room {
                let read = Pin::new(&mut this.stream).poll_read(cx, buf);
                match read {
                    Poll::Ready(_) => this.adapt(buf.remaining() == 0),
                    Poll::Pending => this.rest(),
                }
                return read;
            }
            // The room of what was handed on is used again where it is enough.
            this.ahead.clear();
            this.handed_on = 0;
            if this.ahead.capacity() < this.next_len {
                this.ahead = Vec::with_capacity(this.next_len);
            }
            let len = this.ahead.capacity();
            let read = pin!(this.stream.read_buf(&mut this.ahead)).poll(cx);
            if read.is_pending() {
                this.rest();
            }
            this.adapt(ready!(read)? == len);
        }
        let ahead = this.ahead.get(this.handed_on..).unwrap_or_default();
        let (piece, _) = ahead.split_at(piece_len(room).min(ahead.len()));
        buf.put_slice(piece);
        this.handed_on += piece.len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Reads what tungstenite is best handed at once.
fn read_piece<S: AsyncRead>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let len = piece_len(buf.remaining());
    // tungstenite has cleared it before.
    let mut piece = ReadBuf::new(buf.initialize_unfilled_to(len));
    ready!(stream.poll_read(cx, &mut piece))?;
    let len = piece.filled().len();
    buf.advance(len);
    Poll::Ready(Ok(()))
}

/// How much of its room tungstenite is handed.
fn piece_len(room: usize) -> usize {
    match room.checked_sub(SLACK) {
        Some(rest) if rest > SLACK => rest,
        _ => room,
    }
}

/// The first read into `ahead`: what a burst of some hundred small messages takes.
const FIRST_LEN: usize = 16 * 1024;

/// What of its room tungstenite keeps when it is handed what was read ahead: it makes room for a whole message behind all
/// that it has, be the message among that or not, and would move it all to a larger buffer for a small one.
const SLACK: usize = 128;

/// How much longer the next one may be.
const GROWTH: usize = 4;

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Has so many bytes, and then nothing more for now.
    struct Source {
        left: usize,
        asked: Vec<usize>,
    }

    impl AsyncRead for Source {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.asked.push(buf.remaining());
            if self.left == 0 {
                return Poll::Pending;
            }
            let len = self.left.min(buf.remaining());
            buf.put_slice(&vec![7; len]);
            self.left -= len;
            Poll::Ready(Ok(()))
        }
    }

    fn drain(reader: &mut ReadAhead<Source>, room: usize) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        let mut all = 0;
        loop {
            let mut space = vec![0; room];
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut *reader).poll_read(&mut cx, &mut buf) {
                Poll::Ready(read) => {
                    read.unwrap();
                    all += buf.filled().len();
                }
                Poll::Pending => return all,
            }
        }
    }

    fn reader(left: usize, ahead: &'static [u8], max_len: usize) -> ReadAhead<Source> {
        let asked = Vec::new();
        ReadAhead::new(Source { left, asked }, Bytes::from_static(ahead), max_len)
    }

    #[test]
    fn reads_grow_while_they_are_filled_and_begin_anew_after_a_rest() {
        const K: usize = 1024;
        let mut reader = reader(1024 * K, b"", 256 * K);
        assert_eq!(drain(&mut reader, 2 * K), 1024 * K);
        let asked = [2, 16, 64, 256, 256, 256, 256, 2].map(|len| len * K);
        assert_eq!(reader.stream.asked, asked);
        assert_eq!(reader.ahead.capacity(), 0, "held while idle");

        reader.stream.left = 3 * K;
        reader.stream.asked.clear();
        assert_eq!(drain(&mut reader, 2 * K), 3 * K);
        assert_eq!(reader.stream.asked, [2, 16, 2].map(|len| len * K));
    }

    #[test]
    fn what_was_read_before_comes_first() {
        let mut reader = reader(3, b"ahead", 1024);
        assert_eq!(drain(&mut reader, 4), 8);
        assert_eq!(reader.stream.asked, [4, 4]);
    }

    #[test]
    fn what_was_read_ahead_leaves_room_for_a_small_message_where_there_is_much() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut reader = reader(0, &[7; 4096], 1024);
        let mut left = 4096;
        for (room, len) in [(2048, 2048 - SLACK), (2 * SLACK, 2 * SLACK), (1, 1)] {
            let mut space = vec![0; room];
            let mut buf = ReadBuf::new(&mut space);
            assert!(
                Pin::new(&mut reader)
                    .poll_read(&mut cx, &mut buf)
                    .is_ready()
            );
            assert_eq!(buf.filled().len(), len);
            left -= len;
            assert_eq!(reader.ahead.len() - reader.handed_on, left);
        }
    }

    #[test]
    fn of_a_stream_that_reads_ahead_itself_it_asks_no_more_than_it_hands_on() {
        let mut reader = reader(4096, b"ahead", 0);
        assert_eq!(drain(&mut reader, 2048), 5 + 4096);
        let piece = 2048 - SLACK;
        assert_eq!(reader.stream.asked, [piece; 4]);
        assert_eq!(reader.ahead.capacity(), 0, "held for nothing");
        assert_eq!(drain(&mut reader, SLACK), 0);
        assert_eq!(reader.stream.asked[4..], [SLACK]);
    }

    #[test]
    fn nothing_is_read_ahead_where_it_would_not_be_longer() {
        let mut reader = reader(1000, b"", 100);
        assert_eq!(drain(&mut reader, 100), 1000);
        assert_eq!(reader.stream.asked, [100; 11]);
    }
}
