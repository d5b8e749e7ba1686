//! What lies at or near an address, for findings.

use crate::lower::kernel::SharedVariable;
use crate::memory::access::Memory;
use crate::memory::{FIRST_OFFSET, GLOBAL_BASE, LOCAL_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::types::Space;

/// Global addresses further than this from every buffer are not described by one.
const NEAR: u64 = 1 << 32;

/// The words to be put behind a message about an address.
pub(crate) fn described(memory: &Memory<'_>, space: Space, address: u64) -> String {
    if space == Space::Param {
        return format!("; the entry has {} bytes of parameters", memory.launch.params.bytes);
    }
    if space == Space::Local || address.wrapping_sub(LOCAL_WINDOW) < WINDOW_BYTES {
        let bytes = memory.launch.kernel.local_bytes;
        return format!("; a thread has {bytes} bytes of local memory");
    }
    let shared = address.wrapping_sub(SHARED_WINDOW);
    let offset = if shared < WINDOW_BYTES { shared } else { address };
    if offset < FIRST_OFFSET {
        return "; a null pointer?".into();
    }
    if address >= GLOBAL_BASE || space == Space::Global && shared >= WINDOW_BYTES {
        return global(memory, address);
    }
    let inside = |v: &&SharedVariable| offset >= v.address && offset - v.address < v.bytes;
    match memory.launch.kernel.shared.iter().find(inside) {
        Some(v) => {
            format!("; byte {} of shared `{}` of {} bytes", offset - v.address, v.name, v.bytes)
        }
        None => {
            let bytes = memory.shared.bytes;
            format!("; shared memory begins at {FIRST_OFFSET:#x} and has {bytes} bytes")
        }
    }
}

fn global(memory: &Memory<'_>, address: u64) -> String {
    let Some(near) = memory.launch.memory.nearest(address) else { return String::new() };
    let (base, bytes) = (near.region.base, near.bytes);
    let label =
        near.region.label.as_deref().map_or_else(|| format!("{base:#x}"), |l| format!("`{l}`"));
    let buffer = format!("buffer {label} of {bytes} bytes");
    if address < base {
        let before = base - address;
        return if before < NEAR {
            format!("; {before} bytes before {buffer}")
        } else {
            String::new()
        };
    }
    match (address - base).checked_sub(bytes) {
        None => format!("; byte {} of {buffer}", address - base),
        Some(past) if past < NEAR => format!("; {past} bytes past the end of {buffer}"),
        Some(_) => String::new(),
    }
}
