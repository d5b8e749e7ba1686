//! Attention over a contiguous cache, written out: the judge of the paged backend.

use std::ops::Range;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::{Attention, Shape, Stats};
use crate::args::KvDtype;

/// Plain CPU attention; sums run in f64.
pub struct Dense {
    shape: Shape,
    kv_dtype: KvDtype,
    /// K and V of each layer, [tokens, num_kv_heads, head_dim].
    cache: Vec<(Vec<f32>, Vec<f32>)>,
    seconds: f64,
}

impl Dense {
    /// An empty cache. K and V are rounded to `kv_dtype` as they enter it.
    pub fn new(shape: Shape, kv_dtype: KvDtype) -> Self {
        let cache = vec![(Vec::new(), Vec::new()); shape.layers];
        Self { shape, kv_dtype, cache, seconds: 0.0 }
    }

    /// Attention of one query head at one position.
    fn head(&self, layer: usize, q: &[f32], kv_head: usize, tokens: usize, out: &mut [f32]) {
        let (keys, values) = &self.cache[layer];
        let dim = self.shape.head_dim;
        let row = |t: usize| (t * self.shape.num_kv_heads + kv_head) * dim;
        let scale = f64::from(self.shape.sm_scale);
        let scores: Vec<f64> = (0..tokens)
            .map(|t| {
                let k = &keys[row(t)..row(t) + dim];
                q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>() * scale
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut acc = vec![0.0; dim];
        for (t, weight) in weights.iter().enumerate() {
            for (acc, &v) in acc.iter_mut().zip(&values[row(t)..row(t) + dim]) {
                *acc += weight * f64::from(v);
            }
        }
        for (out, acc) in out.iter_mut().zip(acc) {
            *out = (acc / sum) as f32;
        }
    }
}

impl Attention for Dense {
    fn attend(
        &mut self,
        layer: usize,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        positions: Range<usize>,
    ) -> Result<Vec<f32>> {
        let start = Instant::now();
        let Shape { num_q_heads, num_kv_heads, head_dim, max_tokens, max_rows, .. } = self.shape;
        ensure!(positions.end <= max_tokens, "token {} of at most {max_tokens}", positions.end);
        ensure!(positions.len() <= max_rows, "{} tokens at once of {max_rows}", positions.len());
        let (keys, values) = &mut self.cache[layer];
        keys.extend(k.iter().map(|&x| self.kv_dtype.round(x)));
        values.extend(v.iter().map(|&x| self.kv_dtype.round(x)));
        let cached = keys.len() / (num_kv_heads * head_dim);
        ensure!(cached == positions.end, "{cached} tokens cached, want {}", positions.end);

        let group = num_q_heads / num_kv_heads;
        let mut out = vec![0.0; q.len()];
        for (i, position) in positions.enumerate() {
            for head in 0..num_q_heads {
                let at = (i * num_q_heads + head) * head_dim;
                let out = &mut out[at..at + head_dim];
                self.head(layer, &q[at..at + head_dim], head / group, position + 1, out);
            }
        }
        self.seconds += start.elapsed().as_secs_f64();
        Ok(out)
    }

    fn stats(&self) -> Stats {
        Stats { seconds: self.seconds, ..Stats::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        layers: 1,
        num_q_heads: 4,
        num_kv_heads: 2,
        head_dim: 2,
        sm_scale: 0.5,
        max_tokens: 8,
        max_rows: 5,
    };

    #[test]
    fn the_first_token_sees_only_itself() {
        let mut dense = Dense::new(SHAPE, KvDtype::F32);
        let q = [3.0, -1.0, 0.5, 2.0, 9.0, 9.0, -4.0, 0.0];
        let out = dense.attend(0, &q, &[1.0; 4], &[1.0, 2.0, 3.0, 4.0], 0..1).unwrap();
        // Query heads 0 and 1 share KV head 0, heads 2 and 3 share KV head 1.
        assert_eq!(out, [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0]);
    }

    #[test]
    fn weights_are_the_softmax_of_scaled_scores() {
        let shape = Shape { num_q_heads: 1, num_kv_heads: 1, ..SHAPE };
        let mut dense = Dense::new(shape, KvDtype::F32);
        // Scores 0.5 · 2 · (0, 1, ln 3 / 1): keys differ in the first element alone.
        let ln3 = 3f32.ln();
        let (q, k) = ([2.0, 0.0, 2.0, 0.0], [0.0, 7.0, ln3, 5.0]);
        let out = dense.attend(0, &q, &k, &[4.0, 0.0, 0.0, 8.0], 0..2).unwrap();
        // Token 1 weighs token 0 by 1/4 and itself by 3/4.
        for (got, want) in out.iter().zip([4.0, 0.0, 1.0, 6.0]) {
            assert!((got - want).abs() < 1e-6, "{out:?}");
        }
    }

    #[test]
    fn one_call_for_a_prompt_equals_a_call_for_each_token() {
        let value = |i: usize| ((i * 37 % 23) as f32 - 11.0) / 7.0;
        let q: Vec<f32> = (0..40).map(value).collect();
        let k: Vec<f32> = (100..120).map(value).collect();
        let v: Vec<f32> = (300..320).map(value).collect();
        let mut whole = Dense::new(SHAPE, KvDtype::F16);
        let want = whole.attend(0, &q, &k, &v, 0..5).unwrap();
        let mut steps = Dense::new(SHAPE, KvDtype::F16);
        let mut got = Vec::new();
        for i in 0..5 {
            let (q, kv) = (&q[i * 8..(i + 1) * 8], i * 4..(i + 1) * 4);
            got.extend(steps.attend(0, q, &k[kv.clone()], &v[kv], i..i + 1).unwrap());
        }
        assert_eq!(got, want);
    }

    #[test]
    fn kv_is_rounded_to_its_dtype() {
        let shape = Shape { num_q_heads: 1, num_kv_heads: 1, ..SHAPE };
        let v = [1.0 + 1.0 / 4096.0, 1.0 + 1.0 / 512.0];
        for (dtype, want) in
            [(KvDtype::F32, v), (KvDtype::F16, [1.0, v[1]]), (KvDtype::Bf16, [1.0, 1.0])]
        {
            let out = Dense::new(shape, dtype).attend(0, &[1.0, 1.0], &[1.0, 1.0], &v, 0..1);
            assert_eq!(out.unwrap(), want, "{dtype:?}");
        }
    }

    #[test]
    fn positions_must_follow_on_and_fit() {
        let step = |positions| {
            Dense::new(SHAPE, KvDtype::F32).attend(0, &[0.0; 8], &[0.0; 4], &[0.0; 4], positions)
        };
        assert!(step(0..1).is_ok());
        assert!(step(1..2).unwrap_err().to_string().contains("1 tokens cached, want 2"));
        assert!(step(0..6).unwrap_err().to_string().contains("6 tokens at once of 5"));
        assert!(step(8..9).unwrap_err().to_string().contains("token 9 of at most 8"));
    }
}
