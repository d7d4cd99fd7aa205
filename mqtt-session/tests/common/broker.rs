//! A small broker for one client.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use mqtt_codec::{
    AckRef, ConnackRef, Decoder, Packet, PacketId, PacketRef, Properties, Property,
    ProtocolVersion, PublishRef, QoS, ReasonCode, ReasonCodes, SubackRef, TopicName,
};

/// What the broker remembers of the client between connections.
#[derive(Debug, Default)]
pub struct BrokerSession {
    pub filters: BTreeSet<String>,
    /// QoS 2 identifiers received and not released, with what they stand for.
    pub(super) unreleased: HashMap<PacketId, Bytes>,
    pub(super) outgoing: VecDeque<Outgoing>,
    next_id: u16,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    id: PacketId,
    qos: QoS,
    payload: Bytes,
    released: bool,
    sent_on: u32,
}

/// A broker for one client, as the specification has it and no cleverer.
#[derive(Debug)]
pub struct Broker {
    version: ProtocolVersion,
    pub session: Option<BrokerSession>,
    /// Every message that the broker took charge of, and how often.
    pub taken: BTreeMap<Bytes, u32>,
    pub receive_maximum: u16,
    pub(super) connection: u32,
    connected: bool,
    decoder: Decoder,
    input: BytesMut,
    pub(super) output: BytesMut,
    /// Payloads of QoS 1 and 2 publishes seen on earlier connections of this session; they must come with DUP.
    seen_before: BTreeSet<Bytes>,
    seen_now: BTreeSet<Bytes>,
    unanswered: u32,
    /// A session that the client asked to resume was made anew, and the client has not been told yet.
    pub(super) made_anew_untold: bool,
    /// The session ends with the connection.
    is_clean_session: bool,
    /// The client's Receive Maximum.
    window: usize,
    /// So many CONNECTs to come are refused.
    pub refusals: u32,
    /// This connection was: nothing on it is looked at any more.
    is_refused: bool,
}

impl Broker {
    pub(super) fn new(version: ProtocolVersion) -> Self {
        Self {
            version,
            session: None,
            taken: BTreeMap::new(),
            receive_maximum: 3,
            connection: 0,
            connected: false,
            decoder: Decoder::new(version),
            input: BytesMut::new(),
            output: BytesMut::new(),
            seen_before: BTreeSet::new(),
            seen_now: BTreeSet::new(),
            unanswered: 0,
            made_anew_untold: false,
            is_clean_session: false,
            window: usize::MAX,
            refusals: 0,
            is_refused: false,
        }
    }

    pub(super) fn accept(&mut self) {
        self.connection += 1;
        self.is_refused = false;
        self.close();
        self.decoder = Decoder::new(self.version);
        self.input.clear();
        self.output.clear();
        let now = core::mem::take(&mut self.seen_now);
        self.seen_before.extend(now);
        self.unanswered = 0;
    }

    pub(super) fn close(&mut self) {
        self.connected = false;
        if self.is_clean_session {
            self.is_clean_session = false;
            self.forget();
        }
    }

    pub(super) fn forget(&mut self) {
        self.session = None;
        self.seen_before.clear();
        self.seen_now.clear();
    }

    /// A message for the client, if it is subscribed. Returns whether it will be sent.
    pub(super) fn publish(&mut self, qos: QoS, payload: Bytes) -> bool {
        let Some(session) = &mut self.session else {
            return false;
        };
        if session.filters.is_empty() {
            return false;
        }
        if qos == QoS::AtMostOnce {
            if !self.connected {
                return false;
            }
            let publish = PublishRef::new(TopicName::new("down").unwrap(), &payload);
            publish.encode(self.version, &mut self.output).unwrap();
            return true;
        }
        let id = loop {
            session.next_id = session.next_id.wrapping_add(1);
            if let Some(id) = PacketId::new(session.next_id)
                && session.outgoing.iter().all(|out| out.id != id)
            {
                break id;
            }
        };
        session.outgoing.push_back(Outgoing {
            id,
            qos,
            payload,
            released: false,
            sent_on: 0,
        });
        self.send_outgoing();
        true
    }

    fn send_outgoing(&mut self) {
        if !self.connected {
            return;
        }
        let Some(session) = &mut self.session else {
            return;
        };
        let open = session
            .outgoing
            .iter()
            .filter(|out| out.sent_on == self.connection)
            .count();
        let mut room = self.window.saturating_sub(open);
        for out in &mut session.outgoing {
            if out.sent_on == self.connection {
                continue;
            }
            if room == 0 {
                break;
            }
            room -= 1;
            let dup = out.sent_on != 0;
            out.sent_on = self.connection;
            let packet = if out.released {
                PacketRef::Pubrel(AckRef::new(out.id))
            } else {
                PacketRef::Publish(PublishRef {
                    dup,
                    qos: out.qos,
                    packet_id: Some(out.id),
                    ..PublishRef::new(TopicName::new("down").unwrap(), &out.payload)
                })
            };
            packet.encode(self.version, &mut self.output).unwrap();
        }
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while !self.is_refused
            && let Some(packet) = self
                .decoder
                .decode(&mut self.input)
                .expect("the client sends valid packets")
        {
            self.handle(packet);
        }
        self.send_outgoing();
    }

