//! What each packet of a broker does in each state: one row a packet, one column a state, one test over every cell.
//!
//! The table is the documentation; the test fails if a packet is added to the protocol, or a state to the session, and
//! leaves a cell undecided.

mod common;

use common::{Client, VERSIONS, config, id};
use mqtt_codec::{
    AckRef, AuthRef, ConnackRef, ConnectRef, DisconnectRef, EncodeError, PacketRef, PacketType,
    Properties, Property, ProtocolVersion, PublishRef, QoS, ReasonCode, ReasonCodes, SubackRef,
    SubscribeRef, Subscription, SubscriptionOptions, Subscriptions, Text, TopicFilter,
    TopicFilters, TopicName, UnsubscribeRef,
};
use mqtt_session::{
    Authentication, ConnectionError, Disconnect, Event, ProtocolViolation as V,
    SubscribeBeforeConnack,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No transport.
    Closed,
    /// The transport is open, the CONNECT has not been handed out.
    Opened,
    /// CONNECT sent.
    AwaitsConnack,
    /// CONNECT sent, and SUBSCRIBE right behind it.
    AwaitsBoth,
    Connected,
    /// `disconnect` was called; the DISCONNECT has not been handed out.
    Disconnecting,
    /// The DISCONNECT has been handed out.
    Disconnected,
}

const STATES: [State; 7] = [
    State::Closed,
    State::Opened,
    State::AwaitsConnack,
    State::AwaitsBoth,
    State::Connected,
    State::Disconnecting,
    State::Disconnected,
];

/// What a packet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Nothing: not even looked at.
    Nothing,
    /// Handled, and nothing to report.
    Passes,
    /// Handled, and reported as this.
    Reports(&'static str),
    /// Ends the connection, with this violation.
    Violates(V),
    /// Ends the connection: not a packet of this version.
    Malformed,
}

use Does::{Malformed, Nothing, Passes, Reports, Violates};

/// The table. With nothing in flight, no subscription, no re-authentication under way.
fn cell(packet: PacketType, state: State, version: ProtocolVersion) -> Does {
    let v5 = version == ProtocolVersion::V5;
    match (packet, state) {
        (_, State::Closed | State::Disconnected) => Nothing,
        (PacketType::Auth, _) if !v5 => Malformed,
        (_, State::Opened) => Violates(V::NotConnack),

        (PacketType::Connack, State::AwaitsConnack | State::AwaitsBoth) => Reports("Connected"),
        (PacketType::Auth, State::AwaitsConnack) => Reports("AuthChallenge"),
        // Where an exchange is possible, nothing leaves early.
        (PacketType::Auth, State::AwaitsBoth) => Violates(V::UnexpectedAuth),
        (PacketType::Disconnect, State::AwaitsConnack | State::AwaitsBoth) if v5 => {
            Reports("Disconnected")
        }
        // SUBACK, too.
        (_, State::AwaitsConnack | State::AwaitsBoth) => Violates(V::NotConnack),

        (PacketType::Connack, _) => Violates(V::SecondConnack),
        (PacketType::Publish, _) => Reports("Message"),
        // Nothing is in flight: late answers, counted.
        (
            PacketType::Puback | PacketType::Pubcomp | PacketType::Suback | PacketType::Unsuback,
            _,
        ) => Passes,
        // Answered, though unknown.
        (PacketType::Pubrec | PacketType::Pubrel, _) => Passes,
        (PacketType::Pingresp, _) => Passes,
        (PacketType::Disconnect, _) if v5 => Reports("Disconnected"),
        (PacketType::Auth, _) => Violates(V::UnexpectedAuth),
        (
            PacketType::Connect
            | PacketType::Subscribe
            | PacketType::Unsubscribe
            | PacketType::Pingreq
            | PacketType::Disconnect,
            _,
        ) => Violates(V::ClientPacket),
        (packet, state) => panic!("{packet} in {state:?} is undecided"),
    }
}

