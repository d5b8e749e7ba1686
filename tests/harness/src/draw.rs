//! Random problems over a paged pool, made from a small description that a property test can shrink.
//!
//! Slots that no live token owns hold poison (NaN, −127 for `i8`), table entries past a sequence's blocks hold
//! wild ids, blocks lie in a shuffled order, and sequences may share the blocks of a common prefix.

use std::ops::RangeInclusive;

use proptest::prelude::*;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::dtype::Dtype;
use crate::problem::{Append, Attention, Mask, Scale, Tensor};

/// What queries, keys and values look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fill {
    /// N(0, 1): scores of standard deviation 1.
    Normal,
    /// Queries of N(0, 8²): a few keys take all the weight.
    Sharp,
    /// All keys of a head are equal, so all scores are: the output is the mean of the values.
    Constant,
    /// Scores of magnitude 1,000 and more.
    Huge,
    /// Every score lies near −50,000, far below any finite "minus infinity" that a kernel might use.
    Deep,
    /// All near zero, down to subnormals of f16.
    NearZero,
    /// Scores rise with the position: every tile moves the maximum.
    Rising,
    /// Scores fall with the position: the first tile keeps the maximum.
    Falling,
}

impl Fill {
    /// All fills.
    pub const ALL: [Self; 8] = [
        Self::Normal,
        Self::Sharp,
        Self::Constant,
        Self::Huge,
        Self::Deep,
        Self::NearZero,
        Self::Rising,
        Self::Falling,
    ];
}

/// How codes of the pool are scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScaleForm {
    /// Codes are the values.
    None,
    /// One factor.
    Scalar,
    /// One for each KV head.
    PerHead,
    /// One for each sequence and KV head.
    PerSeqAndHead,
}

/// Description of an attention problem.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Type of queries and outputs.
    pub q_dtype: Dtype,
    /// Type of the pool.
    pub kv_dtype: Dtype,
    /// KV heads.
    pub num_kv_heads: usize,
    /// Query heads of each KV head.
    pub group_size: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Tokens of a block.
    pub block_size: usize,
    /// Query rows and tokens of each sequence.
    pub seqs: Vec<(usize, usize)>,
    /// Tokens of a prefix that sequences have in common; whole blocks of it are shared.
    pub shared_tokens: usize,
    /// Contents.
    pub fill: Fill,
    /// Scales of the codes.
    pub scale: ScaleForm,
    /// Mask and logits.
    pub mask: Mask,
    /// Seed of the contents.
    pub seed: u64,
    /// Seed of where blocks lie and of what unused table entries hold; contents do not depend on it.
    pub placement: u64,
}

impl Spec {
    /// One query row for each length, N(0, 1), causal, no scales: plain decode.
    pub fn decode(dtype: Dtype, heads: (usize, usize), head_dim: usize, lens: &[usize]) -> Self {
        Self {
            q_dtype: dtype,
            kv_dtype: dtype,
            num_kv_heads: heads.1,
            group_size: heads.0 / heads.1,
            head_dim,
            block_size: 16,
            seqs: lens.iter().map(|&len| (1, len)).collect(),
            shared_tokens: 0,
            fill: Fill::Normal,
            scale: ScaleForm::None,
            mask: Mask::causal(),
            seed: 0,
            placement: 0,
        }
    }

