//! Declared Rust versions.
//!
//! No old compiler is run: a published crate must declare what the workspace promises, and with its
//! default features it must not depend on anything that declares a newer one. Clippy's
//! `incompatible_msrv` looks after what our own code uses of std.

use crate::metadata::{Workspace, closure};
use crate::sh::Failure;

/// What the published crates promise with their default features.
const PROMISED: Version = Version(1, 88, 0);

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
        let packages = closure(&member.name, "normal,build")?;
        let mut silent = 0;
        for package in &packages {
            let (name, version) = package;
            match workspace.rust_versions.get(package) {
                Some(Some(needs)) if parse(needs).is_none_or(|needs| needs > PROMISED) => {
                    wrong.push(format!(
                        "{} depends on {name} {version}, which needs Rust {needs}",
                        member.name
                    ));
                }
                Some(Some(_)) => {}
                Some(None) => silent += 1,
                None => wrong.push(format!(
                    "{}: cargo metadata does not know {name} {version}",
                    member.name
                )),
            }
        }
        println!(
            "{:<16} {} packages, {silent} of them declare no Rust version",
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
