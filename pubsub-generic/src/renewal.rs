//! When a connection that works is replaced, before it ends by itself.

use std::time::Duration;

use tokio::time::Instant;

use crate::connect::CredentialFreshness;
use crate::options_error::OptionsError;
use crate::reconnect::{Jitter, Random};

/// When a connection that works is replaced by a new one, ahead of an end that is known: services close connections after
/// so many hours, and credentials expire.
///
/// A limit comes from [`max_age`](Self::max_age), or from a [`Connect`](crate::Connect) that says how long its transport is
/// [good for](crate::Opened::good_for); the earlier one counts. Ahead of it, by a margin and a random lead, the new transport is
/// opened while the old connection works on. When it stands, nothing new is sent, what was sent is
/// [drained](Self::drain_timeout), DISCONNECT ends the old connection, and CONNECT begins on the new one. So the gap is two
/// round trips, not a TLS handshake; should the new transport not come about, nothing has happened yet, and it is tried
/// again by the [`Reconnect`](crate::Reconnect) policy for as long as the old connection stands.
///
/// While the broker keeps the session (see [`SessionMode`](crate::SessionMode)) nothing is lost at QoS 1 and 2. With a
/// [clean](crate::SessionMode::Clean) one, what others publish in the gap is missed. Subscribers see the gap, its length
/// and that it was [meant](pubsub_core::GapCause::Planned); [`Stats`](crate::Stats) count it. Publishes wait, even with
/// [`OfflinePolicy::Fail`](pubsub_core::OfflinePolicy::Fail). The connection state goes from `Connected` over `Connecting`
/// to `Connected`.
///
/// While the old connection drains, the new transport is not looked at: for [`drain_timeout`](Self::drain_timeout) and a second more,
/// at most. A peer that ends it meanwhile is noticed after the old connection has been left, and that is then a loss like any other.
/// Limits are counted by the monotonic clock, and by the wall clock too, since the former stands still while the machine
/// sleeps (on Linux). A connection that wakes up past its time is replaced when there is next anything to do on it: with
/// the keep alive's ping, if nothing comes first; without keep alive and traffic, by the monotonic clock. A wall clock that is set forward may so have a connection replaced early,
/// but once; setting it back puts nothing off.
///
/// ```
/// use std::time::Duration;
/// use pubsub_generic::{MqttOptions, Renewal};
///
/// // A load balancer cuts what is older than a day.
/// let options = MqttOptions::new("wss://broker.example/mqtt")
///     .renewal(Renewal::default().max_age(Duration::from_secs(24 * 60 * 60)));
/// # let _ = options;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    mode: Mode,
    max_age: Option<Duration>,
    margin: Duration,
    jitter: Jitter,
    pub(crate) drain_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    AheadOfLimits,
    Never,
}

/// A [`Connect`](crate::Connect) that says its transport is good for less than this is not planned for: with credentials
/// that are always about to expire, it would go on without end.
const SHORTEST_LIFE: Duration = Duration::from_secs(10);

