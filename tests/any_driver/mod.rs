//! The driver that `PAGEDPTX_DRIVER` names: `emulator` (the default), `cust` or `cudarc` (built in by the features of those names).
//!
//! Tests and examples include this file, so that the same binary runs on the emulator and, on a machine with a
//! CUDA driver, on its GPU.

use std::rc::Rc;

#[cfg(any(feature = "cust", feature = "cudarc"))]
use pagedptx::driver::{CudaKernel, CudaStream};
use pagedptx::{Device, DeviceAddress, DeviceProperties, Driver, Error, LaunchShape, Result};
use pagedptx_harness::runner::TestDriver;
use pagedptx_harness::{EmulatorDriver, EmulatorKernel, EmulatorOptions};

/// One of the three drivers.
pub enum AnyDriver {
    Emulator(Box<EmulatorDriver>),
    #[cfg(feature = "cust")]
    Cust(pagedptx::driver::CustDriver),
    #[cfg(feature = "cudarc")]
    Cudarc(pagedptx::driver::CudarcDriver),
}

/// A stream of an [`AnyDriver`].
pub enum AnyStream {
    Emulator(<EmulatorDriver as Driver>::Stream),
    #[cfg(any(feature = "cust", feature = "cudarc"))]
    Cuda(CudaStream),
}

/// A kernel of an [`AnyDriver`].
pub enum AnyKernel {
    Emulator(EmulatorKernel),
    #[cfg(any(feature = "cust", feature = "cudarc"))]
    Cuda(CudaKernel),
}

/// A device of the driver that the environment names: on the emulator a new one with `options`; on a GPU always the
/// thread's own, so that a kernel is assembled once for all cases of a test.
#[allow(dead_code)] // not every test asks
pub fn device(options: EmulatorOptions) -> Rc<Device<AnyDriver>> {
    thread_local! {
        static GPU: std::cell::OnceCell<Rc<Device<AnyDriver>>> = const { std::cell::OnceCell::new() };
    }
    let new = || {
        let driver = AnyDriver::from_env(options).unwrap_or_else(|error| panic!("{error}"));
        Rc::new(Device::new(driver).unwrap_or_else(|error| panic!("{error}")))
    };
    if is_gpu() { GPU.with(|device| device.get_or_init(new).clone()) } else { new() }
}

/// Whether the environment names a GPU's driver.
#[allow(dead_code)] // not every test asks
pub fn is_gpu() -> bool {
    std::env::var("PAGEDPTX_DRIVER").is_ok_and(|name| !["", "emulator"].contains(&name.as_str()))
}

impl AnyDriver {
    /// The driver that the environment asks for; the emulator runs with `options`.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a name that is none or is not built in, and those of the driver.
    pub fn from_env(options: EmulatorOptions) -> Result<Self> {
        let name = std::env::var("PAGEDPTX_DRIVER").unwrap_or_default();
        match name.as_str() {
            "" | "emulator" => Ok(Self::Emulator(Box::new(EmulatorDriver::new(options)))),
            #[cfg(feature = "cust")]
            "cust" => pagedptx::driver::CustDriver::new(0).map(Self::Cust),
            #[cfg(feature = "cudarc")]
            "cudarc" => pagedptx::driver::CudarcDriver::new(0).map(Self::Cudarc),
            _ => {
                let built_in = [
                    Some("emulator"),
                    cfg!(feature = "cust").then_some("cust"),
                    cfg!(feature = "cudarc").then_some("cudarc"),
                ];
                let built_in: Vec<_> = built_in.into_iter().flatten().collect();
                let built_in = built_in.join(", ");
                Err(Error::Unsupported {
                    what: format!("PAGEDPTX_DRIVER={name}, this build has {built_in}"),
                })
            }
        }
    }

    /// Launches so far, where the driver counts them.
    #[allow(dead_code)] // not every test asks
    pub fn launches(&self) -> Option<u64> {
        match self {
            Self::Emulator(driver) => Some(driver.launches()),
            #[cfg(any(feature = "cust", feature = "cudarc"))]
            _ => None,
        }
    }
}

