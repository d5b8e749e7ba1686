//! A driver that does nothing before it has to, as a device that is far behind the host.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pagedptx::driver::Graphs;
use pagedptx::{DeviceAddress, DeviceProperties, Driver, Error, LaunchShape, Result};

/// Queues copies, fills, launches and frees of another driver, and runs them when the host waits for the stream: in a
/// read, in `synchronize`, or when the stream is dropped.
pub struct Late<D: Driver> {
    inner: Arc<D>,
    /// A driver that breaks promise D2: its frees do not wait. Shows that the tests would notice.
    frees_at_once: bool,
    /// What happens elsewhere right after the next allocation or read.
    interruption: Mutex<Option<Interruption>>,
}

type Interruption = Box<dyn FnOnce() + Send>;

impl<D: Driver> Late<D> {
    /// A late `inner`.
    pub fn new(inner: D) -> Self {
        Self { inner: Arc::new(inner), frees_at_once: false, interruption: Mutex::default() }
    }

    /// The same with frees that overtake the work before them.
    pub fn freeing_at_once(inner: D) -> Self {
        Self { frees_at_once: true, ..Self::new(inner) }
    }

    /// Has this happen at the end of the next allocation or read.
    pub fn interrupt(&self, by: impl FnOnce() + Send + 'static) {
        *self.interruption.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(by));
    }

    fn be_interrupted(&self) {
        let interruption = self.interruption.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(by) = interruption {
            by();
        }
    }
}

/// A stream of [`Late`].
pub struct LateStream<D: Driver> {
    inner: Arc<D>,
    raw: D::Stream,
    state: Mutex<State<D>>,
}

struct State<D: Driver> {
    queue: VecDeque<Work<D>>,
    /// What is being captured.
    recording: Option<Vec<Work<D>>>,
    /// What went wrong when queued work ran.
    fault: Option<Error>,
}

enum Work<D: Driver> {
    Write { dst: DeviceAddress, bytes: Arc<[u8]> },
    Fill { dst: DeviceAddress, value: u8, bytes: usize },
    Copy { dst: DeviceAddress, src: DeviceAddress, bytes: usize },
    Free { address: DeviceAddress },
    Launch { kernel: Arc<D::Kernel>, shape: LaunchShape, params: Arc<[u8]> },
}

impl<D: Driver> Clone for Work<D> {
    fn clone(&self) -> Self {
        match self {
            Self::Write { dst, bytes } => Self::Write { dst: *dst, bytes: Arc::clone(bytes) },
            Self::Fill { dst, value, bytes } => {
                Self::Fill { dst: *dst, value: *value, bytes: *bytes }
            }
            Self::Copy { dst, src, bytes } => Self::Copy { dst: *dst, src: *src, bytes: *bytes },
            Self::Free { address } => Self::Free { address: *address },
            Self::Launch { kernel, shape, params } => Self::Launch {
                kernel: Arc::clone(kernel),
                shape: *shape,
                params: Arc::clone(params),
            },
        }
    }
}

impl<D: Driver> LateStream<D> {
    fn state(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, work: Work<D>) -> Result<()> {
        let mut state = self.state();
        if let Some(fault) = &state.fault {
            return Err(fault.clone());
        }
        match &mut state.recording {
            Some(recording) => recording.push(work),
            None => state.queue.push_back(work),
        }
        Ok(())
    }

    /// Fails while the stream is being captured.
    fn outside_capture(&self, operation: &'static str) -> Result<()> {
        if self.state().recording.is_some() {
            return Err(Error::Capturing { operation });
        }
        Ok(())
    }

    /// Runs all that is queued, up to the first fault.
    fn catch_up(&self) -> Result<()> {
        let mut state = self.state();
        while state.fault.is_none()
            && let Some(work) = state.queue.pop_front()
        {
            // SAFETY: what the caller of the queued call promised, still holds: memory is freed by later work only.
            state.fault = unsafe { self.run(work) }.err();
        }
        state.fault.clone().map_or(Ok(()), Err)
    }

    /// # Safety
    ///
    /// That of the call which queued the work.
    unsafe fn run(&self, work: Work<D>) -> Result<()> {
        // SAFETY: the caller's promise, for each.
        unsafe {
            match work {
                Work::Write { dst, bytes } => self.inner.write(&self.raw, dst, &bytes),
                Work::Fill { dst, value, bytes } => self.inner.fill(&self.raw, dst, value, bytes),
                Work::Copy { dst, src, bytes } => self.inner.copy(&self.raw, dst, src, bytes),
                Work::Free { address } => {
                    self.inner.free(&self.raw, address);
                    Ok(())
                }
                Work::Launch { kernel, shape, params } => {
                    self.inner.launch(&self.raw, &kernel, &shape, &params)
                }
            }
        }
    }
}

