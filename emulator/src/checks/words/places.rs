//! The words that an access touches, run by run, with the lanes that touch each.

use super::PC_BITS;
use crate::checks::layout::Layout;
use crate::checks::stretch::Stretch;
use crate::exec::lanes::LANES;

/// The words of an access.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    /// See [`Layout`].
    runs: &'a [(i32, u32)],
    lanes: &'a [u32],
    before_last: &'a [u32],
    pub(super) step: u32,
    /// Word of the first lane.
    base: usize,
}

/// For words that are accessed by one lane each, that one as the only and as the last but one, see [`Layout`].
struct SideBySide {
    lanes: [u32; 8 * LANES],
    before_last: [u32; 8 * LANES],
}

/// Of lanes side by side from the first on that access one, two, four and eight words.
static SIDE_BY_SIDE: [SideBySide; 4] = {
    const NONE: SideBySide = SideBySide { lanes: [0; 8 * LANES], before_last: [0; 8 * LANES] };
    let mut all = [NONE; 4];
    let mut at = 0;
    while at < 4 * 8 * LANES {
        let (shift, word) = (at / (8 * LANES), at % (8 * LANES));
        let lane = (word as u32 >> shift & 31) << PC_BITS;
        (all[shift].lanes[word], all[shift].before_last[word]) = (alone(lane), lane);
        at += 1;
    }
    all
};

impl<'a> Places<'a> {
    #[inline(always)]
    pub(super) fn of(layout: &'a Layout, base: usize) -> Places<'a> {
        let Layout { runs, lanes, before_last, step, .. } = layout;
        Places { runs, lanes, before_last, step: *step, base }
    }

    /// Of lanes side by side, or of one; `run` is its only one.
    pub(super) fn side_by_side(stretch: &Stretch, run: &'a [(i32, u32); 1]) -> Option<Places<'a>> {
        let mask = stretch.mask >> stretch.mask.trailing_zeros();
        let apart = mask != 1 && stretch.stride != stretch.bytes as i32;
        if mask & mask.wrapping_add(1) != 0 || apart {
            return None;
        }
        let shift = (stretch.bytes / 4).trailing_zeros();
        let all = SIDE_BY_SIDE.get(shift as usize).filter(|_| stretch.bytes == 4 << shift)?;
        let count = run[0].1;
        let first = (stretch.mask.trailing_zeros() << shift) as usize;
        let words = first..first + count as usize;
        let (lanes, before_last) = (all.lanes.get(words.clone())?, all.before_last.get(words)?);
        let step = 1 << count.trailing_zeros().min(3);
        let base = stretch.address as usize / 4;
        Some(Places { runs: run, lanes, before_last, step, base })
    }

    #[inline(always)]
    pub(super) fn runs(&self) -> Runs<'a> {
        let Places { runs, lanes, before_last, base, .. } = *self;
        Runs { runs: runs.iter(), lanes, before_last, base }
    }
}

/// Runs as ranges of words, with the lanes of each word. No closures here and below: they would not be compiled for the
/// processor's vectors.
pub(super) struct Runs<'a> {
    runs: std::slice::Iter<'a, (i32, u32)>,
    lanes: &'a [u32],
    before_last: &'a [u32],
    base: usize,
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let &(start, count) = self.runs.next()?;
        let start = self.base.wrapping_add_signed(start as isize);
        let (lanes, rest) = self.lanes.split_at_checked(count as usize)?;
        let (before_last, rest_before) = self.before_last.split_at_checked(count as usize)?;
        (self.lanes, self.before_last) = (rest, rest_before);
        Some(Run { start, end: start.wrapping_add(count as usize), lanes, before_last })
    }
}

/// Words from `start` to before `end`.
pub(super) struct Run<'a> {
    pub(super) start: usize,
    pub(super) end: usize,
    /// See [`Layout`].
    pub(super) lanes: &'a [u32],
    pub(super) before_last: &'a [u32],
}

/// How a lane's access to a word is written down where it is the only one: as the first and the last lane.
#[inline(always)]
pub(super) const fn alone(who: u32) -> u32 {
    let lane = who & 31 << PC_BITS;
    lane | lane << 5
}
