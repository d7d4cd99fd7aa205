//! Shared by the tests: a client whose peer is a script, packet by packet.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test is a crate that uses a part"
)]

pub mod broker;
pub mod pair;

use core::time::Duration;

use bytes::{Bytes, BytesMut};
use mqtt_codec::{
    AckRef, ConnackRef, Decoder, DisconnectRef, Packet, PacketId, PacketRef, Properties, Property,
    ProtocolVersion, PublishRef, QoS, ReasonCode, ReasonCodes, SubackRef, TopicName,
};
use mqtt_session::{
    AckToken, Config, ConnectionError, Event, InputProgress, Message, Publish, PublishOutcome,
    Session, Timestamp, TransportEnd,
};

pub const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::V311, ProtocolVersion::V5];

/// A configuration in which SUBSCRIBE waits for the CONNACK, so that a script begins where it means to.
pub fn config(version: ProtocolVersion) -> Config {
    let mut config = Config::new(version, "client");
    config.subscribe_before_connack = mqtt_session::SubscribeBeforeConnack::Never;
    config
}

/// A configuration whose session outlives its connections.
pub fn resuming(version: ProtocolVersion) -> Config {
    let mut config = config(version);
    config.clean_start = mqtt_session::CleanStart::OnFirst;
    if version == ProtocolVersion::V5 {
        config.session_expiry = Duration::from_secs(3600);
    } else {
        // Before 5.0 a clean session ends with its connection.
        config.clean_start = mqtt_session::CleanStart::Never;
        config.broker_only_session = mqtt_session::BrokerOnlySession::Accept;
    }
    config
}

pub fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

/// A session, its clock, and the peer's side of the wire.
pub struct Client {
    pub session: Session,
    pub now: Timestamp,
    pub version: ProtocolVersion,
    decoder: Decoder,
}

impl Client {
    pub fn new(config: Config) -> Self {
        let version = config.version;
        Self {
            session: Session::new(config).unwrap(),
            now: Timestamp::from_origin(Duration::from_secs(1000)),
            version,
            decoder: Decoder::new(version),
        }
    }

    /// With an accepted connection; nothing was lost or resumed.
    pub fn connected(config: Config) -> Self {
        let mut client = Self::new(config);
        client.connect(ConnackRef::new(ReasonCode::Success));
        client
    }

    /// Opens a connection that the broker answers like this. Returns the CONNECT.
    pub fn connect(&mut self, connack: ConnackRef<'_>) -> Packet {
        let connect = self.open();
        self.receive(PacketRef::Connack(connack)).unwrap();
        connect
    }

