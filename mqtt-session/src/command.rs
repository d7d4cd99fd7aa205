//! What the caller may ask for: checked as a whole, accepted or handed back.

use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use mqtt_codec::{ProtocolVersion, QoS, ReasonCode, SharedTopicName, SubscriptionId};

use crate::connection::AuthReply;
use crate::error::{PublishError, PublishErrorReason, StateError, SubscribeError};
use crate::event::{
    AckQoS, AckToken, Acknowledged, DisconnectCause, PublishId, SubscribeId, UnsubscribeId,
};
use crate::job::check_filter;
use crate::outbound::{Outgoing, Window};
use crate::persist::RecordKey;
use crate::publish::{Publish, PublishProperties};
use crate::session::Session;
use crate::subscribe::Subscription;
use crate::time::Timestamp;

impl Session {
    /// Accepts a message to be sent as soon as connection and window allow, in order for each QoS.
    ///
    /// Without a connection it waits; whether that is wanted is for the caller to decide before. Dropping the returned
    /// identifier changes nothing.
    ///
    /// # Errors
    ///
    /// [`PublishError`], with the message in it. [`PublishErrorReason::is_temporary`] tells "not now" from "never".
    pub fn publish(&mut self, publish: Publish, now: Timestamp) -> Result<PublishId, PublishError> {
        self.advance(now);
        let size = match self.accept(&publish) {
            Ok(size) => size,
            Err(reason) => return Err(PublishError::new(reason, publish)),
        };
        let id = PublishId(self.next_publish);
        self.next_publish += 1;
        if publish.qos != QoS::AtMostOnce {
            self.persister.touch(RecordKey::Message(id));
        }
        self.waiting.push(Outgoing {
            id,
            expires_at: self.expiry_of(&publish),
            publish,
            size,
        });
        Ok(id)
    }

    /// Checks a message, and says how large its packet is.
    #[inline(always)]
    pub(crate) fn accept(&mut self, publish: &Publish) -> Result<usize, PublishErrorReason> {
        let is_checked = |checked: &SharedTopicName| checked.shares(&publish.topic);
        if !self.checked_topic.as_ref().is_some_and(is_checked) {
            self.check_topic(&publish.topic)?;
        }
        let size = size_of_publish(publish);
        self.check_publish(publish, size)?;
        Ok(size)
    }

    #[inline(never)]
    fn check_topic(&mut self, topic: &Arc<str>) -> Result<(), PublishErrorReason> {
        if let Some(checked) = &mut self.checked_topic
            && checked.share_instead(topic)
        {
            return Ok(());
        }
        let checked = SharedTopicName::new(Arc::clone(topic));
        self.checked_topic = Some(checked.map_err(|_| PublishErrorReason::InvalidTopic)?);
        Ok(())
    }

    /// Takes back a message that was not sent yet; it is not reported on any more. `None` if it was sent or is not known: its
    /// outcome will be or was reported.
    #[must_use]
    pub fn cancel_publish(&mut self, id: PublishId) -> Option<Publish> {
        let outgoing = self.waiting.remove(id)?;
        self.persister.touch_completed(id);
        Some(outgoing.publish)
    }

    /// The message that has waited longest to be sent: the one to [take back](Self::cancel_publish) where the oldest shall
    /// make room.
    #[must_use]
    pub fn oldest_waiting(&self) -> Option<PublishId> {
        Some(self.waiting.peek(Window::Open)?.id)
    }

    /// Subscribes to all of `subscriptions`, now or at the next connection; [`Event::SubscribeCompleted`](crate::Event::SubscribeCompleted) tells what became
    /// of each. They become subscriptions of the session, which it renews when the broker has lost them, until they are
    /// refused or unsubscribed. More than [`Config::max_filters_per_packet`](crate::Config::max_filters_per_packet) go in several packets.
    ///
    /// # Errors
    ///
    /// If one of them cannot be subscribed to, none is.
    pub fn subscribe(
        &mut self,
        subscriptions: &[Subscription],
        now: Timestamp,
    ) -> Result<SubscribeId, SubscribeError> {
        self.subscribe_with_id(subscriptions, None, now)
    }

