//! What one CTA has accessed in global memory.
//!
//! CTAs run on several threads of the host, so each keeps a log of its own: of what it writes or accesses strongly, an entry for
//! each instruction and its addresses, so that a log grows with what is touched and not with time. Entries keep the knowledge of
//! the first access of a round and the clock of the last: whatever races with any access in between races with one of the two.
//! What is only read is written down apart ([`Reads`]).

use super::own::{OwnPages, OwnRace};
use super::reads::{How, Reads};
use crate::checks::order::Order;
use crate::checks::order::others::Others;
use crate::checks::stretch::Stretch;
use crate::checks::words::Access;
use crate::exec::lanes::{Lanes, Mask};
use crate::exec::patterns::Pattern;

/// The entry writes.
pub(crate) const WRITES: u8 = 1;
/// The entry reads.
pub(crate) const READS: u8 = 2;
/// The entry is of strong accesses whose scope includes other CTAs.
pub(crate) const STRONG: u8 = 4;
/// The entry reads what its thread is about to pass to an atomic operation there, which will find out whether
/// it is still so: the first read of a loop around `atom.cas`, as CUDA's headers have it. It does not race with
/// strong accesses.
pub(crate) const GUESS: u8 = 8;
/// The entry is of accesses that are strong among the threads of the CTA.
pub(crate) const STRONG_INSIDE: u8 = 16;
/// The entry reads, and the warp as a whole does so, see [`Access::whole`].
pub(crate) const WHOLE: u8 = 32;

/// Accesses of one instruction of one warp to the same addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) stretch: Stretch,
    pub(crate) pc: u32,
    /// Whose clock it is: a warp, or the agent of asynchronous copies.
    pub(crate) warp: u8,
    /// The warp whose instruction it is.
    pub(crate) issuer: u8,
    /// [`READS`], [`WRITES`], [`STRONG`], [`GUESS`], [`STRONG_INSIDE`], [`WHOLE`].
    pub(crate) kind: u8,
    /// Clock of the warp at the last access.
    pub(crate) clock: u32,
    /// What the warp knew of other CTAs at the first access of the round, see [`Log::knowledge`].
    pub(crate) version: u32,
    /// The round, or for strong accesses their number among all of the launch.
    pub(crate) time: u32,
}

/// A copy of one thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct One {
    pub(crate) thread: (u32, usize),
    pub(crate) pc: u32,
    pub(crate) address: u64,
    pub(crate) bytes: u32,
    pub(crate) writes: bool,
}

/// Entries of one CTA.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Number of the CTA in the grid.
    pub(crate) cta: u64,
    pub(crate) entries: Vec<Entry>,
    /// Entries with accesses of this round.
    pub(crate) fresh: Vec<u32>,
    /// Entries before this one can be found by others.
    pub(crate) linked: u32,
    /// Whether any list refers to an entry.
    pub(crate) listed: bool,
    round: u32,
    /// Open-addressed: entries by what they access.
    index: Vec<u32>,
    versions: Vec<Others>,
    pub(super) reads: Reads,
    own: OwnPages,
}

impl How {
    fn entry(self, stretch: Stretch) -> Entry {
        let How { pc, warp, issuer, kind, clock, version, round: time } = self;
        Entry { stretch, pc, warp, issuer, kind, clock, version, time }
    }
}

const EMPTY: u32 = u32::MAX;
/// Entries of a log at most; a CTA that touches more in other ways is not followed further.
const MOST: usize = 1 << 22;

impl Log {
    /// A log without entries; `index` is that of a log which has been closed.
    pub(crate) fn new(cta: u64, (mut index, own): (Vec<u32>, OwnPages)) -> Log {
        index.fill(EMPTY);
        Log { cta, index, own, versions: vec![Others::default()], ..Default::default() }
    }

    /// What an entry's warp knew of other CTAs.
    pub(crate) fn knowledge(&self, entry: &Entry) -> &Others {
        &self.versions[entry.version as usize]
    }

