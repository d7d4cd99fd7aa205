//! A client and a small broker over a link that cuts, delays and dies at any byte, on a virtual clock.
//!
//! MQTT presumes an ordered, lossless stream, so the link never drops or reorders within a connection; it ends it.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use mqtt_codec::{Decoder, Packet, QoS, ReasonCode};
use mqtt_session::{
    AckToken, Config, ConnectionError, DisconnectCause, Event, InputProgress, Message,
    PersistBatch, Persistence, Publish, PublishId, PublishOutcome, Published, RecordKey,
    RecordValue, Session, SessionPresence, SubscribeOutcome, Subscription, Timestamp, TransportEnd,
};

use super::broker::Broker;

/// Bytes under way.
#[derive(Debug, Default)]
struct Link {
    up: BytesMut,
    down: BytesMut,
}

/// Client, link and broker, and a record of all that the application saw.
pub struct Pair {
    pub session: Session,
    pub broker: Broker,
    pub now: Timestamp,
    link: Option<Link>,
    /// Tokens that the application has not used.
    pub tokens: Vec<AckToken>,
    /// What each publish carried, and what became of it.
    pub published: HashMap<PublishId, (Bytes, QoS)>,
    pub outcomes: HashMap<PublishId, PublishOutcome>,
    /// How often each payload was reported.
    pub delivered: BTreeMap<Bytes, u32>,
    /// What the broker promised to deliver, while it keeps the session.
    pub promised: BTreeMap<Bytes, QoS>,
    pub sessions_lost: u32,
    /// The broker lost the session, and the link the CONNACK that said so.
    pub was_fooled: bool,
    pub open_calls: i64,
    /// Transports opened, connections accepted, and ends of either reported, by this process.
    opened: u32,
    accepted: u32,
    ended: u32,
    next_payload: u32,
    /// What a process that starts now would find.
    pub store: BTreeMap<RecordKey, RecordValue>,
    /// Batches that are not stored yet.
    batches: VecDeque<PersistBatch>,
    /// Publishes that were reported as stored.
    stored: BTreeSet<PublishId>,
    /// Publishes that completed in an earlier process.
    past: Vec<(Bytes, QoS, PublishOutcome)>,
    pub crashes: u32,
    /// On which connection each QoS 1 and 2 payload was handed out first.
    handed_out: BTreeMap<Bytes, u32>,
    /// How many bytes have gone up and down so far, over all connections.
    pub bytes_up: usize,
    pub bytes_down: usize,
}

impl Pair {
    pub fn new(config: Config) -> Self {
        Self {
            broker: Broker::new(config.version),
            session: Session::new(config).unwrap(),
            now: Timestamp::ZERO,
            link: None,
            tokens: Vec::new(),
            published: HashMap::new(),
            outcomes: HashMap::new(),
            delivered: BTreeMap::new(),
            promised: BTreeMap::new(),
            sessions_lost: 0,
            was_fooled: false,
            open_calls: 0,
            opened: 0,
            accepted: 0,
            ended: 0,
            next_payload: 0,
            store: BTreeMap::new(),
            batches: VecDeque::new(),
            stored: BTreeSet::new(),
            past: Vec::new(),
            crashes: 0,
            handed_out: BTreeMap::new(),
            bytes_up: 0,
            bytes_down: 0,
        }
    }

    pub fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    pub fn connect(&mut self) {
        if self.link.is_none() {
            self.session.transport_opened(self.now).unwrap();
            assert_eq!(self.opened, self.ended, "each transport has one end");
            self.opened += 1;
            self.broker.accept();
            self.link = Some(Link::default());
        }
    }

    /// The link dies with everything that is under way.
    pub fn die(&mut self, end: TransportEnd) {
        if self.link.take().is_some() {
            self.broker.close();
            self.session.transport_closed(end, self.now);
            self.take_events();
        }
    }

    /// The broker forgets the client. Only sensible while the link is down.
    pub fn lose_session(&mut self) {
        if self.link.is_none() && self.broker.session.is_some() {
            self.broker.forget();
            self.sessions_lost += 1;
        }
    }

    /// The session gives out what has changed.
    pub fn poll_persist(&mut self) {
        self.batches.extend(self.session.poll_persist());
    }

