//! SUBSCRIBE right behind CONNECT: when it leaves there, and that nothing is lost or repeated whatever the answer is.

mod common;

use common::{Client, VERSIONS, id, resuming};
use mqtt_codec::{
    ConnackRef, PacketRef, Properties, ProtocolVersion, QoS, ReasonCode, ReasonCodes, SubackRef,
    SubscriptionId,
};
use mqtt_session::{
    Authentication, Config, ConnectionError, DisconnectCause, Event, Persistence,
    ProtocolViolation, Resubscribe, SubscribeBeforeConnack, SubscribeError, SubscribeOutcome,
    Subscription, Timeout, TransportEnd,
};

use ProtocolVersion::{V5, V31, V311};

/// The first identifier that is kept back for SUBSCRIBE and UNSUBSCRIBE.
const FIRST: u16 = 65_520;

fn client(version: ProtocolVersion, early: SubscribeBeforeConnack) -> Client {
    let mut config = Config::new(version, "client");
    config.subscribe_before_connack = early;
    Client::new(config)
}

fn certain(version: ProtocolVersion) -> Client {
    assert_eq!(
        Config::new(version, "client").subscribe_before_connack,
        SubscribeBeforeConnack::WhenCertain,
        "the default"
    );
    client(version, SubscribeBeforeConnack::WhenCertain)
}

fn subscribe(client: &mut Client, filters: &[&str]) {
    let wanted: Vec<_> = filters
        .iter()
        .map(|filter| Subscription::new(*filter, QoS::AtLeastOnce))
        .collect();
    client.session.subscribe(&wanted, client.now).unwrap();
}

fn accept(client: &mut Client) {
    let connack = ConnackRef::new(ReasonCode::Success);
    client.receive(PacketRef::Connack(connack)).unwrap();
}

/// Without the packet identifiers.
fn plain(words: &[String]) -> Vec<String> {
    let without = |words: &String| {
        let rest = words.split(' ').filter(|word| !word.starts_with('#'));
        rest.collect::<Vec<_>>().join(" ")
    };
    words.iter().map(without).collect()
}

/// Grants what was asked for in these packets.
fn grant(client: &mut Client, sent: &[String]) {
    for words in sent.iter().filter(|words| words.starts_with("SUBSCRIBE")) {
        let words: Vec<&str> = words.split(' ').collect();
        let number = words[1].trim_start_matches('#').parse().unwrap();
        client.suback(number, &vec![ReasonCode::GrantedQoS1; words.len() - 2]);
    }
}

fn outcomes(client: &mut Client) -> Vec<SubscribeOutcome> {
    let events = client.events();
    let results = events.iter().filter_map(|event| match event {
        Event::SubscribeCompleted { results, .. } => Some(results),
        Event::Resubscribed(resubscribed) => Some(&resubscribed.results),
        _ => None,
    });
    results.flatten().map(|result| result.outcome).collect()
}

const GRANTED: SubscribeOutcome = SubscribeOutcome::Granted(QoS::AtLeastOnce);

#[test]
fn it_leaves_with_the_connect_and_is_answered_behind_the_connack() {
    for version in VERSIONS {
        let mut client = certain(version);
        subscribe(&mut client, &["a", "b/c"]);
        assert_eq!(
            client.open_words(),
            ["CONNECT".to_owned(), format!("SUBSCRIBE #{FIRST} a b/c")]
        );
        // Called for while the answer is awaited.
        subscribe(&mut client, &["d"]);
        client.publish("m", QoS::AtMostOnce);
        assert_eq!(
            client.sent_words(),
            [format!("SUBSCRIBE #{} d", FIRST + 1)],
            "and no PUBLISH"
        );
        accept(&mut client);
        assert_eq!(client.sent_words(), ["PUBLISH q0 m"]);
        client.suback(FIRST, &[ReasonCode::GrantedQoS1; 2]);
        client.suback(FIRST + 1, &[ReasonCode::GrantedQoS1]);
        assert_eq!(outcomes(&mut client), [GRANTED; 3]);
        assert_eq!(client.session.stats().packet_ids_in_use, 0);
    }
}

