//! Inputs of the operations, as plain host data: what a recorded file holds and what a draw makes.
//!
//! Names and shapes are those of the crate's design; every index array holds what the crate's API is
//! given, wild values in its unused parts included.

use std::ops::Range;

use crate::dtype::Dtype;

/// A dense row-major tensor: raw little-endian elements and their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Extent of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// The elements, little-endian, without gaps.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// A tensor of the values rounded to `dtype`.
    ///
    /// # Panics
    ///
    /// When the shape does not hold exactly those values.
    pub fn from_values(dtype: Dtype, shape: &[usize], values: &[f64]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?}");
        let mut bytes = Vec::with_capacity(values.len() * dtype.bytes());
        values.iter().for_each(|&value| dtype.encode(value, &mut bytes));
        Self { dtype, shape: shape.to_vec(), bytes }
    }

    /// A tensor whose elements all hold `value` rounded to `dtype`.
    pub fn filled(dtype: Dtype, shape: &[usize], value: f64) -> Self {
        let mut element = Vec::new();
        dtype.encode(value, &mut element);
        Self { dtype, shape: shape.to_vec(), bytes: element.repeat(shape.iter().product()) }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element with row-major index `index`, decoded.
    pub fn get(&self, index: usize) -> f64 {
        let size = self.dtype.bytes();
        self.dtype.decode(&self.bytes[index * size..][..size])
    }

    /// Replaces the element with row-major index `index` by `value`, rounded.
    pub fn set(&mut self, index: usize, value: f64) {
        let mut element = Vec::with_capacity(4);
        self.dtype.encode(value, &mut element);
        let size = self.dtype.bytes();
        self.bytes[index * size..][..size].copy_from_slice(&element);
    }

    /// Replaces an element by one of another tensor of the same type, bit for bit.
    pub fn copy_element(&mut self, to: usize, other: &Self, from: usize) {
        let size = self.dtype.bytes();
        self.bytes[to * size..][..size].copy_from_slice(&other.bytes[from * size..][..size]);
    }

    /// A range of the outermost dimension.
    pub fn rows(&self, rows: Range<usize>) -> Self {
        let row_bytes = self.shape[1..].iter().product::<usize>() * self.dtype.bytes();
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        let bytes = self.bytes[rows.start * row_bytes..rows.end * row_bytes].to_vec();
        Self { dtype: self.dtype, shape, bytes }
    }

    /// All elements, decoded.
    pub fn values(&self) -> Vec<f64> {
        (0..self.len()).map(|index| self.get(index)).collect()
    }
}

/// What codes of a KV pool are multiplied by: 1, one factor, one for each KV head, or one for each
/// sequence and KV head.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Scale {
    /// Codes are the values.
    #[default]
    None,
    /// One factor.
    Scalar(f32),
    /// [num_kv_heads].
    PerHead(Vec<f32>),
    /// [num_seqs, num_kv_heads].
    PerSeqAndHead(Vec<f32>),
}

impl Scale {
    /// The factor of a KV head in a sequence.
    pub fn factor(&self, seq: usize, kv_head: usize, num_kv_heads: usize) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Scalar(factor) => f64::from(*factor),
            Self::PerHead(factors) => f64::from(factors[kv_head]),
            Self::PerSeqAndHead(factors) => f64::from(factors[seq * num_kv_heads + kv_head]),
        }
    }

    /// The shape in words, `None` where there is no scale.
    pub fn kind(&self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Scalar(_) => Some("scalar"),
            Self::PerHead(_) => Some("per head"),
            Self::PerSeqAndHead(_) => Some("per sequence and head"),
        }
    }
}

/// Which keys a query row sees, and how a score becomes a logit.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// A row sees no key behind its own position.
    pub causal: bool,
    /// A row sees this many keys, its own included; `None` = all.
    pub window: Option<usize>,
    /// c of c·tanh(score / c); `None` = off.
    pub soft_cap: Option<f64>,
    /// Slope of each query head: slope · (key position − query position) is added.
    pub alibi: Option<Vec<f32>>,
    /// Natural-log logit of each query head that joins the softmax's sum once.
    pub sinks: Option<Vec<f32>>,
}

impl Mask {
    /// Causal and nothing else.
    pub fn causal() -> Self {
        Self { causal: true, window: None, soft_cap: None, alibi: None, sinks: None }
    }
}

/// One attention call.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// [total_q, num_q_heads, head_dim].
    pub q: Tensor,
    /// [num_blocks, block_size, num_kv_heads, head_dim].
    pub k_cache: Tensor,
    /// Like `k_cache`.
    pub v_cache: Tensor,
    /// [num_seqs, max_blocks_per_seq]; entries past a sequence's blocks may hold anything.
    pub block_table: Vec<i32>,
    /// Row length of `block_table`.
    pub max_blocks_per_seq: usize,
    /// [num_seqs], tokens in the pool, the new ones included.
    pub seq_lens: Vec<usize>,
    /// [num_seqs + 1], prefix sums of the query rows of each sequence.
    pub query_start_loc: Vec<usize>,
    /// Factor of q·k.
    pub sm_scale: f64,
    /// Mask and logits.
    pub mask: Mask,
    /// Scale of the key codes.
    pub k_scale: Scale,
    /// Scale of the value codes.
    pub v_scale: Scale,
}

