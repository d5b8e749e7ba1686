//! Kernels broken on purpose: each must fail the checks that the shipped ones pass.

use pagedptx::Device;
use pagedptx_harness::draw::{AppendSpec, Fill, Spec};
use pagedptx_harness::dtype::Dtype;
use pagedptx_harness::runner::{self, Failure};
use pagedptx_harness::{EmulatorDriver, EmulatorOptions, Rewrite};

fn device(rewrites: &[Rewrite]) -> Device<EmulatorDriver> {
    let options = EmulatorOptions { rewrites: rewrites.to_vec(), ..EmulatorOptions::default() };
    Device::new(EmulatorDriver::new(options)).expect("the emulator is sm_90")
}

/// Problems small enough to try every mutant on, and large enough for each fault to show.
fn problems() -> Vec<Spec> {
    let mut problems = Vec::new();
    for fill in [Fill::Normal, Fill::Sharp] {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let mut spec = Spec::decode(dtype, (4, 2), 72, &[1, 17, 0, 130]);
            spec.fill = fill;
            problems.push(spec);
        }
    }
    problems
}

const fn decode(from: &'static str, to: &'static str) -> Rewrite {
    Rewrite { entries: "decode", from, to }
}

/// What is broken, and how.
const DECODE_MUTANTS: [(&str, Rewrite); 14] = [
    (
        "the partial last block is not masked",
        decode(
            "min.u32 %tokens_left, %tokens_left, %block_size;",
            "mov.u32 %tokens_left, %block_size;",
        ),
    ),
    (
        "the newest key is dropped",
        decode(
            "ld.global.nc.u32 %len, [%g_row];",
            "ld.global.nc.u32 %len, [%g_row];\n    max.u32 %len, %len, 1;\n    sub.u32 %len, %len, 1;",
        ),
    ),
    ("the accumulator is not rescaled", decode("mul.f32 %acc0, %acc0, %rescale;", "")),
    (
        "the row sum is not rescaled",
        decode(
            "fma.rn.f32 %row_sum, %row_sum, %rescale, %prob;",
            "add.f32 %row_sum, %row_sum, %prob;",
        ),
    ),
    (
        "the first block is skipped",
        decode("mov.u32 %block_index, %warp;", "add.u32 %block_index, %warp, 1;"),
    ),
    (
        "a block id is off by one",
        decode(
            "ld.global.nc.u32 %block_id, [%g_entry];",
            "ld.global.nc.u32 %block_id, [%g_entry];\n    add.u32 %block_id, %block_id, 1;",
        ),
    ),
    (
        "a row of the block table is not as wide as said",
        decode("mul.wide.u32 %row_64, %seq, %table_width;", "mul.wide.u32 %row_64, %seq, 2;"),
    ),
    (
        "heads read another group's keys",
        decode(
            "mad.lo.u32 %q_head, %kv_head, %group_size, %head_in_group;",
            "mad.lo.u32 %q_head, %head_in_group, %num_kv_heads, %kv_head;",
        ),
    ),
    (
        "the scale is off by 0.2 %",
        decode(
            "ld.param.f32 %scale_log2, [params+76];",
            "ld.param.f32 %scale_log2, [params+76];\n    mul.f32 %scale_log2, %scale_log2, 0f3F804189;",
        ),
    ),
    (
        "a warp's sum is not merged",
        decode("fma.rn.f32 %all_sum, %part_sum, %factor1, %all_sum;", ""),
    ),
    (
        "a warp's part is merged with another's factor",
        decode(
            "fma.rn.f32 %value, %part_acc, %factor1, %value;",
            "fma.rn.f32 %value, %part_acc, %factor0, %value;",
        ),
    ),
    ("lse lacks the maximum", decode("add.f32 %lse_value, %lse_value, %safe_max;", "")),
    (
        "an empty row divides by its sum",
        decode("selp.f32 %inverse, 0f00000000, %inverse, %p_empty;", ""),
    ),
    (
        "the last dims are not written",
        decode(
            "setp.ge.u32 %p_dims_done, %out_dim, %head_dim;",
            "setp.ge.u32 %p_dims_done, %out_dim, 64;",
        ),
    ),
];

/// What the shipped kernels do on these problems is right, so that a mutant's failure is its own.
#[test]
fn the_shipped_kernels_pass() {
    for spec in problems() {
        runner::check_attention(&device(&[]), &spec.build())
            .unwrap_or_else(|failure| panic!("{spec:?}: {failure}"));
    }
    let (problem, device) = (append_problem().build(), device(&[]));
    runner::check_append(&device, &problem).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Every mutant of decode fails on every type, on ordinary inputs.
#[test]
fn decode_mutants_fail() {
    for (name, rewrite) in DECODE_MUTANTS {
        for spec in problems().into_iter().filter(|spec| spec.fill == Fill::Normal) {
            let failure =
                runner::check_attention(&device(&[rewrite]), &spec.build()).expect_err(name);
            expect_fault(name, &failure);
        }
    }
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
            "sub.s64 %slot, %slot, 1;\n    mul.lo.u64 %cache_elem, %slot, %elems_64;",
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
