//! Lane instructions a second of the emulator on this crate's own decode kernels, one core, with all checks and with none.
//!
//! `cargo bench --bench emulator`; `cargo bench -p ptx-emulator` does the same with kernels of others. "elem" in the output is a
//! lane instruction: one thread's share of one PTX instruction. `--once NAME` runs one case once, for `instructions.sh` over there.

#[path = "../emulator/benches/host/mod.rs"]
mod host;

use criterion::{Criterion, SamplingMode, Throughput};
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

/// Benchmarks a kernel, or runs the one that is named once and prints its lane instructions.
fn measure<T: Element>(
    criterion: &mut Criterion<host::ThreadTime>,
    once: Option<&str>,
    from: fn(f32) -> T,
    shape: Shape,
) {
    let mut group = criterion.benchmark_group("decode");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for (checks, which) in [(Checks::ALL, "all"), (Checks::NONE, "none")] {
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
        let mut plan =
            DecodePlan::<_, T, T>::new(&stream, pool_shape, shape.heads, shape.seqs, blocks)
                .expect("a kernel");
        let mut tables = BlockTables::new(&stream, pool_shape, shape.seqs, blocks).expect("memory");
        let ids: Vec<u32> = (0..(shape.seqs * blocks) as u32).rev().collect();
        let sequences =
            ids.chunks(blocks).map(|ids| Sequence { blocks: ids, len: shape.len as u32 });
        tables.set(sequences).expect("the blocks are in the pool");
        let row = shape.heads * shape.dim;
        let q = Buffer::from_slice(&stream, &values(shape.seqs * row, from)).expect("memory");
        let mut out = Buffer::uninit(&stream, shape.seqs * row).expect("memory");
        let mut run = || {
            let args = DecodeArgs { q: &q, out: &mut out, lse: None, sm_scale: 0.088 };
            decode(&mut plan, &pool, &tables, args).expect("no finding");
        };
        let name = format!("{}_d{}/{which}", T::DTYPE, shape.dim);
        let lane_instructions = || device.driver().last_counters().instructions.threads;
        if let Some(once) = once {
            if name == once {
                run();
                println!("{}", lane_instructions());
            }
            continue;
        }
        run();
        let counted = host::instructions(&mut run);
        let lane_instructions = lane_instructions();
        host::print(&format!("decode/{name}"), lane_instructions, counted);
        group.throughput(Throughput::Elements(lane_instructions));
        group.bench_function(name, |bench| bench.iter(&mut run));
    }
}

fn main() {
    let once = std::env::args().skip_while(|arg| arg != "--once").nth(1);
    let mut criterion = match once {
        None => host::criterion(),
        Some(_) => Criterion::default().with_measurement(host::ThreadTime),
    };
    let (criterion, once) = (&mut criterion, once.as_deref());
    let shape = Shape { seqs: 1, len: 1024, heads: 8, kv_heads: 2, dim: 128 };
    measure::<f32>(criterion, once, |value| value, shape);
    let shape = Shape { seqs: 1, len: 8192, heads: 16, kv_heads: 2, dim: 128 };
    measure::<bf16>(criterion, once, bf16::from_f32, shape);
}
