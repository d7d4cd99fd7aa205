//! Who polls the connection's work: the task that was spawned for it, or, for a moment, whoever waits for it.
//!
//! The work is a future that one at a time takes out of its seat, polls and puts back. The spawned task does that when it is
//! woken. A lone publisher may do it too, as it begins to wait for its receipt: the message is then written, and mostly
//! settled, without a hop to the task and back. And so may a lone subscriber that waits for the next message: it is woken
//! together with the task, and before it, and takes its message off the socket by itself. Whoever waits for the answer to a
//! subscribe, or for the end, is woken and may poll in the same way. On a runtime with one thread each of
//! these hops costs its root future two turns of the runtime, as much as a third of the send. On one with several threads a
//! subscriber goes on where the task has yielded, once it has taken what came so far.
//!
//! Whoever polls, the work sees the same two wakers, the seat's: one for the handles, and one for all else. So every socket,
//! timer and queue that it waits for goes on waking the seat, and the seat wakes the spawned task. What holds under the lock is:
//!
//! - *news* is set by each wake, and cleared by taking the work out to poll it;
//! - where there is *news* and the work is in its place, the spawned task has been woken and has still to run: by the wake
//!   itself, by an earlier one, or, if the work was out then, by whoever put it back. Or it is about to be, for what the handles
//!   have left, by a waker that does so even where it is dropped.
//!
//! The task, when it runs, polls the work if there is news and the work is in its place. If it is out, the task need not wait for
//! it: should there be more to do, it is woken again. So no wake is lost, nobody waits for the lock longer than it takes to move a
//! pointer, and code that is called by the work and comes back here finds the place empty and goes its way. A subscriber that
//! is woken beside the task is asked for nothing: if it never comes, or is gone, the task has been woken all the same.

mod habits;
mod ringing;

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use pubsub_core::Drive;
use tokio::runtime::{Handle, RuntimeFlavor};

use self::habits::{Audience, Habit};
use self::ringing::{Ringing, wake_late};

/// What is driven.
pub(crate) trait Work: Send + 'static {
    /// A poll, with what there is to do. The context's waker is woken for all but the handles, `bell` for these.
    fn poll(&mut self, cx: &mut Context<'_>, bell: &Waker, news: News) -> Poll<()>;

    /// Whether others than the spawned task may poll it as it stands.
    fn is_shared(&self) -> bool;

    /// How many publishes the last poll has taken up.
    fn taken_up(&self) -> usize;

    /// How many messages the last poll has handed on.
    fn delivered(&self) -> usize;

    /// Whether the last poll has left something for after the others' turns, and has seen to being woken then.
    fn has_yielded(&self) -> bool;
}

/// What has happened since the work was last polled. The greater says the more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum News {
    None,
    /// The handles have left something, and that is all.
    Handles,
    /// Something else that the work waits for has happened.
    Any,
}

pub(crate) struct Seat<W>(Mutex<State<W>>);

struct State<W> {
    place: Place<W>,
    news: News,
    /// The spawned task.
    task: Option<Waker>,
    /// It has been woken, and has not run since: once is enough.
    is_task_called: bool,
    habit: Habit,
    audience: Audience,
    ringing: Ringing,
    /// The last poll has ended so, and no other has begun.
    has_yielded: bool,
    /// Who waits for the answer to a call.
    caller: Option<Waker>,
}

enum Place<W> {
    /// Before its beginning, and after an end that was not its own.
    Empty,
    /// It has come to its end, and all that it had is gone.
    Over,
    Free(Box<Driven<W>>),
    /// Somebody polls it.
    Out,
    /// The spawned task is gone; whoever polls the work drops it.
    Forsaken,
    /// It has panicked while somebody else polled it, and the task is to end by that.
    Panicked(Box<dyn Any + Send>),
}

/// The work, and what polling it takes.
struct Driven<W> {
    work: Box<W>,
    /// For its timers, and for what it spawns: whoever polls may be on another runtime, or on none.
    runtime: Handle,
    waker: Waker,
    bell: Waker,
}

