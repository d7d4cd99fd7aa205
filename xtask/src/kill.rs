//! A publisher and subscriber killed at random moments, its session in a file, against real mosquitto: the example `kill`, and
//! its record.

use crate::sh::{Failure, Step, find_program, in_ci, machine, root, today, write};
use crate::soak::broker;

/// Where tables go with `--record`.
const RECORDS: &str = "benches/record";

/// As many kills as a slice of some seconds has.
const KILLS: &str = "100";

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let mut record = false;
    let mut passed_on = Vec::new();
    let mut kills = KILLS.to_owned();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            let value = words.next().cloned();
            value.ok_or_else(|| Failure::Usage(format!("{word} needs a value")))
        };
        match word.as_str() {
            "--record" => record = true,
            "--kills" => kills = value()?,
            "--seed" | "--version" => passed_on.extend([word.clone(), value()?]),
            other => return Err(Failure::unknown_argument(other)),
        }
    }
    if find_program("mosquitto").is_none() {
        let why = "killing needs mosquitto, which was not found";
        if in_ci() {
            return Err(Failure::failed(why));
        }
        eprintln!("**** LEFT OUT: {why}.");
        return Ok(());
    }
    // Not optimized: debug assertions and overflow checks are what a kill is to set off.
    let step = Step::cargo()
        .args(["run", "--package", "examples", "--example", "kill", "--"])
        .args(["--kills", &kills])
        .args(passed_on);
    let command = step.shown().to_owned();
    let mut lines = Vec::new();
    step.run_watched(|line| lines.push(line.to_owned()))?;
    if record {
        let date = today();
        let path = root().join(RECORDS).join(format!("{date}-kill.md"));
        let text = format!(
            "# Kills, {date}\n\nMachine: {}\n\nBroker: {}\n\nCommand: `{command}`\n\n{}\n",
            machine(),
            broker(),
            lines.join("\n")
        );
        write(&path, &text)?;
        println!("recorded in {}", path.display());
    }
    Ok(())
}
