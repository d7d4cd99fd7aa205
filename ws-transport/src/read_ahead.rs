//! Reading ahead of tungstenite, while the peer sends more than its small buffer takes.

use std::{
    io,
    mem::MaybeUninit,
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
    max_len: usize,
    brings: Brings,
    /// How many bytes tungstenite was handed in all, modulo 2^32 or 2^64.
    handed: usize,
    /// How the stream ended when it was asked for more, until tungstenite reads so far.
    end: Option<io::Result<()>>,
}

/// What the stream has in store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Brings {
    Bytes,
    /// Records, as of TLS: each is read as a whole and held back by the stream, which copies of it what it is asked for. To
    /// read ahead of that saves no system call, but for many small messages the way there and back; for long ones it
    /// would only copy once more.
    Records {
        /// So many reads in a row have filled what little room there was.
        short: u8,
    },
}

impl<S> ReadAhead<S> {
    /// `ahead` has been read from the stream already.
    pub(crate) fn new(stream: S, ahead: Bytes, max_len: usize, brings: Brings) -> Self {
        Self {
            stream,
            ahead: ahead.into(),
            handed_on: 0,
            next_len: 0,
            max_len: match brings {
                Brings::Bytes => max_len,
                Brings::Records { .. } => max_len.min(RECORD_LEN),
            },
            brings,
            handed: 0,
            end: None,
        }
    }

    /// How many bytes were handed on in all, modulo 2^32 or 2^64.
    #[inline]
    pub(crate) fn handed(&self) -> usize {
        self.handed
    }

    /// Whether tungstenite had better be handed the next piece at once.
    fn is_direct(&self, room: usize) -> bool {
        let for_long = self.brings != Brings::Bytes && room > SHORT_ROOM;
        for_long || self.next_len <= room
    }

    /// tungstenite was handed so much of so much room.
    fn handed_at_once(&mut self, room: usize, taken: usize) {
        let is_filled = taken == room;
        let more = match &mut self.brings {
            Brings::Bytes => is_filled,
            Brings::Records { short } => {
                let is_short = is_filled && room <= SHORT_ROOM;
                *short = if is_short { short.saturating_add(1) } else { 0 };
                *short >= SHORT_READS
            }
        };
        self.adapt(more);
    }

    /// So much was read ahead into so much room.
    fn read_ahead(&mut self, room: usize, taken: usize) {
        let more = match &mut self.brings {
            Brings::Bytes => taken == room,
            Brings::Records { short } => {
                let is_worth_it = taken > SHORT_ROOM;
                if !is_worth_it {
                    *short = 0;
                }
                is_worth_it
            }
        };
        self.adapt(more);
    }

    /// There is more to come, or not.
    fn adapt(&mut self, more: bool) {
        self.next_len = match self.next_len {
            _ if !more => 0,
            0 => FIRST_LEN.min(self.max_len),
            len => len.saturating_mul(GROWTH).min(self.max_len),
        };
    }

    /// Nothing more has arrived.
    fn rest(&mut self) {
        self.next_len = 0;
        self.ahead = Vec::new();
        self.handed_on = 0;
        if let Brings::Records { short } = &mut self.brings {
            *short = 0;
        }
    }
}

