//! What a whole warp accesses, checked at once.

use std::mem::MaybeUninit;

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use super::vectors;
use super::{Cell, Cells};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, lanes};
use crate::exec::wide::{self, Routine};
use crate::memory::region::spread;

/// Code for processors that have what [`vectors`] needs, which is to return; what follows it does the same without.
macro_rules! with_vectors {
    ($($code:tt)*) => {
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        if wide::is_available() {
            $($code)*
        }
    };
}

/// Where each lane of a warp accesses `BYTES` bytes (S1: `len` is `u64::MAX`, or `offsets` is set and for every lane the offset
/// is a multiple of `BYTES` and `offset + BYTES <= len`; kept by the methods of this type, which alone write these fields).
/// Lanes that take no part have such an offset too, of no meaning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spots<const BYTES: usize> {
    offsets: MaybeUninit<Lanes<u64>>,
    len: u64,
    shape: Shape,
}

/// How the places of the lanes lie to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One after the other, without gaps, from a multiple of 8 bytes on.
    Straight,
    /// All the same.
    Same,
    Any,
}

impl<const BYTES: usize> Spots<BYTES> {
    /// Places in no memory: filled in by [`Spots::place`], where they lie rather than being moved there.
    #[inline(always)]
    pub(crate) fn nowhere() -> Self {
        Spots {
            offsets: MaybeUninit::uninit(),
            // Were it known that all is constant, a constant would be copied, offsets included.
            len: std::hint::black_box(u64::MAX),
            shape: Shape::Any,
        }
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
        let (bytes, offsets) = (BYTES as u64, &mut self.offsets);
        let Some(last) = len.checked_sub(bytes) else { return false };
        let shape = place(addresses, mask, (base, last), bytes, offsets);
        let Some(shape) = shape else { return false };
        self.shape = shape;
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
        // SAFETY: S1, as `len` is at most `pitch`.
        let offsets = unsafe { self.offsets.assume_init_mut() };
        for lane in 0..LANES {
            offsets.0[lane] += lane as u64 * pitch;
        }
        self.shape = Shape::of(offsets, BYTES as u64);
        self.len = LANES as u64 * pitch;
        true
    }

    /// The offset of each lane, once they have been placed.
    pub(crate) fn offsets(&self) -> Option<&Lanes<u64>> {
        // SAFETY: by S1, as the length is not `u64::MAX`.
        (self.len != u64::MAX).then(|| unsafe { self.offsets.assume_init_ref() })
    }

    /// Whether no two lanes of `mask` share a byte; may say no where they do not.
    #[inline(always)]
    pub(crate) fn are_apart(&self, mask: Mask) -> bool {
        let apart = |offsets| {
            increase(offsets) || wide::call(Distinct { offsets, mask, shift: BYTES.ilog2() })
        };
        match self.shape {
            Shape::Straight => true,
            Shape::Same => mask & mask.wrapping_sub(1) == 0,
            Shape::Any => self.offsets().is_some_and(apart),
        }
    }
}

/// Whether the places of the lanes of a mask are different, multiples of a power of two; may say no where they lie more than 128
/// of these from the first.
struct Distinct<'a> {
    offsets: &'a Lanes<u64>,
    mask: Mask,
    shift: u32,
}

impl Routine for Distinct<'_> {
    type Out = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let Distinct { offsets: Lanes(offsets), mask, shift } = self;
        let first = (offsets[mask.trailing_zeros() as usize % LANES] >> shift).wrapping_sub(128);
        let mut taken = [0_u64; 4];
        for lane in 0..LANES {
            let place = (offsets[lane] >> shift).wrapping_sub(first);
            let one = u64::from(mask >> lane & 1);
            for part in 0..4 {
                let bit = place.wrapping_sub(64 * part as u64);
                taken[part] |= if bit < 64 { one << bit } else { 0 };
            }
        }
        taken.iter().map(|part| part.count_ones()).sum::<u32>() == mask.count_ones()
    }
}

