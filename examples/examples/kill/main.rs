//! A process that is killed again and again, and its session in a file: what it called stored has to arrive, and what was
//! sent to it has to reach it.
//!
//! ```text
//! cargo run --example kill -- --help
//! ```

#[path = "../soak/broker.rs"]
mod broker;
mod feeder;
#[path = "../soak/random.rs"]
mod random;
mod receipts;
mod run;
mod victim;
mod witness;

use std::{env, path::PathBuf, process::ExitCode};

use pubsub_generic::ProtocolVersion;
use testkit::mosquitto::Installation;

use self::{run::Plan, victim::Life};

const HELP: &str = "\
Kills a process (SIGKILL) that publishes and receives through a real mosquitto with its session in a
file, again and again at random moments, and starts it anew. Checks with a subscriber that shares no code
with it that every message whose receipt said `stored` arrives, at QoS 2 once. Checks with a publisher that
shares none either that every message reaches the process; and, by the broker's log and the file that each
life leaves, that none at QoS 2 reaches it again once its receipt is stored.

Usage: cargo run --example kill -- [OPTIONS]

Options:
  --kills N          how many kills [default: 100]
  --seed N           when, and what is sent [default: 1]; time and threads remain as they are
  --version VERSION  3.1.1 or 5 [default: one after the other, with half of the kills each]
  --help             print this

It needs mosquitto: `apt-get install mosquitto`, or name it in MOSQUITTO. It prints a table and what
was violated, and fails if anything was.";

/// The first word of the command line of a process that is there to be killed.
const LIFE: &str = "life";

#[tokio::main]
async fn main() -> ExitCode {
    let mut words = env::args().skip(1).peekable();
    if words.peek().is_some_and(|word| word == LIFE) {
        return match life_arguments(words.skip(1)) {
            Some(life) => victim::run(life).await,
            None => ExitCode::from(2),
        };
    }
    let arguments = match Arguments::parse(words) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(mistake) => {
            eprintln!("{mistake}; try --help");
            return ExitCode::from(2);
        }
    };
    let Some(mosquitto) = Installation::find() else {
        eprintln!("this needs mosquitto; install it with `apt-get install mosquitto`");
        return ExitCode::from(2);
    };
    let mut code = ExitCode::SUCCESS;
    let mut columns = Vec::new();
    for plan in arguments.plans() {
        match run::run(&mosquitto, plan).await {
            Ok(figures) => columns.push((plan, figures)),
            Err(error) => {
                eprintln!("MQTT {}: {error}", name(plan.version));
                return ExitCode::FAILURE;
            }
        }
    }
    let print = |title: &str, cells: Vec<String>| println!("| {title} | {} |", cells.join(" | "));
    let heads = columns
        .iter()
        .map(|(plan, _)| format!("MQTT {}", name(plan.version)));
    print(&format!("seed {}", arguments.seed), heads.collect());
    println!("| --- |{}", " ---: |".repeat(columns.len()));
    let rows = columns.first().map_or(0, |(_, figures)| figures.rows.len());
    for row in 0..rows {
        let cells = columns
            .iter()
            .map(|(_, figures)| figures.rows[row].1.to_string());
        print(columns[0].1.rows[row].0, cells.collect());
    }
    for (plan, figures) in &columns {
        for violation in &figures.violations {
            eprintln!("VIOLATION, MQTT {}: {violation}", name(plan.version));
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::V5 => "5",
        _ => "3.1.1",
    }
}

fn version_named(name: &str) -> Option<ProtocolVersion> {
    match name {
        "5" => Some(ProtocolVersion::V5),
        "3.1.1" => Some(ProtocolVersion::V311),
        _ => None,
    }
}

fn life_arguments(mut words: impl Iterator<Item = String>) -> Option<Life> {
    let mut next = || words.next();
    Some(Life {
        url: next()?,
        file: PathBuf::from(next()?),
        version: version_named(&next()?)?,
        number: next()?.parse().ok()?,
        is_last: next()?.parse().ok()?,
    })
}

struct Arguments {
    kills: u32,
    seed: u64,
    version: Option<ProtocolVersion>,
}

impl Arguments {
    /// `None` if help is wanted.
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut arguments = Self {
            kills: 100,
            seed: 1,
            version: None,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--kills" => arguments.kills = number(&value()?)?,
                "--seed" => arguments.seed = number(&value()?)?,
                "--version" => {
                    let named = value()?;
                    let version = version_named(&named);
                    arguments.version =
                        Some(version.ok_or_else(|| format!("{named} is neither 3.1.1 nor 5"))?);
                }
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("{word} is no option")),
            }
        }
        Ok(Some(arguments))
    }

    fn plans(&self) -> Vec<Plan> {
        let plan = |version, kills| Plan {
            version,
            kills,
            seed: self.seed,
        };
        match self.version {
            Some(version) => vec![plan(version, self.kills)],
            None => vec![
                plan(ProtocolVersion::V311, self.kills / 2),
                plan(ProtocolVersion::V5, self.kills.div_ceil(2)),
            ],
        }
    }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse()
        .map_err(|_| format!("{text} is no such number"))
}
