//! One register of a warp: 32 lanes side by side, so that one loop is one operation of the warp.

use std::cell::Cell;

use super::wide::{self, Routine};
use crate::types::Class;

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;

/// A set of lanes, bit i for lane i.
pub(crate) type Mask = u32;

/// Every lane.
pub(crate) const ALL: Mask = u32::MAX;

/// A register of a warp. Aligned so that a vector load of the host never straddles cache lines.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes<T>(pub(crate) [T; LANES]);

impl<T: Copy + Default> Default for Lanes<T> {
    fn default() -> Self {
        Lanes([T::default(); LANES])
    }
}

/// The registers of one warp.
#[derive(Debug, Default)]
pub(crate) struct Registers {
    pub(crate) words: Vec<Lanes<u32>>,
    pub(crate) doubles: Vec<Lanes<u64>>,
    pub(crate) preds: Vec<Mask>,
}

/// The registers of a warp while one instruction works on them: that they are as many as before needs no second look.
pub(crate) struct Files<'r> {
    words: &'r mut [Lanes<u32>],
    doubles: &'r mut [Lanes<u64>],
}

/// What a register file stores per lane.
pub(crate) trait Word: Copy + Default + 'static {
    fn file<'f>(files: &'f Files<'_>) -> &'f [Lanes<Self>];
    fn file_mut<'f>(files: &'f mut Files<'_>) -> &'f mut [Lanes<Self>];
    fn read(regs: &Registers, slot: u32) -> &Lanes<Self>;
    fn slot(regs: &mut Registers, slot: u32) -> &mut Lanes<Self>;
    fn from_u64(bits: u64) -> Self;
    /// `BITS` bits from `shift` on.
    fn bits_at<const BITS: u32>(self, shift: u32) -> u32;
    /// These bits and those of `part` from `shift` on.
    fn or_at(self, part: u32, shift: u32) -> Self;
}

impl Word for u32 {
    #[inline(always)]
    fn file<'f>(files: &'f Files<'_>) -> &'f [Lanes<u32>] {
        files.words
    }
    #[inline(always)]
    fn file_mut<'f>(files: &'f mut Files<'_>) -> &'f mut [Lanes<u32>] {
        files.words
    }
    #[inline(always)]
    fn read(regs: &Registers, slot: u32) -> &Lanes<u32> {
        &regs.words[slot as usize]
    }
    #[inline(always)]
    fn slot(regs: &mut Registers, slot: u32) -> &mut Lanes<u32> {
        &mut regs.words[slot as usize]
    }
    #[inline(always)]
    fn from_u64(bits: u64) -> u32 {
        bits as u32
    }
    #[inline(always)]
    fn bits_at<const BITS: u32>(self, shift: u32) -> u32 {
        self >> shift & (u32::MAX >> (32 - BITS))
    }
    #[inline(always)]
    fn or_at(self, part: u32, shift: u32) -> u32 {
        self | part << shift
    }
}

impl Word for u64 {
    #[inline(always)]
    fn file<'f>(files: &'f Files<'_>) -> &'f [Lanes<u64>] {
        files.doubles
    }
    #[inline(always)]
    fn file_mut<'f>(files: &'f mut Files<'_>) -> &'f mut [Lanes<u64>] {
        files.doubles
    }
    #[inline(always)]
    fn read(regs: &Registers, slot: u32) -> &Lanes<u64> {
        &regs.doubles[slot as usize]
    }
    #[inline(always)]
    fn slot(regs: &mut Registers, slot: u32) -> &mut Lanes<u64> {
        &mut regs.doubles[slot as usize]
    }
    #[inline(always)]
    fn from_u64(bits: u64) -> u64 {
        bits
    }
    #[inline(always)]
    fn bits_at<const BITS: u32>(self, shift: u32) -> u32 {
        (self >> shift) as u32 & (u32::MAX >> (32 - BITS))
    }
    #[inline(always)]
    fn or_at(self, part: u32, shift: u32) -> u64 {
        self | u64::from(part) << shift
    }
}

/// A number as an operation sees it: how it is taken out of a register and put back.
///
/// Narrow values are stored zero-extended, so `put` must leave the upper bits zero.
pub(crate) trait Value: Copy + 'static {
    type Word: Word;
    fn get(word: Self::Word) -> Self;
    fn put(self) -> Self::Word;
}

macro_rules! integer_values {
    ($($t:ty => $w:ty, $u:ty;)*) => {$(
        impl Value for $t {
            type Word = $w;
            #[inline(always)]
            fn get(word: $w) -> $t {
                word as $t
            }
            #[inline(always)]
            fn put(self) -> $w {
                self as $u as $w
            }
        }
    )*};
}

integer_values! {
    u8 => u32, u8;
    i8 => u32, u8;
    u16 => u32, u16;
    i16 => u32, u16;
    u32 => u32, u32;
    i32 => u32, u32;
    u64 => u64, u64;
    i64 => u64, u64;
}

/// The NaN that single-precision operations produce (PTX ISA, "Floating-Point Instructions").
pub(crate) const NAN32: u32 = 0x7fff_ffff;

