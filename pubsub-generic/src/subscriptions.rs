//! Subscribing and unsubscribing: calls on one side, the session's operations on the other.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use mqtt_session::{
    Resubscribed, SubscribeError, SubscribeId, SubscribeOutcome, SubscribeResult, Subscription,
    UnsubscribeId, UnsubscribeResult,
};
use pubsub_core::{ProviderError, ProviderErrorKind, QoS, Refusal, RefusalKind, TopicFilter};
use tokio::time::Instant;

use crate::convert::{granted_or_refused, offender, refusal_of, refused_by_session};
use crate::driver::Task;
use crate::inbox::{Command, Operation, SubscribeReply, UnsubscribeReply};
use crate::line::Line;
use crate::overlap::Overlaps;

/// What is under way between callers, session and broker.
pub(crate) struct Subscriptions {
    /// Steps that the session has no room for yet, in the order of the calls.
    queue: VecDeque<Step>,
    /// All wait equally long, so that their deadlines are in their order.
    calls: Line<CallId, Call>,
    next_call: CallId,
    /// Which filters of which call an operation of the session is about.
    asked: Line<SubscribeId, (CallId, Range<usize>)>,
    unsubscribes: Line<UnsubscribeId, Option<UnsubscribeReply>>,
    pub(crate) overlaps: Overlaps,
}

type CallId = u64;

enum Step {
    /// Subscribe to these filters of a call.
    Ask { call: CallId, filters: Range<usize> },
    Leave {
        filters: Vec<Arc<str>>,
        reply: Option<UnsubscribeReply>,
    },
}

struct Call {
    subscriptions: Vec<Subscription>,
    /// Stands at `Unspecified` for those that are still to come.
    answers: Vec<Result<QoS, Refusal>>,
    unanswered: usize,
    deadline: Option<Instant>,
    reply: SubscribeReply,
}

impl Subscriptions {
    pub(crate) fn new(overlaps: Overlaps) -> Self {
        Self {
            queue: VecDeque::new(),
            calls: Line::default(),
            next_call: 0,
            asked: Line::default(),
            unsubscribes: Line::default(),
            overlaps,
        }
    }

    /// Whether no caller waits and nothing is to be told to the broker.
    pub(crate) fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.calls.is_empty() && self.unsubscribes.is_empty()
    }

    /// Whether one waits until the session takes it.
    #[inline]
    pub(crate) fn is_waiting_for_room(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.calls.first()?.1.deadline
    }

    /// Answers every call with this error. Returns how many there were.
    pub(crate) fn fail(&mut self, reason: &ProviderError) -> usize {
        let mut failed = 0;
        if self.is_settled() && self.asked.is_empty() {
            return failed;
        }
        for call in std::mem::take(&mut self.calls).into_all() {
            failed += 1;
            let _ = call.reply.send(Err(reason.clone()));
        }
        let queued = self.queue.drain(..).filter_map(|step| match step {
            Step::Leave { reply, .. } => Some(reply),
            Step::Ask { .. } => None,
        });
        let sent = std::mem::take(&mut self.unsubscribes).into_all();
        for reply in queued.chain(sent) {
            failed += 1;
            if let Some(reply) = reply {
                let _ = reply.send(Err(reason.clone()));
            }
        }
        self.asked = Line::default();
        failed
    }

    /// With nothing under way no room is held for it: most connections subscribe once, and then stand idle.
    fn rest(&mut self) {
        if self.is_settled() && self.asked.is_empty() {
            self.queue = VecDeque::new();
            self.calls = Line::default();
            self.asked = Line::default();
            self.unsubscribes = Line::default();
        }
    }

    /// Answers for one filter. Returns whether that was the last one of its call.
    fn answer(&mut self, id: CallId, index: usize, answer: Result<QoS, Refusal>) -> bool {
        let Some(call) = self.calls.get_mut(id) else {
            return false;
        };
        let Some(place) = call.answers.get_mut(index) else {
            return false;
        };
        *place = answer;
        // Each is asked for once, or again where that was no answer.
        call.unanswered = call.unanswered.saturating_sub(1);
        if call.unanswered > 0 {
            return false;
        }
        if let Some(call) = self.calls.remove(id) {
            let _ = call.reply.send(Ok(call.answers));
        }
        true
    }
}

