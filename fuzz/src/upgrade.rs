//! The answer to a WebSocket upgrade.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use ws_transport::{
    BoxedIo, ConnectError, Connector, Dial, DialFuture, Endpoint, MAX_REFUSAL_BODY_LEN, Target,
    UpgradeRequest,
};

/// The input is what the server answers, `{accept}` in it being the right `Sec-WebSocket-Accept`. However the answer is
/// cut into reads, the judgement is the same; what is accepted keeps the rules of RFC 6455 section 4.1 by a plainer
/// reading; and a refusal is what the answer says, within its bound.
pub fn upgrade_answer(data: &[u8]) {
    let whole = judge(data, usize::MAX);
    for most in [1, 7] {
        assert_eq!(judge(data, most), whole, "in reads of {most}");
    }
}

/// The outcome in words that can be compared.
fn judge(data: &[u8], most: usize) -> String {
    let sent: Sent = Arc::default();
    let server = Server {
        template: data.to_vec(),
        request: Vec::new(),
        answer: None,
        at: 0,
        most,
        sent: Arc::clone(&sent),
    };
    let dialer = Once(Mutex::new(Some(server)));
    let connector = Connector::new()
        .dialer(dialer)
        .timeout(Duration::from_secs(3600));
    let endpoint: Endpoint = "ws://localhost/".parse().expect("a URL");
    let request = UpgradeRequest::new().subprotocol("mqtt").expect("a token");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let result = runtime.block_on(connector.connect(&endpoint, &request));
    let Told {
        answer: sent,
        accept,
    } = sent.lock().expect("the answer").clone();
    match result {
        Ok(socket) => {
            assert_eq!(socket.subprotocol(), Some("mqtt"));
            assert_keeps_the_rules(&sent);
            "accepted".to_owned()
        }
        Err(ConnectError::Refused(refusal)) => {
            assert_ne!(refusal.status().as_u16(), 101);
            assert!(refusal.body().len() <= MAX_REFUSAL_BODY_LEN);
            // The key is a new one each time.
            let mut shown = format!("{} {:?}", refusal.status(), refusal.headers())
                .replace(&accept, "{accept}");
            // Where a chunked body is taken for whole depends on the reads, as documented.
            if !refusal.headers().contains_key("transfer-encoding") {
                let body = refusal.body();
                assert!(
                    body.is_empty() || sent.windows(body.len()).any(|part| part == body),
                    "a body that was not sent"
                );
                shown.push_str(&format!(" and {} bytes", body.len()));
            }
            shown
        }
        Err(error @ (ConnectError::Upgrade(_) | ConnectError::Interrupted(_))) => {
            format!("{error:?}")
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// The last head of the answer, line by line.
fn assert_keeps_the_rules(sent: &[u8]) {
    let text = String::from_utf8_lossy(sent);
    let mut heads = text.split("\r\n\r\n");
    let head = heads
        .find(|head| {
            let status = head.split(' ').nth(1).unwrap_or_default();
            !status.starts_with('1') || status == "101"
        })
        .expect("a final answer");
    assert!(head.starts_with("HTTP/1."), "{head}");
    assert_eq!(head.split(' ').nth(1), Some("101"), "{head}");
    let values = |name: &str| -> Vec<String> {
        head.split('\n')
            .filter_map(|line| line.trim_end_matches('\r').split_once(':'))
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim_matches([' ', '\t']).to_owned())
            .collect()
    };
    let lists = |name: &str, token: &str| {
        values(name)
            .iter()
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    assert!(lists("upgrade", "websocket"), "{head}");
    assert!(lists("connection", "upgrade"), "{head}");
    assert_eq!(values("sec-websocket-accept").len(), 1, "{head}");
    assert_eq!(values("sec-websocket-protocol"), ["mqtt"], "{head}");
    let extensions = values("sec-websocket-extensions");
    assert!(extensions.iter().all(String::is_empty), "{head}");
}

/// What the server has to say, told once the request is whole.
type Sent = Arc<Mutex<Told>>;

#[derive(Clone, Default)]
struct Told {
    answer: Vec<u8>,
    accept: String,
}

struct Once(Mutex<Option<Server>>);

impl Dial for Once {
    fn dial<'a>(&'a self, _target: &'a Target) -> DialFuture<'a> {
        Box::pin(async move {
            let server = self.0.lock().expect("the server").take();
            let server = server.ok_or_else(|| io::Error::other("dialled twice"))?;
            Ok(Box::new(server) as BoxedIo)
        })
    }
}

/// A server that reads the request, says its answer in reads of the given length, and hangs up.
struct Server {
    template: Vec<u8>,
    request: Vec<u8>,
    answer: Option<Vec<u8>>,
    at: usize,
    most: usize,
    sent: Sent,
}

impl Server {
    /// The answer, once the request is whole.
    fn fill_in(&self) -> Option<Told> {
        if !self.request.ends_with(b"\r\n\r\n") {
            return None;
        }
        let request = std::str::from_utf8(&self.request).expect("an ASCII request");
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
            .expect("a key");
        let accept = derive_accept_key(key.as_bytes());
        let placeholder = b"{accept}";
        let mut answer = Vec::with_capacity(self.template.len());
        let mut rest = self.template.as_slice();
        while let Some((first, tail)) = rest.split_first() {
            match rest.strip_prefix(placeholder) {
                Some(tail) => {
                    answer.extend_from_slice(accept.as_bytes());
                    rest = tail;
                }
                None => {
                    answer.push(*first);
                    rest = tail;
                }
            }
        }
        Some(Told { answer, accept })
    }
}

impl AsyncRead for Server {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let server = &mut *self;
        let Some(answer) = &server.answer else {
            panic!("the client waits for an answer to half a request");
        };
        let rest = &answer[server.at..];
        let len = rest.len().min(buf.remaining()).min(server.most);
        buf.put_slice(&rest[..len]);
        server.at += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Server {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let server = &mut *self;
        if server.answer.is_none() {
            server.request.extend_from_slice(buf);
            if let Some(told) = server.fill_in() {
                server.answer = Some(told.answer.clone());
                *server.sent.lock().expect("the answer") = told;
            }
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
