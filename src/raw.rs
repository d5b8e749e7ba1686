//! The bottom layer, for engines that own their memory: `unsafe` launches from device pointers, strides and a raw stream.
//!
//! Nothing here allocates, copies or waits, and no argument is kept after a call. What the safe layer proves, the caller
//! promises; [`decode`] and [`append`] say what that is. What can be checked without reading the device is checked:
//! shapes, strides, alignment and the combination of types are errors, never undefined behaviour.
//!
//! Streams: [`crate::Driver::Stream`] is the driver's own type. An engine's `CUstream` becomes one by `stream_from_raw` (or
//! `stream_from`) of the drivers in [`crate::driver`], once, ahead of the calls.
//!
//! Tables: the kernels read padded tables, [num_seqs, max_blocks_per_seq]. [`pad_csr`] makes one of FlashInfer's
//! `indptr, indices, last_page_len` on the host, where engines build them.

use crate::decode::expect_equal;
use crate::device::Device;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::kernels::{self, KERNELS};
use crate::launch::{AppendParams, DecodeMmaParams, DecodeParams, launch_raw};
use crate::plan::MmaPlan;
use crate::pool::{PoolShape, expect_in_range};
use crate::types::{DeviceAddress, Dtype};

/// Where the K and V of one layer lie, and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// First element of K: that of block 0, slot 0, head 0.
    pub k: DeviceAddress,
    /// First element of V, laid out as K.
    pub v: DeviceAddress,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Blocks, slots of a block, heads and dims.
    pub shape: PoolShape,
    /// Elements from one block to the next.
    pub block_stride: u64,
    /// Elements from one token of a block to the next.
    pub token_stride: u64,
    /// Elements from one head of a token to the next.
    pub head_stride: u64,
}

impl Pool {
    /// A pool laid out [num_blocks, block_size, num_kv_heads, head_dim].
    pub fn nhd(k: DeviceAddress, v: DeviceAddress, dtype: Dtype, shape: PoolShape) -> Self {
        let PoolShape { block_size, num_kv_heads, head_dim, .. } = shape;
        let (block_size, heads, dim) = (block_size as u64, num_kv_heads as u64, head_dim as u64);
        // Saturated values are refused by `PoolShape::check`, which limits the product.
        let token_stride = heads.saturating_mul(dim);
        let block_stride = token_stride.saturating_mul(block_size);
        Self { k, v, dtype, shape, block_stride, token_stride, head_stride: dim }
    }

    fn check(&self) -> Result<()> {
        self.shape.check()?;
        let contiguous = Self::nhd(self.k, self.v, self.dtype, self.shape);
        expect_stride("block stride of the pool", self.block_stride, contiguous.block_stride)?;
        expect_stride("token stride of the pool", self.token_stride, contiguous.token_stride)?;
        expect_stride("head stride of the pool", self.head_stride, contiguous.head_stride)?;
        expect_aligned("k", self.k, self.dtype.bytes())?;
        expect_aligned("v", self.v, self.dtype.bytes())
    }
}

/// Rows of heads, [num_tokens, num_heads, head_dim]: queries, outputs, new keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// First element: that of token 0, head 0.
    pub address: DeviceAddress,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Elements from one token to the next.
    pub token_stride: u64,
    /// Elements from one head to the next.
    pub head_stride: u64,
}

impl Rows {
    /// Rows without gaps.
    pub fn contiguous(
        address: DeviceAddress,
        dtype: Dtype,
        num_heads: usize,
        head_dim: usize,
    ) -> Self {
        let (heads, dim) = (num_heads as u64, head_dim as u64);
        Self { address, dtype, token_stride: heads.saturating_mul(dim), head_stride: dim }
    }

    fn check(&self, what: RowNames, num_heads: usize, head_dim: usize) -> Result<()> {
        let contiguous = Self::contiguous(self.address, self.dtype, num_heads, head_dim);
        expect_stride(what.token_stride, self.token_stride, contiguous.token_stride)?;
        expect_stride(what.head_stride, self.head_stride, contiguous.head_stride)?;
        expect_aligned(what.name, self.address, self.dtype.bytes())
    }
}

