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

use std::{
    env, fmt,
    fs::{self, File},
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::certs::{Authority, Identity};

/// Names the program to run instead of the `mosquitto` on the path.
pub const PROGRAM_VARIABLE: &str = "MOSQUITTO";

/// Set to `1`, it makes a missing broker a failure instead of a skipped test.
pub const REQUIRE_VARIABLE: &str = "PUBSUB_REQUIRE_BROKER";

/// How long a started broker may take until all its listeners answer. It needs 0.2 s; the rest is
/// for a machine with much else to do.
pub const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How often another set of ports is tried when somebody else took one in between.
const PORT_ATTEMPTS: usize = 8;

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
        Config {
            program: self.program.clone(),
            websocket: false,
            secure_websocket: None,
            users: Vec::new(),
            acl: None,
            persistence: false,
            extra: Vec::new(),
        }
    }
}

/// What a broker is to offer. Anonymous clients are let in unless there are users.
#[derive(Clone, Debug)]
pub struct Config {
    program: PathBuf,
    websocket: bool,
    secure_websocket: Option<SecureListener>,
    users: Vec<(String, Password)>,
    acl: Option<String>,
    persistence: bool,
    extra: Vec<String>,
}

#[derive(Clone, Debug)]
struct SecureListener {
    authority_pem: String,
    identity: Identity,
    require_client_certificate: bool,
}

#[derive(Clone)]
struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<password>")
    }
}

impl Config {
    /// Adds a listener for `ws://`.
    #[must_use]
    pub fn websocket(mut self) -> Self {
        self.websocket = true;
        self
    }

    /// Adds a listener for `wss://` that presents a good certificate of this authority. (This
    /// broker refuses to present one that does not chain to it: use [`peer`](crate::peer) there.)
    #[must_use]
    pub fn secure_websocket(mut self, authority: &Authority) -> Self {
        self.secure_websocket = Some(SecureListener {
            authority_pem: authority.pem(),
            identity: authority.server(),
            require_client_certificate: false,
        });
        self
    }

    /// As [`secure_websocket`](Self::secure_websocket), and the client must present a certificate
    /// of the same authority.
    #[must_use]
    pub fn mutual_secure_websocket(mut self, authority: &Authority) -> Self {
        self = self.secure_websocket(authority);
        if let Some(listener) = &mut self.secure_websocket {
            listener.require_client_certificate = true;
        }
        self
    }

