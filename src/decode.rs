//! Attention of one query token per sequence over its paged KV cache.

use core::marker::PhantomData;

use crate::buffer::Buffer;
use crate::device::Stream;
use crate::device_tables::DeviceTables;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::kernels::{KERNELS, KernelSource, MAX_HEAD_DIM};
use crate::launch::{DecodeParams, launch_raw};
use crate::plan::{KernelPlan, Workspace};
use crate::pool::{KvPool, PoolShape, expect_in_range};
use crate::tables::{BlockTables, TableView};
use crate::types::{DeviceAddress, Element};

/// A head configuration with its kernel loaded and its workspace allocated: what a decode call needs and can be had ahead of it.
///
/// Making one loads the kernel (the driver assembles its PTX on first use on a device), so that no call
/// waits for that. One plan serves any number of layers with this head configuration, one call after the other.
///
/// Queries and pools of one 16-bit type run on the tensor cores, other combinations on the CUDA cores.
///
/// W1. The buffers hold the plan's workspace for `max_seqs` sequences of `max_tokens` tokens, and
/// `arrivals` is 0 between launches: it starts so, and each launch leaves it so.
pub struct DecodePlan<'s, D: Driver, Q: Element, K: Element> {
    stream: &'s Stream<D>,
    kernel_plan: KernelPlan,
    grid: u32,
    partial_out: Buffer<'s, D, f32>,
    partial_stat: Buffer<'s, D, f32>,
    arrivals: Buffer<'s, D, u32>,
    num_q_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    max_seqs: usize,
    max_tokens: usize,
    types: PhantomData<(Q, K)>,
}

debug!(['s, D: Driver, Q: Element, K: Element] DecodePlan<'s, D, Q, K> { num_q_heads, num_kv_heads, head_dim, max_seqs, max_tokens, grid });

impl<'s, D: Driver, Q: Element, K: Element> DecodePlan<'s, D, Q, K> {
    /// A plan for `num_q_heads` query heads of `Q` over pools of `K` with the `num_kv_heads` and `head_dim` of `shape`,
    /// and over tables of up to `max_seqs` sequences of up to `max_blocks_per_seq` blocks of its `block_size`.
    ///
    /// The capacities size the workspace and the grid, so that neither depends on lengths. A row of a table has at most 2³¹ − 16 tokens,
    /// and all rows together at most 2³¹ − 1 units of work: chunks, at most 256 of a row, times KV heads, times the passes that large groups
    /// take. Where rows have several chunks, query heads times passes are below 2³².
    ///
    /// # Errors
    ///
    /// Those of [`PoolShape::check`] and [`Buffer::zeroed`]; [`Error::HeadCounts`] if `num_q_heads` is no multiple of
    /// `num_kv_heads`; [`Error::Zero`], [`Error::TooLarge`], [`Error::Overflow`]; those of the driver when it loads the kernel.
    pub fn new(
        stream: &'s Stream<D>,
        shape: PoolShape,
        num_q_heads: usize,
        max_seqs: usize,
        max_blocks_per_seq: usize,
    ) -> Result<Self> {
        shape.check()?;
        let PoolShape { num_kv_heads, head_dim, block_size, .. } = shape;
        expect_in_range("num_q_heads", num_q_heads, i32::MAX as usize / MAX_HEAD_DIM)?;
        if !num_q_heads.is_multiple_of(num_kv_heads) {
            return Err(Error::HeadCounts { num_q_heads, num_kv_heads });
        }
        expect_in_range("max_seqs", max_seqs, i32::MAX as usize)?;
        expect_in_range("max_blocks_per_seq", max_blocks_per_seq, i32::MAX as usize)?;
        let max_tokens = max_blocks_per_seq
            .checked_mul(block_size)
            .ok_or(Error::Overflow { what: "tokens of a row of the block table" })?;
        let plan = KernelPlan::new(Q::DTYPE, K::DTYPE, shape, num_q_heads)?;
        let Workspace { units, partial_out, partial_stat, arrivals } =
            plan.workspace(max_seqs, max_tokens)?;
        stream.device().kernel(plan.kernel)?;
        Ok(Self {
            stream,
            kernel_plan: plan,
            grid: plan.grid(units, stream.device().properties())?,
            partial_out: Buffer::uninit(stream, partial_out)?,
            partial_stat: Buffer::uninit(stream, partial_stat)?,
            arrivals: Buffer::zeroed(stream, arrivals)?,
            num_q_heads,
            num_kv_heads,
            head_dim,
            max_seqs,
            max_tokens,
            types: PhantomData,
        })
    }

    /// The kernel that calls with this plan launch.
    pub fn kernel(&self) -> &'static KernelSource {
        &KERNELS[self.kernel_plan.kernel]
    }

    /// Threads of a CTA of these launches.
    pub fn threads(&self) -> u32 {
        self.kernel_plan.threads
    }
}

