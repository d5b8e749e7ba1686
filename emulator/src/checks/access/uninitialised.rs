//! Reads of bytes that nobody has written: neither the host nor any thread, and for shared and local memory no
//! thread of this CTA.
//!
//! In global memory the read itself is a finding. What is read of shared and local memory is followed, and what
//! kernels have stored to global memory although it was undefined; it is reported where it decides something
//! ([`crate::checks::taint`]).

use super::{Bytes, Told};
use crate::finding::FindingKind;
use crate::memory::FIRST_OFFSET;
use crate::memory::access::{Memory, Resolve};
use crate::memory::region::{FORBIDDEN, IN_FLIGHT, INIT, Region, UNDEFINED};

pub(super) fn check(bytes: &Bytes<'_>) -> Told {
    let missing = bytes.states().position(|state| state & INIT == 0)?;
    let state = bytes.region.state(bytes.offset + missing);
    let undefined = state & UNDEFINED != 0;
    let what = if undefined {
        "holds a value that was undefined when it was stored"
    } else {
        "was never written"
    };
    let message = format!(
        "{}-byte {} of uninitialised {} memory at {:#x}: byte {missing} {what}",
        bytes.refused.bytes,
        bytes.refused.access.verb(),
        bytes.space.name(),
        bytes.refused.address
    );
    Some((FindingKind::UninitialisedMemory, message))
}

/// Which bytes of a read of global memory hold values that were undefined when they were stored, bit by bit, if all others may be read.
pub(crate) fn undefined(region: &Region, offset: usize, bytes: usize) -> Option<u32> {
    let mut bits = 0;
    for at in 0..bytes {
        let state = region.state(offset + at);
        if state & (FORBIDDEN | IN_FLIGHT) != 0 || state & (INIT | UNDEFINED) == 0 {
            return None;
        }
        bits |= u32::from(state & INIT == 0) << at;
    }
    Some(bits)
}

/// Where a load lies whose only fault may be that it reads shared or local memory which nobody has written, or undefined values of
/// global memory, and which of its bytes are that, bit by bit.
pub(crate) fn unwritten<'m, R: Resolve>(
    memory: &Memory<'m>,
    lane: usize,
    address: u64,
    bytes: u64,
) -> Option<(&'m Region, usize, u32)> {
    let aligned = address.is_multiple_of(bytes);
    let (region, offset) =
        aligned.then(|| R::find(memory, &mut 0, lane, address, bytes)).flatten()?;
    let bits = (0..bytes as usize)
        .filter(|at| region.state(offset + at) & INIT == 0)
        .fold(0, |bits, at| bits | 1u32 << at);
    let allowed = match region.base {
        FIRST_OFFSET => region.all(offset, bytes as usize, FORBIDDEN | IN_FLIGHT, 0),
        _ => undefined(region, offset, bytes as usize).is_some(),
    };
    allowed.then_some((region, offset, bits))
}
