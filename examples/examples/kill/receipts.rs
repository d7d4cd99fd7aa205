//! What the killed process has received, and when it counts as received for good.
//!
//! At QoS 2 that is when the receipt's record is stored, or when the broker has the PUBREC, which is later. The first is seen in
//! the file that a life has left, the second in the broker's log; which message a packet identifier stands for is in that, too.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    error::Error,
    fs,
    path::Path,
};

use pubsub_generic::{FileSessionStore, SessionStore as _};

use crate::feeder::FED;

/// The client identifier of the process that is killed.
pub(crate) const VICTIM: &str = "killed";
/// What the key of the record of a received message begins with; its packet identifier follows.
const RECEIVED: u8 = 4;

/// Message, as `QoS number`, to what is known of it.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// The lives that have taken it, in order.
    taken: BTreeMap<String, Vec<u32>>,
    /// The broker has the PUBACK, or the PUBREC.
    answered: HashSet<String>,
    /// Received for good by the end of which life.
    settled: HashMap<String, u32>,
    /// Of packet identifiers as the broker used them last.
    messages: HashMap<u16, String>,
    log_read: usize,
}

impl Receipts {
    pub(crate) fn took(&mut self, name: &str, life: u32) {
        self.taken.entry(name.to_owned()).or_default().push(life);
    }

    /// How many messages the broker has an answer to, as far as the log was read.
    pub(crate) fn answered(&self) -> usize {
        self.answered.len()
    }

    /// After the end of a life: reads on in the log, and looks into a copy of the file, since its next owner is to find it as
    /// it was left.
    pub(crate) fn look(
        &mut self,
        life: u32,
        log: &Path,
        file: &Path,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let bytes = fs::read(log)?;
        let news = bytes.get(self.log_read..).unwrap_or_default();
        let whole = news
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        self.log_read += whole;
        for line in String::from_utf8_lossy(&news[..whole]).lines() {
            self.read(line, life);
        }
        if !file.exists() {
            return Ok(());
        }
        let copy = file.with_extension("copy");
        fs::copy(file, &copy)?;
        for record in FileSessionStore::open(&copy)?.load()? {
            if let [RECEIVED, high, low] = record.key[..] {
                let id = u16::from_be_bytes([high, low]);
                self.settle(id, life);
            }
        }
        fs::remove_file(copy)?;
        Ok(())
    }

    fn read(&mut self, line: &str, life: u32) {
        if let Some(publish) = line.strip_prefix(&format!("Sending PUBLISH to {VICTIM} (")) {
            let mut fields = publish.split(", ").skip(3);
            let id = fields
                .next()
                .and_then(|id| id.strip_prefix('m')?.parse().ok());
            let topic = fields.next().map(|topic| topic.trim_matches('\''));
            if let (Some(id), Some(name)) = (id, topic.and_then(|topic| topic.strip_prefix(FED))) {
                self.messages.insert(id, name.replace('/', " "));
            }
            return;
        }
        let answer = line
            .strip_prefix("Received ")
            .and_then(|line| line.split_once(' '));
        let Some((kind @ ("PUBACK" | "PUBREC"), rest)) = answer else {
            return;
        };
        let id = rest.strip_prefix(&format!("from {VICTIM} (Mid: "));
        let id = id.and_then(|id| id.split([',', ')']).next()?.parse().ok());
        if let Some(id) = id
            && let Some(name) = self.messages.get(&id)
        {
            self.answered.insert(name.clone());
            if kind == "PUBREC" {
                self.settle(id, life);
            }
        }
    }

    fn settle(&mut self, id: u16, life: u32) {
        if let Some(name) = self.messages.get(&id) {
            self.settled.entry(name.clone()).or_insert(life);
        }
    }

    /// Of one QoS: published and never taken.
    pub(crate) fn lost<'a>(&self, fed: &'a BTreeSet<String>, qos: &str) -> Vec<&'a String> {
        let of_qos = fed.iter().filter(|name| name.starts_with(qos));
        of_qos
            .filter(|name| !self.taken.contains_key(*name))
            .collect()
    }

    /// Of one QoS: how many were taken more than once.
    pub(crate) fn repeated(&self, qos: &str) -> usize {
        let of_qos = self.taken.iter().filter(|(name, _)| name.starts_with(qos));
        of_qos.filter(|(_, lives)| lives.len() > 1).count()
    }

    /// How many were received for good.
    pub(crate) fn settled(&self) -> usize {
        self.settled.len()
    }

    /// At QoS 2: taken twice in one life, or in a life after the one that had received it for good.
    pub(crate) fn again(&self) -> Vec<&String> {
        let is_again = |(name, lives): &(&String, &Vec<u32>)| {
            let twice = lives.windows(2).any(|pair| pair[0] == pair[1]);
            let settled = self.settled.get(*name);
            twice || settled.is_some_and(|settled| lives.iter().any(|life| life > settled))
        };
        let of_qos = self.taken.iter().filter(|(name, _)| name.starts_with("2 "));
        of_qos.filter(is_again).map(|(name, _)| name).collect()
    }
}
