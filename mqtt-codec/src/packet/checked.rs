use bytes::Bytes;

use crate::wire::Reader;
use crate::{PacketId, Properties, PropertyScope, ProtocolVersion};

/// A frame that decoding accepted, to be read again when somebody asks.
///
/// Reading what was checked cannot fail. Where the types cannot say so, the code answers with something empty
/// rather than panic.
#[derive(Clone)]
pub(super) struct Checked {
    frame: Bytes,
    /// Length of the fixed header.
    header: u8,
    version: ProtocolVersion,
}

impl Checked {
    pub(super) const fn new(frame: Bytes, header: u8, version: ProtocolVersion) -> Self {
        Self {
            frame,
            header,
            version,
        }
    }

    pub(super) const fn frame(&self) -> &Bytes {
        &self.frame
    }

    pub(super) const fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// What follows the fixed header.
    pub(super) fn body(&self) -> &[u8] {
        self.frame
            .get(usize::from(self.header)..)
            .unwrap_or_default()
    }

    /// The body of a packet that begins with a Packet Identifier and properties: both, and the rest.
    pub(super) fn read(&self, scope: PropertyScope) -> (PacketId, Properties<'_>, &[u8]) {
        let mut reader = Reader::new(self.body());
        let packet_id = reader.packet_id().unwrap_or(PacketId::MIN);
        let block = match self.version.has_properties() {
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
