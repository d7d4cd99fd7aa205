//! The provider: a handle on the task that does the work.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use mqtt_codec::ProtocolVersion;
use mqtt_session::{BrokerOnlySession, CleanStart, Persistence, Session, Timestamp};
use pubsub_core::{
    BoxFuture, DeliverySink, Drive, FilterRequest, MatchingRules, Network, OfflinePolicy,
    OutboundMessage, Provider, ProviderError, ProviderErrorKind, PublishError, PublishReceipt, QoS,
    ReceiptSink, Receipts, Refusal, RefusalKind, Settlement, TopicFilter,
};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::choices::OfflineOverflow;
use crate::connect::Connect;
use crate::convert::session_subscription;
use crate::driver::Task;
use crate::error::LimitExceeded;
use crate::inbox::{Command, Farewell, Inbox, Operation};
use crate::keeper::{Keeper, Restored, RestoredPublish, load, restore};
use crate::login::WithLogin;
use crate::options::{DEFAULT_NAME, MqttOptions};
use crate::options_error::OptionsError;
use crate::reconnect::{Backoff, Random};
use crate::seat::Seat;
use crate::stats::{Counters, Stats};

/// Publishes and subscribes through an MQTT broker.
///
/// It belongs into a [`PubSub`](pubsub_core::PubSub), whose `publish` and `subscribe` are what an application calls. To
/// keep a handle on the methods here, add an `Arc` of it.
///
/// Nothing happens until the first publish, subscribe or [`connect`](Self::connect). Then one task is started on the
/// current tokio runtime; it owns the connection, makes it again when it is lost, and restores the subscriptions.
/// [`close`](Provider::close) ends it in order. Dropping the provider ends it too, without sending what is left.
///
/// ```no_run
/// use std::sync::Arc;
/// use pubsub_core::{Json, PubSub};
/// use pubsub_generic::{DEFAULT_NAME, MqttOptions, MqttProvider};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let provider = Arc::new(MqttProvider::new(MqttOptions::new("wss://broker.example/mqtt"))?);
/// let pubsub = PubSub::new();
/// pubsub.add_provider(DEFAULT_NAME, Arc::clone(&provider))?;
///
/// provider.connect().await?;
/// pubsub.publish("chat/lobby", Json(&"hello")).await?;
/// println!("{:?}", provider.stats());
/// # Ok(()) }
/// ```
pub struct MqttProvider {
    shared: Arc<Shared>,
    seat: Arc<Seat<Task>>,
    task: Mutex<TaskState>,
    /// Set once the task was spawned, so that a publish need not take the lock.
    is_started: AtomicBool,
}

enum TaskState {
    /// Started by the first call, so that a provider can be made outside of a runtime.
    Idle(Beginning),
    Running(JoinHandle<()>),
    /// Somebody waits for its end, or it never ran.
    Taken,
}

/// What the task begins with.
struct Beginning {
    /// For the jitter of its back-off.
    seed: u64,
    /// With a store.
    kept: Option<Box<KeptSession>>,
}

/// A session that came back from its store.
struct KeptSession {
    session: Session,
    keeper: Keeper,
    restored: Restored,
    /// The origin of the session's time.
    origin: Instant,
}

/// What the handle, the receipts and the task have in common.
pub(crate) struct Shared {
    pub(crate) options: MqttOptions,
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) client_id: Arc<str>,
    pub(crate) inbox: Inbox,
    pub(crate) sink: OnceLock<DeliverySink>,
    pub(crate) counters: Counters,
    /// Until somebody asks for them.
    restored: Mutex<Vec<RestoredPublish>>,
    up: AtomicBool,
    /// Of the last connection that stood, or [`NONE_YET`].
    endpoint: AtomicUsize,
    /// How it ended, once it has.
    outcome: OnceLock<Result<(), ProviderError>>,
    ended: Notify,
}

impl MqttProvider {
    /// A provider for the broker at the options' URL.
    ///
    /// # Errors
    ///
    /// The first rule that the options break. Nothing is sent, and no runtime is needed.
    #[cfg(feature = "ws")]
    pub fn new(options: MqttOptions) -> Result<Self, OptionsError> {
        let connect = crate::ws::WsConnect::from_options(&options)?;
        Self::assemble(options, Arc::new(connect))
    }

