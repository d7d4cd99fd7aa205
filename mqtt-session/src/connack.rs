//! CONNACK, and the authentication exchange around it.

use core::time::Duration;

use bytes::Bytes;
use mqtt_codec::{Auth, ConnackRef, Properties, ProtocolVersion, QoS, ReasonCode};

use crate::alias::OutboundAliases;
use crate::config::{
    AssignedClientId, BrokerOnlySession, CleanStart, Config, Resubscribe, ResubscribeRetained,
};
use crate::connection::Phase;
use crate::control::{Blame, Renew};
use crate::error::{ConnectionError, ProtocolViolation};
use crate::event::{
    AuthData, Availability, BrokerLimits, ConnectRefused, Connected, Event, SessionPresence,
};
use crate::keep_alive::KeepAlive;
use crate::persist::RecordKey;
use crate::quota::Quota;
use crate::session::Session;

impl Session {
    pub(crate) fn on_connack(&mut self, connack: &ConnackRef<'_>) -> Result<(), ConnectionError> {
        if connack.reason_code != ReasonCode::Success {
            //= MQTT-4.13.2-1
            self.connection = None;
            // What left early was not looked at, and waits for the next connection.
            self.control
                .on_disconnected(Blame::Nobody, 0, &mut self.events);
            self.events
                .push_back(Event::ConnectRefused(Box::new(ConnectRefused {
                    reason: connack.reason_code,
                    reason_string: connack.properties.reason_string().map(owned),
                    server_reference: connack.properties.server_reference().map(owned),
                    user_properties: user_properties(&connack.properties),
                })));
            return Ok(());
        }
        let properties = &connack.properties;
        self.check_authentication_method(properties)?;
        let presence = self.session_presence(connack)?;
        if presence != SessionPresence::Resumed {
            self.on_session_lost();
        }
        let limits = broker_limits(&self.config, properties);
        //= MQTT-3.1.2-21
        //= MQTT-3.2.2-21
        let keep_alive = properties
            .server_keep_alive()
            .map_or(self.config.keep_alive, |secs| {
                Duration::from_secs(u64::from(secs))
            });
        let one_at_a_time = self.in_flight.iter().any(|(_, entry)| entry.strikes >= 2);
        let suspects = self
            .in_flight
            .iter()
            .filter(|(_, entry)| entry.is_suspect())
            .count();
        let first = self.in_flight.first();
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        self.haste.on_connected(connection.is_hasty);
        let has_resubscribed = connection.has_resubscribed;
        connection.phase = Phase::Connected;
        connection.haste_deadline = self.now + self.config.connack_timeout;
        connection.limits = limits;
        //= MQTT-4.9.0-1
        connection.send_quota = Quota::new(limits.in_flight);
        connection.outbound_aliases = OutboundAliases::new(limits.topic_aliases);
        connection.keep_alive = KeepAlive::new(keep_alive, self.config.ping_timeout, self.now);
        connection.replay.next = first;
        connection.replay.one_at_a_time = one_at_a_time;
        connection.replay.suspects = suspects;

        self.has_session = true;
        self.persister.touch(RecordKey::Session);
        self.must_start_clean = false;
        self.counters.connections += 1;
        let assigned_client_id = properties.assigned_client_identifier().map(owned);
        if self.config.assigned_client_id == AssignedClientId::Keep && assigned_client_id.is_some()
        {
            self.assigned_client_id.clone_from(&assigned_client_id);
        }
        if has_resubscribed {
            self.is_presence_in_doubt = false;
        } else {
            self.resubscribe(presence);
        }
        let session_expiry = properties
            .session_expiry_interval()
            .map_or_else(|| own_session_expiry(&self.config), seconds_or_for_ever);
        self.events.push_back(Event::Connected(Box::new(Connected {
            session: presence,
            limits,
            keep_alive,
            session_expiry,
            assigned_client_id,
            response_information: properties.response_information().map(owned),
            server_reference: properties.server_reference().map(owned),
            reason_string: properties.reason_string().map(owned),
            user_properties: user_properties(properties),
            authentication: properties
                .authentication_method()
                .map(|_| auth_data(properties)),
        })));
        Ok(())
    }

    pub(crate) fn resubscribe(&mut self, presence: SessionPresence) {
        let is_in_doubt = core::mem::take(&mut self.is_presence_in_doubt);
        let retained = self.config.resubscribe_retained;
        match (self.config.resubscribe, presence) {
            (Resubscribe::Never, SessionPresence::Resumed) => {}
            (Resubscribe::Never, _) => self.control.forget_granted(),
            (Resubscribe::WhenSessionLost, SessionPresence::Resumed) if is_in_doubt => {
                let retained = match retained {
                    ResubscribeRetained::AsSubscribed => retained,
                    // If the broker does not have the subscription, its retained messages have not been sent either.
                    _ => ResubscribeRetained::OnlyIfNew,
                };
                self.control.resubscribe(Renew::All, retained);
            }
            // MQTT 3.1 does not say whether the session was resumed.
            (Resubscribe::WhenSessionLost, SessionPresence::Resumed)
                if self.config.version != ProtocolVersion::V31 =>
            {
                self.control.resubscribe(Renew::Owed, retained);
            }
            (Resubscribe::WhenSessionLost | Resubscribe::Always, _) => {
                self.control.resubscribe(Renew::All, retained);
            }
        }
    }

