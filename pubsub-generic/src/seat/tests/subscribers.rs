//! Who waits for messages, and takes them off the work by polling it.

use super::*;

/// A seat whose task has found one message after the other, and somebody who has waited for the last.
async fn audience() -> (
    Arc<Desk>,
    Arc<Seat<Clerk>>,
    tokio::task::JoinHandle<()>,
    Arc<Sleeper>,
) {
    let (desk, seat, task) = scene().await;
    for _ in 0..FRUITFUL_ENOUGH {
        desk.arrive().await.unwrap();
    }
    let sleeper = Arc::new(Sleeper::default());
    sleeper.waits_on(&seat);
    (desk, seat, task, sleeper)
}

fn has_guest(seat: &Seat<Clerk>) -> bool {
    seat.lock().audience.guest.is_some()
}

#[tokio::test]
async fn a_lone_subscriber_is_woken_for_what_arrives_and_takes_it_before_the_task() {
    let (desk, seat, task, sleeper) = audience().await;
    assert!(!has_guest(&seat), "there may be others");
    for turn in 1..=DRIVEN_BY_OTHERS as usize {
        sleeper.waits_on(&seat);
        drop(desk.leave());
        assert_eq!(
            sleeper.wakes(),
            turn - 1,
            "what handles leave is not for it"
        );
        let mut arrives = desk.arrive();
        assert_eq!(sleeper.wakes(), turn);
        assert!(arrives.try_recv().is_err());
        sleeper.waits_on(&seat);
        assert!(arrives.try_recv().is_ok());
        let news = seat.lock().news;
        assert_eq!(news, News::None, "there is nothing left for the task");
    }
    let waiting = desk.arrive();
    sleeper.waits_on(&seat);
    assert_eq!(seat.lock().news, News::Any, "the task has not run for long");
    waiting.await.unwrap();
    desk.close();
    task.await.unwrap();
}

#[tokio::test]
async fn who_is_woken_and_does_not_come_is_not_waited_for_nor_asked_soon_again() {
    let (desk, seat, task, sleeper) = audience().await;
    sleeper.waits_on(&seat);
    let by_others = desk.by_others.load(Ordering::SeqCst);
    desk.arrive().await.unwrap();
    assert_eq!(sleeper.wakes(), 1);
    for again in 1..FRUITFUL_ENOUGH {
        sleeper.waits_on(&seat);
        assert!(!has_guest(&seat), "{again}");
        desk.arrive().await.unwrap();
    }
    sleeper.waits_on(&seat);
    assert!(has_guest(&seat));
    assert_eq!(desk.by_others.load(Ordering::SeqCst), by_others);
    desk.close();
    task.await.unwrap();
}

#[tokio::test]
async fn who_finds_nothing_is_not_asked_soon_again() {
    let (desk, seat, task, sleeper) = audience().await;
    sleeper.waits_on(&seat);
    // Woken by something else than a message.
    seat.tell(News::Any);
    assert_eq!(sleeper.wakes(), 1);
    sleeper.waits_on(&seat);
    sleeper.waits_on(&seat);
    assert!(!has_guest(&seat));
    desk.close();
    task.await.unwrap();
}

#[tokio::test]
async fn several_who_wait_are_left_to_the_task() {
    let (desk, seat, task, one) = audience().await;
    let other = Arc::new(Sleeper::default());
    for _ in 0..10 {
        other.waits_on(&seat);
        one.waits_on(&seat);
        assert!(!has_guest(&seat));
        desk.arrive().await.unwrap();
    }
    assert_eq!((one.wakes(), other.wakes()), (0, 0));
    desk.close();
    task.await.unwrap();
}

#[test]
fn where_there_are_several_threads_the_task_receives() {
    let runtime = Builder::new_multi_thread().worker_threads(1).build();
    let runtime = runtime.unwrap();
    let (desk, seat, task, sleeper) = runtime.block_on(audience());
    sleeper.waits_on(&seat);
    assert!(!has_guest(&seat));
    runtime.block_on(desk.arrive()).unwrap();
    desk.close();
    runtime.block_on(task).unwrap();
}

