//! What must outlive the process: it leaves the session as records, and comes back as records.
//!
//! The session does no I/O. With [`Persistence::On`](crate::Persistence::On) it follows one rule: **no byte leaves before the
//! state that it depends on is stored.** A QoS 2 PUBLISH waits until its packet identifier is stored, a PUBREL until the
//! PUBREC is, a PUBREC until it is stored that the message was taken, a PUBCOMP until that is forgotten again.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use mqtt_codec::{PacketId, QoS, SubscriptionId};

use crate::command::size_of_publish;
use crate::config::{Config, ConfigError, Persistence};
use crate::event::{Event, PublishId};
use crate::job::check_filter;
use crate::outbound::{InFlightEntry, Outgoing, Stage};
use crate::publish::{Publish, is_topic_name};
use crate::session::Session;
use crate::subscribe::Subscription;
use crate::time::Timestamp;

/// The name of a record. A later record of the same name replaces an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RecordKey {
    /// The session as such.
    Session,
    /// The message of a publish that was accepted and is not completed. Written once.
    Message(PublishId),
    /// How far that publish has come. Without one it was never sent.
    Progress(PublishId),
    /// A received QoS 2 message that the application has decided on and the broker has not released.
    Received(PacketId),
    /// A Topic Filter that was granted.
    Subscription(Arc<str>),
}

/// The content of a record. Plain data, for the store to serialise as it likes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordValue {
    /// Of [`RecordKey::Session`].
    Session {
        /// The Client Identifier that the broker assigned, if it did.
        assigned_client_id: Option<String>,
    },
    /// Of [`RecordKey::Message`].
    Message {
        /// The message. Its expiry is what is left of it at the time of the batch.
        publish: Publish,
    },
    /// Of [`RecordKey::Progress`].
    Progress {
        /// Its packet identifier.
        packet_id: PacketId,
        /// Which answer it awaits.
        sent: SentProgress,
    },
    /// Of [`RecordKey::Received`].
    Received {
        /// Tells the message from another one with the same identifier.
        fingerprint: u64,
    },
    /// Of [`RecordKey::Subscription`].
    Subscription {
        /// The filter and its options.
        subscription: Subscription,
        /// Its Subscription Identifier.
        id: Option<SubscriptionId>,
        /// The QoS that was granted.
        granted: QoS,
    },
}

/// How far a publish that was sent has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SentProgress {
    /// The PUBLISH was (or may have been) sent.
    Published,
    /// QoS 2: the broker has it, PUBCOMP is awaited.
    Received,
}

/// Changes to be stored together: all of them or none may be seen after a crash. The default is none, numbered as no batch
/// is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PersistBatch {
    /// Its number, for [`Session::handle_persisted`].
    pub sequence: u64,
    /// What changes. `None` deletes the record, which may not exist.
    pub changes: Vec<(RecordKey, Option<RecordValue>)>,
}

/// Why records cannot be made into a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// The configuration is not valid.
    Config(ConfigError),
    /// A record's content does not belong to its key.
    WrongValue,
    /// A message that could not have been accepted.
    InvalidMessage,
    /// A packet identifier that a publish cannot have, that two have, or whose publish is missing.
    InvalidPacketId,
    /// A Topic Filter that could not have been subscribed to.
    InvalidSubscription,
}

impl core::fmt::Display for RestoreError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Config(_) => "the configuration is not valid",
            Self::WrongValue => "a record's content does not belong to its key",
            Self::InvalidMessage => "a stored message could not have been accepted",
            Self::InvalidPacketId => "a stored packet identifier is not valid or not unique",
            Self::InvalidSubscription => "a stored Topic Filter could not have been subscribed to",
        })
    }
}

impl core::error::Error for RestoreError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            _ => None,
        }
    }
}

/// What has changed and is not stored, and the bytes that wait for it.
#[derive(Debug, Default)]
pub(crate) struct Persister {
    pub(crate) is_on: bool,
    dirty: BTreeSet<RecordKey>,
    /// Of the last batch given out.
    issued: u64,
    /// Of the last batch that is stored.
    stored: u64,
    /// Messages of batches that are not stored yet.
    awaited: BTreeMap<u64, Vec<PublishId>>,
    /// What is reported once the batches up to a number are stored. At most one for each operation under way.
    untold: VecDeque<(u64, Event)>,
    /// Bytes that depend on all batches up to `needs`. At most `poll_transmit`'s limit (at least 64 KiB) and a packet.
    pub(crate) staged: BytesMut,
    /// What is to be reported once these have left.
    pub(crate) held_events: VecDeque<Event>,
    /// Whether some of these have left.
    pub(crate) has_released: bool,
    needs: u64,
    /// The identifier of each publish in flight.
    packet_ids: HashMap<PublishId, PacketId>,
}

impl Persister {
    pub(crate) fn new(persistence: Persistence) -> Self {
        Self {
            is_on: persistence == Persistence::On,
            ..Self::default()
        }
    }

