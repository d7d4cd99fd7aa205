//! Messages that come by themselves, again and again on one topic: the router remembers whom the last one was for, and
//! forgets it with whatever changes that.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use pubsub_core::*;

use common::{Scripted, scripted};

fn subscribed(subscribe: Subscribe) -> Subscription {
    let subscribing = subscribe.into_future().now_or_never();
    subscribing.unwrap().unwrap()
}

fn deliver(sink: &DeliverySink, topics: &[&str], payload: &str, retain: bool) {
    let message = |topic: &&str| {
        let mut message = Message::new(TopicName::new(*topic).unwrap(), payload.to_owned());
        message.retain = retain;
        message.into()
    };
    let mut batch = topics.iter().map(message).collect();
    assert_eq!(sink.deliver(&mut batch), Demand::Continue);
}

/// What has come, and not been taken.
fn taken(subscription: &mut Subscription) -> Vec<String> {
    let next = || subscription.next().now_or_never()?;
    let messages = std::iter::from_fn(next).filter_map(Result::ok);
    messages
        .map(|message| message.text().unwrap().to_owned())
        .collect()
}

const FILTERS: [&str; 7] = ["a/b", "a/+", "a/#", "+/b", "c", "#", "a"];
const TOPICS: [&str; 4] = ["a/b", "a", "c", "x"];

