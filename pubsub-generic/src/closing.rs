//! Ending a connection, or the whole provider, in order.

use std::time::Duration;

use mqtt_session::{Disconnect, TransportEnd};
use pubsub_core::{Intent, ProviderError, ProviderErrorKind};
use tokio::time::Instant;

use crate::choices::IdleConnection;
use crate::driver::{Closing, Link, Task};
use crate::inbox::Farewell;
use crate::operations::Flush;
use crate::supervisor::{FAR_AWAY, PARTING_TIMEOUT};

impl Task {
    /// When the connection has been idle for long enough, if it is.
    pub(crate) fn idle_deadline(&self) -> Option<Instant> {
        match (self.shared.options.idle, self.idle_since) {
            (IdleConnection::CloseAfter(linger), Some(since)) => Some(since + linger.min(FAR_AWAY)),
            _ => None,
        }
    }

    /// Asks for a DISCONNECT when nobody has needed the connection for as long as the options say, or when closing has
    /// nothing left to wait for.
    pub(crate) fn close_if_idle(&mut self) -> bool {
        if !self.is_up() && !self.wants_connection() {
            // Before the CONNACK there is nothing to say goodbye to.
            self.hang_up();
            return true;
        }
        if self.facts.intent == Intent::Disconnected {
            // Asked for already; the peer does not read.
            return false;
        }
        if self.has_work() || !self.is_up() {
            self.idle_since = None;
            return false;
        }
        if self.closing.is_none() {
            self.idle_since.get_or_insert(self.now);
            if self.idle_deadline().is_none_or(|at| self.now < at) {
                return false;
            }
        }
        self.disconnect()
    }

    /// Ends the link without a word.
    #[cold]
    pub(crate) fn hang_up(&mut self) {
        self.link = Link::Idle;
        self.parting = None;
        self.settle_unflushed(Flush::Lost);
        self.end_of_renewal();
        self.renewing.abandon();
        self.shared.set_up(false);
        self.resubscribing_until = None;
        self.session
            .transport_closed(TransportEnd::ClosedLocally, self.timestamp);
        self.facts.failed();
        self.report_state(None);
    }

    /// What was to be said at closing has not been said in time: the peer does not read.
    pub(crate) fn stop_closing(&mut self) -> bool {
        if matches!(self.link, Link::Idle) && self.parting.is_none() {
            return false;
        }
        self.hang_up();
        true
    }

    #[cold]
    fn disconnect(&mut self) -> bool {
        self.wanted = false;
        self.idle_since = None;
        self.renewing.abandon();
        self.facts.closing();
        self.report_state(None);
        // It fails only without a connection, and there is one.
        let _ = self
            .session
            .disconnect(Disconnect::default(), self.timestamp);
        true
    }

    /// The session has handed out our DISCONNECT.
    pub(crate) fn disconnect_written(&mut self) {
        let Link::Open(open) = std::mem::replace(&mut self.link, Link::Idle) else {
            return;
        };
        self.heard(open.last_received);
        self.stamp_now();
        self.shared.set_up(false);
        self.resubscribing_until = None;
        self.backoff.connection_ended(
            open.up_since
                .map_or(Duration::ZERO, |since| self.now.duration_since(since)),
        );
        if self.renewing.is_between() {
            return self.left_for_the_next(open.transport);
        }
        let timeout = self.shared.options.close_timeout.min(PARTING_TIMEOUT);
        self.link = Link::Closing {
            transport: open.transport,
            deadline: self.now + timeout,
        };
        self.publishes_go_offline();
    }

    pub(crate) fn closed_as_asked(&mut self) {
        if self.arrive() {
            return;
        }
        self.link = Link::Idle;
        self.away = None;
        self.facts.closed();
        tracing::info!(client_id = %self.shared.client_id, "disconnected");
        self.report_state(None);
    }

    /// `close` was called, or the last handle is gone.
    #[cold]
    pub(crate) fn begin_closing(&mut self, farewell: Farewell) {
        let now = self.now;
        let deadline = match farewell {
            Farewell::Drain => now + self.shared.options.close_timeout.min(FAR_AWAY),
            Farewell::AtOnce => now,
        };
        let end = deadline + PARTING_TIMEOUT;
        match &mut self.closing {
            Some(closing) => {
                closing.deadline = closing.deadline.min(deadline);
                closing.end = closing.end.min(end);
            }
            None => {
                self.closing = Some(Closing {
                    deadline,
                    end,
                    left_over: false,
                });
            }
        }
    }

    /// The time for sending what was accepted is over.
    pub(crate) fn stop_draining(&mut self) -> bool {
        if !self.is_publishing() && self.subscriptions.is_settled() {
            return false;
        }
        if let Some(closing) = &mut self.closing {
            closing.left_over = true;
        }
        let reason = self.last_error.clone().map_or_else(
            || ProviderErrorKind::Closed.into(),
            |last| ProviderError::new(ProviderErrorKind::Closed).with_source(last),
        );
        self.settle_everything(&reason);
        true
    }

    /// Whether closing has come to its end.
    pub(crate) fn is_finished(&self) -> bool {
        self.closing.is_some()
            && matches!(self.link, Link::Idle)
            && self.parting.is_none()
            && self.publishes.is_empty()
            && self.batch.commands.is_empty()
            && self.is_kept()
    }

    #[cold]
    pub(crate) fn finish(&mut self) {
        self.is_done = true;
        let failure = self.keeper.as_ref().and_then(|keeper| keeper.failure());
        let failure = failure.cloned();
        let closed = ProviderError::new(ProviderErrorKind::Closed);
        self.fail_everything(&closed);
        self.shared.inbox.account(&mut self.completed);
        self.facts.failed();
        self.report_state(None);
        let left_over = self
            .closing
            .as_ref()
            .is_some_and(|closing| closing.left_over);
        self.shared.finished(match failure {
            Some(failure) => Err(failure),
            None if left_over => Err(ProviderErrorKind::TimedOut.into()),
            None => Ok(()),
        });
    }
}

impl Drop for Task {
    /// Ended by a panic, or with its runtime: nobody is to wait for an answer that cannot come.
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        self.shared.inbox.close(Farewell::AtOnce);
        self.shared.inbox.take(&mut self.batch, &mut self.completed);
        let gone = ProviderError::from(ProviderErrorKind::Closed);
        self.settle_everything(&gone);
        self.shared.inbox.account(&mut self.completed);
        self.batch.commands.clear();
        self.shared.set_up(false);
        self.facts.failed();
        self.report_state(Some(gone.clone()));
        if let Some(sink) = self.shared.sink.get() {
            sink.failed(gone.clone());
        }
        self.shared.finished(Err(gone));
    }
}
