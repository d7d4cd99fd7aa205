//! The session's words for core's, and back.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use mqtt_codec::{ProtocolVersion, ReasonCode};
use mqtt_session::{
    Indeterminate, NoLocal, Publish, PublishErrorReason, PublishOutcome, RetainAsPublished,
    SubscribeError, SubscribeOutcome, SubscribeResult, Subscription,
};
use pubsub_core::{
    Delivered, FilterRequest, OutboundMessage, OwnMessages, PayloadFormat, Properties,
    ProviderError, ProviderErrorKind, PublishError, QoS, Refusal, RefusalKind, RetainMark,
    RetainedMessages, TopicName,
};

/// The session's words for what is to be published.
#[inline]
pub(crate) fn session_publish(message: OutboundMessage, version: ProtocolVersion) -> Publish {
    let OutboundMessage {
        topic,
        payload,
        qos,
        retain,
        properties,
        ..
    } = message;
    let mut publish = Publish::new(topic, payload, codec_qos(qos));
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

#[inline]
pub(crate) fn properties_of(received: mqtt_codec::Properties<'_>) -> Properties {
    if received.is_empty() {
        return Properties::default();
    }
    copy_of_properties(&received)
}

#[inline(never)]
fn copy_of_properties(received: &mqtt_codec::Properties<'_>) -> Properties {
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
    let mut subscription = Subscription::new(request.filter.clone(), codec_qos(request.qos));
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

fn codec_qos(qos: QoS) -> mqtt_codec::QoS {
    match qos {
        QoS::AtMostOnce => mqtt_codec::QoS::AtMostOnce,
        QoS::AtLeastOnce => mqtt_codec::QoS::AtLeastOnce,
        QoS::ExactlyOnce => mqtt_codec::QoS::ExactlyOnce,
    }
}

pub(crate) fn qos_of(qos: mqtt_codec::QoS) -> QoS {
    match qos {
        mqtt_codec::QoS::AtMostOnce => QoS::AtMostOnce,
        mqtt_codec::QoS::AtLeastOnce => QoS::AtLeastOnce,
        mqtt_codec::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

pub(crate) fn outcome_of(
    outcome: PublishOutcome,
    hang_up_error: &ProviderError,
) -> Result<Delivered, PublishError> {
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
        PublishOutcome::Quarantined => Err(PublishError::Indeterminate(hang_up_error.clone())),
        _ => Err(PublishError::Indeterminate(ProviderErrorKind::Other.into())),
    }
}

pub(crate) fn not_sent(reason: PublishErrorReason) -> PublishError {
    let kind = match reason {
        PublishErrorReason::TooManyQueued
        | PublishErrorReason::TooManyBytes
        | PublishErrorReason::LargerThanQueue { .. } => ProviderErrorKind::QueueFull,
        PublishErrorReason::QosNotSupported(_)
        | PublishErrorReason::RetainNotSupported
        | PublishErrorReason::PropertiesNeedV5 => ProviderErrorKind::Unsupported,
        PublishErrorReason::TooLarge { .. } => ProviderErrorKind::LimitExceeded,
        PublishErrorReason::Expired => ProviderErrorKind::Expired,
        _ => ProviderErrorKind::Invalid,
    };
    let error = ProviderError::new(kind).with_source(NotSent(reason));
    PublishError::NotSent(match reason {
        // The same message will be as large next time.
        PublishErrorReason::TooLarge { .. } | PublishErrorReason::LargerThanQueue { .. } => {
            error.with_retry(pubsub_core::Retry::Pointless)
        }
        _ => error,
    })
}

pub(crate) fn granted_or_refused(
    result: SubscribeResult,
    hang_up_error: &ProviderError,
) -> Result<QoS, Refusal> {
    match result.outcome {
        SubscribeOutcome::Granted(qos) => Ok(qos_of(qos)),
        SubscribeOutcome::Refused(reason) => Err(refusal_of(reason)),
        SubscribeOutcome::NotSent(error) => Err(refused_by_session(error).into()),
        SubscribeOutcome::Quarantined => {
            let kind = match hang_up_error.kind() {
                ProviderErrorKind::NotAuthorized => RefusalKind::NotAuthorized,
                _ => RefusalKind::ServiceSpecific,
            };
            let mut refusal = Refusal::new(kind);
            refusal.source = Some(hang_up_error.clone());
            Err(refusal)
        }
        SubscribeOutcome::Cancelled => Err(ProviderError::new(ProviderErrorKind::Closed).into()),
        _ => Err(RefusalKind::Unspecified.into()),
    }
}

pub(crate) fn refused_by_session(error: SubscribeError) -> ProviderError {
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
pub(crate) fn offender(error: SubscribeError) -> Option<usize> {
    match error {
        SubscribeError::InvalidFilter { index }
        | SubscribeError::SharedNotSupported { index }
        | SubscribeError::WildcardsNotSupported { index }
        | SubscribeError::TooLarge { index }
        | SubscribeError::OptionsNeedV5 { index } => Some(index),
        _ => None,
    }
}

pub(crate) fn refusal_of(reason: ReasonCode) -> Refusal {
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

pub(crate) fn reason_code_of(reason: RefusalKind) -> ReasonCode {
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