    /// As [`Session::subscribe`], with a Subscription Identifier (5.0) that the broker will put into each matching message.
    ///
    /// # Errors
    ///
    /// As [`Session::subscribe`].
    pub fn subscribe_with_id(
        &mut self,
        subscriptions: &[Subscription],
        id: Option<SubscriptionId>,
        now: Timestamp,
    ) -> Result<SubscribeId, SubscribeError> {
        self.advance(now);
        let v5 = self.config.version == ProtocolVersion::V5;
        let broker = self.connected().map(|connection| connection.limits);
        if id.is_some()
            && (!v5 || broker.is_some_and(|broker| !broker.subscription_identifiers.is_available()))
        {
            return Err(SubscribeError::SubscriptionIdsNotSupported);
        }
        for (index, subscription) in subscriptions.iter().enumerate() {
            check_filter(&subscription.filter, index, broker.as_ref())?;
            if !v5 && subscription.needs_v5() {
                return Err(SubscribeError::OptionsNeedV5 { index });
            }
            //= MQTT-3.8.3-4
            if subscription.no_local == crate::NoLocal::On
                && subscription.filter.starts_with("$share/")
            {
                return Err(SubscribeError::SharedNotSupported { index });
            }
        }
        let new = subscriptions
            .iter()
            .filter(|subscription| !self.control.wants(&subscription.filter))
            .count();
        if self.control.len() + new > self.config.max_subscriptions {
            return Err(SubscribeError::TooManySubscriptions);
        }
        self.check_call(subscriptions.len())?;
        Ok(self.control.subscribe(subscriptions, id))
    }

    /// Ends the subscriptions to `filters`; [`Event::UnsubscribeCompleted`](crate::Event::UnsubscribeCompleted) tells what the broker said. They stop being
    /// subscriptions of the session at once.
    ///
    /// # Errors
    ///
    /// If one of them is not a Topic Filter, none is unsubscribed from.
    pub fn unsubscribe(
        &mut self,
        filters: &[Arc<str>],
        now: Timestamp,
    ) -> Result<UnsubscribeId, SubscribeError> {
        self.advance(now);
        for (index, filter) in filters.iter().enumerate() {
            check_filter(filter, index, None)?;
        }
        self.check_call(filters.len())?;
        Ok(self.control.unsubscribe(filters, &mut self.events))
    }

    /// The Topic Filters that the session is or wants to be subscribed to.
    pub fn subscriptions(&self) -> impl ExactSizeIterator<Item = &Subscription> {
        self.control
            .subscriptions()
            .map(|wanted| &wanted.subscription)
    }

    /// Whether the session is subscribing anew, and has not reported [`Event::Resubscribed`](crate::Event::Resubscribed).
    #[must_use]
    pub fn is_resubscribing(&self) -> bool {
        self.control.is_resubscribing()
    }

    /// Acknowledges a message. The answer leaves in its turn: PUBACKs in the order in which the messages came, and so do
    /// PUBRECs.
    pub fn acknowledge(&mut self, token: AckToken) -> Acknowledged {
        self.decide(&token, ReasonCode::Success)
    }

    /// Acknowledges a message with a reason that says why it was not processed (5.0: 0x80, 0x83, 0x87, 0x90, 0x97 or 0x99; any
    /// other becomes 0x80). Earlier versions have no such reason: the broker sees a plain acknowledgement.
    pub fn reject(&mut self, token: AckToken, reason: ReasonCode) -> Acknowledged {
        let reason = match reason {
            _ if self.config.version != ProtocolVersion::V5 => ReasonCode::Success,
            ReasonCode::ImplementationSpecificError
            | ReasonCode::NotAuthorized
            | ReasonCode::TopicNameInvalid
            | ReasonCode::QuotaExceeded
            | ReasonCode::PayloadFormatInvalid => reason,
            _ => ReasonCode::UnspecifiedError,
        };
        self.decide(&token, reason)
    }

    /// Continues an authentication exchange, in answer to [`Event::AuthChallenge`](crate::Event::AuthChallenge).
    ///
    /// # Errors
    ///
    /// If none was configured, or there is no connection.
    pub fn authenticate(&mut self, data: Option<Bytes>, now: Timestamp) -> Result<(), StateError> {
        self.auth(ReasonCode::ContinueAuthentication, data, now)
    }

