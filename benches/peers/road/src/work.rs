//! What a client is told to do. Told by arguments, so that a client may be written in another language.

/// The topic of a message that goes with [`FILTER`]; the only one, unless the work says otherwise.
pub const TOPIC: &str = "devices/17/temperature";
/// The filter that every client subscribes to.
pub const FILTER: &str = "devices/+/temperature";
/// Where the root certificate of a `wss` broker is, as PEM: an environment variable.
pub const ROOT: &str = "ROAD_ROOT";

/// What the client does, over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Takes messages at QoS 0 from its subscription.
    Receive,
    /// The same at QoS 1, acknowledging each.
    ReceiveAck,
    /// Publishes at QoS 0; the window is how many before they are handed to the socket.
    Publish,
    /// Publishes at QoS 1; the window is how many wait for their acknowledgement.
    PublishAck,
    /// Publishes at QoS 2; the window is how many have not completed.
    PublishExact,
    /// Publishes one message and waits for another.
    PingPong,
    /// The same in a task, and not in the root future of the runtime, which is woken later.
    PingPongInTask,
    /// Connects, subscribes, disconnects.
    Connect,
    /// Holds connections that have subscribed.
    Idle,
}

/// The work of one process.
#[derive(Debug, Clone)]
pub struct Work {
    pub verb: Verb,
    pub url: String,
    /// How many messages, round trips or connections.
    pub count: usize,
    pub window: usize,
    /// Bytes of payload.
    pub payload: usize,
    /// Subscriptions in all, of which one is to [`FILTER`] and the others match nothing that comes.
    pub filters: usize,
    /// Subscriptions to [`FILTER`] itself, each of which gets every message.
    pub subscribers: usize,
}

impl Verb {
    const NAMES: [(Self, &'static str); 9] = [
        (Self::Receive, "receive"),
        (Self::ReceiveAck, "receive-ack"),
        (Self::Publish, "publish"),
        (Self::PublishAck, "publish-ack"),
        (Self::PublishExact, "publish-exact"),
        (Self::PingPong, "ping-pong"),
        (Self::PingPongInTask, "ping-pong-in-task"),
        (Self::Connect, "connect"),
        (Self::Idle, "idle"),
    ];

    pub fn is_ping_pong(self) -> bool {
        matches!(self, Self::PingPong | Self::PingPongInTask)
    }

    pub fn name(self) -> &'static str {
        let known = Self::NAMES.iter().find(|(verb, _)| *verb == self);
        known.map_or("", |(_, name)| name)
    }

    fn from_name(name: &str) -> Option<Self> {
        let known = Self::NAMES.iter().find(|(_, known)| *known == name);
        known.map(|(verb, _)| *verb)
    }
}

impl Work {
    pub fn args(&self) -> [String; 7] {
        [
            self.verb.name().to_owned(),
            self.url.clone(),
            self.count.to_string(),
            self.window.to_string(),
            self.payload.to_string(),
            self.filters.to_string(),
            self.subscribers.to_string(),
        ]
    }

    pub fn from_args(args: &[String]) -> Option<Self> {
        let [verb, url, count, window, payload, filters, subscribers] = args else {
            return None;
        };
        Some(Self {
            verb: Verb::from_name(verb)?,
            url: url.clone(),
            count: count.parse().ok()?,
            window: window.parse().ok()?,
            payload: payload.parse().ok()?,
            filters: filters.parse().ok()?,
            subscribers: subscribers.parse().ok()?,
        })
    }

    /// `host:port` of the URL.
    pub fn authority(&self) -> &str {
        let (_, rest) = self.url.split_once("://").unwrap_or(("", &self.url));
        rest.split('/').next().unwrap_or(rest)
    }
}

/// A payload of so many bytes.
pub fn payload(len: usize) -> Vec<u8> {
    vec![b'x'; len]
}

/// The JSON of an object, of so many bytes.
pub fn json(len: usize) -> Vec<u8> {
    let empty = r#"{"value":""}"#.len();
    format!(r#"{{"value":"{}"}}"#, "x".repeat(len.saturating_sub(empty))).into_bytes()
}
