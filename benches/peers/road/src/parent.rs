//! The broker's side: starts a client's process, feeds it, and takes its report.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use testkit::certs::Authority;
use testkit::null_broker::{Counts, NullBroker};
use tokio::runtime::Runtime;

use crate::child::Report;
use crate::work::{self, ROOT, TOPIC, Verb, Work};
use crate::{Client, Result, elsewhere, packets};

/// How messages lie in frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Frames {
    OnePacket,
    /// Cut anywhere, into frames of so many bytes.
    Cut(usize),
}

/// What the broker does while there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broker {
    /// Looks again. Whoever sends to it does not pay for waking its processor.
    Awake,
    /// Sleeps, as brokers do.
    Sleeping,
}

/// What one measurement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Load {
    pub verb: Verb,
    pub count: usize,
    pub window: usize,
    pub payload: usize,
    pub frames: Frames,
    /// How many topics take turns in what is received; with one, it is [`TOPIC`].
    pub topics: usize,
    pub filters: usize,
    pub subscribers: usize,
    pub broker: Broker,
}

/// How the process is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Under {
    Nothing,
    /// Counts instructions, of the whole process.
    Callgrind,
    /// Counts system calls, of all threads. It slows them down, so that more may be done by one than else.
    Strace,
}

/// What a process did.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub report: Report,
    /// Messages, which may be a few more than asked for, so that the last frame is full.
    pub count: usize,
    /// What the process was run for: instructions, or system calls.
    pub counted: Option<f64>,
}

/// Longer than the slowest peer takes for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same where every instruction is counted.
pub const MUCH_PATIENCE: Duration = Duration::from_secs(180);

/// The directory where the profiles of counted instructions are kept, if they are: an environment variable.
const PROFILES: &str = "ROAD_PROFILES";

/// How long a client may take to end once it has closed its output.
const GRACE: Duration = Duration::from_secs(5);

pub fn run(client: Client, load: Load, under: Under) -> Result<Outcome> {
    let mut program = elsewhere::command(client)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let root = std::env::temp_dir().join(format!("road-{}.pem", std::process::id()));
    let broker = if client.is_over_tls() {
        let authority = Authority::new();
        std::fs::write(&root, authority.pem())?;
        program.env(ROOT, &root);
        runtime.block_on(NullBroker::start_tls(&authority.server()))?
    } else {
        runtime.block_on(NullBroker::start())?
    };
    if load.broker == Broker::Awake {
        broker.stay_awake();
    }
    let (count, flood) = flood(client, load);
    if let (true, [ball]) = (load.verb.is_ping_pong(), &flood[..]) {
        broker.reply_with(ball.clone());
    }
    let work = Work {
        verb: load.verb,
        url: broker.url(),
        count,
        window: load.window,
        payload: load.payload,
        filters: load.filters,
        subscribers: load.subscribers,
    };
    program.args(work.args());
    // By all that tells the loads of row 18 apart.
    let (name, verb, window) = (client.name(), load.verb.name(), load.window);
    let run = format!("{name}-{verb}-{window}-{count}").replace('/', "-");
    let mut child = Guarded::start(wrapped(program, under, &run))?;
    let lines = BufReader::new(child.0.stdout.take().ok_or("no output")?).lines();
    let mut errors = child.0.stderr.take().ok_or("no errors")?;
    let said = std::thread::spawn(move || {
        let mut said = String::new();
        // What is no text is not looked for.
        let _ = errors.read_to_string(&mut said);
        said
    });
    let watch = Watch::over(&child.0, under.patience());
    let mut report = None;
    for line in lines {
        let line = line?;
        if line == "ready" {
            feed(&runtime, &broker, under.patience(), load, count, &flood)?;
            if client == Client::Crt {
                broker.flood([packets::publish(elsewhere::DONE, None, &[])]);
            }
        }
        report = report.or(Report::from_line(&line));
    }
    let in_time = watch.end();
    child.end()?;
    // The file is there for one client only.
    let _ = std::fs::remove_file(&root);
    let said = said.join().map_err(|_| "its errors could not be read")?;
    if !in_time {
        return Err(format!("not done after {} s", under.patience().as_secs()).into());
    }
    let report = report.ok_or_else(|| {
        let own = said.lines().find(|line| line.starts_with("road:"));
        let why = own.or(said.lines().last());
        why.unwrap_or("it ended without a word").to_owned()
    })?;
    if matches!(
        load.verb,
        Verb::Publish
            | Verb::PublishAck
            | Verb::PublishExact
            | Verb::PingPong
            | Verb::PingPongInTask
    ) {
        let wanted = count as u64;
        wait(&runtime, &broker, under.patience(), |counts| {
            counts.published >= wanted
        })
        .map_err(|_| format!("not all was published: {:?}", broker.counts()))?;
    }
    let counted = match under {
        Under::Nothing => None,
        Under::Callgrind => instructions(&said),
        Under::Strace => system_calls(&said),
    };
    Ok(Outcome {
        report,
        count,
        counted,
    })
}

/// A child that does not outlive this.
struct Guarded(Child);

impl Guarded {
    fn start(mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let program = command.get_program().to_owned();
        let child = command.spawn();
        Ok(Self(child.map_err(|error| {
            format!("{}: {error}", program.display())
        })?))
    }

