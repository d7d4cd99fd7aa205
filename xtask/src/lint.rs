//! Clippy over every target, with warnings as errors.

use crate::metadata::Workspace;
use crate::sh::{Failure, Step};

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    if let Some(other) = args.first() {
        return Err(Failure::unknown_argument(other));
    }
    let features = Workspace::load()?.ordinary_features();
    let step = Step::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        &features,
    ]);
    step.args(["--", "-D", "warnings"]).run()
}
