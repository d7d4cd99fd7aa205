//! Looks at each control packet of a connection and decides what the service would do with it.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    authorizer::{Authorizers, Principal},
    incident::Incident,
    packet::{
        Announcement, Connect, LEVEL_5, Publish, Subscribe, disconnect, kind, kind_of,
        parse_connack, parse_puback, parse_suback, parse_unsubscribe, puback, refusing_connack,
        suback,
    },
    policy::{Action, Variables},
    quotas::{Quotas, counted, matches},
    repeats::Repeats,
};

/// Reason codes of MQTT 5 that the service is known to send.
mod reason {
    pub(super) const UNSPECIFIED_ERROR: u8 = 0x80;
    pub(super) const MALFORMED_PACKET: u8 = 0x81;
    pub(super) const PROTOCOL_ERROR: u8 = 0x82;
    pub(super) const CLIENT_IDENTIFIER_NOT_VALID: u8 = 0x85;
    pub(super) const NOT_AUTHORIZED: u8 = 0x87;
    pub(super) const TOPIC_FILTER_INVALID: u8 = 0x8f;
    pub(super) const TOPIC_NAME_INVALID: u8 = 0x90;
    pub(super) const TOPIC_ALIAS_INVALID: u8 = 0x94;
    pub(super) const QUOTA_EXCEEDED: u8 = 0x97;
    pub(super) const QOS_NOT_SUPPORTED: u8 = 0x9b;
    pub(super) const SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED: u8 = 0xa1;
}

/// What the service announces as its Maximum Packet Size: a payload of 128 KiB and what comes with
/// it fit.
const MAXIMUM_PACKET_SIZE: u32 = 149_504;

/// How many SUBSCRIBE packets may be unacknowledged: with their filters that is more than a
/// connection may have subscriptions.
const MAX_PENDING: usize = 64;

/// What to do with a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Carry this on: the packet, or another in its place.
    Forward(Bytes),
    /// Carry both on.
    ForwardTwice(Bytes, Bytes),
    /// Send this back to where the packet came from, and carry nothing on.
    Answer(Bytes),
    /// Do nothing: no answer comes.
    Swallow,
    /// Send this to the client, if anything, and end the connection.
    End(Option<Bytes>),
}

/// One connection.
pub(super) struct Inspector {
    rules: Rules,
    principal: Option<Principal>,
    started: Instant,
    stage: Stage,
    level: u8,
    client_id: String,
    variables: Variables,
    server_keep_alive: Option<u16>,
    /// Names of the client's aliases: at most as many as are announced.
    aliases: HashMap<u16, String>,
    subscriptions: BTreeSet<String>,
    /// Whether there may be subscriptions from before this connection.
    resumed: bool,
    pending: HashMap<u16, Pending>,
    second: (u64, u32),
    repeats: Repeats,
    incidents: Vec<Incident>,
}

/// What every connection of a gateway is held against.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) region: String,
    pub(super) quotas: Quotas,
    pub(super) authorizers: Authorizers,
    pub(super) repeat_deliveries: Arc<AtomicBool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Connecting,
    Connected,
}

/// A SUBSCRIBE that went to the broker without some of its filters.
struct Pending {
    filters: Vec<String>,
    /// The reason code that the gateway gives each, or `None` if it is the broker's turn.
    codes: Vec<Option<u8>>,
}

impl Inspector {
    /// A connection of this principal; of nobody yet, if the CONNECT is to say who.
    pub(super) fn new(rules: Rules, principal: Option<Principal>, source: IpAddr) -> Self {
        Self {
            rules,
            principal,
            started: Instant::now(),
            stage: Stage::New,
            level: 4,
            client_id: String::new(),
            variables: Variables {
                source_ip: source.to_string(),
                ..Variables::default()
            },
            server_keep_alive: None,
            aliases: HashMap::new(),
            subscriptions: BTreeSet::new(),
            resumed: false,
            pending: HashMap::new(),
            second: (0, 0),
            repeats: Repeats::default(),
            incidents: Vec::new(),
        }
    }