    /// Draws the problem.
    pub fn build(&self) -> Attention {
        let layout = Layout::draw(self);
        let cache_shape = [layout.num_blocks, self.block_size, self.num_kv_heads, self.head_dim];
        let poison = Tensor::filled(self.kv_dtype, &cache_shape, self.kv_dtype.poison());
        let total_q: usize = self.seqs.iter().map(|(query_len, _)| query_len).sum();
        let num_q_heads = self.num_kv_heads * self.group_size;
        let starts = self.seqs.iter().scan(0, |start, (query_len, _)| {
            *start += query_len;
            Some(*start)
        });
        let mut problem = Attention {
            q: Tensor::filled(self.q_dtype, &[total_q, num_q_heads, self.head_dim], 0.0),
            k_cache: poison.clone(),
            v_cache: poison,
            block_table: layout.block_table,
            max_blocks_per_seq: layout.max_blocks_per_seq,
            seq_lens: self.seqs.iter().map(|(_, seq_len)| *seq_len).collect(),
            query_start_loc: std::iter::once(0).chain(starts).collect(),
            // What a caller passes is f32.
            sm_scale: f64::from((1.0 / (self.head_dim as f64).sqrt()) as f32),
            mask: self.mask.clone(),
            k_scale: Scale::None,
            v_scale: Scale::None,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        self.draw_scales(&mut problem, &mut rng);
        for index in 0..problem.q.len() {
            problem.q.set(index, self.query_element(index % self.head_dim, &mut rng));
        }
        self.fill_caches(&mut problem, &mut rng);
        problem
    }

    /// Sequences take their tokens in order, so that a shared slot is written once and by content alone.
    fn fill_caches(&self, problem: &mut Attention, rng: &mut ChaCha8Rng) {
        let code_unit = if self.kv_dtype == Dtype::I8 { 1.0 / 32.0 } else { 1.0 };
        let mut written = vec![false; problem.num_blocks() * self.block_size];
        for (seq, &(_, seq_len)) in self.seqs.iter().enumerate() {
            for token in 0..seq_len {
                let slot = problem.slot(seq, token);
                if std::mem::replace(&mut written[slot], true) {
                    continue;
                }
                for head in 0..self.num_kv_heads {
                    let first = problem.kv_index(slot, head);
                    for dim in 0..self.head_dim {
                        let key = self.key_element(dim, head, token, seq_len, rng);
                        let value: f64 = StandardNormal.sample(rng);
                        problem.k_cache.set(first + dim, key / code_unit);
                        let value = if self.fill == Fill::NearZero { value * 1e-6 } else { value };
                        problem.v_cache.set(first + dim, value / code_unit);
                    }
                }
            }
        }
    }

    fn query_element(&self, dim: usize, rng: &mut impl Rng) -> f64 {
        let normal: f64 = StandardNormal.sample(rng);
        match self.fill {
            Fill::Normal | Fill::Constant => normal,
            Fill::Sharp => 8.0 * normal,
            Fill::Huge => 3000.0 * normal,
            Fill::NearZero => 1e-6 * normal,
            // Against keys of about 12 in every dim: -50,000 in all.
            Fill::Deep => -4000.0 / (self.head_dim as f64).sqrt() + normal,
            // Along one dim, so that the key's entry there sets the score.
            Fill::Rising | Fill::Falling if dim == 0 => (self.head_dim as f64).sqrt(),
            Fill::Rising | Fill::Falling => 0.25 * normal,
        }
    }

    fn key_element(
        &self,
        dim: usize,
        head: usize,
        token: usize,
        seq_len: usize,
        rng: &mut impl Rng,
    ) -> f64 {
        let normal: f64 = StandardNormal.sample(rng);
        let slope = 40.0 * token as f64 / seq_len as f64 - 20.0;
        match self.fill {
            Fill::Normal | Fill::Sharp | Fill::Huge => normal,
            Fill::NearZero => 1e-6 * normal,
            Fill::Constant => ((3 * dim + 5 * head) % 7) as f64 / 4.0 - 0.75,
            Fill::Deep => 12.5 + normal / 16.0,
            Fill::Rising if dim == 0 => slope,
            Fill::Falling if dim == 0 => -slope,
            Fill::Rising | Fill::Falling => normal,
        }
    }

    fn draw_scales(&self, problem: &mut Attention, rng: &mut impl Rng) {
        let code_unit = if self.kv_dtype == Dtype::I8 { 1.0 / 32.0 } else { 1.0 };
        let mut factors = |count: usize| -> Vec<f32> {
            (0..count).map(|_| (code_unit * rng.random_range(0.5..2.0)) as f32).collect()
        };
        let heads = self.num_kv_heads;
        let mut scale = || match self.scale {
            ScaleForm::None => Scale::None,
            ScaleForm::Scalar => Scale::Scalar(factors(1)[0]),
            ScaleForm::PerHead => Scale::PerHead(factors(heads)),
            ScaleForm::PerSeqAndHead => Scale::PerSeqAndHead(factors(heads * self.seqs.len())),
        };
        problem.k_scale = scale();
        problem.v_scale = scale();
    }
}

/// Which block holds which tokens.
struct Layout {
    num_blocks: usize,
    block_table: Vec<i32>,
    max_blocks_per_seq: usize,
}

impl Layout {
    /// Whole blocks of the common prefix go to the sequences that have all their tokens; ids are a random
    /// permutation, and a few blocks belong to nobody.
    fn draw(spec: &Spec) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(!spec.placement);
        let blocks_of = |len: usize| len.div_ceil(spec.block_size);
        let shared = |len: usize| spec.shared_tokens.min(len) / spec.block_size;
        let most_shared = spec.seqs.iter().map(|seq| shared(seq.1)).max().unwrap_or(0);
        let own: usize = spec.seqs.iter().map(|seq| blocks_of(seq.1) - shared(seq.1)).sum();
        let spare = rng.random_range(1..=3);
        let num_blocks = most_shared + own + spare;
        let mut ids: Vec<i32> = (0..num_blocks as i32).collect();
        ids.shuffle(&mut rng);
        let longest = spec.seqs.iter().map(|seq| blocks_of(seq.1)).max().unwrap_or(0);
        let max_blocks_per_seq = longest + rng.random_range(1..=3);
        let mut block_table = Vec::new();
        let mut next_own = most_shared;
        for &(_, len) in &spec.seqs {
            let own = blocks_of(len) - shared(len);
            block_table.extend_from_slice(&ids[..shared(len)]);
            block_table.extend_from_slice(&ids[next_own..next_own + own]);
            next_own += own;
            for _ in blocks_of(len)..max_blocks_per_seq {
                let wild = [-1, i32::MAX, i32::MIN, num_blocks as i32, ids[0]];
                block_table.push(wild[rng.random_range(0..wild.len())]);
            }
        }
        Self { num_blocks, block_table, max_blocks_per_seq }
    }
}

