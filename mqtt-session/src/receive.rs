//! Messages on their way in: what a PUBLISH and a PUBREL do, and which answers may leave.

use std::sync::Arc;

use mqtt_codec::{PacketId, QoS, ReasonCode};

use crate::alias::InboundAliasError;
use crate::config::ReceiveOverrun;
use crate::connection::{Connection, Reply, ReplyKind};
use crate::error::{ConnectionError, LocalLimit, ProtocolViolation};
use crate::event::{AckQoS, AckToken, Event, Message};
use crate::inbound::{Arrival, ReceivedQoS2};
use crate::persist::RecordKey;
use crate::session::Session;

impl Session {
    pub(crate) fn on_publish(
        &mut self,
        publish: mqtt_codec::Publish,
    ) -> Result<(), ConnectionError> {
        if let TakenIn::New { alias_topic, ack } = self.take_in(&publish)? {
            self.events.push_back(Event::Message(Message {
                publish,
                alias_topic,
                ack,
            }));
        }
        Ok(())
    }

    /// Takes a PUBLISH in, and says whether it is to be reported.
    #[inline(always)]
    pub(crate) fn take_in(
        &mut self,
        publish: &mqtt_codec::Publish,
    ) -> Result<TakenIn, ConnectionError> {
        if publish.qos() == QoS::AtMostOnce && publish.properties().is_empty() {
            // Nearly all: nothing to be answered, nothing to be looked up.
            self.counters.messages_received += 1;
            return Ok(TakenIn::New {
                alias_topic: None,
                ack: None,
            });
        }
        self.take_in_with_care(publish)
    }

    fn take_in_with_care(
        &mut self,
        publish: &mqtt_codec::Publish,
    ) -> Result<TakenIn, ConnectionError> {
        let alias_topic = self.resolve_alias(publish)?;
        let bytes = || {
            let topic = alias_topic
                .as_ref()
                .map_or_else(|| publish.topic_name().len(), |topic| topic.len());
            topic + publish.payload().len()
        };
        //= MQTT-3.3.4-1
        //= v3.1.1 MQTT-3.3.4-1
        //= MQTT-4.5.0-2
        //= v3.1.1 MQTT-4.5.0-2
        let ack = match (publish.qos(), publish.packet_id()) {
            (QoS::AtLeastOnce, Some(id)) => {
                let bytes = bytes();
                self.hold(bytes)?;
                let Some(connection) = &mut self.connection else {
                    return Ok(TakenIn::Known);
                };
                let sequence = connection.held_qos1.push(id, bytes);
                Some(AckToken {
                    qos: AckQoS::One,
                    epoch: connection.epoch,
                    sequence,
                    packet_id: id,
                })
            }
            (QoS::ExactlyOnce, Some(id)) => {
                match self.on_qos2(id, bytes(), fingerprint(publish, alias_topic.as_deref()))? {
                    Some(token) => Some(token),
                    None => return Ok(TakenIn::Known),
                }
            }
            _ => None,
        };
        self.counters.messages_received += 1;
        Ok(TakenIn::New { alias_topic, ack })
    }

    /// The topic that an alias stands for, if one does. Learns the alias otherwise.
    pub(crate) fn resolve_alias(
        &mut self,
        publish: &mqtt_codec::Publish,
    ) -> Result<Option<Arc<str>>, ConnectionError> {
        if !self.is_v5() {
            return Ok(None);
        }
        let Some(alias) = publish.properties().topic_alias() else {
            return Ok(None);
        };
        let Some(connection) = &mut self.connection else {
            return Ok(None);
        };
        let resolved = if publish.topic_name().is_empty() {
            connection.inbound_aliases.resolve(alias.get()).map(Some)
        } else {
            connection
                .inbound_aliases
                .bind(alias.get(), publish.topic())
                .map(|()| None)
        };
        resolved.map_err(|error| {
            ConnectionError::Protocol(match error {
                //= MQTT-3.3.2-8
                InboundAliasError::OutOfRange => ProtocolViolation::TopicAliasInvalid,
                InboundAliasError::Unknown => ProtocolViolation::TopicAliasUnknown,
            })
        })
    }

