//! The rows, what is asked of each, and the table of what came out.

use crate::Client::{self, Bare, BareDefault, Ntex, Ours, Rumqttc};
use crate::child::{Report, Verb};
use crate::parent::{self, Frames, Load, Outcome, Under};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A bound on our figure: a factor on a peer's, or a number, of which all hold.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Times(f64, Client),
    /// So much more than a peer's.
    Plus(f64, Client),
    AtMost(f64),
}
use Bound::{AtMost, Plus, Times};

/// What is read off a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    /// Microseconds of CPU for each message.
    Cpu,
    /// Microseconds until half of the round trips were over; the 99th and 99.9th percentile beside it.
    Latency,
    /// KiB resident for each connection.
    Resident,
    /// MiB resident at the most.
    Peak,
    /// For each message.
    Allocations,
    Instructions,
}

struct Row {
    /// As numbered in the list of goals.
    number: &'static str,
    what: &'static str,
    figure: Figure,
    load: Load,
    clients: &'static [Client],
    must: &'static [Bound],
    goal: &'static [Bound],
}

const EVERY: &[Client] = &[Ours, Bare, BareDefault, Rumqttc, Ntex];
const SMALL: usize = 64;
const LARGE: usize = 16 * 1024;

const fn load(verb: Verb, count: usize, window: usize, payload: usize) -> Load {
    Load {
        verb,
        count,
        window,
        payload,
        frames: Frames::OnePacket,
    }
}

const fn cut(frame: usize) -> Load {
    Load {
        verb: Verb::Receive,
        count: 400_000,
        window: 0,
        payload: SMALL,
        frames: Frames::Cut(frame),
    }
}

const fn row(
    number: &'static str,
    what: &'static str,
    figure: Figure,
    load: Load,
    must: &'static [Bound],
    goal: &'static [Bound],
) -> Row {
    Row {
        number,
        what,
        figure,
        load,
        clients: EVERY,
        must,
        goal,
    }
}

const RECEIVE: Load = load(Verb::Receive, 400_000, 0, SMALL);
const PUBLISH: Load = load(Verb::Publish, 200_000, 1_000, SMALL);
const PUBLISH_ACK: Load = load(Verb::PublishAck, 100_000, 100, SMALL);
const PING_PONG: Load = load(Verb::PingPong, 5_000, 0, SMALL);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("1", "receive QoS 0, 64 B, one packet a frame", Figure::Cpu, RECEIVE,
        &[Times(0.6, Rumqttc), Times(1.8, Bare)], &[Times(0.33, Rumqttc)]),
    row("2", "the same, 16 KiB frames of many packets", Figure::Cpu, cut(16 * 1024),
        &[Times(0.6, Rumqttc)], &[Times(0.35, Rumqttc)]),
    row("3", "the same, cut into frames of 40 B", Figure::Cpu, cut(40),
        &[Times(0.9, Rumqttc)], &[Times(0.6, Rumqttc)]),
    row("4", "publish QoS 0, 64 B, pipelined", Figure::Cpu, PUBLISH,
        &[Times(0.3, Rumqttc), Times(2.0, Ntex)], &[Times(0.1, Rumqttc), Times(0.7, Ntex)]),
    row("5", "publish QoS 0, 64 B, one at a time, flushed", Figure::Cpu, load(Verb::Publish, 50_000, 1, SMALL),
        &[Times(1.5, Bare)], &[Times(1.2, Bare)]),
    row("6", "publish QoS 1, window 20", Figure::Cpu, load(Verb::PublishAck, 100_000, 20, SMALL),
        &[Times(1.0, Ntex), Times(0.4, Rumqttc)], &[Times(0.6, Ntex), Times(0.25, Rumqttc)]),
    row("7", "publish QoS 1, window 100", Figure::Cpu, PUBLISH_ACK,
        &[Times(0.8, Ntex), Times(0.3, Rumqttc)], &[Times(0.5, Ntex), Times(0.15, Rumqttc)]),
    row("7", "publish QoS 1, window 65,519", Figure::Cpu, load(Verb::PublishAck, 200_000, 65_519, SMALL),
        &[Times(0.8, Ntex), Times(0.3, Rumqttc)], &[Times(0.5, Ntex), Times(0.15, Rumqttc)]),
    row("9", "receive QoS 1 with acknowledgements, window 20", Figure::Cpu, load(Verb::ReceiveAck, 50_000, 20, SMALL),
        &[Times(0.8, Rumqttc)], &[Times(0.5, Rumqttc)]),
    row("9", "receive QoS 1 with acknowledgements, window 1,000", Figure::Cpu, load(Verb::ReceiveAck, 200_000, 1_000, SMALL),
        &[Times(0.8, Rumqttc)], &[Times(0.3, Rumqttc)]),
    row("10", "receive QoS 0, 16 KiB", Figure::Cpu, load(Verb::Receive, 30_000, 0, LARGE),
        &[Times(0.95, Rumqttc)], &[Times(0.8, Rumqttc)]),
    row("11", "publish QoS 0, 16 KiB", Figure::Cpu, load(Verb::Publish, 20_000, 100, LARGE),
        &[Times(0.9, Rumqttc)], &[Times(0.75, Rumqttc)]),
    row("12", "ping-pong, CPU a round trip", Figure::Cpu, PING_PONG,
        &[Times(0.75, Rumqttc)], &[Times(0.6, Rumqttc), Times(1.2, Bare)]),
    row("12", "ping-pong, p50 (p99, p99.9)", Figure::Latency, PING_PONG, &[], &[]),
    row("13", "connect, subscribe, disconnect", Figure::Cpu, load(Verb::Connect, 1_000, 0, SMALL),
        &[Times(1.3, Rumqttc)], &[Times(1.0, Rumqttc), Times(1.3, Bare)]),
    row("14", "resident, each of 1,000 idle connections", Figure::Resident, load(Verb::Idle, 1_000, 0, SMALL),
        &[Times(0.25, Rumqttc), AtMost(40.0)], &[Times(0.1, Rumqttc), AtMost(16.0)]),
    row("14", "resident, each of 5,000 idle connections", Figure::Resident, load(Verb::Idle, 5_000, 0, SMALL),
        &[Times(0.25, Rumqttc), AtMost(40.0)], &[Times(0.1, Rumqttc), AtMost(16.0)]),
    row("15", "peak resident over a flood of 1,000,000", Figure::Peak, load(Verb::Receive, 1_000_000, 0, SMALL),
        &[Plus(8.0, Bare)], &[Plus(2.0, Bare)]),
    row("16", "allocations, receive QoS 0", Figure::Allocations, RECEIVE, &[AtMost(2.0)], &[AtMost(1.0)]),
    row("16", "allocations, publish QoS 0, pipelined", Figure::Allocations, PUBLISH, &[AtMost(2.0)], &[AtMost(1.0)]),
    row("16", "allocations, publish QoS 1, window 100", Figure::Allocations, PUBLISH_ACK, &[AtMost(3.0)], &[AtMost(2.0)]),
    row("18", "instructions, receive QoS 0", Figure::Instructions, load(Verb::Receive, 20_000, 0, SMALL),
        &[AtMost(1_500.0)], &[AtMost(900.0)]),
    row("18", "instructions, publish QoS 0, pipelined", Figure::Instructions, load(Verb::Publish, 20_000, 1_000, SMALL),
        &[AtMost(2_500.0)], &[AtMost(1_200.0)]),
    row("18", "instructions, publish QoS 1, window 100", Figure::Instructions, load(Verb::PublishAck, 10_000, 100, SMALL),
        &[AtMost(6_000.0)], &[AtMost(3_000.0)]),
];