#[derive(Clone, Debug)]
enum Step {
    Subscribe(Vec<&'static str>),
    SubscribeUnmatched,
    Drop(Index),
    Leave(Index, &'static str),
    Lose(&'static str),
    Replace(ParentLevel),
    Fail,
    Deliver(Vec<&'static str>),
    DeliverRetained(&'static str),
}

fn step() -> impl Strategy<Value = Step> {
    let filter = || select(&FILTERS[..]);
    let rules = select(&[ParentLevel::Matches, ParentLevel::BelowOnly][..]);
    // By itself, more often than not.
    let topics = prop_oneof![
        3 => select(&TOPICS[..]).prop_map(|topic| vec![topic]),
        1 => proptest::collection::vec(select(&TOPICS[..]), 2..4),
    ];
    prop_oneof![
        3 => proptest::collection::vec(filter(), 1..3).prop_map(Step::Subscribe),
        1 => Just(Step::SubscribeUnmatched),
        2 => any::<Index>().prop_map(Step::Drop),
        2 => (any::<Index>(), filter()).prop_map(|(who, filter)| Step::Leave(who, filter)),
        1 => filter().prop_map(Step::Lose),
        1 => rules.prop_map(Step::Replace),
        1 => Just(Step::Fail),
        12 => topics.prop_map(Step::Deliver),
        2 => select(&TOPICS[..]).prop_map(Step::DeliverRetained),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes between them, each message goes to those whose filters match it then, and to nobody else.
    #[test]
    fn is_never_that_of_before(
        others in prop_oneof![3 => Just(0), 1 => Just(1_100)],
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let (pubsub, _, mut sink) = scripted();
        let elsewhere: Vec<_> = (0..others).map(|n| format!("elsewhere/{n}")).collect();
        let _others = (others > 0).then(|| subscribed(pubsub.subscribe(elsewhere)));
        let mut rules = MatchingRules::default();
        // `None` is to get what nobody else gets.
        let mut subscriptions: Vec<(Subscription, Option<Vec<&str>>)> = Vec::new();
        let mut unrouted = 0;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Subscribe(filters) => {
                    let subscription = subscribed(pubsub.subscribe(filters.clone()));
                    subscriptions.push((subscription, Some(filters)));
                }
                Step::SubscribeUnmatched => {
                    subscriptions.push((subscribed(pubsub.subscribe_unmatched()), None));
                }
                Step::Drop(who) if !subscriptions.is_empty() => {
                    drop(subscriptions.remove(who.index(subscriptions.len())));
                }
                Step::Leave(who, filter) if !subscriptions.is_empty() => {
                    let (subscription, filters) = who.get_mut(&mut subscriptions);
                    let leaving = [TopicFilter::new(filter).unwrap()];
                    subscription.unsubscribe_from(&leaving).now_or_never().unwrap().unwrap();
                    filters.iter_mut().for_each(|filters| filters.retain(|have| *have != filter));
                }
                Step::Drop(_) | Step::Leave(..) => {}
                Step::Lose(filter) => {
                    let reason = RefusalKind::ProviderFailed.into();
                    sink.subscription_lost(&TopicFilter::new(filter).unwrap(), reason);
                    for filters in subscriptions.iter_mut().filter_map(|(_, filters)| filters.as_mut()) {
                        filters.retain(|have| *have != filter);
                    }
                }
                Step::Replace(parent_level) => {
                    rules = rules.with_parent_level(parent_level);
                    let provider = Arc::new(Scripted::with_rules(rules));
                    let replacing = pubsub.replace_provider("scripted", Arc::clone(&provider));
                    replacing.now_or_never().unwrap().unwrap();
                    sink = provider.sink();
                }
                Step::Fail => {
                    sink.failed(ProviderErrorKind::Closed.into());
                    subscriptions.clear();
                }
                Step::Deliver(topics) => {
                    let number = number.to_string();
                    deliver(&sink, &topics, &number, false);
                    let is_for = |filters: &Vec<&str>, topic: &&&str| {
                        let topic = TopicName::new(**topic).unwrap();
                        let wants = |filter: &&str| TopicFilter::new(*filter).unwrap().matches_with(&topic, rules);
                        filters.iter().any(wants)
                    };
                    let asked_for = subscriptions.iter().filter_map(|(_, filters)| filters.clone());
                    let asked_for = asked_for.flatten().collect();
                    let others = topics.iter().filter(|topic| !is_for(&asked_for, topic)).count();
                    if subscriptions.iter().all(|(_, filters)| filters.is_some()) {
                        unrouted += others as u64;
                    }
                    for (subscription, filters) in &mut subscriptions {
                        let count = match filters {
                            Some(filters) => topics.iter().filter(|topic| is_for(filters, topic)).count(),
                            None => others,
                        };
                        let expected = vec![number.clone(); count];
                        prop_assert_eq!(taken(subscription), expected, "{:?} of {:?}", filters, topics);
                    }
                    prop_assert_eq!(pubsub.routing_stats("scripted").unwrap().unrouted, unrouted);
                }
                // Who has had it already is the subject of other tests; here, what it leaves behind.
                Step::DeliverRetained(topic) => {
                    deliver(&sink, &[topic], "retained", true);
                    subscriptions.iter_mut().for_each(|(subscription, _)| drop(taken(subscription)));
                    unrouted = pubsub.routing_stats("scripted").unwrap().unrouted;
                }
            }
        }
    }
}

/// Subscriptions begin and end while another thread delivers on their topic: what is delivered after the beginning comes, and
/// what is delivered after the end does not.
#[test]
fn holds_for_no_message_after_a_change_on_another_thread() {
    const BEFORE: u64 = 3;
    let (pubsub, _, sink) = scripted();
    let begun = Arc::new(AtomicU64::new(0));
    let (ask, asked) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let delivering = std::thread::spawn({
        let begun = Arc::clone(&begun);
        move || {
            for number in asked {
                begun.store(number, Ordering::SeqCst);
                deliver(&sink, &["a/b"], &u64::to_string(&number), false);
                tell.send(()).unwrap();
            }
        }
    });
    let mut last = 0;
    let mut ask_for = |count| {
        (0..count).for_each(|_| {
            last += 1;
            ask.send(last).unwrap();
        });
        last
    };
    let wait_for = |count| told.iter().take(count as usize).for_each(drop);
    let numbers = |subscription: &mut Subscription| -> Vec<u64> {
        let texts = taken(subscription).into_iter();
        texts.map(|text| text.parse().unwrap()).collect()
    };
    let filter = [TopicFilter::new("a/+").unwrap()];
    let mut stays = subscribed(pubsub.subscribe("a/+"));
    for _ in 0..500 {
        ask_for(BEFORE);
        let mut comes = subscribed(pubsub.subscribe(["a/+", "+/b"]));
        let at_most = begun.load(Ordering::SeqCst);
        let end = ask_for(1);
        wait_for(BEFORE + 1);
        let came = numbers(&mut comes);
        let first = came.first().copied().unwrap_or(end);
        assert!(first <= at_most + 1, "{came:?} after {at_most}");
        assert_eq!(came, Vec::from_iter(first..=end));
        assert_eq!(numbers(&mut stays), Vec::from_iter(end - BEFORE..=end));

        ask_for(BEFORE);
        let leaving = comes.unsubscribe_from(&filter).now_or_never();
        leaving.unwrap().unwrap();
        ask_for(BEFORE);
        let filter = [TopicFilter::new("+/b").unwrap()];
        let leaving = comes.unsubscribe_from(&filter).now_or_never();
        leaving.unwrap().unwrap();
        let at_most = begun.load(Ordering::SeqCst);
        let end = ask_for(1);
        wait_for(2 * BEFORE + 1);
        let came = numbers(&mut comes);
        assert_eq!(
            came,
            Vec::from_iter(end - 2 * BEFORE..=came.last().copied().unwrap_or(0))
        );
        assert!(came.iter().all(|number| *number <= at_most), "{came:?}");
        assert_eq!(numbers(&mut stays), Vec::from_iter(end - 2 * BEFORE..=end));
    }
    drop(ask);
    delivering.join().unwrap();
}

#[test]
fn keeps_nothing_alive_after_the_subscription() {
    let (pubsub, _, sink) = scripted();
    let text: Arc<str> = "a/b".into();
    let mut subscription = subscribed(pubsub.subscribe("a/+"));
    let topic = TopicName::new(Arc::clone(&text)).unwrap();
    let message = Message::new(topic, "x");
    assert_eq!(sink.deliver(&mut vec![message.into()]), Demand::Continue);
    assert_eq!(taken(&mut subscription), ["x"]);
    assert_eq!(Arc::strong_count(&text), 2, "remembered");
    drop(subscription);
    assert_eq!(Arc::strong_count(&text), 1);
}

#[test]
fn is_that_of_the_provider_in_place() {
    let (pubsub, _, sink) = scripted();
    let mut subscription = subscribed(pubsub.subscribe("a/#"));
    deliver(&sink, &["a"], "by the rules", false);
    let rules = MatchingRules::default().with_parent_level(ParentLevel::BelowOnly);
    let provider = Arc::new(Scripted::with_rules(rules));
    let replacing = pubsub.replace_provider("scripted", Arc::clone(&provider));
    replacing.now_or_never().unwrap().unwrap();
    deliver(&sink, &["a"], "by the one before", false);
    deliver(&provider.sink(), &["a"], "by other rules", false);
    assert_eq!(taken(&mut subscription), ["by the rules"]);
}

#[test]
fn is_not_that_of_a_filter_that_was_left() {
    let (pubsub, _, sink) = scripted();
    let mut subscription = subscribed(pubsub.subscribe(["a", "b"]));
    deliver(&sink, &["a"], "before", false);
    let left = [TopicFilter::new("a").unwrap()];
    let leaving = subscription.unsubscribe_from(&left).now_or_never();
    leaving.unwrap().unwrap();
    deliver(&sink, &["a"], "after", false);
    assert_eq!(taken(&mut subscription), ["before"]);
}
