//! Two clients, real mosquitto, and a network that is cut thousands of times: nothing may be lost.
//!
//! ```text
//! cargo run --example soak -- --help
//! ```

mod broker;
mod ledger;
mod network;
mod random;
mod run;
mod vigil;

use std::{env, process::ExitCode};

use pubsub_generic::ProtocolVersion;
use testkit::mosquitto::Installation;

use self::run::{Figures, Plan};

const HELP: &str = "\
Cuts the connections of two clients to a real mosquitto, again and again and in many ways, while each
sends the other numbered messages at QoS 1 and QoS 2, and checks that every message arrives, in order,
at QoS 2 once; that nothing hangs; and that memory stays flat.

Usage: cargo run --example soak -- [OPTIONS]

Options:
  --cuts N           how many cuts [default: 500]
  --seed N           which cuts, and what is sent [default: 1]; time and threads remain as they are
  --version VERSION  3.1.1 or 5 [default: one after the other, with half of the cuts each]
  --help             print this

It needs mosquitto: `apt-get install mosquitto`, or name it in MOSQUITTO. It prints a table and what
was violated, and fails if anything was.";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse(env::args().skip(1)) {
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
        eprintln!("the soak needs mosquitto; install it with `apt-get install mosquitto`");
        return ExitCode::from(2);
    };
    let mut columns = Vec::new();
    for plan in arguments.plans() {
        match run::run(&mosquitto, plan).await {
            Ok(figures) => columns.push((plan, figures)),
            Err(error) => {
                eprintln!("{}: {error}", name(plan.version));
                return ExitCode::FAILURE;
            }
        }
    }
    print_table(&columns);
    let mut code = ExitCode::SUCCESS;
    for (plan, figures) in &columns {
        for violation in &figures.violations {
            eprintln!("VIOLATION, MQTT {}: {violation}", name(plan.version));
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn print_table(columns: &[(Plan, Figures)]) {
    let print = |title: &str, cells: Vec<String>| {
        println!("| {title} | {} |", cells.join(" | "));
    };
    print(
        "",
        columns
            .iter()
            .map(|(plan, _)| format!("MQTT {}", name(plan.version)))
            .collect(),
    );
    println!("| --- |{}", " ---: |".repeat(columns.len()));
    let rows = columns.first().map_or(0, |(_, figures)| figures.rows.len());
    for row in 0..rows {
        let title = columns[0].1.rows[row].0;
        let cells = columns
            .iter()
            .map(|(_, figures)| figures.rows[row].1.clone())
            .collect();
        print(title, cells);
    }
}

fn name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::V5 => "5",
        ProtocolVersion::V311 => "3.1.1",
        _ => "3.1",
    }
}

struct Arguments {
    cuts: u64,
    seed: u64,
    version: Option<ProtocolVersion>,
}

impl Arguments {
    /// `None` if help is wanted.
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut arguments = Self {
            cuts: 500,
            seed: 1,
            version: None,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--cuts" => arguments.cuts = number(&value()?)?,
                "--seed" => arguments.seed = number(&value()?)?,
                "--version" => {
                    arguments.version = Some(match value()?.as_str() {
                        "3.1.1" => ProtocolVersion::V311,
                        "5" => ProtocolVersion::V5,
                        other => return Err(format!("{other} is neither 3.1.1 nor 5")),
                    });
                }
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("{word} is no option")),
            }
        }
        Ok(Some(arguments))
    }

    fn plans(&self) -> Vec<Plan> {
        let plan = |version, cuts| Plan {
            version,
            cuts,
            seed: self.seed,
        };
        match self.version {
            Some(version) => vec![plan(version, self.cuts)],
            None => vec![
                plan(ProtocolVersion::V311, self.cuts / 2),
                plan(ProtocolVersion::V5, self.cuts.div_ceil(2)),
            ],
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("{text} is no such number"))
}