/// Names of a `Rows` argument in errors.
struct RowNames {
    name: &'static str,
    token_stride: &'static str,
    head_stride: &'static str,
}

const Q: RowNames =
    RowNames { name: "q", token_stride: "token stride of q", head_stride: "head stride of q" };
const OUT: RowNames = RowNames {
    name: "out",
    token_stride: "token stride of out",
    head_stride: "head stride of out",
};
const K_NEW: RowNames = RowNames {
    name: "k_new",
    token_stride: "token stride of k_new",
    head_stride: "head stride of k_new",
};
const V_NEW: RowNames = RowNames {
    name: "v_new",
    token_stride: "token stride of v_new",
    head_stride: "head stride of v_new",
};

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
    /// Outputs, [num_seqs, num_q_heads, head_dim], of the type of `q`.
    pub out: Rows,
    /// Where wanted, log-sum-exp of each row, `f32` [num_seqs, num_q_heads] without gaps.
    pub lse: Option<DeviceAddress>,
    /// Keys and values.
    pub pool: Pool,
    /// Blocks and lengths of the sequences.
    pub table: Table,
    /// Query heads, a multiple of the pool's heads.
    pub num_q_heads: usize,
    /// Factor of the scores.
    pub sm_scale: f32,
    /// What the tensor-core kernels need. Without it the CUDA cores are used, which is slower for 16-bit types.
    pub workspace: Option<Workspace>,
    /// For tables whose contents nobody checked, `u32`: block ids and lengths out of range are clamped, and
    /// [`BAD_BLOCK_ID`] and [`BAD_SEQ_LEN`] or-ed into it. Needs the tensor-core kernels.
    pub error_word: Option<DeviceAddress>,
}

/// A block id was not below `num_blocks`.
pub const BAD_BLOCK_ID: u32 = 1;

/// A length was above `max_blocks_per_seq * block_size`.
pub const BAD_SEQ_LEN: u32 = 2;

