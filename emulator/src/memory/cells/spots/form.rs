//! How the lanes of an access that comes again lie to each other, and what of their places follows from the first one's alone.

use std::ops::{BitAnd, BitOrAssign, BitXor};

use super::{Shape, Spots};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, Word, lanes};

/// Distances of the lanes of `mask` from the first of them; of other lanes, none.
#[derive(Debug)]
pub(crate) struct Form {
    distances: Lanes<u64>,
    /// The lower halves.
    narrow: Lanes<u32>,
    mask: Mask,
    /// What each lane accesses.
    bytes: u64,
    /// Set when the form is worth it; forgotten when the distances change (F1: it is what [`Facts::of`] gives for them).
    facts: Option<Facts>,
}

/// What follows from the distances.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// How far below and above the first lane others are, both below 2⁶³.
    pub(super) below: u64,
    pub(super) above: u64,
    /// What a lane accesses if all distances are multiples of that, or else 0.
    unit: u64,
    /// If [`Shape::Straight`], it is so where the first place is a multiple of 8, and is else [`Shape::Pairs`].
    shape: Shape,
    /// Whether no two lanes of the mask share a byte.
    pub(super) apart: bool,
}

impl Facts {
    fn of(distances: &Lanes<u64>, mask: Mask, bytes: u64) -> Facts {
        let mut facts = Facts { below: 0, above: 0, unit: 0, shape: Shape::Any, apart: true };
        let mut aligned = true;
        for &distance in &distances.0 {
            let signed = distance.cast_signed();
            if signed < 0 {
                facts.below = facts.below.max(signed.unsigned_abs());
            } else {
                facts.above = facts.above.max(distance);
            }
            aligned &= distance.is_multiple_of(bytes);
        }
        // No region has two places that lie so far apart.
        facts.unit = if aligned && facts.below >> 63 == 0 { bytes } else { 0 };
        let steps = |step: u64| (0..LANES).all(|lane| distances.0[lane] == lane as u64 * step);
        if steps(0) {
            facts.shape = Shape::Same;
        } else if steps(bytes) {
            facts.shape = Shape::Straight;
        } else if distances.0.as_chunks().0.iter().all(|[a, b]| a.wrapping_add(bytes) == *b) {
            facts.shape = Shape::Pairs;
        }
        let mut sorted: Vec<i64> = lanes(mask).map(|l| distances.0[l].cast_signed()).collect();
        sorted.sort_unstable();
        facts.apart = sorted.windows(2).all(|two| two[0].abs_diff(two[1]) >= bytes);
        facts
    }
}

/// Numbers that addresses are made of.
pub(crate) trait Distance:
    Word + BitOrAssign + BitXor<Output = Self> + BitAnd<Output = Self> + PartialEq
{
    /// Those of a form.
    fn distances(form: &Form) -> &Lanes<Self>;
    fn less(self, other: Self) -> Self;
    /// All ones for 1, nothing for 0.
    fn all_if(bit: u32) -> Self;
}

impl Distance for u32 {
    #[inline(always)]
    fn distances(form: &Form) -> &Lanes<u32> {
        &form.narrow
    }
    #[inline(always)]
    fn less(self, other: u32) -> u32 {
        self.wrapping_sub(other)
    }
    #[inline(always)]
    fn all_if(bit: u32) -> u32 {
        bit.wrapping_neg()
    }
}

impl Distance for u64 {
    #[inline(always)]
    fn distances(form: &Form) -> &Lanes<u64> {
        &form.distances
    }
    #[inline(always)]
    fn less(self, other: u64) -> u64 {
        self.wrapping_sub(other)
    }
    #[inline(always)]
    fn all_if(bit: u32) -> u64 {
        u64::from(bit).wrapping_neg()
    }
}

impl Form {
    /// One that no access has.
    pub(crate) fn none() -> Form {
        let (distances, narrow) = (Lanes::default(), Lanes::default());
        Form { distances, narrow, mask: 0, bytes: 0, facts: None }
    }

    /// Takes the form of an access of `bytes` bytes a lane at these addresses. For vector code: call it from a routine.
    #[inline(always)]
    pub(crate) fn set(&mut self, addresses: &Lanes<u64>, mask: Mask, bytes: u64) {
        let first = addresses.0[mask.trailing_zeros() as usize % LANES];
        for lane in 0..LANES {
            let distance = addresses.0[lane].wrapping_sub(first);
            self.distances.0[lane] = if mask >> lane & 1 != 0 { distance } else { 0 };
        }
        self.narrow = Lanes(self.distances.0.map(|distance| distance as u32));
        (self.mask, self.bytes, self.facts) = (mask, bytes, None);
    }

    /// Finds out what [`Form::spots`] needs.
    pub(crate) fn study(&mut self) {
        if self.facts.is_none() {
            self.facts = Some(Facts::of(&self.distances, self.mask, self.bytes));
        }
    }

    #[inline(always)]
    pub(crate) fn mask(&self) -> Mask {
        self.mask
    }

    #[inline(always)]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Of lanes that take no part, 0.
    #[inline(always)]
    pub(crate) fn distances(&self) -> &Lanes<u64> {
        &self.distances
    }

    /// The first lane's.
    #[inline(always)]
    pub(crate) fn first_of<W: Word>(&self, numbers: &Lanes<W>) -> W {
        numbers.0[self.mask.trailing_zeros() as usize % LANES]
    }

    /// Whether numbers, of which the first is given, are as far from it as the addresses of an access of this form, modulo 2³² where they
    /// have 32 bits. For vector code: call it from a handler or a routine.
    #[inline(always)]
    pub(crate) fn fits<W: Distance>(&self, numbers: &Lanes<W>, first: W) -> bool {
        let (distances, mut differs) = (W::distances(self), W::default());
        if self.mask == ALL {
            for lane in 0..LANES {
                differs |= numbers.0[lane].less(first) ^ distances.0[lane];
            }
        } else {
            for lane in 0..LANES {
                let taken = W::all_if(self.mask >> lane & 1);
                differs |= (numbers.0[lane].less(first) ^ distances.0[lane]) & taken;
            }
        }
        differs == W::default()
    }

    /// The places of an access of this form whose first lane is at `first`, if they are known to be aligned and to lie in the `len`
    /// bytes from `base` on.
    #[inline(always)]
    pub(crate) fn spots<const BYTES: usize>(
        &self,
        first: u64,
        base: u64,
        len: u64,
    ) -> Option<Spots<'_, BYTES>> {
        const { assert!(BYTES.is_power_of_two() && BYTES <= 32) };
        let facts = self.facts.as_ref()?;
        let bytes = BYTES as u64;
        let start = first.wrapping_sub(base);
        let last = len.checked_sub(bytes)?;
        // S1: `start + distance` neither falls below 0 nor goes beyond `last`, and both are multiples.
        let fits = facts.unit == bytes
            && (start | base) & (bytes - 1) == 0
            && start <= last
            && facts.below <= start
            && facts.above <= last - start;
        if !fits {
            return None;
        }
        let mut shape = facts.shape;
        if BYTES < 8 && shape == Shape::Straight && !start.is_multiple_of(8) {
            shape = Shape::Pairs;
        }
        Some(Spots { offsets: &self.distances, start, len, shape, facts: Some(facts) })
    }
}
