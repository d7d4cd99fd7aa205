//! The tree behind the shapes: for filters of too many levels, and for sets of too many shapes.
//!
//! Nodes lie in an arena; literal children are found in one table by (parent, level). A match walks
//! depth first and goes back by the parents' numbers, so it needs neither recursion nor a stack, and
//! visits a node once at most.

use super::hash::Seed;
use super::index::Index;
use super::levels::Levels;

const NONE: u32 = u32::MAX;
const ROOT: u32 = 0;

#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    /// The root first, if there is any node.
    nodes: Vec<Node>,
    free: Vec<u32>,
    /// Literal children by the key of parent and level.
    children: Index,
}

#[derive(Clone, Debug)]
struct Node {
    parent: u32,
    /// The level it stands for, `None` for `+`.
    level: Option<Box<str>>,
    /// How deep it lies; 0 for the root.
    depth: u32,
    /// The child for `+`.
    plus: u32,
    /// How many literal children.
    literals: u32,
    /// The filter that ends here.
    end: u32,
    /// The filter that goes on with `#` here.
    all: u32,
}

impl Node {
    fn new(parent: u32, level: Option<&str>, depth: u32) -> Self {
        let level = level.map(Into::into);
        Self {
            parent,
            level,
            depth,
            plus: NONE,
            literals: 0,
            end: NONE,
            all: NONE,
        }
    }

    fn is_unused(&self) -> bool {
        self.plus == NONE && self.literals == 0 && self.end == NONE && self.all == NONE
    }

    fn place(&mut self, is_all: bool) -> &mut u32 {
        if is_all { &mut self.all } else { &mut self.end }
    }
}

impl Tree {
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The number kept for a filter.
    pub(super) fn get(&self, pattern: &str, seed: &Seed) -> Option<u32> {
        let (node, is_all) = self.find(pattern, seed)?;
        let node = self.nodes.get(node as usize)?;
        Some(if is_all { node.all } else { node.end }).filter(|number| *number != NONE)
    }

