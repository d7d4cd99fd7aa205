//! Measures the rows that are asked for, and prints what came out.

use std::collections::HashMap;
use std::process::Command;

use crate::child::Report;
use crate::parent::{self, Load, Outcome, Under};
use crate::rows::Bound::{self, AtMost, Extra, Part, Plus, Times};
use crate::rows::{Figure, Row, SECTIONS, Section};
use crate::{Client, Result, elsewhere};

struct Options {
    rows: Vec<String>,
    clients: Vec<String>,
    rounds: usize,
    /// Counts are divided by it: for a quick look, or a build without optimization.
    divide: usize,
}

/// The median of a client's figures, and the report it is from.
type Median = Option<(f64, Report)>;

/// What has been run so far: two rows may be of the same load.
#[derive(Default)]
struct Runs {
    outcomes: HashMap<(Client, Load, Under), Vec<Outcome>>,
    failures: HashMap<(Client, Load, Under), String>,
}

pub fn run(args: &[String]) -> Result<()> {
    let options = Options::from_args(args)?;
    let before = load_average();
    println!("Versions: {}.\n", versions());
    println!(
        "T is bare tokio-tungstenite with a read buffer of 16 KiB, T128 with its default; R rumqttc, N ntex-mqtt, C aws-c-mqtt \
         in Python, A Amplify in Node. Median of {} rounds{}.",
        options.rounds,
        match options.divide {
            1 => String::new(),
            divide => format!(", with 1/{divide} of the messages"),
        }
    );
    let mut runs = Runs::default();
    for section in SECTIONS {
        section.measure(&options, &mut runs);
    }
    println!(
        "\nLoad average: {before} at the start, {} at the end.",
        load_average()
    );
    Ok(())
}

impl Options {
    fn from_args(args: &[String]) -> Result<Self> {
        let mut options = Self {
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
        Ok(options)
    }

    fn wants_row(&self, row: &Row) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|number| number == row.number)
    }

    fn wants(&self, client: Client) -> bool {
        let asked = |name: &String| name == client.name() || name == client.family();
        self.clients.is_empty() || self.clients.iter().any(asked)
    }
}

impl Section {
    fn measure(&self, options: &Options, runs: &mut Runs) {
        let rows: Vec<&Row> = self
            .rows
            .iter()
            .filter(|row| options.wants_row(row))
            .collect();
        if rows.is_empty() {
            return;
        }
        let names: Vec<&str> = self.clients.iter().map(|client| client.name()).collect();
        let ratios: Vec<String> = self
            .compared()
            .map(|client| format!(" of {} |", client.name()))
            .collect();
        println!(
            "\n## {}\n\n| # | measure | unit | {} |{} must | goal |",
            self.title,
            names.join(" | "),
            ratios.concat()
        );
        println!(
            "| --- | --- | --- |{} --- | --- |",
            " ---: |".repeat(names.len() + ratios.len())
        );
        let mut notes = Vec::new();
        for row in rows {
            self.measure_row(row, options, runs, &mut notes);
        }
        if !notes.is_empty() {
            println!("\n{}", notes.join("\n"));
        }
    }

    /// The clients whose figure is set beside the first one's.
    fn compared(&self) -> impl Iterator<Item = Client> {
        let others = self.clients.iter().copied().skip(1);
        others.filter(|client| *client != Client::BareDefault)
    }

