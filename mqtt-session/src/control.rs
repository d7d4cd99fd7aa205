//! SUBSCRIBE and UNSUBSCRIBE: calls, the packets that they are cut into, and the list of what is subscribed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use mqtt_codec::{PacketId, QoS, ReasonCode, RetainHandling, SubscriptionId};

use crate::config::{Persistence, ResubscribeRetained};
use crate::error::{ProtocolViolation, SubscribeError};
use crate::event::{BrokerLimits, Event, SubscribeId, UnsubscribeId};
use crate::job::{Batch, BatchLimits, HEADER_BYTES, Job, PacketKind, Request, not_supported};
use crate::packet_id::ControlIds;
use crate::subscribe::{
    Resubscribed, SubscribeOutcome, SubscribeResult, Subscription, UnsubscribeResult, Wanted,
};

/// Everything about subscriptions that belongs to the Session.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// What the caller wants to be subscribed to. Ordered by filter, so that a resubscribe is the same every time.
    wanted: BTreeMap<Arc<str>, Wanted>,
    /// By their numbers, which only grow.
    calls: VecDeque<(u64, Call)>,
    waiting: VecDeque<Job>,
    /// At most [`crate::packet_id::CONTROL_IDS`].
    in_flight: Vec<Batch>,
    ids: ControlIds,
    next_call: u64,
    /// Filters whose subscription has changed, for their records.
    touched: Option<Vec<Arc<str>>>,
}

/// A call of the application, or the session's own resubscribing.
#[derive(Debug)]
struct Call {
    results: Results,
    open: usize,
}

#[derive(Debug)]
enum Results {
    Subscribe(Vec<SubscribeResult>),
    Resubscribe(Vec<SubscribeResult>),
    Unsubscribe(Vec<UnsubscribeResult>),
}

impl Control {
    pub(crate) fn new(persistence: Persistence) -> Self {
        let touched = (persistence == Persistence::On).then(Vec::new);
        Self {
            touched,
            ..Self::default()
        }
    }

    fn touch(&mut self, filter: &Arc<str>) {
        if let Some(touched) = &mut self.touched {
            touched.push(Arc::clone(filter));
        }
    }

    pub(crate) fn take_touched(&mut self) -> Vec<Arc<str>> {
        self.touched
            .as_mut()
            .map(core::mem::take)
            .unwrap_or_default()
    }

    pub(crate) fn wanted(&self, filter: &str) -> Option<&Wanted> {
        self.wanted.get(filter)
    }

    /// A subscription of an earlier process.
    pub(crate) fn restore(
        &mut self,
        subscription: Subscription,
        id: Option<SubscriptionId>,
        granted: QoS,
    ) {
        let asked_by = self.next_call;
        self.next_call += 1;
        let filter = Arc::clone(&subscription.filter);
        let wanted = Wanted {
            subscription,
            id,
            asked_by,
            granted: Some(granted),
            is_owed: false,
            strikes: 0,
        };
        self.wanted.insert(filter, wanted);
    }

    pub(crate) fn subscriptions(&self) -> impl ExactSizeIterator<Item = &Wanted> {
        self.wanted.values()
    }

    pub(crate) fn wants(&self, filter: &str) -> bool {
        self.wanted.contains_key(filter)
    }

