//! The packets that open a connection, keep it and end it, in every version, against bytes written by hand from the specifications.

mod common;

use std::num::{NonZeroU16, NonZeroU32};

use common::golden::*;
use common::*;
use mqtt_codec::*;
use mqtt_codec::{PacketRef as P, Property as Prop, ProtocolVersion::*, ReasonCode as R};

//= test MQTT-3.1.2-1
//= test MQTT-3.1.2-2
//= test MQTT-3.1.3-1
//= test MQTT-3.1.3-3
//= test v3.1.1 MQTT-3.1.2-1
//= test v3.1.1 MQTT-3.1.2-2
//= test v3.1.1 MQTT-3.1.3-1
//= test v3.1.1 MQTT-3.1.3-3
#[test]
fn connect_minimal() {
    let client = |version| ConnectRef {
        keep_alive_secs: 10,
        ..ConnectRef::new(version, text("c"))
    };
    golden(
        &[V31],
        "10 0F  0006 'MQIsdp' 03 02 000A  0001 'c'",
        P::from(&client(V31)),
    );
    golden(
        &[V311],
        "10 0D  0004 'MQTT' 04 02 000A  0001 'c'",
        P::from(&client(V311)),
    );
    golden(
        &[V5],
        "10 0E  0004 'MQTT' 05 02 000A 00  0001 'c'",
        P::from(&client(V5)),
    );
    // A server does not know the version before it reads it.
    for version in VERSIONS {
        let bytes = hex("10 0E  0004 'MQTT' 05 02 000A 00  0001 'c'");
        assert_eq!(P::decode(&bytes, version), Ok(P::from(&client(V5))));
    }
    // The server chooses the Client Identifier.
    let anonymous = |version| ConnectRef {
        keep_alive_secs: 0,
        ..ConnectRef::new(version, text(""))
    };
    golden(
        &[V311],
        "10 0C  0004 'MQTT' 04 02 0000  0000",
        P::from(&anonymous(V311)),
    );
    golden(
        &[V5],
        "10 0D  0004 'MQTT' 05 02 0000 00  0000",
        P::from(&anonymous(V5)),
    );
    golden(
        &[V5],
        "10 0D  0004 'MQTT' 05 00 0000 00  0000",
        P::from(&ConnectRef {
            clean_start: false,
            ..anonymous(V5)
        }),
    );
}

//= test MQTT-3.1.2-9
//= test MQTT-3.1.2-17
//= test MQTT-3.1.2-19
//= test MQTT-3.1.3-11
//= test MQTT-3.1.3-12
//= test v3.1.1 MQTT-3.1.2-9
//= test v3.1.1 MQTT-3.1.2-19
//= test v3.1.1 MQTT-3.1.2-21
//= test v3.1.1 MQTT-3.1.3-10
//= test v3.1.1 MQTT-3.1.3-11
#[test]
fn connect_with_everything() {
    let connect = ConnectRef {
        version: V311,
        clean_start: true,
        keep_alive_secs: 0x1234,
        properties: Properties::EMPTY,
        client_id: text("cl"),
        will: Some(WillRef {
            topic: topic("w/t"),
            payload: b"\x00\xff",
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: Properties::EMPTY,
        }),
        user_name: Some(text("u")),
        password: Some(b"p\x00"),
    };
    let payload = "0002 'cl'  0003 'w/t' 0002 00FF  0001 'u'  0002 'p' 00";
    golden(
        &[V311],
        &format!("10 1E  0004 'MQTT' 04 F6 1234  {payload}"),
        P::from(&connect),
    );
    golden(
        &[V31],
        &format!("10 20  0006 'MQIsdp' 03 F6 1234  {payload}"),
        P::from(&ConnectRef {
            version: V31,
            ..connect
        }),
    );

    let properties = [
        Prop::SessionExpiryInterval(0x0000_0E10),
        Prop::ReceiveMaximum(NonZeroU16::new(20).unwrap()),
        Prop::MaximumPacketSize(NonZeroU32::new(0x0002_0000).unwrap()),
        Prop::TopicAliasMaximum(10),
        Prop::RequestResponseInformation(true),
        Prop::RequestProblemInformation(false),
        Prop::UserProperty(text("k"), text("v1")),
        Prop::UserProperty(text("k"), text("v2")),
        Prop::AuthenticationMethod(text("M")),
        Prop::AuthenticationData(b"\x01\x02"),
    ];
    let will = [
        Prop::WillDelayInterval(5),
        Prop::PayloadFormatIndicator(PayloadFormat::Utf8),
        Prop::MessageExpiryInterval(60),
        Prop::ContentType(text("t")),
        Prop::ResponseTopic(topic("r")),
        Prop::CorrelationData(b"\x07"),
        Prop::UserProperty(text("a"), text("b")),
    ];
    let connect = ConnectRef {
        version: V5,
        properties: Properties::list(&properties),
        will: connect.will.map(|w| WillRef {
            properties: Properties::list(&will),
            ..w
        }),
        ..connect
    };
    golden(
        &[V5],
        "10 6C  0004 'MQTT' 05 F6 1234
            2D  11 00000E10  21 0014  27 00020000  22 000A  19 01  17 00
                26 0001 'k' 0002 'v1'  26 0001 'k' 0002 'v2'  15 0001 'M'  16 0002 0102
            0002 'cl'
            1F  18 00000005  01 01  02 0000003C  03 0001 't'  08 0001 'r'  09 0001 07  26 0001 'a' 0001 'b'
            0003 'w/t' 0002 00FF  0001 'u'  0002 'p' 00",
        P::from(&connect),
    );
    // A password alone is new in MQTT 5.
    let token = ConnectRef {
        keep_alive_secs: 1,
        password: Some(b"pw"),
        ..ConnectRef::new(V5, text("c"))
    };
    golden(
        &[V5],
        "10 12  0004 'MQTT' 05 42 0001 00  0001 'c'  0002 'pw'",
        P::from(&token),
    );
}

