//! What a session store costs a publish at QoS 1: against a broker that does nothing but confirm, without a store, with one in
//! memory, and with one in a file, with and without forcing each group to the disk.
//!
//! ```text
//! cargo run --release --example store-cost [MESSAGES]
//! ```
//!
//! The broker is a process of its own, so that the processor time is the client's. A table of messages a second, processor time
//! and groups of writes for each store, with one message under way at a time and with many. Linux alone tells a process its
//! processor time where this looks for it.

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use pubsub_core::{PubSub, QoS};
use pubsub_generic::{
    Change, DEFAULT_NAME, FileSessionStore, FileStoreOptions, MemorySessionStore, MqttOptions,
    MqttProvider, Record, SessionMode, SessionStore, StoreError, SyncPolicy,
};
use testkit::null_broker::NullBroker;

/// The first word of the command line of the broker's process.
const BROKER: &str = "broker";
/// Publishes under way: one as by a caller that waits, and a window that a busy one keeps full.
const WINDOWS: [usize; 2] = [1, 256];
const PAYLOAD: [u8; 64] = [b'x'; 64];
/// What a process's times are counted in, a second. Linux has not changed it in twenty years.
const TICKS: f64 = 100.0;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let first = env::args().nth(1);
    if first.as_deref() == Some(BROKER) {
        let broker = NullBroker::start().await?;
        println!("{}", broker.url());
        // Until the other end goes.
        std::io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    let messages: usize = first.map_or(Ok(20_000), |count| count.parse())?;
    println!(
        "| store | under way | messages | a second | processor µs each | groups | messages a group |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for window in WINDOWS {
        for kind in [
            Kind::None,
            Kind::Memory,
            Kind::File(SyncPolicy::Never),
            Kind::File(SyncPolicy::EachGroup),
        ] {
            let messages = if window == 1 { messages / 10 } else { messages };
            let figures = measure(kind, window, messages).await?;
            println!("| {} | {window} | {messages} | {figures} |", kind.name());
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    None,
    Memory,
    File(SyncPolicy),
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Memory => "memory",
            Self::File(SyncPolicy::EachGroup) => "file, each group forced to the disk",
            Self::File(_) => "file, left to the system",
        }
    }
}

/// Counts the groups.
struct Counting<S>(S, Arc<AtomicU64>);

impl<S: SessionStore> SessionStore for Counting<S> {
    fn load(&self) -> Result<Vec<Record>, StoreError> {
        self.0.load()
    }

    fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.write(changes)
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.0.clear()
    }
}

async fn measure(kind: Kind, window: usize, messages: usize) -> Result<String, Failure> {
    let mut broker = Command::new(env::current_exe()?)
        .arg(BROKER)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut url = String::new();
    let out = broker.stdout.take().ok_or("no standard output")?;
    BufReader::new(out).read_line(&mut url)?;

    let directory = tempfile::tempdir_in(".")?;
    let groups = Arc::new(AtomicU64::new(0));
    let options = MqttOptions::new(url.trim())
        .client_id("store-cost")
        .session(SessionMode::Persistent {
            expiry: Duration::from_secs(3600),
        });
    let options = match kind {
        Kind::None => options,
        Kind::Memory => options.store(Counting(MemorySessionStore::new(), Arc::clone(&groups))),
        Kind::File(sync) => {
            let mut settings = FileStoreOptions::default();
            settings.sync = sync;
            let file = FileSessionStore::open_with(directory.path().join("session"), settings)?;
            options.store(Counting(file, Arc::clone(&groups)))
        }
    };
    let pubsub = PubSub::new();
    pubsub.add_provider(DEFAULT_NAME, MqttProvider::new(options)?)?;
    publish(&pubsub, window, window * 4).await?;
    groups.store(0, Ordering::Relaxed);
    let (begin, busy) = (Instant::now(), processor_time()?);
    publish(&pubsub, window, messages).await?;
    let (elapsed, busy) = (begin.elapsed().as_secs_f64(), processor_time()? - busy);
    let groups = groups.load(Ordering::Relaxed);
    pubsub.close().await?;
    drop(broker.stdin.take());
    broker.wait()?;
    let count = messages as f64;
    let a_group = match groups {
        0 => "".to_owned(),
        groups => format!("{:.1}", count / groups as f64),
    };
    Ok(format!(
        "{:.0} | {:.1} | {groups} | {a_group}",
        count / elapsed,
        busy / count * 1e6
    ))
}

/// Returns once all of them are confirmed.
async fn publish(pubsub: &PubSub, window: usize, messages: usize) -> Result<(), Failure> {
    let mut under_way = FuturesUnordered::new();
    for _ in 0..messages {
        if under_way.len() == window
            && let Some(outcome) = under_way.next().await
        {
            let _: pubsub_core::Delivered = outcome?;
        }
        let publish = pubsub.publish("cost", &PAYLOAD[..]).qos(QoS::AtLeastOnce);
        let tickets = publish.send_each()?;
        under_way.extend(tickets.into_iter().map(|ticket| ticket.receipt));
    }
    while let Some(outcome) = under_way.next().await {
        outcome?;
    }
    Ok(())
}

/// Of all threads, user and system, in seconds.
fn processor_time() -> Result<f64, Failure> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(") ").ok_or("no process status")?.1;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS)
}
