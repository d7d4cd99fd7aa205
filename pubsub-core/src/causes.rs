//! An error and what led to it, for people to read.

use std::error::Error;
use std::fmt;

/// An error with its causes, in one line for a log or a person: `Display` writes the error, and after a colon each
/// [source](Error::source) in turn, but none in the words of the one before.
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
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if text != last {
                write!(f, ": {text}")?;
                last = text;
            }
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ProviderError, ProviderErrorKind as Kind};

    #[test]
    fn what_two_links_say_in_the_same_words_is_said_once() {
        let inner = ProviderError::new(Kind::ConnectionLost).with_source("reset by peer");
        let outer = ProviderError::new(Kind::ConnectionLost).with_source(inner);
        let told = WithCauses::new(&outer).to_string();
        assert_eq!(told, "the connection was lost: reset by peer");
    }
}
