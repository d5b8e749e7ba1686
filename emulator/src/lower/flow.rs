//! How values pass through each instruction, for the check that follows undefined ones ([`crate::checks::taint`]).

use super::plan::{Meta, Plan};
use super::symbols::Register;
use crate::counters::InstructionClass;
use crate::types::Class;

/// What an instruction makes of operands that are undefined in some lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Passage {
    /// A lane's results are undefined if one of its operands is.
    #[default]
    Through,
    /// As above, each half of a lane's result on its own: arithmetic on two numbers of 16 bits.
    Halves,
    /// Two conversions side by side, of so many bits each: the first operand into the upper part of the result.
    Pair(u8),
    /// Moves, selections, shuffles, bits: which bits of the results depend on undefined operands is found by trying values.
    Tried,
    /// Matrix products: as above, with values that cannot cancel.
    Product,
    /// Every lane's results depend on the operands of all lanes.
    Across,
    /// Loads: the address has to be defined; the instruction tells which results are not.
    Load,
    /// Stores: the address has to be defined; the instruction sees to the values.
    Store,
    /// As above, to shared or local memory.
    StoreInside,
    /// Atomic operations on shared memory: the address has to be defined; the instruction sees to the values.
    Atomic,
    /// A branch to one place: the guard has to be defined, with exceptions.
    Branch,
    /// Every operand has to be defined.
    Defined,
}

impl Passage {
    /// The passage of an instruction of this class, opcode and modifiers.
    pub(crate) fn of(class: InstructionClass, opcode: &str, modifiers: &[&str]) -> Passage {
        use InstructionClass::*;
        let has = |modifier| modifiers.contains(&modifier);
        match (opcode, class) {
            ("selp" | "slct" | "shfl" | "movmatrix", _) | (_, Bits | Move) => Passage::Tried,
            ("cvt", _) if has("f32") && (has("f16x2") || has("bf16x2")) => Passage::Pair(16),
            ("cvt", _) if has("f32") && (has("e4m3x2") || has("e5m2x2")) => Passage::Pair(8),
            ("add" | "sub" | "mul" | "fma" | "min" | "max" | "neg" | "abs" | "ex2" | "tanh", _)
                if ["f16x2", "bf16x2", "u16x2", "s16x2"].into_iter().any(has) =>
            {
                Passage::Halves
            }
            // Between integers, bits are kept; a float is no longer the one it was if any bit of it is another.
            ("cvt", _) if !modifiers.iter().any(|m| m.contains('f')) => Passage::Tried,
            ("ld" | "ldu" | "ldmatrix", _) => Passage::Load,
            ("st", _) if modifiers.iter().any(|m| m.starts_with("shared") || *m == "local") => {
                Passage::StoreInside
            }
            ("st" | "stmatrix", _) => Passage::Store,
            ("wmma", _) if modifiers.first() == Some(&"load") => Passage::Load,
            ("wmma", _) if modifiers.first() == Some(&"store") => Passage::Store,
            ("bra", _) => Passage::Branch,
            (_, Matrix) => Passage::Product,
            (_, Warp) => Passage::Across,
            (_, Atomic) if modifiers.iter().any(|m| m.starts_with("shared")) => Passage::Atomic,
            (_, Memory | Atomic | Copy | Barrier | Control) => Passage::Defined,
            _ => Passage::Through,
        }
    }

    /// Whether all that the instruction does is to write registers of its own lanes.
    pub(crate) fn is_plain(self) -> bool {
        matches!(self, Passage::Through | Passage::Halves | Passage::Pair(_) | Passage::Tried)
    }
}

/// A register by class and slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot(u32);

impl Slot {
    pub(crate) fn new(class: Class, slot: u32) -> Slot {
        let class = match class {
            Class::Word => 0,
            Class::Double => 1,
            Class::Pred => 2,
        };
        Slot(slot << 2 | class)
    }

    pub(crate) fn class(self) -> Class {
        match self.0 & 3 {
            0 => Class::Word,
            1 => Class::Double,
            _ => Class::Pred,
        }
    }

    pub(crate) fn index(self) -> u32 {
        self.0 >> 2
    }
}

/// What one instruction reads and writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'d> {
    pub(crate) passage: Passage,
    pub(crate) guard: Option<Slot>,
    pub(crate) reads: &'d [Slot],
    pub(crate) writes: &'d [Slot],
}

/// The steps of a kernel, packed.
#[derive(Debug, Default)]
pub(crate) struct DataFlow {
    /// By program counter: passage, whether it is guarded, where its slots begin, how many of them are read.
    heads: Vec<(Passage, bool, u32, u16)>,
    slots: Vec<Slot>,
}

impl DataFlow {
    pub(crate) fn new(metas: &[Meta], registers: &[Register], plan: &Plan) -> DataFlow {
        let mut flow = DataFlow::default();
        let slot = |&r: &u32| Slot::new(registers[r as usize].class(), plan.slot_of[r as usize]);
        for meta in metas {
            let start = flow.slots.len() as u32;
            flow.heads.push((meta.passage, meta.guarded, start, meta.reads.len() as u16));
            flow.slots.extend(meta.reads.iter().chain(&meta.writes).map(slot));
        }
        flow
    }

    pub(crate) fn step(&self, pc: u32) -> Step<'_> {
        let (passage, guarded, start, reads) = self.heads[pc as usize];
        let end = self.heads.get(pc as usize + 1).map_or(self.slots.len(), |h| h.2 as usize);
        let (mut reads, writes) = self.slots[start as usize..end].split_at(reads.into());
        let mut guard = None;
        if guarded && let Some((first, rest)) = reads.split_first() {
            (guard, reads) = (Some(*first), rest);
        }
        Step { passage, guard, reads, writes }
    }
}
