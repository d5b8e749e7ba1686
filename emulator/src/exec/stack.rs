//! Where lanes return to, and what a call keeps for them.
//!
//! Only functions that are not lowered in place of their calls come here (see [`crate::lower::callee`]).
//! A lane's frame lies in its local memory above what the entry declares; registers of a function that
//! calls itself are kept here while the inner call runs.

use super::lanes::LANES;

/// Calls inside calls of one lane.
pub(crate) const MAX_DEPTH: usize = 4096;

/// One call of one lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    /// Index among the kernel's callees.
    pub(crate) callee: u32,
    /// The call.
    pub(crate) site: u32,
    /// First byte of the frame in local memory, as an offset.
    pub(crate) base: u64,
    /// Its end, before it allocates.
    pub(crate) end: u64,
    /// Length of [`LaneStack::kept`] before the call.
    pub(crate) kept: usize,
}

/// The calls of one lane, innermost last.
#[derive(Debug, Default)]
pub(crate) struct LaneStack {
    pub(crate) frames: Vec<Frame>,
    /// Registers of the functions that were called again.
    pub(crate) kept: Vec<u64>,
    /// End of the innermost frame.
    pub(crate) top: u64,
}

/// The calls of a warp.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) lanes: [LaneStack; LANES],
    /// Where frames begin.
    bottom: u64,
}

impl Stack {
    /// Empty, with frames from byte `bottom` of local memory up.
    pub(crate) fn new(bottom: u64) -> Stack {
        let lane = |_| LaneStack { top: bottom, ..LaneStack::default() };
        Stack { lanes: std::array::from_fn(lane), bottom }
    }

    /// Where the innermost frame of a lane ends by itself, or the stack begins.
    pub(crate) fn bottom_of(&self, lane: usize) -> u64 {
        self.lanes[lane].frames.last().map_or(self.bottom, |frame| frame.end)
    }

    pub(crate) fn clear(&mut self) {
        for lane in &mut self.lanes {
            lane.frames.clear();
            lane.kept.clear();
            lane.top = self.bottom;
        }
    }
}
