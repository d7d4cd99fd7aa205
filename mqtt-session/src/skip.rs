//! Messages that cannot be taken: one that is too large, and one that is malformed each time it comes.
//!
//! A broker that keeps a session sends an unacknowledged message again on every connection, and a retained one on every
//! subscribe. A client that only hangs up on it never gets past it.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};

use bytes::{Buf, Bytes};
use mqtt_codec::{DecodeError, PacketId, PacketType, ProtocolError, QoS, ReasonCode};

use crate::config::OversizedInbound;
use crate::error::ConnectionError;
use crate::event::{Event, SkipReason, SkippedMessage};
use crate::inbound::Arrival;
use crate::persist::RecordKey;
use crate::session::Session;

/// How the input goes on after a packet that could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// The packet is gone, or being discarded as it comes.
    Skipped,
    /// More of its beginning is needed.
    NeedsMoreInput,
}

/// Malformed messages that came before, by a hash of their frame, and how often. The oldest is forgotten at
/// [`REMEMBERED`].
#[derive(Debug, Default)]
pub(crate) struct Undecodable(VecDeque<(u64, u8)>);

/// A session with more malformed messages than this on its way at once is not worth saving.
const REMEMBERED: usize = 16;

impl Undecodable {
    /// Counts one more time of this frame. The DUP flag is not part of the message.
    fn strike(&mut self, frame: &[u8]) -> u8 {
        let mut hasher = DefaultHasher::new();
        if let Some((first, rest)) = frame.split_first() {
            hasher.write_u8(first & !DUP);
            hasher.write(rest);
        }
        let hash = hasher.finish();
        if let Some((_, strikes)) = self.0.iter_mut().find(|(known, _)| *known == hash) {
            *strikes = strikes.saturating_add(1);
            return *strikes;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((hash, 1));
        1
    }
}

impl Session {
    /// Gets past a packet that could not be decoded, if it is a message and the rules allow.
    pub(crate) fn recover(
        &mut self,
        error: DecodeError,
        input: &mut Bytes,
    ) -> Result<Recovery, ConnectionError> {
        if !self
            .connection
            .as_ref()
            .is_some_and(|connection| connection.is_connected())
        {
            return Err(ConnectionError::Malformed(error));
        }
        if error == DecodeError::Protocol(ProtocolError::PacketTooLarge) {
            return match self.config.oversized_inbound {
                OversizedInbound::Skip => self.skip_oversized(error, input),
                OversizedInbound::Disconnect => Err(ConnectionError::Malformed(error)),
            };
        }
        self.skip_undecodable(error, input)
    }

    fn skip_oversized(
        &mut self,
        error: DecodeError,
        input: &mut Bytes,
    ) -> Result<Recovery, ConnectionError> {
        let Some(connection) = &mut self.connection else {
            return Ok(Recovery::Skipped);
        };
        let head = loop {
            match PublishHead::parse(&connection.partial) {
                Parsed::Head(head) => break head,
                Parsed::NotAPublish => return Err(ConnectionError::Malformed(error)),
                Parsed::Needs(len) => {
                    let take = len
                        .saturating_sub(connection.partial.len())
                        .min(input.len());
                    if take == 0 {
                        return Ok(Recovery::NeedsMoreInput);
                    }
                    connection.partial.extend_from_slice(&input.split_to(take));
                }
            }
        };
        let start = connection.partial.split();
        connection.discard = head.frame_len.saturating_sub(start.len());
        let reason = SkipReason::TooLarge;
        self.settle_skipped(&head, &start, reason)?;
        Ok(Recovery::Skipped)
    }

    fn skip_undecodable(
        &mut self,
        error: DecodeError,
        input: &mut Bytes,
    ) -> Result<Recovery, ConnectionError> {
        let Some(connection) = &mut self.connection else {
            return Ok(Recovery::Skipped);
        };
        let bytes: &[u8] = if connection.partial.is_empty() {
            input
        } else {
            &connection.partial
        };
        let Parsed::Head(head) = PublishHead::parse(bytes) else {
            return Err(ConnectionError::Malformed(error));
        };
        let Some(frame) = bytes.get(..head.frame_len).map(Bytes::copy_from_slice) else {
            return Err(ConnectionError::Malformed(error));
        };
        if self.undecodable.strike(&frame) < self.config.quarantine_after.get() {
            return Err(ConnectionError::Malformed(error));
        }
        if connection.partial.is_empty() {
            input.advance(head.frame_len);
        } else {
            connection.partial.clear();
        }
        connection.decoder = mqtt_codec::Decoder::new(self.config.version)
            .with_max_packet_size(self.config.maximum_packet_size);
        self.settle_skipped(&head, &frame, SkipReason::Undecodable(error))?;
        Ok(Recovery::Skipped)
    }

