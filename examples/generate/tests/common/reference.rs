//! A Llama forward pass in f64, token by token, written to be read: the judge of the program.

use std::collections::BTreeMap;

use super::Model;

/// How far the best logit must be ahead: far more than f32 arithmetic can blur.
const CLEAR_LEAD: f64 = 1e-3;

/// Greedy tokens after `prompt`.
pub fn greedy(
    model: &Model,
    weights: &BTreeMap<String, Vec<f32>>,
    prompt: &[u32],
    tokens: usize,
) -> Vec<u32> {
    let mut pass = Pass { model, weights, cache: vec![Vec::new(); model.layers] };
    let mut logits = Vec::new();
    for &id in prompt {
        logits = pass.step(id);
    }
    let mut ids = Vec::new();
    while ids.len() < tokens {
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        let second = (0..logits.len()).filter(|&id| id != best).map(|id| logits[id]);
        let lead = logits[best] - second.fold(f64::NEG_INFINITY, f64::max);
        assert!(
            lead > CLEAR_LEAD,
            "token {} is ahead by {lead} only: choose another seed",
            ids.len()
        );
        ids.push(best as u32);
        logits = pass.step(best as u32);
    }
    ids
}

struct Pass<'a> {
    model: &'a Model,
    weights: &'a BTreeMap<String, Vec<f32>>,
    /// K and V of each layer and token, after the rotation.
    cache: Vec<Vec<(Vec<f64>, Vec<f64>)>>,
}

impl Pass<'_> {
    fn step(&mut self, id: u32) -> Vec<f64> {
        let width = self.model.embedding;
        let row = id as usize * width;
        let mut x: Vec<f64> = self.vector("token_embd.weight")[row..row + width].to_vec();
        for layer in 0..self.model.layers {
            let part = |name: &str| format!("blk.{layer}.{name}");
            let h = self.norm(&x, &part("attn_norm.weight"));
            let position = self.cache[layer].len();
            let q = self.rotate(self.linear(&part("attn_q"), &h), position);
            let k = self.rotate(self.linear(&part("attn_k"), &h), position);
            let v = self.linear(&part("attn_v"), &h);
            self.cache[layer].push((k, v));
            let out = self.linear(&part("attn_output"), &self.attend(layer, &q));
            add(&mut x, &out);

            let h = self.norm(&x, &part("ffn_norm.weight"));
            let gate = self.linear(&part("ffn_gate"), &h);
            let up = self.linear(&part("ffn_up"), &h);
            let hidden: Vec<f64> =
                gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            add(&mut x, &self.linear(&part("ffn_down"), &hidden));
        }
        let output = if self.model.tied { "token_embd" } else { "output" };
        self.linear(output, &self.norm(&x, "output_norm.weight"))
    }

    fn attend(&self, layer: usize, q: &[f64]) -> Vec<f64> {
        let dim = self.model.head_dim;
        let group = self.model.num_q_heads / self.model.num_kv_heads;
        let mut out = Vec::new();
        for (head, q) in q.chunks(dim).enumerate() {
            let at = head / group * dim;
            let weight = |k: &[f64]| {
                let dot: f64 = q.iter().zip(&k[at..at + dim]).map(|(q, k)| q * k).sum();
                (dot / (dim as f64).sqrt()).exp()
            };
            let weights: Vec<f64> = self.cache[layer].iter().map(|(k, _)| weight(k)).collect();
            let sum: f64 = weights.iter().sum();
            for d in at..at + dim {
                let terms = self.cache[layer].iter().zip(&weights).map(|((_, v), w)| w * v[d]);
                out.push(terms.sum::<f64>() / sum);
            }
        }
        out
    }

    /// Pairs 2i and 2i + 1 of the first `rope_dim` elements of each head.
    fn rotate(&self, mut rows: Vec<f64>, position: usize) -> Vec<f64> {
        let freqs = self.model.rope_freqs.then(|| self.vector("rope_freqs.weight"));
        for head in rows.chunks_mut(self.model.head_dim) {
            for i in 0..self.model.rope_dim / 2 {
                let exponent = -2.0 * i as f64 / self.model.rope_dim as f64;
                let base = self.model.rope_base.powf(exponent) / self.model.rope_factor;
                let angle = position as f64 * base / freqs.as_ref().map_or(1.0, |freqs| freqs[i]);
                let (x, y) = (head[2 * i], head[2 * i + 1]);
                head[2 * i] = x * angle.cos() - y * angle.sin();
                head[2 * i + 1] = x * angle.sin() + y * angle.cos();
            }
        }
        rows
    }

    fn norm(&self, x: &[f64], weight: &str) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + f64::from(1e-5f32)).sqrt();
        x.iter().zip(self.vector(weight)).map(|(x, w)| x * scale * w).collect()
    }

    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = self.vector(&format!("{name}.weight"));
        let dot = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        let mut y: Vec<f64> = weight.chunks(x.len()).map(dot).collect();
        if self.weights.contains_key(&format!("{name}.bias")) {
            add(&mut y, &self.vector(&format!("{name}.bias")));
        }
        y
    }

    fn vector(&self, name: &str) -> Vec<f64> {
        self.weights[name].iter().map(|&x| f64::from(x)).collect()
    }
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
