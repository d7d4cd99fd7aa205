//! Publishes on their way out, messages on their way in, and their acknowledgements.

use mqtt_session::{Event, PublishId, PublishOutcome};
use pubsub_core::{
    Delivered, Demand, OfflinePolicy, ProviderError, ProviderErrorKind, PublishError,
    PublishSettler, PublishStage, Settlement,
};

use crate::convert::{outcome_of, reason_code_of};
use crate::driver::{Link, PendingPublish, Task, Unflushed};
use crate::inbox::{Command, displaced_error};
use crate::keeper::Kept;

/// What became of the bytes in a transport's buffer.
#[derive(Clone, Copy)]
pub(crate) enum Flush {
    /// The operating system has them.
    Done,
    /// The transport is gone, or given up.
    Lost,
}

/// For how many publishes room is kept between bursts: some 3 KiB.
pub(crate) const SETTLERS_KEPT: usize = 128;

impl Task {
    pub(crate) fn wait_offline(&mut self, id: PublishId, offline: OfflinePolicy) {
        if let OfflinePolicy::WaitUpTo(time) = offline
            && let Some(deadline) = self.now.checked_add(time)
        {
            self.offline_deadlines.insert((deadline, id));
        }
    }

    pub(crate) fn settle_publish(
        &mut self,
        bytes: usize,
        settler: PublishSettler,
        outcome: Result<Delivered, PublishError>,
    ) {
        self.completed.messages += 1;
        self.completed.bytes += bytes;
        self.shared.counters.publishes_settled(outcome.is_ok(), 1);
        settler.settle(outcome);
    }

    pub(crate) fn settle_pending(
        &mut self,
        pending: PendingPublish,
        outcome: Result<Delivered, PublishError>,
    ) {
        self.settle_publish(pending.bytes, pending.settler, outcome);
    }

    /// What the transport had at QoS 0 is with the socket, or nobody knows.
    pub(crate) fn settle_unflushed(&mut self, flush: Flush) {
        if self.unflushed.is_empty() {
            return;
        }
        let Unflushed { settlers, bytes } = &mut self.unflushed;
        self.completed.messages += settlers.len();
        self.completed.bytes += std::mem::take(bytes);
        let delivered = matches!(flush, Flush::Done);
        self.shared
            .counters
            .publishes_settled(delivered, settlers.len());
        match flush {
            Flush::Done => PublishSettler::settle_all(settlers, Delivered::Sent),
            Flush::Lost => {
                for settler in settlers.drain(..) {
                    let lost = ProviderErrorKind::ConnectionLost.into();
                    settler.settle(Err(PublishError::Indeterminate(lost)));
                }
            }
        }
        // Its memory serves the next burst, but not an idle connection.
        settlers.shrink_to(SETTLERS_KEPT);
    }

    /// The connection is gone: what was not written yet is offline from here on.
    pub(crate) fn publishes_go_offline(&mut self) {
        let waiting: Vec<(PublishId, OfflinePolicy)> = self
            .publishes
            .iter()
            .filter(|(_, pending)| !pending.written)
            .map(|(id, pending)| (id, pending.offline))
            .collect();
        for (id, offline) in waiting {
            if offline == OfflinePolicy::Fail {
                self.cancel_publish(id, ProviderErrorKind::ConnectionLost);
            } else {
                self.wait_offline(id, offline);
            }
        }
    }

    pub(crate) fn offline_too_long(&mut self, id: PublishId) {
        self.cancel_publish(id, ProviderErrorKind::TimedOut);
    }

    /// Takes a publish back that was not written yet.
    fn cancel_publish(&mut self, id: PublishId, kind: ProviderErrorKind) {
        if self.session.cancel_publish(id).is_some() {
            let error = self.because_of_last(kind);
            self.withdraw(id, error);
        }
    }

    /// The session has forgotten this publish, and the store is to. Returns how many bytes it had.
    fn withdraw(&mut self, id: PublishId, error: ProviderError) -> usize {
        let Some(pending) = self.publishes.remove(id) else {
            return 0;
        };
        let bytes = pending.bytes;
        match &mut self.keeper {
            Some(keeper) if pending.kept != Kept::No => keeper.withdraw(pending, error),
            _ => self.settle_pending(pending, Err(PublishError::NotSent(error))),
        }
        bytes
    }

    /// Makes room for what was accepted in the place of the oldest: those that the session has, then those in line.
    #[cold]
    pub(crate) fn drop_the_oldest(&mut self) {
        let mut excess = std::mem::take(&mut self.batch.excess);
        while excess.messages > 0 || excess.bytes > 0 {
            let bytes = if let Some(id) = self.session.oldest_waiting() {
                let _ = self.session.cancel_publish(id);
                self.withdraw(id, displaced_error())
            } else {
                let in_line = &mut self.batch.commands;
                let is_publish = |command: &Command| matches!(command, Command::Publish { .. });
                let oldest = in_line.iter().position(is_publish);
                let Some(Command::Publish { message, settler }) =
                    oldest.and_then(|at| in_line.remove(at))
                else {
                    // All the rest is in flight.
                    break;
                };
                let bytes = message.topic.len() + message.payload.len();
                let outcome = Err(PublishError::NotSent(displaced_error()));
                self.settle_publish(bytes, settler, outcome);
                bytes
            };
            excess.messages = excess.messages.saturating_sub(1);
            excess.bytes = excess.bytes.saturating_sub(bytes);
        }
    }

