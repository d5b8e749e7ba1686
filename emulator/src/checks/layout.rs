//! The words that an access of a warp touches, in order, with the lanes that touch each.

use crate::exec::lanes::{Lanes, Mask, lanes};

/// Bytes between the first lane and any other; accesses that are more spread have no layout.
const MOST: i64 = 1 << 20;

/// The words that lanes access, relative to that of the first lane of the mask.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Words without a gap: the first, and how many. In order, and apart from each other.
    pub(crate) runs: Box<[(i32, u32)]>,
    /// For each word, its first lane (from bit 27) and its last one (from bit 22).
    pub(crate) lanes: Box<[u32]>,
    /// For each word, the last lane but one (from bit 22), or the only one.
    pub(crate) before_last: Box<[u32]>,
    /// Whether no word is accessed by two lanes.
    pub(crate) apart: bool,
    /// Every run has a multiple of so many words.
    pub(crate) step: u32,
    /// The first word, and the one after the last.
    bounds: (i32, i32),
}

impl Layout {
    /// Of lanes at these distances, `bytes` each; for whole words only.
    pub(crate) fn new(
        distances: &Lanes<u64>,
        mask: Mask,
        bytes: u64,
        span: (i64, i64),
    ) -> Option<Layout> {
        if !bytes.is_multiple_of(4) || bytes == 0 || span.0 < -MOST || span.1 > MOST || mask == 0 {
            return None;
        }
        let mut words = Vec::new();
        for lane in lanes(mask) {
            let first = (distances.0[lane].cast_signed() / 4) as i32;
            words.extend((0..bytes as i32 / 4).map(|word| (first + word, lane as u32)));
        }
        words.sort_unstable();
        let (mut apart, mut runs) = (true, Vec::<(i32, u32)>::new());
        let (mut who, mut before_last) = (Vec::new(), Vec::new());
        for same in words.chunk_by(|a, b| a.0 == b.0) {
            let (word, first) = same[0];
            apart &= same.len() == 1;
            who.push(first << 27 | same[same.len() - 1].1 << 22);
            before_last.push(same[same.len().saturating_sub(2)].1 << 22);
            match runs.last_mut() {
                Some((start, count)) if *start + *count as i32 == word => *count += 1,
                _ => runs.push((word, 1)),
            }
        }
        let fits = |&step: &u32| runs.iter().all(|run| run.1.is_multiple_of(step));
        let step = [8, 4, 2].into_iter().find(fits).unwrap_or(1);
        let bounds = (runs.first()?.0, runs.last().map(|(first, count)| first + *count as i32)?);
        let (lanes, before_last) = (who.into(), before_last.into());
        Some(Layout { runs: runs.into(), lanes, before_last, apart, step, bounds })
    }

    /// The first word, and the one after the last, where the first lane's is `base`.
    #[inline(always)]
    pub(crate) fn span(&self, base: usize) -> (usize, usize) {
        let at = |word: i32| base.wrapping_add_signed(word as isize);
        (at(self.bounds.0), at(self.bounds.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::lanes::ALL;

    fn layout(at: impl Fn(u64) -> u64, mask: Mask, bytes: u64) -> Option<Layout> {
        let base = at(mask.trailing_zeros().into());
        let distances = Lanes(std::array::from_fn(|lane| at(lane as u64).wrapping_sub(base)));
        let all = || lanes(mask).map(|lane| distances.0[lane].cast_signed());
        let span = (all().min()?, all().max()?);
        Layout::new(&distances, mask, bytes, span)
    }

    #[test]
    fn words_come_in_order_with_their_lanes() {
        let straight = layout(|lane| 4096 + 4 * lane, ALL, 4).unwrap();
        assert_eq!((&*straight.runs, straight.apart, straight.step), (&[(0, 32)][..], true, 8));
        assert!((0..32).all(|lane| straight.lanes[lane as usize] == lane << 27 | lane << 22));
        let same = layout(|_| 4096, 0xf0, 16).unwrap();
        assert_eq!((&*same.runs, same.apart, same.step), (&[(0, 4)][..], false, 4));
        assert_eq!(*same.lanes, [4 << 27 | 7 << 22; 4]);
        let backwards = layout(|lane| 8192 - 64 * lane, 0b111, 8).unwrap();
        assert_eq!((&*backwards.runs, backwards.step), (&[(-32, 2), (-16, 2), (0, 2)][..], 2));
        assert_eq!(backwards.lanes[0], 2 << 27 | 2 << 22);
        let overlapping = layout(|lane| 4 * lane, 0b11, 8);
        assert_eq!(overlapping.map(|l| l.lanes.len()), Some(3));
        assert_eq!(layout(|lane| lane << 20, ALL, 4), None);
        assert_eq!(layout(|lane| 2 * lane, ALL, 2), None);
    }
}