    /// Ends a round: what comes now is new.
    pub(crate) fn next_round(&mut self) {
        self.fresh.clear();
        self.reads.end_round();
        self.round += 1;
    }

    /// The number of this round.
    pub(super) fn round(&self) -> u32 {
        self.round
    }

    /// Keeps only what later CTAs need; gives the rest back.
    pub(crate) fn close(&mut self) -> (Vec<u32>, OwnPages) {
        self.fresh = Vec::new();
        self.entries.shrink_to_fit();
        self.reads.close();
        self.own.clear();
        (std::mem::take(&mut self.index), std::mem::take(&mut self.own))
    }

    /// What the CTA has written, if that is anything.
    pub(crate) fn written(&self) -> Option<&OwnPages> {
        (!self.own.is_empty()).then_some(&self.own)
    }

    /// Notes an access that orders nothing between CTAs; gives its race with one of the same CTA. `stretches` gives those of the
    /// lanes of a mask.
    #[inline(always)]
    pub(crate) fn note(
        &mut self,
        order: &Order,
        access: Access,
        mask: Mask,
        mut stretches: impl FnMut(Mask, &mut dyn FnMut(Stretch)),
    ) -> Option<OwnRace> {
        let mut race = None;
        for class in order.classes(access.warp) {
            let mask = mask & class;
            if mask == 0 {
                continue;
            }
            let how = self.how(order, access, mask);
            let Log { reads, own, .. } = self;
            if how.kind & WRITES == 0 {
                let mut all = Vec::new();
                stretches(mask, &mut |stretch| all.push(stretch));
                reads.add(how, all.iter().copied(), |page| own.note_read(page));
                if !own.is_empty() {
                    for stretch in &all {
                        race = race.or(own.access(order, access, stretch, reads));
                    }
                }
                continue;
            }
            stretches(mask, &mut |stretch| {
                self.add(how.entry(stretch));
                race = race.or(self.own.access(order, access, &stretch, &mut self.reads));
            });
        }
        race
    }

    /// As [`Log::note`], for a read at places that a pattern knows, by all of its lanes.
    #[inline(always)]
    pub(crate) fn note_pattern(
        &mut self,
        order: &Order,
        access: Access,
        pattern: &mut Pattern,
        first: u64,
    ) -> Option<OwnRace> {
        let how = self.how(order, access, pattern.mask());
        let Log { reads, own, .. } = self;
        let pages = reads.add_pattern(how, pattern, first, |page| own.note_read(page));
        if own.is_empty() || pages.is_some_and(|pages| !own.hold_any(pages)) {
            return None;
        }
        let mut race = None;
        pattern.stretches(first, |stretch| {
            race = race.or(own.access(order, access, &stretch, reads));
        });
        race
    }

    /// How lanes that know the same make an access.
    #[inline(always)]
    fn how(&mut self, order: &Order, access: Access, mask: Mask) -> How {
        let Access { warp, pc, .. } = access;
        let version = self.version(order.others(warp, mask.trailing_zeros() as usize));
        let (clock, kind, round, warp) = (order.clock(warp), kind(access), self.round, warp as u8);
        How { pc, warp, issuer: warp, kind, clock, version, round }
    }

    /// Checks an access against those of the same CTA.
    pub(crate) fn own_access(
        &mut self,
        order: &Order,
        access: Access,
        stretch: &Stretch,
    ) -> Option<OwnRace> {
        self.own.access(order, access, stretch, &mut self.reads)
    }

    /// Notes what a copy of one thread reads or writes; gives its race with an access of the same CTA, unless it
    /// lands on the way of others, at a clock that is not the thread's.
    pub(crate) fn note_one(
        &mut self,
        order: &Order,
        copy: One,
        landed: Option<(u32, u32)>,
    ) -> Option<OwnRace> {
        let One { thread: (issuer, lane), pc, address, bytes, writes } = copy;
        if bytes == 0 {
            return None;
        }
        let access =
            Access { warp: issuer, pc, writes, strong: false, atomic: false, whole: false };
        let (warp, clock) = landed.unwrap_or((issuer, order.clock(issuer)));
        let how = How { warp: warp as u8, clock, ..self.how(order, access, 1 << lane) };
        let stretch = Stretch { address, mask: 1 << lane, stride: 0, bytes };
        if writes {
            self.add(how.entry(stretch));
        } else {
            let Log { reads, own, .. } = self;
            reads.add(how, std::iter::once(stretch), |page| own.note_read(page));
        }
        let own = landed.is_none().then(|| self.own_access(order, access, &stretch));
        own.flatten()
    }

