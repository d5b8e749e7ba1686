//! Decode against dense attention in f64: the shipped PTX, through the safe API, on the emulator with all its checks on.
//!
//! Every problem has NaN in all slots that no live token owns and poisoned outputs (`pagedptx_harness::draw`, `runner`).

use pagedptx::Device;
use pagedptx_harness::EmulatorDriver;
use pagedptx_harness::draw::{Fill, Limits, Spec, decode_specs};
use pagedptx_harness::dtype::Dtype;
use pagedptx_harness::problem::Attention;
use pagedptx_harness::runner::{Output, attend, check_attention};
use proptest::prelude::*;

fn device() -> Device<EmulatorDriver> {
    Device::new(EmulatorDriver::default()).expect("the emulator is new enough")
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

/// Lengths around every boundary: none, one token, a block, a tile of 32 tokens, the stride of the warps.
#[test]
fn every_boundary_is_masked_exactly() {
    for block_size in [1, 2, 15, 16, 17, 32, 33, 64, 100] {
        let boundaries: [usize; 8] = [0, 1, 31, 32, 33, block_size, 4 * block_size, 5 * block_size];
        let mut lens: Vec<usize> =
            boundaries.iter().flat_map(|&len| [len.saturating_sub(1), len, len + 1]).collect();
        lens.sort_unstable();
        lens.dedup();
        let mut spec = Spec::decode(Dtype::F16, (3, 1), 16, &lens);
        spec.block_size = block_size;
        check(&spec.build());
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
    for group_size in [1, 5, 7, 9, 16, 17, 64, 71] {
        let spec = Spec::decode(Dtype::Bf16, (2 * group_size, 2), 64, &[33, 0, 50]);
        check(&spec.build());
    }
}
