//! Documentation of the published crates, with warnings as errors.

use crate::metadata::Workspace;
use crate::sh::{Failure, Step};

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    if let Some(other) = args.first() {
        return Err(Failure::unknown_argument(other));
    }
    let workspace = Workspace::load()?;
    let packages = workspace
        .published()
        .flat_map(|member| ["--package", &member.name]);
    let step = Step::cargo().args(["doc", "--no-deps"]).args(packages);
    step.args(["--features", &workspace.ordinary_features()])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}