    /// The race of a plain read with an atomic operation of the same CTA, once all its threads have exited.
    pub(crate) fn guess(&self) -> Option<OwnRace> {
        self.own.guess()
    }

    /// Lanes of a warp are about to execute an atomic operation: what they have read there was a guess.
    pub(crate) fn guessed(&mut self, warp: u32, mask: Mask, at: &Lanes<u64>) {
        self.reads.guessed(warp, mask, at, self.round);
    }

    /// Notes a strong access of one lane with what it knows now, in place of the last one like it; gives its entry.
    pub(crate) fn note_strong(&mut self, mut entry: Entry, knows: &Others) -> Option<u32> {
        entry.version = self.version(knows);
        let place = self.find(&entry)?;
        self.entries[place as usize] = entry;
        Some(place)
    }

    #[inline(always)]
    fn version(&mut self, others: &Others) -> u32 {
        if others.is_empty() {
            return 0;
        }
        self.known_version(others)
    }

    fn known_version(&mut self, others: &Others) -> u32 {
        let known = self.versions.iter().rposition(|version| version.is(others));
        let index = known.unwrap_or_else(|| {
            self.versions.push(others.clone());
            self.versions.len() - 1
        });
        index as u32
    }

    #[inline(always)]
    fn add(&mut self, entry: Entry) {
        let count = self.entries.len();
        let Some(place) = self.find(&entry) else { return };
        let known = &mut self.entries[place as usize];
        (known.clock, known.kind) = (entry.clock, entry.kind);
        if place as usize == count {
            self.fresh.push(place);
        } else if known.time != entry.time {
            (known.time, known.version) = (entry.time, entry.version);
            self.fresh.push(place);
        }
    }

    /// The entry for the same accesses, or a new one like this; none if there are too many.
    #[inline(always)]
    fn find(&mut self, entry: &Entry) -> Option<u32> {
        if self.entries.len() * 2 >= self.index.len() {
            self.grow();
        }
        let mask = self.index.len() - 1;
        let mut slot = hash(entry) & mask;
        loop {
            let place = self.index[slot];
            if place == EMPTY {
                break;
            }
            let known = &self.entries[place as usize];
            if known.stretch == entry.stretch && known.pc == entry.pc && known.warp == entry.warp {
                return Some(place);
            }
            slot = (slot + 1) & mask;
        }
        if self.entries.len() >= MOST {
            return None;
        }
        let place = self.entries.len() as u32;
        self.index[slot] = place;
        self.entries.push(*entry);
        Some(place)
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.index.len() * 2).max(256);
        self.index.clear();
        self.index.resize(size, EMPTY);
        for (place, entry) in self.entries.iter().enumerate() {
            let mut slot = hash(entry) & (size - 1);
            while self.index[slot] != EMPTY {
                slot = (slot + 1) & (size - 1);
            }
            self.index[slot] = place as u32;
        }
    }
}

#[inline(always)]
fn kind(access: Access) -> u8 {
    let what = match (access.writes, access.atomic) {
        (false, _) if access.whole => READS | WHOLE,
        (false, _) => READS,
        (true, false) => WRITES,
        (true, true) => READS | WRITES,
    };
    what | if access.strong { STRONG_INSIDE } else { 0 }
}

#[inline(always)]
fn hash(entry: &Entry) -> usize {
    let place = u64::from(entry.pc) << 5 | u64::from(entry.warp);
    let mixed = entry.stretch.address.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ place.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    (mixed >> 24) as usize
}
