//! Formatting of the whole workspace.

use crate::sh::{Failure, Step};

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let step = Step::cargo().args(["fmt", "--all"]);
    match args {
        [] => step.args(["--", "--check"]).run(),
        [fix] if fix == "--fix" => step.run(),
        [other, ..] => Err(Failure::unknown_argument(other)),
    }
}
