//! What a broker is to offer, and the file that tells it.

use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{Broker, PORT_ATTEMPTS, StartError, process::launch, search_path};
use crate::{
    certs::{Authority, Identity},
    port::Port,
};

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
    pub(super) fn new(program: PathBuf) -> Self {
        Self {
            program,
            websocket: false,
            secure_websocket: None,
            users: Vec::new(),
            acl: None,
            persistence: false,
            extra: Vec::new(),
        }
    }

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
            let ports = Ports::reserve(&self)?;
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
        let listener = |port: &Port| {
            [
                format!("listener {} 127.0.0.1", port.address().port()),
                "socket_domain ipv4".to_owned(),
            ]
        };
        lines.extend(listener(&ports.tcp));
        if let Some(port) = &ports.ws {
            lines.extend(listener(port));
            lines.push("protocol websockets".to_owned());
        }
        if let (Some(port), Some(secure)) = (&ports.wss, &self.secure_websocket) {
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

/// The broker's for as long as its handle lives, since it cannot bind port 0 and say what it got.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) tcp: Port,
    pub(super) ws: Option<Port>,
    pub(super) wss: Option<Port>,
}

impl Ports {
    fn reserve(config: &Config) -> io::Result<Self> {
        let wss = config.secure_websocket.is_some();
        Ok(Self {
            tcp: Port::reserve()?,
            ws: config.websocket.then(Port::reserve).transpose()?,
            wss: wss.then(Port::reserve).transpose()?,
        })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Port> {
        let others = [&self.ws, &self.wss].into_iter().flatten();
        std::iter::once(&self.tcp).chain(others)
    }
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
