//! The Autobahn test suite against ws-transport as a client.
//!
//! The suite is Python 2 code. It is installed under `target`, its fuzzing server listens on an ephemeral
//! port of the loopback interface, and `ws-transport/examples/autobahn_client.rs` plays every case that
//! needs no compression, which ws-transport never offers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::sh::{Failure, Step, find_program, machine, read, root, today, write};

/// The last release, pinned so that the number of cases is known.
const SUITE: &str = "25.10.1";

/// Of the suite's 517 cases, those that need compression: 216.
const EXCLUDED: [&str; 2] = ["12.*", "13.*"];

/// And all the others.
const CASES: usize = 301;

const SERVER: &str = "xtask/python/autobahn_server.py";
const CLIENT: &str = "autobahn_client";
const RECORD: &str = "ws-transport/tests/autobahn/REPORT.md";

/// Where the suite is installed and works; `cargo clean` removes it.
const PLACE: &str = "target/autobahn";

/// Ample for an interpreter to start and import Twisted on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let (mut python, mut cases) = (None, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--python" => {
                let path = args
                    .next()
                    .ok_or_else(|| Failure::Usage("--python wants a path".to_owned()))?;
                python = Some(path.clone());
            }
            flag if flag.starts_with('-') => return Err(Failure::unknown_argument(flag)),
            case => cases.push(case.to_owned()),
        }
    }
    let python = find_python(python)?;
    let packages = install(&python)?;

    // Before the server, which would wait for it all the time.
    let build = |verb: &str| {
        let step = Step::cargo().args([verb, "--release", "--package", "ws-transport"]);
        step.args(["--example", CLIENT])
    };
    build("build").run()?;
    let server = Server::start(&python, &packages, &cases)?;
    build("run")
        .arg("--quiet")
        .arg("--")
        .arg(format!("ws://127.0.0.1:{}", server.port))
        .run()?;
    drop(server);

    let results = Results::read(&report_dir().join("index.json"))?;
    println!("\n{}", results.table());
    if cases.is_empty() {
        write(&root().join(RECORD), &results.record(&python)?)?;
        println!("recorded in {RECORD}");
    }
    results.judge(cases.is_empty().then_some(CASES))
}

/// An interpreter that is CPython 2.7, asked for its version: pyenv has a `python2.7` in `PATH` that only
/// says that there is none.
fn find_python(chosen: Option<String>) -> Result<PathBuf, Failure> {
    let is_2_7 = |path: &PathBuf| {
        let question = "import sys; sys.exit(sys.version_info[:2] != (2, 7))";
        Step::new(path).args(["-c", question]).succeeds()
    };
    if let Some(chosen) = chosen.map(PathBuf::from) {
        return if is_2_7(&chosen) {
            Ok(chosen)
        } else {
            let why = format!("--python {}: not CPython 2.7", chosen.display());
            Err(Failure::failed(why))
        };
    }
    let pyenv = std::env::var_os("PYENV_ROOT").map_or_else(
        || {
            let home = std::env::var_os("HOME").unwrap_or_default();
            PathBuf::from(home).join(".pyenv")
        },
        PathBuf::from,
    );
    let versions = std::fs::read_dir(pyenv.join("versions"));
    let mut of_pyenv: Vec<PathBuf> = versions
        .into_iter()
        .flatten()
        .flatten()
        .filter(|version| version.file_name().to_string_lossy().starts_with("2.7"))
        .map(|version| version.path().join("bin/python"))
        .collect();
    of_pyenv.sort();
    let candidates = find_program("python2.7").into_iter().chain(of_pyenv);
    candidates.into_iter().find(is_2_7).ok_or_else(|| {
        Failure::failed(
            "the Autobahn test suite needs CPython 2.7 with pip, and a C compiler: no python2.7 in PATH \
             and none of pyenv's (`pyenv install 2.7.18`); or say `--python PATH`",
        )
    })
}

/// Installs the suite unless it is there; says where it is.
fn install(python: &Path) -> Result<PathBuf, Failure> {
    let packages = root().join(PLACE).join("packages");
    // pip writes it last.
    let installed = packages.join(format!("autobahntestsuite-{SUITE}.dist-info"));
    if !installed.is_dir() {
        Step::new(python)
            .args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"])
            .arg(&packages)
            .arg(format!("autobahntestsuite=={SUITE}"))
            .run()?;
    }
    Ok(packages)
}

fn report_dir() -> PathBuf {
    root().join(PLACE).join("report")
}