//= test MQTT-3.1.3-10
#[test]
fn user_properties_of_a_will_keep_their_order() {
    let will = [
        Prop::UserProperty(text("b"), text("1")),
        Prop::UserProperty(text("a"), text("2")),
        Prop::UserProperty(text("b"), text("0")),
    ];
    let connect = ConnectRef {
        keep_alive_secs: 0,
        will: Some(WillRef {
            topic: topic("w"),
            payload: b"",
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::list(&will),
        }),
        ..ConnectRef::new(V5, text("c"))
    };
    golden(
        &[V5],
        "10 29  0004 'MQTT' 05 06 0000 00  0001 'c'
            15  26 0001 'b' 0001 '1'  26 0001 'a' 0001 '2'  26 0001 'b' 0001 '0'
            0001 'w' 0000",
        P::from(&connect),
    );
}

#[test]
fn connect_of_mqtt_31_may_end_before_the_credentials_that_its_flags_announce() {
    let client = ConnectRef {
        keep_alive_secs: 10,
        ..ConnectRef::new(V31, text("c"))
    };
    let bytes = hex("10 0F  0006 'MQIsdp' 03 C2 000A  0001 'c'");
    assert_eq!(P::decode(&bytes, V31), Ok(P::from(&client)));
    let bytes = hex("10 12  0006 'MQIsdp' 03 C2 000A  0001 'c' 0001 'u'");
    assert_eq!(
        P::decode(&bytes, V31),
        Ok(P::from(&ConnectRef {
            user_name: Some(text("u")),
            ..client
        }))
    );
}

