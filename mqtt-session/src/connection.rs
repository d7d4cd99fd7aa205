//! The Network Connection: everything that ends with it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use mqtt_codec::{Decoder, PacketId, ProtocolVersion, QoS, ReasonCode};

use crate::alias::{InboundAliases, OutboundAliases};
use crate::command::Disconnect;
use crate::config::Config;
use crate::early::EarlyRoom;
use crate::event::{Availability, BrokerLimits, ConnectionStage};
use crate::inbound::HeldQoS1;
use crate::keep_alive::KeepAlive;
use crate::pace::Pacer;
use crate::quota::Quota;
use crate::time::{Timestamp, earlier};

/// The state of one Network Connection. Dropping it is all there is to cleaning up after one.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Tells this connection from all others of the session.
    pub(crate) epoch: u32,
    pub(crate) phase: Phase,
    pub(crate) decoder: Decoder,
    /// The beginning of a packet whose end has not come. At most the maximum packet size, in a block that packets before it
    /// may share.
    pub(crate) partial: BytesMut,
    /// How many bytes of a packet that is too large are still to come.
    pub(crate) discard: usize,
    /// Whether CONNECT asked for a new session.
    pub(crate) clean_start: bool,
    /// What may leave before the CONNACK.
    pub(crate) early: Option<EarlyRoom>,
    /// Something left before the CONNACK, and nothing of that was answered.
    pub(crate) is_hasty: bool,
    /// By when it has to be, once the CONNACK is there.
    pub(crate) haste_deadline: Timestamp,
    /// The session's subscriptions are made anew without waiting for the CONNACK to demand it.
    pub(crate) has_resubscribed: bool,
    pub(crate) keep_alive: KeepAlive,
    pub(crate) limits: BrokerLimits,

    /// Our window of unacknowledged publishes.
    pub(crate) send_quota: Quota,
    pub(crate) pacer: Option<Pacer>,
    /// The broker's. Only MQTT 5 has one.
    pub(crate) receive_quota: Option<Quota>,
    pub(crate) outbound_aliases: OutboundAliases,
    pub(crate) inbound_aliases: InboundAliases,

    /// Answers that wait to be written, in order.
    pub(crate) replies: VecDeque<Reply>,
    pub(crate) held_qos1: HeldQoS1,
    /// QoS 2 messages that arrived on this connection and whose PUBREC has not left, by sequence number, in order.
    pub(crate) owed_pubrecs: VecDeque<(PacketId, u64)>,

    pub(crate) replay: Replay,
    pub(crate) ping: PingState,
    pub(crate) auth: Option<AuthReply>,
    /// An exchange that we began after the CONNACK.
    pub(crate) reauthenticating: bool,
    pub(crate) disconnect: Option<Disconnect>,
    /// Nothing new is begun on this connection any more.
    pub(crate) is_winding_down: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// CONNECT has not been handed out.
    Opened {
        deadline: Timestamp,
    },
    /// CONNACK is awaited.
    AwaitsConnack {
        deadline: Timestamp,
    },
    Connected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PingState {
    Idle,
    /// A PINGREQ is to be written.
    Due,
}

/// An answer to the peer that carries a packet identifier and a reason, nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) kind: ReplyKind,
    pub(crate) id: PacketId,
    pub(crate) reason: ReasonCode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyKind {
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
}

/// Sending again what was in flight when the connection began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Replay {
    /// The next to send. New publishes wait until there is none.
    pub(crate) next: Option<PacketId>,
    /// How many may be unacknowledged while it lasts.
    pub(crate) window: u16,
    /// The window does not grow: one at a time, because the broker hung up on one of these more than once.
    pub(crate) one_at_a_time: bool,
    /// How many publishes with a strike are not acknowledged yet. New ones wait, so that these do not hide behind them.
    pub(crate) suspects: usize,
}

#[derive(Debug)]
pub(crate) struct AuthReply {
    pub(crate) reason: ReasonCode,
    pub(crate) data: Option<Bytes>,
}

