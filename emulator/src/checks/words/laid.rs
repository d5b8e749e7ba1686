//! The usual accesses, many words at a time: of warps whose lanes all know the same, to words whose last accesses all come
//! before.

use super::{
    ATOMIC, Access, COPIED, MIXED, PC_BITS, PC_MASK, Records, STRONG, Stamp, WHOLE, Words,
};
use crate::checks::layout::Layout;
use crate::checks::order::{LAST_CLOCK, Order};
use crate::exec::lanes::{ALL, Mask};
use crate::exec::wide::{self, Routine};

/// What an access is compared with: clocks as the least stamps that are too late.
#[derive(Clone, Copy)]
struct Limits {
    /// For what any warp of the CTA, the own warp and the agent of copies have done.
    all: u32,
    own: u32,
    agent: u32,
}

/// The first stamp of a clock that is later.
fn after(clock: u32) -> u32 {
    clock.saturating_add(1).min(LAST_CLOCK) << 9
}

impl Words {
    /// Checks and remembers an access to the words of a layout from word `base` on, if that can be done at once; otherwise
    /// does nothing. Of a write, only the words of the lanes of `mask` are.
    #[inline(always)]
    pub(crate) fn laid_out(
        &mut self,
        order: &Order,
        access: Access,
        layout: &Layout,
        (base, mask): (usize, Mask),
    ) -> bool {
        if !order.is_uniform(access.warp)
            || access.writes && !layout.apart
            || order.clock(access.warp) == LAST_CLOCK
            || access.pc > PC_MASK
        {
            return false;
        }
        match layout.step {
            8 => wide::call(Laid::<8> { words: self, order, access, layout, base, mask }),
            4 => wide::call(Laid::<4> { words: self, order, access, layout, base, mask }),
            2 => wide::call(Laid::<2> { words: self, order, access, layout, base, mask }),
            _ => wide::call(Laid::<1> { words: self, order, access, layout, base, mask }),
        }
    }
}

struct Laid<'a, const STEP: usize> {
    words: &'a mut Words,
    order: &'a Order,
    access: Access,
    layout: &'a Layout,
    base: usize,
    mask: Mask,
}

impl<const STEP: usize> Routine for Laid<'_, STEP> {
    type Out = bool;

    #[inline(always)]
    fn run(mut self) -> bool {
        let Laid { order, access, .. } = self;
        let seen = order.seen(access.warp, 0);
        let limits = Limits {
            all: after(order.least(access.warp, 0)),
            own: after(seen[access.warp as usize].floor()),
            agent: after(seen[order.agent() as usize].floor()),
        };
        let stamp = Stamp::new(order.clock(access.warp), 15, access);
        if access.writes { self.write(limits, stamp) } else { self.read(limits, stamp) }
    }
}

/// The runs of a layout as ranges of words, with the lanes of each word. No closures here and below: they would not be
/// compiled for the processor's vectors.
struct Runs<'a> {
    runs: std::slice::Iter<'a, (i32, u32)>,
    lanes: &'a [u32],
    before_last: &'a [u32],
    base: usize,
}

impl<'a> Runs<'a> {
    #[inline(always)]
    fn of(layout: &'a Layout, base: usize) -> Runs<'a> {
        let Layout { runs, lanes, before_last, .. } = layout;
        Runs { runs: runs.iter(), lanes, before_last, base }
    }
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
struct Run<'a> {
    start: usize,
    end: usize,
    /// See [`Layout`].
    lanes: &'a [u32],
    before_last: &'a [u32],
}

/// How a lane's access to a word is written down where it is the only one: as the first and the last lane.
#[inline(always)]
fn alone(who: u32) -> u32 {
    let lane = who & 31 << PC_BITS;
    lane | lane << 5
}

/// Whether no stamp is of a limit or beyond, or has a flag.
#[inline(always)]
fn are_before<const STEP: usize>(when: &[Stamp], limit: u32, flag: u32) -> bool {
    let mut late = [0; STEP];
    for when in when.as_chunks::<STEP>().0 {
        for index in 0..STEP {
            late[index] |= u32::from(when[index].0 >= limit) | when[index].0 & flag;
        }
    }
    late == [0; STEP]
}

impl<const STEP: usize> Laid<'_, STEP> {
    /// Whether the last writes of all words come before.
    #[inline(always)]
    fn are_after_writes(&self, limits: Limits) -> bool {
        let Records { when, who, low, high } = &self.words.writes;
        for Run { start, end, lanes, .. } in Runs::of(self.layout, self.base) {
            if *low >= end || *high <= start {
                continue;
            }
            let (Some(when), Some(who)) = (when.get(start..end), who.get(start..end)) else {
                return false;
            };
            if are_before::<STEP>(when, limits.all, COPIED) {
                continue;
            }
            if !self.are_after_own_and_copies(limits, when, who, lanes) {
                return false;
            }
        }
        true
    }

