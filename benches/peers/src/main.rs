//! Our codec beside its peers: the same packets, in the same run, in turn.
//!
//! ```text
//! cargo xtask bench --peers                               CPU time per packet, allocations
//! cargo xtask bench --peers -- --filter decode/v4         only these
//! cargo xtask bench --peers -- --filter presign           signed URLs, beside the SDK's signer
//! cargo xtask bench --peers -- --instructions             instructions per packet of ours (valgrind)
//! ```
//!
//! Time is the CPU time of the thread around the measured region only, so that a neighbour's load
//! counts for little; what reading the clock costs is taken off. Peers of one workload run in turn,
//! round after round, so that noise hits all alike; a row is the best round, and a ratio is best
//! against best. A peer that does not return every packet, or does not write as many, is left out of
//! that workload.

mod adapters;
mod counting;
mod measure;
mod sign;
mod stream;

use std::process::{Command, ExitCode};

use adapters::Peer;
use measure::Clock;
use stream::{Stream, Version};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Names of our own rows begin with this.
const OURS: &str = "ours";
/// In the names of those that decode to a view over the buffer.
const BORROWED: &str = "(borrowed)";

/// What is done with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Decode,
    /// In pieces of so many bytes.
    Feed(usize),
    Encode,
}

/// Operations and the streams they run on, for one version.
struct Group {
    name: String,
    operation: Operation,
    version: Version,
}

struct Options {
    filter: String,
    peer: String,
    rounds: usize,
    instructions: bool,
    /// For one run under valgrind: passes to make, and whether the last one leaves out the region.
    passes: Option<(usize, bool)>,
}

/// The best round of one peer on one stream.
#[derive(Debug, Clone, Copy)]
struct Best {
    nanoseconds: f64,
    allocations: f64,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("peers: {why}");
            return ExitCode::from(2);
        }
    };
    let peers = adapters::all();
    if let Some((passes, skip_last)) = options.passes {
        return one(&options, &peers, passes, skip_last);
    }
    print_versions();
    for group in groups() {
        let streams: Vec<Stream> = stream::all(group.version)
            .into_iter()
            .filter(|stream| {
                group.takes(stream)
                    && format!("{}/{}", group.name, stream.name).contains(&options.filter)
            })
            .collect();
        if streams.is_empty() {
            continue;
        }
        let rows: Vec<&Peer> = peers
            .iter()
            .filter(|peer| peer.version == group.version && peer.name.contains(&options.peer))
            .filter(|peer| group.operation.has(peer))
            .collect();
        if options.instructions {
            instructions(&group, &streams, &rows);
        } else {
            times(&group, &streams, &rows, options.rounds);
        }
    }
    let signs = !options.instructions && options.peer.is_empty();
    if signs && "presign".contains(&options.filter) {
        sign::run(options.rounds);
    }
    ExitCode::SUCCESS
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        filter: String::new(),
        peer: String::new(),
        rounds: 40,
        instructions: false,
        passes: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        let number = |text: String| {
            text.parse::<usize>()
                .map_err(|_| format!("{text:?} is no number"))
        };
        match arg.as_str() {
            "--filter" => options.filter = value()?,
            "--peer" => options.peer = value()?,
            "--rounds" => options.rounds = number(value()?)?.max(2),
            "--instructions" => options.instructions = true,
            "--passes" => options.passes = Some((number(value()?)?, false)),
            "--passes-skip-last" => options.passes = Some((number(value()?)?, true)),
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    Ok(options)
}

fn groups() -> Vec<Group> {
    let mut groups = Vec::new();
    for version in Version::ALL {
        let operations = [
            ("decode", Operation::Decode),
            ("decode-in-1500", Operation::Feed(1500)),
            ("decode-in-7", Operation::Feed(7)),
            ("decode-in-1", Operation::Feed(1)),
            ("encode", Operation::Encode),
        ];
        for (name, operation) in operations {
            groups.push(Group {
                name: format!("{name}/{}", version.name()),
                operation,
                version,
            });
        }
    }
    groups
}

