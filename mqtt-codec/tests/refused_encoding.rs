//! What encoding refuses, before it writes a byte; and what `Debug` keeps to itself.

mod common;

use std::num::NonZeroU16;

use bytes::BytesMut;
use common::*;
use mqtt_codec::{PacketRef as P, ProtocolVersion::*, ReasonCode as R, *};

const OLD: &[ProtocolVersion] = &[V31, V311];
const ALL: &[ProtocolVersion] = &VERSIONS;

#[track_caller]
fn cannot_encode(versions: &[ProtocolVersion], packet: P<'_>, error: EncodeError) {
    for &version in versions {
        let mut buf = BytesMut::new();
        assert_eq!(packet.encode(version, &mut buf), Err(error), "{version}");
        assert_eq!(packet.encode_to(version, &mut buf), Err(error), "{version}");
        assert!(buf.is_empty(), "nothing is written");
        let mut slice = [0xEE; 64];
        let refused = packet.encode_to_slice(version, &mut slice);
        assert_eq!(refused, Err(error), "{version}");
        assert_eq!(slice, [0xEE; 64], "nothing is written");
        assert_eq!(packet.encoded_len(version), Err(error));
    }
}

#[test]
fn publish_that_cannot_be_encoded() {
    let message = PublishRef::new(topic("t"), b"");
    let qos1 = PublishRef {
        qos: QoS::AtLeastOnce,
        ..message
    };
    cannot_encode(ALL, P::Publish(qos1), EncodeError::PacketIdentifierMissing);
    cannot_encode(
        ALL,
        P::Publish(PublishRef {
            packet_id: Some(id(1)),
            ..message
        }),
        EncodeError::PacketIdentifierAtQoS0,
    );
    cannot_encode(
        ALL,
        P::Publish(PublishRef {
            dup: true,
            ..message
        }),
        EncodeError::DupAtQoS0,
    );
    cannot_encode(
        ALL,
        P::Publish(PublishRef {
            topic: TopicName::EMPTY,
            ..message
        }),
        EncodeError::TopicNameMissing,
    );
    let properties = [Property::TopicAlias(NonZeroU16::MIN)];
    let properties = Properties::list(&properties);
    cannot_encode(
        OLD,
        P::Publish(PublishRef {
            properties,
            ..message
        }),
        EncodeError::PropertiesBeforeV5,
    );

    let long = vec![0; 65_536];
    let properties = [Property::CorrelationData(&long)];
    let properties = Properties::list(&properties);
    cannot_encode(
        &[V5],
        P::Publish(PublishRef {
            properties,
            ..message
        }),
        EncodeError::BinaryTooLong,
    );

    let payload = vec![0; 268_435_455 - 2];
    cannot_encode(
        ALL,
        P::Publish(PublishRef {
            payload: &payload,
            ..message
        }),
        EncodeError::PacketTooLong,
    );
    let payload = &payload[1..];
    let largest = PublishRef { payload, ..message };
    assert_eq!(largest.encoded_len(V311), Ok(MAX_PACKET_SIZE as usize));
    cannot_encode(&[V5], P::Publish(largest), EncodeError::PacketTooLong);
}

#[test]
fn connect_that_cannot_be_encoded() {
    let long = vec![0; 65_536];
    for version in VERSIONS {
        let connect = ConnectRef::new(version, text("c"));
        let will = WillRef {
            topic: topic("w"),
            payload: b"",
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::EMPTY,
        };
        let with_will = |will, error| {
            let connect = ConnectRef {
                will: Some(will),
                ..connect
            };
            cannot_encode(ALL, P::from(&connect), error);
        };
        with_will(
            WillRef {
                payload: &long,
                ..will
            },
            EncodeError::BinaryTooLong,
        );
        with_will(
            WillRef {
                topic: TopicName::EMPTY,
                ..will
            },
            EncodeError::TopicNameMissing,
        );
        let user_name = Some(text("u"));
        cannot_encode(
            ALL,
            P::from(&ConnectRef {
                user_name,
                password: Some(&long),
                ..connect
            }),
            EncodeError::BinaryTooLong,
        );
        if version != V5 {
            cannot_encode(
                ALL,
                P::from(&ConnectRef {
                    password: Some(b""),
                    ..connect
                }),
                EncodeError::PasswordWithoutUserName,
            );
            let nobody = ConnectRef {
                clean_start: false,
                ..ConnectRef::new(version, text(""))
            };
            cannot_encode(ALL, P::from(&nobody), EncodeError::ClientIdentifierRequired);
        }
    }
    let data = [Property::AuthenticationData(b"d")];
    let connect = ConnectRef {
        properties: Properties::list(&data),
        ..ConnectRef::new(V5, text("c"))
    };
    cannot_encode(
        ALL,
        P::from(&connect),
        EncodeError::AuthenticationMethodMissing,
    );
    let mut buf = PropertyBuf::new(PropertyScope::Connect);
    buf.push(data[0]).unwrap();
    cannot_encode(
        ALL,
        P::from(&ConnectRef {
            properties: buf.as_properties(),
            ..connect
        }),
        EncodeError::AuthenticationMethodMissing,
    );
}

