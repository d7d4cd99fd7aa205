//! The state of a provider's connection, with its reason, as a value that can be watched.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use crate::causes::WithCauses;
use crate::error::ProviderError;

/// How a provider stands, in Amplify's eight words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Connected, and all is well.
    Connected,
    /// Connected, but the host's network is down, so the connection is likely dead.
    ConnectedPendingNetwork,
    /// Not connected though wanted; another attempt follows.
    ConnectionDisrupted,
    /// Not connected though wanted, and the host's network is down.
    ConnectionDisruptedPendingNetwork,
    /// An attempt to connect is under way.
    Connecting,
    /// Connected, but no longer wanted: closing.
    ConnectedPendingDisconnect,
    /// Not connected and not wanted.
    #[default]
    Disconnected,
    /// Connected, but the peer owes a sign of life.
    ConnectedPendingKeepAlive,
}

impl ConnectionState {
    /// The state's name, as in Amplify.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "Connected",
            Self::ConnectedPendingNetwork => "ConnectedPendingNetwork",
            Self::ConnectionDisrupted => "ConnectionDisrupted",
            Self::ConnectionDisruptedPendingNetwork => "ConnectionDisruptedPendingNetwork",
            Self::Connecting => "Connecting",
            Self::ConnectedPendingDisconnect => "ConnectedPendingDisconnect",
            Self::Disconnected => "Disconnected",
            Self::ConnectedPendingKeepAlive => "ConnectedPendingKeepAlive",
        }
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The four facts that a [`ConnectionState`] is made of.
///
/// A provider keeps one of these, changes it by what happens (see the methods) and hands it to
/// [`DeliverySink::set_connection_state`](crate::DeliverySink::set_connection_state) after each change.
///
/// ```
/// use pubsub_core::{ConnectionFacts, ConnectionState};
///
/// let mut facts = ConnectionFacts::default();
/// assert_eq!(facts.state(), ConnectionState::Disconnected);
/// facts.opening();
/// assert_eq!(facts.state(), ConnectionState::Connecting);
/// facts.established();
/// facts.closed();
/// assert_eq!(facts.state(), ConnectionState::ConnectionDisrupted);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionFacts {
    /// The host's network.
    pub network: Network,
    /// The connection as it is.
    pub link: Link,
    /// The connection as it should be.
    pub intent: Intent,
    /// Whether the peer shows signs of life.
    pub keep_alive: KeepAlive,
}

impl ConnectionFacts {
    /// The host's network is up, nothing is connected and nothing is wanted.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An attempt to connect begins.
    pub fn opening(&mut self) {
        self.intent = Intent::Connected;
        self.link = Link::Connecting;
    }

    /// The attempt succeeded.
    pub fn established(&mut self) {
        self.link = Link::Connected;
        self.keep_alive = KeepAlive::Healthy;
    }

    /// The provider begins to close the connection of its own accord.
    pub fn closing(&mut self) {
        self.intent = Intent::Disconnected;
    }

    /// The connection is gone, or the attempt failed.
    pub fn closed(&mut self) {
        self.link = Link::Disconnected;
        self.keep_alive = KeepAlive::Healthy;
    }

    /// The provider gives up: no connection, and none will be tried.
    pub fn failed(&mut self) {
        self.intent = Intent::Disconnected;
        self.closed();
    }

    /// The host says that its network is up or down.
    pub fn network(&mut self, network: Network) {
        self.network = network;
    }

    /// A sign of life came in time, or did not.
    pub fn keep_alive(&mut self, keep_alive: KeepAlive) {
        self.keep_alive = keep_alive;
    }

    /// The state these facts amount to: the first rule that holds, in Amplify's order.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        match (self.link, self.intent, self.network, self.keep_alive) {
            (Link::Connected, _, Network::Down, _) => ConnectionState::ConnectedPendingNetwork,
            (Link::Connected, Intent::Disconnected, ..) => {
                ConnectionState::ConnectedPendingDisconnect
            }
            (Link::Disconnected, Intent::Connected, Network::Down, _) => {
                ConnectionState::ConnectionDisruptedPendingNetwork
            }
            (Link::Disconnected, Intent::Connected, ..) => ConnectionState::ConnectionDisrupted,
            (Link::Connected, .., KeepAlive::Overdue) => ConnectionState::ConnectedPendingKeepAlive,
            (Link::Connecting, ..) => ConnectionState::Connecting,
            (Link::Disconnected, ..) => ConnectionState::Disconnected,
            (Link::Connected, ..) => ConnectionState::Connected,
        }
    }
}

