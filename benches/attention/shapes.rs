//! The shapes of the report: benches/shapes.json, which `peers.py` reads too.

use pagedptx_harness::call::Shape;
use serde::Deserialize;

/// An entry of the file: `seqs` sequences of `len` tokens, or `lengths`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    seqs: usize,
    #[serde(default)]
    len: u32,
    #[serde(default)]
    lengths: Vec<u32>,
    q_heads: usize,
    kv_heads: usize,
    head_dim: usize,
    block_size: usize,
    dtypes: Vec<String>,
}

/// Each shape with each of its types.
pub fn all() -> Result<Vec<(Shape, String)>, serde_json::Error> {
    let entries: Vec<Entry> = serde_json::from_str(include_str!("../shapes.json"))?;
    let cases = entries.into_iter().flat_map(|entry| {
        let Entry { seqs, len, q_heads, kv_heads, head_dim, block_size, .. } = entry;
        let lengths = if entry.lengths.is_empty() { vec![len; seqs] } else { entry.lengths };
        let shape = Shape { q_heads, kv_heads, head_dim, block_size, lengths };
        entry.dtypes.into_iter().map(move |dtype| (shape.clone(), dtype))
    });
    Ok(cases.collect())
}
