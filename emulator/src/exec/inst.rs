//! A lowered instruction and how its handler is called.

use std::num::NonZero;

use super::env::Env;
use super::lanes::{Files, Mask};
use super::sums::Sums;
use super::warp::Warp;
#[cfg(target_arch = "x86_64")]
use super::wide::is_available as wide_is_available;
use super::wide::with_features;

/// What the scheduler does after an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Flow {
    /// Go on with the next instruction.
    Next,
    /// As [`Flow::Next`], but some results are undefined (see [`crate::checks::taint`]).
    Undefined,
    /// The executing lanes go to [`Inst::aux`].
    Branch,
    /// The executing lanes go where [`Env::targets`] says, lane by lane.
    Scatter,
    /// As [`Flow::Scatter`], into a function with code of its own.
    Call,
    /// As [`Flow::Scatter`], back from one.
    Return,
    /// The executing lanes end.
    Exit,
    /// The executing lanes stay here until the other lanes of [`Env::wanted`] arrive.
    Meet,
    /// The executing lanes have arrived at a CTA barrier and wait for it; it is at [`Env::barrier`].
    Barrier,
    /// The instruction orders CTAs among each other; run it again when the round commits.
    Defer,
    /// Waiting for something another warp does; run it again later.
    #[allow(dead_code)] // For waits on memory that another warp writes.
    Retry,
    /// [`Env::finding`] says what is wrong.
    Fault,
}

/// Executes one instruction for the lanes of a mask.
///
/// Unsafe to call because it may have been compiled for features of the processor: see [`handler`].
pub(crate) type Handler = unsafe fn(&mut Warp, &Inst, Mask, &mut Env<'_>) -> Flow;

/// A lowered instruction: a handler and where its operands are. One operation gives the fields their meaning.
#[derive(Debug, Clone)]
pub(crate) struct Inst {
    pub(crate) run: Handler,
    /// Slot of the guard predicate; slot 0 is always true.
    pub(crate) guard: u32,
    /// All ones if the guard is negated.
    pub(crate) flip: u32,
    /// Destination.
    pub(crate) d: u32,
    /// Second destination, mostly a predicate.
    pub(crate) p: u32,
    /// Sources.
    pub(crate) a: u32,
    pub(crate) b: u32,
    pub(crate) c: u32,
    pub(crate) m: u32,
    /// Branch target, or flags of the operation.
    pub(crate) aux: u32,
    /// Index of the register checks, [`UNTRACKED`] if there are none.
    pub(crate) tracked: u32,
    /// How many instructions without guard and register checks come one after the other, this one being the first of them, and
    /// how many without guard.
    pub(crate) plain: [u16; 2],
    /// What runs it and those of its kind that follow, as an index into [`Kernel::series`](crate::lower::kernel::Kernel::series), and how
    /// many these are. None where there is no such thing, or only it itself.
    pub(crate) series: Option<(u16, NonZero<u8>)>,
    /// Its own index in the code.
    pub(crate) site: u32,
    /// Of an access to memory, the first of the strand that it belongs to: see [`Strand`](crate::lower::strands::Strand).
    pub(crate) strand: u32,
    /// Of an access to memory, the one under which its [`Patterns`](super::patterns::Patterns) are kept.
    pub(crate) home: u32,
    /// Bytes a lane that were loaded from global memory and wait for their first use behind it.
    pub(crate) waiting: u32,
    /// Address offset or another constant.
    pub(crate) imm: i64,
    /// Registers of vector operands.
    pub(crate) list: Box<[u32]>,
}

/// Value of [`Inst::tracked`] for an instruction whose registers are known to be written.
pub(crate) const UNTRACKED: u32 = u32::MAX;

/// An operation: what its instructions do to a warp. Implementations are `#[inline(always)]`,
/// so that [`handler`] can compile them for the processor at hand.
pub(crate) trait Exec: 'static {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow;
}

/// An operation that nothing can go wrong with, and of which instructions often follow each other.
pub(crate) trait Repeat: Exec {
    /// Executes an instruction for all lanes.
    fn all(files: &mut Files<'_>, inst: &Inst);
}

/// Executes one instruction after the other, all of the same operation, for all lanes. Unsafe to call as a [`Handler`] is.
pub(crate) type Each = unsafe fn(&mut Warp, &[Inst]);

/// What runs several instructions that come one after the other.
#[derive(Debug)]
pub(crate) enum Series {
    /// All of them, or the first ones.
    Each(Each),
    /// All of them at once, or none.
    Sums(Sums),
}

with_features! {
    fn wide_series<E: Repeat>(warp: &mut Warp, code: &[Inst]) {
        let mut files = warp.regs.files();
        for inst in code {
            E::all(&mut files, inst);
        }
    }
}

with_features! {
    fn wide<E: Exec>(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        E::exec(warp, inst, mask, env)
    }
}

/// For other processors, and for those of x86-64 that lack a feature.
#[cfg(any(not(target_arch = "x86_64"), feature = "portable"))]
fn portable<E: Exec>(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
    E::exec(warp, inst, mask, env)
}

/// The form of an operation that suits this processor.
///
/// On x86-64 the portable form is compiled with the feature `portable` only: it would double the
/// time that the crate takes to compile, for processors from before 2013.
pub(crate) fn handler<E: Exec>() -> Handler {
    #[cfg(target_arch = "x86_64")]
    if wide_is_available() {
        return wide::<E>;
    }
    #[cfg(any(not(target_arch = "x86_64"), feature = "portable"))]
    return portable::<E>;
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    return unavailable;
}

/// As [`handler`], for several instructions. Only where a handler in vector code gains by it.
pub(crate) fn each<E: Repeat>() -> Option<Each> {
    #[cfg(target_arch = "x86_64")]
    if wide_is_available() {
        return Some(wide_series::<E>);
    }
    None
}

/// Whether this processor can run what this build contains.
pub(crate) fn is_supported() -> bool {
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    return wide_is_available();
    #[cfg(any(not(target_arch = "x86_64"), feature = "portable"))]
    return true;
}

/// Stands where no form suits; [`is_supported`] keeps it from ever being reached.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
fn unavailable(_: &mut Warp, _: &Inst, _: Mask, env: &mut Env<'_>) -> Flow {
    env.fault(crate::finding::FindingKind::Trap, 0, "this processor lacks AVX2 or FMA")
}

impl Inst {
    /// Runs the instruction.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) fn execute(&self, warp: &mut Warp, mask: Mask, env: &mut Env<'_>) -> Flow {
        // SAFETY: handlers come from `handler` alone, which returns one compiled for extra
        // features only after `wide_is_available` found all of them on this processor.
        unsafe { (self.run)(warp, self, mask, env) }
    }

    /// Runs instructions by what their kernel has for a series of them, for all lanes.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) fn execute_each(each: Each, warp: &mut Warp, code: &[Inst]) {
        // SAFETY: as for `execute`, with `each` in place of `handler`.
        unsafe { each(warp, code) }
    }
}