impl Group {
    /// Pieces are fed from the mixed stream only.
    fn takes(&self, stream: &Stream) -> bool {
        !matches!(self.operation, Operation::Feed(_)) || stream.name == "9-mixed"
    }
}

impl Operation {
    fn has(self, peer: &Peer) -> bool {
        match self {
            Self::Decode => peer.decode.is_some(),
            Self::Feed(_) => peer.feed.is_some(),
            Self::Encode => peer.encode.is_some(),
        }
    }

    /// One pass; whether all came out that should.
    fn pass(self, peer: &Peer, stream: &Stream, clock: &mut Clock) -> bool {
        match self {
            Self::Decode => peer
                .decode
                .is_some_and(|run| run(&stream.bytes, clock) == stream.packets),
            Self::Feed(piece) => peer
                .feed
                .is_some_and(|run| run(&stream.bytes, piece, clock) == stream.packets),
            Self::Encode => peer
                .encode
                .is_some_and(|run| run(&stream.bytes, clock) == stream.packets),
        }
    }
}

/// Rounds in turn over all peers; the first one only warms up.
fn measure(
    operation: Operation,
    stream: &Stream,
    peers: &[&Peer],
    rounds: usize,
) -> Vec<Option<Best>> {
    let mut best: Vec<Option<Best>> = vec![None; peers.len()];
    let mut complete = vec![true; peers.len()];
    let packets = stream.packets as f64;
    for round in 0..rounds {
        for (at, peer) in peers.iter().enumerate() {
            let mut clock = Clock::default();
            complete[at] &= operation.pass(peer, stream, &mut clock);
            if round > 0 && complete[at] {
                let nanoseconds = clock.nanoseconds as f64 / packets;
                let allocations = clock.allocations as f64 / packets;
                let faster = best[at].is_none_or(|best| nanoseconds < best.nanoseconds);
                if faster {
                    best[at] = Some(Best {
                        nanoseconds,
                        allocations,
                    });
                }
            }
        }
    }
    best.into_iter()
        .zip(complete)
        .map(|(best, complete)| best.filter(|_| complete))
        .collect()
}

fn times(group: &Group, streams: &[Stream], peers: &[&Peer], rounds: usize) {
    let results: Vec<Vec<Option<Best>>> = streams
        .iter()
        .map(|stream| measure(group.operation, stream, peers, rounds))
        .collect();
    table(
        &format!("{}: ns per packet", group.name),
        streams,
        peers,
        &results,
        |best| number(best.nanoseconds),
    );
    table(
        &format!("{}: allocations per packet", group.name),
        streams,
        peers,
        &results,
        |best| format!("{:.2}", best.allocations),
    );
    for (own, peer) in peers.iter().enumerate().filter(|(_, peer)| is_ours(peer)) {
        ratios(group, streams, peers, &results, own, peer);
    }
}

/// Best against best. A packet that owns its bytes is held against packets that do, a view against
/// everything.
fn ratios(
    group: &Group,
    streams: &[Stream],
    peers: &[&Peer],
    results: &[Vec<Option<Best>>],
    own: usize,
    peer: &Peer,
) {
    let views_too = peer.name.contains(BORROWED) || group.operation == Operation::Encode;
    println!("### {}: best peer / {}\n", group.name, peer.name);
    println!(
        "| workload | best peer | its ns | ours, ns | ratio |\n| --- | --- | ---: | ---: | ---: |"
    );
    for (stream, row) in streams.iter().zip(results) {
        let theirs = peers
            .iter()
            .zip(row)
            .filter(|(peer, _)| !is_ours(peer) && (views_too || !peer.name.contains(BORROWED)))
            .filter_map(|(peer, best)| Some((peer.name, (*best)?.nanoseconds)));
        let Some((name, nanoseconds)) = theirs.min_by(|a, b| a.1.total_cmp(&b.1)) else {
            continue;
        };
        let Some(own) = row[own] else { continue };
        println!(
            "| {} | {name} | {} | {} | {:.2}x |",
            stream.name,
            number(nanoseconds),
            number(own.nanoseconds),
            nanoseconds / own.nanoseconds
        );
    }
    println!();
}