fn in_state(state: State, version: ProtocolVersion) -> Client {
    let mut config = config(version);
    if state == State::AwaitsBoth {
        config.subscribe_before_connack = SubscribeBeforeConnack::WhenCertain;
    } else if version == ProtocolVersion::V5 {
        config.authentication = Some(Authentication::new("m", None));
    }
    let mut client = Client::new(config);
    match state {
        State::Closed => {}
        State::Opened => client.session.transport_opened(client.now).unwrap(),
        State::AwaitsConnack => drop(client.open()),
        State::AwaitsBoth => {
            let wanted = mqtt_session::Subscription::new("a", QoS::AtMostOnce);
            client.session.subscribe(&[wanted], client.now).unwrap();
            assert_eq!(client.open_words(), ["CONNECT", "SUBSCRIBE #65520 a"]);
        }
        State::Connected | State::Disconnecting | State::Disconnected => {
            client.connect(ConnackRef::new(ReasonCode::Success));
            if state != State::Connected {
                client
                    .session
                    .disconnect(Disconnect::default(), client.now)
                    .unwrap();
            }
            if state == State::Disconnected {
                assert_eq!(client.sent_words(), ["DISCONNECT 00"]);
            }
        }
    }
    client.events();
    client
}

/// A valid packet of this type.
fn receive(client: &mut Client, packet: PacketType) -> Result<(), ConnectionError> {
    let method = [Property::AuthenticationMethod(Text::new("m").unwrap())];
    let filter = TopicFilter::new("a").unwrap();
    let subscriptions = [Subscription {
        filter,
        options: SubscriptionOptions::new(QoS::AtMostOnce),
    }];
    let codes: &[ReasonCode] = &[ReasonCode::Success];
    let unsuback_codes = if client.version == ProtocolVersion::V5 {
        ReasonCodes::list(codes)
    } else {
        ReasonCodes::EMPTY
    };
    let is_early = client.session.stats().packet_ids_in_use > 0;
    let suback = |reason_codes| SubackRef {
        packet_id: id(if is_early { 65_520 } else { 1 }),
        properties: Properties::EMPTY,
        reason_codes,
    };
    let connect = ConnectRef::new(client.version, Text::new("c").unwrap());
    let packet = match packet {
        PacketType::Connect => PacketRef::from(&connect),
        PacketType::Connack => PacketRef::Connack(ConnackRef::new(ReasonCode::Success)),
        PacketType::Publish => {
            PacketRef::Publish(PublishRef::new(TopicName::new("t").unwrap(), b""))
        }
        PacketType::Puback => PacketRef::Puback(AckRef::new(id(1))),
        PacketType::Pubrec => PacketRef::Pubrec(AckRef::new(id(1))),
        PacketType::Pubrel => PacketRef::Pubrel(AckRef::new(id(1))),
        PacketType::Pubcomp => PacketRef::Pubcomp(AckRef::new(id(1))),
        PacketType::Subscribe => PacketRef::Subscribe(SubscribeRef {
            packet_id: id(1),
            properties: Properties::EMPTY,
            subscriptions: Subscriptions::list(&subscriptions),
        }),
        PacketType::Suback => PacketRef::Suback(suback(ReasonCodes::list(codes))),
        PacketType::Unsubscribe => PacketRef::Unsubscribe(UnsubscribeRef {
            packet_id: id(1),
            properties: Properties::EMPTY,
            filters: TopicFilters::list(core::slice::from_ref(&filter)),
        }),
        PacketType::Unsuback => PacketRef::Unsuback(suback(unsuback_codes)),
        PacketType::Pingreq => PacketRef::Pingreq,
        PacketType::Pingresp => PacketRef::Pingresp,
        PacketType::Disconnect => PacketRef::Disconnect(DisconnectRef::new(ReasonCode::Success)),
        PacketType::Auth => PacketRef::Auth(AuthRef {
            reason_code: ReasonCode::ContinueAuthentication,
            properties: Properties::list(&method),
        }),
        other => panic!("{other} is new"),
    };
    let mut wire = bytes::BytesMut::new();
    match packet.encode(client.version, &mut wire) {
        Err(EncodeError::NotInThisVersion) => client.receive_bytes(&[0xf0, 0]),
        encoded => {
            encoded.unwrap();
            client.receive_bytes(&wire)
        }
    }
}

