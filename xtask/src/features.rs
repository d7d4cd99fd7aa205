//! Each published crate alone, feature by feature.
//!
//! Built together, the members of a workspace lend each other their features, and a missing one
//! stays hidden. So each crate is compiled by itself: with its default features, with none, with
//! each one alone, and with all. Clippy does the compiling, since it denies warnings in our crates
//! without compiling every dependency anew for it.

use crate::metadata::{Member, Workspace};
use crate::sh::{Failure, Step};

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let workspace = Workspace::load()?;
    if let Some(unknown) = args
        .iter()
        .find(|arg| workspace.published().all(|member| member.name != **arg))
    {
        return Err(Failure::Usage(format!(
            "no published crate is named {unknown:?}"
        )));
    }
    let mut builds = 0;
    for member in workspace.published() {
        if !args.is_empty() && !args.contains(&member.name) {
            continue;
        }
        for flags in combinations(member) {
            let step =
                Step::cargo().args(["clippy", "--quiet", "--package", &member.name, "--lib"]);
            step.args(&flags).args(["--", "-D", "warnings"]).run()?;
            builds += 1;
        }
    }
    println!("features: {builds} builds, each of one crate alone");
    if args.is_empty() || args.iter().any(|arg| arg == TLS_CRATE) {
        providers()?;
    }
    Ok(())
}

/// Runs TLS with each choice of cryptographic providers: which one rustls finds in the process is
/// decided by features, and a wrong guess is a panic at run time and not at compile time.
fn providers() -> Result<(), Failure> {
    for features in ["tls", "tls-ring", "tls-aws-lc-rs", "tls-ring,tls-aws-lc-rs"] {
        Step::cargo()
            .args(["test", "--quiet", "--package", TLS_CRATE])
            .args(["--no-default-features", "--features", features])
            .args(["--test", "provider", "--test", "provider_default"])
            .run()?;
    }
    Ok(())
}

/// The crate that brings TLS.
const TLS_CRATE: &str = "ws-transport";

/// The flags of every build of one crate.
fn combinations(member: &Member) -> Vec<Vec<String>> {
    let mut builds = vec![vec![]];
    let flag = |flag: &str| vec![flag.to_owned()];
    if member.features.is_empty() {
        return builds;
    }
    builds.push(flag("--no-default-features"));
    for feature in member
        .features
        .keys()
        .filter(|feature| *feature != "default")
    {
        builds.push(
            ["--no-default-features", "--features", feature]
                .map(str::to_owned)
                .to_vec(),
        );
    }
    builds.push(flag("--all-features"));
    builds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_built_alone() {
        let features = ["default", "ws", "tls"].map(|name| (name.to_owned(), vec![]));
        let member = Member {
            features: features.into(),
            ..Member::default()
        };
        let builds: Vec<String> = combinations(&member)
            .iter()
            .map(|flags| flags.join(" "))
            .collect();
        let alone = |name: &str| format!("--no-default-features --features {name}");
        let expected = [
            "",
            "--no-default-features",
            &alone("tls"),
            &alone("ws"),
            "--all-features",
        ];
        assert_eq!(builds, expected);
    }
}
