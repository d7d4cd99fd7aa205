//! The main job in one command: `cargo run --example quickstart`.

use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pubsub_core::{BoxFuture, ConnectionState, ConnectionWatch, Event, Events, Json, PubSub, QoS};
use pubsub_generic::{
    Attempt, Connect, ConnectError, DEFAULT_NAME, MqttOptions, MqttProvider, Opened, Received,
    Transport, TransportError, WsConnect,
};
use serde::{Deserialize, Serialize};

const HELP: &str = "\
Sends JSON messages over MQTT and WebSocket, takes the connection away, brings it back,
and shows that the subscription survives.

    cargo run --example quickstart

With nothing else it starts a broker in its own process. With a broker of yours:

    PUBSUB_URL       ws:// or wss:// URL, for example wss://broker.example:8084/mqtt
    PUBSUB_USERNAME  user name, if the broker wants one
    PUBSUB_PASSWORD  password, if the broker wants one
    PUBSUB_CA_FILE   PEM file of a root certificate to trust beside the usual ones

That broker stays up, of course; it is the subscriber's own connection that is cut.";

/// The longest that the whole show may take, on a bad day.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize)]
struct Chat {
    text: String,
    /// Microseconds since the program began.
    sent: u64,
}

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {}
        Some("--help" | "-h") => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!("quickstart takes no {other:?}; see --help");
            return ExitCode::from(2);
        }
    }
    let outcome = match tokio::time::timeout(PATIENCE, show()).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("not done after {} s", PATIENCE.as_secs()).into()),
    };
    let Err(failure) = outcome else {
        return ExitCode::SUCCESS;
    };
    eprintln!("\nIt failed: {failure}");
    let mut cause = failure.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
    ExitCode::FAILURE
}

