//! Subscribing: one result per filter, and what a reconnect does to it all.

mod common;

use std::sync::Arc;

use common::{Client, VERSIONS, config, id, resuming};
use mqtt_codec::{
    Packet, PacketRef, Properties, Property, ProtocolVersion, QoS, ReasonCode, ReasonCodes,
    RetainHandling, SubackRef, SubscriptionId,
};
use mqtt_session::{
    ConnectionError, Event, NoLocal, ProtocolViolation, Resubscribe, ResubscribeRetained,
    SubscribeError, SubscribeOutcome, Subscription, TransportEnd,
};

/// The first identifier that is kept back for SUBSCRIBE and UNSUBSCRIBE.
const FIRST: u16 = 65_520;

fn wanted(filters: &[&str]) -> Vec<Subscription> {
    filters
        .iter()
        .map(|filter| Subscription::new(*filter, QoS::AtLeastOnce))
        .collect()
}

fn names(filters: &[&str]) -> Vec<Arc<str>> {
    filters.iter().map(|filter| Arc::from(*filter)).collect()
}

fn subscribe(client: &mut Client, filters: &[&str]) {
    client
        .session
        .subscribe(&wanted(filters), client.now)
        .unwrap();
}

/// Answers every SUBSCRIBE and UNSUBSCRIBE with success. Returns what was sent.
fn grant_all(client: &mut Client) -> Vec<String> {
    let sent = client.sent();
    for packet in &sent {
        match packet {
            Packet::Subscribe(subscribe) => {
                let subscribe = subscribe.as_ref();
                let codes: Vec<_> = subscribe
                    .subscriptions
                    .iter()
                    .map(|_| ReasonCode::GrantedQoS1)
                    .collect();
                client.suback(subscribe.packet_id.value(), &codes);
            }
            Packet::Unsubscribe(unsubscribe) => {
                let unsubscribe = unsubscribe.as_ref();
                let codes = vec![
                    ReasonCode::Success;
                    if client.version == ProtocolVersion::V5 {
                        unsubscribe.filters.iter().count()
                    } else {
                        0
                    }
                ];
                let unsuback = SubackRef {
                    packet_id: unsubscribe.packet_id,
                    properties: Properties::EMPTY,
                    reason_codes: ReasonCodes::list(&codes),
                };
                client.receive(PacketRef::Unsuback(unsuback)).unwrap();
            }
            _ => {}
        }
    }
    sent.iter().map(common::words).collect()
}

fn results(events: &[Event]) -> Vec<Vec<(String, SubscribeOutcome)>> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::SubscribeCompleted { results, .. } => Some(results),
            Event::Resubscribed(resubscribed) => Some(&resubscribed.results),
            _ => None,
        })
        .map(|results| {
            results
                .iter()
                .map(|result| (result.filter.to_string(), result.outcome))
                .collect()
        })
        .collect()
}

#[test]
fn each_filter_has_its_own_result() {
    for version in VERSIONS {
        let mut client = Client::connected(config(version));
        client.events();
        subscribe(&mut client, &["a", "b/+", "c/#"]);
        assert_eq!(
            client.sent_words(),
            [format!("SUBSCRIBE #{FIRST} a b/+ c/#")]
        );
        let refusal = if version == ProtocolVersion::V5 {
            ReasonCode::NotAuthorized
        } else {
            ReasonCode::UnspecifiedError
        };
        client.suback(
            FIRST,
            &[ReasonCode::GrantedQoS1, refusal, ReasonCode::Success],
        );
        let expected = vec![vec![
            ("a".to_owned(), SubscribeOutcome::Granted(QoS::AtLeastOnce)),
            ("b/+".into(), SubscribeOutcome::Refused(refusal)),
            ("c/#".into(), SubscribeOutcome::Granted(QoS::AtMostOnce)),
        ]];
        assert_eq!(results(&client.events()), expected);
        let left: Vec<_> = client
            .session
            .subscriptions()
            .map(|subscription| subscription.filter.to_string())
            .collect();
        assert_eq!(left, ["a", "c/#"], "a refused filter is not the session's");
        assert_eq!(client.session.stats().packet_ids_in_use, 0);
    }
}