    /// A provider that connects in a way of its own: over another transport, or with something made anew for each attempt.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); and a URL or an option of its connection is refused, since nothing would use it.
    pub fn with_connect(options: MqttOptions, connect: impl Connect) -> Result<Self, OptionsError> {
        #[cfg(feature = "ws")]
        if options.ws.is_used() {
            return Err(OptionsError::UnusedUrl);
        }
        Self::assemble(options, Arc::new(connect))
    }

    fn assemble(mut options: MqttOptions, connect: Arc<dyn Connect>) -> Result<Self, OptionsError> {
        options.validate()?;
        let connect: Arc<dyn Connect> = match &options.login {
            Some(source) => Arc::new(WithLogin {
                connect,
                source: Arc::clone(source),
            }),
            None => connect,
        };
        let random = Randomness::draw()?;
        let client_id = match &options.client_id {
            Some(client_id) => client_id.clone(),
            None if options.session.version == ProtocolVersion::V31 => short_id(&random.uuid()),
            None => random.uuid(),
        };
        if options.session.clean_start == CleanStart::OnFirst
            && options.session.version != ProtocolVersion::V5
        {
            // There a CONNECT that asks for a new session also asks to forget it at the end of the connection.
            options.session_mut().clean_start = CleanStart::Never;
            options.session_mut().broker_only_session = BrokerOnlySession::Accept;
        }
        options.session_mut().client_id = client_id;
        // Our own deadline covers the CONNACK; the session's must not come before it.
        options.session_mut().connack_timeout = options.connect_timeout.saturating_mul(2);
        let seat = Seat::new();
        // The inbox counts what is in the session too, so the session's bounds are never what refuses.
        let inbox = Inbox::new(
            options.session.max_queued_messages,
            options.session.max_outbound_bytes,
            Receipts::driven_by(Arc::clone(&seat) as Arc<_>),
        );
        options.session_mut().persistence = match options.store {
            Some(_) => Persistence::On,
            None => Persistence::Off,
        };
        options.session.check().map_err(OptionsError::Session)?;
        let mut kept = None;
        let mut handles = Vec::new();
        if let Some(store) = options.store.take() {
            let store = store.claim().ok_or(OptionsError::StoreInUse)?;
            let loaded = load(&**store, &options.session.client_id).map_err(OptionsError::Store)?;
            let (session, mut restored) = restore(loaded, options.session.clone(), Timestamp::ZERO)
                .map_err(OptionsError::Store)?;
            inbox.adopt(restored.load);
            handles = std::mem::take(&mut restored.handles);
            kept = Some(Box::new(KeptSession {
                session,
                keeper: Keeper::new(store),
                restored,
                origin: Instant::now(),
            }));
        }
        let counters = Counters::new();
        let client_id = options.session.client_id.as_str().into();
        let shared = Arc::new(Shared {
            options,
            connect,
            client_id,
            inbox,
            sink: OnceLock::new(),
            counters,
            restored: Mutex::default(),
            up: AtomicBool::new(false),
            endpoint: AtomicUsize::new(NONE_YET),
            outcome: OnceLock::new(),
            ended: Notify::new(),
        });
        shared.restored(handles);
        let beginning = Beginning {
            seed: random.seed(),
            kept,
        };
        Ok(Self {
            shared,
            seat,
            task: Mutex::new(TaskState::Idle(beginning)),
            is_started: AtomicBool::new(false),
        })
    }

