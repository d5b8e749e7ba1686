//! Attention of one query token per sequence over its paged KV cache.

use core::marker::PhantomData;

use crate::buffer::Buffer;
use crate::device::Stream;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::kernels::{self, MAX_HEAD_DIM};
use crate::launch::{DecodeParams, launch};
use crate::pool::{KvPool, PoolShape, expect_in_range};
use crate::tables::BlockTables;
use crate::types::{DeviceAddress, Element};

/// A head configuration with its kernel loaded: what a decode call needs and can be had ahead of it.
///
/// Making one loads the kernel (the driver assembles its PTX on first use on a device), so that no call
/// waits for that. One plan serves any number of layers with this head configuration.
pub struct DecodePlan<'s, D: Driver, Q: Element, K: Element> {
    stream: &'s Stream<D>,
    kernel: usize,
    num_q_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    types: PhantomData<(Q, K)>,
}

impl<'s, D: Driver, Q: Element, K: Element> DecodePlan<'s, D, Q, K> {
    /// A plan for `num_q_heads` query heads of `Q` over pools of `K` with the `num_kv_heads` and `head_dim` of `shape`.
    ///
    /// # Errors
    ///
    /// Those of [`PoolShape::check`]; [`Error::HeadCounts`] if `num_q_heads` is no multiple of `num_kv_heads`;
    /// [`Error::Zero`], [`Error::TooLarge`]; those of the driver when it loads the kernel.
    pub fn new(stream: &'s Stream<D>, shape: PoolShape, num_q_heads: usize) -> Result<Self> {
        shape.check()?;
        let PoolShape { num_kv_heads, head_dim, .. } = shape;
        expect_in_range("num_q_heads", num_q_heads, i32::MAX as usize / MAX_HEAD_DIM)?;
        if !num_q_heads.is_multiple_of(num_kv_heads) {
            return Err(Error::HeadCounts { num_q_heads, num_kv_heads });
        }
        let (q, kv) = (Q::DTYPE, K::DTYPE);
        let rounded = head_dim.next_multiple_of(32);
        let kernel = kernels::find(format_args!("decode_d{rounded}_{q}_{kv}"))
            .ok_or(Error::NoKernel { name: "decode", head_dim: rounded, q, kv })?;
        stream.device().kernel(kernel)?;
        Ok(Self { stream, kernel, num_q_heads, num_kv_heads, head_dim, types: PhantomData })
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
    /// Factor of the scores, usually 1/√head_dim.
    pub sm_scale: f32,
}

/// Attends from the last token of each sequence to all its tokens:
/// `out = Σ_t softmax_t(sm_scale · q·k_t) v_t` over the `seq_lens` first tokens that the block table names.
///
/// Asynchronous: it returns when the launch is enqueued. Nothing is allocated. Buffers may be longer than
/// needed; what lies past `num_seqs` rows is untouched.
///
/// # Errors
///
/// [`Error::OtherStream`], [`Error::Mismatch`] for a pool that the plan or the tables were not made for,
/// [`Error::TooShort`] for a buffer, [`Error::NotFinite`] for the scale, and those of the driver. Then nothing is enqueued.
pub fn decode<'s, D: Driver, Q: Element, K: Element>(
    plan: &mut DecodePlan<'s, D, Q, K>,
    pool: &KvPool<'s, D, K>,
    tables: &BlockTables<'s, D>,
    args: DecodeArgs<'_, 's, D, Q>,
) -> Result<()> {
    let DecodeArgs { q, out, lse, sm_scale } = args;
    plan.stream.expect_same("the pool", pool.stream())?;
    plan.stream.expect_same("the block table", tables.device_table().stream())?;
    plan.stream.expect_same("q", q.stream())?;
    plan.stream.expect_same("out", out.stream())?;
    let shape = pool.shape();
    expect_equal("num_kv_heads of the pool", shape.num_kv_heads, plan.num_kv_heads)?;
    expect_equal("head_dim of the pool", shape.head_dim, plan.head_dim)?;
    tables.space().expect_fits(shape)?;
    if !sm_scale.is_finite() {
        return Err(Error::NotFinite { what: "sm_scale", value: sm_scale });
    }

    let num_seqs = tables.num_seqs();
    let rows = num_seqs
        .checked_mul(plan.num_q_heads)
        .ok_or(Error::Overflow { what: "rows of the output" })?;
    let elems = rows
        .checked_mul(plan.head_dim)
        .ok_or(Error::Overflow { what: "elements of the output" })?;
    q.expect_len("q", elems)?;
    out.expect_len("out", elems)?;
    if let Some(lse) = &lse {
        plan.stream.expect_same("lse", lse.stream())?;
        lse.expect_len("lse", rows)?;
    }
    if num_seqs == 0 {
        return Ok(());
    }

    let params = DecodeParams {
        q: q.address(),
        k_cache: pool.k().address(),
        v_cache: pool.v().address(),
        block_table: tables.device_table().address(),
        seq_lens: tables.device_lens().address(),
        out: out.address(),
        lse: lse.map_or(DeviceAddress::NULL, |lse| lse.address()),
        // PoolShape::check and DecodePlan::new bound these by i32::MAX, BlockTables::new the width.
        num_q_heads: plan.num_q_heads as u32,
        num_kv_heads: plan.num_kv_heads as u32,
        head_dim: plan.head_dim as u32,
        block_size: shape.block_size as u32,
        max_blocks_per_seq: tables.max_blocks_per_seq() as u32,
        scale_log2: sm_scale * core::f32::consts::LOG2_E,
    };
    // BlockTables::new bounds max_seqs by i32::MAX, PoolShape::check the heads by 65,535.
    let grid = [num_seqs as u32, plan.num_kv_heads as u32, 1];
    // SAFETY: T1 and T2 (test `tables::*`) keep every block id and length inside the pool's space, `expect_fits` says that
    // this pool has at least that space, P1 that its buffers hold it; `elems` and `rows` bound q, out and lse; all lie on this
    // stream (S1 to S3) and `out` and `lse` are borrowed exclusively. The kernel's own claim to stay within these is shown
    // on the emulator by every property test.
    unsafe { launch(plan.stream, plan.kernel, grid, &params) }
}

/// Fails unless two sizes agree.
pub(crate) fn expect_equal(what: &'static str, got: usize, expected: usize) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    Err(Error::Mismatch { what, got: got as u64, expected: expected as u64 })
}
