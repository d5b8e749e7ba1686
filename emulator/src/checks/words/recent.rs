//! What has happened since all threads of the CTA last met at a barrier: which blocks of words who has touched, and what each
//! warp has read and written.
//!
//! What came before such a barrier everybody knows, so that it races with nothing. Of what came after, most is told apart by
//! the block: a tile that is only read, or one that a warp keeps to itself. Reads and writes are written down as accesses, not
//! word by word; the few reads that a later write meets go into the records of their words then, and writes when somebody
//! has to look at the records.

use std::sync::Arc;

use super::fresh::Fresh;
use super::{Access, Stamp, Words};
use crate::checks::layout::Layout;
use crate::checks::order::Order;
use crate::exec::lanes::Mask;
use crate::kept::{Id, Kept};

/// Words of a block; fewer in tests, where a few words are to be several blocks.
const BLOCK: usize = if cfg!(test) { 64 } else { 128 };
/// Who has touched a block: nobody, one warp (its number and one), or [`SEVERAL`].
const OWNER: u16 = 63;
/// More than one warp, or copies.
const SEVERAL: u16 = OWNER;
/// A word of the block was written.
pub(super) const WRITTEN: u16 = 1 << 6;
/// A word of the block was read, which is in the log of the warp that did.
pub(super) const READ: u16 = 1 << 7;
/// A word of the block was read, which is in its record.
pub(super) const RECORDED: u16 = 1 << 8;
/// The agent of copies has written a word of the block.
pub(super) const COPIES: u16 = 1 << 9;

/// Reads of a warp that are kept; the oldest go into the records of their words.
const MOST_READS: usize = 2048;
/// Writes that are kept; all of them go into the records of their words if there are more that none repeats.
const MOST_WRITES: usize = 1024;
/// Layouts that are kept.
const MOST_LAYOUTS: usize = 4096;

/// A read of a warp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) clock: u32,
    pub(super) pc: u32,
    /// See [`Access::whole`].
    pub(super) whole: bool,
    /// Word of the first lane.
    pub(super) base: u32,
    /// Which of [`Recent::layouts`].
    pub(super) layout: u32,
    /// First word and the one after the last.
    start: u32,
    end: u32,
}

/// A write of a warp that has still to go into the records of its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) stamp: Stamp,
    /// Warp and program counter, as in [`writer`](super::writer).
    pub(super) by: u32,
    /// Word of the first lane.
    pub(super) base: u32,
    /// Which of [`Recent::layouts`].
    pub(super) layout: u32,
    /// The lanes that write; the words that the others would access stay as they are.
    pub(super) mask: Mask,
    /// First word and the one after the last.
    start: u32,
    end: u32,
}

/// What accesses to some blocks have to look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Others than the one who looks have touched them.
    pub(super) others: bool,
    /// [`WRITTEN`], [`READ`], [`RECORDED`], [`COPIES`] of any of them.
    pub(super) flags: u16,
}

#[derive(Debug, Default)]
pub(super) struct Recent {
    /// By block.
    blocks: Vec<u16>,
    /// Reads of each warp, by their clock.
    pub(super) reads: Vec<Vec<Read>>,
    /// Writes of all warps, in order. Each came after what the record of any of its words says.
    pub(super) writes: Vec<Write>,
    /// Of these, what each warp does not know yet of its own.
    pub(super) fresh: Vec<Fresh>,
    pub(super) layouts: Vec<Arc<Layout>>,
    /// Of no other, and of this one only until it is reset.
    id: Id,
    /// The meeting that all of this came after, see [`Order::meetings`].
    meetings: u64,
    /// Clock of the last write of each warp, and of the agent of copies.
    last_writes: Vec<u32>,
}

/// The block of a word.
#[inline(always)]
fn block(word: usize) -> usize {
    word / BLOCK
}

/// The owner that a warp is.
#[inline(always)]
fn owner(warp: u32) -> u16 {
    (warp as u16 & 31) + 1
}

