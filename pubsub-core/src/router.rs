//! Between one provider and its subscribers: who gets which message, and who still needs which filter.
//!
//! Two locks, always taken in this order: `control` orders what is asked of the provider; `routes` is
//! what a delivery looks at. A delivery takes `routes` alone and for one batch, a change of
//! subscriptions takes it for as long as an insertion, so neither holds the other up for long. Nothing
//! is awaited under either.
//!
//! A provider calls its sink from within calls that core makes under `control`. So what a sink call
//! wants of `control` is a [`Task`]: done at once if the lock is free, otherwise by whoever holds it,
//! when done.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use crate::connection::{ConnectionFacts, ConnectionHub, ConnectionStatus};
use crate::error::{
    FilterLost, ProviderError, ProviderErrorKind, Refusal, RefusalKind, SubscriptionError,
};
use crate::few::Few;
use crate::filters::FilterMap;
use crate::message::{ProviderName, QoS};
use crate::provider::{
    BoxFuture, Continuity, Delivery, DeliverySink, Demand, Drive, FilterRequest, Gap, GapCause,
    Provider, RetainMark, RetainedMessages,
};
use crate::queue::{Effects, Queue};
use crate::routes::{Followed, Routes, SlotKey};
use crate::topic::TopicFilter;

pub(crate) struct Router {
    name: ProviderName,
    control: Mutex<Control>,
    /// At most one for each end of a subscription and each filter, as each is made once.
    tasks: Mutex<Vec<Task>>,
    routes: Mutex<Routes>,
    /// The provider's, for those who wait for messages. Held to look at it alone.
    driver: Mutex<Option<Arc<dyn Drive>>>,
    /// How often that has changed: they remember it, and look here whether it is still the one.
    drivers: AtomicUsize,
    hub: Arc<ConnectionHub>,
}

/// The driver that one who waits for messages has seen last. It is not kept by that.
#[derive(Default)]
pub(crate) struct KnownDriver {
    driver: Option<Weak<dyn Drive>>,
    /// Which of the router's it is; before the first there is none.
    number: usize,
}

/// What a sink call leaves to be done under `control`.
enum Task {
    /// A subscription ended: release its filters.
    Release(SlotKey),
    /// The provider lost a filter.
    Lose(TopicFilter, Refusal),
    /// The provider failed for good.
    Fail(ProviderError),
}

/// What the provider was asked for, and on whose behalf.
#[derive(Default)]
struct Control {
    /// `None` once removed.
    provider: Option<Arc<dyn Provider>>,
    filters: FilterMap<FilterUse>,
}

struct FilterUse {
    /// The request as it stands: what a replacement of the provider is asked for.
    request: FilterRequest,
    granted: Option<QoS>,
    users: Few<SlotKey>,
}

impl Control {
    fn entry(&mut self, filter: &TopicFilter) -> &mut FilterUse {
        self.filters.get_or_insert_with(filter, || FilterUse {
            request: FilterRequest::new(filter.clone()),
            granted: None,
            users: Few::None,
        })
    }
}

impl FilterUse {
    /// 1 if live messages under this filter may carry the retain mark, otherwise 0.
    fn marks(&self) -> usize {
        usize::from(self.request.retain_mark == RetainMark::AsPublished)
    }
}

/// A subscribe request on its way.
pub(crate) struct Asked {
    /// One for each filter in order; `None` for those the provider is being asked for.
    pub(crate) known: Vec<(TopicFilter, Option<QoS>)>,
    /// The provider's answer, for those asked in order.
    pub(crate) answer: BoxFuture<'static, Result<Vec<Result<QoS, Refusal>>, ProviderError>>,
}

impl Router {
    pub(crate) fn new(name: ProviderName) -> Arc<Self> {
        Arc::new(Self {
            name,
            control: Mutex::default(),
            tasks: Mutex::default(),
            routes: Mutex::new(Routes::new()),
            driver: Mutex::default(),
            drivers: AtomicUsize::new(0),
            hub: ConnectionHub::new(),
        })
    }

