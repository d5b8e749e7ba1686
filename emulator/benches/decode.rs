//! Lane instructions a second on decode attention by nvcc and Triton, one core, with all checks and with none; and what all
//! cores make of a grid of many CTAs.
//!
//! `cargo bench -p ptx-emulator`. "elem" in the output is a lane instruction: one thread's share of one PTX instruction. What one core
//! does is measured in its own time, which other programs take nothing of; what many do, in time on the wall.
//!
//! `benches/instructions.sh` counts the host's instructions, which do not depend on the machine's speed: it runs this file with
//! `--once NAME`, which launches one case once, under valgrind.

mod host;

use bytemuck::Pod;
use criterion::{Criterion, SamplingMode, Throughput};
use half::{bf16, f16};
use ptx_emulator::{Checks, Device, Launch, Module};

/// A launch that can be repeated.
struct Case {
    name: &'static str,
    device: Device,
    module: Module,
    entry: &'static str,
    grid: [u32; 3],
    threads: u32,
    shared: u32,
    params: Vec<u8>,
}

impl Case {
    /// Runs it and gives the lane instructions.
    fn run(&self, checks: Checks, cores: usize) -> u64 {
        let launch = Launch {
            grid: self.grid,
            block: [self.threads, 1, 1],
            dynamic_shared_bytes: self.shared,
            params: &self.params,
            checks,
            threads: cores,
            ..Launch::default()
        };
        let report = self.device.launch(&self.module, self.entry, &launch);
        report
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
            .counters
            .instructions
            .threads
    }
}

/// A decode step over a paged cache.
#[derive(Clone, Copy)]
struct Shape {
    seqs: usize,
    len: usize,
    heads: usize,
    kv_heads: usize,
    dim: usize,
}

const BLOCK: usize = 16;

/// A device with the buffers of a decode step, in the order of the parameters.
struct Memory {
    device: Device,
    params: Vec<u8>,
}

impl Memory {
    fn push<T: Pod>(&mut self, value: T) {
        self.params.resize(self.params.len().next_multiple_of(size_of::<T>()), 0);
        self.params.extend_from_slice(bytemuck::bytes_of(&value));
    }

    fn push_input<T: Pod>(&mut self, values: &[T]) {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let address = self.device.allocate(bytes.len()).expect("memory");
        self.device.write(address, bytes).expect("inside");
        self.push(address);
    }

    fn push_output(&mut self, bytes: usize) {
        let address = self.device.allocate(bytes).expect("memory");
        self.push(address);
    }

    /// `count` values in [-1, 1), the same at every run.
    fn push_values<T: Pod>(&mut self, count: usize, from: fn(f32) -> T) {
        let values = (0..count as u32).map(|i| {
            let bits = i.wrapping_mul(0x9e37_79b9) ^ i.wrapping_mul(0x85eb_ca6b) >> 13;
            from(bits as i32 as f32 / 2f32.powi(31))
        });
        self.push_input(&values.collect::<Vec<T>>());
    }
}

impl Shape {
    fn blocks(&self) -> usize {
        self.len.div_ceil(BLOCK)
    }

