//! An MQTT broker inside this process, for programs that must run where nothing is installed.
//!
//! It is the `mqtt5` crate's broker (MQTT 3.1.1 and 5), with one WebSocket listener on an ephemeral
//! loopback port and everything in memory. It is never the reference in a test: that is
//! [`mosquitto`](crate::mosquitto). Some of its habits are worth knowing: under MQTT 5 it adds the
//! user property `x-mqtt-client-id` to each message, a client that is thrown out by another of its
//! identifier is sent a DISCONNECT also under MQTT 3.1.1, which has none from a server, and while
//! one upgrade stalls it accepts no other connection.
//!
//! ```no_run
//! # async fn example() -> Result<(), testkit::embedded::StartError> {
//! let mut broker = testkit::embedded::Broker::start().await?;
//! println!("connect to {}", broker.url());
//! broker.kill().await;
//! broker.start_again().await?;
//! # Ok(()) }
//! ```

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use mqtt5::{
    MqttError,
    broker::{
        BrokerConfig, BrokerShutdownHandle, MqttBroker, StorageBackendType, StorageConfig,
        config::{RateLimitConfig, WebSocketConfig},
    },
};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

use crate::port::Port;

/// The largest MQTT packet it takes; with its own default of 256 MiB one client could fill memory.
pub const MAX_PACKET_SIZE: usize = 1024 * 1024;

/// How many connections it serves at a time.
pub const MAX_CLIENTS: usize = 1024;

/// How long [`Broker::start_again`] tries to get its old port back.
pub const REBIND_TIMEOUT: Duration = Duration::from_secs(60);

/// How long [`Broker::stop`] waits for the last connection before it takes the broker away anyway.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// A broker on threads of its own. Dropping it takes it away at once.
///
/// Having its own runtime, it keeps going when the caller's is blocked, takes no notice of a
/// paused clock there, and can be taken away with everything it holds in one move.
pub struct Broker {
    port: Port,
    /// `None` while the broker is taken away.
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    shutdown: BrokerShutdownHandle,
    serving: JoinHandle<()>,
}

impl Broker {
    /// Starts a broker; it answers by the time this returns, a few milliseconds later.
    ///
    /// Cancelling it leaves nothing behind.
    ///
    /// # Errors
    ///
    /// When no loopback port can be bound or no thread be started.
    pub async fn start() -> Result<Self, StartError> {
        let port = Port::reserve().map_err(|_| StartError::Bind)?;
        let running = launch(port.address()).await?;
        Ok(Self {
            port,
            running: Some(running),
        })
    }

    /// Where its WebSocket listener is, also while the broker is away.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}/mqtt", self.address())
    }

    /// The address in [`url`](Self::url).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Ends the broker in order: clients of MQTT 5 are told (reason 0x8B), then all connections end.
    /// Does nothing when it is not running.
    ///
    /// Cancelling it takes the broker away at once.
    pub async fn stop(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        running.shutdown.shutdown();
        // Late or not, the runtime goes next, and with it what is left.
        let _ = tokio::time::timeout(STOP_TIMEOUT, &mut running.serving).await;
        running.take_away().await;
    }

    /// Takes the broker away as a crash would: every connection just ends, and sessions and retained
    /// messages are lost. Does nothing when it is not running.
    ///
    /// Cancelling it still takes the broker away.
    pub async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.take_away().await;
        }
    }

    /// Brings a broker that was taken away back on the same port, with nothing in its memory. Does
    /// nothing when it is running.
    ///
    /// Cancelling it leaves the broker away.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start); also when somebody else holds the port for [`REBIND_TIMEOUT`].
    pub async fn start_again(&mut self) -> Result<(), StartError> {
        if self.running.is_some() {
            return Ok(());
        }
        let deadline = Instant::now() + REBIND_TIMEOUT;
        loop {
            match launch(self.address()).await {
                Ok(running) => {
                    self.running = Some(running);
                    return Ok(());
                }
                Err(StartError::Bind) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            // Waiting is not allowed in a caller's asynchronous context.
            running.runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("address", &self.address())
            .field("running", &self.running.is_some())
            .finish()
    }
}

impl Running {
    /// Ends all tasks and returns when they are gone, and their sockets with them.
    async fn take_away(self) {
        let ending = tokio::task::spawn_blocking(move || {
            self.runtime.shutdown_timeout(STOP_TIMEOUT);
        });
        // It only drops a runtime; should that panic, the panic has been reported already.
        let _ = ending.await;
    }
}

/// Why the broker did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The threads could not be started.
    Threads(std::io::Error),
    /// The port could not be bound.
    Bind,
    /// The broker refused its configuration.
    Broker(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads(_) => f.write_str("the embedded broker got no threads"),
            Self::Bind => f.write_str("the embedded broker cannot bind its loopback port"),
            Self::Broker(reason) => write!(f, "the embedded broker did not start: {reason}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Threads(error) => Some(error),
            _ => None,
        }
    }
}

impl From<MqttError> for StartError {
    fn from(error: MqttError) -> Self {
        Self::Broker(error.to_string())
    }
}

async fn launch(address: SocketAddr) -> Result<Running, StartError> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("embedded-broker")
        .enable_all()
        .build()
        .map_err(StartError::Threads)?;
    // From here on a runtime must not be dropped in this asynchronous context.
    let runtime = Abandon(Some(runtime));
    let starting = runtime.handle().spawn(serve(address));
    let started = match starting.await {
        Ok(started) => started?,
        Err(failure) => return Err(StartError::Broker(failure.to_string())),
    };
    let (shutdown, serving) = started;
    Ok(Running {
        runtime: runtime.keep(),
        shutdown,
        serving,
    })
}

async fn serve(address: SocketAddr) -> Result<(BrokerShutdownHandle, JoinHandle<()>), StartError> {
    let mut broker = MqttBroker::with_config(config(address)).await?;
    // It goes on without the listener that it could not bind.
    broker.ws_local_addr().ok_or(StartError::Bind)?;
    let shutdown = broker.shutdown_handle();
    let mut ready = broker.ready_receiver();
    let serving = tokio::spawn(async move {
        // An error shows as connections that end, which is what users of a broker handle.
        let _ = broker.run().await;
    });
    ready
        .wait_for(|&ready| ready)
        .await
        .map_err(|_| StartError::Broker("it ended at once".to_owned()))?;
    Ok((shutdown, serving))
}

fn config(address: SocketAddr) -> BrokerConfig {
    let mut config = BrokerConfig::new()
        .with_bind_addresses(Vec::new())
        .with_max_packet_size(MAX_PACKET_SIZE)
        .with_max_clients(MAX_CLIENTS)
        .with_storage(StorageConfig::new().with_backend(StorageBackendType::Memory))
        .with_websocket(WebSocketConfig::new().with_bind_address(address));
    config.sys_topics_enabled = false;
    // Clients that come back often are what it is here for.
    config.auth_config.rate_limit = RateLimitConfig {
        enabled: false,
        ..RateLimitConfig::default()
    };
    config
}

/// A runtime that is ended without waiting when it is dropped.
struct Abandon(Option<Runtime>);

impl Abandon {
    fn handle(&self) -> &tokio::runtime::Handle {
        self.0.as_ref().expect("taken by keep() only").handle()
    }

    fn keep(mut self) -> Runtime {
        self.0.take().expect("taken here only")
    }
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