#[test]
fn of_a_server_of_mqtt_5_only_that_is_asked_early_which_it_cannot_decline() {
    // The CONNECT of these has 32 bytes.
    let at_most = "a".repeat(16);
    let too_long = "a".repeat(17);
    for (filter, is_early) in [
        ("a/b", true),
        ("a/+", false),
        ("#", false),
        ("$share/g/a", false),
        (at_most.as_str(), true),
        (too_long.as_str(), false),
    ] {
        for (early, expected) in [
            (SubscribeBeforeConnack::Never, false),
            (SubscribeBeforeConnack::WhenCertain, is_early),
            (SubscribeBeforeConnack::WhenClean, true),
        ] {
            let mut client = client(V5, early);
            subscribe(&mut client, &[filter]);
            assert_eq!(
                client.open_words().len() == 2,
                expected,
                "{filter} {early:?}"
            );
            if expected {
                continue;
            }
            // What this one declines is not sent, as ever.
            client
                .receive(PacketRef::Connack(ConnackRef {
                    properties: Properties::list(&[
                        mqtt_codec::Property::WildcardSubscriptionAvailable(false),
                        mqtt_codec::Property::SharedSubscriptionAvailable(false),
                    ]),
                    ..ConnackRef::new(ReasonCode::Success)
                }))
                .unwrap();
            let is_declined = filter.contains(['+', '#', '$']);
            assert_eq!(client.sent().len(), usize::from(!is_declined), "{filter}");
            let refused = outcomes(&mut client);
            assert_eq!(
                matches!(
                    refused.as_slice(),
                    [SubscribeOutcome::NotSent(
                        SubscribeError::WildcardsNotSupported { .. }
                            | SubscribeError::SharedNotSupported { .. }
                    )]
                ),
                is_declined
            );
        }
    }
    for (early, expected) in [
        (SubscribeBeforeConnack::WhenCertain, 1),
        (SubscribeBeforeConnack::WhenClean, 2),
    ] {
        let mut client = client(V5, early);
        let wanted = [Subscription::new("a", QoS::AtLeastOnce)];
        let id = Some(SubscriptionId::new(1).unwrap());
        client
            .session
            .subscribe_with_id(&wanted, id, client.now)
            .unwrap();
        assert_eq!(client.open_words().len(), expected, "an identifier");
    }
    // 3.1.1 has nothing of it to decline.
    for filter in ["a/+", "#", "$share/g/a", too_long.as_str()] {
        let mut client = certain(V311);
        subscribe(&mut client, &[filter]);
        assert_eq!(client.open_words().len(), 2, "{filter}");
    }
}

#[test]
fn what_may_not_leave_holds_back_what_is_behind_it() {
    let mut client = certain(V5);
    for filter in ["a", "b/#", "c"] {
        subscribe(&mut client, &[filter]);
    }
    assert_eq!(
        client.open_words(),
        ["CONNECT".to_owned(), format!("SUBSCRIBE #{FIRST} a")]
    );
    accept(&mut client);
    assert_eq!(
        client.sent_words(),
        [format!("SUBSCRIBE #{} b/# c", FIRST + 1)]
    );

    let mut client = certain(V311);
    subscribe(&mut client, &["a"]);
    client.open_words();
    client
        .session
        .unsubscribe(&["a".into()], client.now)
        .unwrap();
    subscribe(&mut client, &["a"]);
    assert_eq!(
        client.sent().len(),
        0,
        "UNSUBSCRIBE waits, and so does the rest"
    );
    accept(&mut client);
    assert_eq!(
        client.sent_words(),
        [
            format!("UNSUBSCRIBE #{} a", FIRST + 1),
            format!("SUBSCRIBE #{} a", FIRST + 2)
        ]
    );
}

#[test]
fn at_most_four_kibibytes_leave_early() {
    let mut client = certain(V311);
    let filters: Vec<String> = (0..400)
        .map(|number| format!("filter/number/{number:03}"))
        .collect();
    for filter in &filters {
        subscribe(&mut client, &[filter]);
        if client.session.stats().pending_operations == 250 {
            break;
        }
    }
    client.session.transport_opened(client.now).unwrap();
    let mut out = bytes::BytesMut::new();
    while client.session.poll_transmit(&mut out, 1000, client.now) > 0 {}
    assert!((3000..=4096 + 20).contains(&out.len()), "{}", out.len());
    accept(&mut client);
    let early = out.len();
    while client.session.poll_transmit(&mut out, 1000, client.now) > 0 {}
    assert!(out.len() > early);
}

