//! The operations in f64, written to be checked at a glance: no tiles, no online softmax, no reuse.
//!
//! Inputs are what the device sees, rounded to their types. Beside the results, attention returns the
//! magnitudes from which [`crate::bounds`] computes how far a kernel may be off.

use crate::problem::{Append, Attention, Mask, Merge, Scale, Stepwise, Tensor};

/// What attention should give, and the magnitudes behind it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Expected {
    /// [total_q, num_q_heads, head_dim].
    pub out: Vec<f64>,
    /// [total_q, num_q_heads], natural logarithm of the softmax's sum, without the sink.
    pub lse: Vec<f64>,
    /// Like `lse`, with the sink (equal to `lse` where there are none).
    pub lse_sink: Vec<f64>,
    /// Like `out`: sum over the keys of prob · |v|.
    pub abs_out: Vec<f64>,
    /// Like `out`: sum over the keys of |v|.
    pub sum_abs_v: Vec<f64>,
    /// Like `out`: largest |v| of the keys.
    pub max_abs_v: Vec<f64>,
    /// Like `lse`: what the errors of a row's scores depend on.
    pub rows: Vec<RowMagnitudes>,
}

/// Magnitudes of one row of one head.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RowMagnitudes {
    /// Number of keys the row sees.
    pub num_keys: usize,
    /// Largest sm_scale · sum of |q·k| over the keys.
    pub max_abs_dot: f64,
    /// Largest |score| before the soft cap.
    pub max_score: f64,
    /// Largest |logit| (after cap and ALiBi), the sink's included.
    pub max_logit: f64,
    /// Largest |slope · distance|.
    pub max_alibi: f64,
    /// Sum over the keys and the sink of exp(logit − largest of these logits); NaN where there are none.
    pub row_sum: f64,
}

/// Position of row `row` of the `query_len` last rows of a sequence of `seq_len` tokens; negative when the
/// row lies before the sequence's start.
fn position(row: usize, query_len: usize, seq_len: usize) -> i64 {
    seq_len as i64 - query_len as i64 + row as i64
}

/// Whether the row at `position` sees the key at `key`.
fn sees(mask: &Mask, position: i64, key: i64) -> bool {
    let in_past = !mask.causal || key <= position;
    let in_window = mask.window.is_none_or(|window| key > position - window as i64);
    in_past && in_window
}

/// Dense attention of every row and head.
///
/// # Panics
///
/// When the table of a live token names no block of the pool, or array lengths and shapes disagree.
pub fn attention(problem: &Attention) -> Expected {
    let (k, v) = (problem.k_cache.values(), problem.v_cache.values());
    let q = problem.q.values();
    let head_dim = problem.head_dim();
    let mut expected = Expected::default();
    for seq in 0..problem.num_seqs() {
        let (query_len, seq_len) = (problem.query_len(seq), problem.seq_lens[seq]);
        for row in 0..query_len {
            let row_position = position(row, query_len, seq_len);
            let keys: Vec<usize> =
                (0..seq_len).filter(|&key| sees(&problem.mask, row_position, key as i64)).collect();
            for q_head in 0..problem.num_q_heads() {
                let q_row = (problem.query_start_loc[seq] + row) * problem.num_q_heads() + q_head;
                let q = &q[q_row * head_dim..][..head_dim];
                attend(problem, seq, q_head, row_position, &keys, (q, &k, &v), &mut expected);
            }
        }
    }
    expected
}

/// One row of one head: appends its results to `expected`.
fn attend(
    problem: &Attention,
    seq: usize,
    q_head: usize,
    row_position: i64,
    keys: &[usize],
    (q, k, v): (&[f64], &[f64], &[f64]),
    expected: &mut Expected,
) {
    let (head_dim, mask) = (problem.head_dim(), &problem.mask);
    let kv_head = q_head / problem.group_size();
    let factor = |scale: &Scale| scale.factor(seq, kv_head, problem.num_kv_heads());
    let (k_scale, v_scale) = (factor(&problem.k_scale), factor(&problem.v_scale));
    let row_of = |key: &usize| problem.kv_index(problem.slot(seq, *key), kv_head);
    let mut row = RowMagnitudes::default();

    let mut logits = Vec::with_capacity(keys.len());
    for key in keys {
        let products = q.iter().zip(&k[row_of(key)..][..head_dim]).map(|(q, k)| q * k);
        let scale = problem.sm_scale * k_scale;
        let score = scale * products.clone().sum::<f64>();
        let capped = mask.soft_cap.map_or(score, |cap| cap * (score / cap).tanh());
        let distance = (*key as i64 - row_position) as f64;
        let bias = mask.alibi.as_ref().map_or(0.0, |slopes| f64::from(slopes[q_head]) * distance);
        logits.push(capped + bias);
        row.max_abs_dot = row.max_abs_dot.max(scale.abs() * products.map(f64::abs).sum::<f64>());
        row.max_score = row.max_score.max(score.abs());
        row.max_alibi = row.max_alibi.max(bias.abs());
    }

    let sink = mask.sinks.as_ref().map(|sinks| f64::from(sinks[q_head]));
    let value = |key: usize, dim: usize| v_scale * v[row_of(&keys[key]) + dim];
    weigh(&logits, sink, head_dim, value, row, expected);
}

