//! Properties that own their bytes.

use core::fmt;

use alloc::vec::Vec;
use bytes::Bytes;

use super::block::check_allowed;
use super::{Properties, Property, PropertyScope};
use crate::error::EncodeError;

/// Builds a block of properties once, to encode it many times.
///
/// ```
/// use mqtt_codec::{Property, PropertyBuf, PropertyScope, Text};
///
/// let mut buf = PropertyBuf::new(PropertyScope::Publish);
/// buf.push(Property::ContentType(Text::new("application/json")?))?;
/// assert_eq!(buf.as_properties().content_type().unwrap(), "application/json");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PropertyBuf {
    scope: PropertyScope,
    bytes: Vec<u8>,
    /// One bit for each property that may not come again.
    seen: u64,
}

impl PropertyBuf {
    /// No properties yet, for packets of `scope`.
    pub const fn new(scope: PropertyScope) -> Self {
        Self {
            scope,
            bytes: Vec::new(),
            seen: 0,
        }
    }

    /// Appends a property.
    ///
    /// # Errors
    ///
    /// If the property cannot stand there, or not again; the block is as before then.
    pub fn push(&mut self, property: Property<'_>) -> Result<(), EncodeError> {
        let len = property.encoded_len()?;
        check_allowed(property.id(), self.scope, &mut self.seen)?;
        self.bytes.reserve(len);
        property.put(&mut self.bytes);
        Ok(())
    }

    /// The properties so far.
    pub fn as_properties(&self) -> Properties<'_> {
        Properties::from_checked(self.scope, &self.bytes)
    }

    /// Forgets all properties, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.seen = 0;
    }

    /// Ends building; cheap to clone from then on.
    pub fn freeze(self) -> PropertyBlock {
        PropertyBlock {
            scope: self.scope,
            bytes: self.bytes.into(),
        }
    }
}

impl fmt::Debug for PropertyBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_properties().fmt(f)
    }
}

/// Checked properties with a shared handle on their bytes.
#[derive(Clone)]
pub struct PropertyBlock {
    scope: PropertyScope,
    /// Passed the check for `scope`.
    bytes: Bytes,
}

impl PropertyBlock {
    /// The view.
    pub fn as_properties(&self) -> Properties<'_> {
        Properties::from_checked(self.scope, &self.bytes)
    }

    /// Where these properties may stand.
    pub const fn scope(&self) -> PropertyScope {
        self.scope
    }

    /// The bytes on the wire without the length before them.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl PartialEq for PropertyBlock {
    fn eq(&self, other: &Self) -> bool {
        self.as_properties() == other.as_properties()
    }
}

impl Eq for PropertyBlock {}

impl fmt::Debug for PropertyBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_properties().fmt(f)
    }
}