#[test]
//= test MQTT-3.1.2-30
fn it_waits_where_the_answer_may_change_what_is_to_be_sent() {
    let with = |change: &dyn Fn(&mut Config), version| {
        let mut config = Config::new(version, "client");
        config.subscribe_before_connack = SubscribeBeforeConnack::WhenClean;
        change(&mut config);
        let mut client = Client::new(config);
        subscribe(&mut client, &["a"]);
        client.session.transport_opened(client.now).unwrap();
        let mut out = bytes::BytesMut::new();
        client.session.poll_transmit(&mut out, 1000, client.now);
        client.session.poll_transmit(&mut out, 1000, client.now);
        mqtt_codec::Decoder::new(version)
            .decode(&mut out)
            .unwrap()
            .expect("a CONNECT");
        !out.is_empty()
    };
    for version in VERSIONS {
        assert!(with(&|_| {}, version));
        // It has records to be stored first.
        assert!(!with(
            &|config| config.persistence = Persistence::On,
            version
        ));
        assert!(!with(
            &|config| config.clean_start = mqtt_session::CleanStart::Never,
            version
        ));
    }
    assert!(!with(&|_| {}, V31));
    assert!(!with(
        &|config| config.authentication = Some(Authentication::new("m", None)),
        V5
    ));
    // A session that is to be resumed: early only while there is none.
    let mut config = resuming(V5);
    config.subscribe_before_connack = SubscribeBeforeConnack::WhenClean;
    let mut client = Client::new(config);
    subscribe(&mut client, &["a"]);
    assert_eq!(client.open_words().len(), 2);
    accept(&mut client);
    client.suback(FIRST, &[ReasonCode::GrantedQoS1]);
    client.close(TransportEnd::Failed);
    subscribe(&mut client, &["b"]);
    assert_eq!(client.open_words(), ["CONNECT"]);
}

#[test]
fn a_refused_connect_leaves_the_call_waiting() {
    for version in VERSIONS {
        let mut client = certain(version);
        subscribe(&mut client, &["a"]);
        for _ in 0..3 {
            assert_eq!(client.open_words().len(), 2);
            let refusal = ConnackRef::new(ReasonCode::ServerUnavailable);
            client.receive(PacketRef::Connack(refusal)).unwrap();
            assert!(matches!(
                client.events().as_slice(),
                [Event::ConnectRefused(_)]
            ));
            assert_eq!(client.session.stats().packet_ids_in_use, 0);
            assert_eq!(client.session.stats().pending_operations, 1);
            client.close(TransportEnd::ClosedByPeer);
        }
        let sent = client.open_words();
        assert_eq!(sent.len(), 2);
        accept(&mut client);
        grant(&mut client, &sent);
        assert_eq!(outcomes(&mut client), [GRANTED]);
    }
}

#[test]
fn an_answer_before_the_connack_breaks_the_protocol() {
    for version in VERSIONS {
        let mut client = certain(version);
        subscribe(&mut client, &["a"]);
        assert_eq!(client.open_words().len(), 2);
        let suback = SubackRef {
            packet_id: id(FIRST),
            properties: Properties::EMPTY,
            reason_codes: ReasonCodes::list(&[ReasonCode::GrantedQoS1]),
        };
        assert_eq!(
            client.receive(PacketRef::Suback(suback)),
            Err(ConnectionError::Protocol(ProtocolViolation::NotConnack))
        );
        assert_eq!(outcomes(&mut client), []);
        client.close(TransportEnd::ClosedLocally);
        // This broker is spared the next time.
        assert_eq!(client.open_words(), ["CONNECT"]);
        accept(&mut client);
        assert_eq!(plain(&client.sent_words()), ["SUBSCRIBE a"]);
    }
}

#[test]
fn a_broker_that_hangs_up_on_it_is_given_the_connect_alone() {
    for (end, spares) in [
        (TransportEnd::ClosedByPeer, true),
        (TransportEnd::Failed, true),
        (TransportEnd::ClosedLocally, false),
    ] {
        let mut client = certain(V311);
        subscribe(&mut client, &["a"]);
        for round in 0..3 {
            let is_early = round < 2 || !spares;
            assert_eq!(
                client.open_words().len(),
                1 + usize::from(is_early),
                "{end:?}"
            );
            client.close(end);
            if !spares {
                continue;
            }
            if is_early {
                assert_eq!(client.open_words(), ["CONNECT"], "{end:?} {round}");
                accept(&mut client);
                // Cut off before its answer: whatever it means, it is not that SUBSCRIBE came early.
                client.close(TransportEnd::Failed);
            }
        }
    }
}