    /// A publish is in flight, or has come further.
    pub(crate) fn touch_progress(&mut self, id: PublishId, packet_id: PacketId) {
        if self.is_on {
            self.packet_ids.insert(id, packet_id);
            self.dirty.insert(RecordKey::Progress(id));
        }
    }

    /// A publish is no more.
    pub(crate) fn touch_completed(&mut self, id: PublishId) {
        if self.is_on {
            self.packet_ids.remove(&id);
            self.dirty.insert(RecordKey::Message(id));
            self.dirty.insert(RecordKey::Progress(id));
        }
    }

    /// Nothing has changed that is not stored.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.stored == self.issued
    }

    pub(crate) fn touch(&mut self, key: RecordKey) {
        if self.is_on {
            self.dirty.insert(key);
        }
    }

    /// What was staged depends on everything that has changed so far.
    pub(crate) fn seal(&mut self) {
        self.needs = self.changed();
    }

    /// The batch that the last change is in, or will be.
    fn changed(&self) -> u64 {
        self.issued + u64::from(!self.dirty.is_empty())
    }

    pub(crate) const fn may_release(&self) -> bool {
        self.stored >= self.needs
    }
}

impl Session {
    /// The session of an earlier process, from the records of its last stored batch. `away` is how long ago that was; it
    /// ages the messages. The records may come in any order.
    ///
    /// Its publishes keep their identifiers, and complete like any other. What the application had received at QoS 2 and not
    /// decided on is reported again; what it had decided on is not.
    ///
    /// # Errors
    ///
    /// If the configuration or a record is not valid.
    pub fn restore(
        config: impl Into<Arc<Config>>,
        records: impl IntoIterator<Item = (RecordKey, RecordValue)>,
        away: Duration,
        now: Timestamp,
    ) -> Result<Self, RestoreError> {
        let mut session = Self::new(config).map_err(RestoreError::Config)?;
        session.now = now;
        let mut messages = BTreeMap::new();
        let mut progress = BTreeMap::new();
        for (key, value) in records {
            match (key, value) {
                (RecordKey::Session, RecordValue::Session { assigned_client_id }) => {
                    session.has_session = true;
                    session.assigned_client_id = assigned_client_id;
                }
                (RecordKey::Message(id), RecordValue::Message { publish }) => {
                    messages.insert(id, publish);
                }
                (RecordKey::Progress(id), RecordValue::Progress { packet_id, sent }) => {
                    progress.insert(id, (packet_id, sent));
                }
                (RecordKey::Received(id), RecordValue::Received { fingerprint }) => {
                    session.received.restore(id, fingerprint);
                }
                (
                    RecordKey::Subscription(filter),
                    RecordValue::Subscription {
                        subscription,
                        id,
                        granted,
                    },
                ) => {
                    if filter != subscription.filter || check_filter(&filter, 0, None).is_err() {
                        return Err(RestoreError::InvalidSubscription);
                    }
                    session.control.restore(subscription, id, granted);
                }
                _ => return Err(RestoreError::WrongValue),
            }
        }
        for (id, publish) in messages {
            let progress = progress.remove(&id);
            session.restore_publish(id, publish, progress, away)?;
        }
        if !progress.is_empty() {
            return Err(RestoreError::InvalidPacketId);
        }
        // Whether the earlier process learnt last that the broker had lost the session is not known.
        session.is_presence_in_doubt = session.has_session;
        Ok(session)
    }

    fn restore_publish(
        &mut self,
        id: PublishId,
        mut publish: Publish,
        progress: Option<(PacketId, SentProgress)>,
        away: Duration,
    ) -> Result<(), RestoreError> {
        let is_valid = is_topic_name(&publish.topic)
            && publish
                .properties
                .as_ref()
                .is_none_or(|properties| properties.is_valid())
            && publish.qos != QoS::AtMostOnce
            // The identifiers of those to come are greater.
            && id.0 < u64::MAX / 2;
        if !is_valid {
            return Err(RestoreError::InvalidMessage);
        }
        self.next_publish = self.next_publish.max(id.0 + 1);
        publish.expiry = publish.expiry.map(|left| left.saturating_sub(away));
        let expires_at = publish.expiry.map(|left| self.now + left);
        let size = size_of_publish(&publish);
        let qos = publish.qos;
        let outgoing = Outgoing {
            id,
            publish,
            expires_at,
            size,
        };
        let Some((packet_id, sent)) = progress else {
            self.waiting.push(outgoing);
            return Ok(());
        };
        let stage = match (qos, sent) {
            (QoS::AtLeastOnce, _) => Stage::Puback,
            (_, SentProgress::Published) => Stage::Pubrec,
            (_, SentProgress::Received) => Stage::Pubcomp,
        };
        let entry = InFlightEntry {
            outgoing,
            stage,
            sent_before: true,
            reported_written: true,
            sent_on: None,
            strikes: 0,
        };
        if !self.in_flight.restore(packet_id, entry) {
            return Err(RestoreError::InvalidPacketId);
        }
        self.persister.packet_ids.insert(id, packet_id);
        if stage == Stage::Pubcomp {
            self.in_flight.received(packet_id);
        }
        Ok(())
    }

