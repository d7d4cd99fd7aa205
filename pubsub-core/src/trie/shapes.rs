//! Which shapes of filters there are, and which of them a topic has to be looked up by.

use super::levels::{SHAPE_LEVELS, Shape};

/// The listed shapes, sorted beforehand by the topics they can match: that is asked with every match,
/// and a shape comes or goes rarely.
#[derive(Clone, Debug, Default)]
pub(super) struct Shapes {
    listed: Vec<Listed>,
    /// Those for topics of one level, of two, and so on.
    plan: Vec<Shape>,
    /// Where in the plan those for topics of so many levels lie.
    parts: [Part; SHAPE_LEVELS + 2],
}

#[derive(Clone, Debug)]
struct Listed {
    shape: Shape,
    /// How many filters have it; at least one.
    filters: u32,
}

/// First those that begin with a literal level, then the others. The plan has as many places as there are shapes and levels, at
/// most.
#[derive(Clone, Debug, Default)]
struct Part {
    start: u32,
    literal_end: u32,
    end: u32,
}

impl Shapes {
    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.listed.len()
    }

    /// The shapes that can match a topic of so many levels, counted up to one too many; of a reserved topic,
    /// only those that begin with a literal level.
    #[inline]
    pub(super) fn fitting(&self, levels: usize, root_is_reserved: bool) -> &[Shape] {
        let Some(part) = self.parts.get(levels) else {
            return &[];
        };
        let end = if root_is_reserved {
            part.literal_end
        } else {
            part.end
        };
        let range = part.start as usize..end as usize;
        self.plan.get(range).unwrap_or_default()
    }

    /// One more filter of this shape; false if there are too many shapes.
    pub(super) fn add(&mut self, shape: &Shape, max: usize, parent_matches: bool) -> bool {
        let mut listed = self.listed.iter_mut();
        if let Some(listed) = listed.find(|listed| listed.shape == *shape) {
            listed.filters += 1;
        } else if self.listed.len() < max {
            self.listed.push(Listed {
                shape: *shape,
                filters: 1,
            });
            self.make_plan(parent_matches);
        } else {
            return false;
        }
        true
    }

    /// One filter of this shape less.
    pub(super) fn remove(&mut self, shape: &Shape, parent_matches: bool) {
        let mut listed = self.listed.iter_mut();
        if let Some(at) = listed.position(|listed| listed.shape == *shape) {
            self.listed[at].filters -= 1;
            if self.listed[at].filters == 0 {
                self.listed.swap_remove(at);
                self.make_plan(parent_matches);
            }
        }
    }

    fn make_plan(&mut self, parent_matches: bool) {
        self.plan.clear();
        if let [only] = self.listed.as_slice() {
            // One place for all topics, and nothing to put in order.
            let shape = only.shape;
            self.plan.push(shape);
            for (levels, part) in self.parts.iter_mut().enumerate() {
                let end = u32::from(shape.fits(levels, parent_matches));
                let literal_end = match shape.begins_with_wildcard() {
                    true => 0,
                    false => end,
                };
                *part = Part {
                    start: 0,
                    literal_end,
                    end,
                };
            }
            return;
        }
        for (levels, part) in self.parts.iter_mut().enumerate() {
            let start = self.plan.len();
            let mut end_with = |begins_with_wildcard| {
                let shapes = self.listed.iter().map(|listed| listed.shape);
                self.plan.extend(shapes.filter(|shape| {
                    shape.fits(levels, parent_matches)
                        && shape.begins_with_wildcard() == begins_with_wildcard
                }));
                self.plan.len() as u32
            };
            *part = Part {
                start: start as u32,
                literal_end: end_with(false),
                end: end_with(true),
            };
        }
    }
}
