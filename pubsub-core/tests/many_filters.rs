//! Deliveries in batches where few filters stand and where many do, which are matched in different ways.

mod common;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use proptest::sample::select;
use pubsub_core::*;

use common::scripted;

fn level() -> impl Strategy<Value = &'static str> {
    select(&["a", "b", "c"][..])
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 1 => Just("+")];
    (proptest::collection::vec(level, 1..4), any::<bool>())
        .prop_map(|(levels, all)| levels.join("/") + if all { "/#" } else { "" })
}

/// Topics that often come several times in a row, and whether the message is a retained one.
fn messages() -> impl Strategy<Value = Vec<(String, bool)>> {
    let topic = proptest::collection::vec(level(), 1..4).prop_map(|levels| levels.join("/"));
    let run = (
        topic,
        1..4_usize,
        prop_oneof![9 => Just(false), 1 => Just(true)],
    );
    proptest::collection::vec(run, 1..40).prop_map(|runs| {
        let run = |(topic, times, is_retained)| std::iter::repeat_n((topic, is_retained), times);
        runs.into_iter().flat_map(run).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Each subscription gets each message that one of its filters or more match, once and in order, and a
    /// retained one once for each topic; what matches none goes where that is asked for.
    #[test]
    fn each_gets_what_its_filters_match(
        filters in proptest::collection::vec(proptest::collection::vec(filter(), 1..4), 1..8),
        others in select(&[0, 5_000][..]),
        messages in messages(),
        batch in 1..50_usize,
    ) {
        let (pubsub, _, sink) = scripted();
        let subscribed = |subscribe: Subscribe| subscribe.into_future().now_or_never().unwrap().unwrap();
        let elsewhere: Vec<_> = (0..others).map(|n| format!("elsewhere/{n}")).collect();
        let _others = (others > 0).then(|| subscribed(pubsub.subscribe(elsewhere)));
        let mut unmatched = subscribed(pubsub.subscribe_unmatched());
        let mut subscriptions: Vec<_> =
            filters.iter().map(|filters| subscribed(pubsub.subscribe(filters.clone()))).collect();

        let mut deliveries = Vec::new();
        let numbered: Vec<_> = messages.iter().enumerate().collect();
        for part in numbered.chunks(batch) {
            deliveries.extend(part.iter().map(|(number, (topic, is_retained))| {
                let topic = TopicName::new(topic.as_str()).unwrap();
                let mut message = Message::new(topic, number.to_string());
                message.retain = *is_retained;
                Delivery::new(message)
            }));
            prop_assert_eq!(sink.deliver(&mut deliveries), Demand::Continue);
        }

        let expected = |wants: &dyn Fn(&TopicName) -> bool| {
            let mut seen = Vec::new();
            let mut expected = Vec::new();
            for (number, (topic, is_retained)) in &numbered {
                let is_new = !is_retained || !seen.contains(&topic);
                if wants(&TopicName::new(topic.as_str()).unwrap()) && is_new {
                    expected.push(number.to_string());
                    seen.extend(is_retained.then_some(topic));
                }
            }
            expected
        };
        let taken = |subscription: &mut Subscription| {
            let mut taken = Vec::new();
            while let Some(message) = subscription.next().now_or_never() {
                let message = message.unwrap().unwrap();
                taken.push(message.text().unwrap().to_owned());
            }
            taken
        };
        let matches = |filters: &[String], topic: &TopicName| {
            filters.iter().any(|filter| TopicFilter::new(filter.as_str()).unwrap().matches(topic))
        };
        for (subscription, filters) in subscriptions.iter_mut().zip(&filters) {
            prop_assert_eq!(taken(subscription), expected(&|topic| matches(filters, topic)), "{:?}", filters);
        }
        let by_nobody = |topic: &TopicName| !filters.iter().any(|filters| matches(filters, topic));
        prop_assert_eq!(taken(&mut unmatched), expected(&by_nobody));
    }
}
