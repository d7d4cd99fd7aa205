//! The topic trie on the sets of `benches::topics`: one match, from memory too, one subscribe and unsubscribe, a
//! fan-out.
//!
//! Answers are checked against a naive search before anything is timed.

use std::hint::black_box;

use benches::topics::Kind;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pubsub_core::{MatchCache, TopicFilter, TopicName, TopicTrie};

/// The subscriber that came first and the number of all, as a broker would keep an id and options.
type Subscribers = [u32; 2];

fn trie_of(filters: &[TopicFilter]) -> TopicTrie<Subscribers> {
    let mut trie = TopicTrie::new();
    for (id, filter) in filters.iter().enumerate() {
        trie.get_or_insert_with(filter, || [id as u32, 0])[1] += 1;
    }
    trie
}

fn names(topics: Vec<String>) -> Vec<TopicName> {
    topics
        .into_iter()
        .map(|topic| TopicName::new(topic).expect("a topic"))
        .collect()
}

fn parsed(filters: Vec<String>) -> Vec<TopicFilter> {
    filters
        .into_iter()
        .map(|filter| TopicFilter::new(filter).expect("a filter"))
        .collect()
}

fn matches(trie: &TopicTrie<Subscribers>, topic: &TopicName) -> u32 {
    let mut sum = 0;
    trie.for_each_match(topic, |subscribers| sum += subscribers[1]);
    sum
}

fn matching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("trie/match");
    for kind in [
        Kind::Exact,
        Kind::Plus,
        Kind::Multi,
        Kind::Deep,
        Kind::Hostile,
    ] {
        for n in [1_000, 100_000, 1_000_000] {
            if kind == Kind::Hostile && n > 1_000 {
                continue;
            }
            let filters = parsed(kind.filters(n));
            let topics = names(kind.topics(n));
            let trie = trie_of(&filters);
            for topic in topics.iter().take(20) {
                let naive = filters
                    .iter()
                    .filter(|filter| filter.matches(topic))
                    .count();
                assert_eq!(
                    matches(&trie, topic) as usize,
                    naive,
                    "the answer for {topic} is wrong"
                );
            }
            drop(filters);
            group.throughput(Throughput::Elements(topics.len() as u64));
            group.bench_function(format!("{}/{n}", kind.name()), |bencher| {
                bencher.iter(|| {
                    topics
                        .iter()
                        .map(|topic| matches(&trie, topic))
                        .sum::<u32>()
                });
            });
        }
    }
    group.finish();
}

/// Topics that come again and again, through a cache.
fn repeating(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("trie/match cached");
    for kind in [Kind::Multi, Kind::Deep, Kind::Hostile] {
        let trie = trie_of(&parsed(kind.filters(1_000)));
        let topics = names(kind.topics(1_000));
        let mut cache = MatchCache::default();
        let mut from_memory = |topic| {
            let mut sum = 0;
            trie.for_each_match_cached(&mut cache, topic, |subscribers| sum += subscribers[1]);
            sum
        };
        for topic in topics.iter().chain(&topics) {
            assert_eq!(from_memory(topic), matches(&trie, topic), "{topic}");
        }
        group.throughput(Throughput::Elements(topics.len() as u64));
        group.bench_function(kind.name(), |bencher| {
            bencher.iter(|| topics.iter().map(&mut from_memory).sum::<u32>());
        });
    }
    group.finish();
}

fn fan_out(criterion: &mut Criterion) {
    let mut trie = TopicTrie::new();
    let filter = TopicFilter::new("site00/bldg00/floor0/dev000000/temp").expect("a filter");
    trie.insert(&filter, (0..1_000_u32).collect::<Vec<_>>());
    let topic = TopicName::new(filter.as_str()).expect("a topic");
    let mut out = Vec::with_capacity(1_000);
    criterion.bench_function("trie/fan-out to 1000", |bencher| {
        bencher.iter(|| {
            out.clear();
            trie.for_each_match(black_box(&topic), |subscribers| {
                out.extend_from_slice(subscribers);
            });
            out.len()
        });
    });
    assert_eq!(out.len(), 1_000);
}

fn changing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("trie/change");
    for kind in [Kind::Exact, Kind::Multi] {
        let filters = parsed(kind.filters(100_000));
        let topics = names(kind.topics(100_000));
        group.throughput(Throughput::Elements(100_000));
        group.bench_function(format!("insert/{}", kind.name()), |bencher| {
            bencher.iter_batched(|| (), |()| trie_of(&filters), BatchSize::LargeInput);
        });
        group.bench_function(format!("remove/{}", kind.name()), |bencher| {
            let full = trie_of(&filters);
            bencher.iter_batched(
                || full.clone(),
                |mut trie| {
                    for filter in &filters {
                        black_box(trie.remove(filter));
                    }
                    assert!(trie.is_empty());
                },
                BatchSize::LargeInput,
            );
        });
        // Half matches, a quarter subscribes, a quarter unsubscribes, the set keeping its size.
        group.bench_function(format!("churn/{}", kind.name()), |bencher| {
            let mut trie = trie_of(&filters);
            bencher.iter(|| {
                let mut sum = 0;
                for (i, topic) in topics.iter().cycle().take(50_000).enumerate() {
                    sum += matches(&trie, topic);
                    let filter = &filters[i * 7_919 % filters.len()];
                    if i % 2 == 0 {
                        trie.remove(filter);
                        trie.insert(filter, [0, 1]);
                    }
                }
                sum
            });
        });
    }
    group.finish();
}

criterion_group!(benches, matching, repeating, fan_out, changing);
criterion_main!(benches);
