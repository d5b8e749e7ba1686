//! Rotary position embedding with interleaved pairs, the order of heads in a llama GGUF.
//!
//! Pair i of a head, elements 2i and 2i + 1, is turned by the angle
//! position / factor · base^(−2i / rope_dim) / freq_factor_i.

use crate::config::Config;

/// The frequencies of a model.
pub struct Rope {
    head_dim: usize,
    frequencies: Vec<f64>,
}

impl Rope {
    /// `freq_factors` is the tensor `rope_freqs.weight`, one divisor for each pair.
    pub fn new(config: &Config, freq_factors: Option<&[f32]>) -> Self {
        let frequencies = (0..config.rope_dim / 2)
            .map(|i| {
                let exponent = -2.0 * i as f64 / config.rope_dim as f64;
                let divisor = freq_factors.map_or(1.0, |factors| f64::from(factors[i]));
                config.rope_base.powf(exponent) / divisor / config.rope_factor
            })
            .collect();
        Self { head_dim: config.head_dim, frequencies }
    }

    /// Turns the heads of consecutive tokens, `rows` of `row_elems` elements each.
    pub fn apply(&self, rows: &mut [f32], row_elems: usize, first_position: usize) {
        for (i, row) in rows.chunks_exact_mut(row_elems).enumerate() {
            let position = (first_position + i) as f64;
            let turns: Vec<(f32, f32)> = self
                .frequencies
                .iter()
                .map(|frequency| (position * frequency).sin_cos())
                .map(|(sin, cos)| (sin as f32, cos as f32))
                .collect();
            for head in row.chunks_exact_mut(self.head_dim) {
                for (pair, (sin, cos)) in head.chunks_exact_mut(2).zip(&turns) {
                    let (x, y) = (pair[0], pair[1]);
                    pair[0] = x * cos - y * sin;
                    pair[1] = x * sin + y * cos;
                }
            }
        }
    }
}
