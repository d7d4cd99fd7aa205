use core::fmt;
use core::num::{NonZeroU16, NonZeroU32};

/// A Packet Identifier: never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The smallest identifier: 1.
    pub const MIN: Self = Self(NonZeroU16::MIN);

    /// The identifier with this number; `None` for zero.
    //= MQTT-2.2.1-3
    //= v3.1.1 MQTT-2.3.1-1
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number.
    pub const fn value(self) -> u16 {
        self.0.get()
    }
}

impl From<NonZeroU16> for PacketId {
    fn from(id: NonZeroU16) -> Self {
        Self(id)
    }
}

impl From<PacketId> for NonZeroU16 {
    fn from(id: PacketId) -> Self {
        id.0
    }
}

impl From<PacketId> for u16 {
    fn from(id: PacketId) -> Self {
        id.value()
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A Subscription Identifier (MQTT 5): 1 to 268,435,455.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(NonZeroU32);

impl SubscriptionId {
    /// The largest identifier: what a variable byte integer holds.
    pub const MAX: u32 = crate::wire::VARINT_MAX;

    /// The identifier with this number; `None` for zero and above [`SubscriptionId::MAX`].
    pub const fn new(id: u32) -> Option<Self> {
        if id > Self::MAX {
            return None;
        }
        match NonZeroU32::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number.
    pub const fn value(self) -> u32 {
        self.0.get()
    }
}

impl From<SubscriptionId> for u32 {
    fn from(id: SubscriptionId) -> Self {
        id.value()
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