#[test]
fn a_broker_that_throws_it_away_is_left_and_asked_again() {
    for version in VERSIONS {
        let mut client = certain(version);
        subscribe(&mut client, &["a"]);
        for round in 0..3 {
            assert_eq!(client.open_words().len(), if round < 2 { 2 } else { 1 });
            if round == 2 {
                break;
            }
            accept(&mut client);
            // It lives, and is asked for a sign of life; but of the SUBSCRIBE it says nothing.
            client.events();
            let patience = client.session.config().connack_timeout;
            assert_eq!(client.session.poll_timeout(), Some(client.now + patience));
            client.pass(patience);
            let events = client.events();
            let [Event::Disconnected(disconnected)] = events.as_slice() else {
                panic!("{events:?}")
            };
            assert_eq!(
                disconnected.cause,
                DisconnectCause::Error(ConnectionError::Timeout(Timeout::Suback))
            );
            client.close(TransportEnd::ClosedLocally);
            client.sent();
            assert_eq!(client.open_words(), ["CONNECT"]);
            accept(&mut client);
            let sent = client.sent_words();
            grant(&mut client, &sent);
            assert_eq!(
                client.session.poll_timeout(),
                Some(client.now + client.session.config().keep_alive),
                "answered, it is the keep alive's turn"
            );
            client.close(TransportEnd::Failed);
            client.events();
        }
    }
}

#[test]
fn a_broker_that_hangs_up_whatever_comes_is_not_blamed_for_it() {
    let mut client = certain(V311);
    subscribe(&mut client, &["a"]);
    for _ in 0..5 {
        assert_eq!(client.open_words().len(), 2);
        client.close(TransportEnd::ClosedByPeer);
        assert_eq!(client.open_words(), ["CONNECT"]);
        client.close(TransportEnd::ClosedByPeer);
    }
    // One answer takes back all doubts.
    for _ in 0..5 {
        assert_eq!(client.open_words().len(), 2);
        client.close(TransportEnd::Failed);
        client.connect(ConnackRef::new(ReasonCode::Success));
        client.close(TransportEnd::Failed);
        let sent = client.open_words();
        assert_eq!(sent.len(), 2);
        accept(&mut client);
        grant(&mut client, &sent);
        client.close(TransportEnd::Failed);
    }
}

#[test]
fn a_resubscribe_leaves_early_too_and_once() {
    for version in VERSIONS {
        let mut client = certain(version);
        subscribe(&mut client, &["a", "b"]);
        client.open_words();
        accept(&mut client);
        client.suback(FIRST, &[ReasonCode::GrantedQoS1; 2]);
        client.events();
        client.close(TransportEnd::ClosedByPeer);
        let mut sent = Vec::new();
        for cut in [true, false] {
            sent = client.open_words();
            assert_eq!(plain(&sent), ["CONNECT", "SUBSCRIBE a b"]);
            assert!(client.session.is_resubscribing());
            if cut {
                // Refused: begun anew with the next connection.
                let refusal = ConnackRef::new(ReasonCode::ServerUnavailable);
                client.receive(PacketRef::Connack(refusal)).unwrap();
                assert!(!client.session.is_resubscribing());
                client.close(TransportEnd::ClosedByPeer);
                client.events();
            }
        }
        accept(&mut client);
        assert_eq!(client.sent().len(), 0, "not once more");
        grant(&mut client, &sent);
        assert_eq!(outcomes(&mut client), [GRANTED; 2]);
        assert!(!client.session.is_resubscribing());
    }
    let mut config = Config::new(V311, "client");
    config.resubscribe = Resubscribe::Never;
    let mut client = Client::new(config);
    subscribe(&mut client, &["a"]);
    client.open_words();
    accept(&mut client);
    client.suback(FIRST, &[ReasonCode::GrantedQoS1]);
    client.close(TransportEnd::ClosedByPeer);
    assert_eq!(client.open_words(), ["CONNECT"]);
    accept(&mut client);
    assert_eq!(client.session.subscriptions().len(), 0);
}

#[test]
fn a_filter_under_suspicion_waits_and_goes_alone() {
    let mut client = certain(V311);
    subscribe(&mut client, &["a", "poison"]);
    assert_eq!(client.open_words().len(), 2);
    accept(&mut client);
    client.close(TransportEnd::ClosedByPeer);
    // Whatever it was, the haste or a filter: neither comes again.
    assert_eq!(client.open_words(), ["CONNECT"]);
    accept(&mut client);
    let sent = client.sent_words();
    assert_eq!(plain(&sent), ["SUBSCRIBE a"]);
    grant(&mut client, &sent);
    assert_eq!(plain(&client.sent_words()), ["SUBSCRIBE poison"]);
    client.close(TransportEnd::ClosedByPeer);
    assert_eq!(
        outcomes(&mut client),
        [GRANTED, SubscribeOutcome::Quarantined]
    );
    // Without a suspect it is as before.
    assert_eq!(plain(&client.open_words()), ["CONNECT", "SUBSCRIBE a"]);
}
