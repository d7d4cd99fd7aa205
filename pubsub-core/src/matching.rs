//! Where services depart from the specification's matching.

/// Where a service departs from the specification's matching.
///
/// The default is the specification to the letter. A provider states its service's rules in
/// [`Provider::matching_rules`](crate::Provider::matching_rules).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct MatchingRules {
    /// Whether `a/#` matches `a`.
    pub parent_level: ParentLevel,
    /// Whether a filter that begins with a wildcard sees topics that begin with `$`.
    pub reserved_topics: ReservedTopics,
}

impl MatchingRules {
    /// The specification's rules, the same as the default.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            parent_level: ParentLevel::Matches,
            reserved_topics: ReservedTopics::NamedExplicitly,
        }
    }

    /// These rules with another answer to whether `a/#` matches `a`.
    #[must_use]
    pub const fn with_parent_level(mut self, parent_level: ParentLevel) -> Self {
        self.parent_level = parent_level;
        self
    }

    /// These rules with another treatment of topics that begin with `$`.
    #[must_use]
    pub const fn with_reserved_topics(mut self, reserved_topics: ReservedTopics) -> Self {
        self.reserved_topics = reserved_topics;
        self
    }
}

/// Whether `a/#` matches `a` itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "two ways, closed")]
pub enum ParentLevel {
    /// It does, as the specification says.
    #[default]
    Matches,
    /// `a/#` means only what lies below `a`.
    BelowOnly,
}

/// Whether a filter that begins with a wildcard sees topics that begin with `$`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "two ways, closed")]
pub enum ReservedTopics {
    /// Only a filter that spells out the first level sees them, as the specification says.
    #[default]
    NamedExplicitly,
    /// They are topics like any other.
    Ordinary,
}
