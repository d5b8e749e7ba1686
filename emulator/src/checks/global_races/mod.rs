//! Races in global memory between CTAs: two accesses to one byte, at least one of them a write, that nothing
//! orders, unless both are strong with a scope that includes the other.
//!
//! CTAs that run in one round do not synchronise in it, so their logs ([`log`]) are compared when it ends, one
//! after the other: the result does not depend on the threads of the host. Strong accesses, by which CTAs
//! synchronise, run when the round commits and are checked there. Each page of memory has the list of the
//! log entries that touch it, and of the logs that only read it; reads are compared only where some CTA writes, so that a page that
//! is only read costs a CTA one link. What this misses is listed in `SOUNDNESS.md`.

mod log;
mod own;
mod reads;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::order::{LAST_CLOCK, Objects, Order, Strong};
use super::stretch::{PAGE, Stretch};
use super::words::Access;
use log::Entry;
use log::{GUESS, STRONG};
pub(crate) use log::{Log, One, READS, WRITES};
pub(crate) use own::OwnRace;

/// Links of a launch at most, about 1.5 GiB with their entries. What is touched beyond is compared with what
/// is known and not remembered.
const MOST_LINKS: usize = 1 << 24;

/// No link.
const NONE: u32 = 0;
/// In place of an entry: what a log has read of the page.
const ALL_READS: u32 = u32::MAX;
/// Pages that are kept together.
const PAGES: usize = 512;

/// An entry of a log in the list of a page, or [`ALL_READS`].
#[derive(Debug, Clone, Copy)]
struct Link {
    log: u32,
    entry: u32,
    next: u32,
    /// Bytes of the page that it touches, from the first to before the last.
    bytes: (u16, u16),
}

/// Bytes of a page from the first to before the last that a stretch touches.
fn bytes_of(stretch: &Stretch, page: u64) -> (u16, u16) {
    let (first, end) = stretch.bounds();
    let offset = |at: u64| at.saturating_sub(page * PAGE).min(PAGE) as u16;
    (offset(first), offset(end))
}

/// First links of a page's lists.
#[derive(Debug, Clone, Copy, Default)]
struct Heads {
    reads: u32,
    writes: u32,
    strong: u32,
}

/// An access as a finding shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Party {
    pub(crate) cta: u64,
    pub(crate) warp: u8,
    pub(crate) lane: usize,
    pub(crate) pc: u32,
    pub(crate) kind: u8,
    pub(crate) bytes: u32,
}

/// Two accesses that nothing orders.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Race {
    /// The first byte that both access.
    pub(crate) address: u64,
    pub(crate) second: Party,
    pub(crate) first: Party,
}

/// The lists of all pages that are touched.
#[derive(Debug, Default)]
struct Pages {
    chunks: Vec<[Heads; PAGES]>,
    index: HashMap<u64, usize, BuildHasherDefault<Mix>>,
    /// Number and place of the chunk that was looked up last.
    last: Option<(u64, usize)>,
}

/// Spreads numbers that lie close together.
#[derive(Debug, Default)]
pub(crate) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

impl Pages {
    #[inline(always)]
    fn heads(&mut self, page: u64) -> &mut Heads {
        let number = page / PAGES as u64;
        let place = match self.last {
            Some((last, place)) if last == number => place,
            _ => self.place(number),
        };
        &mut self.chunks[place][page as usize % PAGES]
    }

    fn place(&mut self, number: u64) -> usize {
        let place = *self.index.entry(number).or_insert(self.chunks.len());
        if place == self.chunks.len() {
            self.chunks.push([Heads::default(); PAGES]);
        }
        self.last = Some((number, place));
        place
    }
}

/// A race of any kind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found {
    Own(OwnRace),
    Other(Race),
}

/// What all CTAs of a launch have accessed.
#[derive(Debug)]
pub(crate) struct GlobalRaces {
    logs: Vec<Option<Box<Log>>>,
    pages: Pages,
    links: Vec<Link>,
    objects: Objects,
    /// Strong accesses so far.
    strong: u32,
    /// Numbers of logs that are not needed any more.
    free: Vec<usize>,
    spare: Vec<(Vec<u32>, own::OwnPages)>,
}

