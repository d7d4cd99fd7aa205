//! Keeps what a source fetched, and fetches again in time.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime};

use pubsub_core::BoxFuture;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::{AwsCredentials, CredentialFreshness, CredentialSource, CredentialsError};

/// Temporary credentials are renewed when less than this is left of them, or a fifth of their life where that is less.
pub const MAX_MARGIN: Duration = Duration::from_secs(300);

/// The part of a life that the margin is at most.
const MARGIN_OF_LIFE: u32 = 5;

/// How much of the margin is added at random, at most, so that clients that started together do not renew together.
const JITTER_OF_MARGIN: u32 = 4;

/// After a success nothing is fetched again for this long, whoever asks and why.
const QUIET_AFTER_SUCCESS: Duration = Duration::from_secs(1);

/// After a failure, what is kept is given for this long before the source is asked again.
const QUIET_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Keeps what another source fetched until it is about to expire.
///
/// Credentials are renewed by whoever asks first after the margin has begun (five minutes or a fifth of their life,
/// whichever is shorter, and up to a quarter more at random). Others who ask meanwhile wait for that one, so that there
/// is never more than one request. If it fails in a passing way, the old ones are given as long as they live; those that
/// were refused are dropped. Credentials without an expiry are kept until they are refused.
///
/// It keeps the credentials of one identity: [`forget`](Self::forget) them when that changes.
///
/// ```
/// use pubsub_aws_iot::{AwsCredentials, CachedCredentials, credentials_fn};
///
/// let source = CachedCredentials::new(credentials_fn(|_| async {
///     // Ask a back end, which takes a while and costs something.
///     Ok(AwsCredentials::new("AKIDEXAMPLE", "secret").session_token("token"))
/// }));
/// # let _ = source;
/// ```
pub struct CachedCredentials<S> {
    source: S,
    kept: Mutex<Option<Kept>>,
    /// Counts the identities; what was kept for an earlier one is no longer given.
    identity: watch::Sender<u64>,
}

struct Kept {
    credentials: AwsCredentials,
    identity: u64,
    fetched_at: Instant,
    renew_at: Option<Instant>,
    ends_at: Option<Instant>,
}

impl<S: CredentialSource> CachedCredentials<S> {
    /// A cache, empty yet, over this source.
    #[must_use]
    pub fn new(source: S) -> Self {
        Self {
            source,
            kept: Mutex::new(None),
            identity: watch::Sender::new(0),
        }
    }

    /// The source.
    #[must_use]
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The identity has changed: what is kept is no longer given, and connections made with it end.
    pub fn forget(&self) {
        self.identity.send_modify(|identity| *identity += 1);
    }

    async fn give(
        &self,
        freshness: CredentialFreshness,
    ) -> Result<AwsCredentials, CredentialsError> {
        // Held while fetching: that is what makes it one request at a time.
        let mut kept = self.kept.lock().await;
        let identity = *self.identity.borrow();
        let now = Instant::now();
        let refused = freshness != CredentialFreshness::Any;
        if kept.as_ref().is_some_and(|kept| kept.identity != identity) {
            *kept = None;
        }
        if let Some(kept) = kept.as_ref()
            && (now.duration_since(kept.fetched_at) < QUIET_AFTER_SUCCESS
                || !(refused || kept.is_due(now)))
        {
            return Ok(kept.credentials.clone());
        }
        if refused {
            *kept = None;
        }
        match self.source.credentials(freshness).await {
            Ok(credentials) => {
                *kept = Some(Kept::new(credentials.clone(), identity));
                Ok(credentials)
            }
            Err(error) => {
                if !error.is_retryable() {
                    *kept = None;
                }
                let now = Instant::now();
                match kept.as_mut().filter(|kept| kept.is_alive(now)) {
                    Some(kept) => {
                        kept.renew_at = Some(now + QUIET_AFTER_FAILURE);
                        Ok(kept.credentials.clone())
                    }
                    None => Err(error),
                }
            }
        }
    }
}

