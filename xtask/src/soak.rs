//! Thousands of random cuts under load, against real mosquitto: the example `soak`, and its record. And credentials that
//! expire every few seconds, against the gateway: a test of `pubsub-aws-iot`, for longer than tests last.

use crate::sh::{Failure, Step, find_program, in_ci, machine, root, today, write};

/// Where tables go with `--record`.
const RECORDS: &str = "benches/record";

/// As many cuts as a slice of a few seconds has.
const CUTS: &str = "60";

/// One for each test.
const EXPIRY_ROWS: usize = 2;

const EXPIRY_TABLE: &str = "\
Two publishers with 20 publishes at QoS 1 under way each, within the service's pace of 100 a second a connection, and a
subscriber, all with sessions that are resumed, over MQTT 5, through the AWS IoT gateway of `testkit`, which ends a connection
when its access key ends. Their credentials come from one `CachedCredentials`. Both runs at the same time, not optimized, on a
clock that goes on by 5 ms with each answer of the broker: the seconds are its own, and a busy machine has longer ones. Every
message that was sent was confirmed and received, no attempt was refused, and no request for credentials began within a
second of the one before: the tests fail otherwise.

| credentials | seconds | messages | connections | ended by expiry | replaced, of each client | requests for credentials | at most at once |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |";

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let mut record = false;
    let mut passed_on = Vec::new();
    let mut cuts = CUTS.to_owned();
    let mut expiry_secs = None;
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            let value = words.next().cloned();
            value.ok_or_else(|| Failure::Usage(format!("{word} needs a value")))
        };
        match word.as_str() {
            "--record" => record = true,
            "--cuts" => cuts = value()?,
            "--expiry" => expiry_secs = Some(value()?),
            "--seed" | "--version" => passed_on.extend([word.clone(), value()?]),
            other => return Err(Failure::unknown_argument(other)),
        }
    }
    if find_program("mosquitto").is_none() {
        let why = "the soak needs mosquitto, which was not found";
        if in_ci() {
            return Err(Failure::failed(why));
        }
        eprintln!("**** LEFT OUT: {why}.");
        return Ok(());
    }
    // Not optimized: debug assertions and overflow checks are what a soak is to set off.
    let (title, name, step) = match &expiry_secs {
        None => {
            let step = Step::cargo()
                .args(["run", "--package", "examples", "--example", "soak", "--"])
                .args(["--cuts", &cuts])
                .args(passed_on);
            ("Soak", format!("soak-{}", today()), step)
        }
        Some(secs) => {
            let step = Step::cargo()
                .args(["test", "--package", "pubsub-aws-iot", "--test", "expiry"])
                .args(["--", "--nocapture"])
                .env("PUBSUB_EXPIRY_SOAK_SECS", secs);
            let name = format!("{}-aws-expiry-soak", today());
            ("Soak with credentials that expire", name, step)
        }
    };
    let command = step.shown().to_owned();
    let mut lines = Vec::new();
    step.run_watched(|line| lines.push(line.to_owned()))?;
    if expiry_secs.is_some() {
        // What the test runner says beside them is not worth keeping; nor is the order in which they came.
        lines.retain(|line| line.starts_with("| "));
        lines.sort_unstable();
        if lines.len() != EXPIRY_ROWS {
            return Err(Failure::failed("the soak did not report both of its runs"));
        }
        lines.insert(0, EXPIRY_TABLE.to_owned());
        println!("\n{}", lines.join("\n"));
    }
    if record {
        let path = root().join(RECORDS).join(format!("{name}.md"));
        let text = format!(
            "# {title}, {}\n\nMachine: {}\n\nBroker: {}\n\nCommand: `{command}`\n\n{}\n",
            today(),
            machine(),
            broker(),
            lines.join("\n")
        );
        write(&path, &text)?;
        println!("recorded in {}", path.display());
    }
    Ok(())
}

/// The version of mosquitto, which it tells in the first line of its help.
pub(crate) fn broker() -> String {
    let Some(program) = find_program("mosquitto") else {
        return String::new();
    };
    // It calls its own help a failure.
    let help = std::process::Command::new(program).arg("-h").output();
    let text = help.map_or(String::new(), |help| {
        String::from_utf8_lossy(&help.stdout).into_owned()
    });
    text.lines().next().unwrap_or_default().to_owned()
}