    /// Adds a user; from the first one on, anonymous clients are refused.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users
            .push((name.to_owned(), Password(password.to_owned())));
        self
    }

    /// The text of an access control file, as in mosquitto.conf(5) under `acl_file`.
    #[must_use]
    pub fn acl(mut self, text: &str) -> Self {
        self.acl = Some(text.to_owned());
        self
    }

    /// Keeps sessions and retained messages over [`Broker::restart`] (not over
    /// [`Broker::kill`], which leaves no time to write them: they are written as they change, but
    /// the last change may be lost).
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.persistence = true;
        self
    }

    /// Adds a line to the global part of the configuration file, for example
    /// `max_packet_size 4096`. See mosquitto.conf(5).
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.extra.push(line.to_owned());
        self
    }

    /// Starts the broker and waits until every listener answers.
    ///
    /// Cancelling it kills the broker.
    ///
    /// # Errors
    ///
    /// When the program cannot be run, ends at once, or is not ready within [`START_TIMEOUT`];
    /// what it wrote is part of the message.
    pub async fn start(self) -> Result<Broker, StartError> {
        let directory = TempDir::with_prefix("testkit-mosquitto-")?;
        self.write_files(directory.path())?;
        let mut last = None;
        for _ in 0..PORT_ATTEMPTS {
            let ports = Ports::pick(&self)?;
            fs::write(
                directory.path().join("mosquitto.conf"),
                self.text(directory.path(), &ports),
            )?;
            match launch(&self.program, directory.path(), &ports).await {
                Ok(process) => {
                    return Ok(Broker {
                        program: self.program,
                        directory,
                        ports,
                        process: Some(process),
                    });
                }
                Err(error) if error.is_port_clash() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::from(io::ErrorKind::AddrInUse).into()))
    }

    fn write_files(&self, directory: &Path) -> Result<(), StartError> {
        if let Some(listener) = &self.secure_websocket {
            fs::write(directory.join("ca.pem"), &listener.authority_pem)?;
            fs::write(directory.join("chain.pem"), listener.identity.chain_pem())?;
            fs::write(directory.join("key.pem"), listener.identity.key_pem())?;
        }
        if let Some(acl) = &self.acl {
            fs::write(directory.join("acl"), acl)?;
        }
        if !self.users.is_empty() {
            write_passwords(&self.program, &directory.join("passwords"), &self.users)?;
        }
        Ok(())
    }

    fn text(&self, directory: &Path, ports: &Ports) -> String {
        let in_directory = |name: &str| directory.join(name).display().to_string();
        let mut lines = vec![
            "log_dest stderr".to_owned(),
            "log_type all".to_owned(),
            "log_timestamp false".to_owned(),
            format!("allow_anonymous {}", self.users.is_empty()),
        ];
        if rustix::process::getuid().is_root() {
            // It would become the user `mosquitto`, who may not read this directory.
            lines.push("user root".to_owned());
        }
        if !self.users.is_empty() {
            lines.push(format!("password_file {}", in_directory("passwords")));
        }
        if self.acl.is_some() {
            lines.push(format!("acl_file {}", in_directory("acl")));
        }
        if self.persistence {
            lines.push("persistence true".to_owned());
            lines.push(format!("persistence_location {}/", directory.display()));
            lines.push("autosave_on_changes true".to_owned());
            lines.push("autosave_interval 1".to_owned());
        }
        lines.extend(self.extra.iter().cloned());
        // Without the domain the WebSocket listener binds every interface, whatever the address says.
        let listener = |port| {
            [
                format!("listener {port} 127.0.0.1"),
                "socket_domain ipv4".to_owned(),
            ]
        };
        lines.extend(listener(ports.tcp));
        if let Some(port) = ports.ws {
            lines.extend(listener(port));
            lines.push("protocol websockets".to_owned());
        }
        if let (Some(port), Some(secure)) = (ports.wss, &self.secure_websocket) {
            lines.extend(listener(port));
            lines.push("protocol websockets".to_owned());
            lines.push(format!("cafile {}", in_directory("ca.pem")));
            lines.push(format!("certfile {}", in_directory("chain.pem")));
            lines.push(format!("keyfile {}", in_directory("key.pem")));
            lines.push(format!(
                "require_certificate {}",
                secure.require_client_certificate
            ));
        }
        let mut text = lines.join("\n");
        text.push('\n');
        text
    }
}

/// A running mosquitto. Dropping it kills the process and removes its directory.
#[derive(Debug)]
pub struct Broker {
    program: PathBuf,
    directory: TempDir,
    ports: Ports,
    /// `None` while the broker is taken away.
    process: Option<Process>,
}

impl Broker {
    /// Where its WebSocket listener is.
    ///
    /// # Panics
    ///
    /// If there is none: see [`Config::websocket`].
    #[must_use]
    pub fn ws_url(&self) -> String {
        let port = self.ports.ws.expect("the configuration has websocket()");
        format!("ws://127.0.0.1:{port}/mqtt")
    }

    /// Where its WebSocket listener with TLS is.
    ///
    /// # Panics
    ///
    /// If there is none: see [`Config::secure_websocket`].
    #[must_use]
    pub fn wss_url(&self) -> String {
        let port = self.ports.wss;
        let port = port.expect("the configuration has secure_websocket()");
        format!("wss://localhost:{port}/mqtt")
    }

    /// Where it speaks MQTT over plain TCP.
    #[must_use]
    pub fn tcp_address(&self) -> SocketAddr {
        loopback(self.ports.tcp)
    }

