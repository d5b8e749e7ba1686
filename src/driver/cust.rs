//! The driver for engines built on `cust` (feature `cust`).

use std::sync::Arc;

use crate::driver::cuda::CudaDriver;
use crate::driver::cuda::stream::CudaStream;
use crate::error::Result;

/// Marks the [`CudaDriver`] for engines built on `cust`.
#[derive(Debug)]
pub enum Cust {}

/// The driver for engines built on `cust` 0.3.2: takes its contexts and streams.
///
/// A program that uses `cust` itself is linked against the driver library, so without one it does not start; one that uses
/// this driver only, does. `cust`'s own calls, its destructors included, are undefined behaviour for result codes that came after
/// CUDA 11.4; this driver makes none of them, but what is handed to it is dropped by `cust` in the end.
pub type CustDriver = CudaDriver<Cust>;

impl CustDriver {
    /// The device of a `cust` context.
    ///
    /// # Errors
    ///
    /// Those of [`CudaDriver::new`].
    pub fn from_context(context: &cust::context::Context) -> Result<Self> {
        // SAFETY: `cust` keeps the context alive while its value exists.
        unsafe { Self::from_raw_context(context.as_raw().cast()) }
    }

    /// Wraps a stream of `cust`, which is kept alive; work that both enqueue runs in order.
    ///
    /// # Safety
    ///
    /// The stream belongs to this driver's context, and what [`CudaDriver::stream_from_raw`] says of captures.
    pub unsafe fn stream_from(&self, stream: Arc<cust::stream::Stream>) -> CudaStream {
        let raw = stream.as_inner().cast();
        // SAFETY: the caller's promise; the owner keeps the stream alive.
        unsafe { CudaStream::from_raw(self.shared_context(), raw, Some(stream)) }
    }
}