/// Limits of the specs that [`decode_specs`] draws.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Types of query and pool to choose from.
    pub dtypes: Vec<(Dtype, Dtype)>,
    /// Head dimensions to choose from.
    pub head_dims: Vec<usize>,
    /// Query heads of each KV head.
    pub group_sizes: Vec<usize>,
    /// Block sizes.
    pub block_sizes: RangeInclusive<usize>,
    /// Longest sequence.
    pub max_len: usize,
    /// Largest number of sequences.
    pub max_seqs: usize,
    /// Largest sum over the sequences of tokens · query heads · head_dim: what a run costs.
    pub max_work: usize,
    /// Fills to choose from.
    pub fills: Vec<Fill>,
}

impl Default for Limits {
    /// All that plain decode takes: the three float types, head_dim to 256, sequences to a few chunks.
    fn default() -> Self {
        let types = [Dtype::F32, Dtype::F16, Dtype::Bf16];
        Self {
            dtypes: types.iter().flat_map(|&q| types.map(|kv| (q, kv))).collect(),
            head_dims: (8..=256).step_by(8).collect(),
            group_sizes: (1..=9).chain([12, 16, 20]).collect(),
            block_sizes: 1..=40,
            max_len: 1_100,
            max_seqs: 4,
            max_work: 400_000,
            fills: Fill::ALL.to_vec(),
        }
    }
}

/// Lengths that find faults: 0, 1, around a multiple of the block size, and anything to `max_len`.
pub fn lens(block_size: usize, max_len: usize) -> impl Strategy<Value = usize> {
    let blocks = 1..=(max_len / block_size).clamp(1, 4);
    prop_oneof![
        1 => Just(0),
        1 => Just(1),
        3 => (blocks, -1..=1i64).prop_map(move |(blocks, offset)| {
            (blocks * block_size).saturating_add_signed(offset as isize)
        }),
        3 => 2..=max_len.max(2),
    ]
    .prop_map(move |len| len.min(max_len))
}

/// Decode problems (one query row for each sequence) within limits.
pub fn decode_specs(limits: &Limits) -> impl Strategy<Value = Spec> + use<> {
    let Limits { dtypes, head_dims, group_sizes, block_sizes, max_len, max_seqs, max_work, fills } =
        limits.clone();
    let shape = (
        prop::sample::select(dtypes),
        prop::sample::select(head_dims),
        prop::sample::select(group_sizes),
        prop_oneof![2 => Just(16), 3 => block_sizes],
        1..=3usize,
    );
    let contents = (prop::sample::select(fills), any::<u64>(), any::<u64>());
    (shape, contents).prop_flat_map(move |(shape, (fill, seed, placement))| {
        let ((q_dtype, kv_dtype), head_dim, group_size, block_size, num_kv_heads) = shape;
        let seqs = prop::collection::vec(lens(block_size, max_len), 1..=max_seqs);
        (seqs, 0..=3usize).prop_map(move |(lens, shared_blocks)| Spec {
            q_dtype,
            kv_dtype,
            num_kv_heads,
            group_size,
            head_dim,
            block_size,
            seqs: within(&lens, max_work / (head_dim * group_size * num_kv_heads)),
            shared_tokens: shared_blocks * block_size,
            fill,
            scale: ScaleForm::None,
            mask: Mask::causal(),
            seed,
            placement,
        })
    })
}