    fn handle(&mut self, packet: Packet) {
        let version = self.version;
        if let Packet::Connect(connect) = &packet {
            assert!(!self.connected, "a second CONNECT");
            if self.refusals > 0 {
                self.refusals -= 1;
                self.is_refused = true;
                return PacketRef::Connack(ConnackRef::new(ReasonCode::ServerUnavailable))
                    .encode(version, &mut self.output)
                    .unwrap();
            }
            self.connected = true;
            let maximum = connect.as_ref().properties.receive_maximum();
            self.window = maximum.map_or(usize::MAX, |maximum| usize::from(maximum.get()));
            if connect.as_ref().clean_start {
                self.forget();
                self.is_clean_session = version != ProtocolVersion::V5;
            }
            let session_present = self.session.is_some();
            self.made_anew_untold |= !session_present && !connect.as_ref().clean_start;
            self.session.get_or_insert_default();
            let list = [
                Property::ReceiveMaximum(self.receive_maximum.try_into().unwrap()),
                Property::TopicAliasMaximum(2),
            ];
            let properties = if version == ProtocolVersion::V5 {
                Properties::list(&list)
            } else {
                Properties::EMPTY
            };
            let connack = ConnackRef {
                session_present: session_present && version != ProtocolVersion::V31,
                reason_code: ReasonCode::Success,
                properties,
            };
            return PacketRef::Connack(connack)
                .encode(version, &mut self.output)
                .unwrap();
        }
        assert!(self.connected, "{packet:?} before CONNECT");
        let session = self
            .session
            .as_mut()
            .expect("a connected client has a session");
        let mut answer = |packet: PacketRef<'_>| packet.encode(version, &mut self.output).unwrap();
        match packet {
            Packet::Publish(publish) => {
                let payload = Bytes::copy_from_slice(publish.payload());
                if let Some(id) = publish.packet_id() {
                    //= test MQTT-3.3.1-1
                    assert!(
                        publish.dup() || !self.seen_before.contains(&payload),
                        "{payload:?} again without DUP"
                    );
                    assert!(
                        self.seen_now.insert(payload.clone()),
                        "{payload:?} twice on one connection"
                    );
                    if version == ProtocolVersion::V5 {
                        self.unanswered += 1;
                        assert!(
                            self.unanswered <= u32::from(self.receive_maximum),
                            "Receive Maximum overrun"
                        );
                    }
                    if publish.qos() == QoS::ExactlyOnce {
                        let known = session.unreleased.insert(id, payload.clone());
                        match known {
                            None => *self.taken.entry(payload).or_default() += 1,
                            Some(known) => {
                                assert_eq!(known, payload, "identifier {id} was reused in flight");
                            }
                        }
                        answer(PacketRef::Pubrec(AckRef::new(id)));
                    } else {
                        *self.taken.entry(payload).or_default() += 1;
                        self.unanswered = self.unanswered.saturating_sub(1);
                        answer(PacketRef::Puback(AckRef::new(id)));
                    }
                } else {
                    *self.taken.entry(payload).or_default() += 1;
                }
            }
            Packet::Pubrel(ack) => {
                session.unreleased.remove(&ack.packet_id());
                self.unanswered = self.unanswered.saturating_sub(1);
                answer(PacketRef::Pubcomp(AckRef::new(ack.packet_id())));
            }
            Packet::Puback(ack) => {
                let at = session
                    .outgoing
                    .iter()
                    .position(|out| out.id == ack.packet_id() && out.qos == QoS::AtLeastOnce);
                let out = session
                    .outgoing
                    .remove(at.expect("PUBACK of something that was sent"))
                    .unwrap();
                assert_eq!(
                    out.sent_on, self.connection,
                    "PUBACK for what this connection has not brought"
                );
            }
            Packet::Pubrec(ack) => {
                if let Some(at) = session
                    .outgoing
                    .iter()
                    .position(|out| out.id == ack.packet_id())
                {
                    assert_eq!(session.outgoing[at].qos, QoS::ExactlyOnce);
                    if ack.reason_code() >= ReasonCode::UnspecifiedError {
                        session.outgoing.remove(at);
                        return;
                    }
                    session.outgoing[at].released = true;
                }
                answer(PacketRef::Pubrel(AckRef::new(ack.packet_id())));
            }
            Packet::Pubcomp(ack) => {
                let at = session
                    .outgoing
                    .iter()
                    .position(|out| out.id == ack.packet_id() && out.released);
                session
                    .outgoing
                    .remove(at.expect("PUBCOMP of something that was released"));
            }
            Packet::Subscribe(subscribe) => {
                let subscribe = subscribe.as_ref();
                let codes: Vec<_> = subscribe
                    .subscriptions
                    .iter()
                    .map(|wanted| {
                        session.filters.insert(wanted.filter.as_str().to_owned());
                        ReasonCode::GrantedQoS2
                    })
                    .collect();
                let suback = SubackRef {
                    packet_id: subscribe.packet_id,
                    properties: Properties::EMPTY,
                    reason_codes: ReasonCodes::list(&codes),
                };
                answer(PacketRef::Suback(suback));
            }
            Packet::Unsubscribe(unsubscribe) => {
                let unsubscribe = unsubscribe.as_ref();
                let codes: Vec<_> = unsubscribe
                    .filters
                    .iter()
                    .map(|filter| {
                        if session.filters.remove(filter.as_str()) {
                            ReasonCode::Success
                        } else {
                            ReasonCode::NoSubscriptionExisted
                        }
                    })
                    .collect();
                let reason_codes = if version == ProtocolVersion::V5 {
                    ReasonCodes::list(&codes)
                } else {
                    ReasonCodes::EMPTY
                };
                answer(PacketRef::Unsuback(SubackRef {
                    packet_id: unsubscribe.packet_id,
                    properties: Properties::EMPTY,
                    reason_codes,
                }));
            }
            Packet::Pingreq => answer(PacketRef::Pingresp),
            Packet::Disconnect(_) => self.close(),
            other => panic!("a client does not send {other:?}"),
        }
    }
}
