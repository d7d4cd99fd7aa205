//! The registry of providers, and the verbs: publish and subscribe, on all of them or on one by name.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use crate::connection::ConnectionWatch;
use crate::error::{ProviderError, RegistryError, UnknownProvider};
use crate::into::{IntoFilters, IntoTopics};
use crate::message::ProviderName;
use crate::payload::IntoPayload;
use crate::provider::Provider;
use crate::publish::Publish;
use crate::router::{Asked, Router};
use crate::subscribe::Subscribe;

/// A registry of providers, to publish and subscribe through all of them or through one by name.
///
/// A clone leads to the same registry. There is no global one: as many as one likes live side by side.
/// The providers stay while the last clone or the last [`Subscription`](crate::Subscription) does; then they are dropped,
/// which is not as clean as [`close`](Self::close).
///
/// ```
/// use pubsub_core::{Json, MemoryProvider, PubSub};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pubsub = PubSub::new();
/// pubsub.add_provider("memory", MemoryProvider::new())?;
///
/// let mut messages = pubsub.subscribe("chat/+").await?;
/// pubsub.publish("chat/lobby", Json(&"hello")).await?;
///
/// let message = messages.next().await.ok_or("ended")??;
/// assert_eq!(message.topic, "chat/lobby");
/// assert_eq!(message.json::<String>()?, "hello");
/// messages.unsubscribe().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct PubSub {
    registry: Arc<Registry>,
}

/// In the order in which they were added; few, so a list.
#[derive(Default)]
pub(crate) struct Registry {
    routers: RwLock<Vec<Arc<Router>>>,
}

impl PubSub {
    /// A registry without providers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a provider under a name that is not taken. Subscriptions made before do not extend to it.
    ///
    /// To keep a handle on the provider's own type, add an `Arc` of it; one that is chosen at run time is a
    /// `Box<dyn Provider>`.
    ///
    /// # Errors
    /// The name is taken, or the provider does not let itself be attached.
    pub fn add_provider(
        &self,
        name: impl Into<ProviderName>,
        provider: impl Provider,
    ) -> Result<(), RegistryError> {
        let name = name.into();
        let mut routers = self.registry.write();
        if routers.iter().any(|router| *router.name() == name) {
            return Err(RegistryError::NameTaken(name));
        }
        let router = Router::new(name);
        router
            .install(Arc::new(provider))
            .map_err(RegistryError::Provider)?;
        routers.push(router);
        Ok(())
    }

    /// Closes a provider cleanly and removes it. Streams that it alone served end; those that others
    /// serve too go on.
    ///
    /// # Errors
    /// No provider has this name; or it closed with an error, and is removed all the same.
    ///
    /// # Cancel safety
    /// Once polled, dropping it loses only the answer: the provider is removed, its streams end, and it
    /// goes on closing by itself.
    pub async fn remove_provider(&self, name: &str) -> Result<(), RegistryError> {
        let router = {
            let mut routers = self.registry.write();
            let at = routers
                .iter()
                .position(|router| **router.name() == *name)
                .ok_or_else(|| UnknownProvider::new(name.into()))?;
            routers.remove(at)
        };
        shut_down(router).await.map_err(RegistryError::Provider)
    }

    /// Closes the provider of this name cleanly, puts another in its place and moves the subscriptions
    /// over. Subscribers see a gap; a filter that the new provider refuses is
    /// [lost](crate::SubscriptionError::FilterLost) to them. This is also how a provider is reconfigured
    /// while running.
    ///
    /// Publishes in between fail with kind [`Closed`](crate::ProviderErrorKind::Closed).
    ///
    /// # Errors
    /// No provider has this name; or the new one does not let itself be attached, and then the name has
    /// no provider any more and its streams end; or it could not take the subscriptions over as a whole,
    /// and then it is in place without them.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropped halfway, the name may be left with a closed provider. Call it again, or
    /// remove the provider.
    pub async fn replace_provider(
        &self,
        name: &str,
        provider: impl Provider,
    ) -> Result<(), RegistryError> {
        let router = self.registry.router(name)?;
        let old = router.provider();
        if let Some(old) = &old {
            // Its failure to close cleanly does not keep the new one out.
            let _ = old.close().await;
        }
        match router.install(Arc::new(provider)) {
            Ok(None) => Ok(()),
            Ok(Some(Asked { known, answer })) => {
                let filters: Vec<_> = known.into_iter().map(|(filter, _)| filter).collect();
                router
                    .replaced(&filters, answer.await)
                    .map_err(RegistryError::Provider)
            }
            Err(error) => {
                self.registry
                    .write()
                    .retain(|other| !Arc::ptr_eq(other, &router));
                router.shut();
                Err(RegistryError::Provider(error))
            }
        }
    }

    /// The names of the providers, in the order in which they were added.
    #[must_use]
    pub fn providers(&self) -> Vec<ProviderName> {
        self.registry
            .read(|routers| routers.iter().map(|router| router.name().clone()).collect())
    }

