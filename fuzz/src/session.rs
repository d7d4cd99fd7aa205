//! mqtt-session, driven by the input: with a broker that says anything, and with an honest one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mqtt_codec::{
    AckRef, ConnackRef, Decoder, Packet, PacketId, PacketRef, ProtocolVersion, PublishRef, QoS,
    ReasonCode, ReasonCodes, SubackRef, TopicName,
};
use mqtt_session::{
    AckToken, CleanStart, Config, Event, InputProgress, Message, Publish, PublishId,
    PublishOutcome, Published, Session, Subscription, Timestamp, TransportEnd,
};

use crate::input::Input;

/// A session, what it promised, and what it did.
struct Client {
    session: Session,
    now: Timestamp,
    /// Publishes that were accepted and did not come to their end.
    open: BTreeSet<PublishId>,
    tokens: Vec<AckToken>,
    /// Whether a transport is open, and whether its end was reported.
    transport: Option<Ended>,
    messages: Vec<Bytes>,
    outcomes: BTreeMap<PublishId, PublishOutcome>,
    connects: Decoder,
    unread: BytesMut,
    /// How long the CONNECT of this transport was, and whether it asks for a new session.
    connect: Option<(usize, bool)>,
    is_accepted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    No,
    Reported,
}

impl Client {
    fn new(version: ProtocolVersion, clean: CleanStart) -> Self {
        let mut config = Config::new(version, "fuzz");
        config.clean_start = clean;
        config.session_expiry = Duration::from_secs(3600);
        config.max_queued_messages = 8;
        config.max_outbound_bytes = 4096;
        config.max_pending_events = 8;
        config.max_pending_replies = 16;
        config.max_held_messages = 16;
        config.max_held_bytes = 4096;
        config.maximum_packet_size = 512;
        config.max_pending_operations = 4;
        config.max_subscriptions = 16;
        Self {
            session: Session::new(config).expect("a valid configuration"),
            now: Timestamp::ZERO,
            open: BTreeSet::new(),
            tokens: Vec::new(),
            transport: None,
            messages: Vec::new(),
            outcomes: BTreeMap::new(),
            connects: Decoder::new(version),
            unread: BytesMut::new(),
            connect: None,
            is_accepted: false,
        }
    }

    fn open(&mut self) {
        if self.transport == Some(Ended::Reported) {
            self.close();
        }
        let opened = self.session.transport_opened(self.now);
        assert_eq!(
            opened.is_ok(),
            self.transport.is_none(),
            "one transport at a time"
        );
        if opened.is_ok() {
            self.transport = Some(Ended::No);
            self.connect = None;
            self.is_accepted = false;
            self.connects = Decoder::new(self.session.config().version);
            self.unread.clear();
        }
    }

