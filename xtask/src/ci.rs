//! Everything that has to hold before a change lands: the other verbs in a row.
//!
//! A verb that fails does not hide what the later ones would say; all are named at the end, each with its reason, since
//! the middle of a long log is what gets lost.

use std::time::Instant;

use crate::sh::Failure;
use crate::{arch, bench, doc, features, fmt, fuzz, kill, lint, msrv, package, soak, spec, test};

/// Inputs of each fuzz target: a slice that notices a broken target, not a hunt. The same ones each time, but for what `fuzz::End` names.
const FUZZ_RUNS: &str = "20000";

/// Cuts of the soak: a few seconds of it.
const SOAK_CUTS: &str = "60";

/// Lines of a verb's reason that are said again at the end: the last ones, where a test's name is.
const REASON_LINES: usize = 150;

/// Kills of a publisher with a session in a file: some twenty seconds with both versions.
const KILLS: &str = "200";

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    if let Some(other) = args.first() {
        return Err(Failure::unknown_argument(other));
    }
    let mut ran = Vec::new();
    let mut failed = Vec::new();
    let mut step =
        |name: &'static str, verb: fn(&[String]) -> Result<(), Failure>, args: &[&str]| {
            println!("\n==== cargo xtask {name} {}", args.join(" "));
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            let start = Instant::now();
            let outcome = verb(&args);
            ran.push((name, start.elapsed(), outcome.is_ok()));
            if let Err(Failure::Failed(why) | Failure::Usage(why)) = outcome {
                eprintln!("xtask {name}: {why}");
                failed.push((name, why));
            }
        };
    step("test", test::run, &[]);
    step("soak", soak::run, &["--cuts", SOAK_CUTS, "--seed", "1"]);
    step("kill", kill::run, &["--kills", KILLS, "--seed", "1"]);
    step("fmt", fmt::run, &[]);
    step("lint", lint::run, &[]);
    step("doc", doc::run, &[]);
    step("arch", arch::run, &[]);
    step("msrv", msrv::run, &[]);
    step("features", features::run, &[]);
    step("spec", spec::run, &[]);
    step("package", package::run, &[]);
    step("bench", bench::run, &["--build"]);
    step("fuzz", fuzz::run, &["--build", "--plain"]);
    if crate::sh::find_program("cargo-fuzz").is_some() {
        step(
            "fuzz",
            fuzz::run,
            &["--plain", "--runs", FUZZ_RUNS, "--seed", "1"],
        );
    }
    println!("\n==== summary");
    for (name, time, good) in &ran {
        println!(
            "{:<10}{:>6} s  {}",
            name,
            time.as_secs(),
            if *good { "good" } else { "FAILED" }
        );
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::failed(reasons(&failed)))
    }
}

/// What failed and why, by name and then one after the other.
fn reasons(failed: &[(&str, String)]) -> String {
    let names: Vec<_> = failed.iter().map(|(name, _)| *name).collect();
    let mut text = format!("failed: {}", names.join(", "));
    for (name, why) in failed {
        let lines: Vec<_> = why.lines().collect();
        let left_out = lines.len().saturating_sub(REASON_LINES);
        text += &format!("\n\n---- cargo xtask {name}\n");
        if left_out > 0 {
            text += &format!("[{left_out} lines above]\n");
        }
        text += &lines[left_out..].join("\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_each_reason_is_said_again() {
        let long: Vec<_> = (1..=REASON_LINES + 7)
            .map(|n| format!("line {n}"))
            .collect();
        let said = reasons(&[("test", long.join("\n")), ("lint", "a warning".to_owned())]);
        assert!(said.starts_with(
            "failed: test, lint\n\n---- cargo xtask test\n[7 lines above]\nline 8\nline 9\n"
        ));
        assert!(said.ends_with("\nline 157\n\n---- cargo xtask lint\na warning"));
    }
}
