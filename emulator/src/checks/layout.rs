//! The words that an access of a warp touches, in order, with the lanes that touch each.

use crate::exec::lanes::{LANES, Lanes, Mask, lanes};

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
        // In order of the words: the first one of a lane, and the lane.
        let (mut all, mut count) = ([(0, 0); LANES], 0);
        let mut in_order = true;
        for lane in lanes(mask) {
            let word = (distances.0[lane].cast_signed() / 4) as i32;
            in_order &= count == 0 || all[count - 1].0 <= word;
            all[count] = (word, lane as u32);
            count += 1;
        }
        let all = &mut all[..count];
        if !in_order {
            all.sort_unstable_by_key(|&(word, lane)| i64::from(word) << 32 | i64::from(lane));
        }
        let at_once = match bytes {
            4 => Layout::of_lanes::<1>(all),
            8 => Layout::of_lanes::<2>(all),
            16 => Layout::of_lanes::<4>(all),
            32 => Layout::of_lanes::<8>(all),
            _ => None,
        };
        at_once.or_else(|| Layout::of_words(words(all, (bytes / 4) as u32)))
    }

    /// Of lanes in order of their words, `WIDTH` from the one named on, if those of two of them are all the same or apart.
    fn of_lanes<const WIDTH: usize>(all: &[(i32, u32)]) -> Option<Layout> {
        let (mut places, mut apart) = (0, true);
        let mut runs: Vec<(i32, u32)> = Vec::with_capacity(all.len());
        let mut who = vec![[0; WIDTH]; all.len()];
        let mut before_last = vec![[0; WIDTH]; all.len()];
        // First word and first lane of the last place, and its last lane.
        let mut last = None;
        for &(word, lane) in all {
            match last {
                Some((same, first, before)) if same == word => {
                    apart = false;
                    who[places - 1] = [first << 27 | lane << 22; WIDTH];
                    before_last[places - 1] = [before << 22; WIDTH];
                    last = Some((word, first, lane));
                    continue;
                }
                Some((other, ..)) if word - other < WIDTH as i32 => return None,
                _ => {}
            }
            who[places] = [lane << 27 | lane << 22; WIDTH];
            before_last[places] = [lane << 22; WIDTH];
            places += 1;
            last = Some((word, lane, lane));
            match runs.last_mut() {
                Some((start, count)) if *start + *count as i32 == word => *count += WIDTH as u32,
                _ => runs.push((word, WIDTH as u32)),
            }
        }
        who.truncate(places);
        before_last.truncate(places);
        let (who, before_last) = (who.into_flattened(), before_last.into_flattened());
        Layout::of_runs(runs, who.into(), before_last.into(), apart)
    }

    /// Of words in order, each with a lane that accesses it.
    #[cold]
    fn of_words(words: Vec<(i32, u32)>) -> Option<Layout> {
        let (mut apart, mut runs) = (true, Vec::<(i32, u32)>::new());
        let (mut who, mut before_last) = (Vec::new(), Vec::new());
        for same in words.chunk_by(|a, b| a.0 == b.0) {
            apart &= same.len() == 1;
            who.push(same[0].1 << 27 | same[same.len() - 1].1 << 22);
            before_last.push(same[same.len().saturating_sub(2)].1 << 22);
            match runs.last_mut() {
                Some((start, count)) if *start + *count as i32 == same[0].0 => *count += 1,
                _ => runs.push((same[0].0, 1)),
            }
        }
        Layout::of_runs(runs, who.into(), before_last.into(), apart)
    }

    fn of_runs(
        runs: Vec<(i32, u32)>,
        lanes: Box<[u32]>,
        before_last: Box<[u32]>,
        apart: bool,
    ) -> Option<Layout> {
        let fits = |&step: &u32| runs.iter().all(|run| run.1.is_multiple_of(step));
        let step = [8, 4, 2].into_iter().find(fits).unwrap_or(1);
        let bounds = (runs.first()?.0, runs.last().map(|(first, count)| first + *count as i32)?);
        Some(Layout { runs: runs.into(), lanes, before_last, apart, step, bounds })
    }

    /// The first word, and the one after the last, where the first lane's is `base`.
    #[inline(always)]
    pub(crate) fn span(&self, base: usize) -> (usize, usize) {
        let at = |word: i32| base.wrapping_add_signed(word as isize);
        (at(self.bounds.0), at(self.bounds.1))
    }
}

/// All words that lanes access, so many each from the one named on, in order.
fn words(all: &[(i32, u32)], width: u32) -> Vec<(i32, u32)> {
    let of = |&(word, lane): &(i32, u32)| (0..width as i32).map(move |next| (word + next, lane));
    let mut words: Vec<_> = all.iter().flat_map(of).collect();
    words.sort_unstable();
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::lanes::ALL;
    use crate::random::Random;

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

    #[test]
    fn lane_by_lane_is_word_by_word() {
        let mut random = Random::new(4, 9);
        let mut at_once = 0;
        for round in 0..2000 {
            let bytes = 4 << random.below(4);
            let (range, unit) =
                ([2, 40, 9000][random.below(3)], if round % 4 == 0 { 4 } else { bytes });
            let stride = random.below(3) as u64;
            let at: [u64; LANES] = std::array::from_fn(|lane| match round % 3 {
                0 => (1 << 18) + (lane as u64 / 4 * 64 + lane as u64 % 4 * stride) * unit,
                _ => (1 << 18) + random.below(range) as u64 * unit,
            });
            let mask = if round % 2 == 0 { ALL } else { random.next() as Mask | 1 << 7 };
            let first = at[mask.trailing_zeros() as usize].cast_signed();
            let word = |lane: usize| ((at[lane].cast_signed() - first) / 4) as i32;
            let all: Vec<_> = lanes(mask).map(|lane| (word(lane), lane as u32)).collect();
            let made = layout(|lane| at[lane as usize], mask, bytes);
            assert_eq!(made, Layout::of_words(words(&all, bytes as u32 / 4)), "{at:?} {mask:#x}");
            at_once += usize::from(unit == bytes);
        }
        assert!(at_once > 1000);
    }
}
