//! Providers with a session store, and a store that fails when it is told to.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pubsub_core::{OfflinePolicy, PubSub, PublishReceipt, QoS};
use pubsub_generic::{
    Change, Jitter, MemorySessionStore, MqttOptions, MqttProvider, Reconnect, Record, SessionMode,
    SessionStore, StoreError, StoreErrorKind,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::memory::{Broker, BrokerEnd, Step, memory};
use super::register;

pub const PERSISTENT: SessionMode = SessionMode::Persistent {
    expiry: Duration::from_secs(3600),
};
pub const RESUMED: &[u8] = &[0x20, 2, 1, 0];

pub fn options(store: impl SessionStore) -> MqttOptions {
    MqttOptions::without_url()
        .client_id("me")
        .session(PERSISTENT)
        .offline(OfflinePolicy::Queue)
        .reconnect(Reconnect::default().jitter(Jitter::None))
        .store(store)
}

pub fn start(store: impl SessionStore) -> (PubSub, Arc<MqttProvider>, Broker) {
    start_with(options(store), Vec::new())
}

pub fn start_with(options: MqttOptions, steps: Vec<Step>) -> (PubSub, Arc<MqttProvider>, Broker) {
    let (connect, broker) = memory(steps);
    let (pubsub, provider) = register(MqttProvider::with_connect(options, connect).unwrap());
    (pubsub, provider, broker)
}

pub async fn resume(broker: &mut Broker) -> BrokerEnd {
    let mut end = broker.transports.recv().await.unwrap();
    let connect = end.packet().await.unwrap();
    assert_eq!(connect[9] & 2, 0, "no clean session: {connect:02x?}");
    end.send(RESUMED);
    end
}

pub fn send(pubsub: &PubSub, topic: &str, payload: &str, qos: QoS) -> PublishReceipt {
    let mut tickets = pubsub.publish(topic, payload).qos(qos).send_each().unwrap();
    tickets.pop().unwrap().receipt
}

/// A store that can be held up, and made to fail.
#[derive(Clone)]
pub struct Fickle {
    pub records: MemorySessionStore,
    pub state: Arc<(Mutex<State>, Condvar)>,
    pub calls: UnboundedSender<Vec<Change>>,
}

#[derive(Default)]
pub struct State {
    /// How many writes may go through; `None` as many as come.
    pub permits: Option<usize>,
    /// The failure of each write from now on.
    pub failure: Option<StoreErrorKind>,
    pub load_failure: Option<StoreErrorKind>,
    /// Whether what fails is stored all the same.
    pub stores_anyway: bool,
}

impl Fickle {
    pub fn new() -> (Self, UnboundedReceiver<Vec<Change>>) {
        let (calls, seen) = unbounded_channel();
        let store = Self {
            records: MemorySessionStore::new(),
            state: Arc::default(),
            calls,
        };
        (store, seen)
    }

    pub fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.0.lock().unwrap());
        self.state.1.notify_all();
    }
}

impl SessionStore for Fickle {
    fn load(&self) -> Result<Vec<Record>, StoreError> {
        match self.state.0.lock().unwrap().load_failure {
            Some(kind) => Err(kind.into()),
            None => self.records.load(),
        }
    }

    fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        let _ = self.calls.send(changes.to_vec());
        let state = self.state.0.lock().unwrap();
        // Bounded, or a test that fails would wait for its runtime, and that for this.
        let (mut state, waited) = self
            .state
            .1
            .wait_timeout_while(state, Duration::from_secs(60), |state| {
                state.permits == Some(0)
            })
            .unwrap();
        if waited.timed_out() {
            return Err(StoreErrorKind::Io.into());
        }
        state.permits = state.permits.map(|left| left - 1);
        let Some(kind) = state.failure else {
            return self.records.write(changes);
        };
        if state.stores_anyway {
            self.records.write(changes)?;
        }
        Err(kind.into())
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.records.clear()
    }
}
