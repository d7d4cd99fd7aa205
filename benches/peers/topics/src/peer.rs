//! One interface over the indexes, and one adapter for each.

use std::str::FromStr;

use mqtt_topic_tree::{QoS, TopicTree};
use pubsub_core::{MatchCache, TopicFilter, TopicName, TopicTrie};
use quill::{Pattern, Registry, Topic};

pub trait Peer: Default {
    const NAME: &'static str;
    type Filter: Clone;
    type Topic;

    fn filter(text: &str) -> Self::Filter;
    fn topic(text: &str) -> Self::Topic;
    /// Takes the filter if it has to own it. What it leaves is dropped while the clock stands still.
    fn subscribe(&mut self, filter: &mut Option<Self::Filter>, id: u32);
    fn unsubscribe(&mut self, filter: &mut Option<Self::Filter>, id: u32);
    /// The number of matching subscribers, found the quickest way that says who they are.
    fn count(&self, topic: &Self::Topic) -> u64;
    /// The list of the matching subscribers.
    fn list(&self, topic: &Self::Topic, into: &mut Vec<u32>);
}

/// Ours, with an identifier and options for each subscriber.
#[derive(Default)]
pub struct Ours(TopicTrie<Subscribers>);

/// One as a rule, and that in place.
pub enum Subscribers {
    One { id: u32, options: u32 },
    Many(Box<Many>),
}

pub struct Many {
    ids: Vec<u32>,
    options: Vec<u32>,
}

impl Subscribers {
    pub fn len(&self) -> u64 {
        match self {
            Self::One { .. } => 1,
            Self::Many(all) => all.ids.len() as u64,
        }
    }

    fn add(&mut self, new: u32) {
        match self {
            Self::One { id, options } if *id != new => {
                *self = Self::Many(Box::new(Many {
                    ids: vec![*id, new],
                    options: vec![*options, 0],
                }));
            }
            Self::One { .. } => {}
            Self::Many(all) => {
                all.ids.push(new);
                all.options.push(0);
            }
        }
    }

    /// Whether nobody is left.
    fn remove(&mut self, gone: u32) -> bool {
        let Self::Many(all) = self else { return true };
        if let Some(at) = all.ids.iter().position(|id| *id == gone) {
            all.ids.swap_remove(at);
            all.options.swap_remove(at);
        }
        all.ids.is_empty()
    }
}

impl Ours {
    pub fn count_batched(&self, topics: &[TopicName]) -> u64 {
        let mut count = 0;
        self.0
            .for_each_match_batched(topics, |_, subscribers| count += subscribers.len());
        count
    }

    pub fn count_cached(&self, cache: &mut MatchCache, topic: &TopicName) -> u64 {
        let mut count = 0;
        self.0.for_each_match_cached(cache, topic, |subscribers| {
            count += subscribers.len();
        });
        count
    }
}

impl Peer for Ours {
    const NAME: &'static str = "ours";
    type Filter = TopicFilter;
    type Topic = TopicName;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).expect("a filter")
    }

    fn topic(text: &str) -> TopicName {
        TopicName::new(text).expect("a topic")
    }

    fn subscribe(&mut self, filter: &mut Option<TopicFilter>, id: u32) {
        if let Some(filter) = filter {
            self.0
                .get_or_insert_with(filter, || Subscribers::One { id, options: 0 })
                .add(id);
        }
    }

    fn unsubscribe(&mut self, filter: &mut Option<TopicFilter>, id: u32) {
        if let Some(filter) = filter {
            self.0
                .remove_if(filter, |subscribers| subscribers.remove(id));
        }
    }

    fn count(&self, topic: &TopicName) -> u64 {
        let mut count = 0;
        self.0
            .for_each_match(topic, |subscribers| count += subscribers.len());
        count
    }

    fn list(&self, topic: &TopicName, into: &mut Vec<u32>) {
        into.clear();
        self.0
            .for_each_match(topic, |subscribers| match subscribers {
                Subscribers::One { id, .. } => into.push(*id),
                Subscribers::Many(all) => into.extend_from_slice(&all.ids),
            });
    }
}

