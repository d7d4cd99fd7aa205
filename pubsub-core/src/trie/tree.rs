//! The tree behind the shapes: for filters of too many levels, and for sets of too many shapes.
//!
//! Nodes are half a cache line and lie in an arena. A node knows its first literal child by the number of
//! that child's level; further ones lie in one table for all nodes. A match walks depth first and goes
//! back by the parents' numbers, so it needs neither recursion nor a stack, and visits a node once at most.

use super::hash::Seed;
use super::index::Index;
use super::levels::{Levels, SHAPE_LEVELS};
use super::symbols::{NO_SYMBOL, Symbols};

const NONE: u32 = u32::MAX;
const ROOT: u32 = 0;

#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    /// The root first, if there is any node.
    nodes: Vec<Node>,
    free: Vec<u32>,
    symbols: Symbols,
    /// Literal children by parent and symbol, except the one that the parent itself knows.
    children: Index,
}

#[derive(Clone, Debug)]
struct Node {
    parent: u32,
    /// The level it stands for, [`NO_SYMBOL`] for `+` and for the root.
    symbol: u32,
    /// The child for `+`.
    plus: u32,
    /// One literal child and its level. There may be others though this is none.
    first: u32,
    first_symbol: u32,
    /// How many other literal children there are.
    others: u32,
    /// The filter that ends here.
    end: u32,
    /// The filter that goes on with `#` here.
    all: u32,
}

impl Node {
    fn new(parent: u32, symbol: u32) -> Self {
        Self {
            parent,
            symbol,
            plus: NONE,
            first: NONE,
            first_symbol: NO_SYMBOL,
            others: 0,
            end: NONE,
            all: NONE,
        }
    }

    fn has_literals(&self) -> bool {
        self.first != NONE || self.others > 0
    }

    fn is_unused(&self) -> bool {
        self.plus == NONE && !self.has_literals() && self.end == NONE && self.all == NONE
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

    /// Every filter, with the number kept for it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (String, u32)> {
        // No filter ends at a node that is free.
        (ROOT..).zip(&self.nodes).flat_map(|(at, node)| {
            let end = (node.end != NONE).then(|| (self.pattern(at, false), node.end));
            let all = (node.all != NONE).then(|| (self.pattern(at, true), node.all));
            end.into_iter().chain(all)
        })
    }

    /// The filter that ends at a node, or goes on with `#` there.
    fn pattern(&self, mut at: u32, is_all: bool) -> String {
        let mut levels: Vec<&str> = is_all.then_some("#").into_iter().collect();
        while at != ROOT
            && let Some(node) = self.nodes.get(at as usize)
        {
            levels.push(match node.symbol {
                NO_SYMBOL => "+",
                symbol => self.symbols.text(symbol).unwrap_or_default(),
            });
            at = node.parent;
        }
        levels.reverse();
        levels.join("/")
    }

