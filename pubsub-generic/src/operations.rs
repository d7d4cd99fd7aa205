//! Between the caller's words and the session's: publishes, subscriptions, messages and their acknowledgements.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mqtt_codec::{ProtocolVersion, ReasonCode};
use mqtt_session::{
    Dup, Event, Indeterminate, Message as SessionMessage, NoLocal, Publish, PublishErrorReason,
    PublishId, PublishOutcome, RetainAsPublished, SubscribeError, SubscribeId, SubscribeOutcome,
    SubscribeResult, Subscription,
};
use pubsub_core::{
    Delivered, Delivery, DeliveryReceipt, Demand, FilterRequest, Message, OfflinePolicy,
    OutboundMessage, OwnMessages, PayloadFormat, Properties, ProviderError, ProviderErrorKind,
    PublishError, PublishSettler, PublishStage, QoS, Refusal, RefusalKind, RetainMark,
    RetainedMessages, Settlement, TopicFilter, TopicName,
};

use crate::driver::{PendingPublish, PendingSubscribe, Task};
use crate::inbox::{Command, Operation, SubscribeReply, UnsubscribeReply};

impl Task {
    pub(crate) fn publish(
        &mut self,
        publish: Publish,
        settler: PublishSettler,
        offline: OfflinePolicy,
    ) {
        self.demand();
        let bytes = publish.topic.len() + publish.payload.len();
        let offline = self.offline_policy(offline);
        let up = self.is_up();
        if !up && offline == OfflinePolicy::Fail {
            return self.settle_publish(
                bytes,
                settler,
                Err(PublishError::NotSent(self.not_connected())),
            );
        }
        match self.session.publish(publish, self.timestamp()) {
            Ok(id) => {
                self.publishes.insert(
                    id,
                    PendingPublish {
                        settler,
                        bytes,
                        offline,
                        written: false,
                    },
                );
                if !up {
                    self.wait_offline(id, offline);
                }
            }
            Err(error) => self.settle_publish(bytes, settler, Err(not_sent(error.reason()))),
        }
    }

    fn wait_offline(&mut self, id: PublishId, offline: OfflinePolicy) {
        if let OfflinePolicy::WaitUpTo(time) = offline
            && let Some(deadline) = self.now.checked_add(time)
        {
            self.offline_deadlines.insert((deadline, id));
        }
    }

    fn settle_publish(
        &mut self,
        bytes: usize,
        settler: PublishSettler,
        outcome: Result<Delivered, PublishError>,
    ) {
        self.completed.messages += 1;
        self.completed.bytes += bytes;
        self.shared.counters.publish_settled(outcome.is_ok());
        settler.settle(outcome);
    }

    /// The connection is gone: what was not written yet is offline from here on.
    pub(crate) fn publishes_go_offline(&mut self) {
        let waiting: Vec<(PublishId, OfflinePolicy)> = self
            .publishes
            .iter()
            .filter(|(_, pending)| !pending.written)
            .map(|(id, pending)| (*id, pending.offline))
            .collect();
        for (id, offline) in waiting {
            if offline == OfflinePolicy::Fail {
                self.cancel_publish(id, ProviderErrorKind::ConnectionLost);
            } else {
                self.wait_offline(id, offline);
            }
        }
    }

    pub(crate) fn offline_too_long(&mut self, id: PublishId) {
        self.cancel_publish(id, ProviderErrorKind::TimedOut);
    }

    /// Takes a publish back that was not written yet.
    fn cancel_publish(&mut self, id: PublishId, kind: ProviderErrorKind) {
        if self.session.cancel_publish(id).is_none() {
            return;
        }
        if let Some(pending) = self.publishes.remove(&id) {
            let error = self.because_of_last(kind);
            self.settle_publish(
                pending.bytes,
                pending.settler,
                Err(PublishError::NotSent(error)),
            );
        }
    }

    fn not_connected(&self) -> ProviderError {
        self.because_of_last(ProviderErrorKind::NotConnected)
    }

