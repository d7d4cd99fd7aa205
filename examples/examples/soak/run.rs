//! One soak: the broker, two clients, four streams of messages, and the judgement.

use std::{
    error::Error,
    num::NonZeroU8,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use pubsub_core::{Continuity, Event, Events, OfflinePolicy, PubSub, QoS};
use pubsub_generic::{
    DEFAULT_NAME, Jitter, MqttOptions, MqttProvider, ProtocolVersion, Reconnect, SessionMode,
};
use testkit::{
    mosquitto::{Broker, Installation},
    proxy::{Cut, Proxy},
};
use tokio::{net::TcpStream, sync::Notify, task::JoinSet};

use crate::{
    broker,
    ledger::{Ledger, Repeats},
    network::{self, Fate},
    random::Random,
    vigil::{Memory, PATIENCE, Standstill, resident_kib},
};

/// Messages that each publisher has on the way to the subscriber, at each QoS. Without this bound the
/// broker would queue more and more for a client whose connections are worse than the other's.
const WINDOW: u64 = 32;

/// Payloads are shorter than this, so that many cuts fall into the middle of one.
const PAYLOAD_END: u64 = 1500;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) version: ProtocolVersion,
    pub(crate) cuts: u64,
    pub(crate) seed: u64,
}

#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) rows: Vec<(&'static str, String)>,
    pub(crate) violations: Vec<String>,
}

type Failure = Box<dyn Error + Send + Sync>;

/// A client, and the proxy through which it sees the broker.
struct Client {
    name: &'static str,
    proxy: Proxy,
    pubsub: PubSub,
    provider: Arc<MqttProvider>,
}

/// What one client sends at one QoS, and the other receives.
struct Lane {
    from: &'static str,
    qos: QoS,
    ledger: Mutex<Ledger>,
    arrival: Notify,
}

impl Lane {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn topic(&self) -> String {
        format!("soak/{}/{}", self.from, level(self.qos))
    }
}

/// Runs it to the end.
///
/// # Errors
///
/// When the stage cannot be set. What the clients do wrong is among the figures.
pub(crate) async fn run(mosquitto: &Installation, plan: Plan) -> Result<Figures, Failure> {
    let broker = broker::start(mosquitto, &[]).await?;
    let mut beside = JoinSet::new();
    beside.spawn(broker::keep_awake(
        TcpStream::connect(broker.tcp_address()).await?,
    ));
    let clients = [
        Client::start("alice", &broker, plan.version).await?,
        Client::start("bob", &broker, plan.version).await?,
    ];
    let lanes: Arc<[Lane]> = clients
        .iter()
        .flat_map(|client| {
            [QoS::AtLeastOnce, QoS::ExactlyOnce].map(|qos| Lane {
                from: client.name,
                qos,
                ledger: Mutex::default(),
                arrival: Notify::new(),
            })
        })
        .collect();
    let mut receiving = JoinSet::new();
    for (client, other) in [(0, 1), (1, 0)] {
        let messages = clients[client]
            .pubsub
            .subscribe(format!("soak/{}/+", clients[other].name))
            .qos(QoS::ExactlyOnce)
            .await?;
        receiving.spawn(receive(messages.events(), Arc::clone(&lanes)));
    }
    for client in &clients {
        // The broker must know the session before anything is cut; then it has to keep it.
        client.provider.connect().await?;
    }

    let begin = Instant::now();
    let mut violations = Vec::new();
    let mut fates = [0; Fate::ALL.len()];
    let mut memory = Memory::default();
    let standstill = Standstill::default();
    tokio::select! {
        () = standstill.watch(|| lanes.iter().map(|lane| lane.ledger().progress()).collect()) => {
            violations.push(format!("no progress for {} s", PATIENCE.as_secs()));
        }
        outcome = cut_while_sending(&clients, &lanes, plan, &mut fates, &mut memory) => {
            violations.extend(outcome.err());
        }
        Some(ended) = receiving.join_next() => {
            violations.push(format!("a subscription ended: {ended:?}"));
        }
    }
    let elapsed = begin.elapsed();
    if !violations.is_empty() {
        describe_standstill(&clients, &lanes, &mut violations);
    }
    let connections: u64 = clients.iter().map(|c| c.provider.stats().connections).sum();
    for lane in lanes.iter() {
        violations.extend(lane.ledger().violations(&lane.topic(), repeats(lane.qos)));
    }
    violations.extend(memory.violation());
    for client in &clients {
        if let Err(error) = client.pubsub.close().await {
            violations.push(format!("{} did not close: {error}", client.name));
        }
    }
    let lost = receiving.join_all().await;
    violations.extend(lost.into_iter().filter_map(Result::err));

    let mut rows = vec![
        ("cuts", fates.iter().sum::<u64>().to_string()),
        ("MQTT connections", connections.to_string()),
        ("seconds", format!("{:.0}", elapsed.as_secs_f64())),
    ];
    rows.extend(message_rows(&lanes));
    rows.push(("longest standstill of a stream, ms", {
        standstill.longest().as_millis().to_string()
    }));
    rows.push(("memory after a fifth of the cuts, KiB", {
        shown(memory.warm)
    }));
    rows.push(("memory at the end, KiB", shown(memory.end)));
    let titles = [
        "connections left alone until cut",
        "cut after a number of bytes",
        "dribbling byte by byte",
        "delayed",
        "frozen for a while",
        "black holes",
        "dead at once",
    ];
    rows.extend(titles.into_iter().zip(fates.map(|n| n.to_string())));
    Ok(Figures { rows, violations })
}

