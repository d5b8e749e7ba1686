//! An entry ready to run.

use crate::counters::InstructionClass;
use crate::exec::desk::Desks;
use crate::exec::env::LaunchContext;
use crate::exec::inst::{Inst, Series};
use crate::parse::ast::BlockLimits;
use crate::types::Class;

use super::callee::{Callee, function_address};
use super::flow::{DataFlow, Slot};
use super::special::Special;

/// An entry, lowered.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) code: Vec<Inst>,
    /// What runs several instructions, by [`Inst::series`].
    pub(crate) series: Vec<Series>,
    /// Line of each instruction.
    pub(crate) lines: Vec<u32>,
    /// Class of each instruction.
    pub(crate) classes: Vec<InstructionClass>,
    /// How values pass through each instruction.
    pub(crate) flow: DataFlow,
    /// Registers of 32 bits, constants included.
    pub(crate) words: usize,
    /// Registers of 64 bits, constants included.
    pub(crate) doubles: usize,
    /// Predicates, the constant true at 0 included.
    pub(crate) preds: usize,
    /// Slots that hold the same value throughout a CTA.
    pub(crate) constants: Vec<Constant>,
    /// Registers that a path to some read leaves unwritten, by name.
    pub(crate) tracked: Vec<String>,
    /// What each tracked instruction reads and writes of them; [`Inst::tracked`] is an index into this.
    /// Their slots.
    pub(crate) tracked_slots: Vec<Slot>,
    pub(crate) tracks: Vec<Track>,
    pub(crate) params: Vec<Param>,
    pub(crate) param_bytes: u32,
    /// Declared shared variables.
    pub(crate) shared: Vec<SharedVariable>,
    /// End of the declared shared memory, as an address.
    pub(crate) shared_end: u32,
    /// Local memory of one lane, its stack included.
    pub(crate) local_bytes: u64,
    /// Where the stack begins in it.
    pub(crate) stack_bottom: u64,
    /// Whether anything is called or allocated there.
    pub(crate) has_stack: bool,
    /// Functions with code of their own.
    pub(crate) callees: Vec<Callee>,
    pub(crate) limits: BlockLimits,
    pub(crate) desks: Desks,
}

/// A parameter of an entry.
#[derive(Debug, Clone)]
pub(crate) struct Param {
    pub(crate) name: String,
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
}

/// A declared variable in shared memory.
#[derive(Debug, Clone)]
pub(crate) struct SharedVariable {
    pub(crate) name: String,
    pub(crate) address: u64,
    pub(crate) bytes: u64,
}

/// Reads and writes of tracked registers, as indices into [`Kernel::tracked`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Track {
    /// The guard, which lanes read that do not execute too.
    pub(crate) guard: Option<u32>,
    pub(crate) reads: Vec<u32>,
    pub(crate) writes: Vec<u32>,
    pub(crate) read_set: Tracked,
    pub(crate) write_set: Tracked,
    /// What the instructions without guard from here on read and write, up to the next with one, or what this one does if it has one; never
    /// all in a set if one of them may leave a lane without a defined result.
    pub(crate) ahead: Tracked,
}

/// A set of tracked registers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tracked(u128);

impl Tracked {
    /// Stands for all registers of this number or more.
    const OTHERS: u32 = u128::BITS - 1;

    pub(crate) fn new(registers: &[u32]) -> Tracked {
        Tracked(registers.iter().fold(0, |set, &register| set | 1 << register.min(Self::OTHERS)))
    }

    /// This set and all the others.
    pub(crate) fn with_others(self) -> Tracked {
        Tracked(self.0 | 1 << Self::OTHERS)
    }

    pub(crate) fn joined(self, other: Tracked) -> Tracked {
        Tracked(self.0 | other.0)
    }

    /// Adds a register, unless it is one of the others, or takes it out.
    #[inline(always)]
    pub(crate) fn set(&mut self, register: u32, is_in: bool) {
        let bit = if register < Self::OTHERS { 1 << register } else { 0 };
        self.0 = if is_in { self.0 | bit } else { self.0 & !bit };
    }

    /// Whether all of another set belong to this one, which has none of the others.
    #[inline(always)]
    pub(crate) fn contains(self, all: Tracked) -> bool {
        all.0 & !self.0 == 0
    }
}

/// A slot with a value that no instruction changes.
#[derive(Debug, Clone)]
pub(crate) struct Constant {
    pub(crate) class: Class,
    pub(crate) slot: u32,
    pub(crate) value: ConstantValue,
}

/// Where the value of a constant slot comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ConstantValue {
    Bits(u64),
    /// The address of a module variable plus an offset.
    Global(usize, i64),
    Special(Special),
    /// The address of a function, by its index in the module.
    Function(usize),
}

/// What constants are computed from.
pub(crate) struct Uniform<'l> {
    pub(crate) launch: &'l LaunchContext<'l>,
    pub(crate) cta: [u32; 3],
    pub(crate) linear: u64,
}

impl Uniform<'_> {
    /// The value of a constant in one lane of a warp.
    pub(crate) fn value(&self, constant: &ConstantValue, warp: u32, lane: usize) -> u64 {
        match *constant {
            ConstantValue::Bits(bits) => bits,
            ConstantValue::Global(index, offset) => {
                self.launch.globals[index].wrapping_add(offset as u64)
            }
            ConstantValue::Special(special) => special.value(self, warp, lane as u32),
            ConstantValue::Function(index) => function_address(index),
        }
    }
}
