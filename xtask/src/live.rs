//! What only a live AWS account can show: the example `live` of `pubsub-aws-iot`.
//!
//! It goes by the environment, which it explains where something is missing. No part of `ci`.

use crate::sh::{Failure, Step};

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    if let Some(other) = args.first() {
        return Err(Failure::unknown_argument(other));
    }
    Step::cargo()
        .args(["run", "--quiet", "--package", "pubsub-aws-iot"])
        .args(["--features", "cognito,control-plane,https-publish"])
        .args(["--example", "live"])
        .run()
}
