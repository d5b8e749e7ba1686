//! The usual accesses, many words at a time: of warps whose lanes all know the same, to words whose last accesses all come
//! before.

use std::sync::Arc;

use super::places::{Places, Run, alone};
use super::recent::{self, Look, READ, RECORDED};
use super::{
    ATOMIC, Access, COPIED, MIXED, PC_BITS, PC_MASK, Records, STRONG, Stamp, WHOLE, Words,
};
use crate::checks::layout::Layout;
use crate::checks::order::{LAST_CLOCK, Order};
use crate::checks::stretch::Stretch;
use crate::exec::lanes::{ALL, Mask};
use crate::exec::patterns::Pattern;
use crate::exec::wide::{self, Routine};
use crate::kept::Kept;

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

/// What is done about an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It is compared with those before and remembered.
    Both,
    /// It is only compared: a copy has been issued, which will write when it lands.
    Check,
    /// It is only remembered: a copy has landed that was compared when it was issued. Since then nobody may touch the bytes.
    Record,
}

impl Words {
    /// Checks and remembers an access of lanes at places that a pattern knows, of which the first is at offset `first`, if that can
    /// be done at once; otherwise does nothing. Of a write, only the lanes of `mask` are meant.
    #[inline(always)]
    pub(crate) fn by_pattern(
        &mut self,
        order: &Order,
        access: Access,
        pattern: &mut Pattern,
        (first, mask): (u64, Mask),
        how: How,
    ) -> bool {
        let whole = mask == pattern.mask();
        let base = first as usize / 4;
        let Some((layout, kept)) = pattern.layout() else { return false };
        if whole {
            self.laid_out(order, access, (layout, kept), (base, ALL), how)
        } else if access.writes && layout.apart {
            self.laid_out(order, access, (layout, kept), (base, mask), how)
        } else if let Some(part) = pattern.layout_of(mask) {
            self.laid_out(order, access, (&Arc::new(part), &mut Kept::default()), (base, ALL), how)
        } else {
            false
        }
    }

    /// As [`Words::by_pattern`], for the words of a layout from word `base` on.
    #[inline(always)]
    fn laid_out(
        &mut self,
        order: &Order,
        access: Access,
        (layout, kept): (&Arc<Layout>, &mut Kept),
        (base, mask): (usize, Mask),
        how: How,
    ) -> bool {
        let span = layout.span(base);
        if !order.is_uniform(access.warp)
            || access.strong
            || access.atomic
            || access.writes && !layout.apart
            || order.clock(access.warp) == LAST_CLOCK
            || access.pc > PC_MASK
            || span.0 >= span.1
            || span.1 > self.words
        {
            return false;
        }
        self.recent.begin(order, access.warp, 0);
        if access.writes {
            wide::call(Write { words: self, order, access, layout, base, mask, span, how })
        } else {
            wide::call(Read { words: self, order, access, layout, kept, base, span })
        }
    }

    /// Puts a read that was kept into the records of its words.
    pub(super) fn record_reads(&mut self, warp: usize, read: &recent::Read, layout: &Layout) {
        let access = Access {
            warp: warp as u32,
            pc: read.pc,
            writes: false,
            strong: false,
            atomic: false,
            whole: read.whole,
        };
        let words = self.words;
        let own = &mut self.reads[warp];
        if own.when.is_empty() {
            own.reset(words);
        }
        let stamp = Stamp::new(read.clock, 15, access);
        let places = Places::of(layout, read.base as usize);
        wide::call(RecordReads { own, stamp, pc: read.pc, places });
    }
}

/// A read, of words of which no write needs a closer look, or only one at their records.
struct Read<'a> {
    words: &'a mut Words,
    order: &'a Order,
    access: Access,
    layout: &'a Arc<Layout>,
    kept: &'a mut Kept,
    base: usize,
    span: (usize, usize),
}

impl Routine for Read<'_> {
    type Out = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let Read { words, order, access, layout, kept, base, span } = self;
        let warp = access.warp;
        let look = words.recent.look(warp, span.0, span.1);
        if !words.recent.are_writes_known(order, warp, look)
            && !words.are_after_writes(order, access, Places::of(layout, base))
        {
            return false;
        }
        if !words.recent.has_room(warp) {
            words.make_room(warp);
        }
        let index = words.recent.keep(layout, kept);
        words.recent.read(access, order.clock(warp), (index, base), span);
        true
    }
}

struct Write<'a> {
    words: &'a mut Words,
    order: &'a Order,
    access: Access,
    layout: &'a Layout,
    base: usize,
    mask: Mask,
    span: (usize, usize),
    how: How,
}

impl Routine for Write<'_> {
    type Out = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let Write { words, order, access, layout, base, mask, span, how } = self;
        if how != How::Record {
            let look = words.recent.look(access.warp, span.0, span.1);
            if !words.recent.are_writes_known(order, access.warp, look)
                && !words.are_after_writes(order, access, Places::of(layout, base))
            {
                return false;
            }
            if look.flags & (READ | RECORDED) != 0
                && !words.are_after_reads(order, access, (layout, base), span, look)
            {
                return false;
            }
        }
        if how != How::Check {
            let stamp = Stamp::new(order.clock(access.warp), 15, access);
            words.record_writes(stamp, access, Places::of(layout, base), mask);
            words.recent.mark_write(access.warp, order.clock(access.warp), span.0, span.1);
        }
        true
    }
}

