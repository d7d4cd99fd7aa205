//! The session's only notion of time.

use core::fmt;
use core::ops::Add;
use core::time::Duration;

/// A point in time, as the duration since an origin that the caller chooses.
///
/// The session never reads a clock. A driver takes one reading when it starts (its origin) and passes
/// `Timestamp::from_origin(origin.elapsed())` to every call. `std::time::Instant` is not used because it cannot be
/// made on `wasm32-unknown-unknown` and cannot be made up by a test.
///
/// Time may stand still between two calls. A value smaller than one passed before is taken as "no time has passed".
///
/// ```
/// use core::time::Duration;
/// use mqtt_session::Timestamp;
///
/// let later = Timestamp::ZERO + Duration::from_secs(5);
/// assert_eq!(later.saturating_duration_since(Timestamp::ZERO), Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// The origin itself.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The point that lies `since_origin` after the caller's origin.
    #[must_use]
    pub const fn from_origin(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// How long after the origin this point lies.
    #[must_use]
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// How long after `earlier` this point lies; zero if it does not.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates: a deadline too far away to be told is never reached.
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs))
    }
}

/// The earlier of two deadlines, of which there may be one or none.
#[inline(always)]
pub(crate) fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t+{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_beyond_the_end_of_time_saturates() {
        let end = Timestamp::from_origin(Duration::MAX);
        assert_eq!(end + Duration::from_secs(1), end);
        assert_eq!(
            Timestamp::ZERO.saturating_duration_since(end),
            Duration::ZERO
        );
    }
}
