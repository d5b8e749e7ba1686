//! Lane instructions a second of the emulator on this crate's own decode kernels, one core, with all checks and with none.
//!
//! `cargo bench --bench emulator`; `cargo bench -p ptx-emulator` does the same with kernels of others. "elem" in the output is a
//! lane instruction: one thread's share of one PTX instruction. With `--once NAME` one case is launched once, for valgrind:
//! `emulator/benches/instructions.sh`.

#[path = "../emulator/benches/host/mod.rs"]
mod host;

use criterion::{SamplingMode, Throughput};
use half::bf16;
use pagedptx::{
    BlockTables, Buffer, DecodeArgs, DecodePlan, Device, Element, KvPool, PoolShape, Sequence,
    decode,
};
use pagedptx_harness::{EmulatorDriver, EmulatorOptions};
use ptx_emulator::Checks;

const BLOCK: usize = 16;

/// A decode step of sequences of `len` tokens each.
#[derive(Clone, Copy)]
struct Shape {
    seqs: usize,
    len: usize,
    heads: usize,
    kv_heads: usize,
    dim: usize,
}

/// `count` values in [-1, 1), the same at every run.
fn values<T: Element>(count: usize, from: fn(f32) -> T) -> Vec<T> {
    let value = |i: u32| {
        let bits = i.wrapping_mul(0x9e37_79b9) ^ i.wrapping_mul(0x85eb_ca6b) >> 13;
        from(bits as i32 as f32 / 2f32.powi(31))
    };
    (0..count as u32).map(value).collect()
}

/// What is done with a launch that can be repeated and gives its lane instructions.
type Use<'a> = &'a mut dyn FnMut(&mut dyn FnMut() -> u64);

fn case<T: Element>(from: fn(f32) -> T, shape: Shape, checks: Checks, then: Use<'_>) {
    let options = EmulatorOptions { threads: 1, checks, ..EmulatorOptions::default() };
    let device = Device::new(EmulatorDriver::new(options)).expect("it is an emulator");
    let stream = device.stream().expect("a stream");
    let blocks = shape.len.div_ceil(BLOCK);
    let pool_shape = PoolShape {
        num_blocks: shape.seqs * blocks,
        block_size: BLOCK,
        num_kv_heads: shape.kv_heads,
        head_dim: shape.dim,
    };
    let mut pool = KvPool::<_, T>::new(&stream, pool_shape).expect("memory");
    let cache = values(shape.seqs * blocks * BLOCK * shape.kv_heads * shape.dim, from);
    pool.write_k(&cache).expect("it fits");
    pool.write_v(&cache).expect("it fits");
    let mut plan = DecodePlan::<_, T, T>::new(&stream, pool_shape, shape.heads, shape.seqs, blocks)
        .expect("a kernel");
    let mut tables = BlockTables::new(&stream, pool_shape, shape.seqs, blocks).expect("memory");
    let ids: Vec<u32> = (0..(shape.seqs * blocks) as u32).rev().collect();
    let sequences = ids.chunks(blocks).map(|ids| Sequence { blocks: ids, len: shape.len as u32 });
    tables.set(sequences).expect("the blocks are in the pool");
    let row = shape.heads * shape.dim;
    let q = Buffer::from_slice(&stream, &values(shape.seqs * row, from)).expect("memory");
    let mut out = Buffer::uninit(&stream, shape.seqs * row).expect("memory");
    then(&mut || {
        let args = DecodeArgs { q: &q, out: &mut out, lse: None, sm_scale: 0.088 };
        decode(&mut plan, &pool, &tables, args).expect("no finding");
        device.driver().last_counters().instructions.threads
    });
}

/// Makes a case, with the checks to make.
type Make = fn(Checks, Use<'_>);

const CASES: [(&str, Make); 2] = [
    ("f32_d128", |checks, then| {
        let shape = Shape { seqs: 1, len: 1024, heads: 8, kv_heads: 2, dim: 128 };
        case::<f32>(|value| value, shape, checks, then);
    }),
    ("bf16_d128", |checks, then| {
        let shape = Shape { seqs: 1, len: 8192, heads: 16, kv_heads: 2, dim: 128 };
        case(bf16::from_f32, shape, checks, then);
    }),
];

const CHECKS: [(Checks, &str); 2] = [(Checks::ALL, "all"), (Checks::NONE, "none")];

fn cases() -> impl Iterator<Item = (String, Checks, Make)> {
    CASES.into_iter().flat_map(|(case, make)| {
        CHECKS.map(|(checks, which)| (format!("{case}/{which}"), checks, make))
    })
}

fn main() {
    if let Some(once) = std::env::args().skip_while(|arg| arg != "--once").nth(1) {
        for (_, checks, make) in cases().filter(|(name, ..)| *name == once) {
            make(checks, &mut |run| println!("{}", run()));
        }
        return;
    }
    let mut criterion = host::criterion();
    let mut group = criterion.benchmark_group("decode");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for (name, checks, make) in cases() {
        make(checks, &mut |run| {
            let lane_instructions = run();
            let counted = host::instructions(|| _ = run());
            host::print(&format!("decode/{name}"), lane_instructions, counted);
            group.throughput(Throughput::Elements(lane_instructions));
            group.bench_function(&name, |bench| bench.iter(&mut *run));
        });
    }
}
