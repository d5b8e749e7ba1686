//! A driver of a device without memory, for what the host does.

use std::cell::Cell;

use pagedptx::{DeviceAddress, DeviceProperties, Driver, LaunchShape, Result};

/// A device that counts calls and does nothing.
pub struct Nothing {
    properties: DeviceProperties,
    pub device_allocations: Cell<u64>,
    pub launches: Cell<u64>,
}

impl Nothing {
    /// One of 132 multiprocessors, of so many bytes of shared memory for a CTA.
    pub fn new(shared_bytes_per_cta: u32) -> Self {
        let properties = DeviceProperties {
            name: "nothing".into(),
            compute_capability: (9, 0),
            num_multiprocessors: 132,
            shared_bytes_per_cta,
        };
        Self { properties, device_allocations: Cell::new(0), launches: Cell::new(0) }
    }
}

// SAFETY: no address that it gives is ever used: copies and launches do nothing. Nothing is read.
unsafe impl Driver for Nothing {
    type Stream = ();
    type Kernel = ();

    fn properties(&self) -> &DeviceProperties {
        &self.properties
    }

    fn create_stream(&self) -> Result<()> {
        Ok(())
    }

    fn allocate(&self, (): &(), _bytes: usize) -> Result<DeviceAddress> {
        self.device_allocations.set(self.device_allocations.get() + 1);
        Ok(DeviceAddress(self.device_allocations.get() << 32))
    }

    unsafe fn free(&self, (): &(), _address: DeviceAddress) {}

    unsafe fn write(&self, (): &(), _dst: DeviceAddress, _src: &[u8]) -> Result<()> {
        Ok(())
    }

    unsafe fn read(&self, (): &(), _src: DeviceAddress, _dst: &mut [u8]) -> Result<()> {
        Ok(())
    }

    unsafe fn fill(&self, (): &(), _dst: DeviceAddress, _value: u8, _bytes: usize) -> Result<()> {
        Ok(())
    }

    unsafe fn copy(
        &self,
        (): &(),
        _dst: DeviceAddress,
        _src: DeviceAddress,
        _bytes: usize,
    ) -> Result<()> {
        Ok(())
    }

    fn load(&self, _entry: &'static str, _ptx: &'static str) -> Result<()> {
        Ok(())
    }

    unsafe fn launch(&self, (): &(), (): &(), _shape: &LaunchShape, _params: &[u8]) -> Result<()> {
        self.launches.set(self.launches.get() + 1);
        Ok(())
    }

    fn synchronize(&self, (): &()) -> Result<()> {
        Ok(())
    }
}
