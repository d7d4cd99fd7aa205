//! Who does the connection's work while publishers and subscribers wait: how often it reads and writes, who else gets a
//! turn, and how it ends.
#![allow(missing_docs, reason = "tests")]

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use bytes::Bytes;
use pubsub_core::{
    BoxFuture, Delivered, Provider, PubSub, PublishError, Publishing, QoS, Subscription,
};
use pubsub_generic::{
    Attempt, Connect, ConnectError, DEFAULT_NAME, MqttOptions, MqttProvider, Opened, Received,
    Transport, TransportError,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Barrier;

/// A broker that answers at once, and knows who writes to it.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    to_client: VecDeque<Bytes>,
    reader: Option<Waker>,
    publishes: usize,
    unflushed: usize,
    /// Flushes that wrote something, and those of them outside of any task.
    writes: usize,
    writes_at_root: usize,
    /// Done within the next write.
    trap: Option<Box<dyn FnOnce() + Send>>,
    /// Done within the next read that brings something.
    read_trap: Option<Box<dyn FnOnce() + Send>>,
    /// Reads that brought something, and in which task.
    readers: Vec<Option<tokio::task::Id>>,
    /// PUBACK packets.
    acknowledged: usize,
    /// Transports that are open.
    open: usize,
}

impl Wire {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn writes(&self) -> usize {
        self.state().writes
    }