    fn because_of_last(&self, kind: ProviderErrorKind) -> ProviderError {
        match &self.last_error {
            Some(last) => ProviderError::new(kind).with_source(last.clone()),
            None => kind.into(),
        }
    }

    /// Gives the session as many changes of the subscriptions as it has room for, in order.
    pub(crate) fn feed_operations(&mut self) -> bool {
        let mut more = false;
        while let Some(operation) = self.operations.pop_front() {
            self.demand();
            let fed = match operation {
                Operation::Subscribe {
                    subscriptions,
                    reply,
                } => self.subscribe(subscriptions, reply),
                Operation::Unsubscribe { filters, reply } => self.unsubscribe(filters, reply),
            };
            match fed {
                Ok(()) => more = true,
                Err(operation) => {
                    self.operations.push_front(operation);
                    break;
                }
            }
        }
        more
    }

    /// Hands the operation back when the session has no room for it yet.
    fn subscribe(
        &mut self,
        subscriptions: Vec<Subscription>,
        reply: SubscribeReply,
    ) -> Result<(), Operation> {
        let mut refused_here: Vec<Option<Refusal>> = vec![None; subscriptions.len()];
        let filters: Vec<Arc<str>> = subscriptions
            .iter()
            .map(|subscription| subscription.filter.clone())
            .collect();
        // Indices of what is still to be asked, into the list of the call.
        let mut left: Vec<usize> = (0..subscriptions.len()).collect();
        while !left.is_empty() {
            let asked: Vec<Subscription> = left
                .iter()
                .filter_map(|&index| subscriptions.get(index).cloned())
                .collect();
            match self.session.subscribe(&asked, self.timestamp()) {
                Ok(id) => {
                    let deadline = self.now.checked_add(self.shared.options.subscribe_timeout);
                    if let Some(deadline) = deadline {
                        self.subscribe_deadlines.insert((deadline, id));
                    }
                    self.subscribes.insert(
                        id,
                        PendingSubscribe {
                            reply,
                            deadline,
                            refused_here,
                            filters,
                        },
                    );
                    return Ok(());
                }
                Err(SubscribeError::TooManyPending) => {
                    return Err(Operation::Subscribe {
                        subscriptions,
                        reply,
                    });
                }
                Err(error) => {
                    let refusal = Refusal::from(refused_by_session(error));
                    match offender(error).filter(|&at| at < left.len()) {
                        // One of them is to blame: the others are asked without it.
                        Some(at) => {
                            let index = left.remove(at);
                            if let Some(place) = refused_here.get_mut(index) {
                                *place = Some(refusal);
                            }
                        }
                        None => {
                            for index in left.drain(..) {
                                if let Some(place) = refused_here.get_mut(index) {
                                    *place = Some(refusal.clone());
                                }
                            }
                        }
                    }
                }
            }
        }
        self.completed.operations += 1;
        let unspecified = || Refusal::from(RefusalKind::Unspecified);
        let results = refused_here
            .into_iter()
            .map(|refusal| Err(refusal.unwrap_or_else(unspecified)))
            .collect();
        let _ = reply.send(Ok(results));
        Ok(())
    }

    fn subscribe_completed(&mut self, id: SubscribeId, results: Vec<SubscribeResult>) {
        let Some(pending) = self.subscribes.remove(&id) else {
            return;
        };
        if let Some(deadline) = pending.deadline {
            self.subscribe_deadlines.remove(&(deadline, id));
        }
        self.completed.operations += 1;
        let mut results = results.into_iter();
        let answers = pending
            .refused_here
            .into_iter()
            .map(|refused| match refused {
                Some(refusal) => Err(refusal),
                None => results
                    .next()
                    .map_or_else(|| Err(RefusalKind::Unspecified.into()), granted_or_refused),
            })
            .collect();
        let _ = pending.reply.send(Ok(answers));
    }

    pub(crate) fn subscribe_took_too_long(&mut self, id: SubscribeId) {
        let Some(pending) = self.subscribes.remove(&id) else {
            return;
        };
        self.completed.operations += 1;
        let kind = ProviderErrorKind::TimedOut;
        let _ = pending.reply.send(Err(self.because_of_last(kind)));
        // Whatever the broker may still answer, nobody is there to hear it.
        self.shared
            .inbox
            .notify(Command::Operation(Operation::Unsubscribe {
                filters: pending.filters,
                reply: None,
            }));
    }

