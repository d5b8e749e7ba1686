//! Writing the K and V of new tokens into the pool.

use crate::buffer::Buffer;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::kernels;
use crate::launch::{AppendParams, launch};
use crate::pool::KvPool;
use crate::tables::SlotMapping;
use crate::types::Element;

/// Stores token t's K and V, `k_new` and `v_new` [num_tokens, num_kv_heads, head_dim], in slot `slots[t]` of the pool.
///
/// Values are rounded to the pool's type, to nearest, ties to even. A negative slot skips its token. The
/// rest of the pool is untouched. Asynchronous: it returns when the launch is enqueued.
///
/// # Errors
///
/// [`Error::OtherStream`], [`Error::Mismatch`] for a pool that the mapping was not made for, [`Error::TooShort`] for
/// `k_new` or `v_new`, and those of the driver. Then nothing is enqueued.
pub fn append<'s, D: Driver, N: Element, K: Element>(
    pool: &mut KvPool<'s, D, K>,
    slots: &SlotMapping<'s, D>,
    k_new: &Buffer<'s, D, N>,
    v_new: &Buffer<'s, D, N>,
) -> Result<()> {
    let stream = pool.stream();
    stream.expect_same("the slot mapping", slots.device_slots().stream())?;
    stream.expect_same("k_new", k_new.stream())?;
    stream.expect_same("v_new", v_new.stream())?;
    let shape = pool.shape();
    slots.space().expect_fits(shape)?;
    let num_tokens = slots.num_tokens();
    let elems = num_tokens
        .checked_mul(shape.token_elems())
        .ok_or(Error::Overflow { what: "elements of k_new" })?;
    k_new.expect_len("k_new", elems)?;
    v_new.expect_len("v_new", elems)?;
    let (new, kv) = (N::DTYPE, K::DTYPE);
    let kernel = kernels::find(format_args!("append_{new}_{kv}")).ok_or(Error::NoKernel {
        name: "append",
        head_dim: 0,
        q: new,
        kv,
    })?;
    if num_tokens == 0 {
        return Ok(());
    }

    let params = AppendParams {
        k_new: k_new.address(),
        v_new: v_new.address(),
        k_cache: pool.k().address(),
        v_cache: pool.v().address(),
        slot_mapping: slots.device_slots().address(),
        // At most 65,535 heads of 256 elements (PoolShape::check).
        token_elems: shape.token_elems() as u32,
        padding: 0,
    };
    // SlotMapping::new bounds max_tokens by i32::MAX.
    let grid = [num_tokens as u32, 1, 1];
    // SAFETY: M1 (test `slots::*`) keeps every slot inside the mapping's space, `expect_fits` says that this pool has at least
    // that space, P1 that its buffers hold it; `elems` bounds k_new and v_new; all lie on this stream (S1 to S3) and the pool
    // is borrowed exclusively.
    unsafe { launch(stream, kernel, grid, &params) }
}