impl Connection {
    pub(crate) fn new(config: &Config, epoch: u32, clean_start: bool, now: Timestamp) -> Self {
        let v5 = config.version == ProtocolVersion::V5;
        Self {
            epoch,
            phase: Phase::Opened {
                deadline: now + config.connack_timeout,
            },
            decoder: Decoder::new(config.version).with_max_packet_size(config.maximum_packet_size),
            partial: BytesMut::new(),
            discard: 0,
            clean_start,
            early: None,
            is_hasty: false,
            haste_deadline: Timestamp::ZERO,
            has_resubscribed: false,
            keep_alive: KeepAlive::new(config.keep_alive, config.ping_timeout, now),
            limits: BrokerLimits::of_version(config),
            send_quota: Quota::new(0),
            pacer: config.publish_pace.map(Pacer::new),
            receive_quota: v5.then(|| Quota::new(config.receive_maximum.get())),
            //= MQTT-3.3.2-7
            outbound_aliases: OutboundAliases::new(0),
            inbound_aliases: InboundAliases::new(if v5 { config.topic_alias_maximum } else { 0 }),
            replies: VecDeque::new(),
            held_qos1: HeldQoS1::default(),
            owed_pubrecs: VecDeque::new(),
            replay: Replay {
                next: None,
                window: 1,
                one_at_a_time: false,
                suspects: 0,
            },
            ping: PingState::Idle,
            auth: None,
            reauthenticating: false,
            disconnect: None,
            is_winding_down: false,
        }
    }

    pub(crate) const fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected)
    }

    /// Whether what comes next begins a packet, which may be a message.
    #[inline(always)]
    pub(crate) fn is_between_packets(&self) -> bool {
        self.is_connected() && self.discard == 0 && self.partial.is_empty()
    }

    /// Whether it owes the peer nothing that could leave now: no CONNECT, no answer, no PINGREQ, no AUTH, no DISCONNECT, nothing
    /// to send again.
    #[inline(always)]
    pub(crate) fn is_quiet(&self) -> bool {
        !matches!(self.phase, Phase::Opened { .. })
            && self.replies.is_empty()
            && self.ping == PingState::Idle
            && self.auth.is_none()
            && self.disconnect.is_none()
            && self.replay.next.is_none()
    }

    /// Whether a publish is sent again all alone, and nothing else that might be blamed may be sent beside it.
    pub(crate) const fn isolates_a_publish(&self) -> bool {
        self.replay.one_at_a_time && self.replay.suspects > 0 && self.send_quota.used() > 0
    }

    pub(crate) const fn stage(&self) -> ConnectionStage {
        match self.phase {
            Phase::Opened { .. } | Phase::AwaitsConnack { .. } => ConnectionStage::Connecting,
            Phase::Connected => ConnectionStage::Connected,
        }
    }

    /// From when on a publish may leave, as far as the pace is concerned.
    #[inline]
    pub(crate) fn publish_free_at(&self) -> Timestamp {
        self.pacer.as_ref().map_or(Timestamp::ZERO, Pacer::free_at)
    }

    #[inline]
    pub(crate) fn on_publish_sent(&mut self, now: Timestamp) {
        if let Some(pacer) = &mut self.pacer {
            pacer.on_sent(now);
        }
    }

    /// When [`crate::Session::handle_timeout`] has something to do for this connection.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Opened { deadline } | Phase::AwaitsConnack { deadline } => Some(deadline),
            Phase::Connected => {
                let haste = self.is_hasty.then_some(self.haste_deadline);
                earlier(self.keep_alive.deadline(), haste)
            }
        }
    }
}

impl BrokerLimits {
    /// What holds where the broker says nothing else.
    pub(crate) fn of_version(config: &Config) -> Self {
        let v5 = config.version == ProtocolVersion::V5;
        Self {
            in_flight: config.max_in_flight.get(),
            maximum_packet_size: mqtt_codec::MAX_PACKET_SIZE,
            maximum_qos: QoS::ExactlyOnce,
            retain: Availability::Available,
            wildcard_subscriptions: Availability::Available,
            subscription_identifiers: Availability::from_bit(v5),
            // Some brokers know `$share` in 3.1.1 too, and one that does not takes it for a topic like any other.
            shared_subscriptions: Availability::Available,
            topic_aliases: 0,
        }
    }
}