impl Task {
    #[inline(never)]
    pub(crate) fn operation(&mut self, operation: Operation) {
        if self.unclaimed.is_some() {
            match &operation {
                Operation::Subscribe { subscriptions, .. } => {
                    let filters = subscriptions.iter().map(|asked| Arc::clone(&asked.filter));
                    self.claim(&filters.collect::<Vec<_>>());
                }
                Operation::Unsubscribe { filters, .. } => self.let_go(filters),
            }
        }
        let step = match operation {
            Operation::Subscribe {
                subscriptions,
                reply,
            } => {
                let state = &mut self.subscriptions;
                let id = state.next_call;
                state.next_call += 1;
                let filters = 0..subscriptions.len();
                let call = Call {
                    answers: vec![Err(RefusalKind::Unspecified.into()); filters.len()],
                    unanswered: filters.len(),
                    subscriptions,
                    deadline: self.now.checked_add(self.shared.options.subscribe_timeout),
                    reply,
                };
                state.calls.push(id, call);
                Step::Ask { call: id, filters }
            }
            Operation::Unsubscribe { filters, reply } => Step::Leave { filters, reply },
        };
        if self.subscriptions.is_waiting_for_room() {
            self.subscriptions.queue.push_back(step);
        } else {
            self.feed(step);
        }
    }

    /// Gives the session as many of the waiting steps as it has room for, in order.
    #[inline(never)]
    pub(crate) fn feed_operations(&mut self) {
        while let Some(step) = self.subscriptions.queue.pop_front() {
            if !self.feed(step) {
                break;
            }
        }
    }

    /// Gives the session the step that is in front of all others. What it has no room for waits there. Returns whether it may
    /// have room for the next one.
    fn feed(&mut self, mut step: Step) -> bool {
        self.demand();
        self.may_have_armed = true;
        let has_room = loop {
            let left = match step {
                Step::Ask { call, filters } => self.ask(call, filters),
                Step::Leave { filters, reply } => self.leave(filters, reply),
            };
            match left {
                Progress::Done => break true,
                Progress::Partly(rest) => step = rest,
                Progress::NoRoom(step) => {
                    self.subscriptions.queue.push_front(step);
                    break false;
                }
            }
        };
        self.count_subscriptions();
        has_room
    }

    fn ask(&mut self, id: CallId, filters: Range<usize>) -> Progress {
        let now = self.timestamp;
        let Some(call) = self.subscriptions.calls.get(id) else {
            // It took too long, and has been answered.
            return Progress::Done;
        };
        let overlaps = &mut self.subscriptions.overlaps;
        // An identifier is for all filters of a packet, and shall tell one filter from another.
        let most = if overlaps.in_use() { 1 } else { filters.len() };
        let asked = call.subscriptions.get(filters.clone()).unwrap_or_default();
        let asked = asked.get(..most).unwrap_or(asked);
        let identifier = match asked.first() {
            Some(first) if overlaps.in_use() => overlaps.identifier(&first.filter),
            _ => None,
        };
        let step = |filters| Step::Ask { call: id, filters };
        let then = |rest: Range<usize>| match rest.is_empty() {
            true => Progress::Done,
            false => Progress::Partly(step(rest)),
        };
        let end = filters.start + asked.len();
        match self.session.subscribe_with_id(asked, identifier, now) {
            Ok(operation) => {
                let asked = (id, filters.start..end);
                self.subscriptions.asked.push(operation, asked);
                then(end..filters.end)
            }
            Err(SubscribeError::TooManyPending) => Progress::NoRoom(step(filters)),
            Err(SubscribeError::SubscriptionIdsNotSupported) if identifier.is_some() => {
                overlaps.give_up();
                Progress::Partly(step(filters))
            }
            Err(error) => {
                // If some of them are to blame, the others are asked without them: those before them, then those behind.
                let blamed = match offender(error).map(|at| filters.start + at) {
                    Some(at) if at < end => at..at + 1,
                    None if error == SubscribeError::TooManySubscriptions => {
                        let taken = self.session.subscriptions().len();
                        let most = self.session.config().max_subscriptions;
                        let room = most.saturating_sub(taken);
                        (filters.start + room).min(end.saturating_sub(1))..end
                    }
                    _ => filters.start..end,
                };
                for index in blamed.clone() {
                    self.answer(id, index, Err(refused_by_session(error).into()));
                }
                let behind = blamed.end..filters.end;
                if blamed.start == filters.start {
                    return then(behind);
                }
                if !behind.is_empty() {
                    self.subscriptions.queue.push_front(step(behind));
                }
                then(filters.start..blamed.start)
            }
        }
    }