/// The fuzzing server, until it is dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts it for these cases; all when there are none.
    fn start(python: &Path, packages: &Path, cases: &[String]) -> Result<Self, Failure> {
        let (report, place) = (report_dir(), root().join(PLACE));
        // An old report must not pass for this run's.
        if report.exists() {
            let removed = std::fs::remove_dir_all(&report);
            removed.map_err(|error| Failure::failed(format!("{}: {error}", report.display())))?;
        }
        let all = ["*".to_owned()];
        let spec = json!({
            "url": "ws://127.0.0.1:0",
            "outdir": report,
            "cases": if cases.is_empty() { &all } else { cases },
            "exclude-cases": EXCLUDED,
            "exclude-agent-cases": {},
        });
        let spec_path = place.join("spec.json");
        write(&spec_path, &spec.to_string())?;

        let log_path = place.join("server.log");
        let failed = |why: &dyn std::fmt::Display| {
            Failure::failed(format!(
                "the fuzzing server: {why}; see {}",
                log_path.display()
            ))
        };
        let log = std::fs::File::create(&log_path).map_err(|error| failed(&error))?;
        println!(
            "$ {} -u {SERVER} {} {} >{} &",
            python.display(),
            packages.display(),
            spec_path.display(),
            log_path.display()
        );
        let mut child = Command::new(python)
            .current_dir(root())
            // Or the port would wait in a buffer.
            .arg("-u")
            .arg(SERVER)
            .args([packages, &spec_path])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone().map_err(|error| failed(&error))?)
            .spawn()
            .map_err(|error| failed(&error))?;
        let output = child.stdout.take();
        // From here on an error stops it.
        let mut server = Self { child, port: 0 };
        let output = output.ok_or_else(|| failed(&"no output"))?;
        let port = watch(output, log).recv_timeout(START_TIMEOUT);
        server.port = port.map_err(|_| failed(&"does not say that it listens"))?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Writes what the server says to its log, and hands over the port when it names it.
fn watch(output: impl std::io::Read + Send + 'static, mut log: std::fs::File) -> Receiver<u16> {
    let (say, heard) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // A full disk is no reason to stop reading: the server would wait for us.
            let _unwritten = writeln!(log, "{line}");
            let port = line.strip_prefix("listening on ");
            if let Some(port) = port.and_then(|port| port.parse().ok()) {
                let _gave_up = say.send(port);
            }
        }
    });
    heard
}

/// What the server thought of the client.
struct Results {
    cases: Vec<Case>,
}

struct Case {
    id: String,
    /// Of the messages.
    behavior: String,
    /// Of the closing handshake.
    close: String,
}

impl Case {
    fn passed(&self) -> bool {
        let good = |verdict: &str| matches!(verdict, "OK" | "NON-STRICT" | "INFORMATIONAL");
        good(&self.behavior) && good(&self.close)
    }

    fn is_ok(&self) -> bool {
        self.behavior == "OK" && self.close == "OK"
    }

    /// By number, part for part.
    fn order(&self) -> Vec<u32> {
        let parts = self.id.split('.');
        parts.map(|part| part.parse().unwrap_or(u32::MAX)).collect()
    }
}

impl Results {
    fn read(index: &Path) -> Result<Self, Failure> {
        let failed = |why: &str| Failure::failed(format!("{}: {why}", index.display()));
        let parsed: Value =
            serde_json::from_str(&read(index)?).map_err(|error| failed(&error.to_string()))?;
        Self::parse(&parsed).ok_or_else(|| failed("not a report of one client"))
    }

    fn parse(index: &Value) -> Option<Self> {
        let agents = index.as_object()?;
        let (1, Some(cases)) = (agents.len(), agents.values().next()?.as_object()) else {
            return None;
        };
        let case = |(id, case): (&String, &Value)| {
            Some(Case {
                id: id.clone(),
                behavior: case.get("behavior")?.as_str()?.to_owned(),
                close: case.get("behaviorClose")?.as_str()?.to_owned(),
            })
        };
        let mut cases: Vec<Case> = cases.iter().map(case).collect::<Option<_>>()?;
        cases.sort_by_key(Case::order);
        Some(Self { cases })
    }

    /// How many cases got which verdict, and each that is not plainly OK.
    fn table(&self) -> String {
        let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for case in &self.cases {
            counts.entry(&case.behavior).or_default().0 += 1;
            counts.entry(&case.close).or_default().1 += 1;
        }
        let mut table = String::from("| verdict | messages | closing |\n| --- | ---: | ---: |\n");
        for (verdict, (messages, closing)) in counts {
            table += &format!("| {verdict} | {messages} | {closing} |\n");
        }
        table += &format!("| all | {0} | {0} |\n", self.cases.len());

        table += "\n| case | messages | closing |\n| --- | --- | --- |\n";
        for case in self.cases.iter().filter(|case| !case.is_ok()) {
            table += &format!("| {} | {} | {} |\n", case.id, case.behavior, case.close);
        }
        table
    }

