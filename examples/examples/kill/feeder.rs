//! What the killed process is to receive, published in bytes: like the witness it shares no code with what it judges.

use std::collections::{BTreeSet, HashSet};

use testkit::probe::{Probe, ProbeError};
use tokio::sync::watch;

use crate::random::Random;

/// Below this the killed process subscribes; then come the QoS and the number.
pub(crate) const FED: &str = "in/";
/// In place of a number, for the last message of each QoS.
pub(crate) const END: &str = "end";
/// Published at a time.
const BATCH: usize = 16;
/// So many may be published and not answered when a life begins, or by it: what the broker keeps while nobody lives. Fewer than
/// the Receive Maximum of MQTT 5, which this broker would not obey for what it sends again, and be hung up on.
const BACKLOG: usize = 200;

/// How far the lives have come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) has_subscribed: bool,
    /// How many messages the broker had an answer to when the life began.
    pub(crate) answered: usize,
    pub(crate) is_last: bool,
}

/// Publishes until the last life begins. Returns what the broker has confirmed, as `QoS number`.
pub(crate) async fn feed(
    url: String,
    seed: u64,
    mut progress: watch::Receiver<Progress>,
) -> Result<BTreeSet<String>, ProbeError> {
    let mut probe = Probe::connect(&url, "feeder").await?;
    let mut random = Random::seeded(seed);
    let mut fed = BTreeSet::new();
    // Those who have progressed may be gone; then this ends, too.
    let _ = progress
        .wait_for(|now| now.has_subscribed || now.is_last)
        .await;
    loop {
        let go_on = |now: &Progress| now.is_last || fed.len() < now.answered + BACKLOG;
        let Ok(now) = progress.wait_for(go_on).await.map(|now| *now) else {
            return Ok(fed);
        };
        if now.is_last {
            break;
        }
        let names: Vec<_> = (fed.len()..fed.len() + BATCH)
            .map(|number| (random.either(1, 2), number.to_string()))
            .collect();
        publish(&mut probe, &names, &mut fed).await?;
    }
    let ends = [1, 2].map(|qos| (qos, END.to_owned()));
    publish(&mut probe, &ends, &mut fed).await?;
    Ok(fed)
}

async fn publish(
    probe: &mut Probe,
    names: &[(u8, String)],
    fed: &mut BTreeSet<String>,
) -> Result<(), ProbeError> {
    let mut packets = Vec::new();
    for ((qos, name), id) in names.iter().zip(1_u8..) {
        let topic = format!("{FED}{qos}/{name}");
        let len = topic.len() as u8;
        packets.extend([0x30 | qos << 1, len + 4, 0, len]);
        packets.extend(topic.as_bytes());
        packets.extend([0, id]);
        fed.insert(format!("{qos} {name}"));
    }
    probe.send(packets).await?;
    let mut open: HashSet<u8> = (1..=names.len() as u8).collect();
    while !open.is_empty() {
        let packet = probe.packet().await?;
        match (packet[0] >> 4, packet[3]) {
            (4 | 7, id) => drop(open.remove(&id)),
            (5, id) => probe.send(vec![0x62, 2, 0, id]).await?,
            _ => return Err(ProbeError::Unexpected(packet)),
        }
    }
    Ok(())
}
