//! Who polls the connection's work: the task that was spawned for it, or, for a moment, whoever waits for it.
//!
//! The work is a future that one at a time takes out of its seat, polls and puts back. The spawned task does that when it is
//! woken. A lone publisher may do it too, as it begins to wait for its receipt: the message is then written, and mostly
//! settled, without a hop to the task and back. On a runtime with one thread that hop costs its root future two turns of
//! the runtime, as much as a third of the send.
//!
//! Whoever polls, the work sees one and the same waker, the seat's. So every socket, timer and queue that it
//! waits for goes on waking the seat, and the seat wakes the spawned task. What holds under the lock is:
//!
//! - *woken* is set by each wake, and cleared by taking the work out to poll it;
//! - where *woken* is set and the work is in its place, the spawned task has been woken since: by the wake itself, or,
//!   if the work was out then, by whoever put it back.
//!
//! The task, when it runs, polls the work if it is woken and in its place. If it is out, the task need not wait for it: should
//! there be more to do, it is woken again. So no wake is lost, nobody waits for the lock longer than it takes to move a pointer, and
//! code that is called by the work and comes back here finds the place empty and goes its way.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use pubsub_core::Drive;
use tokio::runtime::Handle;

/// What is driven.
pub(crate) trait Work: Future<Output = ()> + Unpin + Send + 'static {
    /// Whether others than the spawned task may poll it as it stands.
    fn is_shared(&self) -> bool;

    /// How many publishes the last poll has taken up.
    fn taken_up(&self) -> usize;
}

pub(crate) struct Seat<W>(Mutex<State<W>>);

struct State<W> {
    place: Place<W>,
    woken: bool,
    /// The spawned task.
    task: Option<Waker>,
    habit: Habit,
}

enum Place<W> {
    /// Before its beginning and after its end.
    Empty,
    Free(Driven<W>),
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
}

impl<W: Work> Seat<W> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            place: Place::Empty,
            woken: false,
            task: None,
            habit: Habit::default(),
        })))
    }

    /// The spawned task, on a tokio runtime, in which the work is made. However it ends, the work ends with it.
    pub(crate) async fn run(self: Arc<Self>, make: Box<dyn FnOnce() -> Box<W> + Send>) {
        let driven = Driven {
            work: make(),
            runtime: Handle::current(),
            waker: Waker::from(Arc::clone(&self)),
        };
        {
            let mut state = self.lock();
            state.place = Place::Free(driven);
            state.woken = true;
        }
        let running = Running(self);
        std::future::poll_fn(|cx| running.0.poll_in_task(cx)).await;
    }

    fn poll_in_task(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        match &mut state.task {
            Some(task) => task.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        let Some(mut driven) = state.take_out() else {
            return match std::mem::replace(&mut state.place, Place::Empty) {
                Place::Empty => Poll::Ready(()),
                Place::Panicked(panic) => {
                    drop(state);
                    resume_unwind(panic)
                }
                other => {
                    state.place = other;
                    Poll::Pending
                }
            };
        };
        drop(state);
        // A panic drops the work, and then ends the task.
        let polled = driven.poll();
        let mut state = self.lock();
        state.habit.taken_up_by_task(driven.work.taken_up());
        if polled.is_ready() {
            state.place = Place::Empty;
            drop(state);
            return polled;
        }
        self.put_back(driven, state);
        polled
    }

    /// Puts the work back, and wakes the task if there is more to do.
    fn put_back(&self, driven: Driven<W>, mut state: MutexGuard<'_, State<W>>) {
        if let Place::Forsaken = state.place {
            state.place = Place::Empty;
            drop(state);
            return drop(driven);
        }
        state.place = Place::Free(driven);
        let task = state.task_to_wake();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Work> Drive for Seat<W> {
    fn drive(&self, cx: &Context<'_>) {
        let Some(mut driven) = self.lock().take_out_for(cx.waker()) else {
            return;
        };
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let _entered = driven.runtime.enter();
            Pin::new(&mut *driven.work).poll(&mut Context::from_waker(&driven.waker))
        }));
        let mut state = self.lock();
        let end = match polled {
            Ok(Poll::Pending) => {
                state.habit.taken_up_by_other(driven.work.taken_up());
                return self.put_back(driven, state);
            }
            Ok(Poll::Ready(())) => Place::Empty,
            // It belongs to the task, where it would have happened otherwise, and not to whoever publishes.
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
}

impl<W: Work> Wake for Seat<W> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.woken {
            // The task is on its way, or whoever has the work will see to it.
            return;
        }
        state.woken = true;
        let task = state.task_to_wake();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<W> State<W> {
    /// The work, if it is to be polled.
    fn take_out(&mut self) -> Option<Driven<W>> {
        if !self.woken {
            return None;
        }
        match std::mem::replace(&mut self.place, Place::Out) {
            Place::Free(driven) => {
                self.woken = false;
                Some(driven)
            }
            other => {
                self.place = other;
                None
            }
        }
    }

    fn task_to_wake(&self) -> Option<Waker> {
        match self.place {
            Place::Free(_) if self.woken => self.task.clone(),
            _ => None,
        }
    }
}

impl<W: Work> State<W> {
    /// The work, if whoever has this waker may poll it now.
    fn take_out_for(&mut self, publisher: &Waker) -> Option<Driven<W>> {
        let is_shared = matches!(&self.place, Place::Free(driven) if driven.work.is_shared());
        if !is_shared || !self.woken || !self.habit.suggests(publisher) {
            return None;
        }
        self.take_out()
    }
}

impl<W: Work> Driven<W> {
    fn poll(&mut self) -> Poll<()> {
        Pin::new(&mut *self.work).poll(&mut Context::from_waker(&self.waker))
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
            _ => std::mem::replace(&mut state.place, Place::Empty),
        };
        let task = state.task.take();
        drop(state);
        drop((left, task));
    }
}