    fn record(&self, python: &Path) -> Result<String, Failure> {
        let version = "import platform; print(platform.python_version())";
        let python = Step::new(python).args(["-c", version]).quiet_output()?;
        // Not from the lock file: it has other versions too, for our tests' servers.
        let tree = Step::cargo().args(["tree", "--package", "ws-transport", "--edges", "normal"]);
        let tree = tree.args(["--prefix", "none"]).quiet_output()?;
        Ok(format!(
            "# ws-transport as a client of the Autobahn test suite, {}\n\n\
             Command: `cargo xtask autobahn`, which wrote this. autobahntestsuite {SUITE} on Python {}; \
             tokio-tungstenite {}, tungstenite {}.\n\n\
             Machine: {}\n\n\
             Played: every case but those that need compression ({}). NON-STRICT and INFORMATIONAL are \
             passes; all cases that are not plainly OK stand in the second table.\n\n{}",
            today(),
            python.trim(),
            version_in(&tree, "tokio-tungstenite"),
            version_in(&tree, "tungstenite"),
            machine(),
            EXCLUDED.join(", "),
            self.table()
        ))
    }

    /// Fails unless every case passed, and as many were played as there should be.
    fn judge(&self, expected: Option<usize>) -> Result<(), Failure> {
        let failed: Vec<&str> = self
            .cases
            .iter()
            .filter(|case| !case.passed())
            .map(|case| case.id.as_str())
            .collect();
        let played = self.cases.len();
        if !failed.is_empty() {
            let why = format!(
                "failed: {}; see {PLACE}/report/index.html",
                failed.join(", ")
            );
            return Err(Failure::failed(why));
        }
        match expected {
            Some(expected) if expected != played => Err(Failure::failed(format!(
                "{played} cases were played, not {expected}"
            ))),
            _ if played == 0 => Err(Failure::failed("no case was played")),
            _ => Ok(()),
        }
    }
}

/// The version of a package in what `cargo tree` prints: `tungstenite v0.1.0`.
fn version_in<'a>(tree: &'a str, package: &str) -> &'a str {
    let version = tree.lines().find_map(|line| {
        let rest = line.strip_prefix(package)?.strip_prefix(" v")?;
        rest.split_whitespace().next()
    });
    version.unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(cases: &[(&str, &str, &str)]) -> Results {
        let cases: serde_json::Map<String, Value> = cases
            .iter()
            .map(|(id, behavior, close)| {
                let case = json!({ "behavior": behavior, "behaviorClose": close, "duration": 1 });
                ((*id).to_owned(), case)
            })
            .collect();
        Results::parse(&json!({ "client": cases })).expect("one client")
    }

    #[test]
    fn cases_are_counted_and_listed_by_number() {
        let table = results(&[
            ("10.1.1", "NON-STRICT", "OK"),
            ("9.1.1", "OK", "INFORMATIONAL"),
            ("1.1.1", "OK", "OK"),
        ])
        .table();
        assert!(table.contains("| OK | 2 | 2 |"), "{table}");
        assert!(table.contains("| NON-STRICT | 1 | 0 |"), "{table}");
        assert!(table.contains("| all | 3 | 3 |"), "{table}");
        assert!(!table.contains("| 1.1.1 |"), "{table}");
        let (nine, ten) = (table.find("| 9.1.1 |"), table.find("| 10.1.1 |"));
        assert!(nine.is_some() && nine < ten, "{table}");
    }

    #[test]
    fn every_verdict_but_three_fails() {
        let good = [
            ("1", "OK", "OK"),
            ("2", "NON-STRICT", "INFORMATIONAL"),
            ("3", "INFORMATIONAL", "OK"),
        ];
        assert!(results(&good).judge(Some(3)).is_ok());
        assert!(results(&good).judge(Some(4)).is_err(), "one is missing");
        assert!(results(&[]).judge(None).is_err(), "nothing was played");
        for verdict in ["FAILED", "UNIMPLEMENTED", "WRONG CODE", "UNCLEAN"] {
            assert!(results(&[("1", verdict, "OK")]).judge(None).is_err());
            assert!(results(&[("1", "OK", verdict)]).judge(None).is_err());
        }
    }

    #[test]
    fn versions_are_those_of_the_package_itself() {
        let tree = "a v1.0.0 (/a)\ntokio-tungstenite v0.2.0\ntungstenite v0.1.0 (*)\n";
        assert_eq!(version_in(tree, "tungstenite"), "0.1.0");
        assert_eq!(version_in(tree, "tungsten"), "?");
    }
}