/// Calls a routine for the number of words that all runs are multiples of.
macro_rules! by_step {
    ($places:expr, $routine:ident { $($field:ident),* }) => {
        match $places.step {
            8 => wide::call($routine::<8> { $($field),* }),
            4 => wide::call($routine::<4> { $($field),* }),
            2 => wide::call($routine::<2> { $($field),* }),
            _ => wide::call($routine::<1> { $($field),* }),
        }
    };
}

impl Words {
    /// Checks and remembers an access of lanes side by side that all know the same, if no word needs a closer look; otherwise does
    /// nothing.
    pub(super) fn side_by_side(
        &mut self,
        order: &Order,
        access: Access,
        stretch: &Stretch,
    ) -> bool {
        let (start, end) = stretch.bounds();
        let run = [(0, (end / 4 - start / 4) as u32)];
        let Some(places) = Places::side_by_side(stretch, &run) else { return false };
        if !order.is_uniform(access.warp) || !self.are_after_writes(order, access, places) {
            return false;
        }
        let stamp = Stamp::new(order.clock(access.warp), 15, access);
        if access.writes {
            let span = (start as usize / 4, end as usize / 4);
            let warps = 0..self.reads.len();
            let seen = order.seen(access.warp, 0);
            for warp in warps {
                if !self.are_after_reads_of(warp, access, seen[warp].floor(), places, span) {
                    return false;
                }
            }
            self.record_writes(stamp, access, places, ALL);
        } else {
            let own = &mut self.reads[access.warp as usize];
            wide::call(RecordReads { own, stamp, pc: access.pc, places });
        }
        true
    }

    /// Whether the last writes of all words come before, by their records.
    #[inline(never)]
    fn are_after_writes(&self, order: &Order, access: Access, places: Places<'_>) -> bool {
        let warp = access.warp;
        let seen = order.seen(warp, 0);
        let limits = Limits {
            all: after(order.least(warp, 0)),
            own: after(seen[warp as usize].floor()),
            agent: after(seen[order.agent() as usize].floor()),
        };
        let writes = &self.writes;
        by_step!(places, AfterWrites { writes, limits, access, places })
    }

    /// Whether all reads of the words come before, but those of a word's own lane.
    #[inline(never)]
    fn are_after_reads(
        &mut self,
        order: &Order,
        access: Access,
        (layout, base): (&Layout, usize),
        span: (usize, usize),
        look: Look,
    ) -> bool {
        let seen = order.seen(access.warp, 0);
        let mut flags = look.flags;
        for warp in 0..self.reads.len() {
            if warp != access.warp as usize && !look.others {
                continue;
            }
            let floor = seen[warp].floor();
            if self.recent.is_met(warp, floor, (layout, base), span) {
                self.settle(warp);
                flags |= RECORDED;
            }
            let places = Places::of(layout, base);
            if flags & RECORDED != 0 && !self.are_after_reads_of(warp, access, floor, places, span)
            {
                return false;
            }
        }
        true
    }

    /// Whether the reads of a warp come before, by their records: they were seen up to a clock.
    fn are_after_reads_of(
        &self,
        warp: usize,
        access: Access,
        floor: u32,
        places: Places<'_>,
        span: (usize, usize),
    ) -> bool {
        let reads = &self.reads[warp];
        if reads.low >= span.1 || reads.high <= span.0 {
            return true;
        }
        let (limit, own) = (after(floor), warp == access.warp as usize);
        by_step!(places, AfterReads { reads, limit, own, places })
    }

    #[inline(never)]
    fn record_writes(&mut self, stamp: Stamp, access: Access, places: Places<'_>, mask: Mask) {
        let by = access.warp << 27 | access.pc;
        let writes = &mut self.writes;
        by_step!(places, RecordWrites { writes, stamp, by, places, mask });
    }

    /// Makes room for another read of a warp.
    #[cold]
    fn make_room(&mut self, warp: u32) {
        let warp = warp as usize;
        self.recent.compact(warp);
        if self.recent.is_half_full(warp) {
            self.settle(warp);
        }
        if self.recent.has_many_layouts() {
            (0..self.reads.len()).for_each(|warp| self.settle(warp));
            self.recent.drop_layouts();
        }
    }
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

struct AfterWrites<'a, const STEP: usize> {
    writes: &'a Records,
    limits: Limits,
    access: Access,
    places: Places<'a>,
}

impl<const STEP: usize> Routine for AfterWrites<'_, STEP> {
    type Out = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let AfterWrites { writes: Records { when, who, low, high }, limits, .. } = self;
        for Run { start, end, lanes, .. } in self.places.runs() {
            if *low >= end || *high <= start {
                continue;
            }
            let (Some(when), Some(who)) = (when.get(start..end), who.get(start..end)) else {
                return false;
            };
            if are_before::<STEP>(when, limits.all, COPIED) {
                continue;
            }
            if !are_after_own_and_copies::<STEP>(self.access, limits, when, who, lanes) {
                return false;
            }
        }
        true
    }
}

