//! The verbs, over the in-process provider.

mod common;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt};
use pubsub_core::*;

use common::Scripted;

fn with_memory() -> (PubSub, Arc<MemoryProvider>) {
    let pubsub = PubSub::new();
    let provider = Arc::new(MemoryProvider::new());
    pubsub
        .add_provider("memory", Arc::clone(&provider))
        .unwrap();
    (pubsub, provider)
}

/// The texts that are there now, without waiting.
fn texts(subscription: &mut Subscription) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(Some(message)) = subscription.next().now_or_never() {
        texts.push(message.unwrap().text().unwrap().to_owned());
    }
    texts
}

#[tokio::test]
async fn delivers_once_whatever_matches() {
    let (pubsub, _) = with_memory();
    let mut messages = pubsub.subscribe(["o/#", "o/+", "o/1"]).await.unwrap();
    let mut others = pubsub.subscribe("o/1").await.unwrap();
    pubsub.publish("o/1", "x").await.unwrap();
    assert_eq!(texts(&mut messages), ["x"]);
    assert_eq!(texts(&mut others), ["x"]);
}

#[tokio::test]
async fn a_filter_that_is_named_twice_is_one() {
    let (pubsub, provider) = with_memory();
    let mut messages = pubsub.subscribe(["a", "b", "a"]).await.unwrap();
    assert_eq!(provider.filters(), 2);
    pubsub.publish("a", "x").await.unwrap();
    assert_eq!(texts(&mut messages), ["x"]);
    drop(messages);
    assert_eq!(provider.filters(), 0);
    let stats = pubsub.routing_stats("memory").unwrap();
    assert_eq!((stats.filters, stats.subscriptions), (0, 0));
}

#[tokio::test]
async fn unsubscribes_in_part_and_in_whole() {
    let (pubsub, provider) = with_memory();
    let mut messages = pubsub.subscribe(["a", "b"]).await.unwrap();
    let other = pubsub.subscribe("b").await.unwrap();
    messages
        .unsubscribe_from(&[TopicFilter::new("b").unwrap()])
        .await
        .unwrap();
    assert_eq!(provider.filters(), 2);
    pubsub.publish(["a", "b"], "x").await.unwrap();
    assert_eq!(texts(&mut messages), ["x"]);
    drop(other);
    assert_eq!(provider.filters(), 1);
    messages.unsubscribe().await.unwrap();
    assert_eq!(provider.filters(), 0);
    let stats = pubsub.routing_stats("memory").unwrap();
    assert_eq!((stats.filters, stats.subscriptions), (0, 0));
}

#[tokio::test]
async fn tells_an_unknown_provider_by_name() {
    let (pubsub, _) = with_memory();
    let error = pubsub
        .publish("a", "x")
        .provider("other")
        .await
        .unwrap_err();
    assert!(matches!(&error, PublishError::UnknownProvider(unknown) if unknown.name == "other"));
    let error = pubsub.subscribe("a").provider("other").await.unwrap_err();
    assert!(matches!(&error, SubscribeError::UnknownProvider(unknown) if unknown.name == "other"));
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "could not find provider named other"
    );
}

#[tokio::test]
async fn every_verb_tells_an_unknown_provider() {
    let (pubsub, _) = with_memory();
    let unknown = |result: Result<(), RegistryError>| matches!(result, Err(RegistryError::UnknownProvider(unknown)) if unknown.name == "other");
    assert!(unknown(pubsub.remove_provider("other").await));
    let new = MemoryProvider::new();
    assert!(unknown(pubsub.replace_provider("other", new).await));
    assert_eq!(pubsub.connection("other").unwrap_err().name, "other");
    assert_eq!(pubsub.routing_stats("other").unwrap_err().name, "other");
    assert_eq!(pubsub.providers(), ["memory"]);
}

#[tokio::test]
async fn a_name_is_taken_once_and_free_again_after_removal() {
    let (pubsub, _) = with_memory();
    let error = pubsub
        .add_provider("memory", MemoryProvider::new())
        .unwrap_err();
    assert!(matches!(error, RegistryError::NameTaken(name) if name == "memory"));
    pubsub.remove_provider("memory").await.unwrap();
    pubsub
        .add_provider("memory", MemoryProvider::new())
        .unwrap();
    assert_eq!(pubsub.providers(), ["memory"]);
}

