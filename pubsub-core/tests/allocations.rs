//! What the hot paths allocate, and that payloads are shared.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use futures_util::FutureExt as _;
use pubsub_core::*;

use common::scripted;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands every call to the system's allocator as it came, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How often `work` allocates, on this thread.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn setup() -> (PubSub, DeliverySink) {
    let (pubsub, _, sink) = scripted();
    (pubsub, sink)
}

#[test]
fn a_publish_allocates_its_receipt_at_most() {
    let (pubsub, _) = setup();
    let topic = TopicName::new("a/b").unwrap();
    let payload = Bytes::from_static(b"x");
    for (qos, most) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 1)] {
        let publish = || {
            let outcome = pubsub
                .publish(&topic, payload.clone())
                .qos(qos)
                .send()
                .now_or_never();
            assert!(outcome.unwrap().is_ok());
        };
        publish();
        assert_eq!(allocations(publish), most, "{qos:?}");
    }
}

#[tokio::test]
async fn a_delivery_allocates_nothing_once_it_runs() {
    let (pubsub, sink) = setup();
    let mut messages = pubsub.subscribe(["a/+", "a/b"]).await.unwrap();
    let topic = TopicName::new("a/b").unwrap();
    let payload = Bytes::from(vec![b'x'; 64]);
    let mut batch = Vec::with_capacity(16);
    let mut round = |count| {
        let message = || Delivery::new(Message::new(topic.clone(), payload.clone()));
        batch.extend(std::iter::repeat_with(message).take(count));
        assert_eq!(sink.deliver(&mut batch), Demand::Continue);
        for _ in 0..count {
            assert!(messages.next().now_or_never().is_some());
        }
        assert!(messages.next().now_or_never().is_none());
    };
    // The batch, the queue and the subscription have a buffer each, and change them.
    (0..3).for_each(|_| round(16));
    let rounds = || (0..100).for_each(|_| [16, 1, 1, 2].into_iter().for_each(&mut round));
    assert_eq!(allocations(rounds), 0);
}

#[tokio::test]
async fn a_delivery_among_many_filters_allocates_nothing_once_it_runs() {
    let (pubsub, sink) = setup();
    let many: Vec<_> = (0..2_000).map(|n| format!("elsewhere/{n}")).collect();
    let _others = pubsub.subscribe(many).await.unwrap();
    let mut messages = pubsub.subscribe(["a/+", "a/b"]).await.unwrap();
    let topics = ["a/b", "a/c", "a/d", "a/e", "a/f"].map(|topic| TopicName::new(topic).unwrap());
    let payload = Bytes::from(vec![b'x'; 64]);
    let mut batch = Vec::with_capacity(100);
    let mut round = || {
        let message = |topic: &TopicName| Message::new(topic.clone(), payload.clone());
        batch.extend(
            topics
                .iter()
                .cycle()
                .take(100)
                .map(message)
                .map(Delivery::new),
        );
        assert_eq!(sink.deliver(&mut batch), Demand::Continue);
        for _ in 0..100 {
            assert!(messages.next().now_or_never().is_some());
        }
    };
    (0..3).for_each(|_| round());
    assert_eq!(allocations(|| (0..100).for_each(|_| round())), 0);
}

#[tokio::test]
async fn a_fan_out_shares_the_payload() {
    let (pubsub, sink) = setup();
    let mut subscriptions = Vec::new();
    for _ in 0..100 {
        subscriptions.push(pubsub.subscribe("a").await.unwrap());
    }
    let payload = Bytes::from(vec![b'x'; 1 << 20]);
    let message = Message::new(TopicName::new("a").unwrap(), payload.clone());
    assert_eq!(sink.deliver(&mut vec![message.into()]), Demand::Continue);
    for subscription in &mut subscriptions {
        let message = subscription.next().await.unwrap().unwrap();
        assert_eq!(message.payload.as_ptr(), payload.as_ptr());
    }
}

#[test]
fn a_match_allocates_nothing() {
    let mut trie = TopicTrie::new();
    // Exact, shaped, and deeper than shapes go.
    let deep = "a/".repeat(40);
    for filter in [
        "a/a/a",
        "a/+/a",
        "#",
        "a/#",
        &(deep.clone() + "#"),
        &(deep.clone() + "+"),
    ] {
        trie.insert(&TopicFilter::new(filter).unwrap(), ());
    }
    for (topic, found) in [("a/a/a", 4), (&*(deep + "a"), 4)] {
        let topic = TopicName::new(topic).unwrap();
        let mut matches = 0;
        assert_eq!(
            allocations(|| trie.for_each_match(&topic, |()| matches += 1)),
            0
        );
        assert_eq!(matches, found);
        let batch = vec![topic; 40];
        let each = |_, _: &()| matches += 1;
        assert_eq!(allocations(|| trie.for_each_match_batched(&batch, each)), 0);
        assert_eq!(matches, 41 * found);
    }
}
