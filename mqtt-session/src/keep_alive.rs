//! Keep Alive: who must be heard, and by when.

use core::time::Duration;

use crate::time::Timestamp;

/// What the keep-alive clock asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeepAliveAction {
    Nothing,
    /// Send a PINGREQ.
    Ping,
    /// Nothing was heard since the PINGREQ, for the whole ping timeout.
    PeerIsDead,
}

/// The two duties of Keep Alive in one place.
///
/// The specification asks that *we send* something once per interval (MQTT-3.1.2-20). A user asks that a dead peer is
/// noticed, and for that only what was *received* counts: a client that publishes steadily over a half-open link would
/// otherwise never ping. So a PINGREQ is due one interval after the older of the two directions fell silent.
#[derive(Debug, Clone)]
pub(crate) struct KeepAlive {
    /// Zero: switched off.
    interval: Duration,
    ping_timeout: Duration,
    last_sent: Timestamp,
    last_received: Timestamp,
    /// When the outstanding PINGREQ fell due or, if it could be, was written. Cleared by PINGRESP.
    ping_sent: Option<Timestamp>,
}

impl KeepAlive {
    pub(crate) const fn new(interval: Duration, ping_timeout: Duration, now: Timestamp) -> Self {
        Self {
            interval,
            ping_timeout,
            last_sent: now,
            last_received: now,
            ping_sent: None,
        }
    }

    pub(crate) const fn on_sent(&mut self, now: Timestamp) {
        self.last_sent = now;
    }

    pub(crate) const fn on_received(&mut self, now: Timestamp) {
        self.last_received = now;
    }

    pub(crate) const fn on_ping_sent(&mut self, now: Timestamp) {
        self.ping_sent = Some(now);
    }

    /// Returns when the answered PINGREQ was written, for the round-trip time.
    pub(crate) const fn on_pingresp(&mut self) -> Option<Timestamp> {
        self.ping_sent.take()
    }

    pub(crate) const fn awaits_pingresp(&self) -> bool {
        self.ping_sent.is_some()
    }

    /// When [`KeepAlive::check`] may next ask for something; `None` if never.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        if self.interval.is_zero() {
            return None;
        }
        Some(match self.ping_sent {
            // Anything received after the PINGREQ shows life: on a slow link the PINGRESP may queue behind messages.
            Some(sent) => sent.max(self.last_received) + self.ping_timeout,
            None => self.last_sent.min(self.last_received) + self.interval,
        })
    }

    //= MQTT-3.1.2-20
    //= v3.1.1 MQTT-3.1.2-23
    pub(crate) fn check(&self, now: Timestamp) -> KeepAliveAction {
        match self.deadline() {
            Some(deadline) if now >= deadline => {
                if self.ping_sent.is_some() {
                    KeepAliveAction::PeerIsDead
                } else {
                    KeepAliveAction::Ping
                }
            }
            _ => KeepAliveAction::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(seconds))
    }

    fn sixty_ten() -> KeepAlive {
        KeepAlive::new(Duration::from_secs(60), Duration::from_secs(10), at(0))
    }

    #[test]
    fn zero_switches_it_off() {
        let off = KeepAlive::new(Duration::ZERO, Duration::from_secs(10), at(0));
        assert_eq!(off.deadline(), None);
        assert_eq!(off.check(at(1_000_000)), KeepAliveAction::Nothing);
    }

    #[test]
    fn sending_does_not_postpone_the_ping() {
        let mut clock = sixty_ten();
        clock.on_sent(at(59));
        assert_eq!(clock.check(at(60)), KeepAliveAction::Ping);
    }

    #[test]
    fn receiving_does_not_excuse_us_from_sending() {
        let mut clock = sixty_ten();
        clock.on_received(at(59));
        assert_eq!(clock.check(at(60)), KeepAliveAction::Ping);
    }

    #[test]
    fn traffic_both_ways_makes_pings_needless() {
        let mut clock = sixty_ten();
        clock.on_received(at(50));
        clock.on_sent(at(55));
        assert_eq!(clock.check(at(109)), KeepAliveAction::Nothing);
        assert_eq!(clock.check(at(110)), KeepAliveAction::Ping);
    }

    #[test]
    fn the_ping_has_a_timeout_of_its_own() {
        let mut clock = sixty_ten();
        clock.on_ping_sent(at(60));
        clock.on_sent(at(69));
        assert_eq!(clock.check(at(69)), KeepAliveAction::Nothing);
        assert_eq!(clock.check(at(70)), KeepAliveAction::PeerIsDead);
        clock.on_received(at(69));
        assert_eq!(
            clock.check(at(70)),
            KeepAliveAction::Nothing,
            "a late PINGRESP behind other packets"
        );
        assert_eq!(clock.check(at(79)), KeepAliveAction::PeerIsDead);
    }
}