    pub(crate) fn name(&self) -> &ProviderName {
        &self.name
    }

    pub(crate) fn hub(&self) -> &Arc<ConnectionHub> {
        &self.hub
    }

    pub(crate) fn provider(&self) -> Option<Arc<dyn Provider>> {
        self.control().provider.clone()
    }

    /// Puts a provider in place, in place of the one there was, and asks it for every filter in use.
    pub(crate) fn install(
        self: &Arc<Self>,
        provider: Arc<dyn Provider>,
    ) -> Result<Option<Asked>, ProviderError> {
        let (asked, replaced) = self.with_control(|control| {
            let rules = provider.matching_rules();
            let driver = provider.driver();
            let epoch = {
                let mut routes = self.routes();
                routes.epoch += 1;
                routes.set_rules(rules, control.filters.keys());
                routes.epoch
            };
            provider.attach(DeliverySink::new(Arc::clone(self), epoch))?;
            let requests: Vec<_> = control
                .filters
                .iter()
                .map(|(_, entry)| entry.request.clone())
                .collect();
            let asked = (!requests.is_empty()).then(|| Asked {
                known: requests
                    .iter()
                    .map(|request| (request.filter.clone(), None))
                    .collect(),
                answer: provider.subscribe(requests),
            });
            control.provider = Some(provider);
            let replaced = self.replace_driver(driver);
            Ok::<_, ProviderError>((asked, replaced))
        })?;
        // As in `shut`.
        drop(replaced);
        Ok(asked)
    }

    /// Records what a replacement answered; what it does not take over is lost to the subscribers.
    pub(crate) fn replaced(
        &self,
        asked: &[TopicFilter],
        answer: Result<Vec<Result<QoS, Refusal>>, ProviderError>,
    ) -> Result<(), ProviderError> {
        let (mut replies, failure) = match answer {
            Ok(replies) => (replies.into_iter(), None),
            Err(error) => (Vec::new().into_iter(), Some(error)),
        };
        for filter in asked {
            match (replies.next(), &failure) {
                (Some(Ok(qos)), _) => self.granted(filter, qos),
                (Some(Err(refusal)), _) => self.later(Task::Lose(filter.clone(), refusal)),
                (None, Some(error)) => {
                    self.later(Task::Lose(filter.clone(), error.clone().into()));
                }
                (None, None) => {
                    let refusal = RefusalKind::ProviderFailed.into();
                    self.later(Task::Lose(filter.clone(), refusal));
                }
            }
        }
        let epoch = self.routes().epoch;
        let replaced = Gap::new(None, Continuity::Lost).because_of(GapCause::Planned);
        self.gap(epoch, replaced);
        failure.map_or(Ok(()), Err)
    }

