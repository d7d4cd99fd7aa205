//! Against the reference broker, over real sockets.
#![cfg(feature = "ws")]
#![allow(missing_docs, reason = "tests")]

mod common;

use std::time::{Duration, Instant};

use common::{StoppedClock, cause, client};
use pubsub_core::{
    ConnectionState as State, Continuity, Delivered, Event, GapCause, Json, ProviderErrorKind,
    PublishError, QoS, RefusalKind,
};
use pubsub_generic::{
    ConnectErrorKind, ConnectionError, DEFAULT_NAME, MqttOptions, ProtocolVersion, ReasonCode,
    Renewal, SessionMode,
};
use testkit::certs::Authority;
use testkit::mosquitto::{Broker, find_or_skip};
use testkit::proxy::{Cut, Proxy};

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

#[tokio::test]
async fn json_goes_round_over_ws_in_every_version() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let broker = mosquitto.config().websocket().start().await.unwrap();
    for version in [
        ProtocolVersion::V31,
        ProtocolVersion::V311,
        ProtocolVersion::V5,
    ] {
        let options = || MqttOptions::new(broker.ws_url()).protocol_version(version);
        let (alice, _) = client(options().client_id("alice"));
        let (bob, _) = client(options().client_id("bob"));
        let mut messages = bob.subscribe("chat/+").qos(QoS::ExactlyOnce).await.unwrap();
        for qos in ALL_QOS {
            alice
                .publish("chat/lobby", Json(&("hello", 7)))
                .qos(qos)
                .await
                .unwrap();
            let message = messages.next().await.unwrap().unwrap();
            assert_eq!((message.topic.as_str(), message.qos), ("chat/lobby", qos));
            assert_eq!(
                message.json::<(String, u32)>().unwrap(),
                ("hello".to_owned(), 7)
            );
        }
        messages.unsubscribe().await.unwrap();
        bob.close().await.unwrap();
        alice.close().await.unwrap();
    }
}

#[tokio::test]
async fn json_goes_round_over_wss_with_a_root_of_our_own() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let authority = Authority::new();
    let broker = mosquitto
        .config()
        .secure_websocket(&authority)
        .start()
        .await
        .unwrap();
    let (pubsub, _) = client(MqttOptions::new(broker.wss_url()).extra_roots_pem(authority.pem()));
    let mut messages = pubsub.subscribe("a/#").qos(QoS::AtLeastOnce).await.unwrap();
    let large = "x".repeat(100_000);
    for text in ["small", large.as_str()] {
        pubsub
            .publish("a", Json(text))
            .qos(QoS::AtLeastOnce)
            .await
            .unwrap();
        assert_eq!(
            messages
                .next()
                .await
                .unwrap()
                .unwrap()
                .json::<String>()
                .unwrap(),
            text
        );
    }
    pubsub.close().await.unwrap();

    let (_stranger, provider) = client(MqttOptions::new(broker.wss_url()));
    let error = provider.connect().await.unwrap_err();
    let Some(ConnectionError::Connect(connect)) = cause(&error) else {
        panic!("{error:?}")
    };
    assert_eq!(connect.kind(), ConnectErrorKind::Tls);
    assert!(!connect.is_retryable());
}

#[tokio::test]
async fn a_refused_connect_is_final_and_says_why() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let broker = mosquitto
        .config()
        .websocket()
        .user("alice", "sesame")
        .start()
        .await
        .unwrap();
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let options = MqttOptions::new(broker.ws_url()).protocol_version(version);
        let (pubsub, provider) =
            client(options.clone().user_name("alice").password("wrong-marker"));
        let error = provider.connect().await.unwrap_err();
        assert!(!error.is_retryable());
        let Some(ConnectionError::Refused(refusal)) = cause(&error) else {
            panic!("{error:?}")
        };
        assert_eq!(refusal.reason(), ReasonCode::NotAuthorized);
        assert!(!format!("{error:?} {provider:?}").contains("marker"));
        let state = pubsub.connection(DEFAULT_NAME).unwrap().current();
        assert_eq!(state.state, State::Disconnected);
        assert_eq!(
            state.reason.unwrap().kind(),
            ProviderErrorKind::NotAuthorized
        );

        let (_pubsub, provider) = client(options.user_name("alice").password("sesame"));
        provider.connect().await.unwrap();
    }
}

