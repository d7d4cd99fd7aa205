//! The way of messages that need nothing but to be handed on, and of acknowledgements that say nothing but "done".

use bytes::{Buf as _, Bytes};
use mqtt_codec::{Decoder, PacketType};

use crate::event::{Message, PublishId};
use crate::outbound::{InFlight, Stage};
use crate::quota::Quota;
use crate::session::Session;
use crate::stats::Counters;
use crate::time::Timestamp;

/// Takes *plain* messages as they come; see [`Session::plain_messages`].
#[derive(Debug)]
pub struct PlainMessages<'a> {
    decoder: &'a mut Decoder,
    counters: &'a mut Counters,
}

impl Session {
    /// A shorter way than [`handle_input_with`](Self::handle_input_with) for chunks that are a *plain* message each: one PUBLISH
    /// at QoS 0 without properties, and nothing else. `None` while none can be handed on: without an accepted connection,
    /// while an event waits, and behind the beginning of a packet.
    ///
    /// Most of what most clients receive is plain, and what it takes to see to that is seen to once for all the chunks at hand.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use mqtt_session::{ConnectionError, Message, Session, Timestamp};
    /// # fn on_message(_: Message) {}
    /// # fn drain_events(_: &mut Session) {}
    /// fn received(session: &mut Session, chunks: Vec<Bytes>, now: Timestamp) -> Result<(), ConnectionError> {
    ///     let mut chunks = chunks.into_iter();
    ///     while chunks.len() > 0 {
    ///         let mut plain = session.plain_messages(now);
    ///         let other = chunks.by_ref().find_map(|chunk| match &mut plain {
    ///             Some(plain) => plain.take(chunk).map(on_message).err(),
    ///             None => Some(chunk),
    ///         });
    ///         let mut other = other.unwrap_or_default();
    ///         while !other.is_empty() {
    ///             let handled = session.handle_input_with(&mut other, now, &mut on_message);
    ///             drain_events(session);
    ///             handled?;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    #[inline]
    pub fn plain_messages(&mut self, now: Timestamp) -> Option<PlainMessages<'_>> {
        self.advance(now);
        let connection = self.connection.as_mut()?;
        if !connection.is_between_packets() || !self.events.is_empty() {
            return None;
        }
        connection.keep_alive.on_received(self.now);
        Some(PlainMessages {
            decoder: &mut connection.decoder,
            counters: &mut self.counters,
        })
    }

    /// A shorter way than [`handle_input_with`](Self::handle_input_with) for *plain* acknowledgements: those PUBACKs and
    /// PUBCOMPs that say success and nothing else, of publishes that were sent on this connection. `None` while none can be taken:
    /// without an accepted connection, while an event waits, behind the beginning of a packet, while publishes are sent
    /// again, and with [`persistence`](crate::Config::persistence) on.
    ///
    /// Most of what follows a burst of publishes is plain, and comes in a burst as well.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use mqtt_session::{ConnectionError, Message, PublishId, Session, Timestamp};
    /// # fn on_message(_: Message) {}
    /// # fn on_delivered(_: PublishId) {}
    /// # fn drain_events(_: &mut Session) {}
    /// fn received(session: &mut Session, mut chunk: Bytes, now: Timestamp) -> Result<(), ConnectionError> {
    ///     while !chunk.is_empty() {
    ///         if let Some(mut plain) = session.plain_acknowledgements(now) {
    ///             while let Some(publish) = plain.take(&mut chunk) {
    ///                 on_delivered(publish);
    ///             }
    ///         }
    ///         let handled = session.handle_input_with(&mut chunk, now, &mut on_message);
    ///         drain_events(session);
    ///         handled?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    #[inline]
    pub fn plain_acknowledgements(&mut self, now: Timestamp) -> Option<PlainAcknowledgements<'_>> {
        self.advance(now);
        let connection = self.connection.as_mut()?;
        if !connection.is_between_packets()
            || connection.replay.next.is_some()
            || !self.events.is_empty()
            || self.persister.is_on
        {
            return None;
        }
        connection.keep_alive.on_received(self.now);
        Some(PlainAcknowledgements {
            decoder: &connection.decoder,
            epoch: connection.epoch,
            send_quota: &mut connection.send_quota,
            in_flight: &mut self.in_flight,
            counters: &mut self.counters,
        })
    }
}

impl PlainMessages<'_> {
    /// The message that `chunk` is, sharing its memory.
    ///
    /// # Errors
    ///
    /// The chunk is something else: it is given back as it was, for [`Session::handle_input_with`] to see to.
    #[inline(always)]
    pub fn take(&mut self, chunk: Bytes) -> Result<Message, Bytes> {
        let publish = self.decoder.decode_plain_publish(chunk)?;
        self.counters.bytes_received += publish.frame().len() as u64;
        self.counters.messages_received += 1;
        Ok(Message {
            publish,
            alias_topic: None,
            ack: None,
        })
    }
}

/// Takes *plain* acknowledgements as they come; see [`Session::plain_acknowledgements`].
#[derive(Debug)]
pub struct PlainAcknowledgements<'a> {
    decoder: &'a Decoder,
    epoch: u32,
    send_quota: &'a mut Quota,
    in_flight: &'a mut InFlight,
    counters: &'a mut Counters,
}

impl PlainAcknowledgements<'_> {
    /// Takes the packet at the front of `chunk`, if it is plain, and says which publish has come to its end: it was
    /// [delivered](crate::PublishOutcome::Delivered), and no event says so again.
    ///
    /// `None`: there is something else, or nothing. It is left as it was, for [`Session::handle_input_with`] to see to.
    //= MQTT-4.3.2-3
    //= MQTT-4.3.3-5
    //= MQTT-4.4.0-2
    #[inline(always)]
    pub fn take(&mut self, chunk: &mut Bytes) -> Option<PublishId> {
        let (packet, id) = self.decoder.peek_plain_ack(chunk)?;
        let awaits = match packet {
            PacketType::Puback => Stage::Puback,
            PacketType::Pubcomp => Stage::Pubcomp,
            _ => return None,
        };
        // What `finish` does besides is of a replay, and there is none.
        let publish = self.in_flight.end(id, awaits, self.epoch)?;
        self.send_quota.give_back();
        self.counters.bytes_received += Decoder::PLAIN_ACK_LEN as u64;
        chunk.advance(Decoder::PLAIN_ACK_LEN);
        Some(publish)
    }
}
