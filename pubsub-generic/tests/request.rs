//! Requests and their answers, over mosquitto.
#![cfg(feature = "ws")]
#![allow(missing_docs, reason = "tests")]

mod common;

use std::collections::HashSet;
use std::time::Duration;

use common::{StoppedClock, client};
use pubsub_core::{Json, Message, ProviderErrorKind, PubSub, PublishError, QoS, Subscription};
use pubsub_generic::{
    MqttOptions, NotARequest, ProtocolVersion, RequestError, Requester, RequesterOptions, reply_to,
};
use testkit::mosquitto::{Broker, find_or_skip};

async fn broker() -> Option<Broker> {
    Some(find_or_skip()?.config().websocket().start().await.unwrap())
}

fn v5(broker: &Broker) -> PubSub {
    let options = MqttOptions::new(broker.ws_url()).protocol_version(ProtocolVersion::V5);
    client(options).0
}

async fn questions(pubsub: &PubSub) -> Subscription {
    pubsub.subscribe("add").qos(QoS::AtLeastOnce).await.unwrap()
}

async fn next(questions: &mut Subscription) -> Message {
    questions.next().await.unwrap().unwrap()
}

async fn answer(pubsub: &PubSub, question: &Message) {
    let (a, b) = question.json::<(u64, u64)>().unwrap();
    reply_to(pubsub, question, Json(&(a + b)))
        .unwrap()
        .await
        .unwrap();
}

fn options() -> RequesterOptions {
    let mut options = RequesterOptions::default();
    options.timeout = Duration::from_secs(60);
    options
}

#[tokio::test]
async fn a_hundred_answers_out_of_order_find_those_who_asked() {
    let Some(broker) = broker().await else { return };
    let (asks, adds) = (v5(&broker), v5(&broker));
    let mut questions = questions(&adds).await;
    let requester = Requester::new(&asks, options()).await.unwrap();
    let asking: Vec<_> = (0..100u64)
        .map(|n| {
            let requester = requester.clone();
            tokio::spawn(async move {
                let answer = requester.request("add", Json(&(n, 1000))).await.unwrap();
                assert_eq!(answer.json::<u64>().unwrap(), n + 1000);
            })
        })
        .collect();
    let mut asked = Vec::new();
    for _ in 0..100 {
        asked.push(next(&mut questions).await);
    }
    assert_eq!(requester.stats().outstanding, 100);
    let ids: HashSet<_> = asked
        .iter()
        .map(|question| question.properties.correlation_data.clone().unwrap())
        .collect();
    assert_eq!(ids.len(), 100);
    for question in asked.iter().rev() {
        assert_eq!(
            question.properties.response_topic.as_ref(),
            Some(requester.response_topic())
        );
        answer(&adds, question).await;
    }
    for task in asking {
        task.await.unwrap();
    }
    let stats = requester.stats();
    assert_eq!((stats.outstanding, stats.unmatched), (0, 0));
}

#[tokio::test]
async fn late_double_and_foreign_answers_are_counted_and_dropped() {
    let Some(broker) = broker().await else { return };
    let (asks, adds) = (v5(&broker), v5(&broker));
    let mut questions = questions(&adds).await;
    let timeout = options().timeout;
    let requester = Requester::new(&asks, options()).await.unwrap();
    let clock = StoppedClock::stop();
    let late = {
        let mut request = Box::pin(requester.request("add", Json(&(1, 2))));
        let late = tokio::select! {
            outcome = &mut request => panic!("{outcome:?}"),
            question = next(&mut questions) => question,
        };
        tokio::time::advance(timeout + Duration::from_secs(1)).await;
        let error = request.await.unwrap_err();
        assert!(matches!(error, RequestError::TimedOut), "{error:?}");
        late
    };
    drop(clock);
    assert_eq!(requester.stats().outstanding, 0);
    answer(&adds, &late).await;
    answer(&adds, &late).await;
    adds.publish(requester.response_topic(), "whatever")
        .qos(QoS::AtLeastOnce)
        .await
        .unwrap();
    // What comes after them shows that they have arrived.
    let (answered, ()) = tokio::join!(requester.request("add", Json(&(3, 4))), async {
        let question = next(&mut questions).await;
        answer(&adds, &question).await;
    });
    assert_eq!(answered.unwrap().json::<u64>().unwrap(), 7);
    assert_eq!(requester.stats().unmatched, 3);
}

#[tokio::test]
async fn a_request_may_be_given_up_and_too_many_are_refused() {
    let Some(broker) = broker().await else { return };
    let (asks, adds) = (v5(&broker), v5(&broker));
    let mut questions = questions(&adds).await;
    let mut few = options();
    few.max_outstanding = 2.try_into().unwrap();
    let requester = Requester::new(&asks, few).await.unwrap();
    {
        let request = || Box::pin(requester.request("add", Json(&(1, 1))));
        let mut pending = [request(), request()];
        for request in &mut pending {
            let asked = tokio::select! {
                _ = request => None,
                question = next(&mut questions) => Some(question),
            };
            assert!(asked.is_some());
        }
        assert_eq!(requester.stats().outstanding, 2);
        let error = request().await.unwrap_err();
        assert!(matches!(error, RequestError::TooMany), "{error:?}");
    }
    assert_eq!(requester.stats().outstanding, 0, "dropped is given up");
}

#[tokio::test]
async fn nobody_to_answer_and_no_way_to_ask_are_told_at_once() {
    let Some(broker) = broker().await else { return };
    let asks = v5(&broker);
    let requester = Requester::new(&asks, options()).await.unwrap();
    let error = requester.request("nobody", "").await.unwrap_err();
    assert!(matches!(error, RequestError::NobodyListens), "{error:?}");
    let error = requester.request("a/#", "").await.unwrap_err();
    assert!(
        matches!(error, RequestError::Publish(PublishError::Topic(_))),
        "{error:?}"
    );

    // Before MQTT 5 there are no such properties.
    let (old, _) = client(MqttOptions::new(broker.ws_url()));
    let requester_311 = Requester::new(&old, options()).await.unwrap();
    let error = requester_311.request("nobody", "").await.unwrap_err();
    let RequestError::Publish(PublishError::NotSent(error)) = error else {
        panic!("{error:?}")
    };
    assert_eq!(error.kind(), ProviderErrorKind::Unsupported);
    let message = Message::new("t".parse().unwrap(), "");
    let refused: NotARequest = reply_to(&old, &message, "").unwrap_err();
    assert!(refused.to_string().contains("response topic"));

    asks.close().await.unwrap();
    let error = requester.request("nobody", "").await.unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn the_last_handle_takes_the_subscription_with_it() {
    let Some(broker) = broker().await else { return };
    let options = MqttOptions::new(broker.ws_url()).protocol_version(ProtocolVersion::V5);
    let (pubsub, provider) = client(options);
    let requester = Requester::new(&pubsub, RequesterOptions::default())
        .await
        .unwrap();
    let another = requester.clone();
    drop(requester);
    tokio::task::yield_now().await;
    assert_eq!(provider.stats().subscriptions, 1);
    drop(another);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while provider.stats().subscriptions > 0 {
        assert!(tokio::time::Instant::now() < deadline);
        // An acknowledged publish goes behind the unsubscribe.
        pubsub.publish("x", "").qos(QoS::AtLeastOnce).await.unwrap();
    }
}
