//! What one CTA only reads of global memory.
//!
//! Mostly nobody writes there, so that a read costs little: the instruction, where its first lane reads and how the others
//! lie to that. Which pages are read is known at once; which reads touch a page, when somebody asks.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::ops::RangeInclusive;

use super::Mix;
use super::log::{Entry, GUESS, READS, WHOLE};
use crate::checks::stretch::{PAGE, Stretch};
use crate::exec::lanes::{Lanes, Mask};
use crate::exec::patterns::Pattern;
use crate::kept::{Id, Kept};

/// Reads of a log at most; a CTA that reads more in other ways is not followed further.
const MOST: usize = 1 << 22;
/// Reads from which on those that repeat others are dropped.
const COMPACTED: usize = 1 << 13;
/// Pages that are known to have been read in this round without a search.
const SEEN: usize = 64;
/// Reads of a round among which the guess of an atomic operation is looked for.
const GUESSES: usize = 4096;

type Numbers<T> = HashMap<u64, T, BuildHasherDefault<Mix>>;

/// Reads of one instruction of one warp.
#[derive(Debug, Clone, Copy)]
struct Read {
    /// What the addresses of its stretches are relative to.
    base: u64,
    pc: u32,
    clock: u32,
    /// What the warp knew of other CTAs.
    version: u32,
    round: u32,
    /// First of its stretches, and their number.
    first: u32,
    count: u8,
    /// As in [`Entry`].
    warp: u8,
    issuer: u8,
    kind: u8,
}

/// When, by whom and how something is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub(super) pc: u32,
    pub(super) warp: u8,
    pub(super) issuer: u8,
    pub(super) kind: u8,
    pub(super) clock: u32,
    pub(super) version: u32,
    pub(super) round: u32,
}

#[derive(Debug)]
pub(super) struct Reads {
    /// By round.
    all: Vec<Read>,
    stretches: Vec<Stretch>,
    id: Id,
    /// Reads from which on the next search for repetitions is worth its while.
    compact_at: usize,
    /// The rounds in which each page was read first and last.
    pages: Numbers<(u32, u32)>,
    /// Pages that are read in this round: the last ones, by their number modulo [`SEEN`], and all.
    seen: [u64; SEEN],
    round_pages: Vec<u64>,
    /// The reads that touch each page, of those before `indexed`.
    by_page: Numbers<Vec<u32>>,
    indexed: usize,
}

impl Default for Reads {
    fn default() -> Self {
        Reads {
            all: Vec::new(),
            stretches: Vec::new(),
            id: Id::new(),
            compact_at: COMPACTED,
            pages: HashMap::default(),
            seen: [u64::MAX; SEEN],
            round_pages: Vec::new(),
            by_page: HashMap::default(),
            indexed: 0,
        }
    }
}

impl Reads {
    /// Notes a read at places that a pattern knows, the first of them at `base`. Gives the pages that it touches and perhaps some between, if they are few.
    #[inline(always)]
    pub(super) fn add_pattern(
        &mut self,
        how: How,
        pattern: &mut Pattern,
        base: u64,
        mut new_page: impl FnMut(u64),
    ) -> Option<RangeInclusive<u64>> {
        if self.all.len() >= MOST {
            return None;
        }
        let Some((stretches, kept, span)) = pattern.known_stretches() else {
            let first = self.stretches.len();
            pattern.stretches(base, |stretch| self.stretches.push(stretch));
            self.add_from(how, first, new_page);
            return None;
        };
        if !kept.is_of(&self.id) {
            *kept = Kept::new(&self.id, self.stretches.len() as u32);
            self.stretches.extend_from_slice(stretches);
        }
        let read = how.read(base, kept.index(), stretches.len());
        let (low, high) = (base.wrapping_add_signed(span.0), base.wrapping_add_signed(span.1 - 1));
        if high.wrapping_sub(low) >= 2 * PAGE {
            self.add_read(read, new_page);
            return None;
        }
        let pages = low / PAGE..=high / PAGE;
        for page in pages.clone() {
            self.touch(page, how.round, &mut new_page);
        }
        self.push(read);
        Some(pages)
    }

