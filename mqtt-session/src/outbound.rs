//! Publishes on their way out: those that wait, and those in flight. All of it belongs to the Session.

use core::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use bytes::Bytes;
use mqtt_codec::{PacketId, QoS, SharedTopicName};

use crate::encode::{Content, name_of};
use crate::event::PublishId;
use crate::packet_id::PublishIds;
use crate::publish::Publish;
use crate::time::Timestamp;

/// A publish that was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) id: PublishId,
    pub(crate) publish: Publish,
    pub(crate) expires_at: Option<Timestamp>,
    /// What it counts for against `max_outbound_bytes`.
    pub(crate) size: usize,
}

impl Outgoing {
    pub(crate) fn content<'a>(&'a self, checked: Option<&'a SharedTopicName>) -> Content<'a> {
        Content {
            publish: &self.publish,
            name: name_of(checked, &self.publish.topic),
            expires_at: self.expires_at,
            size: self.size,
        }
    }
}

/// Publishes that were never sent, in order of acceptance.
///
/// Two queues, because QoS 0 may not wait for the window that QoS 1 and 2 wait for (MQTT-3.3.4-8). While the window is
/// open the older head goes first, so that the caller's order is kept.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    qos0: VecDeque<Outgoing>,
    qos12: VecDeque<Outgoing>,
    bytes: usize,
    /// Which of those with an expiry is due first. Entries of messages that are gone are dropped when they surface, and
    /// all at once when they are the majority.
    expiries: BinaryHeap<Reverse<(Timestamp, PublishId)>>,
}

impl Waiting {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.qos0.len() + self.qos12.len()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, outgoing: Outgoing) {
        self.bytes += outgoing.size;
        if let Some(at) = outgoing.expires_at {
            if self.expiries.len() > 2 * self.len() + 16 {
                let alive: BinaryHeap<_> = self
                    .expiries
                    .drain()
                    .filter(|Reverse((_, id))| {
                        find(&self.qos0, *id)
                            .or_else(|| find(&self.qos12, *id))
                            .is_some()
                    })
                    .collect();
                self.expiries = alive;
            }
            self.expiries.push(Reverse((at, outgoing.id)));
        }
        self.queue_mut(outgoing.publish.qos).push_back(outgoing);
    }

    /// The next to send. With the window shut only QoS 0 is eligible.
    pub(crate) fn peek(&self, window: Window) -> Option<&Outgoing> {
        match (self.qos0.front(), self.qos12.front()) {
            (Some(zero), Some(other)) if window == Window::Open && other.id < zero.id => {
                Some(other)
            }
            (None, other) if window == Window::Open => other,
            (zero, _) => zero,
        }
    }

    /// The QoS of the next publish that will be acknowledged.
    pub(crate) fn next_acknowledged(&self) -> Option<QoS> {
        Some(self.qos12.front()?.publish.qos)
    }

    pub(crate) fn pop(&mut self, window: Window) -> Option<Outgoing> {
        let qos = self.peek(window)?.publish.qos;
        let outgoing = self.queue_mut(qos).pop_front()?;
        self.bytes -= outgoing.size;
        Some(outgoing)
    }

    pub(crate) fn get(&self, id: PublishId) -> Option<&Outgoing> {
        let queues = [&self.qos0, &self.qos12];
        queues
            .into_iter()
            .find_map(|queue| queue.get(find(queue, id)?))
    }

    pub(crate) fn remove(&mut self, id: PublishId) -> Option<Outgoing> {
        let outgoing = match find(&self.qos0, id) {
            Some(at) => self.qos0.remove(at),
            None => find(&self.qos12, id).and_then(|at| self.qos12.remove(at)),
        }?;
        self.bytes -= outgoing.size;
        Some(outgoing)
    }

    /// When the next one expires. May be early by one that is gone already.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes out one message whose time has come.
    pub(crate) fn pop_expired(&mut self, now: Timestamp) -> Option<Outgoing> {
        while let Some(Reverse((at, id))) = self.expiries.peek().copied() {
            if at > now {
                return None;
            }
            self.expiries.pop();
            if let Some(outgoing) = self.remove(id) {
                return Some(outgoing);
            }
        }
        None
    }

    fn queue_mut(&mut self, qos: QoS) -> &mut VecDeque<Outgoing> {
        if qos == QoS::AtMostOnce {
            &mut self.qos0
        } else {
            &mut self.qos12
        }
    }
}

