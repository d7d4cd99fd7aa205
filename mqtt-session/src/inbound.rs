//! Messages on their way in that are not acknowledged yet.

use std::collections::{HashMap, VecDeque};

use mqtt_codec::{PacketId, ReasonCode};

/// QoS 1 messages of one Network Connection, in order of arrival.
///
/// The application may decide in any order; PUBACKs leave in the order of arrival (MQTT-4.6.0-2).
#[derive(Debug, Default)]
pub(crate) struct HeldQoS1 {
    queue: VecDeque<Held>,
    /// The sequence number of the front.
    first: u64,
    undecided_bytes: usize,
}

#[derive(Debug)]
struct Held {
    id: PacketId,
    bytes: usize,
    decision: Option<ReasonCode>,
}

impl HeldQoS1 {
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) const fn undecided_bytes(&self) -> usize {
        self.undecided_bytes
    }

    /// Returns the sequence number by which the message is decided on.
    pub(crate) fn push(&mut self, id: PacketId, bytes: usize) -> u64 {
        self.queue.push_back(Held {
            id,
            bytes,
            decision: None,
        });
        self.undecided_bytes += bytes;
        self.first + (self.queue.len() as u64 - 1)
    }

    /// `false` if there is nothing to decide on.
    pub(crate) fn decide(&mut self, sequence: u64, reason: ReasonCode) -> bool {
        let held = sequence
            .checked_sub(self.first)
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| self.queue.get_mut(at));
        match held {
            Some(held) if held.decision.is_none() => {
                held.decision = Some(reason);
                self.undecided_bytes -= held.bytes;
                true
            }
            _ => false,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next PUBACK that may leave.
    pub(crate) fn pop_decided(&mut self) -> Option<(PacketId, ReasonCode)> {
        let front = self.queue.front()?;
        let answer = (front.id, front.decision?);
        self.queue.pop_front();
        self.first += 1;
        Some(answer)
    }
}

/// The identifiers of QoS 2 messages that were received and not released. Belongs to the Session: it is what makes
/// delivery exactly once across reconnects.
#[derive(Debug, Default)]
pub(crate) struct ReceivedQoS2 {
    by_id: HashMap<PacketId, Received>,
    next_sequence: u64,
    undecided_bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Received {
    sequence: u64,
    bytes: usize,
    /// Of topic and payload.
    fingerprint: u64,
    /// What the application said. `None`: nothing yet, so no PUBREC may leave.
    decision: Option<ReasonCode>,
    /// The Network Connection on which it last arrived, and in whose window it takes a place.
    arrived_on: u32,
    /// Whether a PUBREC for the last arrival is still due.
    answer_due: bool,
}

/// What a QoS 2 PUBLISH turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Seen for the first time.
    New { sequence: u64 },
    /// Seen before, and its PUBREC is due anew.
    Again {
        sequence: u64,
        first_on_this_connection: bool,
    },
    /// Seen before on this connection, and its PUBREC is due already.
    Pending,
}