    fn leave(&mut self, filters: Vec<Arc<str>>, reply: Option<UnsubscribeReply>) -> Progress {
        match self.session.unsubscribe(&filters, self.timestamp) {
            Ok(operation) => {
                for filter in &filters {
                    self.subscriptions.overlaps.gone(filter);
                }
                self.subscriptions.unsubscribes.push(operation, reply);
                Progress::Done
            }
            Err(SubscribeError::TooManyPending) => Progress::NoRoom(Step::Leave { filters, reply }),
            Err(error) => {
                self.completed.operations += 1;
                if let Some(reply) = reply {
                    let _ = reply.send(Err(refused_by_session(error)));
                }
                Progress::Done
            }
        }
    }

    fn answer(&mut self, call: CallId, index: usize, answer: Result<QoS, Refusal>) {
        if self.subscriptions.answer(call, index, answer) {
            self.completed.operations += 1;
        }
    }

    pub(crate) fn subscribe_completed(&mut self, id: SubscribeId, results: Vec<SubscribeResult>) {
        let Some((call, filters)) = self.subscriptions.asked.remove(id) else {
            return;
        };
        for (index, result) in filters.into_iter().zip(results) {
            let ids_are_to_blame = matches!(
                result.outcome,
                SubscribeOutcome::NotSent(SubscribeError::SubscriptionIdsNotSupported)
            );
            if ids_are_to_blame && self.subscriptions.calls.get(call).is_some() {
                self.subscriptions.overlaps.give_up();
                let again = Step::Ask {
                    call,
                    filters: index..index + 1,
                };
                self.subscriptions.queue.push_front(again);
                continue;
            }
            let filter = Arc::clone(&result.filter);
            let answer = granted_or_refused(result, &self.shared.options.hang_up_error);
            match &answer {
                Ok(qos) => self.subscriptions.overlaps.granted(&filter, *qos, self.now),
                Err(_) => self.subscriptions.overlaps.gone(&filter),
            }
            self.answer(call, index, answer);
        }
        self.subscriptions.rest();
        self.count_subscriptions();
    }

    pub(crate) fn count_subscriptions(&self) {
        self.shared
            .counters
            .subscriptions(self.session.subscriptions().len());
    }

    pub(crate) fn unsubscribe_completed(
        &mut self,
        id: UnsubscribeId,
        results: &[UnsubscribeResult],
    ) {
        let Some(reply) = self.subscriptions.unsubscribes.remove(id) else {
            return;
        };
        self.completed.operations += 1;
        let refused = results.iter().find(|result| result.reason.is_error());
        let answer = refused.map_or(Ok(()), |result| {
            Err(ProviderError::new(ProviderErrorKind::Refused)
                .with_source(refusal_of(result.reason)))
        });
        if let Some(reply) = reply {
            let _ = reply.send(answer);
        }
    }

    pub(crate) fn resubscribed(&mut self, resubscribed: Resubscribed) {
        for result in resubscribed.results {
            let Ok(filter) = TopicFilter::new(result.filter.as_ref()) else {
                continue;
            };
            let text = Arc::clone(&result.filter);
            match granted_or_refused(result, &self.shared.options.hang_up_error) {
                Ok(qos) => self.subscriptions.overlaps.granted(&text, qos, self.now),
                Err(refusal) => {
                    self.subscriptions.overlaps.gone(&text);
                    if let Some(sink) = self.shared.sink.get() {
                        sink.subscription_lost(&filter, refusal);
                    }
                }
            }
        }
        self.count_subscriptions();
        if self.resubscribing_until.is_some() {
            self.established();
        }
    }

    /// Fails the calls whose time is over. Returns whether there were any.
    pub(crate) fn give_up_late_subscribes(&mut self) -> bool {
        let mut more = false;
        while let Some((id, first)) = self.subscriptions.calls.first()
            && first.deadline.is_some_and(|at| at <= self.now)
            && let Some(call) = self.subscriptions.calls.remove(id)
        {
            more = true;
            self.completed.operations += 1;
            let _ = call
                .reply
                .send(Err(self.because_of_last(ProviderErrorKind::TimedOut)));
            // Whatever the broker may still answer, nobody is there to hear it.
            let filters = call
                .subscriptions
                .into_iter()
                .map(|subscription| subscription.filter);
            let leave = Operation::Unsubscribe {
                filters: filters.collect(),
                reply: None,
            };
            self.shared.inbox.notify(Command::Operation(leave));
        }
        more
    }
}

enum Progress {
    Done,
    Partly(Step),
    /// The session takes no more for now.
    NoRoom(Step),
}