#[tokio::test]
async fn a_refused_publish_says_why() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let config = mosquitto
        .config()
        .websocket()
        .user("u", "p")
        .acl("user u\ntopic readwrite mine/#\n");
    let broker = config.start().await.unwrap();
    let options = MqttOptions::new(broker.ws_url())
        .user_name("u")
        .password("p");
    let (pubsub, _) = client(options.protocol_version(ProtocolVersion::V5));
    let error = pubsub
        .publish("yours/a", "x")
        .qos(QoS::AtLeastOnce)
        .await
        .unwrap_err();
    let PublishError::Rejected(refusal) = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        (refusal.kind, refusal.code),
        (RefusalKind::NotAuthorized, Some(0x87))
    );
    let nobody = pubsub
        .publish("mine/a", "x")
        .qos(QoS::AtLeastOnce)
        .await
        .unwrap();
    assert_eq!(nobody, Delivered::ConfirmedWithoutSubscribers);
}

/// Mosquitto 2.0.11 then has more in flight than it may.
#[tokio::test]
async fn a_backlog_larger_than_the_window_arrives_over_one_connection() {
    const BACKLOG: usize = 1000;
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let broker = mosquitto.config().websocket().start().await.unwrap();
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let options = MqttOptions::new(broker.ws_url()).protocol_version(version);
        let (slow, provider) = client(options.clone());
        let (other, _) = client(options);
        let mut messages = slow.subscribe("a").qos(QoS::AtLeastOnce).await.unwrap();
        for number in 0..BACKLOG {
            let publishing = other.publish("a", number.to_string());
            publishing.qos(QoS::AtLeastOnce).await.unwrap();
        }
        for number in 0..BACKLOG {
            let message = tokio::time::timeout(Duration::from_secs(60), messages.next());
            let message = message.await.unwrap().unwrap().unwrap();
            assert_eq!(message.payload, number.to_string(), "{version:?}");
        }
        assert_eq!(provider.stats().connections, 1, "{version:?}");
    }
}

#[tokio::test]
async fn overlapping_filters_deliver_once_and_many_topics_work() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let broker = mosquitto.config().websocket().start().await.unwrap();
    let (pubsub, provider) = client(MqttOptions::new(broker.ws_url()));
    let filters: Vec<String> = (0..200)
        .map(|n| format!("many/{n}"))
        .chain(["many/#".into(), "many/+".into()])
        .collect();
    let mut messages = pubsub.subscribe(filters).await.unwrap();
    assert_eq!(provider.stats().subscriptions, 202);
    for n in 0..200 {
        pubsub.publish(format!("many/{n}"), "x").await.unwrap();
    }
    for n in 0..200 {
        assert_eq!(
            messages.next().await.unwrap().unwrap().topic,
            format!("many/{n}").as_str()
        );
    }
    messages.unsubscribe().await.unwrap();
    assert_eq!(provider.stats().subscriptions, 0);
    let mut last = pubsub.subscribe("last").await.unwrap();
    pubsub.publish(["many/1", "last"], "x").await.unwrap();
    assert_eq!(
        last.next().await.unwrap().unwrap().topic,
        "last",
        "nothing of what was unsubscribed comes before"
    );
}

#[tokio::test]
async fn a_broker_that_dies_and_returns_finds_its_subscribers() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let mut broker = mosquitto.config().websocket().start().await.unwrap();
        die_and_return(&mut broker, version).await;
    }
}

async fn die_and_return(broker: &mut Broker, version: ProtocolVersion) {
    let options = MqttOptions::new(broker.ws_url()).protocol_version(version);
    let (pubsub, provider) = client(options);
    let mut events = pubsub
        .subscribe(["a/+", "b"])
        .qos(QoS::AtLeastOnce)
        .await
        .unwrap()
        .events();
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    for round in 1..=3 {
        broker.kill();
        watch.reached(State::ConnectionDisrupted).await.unwrap();
        // Published into the gap: it waits for the connection.
        let waiting = pubsub
            .publish("b", Json(&round))
            .qos(QoS::AtLeastOnce)
            .send();
        broker.start().await.unwrap();
        watch.reached(State::Connected).await.unwrap();
        waiting.await.unwrap();
        let Some(Ok(Event::Gap(gap))) = events.next().await else {
            panic!("no gap")
        };
        assert_eq!(gap.continuity, Continuity::Lost);
        let Some(Ok(Event::Message(message))) = events.next().await else {
            panic!("no message")
        };
        assert_eq!(message.json::<i32>().unwrap(), round);
    }
    assert_eq!(provider.stats().connections, 4);
    pubsub.close().await.unwrap();
}

