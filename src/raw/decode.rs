//! Attention, from raw memory.

use super::{Pool, RowNames, Rows, expect_address, expect_dtype};
use crate::device::Device;
use crate::driver::Driver;
use crate::error::{Error, Result, TableEntry};
use crate::kernels;
use crate::launch::{DecodeParams, launch_raw};
use crate::plan::{KernelPlan, MAX_POOL_ELEMS};
use crate::pool::{PoolShape, expect_in_range};
use crate::types::{DeviceAddress, Dtype};

const Q: RowNames = RowNames { token_stride: "token stride of q", head_stride: "head stride of q" };
const OUT: RowNames =
    RowNames { token_stride: "token stride of out", head_stride: "head stride of out" };

/// A padded block table and the lengths, on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Block ids, `u32` or non-negative `i32`, [num_seqs, max_blocks_per_seq].
    pub block_table: DeviceAddress,
    /// KV tokens of each sequence, `u32` or non-negative `i32`, `[num_seqs]`.
    pub seq_lens: DeviceAddress,
    /// Sequences.
    pub num_seqs: usize,
    /// Entries from one row of the table to the next.
    pub max_blocks_per_seq: usize,
}

/// The arguments of [`decode`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decode {
    /// Queries, [num_seqs, num_q_heads, head_dim].
    pub q: Rows,
    /// Outputs, [num_seqs, num_q_heads, head_dim], of the type of `q`; 0 for a sequence of length 0.
    pub out: Rows,
    /// Where wanted, the natural logarithm of each row's sum of exponentials, `f32` [num_seqs, num_q_heads] without gaps; −∞ for a
    /// sequence of length 0.
    pub lse: Option<DeviceAddress>,
    /// Keys and values.
    pub pool: Pool,
    /// Blocks and lengths of the sequences.
    pub table: Table,
    /// Query heads, a multiple of the pool's heads.
    pub num_q_heads: usize,
    /// Factor of the scores, finite, usually 1/√head_dim; [`crate::DecodeArgs::sm_scale`] says how large scores may be.
    pub sm_scale: f32,
    /// Memory for partial results.
    pub workspace: Workspace,
    /// For tables whose contents nobody checked, `u64`, 0 before the first call: block ids and lengths out of range are
    /// clamped, and one of them is reported here, which [`check_error_word`] turns into an error.
    pub error_word: Option<DeviceAddress>,
}

/// Turns a word that calls with one pool shape and one width of the table reported into ([`Decode::error_word`]) into an error.
///
/// Of several offenders it names a length, if there is one, else a block id, of the first sequence concerned and there
/// the largest one: the same under every schedule.
///
/// # Errors
///
/// [`Error::DeviceTable`] unless it is 0.
pub fn check_error_word(word: u64, shape: PoolShape, max_blocks_per_seq: usize) -> Result<()> {
    if word == 0 {
        return Ok(());
    }
    // `ptx/report.ptx` draws the word.
    let is_len = word >> 63 == 1;
    let seq = (!word >> 32) as u32 & i32::MAX as u32;
    let value = (word & u64::from(u32::MAX)) as u32;
    let (entry, limit) = if is_len {
        (TableEntry::SeqLen, max_blocks_per_seq.saturating_mul(shape.block_size))
    } else {
        (TableEntry::BlockId, shape.num_blocks.saturating_sub(1))
    };
    Err(Error::DeviceTable { entry, seq: seq as usize, value, limit: limit as u64 })
}

/// Device memory that [`decode`] works in, and the capacities it was sized for ([`workspace_bytes`]).
///
/// Capacities, not lengths, decide the launch, so that a captured one stays valid while sequences grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workspace {
    /// First byte, aligned to 16. All bytes are 0 before the first call; what a call leaves there is for the next one.
    pub address: DeviceAddress,
    /// Largest number of sequences.
    pub max_seqs: usize,
    /// Largest number of blocks of a sequence.
    pub max_blocks_per_seq: usize,
}

/// Bytes of a [`Workspace`] for calls with these types, shapes and capacities.
///
/// # Errors
///
/// Those of [`PoolShape::check`]; [`Error::HeadCounts`], [`Error::Zero`], [`Error::TooLarge`], [`Error::Overflow`].
pub fn workspace_bytes(
    q: Dtype,
    kv: Dtype,
    shape: PoolShape,
    num_q_heads: usize,
    max_seqs: usize,
    max_blocks_per_seq: usize,
) -> Result<usize> {
    check_heads(shape, num_q_heads)?;
    let max_tokens = max_tokens(shape, max_seqs, max_blocks_per_seq)?;
    Ok(KernelPlan::new(q, kv, shape, num_q_heads)?.workspace(max_seqs, max_tokens)?.layout()?.bytes)
}

fn check_heads(shape: PoolShape, num_q_heads: usize) -> Result<()> {
    shape.check()?;
    let num_kv_heads = shape.num_kv_heads;
    expect_in_range("num_q_heads", num_q_heads, i32::MAX as usize / kernels::MAX_HEAD_DIM)?;
    if !num_q_heads.is_multiple_of(num_kv_heads) {
        return Err(Error::HeadCounts { num_q_heads, num_kv_heads });
    }
    Ok(())
}