    fn unsubscribe(
        &mut self,
        filters: Vec<Arc<str>>,
        reply: Option<UnsubscribeReply>,
    ) -> Result<(), Operation> {
        match self.session.unsubscribe(&filters, self.timestamp()) {
            Ok(id) => {
                self.unsubscribes.insert(id, reply);
                Ok(())
            }
            Err(SubscribeError::TooManyPending) => Err(Operation::Unsubscribe { filters, reply }),
            Err(error) => {
                self.completed.operations += 1;
                if let Some(reply) = reply {
                    let _ = reply.send(Err(refused_by_session(error)));
                }
                Ok(())
            }
        }
    }

    /// Hands on what the session has to report. Returns whether there was anything.
    pub(crate) fn handle_events(&mut self) -> bool {
        let mut more = false;
        while let Some(event) = self.session.poll_event() {
            more = true;
            if let Event::Message(message) = event {
                let delivery = self.delivery(message);
                self.deliveries.extend(delivery);
                continue;
            }
            // A gap and the end of a connection have their place among the messages.
            if let Event::Connected(_) | Event::Disconnected(_) = event {
                self.deliver();
            }
            self.handle_event(event);
        }
        self.deliver();
        more
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Connected(connected) => self.connected(&connected),
            Event::ConnectRefused(refused) => self.refused(*refused),
            Event::Disconnected(disconnected) => self.disconnected(*disconnected),
            Event::PublishWritten { id } => {
                if let Some(pending) = self.publishes.get_mut(&id) {
                    pending.written = true;
                    pending.settler.reached(PublishStage::Written);
                }
            }
            Event::PublishReceived { id, .. } => {
                if let Some(pending) = self.publishes.get(&id) {
                    pending.settler.reached(PublishStage::Received);
                }
            }
            Event::PublishCompleted { id, outcome } => {
                if let Some(pending) = self.publishes.remove(&id) {
                    self.settle_publish(pending.bytes, pending.settler, outcome_of(outcome));
                }
            }
            Event::SubscribeCompleted { id, results } => self.subscribe_completed(id, results),
            Event::UnsubscribeCompleted { id, results } => {
                if let Some(reply) = self.unsubscribes.remove(&id) {
                    self.completed.operations += 1;
                    let refused = results.iter().find(|result| result.reason.is_error());
                    let answer = refused.map_or(Ok(()), |result| {
                        Err(ProviderError::new(ProviderErrorKind::Refused)
                            .with_source(refusal_of(result.reason)))
                    });
                    if let Some(reply) = reply {
                        let _ = reply.send(answer);
                    }
                }
            }
            Event::Resubscribed(resubscribed) => {
                for result in resubscribed.results {
                    let Ok(filter) = TopicFilter::new(result.filter.as_ref()) else {
                        continue;
                    };
                    if let Err(refusal) = granted_or_refused(result)
                        && let Some(sink) = self.shared.sink.get()
                    {
                        sink.subscription_lost(&filter, refusal);
                    }
                }
                if self.resubscribing_until.is_some() {
                    self.established();
                }
            }
            Event::Pong { round_trip } => {
                self.shared.counters.round_trip(round_trip);
            }
            _ => {}
        }
    }

    fn delivery(&mut self, mut message: SessionMessage) -> Option<Delivery> {
        let topic = self.topic_of(message.topic_str())?;
        let mut delivered = Message::new(topic, message.payload_bytes());
        delivered.qos = qos_of(message.qos());
        delivered.retain = message.retain().is_yes();
        delivered.duplicate = message.dup() == Dup::Yes;
        delivered.properties = properties_of(&message.properties());
        let mut delivery = Delivery::new(delivered).with_buffer_len(self.chunk_len);
        if let (Some(token), Some(receipts)) = (message.take_ack_token(), self.shared.receipts()) {
            let number = self.tokens.insert(token);
            self.start_clock();
            delivery = delivery.with_receipt(DeliveryReceipt::new(receipts, number));
        }
        Some(delivery)
    }

    fn topic_of(&mut self, topic: &str) -> Option<TopicName> {
        match &self.last_topic {
            Some(last) if last.as_str() == topic => {}
            // The session lets none in that is not valid.
            _ => self.last_topic = Some(TopicName::new(topic).ok()?),
        }
        self.last_topic.clone()
    }

    fn deliver(&mut self) {
        if self.deliveries.is_empty() {
            return;
        }
        self.shared
            .counters
            .messages_received(self.deliveries.len());
        let demand = match self.shared.sink.get() {
            Some(sink) => sink.deliver(&mut self.deliveries),
            None => {
                self.deliveries.clear();
                Demand::Continue
            }
        };
        self.obey(demand);
    }

    pub(crate) fn tell_time(&mut self) {
        if let Some(sink) = self.shared.sink.get() {
            let demand = sink.advance_clock(self.now.duration_since(self.origin));
            self.obey(demand);
        }
    }

    fn obey(&mut self, demand: Demand) {
        if demand == Demand::DropConnection {
            self.drop_for_slow_subscriber();
        }
    }

    /// Carries out what subscribers have done with their messages.
    pub(crate) fn settle_deliveries(&mut self) {
        for (number, settlement) in self.batch.settlements.drain(..) {
            let Some(token) = self.tokens.take(number) else {
                continue;
            };
            let _ = match settlement {
                Settlement::Rejected(reason) => self.session.reject(token, reason_code_of(reason)),
                // Nobody is there to take what was dropped: kept, it would only block those behind it.
                _ => self.session.acknowledge(token),
            };
        }
    }
}

