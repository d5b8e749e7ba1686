//! Asynchronous use that safe code can express, on a driver that runs everything as late as it may ([`late::Late`]) over the
//! emulator, to which memory freed too early is a finding. What the types forbid is in tests/compile_fail/programs/.

mod any_order;
mod late;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use half::f16;
use late::Late;
#[cfg(any(feature = "cust", feature = "cudarc"))]
use pagedptx::driver::CudaDriver;
#[cfg(feature = "cudarc")]
use pagedptx::driver::Cudarc;
#[cfg(feature = "cust")]
use pagedptx::driver::Cust;
use pagedptx::driver::Graphs;
use pagedptx::{
    BlockTables, Buffer, DecodeArgs, DecodePlan, Device, DeviceTables, Driver, Element, Error,
    KvPool, PoolShape, Result, Sequence, SlotMapping, Stream, TableEntry, append, decode,
    decode_checked,
};
use pagedptx_harness::EmulatorDriver;

const SHAPE: PoolShape = PoolShape { num_blocks: 8, block_size: 4, num_kv_heads: 2, head_dim: 40 };
const NUM_Q_HEADS: usize = 6;
const KV_ELEMS: usize = SHAPE.num_kv_heads * SHAPE.head_dim;
const Q_ELEMS: usize = NUM_Q_HEADS * SHAPE.head_dim;
const SM_SCALE: f32 = 0.25;

/// Blocks of the two sequences: the pool's, in no order.
const BLOCKS: [&[u32]; 2] = [&[5, 0, 7, 2], &[3, 6, 1, 4]];

/// An element type that values are rounded to.
trait Value: Element + PartialEq + std::fmt::Debug {
    fn round(value: f32) -> Self;
    fn bits(self) -> u32;
}

impl Value for f32 {
    fn round(value: f32) -> Self {
        value
    }

    fn bits(self) -> u32 {
        self.to_bits()
    }
}

impl Value for f16 {
    fn round(value: f32) -> Self {
        f16::from_f32(value)
    }

    fn bits(self) -> u32 {
        self.to_bits().into()
    }
}

/// All that a decode step of two sequences needs, on one stream.
struct Step<'s, D: Driver, T: Value> {
    pool: KvPool<'s, D, T>,
    plan: DecodePlan<'s, D, T, T>,
    tables: BlockTables<'s, D>,
    slots: SlotMapping<'s, D>,
    q: Buffer<'s, D, T>,
    k_new: Buffer<'s, D, T>,
    v_new: Buffer<'s, D, T>,
    out: Buffer<'s, D, T>,
}

impl<'s, D: Driver, T: Value> Step<'s, D, T> {
    fn new(stream: &'s Stream<D>) -> Result<Self> {
        Ok(Self {
            pool: KvPool::new(stream, SHAPE)?,
            plan: DecodePlan::new(stream, SHAPE, NUM_Q_HEADS, 2, BLOCKS[0].len())?,
            tables: BlockTables::new(stream, SHAPE, 2, BLOCKS[0].len())?,
            slots: SlotMapping::new(stream, SHAPE, 2)?,
            q: Buffer::uninit(stream, 2 * Q_ELEMS)?,
            k_new: Buffer::uninit(stream, 2 * KV_ELEMS)?,
            v_new: Buffer::uninit(stream, 2 * KV_ELEMS)?,
            out: Buffer::zeroed(stream, 2 * Q_ELEMS)?,
        })
    }

    /// Writes the inputs of the step that brings the sequences to these lengths.
    fn set(&mut self, lens: [u32; 2]) -> Result<()> {
        let seed = lens[0] * 100 + lens[1];
        self.q.write(&noise(seed, 2 * Q_ELEMS))?;
        self.k_new.write(&noise(seed + 10_000, 2 * KV_ELEMS))?;
        self.v_new.write(&noise(seed + 20_000, 2 * KV_ELEMS))?;
        self.slots.set(&[slot(0, lens[0]), slot(1, lens[1])])?;
        self.tables.set([sequence(0, lens[0]), sequence(1, lens[1])])
    }

    /// The output; all else is dropped here.
    fn into_out(self) -> Buffer<'s, D, T> {
        self.out
    }

    fn append(&mut self) -> Result<()> {
        append(&mut self.pool, &self.slots, &self.k_new, &self.v_new)
    }

    fn decode(&mut self) -> Result<()> {
        let args = DecodeArgs { q: &self.q, out: &mut self.out, lse: None, sm_scale: SM_SCALE };
        decode(&mut self.plan, &self.pool, &self.tables, args)
    }
}

