//! The state of one warp: registers, and the groups of lanes that are at the same instruction.

use super::barrier::Votes;
use super::lanes::{ALL, LANES, Lanes, Mask, Registers};
use super::stack::Stack;
use crate::checks::taint::Taint;
use crate::lower::kernel::{ConstantValue, Kernel, Tracked, Uniform};
use crate::memory::FIRST_OFFSET;
use crate::memory::region::Region;
use crate::types::Class;

/// What a group of lanes is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// Waits for other lanes of the warp to arrive at the same instruction.
    Meet {
        /// All lanes that have to be there.
        wanted: Mask,
    },
    /// Has arrived at a barrier in this phase of it.
    Barrier {
        id: u32,
        phase: u64,
    },
    /// Waits for the end of the round to run an instruction that orders CTAs.
    Defer,
    /// Runs its instruction again when an mbarrier has changed since this many changes.
    Retry {
        events: u64,
    },
}

/// Lanes at one instruction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) pc: u32,
    pub(crate) mask: Mask,
    pub(crate) state: State,
    /// Calls that are on the way of its lanes. The deepest group runs first, so that lanes which do not
    /// call wait behind the call for those that do.
    pub(crate) depth: u32,
    /// Instructions left before another group of the warp gets its turn.
    pub(crate) credit: u32,
}

/// Instructions that a group runs while others of its warp are ready too. A spin wait on lanes
/// of the own warp makes progress after this many.
pub(crate) const CREDIT: u32 = 1024;

/// One warp.
#[derive(Debug)]
pub(crate) struct Warp {
    pub(crate) regs: Registers,
    /// Lanes of each tracked register that have been written.
    pub(crate) written: Vec<Mask>,
    /// Of these, some that all lanes have written.
    pub(crate) whole: Tracked,
    /// Index in its CTA.
    pub(crate) index: u32,
    /// Lanes that exist; fewer than 32 in the last warp of an odd block.
    pub(crate) present: Mask,
    /// Lanes that have not exited.
    pub(crate) live: Mask,
    pub(crate) groups: Vec<Group>,
    /// Lanes that a barrier has released and that have still to leave its instruction.
    pub(crate) released: Mask,
    /// What the threads of the barrier that released them voted.
    pub(crate) votes: Votes,
    /// Lanes that have arrived at the barrier of the cluster and have not waited there, and those of which the phase
    /// that they arrived in has an odd number.
    pub(crate) in_cluster: Mask,
    pub(crate) odd_phase: Mask,
    /// Carry bit of each lane.
    pub(crate) carry: Mask,
    /// Instructions executed, weighted.
    pub(crate) steps: u64,
    /// Times that the clock was read.
    pub(crate) clock_reads: u64,
    /// Calls that have not returned.
    pub(crate) stack: Option<Box<Stack>>,
    /// Local memory of all lanes, one after the other.
    pub(crate) local: Option<Region>,
    /// Undefined values, if there are any.
    pub(crate) taint: Option<Box<Taint>>,
    /// Asynchronous copies that nobody has waited for.
    pub(crate) copies: super::copies::Copies,
}

impl Warp {
    pub(crate) fn new(kernel: &Kernel) -> Warp {
        let regs = Registers {
            words: vec![Lanes::default(); kernel.words],
            doubles: vec![Lanes::default(); kernel.doubles],
            preds: vec![0; kernel.preds],
        };
        let local = (kernel.local_bytes > 0)
            .then(|| Region::new(FIRST_OFFSET, kernel.local_bytes * LANES as u64));
        Warp {
            regs,
            written: vec![0; kernel.tracked.len()],
            whole: Tracked::default(),
            index: 0,
            present: 0,
            live: 0,
            groups: Vec::new(),
            released: 0,
            votes: Votes::default(),
            in_cluster: 0,
            odd_phase: 0,
            carry: 0,
            steps: 0,
            clock_reads: 0,
            stack: kernel.has_stack.then(|| Box::new(Stack::new(kernel.stack_bottom))),
            local: local.flatten(),
            taint: None,
            copies: Default::default(),
        }
    }

    /// Puts the warp at the entry's first instruction, with registers unwritten and constants in place.
    pub(crate) fn reset(
        &mut self,
        kernel: &Kernel,
        index: u32,
        present: Mask,
        uniform: &Uniform<'_>,
    ) {
        self.index = index;
        self.present = present;
        self.live = present;
        self.groups.clear();
        self.groups.push(Group {
            pc: 0,
            mask: present,
            state: State::Ready,
            depth: 0,
            credit: CREDIT,
        });
        self.released = 0;
        self.steps = 0;
        self.clock_reads = 0;
        self.carry = 0;
        self.in_cluster = 0;
        self.written.fill(0);
        self.whole = Tracked::default();
        self.taint = None;
        self.copies.clear();
        if let Some(stack) = &mut self.stack {
            stack.clear();
        }
        if let Some(local) = &mut self.local {
            local.clear();
        }
        self.regs.preds[0] = ALL;
        for constant in &kernel.constants {
            let value = |lane| uniform.value(&constant.value, index, lane);
            let varies = matches!(constant.value, ConstantValue::Special(_));
            match constant.class {
                Class::Word if !varies => {
                    self.regs.words[constant.slot as usize] = Lanes([value(0) as u32; LANES])
                }
                Class::Double if !varies => {
                    self.regs.doubles[constant.slot as usize] = Lanes([value(0); LANES])
                }
                Class::Word => {
                    self.regs.words[constant.slot as usize] =
                        Lanes(std::array::from_fn(|l| value(l) as u32))
                }
                Class::Double => {
                    self.regs.doubles[constant.slot as usize] = Lanes(std::array::from_fn(value))
                }
                Class::Pred => {
                    self.regs.preds[constant.slot as usize] = if value(0) != 0 { ALL } else { 0 }
                }
            }
        }
    }
}
