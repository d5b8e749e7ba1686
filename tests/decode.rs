//! Decode against dense attention in f64: the shipped PTX, through the safe API, on the emulator with all its checks on
//! (or on the driver that `PAGEDPTX_DRIVER` names).
//!
//! Every problem has NaN in all slots that no live token owns and poisoned outputs (`pagedptx_harness::draw`, `runner`).

mod any_driver;

use std::rc::Rc;

use pagedptx::Device;
use pagedptx_harness::call::{Call, Shape};
use pagedptx_harness::counting;
use pagedptx_harness::draw::{Fill, Limits, Spec, decode_specs};
use pagedptx_harness::dtype::Dtype;
use pagedptx_harness::problem::Attention;
use pagedptx_harness::runner::{Output, arithmetic, attend, check_attention};
use pagedptx_harness::{EmulatorDriver, EmulatorOptions};
use proptest::prelude::*;

use crate::any_driver::AnyDriver;

fn device() -> Rc<Device<AnyDriver>> {
    any_driver::device(EmulatorOptions::default())
}

/// A device of so many multiprocessors, whose CTAs and warps run in the order that a seed draws (a GPU has its own).
fn device_of(num_multiprocessors: u32, seed: u64) -> Rc<Device<AnyDriver>> {
    any_driver::device(EmulatorOptions { num_multiprocessors, seed, ..EmulatorOptions::default() })
}

fn check(problem: &Attention) -> Output {
    check_attention(&device(), problem).unwrap_or_else(|failure| panic!("{failure}"))
}

/// One sequence of a problem with one query row for each.
fn only(problem: &Attention, seq: usize) -> Attention {
    let width = problem.max_blocks_per_seq;
    Attention {
        q: problem.q.rows(seq..seq + 1),
        block_table: problem.block_table[seq * width..][..width].to_vec(),
        seq_lens: vec![problem.seq_lens[seq]],
        query_start_loc: vec![0, 1],
        ..problem.clone()
    }
}