/// A closer look: the warp's own writes, and copies.
#[inline(always)]
fn are_after_own_and_copies<const STEP: usize>(
    access: Access,
    limits: Limits,
    when: &[Stamp],
    who: &[u32],
    lanes: &[u32],
) -> bool {
    let own = access.warp << 27;
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

/// Whether the reads of a warp come before a limit; of the own warp, or are of the lane that writes.
struct AfterReads<'a, const STEP: usize> {
    reads: &'a Records,
    limit: u32,
    own: bool,
    places: Places<'a>,
}

impl<const STEP: usize> Routine for AfterReads<'_, STEP> {
    type Out = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let AfterReads { reads: Records { when, who, low, high }, limit, own, .. } = self;
        for Run { start, end, lanes, .. } in self.places.runs() {
            if *low >= end || *high <= start {
                continue;
            }
            let (Some(when), Some(who)) = (when.get(start..end), who.get(start..end)) else {
                return false;
            };
            if are_before::<STEP>(when, limit, 0) {
                continue;
            }
            let mut late = u32::from(!own);
            for index in 0..lanes.len() {
                let same_lane = (who[index] ^ lanes[index]) >> PC_BITS == 0;
                let in_turn = same_lane | (when[index].0 & WHOLE != 0);
                late |= u32::from((when[index].0 >= limit) & !in_turn);
            }
            if late != 0 {
                return false;
            }
        }
        true
    }
}

struct RecordWrites<'a, const STEP: usize> {
    writes: &'a mut Records,
    stamp: Stamp,
    /// Warp and program counter, as in [`writer`](super::writer).
    by: u32,
    places: Places<'a>,
    mask: Mask,
}

impl<const STEP: usize> Routine for RecordWrites<'_, STEP> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let RecordWrites { writes, stamp, by, places, mask } = self;
        for Run { start, end, lanes, .. } in places.runs() {
            writes.cover(start, end);
            let (Some(when), Some(who)) =
                (writes.when.get_mut(start..end), writes.who.get_mut(start..end))
            else {
                return;
            };
            if mask == ALL {
                let parts = when.as_chunks_mut::<STEP>().0.iter_mut();
                let parts = parts.zip(who.as_chunks_mut::<STEP>().0);
                for ((when, who), lanes) in parts.zip(lanes.as_chunks::<STEP>().0) {
                    // Made apart and then put there, for the compiler cannot tell that the three are not the same.
                    let mut lanes = *lanes;
                    for lane in &mut lanes {
                        *lane = by | *lane & 31 << PC_BITS;
                    }
                    (*when, *who) = ([stamp; STEP], lanes);
                }
                continue;
            }
            for index in 0..lanes.len() {
                let taken = mask >> (lanes[index] >> PC_BITS & 31) & 1 != 0;
                when[index] = if taken { stamp } else { when[index] };
                who[index] = if taken { by | lanes[index] & 31 << PC_BITS } else { who[index] };
            }
        }
    }
}

struct RecordReads<'a> {
    own: &'a mut Records,
    stamp: Stamp,
    pc: u32,
    places: Places<'a>,
}

impl Routine for RecordReads<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let RecordReads { own, stamp, pc, places } = self;
        for Run { start, end, lanes, before_last } in places.runs() {
            own.cover(start, end);
            let (Some(when), Some(who)) =
                (own.when.get_mut(start..end), own.who.get_mut(start..end))
            else {
                return;
            };
            for index in 0..lanes.len() {
                let (old, new) = ((when[index], who[index]), lanes[index] | pc);
                // What is later than a read that was kept stays.
                let (then, by) = read_again(old, stamp, new, before_last[index]);
                let later = old.0.clock() > stamp.clock();
                when[index] = if later { old.0 } else { then };
                who[index] = if later { old.1 } else { by };
            }
        }
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
                    (0..2).for_each(|warp| order.meet(0, warp, ALL));
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
            let place = (&Arc::new(layout), &mut Kept::default());
            let whole = lanes(mask).all(|lane| at.0[lane] as usize / 4 < WORDS - LANES);
            assert!(whole, "the test stays inside");
            let race = one.access(&order, access, &at, mask, bytes);
            if other.laid_out(&order, access, place, (base, ALL), How::Both) {
                assert_eq!(race, None, "seed {seed}");
                at_once += 1;
            } else {
                assert_eq!(other.access(&order, access, &at, mask, bytes), race, "seed {seed}");
            }
            if race.is_some() {
                break;
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
        let place = (&Arc::new(layout), &mut Kept::default());
        assert!(words.laid_out(&order, access, place, (base, 0b101), How::Both));
        let written = |&word: &usize| words.writes.when[word].0 != 0;
        assert_eq!((0..WORDS).filter(written).collect::<Vec<_>>(), [16, 18]);
    }
}
