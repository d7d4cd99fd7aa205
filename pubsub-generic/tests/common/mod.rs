#![allow(unreachable_pub, missing_docs, reason = "a module of the tests")]
//! What several test files need.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod memory;
pub mod store;

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use pubsub_core::{BoxFuture, PubSub};
use pubsub_generic::{
    Attempt, Connect, ConnectError, DEFAULT_NAME, MqttProvider, Opened, Received, Transport,
    TransportError,
};

/// A registry with one provider, and the provider.
#[cfg(feature = "ws")]
pub fn client(options: pubsub_generic::MqttOptions) -> (PubSub, Arc<MqttProvider>) {
    register(MqttProvider::new(options).unwrap())
}

pub fn register(provider: MqttProvider) -> (PubSub, Arc<MqttProvider>) {
    let provider = Arc::new(provider);
    let pubsub = PubSub::new();
    pubsub
        .add_provider(DEFAULT_NAME, Arc::clone(&provider))
        .unwrap();
    (pubsub, provider)
}

/// The innermost error that is a `T`.
pub fn cause<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    let mut next = Some(error);
    let mut found = None;
    while let Some(error) = next {
        found = error.downcast_ref().or(found);
        next = error.source();
    }
    found
}

/// Cuts a connection when it is pulled.
#[derive(Clone, Default)]
pub struct Cord(Arc<Mutex<(bool, Option<Waker>)>>);

impl Cord {
    pub fn pull(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    fn is_pulled(&self, cx: &Context<'_>) -> bool {
        let mut state = self.0.lock().unwrap();
        state.1 = Some(cx.waker().clone());
        std::mem::take(&mut state.0)
    }
}

/// A way to connect, with a cord to every connection.
pub struct OnACord<C> {
    pub connect: C,
    pub cord: Cord,
}

impl<C: Connect> Connect for OnACord<C> {
    fn connect<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Result<Opened, ConnectError>> {
        Box::pin(async move {
            let opened = self.connect.connect(attempt).await?;
            let cord = self.cord.clone();
            Ok(opened.map(|transport| Corded { transport, cord }))
        })
    }

    fn endpoints(&self) -> usize {
        self.connect.endpoints()
    }

    fn endpoint_name(&self, endpoint: usize) -> Option<String> {
        self.connect.endpoint_name(endpoint)
    }
}

struct Corded {
    transport: Box<dyn Transport>,
    cord: Cord,
}

impl Transport for Corded {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<Result<Received, TransportError>> {
        if self.cord.is_pulled(cx) {
            return Poll::Ready(Ok(Received::End));
        }
        self.transport.poll_receive(cx, chunks)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.transport.poll_ready(cx)
    }

    fn start_send(&mut self, chunk: Bytes) -> Result<(), TransportError> {
        self.transport.start_send(chunk)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.transport.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.transport.poll_close(cx)
    }
}

/// A clock that moves for nobody but who [advances](tokio::time::advance) it, so that sockets may take the time that they
/// need. It runs again when this is dropped.
pub struct StoppedClock(
    #[expect(dead_code, reason = "its end is the signal")] std::sync::mpsc::Sender<()>,
);

impl StoppedClock {
    pub fn stop() -> Self {
        let (running, ended) = std::sync::mpsc::channel::<()>();
        // While anything blocks, the runtime does not take the way to the next timer for a wait.
        tokio::task::spawn_blocking(move || ended.recv());
        tokio::time::pause();
        Self(running)
    }
}

impl Drop for StoppedClock {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}
