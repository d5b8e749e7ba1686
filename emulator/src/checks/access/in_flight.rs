//! Accesses to bytes that an asynchronous copy has still to write, and writes to those that one has still to read.
//!
//! What other threads write to a source in global memory is found by the checks of races; of what the CTA itself writes
//! there, an asynchronous copy finds out when it has to have landed, by the values.

use super::{Bytes, Told, place};
use crate::exec::env::Env;
use crate::exec::inst::Flow;
use crate::finding::{FindingKind, Report};
use crate::memory::access::Memory;
use crate::memory::region::{IN_FLIGHT, READ_ONLY};
use crate::types::Space;

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

/// A lane's copy, issued by an instruction, has to have landed and finds that its source has changed at an address.
#[cold]
pub(crate) fn source_changed(env: &mut Env<'_>, lane: usize, address: u64, site: u32) -> Flow {
    let memory = Memory { launch: env.launch, shared: &env.shared, local: None };
    let place = place::described(&memory, Space::Global, address);
    let message = format!(
        "the source of an asynchronous copy was written at {address:#x} before the copy had landed{place}"
    );
    let notes = vec![(Some(site), "the copy was issued here".into())];
    let kind = FindingKind::InFlight;
    env.report(Report { kind, lane, message, address: Some(address), notes })
}