    /// Keeps a number for a filter, in place of the one there was.
    pub(super) fn set(&mut self, pattern: &str, number: u32, seed: &Seed) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::new(NONE, NO_SYMBOL));
        }
        let mut node = ROOT;
        let mut is_all = false;
        for (place, level) in pattern.split('/').enumerate() {
            if level == "#" {
                is_all = true;
                break;
            }
            node = self.child_or_new(node, level, place, seed);
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
            let Node { parent, symbol, .. } = self.nodes[at as usize];
            let above = &mut self.nodes[parent as usize];
            if symbol == NO_SYMBOL {
                above.plus = NONE;
            } else if above.first == at {
                above.first = NONE;
                above.first_symbol = NO_SYMBOL;
            } else {
                above.others -= 1;
                self.children.remove(child_key(parent, symbol, seed), at);
            }
            self.symbols.give_back(symbol, seed);
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
        text: &[u8],
        levels: &Levels,
        seed: &Seed,
        rules: Rules,
        mut visit: impl FnMut(u32),
    ) {
        let Some(mut node) = self.nodes.first() else {
            return;
        };
        let reserved = if rules.root_is_reserved { ROOT } else { NONE };
        let near = levels.count.min(SHAPE_LEVELS);
        let mut at = ROOT;
        let mut seen = Seen::default();
        // The level that comes after `at`, and where it begins: behind the end if there is none. `start`
        // is kept where `levels` does not reach.
        let mut place = 0;
        let mut start = 0;
        loop {
            let wildcards_apply = at != reserved;
            let has_level = place < near || place >= SHAPE_LEVELS && start <= text.len();
            let mut down = NONE;
            if !has_level {
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
                if node.has_literals() {
                    let symbol = seen.symbol(place, || {
                        let start = levels.start(place).unwrap_or(start);
                        let end = levels.end(place).unwrap_or_else(|| next_slash(text, start));
                        let level = text.get(start..end).unwrap_or_default();
                        let key = levels
                            .key(place)
                            .unwrap_or_else(|| seed.level(text, start, end, place));
                        self.symbols.find(level, place, key)
                    });
                    down = self.literal(at, node, symbol, seed);
                }
                if down == NONE && wildcards_apply {
                    down = node.plus;
                }
            }
            // Nothing below: back to the nearest node on the way that was reached by its text and has a
            // sibling for `+`.
            while down == NONE {
                if at == ROOT {
                    return;
                }
                let was_literal = node.symbol != NO_SYMBOL;
                at = node.parent;
                let Some(above) = self.nodes.get(at as usize) else {
                    return;
                };
                node = above;
                place -= 1;
                if place >= SHAPE_LEVELS {
                    start = behind_last_slash(text, start - 1);
                }
                if was_literal && at != reserved {
                    down = node.plus;
                }
            }
            if place + 1 >= SHAPE_LEVELS {
                start = 1 + levels.end(place).unwrap_or_else(|| next_slash(text, start));
            }
            at = down;
            place += 1;
            let Some(next) = self.nodes.get(at as usize) else {
                return;
            };
            node = next;
        }
    }

    fn find(&self, pattern: &str, seed: &Seed) -> Option<(u32, bool)> {
        let mut at = ROOT;
        for (place, level) in pattern.split('/').enumerate() {
            let node = self.nodes.get(at as usize)?;
            at = match level {
                "#" => return Some((at, true)),
                "+" => node.plus,
                _ => {
                    let level = level.as_bytes();
                    let key = seed.level(level, 0, level.len(), place);
                    let symbol = self.symbols.find(level, place, key);
                    self.literal(at, node, symbol, seed)
                }
            };
        }
        (at != NONE).then_some((at, false))
    }

    /// The child of a node for a level, [`NONE`] if there is none.
    #[inline]
    fn literal(&self, at: u32, node: &Node, symbol: u32, seed: &Seed) -> u32 {
        if node.first_symbol == symbol {
            return node.first;
        }
        if node.others == 0 || symbol == NO_SYMBOL {
            return NONE;
        }
        let is_right = |number| {
            let child = self.nodes.get(number as usize);
            child.is_some_and(|child| child.parent == at && child.symbol == symbol)
        };
        self.children
            .find(child_key(at, symbol, seed), is_right)
            .unwrap_or(NONE)
    }

    fn child_or_new(&mut self, parent: u32, level: &str, place: usize, seed: &Seed) -> u32 {
        let above = &self.nodes[parent as usize];
        let key = seed.level(level.as_bytes(), 0, level.len(), place);
        let found = if level == "+" {
            above.plus
        } else {
            let symbol = self.symbols.find(level.as_bytes(), place, key);
            self.literal(parent, above, symbol, seed)
        };
        if found != NONE {
            return found;
        }
        let symbol = if level == "+" {
            NO_SYMBOL
        } else {
            self.symbols.take(level, place, key)
        };
        let node = Node::new(parent, symbol);
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
        let above = &mut self.nodes[parent as usize];
        if symbol == NO_SYMBOL {
            above.plus = number;
        } else if above.first == NONE {
            above.first = number;
            above.first_symbol = symbol;
        } else {
            above.others += 1;
            self.children
                .insert(child_key(parent, symbol, seed), number);
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

/// The symbols of the levels that a walk came by last. It goes up and down among a few levels at a time,
/// so it hashes each about once, however long the level and however many the nodes.
struct Seen([(u32, u32); Self::PLACES]);

impl Seen {
    const PLACES: usize = 32;

    #[inline]
    fn symbol(&mut self, place: usize, find: impl FnOnce() -> u32) -> u32 {
        let seen = &mut self.0[place % Self::PLACES];
        if seen.0 as usize != place {
            *seen = (place as u32, find());
        }
        seen.1
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self([(NONE, NO_SYMBOL); Self::PLACES])
    }
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
fn child_key(parent: u32, symbol: u32, seed: &Seed) -> u64 {
    seed.pair(parent.into(), symbol.into())
}
