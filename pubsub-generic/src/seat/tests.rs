//! Who polls, when, and what becomes of it.

mod callers;
mod subscribers;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use tokio::runtime::{self, Builder, Runtime};
use tokio::sync::oneshot;

use super::habits::{ALONE_ENOUGH, DRIVEN_BY_OTHERS, FRUITFUL_ENOUGH};
use super::*;

/// What the work and those who leave something for it have in common.
#[derive(Default)]
struct Desk {
    /// What the handles have left, and whom they wake.
    left: Mutex<Tray>,
    /// What has arrived, and whom that wakes.
    arrived: Mutex<Tray>,
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
    /// Arrives at once, and a poll hands on one of them.
    flood: AtomicUsize,
    /// In which task each of these was handed on.
    flooded_in: Mutex<Vec<Option<tokio::task::Id>>>,
}

type Tray = (VecDeque<oneshot::Sender<()>>, Option<Waker>);

impl Desk {
    fn leave(&self) -> oneshot::Receiver<()> {
        Self::put(&self.left)
    }

    fn arrive(&self) -> oneshot::Receiver<()> {
        Self::put(&self.arrived)
    }

    fn put(tray: &Mutex<Tray>) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut tray = tray.lock().unwrap();
        tray.0.push_back(sender);
        let sleeper = tray.1.take();
        drop(tray);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        receiver
    }

    /// Does all that is there, and otherwise has this one woken for it.
    fn clear(&self, tray: &Mutex<Tray>, sleeper: &Waker) -> usize {
        let mut taken = 0;
        loop {
            let mut tray = tray.lock().unwrap();
            let Some(next) = tray.0.pop_front() else {
                tray.1 = Some(sleeper.clone());
                return taken;
            };
            drop(tray);
            taken += 1;
            self.done.fetch_add(1, Ordering::SeqCst);
            let _ = next.send(());
        }
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        drop(self.leave());
    }
}

struct Clerk {
    desk: Arc<Desk>,
    home: runtime::Id,
    taken_up: usize,
    delivered: usize,
    has_yielded: bool,
}

impl Work for Clerk {
    fn is_shared(&self) -> bool {
        true
    }

    fn taken_up(&self) -> usize {
        // Whoever comes may drive.
        self.taken_up.min(1)
    }

    fn delivered(&self) -> usize {
        self.delivered
    }

    fn has_yielded(&self) -> bool {
        self.has_yielded
    }

