//! Places that outlive the access which they are of.

use super::{Shape, Spots};
use crate::exec::lanes::{LANES, Lanes};

/// Places that are kept for later (S3: as S1, for `bytes` bytes of each lane).
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    offsets: Lanes<u64>,
    start: u64,
    len: u64,
    bytes: u64,
    shape: Shape,
}

impl Kept {
    /// Places of one byte in no memory.
    pub(crate) fn nowhere() -> Kept {
        Kept { offsets: Lanes::default(), start: 0, len: 1, bytes: 1, shape: Shape::Same }
    }

    #[inline(always)]
    pub(crate) fn set<const BYTES: usize>(&mut self, spots: Spots<'_, BYTES>) {
        (self.offsets, self.start) = (*spots.offsets, spots.start);
        (self.len, self.bytes, self.shape) = (spots.len, BYTES as u64, spots.shape);
    }

    /// The places again. Panics where they were of other accesses, which is our own bug.
    #[inline(always)]
    pub(crate) fn spots<const BYTES: usize>(&self) -> Spots<'_, BYTES> {
        assert!(self.bytes == BYTES as u64, "places of other accesses");
        let Kept { offsets, start, len, shape, .. } = self;
        Spots { offsets, start: *start, len: *len, shape: *shape, facts: None }
    }

    /// Bytes of each lane.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// How far the offset of each lane is from the same number.
    #[inline(always)]
    pub(crate) fn offsets(&self) -> &Lanes<u64> {
        &self.offsets
    }

    /// Offset of a lane.
    #[inline(always)]
    pub(crate) fn offset(&self, lane: usize) -> u64 {
        self.offsets.0[lane % LANES].wrapping_add(self.start)
    }

    /// Offsets of all lanes.
    pub(crate) fn all(&self) -> Lanes<u64> {
        Lanes(self.offsets.0.map(|offset| offset.wrapping_add(self.start)))
    }
}
