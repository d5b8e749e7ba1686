//! The device: global memory and what the host does with it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::GLOBAL_BASE;
use super::region::{FORBIDDEN, INIT, READ_ONLY, Region, UNDEFINED};
use crate::error::MemoryError;

/// Bytes that nobody owns after each allocation, so that a run past its end is found.
const GAP: u64 = 4096;
/// Alignment of allocations.
const ALIGN: u64 = 256;
/// Memory of a device made with [`Device::new`].
const DEFAULT_CAPACITY: u64 = 64 << 30;

/// A device with global memory of its own, on which kernels are launched.
///
/// Memory is bought lazily from the host: bytes that nobody touches cost nothing. Addresses are never used twice.
#[derive(Debug)]
pub struct Device {
    table: RwLock<Table>,
    capacity: u64,
}

/// An allocation; its memory goes when it is freed, its address range stays known.
#[derive(Debug)]
pub(crate) struct Allocation {
    /// Empty once freed, so that no access lies inside.
    pub(crate) region: Region,
    /// Size as allocated.
    pub(crate) bytes: u64,
    pub(crate) freed: bool,
}

/// All allocations, by ascending address.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) allocations: Vec<Allocation>,
    /// Addresses of module variables, by module number.
    pub(crate) modules: HashMap<u64, Vec<u64>>,
    next: u64,
    used: u64,
}

impl Default for Device {
    fn default() -> Self {
        Device::new()
    }
}

impl Device {
    /// A device with 64 GiB of memory.
    pub fn new() -> Device {
        Device::with_capacity(DEFAULT_CAPACITY)
    }

    /// A device with `capacity` bytes of memory.
    pub fn with_capacity(capacity: u64) -> Device {
        let table =
            Table { allocations: Vec::new(), modules: HashMap::new(), next: GLOBAL_BASE, used: 0 };
        Device { table: RwLock::new(table), capacity }
    }

    /// Allocates uninitialised memory, aligned to 256 bytes.
    pub fn allocate(&self, bytes: usize) -> Result<u64, MemoryError> {
        self.write_table().allocate(bytes as u64, self.capacity)
    }

    /// Frees an allocation; any later access to it is a finding.
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        let mut table = self.write_table();
        let index =
            table.index_of(address).filter(|&i| table.allocations[i].region.base == address);
        let index = index.ok_or(MemoryError::NotAnAllocation { address })?;
        let allocation = &mut table.allocations[index];
        if allocation.freed {
            return Err(MemoryError::NotAnAllocation { address });
        }
        allocation.freed = true;
        let label = allocation.region.label.take();
        if let Some(empty) = Region::new(address, 0) {
            allocation.region = empty;
            allocation.region.label = label;
        }
        table.used -= table.allocations[index].bytes;
        Ok(())
    }

    /// Copies host bytes to the device, which makes them initialised.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), MemoryError> {
        self.with_range(address, from.len(), |region, offset| {
            region.data.write(offset, from);
            region.mark(offset, from.len(), INIT, UNDEFINED);
            region.filled.store(true, Ordering::Relaxed);
        })
    }

    /// Copies device bytes to the host. Bytes never written read as zero; those to which a kernel has stored an undefined value are an error.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let len = into.len();
        self.with_range(address, len, |region, offset| {
            let undefined =
                |at: &usize| region.state(offset + at) & (INIT | UNDEFINED) == UNDEFINED;
            if !region.shadow.equal(offset, len, UNDEFINED, 0)
                && let Some(at) = (0..len).find(undefined)
            {
                return Err(MemoryError::Undefined { address: address + at as u64 });
            }
            region.data.read(offset, into);
            Ok(())
        })?
    }

    /// Whether every byte of the range has been written.
    pub fn is_initialised(&self, address: u64, bytes: usize) -> Result<bool, MemoryError> {
        self.with_range(address, bytes, |region, offset| {
            region.shadow.equal(offset, bytes, INIT, INIT)
        })
    }

    /// Forgets that the range was written: a kernel that reads it before writing it is stopped.
    pub fn mark_uninitialised(&self, address: u64, bytes: usize) -> Result<(), MemoryError> {
        self.with_range(address, bytes, |region, offset| {
            region.mark(offset, bytes, 0, INIT | UNDEFINED)
        })
    }

    /// Makes any access of a kernel to the range a finding, for example a freed block inside a pool.
    pub fn forbid(&self, address: u64, bytes: usize) -> Result<(), MemoryError> {
        self.with_range(address, bytes, |region, offset| region.mark(offset, bytes, FORBIDDEN, 0))
    }

    /// Takes back [`Device::forbid`] and [`Device::protect`].
    pub fn permit(&self, address: u64, bytes: usize) -> Result<(), MemoryError> {
        self.with_range(address, bytes, |region, offset| {
            region.mark(offset, bytes, 0, FORBIDDEN | READ_ONLY)
        })
    }

    /// Makes any write of a kernel to the range a finding.
    pub fn protect(&self, address: u64, bytes: usize) -> Result<(), MemoryError> {
        self.with_range(address, bytes, |region, offset| region.mark(offset, bytes, READ_ONLY, 0))
    }

    /// Names the allocation that holds `address`, for findings.
    pub fn name(&self, address: u64, label: &str) -> Result<(), MemoryError> {
        let mut table = self.write_table();
        let index = table.index_of(address).ok_or(MemoryError::NotAnAllocation { address })?;
        table.allocations[index].region.label = Some(label.to_owned());
        Ok(())
    }

    fn with_range<R>(
        &self,
        address: u64,
        bytes: usize,
        act: impl FnOnce(&Region, usize) -> R,
    ) -> Result<R, MemoryError> {
        let table = self.read_table();
        let out = MemoryError::OutOfBounds { address, bytes: bytes as u64 };
        let allocation = table.index_of(address).map(|i| &table.allocations[i]);
        let allocation = allocation.filter(|a| !a.freed).ok_or_else(|| out.clone())?;
        let region = &allocation.region;
        let offset = address - region.base;
        if region.bytes - offset < bytes as u64 {
            return Err(out);
        }
        Ok(act(region, offset as usize))
    }

    pub(crate) fn read_table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write_table(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }
}