impl Attention {
    /// Number of sequences.
    pub fn num_seqs(&self) -> usize {
        self.seq_lens.len()
    }

    /// Number of query rows over all sequences.
    pub fn total_q(&self) -> usize {
        self.q.shape[0]
    }

    /// Number of query heads.
    pub fn num_q_heads(&self) -> usize {
        self.q.shape[1]
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.q.shape[2]
    }

    /// Blocks of the pool.
    pub fn num_blocks(&self) -> usize {
        self.k_cache.shape[0]
    }

    /// Tokens of a block.
    pub fn block_size(&self) -> usize {
        self.k_cache.shape[1]
    }

    /// Number of KV heads.
    pub fn num_kv_heads(&self) -> usize {
        self.k_cache.shape[2]
    }

    /// Query heads that read one KV head.
    pub fn group_size(&self) -> usize {
        self.num_q_heads() / self.num_kv_heads()
    }

    /// Query rows of a sequence.
    pub fn query_len(&self, seq: usize) -> usize {
        self.query_start_loc[seq + 1] - self.query_start_loc[seq]
    }

    /// Slot (row of the pool) of a token of a sequence.
    ///
    /// # Panics
    ///
    /// When the table does not name a block of the pool there.
    pub fn slot(&self, seq: usize, token: usize) -> usize {
        let entry = self.block_table[seq * self.max_blocks_per_seq + token / self.block_size()];
        let block = usize::try_from(entry).ok().filter(|&block| block < self.num_blocks());
        let block = block.unwrap_or_else(|| panic!("block id {entry} of sequence {seq}"));
        block * self.block_size() + token % self.block_size()
    }

    /// Row-major index in a cache of the first element of a slot's head.
    pub fn kv_index(&self, slot: usize, kv_head: usize) -> usize {
        (slot * self.num_kv_heads() + kv_head) * self.head_dim()
    }

    /// Whether a live token owns each slot of the pool.
    pub fn live_slots(&self) -> Vec<bool> {
        let mut live = vec![false; self.num_blocks() * self.block_size()];
        for (seq, &len) in self.seq_lens.iter().enumerate() {
            (0..len).for_each(|token| live[self.slot(seq, token)] = true);
        }
        live
    }
}

/// One append call: rows of new keys and values written to slots.
#[derive(Debug, Clone, PartialEq)]
pub struct Append {
    /// [tokens, num_kv_heads, head_dim].
    pub k_new: Tensor,
    /// Like `k_new`.
    pub v_new: Tensor,
    /// [num_blocks, block_size, num_kv_heads, head_dim], before the call.
    pub k_cache: Tensor,
    /// Like `k_cache`.
    pub v_cache: Tensor,
    /// [tokens]; negative = skip the token.
    pub slot_mapping: Vec<i64>,
    /// Scale of the key codes.
    pub k_scale: Scale,
    /// Scale of the value codes.
    pub v_scale: Scale,
}

/// One merge call: partial results of disjoint sets of keys joined into one.
#[derive(Debug, Clone, PartialEq)]
pub struct Merge {
    /// [parts, rows, heads, head_dim].
    pub outs: Tensor,
    /// [parts, rows, heads]; −inf and +inf mark an empty part.
    pub lses: Vec<f32>,
    /// Natural-log logit of each head that joins the sum once.
    pub sinks: Option<Vec<f32>>,
}

/// A sequence built up token by token: append token t, then attend with t + 1 tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Stepwise {
    /// [tokens, num_q_heads, head_dim].
    pub q: Tensor,
    /// [tokens, num_kv_heads, head_dim].
    pub k: Tensor,
    /// Like `k`.
    pub v: Tensor,
    /// [num_blocks, block_size, num_kv_heads, head_dim] before the first step.
    pub k_cache: Tensor,
    /// Like `k_cache`.
    pub v_cache: Tensor,
    /// [1, max_blocks_per_seq].
    pub block_table: Vec<i32>,
    /// [tokens].
    pub slot_mapping: Vec<i64>,
    /// Factor of q·k.
    pub sm_scale: f64,
    /// Mask and logits.
    pub mask: Mask,
}

impl Stepwise {
    /// Number of tokens, and of steps.
    pub fn num_tokens(&self) -> usize {
        self.slot_mapping.len()
    }

    /// The append of a range of tokens to given caches.
    pub fn append(&self, tokens: Range<usize>, k_cache: Tensor, v_cache: Tensor) -> Append {
        Append {
            k_new: self.k.rows(tokens.clone()),
            v_new: self.v.rows(tokens.clone()),
            k_cache,
            v_cache,
            slot_mapping: self.slot_mapping[tokens].to_vec(),
            k_scale: Scale::None,
            v_scale: Scale::None,
        }
    }

    /// The attention of a range of query rows when the tokens up to the range's end are in the caches.
    pub fn attention(&self, rows: Range<usize>, k_cache: Tensor, v_cache: Tensor) -> Attention {
        Attention {
            q: self.q.rows(rows.clone()),
            k_cache,
            v_cache,
            block_table: self.block_table.clone(),
            max_blocks_per_seq: self.block_table.len(),
            seq_lens: vec![rows.end],
            query_start_loc: vec![0, rows.len()],
            sm_scale: self.sm_scale,
            mask: self.mask.clone(),
            k_scale: Scale::None,
            v_scale: Scale::None,
        }
    }
}
