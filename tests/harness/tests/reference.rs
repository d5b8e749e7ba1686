//! The reference on problems small enough to solve by hand: one query, head_dim 1, scores ln 1, ln 2, …

use approx::assert_relative_eq;
use pagedptx_harness::dtype::Dtype;
use pagedptx_harness::problem::{Append, Attention, Mask, Merge, Scale, Tensor};
use pagedptx_harness::reference::{self, Expected};

/// One KV head, head_dim 1, blocks of 2: sequence 0 holds `keys` and `values`, the last `query_len` tokens
/// are queries of value 1, so that key e^s has weight s in the softmax.
fn line(keys: &[f64], values: &[f64], query_len: usize) -> Attention {
    let num_blocks = keys.len().div_ceil(2) + 1;
    let mut cache = [vec![f64::NAN; 2 * num_blocks], vec![f64::NAN; 2 * num_blocks]];
    // Blocks from the last to the first, so that order in memory is not order in the sequence.
    let table: Vec<i32> = (0..num_blocks as i32).rev().collect();
    for token in 0..keys.len() {
        let slot = 2 * (num_blocks - 1 - token / 2) + token % 2;
        cache[0][slot] = keys[token];
        cache[1][slot] = values[token];
    }
    let shape = [num_blocks, 2, 1, 1];
    Attention {
        q: Tensor::from_values(Dtype::F32, &[query_len, 1, 1], &vec![1.0; query_len]),
        k_cache: Tensor::from_values(Dtype::F32, &shape, &cache[0]),
        v_cache: Tensor::from_values(Dtype::F32, &shape, &cache[1]),
        max_blocks_per_seq: table.len(),
        block_table: table,
        seq_lens: vec![keys.len()],
        query_start_loc: vec![0, query_len],
        sm_scale: 1.0,
        mask: Mask::causal(),
        k_scale: Scale::None,
        v_scale: Scale::None,
    }
}

fn logs(weights: &[f64]) -> Vec<f64> {
    weights.iter().map(|weight| weight.ln()).collect()
}

fn assert_rows(expected: &Expected, out: &[f64], exp_lse: &[f64]) {
    assert_eq!(expected.out.len(), out.len());
    for (got, want) in expected.out.iter().zip(out) {
        assert_relative_eq!(*got, *want, max_relative = 1e-6);
    }
    for (got, want) in expected.lse.iter().zip(exp_lse) {
        assert_relative_eq!(got.exp(), *want, max_relative = 1e-6);
    }
}

/// Weights 1, 2, 3 of values 6, 9, 12: (6 + 18 + 36) / 6.
#[test]
fn one_row() {
    let problem = line(&logs(&[1.0, 2.0, 3.0]), &[6.0, 9.0, 12.0], 1);
    assert_rows(&reference::attention(&problem), &[10.0], &[6.0]);
}

/// Two rows at the end: the first does not see the last key unless the mask is off.
#[test]
fn causal_rows_are_aligned_to_the_end() {
    let mut problem = line(&logs(&[1.0, 1.0, 2.0]), &[2.0, 4.0, 10.0], 2);
    assert_rows(&reference::attention(&problem), &[3.0, 26.0 / 4.0], &[2.0, 4.0]);
    problem.mask.causal = false;
    assert_rows(&reference::attention(&problem), &[6.5, 6.5], &[4.0, 4.0]);
}

/// More query rows than tokens: the rows before the start see nothing.
#[test]
fn rows_before_the_start_are_empty() {
    let mut problem = line(&logs(&[2.0]), &[5.0], 3);
    problem.mask.sinks = Some(vec![0.5]);
    let expected = reference::attention(&problem);
    let weight = 2.0 / (2.0 + 0.5f64.exp());
    assert_rows(&expected, &[0.0, 0.0, 5.0 * weight], &[0.0, 0.0, 2.0]);
    assert_eq!(expected.lse[..2], [f64::NEG_INFINITY; 2]);
    assert_eq!(expected.lse_sink[..2], [0.5; 2]);
}

/// A window of 2 leaves the row's own key and the one before.
#[test]
fn window_counts_its_own_key() {
    let mut problem = line(&logs(&[7.0, 1.0, 3.0]), &[100.0, 4.0, 8.0], 1);
    problem.mask.window = Some(2);
    assert_rows(&reference::attention(&problem), &[7.0], &[4.0]);
}

/// A sink of ln 4 takes 4 of 8 parts, and has no value.
#[test]
fn sinks_join_the_sum_once() {
    let mut problem = line(&logs(&[1.0, 3.0]), &[8.0, 16.0], 1);
    problem.mask.sinks = Some(vec![4f32.ln()]);
    let expected = reference::attention(&problem);
    assert_rows(&expected, &[(8.0 + 48.0) / 8.0], &[4.0]);
    assert_relative_eq!(expected.lse_sink[0].exp(), 8.0, max_relative = 1e-6);
}

