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
    /// Sum over the keys (and the sink) of exp(logit − largest logit of a key).
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
    let in_window = mask
        .window
        .is_none_or(|window| key > position - window as i64);
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
            let keys: Vec<usize> = (0..seq_len)
                .filter(|&key| sees(&problem.mask, row_position, key as i64))
                .collect();
            for q_head in 0..problem.num_q_heads() {
                let q_row = (problem.query_start_loc[seq] + row) * problem.num_q_heads() + q_head;
                let q = &q[q_row * head_dim..][..head_dim];
                attend(
                    problem,
                    seq,
                    q_head,
                    row_position,
                    &keys,
                    (q, &k, &v),
                    &mut expected,
                );
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
    let mut row = RowMagnitudes {
        num_keys: keys.len(),
        ..RowMagnitudes::default()
    };

    let mut logits = Vec::with_capacity(keys.len());
    for key in keys {
        let products = q
            .iter()
            .zip(&k[row_of(key)..][..head_dim])
            .map(|(q, k)| q * k);
        let scale = problem.sm_scale * k_scale;
        let score = scale * products.clone().sum::<f64>();
        let capped = mask
            .soft_cap
            .map_or(score, |cap| cap * (score / cap).tanh());
        let distance = (*key as i64 - row_position) as f64;
        let bias = mask
            .alibi
            .as_ref()
            .map_or(0.0, |slopes| f64::from(slopes[q_head]) * distance);
        logits.push(capped + bias);
        row.max_abs_dot = row
            .max_abs_dot
            .max(scale.abs() * products.map(f64::abs).sum::<f64>());
        row.max_score = row.max_score.max(score.abs());
        row.max_alibi = row.max_alibi.max(bias.abs());
        row.max_logit = row.max_logit.max((capped + bias).abs());
    }

    let row_max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|logit| (logit - row_max).exp()).sum();
    let sink = mask.sinks.as_ref().map(|sinks| f64::from(sinks[q_head]));
    let sum_sink = sum + sink.map_or(0.0, |sink| (sink - row_max).exp());
    row.max_logit = row.max_logit.max(sink.unwrap_or(0.0).abs());
    row.row_sum = if keys.is_empty() { 0.0 } else { sum_sink };
    expected.rows.push(row);
    if keys.is_empty() {
        expected.lse.push(f64::NEG_INFINITY);
        expected.lse_sink.push(sink.unwrap_or(f64::NEG_INFINITY));
    } else {
        expected.lse.push(row_max + sum.ln());
        expected.lse_sink.push(row_max + sum_sink.ln());
    }

    for dim in 0..head_dim {
        let (mut out, mut abs_out, mut sum_abs_v) = (0.0, 0.0, 0.0);
        for (key, logit) in keys.iter().zip(&logits) {
            let prob = (logit - row_max).exp() / sum_sink;
            let value = v_scale * v[row_of(key) + dim];
            out += prob * value;
            abs_out += prob * value.abs();
            sum_abs_v += value.abs();
        }
        expected.out.push(out);
        expected.abs_out.push(abs_out);
        expected.sum_abs_v.push(sum_abs_v);
    }
}

/// The caches after an append, bit for bit: `x / scale` (one rounding to f32, as a kernel divides),
/// rounded to nearest even by the pool's type; a token whose slot is negative is skipped.
///
/// # Panics
///
/// When a slot lies beyond the pool.
pub fn append(problem: &Append) -> (Tensor, Tensor) {
    let write = |new: &Tensor, cache: &Tensor, scale: &Scale| {
        let mut cache = cache.clone();
        let (num_kv_heads, head_dim) = (new.shape[1], new.shape[2]);
        for (token, &slot) in problem.slot_mapping.iter().enumerate() {
            let Ok(slot) = usize::try_from(slot) else {
                continue;
            };
            for kv_head in 0..num_kv_heads {
                let factor = scale.factor(0, kv_head, num_kv_heads);
                for dim in 0..head_dim {
                    let value = new.get((token * num_kv_heads + kv_head) * head_dim + dim);
                    // 1 leaves the value alone, bits of NaN and subnormals included.
                    let scaled = if factor == 1.0 {
                        value
                    } else {
                        f64::from((value / factor) as f32)
                    };
                    cache.set((slot * num_kv_heads + kv_head) * head_dim + dim, scaled);
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
        panic!(
            "outs has shape {:?}, 4 dimensions are needed",
            problem.outs.shape
        );
    };
    let outs = problem.outs.values();
    let mut expected = Expected::default();
    for row in 0..rows * heads {
        let lse_of = |part: usize| f64::from(problem.lses[part * rows * heads + row]);
        let live: Vec<usize> = (0..parts)
            .filter(|&part| lse_of(part).abs() != f64::INFINITY)
            .collect();
        let row_max = live
            .iter()
            .map(|&part| lse_of(part))
            .fold(f64::NEG_INFINITY, f64::max);
        let sink = problem
            .sinks
            .as_ref()
            .map(|sinks| f64::from(sinks[row % heads]));
        let sum: f64 = live
            .iter()
            .map(|&part| (lse_of(part) - row_max).exp())
            .sum();
        let sum_sink = sum + sink.map_or(0.0, |sink| (sink - row_max).exp());
        let empty = live.is_empty();
        expected.lse.push(if empty {
            f64::NEG_INFINITY
        } else {
            row_max + sum.ln()
        });
        expected.lse_sink.push(match (empty, sink) {
            (false, _) => row_max + sum_sink.ln(),
            (true, sink) => sink.unwrap_or(f64::NEG_INFINITY),
        });
        let max_lse = live
            .iter()
            .map(|&part| lse_of(part).abs())
            .fold(0.0, f64::max);
        expected.rows.push(RowMagnitudes {
            num_keys: live.len(),
            max_logit: max_lse.max(sink.unwrap_or(0.0).abs()),
            row_sum: if empty { 0.0 } else { sum_sink },
            ..RowMagnitudes::default()
        });
        for dim in 0..head_dim {
            let (mut out, mut abs_out, mut sum_abs_v) = (0.0, 0.0, 0.0);
            for &part in &live {
                let weight = (lse_of(part) - row_max).exp() / sum_sink;
                let value = outs[(part * rows * heads + row) * head_dim + dim];
                out += weight * value;
                abs_out += weight * value.abs();
                sum_abs_v += value.abs();
            }
            expected.out.push(out);
            expected.abs_out.push(abs_out);
            expected.sum_abs_v.push(sum_abs_v);
        }
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