    fn measure_row(&self, row: &Row, options: &Options, runs: &mut Runs, notes: &mut Vec<String>) {
        let rounds = match row.figure {
            // They hardly move from run to run, and take long.
            Figure::Instructions | Figure::SystemCalls | Figure::Resident => 1,
            _ => options.rounds,
        };
        let load = row.load.divided(options.divide);
        let clients: Vec<Client> = self
            .clients
            .iter()
            .copied()
            .filter(|client| options.wants(*client) && !row.without.contains(client))
            .collect();
        for round in 0..rounds {
            for &client in &clients {
                for load in row.figure.loads(load) {
                    runs.reach(client, load, row.figure.under(), round + 1);
                }
            }
        }
        let medians: Vec<(Client, Median)> = clients
            .iter()
            .map(|&client| (client, runs.median(client, load, row.figure, rounds)))
            .collect();
        let of = |client: Client| {
            let found = medians.iter().find(|(other, _)| *other == client);
            found.and_then(|(_, median)| *median)
        };
        let cell = |client: Client| match (of(client), clients.contains(&client)) {
            (Some((value, report)), _) => format!(" {} |", row.figure.cell(value, &report)),
            (None, true) => " - |".to_owned(),
            (None, false) => " |".to_owned(),
        };
        let ours = self.clients.first().and_then(|&ours| of(ours));
        let ratio = |client: Client| match (ours, of(client)) {
            (Some((ours, _)), Some((theirs, _))) if theirs > 0.0 => {
                format!(" {:.2} |", ours / theirs)
            }
            _ => " |".to_owned(),
        };
        println!(
            "| {} | {} | {} |{}{} {} | {} |",
            row.number,
            row.what,
            row.figure.unit(),
            self.clients.iter().copied().map(cell).collect::<String>(),
            self.compared().map(ratio).collect::<String>(),
            verdict(row.must, ours, of),
            verdict(row.goal, ours, of),
        );
        if !row.note.is_empty() {
            notes.push(format!("- {}: {}", row.number, row.note));
        }
        for &client in &clients {
            for load in row.figure.loads(load) {
                if let Some(why) = runs.failures.get(&(client, load, row.figure.under())) {
                    eprintln!("row {}, {}: {why}", row.number, client.name());
                    let note = format!(
                        "- {}, {}: no figure for {}: {why}",
                        row.number,
                        row.what,
                        client.name()
                    );
                    if !notes.contains(&note) {
                        notes.push(note);
                    }
                }
            }
        }
    }
}

impl Runs {
    /// Runs it until there are so many outcomes, or it has failed: what failed once is not to be trusted.
    fn reach(&mut self, client: Client, load: Load, under: Under, wanted: usize) {
        let key = (client, load, under);
        let outcomes = self.outcomes.entry(key).or_default();
        while outcomes.len() < wanted && !self.failures.contains_key(&key) {
            match parent::run(client, load, under) {
                Ok(outcome) => outcomes.push(outcome),
                Err(why) => {
                    self.failures.insert(key, why.to_string());
                }
            }
        }
    }

    fn median(&self, client: Client, load: Load, figure: Figure, rounds: usize) -> Median {
        let mut series = Vec::new();
        for load in figure.loads(load) {
            let key = (client, load, figure.under());
            if self.failures.contains_key(&key) {
                return None;
            }
            series.push(self.outcomes.get(&key)?);
        }
        let mut figures = Vec::new();
        for round in 0..rounds {
            let first = series.first()?.get(round)?;
            let value = match series.get(1) {
                None => figure.value(first)?,
                Some(twice) => {
                    let twice = twice.get(round)?;
                    let more = (twice.count - first.count) as f64;
                    (twice.counted? - first.counted?) / more
                }
            };
            figures.push((value, first.report));
        }
        figures.sort_by(|a, b| a.0.total_cmp(&b.0));
        figures.get(rounds / 2).copied()
    }
}

impl Load {
    fn divided(self, divide: usize) -> Self {
        Self {
            count: self.count.div_ceil(divide),
            ..self
        }
    }
}

impl Figure {
    fn under(self) -> Under {
        match self {
            Self::Instructions => Under::Callgrind,
            Self::SystemCalls => Under::Strace,
            _ => Under::Nothing,
        }
    }

    /// What is run for it: what start and end cost is in both of two, and not in their difference.
    fn loads(self, load: Load) -> Vec<Load> {
        let twice = Load {
            count: load.count * 2,
            ..load
        };
        match self.under() {
            Under::Nothing => vec![load],
            Under::Callgrind | Under::Strace => vec![load, twice],
        }
    }

