//! Reading ahead of tungstenite, and of TLS, while the peer sends more than their buffers take.

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
/// given back when nothing more has arrived, so that an idle connection holds nothing here. What it was good for is
/// remembered: where much came in one go, the next is read at once into as much room as that takes.
///
/// rustls asks for what one record takes: below it this saves the same system calls.
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
    reader: Reader,
    /// How much has come since nothing more had arrived; saturating.
    burst: usize,
    /// How much to read at least, where the last burst was a long one; otherwise 0.
    least_len: usize,
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

/// Who is handed what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Tungstenite,
    #[cfg(feature = "tls")]
    Tls,
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
            reader: Reader::Tungstenite,
            burst: 0,
            least_len: 0,
            handed: 0,
            end: None,
        }
    }

    /// For TLS to read from. A few records at a time are enough: more only drive each other out of the cache, while
    /// what TLS does to them takes longer than the system calls.
    #[cfg(feature = "tls")]
    pub(crate) fn below_tls(stream: S, max_len: usize) -> Self {
        let max_len = max_len.min(FEW_RECORDS_LEN);
        Self {
            reader: Reader::Tls,
            ..Self::new(stream, Bytes::new(), max_len, Brings::Bytes)
        }
    }

    /// How many bytes were handed on in all, modulo 2^32 or 2^64.
    #[inline]
    pub(crate) fn handed(&self) -> usize {
        self.handed
    }

    /// Whether all has been handed on that there ever will be.
    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Whether the next piece had better be handed on at once.
    fn is_direct(&self, room: usize) -> bool {
        match self.brings {
            // As long as there is more room here, that is used: the end of a message, asked for by itself, would take a
            // system call.
            Brings::Bytes => self.next_len.max(self.ahead_len()) <= room,
            Brings::Records { .. } => room > SHORT_ROOM || self.next_len <= room,
        }
    }

    /// How much room there is here for a read, or had better be. What is left of a lone message is none.
    fn ahead_len(&self) -> usize {
        match self.ahead.capacity() {
            room @ FIRST_LEN.. => room.max(self.least_len),
            _ => self.least_len,
        }
    }

    /// tungstenite was handed so much of so much room.
    fn handed_at_once(&mut self, room: usize, taken: usize) {
        let is_filled = taken == room;
        self.burst = self.burst.saturating_add(taken);
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
        self.burst = self.burst.saturating_add(taken);
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
            0 => self.first_len().min(self.max_len),
            len => len.saturating_mul(GROWTH).min(self.max_len),
        };
    }

    /// The first read into `ahead`.
    fn first_len(&self) -> usize {
        match self.reader {
            Reader::Tungstenite => FIRST_LEN,
            #[cfg(feature = "tls")]
            Reader::Tls => FIRST_RECORD_LEN,
        }
    }

    /// Nothing more has arrived.
    fn rest(&mut self) {
        self.next_len = 0;
        self.ahead = Vec::new();
        self.handed_on = 0;
        let is_long = self.burst >= LONG_BURST;
        self.burst = 0;
        match (&mut self.brings, self.reader) {
            (Brings::Records { short }, _) => *short = 0,
            (Brings::Bytes, Reader::Tungstenite) if is_long => {
                self.least_len = LONG_LEN.min(self.max_len);
            }
            (Brings::Bytes, _) => self.least_len = 0,
        }
    }

    /// How much of the room is used.
    fn piece_len(&self, room: usize) -> usize {
        match (self.reader, room.checked_sub(SLACK)) {
            (Reader::Tungstenite, Some(rest)) if rest > SLACK => rest,
            _ => room,
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
                    Brings::Records { .. } => this.piece_len(room),
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
            let wanted = this.next_len.max(this.least_len);
            if this.ahead.capacity() < wanted {
                this.ahead = Vec::with_capacity(wanted);
            }
            let len = this.ahead.capacity();
            let read = pin!(this.stream.read_buf(&mut this.ahead)).poll(cx);
            if read.is_pending() {
                this.rest();
            }
            let taken = ready!(read)?;
            this.read_ahead(len, taken);
        }
        let len = this.piece_len(room);
        let ahead = this.ahead.get(this.handed_on..).unwrap_or_default();
        let (piece, _) = ahead.split_at(len.min(ahead.len()));
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

    // TLS hands over several records at a time.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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
    // It has been cleared before, by tungstenite or rustls.
    let mut piece = ReadBuf::new(buf.initialize_unfilled_to(len));
    ready!(stream.poll_read(cx, &mut piece))?;
    let len = piece.filled().len();
    buf.advance(len);
    Poll::Ready(Ok(()))
}

/// What is read where nothing more is expected.
const MORE_LEN: usize = 2 * 1024;

/// The first read into `ahead`: what a burst of some hundred small messages takes.
const FIRST_LEN: usize = 16 * 1024;

/// As much in one burst may be the first of more.
const LONG_BURST: usize = 64 * 1024;

