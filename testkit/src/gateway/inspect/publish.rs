//! What the client publishes.

use bytes::Bytes;

use super::{Inspector, Verdict, denied, reason};
use crate::gateway::{
    DeniedPublish,
    incident::Incident,
    packet::{LEVEL_5, Publish, disconnect, puback},
    policy::Action,
};

impl Inspector {
    pub(super) fn publish(&mut self, packet: Bytes) -> Verdict {
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
                let acknowledged = match self.rules.denied_publish {
                    DeniedPublish::Puback => publish.id,
                    DeniedPublish::Disconnect => None,
                };
                return match (self.level, acknowledged) {
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
}