/// Whether each offset is larger than the one before, row by row of four or column by column.
#[inline(always)]
fn increase(Lanes(offsets): &Lanes<u64>) -> bool {
    with_vectors! {
        // SAFETY: AVX2 is there.
        return unsafe { vectors::increase(offsets) || vectors::increase_by_columns(offsets) };
    }
    let lane = |at: usize| at % 8 * 4 + at / 8;
    let by_columns = || (1..LANES).all(|at| offsets[lane(at - 1)] < offsets[lane(at)]);
    offsets.is_sorted_by(|a, b| a < b) || by_columns()
}

/// As [`place_slowly`].
#[inline(always)]
fn place(
    addresses: &Lanes<u64>,
    mask: Mask,
    (base, last): (u64, u64),
    bytes: u64,
    offsets: &mut MaybeUninit<Lanes<u64>>,
) -> Option<Shape> {
    with_vectors! {
        // SAFETY: AVX2 is there.
        return unsafe { vectors::place(addresses, mask, (base, last), bytes, offsets) };
    }
    place_slowly(addresses, mask, (base, last), bytes, offsets)
}

/// Sets the offsets of the addresses of all lanes from `base`, with the first one of `mask` for those that take no part, and
/// tells how they lie; nothing if one is no multiple of `bytes`, a power of two, or beyond `last`.
#[cold]
#[inline(never)]
fn place_slowly(
    addresses: &Lanes<u64>,
    mask: Mask,
    (base, last): (u64, u64),
    bytes: u64,
    offsets: &mut MaybeUninit<Lanes<u64>>,
) -> Option<Shape> {
    let first = addresses.0[mask.trailing_zeros() as usize % LANES];
    let taken = |lane: usize| if mask >> lane & 1 != 0 { addresses.0[lane] } else { first };
    let offsets = offsets.write(Lanes(std::array::from_fn(|lane| taken(lane).wrapping_sub(base))));
    let fits = |&offset: &u64| offset <= last && offset.is_multiple_of(bytes);
    (base.is_multiple_of(bytes) && offsets.0.iter().all(fits)).then(|| Shape::of(offsets, bytes))
}

impl Shape {
    #[inline(never)]
    fn of(Lanes(offsets): &Lanes<u64>, bytes: u64) -> Shape {
        let first = offsets[0];
        let steps = |step: u64| {
            (0..LANES).all(|lane| offsets[lane] == first.wrapping_add(lane as u64 * step))
        };
        if steps(0) {
            Shape::Same
        } else if first.is_multiple_of(8) && steps(bytes) {
            Shape::Straight
        } else {
            Shape::Any
        }
    }
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
        unsafe { self.cells.start.as_ptr().add(self.offsets()[lane] as usize) }
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

    #[inline(always)]
    fn offsets(&self) -> &[u64; LANES] {
        // SAFETY: by S2 the length is not `u64::MAX`, which no allocation has, so that the offsets are set (S1).
        unsafe { &self.spots.offsets.assume_init_ref().0 }
    }

    /// The places of eight lanes, from a multiple of 8 on.
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    #[inline(always)]
    fn eight(&self, first: usize) -> &[u64; 8] {
        &self.offsets().as_chunks().0[first / 8 % (LANES / 8)]
    }

