//! The text of an entry. A short one lies in place: with a value of up to 16 bytes, the entry then fills one
//! cache line.

/// A filter's text, at most once allocated.
#[derive(Clone)]
pub(super) enum Text {
    Short { len: u8, bytes: [u8; Self::SHORT] },
    Long(Box<str>),
}

impl Text {
    const SHORT: usize = 46;

    pub(super) fn new(text: &str) -> Self {
        let mut bytes = [0; Self::SHORT];
        match bytes.get_mut(..text.len()) {
            Some(place) => {
                place.copy_from_slice(text.as_bytes());
                Self::Short {
                    len: text.len() as u8,
                    bytes,
                }
            }
            None => Self::Long(text.into()),
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
