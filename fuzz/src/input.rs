//! Structured values from the fuzzer's bytes. There is always one more: past the end all are zero.

use std::num::{NonZeroU16, NonZeroU32};

use mqtt_codec::{
    PacketId, PayloadFormat, Property, ProtocolVersion, QoS, ReasonCode, RetainHandling,
    SubscriptionId, SubscriptionOptions, Text, TopicFilter, TopicName,
};

/// What is left of the fuzzer's bytes.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn u8(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes([self.u8(), self.u8(), self.u8(), self.u8()])
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u8) -> u8 {
        self.u8() % bound.max(1)
    }

    /// Up to 255 bytes.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.u8()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    fn str(&mut self) -> &'a str {
        let bytes = self.bytes();
        match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        }
    }

    pub(crate) fn version(&mut self) -> ProtocolVersion {
        [
            ProtocolVersion::V311,
            ProtocolVersion::V5,
            ProtocolVersion::V31,
        ][usize::from(self.below(3))]
    }

    pub(crate) fn text(&mut self) -> Text<'a> {
        Text::new(self.str()).unwrap_or_else(|_| Text::new("t").expect("valid text"))
    }

    pub(crate) fn topic(&mut self) -> TopicName<'a> {
        TopicName::new(self.str()).unwrap_or_else(|_| TopicName::new("t").expect("a valid name"))
    }

    pub(crate) fn filter(&mut self) -> TopicFilter<'a> {
        TopicFilter::new(self.str())
            .unwrap_or_else(|_| TopicFilter::new("f/#").expect("a valid filter"))
    }

    pub(crate) fn qos(&mut self) -> QoS {
        QoS::from_u8(self.below(3)).unwrap_or(QoS::AtMostOnce)
    }

    pub(crate) fn packet_id(&mut self) -> PacketId {
        PacketId::new(self.u16()).unwrap_or_else(|| PacketId::new(1).expect("not zero"))
    }

    pub(crate) fn reason_code(&mut self) -> ReasonCode {
        ReasonCode::from_u8(self.u8()).unwrap_or(ReasonCode::Success)
    }

    pub(crate) fn subscription_options(&mut self) -> SubscriptionOptions {
        let bits = self.u8();
        let mut options =
            SubscriptionOptions::new(QoS::from_u8(bits % 3).unwrap_or(QoS::AtMostOnce));
        options.no_local = bits & 4 != 0;
        options.retain_as_published = bits & 8 != 0;
        options.retain_handling = match bits >> 4 & 3 {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendIfNew,
            _ => RetainHandling::DoNotSend,
        };
        options
    }

    pub(crate) fn property(&mut self) -> Property<'a> {
        let non_zero = |value: u16| NonZeroU16::new(value).unwrap_or(NonZeroU16::MIN);
        match self.below(27) {
            0 if self.flag() => Property::PayloadFormatIndicator(PayloadFormat::Utf8),
            0 => Property::PayloadFormatIndicator(PayloadFormat::Unspecified),
            1 => Property::MessageExpiryInterval(self.u32()),
            2 => Property::ContentType(self.text()),
            3 => Property::ResponseTopic(self.topic()),
            4 => Property::CorrelationData(self.bytes()),
            5 => Property::SubscriptionIdentifier(
                SubscriptionId::new(self.u32() % SubscriptionId::MAX + 1).expect("in range"),
            ),
            6 => Property::SessionExpiryInterval(self.u32()),
            7 => Property::AssignedClientIdentifier(self.text()),
            8 => Property::ServerKeepAlive(self.u16()),
            9 => Property::AuthenticationMethod(self.text()),
            10 => Property::AuthenticationData(self.bytes()),
            11 => Property::RequestProblemInformation(self.flag()),
            12 => Property::WillDelayInterval(self.u32()),
            13 => Property::RequestResponseInformation(self.flag()),
            14 => Property::ResponseInformation(self.text()),
            15 => Property::ServerReference(self.text()),
            16 => Property::ReasonString(self.text()),
            17 => Property::ReceiveMaximum(non_zero(self.u16())),
            18 => Property::TopicAliasMaximum(self.u16()),
            19 => Property::TopicAlias(non_zero(self.u16())),
            20 => Property::MaximumQoS(self.qos()),
            21 => Property::RetainAvailable(self.flag()),
            22 => Property::UserProperty(self.text(), self.text()),
            23 => {
                Property::MaximumPacketSize(NonZeroU32::new(self.u32()).unwrap_or(NonZeroU32::MIN))
            }
            24 => Property::WildcardSubscriptionAvailable(self.flag()),
            25 => Property::SubscriptionIdentifierAvailable(self.flag()),
            _ => Property::SharedSubscriptionAvailable(self.flag()),
        }
    }
}