struct Options {
    rows: Vec<String>,
    clients: Vec<String>,
    rounds: usize,
    /// Counts are divided by it: for a quick look, or a build without optimization.
    divide: usize,
}

pub fn run(args: &[String]) -> Result<()> {
    let mut options = Options {
        rows: Vec::new(),
        clients: Vec::new(),
        rounds: 3,
        divide: 1,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} wants a value"))?;
        let list = || value.split(',').map(str::to_owned).collect();
        match arg.as_str() {
            "--rows" => options.rows = list(),
            "--clients" => options.clients = list(),
            "--rounds" => options.rounds = value.parse::<usize>()?.max(1),
            "--divide" => options.divide = value.parse::<usize>()?.max(1),
            other => return Err(format!("unknown argument {other:?}").into()),
        }
    }
    print_versions();
    println!(
        "T is bare tokio-tungstenite with a read buffer of 16 KiB, T128 with its default; R rumqttc, N ntex-mqtt. \
         Median of {} rounds.\n",
        options.rounds
    );
    println!("| # | measure | unit | ours | T | T128 | R | N | of T | of R | of N | must | goal |");
    println!(
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |"
    );
    for row in ROWS {
        if options.rows.is_empty() || options.rows.iter().any(|number| number == row.number) {
            row.measure(&options);
        }
    }
    Ok(())
}

