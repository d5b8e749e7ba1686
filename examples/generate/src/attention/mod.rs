//! The one seam between the model and its attention.

pub mod dense;
pub mod paged;

use std::ops::Range;

use anyhow::Result;

/// What every backend is told about the model.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Layers, each with a cache of its own.
    pub layers: usize,
    /// Query heads.
    pub num_q_heads: usize,
    /// KV heads.
    pub num_kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// Factor on q·k before the softmax.
    pub sm_scale: f32,
    /// Most tokens that a run may hold.
    pub max_tokens: usize,
    /// Most tokens in one call of [`Attention::attend`].
    pub max_rows: usize,
}

/// What attention did in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Kernel launches.
    pub launches: u64,
    /// Faults that the emulator found in them.
    pub findings: u64,
    /// Wall time inside [`Attention::attend`].
    pub seconds: f64,
}

/// Causal self-attention over the tokens seen so far.
pub trait Attention {
    /// Keeps K and V of the tokens at `positions`, then attends from each of them to every token
    /// up to and including itself.
    ///
    /// `q` is [n, num_q_heads, head_dim], `k` and `v` are [n, num_kv_heads, head_dim], all after
    /// the rotation; the answer has the shape of `q`. Positions follow on from the last call for
    /// this layer.
    fn attend(
        &mut self,
        layer: usize,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        positions: Range<usize>,
    ) -> Result<Vec<f32>>;

    /// What was done since the start.
    fn stats(&self) -> Stats;
}