    /// The oldest batch is stored.
    pub fn store_one(&mut self) -> bool {
        let Some(batch) = self.batches.pop_front() else {
            return false;
        };
        for (key, value) in batch.changes {
            match value {
                Some(value) => drop(self.store.insert(key, value)),
                None => drop(self.store.remove(&key)),
            }
        }
        self.session.handle_persisted(batch.sequence);
        self.take_events();
        true
    }

    /// The process dies, and another takes its place.
    pub fn crash(&mut self) {
        self.die(TransportEnd::Failed);
        self.batches.clear();
        self.tokens.clear();
        self.open_calls = 0;
        self.crashes += 1;
        // The dead process may have been told, and not have stored it.
        self.was_fooled |= self.sessions_lost > 0;
        for (id, (payload, qos)) in core::mem::take(&mut self.published) {
            let is_stored = self.store.contains_key(&RecordKey::Message(id));
            if let Some(outcome) = self.outcomes.remove(&id) {
                self.past.push((payload.clone(), qos, outcome));
            } else if !is_stored {
                assert!(
                    !self.stored.contains(&id),
                    "{payload:?} was reported as stored"
                );
            }
            if is_stored {
                self.published.insert(id, (payload, qos));
            }
        }
        self.stored.clear();
        if !self.store.contains_key(&RecordKey::Session) && self.broker.session.is_some() {
            self.sessions_lost += 1;
        }
        let config = self.session.config().clone();
        let records = self.store.clone();
        self.session = Session::restore(config, records, Duration::ZERO, self.now).unwrap();
    }

    fn fresh_payload(&mut self, prefix: &str) -> Bytes {
        self.next_payload += 1;
        Bytes::from(format!("{prefix}{}", self.next_payload))
    }

    pub fn publish(&mut self, qos: QoS) {
        let payload = self.fresh_payload("up");
        let topic = ["a", "b", "c"][self.next_payload as usize % 3];
        let id = self
            .session
            .publish(Publish::new(topic, payload.clone(), qos), self.now)
            .unwrap();
        assert!(
            self.published.insert(id, (payload, qos)).is_none(),
            "a publish id twice"
        );
    }

    /// As [`Self::publish`], written at once where nothing is before it.
    pub fn publish_into(&mut self, qos: QoS) {
        let payload = self.fresh_payload("up");
        let mut out = BytesMut::new();
        let publish = Publish::new("a", payload.clone(), qos);
        let published = self.session.publish_into(publish, &mut out, self.now);
        let (id, is_written) = match published.unwrap() {
            Published::Queued(id) => (id, false),
            Published::InFlight(id) => (id, true),
            Published::Done => {
                assert_eq!(qos, QoS::AtMostOnce);
                // It has no identifier: one that the session will not reach.
                let id = PublishId::from_value(u64::MAX - u64::from(self.next_payload));
                self.outcomes.insert(id, PublishOutcome::Written);
                (id, true)
            }
        };
        assert_eq!(is_written, !out.is_empty());
        self.check_dup(out.clone());
        if let Some(link) = &mut self.link {
            link.up.unsplit(out);
        }
        assert!(self.published.insert(id, (payload, qos)).is_none());
    }

    pub fn broker_publish(&mut self, qos: QoS) {
        let payload = self.fresh_payload("down");
        if self.broker.publish(qos, payload.clone()) {
            self.promised.insert(payload, qos);
        }
        self.collect_broker_output();
    }

    pub fn subscribe(&mut self, filter: &str) {
        if self
            .session
            .subscribe(&[Subscription::new(filter, QoS::ExactlyOnce)], self.now)
            .is_ok()
        {
            self.open_calls += 1;
        }
    }

    pub fn unsubscribe(&mut self, filter: &str) {
        if self.session.unsubscribe(&[filter.into()], self.now).is_ok() {
            self.open_calls += 1;
        }
        self.take_events();
    }

    pub fn acknowledge(&mut self, which: usize) {
        if !self.tokens.is_empty() {
            let token = self.tokens.swap_remove(which % self.tokens.len());
            let _ = self.session.acknowledge(token);
        }
    }

