//! What only a live account can show: walks the list in this crate's README and tells what it finds.
//!
//! `cargo xtask live` runs it. It is no part of the tests, but they run its checks against a gateway on this machine.

mod checks;
mod raw;
mod settings;

use std::process::ExitCode;

use checks::{Outcome, walk};
use settings::{NEEDS, Settings};

#[tokio::main]
async fn main() -> ExitCode {
    let settings = match Settings::from(|name| std::env::var(name).ok()) {
        Ok(settings) => settings,
        Err(why) => {
            eprintln!("{why}\n\n{NEEDS}");
            return ExitCode::from(2);
        }
    };
    let findings = walk(&settings, |finding| {
        println!("{}", finding.question);
        match &finding.outcome {
            Outcome::Found(found) => println!("    {}", found.replace('\n', "\n    ")),
            Outcome::LeftOut(why) => println!("    left out: {why}"),
            Outcome::Failed(why) => println!("    FAILED: {why}"),
        }
    })
    .await;
    let failed = findings
        .iter()
        .filter(|finding| matches!(finding.outcome, Outcome::Failed(_)));
    match failed.count() {
        0 => ExitCode::SUCCESS,
        failed => {
            eprintln!("{failed} of {} could not be found out", findings.len());
            ExitCode::FAILURE
        }
    }
}
