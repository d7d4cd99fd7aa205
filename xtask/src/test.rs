//! All tests: unit, property, documentation and integration, also against a real mosquitto.

use std::path::Path;

use crate::failures::{FailedTargets, Failures};
use crate::metadata::Workspace;
use crate::sh::{Failure, Step, find_program, in_ci};

/// Set for the tests when the broker is there: a suite that does not find it then fails instead of
/// passing by.
const REQUIRE_BROKER: &str = "PUBSUB_REQUIRE_BROKER";
/// The same for moto, which stands in for AWS's HTTPS endpoints.
const REQUIRE_MOTO: &str = "PUBSUB_REQUIRE_MOTO";

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let own = args
        .iter()
        .position(|arg| arg == "--")
        .unwrap_or(args.len());
    let (own, passed_on) = args.split_at(own);
    let mut may_install = in_ci();
    for arg in own {
        match arg.as_str() {
            "--install" => may_install = true,
            other => return Err(Failure::unknown_argument(other)),
        }
    }

    let broker = match find_program("mosquitto") {
        None if may_install => {
            install();
            find_program("mosquitto")
        }
        found => found,
    };
    if broker.is_none() {
        say_what_is_left_out();
        if in_ci() {
            return Err(Failure::failed(
                "CI is set and mosquitto is missing: nothing may be left out",
            ));
        }
    }

    let moto = find_program("moto_server");
    if moto.is_none() {
        say_moto_is_left_out();
        if in_ci() {
            return Err(Failure::failed(
                "CI is set and moto is missing: nothing may be left out",
            ));
        }
    }

    let features = Workspace::load()?.ordinary_features();
    let tests = || {
        Step::cargo().args([
            "test",
            "--workspace",
            "--no-fail-fast",
            "--features",
            &features,
        ])
    };
    // Built apart, so that the compiler has the terminal to itself.
    tests().arg("--no-run").run()?;
    let mut step = tests().args(passed_on);
    if let Some(dir) = broker.as_deref().and_then(Path::parent) {
        step = step.env(REQUIRE_BROKER, "1");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut dirs: Vec<_> = std::env::split_paths(&path).collect();
        if dirs.iter().all(|known| known != dir) {
            dirs.push(dir.to_owned());
            let path = std::env::join_paths(dirs).unwrap_or(path);
            step = step.env("PATH", &path.to_string_lossy());
        }
    }
    if moto.is_some() {
        step = step.env(REQUIRE_MOTO, "1");
    }
    let mut tally = Tally::default();
    let (mut failures, mut targets) = (Failures::default(), FailedTargets::default());
    let outcome = step.run_watching_both(
        |line| {
            tally.count(line);
            failures.read(line);
        },
        |line| targets.read(line),
    );

    println!();
    println!(
        "tests: {} passed, {} failed, {} ignored, in {} suites",
        tally.passed, tally.failed, tally.ignored, tally.suites
    );
    match &broker {
        Some(path) => println!("tests: with mosquitto over ws and wss ({})", path.display()),
        None => say_what_is_left_out(),
    }
    match &moto {
        Some(path) => println!("tests: with moto ({})", path.display()),
        None => say_moto_is_left_out(),
    }
    outcome.map_err(|failure| failure.with(&failures.report(&targets)))?;
    if tally.passed == 0 {
        return Err(Failure::failed("not a single test ran"));
    }
    if in_ci() && tally.ignored > 0 {
        return Err(Failure::failed(
            "CI is set and tests were ignored: nothing may be left out",
        ));
    }
    Ok(())
}

fn say_what_is_left_out() {
    eprintln!();
    eprintln!("**** LEFT OUT: every test against a real broker, over ws and over wss.");
    eprintln!(
        "**** mosquitto was not found. Get it with `cargo xtask test --install` (Debian, as root"
    );
    eprintln!("**** or with sudo), `apt-get install mosquitto`, `brew install mosquitto`, or from");
    eprintln!("**** https://mosquitto.org/download, and run this again.");
    eprintln!();
}

fn say_moto_is_left_out() {
    eprintln!();
    eprintln!(
        "**** LEFT OUT: the check of signed HTTPS requests by moto, an AWS stand-in in Python."
    );
    eprintln!("**** Get it with `pip install 'moto[server]==5.2.5'` and run this again.");
    eprintln!();
}

/// Installs mosquitto where that takes neither a password nor an answer. What comes of it shows in
/// whether the program is there afterwards.
fn install() {
    if find_program("apt-get").is_none() {
        eprintln!("no apt-get here: mosquitto has to be installed by hand");
        return;
    }
    let root = Step::new("id")
        .arg("-u")
        .quiet_output()
        .is_ok_and(|id| id.trim() == "0");
    let sudo = !root && Step::new("sudo").args(["-n", "true"]).succeeds();
    if !root && !sudo {
        eprintln!(
            "neither root nor sudo without a password: mosquitto has to be installed by hand"
        );
        return;
    }
    let apt = |args: &[&str]| {
        let step = if sudo {
            Step::new("sudo").args(["-n", "apt-get"])
        } else {
            Step::new("apt-get")
        };
        step.args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .run()
    };
    let installed = apt(&["update"])
        .and_then(|()| apt(&["install", "-y", "--no-install-recommends", "mosquitto"]));
    if let Err(Failure::Failed(why) | Failure::Usage(why)) = installed {
        eprintln!("{why}");
    }
}

/// Sums of the `test result:` lines that every test program prints.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    suites: u32,
    passed: u32,
    failed: u32,
    ignored: u32,
}

impl Tally {
    fn count(&mut self, line: &str) {
        let Some(result) = line.trim().strip_prefix("test result: ") else {
            return;
        };
        self.suites += 1;
        let (_, counts) = result.split_once(". ").unwrap_or_default();
        for part in counts.split("; ") {
            let Some((number, what)) = part.split_once(' ') else {
                continue;
            };
            let number = number.parse::<u32>().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed() {
        let mut tally = Tally::default();
        tally.count("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.1s");
        tally.count(
            "test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out",
        );
        tally.count("test tests::test_result ... ok");
        assert_eq!(
            tally,
            Tally {
                suites: 2,
                passed: 14,
                failed: 4,
                ignored: 1
            }
        );
    }
}
