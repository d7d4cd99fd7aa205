//! pubsub-core's topic index beside a list that is searched from end to end.

use std::collections::BTreeMap;

use pubsub_core::{
    MatchCache, MatchingRules, ParentLevel, ReservedTopics, TopicFilter, TopicName, TopicTrie,
};

use crate::input::Input;

/// Levels that meet each other often. One or two of the long one go over the room for text in an entry, of
/// either size.
const LEVELS: [&str; 8] = ["a", "b", "", LONG, "+", "#", "$s", "+"];
const LONG: &str = "a-level-of-fifty-five-bytes-more-than-lie-in-one-line..";

/// Runs a sequence of insertions, removals and questions on the index and on the list.
///
/// They must agree on every answer; the list matches by taking the rules of section 4.7 literally.
pub fn trie_vs_naive(data: &[u8]) {
    let mut input = Input::new(data);
    let switches = input.u8();
    let parent = if switches & 1 == 0 {
        ParentLevel::Matches
    } else {
        ParentLevel::BelowOnly
    };
    let reserved = if switches & 2 == 0 {
        ReservedTopics::NamedExplicitly
    } else {
        ReservedTopics::Ordinary
    };
    let rules = MatchingRules::new()
        .with_parent_level(parent)
        .with_reserved_topics(reserved);
    let mut trie: TopicTrie<u8> = TopicTrie::with_rules(rules);
    let mut list: BTreeMap<String, u8> = BTreeMap::new();
    let mut cache = MatchCache::new(4);
    let mut asked = Vec::new();
    let expected = |list: &BTreeMap<String, u8>, topic: &str| {
        let fits = list
            .iter()
            .filter(|(filter, _)| matches(filter, topic, parent, reserved));
        let mut expected: Vec<u8> = fits.map(|(_, value)| *value).collect();
        expected.sort_unstable();
        expected
    };

    for _ in 0..64 {
        let operation = input.u8();
        let text = levels(&mut input);
        match operation % 4 {
            kind @ (0 | 1) => {
                let Ok(filter) = TopicFilter::new(text.clone()) else {
                    assert!(!is_filter(&text), "{text:?} is a filter");
                    continue;
                };
                assert!(is_filter(&text), "{text:?} is no filter");
                if kind == 0 {
                    let value = input.u8();
                    assert_eq!(trie.insert(&filter, value), list.insert(text, value));
                } else if operation & 4 == 0 {
                    assert_eq!(trie.remove(&filter), list.remove(&text));
                } else {
                    let is_done = |value: &mut u8| {
                        *value ^= 1;
                        *value & 1 == 0
                    };
                    let done = list.get_mut(&text).is_some_and(is_done);
                    let expected = if done { list.remove(&text) } else { None };
                    assert_eq!(trie.remove_if(&filter, is_done), expected);
                }
            }
            2 => {
                let Ok(filter) = TopicFilter::new(text.clone()) else {
                    continue;
                };
                assert_eq!(trie.get(&filter), list.get(&text));
                if operation & 4 != 0 {
                    let value = *trie.get_or_insert_with(&filter, || operation);
                    assert_eq!(value, *list.entry(text).or_insert(operation));
                }
            }
            _ => {
                let Ok(topic) = TopicName::new(text.clone()) else {
                    continue;
                };
                let mut found = Vec::new();
                trie.for_each_match(&topic, |value| found.push(*value));
                found.sort_unstable();
                assert_eq!(
                    found,
                    expected(&list, &text),
                    "{text:?} against {:?}",
                    list.keys()
                );
                // At least the second time from memory.
                for _ in 0..2 {
                    let mut again = Vec::new();
                    trie.for_each_match_cached(&mut cache, &topic, |value| again.push(*value));
                    again.sort_unstable();
                    assert_eq!(again, found, "{text:?} from memory");
                }
                asked.push(topic);
            }
        }
        assert_eq!((trie.len(), trie.is_empty()), (list.len(), list.is_empty()));
    }

    // All in one batch, and twice, to have more of them than go side by side.
    let batch: Vec<&TopicName> = asked.iter().chain(&asked).collect();
    let mut found = vec![Vec::new(); batch.len()];
    let mut last = 0;
    trie.for_each_match_batched(batch.iter().copied(), |at, value| {
        assert!(last <= at, "in the order of the topics");
        last = at;
        found[at].push(*value);
    });
    for (topic, mut found) in batch.into_iter().zip(found) {
        found.sort_unstable();
        assert_eq!(found, expected(&list, topic), "{topic:?} in a batch");
    }
}

/// One to eight levels of the small vocabulary, or now and then more than are looked up by shape.
fn levels(input: &mut Input<'_>) -> String {
    let count = match input.u8() {
        few @ ..224 => 1 + few % 8,
        many => 15 + many % 6,
    };
    let chosen: Vec<&str> = (0..count)
        .map(|_| LEVELS[usize::from(input.below(8))])
        .collect();
    chosen.join("/")
}

/// Whether a text of the vocabulary is a filter: `+` always fills a level there, so only the place of
/// `#` is left to check.
fn is_filter(text: &str) -> bool {
    !text.is_empty() && text.find('#').is_none_or(|at| at + 1 == text.len())
}

fn matches(filter: &str, topic: &str, parent: ParentLevel, reserved: ReservedTopics) -> bool {
    if topic.starts_with('$')
        && reserved == ReservedTopics::NamedExplicitly
        && filter.starts_with(['+', '#'])
    {
        return false;
    }
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    match filter.split_last() {
        Some((&"#", above)) => {
            let deep = topic.len() > above.len();
            let itself = topic.len() == above.len() && parent == ParentLevel::Matches;
            (deep || itself) && above.iter().zip(&topic).all(level)
        }
        _ => filter.len() == topic.len() && filter.iter().zip(&topic).all(level),
    }
}

fn level((want, have): (&&str, &&str)) -> bool {
    *want == "+" || want == have
}