    /// Begins to authenticate again on an open connection; [`Event::AuthChallenge`](crate::Event::AuthChallenge) or [`Event::Reauthenticated`](crate::Event::Reauthenticated) follows.
    ///
    /// # Errors
    ///
    /// If no method was configured, or there is no connection, or it has not been accepted yet.
    pub fn reauthenticate(
        &mut self,
        data: Option<Bytes>,
        now: Timestamp,
    ) -> Result<(), StateError> {
        if self.connected().is_none() {
            return Err(StateError::NotConnected);
        }
        self.auth(ReasonCode::ReAuthenticate, data, now)?;
        if let Some(connection) = &mut self.connection {
            connection.reauthenticating = true;
        }
        Ok(())
    }

    /// Begins nothing new on this Network Connection: publishes and calls are accepted and wait for the next one, while what
    /// was sent is brought to its end. So a connection can be emptied, and replaced, under a steady load.
    ///
    /// When [`Session::is_wound_down`] says so, or patience is over, [`disconnect`](Self::disconnect). Without a connection
    /// that was accepted it does nothing.
    pub fn wind_down(&mut self) {
        if let Some(connection) = &mut self.connection
            && connection.is_connected()
        {
            connection.is_winding_down = true;
        }
    }

    /// Whether [`wind_down`](Self::wind_down) has come to its end: all that was sent has been answered by the broker, and
    /// all answers of ours are written.
    #[must_use]
    pub fn is_wound_down(&self) -> bool {
        self.is_winding_down()
            && self.in_flight.len() == 0
            && self.control.in_flight() == 0
            && self
                .connection
                .as_ref()
                .is_some_and(|connection| connection.replies.is_empty())
    }

    pub(crate) fn is_winding_down(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.is_winding_down)
    }

    /// Ends the Network Connection with a DISCONNECT, after the answers that are due. What waits or is in flight stays for the
    /// next connection; to drain first, [`wind_down`](Self::wind_down).
    ///
    /// [`Event::Disconnected`](crate::Event::Disconnected) follows when `poll_transmit` has handed out the DISCONNECT; before the CONNACK, at once.
    ///
    /// # Errors
    ///
    /// [`StateError::NotConnected`] without a connection, [`StateError::NeedsV5`] for options that 3.1.1 does not have,
    /// [`StateError::SessionExpiryWasZero`].
    pub fn disconnect(&mut self, disconnect: Disconnect, now: Timestamp) -> Result<(), StateError> {
        self.advance(now);
        let Some(connection) = &mut self.connection else {
            return Err(StateError::NotConnected);
        };
        if self.config.version != ProtocolVersion::V5 && disconnect != Disconnect::default() {
            return Err(StateError::NeedsV5);
        }
        //= MQTT-3.1.2-23
        if self.config.session_expiry.is_zero()
            && disconnect
                .session_expiry
                .is_some_and(|expiry| !expiry.is_zero())
        {
            return Err(StateError::SessionExpiryWasZero);
        }
        if connection.is_connected() {
            connection.disconnect = Some(disconnect);
        } else {
            self.end_connection(DisconnectCause::Requested, false);
        }
        Ok(())
    }

    pub(crate) fn decide(&mut self, token: &AckToken, reason: ReasonCode) -> Acknowledged {
        let accepted = match token.qos {
            AckQoS::One => self.connection.as_mut().is_some_and(|connection| {
                connection.epoch == token.epoch
                    && connection.held_qos1.decide(token.sequence, reason)
            }),
            AckQoS::Two => {
                token.epoch == self.session_epoch
                    && self
                        .received
                        .decide(token.packet_id, token.sequence, reason)
            }
        };
        if accepted && token.qos == AckQoS::Two {
            self.persister.touch(RecordKey::Received(token.packet_id));
        }
        if accepted {
            Acknowledged::Accepted
        } else {
            Acknowledged::Stale
        }
    }

    pub(crate) fn auth(
        &mut self,
        reason: ReasonCode,
        data: Option<Bytes>,
        now: Timestamp,
    ) -> Result<(), StateError> {
        self.advance(now);
        if self.config.authentication.is_none() {
            //= MQTT-4.12.0-7
            return Err(StateError::NoAuthentication);
        }
        let Some(connection) = &mut self.connection else {
            return Err(StateError::NotConnected);
        };
        connection.auth = Some(AuthReply { reason, data });
        Ok(())
    }

    pub(crate) fn check_call(&self, filters: usize) -> Result<(), SubscribeError> {
        if filters == 0 {
            //= MQTT-3.8.3-2
            //= MQTT-3.10.3-2
            return Err(SubscribeError::NoFilters);
        }
        // Each subscription may wait twice: to be made, and to be changed or ended.
        let most = self.config.max_subscriptions.saturating_mul(2);
        let is_crowded = self.control.waiting() + filters > most;
        if is_crowded || self.control.open_calls() >= self.config.max_pending_operations {
            return Err(SubscribeError::TooManyPending);
        }
        Ok(())
    }

    pub(crate) fn expiry_of(&self, publish: &Publish) -> Option<Timestamp> {
        publish.expiry.map(|expiry| self.now + expiry)
    }

    #[inline(never)]
    fn check_properties(&self, properties: &PublishProperties) -> Result<(), PublishErrorReason> {
        if self.config.version != ProtocolVersion::V5 && !properties.is_empty() {
            return Err(PublishErrorReason::PropertiesNeedV5);
        }
        if !properties.is_valid() {
            return Err(PublishErrorReason::InvalidProperty);
        }
        Ok(())
    }

    #[inline(always)]
    fn check_publish(&self, publish: &Publish, size: usize) -> Result<(), PublishErrorReason> {
        if let Some(properties) = &publish.properties {
            self.check_properties(properties)?;
        }
        if publish.expiry.is_some_and(|expiry| expiry.is_zero()) {
            return Err(PublishErrorReason::Expired);
        }
        let limits = self.connected().map(|connection| &connection.limits);
        let maximum = limits.map_or(mqtt_codec::MAX_PACKET_SIZE, |limits| {
            limits.maximum_packet_size
        }) as usize;
        if size > maximum {
            return Err(PublishErrorReason::TooLarge { size, maximum });
        }
        let maximum = self.config.max_outbound_bytes;
        if size > maximum {
            return Err(PublishErrorReason::LargerThanQueue { size, maximum });
        }
        if let Some(limits) = limits {
            check_support(publish, limits)?;
        }
        if self.waiting.len() >= self.config.max_queued_messages {
            return Err(PublishErrorReason::TooManyQueued);
        }
        if self.waiting.bytes() + self.in_flight.bytes() + size > self.config.max_outbound_bytes {
            return Err(PublishErrorReason::TooManyBytes);
        }
        Ok(())
    }
}

