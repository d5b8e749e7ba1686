//! The paged KV memory.
#![forbid(unsafe_code)]

use crate::buffer::Buffer;
use crate::device::Stream;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::kernels::MAX_HEAD_DIM;
use crate::types::Element;

/// Sizes of a [`KvPool`]; [`PoolShape::check`] states the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolShape {
    /// Blocks; ids are `0..num_blocks`.
    pub num_blocks: usize,
    /// Tokens of a block.
    pub block_size: usize,
    /// Heads of K and of V.
    pub num_kv_heads: usize,
    /// Elements of a head, a multiple of 8.
    pub head_dim: usize,
}

/// Largest number of KV heads: with heads of 256 elements a token has fewer than 2²⁴, which kernels count in 32 bits.
const MAX_KV_HEADS: usize = 65_535;

impl PoolShape {
    /// Fails unless the sizes are ones that kernels and index arithmetic can hold: `num_blocks` and
    /// `block_size` from 1 to 2³¹ − 1, `num_kv_heads` from 1 to 65,535, `head_dim` a multiple of 8 to 256, and
    /// K, in the widest type, of fewer than 2⁶³ bytes. ([`crate::decode()`] takes pools of up to 2³⁵ elements of K.)
    ///
    /// # Errors
    ///
    /// [`Error::Zero`], [`Error::TooLarge`], [`Error::HeadDim`], [`Error::Overflow`].
    pub fn check(&self) -> Result<()> {
        let limits = [
            ("num_blocks", self.num_blocks, i32::MAX as usize),
            ("block_size", self.block_size, i32::MAX as usize),
            ("num_kv_heads", self.num_kv_heads, MAX_KV_HEADS),
        ];
        for (what, value, limit) in limits {
            expect_in_range(what, value, limit)?;
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(8) || self.head_dim > MAX_HEAD_DIM {
            return Err(Error::HeadDim { head_dim: self.head_dim, limit: MAX_HEAD_DIM });
        }
        self.num_elems().map(drop)
    }

    /// Tokens that the pool holds.
    ///
    /// # Errors
    ///
    /// [`Error::Overflow`].
    pub fn num_slots(&self) -> Result<usize> {
        self.num_blocks
            .checked_mul(self.block_size)
            .ok_or(Error::Overflow { what: "slots of the pool" })
    }

    /// Elements of K of one token, all heads.
    pub(crate) fn token_elems(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Elements of K.
    fn num_elems(&self) -> Result<usize> {
        // 4 bytes is the widest element, so that no offset in bytes overflows i64 either.
        self.num_slots()?
            .checked_mul(self.token_elems())
            .filter(|elems| *elems <= (i64::MAX / 4) as usize)
            .ok_or(Error::Overflow { what: "elements of the pool" })
    }
}

/// Fails unless `1 <= value <= limit`.
pub(crate) fn expect_in_range(what: &'static str, value: usize, limit: usize) -> Result<()> {
    if value == 0 {
        return Err(Error::Zero { what });
    }
    if value > limit {
        return Err(Error::TooLarge { what, value: value as u64, limit: limit as u64 });
    }
    Ok(())
}

/// K and V of one layer, each [num_blocks, block_size, num_kv_heads, head_dim] (NHD) of `T`.
///
/// - P1. `k` and `v` hold exactly `shape.num_slots() * num_kv_heads * head_dim` elements, and `shape` passed
///   [`PoolShape::check`]; both are fixed when the pool is made (no `&mut Buffer` is ever given out, so that a
///   shorter one cannot be swapped in).
pub struct KvPool<'s, D: Driver, T: Element> {
    shape: PoolShape,
    k: Buffer<'s, D, T>,
    v: Buffer<'s, D, T>,
}

debug!(['s, D: Driver, T: Element] KvPool<'s, D, T> { shape, k, v });

impl<'s, D: Driver, T: Element> KvPool<'s, D, T> {
    /// Allocates a pool; its contents are undefined until tokens are appended, and attention never
    /// reads a slot at or past a sequence's length.
    ///
    /// # Errors
    ///
    /// Those of [`PoolShape::check`] and [`Buffer::uninit`].
    pub fn new(stream: &'s Stream<D>, shape: PoolShape) -> Result<Self> {
        shape.check()?;
        let elems = shape.num_elems()?;
        Ok(Self { shape, k: Buffer::uninit(stream, elems)?, v: Buffer::uninit(stream, elems)? })
    }

    /// Its sizes.
    pub fn shape(&self) -> PoolShape {
        self.shape
    }

    /// The stream it is bound to.
    pub fn stream(&self) -> &'s Stream<D> {
        self.k.stream()
    }

    /// K, [num_blocks, block_size, num_kv_heads, head_dim].
    pub fn k(&self) -> &Buffer<'s, D, T> {
        &self.k
    }

    /// V, [num_blocks, block_size, num_kv_heads, head_dim].
    pub fn v(&self) -> &Buffer<'s, D, T> {
        &self.v
    }

    /// Overwrites the first `host.len()` elements of K: a restored cache, a test's NaN in all slots.
    ///
    /// # Errors
    ///
    /// Those of [`Buffer::write`].
    pub fn write_k(&mut self, host: &[T]) -> Result<()> {
        self.k.write(host)
    }

    /// Overwrites the first `host.len()` elements of V.
    ///
    /// # Errors
    ///
    /// Those of [`Buffer::write`].
    pub fn write_v(&mut self, host: &[T]) -> Result<()> {
        self.v.write(host)
    }

    /// Copies whole blocks, K and V, from the first to the second of each pair, one pair after the other: what copy-on-write needs after [`crate::BlockAllocator::is_shared`].
    ///
    /// # Errors
    ///
    /// [`Error::BlockId`] (with `seq` the index of the pair and `index` 0 for its source, 1 for its
    /// destination), and those of the driver. Nothing is copied if any id is wrong.
    pub fn copy_blocks(&mut self, pairs: &[(u32, u32)]) -> Result<()> {
        let num_blocks = self.shape.num_blocks as u32;
        for (pair, &(src, dst)) in pairs.iter().enumerate() {
            for (index, id) in [src, dst].into_iter().enumerate() {
                if id >= num_blocks {
                    return Err(Error::BlockId { seq: pair, index, id, num_blocks });
                }
            }
        }
        let elems = self.shape.block_size * self.shape.token_elems();
        for &(src, dst) in pairs.iter().filter(|(src, dst)| src != dst) {
            self.k.copy_within(dst as usize * elems, src as usize * elems, elems)?;
            self.v.copy_within(dst as usize * elems, src as usize * elems, elems)?;
        }
        Ok(())
    }
}
