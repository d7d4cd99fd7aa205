//! A proxy for TCP that hurts the connections it carries, on command.
//!
//! ```no_run
//! # async fn example(broker: std::net::SocketAddr) -> std::io::Result<()> {
//! use testkit::proxy::{Cut, Direction, Link, Proxy};
//!
//! let proxy = Proxy::start(broker).await?;
//! // The next connection ends after the server has said ten bytes, later ones are left alone.
//! proxy.next(Link::clear().cut_after(Direction::ToClient, 10, Cut::Finish));
//! println!("connect to {}", proxy.ws_url());
//! # Ok(()) }
//! ```

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::port::Port;

/// How much is carried at a time.
const CHUNK: usize = 16 * 1024;

/// How long a client that was cut off in order may take to end its side.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// How often [`Proxy::accept_again`] tries to get its port back.
const REBIND_ATTEMPTS: usize = 12_000;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two")]
pub enum Direction {
    /// From the client.
    ToServer,
    /// From the server.
    ToClient,
}

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "TCP knows two ways")]
pub enum Cut {
    /// With an end of stream; what was carried before arrives.
    Finish,
    /// With a reset; what was carried just before may be lost with it.
    Reset,
}

/// What happens to one connection.
#[derive(Clone, Debug)]
pub struct Link {
    reach: Reach,
    to_server: Flow,
    to_client: Flow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Server,
    Nothing,
    Cut(Cut),
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    piece: usize,
    delay: Duration,
    cut: Option<(u64, Cut)>,
}

impl Link {
    /// Carries everything as it comes.
    #[must_use]
    pub fn clear() -> Self {
        let flow = Flow {
            piece: CHUNK,
            delay: Duration::ZERO,
            cut: None,
        };
        Self {
            reach: Reach::Server,
            to_server: flow,
            to_client: flow,
        }
    }

    /// Is accepted, and then nothing: neither bytes nor an end.
    #[must_use]
    pub fn black_hole() -> Self {
        Self {
            reach: Reach::Nothing,
            ..Self::clear()
        }
    }

    /// Is accepted and cut at once, before the server hears of it.
    #[must_use]
    pub fn dead(cut: Cut) -> Self {
        Self {
            reach: Reach::Cut(cut),
            ..Self::clear()
        }
    }

    /// Cuts both ways after this many bytes have gone one way; with 0, when the server has
    /// accepted the connection.
    #[must_use]
    pub fn cut_after(mut self, direction: Direction, bytes: u64, cut: Cut) -> Self {
        self.flow(direction).cut = Some((bytes, cut));
        self
    }

    /// Writes byte by byte. (The receiver's system may join them again if it reads slowly.)
    #[must_use]
    pub fn dribble(mut self, direction: Direction) -> Self {
        self.flow(direction).piece = 1;
        self
    }

    /// Holds every piece of up to 16 KiB back for this long; the next one waits for its turn, so
    /// this bounds the rate as well.
    #[must_use]
    pub fn delay(mut self, direction: Direction, delay: Duration) -> Self {
        self.flow(direction).delay = delay;
        self
    }

    fn flow(&mut self, direction: Direction) -> &mut Flow {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

/// What a proxy has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Connections accepted since it started.
    pub accepted: u64,
    /// Those that have not ended.
    pub open: u64,
    /// Bytes carried from clients.
    pub to_server: u64,
    /// Bytes carried from the server.
    pub to_client: u64,
}

/// A running proxy. Dropping it ends the listener and all connections.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    serving: Serving,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    script: Mutex<Script>,
    counts: watch::Sender<Counts>,
    commands: watch::Sender<Commands>,
}

#[derive(Debug)]
struct Script {
    next: VecDeque<Link>,
    others: Link,
}

#[derive(Clone, Copy, Debug)]
struct Commands {
    frozen: bool,
    /// How many times everything has been cut, and how the last time.
    cuts: (u64, Cut),
}