fn name(event: &Event) -> String {
    let debug = format!("{event:?}");
    debug.split(['(', ' ', '{']).next().unwrap().to_owned()
}

#[test]
//= test MQTT-3.2.0-1
//= test MQTT-3.2.0-2
//= test v3.1.1 MQTT-3.2.0-1
//= test MQTT-4.13.1-1
//= test v3.1.1 MQTT-4.8.0-1
fn every_cell() {
    for version in VERSIONS {
        for state in STATES {
            for number in 1..=15 {
                let packet = PacketType::from_u8(number).unwrap();
                let mut client = in_state(state, version);
                let result = receive(&mut client, packet);
                let events: Vec<String> = client.events().iter().map(name).collect();
                let expected = cell(packet, state, version);
                let context = format!(
                    "{version} {packet} in {state:?}: {result:?} {events:?}, expected {expected:?}"
                );
                match expected {
                    Nothing => assert!(
                        result.is_ok() && events.is_empty() && client.sent().is_empty(),
                        "{context}"
                    ),
                    Passes => assert!(result.is_ok() && events.is_empty(), "{context}"),
                    Reports(event) => assert!(result.is_ok() && events == [event], "{context}"),
                    Violates(violation) => {
                        assert_eq!(
                            result,
                            Err(ConnectionError::Protocol(violation)),
                            "{context}"
                        );
                        assert_eq!(events, ["Disconnected"], "{context}");
                    }
                    Malformed => {
                        assert!(
                            matches!(result, Err(ConnectionError::Malformed(_))),
                            "{context}"
                        );
                        assert_eq!(events, ["Disconnected"], "{context}");
                    }
                }
                // Whatever happened, the session can go on with a new connection.
                client.close(mqtt_session::TransportEnd::Failed);
                client.connect(ConnackRef::new(ReasonCode::Success));
                assert_eq!(
                    name(client.events().last().unwrap()),
                    "Connected",
                    "{context}"
                );
            }
        }
    }
}

/// The stages of a publish in flight, against each acknowledgement.
#[test]
fn every_acknowledgement_in_every_stage() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Stage {
        QoS1,
        QoS2,
        Received,
    }
    for version in VERSIONS {
        for stage in [Stage::QoS1, Stage::QoS2, Stage::Received] {
            for packet in [PacketType::Puback, PacketType::Pubrec, PacketType::Pubcomp] {
                let mut client = in_state(State::Connected, version);
                client.publish(
                    "m",
                    if stage == Stage::QoS1 {
                        QoS::AtLeastOnce
                    } else {
                        QoS::ExactlyOnce
                    },
                );
                client.sent();
                if stage == Stage::Received {
                    receive(&mut client, PacketType::Pubrec).unwrap();
                    client.sent();
                }
                client.events();
                let result = receive(&mut client, packet);
                let events: Vec<String> = client.events().iter().map(name).collect();
                let expected: Result<&[&str], V> = match (stage, packet) {
                    (Stage::QoS1, PacketType::Puback) | (Stage::Received, PacketType::Pubcomp) => {
                        Ok(&["PublishCompleted"])
                    }
                    (Stage::QoS2, PacketType::Pubrec) => Ok(&["PublishReceived"]),
                    (Stage::Received, PacketType::Pubrec) => Ok(&[]),
                    _ => Err(V::WrongAcknowledgement),
                };
                match expected {
                    Ok(expected) => assert!(
                        result.is_ok() && events == expected,
                        "{stage:?} {packet}: {result:?} {events:?}"
                    ),
                    Err(violation) => assert_eq!(
                        result,
                        Err(ConnectionError::Protocol(violation)),
                        "{stage:?} {packet}"
                    ),
                }
            }
        }
    }
}