impl<D: Driver> Drop for LateStream<D> {
    fn drop(&mut self) {
        let _ = self.catch_up();
    }
}

// SAFETY: D1, D5: those of the inner driver. D2: a queue, run in order (unless the frees are made to overtake it). D3, D4: bytes
// are copied into the queue. D6: `LateStream::drop`. D7: a stream knows its driver.
unsafe impl<D: Driver> Driver for Late<D> {
    type Stream = LateStream<D>;
    type Kernel = Arc<D::Kernel>;

    fn properties(&self) -> &DeviceProperties {
        self.inner.properties()
    }

    fn create_stream(&self) -> Result<LateStream<D>> {
        let raw = self.inner.create_stream()?;
        let state = State { queue: VecDeque::new(), recording: None, fault: None };
        Ok(LateStream { inner: Arc::clone(&self.inner), raw, state: Mutex::new(state) })
    }

    fn allocate(&self, stream: &LateStream<D>, bytes: usize) -> Result<DeviceAddress> {
        stream.outside_capture("allocation")?;
        let address = self.inner.allocate(&stream.raw, bytes)?;
        self.be_interrupted();
        Ok(address)
    }

    unsafe fn free(&self, stream: &LateStream<D>, address: DeviceAddress) {
        assert!(stream.state().recording.is_none(), "freed while capturing (G1)");
        if self.frees_at_once {
            // SAFETY: none: this is the broken driver. The inner one reports what comes of it.
            unsafe { self.inner.free(&stream.raw, address) }
        } else {
            let _ = stream.enqueue(Work::Free { address });
        }
    }

    unsafe fn write(&self, stream: &LateStream<D>, dst: DeviceAddress, src: &[u8]) -> Result<()> {
        stream.outside_capture("a write")?;
        stream.enqueue(Work::Write { dst, bytes: src.into() })
    }

    unsafe fn read(
        &self,
        stream: &LateStream<D>,
        src: DeviceAddress,
        dst: &mut [u8],
    ) -> Result<()> {
        stream.outside_capture("a read")?;
        stream.catch_up()?;
        // SAFETY: the caller's promise.
        unsafe { self.inner.read(&stream.raw, src, dst) }?;
        self.be_interrupted();
        Ok(())
    }

    unsafe fn fill(
        &self,
        stream: &LateStream<D>,
        dst: DeviceAddress,
        value: u8,
        bytes: usize,
    ) -> Result<()> {
        stream.enqueue(Work::Fill { dst, value, bytes })
    }

    unsafe fn copy(
        &self,
        stream: &LateStream<D>,
        dst: DeviceAddress,
        src: DeviceAddress,
        bytes: usize,
    ) -> Result<()> {
        stream.enqueue(Work::Copy { dst, src, bytes })
    }

    fn load(&self, entry: &'static str, ptx: &'static str) -> Result<Arc<D::Kernel>> {
        self.inner.load(entry, ptx).map(Arc::new)
    }

    unsafe fn launch(
        &self,
        stream: &LateStream<D>,
        kernel: &Arc<D::Kernel>,
        shape: &LaunchShape,
        params: &[u8],
    ) -> Result<()> {
        let kernel = Arc::clone(kernel);
        stream.enqueue(Work::Launch { kernel, shape: *shape, params: params.into() })
    }

    fn synchronize(&self, stream: &LateStream<D>) -> Result<()> {
        stream.outside_capture("a wait")?;
        stream.catch_up()
    }
}

/// Captured work of a [`LateStream`].
pub struct LateGraph<D: Driver>(Vec<Work<D>>);

// SAFETY: G1: `recording` takes all work, and the calls that may not be captured ask `outside_capture`. G2: the recorded calls
// are enqueued again. G3: the queue owns what it needs. G4: a stream has one value.
unsafe impl<D: Driver> Graphs for Late<D> {
    type Graph = LateGraph<D>;

    fn begin_capture(&self, stream: &LateStream<D>) -> Result<()> {
        stream.outside_capture("a capture")?;
        stream.state().recording = Some(Vec::new());
        Ok(())
    }

    fn end_capture(&self, stream: &LateStream<D>) -> Result<LateGraph<D>> {
        let recording = stream.state().recording.take();
        Ok(LateGraph(recording.expect("end_capture without begin_capture")))
    }

    unsafe fn replay(&self, stream: &LateStream<D>, graph: &mut LateGraph<D>) -> Result<()> {
        graph.0.iter().try_for_each(|work| stream.enqueue(work.clone()))
    }
}
