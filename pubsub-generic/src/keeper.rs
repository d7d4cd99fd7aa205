//! The task's dealings with a [`SessionStore`]: what leaves the session as records, and what comes back of them.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use mqtt_codec::SubscriptionId;
use mqtt_session::{
    Config, PersistBatch, PublishId, RecordKey, RecordValue, Session, Timestamp, TransportEnd,
};
use pubsub_core::{
    OfflinePolicy, ProviderError, PublishError, PublishReceipt, PublishStage, QoS, TopicName,
    WithCauses,
};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use crate::convert::qos_of;
use crate::driver::{Link, PendingPublish, Task};
use crate::error::ConnectionError;
use crate::inbox::Load;
use crate::store::record::{self, Loaded};
use crate::store::{ClaimedStore, SessionStore, StillStored, StoreError, StoreErrorKind};
use crate::unclaimed::Unclaimed;

/// While a connection with subscriptions stands, and nothing else is to be stored, it is stored so often that the broker
/// was heard. So after a crash the gap that subscribers are told of is too long by this at most. Once a minute is what flash
/// and sleeping disks can bear.
const STAMP_INTERVAL: Duration = Duration::from_secs(60);
/// With other records it goes along when it is newer by this.
const STAMP_STEP: Duration = Duration::from_secs(1);

/// A publish of an earlier process, or of an earlier start of this provider, that its store still had.
///
/// It is sent like any other, with the first connection. [`MqttProvider::take_restored`](crate::MqttProvider::take_restored)
/// hands these out.
#[derive(Debug)]
#[non_exhaustive]
pub struct RestoredPublish {
    /// The topic.
    pub topic: TopicName,
    /// The quality of service.
    pub qos: QoS,
    /// How many bytes the payload has.
    pub payload_len: usize,
    /// What becomes of it. Dropping it changes nothing.
    pub receipt: PublishReceipt,
}

/// What is between the session and its store. There is never more than one call to the store under way: what changes
/// meanwhile gathers in the session, and goes out as one group.
pub(crate) struct Keeper {
    store: Arc<ClaimedStore>,
    work: Work,
    /// Whether the store knows whose session it has.
    has_header: bool,
    heard: Heard,
    /// The session at hand is not the stored one: the provider has stopped, and begins with what the store has.
    must_reload: bool,
    /// Taken back, and told so once their records are gone: else they might be sent by a later process all the same.
    withdrawn: Vec<(PendingPublish, ProviderError)>,
    /// Why the store is not used any more.
    failure: Option<ProviderError>,
}

/// When the broker was last heard, by the wall clock, and how much of that the store knows.
#[derive(Default)]
struct Heard {
    at: Option<SystemTime>,
    stored: Option<SystemTime>,
    /// When it was stored, or it was tried.
    stored_at: Option<Instant>,
    /// Whether it is to be stored though nothing else is.
    is_due: bool,
}

impl Heard {
    fn is_news(&self) -> bool {
        match (self.at, self.stored) {
            // However the clock was set.
            (Some(at), Some(stored)) => at >= stored + STAMP_STEP || at + STAMP_STEP <= stored,
            (at, stored) => at != stored,
        }
    }
}

enum Work {
    Idle,
    Writing {
        sequence: u64,
        withdrawn: Vec<(PendingPublish, ProviderError)>,
        task: JoinHandle<Result<(), StoreError>>,
    },
    Loading(JoinHandle<Result<Loaded, StoreError>>),
}

/// What the store knows of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Nothing.
    No,
    /// It has been asked to keep it.
    Asked,
    /// It has it.
    Yes,
}

/// What came back of the session, beside the session itself.
#[derive(Default)]
pub(crate) struct Restored {
    has_header: bool,
    heard: Option<SystemTime>,
    publishes: Vec<(PublishId, PendingPublish)>,
    pub(crate) handles: Vec<RestoredPublish>,
    pub(crate) load: Load,
    subscriptions: Vec<(Arc<str>, Option<SubscriptionId>)>,
}

/// Reads a store. Blocks.
pub(crate) fn load(store: &dyn SessionStore, client_id: &str) -> Result<Loaded, StoreError> {
    store.compact()?;
    record::decode_all(store.load()?, client_id, SystemTime::now())
}