/// Whether a QoS 1 or 2 publish may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    Open,
    Shut,
}

/// Ids grow along a queue.
fn find(queue: &VecDeque<Outgoing>, id: PublishId) -> Option<usize> {
    queue.binary_search_by_key(&id, |outgoing| outgoing.id).ok()
}

/// How far a QoS 1 or 2 publish has come: which packet it awaits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// QoS 1: PUBACK is awaited.
    Puback,
    /// QoS 2: PUBREC is awaited.
    Pubrec,
    /// QoS 2: the broker has it; PUBREL was or will be sent, PUBCOMP is awaited.
    Pubcomp,
}

/// A publish in flight.
#[derive(Debug, Clone)]
pub(crate) struct InFlightEntry {
    pub(crate) outgoing: Outgoing,
    pub(crate) stage: Stage,
    /// Sent in this Session before: a repetition carries DUP.
    pub(crate) sent_before: bool,
    /// Handed out before in any Session: [`crate::Event::PublishWritten`] was reported.
    pub(crate) reported_written: bool,
    /// The Network Connection on which it was last sent, and whose window it takes a place in.
    pub(crate) sent_on: Option<u32>,
    /// Consecutive hang-ups of the broker with this in flight.
    pub(crate) strikes: u8,
}

impl InFlightEntry {
    /// One that was never sent.
    #[inline(always)]
    pub(crate) fn new(outgoing: Outgoing, stage: Stage) -> Self {
        Self {
            outgoing,
            stage,
            sent_before: false,
            reported_written: false,
            sent_on: None,
            strikes: 0,
        }
    }

    /// Whether the broker hung up the last time that it had this, and may do so again.
    pub(crate) fn is_suspect(&self) -> bool {
        self.strikes > 0 && self.stage != Stage::Pubcomp
    }
}

/// Publishes in flight, in the order in which they were first sent.
///
/// A table indexed by packet identifier with the order as a linked list through it: every step is O(1), and the table is
/// as long as the most that was ever in flight at once (see [`PublishIds`]).
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    ids: PublishIds,
    /// Not in flight, and not to be used again either.
    retired: Vec<PacketId>,
    /// Slot `n` is identifier `n + 1`.
    slots: Vec<Slot>,
    first: Link,
    last: Link,
    len: usize,
    bytes: usize,
    /// Empty places for entries to come, at most [`SPARE_PLACES`].
    spare: Vec<Place>,
}

/// Where an entry lies: a window that is full again and again need not allocate each time.
type Place = Box<Option<InFlightEntry>>;

/// How many empty places are kept: some 20 KiB, for a session that has had so many in flight at once.
const SPARE_PLACES: usize = 128;

/// A packet identifier, or zero for none.
type Link = u16;

#[derive(Debug, Default)]
struct Slot {
    place: Option<Place>,
    before: Link,
    after: Link,
}

impl InFlight {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts a new entry at the end. An error gives it back: every identifier is in use.
    pub(crate) fn push(&mut self, entry: InFlightEntry) -> Result<PacketId, Box<InFlightEntry>> {
        let Some(id) = self.take_id() else {
            return Err(Box::new(entry));
        };
        self.put_last(id, entry);
        Ok(id)
    }

    /// An identifier for an entry that is [put in place](Self::put_last) next. `None`: every one is in use.
    //= MQTT-2.2.1-3
    //= MQTT-4.3.2-1
    //= MQTT-4.3.3-1
    //= v3.1.1 MQTT-2.3.1-2
    #[inline]
    pub(crate) fn take_id(&mut self) -> Option<PacketId> {
        self.ids.take()
    }

    //= MQTT-4.6.0-1
    //= v3.1.1 MQTT-4.6.0-1
    /// Puts an entry of an earlier process at the end. `false` if its identifier is taken, or not a publish's.
    pub(crate) fn restore(&mut self, id: PacketId, entry: InFlightEntry) -> bool {
        if !self.ids.reserve(id) {
            return false;
        }
        self.put_last(id, entry);
        true
    }

    /// Puts an entry at the end, under an identifier that was taken for it.
    // A part of its callers, so that the entry is put together where it stays.
    #[inline(always)]
    pub(crate) fn put_last(&mut self, id: PacketId, entry: InFlightEntry) {
        self.bytes += entry.outgoing.size;
        let mut place = self.spare.pop().unwrap_or_default();
        *place = Some(entry);
        self.link_last(id, place);
    }