/// The session's words for what is to be published.
pub(crate) fn session_publish(message: OutboundMessage, version: ProtocolVersion) -> Publish {
    let OutboundMessage {
        topic,
        payload,
        qos,
        retain,
        properties,
        ..
    } = message;
    let mut publish = Publish::new(topic.as_str(), payload, codec_qos(qos));
    publish.retain = if retain {
        mqtt_session::Retain::Yes
    } else {
        mqtt_session::Retain::No
    };
    publish.expiry = properties.expiry;
    if version == ProtocolVersion::V5 && !properties.is_empty() {
        let mut fields = mqtt_session::PublishProperties::default();
        if properties.payload_format == PayloadFormat::Text {
            fields.payload_format = Some(mqtt_codec::PayloadFormat::Utf8);
        }
        fields.content_type = properties.content_type.clone();
        fields.response_topic = properties
            .response_topic
            .as_ref()
            .map(|topic| topic.as_str().to_owned());
        fields.correlation_data = properties.correlation_data.clone();
        fields.user_properties = properties.user.clone();
        publish.properties = Some(Box::new(fields));
    }
    publish
}

fn properties_of(received: &mqtt_codec::Properties<'_>) -> Properties {
    if received.is_empty() {
        return Properties::default();
    }
    let mut properties = Properties::default();
    if received.payload_format_indicator() == Some(mqtt_codec::PayloadFormat::Utf8) {
        properties.payload_format = PayloadFormat::Text;
    }
    if let Some(content_type) = received.content_type() {
        properties.content_type = Some(content_type.as_str().to_owned());
    }
    if let Some(topic) = received.response_topic() {
        properties.response_topic = TopicName::new(topic.as_str()).ok();
    }
    if let Some(data) = received.correlation_data() {
        properties.correlation_data = Some(Bytes::copy_from_slice(data));
    }
    if let Some(secs) = received.message_expiry_interval() {
        properties.expiry = Some(Duration::from_secs(u64::from(secs)));
    }
    for (name, value) in received.user_properties() {
        properties
            .user
            .push((name.as_str().to_owned(), value.as_str().to_owned()));
    }
    properties
}

