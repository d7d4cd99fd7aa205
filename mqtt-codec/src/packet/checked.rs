use bytes::Bytes;

use crate::wire::Reader;
use crate::{PacketId, Properties, PropertyScope, ProtocolVersion};

/// A frame that decoding accepted, to be read again when somebody asks.
///
/// Reading what was checked cannot fail. Where the types cannot say so, the code answers with something empty
/// rather than panic.
#[derive(Clone)]
pub(crate) struct Checked {
    frame: Bytes,
    /// Length of the fixed header (8 bits) and protocol level (8), in one word, as in the layout of a PUBLISH.
    form: u64,
}

impl Checked {
    #[inline(always)]
    pub(crate) const fn new(frame: Bytes, header: u8, version: ProtocolVersion) -> Self {
        Self {
            frame,
            form: header as u64 | (version.level() as u64) << 8,
        }
    }

    #[inline]
    pub(super) const fn frame(&self) -> &Bytes {
        &self.frame
    }

    #[inline]
    pub(super) const fn version(&self) -> ProtocolVersion {
        match (self.form >> 8) as u8 {
            5 => ProtocolVersion::V5,
            4 => ProtocolVersion::V311,
            _ => ProtocolVersion::V31,
        }
    }

    /// What follows the fixed header.
    pub(super) fn body(&self) -> &[u8] {
        self.frame
            .get(usize::from(self.form as u8)..)
            .unwrap_or_default()
    }

    /// The body of a packet that begins with a Packet Identifier and properties: both, and the rest.
    pub(super) fn read(&self, scope: PropertyScope) -> (PacketId, Properties<'_>, &[u8]) {
        let mut reader = Reader::new(self.body());
        let packet_id = reader.packet_id().unwrap_or(PacketId::MIN);
        let block = match self.version().has_properties() {
            true => reader.block().unwrap_or_default(),
            false => &[],
        };
        (
            packet_id,
            Properties::from_checked(scope, block),
            reader.rest(),
        )
    }
}
