//! What becomes of publishes and subscribes while connections come and go: on a paused clock, with the test as the broker.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::time::Duration;

use common::memory::{Step, memory};
use common::{cause, register};
use pubsub_core::{
    ConnectionState as State, HoldLimits, HoldPolicy, OfflinePolicy, ProviderErrorKind,
    PublishError, QoS, WithCauses,
};
use pubsub_generic::{
    ConnectError, ConnectErrorKind, ConnectionError, DEFAULT_NAME, Displaced, Jitter, MqttOptions,
    MqttProvider, OfflineOverflow, ProtocolVersion, Reconnect, SessionMode,
};
use tokio::time::Instant;

fn steady() -> MqttOptions {
    MqttOptions::without_url()
        .client_id("me")
        .reconnect(Reconnect::default().jitter(Jitter::None))
}

#[tokio::test(start_paused = true)]
async fn a_publish_offline_fails_waits_or_queues_as_it_was_told() {
    let (connect, mut broker) = memory(vec![Step::Hang]);
    let options = steady().connect_timeout(Duration::from_secs(100));
    let (pubsub, _provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let begin = Instant::now();
    let queued = pubsub.publish("q", "").offline(OfflinePolicy::Queue).send();

    let failed = pubsub
        .publish("a", "")
        .offline(OfflinePolicy::Fail)
        .await
        .unwrap_err();
    assert!(
        matches!(failed, PublishError::NotSent(error) if error.kind() == ProviderErrorKind::NotConnected)
    );
    assert_eq!(begin.elapsed(), Duration::ZERO);

    let patient = OfflinePolicy::WaitUpTo(Duration::from_secs(40));
    let late = pubsub.publish("a", "").offline(patient).await.unwrap_err();
    assert!(
        matches!(late, PublishError::NotSent(error) if error.kind() == ProviderErrorKind::TimedOut)
    );
    assert_eq!(begin.elapsed().as_secs(), 40);

    let in_time = pubsub
        .publish("w", "")
        .offline(OfflinePolicy::WaitUpTo(Duration::from_secs(90)))
        .send();
    let mut end = broker.accept().await;
    end.expect(b"\x30\x03\0\x01q").await;
    end.expect(b"\x30\x03\0\x01w").await;
    queued.await.unwrap();
    in_time.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_in_messages_and_bytes() {
    let (connect, _broker) = memory(vec![Step::Hang]);
    let (messages, bytes) = (3.try_into().unwrap(), 100.try_into().unwrap());
    let (pubsub, provider) =
        register(MqttProvider::with_connect(steady().queue(messages, bytes), connect).unwrap());
    let _accepted: Vec<_> = (0..3).map(|_| pubsub.publish("a", "x").send()).collect();
    tokio::task::yield_now().await;
    let refused = pubsub.publish("a", "x").await.unwrap_err();
    assert!(
        matches!(refused, PublishError::NotSent(error) if error.kind() == ProviderErrorKind::QueueFull)
    );
    assert_eq!(provider.stats().publishes_pending, 3);
    assert_eq!(provider.stats().publish_bytes_pending, 6);

    let (connect, _broker) = memory(vec![Step::Hang]);
    let (pubsub, _provider) =
        register(MqttProvider::with_connect(steady().queue(messages, bytes), connect).unwrap());
    let _accepted = pubsub.publish("a", [0; 60].as_slice()).send();
    let refused = pubsub.publish("a", [0; 60].as_slice()).await.unwrap_err();
    assert!(
        matches!(refused, PublishError::NotSent(error) if error.kind() == ProviderErrorKind::QueueFull)
    );

    // One that no queue of this size will ever take is not worth a second try, and the broker is not to blame.
    let (connect, _broker) = memory(vec![Step::Hang]);
    let (pubsub, _provider) =
        register(MqttProvider::with_connect(steady().queue(messages, bytes), connect).unwrap());
    let refused = pubsub.publish("a", [0; 200].as_slice()).await.unwrap_err();
    assert!(!refused.is_retryable());
    assert_eq!(
        WithCauses::new(&refused).to_string(),
        "not published: it was not sent: a local queue is full: \
         the packet has 207 bytes, the whole queue may have 100"
    );
    let _accepted = pubsub.publish("a", [0; 60].as_slice()).send();
    let refused = pubsub.publish("a", [0; 200].as_slice()).await.unwrap_err();
    assert!(!refused.is_retryable(), "nor when something waits already");
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_that_nobody_answers_fails_in_time_and_is_taken_back() {
    let (connect, mut broker) = memory(Vec::new());
    let options = steady()
        .subscribe_timeout(Duration::from_secs(20))
        .keep_alive(Duration::ZERO);
    let (pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let begin = Instant::now();
    let (subscribed, mut end) =
        tokio::join!(async { pubsub.subscribe("a").await }, broker.accept());
    assert!(subscribed.is_err());
    assert_eq!(begin.elapsed().as_secs(), 20);
    assert_eq!(end.packet().await.unwrap()[0], 0x82);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(provider.stats().subscriptions, 0);
}

/// Such a publish looks for no deadline.
#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_set_between_publishes_is_kept() {
    let (connect, mut broker) = memory(Vec::new());
    let options = steady()
        .subscribe_timeout(Duration::from_secs(20))
        .keep_alive(Duration::from_secs(3600));
    let (pubsub, _provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let first = pubsub.publish("a", "").offline(OfflinePolicy::Queue).send();
    let _end = broker.accept().await;
    first.await.unwrap();
    let chatter = async {
        loop {
            pubsub.publish("a", "").await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let begin = Instant::now();
    let late = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        pubsub.subscribe("a").await
    };
    let subscribed = tokio::select! {
        () = chatter => None,
        late = late => Some(late),
    };
    assert!(matches!(subscribed, Some(Err(_))));
    assert_eq!(begin.elapsed().as_secs(), 22);
}

#[tokio::test(start_paused = true)]
async fn a_publish_on_a_lost_link_is_sent_again_or_reported_as_unknown() {
    let (connect, mut broker) = memory(Vec::new());
    let options = steady().configure_session(|session| {
        session.in_flight_on_lost_session = mqtt_session::InFlightOnLostSession::Report;
    });
    let (pubsub, _provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let publishing = pubsub.publish("a", "").qos(QoS::AtLeastOnce).send();
    let mut end = broker.accept().await;
    assert_eq!(end.packet().await.unwrap()[0], 0x32);
    drop(end);
    let _end = broker.accept().await;
    assert!(matches!(
        publishing.await.unwrap_err(),
        PublishError::Indeterminate(_)
    ));

    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, _provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let publishing = pubsub.publish("a", "").qos(QoS::AtLeastOnce).send();
    let mut end = broker.accept().await;
    assert_eq!(end.packet().await.unwrap()[0], 0x32);
    drop(end);
    let mut end = broker.accept().await;
    let again = end.packet().await.unwrap();
    end.send(&[0x40, 2, again[5], again[6]]);
    publishing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_refused_filter_does_not_hurt_the_others() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, _provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let (subscribed, _end) =
        tokio::join!(async { pubsub.subscribe(["a", "b", "c"]).await }, async {
            let mut end = broker.accept().await;
            let subscribe = end.packet().await.unwrap();
            end.send(&[0x90, 5, subscribe[2], subscribe[3], 0, 0x80, 0]);
            end.send(b"\x30\x04\0\x01c1");
            end
        });
    let mut messages = subscribed.unwrap();
    let granted: Vec<bool> = messages
        .outcomes()
        .iter()
        .map(|outcome| outcome.result.is_ok())
        .collect();
    assert_eq!(granted, [true, false, true]);
    assert_eq!(messages.next().await.unwrap().unwrap().topic, "c");
}

#[tokio::test(start_paused = true)]
async fn filters_that_the_broker_cannot_take_are_left_out_wherever_they_stand() {
    let (connect, mut broker) = memory(Vec::new());
    let options = steady().protocol_version(ProtocolVersion::V5);
    let (pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let (connected, mut end) = tokio::join!(provider.connect(), async {
        let mut end = broker.transports.recv().await.unwrap();
        end.packet().await.unwrap();
        // Neither wildcards nor Subscription Identifiers.
        end.send(&[0x20, 7, 0, 0, 4, 0x28, 0, 0x29, 0]);
        end
    });
    connected.unwrap();
    let filters = ["+", "a", "b", "a/#", "b/+", "c", "#"];
    let (subscribed, _end) = tokio::join!(async { pubsub.subscribe(filters).await }, async {
        let mut asked = Vec::new();
        while asked.len() < 3 {
            let subscribe = end.packet().await.unwrap();
            // Identifier, no properties, filters of one letter with their options.
            let letters: Vec<u8> = subscribe[5..].chunks(4).map(|filter| filter[2]).collect();
            let mut suback = vec![0x90, 3 + letters.len() as u8, subscribe[2], subscribe[3], 0];
            suback.extend(
                letters
                    .iter()
                    .map(|&letter| if letter == b'b' { 0x80 } else { 0 }),
            );
            end.send(&suback);
            asked.extend(letters);
        }
        assert_eq!(asked, b"abc");
        end
    });
    let subscribed = subscribed.unwrap();
    let outcomes = subscribed.outcomes().iter();
    let granted: Vec<bool> = outcomes.map(|outcome| outcome.result.is_ok()).collect();
    assert_eq!(granted, [false, true, false, false, false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn of_more_filters_than_there_may_be_those_that_fit_are_subscribed() {
    let (connect, mut broker) = memory(Vec::new());
    let options = steady().configure_session(|session| session.max_subscriptions = 3);
    let (pubsub, _) = register(MqttProvider::with_connect(options, connect).unwrap());
    let (subscribed, _end) = tokio::join!(
        async { pubsub.subscribe(["a", "b", "c", "d", "e"]).await },
        async {
            let mut end = broker.accept().await;
            let subscribe = end.packet().await.unwrap();
            end.send(&[0x90, 5, subscribe[2], subscribe[3], 0, 0, 0]);
            end
        }
    );
    let granted: Vec<bool> = subscribed
        .unwrap()
        .outcomes()
        .iter()
        .map(|outcome| match &outcome.result {
            Ok(_) => true,
            Err(refusal) => {
                let reason = refusal.source.as_ref().unwrap();
                assert_eq!(reason.kind(), ProviderErrorKind::LimitExceeded);
                false
            }
        })
        .collect();
    assert_eq!(granted, [true, true, true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn offline_the_oldest_make_room_where_that_is_wanted() {
    const ROOM: usize = 1000;
    let (connect, mut broker) = memory(vec![Step::Hang]);
    let options = steady()
        .connect_timeout(Duration::from_secs(10))
        .offline(OfflinePolicy::Queue)
        .offline_overflow(OfflineOverflow::DropOldest)
        .queue(ROOM.try_into().unwrap(), (1 << 20).try_into().unwrap());
    let (pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let mut receipts = Vec::new();
    for n in 0..5 * ROOM {
        let qos = if n % 2 == 0 {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        };
        receipts.push(pubsub.publish("a", format!("{n:04}")).qos(qos).send());
        // In bursts of all sizes, up to far more than fits.
        if n < 2 * ROOM && n % 7 == 0 {
            tokio::task::yield_now().await;
        }
        assert!(provider.stats().publishes_pending <= 2 * ROOM);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(provider.stats().publishes_pending, ROOM);
    for displaced in receipts.drain(..4 * ROOM) {
        let PublishError::NotSent(error) = displaced.await.unwrap_err() else {
            panic!("sent, or unknown")
        };
        assert_eq!(error.kind(), ProviderErrorKind::QueueFull);
        assert!(cause::<Displaced>(&error).is_some());
    }
    let mut end = broker.accept().await;
    // In order for each QoS.
    let mut next = [4 * ROOM, 4 * ROOM + 1];
    for _ in 0..ROOM {
        let publish = end.packet().await.unwrap();
        let acknowledged = usize::from(publish[0] == 0x32);
        let n = next[acknowledged];
        assert!(publish.ends_with(format!("{n:04}").as_bytes()));
        next[acknowledged] += 2;
        if acknowledged == 1 {
            end.send(&[0x40, 2, publish[5], publish[6]]);
        }
    }
    for kept in receipts {
        kept.await.unwrap();
    }
    // With a connection, a full queue is back-pressure.
    let publish = || pubsub.publish("a", "x").qos(QoS::AtLeastOnce).send();
    let _waiting: Vec<_> = (0..ROOM).map(|_| publish()).collect();
    let PublishError::NotSent(error) = publish().await.unwrap_err() else {
        panic!("sent, or unknown")
    };
    assert_eq!(error.kind(), ProviderErrorKind::QueueFull);
    assert!(cause::<Displaced>(&error).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_holds_too_much_has_the_broker_keep_it_where_that_is_wanted() {
    let (connect, mut broker) = memory(Vec::new());
    let options = steady().session(SessionMode::Resumed {
        expiry: Duration::from_secs(600),
    });
    let (pubsub, _provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let hold = HoldLimits::default()
        .with_messages(2)
        .with_policy(HoldPolicy::DropConnection);
    let subscribe = pubsub.subscribe("a").qos(QoS::AtLeastOnce).hold(hold);
    let (subscribed, mut end) = tokio::join!(async { subscribe.await }, async {
        let mut end = broker.accept().await;
        let subscribe = end.packet().await.unwrap();
        end.send(&[0x90, 3, subscribe[2], subscribe[3], 1]);
        end
    });
    let mut messages = subscribed.unwrap();
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    watch.reached(State::Connected).await.unwrap();
    for n in 1..=3 {
        end.send(&[0x32, 6, 0, 1, b'a', 0, n, n]);
    }
    let dropped = watch.reached(State::ConnectionDisrupted).await.unwrap();
    let reason = dropped.reason.unwrap();
    assert!(matches!(
        cause(&reason),
        Some(ConnectionError::SlowSubscriber)
    ));
    assert_eq!(end.packet().await, None, "and none of them confirmed");
    let mut end = broker.transports.recv().await.unwrap();
    assert_eq!(end.packet().await.unwrap()[0], 0x10);
    end.send(&[0x20, 2, 1, 0]);
    let mut seen = Vec::new();
    // The broker sends again what it has no answer to.
    for n in 1..=3 {
        end.send(&[0x3a, 6, 0, 1, b'a', 0, n, n]);
        loop {
            let payload = messages.next().await.unwrap().unwrap().payload[0];
            seen.push(payload);
            if payload == n && seen.len() > 2 {
                break;
            }
        }
    }
    seen.dedup();
    assert!(seen.ends_with(&[1, 2, 3]), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_the_broker_hangs_up_on_is_set_aside_and_the_rest_goes_on() {
    let (connect, mut broker) = memory(Vec::new());
    let options = steady().session(SessionMode::Resumed {
        expiry: Duration::from_secs(600),
    });
    let (pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let publish = |payload: &str| {
        pubsub
            .publish("p", payload.to_owned())
            .qos(QoS::AtLeastOnce)
            .send()
    };
    let receipts = [publish("good 1"), publish("poison"), publish("good 2")];
    let brokering = tokio::spawn(async move {
        let mut connections = 0;
        while let Some(mut end) = broker.transports.recv().await {
            connections += 1;
            while let Some(packet) = end.packet().await {
                match packet[0] {
                    0x10 => end.send(&[0x20, 2, u8::from(connections > 1), 0]),
                    // It hangs up.
                    _ if packet.ends_with(b"poison") => break,
                    0x32 | 0x3a => end.send(&[0x40, 2, packet[5], packet[6]]),
                    _ => {}
                }
            }
        }
        connections
    });
    let [good_1, poison, good_2] = receipts;
    good_1.await.unwrap();
    let error = poison.await.unwrap_err();
    assert!(matches!(error, PublishError::Indeterminate(_)), "{error:?}");
    good_2.await.unwrap();
    publish("good 3").await.unwrap();
    drop((pubsub, provider));
    assert!(brokering.await.unwrap() < 10);
}

#[tokio::test(start_paused = true)]
async fn nothing_that_was_left_in_line_begins_anew_after_a_stop() {
    let fatal = || Step::Fail(ConnectError::new(ConnectErrorKind::Configuration));
    let (connect, mut broker) = memory(vec![fatal(), fatal()]);
    let (pubsub, _provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    // More than are taken in one round.
    let publishes: Vec<_> = (0..2000).map(|_| pubsub.publish("a", "x").send()).collect();
    for publish in publishes {
        assert!(matches!(
            publish.await.unwrap_err(),
            PublishError::NotSent(_)
        ));
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(broker.attempts.try_recv().is_ok());
    assert!(
        broker.attempts.try_recv().is_err(),
        "one attempt and no more"
    );
}

#[tokio::test(start_paused = true)]
async fn a_flood_on_one_thread_leaves_the_subscriber_its_turns() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, _provider) = register(MqttProvider::with_connect(steady(), connect).unwrap());
    let (subscribed, end) = tokio::join!(async { pubsub.subscribe("a").await }, async {
        let mut end = broker.accept().await;
        let subscribe = end.packet().await.unwrap();
        end.send(&[0x90, 3, subscribe[2], subscribe[3], 0]);
        end
    });
    let mut messages = subscribed.unwrap();
    // All of it lies ready: the driver never finds its socket empty.
    let chunk = b"\x30\x04\0\x01ax".repeat(200);
    for _ in 0..500 {
        end.send(&chunk);
    }
    for _ in 0..100_000 {
        messages.next().await.unwrap().unwrap();
    }
    assert_eq!(messages.stats().dropped, 0);
}