#[test]
//= test MQTT-2.2.1-6
//= test v3.1.1 MQTT-2.3.1-7
fn a_long_list_is_split_and_completes_once() {
    let mut config = config(ProtocolVersion::V311);
    config.max_filters_per_packet = 8.try_into().unwrap();
    let mut client = Client::connected(config);
    client.events();
    let filters: Vec<String> = (0..9).map(|number| format!("f/{number}")).collect();
    subscribe(
        &mut client,
        &filters.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let sent = client.sent_words();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].split(' ').count() - 2, 8);
    client.suback(FIRST + 1, &[ReasonCode::GrantedQoS1]);
    assert!(client.events().is_empty(), "out of order, and not complete");
    client.suback(FIRST, &[ReasonCode::GrantedQoS1; 8]);
    assert_eq!(results(&client.events())[0].len(), 9);
}

#[test]
fn a_list_is_split_to_fit_the_brokers_packets() {
    let mut client = Client::new(config(ProtocolVersion::V5));
    client.connect_with(
        false,
        &[Property::MaximumPacketSize(100.try_into().unwrap())],
    );
    let long = ["x".repeat(60), "y".repeat(60), "z".repeat(100)];
    let error = client
        .session
        .subscribe(&wanted(&[&long[0], &long[2]]), client.now)
        .unwrap_err();
    assert_eq!(error, SubscribeError::TooLarge { index: 1 });
    subscribe(&mut client, &[&long[0], &long[1]]);
    assert_eq!(client.sent_words().len(), 2);
}

#[test]
//= test MQTT-2.2.1-3
//= test v3.1.1 MQTT-2.3.1-2
//= test MQTT-3.3.4-8
//= test MQTT-4.9.0-3
fn control_packets_are_not_starved_by_a_full_window() {
    let mut config = config(ProtocolVersion::V311);
    config.max_in_flight = 65_519.try_into().unwrap();
    config.max_queued_messages = 70_000;
    let mut client = Client::connected(config);
    for _ in 0..65_600 {
        client.publish("", QoS::AtLeastOnce);
    }
    assert_eq!(
        client.sent().len(),
        65_519,
        "all but the reserved ones are in flight"
    );
    subscribe(&mut client, &["a"]);
    assert_eq!(client.sent_words(), [format!("SUBSCRIBE #{FIRST} a")]);
}

#[test]
fn at_most_sixteen_control_packets_are_in_flight() {
    let mut config = config(ProtocolVersion::V311);
    config.max_filters_per_packet = 1.try_into().unwrap();
    let mut client = Client::connected(config);
    for number in 0..40 {
        subscribe(&mut client, &[&format!("f/{number}")]);
    }
    assert_eq!(client.sent().len(), 16);
    client.suback(FIRST + 3, &[ReasonCode::GrantedQoS1]);
    assert_eq!(
        client.sent_words(),
        [format!("SUBSCRIBE #{} f/16", FIRST + 3)]
    );
}

#[test]
//= test MQTT-3.8.4-6
fn a_suback_must_match_its_subscribe() {
    for version in VERSIONS {
        let mut client = Client::connected(config(version));
        client.suback(FIRST, &[ReasonCode::GrantedQoS1]);
        assert_eq!(client.session.stats().counters.stray_acknowledgements, 1);
        subscribe(&mut client, &["a", "b"]);
        client.sent();
        let suback = SubackRef {
            packet_id: id(FIRST),
            properties: Properties::EMPTY,
            reason_codes: ReasonCodes::list(&[ReasonCode::GrantedQoS1]),
        };
        let error = client.receive(PacketRef::Suback(suback)).unwrap_err();
        assert_eq!(
            error,
            ConnectionError::Protocol(ProtocolViolation::WrongNumberOfReasonCodes)
        );
    }
}

