//! Plays the client in the Autobahn test suite: sends back every message of every case that a fuzzing server
//! has. `cargo xtask autobahn` installs and starts that server, runs this and reads the server's report.
//!
//! By hand: `cargo run -p ws-transport --example autobahn_client -- ws://127.0.0.1:9001`

use std::{error::Error, future::poll_fn, io};

use ws_transport::{
    Connector, Endpoint, Message, TextMessages, UpgradeRequest, WebSocket, WebSocketConfig,
    WebSocketError,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The name under which the report lists this client.
const AGENT: &str = "ws-transport";

/// The longest messages of the suite (cases 9.1.6 and 9.2.6).
const MAX_MESSAGE_LEN: usize = 16 * 1024 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let server = std::env::args()
        .nth(1)
        .ok_or("usage: autobahn_client ws://HOST:PORT")?;
    let client = Client::new(server);

    let cases = client.case_count().await?;
    for case in 1..=cases {
        client.run_case(case).await?;
    }
    client.update_reports().await?;
    println!("{cases} cases played");
    Ok(())
}

struct Client {
    connector: Connector,
    server: String,
}

impl Client {
    fn new(server: String) -> Self {
        // All else as users get it: reads of 2 to 256 KiB, sends in fragments of 16 KiB.
        let config = WebSocketConfig::new()
            .text(TextMessages::Deliver)
            .max_message_len(MAX_MESSAGE_LEN);
        Self {
            connector: Connector::new().websocket(config),
            server,
        }
    }

    async fn open(&self, command: &str) -> Result<WebSocket> {
        let endpoint: Endpoint = format!("{}{command}", self.server).parse()?;
        let socket = self
            .connector
            .connect(&endpoint, &UpgradeRequest::new())
            .await?;
        Ok(socket)
    }

    async fn case_count(&self) -> Result<u32> {
        let mut socket = self.open("/getCaseCount").await?;
        let answer = recv_message(&mut socket).await;
        socket.close().await;
        match answer {
            Some(Ok(Message::Text(count))) => Ok(count.parse()?),
            Some(Ok(Message::Binary(_))) | None => {
                Err(io::Error::other("the server does not say how many cases there are").into())
            }
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// Plays one case. However the connection ends, the server judges it.
    async fn run_case(&self, case: u32) -> Result<()> {
        let mut socket = self
            .open(&format!("/runCase?case={case}&agent={AGENT}"))
            .await?;
        let end = echo(&mut socket).await;
        let outcome = socket.close().await;
        match end {
            Ok(()) => println!("case {case}: {outcome:?}"),
            Err(error) => println!("case {case}: {error}; {outcome:?}"),
        }
        Ok(())
    }

    async fn update_reports(&self) -> Result<()> {
        let mut socket = self.open(&format!("/updateReports?agent={AGENT}")).await?;
        // The server closes when the reports are written.
        match recv_message(&mut socket).await {
            Some(Err(WebSocketError::ClosedByPeer(_))) => {
                socket.close().await;
                Ok(())
            }
            Some(Err(error)) => Err(error.into()),
            Some(Ok(_)) | None => Err(io::Error::other("no word of the reports").into()),
        }
    }
}

/// Sends back what arrives, as it arrives, until the connection ends.
async fn echo(socket: &mut WebSocket) -> std::result::Result<(), WebSocketError> {
    while let Some(message) = recv_message(socket).await {
        let message = message?;
        poll_fn(|cx| socket.poll_ready(cx)).await?;
        socket.start_send_message(message)?;
        socket.flush().await?;
    }
    Ok(())
}

async fn recv_message(
    socket: &mut WebSocket,
) -> Option<std::result::Result<Message, WebSocketError>> {
    poll_fn(|cx| socket.poll_recv_message(cx)).await
}