#[cfg(test)]
impl Write {
    /// By a warp at a clock, of a layout by its number from a word on.
    pub(super) fn new(
        (clock, warp): (u32, u32),
        (layout, base): (u32, usize),
        (start, end): (usize, usize),
    ) -> Write {
        let (stamp, by, mask) = (Stamp(clock << 9), warp << 27, Mask::MAX);
        let (base, start, end) = (base as u32, start as u32, end as u32);
        Write { stamp, by, base, layout, mask, start, end }
    }
}

impl Recent {
    pub(super) fn reset(&mut self, words: usize, warps: usize) {
        self.id = Id::new();
        self.blocks.clear();
        self.blocks.resize(words.div_ceil(BLOCK), 0);
        self.reads.resize_with(warps, Vec::new);
        self.reads.iter_mut().for_each(Vec::clear);
        self.writes.clear();
        self.fresh.resize_with(warps, Fresh::default);
        self.fresh.iter_mut().for_each(|fresh| fresh.reset(words));
        self.layouts.clear();
        self.last_writes.clear();
        self.last_writes.resize(warps + 1, 0);
        self.meetings = 0;
    }

    /// Forgets what came before the last meeting of all threads.
    #[inline(always)]
    pub(super) fn begin(&mut self, order: &Order, warp: u32, lane: usize) {
        if self.meetings != order.meetings() {
            self.forget(order, warp, lane);
        }
    }

    #[inline(never)]
    fn forget(&mut self, order: &Order, warp: u32, lane: usize) {
        self.meetings = order.meetings();
        self.reads.iter_mut().for_each(Vec::clear);
        // What the records of their words say instead came before them, so that everybody knows it too.
        self.fresh.iter_mut().for_each(|fresh| fresh.shorten(MOST_WRITES));
        self.writes.clear();
        let agent = order.agent() as usize;
        // A barrier tells of the agent's copies only what one of the threads has waited for.
        let known = self.last_writes[agent] <= order.seen(warp, lane)[agent].floor();
        let keep = if known { 0 } else { COPIES };
        for state in &mut self.blocks {
            let kept = if *state & keep != 0 { SEVERAL | WRITTEN | COPIES } else { 0 };
            *state &= kept;
        }
    }

    /// What a warp finds in the blocks of words `start` to before `end`.
    #[inline(always)]
    pub(super) fn look(&self, warp: u32, start: usize, end: usize) -> Look {
        let me = owner(warp);
        let Some(blocks) = self.blocks.get(block(start)..=block(end.saturating_sub(1))) else {
            return Look { others: false, flags: 0 };
        };
        let (mut flags, mut others) = (0, 0);
        for &state in blocks {
            let own = state & OWNER;
            others |= u16::from((own != 0) & (own != me));
            flags |= state;
        }
        Look { others: others != 0, flags }
    }

    /// A warp touches the blocks of words `start` to before `end`. Gives what it found there.
    #[inline(always)]
    pub(super) fn mark(&mut self, warp: u32, start: usize, end: usize, flag: u16) -> Look {
        let me = owner(warp);
        let (mut flags, mut others) = (0, 0);
        let mut touch = |state: &mut u16| {
            let own = *state & OWNER;
            others |= u16::from((own != 0) & (own != me));
            flags |= *state;
            *state |= flag | if (own == 0) | (own == me) { me } else { SEVERAL };
        };
        // Mostly they are few.
        match self.blocks.get_mut(block(start)..=block(end.saturating_sub(1))) {
            Some([one]) => touch(one),
            Some([one, other]) => [one, other].into_iter().for_each(touch),
            Some(all) => all.iter_mut().for_each(touch),
            None => {}
        }
        Look { others: others != 0, flags }
    }

    /// A warp writes, at this clock.
    #[inline(always)]
    pub(super) fn mark_write(&mut self, warp: u32, clock: u32, start: usize, end: usize) {
        self.mark(warp, start, end, WRITTEN);
        self.last_writes[warp as usize] = clock;
    }

