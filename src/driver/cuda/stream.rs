//! Streams, made here or by another library, and the memory work that is enqueued on them.

use core::ffi::{c_int, c_uint};
use core::ptr;
use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::driver::cuda::context::Context;
use crate::driver::cuda::staging::{MAX_CHUNK, Staging};
use crate::driver::cuda::sys::{Failure, Handle, OUT_OF_MEMORY};
use crate::error::{Error, Result};
use crate::types::DeviceAddress;

/// `CU_STREAM_NON_BLOCKING`: no implicit order with the null stream.
const NON_BLOCKING: c_uint = 1;

/// `CU_STREAM_CAPTURE_MODE_RELAXED`: loading a kernel while capturing is allowed. What may not be captured
/// is refused here, stream by stream.
const CAPTURE_RELAXED: c_int = 2;

/// A CUDA stream.
///
/// - R1. `raw` is a live stream of `context` while the value exists: made here, or promised to
///   `from_raw`, or kept alive by `owner`.
/// - R2. While `state.capturing`, and on a stream that somebody else captures, nothing is enqueued whose effect the host
///   waits for, nor anything that names host memory.
#[derive(Debug)]
pub struct CudaStream {
    context: Arc<Context>,
    raw: Handle,
    /// What keeps a stream of another library alive; none for a stream made here.
    owner: Option<Owner>,
    state: Mutex<State>,
}

/// Whose stream it is, if not ours.
pub(crate) type Owner = Option<Arc<dyn Any + Send + Sync>>;

#[derive(Default)]
struct State {
    /// Whether `begin_capture` was called without its `end_capture`.
    capturing: bool,
    staging: Option<Staging>,
}

// SAFETY: the driver's stream functions may be called from any thread (test `any_thread`); the legacy and the
// ordinary streams are the same stream on every thread, and `from_raw` has the caller promise as much of its handle.
unsafe impl Send for CudaStream {}
// SAFETY: as above, and `state` is behind a lock.
unsafe impl Sync for CudaStream {}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("State").field("capturing", &self.capturing).finish_non_exhaustive()
    }
}

impl CudaStream {
    pub(crate) fn create(context: &Arc<Context>) -> Result<Self> {
        let _current = context.enter()?;
        let mut raw = ptr::null_mut();
        // SAFETY: a valid pointer.
        unsafe { context.api.create_stream(&mut raw, NON_BLOCKING) }?;
        Ok(Self { context: Arc::clone(context), raw, owner: None, state: Mutex::default() })
    }

    /// Wraps a stream of another library.
    ///
    /// # Safety
    ///
    /// That of the drivers' `stream_from_raw`; `owner`, if any, keeps the stream alive.
    pub(crate) unsafe fn from_raw(context: &Arc<Context>, raw: Handle, owner: Owner) -> Self {
        let context = Arc::clone(context);
        Self { context, raw, owner: Some(owner), state: Mutex::default() }
    }