#[derive(Debug)]
struct Serving(Option<JoinHandle<()>>);

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Proxy {
    /// Listens, and carries each connection to this address.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let port = Port::reserve()?;
        let listener = port.listen()?;
        let shared = Arc::new(Shared {
            upstream,
            script: Mutex::new(Script {
                next: VecDeque::new(),
                others: Link::clear(),
            }),
            counts: watch::Sender::new(Counts::default()),
            commands: watch::Sender::new(Commands {
                frozen: false,
                cuts: (0, Cut::Finish),
            }),
        });
        let serving = Serving(Some(tokio::spawn(serve(listener, Arc::clone(&shared)))));
        Ok(Self {
            port,
            shared,
            serving,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// A URL for clients of a WebSocket broker behind it.
    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("ws://{}/mqtt", self.address())
    }

    /// Says what happens to the next connection for which nothing has been said yet.
    pub fn next(&self, link: Link) {
        self.shared.script().next.push_back(link);
    }

    /// Says what happens to connections for which [`next`](Self::next) says nothing; at first they
    /// are [`Link::clear`].
    pub fn others(&self, link: Link) {
        self.shared.script().others = link;
    }

    /// Cuts all connections that are open now.
    pub fn cut_all(&self, cut: Cut) {
        self.shared.commands.send_modify(|commands| {
            commands.cuts = (commands.cuts.0 + 1, cut);
        });
    }

    /// Stops carrying on all connections, open ones and new ones: a link that is half open.
    pub fn freeze(&self) {
        self.shared.commands.send_modify(|c| c.frozen = true);
    }

    /// Carries on, with what came meanwhile first.
    pub fn thaw(&self) {
        self.shared.commands.send_modify(|c| c.frozen = false);
    }

    /// Closes the listener, so that new connections are refused, and ends those that are open.
    ///
    /// Cancelling it may leave the listener open for a moment.
    pub async fn refuse(&mut self) {
        if let Some(task) = self.serving.0.take() {
            task.abort();
            // The task has nothing to report but that it was aborted.
            let _ = task.await;
        }
    }

    /// Listens again, on the same port. Does nothing when it is listening.
    ///
    /// Cancelling it leaves the listener closed.
    ///
    /// # Errors
    ///
    /// When the port is taken.
    pub async fn accept_again(&mut self) -> io::Result<()> {
        if self.serving.0.is_some() {
            return Ok(());
        }
        let mut attempts = REBIND_ATTEMPTS;
        let listener = loop {
            match self.port.listen() {
                Ok(listener) => break listener,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {
                    attempts -= 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => return Err(error),
            }
        };
        let shared = Arc::clone(&self.shared);
        self.serving.0 = Some(tokio::spawn(serve(listener, shared)));
        Ok(())
    }

    /// What it has seen up to now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Waits until the counts are as wanted, and gives them. It waits for ever if that never
    /// happens: bound it. Cancel safe.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.shared.counts.subscribe();
        let seen = counts.wait_for(|counts| wanted(counts)).await;
        *seen.expect("the sender is in self")
    }
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_link(&self) -> Link {
        let mut script = self.script();
        let link = script.next.pop_front();
        link.unwrap_or_else(|| script.others.clone())
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, it takes the connections along.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let link = shared.next_link();
                shared.counts.send_modify(|counts| {
                    counts.accepted += 1;
                    counts.open += 1;
                });
                let open = Open(Arc::clone(&shared));
                connections.spawn(async move {
                    // An error is an end like any other.
                    let _ = carry(client, &link, &open.0).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Counts a connection as open for as long as it lives.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counts.send_modify(|counts| counts.open -= 1);
    }
}

async fn carry(mut client: TcpStream, link: &Link, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut commands = shared.commands.subscribe();
    let cuts = commands.borrow().cuts.0;
    let ordered = async {
        match commands.wait_for(|now| now.cuts.0 > cuts).await {
            Ok(now) => now.cuts.1,
            // The proxy is gone.
            Err(_) => Cut::Finish,
        }
    };
    match link.reach {
        Reach::Server => {}
        Reach::Nothing => return end(client, ordered.await).await,
        Reach::Cut(how) => return end(client, how).await,
    }
    let mut server = TcpStream::connect(shared.upstream).await?;
    server.set_nodelay(true)?;
    let how = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            let up = pump(from_client, to_server, link.to_server, shared, |counts| {
                &mut counts.to_server
            });
            let down = pump(from_server, to_client, link.to_client, shared, |counts| {
                &mut counts.to_client
            });
            tokio::pin!(up, down);
            tokio::select! {
                end = &mut up => match end? {
                    Some(cut) => Ok(Some(cut)),
                    None => down.await,
                },
                end = &mut down => match end? {
                    Some(cut) => Ok(Some(cut)),
                    None => up.await,
                },
            }
        };
        tokio::select! {
            how = both => how?,
            how = ordered => Some(how),
        }
    };
    if let Some(how) = how {
        if how == Cut::Reset {
            server.set_zero_linger()?;
        }
        drop(server);
        end(client, how).await?;
    }
    Ok(())
}

async fn end(mut client: TcpStream, how: Cut) -> io::Result<()> {
    if how == Cut::Reset {
        return client.set_zero_linger();
    }
    client.shutdown().await?;
    // Closed with something unread, the system would send a reset, and what was carried before
    // could be lost with it.
    let drain = async {
        let mut sink = [0; 4096];
        while matches!(client.read(&mut sink).await, Ok(length) if length > 0) {}
    };
    // A client that does not end its side either gets the reset then.
    let _ = tokio::time::timeout(FINISH_TIMEOUT, drain).await;
    Ok(())
}

/// Carries one way until the source ends (`None`; the end is passed on) or the plan says to cut.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    flow: Flow,
    shared: &Shared,
    count: impl Fn(&mut Counts) -> &mut u64,
) -> io::Result<Option<Cut>> {
    let mut commands = shared.commands.subscribe();
    let mut buffer = vec![0; CHUNK];
    let mut carried = 0_u64;
    loop {
        let mut room = CHUNK;
        if let Some((limit, cut)) = flow.cut {
            let left = limit - carried;
            if left == 0 {
                return Ok(Some(cut));
            }
            room = room.min(usize::try_from(left).unwrap_or(CHUNK));
        }
        let length = from.read(&mut buffer[..room]).await?;
        if commands.wait_for(|now| !now.frozen).await.is_err() {
            return Ok(Some(Cut::Finish));
        }
        if length == 0 {
            to.shutdown().await?;
            return Ok(None);
        }
        if !flow.delay.is_zero() {
            tokio::time::sleep(flow.delay).await;
        }
        for piece in buffer[..length].chunks(flow.piece) {
            to.write_all(piece).await?;
            if flow.piece < CHUNK {
                // Gives a receiver in the same thread the chance to see this piece alone.
                tokio::task::yield_now().await;
            }
        }
        carried += length as u64;
        shared
            .counts
            .send_modify(|counts| *count(counts) += length as u64);
    }
}