    /// Waits until it has ended, having closed its output.
    fn end(mut self) -> Result<()> {
        let until = Instant::now() + GRACE;
        while self.0.try_wait()?.is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ends a child that does not end itself in time, so that its output does.
struct Watch {
    release: mpsc::Sender<()>,
    watcher: JoinHandle<bool>,
}

impl Watch {
    fn over(child: &Child, patience: Duration) -> Self {
        let (release, released) = mpsc::channel();
        let id = i32::try_from(child.id()).ok();
        let id = id.and_then(Pid::from_raw);
        let watcher = std::thread::spawn(move || {
            let in_time = released.recv_timeout(patience) != Err(RecvTimeoutError::Timeout);
            if let (false, Some(id)) = (in_time, id) {
                // Nobody has waited for it yet, so that the number is still its own.
                let _ = kill_process(id, Signal::KILL);
            }
            in_time
        });
        Self { release, watcher }
    }

    /// Whether it was in time.
    fn end(self) -> bool {
        drop(self.release);
        self.watcher.join().unwrap_or(false)
    }
}

impl Under {
    fn patience(self) -> Duration {
        match self {
            Self::Callgrind => MUCH_PATIENCE,
            Self::Nothing | Self::Strace => PATIENCE,
        }
    }
}

fn wrapped(program: Command, under: Under, run: &str) -> Command {
    let mut command = match under {
        Under::Nothing => return program,
        Under::Callgrind => {
            let mut valgrind = Command::new("valgrind");
            let profile = match std::env::var_os(PROFILES) {
                Some(directory) => Path::new(&directory).join(format!("{run}.callgrind")),
                None => "/dev/null".into(),
            };
            let mut out = OsString::from("--callgrind-out-file=");
            out.push(profile);
            valgrind.arg("--tool=callgrind").arg(out);
            valgrind
        }
        Under::Strace => {
            let mut strace = Command::new("strace");
            strace.args(["-f", "-c"]);
            strace
        }
    };
    command.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

fn instructions(said: &str) -> Option<f64> {
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    collected.and_then(|(_, number)| number.trim().parse().ok())
}

/// The sum of the calls in strace's table: share, seconds, microseconds a call, calls, perhaps errors, name.
fn system_calls(said: &str) -> Option<f64> {
    let calls: Vec<f64> = said
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields[..].first()?.parse::<f64>().ok()?;
            let is_call = matches!(fields.len(), 5 | 6) && fields.last() != Some(&"total");
            is_call.then(|| fields[3].parse().ok())?
        })
        .collect();
    (!calls.is_empty()).then(|| calls.iter().sum())
}

/// What the broker will send, and for how many messages that is enough.
fn flood(client: Client, load: Load) -> (usize, Vec<Bytes>) {
    let payload = match client.speaks_json() {
        true => work::json(load.payload),
        false => work::payload(load.payload),
    };
    let packet = |id| packets::publish(TOPIC, id, &payload);
    match (load.verb, load.frames) {
        (Verb::Receive, Frames::OnePacket) if load.topics > 1 => {
            let turn: Vec<Bytes> = (0..load.topics)
                .map(|at| packets::publish(&format!("devices/{at}/temperature"), None, &payload))
                .collect();
            let all = turn.iter().cycle().take(load.count);
            (load.count, all.cloned().collect())
        }
        (Verb::Receive, Frames::OnePacket) => (load.count, vec![packet(None); load.count]),
        (Verb::Receive, Frames::Cut(frame)) => packets::cut(&packet(None), load.count, frame),
        (Verb::ReceiveAck, _) => {
            let ids = 1..=u16::try_from(load.window).unwrap_or(u16::MAX);
            let window = ids.map(|id| packet(Some(id))).collect();
            (load.count.next_multiple_of(load.window), window)
        }
        (Verb::PingPong | Verb::PingPongInTask, _) => (load.count, vec![packet(None)]),
        _ => (load.count, Vec::new()),
    }
}

/// Sends what the client waits for, now that it is ready.
fn feed(
    runtime: &Runtime,
    broker: &NullBroker,
    patience: Duration,
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
                    wait(runtime, broker, patience, |counts| {
                        counts.acknowledged >= sent
                    })?;
                }
            }
        }
        // In a ping-pong the broker answers by itself.
        _ => {}
    }
    Ok(())
}

fn wait(
    runtime: &Runtime,
    broker: &NullBroker,
    patience: Duration,
    wanted: impl FnMut(&Counts) -> bool,
) -> Result<()> {
    runtime.block_on(async {
        let waited = tokio::time::timeout(patience, broker.wait_for(wanted)).await;
        waited.map_err(|_| format!("the broker waited in vain: {:?}", broker.counts()))?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_are_understood() {
        let strace = "% time     seconds  usecs/call     calls    errors syscall\n\
                      ------ ----------- ----------- --------- --------- ----------------\n\
                      \u{20}50.00    0.000010           1         7         3 recvfrom\n\
                      \u{20}50.00    0.000010           1        35           sendto\n\
                      ------ ----------- ----------- --------- --------- ----------------\n\
                      100.00    0.000020           1        42         3 total\n";
        assert_eq!(system_calls(strace), Some(42.0));
        assert_eq!(system_calls("road: hung"), None);
        let valgrind = "==7== \n==7== Collected : 123456\n";
        assert_eq!(instructions(valgrind), Some(123_456.0));
    }
}