impl<S: AsyncRead + Unpin> ReadAhead<S> {
    /// Ready when there may be something to read; otherwise this one is woken once there is. For those who know that
    /// all that was handed on is used up: tungstenite would clear its buffer to find that out, and look for a frame twice.
    pub(crate) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // After a read that was filled there mostly is.
        if self.handed_on < self.ahead.len() || self.next_len > 0 || self.end.is_some() {
            return Poll::Ready(());
        }
        let mut piece = [const { MaybeUninit::uninit() }; MORE_LEN];
        let mut piece = ReadBuf::uninit(&mut piece);
        match Pin::new(&mut self.stream).poll_read(cx, &mut piece) {
            Poll::Pending => {
                self.rest();
                return Poll::Pending;
            }
            Poll::Ready(Ok(())) if !piece.filled().is_empty() => {
                self.ahead = piece.filled().to_vec();
                self.handed_on = 0;
                self.read_ahead(MORE_LEN, self.ahead.len());
            }
            Poll::Ready(end) => self.end = Some(end),
        }
        Poll::Ready(())
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
            if let Some(end) = this.end.take() {
                return Poll::Ready(end);
            }
            if this.is_direct(room) {
                let len = match this.brings {
                    Brings::Bytes => room,
                    Brings::Records { .. } => piece_len(room),
                };
                let read = read_piece(Pin::new(&mut this.stream), cx, buf, len);
                match read {
                    Poll::Ready(_) => {
                        let taken = room - buf.remaining();
                        this.handed = this.handed.wrapping_add(taken);
                        this.handed_at_once(len, taken);
                    }
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
            let taken = ready!(read)?;
            this.read_ahead(len, taken);
        }
        let ahead = this.ahead.get(this.handed_on..).unwrap_or_default();
        let (piece, _) = ahead.split_at(piece_len(room).min(ahead.len()));
        buf.put_slice(piece);
        this.handed_on += piece.len();
        this.handed = this.handed.wrapping_add(piece.len());
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

/// Reads no more than this.
fn read_piece<S: AsyncRead>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    len: usize,
) -> Poll<io::Result<()>> {
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

/// What is read where nothing more is expected.
const MORE_LEN: usize = 2 * 1024;

/// The first read into `ahead`: what a burst of some hundred small messages takes.
const FIRST_LEN: usize = 16 * 1024;

/// What of its room tungstenite keeps when it is handed what was read ahead: it makes room for a whole message behind all
/// that it has, be the message among that or not, and would move it all to a larger buffer for a small one.
const SLACK: usize = 128;

/// What TLS holds back at most, mostly: one record (RFC 8446, section 5.1).
const RECORD_LEN: usize = 16 * 1024;

/// More room than this is there for a long message.
const SHORT_ROOM: usize = 4 * 1024;

/// So many reads in a row of no more than [`SHORT_ROOM`] are not the beginnings and ends of long messages.
const SHORT_READS: u8 = 4;

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
        let source = Source { left, asked };
        ReadAhead::new(source, Bytes::from_static(ahead), max_len, Brings::Bytes)
    }

    fn of_records(left: usize, ahead: &'static [u8]) -> ReadAhead<Source> {
        let asked = Vec::new();
        let (source, ahead) = (Source { left, asked }, Bytes::from_static(ahead));
        ReadAhead::new(source, ahead, 1024 * 1024, Brings::Records { short: 0 })
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
    fn of_records_only_many_short_reads_in_a_row_are_read_ahead() {
        const K: usize = 1024;
        let mut reader = of_records(40 * K, b"ahead");
        assert_eq!(drain(&mut reader, 2 * K), 5 + 40 * K);
        let piece = 2 * K - SLACK;
        let asked = [piece, piece, piece, piece, 16 * K, 16 * K, 16 * K, piece];
        assert_eq!(reader.stream.asked, asked, "a record at the most");
        assert_eq!(reader.ahead.capacity(), 0, "held while idle");

        // Between the parts of long messages nothing is, however much there is.
        reader.stream.left = 1024 * K;
        reader.stream.asked.clear();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..8 {
            for room in [2 * K, 15 * K, SLACK] {
                let mut space = vec![0; room];
                let mut buf = ReadBuf::new(&mut space);
                let read = Pin::new(&mut reader).poll_read(&mut cx, &mut buf);
                assert!(read.is_ready());
                assert_eq!(buf.filled().len(), piece_len(room));
            }
        }
        assert_eq!(reader.ahead.capacity(), 0);
    }

    #[test]
    fn nothing_is_read_ahead_where_it_would_not_be_longer() {
        let mut reader = reader(1000, b"", 100);
        assert_eq!(drain(&mut reader, 100), 1000);
        assert_eq!(reader.stream.asked, [100; 11]);
    }
}