impl Row {
    fn measure(&self, options: &Options) {
        let rounds = match self.figure {
            // Neither moves from run to run, and one takes long.
            Figure::Instructions | Figure::Resident => 1,
            _ => options.rounds,
        };
        let clients: Vec<Client> = self
            .clients
            .iter()
            .copied()
            .filter(|client| {
                options.clients.is_empty()
                    || options.clients.iter().any(|name| name == client.name())
            })
            .collect();
        let mut figures: Vec<Vec<(f64, Report)>> = vec![Vec::new(); clients.len()];
        for _ in 0..rounds {
            for (at, &client) in clients.iter().enumerate() {
                match self.figure(client, options.divide) {
                    Ok(figure) => figures[at].push(figure),
                    Err(why) => eprintln!("row {}: {why}", self.number),
                }
            }
        }
        let medians: Vec<Option<(f64, Report)>> = figures
            .iter_mut()
            .map(|figures| {
                // What failed once is not to be trusted.
                (figures.len() == rounds).then(|| {
                    figures.sort_by(|a, b| a.0.total_cmp(&b.0));
                    figures[rounds / 2]
                })
            })
            .collect();
        let of = |client: Client| {
            let at = clients.iter().position(|&other| other == client)?;
            medians[at]
        };
        let cells: Vec<String> = Client::ALL
            .iter()
            .map(|&client| {
                of(client).map_or_else(
                    || "-".to_owned(),
                    |(value, report)| self.cell(value, &report),
                )
            })
            .collect();
        let ours = of(Ours).map(|(value, _)| value);
        let ratio = |client| match (ours, of(client)) {
            (Some(ours), Some((theirs, _))) if theirs > 0.0 => format!("{:.2}", ours / theirs),
            _ => String::new(),
        };
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.number,
            self.what,
            self.figure.unit(),
            cells.join(" | "),
            ratio(Bare),
            ratio(Rumqttc),
            ratio(Ntex),
            verdict(self.must, ours, of),
            verdict(self.goal, ours, of),
        );
    }

    fn figure(&self, client: Client, divide: usize) -> Result<(f64, Report)> {
        let load = Load {
            count: self.load.count.div_ceil(divide),
            ..self.load
        };
        if self.figure == Figure::Instructions {
            // What start and end cost is in both.
            let once = parent::run(client, load, Under::Callgrind)?;
            let twice = Load {
                count: load.count * 2,
                ..load
            };
            let twice = parent::run(client, twice, Under::Callgrind)?;
            let count = |outcome: &Outcome| outcome.instructions.ok_or("valgrind counted nothing");
            let more = (twice.count - once.count) as f64;
            return Ok(((count(&twice)? - count(&once)?) / more, once.report));
        }
        let Outcome { report, count, .. } = parent::run(client, load, Under::Nothing)?;
        let each = |total: u64| total as f64 / count as f64;
        let value = match self.figure {
            Figure::Cpu => each(report.cpu_ns) / 1_000.0,
            Figure::Latency => report.p50_ns as f64 / 1_000.0,
            Figure::Resident => each(report.rss_after.saturating_sub(report.rss_before)),
            Figure::Peak => report.rss_peak as f64 / 1024.0,
            Figure::Allocations => each(report.allocations),
            Figure::Instructions => unreachable!("counted above"),
        };
        Ok((value, report))
    }

    fn cell(&self, value: f64, report: &Report) -> String {
        match self.figure {
            Figure::Latency => format!(
                "{value:.0} ({:.0}, {:.0})",
                report.p99_ns as f64 / 1_000.0,
                report.p999_ns as f64 / 1_000.0
            ),
            _ if value < 10.0 => format!("{value:.3}"),
            _ if value < 100.0 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        }
    }
}

impl Figure {
    fn unit(self) -> &'static str {
        match self {
            Self::Cpu | Self::Latency => "µs",
            Self::Resident => "KiB",
            Self::Peak => "MiB",
            Self::Allocations | Self::Instructions => "",
        }
    }
}

/// The bounds, and whether all hold.
fn verdict(
    bounds: &[Bound],
    ours: Option<f64>,
    of: impl Fn(Client) -> Option<(f64, Report)>,
) -> String {
    let shown: Vec<String> = bounds
        .iter()
        .map(|bound| match bound {
            Times(factor, client) => format!("{factor} {}", client.name()),
            Plus(more, client) => format!("{} + {more}", client.name()),
            AtMost(most) => most.to_string(),
        })
        .collect();
    let hold = bounds.iter().map(|bound| {
        let bound = match *bound {
            Times(factor, client) => of(client)?.0 * factor,
            Plus(more, client) => of(client)?.0 + more,
            AtMost(most) => most,
        };
        Some(ours? <= bound)
    });
    let hold: Vec<Option<bool>> = hold.collect();
    let holds = if bounds.is_empty() {
        return String::new();
    } else if hold.contains(&Some(false)) {
        "**missed**"
    } else if hold.iter().all(Option::is_none) {
        "?"
    } else if hold.contains(&None) {
        "met as far as measured"
    } else {
        "met"
    };
    format!("{}: {holds}", shown.join(", "))
}

/// The versions measured, as the lock file has them.
fn print_versions() {
    let lock = include_str!("../../Cargo.lock");
    let names = ["tokio", "tokio-tungstenite", "rumqttc", "ntex-mqtt", "ntex"];
    let versions = names.map(|name| {
        let (_, after) = lock
            .split_once(&format!("name = \"{name}\"\nversion = \""))
            .unwrap_or_default();
        format!("{name} {}", after.split('"').next().unwrap_or_default())
    });
    println!("Versions: {}.\n", versions.join(", "));
}