    pub(crate) fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Filters that wait to be sent.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn open_calls(&self) -> usize {
        self.calls.len()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(crate) fn ids_in_use(&self) -> usize {
        self.ids.in_use() as usize
    }

    pub(crate) fn subscribe(
        &mut self,
        subscriptions: &[Subscription],
        id: Option<SubscriptionId>,
    ) -> SubscribeId {
        let call = self.open_call(Results::Subscribe(
            subscriptions
                .iter()
                .map(|wanted| unsettled(&wanted.filter))
                .collect(),
        ));
        for (index, subscription) in subscriptions.iter().enumerate() {
            let granted = self
                .wanted
                .get(&subscription.filter)
                .and_then(|wanted| wanted.granted);
            self.wanted.insert(
                Arc::clone(&subscription.filter),
                Wanted {
                    subscription: subscription.clone(),
                    id,
                    asked_by: call,
                    granted,
                    is_owed: false,
                    strikes: 0,
                },
            );
            self.waiting.push_back(Job {
                call,
                index,
                request: Request::Subscribe {
                    subscription: subscription.clone(),
                    id,
                },
                strikes: 0,
            });
        }
        SubscribeId(call)
    }

    /// Also takes back the filters' subscriptions that have not been sent. The events settle the calls that are done so.
    pub(crate) fn unsubscribe(
        &mut self,
        filters: &[Arc<str>],
        events: &mut VecDeque<Event>,
    ) -> UnsubscribeId {
        let results = filters.iter().map(|filter| UnsubscribeResult {
            filter: Arc::clone(filter),
            reason: ReasonCode::Success,
        });
        let call = self.open_call(Results::Unsubscribe(results.collect()));
        for (index, filter) in filters.iter().enumerate() {
            self.wanted.remove(filter);
            self.touch(filter);
            let (cancelled, kept) = core::mem::take(&mut self.waiting)
                .into_iter()
                .partition::<VecDeque<_>, _>(|job| matches!(&job.request, Request::Subscribe { subscription, .. } if subscription.filter == *filter));
            self.waiting = kept;
            for job in cancelled {
                events.extend(self.settle_subscribe(&job, SubscribeOutcome::Cancelled));
            }
            self.waiting.push_back(Job {
                call,
                index,
                request: Request::Unsubscribe(Arc::clone(filter)),
                strikes: 0,
            });
        }
        UnsubscribeId(call)
    }

    /// Queues again what had been granted, in front of what waits.
    pub(crate) fn resubscribe(&mut self, which: Renew, retained: ResubscribeRetained) {
        let mut again: Vec<_> = self
            .wanted
            .values()
            .filter(|wanted| wanted.granted.is_some())
            .filter(|wanted| which == Renew::All || wanted.is_owed)
            .filter(|wanted| {
                !self.waiting.iter().any(|job| {
                    job.call == wanted.asked_by
                        && job.request.filter() == &wanted.subscription.filter
                })
            })
            .cloned()
            .collect();
        if again.is_empty() {
            return;
        }
        let call = self.open_call(Results::Resubscribe(
            again
                .iter()
                .map(|wanted| unsettled(&wanted.subscription.filter))
                .collect(),
        ));
        for wanted in &mut again {
            wanted.subscription.retain_handling = match retained {
                ResubscribeRetained::Never => RetainHandling::DoNotSend,
                ResubscribeRetained::OnlyIfNew => RetainHandling::SendIfNew,
                ResubscribeRetained::AsSubscribed => wanted.subscription.retain_handling,
            };
        }
        for (index, wanted) in again.into_iter().enumerate().rev() {
            if let Some(known) = self.wanted.get_mut(&wanted.subscription.filter) {
                known.asked_by = call;
                known.is_owed = true;
            }
            let request = Request::Subscribe {
                subscription: wanted.subscription,
                id: wanted.id,
            };
            self.waiting.push_front(Job {
                call,
                index,
                request,
                strikes: wanted.strikes,
            });
        }
    }

    /// Forgets what is subscribed; what was asked for and not answered stays.
    pub(crate) fn forget_granted(&mut self) {
        let touched = &mut self.touched;
        self.wanted.retain(|filter, wanted| {
            let stays = wanted.granted.is_none();
            if let (false, Some(touched)) = (stays, touched.as_mut()) {
                touched.push(Arc::clone(filter));
            }
            stays
        });
    }

    /// Whether a packet can be made now. A filter with which the broker hung up goes alone, and nothing beside it.
    #[inline]
    pub(crate) fn can_send(&self) -> bool {
        match self.waiting.front() {
            None => false,
            Some(job) if job.strikes > 0 => self.in_flight.is_empty(),
            Some(_) => {
                !self.is_isolating()
                    && self.in_flight.len() < usize::from(crate::packet_id::CONTROL_IDS)
            }
        }
    }

    /// Whether a filter under suspicion is in flight, so that nothing else that might be blamed may be sent.
    pub(crate) fn is_isolating(&self) -> bool {
        self.in_flight
            .iter()
            .any(|batch| batch.jobs.iter().any(|job| job.strikes > 0))
    }

    /// Whether a filter under suspicion waits.
    #[inline(always)]
    pub(crate) fn has_suspects(&self) -> bool {
        !(self.waiting.is_empty() && self.in_flight.is_empty()) && self.is_any_suspect()
    }

    #[inline(never)]
    fn is_any_suspect(&self) -> bool {
        self.waiting.iter().any(|job| job.strikes > 0) || self.is_isolating()
    }

    /// Whether one waits, or would wait once the subscriptions are made anew.
    pub(crate) fn may_have_suspects(&self) -> bool {
        self.has_suspects() || self.wanted.values().any(|wanted| wanted.strikes > 0)
    }

    /// Whether the session's own resubscribing is under way.
    pub(crate) fn is_resubscribing(&self) -> bool {
        let mut calls = self.calls.iter();
        calls.any(|(_, call)| matches!(call.results, Results::Resubscribe(_)))
    }

    /// Puts the filters of the next packet in flight. Those that this broker cannot take are settled instead.
    pub(crate) fn next_batch(
        &mut self,
        limits: BatchLimits,
        broker: &BrokerLimits,
        events: &mut VecDeque<Event>,
    ) -> Option<&Batch> {
        let mut jobs: Vec<Job> = Vec::new();
        let mut bytes = HEADER_BYTES;
        while let Some(job) = self.waiting.front() {
            let cost = job.request.bytes();
            let fits = jobs.is_empty() || bytes + cost <= limits.bytes;
            let alike = jobs.first().is_none_or(|first| {
                first.request.kind() == job.request.kind() && first.strikes == 0 && job.strikes == 0
            });
            if !fits || !alike || jobs.len() >= limits.filters {
                break;
            }
            let Some(job) = self.waiting.pop_front() else {
                break;
            };
            if let Some(error) = not_supported(&job.request, broker, bytes + cost > limits.bytes) {
                events.extend(self.settle_not_sent(&job, error));
                continue;
            }
            bytes += cost;
            jobs.push(job);
        }
        self.put_in_flight(jobs)
    }

    /// As [`next_batch`](Self::next_batch), of what may leave before the broker has said what it takes: those in front, up to
    /// the first that may not. Nothing is settled.
    pub(crate) fn next_early_batch(
        &mut self,
        limits: BatchLimits,
        may_leave: impl Fn(&Request) -> bool,
    ) -> Option<&Batch> {
        let kind = self.waiting.front()?.request.kind();
        let mut bytes = HEADER_BYTES;
        let leave = self.waiting.iter().take(limits.filters).take_while(|job| {
            bytes += job.request.bytes();
            bytes <= limits.bytes
                && job.request.kind() == kind
                && job.strikes == 0
                && may_leave(&job.request)
        });
        let leave = leave.count();
        let jobs = if leave == self.waiting.len() {
            core::mem::take(&mut self.waiting).into()
        } else {
            self.waiting.drain(..leave).collect()
        };
        self.put_in_flight(jobs)
    }

    fn put_in_flight(&mut self, jobs: Vec<Job>) -> Option<&Batch> {
        let kind = jobs.first()?.request.kind();
        let Some(packet_id) = self.ids.take() else {
            for job in jobs.into_iter().rev() {
                self.waiting.push_front(job);
            }
            return None;
        };
        self.in_flight.push(Batch {
            packet_id,
            kind,
            jobs,
        });
        self.in_flight.last()
    }

    /// `Ok(false)`: nothing with this identifier is in flight.
    pub(crate) fn on_suback(
        &mut self,
        packet_id: PacketId,
        codes: impl Iterator<Item = ReasonCode> + Clone,
        events: &mut VecDeque<Event>,
    ) -> Result<bool, ProtocolViolation> {
        let Some(batch) = self.take_batch(packet_id, codes.clone().count(), |kind| {
            kind != PacketKind::Unsubscribe
        })?
        else {
            return Ok(false);
        };
        for (job, code) in batch.jobs.iter().zip(codes) {
            events.extend(self.settle_subscribe(job, outcome_of(code)));
        }
        self.rest();
        Ok(true)
    }

    /// `Ok(false)`: nothing with this identifier is in flight. `codes` is `None` before 5.0.
    pub(crate) fn on_unsuback(
        &mut self,
        packet_id: PacketId,
        codes: Option<&[ReasonCode]>,
        events: &mut VecDeque<Event>,
    ) -> Result<bool, ProtocolViolation> {
        let expected = self
            .in_flight
            .iter()
            .find(|batch| batch.packet_id == packet_id)
            .map_or(0, |batch| batch.jobs.len());
        let count = codes.map_or(expected, <[ReasonCode]>::len);
        let Some(batch) =
            self.take_batch(packet_id, count, |kind| kind == PacketKind::Unsubscribe)?
        else {
            return Ok(false);
        };
        for (at, job) in batch.jobs.iter().enumerate() {
            let reason = codes
                .and_then(|codes| codes.get(at))
                .copied()
                .unwrap_or(ReasonCode::Success);
            events.extend(self.settle_unsubscribe(job, reason));
        }
        self.rest();
        Ok(true)
    }

    /// With nothing under way no room is held for it: most sessions subscribe once, and then stand idle.
    fn rest(&mut self) {
        if self.calls.is_empty() && self.waiting.is_empty() && self.in_flight.is_empty() {
            self.calls = VecDeque::new();
            self.waiting.shrink_to_fit();
            self.in_flight.shrink_to_fit();
        }
    }

    /// The Network Connection is gone: identifiers are free again, and what was in flight waits in its old order.
    ///
    /// The session's own resubscribing is dropped: the next CONNACK says whether all of it is needed again, or only what was
    /// left of it. Returns how many filters
    /// were set aside.
    pub(crate) fn on_disconnected(
        &mut self,
        blame: Blame,
        quarantine_after: u8,
        events: &mut VecDeque<Event>,
    ) -> u64 {
        if self.in_flight.is_empty() && self.calls.is_empty() {
            return 0;
        }
        let alone = match (self.in_flight.as_slice(), blame) {
            ([batch], Blame::Suspects { others: 0 }) => batch.jobs.len() == 1,
            _ => false,
        };
        let mut quarantined = 0;
        let batches = core::mem::take(&mut self.in_flight);
        let mut again = VecDeque::new();
        for batch in batches {
            self.ids.free(batch.packet_id);
            for mut job in batch.jobs {
                if let Blame::Suspects { .. } = blame {
                    job.strikes = job.strikes.saturating_add(1);
                    if let Request::Subscribe { subscription, .. } = &job.request
                        && let Some(wanted) = self.wanted.get_mut(&subscription.filter)
                    {
                        wanted.strikes = job.strikes;
                    }
                }
                if alone && job.strikes >= quarantine_after {
                    quarantined += 1;
                    events.extend(match &job.request {
                        Request::Subscribe { .. } => {
                            self.settle_subscribe(&job, SubscribeOutcome::Quarantined)
                        }
                        Request::Unsubscribe(_) => {
                            self.settle_unsubscribe(&job, ReasonCode::UnspecifiedError)
                        }
                    });
                } else {
                    again.push_back(job);
                }
            }
        }
        again.append(&mut self.waiting);
        let resubscribing: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, call)| matches!(call.results, Results::Resubscribe(_)))
            .map(|(id, _)| *id)
            .collect();
        again.retain(|job| !resubscribing.contains(&job.call));
        for call in resubscribing {
            self.take_call(call);
        }
        self.waiting = again;
        quarantined
    }

    fn open_call(&mut self, results: Results) -> u64 {
        let call = self.next_call;
        self.next_call += 1;
        let open = match &results {
            Results::Subscribe(list) | Results::Resubscribe(list) => list.len(),
            Results::Unsubscribe(list) => list.len(),
        };
        self.calls.push_back((call, Call { results, open }));
        call
    }

    fn place_of(&self, call: u64) -> Option<usize> {
        // Mostly they are answered in their order.
        match self.calls.front() {
            Some((first, _)) if *first == call => Some(0),
            _ => self.calls.binary_search_by_key(&call, |(id, _)| *id).ok(),
        }
    }

    fn call_mut(&mut self, call: u64) -> Option<&mut Call> {
        let at = self.place_of(call)?;
        self.calls.get_mut(at).map(|(_, call)| call)
    }

    fn take_call(&mut self, call: u64) -> Option<Call> {
        let at = self.place_of(call)?;
        self.calls.remove(at).map(|(_, call)| call)
    }

    fn take_batch(
        &mut self,
        packet_id: PacketId,
        codes: usize,
        is_kind: impl Fn(PacketKind) -> bool,
    ) -> Result<Option<Batch>, ProtocolViolation> {
        let Some(at) = self
            .in_flight
            .iter()
            //= MQTT-2.2.1-6
            //= v3.1.1 MQTT-2.3.1-7
            .position(|batch| batch.packet_id == packet_id)
        else {
            return Ok(None);
        };
        let batch = &self.in_flight[at];
        if !is_kind(batch.kind) {
            return Err(ProtocolViolation::WrongAcknowledgement);
        }
        //= MQTT-3.8.4-6
        //= v3.1.1 MQTT-3.8.4-5
        if batch.jobs.len() != codes {
            return Err(ProtocolViolation::WrongNumberOfReasonCodes);
        }
        self.ids.free(packet_id);
        Ok(Some(self.in_flight.remove(at)))
    }

    fn settle_subscribe(&mut self, job: &Job, outcome: SubscribeOutcome) -> Option<Event> {
        let filter = job.request.filter();
        self.touch(filter);
        if let Some(wanted) = self.wanted.get_mut(filter)
            && wanted.asked_by == job.call
        {
            if let SubscribeOutcome::Granted(qos) = outcome {
                wanted.granted = Some(qos);
                wanted.is_owed = false;
                wanted.strikes = 0;
            } else {
                self.wanted.remove(filter);
            }
        }
        let call = self.call_mut(job.call)?;
        if let Results::Subscribe(results) | Results::Resubscribe(results) = &mut call.results
            && let Some(result) = results.get_mut(job.index)
        {
            result.outcome = outcome;
        }
        self.settle_one(job.call)
    }

    fn settle_unsubscribe(&mut self, job: &Job, reason: ReasonCode) -> Option<Event> {
        let call = self.call_mut(job.call)?;
        if let Results::Unsubscribe(results) = &mut call.results
            && let Some(result) = results.get_mut(job.index)
        {
            result.reason = reason;
        }
        self.settle_one(job.call)
    }

    fn settle_not_sent(&mut self, job: &Job, error: SubscribeError) -> Option<Event> {
        match &job.request {
            Request::Subscribe { .. } => {
                self.settle_subscribe(job, SubscribeOutcome::NotSent(error))
            }
            Request::Unsubscribe(_) => self.settle_unsubscribe(job, ReasonCode::TopicFilterInvalid),
        }
    }

    fn settle_one(&mut self, id: u64) -> Option<Event> {
        let call = self.call_mut(id)?;
        call.open -= 1;
        if call.open > 0 {
            return None;
        }
        Some(match self.take_call(id)?.results {
            Results::Subscribe(results) => Event::SubscribeCompleted {
                id: SubscribeId(id),
                results,
            },
            Results::Resubscribe(results) => Event::Resubscribed(Resubscribed { results }),
            Results::Unsubscribe(results) => Event::UnsubscribeCompleted {
                id: UnsubscribeId(id),
                results,
            },
        })
    }
}

/// Which subscriptions are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renew {
    /// All that had been granted.
    All,
    /// Those of an earlier resubscribing that was cut off. The broker says that it has a session, and it does; but it is the
    /// one that was new then.
    Owed,
}

/// Whether what was in flight may be why the connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// It may: the broker hung up. `others` counts what was in flight beside what is looked at.
    Suspects { others: usize },
    /// It is not.
    Nobody,
}

fn unsettled(filter: &Arc<str>) -> SubscribeResult {
    SubscribeResult {
        filter: Arc::clone(filter),
        outcome: SubscribeOutcome::Cancelled,
    }
}

const fn outcome_of(code: ReasonCode) -> SubscribeOutcome {
    match code {
        ReasonCode::Success => SubscribeOutcome::Granted(QoS::AtMostOnce),
        ReasonCode::GrantedQoS1 => SubscribeOutcome::Granted(QoS::AtLeastOnce),
        ReasonCode::GrantedQoS2 => SubscribeOutcome::Granted(QoS::ExactlyOnce),
        refused => SubscribeOutcome::Refused(refused),
    }
}
