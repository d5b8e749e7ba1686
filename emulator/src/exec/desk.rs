//! What a thread of the host runs the CTAs of a kernel with, one after the other. The kernel keeps it from launch to launch:
//! none of it decides what a CTA does, it only need not be found out or bought again.

use std::mem::swap;
use std::sync::{Mutex, PoisonError};

use super::copies::Issued;
use super::cta::Cta;
use super::env::Env;
use super::patterns::Patterns;
use super::tally::Tally;
use super::warp::Warp;
use crate::checks::words::Words;
use crate::lower::kernel::Kernel;
use crate::memory::region::Region;

/// Desks that a kernel keeps, and room for copies in flight that one keeps for a warp. A host with more threads and a kernel with
/// more copies buy the others anew.
const MOST_DESKS: usize = 256;
const MOST_SPARE: usize = 64;
/// Bytes of shared memory and registers that a desk keeps, and CTAs that they may be of.
const MOST_BYTES: u64 = 8 << 20;
const MOST_BODIES: usize = 256;

/// Empty until it is first taken.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    patterns: Patterns,
    /// For each instruction, the allocation that it accessed last.
    hints: Vec<u32>,
    pub(super) tally: Tally,
    /// By the number of a warp.
    #[allow(clippy::vec_box)] // As a warp's queue has them.
    spare: Vec<Vec<Box<Issued>>>,
    bodies: Vec<Body>,
}

/// Memory and registers of a CTA that has ended: what they hold is of no meaning, and has to be cleared where that matters.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) shared: Region,
    pub(super) races: Option<Box<Words>>,
    /// As many as the CTA had, or none if they have local memory, of which there may be much.
    pub(super) warps: Vec<Warp>,
}

impl Body {
    fn bytes(&self) -> u64 {
        let registers =
            |warp: &Warp| size_of_val(&*warp.regs.words) + size_of_val(&*warp.regs.doubles);
        2 * self.shared.bytes + self.warps.iter().map(registers).sum::<usize>() as u64
    }
}

impl Desk {
    /// Gives the CTA what lies here, and takes back what it was given.
    pub(super) fn exchange(&mut self, cta: &mut Cta<'_>) {
        let env = &mut cta.env;
        swap(&mut self.patterns, &mut env.patterns);
        swap(&mut self.hints, &mut env.hints);
        swap(&mut self.tally, &mut env.tally);
        for (spare, warp) in self.spare.iter_mut().zip(&mut cta.warps) {
            warp.copies.exchange_spare(spare);
        }
    }

    /// Memory for a CTA with so many bytes of it.
    pub(super) fn body(&mut self, bytes: u64) -> Option<Body> {
        let last = self.bodies.pop()?;
        if last.shared.bytes != bytes {
            // They are all of another launch.
            self.bodies.clear();
            return None;
        }
        Some(last)
    }

    /// Keeps what is left of a CTA that has ended.
    pub(super) fn keep(&mut self, cta: Cta<'_>) {
        let Env { shared, races, .. } = cta.env;
        let mut warps = cta.warps;
        if warps.iter().any(|warp| warp.local.is_some()) {
            warps.clear();
        }
        let (body, count) = (Body { shared, races, warps }, self.bodies.len());
        // They are all as large.
        if count < MOST_BODIES && (count as u64 + 1) * body.bytes() <= MOST_BYTES {
            self.bodies.push(body);
        }
    }
}

/// The desks of a kernel that nobody works at.
#[derive(Debug, Default)]
pub(crate) struct Desks(Mutex<Vec<Desk>>);

impl Desks {
    /// A desk for CTAs of so many warps.
    pub(super) fn take(kernel: &Kernel, warps: usize) -> Desk {
        let free = kernel.desks.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut desk = free.unwrap_or_default();
        desk.hints.resize(kernel.code.len(), 0);
        desk.tally.resize(kernel.code.len());
        if desk.spare.len() < warps {
            desk.spare.resize_with(warps, Vec::new);
        }
        desk
    }

