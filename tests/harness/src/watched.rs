//! The emulator's driver with somebody who looks on.

use pagedptx::{DeviceAddress, DeviceProperties, Driver, LaunchShape, Result};

use crate::{EmulatorDriver, EmulatorKernel};

/// What is done beside the calls of a driver, or instead of its launches.
///
/// # Safety
///
/// [`Watch::launch`] lets the whole launch run, whatever else it does.
pub unsafe trait Watch {
    /// A call is about to be made, by the name of the function; launches are not told here.
    fn call(&self, _: &'static str) {}

    /// A launch.
    ///
    /// # Errors
    ///
    /// As [`Driver::launch`].
    ///
    /// # Safety
    ///
    /// As [`Driver::launch`].
    unsafe fn launch(
        &self,
        emulator: &EmulatorDriver,
        kernel: &EmulatorKernel,
        shape: &LaunchShape,
        params: &[u8],
    ) -> Result<()>;
}

/// An emulator that is watched.
#[derive(Default)]
pub struct Watched<W> {
    /// The emulator.
    pub emulator: EmulatorDriver,
    /// Who looks on.
    pub watch: W,
}

// SAFETY: every call goes to the emulator's driver as it came, launches by the promise of `Watch`.
unsafe impl<W: Watch> Driver for Watched<W> {
    type Stream = ();
    type Kernel = EmulatorKernel;

    fn properties(&self) -> &DeviceProperties {
        self.emulator.properties()
    }

    fn create_stream(&self) -> Result<()> {
        self.emulator.create_stream()
    }

    fn allocate(&self, stream: &(), bytes: usize) -> Result<DeviceAddress> {
        self.watch.call("allocate");
        self.emulator.allocate(stream, bytes)
    }

    unsafe fn free(&self, stream: &(), address: DeviceAddress) {
        self.watch.call("free");
        // SAFETY: the caller's promise.
        unsafe { self.emulator.free(stream, address) }
    }

    unsafe fn write(&self, stream: &(), dst: DeviceAddress, src: &[u8]) -> Result<()> {
        self.watch.call("write");
        // SAFETY: the caller's promise.
        unsafe { self.emulator.write(stream, dst, src) }
    }

    unsafe fn read(&self, stream: &(), src: DeviceAddress, dst: &mut [u8]) -> Result<()> {
        self.watch.call("read");
        // SAFETY: the caller's promise.
        unsafe { self.emulator.read(stream, src, dst) }
    }

    unsafe fn fill(&self, stream: &(), dst: DeviceAddress, value: u8, bytes: usize) -> Result<()> {
        self.watch.call("fill");
        // SAFETY: the caller's promise.
        unsafe { self.emulator.fill(stream, dst, value, bytes) }
    }

    unsafe fn copy(
        &self,
        stream: &(),
        dst: DeviceAddress,
        src: DeviceAddress,
        bytes: usize,
    ) -> Result<()> {
        self.watch.call("copy");
        // SAFETY: the caller's promise.
        unsafe { self.emulator.copy(stream, dst, src, bytes) }
    }

    fn load(&self, entry: &'static str, ptx: &'static str) -> Result<EmulatorKernel> {
        self.watch.call("load");
        self.emulator.load(entry, ptx)
    }

    unsafe fn launch(
        &self,
        (): &(),
        kernel: &EmulatorKernel,
        shape: &LaunchShape,
        params: &[u8],
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.watch.launch(&self.emulator, kernel, shape, params) }
    }

    fn synchronize(&self, stream: &()) -> Result<()> {
        self.watch.call("synchronize");
        self.emulator.synchronize(stream)
    }
}