    /// Copies out what lies at each place, in words; of fewer than four bytes the upper ones become zero.
    #[inline(always)]
    pub(crate) fn load<const WORDS: usize>(&self, out: [&mut Lanes<u32>; WORDS]) {
        const { assert!(WORDS == BYTES.div_ceil(4)) };
        if self.spots.shape == Shape::Same {
            let words: [u32; WORDS] = self.load_lane(0);
            for word in 0..WORDS {
                *out[word] = Lanes([words[word]; LANES]);
            }
            return;
        }
        with_vectors! {
            let base = self.cells.start.as_ptr();
            for first in (0..LANES).step_by(8) {
                // SAFETY: AVX2 is there. By S1, S2 and C1 there are `BYTES` bytes at every offset; and 32 times `BYTES` from
                // the first offset on where the shape is straight.
                unsafe {
                    match BYTES {
                        4 => {
                            let words = if self.spots.shape == Shape::Straight {
                                vectors::load(base, self.offsets()[0] + 4 * first as u64)
                            } else {
                                vectors::load_fours(base, self.eight(first))
                            };
                            vectors::put(words, out[0], first);
                        }
                        8 => {
                            let columns = vectors::load_two_columns(base, self.eight(first));
                            for word in 0..2 {
                                vectors::put(columns[word], out[word % WORDS], first);
                            }
                        }
                        16 => {
                            let columns = vectors::load_four_columns(base, self.eight(first));
                            for word in 0..4 {
                                vectors::put(columns[word], out[word % WORDS], first);
                            }
                        }
                        _ => break,
                    }
                }
            }
            if matches!(BYTES, 4 | 8 | 16) {
                return;
            }
        }
        self.load_slowly(out);
    }

    /// As [`Places::load`], lane by lane.
    #[inline(never)]
    fn load_slowly<const WORDS: usize>(&self, out: [&mut Lanes<u32>; WORDS]) {
        for lane in 0..LANES {
            let words: [u32; WORDS] = self.load_lane(lane);
            for word in 0..WORDS {
                out[word].0[lane] = words[word];
            }
        }
    }

    /// Copies out what lies at the places of `N` lanes from `first` on, a row each.
    #[inline(always)]
    pub(crate) fn load_rows<const WORDS: usize, const N: usize>(
        &self,
        first: usize,
        rows: &mut [[u32; 4]; N],
    ) {
        with_vectors! {
            if BYTES == 16 {
                let offsets = &self.offsets()[first..first + N];
                let base = self.cells.start.as_ptr();
                for index in 0..N {
                    // SAFETY: AVX2 is there; by S1, S2 and C1 there are `BYTES` bytes at every offset.
                    rows[index] = unsafe { vectors::load_row(base, offsets[index]) };
                }
                return;
            }
        }
        for index in 0..N {
            let words: [u32; WORDS] = self.load_lane(first + index);
            rows[index][..WORDS].copy_from_slice(&words);
        }
    }

