//! What a message costs in allocations, from the transport to the subscriber's stream and from a publish to the transport.
#![allow(missing_docs, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use pubsub_core::{BoxFuture, PubSub, QoS, Subscription, TopicName};
use pubsub_generic::{
    Attempt, Connect, ConnectError, DEFAULT_NAME, MqttOptions, MqttProvider, Opened, Received,
    Transport, TransportError,
};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands every call to the system's allocator as it came, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const TOPIC: &str = "devices/17/temperature";
const FILTER: &str = "devices/+/temperature";
/// What is measured, after as much that is not.
const MESSAGES: usize = 10_000;

/// A broker that answers at once, and allocates nothing once it runs.
#[derive(Clone)]
struct Broker(Arc<Mutex<State>>);

struct State {
    to_client: VecDeque<Bytes>,
    /// A PUBACK for each identifier.
    acks: Vec<Bytes>,
    /// What it floods the client with, and how often yet.
    publish: Bytes,
    left: usize,
    waker: Option<Waker>,
}

/// What one read brings at most.
const CHUNKS_A_READ: usize = 64;

impl Broker {
    fn new(publish: Bytes) -> Self {
        let acks = (0..=2_000_u16).map(|id| {
            let [high, low] = id.to_be_bytes();
            Bytes::from(vec![0x40, 2, high, low])
        });
        let state = State {
            to_client: VecDeque::with_capacity(4_096),
            acks: acks.collect(),
            publish,
            left: 0,
            waker: None,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn flood(&self, messages: usize) {
        let mut state = self.0.lock().unwrap();
        state.left = messages;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

impl Connect for Broker {
    fn connect<'a>(&'a self, _: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>> {
        Box::pin(async { Ok(Opened::new(self.clone())) })
    }
}

impl Transport for Broker {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<Result<Received, TransportError>> {
        let mut state = self.0.lock().unwrap();
        while chunks.len() < CHUNKS_A_READ
            && let Some(answer) = state.to_client.pop_front()
        {
            chunks.push(answer);
        }
        let flood = state.left.min(CHUNKS_A_READ - chunks.len());
        state.left -= flood;
        chunks.extend((0..flood).map(|_| state.publish.clone()));
        if chunks.is_empty() {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(Received::Chunks))
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(&mut self, packet: Bytes) -> Result<(), TransportError> {
        let mut state = self.0.lock().unwrap();
        let answer = match packet[0] {
            0x10 => Bytes::from_static(&[0x20, 2, 0, 0]),
            0x82 => Bytes::from(vec![0x90, 3, packet[2], packet[3], 1]),
            0x32 => {
                let id = 4 + usize::from(packet[3]);
                let id = u16::from_be_bytes([packet[id], packet[id + 1]]);
                state.acks[usize::from(id)].clone()
            }
            _ => return Ok(()),
        };
        state.to_client.push_back(answer);
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let mut state = self.0.lock().unwrap();
        if !state.to_client.is_empty()
            && let Some(waker) = state.waker.take()
        {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }
}

fn client(qos: u8) -> (PubSub, Broker) {
    let mut packet = vec![0x30 | qos << 1, 0, 0, 22];
    packet.extend_from_slice(TOPIC.as_bytes());
    if qos > 0 {
        packet.extend_from_slice(&[0, 1]);
    }
    packet.extend_from_slice(&[b'x'; 64]);
    packet[1] = u8::try_from(packet.len() - 2).unwrap();
    let broker = Broker::new(packet.into());
    let options = MqttOptions::without_url().client_id("me");
    let provider = MqttProvider::with_connect(options, broker.clone()).unwrap();
    let pubsub = PubSub::new();
    pubsub.add_provider(DEFAULT_NAME, provider).unwrap();
    (pubsub, broker)
}

async fn receive(messages: &mut Subscription, broker: &Broker) {
    broker.flood(MESSAGES);
    for _ in 0..MESSAGES {
        let message = messages.next().await.unwrap().unwrap();
        assert_eq!(message.payload.len(), 64);
    }
    assert_eq!(messages.stats().dropped, 0);
}

/// Publishes with so many receipts awaited at a time.
async fn publish(pubsub: &PubSub, qos: QoS, window: usize) {
    let topic = TopicName::new(TOPIC).unwrap();
    let payload = Bytes::from_static(&[b'x'; 64]);
    let mut waiting = VecDeque::with_capacity(window);
    for _ in 0..MESSAGES {
        if waiting.len() == window
            && let Some(oldest) = waiting.pop_front()
        {
            let oldest: pubsub_core::Publishing = oldest;
            oldest.await.unwrap();
        }
        let publish = pubsub.publish(&topic, payload.clone());
        waiting.push_back(publish.qos(qos).send());
    }
    for receipt in waiting {
        receipt.await.unwrap();
    }
}

/// Allocations a thousand messages, the second time.
macro_rules! a_thousand {
    ($work:expr) => {{
        $work.await;
        let before = ALLOCATIONS.get();
        $work.await;
        (ALLOCATIONS.get() - before) * 1_000 / MESSAGES
    }};
}

#[tokio::test]
async fn a_received_message_allocates_nothing_of_its_own() {
    for qos in [0, 1] {
        let (pubsub, broker) = client(qos);
        let subscribe = pubsub.subscribe(FILTER).qos(QoS::AtLeastOnce);
        let mut messages = subscribe.await.unwrap();
        let each = a_thousand!(receive(&mut messages, &broker));
        assert!(
            each <= 60,
            "QoS {qos}: {each} allocations a thousand messages"
        );
    }
}

#[tokio::test]
async fn a_publish_allocates_a_sixteenth_of_a_block_of_receipts() {
    for (qos, window) in [
        (QoS::AtMostOnce, 1),
        (QoS::AtMostOnce, 1_000),
        (QoS::AtLeastOnce, 20),
        (QoS::AtLeastOnce, 100),
    ] {
        let (pubsub, _broker) = client(0);
        let each = a_thousand!(publish(&pubsub, qos, window));
        assert!(
            each <= 1_000 / 16 + 20,
            "{qos:?}, {window} at a time: {each} allocations a thousand messages"
        );
    }
}
