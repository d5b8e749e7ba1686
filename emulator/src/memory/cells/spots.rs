//! What a whole warp accesses, checked at once.

use super::{Cell, Cells};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, lanes};
use crate::memory::region::spread;

/// Where each lane of a warp accesses `BYTES` bytes (S1: `len` is `u64::MAX`, or for every lane `offset` is a multiple of
/// `BYTES` and `offset + BYTES <= len`; kept by the methods of this type, which alone write these fields). Lanes that
/// take no part have such an offset too, of no meaning.
pub(crate) struct Spots<const BYTES: usize> {
    offsets: Lanes<u64>,
    len: u64,
    shape: Shape,
}

/// How the places of the lanes lie to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One after the other, without gaps, from a multiple of 8 bytes on.
    Straight,
    /// All the same.
    Same,
    Any,
}

/// What the bytes of an access hold, in words; of fewer than four bytes the upper ones are zero.
pub(crate) type Words<const WORDS: usize> = [Lanes<u32>; WORDS];

impl<const BYTES: usize> Spots<BYTES> {
    /// Places in no memory: filled in by [`Spots::place`], where they lie rather than being moved there.
    #[inline(always)]
    pub(crate) fn nowhere() -> Self {
        Spots { offsets: Lanes([0; LANES]), len: u64::MAX, shape: Shape::Any }
    }

    /// The places at `addresses`, if those of all lanes of `mask` are aligned and lie in the `len` bytes from `base` on.
    #[inline(always)]
    #[must_use]
    pub(crate) fn place(
        &mut self,
        addresses: &Lanes<u64>,
        mask: Mask,
        base: u64,
        len: u64,
    ) -> bool {
        const { assert!(BYTES.is_power_of_two() && BYTES <= 32) };
        self.len = u64::MAX;
        let Some(last) = len.checked_sub(BYTES as u64) else { return false };
        if mask == ALL {
            for lane in 0..LANES {
                self.offsets.0[lane] = addresses.0[lane].wrapping_sub(base);
            }
        } else {
            let first = addresses.0[mask.trailing_zeros() as usize % LANES];
            for lane in 0..LANES {
                let taken = if mask >> lane & 1 != 0 { addresses.0[lane] } else { first };
                self.offsets.0[lane] = taken.wrapping_sub(base);
            }
        }
        // Offsets and `last` are below 2⁶³, so that the top bit of a difference tells which one is larger.
        let (mut bits, mut beyond) = (0, 0);
        for lane in 0..LANES {
            bits |= self.offsets.0[lane];
            beyond |= last.wrapping_sub(self.offsets.0[lane]);
        }
        let aligned = (bits | base).is_multiple_of(BYTES as u64);
        if (bits | beyond | last) >> 63 != 0 || !aligned {
            return false;
        }
        self.shape = Shape::of::<BYTES>(&self.offsets);
        self.len = len;
        true
    }

    /// Moves each lane's place into a part of its own: lane l's part begins at `l * pitch`.
    #[inline(always)]
    #[must_use]
    pub(crate) fn part(&mut self, pitch: u64) -> bool {
        if self.len > pitch || !pitch.is_multiple_of(32) || pitch >= 1 << 56 {
            self.len = u64::MAX;
            return false;
        }
        // Offset l * pitch + o is a multiple as both are, and l * pitch + o + BYTES <= (l + 1) * pitch <= 32 * pitch.
        for lane in 0..LANES {
            self.offsets.0[lane] += lane as u64 * pitch;
        }
        self.shape = Shape::of::<BYTES>(&self.offsets);
        self.len = LANES as u64 * pitch;
        true
    }

    /// Whether no two lanes share a byte; may say no where they do not.
    #[inline(always)]
    pub(crate) fn are_apart(&self) -> bool {
        self.shape == Shape::Straight
    }
}

impl Shape {
    #[inline(always)]
    fn of<const BYTES: usize>(offsets: &Lanes<u64>) -> Shape {
        let Lanes(at) = offsets;
        let (first, distance) = (at[0], at[LANES - 1].wrapping_sub(at[0]));
        let mut differs = 0;
        if distance == 0 {
            for lane in 0..LANES {
                differs |= at[lane] ^ first;
            }
            return if differs == 0 { Shape::Same } else { Shape::Any };
        }
        if distance != (LANES - 1) as u64 * BYTES as u64 || !first.is_multiple_of(8) {
            return Shape::Any;
        }
        for lane in 0..LANES {
            differs |= at[lane] ^ (first + (lane * BYTES) as u64);
        }
        if differs == 0 { Shape::Straight } else { Shape::Any }
    }
}

