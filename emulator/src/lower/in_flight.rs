//! How much of what was loaded from global memory nobody has used yet, instruction by instruction.
//!
//! A register counts from a load into it until the first instruction that reads or writes it, and at an instruction
//! that several paths lead to only if it counts on all of them.

use super::plan::{Block, Meta, Set, blocks};
use crate::parse::ast::Instruction;
use crate::types::Type;

/// Bytes that the instruction loads from global memory into each of its destinations.
pub(super) fn loaded_bytes(ins: &Instruction<'_>) -> u32 {
    let elsewhere =
        |m: &&str| ["shared", "local", "param", "const"].iter().any(|space| m.starts_with(space));
    if !matches!(ins.opcode, "ld" | "ldu") || ins.modifiers.iter().any(elsewhere) {
        return 0;
    }
    ins.modifiers.iter().rev().find_map(|m| Type::parse(m)).map_or(0, Type::bytes)
}

/// Registers with loaded values that nobody has used.
#[derive(Clone)]
struct State {
    waiting: Set,
    /// Bytes a lane that they wait for; by register, the most that any load puts there.
    bytes: u32,
}

impl State {
    fn step(&mut self, meta: &Meta, sizes: &[u32]) {
        for &register in meta.reads.iter().chain(&meta.writes) {
            if self.waiting.remove(register) {
                self.bytes -= sizes[register as usize];
            }
        }
        for &register in meta.writes.iter().filter(|_| meta.loads > 0) {
            if self.waiting.insert(register) {
                self.bytes += sizes[register as usize];
            }
        }
    }

    fn count(&mut self, sizes: &[u32]) {
        let waiting = |register: &usize| self.waiting.contains(*register as u32);
        self.bytes = (0..sizes.len()).filter(waiting).map(|register| sizes[register]).sum();
    }
}

/// By program counter: bytes a lane that wait behind the instruction for their first use, if it may load or copy.
pub(super) fn in_flight(metas: &[Meta], roots: &[u32], registers: usize) -> Vec<u32> {
    let mut out = vec![0; metas.len()];
    let mut sizes = vec![0; registers];
    for meta in metas.iter().filter(|meta| meta.loads > 0) {
        for &register in &meta.writes {
            sizes[register as usize] = meta.loads.max(sizes[register as usize]);
        }
    }
    if sizes.iter().all(|&bytes| bytes == 0) {
        return out;
    }
    let blocks = blocks(metas, roots);
    let mut entering: Vec<Option<State>> = vec![None; blocks.len()];
    let root = |block: &Block| roots.contains(&(block.start as u32));
    let mut work: Vec<usize> = (0..blocks.len()).filter(|&b| root(&blocks[b])).collect();
    for &index in &work {
        entering[index] = Some(State { waiting: Set::new(registers, false), bytes: 0 });
    }
    while let Some(index) = work.pop() {
        let Some(mut state) = entering[index].clone() else { continue };
        let block = &blocks[index];
        metas[block.start..block.end].iter().for_each(|meta| state.step(meta, &sizes));
        for &next in &block.next {
            let changed = match &mut entering[next] {
                Some(known) => known.waiting.intersect(&state.waiting),
                unknown => {
                    *unknown = Some(state.clone());
                    true
                }
            };
            if changed {
                work.push(next);
            }
        }
    }
    for (block, state) in blocks.iter().zip(entering) {
        let Some(mut state) = state else { continue };
        state.count(&sizes);
        for pc in block.start..block.end {
            state.step(&metas[pc], &sizes);
            out[pc] = state.bytes;
        }
    }
    out
}
