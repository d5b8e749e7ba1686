//! Addresses of one state space in instructions of another.

use super::{Refused, Told};
use crate::finding::FindingKind;
use crate::memory::{GLOBAL_BASE, LOCAL_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::types::Space;

pub(super) fn check(refused: &Refused, space: Space) -> Told {
    let address = refused.address;
    let window = |start: u64| address.wrapping_sub(start) < WINDOW_BYTES;
    let other = match space {
        Space::Global if window(SHARED_WINDOW) => "shared",
        Space::Global if window(LOCAL_WINDOW) => "local",
        Space::Shared | Space::Local if address >= GLOBAL_BASE && address >> 63 == 0 => "global",
        Space::Shared if window(SHARED_WINDOW) => "generic",
        Space::Local if window(LOCAL_WINDOW) => "generic",
        _ => return None,
    };
    let message = format!("{}, which is a {other} address", refused.told_in(space));
    Some((FindingKind::WrongSpace, message))
}
