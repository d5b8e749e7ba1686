//! Work captured once and replayed: a decode step without its host time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::device::Stream;
use crate::driver::{Driver, Graphs};
use crate::error::{Error, Result};
use crate::types::DeviceAddress;

/// A recorded sequence of launches, fills and copies on one stream.
///
/// A graph holds device addresses, so the memory behind them has to stay, whatever becomes of the buffers, pools, tables
/// and plans that it was captured from:
///
/// - H1. An allocation that existed on the stream when the capture ended is not freed while the graph exists; dropping
///   its buffer meanwhile postpones the free until the graph is dropped. (A capture cannot allocate, so
///   no other allocation can be named by the graph; and forgetting a graph leaks.)
/// - H2. The contents that become addresses are valid at every replay: block tables and slot mappings are written by their
///   `set` only, after its checks, against the space that the capture compared with the pool; those of
///   [`crate::DeviceTables`] may be anything, the kernel clamps them.
/// - H3. Sizes that a launch was checked with are part of the graph, and no buffer ever changes its size.
///
/// So buffers, tables and mappings stay free to be used and changed between replays: that is how sequences grow.
///
/// # Example
///
/// A step that appends one token per sequence and attends to all of them, replayed while lengths grow:
///
/// ```
/// use pagedptx::driver::Graphs;
/// use pagedptx::{BlockTables, Buffer, DecodeArgs, DecodePlan, KvPool, PoolShape, Result, Sequence, SlotMapping, Stream};
///
/// fn generate<D: Graphs>(stream: &Stream<D>, shape: PoolShape, num_q_heads: usize) -> Result<()> {
///     let mut pool = KvPool::<_, f32>::new(stream, shape)?;
///     let mut plan = DecodePlan::new(stream, shape, num_q_heads, 1, shape.num_blocks)?;
///     let mut tables = BlockTables::new(stream, shape, 1, shape.num_blocks)?;
///     let mut slots = SlotMapping::new(stream, shape, 1)?;
///     let mut q = Buffer::<_, f32>::zeroed(stream, num_q_heads * shape.head_dim)?;
///     let mut out = Buffer::<_, f32>::zeroed(stream, num_q_heads * shape.head_dim)?;
///     let kv_new = Buffer::<_, f32>::zeroed(stream, shape.num_kv_heads * shape.head_dim)?;
///     let blocks: Vec<u32> = (0..shape.num_blocks as u32).collect();
///     tables.set([Sequence { blocks: &blocks, len: 0 }])?;
///     slots.set(&[-1])?;
///
///     let mut step = stream.capture(|| {
///         pagedptx::append(&mut pool, &slots, &kv_new, &kv_new)?;
///         let args = DecodeArgs { q: &q, out: &mut out, lse: None, sm_scale: 0.125 };
///         pagedptx::decode(&mut plan, &pool, &tables, args)
///     })?;
///     for len in 1..=100 {
///         q.write(&vec![0.5; num_q_heads * shape.head_dim])?;
///         slots.set(&[i64::from(len) - 1])?;
///         tables.set([Sequence { blocks: &blocks, len }])?;
///         step.replay()?;
///         let _attended = out.to_vec()?;
///     }
///     Ok(())
/// }
/// ```
pub struct Graph<'s, D: Graphs> {
    stream: &'s Stream<D>,
    /// Taken by `drop` only.
    recorded: Option<D::Graph>,
    /// Allocations with a smaller serial number existed when the capture ended.
    serial: u64,
}

debug!(['s, D: Graphs] Graph<'s, D> { serial });

impl<D: Driver> Stream<D> {
    /// Records the work that `record` enqueues on this stream, instead of running it.
    ///
    /// What may be recorded: [`crate::decode()`], [`crate::decode_checked()`], [`crate::append()`], [`crate::Buffer::fill_bytes`],
    /// [`crate::KvPool::copy_blocks`]. What makes, writes or reads a buffer, or waits, fails while the stream records, also
    /// on other threads. Work that other threads enqueue on this stream meanwhile is recorded too.
    ///
    /// A captured operation keeps the number of sequences and tokens that it had: fill tables up to the
    /// number wanted with empty sequences, mappings with −1. With fewer later, [`crate::BlockTables::set`] and
    /// [`crate::SlotMapping::set`] pad what is left the same way; with more, those beyond are not computed.
    ///
    /// # Errors
    ///
    /// [`Error::Capturing`] if the stream is recording already; those of `record`, after which nothing is left of
    /// the recording; and those of the driver.
    pub fn capture(&self, record: impl FnOnce() -> Result<()>) -> Result<Graph<'_, D>>
    where
        D: Graphs,
    {
        self.keeper().begin_capture()?;
        // From here on dropping `capture` ends it and lets postponed frees go, on a panic in `record` as well.
        let mut capture = Capture { stream: self, recording: false, serial: None };
        self.driver().begin_capture(self.raw())?;
        capture.recording = true;
        record()?;
        capture.recording = false;
        let recorded = self.driver().end_capture(self.raw())?;
        let serial = self.keeper().next_serial();
        capture.serial = Some(serial);
        drop(capture);
        Ok(Graph { stream: self, recorded: Some(recorded), serial })
    }
}

impl<D: Graphs> Graph<'_, D> {
    /// Enqueues the recorded work on its stream, behind everything enqueued there so far.
    ///
    /// # Errors
    ///
    /// [`Error::Capturing`] if the stream is recording, and those of the driver.
    pub fn replay(&mut self) -> Result<()> {
        let stream = self.stream;
        let Some(recorded) = &mut self.recorded else { return Ok(()) };
        let _outside = stream.keeper().outside_capture("a replay")?;
        // SAFETY: H1 keeps the memory that the recorded calls name, H2 and H3 their conditions on contents and sizes
        // (tests of tests/soundness.rs); the stream is the one captured.
        unsafe { stream.driver().replay(stream.raw(), recorded) }
    }

    /// The stream that was captured.
    pub fn stream(&self) -> &Stream<D> {
        self.stream
    }
}

