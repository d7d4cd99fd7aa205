//! The service's limits on one connection.

use std::time::Duration;

/// The limits on one connection; those of the service unless set otherwise.
#[derive(Clone, Debug)]
pub struct Quotas {
    pub(super) payload: usize,
    pub(super) topic_bytes: usize,
    pub(super) topic_slashes: usize,
    pub(super) filters_per_subscribe: usize,
    pub(super) subscriptions: usize,
    pub(super) client_id_bytes: usize,
    pub(super) keep_alive_secs: std::ops::RangeInclusive<u16>,
    pub(super) receive_maximum: u16,
    pub(super) topic_alias_maximum: u16,
    pub(super) connection_life: Duration,
    pub(super) publishes_per_second: Option<u32>,
}

impl Quotas {
    /// The published ones: 128 KiB of payload, 256 bytes and 7 slashes of topic (without
    /// `$aws/rules/NAME/` and `$share/NAME/`), 8 filters a SUBSCRIBE, 50 subscriptions, 128 bytes of
    /// client identifier, 30 to 1,200 s of keep alive, 100 unacknowledged messages, 8 topic aliases,
    /// 24 hours. The rate of publishing is not limited unless
    /// [`publishes_per_second`](Self::publishes_per_second) says so.
    #[must_use]
    pub fn aws() -> Self {
        Self {
            payload: 128 * 1024,
            topic_bytes: 256,
            topic_slashes: 7,
            filters_per_subscribe: 8,
            subscriptions: 50,
            client_id_bytes: 128,
            keep_alive_secs: 30..=1200,
            receive_maximum: 100,
            topic_alias_maximum: 8,
            connection_life: Duration::from_secs(24 * 60 * 60),
            publishes_per_second: None,
        }
    }

    /// Another number of subscriptions on a connection.
    #[must_use]
    pub fn subscriptions(mut self, subscriptions: usize) -> Self {
        self.subscriptions = subscriptions;
        self
    }

    /// Another life of a connection, to see in seconds what takes a day. As with the service, it
    /// ends with the first packet after that.
    #[must_use]
    pub fn connection_life(mut self, life: Duration) -> Self {
        self.connection_life = life;
        self
    }

    /// Drops, without an acknowledgement, what is published beyond this rate, measured over whole
    /// seconds; the service's is 100.
    #[must_use]
    pub fn publishes_per_second(mut self, publishes: u32) -> Self {
        self.publishes_per_second = Some(publishes);
        self
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self::aws()
    }
}

/// A topic or filter without the prefix that does not count.
pub(super) fn counted(topic: &str) -> &str {
    for prefix in ["$aws/rules/", "$share/"] {
        if let Some((_, rest)) = topic.strip_prefix(prefix).and_then(|r| r.split_once('/')) {
            return rest;
        }
    }
    topic
}

/// Whether a message of this topic goes to a subscriber of this filter, by the service's rule: as
/// MQTT has it, but `a/#` is not for `a`.
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    let filter = match filter.strip_prefix("$share/") {
        Some(shared) => shared.split_once('/').map_or("", |(_, rest)| rest),
        None => filter,
    };
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", Some(_)) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_matches_but_for_the_parent_of_a_wildcard() {
        for (filter, topic, fits) in [
            ("a/#", "a", false),
            ("a/#", "a/", true),
            ("a/#", "a/b/c", true),
            ("#", "a", true),
            ("#", "$aws/x", false),
            ("+/x", "$aws/x", false),
            ("$aws/+", "$aws/x", true),
            ("+", "a/b", false),
            ("a/+/c", "a//c", true),
            ("a", "a/b", false),
            ("a/b", "a", false),
            ("$share/g/a/+", "a/b", true),
            ("$share/g", "g", false),
        ] {
            assert_eq!(matches(filter, topic), fits, "{filter} {topic}");
        }
    }

    #[test]
    fn some_prefixes_do_not_count() {
        assert_eq!(counted("$aws/rules/r/a/b"), "a/b");
        assert_eq!(counted("$share/g/a/b"), "a/b");
        assert_eq!(counted("$aws/things/t/shadow"), "$aws/things/t/shadow");
        assert_eq!(counted("$share/g"), "$share/g");
    }
}