/// One row of an output.
fn row(output: &Output, row: usize) -> Output {
    let heads = output.out.shape[1];
    Output { out: output.out.rows(row..row + 1), lse: output.lse[row * heads..][..heads].to_vec() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Outputs and lse lie within the computed bound of dense attention, for any types, group size, head_dim, block size,
    /// lengths, fill, sharing and placement of blocks.
    #[test]
    fn decode_is_dense_attention(spec in decode_specs(&Limits::default())) {
        check(&spec.build());
    }

    /// A sequence's output has the same bits wherever its blocks lie and whatever the unused table entries hold.
    #[test]
    fn bits_do_not_depend_on_where_blocks_lie(spec in decode_specs(&Limits::default()), other: u64) {
        let moved = Spec { placement: other, ..spec.clone() };
        let (here, there) = (check(&spec.build()), check(&moved.build()));
        prop_assert_eq!(here.bits(), there.bits());
    }

    /// A sequence's output has the same bits alone as in any batch, at any position in it.
    #[test]
    fn bits_do_not_depend_on_the_batch(spec in decode_specs(&Limits::default())) {
        let problem = spec.build();
        let device = device();
        let batch = check(&problem);
        for seq in 0..problem.num_seqs() {
            let alone = attend(&device, &only(&problem, seq)).unwrap_or_else(|failure| panic!("{failure}"));
            let batched = row(&batch, seq);
            prop_assert_eq!(alone.bits(), batched.bits(), "sequence {}", seq);
        }
    }

    /// A sequence's output has the same bits on any number of multiprocessors, in whatever order CTAs and warps run.
    #[test]
    fn bits_do_not_depend_on_the_device(
        spec in decode_specs(&Limits::default()),
        devices in prop::collection::vec((1..=40u32, any::<u64>()), 3),
    ) {
        let problem = spec.build();
        let expected = check(&problem);
        for (num_multiprocessors, seed) in devices {
            let output = attend(&device_of(num_multiprocessors, seed), &problem)
                .unwrap_or_else(|failure| panic!("{failure}"));
            prop_assert_eq!(output.bits(), expected.bits(), "{} {}", num_multiprocessors, seed);
        }
    }
}

/// Types of queries and of the pool, one pair for each kind of kernel.
const PAIRS: [(Dtype, Dtype); 4] = [
    (Dtype::F32, Dtype::F32),
    (Dtype::F16, Dtype::Bf16),
    (Dtype::Bf16, Dtype::F32),
    (Dtype::F16, Dtype::F16),
];

/// Long sequences beside short ones: partial results of dozens of chunks, merged by whichever CTA comes last, agree with dense
/// attention and have the same bits alone, on any number of multiprocessors and under any seed.
#[test]
fn long_sequences_are_merged_from_their_chunks() {
    for (q_dtype, kv_dtype) in PAIRS {
        // More chunks than the 32 that one step of the merge weighs; more heads than one of its steps takes.
        let longest = if arithmetic(q_dtype, kv_dtype).matrix { 70_001 } else { 8_300 };
        for (heads, lens) in [((3, 1), [longest, 1, 0, 1_730]), ((11, 1), [513, 2_049, 129, 4_641])]
        {
            let mut spec = Spec::decode(q_dtype, heads, 16, &lens);
            spec.kv_dtype = kv_dtype;
            spec.fill = Fill::Sharp;
            let problem = spec.build();
            let expected = check(&problem);
            for (num_multiprocessors, seed) in [(1, 1), (3, 2), (132, 3)] {
                let device = device_of(num_multiprocessors, seed);
                let output =
                    attend(&device, &problem).unwrap_or_else(|failure| panic!("{failure}"));
                assert_eq!(output.bits(), expected.bits(), "{num_multiprocessors}, {seed}");
            }
            for seq in 0..lens.len() {
                let alone = attend(&device(), &only(&problem, seq))
                    .unwrap_or_else(|failure| panic!("{failure}"));
                assert_eq!(alone.bits(), row(&expected, seq).bits(), "sequence {seq}");
            }
        }
    }
}

/// Scales of either sign, none and large.
#[test]
fn any_scale_is_dense_attention() {
    for (q_dtype, kv_dtype) in PAIRS {
        for sm_scale in [-0.25, 0.0, -0.0, 1e-30, 2.0] {
            let mut spec = Spec::decode(q_dtype, (6, 2), 72, &[77, 1]);
            spec.kv_dtype = kv_dtype;
            let mut problem = spec.build();
            problem.sm_scale = sm_scale;
            check(&problem);
        }
    }
}

/// Where all keys of a sequence are equal, outputs are the mean of the values, however large the scores, up to the 2²⁶ that `sm_scale`
/// is said to allow. (The bound of dense attention says little there: a score is rounded to several units.)
#[test]
fn scores_may_be_as_large_as_is_said() {
    for (q_dtype, kv_dtype) in PAIRS.into_iter().chain([(Dtype::Bf16, Dtype::Bf16)]) {
        let mut spec = Spec::decode(q_dtype, (6, 2), 72, &[77, 1, 700]);
        spec.kv_dtype = kv_dtype;
        spec.fill = Fill::Constant;
        let mut problem = spec.build();
        problem.sm_scale = 0.0;
        let mean = check(&problem).out.values();
        let largest = largest_score(&problem);
        let values = problem.v_cache.values();
        let max_abs_v =
            values.iter().filter(|v| !v.is_nan()).fold(0.0, |max: f64, v| max.max(v.abs()));
        let unit = [q_dtype, kv_dtype].map(Dtype::unit_roundoff).into_iter().fold(0.0, f64::max);
        for step in 0..24 {
            let sign = if step % 2 == 0 { 1.0 } else { -1.0 };
            problem.sm_scale = sign * (67_108_863.0 - 1e6 * f64::from(step)) / largest;
            let output = attend(&device(), &problem).unwrap_or_else(|failure| panic!("{failure}"));
            for (got, mean) in output.out.values().into_iter().zip(&mean) {
                let error = (got - mean).abs();
                assert!(
                    error <= (4.0 * unit + 1e-5) * max_abs_v,
                    "{spec:?}, {}: {got}, not {mean}",
                    problem.sm_scale
                );
            }
        }
    }
}

/// The largest magnitude of a score, without `sm_scale`.
fn largest_score(problem: &Attention) -> f64 {
    let (head_dim, heads) = (problem.head_dim(), problem.num_q_heads());
    let mut largest = 0.0_f64;
    for row in 0..problem.num_seqs() * heads {
        let (seq, kv_head) = (row / heads, row % heads / problem.group_size());
        let key = problem.kv_index(problem.slot(seq, 0), kv_head);
        let products = (0..head_dim)
            .map(|dim| problem.q.get(row * head_dim + dim) * problem.k_cache.get(key + dim));
        largest = largest.max(products.sum::<f64>().abs());
    }
    largest
}

/// Every group of 32 dims and every pairing of types has a kernel that gives the right result, the last dims of a group
/// included.
#[test]
fn every_variant_is_dense_attention() {
    let device = device();
    let types = [Dtype::F32, Dtype::F16, Dtype::Bf16];
    for (index, head_dim) in
        [8, 32, 40, 64, 80, 96, 104, 128, 136, 160, 192, 224, 248, 256].into_iter().enumerate()
    {
        for q_dtype in types {
            for kv_dtype in types {
                let mut spec = Spec::decode(q_dtype, (2, 1), head_dim, &[37, 5]);
                spec.kv_dtype = kv_dtype;
                spec.seed = index as u64;
                check_attention(&device, &spec.build())
                    .unwrap_or_else(|failure| panic!("{head_dim} {q_dtype} {kv_dtype}: {failure}"));
            }
        }
    }
}

/// Lengths around every boundary: none, one token, a block, a tile of 16 tokens, the stages of a ring, a chunk.
#[test]
fn every_boundary_is_masked_exactly() {
    for block_size in [1, 2, 15, 16, 17, 32, 33, 64, 100] {
        let boundaries: [usize; 9] =
            [0, 1, 16, 32, 33, 128, block_size, 4 * block_size, 5 * block_size];
        let mut lens: Vec<usize> =
            boundaries.iter().flat_map(|&len| [len.saturating_sub(1), len, len + 1]).collect();
        lens.sort_unstable();
        lens.dedup();
        for dtype in [Dtype::F32, Dtype::F16] {
            let mut spec = Spec::decode(dtype, (3, 1), 16, &lens);
            spec.block_size = block_size;
            check(&spec.build());
        }
    }
}

/// Every fill, scores of many thousands and subnormal ones included, at a length of several hundred.
#[test]
fn every_fill_is_dense_attention() {
    for fill in Fill::ALL {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let mut spec = Spec::decode(dtype, (7, 1), 64, &[333, 77]);
            spec.fill = fill;
            check(&spec.build());
        }
    }
}