/// The columns of four rows.
#[inline(always)]
fn turned(rows: [[u32; 4]; 4]) -> [[u32; 4]; 4] {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the types are 16 bytes without padding, of which any content is a value; and every processor of x86-64
    // has SSE2, all that the rest asks for.
    unsafe {
        use std::arch::x86_64 as host;
        let vector = |row| std::mem::transmute::<[u32; 4], host::__m128i>(row);
        let [a, b, c, d] = rows.map(vector);
        let (low, high) = (host::_mm_unpacklo_epi32(a, b), host::_mm_unpackhi_epi32(a, b));
        let (low_too, high_too) = (host::_mm_unpacklo_epi32(c, d), host::_mm_unpackhi_epi32(c, d));
        let columns = [
            host::_mm_unpacklo_epi64(low, low_too),
            host::_mm_unpackhi_epi64(low, low_too),
            host::_mm_unpacklo_epi64(high, high_too),
            host::_mm_unpackhi_epi64(high, high_too),
        ];
        columns.map(|column| std::mem::transmute::<host::__m128i, [u32; 4]>(column))
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]))
}

/// The places of a warp in some cells (S2: `spots.len` is at most the length of `cells`; made in [`Cells::at`] only).
pub(crate) struct Places<'c, const BYTES: usize> {
    cells: &'c Cells,
    spots: &'c Spots<BYTES>,
}

impl Cells {
    /// Panics where places may lie outside of the bytes: callers make them for the length that these have, so that is our own bug.
    #[inline(always)]
    pub(crate) fn at<'c, const BYTES: usize>(
        &'c self,
        spots: &'c Spots<BYTES>,
    ) -> Places<'c, BYTES> {
        assert!(spots.len <= self.len as u64, "places for other cells");
        Places { cells: self, spots }
    }
}

