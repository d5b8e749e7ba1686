//! What has happened since all threads of the CTA last met at a barrier: which blocks of words who has touched, and what each
//! warp has read.
//!
//! What came before such a barrier everybody knows, so that it races with nothing. Of what came after, most is told apart by
//! the block: a tile that is only read, or one that a warp keeps to itself. Reads are written down as accesses, not word by
//! word; the few that a later write meets go into the records of their words then.

use std::sync::Arc;

use super::{Access, Words};
use crate::checks::layout::Layout;
use crate::checks::order::Order;
use crate::kept::{Id, Kept};

/// Words of a block.
const BLOCK: usize = 64;
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

impl Recent {
    pub(super) fn reset(&mut self, words: usize, warps: usize) {
        self.id = Id::new();
        self.blocks.clear();
        self.blocks.resize(words.div_ceil(BLOCK), 0);
        self.reads.resize_with(warps, Vec::new);
        self.reads.iter_mut().for_each(Vec::clear);
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
        let (mut flags, mut others) = (0, 0);
        if let Some(blocks) = self.blocks.get(block(start)..=block(end.saturating_sub(1))) {
            for &state in blocks {
                let own = state & OWNER;
                others |= u16::from((own != 0) & (own != me));
                flags |= state;
            }
        }
        Look { others: others != 0, flags }
    }

    /// A warp touches the blocks of words `start` to before `end`.
    #[inline(always)]
    pub(super) fn mark(&mut self, warp: u32, start: usize, end: usize, flags: u16) {
        let me = owner(warp);
        if let Some(blocks) = self.blocks.get_mut(block(start)..=block(end.saturating_sub(1))) {
            for state in blocks {
                let own = *state & OWNER;
                let by = if (own == 0) | (own == me) { me } else { SEVERAL };
                *state |= by | flags;
            }
        }
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

    /// The number of a layout; `kept` is where it was last found.
    #[inline(always)]
    pub(super) fn keep(&mut self, layout: &Arc<Layout>, kept: &mut Kept) -> u32 {
        if !kept.is_of(&self.id) {
            *kept = Kept::new(&self.id, self.layouts.len() as u32);
            self.layouts.push(layout.clone());
        }
        kept.index()
    }

    /// Writes down a read of a layout, by its number, from word `base` on. There has to be room.
    #[inline(always)]
    pub(super) fn read(
        &mut self,
        access: Access,
        clock: u32,
        (layout, base): (u32, usize),
        (start, end): (usize, usize),
    ) {
        let Access { warp, pc, whole, .. } = access;
        self.mark(warp, start, end, READ);
        let (base, start, end) = (base as u32, start as u32, end as u32);
        self.reads[warp as usize].push(Read { clock, pc, whole, base, layout, start, end });
    }

    /// Whether another read of a warp can be written down, and its layout be kept.
    #[inline(always)]
    pub(super) fn has_room(&self, warp: u32) -> bool {
        self.reads[warp as usize].len() < MOST_READS && self.layouts.len() < MOST_LAYOUTS
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
        let reads = &mut self.reads[warp];
        let mut places: Vec<u32> = (0..reads.len() as u32).collect();
        let key = |place: u32| {
            let Read { base, layout, pc, .. } = reads[place as usize];
            (layout, base, pc)
        };
        places.sort_unstable_by_key(|&place| (key(place), std::cmp::Reverse(place)));
        places.dedup_by_key(|place| key(*place));
        places.sort_unstable();
        *reads = places.into_iter().map(|place| reads[place as usize]).collect();
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
        let reads = std::mem::take(&mut self.recent.reads[warp]);
        for read in &reads {
            let layout = self.recent.layouts[read.layout as usize].clone();
            self.record_reads(warp, read, &layout);
            let (start, end) = (read.start as usize, read.end as usize);
            self.recent.mark(warp as u32, start, end, RECORDED);
        }
        let mut empty = reads;
        empty.clear();
        self.recent.reads[warp] = empty;
    }
}