fn max_tokens(shape: PoolShape, max_seqs: usize, max_blocks_per_seq: usize) -> Result<usize> {
    expect_in_range("max_seqs", max_seqs, i32::MAX as usize)?;
    expect_in_range("max_blocks_per_seq", max_blocks_per_seq, i32::MAX as usize)?;
    max_blocks_per_seq
        .checked_mul(shape.block_size)
        .ok_or(Error::Overflow { what: "tokens of a row of the block table" })
}

/// Enqueues attention of one query token per sequence: what [`crate::decode()`] computes, from raw memory.
///
/// Strides are multiples of 4 for outputs and of 8 for queries and the pool, so HND as well as NHD, and slices of a wider
/// tensor. Rows of outputs lie side by side, by heads within tokens or by tokens within heads. A token stride of the pool is at most 2²⁷
/// elements, a head stride below 2³¹, those of queries and outputs below 2³² and 2³⁰; the last element of K lies below 2³⁵. The pool and
/// queries are aligned to 16 bytes, outputs to 4 elements.
///
/// # Errors
///
/// Those of [`PoolShape::check`]; [`Error::HeadCounts`]; [`Error::Zero`] and [`Error::TooLarge`] for counts and strides;
/// [`Error::Stride`] for strides that the kernel does not take; [`Error::Overlap`] for those of outputs whose rows do not lie side by
/// side; [`Error::Misaligned`] and [`Error::Null`] for an address; [`Error::Overflow`] for the workspace's; [`Error::NotFinite`];
/// [`Error::Dtype`]; and those of the driver. Then nothing is enqueued.
///
/// # Safety
///
/// From the call until the work enqueued by it has run:
///
/// - every address points to live device memory of `device` that holds, at its strides, the shape given for it;
/// - `out`, `lse`, `error_word` and the workspace overlap nothing else that the call names, and no other work writes what it reads or
///   touches what it writes, unless ordered by `stream`;
/// - each length is at most `max_blocks_per_seq * block_size`, and the first `ceil(len / block_size)` entries of its
///   row are below `num_blocks`. Entries past them and slots at or past the length are not read and may hold anything.
///   With an `error_word` neither need be so: what is out of range is clamped, and the rows concerned are wrong;
/// - the workspace has [`workspace_bytes`] bytes for its capacities, was zeroed before its first call, and serves calls with
///   the same capacities, types, head counts and `head_dim` only, one after the other: others have its counters elsewhere.
///
/// If the launch is captured, that holds for every replay, and a clone of `device`, which keeps the code loaded, lives until the last one has
/// run. `stream` is one of `device`.
pub unsafe fn decode<D: Driver>(
    device: &Device<D>,
    stream: &D::Stream,
    args: &Decode,
) -> Result<()> {
    check_decode(args)?;
    let Decode { q, pool, table, num_q_heads, workspace, .. } = *args;
    if table.num_seqs == 0 {
        return Ok(());
    }
    let plan = KernelPlan::new(q.dtype, pool.dtype, pool.shape, num_q_heads)?;
    let params = params(&plan, args)?;
    let capacity = max_tokens(pool.shape, workspace.max_seqs, workspace.max_blocks_per_seq)?;
    let units = plan.workspace(workspace.max_seqs, capacity)?.units;
    let grid = [plan.grid(units, device.properties())?, 1, 1];
    // SAFETY: the caller's promise covers all that the kernel touches with these parameters.
    unsafe { launch_raw(device, stream, plan.kernel, (grid, plan.threads), &params) }
}

/// What can be checked of the arguments of [`decode`] without its plan.
fn check_decode(args: &Decode) -> Result<()> {
    let Decode { q, out, lse, pool, table, num_q_heads, sm_scale, workspace, error_word } = *args;
    check_heads(pool.shape, num_q_heads)?;
    expect_dtype("type of out", out.dtype, q.dtype)?;
    for (what, address, align) in [
        ("q", Some(q.address), 16),
        ("out", Some(out.address), 4 * out.dtype.bytes()),
        ("k", Some(pool.k), 16),
        ("v", Some(pool.v), 16),
        ("workspace", Some(workspace.address), 16),
        ("error_word", error_word, 8),
        ("lse", lse, 4),
        ("block_table", Some(table.block_table), 4),
        ("seq_lens", Some(table.seq_lens), 4),
    ] {
        if let Some(address) = address {
            expect_address(what, address, align, table.num_seqs > 0)?;
        }
    }
    if !sm_scale.is_finite() {
        return Err(Error::NotFinite { what: "sm_scale", value: sm_scale });
    }
    if table.num_seqs == 0 {
        return Ok(());
    }
    expect_in_range("num_seqs", table.num_seqs, i32::MAX as usize)?;
    expect_in_range("max_blocks_per_seq", table.max_blocks_per_seq, i32::MAX as usize)
}