    /// Makes sure that one more message may be held.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), ConnectionError> {
        let (held_messages, held_bytes) = self.held();
        let mut bound = self.config.max_held_messages;
        if self.is_v5() {
            // The window that the broker was told is its to use.
            bound = bound.max(self.config.receive_maximum.get());
        }
        if held_messages >= usize::from(bound) {
            return Err(ConnectionError::Limit(LocalLimit::HeldMessages));
        }
        // A single message is bounded by the maximum packet size.
        if held_bytes > 0 && held_bytes + bytes > self.config.max_held_bytes {
            return Err(ConnectionError::Limit(LocalLimit::HeldBytes));
        }
        self.take_place()
    }

    /// A place in the window that the broker has towards us.
    pub(crate) fn take_place(&mut self) -> Result<(), ConnectionError> {
        //= MQTT-3.3.4-7
        match self
            .connection
            .as_mut()
            .and_then(|connection| connection.receive_quota.as_mut())
        {
            None => Ok(()),
            // What is held is bounded by itself.
            Some(quota) if self.config.receive_overrun == ReceiveOverrun::Tolerate => {
                quota.take();
                Ok(())
            }
            Some(quota) => quota
                .try_take()
                .then_some(())
                .ok_or(ConnectionError::Protocol(
                    ProtocolViolation::ReceiveMaximumExceeded,
                )),
        }
    }

    /// A QoS 2 PUBLISH. `None`: the message was reported before.
    pub(crate) fn on_qos2(
        &mut self,
        id: PacketId,
        bytes: usize,
        fingerprint: u64,
    ) -> Result<Option<AckToken>, ConnectionError> {
        if self.received.is_other_message(id, fingerprint) {
            // An identifier is not used again before its release, unless the broker lost the session and we were not told.
            let Some(connection) = &mut self.connection else {
                return Ok(None);
            };
            release_received(&mut self.received, connection, id);
            self.persister.touch(RecordKey::Received(id));
        }
        if !self.received.contains(id) {
            self.hold(bytes)?;
        }
        let Some(connection) = &mut self.connection else {
            return Ok(None);
        };
        let epoch = connection.epoch;
        match self.received.arrive(id, bytes, fingerprint, epoch) {
            Arrival::New { sequence } => {
                connection.owed_pubrecs.push_back((id, sequence));
                Ok(Some(AckToken {
                    qos: AckQoS::Two,
                    epoch: self.session_epoch,
                    sequence,
                    packet_id: id,
                }))
            }
            //= MQTT-4.3.3-10
            Arrival::Again {
                sequence,
                first_on_this_connection,
            } => {
                self.counters.duplicates_suppressed += 1;
                connection.owed_pubrecs.push_back((id, sequence));
                if first_on_this_connection {
                    self.take_place()?;
                }
                self.check_pending_replies()?;
                Ok(None)
            }
            Arrival::Pending => {
                self.counters.duplicates_suppressed += 1;
                Ok(None)
            }
        }
    }

    /// A PUBREL is always answered, whether its identifier is known or not.
    //= MQTT-4.3.3-12
    //= MQTT-4.3.3-13
    pub(crate) fn on_pubrel(&mut self, id: PacketId) -> Result<(), ConnectionError> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let reason = if self.received.contains(id) {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        release_received(&mut self.received, connection, id);
        self.persister.touch(RecordKey::Received(id));
        //= MQTT-4.3.3-11
        let reason = if self.is_v5() {
            reason
        } else {
            ReasonCode::Success
        };
        self.reply(ReplyKind::Pubcomp, id, reason)
    }

    /// Whether a message that came on this connection has had no answer.
    #[inline]
    pub(crate) fn owes_answers(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| {
            !connection.held_qos1.is_empty() || !connection.owed_pubrecs.is_empty()
        })
    }

    /// Turns decisions into answers, as far as their order allows.
    pub(crate) fn queue_decided(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        //= MQTT-4.6.0-2
        //= v3.1.1 MQTT-4.6.0-2
        //= MQTT-4.3.2-4
        //= MQTT-4.3.2-5
        //= v3.1.1 MQTT-4.3.2-2
        while let Some((id, reason)) = connection.held_qos1.pop_decided() {
            if let Some(quota) = &mut connection.receive_quota {
                quota.give_back();
            }
            connection.replies.push_back(Reply {
                kind: ReplyKind::Puback,
                id,
                reason,
            });
        }
        //= MQTT-4.6.0-3
        //= v3.1.1 MQTT-4.6.0-3
        //= MQTT-4.3.3-8
        //= v3.1.1 MQTT-4.3.3-2
        while let Some(&(id, sequence)) = connection.owed_pubrecs.front() {
            match self.received.answer(id, sequence) {
                Ok(None) => break,
                Err(_) => {}
                Ok(Some(reason)) => {
                    connection.replies.push_back(Reply {
                        kind: ReplyKind::Pubrec,
                        id,
                        reason,
                    });
                    //= MQTT-4.3.3-9
                    if reason >= ReasonCode::UnspecifiedError {
                        // A failing PUBREC ends the exchange; there is no PUBREL.
                        release_received(&mut self.received, connection, id);
                        self.persister.touch(RecordKey::Received(id));
                    }
                }
            }
            connection.owed_pubrecs.pop_front();
        }
    }
}

/// What becomes of a PUBLISH that breaks no rule.
pub(crate) enum TakenIn {
    /// It is reported.
    New {
        /// The topic, where an alias stands for it.
        alias_topic: Option<Arc<str>>,
        ack: Option<AckToken>,
    },
    /// It was reported before.
    Known,
}

/// Forgets a QoS 2 message and gives its place in the peer's window back.
pub(crate) fn release_received(
    received: &mut ReceivedQoS2,
    connection: &mut Connection,
    id: PacketId,
) {
    if received.release(id, connection.epoch) == Some(crate::inbound::InWindow::Yes)
        && let Some(quota) = &mut connection.receive_quota
    {
        quota.give_back();
    }
}

/// Tells apart two messages with one identifier, by what a broker may not change. Made here and not with the standard
/// library's hasher, since it is stored and must mean the same to the next version of it.
fn fingerprint(publish: &mqtt_codec::Publish, alias_topic: Option<&str>) -> u64 {
    let topic = alias_topic.map_or_else(|| publish.topic_name().as_bytes(), str::as_bytes);
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in [topic, publish.payload()] {
        for chunk in part.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word))
                .wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        hash = (hash.rotate_left(5) ^ part.len() as u64).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    hash
}
