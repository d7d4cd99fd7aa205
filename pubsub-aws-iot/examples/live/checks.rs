//! The questions, in order, and what is found out.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pubsub_aws_iot::core::{OutboundMessage, TopicName};
use pubsub_aws_iot::{
    AwsCredentials, AwsIotOptions, AwsIotProvider, CognitoCredentials, ControlPlane,
    CredentialFreshness, CredentialSource, DEFAULT_NAME, HttpsPublisher, PlainWs, ProtocolVersion,
    PubSub, QoS, Reconnect, ServiceRefusal, ServiceRules, region_of_host,
};
use sigv4_presign::{Payload, Request, presign, sign_headers};
use tokio::time::timeout;
use ws_transport::{Connector, Endpoint, TlsConfig};

use crate::raw;
use crate::settings::Settings;

/// How long anything may take that is not watched.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far a signature's date is moved, in seconds, to find how much the service tolerates.
const SHIFTS: [i64; 10] = [-960, -840, -330, -270, -60, 60, 270, 330, 840, 960];

/// Subscriptions beyond the documented 50 show whether that was raised.
const MAX_SUBSCRIPTIONS: usize = 101;

/// After a message came, one that comes once more would be here by then.
const ONCE_MORE: Duration = Duration::from_secs(3);

/// One question and its answer.
pub(crate) struct Finding {
    pub(crate) question: &'static str,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    Found(String),
    LeftOut(&'static str),
    Failed(String),
}

type Answer = Result<String, Box<dyn Error>>;

/// Finds out everything, one after the other, and tells each as soon as it is known.
pub(crate) async fn walk(settings: &Settings, mut tell: impl FnMut(&Finding)) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |question, outcome| {
        let finding = Finding { question, outcome };
        tell(&finding);
        findings.push(finding);
    };
    let live = match Live::new(settings).await {
        Ok(live) => live,
        Err(error) => {
            found("where is the endpoint?", Outcome::Failed(chain(&*error)));
            return findings;
        }
    };
    found(
        "where is the endpoint?",
        Outcome::Found(format!("{}, in {}", live.endpoint, live.region)),
    );
    macro_rules! find {
        ($question:literal, $answer:expr) => {
            found($question, outcome($answer.await))
        };
        ($question:literal, $given:expr, $left_out:literal, $answer:expr) => {
            match $given {
                Some(given) => find!($question, $answer(given)),
                None => found($question, Outcome::LeftOut($left_out)),
            }
        };
    }
    find!(
        "does a message come back over MQTT 5?",
        live.round_trip(ProtocolVersion::V5)
    );
    find!(
        "does a message come back over MQTT 3.1.1?",
        live.round_trip(ProtocolVersion::V311)
    );
    find!("how much skew does the device gateway take?", live.skew());
    find!("what does X-Amz-Expires mean to it?", live.expires());
    find!("what does a refusal carry?", live.refusal());
    let denied = || settings.denied_topic.as_deref();
    find!(
        "how is a denied publish or subscription told under MQTT 5?",
        denied(),
        "needs PUBSUB_LIVE_DENIED_TOPIC",
        |topic| live.denied(topic, ProtocolVersion::V5)
    );
    find!(
        "how is it told under MQTT 3.1.1?",
        denied(),
        "needs PUBSUB_LIVE_DENIED_TOPIC",
        |topic| live.denied(topic, ProtocolVersion::V311)
    );
    find!(
        "does a message come once, or once for each filter that it matches?",
        live.overlap()
    );
    find!(
        "how many subscriptions may a connection have?",
        live.subscriptions()
    );
    find!(
        "is a publish over HTTPS taken, signed for iotdata?",
        live.https()
    );
    find!(
        "is it taken, signed for iotdevicegateway?",
        live.https_signed_for("iotdevicegateway")
    );
    find!(
        "does an identity pool give credentials that connect?",
        settings.identity_pool.as_deref(),
        "needs PUBSUB_LIVE_IDENTITY_POOL",
        |pool| live.cognito(pool)
    );
    find!(
        "does an open connection outlive its credentials, and how does it end?",
        settings.watch,
        "needs PUBSUB_LIVE_WATCH_SECS",
        |time| live.watch(time)
    );
    findings
}

