//! Kernels broken on purpose: each must fail the checks that the shipped ones pass.

use pagedptx::Device;
use pagedptx_harness::draw::{AppendSpec, Fill, Spec};
use pagedptx_harness::dtype::Dtype;
use pagedptx_harness::problem::Attention;
use pagedptx_harness::runner::{self, Failure};
use pagedptx_harness::{EmulatorDriver, EmulatorOptions, Rewrite};

fn device(rewrites: &[Rewrite]) -> Device<EmulatorDriver> {
    let options = EmulatorOptions { rewrites: rewrites.to_vec(), ..EmulatorOptions::default() };
    Device::new(EmulatorDriver::new(options)).expect("the emulator is sm_90")
}

/// Problems small enough to try every mutant on, and large enough for each fault to show: 130 tokens are more than a
/// chunk on the CUDA cores, 530 on the tensor cores, five heads more than half of what a warp takes on the CUDA cores.
fn problem(q_dtype: Dtype, kv_dtype: Dtype, fill: Fill) -> Attention {
    let longest = if runner::arithmetic(q_dtype, kv_dtype).matrix { 530 } else { 130 };
    let mut spec = Spec::decode(q_dtype, (10, 2), 72, &[1, 17, 0, longest]);
    spec.kv_dtype = kv_dtype;
    spec.fill = fill;
    // Block 0, where a kernel looks that has no block id, is one with NaN in 14 of its 16 slots.
    spec.placement = 2;
    spec.build()
}

/// Pairs of types that the CUDA cores take.
const CUDA_CORES: [(Dtype, Dtype); 3] =
    [(Dtype::F32, Dtype::F32), (Dtype::F16, Dtype::Bf16), (Dtype::Bf16, Dtype::F32)];

/// Pairs of types that the tensor cores take.
const TENSOR_CORES: [(Dtype, Dtype); 2] = [(Dtype::F16, Dtype::F16), (Dtype::Bf16, Dtype::Bf16)];

const fn decode(from: &'static str, to: &'static str) -> Rewrite {
    Rewrite { entries: "decode_d", from, to }
}

const fn mma(from: &'static str, to: &'static str) -> Rewrite {
    Rewrite { entries: "decode_mma", from, to }
}

