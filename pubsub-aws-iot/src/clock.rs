//! The time by the service's clock, as far as we know it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::refusal::ClockSkew;

/// A clock that is off by less is not what the service refused for: it tolerates five minutes, as far as is known.
const TOLERATED_SKEW: Duration = Duration::from_secs(120);

/// How wrong our clock may be for the service's `Date` to correct it: a day, which covers every mix-up of time zones.
/// Beyond that, somebody should set the clock; and a URL signed for a date far ahead would be good until then.
pub const MAX_SKEW_CORRECTION: Duration = Duration::from_secs(24 * 60 * 60);

/// The system's clock, corrected by what refusals have shown.
#[derive(Debug, Default)]
pub(crate) struct ServiceClock {
    skew: Mutex<Option<ClockSkew>>,
}

impl ServiceClock {
    pub(crate) fn now(&self) -> SystemTime {
        let ours = SystemTime::now();
        let skew = *self.skew.lock().unwrap_or_else(PoisonError::into_inner);
        skew.and_then(|skew| skew.correct(ours)).unwrap_or(ours)
    }

    /// How far this clock is off, by the `Date` of an answer, if so far that it may be why the answer is a refusal.
    pub(crate) fn skew_shown_by(&self, date: Option<&str>) -> Option<ClockSkew> {
        let skew = ClockSkew::between(self.now(), parse(date)?);
        (skew.by() > TOLERATED_SKEW).then_some(skew)
    }

    /// Goes by the service's clock from here on, unless ours is off by more than can be meant.
    pub(crate) fn correct(&self, date: Option<&str>) -> Option<()> {
        let skew = ClockSkew::between(SystemTime::now(), parse(date)?);
        if skew.by() > MAX_SKEW_CORRECTION {
            return None;
        }
        tracing::warn!(clock = %skew, "the system's clock is wrong; signing by the service's");
        *self.skew.lock().unwrap_or_else(PoisonError::into_inner) = Some(skew);
        Some(())
    }
}

fn parse(date: Option<&str>) -> Option<SystemTime> {
    httpdate::parse_http_date(date?).ok()
}
