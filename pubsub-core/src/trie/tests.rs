//! The trie as a whole: against a naive search, and its bounds.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).unwrap()
}

fn found(trie: &TopicTrie<usize>, topic: &str) -> Vec<usize> {
    let mut found = Vec::new();
    trie.for_each_match(&TopicName::new(topic).unwrap(), |value| found.push(*value));
    found.sort_unstable();
    found
}

/// What each of the topics matches, asked for all at a time, and in order.
fn found_batched(trie: &TopicTrie<usize>, topics: &[TopicName]) -> Vec<Vec<usize>> {
    let mut found = vec![Vec::new(); topics.len()];
    let mut last = 0;
    trie.for_each_match_batched(topics, |at, value| {
        assert!(last <= at, "in the order of the topics");
        last = at;
        found[at].push(*value);
    });
    found.iter_mut().for_each(|found| found.sort_unstable());
    found
}

/// Levels that meet often, with an empty one, a reserved one and one too long to lie in an entry.
fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => Just("a"), 4 => Just("b"), 1 => Just(""), 1 => Just("$s"), 1 => Just("é"),
        1 => Just("a-level-longer-than-any-entry-has-room-for-in-its-line"),
    ]
}

fn topic() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => proptest::collection::vec(level(), 1..6),
        1 => proptest::collection::vec(level(), 14..20),
    ]
    .prop_map(|levels| levels.join("/"))
    .prop_filter("not empty", |topic| !topic.is_empty())
}

fn any_filter() -> impl Strategy<Value = String> {
    (topic(), any::<u32>(), any::<bool>(), 0..3_u8)
        .prop_map(|(topic, plus, all, ways)| {
            let mut levels: Vec<_> = topic.split('/').collect();
            if ways > 0 {
                for (place, level) in levels.iter_mut().enumerate() {
                    if plus >> place & 1 == 1 {
                        *level = "+";
                    }
                }
            }
            if ways > 0 && all {
                let last = levels.len() - 1;
                levels[last] = "#";
            }
            levels.join("/")
        })
        .prop_filter("not empty", |filter| !filter.is_empty())
}

