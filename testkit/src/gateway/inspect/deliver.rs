//! What the client is sent.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Inspector, Verdict, denied};
use crate::gateway::{
    packet::{Publish, puback},
    policy::Action,
    quotas::matches,
};

impl Inspector {
    /// A message for the client.
    pub(super) fn delivery(&mut self, packet: Bytes) -> Verdict {
        let Some(publish) = Publish::parse(&packet, self.level) else {
            return Verdict::Forward(packet);
        };
        // A broker's alias was announced as zero by most clients; without the name nothing can be
        // judged.
        if publish.topic.is_empty() {
            return Verdict::Forward(packet);
        }
        let topic = publish.topic.as_str();
        let subscribed = self.resumed
            || self.subscriptions.iter().any(|filter| {
                // Retained messages come for exact filters only.
                matches(filter, topic) && (!publish.retain || filter == topic)
            })
            // The broker may deliver before it acknowledges.
            || self.pending.values().any(|p| p.filters.iter().any(|f| matches(f, topic)));
        let receives = self.allowed(Action::Receive, topic);
        if !receives {
            self.note(denied(Action::Receive, topic));
        }
        if subscribed && receives {
            return self.forward(packet, &publish);
        }
        // The broker's message is dealt with, as far as the broker is concerned.
        match publish.id {
            Some(id) if publish.qos == 1 => Verdict::Answer(puback(id, 4, 0)),
            _ => Verdict::Swallow,
        }
    }

    /// Once, or twice as the service may do it: at QoS 1 with another packet identifier.
    fn forward(&mut self, packet: Bytes, publish: &Publish) -> Verdict {
        if !self.rules.repeat_deliveries.load(Ordering::Relaxed) {
            return Verdict::Forward(packet);
        }
        let again = match publish.id {
            None => Some(packet.clone()),
            Some(_) => self.repeats.take().map(|id| publish.with_id(&packet, id)),
        };
        match again {
            Some(again) => Verdict::ForwardTwice(packet, again),
            None => Verdict::Forward(packet),
        }
    }
}