impl Value for f32 {
    type Word = u32;
    #[inline(always)]
    fn get(word: u32) -> f32 {
        f32::from_bits(word)
    }
    #[inline(always)]
    fn put(self) -> u32 {
        if self.is_nan() { NAN32 } else { self.to_bits() }
    }
}

impl Value for f64 {
    type Word = u64;
    #[inline(always)]
    fn get(word: u64) -> f64 {
        f64::from_bits(word)
    }
    #[inline(always)]
    fn put(self) -> u64 {
        self.to_bits()
    }
}

/// A single-precision number under `.ftz`: subnormals are zero going in and coming out.
#[derive(Clone, Copy)]
pub(crate) struct Ftz(pub(crate) f32);

/// Zero with the sign of `x` if `x` is subnormal.
#[inline(always)]
pub(crate) fn flush(x: f32) -> f32 {
    let bits = x.to_bits();
    if bits & 0x7f80_0000 == 0 { f32::from_bits(bits & 0x8000_0000) } else { x }
}

impl Value for Ftz {
    type Word = u32;
    #[inline(always)]
    fn get(word: u32) -> Ftz {
        Ftz(flush(f32::from_bits(word)))
    }
    #[inline(always)]
    fn put(self) -> u32 {
        flush(self.0).put()
    }
}

impl Registers {
    #[inline(always)]
    pub(crate) fn files(&mut self) -> Files<'_> {
        Files { words: &mut self.words, doubles: &mut self.doubles }
    }

    /// Makes all of them zero.
    pub(crate) fn clear(&mut self) {
        self.words.fill(Lanes::default());
        self.doubles.fill(Lanes::default());
        self.preds.fill(0);
    }

    /// The words, to be filled several at a time.
    #[inline(always)]
    pub(crate) fn cells(&mut self) -> &[Cell<Lanes<u32>>] {
        Cell::from_mut(self.words.as_mut_slice()).as_slice_of_cells()
    }

    /// Writes `out` to the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn write<W: Word>(&mut self, slot: u32, mask: Mask, out: &Lanes<W>) {
        let target = W::slot(self, slot);
        if mask == ALL {
            *target = *out;
        } else {
            merge(target, mask, out);
        }
    }

    /// The predicate at `slot`, negated where `flip` is all ones.
    #[inline(always)]
    pub(crate) fn pred(&self, slot: u32, flip: u32) -> Mask {
        self.preds[slot as usize] ^ flip
    }

    /// Writes a predicate to the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn write_pred(&mut self, slot: u32, mask: Mask, value: Mask) {
        let target = &mut self.preds[slot as usize];
        *target = (*target & !mask) | (value & mask);
    }

    /// Sets one lane of a register.
    pub(crate) fn set_lane(&mut self, class: Class, slot: u32, lane: usize, value: u64) {
        match class {
            Class::Pred => self.write_pred(slot, 1 << lane, if value != 0 { ALL } else { 0 }),
            Class::Word => self.words[slot as usize].0[lane] = value as u32,
            Class::Double => self.doubles[slot as usize].0[lane] = value,
        }
    }

    /// One lane of a register of either file.
    pub(crate) fn lane(&self, class: Class, slot: u32, lane: usize) -> u64 {
        match class {
            Class::Pred => (self.preds[slot as usize] >> lane & 1).into(),
            Class::Word => self.words[slot as usize].0[lane].into(),
            Class::Double => self.doubles[slot as usize].0[lane],
        }
    }
}

/// Copies the lanes of `mask`. Apart from the handlers, which it would make several times as long.
#[inline(never)]
pub(crate) fn merge<W: Word>(target: &mut Lanes<W>, mask: Mask, from: &Lanes<W>) {
    wide::call(Merge { target, mask, from });
}

struct Merge<'a, W> {
    target: &'a mut Lanes<W>,
    mask: Mask,
    from: &'a Lanes<W>,
}

impl<W: Word> Routine for Merge<'_, W> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        // Copies first: what lies apart can be compared with itself only.
        let (old, new) = (*self.target, *self.from);
        let mut out = [W::default(); LANES];
        for lane in 0..LANES {
            let take = self.mask >> lane & 1 != 0;
            out[lane] = if take { new.0[lane] } else { old.0[lane] };
        }
        self.target.0 = out;
    }
}

/// Lanes that are worked on at a time: a vector of the host.
pub(crate) const STEP: usize = 8;

impl Files<'_> {
    /// The part of a register with this number, of as many as there are steps.
    #[inline(always)]
    pub(crate) fn part<W: Word>(&self, slot: u32, number: usize) -> [W; STEP] {
        W::file(self)[slot as usize].0.as_chunks().0[number]
    }

    #[inline(always)]
    pub(crate) fn set_part<W: Word>(&mut self, slot: u32, number: usize, part: [W; STEP]) {
        W::file_mut(self)[slot as usize].0.as_chunks_mut().0[number] = part;
    }
}

/// The lanes of a mask, in order.
#[inline(always)]
pub(crate) fn lanes(mut mask: Mask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let lane = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(lane & (LANES - 1))
    })
}