/// What the publishes so far say about the next one.
///
/// To drive is worthwhile for one that publishes, waits, and publishes again. Where several publish at a time, each would
/// write its own message, while the task, which runs after them, writes them all at once. So the last few times that
/// the task ran it must have found one publish, and all of them by the same publisher; and now and then it is left to
/// the task, to see whether that still holds. That also gives the other tasks of a runtime their turn, whatever the publisher does.
#[derive(Default)]
struct Habit {
    /// How often in a row the task found one publish, and not several.
    alone: u32,
    /// How often others may drive before the task is to look again.
    left: u32,
    /// Who began to wait last: the addresses behind its waker, which is not kept. Should another have the same by chance,
    /// it is taken for this one, and no harm done.
    publisher: (usize, usize),
}

/// So many times.
const ALONE_ENOUGH: u32 = 3;
/// The task's own turn comes once in so many publishes: its hop costs each of them next to nothing then, and a runtime with one
/// thread is kept for a fraction of a millisecond.
const DRIVEN_BY_OTHERS: u32 = 32;

impl Habit {
    fn taken_up_by_task(&mut self, publishes: usize) {
        match publishes {
            0 => return,
            1 => self.alone = self.alone.saturating_add(1),
            _ => self.alone = 0,
        }
        self.left = DRIVEN_BY_OTHERS;
    }

    fn taken_up_by_other(&mut self, publishes: usize) {
        if publishes > 1 {
            self.alone = 0;
        }
    }

    /// Whether whoever begins to wait had better drive.
    fn suggests(&mut self, publisher: &Waker) -> bool {
        let publisher = (
            publisher.data().addr(),
            std::ptr::from_ref(publisher.vtable()).addr(),
        );
        if std::mem::replace(&mut self.publisher, publisher) != publisher {
            return false;
        }
        if self.alone < ALONE_ENOUGH || self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use tokio::runtime::Builder;
    use tokio::sync::oneshot;

    use super::*;

    /// What the work and those who leave something for it have in common.
    #[derive(Default)]
    struct Desk {
        state: Mutex<(VecDeque<oneshot::Sender<()>>, Option<Waker>)>,
        done: AtomicUsize,
        is_closed: AtomicBool,
        panics: AtomicBool,
        /// Polls at a time, which are never two.
        polls: AtomicUsize,
        /// Polls that were not the task's.
        by_others: AtomicUsize,
        /// Told at the beginning of a poll, which then waits.
        gate: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
        dropped: AtomicUsize,
    }

    impl Desk {
        fn leave(&self) -> oneshot::Receiver<()> {
            let (sender, receiver) = oneshot::channel();
            let mut state = self.state.lock().unwrap();
            state.0.push_back(sender);
            let sleeper = state.1.take();
            drop(state);
            if let Some(sleeper) = sleeper {
                sleeper.wake();
            }
            receiver
        }

        fn close(&self) {
            self.is_closed.store(true, Ordering::SeqCst);
            drop(self.leave());
        }
    }

    struct Clerk {
        desk: Arc<Desk>,
        taken: usize,
    }

    impl Work for Clerk {
        fn is_shared(&self) -> bool {
            true
        }

        fn taken_up(&self) -> usize {
            // Whoever comes may drive.
            self.taken.min(1)
        }
    }

    impl Future for Clerk {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            let desk = Arc::clone(&self.desk);
            assert_eq!(desk.polls.fetch_add(1, Ordering::SeqCst), 0);
            if tokio::task::try_id().is_none() {
                desk.by_others.fetch_add(1, Ordering::SeqCst);
            }
            if let Some((inside, go_on)) = desk.gate.lock().unwrap().take() {
                inside.send(()).unwrap();
                go_on.recv().unwrap();
            }
            assert!(!desk.panics.load(Ordering::SeqCst), "as asked");
            self.taken = 0;
            loop {
                let mut state = desk.state.lock().unwrap();
                let Some(next) = state.0.pop_front() else {
                    state.1 = Some(cx.waker().clone());
                    break;
                };
                drop(state);
                self.taken += 1;
                desk.done.fetch_add(1, Ordering::SeqCst);
                let _ = next.send(());
            }
            desk.polls.fetch_sub(1, Ordering::SeqCst);
            match desk.is_closed.load(Ordering::SeqCst) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }
    }

