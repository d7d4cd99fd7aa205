//! What happens to a subscriber that does not keep up: each policy, at its bound.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use pubsub_core::*;

use common::scripted as setup;

#[derive(Default)]
struct Ledger(Mutex<Vec<(u64, Settlement)>>);

impl Ledger {
    fn settled(&self) -> Vec<(u64, Settlement)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl ReceiptSink for Ledger {
    fn settle(&self, token: u64, settlement: Settlement) {
        self.0.lock().unwrap().push((token, settlement));
    }
}

fn message(topic: &str, payload: impl Into<Bytes>, qos: QoS) -> Message {
    let mut message = Message::new(TopicName::new(topic).unwrap(), payload);
    message.qos = qos;
    message
}

fn plain(topic: &str, n: u64) -> Delivery {
    message(topic, n.to_string(), QoS::AtMostOnce).into()
}

fn held(ledger: &Arc<Ledger>, n: u64) -> Delivery {
    let receipt = DeliveryReceipt::new(Arc::clone(ledger) as Arc<_>, n);
    Delivery::new(message("a", n.to_string(), QoS::AtLeastOnce)).with_receipt(receipt)
}

fn queue(messages: usize, policy: OverflowPolicy) -> QueueLimits {
    QueueLimits::default()
        .with_messages(messages)
        .with_policy(policy)
}

fn hold(messages: usize, policy: HoldPolicy) -> HoldLimits {
    HoldLimits::default()
        .with_messages(messages)
        .with_policy(policy)
}

/// Everything there is now: payloads, gaps as `gap`, losses as `-n`, errors as `!`, the end as `.`.
fn told(events: &mut Events) -> String {
    let mut told = Vec::new();
    while let Some(event) = events.next().now_or_never() {
        told.push(match event {
            Some(Ok(Event::Message(message))) => message.text().unwrap().to_owned(),
            Some(Ok(Event::Gap(_))) => "gap".into(),
            Some(Ok(Event::Lagged(count))) => format!("-{count}"),
            Some(Ok(_)) => "?".into(),
            Some(Err(_)) => "!".into(),
            None => {
                told.push(".".into());
                break;
            }
        });
    }
    told.join(" ")
}

#[tokio::test]
async fn drops_the_oldest_and_tells_where() {
    let (pubsub, _, sink) = setup();
    let limits = queue(3, OverflowPolicy::DropOldest);
    let mut events = pubsub.subscribe("a").queue(limits).await.unwrap().events();
    assert_eq!(
        sink.deliver(&mut (0..10).map(|n| plain("a", n)).collect()),
        Demand::Continue
    );
    let stats = events.subscription().stats();
    assert_eq!((stats.received, stats.dropped, stats.queued), (10, 7, 3));
    assert_eq!(told(&mut events), "-7 7 8 9");
    assert_eq!(sink.deliver(&mut vec![plain("a", 10)]), Demand::Continue);
    assert_eq!(told(&mut events), "10");
    assert_eq!(events.subscription().stats().queued, 0);
}

#[tokio::test]
async fn drops_the_newest_and_tells_where() {
    let (pubsub, _, sink) = setup();
    let limits = queue(3, OverflowPolicy::DropNewest);
    let mut events = pubsub.subscribe("a").queue(limits).await.unwrap().events();
    assert_eq!(
        sink.deliver(&mut (0..10).map(|n| plain("a", n)).collect()),
        Demand::Continue
    );
    assert_eq!(told(&mut events), "0 1 2 -7");
}

#[tokio::test]
async fn keeps_the_latest_of_each_topic() {
    let (pubsub, _, sink) = setup();
    let limits = queue(3, OverflowPolicy::LatestPerTopic);
    let mut events = pubsub.subscribe("+").queue(limits).await.unwrap().events();
    let topics = ["a", "b", "a", "c", "b", "a"];
    let mut batch = topics
        .iter()
        .zip(0..)
        .map(|(topic, n)| plain(topic, n))
        .collect();
    assert_eq!(sink.deliver(&mut batch), Demand::Continue);
    assert_eq!(events.subscription().stats().dropped, 3);
    assert_eq!(told(&mut events), "5 4 3");
    // One topic more than there is room for.
    let topics = ["a", "b", "c", "d"];
    let mut batch = topics
        .iter()
        .zip(0..)
        .map(|(topic, n)| plain(topic, n))
        .collect();
    assert_eq!(sink.deliver(&mut batch), Demand::Continue);
    assert_eq!(told(&mut events), "-1 1 2 3");
}

#[tokio::test]
async fn ends_a_subscription_that_cannot_do_with_holes() {
    let (pubsub, provider, sink) = setup();
    let limits = queue(3, OverflowPolicy::End);
    let mut events = pubsub.subscribe("a").queue(limits).await.unwrap().events();
    assert_eq!(
        sink.deliver(&mut (0..4).map(|n| plain("a", n)).collect()),
        Demand::Continue
    );
    assert_eq!(provider.released().len(), 1);
    assert_eq!(told(&mut events), "0 1 2 ! .");
    assert_eq!(pubsub.routing_stats("scripted").unwrap().subscriptions, 0);
}

#[tokio::test]
async fn bounds_bytes_too_but_takes_any_single_message() {
    let (pubsub, _, sink) = setup();
    let limits = queue(1_000, OverflowPolicy::DropNewest).with_bytes(1_000);
    let mut messages = pubsub.subscribe("a").queue(limits).await.unwrap();
    let large = || Delivery::new(message("a", vec![b'x'; 2_000], QoS::AtMostOnce));
    assert_eq!(
        sink.deliver(&mut vec![large(), large(), plain("a", 1)]),
        Demand::Continue
    );
    assert_eq!(messages.stats().queued, 1);
    assert_eq!(messages.next().await.unwrap().unwrap().payload.len(), 2_000);
    assert_eq!(
        sink.deliver(&mut (0..100).map(|n| plain("a", n)).collect()),
        Demand::Continue
    );
    assert!(messages.stats().queued_bytes <= 1_000);
    // Each costs 64, one of topic and one or two of payload.
    assert_eq!(messages.stats().queued, 1_000 / 66);
}

#[tokio::test]
async fn what_a_subscriber_took_out_in_a_batch_still_counts() {
    let (pubsub, _, sink) = setup();
    let limits = queue(100, OverflowPolicy::DropNewest);
    let mut messages = pubsub.subscribe("a").queue(limits).await.unwrap();
    assert_eq!(
        sink.deliver(&mut (0..100).map(|n| plain("a", n)).collect()),
        Demand::Continue
    );
    assert!(messages.next().await.is_some());
    assert_eq!(messages.stats().queued, 99);
    assert_eq!(
        sink.deliver(&mut (0..100).map(|n| plain("a", n)).collect()),
        Demand::Continue
    );
    assert_eq!(messages.stats().queued, 100);
}

#[tokio::test]
async fn confirms_what_was_taken_and_only_that() {
    let (pubsub, _, sink) = setup();
    let ledger = Arc::new(Ledger::default());
    let mut one = pubsub.subscribe("a").qos(QoS::AtLeastOnce).await.unwrap();
    let mut other = pubsub.subscribe("#").qos(QoS::AtLeastOnce).await.unwrap();
    assert_eq!(
        sink.deliver(&mut (0..2).map(|n| held(&ledger, n)).collect()),
        Demand::Continue
    );
    assert!(one.next().await.is_some() && one.next().await.is_some());
    assert_eq!(ledger.settled(), [], "the other one has not taken them");
    assert!(other.next().await.is_some());
    assert_eq!(ledger.settled(), [(0, Settlement::Taken)]);
    drop(other);
    assert_eq!(
        ledger.settled(),
        [(1, Settlement::Taken)],
        "one of them has it"
    );
    assert_eq!(sink.deliver(&mut vec![held(&ledger, 2)]), Demand::Continue);
    drop(one);
    assert_eq!(ledger.settled(), [(2, Settlement::Dropped)]);
    assert_eq!(sink.deliver(&mut vec![held(&ledger, 3)]), Demand::Continue);
    assert_eq!(
        ledger.settled(),
        [(3, Settlement::Dropped)],
        "nobody wants it"
    );
    assert_eq!(pubsub.routing_stats("scripted").unwrap().unrouted, 1);
}

#[tokio::test]
async fn leaves_confirming_to_whoever_asks_for_it() {
    let (pubsub, _, sink) = setup();
    let ledger = Arc::new(Ledger::default());
    let mut deliveries = pubsub.subscribe("a").await.unwrap().deliveries();
    assert_eq!(
        sink.deliver(&mut (0..2).map(|n| held(&ledger, n)).collect()),
        Demand::Continue
    );
    let first = deliveries.next().await.unwrap().unwrap();
    let second = deliveries.next().await.unwrap().unwrap();
    assert_eq!(ledger.settled(), []);
    second.receipt.unwrap().reject(RefusalKind::InvalidPayload);
    first.receipt.unwrap().take();
    let rejected = Settlement::Rejected(RefusalKind::InvalidPayload);
    assert_eq!(ledger.settled(), [(1, rejected), (0, Settlement::Taken)]);
}

#[tokio::test]
async fn ends_one_of_many_that_holds_back_too_much() {
    let (pubsub, _, sink) = setup();
    let ledger = Arc::new(Ledger::default());
    let limits = hold(2, HoldPolicy::End);
    let stalled = pubsub.subscribe("a").hold(limits).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..99 {
        others.push(pubsub.subscribe("a").await.unwrap());
    }
    for n in 0..10 {
        assert_eq!(sink.deliver(&mut vec![held(&ledger, n)]), Demand::Continue);
        for other in &mut others {
            assert_eq!(other.next().await.unwrap().unwrap().payload, n.to_string());
        }
    }
    // What the stalled one held is confirmed with its end, though nobody reads or drops it: else it would stop all others.
    let mut confirmed = ledger.settled();
    confirmed.sort_unstable_by_key(|(token, _)| *token);
    let all = (0..10).map(|n| (n, Settlement::Taken));
    assert_eq!(confirmed, all.collect::<Vec<_>>());
    // It still gets what it had.
    let mut events = stalled.events();
    assert_eq!(told(&mut events), "0 1 ! .");
}

#[tokio::test]
async fn releases_the_oldest_and_tells_how_many() {
    let (pubsub, _, sink) = setup();
    let ledger = Arc::new(Ledger::default());
    let limits = hold(2, HoldPolicy::Release);
    let mut events = pubsub.subscribe("a").hold(limits).await.unwrap().events();
    assert_eq!(
        sink.deliver(&mut (0..5).map(|n| held(&ledger, n)).collect()),
        Demand::Continue
    );
    let released = [0, 1, 2].map(|n| (n, Settlement::Released));
    assert_eq!(ledger.settled(), released);
    assert_eq!(events.subscription().stats().released, 3);
    assert_eq!(told(&mut events), "-3 3 4");
}

#[tokio::test]
async fn asks_to_drop_the_connection_and_keeps_the_order() {
    let (pubsub, _, sink) = setup();
    let ledger = Arc::new(Ledger::default());
    let limits = hold(2, HoldPolicy::DropConnection);
    let mut events = pubsub.subscribe("a").hold(limits).await.unwrap().events();
    let mut batch = (0..3).map(|n| held(&ledger, n)).collect();
    assert_eq!(sink.deliver(&mut batch), Demand::DropConnection);
    assert_eq!(ledger.settled(), [(2, Settlement::Postponed)]);
    assert_eq!(told(&mut events), "0 1");
    // There is room again, but 3 must not overtake 2.
    assert_eq!(
        sink.deliver(&mut vec![held(&ledger, 3)]),
        Demand::DropConnection
    );
    assert_eq!(ledger.settled().last(), Some(&(3, Settlement::Postponed)));
    sink.gap(Gap::new(Duration::from_secs(1), Continuity::Kept));
    let mut batch = (2..4).map(|n| held(&ledger, n)).collect();
    assert_eq!(sink.deliver(&mut batch), Demand::Continue);
    assert_eq!(told(&mut events), "gap 2 3");
}

#[tokio::test]
async fn a_gap_of_some_filters_is_told_to_those_who_have_them_once_each() {
    let (pubsub, _, sink) = setup();
    let mut both = pubsub.subscribe(["a", "b"]).await.unwrap().events();
    let mut other = pubsub.subscribe("c").await.unwrap().events();
    let filters = ["a", "b", "nobody's"].map(|filter| TopicFilter::new(filter).unwrap());
    let gap = Gap::new(Duration::from_secs(1), Continuity::Kept).because_of(GapCause::Restart);
    sink.gap_of(&filters, gap);
    assert_eq!(told(&mut both), "gap");
    assert_eq!(told(&mut other), "");
    assert_eq!(both.subscription().stats().last_gap, Some(gap));
}

#[tokio::test]
async fn holds_no_longer_than_allowed() {
    for (policy, demand, told_after, settled) in [
        (
            HoldPolicy::End,
            Demand::Continue,
            "0 ! .",
            vec![(0, Settlement::Dropped)],
        ),
        (
            HoldPolicy::Release,
            Demand::Continue,
            "-1",
            vec![(0, Settlement::Released)],
        ),
        (
            HoldPolicy::DropConnection,
            Demand::DropConnection,
            "",
            vec![(0, Settlement::Postponed)],
        ),
    ] {
        let (pubsub, _, sink) = setup();
        let ledger = Arc::new(Ledger::default());
        let limits = hold(10, policy).with_time(Duration::from_secs(10));
        let mut events = pubsub.subscribe("a").hold(limits).await.unwrap().events();
        assert_eq!(
            sink.advance_clock(Duration::from_secs(100)),
            Demand::Continue
        );
        assert_eq!(sink.deliver(&mut vec![held(&ledger, 0)]), Demand::Continue);
        assert_eq!(
            sink.advance_clock(Duration::from_secs(110)),
            Demand::Continue
        );
        assert_eq!(ledger.settled(), [], "ten seconds are allowed");
        assert_eq!(sink.advance_clock(Duration::from_secs(111)), demand);
        assert_eq!(told(&mut events), told_after, "{policy:?}");
        assert_eq!(ledger.settled(), settled, "{policy:?}");
    }
}

/// It may have asked for one of a burst, but what it has not asked for others wait for.
#[tokio::test]
async fn holds_no_longer_than_allowed_what_came_with_the_one_it_took() {
    for (policy, demand, settlement) in [
        (HoldPolicy::End, Demand::Continue, Settlement::Dropped),
        (HoldPolicy::Release, Demand::Continue, Settlement::Released),
        (
            HoldPolicy::DropConnection,
            Demand::DropConnection,
            Settlement::Postponed,
        ),
    ] {
        let (pubsub, _, sink) = setup();
        let ledger = Arc::new(Ledger::default());
        let limits = hold(10, policy).with_time(Duration::from_secs(10));
        let mut messages = pubsub.subscribe("a").hold(limits).await.unwrap();
        let mut burst = vec![
            held(&ledger, 0),
            plain("a", 1),
            held(&ledger, 2),
            held(&ledger, 3),
        ];
        assert_eq!(sink.deliver(&mut burst), Demand::Continue);
        for n in [0, 1] {
            let message = messages.next().await.unwrap().unwrap();
            assert_eq!(message.payload, n.to_string());
        }
        assert_eq!(messages.stats().queued, 2);
        assert_eq!(sink.advance_clock(Duration::from_secs(11)), demand);
        assert_eq!(
            ledger.settled(),
            [(0, Settlement::Taken), (2, settlement), (3, settlement)],
            "{policy:?}"
        );
    }
}

#[tokio::test]
async fn wakes_once_a_burst() {
    let (pubsub, _, sink) = setup();
    let mut messages = pubsub.subscribe("a").await.unwrap();
    let mut next = by_hand(messages.next());
    assert!(next.poll().is_none());
    assert_eq!(
        sink.deliver(&mut (0..100).map(|n| plain("a", n)).collect()),
        Demand::Continue
    );
    assert_eq!(next.woken(), 1);
    assert!(next.poll().is_some());
}

#[tokio::test]
async fn keeps_the_order_of_both_classes() {
    let (pubsub, _, sink) = setup();
    let ledger = Arc::new(Ledger::default());
    let mut events = pubsub.subscribe("a").await.unwrap().events();
    let mut batch = (0..200)
        .map(|n| {
            if n % 3 == 0 {
                held(&ledger, n)
            } else {
                plain("a", n)
            }
        })
        .collect();
    assert_eq!(sink.deliver(&mut batch), Demand::Continue);
    let want: Vec<_> = (0..200).map(|n| n.to_string()).collect();
    assert_eq!(told(&mut events), want.join(" "));
}

#[tokio::test]
async fn a_lost_filter_is_told_and_ends_only_what_it_served() {
    let (pubsub, _, sink) = setup();
    let mut both = pubsub.subscribe(["a", "b"]).await.unwrap().events();
    let mut one = pubsub.subscribe("a").await.unwrap().events();
    sink.subscription_lost(
        &TopicFilter::new("a").unwrap(),
        RefusalKind::NotAuthorized.into(),
    );
    assert_eq!(
        sink.deliver(&mut vec![plain("a", 1), plain("b", 2)]),
        Demand::Continue
    );
    assert_eq!(told(&mut both), "! 2");
    assert_eq!(told(&mut one), "! .");
    sink.failed(ProviderErrorKind::NotAuthorized.into());
    assert_eq!(told(&mut both), "! .");
}

#[tokio::test]
async fn what_nobody_wants_has_a_place_to_go() {
    let (pubsub, provider, sink) = setup();
    let ledger = Arc::new(Ledger::default());
    let mut rest = pubsub.subscribe_unmatched().await.unwrap();
    assert_eq!(
        sink.deliver(&mut vec![held(&ledger, 1), plain("b", 2)]),
        Demand::Continue
    );
    let mut late = pubsub.subscribe("a").await.unwrap();
    assert_eq!(
        sink.deliver(&mut vec![held(&ledger, 3), plain("b", 4)]),
        Demand::Continue
    );
    for n in [1, 2, 4] {
        assert_eq!(rest.next().await.unwrap().unwrap().payload, n.to_string());
    }
    assert_eq!(late.next().await.unwrap().unwrap().payload, "3");
    assert_eq!(ledger.settled().len(), 2);
    assert_eq!(pubsub.routing_stats("scripted").unwrap().unrouted, 0);
    // Filters that it does not have, having none, are none to leave.
    let filter = TopicFilter::new("b").unwrap();
    rest.unsubscribe_from(&[filter]).await.unwrap();
    assert_eq!(sink.deliver(&mut vec![plain("b", 5)]), Demand::Continue);
    assert_eq!(rest.next().await.unwrap().unwrap().payload, "5");
    drop(rest);
    assert!(provider.released().is_empty());
    assert_eq!(sink.deliver(&mut vec![plain("b", 5)]), Demand::Continue);
    let stats = pubsub.routing_stats("scripted").unwrap();
    assert_eq!((stats.unrouted, stats.subscriptions), (1, 1));
    let mut rest = pubsub.subscribe_unmatched().await.unwrap();
    pubsub.close().await.unwrap();
    assert!(rest.next().await.is_none());
}

#[tokio::test]
async fn a_bad_payload_is_one_subscribers_error() {
    let (pubsub, _, sink) = setup();
    let mut typed = pubsub.subscribe("a").await.unwrap().json::<u64>();
    let mut raw = pubsub.subscribe("a").await.unwrap().events();
    let bad = Delivery::new(message("a", "{", QoS::AtMostOnce));
    assert_eq!(
        sink.deliver(&mut vec![bad, plain("a", 7)]),
        Demand::Continue
    );
    let error = typed.next().await.unwrap().unwrap_err();
    assert!(matches!(&error, SubscriptionError::Payload(bad) if bad.message.payload == "{"));
    assert_eq!(typed.next().await.unwrap().unwrap().value, 7);
    assert_eq!(told(&mut raw), "{ 7");
}

struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: hands every call to the system's allocator as it came, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.set(LIVE.get() + layout.size().cast_signed());
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - layout.size().cast_signed());
        // SAFETY: the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// 10,000 small states under a flood that comes in buffers of 64 KiB: each buffer must go although a few