fn is_ours(peer: &Peer) -> bool {
    peer.name.starts_with(OURS)
}

fn table(
    title: &str,
    streams: &[Stream],
    peers: &[&Peer],
    results: &[Vec<Option<Best>>],
    cell: impl Fn(&Best) -> String,
) {
    println!("### {title}\n");
    let names: Vec<&str> = streams.iter().map(|stream| stream.name).collect();
    println!(
        "| | {} |\n| --- |{}",
        names.join(" | "),
        " ---: |".repeat(names.len())
    );
    for (at, peer) in peers.iter().enumerate() {
        let cells: Vec<String> = results
            .iter()
            .map(|row| row[at].as_ref().map_or(String::new(), &cell))
            .collect();
        println!("| {} | {} |", peer.name, cells.join(" | "));
    }
    println!();
}

fn number(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.2}")
    } else if value < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// Instructions per packet of the second, warm pass: two runs under callgrind, one of which leaves
/// the region of that pass out, and the difference between them.
fn instructions(group: &Group, streams: &[Stream], peers: &[&Peer]) {
    println!("### {}: instructions per packet\n", group.name);
    let names: Vec<&str> = streams.iter().map(|stream| stream.name).collect();
    println!(
        "| | {} |\n| --- |{}",
        names.join(" | "),
        " ---: |".repeat(names.len())
    );
    for peer in peers {
        let cells: Vec<String> = streams
            .iter()
            .map(|stream| {
                let case = format!("{}/{}", group.name, stream.name);
                let with = callgrind(&case, peer.name, "--passes")?;
                let without = callgrind(&case, peer.name, "--passes-skip-last")?;
                Some(format!("{:.0}", (with - without) / stream.packets as f64))
            })
            .map(Option::unwrap_or_default)
            .collect();
        println!("| {} | {} |", peer.name, cells.join(" | "));
    }
    println!();
}

fn callgrind(case: &str, peer: &str, passes: &str) -> Option<f64> {
    let program = std::env::current_exe().ok()?;
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program);
    let output = valgrind
        .args(["--filter", case, "--peer", peer, passes, "2"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected :"))?
        .1;
    output
        .status
        .success()
        .then(|| collected.trim().parse().ok())?
}

/// The passes of one peer on one stream, under valgrind.
fn one(options: &Options, peers: &[Peer], passes: usize, skip_last: bool) -> ExitCode {
    for group in groups() {
        if !options.filter.starts_with(&format!("{}/", group.name)) {
            continue;
        }
        for stream in stream::all(group.version) {
            let case = format!("{}/{}", group.name, stream.name);
            let peer = peers
                .iter()
                .find(|peer| peer.version == group.version && peer.name == options.peer);
            let Some(peer) = peer.filter(|_| case == options.filter && group.takes(&stream)) else {
                continue;
            };
            for pass in 0..passes {
                let skip = skip_last && pass + 1 == passes;
                let mut clock = Clock {
                    skip,
                    ..Clock::default()
                };
                if !group.operation.pass(peer, &stream, &mut clock) && !skip {
                    return ExitCode::FAILURE;
                }
            }
            return ExitCode::SUCCESS;
        }
    }
    ExitCode::FAILURE
}

/// The versions measured, as this package pins them: the lock file may hold another for the road.
fn print_versions() {
    let manifest = include_str!("../Cargo.toml");
    let names = [
        "mqttrs",
        "mqttbytes",
        "rumqttc",
        "rmqtt-codec",
        "ntex-mqtt",
        "mqtt-proto",
        "mqtt-protocol-core",
    ];
    let versions = names.map(|name| {
        let pin = manifest
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))
            .find_map(|rest| rest.split_once("\"=")?.1.split('"').next());
        format!("{name} {}", pin.unwrap_or("of an unknown version"))
    });
    println!("Peers: {}.\n", versions.join(", "));
}
