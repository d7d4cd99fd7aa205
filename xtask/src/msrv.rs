//! Declared Rust versions.
//!
//! No old compiler is run: a published crate must declare what the workspace promises, and with any of
//! its features it must not depend on anything that declares a newer one, but for the exceptions below.
//! Clippy's `incompatible_msrv` looks after what our own code uses of std.

use std::collections::BTreeSet;

use crate::metadata::{Workspace, closure_with};
use crate::sh::Failure;

/// What the published crates promise.
const PROMISED: Version = Version(1, 88, 0);

/// Features whose dependencies, as the lock file has them, are newer than that. The crate's README says
/// so.
const EXCEPTIONS: &[(&str, &str)] = &[("pubsub-aws-iot", "aws-credential-types")];

/// A Rust version, ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32, u32);

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    if let Some(other) = args.first() {
        return Err(Failure::unknown_argument(other));
    }
    let workspace = Workspace::load()?;
    let mut wrong = Vec::new();
    for member in workspace.published() {
        let declared = member.rust_version.as_deref().and_then(parse);
        if declared != Some(PROMISED) {
            wrong.push(format!(
                "{} declares {:?}, not {PROMISED:?}",
                member.name, member.rust_version
            ));
        }
        let mut packages = BTreeSet::new();
        let optional = member.features.keys().filter(|name| *name != "default");
        for feature in [""].into_iter().chain(optional.map(String::as_str)) {
            let built_from = closure_with(&member.name, "normal,build", feature)?;
            let newer = newer_than_promised(&workspace, &built_from);
            let excepted = EXCEPTIONS.contains(&(member.name.as_str(), feature));
            if excepted && newer.is_empty() {
                wrong.push(format!(
                    "{}/{feature} is no exception any more",
                    member.name
                ));
            } else if !excepted {
                let who = format!("{}/{feature}", member.name);
                let who = who.trim_end_matches('/');
                wrong.extend(
                    newer
                        .iter()
                        .map(|needs| format!("{who} depends on {needs}")),
                );
            }
            packages.extend(built_from);
        }
        let silent = packages
            .iter()
            .filter(|package| matches!(workspace.rust_versions.get(package), Some(None)));
        let silent = silent.count();
        println!(
            "{:<16} {} packages with all features, {silent} of them declare no Rust version",
            member.name,
            packages.len()
        );
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Failure::failed(wrong.join("\n")))
    }
}

/// What of these packages needs a newer Rust, or is not known to need none.
fn newer_than_promised(
    workspace: &Workspace,
    packages: &BTreeSet<(String, String)>,
) -> Vec<String> {
    let needs = packages.iter().filter_map(|package| {
        let (name, version) = package;
        match workspace.rust_versions.get(package) {
            Some(Some(needs)) if parse(needs).is_none_or(|needs| needs > PROMISED) => {
                Some(format!("{name} {version}, which needs Rust {needs}"))
            }
            Some(_) => None,
            None => Some(format!(
                "{name} {version}, which cargo metadata does not know"
            )),
        }
    });
    needs.collect()
}

fn parse(text: &str) -> Option<Version> {
    let mut parts = text.split('.').map(str::parse);
    let major = parts.next()?.ok()?;
    let minor = parts.next().unwrap_or(Ok(0)).ok()?;
    let patch = parts.next().unwrap_or(Ok(0)).ok()?;
    Some(Version(major, minor, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(parse("1.9") < parse("1.88"));
        assert!(parse("1.88.1") > Some(PROMISED));
        assert_eq!(parse("1.88"), Some(PROMISED));
        assert_eq!(parse("one"), None);
    }
}
