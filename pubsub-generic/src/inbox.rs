//! What the handles leave for the task: a queue behind a short lock, and a wake only when the task sleeps.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use mqtt_session::Subscription;
use pubsub_core::{
    Network, OutboundMessage, ProviderError, ProviderErrorKind, PublishError, PublishReceipt,
    PublishSettler, QoS, Receipts, Refusal, Retry, Settlement,
};
use tokio::sync::oneshot;

use crate::choices::OfflineOverflow;
use crate::error::Displaced;

/// The most subscribe, unsubscribe and connect calls that may be under way. Each stands for a caller that waits, so
/// this is generous; it keeps a loop that never awaits from eating the memory.
pub(crate) const MAX_OPERATIONS: usize = 4096;

/// What a handle asks of the task.
#[derive(Debug)]
pub(crate) enum Command {
    Publish {
        /// With the policy that holds while there is no connection, never the default.
        message: OutboundMessage,
        settler: PublishSettler,
    },
    Operation(Operation),
    Connect {
        reply: oneshot::Sender<Result<(), ProviderError>>,
    },
    Network(Network),
}

/// A change of the subscriptions. These take effect in the order of the calls.
#[derive(Debug)]
pub(crate) enum Operation {
    Subscribe {
        subscriptions: Vec<Subscription>,
        reply: SubscribeReply,
    },
    /// Without a reply where a subscription was just dropped.
    Unsubscribe {
        filters: Vec<Arc<str>>,
        reply: Option<UnsubscribeReply>,
    },
}

impl Operation {
    pub(crate) fn fail(self, reason: &ProviderError) {
        // Whoever has gone needs no answer.
        match self {
            Self::Subscribe { reply, .. } => drop(reply.send(Err(reason.clone()))),
            Self::Unsubscribe { reply, .. } => {
                if let Some(reply) = reply {
                    let _ = reply.send(Err(reason.clone()));
                }
            }
        }
    }
}

pub(crate) type SubscribeReply = oneshot::Sender<Result<Vec<Result<QoS, Refusal>>, ProviderError>>;
pub(crate) type UnsubscribeReply = oneshot::Sender<Result<(), ProviderError>>;

#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Something has come in since [`take`](Self::take). Changed under the lock, and read by the task without it: what it misses
    /// rings its bell.
    has_news: AtomicBool,
    /// The task's, from the first time that it sleeps: rung as it is, it need not be counted for each sleep.
    bell: OnceLock<Waker>,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    commands: VecDeque<Command>,
    receipts: Receipts,
    settlements: Vec<(u64, Settlement)>,
    /// The task sleeps: whoever clears this has to wake it.
    is_asleep: bool,
    /// Publishes accepted and not completed, here or in the task, and their topic and payload bytes.
    load: Load,
    /// Those of them that the task has not taken yet.
    fresh: Load,
    /// More was accepted than the bounds allow: the task has to drop the oldest.
    is_over: bool,
    door: Door,
}

/// What was accepted and is not completed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) operations: usize,
}

/// Whether anything is still accepted.
#[derive(Debug, Default, Clone)]
enum Door {
    #[default]
    Open,
    /// The provider has stopped for this reason; `connect` opens it again.
    Stopped(ProviderError),
    /// `close` was called, or the last handle is gone.
    Closing(Farewell),
}

/// How to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// Send what was accepted first.
    Drain,
    /// The last handle was dropped; nobody waits.
    AtOnce,
}

/// What the task takes out in one go. Kept by the task, so that the capacity is reused.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) commands: VecDeque<Command>,
    pub(crate) settlements: Vec<(u64, Settlement)>,
    pub(crate) farewell: Option<Farewell>,
    /// By how much what is accepted exceeds the bounds, where the oldest are to make room.
    pub(crate) excess: Load,
}

impl Batch {
    /// Whether there is nothing in it to see to. A farewell is seen to as soon as it is taken.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.settlements.is_empty()
    }
}

impl Inbox {
    pub(crate) fn new(max_messages: usize, max_bytes: usize, receipts: Receipts) -> Self {
        Self {
            state: Mutex::new(State {
                receipts,
                ..State::default()
            }),
            has_news: AtomicBool::new(false),
            bell: OnceLock::new(),
            max_messages,
            max_bytes,
        }
    }

    /// Counts what came back from a store as accepted, whatever the bounds say.
    pub(crate) fn adopt(&self, load: Load) {
        let mut state = self.lock();
        state.load.messages += load.messages;
        state.load.bytes += load.bytes;
    }

