//! How decode divides its work: kernel, chunks, workspace, grid.
#![forbid(unsafe_code)]

use crate::driver::DeviceProperties;
use crate::error::{Error, Result};
use bytemuck::Zeroable;

use crate::kernels::{self, KERNELS};
use crate::launch::DecodeParams;
use crate::pool::{PoolShape, expect_in_range};
use crate::types::Dtype;

/// Tokens of a tile, the unit in which the kernels copy and multiply.
const TILE: u32 = 16;

/// Largest number of tokens of a sequence: token indices stay below 2³¹ when rounded up to tiles.
const MAX_LEN: usize = (1 << 31) - TILE as usize;

/// Largest number of units of a launch: their numbers stay below 2³² when a grid is added to them.
const MAX_UNITS: u64 = i32::MAX as u64;

/// Largest number of rows that a chunk of all heads has in the workspace: merging steps from chunk to chunk by 32 bits of them.
const MAX_CHUNK_ROWS: u64 = u32::MAX as u64;

/// Largest number of elements of K: 2³² pieces of 8 elements.
pub(crate) const MAX_POOL_ELEMS: u64 = 1 << 35;

/// Rows are rescaled when a score passes the row's maximum by more than this, in powers of two: probabilities
/// stay below 2⁸, far from the largest f16. `build.rs` names the number in the kernels' comments.
const RESCALE_LOG2: f32 = 8.0;

/// Query heads that one warp of the wide tensor-core kernels takes.
const WIDE_HEADS_PER_WARP: u32 = 16;

/// Query heads that one warp of the kernels for the CUDA cores takes.
const HEADS_PER_WARP: u32 = 8;

/// The rule by which a sequence is cut into chunks; `ptx/decode_units.ptx` has the same.
///
/// It knows the number of KV heads and the sequence's own length, nothing else: that is what makes
/// results independent of the batch and the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkRule {
    pub bias: u32,
    pub cap: u32,
    pub min: u32,
}

impl ChunkRule {
    /// The rule for a head configuration, on the tensor cores or not.
    ///
    /// A sequence has `num_kv_heads` times as many units as chunks, so more KV heads ask for fewer chunks. On the tensor cores
    /// a chunk has 512 tokens or more: with 8 KV heads 1,024 tokens make 2 chunks, 4,096 and 8,192 make 8, none more than 32. On the
    /// CUDA cores, which take longer for a tile, it has 128 or more: 1,024 tokens make 8 chunks, 4,096 make 16, none more than 64.
    ///
    /// Chosen by time on an H200 among seven rules and shapes from one sequence of 256 tokens to 256 of 1,024 and 64 of 8,192
    /// (`benches/README.md`): a unit costs several microseconds beside its tokens, and a lone short sequence wants many.
    pub fn of(num_kv_heads: u32, tensor_cores: bool) -> Self {
        let log2_heads = num_kv_heads.max(1).ilog2();
        let (bias, cap) =
            (log2_heads.saturating_sub(3), 8_u32.saturating_sub(log2_heads).clamp(4, 7));
        if tensor_cores {
            Self { bias: bias + 3, cap: cap - 1, min: 5 }
        } else {
            Self { bias: bias + 1, cap, min: 3 }
        }
    }

    /// log2 of the tiles of a chunk of a sequence with so many tiles.
    fn shift(self, tiles: u32) -> u32 {
        let log2_tiles = (tiles | 1).ilog2();
        ((log2_tiles + self.bias) / 2).max(log2_tiles.saturating_sub(self.cap)).max(self.min)
    }

    /// Chunks of a sequence of `len` tokens, at least 1.
    pub fn chunks(self, len: u32) -> u32 {
        let tiles = len.div_ceil(TILE);
        tiles.div_ceil(1 << self.shift(tiles)).max(1)
    }

    /// The largest number of chunks of any sequence of up to `max_len` tokens.
    pub fn max_chunks(self, max_len: u32) -> u32 {
        // Among lengths with the same log2 of tiles the chunk is the same, so the longest has the most.
        let max_tiles = max_len.div_ceil(TILE);
        (0..=(max_tiles | 1).ilog2())
            .map(|log2| max_tiles.min((2 << log2) - 1))
            .map(|tiles| self.chunks(tiles * TILE))
            .fold(1, u32::max)
    }
}