#[test]
fn other_packets_that_cannot_be_encoded() {
    let ack = AckRef {
        reason_code: R::PacketIdentifierNotFound,
        ..AckRef::new(id(1))
    };
    cannot_encode(
        ALL,
        P::Puback(ack),
        EncodeError::ReasonCode(ack.reason_code),
    );
    cannot_encode(
        OLD,
        P::Pubrel(ack),
        EncodeError::ReasonCode(ack.reason_code),
    );
    cannot_encode(
        &[V5],
        P::Connack(ConnackRef::new(R::GrantedQoS1)),
        EncodeError::ReasonCode(R::GrantedQoS1),
    );
    cannot_encode(
        OLD,
        P::Connack(ConnackRef::new(R::ServerBusy)),
        EncodeError::ReasonCode(R::ServerBusy),
    );
    let present = ConnackRef {
        session_present: true,
        ..ConnackRef::new(R::NotAuthorized)
    };
    cannot_encode(
        ALL,
        P::Connack(present),
        EncodeError::SessionPresentOnRefusal,
    );
    let present = ConnackRef {
        session_present: true,
        ..ConnackRef::new(R::Success)
    };
    cannot_encode(
        &[V31],
        P::Connack(present),
        EncodeError::SessionPresentBeforeV311,
    );
    cannot_encode(
        OLD,
        P::Disconnect(DisconnectRef::new(R::ProtocolError)),
        EncodeError::ReasonCode(R::ProtocolError),
    );
    cannot_encode(
        &[V5],
        P::Disconnect(DisconnectRef::new(R::Banned)),
        EncodeError::ReasonCode(R::Banned),
    );

    let none = SubackRef {
        packet_id: id(1),
        properties: Properties::EMPTY,
        reason_codes: ReasonCodes::EMPTY,
    };
    cannot_encode(ALL, P::Suback(none), EncodeError::NoReasonCodes);
    cannot_encode(&[V5], P::Unsuback(none), EncodeError::NoReasonCodes);
    let codes = [R::NoSubscriptionExisted];
    let codes = SubackRef {
        reason_codes: ReasonCodes::list(&codes),
        ..none
    };
    cannot_encode(
        ALL,
        P::Suback(codes),
        EncodeError::ReasonCode(R::NoSubscriptionExisted),
    );
    cannot_encode(
        OLD,
        P::Unsuback(codes),
        EncodeError::ReasonCode(R::NoSubscriptionExisted),
    );

    fn subscribe<'a>(list: &'a [Subscription<'a>]) -> P<'a> {
        P::Subscribe(SubscribeRef {
            packet_id: id(1),
            properties: Properties::EMPTY,
            subscriptions: Subscriptions::list(list),
        })
    }
    cannot_encode(ALL, subscribe(&[]), EncodeError::NoTopicFilters);
    let no_local = SubscriptionOptions {
        no_local: true,
        ..SubscriptionOptions::new(QoS::AtMostOnce)
    };
    cannot_encode(
        OLD,
        subscribe(&[Subscription {
            filter: filter("a"),
            options: no_local,
        }]),
        EncodeError::OptionsBeforeV5,
    );
    cannot_encode(
        &[V5],
        subscribe(&[Subscription {
            filter: filter("$share/g/a"),
            options: no_local,
        }]),
        EncodeError::NoLocalOnShared,
    );
    cannot_encode(
        &[V5],
        subscribe(&[Subscription {
            filter: filter("$share/g"),
            options: SubscriptionOptions::default(),
        }]),
        EncodeError::ShareName,
    );
    let filters = [filter("$share//a")];
    let unsubscribe = UnsubscribeRef {
        packet_id: id(1),
        properties: Properties::EMPTY,
        filters: TopicFilters::list(&filters),
    };
    cannot_encode(&[V5], P::Unsubscribe(unsubscribe), EncodeError::ShareName);
    cannot_encode(
        ALL,
        P::Unsubscribe(UnsubscribeRef {
            filters: TopicFilters::list(&[]),
            ..unsubscribe
        }),
        EncodeError::NoTopicFilters,
    );

    let properties = [Property::AuthenticationMethod(text("m"))];
    let auth = AuthRef {
        reason_code: R::Success,
        properties: Properties::list(&properties),
    };
    cannot_encode(OLD, P::Auth(auth), EncodeError::NotInThisVersion);
    cannot_encode(
        &[V5],
        P::Auth(AuthRef {
            reason_code: R::NotAuthorized,
            ..auth
        }),
        EncodeError::ReasonCode(R::NotAuthorized),
    );
    cannot_encode(
        &[V5],
        P::Auth(AuthRef {
            reason_code: R::ReAuthenticate,
            properties: Properties::EMPTY,
        }),
        EncodeError::AuthenticationMethodMissing,
    );
}

#[test]
fn properties_that_cannot_be_encoded() {
    let disconnect = |list| {
        P::Disconnect(DisconnectRef {
            reason_code: R::Success,
            properties: Properties::list(list),
        })
    };
    cannot_encode(
        &[V5],
        disconnect(&[Property::TopicAliasMaximum(1)]),
        EncodeError::MisplacedProperty(PropertyId::TopicAliasMaximum),
    );
    cannot_encode(
        &[V5],
        disconnect(&[
            Property::SessionExpiryInterval(1),
            Property::SessionExpiryInterval(1),
        ]),
        EncodeError::DuplicateProperty(PropertyId::SessionExpiryInterval),
    );
    let qos2 = [Property::MaximumQoS(QoS::ExactlyOnce)];
    let connack = ConnackRef {
        properties: Properties::list(&qos2),
        ..ConnackRef::new(R::Success)
    };
    cannot_encode(
        &[V5],
        P::Connack(connack),
        EncodeError::PropertyValue(PropertyId::MaximumQoS),
    );

    // A block that was checked for another packet is checked again.
    let mut buf = PropertyBuf::new(PropertyScope::Will);
    buf.push(Property::ContentType(text("t"))).unwrap();
    let message = PublishRef {
        properties: buf.as_properties(),
        ..PublishRef::new(topic("t"), b"")
    };
    assert_eq!(
        encode(&P::Publish(message), V5),
        hex("30 08 0001 't' 04 03 0001 't'")
    );
    buf.push(Property::WillDelayInterval(1)).unwrap();
    let message = PublishRef {
        properties: buf.as_properties(),
        ..PublishRef::new(topic("t"), b"")
    };
    cannot_encode(
        &[V5],
        P::Publish(message),
        EncodeError::MisplacedProperty(PropertyId::WillDelayInterval),
    );
    assert_eq!(
        buf.push(Property::TopicAlias(NonZeroU16::MIN)),
        Err(EncodeError::MisplacedProperty(PropertyId::TopicAlias))
    );
}

#[test]
fn blocks_of_one_version_are_checked_for_another() {
    let bytes = hex("82 10 0001 00 000A '$share/g/x' 00");
    let shared = P::decode(&bytes, V5).unwrap();
    assert_eq!(
        encode(&shared, V311),
        hex("82 0F 0001 000A '$share/g/x' 00")
    );
    let bytes = hex("82 0D 0001 0008 '$share/g' 00");
    let odd = P::decode(&bytes, V311).unwrap();
    cannot_encode(&[V5], odd, EncodeError::ShareName);
    let bytes = hex("82 07 0001 00 0001 'a' 04");
    let options = P::decode(&bytes, V5).unwrap();
    cannot_encode(OLD, options, EncodeError::OptionsBeforeV5);
}

#[test]
fn debug_shows_no_secrets() {
    let data = [
        Property::AuthenticationMethod(text("m")),
        Property::AuthenticationData(b"MARKER-A"),
    ];
    let connect = ConnectRef {
        user_name: Some(text("MARKER-U")),
        password: Some(b"MARKER-P"),
        properties: Properties::list(&data),
        ..ConnectRef::new(V5, text("c"))
    };
    let bytes = encode(&P::from(&connect), V5);
    let owned = Packet::decode(bytes.into(), V5).unwrap();
    let Packet::Connect(inner) = &owned else {
        panic!("not a CONNECT")
    };
    for shown in [
        format!("{connect:?}"),
        format!("{connect:#?}"),
        format!("{owned:?}"),
        format!("{inner:?}"),
        format!("{:?}", owned.as_ref()),
    ] {
        assert!(!shown.contains("MARKER"), "{shown}");
        assert!(!shown.contains("77, 65, 82, 75"), "{shown}");
    }
}
