//! The addresses of one access of a warp as stretches: lanes at a constant distance from each other.

use crate::exec::lanes::{ALL, LANES, Lanes, Mask, lanes};

/// Bytes of a page, the unit in which accesses are looked up.
pub(crate) const PAGE: u64 = 4096;

/// Lanes, in order, whose addresses are a constant distance apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Of the first lane.
    pub(crate) address: u64,
    pub(crate) mask: Mask,
    /// From lane to lane, less than a page either way.
    pub(crate) stride: i32,
    /// Bytes that each lane accesses.
    pub(crate) bytes: u32,
}

impl Stretch {
    /// Address of the lane at a place among those of the mask.
    pub(crate) fn at(&self, place: u32) -> u64 {
        self.address.wrapping_add_signed(i64::from(self.stride) * i64::from(place))
    }

    /// Whether these are its addresses.
    pub(crate) fn is(&self, at: &Lanes<u64>) -> bool {
        (0..).zip(lanes(self.mask)).all(|(place, lane)| self.at(place) == at.0[lane])
    }

    /// First byte and the one after the last.
    #[inline(always)]
    pub(crate) fn bounds(&self) -> (u64, u64) {
        let last = self.at(self.mask.count_ones() - 1);
        (self.address.min(last), self.address.max(last) + u64::from(self.bytes))
    }

    /// The pages that it touches.
    #[inline(always)]
    pub(crate) fn pages(&self, mut each: impl FnMut(u64)) {
        let (first, end) = self.bounds();
        // Distances are below a page, so no page in between is left out.
        (first / PAGE..=(end - 1) / PAGE).for_each(&mut each);
    }

    /// What of it lies in a page, as offsets into it.
    pub(crate) fn within(&self, page: u64) -> Option<Stretch> {
        let start = page * PAGE;
        if self.mask.count_ones() == 1 {
            let (first, end) = self.bounds();
            let (first, end) = (first.max(start), end.min(start + PAGE));
            let address = first.wrapping_sub(start);
            let bytes = end.checked_sub(first)? as u32;
            return (bytes > 0).then_some(Stretch { address, bytes, ..*self });
        }
        let mut part = Stretch { mask: 0, ..*self };
        for (place, lane) in (0..).zip(lanes(self.mask)) {
            let offset = self.at(place).wrapping_sub(start);
            if offset < PAGE {
                part.address = if part.mask == 0 { offset } else { part.address };
                part.mask |= 1 << lane;
            }
        }
        (part.mask != 0).then_some(part)
    }

    /// Lanes of this and of another that access one byte, with the first such address; pairs in order.
    pub(crate) fn meets(&self, other: &Stretch) -> impl Iterator<Item = (usize, usize, u64)> {
        let (mine, theirs) = (*self, *other);
        let (first, end) = mine.bounds();
        let (other_first, other_end) = theirs.bounds();
        let apart = end <= other_first || other_end <= first;
        let mask = if apart { 0 } else { mine.mask };
        (0..).zip(lanes(mask)).flat_map(move |(place, lane)| {
            let at = mine.at(place);
            let meets = move |&(place, _): &(u32, usize)| {
                let there = theirs.at(place);
                at < there + u64::from(theirs.bytes) && there < at + u64::from(mine.bytes)
            };
            let pair = move |(place, other)| (lane, other, at.max(theirs.at(place)));
            (0..).zip(lanes(theirs.mask)).filter(meets).map(pair)
        })
    }
}

/// Splits an access of a warp, `bytes` a lane, into stretches.
#[inline(always)]
pub(crate) fn stretches(at: &Lanes<u64>, mask: Mask, bytes: u64, mut each: impl FnMut(Stretch)) {
    const PART: usize = 8;
    if mask == ALL {
        // The usual case: lanes side by side, all of them or in rows of a multiple of eight.
        let mut steps = 0;
        for part in 0..LANES / PART {
            for lane in part * PART + 1..(part + 1) * PART {
                steps += usize::from(at.0[lane].wrapping_sub(at.0[lane - 1]) == bytes);
            }
        }
        if steps == LANES - LANES / PART {
            let mut start = 0;
            for end in (PART..=LANES).step_by(PART) {
                if end < LANES && at.0[end].wrapping_sub(at.0[end - 1]) == bytes {
                    continue;
                }
                let mask = ALL >> (LANES - (end - start)) << start;
                each(Stretch {
                    address: at.0[start],
                    mask,
                    stride: bytes as i32,
                    bytes: bytes as u32,
                });
                start = end;
            }
            return;
        }
    }
    scattered(at, mask, bytes, &mut each);
}