/// Factor and shift with which `x / divisor` is `x * factor >> shift` for every x below 2³¹.
///
/// Granlund and Montgomery, "Division by invariant integers using multiplication" (1994), theorem 4.2 with N = 31.
fn division(divisor: u32) -> (u32, u32) {
    assert!(divisor > 0, "no shape has a dimension of 0");
    let log2 = divisor.next_power_of_two().ilog2();
    let factor = (1_u64 << (31 + log2)) / u64::from(divisor) + 1;
    // divisor > 2^(log2 - 1), so that the quotient is below 2^32 - 1.
    (factor as u32, 31 + log2)
}

/// What does not change between calls of decode with one head configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KernelPlan {
    /// Index into [`KERNELS`].
    pub kernel: usize,
    pub threads: u32,
    /// How many times K and V are read: once per as many query heads of a group as a CTA takes.
    pub passes: u32,
    /// Type of queries and outputs.
    pub q_dtype: Dtype,
    pub rule: ChunkRule,
    num_kv_heads: u32,
    group_size: u32,
    head_dim: u32,
}

/// Sizes of the memory that a launch needs beside its arguments, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Workspace {
    /// Units of work at most.
    pub units: u32,
    /// f32 elements of partial outputs.
    pub partial_out: usize,
    /// f32 elements of row maxima and sums.
    pub partial_stat: usize,
    /// u32 counters, 0 between launches.
    pub arrivals: usize,
}

/// Where the parts of a [`Workspace`] lie in one allocation, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub arrivals: usize,
    pub partial_stat: usize,
    pub partial_out: usize,
    pub bytes: usize,
}

impl Workspace {
    /// The parts one after the other, the counters first, each aligned to 16 bytes.
    pub fn layout(&self) -> Result<Layout> {
        let end = |start: usize, elems: usize| {
            start.checked_add(elems.checked_mul(4)?)?.checked_next_multiple_of(16)
        };
        let parts = || {
            let partial_stat = end(0, self.arrivals)?;
            let partial_out = end(partial_stat, self.partial_stat)?;
            let bytes = end(partial_out, self.partial_out)?;
            Some(Layout { arrivals: 0, partial_stat, partial_out, bytes })
        };
        parts().ok_or(Error::Overflow { what: "bytes of the workspace" })
    }
}

impl KernelPlan {
    /// The plan for queries of `q` over pools of `kv`: tensor cores where both are one 16-bit type, CUDA cores otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::NoKernel`], which would be a fault of the list in `build.rs`.
    pub fn new(q: Dtype, kv: Dtype, shape: PoolShape, num_q_heads: usize) -> Result<Self> {
        // PoolShape::check bounds heads and head_dim, the callers the query heads.
        let (num_kv_heads, head_dim) = (shape.num_kv_heads as u32, shape.head_dim as u32);
        let group_size = num_q_heads as u32 / num_kv_heads;
        let tensor_cores = q == kv && q != Dtype::F32;
        let wide = group_size > WIDE_HEADS_PER_WARP;
        let rounded = head_dim.next_multiple_of(if tensor_cores && wide { 64 } else { 32 });
        let kernel = match group_size {
            _ if !tensor_cores => kernels::find(format_args!("decode_d{rounded}_{kv}")),
            0..=8 => kernels::find(format_args!("decode_mma_d{rounded}_{kv}_g8")),
            9..=16 => kernels::find(format_args!("decode_mma_d{rounded}_{kv}_g16")),
            _ => kernels::find(format_args!("decode_mma_d{rounded}_{kv}_wide")),
        };
        let head_dim_of_kernel = rounded as usize;
        let kernel = kernel.ok_or(Error::NoKernel {
            name: "decode",
            head_dim: head_dim_of_kernel,
            q,
            kv,
        })?;
        // Where heads of a group are dealt to warps, a CTA has no more of them than there are heads for, and reads K and V
        // again for those that are left.
        let heads_per_warp = match tensor_cores {
            false => Some(HEADS_PER_WARP),
            true => wide.then_some(WIDE_HEADS_PER_WARP),
        };
        let most = KERNELS[kernel].threads / 32;
        let (warps, passes) = heads_per_warp.map_or((most, 1), |heads| {
            (group_size.div_ceil(heads).clamp(1, most), group_size.div_ceil(most * heads).max(1))
        });
        let rule = ChunkRule::of(num_kv_heads, tensor_cores);
        Ok(Self {
            kernel,
            threads: 32 * warps,
            passes,
            q_dtype: q,
            rule,
            num_kv_heads,
            group_size,
            head_dim,
        })
    }