/// Makes a session of what a store had.
pub(crate) fn restore(
    loaded: Loaded,
    config: Arc<Config>,
    now: Timestamp,
) -> Result<(Session, Restored), StoreError> {
    let mut restored = Restored {
        has_header: loaded.has_header,
        heard: loaded.heard,
        ..Restored::default()
    };
    for (key, value) in &loaded.records {
        match (key, value) {
            (RecordKey::Message(id), RecordValue::Message { publish }) => {
                let topic = TopicName::new(publish.topic.as_ref())
                    .map_err(|error| StoreError::new(StoreErrorKind::Corrupt).with_source(error))?;
                let bytes = publish.topic.len() + publish.payload.len();
                let (settler, receipt) = PublishReceipt::pair();
                settler.reached(PublishStage::Stored);
                restored.load.messages += 1;
                restored.load.bytes += bytes;
                restored.publishes.push((
                    *id,
                    PendingPublish {
                        settler,
                        bytes,
                        offline: OfflinePolicy::Queue,
                        written: false,
                        kept: Kept::Yes,
                    },
                ));
                restored.handles.push(RestoredPublish {
                    topic,
                    qos: qos_of(publish.qos),
                    payload_len: publish.payload.len(),
                    receipt,
                });
            }
            (RecordKey::Subscription(filter), RecordValue::Subscription { id, .. }) => {
                restored.subscriptions.push((Arc::clone(filter), *id));
            }
            _ => {}
        }
    }
    // Expiry is tied to the wall clock, so the time in between is accounted for already.
    let session = Session::restore(config, loaded.records, Duration::ZERO, now)
        .map_err(|error| StoreError::new(StoreErrorKind::Corrupt).with_source(error))?;
    Ok((session, restored))
}

impl Keeper {
    pub(crate) fn new(store: Arc<ClaimedStore>) -> Self {
        Self {
            store,
            work: Work::Idle,
            has_header: false,
            heard: Heard::default(),
            must_reload: false,
            withdrawn: Vec::new(),
            failure: None,
        }
    }

    /// The session at hand is given up; the stored one counts.
    pub(crate) fn leave_session(&mut self) -> Vec<(PendingPublish, ProviderError)> {
        self.must_reload = true;
        let mut withdrawn = std::mem::take(&mut self.withdrawn);
        if let Work::Writing {
            withdrawn: asked, ..
        } = &mut self.work
        {
            withdrawn.append(asked);
        }
        withdrawn
    }

    pub(crate) fn withdraw(&mut self, pending: PendingPublish, why: ProviderError) {
        self.withdrawn.push((pending, why));
    }

    pub(crate) fn failure(&self) -> Option<&ProviderError> {
        self.failure.as_ref()
    }

    fn write(&mut self, batch: PersistBatch, client_id: &str, now: Instant) {
        let store = Arc::clone(&self.store);
        let is_wanted = !self.has_header || batch.changes.is_empty() || self.heard.is_news();
        let header = is_wanted.then(|| {
            self.heard.stored = self.heard.at;
            record::header(client_id, self.heard.at)
        });
        self.heard.stored_at = Some(now);
        self.heard.is_due = false;
        let sequence = batch.sequence;
        let task = spawn_blocking(move || {
            let now = SystemTime::now();
            let mut changes = Vec::with_capacity(batch.changes.len() + 1);
            changes.extend(header);
            for (key, value) in &batch.changes {
                changes.push(record::encode(key, value.as_ref(), now)?);
            }
            store.write(&changes)
        });
        self.work = Work::Writing {
            sequence,
            withdrawn: std::mem::take(&mut self.withdrawn),
            task,
        };
    }
}

impl Task {
    /// Follows up on the store's work, and gives it more. Returns whether there may be more to do at once.
    #[inline]
    pub(crate) fn keep(&mut self, cx: &mut Context<'_>) -> bool {
        self.keeper.is_some() && self.keep_records(cx)
    }

