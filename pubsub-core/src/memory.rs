//! A provider without a service: what is published comes back to the subscribers in this process.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::ready;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::connection::{ConnectionFacts, Link};
use crate::error::{ProviderError, ProviderErrorKind, PublishError, Refusal, RefusalKind};
use crate::matching::MatchingRules;
use crate::message::{Message, OutboundMessage, QoS};
use crate::provider::{
    BoxFuture, Delivery, DeliverySink, FilterRequest, Gap, Provider, RetainedMessages,
};
use crate::receipt::{Delivered, PublishReceipt};
use crate::topic::{TopicFilter, TopicName};
use crate::trie::TopicTrie;

/// A provider that needs no network: for an application's own tests, and for messages within a process.
///
/// It delivers at once, in the task of the publisher, keeps retained messages, and grants every filter
/// with the assurance asked for, unless told to [refuse](Self::refuse) it. It is connected from the
/// first subscribe or publish on, and can be [interrupted](Self::interrupt).
///
/// Add an `Arc` of it to keep a handle.
#[derive(Default)]
pub struct MemoryProvider {
    rules: MatchingRules,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sink: Option<DeliverySink>,
    facts: ConnectionFacts,
    closed: bool,
    /// What is granted: all filters of one pattern together.
    filters: TopicTrie<BTreeMap<TopicFilter, QoS>>,
    refused: BTreeSet<TopicFilter>,
    retained: BTreeMap<TopicName, Message>,
    outbox: Vec<Delivery>,
    /// Somebody empties the outbox; what is added meanwhile goes out in its next round.
    delivering: bool,
}

impl MemoryProvider {
    /// How many retained messages it keeps at most, so that a test cannot eat all memory. At the bound a
    /// message for one more topic is rejected.
    pub const MAX_RETAINED: usize = 100_000;
    /// How many messages may wait while another thread delivers. At the bound a publish fails.
    pub const MAX_OUTBOX: usize = 65_536;

    /// A provider with nothing in it, which matches by the specification's rules.
    #[must_use]
    pub fn new() -> Self {
        Self::with_rules(MatchingRules::default())
    }

    /// A provider that matches by other rules.
    #[must_use]
    pub fn with_rules(rules: MatchingRules) -> Self {
        let filters = TopicTrie::with_rules(rules);
        Self {
            rules,
            state: Mutex::new(State {
                filters,
                ..State::default()
            }),
        }
    }

    /// Refuses this filter from now on, as a service would that does not allow it.
    pub fn refuse(&self, filter: TopicFilter) {
        self.lock().refused.insert(filter);
    }

    /// Behaves as if the connection had been away: goes through the states, then reports the gap.
    pub fn interrupt(&self, gap: Gap) {
        let sink = {
            let mut state = self.lock();
            let Some(sink) = state.sink.clone() else {
                return;
            };
            state.facts.closed();
            let lost = ProviderErrorKind::ConnectionLost.into();
            sink.set_connection_state(state.facts, Some(lost));
            state.connect();
            sink
        };
        sink.gap(gap);
    }

    /// How many filters are subscribed.
    #[must_use]
    pub fn filters(&self) -> usize {
        self.lock().filters.len()
    }

    fn subscribe_now(
        &self,
        requests: Vec<FilterRequest>,
    ) -> Result<Vec<Result<QoS, Refusal>>, ProviderError> {
        let mut state = self.lock();
        if state.closed {
            return Err(ProviderErrorKind::Closed.into());
        }
        state.connect();
        let replies = requests
            .into_iter()
            .map(|request| state.grant(request))
            .collect();
        drop(state);
        self.pump();
        Ok(replies)
    }

    fn forget(&self, filters: &[TopicFilter]) {
        let mut state = self.lock();
        for filter in filters {
            if let Some(twins) = state.filters.get_mut(filter) {
                twins.remove(filter);
                if twins.is_empty() {
                    state.filters.remove(filter);
                }
            }
        }
    }