    /// Units of one chunk of a sequence.
    fn chunk_units(&self) -> u32 {
        self.num_kv_heads * self.passes
    }

    /// What launches over tables of up to `max_seqs` rows, at most 2³¹ − 1, of up to `max_tokens` tokens need at most.
    pub fn workspace(&self, max_seqs: usize, max_tokens: usize) -> Result<Workspace> {
        expect_in_range("tokens of a row of the block table", max_tokens, MAX_LEN)?;
        let max_chunks = self.rule.max_chunks(max_tokens as u32);
        // Below 2³¹ sequences, 2⁹ chunks and 2²³ query heads, of which no unit has less than one.
        let units = max_seqs as u64 * u64::from(max_chunks) * u64::from(self.chunk_units());
        if units > MAX_UNITS {
            let what = "number of sequences, chunks and heads";
            return Err(Error::TooLarge { what, value: units, limit: MAX_UNITS });
        }
        let chunk_rows = u64::from(self.chunk_units()) * u64::from(self.group_size);
        if max_chunks > 1 && chunk_rows > MAX_CHUNK_ROWS {
            let what = "number of query heads times passes";
            return Err(Error::TooLarge { what, value: chunk_rows, limit: MAX_CHUNK_ROWS });
        }
        // A row with one chunk never touches the workspace.
        let rows = if max_chunks == 1 { 0 } else { units as usize * self.group_size as usize };
        Ok(Workspace {
            units: units as u32,
            partial_out: rows * self.head_dim as usize, // below 2³¹ units of 2²³ heads of 256
            partial_stat: 2 * rows,
            arrivals: max_seqs * self.chunk_units() as usize,
        })
    }

    /// The parameters that follow from the plan, an NHD pool of this shape, queries and outputs without gaps, and the
    /// scale; the rest is null or 0.
    pub fn params(&self, pool: PoolShape, sm_scale: f32) -> Result<DecodeParams> {
        let token_elems = self.num_kv_heads * self.head_dim; // at most 65,535 heads of 256
        let block_elems = pool.block_size as u64 * u64::from(token_elems);
        // The kernels count offsets in 8 elements, 32 bits of them.
        let elems = pool.num_blocks as u64 * block_elems;
        if elems > MAX_POOL_ELEMS {
            let what = "elements of K";
            return Err(Error::TooLarge { what, value: elems, limit: MAX_POOL_ELEMS });
        }
        // Never 0, so that masked scores stay at minus infinity, and never infinite.
        let score_scale =
            (sm_scale.abs() * core::f32::consts::LOG2_E).clamp(f32::MIN_POSITIVE, f32::MAX);
        let q_elems = token_elems * self.group_size;
        // PoolShape::check bounds the block size by i32::MAX.
        let (block_magic, block_shift) = division(pool.block_size as u32);
        let (units_magic, units_shift) = division(self.chunk_units());
        Ok(DecodeParams {
            kv_block_stride: block_elems,
            kv_token_stride: token_elems,
            kv_head_stride: self.head_dim,
            q_token_stride: q_elems,
            q_head_stride: self.head_dim,
            out_token_stride: q_elems,
            out_head_stride: self.head_dim,
            num_kv_heads: self.num_kv_heads,
            group_size: self.group_size,
            head_dim: self.head_dim,
            block_size: pool.block_size as u32,
            num_blocks: pool.num_blocks as u32,
            chunk_bias: self.rule.bias,
            chunk_cap: self.rule.cap,
            chunk_min: self.rule.min,
            score_scale,
            headroom: RESCALE_LOG2 / score_scale,
            q_sign: if sm_scale < 0.0 { 0x8000_8000 } else { 0 },
            passes: self.passes,
            block_magic,
            block_shift,
            units_magic,
            units_shift,
            q_dtype: match self.q_dtype {
                Dtype::F32 => 0,
                Dtype::F16 => 1,
                Dtype::Bf16 => 2,
            },
            ..DecodeParams::zeroed()
        })
    }