    pub fn connect_with(&mut self, session_present: bool, properties: &[Property<'_>]) -> Packet {
        self.connect(ConnackRef {
            session_present,
            reason_code: ReasonCode::Success,
            properties: Properties::list(properties),
        })
    }

    /// Opens a transport. Returns the CONNECT.
    pub fn open(&mut self) -> Packet {
        self.session.transport_opened(self.now).unwrap();
        self.decoder = Decoder::new(self.version);
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        assert!(matches!(sent[0], Packet::Connect(_)));
        sent.remove(0)
    }

    /// Opens a transport. Returns all that is sent before the CONNACK.
    pub fn open_words(&mut self) -> Vec<String> {
        self.session.transport_opened(self.now).unwrap();
        self.decoder = Decoder::new(self.version);
        self.sent_words()
    }

    pub fn close(&mut self, end: TransportEnd) {
        self.session.transport_closed(end, self.now);
    }

    /// Everything that the session has to send now.
    pub fn sent(&mut self) -> Vec<Packet> {
        let mut out = BytesMut::new();
        while self.session.poll_transmit(&mut out, 1000, self.now) > 0 {}
        let mut packets = Vec::new();
        while let Some(packet) = self
            .decoder
            .decode(&mut out)
            .expect("the session sends valid packets")
        {
            packets.push(packet);
        }
        assert!(out.is_empty(), "whole packets only");
        packets
    }

    /// As [`Client::sent`], in words.
    pub fn sent_words(&mut self) -> Vec<String> {
        self.sent().iter().map(words).collect()
    }

    pub fn receive(&mut self, packet: PacketRef<'_>) -> Result<(), ConnectionError> {
        let mut wire = BytesMut::new();
        packet
            .encode(self.version, &mut wire)
            .expect("a packet that a broker can send");
        self.receive_bytes(&wire)
    }

    pub fn receive_bytes(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        let mut input = Bytes::copy_from_slice(bytes);
        let progress = self.session.handle_input(&mut input, self.now)?;
        assert_eq!(
            progress,
            InputProgress::NeedsMoreInput,
            "too many events for a test that does not take them"
        );
        Ok(())
    }

    pub fn puback(&mut self, number: u16) {
        self.receive(PacketRef::Puback(AckRef::new(id(number))))
            .unwrap();
    }

    pub fn suback(&mut self, number: u16, codes: &[ReasonCode]) {
        let suback = SubackRef {
            packet_id: id(number),
            properties: Properties::EMPTY,
            reason_codes: ReasonCodes::list(codes),
        };
        self.receive(PacketRef::Suback(suback)).unwrap();
    }

    /// A message of the broker; returns the event's message, if there was one.
    pub fn deliver(&mut self, qos: QoS, number: u16, payload: &str) -> Option<Message> {
        self.try_deliver(qos, number, payload).unwrap();
        self.messages().pop()
    }

    pub fn try_deliver(
        &mut self,
        qos: QoS,
        number: u16,
        payload: &str,
    ) -> Result<(), ConnectionError> {
        let packet_id = (qos != QoS::AtMostOnce).then(|| id(number));
        self.receive(PacketRef::Publish(PublishRef {
            qos,
            packet_id,
            ..PublishRef::new(TopicName::new("t").unwrap(), payload.as_bytes())
        }))
    }

    pub fn disconnect_by_server(&mut self, reason: ReasonCode) {
        self.receive(PacketRef::Disconnect(DisconnectRef::new(reason)))
            .unwrap();
    }

    pub fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.session.poll_event()).collect()
    }

    pub fn messages(&mut self) -> Vec<Message> {
        self.events()
            .into_iter()
            .filter_map(|event| {
                if let Event::Message(message) = event {
                    Some(message)
                } else {
                    None
                }
            })
            .collect()
    }

    pub fn outcomes(&mut self) -> Vec<PublishOutcome> {
        self.events()
            .into_iter()
            .filter_map(|event| {
                if let Event::PublishCompleted { outcome, .. } = event {
                    Some(outcome)
                } else {
                    None
                }
            })
            .collect()
    }

    pub fn publish(&mut self, payload: &str, qos: QoS) -> mqtt_session::PublishId {
        self.session
            .publish(Publish::new("t", payload.to_owned(), qos), self.now)
            .unwrap()
    }

    pub fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.session.handle_timeout(self.now);
    }
}

pub fn token(message: Option<Message>) -> AckToken {
    message
        .expect("a message was reported")
        .take_ack_token()
        .expect("QoS 1 and 2 have a token")
}

/// A packet in a form that a test can spell out.
pub fn words(packet: &Packet) -> String {
    match packet {
        Packet::Connect(_) => "CONNECT".into(),
        Packet::Publish(publish) => {
            let dup = if publish.dup() { " dup" } else { "" };
            let number = publish
                .packet_id()
                .map(|id| format!(" #{id}"))
                .unwrap_or_default();
            format!(
                "PUBLISH{dup} q{}{number} {}",
                publish.qos() as u8,
                String::from_utf8_lossy(publish.payload())
            )
        }
        Packet::Puback(ack) => ack_words("PUBACK", &ack.as_ref()),
        Packet::Pubrec(ack) => ack_words("PUBREC", &ack.as_ref()),
        Packet::Pubrel(ack) => ack_words("PUBREL", &ack.as_ref()),
        Packet::Pubcomp(ack) => ack_words("PUBCOMP", &ack.as_ref()),
        Packet::Subscribe(subscribe) => {
            let subscribe = subscribe.as_ref();
            let filters: Vec<_> = subscribe
                .subscriptions
                .iter()
                .map(|wanted| wanted.filter.as_str().to_owned())
                .collect();
            format!("SUBSCRIBE #{} {}", subscribe.packet_id, filters.join(" "))
        }
        Packet::Unsubscribe(unsubscribe) => {
            let unsubscribe = unsubscribe.as_ref();
            let filters: Vec<_> = unsubscribe
                .filters
                .iter()
                .map(|filter| filter.as_str().to_owned())
                .collect();
            format!(
                "UNSUBSCRIBE #{} {}",
                unsubscribe.packet_id,
                filters.join(" ")
            )
        }
        Packet::Pingreq => "PINGREQ".into(),
        Packet::Disconnect(disconnect) => {
            format!("DISCONNECT {:02x}", disconnect.as_ref().reason_code as u8)
        }
        Packet::Auth(auth) => format!("AUTH {:02x}", auth.as_ref().reason_code as u8),
        other => format!("{other:?}"),
    }
}

fn ack_words(name: &str, ack: &AckRef<'_>) -> String {
    match ack.reason_code {
        ReasonCode::Success => format!("{name} #{}", ack.packet_id),
        reason => format!("{name} #{} {:02x}", ack.packet_id, reason as u8),
    }
}