    /// Tells the broker that the message need not be sent again, and the application that it is missing.
    fn settle_skipped(
        &mut self,
        head: &PublishHead,
        start: &[u8],
        reason: SkipReason,
    ) -> Result<(), ConnectionError> {
        let answer = if self.is_v5() {
            ReasonCode::ImplementationSpecificError
        } else {
            ReasonCode::Success
        };
        match head.packet_id {
            Some(id) if head.qos == QoS::AtLeastOnce => {
                self.hold(0)?;
                if let Some(connection) = &mut self.connection {
                    let sequence = connection.held_qos1.push(id, 0);
                    connection.held_qos1.decide(sequence, answer);
                }
            }
            Some(id) => {
                if !self.received.contains(id) {
                    self.hold(0)?;
                }
                let Some(connection) = &mut self.connection else {
                    return Ok(());
                };
                match self.received.arrive(id, 0, 0, connection.epoch) {
                    Arrival::New { sequence } => {
                        self.received.decide(id, sequence, answer);
                        self.persister.touch(RecordKey::Received(id));
                        connection.owed_pubrecs.push_back((id, sequence));
                    }
                    // Skipped before: decided on already, so that its answer leaves in its turn.
                    Arrival::Again {
                        sequence,
                        first_on_this_connection,
                    } => {
                        connection.owed_pubrecs.push_back((id, sequence));
                        if first_on_this_connection {
                            self.take_place()?;
                        }
                        return Ok(());
                    }
                    Arrival::Pending => return Ok(()),
                }
            }
            None => {}
        }
        self.counters.messages_skipped += 1;
        let topic = start.get(head.topic.clone()).unwrap_or_default();
        self.events
            .push_back(Event::MessageSkipped(Box::new(SkippedMessage {
                topic: String::from_utf8_lossy(topic).into_owned(),
                packet_len: head.frame_len,
                qos: head.qos,
                reason,
            })));
        Ok(())
    }
}

/// The part of a PUBLISH that can be read although the rest cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PublishHead {
    frame_len: usize,
    qos: QoS,
    packet_id: Option<PacketId>,
    /// Where the topic lies in the frame.
    topic: core::ops::Range<usize>,
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Head(PublishHead),
    /// At least this many bytes from the beginning of the frame; never more than the frame has.
    Needs(usize),
    /// Another packet, or not even this much can be read.
    NotAPublish,
}

impl PublishHead {
    fn parse(bytes: &[u8]) -> Parsed {
        let Some((&first, rest)) = bytes.split_first() else {
            return Parsed::Needs(1);
        };
        if first >> 4 != PacketType::Publish as u8 {
            return Parsed::NotAPublish;
        }
        let Some(qos) = QoS::from_u8(first >> 1 & 0b11) else {
            return Parsed::NotAPublish;
        };
        let mut remaining = 0_usize;
        let mut header = 1;
        loop {
            let Some(&byte) = rest.get(header - 1) else {
                return Parsed::Needs(header + 1);
            };
            remaining |= usize::from(byte & 0x7f) << (7 * (header - 1));
            header += 1;
            if byte & 0x80 == 0 {
                break;
            }
            if header > 4 {
                return Parsed::NotAPublish;
            }
        }
        let id_len = if qos == QoS::AtMostOnce { 0 } else { 2 };
        if remaining < 2 + id_len {
            return Parsed::NotAPublish;
        }
        let Some(topic_len) = two_bytes(bytes, header) else {
            return Parsed::Needs(header + 2);
        };
        let topic = header + 2..header + 2 + usize::from(topic_len);
        if topic.end + id_len > header + remaining {
            return Parsed::NotAPublish;
        }
        if bytes.len() < topic.end + id_len {
            return Parsed::Needs(topic.end + id_len);
        }
        let packet_id = if id_len == 0 {
            None
        } else {
            match two_bytes(bytes, topic.end).and_then(PacketId::new) {
                Some(id) => Some(id),
                None => return Parsed::NotAPublish,
            }
        };
        Parsed::Head(Self {
            frame_len: header + remaining,
            qos,
            packet_id,
            topic,
        })
    }
}

fn two_bytes(bytes: &[u8], at: usize) -> Option<u16> {
    let array = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*array))
}

const DUP: u8 = 1 << 3;

#[cfg(test)]
mod tests {
    use mqtt_codec::{ProtocolVersion, PublishRef, TopicName};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The codec is the oracle.
        #[test]
        fn the_head_of_a_publish_is_read_from_any_beginning_of_it(
            qos in 0..3_u8, id in 1..=u16::MAX, topic in "[a-z/]{1,200}", payload in 0..300_usize, v5 in any::<bool>(),
        ) {
            let version = if v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
            let qos = QoS::from_u8(qos).unwrap();
            let packet_id = PacketId::new(id).filter(|_| qos != QoS::AtMostOnce);
            let payload = vec![0; payload];
            let publish = PublishRef { qos, packet_id, ..PublishRef::new(TopicName::new(&topic).unwrap(), &payload) };
            let mut frame = Vec::new();
            publish.encode(version, &mut frame).unwrap();
            let mut have = 0;
            let head = loop {
                match PublishHead::parse(&frame[..have]) {
                    Parsed::Head(head) => break head,
                    Parsed::Needs(more) => {
                        prop_assert!(more > have && more <= frame.len());
                        have = more;
                    }
                    Parsed::NotAPublish => panic!("it is one"),
                }
            };
            prop_assert_eq!(&frame[head.topic.clone()], topic.as_bytes());
            prop_assert_eq!((head.frame_len, head.qos, head.packet_id), (frame.len(), qos, packet_id));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Parsed::Needs(more) = PublishHead::parse(&bytes) {
                prop_assert!(more > bytes.len());
            }
        }
    }
}
