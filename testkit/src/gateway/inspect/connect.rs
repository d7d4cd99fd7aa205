//! CONNECT and its answer: who may come in, and what the service announces.

use bytes::Bytes;

use super::{Inspector, Stage, Verdict, denied, reason};
use crate::gateway::{
    incident::Incident,
    packet::{Announcement, Connect, LEVEL_5, parse_connack, refusing_connack},
    policy::{Action, LAST_WILL, PERSISTENT_CONNECT},
};

/// What the service announces as its Maximum Packet Size: a payload of 128 KiB and what comes with
/// it fit.
const MAXIMUM_PACKET_SIZE: u32 = 149_504;

impl Inspector {
    pub(super) fn connect(&mut self, packet: Bytes) -> Verdict {
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
        let persistent = connect.is_persistent.then_some(PERSISTENT_CONNECT);
        let will = connect.will.as_ref().map(|_| LAST_WILL);
        self.variables.connect_attributes = persistent.into_iter().chain(will).collect();
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

    pub(super) fn connack(&mut self, packet: Bytes) -> Verdict {
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

    fn refuse_connect(&mut self, incident: Incident, reason: u8) -> Verdict {
        self.note(incident);
        Verdict::End((self.level == LEVEL_5).then(|| refusing_connack(reason)))
    }
}