/// How many in a row it was handed on here, at most.
fn longest_run(desk: &Desk, here: tokio::task::Id) -> usize {
    let flooded_in = desk.flooded_in.lock().unwrap();
    let runs = flooded_in.split(|task| *task != Some(here));
    runs.map(<[_]>::len).max().unwrap_or(0)
}

#[test]
fn where_there_are_several_threads_a_subscriber_goes_on_where_the_task_has_yielded() {
    const FLOOD: usize = 20_000;
    for threads in [1, 2] {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(threads).build().unwrap();
        let (desk, seat, task, _) = runtime.block_on(audience());
        desk.flood.store(FLOOD, Ordering::SeqCst);
        let there = (Arc::clone(&desk), Arc::clone(&seat));
        let subscriber = runtime.spawn(async move {
            let (desk, seat) = there;
            seat.tell(News::Any);
            // It is gone before the end, and what is left is the task's.
            std::future::poll_fn(|cx| {
                (0..100).for_each(|_| seat.drive_receiving(cx));
                if desk.flood.load(Ordering::SeqCst) <= FLOOD / 2 {
                    return Poll::Ready(());
                }
                // As if by a message, and so before the task.
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        });
        let here = subscriber.id();
        runtime.block_on(subscriber).unwrap();
        while desk.flood.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
        let longest = longest_run(&desk, here);
        assert!(longest <= DRIVEN_BY_OTHERS as usize, "{longest}");
        // With two, the other may have done all of it meanwhile.
        assert!(longest > 0 || threads == 2);
        assert_eq!(desk.flooded_in.lock().unwrap().len(), FLOOD);
        desk.close();
        runtime.block_on(task).unwrap();
    }
}

#[test]
fn outside_of_tasks_nobody_goes_on_where_there_are_several_threads() {
    let runtime = Builder::new_multi_thread().worker_threads(1).build();
    let runtime = runtime.unwrap();
    let (desk, seat, task, sleeper) = runtime.block_on(audience());
    desk.flood.store(1_000, Ordering::SeqCst);
    seat.tell(News::Any);
    while desk.flood.load(Ordering::SeqCst) > 0 {
        sleeper.waits_on(&seat);
    }
    assert_eq!(longest_run(&desk, task.id()), 1_000);
    desk.close();
    runtime.block_on(task).unwrap();
}

#[test]
fn nobodys_waker_is_kept_for_longer_than_the_next_wake_or_the_runtime() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let (desk, seat, _task, sleeper) = runtime.block_on(audience());
    sleeper.waits_on(&seat);
    assert_eq!(Arc::strong_count(&sleeper), 2);
    let _arrives = desk.arrive();
    assert_eq!((sleeper.wakes(), Arc::strong_count(&sleeper)), (1, 1));
    sleeper.waits_on(&seat);
    sleeper.waits_on(&seat);
    let other = Arc::new(Sleeper::default());
    other.waits_on(&seat);
    other.waits_on(&seat);
    assert_eq!(
        Arc::strong_count(&sleeper),
        1,
        "another is there in its place"
    );
    assert_eq!(Arc::strong_count(&other), 2);
    drop(runtime);
    assert_eq!(Arc::strong_count(&other), 1);
    other.waits_on(&seat);
    other.waits_on(&seat);
    assert_eq!(
        (Arc::strong_count(&seat), Arc::strong_count(&other)),
        (1, 1)
    );
}

#[tokio::test]
async fn a_panic_while_a_subscriber_drives_is_the_tasks() {
    let (desk, seat, task, sleeper) = audience().await;
    sleeper.waits_on(&seat);
    desk.panics.store(true, Ordering::SeqCst);
    let arrives = desk.arrive();
    sleeper.waits_on(&seat);
    assert!(arrives.await.is_err(), "the work took it along");
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(Arc::strong_count(&seat), 1, "nothing keeps it");
    assert_eq!(Arc::strong_count(&sleeper), 1);
}
