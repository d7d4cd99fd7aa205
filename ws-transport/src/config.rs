//! Buffers, limits and policies of an open WebSocket.

use std::time::Duration;

use tokio_tungstenite::tungstenite::protocol::WebSocketConfig as Tungstenite;

/// Buffers, limits and policies of an open [`WebSocket`](crate::WebSocket).
///
/// ```
/// use ws_transport::WebSocketConfig;
///
/// let config = WebSocketConfig::new().max_message_len(256 * 1024);
/// ```
#[derive(Clone, Debug)]
pub struct WebSocketConfig {
    pub(crate) read_buffer_len: usize,
    pub(crate) write_buffer_len: usize,
    pub(crate) max_message_len: usize,
    pub(crate) split_len: usize,
    pub(crate) packing: FramePacking,
    pub(crate) text: TextMessages,
    pub(crate) close_timeout: Duration,
}

impl WebSocketConfig {
    /// The defaults: reads of up to 256 KiB, 16 KiB to collect writes, messages of at most 1 MiB, sends split at
    /// 16 KiB, one frame a send, text refused, 2 s for closing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            read_buffer_len: 256 * 1024,
            write_buffer_len: 16 * 1024,
            max_message_len: 1024 * 1024,
            split_len: 16 * 1024,
            packing: FramePacking::OnePerSend,
            text: TextMessages::Refuse,
            close_timeout: Duration::from_secs(2),
        }
    }

    /// The most that one read takes from the connection, in bytes. Default 256 KiB; at least 256 bytes, at most
    /// 1 MiB.
    ///
    /// The fewer reads, the more rarely the kernel stops to answer the peer; but with more than this, a flood costs no less
    /// CPU over the loopback, and takes more memory.
    ///
    /// Over TLS it is at most 48 KiB, which is three records: what is done to each takes longer than a system call.
    ///
    /// Taken only by a connection whose peer sends more than it reads, in steps, or up to 256 KiB at once after a burst of
    /// 64 KiB or more, and given back when nothing more has arrived. What it holds while idle is a buffer of 2 KiB, or of
    /// this length where that is less; messages are handed out as parts of such a buffer and keep it alive, so copy what
    /// is to be kept for long.
    #[must_use]
    pub fn read_buffer_len(mut self, len: usize) -> Self {
        self.read_buffer_len = len.clamp(256, 1024 * 1024);
        self
    }

    /// How many bytes of frames are collected before they are written without a flush. Default 16 KiB, which
    /// is one TLS record; at most 1 MiB. With 0, each frame is written at once.
    ///
    /// Where the peer does not read, this and one split of a send is all that is buffered; then
    /// [`poll_ready`](crate::WebSocket::poll_ready) waits.
    #[must_use]
    pub fn write_buffer_len(mut self, len: usize) -> Self {
        self.write_buffer_len = len.min(1024 * 1024);
        self
    }

    /// The longest message to receive, in bytes, over all its fragments. Default 1 MiB; at least 125.
    ///
    /// A longer one ends the connection with close code 1009. Memory is reserved as soon as a frame announces
    /// its length, so this is also what a hostile peer can make us reserve, twice at worst.
    #[must_use]
    pub fn max_message_len(mut self, len: usize) -> Self {
        self.max_message_len = len.max(125);
        self
    }

    /// The longest payload of one message sent with [`start_send`](crate::WebSocket::start_send), in bytes:
    /// longer ones leave as several messages. Default 16 KiB, as AWS's own clients do; 1 byte to 1 MiB.
    #[must_use]
    pub fn split_len(mut self, len: usize) -> Self {
        self.split_len = len.clamp(1, 1024 * 1024);
        self
    }

    /// Whether small sends share a frame. Default [`FramePacking::OnePerSend`].
    #[must_use]
    pub fn packing(mut self, packing: FramePacking) -> Self {
        self.packing = packing;
        self
    }

    /// What happens to text messages. Default [`TextMessages::Refuse`].
    #[must_use]
    pub fn text(mut self, text: TextMessages) -> Self {
        self.text = text;
        self
    }

    /// How long closing may take altogether: flushing, waiting for the peer's close frame, and shutting the
    /// connection down. Default 2 s. With `Duration::MAX` nothing ends it but the peer and the caller.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// A control frame's worth, for pongs and the close frame beside data.
    const CONTROL_SLACK: usize = 1024;

    /// Header and mask of a client's frame at most (RFC 6455 section 5.2).
    const FRAME_HEADER_LEN: usize = 14;

    /// What tungstenite reads into: held by every connection and by messages, and cleared before every read.
    const FRAME_BUFFER_LEN: usize = 2 * 1024;

    pub(crate) fn tungstenite(&self) -> Tungstenite {
        Tungstenite::default()
            .read_buffer_size(self.read_buffer_len.min(Self::FRAME_BUFFER_LEN))
            .write_buffer_size(self.write_buffer_len)
            .max_write_buffer_size(
                self.write_buffer_len
                    + self.split_len
                    + Self::FRAME_HEADER_LEN
                    + Self::CONTROL_SLACK,
            )
            .max_message_size(Some(self.max_message_len))
            .max_frame_size(Some(self.max_message_len))
    }
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether small sends share a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FramePacking {
    /// Each send begins a message of its own. Frames still share writes: what is sent before a flush leaves
    /// in as few system calls as fit.
    #[default]
    OnePerSend,
    /// Sends before a flush are packed into messages of up to the split length. Cheaper still in a burst; but
    /// some servers can be set to refuse several packets in one message.
    Merge,
}

/// What happens to text messages from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TextMessages {
    /// They end the connection with close code 1003 and [`WebSocketError::Text`](crate::WebSocketError::Text).
    #[default]
    Refuse,
    /// They are delivered, as UTF-8.
    Deliver,
}