/// The slope ln 2 halves a key's weight for each position it lies back.
#[test]
fn alibi_counts_from_the_query() {
    let mut problem = line(&logs(&[4.0, 2.0, 1.0]), &[1.0, 2.0, 6.0], 1);
    problem.mask.alibi = Some(vec![2f32.ln()]);
    assert_rows(&reference::attention(&problem), &[3.0], &[3.0]);
}

/// c·tanh(score / c) comes after the scale and before ALiBi.
#[test]
fn soft_cap_bounds_the_score() {
    let mut problem = line(&[300.0, -300.0], &[1.0, 3.0], 1);
    problem.sm_scale = 0.5;
    problem.mask.soft_cap = Some(2.0);
    problem.mask.alibi = Some(vec![1.0]);
    let (first, last) = ((2.0f64 - 1.0).exp(), (-2.0f64).exp());
    let out = (first + 3.0 * last) / (first + last);
    assert_rows(&reference::attention(&problem), &[out], &[first + last]);
}

/// Scales multiply the codes; each form is looked up by sequence and head.
#[test]
fn scales_multiply_codes() {
    let mut problem = line(&logs(&[1.0, 9.0]), &[2.0, 6.0], 1);
    problem.k_scale = Scale::PerHead(vec![0.5]);
    problem.v_scale = Scale::PerSeqAndHead(vec![10.0]);
    assert_rows(&reference::attention(&problem), &[50.0], &[4.0]);
    let scale = Scale::PerSeqAndHead(vec![1.0, 2.0, 3.0, 4.0]);
    assert_eq!((scale.factor(1, 0, 2), scale.factor(0, 1, 2)), (3.0, 2.0));
}

/// Query heads read the KV head of their group.
#[test]
fn heads_are_grouped_in_order() {
    let mut problem = line(&[0.0], &[0.0], 1);
    problem.q = Tensor::from_values(Dtype::F32, &[1, 6, 1], &[1.0; 6]);
    problem.k_cache = Tensor::filled(Dtype::F32, &[2, 2, 2, 1], 0.0);
    problem.v_cache =
        Tensor::from_values(Dtype::F32, &[2, 2, 2, 1], &[0., 0., 0., 0., 3., 4., 0., 0.]);
    assert_eq!(reference::attention(&problem).out, [3., 3., 3., 4., 4., 4.]);
}

/// Stores divide by the scale, round to nearest even, and leave alone what no slot names.
#[test]
fn append_writes_the_named_slots() {
    let new = Tensor::from_values(Dtype::F32, &[3, 1, 2], &[1.0, 3.0, 5.0, 7.0, 9.0, -1e9]);
    let cache = Tensor::filled(Dtype::E4m3, &[2, 2, 1, 2], f64::NAN);
    let problem = Append {
        k_new: new.clone(),
        v_new: new,
        k_cache: cache.clone(),
        v_cache: cache,
        slot_mapping: vec![3, -1, 0],
        k_scale: Scale::None,
        v_scale: Scale::Scalar(2.0),
    };
    let (k_cache, v_cache) = reference::append(&problem);
    let poison = 0x7F;
    assert_eq!(k_cache.bytes, [0x51, 0xFE, poison, poison, poison, poison, 0x38, 0x44]);
    assert_eq!(v_cache.bytes, [0x49, 0xFE, poison, poison, poison, poison, 0x30, 0x3C]);
}

/// Between equal types bits are copied: a NaN keeps its payload.
#[test]
fn append_copies_equal_types() {
    let nan = Tensor { dtype: Dtype::F16, shape: vec![1, 1, 1], bytes: vec![0x05, 0xFE] };
    let cache = Tensor::filled(Dtype::F16, &[1, 2, 1, 1], 1.0);
    let problem = Append {
        k_new: nan.clone(),
        v_new: nan,
        k_cache: cache.clone(),
        v_cache: cache,
        slot_mapping: vec![1],
        k_scale: Scale::None,
        v_scale: Scale::None,
    };
    assert_eq!(reference::append(&problem).0.bytes, [0x00, 0x3C, 0x05, 0xFE]);
}

/// Parts of weights 1 and 3 join to their mean; both infinities mark an empty part, whatever it holds.
#[test]
fn merge_weighs_by_lse() {
    let problem = Merge {
        outs: Tensor::from_values(
            Dtype::F32,
            &[3, 2, 1, 1],
            &[4.0, f64::NAN, 8.0, 1.0, f64::NAN, 1.0],
        ),
        lses: vec![0.0, f32::INFINITY, 3f32.ln(), f32::NEG_INFINITY, f32::INFINITY, f32::INFINITY],
        sinks: None,
    };
    let expected = reference::merge(&problem);
    assert_rows(&expected, &[7.0, 0.0], &[4.0, 0.0]);
    let sunk = reference::merge(&Merge { sinks: Some(vec![4f32.ln()]), ..problem });
    assert_rows(&sunk, &[3.5, 0.0], &[4.0, 0.0]);
    assert_relative_eq!(sunk.lse_sink[0].exp(), 8.0, max_relative = 1e-6);
}
