//! What a registry would get: each published crate is packed, and its package has what it must.

use crate::metadata::Workspace;
use crate::sh::{Failure, Step};

/// Files that every package has.
const NEEDED: &[&str] = &["Cargo.toml", "README.md", "src/lib.rs"];

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let verify = match args {
        [] => false,
        [verify] if verify == "--verify" => true,
        [other, ..] => return Err(Failure::unknown_argument(other)),
    };
    let workspace = Workspace::load()?;
    let packages = workspace
        .published()
        .flat_map(|member| ["--package", &member.name]);
    let step = Step::cargo()
        .args(["package", "--allow-dirty"])
        .args(packages);
    let step = if verify {
        step
    } else {
        step.arg("--no-verify")
    };
    step.run()?;

    let mut missing = Vec::new();
    for member in workspace.published() {
        let step = Step::cargo().args(["package", "--list", "--allow-dirty", "--package"]);
        let list = step.arg(&member.name).output()?;
        for file in NEEDED {
            if !list.lines().any(|line| line == *file) {
                missing.push(format!("{}: no {file} in its package", member.name));
            }
        }
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Failure::failed(missing.join("\n")))
    }
}