/// Appends the softmax-weighted sum of values, and what goes with it, to `expected`.
fn weigh(
    logits: &[f64],
    sink: Option<f64>,
    head_dim: usize,
    value: impl Fn(usize, usize) -> f64,
    row: RowMagnitudes,
    expected: &mut Expected,
) {
    let with_sink = [logits, sink.as_slice()].concat();
    let lse_sink = ln_sum_exp(&with_sink);
    let probs: Vec<f64> = logits.iter().map(|logit| (logit - lse_sink).exp()).collect();
    expected.lse.push(ln_sum_exp(logits));
    expected.lse_sink.push(lse_sink);
    expected.rows.push(RowMagnitudes {
        num_keys: logits.len(),
        max_logit: with_sink.iter().fold(0.0, |max, logit| logit.abs().max(max)),
        row_sum: (lse_sink - largest(&with_sink)).exp(),
        ..row
    });
    for dim in 0..head_dim {
        let values: Vec<f64> = (0..logits.len()).map(|key| value(key, dim)).collect();
        let terms = || probs.iter().zip(&values).map(|(prob, value)| prob * value);
        expected.out.push(terms().fold(0.0, |sum, term| sum + term));
        expected.abs_out.push(terms().fold(0.0, |sum, term| sum + term.abs()));
        expected.sum_abs_v.push(values.iter().fold(0.0, |sum, value| sum + value.abs()));
        expected.max_abs_v.push(values.iter().fold(0.0, |max, value| value.abs().max(max)));
    }
}

fn largest(logits: &[f64]) -> f64 {
    logits.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// ln of the sum of exp(logit); −inf where there are none.
fn ln_sum_exp(logits: &[f64]) -> f64 {
    let largest = largest(logits);
    if logits.is_empty() {
        return largest;
    }
    largest + logits.iter().map(|logit| (logit - largest).exp()).sum::<f64>().ln()
}

/// The caches after an append, bit for bit: `x / scale` (one rounding to f32, as a kernel divides), rounded to
/// nearest even by the pool's type. Equal types without a scale are copied as they are, the bits of a NaN too. A token whose
/// slot is negative is skipped.
///
/// # Panics
///
/// When a slot lies beyond the pool.
pub fn append(problem: &Append) -> (Tensor, Tensor) {
    let write = |new: &Tensor, cache: &Tensor, scale: &Scale| {
        let mut cache = cache.clone();
        let (num_kv_heads, head_dim) = (new.shape[1], new.shape[2]);
        let verbatim = new.dtype == cache.dtype && *scale == Scale::None;
        for (token, &slot) in problem.slot_mapping.iter().enumerate() {
            let Ok(slot) = usize::try_from(slot) else {
                continue;
            };
            for element in 0..num_kv_heads * head_dim {
                let from = token * num_kv_heads * head_dim + element;
                let to = slot * num_kv_heads * head_dim + element;
                if verbatim {
                    cache.copy_element(to, new, from);
                } else {
                    let factor = scale.factor(0, element / head_dim, num_kv_heads);
                    cache.set(to, f64::from((new.get(from) / factor) as f32));
                }
            }
        }
        cache
    };
    (
        write(&problem.k_new, &problem.k_cache, &problem.k_scale),
        write(&problem.v_new, &problem.v_cache, &problem.v_scale),
    )
}

/// Joins partial results: weights exp(lse), a sink adding to their sum; empty parts are left out.
pub fn merge(problem: &Merge) -> Expected {
    let [parts, rows, heads, head_dim] = problem.outs.shape[..] else {
        panic!("outs has shape {:?}, 4 dimensions are needed", problem.outs.shape);
    };
    let outs = problem.outs.values();
    let mut expected = Expected::default();
    for row in 0..rows * heads {
        let lse = |part: usize| f64::from(problem.lses[part * rows * heads + row]);
        let live: Vec<usize> = (0..parts).filter(|&part| !lse(part).is_infinite()).collect();
        let logits: Vec<f64> = live.iter().map(|&part| lse(part)).collect();
        let sink = problem.sinks.as_ref().map(|sinks| f64::from(sinks[row % heads]));
        let value =
            |key: usize, dim: usize| outs[(live[key] * rows * heads + row) * head_dim + dim];
        weigh(&logits, sink, head_dim, value, RowMagnitudes::default(), &mut expected);
    }
    expected
}

/// A sequence built token by token: the rows of every step, and the caches at the end.
pub fn stepwise(problem: &Stepwise) -> (Expected, Tensor, Tensor) {
    let all = 0..problem.num_tokens();
    let caches = (problem.k_cache.clone(), problem.v_cache.clone());
    let (k_cache, v_cache) = append(&problem.append(all.clone(), caches.0, caches.1));
    // Row t sees keys 0 to t, which later appends do not change: one causal call holds all steps.
    let steps = attention(&problem.attention(all, k_cache.clone(), v_cache.clone()));
    (steps, k_cache, v_cache)
}
