//! The gateway's idea of the time.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// A clock that runs with the system's until somebody sets it. Clones are the same clock.
#[derive(Clone, Default)]
pub struct Clock(Arc<Mutex<Setting>>);

#[derive(Clone, Copy, Default)]
enum Setting {
    #[default]
    System,
    Ahead(Duration),
    Behind(Duration),
    Stopped(SystemTime),
}

impl Clock {
    /// The time it shows.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        let system = SystemTime::now();
        match *self.setting() {
            Setting::System => system,
            Setting::Ahead(by) => system + by,
            Setting::Behind(by) => system - by,
            Setting::Stopped(at) => at,
        }
    }

    /// Runs with the system's clock, this much ahead of it: to clients, their own clock is slow.
    pub fn run_ahead(&self, by: Duration) {
        *self.setting() = Setting::Ahead(by);
    }

    /// Runs with the system's clock, this much behind it: to clients, their own clock is fast.
    pub fn run_behind(&self, by: Duration) {
        *self.setting() = Setting::Behind(by);
    }

    /// Stands still, for requests with a date of long ago.
    pub fn stop_at(&self, time: SystemTime) {
        *self.setting() = Setting::Stopped(time);
    }

    /// Shows the system's time again.
    pub fn reset(&self) {
        *self.setting() = Setting::System;
    }

    fn setting(&self) -> std::sync::MutexGuard<'_, Setting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}
