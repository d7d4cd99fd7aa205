//! What there is to count.

use crate::connection::Connection;
use crate::event::ConnectionStage;
use crate::session::Session;

/// Everything there is to count, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How far the Network Connection has come, if there is one.
    pub connection: Option<ConnectionStage>,
    /// Publishes that wait to be sent.
    pub queued_messages: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// QoS 1 and 2 publishes that are not acknowledged, those that wait to be sent again included.
    pub in_flight_messages: usize,
    /// Their bytes.
    pub in_flight_bytes: usize,
    /// Received QoS 1 and 2 messages whose exchange is not finished.
    pub held_messages: usize,
    /// Bytes of those that the application has not decided on.
    pub held_bytes: usize,
    /// Topic Filters that the session wants.
    pub subscriptions: usize,
    /// `subscribe` and `unsubscribe` calls that are not completed, and one while the session subscribes anew.
    pub pending_operations: usize,
    /// Packet identifiers in use.
    pub packet_ids_in_use: usize,
    /// Whether a PINGREQ is unanswered.
    pub awaits_pingresp: bool,
    /// What happened since the session was made.
    pub counters: Counters,
}

/// What happened since the session was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Connections that the broker accepted.
    pub connections: u64,
    /// Bytes handed out by `poll_transmit`.
    pub bytes_sent: u64,
    /// Bytes of whole packets taken by `handle_input`.
    pub bytes_received: u64,
    /// PUBLISH packets handed out, repetitions included.
    pub publishes_sent: u64,
    /// Those of them that were repetitions.
    pub publishes_resent: u64,
    /// Messages reported as [`Event::Message`](crate::Event::Message).
    pub messages_received: u64,
    /// QoS 2 PUBLISH packets that were duplicates and not reported.
    pub duplicates_suppressed: u64,
    /// Messages reported as [`Event::MessageSkipped`](crate::Event::MessageSkipped).
    pub messages_skipped: u64,
    /// Acknowledgements for an identifier that is not in flight. Harmless after a reconnect; otherwise a broker's bug.
    pub stray_acknowledgements: u64,
    /// Publishes and filters set aside, see [`Config::quarantine_after`](crate::Config::quarantine_after).
    pub quarantined: u64,
}

impl Session {
    /// What there is to count.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (held_messages, held_bytes) = self.held();
        Stats {
            connection: self.connection.as_deref().map(Connection::stage),
            queued_messages: self.waiting.len(),
            queued_bytes: self.waiting.bytes(),
            in_flight_messages: self.in_flight.len(),
            in_flight_bytes: self.in_flight.bytes(),
            held_messages,
            held_bytes,
            subscriptions: self.control.len(),
            pending_operations: self.control.open_calls(),
            packet_ids_in_use: self.packet_ids_in_use(),
            awaits_pingresp: self
                .connection
                .as_ref()
                .is_some_and(|connection| connection.keep_alive.awaits_pingresp()),
            counters: self.counters,
        }
    }

    /// Packet identifiers in use, as [`stats`](Self::stats) has them, without the rest.
    #[must_use]
    pub fn packet_ids_in_use(&self) -> usize {
        self.in_flight.ids_in_use() + self.control.ids_in_use()
    }

    /// Messages and bytes that the application has not finished with.
    pub(crate) fn held(&self) -> (usize, usize) {
        let (messages, bytes) = self.connection.as_ref().map_or((0, 0), |connection| {
            (
                connection.held_qos1.len(),
                connection.held_qos1.undecided_bytes(),
            )
        });
        (
            messages + self.received.len(),
            bytes + self.received.undecided_bytes(),
        )
    }
}
