//! What can be counted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::inbox::Load;
use crate::meters::Meters;

/// A snapshot of what an [`MqttProvider`](crate::MqttProvider) has done and has under way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Whether MQTT is connected.
    pub connected: bool,
    /// Host and port that it is connected to, or was last; `None` before the first connection, and where the
    /// [`Connect`](crate::Connect) gives its endpoints no names.
    pub endpoint: Option<String>,
    /// How many connections were accepted by the broker.
    pub connections: u64,
    /// Messages that arrived.
    pub messages_received: u64,
    /// Copies among what else arrived: acknowledged, and not delivered.
    pub copies_left_out: u64,
    /// Publishes that were sent, or confirmed where they are to be.
    pub publishes_delivered: u64,
    /// Publishes that were not, for whatever reason.
    pub publishes_failed: u64,
    /// Publishes of earlier processes that the session store still had; they count among the others, too.
    pub publishes_restored: u64,
    /// Publishes accepted and not settled yet, waiting and in flight.
    pub publishes_pending: usize,
    /// Their topics and payloads, in bytes.
    pub publish_bytes_pending: usize,
    /// Subscribe, unsubscribe and connect calls not answered yet.
    pub calls_pending: usize,
    /// Topic filters that are subscribed, or shall be.
    pub subscriptions: usize,
    /// Packet identifiers in use: publishes at QoS 1 and 2, SUBSCRIBE and UNSUBSCRIBE that the broker has not answered.
    pub packet_ids_in_use: usize,
    /// MQTT bytes received.
    pub bytes_received: u64,
    /// MQTT bytes handed to the transport.
    pub bytes_sent: u64,
    /// How many connections were [replaced](crate::Renewal) ahead of their end.
    pub renewals: u64,
    /// How long the last of these replacements took, from DISCONNECT to CONNACK; `None` before the first.
    pub last_renewal_gap: Option<Duration>,
    /// How long the last sign of life took that was asked for; `None` before the first.
    pub round_trip: Option<Duration>,
}

/// Written by the task alone, read by anybody.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) meters: Meters,
    connections: AtomicU64,
    messages_received: AtomicU64,
    copies_left_out: AtomicU64,
    publishes_delivered: AtomicU64,
    publishes_failed: AtomicU64,
    publishes_restored: AtomicU64,
    subscriptions: AtomicUsize,
    packet_ids: AtomicUsize,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    renewals: AtomicU64,
    last_renewal_gap: OptionalTime,
    round_trip: OptionalTime,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            meters: Meters::default(),
            connections: AtomicU64::new(0),
            messages_received: AtomicU64::new(0),
            copies_left_out: AtomicU64::new(0),
            publishes_delivered: AtomicU64::new(0),
            publishes_failed: AtomicU64::new(0),
            publishes_restored: AtomicU64::new(0),
            subscriptions: AtomicUsize::new(0),
            packet_ids: AtomicUsize::new(0),
            bytes_received: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            renewals: AtomicU64::new(0),
            last_renewal_gap: OptionalTime::default(),
            round_trip: OptionalTime::default(),
        }
    }

    pub(crate) fn connected(&self) {
        add(&self.connections, 1);
        self.meters.connected();
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn messages_received(&self, messages: usize) {
        add(&self.messages_received, messages as u64);
        self.meters.messages_received(messages);
    }

    pub(crate) fn copy_left_out(&self) {
        add(&self.copies_left_out, 1);
    }

    pub(crate) fn publishes_settled(&self, delivered: bool, publishes: usize) {
        add(
            if delivered {
                &self.publishes_delivered
            } else {
                &self.publishes_failed
            },
            publishes as u64,
        );
        self.meters.publishes_settled(delivered, publishes);
    }

    pub(crate) fn publishes_restored(&self, publishes: usize) {
        add(&self.publishes_restored, publishes as u64);
    }

    pub(crate) fn subscriptions(&self, filters: usize) {
        self.subscriptions.store(filters, Ordering::Relaxed);
        self.meters.subscriptions(filters);
    }

    pub(crate) fn packet_ids(&self, in_use: usize) {
        self.packet_ids.store(in_use, Ordering::Relaxed);
    }

    pub(crate) fn bytes_received(&self, bytes: usize) {
        add(&self.bytes_received, bytes as u64);
        self.meters.bytes_received(bytes);
    }

    pub(crate) fn bytes_sent(&self, bytes: usize) {
        add(&self.bytes_sent, bytes as u64);
        self.meters.bytes_sent(bytes);
    }

    pub(crate) fn round_trip(&self, time: Duration) {
        self.round_trip.store(time);
        self.meters.round_trip(time);
    }

    pub(crate) fn renewed(&self, gap: Duration) {
        add(&self.renewals, 1);
        self.meters.renewed();
        self.last_renewal_gap.store(gap);
    }

    pub(crate) fn snapshot(&self, connected: bool, load: Load) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            connected,
            endpoint: None,
            connections: read(&self.connections),
            messages_received: read(&self.messages_received),
            copies_left_out: read(&self.copies_left_out),
            publishes_delivered: read(&self.publishes_delivered),
            publishes_failed: read(&self.publishes_failed),
            publishes_restored: read(&self.publishes_restored),
            publishes_pending: load.messages,
            publish_bytes_pending: load.bytes,
            calls_pending: load.operations,
            subscriptions: self.subscriptions.load(Ordering::Relaxed),
            packet_ids_in_use: self.packet_ids.load(Ordering::Relaxed),
            bytes_received: read(&self.bytes_received),
            bytes_sent: read(&self.bytes_sent),
            renewals: read(&self.renewals),
            last_renewal_gap: self.last_renewal_gap.load(),
            round_trip: self.round_trip.load(),
        }
    }
}

/// In nanoseconds, plus one; zero for none.
#[derive(Debug, Default)]
struct OptionalTime(AtomicU64);

impl OptionalTime {
    fn store(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX - 1);
        self.0.store(nanos.saturating_add(1), Ordering::Relaxed);
    }

    fn load(&self) -> Option<Duration> {
        let nanos = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_nanos(nanos))
    }
}

/// One writer: no read-modify-write is needed.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(n),
        Ordering::Relaxed,
    );
}