impl Client {
    async fn start(
        name: &'static str,
        broker: &Broker,
        version: ProtocolVersion,
    ) -> Result<Self, Failure> {
        let proxy = Proxy::start(broker.ws_address()).await?;
        let milliseconds = Duration::from_millis;
        let reconnect = Reconnect::default()
            .first(milliseconds(2))
            .base(milliseconds(2))
            .cap(milliseconds(10))
            .jitter(Jitter::Full);
        let options = MqttOptions::new(proxy.ws_url())
            .client_id(name)
            .protocol_version(version)
            .session(SessionMode::Resumed {
                expiry: Duration::from_secs(3600),
            })
            .reconnect(reconnect)
            .offline(OfflinePolicy::Queue)
            // It is never the broker that hangs up here, so no message is to blame.
            .configure_session(|session| session.quarantine_after = NonZeroU8::MAX);
        let provider = Arc::new(MqttProvider::new(options)?);
        let pubsub = PubSub::new();
        pubsub.add_provider(DEFAULT_NAME, Arc::clone(&provider))?;
        Ok(Self {
            name,
            proxy,
            pubsub,
            provider,
        })
    }
}

/// All that happens between the first message and the last.
async fn cut_while_sending(
    clients: &[Client; 2],
    lanes: &Arc<[Lane]>,
    plan: Plan,
    fates: &mut [u64; Fate::ALL.len()],
    memory: &mut Memory,
) -> Result<(), String> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut sending = JoinSet::new();
    for at in 0..lanes.len() {
        let client = clients.iter().find(|client| client.name == lanes[at].from);
        let Some(client) = client else { continue };
        let random = Random::seeded(plan.seed.wrapping_add(100 + at as u64));
        sending.spawn(send(
            client.pubsub.clone(),
            Arc::clone(lanes),
            at,
            random,
            Arc::clone(&stop),
        ));
    }

    let mut random = [1, 2].map(|n| Random::seeded(plan.seed.wrapping_add(n)));
    let [first, second] = &mut random;
    let warm_up = plan.cuts / 5;
    for cuts in [warm_up, plan.cuts - warm_up] {
        let (one, other) = tokio::try_join!(
            network::torment(&clients[0].proxy, cuts / 2, first),
            network::torment(&clients[1].proxy, cuts.div_ceil(2), second),
        )?;
        for (sum, counts) in fates.iter_mut().zip(one.iter().zip(other)) {
            *sum += counts.0 + counts.1;
        }
        match memory.warm {
            None => memory.warm = resident_kib(),
            Some(_) => memory.end = resident_kib(),
        }
    }

    stop.store(true, Ordering::Relaxed);
    while sending.join_next().await.is_some() {}
    until(lanes, Ledger::is_complete).await;
    // What has gone through may still come again: after one more cut, and before one more message.
    for client in clients {
        client.proxy.cut_all(Cut::Reset);
    }
    for lane in lanes.iter() {
        for client in clients.iter().filter(|client| client.name == lane.from) {
            send_one(&client.pubsub, lane, &mut random[0]).await;
        }
    }
    until(lanes, Ledger::is_complete).await;
    Ok(())
}