    fn value(self, outcome: &Outcome) -> Option<f64> {
        let report = &outcome.report;
        let count = outcome.count as f64;
        let each = |total: u64| total as f64 / count;
        Some(match self {
            Self::Cpu => each(report.cpu_ns) / 1_000.0,
            Self::Latency => report.p50_ns as f64 / 1_000.0,
            Self::Rate => count / (report.wall_ns as f64 / 1e9),
            Self::Resident => each(report.rss_after.saturating_sub(report.rss_before)),
            Self::Peak => report.rss_peak as f64 / 1024.0,
            // The handful at the start is not of any message.
            Self::Allocations => (each(report.allocations) * 100.0).round() / 100.0,
            Self::Instructions | Self::SystemCalls => return None,
        })
    }

    fn cell(self, value: f64, report: &Report) -> String {
        match self {
            Self::Latency => format!(
                "{value:.0} ({:.0}, {:.0})",
                report.p99_ns as f64 / 1_000.0,
                report.p999_ns as f64 / 1_000.0
            ),
            _ if value < 10.0 => format!("{value:.3}"),
            _ if value < 100.0 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Cpu | Self::Latency => "µs",
            Self::Rate => "1/s",
            Self::Resident => "KiB",
            Self::Peak => "MiB",
            Self::Allocations | Self::Instructions | Self::SystemCalls => "",
        }
    }
}

/// The bounds, and whether all hold.
fn verdict(bounds: &[Bound], ours: Median, of: impl Fn(Client) -> Median) -> String {
    if bounds.is_empty() {
        return String::new();
    }
    let value = |client| of(client).map(|(value, _)| value);
    let shown: Vec<String> = bounds.iter().map(Bound::shown).collect();
    let hold = bounds.iter().map(|bound| {
        let bound = match *bound {
            Times(factor, client) => value(client)? * factor,
            Part(part, client) => value(client)? / part,
            Plus(more, client) => value(client)? + more,
            Extra(own, factor, more, less) => value(own)? + factor * (value(more)? - value(less)?),
            AtMost(most) => most,
        };
        Some(ours?.0 <= bound)
    });
    let hold: Vec<Option<bool>> = hold.collect();
    let holds = if hold.contains(&Some(false)) {
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

impl Bound {
    fn shown(&self) -> String {
        match self {
            Times(factor, client) => format!("{factor} {}", client.name()),
            Part(part, client) => format!("{} / {part}", client.name()),
            Plus(more, client) => format!("{} + {more}", client.name()),
            Extra(own, factor, more, less) => format!(
                "{} + {factor} ({} - {})",
                own.name(),
                more.name(),
                less.name()
            ),
            AtMost(most) => most.to_string(),
        }
    }
}

/// The versions measured: as the lock file has them, and of what is not in it.
fn versions() -> String {
    let lock = include_str!("../../Cargo.lock");
    let names = [
        "tokio",
        "tokio-tungstenite",
        "rustls",
        "rumqttc",
        "ntex",
        "ntex-mqtt",
    ];
    let mut versions = Vec::new();
    for name in names {
        let entry = format!("name = \"{name}\"\nversion = \"");
        // Another workspace member has a later ntex-mqtt.
        let entry = lock.split_once(&entry).map_or("", |(_, after)| after);
        let version = entry.split('"').next().unwrap_or_default();
        versions.push(format!("{name} {version}"));
    }
    for client in [Client::Crt, Client::Amplify] {
        let absent = || format!("{} absent", client.name());
        versions.push(elsewhere::version(client).unwrap_or_else(absent));
    }
    for (program, argument) in [("rustc", "-V"), ("valgrind", "--version"), ("strace", "-V")] {
        let output = Command::new(program).arg(argument).output();
        versions.push(match output {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stdout);
                said.lines().next().unwrap_or_default().to_owned()
            }
            Err(_) => format!("{program} absent"),
        });
    }
    versions.join(", ")
}

fn load_average() -> String {
    let all = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    all.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