    /// A copy has landed, at this clock of the agent.
    pub(super) fn mark_copy(&mut self, clock: u32, start: usize, end: usize) {
        if let Some(blocks) = self.blocks.get_mut(block(start)..=block(end.saturating_sub(1))) {
            blocks.iter_mut().for_each(|state| *state |= SEVERAL | WRITTEN | COPIES);
        }
        if let Some(last) = self.last_writes.last_mut() {
            *last = clock;
        }
    }

    /// Whether all writes that may be in blocks as `look` has found them come before what the warp does now, by what is
    /// known of them all.
    #[inline(always)]
    pub(super) fn are_writes_known(&self, order: &Order, warp: u32, look: Look) -> bool {
        if look.flags & WRITTEN == 0 {
            return true;
        }
        let seen = order.seen(warp, 0);
        let own = warp as usize;
        if !look.others {
            return self.last_writes[own] <= seen[own].floor();
        }
        let mut late = false;
        for (last, seen) in self.last_writes.iter().zip(seen) {
            late |= *last > seen.floor();
        }
        !late
    }

    /// Whether a write that is not in the records yet may be at words of a layout, in blocks as `look` has found them, of which the warp
    /// does not know that it came before what it does now.
    pub(super) fn has_unknown_write(
        &mut self,
        order: &Order,
        warp: u32,
        look: Look,
        place: (&Layout, usize),
    ) -> bool {
        if look.others {
            return true;
        }
        // Nobody else has touched the blocks.
        let own = warp as usize;
        let known = order.seen(warp, 0)[own].floor();
        self.fresh[own].take(&self.writes, &self.layouts, (warp, known));
        self.fresh[own].meets(place, known)
    }

    /// The number of a layout that is kept, if it still is.
    #[inline(always)]
    pub(super) fn number(&self, kept: &Kept) -> Option<u32> {
        kept.is_of(&self.id).then(|| kept.index())
    }

    /// Keeps a layout. There has to be room.
    pub(super) fn keep(&mut self, layout: &Arc<Layout>) -> Kept {
        self.layouts.push(layout.clone());
        Kept::new(&self.id, self.layouts.len() as u32 - 1)
    }

    /// Writes down a read of a layout, by its number, from word `base` on; its blocks are marked. There has to be room.
    #[inline(always)]
    pub(super) fn read(
        &mut self,
        access: Access,
        clock: u32,
        (layout, base): (u32, usize),
        (start, end): (usize, usize),
    ) {
        let Access { warp, pc, whole, .. } = access;
        let (base, start, end) = (base as u32, start as u32, end as u32);
        self.reads[warp as usize].push(Read { clock, pc, whole, base, layout, start, end });
    }

    /// Writes down a write of a layout, by its number, from word `base` on; its blocks are marked besides. There has to be room.
    #[inline(always)]
    pub(super) fn write(
        &mut self,
        (stamp, by): (Stamp, u32),
        (layout, base, mask): (u32, usize, Mask),
        (start, end): (usize, usize),
    ) {
        let (base, start, end) = (base as u32, start as u32, end as u32);
        self.writes.push(Write { stamp, by, base, layout, mask, start, end });
    }

    /// Whether another write can be written down.
    #[inline(always)]
    pub(super) fn has_room_for_write(&self) -> bool {
        self.writes.len() < MOST_WRITES
    }

    /// How many writes there are up to the last one that may be at words `start` to before `end`.
    pub(super) fn writes_until(&self, start: usize, end: usize) -> usize {
        let meets = |w: &Write| (w.start as usize) < end && start < w.end as usize;
        self.writes.iter().rposition(meets).map_or(0, |last| last + 1)
    }

    /// Drops the writes that a later one repeats. Tells whether there is room for many more.
    pub(super) fn compact_writes(&mut self) -> bool {
        drop_repeated(&mut self.writes, |w| (w.layout, w.base, w.mask));
        self.fresh.iter_mut().for_each(|fresh| fresh.shorten(MOST_WRITES));
        self.writes.len() <= MOST_WRITES / 2
    }

