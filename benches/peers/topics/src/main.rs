//! Our topic trie beside its peers: `cargo run --release -p topics [ROUNDS [WORKLOAD...]]` in `benches/peers`.
//!
//! Time is the CPU time of the thread, around the measured calls only. Indexes of one workload run in turn,
//! round after round; a row is the best round. Each index has the caches to itself in its turn: a pass over
//! the topics goes before the timed ones. What of a large set does not fit stays cold. Each must find as many subscribers as a naive search does
//! for the topics that are checked, and as many as ours for all.
//!
//! Peers get their filters and topics parsed before the clock starts. For topics they allocate in doing so,
//! which a user pays too: see the rows "from text", where all start from the topic's text. What a peer has to
//! own it is given; the copies are made while the clock stands still.
//!
//! Ours can be asked for many topics at a time, too, and is in the row "by batch", for all topics of a pass in one call.
//! No peer has such a call, so the last column sets what each takes for one topic after the other against it.

mod counting;
#[path = "../../src/measure.rs"]
mod measure;
mod peer;
#[path = "../../../src/topics.rs"]
#[allow(dead_code)]
mod topics;

use std::hint::black_box;

use measure::Clock;
use peer::{Ours, Peer, Quill, Rmqtt, Tree};
use pubsub_core::{MatchCache, TopicFilter};
use topics::Kind;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

fn main() {
    let mut args = std::env::args().skip(1);
    let rounds = args
        .next()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(15);
    let wanted: Vec<_> = args.collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    println!("| workload | index | ns | times ours | allocations | times ours by batch |");
    println!("| --- | --- | ---: | ---: | ---: | ---: |");
    for kind in [
        Kind::Exact,
        Kind::Plus,
        Kind::Multi,
        Kind::Deep,
        Kind::Hostile,
    ] {
        for n in [1_000, 100_000, 1_000_000] {
            if is_wanted(kind.name()) && (kind != Kind::Hostile || n == 1_000) {
                matching(kind, n, rounds);
            }
        }
    }
    if is_wanted("fan-out") {
        fan_out(rounds);
    }
    if is_wanted("change") {
        changing(Kind::Exact, rounds);
        changing(Kind::Multi, rounds);
    }
}

const BY_BATCH: &str = "ours, by batch";

/// What was measured of one index: the best round.
struct Row {
    name: String,
    best: Option<(u64, u64)>,
}

impl Row {
    fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            best: None,
        }
    }

    fn measure<T: Default>(&mut self, work: impl FnOnce() -> T) -> T {
        let mut clock = Clock::default();
        let result = clock.region(|| black_box(work()));
        let this = (clock.nanoseconds, clock.allocations);
        self.best = Some(self.best.map_or(this, |best| best.min(this)));
        result
    }
}

/// Prints the rows, each divided by the number of operations; the first is ours.
fn print(workload: &str, rows: &[&Row], operations: usize) {
    let each = |figure: u64| figure as f64 / operations as f64;
    let time_of = |row: &&Row| row.best.map(|(nanoseconds, _)| each(nanoseconds));
    let ours = rows.first().and_then(time_of).unwrap_or(f64::NAN);
    let by_batch = rows.iter().find(|row| row.name == BY_BATCH);
    let by_batch = by_batch.and_then(time_of);
    for row in rows {
        if let Some((nanoseconds, allocations)) = row.best {
            let time = each(nanoseconds);
            let times = by_batch.map_or_else(String::new, |base| format!("{:.1} ", time / base));
            println!(
                "| {workload} | {} | {time:.1} | {:.1} | {:.1} | {times}|",
                row.name,
                time / ours,
                each(allocations)
            );
        }
    }
}

/// One index filled with a set, and the topics to match.
struct Full<P: Peer> {
    index: P,
    topics: Vec<P::Topic>,
    row: Row,
    row_from_text: Row,
}

impl<P: Peer> Full<P> {
    fn new(filters: &[String], texts: &[String]) -> Self {
        let mut index = P::default();
        for (id, text) in filters.iter().enumerate() {
            index.subscribe(&mut Some(P::filter(text)), id as u32);
        }
        Self {
            index,
            topics: texts.iter().map(|text| P::topic(text)).collect(),
            row: Row::new(P::NAME),
            row_from_text: Row::new(format!("{}, from text", P::NAME)),
        }
    }