    fn poll(&mut self, cx: &mut Context<'_>, bell: &Waker, news: News) -> Poll<()> {
        let desk = Arc::clone(&self.desk);
        assert_eq!(desk.polls.fetch_add(1, Ordering::SeqCst), 0);
        assert!(news > News::None);
        assert_eq!(Handle::current().id(), self.home, "whoever polls");
        if tokio::task::try_id().is_none() {
            desk.by_others.fetch_add(1, Ordering::SeqCst);
        }
        if let Some((inside, go_on)) = desk.gate.lock().unwrap().take() {
            inside.send(()).unwrap();
            go_on.recv().unwrap();
        }
        assert!(!desk.panics.load(Ordering::SeqCst), "as asked");
        self.taken_up = desk.clear(&desk.left, bell);
        // What has not been told of is not there, or told of soon.
        self.delivered = match news {
            News::Any => desk.clear(&desk.arrived, cx.waker()),
            _ => 0,
        };
        self.has_yielded = false;
        let flood = desk.flood.load(Ordering::SeqCst);
        if flood > 0 && news == News::Any {
            let task = tokio::task::try_id();
            desk.flooded_in.lock().unwrap().push(task);
            desk.flood.store(flood - 1, Ordering::SeqCst);
            self.delivered += 1;
            self.has_yielded = flood > 1;
        }
        if self.has_yielded {
            let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
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
        drop(std::mem::take(&mut *self.desk.left.lock().unwrap()));
        drop(std::mem::take(&mut *self.desk.arrived.lock().unwrap()));
    }
}

fn clerk(desk: &Arc<Desk>) -> impl FnOnce() -> Box<Clerk> + Send + use<> {
    let desk = Arc::clone(desk);
    move || {
        Box::new(Clerk {
            desk,
            home: Handle::current().id(),
            taken_up: 0,
            delivered: 0,
            has_yielded: false,
        })
    }
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

/// Something arrives. Whoever waits for it drives first, each time that it is woken.
async fn received(desk: &Desk, seat: &Seat<Clerk>) -> bool {
    let mut receiver = desk.arrive();
    std::future::poll_fn(|cx| {
        seat.drive_receiving(cx);
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
    let task = runtime.spawn(Arc::clone(&seat).run(runtime.handle().clone(), clerk(&desk)));
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
    desk.close();
    runtime.block_on(task).unwrap();
    assert_eq!(desk.dropped.load(Ordering::SeqCst), 1);
}

/// A seat whose work anybody may poll from here on, and its desk.
async fn scene() -> (Arc<Desk>, Arc<Seat<Clerk>>, tokio::task::JoinHandle<()>) {
    let (desk, seat) = (Arc::new(Desk::default()), Seat::new());
    let task = tokio::spawn(Arc::clone(&seat).run(Handle::current(), clerk(&desk)));
    for _ in 0..=ALONE_ENOUGH {
        assert!(left(&desk, &seat).await);
    }
    (desk, seat, task)
}

fn two_threads() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_time().build().unwrap()
}

/// A seat on a runtime with two threads, which this one is none of: all rings from here on are late, unless somebody waits.
fn astray(runtime: &Runtime) -> (Arc<Desk>, Arc<Seat<Clerk>>, tokio::task::JoinHandle<()>) {
    let (desk, seat, task) = runtime.block_on(scene());
    rest(&desk, &seat);
    runtime.block_on(desk.leave()).unwrap();
    rest(&desk, &seat);
    (desk, seat, task)
}

/// Waits until the task sleeps.
fn rest(desk: &Desk, seat: &Seat<Clerk>) {
    let rests = || {
        let is_listening = desk.left.lock().unwrap().1.is_some();
        let state = seat.lock();
        let is_called = state.is_task_called || state.news > News::None;
        is_listening && !is_called && matches!(state.place, Place::Free(_))
    };
    while !rests() {
        thread::yield_now();
    }
}

#[test]
fn no_late_ring_is_lost_with_the_runtime_of_whoever_rang() {
    let runtime = two_threads();
    let (desk, seat, task) = astray(&runtime);
    for _ in 0..1_000 {
        let other = Builder::new_current_thread().build().unwrap();
        let mut left = None;
        other.block_on(async {
            left = Some(desk.leave());
            assert!(seat.lock().ringing.is_late);
        });
        // It has no other turn.
        drop(other);
        runtime.block_on(left.unwrap()).unwrap();
        rest(&desk, &seat);
    }
    // Without a runtime it comes through at once.
    on_no_runtime(desk.leave());
    desk.close();
    runtime.block_on(task).unwrap();
}

#[test]
fn what_else_happens_does_not_wait_for_a_late_ring() {
    let runtime = two_threads();
    let (desk, seat, task) = astray(&runtime);
    let other = Builder::new_current_thread().build().unwrap();
    other.block_on(async {
        let left = desk.leave();
        assert!(seat.lock().ringing.is_late);
        // This runtime gets no turn before.
        on_no_runtime(desk.arrive());
        on_no_runtime(left);
    });
    desk.close();
    runtime.block_on(task).unwrap();
}

#[test]
fn no_ring_of_a_burst_is_lost_on_two_threads() {
    const BURSTS: usize = 1_000;
    const EACH: usize = 40;
    let runtime = two_threads();
    let (desk, seat, task) = astray(&runtime);
    let before = desk.done.load(Ordering::SeqCst);
    let publishers: Vec<_> = (0..2)
        .map(|_| {
            let (desk, seat) = (Arc::clone(&desk), Arc::clone(&seat));
            runtime.spawn(async move {
                for _ in 0..BURSTS {
                    // As after a turn on the other thread, which it has whenever the runtime likes.
                    seat.lock().ringing.is_astray = true;
                    let burst: Vec<_> = (0..EACH).map(|_| desk.leave()).collect();
                    // Nobody drives, so that all is left to the task.
                    for left in burst {
                        left.await.unwrap();
                    }
                }
            })
        })
        .collect();
    for publisher in publishers {
        runtime.block_on(publisher).unwrap();
    }
    let done = desk.done.load(Ordering::SeqCst);
    assert_eq!(done - before, 2 * BURSTS * EACH);
    desk.close();
    runtime.block_on(task).unwrap();
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
    let news = seat.lock().news;
    assert_eq!(news, News::None, "there is nothing left for the task");
    desk.close();
    task.await.unwrap();
    assert_eq!(desk.dropped.load(Ordering::SeqCst), 1);
}

#[test]
fn whoever_drives_does_it_in_the_runtime_of_the_work() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let (desk, seat, task) = runtime.block_on(scene());
    let drive = || {
        let mut receiver = desk.leave();
        let cx = Context::from_waker(Waker::noop());
        // Twice, since the first time it is not known.
        seat.drive(&cx);
        seat.drive(&cx);
        assert!(receiver.try_recv().is_ok());
    };
    drive();
    Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(async { drive() });
    runtime.block_on(async { drive() });
    desk.close();
    runtime.block_on(task).unwrap();
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

#[test]
fn no_wake_is_lost_between_many_who_receive() {
    const THREADS: usize = 3;
    const EACH: usize = 10_000;
    let runtime = Builder::new_current_thread().build().unwrap();
    let (desk, seat) = (Arc::new(Desk::default()), Seat::new());
    let task = runtime.spawn(Arc::clone(&seat).run(runtime.handle().clone(), clerk(&desk)));
    let work = |waits: usize| {
        let (desk, seat) = (Arc::clone(&desk), Arc::clone(&seat));
        async move {
            for at in 0..EACH {
                // One lost wake, and this would wait for ever.
                assert!(match (at / 100 + waits) % 3 {
                    0 => left(&desk, &seat).await,
                    _ => received(&desk, &seat).await,
                });
            }
        }
    };
    let all: Vec<_> = (0..THREADS)
        .map(|waits| {
            let work = work(waits);
            thread::spawn(move || on_no_runtime(work))
        })
        .collect();
    runtime.block_on(work(THREADS));
    let joined = runtime.spawn_blocking(move || all.into_iter().all(|all| all.join().is_ok()));
    assert!(runtime.block_on(joined).unwrap());
    assert_eq!(desk.done.load(Ordering::SeqCst), (THREADS + 1) * EACH);
    desk.close();
    runtime.block_on(task).unwrap();
    assert_eq!(desk.dropped.load(Ordering::SeqCst), 1);
    assert_eq!(Arc::strong_count(&seat), 1, "nothing keeps it");
}

/// Somebody who is woken.
#[derive(Default)]
struct Sleeper(AtomicUsize);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Sleeper {
    fn wakes(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn waits_on(self: &Arc<Self>, seat: &Seat<Clerk>) {
        let waker = Waker::from(Arc::clone(self));
        seat.drive_receiving(&Context::from_waker(&waker));
    }
}

#[tokio::test]
async fn the_task_is_woken_once_for_all_that_comes_before_it_runs() {
    let (desk, seat) = (Arc::new(Desk::default()), Seat::new());
    let mut task = Box::pin(Arc::clone(&seat).run(Handle::current(), clerk(&desk)));
    let sleeper = Arc::new(Sleeper::default());
    let waker = Waker::from(Arc::clone(&sleeper));
    let mut cx = Context::from_waker(&waker);
    assert!(task.as_mut().poll(&mut cx).is_pending());
    let mut wakes = 0;
    for _ in 0..ALONE_ENOUGH {
        drop(desk.leave());
        drop(desk.arrive());
        wakes += 1;
        assert_eq!(sleeper.wakes(), wakes);
        assert!(task.as_mut().poll(&mut cx).is_pending());
    }
    // Somebody else does it, the second time since the first it is not known. What comes then is found by the task, which
    // is still on its way.
    let mut first = desk.leave();
    seat.drive(&cx);
    seat.drive(&cx);
    assert!(first.try_recv().is_ok());
    let mut second = desk.leave();
    assert_eq!(sleeper.wakes(), wakes + 1);
    assert!(task.as_mut().poll(&mut cx).is_pending());
    assert!(second.try_recv().is_ok());
}