    /// Keeps a number for a filter, in place of the one there was.
    pub(super) fn set(&mut self, pattern: &str, number: u32, seed: &Seed) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::new(NONE, None, 0));
        }
        let mut node = ROOT;
        let mut is_all = false;
        for level in pattern.split('/') {
            if level == "#" {
                is_all = true;
                break;
            }
            node = self.child_or_new(node, level, seed);
        }
        *self.nodes[node as usize].place(is_all) = number;
    }

    /// Forgets a filter, and the nodes that no other one needs.
    pub(super) fn remove(&mut self, pattern: &str, seed: &Seed) {
        let Some((mut at, is_all)) = self.find(pattern, seed) else {
            return;
        };
        *self.nodes[at as usize].place(is_all) = NONE;
        while at != ROOT && self.nodes[at as usize].is_unused() {
            let Node {
                parent,
                level,
                depth,
                ..
            } = std::mem::replace(&mut self.nodes[at as usize], Node::new(NONE, None, 0));
            match level {
                Some(level) => {
                    let key = child_key(
                        parent,
                        seed.level(level.as_bytes(), depth as usize - 1),
                        seed,
                    );
                    self.children.remove(key, at);
                    self.nodes[parent as usize].literals -= 1;
                }
                None => self.nodes[parent as usize].plus = NONE,
            }
            self.free.push(at);
            at = parent;
        }
        if self.free.len() + 1 == self.nodes.len() && self.nodes[ROOT as usize].is_unused() {
            *self = Self::default();
        }
    }

    /// Calls `visit` with the number of each filter that matches.
    pub(super) fn for_each_match(
        &self,
        topic: &str,
        levels: &Levels,
        seed: &Seed,
        rules: Rules,
        mut visit: impl FnMut(u32),
    ) {
        let text = topic.as_bytes();
        let mut at = ROOT;
        // Where the level begins that comes after `at`; behind the end if there is none.
        let mut start = 0;
        let Some(mut node) = self.nodes.first() else {
            return;
        };
        loop {
            let wildcards_apply = at != ROOT || !rules.root_is_reserved;
            let mut down = NONE;
            if start > text.len() {
                if node.end != NONE {
                    visit(node.end);
                }
                if node.all != NONE && rules.parent_matches {
                    visit(node.all);
                }
            } else {
                if node.all != NONE && wildcards_apply {
                    visit(node.all);
                }
                let place = node.depth as usize;
                let end = levels.end(place).unwrap_or_else(|| next_slash(text, start));
                if node.literals > 0 {
                    let level = text.get(start..end).unwrap_or_default();
                    let key = levels
                        .key(place)
                        .unwrap_or_else(|| seed.level(level, place));
                    down = self.literal(at, level, key, seed).unwrap_or(NONE);
                }
                if down == NONE && wildcards_apply {
                    down = node.plus;
                }
                if down != NONE {
                    start = end + 1;
                }
            }
            // Nothing below: back to the nearest node on the way that was reached by its text and has a
            // sibling for `+`.
            while down == NONE {
                if at == ROOT {
                    return;
                }
                let parent = node.parent;
                let was_literal = node.level.is_some();
                let Some(above) = self.nodes.get(parent as usize) else {
                    return;
                };
                let wildcards_apply = parent != ROOT || !rules.root_is_reserved;
                if was_literal && wildcards_apply && above.plus != NONE {
                    down = above.plus;
                } else {
                    start = levels
                        .start(above.depth as usize)
                        .unwrap_or_else(|| behind_last_slash(text, start - 1));
                    at = parent;
                    node = above;
                }
            }
            at = down;
            let Some(next) = self.nodes.get(at as usize) else {
                return;
            };
            node = next;
        }
    }

    fn find(&self, pattern: &str, seed: &Seed) -> Option<(u32, bool)> {
        let mut at = ROOT;
        for level in pattern.split('/') {
            let node = self.nodes.get(at as usize)?;
            at = match level {
                "#" => return Some((at, true)),
                "+" => node.plus,
                _ => {
                    let key = seed.level(level.as_bytes(), node.depth as usize);
                    self.literal(at, level.as_bytes(), key, seed)?
                }
            };
        }
        (at != NONE).then_some((at, false))
    }

    #[inline]
    fn literal(&self, parent: u32, level: &[u8], level_key: u64, seed: &Seed) -> Option<u32> {
        self.children
            .find(child_key(parent, level_key, seed), |number| {
                self.nodes.get(number as usize).is_some_and(|node| {
                    node.parent == parent
                        && node
                            .level
                            .as_ref()
                            .is_some_and(|have| have.as_bytes() == level)
                })
            })
    }

    fn child_or_new(&mut self, parent: u32, level: &str, seed: &Seed) -> u32 {
        let depth = self.nodes[parent as usize].depth;
        let level_key = seed.level(level.as_bytes(), depth as usize);
        let found = match level {
            "+" => self.nodes[parent as usize].plus,
            _ => self
                .literal(parent, level.as_bytes(), level_key, seed)
                .unwrap_or(NONE),
        };
        if found != NONE {
            return found;
        }
        let is_plus = level == "+";
        let node = Node::new(parent, (!is_plus).then_some(level), depth + 1);
        let number = match self.free.pop() {
            Some(number) => {
                self.nodes[number as usize] = node;
                number
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).unwrap_or(NONE)
            }
        };
        if is_plus {
            self.nodes[parent as usize].plus = number;
        } else {
            self.nodes[parent as usize].literals += 1;
            self.children
                .insert(child_key(parent, level_key, seed), number);
        }
        number
    }

    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len() - self.free.len()
    }
}

/// What a walk has to know of the rules and the topic.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) parent_matches: bool,
    /// The topic is not seen by filters that begin with a wildcard.
    pub(super) root_is_reserved: bool,
}

fn next_slash(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    rest.iter()
        .position(|byte| *byte == b'/')
        .map_or(text.len(), |offset| from + offset)
}

fn behind_last_slash(text: &[u8], before: usize) -> usize {
    let text = text.get(..before).unwrap_or_default();
    text.iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |slash| slash + 1)
}

#[inline]
fn child_key(parent: u32, level_key: u64, seed: &Seed) -> u64 {
    seed.pair(u64::from(parent), level_key)
}
