//! What a whole warp accesses, checked at once.

/// Code for processors that have what [`vectors`] needs, which is to return; what follows it does the same without.
macro_rules! with_vectors {
    ($($code:tt)*) => {
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        if wide::is_available() {
            $($code)*
        }
    };
}

// After the macro, which it uses.
mod apart;
mod form;
mod kept;

use std::cell;
use std::mem::MaybeUninit;

use form::Facts;
pub(crate) use form::Form;
pub(crate) use kept::Kept;

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use super::vectors;
use super::{Cell, Cells};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, lanes};
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use crate::exec::wide;
use crate::memory::region::spread;

/// A register to be filled, which may be named more than once.
pub(crate) type Register = cell::Cell<Lanes<u32>>;

/// Where each lane of a warp accesses `BYTES` bytes (S1: for every lane `start` and its offset, wrapping, are a multiple of `BYTES`,
/// and at most `len - BYTES`; kept by what makes them here and in [`form`]). Lanes that take no part have such a place too, of no
/// meaning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spots<'o, const BYTES: usize> {
    offsets: &'o Lanes<u64>,
    start: u64,
    len: u64,
    shape: Shape,
    /// What is known besides.
    facts: Option<&'o Facts>,
}

/// How the places of the lanes lie to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One after the other, without gaps, from a multiple of 8 bytes on.
    Straight,
    /// All the same.
    Same,
    /// Every second lane right behind the one before.
    Pairs,
    Any,
}

/// Room for the offsets of a warp's places, which need not be cleared each time.
pub(crate) struct Room(MaybeUninit<Lanes<u64>>);

impl Room {
    #[inline(always)]
    pub(crate) fn new() -> Room {
        Room(MaybeUninit::uninit())
    }

    /// The places at `addresses`, if those of all lanes of `mask` are aligned and lie in the `len` bytes from `base` on.
    #[inline(always)]
    pub(crate) fn place<const BYTES: usize>(
        &mut self,
        addresses: &Lanes<u64>,
        mask: Mask,
        base: u64,
        len: u64,
    ) -> Option<Spots<'_, BYTES>> {
        const { assert!(BYTES.is_power_of_two() && BYTES <= 32) };
        let last = len.checked_sub(BYTES as u64)?;
        let shape = place(addresses, mask, (base, last), BYTES as u64, &mut self.0)?;
        // S1 is what `place` has looked for.
        // SAFETY: it has set them.
        let offsets = unsafe { self.0.assume_init_ref() };
        Some(Spots { offsets, start: 0, len, shape, facts: None })
    }

    /// As [`Room::place`], each lane's place in a part of its own: lane l's part begins at `l * pitch`.
    #[inline(always)]
    pub(crate) fn place_apart<const BYTES: usize>(
        &mut self,
        addresses: &Lanes<u64>,
        mask: Mask,
        base: u64,
        pitch: u64,
    ) -> Option<Spots<'_, BYTES>> {
        if !pitch.is_multiple_of(32) || pitch >= 1 << 56 {
            return None;
        }
        let last = pitch.checked_sub(BYTES as u64)?;
        place(addresses, mask, (base, last), BYTES as u64, &mut self.0)?;
        // Offset l * pitch + o is a multiple as both are, and l * pitch + o + BYTES <= (l + 1) * pitch <= 32 * pitch: S1.
        // SAFETY: `place` has set them.
        let offsets = unsafe { self.0.assume_init_mut() };
        for lane in 0..LANES {
            offsets.0[lane] += lane as u64 * pitch;
        }
        let shape = Shape::of(offsets, BYTES as u64);
        Some(Spots { offsets, start: 0, len: LANES as u64 * pitch, shape, facts: None })
    }
}

