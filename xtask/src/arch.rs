//! The architecture, as a table, and the checks that hold the code to it.
//!
//! ARCHITECTURE.md draws the same arrows and says why. A new one is a commit of its own, with its
//! reason.

use std::collections::BTreeSet;
use std::path::Path;

use crate::metadata::{Workspace, closure};
use crate::sh::{Failure, files, read, root};
use crate::source;

/// Who may use whom, of the members, as a normal dependency.
const ARROWS: &[(&str, &[&str])] = &[
    ("sigv4-presign", &[]),
    ("mqtt-codec", &[]),
    ("mqtt-session", &["mqtt-codec"]),
    ("ws-transport", &[]),
    ("pubsub-core", &[]),
    (
        "pubsub-generic",
        &["mqtt-codec", "mqtt-session", "pubsub-core", "ws-transport"],
    ),
    (
        "pubsub-aws-iot",
        &[
            "pubsub-core",
            "pubsub-generic",
            "sigv4-presign",
            "ws-transport",
        ],
    ),
    ("testkit", PRODUCT),
    ("examples", EXAMPLES),
    (
        "fuzz",
        &[
            "mqtt-codec",
            "mqtt-session",
            "pubsub-core",
            "pubsub-generic",
            "sigv4-presign",
            "ws-transport",
        ],
    ),
    ("benches", PRODUCT),
    ("xtask", &[]),
];

const PRODUCT: &[&str] = &[
    "mqtt-codec",
    "mqtt-session",
    "pubsub-aws-iot",
    "pubsub-core",
    "pubsub-generic",
    "sigv4-presign",
    "ws-transport",
];

const EXAMPLES: &[&str] = &["pubsub-aws-iot", "pubsub-core", "pubsub-generic", "testkit"];

/// The crates that know no socket, no clock, no logger and no randomness of their own.
const FENCED: &[&str] = &["mqtt-codec", "mqtt-session", "sigv4-presign"];

/// What a fenced crate may not be built from, at any depth.
const FORBIDDEN_CRATES: &[&str] = &[
    "tokio", "tracing", "log", "http", "chrono", "mio", "socket2",
];

/// What the code of a fenced crate may not say outside its tests.
const FORBIDDEN_PATHS: &[&str] = &[
    "std::net",
    "Instant::now",
    "SystemTime::now",
    "UtcDateTime::now",
    "OffsetDateTime::now_utc",
    "rand::",
    "getrandom::",
];

/// The crate that speaks of messages, topics and providers only, and the words it does not know.
const NEUTRAL: &str = "pubsub-core";
const FOREIGN_WORDS: &[&str] = &["ws", "wss", "tls", "ssl", "aws", "iot"];
/// The same, wherever they stand in a name: too long to be part of another word.
const FOREIGN_NAMES: &[&str] = &[
    "mqtt",
    "websocket",
    "rustls",
    "tungstenite",
    "amazon",
    "sigv4",
];

/// The one crate whose public signatures may name the types of these others.
const TRANSPORT: &str = "ws-transport";
const TRANSPORT_CRATES: &[&str] = &["tungstenite", "tokio_tungstenite", "rustls", "tokio_rustls"];

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    if let Some(other) = args.first() {
        return Err(Failure::unknown_argument(other));
    }
    let workspace = Workspace::load()?;
    let mut wrong = arrows(&workspace);
    for name in FENCED {
        let packages = closure(name, "normal")?;
        wrong.extend(behind_fence(name, packages.iter().map(|(name, _)| name)));
    }
    let mut scanned = 0;
    for member in &workspace.members {
        if let Some(lib) = &member.lib
            && !read(lib)?.contains("#![forbid(unsafe_code)]")
        {
            wrong.push(format!(
                "{}: #![forbid(unsafe_code)] is missing",
                shown(lib)
            ));
        }
        for path in files(&member.dir.join("src"), ".rs") {
            let text = read(&path)?;
            wrong.extend(
                code(&member.name, member.published, &text)
                    .iter()
                    .map(|(line, what)| format!("{}:{line}: {what}", shown(&path))),
            );
            scanned += 1;
        }
    }
    if wrong.is_empty() {
        println!(
            "arch: {} members, {scanned} files: every arrow and every word is allowed",
            workspace.members.len()
        );
        Ok(())
    } else {
        Err(Failure::failed(wrong.join("\n")))
    }
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Arrows that the table does not list, and members and rows that have no counterpart.
fn arrows(workspace: &Workspace) -> Vec<String> {
    let mut wrong = Vec::new();
    let members: BTreeSet<&str> = workspace
        .members
        .iter()
        .map(|member| member.name.as_str())
        .collect();
    for member in &workspace.members {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == member.name) else {
            wrong.push(format!(
                "{} has no row in the table of arrows (xtask/src/arch.rs)",
                member.name
            ));
            continue;
        };
        for dependency in &member.dependencies {
            if members.contains(dependency.as_str()) && !allowed.contains(&dependency.as_str()) {
                wrong.push(format!(
                    "{} -> {dependency}: not in the table of arrows",
                    member.name
                ));
            }
        }
        if FENCED.contains(&member.name.as_str()) {
            wrong.extend(behind_fence(
                &member.name,
                member.dependencies.iter().map(String::as_str),
            ));
        }
    }
    for (name, _) in ARROWS {
        if !members.contains(name) {
            wrong.push(format!(
                "the table of arrows names {name}, which is no member"
            ));
        }
    }
    wrong
}

fn behind_fence(name: &str, packages: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    let forbidden = packages
        .into_iter()
        .filter(|package| FORBIDDEN_CRATES.contains(&package.as_ref()));
    forbidden
        .map(|package| format!("{name} is sans-IO, yet is built from {}", package.as_ref()))
        .collect()
}

