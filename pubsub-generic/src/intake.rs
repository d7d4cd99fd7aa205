//! The way in: from a batch of the transport, through the session, into the batch for the subscribers.

use bytes::Bytes;
use mqtt_session::{AckToken, Dup, InputProgress, Message as SessionMessage, Recipient, Session};
use pubsub_core::{Delivery, DeliveryReceipt, Message, TopicName};
use tokio::time::Instant;

use crate::convert::{properties_of, qos_of};
use crate::driver::{CLOCK_TICK, Task};
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
    clock_due: &'a mut Option<Instant>,
    shared: &'a Shared,
    now: Instant,
}

impl Task {
    /// Feeds the session with a batch. Errors come back as events. What else it reports is handled chunk by chunk, since
    /// messages behind an event take the longer way. The messages are delivered later, or in between when there are many.
    pub(crate) fn handle_chunks(&mut self) {
        let now = self.timestamp;
        if self.incoming.deliveries.is_empty() {
            // As many as last time. The last ones went to the subscriber with the room they were in.
            let expected = self.incoming.expected.min(MAX_EXPECTED);
            self.incoming.deliveries.reserve(expected);
        }
        let mut chunks = std::mem::take(&mut self.chunks);
        let mut others = chunks.drain(..);
        let mut chunk = Bytes::new();
        loop {
            let (session, mut intake) = self.intake();
            let progress = loop {
                if chunk.is_empty() {
                    match others.next() {
                        Some(next) => chunk = next,
                        None => break None,
                    }
                    intake.incoming.buffer_len = chunk.len().max(READ_BUFFER);
                }
                let progress = session.handle_input_with(&mut chunk, now, &mut intake);
                if progress != Ok(InputProgress::NeedsMoreInput) || session.has_events() {
                    break Some(progress);
                }
            };
            self.drain_events();
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
            clock_due: &mut self.clock_due,
            shared: &self.shared,
            now: self.now,
        };
        (&mut self.session, intake)
    }

    fn acknowledge_unwanted(&mut self) {
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
        if !incoming.is_last_topic(&message) && !incoming.learn_topic(message.topic_bytes()) {
            return;
        }
        let Some(topic) = &incoming.last_topic else {
            return;
        };
        let retain = message.retain().is_yes();
        // A retained message comes because of its very subscription, and has no copies.
        if !retain
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
        let receipt = match message.take_ack_token() {
            Some(token) => self.receipt(token),
            None => None,
        };
        let qos = qos_of(message.qos());
        let duplicate = message.dup() == Dup::Yes;
        let properties = properties_of(message.properties());
        let payload = message.into_payload();
        let mut delivered = Message::new(topic, payload);
        delivered.qos = qos;
        delivered.retain = retain;
        delivered.duplicate = duplicate;
        delivered.properties = properties;
        let mut delivery = Delivery::new(delivered).with_buffer_len(buffer_len);
        delivery.receipt = receipt;
        match &mut self.unclaimed {
            None => self.incoming.deliveries.push(delivery),
            Some(unclaimed) => self.incoming.deliveries.extend(unclaimed.hold(delivery)),
        }
    }
}

impl Intake<'_> {
    fn receipt(&mut self, token: AckToken) -> Option<DeliveryReceipt> {
        let receipts = self.shared.receipts()?;
        let number = self.tokens.insert(token);
        // Core counts how long its subscribers hold receipts back, by our clock.
        self.clock_due.get_or_insert(self.now + CLOCK_TICK);
        Some(DeliveryReceipt::new(receipts, number))
    }
}

impl Incoming {
    #[inline(always)]
    fn is_last_topic(&self, message: &SessionMessage) -> bool {
        match &self.last_topic {
            Some(last) => message.topic_is(last.as_str()),
            None => false,
        }
    }

    /// Makes this the last topic. The session lets none in that is not valid.
    #[inline(never)]
    fn learn_topic(&mut self, topic: &[u8]) -> bool {
        let topic = TopicName::from_bytes(topic).ok();
        let is_valid = topic.is_some();
        self.last_topic = topic;
        is_valid
    }
}