    /// The Client Identifier, chosen or made up.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.shared.client_id
    }

    /// Connects now, instead of with the first publish or subscribe, and resolves when MQTT is connected. After a failure
    /// that ended all attempts it starts them again.
    ///
    /// # Errors
    ///
    /// Why the attempt failed, or the next one where none was under way. Unless the error says that retrying is
    /// pointless, the provider goes on trying by its [`Reconnect`](crate::Reconnect) policy.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the answer, not the connection.
    pub async fn connect(&self) -> Result<(), ProviderError> {
        let (reply, answer) = oneshot::channel();
        self.call(Command::Connect { reply })?;
        let answer = self.seat.answered(answer);
        answer
            .await
            .unwrap_or_else(|_| Err(ProviderErrorKind::Closed.into()))
    }

    /// Tells that the host's network came up or went down, where the host knows. While it is down no attempts are made;
    /// when it comes up the next one is made at once.
    pub fn network(&self, network: Network) {
        if self.start().is_ok() {
            self.shared.inbox.notify(Command::Network(network));
        }
    }

    /// The publishes that came back from the [store](MqttOptions::store), each with a receipt that tells what becomes of it;
    /// none the second time. They are sent with the first connection whether asked for or not, before anything newer
    /// of the same QoS, and count in [`stats`](Self::stats).
    ///
    /// There are some after a process that ended with publishes unconfirmed, and once more when
    /// [`connect`](Self::connect) starts a provider again that had stopped.
    #[must_use]
    pub fn take_restored(&self) -> Vec<RestoredPublish> {
        std::mem::take(&mut *self.shared.lock_restored())
    }

    /// What has happened so far, and what is under way.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self
            .shared
            .counters
            .snapshot(self.shared.is_up(), self.shared.inbox.load());
        let endpoint = self.shared.endpoint.load(Ordering::Relaxed);
        if endpoint != NONE_YET {
            stats.endpoint = self.shared.connect.endpoint_name(endpoint);
        }
        stats
    }

    fn call(&self, command: Command) -> Result<(), ProviderError> {
        self.start()?;
        self.shared.inbox.call(command)
    }

    /// Sees to it that the task runs.
    fn start(&self) -> Result<(), ProviderError> {
        let mut state = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, TaskState::Idle(_)) {
            return Ok(());
        }
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|error| ProviderError::new(ProviderErrorKind::Other).with_source(error))?;
        if let TaskState::Idle(beginning) = std::mem::replace(&mut *state, TaskState::Taken) {
            let shared = Arc::clone(&self.shared);
            // The task makes a timer, which it can only do inside the runtime.
            let make = move || beginning.into_task(shared);
            let work = Arc::clone(&self.seat).run(runtime.clone(), make);
            *state = TaskState::Running(runtime.spawn(work));
            self.is_started.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn check_limits(&self, message: &OutboundMessage) -> Result<(), LimitExceeded> {
        let limits = &self.shared.options.limits;
        if message.qos > limits.max_qos {
            return Err(LimitExceeded::QoS {
                max: limits.max_qos,
            });
        }
        if message.topic.as_str().len() > limits.max_topic_bytes {
            return Err(LimitExceeded::Topic {
                max_bytes: limits.max_topic_bytes,
            });
        }
        if message.payload.len() > limits.max_payload_bytes {
            return Err(LimitExceeded::Payload {
                max_bytes: limits.max_payload_bytes,
            });
        }
        Ok(())
    }

    /// Asks for the filters that can be asked for. The others' refusals have their places among the requests; there is no
    /// list of them where nothing was refused.
    fn subscribe_now(
        &self,
        requests: Vec<FilterRequest>,
    ) -> Result<(Vec<Option<Refusal>>, Option<Answer>), ProviderError> {
        let limits = &self.shared.options.limits;
        let version = self.shared.options.session.version;
        let mut refused = Vec::new();
        let mut subscriptions = Vec::with_capacity(requests.len());
        for mut request in requests {
            if request.filter.as_str().len() > limits.max_topic_bytes {
                let error = LimitExceeded::Topic {
                    max_bytes: limits.max_topic_bytes,
                };
                if refused.is_empty() {
                    refused.resize_with(subscriptions.len(), || None);
                }
                refused.push(Some(Refusal::from(ProviderError::from(error))));
                continue;
            }
            request.qos = request.qos.min(limits.max_qos);
            if !refused.is_empty() {
                refused.push(None);
            }
            subscriptions.push(session_subscription(&request, version));
        }
        if subscriptions.is_empty() {
            return Ok((refused, None));
        }
        let (reply, answer) = oneshot::channel();
        self.call(Command::Operation(Operation::Subscribe {
            subscriptions,
            reply,
        }))?;
        Ok((refused, Some(answer)))
    }
}

type Answer = oneshot::Receiver<Result<Vec<Result<QoS, Refusal>>, ProviderError>>;

impl Provider for MqttProvider {
    fn attach(&self, sink: DeliverySink) -> Result<(), ProviderError> {
        if self.shared.inbox.is_closed() {
            return Err(ProviderErrorKind::Closed.into());
        }
        let name = sink.provider_name().clone();
        self.shared
            .sink
            .set(sink)
            .map_err(|_| ProviderErrorKind::Invalid)?;
        self.shared.counters.meters.name(name.as_str());
        Ok(())
    }

    fn matching_rules(&self) -> MatchingRules {
        self.shared.options.matching
    }

    // Otherwise it is made in the application's crate, with a copy of its own of all that the seat does.
    #[inline(never)]
    fn driver(&self) -> Option<Arc<dyn Drive>> {
        Some(Arc::clone(&self.seat) as Arc<_>)
    }

