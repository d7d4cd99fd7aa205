//! Requests by hand, where the question is what the service says to one that this crate would never make.

use std::error::Error;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use ws_transport::{Connector, Target};

/// The most that is read of an answer.
const MAX_ANSWER_LEN: usize = 16 * 1024;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The head of an answer.
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) header_names: Vec<String>,
}

/// Asks for an upgrade to MQTT on WebSocket, with this path and query.
pub(crate) async fn upgrade(
    connector: &Connector,
    target: &Target,
    path: &str,
) -> Result<Head, Box<dyn Error>> {
    let headers = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: mqtt\r\n";
    send(connector, target, "GET", path, headers, "").await
}

/// Sends a request with these header lines, `host` and `content-length`, and reads the head of the answer.
pub(crate) async fn send(
    connector: &Connector,
    target: &Target,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Result<Head, Box<dyn Error>> {
    let length = match body.len() {
        0 => String::new(),
        length => format!("content-length: {length}\r\n"),
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {}\r\n{headers}{length}\r\n{body}",
        target.host_header()
    );
    let answering = async {
        let mut stream = connector.connect_stream(target).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
            if answer.len() > MAX_ANSWER_LEN || stream.read_buf(&mut answer).await? == 0 {
                return Err("the answer has no head".into());
            }
        }
        parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| "the answer is not HTTP".into())
    };
    tokio::time::timeout(TIMEOUT, answering).await?
}

fn parse(answer: &str) -> Option<Head> {
    let (head, _) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let names = lines.filter_map(|line| Some(line.split_once(':')?.0.to_ascii_lowercase()));
    Some(Head {
        status,
        header_names: names.collect(),
    })
}
