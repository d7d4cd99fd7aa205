//! Request and response: questions on one topic, answers on another, paired by correlation data.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use pubsub_core::{
    Delivered, IntoPayload, IntoTopics, Message, Properties, ProviderName, PubSub, Publish,
    PublishError, QoS, SubscribeError, Subscription, TopicName,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Asks, and gives each answer to the one who asked (MQTT 5, its section 4.10).
///
/// It subscribes to a topic of its own and sends every request with that as its response topic and with correlation data
/// that nobody can guess. Whoever answers uses [`reply_to`].
///
/// ```no_run
/// use pubsub_core::{Json, PubSub};
/// use pubsub_generic::{Requester, RequesterOptions, reply_to};
///
/// # async fn run(pubsub: PubSub) -> Result<(), Box<dyn std::error::Error>> {
/// // Here somebody adds numbers.
/// let mut questions = pubsub.subscribe("math/add").await?;
/// let responder = pubsub.clone();
/// tokio::spawn(async move {
///     while let Some(Ok(question)) = questions.next().await {
///         let Ok((a, b)) = question.json::<(i64, i64)>() else { continue };
///         if let Ok(answer) = reply_to(&responder, &question, Json(&(a + b))) {
///             let _ = answer.await;
///         }
///     }
/// });
///
/// // And there somebody asks.
/// let requester = Requester::new(&pubsub, RequesterOptions::default()).await?;
/// let sum: i64 = requester.request("math/add", Json(&(2, 3))).await?.json()?;
/// # assert_eq!(sum, 5);
/// # Ok(()) }
/// ```
///
/// Before MQTT 5 a message has no such properties, and every request fails as
/// [not sent](pubsub_core::PublishError::NotSent).
///
/// A clone asks through the same subscription. With the last one gone, the subscription ends.
#[derive(Clone)]
pub struct Requester {
    pubsub: PubSub,
    response_topic: TopicName,
    options: Arc<RequesterOptions>,
    desk: Arc<Desk>,
    /// Reads the answers.
    _reader: Arc<Reader>,
}

/// How a [`Requester`] asks.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RequesterOptions {
    /// The response topic is this, a slash and a random UUID. Default `replies`. A broker's access rules have to let us
    /// subscribe to it, and those who answer publish to it.
    pub topic_prefix: String,
    /// The provider to ask through; by default the only one.
    pub provider: Option<ProviderName>,
    /// The quality of service of requests and, at most, of answers. Default [`QoS::AtLeastOnce`].
    pub qos: QoS,
    /// How long an answer may take, counted from the call. Default 30 s.
    pub timeout: Duration,
    /// How many requests may wait for their answers; one more fails at once. Default 1,000: each holds a map entry and a
    /// waiting task.
    pub max_outstanding: NonZeroUsize,
}

const DEFAULT_OUTSTANDING: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

impl Default for RequesterOptions {
    fn default() -> Self {
        Self {
            topic_prefix: "replies".to_owned(),
            provider: None,
            qos: QoS::AtLeastOnce,
            timeout: Duration::from_secs(30),
            max_outstanding: DEFAULT_OUTSTANDING,
        }
    }
}

/// What a [`Requester`] has under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequesterStats {
    /// Requests that wait for their answers.
    pub outstanding: usize,
    /// Messages on the response topic that nobody waited for, and that were dropped: answers that came too late or twice,
    /// and whatever others send there.
    pub unmatched: u64,
}

impl Requester {
    /// Subscribes to a response topic of its own.
    ///
    /// # Errors
    ///
    /// The subscription was refused or could not be made; or the topic prefix is no topic.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes the subscription back.
    pub async fn new(pubsub: &PubSub, options: RequesterOptions) -> Result<Self, RequestError> {
        let random = crate::provider::Randomness::draw().map_err(|_| RequestError::NoRandomness)?;
        let unique = random.uuid();
        let response_topic = TopicName::new(format!("{}/{unique}", options.topic_prefix))
            .map_err(|error| RequestError::Publish(PublishError::Topic(error)))?;
        let mut subscribe = pubsub.subscribe(response_topic.as_str()).qos(options.qos);
        if let Some(provider) = &options.provider {
            subscribe = subscribe.provider(provider.clone());
        }
        let answers = subscribe.await.map_err(RequestError::Subscribe)?;
        let desk = Arc::new(Desk::default());
        let reader = tokio::spawn(read(answers, Arc::clone(&desk)));
        Ok(Self {
            pubsub: pubsub.clone(),
            response_topic,
            options: Arc::new(options),
            desk,
            _reader: Arc::new(Reader(reader)),
        })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    ///
    /// It could not be sent; the broker knows of nobody who would get it (QoS 1 and 2, where the broker says so); no answer
    /// came in time; too many are under way; or the subscription for answers has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the request; an answer that comes all the same is counted and dropped.
    pub async fn request(
        &self,
        topic: impl IntoTopics,
        payload: impl IntoPayload,
    ) -> Result<Message, RequestError> {
        let mut waiting = self.desk.wait(self.options.max_outstanding.get())?;
        let mut properties = Properties::default();
        properties.response_topic = Some(self.response_topic.clone());
        properties.correlation_data = Some(Bytes::copy_from_slice(&waiting.id));
        let mut publish = self
            .pubsub
            .publish(topic, payload)
            .qos(self.options.qos)
            .properties(properties);
        if let Some(provider) = &self.options.provider {
            publish = publish.provider(provider.clone());
        }
        let mut sending = Some(publish.send());
        let answered = std::future::poll_fn(move |cx| {
            // The answer may well be there before the acknowledgement.
            if let Poll::Ready(answer) = Pin::new(&mut waiting.answer).poll(cx) {
                return Poll::Ready(answer.map_err(|_| RequestError::Closed));
            }
            if let Some(publishing) = &mut sending
                && let Poll::Ready(outcome) = pin!(publishing).poll(cx)
            {
                sending = None;
                match outcome {
                    Ok(Delivered::ConfirmedWithoutSubscribers) => {
                        return Poll::Ready(Err(RequestError::NobodyListens));
                    }
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(RequestError::Publish(error))),
                }
            }
            Poll::Pending
        });
        tokio::time::timeout(self.options.timeout, answered)
            .await
            .unwrap_or(Err(RequestError::TimedOut))
    }

