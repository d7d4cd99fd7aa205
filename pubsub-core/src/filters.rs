//! What goes with the filters of a subscription, or of a provider.

use std::collections::HashMap;

use crate::topic::TopicFilter;
use crate::trie::TextHash;

/// A map that is mostly of one filter, which needs no table.
pub(crate) struct FilterMap<V> {
    /// None where there is a table.
    only: Option<(TopicFilter, V)>,
    /// Until there is no filter left.
    table: Option<HashMap<TopicFilter, V, TextHash>>,
}

/// The filters of one subscription.
pub(crate) type Filters = FilterMap<()>;

impl<V> FilterMap<V> {
    pub(crate) fn len(&self) -> usize {
        match &self.table {
            Some(table) => table.len(),
            None => usize::from(self.only.is_some()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn get(&self, filter: &TopicFilter) -> Option<&V> {
        match (&self.table, &self.only) {
            (Some(table), _) => table.get(filter),
            (None, Some((only, value))) if only == filter => Some(value),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, filter: &TopicFilter) -> Option<&mut V> {
        match (&mut self.table, &mut self.only) {
            (Some(table), _) => table.get_mut(filter),
            (None, Some((only, value))) if only == filter => Some(value),
            _ => None,
        }
    }

    /// The value of a filter, made first if there is none.
    pub(crate) fn get_or_insert_with(
        &mut self,
        filter: &TopicFilter,
        make: impl FnOnce() -> V,
    ) -> &mut V {
        let is_only = self.only.as_ref().is_none_or(|(only, _)| only == filter);
        if is_only && self.table.is_none() {
            let (_, value) = self.only.get_or_insert_with(|| (filter.clone(), make()));
            return value;
        }
        let table = self.table.get_or_insert_default();
        table.extend(self.only.take());
        table.entry(filter.clone()).or_insert_with(make)
    }

    pub(crate) fn remove(&mut self, filter: &TopicFilter) -> Option<V> {
        if let Some(table) = &mut self.table {
            let removed = table.remove(filter);
            self.table.take_if(|table| table.is_empty());
            return removed;
        }
        let (_, value) = self.only.take_if(|(only, _)| only == filter)?;
        Some(value)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TopicFilter, &V)> {
        let only = self.only.iter().map(|(only, value)| (only, value));
        only.chain(self.table.iter().flat_map(|table| table.iter()))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &TopicFilter> {
        self.iter().map(|(filter, _)| filter)
    }
}

impl Filters {
    /// False if it was there.
    pub(crate) fn insert(&mut self, filter: &TopicFilter) -> bool {
        let mut is_new = false;
        self.get_or_insert_with(filter, || is_new = true);
        is_new
    }
}

impl<V> Default for FilterMap<V> {
    fn default() -> Self {
        Self {
            only: None,
            table: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((0..3, 0..4), 0..40)) {
            let (mut filters, mut model) = (FilterMap::default(), BTreeMap::new());
            for (value, (step, number)) in (0..).zip(steps) {
                let filter = TopicFilter::new(format!("a/{number}")).unwrap();
                match step {
                    0 => prop_assert_eq!(filters.remove(&filter), model.remove(&filter)),
                    1 => prop_assert_eq!(filters.get_mut(&filter), model.get_mut(&filter)),
                    _ => prop_assert_eq!(
                        filters.get_or_insert_with(&filter, || value),
                        model.entry(filter.clone()).or_insert(value)
                    ),
                }
                prop_assert_eq!(filters.get(&filter), model.get(&filter));
                prop_assert_eq!(filters.len(), model.len());
                prop_assert_eq!(filters.is_empty(), model.is_empty());
                let all: BTreeMap<_, _> = filters.iter().collect();
                prop_assert_eq!(all, model.iter().collect());
            }
        }
    }
}
