//! The road from the socket to the application and back, beside peers, in the same run.
//!
//! ```text
//! cargo xtask bench --road                          every row
//! cargo xtask bench --road -- --rows 1,4,7          these rows
//! cargo xtask bench --road -- --rounds 5            the median of five rounds instead of three
//! cargo xtask bench --road -- --divide 100          a hundredth of the messages, for a look
//! cargo xtask bench --road -- --rows 18             instructions a message (valgrind)
//! ```
//!
//! Each client runs in a process of its own, on a current-thread runtime, over plain WebSocket against
//! the null broker of `testkit` in this process. The figure is the client's CPU time, user and system,
//! for each message, so that the broker, and whoever else uses the machine, count for little. Clients
//! take turns within each round. A client that does not do all the work has no figure.

mod bare;
mod child;
#[path = "../../src/counting.rs"]
mod counting;
mod ntexes;
mod ours;
mod packets;
mod parent;
mod rows;
mod rumqtt;

use std::process::ExitCode;

use child::{Meter, Work};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Ours,
    /// Bare tokio-tungstenite with a read buffer of 16 KiB.
    Bare,
    /// The same with the default read buffer of 128 KiB.
    BareDefault,
    Rumqttc,
    Ntex,
}

impl Client {
    pub const ALL: [Self; 5] = [
        Self::Ours,
        Self::Bare,
        Self::BareDefault,
        Self::Rumqttc,
        Self::Ntex,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Bare => "T",
            Self::BareDefault => "T128",
            Self::Rumqttc => "R",
            Self::Ntex => "N",
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.split_first() {
        Some((first, rest)) if first == "client" => client(rest),
        _ => rows::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("road: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The life of a client's process.
fn client(args: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let (name, work) = args.split_first().ok_or("whose?")?;
    let client = Client::ALL.into_iter().find(|client| client.name() == name);
    let client = client.ok_or("no such client")?;
    let work = Work::from_args(work).ok_or("no such work")?;
    // A peer that hangs loses its figure, and holds nobody up.
    std::thread::spawn(|| {
        std::thread::sleep(parent::PATIENCE);
        eprintln!("road: hung");
        std::process::exit(3);
    });
    let meter = Meter::new();
    if client == Client::Ntex {
        let system = ntex::rt::System::new("road", ntex::rt::DefaultRuntime);
        return system.block_on(ntexes::run(work, meter));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match client {
            Client::Ours => ours::run(work, meter).await,
            Client::Bare => bare::run(work, Some(16 * 1024), meter).await,
            Client::BareDefault => bare::run(work, None, meter).await,
            Client::Rumqttc => rumqtt::run(work, meter).await,
            Client::Ntex => Ok(()),
        }
    })
}