    fn link_last(&mut self, id: PacketId, place: Place) {
        let index = slot_of(id.value());
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        self.len += 1;
        let before = self.last;
        self.slots[index] = Slot {
            place: Some(place),
            before,
            after: 0,
        };
        match before {
            0 => self.first = id.value(),
            before => self.slots[slot_of(before)].after = id.value(),
        }
        self.last = id.value();
    }

    pub(crate) fn entry(&self, id: PacketId) -> Option<&InFlightEntry> {
        let slot = self.slots.get(slot_of(id.value()))?;
        slot.place.as_deref()?.as_ref()
    }

    pub(crate) fn entry_mut(&mut self, id: PacketId) -> Option<&mut InFlightEntry> {
        let slot = self.slots.get_mut(slot_of(id.value()))?;
        slot.place.as_deref_mut()?.as_mut()
    }

    /// Takes an entry out and frees its identifier.
    pub(crate) fn remove(&mut self, id: PacketId) -> Option<InFlightEntry> {
        let entry = self.take_out(id)?;
        self.ids.free(id);
        Some(entry)
    }

    /// Takes out a QoS 2 message that the broker may have, and that will not be brought to its end. Under its identifier the
    /// broker would take another message for this one, confirm it, and throw it away: so that is not used again in this
    /// session. Each costs connections, so identifiers do not run out.
    pub(crate) fn retire(&mut self, id: PacketId) {
        if self.take_out(id).is_some() {
            self.retired.push(id);
        }
    }

    /// The broker has forgotten what it had.
    pub(crate) fn free_retired(&mut self) {
        for id in self.retired.drain(..) {
            self.ids.free(id);
        }
    }

    fn take_out(&mut self, id: PacketId) -> Option<InFlightEntry> {
        let slot = self.slots.get_mut(slot_of(id.value()))?;
        let mut place = slot.place.take()?;
        let entry = place.take()?;
        let links = (slot.before, slot.after);
        self.unlink(links, entry.outgoing.size);
        self.keep_place(place);
        Some(entry)
    }

    /// Ends what awaits this packet on this connection, and frees its identifier. `None`: nothing that does so has it, or there is
    /// more to be seen to; nothing has changed.
    #[inline]
    pub(crate) fn end(&mut self, id: PacketId, awaits: Stage, epoch: u32) -> Option<PublishId> {
        let slot = self.slots.get_mut(slot_of(id.value()))?;
        let entry = slot.place.as_deref()?.as_ref()?;
        if entry.stage != awaits || entry.sent_on != Some(epoch) || entry.is_suspect() {
            return None;
        }
        let (publish, size) = (entry.outgoing.id, entry.outgoing.size);
        let links = (slot.before, slot.after);
        let mut place = slot.place.take()?;
        // Dropped where it is.
        *place = None;
        self.unlink(links, size);
        self.keep_place(place);
        self.ids.free(id);
        Some(publish)
    }

    #[inline]
    fn unlink(&mut self, (before, after): (Link, Link), size: usize) {
        match before {
            0 => self.first = after,
            before => self.slots[slot_of(before)].after = after,
        }
        match after {
            0 => self.last = before,
            after => self.slots[slot_of(after)].before = before,
        }
        self.len -= 1;
        self.bytes -= size;
    }

    #[inline]
    fn keep_place(&mut self, place: Place) {
        if self.spare.len() < SPARE_PLACES {
            self.spare.push(place);
        }
    }

    /// The broker has the message: only its identifier must be remembered, the payload is let go.
    pub(crate) fn received(&mut self, id: PacketId) {
        let Some(entry) = self.entry_mut(id) else {
            return;
        };
        entry.stage = Stage::Pubcomp;
        let size = core::mem::take(&mut entry.outgoing.size);
        entry.outgoing.publish.payload = Bytes::new();
        entry.outgoing.publish.properties = None;
        self.bytes -= size;
    }

    pub(crate) fn first(&self) -> Option<PacketId> {
        PacketId::new(self.first)
    }

    pub(crate) fn after(&self, id: PacketId) -> Option<PacketId> {
        PacketId::new(self.slots.get(slot_of(id.value()))?.after)
    }