    /// Notes a read of stretches.
    pub(super) fn add(
        &mut self,
        how: How,
        stretches: impl Iterator<Item = Stretch>,
        new_page: impl FnMut(u64),
    ) {
        if self.all.len() >= MOST {
            return;
        }
        let first = self.stretches.len();
        self.stretches.extend(stretches);
        self.add_from(how, first, new_page);
    }

    /// Notes a read of the stretches from `first` on, which have just been added.
    fn add_from(&mut self, how: How, first: usize, new_page: impl FnMut(u64)) {
        let count = self.stretches.len() - first;
        self.add_read(how.read(0, first as u32, count), new_page);
    }

    #[inline(never)]
    fn add_read(&mut self, read: Read, mut new_page: impl FnMut(u64)) {
        for index in 0..usize::from(read.count) {
            let stretch = self.stretch(&read, index);
            let (first, end) = stretch.bounds();
            for page in first / PAGE..=(end - 1) / PAGE {
                self.touch(page, read.round, &mut new_page);
            }
        }
        self.push(read);
    }

    #[inline(always)]
    fn push(&mut self, read: Read) {
        self.all.push(read);
        if self.all.len() >= self.compact_at {
            self.compact();
        }
    }

    #[inline(always)]
    fn touch(&mut self, page: u64, round: u32, new_page: &mut impl FnMut(u64)) {
        let seen = &mut self.seen[page as usize % SEEN];
        if *seen != page {
            *seen = page;
            self.touch_slowly(page, round);
            new_page(page);
        }
    }

    #[inline(never)]
    fn touch_slowly(&mut self, page: u64, round: u32) {
        let (_, last) = self.pages.entry(page).or_insert((round, u32::MAX));
        if *last != round {
            *last = round;
            self.round_pages.push(page);
        }
    }

    fn stretch(&self, read: &Read, index: usize) -> Stretch {
        let stretch = self.stretches[read.first as usize + index];
        Stretch { address: stretch.address.wrapping_add(read.base), ..stretch }
    }

    fn entries<'r>(&'r self, read: &'r Read) -> impl Iterator<Item = Entry> + 'r {
        let &Read { pc, warp, issuer, kind, clock, version, round, .. } = read;
        (0..usize::from(read.count)).map(move |index| {
            let stretch = self.stretch(read, index);
            Entry { stretch, pc, warp, issuer, kind, clock, version, time: round }
        })
    }

    /// The reads of this round.
    pub(super) fn of_round(&self, round: u32) -> impl Iterator<Item = Entry> {
        let first = self.all.partition_point(|read| read.round < round);
        self.all[first..].iter().flat_map(|read| self.entries(read))
    }

    /// The pages that are read in this round, and perhaps a few more; and whether each was read before.
    pub(super) fn pages_of_round(&self, round: u32) -> impl Iterator<Item = (u64, bool)> {
        let before = move |page| self.pages.get(page).is_some_and(|&(first, _)| first != round);
        self.round_pages.iter().map(move |page| (*page, before(page)))
    }

    pub(super) fn end_round(&mut self) {
        self.round_pages.clear();
        self.seen = [u64::MAX; SEEN];
    }

    /// Keeps only what later CTAs need.
    pub(super) fn close(&mut self) {
        self.all.shrink_to_fit();
        self.stretches.shrink_to_fit();
        self.pages = HashMap::default();
        self.round_pages = Vec::new();
    }

    /// Makes [`Reads::on_page`] ready.
    pub(super) fn index(&mut self) {
        for place in self.indexed..self.all.len() {
            let read = self.all[place];
            for index in 0..usize::from(read.count) {
                self.stretch(&read, index).pages(|page| {
                    let places = self.by_page.entry(page).or_default();
                    if places.last() != Some(&(place as u32)) {
                        places.push(place as u32);
                    }
                });
            }
        }
        self.indexed = self.all.len();
    }

    /// The last reads that touch a page, `most` at most, after [`Reads::index`].
    pub(super) fn on_page(&self, page: u64, most: usize) -> impl Iterator<Item = Entry> {
        let places = self.by_page.get(&page).map_or(&[][..], Vec::as_slice);
        let places = &places[places.len().saturating_sub(most)..];
        places.iter().flat_map(|&place| self.entries(&self.all[place as usize]))
    }