fn outcome(answer: Answer) -> Outcome {
    match answer {
        Ok(found) => Outcome::Found(found),
        Err(error) => Outcome::Failed(chain(&*error)),
    }
}

/// What is asked, and as whom.
struct Live<'a> {
    settings: &'a Settings,
    endpoint: String,
    region: String,
    connector: Connector,
}

impl<'a> Live<'a> {
    async fn new(settings: &'a Settings) -> Result<Self, Box<dyn Error>> {
        let mut connector = Connector::new();
        if let Some(pem) = &settings.roots_pem {
            connector = connector.tls(TlsConfig::builder().add_roots_pem(pem.clone()).build()?);
        }
        let endpoint = match &settings.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => describe_endpoint(settings, &connector).await?,
        };
        let host = match endpoint.split_once("://") {
            Some(_) => endpoint.parse::<Endpoint>()?.host().as_str().to_owned(),
            None => endpoint.clone(),
        };
        let region = settings.region.clone().or_else(|| region_of_host(&host));
        Ok(Self {
            settings,
            region: region.ok_or("AWS_REGION is not set, and the endpoint does not name it")?,
            endpoint,
            connector,
        })
    }

    fn options(&self) -> AwsIotOptions {
        AwsIotOptions::new(&self.endpoint)
            .region(&self.region)
            .plain_ws(PlainWs::LoopbackForTesting)
            .credentials(self.settings.credentials())
            .connector(self.connector.clone())
    }

    /// The endpoint's URL, for signatures that are made here.
    fn url(&self) -> String {
        match self.endpoint.split_once("://") {
            Some(_) => self.endpoint.clone(),
            None => format!("wss://{}/mqtt", self.endpoint),
        }
    }

    async fn round_trip(&self, version: ProtocolVersion) -> Answer {
        let client = Client::new(self.options().protocol_version(version))?;
        let topic = client.topic("echo");
        let mut messages = limited(client.pubsub.subscribe(topic.as_str())).await??;
        let start = Instant::now();
        limited(client.pubsub.publish(topic, "21.5").qos(QoS::AtLeastOnce)).await??;
        let message = limited(messages.next()).await?.ok_or("it ended")??;
        let time = start.elapsed();
        client.close().await?;
        Ok(format!("{:?} in {} ms", message.text()?, time.as_millis()))
    }

    /// The status of an upgrade with a URL that was signed at this time, and perhaps for so long.
    async fn upgrade(
        &self,
        signed_at: SystemTime,
        expires: Option<Duration>,
    ) -> Result<raw::Head, Box<dyn Error>> {
        let url = self.url();
        let mut settings = sigv4_presign::Settings::iot(&self.region);
        if let Some(expires) = expires {
            settings = settings.expires(expires);
        }
        let request = Request::new("GET", &url);
        let signed = presign(&request, &self.settings.keys(), signed_at, &settings)?;
        let endpoint: Endpoint = url.parse()?;
        let (_, rest) = signed.as_str().split_once("://").ok_or("no URL")?;
        let path = rest
            .find('/')
            .and_then(|at| rest.get(at..))
            .ok_or("no path")?;
        raw::upgrade(&self.connector, endpoint.target(), path).await
    }

    async fn skew(&self) -> Answer {
        let now = self.upgrade(SystemTime::now(), None).await?.status;
        if now != 101 {
            return Err(format!("signed for now it is refused, with {now}").into());
        }
        let mut found = String::from("signed so many seconds late or early:");
        for shift in SHIFTS {
            let by = Duration::from_secs(shift.unsigned_abs());
            let time = match shift < 0 {
                true => SystemTime::now() - by,
                false => SystemTime::now() + by,
            };
            let status = self.upgrade(time, None).await?.status;
            write!(found, "\n{shift:+}: {status}")?;
        }
        Ok(found)
    }

    async fn expires(&self) -> Answer {
        let mut found = String::new();
        for (age, expires) in [(60, 30), (60, 90), (420, 3600)] {
            let time = SystemTime::now() - Duration::from_secs(age);
            let expires_in = Duration::from_secs(expires);
            let status = self.upgrade(time, Some(expires_in)).await?.status;
            writeln!(found, "of {expires} s, after {age} s: {status}")?;
        }
        Ok(found.trim_end().to_owned())
    }

    async fn refusal(&self) -> Answer {
        let wrong = AwsCredentials::new(&self.settings.access_key_id, "not the secret key");
        let client = Client::new(self.options().credentials(wrong))?;
        let Err(error) = limited(client.provider.connect()).await? else {
            return Err("a wrong secret key was taken".into());
        };
        let refusal = ServiceRefusal::find(&error);
        let mut found = refusal.map_or_else(|| chain(&error), ToString::to_string);
        let long_ago = SystemTime::now() - Duration::from_secs(7200);
        let head = self.upgrade(long_ago, None).await?;
        write!(
            found,
            "\nsigned two hours ago: {}, with {}",
            head.status,
            head.header_names.join(", ")
        )?;
        Ok(found)
    }

    async fn denied(&self, topic: &str, version: ProtocolVersion) -> Answer {
        let mut found = String::new();
        let client = Client::new(self.options().protocol_version(version))?;
        let published = limited(client.pubsub.publish(topic, "21.5").qos(QoS::AtLeastOnce)).await;
        match published {
            Ok(Err(error)) => writeln!(found, "publish: {}", chain(&error))?,
            Ok(Ok(_)) => return Err("the publish was taken".into()),
            Err(_) => writeln!(found, "publish: no answer in {PATIENCE:?}")?,
        }
        let client = Client::new(self.options().protocol_version(version))?;
        match limited(client.pubsub.subscribe(topic)).await {
            Ok(Err(error)) => write!(found, "subscribe: {}", chain(&error))?,
            Ok(Ok(_)) => return Err("the subscription was granted".into()),
            Err(_) => write!(found, "subscribe: no answer in {PATIENCE:?}")?,
        }
        Ok(found)
    }

    async fn overlap(&self) -> Answer {
        let client = Client::new(self.options())?;
        let topic = client.topic("twice");
        let filter = client.topic("+");
        let mut exact = limited(client.pubsub.subscribe(topic.as_str())).await??;
        let _wild = limited(client.pubsub.subscribe(filter)).await??;
        limited(client.pubsub.publish(topic, "21.5").qos(QoS::AtLeastOnce)).await??;
        limited(exact.next()).await?.ok_or("it ended")??;
        tokio::time::sleep(ONCE_MORE).await;
        let stats = client.provider.stats();
        // The copies are not delivered.
        let times = stats.messages_received + stats.copies_left_out;
        client.close().await?;
        Ok(format!("{times} times, for two filters"))
    }

    async fn subscriptions(&self) -> Answer {
        let mut rules = ServiceRules::default();
        rules.max_subscriptions = MAX_SUBSCRIPTIONS;
        let options = self.options().rules(rules);
        let client =
            Client::new(options.configure_mqtt(|mqtt| mqtt.reconnect(Reconnect::never())))?;
        let mut open = Vec::new();
        while open.len() < MAX_SUBSCRIPTIONS {
            let topic = client.topic(&format!("many/{}", open.len()));
            match limited(client.pubsub.subscribe(topic)).await? {
                Ok(subscription) => open.push(subscription),
                Err(error) => {
                    return Ok(format!("{}; the next one: {}", open.len(), chain(&error)));
                }
            }
        }
        client.close().await?;
        Ok(format!("{MAX_SUBSCRIPTIONS} at least"))
    }

    fn https_endpoint(&self) -> &str {
        let given = self.settings.https_endpoint.as_deref();
        given.unwrap_or(&self.endpoint)
    }

    async fn https(&self) -> Answer {
        let options = AwsIotOptions::new(self.https_endpoint())
            .region(&self.region)
            .plain_ws(PlainWs::LoopbackForTesting)
            .credentials(self.settings.credentials())
            .connector(self.connector.clone());
        let topic = TopicName::new("pubsub-live/https")?;
        HttpsPublisher::new(options)?
            .publish(&OutboundMessage::new(topic, "21.5"))
            .await?;
        Ok("yes".into())
    }

    async fn https_signed_for(&self, service: &str) -> Answer {
        let endpoint = self.https_endpoint();
        let endpoint: Endpoint = match endpoint.split_once("://") {
            Some(_) => endpoint.parse()?,
            None => format!("wss://{endpoint}/mqtt").parse()?,
        };
        let target = endpoint.target();
        let path = "/topics/pubsub-live%2Fhttps?qos=0";
        let url = format!("https://{}{path}", target.host_header());
        let request = Request::new("POST", &url).payload(Payload::Bytes(b"21.5"));
        let settings = sigv4_presign::Settings::new(&self.region, service);
        let now = SystemTime::now();
        let signed = sign_headers(&request, &self.settings.keys(), now, &settings)?;
        let mut headers = String::from("connection: close\r\n");
        for (name, value) in signed.iter() {
            write!(headers, "{name}: {value}\r\n")?;
        }
        let head = raw::send(&self.connector, target, "POST", path, &headers, "21.5").await?;
        Ok(format!("{}", head.status))
    }

    async fn cognito(&self, pool: &str) -> Answer {
        let source = CognitoCredentials::new(pool)?.connector(self.connector.clone());
        let source = match &self.settings.cognito_url {
            Some(url) => source.endpoint(url)?,
            None => source,
        };
        let given = limited(source.credentials(CredentialFreshness::Any)).await??;
        let left = given
            .expiry()
            .and_then(|end| end.duration_since(SystemTime::now()).ok());
        let identity = source.identity_id().ok_or("no identity")?;
        let client = Client::new(self.options().credentials(source).client_id(&identity))?;
        let connected = match limited(client.provider.connect()).await? {
            Ok(()) => "connected".to_owned(),
            Err(error) => format!("not connected: {}", chain(&error)),
        };
        client.close().await?;
        let left = left.unwrap_or_default().as_secs();
        Ok(format!("{identity}, for {left} s; {connected}"))
    }

    async fn watch(&self, time: Duration) -> Answer {
        let client = Client::new(self.options())?;
        limited(client.provider.connect()).await??;
        let mut connection = client.pubsub.connection(DEFAULT_NAME)?;
        let start = Instant::now();
        let mut found = format!("connected with MQTT 5, watched for {time:?}");
        while let Some(left) = time.checked_sub(start.elapsed()) {
            match timeout(left, connection.changed()).await {
                Ok(Some(status)) => {
                    write!(found, "\n{} s: {status:?}", start.elapsed().as_secs())?;
                }
                Ok(None) => break,
                Err(_) => write!(found, "\nat the end: {:?}", connection.current())?,
            }
        }
        client.close().await?;
        Ok(found)
    }
}

