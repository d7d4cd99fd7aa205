//! The peers that are not in Rust: where they are, and what they are told.
//!
//! They take the same arguments and give the same report. What they need is installed by hand, as the head
//! of this program says; where it is absent, a row says so.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Client, Result};

/// What a client that does not see single messages waits for: one on this topic, after all others.
pub const DONE: &str = "road/done";

/// How a peer is started, or what is missing.
pub fn command(client: Client) -> Result<Command> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let present = |path: PathBuf, how: &str| match path.exists() {
        true => Ok(path),
        false => Err(format!("absent: {how}")),
    };
    match client {
        Client::Crt => {
            let python = present(
                own.join("../target/awscrt/bin/python"),
                "no awscrt in target/awscrt",
            )?;
            let mut command = Command::new(python);
            command.arg(own.join("awscrt/client.py"));
            Ok(command)
        }
        Client::Amplify => {
            let amplify = own.join("amplify");
            present(
                amplify.join("node_modules/@aws-amplify/pubsub"),
                "npm ci has not been run in road/amplify",
            )?;
            let mut command = Command::new("node");
            command.arg(amplify.join("client.mjs"));
            Ok(command)
        }
        _ => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["client", client.name()]);
            Ok(command)
        }
    }
}

/// Its version, if it is there.
pub fn version(client: Client) -> Option<String> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (program, args) = match client {
        Client::Crt => (
            own.join("../target/awscrt/bin/python"),
            ["-c", "import awscrt; print('awscrt', awscrt.__version__)"],
        ),
        Client::Amplify => (
            PathBuf::from("node"),
            [
                "-p",
                // It does not export its own package.json.
                "const file = 'node_modules/@aws-amplify/pubsub/package.json'; \
                 const { name, version } = JSON.parse(require('fs').readFileSync(file)); \
                 `${name} ${version}, node ${process.versions.node}`",
            ],
        ),
        _ => return None,
    };
    let mut command = Command::new(program);
    let output = command.args(args).current_dir(own.join("amplify")).output();
    let output = output.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