impl<W: Work> Seat<W> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            place: Place::Empty,
            news: News::None,
            task: None,
            is_task_called: false,
            habit: Habit::default(),
            audience: Audience::default(),
            ringing: Ringing::default(),
            has_yielded: false,
            caller: None,
        })))
    }

    /// The task to be spawned on this runtime, in which the work is made. However it ends, the work ends with it.
    pub(crate) fn run(
        self: Arc<Self>,
        runtime: Handle,
        make: impl FnOnce() -> Box<W> + Send,
    ) -> impl Future<Output = ()> + Send {
        // Who begins to wait before the task has run is called like those who do afterwards.
        self.lock().audience.shares_thread =
            runtime.runtime_flavor() == RuntimeFlavor::CurrentThread;
        let running = Running(self);
        async move {
            let seat = &running.0;
            let driven = Driven {
                work: make(),
                runtime,
                waker: Waker::from(Arc::clone(seat)),
                bell: Waker::from(Arc::new(Bell(Arc::clone(seat)))),
            };
            {
                let mut state = seat.lock();
                state.place = Place::Free(Box::new(driven));
                state.news = News::Any;
            }
            std::future::poll_fn(|cx| seat.poll_in_task(cx)).await;
        }
    }

    fn poll_in_task(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        state.is_task_called = false;
        match &mut state.task {
            Some(task) => task.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        let news = state.news;
        state.audience.task_runs(news);
        state.ringing.task_runs();
        let Some((mut driven, news)) = state.take_out() else {
            return match std::mem::replace(&mut state.place, Place::Empty) {
                Place::Panicked(panic) => {
                    drop(state);
                    resume_unwind(panic)
                }
                Place::Over => {
                    state.place = Place::Over;
                    Poll::Ready(())
                }
                other => {
                    state.place = other;
                    Poll::Pending
                }
            };
        };
        drop(state);
        // A panic drops the work, and then ends the task.
        let polled = driven.poll(news);
        let mut state = self.lock();
        state.habit.taken_up_by_task(driven.work.taken_up());
        state.audience.delivered_by_task(driven.work.delivered());
        if polled.is_ready() {
            drop(state);
            drop(driven);
            self.lock().place = Place::Over;
            return polled;
        }
        self.put_back(driven, state);
        polled
    }

    /// Puts the work back, and wakes the task if there is more to do.
    fn put_back(&self, driven: Box<Driven<W>>, mut state: MutexGuard<'_, State<W>>) {
        if let Place::Forsaken = state.place {
            state.place = Place::Empty;
            drop(state);
            return drop(driven);
        }
        state.has_yielded = driven.work.has_yielded();
        state.place = Place::Free(driven);
        let task = state.task_to_wake();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Polls the work for somebody else than the task.
    fn poll_for_other(&self, mut driven: Box<Driven<W>>, news: News, waits_for: WaitsFor) {
        let polled = catch_unwind(AssertUnwindSafe(|| {
            // It costs less to look whether that is where this is.
            let is_here = Handle::try_current().is_ok_and(|here| here.id() == driven.runtime.id());
            let _entered = (!is_here).then(|| driven.runtime.enter());
            driven.poll(news)
        }));
        let mut state = self.lock();
        let end = match polled {
            Ok(Poll::Pending) => {
                state.habit.taken_up_by_other(driven.work.taken_up());
                if waits_for == WaitsFor::Message {
                    state.audience.delivered_by_guest(driven.work.delivered());
                }
                return self.put_back(driven, state);
            }
            Ok(Poll::Ready(())) => Place::Over,
            // It belongs to the task, where it would have happened otherwise, and not to whoever waits.
            Err(panic) => Place::Panicked(panic),
        };
        drop(state);
        // First the work, as in a task.
        drop(driven);
        state = self.lock();
        state.place = match state.place {
            Place::Forsaken => Place::Empty,
            _ => end,
        };
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }

    fn tell(&self, news: News) {
        let mut state = self.lock();
        if state.news >= news {
            // The task is on its way, or whoever has the work will see to it.
            return;
        }
        state.news = news;
        let (mut guest, mut caller, mut task, mut is_late) = (None, None, None, false);
        if let Place::Free(driven) = &state.place {
            if news == News::Any {
                let may_call = state.caller.is_some() && driven.work.is_shared();
                guest = state.audience.call();
                if may_call {
                    caller = state.caller.take();
                }
            }
            task = state.task_to_wake();
            is_late = news == News::Handles
                && task.is_some()
                && !state.audience.shares_thread
                && state.ringing.rings();
        }
        drop(state);
        // In this order: a runtime with one thread has them in a row.
        if let Some(guest) = guest {
            guest.wake();
        }
        if let Some(caller) = caller {
            caller.wake();
        }
        match task {
            Some(task) if is_late => wake_late(task),
            Some(task) => task.wake(),
            None => {}
        }
    }

    /// Waits for the answer to a call that was left for the work, and polls that itself where it may.
    pub(crate) async fn answered<A: Future + Unpin>(&self, mut answer: A) -> A::Output {
        let _caller = Caller(self);
        std::future::poll_fn(|cx| {
            // What the turn brings is found after it, and is not to wake anybody.
            let mut nobody = Context::from_waker(Waker::noop());
            if let Poll::Ready(answer) = Pin::new(&mut answer).poll(&mut nobody) {
                return Poll::Ready(answer);
            }
            self.drive_calling();
            let answer = Pin::new(&mut answer).poll(cx);
            if answer.is_pending() {
                self.admit_caller(cx);
            }
            answer
        })
        .await
    }

    /// Waits for the end of the spawned task, or until there is nothing more for it to do, and polls the work itself where it
    /// may.
    pub(crate) async fn ended<T: Future + Unpin>(&self, mut task: T) -> Option<T::Output> {
        let _caller = Caller(self);
        std::future::poll_fn(|cx| {
            self.drive_calling();
            if let Place::Over = self.lock().place {
                return Poll::Ready(None);
            }
            let ended = Pin::new(&mut task).poll(cx);
            if ended.is_pending() {
                self.admit_caller(cx);
            }
            ended.map(Some)
        })
        .await
    }

    fn drive_calling(&self) {
        let taken = self.lock().take_out_for_caller();
        if let Some((driven, news)) = taken {
            self.poll_for_other(driven, news, WaitsFor::Answer);
        }
    }

    /// Wakes this one beside the task, and before it, for what happens next. It is asked for nothing.
    fn admit_caller(&self, cx: &Context<'_>) {
        let mut state = self.lock();
        if !state.audience.shares_thread || matches!(state.place, Place::Over) {
            return;
        }
        let left = match &state.caller {
            Some(caller) if caller.will_wake(cx.waker()) => None,
            _ => state.caller.replace(cx.waker().clone()),
        };
        drop(state);
        drop(left);
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who waits for an answer, or has ceased to: then its waker, which may be all that is left of its task, is not kept. Another
/// one's would go with it, which is woken for its answer all the same.
struct Caller<'a, W: Work>(&'a Seat<W>);

impl<W: Work> Drop for Caller<'_, W> {
    fn drop(&mut self) {
        let left = self.0.lock().caller.take();
        drop(left);
    }
}

/// What another waits for who polls the work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    Receipt,
    Message,
    Answer,
}