/// Each message says which provider it came through.
#[tokio::test]
async fn every_view_of_a_stream_says_when_it_is_over() {
    use futures_util::stream::{FusedStream, StreamExt};

    async fn to_the_end(mut stream: impl FusedStream + Unpin, pubsub: &PubSub) {
        assert!(!stream.is_terminated());
        pubsub.close().await.unwrap();
        assert!(StreamExt::next(&mut stream).await.is_none());
        assert!(stream.is_terminated());
        assert!(StreamExt::next(&mut stream).await.is_none());
    }
    for view in 0..4 {
        let (pubsub, _) = with_memory();
        let messages = pubsub.subscribe("a").await.unwrap();
        match view {
            0 => to_the_end(messages, &pubsub).await,
            1 => to_the_end(messages.events(), &pubsub).await,
            2 => to_the_end(messages.deliveries(), &pubsub).await,
            _ => to_the_end(messages.json::<u8>(), &pubsub).await,
        }
    }
}

#[tokio::test]
async fn speaks_to_all_providers_or_to_one_by_name() {
    let (pubsub, _) = with_memory();
    pubsub
        .add_provider("second", MemoryProvider::new())
        .unwrap();
    let mut all = pubsub.subscribe(["a", "b"]).await.unwrap();
    let mut one = pubsub
        .subscribe(["a", "b"])
        .provider("second")
        .await
        .unwrap();
    pubsub.publish(["a", "b"], "1").await.unwrap();
    pubsub.publish("a", "2").provider("second").await.unwrap();
    let seen = |subscription: &mut Subscription| {
        let mut seen = Vec::new();
        while let Some(Some(message)) = subscription.next().now_or_never() {
            let message = message.unwrap();
            let text = message.text().unwrap();
            seen.push(format!("{text} {} {}", message.topic, message.provider));
        }
        seen.sort();
        seen
    };
    assert_eq!(
        seen(&mut all),
        [
            "1 a memory",
            "1 a second",
            "1 b memory",
            "1 b second",
            "2 a second"
        ]
    );
    assert_eq!(seen(&mut one), ["1 a second", "1 b second", "2 a second"]);
}

#[tokio::test]
async fn speaks_a_format_of_the_applications_own() {
    /// A number as four bytes.
    struct Word;

    impl Encode<u32> for Word {
        fn encode(&self, value: &u32) -> Result<bytes::Bytes, PayloadError> {
            Ok(bytes::Bytes::copy_from_slice(&value.to_be_bytes()))
        }
    }

    impl Decode<u32> for Word {
        fn decode(&self, payload: &bytes::Bytes) -> Result<u32, PayloadError> {
            let word = <[u8; 4]>::try_from(&payload[..]).map_err(PayloadError::decode)?;
            Ok(u32::from_be_bytes(word))
        }
    }

    let (pubsub, _) = with_memory();
    let mut words = pubsub.subscribe("w").await.unwrap().decode_with(Word);
    pubsub.publish("w", Encoded(&Word, &7)).await.unwrap();
    pubsub.publish("w", "no word").await.unwrap();
    pubsub.publish("w", Encoded(&Word, &8)).await.unwrap();
    assert_eq!(words.next().await.unwrap().unwrap().value, 7);
    let error = words.next().await.unwrap().unwrap_err();
    assert!(matches!(&error, SubscriptionError::Payload(bad) if bad.message.payload == "no word"));
    assert_eq!(words.next().await.unwrap().unwrap().value, 8);
}

#[tokio::test]
async fn a_replacement_that_refuses_a_filter_loses_that_one_alone() {
    let (pubsub, _) = with_memory();
    let mut messages = pubsub.subscribe(["no", "yes"]).await.unwrap();
    let second = Arc::new(MemoryProvider::new());
    second.refuse(TopicFilter::new("no").unwrap());
    pubsub
        .replace_provider("memory", Arc::clone(&second))
        .await
        .unwrap();
    let error = messages.next().await.unwrap().unwrap_err();
    assert!(matches!(&error, SubscriptionError::FilterLost(lost) if lost.filter == "no"));
    pubsub.publish(["no", "yes"], "x").await.unwrap();
    assert_eq!(texts(&mut messages), ["x"]);
    assert_eq!(second.filters(), 1);
}

#[tokio::test]
async fn a_refused_filter_takes_no_other_down() {
    let (pubsub, provider) = with_memory();
    provider.refuse(TopicFilter::new("no").unwrap());
    let mut messages = pubsub
        .subscribe(["no", "yes"])
        .qos(QoS::AtLeastOnce)
        .await
        .unwrap();
    let [no, yes] = messages.outcomes() else {
        panic!()
    };
    assert_eq!(
        no.result.as_ref().unwrap_err().kind,
        RefusalKind::NotAuthorized
    );
    assert_eq!(*yes.result.as_ref().unwrap(), QoS::AtLeastOnce);
    pubsub.publish(["no", "yes"], "x").await.unwrap();
    assert_eq!(texts(&mut messages), ["x"]);
    let error = pubsub.subscribe("no").await.unwrap_err();
    assert!(matches!(error, SubscribeError::Refused(_)));
    assert_eq!(provider.filters(), 1);
}

