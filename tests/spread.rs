//! How a launch's work is spread over its CTAs: a launch is taken apart, each CTA run alone, and its tiles counted.

use std::cell::RefCell;

use half::bf16;
use pagedptx::{
    BlockTables, Buffer, DecodeArgs, DecodePlan, Device, Driver, KvPool, LaunchShape, PoolShape,
    Result, Sequence, decode,
};
use pagedptx_harness::{EmulatorDriver, EmulatorKernel, EmulatorOptions, Rewrite, Watch, Watched};
use ptx_emulator::Checks;

/// Those of an H100.
const NUM_MULTIPROCESSORS: usize = 132;

/// A kernel that takes its place in the grid from the last two fields of the parameters, which decode_mma does not use.
const FROM_PARAMETERS: [Rewrite; 2] = [
    Rewrite {
        entries: "decode_mma",
        from: "mov.u32 %unit, %ctaid.x;",
        to: "ld.param.u32 %unit, [params+196];",
    },
    Rewrite {
        entries: "decode_mma",
        from: "mov.u32 %grid, %nctaid.x;",
        to: "ld.param.u32 %grid, [params+192];",
    },
];

/// Takes launches apart into those of single CTAs, in an order that is not theirs, and keeps the matrix instructions of each.
#[derive(Default)]
struct Apart(RefCell<Vec<u64>>);

// SAFETY: all CTAs of a launch run, each to its end.
unsafe impl Watch for Apart {
    unsafe fn launch(
        &self,
        emulator: &EmulatorDriver,
        kernel: &EmulatorKernel,
        shape: &LaunchShape,
        params: &[u8],
    ) -> Result<()> {
        let grid = shape.grid[0];
        let one = LaunchShape { grid: [1, 1, 1], ..*shape };
        let mut counted = vec![0; grid as usize];
        // 5 has no factor in common with the grids here: every CTA comes once.
        for cta in (0..grid).map(|i| i * 5 % grid) {
            let mut params = params.to_vec();
            params[192..196].copy_from_slice(&grid.to_le_bytes());
            params[196..].copy_from_slice(&cta.to_le_bytes());
            // SAFETY: the caller's promise, for a part of the launch.
            unsafe { emulator.launch(&(), kernel, &one, &params)? };
            counted[cta as usize] = emulator.last_counters().matrix_instructions;
        }
        self.0.replace(counted);
        Ok(())
    }
}

/// One call with 64 query heads on 8 KV heads of 128 dims, in bf16. All sequences share the few blocks of the pool: the
/// number of tiles counts here, not their contents.
fn attend<D: Driver>(device: &Device<D>, lens: &[u32]) -> Result<(Vec<bf16>, u64)> {
    let stream = device.stream()?;
    let shape = PoolShape { num_blocks: 16, block_size: 16, num_kv_heads: 8, head_dim: 128 };
    let longest = lens.iter().fold(1, |longest, len| longest.max(*len));
    let width = longest.div_ceil(16) as usize;
    let values = |count: usize, step: usize| -> Vec<bf16> {
        (0..count).map(|i| bf16::from_f32((i * step % 31) as f32 / 16.0 - 1.0)).collect()
    };
    let mut pool = KvPool::<_, bf16>::new(&stream, shape)?;
    pool.write_k(&values(pool.k().len(), 3))?;
    pool.write_v(&values(pool.v().len(), 7))?;
    let mut plan = DecodePlan::<_, bf16, bf16>::new(&stream, shape, 64, lens.len(), width)?;
    let mut tables = BlockTables::new(&stream, shape, lens.len(), width)?;
    let blocks: Vec<u32> = (0..width as u32).map(|i| i * 7 % 16).collect();
    tables.set(lens.iter().map(|&len| Sequence { blocks: &blocks, len }))?;
    let q = Buffer::from_slice(&stream, &values(lens.len() * 64 * 128, 5))?;
    let mut out = Buffer::zeroed(&stream, q.len())?;
    let args = DecodeArgs { q: &q, out: &mut out, lse: None, sm_scale: 0.125 };
    decode(&mut plan, &pool, &tables, args)?;
    let tiles = lens.iter().map(|len| u64::from(len.div_ceil(16))).sum::<u64>() * 8;
    Ok((out.to_vec()?, tiles))
}

fn options() -> EmulatorOptions {
    EmulatorOptions {
        num_multiprocessors: NUM_MULTIPROCESSORS as u32,
        // What is counted here is checked elsewhere.
        checks: Checks::NONE,
        traffic: false,
        ..EmulatorOptions::default()
    }
}

/// The most over the mean.
fn peak(counts: &[u64]) -> f64 {
    let most = counts.iter().max().expect("a grid has CTAs");
    *most as f64 * counts.len() as f64 / counts.iter().sum::<u64>() as f64
}

/// One sequence of 45,000 tokens among short ones, wherever it stands in the batch, does not serialise: no CTA gets more than 1.95 times
/// what all get on average, and no multiprocessor, with CTAs c, c + 132, ... of the grid, more than 1.42 times.
///
/// Less than a chunk is never left to a CTA: with 128 tiles, the chunk of 45,118 tokens, and a mean of 67 the first batch has
/// 1.90 at least, on any schedule. Smaller chunks spread better and take longer: an H200 read this batch's K and V at 3,602 GB/s with
/// chunks of 64 tiles at most, at 3,826 with these.
#[test]
fn a_long_sequence_among_short_ones_does_not_serialise() {
    let ragged = vec![4_641, 45_118, 1_730, 1_696];
    let among = |place: usize, shorts: usize| {
        let mut lens = vec![1_024; shorts];
        lens.insert(place, 45_000);
        lens
    };
    for (lens, cta_limit, limit) in [
        (ragged, 1.95, 1.3),
        (among(0, 63), 1.45, 1.2),
        (among(20, 63), 1.45, 1.2),
        (among(63, 63), 1.45, 1.2),
        (among(7, 15), 1.7, 1.42),
    ] {
        let emulator = EmulatorDriver::new(EmulatorOptions {
            rewrites: FROM_PARAMETERS.to_vec(),
            ..options()
        });
        let apart = Device::new(Watched { emulator, watch: Apart::default() }).unwrap();
        let (out, tiles) = attend(&apart, &lens).unwrap();
        let counts = apart.driver().watch.0.take();
        assert_eq!(counts.len(), 3 * NUM_MULTIPROCESSORS, "three CTAs a multiprocessor");
        // 16 products of Q and K, 8 of V and P: every tile of every KV head is worked on, by one CTA.
        assert_eq!(counts.iter().sum::<u64>(), 24 * tiles, "{lens:?}");
        assert!(counts.iter().all(|count| count % 24 == 0), "whole tiles");
        let by_multiprocessor: Vec<u64> = (0..NUM_MULTIPROCESSORS)
            .map(|first| counts[first..].iter().step_by(NUM_MULTIPROCESSORS).sum())
            .collect();
        let (ctas, multiprocessors) = (peak(&counts), peak(&by_multiprocessor));
        println!("{} sequences: CTAs {ctas:.3}, multiprocessors {multiprocessors:.3}", lens.len());
        assert!(ctas <= cta_limit, "{lens:?}: the busiest CTA has {ctas} times the mean");
        assert!(multiprocessors <= limit, "{lens:?}: {multiprocessors} times the mean");
        // The parts were those of the launch: it gives the same bits in one piece.
        if lens.len() == 4 {
            let whole = Device::new(EmulatorDriver::new(options())).unwrap();
            assert_eq!(attend(&whole, &lens).unwrap().0, out);
        }
    }
}
