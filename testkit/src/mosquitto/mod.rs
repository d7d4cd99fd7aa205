//! The system's mosquitto, started for one test and gone with it.
//!
//! ```no_run
//! # async fn example() -> Result<(), testkit::mosquitto::StartError> {
//! let Some(mosquitto) = testkit::mosquitto::find_or_skip() else { return Ok(()) };
//! let broker = mosquitto.config().websocket().start().await?;
//! println!("connect to {}", broker.ws_url());
//! # Ok(()) }
//! ```
//!
//! Every test that needs it goes through [`find_or_skip`], so that one rule holds everywhere: where
//! mosquitto is missing the test says loudly that it was left out, and where
//! `PUBSUB_REQUIRE_BROKER=1` is set, as under continuous integration, it fails instead.

mod config;
mod process;

use std::{
    env, fmt,
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;

pub use self::config::Config;
use self::{
    config::Ports,
    process::{Process, launch, read_log},
};

/// Names the program to run instead of the `mosquitto` on the path.
pub const PROGRAM_VARIABLE: &str = "MOSQUITTO";

/// Set to `1`, it makes a missing broker a failure instead of a skipped test.
pub const REQUIRE_VARIABLE: &str = "PUBSUB_REQUIRE_BROKER";

/// How long a started broker may take until all its listeners answer. It needs 0.2 s; the rest is
/// for a machine with much else to do.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How often another set of ports is tried where they cannot be held and somebody else took one.
const PORT_ATTEMPTS: usize = 8;

/// How often [`Broker::start`] tries to get its old ports back. Each time a process starts and ends, so that is seconds, and
/// more on a machine that is busy.
pub const REBIND_ATTEMPTS: u32 = 100;

/// How often readiness is looked at. The wait ends with the fact, not with the time.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The installed mosquitto, or `None` after saying on the real standard error (which the test
/// harness does not capture) that something was left out.
///
/// # Panics
///
/// If it is missing and [`REQUIRE_VARIABLE`] is `1`.
#[must_use]
pub fn find_or_skip() -> Option<Installation> {
    if let Some(found) = Installation::find() {
        return Some(found);
    }
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(
        env::var(REQUIRE_VARIABLE).as_deref() != Ok("1"),
        "{test} needs mosquitto, and {REQUIRE_VARIABLE}=1 forbids to leave it out: \
         install it with `apt-get install mosquitto` or name it in {PROGRAM_VARIABLE}"
    );
    // Nobody is left to tell when this cannot be written.
    let _ = writeln!(
        io::stderr(),
        "SKIPPED: {test} needs mosquitto; install it with `apt-get install mosquitto` \
         or name it in {PROGRAM_VARIABLE}"
    );
    None
}

/// Where mosquitto is on this machine.
#[derive(Clone, Debug)]
pub struct Installation {
    program: PathBuf,
}

impl Installation {
    /// Looks at [`PROGRAM_VARIABLE`], then along the path, then in the places for system programs,
    /// which are often not on a user's path.
    #[must_use]
    pub fn find() -> Option<Self> {
        if let Some(named) = env::var_os(PROGRAM_VARIABLE) {
            let program = PathBuf::from(named);
            return program.is_file().then_some(Self { program });
        }
        search_path("mosquitto").map(|program| Self { program })
    }

    /// The program that is run.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A configuration with a listener for MQTT over plain TCP, to add others to. (That one is always
    /// there: mosquitto 2.0 ends at once when it has none but WebSocket listeners.)
    #[must_use]
    pub fn config(&self) -> Config {
        Config::new(self.program.clone())
    }
}

/// A running mosquitto. Dropping it kills the process and removes its directory.
#[derive(Debug)]
pub struct Broker {
    /// `None` while the broker is taken away. First, so that it is dropped first: the process must
    /// not write into the directory while that is being removed.
    process: Option<Process>,
    directory: TempDir,
    program: PathBuf,
    ports: Ports,
}

impl Broker {
    /// Where its WebSocket listener is.
    ///
    /// # Panics
    ///
    /// If there is none: see [`Config::websocket`].
    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("ws://{}/mqtt", self.ws_address())
    }

    /// Where its WebSocket listener with TLS is.
    ///
    /// # Panics
    ///
    /// If there is none: see [`Config::secure_websocket`].
    #[must_use]
    pub fn wss_url(&self) -> String {
        let port = self.ports.wss.as_ref();
        let port = port.expect("the configuration has secure_websocket()");
        format!("wss://localhost:{}/mqtt", port.address().port())
    }

    /// Where it speaks MQTT over plain TCP.
    #[must_use]
    pub fn tcp_address(&self) -> SocketAddr {
        self.ports.tcp.address()
    }

    /// The address of the WebSocket listener without TLS, for a [`proxy`](crate::proxy) before it.
    ///
    /// # Panics
    ///
    /// If there is none: see [`Config::websocket`].
    #[must_use]
    pub fn ws_address(&self) -> SocketAddr {
        let port = self.ports.ws.as_ref();
        let port = port.expect("the configuration has websocket()");
        port.address()
    }

    /// Ends the broker in order (SIGTERM) and waits for it; clients see their connections end. Does
    /// nothing when it is not running.
    ///
    /// Cancelling it kills the broker.
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent, or the process did not end and was killed.
    pub async fn stop(&mut self) -> io::Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        process.signal(Signal::TERM)?;
        let deadline = Instant::now() + START_TIMEOUT;
        while process.0.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Ends the broker as a crash would (SIGKILL). Does nothing when it is not running.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts a stopped or killed broker again, on the same ports with the same configuration. Does
    /// nothing when it is running.
    ///
    /// Cancelling it leaves the broker stopped.
    ///
    /// # Errors
    ///
    /// As [`Config::start`]; also when somebody else has taken a port and holds it over
    /// [`REBIND_ATTEMPTS`].
    pub async fn start(&mut self) -> Result<(), StartError> {
        if self.process.is_some() {
            return Ok(());
        }
        let mut attempts = REBIND_ATTEMPTS;
        loop {
            match launch(&self.program, self.directory.path(), &self.ports).await {
                Ok(process) => {
                    self.process = Some(process);
                    return Ok(());
                }
                // A connection, of the killed broker or of anybody, may hold the port for a moment.
                Err(error) if error.is_port_clash() && attempts > 0 => {
                    attempts -= 1;
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// [`stop`](Self::stop), then [`start`](Self::start).
    ///
    /// Cancelling it may leave the broker stopped.
    ///
    /// # Errors
    ///
    /// As the two.
    pub async fn restart(&mut self) -> Result<(), StartError> {
        self.stop().await?;
        self.start().await
    }

    /// Freezes the broker (SIGSTOP): its connections stay open and nothing comes back, which is what
    /// a half-open link looks like. Connections are even accepted, by the kernel.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen broker go on; it then answers what was sent to it meanwhile.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// All that the broker wrote so far, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        read_log(self.directory.path(), 0)
    }

    /// Where its files are, while it lives.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match &self.process {
            Some(process) => process.signal(signal),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }
}

/// Why a broker did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A file could not be written or a program not be run.
    Io(io::Error),
    /// The broker ended before its listeners answered.
    Ended {
        /// What it wrote.
        log: String,
    },
    /// The listeners did not answer within [`START_TIMEOUT`].
    NotReady {
        /// What it wrote.
        log: String,
    },
    /// `mosquitto_passwd` is missing or failed.
    Passwords {
        /// What it wrote.
        output: String,
    },
}

impl StartError {
    fn is_port_clash(&self) -> bool {
        matches!(self, Self::Ended { log } if log.contains("in use") || log.contains("listener on port"))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(_) => f.write_str("mosquitto cannot be run"),
            Self::Ended { log } => write!(f, "mosquitto ended at once and wrote:\n{log}"),
            Self::NotReady { log } => write!(f, "mosquitto did not get ready and wrote:\n{log}"),
            Self::Passwords { output } => {
                write!(f, "mosquitto_passwd did not work: {output}")
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn search_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(
            [
                "/usr/sbin",
                "/usr/local/sbin",
                "/usr/local/bin",
                "/opt/homebrew/sbin",
            ]
            .map(PathBuf::from),
        )
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}
