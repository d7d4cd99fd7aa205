//! The broker, set up so that what goes missing is our fault.

use std::{io, time::Duration};

use testkit::mosquitto::{Broker, Installation, StartError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// `log` names what is logged beside that it runs: a log of every packet fills the disk in time.
pub(crate) async fn start(mosquitto: &Installation, log: &[&str]) -> Result<Broker, StartError> {
    let config = mosquitto
        .config()
        .websocket()
        .line("log_type none")
        .line("log_type information")
        // The default of 20 shows two faults of version 2.0.11 that would pass for ours: before MQTT 5
        // it confirms and throws away what a publisher has under way beyond that, and what it had to
        // queue for a subscriber is overtaken by what comes after.
        .line("max_inflight_messages 0")
        // By default it drops what does not fit into its queues, and that is a loss.
        .line("max_queued_messages 0");
    let log = log.iter().map(|kind| format!("log_type {kind}"));
    log.fold(config, |config, line| config.line(&line))
        .start()
        .await
}

/// mosquitto 2.0 looks after its WebSockets when something happens on plain TCP, and otherwise ten times
/// a second: a few round trips would take longer than a connection lives here. This makes something
/// happen every millisecond, until the broker ends.
pub(crate) async fn keep_awake(mut stream: TcpStream) -> io::Result<()> {
    const CONNECT: &[u8] = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04beat";
    const PINGREQ: &[u8] = b"\xc0\x00";
    stream.write_all(CONNECT).await?;
    let mut answers = [0; 64];
    while stream.read(&mut answers).await? > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        stream.write_all(PINGREQ).await?;
    }
    Ok(())
}