    fn check(&self, filters: &[String], texts: &[String]) {
        for (topic, text) in self.topics.iter().zip(texts).take(20) {
            let name = Ours::topic(text);
            let fits = |filter: &&String| {
                TopicFilter::new(filter.as_str()).is_ok_and(|filter| filter.matches(&name))
            };
            let naive = filters.iter().filter(fits).count() as u64;
            assert_eq!(self.index.count(topic), naive, "{}: {text}", P::NAME);
        }
    }

    /// Several passes over all topics; returns what each finds.
    fn round(&mut self, texts: &[String], passes: usize) -> u64 {
        let Self {
            index,
            topics,
            row,
            row_from_text,
        } = self;
        let pass = || topics.iter().map(|topic| index.count(topic)).sum::<u64>();
        let found = black_box(pass());
        assert_eq!(
            row.measure(|| (0..passes).map(|_| black_box(pass())).sum::<u64>()),
            found * passes as u64
        );
        let pass = || {
            texts
                .iter()
                .map(|text| index.count(&P::topic(text)))
                .sum::<u64>()
        };
        assert_eq!(
            row_from_text.measure(|| (0..passes).map(|_| black_box(pass())).sum::<u64>()),
            found * passes as u64
        );
        found
    }
}

fn matching(kind: Kind, n: usize, rounds: usize) {
    let filters = kind.filters(n);
    let texts = kind.topics(n);
    let mut ours = Full::<Ours>::new(&filters, &texts);
    let mut quill = Full::<Quill>::new(&filters, &texts);
    let mut rmqtt = Full::<Rmqtt>::new(&filters, &texts);
    let mut tree = (kind == Kind::Exact).then(|| Full::<Tree>::new(&filters, &texts));
    ours.check(&filters, &texts);
    quill.check(&filters, &texts);
    rmqtt.check(&filters, &texts);
    let mut cache = MatchCache::default();
    let mut cached = Row::new("ours, with a cache");
    let mut batched = Row::new(BY_BATCH);
    let passes = (20_000 / texts.len()).clamp(1, 200);
    for _ in 0..rounds {
        let found = ours.round(&texts, passes);
        let mut pass = || {
            ours.topics
                .iter()
                .map(|topic| ours.index.count_cached(&mut cache, topic))
                .sum::<u64>()
        };
        assert_eq!(pass(), found);
        assert_eq!(
            cached.measure(|| (0..passes).map(|_| pass()).sum::<u64>()),
            found * passes as u64
        );
        let pass = || ours.index.count_batched(&ours.topics);
        assert_eq!(black_box(pass()), found);
        assert_eq!(
            batched.measure(|| (0..passes).map(|_| black_box(pass())).sum::<u64>()),
            found * passes as u64
        );
        assert_eq!(quill.round(&texts, passes), found);
        assert_eq!(rmqtt.round(&texts, passes), found);
        if let Some(tree) = &mut tree {
            assert_eq!(tree.round(&texts, passes), found);
        }
    }
    let matches = texts.len() * passes;
    let mut rows = vec![&ours.row, &batched, &cached, &quill.row, &rmqtt.row];
    rows.extend(tree.as_ref().map(|tree| &tree.row));
    let workload = format!("{}/{n}", kind.name());
    print(&workload, &rows, matches);
    let mut rows = vec![
        &ours.row_from_text,
        &quill.row_from_text,
        &rmqtt.row_from_text,
    ];
    rows.extend(tree.as_ref().map(|tree| &tree.row_from_text));
    print(&workload, &rows, matches);
}

/// One topic with 1,000 subscribers among 10,000 others with one each, as a list of whom to send to.
fn fan_out(rounds: usize) {
    const TIMES: usize = 1_000;
    const SUBSCRIBERS: u32 = 1_000;

    fn full<P: Peer>(filters: &[String], topic: &str) -> (P, P::Topic, Row) {
        let mut index = P::default();
        for (id, text) in filters.iter().enumerate() {
            index.subscribe(&mut Some(P::filter(text)), id as u32);
        }
        for id in 0..SUBSCRIBERS {
            index.subscribe(&mut Some(P::filter(topic)), id + 1_000_000);
        }
        (index, P::topic(topic), Row::new(P::NAME))
    }

    fn round<P: Peer>((index, topic, row): &mut (P, P::Topic, Row)) {
        let mut list = Vec::with_capacity(SUBSCRIBERS as usize);
        row.measure(|| {
            for _ in 0..TIMES {
                index.list(black_box(topic), &mut list);
                black_box(&list);
            }
        });
        list.sort_unstable();
        assert!(
            list.iter()
                .copied()
                .eq((0..SUBSCRIBERS).map(|id| id + 1_000_000)),
            "{}",
            P::NAME
        );
    }

    let filters = Kind::Exact.filters(10_000);
    let topic = "site00/bldg00/floor0/everyone/temp";
    let mut ours = full::<Ours>(&filters, topic);
    let mut quill = full::<Quill>(&filters, topic);
    let mut rmqtt = full::<Rmqtt>(&filters, topic);
    let mut tree = full::<Tree>(&filters, topic);
    for _ in 0..rounds {
        round(&mut ours);
        round(&mut quill);
        round(&mut rmqtt);
        round(&mut tree);
    }
    print(
        "fan-out to 1,000",
        &[&ours.2, &quill.2, &rmqtt.2, &tree.2],
        TIMES,
    );
}