    fn cache_len(&self) -> usize {
        self.seqs * self.blocks() * BLOCK * self.kv_heads * self.dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// Each sequence's blocks lie backwards.
    fn tables(&self) -> Vec<i32> {
        let ids = 0..(self.seqs * self.blocks()) as i32;
        ids.rev().collect()
    }

    fn lens(&self) -> Vec<i32> {
        vec![self.len as i32; self.seqs]
    }
}

/// A kernel in the manner of serving engines, by nvcc: a CTA for each query head, no tensor cores.
fn paged_f16(shape: Shape) -> Case {
    let mut memory = Memory { device: Device::new(), params: Vec::new() };
    let rows = shape.seqs * shape.heads;
    memory.push_output(rows * shape.dim * 2);
    memory.push_values(rows * shape.dim, f16::from_f32);
    memory.push_values(shape.cache_len(), f16::from_f32);
    memory.push_values(shape.cache_len(), f16::from_f32);
    memory.push((shape.heads / shape.kv_heads) as i32);
    memory.push(shape.scale());
    memory.push_input(&shape.tables());
    memory.push_input(&shape.lens());
    memory.push(shape.blocks() as i32);
    memory.push(0u64);
    let text = include_str!("../tests/foreign/ptx/sm_90/paged.ptx");
    Case {
        name: "paged_f16_d64",
        device: memory.device,
        module: Module::parse("paged.ptx", text).expect("it is committed"),
        entry: "paged_f16_d64_b16",
        grid: [shape.heads as u32, shape.seqs as u32, 1],
        threads: 128,
        // Logits of a sequence, or the values of 16 rows of threads.
        shared: (4 * shape.len).max(16 * 64 * 4) as u32,
        params: memory.params,
    }
}

/// Parts of a sequence that the Triton kernel has CTAs for.
const SPLITS: usize = 4;

/// Split-KV decode by Triton, with a group of query heads in each matrix product.
fn split<T: Pod>(name: &'static str, text: &str, from: fn(f32) -> T, shape: Shape) -> Case {
    let mut memory = Memory { device: Device::new(), params: Vec::new() };
    let rows = shape.seqs * shape.heads;
    memory.push_values(rows * shape.dim, from);
    memory.push_values(shape.cache_len(), from);
    memory.push_values(shape.cache_len(), from);
    memory.push_output(rows * SPLITS * shape.dim * 4);
    memory.push_output(rows * SPLITS * 4);
    memory.push_input(&shape.tables());
    memory.push_input(&shape.lens());
    memory.push(shape.scale());
    for number in [shape.blocks(), shape.heads, shape.kv_heads] {
        memory.push(number as i32);
    }
    // Two pointers to scratch memory, which the kernel does not use.
    memory.push(0u64);
    memory.push(0u64);
    // The first line of the file: "// split_decode: 12804 bytes of dynamic shared memory, 128 threads".
    let word = |index| text.split_whitespace().nth(index).and_then(|word| word.parse().ok());
    let (shared, threads) = word(2).zip(word(8)).expect("the header says it");
    Case {
        name,
        device: memory.device,
        module: Module::parse("split.ptx", text).expect("it is committed"),
        entry: "split_decode",
        grid: [shape.seqs as u32, shape.kv_heads as u32, SPLITS as u32],
        threads,
        shared,
        params: memory.params,
    }
}

fn cases() -> [Case; 3] {
    [
        paged_f16(Shape { seqs: 1, len: 1024, heads: 8, kv_heads: 2, dim: 64 }),
        split(
            "triton_bf16_d128",
            include_str!("../tests/foreign/ptx/sm_90/triton_split_bf16.ptx"),
            bf16::from_f32,
            Shape { seqs: 1, len: 2048, heads: 14, kv_heads: 2, dim: 128 },
        ),
        split(
            "triton_tf32_d128",
            include_str!("../tests/foreign/ptx/sm_90/triton_split_fp32.ptx"),
            |value| value,
            Shape { seqs: 1, len: 1024, heads: 8, kv_heads: 2, dim: 128 },
        ),
    ]
}

const CHECKS: [(Checks, &str); 2] = [(Checks::ALL, "all"), (Checks::NONE, "none")];

/// One core: the figures that the crate promises.
fn one_core(criterion: &mut Criterion<host::ThreadTime>) {
    let mut group = criterion.benchmark_group("decode");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for case in cases() {
        for (checks, which) in CHECKS {
            let lane_instructions = case.run(checks, 1);
            let counted = host::instructions(|| _ = case.run(checks, 1));
            host::print(&format!("decode/{}/{which}", case.name), lane_instructions, counted);
            group.throughput(Throughput::Elements(lane_instructions));
            group.bench_function(format!("{}/{which}", case.name), |bench| {
                bench.iter(|| case.run(checks, 1));
            });
        }
    }
}

/// 256 CTAs on one core and on all of them.
fn cores(criterion: &mut Criterion) {
    let case = paged_f16(Shape { seqs: 32, len: 256, heads: 8, kv_heads: 2, dim: 64 });
    let mut group = criterion.benchmark_group("cores");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(case.run(Checks::ALL, 1)));
    for (cores, which) in [(1, "one"), (0, "all")] {
        group.bench_function(format!("{}/{which}", case.name), |bench| {
            bench.iter(|| case.run(Checks::ALL, cores));
        });
    }
}

/// Launches the case of this name once and prints its lane instructions.
fn once(name: &str) {
    for case in cases() {
        for (checks, which) in CHECKS {
            if name == format!("{}/{which}", case.name) {
                println!("{}", case.run(checks, 1));
            }
        }
    }
}

fn main() {
    let mut args = std::env::args().skip_while(|arg| arg != "--once").skip(1);
    if let Some(name) = args.next() {
        return once(&name);
    }
    one_core(&mut host::criterion());
    cores(&mut Criterion::default().configure_from_args());
}
