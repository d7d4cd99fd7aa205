//! When to try again: the policy, and the clockwork that follows it.

use std::time::Duration;

use crate::options_error::OptionsError;

/// When to try again after a connection was lost or an attempt failed.
///
/// The first retry comes quickly, since most losses are a blip. After it the delay is drawn evenly from zero up to a
/// ceiling that doubles with every failure ("full jitter": clients that lost the same broker at the same moment do not
/// come back at the same moment) and stops growing at a cap. The count starts again only after a connection has stood
/// for a while: a broker that takes the connection and throws us out at once is not a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconnect {
    first: Duration,
    base: Duration,
    cap: Duration,
    jitter: Jitter,
    stable_after: Duration,
    attempts: Option<u32>,
}

/// How a delay is spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Jitter {
    /// Evenly between zero and the delay.
    Full,
    /// Not at all.
    None,
}

impl Default for Reconnect {
    /// First retry within 250 ms, then up to 1 s, 2 s, 4 s, … 60 s, full jitter, for ever; counted afresh after a
    /// connection of 30 s.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(250),
            base: Duration::from_secs(1),
            cap: Duration::from_secs(60),
            jitter: Jitter::Full,
            stable_after: Duration::from_secs(30),
            attempts: None,
        }
    }
}

impl Reconnect {
    /// The rhythm of Amplify's own client: 5 s after the loss, then every 60 s, without jitter, for ever.
    #[must_use]
    pub fn amplify() -> Self {
        Self {
            first: Duration::from_secs(5),
            base: Duration::from_secs(60),
            cap: Duration::from_secs(60),
            jitter: Jitter::None,
            stable_after: Duration::ZERO,
            attempts: None,
        }
    }

    /// No retry: the first failure is final.
    #[must_use]
    pub fn never() -> Self {
        Self {
            attempts: Some(0),
            ..Self::default()
        }
    }

    /// The ceiling of the first delay. Default 250 ms.
    #[must_use]
    pub fn first(mut self, delay: Duration) -> Self {
        self.first = delay;
        self
    }

    /// The ceiling of the second delay, from which it doubles. Default 1 s.
    #[must_use]
    pub fn base(mut self, delay: Duration) -> Self {
        self.base = delay;
        self
    }

    /// The highest ceiling. Default 60 s.
    #[must_use]
    pub fn cap(mut self, delay: Duration) -> Self {
        self.cap = delay;
        self
    }

    /// How delays are spread. Default [`Jitter::Full`].
    #[must_use]
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// How long a connection has to stand, counted from its CONNACK, before the delays start again from the first.
    /// Default 30 s.
    #[must_use]
    pub fn stable_after(mut self, time: Duration) -> Self {
        self.stable_after = time;
        self
    }

    /// How many retries in a row may fail before the provider gives up and reports the last error. Default: no limit.
    #[must_use]
    pub fn attempts(mut self, retries: u32) -> Self {
        self.attempts = Some(retries);
        self
    }

    pub(crate) fn validate(&self) -> Result<(), OptionsError> {
        if self.cap < self.base || self.cap < self.first {
            return Err(OptionsError::ReconnectCap);
        }
        Ok(())
    }
}

/// Follows a [`Reconnect`] through a run of failures.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: Reconnect,
    /// Retries granted since the last connection that stood for `stable_after`.
    retries: u32,
    random: Random,
}

impl Backoff {
    pub(crate) fn new(policy: Reconnect, random: Random) -> Self {
        Self {
            policy,
            retries: 0,
            random,
        }
    }

    /// Another one of the same policy, that counts for itself.
    pub(crate) fn sibling(&mut self) -> Self {
        Self::new(self.policy.clone(), Random::seeded(self.random.next()))
    }

    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// A connection ended that had stood for `up` since its CONNACK.
    pub(crate) fn connection_ended(&mut self, up: Duration) {
        if up >= self.policy.stable_after {
            self.retries = 0;
        }
    }

    /// Starts over, because something outside said that the world has changed.
    pub(crate) fn reset(&mut self) {
        self.retries = 0;
    }

