//! The way in: from a batch of the transport, through the session, into the batch for the subscribers.

use std::sync::Arc;
use std::vec::Drain;

use bytes::Bytes;
use mqtt_session::{
    AckToken, Dup, InputProgress, Message as SessionMessage, Recipient, Session, Timestamp,
};
use pubsub_core::{Delivery, DeliveryReceipt, Message, TopicName};
use tokio::time::Instant;

use crate::convert::{properties_of, qos_of};
use crate::driver::{CLOCK_TICK, Task};
use crate::endings::Endings;
use crate::overlap::Overlaps;
use crate::provider::Shared;
use crate::tokens::Tokens;
use crate::unclaimed::Unclaimed;

/// What a small message is taken to keep alive: a transport's read buffer, which its chunk is a slice of.
const READ_BUFFER: usize = 2 * 1024;

/// Room for this many deliveries is made at once: some 35 KiB.
const MAX_EXPECTED: usize = 256;

/// What is on its way to the subscribers.
#[derive(Default)]
pub(crate) struct Incoming {
    pub(crate) deliveries: Vec<Delivery>,
    /// How many there were in the last batch.
    pub(crate) expected: usize,
    /// The topic of the last message: a stream of messages on one topic shares one name.
    last_topic: Option<TopicName>,
    /// The size of the buffer that the messages at hand lie in, as far as it is known.
    buffer_len: usize,
    /// Of copies that nobody gets.
    unwanted: Vec<AckToken>,
}

/// The parts of the task that a message passes, while the session is busy with handing it over.
struct Intake<'a> {
    incoming: &'a mut Incoming,
    overlaps: &'a mut Overlaps,
    tokens: &'a mut Tokens,
    unclaimed: Option<&'a mut Unclaimed>,
    endings: Endings<'a>,
    clock_due: &'a mut Option<Instant>,
    shared: &'a Arc<Shared>,
    may_have_armed: &'a mut bool,
    now: Instant,
}

impl Task {
    /// Feeds the session with a batch. Errors come back as events. What else it reports is handled chunk by chunk, since
    /// messages behind an event take the longer way. The messages are delivered later, or in between when there are many.
    /// Returns whether there was anything else.
    pub(crate) fn handle_chunks(&mut self) -> bool {
        let now = self.timestamp;
        if self.incoming.deliveries.is_empty() {
            // As many as last time. The last ones went to the subscriber with the room they were in.
            let expected = self.incoming.expected.min(MAX_EXPECTED);
            self.incoming.deliveries.reserve(expected);
        }
        let mut chunks = std::mem::take(&mut self.chunks);
        let mut others = chunks.drain(..);
        let mut chunk = Bytes::new();
        // Until two chunks in a row are something else, since others like them will follow.
        let mut may_be_plain = true;
        let mut more = false;
        loop {
            let (session, mut intake) = self.intake();
            let progress = loop {
                if chunk.is_empty() {
                    let next = if may_be_plain {
                        let before = intake.incoming.deliveries.len();
                        let next = intake.take_plain(session, &mut others, now);
                        may_be_plain = intake.incoming.deliveries.len() > before;
                        next
                    } else {
                        others.next()
                    };
                    match next {
                        Some(next) => chunk = next,
                        None => break None,
                    }
                }
                if !intake.endings.publishes.is_empty() {
                    chunk = intake.endings.take_plain(session, chunk, &mut others, now);
                    if chunk.is_empty() {
                        continue;
                    }
                }
                intake.incoming.buffer_len = buffer_len_of(&chunk);
                *intake.may_have_armed = true;
                let progress = session.handle_input_with(&mut chunk, now, &mut intake);
                if progress != Ok(InputProgress::NeedsMoreInput) || session.has_events() {
                    break Some(progress);
                }
            };
            more |= self.drain_events();
            match progress {
                None => break,
                Some(Ok(InputProgress::DrainEvents)) => {
                    let _ = self.deliver();
                }
                Some(Ok(InputProgress::NeedsMoreInput)) => {}
                // There is no connection any more that the rest could be for.
                Some(Err(_)) => chunk.clear(),
            }
        }
        drop(others);
        self.chunks = chunks;
        self.acknowledge_unwanted();
        more
    }

    /// Puts a message that came as an event into the batch that is about to be delivered.
    #[inline(never)]
    pub(crate) fn take_message(&mut self, message: SessionMessage) {
        self.intake().1.message(message);
        self.acknowledge_unwanted();
    }

    fn intake(&mut self) -> (&mut Session, Intake<'_>) {
        let intake = Intake {
            incoming: &mut self.incoming,
            overlaps: &mut self.subscriptions.overlaps,
            tokens: &mut self.tokens,
            unclaimed: self.unclaimed.as_deref_mut(),
            endings: Endings {
                publishes: &mut self.publishes,
                delivered: &mut self.delivered_now,
                completed: &mut self.completed,
                counters: &self.shared.counters,
            },
            clock_due: &mut self.clock_due,
            shared: &self.shared,
            may_have_armed: &mut self.may_have_armed,
            now: self.now,
        };
        (&mut self.session, intake)
    }