    /// A closer look: the warp's own writes, and copies.
    #[inline(always)]
    fn are_after_own_and_copies(
        &self,
        limits: Limits,
        when: &[Stamp],
        who: &[u32],
        lanes: &[u32],
    ) -> bool {
        let own = self.access.warp << 27;
        let mut unordered = [0; STEP];
        let chunks = when.as_chunks::<STEP>().0.iter().zip(who.as_chunks::<STEP>().0);
        for ((when, who), lane) in chunks.zip(lanes.as_chunks::<STEP>().0) {
            for index in 0..STEP {
                let Stamp(when) = when[index];
                let mine = (who[index] ^ own) >> 27 == 0;
                let same_lane = alone(who[index]) == lane[index];
                let in_turn = same_lane | (when & WHOLE != 0);
                let by_warp = (when < limits.all) | (mine & ((when < limits.own) | in_turn));
                let copied = when & COPIED != 0;
                let before = (copied & (when < limits.agent)) | (!copied & by_warp);
                unordered[index] |= u32::from(!before);
            }
        }
        unordered == [0; STEP]
    }

    #[inline(always)]
    fn read(&mut self, limits: Limits, stamp: Stamp) -> bool {
        if !self.are_after_writes(limits) {
            return false;
        }
        let words_of_all = self.words.words;
        let pc = self.access.pc;
        let own = &mut self.words.reads[self.access.warp as usize];
        if own.when.is_empty() {
            own.reset(words_of_all);
        }
        for Run { start, end, lanes, before_last } in Runs::of(self.layout, self.base) {
            own.cover(start, end);
            let (Some(when), Some(who)) =
                (own.when.get_mut(start..end), own.who.get_mut(start..end))
            else {
                return false;
            };
            // Clocks never go back: a stamp that is not of this clock is before it.
            if are_before::<STEP>(when, stamp.0 & !MIXED, 0) {
                for index in 0..lanes.len() {
                    when[index] = stamp;
                    who[index] = lanes[index] | pc;
                }
            } else {
                let mut differs = 0;
                for index in 0..lanes.len() {
                    differs |= (when[index].0 ^ stamp.0) | (who[index] ^ (lanes[index] | pc));
                }
                if differs == 0 {
                    continue;
                }
                for index in 0..lanes.len() {
                    let (old, new) = ((when[index], who[index]), lanes[index] | pc);
                    (when[index], who[index]) = read_again(old, stamp, new, before_last[index]);
                }
            }
        }
        true
    }

    #[inline(always)]
    fn write(&mut self, limits: Limits, stamp: Stamp) -> bool {
        if !self.are_after_writes(limits) {
            return false;
        }
        let seen = self.order.seen(self.access.warp, 0);
        for (warp, records) in self.words.reads.iter().enumerate() {
            let limit = after(seen[warp].floor());
            let own = warp == self.access.warp as usize;
            for Run { start, end, lanes, .. } in Runs::of(self.layout, self.base) {
                if records.low >= end || records.high <= start {
                    continue;
                }
                let (Some(when), Some(who)) =
                    (records.when.get(start..end), records.who.get(start..end))
                else {
                    return false;
                };
                if are_before::<STEP>(when, limit, 0) {
                    continue;
                }
                let whole = if self.access.whole { WHOLE } else { 0 };
                let mut late = u32::from(!own);
                for index in 0..lanes.len() {
                    let same_lane = (who[index] ^ lanes[index]) >> PC_BITS == 0;
                    let in_turn = same_lane | (when[index].0 & whole != 0);
                    late |= u32::from((when[index].0 >= limit) & !in_turn);
                }
                if late != 0 {
                    return false;
                }
            }
        }
        let place = self.access.warp << 27 | self.access.pc;
        let writes = &mut self.words.writes;
        for Run { start, end, lanes, .. } in Runs::of(self.layout, self.base) {
            writes.cover(start, end);
            let (Some(when), Some(who)) =
                (writes.when.get_mut(start..end), writes.who.get_mut(start..end))
            else {
                return false;
            };
            if self.mask == ALL {
                for index in 0..lanes.len() {
                    when[index] = stamp;
                    who[index] = place | lanes[index] & 31 << PC_BITS;
                }
                continue;
            }
            for index in 0..lanes.len() {
                let taken = self.mask >> (lanes[index] >> PC_BITS & 31) & 1 != 0;
                when[index] = if taken { stamp } else { when[index] };
                who[index] = if taken { place | lanes[index] & 31 << PC_BITS } else { who[index] };
            }
        }
        true
    }
}