fn sequence(seq: usize, len: u32) -> Sequence<'static> {
    Sequence { blocks: BLOCKS[seq], len }
}

/// Slot of the last of `len` tokens.
fn slot(seq: usize, len: u32) -> i64 {
    let (block_size, token) = (SHAPE.block_size as i64, i64::from(len) - 1);
    i64::from(BLOCKS[seq][(token / block_size) as usize]) * block_size + token % block_size
}

/// Reproducible values in −1..1.
fn noise<T: Value>(seed: u32, len: usize) -> Vec<T> {
    let value = |i: u32| {
        let bits = (seed ^ i.wrapping_mul(0x9E37_79B9)).wrapping_mul(0x85EB_CA6B);
        T::round((bits ^ (bits >> 15)) as i32 as f32 / i32::MAX as f32)
    };
    (0..len as u32).map(value).collect()
}

/// Tests that get a stream and an element type (f32 runs on the CUDA cores, f16 on the tensor cores): a stream of the late emulator, or of the GPU driver that `PAGEDPTX_DRIVER` names.
macro_rules! on_a_stream {
    ($($(#[$doc:meta])* fn $name:ident($stream:ident) $body:block)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            fn test<D: Graphs, T: Value>(device: &Device<D>) {
                let stream = device.stream().unwrap();
                run::<D, T>(&stream);
            }
            // Some bodies name the lifetime, others do not.
            #[allow(clippy::needless_lifetimes, clippy::extra_unused_lifetimes)]
            fn run<'s, D: Graphs, T: Value>($stream: &'s Stream<D>) $body
            fn both<D: Graphs>(device: Device<D>) {
                test::<D, f32>(&device);
                test::<D, f16>(&device);
            }
            match std::env::var("PAGEDPTX_DRIVER").as_deref() {
                #[cfg(feature = "cust")]
                Ok("cust") => both(Device::new(CudaDriver::<Cust>::new(0).unwrap()).unwrap()),
                #[cfg(feature = "cudarc")]
                Ok("cudarc") => both(Device::new(CudaDriver::<Cudarc>::new(0).unwrap()).unwrap()),
                _ => both(Device::new(Late::new(EmulatorDriver::default())).unwrap()),
            }
        }
    )*};
}

/// Outputs after each of the first `steps` steps, each waited for, on a stream of its own of the same device.
fn expected<D: Driver, T: Value>(stream: &Stream<D>, steps: u32) -> Vec<Vec<T>> {
    let stream = stream.device().stream().unwrap();
    let mut step = Step::new(&stream).unwrap();
    let one_step = |len| {
        step.set([len, len]).unwrap();
        step.append().unwrap();
        stream.synchronize().unwrap();
        step.decode().unwrap();
        step.out.to_vec().unwrap()
    };
    (1..=steps).map(one_step).collect()
}

/// One step whose arguments are dropped before any of it has run; only the output is kept.
fn step_and_drop<D: Driver, T: Value>(stream: &Stream<D>) -> Result<Vec<T>> {
    let mut step = Step::new(stream)?;
    step.set([1, 1])?;
    step.append()?;
    step.decode()?;
    let out = step.into_out();
    out.to_vec()
}

/// The test above would notice a free that does not wait: the emulator finds it.
#[test]
fn a_free_that_overtakes_is_found() {
    let device = Device::new(Late::freeing_at_once(EmulatorDriver::default())).unwrap();
    let stream = device.stream().unwrap();
    let error = step_and_drop::<_, f32>(&stream).unwrap_err();
    assert!(error.to_string().contains("live allocation"), "{error}");
}

/// A stream that is dropped lets its work finish; what was forgotten on it stays as it is.
#[test]
fn dropping_a_stream_with_work_under_way() {
    let device = Device::new(Late::new(EmulatorDriver::default())).unwrap();
    let stream = device.stream().unwrap();
    {
        let mut step = Step::<_, f32>::new(&stream).unwrap();
        step.set([1, 1]).unwrap();
        step.append().unwrap();
        step.decode().unwrap();
        std::mem::forget(step.q);
    }
    drop(stream);
    let other = device.stream().unwrap();
    assert_eq!(step_and_drop::<_, f32>(&other).unwrap(), expected::<_, f32>(&other, 1)[0]);
}

