//! Commands, shown before they run, and the one error type of the verbs.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a verb did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments make no sense: exit status 2.
    Usage(String),
    /// A check or a command failed: exit status 1.
    Failed(String),
}

impl Failure {
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }

    /// The same failure, with more to say of it.
    pub(crate) fn with(self, more: &str) -> Self {
        match self {
            Self::Usage(why) => Self::Usage(why + more),
            Self::Failed(why) => Self::Failed(why + more),
        }
    }

    pub(crate) fn unknown_argument(argument: &str) -> Self {
        Self::Usage(format!("unknown argument {argument:?}"))
    }
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Whether a continuous-integration machine runs this, where leaving something out is an error.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI")
        .is_some_and(|value| !value.is_empty() && value != "false" && value != "0")
}

/// Reads a file of the workspace.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

/// Writes a file of the workspace, with the directories above it.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, text))
        .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

/// Every file under `dir` whose name ends in `ending`, sorted; none when there is no such directory.
pub(crate) fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name() != Some(OsStr::new("target")) {
                    left.push(path);
                }
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Looks a program up in `PATH`, and where Debian keeps the daemons that are not in a user's `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(daemons)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// Today's date, in UTC, as `YYYY-MM-DD`.
pub(crate) fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    date(since.map_or(0, |elapsed| elapsed.as_secs() / 86_400))
}

/// The date of a day, counted from 1970, by the arithmetic of years that begin in March.
fn date(day: u64) -> String {
    let days = day + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// What a record says of the machine it was made on.
pub(crate) fn machine() -> String {
    let first = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default();
        line.split_once(':')
            .map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let rustc = Step::new("rustc")
        .arg("--version")
        .quiet_output()
        .unwrap_or_default();
    format!(
        "{cores} cores of {}, memory {}, load {load}, {}",
        first("/proc/cpuinfo", "model name"),
        first("/proc/meminfo", "MemTotal"),
        rustc.trim()
    )
}

/// A command that shows itself before it runs, from the root of the workspace.
pub(crate) struct Step {
    command: Command,
    shown: String,
}

impl Step {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let shown = program.as_ref().to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.current_dir(root());
        Self { command, shown }
    }

    /// The cargo that runs this program.
    pub(crate) fn cargo() -> Self {
        let mut step = Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        "cargo".clone_into(&mut step.shown);
        step
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        let text = arg.as_ref().to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:@%".contains(c);
        self.shown.push(' ');
        if !text.is_empty() && text.chars().all(plain) {
            self.shown += &text;
        } else {
            self.shown += &format!("'{text}'");
        }
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        let quote = if value.contains(' ') { "'" } else { "" };
        self.shown = format!("{name}={quote}{value}{quote} {}", self.shown);
        self.command.env(name, value);
        self
    }

    /// Runs in a directory below the root.
    pub(crate) fn dir(mut self, dir: &str) -> Self {
        self.command.current_dir(root().join(dir));
        self.shown = format!("cd {dir} && {}", self.shown);
        self
    }

    /// The command as a line that can be typed.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    fn show(&self) {
        println!("$ {}", self.shown);
    }

    /// Runs it; its output goes where ours goes.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        self.show();
        match self.command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::failed(format!("`{}`: {status}", self.shown))),
            Err(error) => Err(Failure::failed(format!("`{}`: {error}", self.shown))),
        }
    }

    /// Runs it, hands each line of standard output to `look` and prints it.
    pub(crate) fn run_watched(mut self, look: impl FnMut(&str)) -> Result<(), Failure> {
        self.command.stdout(Stdio::piped());
        self.watch(look, |_| {})
    }

    /// As [`Step::run_watched`], for standard error.
    pub(crate) fn run_watching_errors(
        mut self,
        look: impl FnMut(&str) + Send,
    ) -> Result<(), Failure> {
        self.command.stderr(Stdio::piped());
        self.watch(|_| {}, look)
    }

    /// As [`Step::run_watched`], for both, each to its own.
    pub(crate) fn run_watching_both(
        mut self,
        output: impl FnMut(&str),
        errors: impl FnMut(&str) + Send,
    ) -> Result<(), Failure> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.watch(output, errors)
    }

    fn watch(
        mut self,
        mut output: impl FnMut(&str),
        mut errors: impl FnMut(&str) + Send,
    ) -> Result<(), Failure> {
        self.show();
        let failed = |why: &dyn Display| Failure::failed(format!("`{}`: {why}", self.shown));
        let mut child = self.command.spawn().map_err(|error| failed(&error))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| {
                each_line(stderr, |line| {
                    eprintln!("{line}");
                    errors(line);
                })
            });
            let read = each_line(stdout, |line| {
                println!("{line}");
                output(line);
            });
            let also = watching
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            read.and(also)
        })
        .map_err(|error| failed(&error))?;
        let status = child.wait().map_err(|error| failed(&error))?;
        if status.success() {
            Ok(())
        } else {
            Err(failed(&status))
        }
    }

    /// Runs it and returns its standard output; standard error is shown only when it fails.
    pub(crate) fn output(self) -> Result<String, Failure> {
        self.show();
        self.quiet_output()
    }

    /// As [`Step::output`], for a question that is no part of the work and need not be shown.
    pub(crate) fn quiet_output(mut self) -> Result<String, Failure> {
        let output = self
            .command
            .output()
            .map_err(|error| Failure::failed(format!("`{}`: {error}", self.shown)))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::failed(format!(
                "`{}`: {}\n{stderr}",
                self.shown, output.status
            )));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Whether it can be run and succeeds; nothing is shown.
    pub(crate) fn succeeds(mut self) -> bool {
        let quiet = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    }
}

/// Hands over each line of what is piped, if it is.
fn each_line(piped: Option<impl Read>, mut look: impl FnMut(&str)) -> std::io::Result<()> {
    for line in piped
        .into_iter()
        .flat_map(|piped| BufReader::new(piped).split(b'\n'))
    {
        look(&String::from_utf8_lossy(&line?));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(19_782), "2024-02-29");
        assert_eq!(date(19_783), "2024-03-01");
        assert_eq!(date(20_818), "2026-12-31");
    }

    #[test]
    fn a_command_is_shown_as_it_can_be_typed() {
        let step = Step::cargo()
            .args(["test", "a b"])
            .env("X", "1 2")
            .dir("fuzz");
        assert_eq!(step.shown(), "cd fuzz && X='1 2' cargo test 'a b'");
    }

    #[test]
    fn both_outputs_are_watched_each_by_its_own() {
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let outcome = Step::new("sh")
            .args(["-c", "echo one; echo two >&2; echo three; exit 3"])
            .run_watching_both(
                |line| output.push(line.to_owned()),
                |line| errors.push(line.to_owned()),
            );
        assert!(matches!(outcome, Err(Failure::Failed(why)) if why.contains("status: 3")));
        assert_eq!(
            (output.join(" "), errors.join(" ")),
            ("one three".into(), "two".into())
        );
    }
}