impl Default for Renewal {
    /// No age limit; what a `Connect` says is obeyed, a minute ahead and up to a tenth of the connection's life more, with
    /// 5 s for draining.
    fn default() -> Self {
        Self {
            mode: Mode::AheadOfLimits,
            max_age: None,
            margin: Duration::from_secs(60),
            jitter: Jitter::Full,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

impl Renewal {
    /// No connection is replaced. It ends at its limit, and is then made again like any other that is lost.
    #[must_use]
    pub fn never() -> Self {
        Self {
            mode: Mode::Never,
            ..Self::default()
        }
    }

    /// How old a connection may become, counted from its open transport. Default: as old as it will.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// How far ahead of the limit to begin, at least; but never before half of the connection's life is over. It has room
    /// for a failed attempt or two, and for draining. Default 60 s.
    #[must_use]
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    /// Whether to begin earlier by a random lead, evenly between zero and a tenth of the connection's life, so that clients
    /// that came together do not come back together. Default [`Jitter::Full`].
    #[must_use]
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// How long the broker may take to answer what was sent, before the old connection is ended all the same; what is then
    /// still in flight is sent again on the new one. Default 5 s.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), OptionsError> {
        if self.max_age.is_some_and(|age| age.is_zero()) {
            return Err(OptionsError::Zero {
                what: "maximum age of a connection",
            });
        }
        Ok(())
    }

    /// When to begin to replace a connection that was opened then, and whether its credentials are what ends it.
    pub(crate) fn begin(
        &self,
        opened_at: Instant,
        good_for: Option<Duration>,
        random: &mut Random,
    ) -> Option<(Instant, CredentialFreshness)> {
        if self.mode == Mode::Never {
            return None;
        }
        let by_age = self.max_age.map(|age| (age, CredentialFreshness::Any));
        let by_credentials = good_for
            .filter(|time| *time >= SHORTEST_LIFE)
            .map(|time| (time, CredentialFreshness::Renew));
        let (life, freshness) = [by_age, by_credentials]
            .into_iter()
            .flatten()
            .min_by_key(|(life, _)| *life)?;
        let lead = match self.jitter {
            Jitter::Full => self.margin.saturating_add(random.up_to(life / 10)),
            Jitter::None => self.margin,
        };
        let age = life.saturating_sub(lead).max(life / 2);
        // Too far away to be told from never.
        Some((opened_at.checked_add(age)?, freshness))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn begin(
        policy: &Renewal,
        good_for: Option<Duration>,
    ) -> Option<(Duration, CredentialFreshness)> {
        let opened_at = Instant::now();
        policy
            .begin(opened_at, good_for, &mut Random::seeded(1))
            .map(|(at, freshness)| (at.duration_since(opened_at), freshness))
    }

    #[test]
    fn the_earlier_limit_counts_and_says_whether_credentials_end() {
        let policy = Renewal::default().jitter(Jitter::None);
        assert_eq!(begin(&policy, None), None);
        let minute = Duration::from_secs(60);
        assert_eq!(
            begin(&policy, Some(HOUR)),
            Some((HOUR - minute, CredentialFreshness::Renew))
        );
        let policy = policy.max_age(HOUR / 2);
        assert_eq!(
            begin(&policy, Some(HOUR)),
            Some((HOUR / 2 - minute, CredentialFreshness::Any))
        );
        assert_eq!(begin(&Renewal::never().max_age(HOUR), Some(HOUR)), None);
    }

    #[test]
    fn a_short_life_is_half_lived_and_a_very_short_one_is_not_planned_for() {
        let policy = Renewal::default();
        let (age, _) = begin(&policy, Some(Duration::from_secs(20))).unwrap();
        assert_eq!(age, Duration::from_secs(10));
        assert_eq!(begin(&policy, Some(Duration::from_secs(9))), None);
        // Whoever sets an age means it.
        let policy = policy.max_age(Duration::from_millis(100));
        assert_eq!(begin(&policy, None).unwrap().0, Duration::from_millis(50));
        assert!(begin(&Renewal::default(), Some(Duration::MAX)).is_none());
    }

    #[test]
    fn a_fleet_is_spread_over_a_tenth_of_the_life() {
        let policy = Renewal::default().max_age(24 * HOUR);
        let mut random = Random::seeded(7);
        let opened_at = Instant::now();
        let ages: Vec<Duration> = (0..1000)
            .filter_map(|_| policy.begin(opened_at, None, &mut random))
            .map(|(at, _)| at.duration_since(opened_at))
            .collect();
        let (first, last) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(*last <= 24 * HOUR - Duration::from_secs(60));
        assert!(*first >= 24 * HOUR * 9 / 10 - Duration::from_secs(60));
        assert!(*last - *first > 2 * HOUR, "{first:?} {last:?}");
    }
}
