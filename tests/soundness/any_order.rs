//! Safe calls in any order, drawn: parts of steps of several shapes on two streams are written, enqueued, captured, replayed, exchanged, dropped
//! and forgotten. An error of the driver's would be a finding of the emulator: memory used after it was freed, out of bounds, never written,
//! or a race.

use std::mem;

use pagedptx::{
    BlockTables, Buffer, DecodeArgs, DecodePlan, Device, DeviceTables, Error, Graph, KvPool,
    PoolShape, Result, Sequence, SlotMapping, Stream, append, decode, decode_checked,
};
use pagedptx_harness::EmulatorDriver;

use crate::late::Late;

type Driver = Late<EmulatorDriver>;

/// Some pools serve the tables and plans of others, some do not.
const SHAPES: [PoolShape; 4] = [
    PoolShape { num_blocks: 8, block_size: 4, num_kv_heads: 2, head_dim: 16 },
    PoolShape { num_blocks: 6, block_size: 4, num_kv_heads: 2, head_dim: 16 },
    PoolShape { num_blocks: 8, block_size: 16, num_kv_heads: 2, head_dim: 16 },
    PoolShape { num_blocks: 9, block_size: 4, num_kv_heads: 1, head_dim: 32 },
];

/// A linear congruential generator (Knuth, MMIX).
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// Mostly numbers below a limit, now and then one that is far beyond.
    fn wild(&mut self, count: usize, limit: usize) -> Vec<u32> {
        let mut one = || if self.one_in(9) { u32::MAX - 3 } else { self.below(limit) as u32 };
        (0..count).map(|_| one()).collect()
    }
}

/// What a step consists of, in part from elsewhere once parts were exchanged.
struct Step<'s> {
    pool: KvPool<'s, Driver, f32>,
    plan: DecodePlan<'s, Driver, f32, f32>,
    tables: BlockTables<'s, Driver>,
    device_tables: DeviceTables<'s, Driver>,
    slots: SlotMapping<'s, Driver>,
    new: Buffer<'s, Driver, f32>,
    q: Buffer<'s, Driver, f32>,
    out: Buffer<'s, Driver, f32>,
    lse: Buffer<'s, Driver, f32>,
}

impl<'s> Step<'s> {
    fn new(stream: &'s Stream<Driver>, draw: &mut Draw) -> Result<Self> {
        // Mostly alike, so that parts of different steps go together.
        let shape = SHAPES[draw.below(2 * SHAPES.len()).saturating_sub(SHAPES.len())];
        let (seqs, width) = (1 + draw.below(2), 3 + draw.below(2));
        let heads = shape.num_kv_heads * 2;
        let kv_elems = shape.num_kv_heads * shape.head_dim;
        let mut pool = KvPool::new(stream, shape)?;
        let elems = pool.k().len();
        pool.write_k(&vec![0.5; elems])?;
        pool.write_v(&vec![0.25; elems])?;
        let (ids, lens) = (Buffer::zeroed(stream, seqs * width)?, Buffer::zeroed(stream, seqs)?);
        Ok(Self {
            pool,
            plan: DecodePlan::new(stream, shape, heads, seqs, width)?,
            tables: BlockTables::new(stream, shape, seqs, width)?,
            device_tables: DeviceTables::new(shape, ids, lens, width)?,
            slots: SlotMapping::new(stream, shape, seqs)?,
            new: Buffer::zeroed(stream, seqs * kv_elems)?,
            q: Buffer::zeroed(stream, seqs * heads * shape.head_dim)?,
            out: Buffer::zeroed(stream, seqs * heads * shape.head_dim)?,
            lse: Buffer::zeroed(stream, seqs * heads)?,
        })
    }

    /// A call that can be captured.
    fn enqueue(&mut self, draw: &mut Draw) -> Result<()> {
        let Self { pool, plan, tables, device_tables, slots, new, q, out, lse } = self;
        match draw.below(6) {
            0 => append(pool, slots, new, new),
            1 => {
                let args = DecodeArgs { q, out, lse: Some(lse), sm_scale: 0.25 };
                decode(plan, pool, tables, args)
            }
            2 => {
                let args = DecodeArgs { q, out, lse: None, sm_scale: 0.25 };
                decode_checked(plan, pool, device_tables, args)
            }
            3 => {
                let mut id = || draw.below(9) as u32;
                pool.copy_blocks(&[(id(), id()), (id(), id())])
            }
            4 => out.fill_bytes(0),
            _ => device_tables.block_table_mut().fill_bytes(draw.below(256) as u8),
        }
    }

    /// A call that cannot.
    fn transfer(&mut self, draw: &mut Draw) -> Result<()> {
        let tables = &mut self.device_tables;
        // The last two wait for the device, which takes away what is late.
        match draw.below(20) {
            0..=4 => {
                let blocks: Vec<u32> = (0..4).map(|_| draw.below(8) as u32).collect();
                let lens: Vec<u32> =
                    (0..1 + draw.below(2)).map(|_| draw.below(18) as u32).collect();
                self.tables.set(lens.iter().map(|&len| Sequence { blocks: &blocks, len }))
            }
            5..=8 => {
                let slots: Vec<i64> =
                    (0..1 + draw.below(2)).map(|_| draw.below(36) as i64 - 2).collect();
                self.slots.set(&slots)
            }
            9..=12 => {
                let lens = draw.wild(tables.seq_lens().len(), 18);
                tables.seq_lens_mut().write(&lens)
            }
            13..=16 => {
                let ids = draw.wild(tables.block_table().len(), 9);
                tables.block_table_mut().write(&ids)
            }
            17 => tables.set_num_seqs(draw.below(4)),
            18 => tables.check(),
            _ => self.out.to_vec().map(drop),
        }
    }
}

