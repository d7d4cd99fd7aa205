//! At QoS 0 a publish is done when the socket has it, not when a buffer has.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use common::memory::{Broker, BrokerEnd, MemoryConnect, memory};
use common::register;
use pubsub_core::{BoxFuture, Provider, PubSub, PublishError, QoS};
use pubsub_generic::{
    Attempt, Connect, ConnectError, MqttOptions, MqttProvider, Opened, Received, Transport,
    TransportError,
};
use tokio::time::timeout;

/// Holds flushing up while it is shut.
#[derive(Clone, Default)]
struct Dam(Arc<Mutex<(bool, Option<Waker>)>>);

impl Dam {
    fn shut(&self) {
        self.0.lock().unwrap().0 = true;
    }

    fn open(&self) {
        let (_, waker) = std::mem::take(&mut *self.0.lock().unwrap());
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        if state.0 {
            state.1 = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

struct Dammed<T> {
    inner: T,
    dam: Dam,
}

impl Connect for Dammed<MemoryConnect> {
    fn connect<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>> {
        Box::pin(async move {
            let opened = self.inner.connect(attempt).await?;
            let dam = self.dam.clone();
            Ok(opened.map(|inner| Dammed { inner, dam }))
        })
    }
}

impl Transport for Dammed<Box<dyn Transport>> {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<Result<Received, TransportError>> {
        self.inner.poll_receive(cx, chunks)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_ready(cx)
    }

    fn start_send(&mut self, chunk: Bytes) -> Result<(), TransportError> {
        self.inner.start_send(chunk)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        match self.dam.poll_open(cx) {
            Poll::Ready(()) => self.inner.poll_flush(cx),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        match self.dam.poll_open(cx) {
            Poll::Ready(()) => self.inner.poll_close(cx),
            Poll::Pending => Poll::Pending,
        }
    }
}

struct Scene {
    pubsub: PubSub,
    provider: Arc<MqttProvider>,
    dam: Dam,
    _broker: Broker,
    end: BrokerEnd,
}

/// Connected, and then nothing is flushed.
async fn scene() -> Scene {
    let (inner, mut broker) = memory(Vec::new());
    let dam = Dam::default();
    let connect = Dammed {
        inner,
        dam: dam.clone(),
    };
    let options = MqttOptions::without_url()
        .client_id("me")
        .keep_alive(Duration::ZERO);
    let (pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    let (connected, end) = tokio::join!(provider.connect(), broker.accept());
    connected.unwrap();
    dam.shut();
    Scene {
        pubsub,
        provider,
        dam,
        _broker: broker,
        end,
    }
}

fn is_indeterminate<T>(outcome: &Result<T, PublishError>) -> bool {
    matches!(outcome, Err(PublishError::Indeterminate(_)))
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_the_flush() {
    let mut scene = scene().await;
    let receipt = scene.pubsub.publish("a", "x").qos(QoS::AtMostOnce).send();
    let mut receipt = std::pin::pin!(receipt);
    scene.end.packet().await.unwrap();
    let early = timeout(Duration::from_secs(60), receipt.as_mut()).await;
    assert!(early.is_err(), "the transport has it, the socket has not");
    scene.dam.open();
    receipt.await.unwrap();
    assert_eq!(scene.provider.stats().publishes_failed, 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_transport_had_is_indeterminate() {
    let mut scene = scene().await;
    let receipt = scene.pubsub.publish("a", "x").qos(QoS::AtMostOnce).send();
    scene.end.packet().await.unwrap();
    drop(scene.end);
    let outcome = receipt.await;
    assert!(is_indeterminate(&outcome), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_it() {
    let scene = scene().await;
    let receipt = scene.pubsub.publish("a", "x").qos(QoS::AtMostOnce).send();
    let (closed, outcome, ()) = tokio::join!(scene.provider.close(), receipt, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        scene.dam.open();
    });
    closed.unwrap();
    outcome.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_gives_it_up_at_its_deadline() {
    let scene = scene().await;
    let receipt = scene.pubsub.publish("a", "x").qos(QoS::AtMostOnce).send();
    let (closed, outcome) = tokio::join!(scene.provider.close(), receipt);
    assert!(closed.is_err());
    assert!(is_indeterminate(&outcome), "{outcome:?}");
}
