//! The road from the socket to the application and back, beside peers, in the same run.
//!
//! ```text
//! cargo xtask bench --road                          every row
//! cargo xtask bench --road -- --rows 1,4,7          these rows
//! cargo xtask bench --road -- --clients ours,R      these clients
//! cargo xtask bench --road -- --rounds 5            the median of five rounds instead of three
//! cargo xtask bench --road -- --divide 100          a hundredth of the messages, for a look
//! cargo xtask bench --road -- --rows 18             instructions a message (valgrind)
//! ROAD_PROFILES=/tmp cargo xtask bench --road -- --rows 18    and where they go, for callgrind_annotate
//! ```
//!
//! Each client runs in a process of its own, on a current-thread runtime, over plain WebSocket (where the
//! row does not say otherwise) against the null broker of `testkit` in this process. The figure is the
//! client's CPU time, user and system, for each message, so that the broker, and whoever else uses the
//! machine, count for little. Clients take turns within each round. A client that does not do all the work
//! in time has no figure, and the reason stands below the table.
//!
//! The broker has a processor for itself and never sleeps, but in the rows called "sleeping". Sending to one
//! that sleeps wakes a processor, which on a virtual machine is half of a round trip, for every client
//! alike, or, if the system runs both sides on one, nothing: which of the two is no matter of the client.
//!
//! Two peers are not in Rust, and are measured where they are installed:
//!
//! ```text
//! python3 -m venv target/awscrt && target/awscrt/bin/pip install awscrt==0.38.0
//! npm ci --prefix road/amplify
//! ```

mod bare;
mod child;
#[path = "../../src/counting.rs"]
mod counting;
mod elsewhere;
mod ntexes;
mod ours;
mod packets;
mod parent;
mod rows;
mod rumqtt;
mod table;
mod work;

use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use child::Meter;
use work::{Verb, Work};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Of threads too: the work may be done by another than the first.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    Ours,
    /// Bare tokio-tungstenite with a read buffer of 16 KiB.
    Bare,
    /// The same with the default read buffer of 128 KiB.
    BareDefault,
    Rumqttc,
    Ntex,
    /// aws-c-mqtt, driven from Python.
    Crt,
    /// Ours on a runtime with two worker threads.
    OursTwo,
    RumqttcTwo,
    /// Over TLS.
    OursTls,
    BareTls,
    /// Ours with every payload made of JSON and into it.
    OursJson,
    /// `@aws-amplify/pubsub` on Node, which cannot do without JSON.
    Amplify,
}

impl Client {
    pub const ALL: [Self; 12] = [
        Self::Ours,
        Self::Bare,
        Self::BareDefault,
        Self::Rumqttc,
        Self::Ntex,
        Self::Crt,
        Self::OursTwo,
        Self::RumqttcTwo,
        Self::OursTls,
        Self::BareTls,
        Self::OursJson,
        Self::Amplify,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Bare => "T",
            Self::BareDefault => "T128",
            Self::Rumqttc => "R",
            Self::Ntex => "N",
            Self::Crt => "C",
            Self::OursTwo => "ours/2",
            Self::RumqttcTwo => "R/2",
            Self::OursTls => "ours/wss",
            Self::BareTls => "T/wss",
            Self::OursJson => "ours/json",
            Self::Amplify => "A",
        }
    }

    /// The name by which one asks for it, and for its variants with it.
    pub fn family(self) -> &'static str {
        let name = self.name();
        name.split_once('/').map_or(name, |(family, _)| family)
    }

    pub fn is_over_tls(self) -> bool {
        matches!(self, Self::OursTls | Self::BareTls)
    }

    pub fn speaks_json(self) -> bool {
        matches!(self, Self::OursJson | Self::Amplify)
    }
}

fn main() -> ExitCode {
    raise_open_files();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.split_first() {
        Some((first, rest)) if first == "client" => client(rest),
        _ => table::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("road: {why}");
            ExitCode::FAILURE
        }
    }
}

/// As many open files as the system lets this process have: the idle connections are thousands.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = maximum;
    // If it cannot be, the row that needs it says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
}

/// The life of a client's process.
fn client(args: &[String]) -> Result<()> {
    let (name, work) = args.split_first().ok_or("whose?")?;
    let client = Client::ALL.into_iter().find(|client| client.name() == name);
    let client = client.ok_or("no such client")?;
    let work = Work::from_args(work).ok_or("no such work")?;
    // Whoever started this ends it when it hangs; this is for when nobody does.
    std::thread::spawn(|| {
        std::thread::sleep(parent::MUCH_PATIENCE);
        eprintln!("road: hung");
        std::process::exit(3);
    });
    let meter = Meter::new();
    if client == Client::Ntex {
        let system = ntex::rt::System::new("road", ntex::rt::DefaultRuntime);
        return system.block_on(ntexes::run(work, meter));
    }
    if matches!(client, Client::OursTwo | Client::RumqttcTwo) {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build()?;
        // As a task, so that the main thread, which is none of the two, does nothing.
        let task = match client {
            Client::OursTwo => runtime.spawn(ours::run(work, meter)),
            _ => runtime.spawn(rumqtt::run(work, meter)),
        };
        return runtime.block_on(task)?;
    }
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build()?;
    if work.verb == Verb::PingPongInTask {
        let task = match client {
            Client::Ours => runtime.spawn(ours::run(work, meter)),
            Client::Bare => runtime.spawn(bare::run(work, Some(16 * 1024), meter)),
            Client::BareDefault => runtime.spawn(bare::run(work, None, meter)),
            Client::Rumqttc => runtime.spawn(rumqtt::run(work, meter)),
            _ => return Err("not in a task".into()),
        };
        return runtime.block_on(task)?;
    }
    runtime.block_on(async {
        match client {
            Client::Ours | Client::OursTls => ours::run(work, meter).await,
            Client::OursJson => ours::run_json(work, meter).await,
            Client::Bare => bare::run(work, Some(16 * 1024), meter).await,
            Client::BareDefault => bare::run(work, None, meter).await,
            Client::BareTls => bare::run_tls(work, meter).await,
            Client::Rumqttc => rumqtt::run(work, meter).await,
            _ => Err("it runs elsewhere".into()),
        }
    })
}