/// Parameters of the kernel, checked against the workspace's capacities.
fn params(plan: &KernelPlan, args: &Decode) -> Result<DecodeParams> {
    let Decode { q, out, lse, pool, table, sm_scale, workspace, error_word, .. } = *args;
    check_strides(q, out, pool)?;
    expect_rows_apart(out, [table.num_seqs, args.num_q_heads], pool.shape.head_dim)?;
    let tokens = max_tokens(pool.shape, workspace.max_seqs, workspace.max_blocks_per_seq)?;
    expect_in_range("num_seqs", table.num_seqs, workspace.max_seqs)?;
    let width = table.max_blocks_per_seq;
    expect_in_range("max_blocks_per_seq", width, workspace.max_blocks_per_seq)?;
    let layout = plan.workspace(workspace.max_seqs, tokens)?.layout()?;
    workspace
        .address
        .0
        .checked_add(layout.bytes as u64)
        .ok_or(Error::Overflow { what: "address of the workspace's end" })?;
    let at = |offset: usize| DeviceAddress(workspace.address.0 + offset as u64);
    Ok(DecodeParams {
        q: q.address,
        k_cache: pool.k,
        v_cache: pool.v,
        block_table: table.block_table,
        seq_lens: table.seq_lens,
        out: out.address,
        lse: lse.unwrap_or(DeviceAddress::NULL),
        partial_out: at(layout.partial_out),
        partial_stat: at(layout.partial_stat),
        arrivals: at(layout.arrivals),
        error_word: error_word.unwrap_or(DeviceAddress::NULL),
        kv_block_stride: pool.block_stride,
        // `check_strides` bounds these by u32::MAX.
        kv_token_stride: pool.token_stride as u32,
        kv_head_stride: pool.head_stride as u32,
        q_token_stride: q.token_stride as u32,
        q_head_stride: q.head_stride as u32,
        out_token_stride: out.token_stride as u32,
        out_head_stride: out.head_stride as u32,
        num_seqs: table.num_seqs as u32,
        max_blocks_per_seq: width as u32,
        ..plan.params(pool.shape, sm_scale)?
    })
}

/// Largest token stride of a pool: the kernels for the tensor cores take up to 12 rows of a tile in 32 bits of bytes.
const MAX_TOKEN_STRIDE: u64 = 1 << 27;

/// Largest head stride of a pool: they take one in 32 bits of bytes.
const MAX_HEAD_STRIDE: u64 = (1 << 31) - 1;

/// Largest head stride of rows, of f32 in 32 bits of bytes.
const MAX_ROW_STRIDE: u64 = (1 << 30) - 1;

/// Fails unless the kernels can hold the strides.
fn check_strides(q: Rows, out: Rows, pool: Pool) -> Result<()> {
    let narrow = u64::from(u32::MAX);
    for (what, stride, unit, limit) in [
        ("block stride of the pool", pool.block_stride, 8, MAX_POOL_ELEMS),
        ("token stride of the pool", pool.token_stride, 8, MAX_TOKEN_STRIDE),
        ("head stride of the pool", pool.head_stride, 8, MAX_HEAD_STRIDE),
        (Q.token_stride, q.token_stride, 8, narrow),
        (Q.head_stride, q.head_stride, 8, MAX_ROW_STRIDE),
        (OUT.token_stride, out.token_stride, 4, narrow),
        (OUT.head_stride, out.head_stride, 4, MAX_ROW_STRIDE),
    ] {
        if !stride.is_multiple_of(unit) {
            return Err(Error::Stride { what, stride, unit });
        }
        if stride > limit {
            return Err(Error::TooLarge { what, value: stride, limit });
        }
    }
    // Counts are at least 1 and below 2³¹, strides at most 2³⁵: no sum of products overflows 128 bits.
    let PoolShape { num_blocks, block_size, num_kv_heads, head_dim } = pool.shape;
    let reach: u128 = [
        (num_blocks, pool.block_stride),
        (block_size, pool.token_stride),
        (num_kv_heads, pool.head_stride),
        (head_dim, 1),
    ]
    .map(|(count, stride)| (count as u128 - 1) * u128::from(stride))
    .into_iter()
    .sum();
    if reach >= MAX_POOL_ELEMS.into() {
        return Err(Error::TooLarge {
            what: "offset of the last element of K",
            value: u64::try_from(reach).unwrap_or(u64::MAX),
            limit: MAX_POOL_ELEMS - 1,
        });
    }
    Ok(())
}

/// Fails unless rows that are written lie side by side: those of a token's heads within the token, or those of a head's tokens within
/// the head.
fn expect_rows_apart(
    out: Rows,
    [num_tokens, num_heads]: [usize; 2],
    head_dim: usize,
) -> Result<()> {
    let mut dims = [
        (OUT.head_stride, num_heads, out.head_stride),
        (OUT.token_stride, num_tokens, out.token_stride),
    ];
    dims.sort_by_key(|(_, _, stride)| *stride);
    let mut needed = head_dim as u64;
    for (what, count, stride) in dims.into_iter().filter(|(_, count, _)| *count > 1) {
        if stride < needed {
            return Err(Error::Overlap { what, stride, needed });
        }
        // Counts are below 2³¹, strides below 2³² and 2³⁰ (`check_strides`): no sum of both products overflows.
        needed += (count as u64 - 1) * stride;
    }
    Ok(())
}
