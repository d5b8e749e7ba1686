//! What is known of the warps of other CTAs: a persistent tree over their numbers.
//!
//! CTAs that synchronise through one place come to know of all that were there before. Trees share what
//! they have in common, so that passing on the knowledge of thousands of CTAs costs a few nodes.

use std::sync::Arc;

use super::seen::{Seen, join_warps};

const BITS: u32 = 4;
const FAN: usize = 1 << BITS;

#[derive(Debug, Clone)]
enum Node {
    Branch([Option<Arc<Node>>; FAN]),
    Leaf(Box<[Seen]>),
}

/// For each CTA of which anything is known, how far its warps have been seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Others {
    /// Branches from the root to a leaf.
    levels: u32,
    root: Option<Arc<Node>>,
}

impl Others {
    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Whether both are one and the same tree.
    pub(crate) fn is(&self, other: &Others) -> bool {
        match (&self.root, &other.root) {
            (None, None) => true,
            (Some(mine), Some(theirs)) => Arc::ptr_eq(mine, theirs),
            _ => false,
        }
    }

    /// What is known of a CTA.
    pub(crate) fn get(&self, cta: u64) -> Option<&[Seen]> {
        if reaches(cta, self.levels) {
            return None;
        }
        let mut node = self.root.as_deref()?;
        let mut level = self.levels;
        loop {
            match node {
                Node::Leaf(warps) => return Some(warps),
                Node::Branch(children) => {
                    level -= 1;
                    node = children[digit(cta, level)].as_deref()?;
                }
            }
        }
    }

    /// Adds how far the warps of one CTA have been seen.
    pub(crate) fn add(&mut self, cta: u64, warps: &[Seen]) {
        let mut node = Arc::new(Node::Leaf(warps.into()));
        let mut levels = 0;
        while reaches(cta, levels) || levels < self.levels {
            let mut children = [const { None }; FAN];
            children[digit(cta, levels)] = Some(node);
            node = Arc::new(Node::Branch(children));
            levels += 1;
        }
        self.join(&Others { levels, root: Some(node) });
    }

    /// Adds all that another knows.
    pub(crate) fn join(&mut self, other: &Others) {
        let Some(theirs) = &other.root else { return };
        if self.is(other) {
            return;
        }
        let Some(mine) = self.root.take() else {
            *self = other.clone();
            return;
        };
        let levels = self.levels.max(other.levels);
        let mine = grown(mine, self.levels, levels);
        let theirs = grown(theirs.clone(), other.levels, levels);
        *self = Others { levels, root: Some(joined(&mine, &theirs)) };
    }
}

/// Whether a number needs more levels than these.
fn reaches(cta: u64, levels: u32) -> bool {
    cta.checked_shr(levels * BITS).is_some_and(|rest| rest != 0)
}

fn digit(cta: u64, level: u32) -> usize {
    (cta >> (level * BITS)) as usize % FAN
}

/// The same tree with more levels above it.
fn grown(mut node: Arc<Node>, from: u32, to: u32) -> Arc<Node> {
    for _ in from..to {
        let mut children = [const { None }; FAN];
        children[0] = Some(node);
        node = Arc::new(Node::Branch(children));
    }
    node
}

fn joined(mine: &Arc<Node>, theirs: &Arc<Node>) -> Arc<Node> {
    if Arc::ptr_eq(mine, theirs) {
        return mine.clone();
    }
    match (&**mine, &**theirs) {
        (Node::Branch(a), Node::Branch(b)) => {
            let children: [Option<Arc<Node>>; FAN] =
                std::array::from_fn(|i| match (&a[i], &b[i]) {
                    (Some(a), Some(b)) => Some(joined(a, b)),
                    (a, b) => a.clone().or_else(|| b.clone()),
                });
            // What adds nothing stays the same tree, so that the next comparison is one of pointers.
            let is = |old: &[Option<Arc<Node>>; FAN]| {
                old.iter().zip(&children).all(|(old, new)| match (old, new) {
                    (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                    (old, new) => old.is_none() && new.is_none(),
                })
            };
            if is(a) {
                mine.clone()
            } else if is(b) {
                theirs.clone()
            } else {
                Arc::new(Node::Branch(children))
            }
        }
        (Node::Leaf(a), Node::Leaf(b)) => {
            let mut warps = a.clone();
            join_warps(&mut warps, b);
            if warps == *a {
                mine.clone()
            } else if warps == *b {
                theirs.clone()
            } else {
                Arc::new(Node::Leaf(warps))
            }
        }
        // Both have the same number of levels.
        _ => mine.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(clock: u32) -> Box<[Seen]> {
        let mut seen = Seen::default();
        seen.raise_all(clock);
        Box::new([seen])
    }

    #[test]
    fn everything_added_is_found_whatever_the_numbers() {
        let ctas = [0, 1, 15, 16, 255, 256, 70_000, u64::from(u32::MAX) + 5, u64::MAX];
        let mut all = Others::default();
        for (index, &cta) in ctas.iter().enumerate() {
            all.add(cta, &at(index as u32 + 1));
        }
        for (index, &cta) in ctas.iter().enumerate() {
            let warps = all.get(cta).unwrap();
            assert!(warps[0].covers(0, index as u32 + 1) && !warps[0].covers(0, index as u32 + 2));
        }
        assert!(all.get(2).is_none() && all.get(1 << 40).is_none());
    }

    #[test]
    fn joining_takes_the_later_of_both_and_keeps_what_is_shared() {
        let (mut a, mut b) = (Others::default(), Others::default());
        a.add(3, &at(1));
        let first = a.clone();
        b.join(&a);
        assert!(a.is(&b));
        b.add(3, &at(5));
        b.add(40, &at(2));
        a.join(&b);
        assert!(a.is(&b) && a.get(3).unwrap()[0].covers(0, 5));
        a.join(&first);
        assert!(a.is(&b));
    }
}
