//! How often each instruction ran.

use crate::counters::Count;

/// Counts by program counter. What the same lanes execute one after the other is noted where it begins and where it
/// ends, so that counting costs nothing in between: an instruction's count is the sum of what is noted up to it.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// One more than there are instructions.
    steps: Vec<Count>,
}

impl Tally {
    /// Makes room for so many instructions.
    pub(crate) fn resize(&mut self, instructions: usize) {
        self.steps.resize(instructions + 1, Count::default());
    }

    #[inline(always)]
    fn step(&mut self, pc: u32, warps: u64, threads: u64) {
        let step = &mut self.steps[pc as usize];
        step.warps = step.warps.wrapping_add(warps);
        step.threads = step.threads.wrapping_add(threads);
    }

    /// So many lanes of a warp have executed the instructions from `start` to before `end`.
    #[inline(always)]
    pub(crate) fn add(&mut self, start: u32, end: u32, lanes: u32) {
        let threads = u64::from(lanes);
        self.step(start, 1, threads);
        self.step(end, 1_u64.wrapping_neg(), threads.wrapping_neg());
    }

    /// Of what an instruction counts for, so many warps (one where no lane is left) and lanes did not take part: they are
    /// masked out, or come back to it.
    #[inline(always)]
    pub(crate) fn take_back(&mut self, pc: u32, (warps, lanes): (u32, u32)) {
        let (warps, threads) = (u64::from(warps), u64::from(lanes));
        self.step(pc, warps.wrapping_neg(), threads.wrapping_neg());
        self.step(pc + 1, warps, threads);
    }

    /// Adds the counts to those of other CTAs and begins anew.
    pub(crate) fn drain_into(&mut self, sums: &mut [Count]) {
        let mut count = Count::default();
        for (sum, step) in sums.iter_mut().zip(&mut self.steps) {
            count.warps = count.warps.wrapping_add(step.warps);
            count.threads = count.threads.wrapping_add(step.threads);
            *sum += count;
            *step = Count::default();
        }
        if let Some(last) = self.steps.last_mut() {
            *last = Count::default();
        }
    }
}