async fn show() -> Result<(), Failure> {
    let clock = Instant::now();
    let mut stage = Stage::set().await?;
    println!("Broker      {}", stage.describe());

    // Two clients: each has a registry of its own, with one provider in it.
    let (alice, _) = stage.client().await?;
    let (bob, cord) = stage.client().await?;
    println!("Connected   Alice and Bob, each over a WebSocket of their own\n");

    let mut inbox = bob
        .subscribe(stage.filter())
        .qos(QoS::AtLeastOnce)
        .await?
        .events();
    println!("Bob subscribes to {}", stage.filter());
    for (room, text) in [
        ("lobby", "Hello, Bob!"),
        ("kitchen", "Tea is ready."),
        ("garden", "The roses need water."),
    ] {
        say(&alice, &stage.topic(room), text, clock).await?;
        hear(&mut inbox, clock).await?;
    }

    let mut connection = bob.connection(DEFAULT_NAME)?;
    stage.interrupt(&cord).await?;
    wait_for(&mut connection, ConnectionState::ConnectionDisrupted).await?;
    println!("    Bob: {}", ConnectionState::ConnectionDisrupted);
    stage.restore().await?;
    wait_for(&mut connection, ConnectionState::Connected).await?;
    println!(
        "    Bob: {} again, by himself\n",
        ConnectionState::Connected
    );

    println!("The subscription has survived; nobody subscribed again:");
    say(&alice, &stage.topic("lobby"), "Still there?", clock).await?;
    hear(&mut inbox, clock).await?;

    inbox.unsubscribe().await?;
    bob.close().await?;
    alice.close().await?;
    println!(
        "\nDone in {:.1} s. Every message arrived.",
        clock.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Publishes, and waits until the broker has confirmed it.
async fn say(who: &PubSub, topic: &str, text: &str, clock: Instant) -> Result<(), Failure> {
    let sent = u64::try_from(clock.elapsed().as_micros())?;
    let chat = Chat {
        text: text.to_owned(),
        sent,
    };
    who.publish(topic, Json(&chat))
        .qos(QoS::AtLeastOnce)
        .await?;
    Ok(())
}

/// Prints the next message, and a gap before it.
async fn hear(inbox: &mut Events, clock: Instant) -> Result<(), Failure> {
    while let Some(event) = inbox.next().await {
        match event? {
            Event::Message(message) => {
                let chat: Chat = message.json()?;
                let micros = u64::try_from(clock.elapsed().as_micros())?.saturating_sub(chat.sent);
                println!(
                    "    {:<32} {:<22} {:>7.2} ms",
                    message.topic.as_str(),
                    chat.text,
                    micros as f64 / 1000.0
                );
                return Ok(());
            }
            Event::Gap(gap) => println!(
                "    (Bob was away for {:.0?})",
                gap.length.unwrap_or_default()
            ),
            _ => {}
        }
    }
    Err("the stream of messages has ended".into())
}

async fn wait_for(connection: &mut ConnectionWatch, state: ConnectionState) -> Result<(), Failure> {
    connection
        .reached(state)
        .await
        .map(drop)
        .ok_or_else(|| "the provider is gone".into())
}

/// Where the show takes place.
enum Stage {
    /// A broker in this process, to be taken away and brought back.
    Own(Box<testkit::embedded::Broker>),
    /// Somebody else's; the topics get a prefix that nobody else has.
    Theirs {
        options: Box<MqttOptions>,
        prefix: String,
    },
}

impl Stage {
    async fn set() -> Result<Self, Failure> {
        let Ok(url) = std::env::var("PUBSUB_URL") else {
            return Ok(Self::Own(Box::new(
                testkit::embedded::Broker::start().await?,
            )));
        };
        let mut options = MqttOptions::new(url);
        if let Ok(file) = std::env::var("PUBSUB_CA_FILE") {
            options = options.extra_roots_pem(std::fs::read(file)?);
        }
        let prefix = format!("quickstart-{}/", std::process::id());
        Ok(Self::Theirs {
            options: Box::new(options),
            prefix,
        })
    }

    fn describe(&self) -> String {
        match self {
            Self::Own(broker) => format!("{} (in this process)", broker.url()),
            Self::Theirs { .. } => "the one that PUBSUB_URL names".to_owned(),
        }
    }

    fn filter(&self) -> String {
        self.topic("+")
    }

    fn topic(&self, room: &str) -> String {
        match self {
            Self::Own(_) => format!("chat/{room}"),
            Self::Theirs { prefix, .. } => format!("{prefix}chat/{room}"),
        }
    }

    /// A client that is connected, and the cord to its connection.
    async fn client(&self) -> Result<(PubSub, Cord), Failure> {
        let cord = Cord::default();
        let provider = match self {
            // This is all it takes:
            Self::Own(broker) => MqttProvider::new(MqttOptions::new(broker.url()))?,
            // The rest is for cutting a connection that works.
            Self::Theirs { options, .. } => {
                let mut session = MqttOptions::without_url();
                if let Ok(user_name) = std::env::var("PUBSUB_USERNAME") {
                    session = session.user_name(user_name);
                }
                if let Ok(password) = std::env::var("PUBSUB_PASSWORD") {
                    session = session.password(password);
                }
                let connect = WsConnect::from_options(options)?;
                MqttProvider::with_connect(
                    session,
                    OnACord {
                        connect,
                        cord: cord.clone(),
                    },
                )?
            }
        };
        let provider = Arc::new(provider);
        let pubsub = PubSub::new();
        pubsub.add_provider(DEFAULT_NAME, Arc::clone(&provider))?;
        provider.connect().await?;
        Ok((pubsub, cord))
    }

    async fn interrupt(&mut self, cord: &Cord) -> Result<(), Failure> {
        match self {
            Self::Own(broker) => {
                println!("\nNow the broker goes away ...");
                broker.kill().await;
            }
            Self::Theirs { .. } => {
                println!("\nNow Bob's connection is cut ...");
                cord.pull();
            }
        }
        Ok(())
    }

    async fn restore(&mut self) -> Result<(), Failure> {
        if let Self::Own(broker) = self {
            broker.start_again().await?;
            println!("... and comes back, with nothing in its memory.");
        }
        Ok(())
    }
}

/// Cuts a connection when it is pulled.
#[derive(Clone, Default)]
struct Cord(Arc<Mutex<(bool, Option<Waker>)>>);

impl Cord {
    fn pull(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    fn is_pulled(&self, cx: &Context<'_>) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 = Some(cx.waker().clone());
        std::mem::take(&mut state.0)
    }
}

/// A way to connect, with a cord to every connection.
struct OnACord {
    connect: WsConnect,
    cord: Cord,
}

impl Connect for OnACord {
    fn connect<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>> {
        Box::pin(async move {
            let opened = self.connect.connect(attempt).await?;
            let cord = self.cord.clone();
            Ok(opened.map(|transport| Corded { transport, cord }))
        })
    }
}

struct Corded {
    transport: Box<dyn Transport>,
    cord: Cord,
}

impl Transport for Corded {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Vec<bytes::Bytes>,
    ) -> Poll<Result<Received, TransportError>> {
        if self.cord.is_pulled(cx) {
            return Poll::Ready(Ok(Received::End));
        }
        self.transport.poll_receive(cx, chunks)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.transport.poll_ready(cx)
    }

    fn start_send(&mut self, chunk: bytes::Bytes) -> Result<(), TransportError> {
        self.transport.start_send(chunk)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.transport.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.transport.poll_close(cx)
    }
}
