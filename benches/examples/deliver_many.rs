//! What a delivery costs where many subscriptions stand, through a provider's sink:
//! `cargo run --release -p benches --example deliver_many SUBSCRIPTIONS BATCH [ROUNDS]`.
//!
//! Each message has a topic other than the one before. In the first line one subscription with a wildcard gets
//! them all, and the others, with a filter each, none; in the second each message is for one of the others, in
//! random order. Nanoseconds a message, the best round.

use std::future::IntoFuture as _;
use std::time::{Duration, Instant};

use benches::sink::{now, registry};
use benches::topics::Kind;
use pubsub_core::{Delivery, DeliverySink, Message, Subscription, TopicFilter, TopicName};

/// Delivers a message on each of the topics, in batches, and has them taken while the clock stands still.
fn round(
    sink: &DeliverySink,
    topics: &[TopicName],
    batch: usize,
    mut taken: impl FnMut(&[TopicName]),
) -> Duration {
    let mut deliveries = Vec::with_capacity(batch);
    let mut time = Duration::ZERO;
    for topics in topics.chunks(batch) {
        let message = |topic: &TopicName| Delivery::new(Message::new(topic.clone(), "x"));
        deliveries.extend(topics.iter().map(message));
        let began = Instant::now();
        let _ = sink.deliver(&mut deliveries);
        time += began.elapsed();
        taken(topics);
    }
    time
}

fn take(subscription: &mut Subscription, messages: usize) {
    for _ in 0..messages {
        now(subscription.next())
            .expect("a message")
            .expect("no error");
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = |default| {
        args.next()
            .and_then(|arg| arg.parse().ok())
            .unwrap_or(default)
    };
    let (subscriptions, batch, rounds) = (number(10_000), number(64), number(20));

    let (pubsub, sink) = registry();
    let mut filters = Kind::Exact.filters(subscriptions);
    filters.dedup();
    let mut others: Vec<_> = filters
        .iter()
        .map(|filter| now(pubsub.subscribe(filter.as_str()).into_future()).expect("subscribed"))
        .collect();
    let names: Vec<_> = filters
        .iter()
        .map(|filter| TopicName::new(filter.as_str()).expect("a topic"))
        .collect();
    let order: Vec<_> = (0..names.len().min(20_000))
        .map(|n| n * 7_919 % names.len())
        .collect();
    let each: Vec<_> = order.iter().map(|at| names[*at].clone()).collect();

    let mut best = [Duration::MAX; 2];
    for _ in 0..rounds {
        let mut next = order.iter();
        let time = round(&sink, &each, batch, |topics| {
            for at in next.by_ref().take(topics.len()) {
                take(&mut others[*at], 1);
            }
        });
        best[1] = best[1].min(time);
    }
    let filter = TopicFilter::new("elsewhere/+").expect("a filter");
    let mut all = now(pubsub.subscribe(&filter).into_future()).expect("subscribed");
    let turn: Vec<_> = (0..1_000)
        .map(|n| TopicName::new(format!("elsewhere/{n}")).expect("a topic"))
        .collect();
    for _ in 0..rounds * 10 {
        let time = round(&sink, &turn, batch, |topics| take(&mut all, topics.len()));
        best[0] = best[0].min(time);
    }
    for (what, time, messages) in [
        ("all for one", best[0], turn.len()),
        ("each for another", best[1], each.len()),
    ] {
        println!(
            "{what}: {subscriptions} subscriptions, {batch} messages in a batch, {:.1} ns a message",
            time.as_nanos() as f64 / messages as f64
        );
    }
}
