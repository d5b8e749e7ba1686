//! Accesses to bytes that an asynchronous copy has still to write, and writes to those that one has still to read.
//!
//! Sources in global memory are followed by the checks of races, see [`crate::checks::words`].

use super::{Bytes, Told};
use crate::finding::FindingKind;
use crate::memory::region::{IN_FLIGHT, READ_ONLY};

pub(super) fn check(bytes: &Bytes<'_>) -> Told {
    let told = bytes.refused.told();
    let message = if bytes.any(IN_FLIGHT) {
        format!("{told}, where an asynchronous copy has still to land")
    } else if bytes.writes() && bytes.is_shared() && bytes.any(READ_ONLY) {
        format!("{told}, which a bulk copy has still to read")
    } else {
        return None;
    };
    Some((FindingKind::InFlight, message))
}
