//! How an open WebSocket ends, and what of tungstenite's errors means what.

use std::{error::Error, fmt, io};

use tokio_tungstenite::tungstenite::{Error as Tungstenite, error::ProtocolError};

use super::CloseFrame;

/// How an open WebSocket ended, or why it did not do what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum WebSocketError {
    /// The peer closed the WebSocket properly, with or without a reason.
    ClosedByPeer(Option<CloseFrame>),
    /// The connection is gone without a close frame. Peers often just drop TCP.
    Disconnected,
    /// The peer sent a text message where only binary ones are allowed.
    Text,
    /// The peer sent a message or a frame longer than the limit.
    TooLong,
    /// The peer broke RFC 6455.
    Protocol(ProtocolViolation),
    /// The connection failed.
    Io(io::Error),
    /// The caller sent after closing, or after the connection had ended.
    SendAfterClose,
}

impl WebSocketError {
    /// Whether a new connection may do better without anybody changing anything.
    ///
    /// `true` for everything but the caller's own mistake, a message beyond the limit, and a peer that
    /// breaks the protocol or sends text.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ClosedByPeer(_) | Self::Disconnected | Self::Io(_) => true,
            Self::Text | Self::TooLong | Self::Protocol(_) | Self::SendAfterClose => false,
        }
    }
}

impl fmt::Display for WebSocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedByPeer(None) => f.write_str("the peer closed the WebSocket"),
            Self::ClosedByPeer(Some(frame)) => {
                write!(f, "the peer closed the WebSocket with code {}", frame.code)
            }
            Self::Disconnected => f.write_str("the peer dropped the connection"),
            Self::Text => f.write_str("the peer sent a text message"),
            Self::TooLong => f.write_str("the peer sent a message beyond the limit"),
            Self::Protocol(_) => f.write_str("the peer broke the WebSocket protocol"),
            Self::Io(_) => f.write_str("the connection failed"),
            Self::SendAfterClose => f.write_str("sending on a WebSocket that is closed"),
        }
    }
}

impl Error for WebSocketError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Protocol(error) => Some(error),
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// The rule of RFC 6455 that the peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolViolation {
    /// A reserved bit is set though no extension was agreed (section 5.2).
    ReservedBits,
    /// An opcode that has no meaning (section 5.2).
    Opcode,
    /// A masked frame from a server (section 5.1).
    Masked,
    /// A control frame that is fragmented or longer than 125 bytes (section 5.5).
    ControlFrame,
    /// A continuation without a beginning, or a new message inside a fragmented one (section 5.4).
    Fragmentation,
    /// A close frame whose payload is not a code and UTF-8 (sections 5.5.1 and 7.4), or data after one.
    Close,
    /// Text that is not UTF-8 (section 8.1).
    Utf8,
    /// Another rule.
    Other,
}

impl fmt::Display for ProtocolViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReservedBits => "a reserved bit is set",
            Self::Opcode => "an unknown opcode",
            Self::Masked => "a masked frame from a server",
            Self::ControlFrame => "a fragmented or overlong control frame",
            Self::Fragmentation => "fragments out of order",
            Self::Close => "a malformed close frame, or data after one",
            Self::Utf8 => "text that is not UTF-8",
            Self::Other => "another rule of RFC 6455",
        })
    }
}

impl Error for ProtocolViolation {}

pub(super) fn translate(error: Tungstenite) -> WebSocketError {
    use ProtocolError as P;
    match error {
        Tungstenite::ConnectionClosed
        | Tungstenite::AlreadyClosed
        | Tungstenite::Protocol(P::ResetWithoutClosingHandshake) => WebSocketError::Disconnected,
        Tungstenite::Io(error) => match error.kind() {
            // TLS reports an end without close_notify as an unexpected end of file.
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => WebSocketError::Disconnected,
            _ => WebSocketError::Io(error),
        },
        Tungstenite::Capacity(_) => WebSocketError::TooLong,
        Tungstenite::Protocol(P::SendAfterClosing) => WebSocketError::SendAfterClose,
        Tungstenite::Protocol(error) => WebSocketError::Protocol(match error {
            P::NonZeroReservedBits => ProtocolViolation::ReservedBits,
            P::UnknownControlFrameType(_) | P::UnknownDataFrameType(_) | P::InvalidOpcode(_) => {
                ProtocolViolation::Opcode
            }
            P::MaskedFrameFromServer => ProtocolViolation::Masked,
            P::FragmentedControlFrame | P::ControlFrameTooBig => ProtocolViolation::ControlFrame,
            P::UnexpectedContinueFrame | P::ExpectedFragment(_) => ProtocolViolation::Fragmentation,
            P::InvalidCloseSequence | P::ReceivedAfterClosing => ProtocolViolation::Close,
            _ => ProtocolViolation::Other,
        }),
        Tungstenite::Utf8(_) => WebSocketError::Protocol(ProtocolViolation::Utf8),
        _ => WebSocketError::Protocol(ProtocolViolation::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stay_small() {
        assert!(size_of::<WebSocketError>() <= 40);
    }
}
