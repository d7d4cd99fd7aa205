//! A publish that need not wait: accepted and written in one step.

use bytes::BytesMut;
use mqtt_codec::QoS;

use crate::encode::{Content, name_of, write_publish};
use crate::error::{PublishError, PublishErrorReason};
use crate::event::PublishId;
use crate::outbound::{InFlightEntry, Outgoing, Stage};
use crate::publish::Publish;
use crate::session::Session;
use crate::time::Timestamp;

/// What [`Session::publish_into`] has done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it says whether there is something to send now"]
#[allow(clippy::exhaustive_enums, reason = "a driver must handle all")]
pub enum Published {
    /// Nothing was written, and events tell what becomes of it, as after [`Session::publish`].
    Queued(PublishId),
    /// Its packet was written, and at QoS 0 that is the end of it: no event follows.
    Done,
    /// Its packet was written. [`Event::PublishWritten`](crate::Event::PublishWritten) does not follow; what comes after it does.
    InFlight(PublishId),
}

impl Session {
    /// Accepts a message like [`publish`](Self::publish) and, if nothing else has to be written before it, appends its packet to
    /// `out` at once, as the next [`poll_transmit`](Self::poll_transmit) would have: at most this one packet.
    ///
    /// It saves the way through the queue and the events, for a driver whose transport has room just now. With
    /// [`persistence`](crate::Config::persistence) on, all messages wait. What is written counts as handed out.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish); nothing is written then.
    // QoS 0 becomes a part of its caller: put together here, the message need not go through memory.
    #[inline(always)]
    pub fn publish_into(
        &mut self,
        publish: Publish,
        out: &mut BytesMut,
        now: Timestamp,
    ) -> Result<Published, PublishError> {
        self.advance(now);
        if publish.qos != QoS::AtMostOnce || !self.may_write_at_once(QoS::AtMostOnce) {
            return self.publish_acknowledged_into(publish, out);
        }
        let written = match self.accept(&publish) {
            //= MQTT-4.3.1-1
            //= v3.1.1 MQTT-4.3.1-1
            Ok(size) => {
                let expires_at = self.expiry_of(&publish);
                self.write_at_most_once(&publish, expires_at, size, out)
            }
            Err(reason) => Err(reason),
        };
        match written {
            Ok(bytes) => {
                self.on_written_directly(bytes);
                Ok(Published::Done)
            }
            Err(reason) => Err(PublishError::new(reason, publish)),
        }
    }

    /// The same at QoS 1 and 2, and where something else is to be written first.
    #[inline(never)]
    fn publish_acknowledged_into(
        &mut self,
        publish: Publish,
        out: &mut BytesMut,
    ) -> Result<Published, PublishError> {
        let stage = match publish.qos {
            QoS::AtLeastOnce => Some(Stage::Puback),
            QoS::ExactlyOnce => Some(Stage::Pubrec),
            QoS::AtMostOnce => None,
        };
        let stage = stage.filter(|_| self.may_write_at_once(publish.qos));
        let Some(stage) = stage else {
            return self.publish(publish, self.now).map(Published::Queued);
        };
        let size = match self.accept(&publish) {
            Ok(size) => size,
            Err(reason) => return Err(PublishError::new(reason, publish)),
        };
        // `max_in_flight` is below the number of identifiers, so there is one.
        let Some(packet_id) = self.in_flight.take_id() else {
            return Err(PublishError::new(
                PublishErrorReason::TooManyQueued,
                publish,
            ));
        };
        let id = PublishId(self.next_publish);
        self.next_publish += 1;
        let outgoing = Outgoing {
            id,
            expires_at: self.expiry_of(&publish),
            publish,
            size,
        };
        self.in_flight
            .put_last(packet_id, InFlightEntry::new(outgoing, stage));
        let before = out.len();
        if !self.write_in_flight(packet_id, out) {
            // Its end has been reported.
            return Ok(Published::Queued(id));
        }
        self.on_written_directly(out.len() - before);
        Ok(Published::InFlight(id))
    }

    /// Whether the next packet to write would be that of a new message of this QoS.
    #[inline(always)]
    fn may_write_at_once(&mut self, qos: QoS) -> bool {
        if self.persister.is_on || self.waiting.len() > 0 {
            return false;
        }
        if self.owes_answers() {
            self.queue_decided();
        }
        let Some(connection) = &self.connection else {
            return false;
        };
        let is_free = connection.is_connected()
            && connection.is_quiet()
            && !connection.is_winding_down
            && connection.replay.suspects == 0
            && !self.control.can_send()
            && !self.control.has_suspects()
            //= MQTT-4.9.0-2
            && connection.publish_free_at() <= self.now;
        //= MQTT-3.3.4-8
        is_free
            && (qos == QoS::AtMostOnce
                || (connection.send_quota.has_room()
                    && self.in_flight.len() < self.in_flight_limit(Some(qos))))
    }

    fn on_written_directly(&mut self, bytes: usize) {
        self.counters.bytes_sent += bytes as u64;
        if let Some(connection) = &mut self.connection {
            connection.keep_alive.on_sent(self.now);
        }
    }

    /// Writes a QoS 0 PUBLISH, if it can be encoded.
    #[inline(always)]
    pub(crate) fn write_at_most_once(
        &mut self,
        publish: &Publish,
        expires_at: Option<Timestamp>,
        size: usize,
        out: &mut BytesMut,
    ) -> Result<usize, PublishErrorReason> {
        let before = out.len();
        let Some(connection) = &mut self.connection else {
            return Ok(0);
        };
        let content = Content {
            publish,
            name: name_of(self.checked_topic.as_ref(), &publish.topic),
            expires_at,
            size,
        };
        let written = write_publish(
            content,
            None,
            connection,
            &mut self.scratch,
            self.now,
            self.config.version,
            out,
        );
        connection.on_publish_sent(self.now);
        self.counters.publishes_sent += 1;
        match written {
            Ok(()) => Ok(out.len() - before),
            Err(_) => Err(PublishErrorReason::InvalidProperty),
        }
    }
}