/// Group sizes that other libraries leave out, MQA with 71 and 64 heads among them.
#[test]
fn any_group_size_works() {
    for group_size in [1, 2, 3, 4, 5, 7, 9, 16, 17, 25, 32, 33, 64, 71] {
        for (q_dtype, kv_dtype) in PAIRS {
            let mut spec = Spec::decode(q_dtype, (2 * group_size, 2), 64, &[33, 0, 150]);
            spec.kv_dtype = kv_dtype;
            check(&spec.build());
        }
    }
}

/// What a tile of 16 tokens of a KV head costs on the CUDA cores, in warp instructions of the loop and of the launch: for a group of
/// 8 at most 1.3 times its 1,024 FMAs. No bank conflict; at most 1.01 of the ideal sectors, and 1.05 of the bytes of K and V.
#[test]
fn a_tile_on_the_cuda_cores_costs_what_is_said() {
    for (q_heads, most_in_loop, most) in
        [(8, 1_331.0, 1_400.0), (4, 770.0, 830.0), (1, 490.0, 540.0)]
    {
        let shape =
            Shape { q_heads, kv_heads: 1, head_dim: 128, block_size: 16, lengths: vec![4_096] };
        let device = Device::new(EmulatorDriver::default()).unwrap();
        let stream = device.stream().unwrap();
        let mut plan = shape.plan::<_, f32>(&stream).unwrap();
        Call::<_, f32>::new(&stream, &shape, 0).unwrap().decode(&mut plan).unwrap();
        let (counters, tiles) = (device.driver().last_counters(), shape.tiles());
        let launch = counters.instructions.warps as f64 / tiles as f64;
        let in_loop = counting::loop_instructions(plan.kernel().ptx, &counters, tiles).unwrap();
        assert!(in_loop <= most_in_loop, "{shape}: {in_loop} per tile in the loop");
        assert!(launch <= most, "{shape}: {launch} per tile");
        let (loads, shared) = (counters.global_loads, counters.shared);
        let sectors = loads.sectors as f64 / loads.ideal_sectors as f64;
        assert!(sectors <= 1.01, "{shape}: sectors {sectors} of ideal");
        let bytes = 32.0 * loads.sectors as f64 / shape.kv_bytes(4) as f64;
        assert!(bytes <= 1.05, "{shape}: {bytes} of the bytes of K and V");
        assert_eq!(shared.wavefronts, shared.ideal_wavefronts, "{shape}: bank conflicts");
    }
}