impl Kept {
    fn new(credentials: AwsCredentials, identity: u64) -> Self {
        let now = Instant::now();
        let life = credentials.expiry().map(|end| {
            end.duration_since(SystemTime::now())
                .unwrap_or(Duration::ZERO)
        });
        Self {
            credentials,
            identity,
            fetched_at: now,
            renew_at: life.and_then(|life| now.checked_add(life - margin_of(life))),
            ends_at: life.and_then(|life| now.checked_add(life)),
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.renew_at.is_some_and(|at| at <= now) || !self.is_alive(now)
    }

    /// By either clock: the monotonic one stops while the machine sleeps, the other may be set.
    fn is_alive(&self, now: Instant) -> bool {
        self.ends_at.is_none_or(|at| now < at) && !self.credentials.is_expired(SystemTime::now())
    }
}

fn margin_of(life: Duration) -> Duration {
    let margin = (life / MARGIN_OF_LIFE).min(MAX_MARGIN);
    // Keyed anew by the standard library each time; good enough to spread.
    let random = RandomState::new().build_hasher().finish() as u32;
    let jitter = (margin / JITTER_OF_MARGIN).mul_f64(f64::from(random) / f64::from(u32::MAX));
    margin + jitter
}

impl<S: CredentialSource> CredentialSource for CachedCredentials<S> {
    fn credentials(
        &self,
        freshness: CredentialFreshness,
    ) -> BoxFuture<'_, Result<AwsCredentials, CredentialsError>> {
        Box::pin(self.give(freshness))
    }

    fn identity_changed(&self) -> Option<BoxFuture<'static, ()>> {
        let mut identity = self.identity.subscribe();
        Some(Box::pin(async move {
            if identity.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }))
    }
}