impl<W: Work> Drive for Seat<W> {
    fn drive(&self, cx: &Context<'_>) {
        let mut state = self.lock();
        state.ringing.waits();
        let taken = state.take_out_for_publisher(cx.waker());
        drop(state);
        if let Some((driven, news)) = taken {
            self.poll_for_other(driven, news, WaitsFor::Receipt);
        }
    }

    fn drive_receiving(&self, cx: &Context<'_>) {
        let mut state = self.lock();
        if !state.audience.suggests(cx.waker()) {
            return;
        }
        let taken = match (state.audience.shares_thread, state.news) {
            (false, _) => state.take_out_for_successor(),
            (true, News::Any) => state.take_out_for_guest(),
            (true, _) => {
                let left = state.audience.admit(cx.waker());
                drop(state);
                // It is somebody else's, and so is what its destructor does.
                return drop(left);
            }
        };
        drop(state);
        if let Some((driven, news)) = taken {
            self.poll_for_other(driven, news, WaitsFor::Message);
        }
    }
}

impl<W: Work> Wake for Seat<W> {
    fn wake(self: Arc<Self>) {
        self.tell(News::Any);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.tell(News::Any);
    }
}

/// What the handles wake.
struct Bell<W>(Arc<Seat<W>>);

impl<W: Work> Wake for Bell<W> {
    fn wake(self: Arc<Self>) {
        self.0.tell(News::Handles);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.tell(News::Handles);
    }
}