/// Whether the host has a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "two ways, closed")]
pub enum Network {
    /// It has, as far as is known.
    #[default]
    Up,
    /// It has not.
    Down,
}

/// The connection as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_enums,
    reason = "closed: the eight states are made of these"
)]
pub enum Link {
    /// There is none.
    #[default]
    Disconnected,
    /// There will be one, or not.
    Connecting,
    /// There is one.
    Connected,
}

/// The connection as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "two ways, closed")]
pub enum Intent {
    /// None is wanted.
    #[default]
    Disconnected,
    /// One is wanted.
    Connected,
}

/// Whether the peer shows signs of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "two ways, closed")]
pub enum KeepAlive {
    /// It does.
    #[default]
    Healthy,
    /// It should have answered by now.
    Overdue,
}

/// A [`ConnectionState`] and what led to it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// The state.
    pub state: ConnectionState,
    /// Why, where there is a reason beyond the ordinary course: the error that ended the connection or
    /// the attempt.
    pub reason: Option<ProviderError>,
}

/// The state, and after a colon the reason with its causes, if there is one.
impl fmt::Display for ConnectionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)?;
        match &self.reason {
            Some(reason) => write!(f, ": {}", WithCauses::new(reason)),
            None => Ok(()),
        }
    }
}

/// Follows the state of one provider's connection. A clone follows on its own from the same place.
///
/// As a `Stream` it yields every change, each once and in order, beginning with the state at the time it
/// was made, and ends when the provider is removed. A follower that falls more than
/// [`HISTORY`](Self::HISTORY) changes behind skips the oldest.
#[derive(Debug)]
pub struct ConnectionWatch {
    hub: Arc<ConnectionHub>,
    /// The number of the next change to yield.
    next: u64,
    id: u64,
}

impl ConnectionWatch {
    /// How many changes are kept for a slow follower: enough for some ten reconnections.
    pub const HISTORY: usize = 64;

    /// The state now.
    #[must_use]
    pub fn current(&self) -> ConnectionStatus {
        self.hub.current()
    }

    /// The next change. `None` once the provider is removed and every change was seen.
    ///
    /// # Cancel safety
    /// Cancel safe: a change that was not returned comes with the next call.
    pub async fn changed(&mut self) -> Option<ConnectionStatus> {
        std::future::poll_fn(|cx| self.poll_change(cx)).await
    }

    /// Waits until the connection is in this state: goes through the changes that were not seen yet, and
    /// then waits for more. Returns at once if the last change seen led to it and holds. `None` if the
    /// provider is removed before.
    ///
    /// So a sequence of calls follows a sequence of states, however quickly they came.
    ///
    /// # Cancel safety
    /// Cancel safe; changes seen on the way are consumed.
    pub async fn reached(&mut self, state: ConnectionState) -> Option<ConnectionStatus> {
        if let Some(now) = self.hub.latest_if_seen(self.next)
            && now.state == state
        {
            return Some(now);
        }
        loop {
            let status = self.changed().await?;
            if status.state == state {
                return Some(status);
            }
        }
    }

    fn poll_change(&mut self, cx: &Context<'_>) -> Poll<Option<ConnectionStatus>> {
        let mut history = self.hub.lock();
        if let Some((number, status)) = history.first_from(self.next) {
            let status = status.clone();
            self.next = number + 1;
            return Poll::Ready(Some(status));
        }
        if history.closed {
            return Poll::Ready(None);
        }
        match history.waiting.iter_mut().find(|(id, _)| *id == self.id) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => history.waiting.push((self.id, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Clone for ConnectionWatch {
    fn clone(&self) -> Self {
        Self {
            hub: Arc::clone(&self.hub),
            next: self.next,
            id: self.hub.lock().new_follower(),
        }
    }
}

impl Drop for ConnectionWatch {
    fn drop(&mut self) {
        let unseen = self.hub.lock().lose_follower(self.id);
        drop(unseen);
    }
}

impl Stream for ConnectionWatch {
    type Item = ConnectionStatus;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_change(cx)
    }
}

/// Where a provider's states are kept and handed out.
#[derive(Debug)]
pub(crate) struct ConnectionHub(Mutex<History>);

#[derive(Debug)]
struct History {
    latest: ConnectionStatus,
    /// Those before it, as far as there are followers: with it at most [`ConnectionWatch::HISTORY`].
    earlier: VecDeque<ConnectionStatus>,
    /// The number of the change that comes after the latest.
    end: u64,
    closed: bool,
    followers: usize,
    /// Followers that wait, at most one entry each.
    waiting: Vec<(u64, Waker)>,
    ids: u64,
}

impl History {
    /// The first kept change from this number on, and its number.
    fn first_from(&self, next: u64) -> Option<(u64, &ConnectionStatus)> {
        let latest = self.end - 1;
        let oldest = latest - self.earlier.len() as u64;
        let number = next.max(oldest);
        if number >= latest {
            return (number == latest).then_some((latest, &self.latest));
        }
        let status = self.earlier.get((number - oldest) as usize)?;
        Some((number, status))
    }

    fn new_follower(&mut self) -> u64 {
        self.followers += 1;
        self.ids += 1;
        self.ids
    }

    /// What nobody will see now is for the caller to drop, with no lock held.
    fn lose_follower(&mut self, id: u64) -> VecDeque<ConnectionStatus> {
        self.waiting.retain(|(other, _)| *other != id);
        self.followers -= 1;
        match self.followers {
            0 => std::mem::take(&mut self.earlier),
            _ => VecDeque::new(),
        }
    }
}

impl ConnectionHub {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(History {
            latest: ConnectionStatus::default(),
            earlier: VecDeque::new(),
            end: 1,
            closed: false,
            followers: 0,
            waiting: Vec::new(),
            ids: 0,
        })))
    }

