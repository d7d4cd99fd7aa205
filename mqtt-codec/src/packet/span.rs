use bytes::Bytes;

use crate::header::Frame;
use crate::{Properties, PropertyBlock, PropertyScope};

/// A part of a frame. Packets are shorter than 2^32 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// Where `part` lies in `frame`, of which it is a subslice. (What has no bytes may come from anywhere.)
    pub(super) fn of(part: &[u8], frame: Frame<'_>) -> Self {
        if part.is_empty() {
            return Self::default();
        }
        let start = part
            .as_ptr()
            .addr()
            .wrapping_sub(frame.body.as_ptr().addr());
        debug_assert!(start + part.len() <= frame.body.len());
        let start = start + usize::from(frame.header);
        Self {
            start: start as u32,
            len: part.len() as u32,
        }
    }

    pub(super) fn of_properties(properties: &Properties<'_>, frame: Frame<'_>) -> Self {
        Self::of(properties.as_block().unwrap_or_default(), frame)
    }

    pub(super) fn get(self, frame: &[u8]) -> &[u8] {
        let start = self.start as usize;
        // `of` made it for this frame; empty is unreachable, and better than a panic.
        frame
            .get(start..start + self.len as usize)
            .unwrap_or_default()
    }

    /// The properties that this is; nothing if it is empty.
    pub(super) fn share_properties(
        self,
        scope: PropertyScope,
        frame: &Bytes,
    ) -> Option<PropertyBlock> {
        let block = self.get(frame);
        if block.is_empty() {
            None
        } else {
            Some(PropertyBlock::from_checked(scope, frame.slice_ref(block)))
        }
    }
}

/// The view of properties that may not be there.
pub(super) fn properties_of(block: &Option<PropertyBlock>) -> Properties<'_> {
    block
        .as_ref()
        .map_or(Properties::EMPTY, PropertyBlock::as_properties)
}
