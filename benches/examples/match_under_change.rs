//! How long a delivery takes while another thread subscribes to and unsubscribes from 100,000 filters,
//! through the public interface: a provider's sink on one side, `PubSub::subscribe` on the other.
//!
//! Every delivery of one message is timed by the wall clock, first with nothing else going on, then with
//! 100,000 filters coming and going one by one, as percentiles in microseconds. Where threads outnumber
//! processors, the longest of them are times that a thread was not running.
//!
//! So what a delivery has to wait for is timed by itself as well: each insertion into the trie and each
//! removal, as they go on while others are locked out.

use std::future::IntoFuture as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use benches::sink::{now, registry};
use benches::topics::Kind;
use pubsub_core::{Delivery, Message, TopicFilter, TopicName, TopicTrie};

fn report(what: &str, mut nanos: Vec<u64>) {
    nanos.sort_unstable();
    let at = |part: f64| nanos[((nanos.len() - 1) as f64 * part) as usize] as f64 / 1_000.0;
    println!(
        "{what}: {} of them, p50 {:.2}, p99 {:.2}, p999 {:.2}, p9999 {:.2}, most {:.2} us",
        nanos.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(0.9999),
        at(1.0)
    );
}

fn main() {
    let (pubsub, sink) = registry();
    let _standing: Vec<_> = Kind::Multi
        .filters(1_000)
        .into_iter()
        .map(|filter| now(pubsub.subscribe(filter).into_future()).expect("subscribed"))
        .collect();
    let topics: Vec<_> = Kind::Multi
        .topics(1_000)
        .into_iter()
        .map(|topic| TopicName::new(topic).expect("a topic"))
        .collect();

    let mut batch = Vec::with_capacity(1);
    let mut deliver = |topic: &TopicName| {
        batch.push(Delivery::new(Message::new(topic.clone(), "x")));
        let began = Instant::now();
        let _ = sink.deliver(&mut batch);
        began.elapsed().as_nanos() as u64
    };
    report(
        "deliveries alone",
        topics
            .iter()
            .cycle()
            .take(1_000_000)
            .map(&mut deliver)
            .collect(),
    );

    let done = AtomicBool::new(false);
    // They match none of the topics, so that only waiting is measured and not more subscribers.
    let changes: Vec<_> = Kind::Multi
        .filters(100_000)
        .iter()
        .map(|filter| format!("elsewhere/{filter}"))
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            let coming: Vec<_> = changes
                .iter()
                .map(|filter| now(pubsub.subscribe(filter).into_future()).expect("subscribed"))
                .collect();
            let came = began.elapsed();
            drop(coming);
            println!(
                "100,000 filters came in {came:.2?} and all was over after {:.2?}",
                began.elapsed()
            );
            done.store(true, Relaxed);
        });
        let mut nanos = Vec::with_capacity(100_000_000);
        for topic in topics.iter().cycle() {
            nanos.push(deliver(topic));
            if done.load(Relaxed) {
                break;
            }
        }
        report("deliveries under change", nanos);
    });

    let filters: Vec<_> = changes
        .iter()
        .map(|filter| TopicFilter::new(filter.as_str()).expect("a filter"))
        .collect();
    let mut trie = TopicTrie::new();
    let mut timed = |change: &mut dyn FnMut(&mut TopicTrie<Vec<u32>>)| {
        let began = Instant::now();
        change(&mut trie);
        began.elapsed().as_nanos() as u64
    };
    let insert = |filter: &TopicFilter| timed(&mut |trie| drop(trie.insert(filter, vec![1])));
    report("insertions", filters.iter().map(insert).collect());
    let remove = |filter: &TopicFilter| timed(&mut |trie| drop(trie.remove(filter)));
    report("removals", filters.iter().map(remove).collect());
}
