//! Publishes on their way out: what each acknowledgement of the broker does.

use mqtt_codec::{AckRef, PacketId, ProtocolVersion, ReasonCode};

use crate::connection::{Reply, ReplyKind};
use crate::error::{ConnectionError, LocalLimit, ProtocolViolation};
use crate::event::{Event, Indeterminate, PublishOutcome};
use crate::outbound::Stage;
use crate::session::Session;

impl Session {
    pub(crate) fn on_puback(&mut self, ack: &AckRef<'_>) -> Result<(), ConnectionError> {
        match self.in_flight.entry(ack.packet_id).map(|entry| entry.stage) {
            None => self.counters.stray_acknowledgements += 1,
            //= MQTT-4.3.2-3
            //= MQTT-4.4.0-2
            Some(Stage::Puback) => self.finish(ack.packet_id, outcome_of(ack.reason_code)),
            Some(_) => {
                return Err(ConnectionError::Protocol(
                    ProtocolViolation::WrongAcknowledgement,
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn on_pubrec(&mut self, ack: &AckRef<'_>) -> Result<(), ConnectionError> {
        let id = ack.packet_id;
        match self
            .in_flight
            .entry(id)
            .map(|entry| (entry.stage, entry.outgoing.id))
        {
            None => {
                self.counters.stray_acknowledgements += 1;
                self.reply(ReplyKind::Pubrel, id, ReasonCode::PacketIdentifierNotFound)
            }
            Some((Stage::Puback, _)) => Err(ConnectionError::Protocol(
                ProtocolViolation::WrongAcknowledgement,
            )),
            //= MQTT-4.4.0-2
            Some((Stage::Pubrec, _)) if ack.reason_code >= ReasonCode::UnspecifiedError => {
                self.finish(id, PublishOutcome::Rejected(ack.reason_code));
                Ok(())
            }
            //= MQTT-4.3.3-3
            //= MQTT-4.3.3-4
            Some((Stage::Pubrec, publish)) => {
                //= MQTT-4.3.3-6
                self.acquit(id);
                self.in_flight.received(id);
                self.persister.touch_progress(publish, id);
                self.events.push_back(Event::PublishReceived {
                    id: publish,
                    reason: ack.reason_code,
                });
                self.queue_pubrel(id)
            }
            // The broker did not see our PUBREL, or repeats itself.
            Some((Stage::Pubcomp, _)) => self.queue_pubrel(id),
        }
    }

    /// A PUBREL whose turn in the replay has not come is sent in that turn.
    //= MQTT-4.6.0-4
    //= v3.1.1 MQTT-4.6.0-4
    pub(crate) fn queue_pubrel(&mut self, id: PacketId) -> Result<(), ConnectionError> {
        let epoch = self.connection_epoch;
        if self
            .in_flight
            .entry(id)
            .is_some_and(|entry| entry.sent_on == Some(epoch))
        {
            return self.reply(ReplyKind::Pubrel, id, ReasonCode::Success);
        }
        Ok(())
    }

    pub(crate) fn on_pubcomp(&mut self, ack: &AckRef<'_>) -> Result<(), ConnectionError> {
        match self.in_flight.entry(ack.packet_id).map(|entry| entry.stage) {
            None => self.counters.stray_acknowledgements += 1,
            //= MQTT-4.3.3-5
            Some(Stage::Pubcomp) => {
                let outcome = match ack.reason_code {
                    ReasonCode::PacketIdentifierNotFound => {
                        PublishOutcome::Indeterminate(Indeterminate::NotFound)
                    }
                    reason => PublishOutcome::Delivered(reason),
                };
                self.finish(ack.packet_id, outcome);
            }
            Some(_) => {
                return Err(ConnectionError::Protocol(
                    ProtocolViolation::WrongAcknowledgement,
                ));
            }
        }
        Ok(())
    }

    /// The broker took the publish without hanging up.
    pub(crate) fn acquit(&mut self, id: PacketId) {
        let (Some(connection), Some(entry)) = (&mut self.connection, self.in_flight.entry_mut(id))
        else {
            return;
        };
        if entry.is_suspect() {
            connection.replay.suspects = connection.replay.suspects.saturating_sub(1);
            entry.strikes = 0;
        }
    }

    /// Ends the exchange of a publish: its identifier and its place in the window are free again.
    pub(crate) fn finish(&mut self, id: PacketId, outcome: PublishOutcome) {
        self.acquit(id);
        if let Some(connection) = &mut self.connection {
            if connection.replay.next == Some(id) {
                connection.replay.next = self.in_flight.after(id);
            }
            if !connection.replay.one_at_a_time {
                connection.replay.window = connection
                    .replay
                    .window
                    .saturating_add(1)
                    .min(self.config.replay_window.get());
            }
        }
        let Some(entry) = self.in_flight.remove(id) else {
            return;
        };
        if let Some(connection) = &mut self.connection
            && entry.sent_on == Some(connection.epoch)
        {
            connection.send_quota.give_back();
        }
        self.complete(entry.outgoing.id, outcome);
    }

    pub(crate) fn reply(
        &mut self,
        kind: ReplyKind,
        id: PacketId,
        reason: ReasonCode,
    ) -> Result<(), ConnectionError> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        // Before 5.0 there are no reasons.
        let reason = if self.config.version == ProtocolVersion::V5 {
            reason
        } else {
            ReasonCode::Success
        };
        //= MQTT-2.2.1-5
        //= v3.1.1 MQTT-2.3.1-6
        connection.replies.push_back(Reply { kind, id, reason });
        self.check_pending_replies()
    }

    /// A peer that sends and does not read must not make us grow.
    pub(crate) fn check_pending_replies(&self) -> Result<(), ConnectionError> {
        match &self.connection {
            Some(connection) if connection.replies.len() > self.config.max_pending_replies => {
                Err(ConnectionError::Limit(LocalLimit::PendingReplies))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn outcome_of(reason: ReasonCode) -> PublishOutcome {
    if reason >= ReasonCode::UnspecifiedError {
        PublishOutcome::Rejected(reason)
    } else {
        PublishOutcome::Delivered(reason)
    }
}
