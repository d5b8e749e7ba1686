//! What the `cust` and the `cudarc` driver share: everything but the types of those libraries.
//!
//! Both libraries are met at the border, where an engine that is built on one of them hands over its context,
//! its streams and its memory. The calls themselves go through [`sys`] for either, because
//!
//! - `cust` returns the driver's codes as a Rust enum, which is undefined behaviour for codes that it
//!   does not list, and lists none that came after CUDA 11.4; the same happens in its destructors;
//! - `cudarc` panics where the library or a symbol is missing;
//! - neither gives the assembler's log, nor keeps promise D3 for pinned memory.
//!
//! Where the driver's reference leaves a doubt, the promises D1 to D6 are kept by construction: host slices never reach
//! the driver ([`staging`]), and code, graphs and pinned memory are given back after a wait.

pub(crate) mod context;
mod graph;
mod kernel;
mod staging;
pub(crate) mod stream;
pub(crate) mod sys;

use core::ffi::c_void;
use core::marker::PhantomData;
use std::sync::Arc;

use crate::driver::{DeviceProperties, Driver, Events, Graphs, LaunchShape};
use crate::error::{Error, Result};
use crate::types::DeviceAddress;
use context::Context;

pub use graph::{CudaEvent, CudaGraph};
pub use kernel::CudaKernel;
pub use stream::CudaStream;

/// A CUDA device through its primary context, for engines built on the library `L`: `Cust` (feature `cust`) or
/// `Cudarc` (feature `cudarc`).
///
/// The context is retained while the value, a stream, a kernel, a graph or an event of it exists. Every method makes it
/// current on the calling thread for the time of the call only, so any thread may use any of them, and
/// whatever context was current stays so.
pub struct CudaDriver<L> {
    context: Arc<Context>,
    library: PhantomData<fn() -> L>,
}

impl<L> core::fmt::Debug for CudaDriver<L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("CudaDriver").field(&self.context).finish()
    }
}

impl<L> Clone for CudaDriver<L> {
    fn clone(&self) -> Self {
        Self::on(Arc::clone(&self.context))
    }
}

impl<L> CudaDriver<L> {
    fn on(context: Arc<Context>) -> Self {
        Self { context, library: PhantomData }
    }

    /// The device with this number, counting those visible to the process from 0.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if there is no driver library, no device, or the driver is older than CUDA 11.4;
    /// [`Error::TooLarge`] if there are fewer devices; [`Error::Driver`] if the driver refuses.
    pub fn new(ordinal: usize) -> Result<Self> {
        Ok(Self::on(Arc::new(Context::retain(ordinal)?)))
    }

    /// The device of another library's context, which has to be the device's primary one.
    ///
    /// # Safety
    ///
    /// `context` is a live `CUcontext`.
    ///
    /// # Errors
    ///
    /// Those of [`CudaDriver::new`], and [`Error::Unsupported`] for a context that is not a primary one.
    pub unsafe fn from_raw_context(context: *mut c_void) -> Result<Self> {
        // SAFETY: the caller's promise.
        Ok(Self::on(Arc::new(unsafe { Context::retain_raw(context) }?)))
    }

    /// The primary context, a `CUcontext`.
    pub fn raw_context(&self) -> *mut c_void {
        self.context.raw()
    }

    /// Wraps a stream that another library made; it is not destroyed with the value.
    ///
    /// The null stream (0 and 1, `CU_STREAM_LEGACY`) is a stream like any other here.
    ///
    /// # Safety
    ///
    /// - `stream` is a `CUstream` of this device's primary context, alive until the value is dropped.
    /// - Nobody captures it, or uses it in a captured graph's construction, while this crate writes, reads, allocates or
    ///   frees on it. Launches, fills, copies and replays may be captured by anyone, through another value for the same stream too, if
    ///   the graph is replayed only while the memory that they name exists, and a clone of the [`crate::Device`], which keeps the code
    ///   loaded. (A capture through this value sees to that by itself.)
    /// - 2, `CU_STREAM_PER_THREAD`, is another stream on each thread: the value and all memory bound to it stay on the thread
    ///   that made it.
    pub unsafe fn stream_from_raw(&self, stream: *mut c_void) -> CudaStream {
        // SAFETY: the caller's promise.
        unsafe { CudaStream::from_raw(&self.context, stream, None) }
    }

    /// Bytes of the device's L2 cache: what a benchmark has to exceed to read memory.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn l2_cache_bytes(&self) -> Result<usize> {
        self.context.l2_cache_bytes()
    }

    pub(crate) fn shared_context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Fails for a stream of another device.
    fn expect_mine(&self, stream: &CudaStream) -> Result<()> {
        if self.context.raw() == stream.context().raw() {
            return Ok(());
        }
        Err(Error::OtherStream { what: "a stream of another device" })
    }
}

