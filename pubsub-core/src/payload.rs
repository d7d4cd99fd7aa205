//! Payloads: JSON by default, text, bytes, nothing, or a codec of the application's own.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What can be published.
///
/// ```
/// use pubsub_core::{Empty, IntoPayload, Json};
///
/// assert_eq!(Json(&[1, 2]).into_payload()?, "[1,2]");
/// assert_eq!("text as it is".into_payload()?, "text as it is");
/// assert!(Empty.into_payload()?.is_empty());
/// # Ok::<(), pubsub_core::PayloadError>(())
/// ```
pub trait IntoPayload {
    /// The bytes to send.
    ///
    /// # Errors
    /// The value cannot be encoded.
    fn into_payload(self) -> Result<Bytes, PayloadError>;
}

/// Published as JSON.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::exhaustive_structs,
    reason = "a wrapper made to be written out"
)]
pub struct Json<T>(pub T);

/// No payload at all. Published with [`retain`](crate::Publish::retain), it erases what was kept.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs, reason = "nothing can be added to nothing")]
pub struct Empty;

/// Published through a codec of the application's own.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::exhaustive_structs,
    reason = "a wrapper made to be written out"
)]
pub struct Encoded<'a, C, T>(pub &'a C, pub &'a T);

impl<T: Serialize> IntoPayload for Json<T> {
    fn into_payload(self) -> Result<Bytes, PayloadError> {
        JsonCodec.encode(&self.0)
    }
}

impl<T, C: Encode<T>> IntoPayload for Encoded<'_, C, T> {
    fn into_payload(self) -> Result<Bytes, PayloadError> {
        self.0.encode(self.1)
    }
}

impl IntoPayload for Empty {
    fn into_payload(self) -> Result<Bytes, PayloadError> {
        Ok(Bytes::new())
    }
}

impl IntoPayload for Bytes {
    fn into_payload(self) -> Result<Bytes, PayloadError> {
        Ok(self)
    }
}

impl IntoPayload for Vec<u8> {
    fn into_payload(self) -> Result<Bytes, PayloadError> {
        Ok(self.into())
    }
}

impl IntoPayload for String {
    fn into_payload(self) -> Result<Bytes, PayloadError> {
        Ok(self.into())
    }
}

impl IntoPayload for &str {
    fn into_payload(self) -> Result<Bytes, PayloadError> {
        Ok(Bytes::copy_from_slice(self.as_bytes()))
    }
}

impl IntoPayload for &[u8] {
    fn into_payload(self) -> Result<Bytes, PayloadError> {
        Ok(Bytes::copy_from_slice(self))
    }
}

impl<const N: usize> IntoPayload for &[u8; N] {
    fn into_payload(self) -> Result<Bytes, PayloadError> {
        Ok(Bytes::copy_from_slice(self))
    }
}

/// How values of type `T` become payloads. See [`Decode`] for the other way.
pub trait Encode<T> {
    /// The bytes of a value.
    ///
    /// # Errors
    /// The value cannot be said in this format.
    fn encode(&self, value: &T) -> Result<Bytes, PayloadError>;
}

/// How payloads become values of type `T`: with [`Encode`], a payload format of the application's own.
///
/// ```
/// use bytes::Bytes;
/// use pubsub_core::{Decode, Encode, PayloadError};
///
/// /// A temperature as two big-endian bytes of hundredths of a degree.
/// struct Hundredths;
///
/// impl Encode<f32> for Hundredths {
///     fn encode(&self, value: &f32) -> Result<Bytes, PayloadError> {
///         Ok(Bytes::copy_from_slice(&((value * 100.0) as i16).to_be_bytes()))
///     }
/// }
///
/// impl Decode<f32> for Hundredths {
///     fn decode(&self, payload: &Bytes) -> Result<f32, PayloadError> {
///         let bytes = <[u8; 2]>::try_from(&payload[..]).map_err(PayloadError::decode)?;
///         Ok(f32::from(i16::from_be_bytes(bytes)) / 100.0)
///     }
/// }
///
/// assert_eq!(Hundredths.decode(&Hundredths.encode(&21.5)?)?, 21.5);
/// assert!(Hundredths.decode(&Bytes::from_static(b"x")).is_err());
/// # Ok::<(), PayloadError>(())
/// ```
pub trait Decode<T> {
    /// The value of some bytes, which come from outside and may be anything.
    ///
    /// # Errors
    /// The bytes are not of this format.
    fn decode(&self, payload: &Bytes) -> Result<T, PayloadError>;
}

/// JSON through serde.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::exhaustive_structs, reason = "a name made to be written out")]
pub struct JsonCodec;

impl<T: Serialize> Encode<T> for JsonCodec {
    fn encode(&self, value: &T) -> Result<Bytes, PayloadError> {
        serde_json::to_vec(value)
            .map(Bytes::from)
            .map_err(PayloadError::encode)
    }
}

impl<T: DeserializeOwned> Decode<T> for JsonCodec {
    fn decode(&self, payload: &Bytes) -> Result<T, PayloadError> {
        serde_json::from_slice(payload).map_err(PayloadError::decode)
    }
}

/// A payload could not be encoded or decoded.
///
/// A clone shares the source. `Display` leaves it to [`Error::source`].
#[derive(Clone, Debug)]
pub struct PayloadError {
    step: Step,
    source: Arc<dyn Error + Send + Sync>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Encode,
    Decode,
}

impl PayloadError {
    /// A value could not be encoded.
    pub fn encode(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            step: Step::Encode,
            source: source.into().into(),
        }
    }

    /// A payload could not be decoded.
    pub fn decode(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            step: Step::Decode,
            source: source.into().into(),
        }
    }
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.step {
            Step::Encode => "the value could not be encoded",
            Step::Decode => "the payload could not be decoded",
        })
    }
}

impl Error for PayloadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