/// What is broken, and how.
const DECODE_MUTANTS: [(&str, Rewrite); 25] = [
    ("a token past the end is scored", decode("selp.f32 %score0, %score0, 0fFF800000, %p;", "")),
    (
        "tokens past the end are loaded",
        decode("setp.lt.s32 %p, %fill_row, %copy_tokens;", "setp.lt.s32 %p, %fill_row, 16;"),
    ),
    (
        "the newest key is dropped",
        decode(
            "sub.u32 %first_tokens, %len, %other;",
            "sub.u32 %first_tokens, %len, %other;\nsub.u32 %first_tokens, %first_tokens, 1;",
        ),
    ),
    (
        "the first tile does not pass through the mask",
        decode("mov.f32 %row_limit0, 0f7FC00000;", "mov.f32 %row_limit0, 0f7F7FFFFF;"),
    ),
    ("the accumulator is not rescaled", decode("mul.f32 %acc0, %acc0, %factor;", "")),
    ("the row sum is not rescaled", decode("mul.f32 %row_sum0, %row_sum0, %row_factor0;", "")),
    (
        "a head is rescaled by another's factor",
        decode(
            "shfl.sync.idx.b32 %factor, %row_factor0, 1, 31,",
            "shfl.sync.idx.b32 %factor, %row_factor1, 1, 31,",
        ),
    ),
    (
        "a tile is skipped",
        decode(
            "sub.u32 %tiles_left, %tiles_left, 1;\nsetp.ne.u32 %p, %tiles_left, 0;",
            "sub.u32 %tiles_left, %tiles_left, 1;\nsetp.gt.s32 %p, %tiles_left, 1;",
        ),
    ),
    (
        "a block id is off by one",
        decode(
            "mul.lo.u32 %offsets, %next_id, %block_stride_8;",
            "add.u32 %next_id, %next_id, 1;\nmul.lo.u32 %offsets, %next_id, %block_stride_8;",
        ),
    ),
    (
        "the third tile is read from the first one's block",
        decode("sub.u32 %row_block, %row_block, %step_blocks;", ""),
    ),
    (
        "the second tile is read from the first one's rows",
        decode("shfl.sync.bfly.b32 %offsets, %offsets, 16, 31, 0xffffffff;", ""),
    ),
    (
        "the scale is off by 0.2 %",
        decode(
            "ld.param.f32 %score_scale, [params+160];",
            "ld.param.f32 %score_scale, [params+160];\nmul.f32 %score_scale, %score_scale, 0f3F804189;",
        ),
    ),
    (
        "heads read another group's keys",
        decode(
            "mad.lo.u32 %first_q_head, %kv_head, %group_size, %first_row;",
            "sub.u32 %first_q_head, 1, %kv_head;\nmad.lo.u32 %first_q_head, %first_q_head, %group_size, %first_row;",
        ),
    ),
    (
        "a warp stops after four heads",
        decode("setp.gt.s32 %p_above_4, %warp_rows, 4;", "setp.gt.s32 %p_above_4, %warp_rows, 5;"),
    ),
    (
        "two lanes keep each other's scores",
        decode(
            "selp.f32 %keep, %sum1, %sum0, %p_odd_lane;",
            "selp.f32 %keep, %sum0, %sum1, %p_odd_lane;",
        ),
    ),
    (
        "a token's probability is another's",
        decode(
            "st.shared.f32 [%s_prob_write+128], %prob1;",
            "st.shared.f32 [%s_prob_write+128], %prob0;",
        ),
    ),
    ("row sums leave out a token", decode("add.f32 %row_sum0, %row_sum0, %prob1;", "")),
    ("copies are not awaited", decode("cp.async.wait_group 2;", "cp.async.wait_group 3;")),
    (
        "lanes do not wait for each other's copies",
        decode("bar.sync 0;\n@!%p_refill bra.uni $v_refilled;", "@!%p_refill bra.uni $v_refilled;"),
    ),
    ("what is past head_dim is not cleared", decode("@%p bra $pad_cleared;", "bra $pad_cleared;")),
    (
        "a chunk's partial result is written to another's place",
        decode(
            "mul.wide.u32 %g_partial, %unit, %group_size;",
            "mul.wide.u32 %g_partial, %chunk, %group_size;",
        ),
    ),
    (
        "a chunk's statistics are written to another's place",
        decode(
            "mad.lo.u32 %tmp, %warp, 8, %first_q_head;\nmul.lo.u32 %tmp, %tmp, %chunks;\nadd.u32 %tmp, %tmp, %chunk;",
            "mad.lo.u32 %tmp, %warp, 8, %first_q_head;\nmul.lo.u32 %tmp, %tmp, %chunks;",
        ),
    ),
    (
        "no CTA thinks that it is the last",
        decode("sub.u32 %last_arrival, %chunks, 1;", "mov.u32 %last_arrival, %chunks;"),
    ),
    ("lse lacks the maximum", decode("add.f32 %lse_value, %lse_value, %all_max;", "")),
    (
        "an empty row divides by its sum",
        decode("selp.f32 %inverse, 0f00000000, %inverse, %p_empty;", ""),
    ),
];

