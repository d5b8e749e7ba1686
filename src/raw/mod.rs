//! The bottom layer, for engines that own their memory: `unsafe` launches from device pointers, strides and a raw stream.
//!
//! Nothing here allocates, copies or waits, and no argument is kept after a call. What the safe layer proves, the caller
//! promises; [`decode()`] and [`append()`] say what that is. What can be checked without reading the device is checked:
//! shapes, strides, alignment, null addresses and the combination of types are errors, never undefined behaviour.
//!
//! Streams: [`crate::Driver::Stream`] is the driver's own type. An engine's `CUstream` becomes one by `stream_from_raw` (or
//! `stream_from`) of the drivers in [`crate::driver`], once, ahead of the calls.
//!
//! Tables: the kernels read padded tables, [num_seqs, max_blocks_per_seq]. [`pad_csr`] makes one of FlashInfer's
//! `indptr, indices, last_page_len` on the host, where engines build them.

mod append;
mod csr;
mod decode;

use crate::error::{Error, Result};
use crate::pool::PoolShape;
use crate::types::{DeviceAddress, Dtype};

pub use append::{Append, append};
pub use csr::{CsrTable, pad_csr};
pub use decode::{Decode, Table, Workspace, check_error_word, decode, workspace_bytes};

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

    /// A pool laid out [num_blocks, num_kv_heads, block_size, head_dim].
    pub fn hnd(k: DeviceAddress, v: DeviceAddress, dtype: Dtype, shape: PoolShape) -> Self {
        let PoolShape { block_size, head_dim, .. } = shape;
        let (block_size, dim) = (block_size as u64, head_dim as u64);
        let head_stride = block_size.saturating_mul(dim);
        Self { token_stride: dim, head_stride, ..Self::nhd(k, v, dtype, shape) }
    }

    /// Fails unless the pool is laid out NHD without gaps.
    fn expect_contiguous(&self) -> Result<()> {
        let contiguous = Self::nhd(self.k, self.v, self.dtype, self.shape);
        expect_stride("block stride of the pool", self.block_stride, contiguous.block_stride)?;
        expect_stride("token stride of the pool", self.token_stride, contiguous.token_stride)?;
        expect_stride("head stride of the pool", self.head_stride, contiguous.head_stride)
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

    /// Fails unless the rows lie without gaps.
    fn expect_contiguous(&self, what: RowNames, num_heads: usize, head_dim: usize) -> Result<()> {
        let contiguous = Self::contiguous(self.address, self.dtype, num_heads, head_dim);
        expect_stride(what.token_stride, self.token_stride, contiguous.token_stride)?;
        expect_stride(what.head_stride, self.head_stride, contiguous.head_stride)
    }
}

/// Names of a [`Rows`] argument's strides in errors.
#[derive(Clone, Copy)]
struct RowNames {
    token_stride: &'static str,
    head_stride: &'static str,
}

fn expect_stride(what: &'static str, got: u64, expected: u64) -> Result<()> {
    if got == expected { Ok(()) } else { Err(Error::Mismatch { what, got, expected }) }
}

fn expect_dtype(what: &'static str, got: Dtype, expected: Dtype) -> Result<()> {
    if got == expected { Ok(()) } else { Err(Error::Dtype { what, got, expected }) }
}

/// Fails unless an address has an alignment and, if anything is there, is not null.
fn expect_address(
    what: &'static str,
    address: DeviceAddress,
    align: usize,
    is_used: bool,
) -> Result<()> {
    if is_used && address == DeviceAddress::NULL {
        return Err(Error::Null { what });
    }
    let DeviceAddress(address) = address;
    if address.is_multiple_of(align as u64) {
        return Ok(());
    }
    Err(Error::Misaligned { what, address, align })
}