/// Turns a word that kernels reported into ([`Decode::error_word`]) into an error.
///
/// # Errors
///
/// [`Error::DeviceTable`] unless it is 0.
pub fn check_error_word(word: u32) -> Result<()> {
    if word == 0 {
        return Ok(());
    }
    Err(Error::DeviceTable {
        block_ids: word & BAD_BLOCK_ID != 0,
        seq_lens: word & BAD_SEQ_LEN != 0,
    })
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

/// Bytes of a [`Workspace`] for calls with these types, shapes and capacities; 0 if there is no tensor-core kernel for them.
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
    let Some(plan) = MmaPlan::find(q, kv, shape, num_q_heads) else { return Ok(0) };
    let max_tokens = max_tokens(shape, max_seqs, max_blocks_per_seq)?;
    Ok(plan.workspace(max_seqs, max_tokens)?.layout()?.bytes)
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
/// # Errors
///
/// Those of [`PoolShape::check`]; [`Error::HeadCounts`]; [`Error::Zero`] and [`Error::TooLarge`] for counts;
/// [`Error::Mismatch`] for strides that no kernel takes and for an output of another type;
/// [`Error::Misaligned`] for an address; [`Error::NotFinite`]; [`Error::NoKernel`]; and those of the driver.
/// Then nothing is enqueued.
///
/// # Safety
///
/// From the call until the work enqueued by it has run:
///
/// - every address points to live device memory of `device` that holds, at its strides, the shape given for it;
/// - `out` and `lse` overlap nothing else that the call names, and no other work writes what it reads or touches what
///   it writes, unless ordered by `stream`;
/// - each length is at most `max_blocks_per_seq * block_size`, and the first `ceil(len / block_size)` entries of its
///   row are below `num_blocks`. Entries past them and slots at or past the length are not read and may hold anything.
///   With an `error_word` neither need be so: what is out of range is clamped, and the rows concerned are wrong;
/// - the workspace has [`workspace_bytes`] bytes for its capacities, was zeroed before its first call, and serves calls with
///   the same types, head counts and `head_dim` only, one after the other.
///
/// If the launch is captured, that holds for every replay. `stream` is one of `device`.
pub unsafe fn decode<D: Driver>(
    device: &Device<D>,
    stream: &D::Stream,
    args: &Decode,
) -> Result<()> {
    check_decode(args)?;
    let Decode { q, out, lse, pool, table, num_q_heads, sm_scale, workspace, error_word } = *args;
    let PoolShape { block_size, num_kv_heads, head_dim, .. } = pool.shape;
    let mma = MmaPlan::find(q.dtype, pool.dtype, pool.shape, num_q_heads).zip(workspace);
    if mma.is_none() && error_word.is_some() {
        let what = "tables that nobody checked need a tensor-core kernel and its workspace";
        return Err(Error::Unsupported { what: what.into() });
    }
    if table.num_seqs == 0 {
        return Ok(());
    }
    if let Some((plan, workspace)) = mma {
        let params = mma_params(&plan, args, workspace)?;
        let capacity = max_tokens(pool.shape, workspace.max_seqs, workspace.max_blocks_per_seq)?;
        let units = plan.workspace(workspace.max_seqs, capacity)?.units;
        let grid = [plan.grid(units, device.properties())?, 1, 1];
        // SAFETY: the caller's promise covers all that the kernel touches with these parameters.
        return unsafe { launch_raw(device, stream, plan.kernel, (grid, plan.threads), &params) };
    }
    let rounded = head_dim.next_multiple_of(32);
    let kernel = kernels::find(format_args!("decode_d{rounded}_{}_{}", q.dtype, pool.dtype))
        .ok_or(Error::NoKernel { name: "decode", head_dim: rounded, q: q.dtype, kv: pool.dtype })?;
    let params = DecodeParams {
        q: q.address,
        k_cache: pool.k,
        v_cache: pool.v,
        block_table: table.block_table,
        seq_lens: table.seq_lens,
        out: out.address,
        lse: lse.unwrap_or(DeviceAddress::NULL),
        // All bounded by i32::MAX (check_decode).
        num_q_heads: num_q_heads as u32,
        num_kv_heads: num_kv_heads as u32,
        head_dim: head_dim as u32,
        block_size: block_size as u32,
        max_blocks_per_seq: table.max_blocks_per_seq as u32,
        scale_log2: sm_scale * core::f32::consts::LOG2_E,
    };
    let grid = [table.num_seqs as u32, num_kv_heads as u32, 1];
    // SAFETY: the caller's promise covers all that the kernel touches with these parameters.
    unsafe { launch_raw(device, stream, kernel, (grid, KERNELS[kernel].threads), &params) }
}

/// What can be checked of the arguments of [`decode`] whatever the kernel.
fn check_decode(args: &Decode) -> Result<()> {
    let Decode { q, out, lse, pool, table, num_q_heads, sm_scale, .. } = *args;
    pool.check()?;
    check_heads(pool.shape, num_q_heads)?;
    q.check(Q, num_q_heads, pool.shape.head_dim)?;
    out.check(OUT, num_q_heads, pool.shape.head_dim)?;
    expect_equal("bytes of an element of out", out.dtype.bytes(), q.dtype.bytes())?;
    if out.dtype != q.dtype {
        let head_dim = pool.shape.head_dim.next_multiple_of(32);
        return Err(Error::NoKernel { name: "decode", head_dim, q: q.dtype, kv: pool.dtype });
    }
    expect_aligned("lse", lse.unwrap_or(DeviceAddress::NULL), 4)?;
    expect_aligned("block_table", table.block_table, 4)?;
    expect_aligned("seq_lens", table.seq_lens, 4)?;
    if !sm_scale.is_finite() {
        return Err(Error::NotFinite { what: "sm_scale", value: sm_scale });
    }
    if table.num_seqs == 0 {
        return Ok(());
    }
    expect_in_range("num_seqs", table.num_seqs, i32::MAX as usize)?;
    expect_in_range("max_blocks_per_seq", table.max_blocks_per_seq, i32::MAX as usize)
}

/// Parameters of the tensor-core kernel, checked against the workspace's capacities.
fn mma_params(plan: &MmaPlan, args: &Decode, workspace: Workspace) -> Result<DecodeMmaParams> {
    let Decode { q, out, lse, pool, table, sm_scale, error_word, .. } = *args;
    expect_aligned("workspace", workspace.address, 16)?;
    expect_aligned("error_word", error_word.unwrap_or(DeviceAddress::NULL), 4)?;
    for (what, rows) in [("q", q), ("out", out)] {
        expect_aligned(what, rows.address, 16)?;
    }
    for (what, address) in [("k", pool.k), ("v", pool.v)] {
        expect_aligned(what, address, 16)?;
    }
    let tokens = max_tokens(pool.shape, workspace.max_seqs, workspace.max_blocks_per_seq)?;
    expect_in_range("num_seqs", table.num_seqs, workspace.max_seqs)?;
    let width = table.max_blocks_per_seq;
    expect_in_range("max_blocks_per_seq", width, workspace.max_blocks_per_seq)?;
    let layout = plan.workspace(workspace.max_seqs, tokens)?.layout()?;
    let at = |offset: usize| DeviceAddress(workspace.address.0 + offset as u64);
    Ok(DecodeMmaParams {
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
        num_seqs: table.num_seqs as u32,
        max_blocks_per_seq: width as u32,
        ..plan.params(pool.shape, sm_scale)?
    })
}

/// The arguments of [`append`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Append {
    /// Keys, [num_tokens, num_kv_heads, head_dim].
    pub k_new: Rows,
    /// Values, [num_tokens, num_kv_heads, head_dim], of the type of `k_new`.
    pub v_new: Rows,
    /// Where they go.
    pub pool: Pool,
    /// Slots, `i64` `[num_tokens]`: block * block_size + offset; negative to skip the token.
    pub slot_mapping: DeviceAddress,
    /// Tokens.
    pub num_tokens: usize,
}