    /// Empties the outbox, unless somebody is at it, so that messages keep their order. No lock is held
    /// while messages are delivered, since delivering may release a filter.
    fn pump(&self) {
        loop {
            let mut state = self.lock();
            if state.delivering || state.outbox.is_empty() {
                return;
            }
            let Some(sink) = state.sink.clone() else {
                return;
            };
            let mut batch = std::mem::take(&mut state.outbox);
            state.delivering = true;
            drop(state);
            // There is no connection to drop, and nothing that could send again.
            let _ = sink.deliver(&mut batch);
            self.lock().delivering = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Goes through the states to being connected, if it is not.
    fn connect(&mut self) {
        if self.facts.link == Link::Connected {
            return;
        }
        self.facts.opening();
        self.tell();
        self.facts.established();
        self.tell();
    }

    fn tell(&self) {
        if let Some(sink) = &self.sink {
            sink.set_connection_state(self.facts, None);
        }
    }

    fn grant(&mut self, request: FilterRequest) -> Result<QoS, Refusal> {
        let FilterRequest {
            filter,
            qos,
            retained,
            ..
        } = request;
        if self.refused.contains(&filter) {
            return Err(RefusalKind::NotAuthorized.into());
        }
        let rules = self.filters.rules();
        let twins = self.filters.get_or_insert_with(&filter, BTreeMap::new);
        let is_new = twins.insert(filter.clone(), qos).is_none();
        let wanted = match retained {
            // A group shares what is new; what is old is not sent to it.
            _ if filter.share_group().is_some() => false,
            RetainedMessages::Send => true,
            RetainedMessages::OnlyIfNew => is_new,
            RetainedMessages::Skip => false,
        };
        if wanted {
            for message in self.retained.values() {
                if filter.matches_with(&message.topic, rules) {
                    let mut message = message.clone();
                    message.qos = message.qos.min(qos);
                    self.outbox.push(message.into());
                }
            }
        }
        Ok(qos)
    }

    fn accept(&mut self, message: OutboundMessage) -> Result<Delivered, PublishError> {
        if self.closed {
            return Err(PublishError::NotSent(ProviderErrorKind::Closed.into()));
        }
        if self.outbox.len() >= MemoryProvider::MAX_OUTBOX {
            return Err(PublishError::NotSent(ProviderErrorKind::QueueFull.into()));
        }
        self.connect();
        let OutboundMessage {
            topic,
            payload,
            qos,
            retain,
            properties,
            ..
        } = message;
        let mut inbound = Message::new(topic, payload);
        inbound.qos = qos;
        inbound.properties = properties;
        if retain {
            self.keep(&inbound)?;
        }
        let mut granted = None;
        self.filters.for_each_match(&inbound.topic, |twins| {
            granted = granted.max(twins.values().max().copied());
        });
        if let Some(granted) = granted {
            inbound.qos = qos.min(granted);
            self.outbox.push(inbound.into());
        }
        Ok(match (qos, granted) {
            (QoS::AtMostOnce, _) => Delivered::Sent,
            (_, Some(_)) => Delivered::Confirmed,
            (_, None) => Delivered::ConfirmedWithoutSubscribers,
        })
    }

    fn keep(&mut self, message: &Message) -> Result<(), PublishError> {
        if message.payload.is_empty() {
            self.retained.remove(&message.topic);
            return Ok(());
        }
        if self.retained.len() >= MemoryProvider::MAX_RETAINED
            && !self.retained.contains_key(&message.topic)
        {
            return Err(PublishError::Rejected(Box::new(
                RefusalKind::QuotaExceeded.into(),
            )));
        }
        let mut kept = message.clone();
        kept.retain = true;
        self.retained.insert(message.topic.clone(), kept);
        Ok(())
    }
}

impl Provider for MemoryProvider {
    fn attach(&self, sink: DeliverySink) -> Result<(), ProviderError> {
        let mut state = self.lock();
        if state.closed {
            return Err(ProviderErrorKind::Closed.into());
        }
        if state.sink.is_some() {
            return Err(ProviderErrorKind::Invalid.into());
        }
        state.sink = Some(sink);
        Ok(())
    }

    fn matching_rules(&self) -> MatchingRules {
        self.rules
    }

    fn publish(&self, message: OutboundMessage) -> PublishReceipt {
        let outcome = self.lock().accept(message);
        self.pump();
        PublishReceipt::ready(outcome)
    }

    fn subscribe(
        &self,
        requests: Vec<FilterRequest>,
    ) -> BoxFuture<'static, Result<Vec<Result<QoS, Refusal>>, ProviderError>> {
        Box::pin(ready(self.subscribe_now(requests)))
    }

    fn unsubscribe(
        &self,
        filters: Vec<TopicFilter>,
    ) -> BoxFuture<'static, Result<(), ProviderError>> {
        self.forget(&filters);
        Box::pin(ready(Ok(())))
    }

    fn release(&self, filters: Vec<TopicFilter>) {
        self.forget(&filters);
    }

    fn close(&self) -> BoxFuture<'static, Result<(), ProviderError>> {
        let mut state = self.lock();
        if !state.closed {
            state.closed = true;
            state.facts.closing();
            state.tell();
            state.facts.closed();
            state.tell();
            state.filters = TopicTrie::with_rules(self.rules);
            state.sink = None;
        }
        Box::pin(ready(Ok(())))
    }
}

impl fmt::Debug for MemoryProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("MemoryProvider")
            .field("connection", &state.facts.state())
            .field("filters", &state.filters.len())
            .field("retained", &state.retained.len())
            .finish_non_exhaustive()
    }
}
