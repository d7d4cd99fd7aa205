//! An open WebSocket: bytes in and out, with back-pressure both ways.

mod close;
mod error;

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use futures_util::{Sink as _, Stream as _};
use http::HeaderValue;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as Tungstenite,
        protocol::{
            CloseFrame as TungsteniteClose, Message as Frame, Role,
            frame::{
                Frame as RawFrame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

use self::{close::Closing, error::translate};
pub use self::{
    close::{CloseFrame, CloseOutcome},
    error::{ProtocolViolation, WebSocketError},
};
use crate::{
    FramePacking, Io, Stream, TextMessages, WebSocketConfig,
    read_ahead::{Brings, ReadAhead},
    upgrade::Upgraded,
};

/// An open WebSocket that carries a stream of bytes, in binary messages.
///
/// Where messages begin and end means nothing here: what is sent is split and packed as suits, and empty
/// messages are neither sent nor delivered. (Those who care about messages use
/// [`poll_recv_message`](Self::poll_recv_message) and [`start_send_message`](Self::start_send_message).)
///
/// One task owns the socket and polls it both ways; there is nothing to split and no lock. The order of calls
/// in a turn of such a task:
///
/// ```
/// # use std::{collections::VecDeque, task::{Context, Poll, ready}};
/// # use bytes::Bytes;
/// # use ws_transport::{WebSocket, WebSocketError};
/// # struct Task { socket: WebSocket, outgoing: VecDeque<Bytes> }
/// # impl Task {
/// # fn handle(&mut self, _: Bytes) {}
/// fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
///     // All that has arrived: many messages come from one read.
///     while let Poll::Ready(received) = self.socket.poll_recv(cx)? {
///         let Some(bytes) = received else {
///             return Poll::Ready(Ok(()));
///         };
///         self.handle(bytes);
///     }
///     // All that is to be sent and fits: many frames go into one write.
///     while !self.outgoing.is_empty() {
///         ready!(self.socket.poll_ready(cx))?;
///         if let Some(bytes) = self.outgoing.pop_front() {
///             self.socket.start_send(bytes)?;
///         }
///     }
///     // Nothing is sure to leave before this.
///     ready!(self.socket.poll_flush(cx))?;
///     Poll::Pending
/// }
/// # }
/// ```
///
/// Pings are answered while the socket is polled for receiving. At most the write buffer, one split and the
/// rest of one send are held when the peer does not read; and at most two messages of the maximum length and one
/// read when it sends (see [`WebSocketConfig`]).
///
/// Dropping it drops the connection without a close frame; [`close`](Self::close) says goodbye first.
pub struct WebSocket {
    inner: WebSocketStream<ReadAhead<Stream>>,
    config: WebSocketConfig,
    subprotocol: Option<HeaderValue>,
    /// Payload accepted but not yet given to tungstenite. Not empty only while the peer does not read: at
    /// most one send, in pieces of at most the split length.
    unsent: VecDeque<Frame>,
    /// Small sends on their way into one frame; shorter than the split length. Empty unless packing merges.
    merging: BytesMut,
    /// How many bytes the frames received so far had on the wire at least, modulo 2^32 or 2^64; without those of single
    /// messages. See `has_taken_all`.
    taken: usize,
    /// Nobody has asked for a batch yet. Where the client speaks first, there is nothing then.
    is_new: bool,
    state: State,
}

/// ```text
/// Open ──peer's close, EOF, error──▶ Ended
///   └──poll_close──▶ Closing ──────▶ Closed
/// ```
enum State {
    Open,
    /// Nothing more will be received, and why has been told. Closing may still have to say goodbye.
    Ended(CloseOutcome),
    Closing(Closing),
    Closed(CloseOutcome),
}

impl WebSocket {
    /// A WebSocket over a stream that has been upgraded already, by other means than a
    /// [`Connector`](crate::Connector). `read_ahead` is what was read behind the answer's head.
    #[must_use]
    pub fn from_upgraded(
        io: impl Io + 'static,
        read_ahead: Bytes,
        config: &WebSocketConfig,
    ) -> Self {
        let upgraded = Upgraded {
            read_ahead,
            subprotocol: None,
        };
        Self::after_upgrade(Stream::plain(Box::new(io)), upgraded, config)
    }

    pub(crate) fn after_upgrade(
        stream: Stream,
        upgraded: Upgraded,
        config: &WebSocketConfig,
    ) -> Self {
        let brings = match stream.is_tls() {
            true => Brings::Records { short: 0 },
            false => Brings::Bytes,
        };
        let stream = ReadAhead::new(stream, upgraded.read_ahead, config.read_buffer_len, brings);
        // Not `from_partially_read`: the buffer that it makes does not remember its size, so that the next one, made
        // while messages keep it alive, is as small as can be.
        let inner = pin!(WebSocketStream::from_raw_socket(
            stream,
            Role::Client,
            Some(config.tungstenite())
        ));
        // A future by its form: awaited, it would be most of what a connect takes in memory.
        let Poll::Ready(inner) = inner.poll(&mut Context::from_waker(Waker::noop())) else {
            unreachable!("there is no handshake to wait for")
        };
        Self {
            inner,
            config: config.clone(),
            subprotocol: upgraded.subprotocol,
            unsent: VecDeque::new(),
            merging: BytesMut::new(),
            taken: 0,
            is_new: true,
            state: State::Open,
        }
    }

    /// The subprotocol that the server chose, if any.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_ref()?.to_str().ok()
    }

    /// Received bytes, never empty: the payload of one message, whose bounds mean nothing. Call it until it
    /// is pending: one read brings many messages.
    ///
    /// Ends with exactly one error, which says how the connection ended, then `None`; with `None` alone where
    /// this side closed first.
    #[must_use = "a poll that is not looked at loses bytes"]
    pub fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, WebSocketError>>> {
        self.poll_bytes(cx)
    }

    /// Received bytes as from [`poll_recv`](Self::poll_recv), appended to `chunks` one message after the other, until
    /// `max_messages` or `max_bytes` of them are reached.
    ///
    /// What it returns says why it stopped, whatever `chunks` got before: ready with `Ok` at one of the limits, pending
    /// where nothing more has arrived, ready with the error or `None` at the end.
    #[must_use = "a poll that is not looked at loses the end"]
    pub fn poll_recv_many(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Vec<Bytes>,
        max_messages: usize,
        max_bytes: usize,
    ) -> Poll<Option<Result<(), WebSocketError>>> {
        let (mut messages, mut bytes, mut longer) = (0, 0, 0);
        let is_new = std::mem::take(&mut self.is_new) && matches!(self.state, State::Open);
        let stopped = loop {
            if messages == max_messages || bytes >= max_bytes {
                break Poll::Ready(Some(Ok(())));
            }
            // A few that come together are mostly all there is.
            let may_be_all = is_new || matches!(messages, 1..=FEW_MESSAGES);
            if may_be_all
                && self.has_taken_all(bytes + longer + messages * SHORT_HEADER)
                && self.inner.get_mut().poll_more(cx).is_pending()
            {
                break Poll::Pending;
            }
            match self.poll_bytes(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    messages += 1;
                    bytes += chunk.len();
                    if chunk.len() > SHORT_PAYLOAD {
                        longer += header_len(chunk.len()) - SHORT_HEADER;
                    }
                    chunks.push(chunk);
                }
                Poll::Ready(Some(Err(error))) => break Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => break Poll::Ready(None),
                Poll::Pending => break Poll::Pending,
            }
        };
        let on_wire = bytes + longer + messages * SHORT_HEADER;
        self.taken = self.taken.wrapping_add(on_wire);
        stopped
    }

    /// Like [`poll_recv`](Self::poll_recv), but delivers messages as they were sent: empty ones too, and text
    /// ones as such where [`TextMessages::Deliver`] allows them.
    #[must_use = "a poll that is not looked at loses a message"]
    pub fn poll_recv_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Message, WebSocketError>>> {
        self.poll_data(cx, |frame| match frame {
            Frame::Binary(payload) => Ok(Message::Binary(payload)),
            Frame::Text(text) => Ok(Message::Text(text.as_str().to_owned())),
            other => Err(other),
        })
    }

    /// Whether tungstenite holds back nothing of what it has read, when it has just handed out so much. What a message in
    /// fragments took is not known in full, and what others than [`poll_recv_many`](Self::poll_recv_many) took is not
    /// counted: after either this is never true again.
    #[inline]
    fn has_taken_all(&self, just_taken: usize) -> bool {
        self.taken.wrapping_add(just_taken) == self.inner.get_ref().handed()
    }

    // Becomes a part of its callers: to hand the bytes through another place in memory took longer than all else here.
    #[inline(always)]
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, WebSocketError>>> {
        self.poll_data(cx, |frame| match frame {
            Frame::Binary(payload) if !payload.is_empty() => Ok(payload),
            Frame::Text(text) if !text.is_empty() => Ok(text.into()),
            other => Err(other),
        })
    }

    /// The next message of which `take` makes something; it passes over the others, and control frames.
    #[inline(always)]
    fn poll_data<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl Fn(Frame) -> Result<T, Frame>,
    ) -> Poll<Option<Result<T, WebSocketError>>> {
        if !matches!(self.state, State::Open) {
            return Poll::Ready(None);
        }
        // A peer that sends nothing but control frames must not hold the task for ever.
        for _ in 0..MAX_SKIPPED_FRAMES_PER_POLL {
            let error = match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                Some(Ok(Frame::Text(_))) if self.config.text == TextMessages::Refuse => {
                    WebSocketError::Text
                }
                Some(Ok(Frame::Close(frame))) => {
                    WebSocketError::ClosedByPeer(frame.map(CloseFrame::from))
                }
                Some(Ok(frame)) => match take(frame) {
                    Ok(taken) => return Poll::Ready(Some(Ok(taken))),
                    Err(other) => {
                        let len = other.len();
                        self.taken = self.taken.wrapping_add(len + header_len(len));
                        continue;
                    }
                },
                Some(Err(error)) => translate(error),
                None => WebSocketError::Disconnected,
            };
            self.end(cx, &error);
            return Poll::Ready(Some(Err(error)));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready when there is room for another send. Pending while the peer does not read fast enough.
    ///
    /// # Errors
    ///
    /// When the connection has failed or is closed.
    #[must_use = "a poll that is not looked at does nothing"]
    #[inline]
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        if !matches!(self.state, State::Open) {
            return Poll::Ready(Err(WebSocketError::SendAfterClose));
        }
        self.poll_unsent(cx)
    }

    /// Accepts bytes for sending, to be called after [`poll_ready`](Self::poll_ready) was ready. They leave
    /// when the write buffer is full, or at the latest with the next [`poll_flush`](Self::poll_flush).
    ///
    /// Not copied until they are masked into the write buffer. Empty ones are ignored.
    ///
    /// # Errors
    ///
    /// When the connection has failed or is closed.
    #[inline]
    pub fn start_send(&mut self, bytes: impl Into<Bytes>) -> Result<(), WebSocketError> {
        let bytes = bytes.into();
        let is_one_frame = !bytes.is_empty()
            && bytes.len() <= self.config.split_len
            && self.config.packing == FramePacking::OnePerSend;
        if is_one_frame && self.unsent.is_empty() && matches!(self.state, State::Open) {
            return self.push_now(Frame::Binary(bytes));
        }
        self.start_send_in_pieces(bytes)
    }

    #[inline(never)]
    fn start_send_in_pieces(&mut self, mut bytes: Bytes) -> Result<(), WebSocketError> {
        if !matches!(self.state, State::Open) {
            return Err(WebSocketError::SendAfterClose);
        }
        if self.config.packing == FramePacking::Merge {
            return self.merge(&bytes);
        }
        while bytes.len() > self.config.split_len {
            let piece = bytes.split_to(self.config.split_len);
            self.push(Frame::Binary(piece))?;
        }
        if !bytes.is_empty() {
            self.push(Frame::Binary(bytes))?;
        }
        Ok(())
    }

    /// Accepts one message for sending as it is: empty or text where it is, and in fragments of the split
    /// length where it is longer.
    ///
    /// # Errors
    ///
    /// When the connection has failed or is closed.
    pub fn start_send_message(&mut self, message: Message) -> Result<(), WebSocketError> {
        if !matches!(self.state, State::Open) {
            return Err(WebSocketError::SendAfterClose);
        }
        self.push_merged()?;
        let (mut opcode, mut payload) = match message {
            Message::Binary(payload) => (Data::Binary, payload),
            Message::Text(text) => (Data::Text, Bytes::from(text)),
        };
        while payload.len() > self.config.split_len {
            let piece = payload.split_to(self.config.split_len);
            self.push(fragment(opcode, piece, false))?;
            opcode = Data::Continue;
        }
        self.push(fragment(opcode, payload, true))
    }

    /// Writes everything out that was accepted. Ready when the system has taken it.
    ///
    /// # Errors
    ///
    /// When the connection has failed.
    #[must_use = "a poll that is not looked at does nothing"]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        if !matches!(self.state, State::Open) {
            return Poll::Ready(Err(WebSocketError::SendAfterClose));
        }
        if !self.unsent.is_empty() || !self.merging.is_empty() {
            ready!(self.poll_accepted(cx))?;
        }
        Pin::new(&mut self.inner).poll_flush(cx).map_err(translate)
    }

    /// Received bytes; `None` after the end. See [`poll_recv`](Self::poll_recv).
    ///
    /// # Errors
    ///
    /// How the connection ended, once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Result<Bytes, WebSocketError>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Waits for room, accepts the bytes and flushes.
    ///
    /// # Errors
    ///
    /// When the connection has failed or is closed.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: when the future is dropped, the bytes may have been accepted or not. Accepted bytes
    /// are never cut: the rest leaves with the next flush.
    pub async fn send(&mut self, bytes: impl Into<Bytes>) -> Result<(), WebSocketError> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_send(bytes)?;
        self.flush().await
    }

    /// Writes everything out that was accepted.
    ///
    /// # Errors
    ///
    /// When the connection has failed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: what is left goes out with the next flush.
    pub async fn flush(&mut self) -> Result<(), WebSocketError> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    fn merge(&mut self, mut bytes: &[u8]) -> Result<(), WebSocketError> {
        while !bytes.is_empty() {
            let room = self.config.split_len - self.merging.len();
            let (piece, rest) = bytes.split_at(room.min(bytes.len()));
            self.merging.extend_from_slice(piece);
            bytes = rest;
            if self.merging.len() == self.config.split_len {
                self.push_merged()?;
            }
        }
        Ok(())
    }

    fn push_merged(&mut self) -> Result<(), WebSocketError> {
        if self.merging.is_empty() {
            return Ok(());
        }
        let payload = self.merging.split().freeze();
        self.push(Frame::Binary(payload))
    }

    /// Gives a frame to tungstenite, or queues it behind what waits already.
    #[inline]
    fn push(&mut self, frame: Frame) -> Result<(), WebSocketError> {
        if !self.unsent.is_empty() {
            self.unsent.push_back(frame);
            return Ok(());
        }
        self.push_now(frame)
    }

    #[inline]
    fn push_now(&mut self, frame: Frame) -> Result<(), WebSocketError> {
        match Pin::new(&mut self.inner).start_send(frame) {
            Ok(()) => Ok(()),
            Err(Tungstenite::WriteBufferFull(frame)) => {
                self.unsent.push_front(*frame);
                Ok(())
            }
            Err(error) => Err(translate(error)),
        }
    }

    #[inline]
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        if !self.unsent.is_empty() {
            ready!(self.poll_push_unsent(cx))?;
        }
        Pin::new(&mut self.inner).poll_ready(cx).map_err(translate)
    }

    /// Moves what waits into tungstenite's buffer, as the peer makes room.
    #[inline(never)]
    fn poll_push_unsent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        while !self.unsent.is_empty() {
            ready!(Pin::new(&mut self.inner).poll_flush(cx)).map_err(translate)?;
            if let Some(frame) = self.unsent.pop_front() {
                self.push_now(frame)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Moves all that was accepted into tungstenite's buffer, and leaves that some room.
    fn poll_accepted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        self.push_merged()?;
        self.poll_unsent(cx)
    }

    /// No more receiving: tells the peer why where that is our decision, as far as it goes without waiting.
    fn end(&mut self, cx: &mut Context<'_>, error: &WebSocketError) {
        self.state = State::Ended(match error {
            WebSocketError::ClosedByPeer(_) => CloseOutcome::Closed,
            _ => CloseOutcome::Dropped,
        });
        let code = match error {
            WebSocketError::Text => Some(CloseCode::Unsupported),
            WebSocketError::TooLong => Some(CloseCode::Size),
            WebSocketError::Protocol(ProtocolViolation::Utf8) => Some(CloseCode::Invalid),
            WebSocketError::Protocol(_) => Some(CloseCode::Protocol),
            // Tungstenite has queued the reply.
            WebSocketError::ClosedByPeer(_) => None,
            _ => return,
        };
        self.unsent.clear();
        self.merging.clear();
        if let Some(code) = code {
            let reason = "".into();
            let close = Frame::Close(Some(TungsteniteClose { code, reason }));
            let _failed = Pin::new(&mut self.inner).start_send(close);
        }
        // One try; `poll_close` finishes it.
        let _pending_or_failed = Pin::new(&mut self.inner).poll_flush(cx);
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Open => "open",
            State::Ended(_) => "ended",
            State::Closing(_) => "closing",
            State::Closed(_) => "closed",
        };
        f.debug_struct("WebSocket")
            .field("state", &state)
            .field("subprotocol", &self.subprotocol)
            .finish_non_exhaustive()
    }
}

/// A whole message, for those to whom its bounds and kind matter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "closed by RFC 6455 section 5.6")]
pub enum Message {
    /// Binary data.
    Binary(Bytes),
    /// Text.
    Text(String),
}

/// Control frames, or empty messages, passed over in one poll before the task gets its turn again.
const MAX_SKIPPED_FRAMES_PER_POLL: usize = 64;

/// So many in a row may be all that has been read.
const FEW_MESSAGES: usize = 4;

/// How long the header of a server's frame is (RFC 6455 section 5.2) for payloads up to the longest short one.
const SHORT_HEADER: usize = 2;
const SHORT_PAYLOAD: usize = 125;

/// How long the header is at least.
// Not a part of its callers, so that a flood of small messages passes it over.
#[inline(never)]
fn header_len(payload_len: usize) -> usize {
    match payload_len {
        0..=SHORT_PAYLOAD => SHORT_HEADER,
        126..=0xffff => 4,
        _ => 10,
    }
}

fn fragment(opcode: Data, payload: Bytes, is_final: bool) -> Frame {
    Frame::Frame(RawFrame::message(payload, OpCode::Data(opcode), is_final))
}