impl<W> State<W> {
    /// The work and what there is to do, if it is to be polled.
    fn take_out(&mut self) -> Option<(Box<Driven<W>>, News)> {
        if self.news == News::None {
            return None;
        }
        match std::mem::replace(&mut self.place, Place::Out) {
            Place::Free(driven) => {
                self.has_yielded = false;
                Some((driven, std::mem::replace(&mut self.news, News::None)))
            }
            other => {
                self.place = other;
                None
            }
        }
    }

    /// The task, if there is something for it and it is not on its way. Whoever asks wakes it.
    fn task_to_wake(&mut self) -> Option<Waker> {
        if self.news == News::Any && self.ringing.is_overtaken() {
            self.is_task_called = false;
        }
        match self.place {
            Place::Free(_) if self.news > News::None && !self.is_task_called => {
                self.is_task_called = self.task.is_some();
                self.task.clone()
            }
            _ => None,
        }
    }
}

impl<W: Work> State<W> {
    fn is_shared(&self) -> bool {
        matches!(&self.place, Place::Free(driven) if driven.work.is_shared())
    }

    /// The work, if whoever has this waker may poll it now.
    fn take_out_for_publisher(&mut self, publisher: &Waker) -> Option<(Box<Driven<W>>, News)> {
        if !self.is_shared() || self.news == News::None || !self.habit.suggests(publisher) {
            return None;
        }
        self.take_out()
    }

    /// The work, if who waits for an answer may poll it now. Where there are several threads, the task is woken for it on one of
    /// them as well.
    fn take_out_for_caller(&mut self) -> Option<(Box<Driven<W>>, News)> {
        if self.news == News::None
            || !self.audience.shares_thread
            || !self.is_shared()
            || !self.audience.takes_turn()
        {
            return None;
        }
        self.take_out()
    }

    /// The work, if a subscriber may go on with what the last poll has left: what wakes the task for that comes later, and is
    /// then one wake too many. Only in a task, whose thread has others to see to when it waits in earnest.
    fn take_out_for_successor(&mut self) -> Option<(Box<Driven<W>>, News)> {
        let may_go_on = self.has_yielded && self.news == News::None && self.is_shared();
        if !may_go_on || tokio::task::try_id().is_none() || !self.audience.takes_turn() {
            return None;
        }
        // What is in its place is taken with this news, so that these cannot stay behind with nobody woken.
        self.news = News::Any;
        self.take_out()
    }

    /// The work, if a subscriber may poll it now.
    fn take_out_for_guest(&mut self) -> Option<(Box<Driven<W>>, News)> {
        if !self.is_shared() || !self.audience.takes_turn() {
            return None;
        }
        self.take_out()
    }
}

impl<W: Work> Driven<W> {
    fn poll(&mut self, news: News) -> Poll<()> {
        let mut cx = Context::from_waker(&self.waker);
        self.work.poll(&mut cx, &self.bell, news)
    }
}

/// The spawned task's hold on the work.
struct Running<W: Work>(Arc<Seat<W>>);

impl<W: Work> Drop for Running<W> {
    /// The task has ended, or is dropped with its runtime: the work, which has the sockets, goes too.
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let left = match state.place {
            Place::Out | Place::Forsaken => std::mem::replace(&mut state.place, Place::Forsaken),
            Place::Over => Place::Over,
            _ => std::mem::replace(&mut state.place, Place::Empty),
        };
        let wakers = (state.task.take(), state.caller.take());
        let audience = std::mem::take(&mut state.audience);
        drop(state);
        drop((left, wakers, audience));
    }
}

#[cfg(test)]
mod tests;