    /// CTAs of a launch with at most so many units: as many as the device holds at once, if there is work for them.
    pub fn grid(&self, units: u32, device: &DeviceProperties) -> Result<u32> {
        let kernel = &KERNELS[self.kernel];
        let shared_bytes = kernel.shared_bytes(self.threads);
        let limit = device.shared_bytes_per_cta;
        if shared_bytes > limit {
            return Err(Error::TooLarge {
                what: "shared memory of a CTA",
                value: shared_bytes.into(),
                limit: limit.into(),
            });
        }
        // A multiprocessor has 1 KB more than a CTA may have, and each CTA costs 1 KB beside its own
        // (CUDA C++ Programming Guide, "Compute Capabilities").
        let by_shared = limit.saturating_add(1 << 10) / (shared_bytes + (1 << 10));
        let by_registers = kernel.resident_ctas * (kernel.threads / self.threads);
        let resident = by_shared.min(by_registers).max(1);
        Ok(units.min(device.num_multiprocessors.saturating_mul(resident)).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [(u32, bool); 10] = [
        (1, true),
        (2, true),
        (8, true),
        (71, true),
        (65_535, true),
        (1, false),
        (3, false),
        (8, false),
        (32, false),
        (65_535, false),
    ];

    #[test]
    fn chunks_are_those_that_the_documentation_names() {
        let lens = [0, 1, 128, 129, 512, 513, 1_024, 4_096, 8_192, 32_768, 65_000, 1 << 20];
        let chunks = |tensor_cores| lens.map(|len| ChunkRule::of(8, tensor_cores).chunks(len));
        assert_eq!(chunks(true), [1, 1, 1, 1, 1, 2, 2, 8, 8, 16, 32, 16]);
        assert_eq!(chunks(false), [1, 1, 1, 2, 4, 5, 8, 16, 16, 32, 64, 32]);
    }

    #[test]
    fn no_length_has_more_chunks_than_the_maximum_up_to_it() {
        for (heads, tensor_cores) in RULES {
            let rule = ChunkRule::of(heads, tensor_cores);
            let mut most = 1;
            for len in (0..40_000).chain((40_000..3_000_000).step_by(4_099)) {
                most = most.max(rule.chunks(len));
                assert!(rule.max_chunks(len) >= most, "{heads} heads, {len} tokens");
            }
            assert_eq!(
                rule.max_chunks(40_000),
                (0..=40_000).map(|len| rule.chunks(len)).max().unwrap()
            );
        }
    }

    #[test]
    fn chunks_of_the_longest_sequence_do_not_overflow() {
        for (heads, tensor_cores) in RULES {
            let rule = ChunkRule::of(heads, tensor_cores);
            assert!(rule.max_chunks(MAX_LEN as u32) <= 2 << rule.cap, "{heads} heads");
        }
    }

    #[test]
    fn division_is_exact_below_two_to_the_31() {
        let near = |x: u32| x.saturating_sub(2)..=x.saturating_add(2);
        let divisors =
            (1..300).chain((1..31).flat_map(|log2| near(1 << log2))).chain([65_535, (1 << 31) - 1]);
        for divisor in divisors.filter(|divisor| *divisor > 0) {
            let (factor, shift) = division(divisor);
            let last = (1_u32 << 31) - 1;
            let multiple = last / divisor * divisor;
            for x in [0, 1, divisor - 1, divisor, multiple - 1, multiple, last, 123_456_789]
                .into_iter()
                .chain((0..31).flat_map(|log2| near(1 << log2)))
            {
                let got = (u64::from(x) * u64::from(factor)) >> shift;
                assert_eq!(got, u64::from(x / divisor), "{x} / {divisor}");
            }
        }
    }

    fn shape(num_kv_heads: usize, head_dim: usize) -> PoolShape {
        PoolShape { num_blocks: 64, block_size: 16, num_kv_heads, head_dim }
    }

    fn plan_for(q: Dtype, kv: Dtype, shape: PoolShape, num_q_heads: usize) -> KernelPlan {
        KernelPlan::new(q, kv, shape, num_q_heads).unwrap_or_else(|error| {
            panic!("{q} {kv}, {num_q_heads} query heads, {shape:?}: {error}")
        })
    }

    #[test]
    fn every_group_size_and_head_dim_has_a_kernel_for_the_tensor_cores() {
        for dtype in [Dtype::F16, Dtype::Bf16] {
            for head_dim in (8..=256).step_by(8) {
                let straight = if head_dim <= 128 { 4 } else { 2 };
                for (group, warps, passes) in [
                    (1, straight, 1),
                    (8, straight, 1),
                    (9, straight, 1),
                    (16, straight, 1),
                    (17, 2, 1),
                    (71, 5, 1),
                    (128, 8, 1),
                    (129, 8, 2),
                    (300, 8, 3),
                ] {
                    let plan = plan_for(dtype, dtype, shape(2, head_dim), 2 * group);
                    assert!(KERNELS[plan.kernel].entry.starts_with("decode_mma"));
                    let got = (plan.threads, plan.passes);
                    assert_eq!(got, (32 * warps, passes), "group size {group}");
                }
            }
        }
    }

    #[test]
    fn every_other_pair_of_types_has_a_kernel_for_the_cuda_cores() {
        let types = [Dtype::F32, Dtype::F16, Dtype::Bf16];
        for (q, kv) in types.into_iter().flat_map(|q| types.map(|kv| (q, kv))) {
            for head_dim in (8..=256).step_by(8) {
                for (group, warps, passes) in
                    [(1, 1, 1), (8, 1, 1), (9, 2, 1), (32, 4, 1), (33, 4, 2), (71, 4, 3)]
                {
                    if q == kv && q != Dtype::F32 {
                        continue;
                    }
                    let plan = plan_for(q, kv, shape(2, head_dim), 2 * group);
                    let entry = format!("decode_d{}_{kv}", head_dim.next_multiple_of(32));
                    assert_eq!(KERNELS[plan.kernel].entry, entry);
                    let got = (plan.threads, plan.passes, plan.q_dtype);
                    assert_eq!(got, (32 * warps, passes, q), "group size {group}");
                }
            }
        }
    }

    /// The largest kernel of the CUDA cores fits where a CTA may have least, 99 KB, with as many warps as it takes.
    #[test]
    fn every_kernel_of_the_cuda_cores_fits_every_device() {
        for kernel in KERNELS.iter().filter(|kernel| kernel.entry.starts_with("decode_d")) {
            assert!(kernel.shared_bytes(kernel.threads) <= 99 << 10, "{}", kernel.entry);
        }
    }

    #[test]
    fn the_grid_fills_the_device_and_never_exceeds_the_units() {
        let device = |shared_kib: u32| DeviceProperties {
            name: "test".into(),
            compute_capability: (9, 0),
            num_multiprocessors: 132,
            shared_bytes_per_cta: shared_kib << 10,
        };
        let plan = plan_for(Dtype::F16, Dtype::F16, shape(8, 128), 64);
        assert_eq!(plan.grid(1 << 20, &device(227)).unwrap(), 132 * 3);
        assert_eq!(plan.grid(1 << 20, &device(163)).unwrap(), 132 * 2);
        assert_eq!(plan.grid(1 << 20, &device(99)).unwrap(), 132);
        assert_eq!(plan.grid(5, &device(227)).unwrap(), 5);
        assert!(matches!(
            plan.grid(5, &device(48)),
            Err(Error::TooLarge { value: 65_536, limit: 49_152, .. })
        ));
        let largest = plan_for(Dtype::F16, Dtype::F16, shape(8, 256), 64);
        assert_eq!(largest.grid(1 << 20, &device(99)).unwrap(), 132);
        // One warp for 8 heads: 38 KB; two for 16: 43 KB.
        let straight = plan_for(Dtype::F32, Dtype::F32, shape(8, 128), 64);
        assert_eq!(straight.grid(1 << 20, &device(227)).unwrap(), 132 * 5);
        assert_eq!(straight.grid(1 << 20, &device(163)).unwrap(), 132 * 4);
        let straight = plan_for(Dtype::F32, Dtype::F32, shape(8, 128), 128);
        assert_eq!(straight.grid(1 << 20, &device(227)).unwrap(), 132 * 4);
    }

    #[test]
    fn the_workspace_has_a_row_per_unit_and_query_head() {
        let plan = plan_for(Dtype::F16, Dtype::F16, shape(8, 128), 32);
        let got = plan.workspace(3, 4_096).unwrap();
        let rows = 3 * 8 * 8 * 4; // 4,080 tokens make 8 chunks
        assert_eq!(
            got,
            Workspace {
                units: 3 * 8 * 8,
                partial_out: rows * 128,
                partial_stat: rows * 2,
                arrivals: 24
            }
        );
        let Layout { arrivals, partial_stat, partial_out, bytes } = got.layout().unwrap();
        assert_eq!((arrivals, partial_stat, partial_out), (0, 96, 96 + 8 * rows));
        assert_eq!(bytes, partial_out + 4 * 128 * rows);
        let short = plan.workspace(3, 512).unwrap();
        assert_eq!((short.units, short.partial_out), (24, 0));
        assert!(matches!(plan.workspace(1, 1 << 32), Err(Error::TooLarge { .. })));
    }

    /// The largest capacities have a workspace or are an error that names the number of units or of rows.
    #[test]
    fn the_largest_capacities_do_not_overflow() {
        let most = i32::MAX as usize;
        for (q, kv) in [(Dtype::F16, Dtype::F16), (Dtype::F32, Dtype::F32)] {
            for (num_kv_heads, group_size) in [(1, 1), (1, 600_000), (1, 8_388_607), (65_535, 128)]
            {
                let plan = plan_for(q, kv, shape(num_kv_heads, 256), num_kv_heads * group_size);
                let units = |seqs: usize, tokens: u32| {
                    seqs as u64
                        * u64::from(plan.rule.max_chunks(tokens))
                        * u64::from(plan.chunk_units())
                };
                for (seqs, tokens) in [(1, MAX_LEN), (most, 1), (most, MAX_LEN)] {
                    let (got, units) = (plan.workspace(seqs, tokens), units(seqs, tokens as u32));
                    let heads = (num_kv_heads * group_size) as u64;
                    let rows = heads * u64::from(plan.passes);
                    let too_large =
                        |what, value, limit| Err(Error::TooLarge { what, value, limit });
                    if units > MAX_UNITS {
                        let what = "number of sequences, chunks and heads";
                        assert_eq!(got, too_large(what, units, MAX_UNITS));
                    } else if tokens == MAX_LEN && rows >= 1 << 32 {
                        let what = "number of query heads times passes";
                        assert_eq!(got, too_large(what, rows, (1 << 32) - 1));
                    } else {
                        assert_eq!(u64::from(got.unwrap().units), units);
                    }
                }
            }
        }
    }

    /// A device may say that it has any amount of shared memory.
    #[test]
    fn shared_memory_without_end_leaves_the_grid_to_the_registers() {
        let device = DeviceProperties {
            name: "test".into(),
            compute_capability: (9, 0),
            num_multiprocessors: u32::MAX,
            shared_bytes_per_cta: u32::MAX,
        };
        let plan = plan_for(Dtype::F16, Dtype::F16, shape(8, 128), 64);
        assert_eq!(plan.grid(1 << 20, &device), Ok(1 << 20));
        let of_132 = DeviceProperties { num_multiprocessors: 132, ..device };
        assert_eq!(plan.grid(1 << 20, &of_132), Ok(132 * 3));
    }
}