impl ReceivedQoS2 {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) const fn undecided_bytes(&self) -> usize {
        self.undecided_bytes
    }

    pub(crate) fn contains(&self, id: PacketId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// What was received and decided on in an earlier process.
    pub(crate) fn restore(&mut self, id: PacketId, fingerprint: u64) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let known = Received {
            sequence,
            bytes: 0,
            fingerprint,
            decision: Some(ReasonCode::Success),
            arrived_on: 0,
            answer_due: false,
        };
        self.by_id.insert(id, known);
    }

    /// The fingerprint of a message that was decided on.
    pub(crate) fn decided_fingerprint(&self, id: PacketId) -> Option<u64> {
        let known = self.by_id.get(&id)?;
        known.decision.map(|_| known.fingerprint)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = PacketId> {
        self.by_id.keys().copied()
    }

    /// Whether this identifier is known, but as another message's.
    pub(crate) fn is_other_message(&self, id: PacketId, fingerprint: u64) -> bool {
        self.by_id
            .get(&id)
            .is_some_and(|known| known.fingerprint != fingerprint)
    }

    /// Told by identifier and state alone; the DUP flag says nothing about what was received (MQTT-4.3.3-10).
    pub(crate) fn arrive(
        &mut self,
        id: PacketId,
        bytes: usize,
        fingerprint: u64,
        connection: u32,
    ) -> Arrival {
        if let Some(known) = self.by_id.get_mut(&id) {
            let first_on_this_connection = known.arrived_on != connection;
            if known.answer_due && !first_on_this_connection {
                return Arrival::Pending;
            }
            known.arrived_on = connection;
            known.answer_due = true;
            return Arrival::Again {
                sequence: known.sequence,
                first_on_this_connection,
            };
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.by_id.insert(
            id,
            Received {
                sequence,
                bytes,
                fingerprint,
                decision: None,
                arrived_on: connection,
                answer_due: true,
            },
        );
        self.undecided_bytes += bytes;
        Arrival::New { sequence }
    }

    /// `false` if there is nothing to decide on.
    pub(crate) fn decide(&mut self, id: PacketId, sequence: u64, reason: ReasonCode) -> bool {
        match self.by_id.get_mut(&id) {
            Some(known) if known.sequence == sequence && known.decision.is_none() => {
                known.decision = Some(reason);
                self.undecided_bytes -= known.bytes;
                true
            }
            _ => false,
        }
    }

    /// What there is to say about an arrival: `Err` if it has been released meanwhile, `Ok(None)` if the application has not
    /// decided.
    pub(crate) fn answer(
        &mut self,
        id: PacketId,
        sequence: u64,
    ) -> Result<Option<ReasonCode>, Released> {
        match self.by_id.get_mut(&id) {
            Some(known) if known.sequence == sequence => {
                if known.decision.is_some() {
                    known.answer_due = false;
                }
                Ok(known.decision)
            }
            _ => Err(Released),
        }
    }

    /// Forgets an identifier: its PUBREL came, or it was refused. Says whether it took a place in `connection`'s window.
    pub(crate) fn release(&mut self, id: PacketId, connection: u32) -> Option<InWindow> {
        let known = self.by_id.remove(&id)?;
        if known.decision.is_none() {
            self.undecided_bytes -= known.bytes;
        }
        Some(if known.arrived_on == connection {
            InWindow::Yes
        } else {
            InWindow::No
        })
    }

    /// Forgets everything: the session is gone.
    pub(crate) fn clear(&mut self) {
        self.by_id.clear();
        self.undecided_bytes = 0;
    }
}

/// The message was released before it was decided on.
#[derive(Debug)]
pub(crate) struct Released;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InWindow {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u16) -> PacketId {
        PacketId::new(number).unwrap()
    }

    #[test]
    fn decisions_out_of_order_leave_in_order() {
        let mut held = HeldQoS1::default();
        let sequences: Vec<_> = (1..=3).map(|number| held.push(id(number), 10)).collect();
        assert!(held.decide(sequences[2], ReasonCode::Success));
        assert!(held.decide(sequences[1], ReasonCode::NotAuthorized));
        assert_eq!(held.pop_decided(), None);
        assert_eq!(held.undecided_bytes(), 10);
        assert!(held.decide(sequences[0], ReasonCode::Success));
        assert!(!held.decide(sequences[0], ReasonCode::Success), "twice");
        let order: Vec<_> = core::iter::from_fn(|| held.pop_decided()).collect();
        assert_eq!(
            order,
            [
                (id(1), ReasonCode::Success),
                (id(2), ReasonCode::NotAuthorized),
                (id(3), ReasonCode::Success)
            ]
        );
        assert!(!held.decide(sequences[0], ReasonCode::Success), "gone");
        assert_eq!(held.undecided_bytes(), 0);
        assert_eq!(held.push(id(9), 1), 3);
    }

    #[test]
    fn an_identifier_stays_known_from_arrival_to_release() {
        let mut received = ReceivedQoS2::default();
        assert_eq!(
            received.arrive(id(1), 10, 0, 1),
            Arrival::New { sequence: 0 }
        );
        assert_eq!(received.arrive(id(1), 10, 0, 1), Arrival::Pending);
        assert!(matches!(received.answer(id(1), 0), Ok(None)));
        // The connection is lost, the broker sends it again: no second event, but an answer is due there too.
        assert_eq!(
            received.arrive(id(1), 10, 0, 2),
            Arrival::Again {
                sequence: 0,
                first_on_this_connection: true
            }
        );
        assert!(received.decide(id(1), 0, ReasonCode::Success));
        assert!(!received.decide(id(1), 0, ReasonCode::Success), "twice");
        assert!(matches!(
            received.answer(id(1), 0),
            Ok(Some(ReasonCode::Success))
        ));
        assert_eq!(
            received.arrive(id(1), 10, 0, 2),
            Arrival::Again {
                sequence: 0,
                first_on_this_connection: false
            }
        );
        assert_eq!(received.release(id(1), 2), Some(InWindow::Yes));
        assert_eq!(received.release(id(1), 2), None);
        assert_eq!(received.undecided_bytes(), 0);
        assert_eq!(
            received.arrive(id(1), 10, 0, 2),
            Arrival::New { sequence: 1 }
        );
        assert!(
            !received.decide(id(1), 0, ReasonCode::Success),
            "a token of the message that had this identifier before"
        );
    }
}
