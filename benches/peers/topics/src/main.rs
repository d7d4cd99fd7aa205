//! Our topic trie beside its peers: `cargo run --release -p topics [ROUNDS]` in `benches/peers`.
//!
//! Time is the CPU time of the thread around the matches only. Indexes of one workload run in turn, round
//! after round; a row is the best round. Each must find as many matches as a naive search on the topics
//! that are checked, or it is left out. Peers get their topics parsed before the clock starts (they allocate
//! in doing so, which a user pays too: see the rows "from text", where all start from the topic's text).
//!
//! mqtt_topic_tree has room for two live branches only, so it runs on exact filters alone.

#[path = "../../src/counting.rs"]
mod counting;
#[path = "../../src/measure.rs"]
mod measure;
#[path = "../../../src/topics.rs"]
#[allow(dead_code)]
mod topics;

use std::hint::black_box;

use measure::Clock;
use mqtt_topic_tree::{QoS, TopicTree};
use pubsub_core::{TopicFilter, TopicName, TopicTrie};
use quill::{Pattern, Registry, Topic};
use topics::Kind;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// One index over one set: from a pass over all topics to the number of matches.
struct Row<'a> {
    name: &'static str,
    pass: Box<dyn Fn() -> u64 + 'a>,
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(15);
    println!("| set | index | ns a match | times ours | allocations a match |");
    println!("| --- | --- | ---: | ---: | ---: |");
    for kind in [Kind::Exact, Kind::Plus, Kind::Multi, Kind::Deep, Kind::Hostile] {
        for n in [1_000, 100_000, 1_000_000] {
            if kind != Kind::Hostile || n == 1_000 {
                compare(kind, n, rounds);
            }
        }
    }
}

fn compare(kind: Kind, n: usize, rounds: usize) {
    let filters = kind.filters(n);
    let texts = kind.topics(n);

    let mut trie: TopicTrie<[u32; 2]> = TopicTrie::new();
    let quill = Registry::new();
    let mut tree = TopicTree::default();
    for (id, text) in filters.iter().enumerate() {
        let filter = TopicFilter::new(text.as_str()).expect("a filter");
        trie.get_or_insert_with(&filter, || [id as u32, 0])[1] += 1;
        quill.subscribe(Pattern::parse(text).expect("a filter"), id as u32);
        if kind == Kind::Exact {
            let filter = mqtt_topic_tree::TopicFilter::try_from(text.clone()).ok().expect("a filter");
            tree.add_subscription(filter, id as _, QoS::Level0);
        }
    }
    let ours: Vec<_> = texts.iter().map(|text| TopicName::new(text.as_str()).expect("a topic")).collect();
    let quills: Vec<_> = texts.iter().map(|text| Topic::parse(text).expect("a topic")).collect();
    let trees: Vec<_> = texts
        .iter()
        .map(|text| mqtt_topic_tree::TopicName::try_from(text.clone()).ok().expect("a topic"))
        .collect();

    let find = |topic: &TopicName| {
        let mut sum = 0;
        trie.for_each_match(topic, |subscribers| sum += u64::from(subscribers[1]));
        sum
    };
    for (topic, quills) in ours.iter().zip(&quills).take(20) {
        let naive = filters
            .iter()
            .filter(|filter| TopicFilter::new(filter.as_str()).is_ok_and(|filter| filter.matches(topic)))
            .count();
        assert_eq!(find(topic), naive as u64, "{topic}");
        assert_eq!(quill.matching(quills).len(), naive, "{topic}");
    }

    let mut rows = vec![
        Row { name: "ours", pass: Box::new(|| ours.iter().map(find).sum()) },
        Row {
            name: "quill-pubsub 0.1.0",
            pass: Box::new(|| quills.iter().map(|topic| quill.matching(topic).len() as u64).sum()),
        },
        Row {
            name: "ours, from text",
            pass: Box::new(|| {
                let topic = |text: &String| find(&TopicName::new(text.as_str()).expect("a topic"));
                texts.iter().map(topic).sum()
            }),
        },
        Row {
            name: "quill-pubsub 0.1.0, from text",
            pass: Box::new(|| {
                let topic = |text: &String| quill.matching(&Topic::parse(text).expect("a topic")).len();
                texts.iter().map(topic).sum::<usize>() as u64
            }),
        },
    ];
    if kind == Kind::Exact {
        rows.push(Row {
            name: "mqtt_topic_tree 0.1.3",
            pass: Box::new(|| trees.iter().map(|topic| tree.get_subscriptions(topic).len() as u64).sum()),
        });
    }

    let mut best = vec![(f64::MAX, 0.0); rows.len()];
    let mut answers = vec![0; rows.len()];
    for _ in 0..rounds {
        for ((row, best), answer) in rows.iter().zip(&mut best).zip(&mut answers) {
            let mut clock = Clock::default();
            *answer = clock.region(|| black_box((row.pass)()));
            let each = clock.nanoseconds as f64 / texts.len() as f64;
            if each < best.0 {
                *best = (each, clock.allocations as f64 / texts.len() as f64);
            }
        }
    }
    for ((row, (nanoseconds, allocations)), answer) in rows.iter().zip(&best).zip(&answers) {
        if *answer == answers[0] {
            println!(
                "| {}/{n} | {} | {nanoseconds:.1} | {:.1} | {allocations:.1} |",
                kind.name(),
                row.name,
                nanoseconds / best[0].0
            );
        } else {
            println!("| {}/{n} | {} | wrong answer | | |", kind.name(), row.name);
        }
    }
}
