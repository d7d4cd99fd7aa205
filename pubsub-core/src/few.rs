//! Lists that are mostly of one.

/// A list that is mostly of one thing, which needs no block of its own. In no particular order.
#[derive(Default)]
pub(crate) enum Few<T> {
    #[default]
    None,
    One(T),
    Many(Vec<T>),
}

impl<T: Copy + PartialEq> Few<T> {
    pub(crate) fn push(&mut self, thing: T) {
        match self {
            Self::None => *self = Self::One(thing),
            Self::One(one) => *self = Self::Many(vec![*one, thing]),
            Self::Many(many) => many.push(thing),
        }
    }

    /// Removes a thing once. Returns whether none is left.
    pub(crate) fn remove(&mut self, thing: T) -> bool {
        match self {
            Self::One(one) if *one == thing => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(many) => {
                if let Some(at) = many.iter().position(|other| *other == thing) {
                    many.swap_remove(at);
                }
            }
        }
        self.as_slice().is_empty()
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_bag(steps in prop::collection::vec((any::<bool>(), 0..4), 0..40)) {
            let (mut few, mut model) = (Few::default(), Vec::new());
            for (push, thing) in steps {
                if push {
                    few.push(thing);
                    model.push(thing);
                } else {
                    if let Some(at) = model.iter().position(|other| *other == thing) {
                        model.remove(at);
                    }
                    prop_assert_eq!(few.remove(thing), model.is_empty());
                }
                let mut all = few.as_slice().to_vec();
                all.sort_unstable();
                model.sort_unstable();
                prop_assert_eq!(&all, &model);
            }
        }
    }
}
