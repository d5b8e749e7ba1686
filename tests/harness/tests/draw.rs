//! Drawn problems are what their description says.

use pagedptx_harness::draw::{
    AppendSpec, Fill, Limits, ScaleForm, Spec, append_specs, decode_specs,
};
use pagedptx_harness::dtype::Dtype;
use pagedptx_harness::reference;
use proptest::prelude::*;

/// Tokens of every sequence, in order, as bytes: what a problem means, wherever its blocks lie.
fn contents(spec: &Spec) -> Vec<Vec<u8>> {
    let problem = spec.build();
    let row_bytes = problem.num_kv_heads() * problem.head_dim() * problem.k_cache.dtype.bytes();
    let tokens = |seq: usize| (0..problem.seq_lens[seq]).map(move |token| (seq, token));
    (0..problem.num_seqs())
        .flat_map(tokens)
        .flat_map(|(seq, token)| {
            let start = problem.slot(seq, token) * row_bytes;
            [&problem.k_cache, &problem.v_cache]
                .map(|cache| cache.bytes[start..start + row_bytes].to_vec())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Live slots hold numbers, all others poison; used table entries lie in the pool; the reference is finite but for
    /// the lse of empty rows.
    #[test]
    fn decode_problems_are_sound(spec in decode_specs(&Limits { max_work: 20_000, ..Limits::default() })) {
        let problem = spec.build();
        let slot_elements = problem.num_kv_heads() * problem.head_dim();
        for (slot, live) in problem.live_slots().into_iter().enumerate() {
            for index in slot * slot_elements..(slot + 1) * slot_elements {
                prop_assert_eq!(problem.k_cache.get(index).is_finite(), live);
                prop_assert_eq!(problem.v_cache.get(index).is_finite(), live);
            }
        }
        let expected = reference::attention(&problem);
        prop_assert!(expected.out.iter().all(|out| out.is_finite()));
        for (index, lse) in expected.lse.iter().enumerate() {
            let seq = index / problem.num_q_heads();
            prop_assert_eq!(lse.is_finite(), problem.seq_lens[seq] > 0);
        }
    }

    /// The same description draws the same problem; another placement only moves blocks.
    #[test]
    fn placement_moves_blocks_only(spec in decode_specs(&Limits { max_work: 20_000, ..Limits::default() })) {
        prop_assert_eq!(spec.build(), spec.build());
        let moved = Spec { placement: spec.placement ^ 1, ..spec.clone() };
        prop_assert_eq!(spec.build().q, moved.build().q);
        prop_assert_eq!(contents(&spec), contents(&moved));
    }

    /// Slots of an append are distinct and in the pool, or negative.
    #[test]
    fn append_problems_are_sound(spec in append_specs()) {
        let problem = spec.build();
        let num_slots = (problem.k_cache.shape[0] * problem.k_cache.shape[1]) as i64;
        let mut slots: Vec<_> = problem.slot_mapping.iter().filter(|slot| **slot >= 0).collect();
        slots.sort();
        prop_assert!(slots.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(slots.last().is_none_or(|slot| **slot < num_slots));
        prop_assert_eq!(problem.slot_mapping.len(), spec.num_tokens);
    }
}

/// Sequences with a common prefix share its whole blocks, and only those.
#[test]
fn prefixes_share_blocks() {
    let mut spec = Spec::decode(Dtype::F16, (2, 1), 8, &[70, 40, 20, 0]);
    spec.shared_tokens = 35;
    let problem = spec.build();
    let row = |seq: usize| &problem.block_table[seq * problem.max_blocks_per_seq..];
    assert_eq!(row(0)[..2], row(1)[..2]);
    assert_eq!(row(0)[..1], row(2)[..1]);
    assert_ne!(row(0)[2], row(1)[2]);
    assert_ne!(row(0)[1], row(2)[1]);
}

/// Each fill makes the scores that its documentation promises.
#[test]
fn fills_make_their_scores() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        for head_dim in [8, 64, 256] {
            let mut spec = Spec::decode(dtype, (4, 2), head_dim, &[200]);
            let mut draw = |fill| {
                spec.fill = fill;
                reference::attention(&spec.build())
            };
            let constant = draw(Fill::Constant);
            for (lse, row) in constant.lse.iter().zip(&constant.rows) {
                assert!((lse.abs() - (200f64.ln() + row.max_score).abs()).abs() < 20.0);
                assert!((row.row_sum - 200.0).abs() < 1e-9, "all scores are equal");
            }
            assert!(draw(Fill::Huge).rows.iter().all(|row| row.max_score > 1000.0));
            assert!(draw(Fill::Deep).lse.iter().all(|lse| (-70_000.0..-30_000.0).contains(lse)));
            assert!(draw(Fill::NearZero).rows.iter().all(|row| row.max_score < 1e-9));
            assert!(draw(Fill::Rising).rows.iter().all(|row| row.row_sum < 40.0));
            assert!(draw(Fill::Falling).rows.iter().all(|row| row.row_sum < 40.0));
            assert!(draw(Fill::Sharp).rows.iter().all(|row| row.row_sum < 20.0));
            assert!(draw(Fill::Normal).rows.iter().all(|row| row.row_sum > 2.0));
        }
    }
}

/// 8-bit pools carry scales of the form asked for, and their values stay near N(0, 1).
#[test]
fn scaled_pools() {
    for (dtype, form) in [
        (Dtype::I8, ScaleForm::PerHead),
        (Dtype::E4m3, ScaleForm::Scalar),
        (Dtype::E5m2, ScaleForm::PerSeqAndHead),
    ] {
        let mut spec = Spec::decode(Dtype::F16, (4, 2), 64, &[30, 50]);
        spec.kv_dtype = dtype;
        spec.scale = form;
        let problem = spec.build();
        assert!(problem.k_scale.kind().is_some() && problem.v_scale.kind().is_some());
        let expected = reference::attention(&problem);
        assert!(expected.out.iter().all(|out| out.abs() < 6.0), "{dtype}");
        assert!(expected.rows.iter().all(|row| row.max_score > 0.5 && row.max_score < 20.0));
    }
}

/// Appends hold values that only exact rounding gets right: ties, specials, skipped tokens.
#[test]
fn appends_hold_hard_values() {
    let spec = AppendSpec {
        new_dtype: Dtype::F32,
        kv_dtype: Dtype::Bf16,
        num_kv_heads: 2,
        head_dim: 64,
        block_size: 3,
        num_tokens: 40,
        seed: 7,
    };
    let problem = spec.build();
    let values = problem.k_new.values();
    let is_tie = |x: &&f64| (**x as f32).to_bits() & 0xFFFF == 0x8000;
    assert!(values.iter().filter(is_tie).count() > 500, "ties of bf16");
    assert!(values.iter().any(|x| x.is_nan()) && values.iter().any(|x| x.is_infinite()));
    assert!(values.iter().any(|x| x.to_bits() == 1 << 63), "a zero with a sign");
    assert!(problem.slot_mapping.iter().any(|&slot| slot < 0));
}
