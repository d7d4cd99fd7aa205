//! One run: the broker, the witness, one life of the publisher after the other, and the judgement.

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use pubsub_generic::ProtocolVersion;
use testkit::{
    mosquitto::Installation,
    probe::{Probe, ProbeError},
};
use tokio::{
    net::TcpStream,
    task::{JoinSet, spawn_blocking},
};

use crate::{
    PUBLISHER, broker, name,
    random::Random,
    witness::{self, Arrivals, END},
};

/// A publisher may have so many messages called stored before it is killed, at most.
const STORED_END: u64 = 300;
/// One kill in so many comes at a time instead: it may hit the opening of the file, or the connecting.
const EARLY: u64 = 4;
/// That time is shorter than this, in microseconds.
const EARLY_END: u64 = 100_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) version: ProtocolVersion,
    pub(crate) kills: u32,
    pub(crate) seed: u64,
}

#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) rows: Vec<(&'static str, u64)>,
    pub(crate) violations: Vec<String>,
}

type Failure = Box<dyn Error + Send + Sync>;

/// What the publishers told.
#[derive(Debug, Default)]
struct Told {
    stored: BTreeSet<String>,
    restored: u64,
    /// Lives that found something to go on with.
    resumed: u64,
    /// Killed before they said anything.
    silent: u64,
    failures: Vec<String>,
}

/// Runs it to the end.
///
/// # Errors
///
/// When the stage cannot be set. What goes missing is among the figures.
pub(crate) async fn run(mosquitto: &Installation, plan: Plan) -> Result<Figures, Failure> {
    let broker = broker::start(mosquitto).await?;
    let mut beside = JoinSet::new();
    beside.spawn(broker::keep_awake(
        TcpStream::connect(broker.tcp_address()).await?,
    ));
    let arrivals = Arc::new(Arrivals::default());
    let probe = witness::subscribe(&broker.ws_url()).await?;
    let watching = tokio::spawn({
        let arrivals = Arc::clone(&arrivals);
        async move { witness::watch(probe, &arrivals).await }
    });

    let directory = tempfile::tempdir()?;
    let file = directory.path().join("session");
    let begin = Instant::now();
    let url = broker.ws_url();
    let told = spawn_blocking({
        let file = file.clone();
        move || live_and_die(&url, &file, plan)
    })
    .await??;
    let elapsed = begin.elapsed();

    // Delivered in order: what comes after this was not sent before it.
    let mut last = Probe::connect(&broker.ws_url(), "last").await?;
    last.publish_acknowledged(END, b"").await?;
    let watched: Result<(), ProbeError> = watching.await?;
    watched?;

    let bytes = fs::metadata(&file)?.len();
    Ok(judge(plan, &told, &arrivals, elapsed, bytes))
}

fn live_and_die(url: &str, file: &Path, plan: Plan) -> Result<Told, Failure> {
    let mut random = Random::seeded(plan.seed);
    let mut told = Told::default();
    for life in 0..=plan.kills {
        let is_last = life == plan.kills;
        let mut publisher = Command::new(env::current_exe()?)
            .args([PUBLISHER, url])
            .arg(file)
            .args([name(plan.version), &life.to_string(), &is_last.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = publisher.stdout.take().ok_or("no standard output")?;
        let mut lines = BufReader::new(lines).split(b'\n');
        let mut heard = 0;
        if !is_last {
            if random.below(EARLY) == 0 {
                thread::sleep(Duration::from_micros(random.below(EARLY_END)));
            } else {
                let until = told.stored.len() + 1 + random.below(STORED_END) as usize;
                while told.stored.len() < until {
                    let Some(line) = lines.next() else { break };
                    told.hear(&line?);
                    heard += 1;
                }
            }
            publisher.kill()?;
        }
        // What it had said when it died.
        for line in lines {
            told.hear(&line?);
            heard += 1;
        }
        told.silent += u64::from(heard == 0);
        let status = publisher.wait()?;
        if is_last && !status.success() {
            told.failures
                .push(format!("the last publisher ended with {status}"));
        }
    }
    Ok(told)
}

impl Told {
    fn hear(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        match line.split_once(' ') {
            Some(("stored", name)) => drop(self.stored.insert(name.to_owned())),
            Some(("restored", count)) => {
                let count = count.parse().unwrap_or(0);
                self.restored += count;
                self.resumed += u64::from(count > 0);
            }
            _ => self.failures.push(line.into_owned()),
        }
    }
}

fn judge(plan: Plan, told: &Told, arrivals: &Arrivals, elapsed: Duration, bytes: u64) -> Figures {
    let mut violations = told.failures.clone();
    let mut rows = vec![
        ("kills", u64::from(plan.kills)),
        ("… before the process said anything", told.silent),
        ("starts with publishes to go on with", told.resumed),
        ("publishes restored", told.restored),
    ];
    for (qos, titles) in [
        (
            "1 ",
            [
                "QoS 1: called stored",
                "… lost",
                "… arrived, called stored or not",
                "… more than once (allowed)",
            ],
        ),
        (
            "2 ",
            [
                "QoS 2: called stored",
                "… lost",
                "… arrived, called stored or not",
                "… more than once",
            ],
        ),
    ] {
        let stored = || told.stored.iter().filter(|name| name.starts_with(qos));
        let lost: Vec<&String> = stored().filter(|name| arrivals.times(name) == 0).collect();
        let (arrived, repeated) = arrivals.counts(qos);
        let counts = [stored().count(), lost.len(), arrived, repeated];
        rows.extend(titles.into_iter().zip(counts.map(|count| count as u64)));
        if !lost.is_empty() {
            violations.push(format!("lost: {:?}", &lost[..lost.len().min(10)]));
        }
        if qos == "2 " && repeated > 0 {
            violations.push(format!("{repeated} messages at QoS 2 came more than once"));
        }
    }
    rows.push(("size of the file at the end, KiB", bytes / 1024));
    rows.push(("seconds", elapsed.as_secs()));
    Figures { rows, violations }
}