    /// Compares what the broker has of the session with what we have.
    pub(crate) fn session_presence(
        &mut self,
        connack: &ConnackRef<'_>,
    ) -> Result<SessionPresence, ConnectionError> {
        let asked_for_new = self
            .connection
            .as_ref()
            .is_some_and(|connection| connection.clean_start);
        let present = match self.config.version {
            // MQTT 3.1 does not say. A broker that speaks it keeps the session unless told otherwise.
            ProtocolVersion::V31 => !asked_for_new && self.has_session,
            _ => connack.session_present,
        };
        match (present, self.has_session) {
            //= MQTT-3.2.2-2
            (true, _) if asked_for_new => Err(ConnectionError::Protocol(
                ProtocolViolation::SessionPresentOnCleanStart,
            )),
            (true, true) => Ok(SessionPresence::Resumed),
            //= MQTT-3.2.2-4
            (true, false) => match self.config.broker_only_session {
                BrokerOnlySession::Accept => Ok(SessionPresence::Resumed),
                BrokerOnlySession::Refuse => {
                    self.must_start_clean = true;
                    Err(ConnectionError::Protocol(
                        ProtocolViolation::SessionPresentWithoutState,
                    ))
                }
            },
            //= MQTT-3.2.2-5
            (false, true) => Ok(SessionPresence::Lost),
            (false, false) => Ok(SessionPresence::New),
        }
    }

    pub(crate) fn check_authentication_method(
        &self,
        properties: &Properties<'_>,
    ) -> Result<(), ConnectionError> {
        //= MQTT-4.12.0-5
        let ours = self
            .config
            .authentication
            .as_ref()
            .map(|authentication| authentication.method.as_str());
        match (properties.authentication_method(), ours) {
            (Some(theirs), Some(ours)) if theirs == *ours => Ok(()),
            (None, _) => Ok(()),
            _ => Err(ConnectionError::Protocol(
                ProtocolViolation::AuthenticationMethodChanged,
            )),
        }
    }

    //= MQTT-4.12.1-2
    pub(crate) fn on_auth(&mut self, auth: &Auth) -> Result<(), ConnectionError> {
        let auth = auth.as_ref();
        if self.config.authentication.is_none() {
            return Err(ConnectionError::Protocol(ProtocolViolation::UnexpectedAuth));
        }
        self.check_authentication_method(&auth.properties)?;
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let exchange = !connection.is_connected() || connection.reauthenticating;
        let data = auth_data(&auth.properties);
        match auth.reason_code {
            ReasonCode::ContinueAuthentication if exchange => {
                self.events.push_back(Event::AuthChallenge(data));
            }
            ReasonCode::Success if connection.reauthenticating => {
                connection.reauthenticating = false;
                self.events.push_back(Event::Reauthenticated(data));
            }
            _ => return Err(ConnectionError::Protocol(ProtocolViolation::UnexpectedAuth)),
        }
        Ok(())
    }
}

pub(crate) fn broker_limits(config: &Config, properties: &Properties<'_>) -> BrokerLimits {
    let default = BrokerLimits::of_version(config);
    if config.version != ProtocolVersion::V5 {
        return default;
    }
    let available = |bit: Option<bool>| Availability::from_bit(bit.unwrap_or(true));
    BrokerLimits {
        //= MQTT-3.3.4-7
        in_flight: properties
            .receive_maximum()
            .map_or(default.in_flight, |max| max.get().min(default.in_flight)),
        maximum_packet_size: properties
            .maximum_packet_size()
            .map_or(default.maximum_packet_size, |max| {
                max.get().min(default.maximum_packet_size)
            }),
        maximum_qos: properties.maximum_qos().unwrap_or(QoS::ExactlyOnce),
        retain: available(properties.retain_available()),
        wildcard_subscriptions: available(properties.wildcard_subscription_available()),
        subscription_identifiers: available(properties.subscription_identifier_available()),
        shared_subscriptions: available(properties.shared_subscription_available()),
        //= MQTT-3.2.2-17
        //= MQTT-3.3.2-9
        //= MQTT-3.2.2-18
        topic_aliases: properties
            .topic_alias_maximum()
            .unwrap_or(0)
            .min(config.max_outbound_aliases),
    }
}

/// What the broker keeps if it does not object.
pub(crate) fn own_session_expiry(config: &Config) -> Duration {
    match config.version {
        ProtocolVersion::V5 => config.session_expiry,
        _ if config.clean_start == CleanStart::Always => Duration::ZERO,
        _ => Duration::MAX,
    }
}

pub(crate) fn seconds_or_for_ever(seconds: u32) -> Duration {
    if seconds == u32::MAX {
        Duration::MAX
    } else {
        Duration::from_secs(u64::from(seconds))
    }
}

pub(crate) fn owned(text: mqtt_codec::Text<'_>) -> String {
    text.as_str().to_owned()
}

pub(crate) fn user_properties(properties: &Properties<'_>) -> Vec<(String, String)> {
    properties
        .user_properties()
        .map(|(name, value)| (owned(name), owned(value)))
        .collect()
}

pub(crate) fn auth_data(properties: &Properties<'_>) -> AuthData {
    AuthData {
        data: properties.authentication_data().map(Bytes::copy_from_slice),
        reason_string: properties.reason_string().map(owned),
    }
}