    #[inline]
    fn acknowledge_unwanted(&mut self) {
        if self.incoming.unwanted.is_empty() {
            return;
        }
        for token in self.incoming.unwanted.drain(..) {
            let _ = self.session.acknowledge(token);
        }
    }
}

impl Recipient for Intake<'_> {
    /// Puts a message into the batch that is about to be delivered.
    #[inline(always)]
    fn message(&mut self, mut message: SessionMessage) {
        let incoming = &mut *self.incoming;
        let Some(topic) = topic_of(&mut incoming.last_topic, &message) else {
            return;
        };
        // A retained message comes because of its very subscription, and has no copies.
        if !message.retain().is_yes()
            && self.overlaps.may_have_copies()
            && self
                .overlaps
                .is_copy(topic, message.payload(), &message.properties(), self.now)
        {
            self.shared.counters.copy_left_out();
            incoming.unwanted.extend(message.take_ack_token());
            return;
        }
        let topic = topic.clone();
        let buffer_len = incoming.buffer_len;
        let receipt = message.take_ack_token().map(|token| self.receipt(token));
        let properties = properties_of(message.properties());
        let mut delivery = delivery_of(topic, message, buffer_len);
        delivery.message.properties = properties;
        delivery.receipt = receipt;
        match &mut self.unclaimed {
            None => self.incoming.deliveries.push(delivery),
            Some(unclaimed) => self.incoming.deliveries.extend(unclaimed.hold(delivery)),
        }
    }
}

impl Intake<'_> {
    /// Puts the messages at the front of the batch that are plain into the one that is about to be delivered. Returns the
    /// first chunk that is something else.
    ///
    /// What makes a delivery is part of this loop, and it is made where it stays: what takes several ways, and so a place in
    /// memory where they meet, costs more than all of the decoding.
    #[inline]
    fn take_plain(
        &mut self,
        session: &mut Session,
        chunks: &mut Drain<'_, Bytes>,
        now: Timestamp,
    ) -> Option<Bytes> {
        if self.unclaimed.is_some() || self.overlaps.may_have_copies() {
            return chunks.next();
        }
        let Some(mut plain) = session.plain_messages(now) else {
            return chunks.next();
        };
        let Incoming {
            deliveries,
            last_topic,
            ..
        } = &mut *self.incoming;
        let mut other = None;
        deliveries.extend(std::iter::from_fn(|| {
            let chunk = chunks.next()?;
            let buffer_len = buffer_len_of(&chunk);
            match plain.take(chunk) {
                Ok(message) => {
                    let topic = topic_of(last_topic, &message)?.clone();
                    Some(delivery_of(topic, message, buffer_len))
                }
                Err(chunk) => {
                    other = Some(chunk);
                    None
                }
            }
        }));
        // Nothing is left out if it ended early.
        other.or_else(|| chunks.next())
    }

    fn receipt(&mut self, token: AckToken) -> DeliveryReceipt {
        let number = self.tokens.insert(token);
        // Core counts how long its subscribers hold receipts back, by our clock.
        self.clock_due.get_or_insert(self.now + CLOCK_TICK);
        DeliveryReceipt::new(Arc::clone(self.shared) as Arc<_>, number)
    }
}

/// The topic of a message, and from now on the last one. The session lets none in that is not valid.
#[inline(always)]
fn topic_of<'a>(
    last: &'a mut Option<TopicName>,
    message: &SessionMessage,
) -> Option<&'a TopicName> {
    let is_last = match last {
        Some(last) => message.topic_is(last.as_str()),
        None => false,
    };
    if !is_last {
        learn_topic(last, message.topic_bytes());
    }
    last.as_ref()
}

#[inline(never)]
fn learn_topic(last: &mut Option<TopicName>, topic: &[u8]) {
    *last = TopicName::from_bytes(topic).ok();
}

/// The delivery that a message comes to, without its properties and its receipt.
#[inline(always)]
fn delivery_of(topic: TopicName, message: SessionMessage, buffer_len: usize) -> Delivery {
    let qos = qos_of(message.qos());
    let retain = message.retain().is_yes();
    let duplicate = message.dup() == Dup::Yes;
    let mut delivered = Message::new(topic, message.into_payload());
    delivered.qos = qos;
    delivered.retain = retain;
    delivered.duplicate = duplicate;
    Delivery::new(delivered).with_buffer_len(buffer_len)
}

/// How much memory the messages of a chunk keep alive, as far as it is known.
#[inline]
fn buffer_len_of(chunk: &Bytes) -> usize {
    chunk.len().max(READ_BUFFER)
}