/// One query row for each length, cut down to `budget` tokens in all.
fn within(lens: &[usize], mut budget: usize) -> Vec<(usize, usize)> {
    let mut take = |len: usize| {
        let len = len.min(budget);
        budget -= len;
        (1, len)
    };
    lens.iter().map(|&len| take(len)).collect()
}

/// Description of an append problem.
#[derive(Debug, Clone, PartialEq)]
pub struct AppendSpec {
    /// Type of the new rows.
    pub new_dtype: Dtype,
    /// Type of the pool.
    pub kv_dtype: Dtype,
    /// KV heads.
    pub num_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Tokens of a block.
    pub block_size: usize,
    /// New tokens.
    pub num_tokens: usize,
    /// Seed of everything else.
    pub seed: u64,
}

impl AppendSpec {
    /// Draws the problem: distinct slots in any order, about one in five tokens skipped; values over the whole range
    /// of both types, among them halves between codes, subnormals, zeros of both signs, infinities and NaN.
    pub fn build(&self) -> Append {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let num_blocks = self.num_tokens.div_ceil(self.block_size) + rng.random_range(1..=3);
        let cache_shape = [num_blocks, self.block_size, self.num_kv_heads, self.head_dim];
        let mut slots: Vec<i64> = (0..(num_blocks * self.block_size) as i64).collect();
        slots.shuffle(&mut rng);
        let mut skip = |slot: i64| if rng.random_range(0..5) == 0 { -1 - slot } else { slot };
        let slot_mapping = slots[..self.num_tokens].iter().map(|&slot| skip(slot)).collect();
        let cache = Tensor::filled(self.kv_dtype, &cache_shape, self.kv_dtype.poison());
        Append {
            k_new: self.rows(&mut rng),
            v_new: self.rows(&mut rng),
            k_cache: cache.clone(),
            v_cache: cache,
            slot_mapping,
            k_scale: Scale::None,
            v_scale: Scale::None,
        }
    }

    fn rows(&self, rng: &mut ChaCha8Rng) -> Tensor {
        let shape = [self.num_tokens, self.num_kv_heads, self.head_dim];
        let mut values = Vec::new();
        for _ in 0..shape.iter().product() {
            let normal: f64 = StandardNormal.sample(rng);
            values.push(match rng.random_range(0..16) {
                0 => normal * 2f64.powi(rng.random_range(-30..30)),
                1 => {
                    [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN][rng.random_range(0..5)]
                }
                // A code of the pool's type plus half a step: ties.
                2..6 => {
                    let code = self.kv_dtype.round(normal);
                    let power = 2f64.powi(code.abs().log2().floor() as i32);
                    code + power * self.kv_dtype.unit_roundoff()
                }
                _ => normal,
            });
        }
        let mut rows = Tensor::from_values(self.new_dtype, &shape, &values);
        // NaN of many bits: the low six are mantissa in every type.
        let size = self.new_dtype.bytes();
        for index in (0..values.len()).filter(|&index| values[index].is_nan()) {
            rows.bytes[index * size] ^= rng.random_range(0..64u8);
        }
        rows
    }
}

/// Append problems over the three float types.
pub fn append_specs() -> impl Strategy<Value = AppendSpec> {
    let types = [Dtype::F32, Dtype::F16, Dtype::Bf16].as_slice();
    let head_dims: Vec<usize> = (8..=256).step_by(8).collect();
    let sizes = (1..=5usize, prop::sample::select(head_dims), 1..=20usize, 0..=24usize);
    (prop::sample::select(types), prop::sample::select(types), sizes, any::<u64>()).prop_map(
        |(new_dtype, kv_dtype, (num_kv_heads, head_dim, block_size, num_tokens), seed)| {
            AppendSpec { new_dtype, kv_dtype, num_kv_heads, head_dim, block_size, num_tokens, seed }
        },
    )
}