    /// Follows the connection of a provider.
    ///
    /// # Errors
    /// No provider has this name.
    pub fn connection(&self, name: &str) -> Result<ConnectionWatch, UnknownProvider> {
        Ok(self.registry.router(name)?.hub().watch())
    }

    /// What a provider's routing holds now.
    ///
    /// # Errors
    /// No provider has this name.
    pub fn routing_stats(&self, name: &str) -> Result<RoutingStats, UnknownProvider> {
        let router = self.registry.router(name)?;
        let (filters, subscriptions) = router.usage();
        Ok(RoutingStats {
            filters,
            subscriptions,
            unrouted: router.unrouted(),
        })
    }

    /// Closes and removes every provider. Every stream ends.
    ///
    /// # Errors
    /// The first error of a provider; all are closed and removed all the same.
    ///
    /// # Cancel safety
    /// As [`remove_provider`](Self::remove_provider).
    pub async fn close(&self) -> Result<(), RegistryError> {
        let routers = std::mem::take(&mut *self.registry.write());
        let closing: Vec<_> = routers.into_iter().map(shut_down).collect();
        let mut result = Ok(());
        for closed in closing {
            result = result.and(closed.await.map_err(RegistryError::Provider));
        }
        result
    }

    /// Publishes a payload on one topic or several. Nothing happens until the result is awaited or
    /// [sent](Publish::send).
    ///
    /// ```
    /// # use pubsub_core::{Empty, Json, MemoryProvider, PubSub, QoS};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pubsub = PubSub::new();
    /// # pubsub.add_provider("memory", MemoryProvider::new())?;
    /// pubsub.publish("chat/lobby", "as it is").await?;
    /// pubsub.publish(["a", "b"], Json(&[1, 2, 3])).qos(QoS::AtLeastOnce).await?;
    /// pubsub.publish("state", Empty).retain().provider("memory").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish(&self, topics: impl IntoTopics, payload: impl IntoPayload) -> Publish<'_> {
        Publish::new(&self.registry, topics, payload)
    }

    /// Subscribes to one filter or several. Nothing happens until the result is awaited.
    ///
    /// ```
    /// # use pubsub_core::{MemoryProvider, PubSub, QoS};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pubsub = PubSub::new();
    /// # pubsub.add_provider("memory", MemoryProvider::new())?;
    /// let lobby = pubsub.subscribe("chat/lobby").await?;
    /// let much = pubsub.subscribe(["a", "b/#"]).qos(QoS::AtLeastOnce).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe(&self, filters: impl IntoFilters) -> Subscribe {
        Subscribe::new(Arc::clone(&self.registry), filters)
    }

    /// Subscribes to what arrives and no subscription's filter matches: what a service still had for an
    /// earlier life of this client, say, before the application got to subscribing. Without it such
    /// messages go back to the provider as [dropped](crate::Settlement::Dropped).
    ///
    /// Options of filters do nothing here; limits and the provider's name do.
    pub fn subscribe_unmatched(&self) -> Subscribe {
        Subscribe::unmatched(Arc::clone(&self.registry))
    }
}

impl fmt::Debug for PubSub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PubSub")
            .field("providers", &self.providers())
            .finish()
    }
}

/// Asks the provider to close at once; the future waits for it and then ends the streams, which it also
/// does when it is dropped.
fn shut_down(router: Arc<Router>) -> impl Future<Output = Result<(), ProviderError>> {
    struct ShutOnDrop(Arc<Router>);
    impl Drop for ShutOnDrop {
        fn drop(&mut self) {
            self.0.shut();
        }
    }
    let closing = router.provider().map(|provider| provider.close());
    let guard = ShutOnDrop(router);
    async move {
        let result = match closing {
            Some(closing) => closing.await,
            None => Ok(()),
        };
        drop(guard);
        result
    }
}

impl Registry {
    pub(crate) fn router(&self, name: &str) -> Result<Arc<Router>, UnknownProvider> {
        self.read(|routers| {
            routers
                .iter()
                .find(|router| **router.name() == *name)
                .cloned()
        })
        .ok_or_else(|| UnknownProvider::new(name.into()))
    }

    pub(crate) fn selected(
        &self,
        name: Option<&ProviderName>,
    ) -> Result<Vec<Arc<Router>>, UnknownProvider> {
        match name {
            Some(name) => self.router(name).map(|router| vec![router]),
            None => Ok(self.read(Clone::clone)),
        }
    }

    #[inline]
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Vec<Arc<Router>>) -> T) -> T {
        look(&self.routers.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Arc<Router>>> {
        self.routers.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registry {
    /// Breaks the circle of provider, sink and router.
    fn drop(&mut self) {
        for router in self.write().drain(..) {
            router.shut();
        }
    }
}

/// What a provider's routing holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoutingStats {
    /// Filters in use.
    pub filters: usize,
    /// Subscriptions that use them.
    pub subscriptions: usize,
    /// Messages that came and that no subscription wanted, since the provider was added.
    pub unrouted: u64,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}
