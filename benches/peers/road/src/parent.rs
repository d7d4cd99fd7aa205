//! The broker's side: starts a client's process, feeds it, and takes its report.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use testkit::null_broker::{Counts, NullBroker};
use tokio::runtime::Runtime;

use crate::Client;
use crate::child::{Report, Verb, Work};
use crate::packets;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How messages lie in frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frames {
    OnePacket,
    /// Cut anywhere, into frames of so many bytes.
    Cut(usize),
}

/// What one measurement is.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub verb: Verb,
    pub count: usize,
    pub window: usize,
    pub payload: usize,
    pub frames: Frames,
}

/// How the process is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under {
    Nothing,
    /// Counts instructions, of the whole process.
    Callgrind,
}

/// What a process did.
pub struct Outcome {
    pub report: Report,
    /// Messages, which may be a few more than asked for, so that the last frame is full.
    pub count: usize,
    pub instructions: Option<f64>,
}

/// Longer than the slowest peer takes for anything here, under valgrind too.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(client: Client, load: Load, under: Under) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let broker = runtime.block_on(NullBroker::start())?;
    let (count, flood) = flood(load);
    let work = Work {
        verb: load.verb,
        url: broker.url(),
        count,
        window: load.window,
        payload: load.payload,
    };
    let program = std::env::current_exe()?;
    let mut command = match under {
        Under::Nothing => Command::new(program),
        Under::Callgrind => {
            let mut valgrind = Command::new("valgrind");
            valgrind
                .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
                .arg(program);
            valgrind
        }
    };
    command.args(["client", client.name()]).args(work.args());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let mut report = None;
    for line in lines {
        let line = line?;
        if line == "ready"
            && let Err(why) = feed(&runtime, &broker, load, count, &flood)
        {
            child.kill()?;
            child.wait()?;
            return Err(format!("{}: {why}", client.name()).into());
        }
        report = report.or(Report::from_line(&line));
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let report = report.ok_or_else(|| format!("{} reported nothing: {said}", client.name()))?;
    if matches!(load.verb, Verb::Publish | Verb::PublishAck | Verb::PingPong) {
        let wanted = count as u64;
        wait(&runtime, &broker, |counts| counts.published >= wanted).map_err(|_| {
            format!(
                "{} did not publish all: {:?}",
                client.name(),
                broker.counts()
            )
        })?;
    }
    let instructions = said
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, number)| number.trim().parse().ok());
    Ok(Outcome {
        report,
        count,
        instructions,
    })
}

/// What the broker will send, and for how many messages that is enough.
fn flood(load: Load) -> (usize, Vec<Bytes>) {
    match (load.verb, load.frames) {
        (Verb::Receive, Frames::OnePacket) => {
            let packet = packets::publish(None, load.payload);
            (load.count, vec![packet; load.count])
        }
        (Verb::Receive, Frames::Cut(frame)) => packets::cut(load.payload, load.count, frame),
        (Verb::ReceiveAck, _) => {
            let ids = 1..=u16::try_from(load.window).unwrap_or(u16::MAX);
            let window = ids
                .map(|id| packets::publish(Some(id), load.payload))
                .collect();
            (load.count.next_multiple_of(load.window), window)
        }
        (Verb::PingPong, _) => (load.count, vec![packets::publish(None, load.payload)]),
        _ => (load.count, Vec::new()),
    }
}

/// Sends what the client waits for, now that it is ready.
fn feed(
    runtime: &Runtime,
    broker: &NullBroker,
    load: Load,
    count: usize,
    flood: &[Bytes],
) -> Result<()> {
    let count = count as u64;
    match load.verb {
        Verb::Receive => broker.flood(flood.iter().cloned()),
        Verb::ReceiveAck => {
            let mut sent = broker.counts().acknowledged;
            let all = sent + count;
            while sent < all {
                broker.flood(flood.iter().cloned());
                sent += flood.len() as u64;
                // The last window is for the client to finish.
                if sent < all {
                    wait(runtime, broker, |counts| counts.acknowledged >= sent)?;
                }
            }
        }
        Verb::PingPong => {
            for at in 1..=count {
                wait(runtime, broker, |counts| counts.published >= at)?;
                broker.flood(flood.iter().cloned());
            }
        }
        _ => {}
    }
    Ok(())
}

fn wait(runtime: &Runtime, broker: &NullBroker, wanted: impl FnMut(&Counts) -> bool) -> Result<()> {
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, broker.wait_for(wanted)).await?;
        Ok(())
    })
}