impl GlobalRaces {
    pub(crate) fn new() -> GlobalRaces {
        GlobalRaces {
            logs: Vec::new(),
            pages: Pages::default(),
            links: vec![Link { log: 0, entry: 0, next: NONE, bytes: (0, 0) }],
            objects: Objects::default(),
            strong: 0,
            free: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// A number for the log of a CTA that starts, and the log.
    pub(crate) fn open(&mut self, cta: u64) -> (usize, Box<Log>) {
        let index = self.spare.pop().unwrap_or_default();
        let number = self.free.pop().unwrap_or_else(|| {
            self.logs.push(None);
            self.logs.len() - 1
        });
        (number, Box::new(Log::new(cta, index)))
    }

    /// Takes the log of a CTA that has stopped running.
    pub(crate) fn put(&mut self, number: usize, log: Box<Log>) {
        self.logs[number] = Some(log);
    }

    /// Gives the log back for another round.
    pub(crate) fn take(&mut self, number: usize) -> Option<Box<Log>> {
        self.logs[number].take()
    }

    /// The CTA of a log has ended.
    pub(crate) fn close(&mut self, number: usize) {
        let Some(log) = &mut self.logs[number] else { return };
        self.spare.push(log.close());
        // What no list refers to, nobody will ask for.
        if !log.listed {
            self.logs[number] = None;
            self.free.push(number);
        }
    }

    /// Ends the round of a log that no other can race with.
    pub(crate) fn skip(&mut self, number: usize) {
        if let Some(log) = &mut self.logs[number] {
            log.next_round();
        }
    }

    /// Compares what a log has of this round with everything known, and adds it to that.
    pub(crate) fn merge(&mut self, number: usize) -> Option<Race> {
        let mut log = self.logs[number].take()?;
        let mut race = self.merge_reads(number, &mut log);
        for &place in &log.fresh {
            if race.is_some() {
                break;
            }
            let entry = log.entries[place as usize];
            race = self.compare(&log, number, &entry);
            if place >= log.linked {
                log.listed |= self.link(number, place, &entry);
            }
        }
        log.linked = log.entries.len() as u32;
        log.next_round();
        self.logs[number] = Some(log);
        race
    }

    /// Compares what a log has only read in this round where others write, and adds it to the lists of its pages.
    fn merge_reads(&mut self, number: usize, log: &mut Log) -> Option<Race> {
        let mut written = Vec::new();
        for (page, before) in log.reads.pages_of_round(log.round()) {
            let heads = self.pages.heads(page);
            if heads.writes != NONE || heads.strong != NONE {
                written.push(page);
            }
            if !before && self.links.len() < MOST_LINKS {
                let next = std::mem::replace(&mut heads.reads, self.links.len() as u32);
                let bytes = (0, PAGE as u16);
                self.links.push(Link { log: number as u32, entry: ALL_READS, next, bytes });
                log.listed = true;
            }
        }
        if written.is_empty() {
            return None;
        }
        written.sort_unstable();
        let mut race = None;
        for read in log.reads.of_round(log.round()) {
            let mut may = false;
            read.stretch.pages(|page| may |= written.binary_search(&page).is_ok());
            if may && race.is_none() {
                race = self.compare(log, number, &read);
            }
        }
        race
    }

    /// Orders by a strong access of one lane while the round commits, and checks it.
    pub(crate) fn strong(
        &mut self,
        number: usize,
        order: &mut Order,
        access: Strong,
        (pc, bytes): (u32, u32),
    ) -> Option<Found> {
        let Strong { warp, lane, address, reads, writes, .. } = access;
        let mut log = self.logs[number].take()?;
        let clock = order.clock(warp);
        let stretch = Stretch { address, mask: 1 << lane, stride: 0, bytes };
        let own = Access { warp, pc, writes, strong: true, atomic: reads && writes, whole: false };
        let own_race = log.own_access(order, own, &stretch);
        order.strong_among(&mut self.objects, access);
        self.strong += 1;
        let kind = STRONG | if reads { READS } else { 0 } | if writes { WRITES } else { 0 };
        let (own, time) = (warp as u8, self.strong);
        let entry = Entry { stretch, pc, warp: own, issuer: own, kind, clock, version: 0, time };
        let mut race = None;
        if let Some(place) = log.note_strong(entry, &order.observed(warp, lane)) {
            let entry = log.entries[place as usize];
            race = self.compare(&log, number, &entry);
            if place >= log.linked {
                log.listed |= self.link(number, place, &entry);
                log.linked = log.entries.len() as u32;
            }
        }
        self.logs[number] = Some(log);
        race.map(Found::Other).or(own_race.map(Found::Own))
    }

    /// Adds an entry to the lists of its pages, unless they are full.
    fn link(&mut self, number: usize, place: u32, entry: &Entry) -> bool {
        let before = self.links.len();
        entry.stretch.pages(|page| {
            if self.links.len() >= MOST_LINKS {
                return;
            }
            let next = self.links.len() as u32;
            let heads = self.pages.heads(page);
            let head = match entry.kind {
                kind if kind & STRONG != 0 => &mut heads.strong,
                _ => &mut heads.writes,
            };
            let (before, bytes) = (std::mem::replace(head, next), bytes_of(&entry.stretch, page));
            let link = Link { log: number as u32, entry: place, next: before, bytes };
            self.links.push(link);
        });
        self.links.len() > before
    }

    /// The first known access that races with this one.
    fn compare(&mut self, log: &Log, number: usize, entry: &Entry) -> Option<Race> {
        if entry.clock == LAST_CLOCK {
            return None;
        }
        let (strong, writes) = (entry.kind & STRONG != 0, entry.kind & WRITES != 0);
        let mut found = None;
        entry.stretch.pages(|page| {
            let heads = *self.pages.heads(page);
            let lists = [
                (true, heads.writes),
                (writes, heads.reads),
                // Strong accesses do not race with each other.
                (!strong, heads.strong),
            ];
            for (_, head) in lists.into_iter().filter(|(wanted, _)| *wanted) {
                if found.is_none() {
                    found = self.search((head, page), log, number, entry);
                }
            }
        });
        found
    }

    /// The first access in the list of a page that races with this one.
    fn search(
        &mut self,
        (head, page): (u32, u64),
        log: &Log,
        number: usize,
        entry: &Entry,
    ) -> Option<Race> {
        let mut at = head;
        let (start, end) = bytes_of(&entry.stretch, page);
        while at != NONE {
            let Link { log: other, entry: place, next, bytes } = self.links[at as usize];
            at = next;
            if other as usize == number || bytes.1 <= start || end <= bytes.0 {
                continue;
            }
            let Some(other) = &mut self.logs[other as usize] else { continue };
            let race = if place == ALL_READS {
                other.reads.index();
                let mut reads = other.reads.on_page(page, usize::MAX);
                reads.find_map(|read| meet((log, entry), (other, &read)))
            } else {
                meet((log, entry), (other, &other.entries[place as usize]))
            };
            if race.is_some() {
                return race;
            }
        }
        None
    }
}

/// The race of an access with one of another CTA that was known before, if they race.
#[inline(always)]
fn meet((log, entry): (&Log, &Entry), (other, theirs): (&Log, &Entry)) -> Option<Race> {
    let kinds = theirs.kind | entry.kind;
    if kinds & WRITES == 0 || kinds & (GUESS | STRONG) == GUESS | STRONG {
        return None;
    }
    let (start, end) = entry.stretch.bounds();
    let (their_start, their_end) = theirs.stretch.bounds();
    if end <= their_start || their_end <= start || theirs.clock == LAST_CLOCK {
        return None;
    }
    let known = log.knowledge(entry).get(other.cta);
    let known = known.map(|warps| &warps[theirs.warp as usize]);
    if known.is_some_and(|seen| theirs.clock <= seen.floor()) {
        return None;
    }
    let seen = |lane| known.is_some_and(|seen| seen.covers(lane, theirs.clock));
    let (lane, other_lane, address) =
        entry.stretch.meets(&theirs.stretch).find(|&(_, lane, _)| !seen(lane))?;
    if observed(log, entry, theirs) {
        return None;
    }
    let party = |cta, entry: &Entry, lane| Party {
        cta,
        warp: entry.issuer,
        lane,
        pc: entry.pc,
        kind: entry.kind,
        bytes: entry.stretch.bytes,
    };
    Some(Race {
        address,
        second: party(log.cta, entry, lane),
        first: party(other.cta, theirs, other_lane),
    })
}

/// Whether a strong access of the same CTA to the same place has come after theirs and has seen it: what is
/// observed comes before (PTX ISA, "Memory Consistency Model: Causality order").
fn observed(log: &Log, entry: &Entry, theirs: &Entry) -> bool {
    let strong = |kind: u8| kind & STRONG != 0;
    if strong(entry.kind) || !strong(theirs.kind) {
        return false;
    }
    let own = |other: &&Entry| {
        strong(other.kind)
            && other.kind & READS != 0
            && other.time > theirs.time
            && other.stretch.address == theirs.stretch.address
    };
    log.entries.iter().find(own).is_some()
}
