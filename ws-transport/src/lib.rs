//! WebSocket bytes in and out, over tokio-tungstenite and rustls.
//!
//! A [`Connector`] takes an [`Endpoint`] through DNS, TCP or a tunnel of your own ([`Dial`]), TLS
//! ([`TlsConfig`]) and the HTTP upgrade ([`UpgradeRequest`]) to an open [`WebSocket`], under one deadline.
//! From then on there are only bytes, with back-pressure both ways. What they mean is for others: this crate
//! knows no protocol above WebSocket.
//!
//! # Secrets
//!
//! The query of an endpoint, headers marked sensitive and payloads are in no `Debug`, no `Display`, no error
//! and no log record of this crate. tungstenite itself dumps every frame, payload included, at `TRACE` (target
//! `tungstenite::protocol`). Nothing secret is logged at `DEBUG` and above, but where `TRACE` is on, filter it:
//!
//! ```text
//! RUST_LOG=trace,tungstenite=info,tokio_tungstenite=info
//! ```
#![forbid(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod config;
mod connector;
mod dial;
mod endpoint;
mod error;
mod http1;
mod proxy;
mod read_ahead;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod upgrade;
mod websocket;

pub use config::{FramePacking, TextMessages, WebSocketConfig};
pub use connector::{Connector, PlaintextCredentials};
pub use dial::{Dial, DialFuture, TcpDialer};
pub use endpoint::{Endpoint, EndpointError, Host, MAX_URL_LEN, Scheme, Security, Target};
pub use error::{
    ConnectError, ConnectStage, DialError, ProxyError, Refusal, RequestError, TlsConfigError,
    TlsError, UpgradeError,
};
pub use proxy::{EnvProxies, Proxy, ProxyConfigError, SocksReply};
pub use stream::{BoxedIo, Io, Stream};
#[cfg(feature = "tls")]
pub use tls::{BaseRoots, TlsConfig, TlsConfigBuilder};
pub use upgrade::{
    MAX_ANSWER_HEAD_LEN, MAX_ANSWER_HEADERS, MAX_REFUSAL_BODY_LEN, MAX_REQUEST_HEADERS_LEN,
    SubprotocolPolicy, UpgradeRequest,
};
pub use websocket::{
    CloseFrame, CloseOutcome, Message, ProtocolViolation, WebSocket, WebSocketError,
};