impl<D: Graphs> Drop for Graph<'_, D> {
    fn drop(&mut self) {
        // First the graph, then what it kept: promise G3 lets its last replay finish.
        drop(self.recorded.take());
        let mut state = self.stream.keeper().lock();
        if let Some(index) = state.graphs.iter().position(|serial| *serial == self.serial) {
            state.graphs.swap_remove(index);
        }
        self.stream.free_postponed(&mut state);
    }
}

/// A capture under way.
struct Capture<'s, D: Graphs> {
    stream: &'s Stream<D>,
    recording: bool,
    /// The graph's, if there is one.
    serial: Option<u64>,
}

impl<D: Graphs> Drop for Capture<'_, D> {
    fn drop(&mut self) {
        if self.recording {
            // An error, or the unwinding of a panic, ends it: what was recorded is given up.
            drop(self.stream.driver().end_capture(self.stream.raw()));
        }
        let mut state = self.stream.keeper().lock();
        state.graphs.extend(self.serial);
        state.capturing = false;
        self.stream.free_postponed(&mut state);
    }
}

/// Which allocations of a stream graphs still need (H1).
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    /// Allocations so far.
    serial: AtomicU64,
    state: Mutex<KeeperState>,
}

#[derive(Debug, Default)]
pub(crate) struct KeeperState {
    capturing: bool,
    /// Of each graph that exists, the serial number that allocations had reached when it was captured.
    graphs: Vec<u64>,
    /// Allocations that were given up while a graph needed them.
    postponed: Vec<(u64, DeviceAddress)>,
}

impl KeeperState {
    fn needs(&self, serial: u64) -> bool {
        self.capturing || self.graphs.iter().any(|captured| serial < *captured)
    }
}

impl Keeper {
    /// The number of an allocation just made.
    pub(crate) fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::SeqCst)
    }

    /// No method leaves the state half changed, so a panic elsewhere does not matter.
    fn lock(&self) -> MutexGuard<'_, KeeperState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks captures out, and fails if one is under way.
    pub(crate) fn outside_capture(
        &self,
        operation: &'static str,
    ) -> Result<MutexGuard<'_, KeeperState>> {
        let state = self.lock();
        if state.capturing {
            return Err(Error::Capturing { operation });
        }
        Ok(state)
    }

    fn begin_capture(&self) -> Result<()> {
        self.outside_capture("a capture")?.capturing = true;
        Ok(())
    }
}

impl<D: Driver> Stream<D> {
    /// Frees behind the stream's work, or, while a graph may name the allocation, later.
    ///
    /// # Safety
    ///
    /// `address` was allocated on this stream, `serial` taken right after, and both are given up here.
    pub(crate) unsafe fn release(&self, address: DeviceAddress, serial: u64) {
        // The lock is held, so that no capture starts in between.
        let mut state = self.keeper().lock();
        if state.needs(serial) {
            state.postponed.push((serial, address));
        } else {
            // SAFETY: the caller's promise, and no graph names it.
            unsafe { self.driver().free(self.raw(), address) }
        }
    }

    /// Frees what no graph needs any more.
    fn free_postponed(&self, state: &mut KeeperState) {
        let mut postponed = core::mem::take(&mut state.postponed);
        postponed.retain(|&(serial, address)| {
            let needed = state.needs(serial);
            if !needed {
                // SAFETY: `release` was promised that it is an allocation of this stream, given up; no graph needs it.
                unsafe { self.driver().free(self.raw(), address) }
            }
            needed
        });
        state.postponed = postponed;
    }
}