impl<S: fmt::Debug> fmt::Debug for CachedCredentials<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedCredentials")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex as StdMutex};

    use super::*;
    use crate::{CredentialsErrorKind, credentials_fn};

    const HOUR: Duration = Duration::from_secs(3600);

    /// What the source says next; an hour's credentials unless told otherwise.
    #[derive(Clone, Default)]
    struct Service {
        calls: Arc<AtomicU32>,
        fails: Arc<StdMutex<Option<CredentialsErrorKind>>>,
        life: Arc<StdMutex<Option<Duration>>>,
    }

    impl Service {
        fn cache(&self) -> Arc<CachedCredentials<impl CredentialSource + use<>>> {
            let service = self.clone();
            Arc::new(CachedCredentials::new(credentials_fn(move |_| {
                let service = service.clone();
                async move { service.fetch().await }
            })))
        }

        async fn fetch(&self) -> Result<AwsCredentials, CredentialsError> {
            let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
            let life = self.life.lock().unwrap().unwrap_or(HOUR);
            match *self.fails.lock().unwrap() {
                None => Ok(AwsCredentials::new(format!("AKID{call}"), "secret")
                    .expires_at(SystemTime::now() + life)),
                Some(CredentialsErrorKind::Refused) => Err(CredentialsError::refused("signed out")),
                Some(_) => Err(CredentialsError::unavailable("busy")),
            }
        }
    }

    async fn id(
        cache: &CachedCredentials<impl CredentialSource>,
        freshness: CredentialFreshness,
    ) -> Result<String, CredentialsErrorKind> {
        let given = cache.credentials(freshness).await;
        given
            .map(|credentials| credentials.access_key_id().to_owned())
            .map_err(|error| error.kind())
    }

    const ANY: CredentialFreshness = CredentialFreshness::Any;
    const RENEW: CredentialFreshness = CredentialFreshness::Renew;

    #[tokio::test(start_paused = true)]
    async fn they_are_kept_until_the_margin_begins() {
        let service = Service::default();
        let cache = service.cache();
        assert_eq!(id(&cache, ANY).await.unwrap(), "AKID1");
        // Five minutes, and up to a quarter of them for the jitter; the end is by the wall clock, which is read twice.
        let apart = Duration::from_secs(60);
        tokio::time::advance(HOUR - MAX_MARGIN * 5 / 4 - apart).await;
        assert_eq!(id(&cache, ANY).await.unwrap(), "AKID1");
        tokio::time::advance(MAX_MARGIN / 4 + 2 * apart).await;
        assert_eq!(id(&cache, ANY).await.unwrap(), "AKID2");
        // Of a short life, a fifth.
        *service.life.lock().unwrap() = Some(Duration::from_secs(1_000));
        tokio::time::advance(HOUR).await;
        assert_eq!(id(&cache, ANY).await.unwrap(), "AKID3");
        tokio::time::advance(Duration::from_secs(750) - apart).await;
        assert_eq!(id(&cache, ANY).await.unwrap(), "AKID3");
        tokio::time::advance(Duration::from_secs(50) + 2 * apart).await;
        assert_eq!(id(&cache, ANY).await.unwrap(), "AKID4");
    }

    #[test]
    fn the_margin_is_spread_at_random_over_a_quarter_of_itself() {
        for (life, margin) in [(HOUR, MAX_MARGIN), (HOUR / 36, HOUR / 36 / 5)] {
            let drawn: Vec<_> = (0..100).map(|_| margin_of(life)).collect();
            assert!(
                drawn
                    .iter()
                    .all(|drawn| (margin..=margin * 5 / 4).contains(drawn))
            );
            let (low, high) = (margin * 17 / 16, margin * 19 / 16);
            assert!(drawn.iter().any(|drawn| *drawn < low));
            assert!(drawn.iter().any(|drawn| *drawn > high));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_together_shares_one_request() {
        let service = Service::default();
        let cache = service.cache();
        let asking: Vec<_> = (0..20)
            .map(|n| {
                let cache = Arc::clone(&cache);
                let freshness = if n % 2 == 0 { ANY } else { RENEW };
                tokio::spawn(async move { id(&cache, freshness).await })
            })
            .collect();
        for asking in asking {
            assert_eq!(asking.await.unwrap().unwrap(), "AKID1");
        }
        // Nor does anybody get new ones within a second of a success.
        assert_eq!(id(&cache, RENEW).await.unwrap(), "AKID1");
        tokio::time::advance(QUIET_AFTER_SUCCESS).await;
        assert_eq!(id(&cache, RENEW).await.unwrap(), "AKID2");
        assert_eq!(service.calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_given_up_leaves_it_to_the_next() {
        let service = Service::default();
        let cache = service.cache();
        let cut = Duration::from_millis(5);
        assert!(tokio::time::timeout(cut, id(&cache, ANY)).await.is_err());
        assert_eq!(id(&cache, ANY).await.unwrap(), "AKID2");
    }

    #[tokio::test(start_paused = true)]
    async fn old_ones_are_given_while_they_live_if_the_failure_may_pass() {
        let service = Service::default();
        let cache = service.cache();
        id(&cache, ANY).await.unwrap();
        *service.fails.lock().unwrap() = Some(CredentialsErrorKind::Unavailable);
        tokio::time::advance(HOUR - Duration::from_secs(60)).await;
        assert_eq!(id(&cache, ANY).await.unwrap(), "AKID1");
        assert_eq!(service.calls.load(Ordering::SeqCst), 2);
        // Not asked again at once.
        assert_eq!(id(&cache, ANY).await.unwrap(), "AKID1");
        assert_eq!(service.calls.load(Ordering::SeqCst), 2);
        tokio::time::advance(HOUR).await;
        let dead = id(&cache, ANY).await;
        assert_eq!(dead, Err(CredentialsErrorKind::Unavailable));
        *service.fails.lock().unwrap() = None;
        assert_eq!(id(&cache, ANY).await.unwrap(), "AKID4");
    }

    #[tokio::test(start_paused = true)]
    async fn refused_ones_are_dropped() {
        let service = Service::default();
        let cache = service.cache();
        id(&cache, ANY).await.unwrap();
        tokio::time::advance(QUIET_AFTER_SUCCESS).await;
        // Refused by who was shown them: not given again, though new ones cannot be had.
        *service.fails.lock().unwrap() = Some(CredentialsErrorKind::Unavailable);
        assert_eq!(
            id(&cache, RENEW).await,
            Err(CredentialsErrorKind::Unavailable)
        );
        assert_eq!(
            id(&cache, ANY).await,
            Err(CredentialsErrorKind::Unavailable)
        );
        // Refused by who hands them out: the old ones go with it.
        *service.fails.lock().unwrap() = None;
        assert_eq!(id(&cache, ANY).await.unwrap(), "AKID4");
        *service.fails.lock().unwrap() = Some(CredentialsErrorKind::Refused);
        tokio::time::advance(HOUR - Duration::from_secs(60)).await;
        assert_eq!(id(&cache, ANY).await, Err(CredentialsErrorKind::Refused));
        *service.fails.lock().unwrap() = Some(CredentialsErrorKind::Unavailable);
        assert_eq!(
            id(&cache, ANY).await,
            Err(CredentialsErrorKind::Unavailable)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn another_identity_gets_its_own() {
        let service = Service::default();
        let cache = service.cache();
        id(&cache, ANY).await.unwrap();
        let changed = cache.identity_changed().unwrap();
        cache.forget();
        changed.await;
        assert_eq!(id(&cache, ANY).await.unwrap(), "AKID2");
        drop(cache.identity_changed());
    }
}
