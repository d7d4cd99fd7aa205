//! One run: the broker, the witness and the feeder, one life after the other, and the judgement.

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
    sync::watch,
    task::{JoinSet, spawn_blocking},
};

use crate::{
    LIFE, broker,
    feeder::{self, Progress},
    name,
    random::Random,
    receipts::Receipts,
    witness::{self, Arrivals, END},
};

/// A life may have so many messages called stored, and taken, before it is killed, at most.
const DEEDS_END: u64 = 600;
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

/// What the lives told.
#[derive(Debug)]
struct Told {
    life: u32,
    stored: BTreeSet<String>,
    takes: usize,
    receipts: Receipts,
    progress: watch::Sender<Progress>,
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
    // Every packet is in the log.
    let broker = broker::start(mosquitto, &["debug"]).await?;
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
    let (progress, progressed) = watch::channel(Progress::default());
    let feeding = tokio::spawn(feeder::feed(broker.ws_url(), plan.seed, progressed));
    let url = broker.ws_url();
    let told = spawn_blocking({
        let (file, log) = (file.clone(), broker.directory().join("log"));
        move || live_and_die(&url, &file, &log, plan, progress)
    })
    .await??;
    let elapsed = begin.elapsed();
    let fed = feeding.await??;

    // Delivered in order: what comes after this was not sent before it.
    let mut last = Probe::connect(&broker.ws_url(), "last").await?;
    last.publish_acknowledged(END, b"").await?;
    let watched: Result<(), ProbeError> = watching.await?;
    watched?;

    let bytes = fs::metadata(&file)?.len();
    Ok(judge(plan, &told, &arrivals, &fed, elapsed, bytes))
}

fn live_and_die(
    url: &str,
    file: &Path,
    log: &Path,
    plan: Plan,
    progress: watch::Sender<Progress>,
) -> Result<Told, Failure> {
    let mut random = Random::seeded(plan.seed);
    let mut told = Told {
        life: 0,
        stored: BTreeSet::new(),
        takes: 0,
        receipts: Receipts::default(),
        progress,
        restored: 0,
        resumed: 0,
        silent: 0,
        failures: Vec::new(),
    };
    for life in 0..=plan.kills {
        told.life = life;
        let is_last = life == plan.kills;
        told.progress.send_modify(|now| now.is_last = is_last);
        let mut victim = Command::new(env::current_exe()?)
            .args([LIFE, url])
            .arg(file)
            .args([name(plan.version), &life.to_string(), &is_last.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = victim.stdout.take().ok_or("no standard output")?;
        let mut lines = BufReader::new(lines).split(b'\n');
        let mut heard = 0;
        if !is_last {
            if random.below(EARLY) == 0 {
                thread::sleep(Duration::from_micros(random.below(EARLY_END)));
            } else {
                let until = told.deeds() + 1 + random.below(DEEDS_END) as usize;
                while told.deeds() < until {
                    let Some(line) = lines.next() else { break };
                    told.hear(&line?);
                    heard += 1;
                }
            }
            victim.kill()?;
        }
        // What it had said when it died.
        for line in lines {
            told.hear(&line?);
            heard += 1;
        }
        told.silent += u64::from(heard == 0);
        let status = victim.wait()?;
        if is_last && !status.success() {
            told.failures
                .push(format!("the last life ended with {status}"));
        }
        told.receipts.look(life, log, file)?;
        let answered = told.receipts.answered();
        told.progress.send_modify(|now| now.answered = answered);
    }
    Ok(told)
}

impl Told {
    fn deeds(&self) -> usize {
        self.stored.len() + self.takes
    }

    fn hear(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        match line.split_once(' ') {
            Some(("stored", name)) => drop(self.stored.insert(name.to_owned())),
            Some(("took", name)) => {
                self.receipts.took(name, self.life);
                self.takes += 1;
            }
            None if line == "subscribed" => {
                self.progress.send_modify(|now| now.has_subscribed = true);
            }
            Some(("restored", count)) => {
                let count = count.parse().unwrap_or(0);
                self.restored += count;
                self.resumed += u64::from(count > 0);
            }
            _ => self.failures.push(line.into_owned()),
        }
    }
}

fn judge(
    plan: Plan,
    told: &Told,
    arrivals: &Arrivals,
    fed: &BTreeSet<String>,
    elapsed: Duration,
    bytes: u64,
) -> Figures {
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
    let receipts = &told.receipts;
    for (qos, titles) in [
        (
            "1 ",
            [
                "QoS 1: sent to it",
                "… lost",
                "… handed over more than once (allowed)",
            ],
        ),
        (
            "2 ",
            [
                "QoS 2: sent to it",
                "… lost",
                "… killed before the receipt was stored, and handed over again",
            ],
        ),
    ] {
        let sent = fed.iter().filter(|name| name.starts_with(qos)).count();
        let lost = receipts.lost(fed, qos);
        let counts = [sent, lost.len(), receipts.repeated(qos)];
        rows.extend(titles.into_iter().zip(counts.map(|count| count as u64)));
        if !lost.is_empty() {
            violations.push(format!("never came: {:?}", &lost[..lost.len().min(10)]));
        }
    }
    let again = receipts.again();
    rows.push(("… receipt stored", receipts.settled() as u64));
    rows.push(("… … and handed over again", again.len() as u64));
    if !again.is_empty() {
        violations.push(format!("came again: {:?}", &again[..again.len().min(10)]));
    }
    rows.push(("size of the file at the end, KiB", bytes / 1024));
    rows.push(("seconds", elapsed.as_secs()));
    Figures { rows, violations }
}