    /// Accepts a publish within the bounds. Into an empty queue a single message is taken whatever its size: the session, which
    /// knows that of its packet, has the say.
    ///
    /// Where the oldest make room, what waits here is held to the bounds by itself; the task then holds all that waits to
    /// them, beginning with what it has had for longest. So for a moment there may be twice as much.
    pub(crate) fn publish(
        &self,
        message: OutboundMessage,
        overflow: OfflineOverflow,
    ) -> Result<PublishReceipt, ProviderError> {
        let size = message.topic.len() + message.payload.len();
        let mut displaced = Vec::new();
        let mut state = self.lock();
        if !matches!(state.door, Door::Open) {
            state.admit()?;
        }
        let load = state.load;
        if load.messages > 0
            && (load.messages >= self.max_messages
                || load.bytes.saturating_add(size) > self.max_bytes)
        {
            if size > self.max_bytes {
                return Err(
                    ProviderError::from(ProviderErrorKind::QueueFull).with_retry(Retry::Pointless)
                );
            }
            if overflow == OfflineOverflow::Refuse {
                return Err(ProviderErrorKind::QueueFull.into());
            }
            displaced = state.make_room(size, self.max_messages, self.max_bytes);
            state.is_over = true;
        }
        state.load.messages += 1;
        state.load.bytes += size;
        state.fresh.messages += 1;
        state.fresh.bytes += size;
        let (settler, receipt) = state.receipts.pair();
        state
            .commands
            .push_back(Command::Publish { message, settler });
        self.wake(state);
        if !displaced.is_empty() {
            tell_displaced(displaced);
        }
        Ok(receipt)
    }

    /// Accepts a call that a caller waits for.
    pub(crate) fn call(&self, command: Command) -> Result<(), ProviderError> {
        let mut state = self.lock();
        match (&state.door, &command) {
            // Asking for a connection is what ends a stop.
            (Door::Stopped(_), Command::Connect { .. }) => state.door = Door::Open,
            _ => state.admit()?,
        }
        if state.load.operations >= MAX_OPERATIONS {
            return Err(ProviderErrorKind::QueueFull.into());
        }
        state.load.operations += 1;
        state.commands.push_back(command);
        self.wake(state);
        Ok(())
    }

    /// Accepts what cannot be refused: what it concerns is bounded by what was accepted before.
    pub(crate) fn notify(&self, command: Command) {
        let mut state = self.lock();
        if matches!(state.door, Door::Closing(_)) {
            return;
        }
        if let Command::Operation(_) = command {
            state.load.operations += 1;
        }
        state.commands.push_back(command);
        self.wake(state);
    }

    pub(crate) fn settle(&self, token: u64, settlement: Settlement) {
        let mut state = self.lock();
        state.settlements.push((token, settlement));
        self.wake(state);
    }

