//! SUBSCRIBE and its answer: filters that the gateway refuses do not reach the broker.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Inspector, Verdict, denied, reason};
use crate::gateway::{
    incident::Incident,
    packet::{LEVEL_5, Subscribe, disconnect, parse_suback, suback},
    policy::Action,
};

/// How many SUBSCRIBE packets may be unacknowledged: with their filters that is more than a
/// connection may have subscriptions.
pub(super) const MAX_PENDING: usize = 64;

/// A SUBSCRIBE that went to the broker without some of its filters.
pub(super) struct Pending {
    pub(super) filters: Vec<String>,
    /// The reason code that the gateway gives each, or `None` if it is the broker's turn.
    pub(super) codes: Vec<Option<u8>>,
}

impl Inspector {
    pub(super) fn subscribe(&mut self, packet: Bytes) -> Verdict {
        let Some(subscribe) = Subscribe::parse(&packet, self.level) else {
            return self.end(Incident::Malformed, Some(reason::MALFORMED_PACKET));
        };
        if subscribe.has_identifier {
            return self.end(
                Incident::SubscriptionIdentifier,
                Some(reason::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED),
            );
        }
        if subscribe.filters.len() > self.rules.quotas.filters_per_subscribe
            || self.pending.len() == MAX_PENDING
        {
            return self.end(Incident::FiltersPerSubscribe, Some(reason::QUOTA_EXCEEDED));
        }
        if subscribe.filters.iter().any(|(_, o)| o & 3 == 2) {
            self.note(Incident::Qos2);
            return match self.level {
                LEVEL_5 => Verdict::End(Some(disconnect(reason::QOS_NOT_SUPPORTED))),
                _ => Verdict::Swallow,
            };
        }
        let mut codes = Vec::new();
        let mut wanted = self.subscriptions.clone();
        for pending in self.pending.values() {
            let theirs = pending.filters.iter().zip(&pending.codes);
            wanted.extend(theirs.filter(|(_, c)| c.is_none()).map(|(f, _)| f.clone()));
        }
        for (filter, _) in &subscribe.filters {
            match self.judge_filter(filter, &mut wanted) {
                Ok(code) => codes.push(code),
                Err(end) => return end,
            }
        }
        let passes: Vec<_> = codes.iter().map(Option::is_none).collect();
        if !passes.contains(&true) {
            let codes: Vec<_> = codes.into_iter().flatten().collect();
            return Verdict::Answer(suback(subscribe.id, self.level, &codes));
        }
        let forwarded = match passes.contains(&false) {
            true => subscribe.with(&passes),
            false => packet,
        };
        let filters = subscribe.filters.into_iter().map(|(f, _)| f).collect();
        self.pending
            .insert(subscribe.id, Pending { filters, codes });
        Verdict::Forward(forwarded)
    }

    /// The reason code to give a filter, or none if the broker is to say.
    fn judge_filter(
        &mut self,
        filter: &str,
        wanted: &mut BTreeSet<String>,
    ) -> Result<Option<u8>, Verdict> {
        let reserved = filter.starts_with('$')
            && !filter.starts_with("$aws/")
            && !filter.starts_with("$share/");
        if !self.fits(filter) || reserved {
            let incident = Incident::TopicFilter(filter.to_owned());
            return match self.level {
                LEVEL_5 => {
                    self.note(incident);
                    Ok(Some(reason::TOPIC_FILTER_INVALID))
                }
                _ => Err(self.end(incident, None)),
            };
        }
        if !self.allowed(Action::Subscribe, filter) {
            let incident = denied(Action::Subscribe, filter);
            return match self.level {
                LEVEL_5 => {
                    self.note(incident);
                    Ok(Some(reason::NOT_AUTHORIZED))
                }
                // The service gives no other sign under MQTT 3.1.1.
                _ => Err(self.end(incident, None)),
            };
        }
        if !wanted.contains(filter) && wanted.len() == self.rules.quotas.subscriptions {
            self.note(Incident::Subscriptions);
            return Ok(Some(match self.level {
                LEVEL_5 => reason::QUOTA_EXCEEDED,
                _ => reason::UNSPECIFIED_ERROR,
            }));
        }
        wanted.insert(filter.to_owned());
        Ok(None)
    }

    /// The broker's SUBACK with the gateway's own codes put in; `None` if it stays as it is.
    pub(super) fn suback(&mut self, packet: &Bytes) -> Option<Verdict> {
        let (id, at) = parse_suback(packet, self.level)?;
        let Pending { filters, codes } = self.pending.remove(&id)?;
        let mut theirs = packet.slice(at..).into_iter();
        let mut merged = Vec::with_capacity(codes.len());
        for (filter, code) in filters.into_iter().zip(&codes) {
            let code = code.or_else(|| theirs.next())?;
            if code < reason::UNSPECIFIED_ERROR {
                self.subscriptions.insert(filter);
            }
            merged.push(code);
        }
        let changed = codes.iter().any(Option::is_some);
        changed.then(|| Verdict::Forward(suback(id, self.level, &merged)))
    }
}
