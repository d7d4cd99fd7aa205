//! A window of unacknowledged packets, ours or the peer's.

/// Counts what is in flight against a Receive Maximum.
///
/// `used` may exceed `max`: a PUBREL that is sent again after a reconnect takes its place in the window although it
/// may not be held back for want of one (MQTT-3.3.4-8), and the window only opens again once `used` has fallen below `max`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quota {
    max: u16,
    used: u32,
}

impl Quota {
    pub(crate) const fn new(max: u16) -> Self {
        Self { max, used: 0 }
    }

    pub(crate) const fn used(&self) -> u32 {
        self.used
    }

    pub(crate) const fn has_room(&self) -> bool {
        self.used < self.max as u32
    }

    /// Takes a place if there is one.
    pub(crate) const fn try_take(&mut self) -> bool {
        if self.has_room() {
            self.used += 1;
            true
        } else {
            false
        }
    }

    /// Takes a place, room or not.
    pub(crate) const fn take(&mut self) {
        self.used += 1;
    }

    pub(crate) const fn give_back(&mut self) {
        debug_assert!(self.used > 0, "a place was given back twice");
        self.used = self.used.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_stays_shut_while_overdrawn() {
        let mut quota = Quota::new(1);
        assert!(quota.try_take());
        quota.take();
        assert_eq!(quota.used(), 2);
        quota.give_back();
        assert!(!quota.try_take());
        quota.give_back();
        assert!(quota.try_take());
    }
}