//= test MQTT-3.2.2-8
#[test]
fn connack() {
    golden(OLD, "20 02  00 00", P::Connack(ConnackRef::new(R::Success)));
    golden(
        &[V311],
        "20 02  01 00",
        P::Connack(ConnackRef {
            session_present: true,
            ..ConnackRef::new(R::Success)
        }),
    );
    for (byte, code) in [
        (1, R::UnsupportedProtocolVersion),
        (2, R::ClientIdentifierNotValid),
        (3, R::ServerUnavailable),
        (4, R::BadUserNameOrPassword),
        (5, R::NotAuthorized),
    ] {
        golden(
            OLD,
            &format!("20 02  00 {byte:02X}"),
            P::Connack(ConnackRef::new(code)),
        );
    }
    golden(
        &[V5],
        "20 03  00 00 00",
        P::Connack(ConnackRef::new(R::Success)),
    );
    golden(
        &[V5],
        "20 03  01 00 00",
        P::Connack(ConnackRef {
            session_present: true,
            ..ConnackRef::new(R::Success)
        }),
    );
    golden(
        &[V5],
        "20 03  00 87 00",
        P::Connack(ConnackRef::new(R::NotAuthorized)),
    );
    let properties = [
        Prop::SessionExpiryInterval(u32::MAX),
        Prop::ReceiveMaximum(NonZeroU16::new(65535).unwrap()),
        Prop::MaximumQoS(QoS::AtLeastOnce),
        Prop::RetainAvailable(true),
        Prop::MaximumPacketSize(NonZeroU32::new(0x0002_4000).unwrap()),
        Prop::AssignedClientIdentifier(text("id")),
        Prop::TopicAliasMaximum(8),
        Prop::ReasonString(text("ok")),
        Prop::UserProperty(text("n"), text("v")),
        Prop::WildcardSubscriptionAvailable(true),
        Prop::SubscriptionIdentifierAvailable(false),
        Prop::SharedSubscriptionAvailable(true),
        Prop::ServerKeepAlive(1200),
        Prop::ResponseInformation(text("ri")),
        Prop::ServerReference(text("s")),
        Prop::AuthenticationMethod(text("m")),
        Prop::AuthenticationData(b"d"),
    ];
    golden(
        &[V5],
        "20 42  00 00  3F
            11 FFFFFFFF  21 FFFF  24 01  25 01  27 00024000  12 0002 'id'  22 0008  1F 0002 'ok'  26 0001 'n' 0001 'v'
            28 01  29 00  2A 01  13 04B0  1A 0002 'ri'  1C 0001 's'  15 0001 'm'  16 0001 'd'",
        P::Connack(ConnackRef { properties: Properties::list(&properties), ..ConnackRef::new(R::Success) }),
    );
}

#[test]
fn pings() {
    golden(ALL, "C0 00", P::Pingreq);
    golden(ALL, "D0 00", P::Pingresp);
}

//= test MQTT-3.14.2-1
#[test]
fn disconnect() {
    golden(ALL, "E0 00", P::Disconnect(DisconnectRef::new(R::Success)));
    golden(
        &[V5],
        "E0 01  04",
        P::Disconnect(DisconnectRef::new(R::DisconnectWithWillMessage)),
    );
    golden(
        &[V5],
        "E0 01  8E",
        P::Disconnect(DisconnectRef::new(R::SessionTakenOver)),
    );
    let properties = [
        Prop::SessionExpiryInterval(0),
        Prop::ReasonString(text("x")),
        Prop::ServerReference(text("y")),
        Prop::UserProperty(text("k"), text("v")),
    ];
    let packet = DisconnectRef {
        reason_code: R::ServerMoved,
        properties: Properties::list(&properties),
    };
    golden(
        &[V5],
        "E0 16  9D  14  11 00000000  1F 0001 'x'  1C 0001 'y'  26 0001 'k' 0001 'v'",
        P::Disconnect(packet),
    );
    accepted(
        &[V5],
        "E0 01  00",
        P::Disconnect(DisconnectRef::new(R::Success)),
    );
    accepted(
        &[V5],
        "E0 02  00 00",
        P::Disconnect(DisconnectRef::new(R::Success)),
    );
    accepted(
        &[V5],
        "E0 02  81 00",
        P::Disconnect(DisconnectRef::new(R::MalformedPacket)),
    );
}

//= test MQTT-3.15.1-1
//= test MQTT-3.15.2-1
#[test]
fn auth() {
    golden(
        &[V5],
        "F0 00",
        P::Auth(AuthRef {
            reason_code: R::Success,
            properties: Properties::EMPTY,
        }),
    );
    accepted(
        &[V5],
        "F0 02  00 00",
        P::Auth(AuthRef {
            reason_code: R::Success,
            properties: Properties::EMPTY,
        }),
    );
    let properties = [
        Prop::AuthenticationMethod(text("SCRAM")),
        Prop::AuthenticationData(b"\x00\x01"),
        Prop::ReasonString(text("r")),
    ];
    let packet = AuthRef {
        reason_code: R::ContinueAuthentication,
        properties: Properties::list(&properties),
    };
    golden(
        &[V5],
        "F0 13  18  11  15 0005 'SCRAM'  16 0002 0001  1F 0001 'r'",
        P::Auth(packet),
    );
    golden(
        &[V5],
        "F0 13  19  11  15 0005 'SCRAM'  16 0002 0001  1F 0001 'r'",
        P::Auth(AuthRef {
            reason_code: R::ReAuthenticate,
            ..packet
        }),
    );
}