/// The account's endpoint, by the control plane.
pub(crate) async fn describe_endpoint(
    settings: &Settings,
    connector: &Connector,
) -> Result<String, Box<dyn Error>> {
    let region = settings.region.as_deref().unwrap_or_default();
    let control = ControlPlane::new(region, settings.credentials())?.connector(connector.clone());
    let control = match &settings.control_url {
        Some(url) => control.endpoint(url)?,
        None => control,
    };
    Ok(control.describe_endpoint().await?)
}

/// A provider in a registry of its own.
struct Client {
    pubsub: PubSub,
    provider: Arc<AwsIotProvider>,
}

impl Client {
    fn new(options: AwsIotOptions) -> Result<Self, Box<dyn Error>> {
        let provider = Arc::new(AwsIotProvider::new(options)?);
        let pubsub = PubSub::new();
        pubsub.add_provider(DEFAULT_NAME, Arc::clone(&provider))?;
        Ok(Self { pubsub, provider })
    }

    /// A topic that nobody else has.
    fn topic(&self, name: &str) -> String {
        format!("pubsub-live/{}/{name}", self.provider.client_id())
    }

    async fn close(self) -> Result<(), Box<dyn Error>> {
        limited(self.pubsub.close()).await??;
        Ok(())
    }
}

async fn limited<F: IntoFuture>(work: F) -> Result<F::Output, Box<dyn Error>> {
    let ended = timeout(PATIENCE, work.into_future()).await;
    ended.map_err(|_| format!("nothing happened in {PATIENCE:?}").into())
}

/// An error with all that is behind it.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
