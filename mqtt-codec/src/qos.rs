/// Quality of service of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
// Four bytes, so that a view of a PUBLISH has no padding: padding is moved like a field.
#[repr(u32)]
#[allow(
    clippy::exhaustive_enums,
    reason = "the two bits have no other legal value"
)]
pub enum QoS {
    /// 0: delivered once or not at all; no acknowledgement.
    #[default]
    AtMostOnce = 0,
    /// 1: delivered once or more; PUBACK.
    AtLeastOnce = 1,
    /// 2: delivered exactly once; PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

impl QoS {
    /// The level with this number: `None` for anything above 2.
    pub const fn from_u8(level: u8) -> Option<Self> {
        match level {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

impl From<QoS> for u8 {
    fn from(qos: QoS) -> Self {
        qos as Self
    }
}
