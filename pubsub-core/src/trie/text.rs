//! The text of an entry. A short one lies in place: with a value of up to 16 bytes, the entry then fills one
//! cache line, or two.

/// A filter's text, at most once allocated: if it has more than `SHORT` bytes.
#[derive(Clone, Debug)]
pub(super) enum Text<const SHORT: usize> {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Box<str>),
}

impl<const SHORT: usize> Text<SHORT> {
    /// Room for a text that is then [filled in](Self::fill).
    #[inline]
    pub(super) fn with_room_for(text: &str) -> Self {
        match u8::try_from(text.len()) {
            Ok(len) if text.len() <= SHORT => Self::Short {
                len,
                bytes: [0; SHORT],
            },
            _ => Self::Long(text.into()),
        }
    }

    /// Writes down the text that there is room for. By itself, since a text that is written and then moved
    /// has the processor wait for what it has just written.
    #[inline]
    pub(super) fn fill(&mut self, text: &str) {
        if let Self::Short { len, bytes } = self
            && let Some(bytes) = bytes.get_mut(..usize::from(*len))
        {
            bytes.copy_from_slice(text.as_bytes());
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Short { len, .. } => usize::from(*len),
            Self::Long(text) => text.len(),
        }
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(text) => text.as_bytes(),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Short { .. } => std::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Self::Long(text) => text,
        }
    }
}
