//! Reads of registers and predicates that nobody has written on the way to the read.
//!
//! A read is a finding if it is a guard, an address, or anything else that has to be defined; other values are followed to what they decide
//! ([`crate::checks::taint`]).
//!
//! Most reads are proved to be fine when the kernel is lowered ([`crate::lower::plan`]); only the registers of
//! the others are tracked while it runs, each lane for itself.

use super::taint;
use crate::exec::env::Env;
use crate::exec::lanes::{ALL, Mask};
use crate::exec::warp::Warp;
use crate::finding::FindingKind;
use crate::lower::kernel::Track;

/// Finds reads of registers that nobody has written. The guard is read by all lanes of the group,
/// everything else by those that execute.
#[cold]
#[inline(never)]
pub(crate) fn check_reads(
    warp: &mut Warp,
    env: &mut Env<'_>,
    (pc, tracked): (u32, u32),
    active: Mask,
    mask: Mask,
) -> Result<(), ()> {
    let kernel = env.launch.kernel;
    let track = &kernel.tracks[tracked as usize];
    let guard = track.guard.iter().map(|r| (r, active, true));
    for (&register, reading, guards) in guard.chain(track.reads.iter().map(|r| (r, mask, false))) {
        let written = warp.written[register as usize];
        warp.whole.set(register, written | !warp.present == ALL);
        let missing = reading & !written;
        if missing != 0 {
            let name = &kernel.tracked[register as usize];
            let message = format!("read of register {name}, which was never written on this path");
            let slot = kernel.tracked_slots[register as usize];
            if !guards && taint::unwritten(warp, env, pc, (slot, missing), &message) {
                continue;
            }
            env.fault(
                FindingKind::UninitialisedRegister,
                missing.trailing_zeros() as usize,
                message,
            );
            return Err(());
        }
    }
    Ok(())
}

/// Whether lanes that execute an instruction without guard have written all that it reads.
#[inline(always)]
pub(crate) fn are_written(warp: &mut Warp, track: &Track, mask: Mask) -> bool {
    warp.whole.contains(track.read_set) || are_written_in(warp, track, mask)
}

#[inline(never)]
fn are_written_in(warp: &mut Warp, track: &Track, mask: Mask) -> bool {
    let mut missing = 0;
    for &register in &track.reads {
        let written = warp.written[register as usize];
        missing |= mask & !written;
        warp.whole.set(register, written | !warp.present == ALL);
    }
    missing == 0
}

/// Notes what an instruction has written.
pub(crate) fn note_writes(warp: &mut Warp, env: &mut Env<'_>, tracked: u32, mask: Mask) {
    note(warp, env, &env.launch.kernel.tracks[tracked as usize], mask);
}

/// As [`note_writes`].
#[inline(always)]
pub(crate) fn note(warp: &mut Warp, env: &mut Env<'_>, track: &Track, mask: Mask) {
    if env.undefined != 0 || !warp.whole.contains(track.write_set) {
        note_in(warp, env, track, mask);
    }
}

#[inline(never)]
fn note_in(warp: &mut Warp, env: &mut Env<'_>, track: &Track, mask: Mask) {
    let undefined = std::mem::take(&mut env.undefined);
    for &register in &track.writes {
        let written = &mut warp.written[register as usize];
        *written = (*written | mask) & !undefined;
        warp.whole.set(register, *written | !warp.present == ALL);
    }
}
