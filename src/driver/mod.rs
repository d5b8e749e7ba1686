//! The one seam between the crate and a device: allocate, copy, load PTX, launch.
//!
//! Three drivers stand behind [`Driver`]: `cust` and `cudarc` (features of those names) and, in
//! tests, a CPU emulator of PTX. A driver is asked for a stream and every other call names
//! one; work enqueued on a stream runs in the order of the calls.

use crate::error::Result;
use crate::types::DeviceAddress;

#[cfg(any(feature = "cust", feature = "cudarc"))]
mod cuda;
#[cfg(feature = "cudarc")]
mod cudarc;
#[cfg(feature = "cust")]
mod cust;

#[cfg(any(feature = "cust", feature = "cudarc"))]
pub use cuda::{CudaDriver, CudaEvent, CudaGraph, CudaKernel, CudaStream};
#[cfg(feature = "cudarc")]
pub use cudarc::{Cudarc, CudarcDriver};
#[cfg(feature = "cust")]
pub use cust::{Cust, CustDriver};

/// What a device can do, as far as the crate asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceProperties {
    /// Name of the device, as its driver gives it.
    pub name: String,
    /// Compute capability, major and minor; `(9, 0)` for sm_90.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub num_multiprocessors: u32,
    /// Shared memory that one CTA may ask for, the opt-in part included, in bytes.
    pub shared_bytes_per_cta: u32,
}

/// Shape of one launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchShape {
    /// CTAs in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a CTA in x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a CTA in bytes, beyond what the kernel declares.
    pub dynamic_shared_bytes: u32,
    /// Whether CTAs may start before the previous work of the stream has finished (programmatic dependent launch), where
    /// the device and its driver can. Only for kernels that wait for it (`griddepcontrol.wait`) before they touch memory
    /// which that work writes, and before they write memory which it touches.
    pub overlaps_previous: bool,
}

/// A device that runs PTX.
///
/// # Safety
///
/// The safe API above rests on what an implementation promises:
///
/// - D1. `allocate` returns at least `bytes` bytes aligned to 16 that no other live allocation
///   overlaps, and that stay mapped until a `free` enqueued on the same stream has run.
/// - D2. Work of one stream runs in the order in which it was enqueued: copies, launches, frees.
/// - D3. `write` has read all of `src`, and `read` has written all of `dst`, when it returns.
/// - D4. `launch` passes exactly the bytes of `params` as the kernel's one by-value parameter and has
///   copied them when it returns.
/// - D5. A kernel that faults makes later calls return an error; it never corrupts host memory.
/// - D6. Dropping a `Stream` lets the work already enqueued on it finish.
/// - D7. A stream of another value of the driver's type is as good as its own, or an error.
pub unsafe trait Driver {
    /// An order in which work runs.
    type Stream;
    /// A loaded kernel (one PTX module with one entry).
    type Kernel;

    /// What the device can do.
    fn properties(&self) -> &DeviceProperties;

    /// Makes a stream.
    fn create_stream(&self) -> Result<Self::Stream>;

    /// Allocates `bytes` > 0 bytes, aligned to at least 16, contents undefined; ordered on `stream`.
    fn allocate(&self, stream: &Self::Stream, bytes: usize) -> Result<DeviceAddress>;

    /// Frees an allocation, ordered behind everything enqueued on `stream` so far.
    ///
    /// # Safety
    ///
    /// `address` came from `allocate` on this stream and is not freed twice or used in later work.
    unsafe fn free(&self, stream: &Self::Stream, address: DeviceAddress);

    /// Copies host bytes to the device.
    ///
    /// # Safety
    ///
    /// `dst .. dst + src.len()` lies in one live allocation of this stream.
    unsafe fn write(&self, stream: &Self::Stream, dst: DeviceAddress, src: &[u8]) -> Result<()>;

    /// Copies device bytes to the host, after everything enqueued on `stream` so far.
    ///
    /// # Safety
    ///
    /// `src .. src + dst.len()` lies in one live allocation of this stream.
    unsafe fn read(&self, stream: &Self::Stream, src: DeviceAddress, dst: &mut [u8]) -> Result<()>;

    /// Sets every one of `bytes` bytes to `value`.
    ///
    /// # Safety
    ///
    /// `dst .. dst + bytes` lies in one live allocation of this stream.
    unsafe fn fill(
        &self,
        stream: &Self::Stream,
        dst: DeviceAddress,
        value: u8,
        bytes: usize,
    ) -> Result<()>;

    /// Copies `bytes` bytes within the device; the two ranges do not overlap.
    ///
    /// # Safety
    ///
    /// Both ranges lie in live allocations of this stream and do not overlap.
    unsafe fn copy(
        &self,
        stream: &Self::Stream,
        dst: DeviceAddress,
        src: DeviceAddress,
        bytes: usize,
    ) -> Result<()>;

    /// Loads the one entry `entry` of the PTX text `ptx`; an error carries the assembler's log.
    fn load(&self, entry: &'static str, ptx: &'static str) -> Result<Self::Kernel>;

    /// Enqueues a kernel with one by-value parameter, the bytes `params`.
    ///
    /// # Safety
    ///
    /// The kernel, run with these parameters on this shape, touches live allocations of this stream
    /// only.
    unsafe fn launch(
        &self,
        stream: &Self::Stream,
        kernel: &Self::Kernel,
        shape: &LaunchShape,
        params: &[u8],
    ) -> Result<()>;

    /// Waits until everything enqueued on `stream` has run.
    fn synchronize(&self, stream: &Self::Stream) -> Result<()>;
}

/// A driver whose streams can be captured: launches are recorded once and replayed as one.
///
/// # Safety
///
/// - G1. Between `begin_capture` and `end_capture`, launches, fills and copies of that stream are recorded and do not
///   run. Allocations, writes, reads and waits fail and enqueue nothing; a `free` leaves the memory allocated (streams put theirs off
///   until the capture has ended).
/// - G2. `replay` enqueues what was recorded, in that order, with the addresses, shapes and parameters it had.
/// - G3. Dropping a graph lets replays already enqueued finish.
/// - G4. If several values of `Stream` stand for one order of work, a graph recorded through one of them names memory of the others only
///   while that exists.
pub unsafe trait Graphs: Driver {
    /// Recorded work.
    type Graph;

    /// Starts recording what is enqueued on `stream`.
    fn begin_capture(&self, stream: &Self::Stream) -> Result<()>;

    /// Stops recording; after an error nothing is being recorded either.
    fn end_capture(&self, stream: &Self::Stream) -> Result<Self::Graph>;

    /// Enqueues recorded work on the stream that it was recorded from.
    ///
    /// # Safety
    ///
    /// The conditions of every recorded call hold (again).
    unsafe fn replay(&self, stream: &Self::Stream, graph: &mut Self::Graph) -> Result<()>;
}

/// A driver that measures time on the device.
pub trait Events: Driver {
    /// A point in the work of a stream.
    type Event;

    /// Marks the point behind everything enqueued on `stream` so far.
    fn record(&self, stream: &Self::Stream) -> Result<Self::Event>;

    /// Waits for `end` and returns the time from `start`, in milliseconds.
    fn milliseconds_between(&self, start: &Self::Event, end: &Self::Event) -> Result<f32>;
}