    /// Lets nothing more in. The first farewell counts, unless a later one wants to drain less.
    pub(crate) fn close(&self, farewell: Farewell) {
        let mut state = self.lock();
        state.door = match state.door {
            Door::Closing(Farewell::AtOnce) => Door::Closing(Farewell::AtOnce),
            _ => Door::Closing(farewell),
        };
        self.wake(state);
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.lock().door, Door::Closing(_))
    }

    /// Fails new calls with this reason until somebody asks for a connection.
    pub(crate) fn stop(&self, reason: ProviderError) {
        let mut state = self.lock();
        if let Door::Open = state.door {
            state.door = Door::Stopped(reason);
        }
    }

    /// Takes everything, and accounts for what was completed since.
    pub(crate) fn take(&self, batch: &mut Batch, completed: &mut Load) {
        let mut state = self.lock();
        self.has_news.store(false, Ordering::Relaxed);
        state.is_asleep = false;
        state.account(completed);
        if batch.commands.is_empty() {
            std::mem::swap(&mut batch.commands, &mut state.commands);
        } else {
            batch.commands.append(&mut state.commands);
        }
        batch.settlements.append(&mut state.settlements);
        state.fresh = Load::default();
        batch.excess = match std::mem::take(&mut state.is_over) {
            true => Load {
                messages: state.load.messages.saturating_sub(self.max_messages),
                bytes: state.load.bytes.saturating_sub(self.max_bytes),
                operations: 0,
            },
            false => Load::default(),
        };
        if let Door::Closing(farewell) = state.door {
            batch.farewell = Some(farewell);
        }
    }

    /// Accounts for what was completed, where nothing more is taken.
    pub(crate) fn account(&self, completed: &mut Load) {
        self.lock().account(completed);
    }

    /// Whether something has come in since [`take`](Self::take), as far as it can be seen without waiting for a handle that is
    /// just leaving it.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.has_news.load(Ordering::Acquire)
    }

    /// Accounts for what was completed, and goes to sleep unless something has come in since [`take`](Self::take). Returns
    /// whether the task may sleep.
    pub(crate) fn sleep(
        &self,
        bell: &Waker,
        farewell_seen: Option<Farewell>,
        completed: &mut Load,
    ) -> bool {
        // There is but one.
        let _ = self.bell.get_or_init(|| bell.clone());
        let mut state = self.lock();
        state.account(completed);
        let farewell = match state.door {
            Door::Closing(farewell) => Some(farewell),
            _ => None,
        };
        if state.has_more() || farewell != farewell_seen {
            return false;
        }
        state.is_asleep = true;
        true
    }

    pub(crate) fn load(&self) -> Load {
        self.lock().load
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        self.has_news.store(true, Ordering::Release);
        let was_asleep = std::mem::replace(&mut state.is_asleep, false);
        drop(state);
        if was_asleep && let Some(bell) = self.bell.get() {
            bell.wake_by_ref();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_more(&self) -> bool {
        !self.commands.is_empty() || !self.settlements.is_empty()
    }

    fn account(&mut self, completed: &mut Load) {
        self.load.messages -= completed.messages;
        self.load.bytes -= completed.bytes;
        self.load.operations -= completed.operations;
        *completed = Load::default();
    }

    /// Drops the oldest publishes that the task has not seen, until one of `size` fits among them.
    fn make_room(
        &mut self,
        size: usize,
        max_messages: usize,
        max_bytes: usize,
    ) -> Vec<PublishSettler> {
        let mut displaced = Vec::new();
        while self.fresh.messages >= max_messages
            || (self.fresh.messages > 0 && self.fresh.bytes.saturating_add(size) > max_bytes)
        {
            let is_publish = |command: &Command| matches!(command, Command::Publish { .. });
            let oldest = self.commands.iter().position(is_publish);
            let Some(Command::Publish { message, settler }) =
                oldest.and_then(|at| self.commands.remove(at))
            else {
                break;
            };
            let bytes = message.topic.len() + message.payload.len();
            for load in [&mut self.fresh, &mut self.load] {
                load.messages -= 1;
                load.bytes -= bytes;
            }
            displaced.push(settler);
        }
        displaced
    }

    fn admit(&self) -> Result<(), ProviderError> {
        match &self.door {
            Door::Open => Ok(()),
            Door::Stopped(reason) => Err(reason.clone()),
            Door::Closing(_) => Err(ProviderErrorKind::Closed.into()),
        }
    }
}

#[cold]
fn tell_displaced(displaced: Vec<PublishSettler>) {
    for settler in displaced {
        settler.settle(Err(PublishError::NotSent(displaced_error())));
    }
}

/// What a publish that made room for a newer one is told.
pub(crate) fn displaced_error() -> ProviderError {
    ProviderError::new(ProviderErrorKind::QueueFull).with_source(Displaced)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use pubsub_core::{PublishStage, TopicName};

    use super::*;

    fn unsubscribe() -> Command {
        Command::Operation(Operation::Unsubscribe {
            filters: Vec::new(),
            reply: None,
        })
    }

    fn publish(inbox: &Inbox, size: usize) -> Result<(), ProviderErrorKind> {
        let topic = TopicName::new("t").unwrap();
        let message = OutboundMessage::new(topic, vec![0; size - 1]);
        let accepted = inbox.publish(message, OfflineOverflow::Refuse);
        accepted.map(drop).map_err(|error| error.kind())
    }

    #[test]
    fn publishes_are_bounded_by_number_and_by_bytes() {
        let inbox = Inbox::new(2, 10, Receipts::new());
        assert_eq!(
            publish(&inbox, 1000),
            Ok(()),
            "one is taken whatever its size"
        );
        assert_eq!(publish(&inbox, 1), Err(ProviderErrorKind::QueueFull));
        let mut batch = Batch::default();
        inbox.take(&mut batch, &mut Load::default());
        assert_eq!(
            publish(&inbox, 1),
            Err(ProviderErrorKind::QueueFull),
            "taken is not completed"
        );
        let mut completed = Load {
            messages: 1,
            bytes: 1000,
            operations: 0,
        };
        inbox.take(&mut batch, &mut completed);
        assert_eq!(completed, Load::default());
        assert_eq!(
            [1, 1, 1].map(|size| publish(&inbox, size)),
            [Ok(()), Ok(()), Err(ProviderErrorKind::QueueFull)]
        );
    }

    #[test]
    fn with_the_oldest_making_room_it_holds_no_more_than_the_bounds_by_itself() {
        let inbox = Inbox::new(3, 100, Receipts::new());
        let mut receipts: Vec<PublishReceipt> = Vec::new();
        let mut push = |size: usize| {
            let topic = TopicName::new("t").unwrap();
            let message = OutboundMessage::new(topic, vec![0; size - 1]);
            let accepted = inbox.publish(message, OfflineOverflow::DropOldest);
            accepted
                .map(|receipt| receipts.push(receipt))
                .map_err(|error| error.kind())
        };
        for _ in 0..10 {
            push(30).unwrap();
        }
        assert_eq!((inbox.load().messages, inbox.load().bytes), (3, 90));
        // A large one takes the room of three, and one that never fits takes none.
        push(71).unwrap();
        assert_eq!((inbox.load().messages, inbox.load().bytes), (1, 71));
        assert_eq!(push(101), Err(ProviderErrorKind::QueueFull));
        let mut batch = Batch::default();
        inbox.take(&mut batch, &mut Load::default());
        assert_eq!(batch.excess, Load::default());
        // What the task has is the task's to drop.
        for _ in 0..3 {
            push(20).unwrap();
        }
        inbox.take(&mut batch, &mut Load::default());
        assert_eq!((batch.excess.messages, batch.excess.bytes), (1, 31));
        let settled = receipts
            .iter()
            .filter(|receipt| receipt.stage() == PublishStage::Settled);
        assert_eq!(settled.count(), 10, "they made room");
    }

    #[test]
    fn calls_are_bounded_and_what_cannot_be_refused_is_not() {
        let inbox = Inbox::new(1, 1, Receipts::new());
        for _ in 0..MAX_OPERATIONS {
            inbox.call(unsubscribe()).unwrap();
        }
        let refused = inbox.call(unsubscribe()).unwrap_err();
        assert_eq!(refused.kind(), ProviderErrorKind::QueueFull);
        inbox.notify(unsubscribe());
        assert_eq!(inbox.load().operations, MAX_OPERATIONS + 1);
    }

    #[test]
    fn a_stop_lasts_until_somebody_connects_and_a_close_for_ever() {
        let inbox = Inbox::new(9, 9, Receipts::new());
        inbox.stop(ProviderErrorKind::NotAuthorized.into());
        assert_eq!(publish(&inbox, 1), Err(ProviderErrorKind::NotAuthorized));
        let connect = || Command::Connect {
            reply: oneshot::channel().0,
        };
        inbox.call(connect()).unwrap();
        assert_eq!(publish(&inbox, 1), Ok(()));
        inbox.close(Farewell::Drain);
        inbox.stop(ProviderErrorKind::NotAuthorized.into());
        assert_eq!(publish(&inbox, 1), Err(ProviderErrorKind::Closed));
        assert_eq!(
            inbox.call(connect()).unwrap_err().kind(),
            ProviderErrorKind::Closed
        );
    }

    #[derive(Default)]
    struct Rings(AtomicUsize);

    impl Wake for Rings {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_sleeper_is_woken_once_and_only_if_it_sleeps() {
        let inbox = Inbox::new(9, 9, Receipts::new());
        let rings = Arc::new(Rings::default());
        let bell = &Waker::from(Arc::clone(&rings));
        let rung = || rings.0.load(Ordering::Relaxed);
        assert!(inbox.sleep(bell, None, &mut Load::default()));
        inbox.notify(unsubscribe());
        inbox.notify(unsubscribe());
        assert_eq!(rung(), 1);
        assert!(
            !inbox.sleep(bell, None, &mut Load::default()),
            "something has come in"
        );
        inbox.take(&mut Batch::default(), &mut Load::default());
        assert!(inbox.sleep(bell, None, &mut Load::default()));
        inbox.close(Farewell::AtOnce);
        assert_eq!(rung(), 2);
        assert!(
            !inbox.sleep(bell, None, &mut Load::default()),
            "the farewell has not been seen"
        );
        assert!(inbox.sleep(bell, Some(Farewell::AtOnce), &mut Load::default()));
    }
}
