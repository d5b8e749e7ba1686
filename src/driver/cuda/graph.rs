//! Captured graphs and events.

use core::ffi::c_uint;
use core::ptr;
use std::sync::Arc;

use crate::driver::cuda::context::Context;
use crate::driver::cuda::stream::CudaStream;
use crate::driver::cuda::sys::Handle;
use crate::error::Result;

/// `CU_EVENT_DEFAULT`: with a time stamp.
const WITH_TIMING: c_uint = 0;

/// An executable graph, `CUgraphExec`.
#[derive(Debug)]
pub struct CudaGraph {
    context: Arc<Context>,
    exec: Handle,
}

// SAFETY: a graph may be used from any thread, by one at a time: every use takes `&mut`.
unsafe impl Send for CudaGraph {}
// SAFETY: nothing can be done with a shared reference.
unsafe impl Sync for CudaGraph {}

impl CudaGraph {
    /// Ends the capture of `stream` and makes what it recorded executable.
    pub(crate) fn end_capture(stream: &CudaStream) -> Result<Self> {
        let graph = stream.end_capture()?;
        let context = stream.context();
        let _current = context.enter()?;
        let mut exec = ptr::null_mut();
        // SAFETY: a valid pointer and the graph that the capture gave, which is destroyed once and used no more.
        unsafe {
            let result = context.api.instantiate_graph(&mut exec, graph, 0);
            let _ = context.api.destroy_graph(graph);
            result?;
        }
        Ok(Self { context: Arc::clone(context), exec })
    }

    /// # Safety
    ///
    /// That of [`crate::driver::Graphs::replay`].
    pub(crate) unsafe fn replay(&mut self, stream: &CudaStream) -> Result<()> {
        let _current = self.context.enter()?;
        // SAFETY: a live graph, in the hands of this thread alone; the rest is the caller's promise.
        Ok(unsafe { self.context.api.launch_graph(self.exec, stream.as_raw()) }?)
    }
}

impl Drop for CudaGraph {
    /// A replay under way ends as it would have: the driver frees its graph behind it (CUDA driver API, "Graph Management",
    /// `cuGraphExecDestroy`).
    fn drop(&mut self) {
        let Ok(_current) = self.context.enter() else { return };
        // SAFETY: a live graph that is used no more.
        let _ = unsafe { self.context.api.destroy_graph_exec(self.exec) };
    }
}

/// A point in the work of a stream, with the time at which it was reached.
#[derive(Debug)]
pub struct CudaEvent {
    context: Arc<Context>,
    raw: Handle,
}

// SAFETY: events may be used from any thread.
unsafe impl Send for CudaEvent {}
// SAFETY: as above.
unsafe impl Sync for CudaEvent {}

impl CudaEvent {
    pub(crate) fn record(stream: &CudaStream) -> Result<Self> {
        let context = Arc::clone(stream.context());
        let event = {
            let _current = context.enter()?;
            let mut raw = ptr::null_mut();
            // SAFETY: a valid pointer.
            unsafe { context.api.create_event(&mut raw, WITH_TIMING) }?;
            Self { context: Arc::clone(&context), raw }
        };
        let _current = context.enter()?;
        // SAFETY: a live event and a live stream of one context.
        unsafe { context.api.record_event(event.raw, stream.as_raw()) }?;
        Ok(event)
    }

    pub(crate) fn milliseconds_until(&self, end: &Self) -> Result<f32> {
        let _current = self.context.enter()?;
        let mut milliseconds = 0.0;
        // SAFETY: live events and a valid pointer.
        unsafe {
            self.context.api.synchronize_event(end.raw)?;
            self.context.api.elapsed(&mut milliseconds, self.raw, end.raw)?;
        }
        Ok(milliseconds)
    }
}

impl Drop for CudaEvent {
    fn drop(&mut self) {
        let Ok(_current) = self.context.enter() else { return };
        // SAFETY: a live event, used no more; the driver keeps it until it has passed.
        let _ = unsafe { self.context.api.destroy_event(self.raw) };
    }
}