/// What one file of a member says that it should not: `(line, what)`.
fn code(member: &str, published: bool, text: &str) -> Vec<(usize, String)> {
    let tokens = source::tokens(text);
    let mut wrong = Vec::new();
    if FENCED.contains(&member) {
        for path in FORBIDDEN_PATHS {
            if let Some(line) = source::has_path(&tokens, path) {
                wrong.push((line, format!("`{path}` in a sans-IO crate")));
            }
        }
    }
    let items = source::public_items(&tokens);
    if member == NEUTRAL {
        let names = items
            .iter()
            .copied()
            .flatten()
            .filter(|token| token.is_word());
        for token in names.filter(|token| is_foreign(&token.text)) {
            let what = format!("`{}` in the public interface of {NEUTRAL}", token.text);
            wrong.push((token.line, what));
        }
    }
    if published && member != TRANSPORT {
        let foreign = imported(&tokens);
        for token in items.iter().copied().flatten() {
            let text = token.text.as_str();
            if TRANSPORT_CRATES.contains(&text) || foreign.contains(text) {
                wrong.push((
                    token.line,
                    format!("`{text}`, a foreign type, in a public signature"),
                ));
            }
        }
    }
    wrong
}

/// Whether a name of the neutral interface speaks of a protocol or a vendor.
fn is_foreign(identifier: &str) -> bool {
    let words = source::words(identifier);
    let whole = words.concat();
    words
        .iter()
        .any(|word| FOREIGN_WORDS.contains(&word.as_str()))
        || FOREIGN_NAMES.iter().any(|name| whole.contains(name))
}

/// Names that `use` declarations bring in from the transport's crates.
fn imported(tokens: &[source::Token]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for declaration in tokens.split(|token| token.text == ";") {
        let Some(start) = declaration.iter().rposition(|token| token.text == "use") else {
            continue;
        };
        let path = &declaration[start + 1..];
        if path
            .iter()
            .find(|token| token.is_word())
            .is_some_and(|first| TRANSPORT_CRATES.contains(&first.text.as_str()))
        {
            let types = path
                .iter()
                .filter(|token| token.text.starts_with(char::is_uppercase));
            names.extend(types.map(|token| token.text.as_str()));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace of every row of the table, with the given arrows.
    fn planted(arrows: &[(&str, &str, Option<&str>)]) -> Workspace {
        let package = |name: &str| {
            let drawn = arrows.iter().filter(|(from, ..)| *from == name);
            let dependencies: Vec<_> = drawn
                .map(|(_, to, kind)| serde_json::json!({"name": to, "kind": kind}))
                .collect();
            serde_json::json!({"name": name, "version": "0.1.0", "id": name, "dependencies": dependencies})
        };
        let names: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
        let json = serde_json::json!({
            "workspace_members": names,
            "packages": names.iter().map(|name| package(name)).collect::<Vec<_>>(),
        });
        Workspace::parse(&json.to_string()).expect("fake metadata")
    }

    #[test]
    fn a_listed_arrow_passes() {
        assert_eq!(
            arrows(&planted(&[("mqtt-session", "mqtt-codec", None)])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_planted_arrow_is_found() {
        let wrong = arrows(&planted(&[("mqtt-codec", "pubsub-core", None)]));
        assert_eq!(
            wrong,
            ["mqtt-codec -> pubsub-core: not in the table of arrows"]
        );
    }

    #[test]
    fn a_dev_dependency_is_no_arrow() {
        assert_eq!(
            arrows(&planted(&[("mqtt-codec", "testkit", Some("dev"))])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn tokio_under_the_fence_is_found() {
        let wrong = arrows(&planted(&[("mqtt-session", "tokio", None)]));
        assert_eq!(wrong, ["mqtt-session is sans-IO, yet is built from tokio"]);
        assert_eq!(behind_fence("mqtt-codec", ["bytes", "mio"]).len(), 1);
    }

    #[test]
    fn a_clock_or_a_socket_under_the_fence_is_found() {
        let text =
            "fn a() {\n    let now = std::time::Instant::now();\n}\nuse std::net::TcpStream;";
        let lines: Vec<usize> = code("mqtt-session", true, text)
            .iter()
            .map(|(line, _)| *line)
            .collect();
        assert_eq!(lines, [4, 2]);
        assert_eq!(code("pubsub-generic", true, text), []);
        let only_a_test =
            "#[cfg(test)] mod tests { fn a() { Instant::now(); } } // SystemTime::now";
        assert_eq!(code("mqtt-session", true, only_a_test), []);
    }

    #[test]
    fn a_protocol_word_in_the_neutral_api_is_found() {
        assert_eq!(code(NEUTRAL, true, "pub enum Error { TlsFailed }").len(), 1);
        assert_eq!(code(NEUTRAL, true, "pub struct MqttOptions;").len(), 1);
        assert_eq!(code(NEUTRAL, true, "pub fn over(x: WebSocket) {}").len(), 1);
        assert_eq!(
            code(
                NEUTRAL,
                true,
                "/// MQTT's rules.\npub fn rows() { mqtt(); }"
            ),
            []
        );
    }

    #[test]
    fn a_foreign_type_in_a_signature_is_found() {
        let text =
            "use rustls::{ClientConfig, RootCertStore};\npub fn tls(config: ClientConfig) {}";
        assert_eq!(code("pubsub-generic", true, text).len(), 1);
        assert_eq!(code(TRANSPORT, true, text), []);
        assert_eq!(
            code(
                "pubsub-generic",
                true,
                "impl From<tungstenite::Error> for E {}"
            )
            .len(),
            1
        );
    }
}
