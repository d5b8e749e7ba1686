//! Outputs that the host asks for: that nobody has written when the launch ends, and where undefined values may be stored.

use std::sync::atomic::Ordering;

use crate::error::Source;
use crate::exec::env::LaunchContext;
use crate::finding::{Finding, FindingKind, Site};
use crate::lower::kernel::Kernel;
use crate::memory::device::Table;
use crate::memory::region::{INIT, Region};

/// Whether an undefined value may be stored to a byte of global memory: it is passed on where nobody but kernels has an interest in what is
/// there.
pub(crate) fn may_be_undefined(launch: &LaunchContext<'_>, region: &Region, at: usize) -> bool {
    let address = region.base + at as u64;
    let inside = |ranges: &[(u64, u64)]| {
        ranges.iter().any(|&(from, bytes)| address.wrapping_sub(from) < bytes)
    };
    let output = launch.outputs.iter().any(|ranges| inside(ranges));
    !output && (!region.filled.load(Ordering::Relaxed) || inside(launch.scratch))
}

/// A finding for the first of these ranges (address and bytes) with a byte that nobody has written; the reason where one
/// does not lie in one live allocation.
pub(crate) fn unwritten(
    required: &[(u64, u64)],
    table: &Table,
    kernel: &Kernel,
    source: &Source,
) -> Result<Option<Finding>, String> {
    for &(address, bytes) in required {
        let found = table.live(address, bytes).map(|index| &table.allocations[index]);
        let Some(allocation) = found else {
            return Err(format!(
                "{bytes} bytes at {address:#x} are required, and do not lie inside one live allocation"
            ));
        };
        let region = &allocation.region;
        let first = (address - region.base) as usize;
        let mut missing =
            (first..first + bytes as usize).filter(|&at| region.state(at) & INIT == 0);
        let Some(at) = missing.next() else { continue };
        let (count, address) = (1 + missing.count(), region.base + at as u64);
        let label = region.label.as_deref();
        let buffer =
            label.map_or_else(|| format!("{:#x}", region.base), |label| format!("`{label}`"));
        let message = format!(
            "{count} of {bytes} bytes that the launch has to write are unwritten, the first at {address:#x}; byte {at} of \
             buffer {buffer} of {} bytes",
            allocation.bytes
        );
        let line = kernel.lines.first().copied().unwrap_or(1);
        let site = Site {
            file: source.name.clone(),
            line,
            text: source.line(line).trim().to_owned(),
            entry: kernel.name.clone(),
            cta: [0; 3],
            warp: 0,
            lane: 0,
            thread: [0; 3],
        };
        let (kind, notes) = (FindingKind::UnwrittenOutput, Vec::new());
        return Ok(Some(Finding { kind, message, site, address: Some(address), notes }));
    }
    Ok(None)
}
