//! Topic Aliases, one table for each direction. Both die with the Network Connection.

use std::collections::HashMap;
use std::sync::Arc;

/// What to put into a PUBLISH that is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutboundAlias {
    /// Send the topic and no alias.
    None,
    /// Send the topic and bind the alias to it.
    Bind(u16),
    /// Send an empty topic and the alias.
    Use(u16),
}

/// The aliases that we have bound, least recently used first to go.
///
/// A doubly linked list through a vector, so that every step is O(1) whatever the peer's Topic Alias Maximum.
#[derive(Debug)]
pub(crate) struct OutboundAliases {
    max: u16,
    by_topic: HashMap<Arc<str>, u16>,
    /// Slot `n` is alias `n + 1`. Grows as topics are used.
    slots: Vec<Slot>,
    /// The slot used last, and the one used longest ago.
    newest: u16,
    oldest: u16,
}

#[derive(Debug)]
struct Slot {
    topic: Arc<str>,
    newer: u16,
    older: u16,
}

const NONE: u16 = u16::MAX;

impl OutboundAliases {
    pub(crate) fn new(max: u16) -> Self {
        // One value stands for "no slot", which costs one alias of 65,535.
        let max = max.min(NONE - 1);
        Self {
            max,
            by_topic: HashMap::new(),
            slots: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    pub(crate) fn assign(&mut self, topic: &Arc<str>) -> OutboundAlias {
        if self.max == 0 {
            return OutboundAlias::None;
        }
        if let Some(&slot) = self.by_topic.get(topic) {
            self.unlink(slot);
            self.push_newest(slot);
            return OutboundAlias::Use(slot + 1);
        }
        let slot = if self.slots.len() < usize::from(self.max) {
            let slot = self.slots.len() as u16;
            self.slots.push(Slot {
                topic: topic.clone(),
                newer: NONE,
                older: NONE,
            });
            slot
        } else {
            let slot = self.oldest;
            self.unlink(slot);
            let old = core::mem::replace(&mut self.slots[usize::from(slot)].topic, topic.clone());
            self.by_topic.remove(&old);
            slot
        };
        self.by_topic.insert(topic.clone(), slot);
        self.push_newest(slot);
        OutboundAlias::Bind(slot + 1)
    }

    /// Takes back a binding that [`OutboundAliases::assign`] made last and that was not sent.
    pub(crate) fn forget(&mut self, alias: u16, topic: &Arc<str>) {
        let slot = alias - 1;
        self.by_topic.remove(topic);
        self.slots[usize::from(slot)].topic = Arc::from("");
        self.unlink(slot);
        self.push_oldest(slot);
    }

    fn unlink(&mut self, slot: u16) {
        let Slot { newer, older, .. } = self.slots[usize::from(slot)];
        match newer {
            NONE => self.newest = older,
            newer => self.slots[usize::from(newer)].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[usize::from(older)].newer = newer,
        }
    }

    fn push_oldest(&mut self, slot: u16) {
        let newer = self.oldest;
        let this = &mut self.slots[usize::from(slot)];
        this.older = NONE;
        this.newer = newer;
        match newer {
            NONE => self.newest = slot,
            newer => self.slots[usize::from(newer)].older = slot,
        }
        self.oldest = slot;
    }

    fn push_newest(&mut self, slot: u16) {
        let older = self.newest;
        let this = &mut self.slots[usize::from(slot)];
        this.newer = NONE;
        this.older = older;
        match older {
            NONE => self.oldest = slot,
            older => self.slots[usize::from(older)].newer = slot,
        }
        self.newest = slot;
    }
}

/// Why an alias in a received PUBLISH cannot be resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InboundAliasError {
    /// Zero, or above the maximum that we announced.
    OutOfRange,
    /// An empty topic with an alias that was never bound.
    Unknown,
}

/// The aliases that the peer has bound. Memory: at most our announced maximum times the longest topic, 64 KiB.
#[derive(Debug)]
pub(crate) struct InboundAliases {
    max: u16,
    topics: Vec<Option<Arc<str>>>,
}

impl InboundAliases {
    pub(crate) const fn new(max: u16) -> Self {
        Self {
            max,
            topics: Vec::new(),
        }
    }