/// How [`Session::disconnect`] ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Disconnect {
    /// What becomes of the will.
    pub will: WillOnDisconnect,
    /// Another Session Expiry than the CONNECT named (5.0), whole seconds. Not possible if that was zero.
    pub session_expiry: Option<Duration>,
}

/// What becomes of the will when we disconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WillOnDisconnect {
    /// The broker discards it.
    #[default]
    Discard,
    /// The broker publishes it (5.0).
    Publish,
}

/// Whether the broker takes such a message at all.
pub(crate) fn check_support(
    publish: &Publish,
    limits: &crate::BrokerLimits,
) -> Result<(), PublishErrorReason> {
    //= MQTT-3.2.2-11
    if publish.qos > limits.maximum_qos {
        return Err(PublishErrorReason::QosNotSupported(limits.maximum_qos));
    }
    //= MQTT-3.2.2-14
    if publish.retain.is_yes() && !limits.retain.is_available() {
        return Err(PublishErrorReason::RetainNotSupported);
    }
    Ok(())
}

/// The size of the packet with its topic in full, never more than three bytes too large.
#[inline]
pub(crate) fn size_of_publish(publish: &Publish) -> usize {
    let properties = match &publish.properties {
        None => 0,
        Some(properties) => size_of_properties(properties),
    };
    let expiry = if publish.expiry.is_some() { 5 } else { 0 };
    let id = if publish.qos == QoS::AtMostOnce { 0 } else { 2 };
    let remaining = 2
        + publish.topic.len()
        + id
        + varint_len(properties + expiry)
        + properties
        + expiry
        + publish.payload.len();
    1 + varint_len(remaining) + remaining
}

#[inline(never)]
fn size_of_properties(properties: &PublishProperties) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() + 3);
    let data = |data: &Bytes| data.len() + 3;
    let pair = |(name, value): &(String, String)| name.len() + value.len() + 5;
    properties.payload_format.map_or(0, |_| 2)
        + text(&properties.content_type)
        + text(&properties.response_topic)
        + properties.correlation_data.as_ref().map_or(0, data)
        + properties.user_properties.iter().map(pair).sum::<usize>()
}

pub(crate) const fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}
