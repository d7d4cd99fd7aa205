//! A session that outlives its provider: what is stored before what, what comes back, and what a failing store does.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::memory::{Broker, Step, memory};
use common::store::{Fickle, PERSISTENT, State, options, resume, send, start, start_with};
use common::{StoppedClock, cause, register};
use pubsub_core::{
    Delivered, OfflinePolicy, ProviderErrorKind, PubSub, PublishError, PublishStage, QoS,
};
use pubsub_generic::{
    Change, ConnectionError, Displaced, MemorySessionStore, MqttOptions, MqttProvider,
    OfflineOverflow, OptionsError, ProtocolVersion, Record, SessionMode, SessionStore, StillStored,
    StoreError, StoreErrorKind,
};

/// How many of the changes are new messages.
fn messages(changes: &[Change]) -> usize {
    let is_message = |change: &&Change| change.key[0] == 2 && change.value.is_some();
    changes.iter().filter(is_message).count()
}

#[tokio::test]
async fn nothing_is_sent_before_it_is_stored_and_one_write_serves_many() {
    let (store, mut calls) = Fickle::new();
    let (pubsub, provider, mut broker) = start(store.clone());
    let connected = tokio::spawn(async move { provider.connect().await });
    let mut end = broker.accept().await;
    connected.await.unwrap().unwrap();
    let session = calls.recv().await.unwrap();
    assert_eq!(messages(&session), 0, "the header and the session as such");

    while store.records.len() < 2 {
        tokio::task::yield_now().await;
    }
    store.set(|state| state.permits = Some(0));
    let mut first = send(&pubsub, "a", "x", QoS::AtLeastOnce);
    assert_eq!(messages(&calls.recv().await.unwrap()), 1);
    assert_eq!(first.stage(), PublishStage::Accepted);
    let rest: Vec<_> = (0..100)
        .map(|_| send(&pubsub, "a", "x", QoS::AtLeastOnce))
        .collect();
    assert_eq!(end.try_packet(), None, "sent before it was stored");

    store.set(|state| state.permits = None);
    let stage = first.reached(PublishStage::Stored).await.unwrap();
    assert!(stage >= PublishStage::Stored, "{stage:?}");
    end.expect(b"\x32\x06\0\x01a\0\x01x").await;
    let mut written = Vec::new();
    for mut receipt in rest {
        receipt.reached(PublishStage::Stored).await.unwrap();
    }
    while let Ok(changes) = calls.try_recv() {
        written.push(messages(&changes));
    }
    assert_eq!(written.iter().sum::<usize>(), 100);
    let groups = written.iter().filter(|messages| **messages > 0).count();
    assert!(groups <= 3, "a group for each: {written:?}");
}

#[tokio::test]
async fn what_was_not_confirmed_is_sent_by_the_next_provider() {
    let store = MemorySessionStore::new();
    let (pubsub, provider, mut broker) = start(store.clone());
    let mut receipts: Vec<_> = [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce]
        .map(|qos| send(&pubsub, "a", "x", qos))
        .into();
    let mut end = broker.accept().await;
    end.expect(b"\x32\x06\0\x01a\0\x01x").await;
    end.expect(b"\x34\x06\0\x01a\0\x02x").await;
    end.expect(b"\x34\x06\0\x01a\0\x03x").await;
    end.send(b"\x50\x02\0\x03");
    end.expect(b"\x62\x02\0\x03").await;
    for receipt in &mut receipts {
        assert!(receipt.reached(PublishStage::Stored).await.unwrap() >= PublishStage::Stored);
    }
    // All handles go, as with the process.
    drop((pubsub, provider));
    for receipt in receipts {
        let Err(PublishError::Indeterminate(error)) = receipt.await else {
            panic!("nobody can know");
        };
        assert_eq!(error.kind(), ProviderErrorKind::Closed);
        assert!(cause::<StillStored>(&error).is_some(), "{error:?}");
    }
    end.gone().await;

    let (pubsub, provider, mut broker) = start_again(options(store.clone())).await;
    let restored = provider.take_restored();
    assert!(provider.take_restored().is_empty(), "once");
    let told: Vec<_> = restored
        .iter()
        .map(|publish| (publish.topic.as_str(), publish.qos, publish.payload_len))
        .collect();
    let (one, two) = (QoS::AtLeastOnce, QoS::ExactlyOnce);
    assert_eq!(told, [("a", one, 1), ("a", two, 1), ("a", two, 1)]);
    assert!(
        restored
            .iter()
            .all(|publish| publish.receipt.stage() == PublishStage::Stored)
    );
    let stats = provider.stats();
    assert_eq!((stats.publishes_restored, stats.publishes_pending), (3, 3));

    let connected = tokio::spawn(async move { provider.connect().await });
    let mut end = resume(&mut broker).await;
    connected.await.unwrap().unwrap();
    // The window opens with each answer.
    end.expect(b"\x3a\x06\0\x01a\0\x01x").await;
    end.send(b"\x40\x02\0\x01");
    end.expect(b"\x3c\x06\0\x01a\0\x02x").await;
    end.expect(b"\x62\x02\0\x03").await;
    end.send(b"\x50\x02\0\x02\x70\x02\0\x03");
    end.expect(b"\x62\x02\0\x02").await;
    end.send(b"\x70\x02\0\x02");
    for publish in restored {
        assert_eq!(publish.receipt.await.unwrap(), Delivered::Confirmed);
    }
    let closing = tokio::spawn(async move { pubsub.close().await });
    end.expect(b"\xe0\0").await;
    drop(end);
    closing.await.unwrap().unwrap();
    assert_eq!(store.len(), 2, "the header and the session as such");
}