#[tokio::test]
async fn removing_a_provider_ends_its_streams() {
    let (pubsub, _) = with_memory();
    pubsub
        .add_provider("second", MemoryProvider::new())
        .unwrap();
    let mut both = pubsub.subscribe("a").await.unwrap();
    let mut first = pubsub.subscribe("a").provider("memory").await.unwrap();
    pubsub.publish("a", "x").await.unwrap();
    pubsub.remove_provider("memory").await.unwrap();
    assert_eq!(texts(&mut first), ["x"]);
    assert!(StreamExt::next(&mut first).await.is_none());
    pubsub.publish("a", "y").await.unwrap();
    assert_eq!(texts(&mut both), ["x", "x", "y"]);
    pubsub.close().await.unwrap();
    assert!(both.next().await.is_none());
}

#[tokio::test]
async fn replacing_a_provider_moves_its_subscriptions() {
    let (pubsub, _) = with_memory();
    let mut events = pubsub.subscribe("a/#").await.unwrap().events();
    let second = Arc::new(MemoryProvider::new());
    pubsub
        .replace_provider("memory", Arc::clone(&second))
        .await
        .unwrap();
    assert_eq!(second.filters(), 1);
    pubsub.publish("a/b", "x").await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(Event::Gap(gap))) if gap.length.is_none()));
    assert!(matches!(events.next().await, Some(Ok(Event::Message(_)))));
}

#[tokio::test]
async fn an_overflow_within_a_subscribe_does_not_lock_up() {
    let (pubsub, provider) = with_memory();
    for n in 0..3 {
        pubsub
            .publish(format!("kept/{n}"), "x")
            .retain()
            .await
            .unwrap();
    }
    let limits = QueueLimits::default()
        .with_messages(1)
        .with_policy(OverflowPolicy::End);
    let mut messages = pubsub.subscribe("kept/+").queue(limits).await.unwrap();
    assert!(messages.next().await.unwrap().is_ok());
    let error = messages.next().await.unwrap().unwrap_err();
    assert!(matches!(
        error,
        SubscriptionError::Overflow(Overflow::QueueFull)
    ));
    assert!(messages.next().await.is_none());
    assert_eq!(provider.filters(), 0);
}

#[tokio::test]
async fn follows_the_connection() {
    let (pubsub, provider) = with_memory();
    let mut watch = pubsub.connection("memory").unwrap();
    let mut events = pubsub.subscribe("a").await.unwrap().events();
    provider.interrupt(Gap::new(Duration::from_secs(3), Continuity::Kept));
    let gap = events.next().await.unwrap().unwrap();
    assert!(matches!(gap, Event::Gap(gap) if gap.length == Some(Duration::from_secs(3))));
    pubsub.close().await.unwrap();
    let mut states = Vec::new();
    while let Some(status) = watch.changed().await {
        states.push(status.state.as_str());
    }
    assert_eq!(
        states,
        [
            "Disconnected",
            "Connecting",
            "Connected",
            "ConnectionDisrupted",
            "Connecting",
            "Connected",
            "ConnectedPendingDisconnect",
            "Disconnected"
        ]
    );
}

#[tokio::test]
async fn takes_a_provider_that_is_chosen_at_run_time() {
    let rules = MatchingRules::default().with_parent_level(ParentLevel::BelowOnly);
    let scripted = Arc::new(Scripted::with_rules(rules));
    let chosen: Box<dyn Provider> = Box::new(Arc::clone(&scripted));
    let pubsub = PubSub::new();
    pubsub.add_provider("chosen", chosen).unwrap();
    let mut messages = pubsub.subscribe("a/#").await.unwrap();
    for topic in ["a", "a/b"] {
        let message = Message::new(TopicName::new(topic).unwrap(), topic);
        let demand = scripted.sink().deliver(&mut vec![message.into()]);
        assert_eq!(demand, Demand::Continue);
    }
    assert_eq!(texts(&mut messages), ["a/b"], "by its own rules");
    let published = pubsub.publish("a", "x").qos(QoS::AtLeastOnce).await;
    assert_eq!(published.unwrap(), Delivered::Confirmed);
    messages.unsubscribe().await.unwrap();
    assert_eq!(scripted.released(), [TopicFilter::new("a/#").unwrap()]);
    pubsub.close().await.unwrap();
}