    /// The changes since the last batch, if there are any. Store them as one, then call [`Session::handle_persisted`] with
    /// their number; batches may be stored in groups, but in order.
    ///
    /// Ask for it after `poll_transmit`, which makes changes too. `None` always with
    /// [`Persistence::Off`](crate::Persistence::Off).
    #[must_use]
    pub fn poll_persist(&mut self) -> Option<PersistBatch> {
        self.collect_touched();
        if self.persister.dirty.is_empty() {
            return None;
        }
        self.persister.issued += 1;
        let sequence = self.persister.issued;
        let dirty = core::mem::take(&mut self.persister.dirty);
        let changes: Vec<_> = dirty
            .into_iter()
            .map(|key| {
                let value = self.record(&key);
                (key, value)
            })
            .collect();
        let messages = changes.iter().filter_map(|change| match change {
            (RecordKey::Message(id), Some(_)) => Some(*id),
            _ => None,
        });
        self.persister.awaited.insert(sequence, messages.collect());
        Some(PersistBatch { sequence, changes })
    }

    /// Gives up what was put together for a connection that is over. What was to be reported of it still is, as if it had
    /// left; but where nothing has, publishes count as not sent yet.
    pub(crate) fn abandon_staged(&mut self) {
        self.persister.staged.clear();
        while let Some(event) = self.persister.held_events.pop_front() {
            if let Event::PublishWritten { id } = event
                && !self.persister.has_released
            {
                let packet_id = self.persister.packet_ids.get(&id);
                if let Some(entry) = packet_id.and_then(|id| self.in_flight.entry_mut(*id)) {
                    entry.sent_before = false;
                    entry.reported_written = false;
                    entry.sent_on = None;
                }
                continue;
            }
            self.events.push_back(event);
        }
    }

    /// What has been reported since is told once it is stored: who was told that something is subscribed to counts on it, and
    /// the next process would not know for whom the broker has kept messages.
    pub(crate) fn hold_until_stored(&mut self, reported: usize) {
        if !self.persister.is_on {
            return;
        }
        self.collect_touched();
        let needs = self.persister.changed();
        let held = self.events.split_off(reported);
        let untold = held.into_iter().map(|event| (needs, event));
        self.persister.untold.extend(untold);
        self.tell_stored();
    }

    fn tell_stored(&mut self) {
        let stored = self.persister.stored;
        let untold = &mut self.persister.untold;
        while untold.front().is_some_and(|(needs, _)| *needs <= stored) {
            self.events
                .extend(untold.pop_front().map(|(_, event)| event));
        }
    }

    /// What has changed about subscriptions.
    pub(crate) fn collect_touched(&mut self) {
        for filter in self.control.take_touched() {
            self.persister.touch(RecordKey::Subscription(filter));
        }
    }

    /// All batches up to this one are stored: what waited for them may leave, [`Event::PublishStored`] is reported for the
    /// messages in them, and [`Event::SubscribeCompleted`] for the subscriptions. Numbers that were not given out are ignored.
    pub fn handle_persisted(&mut self, sequence: u64) {
        let sequence = sequence.min(self.persister.issued);
        self.persister.stored = self.persister.stored.max(sequence);
        let later = self.persister.awaited.split_off(&(sequence + 1));
        for id in core::mem::replace(&mut self.persister.awaited, later)
            .into_values()
            .flatten()
        {
            self.events.push_back(Event::PublishStored { id });
        }
        self.tell_stored();
    }

    fn in_flight(&self, id: PublishId) -> Option<(PacketId, &InFlightEntry)> {
        let packet_id = *self.persister.packet_ids.get(&id)?;
        Some((packet_id, self.in_flight.entry(packet_id)?))
    }

    /// The present content of a record.
    fn record(&self, key: &RecordKey) -> Option<RecordValue> {
        match key {
            RecordKey::Session => self.has_session.then(|| RecordValue::Session {
                assigned_client_id: self.assigned_client_id.clone(),
            }),
            RecordKey::Message(id) => {
                let in_flight = || Some(&self.in_flight(*id)?.1.outgoing);
                let outgoing = self.waiting.get(*id).or_else(in_flight)?;
                let mut publish = outgoing.publish.clone();
                publish.expiry = outgoing
                    .expires_at
                    .map(|at| at.saturating_duration_since(self.now));
                Some(RecordValue::Message { publish })
            }
            RecordKey::Progress(id) => {
                let (packet_id, entry) = self.in_flight(*id)?;
                let sent = match entry.stage {
                    Stage::Puback | Stage::Pubrec => SentProgress::Published,
                    Stage::Pubcomp => SentProgress::Received,
                };
                Some(RecordValue::Progress { packet_id, sent })
            }
            RecordKey::Received(id) => {
                let fingerprint = self.received.decided_fingerprint(*id)?;
                Some(RecordValue::Received { fingerprint })
            }
            RecordKey::Subscription(filter) => {
                let wanted = self.control.wanted(filter)?;
                Some(RecordValue::Subscription {
                    subscription: wanted.subscription.clone(),
                    id: wanted.id,
                    granted: wanted.granted?,
                })
            }
        }
    }
}