impl<const BYTES: usize> Places<'_, BYTES> {
    /// Points to `BYTES` valid bytes, aligned to them (to 8 where they are more).
    #[inline(always)]
    fn pointer(&self, lane: usize) -> *mut u8 {
        // SAFETY: by S1 and S2 the offset is inside the allocation of the cells (C1).
        unsafe { self.cells.start.as_ptr().add(self.spots.offsets.0[lane] as usize) }
    }

    /// Eight of the bytes that the lanes fill together: `step` is below `LANES * BYTES / 8`, the shape straight.
    #[inline(always)]
    fn load_eight(&self, step: usize) -> u64 {
        debug_assert!(self.spots.shape == Shape::Straight && step < LANES * BYTES / 8);
        // SAFETY: the lanes fill a range from a multiple of 8 on (`Shape::Straight`), all of it inside (S1, S2, C1).
        unsafe { u64::load(self.pointer(0).add(8 * step)) }
    }

    /// As [`Places::load_eight`].
    #[inline(always)]
    fn store_eight(&self, step: usize, value: u64) {
        debug_assert!(self.spots.shape == Shape::Straight && step < LANES * BYTES / 8);
        // SAFETY: as in `load_eight`.
        unsafe { u64::store(self.pointer(0).add(8 * step), value) }
    }

    /// Copies out what lies at each place.
    #[inline(always)]
    pub(crate) fn load<const WORDS: usize>(&self, out: &mut Words<WORDS>) {
        const { assert!(WORDS == BYTES.div_ceil(4)) };
        if self.spots.shape == Shape::Same {
            let words: [u32; WORDS] = self.load_lane(0);
            for (out, word) in out.iter_mut().zip(words) {
                *out = Lanes([word; LANES]);
            }
        } else if self.spots.shape == Shape::Straight && BYTES == 4 {
            for pair in 0..LANES / 2 {
                let two = self.load_eight(pair);
                out[0].0[2 * pair] = two as u32;
                out[0].0[2 * pair + 1] = (two >> 32) as u32;
            }
        } else if BYTES == 16 {
            for first in (0..LANES).step_by(4) {
                let rows = std::array::from_fn(|row| {
                    let words: [u32; WORDS] = self.load_lane(first + row);
                    std::array::from_fn(|word| words[word % WORDS])
                });
                for (out, column) in out.iter_mut().zip(turned(rows)) {
                    out.0[first..first + 4].copy_from_slice(&column);
                }
            }
        } else {
            for lane in 0..LANES {
                let words: [u32; WORDS] = self.load_lane(lane);
                for (out, word) in out.iter_mut().zip(words) {
                    out.0[lane] = word;
                }
            }
        }
    }

    /// What lies at the place of a lane.
    #[inline(always)]
    pub(crate) fn load_lane<const WORDS: usize>(&self, lane: usize) -> [u32; WORDS] {
        const { assert!(WORDS == BYTES.div_ceil(4)) };
        let at = self.pointer(lane);
        let mut words = [0; WORDS];
        // SAFETY: `pointer` promises `BYTES` bytes; steps of 8 stay inside and aligned.
        unsafe {
            match BYTES {
                1 => words[0] = u8::load(at).into(),
                2 => words[0] = u16::load(at).into(),
                4 => words[0] = u32::load(at),
                _ => {
                    for pair in 0..BYTES / 8 {
                        let two = u64::load(at.add(8 * pair));
                        words[2 * pair] = two as u32;
                        words[2 * pair + 1] = (two >> 32) as u32;
                    }
                }
            }
        }
        words
    }

    /// Stores to the places of the lanes of `mask`, in order.
    #[inline(always)]
    pub(crate) fn store<const WORDS: usize>(&self, mask: Mask, words: &Words<WORDS>) {
        const { assert!(WORDS == BYTES.div_ceil(4)) };
        if self.spots.shape == Shape::Straight && BYTES == 4 && mask == ALL {
            for pair in 0..LANES / 2 {
                let [low, high] = [0, 1].map(|odd| u64::from(words[0].0[2 * pair + odd]));
                self.store_eight(pair, low | high << 32);
            }
            return;
        }
        if mask == ALL {
            for lane in 0..LANES {
                self.store_lane::<WORDS>(lane, std::array::from_fn(|word| words[word].0[lane]));
            }
            return;
        }
        for lane in lanes(mask) {
            self.store_lane::<WORDS>(lane, std::array::from_fn(|word| words[word].0[lane]));
        }
    }

    /// Stores to the place of a lane.
    #[inline(always)]
    pub(crate) fn store_lane<const WORDS: usize>(&self, lane: usize, words: [u32; WORDS]) {
        const { assert!(WORDS == BYTES.div_ceil(4)) };
        let at = self.pointer(lane);
        // SAFETY: as in `load_lane`.
        unsafe {
            match BYTES {
                1 => u8::store(at, words[0] as u8),
                2 => u16::store(at, words[0] as u16),
                4 => u32::store(at, words[0]),
                _ => {
                    for pair in 0..BYTES / 8 {
                        let two = u64::from(words[2 * pair]) | u64::from(words[2 * pair + 1]) << 32;
                        u64::store(at.add(8 * pair), two);
                    }
                }
            }
        }
    }

    /// Lanes of which every byte equals `want` in the bits of `of`.
    #[inline(always)]
    pub(crate) fn equal(&self, of: u8, want: u8) -> Mask {
        if self.spots.shape == Shape::Same {
            return if self.lane_equals(0, of, want) { ALL } else { 0 };
        }
        if self.spots.shape == Shape::Straight {
            let mut differs = 0;
            for step in 0..LANES * BYTES / 8 {
                differs |= self.load_eight(step) ^ spread(want);
            }
            if differs & spread(of) == 0 {
                return ALL;
            }
        }
        let mut differs = 0;
        for lane in 0..LANES {
            differs |= self.lane_differs(lane, want);
        }
        if differs & spread(of) == 0 {
            return ALL;
        }
        let equals = |lane: usize| u32::from(self.lane_equals(lane, of, want));
        (0..LANES).fold(0, |equal, lane| equal | equals(lane) << lane)
    }

    /// Whether every byte of a lane equals `want` in the bits of `of`.
    #[inline(always)]
    pub(crate) fn lane_equals(&self, lane: usize, of: u8, want: u8) -> bool {
        self.lane_differs(lane, want) & spread(of) == 0
    }

    /// The bits in which any eight bytes of a lane differ from those with `want` in each.
    #[inline(always)]
    fn lane_differs(&self, lane: usize, want: u8) -> u64 {
        let (at, wanted) = (self.pointer(lane), spread(want));
        // SAFETY: as in `load_lane`.
        unsafe {
            match BYTES {
                1 => u64::from(u8::load(at) ^ want),
                2 => u64::from(u16::load(at) ^ wanted as u16),
                4 => u64::from(u32::load(at) ^ wanted as u32),
                _ => (0..BYTES / 8).fold(0, |all, step| all | u64::load(at.add(8 * step)) ^ wanted),
            }
        }
    }

    /// Sets every byte at the places of the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn fill(&self, mask: Mask, byte: u8) {
        if self.spots.shape == Shape::Straight && mask == ALL {
            for step in 0..LANES * BYTES / 8 {
                self.store_eight(step, spread(byte));
            }
            return;
        }
        if mask == ALL {
            for lane in 0..LANES {
                self.fill_lane(lane, byte);
            }
            return;
        }
        for lane in lanes(mask) {
            self.fill_lane(lane, byte);
        }
    }

    /// Sets every byte of a lane.
    #[inline(always)]
    fn fill_lane(&self, lane: usize, byte: u8) {
        let (at, bytes) = (self.pointer(lane), spread(byte));
        // SAFETY: as in `load_lane`.
        unsafe {
            match BYTES {
                1 => u8::store(at, byte),
                2 => u16::store(at, bytes as u16),
                4 => u32::store(at, bytes as u32),
                _ => (0..BYTES / 8).for_each(|step| u64::store(at.add(8 * step), bytes)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_rows() {
        let rows =
            std::array::from_fn(|row| std::array::from_fn(|column| (10 * row + column) as u32));
        let columns = turned(rows);
        assert!((0..4).all(|row| (0..4).all(|column| columns[column][row] == rows[row][column])));
    }
}