    /// Binds `alias` to a topic that came in full.
    pub(crate) fn bind(&mut self, alias: u16, topic: &str) -> Result<(), InboundAliasError> {
        let slot = self.slot(alias)?;
        if self.topics.len() <= slot {
            self.topics.resize(slot + 1, None);
        }
        if self.topics[slot].as_deref() != Some(topic) {
            // A copy: a slice would keep the whole receive buffer alive for as long as the connection lasts.
            self.topics[slot] = Some(Arc::from(topic));
        }
        Ok(())
    }

    pub(crate) fn resolve(&self, alias: u16) -> Result<Arc<str>, InboundAliasError> {
        let slot = self.slot(alias)?;
        self.topics
            .get(slot)
            .cloned()
            .flatten()
            .ok_or(InboundAliasError::Unknown)
    }

    //= MQTT-3.3.2-10
    fn slot(&self, alias: u16) -> Result<usize, InboundAliasError> {
        if alias == 0 || alias > self.max {
            return Err(InboundAliasError::OutOfRange);
        }
        Ok(usize::from(alias) - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn the_least_recently_used_topic_loses_its_alias() {
        let mut aliases = OutboundAliases::new(2);
        assert_eq!(aliases.assign(&topic("a")), OutboundAlias::Bind(1));
        assert_eq!(aliases.assign(&topic("b")), OutboundAlias::Bind(2));
        assert_eq!(aliases.assign(&topic("a")), OutboundAlias::Use(1));
        assert_eq!(
            aliases.assign(&topic("c")),
            OutboundAlias::Bind(2),
            "b was used longest ago"
        );
        assert_eq!(aliases.assign(&topic("a")), OutboundAlias::Use(1));
        assert_eq!(aliases.assign(&topic("b")), OutboundAlias::Bind(2));
    }

    #[test]
    fn a_peer_that_allows_none_gets_none() {
        assert_eq!(
            OutboundAliases::new(0).assign(&topic("a")),
            OutboundAlias::None
        );
    }

    #[test]
    fn a_received_alias_is_checked_against_what_was_announced() {
        let mut aliases = InboundAliases::new(2);
        assert_eq!(aliases.bind(0, "a"), Err(InboundAliasError::OutOfRange));
        assert_eq!(aliases.bind(3, "a"), Err(InboundAliasError::OutOfRange));
        assert_eq!(aliases.resolve(2), Err(InboundAliasError::Unknown));
        aliases.bind(2, "a").unwrap();
        assert_eq!(aliases.resolve(2).unwrap().as_ref(), "a");
        assert_eq!(aliases.resolve(1), Err(InboundAliasError::Unknown));
        aliases.bind(2, "b").unwrap();
        assert_eq!(aliases.resolve(2).unwrap().as_ref(), "b");
    }

    proptest! {
        /// The receiving table is the oracle: whatever is sent, it must come to the topic that was meant.
        #[test]
        fn what_one_side_sends_the_other_resolves(max in 1u16..6, topics in proptest::collection::vec(0u8..10, 0..200)) {
            let mut ours = OutboundAliases::new(max);
            let mut theirs = InboundAliases::new(max);
            for number in topics {
                let name = topic(&format!("t/{number}"));
                match ours.assign(&name) {
                    OutboundAlias::None => prop_assert!(false, "there is room for an alias"),
                    OutboundAlias::Bind(alias) => theirs.bind(alias, &name).unwrap(),
                    OutboundAlias::Use(alias) => prop_assert_eq!(theirs.resolve(alias).unwrap(), name),
                }
            }
            prop_assert!(ours.slots.len() <= usize::from(max));
            prop_assert_eq!(ours.by_topic.len(), ours.slots.len());
        }
    }
}
