//! The filters of one subscription.

use std::collections::HashSet;

use crate::topic::TopicFilter;

/// A set that is mostly of one, which needs no table.
#[derive(Default)]
pub(crate) enum Filters {
    #[default]
    None,
    One(TopicFilter),
    Many(HashSet<TopicFilter>),
}

impl Filters {
    /// False if it was there.
    pub(crate) fn insert(&mut self, filter: &TopicFilter) -> bool {
        match self {
            Self::None => *self = Self::One(filter.clone()),
            Self::One(one) if one == filter => return false,
            Self::One(one) => *self = Self::Many(HashSet::from([one.clone(), filter.clone()])),
            Self::Many(many) => return many.insert(filter.clone()),
        }
        true
    }

    /// False if it was not there.
    pub(crate) fn remove(&mut self, filter: &TopicFilter) -> bool {
        match self {
            Self::One(one) if one == filter => {
                *self = Self::None;
                true
            }
            Self::None | Self::One(_) => false,
            Self::Many(many) => many.remove(filter),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::None => true,
            Self::One(_) => false,
            Self::Many(many) => many.is_empty(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &TopicFilter> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(one) => (Some(one), None),
            Self::Many(many) => (None, Some(many)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(steps in prop::collection::vec((any::<bool>(), 0..4), 0..40)) {
            let (mut filters, mut model) = (Filters::default(), BTreeSet::new());
            for (insert, number) in steps {
                let filter = TopicFilter::new(format!("a/{number}")).unwrap();
                if insert {
                    prop_assert_eq!(filters.insert(&filter), model.insert(filter));
                } else {
                    prop_assert_eq!(filters.remove(&filter), model.remove(&filter));
                }
                prop_assert_eq!(filters.is_empty(), model.is_empty());
                let all: BTreeSet<_> = filters.iter().cloned().collect();
                prop_assert_eq!(&all, &model);
            }
        }
    }
}
