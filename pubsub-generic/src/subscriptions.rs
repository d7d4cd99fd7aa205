//! Subscribing and unsubscribing: calls on one side, the session's operations on the other.

use std::borrow::Cow;
use std::collections::VecDeque;
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
    asked: Line<SubscribeId, (CallId, Vec<usize>)>,
    unsubscribes: Line<UnsubscribeId, Option<UnsubscribeReply>>,
    pub(crate) overlaps: Overlaps,
}

type CallId = u64;

enum Step {
    /// Subscribe to these filters of a call.
    Ask { call: CallId, filters: Vec<usize> },
    Leave {
        filters: Vec<Arc<str>>,
        reply: Option<UnsubscribeReply>,
    },
}

struct Call {
    subscriptions: Vec<Subscription>,
    answers: Vec<Option<Result<QoS, Refusal>>>,
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
        let Some(place @ None) = call.answers.get_mut(index) else {
            return false;
        };
        *place = Some(answer);
        call.unanswered -= 1;
        if call.unanswered > 0 {
            return false;
        }
        if let Some(call) = self.calls.remove(id) {
            let unspecified = || Err(RefusalKind::Unspecified.into());
            let answers = call
                .answers
                .into_iter()
                .map(|answer| answer.unwrap_or_else(unspecified));
            let _ = call.reply.send(Ok(answers.collect()));
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
        let state = &mut self.subscriptions;
        match operation {
            Operation::Subscribe {
                subscriptions,
                reply,
            } => {
                let id = state.next_call;
                state.next_call += 1;
                let deadline = self.now.checked_add(self.shared.options.subscribe_timeout);
                let filters = (0..subscriptions.len()).collect();
                let call = Call {
                    answers: vec![None; subscriptions.len()],
                    unanswered: subscriptions.len(),
                    subscriptions,
                    deadline,
                    reply,
                };
                state.calls.push(id, call);
                state.queue.push_back(Step::Ask { call: id, filters });
            }
            Operation::Unsubscribe { filters, reply } => {
                state.queue.push_back(Step::Leave { filters, reply });
            }
        }
    }

    /// Gives the session as many steps as it has room for, in order. Returns whether it took any.
    #[inline(never)]
    pub(crate) fn feed_operations(&mut self) -> bool {
        let mut more = false;
        while let Some(step) = self.subscriptions.queue.pop_front() {
            self.demand();
            let left = match step {
                Step::Ask { call, filters } => self.ask(call, filters),
                Step::Leave { filters, reply } => self.leave(filters, reply),
            };
            match left {
                Progress::Done => more = true,
                Progress::Partly(step) => {
                    more = true;
                    self.subscriptions.queue.push_front(step);
                }
                Progress::NoRoom(step) => {
                    self.subscriptions.queue.push_front(step);
                    break;
                }
            }
        }
        more
    }

    fn ask(&mut self, id: CallId, mut filters: Vec<usize>) -> Progress {
        let now = self.timestamp;
        let Some(call) = self.subscriptions.calls.get(id) else {
            // It took too long, and has been answered.
            return Progress::Done;
        };
        let overlaps = &mut self.subscriptions.overlaps;
        // An identifier is for all filters of a packet, and shall tell one filter from another.
        let rest = if overlaps.in_use() {
            filters.split_off(1.min(filters.len()))
        } else {
            Vec::new()
        };
        let asked: Cow<'_, [Subscription]> = if filters.len() == call.subscriptions.len() {
            // Never in another order.
            Cow::Borrowed(&call.subscriptions)
        } else {
            let meant = filters.iter();
            meant
                .filter_map(|&at| call.subscriptions.get(at).cloned())
                .collect()
        };
        let identifier = match asked.first() {
            Some(first) if overlaps.in_use() => overlaps.identifier(&first.filter),
            _ => None,
        };
        let then = |rest: Vec<usize>| match rest.is_empty() {
            true => Progress::Done,
            false => Progress::Partly(Step::Ask {
                call: id,
                filters: rest,
            }),
        };
        let all = |mut filters: Vec<usize>, rest: Vec<usize>| {
            filters.extend(rest);
            Step::Ask { call: id, filters }
        };
        let taken = self.session.subscribe_with_id(&asked, identifier, now);
        drop(asked);
        match taken {
            Ok(operation) => {
                self.subscriptions.asked.push(operation, (id, filters));
                then(rest)
            }
            Err(SubscribeError::TooManyPending) => Progress::NoRoom(all(filters, rest)),
            Err(SubscribeError::SubscriptionIdsNotSupported) if identifier.is_some() => {
                overlaps.give_up();
                Progress::Partly(all(filters, rest))
            }
            Err(error) => {
                // If some of them are to blame, the others are asked without them.
                let blamed = match offender(error).filter(|&at| at < filters.len()) {
                    Some(at) => vec![filters.remove(at)],
                    None if error == SubscribeError::TooManySubscriptions => {
                        let taken = self.session.subscriptions().len();
                        let most = self.session.config().max_subscriptions;
                        filters.split_off(most.saturating_sub(taken).min(filters.len() - 1))
                    }
                    None => std::mem::take(&mut filters),
                };
                for index in blamed {
                    self.answer(id, index, Err(refused_by_session(error).into()));
                }
                filters.extend(rest);
                then(filters)
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
                    filters: vec![index],
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