    #[inline(never)]
    fn keep_records(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(keeper) = &mut self.keeper else {
            return false;
        };
        match &mut keeper.work {
            Work::Idle if keeper.must_reload => self.begin_reload(),
            Work::Idle => self.begin_write(),
            Work::Writing { task, .. } => match Pin::new(task).poll(cx) {
                Poll::Ready(done) => {
                    self.wrote(done.unwrap_or_else(|error| Err(gone(error))));
                    true
                }
                Poll::Pending => false,
            },
            Work::Loading(task) => match Pin::new(task).poll(cx) {
                Poll::Ready(done) => {
                    self.reloaded(done.unwrap_or_else(|error| Err(gone(error))));
                    true
                }
                Poll::Pending => false,
            },
        }
    }

    fn begin_write(&mut self) -> bool {
        if let Link::Open(open) = &self.link
            && open.up_since.is_some()
        {
            let last_received = open.last_received;
            self.heard(last_received);
        }
        let batch = match self.session.poll_persist() {
            Some(batch) => batch,
            None if self.is_stamp_due() => PersistBatch::default(),
            None => return false,
        };
        for (key, value) in &batch.changes {
            if let (RecordKey::Message(id), Some(_)) = (key, value)
                && let Some(pending) = self.publishes.get_mut(*id)
            {
                pending.kept = Kept::Asked;
            }
        }
        if let Some(keeper) = &mut self.keeper {
            keeper.write(batch, &self.shared.client_id, self.now);
        }
        true
    }

    fn wrote(&mut self, outcome: Result<(), StoreError>) {
        let Some(keeper) = &mut self.keeper else {
            return;
        };
        let Work::Writing {
            sequence,
            withdrawn,
            ..
        } = std::mem::replace(&mut keeper.work, Work::Idle)
        else {
            return;
        };
        if keeper.must_reload {
            // It was the last word of a session that has been given up.
            return;
        }
        match outcome {
            Ok(()) => {
                keeper.has_header = true;
                self.session.handle_persisted(sequence);
                for (pending, why) in withdrawn {
                    self.settle_pending(pending, Err(PublishError::NotSent(why)));
                }
            }
            Err(error) => {
                keeper.withdrawn = withdrawn;
                self.store_failed(error);
            }
        }
    }

    /// This is when the broker was last heard, so far.
    pub(crate) fn heard(&mut self, last_received: Instant) {
        let ago = self.now.duration_since(last_received);
        if let Some(keeper) = &mut self.keeper {
            keeper.heard.at = SystemTime::now().checked_sub(ago);
        }
    }

    /// A gap begins, or one has been told of and is not to be told again.
    pub(crate) fn stamp_now(&mut self) {
        let has_subscriptions = self.session.subscriptions().len() > 0;
        if let Some(keeper) = &mut self.keeper {
            keeper.heard.is_due |= has_subscriptions;
        }
    }

    /// Whether it is to be stored now, with nothing else, when the broker was heard.
    fn is_stamp_due(&mut self) -> bool {
        if self.stamp_due().is_none_or(|at| at > self.now) {
            return false;
        }
        let Some(keeper) = &mut self.keeper else {
            return false;
        };
        let heard = &mut keeper.heard;
        let is_asked = std::mem::take(&mut heard.is_due);
        heard.stored_at = Some(self.now);
        (is_asked && heard.at != heard.stored) || heard.is_news()
    }

    /// When it is to be stored that the broker was heard, if nothing else is before.
    pub(crate) fn stamp_due(&self) -> Option<Instant> {
        let keeper = self.keeper.as_ref()?;
        let may_write = matches!(keeper.work, Work::Idle) && !keeper.must_reload;
        if !may_write {
            return None;
        }
        if keeper.heard.is_due {
            return Some(self.now);
        }
        let is_heard = self.is_up() && self.session.subscriptions().len() > 0;
        let last = keeper.heard.stored_at.filter(|_| is_heard)?;
        last.checked_add(STAMP_INTERVAL)
    }

