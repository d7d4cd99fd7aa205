//! Connecting: what CONNECT says, and what CONNACK means.

mod common;

use core::time::Duration;

use bytes::Bytes;
use common::{Client, VERSIONS, config, resuming};
use mqtt_codec::{
    AuthRef, ConnackRef, Packet, PacketRef, Properties, Property, ProtocolVersion, QoS, ReasonCode,
    Text,
};
use mqtt_session::{
    Authentication, BrokerOnlySession, CleanStart, ConfigError, ConnectionError, ConnectionStage,
    Disconnect, DisconnectCause, Event, ProtocolViolation, Session, SessionPresence, StateError,
    Timeout, TransportEnd, Will, WillOnDisconnect,
};

fn text(text: &str) -> Text<'_> {
    Text::new(text).unwrap()
}

fn on_first(version: ProtocolVersion) -> mqtt_session::Config {
    let mut config = config(version);
    config.clean_start = CleanStart::OnFirst;
    config
}

fn is_clean(connect: &Packet) -> bool {
    let Packet::Connect(connect) = connect else {
        panic!("{connect:?}")
    };
    connect.as_ref().clean_start
}

fn presence(client: &mut Client) -> SessionPresence {
    let connected = client.events().into_iter().find_map(|event| {
        if let Event::Connected(connected) = event {
            Some(connected)
        } else {
            None
        }
    });
    connected.expect("connected").session
}

#[test]
//= test MQTT-3.1.0-1
//= test v3.1.1 MQTT-3.1.0-1
//= test MQTT-3.1.3-2
//= test v3.1.1 MQTT-3.1.3-2
fn connect_carries_what_was_configured() {
    let mut config = config(ProtocolVersion::V5);
    config.username = Some("alice".into());
    config.password = Some(Bytes::from_static(b"secret"));
    config.keep_alive = Duration::from_secs(30);
    config.session_expiry = Duration::MAX;
    let mut will = Will::new("will/topic", "gone");
    will.qos = QoS::AtLeastOnce;
    will.delay = Duration::from_secs(5);
    config.will = Some(will);
    config.user_properties = vec![("k".into(), "v".into())];
    let mut client = Client::new(config);
    let Packet::Connect(connect) = client.open() else {
        panic!()
    };
    let connect = connect.as_ref();
    assert_eq!(connect.client_id, "client");
    assert_eq!(connect.keep_alive_secs, 30);
    assert_eq!(connect.user_name.unwrap(), "alice");
    assert_eq!(connect.password.unwrap(), b"secret");
    assert_eq!(connect.properties.session_expiry_interval(), Some(u32::MAX));
    assert_eq!(connect.properties.receive_maximum().unwrap().get(), 256);
    assert_eq!(
        connect.properties.maximum_packet_size().unwrap().get(),
        1 << 20
    );
    assert_eq!(connect.properties.topic_alias_maximum(), Some(16));
    assert_eq!(connect.properties.user_properties().count(), 1);
    let will = connect.will.unwrap();
    assert_eq!(
        (will.topic.as_str(), will.payload, will.qos, will.retain),
        ("will/topic", b"gone".as_slice(), QoS::AtLeastOnce, false)
    );
    assert_eq!(will.properties.will_delay_interval(), Some(5));
}

#[test]
fn one_transport_at_a_time_and_spurious_calls_are_harmless() {
    let mut client = Client::new(config(ProtocolVersion::V311));
    client.close(TransportEnd::ClosedByPeer);
    client.session.handle_timeout(client.now);
    assert_eq!(client.sent().len(), 0);
    client.receive_bytes(&[0xff; 20]).unwrap();
    assert_eq!(client.session.poll_timeout(), None);
    client.connect(ConnackRef::new(ReasonCode::Success));
    assert_eq!(
        client.session.transport_opened(client.now),
        Err(StateError::TransportOpen)
    );
    client.session.handle_timeout(client.now);
    client.receive_bytes(&[]).unwrap();
    assert_eq!(client.sent().len(), 0);
    assert!(matches!(client.events().as_slice(), [Event::Connected(_)]));
    client.close(TransportEnd::Failed);
    client.close(TransportEnd::Failed);
    assert!(
        matches!(client.events().as_slice(), [Event::Disconnected(_)]),
        "reported once"
    );
}

