//! The process that is killed. It tells what it was promised, line by line, on its standard output.

use std::{
    error::Error,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use pubsub_core::{Deliveries, OfflinePolicy, Provider as _, PubSub, PublishStage, QoS};
use pubsub_generic::{
    DEFAULT_NAME, FileSessionStore, MqttOptions, MqttProvider, ProtocolVersion, Reconnect,
    SessionMode,
};

use crate::{
    feeder::{END, FED},
    random::Random,
    receipts::VICTIM,
};

/// Messages under way at a time.
const WINDOW: usize = 64;
/// Payloads are shorter than this.
const PAYLOAD_END: u64 = 1500;

/// From one start to the kill.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) url: String,
    pub(crate) file: PathBuf,
    pub(crate) version: ProtocolVersion,
    /// Tells its messages from those of other lives.
    pub(crate) number: u64,
    /// It only brings to an end what the others have left.
    pub(crate) is_last: bool,
}

pub(crate) async fn run(life: Life) -> ExitCode {
    match live(life).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("failed {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn live(life: Life) -> Result<(), Box<dyn Error>> {
    let options = MqttOptions::new(life.url)
        .client_id(VICTIM)
        .protocol_version(life.version)
        .session(SessionMode::Persistent {
            expiry: Duration::from_secs(3600),
        })
        .offline(OfflinePolicy::Queue)
        .reconnect(Reconnect::default().first(Duration::from_millis(2)))
        .close_timeout(Duration::from_secs(30))
        .store(FileSessionStore::open(life.file)?);
    let provider = Arc::new(MqttProvider::new(options)?);
    let pubsub = PubSub::new();
    pubsub.add_provider(DEFAULT_NAME, Arc::clone(&provider))?;
    let restored = provider.take_restored();
    say(format_args!("restored {}", restored.len()));
    let restored: FuturesUnordered<_> = restored
        .into_iter()
        .map(|publish| publish.receipt)
        .collect();
    let confirming = tokio::spawn(async move {
        restored
            .for_each(async |outcome| tell_failure(outcome.err()))
            .await;
    });
    let subscription = pubsub
        .subscribe(format!("{FED}#"))
        .qos(QoS::ExactlyOnce)
        .await?;
    say(format_args!("subscribed"));
    let receiving = tokio::spawn(receive(subscription.deliveries()));
    if life.is_last {
        receiving.await?;
        confirming.await?;
        provider.close().await?;
        return Ok(());
    }
    let mut random = Random::seeded(life.number);
    let mut under_way = FuturesUnordered::new();
    for number in 0_u64.. {
        if under_way.len() == WINDOW {
            under_way.next().await;
        }
        let qos = random.either(QoS::AtLeastOnce, QoS::ExactlyOnce);
        let name = format!("{} {} {number}", qos as u8, life.number);
        let mut payload = name.clone().into_bytes();
        payload.push(b' ');
        payload.resize(payload.len() + random.below(PAYLOAD_END) as usize, b'.');
        let message = pubsub.publish(format!("kill/{}", qos as u8), payload);
        for ticket in message.qos(qos).send_each()? {
            under_way.push(follow(ticket.receipt, name.clone()));
        }
    }
    Ok(())
}

/// Says what it has, and only then takes it, as whoever must not lose anything would do with his database. Until the last
/// message of each QoS.
async fn receive(mut deliveries: Deliveries) {
    let mut ends = 0;
    while ends < 2 {
        let delivery = match deliveries.next().await {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => return tell_failure(Some(error)),
            None => return say(format_args!("failed the subscription ended")),
        };
        let topic = delivery.message.topic.as_str();
        let name = topic.trim_start_matches(FED).replace('/', " ");
        say(format_args!("took {name}"));
        ends += usize::from(name.ends_with(END));
        if let Some(receipt) = delivery.receipt {
            receipt.take();
        }
    }
}

async fn follow(mut receipt: pubsub_core::PublishReceipt, name: String) {
    if receipt.reached(PublishStage::Stored).await.is_ok() {
        say(format_args!("stored {name}"));
    }
    tell_failure(receipt.await.err());
}

fn tell_failure(error: Option<impl Error>) {
    if let Some(error) = error {
        say(format_args!("failed {error}"));
    }
}

/// A whole line, or none if the end comes before.
fn say(line: std::fmt::Arguments<'_>) {
    let line = format!("{line}\n");
    let mut out = io::stdout().lock();
    let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    if written.is_err() {
        // Nobody listens any more.
        std::process::exit(1);
    }
}
