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
        let base = first as usize / 4;
        if access.writes {
            self.write_by_pattern(order, access, pattern, (base, mask), how)
        } else {
            self.read_by_pattern(order, access, pattern, (base, mask))
        }
    }

    #[inline(never)]
    fn read_by_pattern(
        &mut self,
        order: &Order,
        access: Access,
        pattern: &mut Pattern,
        (base, mask): (usize, Mask),
    ) -> bool {
        if mask != pattern.mask() {
            return self.part_at_once(order, access, pattern, (base, mask), How::Both);
        }
        let Some((layout, kept)) = pattern.layout() else { return false };
        self.read_at_once(order, access, (layout, kept), base)
    }

    #[inline(never)]
    fn write_by_pattern(
        &mut self,
        order: &Order,
        access: Access,
        pattern: &mut Pattern,
        (base, mask): (usize, Mask),
        how: How,
    ) -> bool {
        let whole = mask == pattern.mask();
        match pattern.layout() {
            Some((layout, kept)) if whole || layout.apart => {
                let mask = if whole { ALL } else { mask };
                self.write_at_once(order, access, (layout, kept), (base, mask), how)
            }
            _ if whole => false,
            _ => self.part_at_once(order, access, pattern, (base, mask), how),
        }
    }

    /// As [`Words::by_pattern`], for some lanes of a pattern.
    #[cold]
    fn part_at_once(
        &mut self,
        order: &Order,
        access: Access,
        pattern: &Pattern,
        (base, mask): (usize, Mask),
        how: How,
    ) -> bool {
        let Some(part) = pattern.layout_of(mask) else { return false };
        self.laid_out(order, access, (&Arc::new(part), &mut Kept::default()), (base, ALL), how)
    }

    /// As [`Words::by_pattern`], for the words of a layout from word `base` on.
    #[inline(never)]
    fn laid_out(
        &mut self,
        order: &Order,
        access: Access,
        (layout, kept): (&Arc<Layout>, &mut Kept),
        (base, mask): (usize, Mask),
        how: How,
    ) -> bool {
        if access.writes {
            self.write_at_once(order, access, (layout, kept), (base, mask), how)
        } else {
            self.read_at_once(order, access, (layout, kept), base)
        }
    }

    /// The first word of a layout and the one after the last, if an access there can be looked at as a whole.
    #[inline(always)]
    fn begin(
        &mut self,
        order: &Order,
        access: Access,
        (layout, base): (&Layout, usize),
    ) -> Option<(usize, usize)> {
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
            return None;
        }
        self.recent.begin(order, access.warp, 0);
        Some(span)
    }

    /// A read, of words of which no write needs a closer look, or only one at their records.
    #[inline(always)]
    fn read_at_once(
        &mut self,
        order: &Order,
        access: Access,
        (layout, kept): (&Arc<Layout>, &mut Kept),
        base: usize,
    ) -> bool {
        let Some(span) = self.begin(order, access, (layout, base)) else { return false };
        let look = self.recent.mark(access.warp, span.0, span.1, READ);
        if !self.are_writes_before(order, access, (layout, base), span, look) {
            return false;
        }
        if !self.recent.has_room(access.warp) {
            self.make_room(access.warp);
        }
        let number = self.recent.number(kept).unwrap_or_else(|| self.keep(layout, kept));
        self.recent.read(access, order.clock(access.warp), (number, base), span);
        true
    }

    /// As [`Words::read_at_once`], for a write, of words of which no read needs more than that either.
    #[inline(always)]
    fn write_at_once(
        &mut self,
        order: &Order,
        access: Access,
        (layout, kept): (&Arc<Layout>, &mut Kept),
        (base, mask): (usize, Mask),
        how: How,
    ) -> bool {
        let Some(span) = self.begin(order, access, (layout, base)) else { return false };
        let Access { warp, pc, .. } = access;
        if how != How::Record {
            let look = self.recent.look(warp, span.0, span.1);
            if !self.are_writes_before(order, access, (layout, base), span, look) {
                return false;
            }
            if look.flags & (READ | RECORDED) != 0
                && !self.are_after_reads(order, access, (layout, base), span, look)
            {
                return false;
            }
        }
        if how != How::Check {
            if !self.recent.has_room_for_write() {
                self.make_room_for_writes();
            }
            let clock = order.clock(warp);
            let number = self.recent.number(kept).unwrap_or_else(|| self.keep(layout, kept));
            let by = (Stamp::new(clock, 15, access), warp << 27 | pc);
            self.recent.write(by, (number, base, mask), span);
            self.recent.mark_write(warp, clock, span.0, span.1);
        }
        true
    }

    /// Keeps a layout, and notes where; gives its number.
    #[inline(never)]
    fn keep(&mut self, layout: &Arc<Layout>, kept: &mut Kept) -> u32 {
        if self.recent.has_many_layouts() {
            (0..self.reads.len()).for_each(|warp| self.settle(warp));
            self.settle_writes(0, self.words);
            self.recent.drop_layouts();
        }
        *kept = self.recent.keep(layout);
        kept.index()
    }

    /// Whether the last writes of all words come before an access, by their blocks or by their records.
    #[inline(always)]
    fn are_writes_before(
        &mut self,
        order: &Order,
        access: Access,
        (layout, base): (&Layout, usize),
        span: (usize, usize),
        look: Look,
    ) -> bool {
        if self.recent.are_writes_known(order, access.warp, look) {
            return true;
        }
        // Where all writes that are not in the records yet are known, so is all that they came after.
        if self.recent.has_unknown_write(order, access.warp, look, (layout, base)) {
            self.settle_writes(span.0, span.1);
        }
        self.are_after_writes(order, access, Places::of(layout, base))
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
        let own = &mut self.reads[warp];
        own.prepare(self.words);
        let stamp = Stamp::new(read.clock, 15, access);
        let places = Places::of(layout, read.base as usize);
        wide::call(RecordReads { own, stamp, pc: read.pc, places });
    }

    /// Puts a write that was kept into the records of its words.
    pub(super) fn record_writes(&mut self, write: &recent::Write, layout: &Layout) {
        let &recent::Write { stamp, by, base, mask, .. } = write;
        let (writes, places) = (&mut self.writes, Places::of(layout, base as usize));
        writes.prepare(self.words);
        by_step!(places, RecordWrites { writes, stamp, by, places, mask });
    }
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
        let span = (start as usize / 4, end as usize / 4);
        let run = [(0, (span.1 - span.0) as u32)];
        let Some(places) = Places::side_by_side(stretch, &run) else { return false };
        if !order.is_uniform(access.warp) || !self.are_after_writes(order, access, places) {
            return false;
        }
        let stamp = Stamp::new(order.clock(access.warp), 15, access);
        if access.writes {
            let seen = order.seen(access.warp, 0);
            for warp in 0..self.reads.len() {
                if !self.are_after_reads_of(warp, access, seen[warp].floor(), places, span) {
                    return false;
                }
            }
            let (writes, by, mask) = (&mut self.writes, access.warp << 27 | access.pc, ALL);
            by_step!(places, RecordWrites { writes, stamp, by, places, mask });
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

    /// Makes room for another read of a warp.
    #[cold]
    fn make_room(&mut self, warp: u32) {
        let warp = warp as usize;
        self.recent.compact(warp);
        if self.recent.is_half_full(warp) {
            self.settle(warp);
        }
    }

    /// Makes room for another write.
    #[cold]
    fn make_room_for_writes(&mut self) {
        if !self.recent.compact_writes() {
            self.settle_writes(0, self.words);
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
        // A word is written by one lane.
        for Run { start, end, before_last: lanes, .. } in places.runs() {
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
                        *lane |= by;
                    }
                    (*when, *who) = ([stamp; STEP], lanes);
                }
                continue;
            }
            for index in 0..lanes.len() {
                let taken = mask >> (lanes[index] >> PC_BITS & 31) & 1 != 0;
                when[index] = if taken { stamp } else { when[index] };
                who[index] = if taken { by | lanes[index] } else { who[index] };
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
mod agreement;