/// A capture that begins on another thread in the middle of an operation of two parts does not take the second part away unnoticed: zeros
/// of a new buffer, the taking of a report.
#[test]
fn a_capture_begun_in_the_middle_of_an_operation() {
    let device = Device::new(Late::new(EmulatorDriver::default())).unwrap();
    let stream = &device.stream().unwrap();
    let mut step = Step::<_, f32>::new(stream).unwrap();
    let ids = Buffer::from_slice(stream, &[8; 8]).unwrap();
    let lens = Buffer::from_slice(stream, &[1, 1]).unwrap();
    let mut tables = DeviceTables::new(SHAPE, ids, lens, BLOCKS[0].len()).unwrap();
    step.set([1, 1]).unwrap();
    let elems = step.pool.k().len();
    step.pool.write_k(&noise(1, elems)).unwrap();
    step.pool.write_v(&noise(2, elems)).unwrap();
    let args = DecodeArgs { q: &step.q, out: &mut step.out, lse: None, sm_scale: SM_SCALE };
    decode_checked(&mut step.plan, &step.pool, &tables, args).unwrap();

    // Runs the operation while another thread records from the end of the operation's first part on.
    let interrupted = |operation: &mut dyn FnMut() -> Result<()>| {
        let (begin, begins) = mpsc::channel();
        let (record, records) = mpsc::channel();
        let (end, ends) = mpsc::channel();
        device.driver().interrupt(move || {
            begin.send(()).unwrap();
            records.recv().unwrap();
        });
        thread::scope(|scope| {
            scope.spawn(move || {
                begins.recv().unwrap();
                let graph = stream.capture(|| {
                    record.send(()).unwrap();
                    ends.recv().unwrap();
                    Ok(())
                });
                drop(graph.unwrap());
            });
            let result = operation();
            device.driver().interrupt(|| ()); // were the other one left, its thread would wait for ever
            end.send(()).unwrap();
            result
        })
    };
    let refused = |operation| Err(Error::Capturing { operation });
    let zeroed = interrupted(&mut || Buffer::<_, u32>::zeroed(stream, 4).map(drop));
    assert_eq!(zeroed, refused("allocation"));
    assert_eq!(interrupted(&mut || tables.check()), refused("a read"));
    let (entry, limit) = (TableEntry::BlockId, 7);
    assert_eq!(tables.check(), Err(Error::DeviceTable { entry, seq: 0, value: 8, limit }));
    assert_eq!(tables.check(), Ok(()));
}

/// Every argument of every operation has to be on the operation's stream.
#[test]
fn arguments_of_another_stream_are_refused() {
    let device = Device::new(EmulatorDriver::default()).unwrap();
    let (here, there) = (device.stream().unwrap(), device.stream().unwrap());
    // What a step consists of, each part taken from the other stream in turn.
    type Swap = for<'a> fn(&mut Step<'a, EmulatorDriver, f32>, &mut Step<'a, EmulatorDriver, f32>);
    let decode_swaps: [(&str, Swap); 4] = [
        ("the pool", |a, b| std::mem::swap(&mut a.pool, &mut b.pool)),
        ("the block table", |a, b| std::mem::swap(&mut a.tables, &mut b.tables)),
        ("q", |a, b| std::mem::swap(&mut a.q, &mut b.q)),
        ("out", |a, b| std::mem::swap(&mut a.out, &mut b.out)),
    ];
    let append_swaps: [(&str, Swap); 3] = [
        ("the slot mapping", |a, b| std::mem::swap(&mut a.slots, &mut b.slots)),
        ("k_new", |a, b| std::mem::swap(&mut a.k_new, &mut b.k_new)),
        ("v_new", |a, b| std::mem::swap(&mut a.v_new, &mut b.v_new)),
    ];
    let pair = || {
        let (mut a, mut b) = (Step::new(&here).unwrap(), Step::new(&there).unwrap());
        a.set([1, 1]).unwrap();
        b.set([1, 1]).unwrap();
        (a, b)
    };
    for (what, swap) in decode_swaps {
        let (mut a, mut b) = pair();
        swap(&mut a, &mut b);
        assert_eq!(a.decode(), Err(Error::OtherStream { what }));
    }
    for (what, swap) in append_swaps {
        let (mut a, mut b) = pair();
        swap(&mut a, &mut b);
        assert_eq!(a.append(), Err(Error::OtherStream { what }));
    }
    let (mut a, _b) = pair();
    let mut lse = Buffer::zeroed(&there, 2 * NUM_Q_HEADS).unwrap();
    let Step { q, out, plan, pool, tables, .. } = &mut a;
    let args = DecodeArgs { q, out, lse: Some(&mut lse), sm_scale: SM_SCALE };
    assert_eq!(decode(plan, pool, tables, args), Err(Error::OtherStream { what: "lse" }));
    assert_eq!(device.driver().launches(), 0);
}

