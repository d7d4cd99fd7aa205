//! Looks at each control packet of a connection and decides what the service would do with it.

mod connect;
mod deliver;
mod publish;
mod subscribe;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use self::subscribe::Pending;
use super::{
    DeniedPublish,
    authorizer::{Authorizers, Principal},
    incident::Incident,
    packet::{LEVEL_5, disconnect, kind, kind_of, parse_puback, parse_unsubscribe},
    policy::{Action, Variables},
    quotas::{Quotas, counted},
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
    pub(super) denied_publish: DeniedPublish,
    pub(super) authorizers: Authorizers,
    pub(super) repeat_deliveries: Arc<AtomicBool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Connecting,
    Connected,
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

    use super::subscribe::MAX_PENDING;
    use super::*;
    use crate::wire;

    fn connected() -> Inspector {
        let rules = Rules {
            region: "us-east-1".to_owned(),
            quotas: Quotas::aws(),
            denied_publish: DeniedPublish::Puback,
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