/// The buffers and numbers of one [`decode`] call.
pub struct DecodeArgs<'a, 's, D: Driver, Q: Element> {
    /// Queries, [num_seqs, num_q_heads, head_dim]; query head h reads KV head h / group_size.
    pub q: &'a Buffer<'s, D, Q>,
    /// Outputs, [num_seqs, num_q_heads, head_dim]; 0 for a sequence of length 0.
    pub out: &'a mut Buffer<'s, D, Q>,
    /// If given, the natural logarithm of the sum of exponentials of the scaled scores,
    /// [num_seqs, num_q_heads]; −∞ for a sequence of length 0.
    pub lse: Option<&'a mut Buffer<'s, D, f32>>,
    /// Factor of the scores, finite, usually 1/√head_dim. A row whose largest score times it passes 2²⁶ in magnitude may become 0 or
    /// NaN: f32 does not tell its scores apart any more.
    pub sm_scale: f32,
}

debug!(['a, 's, D: Driver, Q: Element] DecodeArgs<'a, 's, D, Q> { q, out, lse, sm_scale });

/// Attends from the last token of each sequence to all its tokens:
/// `out = Σ_t softmax_t(sm_scale · q·k_t) v_t` over the `seq_lens` first tokens that the block table names.
///
/// Asynchronous: it returns when the launch is enqueued. Nothing is allocated. Buffers may be longer than
/// needed; what lies past `num_seqs` rows is untouched.
///
/// # Errors
///
/// [`Error::OtherStream`], [`Error::Mismatch`] for a pool that the plan or the tables were not made for,
/// [`Error::TooLarge`] for tables beyond the plan's capacities or a pool beyond 2³⁵ elements of K, [`Error::TooShort`] for a buffer,
/// [`Error::NotFinite`] for the scale, and those of the driver. Then nothing is enqueued.
pub fn decode<'s, D: Driver, Q: Element, K: Element>(
    plan: &mut DecodePlan<'s, D, Q, K>,
    pool: &KvPool<'s, D, K>,
    tables: &BlockTables<'s, D>,
    args: DecodeArgs<'_, 's, D, Q>,
) -> Result<()> {
    enqueue(plan, pool, &tables.view(), args)
}

/// As [`decode()`], from tables on the device whose contents nobody checked: what is out of range is clamped, so that nothing outside
/// the pool is read, and reported by [`DeviceTables::check`]. The results of the sequences concerned are wrong, all
/// others are those of [`decode()`], bit for bit.
///
/// # Errors
///
/// Those of [`decode()`], and [`Error::TooShort`] for a table that holds fewer sequences than it says.
pub fn decode_checked<'s, D: Driver, Q: Element, K: Element>(
    plan: &mut DecodePlan<'s, D, Q, K>,
    pool: &KvPool<'s, D, K>,
    tables: &DeviceTables<'s, D>,
    args: DecodeArgs<'_, 's, D, Q>,
) -> Result<()> {
    enqueue(plan, pool, &tables.view()?, args)
}