    /// Lanes of a warp are about to execute an atomic operation: what they have read there in this round was a guess.
    pub(super) fn guessed(&mut self, warp: u32, mask: Mask, at: &Lanes<u64>, round: u32) {
        let first = self.all.partition_point(|read| read.round < round);
        let first = first.max(self.all.len().saturating_sub(GUESSES));
        // The last stretches of which none is of these lanes alone: mostly the next read has the same.
        let mut others_too = None;
        for place in first..self.all.len() {
            let read = self.all[place];
            let same = Some((read.first, read.count)) == others_too;
            if u32::from(read.warp) != warp || read.kind & !WHOLE != READS || same {
                continue;
            }
            let is_guess = |s: &Stretch| s.mask & !mask == 0 && s.is(at);
            let stretches = read.first as usize..read.first as usize + usize::from(read.count);
            if !self.stretches[stretches].iter().any(|stretch| stretch.mask & !mask == 0) {
                others_too = Some((read.first, read.count));
                continue;
            }
            let all = (0..usize::from(read.count)).map(|index| self.stretch(&read, index));
            let (guesses, others): (Vec<_>, Vec<_>) = all.partition(is_guess);
            if others.is_empty() {
                self.all[place].kind |= GUESS;
            } else if !guesses.is_empty() {
                // One part of the lanes has guessed.
                let from = |reads: &mut Reads, part: &[Stretch], kind| {
                    let first = reads.stretches.len() as u32;
                    reads.stretches.extend_from_slice(part);
                    Read { base: 0, first, count: part.len() as u8, kind, ..read }
                };
                self.all[place] = from(self, &others, read.kind);
                let guess = from(self, &guesses, READS | GUESS);
                self.all.push(guess);
                (self.indexed, self.by_page) = (0, HashMap::default());
            }
        }
    }

    /// Drops reads that later ones repeat. What is left of a round has the knowledge of the first read and the clock of the
    /// last: whatever races with any read in between races with one of the two.
    #[cold]
    fn compact(&mut self) {
        let mut known = HashMap::new();
        let mut kept: Vec<(Read, Vec<Stretch>)> = Vec::new();
        for read in self.all.iter().rev() {
            let stretches: Vec<_> =
                (0..usize::from(read.count)).map(|index| self.stretch(read, index)).collect();
            let places: Vec<_> =
                stretches.iter().map(|s| (s.address, s.mask, s.stride, s.bytes)).collect();
            let key = (read.pc, read.warp, read.issuer, read.kind, places);
            let index = *known.entry(key).or_insert(kept.len());
            match kept.get_mut(index) {
                None => kept.push((*read, stretches)),
                Some((later, _)) if later.round == read.round => later.version = read.version,
                Some(_) => {}
            }
        }
        (self.id, self.indexed) = (Id::new(), 0);
        self.by_page.clear();
        self.all.clear();
        self.stretches.clear();
        let mut shapes = HashMap::new();
        for (read, stretches) in kept.into_iter().rev() {
            let base = stretches.first().map_or(0, |stretch| stretch.address);
            let relative = |s: &Stretch| (s.address.wrapping_sub(base), s.mask, s.stride, s.bytes);
            let shape: Vec<_> = stretches.iter().map(relative).collect();
            let first = *shapes.entry(shape).or_insert_with_key(|shape| {
                let first = self.stretches.len() as u32;
                self.stretches.extend(shape.iter().map(|&(address, mask, stride, bytes)| {
                    Stretch { address, mask, stride, bytes }
                }));
                first
            });
            self.all.push(Read { base, first, ..read });
        }
        self.compact_at = (2 * self.all.len()).max(COMPACTED);
    }
}

