//! Branches that undefined values decide, where it makes no difference but to the values of registers.
//!
//! Compilers turn `x = test ? f(y) : z` into a branch around `f`, also for lanes whose results nobody uses. Such a branch is
//! no fault by itself: it goes forward, around loops perhaps, and up to where both ways have come together again there are only instructions that
//! write registers of their own lane. What these write, on either way, is undefined in the lanes that the undefined value
//! has sent one way or the other; so is what these lanes make of shared and local memory, on the way that they go.

use crate::counters::InstructionClass;
use crate::exec::lanes::Mask;
use crate::lower::flow::{Passage, Slot};
use crate::lower::form::STRONG;
use crate::lower::kernel::Kernel;

/// Instructions that may lie between a branch and where its ways come together.
const LONGEST: u32 = 512;

/// Lanes on their way from a branch.
#[derive(Debug)]
pub(super) struct Detour {
    pub(super) lanes: Mask,
    branch: u32,
    /// Where both ways have come together.
    end: u32,
    /// What the instructions before write.
    pub(super) writes: Vec<Slot>,
    /// See [`super::taint`].
    pub(super) origin: u32,
}

impl Detour {
    /// That of these lanes from a branch on, if it is harmless.
    pub(super) fn new(kernel: &Kernel, branch: u32, lanes: Mask, origin: u32) -> Option<Detour> {
        if is_promised(kernel, branch) {
            return None;
        }
        let mut end = kernel.code[branch as usize].aux;
        let mut writes = Vec::new();
        let mut pc = branch + 1;
        while pc < end {
            let step = kernel.flow.step(pc);
            let inst = &kernel.code[pc as usize];
            if pc - branch > LONGEST || !is_harmless(kernel.classes[pc as usize], step.passage) {
                return None;
            }
            match step.passage {
                Passage::Branch if inst.aux > branch && !is_promised(kernel, pc) => {
                    end = end.max(inst.aux)
                }
                Passage::Branch => return None,
                Passage::Load | Passage::StoreInside if inst.aux & STRONG != 0 => return None,
                _ => {}
            }
            for &slot in step.writes {
                if !writes.contains(&slot) {
                    writes.push(slot);
                }
            }
            pc += 1;
        }
        (pc == end && end > branch).then_some(Detour { lanes, branch, end, writes, origin })
    }

    /// Whether a branch of some lanes lies on their way, so that it makes no difference either.
    pub(super) fn covers(&self, pc: u32, lanes: Mask) -> bool {
        (self.branch + 1..self.end).contains(&pc) && lanes & !self.lanes == 0
    }

    /// Takes the lanes of a mask that have come to the end out of it.
    pub(super) fn arrived(&mut self, pc: u32, active: Mask) -> Mask {
        let arrived = if pc == self.end { self.lanes & active } else { 0 };
        self.lanes &= !arrived;
        arrived
    }
}

/// Whether a branch with a guard is said to be taken by all lanes or none.
fn is_promised(kernel: &Kernel, pc: u32) -> bool {
    kernel.code[pc as usize].m != 0 && kernel.flow.step(pc).guard.is_some()
}

/// Whether an instruction does nothing but write registers of its own lane, from what they hold or from memory, or go somewhere; or
/// what is noted where it runs.
fn is_harmless(class: InstructionClass, passage: Passage) -> bool {
    use InstructionClass::*;
    match class {
        Integer | Bits | Float | Half | Double | Special | Convert | Compare | Move => {
            passage.is_plain()
        }
        Memory => matches!(passage, Passage::Load | Passage::StoreInside),
        Atomic => passage == Passage::Atomic,
        Control => passage == Passage::Branch,
        _ => false,
    }
}
