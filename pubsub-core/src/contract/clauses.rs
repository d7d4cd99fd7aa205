//! The clauses, one function each. What each demands stands beside its name in [`check`](super::check).

use std::future::{Future as _, IntoFuture as _, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::Retain;
use super::bench::{Bench, NAME};
use crate::connection::ConnectionState;
use crate::error::{ProviderErrorKind, PublishError};
use crate::matching::{ParentLevel, ReservedTopics};
use crate::message::{OutboundMessage, QoS};
use crate::payload::{Empty, Json};
use crate::receipt::{Delivered, PublishStage};
use crate::subscription::Event;
use crate::topic::{TopicFilter, TopicName};

pub(super) async fn round_trip(bench: &Bench<'_>) {
    let mut messages = bench.subscribe("#").await;
    let long = vec![0xa5; bench.can.payload_len];
    let payloads: [&[u8]; 5] = [b"text", b"\xff\x00\xfe", b"", b"{}", &long];
    for (n, payload) in payloads.into_iter().enumerate() {
        let topic = bench.topic(&format!("level/{n}"));
        bench.publish(&topic, Bytes::copy_from_slice(payload)).await;
        let message = bench.next(&mut messages).await;
        assert_eq!(message.topic, topic.as_str(), "{}: topic", bench.clause);
        assert_eq!(message.payload, payload, "{}: payload", bench.clause);
        assert_eq!(message.provider, NAME, "{}: provider", bench.clause);
        assert!(
            !message.retain,
            "{}: a new message is not marked as retained",
            bench.clause
        );
    }
    let topic = bench.topic("json");
    let sent = bench.pubsub.publish(&topic, Json(&[1, 2])).await;
    assert!(sent.is_ok(), "{}: {sent:?}", bench.clause);
    let message = bench.next(&mut messages).await;
    assert_eq!(
        message.json::<Vec<u8>>().ok(),
        Some(vec![1, 2]),
        "{}: JSON",
        bench.clause
    );
}

pub(super) async fn publishing_connects(bench: &Bench<'_>) {
    bench.publish(&bench.topic("a"), "x").await;
    let state = bench.watch().current().state;
    assert_eq!(state, ConnectionState::Connected, "{}", bench.clause);
}

pub(super) async fn states_of_a_life(bench: &Bench<'_>) {
    let mut watch = bench.watch();
    let messages = bench.subscribe("a").await;
    bench
        .in_time("unsubscribe", messages.unsubscribe())
        .await
        .ok();
    bench.in_time("close", bench.pubsub.close()).await.ok();
    let mut states = Vec::new();
    while let Some(status) = bench
        .in_time("the end of the states", watch.changed())
        .await
    {
        states.push(status.state);
    }
    let begin = [
        ConnectionState::Disconnected,
        ConnectionState::Connecting,
        ConnectionState::Connected,
    ];
    assert!(
        states.starts_with(&begin),
        "{}: began with {states:?}",
        bench.clause
    );
    let end = [
        ConnectionState::ConnectedPendingDisconnect,
        ConnectionState::Disconnected,
    ];
    assert!(
        states.ends_with(&end),
        "{}: ended with {states:?}",
        bench.clause
    );
    let repeated = states.windows(2).any(|pair| pair.first() == pair.last());
    assert!(
        !repeated,
        "{}: a state came twice: {states:?}",
        bench.clause
    );
}

pub(super) async fn wildcards(bench: &Bench<'_>) {
    let rules = bench.provider.matching_rules();
    let mut one = bench.subscribe("+/b").await;
    let mut below = bench.subscribe("a/#").await;
    for topic in ["a/b", "a", "a/b/c", "x/b", "a//c", "last/b", "a/last"] {
        bench.publish(&bench.topic(topic), topic).await;
    }
    let mut seen = bench.texts_until(&mut one, "last/b").await;
    assert_eq!(seen, ["a/b", "x/b", "last/b"], "{}: `+`", bench.clause);
    seen = bench.texts_until(&mut below, "a/last").await;
    let mut want = vec!["a/b", "a", "a/b/c", "a//c", "a/last"];
    if rules.parent_level == ParentLevel::BelowOnly {
        want.remove(1);
    }
    assert_eq!(seen, want, "{}: `#`", bench.clause);
    if rules.reserved_topics == ReservedTopics::NamedExplicitly {
        let filter = TopicFilter::new("#").map(|filter| {
            TopicName::new("$reserved").map(|name| filter.matches_with(&name, rules))
        });
        assert_eq!(filter, Ok(Ok(false)), "{}: `$`", bench.clause);
    }
}

pub(super) async fn once_however_many_filters(bench: &Bench<'_>) {
    let filters = ["o/#", "o/+", "o/1", "last"].map(|filter| bench.topic(filter));
    let mut many = bench.subscribe_all(&filters).await;
    let mut single = bench.subscribe("+/1").await;
    let mut last = bench.subscribe("last").await;
    bench.publish(&bench.topic("o/1"), "x").await;
    bench.publish(&bench.topic("last"), "last").await;
    assert_eq!(
        bench.texts_until(&mut many, "last").await,
        ["x", "last"],
        "{}",
        bench.clause
    );
    assert_eq!(
        bench.texts_until(&mut last, "last").await,
        ["last"],
        "{}",
        bench.clause
    );
    assert_eq!(
        bench.texts_until(&mut single, "x").await,
        ["x"],
        "{}",
        bench.clause
    );
}

pub(super) async fn order(bench: &Bench<'_>) {
    for qos in bench.assurances() {
        let name = format!("{qos:?}");
        let topic = bench.topic(&name);
        let subscribing = bench.pubsub.subscribe(&topic).qos(qos).into_future();
        let messages = bench.in_time("the subscription", subscribing).await;
        let mut messages = messages.unwrap_or_else(|error| panic!("{}: {error:?}", bench.clause));
        let sent: Vec<_> = (0..100)
            .map(|n| bench.pubsub.publish(&topic, n.to_string()).qos(qos).send())
            .collect();
        for publishing in sent {
            let outcome = bench.in_time("the outcome", publishing).await;
            assert!(outcome.is_ok(), "{}: {qos:?}: {outcome:?}", bench.clause);
        }
        for n in 0..100 {
            let message = bench.next(&mut messages).await;
            assert_eq!(message.payload, n.to_string(), "{}: {qos:?}", bench.clause);
            assert_eq!(message.qos, qos, "{}: assurance", bench.clause);
        }
    }
}

pub(super) async fn outcomes(bench: &Bench<'_>) {
    let _kept_open = bench.subscribe("x").await;
    for qos in bench.assurances() {
        let topic = bench.topic("x");
        let tickets = bench.pubsub.publish(&topic, "x").qos(qos).send_each();
        let tickets = tickets.unwrap_or_else(|error| panic!("{}: {error:?}", bench.clause));
        for mut ticket in tickets {
            let stage = ticket.receipt.reached(PublishStage::Written);
            let stage = bench.in_time("the stage", stage).await;
            assert!(
                stage
                    .as_ref()
                    .is_ok_and(|stage| *stage >= PublishStage::Written),
                "{}: {stage:?}",
                bench.clause
            );
            let outcome = bench.in_time("the outcome", ticket.receipt).await;
            let right = match qos {
                QoS::AtMostOnce => matches!(outcome, Ok(Delivered::Sent)),
                _ => matches!(outcome, Ok(Delivered::Confirmed)),
            };
            assert!(
                right,
                "{}: {qos:?}: {outcome:?}, where at most once is to be told as sent, and the others as confirmed",
                bench.clause
            );
        }
    }
}

pub(super) async fn subscribers_come_and_go(bench: &Bench<'_>) {
    let mut stays = bench.subscribe("a").await;
    let leaves = bench.subscribe("a").await;
    let dropped = bench.subscribe("a").await;
    bench.publish(&bench.topic("a"), "1").await;
    let left = bench.in_time("unsubscribe", leaves.unsubscribe()).await;
    assert!(left.is_ok(), "{}: {left:?}", bench.clause);
    drop(dropped);
    bench.publish(&bench.topic("a"), "2").await;
    assert_eq!(
        bench.texts_until(&mut stays, "2").await,
        ["1", "2"],
        "{}",
        bench.clause
    );
}

pub(super) async fn partial_unsubscribe(bench: &Bench<'_>) {
    let filters = ["a", "b"].map(|filter| bench.topic(filter));
    let mut messages = bench.subscribe_all(&filters).await;
    let gone = TopicFilter::new(filters[0].as_str());
    let gone = gone.unwrap_or_else(|error| panic!("{}: {error}", bench.clause));
    let left = bench
        .in_time("unsubscribe", messages.unsubscribe_from(&[gone]))
        .await;
    assert!(left.is_ok(), "{}: {left:?}", bench.clause);
    for topic in &filters {
        bench.publish(topic, topic.clone()).await;
    }
    let next = bench.next(&mut messages).await;
    assert_eq!(next.topic, filters[1].as_str(), "{}", bench.clause);
}

pub(super) async fn leave_and_come_back(bench: &Bench<'_>) {
    let topic = bench.topic("a");
    let mut messages = bench.subscribe("a").await;
    for n in 0..20 {
        drop(messages);
        messages = bench.subscribe("a").await;
        bench.publish(&topic, n.to_string()).await;
        let message = bench.next(&mut messages).await;
        assert_eq!(message.payload, n.to_string(), "{}", bench.clause);
    }
}

pub(super) async fn nothing_leaks(bench: &Bench<'_>) {
    let stays = bench.subscribe("stays").await;
    let Some(before) = bench.filters_held().await else {
        return;
    };
    drop(bench.subscribe("dropped").await);
    let unsubscribed = bench.subscribe("unsubscribed").await;
    bench
        .in_time("unsubscribe", unsubscribed.unsubscribe())
        .await
        .ok();
    {
        let cancelled = bench.pubsub.subscribe(bench.topic("cancelled"));
        let mut cancelled = pin!(cancelled.into_future());
        poll_fn(|cx| Poll::Ready(cancelled.as_mut().poll(cx).is_ready())).await;
    }
    // Released without an answer, so the service may hear of it a little later.
    bench
        .in_time("the service to hold no more filters than before", async {
            while bench.filters_held().await != Some(before) {
                bench.fixture.sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    drop(stays);
    let stats = bench.pubsub.routing_stats(NAME);
    let stats = stats.unwrap_or_else(|error| panic!("{}: {error}", bench.clause));
    assert_eq!(
        (stats.filters, stats.subscriptions),
        (0, 0),
        "{}",
        bench.clause
    );
}

pub(super) async fn refusals_stand_alone(bench: &Bench<'_>) {
    let Some(refused) = bench.fixture.refused_filter() else {
        return;
    };
    let granted = bench.topic("granted");
    let filters = [refused.to_string(), granted.clone()];
    let mut messages = bench.subscribe_all(&filters).await;
    for outcome in messages.outcomes() {
        let right = outcome.result.is_err() == (outcome.filter == refused);
        assert!(right, "{}: {outcome:?}", bench.clause);
    }
    bench.publish(&granted, "x").await;
    assert_eq!(
        bench.next(&mut messages).await.payload,
        "x",
        "{}",
        bench.clause
    );
    let alone = bench
        .in_time(
            "the refusal",
            bench.pubsub.subscribe(&refused).into_future(),
        )
        .await;
    assert!(
        alone.is_err(),
        "{}: a refused filter alone is an error",
        bench.clause
    );
}

pub(super) async fn retained_messages(bench: &Bench<'_>) {
    if bench.can.retain == Retain::NotKept {
        return;
    }
    let (state, last) = (bench.topic("state"), bench.topic("last"));
    let confirmed = bench.can.max_qos.min(QoS::AtLeastOnce);
    let kept = bench.pubsub.publish(&state, "kept").retain().qos(confirmed);
    let kept = bench.in_time("the outcome", kept.into_future()).await;
    assert!(kept.is_ok(), "{}: {kept:?}", bench.clause);
    let mut first = bench.subscribe("+").await;
    let message = bench.next(&mut first).await;
    assert!(
        message.payload == "kept" && message.retain,
        "{}: {message:?}",
        bench.clause
    );
    let mut second = bench.subscribe("+").await;
    let message = bench.next(&mut second).await;
    assert!(
        message.payload == "kept" && message.retain,
        "{}: {message:?}",
        bench.clause
    );
    let erased = bench.pubsub.publish(&state, Empty).retain().qos(confirmed);
    let erased = bench.in_time("the outcome", erased.into_future()).await;
    assert!(erased.is_ok(), "{}: {erased:?}", bench.clause);
    bench.publish(&last, "last").await;
    let seen = bench.texts_until(&mut first, "last").await;
    assert_eq!(
        seen,
        ["", "last"],
        "{}: the second subscriber's copy is its own",
        bench.clause
    );
    let mut third = bench.subscribe("+").await;
    bench.publish(&last, "last").await;
    assert_eq!(
        bench.texts_until(&mut third, "last").await,
        ["last"],
        "{}: erased",
        bench.clause
    );
}

pub(super) async fn interruptions_are_survived(bench: &Bench<'_>) {
    let mut watch = bench.watch();
    let mut events = bench.subscribe("a").await.events();
    bench
        .in_time("the connection", watch.reached(ConnectionState::Connected))
        .await;
    let Some(interruption) = bench.fixture.interrupt(&bench.provider) else {
        return;
    };
    bench.in_time("the interruption", interruption).await;
    let gap = bench.in_time("the gap", events.next()).await;
    assert!(
        matches!(gap, Some(Ok(Event::Gap(_)))),
        "{}: {gap:?}",
        bench.clause
    );
    let state = bench
        .in_time("the state", watch.reached(ConnectionState::Connected))
        .await;
    assert!(state.is_some(), "{}", bench.clause);
    bench.publish(&bench.topic("a"), "after").await;
    let after = bench.in_time("a message", events.next()).await;
    let right = matches!(&after, Some(Ok(Event::Message(message))) if message.payload == "after");
    assert!(right, "{}: {after:?}", bench.clause);
}

pub(super) async fn replacement(bench: &Bench<'_>) {
    let mut messages = bench.subscribe("a").await;
    let other = bench.fixture.provider().await;
    let replaced = bench.pubsub.replace_provider(NAME, other);
    let replaced = bench.in_time("the replacement", replaced).await;
    assert!(replaced.is_ok(), "{}: {replaced:?}", bench.clause);
    bench.publish(&bench.topic("a"), "x").await;
    assert_eq!(
        bench.next(&mut messages).await.payload,
        "x",
        "{}",
        bench.clause
    );
}

pub(super) async fn closing(bench: &Bench<'_>) {
    let mut messages = bench.subscribe("a").await;
    let topic = bench.topic("a");
    let qos = bench.can.max_qos;
    let publishing = bench.pubsub.publish(&topic, "x").qos(qos).send();
    let removed = bench
        .in_time("removal", bench.pubsub.remove_provider(NAME))
        .await;
    assert!(removed.is_ok(), "{}: {removed:?}", bench.clause);
    let outcome = bench.in_time("the outcome", publishing).await;
    assert!(
        outcome.is_ok(),
        "{}: accepted before the close: {outcome:?}",
        bench.clause
    );
    while let Some(message) = bench.in_time("the end", messages.next()).await {
        assert!(message.is_ok(), "{}: {message:?}", bench.clause);
    }
    let again = bench
        .in_time("a second close", bench.provider.close())
        .await;
    assert!(again.is_ok(), "{}: {again:?}", bench.clause);
    let late = TopicName::new(topic)
        .map(|topic| bench.provider.publish(OutboundMessage::new(topic, "late")));
    let late = late.unwrap_or_else(|error| panic!("{}: {error}", bench.clause));
    let late = bench.in_time("the outcome", late).await;
    assert!(
        matches!(&late, Err(PublishError::NotSent(error)) if error.kind() == ProviderErrorKind::Closed),
        "{}: {late:?}",
        bench.clause
    );
}