    /// Nothing that depends on a record can be sent any more, and it is not known which records there are.
    fn store_failed(&mut self, error: StoreError) {
        if error.kind() == StoreErrorKind::Full {
            // That much is known: there is none of what was asked for last.
            for pending in self.publishes.values_mut() {
                if pending.kept == Kept::Asked {
                    pending.kept = Kept::No;
                }
            }
        }
        tracing::warn!(client_id = %self.shared.client_id, error = %WithCauses::new(&error), "the session store failed");
        let error = ConnectionError::Store(error);
        if let Some(keeper) = &mut self.keeper {
            keeper.failure = Some(error.clone().into());
        }
        if let Link::Open(_) = self.link {
            self.drop_transport(TransportEnd::ClosedLocally, error.clone());
        }
        if self.stopped.is_none() {
            self.stop(error.into());
        }
    }

    /// Whether the session is about to be replaced by the stored one, so that nothing can be asked of it.
    pub(crate) fn is_reloading(&self) -> bool {
        self.keeper
            .as_ref()
            .is_some_and(|keeper| keeper.must_reload)
            && self.stopped.is_none()
            && self.closing.is_none()
    }

    /// Whether the store has all that it is to have, as far as there is time to wait for that.
    pub(crate) fn is_kept(&self) -> bool {
        let out_of_time = || {
            let end = self.closing.as_ref().map(|closing| closing.end);
            end.is_some_and(|end| end <= self.now)
        };
        self.keeper.as_ref().is_none_or(|keeper| {
            let is_idle = matches!(keeper.work, Work::Idle);
            (is_idle && self.stamp_due().is_none_or(|at| at > self.now)) || out_of_time()
        })
    }

    fn begin_reload(&mut self) -> bool {
        if !self.is_reloading() {
            return false;
        }
        if let Some(keeper) = &mut self.keeper {
            let store = Arc::clone(&keeper.store);
            let client_id = Arc::clone(&self.shared.client_id);
            keeper.work = Work::Loading(spawn_blocking(move || load(&**store, &client_id)));
        }
        true
    }

    fn reloaded(&mut self, outcome: Result<Loaded, StoreError>) {
        if let Some(keeper) = &mut self.keeper {
            keeper.work = Work::Idle;
        }
        if !self.is_reloading() {
            return;
        }
        let config = self.shared.options.session.clone();
        let now = self.timestamp;
        match outcome.and_then(|loaded| restore(loaded, config, now)) {
            Ok((session, mut restored)) => {
                self.session = session;
                self.set_aside = 0;
                self.shared.inbox.adopt(restored.load);
                self.shared.restored(std::mem::take(&mut restored.handles));
                self.adopt(restored);
            }
            Err(error) => self.store_failed(error),
        }
    }

    /// Takes over what came back beside the session.
    pub(crate) fn adopt(&mut self, restored: Restored) {
        if let Some(keeper) = &mut self.keeper {
            keeper.has_header = restored.has_header;
            keeper.heard = Heard {
                at: restored.heard,
                stored: restored.heard,
                ..Heard::default()
            };
            keeper.must_reload = false;
            keeper.failure = None;
        }
        for (id, pending) in restored.publishes {
            self.publishes.insert(id, pending);
        }
        for (filter, id) in &restored.subscriptions {
            if let Some(id) = id {
                self.subscriptions.overlaps.restore(filter, *id);
            }
        }
        let filters: Vec<_> = restored
            .subscriptions
            .into_iter()
            .map(|(filter, _)| filter)
            .collect();
        self.unclaimed = Unclaimed::new(&filters, self.shared.options.matching, restored.heard);
        self.shared.counters.subscriptions(filters.len());
    }
}

impl PendingPublish {
    /// What is known of it when nothing more will be heard.
    pub(crate) fn left(&self, why: &ProviderError) -> PublishError {
        match self.kept {
            Kept::Yes => PublishError::Indeterminate(
                ProviderError::new(why.kind()).with_source(StillStored { why: why.clone() }),
            ),
            Kept::No if !self.written => PublishError::NotSent(why.clone()),
            _ => PublishError::Indeterminate(why.clone()),
        }
    }
}

/// The blocking thread is gone without an answer: the store panicked, or the runtime ends.
fn gone(error: tokio::task::JoinError) -> StoreError {
    StoreError::new(StoreErrorKind::Io).with_source(error)
}