    /// What has been noticed since the last call.
    pub(super) fn take_incidents(&mut self) -> Vec<Incident> {
        std::mem::take(&mut self.incidents)
    }

    pub(super) fn level(&self) -> u8 {
        self.level
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(super) fn handle_client_packet(&mut self, packet: Bytes) -> Verdict {
        if self.is_over() {
            return self.end(Incident::ConnectionLife, None);
        }
        match (self.stage, kind_of(&packet)) {
            (Stage::New, kind::CONNECT) => self.connect(packet),
            (Stage::New | Stage::Connecting, _) => {
                self.end(Incident::BeforeConnack, Some(reason::PROTOCOL_ERROR))
            }
            (Stage::Connected, kind::PUBLISH) => self.publish(packet),
            (Stage::Connected, kind::SUBSCRIBE) => self.subscribe(packet),
            (Stage::Connected, kind::UNSUBSCRIBE) => {
                let filters = parse_unsubscribe(&packet, self.level);
                for filter in filters.into_iter().flatten() {
                    self.subscriptions.remove(&filter);
                }
                Verdict::Forward(packet)
            }
            (Stage::Connected, kind::PUBACK) => {
                let id = parse_puback(&packet);
                match id.is_some_and(|id| self.repeats.acknowledge(id)) {
                    true => Verdict::Swallow,
                    false => Verdict::Forward(packet),
                }
            }
            (Stage::Connected, kind::PUBREC | kind::PUBREL | kind::PUBCOMP) => {
                self.note(Incident::Qos2);
                Verdict::Swallow
            }
            (Stage::Connected, kind::CONNECT | kind::AUTH) => {
                self.end(Incident::Protocol, Some(reason::PROTOCOL_ERROR))
            }
            (Stage::Connected, _) => Verdict::Forward(packet),
        }
    }

    pub(super) fn handle_broker_packet(&mut self, packet: Bytes) -> Verdict {
        if self.is_over() {
            return self.end(Incident::ConnectionLife, None);
        }
        match kind_of(&packet) {
            kind::CONNACK => self.connack(packet),
            kind::SUBACK => self.suback(&packet).unwrap_or(Verdict::Forward(packet)),
            kind::PUBLISH => self.delivery(packet),
            // Only MQTT 5 has one from a server, which not every broker minds.
            kind::DISCONNECT if self.level != LEVEL_5 => Verdict::End(None),
            _ => Verdict::Forward(packet),
        }
    }

    fn connect(&mut self, packet: Bytes) -> Verdict {
        let Some(connect) = Connect::parse(&packet) else {
            return self.end(Incident::Malformed, None);
        };
        self.level = connect.level;
        self.client_id.clone_from(&connect.client_id);
        self.variables.client_id.clone_from(&connect.client_id);
        let id = &connect.client_id;
        if id.len() > self.rules.quotas.client_id_bytes || id.starts_with('$') {
            return self.refuse_connect(
                Incident::ClientIdentifier,
                reason::CLIENT_IDENTIFIER_NOT_VALID,
            );
        }
        if self.principal.is_none() {
            let name = connect.user_name.as_deref().unwrap_or_default();
            let password = connect.password.as_deref();
            self.principal = self.rules.authorizers.by_user_name(name, password);
        }
        let Some(principal) = &self.principal else {
            return self.refuse_connect(Incident::Authorizer, reason::NOT_AUTHORIZED);
        };
        self.variables
            .identity_id
            .clone_from(&principal.identity_id);
        if !self.allowed(Action::Connect, &connect.client_id) {
            return self.refuse_connect(
                denied(Action::Connect, &connect.client_id),
                reason::NOT_AUTHORIZED,
            );
        }
        if let Some(will) = &connect.will {
            if will.qos == 2 {
                return self.refuse_connect(Incident::Qos2, reason::QOS_NOT_SUPPORTED);
            }
            let retains = will.retain.then_some(Action::RetainPublish);
            for action in [Action::Publish].into_iter().chain(retains) {
                if !self.allowed(action, &will.topic) {
                    return self
                        .refuse_connect(denied(action, &will.topic), reason::NOT_AUTHORIZED);
                }
            }
        }
        self.stage = Stage::Connecting;
        let range = &self.rules.quotas.keep_alive_secs;
        let keep_alive = match connect.keep_alive {
            0 => *range.end(),
            wanted => wanted.clamp(*range.start(), *range.end()),
        };
        if keep_alive == connect.keep_alive {
            return Verdict::Forward(packet);
        }
        self.server_keep_alive = Some(keep_alive);
        Verdict::Forward(connect.with_keep_alive(&packet, keep_alive))
    }

    fn publish(&mut self, packet: Bytes) -> Verdict {
        let Some(publish) = Publish::parse(&packet, self.level) else {
            return self.end(Incident::Malformed, Some(reason::MALFORMED_PACKET));
        };
        if publish.qos == 2 {
            self.note(Incident::Qos2);
            // Under MQTT 3.1.1 there is just no answer.
            return match self.level {
                LEVEL_5 => Verdict::End(Some(disconnect(reason::QOS_NOT_SUPPORTED))),
                _ => Verdict::Swallow,
            };
        }
        let topic = match self.resolve(&publish) {
            Ok(topic) => topic,
            Err(end) => return end,
        };
        if publish.payload_length > self.rules.quotas.payload {
            return self.end(Incident::Payload, Some(reason::QUOTA_EXCEEDED));
        }
        let reserved = topic.starts_with('$') && !topic.starts_with("$aws/");
        if !self.fits(&topic) || reserved {
            return self.end(
                Incident::TopicName(topic.clone()),
                Some(reason::TOPIC_NAME_INVALID),
            );
        }
        let retains = publish.retain.then_some(Action::RetainPublish);
        for action in [Action::Publish].into_iter().chain(retains) {
            if !self.allowed(action, &topic) {
                self.note(denied(action, &topic));
                return match (self.level, publish.id) {
                    (LEVEL_5, Some(id)) => {
                        Verdict::Answer(puback(id, LEVEL_5, reason::NOT_AUTHORIZED))
                    }
                    (LEVEL_5, None) => Verdict::End(Some(disconnect(reason::NOT_AUTHORIZED))),
                    _ => Verdict::End(None),
                };
            }
        }
        if !self.within_rate() {
            self.note(Incident::PublishRate);
            return Verdict::Swallow;
        }
        Verdict::Forward(packet)
    }

    /// The topic that a PUBLISH is about, its alias looked up.
    fn resolve(&mut self, publish: &Publish) -> Result<String, Verdict> {
        let Some(alias) = publish.alias else {
            return Ok(publish.topic.clone());
        };
        let bad = alias == 0 || alias > self.rules.quotas.topic_alias_maximum;
        let known = self.aliases.get(&alias);
        if bad || publish.topic.is_empty() && known.is_none() {
            return Err(self.end(Incident::TopicAlias, Some(reason::TOPIC_ALIAS_INVALID)));
        }
        if publish.topic.is_empty() {
            return Ok(known.cloned().unwrap_or_default());
        }
        self.aliases.insert(alias, publish.topic.clone());
        Ok(publish.topic.clone())
    }

    fn subscribe(&mut self, packet: Bytes) -> Verdict {
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

    fn connack(&mut self, packet: Bytes) -> Verdict {
        let Some((true, resumed)) = parse_connack(&packet) else {
            return Verdict::Forward(packet);
        };
        self.stage = Stage::Connected;
        self.resumed = resumed;
        if self.level != LEVEL_5 {
            return Verdict::Forward(packet);
        }
        let quotas = &self.rules.quotas;
        let announcement = Announcement {
            receive_maximum: quotas.receive_maximum,
            topic_alias_maximum: quotas.topic_alias_maximum,
            maximum_packet_size: MAXIMUM_PACKET_SIZE,
            server_keep_alive: self.server_keep_alive,
        };
        let announced = announcement.put_into(&packet);
        Verdict::Forward(announced.unwrap_or(packet))
    }

    /// The broker's SUBACK with the gateway's own codes put in; `None` if it stays as it is.
    fn suback(&mut self, packet: &Bytes) -> Option<Verdict> {
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

    /// A message for the client.
    fn delivery(&mut self, packet: Bytes) -> Verdict {
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

    fn allowed(&self, action: Action, name: &str) -> bool {
        match self.principal.as_ref().map(|p| &p.policy) {
            None => false,
            Some(None) => true,
            Some(Some(policy)) => policy.allows(action, &self.rules.region, name, &self.variables),
        }
    }

    fn fits(&self, topic: &str) -> bool {
        let topic = counted(topic);
        let slashes = topic.bytes().filter(|&byte| byte == b'/').count();
        topic.len() <= self.rules.quotas.topic_bytes && slashes <= self.rules.quotas.topic_slashes
    }

    fn within_rate(&mut self) -> bool {
        let Some(limit) = self.rules.quotas.publishes_per_second else {
            return true;
        };
        let second = self.started.elapsed().as_secs();
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += 1;
        self.second.1 <= limit
    }

    fn is_over(&self) -> bool {
        let quota = self.rules.quotas.connection_life;
        let principal = self.principal.as_ref().and_then(|p| p.life);
        let life = quota.min(principal.unwrap_or(Duration::MAX));
        self.started.elapsed() > life
    }

    /// Ends the connection: with a reason under MQTT 5 where there is one, otherwise without a word.
    fn end(&mut self, incident: Incident, reason: Option<u8>) -> Verdict {
        self.note(incident);
        Verdict::End(match (self.level, reason) {
            (LEVEL_5, Some(reason)) => Some(disconnect(reason)),
            _ => None,
        })
    }

    fn refuse_connect(&mut self, incident: Incident, reason: u8) -> Verdict {
        self.note(incident);
        Verdict::End((self.level == LEVEL_5).then(|| refusing_connack(reason)))
    }

    fn note(&mut self, incident: Incident) {
        self.incidents.push(incident);
    }
}

fn denied(action: Action, name: &str) -> Incident {
    Incident::Denied(action, name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::wire;

    fn connected() -> Inspector {
        let rules = Rules {
            region: "us-east-1".to_owned(),
            quotas: Quotas::aws(),
            authorizers: Authorizers::default(),
            repeat_deliveries: Arc::new(AtomicBool::new(true)),
        };
        let principal = Principal {
            policy: None,
            identity_id: None,
            life: None,
        };
        let source = Ipv4Addr::LOCALHOST.into();
        let mut inspector = Inspector::new(rules, Some(principal), source);
        let connect = wire::packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c");
        let forwarded = inspector.handle_client_packet(connect.clone());
        assert_eq!(forwarded, Verdict::Forward(connect));
        let connack = wire::packet(0x20, &[0, 0]);
        inspector.handle_broker_packet(connack);
        inspector
    }

    #[test]
    fn unanswered_subscribes_are_bounded() {
        let mut inspector = connected();
        let subscribe = |id: usize| wire::packet(0x82, &[0, id as u8, 0, 1, b'a', 0]);
        for id in 1..=MAX_PENDING {
            let packet = subscribe(id);
            let verdict = inspector.handle_client_packet(packet.clone());
            assert_eq!(verdict, Verdict::Forward(packet));
        }
        let suback = wire::packet(0x90, &[0, 1, 0]);
        inspector.handle_broker_packet(suback);
        let one_more = inspector.handle_client_packet(subscribe(100));
        assert!(matches!(one_more, Verdict::Forward(_)));
        let too_many = inspector.handle_client_packet(subscribe(101));
        assert_eq!(too_many, Verdict::End(None));
        assert_eq!(inspector.take_incidents(), [Incident::FiltersPerSubscribe]);
    }

    #[test]
    fn packets_that_cannot_be_read_end_the_connection() {
        for (first, body) in [
            (0x30, &[0, 9, b'a'][..]),
            (0x82, &[0, 1, 0, 9]),
            (0x82, &[0]),
            (0x10, &[]),
            (0xf0, &[]),
        ] {
            let verdict = connected().handle_client_packet(wire::packet(first, body));
            assert_eq!(verdict, Verdict::End(None), "{first:x}");
        }
    }
}