/// Enqueues the storing of new K and V: what [`crate::append()`] does, from raw memory.
///
/// # Errors
///
/// As [`decode`].
///
/// # Safety
///
/// From the call until the work enqueued by it has run:
///
/// - every address points to live device memory of `device` that holds, at its strides, the shape given for it;
/// - the pool overlaps nothing else that the call names, and no other work writes what it reads or touches what it
///   writes, unless ordered by `stream`;
/// - each slot is negative or below `num_blocks * block_size`, and no two tokens have the same one.
///
/// If the launch is captured, that holds for every replay. `stream` is one of `device`.
pub unsafe fn append<D: Driver>(
    device: &Device<D>,
    stream: &D::Stream,
    args: &Append,
) -> Result<()> {
    let Append { k_new, v_new, pool, slot_mapping, num_tokens } = *args;
    pool.check()?;
    let PoolShape { num_kv_heads, head_dim, .. } = pool.shape;
    k_new.check(K_NEW, num_kv_heads, head_dim)?;
    v_new.check(V_NEW, num_kv_heads, head_dim)?;
    if !slot_mapping.0.is_multiple_of(8) {
        return Err(Error::Misaligned { what: "slot_mapping", address: slot_mapping.0, align: 8 });
    }
    let kernel = kernels::find(format_args!("append_{}_{}", k_new.dtype, pool.dtype))
        .filter(|_| v_new.dtype == k_new.dtype)
        .ok_or(Error::NoKernel { name: "append", head_dim: 0, q: k_new.dtype, kv: pool.dtype })?;
    if num_tokens == 0 {
        return Ok(());
    }
    expect_in_range("num_tokens", num_tokens, i32::MAX as usize)?;
    let params = AppendParams {
        k_new: k_new.address,
        v_new: v_new.address,
        k_cache: pool.k,
        v_cache: pool.v,
        slot_mapping,
        // At most 65,535 heads of 256 elements (PoolShape::check).
        token_elems: pool.shape.token_elems() as u32,
        padding: 0,
    };
    let grid = [num_tokens as u32, 1, 1];
    // SAFETY: the caller's promise covers all that the kernel touches with these parameters.
    unsafe { launch_raw(device, stream, kernel, (grid, KERNELS[kernel].threads), &params) }
}