#[test]
//= test MQTT-4.13.2-1
fn a_refusal_is_reported_with_its_reason_in_either_version() {
    for version in VERSIONS {
        let mut client = Client::new(config(version));
        client.connect(ConnackRef::new(ReasonCode::NotAuthorized));
        let events = client.events();
        let [Event::ConnectRefused(refused)] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!(refused.reason, ReasonCode::NotAuthorized);
        assert_eq!(client.sent().len(), 0);
        client.close(TransportEnd::ClosedByPeer);
        assert!(client.events().is_empty(), "a refused attempt has one end");
        client.connect(ConnackRef::new(ReasonCode::Success));
        assert_eq!(presence(&mut client), SessionPresence::New);
    }
}

#[test]
//= test MQTT-3.2.2-4
fn a_session_that_only_the_broker_knows_is_refused_and_the_next_connect_is_clean() {
    let mut config = resuming(ProtocolVersion::V5);
    config.clean_start = CleanStart::Never;
    let mut client = Client::new(config);
    assert!(!is_clean(&client.open()));
    let connack = ConnackRef {
        session_present: true,
        ..ConnackRef::new(ReasonCode::Success)
    };
    let error = client.receive(PacketRef::Connack(connack)).unwrap_err();
    assert_eq!(
        error,
        ConnectionError::Protocol(ProtocolViolation::SessionPresentWithoutState)
    );
    let events = client.events();
    let [Event::Disconnected(disconnected)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(
        (&disconnected.cause, disconnected.stage),
        (&DisconnectCause::Error(error), ConnectionStage::Connecting)
    );
    assert!(is_clean(&client.open()));
    client
        .receive(PacketRef::Connack(ConnackRef::new(ReasonCode::Success)))
        .unwrap();
    assert_eq!(presence(&mut client), SessionPresence::New);
    client.close(TransportEnd::Failed);
    assert!(!is_clean(&client.open()), "from then on it resumes");
}

#[test]
fn a_session_that_only_the_broker_knows_is_accepted_if_told_so() {
    for version in VERSIONS {
        let mut config = resuming(version);
        config.clean_start = CleanStart::Never;
        config.broker_only_session = BrokerOnlySession::Accept;
        let mut client = Client::new(config);
        client.connect_with(true, &[]);
        assert_eq!(presence(&mut client), SessionPresence::Resumed);
    }
}

#[test]
//= test MQTT-3.2.2-2
//= test MQTT-3.2.2-5
fn session_present_is_compared_with_what_we_know() {
    for version in VERSIONS {
        let mut client = Client::new(on_first(version));
        assert!(is_clean(&client.open()), "nothing to resume yet");
        let present = ConnackRef {
            session_present: true,
            ..ConnackRef::new(ReasonCode::Success)
        };
        let error = client.receive(PacketRef::Connack(present)).unwrap_err();
        assert_eq!(
            error,
            ConnectionError::Protocol(ProtocolViolation::SessionPresentOnCleanStart)
        );
        client.events();
        for (present, expected) in [
            (false, SessionPresence::New),
            (true, SessionPresence::Resumed),
            (false, SessionPresence::Lost),
        ] {
            client.connect_with(present, &[]);
            assert_eq!(presence(&mut client), expected);
            client.close(TransportEnd::Failed);
            client.events();
        }
    }
}

#[test]
//= test MQTT-3.1.2-4
//= test v3.1.1 MQTT-3.1.2-6
fn a_clean_start_every_time_loses_the_session_every_time() {
    let mut client = Client::connected(config(ProtocolVersion::V311));
    assert_eq!(presence(&mut client), SessionPresence::New);
    client.close(TransportEnd::Failed);
    assert!(is_clean(&client.open()));
    client
        .receive(PacketRef::Connack(ConnackRef::new(ReasonCode::Success)))
        .unwrap();
    client.events().iter().for_each(|event| {
        if let Event::Connected(connected) = event {
            assert_eq!(connected.session, SessionPresence::Lost);
        }
    });
}

#[test]
fn the_negotiated_limits_are_reported() {
    let mut client = Client::new(config(ProtocolVersion::V5));
    let properties = [
        Property::ReceiveMaximum(10.try_into().unwrap()),
        Property::MaximumPacketSize(1000.try_into().unwrap()),
        Property::MaximumQoS(QoS::AtLeastOnce),
        Property::RetainAvailable(false),
        Property::WildcardSubscriptionAvailable(false),
        Property::SubscriptionIdentifierAvailable(false),
        Property::SharedSubscriptionAvailable(false),
        Property::TopicAliasMaximum(3),
        Property::ServerKeepAlive(7),
        Property::SessionExpiryInterval(u32::MAX),
        Property::ServerReference(text("other.example")),
        Property::ReasonString(text("hello")),
    ];
    client.connect_with(false, &properties);
    let events = client.events();
    let [Event::Connected(connected)] = events.as_slice() else {
        panic!("{events:?}")
    };
    let limits = connected.limits;
    assert_eq!(
        (
            limits.in_flight,
            limits.maximum_packet_size,
            limits.maximum_qos,
            limits.topic_aliases
        ),
        (10, 1000, QoS::AtLeastOnce, 3)
    );
    assert!(!limits.retain.is_available() && !limits.wildcard_subscriptions.is_available());
    assert!(
        !limits.subscription_identifiers.is_available()
            && !limits.shared_subscriptions.is_available()
    );
    assert_eq!(
        (connected.keep_alive, connected.session_expiry),
        (Duration::from_secs(7), Duration::MAX)
    );
    assert_eq!(
        (
            connected.server_reference.as_deref(),
            connected.reason_string.as_deref()
        ),
        (Some("other.example"), Some("hello"))
    );
}

#[test]
fn an_assigned_client_identifier_is_used_again() {
    let mut config = config(ProtocolVersion::V5);
    config.client_id = String::new();
    let mut client = Client::new(config);
    client.connect_with(false, &[Property::AssignedClientIdentifier(text("given"))]);
    client.close(TransportEnd::Failed);
    let Packet::Connect(connect) = client.open() else {
        panic!()
    };
    assert_eq!(connect.as_ref().client_id, "given");
}

#[test]
fn a_connack_that_does_not_come_is_a_timeout() {
    let mut client = Client::new(config(ProtocolVersion::V5));
    client.open();
    assert_eq!(
        client.session.poll_timeout(),
        Some(client.now + Duration::from_secs(10))
    );
    client.pass(Duration::from_secs(9));
    assert!(client.events().is_empty());
    client.pass(Duration::from_secs(1));
    let events = client.events();
    let [Event::Disconnected(disconnected)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(
        disconnected.cause,
        DisconnectCause::Error(ConnectionError::Timeout(Timeout::Connack))
    );
    assert_eq!(client.sent().len(), 0);
}

#[test]
//= test MQTT-3.14.4-1
//= test MQTT-3.14.4-2
//= test v3.1.1 MQTT-3.14.4-1
//= test v3.1.1 MQTT-3.14.4-2
fn disconnect_is_the_last_packet_and_reported_when_it_was_handed_out() {
    for version in VERSIONS {
        let mut client = Client::connected(config(version));
        client.events();
        client.publish("kept", QoS::AtLeastOnce);
        client
            .session
            .disconnect(Disconnect::default(), client.now)
            .unwrap();
        assert!(client.events().is_empty());
        assert_eq!(client.sent_words(), ["DISCONNECT 00"]);
        let events = client.events();
        let [Event::Disconnected(disconnected)] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!(disconnected.cause, DisconnectCause::Requested);
        assert_eq!(
            client.session.disconnect(Disconnect::default(), client.now),
            Err(StateError::NotConnected)
        );
        assert_eq!(
            client.session.stats().queued_messages,
            1,
            "what waits stays"
        );
    }
}

#[test]
//= test MQTT-3.1.2-23
fn disconnect_options_are_checked() {
    let mut with_will = Disconnect::default();
    with_will.will = WillOnDisconnect::Publish;
    let mut with_expiry = Disconnect::default();
    with_expiry.session_expiry = Some(Duration::from_secs(1));

    let mut old = Client::connected(config(ProtocolVersion::V311));
    assert_eq!(
        old.session.disconnect(with_will, old.now),
        Err(StateError::NeedsV5)
    );
    let mut client = Client::connected(config(ProtocolVersion::V5));
    assert_eq!(
        client.session.disconnect(with_expiry, client.now),
        Err(StateError::SessionExpiryWasZero)
    );
    client.session.disconnect(with_will, client.now).unwrap();
    assert_eq!(client.sent_words(), ["DISCONNECT 04"]);
}

#[test]
//= test MQTT-4.13.2-1
//= test MQTT-3.14.2-2
fn a_server_disconnect_reaches_the_caller_with_its_reason() {
    let mut client = Client::connected(config(ProtocolVersion::V5));
    client.events();
    client.disconnect_by_server(ReasonCode::SessionTakenOver);
    let events = client.events();
    let [Event::Disconnected(disconnected)] = events.as_slice() else {
        panic!("{events:?}")
    };
    let DisconnectCause::Server(server) = &disconnected.cause else {
        panic!("{disconnected:?}")
    };
    assert_eq!(server.reason, ReasonCode::SessionTakenOver);
    assert_eq!(client.sent().len(), 0);
}

#[test]
//= test MQTT-3.1.2-30
//= test MQTT-4.12.0-3
//= test MQTT-4.12.1-1
//= test MQTT-4.12.1-2
fn enhanced_authentication_and_reauthentication() {
    let mut config = config(ProtocolVersion::V5);
    config.authentication = Some(Authentication::new(
        "SCRAM",
        Some(Bytes::from_static(b"first")),
    ));
    let mut client = Client::new(config);
    let Packet::Connect(connect) = client.open() else {
        panic!()
    };
    assert_eq!(
        connect.as_ref().properties.authentication_method().unwrap(),
        "SCRAM"
    );
    let challenge = [
        Property::AuthenticationMethod(text("SCRAM")),
        Property::AuthenticationData(b"challenge"),
    ];
    let auth = |reason_code| {
        PacketRef::Auth(AuthRef {
            reason_code,
            properties: Properties::list(&challenge),
        })
    };

    client
        .receive(auth(ReasonCode::ContinueAuthentication))
        .unwrap();
    let events = client.events();
    let [Event::AuthChallenge(data)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(data.data.as_deref(), Some(b"challenge".as_slice()));
    client
        .session
        .authenticate(Some(Bytes::from_static(b"answer")), client.now)
        .unwrap();
    assert_eq!(client.sent_words(), ["AUTH 18"]);
    let connack = ConnackRef {
        properties: Properties::list(&challenge),
        ..ConnackRef::new(ReasonCode::Success)
    };
    client.receive(PacketRef::Connack(connack)).unwrap();
    assert!(matches!(client.events().as_slice(), [Event::Connected(_)]));

    client.session.reauthenticate(None, client.now).unwrap();
    assert_eq!(client.sent_words(), ["AUTH 19"]);
    client
        .receive(auth(ReasonCode::ContinueAuthentication))
        .unwrap();
    client.session.authenticate(None, client.now).unwrap();
    client.receive(auth(ReasonCode::Success)).unwrap();
    assert!(matches!(
        client.events().as_slice(),
        [Event::AuthChallenge(_), Event::Reauthenticated(_)]
    ));
    assert_eq!(
        client.receive(auth(ReasonCode::Success)),
        Err(ConnectionError::Protocol(ProtocolViolation::UnexpectedAuth))
    );
}

#[test]
//= test MQTT-4.12.0-7
fn without_a_method_nothing_is_authenticated() {
    let mut client = Client::connected(config(ProtocolVersion::V5));
    for refused in [
        client.session.authenticate(None, client.now),
        client.session.reauthenticate(None, client.now),
    ] {
        assert_eq!(refused, Err(StateError::NoAuthentication));
    }
    assert_eq!(client.sent_words(), [""; 0]);
}

#[test]
//= test MQTT-4.12.0-5
fn the_authentication_method_may_not_change() {
    let mut config = config(ProtocolVersion::V5);
    config.authentication = Some(Authentication::new("A", None));
    let mut client = Client::new(config);
    client.open();
    let other = [Property::AuthenticationMethod(text("B"))];
    let auth = PacketRef::Auth(AuthRef {
        reason_code: ReasonCode::ContinueAuthentication,
        properties: Properties::list(&other),
    });
    assert_eq!(
        client.receive(auth),
        Err(ConnectionError::Protocol(
            ProtocolViolation::AuthenticationMethodChanged
        ))
    );
}

#[test]
fn credentials_can_be_renewed_between_connections() {
    let mut config = config(ProtocolVersion::V311);
    config.username = Some("u".into());
    let mut client = Client::new(config);
    assert_eq!(
        client
            .session
            .set_credentials(None, Some(Bytes::from_static(b"p"))),
        Err(ConfigError::PasswordWithoutUsername)
    );
    client
        .session
        .set_credentials(Some("v".into()), Some(Bytes::from_static(b"p")))
        .unwrap();
    let Packet::Connect(connect) = client.open() else {
        panic!()
    };
    assert_eq!(
        (
            connect.as_ref().user_name.unwrap().as_str(),
            connect.as_ref().password
        ),
        ("v", Some(b"p".as_slice()))
    );
}

#[test]
fn a_configuration_that_no_connect_can_carry_is_refused() {
    let check = |change: &dyn Fn(&mut mqtt_session::Config), version| {
        let mut config = config(version);
        change(&mut config);
        Session::new(config).err()
    };
    let v311 = ProtocolVersion::V311;
    assert_eq!(
        check(&|c| c.client_id = "x".repeat(65_536), v311),
        Some(ConfigError::Text("client_id"))
    );
    assert_eq!(
        check(&|c| c.client_id = "x".repeat(24), ProtocolVersion::V31),
        Some(ConfigError::ClientIdLengthV31)
    );
    assert_eq!(
        check(&|c| c.keep_alive = Duration::from_millis(500), v311),
        Some(ConfigError::KeepAlive)
    );
    assert_eq!(
        check(&|c| c.keep_alive = Duration::from_secs(65_536), v311),
        Some(ConfigError::KeepAlive)
    );
    assert_eq!(
        check(&|c| c.maximum_packet_size = 63, v311),
        Some(ConfigError::MaximumPacketSize)
    );
    assert_eq!(
        check(&|c| c.will = Some(Will::new("a/#", "")), v311),
        Some(ConfigError::WillTopic)
    );
    assert_eq!(
        check(
            &|c| c.user_properties = vec![("a".into(), "b".into())],
            v311
        ),
        Some(ConfigError::NeedsV5)
    );
    let zero: [&dyn Fn(&mut mqtt_session::Config); 5] = [
        &|c| c.max_queued_messages = 0,
        &|c| c.max_outbound_bytes = 0,
        &|c| c.max_pending_operations = 0,
        &|c| c.max_pending_events = 0,
        &|c| c.max_pending_replies = 0,
    ];
    for change in zero {
        assert_eq!(check(change, v311), Some(ConfigError::ZeroBound));
    }
    assert_eq!(
        check(&|c| c.max_in_flight = 65_535.try_into().unwrap(), v311),
        Some(ConfigError::MaxInFlight)
    );
    let resume_without_name = |c: &mut mqtt_session::Config| {
        c.client_id = String::new();
        c.clean_start = CleanStart::Never;
    };
    assert_eq!(
        check(&resume_without_name, v311),
        Some(ConfigError::ClientIdNeededToResume)
    );
}

#[test]
fn a_time_that_the_wire_cannot_say_is_sent_as_the_longest_that_it_can() {
    let mut config = config(ProtocolVersion::V5);
    let mut will = Will::new("w", "");
    will.delay = Duration::MAX;
    will.expiry = Some(Duration::MAX);
    config.will = Some(will);
    config.session_expiry = Duration::MAX;
    let mut client = Client::new(config);
    let Packet::Connect(connect) = client.open() else {
        panic!()
    };
    let connect = connect.as_ref();
    let will = connect.will.unwrap();
    assert_eq!(will.properties.will_delay_interval(), Some(u32::MAX));
    assert_eq!(will.properties.message_expiry_interval(), Some(u32::MAX));
    assert_eq!(connect.properties.session_expiry_interval(), Some(u32::MAX));
    client
        .receive(PacketRef::Connack(ConnackRef::new(ReasonCode::Success)))
        .unwrap();
    let mut publish = mqtt_session::Publish::new("t", "", QoS::AtMostOnce);
    publish.expiry = Some(Duration::MAX);
    client.session.publish(publish, client.now).unwrap();
    let sent = client.sent();
    let [Packet::Publish(publish)] = &sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!(
        publish.properties().message_expiry_interval(),
        Some(u32::MAX)
    );
}

#[test]
fn nothing_prints_a_secret() {
    const MARKER: &str = "hunter2";
    let mut config = config(ProtocolVersion::V5);
    config.username = Some(MARKER.into());
    config.password = Some(Bytes::from_static(MARKER.as_bytes()));
    config.authentication = Some(Authentication::new(
        "m",
        Some(Bytes::from_static(MARKER.as_bytes())),
    ));
    config.will = Some(Will::new("w", MARKER));
    let mut session = Session::new(config.clone()).unwrap();
    let publish = mqtt_session::Publish::new("t", MARKER, QoS::AtMostOnce);
    let error = session
        .publish(
            mqtt_session::Publish::new("t/#", MARKER, QoS::AtMostOnce),
            mqtt_session::Timestamp::ZERO,
        )
        .unwrap_err();
    for shown in [
        format!("{config:?}"),
        format!("{session:?}"),
        format!("{publish:?}"),
        format!("{error:?} {error}"),
        format!("{:?}", config.will),
    ] {
        assert!(!shown.contains(MARKER), "{shown}");
        let as_list = format!("{:?}", MARKER.as_bytes());
        assert!(!shown.contains(as_list.trim_matches(['[', ']'])), "{shown}");
    }
}

#[test]
fn mqtt_3_1_has_no_session_present_and_is_taken_as_resumed() {
    let mut config = resuming(ProtocolVersion::V31);
    config.client_id = "short".into();
    let mut client = Client::new(config);
    let Packet::Connect(connect) = client.open() else {
        panic!()
    };
    assert_eq!(connect.as_ref().version, ProtocolVersion::V31);
    client
        .receive(PacketRef::Connack(ConnackRef::new(ReasonCode::Success)))
        .unwrap();
    assert_eq!(presence(&mut client), SessionPresence::New);
    client.publish("one", QoS::AtLeastOnce);
    client
        .session
        .subscribe(
            &[mqtt_session::Subscription::new("a", QoS::AtLeastOnce)],
            client.now,
        )
        .unwrap();
    assert_eq!(
        client.sent_words(),
        ["SUBSCRIBE #65520 a", "PUBLISH q1 #1 one"]
    );
    client.suback(65_520, &[ReasonCode::GrantedQoS1]);
    client.close(TransportEnd::Failed);
    client.events();
    client.connect(ConnackRef::new(ReasonCode::Success));
    assert_eq!(presence(&mut client), SessionPresence::Resumed);
    // Subscribing again does no harm if it was, and is needed if it was not.
    assert_eq!(
        client.sent_words(),
        ["SUBSCRIBE #65521 a", "PUBLISH dup q1 #1 one"]
    );
}