    pub(crate) fn watch(self: &Arc<Self>) -> ConnectionWatch {
        let mut history = self.lock();
        let (next, id) = (history.end - 1, history.new_follower());
        ConnectionWatch {
            hub: Arc::clone(self),
            next,
            id,
        }
    }

    pub(crate) fn current(&self) -> ConnectionStatus {
        self.lock().latest.clone()
    }

    /// The state now, to a follower that has seen every change.
    fn latest_if_seen(&self, next: u64) -> Option<ConnectionStatus> {
        let history = self.lock();
        (next == history.end).then(|| history.latest.clone())
    }

    /// Records a state, unless it is the one that holds already.
    pub(crate) fn set(&self, status: ConnectionStatus) {
        let mut history = self.lock();
        if history.closed || history.latest.state == status.state {
            return;
        }
        let before = std::mem::replace(&mut history.latest, status);
        if history.followers > 0 {
            if history.earlier.len() + 1 == ConnectionWatch::HISTORY {
                history.earlier.pop_front();
            }
            history.earlier.push_back(before);
        }
        history.end += 1;
        Self::wake(history);
    }

    /// No change will follow.
    pub(crate) fn close(&self) {
        let mut history = self.lock();
        history.closed = true;
        Self::wake(history);
    }

    fn wake(mut history: MutexGuard<'_, History>) {
        let waiting = std::mem::take(&mut history.waiting);
        drop(history);
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ProviderErrorKind;
    use futures_util::{FutureExt as _, StreamExt as _};

    #[test]
    fn a_status_shows_its_state_and_why() {
        let mut status = ConnectionStatus::default();
        assert_eq!(status.to_string(), "Disconnected");
        let reason = ProviderError::new(ProviderErrorKind::NotConnected).with_source("no route");
        status.reason = Some(reason);
        assert_eq!(status.to_string(), "Disconnected: not connected: no route");
    }

    #[test]
    fn translates_all_facts_as_amplify_does() {
        use ConnectionState as S;
        for link in [Link::Connected, Link::Connecting, Link::Disconnected] {
            for intent in [Intent::Connected, Intent::Disconnected] {
                for network in [Network::Up, Network::Down] {
                    for keep_alive in [KeepAlive::Healthy, KeepAlive::Overdue] {
                        // The eight rules as a list of ifs, in their published order.
                        let connected = link == Link::Connected;
                        let disconnected = link == Link::Disconnected;
                        let wanted = intent == Intent::Connected;
                        let down = network == Network::Down;
                        let want = if connected && down {
                            S::ConnectedPendingNetwork
                        } else if connected && !wanted {
                            S::ConnectedPendingDisconnect
                        } else if disconnected && wanted && down {
                            S::ConnectionDisruptedPendingNetwork
                        } else if disconnected && wanted {
                            S::ConnectionDisrupted
                        } else if connected && keep_alive == KeepAlive::Overdue {
                            S::ConnectedPendingKeepAlive
                        } else if link == Link::Connecting {
                            S::Connecting
                        } else if disconnected {
                            S::Disconnected
                        } else {
                            S::Connected
                        };
                        let facts = ConnectionFacts {
                            network,
                            link,
                            intent,
                            keep_alive,
                        };
                        assert_eq!(facts.state(), want, "{facts:?}");
                    }
                }
            }
        }
    }

    fn status(facts: ConnectionFacts) -> ConnectionStatus {
        ConnectionStatus {
            state: facts.state(),
            reason: None,
        }
    }

    #[test]
    fn yields_the_sequences_of_amplify() {
        use ConnectionState as S;
        let hub = ConnectionHub::new();
        let mut watch = hub.watch();
        let mut facts = ConnectionFacts::new();
        let steps: &[fn(&mut ConnectionFacts)] = &[
            ConnectionFacts::opening,
            ConnectionFacts::established,
            ConnectionFacts::closed,
            ConnectionFacts::opening,
            ConnectionFacts::opening,
            ConnectionFacts::closed,
            ConnectionFacts::opening,
            ConnectionFacts::established,
            ConnectionFacts::closing,
            ConnectionFacts::closed,
        ];
        for step in steps {
            step(&mut facts);
            hub.set(status(facts));
        }
        hub.close();
        let mut seen = Vec::new();
        while let Some(Some(status)) = watch.next().now_or_never() {
            seen.push(status.state);
        }
        assert_eq!(
            seen,
            [
                S::Disconnected,
                S::Connecting,
                S::Connected,
                S::ConnectionDisrupted,
                S::Connecting,
                S::ConnectionDisrupted,
                S::Connecting,
                S::Connected,
                S::ConnectedPendingDisconnect,
                S::Disconnected
            ]
        );
        assert_eq!(
            watch.changed().now_or_never().map(|end| end.is_none()),
            Some(true)
        );
    }

    #[test]
    fn reached_follows_the_order_and_never_goes_back() {
        use ConnectionState as S;
        let hub = ConnectionHub::new();
        let mut facts = ConnectionFacts::new();
        facts.opening();
        facts.established();
        hub.set(status(facts));
        let mut watch = hub.watch();
        facts.closed();
        hub.set(status(facts));
        let mut reached = |state| watch.reached(state).now_or_never().map(|_| ());
        assert!(reached(S::ConnectionDisrupted).is_some());
        assert!(reached(S::ConnectionDisrupted).is_some(), "it still holds");
        assert!(reached(S::Connected).is_none(), "that was before");
        facts.opening();
        hub.set(status(facts));
        facts.established();
        hub.set(status(facts));
        assert!(reached(S::Connected).is_some());
    }

    #[test]
    fn keeps_a_bounded_history_and_the_reason() {
        let hub = ConnectionHub::new();
        let mut watch = hub.watch();
        let mut facts = ConnectionFacts::new();
        for _ in 0..ConnectionWatch::HISTORY {
            facts.opening();
            hub.set(status(facts));
            facts.closed();
            let reason = Some(ProviderErrorKind::TimedOut.into());
            hub.set(ConnectionStatus {
                state: facts.state(),
                reason,
            });
        }
        let mut seen = 0;
        while watch.next().now_or_never().is_some() {
            seen += 1;
        }
        assert_eq!(seen, ConnectionWatch::HISTORY);
        let kind = watch.current().reason.map(|reason| reason.kind());
        assert_eq!(kind, Some(ProviderErrorKind::TimedOut));
    }

    #[test]
    fn keeps_what_was_before_for_followers_alone() {
        use ConnectionState as S;
        let hub = ConnectionHub::new();
        let mut facts = ConnectionFacts::new();
        let mut opened_and_established = || {
            facts.closed();
            facts.opening();
            hub.set(status(facts));
            facts.established();
            hub.set(status(facts));
        };
        opened_and_established();
        assert!(hub.lock().earlier.is_empty());
        let mut watch = hub.watch();
        let other = watch.clone();
        opened_and_established();
        drop(other);
        let seen: Vec<_> = std::iter::from_fn(|| watch.next().now_or_never().flatten()).collect();
        let seen: Vec<_> = seen.iter().map(|status| status.state).collect();
        assert_eq!(seen, [S::Connected, S::Connecting, S::Connected]);
        drop(watch);
        assert!(hub.lock().earlier.is_empty());
        assert_eq!(hub.current().state, S::Connected);
    }

    #[test]
    fn forgets_followers_that_left() {
        let hub = ConnectionHub::new();
        for _ in 0..100 {
            let mut watch = hub.watch();
            assert!(watch.next().now_or_never().is_some());
            assert!(watch.next().now_or_never().is_none());
        }
        assert!(hub.lock().waiting.is_empty());
    }
}