fn enqueue<'s, D: Driver, Q: Element, K: Element>(
    plan: &mut DecodePlan<'s, D, Q, K>,
    pool: &KvPool<'s, D, K>,
    tables: &TableView<'_, 's, D>,
    args: DecodeArgs<'_, 's, D, Q>,
) -> Result<()> {
    check(plan, pool, tables, &args)?;
    let DecodeArgs { q, out, lse, sm_scale } = args;
    if tables.num_seqs == 0 {
        return Ok(());
    }
    let params = DecodeParams {
        q: q.address(),
        k_cache: pool.k().address(),
        v_cache: pool.v().address(),
        block_table: tables.block_table.address(),
        seq_lens: tables.seq_lens.address(),
        out: out.address(),
        lse: lse.map_or(DeviceAddress::NULL, |lse| lse.address()),
        partial_out: plan.partial_out.address(),
        partial_stat: plan.partial_stat.address(),
        arrivals: plan.arrivals.address(),
        error_word: tables.report.map_or(DeviceAddress::NULL, |report| report.address()),
        // `check` bounds both by the plan's capacities, which are below 2³¹.
        num_seqs: tables.num_seqs as u32,
        max_blocks_per_seq: tables.max_blocks_per_seq as u32,
        num_blocks: tables.space.num_blocks,
        ..plan.kernel_plan.params(pool.shape(), sm_scale)?
    };
    let (device, shape) = (plan.stream.device(), ([plan.grid, 1, 1], plan.kernel_plan.threads));
    // SAFETY: T1 and T2 (test `tables::*`) keep every block id and length inside the pool's space, or the kernel does, which clamps
    // both to `num_blocks` and the table's width (I1; tests/device_tables.rs, tests/raw_decode.rs); `expect_fits`
    // says that this pool has at least that space, P1 that its buffers hold it; V1 that the tables lie in their buffers; `check` bounds
    // q, out and lse, and the tables by the capacities for which W1 sizes the workspace; all lie on this stream (S1 to S3) and `out`,
    // `lse` and the plan are borrowed exclusively. The kernel's own claim to stay within these is shown on the emulator by every
    // property test.
    unsafe { launch_raw(device, plan.stream.raw(), plan.kernel_plan.kernel, shape, &params) }
}

/// Fails unless the arguments of [`decode`] fit together.
fn check<'s, D: Driver, Q: Element, K: Element>(
    plan: &DecodePlan<'s, D, Q, K>,
    pool: &KvPool<'s, D, K>,
    tables: &TableView<'_, 's, D>,
    args: &DecodeArgs<'_, 's, D, Q>,
) -> Result<()> {
    let DecodeArgs { q, out, lse, sm_scale } = args;
    plan.stream.expect_same("the pool", pool.stream())?;
    plan.stream.expect_same("the block table", tables.block_table.stream())?;
    plan.stream.expect_same("the lengths", tables.seq_lens.stream())?;
    if let Some(report) = tables.report {
        plan.stream.expect_same("the report of the tables", report.stream())?;
    }
    plan.stream.expect_same("q", q.stream())?;
    plan.stream.expect_same("out", out.stream())?;
    let shape = pool.shape();
    expect_equal("num_kv_heads of the pool", shape.num_kv_heads, plan.num_kv_heads)?;
    expect_equal("head_dim of the pool", shape.head_dim, plan.head_dim)?;
    tables.space.expect_fits(shape)?;
    if !sm_scale.is_finite() {
        return Err(Error::NotFinite { what: "sm_scale", value: *sm_scale });
    }

    let num_seqs = tables.num_seqs;
    let rows = num_seqs
        .checked_mul(plan.num_q_heads)
        .ok_or(Error::Overflow { what: "rows of the output" })?;
    let elems = rows
        .checked_mul(plan.head_dim)
        .ok_or(Error::Overflow { what: "elements of the output" })?;
    q.expect_len("q", elems)?;
    out.expect_len("out", elems)?;
    if let Some(lse) = lse {
        plan.stream.expect_same("lse", lse.stream())?;
        lse.expect_len("lse", rows)?;
    }
    let most = [
        ("num_seqs", num_seqs, plan.max_seqs),
        ("tokens of a row of the block table", row_tokens(tables), plan.max_tokens),
    ];
    for (what, value, limit) in most {
        if value > limit {
            return Err(Error::TooLarge { what, value: value as u64, limit: limit as u64 });
        }
    }
    Ok(())
}

/// Tokens that a row of the table has room for.
fn row_tokens<D: Driver>(tables: &TableView<'_, '_, D>) -> usize {
    tables.max_blocks_per_seq.saturating_mul(tables.space.block_size as usize)
}

/// Fails unless two sizes agree.
pub(crate) fn expect_equal(what: &'static str, got: usize, expected: usize) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    Err(Error::Mismatch { what, got: got as u64, expected: expected as u64 })
}