    /// The `CUstream`, for another library to enqueue work on. Work so enqueued runs in order with ours. A stream made here no other
    /// library may capture: that would not be noticed, as it is of a stream of theirs.
    pub fn as_raw(&self) -> *mut core::ffi::c_void {
        self.raw
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Locks out captures, and fails if one is under way.
    fn outside_capture(&self, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        let mut foreign: c_int = 0;
        if self.owner.is_some() {
            // SAFETY: R1 and a valid pointer.
            unsafe { self.context.api.is_capturing(self.raw, &mut foreign) }?;
        }
        if state.capturing || foreign != 0 {
            return Err(Error::Capturing { operation });
        }
        Ok(state)
    }

    /// A panic while the lock was held left at worst a part of the staging ring unused.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn allocate(&self, bytes: usize) -> Result<DeviceAddress> {
        let Context { api, has_pools, .. } = *self.context;
        let _current = self.context.enter()?;
        let _state = self.outside_capture("allocation")?;
        let mut address = 0;
        // SAFETY: a valid pointer, and R1.
        let result = unsafe {
            if has_pools {
                api.allocate_async(&mut address, bytes, self.raw)
            } else {
                api.allocate(&mut address, bytes)
            }
        };
        match result {
            Ok(()) => Ok(DeviceAddress(address)),
            Err(Failure { code: OUT_OF_MEMORY, .. }) => Err(Error::OutOfMemory { bytes }),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Frees behind all work so far. Where that cannot be promised (a failed call, a capture), the memory is left
    /// allocated: a leak is sound.
    ///
    /// # Safety
    ///
    /// That of [`crate::Driver::free`].
    pub(crate) unsafe fn free(&self, DeviceAddress(address): DeviceAddress) {
        let Context { api, has_pools, .. } = *self.context;
        let Ok(_current) = self.context.enter() else { return };
        let Ok(_state) = self.outside_capture("free") else { return };
        // SAFETY: the caller's promise and R1. Without pools the memory is not returned before the stream has run dry,
        // which keeps D1 and D2 at the cost of a wait.
        let _ = unsafe {
            if has_pools {
                api.free_async(address, self.raw)
            } else {
                api.synchronize_stream(self.raw).and_then(|()| api.free(address))
            }
        };
    }

    /// # Safety
    ///
    /// That of [`crate::Driver::write`].
    pub(crate) unsafe fn write(&self, DeviceAddress(dst): DeviceAddress, src: &[u8]) -> Result<()> {
        self.transfer("a write", |staging| {
            for (index, chunk) in src.chunks(MAX_CHUNK).enumerate() {
                let dst = dst + (index * MAX_CHUNK) as u64;
                // SAFETY: the caller's promise; `transfer` made the context current, and forgets the ring on an error.
                unsafe { staging.send(self.raw, dst, chunk) }?;
            }
            Ok(())
        })
    }

    /// # Safety
    ///
    /// That of [`crate::Driver::read`].
    pub(crate) unsafe fn read(
        &self,
        DeviceAddress(src): DeviceAddress,
        dst: &mut [u8],
    ) -> Result<()> {
        self.transfer("a read", |staging| {
            for (index, chunk) in dst.chunks_mut(MAX_CHUNK).enumerate() {
                let src = src + (index * MAX_CHUNK) as u64;
                // SAFETY: the caller's promise; `transfer` made the context current, and forgets the ring on an error.
                unsafe { staging.receive(self.raw, src, chunk) }?;
            }
            Ok(())
        })
    }

    /// Runs copies through the staging ring, which is made for the first of them.
    fn transfer(
        &self,
        operation: &'static str,
        copies: impl FnOnce(&mut Staging) -> Result<(), Failure>,
    ) -> Result<()> {
        let _current = self.context.enter()?;
        let mut state = self.outside_capture(operation)?;
        let mut staging = match state.staging.take() {
            Some(staging) => staging,
            None => Staging::new(self.context.api)?,
        };
        match copies(&mut staging) {
            Ok(()) => state.staging = Some(staging),
            Err(failure) => {
                // A copy may still be under way in it (G2).
                core::mem::forget(staging);
                return Err(failure.into());
            }
        }
        Ok(())
    }

    pub(crate) fn synchronize(&self) -> Result<()> {
        let _current = self.context.enter()?;
        let _state = self.outside_capture("a wait")?;
        // SAFETY: R1.
        Ok(unsafe { self.context.api.synchronize_stream(self.raw) }?)
    }

    pub(crate) fn begin_capture(&self) -> Result<()> {
        let _current = self.context.enter()?;
        let mut state = self.outside_capture("a capture")?;
        // SAFETY: R1.
        unsafe { self.context.api.begin_capture(self.raw, CAPTURE_RELAXED) }?;
        state.capturing = true;
        Ok(())
    }

    /// Ends the capture and returns the `CUgraph`.
    pub(crate) fn end_capture(&self) -> Result<Handle> {
        let _current = self.context.enter()?;
        let mut state = self.lock();
        let mut graph = ptr::null_mut();
        // SAFETY: R1 and a valid pointer.
        let result = unsafe { self.context.api.end_capture(self.raw, &mut graph) };
        state.capturing = false;
        result?;
        Ok(graph)
    }
}

impl Drop for CudaStream {
    fn drop(&mut self) {
        // Without its context current nothing can be given back; all of it stays with the context.
        let Ok(_current) = self.context.enter() else {
            core::mem::forget(self.lock().staging.take());
            self.context.leave_running();
            return;
        };
        drop(self.lock().staging.take());
        let records = self.outside_capture("the end of a stream").is_err();
        // SAFETY: R1, and whether somebody records was just asked.
        unsafe { self.context.leave_stream(self.raw, records) };
        if self.owner.is_none() {
            // SAFETY: R1; the driver lets the work enqueued finish (D6).
            let _ = unsafe { self.context.api.destroy_stream(self.raw) };
        }
    }
}