/// Exchanges parts of two steps.
fn exchange<'s>(a: &mut Step<'s>, b: &mut Step<'s>, draw: &mut Draw) {
    let (ours, theirs) = (&mut a.device_tables, &mut b.device_tables);
    match draw.below(16) {
        0 => mem::swap(&mut a.pool, &mut b.pool),
        1 => mem::swap(&mut a.plan, &mut b.plan),
        2 => mem::swap(&mut a.tables, &mut b.tables),
        3 => mem::swap(ours, theirs),
        4 => mem::swap(ours.block_table_mut(), theirs.block_table_mut()),
        5..=8 => {
            mem::swap(ours.block_table_mut(), theirs.block_table_mut());
            mem::swap(ours.seq_lens_mut(), theirs.seq_lens_mut());
        }
        9..=11 => mem::swap(&mut a.slots, &mut b.slots),
        12 => mem::swap(&mut a.new, &mut b.new),
        13 => mem::swap(&mut a.q, &mut b.q),
        14 => mem::swap(&mut a.out, &mut b.out),
        _ => mem::swap(&mut a.lse, &mut b.lse),
    }
}

/// All there is at a time: steps and graphs on two streams.
struct World<'s> {
    streams: [&'s Stream<Driver>; 2],
    steps: [Step<'s>; 4],
    graphs: Vec<Graph<'s, Driver>>,
    draw: Draw,
    /// Calls that were no error.
    done: u64,
}

impl<'s> World<'s> {
    /// Counts a success, lets an error of the arguments pass, and none of the driver's.
    fn take(&mut self, result: Result<()>) {
        match result {
            Ok(()) => self.done += 1,
            Err(Error::Driver { operation, message }) => panic!("{operation}: {message}"),
            Err(_) => {}
        }
    }

    /// Something that may happen while a stream records as well.
    fn act(&mut self) {
        let index = self.draw.below(self.steps.len());
        let result = match self.draw.below(10) {
            0..=3 => self.steps[index].enqueue(&mut self.draw),
            4..=5 => self.steps[index].transfer(&mut self.draw),
            6 => {
                let made = Step::new(self.streams[self.draw.below(2)], &mut self.draw);
                made.map(|mut other| {
                    // All of it, or a part.
                    let step = &mut self.steps[index];
                    if self.draw.one_in(2) {
                        mem::swap(step, &mut other);
                    } else {
                        exchange(step, &mut other, &mut self.draw);
                    }
                    if self.draw.one_in(4) {
                        mem::forget(other);
                    }
                })
            }
            7 => {
                let other = self.draw.below(self.steps.len());
                if let Ok([a, b]) = self.steps.get_disjoint_mut([index, other]) {
                    exchange(a, b, &mut self.draw);
                }
                Ok(())
            }
            _ if self.graphs.is_empty() => Ok(()),
            8 => {
                let graph = self.graphs.swap_remove(self.draw.below(self.graphs.len()));
                if self.draw.one_in(5) {
                    mem::forget(graph);
                }
                Ok(())
            }
            _ => {
                let graph = self.draw.below(self.graphs.len());
                self.graphs[graph].replay()
            }
        };
        self.take(result);
    }

    fn capture(&mut self) {
        let stream = self.streams[self.draw.below(2)];
        let captured = stream.capture(|| {
            for _ in 0..1 + self.draw.below(4) {
                self.act();
            }
            if self.draw.one_in(6) {
                Err(Error::Zero { what: "what the closure wanted" })
            } else {
                Ok(())
            }
        });
        match captured {
            Ok(graph) => self.graphs.push(graph),
            Err(error) => self.take(Err(error)),
        }
    }
}

/// Enough for each check of streams and spaces to be missed where it is left out.
const SEEDS: u64 = 2_000;

/// Whatever is called in whatever order, no kernel meets memory that is not there or that nobody wrote.
#[test]
fn safe_calls_in_any_order() {
    let mut done = 0;
    let device = Device::new(Late::new(EmulatorDriver::default())).unwrap();
    for seed in 1..=SEEDS {
        let streams = [device.stream().unwrap(), device.stream().unwrap()];
        let streams = streams.each_ref();
        let mut draw = Draw(seed * 7_919);
        let steps = [0, 1, 0, 1].map(|index| Step::new(streams[index], &mut draw).unwrap());
        let mut world = World { streams, steps, graphs: Vec::new(), draw, done: 0 };
        for _ in 0..60 {
            if world.draw.one_in(6) { world.capture() } else { world.act() }
        }
        let World { steps, mut graphs, done: calls, .. } = world;
        drop(steps);
        for graph in &mut graphs {
            graph.replay().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        for stream in streams {
            stream.synchronize().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        done += calls;
    }
    assert!(done > SEEDS * 30, "of {} calls only {done} were no errors", SEEDS * 60);
}