impl<const BYTES: usize> Spots<'_, BYTES> {
    /// The first byte of any lane and the one after the last, if they are known at once.
    #[inline(always)]
    pub(crate) fn span(&self) -> Option<(usize, usize)> {
        let first = self.start.wrapping_add(self.offsets.0[0]) as usize;
        match (self.facts, self.shape) {
            (Some(facts), _) => {
                let (low, high) = (self.start - facts.below, self.start + facts.above);
                Some((low as usize, high as usize + BYTES))
            }
            (None, Shape::Straight) => Some((first, first + LANES * BYTES)),
            (None, Shape::Same) => Some((first, first + BYTES)),
            (None, Shape::Pairs | Shape::Any) => None,
        }
    }

    /// Whether no two lanes of `mask`, those that take part, share a byte; may say no where they do not.
    #[inline(always)]
    pub(crate) fn are_apart(&self, mask: Mask) -> bool {
        if let Some(facts) = self.facts {
            return facts.apart;
        }
        match self.shape {
            Shape::Straight => true,
            Shape::Same => mask & mask.wrapping_sub(1) == 0,
            Shape::Pairs | Shape::Any => apart::are_apart(self.offsets, mask, BYTES.ilog2()),
        }
    }
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

/// The places of a warp in some cells. Given by value to what works on them lane by lane, as they need not be in memory otherwise. (S2: `spots.len` is at most the length of `cells`; made in [`Cells::at`] only).
#[derive(Clone, Copy)]
pub(crate) struct Places<'c, 'o, const BYTES: usize> {
    cells: &'c Cells,
    spots: Spots<'o, BYTES>,
}

impl Cells {
    /// Panics where places may lie outside of the bytes: callers make them for the length that these have, so that is our own bug.
    #[inline(always)]
    pub(crate) fn at<'c, 'o, const BYTES: usize>(
        &'c self,
        spots: Spots<'o, BYTES>,
    ) -> Places<'c, 'o, BYTES> {
        assert!(spots.len <= self.len as u64, "places for other cells");
        Places { cells: self, spots }
    }
}