    /// How long to wait before the next attempt; `None` when the policy's retries are used up.
    pub(crate) fn next_delay(&mut self) -> Option<Duration> {
        if self
            .policy
            .attempts
            .is_some_and(|attempts| self.retries >= attempts)
        {
            return None;
        }
        let ceiling = self.ceiling();
        self.retries = self.retries.saturating_add(1);
        Some(match self.policy.jitter {
            Jitter::Full => self.random.up_to(ceiling),
            Jitter::None => ceiling,
        })
    }

    /// The next delay is not the quick first one.
    pub(crate) fn skip_the_quick_one(&mut self) {
        self.retries = self.retries.max(1);
    }

    fn ceiling(&self) -> Duration {
        match self.retries {
            0 => self.policy.first,
            // Past 2^31 every ceiling is the cap.
            n => 2u32
                .checked_pow(n - 1)
                .map_or(self.policy.cap, |factor| {
                    self.policy.base.saturating_mul(factor)
                })
                .min(self.policy.cap),
        }
    }
}

/// SplitMix64. Spreading retries needs no cryptographic quality, and a seed makes a test repeatable.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from zero to below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // The bias is that of a number far below 2^64.
        (self.next() % end.max(1) as u64) as usize
    }

    pub(crate) fn up_to(&mut self, ceiling: Duration) -> Duration {
        // 53 bits make an even fraction of one.
        let fraction = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        ceiling.mul_f64(fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceilings(policy: Reconnect, n: usize) -> Vec<u64> {
        let mut backoff = Backoff::new(policy.jitter(Jitter::None), Random::seeded(1));
        (0..n)
            .map(|_| backoff.next_delay().unwrap().as_millis() as u64)
            .collect()
    }

    #[test]
    fn the_default_starts_quick_doubles_and_stops_at_the_cap() {
        assert_eq!(
            ceilings(Reconnect::default(), 9),
            [250, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]
        );
    }

    #[test]
    fn amplify_is_five_seconds_then_sixty() {
        assert_eq!(
            ceilings(Reconnect::amplify(), 4),
            [5000, 60000, 60000, 60000]
        );
    }

    #[test]
    fn a_long_run_of_failures_stays_at_the_cap() {
        let mut backoff =
            Backoff::new(Reconnect::default().jitter(Jitter::None), Random::seeded(1));
        backoff.retries = u32::MAX - 1;
        for _ in 0..3 {
            assert_eq!(backoff.next_delay(), Some(Duration::from_secs(60)));
        }
    }

    #[test]
    fn full_jitter_fills_the_whole_range_evenly() {
        let mut random = Random::seeded(7);
        let ceiling = Duration::from_secs(10);
        let mut tenths = [0u32; 10];
        for _ in 0..10_000 {
            let delay = random.up_to(ceiling);
            assert!(delay <= ceiling);
            tenths[(delay.as_secs() as usize).min(9)] += 1;
        }
        assert!(
            tenths.iter().all(|&count| (850..1150).contains(&count)),
            "{tenths:?}"
        );
    }

    #[test]
    fn only_a_stable_connection_resets_the_count() {
        let mut backoff =
            Backoff::new(Reconnect::default().jitter(Jitter::None), Random::seeded(1));
        backoff.next_delay();
        backoff.next_delay();
        backoff.connection_ended(Duration::from_secs(29));
        assert_eq!(backoff.next_delay(), Some(Duration::from_secs(2)));
        backoff.connection_ended(Duration::from_secs(30));
        assert_eq!(backoff.next_delay(), Some(Duration::from_millis(250)));
    }

    #[test]
    fn retries_run_out() {
        let mut backoff = Backoff::new(Reconnect::default().attempts(2), Random::seeded(1));
        assert!(backoff.next_delay().is_some());
        assert!(backoff.next_delay().is_some());
        assert_eq!(backoff.next_delay(), None);
        assert_eq!(
            Backoff::new(Reconnect::never(), Random::seeded(1)).next_delay(),
            None
        );
    }
}