/// What is read into after a long burst: more than what peers mostly write in one go, and not so much that it drives the
/// messages out of the cache.
const LONG_LEN: usize = 256 * 1024;

/// What is read ahead of TLS at most, and at first. Both are chosen by measurement: rustls copies each record out of its
/// buffer, and on some processors (`rep movsb` of AMD's) that takes many times as long where both places lie alike in their
/// pages, just behind one another. With these, glibc's allocator rarely puts the copy there; with powers of two it often did.
#[cfg(feature = "tls")]
const FEW_RECORDS_LEN: usize = 48 * 1024;
#[cfg(feature = "tls")]
const FIRST_RECORD_LEN: usize = 12 * 1024;

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
        let asked = [2, 16, 64, 256, 256, 256, 256, 256].map(|len| len * K);
        assert_eq!(reader.stream.asked, asked);
        assert_eq!(reader.ahead.capacity(), 0, "held while idle");

        // The next may be as long as that was; when it was not, they grow again.
        for asked in [&[256, 256][..], &[2, 16, 16]] {
            reader.stream.left = 3 * K;
            reader.stream.asked.clear();
            assert_eq!(drain(&mut reader, 2 * K), 3 * K);
            let asked: Vec<_> = asked.iter().map(|len| len * K).collect();
            assert_eq!(reader.stream.asked, asked);
            assert_eq!(reader.ahead.capacity(), 0, "held while idle");
        }
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
                assert_eq!(buf.filled().len(), reader.piece_len(room));
            }
        }
        assert_eq!(reader.ahead.capacity(), 0);
    }

    #[test]
    fn what_is_left_after_a_read_that_was_not_filled_is_read_with_what_follows() {
        const K: usize = 1024;
        let mut cx = Context::from_waker(Waker::noop());
        let mut reader = reader(5 * K, b"", 256 * K);
        let mut read = |reader: &mut ReadAhead<Source>, room| {
            let mut space = vec![0; room];
            let mut buf = ReadBuf::new(&mut space);
            let read = Pin::new(reader).poll_read(&mut cx, &mut buf);
            (read.is_ready(), buf.filled().len())
        };
        for _ in 0..3 {
            assert!(read(&mut reader, 2 * K).0);
        }
        assert_eq!(reader.stream.asked, [2 * K, 16 * K]);
        reader.stream.left = 7 * K;
        // The end of a message, and the beginning of the next.
        assert_eq!(read(&mut reader, 50), (true, 50));
        assert!(read(&mut reader, 2 * K).0);
        assert_eq!(reader.stream.asked, [2 * K, 16 * K, 16 * K]);
    }

    #[cfg(feature = "tls")]
    #[test]
    fn below_tls_a_few_records_are_read_at_a_time_and_all_room_is_used() {
        const K: usize = 1024;
        // What rustls asks for: so much when it begins, and then one record with its header.
        const RECORD: usize = 18 * K + 5;
        let source = Source {
            left: 300 * K,
            asked: Vec::new(),
        };
        let mut reader = ReadAhead::below_tls(source, 1024 * K);
        let mut cx = Context::from_waker(Waker::noop());
        let (mut all, mut room) = (0, 4 * K);
        loop {
            let mut space = vec![0; room];
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut reader).poll_read(&mut cx, &mut buf) {
                Poll::Ready(read) => read.unwrap(),
                Poll::Pending => break,
            }
            let is_last = reader.handed_on == reader.ahead.len();
            assert!(is_last || buf.filled().len() == room);
            all += buf.filled().len();
            room = RECORD;
        }
        assert_eq!(all, 300 * K);
        let (few, rest) = reader.stream.asked.split_at(2);
        assert_eq!(few, [4 * K, RECORD]);
        assert_eq!(rest, [48 * K; 7]);
        assert_eq!(reader.ahead.capacity(), 0, "held while idle");
        // A long burst is nothing new here.
        assert_eq!(reader.least_len, 0);
    }

    /// Takes all at once, and says in how many slices it came.
    struct Sink(Vec<usize>);

    impl AsyncWrite for Sink {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(1);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bufs: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.0.push(bufs.len());
            Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn records_that_are_written_together_stay_together() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut writer = ReadAhead::new(Sink(Vec::new()), Bytes::new(), 1024, Brings::Bytes);
        assert!(writer.is_write_vectored());
        let records = [io::IoSlice::new(b"one"), io::IoSlice::new(b"other")];
        let written = Pin::new(&mut writer).poll_write_vectored(&mut cx, &records);
        assert!(matches!(written, Poll::Ready(Ok(8))));
        assert_eq!(writer.stream.0, [2]);
    }

    #[test]
    fn nothing_is_read_ahead_where_it_would_not_be_longer() {
        let mut reader = reader(1000, b"", 100);
        assert_eq!(drain(&mut reader, 100), 1000);
        assert_eq!(reader.stream.asked, [100; 11]);
    }
}