    /// Where the answers go.
    #[must_use]
    pub fn response_topic(&self) -> &TopicName {
        &self.response_topic
    }

    /// What is under way.
    #[must_use]
    pub fn stats(&self) -> RequesterStats {
        RequesterStats {
            outstanding: self.desk.lock().waiting.len(),
            unmatched: self.desk.unmatched.load(Ordering::Relaxed),
        }
    }
}

impl fmt::Debug for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows the topic can answer.
        f.debug_struct("Requester")
            .field("options", &self.options)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// The answer to a request that arrived: to the topic that it names, with the correlation data that it carries, at its
/// quality of service, through the provider that it came by. It is sent when it is awaited.
///
/// Where it goes is for the one who asked to say, so let your broker's access rules say where this client may publish.
///
/// # Errors
///
/// The message names no response topic: nobody waits for an answer.
pub fn reply_to<'a>(
    pubsub: &'a PubSub,
    request: &Message,
    payload: impl IntoPayload,
) -> Result<Publish<'a>, NotARequest> {
    let topic = request
        .properties
        .response_topic
        .as_ref()
        .ok_or(NotARequest)?;
    let mut properties = Properties::default();
    properties
        .correlation_data
        .clone_from(&request.properties.correlation_data);
    Ok(pubsub
        .publish(topic, payload)
        .qos(request.qos)
        .properties(properties)
        .provider(request.provider.clone()))
}

/// The message names no response topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotARequest;

impl fmt::Display for NotARequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message names no response topic")
    }
}

impl StdError for NotARequest {}

/// Why a request has no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum RequestError {
    /// The subscription for the answers could not be made.
    Subscribe(SubscribeError),
    /// The request was not sent, or was refused, or it is not known whether it arrived; the source says which.
    Publish(PublishError),
    /// The broker took the request and said that nobody subscribes to its topic.
    NobodyListens,
    /// No answer came in time. The request may have been carried out.
    TimedOut,
    /// As many requests wait as [may](RequesterOptions::max_outstanding). Nothing was sent.
    TooMany,
    /// The subscription for the answers has ended, so none will come.
    Closed,
    /// The system's source of randomness does not answer.
    NoRandomness,
}

impl RequestError {
    /// Whether the same request may be answered later without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Publish(error) => error.is_retryable(),
            Self::NobodyListens | Self::TimedOut | Self::TooMany => true,
            Self::Subscribe(_) | Self::Closed | Self::NoRandomness => false,
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subscribe(_) => "answers cannot be subscribed to",
            Self::Publish(_) => "the request was not delivered",
            Self::NobodyListens => "nobody subscribes to the topic of the request",
            Self::TimedOut => "no answer in time",
            Self::TooMany => "too many requests wait for their answers",
            Self::Closed => "the subscription for the answers has ended",
            Self::NoRandomness => "the system's source of randomness does not answer",
        })
    }
}

impl StdError for RequestError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Subscribe(error) => Some(error),
            Self::Publish(error) => Some(error),
            _ => None,
        }
    }
}

/// Correlation data: 128 random bits, so that nobody who does not see a request can answer it.
type RequestId = [u8; 16];

/// Where answers are picked up.
#[derive(Default)]
struct Desk {
    state: Mutex<Pigeonholes>,
    unmatched: AtomicU64,
}

#[derive(Default)]
struct Pigeonholes {
    waiting: HashMap<RequestId, oneshot::Sender<Message>>,
    closed: bool,
}

/// One request's place at the desk. Dropping it gives the place up.
struct Waiting {
    desk: Arc<Desk>,
    id: RequestId,
    answer: oneshot::Receiver<Message>,
}

impl Desk {
    fn wait(self: &Arc<Self>, max: usize) -> Result<Waiting, RequestError> {
        let mut id = RequestId::default();
        getrandom::fill(&mut id).map_err(|_| RequestError::NoRandomness)?;
        let mut state = self.lock();
        if state.closed {
            return Err(RequestError::Closed);
        }
        if state.waiting.len() >= max {
            return Err(RequestError::TooMany);
        }
        let (sender, answer) = oneshot::channel();
        state.waiting.insert(id, sender);
        Ok(Waiting {
            desk: Arc::clone(self),
            id,
            answer,
        })
    }

    fn hand_over(&self, answer: Message) {
        let id = answer.properties.correlation_data.as_deref();
        let place = id
            .and_then(|id| RequestId::try_from(id).ok())
            .and_then(|id| self.lock().waiting.remove(&id));
        if place.is_none_or(|place| place.send(answer).is_err()) {
            self.unmatched.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pigeonholes> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.desk.lock().waiting.remove(&self.id);
    }
}

/// The task that reads, ended with the last handle.
struct Reader(JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn read(mut answers: Subscription, desk: Arc<Desk>) {
    while let Some(answer) = answers.next().await {
        // Errors of a subscription end it, or are for filters: there is but one.
        if let Ok(answer) = answer {
            desk.hand_over(answer);
        }
    }
    desk.close();
}