/// The session's words for a filter that is asked for. Options that the version cannot carry are left out.
pub(crate) fn session_subscription(
    request: &FilterRequest,
    version: ProtocolVersion,
) -> Subscription {
    let mut subscription = Subscription::new(request.filter.as_str(), codec_qos(request.qos));
    if version == ProtocolVersion::V5 {
        // A shared subscription cannot be without one's own messages.
        if request.own_messages == OwnMessages::Skip && request.filter.share_group().is_none() {
            subscription.no_local = NoLocal::On;
        }
        if request.retain_mark == RetainMark::AsPublished {
            subscription.retain_as_published = RetainAsPublished::Keep;
        }
        subscription.retain_handling = match request.retained {
            RetainedMessages::Send => mqtt_codec::RetainHandling::SendAtSubscribe,
            RetainedMessages::OnlyIfNew => mqtt_codec::RetainHandling::SendIfNew,
            RetainedMessages::Skip => mqtt_codec::RetainHandling::DoNotSend,
        };
    }
    subscription
}

pub(crate) fn codec_qos(qos: QoS) -> mqtt_codec::QoS {
    match qos {
        QoS::AtMostOnce => mqtt_codec::QoS::AtMostOnce,
        QoS::AtLeastOnce => mqtt_codec::QoS::AtLeastOnce,
        QoS::ExactlyOnce => mqtt_codec::QoS::ExactlyOnce,
    }
}