    /// The address of the WebSocket listener without TLS, for a [`proxy`](crate::proxy) before it.
    ///
    /// # Panics
    ///
    /// If there is none: see [`Config::websocket`].
    #[must_use]
    pub fn ws_address(&self) -> SocketAddr {
        loopback(self.ports.ws.expect("the configuration has websocket()"))
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
    /// As [`Config::start`]; also when somebody else has taken a port meanwhile.
    pub async fn start(&mut self) -> Result<(), StartError> {
        if self.process.is_some() {
            return Ok(());
        }
        let mut attempts = PORT_ATTEMPTS;
        loop {
            match launch(&self.program, self.directory.path(), &self.ports).await {
                Ok(process) => {
                    self.process = Some(process);
                    return Ok(());
                }
                // A connection of the killed broker may still hold the port for a moment.
                Err(error) if error.is_port_clash() && attempts > 1 => attempts -= 1,
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

#[derive(Clone, Copy, Debug)]
struct Ports {
    tcp: u16,
    ws: Option<u16>,
    wss: Option<u16>,
}

impl Ports {
    /// Free ports, as the system saw it a moment ago. mosquitto cannot bind port 0 and say what it
    /// got, so this is a guess that [`Config::start`] repeats when it was wrong.
    fn pick(config: &Config) -> io::Result<Self> {
        // All are held until all are known, so that they differ.
        let mut held = Vec::new();
        let mut free = || -> io::Result<u16> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let port = listener.local_addr()?.port();
            held.push(listener);
            Ok(port)
        };
        Ok(Self {
            tcp: free()?,
            ws: config.websocket.then(&mut free).transpose()?,
            wss: config
                .secure_websocket
                .is_some()
                .then(&mut free)
                .transpose()?,
        })
    }

    fn all(&self) -> impl Iterator<Item = u16> {
        [Some(self.tcp), self.ws, self.wss].into_iter().flatten()
    }
}

/// A child that does not outlive this value.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) -> io::Result<()> {
        kill_process(Pid::from_child(&self.0), signal)?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the child is gone already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn launch(program: &Path, directory: &Path, ports: &Ports) -> Result<Process, StartError> {
    let log_path = directory.join("log");
    let log = File::options().create(true).append(true).open(log_path)?;
    let begin = log.metadata()?.len();
    let child = Command::new(program)
        .arg("-c")
        .arg(directory.join("mosquitto.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    let mut process = Process(child);
    let deadline = Instant::now() + START_TIMEOUT;
    // The line comes after the last listener was opened. Connecting alone could reach a stranger
    // who took the port while this broker is about to find that out.
    while !read_log(directory, begin).contains(" running\n") {
        poll(&mut process, deadline, directory, begin).await?;
    }
    for port in ports.all() {
        while TcpStream::connect(loopback(port)).await.is_err() {
            poll(&mut process, deadline, directory, begin).await?;
        }
    }
    Ok(process)
}

async fn poll(
    process: &mut Process,
    deadline: Instant,
    directory: &Path,
    begin: u64,
) -> Result<(), StartError> {
    if process.0.try_wait()?.is_some() {
        let log = read_log(directory, begin);
        return Err(StartError::Ended { log });
    }
    if Instant::now() > deadline {
        let log = read_log(directory, begin);
        return Err(StartError::NotReady { log });
    }
    tokio::time::sleep(POLL_INTERVAL).await;
    Ok(())
}

fn read_log(directory: &Path, begin: u64) -> String {
    let bytes = fs::read(directory.join("log")).unwrap_or_default();
    let begin = usize::try_from(begin).unwrap_or(usize::MAX);
    String::from_utf8_lossy(bytes.get(begin..).unwrap_or_default()).into_owned()
}

fn write_passwords(
    program: &Path,
    file: &Path,
    users: &[(String, Password)],
) -> Result<(), StartError> {
    let beside = program.with_file_name("mosquitto_passwd");
    let tool = if beside.is_file() {
        beside
    } else {
        search_path("mosquitto_passwd").ok_or_else(|| StartError::Passwords {
            output: "it is not installed".to_owned(),
        })?
    };
    File::create(file)?;
    for (name, password) in users {
        let output = Command::new(&tool)
            .arg("-b")
            .arg(file)
            .arg(name)
            .arg(&password.0)
            .output()?;
        if !output.status.success() {
            let output = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(StartError::Passwords { output });
        }
    }
    Ok(())
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

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
