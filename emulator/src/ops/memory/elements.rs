//! What loads and stores move between memory and registers.

use std::cell::Cell;

use crate::exec::inst::Inst;
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, Registers};
use crate::exec::wide::{self, Routine};
use crate::memory::access::Perform;
use crate::memory::cells::spots::Spots;
use crate::memory::region::Region;
use crate::types::Space;

/// What an instruction accesses, packed into [`Inst::m`] and [`Inst::p`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Elements {
    pub(super) space: Space,
    /// Bytes of one element, 1 to 8.
    pub(super) bytes: u32,
    /// Whether a load extends it with its sign.
    pub(super) signed: bool,
    /// Bits of the registers.
    pub(super) register: u32,
}

impl Elements {
    pub(super) fn pack(self, inst: &mut Inst) {
        inst.m = SPACES.iter().position(|&s| s == self.space).unwrap_or(0) as u32;
        let wordwise = if self.are_words(inst.list.len()) { WORDWISE } else { 0 };
        inst.p = self.bytes | u32::from(self.signed) << 8 | self.register << 16 | wordwise;
    }

    #[inline(always)]
    pub(super) fn of(inst: &Inst) -> Elements {
        let space = SPACES[inst.m as usize % SPACES.len()];
        let (bytes, signed, register) = (inst.p & 0xff, inst.p >> 8 & 1 != 0, inst.p >> 16 & 0xff);
        Elements { space, bytes, signed, register }
    }

    /// Whether registers are filled with words of memory as they are.
    fn are_words(self, count: usize) -> bool {
        self.register <= 32 && (self.bytes == 4 || self.bytes < 4 && count == 1 && !self.signed)
    }
}

/// Flag in [`Inst::p`]: [`Elements::are_words`].
pub(super) const WORDWISE: u32 = 1 << 31;

/// The spaces that [`Elements`] can name; a power of two of them, which saves a division.
const SPACES: [Space; 8] = [
    Space::Global,
    Space::Shared,
    Space::Local,
    Space::Param,
    Space::Generic,
    Space::Generic,
    Space::Generic,
    Space::Generic,
];

/// Loads into the registers that an instruction names.
pub(super) struct Loading<'a, const BYTES: usize, const WORDS: usize> {
    pub(super) inst: &'a Inst,
    pub(super) mask: Mask,
}

impl<const BYTES: usize, const WORDS: usize> Perform<BYTES> for Loading<'_, BYTES, WORDS> {
    #[inline(always)]
    fn perform(self, regs: &mut Registers, region: &Region, spots: Spots<'_, BYTES>) -> Mask {
        let Loading { inst, mask } = self;
        if mask != ALL || !load_straight::<BYTES, WORDS>(regs, inst, region, spots) {
            load_apart::<BYTES, WORDS>(regs, (inst, mask), region, spots);
        }
        0
    }
}

/// As [`Loading`], for registers that are not filled as they are.
#[inline(never)]
fn load_apart<const BYTES: usize, const WORDS: usize>(
    regs: &mut Registers,
    (inst, mask): (&Inst, Mask),
    region: &Region,
    spots: Spots<'_, BYTES>,
) {
    let mut words = [Lanes([0; LANES]); WORDS];
    region.data.at(spots).load(words.each_mut().map(Cell::from_mut));
    deliver(regs, inst, mask, &words);
}

/// As [`Loading`], if the registers are filled with words of memory as they are.
#[inline(always)]
fn load_straight<const BYTES: usize, const WORDS: usize>(
    regs: &mut Registers,
    inst: &Inst,
    region: &Region,
    spots: Spots<'_, BYTES>,
) -> bool {
    if inst.p & WORDWISE == 0 {
        return false;
    }
    let Ok(slots) = <[u32; WORDS]>::try_from(&*inst.list) else { return false };
    let cells = regs.cells();
    let mut out = [&cells[slots[0] as usize]; WORDS];
    for word in 1..WORDS {
        out[word] = &cells[slots[word] as usize];
    }
    region.data.at(spots).load(out);
    true
}