// SAFETY: D1: cuMemAllocAsync gives memory aligned to 256 bytes, mapped until the cuMemFreeAsync that is enqueued on the
// same stream (or, without pools, until a free behind a wait). D2: one CUstream. D3: `staging`. D4: `kernel`, which
// compares the length. D5: the driver's, per context. D6: cuStreamDestroy, and the wait in `Staging::drop`. The tests of
// tests/fake_cuda.rs show what can be shown without a device.
unsafe impl<L> Driver for CudaDriver<L> {
    type Stream = CudaStream;
    type Kernel = CudaKernel;

    fn properties(&self) -> &DeviceProperties {
        &self.context.properties
    }

    fn create_stream(&self) -> Result<CudaStream> {
        CudaStream::create(&self.context)
    }

    fn allocate(&self, stream: &CudaStream, bytes: usize) -> Result<DeviceAddress> {
        self.expect_mine(stream)?;
        stream.allocate(bytes)
    }

    unsafe fn free(&self, stream: &CudaStream, address: DeviceAddress) {
        // SAFETY: the caller's promise.
        unsafe { stream.free(address) }
    }

    unsafe fn write(&self, stream: &CudaStream, dst: DeviceAddress, src: &[u8]) -> Result<()> {
        self.expect_mine(stream)?;
        // SAFETY: the caller's promise.
        unsafe { stream.write(dst, src) }
    }

    unsafe fn read(&self, stream: &CudaStream, src: DeviceAddress, dst: &mut [u8]) -> Result<()> {
        self.expect_mine(stream)?;
        // SAFETY: the caller's promise.
        unsafe { stream.read(src, dst) }
    }

    unsafe fn fill(
        &self,
        stream: &CudaStream,
        dst: DeviceAddress,
        value: u8,
        bytes: usize,
    ) -> Result<()> {
        self.expect_mine(stream)?;
        let _current = self.context.enter()?;
        // SAFETY: the caller's promise.
        Ok(unsafe { self.context.api.fill(dst.0, value, bytes, stream.as_raw()) }?)
    }

    unsafe fn copy(
        &self,
        stream: &CudaStream,
        dst: DeviceAddress,
        src: DeviceAddress,
        bytes: usize,
    ) -> Result<()> {
        self.expect_mine(stream)?;
        let _current = self.context.enter()?;
        // SAFETY: the caller's promise.
        Ok(unsafe { self.context.api.copy_within_device(dst.0, src.0, bytes, stream.as_raw()) }?)
    }

    fn load(&self, entry: &'static str, ptx: &'static str) -> Result<CudaKernel> {
        CudaKernel::load(&self.context, entry, ptx)
    }

    unsafe fn launch(
        &self,
        stream: &CudaStream,
        kernel: &CudaKernel,
        shape: &LaunchShape,
        params: &[u8],
    ) -> Result<()> {
        self.expect_mine(stream)?;
        // SAFETY: the caller's promise.
        unsafe { kernel.launch(stream, shape, params) }
    }

    fn synchronize(&self, stream: &CudaStream) -> Result<()> {
        self.expect_mine(stream)?;
        stream.synchronize()
    }
}

// SAFETY: G1: `CudaStream::outside_capture` refuses what may not be captured. G2: the driver's promise of graphs
// captured from one stream. G3: `CudaGraph::drop`. G4: streams made here have one value; others have the promise of `stream_from_raw`.
unsafe impl<L> Graphs for CudaDriver<L> {
    type Graph = CudaGraph;

    fn begin_capture(&self, stream: &CudaStream) -> Result<()> {
        self.expect_mine(stream)?;
        stream.begin_capture()
    }

    fn end_capture(&self, stream: &CudaStream) -> Result<CudaGraph> {
        self.expect_mine(stream)?;
        CudaGraph::end_capture(stream)
    }

    unsafe fn replay(&self, stream: &CudaStream, graph: &mut CudaGraph) -> Result<()> {
        self.expect_mine(stream)?;
        // SAFETY: the caller's promise.
        unsafe { graph.replay(stream) }
    }
}

impl<L> Events for CudaDriver<L> {
    type Event = CudaEvent;

    fn record(&self, stream: &CudaStream) -> Result<CudaEvent> {
        self.expect_mine(stream)?;
        CudaEvent::record(stream)
    }

    fn milliseconds_between(&self, start: &CudaEvent, end: &CudaEvent) -> Result<f32> {
        start.milliseconds_until(end)
    }
}