    /// Takes a desk back of which the tally has been drained.
    pub(super) fn put(kernel: &Kernel, mut desk: Desk) {
        desk.spare.iter_mut().for_each(|spare| spare.truncate(MOST_SPARE));
        let mut free = kernel.desks.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < MOST_DESKS {
            free.push(desk);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::error::LaunchError;
    use crate::finding::FindingKind;
    use crate::launch::Checks;
    use crate::testing::Program;

    #[test]
    fn what_nobody_has_written_is_the_same_each_time() {
        // All CTAs but the first run with what others have left, and each launch but the first.
        let program = Program::new(
            "{ .shared .align 16 .b8 s[256]; .local .b32 l; .reg .b32 %t, %u, %v; mov.u32 %t, %ctaid.x; mov.u32 %u, %tid.x;
               setp.gt.u32 %q, %u, 99; @%q mov.u32 %v, 5; @%q bra over; bra.uni under; over: mov.u32 %c, 1; under:
               ld.shared.u32 %a, [s]; ld.local.u32 %b, [l]; add.u32 %d, %a, %b; add.u32 %d, %d, %c; add.u32 %d, %d, %v;
               mov.u32 %u, 9; bar.sync 0; st.shared.u32 [s], %u; st.local.u32 [l], %u; mov.u32 %v, 7; mov.u32 %c, 8;
               ld.param.u64 %x, [out]; mad.wide.u32 %x, %t, 4, %x; st.global.u32 [%x], %d; }",
        );
        for checks in [Checks::NONE, Checks::SHARED_RACES, Checks::NONE] {
            assert_eq!(program.run_grid_checked([8, 1, 1], checks).unwrap(), [0; 8]);
        }
    }

    #[test]
    fn barriers_of_others_are_forgotten() {
        let program = Program::new(
            "{ .shared .b64 m; .reg .b32 %t; mov.u32 %t, %ctaid.x; mov.u32 %d, %tid.x; setp.eq.u32 %p, %d, 0;
               @%p mbarrier.init.shared.b64 [m], 12; ld.param.u64 %x, [out]; mad.wide.u32 %x, %t, 4, %x; st.global.u32 [%x], %t; }",
        );
        for checks in [Checks::NONE, Checks::ALL, Checks::NONE, Checks::NONE] {
            assert_eq!(program.run_grid_checked([3, 1, 1], checks).unwrap(), [0, 1, 2]);
        }
    }

    #[test]
    fn memory_that_is_kept_holds_nothing_for_the_checks() {
        // Lanes exchange words through shared memory; what they read first, nobody has written.
        let program = Program::new(
            "{ .shared .align 16 .b8 s[256]; .reg .b32 %t, %u; mov.u32 %t, %tid.x; shl.b32 %u, %t, 2;
               mov.b32 %b, s; add.u32 %a, %b, %u; ld.shared.u32 %c, [%a+128]; setp.eq.u32 %p, %c, 7; @%p trap;
               st.shared.u32 [%a], %t; bar.sync 0; xor.b32 %u, %u, 4; add.u32 %b, %b, %u; ld.shared.u32 %d, [%b];
               atom.shared.add.u32 %c, [%b], 1; ld.param.u64 %x, [out]; mad.wide.u32 %x, %t, 4, %x; st.global.u32 [%x], %d; }",
        );
        let found = |result: Result<_, LaunchError>| match result {
            Err(LaunchError::Findings(findings)) => findings[0].kind,
            other => panic!("{other:?}"),
        };
        for _ in 0..2 {
            let out = program.run_checked(Checks::NONE).unwrap();
            assert_eq!(out, (0..32).map(|lane| lane ^ 1).collect::<Vec<_>>());
            let kind = found(program.run_checked(Checks::ALL));
            assert_eq!(kind, FindingKind::UninitialisedMemory);
            // Races are looked for, memory is not.
            let races = Checks::SHARED_RACES;
            assert_eq!(program.run_checked(races).unwrap(), out);
        }
    }
}