/// Puts what was loaded into the registers that an instruction names.
#[inline(never)]
pub(super) fn deliver(regs: &mut Registers, inst: &Inst, mask: Mask, words: &[Lanes<u32>]) {
    if inst.p & WORDWISE != 0 {
        for (&slot, words) in inst.list.iter().zip(words) {
            regs.write(slot, mask, words);
        }
    } else {
        wide::call(Deliver { regs, inst, mask, words });
    }
}

/// Takes elements out of words and puts them, extended, into registers.
struct Deliver<'a> {
    regs: &'a mut Registers,
    inst: &'a Inst,
    mask: Mask,
    words: &'a [Lanes<u32>],
}

impl Routine for Deliver<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let Deliver { regs, inst, mask, words } = self;
        let Elements { bytes, signed, register, .. } = Elements::of(inst);
        // There are 1, 2, 4 or 8 words, and to divide by their number would take longer than all else here.
        let (unused, last) = (64 - 8 * bytes, words.len() - 1);
        for (index, &slot) in inst.list.iter().enumerate() {
            let first = index * bytes as usize;
            let low = &words[(first / 4) & last];
            // The upper half of an element of eight bytes; else what is shifted out again.
            let high = &words[(first / 4 + 1) & last];
            let shift = 8 * (first as u32 % 4);
            let mut out = Lanes([0; LANES]);
            for lane in 0..LANES {
                let both = u64::from(low.0[lane]) | u64::from(high.0[lane]) << 32;
                let top = both >> shift << unused;
                let value = if signed { (top as i64 >> unused) as u64 } else { top >> unused };
                out.0[lane] = value & u64::MAX >> (64 - register);
            }
            if register == 64 {
                regs.write(slot, mask, &out);
            } else {
                regs.write(slot, mask, &Lanes(out.0.map(|value| value as u32)));
            }
        }
    }
}

/// Puts registers into the words that a store writes: the inverse of [`Deliver`].
struct Collect<'a> {
    regs: &'a Registers,
    inst: &'a Inst,
    words: &'a mut [Lanes<u32>],
}

impl Routine for Collect<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let Collect { regs, inst, words } = self;
        let Elements { bytes, register, .. } = Elements::of(inst);
        let (last, keep) = (words.len() - 1, u64::MAX >> (64 - 8 * bytes));
        for (index, &slot) in inst.list.iter().enumerate() {
            let first = index * bytes as usize;
            let shift = 8 * (first as u32 % 4);
            for lane in 0..LANES {
                let value = match register {
                    64 => regs.doubles[slot as usize].0[lane],
                    _ => regs.words[slot as usize].0[lane].into(),
                };
                let value = (value & keep) << shift;
                words[(first / 4) & last].0[lane] |= value as u32;
                if bytes == 8 {
                    words[(first / 4 + 1) & last].0[lane] |= (value >> 32) as u32;
                }
            }
        }
    }
}

/// The words that a store writes: registers as they are, or else `collected`.
#[inline(always)]
pub(super) fn words_of<'a, const WORDS: usize>(
    regs: &'a Registers,
    inst: &Inst,
    collected: &'a mut [Lanes<u32>; WORDS],
) -> [&'a Lanes<u32>; WORDS] {
    if inst.p & WORDWISE != 0 && inst.list.len() == WORDS {
        return std::array::from_fn(|word| &regs.words[inst.list[word] as usize]);
    }
    *collected = [Lanes([0; LANES]); WORDS];
    wide::call(Collect { regs, inst, words: collected });
    collected.each_ref()
}

/// Stores the registers that an instruction names. Gives the lanes whose store leaves every byte as it was, if they are to be
/// compared.
pub(super) struct Storing<'a, const BYTES: usize, const WORDS: usize> {
    pub(super) inst: &'a Inst,
    pub(super) mask: Mask,
    pub(super) compared: bool,
}

impl<const BYTES: usize, const WORDS: usize> Perform<BYTES> for Storing<'_, BYTES, WORDS> {
    #[inline(always)]
    fn perform(self, regs: &mut Registers, region: &Region, spots: Spots<'_, BYTES>) -> Mask {
        let Storing { inst, mask, compared } = self;
        let mut collected = [Lanes([0; LANES]); WORDS];
        let words = words_of(regs, inst, &mut collected);
        if compared {
            return region.store_spots_compared(spots, mask, words);
        }
        region.store_spots(spots, mask, words);
        0
    }
}