#[test]
fn unsubscribing_completes_with_reasons() {
    for version in VERSIONS {
        let mut client = Client::connected(config(version));
        subscribe(&mut client, &["a", "b"]);
        grant_all(&mut client);
        client.events();
        client
            .session
            .unsubscribe(&names(&["a", "never"]), client.now)
            .unwrap();
        assert_eq!(client.session.subscriptions().len(), 1);
        assert_eq!(
            client.sent_words(),
            [format!("UNSUBSCRIBE #{} a never", FIRST + 1)]
        );
        let codes = [ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
        let reason_codes = if version == ProtocolVersion::V5 {
            ReasonCodes::list(&codes)
        } else {
            ReasonCodes::EMPTY
        };
        client
            .receive(PacketRef::Unsuback(SubackRef {
                packet_id: id(FIRST + 1),
                properties: Properties::EMPTY,
                reason_codes,
            }))
            .unwrap();
        let events = client.events();
        let [Event::UnsubscribeCompleted { results, .. }] = events.as_slice() else {
            panic!("{events:?}")
        };
        let second = if version == ProtocolVersion::V5 {
            ReasonCode::NoSubscriptionExisted
        } else {
            ReasonCode::Success
        };
        assert_eq!(
            results
                .iter()
                .map(|result| result.reason)
                .collect::<Vec<_>>(),
            [ReasonCode::Success, second]
        );
    }
}

#[test]
fn unsubscribing_takes_back_what_was_not_sent() {
    let mut client = Client::new(config(ProtocolVersion::V311));
    subscribe(&mut client, &["a", "b"]);
    client
        .session
        .unsubscribe(&names(&["a"]), client.now)
        .unwrap();
    client.connect_with(false, &[]);
    let sent = grant_all(&mut client);
    assert_eq!(
        sent,
        [
            format!("SUBSCRIBE #{FIRST} b"),
            format!("UNSUBSCRIBE #{} a", FIRST + 1)
        ]
    );
    let expected = vec![
        ("a".to_owned(), SubscribeOutcome::Cancelled),
        ("b".into(), SubscribeOutcome::Granted(QoS::AtLeastOnce)),
    ];
    assert_eq!(results(&client.events()), [expected]);
}

#[test]
fn a_lost_session_is_resubscribed_in_packets_of_eight_with_one_result_each() {
    for version in VERSIONS {
        let mut config = resuming(version);
        config.max_filters_per_packet = 8.try_into().unwrap();
        let mut client = Client::connected(config);
        let filters: Vec<String> = (0..9).map(|number| format!("f/{number}")).collect();
        subscribe(
            &mut client,
            &filters.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        grant_all(&mut client);
        client.close(TransportEnd::Failed);
        client.events();

        client.connect_with(true, &[]);
        assert!(client.sent().is_empty(), "resumed: the broker knows them");
        client.close(TransportEnd::Failed);
        client.events();

        client.connect_with(false, &[]);
        let sent = client.sent();
        assert_eq!(sent.len(), 2);
        let Packet::Subscribe(first) = &sent[0] else {
            panic!("{sent:?}")
        };
        let handling = if version == ProtocolVersion::V5 {
            RetainHandling::DoNotSend
        } else {
            RetainHandling::SendAtSubscribe
        };
        assert!(
            first
                .as_ref()
                .subscriptions
                .iter()
                .all(|wanted| wanted.options.retain_handling == handling)
        );
        client.suback(
            first.as_ref().packet_id.value(),
            &[ReasonCode::GrantedQoS1; 8],
        );
        let Packet::Subscribe(second) = &sent[1] else {
            panic!("{sent:?}")
        };
        client.suback(
            second.as_ref().packet_id.value(),
            &[ReasonCode::UnspecifiedError],
        );
        let results = results(&client.events());
        assert_eq!(results[0].len(), 9);
        assert_eq!(
            results[0][8],
            (
                "f/8".to_owned(),
                SubscribeOutcome::Refused(ReasonCode::UnspecifiedError)
            )
        );
        assert_eq!(client.session.subscriptions().len(), 8);
    }
}

#[test]
fn the_other_rules_of_resubscribing() {
    let run = |resubscribe, retained, present| {
        let mut config = resuming(ProtocolVersion::V5);
        config.resubscribe = resubscribe;
        config.resubscribe_retained = retained;
        let mut client = Client::connected(config);
        subscribe(&mut client, &["a"]);
        grant_all(&mut client);
        client.close(TransportEnd::Failed);
        client.connect_with(present, &[]);
        let sent = client.sent();
        let handling = sent.first().map(|packet| {
            let Packet::Subscribe(subscribe) = packet else {
                panic!("{packet:?}")
            };
            subscribe
                .as_ref()
                .subscriptions
                .iter()
                .next()
                .unwrap()
                .options
                .retain_handling
        });
        (handling, client.session.subscriptions().len())
    };
    use ResubscribeRetained as R;
    assert_eq!(
        run(Resubscribe::Always, R::OnlyIfNew, true),
        (Some(RetainHandling::SendIfNew), 1)
    );
    assert_eq!(
        run(Resubscribe::WhenSessionLost, R::AsSubscribed, false),
        (Some(RetainHandling::SendAtSubscribe), 1)
    );
    assert_eq!(
        run(Resubscribe::Never, R::Never, false),
        (None, 0),
        "then they are gone"
    );
    assert_eq!(run(Resubscribe::Never, R::Never, true), (None, 1));
}

#[test]
fn a_subscribe_without_answer_is_sent_again_and_no_identifier_leaks() {
    for present in [true, false] {
        let mut client = Client::connected(resuming(ProtocolVersion::V311));
        subscribe(&mut client, &["a"]);
        client.sent();
        subscribe(&mut client, &["b"]);
        for _ in 0..40 {
            client.close(TransportEnd::Failed);
            assert_eq!(client.session.stats().packet_ids_in_use, 0);
            client.connect_with(present, &[]);
            assert_eq!(client.sent().len(), 1, "both in one packet, in order");
        }
        client.close(TransportEnd::Failed);
        client.connect_with(present, &[]);
        client.events();
        grant_all(&mut client);
        assert_eq!(results(&client.events()).len(), 2);
    }
}

#[test]
fn a_resubscribe_that_was_cut_off_begins_anew_and_reports_once() {
    let mut client = Client::connected(config(ProtocolVersion::V5));
    subscribe(&mut client, &["a", "b"]);
    grant_all(&mut client);
    for _ in 0..3 {
        client.close(TransportEnd::Failed);
        client.connect_with(false, &[]);
        assert_eq!(client.sent().len(), 1);
    }
    client.events();
    client.close(TransportEnd::Failed);
    client.connect_with(false, &[]);
    grant_all(&mut client);
    assert_eq!(results(&client.events()).len(), 1);
    assert_eq!(client.session.stats().pending_operations, 0);
}

#[test]
fn a_resubscribe_that_was_cut_off_goes_on_in_the_session_that_was_new_then() {
    for version in VERSIONS {
        let mut config = resuming(version);
        config.max_filters_per_packet = 1.try_into().unwrap();
        let mut client = Client::connected(config);
        subscribe(&mut client, &["a", "b", "c"]);
        grant_all(&mut client);
        client.close(TransportEnd::Failed);
        client.connect_with(false, &[]);
        assert_eq!(client.sent().len(), 3);
        client.suback(FIRST + 3, &[ReasonCode::GrantedQoS1]);
        client.close(TransportEnd::Failed);
        client.events();
        client.connect_with(true, &[]);
        let sent = grant_all(&mut client);
        assert_eq!(
            sent,
            [
                format!("SUBSCRIBE #{} b", FIRST + 6),
                format!("SUBSCRIBE #{} c", FIRST + 7)
            ]
        );
        assert_eq!(results(&client.events())[0].len(), 2);
        client.close(TransportEnd::Failed);
        client.connect_with(true, &[]);
        assert!(client.sent().is_empty(), "nothing is owed any more");
    }
}

#[test]
fn a_poison_filter_is_set_aside_and_its_neighbours_are_not() {
    for version in VERSIONS {
        let mut client = Client::connected(config(version));
        let filters = ["a", "b", "poison", "c", "d"];
        subscribe(&mut client, &filters);
        client.publish("innocent", QoS::AtLeastOnce);
        let mut outcome = Vec::new();
        let mut hang_ups = 0;
        for _ in 0..100 {
            let sent = client.sent();
            for packet in sent {
                match packet {
                    Packet::Subscribe(subscribe) => {
                        let subscribe = subscribe.as_ref();
                        if subscribe
                            .subscriptions
                            .iter()
                            .any(|wanted| wanted.filter == "poison")
                        {
                            hang_ups += 1;
                            client.close(TransportEnd::ClosedByPeer);
                            client.connect_with(false, &[]);
                            break;
                        }
                        let codes: Vec<_> = subscribe
                            .subscriptions
                            .iter()
                            .map(|_| ReasonCode::GrantedQoS1)
                            .collect();
                        client.suback(subscribe.packet_id.value(), &codes);
                    }
                    Packet::Publish(publish) => client.puback(publish.packet_id().unwrap().value()),
                    other => panic!("{other:?}"),
                }
            }
            outcome.extend(results(&client.events()));
        }
        assert!(hang_ups <= 3, "{hang_ups}");
        let settled = outcome
            .iter()
            .find(|results| results.len() == 5)
            .expect("the call completes");
        for (filter, outcome) in settled {
            let expected = if filter == "poison" {
                SubscribeOutcome::Quarantined
            } else {
                SubscribeOutcome::Granted(QoS::AtLeastOnce)
            };
            assert_eq!(*outcome, expected, "{filter}");
        }
        assert_eq!(client.session.stats().counters.quarantined, 1);
        assert_eq!(client.session.subscriptions().len(), 4);
        assert_eq!(
            (
                client.session.stats().in_flight_messages,
                client.session.stats().queued_messages
            ),
            (0, 0)
        );
    }
}

#[test]
fn what_cannot_be_subscribed_to_is_refused_before_anything_is_sent() {
    let mut client = Client::connected(config(ProtocolVersion::V311));
    let mut refuse =
        |list: &[Subscription]| client.session.subscribe(list, client.now).unwrap_err();
    assert_eq!(refuse(&[]), SubscribeError::NoFilters);
    for bad in ["", "a/#/b", "a+", "a\0", "$share//x", "$share/a"] {
        assert_eq!(
            refuse(&wanted(&["fine", bad])),
            SubscribeError::InvalidFilter { index: 1 },
            "{bad:?}"
        );
    }
    let mut local = Subscription::new("a", QoS::AtMostOnce);
    local.no_local = NoLocal::On;
    assert_eq!(
        refuse(&[local.clone()]),
        SubscribeError::OptionsNeedV5 { index: 0 }
    );
    assert_eq!(client.session.subscriptions().len(), 0);

    let mut client = Client::new(config(ProtocolVersion::V5));
    client.connect_with(
        false,
        &[
            Property::WildcardSubscriptionAvailable(false),
            Property::SubscriptionIdentifierAvailable(false),
            Property::SharedSubscriptionAvailable(false),
        ],
    );
    let now = client.now;
    let session = &mut client.session;
    assert_eq!(
        session.subscribe(&wanted(&["a/#"]), now),
        Err(SubscribeError::WildcardsNotSupported { index: 0 })
    );
    assert_eq!(
        session.subscribe(&wanted(&["$share/g/a"]), now),
        Err(SubscribeError::SharedNotSupported { index: 0 })
    );
    let id = SubscriptionId::new(1);
    assert_eq!(
        session.subscribe_with_id(&wanted(&["a"]), id, now),
        Err(SubscribeError::SubscriptionIdsNotSupported)
    );
    local.filter = "$share/g/a".into();
    assert_eq!(
        session.subscribe(&[local], now),
        Err(SubscribeError::SharedNotSupported { index: 0 })
    );
}

#[test]
fn what_waited_for_another_broker_is_settled_when_this_one_does_not_support_it() {
    let mut client = Client::new(config(ProtocolVersion::V5));
    subscribe(&mut client, &["a/#", "b"]);
    client.connect_with(false, &[Property::WildcardSubscriptionAvailable(false)]);
    assert_eq!(grant_all(&mut client), [format!("SUBSCRIBE #{FIRST} b")]);
    let not_sent = SubscribeOutcome::NotSent(SubscribeError::WildcardsNotSupported { index: 0 });
    let expected = vec![
        ("a/#".to_owned(), not_sent),
        ("b".into(), SubscribeOutcome::Granted(QoS::AtLeastOnce)),
    ];
    assert_eq!(results(&client.events()), [expected]);
}

#[test]
fn a_subscription_identifier_is_sent_with_its_filters_alone() {
    let mut client = Client::connected(config(ProtocolVersion::V5));
    subscribe(&mut client, &["a"]);
    client
        .session
        .subscribe_with_id(&wanted(&["b"]), SubscriptionId::new(7), client.now)
        .unwrap();
    let ids: Vec<_> = client
        .sent()
        .iter()
        .map(|packet| {
            let Packet::Subscribe(subscribe) = packet else {
                panic!("{packet:?}")
            };
            subscribe
                .as_ref()
                .properties
                .subscription_identifiers()
                .next()
                .map(SubscriptionId::value)
        })
        .collect();
    assert_eq!(ids, [None, Some(7)]);
}

#[test]
fn subscriptions_and_calls_are_bounded() {
    let mut config = config(ProtocolVersion::V311);
    config.max_subscriptions = 2;
    config.max_pending_operations = 3;
    let mut client = Client::new(config);
    subscribe(&mut client, &["a", "b"]);
    assert_eq!(
        client.session.subscribe(&wanted(&["c"]), client.now),
        Err(SubscribeError::TooManySubscriptions)
    );
    subscribe(&mut client, &["a"]);
    client
        .session
        .unsubscribe(&names(&["b"]), client.now)
        .unwrap();
    assert_eq!(
        client.session.unsubscribe(&names(&["b"]), client.now),
        Err(SubscribeError::TooManyPending)
    );
    client.connect_with(false, &[]);
    grant_all(&mut client);
    let many = names(&["1", "2", "3", "4", "5"]);
    assert_eq!(
        client.session.unsubscribe(&many, client.now),
        Err(SubscribeError::TooManyPending),
        "filters are bounded, too"
    );
    client.session.unsubscribe(&many[..4], client.now).unwrap();
}

/// "Try again later" would be tried for ever.
#[test]
fn more_filters_than_there_may_ever_be_are_refused_for_good() {
    for (max_subscriptions, filters) in [(0, 1), (2, 5)] {
        let mut config = config(ProtocolVersion::V311);
        config.max_subscriptions = max_subscriptions;
        let mut client = Client::new(config);
        let many: Vec<String> = (0..filters).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(
            client.session.subscribe(&wanted(&many), client.now),
            Err(SubscribeError::TooManySubscriptions)
        );
    }
    let mut config = config(ProtocolVersion::V311);
    config.max_subscriptions = usize::MAX;
    subscribe(&mut Client::new(config), &["a"]);
}
