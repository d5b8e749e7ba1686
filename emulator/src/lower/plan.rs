//! Which slot each register gets, and which registers need a check at run time.
//!
//! A read is safe without a check if every path from the entry to it writes the register first
//! (definite assignment; threads follow the graph one by one, so divergence changes nothing).
//! Only registers that have a read beyond that proof are tracked while the kernel runs.

use super::flow::Passage;
use super::strands::Strand;
use super::symbols::Register;
use crate::exec::sums::Term;
use crate::types::Class;

/// What the first pass over a body found out about one instruction.
#[derive(Debug, Clone)]
pub(crate) struct Meta {
    pub(crate) reads: Vec<u32>,
    pub(crate) writes: Vec<u32>,
    /// What becomes of undefined operands.
    pub(crate) passage: Passage,
    /// Bytes that it loads from global memory into each register that it writes.
    pub(crate) loads: u32,
    /// Whether it has a guard.
    pub(crate) guarded: bool,
    /// Whether it may leave a lane without a defined result.
    pub(crate) partial: bool,
    /// Program counters that it may branch to.
    pub(crate) targets: Vec<u32>,
    /// Whether the next instruction may follow.
    pub(crate) falls: bool,
    /// What it adds to a sum of products, if that is all it does.
    pub(crate) term: Option<Term>,
    /// The strand of accesses that it may belong to.
    pub(crate) strand: Option<Strand>,
}

impl Meta {
    /// Whether its writes are certain: no guard, and a defined result in every lane.
    fn proves(&self) -> bool {
        !self.guarded && !self.partial
    }
}

/// The result for a body.
#[derive(Debug)]
pub(crate) struct Plan {
    /// By register.
    pub(crate) slot_of: Vec<u32>,
    /// Index among the tracked registers, by register.
    pub(crate) tracked_of: Vec<Option<u32>>,
    /// Names of the tracked registers.
    pub(crate) tracked: Vec<String>,
    /// Slots in use by registers: words, doubles, predicates.
    pub(crate) slots: [u32; 3],
    /// End of the declared shared memory.
    pub(crate) shared_end: u64,
}

/// A set of registers.
#[derive(Clone, PartialEq)]
pub(super) struct Set(Vec<u64>);

impl Set {
    pub(super) fn new(len: usize, full: bool) -> Set {
        Set(vec![if full { u64::MAX } else { 0 }; len.div_ceil(64)])
    }

    /// Whether it is new.
    pub(super) fn insert(&mut self, index: u32) -> bool {
        let new = !self.contains(index);
        self.0[index as usize / 64] |= 1 << (index % 64);
        new
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, index: u32) -> bool {
        let had = self.contains(index);
        self.0[index as usize / 64] &= !(1 << (index % 64));
        had
    }

    pub(super) fn contains(&self, index: u32) -> bool {
        self.0[index as usize / 64] >> (index % 64) & 1 != 0
    }

    /// Keeps what both have; whether that changed anything.
    pub(super) fn intersect(&mut self, other: &Set) -> bool {
        let mut changed = false;
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            changed |= *mine & !theirs != 0;
            *mine &= theirs;
        }
        changed
    }
}

/// Instructions that run one after the other.
pub(super) struct Block {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) next: Vec<usize>,
}

pub(super) fn blocks(metas: &[Meta], roots: &[u32]) -> Vec<Block> {
    let mut leader = vec![false; metas.len() + 1];
    roots.iter().for_each(|&root| leader[root as usize] = true);
    for (pc, meta) in metas.iter().enumerate() {
        meta.targets.iter().for_each(|&t| leader[t as usize] = true);
        if !meta.targets.is_empty() || !meta.falls {
            leader[pc + 1] = true;
        }
    }
    let starts: Vec<usize> = (0..metas.len()).filter(|&pc| leader[pc]).collect();
    let block_at = |pc: usize| starts.binary_search(&pc).ok();
    let block = |(index, &start): (usize, &usize)| {
        let end = starts.get(index + 1).copied().unwrap_or(metas.len());
        let last = &metas[end - 1];
        let mut next: Vec<usize> =
            last.targets.iter().filter_map(|&t| block_at(t as usize)).collect();
        next.extend(last.falls.then(|| block_at(end)).flatten());
        Block { start, end, next }
    };
    starts.iter().enumerate().map(block).collect()
}

/// Registers that some read may find unwritten.
fn unproven(metas: &[Meta], roots: &[u32], registers: usize) -> Set {
    let mut found = Set::new(registers, false);
    if metas.is_empty() {
        return found;
    }
    let blocks = blocks(metas, roots);
    let mut entering: Vec<Set> = blocks.iter().map(|_| Set::new(registers, true)).collect();
    let mut reached = vec![false; blocks.len()];
    let mut work: Vec<usize> =
        (0..blocks.len()).filter(|&b| roots.contains(&(blocks[b].start as u32))).collect();
    for &root in &work {
        entering[root] = Set::new(registers, false);
        reached[root] = true;
    }
    while let Some(index) = work.pop() {
        let block = &blocks[index];
        let mut state = entering[index].clone();
        for meta in metas[block.start..block.end].iter().filter(|m| m.proves()) {
            for &written in &meta.writes {
                state.insert(written);
            }
        }
        for &next in &block.next {
            if entering[next].intersect(&state) || !reached[next] {
                reached[next] = true;
                work.push(next);
            }
        }
    }
    for (index, block) in blocks.iter().enumerate().filter(|(i, _)| reached[*i]) {
        let state = &mut entering[index];
        for meta in &metas[block.start..block.end] {
            for &read in meta.reads.iter().filter(|&&r| !state.contains(r)) {
                found.insert(read);
            }
            for &written in meta.writes.iter().filter(|_| meta.proves()) {
                state.insert(written);
            }
        }
    }
    found
}

impl Plan {
    /// Plans a body of which the first pass is done.
    /// `roots` are the program counters where threads begin and functions with code of their own are entered.
    pub(crate) fn new(
        metas: &[Meta],
        roots: &[u32],
        registers: &[Register],
        shared_end: u64,
    ) -> Plan {
        let unproven = unproven(metas, roots, registers.len());
        let mut plan = Plan {
            slot_of: vec![0; registers.len()],
            tracked_of: vec![None; registers.len()],
            tracked: Vec::new(),
            slots: [1, 1, 2],
            shared_end,
        };
        let mut used = Set::new(registers.len(), false);
        for &register in metas.iter().flat_map(|meta| meta.reads.iter().chain(&meta.writes)) {
            used.insert(register);
        }
        for (index, register) in registers.iter().enumerate() {
            if !used.contains(index as u32) {
                continue;
            }
            let class = match register.class() {
                Class::Word => 0,
                Class::Double => 1,
                Class::Pred => 2,
            };
            plan.slot_of[index] = plan.slots[class];
            plan.slots[class] += 1;
            if unproven.contains(index as u32) {
                plan.tracked_of[index] = Some(plan.tracked.len() as u32);
                plan.tracked.push(register.name.clone());
            }
        }
        plan
    }
}
