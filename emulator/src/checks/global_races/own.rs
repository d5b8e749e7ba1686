//! Races in global memory within one CTA: the last accesses to each word of the pages that it writes.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::ops::RangeInclusive;

use super::Mix;
use super::log::{STRONG_INSIDE, WHOLE};
use super::reads::Reads;
use crate::checks::order::Order;
use crate::checks::stretch::{PAGE, Stretch};
use crate::checks::words::{Access, Guess, Race, Words};

/// Pages that are followed at a time: of what a CTA writes, the last 2 MiB or more.
const MOST_PAGES: usize = 512;
/// Reads of a page that are looked at where it is written for the first time.
const MOST_READS: usize = 4096;
/// Bits of the set of pages that have been read.
const READ_BITS: u64 = 4096;

/// A race between threads of one CTA.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnRace {
    /// Its offset is that in its page.
    pub(crate) race: Race,
    pub(crate) address: u64,
    pub(crate) access: Access,
    pub(crate) bytes: u32,
}

/// The pages that a CTA has written.
#[derive(Debug, Default)]
pub(crate) struct OwnPages {
    pages: HashMap<u64, Box<Words>, BuildHasherDefault<Mix>>,
    #[allow(clippy::vec_box)] // Boxes move between here and there.
    spare: Vec<Box<Words>>,
    /// Pages that may have been read, by their number modulo the bits.
    read: Vec<u64>,
    /// Whether pages have been given up: what was read of them may have been a guess that an atomic operation has answered.
    given_up: bool,
}

impl OwnPages {
    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Whether the CTA has written a page.
    pub(crate) fn holds(&self, page: u64) -> bool {
        self.pages.contains_key(&page)
    }

    /// Whether the CTA has written any of these pages.
    pub(super) fn hold_any(&self, mut pages: RangeInclusive<u64>) -> bool {
        !self.pages.is_empty() && pages.any(|page| self.holds(page))
    }

    /// Forgets everything but the memory.
    pub(super) fn clear(&mut self) {
        self.spare.extend(self.pages.drain().map(|(_, words)| words));
        self.read.fill(0);
        self.given_up = false;
    }

    /// The first race of a plain read with an atomic operation, as its thread has not gone on to one there.
    pub(super) fn guess(&self) -> Option<OwnRace> {
        if self.given_up {
            return None;
        }
        let guesses = self.pages.iter().filter_map(|(page, words)| Some((page, words.guess()?)));
        let (page, Guess { access, bytes, race }) = guesses.min_by_key(|&(page, _)| page)?;
        Some(OwnRace { race, address: page * PAGE + race.offset, access, bytes: bytes as u32 })
    }

    /// A page is read, at least once in each round in which it is.
    pub(super) fn note_read(&mut self, page: u64) {
        self.read.resize(READ_BITS as usize / 64, 0);
        self.read[(page % READ_BITS / 64) as usize] |= 1 << (page % 64);
    }

    /// Checks and remembers an access; `reads` are those of the CTA so far, this one among them.
    #[inline(never)]
    pub(super) fn access(
        &mut self,
        order: &Order,
        access: Access,
        stretch: &Stretch,
        reads: &mut Reads,
    ) -> Option<OwnRace> {
        let mut found = None;
        stretch.pages(|page| {
            if found.is_some() || !access.writes && !self.pages.contains_key(&page) {
                return;
            }
            let Some(part) = stretch.within(page) else { return };
            let words = self.words(page, order, reads);
            found = words.stretch(order, access, &part).map(|race| OwnRace {
                race,
                address: page * PAGE + race.offset,
                access,
                bytes: stretch.bytes,
            });
        });
        found
    }

    /// The words of a page that has been written or is about to be.
    fn words(&mut self, page: u64, order: &Order, reads: &mut Reads) -> &mut Words {
        if self.pages.len() >= MOST_PAGES && !self.pages.contains_key(&page) {
            self.spare.extend(self.pages.drain().map(|(_, words)| words));
            self.given_up = true;
        }
        let (spare, read) = (&mut self.spare, &self.read);
        self.pages.entry(page).or_insert_with(|| {
            let mut words = spare.pop().unwrap_or_default();
            words.reset(PAGE as usize / 4, order.agent() as usize);
            let bits = read.get((page % READ_BITS / 64) as usize).copied().unwrap_or(0);
            if bits >> (page % 64) & 1 != 0 {
                reads.index();
                for entry in reads.on_page(page, MOST_READS).filter(|e| e.warp == e.issuer) {
                    let (warp, pc) = (entry.warp.into(), entry.pc);
                    let is = |kind| entry.kind & kind != 0;
                    let (strong, whole) = (is(STRONG_INSIDE), is(WHOLE));
                    let access = Access { warp, pc, writes: false, strong, atomic: false, whole };
                    if let Some(part) = entry.stretch.within(page) {
                        words.remember_read(access, entry.clock, &part);
                    }
                }
            }
            words
        })
    }
}