/// Writes a padded table and lengths from FlashInfer's form: sequence i has the blocks
/// `indices[indptr[i]..indptr[i + 1]]`, the last of which holds `last_page_len[i]` tokens.
///
/// `block_table` [num_seqs, max_blocks_per_seq] and `seq_lens` `[num_seqs]` are overwritten; entries past a
/// sequence's blocks become 0. What they then hold meets the contract of [`decode`] for pools with `num_blocks`
/// blocks (or more) of `block_size`; after an error it need not.
///
/// # Errors
///
/// [`Error::Mismatch`] if the slices' lengths do not fit together or `indptr` does not end at `indices.len()`;
/// [`Error::NotAscending`] for `indptr`; [`Error::SeqLen`] for more blocks than a row holds and for a last block
/// that is empty or overfull; [`Error::BlockId`].
pub fn pad_csr(
    csr: CsrTable<'_>,
    num_blocks: u32,
    block_size: u32,
    block_table: &mut [u32],
    seq_lens: &mut [u32],
) -> Result<()> {
    let CsrTable { indptr, indices, last_page_len } = csr;
    let num_seqs = last_page_len.len();
    expect_equal("entries of indptr", indptr.len(), num_seqs + 1)?;
    expect_equal("entries of seq_lens", seq_lens.len(), num_seqs)?;
    let width = block_table.len().checked_div(num_seqs).unwrap_or(0);
    expect_equal("entries of block_table", block_table.len(), width * num_seqs)?;
    let at = |index: usize| usize::try_from(indptr[index]).unwrap_or(usize::MAX);
    expect_equal("first entry of indptr", at(0), 0)?;
    expect_equal("last entry of indptr", at(num_seqs), indices.len())?;
    if let Some(index) = (0..num_seqs).find(|&seq| at(seq) > at(seq + 1)) {
        return Err(Error::NotAscending { what: "indptr", index: index + 1 });
    }
    for seq in 0..num_seqs {
        let ids = &indices[at(seq)..at(seq + 1)];
        let last = u32::try_from(last_page_len[seq]).unwrap_or(u32::MAX);
        let full = (ids.len() as u64).saturating_sub(1) * u64::from(block_size);
        let len = u32::try_from(full + u64::from(last)).unwrap_or(u32::MAX);
        // An empty sequence has no blocks, and whatever FlashInfer's callers write for its last one.
        let fits = ids.is_empty() || (last >= 1 && last <= block_size && len < u32::MAX);
        if !fits || ids.len() > width {
            let limit = ids.len().min(width) as u64 * u64::from(block_size);
            return Err(Error::SeqLen { seq, len, blocks: width, block_size, limit });
        }
        let row = &mut block_table[seq * width..][..width];
        row.fill(0);
        for (index, (entry, &id)) in row.iter_mut().zip(ids).enumerate() {
            *entry = u32::try_from(id).unwrap_or(u32::MAX);
            if *entry >= num_blocks {
                return Err(Error::BlockId { seq, index, id: *entry, num_blocks });
            }
        }
        seq_lens[seq] = if ids.is_empty() { 0 } else { len };
    }
    Ok(())
}

/// Block tables as FlashInfer takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CsrTable<'a> {
    /// Where each sequence's blocks begin in `indices`, and the end, `[num_seqs + 1]`.
    pub indptr: &'a [i32],
    /// Block ids of all sequences, one after the other.
    pub indices: &'a [i32],
    /// Tokens in the last block of each sequence, 1 to block_size, `[num_seqs]`; of no meaning for one without blocks.
    pub last_page_len: &'a [i32],
}

fn expect_stride(what: &'static str, got: u64, expected: u64) -> Result<()> {
    if got == expected { Ok(()) } else { Err(Error::Mismatch { what, got, expected }) }
}

fn expect_aligned(
    what: &'static str,
    DeviceAddress(address): DeviceAddress,
    align: usize,
) -> Result<()> {
    if address.is_multiple_of(align as u64) {
        return Ok(());
    }
    Err(Error::Misaligned { what, address, align })
}
