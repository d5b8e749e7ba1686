//! Reads of bytes that nobody has written: neither the host nor any thread, and for shared and local memory no
//! thread of this CTA.

use super::{Bytes, Told};
use crate::finding::FindingKind;
use crate::memory::region::INIT;

pub(super) fn check(bytes: &Bytes<'_>) -> Told {
    let missing = bytes.states().position(|state| state & INIT == 0)?;
    let message = format!(
        "{}-byte {} of uninitialised {} memory at {:#x}: byte {missing} was never written",
        bytes.refused.bytes,
        bytes.refused.access.verb(),
        bytes.space.name(),
        bytes.refused.address
    );
    Some((FindingKind::UninitialisedMemory, message))
}
