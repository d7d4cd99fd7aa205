//! Our benchmarks, and on request those of our peers.

use crate::sh::{Failure, Step, machine, root, today, write};

/// Where tables go with `--record`.
const RECORDS: &str = "benches/record";

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let own = args
        .iter()
        .position(|arg| arg == "--")
        .unwrap_or(args.len());
    let (own, passed_on) = args.split_at(own);
    let passed_on = passed_on.get(1..).unwrap_or_default();
    let (mut build, mut peers, mut road, mut record) = (false, false, false, false);
    for arg in own {
        match arg.as_str() {
            "--build" => build = true,
            "--peers" => peers = true,
            "--road" => road = true,
            "--record" => record = true,
            other => return Err(Failure::unknown_argument(other)),
        }
    }
    if build {
        // Compiled by nothing else that runs with every change, they would break unnoticed. The road drives our public
        // API, and takes a minute; with the codec's peers it takes several.
        let check = Step::cargo().args(["check", "--locked", "--all-targets"]);
        let check = match peers {
            true => check.arg("--workspace"),
            false => check.args(["--package", "road"]),
        };
        Step::cargo()
            .args(["bench", "--package", "benches", "--no-run"])
            .run()?;
        return check.dir("benches/peers").run();
    }

    let (name, step) = if peers {
        // A workspace and a lock file of its own, so that no peer touches what we ship.
        let step = Step::cargo().args(["run", "--release", "--quiet", "--locked", "--"]);
        ("peers", step.args(passed_on).dir("benches/peers"))
    } else if road {
        // Without link-time optimization, as most programs are built.
        let step = Step::cargo().args(["run", "--profile", "road", "--package", "road"]);
        let step = step.args(["--quiet", "--locked", "--"]).args(passed_on);
        ("road", step.dir("benches/peers"))
    } else {
        let step = Step::cargo().args(["bench", "--package", "benches", "--benches"]);
        (
            "criterion",
            if passed_on.is_empty() {
                step
            } else {
                step.arg("--").args(passed_on)
            },
        )
    };
    let command = step.shown().to_owned();
    let mut lines = Vec::new();
    step.run_watched(|line| lines.push(line.to_owned()))?;
    let table = if peers || road {
        lines.join("\n")
    } else {
        summary(&lines)
    };
    if !(peers || road) {
        println!("\n{table}");
    }
    if record {
        let date = today();
        let path = root()
            .join(RECORDS)
            .join(format!("{date}-{name}{}.md", slug(passed_on)));
        let text = format!(
            "# {name}, {date}\n\nMachine: {}\n\nCommand: `{command}`\n\n{table}\n",
            machine()
        );
        write(&path, &text)?;
        println!("recorded in {}", path.display());
    }
    Ok(())
}

/// What distinguishes the record of a part from that of the whole.
fn slug(args: &[String]) -> String {
    let words = args
        .iter()
        .map(|arg| arg.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
    words
        .map(|word| format!("-{}", word.trim_matches('-')))
        .collect()
}

/// Criterion's report as a table: the middle of its estimate and of each throughput.
fn summary(lines: &[String]) -> String {
    let mut table = String::from("| benchmark | time | throughput |\n| --- | ---: | ---: |\n");
    let mut rows: Vec<(String, String, Vec<String>)> = Vec::new();
    let mut name = String::new();
    for line in lines {
        let line = line.trim_end();
        if let Some((before, estimate)) = line.split_once("time:") {
            // A long name stands on the line before its time.
            if !before.trim().is_empty() {
                before.trim().clone_into(&mut name);
            }
            rows.push((name.clone(), middle(estimate), Vec::new()));
        } else if let Some((_, estimate)) = line.split_once("thrpt:") {
            // With a baseline criterion prints changes under the same word, in per cent.
            if !estimate.contains('%')
                && let Some(row) = rows.last_mut()
            {
                row.2.push(middle(estimate));
            }
        } else if !line.is_empty() && !line.starts_with(' ') {
            line.clone_into(&mut name);
        }
    }
    for (name, time, throughput) in rows {
        table += &format!("| {name} | {time} | {} |\n", throughput.join(", "));
    }
    table
}

/// The middle one of the three values in `[1.0 ns 2.0 ns 3.0 ns]`.
fn middle(estimate: &str) -> String {
    let words: Vec<&str> = estimate
        .trim()
        .trim_matches(['[', ']'])
        .split_whitespace()
        .collect();
    words
        .get(2..4)
        .map_or(String::new(), |words| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criterion_is_summarised() {
        let report = "codec/decode/small      time:   [1.0 ns 2.0 ns 3.0 ns]\n\
                      \u{20}                       thrpt:  [10.0 Melem/s 20.0 Melem/s 30.0 Melem/s]\n\
                      \u{20}                change:\n\
                      \u{20}                        thrpt:  [-1.0% +0.1% +2.0%]\n\
                      codec/a/very/long/name\n\
                      \u{20}                       time:   [4.0 us 5.0 us 6.0 us]";
        let lines: Vec<String> = report.lines().map(str::to_owned).collect();
        let table = summary(&lines);
        assert!(
            table.contains("| codec/decode/small | 2.0 ns | 20.0 Melem/s |"),
            "{table}"
        );
        assert!(
            table.contains("| codec/a/very/long/name | 5.0 us |  |"),
            "{table}"
        );
    }
}