    #[cold]
    pub(crate) fn not_connected(&self) -> ProviderError {
        self.because_of_last(ProviderErrorKind::NotConnected)
    }

    pub(crate) fn because_of_last(&self, kind: ProviderErrorKind) -> ProviderError {
        match &self.last_error {
            Some(last) => ProviderError::new(kind).with_source(last.clone()),
            None => kind.into(),
        }
    }

    /// Handles what the session has to report; its messages join the batch that is about to be delivered. Returns whether
    /// there was anything.
    #[inline]
    pub(crate) fn drain_events(&mut self) -> bool {
        let has_events = self.session.has_events();
        if has_events {
            self.handle_events();
        }
        has_events
    }

    #[inline(never)]
    fn handle_events(&mut self) {
        self.may_have_armed = true;
        while let Some(event) = self.session.poll_event() {
            if let Event::Message(message) = event {
                self.take_message(message);
                continue;
            }
            // A gap and the end of a connection have their place among the messages.
            if let Event::Connected(_) | Event::Disconnected(_) = event {
                let _ = self.deliver();
                if let Some(unclaimed) = &mut self.unclaimed {
                    unclaimed.disconnected();
                }
            }
            self.handle_event(event);
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Connected(connected) => self.connected(&connected),
            Event::ConnectRefused(refused) => self.refused(*refused),
            Event::Disconnected(disconnected) => self.disconnected(*disconnected),
            Event::PublishStored { id } => {
                if let Some(pending) = self.publishes.get_mut(id) {
                    pending.kept = Kept::Yes;
                    pending.settler.reached(PublishStage::Stored);
                }
            }
            Event::PublishWritten { id } => {
                if let Some(pending) = self.publishes.get_mut(id) {
                    pending.written = true;
                    pending.settler.reached(PublishStage::Written);
                }
            }
            Event::PublishReceived { id, .. } => {
                if let Some(pending) = self.publishes.get(id) {
                    pending.settler.reached(PublishStage::Received);
                }
            }
            Event::PublishCompleted {
                id,
                outcome: PublishOutcome::Written,
            } => {
                if let Some(PendingPublish { settler, bytes, .. }) = self.publishes.remove(id) {
                    self.unflushed.push(settler, bytes);
                    if !matches!(self.link, Link::Open(_) | Link::Closing { .. }) {
                        self.settle_unflushed(Flush::Lost);
                    }
                }
            }
            Event::PublishCompleted { id, outcome } => {
                if let Some(pending) = self.publishes.remove(id) {
                    let outcome = outcome_of(outcome, &self.shared.options.hang_up_error);
                    self.settle_pending(pending, outcome);
                }
            }
            Event::SubscribeCompleted { id, results } => self.subscribe_completed(id, results),
            Event::UnsubscribeCompleted { id, results } => self.unsubscribe_completed(id, &results),
            Event::Resubscribed(resubscribed) => self.resubscribed(resubscribed),
            Event::Pong { round_trip } => self.pong(round_trip),
            _ => {}
        }
    }

    /// Hands on the messages that came.
    pub(crate) fn deliver(&mut self) -> Demand {
        if self.incoming.deliveries.is_empty() {
            return Demand::Continue;
        }
        let messages = self.incoming.deliveries.len();
        self.incoming.expected = messages;
        self.delivered += messages;
        self.shared.counters.messages_received(messages);
        let demand = match self.shared.sink.get() {
            Some(sink) => sink.deliver(&mut self.incoming.deliveries),
            None => {
                self.incoming.deliveries.clear();
                Demand::Continue
            }
        };
        self.obey(demand);
        demand
    }

    pub(crate) fn tell_time(&mut self) {
        if let Some(sink) = self.shared.sink.get() {
            let demand = sink.advance_clock(self.now.duration_since(self.origin));
            self.obey(demand);
        }
    }

    fn obey(&mut self, demand: Demand) {
        if demand == Demand::DropConnection {
            self.drop_for_slow_subscriber();
        }
    }

    /// Carries out what subscribers have done with their messages.
    #[inline]
    pub(crate) fn settle_deliveries(&mut self) {
        if !self.batch.settlements.is_empty() {
            self.settle_all_deliveries();
        }
    }

    #[inline(never)]
    fn settle_all_deliveries(&mut self) {
        for (number, settlement) in self.batch.settlements.drain(..) {
            let Some(token) = self.tokens.take(number) else {
                continue;
            };
            let _ = match settlement {
                Settlement::Rejected(reason) => self.session.reject(token, reason_code_of(reason)),
                // Nobody is there to take what was dropped: kept, it would only block those behind it.
                _ => self.session.acknowledge(token),
            };
        }
    }
}