/// Looks until it is so in every lane; [`Standstill`] bounds it.
async fn until(lanes: &[Lane], mut is_so: impl FnMut(&Ledger) -> bool) {
    while !lanes.iter().all(|lane| is_so(&lane.ledger())) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Keeps a window full of messages until told to stop, and then until each has its fate.
async fn send(
    pubsub: PubSub,
    lanes: Arc<[Lane]>,
    at: usize,
    mut random: Random,
    stop: Arc<AtomicBool>,
) {
    let lane = &lanes[at];
    let mut under_way = FuturesUnordered::new();
    loop {
        while !stop.load(Ordering::Relaxed) && lane.ledger().under_way() < WINDOW {
            under_way.push(send_one(&pubsub, lane, &mut random));
        }
        if under_way.is_empty() && stop.load(Ordering::Relaxed) {
            return;
        }
        tokio::select! {
            Some(()) = under_way.next() => {}
            () = lane.arrival.notified() => {}
        }
    }
}

/// Sends the next message at once; the future waits for its fate.
fn send_one<'a>(
    pubsub: &PubSub,
    lane: &'a Lane,
    random: &mut Random,
) -> impl Future<Output = ()> + use<'a> {
    let number = lane.ledger().send();
    let payload = payload(number, random.below(PAYLOAD_END));
    let message = pubsub.publish(lane.topic(), payload).qos(lane.qos);
    let publishing = message.send();
    async move {
        let outcome = publishing.await;
        lane.ledger().settle(number, outcome);
    }
}

/// Notes what arrives. Ends with the stream, or with what must not happen.
async fn receive(mut events: Events, lanes: Arc<[Lane]>) -> Result<(), String> {
    while let Some(event) = events.next().await {
        match event.map_err(|error| error.to_string())? {
            Event::Message(message) => {
                let lane = lanes.iter().find(|lane| message.topic == *lane.topic());
                let lane = lane.ok_or_else(|| format!("a message on {}", message.topic))?;
                match number_in(&message.payload) {
                    Some(number) => lane.ledger().arrive(number),
                    None => lane.ledger().damaged += 1,
                }
                lane.arrival.notify_one();
            }
            Event::Gap(gap) if gap.continuity == Continuity::Kept => {}
            other => return Err(format!("{other:?}")),
        }
    }
    Ok(())
}

/// The number, and then bytes that can be told from those of its neighbours.
fn payload(number: u64, length: u64) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.extend((0..length).map(|at| (number + at) as u8));
    payload
}

fn number_in(payload: &[u8]) -> Option<u64> {
    let (number, rest) = payload.split_first_chunk()?;
    let number = u64::from_be_bytes(*number);
    let is_whole = (number..).zip(rest).all(|(at, &byte)| at as u8 == byte);
    is_whole.then_some(number)
}

fn repeats(qos: QoS) -> Repeats {
    match qos {
        QoS::ExactlyOnce => Repeats::Forbidden,
        _ => Repeats::Allowed,
    }
}

fn shown(kib: Option<u64>) -> String {
    kib.map_or_else(|| "not known".to_owned(), |kib| kib.to_string())
}

fn level(qos: QoS) -> u8 {
    qos as u8
}

fn message_rows(lanes: &[Lane]) -> Vec<(&'static str, String)> {
    let sum = |qos, count: fn(&Ledger) -> u64| -> String {
        let lanes = lanes.iter().filter(|lane| lane.qos == qos);
        lanes
            .map(|lane| count(&lane.ledger()))
            .sum::<u64>()
            .to_string()
    };
    let (one, two) = (QoS::AtLeastOnce, QoS::ExactlyOnce);
    let lost = |ledger: &Ledger| ledger.lost().count() as u64;
    vec![
        ("QoS 1 messages sent", sum(one, |ledger| ledger.sent)),
        (
            "… confirmed to the publisher",
            sum(one, |ledger| ledger.confirmed),
        ),
        ("… received", sum(one, |ledger| ledger.arrived)),
        ("… lost", sum(one, lost)),
        ("… out of order", sum(one, |ledger| ledger.late)),
        (
            "… received once more (allowed)",
            sum(one, |ledger| ledger.repeated),
        ),
        ("QoS 2 messages sent", sum(two, |ledger| ledger.sent)),
        (
            "… confirmed to the publisher",
            sum(two, |ledger| ledger.confirmed),
        ),
        ("… received", sum(two, |ledger| ledger.arrived)),
        ("… lost", sum(two, lost)),
        ("… out of order", sum(two, |ledger| ledger.late)),
        ("… duplicates", sum(two, |ledger| ledger.repeated)),
    ]
}

/// For whoever has to find out why.
fn describe_standstill(clients: &[Client], lanes: &[Lane], told: &mut Vec<String>) {
    for client in clients {
        let watch = client.pubsub.connection(DEFAULT_NAME);
        let state = watch.map(|watch| watch.current());
        told.push(format!(
            "{}: {state:?}, {:?}, {:?}",
            client.name,
            client.provider.stats(),
            client.proxy.counts()
        ));
    }
    for lane in lanes {
        let ledger = lane.ledger();
        told.push(format!(
            "{}: {} sent, {} settled, {} arrived",
            lane.topic(),
            ledger.sent,
            ledger.settled(),
            ledger.arrived
        ));
    }
}