const CHANGES: usize = 100_000;

/// One index that is filled, changed and emptied.
struct Changing<P: Peer> {
    filters: Vec<P::Filter>,
    topics: Vec<P::Topic>,
    insert: Row,
    churn: Row,
    remove: Row,
    bytes: f64,
}

impl<P: Peer> Changing<P> {
    fn new(filters: &[String], texts: &[String]) -> Self {
        Self {
            filters: filters.iter().map(|text| P::filter(text)).collect(),
            topics: texts.iter().map(|text| P::topic(text)).collect(),
            insert: Row::new(P::NAME),
            churn: Row::new(P::NAME),
            remove: Row::new(P::NAME),
            bytes: 0.0,
        }
    }

    /// Copies of the filters with these numbers.
    fn some(&self, numbers: impl Iterator<Item = usize>) -> Vec<(u32, Option<P::Filter>)> {
        numbers
            .map(|number| (number as u32, self.filters.get(number).cloned()))
            .collect()
    }

    fn round(&mut self) -> u64 {
        let n = self.filters.len();
        let live = counting::live();
        let mut index = P::default();
        let mut all = self.some(0..n);
        self.insert.measure(|| {
            for (id, filter) in &mut all {
                index.subscribe(filter, *id);
            }
        });
        drop(all);
        self.bytes = (counting::live() - live) as f64 / n as f64;

        // Half matches, a quarter unsubscribes somebody, a quarter subscribes him again.
        let at = |step: usize| step * 7_919 % n;
        let mut going = self.some((0..CHANGES / 4).map(at));
        let mut coming = self.some((0..CHANGES / 4).map(at));
        let mut topics = self.topics.iter().cycle();
        let found = self.churn.measure(|| {
            let mut found = 0_u64;
            for ((id, going), (_, coming)) in going.iter_mut().zip(&mut coming) {
                index.unsubscribe(going, *id);
                found += topics.next().map_or(0, |topic| index.count(topic));
                index.subscribe(coming, *id);
                found += topics.next().map_or(0, |topic| index.count(topic));
            }
            found
        });

        let mut all = self.some(0..n);
        self.remove.measure(|| {
            for (id, filter) in &mut all {
                index.unsubscribe(filter, *id);
            }
        });
        assert_eq!(
            self.topics
                .iter()
                .map(|topic| index.count(topic))
                .sum::<u64>(),
            0
        );
        found
    }
}

fn changing(kind: Kind, rounds: usize) {
    let n = 100_000;
    let filters = kind.filters(n);
    let texts = kind.topics(n);
    let mut ours = Changing::<Ours>::new(&filters, &texts);
    let mut quill = Changing::<Quill>::new(&filters, &texts);
    let mut rmqtt = Changing::<Rmqtt>::new(&filters, &texts);
    for _ in 0..rounds {
        let found = ours.round();
        assert_eq!(quill.round(), found);
        assert_eq!(rmqtt.round(), found);
    }
    let name = kind.name();
    print(
        &format!("insert {name}/{n}"),
        &[&ours.insert, &quill.insert, &rmqtt.insert],
        n,
    );
    print(
        &format!("churn {name}/{n}"),
        &[&ours.churn, &quill.churn, &rmqtt.churn],
        CHANGES,
    );
    print(
        &format!("remove {name}/{n}"),
        &[&ours.remove, &quill.remove, &rmqtt.remove],
        n,
    );
    for (name, bytes) in [
        (Ours::NAME, ours.bytes),
        (Quill::NAME, quill.bytes),
        (Rmqtt::NAME, rmqtt.bytes),
    ] {
        println!(
            "| memory {}/{n} | {name} | {bytes:.0} bytes a subscription | {:.1} | | |",
            kind.name(),
            bytes / ours.bytes
        );
    }
}