fn rules() -> impl Strategy<Value = MatchingRules> {
    (any::<bool>(), any::<bool>()).prop_map(|(parent, reserved)| {
        let mut rules = MatchingRules::new();
        if parent {
            rules = rules.with_parent_level(ParentLevel::BelowOnly);
        }
        if reserved {
            rules = rules.with_reserved_topics(ReservedTopics::Ordinary);
        }
        rules
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Against the naive matcher, through insertions and removals of one and of all, with none, few and all of the
    /// shapes allowed.
    #[test]
    fn finds_what_a_naive_search_finds(
        rules in rules(),
        max_shapes in prop_oneof![Just(0_usize), Just(2), Just(MAX_SHAPES)],
        steps in proptest::collection::vec((any_filter(), 0..40_u8), 0..60),
        topics in proptest::collection::vec(topic(), 1..40),
    ) {
        let mut trie = TopicTrie::with_rules(rules);
        trie.max_shapes = max_shapes;
        let mut model = BTreeMap::new();
        for (value, (text, way)) in steps.iter().enumerate() {
            let filter = filter(text);
            match way {
                0..10 => prop_assert_eq!(trie.remove(&filter), model.remove(&filter)),
                10 => {
                    trie.clear();
                    model.clear();
                }
                _ => prop_assert_eq!(
                    trie.insert(&filter, value),
                    model.insert(filter.clone(), value)
                ),
            }
            prop_assert_eq!(trie.get(&filter), model.get(&filter));
            prop_assert_eq!(trie.len(), model.len());
        }
        let listed: BTreeMap<_, _> = trie.iter().map(|(filter, value)| (filter, *value)).collect();
        prop_assert_eq!(trie.iter().count(), model.len(), "each once");
        prop_assert_eq!(&listed, &model);
        let names: Vec<_> = topics.iter().map(|topic| TopicName::new(topic.as_str()).unwrap()).collect();
        let batched = found_batched(&trie, &names);
        for ((topic, name), batched) in topics.iter().zip(&names).zip(batched) {
            let mut want: Vec<_> = model
                .iter()
                .filter(|(filter, _)| filter.matches_with(name, rules))
                .map(|(_, value)| *value)
                .collect();
            want.sort_unstable();
            prop_assert_eq!(&batched, &want, "{} in a batch", topic);
            prop_assert_eq!(found(&trie, topic), want, "{}", topic);
        }
        for filter in model.keys() {
            prop_assert!(trie.remove(filter).is_some());
        }
        prop_assert!(trie.is_empty() && trie.shapes.is_empty() && trie.tree.is_empty());
        for topic in &topics {
            prop_assert!(found(&trie, topic).is_empty());
        }
        prop_assert!(found_batched(&trie, &names).concat().is_empty());
    }
}

#[test]
fn an_entry_with_a_small_value_is_a_cache_line() {
    assert_eq!(size_of::<Option<Entry<[u64; 2], LINE>>>(), 64);
    assert_eq!(size_of::<Option<Entry<[u64; 2], TWO_LINES>>>(), 128);
}

#[test]
fn a_few_filters_that_are_left_of_many_move_together() {
    let mut trie = TopicTrie::new();
    let text = |n: usize| format!("plant/+/line/{n}");
    for n in 0..10_000 {
        trie.insert(&filter(&text(n)), n);
    }
    for n in 0..9_990 {
        assert_eq!(trie.remove(&filter(&text(n))), Some(n));
    }
    assert!(trie.in_shapes.iter().all(|(number, _)| number < 40));
    for n in 0..10_000 {
        let left = (n >= 9_990).then_some(n);
        assert_eq!(trie.get(&filter(&text(n))).copied(), left);
        assert_eq!(
            found(&trie, &format!("plant/7/line/{n}")),
            Vec::from_iter(left)
        );
    }
}

/// Every combination of `+` and a literal over ten levels: 1,024 shapes, more than are listed.
fn branching(tail: &str) -> TopicTrie<usize> {
    let mut trie = TopicTrie::new();
    for bits in 0..1_024_usize {
        let levels: Vec<_> = (0..10)
            .map(|place| if bits >> place & 1 == 1 { "+" } else { "l" })
            .collect();
        trie.insert(&filter(&(levels.join("/") + tail)), bits);
    }
    trie
}

#[test]
fn branching_filters_are_bounded() {
    let topic = ["l"; 10].join("/");
    let all = branching("");
    assert_eq!(all.shapes.len(), MAX_SHAPES);
    assert!(all.tree.nodes() <= 2_047);
    assert_eq!(found(&all, &topic), (0..1_024).collect::<Vec<_>>());
    assert!(found(&branching("/never"), &topic).is_empty());
}

/// Each topic may match as many filters as a group has room for, so that every one is a part of its own.
#[test]
fn a_batch_goes_in_parts_where_its_topics_match_much() {
    let trie = branching("");
    let topics: Vec<_> = (0..40)
        .map(|n| {
            let mut levels = ["l"; 10];
            levels[n % 10] = if n % 3 == 0 { "l" } else { "other" };
            TopicName::new(levels.join("/")).unwrap()
        })
        .collect();
    let found = found_batched(&trie, &topics);
    for (n, found) in found.iter().enumerate() {
        let fits = |bits: &usize| n % 3 == 0 || bits >> (n % 10) & 1 == 1;
        assert_eq!(*found, (0..1_024).filter(fits).collect::<Vec<_>>(), "{n}");
    }
}

#[test]
fn a_batch_may_have_any_number_of_topics() {
    let mut exact = TopicTrie::new();
    for n in 0..100 {
        exact.insert(&filter(&format!("a/{n}")), n);
    }
    let mut mixed = exact.clone();
    mixed.insert(&filter("+/7"), 1_000);
    let topics: Vec<_> = (0..100)
        .map(|n| TopicName::new(format!("a/{}", n * 2)).unwrap())
        .collect();
    for len in 0..topics.len() {
        let topics = &topics[..len];
        for trie in [&exact, &mixed] {
            let found = found_batched(trie, topics);
            for (n, (found, topic)) in found.iter().zip(topics).enumerate() {
                assert_eq!(*found, self::found(trie, topic), "{n} of {len}");
            }
        }
    }
}

/// Two numbers whose keys have the same upper half, of which an index keeps no more: some thirty pairs are expected.
fn alike(key_of: impl Fn(usize) -> u64) -> [usize; 2] {
    let mut seen = HashMap::new();
    for n in 0..500_000 {
        if let Some(other) = seen.insert(key_of(n) >> 32, n) {
            return [other, n];
        }
    }
    panic!("no two keys are alike");
}

#[test]
fn filters_whose_keys_are_alike_are_told_apart() {
    let mut trie = TopicTrie::new();
    let long = |n: usize| format!("{n}/a-level-that-takes-a-text-to-the-table-of-long-ones");
    let exact = alike(|n| trie.seed.text(n.to_string().as_bytes()));
    let longs = alike(|n| trie.seed.text(long(n).as_bytes()));
    let shaped = alike(|n| Shape::of(&format!("+/{n}"), &trie.seed).unwrap().1);
    for n in 0..2 {
        trie.insert(&filter(&exact[n].to_string()), n);
        trie.insert(&filter(&long(longs[n])), 2 + n);
    }
    let names: Vec<_> = exact
        .iter()
        .map(|n| n.to_string())
        .chain(longs.map(long))
        .collect();
    let found_all = |trie: &TopicTrie<usize>, texts: &[String]| {
        let names: Vec<_> = texts
            .iter()
            .map(|text| TopicName::new(text.as_str()).unwrap())
            .collect();
        let one_by_one: Vec<_> = texts.iter().map(|text| found(trie, text)).collect();
        assert_eq!(found_batched(trie, &names), one_by_one);
        one_by_one
    };
    assert_eq!(found_all(&trie, &names), [[0], [1], [2], [3]]);
    for (value, n) in (4..).zip(shaped) {
        trie.insert(&filter(&format!("+/{n}")), value);
    }
    let names: Vec<_> = names
        .into_iter()
        .chain(shaped.map(|n| format!("a/{n}")))
        .collect();
    assert_eq!(found_all(&trie, &names), [[0], [1], [2], [3], [4], [5]]);
    // What is gone must not stand for what is alike.
    trie.remove(&filter(&exact[0].to_string()));
    trie.remove(&filter(&format!("+/{}", shaped[1])));
    assert_eq!(
        found_all(&trie, &names),
        [vec![], vec![1], vec![2], vec![3], vec![4], vec![]]
    );
}

#[test]
fn deep_filters_and_topics_are_walked_without_recursion() {
    let deep = "a/".repeat(30_000) + "a";
    let mut trie = TopicTrie::new();
    trie.insert(&filter(&deep), 1);
    trie.insert(&filter(&("+/".repeat(30_000) + "a")), 2);
    trie.insert(&filter(&("a/".repeat(29_999) + "#")), 3);
    trie.insert(&filter("a/#"), 4);
    assert_eq!(found(&trie, &deep), [1, 2, 3, 4]);
    assert_eq!(found(&trie, &("a/".repeat(20_000) + "b")), [4]);
    for text in [
        &*deep,
        &("+/".repeat(30_000) + "a"),
        &("a/".repeat(29_999) + "#"),
        "a/#",
    ] {
        assert!(trie.remove(&filter(text)).is_some());
    }
    assert!(trie.is_empty() && trie.tree.is_empty());
}

#[test]
fn a_removed_filter_leaves_no_node_behind() {
    let mut trie = TopicTrie::new();
    trie.max_shapes = 0;
    trie.insert(&filter("a/+/c/#"), 1);
    let nodes = trie.tree.nodes();
    for n in 0..100 {
        trie.insert(&filter(&format!("a/+/c/{n}/+/d")), n);
    }
    for n in 0..100 {
        trie.remove(&filter(&format!("a/+/c/{n}/+/d")));
    }
    assert_eq!(trie.tree.nodes(), nodes);
}
