//! An error and what led to it, for people to read.

use std::error::Error;
use std::fmt;

/// An error with its causes, in one line for a log or a person: `Display` writes the error, and after a colon each
/// [source](Error::source) in turn.
///
/// The errors of this workspace tell one thing each and leave the rest to their source, so that printed by itself, "not
/// connected" does not say why:
///
/// ```
/// use pubsub_core::{PubSub, WithCauses};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let error = PubSub::new().publish("a", "x").provider("cloud").await.unwrap_err();
/// assert_eq!(error.to_string(), "not published: unknown provider");
/// assert_eq!(
///     WithCauses::new(&error).to_string(),
///     "not published: unknown provider: could not find provider named cloud"
/// );
/// # }
/// ```
///
/// Of a `Box<dyn Error>`, give it what is inside: `WithCauses::new(&*error)`.
#[derive(Clone, Copy, Debug)]
pub struct WithCauses<'a>(&'a (dyn Error + 'static));

impl<'a> WithCauses<'a> {
    /// This error, to be written with its causes.
    #[must_use]
    pub fn new(error: &'a (dyn Error + 'static)) -> Self {
        Self(error)
    }
}

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