/// Calls the method of the driver that `self` is; a stream or kernel of another one is an error.
macro_rules! dispatch {
    ($self:ident, $stream:ident $(, $object:ident: $type:ident)?; $driver:ident => $call:expr) => {
        match ($self, $stream $(, $object)?) {
            (Self::Emulator($driver), AnyStream::Emulator($stream) $(, $type::Emulator($object))?) => $call,
            #[cfg(feature = "cust")]
            (Self::Cust($driver), AnyStream::Cuda($stream) $(, $type::Cuda($object))?) => $call,
            #[cfg(feature = "cudarc")]
            (Self::Cudarc($driver), AnyStream::Cuda($stream) $(, $type::Cuda($object))?) => $call,
            #[cfg(any(feature = "cust", feature = "cudarc"))]
            _ => Err(Error::OtherStream { what: "an argument of another driver" }),
        }
    };
}

// SAFETY: D1 to D7: those of the three drivers, whose objects are not mixed.
unsafe impl Driver for AnyDriver {
    type Stream = AnyStream;
    type Kernel = AnyKernel;

    fn properties(&self) -> &DeviceProperties {
        match self {
            Self::Emulator(driver) => driver.properties(),
            #[cfg(feature = "cust")]
            Self::Cust(driver) => driver.properties(),
            #[cfg(feature = "cudarc")]
            Self::Cudarc(driver) => driver.properties(),
        }
    }

    fn create_stream(&self) -> Result<AnyStream> {
        Ok(match self {
            Self::Emulator(driver) => AnyStream::Emulator(driver.create_stream()?),
            #[cfg(feature = "cust")]
            Self::Cust(driver) => AnyStream::Cuda(driver.create_stream()?),
            #[cfg(feature = "cudarc")]
            Self::Cudarc(driver) => AnyStream::Cuda(driver.create_stream()?),
        })
    }

    fn allocate(&self, stream: &AnyStream, bytes: usize) -> Result<DeviceAddress> {
        dispatch!(self, stream; driver => driver.allocate(stream, bytes))
    }

    unsafe fn free(&self, stream: &AnyStream, address: DeviceAddress) {
        let result: Result<()> = dispatch!(self, stream; driver => {
            // SAFETY: the caller's promise.
            unsafe { driver.free(stream, address) };
            Ok(())
        });
        result.expect("an allocation is freed on its own stream");
    }

    unsafe fn write(&self, stream: &AnyStream, dst: DeviceAddress, src: &[u8]) -> Result<()> {
        // SAFETY: the caller's promise.
        dispatch!(self, stream; driver => unsafe { driver.write(stream, dst, src) })
    }

    unsafe fn read(&self, stream: &AnyStream, src: DeviceAddress, dst: &mut [u8]) -> Result<()> {
        // SAFETY: the caller's promise.
        dispatch!(self, stream; driver => unsafe { driver.read(stream, src, dst) })
    }

    unsafe fn fill(
        &self,
        stream: &AnyStream,
        dst: DeviceAddress,
        value: u8,
        bytes: usize,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        dispatch!(self, stream; driver => unsafe { driver.fill(stream, dst, value, bytes) })
    }

    unsafe fn copy(
        &self,
        stream: &AnyStream,
        dst: DeviceAddress,
        src: DeviceAddress,
        bytes: usize,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        dispatch!(self, stream; driver => unsafe { driver.copy(stream, dst, src, bytes) })
    }

    fn load(&self, entry: &'static str, ptx: &'static str) -> Result<AnyKernel> {
        Ok(match self {
            Self::Emulator(driver) => AnyKernel::Emulator(driver.load(entry, ptx)?),
            #[cfg(feature = "cust")]
            Self::Cust(driver) => AnyKernel::Cuda(driver.load(entry, ptx)?),
            #[cfg(feature = "cudarc")]
            Self::Cudarc(driver) => AnyKernel::Cuda(driver.load(entry, ptx)?),
        })
    }

    unsafe fn launch(
        &self,
        stream: &AnyStream,
        kernel: &AnyKernel,
        shape: &LaunchShape,
        params: &[u8],
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        dispatch!(self, stream, kernel: AnyKernel; driver => unsafe {
            driver.launch(stream, kernel, shape, params)
        })
    }

    fn synchronize(&self, stream: &AnyStream) -> Result<()> {
        dispatch!(self, stream; driver => driver.synchronize(stream))
    }
}

impl TestDriver for AnyDriver {
    fn forbid(&self, address: DeviceAddress, bytes: usize) -> Result<()> {
        match self {
            Self::Emulator(driver) => driver.forbid(address, bytes),
            #[cfg(any(feature = "cust", feature = "cudarc"))]
            _ => Ok(()),
        }
    }
}
