//! What can be given as topics and filters: one or several, as text or checked before.

use crate::provider::FilterRequest;
use crate::topic::{TopicFilter, TopicName};
use crate::topic_error::TopicError;

/// One topic to publish on, or several: text, [`TopicName`]s, or lists of them.
pub trait IntoTopics {
    /// Hands over each topic.
    ///
    /// # Errors
    /// A text is not a valid topic name.
    fn for_each_topic(self, add: &mut impl FnMut(TopicName)) -> Result<(), TopicError>;
}

/// One filter to subscribe to, or several: text, [`TopicFilter`]s, [`FilterRequest`]s, or lists of them.
pub trait IntoFilters {
    /// Hands over each filter.
    ///
    /// # Errors
    /// A text is not a valid topic filter.
    fn for_each_filter(self, add: &mut impl FnMut(FilterRequest)) -> Result<(), TopicError>;
}

macro_rules! single {
    ($trait:ident, $method:ident, $item:ident: $($type:ty => $value:expr;)*) => {
        $(impl $trait for $type {
            #[inline]
            fn $method(self, add: &mut impl FnMut($item)) -> Result<(), TopicError> {
                let make: fn($type) -> Result<$item, TopicError> = $value;
                add(make(self)?);
                Ok(())
            }
        })*
    };
}

macro_rules! several {
    ($trait:ident, $method:ident, $item:ident) => {
        impl<T: $trait, const N: usize> $trait for [T; N] {
            fn $method(self, add: &mut impl FnMut($item)) -> Result<(), TopicError> {
                self.into_iter().try_for_each(|one| one.$method(add))
            }
        }

        impl<T: $trait> $trait for Vec<T> {
            fn $method(self, add: &mut impl FnMut($item)) -> Result<(), TopicError> {
                self.into_iter().try_for_each(|one| one.$method(add))
            }
        }

        impl<T: $trait + Clone> $trait for &[T] {
            fn $method(self, add: &mut impl FnMut($item)) -> Result<(), TopicError> {
                self.iter().try_for_each(|one| one.clone().$method(add))
            }
        }
    };
}

single! { IntoTopics, for_each_topic, TopicName:
    &str => |text| TopicName::new(text);
    String => TopicName::new;
    &String => |text| TopicName::new(text.as_str());
    TopicName => Ok;
    &TopicName => |name| Ok(name.clone());
}
several!(IntoTopics, for_each_topic, TopicName);

single! { IntoFilters, for_each_filter, FilterRequest:
    &str => |text| TopicFilter::new(text).map(FilterRequest::new);
    String => |text| TopicFilter::new(text).map(FilterRequest::new);
    &String => |text| TopicFilter::new(text.as_str()).map(FilterRequest::new);
    TopicFilter => |filter| Ok(FilterRequest::new(filter));
    &TopicFilter => |filter| Ok(FilterRequest::new(filter.clone()));
    FilterRequest => Ok;
    TopicName => |name| TopicFilter::try_from(name).map(FilterRequest::new);
}
several!(IntoFilters, for_each_filter, FilterRequest);