/// A captured step.
fn capture<'s, D: Graphs, T: Value>(
    stream: &'s Stream<D>,
    step: &mut Step<'s, D, T>,
) -> Result<pagedptx::Graph<'s, D>> {
    stream.capture(|| {
        step.append()?;
        step.decode()
    })
}

on_a_stream! {
    /// Dropping every argument right after the launches does not take their memory away.
    fn dropping_right_after_a_launch(stream) {
        assert_eq!(step_and_drop::<D, T>(stream).unwrap(), expected::<D, T>(stream, 1)[0]);
    }

    /// Forgetting arguments instead of dropping them leaks them, and that is all.
    fn forgetting_right_after_a_launch(stream) {
        let mut step = Step::<D, T>::new(stream).unwrap();
        step.set([1, 1]).unwrap();
        step.append().unwrap();
        step.decode().unwrap();
        let Step { pool, plan, tables, slots, q, k_new, v_new, out } = step;
        std::mem::forget((pool, plan, tables, slots, q, k_new, v_new));
        assert_eq!(out.to_vec().unwrap(), expected::<D, T>(stream, 1)[0]);
    }

    /// Overwriting inputs for the next step, before the one before has run, changes nothing about the one before.
    fn overwriting_inputs_before_they_were_read(stream) {
        let mut step = Step::<D, T>::new(stream).unwrap();
        let mut outs = Vec::new();
        for len in 1..=6 {
            step.set([len, len]).unwrap();
            step.append().unwrap();
            step.decode().unwrap();
            // A copy of the output that is read at the very end.
            let fresh = Buffer::zeroed(stream, 2 * Q_ELEMS).unwrap();
            outs.push(std::mem::replace(&mut step.out, fresh));
        }
        let outs: Vec<_> = outs.iter().map(|out| out.to_vec().unwrap()).collect();
        assert_eq!(outs, expected::<D, T>(stream, 6));
    }

    /// A panic between two launches drops the arguments of the first; the stream goes on.
    fn panicking_between_launches(stream) {
        let panicking = AssertUnwindSafe(|| {
            let mut step = Step::<D, T>::new(stream).unwrap();
            step.set([1, 1]).unwrap();
            step.append().unwrap();
            panic!("between append and decode");
        });
        catch_unwind(panicking).unwrap_err();
        assert_eq!(step_and_drop::<D, T>(stream).unwrap(), expected::<D, T>(stream, 1)[0]);
    }

    /// A step captured once and replayed while lengths grow, up to the last slot of the last block, gives the
    /// bits that separate calls give.
    fn a_replay_follows_growing_lengths(stream) {
        let mut step = Step::<D, T>::new(stream).unwrap();
        step.tables.set([sequence(0, 0), sequence(1, 0)]).unwrap();
        step.slots.set(&[-1, -1]).unwrap();
        let mut graph = capture(stream, &mut step).unwrap();
        let capacity = (BLOCKS[0].len() * SHAPE.block_size) as u32;
        for (index, expected) in expected::<D, T>(stream, capacity).iter().enumerate() {
            let len = index as u32 + 1;
            step.set([len, len]).unwrap();
            graph.replay().unwrap();
            assert_eq!(&step.out.to_vec().unwrap(), expected, "{len} tokens");
        }
    }

    /// A captured decode follows lengths from one chunk to several and back: its workspace and its grid come from the
    /// capacities, and its counters are left as they were found.
    fn a_replay_follows_lengths_through_chunks(stream) {
        const SHAPE: PoolShape =
            PoolShape { num_blocks: 12, block_size: 192, num_kv_heads: 1, head_dim: 32 };
        let blocks: [&[u32]; 2] = [&[3, 0, 7, 11, 5, 8], &[1, 2, 10, 4, 9, 6]];
        let elems = SHAPE.num_slots().unwrap() * SHAPE.head_dim;
        let mut pool = KvPool::new(stream, SHAPE).unwrap();
        pool.write_k(&noise::<T>(1, elems)).unwrap();
        pool.write_v(&noise::<T>(2, elems)).unwrap();
        let mut plan = DecodePlan::new(stream, SHAPE, 2, 2, 6).unwrap();
        let mut tables = BlockTables::new(stream, SHAPE, 2, 6).unwrap();
        let q = Buffer::from_slice(stream, &noise::<T>(3, 2 * 2 * SHAPE.head_dim)).unwrap();
        let mut out = Buffer::from_slice(stream, &noise::<T>(4, q.len())).unwrap();
        let set = |tables: &mut BlockTables<'_, D>, lens: [u32; 2]| {
            let row = |seq: usize| Sequence { blocks: blocks[seq], len: lens[seq] };
            tables.set([row(0), row(1)]).unwrap();
        };
        let mut attend = |tables: &BlockTables<'s, D>, out: &mut Buffer<'s, D, T>| {
            let args = DecodeArgs { q: &q, out, lse: None, sm_scale: SM_SCALE };
            decode(&mut plan, &pool, tables, args)
        };
        set(&mut tables, [0, 0]);
        let mut graph = stream.capture(|| attend(&tables, &mut out)).unwrap();
        for lens in [[1, 1_152], [1_152, 1_152], [512, 513], [128, 129], [0, 600], [1_152, 0], [17, 17]] {
            set(&mut tables, lens);
            graph.replay().unwrap();
            let replayed = out.to_vec().unwrap();
            attend(&tables, &mut out).unwrap();
            assert_eq!(replayed, out.to_vec().unwrap(), "{lens:?} tokens");
        }
    }

    /// Rows that a capture covers and the tables no longer have give zeros, and their tokens are not stored.
    fn a_replay_with_fewer_sequences_leaves_the_rest_alone(stream) {
        let mut step = Step::<D, T>::new(stream).unwrap();
        step.set([1, 1]).unwrap();
        let mut graph = capture(stream, &mut step).unwrap();
        graph.replay().unwrap();
        let k = step.pool.k().to_vec().unwrap();
        let second = slot(1, 1) as usize * KV_ELEMS;
        step.set([2, 2]).unwrap();
        step.tables.set([sequence(0, 1)]).unwrap();
        step.slots.set(&[]).unwrap();
        graph.replay().unwrap();
        let out = step.out.to_vec().unwrap();
        assert!(out[..Q_ELEMS].iter().all(|x| *x != T::round(0.0)));
        assert!(out[Q_ELEMS..].iter().all(|x| *x == T::round(0.0)));
        let bits = |values: &[T]| values.iter().map(|x| x.bits()).collect::<Vec<_>>();
        let now = step.pool.k().to_vec().unwrap();
        assert_eq!(bits(&now[second..][..KV_ELEMS]), bits(&k[second..][..KV_ELEMS]));
        let next = slot(0, 2) as usize * KV_ELEMS;
        assert_eq!(bits(&now[next..][..KV_ELEMS]), bits(&k[next..][..KV_ELEMS]));
    }

    /// Buffers that are dropped while a graph names them live on in the graph; nothing is left when it is gone.
    fn dropping_what_a_graph_names(stream) {
        let mut step = Step::<D, T>::new(stream).unwrap();
        step.set([1, 1]).unwrap();
        let mut graph = capture(stream, &mut step).unwrap();
        let out = step.into_out();
        graph.replay().unwrap();
        assert_eq!(out.to_vec().unwrap(), expected::<D, T>(stream, 1)[0]);
        graph.replay().unwrap();
        drop(graph);
        assert_eq!(out.to_vec().unwrap(), expected::<D, T>(stream, 1)[0]);
    }

    /// Buffers dropped inside the capture that names them live on as well.
    fn dropping_inside_a_capture(stream) {
        let mut step = Step::<D, T>::new(stream).unwrap();
        step.set([1, 1]).unwrap();
        let mut kept = None;
        let mut graph = stream
            .capture(|| {
                step.append()?;
                step.decode()?;
                let out = step.into_out();
                kept = Some(out);
                Ok(())
            })
            .unwrap();
        graph.replay().unwrap();
        assert_eq!(kept.unwrap().to_vec().unwrap(), expected::<D, T>(stream, 1)[0]);
    }

    /// A capture that panics is given up: nothing of it runs, and the stream goes on.
    fn panicking_while_capturing(stream) {
        let mut step = Step::<D, T>::new(stream).unwrap();
        step.set([1, 1]).unwrap();
        let panicking = AssertUnwindSafe(|| {
            let _ = stream.capture(|| {
                step.append()?;
                panic!("between append and decode");
            });
        });
        catch_unwind(panicking).unwrap_err();
        assert!(step.pool.k().to_vec().is_ok());
        assert_eq!(step_and_drop::<D, T>(stream).unwrap(), expected::<D, T>(stream, 1)[0]);
    }

    /// What is dropped while another stream records does not end the capture: a graph that still runs, a stream with work on it.
    fn dropping_others_while_capturing(stream) {
        let mut step = Step::<D, T>::new(stream).unwrap();
        step.set([1, 1]).unwrap();
        let other = stream.device().stream().unwrap();
        let mut other_step = Step::<D, T>::new(&other).unwrap();
        other_step.set([1, 1]).unwrap();
        let mut running = Some(capture(&other, &mut other_step).unwrap());
        running.as_mut().unwrap().replay().unwrap();
        let mut graph = stream
            .capture(|| {
                step.append()?;
                drop(running.take());
                let third = stream.device().stream()?;
                drop(step_and_drop::<D, T>(&third)?);
                drop(third);
                step.decode()
            })
            .unwrap();
        graph.replay().unwrap();
        assert_eq!(step.out.to_vec().unwrap(), expected::<D, T>(stream, 1)[0]);
        drop(other_step);
    }

    /// Whatever tables that nobody checks hold at a replay, and replaced or dropped since the capture, no access leaves the pool; the
    /// offender is named, and the sequence that is in order has its bits.
    fn replays_over_tables_that_nobody_checks(stream) {
        let mut step = Step::<D, T>::new(stream).unwrap();
        let elems = step.pool.k().len();
        step.pool.write_k(&noise(1, elems)).unwrap();
        step.pool.write_v(&noise(2, elems)).unwrap();
        step.q.write(&noise(3, 2 * Q_ELEMS)).unwrap();
        let ids = Buffer::from_slice(stream, &BLOCKS.concat()).unwrap();
        let lens = Buffer::from_slice(stream, &[9, 14]).unwrap();
        let mut tables = DeviceTables::new(SHAPE, ids, lens, BLOCKS[0].len()).unwrap();
        let mut graph = stream
            .capture(|| {
                let (q, out) = (&step.q, &mut step.out);
                let args = DecodeArgs { q, out, lse: None, sm_scale: SM_SCALE };
                decode_checked(&mut step.plan, &step.pool, &tables, args)
            })
            .unwrap();
        graph.replay().unwrap();
        assert_eq!(tables.check(), Ok(()));
        let want = step.out.to_vec().unwrap();
        tables.block_table_mut().write(&[99, u32::MAX]).unwrap();
        graph.replay().unwrap();
        let (entry, limit) = (TableEntry::BlockId, 7);
        let report = Error::DeviceTable { entry, seq: 0, value: u32::MAX, limit };
        assert_eq!(tables.check(), Err(report));
        *tables.block_table_mut() = Buffer::zeroed(stream, 8).unwrap();
        drop(tables);
        graph.replay().unwrap();
        assert_eq!(step.out.to_vec().unwrap()[Q_ELEMS..], want[Q_ELEMS..]);
    }

    /// Forgetting a graph, or its buffers, leaks; the stream goes on.
    fn forgetting_a_graph(stream) {
        let mut step = Step::<D, T>::new(stream).unwrap();
        step.set([1, 1]).unwrap();
        let mut graph = capture(stream, &mut step).unwrap();
        graph.replay().unwrap();
        std::mem::forget(graph);
        drop(step);
        assert_eq!(step_and_drop::<D, T>(stream).unwrap(), expected::<D, T>(stream, 1)[0]);
    }

    /// While a stream records, what cannot be recorded is refused and has no effect.
    fn what_cannot_be_captured_is_refused(stream) {
        let mut step = Step::<D, T>::new(stream).unwrap();
        step.set([1, 1]).unwrap();
        let mut other = Buffer::from_slice(stream, &[7_u32]).unwrap();
        let refused = |operation| Err(Error::Capturing { operation });
        let graph = stream.capture(|| {
            assert_eq!(other.write(&[8]), refused("a write"));
            assert_eq!(other.to_vec().map(drop), refused("a read"));
            assert_eq!(Buffer::<_, u32>::uninit(stream, 1).map(drop), refused("allocation"));
            assert_eq!(stream.synchronize(), refused("a wait"));
            assert_eq!(stream.capture(|| Ok(())).map(drop), refused("a capture"));
            assert_eq!(step.set([2, 2]), refused("a write"));
            Ok(())
        });
        drop(graph.unwrap());
        assert_eq!(other.to_vec().unwrap(), [7]);
    }
}