    fn close(&mut self) {
        self.session
            .transport_closed(TransportEnd::ClosedByPeer, self.now);
        self.events();
        if self.transport.is_some() {
            assert_eq!(
                self.transport,
                Some(Ended::Reported),
                "the end of a connection is an event"
            );
            self.transport = None;
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = Timestamp::from_origin(self.now.since_origin() + time);
        self.session.handle_timeout(self.now);
        self.events();
    }

    fn publish(&mut self, qos: QoS, payload: &[u8]) -> Option<PublishId> {
        let publish = Publish::new("t/1", Bytes::copy_from_slice(payload), qos);
        let id = self.session.publish(publish, self.now).ok()?;
        assert!(self.open.insert(id), "an id is given once");
        Some(id)
    }

    /// Publishes, and takes the packet at once where there is one; where it is the end, there is no identifier.
    fn publish_into(&mut self, qos: QoS, payload: &[u8]) -> (Option<PublishId>, Vec<Packet>) {
        let publish = Publish::new("t/1", Bytes::copy_from_slice(payload), qos);
        let mut out = BytesMut::new();
        let Ok(published) = self.session.publish_into(publish, &mut out, self.now) else {
            assert!(out.is_empty(), "what is refused is not written");
            return (None, Vec::new());
        };
        let (id, is_written) = match published {
            Published::Queued(id) => (Some(id), false),
            Published::InFlight(id) => (Some(id), true),
            Published::Done => (None, true),
        };
        if let Some(id) = id {
            assert!(self.open.insert(id), "an id is given once");
        }
        assert!(
            !is_written || self.transport == Some(Ended::No),
            "not after the end"
        );
        let packets = self.read(&out);
        assert_eq!(
            packets.len(),
            usize::from(is_written),
            "one packet, or none"
        );
        if let Some(Packet::Publish(written)) = packets.first() {
            assert_eq!((written.payload(), written.dup()), (payload, false));
        }
        (id, packets)
    }

    /// Feeds bytes of the broker; an error ends the connection, and the events say so. Every other time messages are handed
    /// on directly, and acknowledgements taken by themselves.
    fn input(&mut self, bytes: &[u8]) {
        let is_direct = bytes.len() % 2 == 1;
        // Of an acknowledgement, the last byte is that of its identifier.
        let is_odd = bytes.last().is_some_and(|last| last % 2 == 1);
        let mut bytes = Bytes::copy_from_slice(bytes);
        if is_direct && let Some(mut plain) = self.session.plain_messages(self.now) {
            match plain.take(bytes) {
                Ok(message) => return self.messages.push(message.payload_bytes()),
                Err(other) => bytes = other,
            }
        }
        loop {
            if is_odd {
                self.plain_acknowledgements(&mut bytes);
            }
            let (before, unread) = (self.messages.len(), bytes.len());
            let progress = if is_direct {
                let (messages, tokens) = (&mut self.messages, &mut self.tokens);
                self.session
                    .handle_input_with(&mut bytes, self.now, &mut |mut message: Message| {
                        messages.push(message.payload_bytes());
                        tokens.extend(message.take_ack_token());
                    })
            } else {
                self.session.handle_input(&mut bytes, self.now)
            };
            let handed_on = self.messages.len() - before;
            match progress {
                Ok(InputProgress::DrainEvents) => {
                    // Repeated messages count as work, too, and leave nothing to drain.
                    let is_progress = self.events() + handed_on > 0 || bytes.len() < unread;
                    assert!(is_progress, "events to drain");
                }
                Ok(InputProgress::NeedsMoreInput) => break,
                Err(_) => {
                    self.events();
                    assert_ne!(
                        self.transport,
                        Some(Ended::No),
                        "an error ends the connection"
                    );
                    break;
                }
            }
        }
        self.events();
    }

    fn plain_acknowledgements(&mut self, bytes: &mut Bytes) {
        let Some(mut plain) = self.session.plain_acknowledgements(self.now) else {
            return;
        };
        while let Some(id) = plain.take(bytes) {
            assert!(self.open.remove(&id), "a publish ends once");
            let outcome = PublishOutcome::Delivered(ReasonCode::Success);
            self.outcomes.insert(id, outcome);
        }
    }

    /// Takes all events and holds them to what they promise.
    fn events(&mut self) -> usize {
        let mut count = 0;
        while let Some(event) = self.session.poll_event() {
            count += 1;
            match event {
                Event::ConnectRefused(_) | Event::Disconnected(_) => {
                    assert_eq!(self.transport, Some(Ended::No), "a connection ends once");
                    self.transport = Some(Ended::Reported);
                }
                Event::Connected(_) => {
                    assert_eq!(self.transport, Some(Ended::No), "not after the end");
                    self.is_accepted = true;
                }
                Event::Message(mut message) => {
                    self.messages.push(message.payload_bytes());
                    self.tokens.extend(message.take_ack_token());
                }
                Event::PublishCompleted { id, outcome } => {
                    assert!(
                        self.open.remove(&id),
                        "a publish ends once, and only if it began"
                    );
                    self.outcomes.insert(id, outcome);
                }
                Event::PublishWritten { id } | Event::PublishReceived { id, .. } => {
                    assert!(
                        self.open.contains(&id),
                        "a publish that has ended does nothing"
                    );
                }
                _ => {}
            }
        }
        assert!(self.session.poll_event().is_none());
        count
    }

    /// Takes bytes for the broker, which must be whole packets that a client may send.
    fn output(&mut self, limit: usize) -> Vec<Packet> {
        let mut out = BytesMut::new();
        let length = self.session.poll_transmit(&mut out, limit, self.now);
        assert_eq!(length, out.len());
        assert!(
            self.transport.is_some() || out.is_empty(),
            "nothing to write to"
        );
        let packets = self.read(&out);
        self.events();
        packets
    }

    fn read(&mut self, out: &[u8]) -> Vec<Packet> {
        self.unread.extend_from_slice(out);
        let mut packets = Vec::new();
        loop {
            let before = self.unread.len();
            let packet = self.connects.decode(&mut self.unread);
            let Some(packet) = packet.expect("a valid packet") else {
                return packets;
            };
            self.check_turn(&packet, before - self.unread.len());
            packets.push(packet);
        }
    }

    /// CONNECT comes first. Before the CONNACK only what no CONNACK can make wrong follows it.
    fn check_turn(&mut self, packet: &Packet, len: usize) {
        let version = self.session.config().version;
        match (packet.as_ref(), self.connect) {
            (PacketRef::Connect(connect), None) => {
                self.connect = Some((len, connect.get().clean_start));
            }
            (PacketRef::Connect(_), Some(_)) => panic!("a second CONNECT"),
            (packet, None) => panic!("{packet:?} before the CONNECT"),
            (_, Some(_)) if self.is_accepted => {}
            (PacketRef::Subscribe(subscribe), Some((connect_len, is_clean))) => {
                assert!(is_clean && version != ProtocolVersion::V31, "{version}");
                let is_declinable = len > connect_len
                    || !subscribe.properties.is_empty()
                    || subscribe
                        .subscriptions
                        .iter()
                        .any(|wanted| wanted.filter.as_str().contains(['+', '#', '$']));
                assert!(version == ProtocolVersion::V311 || !is_declinable);
            }
            (packet, _) => panic!("{packet:?} before the CONNACK"),
        }
    }

    /// What must hold at any time.
    fn check(&self) {
        let stats = self.session.stats();
        let config = self.session.config();
        assert!(
            stats.queued_messages <= config.max_queued_messages,
            "{stats:?}"
        );
        assert!(
            stats.in_flight_messages <= usize::from(config.max_in_flight.get()),
            "{stats:?}"
        );
        let mut max_held = config.max_held_messages;
        if config.version == ProtocolVersion::V5 {
            max_held = max_held.max(config.receive_maximum.get());
        }
        assert!(stats.held_messages <= usize::from(max_held), "{stats:?}");
        assert!(stats.held_bytes <= config.max_held_bytes, "{stats:?}");
        // One more is the session's own.
        let own = usize::from(self.session.is_resubscribing());
        assert!(
            stats.pending_operations <= config.max_pending_operations + own,
            "{stats:?}"
        );
        assert_eq!(
            stats.queued_messages + stats.in_flight_messages,
            self.open.len(),
            "{stats:?}"
        );
        if self.transport == Some(Ended::No) {
            assert!(stats.connection.is_some());
        }
    }
}

/// A broker that says anything: after a CONNACK, or without one, come the input's bytes, between
/// commands, time and broken transports.
pub fn session_bytes(data: &[u8]) {
    let mut input = Input::new(data);
    let version = input.version();
    let clean = if input.flag() {
        CleanStart::Always
    } else {
        CleanStart::Never
    };
    let mut client = Client::new(version, clean);
    for _ in 0..48 {
        match input.u8() % 12 {
            0 => client.open(),
            1 => client.close(),
            2 => client.pass(Duration::from_millis(u64::from(input.u16()))),
            3 => client.input(&connack(version, input.flag())),
            4..=6 => client.input(input.bytes()),
            7 => {
                let qos = input.qos();
                let _ = client.publish_into(qos, input.bytes());
            }
            8 => {
                let qos = input.qos();
                let filter = if qos == QoS::AtMostOnce { "t/1" } else { "t/#" };
                let subscription = Subscription::new(filter, qos);
                let _ = client.session.subscribe(&[subscription], client.now);
            }
            9 => {
                if let Some(token) = client.tokens.pop() {
                    let _ = client.session.acknowledge(token);
                }
            }
            10 => {
                let id = client.open.iter().next().copied();
                if let Some(id) = id.filter(|&id| client.session.cancel_publish(id).is_some()) {
                    client.open.remove(&id);
                }
            }
            _ => {
                let _ = client.output(1 + usize::from(input.u8()) * 8);
            }
        }
        client.events();
        client.check();
    }
}

/// What an honest broker remembers.
struct Broker {
    version: ProtocolVersion,
    has_session: bool,
    /// Payloads that it owns: for QoS 2 exactly once, for QoS 1 at least once.
    received: BTreeMap<Vec<u8>, u32>,
    /// Identifiers of QoS 2 messages whose PUBREL did not come.
    unreleased: BTreeSet<PacketId>,
    /// Its own messages at QoS 2: identifier, payload, whether PUBREC came.
    sent: BTreeMap<PacketId, (Vec<u8>, bool)>,
    completed: u32,
    filters: BTreeSet<String>,
    /// The next CONNECT is refused.
    refuses: bool,
    /// The last one was, and what follows it is not looked at.
    has_refused: bool,
}

impl Broker {
    /// Takes a packet and returns the answer.
    fn take(&mut self, packet: &Packet) -> Vec<u8> {
        let mut answer = BytesMut::new();
        let mut say =
            |packet: PacketRef<'_>| packet.encode(self.version, &mut answer).expect("an answer");
        match packet.as_ref() {
            PacketRef::Connect(_) if self.refuses => {
                self.refuses = false;
                self.has_refused = true;
                say(PacketRef::Connack(ConnackRef::new(
                    ReasonCode::ServerUnavailable,
                )));
            }
            PacketRef::Connect(connect) => {
                self.has_refused = false;
                if connect.get().clean_start {
                    self.filters.clear();
                    self.has_session = false;
                    self.unreleased.clear();
                    self.sent.clear();
                }
                let present = self.has_session && self.version != ProtocolVersion::V31;
                say(PacketRef::Connack(ConnackRef {
                    session_present: present,
                    ..ConnackRef::new(ReasonCode::Success)
                }));
                self.has_session = true;
                for (&id, (payload, is_received)) in &self.sent {
                    if *is_received {
                        say(PacketRef::Pubrel(AckRef::new(id)));
                    } else {
                        say(PacketRef::Publish(message(id, payload, true)));
                    }
                }
            }
            _ if self.has_refused => {}
            PacketRef::Publish(publish) => match publish.packet_id {
                None => {}
                Some(id) if publish.qos == QoS::AtLeastOnce => {
                    *self.received.entry(publish.payload.to_vec()).or_default() += 1;
                    say(PacketRef::Puback(AckRef::new(id)));
                }
                Some(id) => {
                    if self.unreleased.insert(id) {
                        *self.received.entry(publish.payload.to_vec()).or_default() += 1;
                    } else {
                        assert!(
                            publish.dup,
                            "an identifier in use only comes again with DUP"
                        );
                    }
                    say(PacketRef::Pubrec(AckRef::new(id)));
                }
            },
            PacketRef::Pubrel(ack) => {
                self.unreleased.remove(&ack.packet_id);
                say(PacketRef::Pubcomp(AckRef::new(ack.packet_id)));
            }
            PacketRef::Pubrec(ack) => {
                if let Some((_, is_received)) = self.sent.get_mut(&ack.packet_id) {
                    *is_received = true;
                }
                say(PacketRef::Pubrel(AckRef::new(ack.packet_id)));
            }
            PacketRef::Pubcomp(ack) => {
                let (_, is_received) = self
                    .sent
                    .remove(&ack.packet_id)
                    .expect("PUBCOMP of a message sent");
                assert!(is_received, "PUBCOMP before PUBREC");
                self.completed += 1;
            }
            PacketRef::Subscribe(subscribe) => {
                let codes: Vec<ReasonCode> = subscribe
                    .subscriptions
                    .iter()
                    .map(|wanted| {
                        self.filters.insert(wanted.filter.as_str().to_owned());
                        ReasonCode::GrantedQoS2
                    })
                    .collect();
                say(PacketRef::Suback(SubackRef {
                    packet_id: subscribe.packet_id,
                    properties: mqtt_codec::Properties::EMPTY,
                    reason_codes: ReasonCodes::list(&codes),
                }));
            }
            PacketRef::Pingreq => say(PacketRef::Pingresp),
            PacketRef::Disconnect(_) => {}
            other => panic!("a client does not send {other:?}"),
        }
        answer.to_vec()
    }
}

/// An honest broker over a transport that breaks at any byte, both ways.
///
/// When it holds at last, every publish that was accepted has come to its end; those of QoS 2 have
/// arrived exactly once, those of QoS 1 at least once, and the broker's own messages of QoS 2 were
/// reported exactly once; and every filter that was asked for stands, in a session that is kept or made anew, with SUBSCRIBE
/// behind the CONNECT or behind the CONNACK, and CONNECTs refused in between.
pub fn session_ops(data: &[u8]) {
    let mut input = Input::new(data);
    // MQTT 3.1 does not say whether the broker has the session.
    let how = input.u8();
    let version = if how & 1 == 1 {
        ProtocolVersion::V5
    } else {
        ProtocolVersion::V311
    };
    let clean = if how & 2 == 2 {
        CleanStart::Always
    } else {
        CleanStart::Never
    };
    let mut client = Client::new(version, clean);
    let mut broker = Broker {
        version,
        has_session: false,
        received: BTreeMap::new(),
        unreleased: BTreeSet::new(),
        sent: BTreeMap::new(),
        completed: 0,
        filters: BTreeSet::new(),
        refuses: false,
        has_refused: false,
    };
    let mut accepted: BTreeMap<PublishId, (QoS, Vec<u8>)> = BTreeMap::new();
    // What the broker said and the client did not read yet.
    let mut wire: Vec<u8> = Vec::new();
    let mut serial = 0_u16;

    for _ in 0..64 {
        serial += 1;
        match input.u8() % 10 {
            0 => {
                client.open();
            }
            1 => {
                // It breaks with what is under way.
                client.close();
                wire.clear();
            }
            2 => {
                let qos = input.qos();
                let payload = serial.to_be_bytes().to_vec();
                if let Some(id) = client.publish(qos, &payload) {
                    accepted.insert(id, (qos, payload));
                }
            }
            3 => {
                let qos = input.qos();
                let payload = serial.to_be_bytes().to_vec();
                let (id, packets) = client.publish_into(qos, &payload);
                accepted.extend(id.map(|id| (id, (qos, payload))));
                for packet in packets {
                    wire.extend(broker.take(&packet));
                }
            }
            4 => {
                // Packets may be cut short by the limit; whole ones reach the broker.
                for packet in client.output(1 + usize::from(input.u8())) {
                    wire.extend(broker.take(&packet));
                }
            }
            5 => {
                let at = usize::from(input.u8()).min(wire.len());
                let rest = wire.split_off(at);
                client.input(&std::mem::replace(&mut wire, rest));
            }
            6 => {
                let connected = broker.has_session
                    && client.transport == Some(Ended::No)
                    && broker.sent.len() < 8;
                if let Some(id) = PacketId::new(serial).filter(|_| connected) {
                    let payload =
                        [b's', b'0', serial.to_be_bytes()[0], serial.to_be_bytes()[1]].to_vec();
                    let mut bytes = BytesMut::new();
                    PacketRef::Publish(message(id, &payload, false))
                        .encode(version, &mut bytes)
                        .expect("a message");
                    broker.sent.insert(id, (payload, false));
                    // Only behind the CONNACK.
                    if wire.is_empty() && client.session.stats().counters.connections > 0 {
                        wire.extend(bytes);
                    }
                }
            }
            7 => {
                if let Some(token) = client.tokens.pop() {
                    let _ = client.session.acknowledge(token);
                }
            }
            8 => {
                let filter = ["s/1", "t/+", "u/a/long/one/that/no/CONNECT/has/room/for"];
                let filter = filter[usize::from(input.below(3))];
                let wanted = [Subscription::new(filter, QoS::ExactlyOnce)];
                let _ = client.session.subscribe(&wanted, client.now);
            }
            _ => broker.refuses = true,
        }
        if client.transport == Some(Ended::Reported) {
            client.close();
            wire.clear();
        }
        client.check();
    }

    broker.refuses = false;
    settle(&mut client, &mut broker);
    // What was set aside because each cut hit it may stand at the broker; what the session wants must.
    for wanted in client.session.subscriptions() {
        assert!(broker.filters.contains(&*wanted.filter), "{wanted:?}");
    }
    assert_eq!(client.session.stats().pending_operations, 0);
    assert!(client.open.is_empty(), "left open: {:?}", client.open);
    for (id, (qos, payload)) in &accepted {
        let times = broker.received.get(payload).copied().unwrap_or(0);
        match (client.outcomes.get(id), qos) {
            (Some(PublishOutcome::Delivered(_)), QoS::ExactlyOnce) => {
                assert_eq!(times, 1, "{id:?}");
            }
            (Some(PublishOutcome::Delivered(_)), _) => assert!(times >= 1, "{id:?}"),
            // At QoS 2 never more than once, whatever is known.
            (_, QoS::ExactlyOnce) => assert!(times <= 1, "{id:?}"),
            _ => {}
        }
    }
    let mut own: Vec<&Bytes> = client.messages.iter().collect();
    let reported = own.len();
    own.sort();
    own.dedup();
    assert_eq!(own.len(), reported, "a QoS 2 message is reported once");
    assert!(broker.sent.is_empty(), "the broker's exchanges end");
}

/// Connects once more over a transport that holds, and lets both sides say all they have.
fn settle(client: &mut Client, broker: &mut Broker) {
    for _ in 0..8 {
        client.close();
        client.open();
        for _ in 0..256 {
            for token in std::mem::take(&mut client.tokens) {
                let _ = client.session.acknowledge(token);
            }
            let packets = client.output(1 << 16);
            if packets.is_empty() && client.tokens.is_empty() {
                break;
            }
            for packet in packets {
                let answer = broker.take(&packet);
                client.input(&answer);
            }
        }
        let is_subscribed = client.session.stats().pending_operations == 0;
        if is_subscribed && client.open.is_empty() && broker.sent.is_empty() {
            return;
        }
    }
}

fn message(id: PacketId, payload: &[u8], dup: bool) -> PublishRef<'_> {
    PublishRef {
        qos: QoS::ExactlyOnce,
        dup,
        packet_id: Some(id),
        ..PublishRef::new(TopicName::new("s/1").expect("a topic"), payload)
    }
}

fn connack(version: ProtocolVersion, session_present: bool) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let connack = ConnackRef {
        session_present: session_present && version != ProtocolVersion::V31,
        ..ConnackRef::new(ReasonCode::Success)
    };
    PacketRef::Connack(connack)
        .encode(version, &mut bytes)
        .expect("a CONNACK");
    bytes.to_vec()
}