/// What is broken in the kernel for the tensor cores.
const MMA_MUTANTS: [(&str, Rewrite); 20] = [
    ("a token past the end is scored", mma("selp.f32 %score0, %score0, 0fFF800000, %p;", "")),
    (
        "tokens past the end are loaded",
        mma("setp.lt.s32 %p, %row_token, %tile_tokens;", "setp.lt.s32 %p, %row_token, 16;"),
    ),
    (
        "the newest key is dropped",
        mma(
            "sub.u32 %first_tokens, %len, %first_tokens;",
            "sub.u32 %first_tokens, %len, %first_tokens;\nsub.u32 %first_tokens, %first_tokens, 1;",
        ),
    ),
    ("the accumulator is not rescaled", mma("mul.f32 %acc0, %acc0, %factor_even;", "")),
    ("the row sum is not rescaled", mma("mul.f32 %row_sum0, %row_sum0, %factor;", "")),
    (
        "a tile is skipped",
        mma("add.u32 %tiles_left, %chunk_tiles, 3;", "mov.u32 %tiles_left, %chunk_tiles;"),
    ),
    (
        "a block id is off by one",
        mma(
            "mul.lo.u32 %offsets, %next_id, %block_stride_16;",
            "add.u32 %next_id, %next_id, 1;\nmul.lo.u32 %offsets, %next_id, %block_stride_16;",
        ),
    ),
    (
        "the scale is off by 0.2 %",
        mma(
            "ld.param.f32 %score_scale, [params+160];",
            "ld.param.f32 %score_scale, [params+160];\nmul.f32 %score_scale, %score_scale, 0f3F804189;",
        ),
    ),
    (
        "heads read another group's keys",
        mma(
            "mul.lo.u32 %first_q_head, %kv_head, %group_size;",
            "sub.u32 %first_q_head, 1, %kv_head;\nmul.lo.u32 %first_q_head, %first_q_head, %group_size;",
        ),
    ),
    (
        "probabilities of two tokens are exchanged",
        mma("%prob_frag0, %prob1, %prob0;", "%prob_frag0, %prob0, %prob1;"),
    ),
    ("row sums leave out a token", mma("add.f32 %row_sum0, %row_sum0, %prob1;", "")),
    ("copies are not awaited", mma("cp.async.wait_group 1;", "cp.async.wait_group 2;")),
    (
        "a warp's sum is not merged",
        mma("fma.rn.f32 %all_sum, %part_sum1, %factor_of1, %all_sum;", ""),
    ),
    (
        "a chunk's partial result is written to another's place",
        mma(
            "mul.wide.u32 %g_partial, %unit, %group_size;",
            "mul.wide.u32 %g_partial, %unit_in_chunk, %group_size;",
        ),
    ),
    (
        "no CTA thinks that it is the last",
        mma("sub.u32 %last_arrival, %chunks, 1;", "mov.u32 %last_arrival, %chunks;"),
    ),
    ("lse lacks the maximum", mma("add.f32 %lse_value, %lse_value, %all_max;", "")),
    (
        "the first tile's maximum is not taken",
        mma("selp.f32 %minus_max0, %new_minus_max, 0f7149F2CA, %p;", ""),
    ),
    (
        "chunks share the place of their statistics",
        mma("mad.lo.u32 %tmp, %tmp, %chunks, %chunk;", "mul.lo.u32 %tmp, %tmp, %chunks;"),
    ),
    ("a chunk is merged twice", mma("@%p_more add.u64 %g_part0, %g_part0, %chunk_step_bytes;", "")),
    (
        "q is read before it has landed",
        mma("$pad_cleared:\ncp.async.wait_group 0;", "$pad_cleared:"),
    ),
];

/// What the shipped kernels do on these problems is right, so that a mutant's failure is its own.
#[test]
fn the_shipped_kernels_pass() {
    for (q_dtype, kv_dtype) in CUDA_CORES.into_iter().chain(TENSOR_CORES) {
        for fill in [Fill::Normal, Fill::Falling] {
            runner::check_attention(&device(&[]), &problem(q_dtype, kv_dtype, fill))
                .unwrap_or_else(|failure| panic!("{q_dtype} {kv_dtype} {fill:?}: {failure}"));
        }
    }
    let (problem, device) = (append_problem().build(), device(&[]));
    runner::check_append(&device, &problem).unwrap_or_else(|failure| panic!("{failure}"));
}

