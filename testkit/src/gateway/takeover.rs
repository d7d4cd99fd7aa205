//! One connection per client identifier: the newcomer wins.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use super::{
    packet::{LEVEL_5, disconnect},
    relay::Order,
};

const SESSION_TAKEN_OVER: u8 = 0x8e;

/// Who holds which client identifier; at most one entry a connection.
#[derive(Default)]
pub(super) struct Holders(Mutex<(u64, HashMap<String, Holder>)>);

struct Holder {
    number: u64,
    level: u8,
    to_client: mpsc::Sender<Order>,
}

/// A client identifier that is held until this is dropped, or another takes it over.
pub(super) struct Hold<'a> {
    holders: &'a Holders,
    client_id: String,
    number: u64,
}

impl Holders {
    /// Takes a client identifier, and has the connection that holds it ended as the service ends it:
    /// with a reason under MQTT 5.
    pub(super) fn take(
        &self,
        client_id: &str,
        level: u8,
        to_client: mpsc::Sender<Order>,
    ) -> Hold<'_> {
        let mut holders = self.lock();
        holders.0 += 1;
        let number = holders.0;
        let holder = Holder {
            number,
            level,
            to_client,
        };
        if let Some(old) = holders.1.insert(client_id.to_owned(), holder) {
            old.end(SESSION_TAKEN_OVER);
        }
        drop(holders);
        Hold {
            holders: self,
            client_id: client_id.to_owned(),
            number,
        }
    }

    /// Ends every connection that holds an identifier, with this reason under MQTT 5.
    pub(super) fn end_all(&self, reason: u8) {
        for holder in self.lock().1.values() {
            holder.end(reason);
        }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<String, Holder>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder {
    fn end(&self, reason: u8) {
        // Where the queue is full the client does not read, and would not read this either.
        if self.level == LEVEL_5 {
            let _ = self.to_client.try_send(Order::Send(disconnect(reason)));
        }
        let _ = self.to_client.try_send(Order::End);
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut holders = self.holders.lock();
        let current = holders.1.get(&self.client_id);
        if current.is_some_and(|holder| holder.number == self.number) {
            holders.1.remove(&self.client_id);
        }
    }
}
