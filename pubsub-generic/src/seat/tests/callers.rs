//! Who waits for the answer to a call, or for the end, and polls meanwhile.

use super::*;

/// Waits for an answer through this seat, as nobody comes to poll it but the test.
fn wait_once<A>(waits: Pin<&mut impl Future<Output = A>>, sleeper: &Arc<Sleeper>) -> Poll<A> {
    let waker = Waker::from(Arc::clone(sleeper));
    waits.poll(&mut Context::from_waker(&waker))
}

#[tokio::test]
async fn who_waits_for_an_answer_is_woken_before_the_task_and_gets_it_itself() {
    let (desk, seat, task) = scene().await;
    let by_others = desk.by_others.load(Ordering::SeqCst);
    let sleeper = Arc::new(Sleeper::default());
    let mut waits = Box::pin(seat.answered(desk.leave()));
    assert!(matches!(
        wait_once(waits.as_mut(), &sleeper),
        Poll::Ready(Ok(()))
    ));
    assert_eq!(sleeper.wakes(), 0, "it has not waited");

    let (answer, answered) = oneshot::channel();
    let mut waits = Box::pin(seat.answered(answered));
    assert!(wait_once(waits.as_mut(), &sleeper).is_pending());
    drop(desk.leave());
    assert_eq!(sleeper.wakes(), 0, "what other handles leave is not for it");
    let mut arrives = desk.arrive();
    assert_eq!(sleeper.wakes(), 1);
    assert!(wait_once(waits.as_mut(), &sleeper).is_pending());
    assert!(arrives.try_recv().is_ok());
    assert_eq!(seat.lock().news, News::None, "nothing is left for the task");
    assert_eq!(desk.by_others.load(Ordering::SeqCst), by_others + 2);
    answer.send(()).unwrap();
    assert_eq!(sleeper.wakes(), 2, "it is found by others, too");
    assert!(wait_once(waits.as_mut(), &sleeper).is_ready());
    desk.close();
    task.await.unwrap();
}

#[tokio::test]
async fn who_waits_for_an_answer_before_the_task_has_run_is_woken_like_the_others() {
    let (desk, seat) = (Arc::new(Desk::default()), Seat::new());
    let task = tokio::spawn(Arc::clone(&seat).run(Handle::current(), clerk(&desk)));
    let sleeper = Arc::new(Sleeper::default());
    let (_answer, answered) = oneshot::channel::<()>();
    let mut waits = Box::pin(seat.answered(answered));
    assert!(wait_once(waits.as_mut(), &sleeper).is_pending());
    tokio::task::yield_now().await;
    assert_eq!(sleeper.wakes(), 0, "nothing has arrived");
    let mut arrives = desk.arrive();
    assert_eq!(sleeper.wakes(), 1);
    assert!(wait_once(waits.as_mut(), &sleeper).is_pending());
    assert!(arrives.try_recv().is_ok());
    desk.close();
    task.await.unwrap();
}

#[tokio::test]
async fn who_waits_for_an_answer_and_does_not_come_is_not_waited_for() {
    let (desk, seat, task) = scene().await;
    let by_others = desk.by_others.load(Ordering::SeqCst);
    let sleeper = Arc::new(Sleeper::default());
    let (_answer, answered) = oneshot::channel::<()>();
    let mut waits = Box::pin(seat.answered(answered));
    assert!(wait_once(waits.as_mut(), &sleeper).is_pending());
    desk.arrive().await.unwrap();
    drop(waits);
    desk.arrive().await.unwrap();
    assert_eq!(desk.by_others.load(Ordering::SeqCst), by_others);
    assert_eq!((sleeper.wakes(), Arc::strong_count(&sleeper)), (1, 1));
    desk.close();
    task.await.unwrap();
}

#[test]
fn who_has_ceased_to_wait_for_an_answer_is_not_kept() {
    let one_thread = Builder::new_current_thread().build().unwrap();
    for runtime in [one_thread, two_threads()] {
        let (desk, seat, task) = runtime.block_on(scene());
        let sleeper = Arc::new(Sleeper::default());
        let (_answer, answered) = oneshot::channel::<()>();
        let mut waits = Box::pin(seat.answered(answered));
        assert!(wait_once(waits.as_mut(), &sleeper).is_pending());
        drop(waits);
        assert_eq!(Arc::strong_count(&sleeper), 1, "it was dropped");
        let (answer, answered) = oneshot::channel::<()>();
        let mut waits = Box::pin(seat.answered(answered));
        assert!(wait_once(waits.as_mut(), &sleeper).is_pending());
        answer.send(()).unwrap();
        assert!(wait_once(waits.as_mut(), &sleeper).is_ready());
        assert_eq!(Arc::strong_count(&sleeper), 1, "it has its answer");
        desk.close();
        runtime.block_on(task).unwrap();
    }
}

#[test]
fn where_there_are_several_threads_the_task_brings_the_answers() {
    let runtime = two_threads();
    let (desk, seat, task) = runtime.block_on(scene());
    let by_others = desk.by_others.load(Ordering::SeqCst);
    for _ in 0..1_000 {
        runtime.block_on(seat.answered(desk.leave())).unwrap();
        runtime.block_on(seat.answered(desk.arrive())).unwrap();
    }
    assert_eq!(desk.by_others.load(Ordering::SeqCst), by_others);
    desk.close();
    if let Some(ended) = runtime.block_on(seat.ended(task)) {
        ended.unwrap();
    }
    assert_eq!(desk.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn no_answer_is_lost_between_many_who_wait_for_theirs() {
    let (desk, seat, task) = scene().await;
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (desk, seat) = (Arc::clone(&desk), Arc::clone(&seat));
        all.spawn(async move {
            for _ in 0..1_000 {
                // One lost wake, and this would wait for ever.
                seat.answered(desk.leave()).await.unwrap();
                let arrives = desk.arrive();
                tokio::task::yield_now().await;
                seat.answered(arrives).await.unwrap();
            }
        });
    }
    all.join_all().await;
    desk.close();
    task.await.unwrap();
}

#[tokio::test]
async fn who_waits_for_the_end_may_bring_it_and_then_all_is_gone() {
    let (desk, seat, task) = scene().await;
    desk.close();
    let sleeper = Arc::new(Sleeper::default());
    let mut waits = Box::pin(seat.ended(task));
    // The task has not run.
    assert!(matches!(
        wait_once(waits.as_mut(), &sleeper),
        Poll::Ready(None)
    ));
    assert_eq!(desk.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_panic_while_the_end_is_waited_for_is_the_tasks() {
    let (desk, seat, task) = scene().await;
    desk.panics.store(true, Ordering::SeqCst);
    drop(desk.leave());
    let ended = seat.ended(task).await;
    assert!(ended.is_some_and(|ended| ended.unwrap_err().is_panic()));
    assert_eq!(desk.dropped.load(Ordering::SeqCst), 1);
}

#[test]
fn the_waker_of_who_waits_for_an_answer_goes_with_the_runtime() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let (_desk, seat, _task) = runtime.block_on(scene());
    let sleeper = Arc::new(Sleeper::default());
    let (_answer, answered) = oneshot::channel::<()>();
    let mut waits = Box::pin(seat.answered(answered));
    assert!(wait_once(waits.as_mut(), &sleeper).is_pending());
    // The answer has it, and the seat.
    assert_eq!(Arc::strong_count(&sleeper), 3);
    drop(runtime);
    assert_eq!(Arc::strong_count(&sleeper), 2);
}