#[tokio::test]
async fn a_session_that_is_kept_misses_nothing() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let broker = mosquitto.config().websocket().start().await.unwrap();
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let proxy = Proxy::start(broker.ws_address()).await.unwrap();
        let session = SessionMode::Resumed {
            expiry: Duration::from_secs(600),
        };
        let options = MqttOptions::new(proxy.ws_url())
            .protocol_version(version)
            .session(session);
        let (bob, _) = client(options.client_id(format!("bob-{version:?}")));
        let (alice, _) = client(MqttOptions::new(broker.ws_url()));
        let mut events = bob
            .subscribe("kept")
            .qos(QoS::ExactlyOnce)
            .await
            .unwrap()
            .events();
        let mut watch = bob.connection(DEFAULT_NAME).unwrap();
        proxy.freeze();
        proxy.cut_all(Cut::Reset);
        watch.reached(State::ConnectionDisrupted).await.unwrap();
        for n in 0..10 {
            alice
                .publish("kept", Json(&n))
                .qos(ALL_QOS[1 + n % 2])
                .await
                .unwrap();
        }
        proxy.thaw();
        let Some(Ok(Event::Gap(gap))) = events.next().await else {
            panic!("no gap")
        };
        assert_eq!(gap.continuity, Continuity::Kept);
        for n in 0..10 {
            let Some(Ok(Event::Message(message))) = events.next().await else {
                panic!("no message")
            };
            assert_eq!(message.json::<usize>().unwrap(), n);
        }
    }
}

/// Publishes to a subscriber while both connections are replaced over and over.
async fn publish_through_renewals(broker: &Broker, version: ProtocolVersion, qos: QoS) {
    let options = |name: &str| {
        MqttOptions::new(broker.ws_url())
            .client_id(format!("{name}-{version:?}-{qos:?}"))
            .protocol_version(version)
            .session(SessionMode::Resumed {
                expiry: Duration::from_secs(600),
            })
            .renewal(Renewal::default().max_age(Duration::from_millis(300)))
    };
    let (alice, sender) = client(options("alice"));
    let (bob, receiver) = client(options("bob"));
    let _clock = StoppedClock::stop();
    let mut events = bob.subscribe("load").qos(qos).await.unwrap().events();
    let enough = || sender.stats().renewals >= 5 && receiver.stats().renewals >= 5;
    let publishing = async {
        let mut published = 0u32;
        while !enough() {
            let receipts: Vec<_> = (published..published + 20)
                .map(|n| alice.publish("load", Json(&n)).qos(qos).send())
                .collect();
            for receipt in receipts {
                receipt.await.unwrap();
            }
            published += 20;
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        alice
            .publish("load", Json(&u32::MAX))
            .qos(qos)
            .await
            .unwrap();
        published
    };
    let reading = async {
        let (mut seen, mut gaps) = (Vec::new(), Vec::new());
        loop {
            match events.next().await.unwrap().unwrap() {
                Event::Message(message) => match message.json::<u32>().unwrap() {
                    u32::MAX => return (seen, gaps),
                    n => seen.push(n),
                },
                Event::Gap(gap) => gaps.push(gap),
                other => panic!("{other:?}"),
            }
        }
    };
    let (published, (mut seen, gaps)) = tokio::join!(publishing, reading);
    if qos == QoS::AtLeastOnce {
        seen.sort_unstable();
        seen.dedup();
    }
    assert!(seen.into_iter().eq(0..published), "{version:?} {qos:?}");
    assert!(!gaps.is_empty());
    for gap in &gaps {
        assert_eq!(
            (gap.cause, gap.continuity),
            (GapCause::Planned, Continuity::Kept)
        );
    }
    let longest = gaps.iter().filter_map(|gap| gap.length).max();
    println!(
        "{version:?} {qos:?}: {published} messages, {} + {} renewals, longest gap {longest:?}",
        sender.stats().renewals,
        receiver.stats().renewals
    );
    alice.close().await.unwrap();
    bob.close().await.unwrap();
}

#[tokio::test]
async fn replacing_connections_under_load_loses_nothing() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let broker = mosquitto.config().websocket().start().await.unwrap();
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            publish_through_renewals(&broker, version, qos).await;
        }
    }
}

#[tokio::test]
async fn a_frozen_broker_is_noticed_by_the_ping_timeout() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let broker = mosquitto.config().websocket().start().await.unwrap();
        freeze(&broker, version).await;
    }
}