    pub fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.session.handle_timeout(self.now);
        self.take_events();
    }

    /// The client writes, at most about this much.
    pub fn transmit(&mut self, limit: usize) {
        let mut out = BytesMut::new();
        self.session.poll_transmit(&mut out, limit, self.now);
        self.check_dup(out.clone());
        if let Some(link) = &mut self.link {
            link.up.unsplit(out);
        }
        self.take_events();
    }

    //= test MQTT-3.3.1-1
    fn check_dup(&mut self, mut out: BytesMut) {
        let mut decoder = Decoder::new(self.session.config().version);
        while let Some(packet) = decoder.decode(&mut out).expect("whole and valid packets") {
            if let Packet::Publish(publish) = packet
                && publish.qos() != QoS::AtMostOnce
            {
                let payload = Bytes::copy_from_slice(publish.payload());
                let first = *self
                    .handed_out
                    .entry(payload)
                    .or_insert(self.broker.connection);
                // What waited for the store when the link died counts as sent.
                let may_be_staged = self.session.config().persistence == Persistence::On;
                assert!(
                    !publish.dup() || first < self.broker.connection || may_be_staged,
                    "DUP on a first attempt"
                );
            }
        }
    }

    /// Up to this many bytes reach the broker.
    pub fn carry_up(&mut self, bytes: usize) -> usize {
        let Some(link) = &mut self.link else { return 0 };
        let chunk = link.up.split_to(bytes.min(link.up.len()));
        self.bytes_up += chunk.len();
        self.broker.receive(&chunk);
        self.collect_broker_output();
        chunk.len()
    }

    /// Up to this many bytes reach the client.
    pub fn carry_down(&mut self, bytes: usize) -> usize {
        let Some(link) = &mut self.link else { return 0 };
        let mut chunk = link.down.split_to(bytes.min(link.down.len())).freeze();
        let len = chunk.len();
        self.bytes_down += len;
        // Every other time acknowledgements are taken by themselves. The last byte of one is that of its identifier.
        let is_odd = chunk.last().is_some_and(|last| last % 2 == 1);
        loop {
            if is_odd {
                self.take_plain_acknowledgements(&mut chunk);
            }
            let mut messages = Vec::new();
            let progress = self
                .session
                .handle_input_with(&mut chunk, self.now, &mut |message| messages.push(message))
                .expect("a broker that keeps the rules");
            for message in messages {
                self.take_message(message);
            }
            self.take_events();
            if progress == InputProgress::NeedsMoreInput {
                return len;
            }
        }
    }

    fn take_plain_acknowledgements(&mut self, chunk: &mut Bytes) {
        let Some(mut plain) = self.session.plain_acknowledgements(self.now) else {
            return;
        };
        while let Some(id) = plain.take(chunk) {
            assert!(self.published.contains_key(&id));
            let outcome = PublishOutcome::Delivered(ReasonCode::Success);
            let known = self.outcomes.insert(id, outcome);
            assert!(known.is_none(), "{id:?} completed twice");
        }
    }

    /// Carries until nothing is under way and nobody has anything to say.
    pub fn settle(&mut self) {
        loop {
            let before = (self.bytes_up, self.bytes_down);
            self.transmit(100);
            self.poll_persist();
            while self.store_one() {}
            self.transmit(100);
            self.carry_up(usize::MAX);
            self.carry_down(usize::MAX);
            if before == (self.bytes_up, self.bytes_down) {
                break;
            }
        }
    }

    /// As [`Pair::settle`], with an application that acknowledges everything.
    pub fn finish(&mut self) {
        self.connect();
        for _ in 0..10_000 {
            self.settle();
            if self.link.is_none() {
                // A DISCONNECT was still to be written.
                self.connect();
                continue;
            }
            if self.tokens.is_empty() {
                return;
            }
            while !self.tokens.is_empty() {
                self.acknowledge(0);
            }
        }
        panic!("the exchange does not come to rest");
    }

    fn collect_broker_output(&mut self) {
        if let Some(link) = &mut self.link {
            link.down.unsplit(self.broker.output.split());
        }
    }

    fn take_message(&mut self, mut message: Message) {
        let payload = Bytes::copy_from_slice(message.payload());
        *self.delivered.entry(payload).or_default() += 1;
        self.tokens.extend(message.take_ack_token());
    }

    pub fn take_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Message(message) => self.take_message(message),
                Event::Connected(connected) => {
                    self.accepted += 1;
                    assert!(
                        self.ended < self.opened && self.accepted <= self.opened,
                        "not after its end"
                    );
                    self.was_fooled |= self.broker.made_anew_untold
                        && connected.session == SessionPresence::Resumed;
                    self.broker.made_anew_untold = false;
                }
                Event::PublishStored { id } => drop(self.stored.insert(id)),
                Event::PublishCompleted { id, outcome } => {
                    assert!(self.published.contains_key(&id));
                    assert!(
                        self.outcomes.insert(id, outcome).is_none(),
                        "{id:?} completed twice"
                    );
                }
                Event::SubscribeCompleted { results, .. } => {
                    assert!(results.iter().all(|result| matches!(
                        result.outcome,
                        SubscribeOutcome::Granted(_) | SubscribeOutcome::Cancelled
                    )));
                    self.open_calls -= 1;
                }
                Event::UnsubscribeCompleted { .. } => self.open_calls -= 1,
                Event::ConnectRefused(_) => {
                    self.ended += 1;
                    assert_eq!(self.ended, self.opened, "once");
                    self.link = None;
                    self.broker.close();
                }
                Event::Disconnected(disconnected) => {
                    self.ended += 1;
                    assert_eq!(self.ended, self.opened, "once");
                    if let DisconnectCause::Error(error) = disconnected.cause {
                        assert!(
                            matches!(error, ConnectionError::Timeout(_)),
                            "{error:?} with a broker that keeps the rules"
                        );
                    }
                    self.link = None;
                    self.broker.close();
                }
                _ => {}
            }
        }
    }

    /// What must hold once everything has come to rest.
    pub fn check(&self) {
        let completed = self.published.iter().map(|(id, (payload, qos))| {
            let outcome = self
                .outcomes
                .get(id)
                .unwrap_or_else(|| panic!("{payload:?} never completed"));
            (payload, qos, outcome)
        });
        let past = self
            .past
            .iter()
            .map(|(payload, qos, outcome)| (payload, qos, outcome));
        for (payload, qos, outcome) in completed.chain(past) {
            let taken = self.broker.taken.get(payload).copied().unwrap_or(0);
            // Whoever is not told that a session was lost, or forgets it, sends to the next one what the last one took.
            let most = 1 + if self.was_fooled {
                self.sessions_lost
            } else {
                0
            };
            match (qos, outcome) {
                (QoS::AtMostOnce, PublishOutcome::Written) => assert!(taken <= 1),
                (QoS::AtLeastOnce, PublishOutcome::Delivered(_)) => {
                    assert!(taken >= 1, "{payload:?} was not delivered");
                }
                (QoS::ExactlyOnce, PublishOutcome::Delivered(_)) => {
                    assert!((1..=most).contains(&taken), "{payload:?}");
                }
                (QoS::ExactlyOnce, PublishOutcome::Indeterminate(_)) => {
                    assert!(taken <= most, "{payload:?}");
                    assert!(self.sessions_lost > 0);
                }
                (qos, outcome) => panic!("{payload:?} at {qos:?}: {outcome:?}"),
            }
        }
        for (payload, qos) in &self.promised {
            let delivered = self.delivered.get(payload).copied().unwrap_or(0);
            match qos {
                QoS::AtMostOnce => assert!(delivered <= 1),
                QoS::AtLeastOnce => assert!(
                    delivered >= 1 || self.sessions_lost > 0,
                    "{payload:?} was not reported"
                ),
                QoS::ExactlyOnce => {
                    // What the application had not decided on when its process died is reported again.
                    assert!(
                        delivered <= 1 + self.crashes,
                        "{payload:?} reported {delivered} times"
                    );

                    assert!(
                        delivered >= 1 || self.sessions_lost > 0,
                        "{payload:?} was not reported"
                    );
                }
            }
        }
        let stats = self.session.stats();
        assert_eq!((stats.queued_messages, stats.queued_bytes), (0, 0));
        assert_eq!(
            (
                stats.in_flight_messages,
                stats.in_flight_bytes,
                stats.packet_ids_in_use
            ),
            (0, 0, 0)
        );
        assert_eq!((stats.held_bytes, stats.pending_operations), (0, 0));
        // Identifiers of a session that the broker has lost are kept as long as it claims to have it.
        assert!(stats.held_messages == 0 || self.was_fooled);
        assert_eq!(self.open_calls, 0);
        let broker = self.broker.session.as_ref().unwrap();
        assert!(broker.outgoing.is_empty() && broker.unreleased.is_empty());
        let ours: BTreeSet<String> = self
            .session
            .subscriptions()
            .map(|wanted| wanted.filter.to_string())
            .collect();
        // A grant that was not stored is not known to the next process.
        assert!(
            ours == broker.filters || (self.crashes > 0 && ours.is_subset(&broker.filters)),
            "{ours:?}"
        );
    }
}