    /// Sets up the routes of a subscription and asks the provider for what it does not have yet.
    ///
    /// `None` if the provider was removed.
    pub(crate) fn subscribe(
        &self,
        queue: &Arc<Queue>,
        requests: &[FilterRequest],
    ) -> Option<(SlotKey, Asked)> {
        self.with_control(|control| {
            let provider = control.provider.clone()?;
            queue.provider_joined();
            let slot = self.routes().allocate(queue);
            let mut known = Vec::with_capacity(requests.len());
            let mut asked = Vec::new();
            for request in requests {
                // Filter by filter, so that a delivery waits for one at most.
                let mut routes = self.routes();
                routes.add(slot, &request.filter);
                let entry = control.entry(&request.filter);
                entry.users.push(slot);
                let satisfied = request.retained != RetainedMessages::Send
                    && entry.granted.is_some()
                    && request.qos <= entry.request.qos;
                if satisfied {
                    known.push((request.filter.clone(), entry.granted));
                    continue;
                }
                routes.marked_as_published -= entry.marks();
                let qos = entry.request.qos.max(request.qos);
                entry.request = request.clone().with_qos(qos);
                routes.marked_as_published += entry.marks();
                known.push((request.filter.clone(), None));
                asked.push(entry.request.clone());
            }
            let answer: BoxFuture<'static, _> = if asked.is_empty() {
                Box::pin(std::future::ready(Ok(Vec::new())))
            } else {
                provider.subscribe(asked)
            };
            Some((slot, Asked { known, answer }))
        })
    }

    /// Sets up a subscription to what no filter matches; the provider has no part in it.
    ///
    /// `None` if the provider was removed.
    pub(crate) fn subscribe_unmatched(&self, queue: &Arc<Queue>) -> Option<SlotKey> {
        self.with_control(|control| {
            control.provider.as_ref()?;
            queue.provider_joined();
            Some(self.routes().allocate_unmatched(queue))
        })
    }

    pub(crate) fn granted(&self, filter: &TopicFilter, qos: QoS) {
        self.with_control(|control| {
            if let Some(entry) = control.filters.get_mut(filter) {
                entry.granted = Some(qos);
            }
        });
    }

    /// The provider refused a filter to this subscription. Others that had it keep it.
    pub(crate) fn refused(&self, slot: SlotKey, filter: &TopicFilter) {
        self.with_control(|control| {
            let had = control
                .filters
                .get(filter)
                .is_some_and(|entry| entry.granted.is_some());
            let unused = self.leave(control, slot, Some(std::slice::from_ref(filter)));
            // Granted to somebody who has left meanwhile.
            if let Some(provider) = &control.provider
                && had
                && !unused.is_empty()
            {
                provider.release(unused);
            }
        });
        self.settle_slot(slot);
    }

    /// Takes a subscription off all its filters and asks the provider to unsubscribe those that nobody
    /// else uses, without waiting.
    pub(crate) fn release(&self, slot: SlotKey) {
        self.with_control(|control| self.release_under(control, slot));
        self.settle_slot(slot);
    }

    fn release_under(&self, control: &mut Control, slot: SlotKey) {
        let unused = self.leave(control, slot, None);
        if let Some(provider) = &control.provider
            && !unused.is_empty()
        {
            provider.release(unused);
        }
    }

    /// Takes a subscription off some filters, or off all, and asks the provider to unsubscribe those that
    /// nobody else uses.
    pub(crate) fn unsubscribe(
        &self,
        slot: SlotKey,
        filters: Option<&[TopicFilter]>,
    ) -> Option<BoxFuture<'static, Result<(), ProviderError>>> {
        let answer = self.with_control(|control| {
            let unused = self.leave(control, slot, filters);
            match &control.provider {
                Some(provider) if !unused.is_empty() => Some(provider.unsubscribe(unused)),
                _ => None,
            }
        });
        self.settle_slot(slot);
        answer
    }

    /// Takes the routes away; returns the filters that nobody uses now.
    fn leave(
        &self,
        control: &mut Control,
        slot: SlotKey,
        filters: Option<&[TopicFilter]>,
    ) -> Vec<TopicFilter> {
        let leaving = match filters {
            Some(filters) => filters.to_vec(),
            None => {
                let mut routes = self.routes();
                routes.remove_unmatched(slot);
                routes.filters_of(slot)
            }
        };
        let mut unused = Vec::new();
        for filter in leaving {
            let mut routes = self.routes();
            routes.remove(slot, &filter);
            if let Some(entry) = control.filters.get_mut(&filter)
                && entry.users.remove(slot)
            {
                routes.marked_as_published -= entry.marks();
                control.filters.remove(&filter);
                unused.push(filter);
            }
        }
        unused
    }

    /// Frees the place of a subscription that has nothing left to want.
    fn settle_slot(&self, slot: SlotKey) {
        let queue = self.routes().free_if_empty(slot);
        if let Some(waker) = queue.and_then(|queue| queue.provider_left()) {
            waker.wake();
        }
    }

    pub(crate) fn deliver(&self, epoch: u64, batch: &mut Vec<Delivery>) -> Demand {
        let mut routes = self.routes();
        if routes.epoch != epoch {
            drop(routes);
            batch.clear();
            return Demand::Continue;
        }
        let followed = routes.route(&self.name, batch);
        drop(routes);
        self.follow_up(followed)
    }

    pub(crate) fn advance_clock(&self, epoch: u64, now: Duration) -> Demand {
        let mut routes = self.routes();
        if routes.epoch != epoch {
            return Demand::Continue;
        }
        routes.now = routes.now.max(now);
        let now = routes.now;
        let mut followed = Followed::default();
        for (slot, queue) in routes.occupied() {
            followed.push(slot, queue.check_age(now));
        }
        drop(routes);
        self.follow_up(followed)
    }

    fn follow_up(&self, followed: Followed) -> Demand {
        let mut demand = Demand::Continue;
        let mut follow = |(slot, effects): (SlotKey, Effects)| {
            if let Some(waker) = effects.waker {
                waker.wake();
            }
            if effects.ended {
                self.later(Task::Release(slot));
            }
            if effects.drop_connection {
                demand = Demand::DropConnection;
            }
        };
        followed.first.into_iter().for_each(&mut follow);
        followed.others.into_iter().for_each(follow);
        demand
    }

    pub(crate) fn set_connection_state(
        &self,
        epoch: u64,
        facts: ConnectionFacts,
        reason: Option<ProviderError>,
    ) {
        if self.routes().epoch == epoch {
            self.hub.set(ConnectionStatus {
                state: facts.state(),
                reason,
            });
        }
    }

    pub(crate) fn gap(&self, epoch: u64, gap: Gap) {
        let mut routes = self.routes();
        if routes.epoch != epoch {
            return;
        }
        if gap.continuity == Continuity::Lost {
            routes.forget_retained();
        }
        let wakers: Vec<Waker> = routes
            .occupied()
            .filter_map(|(_, queue)| queue.gap(gap))
            .collect();
        drop(routes);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn gap_of(&self, epoch: u64, filters: &[TopicFilter], gap: Gap) {
        let routes = self.routes();
        if routes.epoch != epoch {
            return;
        }
        let wakers: Vec<Waker> = routes
            .users_of(filters)
            .filter_map(|queue| queue.gap(gap))
            .collect();
        drop(routes);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn subscription_lost(&self, epoch: u64, filter: &TopicFilter, reason: Refusal) {
        if self.routes().epoch == epoch {
            self.later(Task::Lose(filter.clone(), reason));
        }
    }

    /// Takes a lost filter from its users; returns them, and whom to wake.
    fn lose_under(
        &self,
        control: &mut Control,
        filter: &TopicFilter,
        reason: &Refusal,
    ) -> (Vec<SlotKey>, Vec<Waker>) {
        let Some(entry) = control.filters.remove(filter) else {
            return Default::default();
        };
        let mut wakers = Vec::new();
        let mut routes = self.routes();
        routes.marked_as_published -= entry.marks();
        let users = entry.users.as_slice();
        for user in users {
            routes.remove(*user, filter);
            if let Some(queue) = routes.queue_of(*user) {
                let lost = FilterLost {
                    provider: self.name.clone(),
                    filter: filter.clone(),
                    reason: reason.clone(),
                };
                wakers.extend(queue.error(SubscriptionError::FilterLost(Box::new(lost))));
            }
        }
        (users.to_vec(), wakers)
    }

    pub(crate) fn failed(&self, epoch: u64, error: ProviderError) {
        if self.routes().epoch == epoch {
            self.later(Task::Fail(error));
        }
    }

    /// Lets go of the provider: no subscriber gets anything through it any more.
    pub(crate) fn shut(&self) {
        let (provider, wakers) = self.with_control(|control| {
            self.routes().epoch += 1;
            (control.provider.take(), self.end_all_under(control, None))
        });
        let driver = self.replace_driver(None);
        wakers.into_iter().for_each(Waker::wake);
        let reason = Some(ProviderErrorKind::Closed.into());
        self.hub.set(ConnectionStatus {
            reason,
            ..Default::default()
        });
        self.hub.close();
        // Its destructor is foreign code, so it runs with no lock held.
        drop((provider, driver));
    }

    /// Gives the provider a turn on behalf of somebody who is about to wait for a message.
    #[inline]
    pub(crate) fn drive_receiving(&self, known: &mut KnownDriver, cx: &Context<'_>) {
        // A driver that has just gone may have one more turn: it was an offer.
        if known.number != self.drivers.load(Ordering::Relaxed) {
            self.learn_driver(known);
        }
        if let Some(driver) = known.driver.as_ref().and_then(Weak::upgrade) {
            driver.drive_receiving(cx);
        }
    }

    #[cold]
    fn learn_driver(&self, known: &mut KnownDriver) {
        let current = self.lock_driver();
        let driver = current.as_ref().map(Arc::downgrade);
        let number = self.drivers.load(Ordering::Relaxed);
        drop(current);
        *known = KnownDriver { driver, number };
    }

    fn replace_driver(&self, driver: Option<Arc<dyn Drive>>) -> Option<Arc<dyn Drive>> {
        let mut current = self.lock_driver();
        self.drivers.fetch_add(1, Ordering::Relaxed);
        std::mem::replace(&mut *current, driver)
    }

    /// Ends every subscription's part here; returns whom to wake.
    fn end_all_under(
        &self,
        control: &mut Control,
        error: Option<&SubscriptionError>,
    ) -> Vec<Waker> {
        control.filters.clear();
        let mut routes = self.routes();
        let mut wakers = Vec::new();
        for queue in routes.free_all() {
            wakers.extend(error.and_then(|error| queue.error(error.clone())));
            wakers.extend(queue.provider_left());
        }
        wakers
    }

    fn with_control<T>(&self, work: impl FnOnce(&mut Control) -> T) -> T {
        let result = work(&mut self.control());
        self.run_tasks();
        result
    }

    fn later(&self, task: Task) {
        self.tasks().push(task);
        self.run_tasks();
    }

    /// Does the tasks if nobody holds `control`; whoever does comes by here after letting go of it.
    fn run_tasks(&self) {
        while !self.tasks().is_empty() {
            let mut control = match self.control.try_lock() {
                Ok(control) => control,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let tasks = std::mem::take(&mut *self.tasks());
            let mut wakers = Vec::new();
            let mut slots = Vec::new();
            for task in tasks {
                match task {
                    Task::Release(slot) => {
                        self.release_under(&mut control, slot);
                        slots.push(slot);
                    }
                    Task::Lose(filter, reason) => {
                        let (users, wake) = self.lose_under(&mut control, &filter, &reason);
                        slots.extend(users);
                        wakers.extend(wake);
                    }
                    Task::Fail(error) => {
                        let error = SubscriptionError::ProviderFailed(error);
                        wakers.extend(self.end_all_under(&mut control, Some(&error)));
                    }
                }
            }
            drop(control);
            wakers.into_iter().for_each(Waker::wake);
            for slot in slots {
                self.settle_slot(slot);
            }
        }
    }

    /// How many messages matched no subscription.
    pub(crate) fn unrouted(&self) -> u64 {
        self.routes().unrouted
    }

    /// How many filters are in use, and by how many subscriptions.
    pub(crate) fn usage(&self) -> (usize, usize) {
        let control = self.control();
        let subscribers = self.routes().occupied().count();
        (control.filters.len(), subscribers)
    }

    fn lock_driver(&self) -> MutexGuard<'_, Option<Arc<dyn Drive>>> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