    /// Has something arrive.
    fn bring(&self, packets: impl IntoIterator<Item = Bytes>) {
        let mut state = self.state();
        state.to_client.extend(packets);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn acknowledged(&self) -> usize {
        self.state().acknowledged
    }

    /// How many of the reads since there were so many brought something in this task, or outside of any.
    fn reads_in(&self, task: Option<tokio::task::Id>, since: usize) -> usize {
        let readers = &self.state().readers[since..];
        readers.iter().filter(|reader| **reader == task).count()
    }

    fn reads(&self) -> usize {
        self.state().readers.len()
    }
}

struct Socket(Wire);

impl Connect for Wire {
    fn connect<'a>(&'a self, _: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>> {
        self.state().open += 1;
        Box::pin(async { Ok(Opened::new(Socket(self.clone()))) })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.state().open -= 1;
    }
}

impl Transport for Socket {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<Result<Received, TransportError>> {
        let mut state = self.0.state();
        chunks.extend(state.to_client.drain(..));
        if chunks.is_empty() {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.readers.push(tokio::task::try_id());
        let trap = state.read_trap.take();
        drop(state);
        if let Some(trap) = trap {
            trap();
        }
        Poll::Ready(Ok(Received::Chunks))
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(&mut self, packet: Bytes) -> Result<(), TransportError> {
        let mut state = self.0.state();
        state.unflushed += 1;
        let id = || {
            let at = 4 + usize::from(packet[3]);
            [packet[at], packet[at + 1]]
        };
        let answer = match packet[0] {
            0x10 => Some(vec![0x20, 2, 0, 0]),
            0x32 => Some([&[0x40, 2], &id()[..]].concat()),
            0x34 => Some([&[0x50, 2], &id()[..]].concat()),
            0x62 => Some(vec![0x70, 2, packet[2], packet[3]]),
            // One filter each, the last byte of which is the QoS.
            0x82 => Some(vec![
                0x90,
                3,
                packet[2],
                packet[3],
                packet[packet.len() - 1],
            ]),
            0xa2 => Some(vec![0xb0, 2, packet[2], packet[3]]),
            _ => None,
        };
        state.acknowledged += usize::from(packet[0] == 0x40);
        state.to_client.extend(answer.map(Bytes::from));
        if packet[0] & 0xf0 == 0x30 {
            state.publishes += 1;
            let trap = state.trap.take();
            drop(state);
            if let Some(trap) = trap {
                trap();
            }
        }
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let mut state = self.0.state();
        if std::mem::take(&mut state.unflushed) > 0 {
            state.writes += 1;
            state.writes_at_root += usize::from(tokio::task::try_id().is_none());
        }
        let reader = (!state.to_client.is_empty())
            .then(|| state.reader.take())
            .flatten();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }
}

struct Scene {
    wire: Wire,
    pubsub: Arc<PubSub>,
    provider: Arc<MqttProvider>,
}

fn scene() -> Scene {
    let wire = Wire::default();
    let options = MqttOptions::without_url().client_id("me");
    let provider = Arc::new(MqttProvider::with_connect(options, wire.clone()).unwrap());
    let pubsub = Arc::new(PubSub::new());
    pubsub
        .add_provider(DEFAULT_NAME, Arc::clone(&provider))
        .unwrap();
    Scene {
        wire,
        pubsub,
        provider,
    }
}

/// A message on a topic of one letter, with its number as payload.
fn message(topic: u8, number: u32) -> Bytes {
    let [a, b, c, d] = number.to_be_bytes();
    Bytes::from(vec![0x30, 7, 0, 1, topic, a, b, c, d])
}

/// The same at QoS 1.
fn message_to_confirm(topic: u8, id: u8) -> Bytes {
    Bytes::from(vec![0x32, 5, 0, 1, topic, 0, id])
}

/// The number of the next message.
async fn next(messages: &mut Subscription) -> u32 {
    let message = messages.next().await.unwrap().unwrap();
    u32::from_be_bytes(message.payload[..].try_into().unwrap())
}

fn send(pubsub: &PubSub) -> Publishing {
    pubsub.publish("a", "x").send()
}

/// One after another, until it is known that there is but one publisher.
async fn alone(pubsub: &PubSub) {
    for _ in 0..10 {
        pubsub.publish("a", "x").await.unwrap();
    }
}

#[tokio::test]
async fn a_lone_publisher_writes_by_itself() {
    let Scene { wire, pubsub, .. } = scene();
    alone(&pubsub).await;
    let before = (wire.writes(), wire.state().writes_at_root);
    for _ in 0..1_000 {
        pubsub.publish("a", "x").await.unwrap();
    }
    assert_eq!(wire.writes() - before.0, 1_000, "each is flushed");
    assert!(wire.state().writes_at_root - before.1 > 900);
    for (qos, delivered) in [
        (QoS::AtLeastOnce, Delivered::Confirmed),
        (QoS::ExactlyOnce, Delivered::Confirmed),
    ] {
        for _ in 0..100 {
            let outcome = pubsub.publish("a", "x").qos(qos).await;
            assert_eq!(outcome.unwrap(), delivered);
        }
    }
}

#[tokio::test]
async fn what_was_queued_goes_in_one_write() {
    let Scene { wire, pubsub, .. } = scene();
    for _ in 0..10 {
        alone(&pubsub).await;
        let before = wire.writes();
        let all: Vec<_> = (0..1_000).map(|_| send(&pubsub)).collect();
        for one in all {
            one.await.unwrap();
        }
        assert_eq!(wire.writes() - before, 1);
    }
}

/// Tasks that publish at the same time share writes, as they did before anybody but the driver's task wrote: two of them
/// alternate, or a hundred come at once, after one alone or after each other.
#[tokio::test]
async fn what_many_publish_at_a_time_is_written_together() {
    const TASKS: usize = 100;
    const TURNS: usize = 50;
    let Scene { wire, pubsub, .. } = scene();
    for tasks in [TASKS, 2] {
        alone(&pubsub).await;
        let before = wire.writes();
        let barrier = Arc::new(Barrier::new(tasks));
        let all: Vec<_> = (0..tasks)
            .map(|_| {
                let (pubsub, barrier) = (Arc::clone(&pubsub), Arc::clone(&barrier));
                tokio::spawn(async move {
                    for _ in 0..TURNS {
                        barrier.wait().await;
                        pubsub.publish("a", "x").await.unwrap();
                    }
                })
            })
            .collect();
        for task in all {
            task.await.unwrap();
        }
        let writes = wire.writes() - before;
        assert!(writes <= TURNS + 1, "{tasks}: {writes} writes");
    }
}

#[tokio::test]
async fn many_in_one_task_soon_share_writes_again() {
    let Scene { wire, pubsub, .. } = scene();
    alone(&pubsub).await;
    let before = wire.writes();
    for _ in 0..1_000 {
        let publish = || async { pubsub.publish("a", "x").await.unwrap() };
        tokio::join!(publish(), publish(), publish());
    }
    let writes = wire.writes() - before;
    assert!(writes < 1_100, "{writes}");
}

#[tokio::test]
async fn others_get_their_turn_whatever_a_publisher_does() {
    let Scene { pubsub, .. } = scene();
    alone(&pubsub).await;
    let turns = Arc::new(AtomicUsize::new(0));
    let other = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    for _ in 0..1_000 {
        pubsub.publish("a", "x").await.unwrap();
    }
    assert!(turns.load(Ordering::Relaxed) >= 1_000 / 40);
    other.abort();
}

#[tokio::test]
async fn what_nobody_waits_for_is_sent() {
    let Scene { wire, pubsub, .. } = scene();
    alone(&pubsub).await;
    let before = wire.state().publishes;
    drop(send(&pubsub));
    let kept = send(&pubsub);
    std::mem::forget(send(&pubsub));
    while wire.state().publishes < before + 3 {
        tokio::task::yield_now().await;
    }
    kept.await.unwrap();
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls to the end on this thread, without a runtime.
fn on_no_runtime<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_publisher_may_be_on_another_runtime_or_on_none() {
    let Scene {
        wire,
        pubsub,
        provider,
    } = scene();
    let runtime = runtime();
    runtime.block_on(provider.connect()).unwrap();
    let publish = async {
        for at in 0..2_000 {
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][at % 3];
            pubsub.publish("a", "x").qos(qos).await.unwrap();
        }
    };
    on_no_runtime(publish);
    let other = Builder::new_current_thread().build().unwrap();
    other.block_on(alone(&pubsub));
    assert_eq!(wire.state().publishes, 2_010);
    runtime.block_on(pubsub.close()).unwrap();
    assert_eq!(wire.state().open, 0);
}

#[tokio::test]
async fn a_panic_ends_the_provider_and_not_the_publisher() {
    let Scene {
        wire,
        pubsub,
        provider,
    } = scene();
    alone(&pubsub).await;
    wire.state().trap = Some(Box::new(|| panic!("as asked")));
    let outcome = pubsub.publish("a", "x").await;
    assert!(matches!(outcome, Err(PublishError::Indeterminate(_))));
    let outcome = pubsub.publish("a", "x").await;
    assert!(matches!(outcome, Err(PublishError::NotSent(_))));
    assert_eq!(wire.state().open, 0);
    assert!(provider.close().await.is_err());
}

#[test]
fn the_socket_goes_with_the_runtime_whoever_keeps_handles() {
    let Scene { wire, pubsub, .. } = scene();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(alone(&pubsub));
    let kept = send(&pubsub);
    assert_eq!(wire.state().open, 1);
    drop(runtime);
    assert_eq!(wire.state().open, 0);
    let outcome = on_no_runtime(kept);
    assert!(matches!(
        outcome,
        Err(PublishError::NotSent(_) | PublishError::Indeterminate(_))
    ));
}

#[tokio::test]
async fn the_socket_goes_with_the_last_handle_whoever_keeps_receipts() {
    let Scene {
        wire,
        pubsub,
        provider,
    } = scene();
    alone(&pubsub).await;
    let kept = send(&pubsub);
    drop((pubsub, provider));
    while wire.state().open > 0 {
        tokio::task::yield_now().await;
    }
    let _ = kept.await;
    assert_eq!(Arc::strong_count(&wire.0), 1, "nothing keeps the provider");
}

/// What the work calls may publish itself, and wait for it as far as it can.
#[tokio::test]
async fn the_work_may_come_back_to_itself() {
    let Scene { wire, pubsub, .. } = scene();
    alone(&pubsub).await;
    let slot = Arc::new(Mutex::new(None));
    let trap = {
        let (pubsub, slot) = (Arc::clone(&pubsub), Arc::clone(&slot));
        move || {
            let mut inner = send(&pubsub);
            let polled = Pin::new(&mut inner).poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
            *slot.lock().unwrap() = Some(inner);
        }
    };
    wire.state().trap = Some(Box::new(trap));
    pubsub.publish("a", "x").await.unwrap();
    let inner = slot.lock().unwrap().take().unwrap();
    inner.await.unwrap();
}

#[tokio::test]
async fn a_lone_subscriber_reads_by_itself() {
    let Scene { wire, pubsub, .. } = scene();
    let mut messages = pubsub.subscribe("a").await.unwrap();
    let before = wire.reads();
    for number in 0..1_000 {
        wire.bring([message(b'a', number)]);
        assert_eq!(next(&mut messages).await, number);
    }
    assert_eq!(wire.reads() - before, 1_000);
    assert!(wire.reads_in(None, before) > 900);
}

/// As a socket does: it wakes while the runtime waits.
#[test]
fn who_is_woken_with_the_task_reads_before_it() {
    const MESSAGES: u32 = 1_000;
    let Scene { wire, pubsub, .. } = scene();
    let next_number = Arc::new(Mutex::new(0..0));
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_park({
            let (wire, next_number) = (wire.clone(), Arc::clone(&next_number));
            move || {
                let number = next_number.lock().unwrap().next();
                wire.bring(number.map(|number| message(b'a', number)));
            }
        })
        .build()
        .unwrap();
    let receive = {
        let next_number = Arc::clone(&next_number);
        async move || {
            let mut messages = pubsub.subscribe("a").await.unwrap();
            *next_number.lock().unwrap() = 0..MESSAGES;
            for number in 0..MESSAGES {
                assert_eq!(next(&mut messages).await, number);
            }
            tokio::task::try_id()
        }
    };
    runtime.block_on(async {
        let before = wire.reads();
        assert_eq!(receive().await, None);
        assert!(wire.reads_in(None, before) > 900);
        let before = wire.reads();
        let task = tokio::spawn(async move { receive().await }).await.unwrap();
        assert!(wire.reads_in(task, before) > 900);
    });
}

#[tokio::test]
async fn others_get_their_turn_whatever_a_subscriber_receives() {
    let Scene { wire, pubsub, .. } = scene();
    let mut messages = pubsub.subscribe("a").await.unwrap();
    let turns = Arc::new(AtomicUsize::new(0));
    let other = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    for number in 0..1_000 {
        wire.bring([message(b'a', number)]);
        assert_eq!(next(&mut messages).await, number);
    }
    assert!(turns.load(Ordering::Relaxed) >= 1_000 / 40);
    other.abort();
}

#[tokio::test]
async fn streams_of_one_task_find_what_is_theirs_whichever_drives() {
    let Scene { wire, pubsub, .. } = scene();
    let mut numbers = [(b'a', 0), (b'b', 0)];
    let mut a = pubsub.subscribe("a").await.unwrap();
    let mut b = pubsub.subscribe("b").await.unwrap();
    for turn in 0..1_000 {
        let (topic, number) = &mut numbers[turn / 3 % 2];
        wire.bring([message(*topic, *number)]);
        let found = tokio::select! {
            found = next(&mut a) => (b'a', found),
            found = next(&mut b) => (b'b', found),
        };
        assert_eq!(found, (*topic, *number));
        *number += 1;
    }
}

/// A subscriber that drives, and another in a task of its own, for which messages come when the first has ceased to wait: it is
/// polled no more, though it exists, and then it exists no more.
#[tokio::test]
async fn who_ceases_to_wait_leaves_nothing_undone() {
    let Scene { wire, pubsub, .. } = scene();
    let mut first = pubsub.subscribe("a").await.unwrap();
    let mut other = pubsub.subscribe("b").qos(QoS::AtLeastOnce).await.unwrap();
    let other = tokio::spawn(async move {
        for _ in 0..20 {
            other.next().await.unwrap().unwrap();
        }
    });
    let mut acknowledged = 0;
    for round in 0..20 {
        for number in 0..10 {
            wire.bring([message(b'a', number)]);
            assert_eq!(next(&mut first).await, number);
        }
        {
            let mut next = pin!(first.next());
            let waits = std::future::poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_pending()));
            assert!(waits.await);
        }
        if round % 2 == 1 {
            drop(first);
            first = pubsub.subscribe("a").await.unwrap();
        }
        wire.bring([message_to_confirm(b'b', 1)]);
        acknowledged += 1;
        while wire.acknowledged() < acknowledged {
            tokio::task::yield_now().await;
        }
        pubsub.publish("a", "x").await.unwrap();
    }
    other.await.unwrap();
}

#[tokio::test]
async fn what_one_read_brings_is_acknowledged_in_one_write() {
    let Scene { wire, pubsub, .. } = scene();
    let mut messages = pubsub.subscribe("a").qos(QoS::AtLeastOnce).await.unwrap();
    let (reads, writes) = (wire.reads(), wire.writes());
    for window in 1..=100 {
        wire.bring((1..=20).map(|id| message_to_confirm(b'a', id)));
        for _ in 0..20 {
            messages.next().await.unwrap().unwrap();
        }
        while wire.acknowledged() < window * 20 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!((wire.reads() - reads, wire.writes() - writes), (100, 100));
    assert!(wire.reads_in(None, reads) > 80);
}

#[test]
fn subscribers_may_be_on_several_threads() {
    const MESSAGES: u32 = 2_000;
    let Scene {
        wire,
        pubsub,
        provider,
    } = scene();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let topics = [b'a', b'b', b'c'];
    let streams = topics.map(|topic| {
        let filter = std::str::from_utf8(&[topic]).unwrap().to_owned();
        runtime.block_on(async { pubsub.subscribe(filter.as_str()).await.unwrap() })
    });
    let receive = |topic, mut messages| {
        let wire = wire.clone();
        async move {
            for number in 0..MESSAGES {
                wire.bring([message(topic, number)]);
                assert_eq!(next(&mut messages).await, number);
            }
        }
    };
    let all: Vec<_> = topics
        .into_iter()
        .zip(streams)
        .map(|(topic, messages)| {
            let work = receive(topic, messages);
            thread::spawn(move || on_no_runtime(work))
        })
        .collect();
    let joined = runtime.spawn_blocking(move || all.into_iter().all(|one| one.join().is_ok()));
    assert!(runtime.block_on(joined).unwrap());
    runtime.block_on(provider.close()).unwrap();
    assert_eq!(wire.state().open, 0);
}

/// What the work calls may wait for messages itself, as far as it can.
#[tokio::test]
async fn the_work_may_come_back_to_itself_for_messages() {
    let Scene { wire, pubsub, .. } = scene();
    let mut messages = pubsub.subscribe("a").await.unwrap();
    let mut others = pubsub.subscribe("b").await.unwrap();
    for number in 0..10 {
        wire.bring([message(b'a', number)]);
        assert_eq!(next(&mut messages).await, number);
    }
    let (told, tells) = std::sync::mpsc::channel();
    wire.state().read_trap = Some(Box::new(move || {
        let mut next = pin!(others.next());
        let polled = next.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        told.send(polled.is_pending()).unwrap();
    }));
    wire.bring([message(b'a', 10)]);
    assert_eq!(next(&mut messages).await, 10);
    assert!(tells.recv().unwrap());
}

#[tokio::test]
async fn a_panic_ends_the_provider_and_not_the_subscriber() {
    let Scene {
        wire,
        pubsub,
        provider,
    } = scene();
    let mut messages = pubsub.subscribe("a").await.unwrap();
    for number in 0..10 {
        wire.bring([message(b'a', number)]);
        assert_eq!(next(&mut messages).await, number);
    }
    wire.state().read_trap = Some(Box::new(|| panic!("as asked")));
    wire.bring([message(b'a', 10)]);
    assert!(!matches!(messages.next().await, Some(Ok(_))));
    assert_eq!(wire.state().open, 0);
    assert!(provider.close().await.is_err());
}