/// The runner's bounds are those of the kernels that plans take.
#[test]
fn types_are_where_the_runner_says() {
    for (q_dtype, kv_dtype) in CUDA_CORES.into_iter().chain(TENSOR_CORES) {
        let device = device(&[]);
        let problem = problem(q_dtype, kv_dtype, Fill::Normal);
        runner::attend(&device, &problem).unwrap_or_else(|failure| panic!("{failure}"));
        let matrix = device.driver().counters().matrix_instructions > 0;
        assert_eq!(matrix, runner::arithmetic(q_dtype, kv_dtype).matrix, "{q_dtype} {kv_dtype}");
    }
}

/// Every mutant fails for every pair of types: on ordinary inputs, or on those whose maximum moves with every tile.
fn expect_faults(mutants: &[(&str, Rewrite)], dtypes: &[(Dtype, Dtype)]) {
    for (name, rewrite) in mutants {
        for &(q_dtype, kv_dtype) in dtypes {
            let check = |fill| {
                let problem = problem(q_dtype, kv_dtype, fill);
                runner::check_attention(&device(&[*rewrite]), &problem)
            };
            match check(Fill::Normal).and_then(|_| check(Fill::Falling)) {
                Ok(_) => panic!("{name}: {q_dtype} {kv_dtype} passes"),
                Err(failure) => expect_fault(name, &failure),
            }
        }
    }
}

/// Every mutant of decode fails.
#[test]
fn decode_mutants_fail() {
    expect_faults(&DECODE_MUTANTS, &CUDA_CORES);
}

/// Every mutant of decode_mma fails.
#[test]
fn decode_mma_mutants_fail() {
    expect_faults(&MMA_MUTANTS, &TENSOR_CORES);
}

const fn append(from: &'static str, to: &'static str) -> Rewrite {
    Rewrite { entries: "append", from, to }
}

const APPEND_MUTANTS: [(&str, Rewrite); 5] = [
    ("negative slots are written", append("@%p_skip bra.uni $done;", "")),
    (
        "slots are off by one",
        append(
            "mul.lo.u64 %cache_elem, %slot, %elems_64;",
            "sub.s64 %slot, %slot, 1;\nmul.lo.u64 %cache_elem, %slot, %elems_64;",
        ),
    ),
    (
        "keys are rounded toward zero",
        append("cvt.rn.bf16.f32 %half, %k_value;", "cvt.rz.bf16.f32 %half, %k_value;"),
    ),
    (
        "values are cut off",
        append("cvt.rn.bf16.f32 %half, %v_value;", "mov.b32 {%zero_half, %half}, %v_value;"),
    ),
    (
        "the last elements are not stored",
        append("setp.ge.u32 %p_done, %elem, %token_elems;", "setp.ge.u32 %p_done, %elem, 64;"),
    ),
];

/// Every mutant of append fails.
#[test]
fn append_mutants_fail() {
    let problem = append_problem().build();
    for (name, rewrite) in APPEND_MUTANTS {
        let failure = runner::check_append(&device(&[rewrite]), &problem).expect_err(name);
        expect_fault(name, &failure);
    }
}

fn append_problem() -> AppendSpec {
    AppendSpec {
        new_dtype: Dtype::F32,
        kv_dtype: Dtype::Bf16,
        num_kv_heads: 2,
        head_dim: 72,
        block_size: 3,
        num_tokens: 9,
        seed: 1,
    }
}

/// A mutant fails by its results or by a finding of the emulator, not because its text was not found or did not parse.
fn expect_fault(name: &str, failure: &Failure) {
    let is_fault = match failure {
        Failure::Wrong { .. } | Failure::Differs { .. } => true,
        Failure::Refused(pagedptx::Error::Driver { operation, .. }) => *operation == "launch",
        _ => false,
    };
    assert!(is_fault, "{name}: {failure}");
}
