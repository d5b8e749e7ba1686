//! The driver for engines built on `cudarc` (feature `cudarc`).

use std::sync::Arc;

use cudarc::driver as cu;

use crate::driver::cuda::CudaDriver;
use crate::driver::cuda::stream::CudaStream;
use crate::error::{Error, Result};

/// Marks the [`CudaDriver`] for engines built on `cudarc`.
#[derive(Debug)]
pub enum Cudarc {}

/// The driver for engines built on `cudarc` 0.19: takes its contexts and streams, and gives it ours.
pub type CudarcDriver = CudaDriver<Cudarc>;

impl CudarcDriver {
    /// The device of a `cudarc` context.
    ///
    /// # Errors
    ///
    /// Those of [`CudaDriver::new`], and [`Error::Unsupported`] for a context that is not its device's primary one.
    pub fn from_context(context: &cu::CudaContext) -> Result<Self> {
        // SAFETY: `cudarc` keeps the context alive while its value exists.
        unsafe { Self::from_raw_context(context.cu_ctx().cast()) }
    }

    /// The device's primary context as `cudarc` has it.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] if `cudarc` cannot retain it, [`Error::Unsupported`] if it does not see the device.
    pub fn cudarc_context(&self) -> Result<Arc<cu::CudaContext>> {
        // The driver is loaded and initialised, or `self` would not exist: `cudarc` finds it and does not panic.
        let count = cu::CudaContext::device_count().map_err(cudarc_error)?;
        let device = self.shared_context().device();
        let ordinal = (0..count).find(|ordinal| cu::result::device::get(*ordinal) == Ok(device));
        let Some(ordinal) = ordinal.and_then(|ordinal| usize::try_from(ordinal).ok()) else {
            let what = format!("cudarc does not see device {device} among its {count}");
            return Err(Error::Unsupported { what });
        };
        cu::CudaContext::new(ordinal).map_err(cudarc_error)
    }

    /// Wraps a stream of `cudarc`, which is kept alive; work that both enqueue runs in order.
    ///
    /// # Safety
    ///
    /// What [`CudaDriver::stream_from_raw`] says of captures and of the per-thread stream.
    ///
    /// # Errors
    ///
    /// [`Error::OtherStream`] if it belongs to another context.
    pub unsafe fn stream_from(&self, stream: Arc<cu::CudaStream>) -> Result<CudaStream> {
        if stream.context().cu_ctx().cast() != self.raw_context() {
            return Err(Error::OtherStream { what: "a stream of another context" });
        }
        let raw = stream.cu_stream().cast();
        // SAFETY: a stream of this context, as was just compared, which the owner keeps alive; the rest is the caller's promise.
        Ok(unsafe { CudaStream::from_raw(self.shared_context(), raw, Some(stream)) })
    }
}

fn cudarc_error(error: cu::DriverError) -> Error {
    Error::Driver { operation: "cudarc", message: format!("{error:?}") }
}