    /// Resolves at QoS 0 when the message is handed to the socket, at QoS 1 with its PUBACK and at QoS 2 with its
    /// PUBCOMP.
    ///
    /// Before MQTT 5 a message with a response topic is refused as unsupported; other properties are left out.
    fn publish(&self, mut message: OutboundMessage) -> PublishReceipt {
        if let Err(error) = self.check_limits(&message) {
            return failed(error.into());
        }
        if message.properties.response_topic.is_some()
            && self.shared.options.session.version != ProtocolVersion::V5
        {
            // Without it the message would mean something else; the other properties are hints.
            return failed(ProviderErrorKind::Unsupported.into());
        }
        if message.offline == OfflinePolicy::ProviderDefault {
            message.offline = self.shared.options.offline;
        }
        if !self.is_started.load(Ordering::Relaxed)
            && let Err(error) = self.start()
        {
            return failed(error);
        }
        let overflow = match self.shared.is_up() {
            true => OfflineOverflow::Refuse,
            false => self.shared.options.offline_overflow,
        };
        self.shared
            .inbox
            .publish(message, overflow)
            .unwrap_or_else(failed)
    }

    /// Resolves when the broker has answered for every filter, or the subscribe timeout has passed.
    fn subscribe(
        &self,
        requests: Vec<FilterRequest>,
    ) -> BoxFuture<'static, Result<Vec<Result<QoS, Refusal>>, ProviderError>> {
        let asked = self.subscribe_now(requests);
        let seat = Arc::clone(&self.seat);
        Box::pin(async move {
            let (refused, answer) = asked?;
            let answers = match answer {
                Some(answer) => seat
                    .answered(answer)
                    .await
                    .unwrap_or_else(|_| Err(ProviderErrorKind::Closed.into()))?,
                None => Vec::new(),
            };
            if refused.is_empty() {
                return Ok(answers);
            }
            let mut answers = answers.into_iter();
            Ok(refused
                .into_iter()
                .map(|refusal| match refusal {
                    Some(refusal) => Err(refusal),
                    None => answers
                        .next()
                        .unwrap_or_else(|| Err(RefusalKind::Unspecified.into())),
                })
                .collect())
        })
    }

    fn unsubscribe(
        &self,
        filters: Vec<TopicFilter>,
    ) -> BoxFuture<'static, Result<(), ProviderError>> {
        let (reply, answer) = oneshot::channel();
        let asked = self.call(Command::Operation(Operation::Unsubscribe {
            filters: texts(&filters),
            reply: Some(reply),
        }));
        let seat = Arc::clone(&self.seat);
        Box::pin(async move {
            asked?;
            seat.answered(answer)
                .await
                .unwrap_or_else(|_| Err(ProviderErrorKind::Closed.into()))
        })
    }

    fn release(&self, filters: Vec<TopicFilter>) {
        // What was subscribed has started the task.
        self.shared
            .inbox
            .notify(Command::Operation(Operation::Unsubscribe {
                filters: texts(&filters),
                reply: None,
            }));
    }

    fn close(&self) -> BoxFuture<'static, Result<(), ProviderError>> {
        self.shared.inbox.close(Farewell::Drain);
        let task = {
            let mut state = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            match std::mem::replace(&mut *state, TaskState::Taken) {
                TaskState::Idle(_) => {
                    self.shared.finished(Ok(()));
                    None
                }
                TaskState::Running(task) => Some(task),
                TaskState::Taken => None,
            }
        };
        let shared = Arc::clone(&self.shared);
        let seat = Arc::clone(&self.seat);
        Box::pin(async move {
            if let Some(task) = task
                && let Some(Err(_)) = seat.ended(task).await
            {
                // It panicked, which has been reported; or its runtime went before its first turn, so that it said nothing.
                shared.finished(Err(ProviderErrorKind::Closed.into()));
            }
            shared.ended().await
        })
    }
}

impl Beginning {
    /// Boxed at once: it is large, and is moved a number of times before it runs.
    fn into_task(self, shared: Arc<Shared>) -> Box<Task> {
        let policy = shared.options.reconnect.clone();
        let backoff = Backoff::new(policy, Random::seeded(self.seed));
        let Some(kept) = self.kept else {
            let session = shared.new_session();
            return Box::new(Task::new(shared, session, backoff));
        };
        let mut task = Box::new(Task::new(shared, kept.session, backoff));
        task.keep_with(kept.keeper, kept.restored, kept.origin);
        task
    }
}

impl Drop for MqttProvider {
    fn drop(&mut self) {
        self.shared.inbox.close(Farewell::AtOnce);
    }
}

