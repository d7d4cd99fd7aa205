//! The provider: an MQTT provider that signs its connections and keeps to the service's rules.

use std::fmt;
use std::sync::Arc;

use pubsub_core::{
    BoxFuture, DeliverySink, Drive, FilterRequest, MatchingRules, Network, OutboundMessage,
    Provider, ProviderError, PublishError, PublishReceipt, QoS, Refusal, RefusalKind, TopicFilter,
};
use pubsub_generic::{MqttProvider, RestoredPublish, Stats};

use crate::options::{AwsIotOptions, AwsIotOptionsError};
use crate::rules::ServiceRules;

/// Publishes and subscribes through AWS IoT Core.
///
/// It belongs into a [`PubSub`](pubsub_core::PubSub), whose `publish` and `subscribe` are what an application calls. To
/// keep a handle on the methods here, add an `Arc` of it.
///
/// Nothing happens until the first publish, subscribe or [`connect`](Self::connect). Then one task is started on the
/// current tokio runtime; it owns the connection, makes it again when it is lost (the service ends each after a day at
/// most), with fresh credentials and a fresh signature, and restores the subscriptions. Credentials that expire do not
/// end a connection that stands.
///
/// ```no_run
/// use std::sync::Arc;
/// use pubsub_aws_iot::{AwsIotOptions, AwsIotProvider, DEFAULT_NAME, EnvironmentCredentials, Json, PubSub};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let options = AwsIotOptions::new("a1b2c3example-ats.iot.eu-west-1.amazonaws.com")
///     .credentials(EnvironmentCredentials::new());
/// let provider = Arc::new(AwsIotProvider::new(options)?);
/// let pubsub = PubSub::new();
/// pubsub.add_provider(DEFAULT_NAME, Arc::clone(&provider))?;
///
/// provider.connect().await?;
/// pubsub.publish("chat/lobby", Json(&"hello")).await?;
/// println!("{:?}", provider.stats());
/// # Ok(()) }
/// ```
pub struct AwsIotProvider {
    mqtt: MqttProvider,
    rules: ServiceRules,
    host: String,
    region: Option<String>,
}

impl AwsIotProvider {
    /// A provider for the options' endpoint.
    ///
    /// # Errors
    ///
    /// The first rule that the options break. Nothing is sent, and no runtime is needed.
    pub fn new(options: AwsIotOptions) -> Result<Self, AwsIotOptionsError> {
        let (connection, mqtt, rules) = options.build()?;
        let mqtt = MqttProvider::with_connect(mqtt, connection.connect)?;
        rules.check_client_id(mqtt.client_id())?;
        Ok(Self {
            mqtt,
            rules,
            host: connection.host,
            region: connection.region,
        })
    }

    /// The Client Identifier, chosen or made up.
    #[must_use]
    pub fn client_id(&self) -> &str {
        self.mqtt.client_id()
    }

    /// The endpoint's host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The region, given or understood from the endpoint: what connections are signed for. `None` with a custom authorizer
    /// at an endpoint that does not name it.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// Connects now, instead of with the first publish or subscribe, and resolves when MQTT is connected. After a failure
    /// that ended all attempts it starts them again.
    ///
    /// # Errors
    ///
    /// Why the attempt failed, or the next one where none was under way; a refusal by the service is an
    /// [`ServiceRefusal`](crate::ServiceRefusal) in the chain of sources. Unless the error says that retrying is
    /// pointless, the provider goes on trying.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the answer, not the connection.
    pub async fn connect(&self) -> Result<(), ProviderError> {
        self.mqtt.connect().await
    }

    /// Tells that the host's network came up or went down, where the host knows. While it is down no attempts are made;
    /// when it comes up the next one is made at once.
    pub fn network(&self, network: Network) {
        self.mqtt.network(network);
    }

    /// The publishes that came back from the session's [store](pubsub_generic::MqttOptions::store), each with a receipt that
    /// tells what becomes of it; none the second time. See
    /// [`MqttProvider::take_restored`](pubsub_generic::MqttProvider::take_restored).
    #[must_use]
    pub fn take_restored(&self) -> Vec<RestoredPublish> {
        self.mqtt.take_restored()
    }

    /// What has happened so far, and what is under way.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.mqtt.stats()
    }
}

impl Provider for AwsIotProvider {
    fn attach(&self, sink: DeliverySink) -> Result<(), ProviderError> {
        self.mqtt.attach(sink)
    }

    fn matching_rules(&self) -> MatchingRules {
        self.mqtt.matching_rules()
    }

    fn driver(&self) -> Option<Arc<dyn Drive>> {
        self.mqtt.driver()
    }

    /// Resolves at QoS 0 when the message is handed to the socket, at QoS 1 with the service's PUBACK.
    fn publish(&self, message: OutboundMessage) -> PublishReceipt {
        match self.rules.check_message(&message) {
            Ok(()) => self.mqtt.publish(message),
            Err(violation) => PublishReceipt::ready(Err(PublishError::NotSent(violation.into()))),
        }
    }

    /// Resolves when the service has answered for every filter, or the subscribe timeout has passed. Filters that break
    /// a rule are refused alone; the others are subscribed.
    fn subscribe(
        &self,
        requests: Vec<FilterRequest>,
    ) -> BoxFuture<'static, Result<Vec<Result<QoS, Refusal>>, ProviderError>> {
        let mut refused = Vec::with_capacity(requests.len());
        let mut sound = Vec::with_capacity(requests.len());
        for request in requests {
            match self.rules.check_filter(&request.filter) {
                Ok(()) => {
                    sound.push(request);
                    refused.push(None);
                }
                Err(violation) => {
                    refused.push(Some(Refusal::from(ProviderError::from(violation))));
                }
            }
        }
        // Put in line now, whenever the answer is waited for.
        let answers = (!sound.is_empty()).then(|| self.mqtt.subscribe(sound));
        Box::pin(async move {
            let mut answers = match answers {
                Some(answers) => answers.await?,
                None => Vec::new(),
            }
            .into_iter();
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
        self.mqtt.unsubscribe(filters)
    }

    fn release(&self, filters: Vec<TopicFilter>) {
        self.mqtt.release(filters);
    }

    fn close(&self) -> BoxFuture<'static, Result<(), ProviderError>> {
        self.mqtt.close()
    }
}

impl fmt::Debug for AwsIotProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsIotProvider")
            .field("host", &self.host)
            .field("region", &self.region)
            .field("mqtt", &self.mqtt)
            .finish_non_exhaustive()
    }
}
