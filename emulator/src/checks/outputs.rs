//! Outputs that the host asks for and that nobody has written when the launch ends.

use crate::error::Source;
use crate::finding::{Finding, FindingKind, Site};
use crate::lower::kernel::Kernel;
use crate::memory::device::Table;
use crate::memory::region::INIT;

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