impl How {
    #[inline(always)]
    fn read(self, base: u64, first: u32, count: usize) -> Read {
        let How { pc, warp, issuer, kind, clock, version, round } = self;
        let count = count as u8;
        Read { base, pc, clock, version, round, first, count, warp, issuer, kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::lanes::ALL;
    use crate::exec::patterns::{Patterns, Slot};

    fn how(pc: u32, clock: u32, version: u32, round: u32) -> How {
        How { pc, warp: 0, issuer: 0, kind: READS, clock, version, round }
    }

    fn rows(start: u64, pitch: u64) -> Lanes<u64> {
        Lanes(std::array::from_fn(|lane| start + lane as u64 / 8 * pitch + lane as u64 % 8 * 16))
    }

    #[test]
    fn reads_come_back_by_page_with_all_their_stretches() {
        let (mut reads, mut patterns) = (Reads::default(), Patterns::default());
        let mut pages = Vec::new();
        for step in 0..6 {
            let at = rows(PAGE * (10 + step), 512);
            let pattern = patterns.of(Slot::of(3, 0), &at, ALL, 16);
            let first = pattern.first(&at);
            reads.add_pattern(how(3, 1, 0, 0), pattern, first, |page| pages.push(page));
        }
        assert_eq!(pages, [10, 11, 12, 13, 14, 15]);
        reads.index();
        for page in 10..16 {
            let starts: Vec<_> = reads.on_page(page, 9).map(|e| e.stretch.address).collect();
            assert_eq!(starts, [0, 512, 1024, 1536].map(|row| page * PAGE + row));
        }
        // The first of them came before the pattern was known.
        assert_eq!(reads.stretches.len(), 2 * 4);
        assert!(reads.on_page(16, 9).next().is_none());
    }

    #[test]
    fn pages_of_a_round() {
        let mut reads = Reads::default();
        let stretch = |page| Stretch { address: page * PAGE, mask: 1, stride: 0, bytes: 4 };
        let add = |reads: &mut Reads, page, round| {
            reads.add(how(1, 1, 0, round), std::iter::once(stretch(page)), |_| ());
        };
        for page in [5, 6, 5 + SEEN as u64, 5] {
            add(&mut reads, page, 0);
        }
        let all: Vec<_> = reads.pages_of_round(0).collect();
        assert_eq!(all, [(5, false), (6, false), (5 + SEEN as u64, false)]);
        reads.end_round();
        for page in [7, 6] {
            add(&mut reads, page, 1);
        }
        assert_eq!(reads.pages_of_round(1).collect::<Vec<_>>(), [(7, false), (6, true)]);
        assert_eq!(reads.of_round(1).count(), 2);
    }

    #[test]
    fn repetitions_are_dropped() {
        let mut reads = Reads::default();
        let rows = [0, 8192].map(|at| Stretch { address: at, mask: 3, stride: 4, bytes: 4 });
        let count = 3 * COMPACTED as u32;
        for step in 0..count {
            reads.add(how(step % 3, step + 1, step, step / (count - 30)), rows.into_iter(), |_| ());
        }
        assert!(reads.all.len() <= COMPACTED + 1, "{}", reads.all.len());
        reads.compact();
        let left: Vec<_> = reads.all.iter().map(|r| (r.pc, r.clock, r.version, r.round)).collect();
        let first = count - 30;
        assert_eq!(left, [0, 1, 2].map(|pc| (pc, count - 2 + pc, first + pc, 1)));
        assert_eq!(reads.stretches, rows);
        assert_eq!(reads.of_round(1).count(), 6);
        reads.index();
        assert_eq!(reads.on_page(2, 2).map(|e| e.pc).collect::<Vec<_>>(), [1, 1, 2, 2]);
    }

    #[test]
    fn a_part_of_the_lanes_has_guessed() {
        let mut reads = Reads::default();
        let parts = [(64, 0b0011), (256, 0b1100)].map(|(address, mask)| Stretch {
            address,
            mask,
            stride: 4,
            bytes: 4,
        });
        reads.add(how(1, 1, 0, 0), parts.into_iter(), |_| ());
        let at = Lanes(std::array::from_fn(|lane| [64, 68, 256, 260][lane % 4]));
        reads.guessed(0, 0b1110, &at, 0);
        let kinds: Vec<_> = reads.of_round(0).map(|e| (e.stretch.mask, e.kind)).collect();
        assert_eq!(kinds, [(0b0011, READS), (0b1100, READS | GUESS)]);
        reads.guessed(0, 0b0011, &at, 0);
        assert!(reads.of_round(0).all(|entry| entry.kind == READS | GUESS));
    }
}
