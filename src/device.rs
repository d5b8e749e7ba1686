//! Devices and streams: where memory lives and in which order work runs.
#![forbid(unsafe_code)]

use std::sync::Arc;

use once_cell::sync::OnceCell;

use crate::driver::{DeviceProperties, Driver};
use crate::error::{Error, Result};
use crate::graph::Keeper;
use crate::kernels::KERNELS;

struct Shared<D: Driver> {
    driver: D,
    /// One cell per entry of [`KERNELS`]: a kernel is loaded once per device, when first asked for.
    kernels: Box<[OnceCell<D::Kernel>]>,
}

/// A device behind a driver. Clones share the loaded kernels.
pub struct Device<D: Driver> {
    shared: Arc<Shared<D>>,
}

impl<D: Driver> core::fmt::Debug for Device<D> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let properties = self.driver().properties();
        f.debug_struct("Device").field("properties", properties).finish_non_exhaustive()
    }
}

impl<D: Driver> Clone for Device<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// Oldest compute capability that the kernels run on: sm_80.
const MIN_COMPUTE_CAPABILITY: (u32, u32) = (8, 0);

impl<D: Driver> Device<D> {
    /// Wraps a driver.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a device older than sm_80.
    pub fn new(driver: D) -> Result<Self> {
        let (major, minor) = driver.properties().compute_capability;
        if (major, minor) < MIN_COMPUTE_CAPABILITY {
            return Err(Error::Unsupported {
                what: format!(
                    "{} has compute capability {major}.{minor}, at least 8.0 is needed",
                    driver.properties().name
                ),
            });
        }
        let kernels = KERNELS.iter().map(|_| OnceCell::new()).collect();
        Ok(Self { shared: Arc::new(Shared { driver, kernels }) })
    }

    /// The driver.
    pub fn driver(&self) -> &D {
        &self.shared.driver
    }

    /// What the device can do.
    pub fn properties(&self) -> &DeviceProperties {
        self.shared.driver.properties()
    }

    /// Makes a stream.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn stream(&self) -> Result<Stream<D>> {
        Ok(self.adopt_stream(self.driver().create_stream()?))
    }

    /// Wraps a stream of the driver: one that another library made ([`crate::driver`]). Two wrappers of one stream are two
    /// streams here, whose memory does not mix.
    pub fn adopt_stream(&self, raw: D::Stream) -> Stream<D> {
        Stream { raw, keeper: Keeper::default(), device: self.clone() }
    }

    /// The kernel at `index` of [`KERNELS`], loaded on first use.
    pub(crate) fn kernel(&self, index: usize) -> Result<&D::Kernel> {
        let source = &KERNELS[index];
        self.shared.kernels[index].get_or_try_init(|| self.driver().load(source.entry, source.ptx))
    }
}

/// An order in which work runs on a device.
///
/// All memory is bound to a stream by lifetime ([`crate::Buffer`]), every use of it is enqueued
/// on that stream, and freeing it is enqueued there too:
///
/// - S1. A buffer cannot outlive its stream (borrow).
/// - S2. An operation whose arguments are on different streams is an error ([`Error::OtherStream`]).
/// - S3. Work of a stream runs in order (driver promise D2), so a drop right after an asynchronous launch
///   frees behind it. Nothing rests on a destructor having run: forgetting a buffer leaks it.
pub struct Stream<D: Driver> {
    // Fields drop in this order: the stream before its device.
    raw: D::Stream,
    keeper: Keeper,
    device: Device<D>,
}

debug!([D: Driver] Stream<D> { device });

impl<D: Driver> Stream<D> {
    /// The device of this stream.
    pub fn device(&self) -> &Device<D> {
        &self.device
    }

    /// The driver's stream.
    pub fn raw(&self) -> &D::Stream {
        &self.raw
    }

    /// Waits until everything enqueued so far has run.
    ///
    /// # Errors
    ///
    /// Those of the driver, also late ones of earlier launches.
    pub fn synchronize(&self) -> Result<()> {
        self.driver().synchronize(&self.raw)
    }

    pub(crate) fn driver(&self) -> &D {
        self.device.driver()
    }

    pub(crate) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Whether `other` is this very stream (S2).
    pub(crate) fn expect_same(&self, what: &'static str, other: &Self) -> Result<()> {
        if core::ptr::eq(self, other) { Ok(()) } else { Err(Error::OtherStream { what }) }
    }
}