async fn freeze(broker: &Broker, version: ProtocolVersion) {
    let options = MqttOptions::new(broker.ws_url()).protocol_version(version);
    let (pubsub, provider) = client(options);
    let mut events = pubsub.subscribe("a").await.unwrap().events();
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    broker.pause().unwrap();
    let clock = StoppedClock::stop();
    let begin = tokio::time::Instant::now();
    while watch.current().state == State::Connected {
        tokio::time::advance(Duration::from_secs(1)).await;
        // Both timers are answered before the next second.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    let noticed = begin.elapsed().as_secs();
    // It was heard up to half a minute of real time ago.
    assert!((40..75).contains(&noticed), "{noticed}");
    drop(clock);
    let lost = watch.reached(State::ConnectionDisrupted).await.unwrap();
    let reason = lost.reason.unwrap();
    assert!(
        matches!(
            cause(&reason),
            Some(mqtt_session::ConnectionError::Timeout(_))
        ),
        "{reason:?}"
    );
    broker.resume().unwrap();
    watch.reached(State::Connected).await.unwrap();
    pubsub
        .publish("a", "x")
        .qos(QoS::AtLeastOnce)
        .await
        .unwrap();
    assert!(matches!(events.next().await, Some(Ok(Event::Gap(_)))));
    assert!(matches!(events.next().await, Some(Ok(Event::Message(_)))));
    assert!(
        provider
            .stats()
            .round_trip
            .is_none_or(|time| time < Duration::from_secs(50))
    );
}

/// Mosquitto before 2.1 closes the older connection without a DISCONNECT, whatever the version and the transport; from 2.1
/// on it says 0x8E to a client of MQTT 5. Either has to come to the same.
#[tokio::test]
async fn a_take_over_is_recognised_whether_the_broker_says_so_or_not() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let broker = mosquitto.config().websocket().start().await.unwrap();
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let options = MqttOptions::new(broker.ws_url())
            .protocol_version(version)
            .client_id("one name");
        let (alice, to_alice) = client(options.clone());
        let mut watch = alice.connection(DEFAULT_NAME).unwrap();
        to_alice.connect().await.unwrap();
        // She connects again when the test lets time pass.
        let _clock = StoppedClock::stop();
        let mut told = Vec::new();
        while told.last() != Some(&ProviderErrorKind::TakenOver) {
            assert!(told.len() < 3, "{version:?}: {told:?}");
            watch.reached(State::Connected).await.unwrap();
            let (bob, to_bob) = client(options.clone());
            to_bob.connect().await.unwrap();
            let lost = watch.reached(State::ConnectionDisrupted).await.unwrap();
            told.push(lost.reason.unwrap().kind());
            bob.close().await.unwrap();
            tokio::time::advance(Duration::from_secs(10)).await;
        }
    }
}

#[tokio::test]
async fn closing_leaves_nothing_behind() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let broker = mosquitto.config().websocket().start().await.unwrap();
    let proxy = Proxy::start(broker.ws_address()).await.unwrap();
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = alive();
    for round in 0..10 {
        let (pubsub, provider) = client(MqttOptions::new(proxy.ws_url()));
        let messages = pubsub
            .subscribe(["a", "b/#"])
            .qos(QoS::AtLeastOnce)
            .await
            .unwrap();
        let publishing = pubsub.publish("a", "x").qos(QoS::AtLeastOnce).send();
        match round % 5 {
            0 => drop(messages),
            1 => messages.unsubscribe().await.unwrap(),
            2 => drop(publishing),
            3 => proxy.cut_all(Cut::Reset),
            _ => drop((messages, publishing)),
        }
        pubsub.close().await.unwrap();
        let stats = provider.stats();
        assert_eq!(
            (stats.publishes_pending, stats.calls_pending),
            (0, 0),
            "round {round}"
        );
        assert!(!stats.connected);
        drop(provider);
    }
    proxy.wait_for(|counts| counts.open == 0).await;
    // The proxy's own tasks are among them.
    let deadline = Instant::now() + Duration::from_secs(60);
    while alive() > before {
        assert!(
            Instant::now() < deadline,
            "{} tasks more than before",
            alive() - before
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_provider_is_shared_by_many_publishers() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let broker = mosquitto.config().websocket().start().await.unwrap();
    let (pubsub, provider) = client(MqttOptions::new(broker.ws_url()));
    let mut messages = pubsub.subscribe("p/+").await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|p| {
            let pubsub = pubsub.clone();
            tokio::spawn(async move {
                for n in 0..200 {
                    pubsub
                        .publish(format!("p/{p}"), Json(&n))
                        .qos(QoS::AtLeastOnce)
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    let mut next = [0; 8];
    for _ in 0..1600 {
        let message = messages.next().await.unwrap().unwrap();
        let publisher: usize = message.topic.as_str()[2..].parse().unwrap();
        assert_eq!(
            message.json::<u32>().unwrap(),
            next[publisher],
            "order of each publisher"
        );
        next[publisher] += 1;
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(provider.stats().publishes_delivered, 1600);
}
