//! Storing new K and V, from raw memory.

use super::{Pool, RowNames, Rows, expect_address, expect_dtype};
use crate::device::Device;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::kernels::{self, KERNELS};
use crate::launch::{AppendParams, launch_raw};
use crate::pool::{PoolShape, expect_in_range};
use crate::types::DeviceAddress;

const K_NEW: RowNames =
    RowNames { token_stride: "token stride of k_new", head_stride: "head stride of k_new" };
const V_NEW: RowNames =
    RowNames { token_stride: "token stride of v_new", head_stride: "head stride of v_new" };

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
/// Those of [`PoolShape::check`]; [`Error::Mismatch`] for strides, which have to be those of [`Rows::contiguous`] and [`Pool::nhd`];
/// [`Error::Misaligned`] and [`Error::Null`] for an address; [`Error::Dtype`]; [`Error::TooLarge`] for the number of tokens; and those of the driver. Then
/// nothing is enqueued.
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
/// If the launch is captured, that holds for every replay, and a clone of `device`, which keeps the code loaded, lives until the last one has
/// run. `stream` is one of `device`.
pub unsafe fn append<D: Driver>(
    device: &Device<D>,
    stream: &D::Stream,
    args: &Append,
) -> Result<()> {
    let Append { k_new, v_new, pool, slot_mapping, num_tokens } = *args;
    pool.shape.check()?;
    pool.expect_contiguous()?;
    let PoolShape { num_kv_heads, head_dim, .. } = pool.shape;
    k_new.expect_contiguous(K_NEW, num_kv_heads, head_dim)?;
    v_new.expect_contiguous(V_NEW, num_kv_heads, head_dim)?;
    for (what, address, align) in [
        ("k_new", k_new.address, k_new.dtype.bytes()),
        ("v_new", v_new.address, v_new.dtype.bytes()),
        ("k", pool.k, pool.dtype.bytes()),
        ("v", pool.v, pool.dtype.bytes()),
        ("slot_mapping", slot_mapping, 8),
    ] {
        expect_address(what, address, align, num_tokens > 0)?;
    }
    expect_dtype("type of v_new", v_new.dtype, k_new.dtype)?;
    let kernel = kernels::find(format_args!("append_{}_{}", k_new.dtype, pool.dtype))
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
