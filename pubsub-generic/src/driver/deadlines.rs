//! When the task wakes by itself: its deadlines, the timer for the earliest of them, and what is done when one has passed.

use std::future::Future;
use std::task::Context;

use tokio::time::Instant;

use super::{CLOCK_TICK, Closing, Link, Task};
use crate::supervisor::{FAR_AWAY, PARTING_TIMEOUT};

impl Task {
    /// Sleeps until the earliest deadline. Returns whether it has passed already.
    #[inline]
    pub(super) fn sleep(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_quiet() {
            debug_assert!(
                self.next_deadline()
                    .is_none_or(|deadline| deadline >= self.quiet_until),
                "a deadline was set unnoticed"
            );
            return false;
        }
        self.sleep_anew(cx)
    }

    /// Whether the earliest deadline is the one last found, or later, and the timer is set for it.
    fn is_quiet(&self) -> bool {
        !self.may_have_armed
            && self.timed_for.is_some_and(|at| self.now < at)
            && self.is_up()
            && self.idle_since.is_none()
            && self.closing.is_none()
            && self.keeper.is_none()
    }

    #[inline(never)]
    fn sleep_anew(&mut self, cx: &mut Context<'_>) -> bool {
        self.may_have_armed = false;
        let Some(deadline) = self.next_deadline() else {
            self.quiet_until = self.now + FAR_AWAY;
            return false;
        };
        self.quiet_until = deadline;
        // Deadlines move with every packet, mostly further away: waking once too early costs less than to set the timer
        // each time.
        if self.timed_for.is_none_or(|at| deadline < at) || self.sleep.is_elapsed() {
            let deadline = match self.link {
                // The earliest timer that a connection needs later, if it closes soon: to set one for an earlier moment wakes
                // the runtime.
                Link::Connecting { .. } => deadline.min(self.now + PARTING_TIMEOUT),
                _ => deadline,
            };
            self.sleep.as_mut().reset(deadline);
            self.timed_for = Some(deadline);
            // Polled but this once, it must not be put off because the runtime thinks that it is others' turn.
            let sleep = std::pin::pin!(tokio::task::unconstrained(self.sleep.as_mut()));
            return sleep.poll(cx).is_ready();
        }
        // It has been polled since it was set, and has not woken anybody.
        false
    }

    fn next_deadline(&self) -> Option<Instant> {
        let link = match &self.link {
            Link::Idle => None,
            Link::Waiting { until } => self.may_connect().then_some(*until),
            Link::Connecting { deadline, .. } | Link::Closing { deadline, .. } => Some(*deadline),
            Link::Open(open) if open.up_since.is_none() => Some(open.deadline),
            Link::Open(_) => self.idle_deadline(),
        };
        let session = self
            .session
            .poll_timeout()
            .and_then(|at| self.origin.checked_add(at.since_origin()));
        // One after the other, and not out of an array: mostly there are two.
        let mut first = earlier(link, session);
        if let Some(parting) = &self.parting {
            first = earlier(first, Some(parting.deadline));
        }
        if let Some(closing) = &self.closing {
            first = earlier(first, Some(closing.next_deadline(self.now)));
        }
        if let Some((at, _)) = self.offline_deadlines.first() {
            first = earlier(first, Some(*at));
        }
        if let Some(unclaimed) = &self.unclaimed {
            first = earlier(first, unclaimed.deadline());
        }
        first = earlier(first, self.subscriptions.next_deadline());
        first = earlier(first, self.stamp_due());
        first = earlier(first, self.clock_due);
        first = earlier(first, self.resubscribing_until);
        first = earlier(first, self.ping_due);
        earlier(first, self.renewing.next_deadline())
    }

    /// Acts on every deadline that has passed, but the link's own.
    #[inline]
    pub(super) fn follow_deadlines(&mut self) -> bool {
        // What this poll itself has set is seen to before it ends, by `sleep`. What is left at the end of closing is not, where it
        // takes several rounds.
        let is_draining = |closing: &Closing| self.now < closing.deadline;
        if self.now < self.quiet_until && self.closing.as_ref().is_none_or(is_draining) {
            return false;
        }
        self.follow_deadlines_due()
    }

    #[inline(never)]
    fn follow_deadlines_due(&mut self) -> bool {
        self.may_have_armed = true;
        let mut more = false;
        if self
            .session
            .poll_timeout()
            .is_some_and(|at| at <= self.timestamp)
        {
            self.session.handle_timeout(self.timestamp);
            self.watch_ping();
            more = true;
        }
        while let Some(&(at, id)) = self.offline_deadlines.first()
            && at <= self.now
        {
            self.offline_deadlines.pop_first();
            self.offline_too_long(id);
            more = true;
        }
        more |= self.give_up_late_subscribes();
        more |= self.give_up_unclaimed();
        if self.ping_due.is_some_and(|at| at <= self.now) {
            self.look_after_ping();
        }
        if self.resubscribing_until.is_some_and(|at| at <= self.now) {
            self.established();
            more = true;
        }
        if self.clock_due.is_some_and(|at| at <= self.now) {
            self.clock_due = (!self.tokens.is_empty()).then(|| self.now + CLOCK_TICK);
            self.tell_time();
        }
        if let Some(closing) = &self.closing {
            let (drained, gone) = (closing.deadline <= self.now, closing.end <= self.now);
            more |= drained && self.stop_draining();
            more |= gone && self.stop_closing();
        }
        more
    }
}

impl Closing {
    fn next_deadline(&self, now: Instant) -> Instant {
        if self.deadline > now {
            self.deadline
        } else {
            self.end
        }
    }
}

/// The earlier of two deadlines, of which there may be one or none.
#[inline(always)]
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    }
}
