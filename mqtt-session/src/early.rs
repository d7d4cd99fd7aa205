//! SUBSCRIBE right behind CONNECT, which saves the round trip of the CONNACK (section 3.1.4 of both versions).
//!
//! A server that refuses the CONNECT does not look at what came behind it, and one that accepts it has, on a connection that
//! starts clean, no subscription of ours: what leaves early would have left in any case. What a broker may decline in its
//! CONNACK stays behind it.

use bytes::BytesMut;
use mqtt_codec::{ProtocolVersion, TopicFilter};

use crate::config::{Persistence, Resubscribe, SubscribeBeforeConnack};
use crate::control::Renew;
use crate::encode::write_batch;
use crate::event::{DisconnectCause, TransportEnd};
use crate::job::{BatchLimits, Request};
use crate::outbound::InFlightEntry;
use crate::session::Session;
use crate::transmit::Step;

/// The most bytes behind a CONNECT that is not answered: a server may hang up on much that comes before it knows the client
/// (MQTT 5, section 3.1.4). What is more waits for the CONNACK.
const MAX_EARLY_BYTES: usize = 4096;

/// So many times in a row a broker has taken the CONNECT alone that it had not taken with a SUBSCRIBE behind it. Once is
/// chance.
const TOO_EARLY: u8 = 2;

/// What may still leave before the CONNACK of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EarlyRoom {
    /// The longest packet.
    packet: usize,
    /// All of them.
    left: usize,
}

/// Whether this broker takes a SUBSCRIBE behind the CONNECT, as far as that is known.
///
/// ```text
/// Fine ──ended without an answer to it──▶ Suspected ──CONNACK to a CONNECT alone──▶ Fine, one more doubt; or not any more
///   ▲                                        │
///   └──ended without a CONNACK, too──────────┘
/// ```
#[derive(Debug, Default)]
pub(crate) struct Haste {
    /// The last connection on which something left early ended before anything of that was answered.
    is_suspected: bool,
    doubts: u8,
}

impl Haste {
    pub(crate) fn on_connected(&mut self, hasty: bool) {
        if self.is_suspected && !hasty {
            self.is_suspected = false;
            self.doubts = self.doubts.saturating_add(1);
        }
    }

    pub(crate) fn on_answered(&mut self) {
        self.doubts = 0;
    }

    /// `hasty`: something left early, and nothing of it was answered.
    pub(crate) fn on_ended(&mut self, hasty: bool, cause: &DisconnectCause) {
        self.is_suspected = hasty
            && !matches!(
                cause,
                DisconnectCause::Requested
                    | DisconnectCause::Transport(TransportEnd::ClosedLocally)
            );
    }
}

impl Session {
    /// The CONNECT, this long, has been written: decides what may follow it at once.
    pub(crate) fn begin_early(&mut self, connect_len: usize) {
        let is_early = self.may_be_early();
        let Some(connection) = &mut self.connection else {
            return;
        };
        if !is_early || !connection.clean_start {
            return;
        }
        let is_v5 = self.config.version == ProtocolVersion::V5;
        let packet = match self.config.subscribe_before_connack {
            // A server whose Maximum Packet Size is below that of the CONNECT does not accept it.
            SubscribeBeforeConnack::WhenCertain if is_v5 => connect_len,
            _ => MAX_EARLY_BYTES,
        };
        connection.early = Some(EarlyRoom {
            packet,
            left: MAX_EARLY_BYTES,
        });
        if self.config.resubscribe != Resubscribe::Never {
            // That the broker has none of them is known before it says so.
            connection.has_resubscribed = true;
            self.control
                .resubscribe(Renew::All, self.config.resubscribe_retained);
        }
    }

    fn may_be_early(&self) -> bool {
        self.config.subscribe_before_connack != SubscribeBeforeConnack::Never
            // MQTT 3.1 does not speak of it.
            && self.config.version != ProtocolVersion::V31
            //= MQTT-3.1.2-30
            && self.config.authentication.is_none()
            && self.config.persistence == Persistence::Off
            && !self.haste.is_suspected
            && self.haste.doubts < TOO_EARLY
            // What the broker may have hung up on is sent alone.
            && !self.control.may_have_suspects()
            && !self.in_flight.iter().any(|(_, entry)| InFlightEntry::is_suspect(entry))
    }

    pub(crate) fn write_early(&mut self, out: &mut BytesMut) -> Step {
        let Some(connection) = &mut self.connection else {
            return Step::Idle;
        };
        let Some(room) = &mut connection.early else {
            return Step::Idle;
        };
        if !self.control.can_send() {
            return Step::Idle;
        }
        let limits = BatchLimits {
            filters: usize::from(self.config.max_filters_per_packet.get()),
            bytes: room.packet.min(room.left),
        };
        let all = self.config.version != ProtocolVersion::V5
            || self.config.subscribe_before_connack == SubscribeBeforeConnack::WhenClean;
        let may_leave = |request: &Request| match request {
            Request::Subscribe { .. } if all => true,
            Request::Subscribe { subscription, id } => {
                id.is_none() && every_server_takes(&subscription.filter)
            }
            Request::Unsubscribe(_) => false,
        };
        let Some(batch) = self.control.next_early_batch(limits, may_leave) else {
            return Step::Idle;
        };
        let start = out.len();
        write_batch(batch, self.config.version, out);
        room.left = room.left.saturating_sub(out.len() - start);
        connection.is_hasty = true;
        Step::Done
    }
}

/// Whether no MQTT 5 server can decline subscriptions of this kind: Wildcard Subscription Available and Shared Subscription
/// Available come with the CONNACK.
fn every_server_takes(filter: &str) -> bool {
    TopicFilter::new(filter)
        .is_ok_and(|filter| !filter.has_wildcards() && filter.shared().is_none())
}
