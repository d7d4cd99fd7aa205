//! The way of messages that need nothing but to be handed on.

use bytes::Bytes;
use mqtt_codec::Decoder;

use crate::event::Message;
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