impl<'o, const BYTES: usize> Places<'_, 'o, BYTES> {
    /// Points to `BYTES` valid bytes, aligned to them (to 8 where they are more).
    #[inline(always)]
    fn pointer(&self, lane: usize) -> *mut u8 {
        self.base().wrapping_add(self.offsets()[lane] as usize)
    }

    /// What the offsets are counted from: with each of them, wrapping, it points to `BYTES` valid bytes, by S1 and S2 inside of the
    /// allocation of the cells (C1). By itself it may point to none.
    #[inline(always)]
    fn base(&self) -> *mut u8 {
        self.cells.start.as_ptr().wrapping_add(self.spots.start as usize)
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

    /// Whether every second lane lies right behind the one before.
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    #[inline(always)]
    fn in_pairs(&self) -> bool {
        matches!(self.spots.shape, Shape::Straight | Shape::Pairs)
    }

    #[inline(always)]
    fn offsets(&self) -> &'o [u64; LANES] {
        &self.spots.offsets.0
    }

    /// The places of eight lanes, from a multiple of 8 on.
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    #[inline(always)]
    fn eight(&self, first: usize) -> &'o [u64; 8] {
        &self.offsets().as_chunks().0[first / 8 % (LANES / 8)]
    }

    /// Copies out what lies at each place, in words; of fewer than four bytes the upper ones become zero. Of words for the same
    /// register, the last stays.
    #[inline(always)]
    pub(crate) fn load<const WORDS: usize>(&self, out: [&Register; WORDS]) {
        const { assert!(WORDS == BYTES.div_ceil(4)) };
        if self.spots.shape == Shape::Same {
            let words: [u32; WORDS] = self.load_lane(0);
            for word in 0..WORDS {
                out[word].set(Lanes([words[word]; LANES]));
            }
            return;
        }
        with_vectors! {
            let (base, offsets) = (self.base(), self.offsets());
            // SAFETY: AVX2 is there. By S1, S2 and C1 there are `BYTES` bytes at every offset; and 32 times `BYTES` from the
            // first offset on where the shape is straight.
            unsafe {
                let word = |index: usize| out[index % WORDS];
                match BYTES {
                    4 => {
                        let straight = self.spots.shape == Shape::Straight;
                        return vectors::load_words(base, offsets, straight, word(0));
                    }
                    8 => return vectors::load_pairs(base, offsets, [word(0), word(1)]),
                    16 => {
                        let registers = [word(0), word(1), word(2), word(3)];
                        return vectors::load_quads(base, offsets, registers);
                    }
                    _ => {}
                }
            }
        }
        self.load_slowly(out);
    }

    /// As [`Places::load`], lane by lane.
    #[inline(never)]
    fn load_slowly<const WORDS: usize>(self, out: [&Register; WORDS]) {
        let mut words = [Lanes([0; LANES]); WORDS];
        for lane in 0..LANES {
            let loaded: [u32; WORDS] = self.load_lane(lane);
            for word in 0..WORDS {
                words[word].0[lane] = loaded[word];
            }
        }
        for word in 0..WORDS {
            out[word].set(words[word]);
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
                // SAFETY: AVX2 is there; by S1, S2 and C1 there are `BYTES` bytes at every offset, and where lanes come in
                // pairs as many behind those of every even one.
                unsafe {
                    if self.in_pairs() && first.is_multiple_of(2) {
                        vectors::load_row_pairs(self.base(), offsets, rows);
                    } else {
                        vectors::load_rows_apart(self.base(), offsets, rows);
                    }
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
    pub(crate) fn load_matrices(&self, registers: [&Register; 4]) {
        const { assert!(BYTES == 16) };
        with_vectors! {
            // SAFETY: AVX2 is there; by S1, S2 and C1 there are `BYTES` bytes at every offset.
            unsafe { vectors::load_matrices(self.base(), self.offsets(), registers) };
            return;
        }
        for (index, register) in registers.into_iter().enumerate() {
            let mut out = Lanes([0; LANES]);
            for (row, words) in out.0.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *words = self.load_lane(8 * index + row);
            }
            register.set(out);
        }
    }

    /// Stores the rows of the lanes of `mask`, in order.
    #[inline(always)]
    pub(crate) fn store_rows<const WORDS: usize>(&self, mask: Mask, rows: &[[u32; 4]; LANES]) {
        with_vectors! {
            if BYTES == 16 && mask == ALL {
                // SAFETY: as in `load_rows`.
                unsafe {
                    if self.in_pairs() {
                        vectors::store_row_pairs(self.base(), self.offsets(), rows);
                    } else {
                        vectors::store_rows(self.base(), self.offsets(), rows);
                    }
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
                let base = self.base();
                for first in (0..LANES).step_by(8) {
                    // SAFETY: AVX2 is there. By S1, S2 and C1 there are `BYTES` bytes at every offset; and 32 times
                    // `BYTES` from the first offset on where the shape is straight.
                    unsafe {
                        let column = |word: usize| vectors::take(words[word % WORDS], first);
                        match BYTES {
                            4 => vectors::store(base, self.offsets()[0].wrapping_add(4 * first as u64), column(0)),
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
            let base = self.base();
            for (&offset, &word) in self.offsets().iter().zip(&words[0].0) {
                // SAFETY: as for `pointer`.
                unsafe { u32::store(base.wrapping_add(offset as usize), word) };
            }
            return;
        }
        self.store_slowly(mask, words);
    }

    /// As [`Places::store`], lane by lane.
    #[inline(never)]
    fn store_slowly<const WORDS: usize>(self, mask: Mask, words: [&Lanes<u32>; WORDS]) {
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
    fn equal_lanes(self, of: u8, want: u8) -> Mask {
        let equals = |lane: usize| u32::from(self.lane_equals(lane, of, want));
        (0..LANES).fold(0, |equal, lane| equal | equals(lane) << lane)
    }

    /// The bits in which any eight bytes of any lane differ from those with `want` in each.
    #[inline(always)]
    fn differing(&self, want: u8) -> u64 {
        with_vectors! {
            if BYTES >= 4 {
                let (base, offsets, shape) = (self.base(), self.offsets(), self.spots.shape);
                // SAFETY: AVX2 is there; by S1, S2 and C1 there are `BYTES` bytes at every offset, which lie in this shape.
                return unsafe { vectors::differing::<BYTES>(base, offsets, shape, want) };
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
                    let (base, offset) = (self.base(), self.offsets()[0].wrapping_add(32 * step));
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
                // SAFETY: as in `load_rows`.
                unsafe { vectors::fill_rows(self.base(), self.offsets(), self.in_pairs(), byte) };
                return;
            }
        }
        if mask != ALL {
            for lane in lanes(mask) {
                self.fill_lane(lane, byte);
            }
            return;
        }
        let (base, bytes) = (self.base(), spread(byte));
        for &offset in self.offsets() {
            // SAFETY: as for `pointer`.
            unsafe {
                let at = base.wrapping_add(offset as usize);
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