    /// Whether another read of a warp can be written down.
    #[inline(always)]
    pub(super) fn has_room(&self, warp: u32) -> bool {
        self.reads[warp as usize].len() < MOST_READS
    }

    pub(super) fn is_half_full(&self, warp: usize) -> bool {
        self.reads[warp].len() > MOST_READS / 2
    }

    pub(super) fn has_many_layouts(&self) -> bool {
        self.layouts.len() >= MOST_LAYOUTS
    }

    /// Forgets all layouts, which no read may need any more.
    pub(super) fn drop_layouts(&mut self) {
        self.layouts.clear();
        self.id = Id::new();
    }

    /// Drops the reads of a warp that a later one repeats.
    pub(super) fn compact(&mut self, warp: usize) {
        drop_repeated(&mut self.reads[warp], |read| (read.layout, read.base, read.pc));
    }

    /// Whether a read of a warp later than `floor` meets the words of a layout.
    #[inline(always)]
    pub(super) fn is_met(
        &self,
        warp: usize,
        floor: u32,
        (layout, base): (&Layout, usize),
        (start, end): (usize, usize),
    ) -> bool {
        for read in self.reads[warp].iter().rev() {
            if read.clock <= floor {
                return false;
            }
            if (read.start as usize) < end && start < read.end as usize {
                let theirs = (&*self.layouts[read.layout as usize], read.base as usize);
                if meet(theirs, (layout, base)) {
                    return true;
                }
            }
        }
        false
    }
}

/// Drops what a later one with the same key repeats.
fn drop_repeated<T: Copy, K: Ord>(all: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let mut places: Vec<usize> = (0..all.len()).collect();
    let key = |place: usize| key(&all[place]);
    places.sort_unstable_by_key(|&place| (key(place), std::cmp::Reverse(place)));
    places.dedup_by_key(|place| key(*place));
    places.sort_unstable();
    *all = places.into_iter().map(|place| all[place]).collect();
}

/// Whether two layouts have a word in common.
#[inline(never)]
fn meet((one, base): (&Layout, usize), (other, other_base): (&Layout, usize)) -> bool {
    let run = |base: usize, &(first, count): &(i32, u32)| {
        let start = base.wrapping_add_signed(first as isize);
        (start, start.wrapping_add(count as usize))
    };
    let mut others = other.runs.iter().map(|r| run(other_base, r)).peekable();
    one.runs.iter().map(|r| run(base, r)).any(|(start, end)| {
        while others.next_if(|other| other.1 <= start).is_some() {}
        others.peek().is_some_and(|other| other.0 < end)
    })
}

impl Words {
    /// Moves the reads of a warp into the records of their words.
    #[inline(never)]
    pub(super) fn settle(&mut self, warp: usize) {
        let mut reads = std::mem::take(&mut self.recent.reads[warp]);
        for read in reads.drain(..) {
            let layout = self.recent.layouts[read.layout as usize].clone();
            self.record_reads(warp, &read, &layout);
            let (start, end) = (read.start as usize, read.end as usize);
            self.recent.mark(warp as u32, start, end, RECORDED);
        }
        self.recent.reads[warp] = reads;
    }

    /// Moves the writes that may be at words `start` to before `end` into the records of their words, with all that came before
    /// them.
    #[inline(never)]
    pub(super) fn settle_writes(&mut self, start: usize, end: usize) {
        let count = self.recent.writes_until(start, end);
        if count == 0 {
            return;
        }
        let mut writes = std::mem::take(&mut self.recent.writes);
        for write in writes.drain(..count) {
            let layout = self.recent.layouts[write.layout as usize].clone();
            self.record_writes(&write, &layout);
        }
        self.recent.writes = writes;
        self.recent.fresh.iter_mut().for_each(|fresh| fresh.shorten(count));
    }
}