pub struct Quill(Registry<u32>);

impl Default for Quill {
    fn default() -> Self {
        Self(Registry::new())
    }
}

impl Peer for Quill {
    const NAME: &'static str = "quill-pubsub 0.1.0";
    type Filter = Pattern;
    type Topic = Topic;

    fn filter(text: &str) -> Pattern {
        Pattern::parse(text).expect("a filter")
    }

    fn topic(text: &str) -> Topic {
        Topic::parse(text).expect("a topic")
    }

    fn subscribe(&mut self, filter: &mut Option<Pattern>, id: u32) {
        if let Some(filter) = filter.take() {
            self.0.subscribe(filter, id);
        }
    }

    fn unsubscribe(&mut self, filter: &mut Option<Pattern>, id: u32) {
        if let Some(filter) = filter {
            self.0.unsubscribe(filter, &id);
        }
    }

    fn count(&self, topic: &Topic) -> u64 {
        self.0.matching(topic).len() as u64
    }

    fn list(&self, topic: &Topic, into: &mut Vec<u32>) {
        *into = self.0.matching(topic);
    }
}

#[derive(Default)]
pub struct Rmqtt(rmqtt::trie::TopicTree<u32>);

impl Peer for Rmqtt {
    const NAME: &'static str = "rmqtt 0.24.0";
    type Filter = rmqtt::topic::Topic;
    type Topic = rmqtt::topic::Topic;

    fn filter(text: &str) -> Self::Filter {
        Self::Filter::from_str(text).expect("a filter")
    }

    fn topic(text: &str) -> Self::Topic {
        Self::Topic::from_str(text).expect("a topic")
    }

    fn subscribe(&mut self, filter: &mut Option<Self::Filter>, id: u32) {
        if let Some(filter) = filter {
            self.0.insert(filter, id);
        }
    }

    fn unsubscribe(&mut self, filter: &mut Option<Self::Filter>, id: u32) {
        if let Some(filter) = filter {
            self.0.remove(filter, &id);
        }
    }

    fn count(&self, topic: &Self::Topic) -> u64 {
        let matches = self.0.matches(topic);
        matches.iter().map(|(_, ids)| ids.len() as u64).sum()
    }

    fn list(&self, topic: &Self::Topic, into: &mut Vec<u32>) {
        into.clear();
        for (_, ids) in self.0.matches(topic).iter() {
            into.extend(ids.into_iter().copied());
        }
    }
}

/// Has room for two live branches only, so it runs without wildcards alone.
#[derive(Default)]
pub struct Tree(TopicTree);

impl Peer for Tree {
    const NAME: &'static str = "mqtt_topic_tree 0.1.3";
    type Filter = mqtt_topic_tree::TopicFilter;
    type Topic = mqtt_topic_tree::TopicName;

    fn filter(text: &str) -> Self::Filter {
        Self::Filter::try_from(text.to_owned())
            .ok()
            .expect("a filter")
    }

    fn topic(text: &str) -> Self::Topic {
        Self::Topic::try_from(text.to_owned())
            .ok()
            .expect("a topic")
    }

    fn subscribe(&mut self, filter: &mut Option<Self::Filter>, id: u32) {
        if let Some(filter) = filter.take() {
            self.0.add_subscription(filter, id as _, QoS::Level0);
        }
    }

    fn unsubscribe(&mut self, filter: &mut Option<Self::Filter>, id: u32) {
        if let Some(filter) = filter.take() {
            self.0.remove_subscription(filter, id as _);
        }
    }

    fn count(&self, topic: &Self::Topic) -> u64 {
        self.0.get_subscriptions(topic).len() as u64
    }

    fn list(&self, topic: &Self::Topic, into: &mut Vec<u32>) {
        into.clear();
        into.extend(
            self.0
                .get_subscriptions(topic)
                .iter()
                .map(|subscriber| subscriber.client_id as u32),
        );
    }
}