    /// Copies out what lies at the places of all lanes, a row each, of which eight fill a register.
    #[inline(always)]
    pub(crate) fn load_matrices(&self, registers: [&mut Lanes<u32>; 4]) {
        const { assert!(BYTES == 16) };
        with_vectors! {
            let offsets = self.offsets();
            let base = self.cells.start.as_ptr();
            for index in 0..4 {
                let (rows, _) = registers[index].0.as_chunks_mut();
                for row in 0..8 {
                    // SAFETY: AVX2 is there; by S1, S2 and C1 there are `BYTES` bytes at every offset.
                    rows[row] = unsafe { vectors::load_row(base, offsets[8 * index + row]) };
                }
            }
            return;
        }
        for (index, register) in registers.into_iter().enumerate() {
            for (row, words) in register.0.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *words = self.load_lane(8 * index + row);
            }
        }
    }

    /// Stores the rows of the lanes of `mask`, in order.
    #[inline(always)]
    pub(crate) fn store_rows<const WORDS: usize>(&self, mask: Mask, rows: &[[u32; 4]; LANES]) {
        with_vectors! {
            if BYTES == 16 && mask == ALL {
                let offsets = self.offsets();
                let base = self.cells.start.as_ptr();
                for lane in 0..LANES {
                    // SAFETY: AVX2 is there; by S1, S2 and C1 there are `BYTES` bytes at every offset.
                    unsafe { vectors::store_row(base, offsets[lane], &rows[lane]) };
                }
                return;
            }
        }
        for lane in lanes(mask) {
            self.store_lane::<WORDS>(lane, std::array::from_fn(|word| rows[lane][word]));
        }
    }

    /// What lies at the place of a lane.
    #[inline(always)]
    pub(crate) fn load_lane<const WORDS: usize>(&self, lane: usize) -> [u32; WORDS] {
        const { assert!(WORDS == BYTES.div_ceil(4)) };
        let at = self.pointer(lane);
        let mut words = [0; WORDS];
        with_vectors! {
            if BYTES == 16 {
                // SAFETY: AVX2 is there, and `pointer` promises `BYTES` bytes.
                words.copy_from_slice(&unsafe { vectors::load_row(at, 0) });
                return words;
            }
        }
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
    pub(crate) fn store<const WORDS: usize>(&self, mask: Mask, words: [&Lanes<u32>; WORDS]) {
        const { assert!(WORDS == BYTES.div_ceil(4)) };
        with_vectors! {
            if mask == ALL && matches!(BYTES, 4 | 8 | 16) && (BYTES != 4 || self.spots.shape == Shape::Straight) {
                let base = self.cells.start.as_ptr();
                for first in (0..LANES).step_by(8) {
                    // SAFETY: AVX2 is there. By S1, S2 and C1 there are `BYTES` bytes at every offset; and 32 times
                    // `BYTES` from the first offset on where the shape is straight.
                    unsafe {
                        let column = |word: usize| vectors::take(words[word % WORDS], first);
                        match BYTES {
                            4 => vectors::store(base, self.offsets()[0] + 4 * first as u64, column(0)),
                            8 => vectors::store_two_columns(base, self.eight(first), [column(0), column(1)]),
                            _ => vectors::store_four_columns(
                                base,
                                self.eight(first),
                                [column(0), column(1), column(2), column(3)],
                            ),
                        }
                    }
                }
                return;
            }
        }
        if mask == ALL && BYTES == 4 {
            let base = self.cells.start.as_ptr();
            for (&offset, &word) in self.offsets().iter().zip(&words[0].0) {
                // SAFETY: as for `pointer`.
                unsafe { u32::store(base.add(offset as usize), word) };
            }
            return;
        }
        self.store_slowly(mask, words);
    }

    /// As [`Places::store`], lane by lane.
    #[inline(never)]
    fn store_slowly<const WORDS: usize>(&self, mask: Mask, words: [&Lanes<u32>; WORDS]) {
        for lane in lanes(mask) {
            self.store_lane::<WORDS>(lane, std::array::from_fn(|word| words[word].0[lane]));
        }
    }

    /// Stores to the place of a lane.
    #[inline(always)]
    pub(crate) fn store_lane<const WORDS: usize>(&self, lane: usize, words: [u32; WORDS]) {
        const { assert!(WORDS == BYTES.div_ceil(4)) };
        let at = self.pointer(lane);
        with_vectors! {
            if BYTES == 16 {
                // SAFETY: AVX2 is there, and `pointer` promises `BYTES` bytes.
                unsafe { vectors::store_row(at, 0, &std::array::from_fn(|word| words[word % WORDS])) };
                return;
            }
        }
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
        if self.differing(want) & spread(of) == 0 { ALL } else { self.equal_lanes(of, want) }
    }

    #[cold]
    #[inline(never)]
    fn equal_lanes(&self, of: u8, want: u8) -> Mask {
        let equals = |lane: usize| u32::from(self.lane_equals(lane, of, want));
        (0..LANES).fold(0, |equal, lane| equal | equals(lane) << lane)
    }

    /// The bits in which any eight bytes of any lane differ from those with `want` in each.
    #[inline(always)]
    fn differing(&self, want: u8) -> u64 {
        with_vectors! {
            if BYTES >= 4 {
                let base = self.cells.start.as_ptr();
                let straight = self.spots.shape == Shape::Straight;
                // SAFETY: AVX2 is there. By S1, S2 and C1 there are `BYTES` bytes at every offset; and 32 times
                // `BYTES` from the first offset on where the shape is straight.
                return unsafe { vectors::differing::<BYTES>(base, self.offsets(), straight, want) };
            }
        }
        let mut differs = 0;
        if self.spots.shape == Shape::Straight {
            for step in 0..LANES * BYTES / 8 {
                differs |= self.load_eight(step) ^ spread(want);
            }
        } else {
            for lane in 0..LANES {
                differs |= self.lane_differs(lane, want);
            }
        }
        differs
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
            with_vectors! {
                for step in 0..BYTES as u64 {
                    let (base, offset) = (self.cells.start.as_ptr(), self.offsets()[0] + 32 * step);
                    // SAFETY: AVX2 is there; by S1, S2 and C1 and as the shape is straight, there are 32 times `BYTES`
                    // bytes from the first offset on.
                    unsafe { vectors::store(base, offset, vectors::splat(byte)) };
                }
                return;
            }
            for step in 0..LANES * BYTES / 8 {
                self.store_eight(step, spread(byte));
            }
            return;
        }
        with_vectors! {
            if BYTES == 16 && mask == ALL {
                let base = self.cells.start.as_ptr();
                for &offset in self.offsets() {
                    // SAFETY: AVX2 is there; by S1, S2 and C1 there are `BYTES` bytes at every offset.
                    unsafe { vectors::fill_row(base, offset, byte) };
                }
                return;
            }
        }
        if mask != ALL {
            for lane in lanes(mask) {
                self.fill_lane(lane, byte);
            }
            return;
        }
        let (base, bytes) = (self.cells.start.as_ptr(), spread(byte));
        for &offset in self.offsets() {
            // SAFETY: as for `pointer`.
            unsafe {
                let at = base.add(offset as usize);
                match BYTES {
                    1 => u8::store(at, byte),
                    2 => u16::store(at, bytes as u16),
                    4 => u32::store(at, bytes as u32),
                    _ => (0..BYTES / 8).for_each(|step| u64::store(at.add(8 * step), bytes)),
                }
            }
        }
    }

    /// Sets every byte of a lane.
    #[inline(always)]
    pub(crate) fn fill_lane(&self, lane: usize, byte: u8) {
        let (at, bytes) = (self.pointer(lane), spread(byte));
        with_vectors! {
            if BYTES == 16 {
                // SAFETY: AVX2 is there, and `pointer` promises `BYTES` bytes.
                unsafe { vectors::fill_row(at, 0, byte) };
                return;
            }
        }
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
mod agreement;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_in_any_order_are_apart() {
        let mut random = crate::random::Random::new(7, 7);
        let mut apart = 0;
        for round in 0..400 {
            let mut places: Vec<u64> = (0..150).collect();
            random.shuffle(&mut places);
            let mut at = Lanes(std::array::from_fn(|lane| 4096 + 8 * places[lane]));
            if round % 3 != 0 {
                at.0[random.below(LANES)] = at.0[random.below(LANES)];
            }
            let mask = if round % 2 == 0 { ALL } else { random.next() as Mask | 1 };
            let mut spots = Spots::<8>::nowhere();
            assert!(spots.place(&at, mask, 0, 1 << 16));
            let mut all: Vec<_> = lanes(mask).map(|lane| at.0[lane]).collect();
            all.sort_unstable();
            let differ = all.is_sorted_by(|a, b| a < b);
            let far = all[all.len() - 1] - all[0] >= 128 * 8;
            assert!(spots.are_apart(mask) == differ || differ && far);
            apart += usize::from(spots.are_apart(mask));
        }
        assert!((100..300).contains(&apart), "{apart}");
    }

    #[test]
    fn offsets_that_increase_by_rows_or_columns() {
        let at = |f: fn(u64) -> u64| increase(&Lanes(std::array::from_fn(|lane| f(lane as u64))));
        assert!(at(|lane| 512 * (lane / 4) + 8 * (lane % 4)));
        assert!(at(|lane| 512 * (lane % 4) + 8 * (lane / 4)));
        assert!(!at(|lane| 56 * (lane % 4) + 8 * (lane / 4)));
        assert!(!at(|lane| if lane == 9 { 512 + 8 } else { 512 * (lane % 4) + 8 * (lane / 4) }));
        assert!(!at(|lane| 512 * (lane / 8) + 8 * (lane % 4)));
    }
}