    /// Every identifier in flight, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PacketId, &InFlightEntry)> {
        core::iter::successors(self.first(), |id| self.after(*id))
            .filter_map(|id| Some((id, self.entry(id)?)))
    }

    pub(crate) fn ids(&self) -> Vec<PacketId> {
        self.iter().map(|(id, _)| id).collect()
    }

    pub(crate) fn ids_in_use(&self) -> usize {
        self.ids.in_use() - self.retired.len()
    }
}

/// A [`Link`] is never zero where this is called.
fn slot_of(id: u16) -> usize {
    usize::from(id).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn outgoing(id: u64, qos: QoS) -> Outgoing {
        Outgoing {
            id: PublishId(id),
            publish: Publish::new("t", "payload", qos),
            expires_at: None,
            size: 8,
        }
    }

    fn entry(id: u64) -> InFlightEntry {
        InFlightEntry::new(outgoing(id, QoS::AtLeastOnce), Stage::Puback)
    }

    #[test]
    fn a_shut_window_holds_back_qos_1_but_not_qos_0() {
        let mut waiting = Waiting::default();
        for (id, qos) in [
            (1, QoS::AtLeastOnce),
            (2, QoS::AtMostOnce),
            (3, QoS::ExactlyOnce),
            (4, QoS::AtMostOnce),
        ] {
            waiting.push(outgoing(id, qos));
        }
        assert_eq!(waiting.pop(Window::Shut).unwrap().id, PublishId(2));
        assert_eq!(
            waiting.pop(Window::Open).unwrap().id,
            PublishId(1),
            "the caller's order while the window is open"
        );
        assert_eq!(waiting.pop(Window::Open).unwrap().id, PublishId(3));
        assert_eq!(waiting.pop(Window::Open).unwrap().id, PublishId(4));
        assert!(waiting.pop(Window::Open).is_none());
        assert_eq!(waiting.bytes(), 0);
    }

    #[test]
    fn stale_expiries_do_not_pile_up() {
        let mut waiting = Waiting::default();
        for id in 0..10_000 {
            let mut message = outgoing(id, QoS::AtMostOnce);
            message.expires_at = Some(Timestamp::from_origin(Duration::from_secs(id)));
            waiting.push(message);
            waiting.pop(Window::Open).unwrap();
        }
        assert!(waiting.expiries.len() < 64, "{}", waiting.expiries.len());
        assert!(
            waiting
                .pop_expired(Timestamp::from_origin(Duration::MAX))
                .is_none()
        );
    }

    #[test]
    fn order_survives_removal_anywhere() {
        let mut in_flight = InFlight::default();
        let ids: Vec<_> = (0..5)
            .map(|number| in_flight.push(entry(number)).unwrap())
            .collect();
        for gone in [0, 2, 4] {
            assert_eq!(
                in_flight.remove(ids[gone]).unwrap().outgoing.id,
                PublishId(gone as u64)
            );
            assert!(in_flight.remove(ids[gone]).is_none(), "twice");
        }
        let order: Vec<_> = in_flight
            .iter()
            .map(|(_, entry)| entry.outgoing.id.0)
            .collect();
        assert_eq!(order, [1, 3]);
        let id = in_flight.push(entry(9)).unwrap();
        assert_eq!(in_flight.after(ids[3]), Some(id));
        assert_eq!(
            (in_flight.len(), in_flight.bytes(), in_flight.ids_in_use()),
            (3, 24, 3)
        );
    }

    #[test]
    fn a_wide_window_leaves_few_places_behind() {
        let mut in_flight = InFlight::default();
        let ids: Vec<_> = (0..1_000)
            .map(|number| in_flight.push(entry(number)).unwrap())
            .collect();
        for id in ids {
            in_flight.remove(id).unwrap();
        }
        assert_eq!(in_flight.spare.len(), SPARE_PLACES);
        assert!(in_flight.spare.iter().all(|place| place.is_none()));
        for number in 0..1_000 {
            let id = in_flight.push(entry(number)).unwrap();
            assert_eq!(in_flight.entry(id).unwrap().outgoing.id, PublishId(number));
        }
        assert!(in_flight.spare.is_empty());
    }

    #[test]
    fn a_message_that_the_broker_has_keeps_only_its_identifier() {
        let mut in_flight = InFlight::default();
        let id = in_flight.push(entry(1)).unwrap();
        in_flight.received(id);
        assert_eq!(in_flight.bytes(), 0);
        assert!(
            in_flight
                .entry(id)
                .unwrap()
                .outgoing
                .publish
                .payload
                .is_empty()
        );
    }
}
