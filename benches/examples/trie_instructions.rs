//! Matches topics in a function of its own, for callgrind to count:
//! `valgrind --tool=callgrind --toggle-collect='trie_instructions::measured' target/release/examples/trie_instructions multi 1000`,
//! divided by the topics; `measured_batched` matches the same ones in one batch. Without valgrind it prints nanoseconds a
//! match, one by one and by batch, the best of the passes given as third argument, and the memory a subscription takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use benches::topics::Kind;
use pubsub_core::{TopicFilter, TopicName, TopicTrie};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands every call to the system's allocator as it came, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[inline(never)]
fn measured(trie: &TopicTrie<[u32; 2]>, topics: &[TopicName]) -> u64 {
    let mut sum = 0;
    for topic in topics {
        trie.for_each_match(topic, |subscribers| sum += u64::from(subscribers[1]));
    }
    sum
}

#[inline(never)]
fn measured_batched(trie: &TopicTrie<[u32; 2]>, topics: &[TopicName]) -> u64 {
    let mut sum = 0;
    trie.for_each_match_batched(topics, |_, subscribers| sum += u64::from(subscribers[1]));
    sum
}

fn main() {
    let mut args = std::env::args().skip(1);
    let kind = args.next().unwrap_or_else(|| "multi".into());
    let n: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(1_000);
    let kind = [
        Kind::Exact,
        Kind::Plus,
        Kind::Multi,
        Kind::Deep,
        Kind::Hostile,
    ]
    .into_iter()
    .find(|have| have.name() == kind)
    .expect("a set of filters");
    let filters: Vec<_> = kind
        .filters(n)
        .into_iter()
        .map(|filter| TopicFilter::new(filter).expect("a filter"))
        .collect();
    let topics: Vec<_> = kind
        .topics(n)
        .into_iter()
        .map(|topic| TopicName::new(topic).expect("a topic"))
        .collect();

    let before = LIVE.load(Relaxed);
    let mut trie = TopicTrie::new();
    for (id, filter) in filters.iter().enumerate() {
        trie.get_or_insert_with(filter, || [id as u32, 0])[1] += 1;
    }
    let live = LIVE.load(Relaxed) - before;

    let allocations = ALLOCATIONS.load(Relaxed);
    let passes = args
        .next()
        .and_then(|passes| passes.parse().ok())
        .unwrap_or(1);
    let mut sum = 0;
    let mut time = [Duration::MAX; 2];
    for _ in 0..passes {
        let began = Instant::now();
        sum = measured(&trie, &topics);
        time[0] = time[0].min(began.elapsed());
        let began = Instant::now();
        assert_eq!(measured_batched(&trie, &topics), sum);
        time[1] = time[1].min(began.elapsed());
    }
    assert_eq!(ALLOCATIONS.load(Relaxed), allocations, "a match allocates");
    println!(
        "{}/{n}: {} topics, {:.2} matches each, {:.1} ns a match, {:.1} by batch, {:.1} bytes a subscription",
        kind.name(),
        topics.len(),
        sum as f64 / topics.len() as f64,
        time[0].as_nanos() as f64 / topics.len() as f64,
        time[1].as_nanos() as f64 / topics.len() as f64,
        live as f64 / filters.len() as f64,
    );
}