/// messages of it stay.
#[tokio::test]
async fn small_messages_that_stay_do_not_keep_large_buffers() {
    const BUFFER: usize = 64 << 10;
    let (pubsub, _, sink) = setup();
    let limits = queue(20_000, OverflowPolicy::LatestPerTopic);
    let messages = pubsub.subscribe("state/+").queue(limits).await.unwrap();
    let before = LIVE.get();
    let mut batch = Vec::new();
    for round in 0..4_000_usize {
        // A burst in a buffer of its own, mostly of something else.
        let mut buffer = vec![b'.'; BUFFER];
        for i in 0..10 {
            let topic = format!("state/{:05}", (round * 10 + i) % 10_000);
            buffer[i * 32..][..topic.len()].copy_from_slice(topic.as_bytes());
        }
        let buffer = Bytes::from(buffer);
        batch.extend((0..10).map(|i| {
            let topic = TopicName::from_bytes(&buffer[i * 32..i * 32 + 11]).unwrap();
            Delivery::new(Message::new(topic, buffer.slice(i * 32 + 11..i * 32 + 32)))
                .with_buffer_len(BUFFER)
        }));
        assert_eq!(sink.deliver(&mut batch), Demand::Continue);
    }
    assert_eq!(messages.stats().queued, 10_000);
    let live = LIVE.get() - before;
    assert!(live < 16 << 20, "{live} bytes are live");
}

/// A future polled by hand, with its wake-ups counted.
struct Task<F> {
    future: std::pin::Pin<Box<F>>,
    wakes: Arc<Wakes>,
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl std::task::Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn by_hand<F: Future>(future: F) -> Task<F> {
    Task {
        future: Box::pin(future),
        wakes: Arc::default(),
    }
}

impl<F: Future> Task<F> {
    fn poll(&mut self) -> Option<F::Output> {
        let waker = Arc::clone(&self.wakes).into();
        match self
            .future
            .as_mut()
            .poll(&mut std::task::Context::from_waker(&waker))
        {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    fn woken(&self) -> usize {
        self.wakes.0.load(Relaxed)
    }
}
