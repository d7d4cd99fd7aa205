//! Several endpoints of one broker, gone through in rounds.

use crate::connect::Retry;
use crate::reconnect::Random;

/// Which endpoint is tried first, and which after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum EndpointOrder {
    /// As they were given, from the first: a preferred one, and others to fall back on. The default.
    #[default]
    AsGiven,
    /// At random, mixed anew for each round: clients spread over equal nodes.
    Random,
}

/// Where an attempt goes. A round is one attempt to each endpoint; the back-off is for rounds.
pub(crate) struct Rounds {
    /// How many there are; at least one.
    len: usize,
    order: EndpointOrder,
    /// What is left of the round, the last first. Empty where there is but one.
    left: Vec<usize>,
    current: usize,
    /// What the attempts of the round say together.
    verdict: Retry,
}

impl Rounds {
    pub(crate) fn new(endpoints: usize, order: EndpointOrder) -> Self {
        Self {
            len: endpoints.max(1),
            order,
            left: Vec::new(),
            current: 0,
            verdict: Retry::Never,
        }
    }

    /// The endpoint of the attempt or the connection at hand.
    pub(crate) fn current(&self) -> usize {
        self.current
    }

    /// The one after this, all around.
    pub(crate) fn after(&self, endpoint: usize) -> usize {
        (endpoint + 1) % self.len
    }

    /// The endpoint to try next.
    pub(crate) fn next(&mut self, random: &mut Random) -> usize {
        if self.left.is_empty() {
            self.mix(random);
        }
        self.current = self.left.pop().unwrap_or_default();
        self.current
    }

    fn mix(&mut self, random: &mut Random) {
        self.verdict = Retry::Never;
        if self.len > 1 {
            self.left.extend((0..self.len).rev());
        }
        if self.order == EndpointOrder::Random {
            // Fisher and Yates.
            for last in (1..self.left.len()).rev() {
                self.left.swap(last, random.below(last + 1));
            }
        }
    }

    /// A connection is made to this one, outside of the rounds.
    pub(crate) fn go_to(&mut self, endpoint: usize) {
        self.current = endpoint;
    }

    /// The attempt failed. `None` while the round goes on with another endpoint; at its end, whether the next round can
    /// help: if one endpoint may heal, it can.
    pub(crate) fn failed(&mut self, retry: Retry) -> Option<Retry> {
        self.verdict = match (self.verdict, retry) {
            (Retry::WithFreshCredentials, _) | (_, Retry::WithFreshCredentials) => {
                Retry::WithFreshCredentials
            }
            (Retry::Later, _) | (_, Retry::Later) => Retry::Later,
            _ => Retry::Never,
        };
        self.left.is_empty().then_some(self.verdict)
    }

    /// A connection stands on the current endpoint, or the world has changed: the next round is a whole one.
    pub(crate) fn start_over(&mut self) {
        self.left.clear();
    }

    /// The next round begins with the others: the broker itself sends us elsewhere. Returns whether there are others.
    pub(crate) fn avoid_current(&mut self, random: &mut Random) -> bool {
        self.left.clear();
        self.mix(random);
        let current = self.current;
        self.left.retain(|&endpoint| endpoint != current);
        let has_others = !self.left.is_empty();
        self.left.insert(0, current);
        has_others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_goes_to_each_once_and_ends_with_the_most_hopeful_verdict() {
        let mut random = Random::seeded(1);
        let mut rounds = Rounds::new(3, EndpointOrder::AsGiven);
        for _ in 0..2 {
            assert_eq!(rounds.next(&mut random), 0);
            assert_eq!(rounds.failed(Retry::Never), None);
            assert_eq!(rounds.next(&mut random), 1);
            assert_eq!(rounds.failed(Retry::Later), None);
            assert_eq!(rounds.next(&mut random), 2);
            assert_eq!(rounds.failed(Retry::Never), Some(Retry::Later));
        }
        for _ in 0..3 {
            rounds.next(&mut random);
        }
        assert_eq!(rounds.failed(Retry::Never), Some(Retry::Never));
    }

    #[test]
    fn without_any_there_is_one() {
        let mut random = Random::seeded(1);
        let mut rounds = Rounds::new(0, EndpointOrder::Random);
        assert_eq!(rounds.next(&mut random), 0);
        assert_eq!(
            rounds.failed(Retry::WithFreshCredentials),
            Some(Retry::WithFreshCredentials)
        );
        assert!(!rounds.avoid_current(&mut random));
        assert_eq!(rounds.next(&mut random), 0);
    }

    #[test]
    fn at_random_every_endpoint_is_first_about_as_often() {
        let mut random = Random::seeded(7);
        let mut rounds = Rounds::new(4, EndpointOrder::Random);
        let mut first = [0; 4];
        for _ in 0..4000 {
            let mut round: Vec<usize> = (0..4).map(|_| rounds.next(&mut random)).collect();
            first[round[0]] += 1;
            round.sort_unstable();
            assert_eq!(round, [0, 1, 2, 3]);
        }
        assert!(first.iter().all(|n| (850..1150).contains(n)), "{first:?}");
    }

    #[test]
    fn a_node_that_sends_us_away_comes_last() {
        let mut random = Random::seeded(1);
        let mut rounds = Rounds::new(3, EndpointOrder::AsGiven);
        rounds.next(&mut random);
        assert!(rounds.avoid_current(&mut random));
        let order: Vec<usize> = (0..3).map(|_| rounds.next(&mut random)).collect();
        assert_eq!(order, [1, 2, 0]);
    }
}