fn qos_of(qos: mqtt_codec::QoS) -> QoS {
    match qos {
        mqtt_codec::QoS::AtMostOnce => QoS::AtMostOnce,
        mqtt_codec::QoS::AtLeastOnce => QoS::AtLeastOnce,
        mqtt_codec::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn outcome_of(outcome: PublishOutcome) -> Result<Delivered, PublishError> {
    match outcome {
        PublishOutcome::Written => Ok(Delivered::Sent),
        PublishOutcome::Delivered(ReasonCode::NoMatchingSubscribers) => {
            Ok(Delivered::ConfirmedWithoutSubscribers)
        }
        PublishOutcome::Delivered(_) => Ok(Delivered::Confirmed),
        PublishOutcome::Rejected(reason) => {
            Err(PublishError::Rejected(Box::new(refusal_of(reason))))
        }
        PublishOutcome::Indeterminate(why) => Err(PublishError::Indeterminate(
            ProviderError::new(ProviderErrorKind::ConnectionLost).with_source(Unknown(why)),
        )),
        PublishOutcome::Expired => Err(PublishError::NotSent(ProviderErrorKind::Expired.into())),
        PublishOutcome::NotSent(reason) => Err(not_sent(reason)),
        PublishOutcome::Quarantined => Err(PublishError::Indeterminate(
            ProviderError::new(ProviderErrorKind::Refused).with_source(Quarantined),
        )),
        _ => Err(PublishError::Indeterminate(ProviderErrorKind::Other.into())),
    }
}

fn not_sent(reason: PublishErrorReason) -> PublishError {
    let kind = match reason {
        PublishErrorReason::TooManyQueued | PublishErrorReason::TooManyBytes => {
            ProviderErrorKind::QueueFull
        }
        PublishErrorReason::QosNotSupported(_)
        | PublishErrorReason::RetainNotSupported
        | PublishErrorReason::PropertiesNeedV5 => ProviderErrorKind::Unsupported,
        PublishErrorReason::TooLarge { .. } => ProviderErrorKind::LimitExceeded,
        PublishErrorReason::Expired => ProviderErrorKind::Expired,
        _ => ProviderErrorKind::Invalid,
    };
    let error = ProviderError::new(kind).with_source(NotSent(reason));
    PublishError::NotSent(match kind {
        // The same message will be as large next time.
        ProviderErrorKind::LimitExceeded => error.with_retry(pubsub_core::Retry::Pointless),
        _ => error,
    })
}

fn granted_or_refused(result: SubscribeResult) -> Result<QoS, Refusal> {
    match result.outcome {
        SubscribeOutcome::Granted(qos) => Ok(qos_of(qos)),
        SubscribeOutcome::Refused(reason) => Err(refusal_of(reason)),
        SubscribeOutcome::NotSent(error) => Err(refused_by_session(error).into()),
        SubscribeOutcome::Quarantined => Err(RefusalKind::ServiceSpecific.into()),
        SubscribeOutcome::Cancelled => Err(ProviderError::new(ProviderErrorKind::Closed).into()),
        _ => Err(RefusalKind::Unspecified.into()),
    }
}

fn refused_by_session(error: SubscribeError) -> ProviderError {
    let kind = match error {
        SubscribeError::TooManySubscriptions
        | SubscribeError::TooManyPending
        | SubscribeError::TooLarge { .. } => ProviderErrorKind::LimitExceeded,
        SubscribeError::NoFilters | SubscribeError::InvalidFilter { .. } => {
            ProviderErrorKind::Invalid
        }
        _ => ProviderErrorKind::Unsupported,
    };
    ProviderError::new(kind)
        .with_retry(pubsub_core::Retry::Pointless)
        .with_source(error)
}

/// Which filter of a call is to blame, if it is one alone.
fn offender(error: SubscribeError) -> Option<usize> {
    match error {
        SubscribeError::InvalidFilter { index }
        | SubscribeError::SharedNotSupported { index }
        | SubscribeError::WildcardsNotSupported { index }
        | SubscribeError::TooLarge { index }
        | SubscribeError::OptionsNeedV5 { index } => Some(index),
        _ => None,
    }
}

fn refusal_of(reason: ReasonCode) -> Refusal {
    let kind = match reason {
        ReasonCode::UnspecifiedError => RefusalKind::Unspecified,
        ReasonCode::NotAuthorized => RefusalKind::NotAuthorized,
        ReasonCode::TopicNameInvalid | ReasonCode::TopicFilterInvalid => RefusalKind::InvalidTopic,
        ReasonCode::QuotaExceeded => RefusalKind::QuotaExceeded,
        ReasonCode::PacketTooLarge => RefusalKind::TooLarge,
        ReasonCode::PayloadFormatInvalid => RefusalKind::InvalidPayload,
        ReasonCode::QoSNotSupported
        | ReasonCode::RetainNotSupported
        | ReasonCode::SharedSubscriptionsNotSupported
        | ReasonCode::SubscriptionIdentifiersNotSupported
        | ReasonCode::WildcardSubscriptionsNotSupported => RefusalKind::Unsupported,
        _ => RefusalKind::ServiceSpecific,
    };
    Refusal::new(kind).with_code(u16::from(u8::from(reason)))
}

fn reason_code_of(reason: RefusalKind) -> ReasonCode {
    match reason {
        RefusalKind::NotAuthorized => ReasonCode::NotAuthorized,
        RefusalKind::InvalidTopic => ReasonCode::TopicNameInvalid,
        RefusalKind::QuotaExceeded => ReasonCode::QuotaExceeded,
        RefusalKind::InvalidPayload => ReasonCode::PayloadFormatInvalid,
        RefusalKind::ServiceSpecific => ReasonCode::ImplementationSpecificError,
        _ => ReasonCode::UnspecifiedError,
    }
}

/// [`PublishErrorReason`] as an error of its own.
#[derive(Debug)]
struct NotSent(PublishErrorReason);

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for NotSent {}

/// Why the session cannot know what became of a message.
#[derive(Debug)]
struct Unknown(Indeterminate);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Indeterminate::SessionLost => {
                "the broker lost the session before it confirmed the message"
            }
            Indeterminate::SessionLostAfterReceived => {
                "the broker lost the session between its two confirmations"
            }
            Indeterminate::NotFound => "the broker did not know the message any more",
            Indeterminate::ExpiredAfterSent => {
                "the message expired after it was sent and before it was confirmed"
            }
            _ => "the broker's answer did not come",
        })
    }
}

impl std::error::Error for Unknown {}

/// The broker hung up each time that the message was sent.
#[derive(Debug)]
struct Quarantined;

impl fmt::Display for Quarantined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the broker hung up each time that the message was sent; it is set aside")
    }
}

impl std::error::Error for Quarantined {}