impl Table {
    pub(crate) fn allocate(&mut self, bytes: u64, capacity: u64) -> Result<u64, MemoryError> {
        let left = capacity - self.used.min(capacity);
        let refused = MemoryError::OutOfMemory { requested: bytes, left, capacity };
        if bytes > left || bytes > 1 << 46 || self.next > 1 << 62 {
            return Err(refused);
        }
        let base = self.next;
        let region = Region::global(base, bytes).ok_or(refused)?;
        self.allocations.push(Allocation { region, bytes, freed: false });
        self.next = (base + bytes + GAP).next_multiple_of(ALIGN);
        self.used += bytes;
        Ok(base)
    }

    /// Index of the allocation, live or freed, whose range holds `address`; its end belongs to it.
    pub(crate) fn index_of(&self, address: u64) -> Option<usize> {
        let after = self.allocations.partition_point(|a| a.region.base <= address);
        let index = after.checked_sub(1)?;
        let allocation = &self.allocations[index];
        (address - allocation.region.base <= allocation.bytes).then_some(index)
    }

    /// The live allocation that an access lies in.
    pub(crate) fn live(&self, address: u64, bytes: u64) -> Option<usize> {
        let index = self.index_of(address)?;
        self.allocations[index].region.offset(address, bytes).map(|_| index)
    }

    /// The allocation nearest to an address that lies in none, to explain a finding.
    pub(crate) fn nearest(&self, address: u64) -> Option<&Allocation> {
        let after = self.allocations.partition_point(|a| a.region.base <= address);
        let before = after.checked_sub(1).map(|i| &self.allocations[i]);
        let next = self.allocations.get(after);
        match (before, next) {
            (Some(b), Some(n)) => {
                let past = address - (b.region.base + b.bytes).min(address);
                Some(if past <= n.region.base - address { b } else { n })
            }
            (b, n) => b.or(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_copies_and_shadow() {
        let device = Device::new();
        let p = device.allocate(100).unwrap();
        assert_eq!(p % 256, 0);
        assert!(!device.is_initialised(p, 1).unwrap());
        device.write(p + 3, &[1, 2, 3]).unwrap();
        assert!(device.is_initialised(p + 3, 3).unwrap());
        assert!(!device.is_initialised(p + 3, 4).unwrap());
        let mut back = [9; 5];
        device.read(p + 2, &mut back).unwrap();
        assert_eq!(back, [0, 1, 2, 3, 0]);
        device.mark_uninitialised(p + 4, 1).unwrap();
        assert!(!device.is_initialised(p + 3, 3).unwrap());
    }

    #[test]
    fn undefined_values_are_not_read() {
        let text = ".version 8.0\n.target sm_80\n.address_size 64\n.entry k(.param .u64 x) { .shared .b32 s; .reg .u64 %x; .reg .u32 %a;
            ld.param.u64 %x, [x]; ld.shared.u32 %a, [s]; st.global.u32 [%x+4], %a; st.global.u32 [%x], 7; ret; }";
        let module = crate::Module::parse("t.ptx", text).unwrap();
        let device = Device::new();
        let p = device.allocate(8).unwrap();
        let launch = crate::Launch { params: &p.to_le_bytes(), ..Default::default() };
        device.launch(&module, "k", &launch).unwrap();
        let mut back = [0; 8];
        let undefined = MemoryError::Undefined { address: p + 4 };
        assert_eq!(device.read(p, &mut back), Err(undefined));
        assert_eq!(device.read(p, &mut back[..4]), Ok(()));
        assert_eq!(back, [7, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!device.is_initialised(p, 5).unwrap());
        device.write(p + 4, &[1; 4]).unwrap();
        assert_eq!(device.read(p, &mut back), Ok(()));
    }

    #[test]
    fn ranges_outside_are_errors() {
        let device = Device::with_capacity(1000);
        let p = device.allocate(100).unwrap();
        assert_eq!(
            device.write(p + 99, &[0, 0]),
            Err(MemoryError::OutOfBounds { address: p + 99, bytes: 2 })
        );
        assert!(device.write(p + 100, &[]).is_ok());
        assert!(device.read(p - 1, &mut [0]).is_err());
        assert!(matches!(device.allocate(901), Err(MemoryError::OutOfMemory { left: 900, .. })));
        let empty = device.allocate(0).unwrap();
        assert!(device.write(empty, &[]).is_ok());
        device.free(p).unwrap();
        assert_eq!(device.free(p), Err(MemoryError::NotAnAllocation { address: p }));
        assert!(device.read(p, &mut [0]).is_err());
        assert!(device.allocate(901).is_ok());
    }

    #[test]
    fn a_huge_allocation_is_lazy_or_an_error() {
        let device = Device::with_capacity(u64::MAX);
        if let Ok(p) = device.allocate(1 << 36) {
            device.write(p + (1 << 35), &[7]).unwrap();
        }
        assert!(device.allocate(usize::MAX).is_err());
    }
}