/// The record of a word that is read by some lanes, whatever it was before: between two clocks the first lane stays, and a
/// last one besides if there is any.
#[inline(always)]
fn read_again((when, who): (Stamp, u32), stamp: Stamp, new: u32, before_last: u32) -> (Stamp, u32) {
    if (when.0 ^ stamp.0) & !MIXED != 0 {
        return (stamp, new);
    }
    let (first, new_first, new_last) = (who >> 27, new >> 27, new >> PC_BITS & 31);
    let single = who >> 27 == who >> PC_BITS & 31;
    if new_last != first || new_first != first {
        let last = if new_last != first { new_last } else { before_last >> PC_BITS };
        let replaced = single && new_first == first;
        let mixes = (who ^ new) & PC_MASK != 0 && !replaced;
        let mixed = if mixes { MIXED } else { when.0 & MIXED };
        (Stamp(stamp.0 | mixed), first << 27 | last << PC_BITS | new & PC_MASK)
    } else if single {
        (stamp, new)
    } else {
        // The first lane reads again; the last one stays.
        (when, who)
    }
}

// Flags lie below the clock, so that stamps are ordered as clocks are.
const _: () = assert!((MIXED | COPIED | ATOMIC | STRONG | WHOLE) >> 5 == 0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::lanes::{LANES, Lanes, lanes};
    use crate::random::Random;

    const WORDS: usize = 512;

    fn layout(at: &Lanes<u64>, mask: Mask, bytes: u64) -> (Layout, usize) {
        let first = at.0[mask.trailing_zeros() as usize];
        let distances = Lanes(at.0.map(|at| at.wrapping_sub(first)));
        let all = || lanes(mask).map(|lane| distances.0[lane].cast_signed());
        let span = (all().min().unwrap(), all().max().unwrap());
        (Layout::new(&distances, mask, bytes, span).unwrap(), first as usize / 4)
    }

    /// Records of words that have any, with who made them.
    fn records(words: &Words) -> Vec<Vec<(Stamp, u32)>> {
        let of = |records: &Records| {
            let pairs = records.when.iter().copied().zip(records.who.iter().copied());
            pairs.map(|(when, who)| (when, if when.0 == 0 { 0 } else { who })).collect()
        };
        std::iter::once(&words.writes).chain(&words.reads).map(of).collect()
    }

    /// Accesses of two warps, with synchronisation every now and then; gives how many were done at once.
    fn run(seed: u64) -> usize {
        let mut random = Random::new(seed, 3);
        let mut order = Order::default();
        order.reset(0, [ALL, ALL].into_iter());
        let (mut one, mut other) = (Words::default(), Words::default());
        one.reset(WORDS, 2);
        other.reset(WORDS, 2);
        let mut at_once = 0;
        for _ in 0..60 {
            match random.below(8) {
                0 => order.sync_lanes(random.below(2) as u32, ALL),
                1 => {
                    (0..2).for_each(|warp| order.arrive(0, warp, ALL));
                    order.completed(0, true);
                    (0..2).for_each(|warp| order.leave(0, warp, ALL));
                }
                _ => {}
            }
            let bytes = [4, 8, 16][random.below(3)] as u64;
            let (start, stride) = (random.below(8) as u64 * 64, random.below(3) as u64);
            let group = 1 << random.below(6);
            let at =
                Lanes(std::array::from_fn(|lane| start + lane as u64 / group * bytes * stride));
            let mask = if random.below(4) == 0 { random.next() as u32 | 1 << 4 } else { ALL };
            let access = Access {
                warp: random.below(2) as u32,
                pc: random.below(9) as u32,
                writes: random.below(3) == 0,
                strong: false,
                atomic: false,
                whole: random.below(3) == 0,
            };
            let (layout, base) = layout(&at, mask, bytes);
            let whole = lanes(mask).all(|lane| at.0[lane] as usize / 4 < WORDS - LANES);
            assert!(whole, "the test stays inside");
            let race = one.access(&order, access, &at, mask, bytes);
            if other.laid_out(&order, access, &layout, (base, ALL)) {
                assert_eq!(race, None, "seed {seed}");
                at_once += 1;
            } else {
                assert_eq!(other.access(&order, access, &at, mask, bytes), race, "seed {seed}");
            }
            if race.is_some() {
                break;
            }
            for (one, other) in records(&one).into_iter().zip(records(&other)) {
                for (word, pair) in one.into_iter().zip(other).enumerate() {
                    assert_eq!(pair.0, pair.1, "seed {seed}: word {word}, {access:?}");
                }
            }
        }
        at_once
    }

    #[test]
    fn many_words_at_once_are_as_one_by_one() {
        let at_once: usize = (0..3000).map(run).sum();
        assert!(at_once > 3000, "{at_once}");
    }

    #[test]
    fn a_part_of_the_lanes_writes_its_words_alone() {
        let mut order = Order::default();
        order.reset(0, [ALL].into_iter());
        let mut words = Words::default();
        words.reset(WORDS, 1);
        let at = Lanes(std::array::from_fn(|lane| 64 + 4 * lane as u64));
        let (layout, base) = layout(&at, ALL, 4);
        let access =
            Access { warp: 0, pc: 5, writes: true, strong: false, atomic: false, whole: false };
        assert!(words.laid_out(&order, access, &layout, (base, 0b101)));
        let written = |&word: &usize| words.writes.when[word].0 != 0;
        assert_eq!((0..WORDS).filter(written).collect::<Vec<_>>(), [16, 18]);
    }
}