impl fmt::Debug for MqttProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttProvider")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

/// No connection has stood.
const NONE_YET: usize = usize::MAX;

impl Shared {
    /// The name that the provider was added under.
    pub(crate) fn name(&self) -> &str {
        self.sink
            .get()
            .map_or(DEFAULT_NAME, |sink| sink.provider_name().as_str())
    }

    pub(crate) fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
        self.counters.meters.set_up(up);
    }

    pub(crate) fn restored(&self, handles: Vec<RestoredPublish>) {
        self.counters.publishes_restored(handles.len());
        self.lock_restored().extend(handles);
    }

    fn lock_restored(&self) -> std::sync::MutexGuard<'_, Vec<RestoredPublish>> {
        self.restored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    pub(crate) fn set_endpoint(&self, endpoint: usize) {
        self.endpoint.store(endpoint, Ordering::Relaxed);
    }

    /// As it may be shown; empty where it has no name.
    pub(crate) fn endpoint_name(&self, endpoint: usize) -> String {
        self.connect.endpoint_name(endpoint).unwrap_or_default()
    }

    /// Tells everybody who waits for it how it ended. What was told first stands.
    pub(crate) fn finished(&self, outcome: Result<(), ProviderError>) {
        let _ = self.outcome.set(outcome);
        self.ended.notify_waiters();
    }

    async fn ended(&self) -> Result<(), ProviderError> {
        loop {
            // Made before it is looked, so that it hears of an end in between.
            let ended = self.ended.notified();
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            ended.await;
        }
    }

    /// A session that knows of nothing.
    pub(crate) fn new_session(&self) -> Session {
        Session::new(self.options.session.clone())
            .expect("the configuration was checked when the provider was made")
    }
}

impl ReceiptSink for Shared {
    fn settle(&self, token: u64, settlement: Settlement) {
        self.inbox.settle(token, settlement);
    }
}

fn failed(error: ProviderError) -> PublishReceipt {
    PublishReceipt::ready(Err(PublishError::NotSent(error)))
}

fn texts(filters: &[TopicFilter]) -> Vec<Arc<str>> {
    filters.iter().map(|filter| filter.clone().into()).collect()
}

/// What a provider needs of it, in one system call.
pub(crate) struct Randomness([u8; 24]);

impl Randomness {
    pub(crate) fn draw() -> Result<Self, OptionsError> {
        let mut bytes = [0; 24];
        getrandom::fill(&mut bytes).map_err(|_| OptionsError::NoRandomness)?;
        Ok(Self(bytes))
    }

    fn seed(&self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// RFC 9562, section 5.4; of other bytes than the seed.
    pub(crate) fn uuid(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut uuid = Vec::with_capacity(36);
        for (at, &byte) in self.0.iter().take(16).enumerate() {
            let byte = match at {
                6 => byte & 0x0f | 0x40,
                8 => byte & 0x3f | 0x80,
                _ => byte,
            };
            if matches!(at, 4 | 6 | 8 | 10) {
                uuid.push(b'-');
            }
            let digits = [byte >> 4, byte & 0x0f].map(|half| DIGITS[usize::from(half)]);
            uuid.extend_from_slice(&digits);
        }
        // All of it is ASCII.
        String::from_utf8(uuid).unwrap_or_default()
    }
}

/// MQTT 3.1 allows 23 characters (its section 3.1): enough for 92 of the random bits.
fn short_id(uuid: &str) -> String {
    uuid.chars().filter(|&c| c != '-').take(23).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_made_up_is_a_uuid_of_version_4() {
        for _ in 0..100 {
            let uuid = Randomness::draw().unwrap().uuid();
            let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{uuid}");
            assert_eq!(uuid.as_bytes()[14], b'4', "{uuid}");
            assert!(b"89ab".contains(&uuid.as_bytes()[19]), "{uuid}");
        }
        let (one, other) = (Randomness::draw().unwrap(), Randomness::draw().unwrap());
        assert_ne!(one.uuid(), other.uuid());
        assert_ne!(one.seed(), other.seed());
        let known = Randomness(std::array::from_fn(|at| at as u8 * 11));
        assert_eq!(known.uuid(), "000b1621-2c37-424d-9863-6e79848f9aa5");
        assert_eq!(known.seed(), 0xb0bb_c6d1_dce7_f2fd);
        assert_eq!(
            short_id("f81d4fae-7dec-41d0-a765-00a0c91e6bf6"),
            "f81d4fae7dec41d0a76500a"
        );
    }
}
