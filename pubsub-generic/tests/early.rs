//! SUBSCRIBE right behind CONNECT: in one write, at the first subscribe and after each reconnect, and whatever the broker
//! says to the CONNECT, the caller hears what it would have heard.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::memory::{Broker, BrokerEnd, memory};
use common::{cause, register};
use pubsub_core::{ConnectionState as State, ProviderErrorKind};
use pubsub_generic::{
    ConnectionError, DEFAULT_NAME, MqttOptions, MqttProvider, ProtocolVersion, PubSub, ReasonCode,
    SubscribeBeforeConnack,
};

fn options() -> MqttOptions {
    MqttOptions::without_url()
}

/// The transport's first packets: CONNECT, and SUBSCRIBE with its identifier if that is there too.
async fn first_packets(broker: &mut Broker) -> (BrokerEnd, Option<[u8; 2]>) {
    let mut end = broker.transports.recv().await.unwrap();
    let connect = end.packet().await.unwrap();
    assert_eq!(connect[0], 0x10, "{connect:02x?}");
    // What leaves in one write is there in one piece.
    let early = end.try_packet().map(|subscribe| {
        assert_eq!(subscribe[0], 0x82, "{subscribe:02x?}");
        [subscribe[2], subscribe[3]]
    });
    (end, early)
}

fn grant(end: &BrokerEnd, [high, low]: [u8; 2]) {
    end.send(&[0x90, 3, high, low, 0]);
}

#[tokio::test(start_paused = true)]
async fn it_is_there_before_the_connack_at_first_and_after_a_loss() {
    let (connect, mut broker) = memory(Vec::new());
    let (pubsub, provider) = register(MqttProvider::with_connect(options(), connect).unwrap());
    let (subscribed, mut end) = tokio::join!(pubsub.subscribe("a/+"), async {
        let (end, early) = first_packets(&mut broker).await;
        // The answers in one piece, too.
        let [high, low] = early.expect("SUBSCRIBE behind CONNECT");
        end.send(&[0x20, 2, 0, 0, 0x90, 3, high, low, 0]);
        end
    });
    let _messages = subscribed.unwrap();
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    watch.reached(State::Connected).await.unwrap();
    assert_eq!(end.try_packet(), None, "not once more");
    drop(end);
    watch.reached(State::ConnectionDisrupted).await.unwrap();

    let (mut end, early) = first_packets(&mut broker).await;
    end.send(&[0x20, 2, 0, 0]);
    // Connected is what it is when the subscriptions stand.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(watch.current().state, State::Connecting);
    grant(&end, early.expect("made anew behind CONNECT"));
    watch.reached(State::Connected).await.unwrap();
    assert_eq!(end.try_packet(), None, "not once more");
    assert_eq!(provider.stats().connections, 2);
}

#[tokio::test(start_paused = true)]
async fn it_waits_when_told_to_and_in_sessions_that_are_kept() {
    let kept = pubsub_generic::SessionMode::Persistent {
        expiry: std::time::Duration::from_secs(60),
    };
    for options in [
        options().subscribe_before_connack(SubscribeBeforeConnack::Never),
        options().client_id("kept").session(kept),
        // It has an identifier, which an MQTT 5 broker may decline.
        options().protocol_version(ProtocolVersion::V5),
    ] {
        let (connect, mut broker) = memory(Vec::new());
        let (pubsub, _) = register(MqttProvider::with_connect(options, connect).unwrap());
        let subscribing = tokio::spawn(async move { pubsub.subscribe("a").await.map(drop) });
        let (_end, early) = first_packets(&mut broker).await;
        assert_eq!(early, None);
        subscribing.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_connect_fails_the_subscribe_as_it_ever_did() {
    for early in [
        SubscribeBeforeConnack::Never,
        SubscribeBeforeConnack::WhenCertain,
    ] {
        let (connect, mut broker) = memory(Vec::new());
        let options = options().subscribe_before_connack(early);
        let (pubsub, _) = register(MqttProvider::with_connect(options, connect).unwrap());
        let (subscribed, _end) = tokio::join!(pubsub.subscribe("a"), async {
            let (end, sent) = first_packets(&mut broker).await;
            assert_eq!(sent.is_some(), early != SubscribeBeforeConnack::Never);
            end.send(&[0x20, 2, 0, 5]);
            end
        });
        let error = subscribed.unwrap_err();
        let Some(ConnectionError::Refused(refusal)) = cause(&error) else {
            panic!("{error:?}")
        };
        assert_eq!(refusal.reason(), ReasonCode::NotAuthorized);
        let state = pubsub.connection(DEFAULT_NAME).unwrap().current();
        assert_eq!(
            state.reason.unwrap().kind(),
            ProviderErrorKind::NotAuthorized
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_cuts_or_answers_out_of_order_gets_the_connect_alone_next() {
    for is_cut in [true, false] {
        let (connect, mut broker) = memory(Vec::new());
        let (pubsub, provider) = register(MqttProvider::with_connect(options(), connect).unwrap());
        let (subscribed, _end) = tokio::join!(pubsub.subscribe("a"), async {
            let (mut end, early) = first_packets(&mut broker).await;
            let early = early.expect("SUBSCRIBE behind CONNECT");
            if is_cut {
                drop(end);
            } else {
                grant(&end, early);
                end.gone().await;
            }
            let (mut end, early) = first_packets(&mut broker).await;
            assert_eq!(early, None);
            end.send(&[0x20, 2, 0, 0]);
            let subscribe = end.packet().await.unwrap();
            grant(&end, [subscribe[2], subscribe[3]]);
            end
        });
        drop(subscribed.unwrap());
        assert_eq!(provider.stats().connections, 1);
    }
}

#[cfg(feature = "ws")]
mod mosquitto {
    use super::*;
    use pubsub_core::Json;
    use testkit::mosquitto::find_or_skip;

    async fn echoes(pubsub: &PubSub, filter: &str) {
        let mut messages = pubsub.subscribe(filter).await.unwrap().json::<u32>();
        pubsub.publish("a/b", Json(&7)).await.unwrap();
        assert_eq!(messages.next().await.unwrap().unwrap().value, 7);
    }

    #[tokio::test]
    async fn it_is_granted_and_refused_by_a_real_broker() {
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
            for filter in ["a/b", "a/+"] {
                let options = MqttOptions::new(broker.ws_url())
                    .protocol_version(version)
                    .copies(pubsub_generic::CopyDetection::Content)
                    .subscribe_before_connack(SubscribeBeforeConnack::WhenClean)
                    .user_name("alice");
                let provider = MqttProvider::new(options.clone().password("sesame")).unwrap();
                let (pubsub, provider) = register(provider);
                echoes(&pubsub, filter).await;
                assert_eq!(provider.stats().connections, 1, "at the first attempt");
                pubsub.close().await.unwrap();

                let provider = MqttProvider::new(options.password("wrong")).unwrap();
                let (pubsub, _) = register(provider);
                let error = pubsub.subscribe(filter).await.unwrap_err();
                let Some(ConnectionError::Refused(refusal)) = cause(&error) else {
                    panic!("{error:?}")
                };
                assert_eq!(refusal.reason(), ReasonCode::NotAuthorized);
            }
        }
    }
}