/// The store is free once the last provider's task has ended.
async fn start_again(options: MqttOptions) -> (PubSub, Arc<MqttProvider>, Broker) {
    loop {
        let (connect, broker) = memory(Vec::new());
        match MqttProvider::with_connect(options.clone(), connect) {
            Ok(provider) => {
                let (pubsub, provider) = register(provider);
                return (pubsub, provider, broker);
            }
            Err(OptionsError::StoreInUse) => tokio::task::yield_now().await,
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn what_waits_for_a_connection_is_stored_as_well() {
    let store = MemorySessionStore::new();
    let (pubsub, _provider, _broker) = start_with(options(store.clone()), vec![Step::Hang]);
    let mut receipt = send(&pubsub, "a", "x", QoS::AtLeastOnce);
    let stage = receipt.reached(PublishStage::Stored).await.unwrap();
    assert_eq!(stage, PublishStage::Stored);
    let once = send(&pubsub, "a", "y", QoS::AtMostOnce);

    // Another process would find this.
    let copy = MemorySessionStore::new();
    for Record { key, value } in store.load().unwrap() {
        let value = Some(value);
        copy.write(&[Change { key, value }]).unwrap();
    }
    let (_pubsub, provider, mut broker) = start(copy);
    let restored = provider.take_restored();
    assert_eq!(restored.len(), 1, "no QoS 0");
    let connected = tokio::spawn({
        let provider = Arc::clone(&provider);
        async move { provider.connect().await }
    });
    let mut end = broker.accept().await;
    connected.await.unwrap().unwrap();
    end.expect(b"\x32\x06\0\x01a\0\x01x").await;
    assert_eq!(once.stage(), PublishStage::Accepted);
}

#[tokio::test]
async fn what_is_taken_back_is_gone_from_the_store_before_that_is_told() {
    const WAIT: Duration = Duration::from_secs(1);
    let (store, mut calls) = Fickle::new();
    let options = options(store.clone()).offline(OfflinePolicy::WaitUpTo(WAIT));
    let (pubsub, provider, _broker) = start_with(options, vec![Step::Hang]);
    let _clock = StoppedClock::stop();
    let mut receipt = send(&pubsub, "a", "x", QoS::AtLeastOnce);
    receipt.reached(PublishStage::Stored).await.unwrap();
    assert_eq!(messages(&calls.recv().await.unwrap()), 1);
    assert_eq!(store.records.len(), 2);
    store.set(|state| state.permits = Some(0));
    tokio::time::advance(2 * WAIT).await;
    let deletion = calls.recv().await.unwrap();
    assert!(
        deletion
            .iter()
            .any(|change| change.key[0] == 2 && change.value.is_none())
    );
    assert_eq!(receipt.stage(), PublishStage::Stored);
    assert_eq!(provider.stats().publishes_pending, 1);
    store.set(|state| state.permits = None);
    let Err(PublishError::NotSent(error)) = receipt.await else {
        panic!("it was not sent");
    };
    assert_eq!(error.kind(), ProviderErrorKind::TimedOut);
    assert_eq!(store.records.len(), 1, "the header");
}

#[tokio::test]
async fn what_makes_room_is_gone_from_the_store_before_that_is_told_and_the_rest_comes_back() {
    const ROOM: usize = 10;
    let store = MemorySessionStore::new();
    let options = options(store.clone())
        .offline_overflow(OfflineOverflow::DropOldest)
        .queue(ROOM.try_into().unwrap(), (1 << 20).try_into().unwrap());
    let (pubsub, provider, _broker) = start_with(options, vec![Step::Hang]);
    let kept = |store: &MemorySessionStore| -> Vec<Vec<u8>> {
        let records = store.load().unwrap();
        let messages = records.iter().filter(|record| record.key[0] == 2);
        messages.map(|record| record.value.to_vec()).collect()
    };
    let mut receipts = Vec::new();
    for n in 0..3 * ROOM {
        receipts.push(send(&pubsub, "a", &format!("{n:02}"), QoS::AtLeastOnce));
        if n % 4 == 0 {
            // Some are stored when their turn to make room comes, and some are not.
            let last = receipts.last_mut().unwrap();
            let _ = last.reached(PublishStage::Stored).await;
        }
    }
    for (n, displaced) in receipts.drain(..2 * ROOM).enumerate() {
        let PublishError::NotSent(error) = displaced.await.unwrap_err() else {
            panic!("sent, or unknown");
        };
        assert!(cause::<Displaced>(&error).is_some(), "{error:?}");
        let payload = format!("{n:02}");
        let is_there = |value: &Vec<u8>| value.ends_with(payload.as_bytes());
        assert!(
            !kept(&store).iter().any(is_there),
            "{payload} is still stored"
        );
    }
    for receipt in &mut receipts {
        receipt.reached(PublishStage::Stored).await.unwrap();
    }
    assert_eq!(kept(&store).len(), ROOM);
    drop((pubsub, provider));
    let (_pubsub, provider, mut broker) = start_again(self::options(store)).await;
    let restored = provider.take_restored();
    assert_eq!(restored.len(), ROOM);
    let connected = tokio::spawn(async move { provider.connect().await });
    let mut end = broker.accept().await;
    connected.await.unwrap().unwrap();
    for n in 2 * ROOM..3 * ROOM {
        let publish = end.packet().await.unwrap();
        assert!(publish.ends_with(format!("{n:02}").as_bytes()), "in order");
    }
}

#[tokio::test]
async fn a_store_that_fails_stops_the_provider_which_starts_again_from_what_is_stored() {
    for (kind, stores_anyway) in [
        (StoreErrorKind::Full, false),
        (StoreErrorKind::Io, false),
        (StoreErrorKind::Io, true),
    ] {
        let (store, _calls) = Fickle::new();
        let (pubsub, provider, mut broker) = start(store.clone());
        let mut stored = send(&pubsub, "a", "1", QoS::AtLeastOnce);
        let mut end = broker.accept().await;
        stored.reached(PublishStage::Stored).await.unwrap();
        end.expect(b"\x32\x06\0\x01a\0\x011").await;

        store.set(|state| (state.failure, state.stores_anyway) = (Some(kind), stores_anyway));
        let failing = send(&pubsub, "a", "2", QoS::AtLeastOnce);
        match (kind, failing.await.unwrap_err()) {
            (StoreErrorKind::Full, PublishError::NotSent(error))
            | (StoreErrorKind::Io, PublishError::Indeterminate(error)) => {
                assert_eq!(cause::<StoreError>(&error).unwrap().kind(), kind);
                assert!(cause::<StillStored>(&error).is_none());
            }
            (_, error) => panic!("{kind:?}: {error:?}"),
        }
        let error = stored.await.unwrap_err();
        assert!(matches!(error, PublishError::Indeterminate(_)), "{error:?}");
        assert!(cause::<StillStored>(&error).is_some(), "{error:?}");
        assert_eq!(
            end.packet().await,
            None,
            "nothing depends on what is not stored"
        );
        let refused = send(&pubsub, "a", "3", QoS::AtMostOnce).await.unwrap_err();
        assert!(matches!(&refused, PublishError::NotSent(_)));
        assert!(
            matches!(cause(&refused), Some(ConnectionError::Store(_))),
            "{refused:?}"
        );

        store.set(|state| state.load_failure = Some(StoreErrorKind::Corrupt));
        let error = provider.connect().await.unwrap_err();
        assert_eq!(
            cause::<StoreError>(&error).unwrap().kind(),
            StoreErrorKind::Corrupt
        );

        store.set(|state| *state = State::default());
        let connected = tokio::spawn({
            let provider = Arc::clone(&provider);
            async move { provider.connect().await }
        });
        let mut end = resume(&mut broker).await;
        connected.await.unwrap().unwrap();
        let restored = provider.take_restored();
        assert_eq!(restored.len(), 1 + usize::from(stores_anyway));
        end.expect(b"\x3a\x06\0\x01a\0\x011").await;
        end.send(b"\x40\x02\0\x01");
        if stores_anyway {
            // As far as the records tell, it may have been sent.
            end.expect(b"\x3a\x06\0\x01a\0\x022").await;
            end.send(b"\x40\x02\0\x02");
        }
        for publish in restored {
            assert_eq!(publish.receipt.await.unwrap(), Delivered::Confirmed);
        }
        assert_eq!(
            provider.stats().publishes_pending,
            0,
            "each is counted once"
        );
    }
}

#[tokio::test]
async fn a_store_may_fail_at_any_call() {
    for healthy in 0..8 {
        let (store, mut calls) = Fickle::new();
        let (pubsub, provider, mut broker) = start(store.clone());
        let mut receipts = vec![send(&pubsub, "a", "x", QoS::ExactlyOnce)];
        let peer = tokio::spawn(async move {
            // A broker that answers, until the client has gone.
            let Some(mut end) = broker.transports.recv().await else {
                return;
            };
            while let Some(packet) = end.packet().await {
                let answer = match packet[0] >> 4 {
                    1 => [0x20, 2, 0, 0],
                    3 => [0x50, 2, packet[packet.len() - 3], packet[packet.len() - 2]],
                    6 => [0x70, 2, packet[2], packet[3]],
                    _ => continue,
                };
                end.send(&answer);
            }
        });
        for _ in 0..healthy {
            // Something to store, if the last did not bring it.
            while calls.try_recv().is_err() {
                if receipts.last().unwrap().stage() == PublishStage::Settled {
                    receipts.push(send(&pubsub, "a", "x", QoS::ExactlyOnce));
                }
                tokio::task::yield_now().await;
            }
        }
        store.set(|state| state.failure = Some(StoreErrorKind::Io));
        receipts.push(send(&pubsub, "a", "y", QoS::ExactlyOnce));
        for receipt in receipts {
            match receipt.await {
                Ok(Delivered::Confirmed) | Err(PublishError::Indeterminate(_)) => {}
                Err(PublishError::NotSent(error)) => {
                    assert!(cause::<StoreError>(&error).is_some(), "{error:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(provider.stats().publishes_pending, 0);
        let error = pubsub.close().await.unwrap_err();
        assert!(cause::<StoreError>(&error).is_some(), "{error:?}");
        drop((pubsub, provider));
        peer.await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_panics_is_a_store_that_fails() {
    struct Panics;
    impl SessionStore for Panics {
        fn load(&self) -> Result<Vec<Record>, StoreError> {
            Ok(Vec::new())
        }
        fn write(&self, _: &[Change]) -> Result<(), StoreError> {
            panic!("a test");
        }
        fn clear(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }
    let (pubsub, _provider, _broker) = start(Panics);
    let error = send(&pubsub, "a", "x", QoS::AtLeastOnce).await.unwrap_err();
    assert!(matches!(error, PublishError::Indeterminate(_)), "{error:?}");
    assert_eq!(
        cause::<StoreError>(&error).unwrap().kind(),
        StoreErrorKind::Io
    );
}

#[tokio::test]
async fn what_a_resumed_session_brings_first_waits_for_its_subscriber() {
    let store = MemorySessionStore::new();
    let (pubsub, provider, mut broker) = start(store.clone());
    let subscribing = tokio::spawn(async move {
        let kept = pubsub.subscribe("a").qos(QoS::AtLeastOnce).await.unwrap();
        let left = pubsub.subscribe("b").qos(QoS::AtLeastOnce).await.unwrap();
        (kept, left, pubsub)
    });
    let mut end = broker.accept().await;
    for topic in [b"a", b"b"] {
        let subscribe = end.packet().await.unwrap();
        assert_eq!((subscribe[0], &subscribe[6..7]), (0x82, &topic[..]));
        end.send(&[0x90, 3, subscribe[2], subscribe[3], 1]);
    }
    let (kept, left, pubsub) = subscribing.await.unwrap();
    // Both are records once something later is.
    let mut mark = send(&pubsub, "m", "", QoS::AtLeastOnce);
    mark.reached(PublishStage::Stored).await.unwrap();
    let copy = MemorySessionStore::new();
    for Record { key, value } in store.load().unwrap() {
        let value = Some(value);
        copy.write(&[Change { key, value }]).unwrap();
    }
    drop((pubsub, provider, kept, left));

    let patience = Duration::from_secs(1);
    let options = options(copy.clone()).claim_timeout(patience);
    let (pubsub, provider, mut broker) = start_with(options, Vec::new());
    let _clock = StoppedClock::stop();
    let connecting = tokio::spawn({
        let provider = Arc::clone(&provider);
        async move { provider.connect().await }
    });
    let mut end = resume(&mut broker).await;
    // Before anybody has subscribed, and more of it than of what the client says.
    end.send(b"\x32\x07\0\x01a\0\x0311\x32\x07\0\x01b\0\x0412\x30\x04\0\x01a0");
    let resubscribe = end.packet().await.unwrap();
    assert_eq!(
        resubscribe[0], 0x82,
        "the last process may have been told of a loss"
    );
    end.send(&[0x90, 4, resubscribe[2], resubscribe[3], 1, 1]);
    connecting.await.unwrap().unwrap();
    let publish = end.packet().await.unwrap();
    assert_eq!(publish[0], 0x3a, "no PUBACK before: {publish:02x?}");

    let subscribing = tokio::spawn({
        let pubsub = pubsub.clone();
        async move { pubsub.subscribe("a").qos(QoS::AtLeastOnce).await.unwrap() }
    });
    let subscribe = end.packet().await.unwrap();
    assert_eq!((subscribe[0], &subscribe[6..7]), (0x82, &b"a"[..]));
    end.send(&[0x90, 3, subscribe[2], subscribe[3], 1]);
    let mut messages = subscribing.await.unwrap();
    let message = messages.next().await.unwrap().unwrap();
    assert_eq!(&message.payload[..], b"11");
    end.expect(b"\x40\x02\0\x03").await;
    // Nobody has come for the other.
    tokio::time::advance(2 * patience).await;
    end.expect(b"\x40\x02\0\x04").await;
    let unsubscribe = end.packet().await.unwrap();
    assert_eq!((unsubscribe[0], &unsubscribe[6..]), (0xa2, &b"b"[..]));
}

#[tokio::test]
async fn options_that_cannot_keep_a_session_are_refused() {
    let refused = |options: MqttOptions| {
        let (connect, _broker) = memory(Vec::new());
        MqttProvider::with_connect(options, connect).unwrap_err()
    };
    let base = || {
        MqttOptions::without_url()
            .client_id("me")
            .store(MemorySessionStore::new())
    };
    let resumed = SessionMode::Resumed {
        expiry: Duration::from_secs(60),
    };
    let at_once = SessionMode::Persistent {
        expiry: Duration::ZERO,
    };
    for options in [
        base(),
        base().session(resumed),
        base()
            .protocol_version(ProtocolVersion::V5)
            .session(at_once),
    ] {
        let error = refused(options);
        assert!(
            matches!(error, OptionsError::StoreWithoutSession),
            "{error:?}"
        );
    }
    let nameless = MqttOptions::without_url()
        .session(PERSISTENT)
        .store(MemorySessionStore::new());
    let error = refused(nameless);
    assert!(
        matches!(error, OptionsError::PersistentWithoutClientId),
        "{error:?}"
    );

    let store = MemorySessionStore::new();
    let shared = options(store.clone());
    let (pubsub, provider, mut broker) = start_with(shared.clone(), Vec::new());
    assert!(matches!(refused(shared.clone()), OptionsError::StoreInUse));
    let connected = tokio::spawn(async move { provider.connect().await });
    let end = broker.accept().await;
    connected.await.unwrap().unwrap();
    drop(end);
    pubsub.close().await.unwrap();
    assert_eq!(store.len(), 2);
    let error = refused(shared.clone().client_id("you"));
    let OptionsError::Store(error) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.kind(), StoreErrorKind::OtherClient);
    store.clear().unwrap();
    let (connect, _broker) = memory(Vec::new());
    MqttProvider::with_connect(shared.client_id("you"), connect).unwrap();
}
