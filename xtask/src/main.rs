//! The workspace's own tasks: `cargo xtask --help` lists them.
//!
//! One file per verb. A verb prints every command that it runs, so that each can be typed by hand,
//! and works alone; `ci` is nothing but the others in a row.

#![forbid(unsafe_code)]

mod arch;
mod autobahn;
mod bench;
mod ci;
mod deny;
mod doc;
mod failures;
mod features;
mod fmt;
mod fuzz;
mod kill;
mod lint;
mod live;
mod metadata;
mod msrv;
mod package;
mod sh;
mod soak;
mod source;
mod spec;
mod test;
mod vectors;

use std::process::ExitCode;

use sh::Failure;

/// A task: its name, what `--help` says of it, and the function that runs it with its arguments.
struct Verb {
    name: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result<(), Failure>,
}

/// Every verb, in the order in which `--help` shows them. A new one adds its module and a line.
const VERBS: &[Verb] = &[
    Verb {
        name: "ci",
        about: "everything that .ci/run checks, in a row",
        run: ci::run,
    },
    Verb {
        name: "test",
        about: "all tests, also against real mosquitto [--install] [-- ARGS]",
        run: test::run,
    },
    Verb {
        name: "fmt",
        about: "formatting [--fix]",
        run: fmt::run,
    },
    Verb {
        name: "lint",
        about: "clippy, warnings are errors",
        run: lint::run,
    },
    Verb {
        name: "doc",
        about: "documentation of the published crates, warnings are errors",
        run: doc::run,
    },
    Verb {
        name: "arch",
        about: "arrows between crates, the sans-IO fence, words and types in public APIs",
        run: arch::run,
    },
    Verb {
        name: "features",
        about: "each published crate alone, feature by feature [CRATE...]",
        run: features::run,
    },
    Verb {
        name: "msrv",
        about: "declared Rust versions of our crates and their dependencies",
        run: msrv::run,
    },
    Verb {
        name: "spec",
        about: "statements of the MQTT standards against the code [--update] [--all]",
        run: spec::run,
    },
    Verb {
        name: "bench",
        about: "our benchmarks [--build] [--peers | --road] [--record] [-- FILTER]",
        run: bench::run,
    },
    Verb {
        name: "fuzz",
        about: "each fuzz target for a while [--build] [--plain] [--seconds N | --runs N] [--seed N] [--record] [TARGET...]",
        run: fuzz::run,
    },
    Verb {
        name: "soak",
        about: "random cuts under load, against real mosquitto [--cuts N] [--seed N] [--version 3.1.1|5] [--expiry SECONDS] [--record]",
        run: soak::run,
    },
    Verb {
        name: "kill",
        about: "a publisher killed at random moments, its session in a file [--kills N] [--seed N] [--version 3.1.1|5] [--record]",
        run: kill::run,
    },
    Verb {
        name: "live",
        about: "what only a live AWS account can show; says what it needs of the environment",
        run: live::run,
    },
    Verb {
        name: "vectors",
        about: "signature vectors, made anew by botocore in a virtual environment [--check]",
        run: vectors::run,
    },
    Verb {
        name: "autobahn",
        about: "ws-transport against the Autobahn test suite (needs CPython 2.7) [--python PATH] [CASE...]",
        run: autobahn::run,
    },
    Verb {
        name: "package",
        about: "what a registry would get of each published crate [--verify]",
        run: package::run,
    },
    Verb {
        name: "deny",
        about: "licences, sources and bans of dependencies (needs cargo-deny)",
        run: deny::run,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = args.split_first() else {
        eprint!("{}", help());
        return ExitCode::from(2);
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        eprintln!("xtask: no verb {name:?}\n");
        eprint!("{}", help());
        return ExitCode::from(2);
    };
    let own = rest.iter().take_while(|arg| *arg != "--");
    if own.into_iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("cargo xtask {}: {}", verb.name, verb.about);
        return ExitCode::SUCCESS;
    }
    match (verb.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(why)) => {
            eprintln!("xtask {name}: {why}\ncargo xtask {name}: {}", verb.about);
            ExitCode::from(2)
        }
        Err(Failure::Failed(why)) => {
            eprintln!("xtask {name}: {why}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> String {
    let mut text = String::from("usage: cargo xtask VERB [ARGS]\n\n");
    for verb in VERBS {
        text += &format!("  {:<10}{}\n", verb.name, verb.about);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_verb_once() {
        let help = help();
        for verb in VERBS {
            let lines = help
                .lines()
                .filter(|line| line.split_whitespace().next() == Some(verb.name));
            assert_eq!(lines.count(), 1, "{}", verb.name);
        }
    }
}