#[inline(never)]
fn scattered(at: &Lanes<u64>, mask: Mask, bytes: u64, each: &mut dyn FnMut(Stretch)) {
    let mut current: Option<(Stretch, u64)> = None;
    for lane in lanes(mask) {
        let address = at.0[lane];
        if let Some((stretch, last)) = &mut current {
            let step = address.wrapping_sub(*last).cast_signed();
            let single = stretch.mask.count_ones() == 1;
            if single && step.unsigned_abs() < PAGE {
                stretch.stride = step as i32;
            }
            if step == i64::from(stretch.stride) && (!single || step.unsigned_abs() < PAGE) {
                stretch.mask |= 1 << lane;
                *last = address;
                continue;
            }
            each(*stretch);
        }
        let stretch = Stretch { address, mask: 1 << lane, stride: 0, bytes: bytes as u32 };
        current = Some((stretch, address));
    }
    if let Some((stretch, _)) = current {
        each(stretch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(at: impl Fn(u64) -> u64, mask: Mask, bytes: u64) -> Vec<Stretch> {
        let at = Lanes(std::array::from_fn(|lane| at(lane as u64)));
        let mut all = Vec::new();
        stretches(&at, mask, bytes, |stretch| all.push(stretch));
        all
    }

    #[test]
    fn rows_strides_and_single_addresses() {
        assert_eq!(split(|l| 4096 + 16 * l, ALL, 16).len(), 1);
        let rows = split(|l| 4096 + 16 * (l % 16) + 2048 * (l / 16), ALL, 16);
        assert_eq!(rows.iter().map(|s| s.mask).collect::<Vec<_>>(), [0xffff, 0xffff_0000]);
        assert_eq!(rows[1].address, 4096 + 2048);
        let spread = split(|l| 8192 - 64 * l, ALL, 4);
        assert_eq!((spread.len(), spread[0].stride), (1, -64));
        assert_eq!(spread[0].bounds(), (8192 - 64 * 31, 8196));
        assert_eq!(split(|_| 64, 0x8000_0001, 4)[0].mask, 0x8000_0001);
        assert_eq!(split(|l| l * PAGE, 0b111, 4).len(), 3);
        assert_eq!(split(|l| 4 * l, 0, 4), []);
    }

    #[test]
    fn every_lane_is_in_one_stretch_at_its_address() {
        let mut random = crate::random::Random::new(5, 0);
        for _ in 0..300 {
            let range = [3, 40, 5000, 1 << 30][random.below(4)];
            let at: [u64; LANES] = std::array::from_fn(|_| 8 * random.below(range) as u64);
            let mask = random.next() as Mask;
            let mut seen = 0;
            for stretch in split(|l| at[l as usize], mask, 8) {
                for (place, lane) in (0..).zip(lanes(stretch.mask)) {
                    assert_eq!(stretch.at(place), at[lane]);
                }
                assert_eq!(seen & stretch.mask, 0);
                seen |= stretch.mask;
            }
            assert_eq!(seen, mask);
        }
    }

    #[test]
    fn pages_cut_stretches() {
        let rows = Stretch { address: PAGE - 32, mask: 0xff, stride: 16, bytes: 16 };
        let (first, second) = (rows.within(0).unwrap(), rows.within(1).unwrap());
        assert_eq!((first.address, first.mask), (PAGE - 32, 0b11));
        assert_eq!((second.address, second.mask), (0, 0xfc));
        let long = Stretch { address: 100, mask: 4, stride: 0, bytes: 9000 };
        let parts: Vec<_> = (0..4).map(|p| long.within(p).map(|s| (s.address, s.bytes))).collect();
        assert_eq!(parts, [Some((100, 3996)), Some((0, 4096)), Some((0, 908)), None]);
    }

    #[test]
    fn stretches_meet_where_lanes_share_a_byte() {
        let every =
            |start: u64, stride: i32, bytes| Stretch { address: start, mask: ALL, stride, bytes };
        assert_eq!(every(0, 8, 4).meets(&every(4, 8, 4)).count(), 0);
        assert_eq!(every(0, 8, 8).meets(&every(4, 8, 4)).next(), Some((0, 0, 4)));
        assert_eq!(every(0, 4, 4).meets(&every(124, 4, 4)).collect::<Vec<_>>(), [(31, 0, 124)]);
        assert_eq!(every(0, 4, 4).meets(&every(128, 4, 4)).count(), 0);
        assert_eq!(every(0, 4, 4).meets(&every(64, 0, 1)).count(), 32);
    }
}