    impl Drop for Clerk {
        fn drop(&mut self) {
            self.desk.dropped.fetch_add(1, Ordering::SeqCst);
            // Nobody is to wait for what was left.
            drop(std::mem::take(&mut *self.desk.state.lock().unwrap()));
        }
    }

    fn clerk(desk: &Arc<Desk>) -> Box<dyn FnOnce() -> Box<Clerk> + Send> {
        let desk = Arc::clone(desk);
        Box::new(move || Box::new(Clerk { desk, taken: 0 }))
    }

    /// Drives first, as a receipt does, and then waits for the task or another to have done it.
    async fn left(desk: &Desk, seat: &Seat<Clerk>) -> bool {
        let mut receiver = desk.leave();
        std::future::poll_fn(|cx| {
            seat.drive(cx);
            Pin::new(&mut receiver).poll(cx)
        })
        .await
        .is_ok()
    }

    /// Polls to the end on a thread without a runtime.
    fn on_no_runtime(future: impl Future) {
        struct Unpark(thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut future = std::pin::pin!(future);
        while future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
        {
            thread::park();
        }
    }

    #[test]
    fn no_wake_is_lost_between_many_who_drive() {
        const THREADS: usize = 4;
        const EACH: usize = 20_000;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        let (desk, seat) = (Arc::new(Desk::default()), Seat::new());
        let task = runtime.spawn(Arc::clone(&seat).run(clerk(&desk)));
        let all: Vec<_> = (0..THREADS)
            .map(|_| {
                let (desk, seat) = (Arc::clone(&desk), Arc::clone(&seat));
                let work = async move {
                    for _ in 0..EACH {
                        // One lost wake, and this would wait for ever.
                        assert!(left(&desk, &seat).await);
                    }
                };
                thread::spawn(move || on_no_runtime(work))
            })
            .collect();
        for thread in all {
            thread.join().unwrap();
        }
        assert_eq!(desk.done.load(Ordering::SeqCst), THREADS * EACH);
        assert!(desk.by_others.load(Ordering::SeqCst) > EACH / 100);
        desk.close();
        runtime.block_on(task).unwrap();
        assert_eq!(desk.dropped.load(Ordering::SeqCst), 1);
    }

    /// A seat whose work anybody may poll from here on, and its desk.
    async fn scene() -> (Arc<Desk>, Arc<Seat<Clerk>>, tokio::task::JoinHandle<()>) {
        let (desk, seat) = (Arc::new(Desk::default()), Seat::new());
        let task = tokio::spawn(Arc::clone(&seat).run(clerk(&desk)));
        for _ in 0..=ALONE_ENOUGH {
            assert!(left(&desk, &seat).await);
        }
        (desk, seat, task)
    }

    #[tokio::test]
    async fn who_drives_does_it_at_once_and_the_task_then_leaves_it() {
        let (desk, seat, task) = scene().await;
        for _ in 0..DRIVEN_BY_OTHERS / 2 {
            let mut receiver = desk.leave();
            std::future::poll_fn(|cx| {
                seat.drive(cx);
                assert!(receiver.try_recv().is_ok());
                Poll::Ready(())
            })
            .await;
        }
        assert!(!seat.lock().woken, "there is nothing left for the task");
        desk.close();
        task.await.unwrap();
        assert_eq!(desk.dropped.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_panic_of_the_work_is_the_tasks_whoever_drives() {
        let (desk, seat, task) = scene().await;
        desk.panics.store(true, Ordering::SeqCst);
        assert!(!left(&desk, &seat).await, "the work took it along");
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(desk.dropped.load(Ordering::SeqCst), 1);
        assert_eq!(Arc::strong_count(&seat), 1, "nothing keeps it");
    }

    #[test]
    fn a_runtime_that_goes_while_another_drives_takes_the_work_with_it() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let (desk, seat, task) = runtime.block_on(scene());
        let (inside, is_inside) = mpsc::channel();
        let (open, go_on) = mpsc::channel();
        *desk.gate.lock().unwrap() = Some((inside, go_on));
        let driving = thread::spawn({
            let (desk, seat) = (Arc::clone(&desk), Arc::clone(&seat));
            move || {
                let waits = desk.leave();
                on_no_runtime(std::future::poll_fn(|cx| {
                    // Twice, since the first time it is not known.
                    seat.drive(cx);
                    seat.drive(cx);
                    Poll::Ready(())
                }));
                drop(waits);
            }
        });
        is_inside.recv().unwrap();
        drop(runtime);
        assert_eq!(desk.dropped.load(Ordering::SeqCst), 0, "it is being polled");
        open.send(()).unwrap();
        driving.join().unwrap();
        assert_eq!(desk.dropped.load(Ordering::SeqCst), 1);
        assert_eq!(Arc::strong_count(&seat), 1, "nothing keeps it");
        assert!(task.is_finished());
    }
}
