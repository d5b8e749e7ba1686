//! Memory: bytes with shadow, the device's allocations, and the address map.

pub(crate) mod access;
pub(crate) mod cells;
mod clean;
pub(crate) mod device;
pub(crate) mod find;
pub(crate) mod region;

/// Address of the first allocation of global memory; `.const` variables live there too.
pub(crate) const GLOBAL_BASE: u64 = 0x7000_0000_0000;
/// Where a CTA's shared memory appears in generic addresses.
pub(crate) const SHARED_WINDOW: u64 = 0x0100_0000_0000;
/// Where a thread's local memory appears in generic addresses.
pub(crate) const LOCAL_WINDOW: u64 = 0x0200_0000_0000;
/// Where the parameters of an entry appear in generic addresses.
pub(crate) const PARAM_WINDOW: u64 = 0x0300_0000_0000;
/// Addresses of device functions, which are no memory.
pub(crate) const FUNCTIONS: u64 = 0x0400_0000_0000;
/// Length of each window.
pub(crate) const WINDOW_BYTES: u64 = 1 << 32;
/// Shared and local addresses below this are never valid, so that a null pointer is found.
pub(crate) const FIRST_OFFSET: u64 = 1024;
